/* smp.c: application processors: INIT, SIPI, trampoline (SDM 3A, 8.4.4), and IPIs between pCPUs. */
#include "core/smp.h"

#include "core/machine.h"
#include "core/atomic.h"
#include "core/errno.h"
#include "core/lapic.h"
#include "core/mcheck.h"
#include "core/mm.h"
#include "core/print.h"
#include "core/sched.h"
#include "core/string.h"
#include "core/time.h"
#include "core/trap.h"
#include "core/x86.h"
#include "domain/hvm.h"

#define AP_TRAMPOLINE_PA 0x8000

extern char ap_trampoline[], ap_trampoline_end[], ap_cr3[], ap_stack[];
extern uint64_t host_cr3;

struct cpu *cpus[MAX_CPUS];
unsigned nr_cpus;
static volatile uint32_t ap_answer; /* 0: not yet */
enum { AP_READY = 1, AP_UNFIT };
static struct cpu
    *ap_expected; /* the one that may come up now; NULL once it has, or was given up */

struct cpu *cpu_create(unsigned id, uint32_t apic_id, void *stack)
{
    struct cpu *c = stack;
    memset(c, 0, sizeof(*c));
    c->id = id;
    c->apic_id = apic_id;
    sched_cpu_init(c);
    cpus[id] = c;
    return c;
}

void cpu_kick(struct cpu *c)
{
    if (c != this_cpu())
        lapic_send(c->apic_id, VECTOR_KICK);
}

void cpu_raise(struct cpu *c, uint32_t bits)
{
    if ((atomic_or(&c->work, bits) & bits) != bits)
        cpu_kick(c);
}

static void kick_interrupt(unsigned data)
{
    (void)data;
    lapic_eoi();
}

/* In the hypervisor, or from a guest whose CPU does not take posted interrupts. */
static void posted_interrupt(unsigned data)
{
    struct vcpu *v = this_cpu()->curr;

    (void)data;
    lapic_eoi();
    if (v)
        atomic_or(&v->work, VWORK_EVENT);
}

int cpu_start(struct cpu *c)
{
    trap_set_irq(VECTOR_KICK, kick_interrupt, 0);
    trap_set_irq(VECTOR_POSTED, posted_interrupt, 0);
    timers_cpu_init();
    mcheck_cpu_up();
    int err = hvm_ops->cpu_up(c);
    if (err)
        log_err("CPU %u: cannot turn on %s: error %d", c->id, hvm_ops->name, err);
    c->online = !err;
    return err;
}

static void __noreturn stay_out(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

void ap_main(void)
{
    struct cpu *c = this_cpu();
    if (!atomic_cas(&ap_expected, c, NULL))
        stay_out(); /* too late: its number may be another's by now */
    trap_load_idt();
    lapic_init();
    int err = cpu_start(c);
    atomic_store(&ap_answer, err ? AP_UNFIT : AP_READY);
    if (err)
        stay_out();
    cpu_loop();
}

static void delay_us(uint64_t us)
{
    uint64_t end = now_ns() + us * NS_PER_US;
    while (now_ns() < end)
        cpu_relax();
}

/* Where in the trampoline a symbol of it is, bytes. */
static size_t trampoline_offset(const char *symbol)
{
    return (uint64_t)symbol - (uint64_t)ap_trampoline;
}

static bool start_ap(struct cpu *c)
{
    uint8_t *page = pa_to_virt(AP_TRAMPOLINE_PA);
    memcpy(page, ap_trampoline, trampoline_offset(ap_trampoline_end));
    *(uint64_t *)(page + trampoline_offset(ap_cr3)) = host_cr3;
    *(uint64_t *)(page + trampoline_offset(ap_stack)) = (uint64_t)c + STACK_SIZE;
    ap_answer = 0;
    atomic_store(&ap_expected, c);
    lapic_send_init(c->apic_id);
    delay_us(10000);
    for (int attempt = 0; attempt < 2 && !ap_answer; attempt++) {
        lapic_send_startup(c->apic_id, AP_TRAMPOLINE_PA >> PAGE_SHIFT);
        uint64_t end = now_ns() + (attempt ? NS_PER_SEC : 10 * NS_PER_MS);
        while (!atomic_load(&ap_answer) && now_ns() < end)
            cpu_relax();
    }
    if (!ap_answer && !atomic_cas(&ap_expected, c, NULL)) { /* it is on its way just now */
        uint64_t end = now_ns() + NS_PER_SEC;
        while (!atomic_load(&ap_answer) && now_ns() < end)
            cpu_relax();
    }
    return ap_answer == AP_READY;
}

void smp_boot_all(unsigned max_cpus)
{
    static uint8_t saved[PAGE_SIZE];
    uint32_t bsp = lapic_id();
    memcpy(saved, pa_to_virt(AP_TRAMPOLINE_PA), PAGE_SIZE);
    for (unsigned i = 0; i < acpi_info.nr_cpus && nr_cpus < MIN(max_cpus, MAX_CPUS); i++) {
        uint32_t id = acpi_info.cpu[i].apic_id;
        if (id == bsp || !acpi_info.cpu[i].enabled)
            continue;
        void *stack = pages_alloc(2);
        if (!stack) {
            log_err("CPU with APIC id %u left out: no memory", id);
            continue;
        }
        struct cpu *c = cpu_create(nr_cpus, id, stack);
        if (start_ap(c)) {
            nr_cpus++;
        } else {
            log_err("CPU with APIC id %u %s: left out", id,
                    ap_answer ? "cannot run guests" : "does not answer");
            cpus[c->id] = NULL; /* its stack is kept: it may yet wake up on it */
        }
    }
    memcpy(pa_to_virt(AP_TRAMPOLINE_PA), saved, PAGE_SIZE);
    log_info("%u CPU%s", nr_cpus, nr_cpus == 1 ? "" : "s");
}

void smp_stop_others(void)
{
    for (unsigned i = 0; i < nr_cpus; i++) {
        if (cpus[i] && cpus[i] != this_cpu())
            cpu_raise(cpus[i], SOFTIRQ_STOP);
    }
}
