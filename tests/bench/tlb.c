/* tlb.c: 1 to 32 vCPUs that compute, some seconds each number, the others halted: "TLB n" at the begin of each, for
 * ci/bench-tlb, which looks at the hypervisor's counters meanwhile. */
#include "micro.h"

#define VCPUS   32
#define SECONDS 12
#define APIC(r) MMIO32(0xfee00000 + (r))

enum { GO = 0x50 };

extern char ap_blob[], ap_blob_end[];
uint32_t ap_stack;
static char stacks[VCPUS][4096] __attribute__((aligned(16)));
static volatile unsigned started, busy;

static void ipi(unsigned cpu, unsigned vector)
{
    APIC(0x310) = cpu * 2 << 24;
    APIC(0x300) = vector;
}
static void on_go(struct frame *f)
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
void ap_main(void)
{
    apic_on();
    unsigned cpu = (APIC(0x20) >> 24) / 2;
    __atomic_add_fetch(&started, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        __asm__ volatile("sti; hlt; cli" ::: "memory");
        while (cpu < busy)
            ;
    }
}

static void tlb(void)
{
    static const uint8_t numbers[] = { 1, 2, 4, 8, 12, 14, 15, 16, 20, 26, 32 };
    apic_on();
    handlers[GO] = on_go;
    memcpy((void *)0x8000, ap_blob, (size_t)(ap_blob_end - ap_blob));
    for (unsigned cpu = 1; cpu < VCPUS; cpu++) {
        ap_stack = (uint32_t)(unsigned long)stacks[cpu] + sizeof stacks[cpu];
        ipi(cpu, 0x4500); /* INIT */
        delay_us(200);
        ipi(cpu, 0x4608); /* SIPI, page 8 */
        while (started < cpu) pause();
    }
    for (unsigned i = 0; i < sizeof numbers; i++) {
        busy = numbers[i];
        for (unsigned cpu = 1; cpu < busy; cpu++) ipi(cpu, GO);
        say("TLB %u", busy);
        for (uint64_t end = rdtsc() + SECONDS * tsc_hz(); rdtsc() < end;)
            ;
    }
    busy = 0;
}

const struct test tests[] = { { "tlb", tlb }, { NULL, NULL } };
