/* scale.c: one, two and four vCPUs that do nothing but exit: do they keep out of each other's way?
 *
 * For each kind of exit and number of vCPUs a line "SCALE name vcpus exits tsc": so many exits of all of them together,
 * in so many TSC ticks from the first one's begin to the last one's end. On one CPU that counts instructions (-icount)
 * it is the same per exit however many they are, when nothing is shared. ci/bench-scale runs it.
 */
#include "micro.h"
#include <xen/event_channel.h>
#include <xen/xen.h>
#include <xen/memory.h>

#define VCPUS    4
#define ROUNDS   30000
#define APIC(r)  MMIO32(0xfee00000 + (r))
#define ICR      0x300
#define ICR2     0x310
#define PM_TIMER 0xb008
#define SHARED   ((struct shared_info *)0xb00000)

enum { GO = 0x50, DONE };

extern char ap_blob[], ap_blob_end[];
uint32_t ap_stack;
static char stacks[VCPUS][4096] __attribute__((aligned(16)));
static volatile unsigned started, done;
static void (*volatile job)(unsigned cpu);
static uint64_t begin[VCPUS], end[VCPUS];
static unsigned port[VCPUS];

/* ---- what exits ------------------------------------------------------------------------------- */
static void op_cpuid(unsigned cpu)
{
    (void)cpu;
    cpuid(1, 0);
}
static void op_event(unsigned cpu) /* to itself, with no interrupt for it: nothing but the send */
{
    SHARED->vcpu_info[cpu].evtchn_upcall_pending = 0;
    SHARED->vcpu_info[cpu].evtchn_pending_sel = 0;
    __atomic_and_fetch(&SHARED->evtchn_pending[0], ~(1ul << port[cpu]), __ATOMIC_SEQ_CST);
    struct evtchn_send op = { .port = port[cpu] };
    hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_send, (unsigned long)&op, 0, 0, 0);
}
static void op_port(unsigned cpu)
{
    (void)cpu;
    inl(PM_TIMER);
}
static void op_unclaimed(unsigned cpu)
{
    (void)cpu;
    inb(0x5678);
}

static void work(unsigned cpu)
{
    void (*op)(unsigned) = job;
    begin[cpu] = rdtsc();
    for (unsigned i = 0; i < ROUNDS; i++) op(cpu);
    end[cpu] = rdtsc();
}

/* ---- the vCPUs -------------------------------------------------------------------------------- */
static unsigned me(void) { return (APIC(0x20) >> 24) / 2; }
static void ipi(unsigned cpu, unsigned vector)
{
    APIC(ICR2) = cpu * 2 << 24;
    APIC(ICR) = vector;
}
static void on_ipi(struct frame *f)
{
    (void)f;
    APIC(0xb0) = 0;
}
static void apic_on(void)
{
    wrmsr(0x1b, rdmsr(0x1b) | 0x800);
    APIC(0xf0) = 0x1ff;
    APIC(0x80) = 0;
}
static void sleep(void) { __asm__ volatile("sti; hlt; cli" ::: "memory"); }

void ap_main(void)
{
    unsigned cpu;
    apic_on();
    cpu = me();
    __atomic_add_fetch(&started, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        sleep(); /* until GO */
        work(cpu);
        __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
        ipi(0, DONE);
    }
}
static void start(unsigned cpu)
{
    ap_stack = (uint32_t)(unsigned long)stacks[cpu] + sizeof stacks[cpu];
    ipi(cpu, 0x4500); /* INIT */
    delay_us(200);
    ipi(cpu, 0x4608); /* SIPI, page 8 */
    while (started < cpu) pause();
}

static void measure(const char *name, void (*op)(unsigned), unsigned vcpus)
{
    uint64_t first = ~0ull, last = 0;
    job = op;
    done = 0;
    delay_us(20000); /* the others are at their HLT again */
    for (unsigned cpu = 1; cpu < vcpus; cpu++) ipi(cpu, GO);
    work(0);
    while (done < vcpus - 1) sleep();
    for (unsigned cpu = 0; cpu < vcpus; cpu++) {
        first = begin[cpu] < first ? begin[cpu] : first;
        last = end[cpu] > last ? end[cpu] : last;
    }
    say("SCALE %s %u %u %llu", name, vcpus, vcpus * ROUNDS, (unsigned long long)(last - first));
}

static void scale(void)
{
    static const struct {
        const char *name;
        void (*op)(unsigned);
    } ops[] = { { "cpuid", op_cpuid }, { "event", op_event }, { "port", op_port }, { "unclaimed", op_unclaimed } };
    struct xen_add_to_physmap map = { .domid = DOMID_SELF, .space = XENMAPSPACE_shared_info, .gpfn = 0xb00 };
    CHECK(!hypercall(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, (unsigned long)&map, 0, 0, 0), "no shared info");
    apic_on();
    handlers[GO] = handlers[DONE] = on_ipi;
    memcpy((void *)0x8000, ap_blob, (size_t)(ap_blob_end - ap_blob));
    for (unsigned cpu = 0; cpu < VCPUS; cpu++) {
        struct evtchn_bind_ipi bind = { .vcpu = cpu };
        if (cpu) start(cpu);
        CHECK(!hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_ipi, (unsigned long)&bind, 0, 0, 0), "no port");
        port[cpu] = bind.port;
    }
    for (unsigned i = 0; i < sizeof ops / sizeof ops[0]; i++)
        for (unsigned vcpus = 1; vcpus <= VCPUS; vcpus *= 2) measure(ops[i].name, ops[i].op, vcpus);
}

const struct test tests[] = { { "scale", scale }, { NULL, NULL } };
