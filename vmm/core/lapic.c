/* lapic.c: the physical local APIC: identity, EOI, IPIs, and the timer behind all of ours. */
#include "core/lapic.h"

#include "core/mm.h"
#include "core/print.h"
#include "core/time.h"
#include "core/trap.h"
#include "core/x86.h"

enum { /* register offsets in the MMIO page; x2APIC MSR = 0x800 + offset / 16 */
       REG_ID = 0x20,
       REG_TPR = 0x80,
       REG_EOI = 0xb0,
       REG_SVR = 0xf0,
       REG_ESR = 0x280,
       REG_ICR = 0x300,
       REG_ICR_HIGH = 0x310,
       REG_LVT_TIMER = 0x320,
       REG_LVT_THERMAL = 0x330,
       REG_LVT_LINT0 = 0x350,
       REG_LVT_LINT1 = 0x360,
       REG_LVT_ERROR = 0x370,
       REG_TIMER_INITIAL = 0x380,
       REG_TIMER_CURRENT = 0x390,
       REG_TIMER_DIVIDE = 0x3e0,
};
#define LVT_MASKED       0x10000
#define TIMER_PERIODIC   0x20000
#define TIMER_DEADLINE   0x40000
#define ICR_PENDING      0x1000
#define DIVIDE_BY_1      0xb
#define DEADLINE_MSR     0x6e0
#define APIC_BASE_ENABLE 0x800
#define APIC_BASE_X2     0x400
#define COUNT_MIN_US     10
#define COUNT_MAX_US     100000

static bool x2apic, deadline;
static volatile char *page;
static uint64_t timer_khz;

static uint32_t reg_read(unsigned off)
{
    return x2apic ? (uint32_t)rdmsr(MSR_X2APIC + off / 16) : mmio_read32(page + off);
}

static void reg_write(unsigned off, uint32_t v)
{
    if (x2apic)
        wrmsr(MSR_X2APIC + off / 16, v);
    else
        mmio_write32(page + off, v);
}

void lapic_init(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE);
    struct cpuid_regs f = cpuid(1, 0);

    x2apic = f.c & (1u << 21);
    deadline = f.c & (1u << 24);
    page = (volatile char *)(UCMAP_BASE + (base & 0xffffff000ULL));
    wrmsr(MSR_APIC_BASE, base | APIC_BASE_ENABLE);
    if (x2apic)
        wrmsr(MSR_APIC_BASE, base | APIC_BASE_ENABLE | APIC_BASE_X2);
    reg_write(REG_TPR, 0);
    reg_write(REG_LVT_TIMER, LVT_MASKED);
    reg_write(REG_LVT_LINT0, LVT_MASKED);
    reg_write(REG_LVT_LINT1, LVT_MASKED | 0x400);
    reg_write(REG_LVT_ERROR, LVT_MASKED);
    reg_write(REG_SVR, 0x100 | VECTOR_SPURIOUS);
    reg_write(REG_TIMER_DIVIDE, DIVIDE_BY_1);
    reg_write(REG_LVT_TIMER, VECTOR_TIMER | (deadline ? TIMER_DEADLINE : TIMER_PERIODIC));
}

uint32_t lapic_id(void)
{
    return x2apic ? reg_read(REG_ID) : reg_read(REG_ID) >> 24;
}

void lapic_eoi(void)
{
    reg_write(REG_EOI, 0);
}

static void send_icr(uint32_t apic_id, uint32_t low)
{
    if (x2apic) {
        smp_fence();
        wrmsr(MSR_X2APIC + REG_ICR / 16, (uint64_t)apic_id << 32 | low);
        return;
    }
    while (reg_read(REG_ICR) & ICR_PENDING)
        cpu_relax();
    reg_write(REG_ICR_HIGH, apic_id << 24);
    reg_write(REG_ICR, low);
}

void lapic_send(uint32_t apic_id, uint8_t vector)
{
    send_icr(apic_id, vector);
}

void lapic_send_nmi(uint32_t apic_id)
{
    send_icr(apic_id, 0x4400);
}

void lapic_send_init(uint32_t apic_id)
{
    send_icr(apic_id, 0x4500);
}

void lapic_send_startup(uint32_t apic_id, uint8_t start_page)
{
    send_icr(apic_id, 0x4600u | start_page);
}

static uint32_t read_current(uint64_t unused)
{
    (void)unused;
    return reg_read(REG_TIMER_CURRENT);
}

void lapic_timer_calibrate(void)
{
    if (deadline)
        return;
    reg_write(REG_LVT_TIMER, LVT_MASKED);
    reg_write(REG_TIMER_INITIAL, ~0u);
    uint64_t t0 = 0, t1 = 0;
    uint32_t c0 = 0, c1 = 0;
    time_sample(read_current, 0, &t0, &c0);
    while (rdtsc() - t0 < tsc_khz * 10)
        cpu_relax();
    time_sample(read_current, 0, &t1, &c1);
    reg_write(REG_TIMER_INITIAL, 0);
    reg_write(REG_LVT_TIMER, VECTOR_TIMER | TIMER_PERIODIC);
    timer_khz = (uint64_t)(c0 - c1) * tsc_khz / (t1 - t0);
    log_debug("LAPIC timer at %lu kHz", timer_khz);
}

bool lapic_timer_has_deadline(void)
{
    return deadline;
}

void lapic_timer_arm(uint64_t tsc)
{
    if (deadline) {
        wrmsr(DEADLINE_MSR, tsc == LAPIC_TIMER_OFF ? 0 : tsc);
        return;
    }
    uint64_t now = rdtsc(), wait = tsc > now ? tsc - now : 0;
    wait = MIN(MAX(wait, tsc_khz * COUNT_MIN_US / 1000), tsc_khz * COUNT_MAX_US / 1000);
    reg_write(REG_TIMER_INITIAL, (uint32_t)MIN(wait * timer_khz / tsc_khz, 0xffffffffULL));
}
