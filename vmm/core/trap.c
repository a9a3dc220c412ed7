/* trap.c: the IDT, dispatch of host interrupts, and recovery from expected faults. */
#include "core/trap.h"

#include "core/console.h"
#include "core/cpu.h"
#include "core/errno.h"
#include "core/lapic.h"
#include "core/mcheck.h"
#include "core/watchdog.h"
#include "core/x86.h"

struct idt_gate {
    uint16_t offset0, selector;
    uint8_t ist, type;
    uint16_t offset1;
    uint32_t offset2, zero;
} __packed;

struct fixup {
    uint64_t fault, resume;
};

extern const uint64_t trap_stubs[256];
extern struct fixup fixup_start[], fixup_end[];

static struct idt_gate idt[256] __aligned(16);
static struct {
    irq_fn *fn;
    unsigned data;
} irq_table[256];
static spinlock_t irq_table_lock;

int rdmsr_safe(uint32_t msr, uint64_t *val)
{
    uint32_t lo = 0, hi = 0;
    int err = -EFAULT;
    __asm__ volatile("1: rdmsr\n\txor %0, %0\n2:\n\t" FIXUP("1b", "2b")
                     : "+r"(err), "+a"(lo), "+d"(hi)
                     : "c"(msr));
    *val = lo | (uint64_t)hi << 32;
    return err;
}

int wrmsr_safe(uint32_t msr, uint64_t val)
{
    int err = -EFAULT;
    __asm__ volatile("1: wrmsr\n\txor %0, %0\n2:\n\t" FIXUP("1b", "2b")
                     : "+r"(err)
                     : "c"(msr), "a"((uint32_t)val), "d"((uint32_t)(val >> 32))
                     : "memory");
    return err;
}

void trap_init(void)
{
    for (unsigned i = 0; i < 256; i++) {
        uint64_t a = trap_stubs[i];
        idt[i] = (struct idt_gate){.offset0 = (uint16_t)a,
                                   .selector = 8,
                                   .type = 0x8e,
                                   .offset1 = (uint16_t)(a >> 16),
                                   .offset2 = (uint32_t)(a >> 32)};
    }
    trap_load_idt();
}

void trap_load_idt(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __packed p = {sizeof(idt) - 1, (uint64_t)idt};
    __asm__ volatile("lidt %0" ::"m"(p));
}

void trap_set_irq(uint8_t vector, irq_fn *fn, unsigned data)
{
    irq_table[vector].data = data;
    irq_table[vector].fn = fn;
}

int trap_alloc_vector(irq_fn *fn, unsigned data)
{
    int found = -ENOSPC;
    spin_lock(&irq_table_lock);
    for (unsigned v = VECTOR_FIRST_DEVICE; v <= VECTOR_LAST_DEVICE && found < 0; v++) {
        if (!irq_table[v].fn) {
            trap_set_irq((uint8_t)v, fn, data);
            found = (int)v;
        }
    }
    spin_unlock(&irq_table_lock);
    return found;
}

static void __noreturn trap_fatal(struct trap_frame *f)
{
    console_set_levels(LOG_DEBUG, LOG_DEBUG);
    log_err("exception %lu error %lx at %lx:%lx rflags %lx cr2 %lx", f->vector, f->error, f->cs,
            f->rip, f->rflags, read_cr2());
    log_err("rax %016lx rcx %016lx rdx %016lx rbx %016lx", f->rax, f->rcx, f->rdx, f->rbx);
    log_err("rsp %016lx rbp %016lx rsi %016lx rdi %016lx", f->rsp, f->rbp, f->rsi, f->rdi);
    log_err("r8  %016lx r9  %016lx r10 %016lx r11 %016lx", f->r8, f->r9, f->r10, f->r11);
    log_err("r12 %016lx r13 %016lx r14 %016lx r15 %016lx", f->r12, f->r13, f->r14, f->r15);
    if (f->vector == 18)
        mcheck_log();
    backtrace(f->rip, f->rbp);
    panic("unexpected exception %lu in Ringfence", f->vector);
}

void trap_irq(uint8_t vector)
{
    if (irq_table[vector].fn)
        irq_table[vector].fn(irq_table[vector].data);
    else if (vector != VECTOR_SPURIOUS)
        lapic_eoi();
}

void trap_dispatch(struct trap_frame *f)
{
    struct cpu *c = this_cpu();

    if (f->vector >= 32) {
        trap_irq((uint8_t)f->vector);
        return;
    }
    if (f->vector == 2) {
        c->nmi_count++;
        watchdog_nmi(f->rip, f->rbp);
        return;
    }
    if (f->vector ==
        1) { /* we never step or watch: a guest's own, that Bochs' SVM lets out of VMRUN */
        f->rflags &= ~(uint64_t)0x100;
        return;
    }
    size_t fixups = ((uint64_t)fixup_end - (uint64_t)fixup_start) / sizeof(struct fixup);
    for (size_t i = 0; i < fixups; i++) {
        if (fixup_start[i].fault == f->rip) {
            f->rip = fixup_start[i].resume;
            return;
        }
    }
    trap_fatal(f);
}
