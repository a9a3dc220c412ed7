/* clocks.c: how far each clock of the PC came, again and again: ticks of the 8254, the RTC at 1024 Hz and the LAPIC's
 * periodic timer, counters of the PM timer, the HPET and the TSC (and the PV clock, which it is), and on a second CPU, as
 * a LAPIC has but one timer, TSC deadlines. For tests/boot/t8_clocks.py, which runs it beside guests that compute: a line
 * after 1, 2, 4 and 8 seconds and then every 8, "CLOCKS name us ...", for ever. No test of the suite. */
#include "board.h"

#define PM_PORT   0xb008
#define PM_MASK   0xffffffff /* the FADT says 32 bits */
#define PIT_HZ    1193182
#define PIT_N     11932 /* 100 Hz */
#define BUS_HZ    100000000
#define LAPIC_N   1000000 /* 100 Hz */
#define DEADLINES 100     /* a second */

enum { PIT = 0x30, RTC = 0x38, LAPIC = 0x40, DEADLINE = 0x48 };

extern char ap_blob[], ap_blob_end[];
uint32_t ap_stack;
static char stack[4096] __attribute__((aligned(16)));
static volatile uint64_t deadline0;
static uint64_t deadline, deadline_period;

static void eoi(struct frame *f)
{
    (void)f;
    APIC(0xb0) = 0;
}
static void rtc_tick(struct frame *f)
{
    cmos(12);
    eoi(f);
}

/* Each deadline a period after the one before, however late this one came. */
static void deadline_tick(struct frame *f)
{
    wrmsr(0x6e0, deadline += deadline_period);
    eoi(f);
}
void ap_main(void)
{
    lapic_reset();
    APIC(0x320) = 0x40000 | DEADLINE;
    __asm__ volatile("mfence" ::: "memory");
    deadline = rdtsc();
    deadline0 = deadline;
    wrmsr(0x6e0, deadline += deadline_period);
    for (;;) __asm__ volatile("sti; hlt; cli" ::: "memory");
}
static void start_ap(void)
{
    handlers[DEADLINE] = deadline_tick;
    deadline_period = tsc_hz() / DEADLINES;
    memcpy((void *)0x8000, ap_blob, (size_t)(ap_blob_end - ap_blob));
    ap_stack = (uint32_t)(unsigned long)stack + sizeof stack;
    APIC(0x310) = 2 << 24;
    APIC(0x300) = 0x4500; /* INIT */
    delay_us(200);
    APIC(0x310) = 2 << 24;
    APIC(0x300) = 0x4608; /* SIPI, page 8 */
    while (!deadline0) __asm__ volatile("pause");
}

/* a * b / c without overflow for c < 2^32. */
static uint64_t muldiv(uint64_t a, uint64_t b, uint64_t c) { return a / c * b + a % c * b / c; }

static void start(void)
{
    handlers[PIT] = handlers[LAPIC] = eoi;
    handlers[RTC] = rtc_tick;
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    lapic_reset();
    start_ap();
    HPET(0x10) |= 1;
    cmos_set(10, 0x26);
    cmos_set(11, (cmos(11) & ~0x30) | 0x40);
    route(2, PIT);
    route(8, RTC);
    cmos(12); /* only now: the edge of a tick that came to a masked pin is lost, and the line high until this read */
    outb(0x43, 0x34);
    outb(0x40, PIT_N & 0xff);
    outb(0x40, PIT_N >> 8);
    APIC(0x3e0) = 0xb;
    APIC(0x320) = 0x20000 | LAPIC;
    APIC(0x380) = LAPIC_N;
}

static void report(void)
{
    start();
    uint64_t tsc0 = rdtsc(), hpet0 = HPET(0xf0), hz = tsc_hz(), fs = HPET(0) >> 32, pm = 0, next = hz;
    uint32_t pm_last = inl(PM_PORT);
    cli();
    unsigned long pit0 = counts[PIT], rtc0 = counts[RTC], lapic0 = counts[LAPIC];
    for (;;) {
        __asm__ volatile("sti; nop; nop; cli" ::: "memory");
        uint64_t tsc = rdtsc() - tsc0;
        if (tsc < next) continue;
        next += next < 8 * hz ? next : 8 * hz; /* each line takes seconds where the device model gets little of the CPU */
        /* what was missed is made up for before it is counted: as long as ticks keep coming at more than their rate */
        for (unsigned long seen = ~0ul, from = 0; seen != from;) {
            from = counts[RTC] + counts[PIT] + counts[LAPIC];
            uint64_t t = rdtsc();
            while (rdtsc() - t < hz / 1250) __asm__ volatile("sti; nop; nop; cli" ::: "memory");
            seen = counts[RTC] + counts[PIT] + counts[LAPIC];
        }
        uint64_t hpet = HPET(0xf0) - hpet0;
        uint32_t pm_now = inl(PM_PORT);
        pm += (pm_now - pm_last) & PM_MASK;
        pm_last = pm_now;
        tsc = rdtsc() - tsc0;
        uint64_t deadlines = deadline0 - tsc0 + counts[DEADLINE] * deadline_period;
        sti(); /* each letter is a way to dom0 and back */
        say("CLOCKS tsc %llu hpet %llu pm %llu pit %llu rtc %llu lapic %llu deadline %llu\n",
            (unsigned long long)muldiv(tsc, 1000000, hz / 1000 * 1000), (unsigned long long)muldiv(hpet, fs, 1000000000),
            (unsigned long long)muldiv(pm, 1000000, 3579545),
            (unsigned long long)muldiv((uint64_t)(counts[PIT] - pit0) * PIT_N, 1000000, PIT_HZ),
            (unsigned long long)muldiv(counts[RTC] - rtc0, 1000000, 1024),
            (unsigned long long)muldiv((uint64_t)(counts[LAPIC] - lapic0) * LAPIC_N, 1000000, BUS_HZ),
            (unsigned long long)muldiv(deadlines, 1000000, hz / 1000 * 1000));
        cli();
    }
}

const struct test tests[] = { { "report", report }, { NULL, NULL } };
