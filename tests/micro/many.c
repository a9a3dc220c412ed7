/* many.c: 64 CPUs: all start, IPIs reach each, all and whole x2APIC clusters, and nobody else. */
#include "board.h"

#define CPUS 64
#define ICR  0x300
#define ICR2 0x310

enum { COUNT = 0x50, TO_X2APIC };

extern char ap_blob[], ap_blob_end[];
uint32_t ap_stack;
static char stacks[CPUS + 1][4096] __attribute__((aligned(16)));
static volatile unsigned started, got[CPUS + 1], in_x2apic;

static bool x2apic(void) { return rdmsr(0x1b) & 0x400; }
static unsigned me(void) { return (x2apic() ? (uint32_t)rdmsr(0x802) : APIC(0x20) >> 24) / 2; }
static void eoi(void)
{
    if (x2apic())
        wrmsr(0x80b, 0);
    else
        APIC(0xb0) = 0;
}
static void on_count(struct frame *f)
{
    (void)f;
    unsigned cpu = me();
    __atomic_add_fetch(&got[cpu < CPUS ? cpu : CPUS], 1, __ATOMIC_SEQ_CST);
    eoi();
}
static void on_to_x2apic(struct frame *f)
{
    (void)f;
    eoi();
    wrmsr(0x1b, rdmsr(0x1b) | 0x400);
    __atomic_add_fetch(&in_x2apic, 1, __ATOMIC_SEQ_CST);
}
void ap_main(void)
{
    lapic_reset();
    __atomic_add_fetch(&started, 1, __ATOMIC_SEQ_CST);
    for (;;) __asm__ volatile("sti; hlt; cli" ::: "memory");
}

static bool start(unsigned cpu)
{
    unsigned before = started;
    ap_stack = (uint32_t)(unsigned long)stacks[cpu] + sizeof stacks[cpu];
    APIC(ICR2) = cpu * 2 << 24;
    APIC(ICR) = 0x4500; /* INIT */
    delay_us(200);
    APIC(ICR2) = cpu * 2 << 24;
    APIC(ICR) = 0x4608; /* SIPI, page 8 */
    return wait_for(&started, before + 1, 500000);
}
static void all_start(void)
{
    lapic_reset();
    handlers[COUNT] = on_count;
    handlers[TO_X2APIC] = on_to_x2apic;
    memcpy((void *)0x8000, ap_blob, (size_t)(ap_blob_end - ap_blob));
    for (unsigned cpu = 1; cpu < CPUS; cpu++) CHECK(start(cpu), "CPU %u does not start", cpu);
    CHECK(!start(CPUS), "there is a CPU %u", CPUS);
}

/* After every CPU of first..last was sent one COUNT: each of them has `want`, and no other. */
static bool only(unsigned first, unsigned last, const unsigned *before)
{
    uint64_t end = rdtsc() + 5 * tsc_hz();
    for (unsigned cpu = first; cpu <= last; cpu++)
        while (got[cpu] == before[cpu] && rdtsc() < end) __asm__ volatile("sti; pause; cli" ::: "memory");
    delay_us(2000);
    for (unsigned cpu = 0; cpu <= CPUS; cpu++)
        if (got[cpu] - before[cpu] != (cpu >= first && cpu <= last)) {
            fail("of CPUs %u to %u, CPU %u got %u", first, last, cpu, got[cpu] - before[cpu]);
            return false;
        }
    return true;
}
static void snapshot(unsigned *before)
{
    for (unsigned cpu = 0; cpu <= CPUS; cpu++) before[cpu] = got[cpu];
}
static void ready(void)
{
    handlers[COUNT] = on_count;
    handlers[TO_X2APIC] = on_to_x2apic;
}

static void all_but_self(void)
{
    unsigned before[CPUS + 1];
    ready();
    snapshot(before);
    APIC(ICR) = 0xc0000 | COUNT;
    only(1, CPUS - 1, before);
}
static void each(void)
{
    unsigned before[CPUS + 1];
    ready();
    for (unsigned cpu = 0; cpu < CPUS; cpu++) {
        snapshot(before);
        APIC(ICR2) = cpu * 2 << 24;
        APIC(ICR) = COUNT;
        if (!only(cpu, cpu, before)) return;
    }
}
/* APIC ids are twice the CPU's number, so eight CPUs make a cluster (SDM 3A, 10.12.10.2). */
static void clusters(void)
{
    unsigned before[CPUS + 1];
    ready();
    APIC(ICR) = 0xc0000 | TO_X2APIC;
    CHECK(wait_for(&in_x2apic, CPUS - 1, 5000000), "%u CPUs went to x2APIC mode", in_x2apic);
    wrmsr(0x1b, rdmsr(0x1b) | 0x400);
    for (unsigned c = 0; c < CPUS / 8; c++) {
        snapshot(before);
        wrmsr(0x830, (uint64_t)(c << 16 | 0x5555) << 32 | 0x800 | COUNT);
        if (!only(c * 8, c * 8 + 7, before)) return;
        snapshot(before);
        wrmsr(0x830, (uint64_t)(c << 16 | 0x10) << 32 | 0x800 | COUNT); /* the third of them */
        if (!only(c * 8 + 2, c * 8 + 2, before)) return;
    }
}
static void lowest_priority(void)
{
    unsigned before[CPUS + 1], n = 0;
    ready();
    for (unsigned i = 0; i < 20; i++) {
        snapshot(before);
        wrmsr(0x830, (uint64_t)(3 << 16 | 0x5555) << 32 | 0x900 | COUNT);
        delay_us(20000);
        n = 0;
        for (unsigned cpu = 0; cpu <= CPUS; cpu++) {
            CHECK(got[cpu] == before[cpu] || cpu / 8 == 3, "CPU %u got it", cpu);
            n += got[cpu] - before[cpu];
        }
        CHECK_EQ(n, 1);
    }
}

const struct test tests[] = {
    { "many_start", all_start },   { "many_all_but_self", all_but_self },       { "many_each", each },
    { "many_clusters", clusters }, { "many_lowest_priority", lowest_priority }, { NULL, NULL },
};
