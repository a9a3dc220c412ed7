/* exits.c: what an exit costs, seen from inside: the operations that make a guest leave, timed with the TSC.
 *
 * Under QEMU's -icount a TSC tick is an instruction. Each figure is printed as 11 batches, "BENCH name v...", the
 * batch divided by its operations, with the loop's two or three instructions in it. ci/bench-exits runs it under
 * Ringfence, Xen and KVM, and on the bare machine.
 */
#include "micro.h"
#include <xen/xen.h>
#include <xen/event_channel.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/vcpu.h>

#ifndef ONLY
#define BATCHES   11
#define ROUNDS(n) (n)
#else /* ci/bench-trace: one test again and again, a few operations at a time */
#define BATCHES   1
#define ROUNDS(n) 4
#endif
#define APIC(r)  MMIO32(0xfee00000 + (r))
#define EOI      0xb0
#define ICR      0x300
#define ICR2     0x310
#define ICR_SELF (1u << 18)

enum { VEC_SELF = 0x50, VEC_AP, VEC_BSP, VEC_EVENT, VEC_TIMER };

static uint64_t values[BATCHES];

static void report(const char *name)
{
#ifdef ONLY
    (void)name;
    return;
#endif
    say("BENCH %s %u %u %u %u %u %u %u %u %u %u %u", name, (unsigned)values[0], (unsigned)values[1], (unsigned)values[2],
        (unsigned)values[3], (unsigned)values[4], (unsigned)values[5], (unsigned)values[6], (unsigned)values[7],
        (unsigned)values[8], (unsigned)values[9], (unsigned)values[10]);
}

/* Time n times op, 11 batches; a first round that is not counted warms everything up. */
#define BENCH(name, n, op)                                                                                                  \
    do {                                                                                                                    \
        for (unsigned b = 0; b <= BATCHES; b++) {                                                                           \
            uint64_t begin = rdtsc();                                                                                       \
            for (unsigned i = 0; i < (b ? ROUNDS(n) : 2); i++) {                                                            \
                op;                                                                                                         \
                barrier();                                                                                                  \
            }                                                                                                               \
            if (b) values[b - 1] = (rdtsc() - begin) / ROUNDS(n);                                                           \
        }                                                                                                                   \
        report(name);                                                                                                       \
    } while (0)
/* The same where op says how long it took. */
#define BENCH_SPAN(name, n, op)                                                                                             \
    do {                                                                                                                    \
        for (unsigned b = 0; b <= BATCHES; b++) {                                                                           \
            uint64_t sum = 0;                                                                                               \
            for (unsigned i = 0; i < (b ? ROUNDS(n) : 2); i++) sum += (op);                                                 \
            if (b) values[b - 1] = sum / ROUNDS(n);                                                                         \
        }                                                                                                                   \
        report(name);                                                                                                       \
    } while (0)

/* ---- handlers: the stamp is taken first, then the LAPIC gets its EOI ------------------------------------- */
volatile uint64_t stamp[256];
#define STAMP(vector)                                                                                                       \
    "stamp_" #vector ": push %rax; push %rdx; rdtsc; shl $32, %rdx; or %rdx, %rax\n"                                        \
    "mov %rax, stamp + 8 * " #vector "; mov $0xfee000b0, %eax; movl $0, (%rax); pop %rdx; pop %rax; iretq\n"
__asm__(".text\n" STAMP(0x50) STAMP(0x51) STAMP(0x52) STAMP(0x53) STAMP(0x54));
extern char stamp_0x50[], stamp_0x51[], stamp_0x52[], stamp_0x53[], stamp_0x54[];

static void wait_for_interrupt(void) { __asm__ volatile("sti; hlt; cli" ::: "memory"); }

static void apic_on(void)
{
    wrmsr(0x1b, rdmsr(0x1b) | 0x800);
    APIC(0xf0) = 0x1ff;
    APIC(0x80) = 0;
    APIC(0x320) = APIC(0x350) = APIC(0x360) = 0x10000;
    idt_set(0x50, stamp_0x50, 0);
    idt_set(0x51, stamp_0x51, 0);
    idt_set(0x52, stamp_0x52, 0);
    idt_set(0x53, stamp_0x53, 0);
    idt_set(0x54, stamp_0x54, 0);
}

/* ---- the processor ---------------------------------------------------------------------------------------- */
static void loop(void) { BENCH("loop", 1000, ); }
static void op_cpuid(void) { BENCH("cpuid", 1000, cpuid(1, 0)); }
static void op_rdmsr(void) { BENCH("rdmsr", 1000, rdmsr(0x1b)); }

static void nothing(void)
{
    unsigned long a = 17, b = 0, c = 0, d = 0; /* xen_version(XENVER_version) */
    if (xen_base)
        __asm__ volatile("call *%4"
                         : "+a"(a), "+D"(b), "+S"(c), "+d"(d)
                         : "r"(hypercall_page + 32 * __HYPERVISOR_xen_version)
                         : "memory", "rcx", "r8", "r10", "r11");
    else
        __asm__ volatile("vmmcall" : "+a"(a), "+b"(b), "+c"(c), "+d"(d)::"memory");
}
static void op_hypercall(void)
{
    if (xen_base || cpuid(0x40000000, 0).b == 0x4b4d564b) /* "KVMK" */
        BENCH("hypercall", 1000, nothing());
}

/* ---- ports and pages ---------------------------------------------------------------------------------------- */
static void ports_here(void)
{
    uint16_t pm = xen_base ? 0xb008 : 0x608; /* where hvmloader's and SeaBIOS's tables say */
    BENCH("pmtimer", 1000, inl(pm));
    BENCH("pit", 1000, inb(0x40));
    outb(0x70, 0);
    BENCH("rtc", 1000, inb(0x71));
    BENCH("unclaimed", 1000, inb(0x5678));
}
static void ports_device_model(void)
{
    BENCH("qemu_in", 40, inb(0x3fb));
    BENCH("qemu_out", 40, outb(0x3ff, (uint8_t)i));
}

static uint32_t pci(unsigned dev, unsigned offset)
{
    outl(0xcf8, 0x80000000u | dev << 11 | offset);
    return inl(0xcfc);
}
static void pages_device_model(void)
{
    for (unsigned dev = 0; dev < 32; dev++) {
        if (pci(dev, 8) >> 16 != 0x0300) continue;
        /* The standard VGA card's registers: what is behind its own is RAM to nobody. */
        volatile uint8_t *regs = (volatile uint8_t *)(unsigned long)(pci(dev, 0x18) & ~15u);
        if (regs) BENCH("qemu_mmio_write", 40, regs[0xf00] = 0);
    }
    volatile uint8_t *vga = (volatile uint8_t *)0xa0000;
    BENCH("vga_write", 40, *vga = 0);
}

/* ---- the local APIC ------------------------------------------------------------------------------------------ */
static uint64_t self_ipi(void)
{
    __asm__ volatile("sti; nop");
    uint64_t begin = rdtsc();
    APIC(ICR) = ICR_SELF | VEC_SELF;
    __asm__ volatile("nop; cli");
    return stamp[VEC_SELF] - begin;
}
static void lapic(void)
{
    apic_on();
    BENCH("lapic_read", 1000, APIC(0x20));
    BENCH("lapic_eoi", 1000, APIC(EOI) = 0);
    BENCH_SPAN("self_ipi", 500, self_ipi());
}

/* From the moment at which the timer was due to its handler, out of HLT. */
static uint64_t timer_late(unsigned ticks, uint64_t ticks_tsc)
{
    uint64_t begin = rdtsc();
    APIC(0x380) = ticks;
    wait_for_interrupt();
    return stamp[VEC_TIMER] - begin - ticks_tsc;
}
static void halt_timer(void)
{
    apic_on();
    APIC(0x3e0) = 0xb;
    APIC(0x320) = 0x10000 | VEC_TIMER;
    APIC(0x380) = ~0u;
    uint64_t begin = rdtsc();
    uint32_t count = APIC(0x390);
    while (rdtsc() - begin < 20000000)
        ;
    uint64_t tsc = rdtsc() - begin;
    uint32_t passed = count - APIC(0x390);
    APIC(0x380) = 0;
    uint32_t ticks = (uint32_t)((uint64_t)passed * 100000 / tsc);
    APIC(0x320) = VEC_TIMER;
    BENCH_SPAN("halt_timer", 20, timer_late(ticks, (uint64_t)ticks * tsc / passed));
    APIC(0x320) = 0x10000;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */
#define TOUCHED 0x40000000ul /* 2 MiB there are mapped page by page */
#define BACKING 0x1000000ul
uint64_t touch_table[512] __attribute__((aligned(4096)));
__asm__(".text\n"
        "touch_fault: push %rax; mov %cr2, %rax; shr $12, %rax; and $511, %eax\n"
        "orb $1, touch_table(, %rax, 8); pop %rax; add $8, %rsp; iretq\n");
extern char touch_fault[], stubs[];

/* A page fault of the guest's own and the first access to the page: no exit is needed for either. */
static void first_touch(void)
{
    uint64_t *pdpt = (uint64_t *)(*(uint64_t *)(read_cr3() & ~0xffful) & ~0xffful);
    uint64_t *pd = (uint64_t *)(pdpt[TOUCHED >> 30] & ~0xffful), old = pd[0];
    pd[0] = (uint64_t)touch_table + 7;
    idt_set(14, touch_fault, 0);
    for (unsigned b = 0; b < BATCHES; b++) {
        for (unsigned i = 0; i < 512; i++) touch_table[i] = (BACKING + (uint64_t)b * 0x200000 + i * 4096ul) | 6;
        write_cr3(read_cr3());
        uint64_t begin = rdtsc();
        for (unsigned i = 0; i < 512; i++) *(volatile uint8_t *)(TOUCHED + i * 4096ul) = 1;
        values[b] = (rdtsc() - begin) / 512;
    }
    idt_set(14, stubs + 16 * 14, 0);
    pd[0] = old;
    write_cr3(read_cr3());
    report("first_touch");
}

/* ---- two vCPUs --------------------------------------------------------------------------------------------------- */
extern char ap_blob[], ap_blob_end[];
static uint8_t ap_stack_area[8192] __attribute__((aligned(16)));
uint32_t ap_stack; /* for ap.asm */
static volatile unsigned ap_up;
static void (*volatile ap_job)(void);
static volatile bool ap_stop;
static volatile unsigned ap_rounds;
static volatile uint32_t ap_id;

void ap_main(void)
{
    apic_on();
    ap_id = APIC(0x20);
    ap_up = 1;
    for (;;) {
        while (!ap_job) pause();
        ap_job();
        ap_job = NULL;
    }
}
static bool start_ap(void)
{
    if (ap_up) return true;
    ap_stack = (uint32_t)(unsigned long)ap_stack_area + sizeof ap_stack_area;
    memcpy((void *)0x8000, ap_blob, (size_t)(ap_blob_end - ap_blob));
    APIC(ICR) = 0xc4500;
    for (unsigned i = 0; i < 1000000; i++) pause();
    APIC(ICR) = 0xc4608;
    for (unsigned i = 0; i < 5000000 && !ap_up; i++) pause();
    return ap_up;
}
/* Give the processor away, so that the other vCPU of a one-CPU machine gets on. */
static void let_ap_run(void)
{
    if (xen_base)
        hypercall(__HYPERVISOR_sched_op, SCHEDOP_yield, 0, 0, 0, 0);
    else
        pause();
}
static void run_ap(void (*job)(void))
{
    ap_stop = false;
    ap_rounds = 0;
    ap_job = job;
    while (!ap_rounds) let_ap_run();
}

static void ipi(uint32_t dest, unsigned vector)
{
    APIC(ICR2) = dest;
    APIC(ICR) = vector;
}
static void ap_pong(void)
{
    ap_rounds = 1;
    for (;;) {
        wait_for_interrupt();
        bool last = ap_stop;
        ipi(0, VEC_BSP);
        if (last) return;
    }
}
static uint64_t ipi_trip(bool there)
{
    uint64_t begin = rdtsc();
    ipi(ap_id, VEC_AP);
    wait_for_interrupt();
    return (there ? stamp[VEC_AP] : stamp[VEC_BSP]) - begin;
}
static void halted_ipi(void)
{
    apic_on();
    if (!start_ap()) return;
    run_ap(ap_pong);
    BENCH_SPAN("ipi_halted", 50, ipi_trip(true));
    BENCH_SPAN("ipi_round_trip", 50, ipi_trip(false));
    ap_stop = true;
    ipi_trip(false);
}

/* ---- event channels ---------------------------------------------------------------------------------------------- */
#define SHARED ((struct shared_info *)0xb00000)
static unsigned ports[2]; /* by the vCPU that hears */

static void send(unsigned port)
{
    struct evtchn_send op = { .port = port };
    hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_send, (unsigned long)&op, 0, 0, 0);
}
static void hear(unsigned cpu)
{
    SHARED->vcpu_info[cpu].evtchn_upcall_pending = 0;
    SHARED->vcpu_info[cpu].evtchn_pending_sel = 0;
    __atomic_and_fetch(&SHARED->evtchn_pending[0], ~(1ul << ports[cpu]), __ATOMIC_SEQ_CST);
}
static bool events_on(void)
{
    struct xen_add_to_physmap map = { .domid = DOMID_SELF, .space = XENMAPSPACE_shared_info, .gpfn = 0xb00 };
    struct xen_hvm_param via = { .domid = DOMID_SELF, .index = HVM_PARAM_CALLBACK_IRQ, .value = 0 };
    if (hypercall(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, (unsigned long)&map, 0, 0, 0) ||
        hypercall(__HYPERVISOR_hvm_op, HVMOP_set_param, (unsigned long)&via, 0, 0, 0))
        return false;
    for (unsigned cpu = 0; cpu < 2; cpu++) {
        struct evtchn_bind_ipi bind = { .vcpu = cpu };
        struct xen_hvm_evtchn_upcall_vector up = { .vcpu = cpu, .vector = VEC_EVENT };
        if (hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_ipi, (unsigned long)&bind, 0, 0, 0) ||
            hypercall(__HYPERVISOR_hvm_op, HVMOP_set_evtchn_upcall_vector, (unsigned long)&up, 0, 0, 0))
            return false;
        ports[cpu] = bind.port;
    }
    return true;
}
static void ap_spin(void)
{
    for (ap_rounds = 1; !ap_stop;) pause();
    hear(1);
    __asm__ volatile("sti; nop; nop; cli" ::: "memory");
}
static void ap_event_pong(void)
{
    ap_rounds = 1;
    for (;;) {
        wait_for_interrupt();
        bool last = ap_stop;
        hear(1);
        send(ports[0]);
        if (last) return;
    }
}
static uint64_t event_send(void)
{
    SHARED->vcpu_info[1].evtchn_upcall_pending = 0;
    SHARED->vcpu_info[1].evtchn_pending_sel = 0;
    SHARED->evtchn_pending[0] &= ~(1ul << ports[1]);
    uint64_t begin = rdtsc();
    send(ports[1]);
    return rdtsc() - begin;
}
static uint64_t event_trip(void)
{
    uint64_t begin = rdtsc();
    send(ports[1]);
    wait_for_interrupt();
    hear(0);
    return stamp[VEC_EVENT] - begin;
}
static void events(void)
{
    apic_on();
    if (!xen_base || !start_ap() || !events_on()) return;
    run_ap(ap_spin);
    BENCH_SPAN("event_send", 200, event_send());
    ap_stop = true;
    while (ap_job) let_ap_run();
    run_ap(ap_event_pong);
    BENCH_SPAN("event_round_trip", 50, event_trip());
    ap_stop = true;
    event_trip();
}

#ifdef ONLY
static void only(void)
{
    say("TRACE");
    for (;;) ONLY();
}
const struct test tests[] = { { "only", only }, { 0 } };
const struct test all_tests[] = {
#else
const struct test tests[] = {
#endif
    { "loop", loop },
    { "cpuid", op_cpuid },
    { "rdmsr", op_rdmsr },
    { "hypercall", op_hypercall },
    { "first_touch", first_touch },
    { "ports_here", ports_here },
    { "lapic", lapic },
    { "halt_timer", halt_timer },
    { "ports_device_model", ports_device_model },
    { "pages_device_model", pages_device_model },
    { "halted_ipi", halted_ipi },
    { "events", events },
    { 0 },
};
