/* pc.c: LAPIC, IOAPIC, 8259, 8254, RTC, HPET and PM timer, as a 64-bit guest without PV sees them. Rates are
 * compared with the TSC, whose frequency the hypervisor tells; a preempted emulator gets several chances. */
#include "board.h"

#define ID      0x20
#define VERSION 0x30
#define TPR     0x80
#define PPR     0xa0
#define EOI     0xb0
#define LDR     0xd0
#define DFR     0xe0
#define SVR     0xf0
#define ISR     0x100
#define IRR     0x200
#define ESR     0x280
#define ICR     0x300
#define ICR2    0x310
#define LVTT    0x320
#define LVT0    0x350
#define LVT1    0x360
#define LVTE    0x370
#define TMICT   0x380
#define TMCCT   0x390
#define TDCR    0x3e0

static unsigned order[8], came;
static uint32_t isr_seen;
static bool no_eoi;
static void on_irq(struct frame *f)
{
    unsigned v = (unsigned)f->vector & 0xff;
    if (came < 8) order[came] = v;
    came++;
    isr_seen = APIC(ISR + v / 32 * 16) >> v % 32 & 1;
    if (!no_eoi) APIC(EOI) = 0;
}
static void apic_on(void)
{
    lapic_reset();
    for (unsigned v = 0x40; v < 0x80; v++) handlers[v] = on_irq;
    came = 0;
    no_eoi = false;
}
static void self(unsigned vector)
{
    APIC(ICR) = 0x40000 | vector;
    (void)APIC(ICR);
}
static bool irr(unsigned v) { return APIC(IRR + v / 32 * 16) >> v % 32 & 1; }
static bool isr_bit(unsigned v) { return APIC(ISR + v / 32 * 16) >> v % 32 & 1; }

/* Two counters side by side: true when `ticks` of hz fit the TSC within 2 %. */
static bool rate_fits(uint64_t (*read)(void), uint64_t mask, uint64_t hz, uint64_t *got)
{
    for (unsigned chance = 0; chance < 5; chance++) {
        uint64_t t0 = rdtsc(), c0 = read(), t1 = rdtsc();
        delay_us(30000);
        uint64_t t2 = rdtsc(), c1 = read(), t3 = rdtsc();
        uint64_t ticks = (c1 - c0) & mask, longest = t3 - t0, shortest = t2 - t1;
        *got = ticks * tsc_khz() / ((longest + shortest) / 2) * 1000;
        if ((longest - shortest) * 100 > longest * 2) continue; /* preempted between */
        if (*got > hz - hz / 50 && *got < hz + hz / 50) return true;
    }
    return false;
}
#define CHECK_RATE(read, mask, hz)                                                                                          \
    do {                                                                                                                    \
        uint64_t got_ = 0;                                                                                                  \
        CHECK(rate_fits(read, mask, hz, &got_), "runs at %llu Hz, not %llu", (unsigned long long)got_,                      \
              (unsigned long long)(hz));                                                                                    \
    } while (0)

/* ---- LAPIC -------------------------------------------------------------------------------------- */
static void lapic_registers(void)
{
    apic_on();
    CHECK((APIC(VERSION) & 0xff) == 0x14, "version %x", APIC(VERSION));
    CHECK((APIC(VERSION) >> 16 & 0xff) >= 5, "version %x", APIC(VERSION));
    CHECK_EQ(APIC(ID) >> 24, cpuid(1, 0).b >> 24);
    CHECK((rdmsr(0x1b) & 0xfffff900) == 0xfee00900, "APIC_BASE %llx", (unsigned long long)rdmsr(0x1b));
    APIC(TPR) = 0x123;
    CHECK_EQ(APIC(TPR), 0x23);
    APIC(TPR) = 0;
    APIC(DFR) = 0xffffffff;
    APIC(LDR) = 0x02abcdef;
    CHECK_EQ(APIC(LDR), 0x02000000);
    APIC(TDCR) = 0xffffffff;
    CHECK_EQ(APIC(TDCR), 0xb);
    APIC(LVT0) = 0xffffffff;
    CHECK((APIC(LVT0) & ~0x5000u) == 0x1a7ff, "LVT0 is %x", APIC(LVT0));
    APIC(LVT0) = MASKED;
    APIC(SVR) = 0xff; /* software-disabled: LVTs are masked */
    APIC(LVTT) = 0x50;
    CHECK_EQ(APIC(LVTT), 0x10050);
    apic_on();
}
static void lapic_self_ipi(void)
{
    apic_on();
    self(0x55);
    CHECK(irr(0x55), "not in IRR");
    CHECK(!isr_bit(0x55), "in ISR already");
    CHECK_EQ(counts[0x55], 0);
    window();
    CHECK_EQ(counts[0x55], 1);
    CHECK(isr_seen, "not in ISR in the handler");
    CHECK(!irr(0x55) && !isr_bit(0x55), "still in IRR or ISR");
    CHECK(!(APIC(ICR) & 0x1000), "ICR is busy");
    APIC(ICR2) = APIC(ID); /* physical destination */
    APIC(ICR) = 0x56;
    window();
    CHECK_EQ(counts[0x56], 1);
    APIC(DFR) = 0xffffffff;
    APIC(LDR) = 0x01000000;
    APIC(ICR2) = 0x01000000; /* logical */
    APIC(ICR) = 0x857;
    window();
    CHECK_EQ(counts[0x57], 1);
    APIC(ICR) = 0x80058; /* all */
    window();
    CHECK_EQ(counts[0x58], 1);
    APIC(ICR) = 0xc0059; /* all but self: nobody */
    window();
    CHECK_EQ(counts[0x59], 0);
    APIC(ICR2) = 0x7e000000; /* nobody */
    APIC(ICR) = 0x5a;
    window();
    CHECK_EQ(counts[0x5a], 0);
}
static void lapic_priority(void)
{
    apic_on();
    self(0x45);
    self(0x75);
    self(0x65);
    self(0x65); /* once more: one interrupt */
    __asm__ volatile("sti; nop; nop; nop; nop; nop; nop; cli" ::: "memory");
    CHECK_EQ(came, 3);
    CHECK(order[0] == 0x75 && order[1] == 0x65 && order[2] == 0x45, "order %x %x %x", order[0], order[1], order[2]);
}
static void lapic_tpr(void)
{
    apic_on();
    APIC(TPR) = 0x50;
    CHECK_EQ(APIC(PPR), 0x50);
    self(0x5f);
    window();
    CHECK_EQ(counts[0x5f], 0);
    self(0x60);
    window();
    CHECK_EQ(counts[0x60], 1);
    APIC(TPR) = 0x4f;
    window();
    CHECK_EQ(counts[0x5f], 1);
    APIC(TPR) = 0;
}
static void lapic_eoi_order(void)
{
    apic_on();
    no_eoi = true;
    self(0x55);
    window();
    CHECK(isr_bit(0x55), "not in service");
    CHECK_EQ(APIC(PPR) & 0xf0, 0x50);
    self(0x54); /* the same class: waits */
    self(0x44);
    window();
    CHECK_EQ(came, 1);
    self(0x65);
    window();
    CHECK_EQ(came, 2);
    CHECK(isr_bit(0x65) && isr_bit(0x55), "both in service");
    APIC(EOI) = 0; /* ends the higher one */
    CHECK(!isr_bit(0x65) && isr_bit(0x55), "EOI ended the wrong one");
    no_eoi = false;
    window();
    CHECK_EQ(came, 2);
    APIC(EOI) = 0;
    __asm__ volatile("sti; nop; nop; nop; nop; cli" ::: "memory");
    CHECK_EQ(came, 4);
    CHECK(order[2] == 0x54 && order[3] == 0x44, "order %x %x", order[2], order[3]);
}
static void lapic_errors(void)
{
    apic_on();
    APIC(ESR) = 0;
    APIC(LVTE) = 0x70;
    self(5); /* an illegal vector */
    window();
    APIC(ESR) = 0;
    uint32_t esr = APIC(ESR);
    APIC(LVTE) = MASKED;
    APIC(ESR) = 0;
    CHECK((esr & 0x60), "ESR is %x", esr);
    CHECK_EQ(counts[0x70], 1);
    APIC(ESR) = 0;
    CHECK_EQ(APIC(ESR), 0);
}
static void lapic_oneshot(void)
{
    apic_on();
    APIC(TDCR) = 0xb;
    APIC(LVTT) = 0x50;
    APIC(TMICT) = 500000;
    CHECK(APIC(TMCCT) <= 500000 && APIC(TMICT) == 500000, "counts %x", APIC(TMCCT));
    CHECK(wait_count(0x50, 1, 2000000), "no interrupt");
    CHECK_EQ(APIC(TMCCT), 0);
    delay_us(20000);
    window();
    CHECK_EQ(counts[0x50], 1);
    APIC(LVTT) = MASKED | 0x51;
    APIC(TMICT) = 1000;
    delay_us(2000);
    window();
    CHECK_EQ(counts[0x51], 0);
}
static uint64_t read_timer(void) { return 0xffffffff - APIC(TMCCT); }
static void lapic_timer_rate(void)
{
    apic_on();
    APIC(LVTT) = MASKED;
    APIC(TDCR) = 0xb; /* divide by 1 */
    APIC(TMICT) = 0xffffffff;
    uint64_t hz = 0, slow = 0;
    rate_fits(read_timer, 0xffffffff, 100000000, &hz);
    APIC(TDCR) = 3; /* by 16 */
    APIC(TMICT) = 0xffffffff;
    bool fits = rate_fits(read_timer, 0xffffffff, hz / 16, &slow);
    APIC(TMICT) = 0;
    CHECK(hz > 1000000, "the timer runs at %llu Hz", (unsigned long long)hz);
    CHECK(fits, "%llu Hz, divided by 16 %llu Hz", (unsigned long long)hz, (unsigned long long)slow);
}
static void lapic_periodic(void)
{
    apic_on();
    APIC(TDCR) = 0xb;
    APIC(LVTT) = 0x20050;
    APIC(TMICT) = 200000;
    CHECK(wait_count(0x50, 5, 3000000), "%lu interrupts", counts[0x50]);
    APIC(TMICT) = 0;
    window();
    unsigned long n = counts[0x50];
    delay_us(10000);
    window();
    CHECK_EQ(counts[0x50], n);
    APIC(LVTT) = MASKED;
}
static void lapic_deadline(void)
{
    apic_on();
    CHECK(cpuid(1, 0).c & 1u << 24, "no TSC deadline in CPUID");
    APIC(LVTT) = 0x40050;
    wrmsr(0x6e0, 0);
    uint64_t at = rdtsc() + 5 * tsc_khz();
    wrmsr(0x6e0, at);
    CHECK_EQ(rdmsr(0x6e0), at);
    CHECK(wait_count(0x50, 1, 2000000), "no interrupt");
    CHECK(rdtsc() >= at, "too early");
    CHECK_EQ(rdmsr(0x6e0), 0);
    wrmsr(0x6e0, rdtsc() - 1000); /* in the past: at once */
    CHECK(wait_count(0x50, 2, 1000000), "no interrupt for the past");
    wrmsr(0x6e0, rdtsc() + 50 * tsc_khz());
    wrmsr(0x6e0, 0); /* disarmed */
    delay_us(60000);
    window();
    CHECK_EQ(counts[0x50], 2);
    APIC(LVTT) = MASKED;
}
static void do_rdmsr(void *p) { *(uint64_t *)p = rdmsr((uint32_t) * (uint64_t *)p); }
static uint64_t wrmsr_value;
static void do_wrmsr(void *p) { wrmsr((uint32_t)(unsigned long)p, wrmsr_value); }
static void on_x2irq(struct frame *f)
{
    (void)f;
    came++;
    wrmsr(0x80b, 0);
}
static void x2apic(void)
{
    apic_on();
    if (!(cpuid(1, 0).c & 1u << 21)) return;
    uint32_t id = APIC(ID) >> 24;
    uint64_t msr = 0x802;
    CHECK(caught(do_rdmsr, &msr), "x2APIC MSRs in xAPIC mode");
    wrmsr(0x1b, rdmsr(0x1b) | 0x400);
    handlers[0x5c] = handlers[0x5d] = handlers[0x5e] = on_x2irq;
    uint64_t got_id = rdmsr(0x802), version = rdmsr(0x803), ldr = rdmsr(0x80d);
    wrmsr(0x80f, 0x1ff);
    wrmsr(0x808, 0);
    came = 0;
    wrmsr(0x83f, 0x5c); /* self IPI */
    window();
    unsigned first = came;
    wrmsr(0x830, 0x4005d); /* ICR, to self */
    window();
    unsigned second = came;
    wrmsr(0x830, (uint64_t)id << 32 | 0x5e); /* physical */
    window();
    unsigned third = came;
    wrmsr(0x808, 0x60);
    uint64_t cr8 = read_cr8();
    wrmsr(0x808, 0);
    static const uint32_t unreadable[] = { 0x80b, 0x83f, 0x80e, 0x831, 0x801, 0x8ff };
    unsigned bad = 0;
    for (unsigned i = 0; i < 6; i++) {
        msr = unreadable[i];
        const struct fault *f = caught(do_rdmsr, &msr);
        if (!f || f->vector != 13) bad = unreadable[i];
    }
    wrmsr_value = 1;
    const struct fault *f = caught(do_wrmsr, (void *)0x80b); /* EOI of anything but 0 */
    bool eoi = f && f->vector == 13;
    wrmsr_value = 0;
    f = caught(do_wrmsr, (void *)0x802); /* read-only */
    bool ro = f && f->vector == 13;
    wrmsr_value = 0xfee00800; /* straight back to xAPIC: not allowed */
    f = caught(do_wrmsr, (void *)0x1b);
    bool back = f && f->vector == 13;
    wrmsr(0x1b, 0xfee00100);
    wrmsr(0x1b, 0xfee00900);
    apic_on();
    CHECK_EQ(got_id, id);
    CHECK((version & 0xff) == 0x14, "version %llx", (unsigned long long)version);
    CHECK_EQ(ldr, (uint64_t)(id >> 4) << 16 | 1u << (id & 15));
    CHECK(first == 1 && second == 2 && third == 3, "IPIs: %u %u %u", first, second, third);
    CHECK_EQ(cr8, 6);
    CHECK(!bad, "MSR %x can be read", bad);
    CHECK(eoi, "EOI takes 1");
    CHECK(ro, "the ID can be written");
    CHECK(back, "straight from x2APIC to xAPIC");
    CHECK((APIC(VERSION) & 0xff) == 0x14, "the MMIO page is not back");
}

/* ---- 8254, 8259 ------------------------------------------------------------------------------------- */
static void pit_start(unsigned hz)
{
    unsigned count = 1193182 / hz;
    outb(0x43, 0x34);
    outb(0x40, (uint8_t)count);
    outb(0x40, (uint8_t)(count >> 8));
}
static uint64_t read_pit2(void)
{
    outb(0x43, 0x80); /* latch */
    uint8_t low = inb(0x42);
    return 0xffff - (low | (unsigned)inb(0x42) << 8);
}
static void pit_rate(void)
{
    outb(0x61, (inb(0x61) & ~2) | 1); /* gate on, speaker off */
    outb(0x43, 0xb0);                 /* channel 2, mode 0 */
    for (unsigned chance = 0; chance < 3; chance++) {
        outb(0x42, 0xff);
        outb(0x42, 0xff);
        uint64_t got, t0 = rdtsc(), c0 = read_pit2(), t1 = rdtsc();
        delay_us(30000);
        uint64_t t2 = rdtsc(), c1 = read_pit2(), t3 = rdtsc();
        got = (c1 - c0) * tsc_khz() / ((t3 - t0 + t2 - t1) / 2) * 1000;
        if (got > 1193182 - 23800 && got < 1193182 + 23800) return;
        if (chance == 2) fail("runs at %llu Hz", (unsigned long long)got);
    }
}
static void pit_output(void)
{
    outb(0x61, (inb(0x61) & ~2) & ~1);
    outb(0x43, 0xb0);
    outb(0x42, 0x50); /* 1193 ticks: about 1 ms */
    outb(0x42, 0x04);
    outb(0x61, inb(0x61) | 1);
    bool before = inb(0x61) & 0x20;
    delay_us(5000);
    bool after = inb(0x61) & 0x20;
    CHECK(!before || after, "output bit: %u then %u", before, after);
    CHECK(after, "output is low after the count");
    outb(0x43, 0xe8); /* read back status of channel 2 */
    uint8_t status = inb(0x42);
    CHECK((status & 0x3f) == 0x30, "status %x", status);
}
static uint8_t pic_isr;
static void on_pic(struct frame *f)
{
    outb(0x20, 0x0b);
    pic_isr = inb(0x20);
    if (f->vector >= 0x28) outb(0xa0, 0x20);
    outb(0x20, 0x20);
}
static void pic_pit(void)
{
    apic_on();
    pic_reset();
    handlers[0x20] = on_pic;
    APIC(LVT0) = 0x700; /* ExtINT */
    outb(0x21, 0xfe);
    pit_start(1000);
    bool came5 = wait_count(0x20, 5, 3000000);
    outb(0x21, 0xff);
    window();
    unsigned long n = counts[0x20];
    delay_us(10000);
    window();
    unsigned long masked = counts[0x20] - n;
    outb(0x20, 0x0a); /* IRR: the request waits */
    uint8_t request = inb(0x20);
    outb(0x21, 0xfe);
    window();
    unsigned long unmasked = counts[0x20] - n;
    outb(0x21, 0xff);
    APIC(LVT0) = MASKED;
    CHECK(came5, "%lu interrupts", n);
    CHECK_EQ(pic_isr, 1);
    CHECK_EQ(masked, 0);
    CHECK(request & 1, "IRR is %x", request);
    CHECK(unmasked == 1 || unmasked == 2, "unmasked is %lu", unmasked); /* the one that waited; the next may be due */
    CHECK_EQ(inb(0x21), 0xff);
}
static void pic_hlt(void)
{
    apic_on();
    pic_reset();
    handlers[0x20] = on_pic;
    APIC(LVT0) = 0x700;
    pit_start(200);
    outb(0x21, 0xfe);
    for (unsigned i = 0; i < 5; i++) __asm__ volatile("sti; hlt; cli" ::: "memory");
    outb(0x21, 0xff);
    APIC(LVT0) = MASKED;
    CHECK_EQ(counts[0x20], 5);
}

/* ---- IOAPIC ------------------------------------------------------------------------------------------- */
static void ioapic_registers(void)
{
    uint32_t version = io_read(1);
    CHECK((version & 0xff) >= 0x11 && (version & 0xff) <= 0x20, "version %x", version);
    CHECK((version >> 16 & 0xff) >= 23, "version %x", version);
    io_write(0x10 + 2 * 5, 0xfffeffff & ~0x5000u & ~0x10000u);
    io_write(0x10 + 2 * 5, 0x1a9a5);
    CHECK_EQ(io_read(0x10 + 2 * 5), 0x1a9a5);
    io_write(0x11 + 2 * 5, 0x12000000);
    CHECK_EQ(io_read(0x11 + 2 * 5), 0x12000000);
    io_write(0x10 + 2 * 5, MASKED);
    MMIO32(0xfec00000) = 0x17;
    CHECK_EQ(MMIO32(0xfec00000) & 0xff, 0x17);
}
static void ioapic_pit(void)
{
    apic_on();
    pit_start(1000);
    route(2, 0x62);
    bool ok = wait_count(0x62, 5, 3000000);
    route(2, MASKED | 0x62);
    window();
    unsigned long n = counts[0x62];
    delay_us(10000);
    window();
    CHECK(ok, "%lu interrupts", n);
    CHECK_EQ(counts[0x62], n);
}

/* ---- RTC ------------------------------------------------------------------------------------------------ */
static void on_rtc(struct frame *f)
{
    (void)f;
    cmos(0xc);
    APIC(EOI) = 0;
}
static void rtc_time(void)
{
    CHECK(cmos(0xd) & 0x80, "no valid RAM and time");
    uint8_t s = cmos(0), m = cmos(2), h = cmos(4);
    CHECK((s & 15) < 10 && s < 0x60 && (m & 15) < 10 && m < 0x60 && (h & 15) < 10 && h < 0x24, "%x:%x:%x", h, m, s);
    uint8_t month = cmos(8), year = cmos(9);
    CHECK(month >= 1 && month <= 0x12 && year >= 0x24, "month %x year %x", month, year);
    uint64_t from = rdtsc();
    while (cmos(0) == s && us_since(from) < 5000000) pause();
    CHECK(cmos(0) != s, "the second does not end");
}
static void rtc_periodic(void)
{
    apic_on();
    handlers[0x63] = on_rtc;
    uint8_t a = cmos(0xa), b = cmos(0xb);
    cmos_set(0xa, 0x26); /* 1024 Hz */
    cmos(0xc);
    route(8, 0x63);
    cmos_set(0xb, (b & ~0x30) | 0x40);
    uint64_t from = rdtsc();
    bool ok = wait_count(0x63, 50, 3000000);
    uint64_t took = us_since(from);
    cmos_set(0xb, b & ~0x70);
    cmos(0xc);
    route(8, MASKED | 0x63);
    window();
    unsigned long n = counts[0x63];
    delay_us(10000);
    window();
    cmos_set(0xa, a);
    CHECK(ok, "%lu interrupts", n);
    CHECK(took > 30000, "50 periods of 1024 Hz took %llu us", (unsigned long long)took);
    CHECK_EQ(counts[0x63], n);
}

/* ---- HPET ------------------------------------------------------------------------------------------------ */
static uint64_t read_hpet(void) { return HPET(0xf0); }
static void hpet_rate(void)
{
    uint64_t caps = HPET(0);
    uint64_t period = caps >> 32; /* fs */
    CHECK((caps >> 16 & 0xffff) == 0x8086 && period >= 100000 && period <= 100000000, "capabilities %llx",
          (unsigned long long)caps);
    HPET(0x10) = 0;
    HPET(0xf0) = 0;
    uint64_t stopped = HPET(0xf0);
    CHECK_EQ(stopped, 0);
    HPET(0x10) = 1;
    CHECK_RATE(read_hpet, ~0ull, 1000000000000000ull / period);
    HPET(0x10) = 0;
    uint64_t one = HPET(0xf0), two = HPET(0xf0);
    CHECK_EQ(one, two);
    HPET(0xf0) = 0;
}
static void hpet_comparator(void)
{
    apic_on();
    uint64_t period = HPET(0) >> 32;
    unsigned timer;
    uint32_t routes = 0;
    for (timer = 0; timer < 3 && !routes; timer++) routes = (uint32_t)(HPET(0x100 + 0x20 * timer) >> 32);
    timer--;
    CHECK(routes, "no routes");
    unsigned pin = 31 - (unsigned)__builtin_clz(routes);
    HPET(0x10) = 0;
    HPET(0xf0) = 0;
    route(pin, 0x64);
    HPET(0x100 + 0x20 * timer) = (uint64_t)pin << 9 | 4;    /* edge, one-shot */
    HPET(0x108 + 0x20 * timer) = 5000000000000ull / period; /* 5 ms */
    HPET(0x10) = 1;
    bool ok = wait_count(0x64, 1, 2000000);
    uint64_t at = HPET(0xf0);
    delay_us(10000);
    window();
    HPET(0x100 + 0x20 * timer) = 0;
    HPET(0x10) = 0;
    route(pin, MASKED);
    CHECK(ok, "no interrupt on pin %u", pin);
    CHECK(at >= 5000000000000ull / period, "too early");
    CHECK_EQ(counts[0x64], 1);
}

/* ---- ACPI and the PM timer ---------------------------------------------------------------------------------- */
static uint32_t pm_port;
static uint64_t read_pm(void) { return inl((uint16_t)pm_port); }
static void pm_timer(void)
{
    const uint8_t *t = fadt();
    CHECK(t, "no FADT");
    pm_port = *(const uint32_t *)(t + 76);
    CHECK(pm_port, "no PM timer");
    CHECK_RATE(read_pm, *(const uint32_t *)(t + 112) & 0x100 ? 0xffffffff : 0xffffff, 3579545);
}

const struct test tests[] = {
    { "lapic_registers", lapic_registers },
    { "lapic_self_ipi", lapic_self_ipi },
    { "lapic_priority", lapic_priority },
    { "lapic_errors", lapic_errors },
    { "lapic_oneshot", lapic_oneshot },
    { "lapic_timer_rate", lapic_timer_rate },
    { "lapic_periodic", lapic_periodic },
    { "lapic_deadline", lapic_deadline },
    { "x2apic", x2apic },
    { "pit_rate", pit_rate },
    { "pit_output", pit_output },
    { "pic_pit", pic_pit },
    { "pic_hlt", pic_hlt },
    { "ioapic_registers", ioapic_registers },
    { "ioapic_pit", ioapic_pit },
    { "rtc_time", rtc_time },
    { "rtc_periodic", rtc_periodic },
    { "hpet_rate", hpet_rate },
    { "hpet_comparator", hpet_comparator },
    { "pm_timer", pm_timer },
    { "lapic_eoi_order", lapic_eoi_order }, /* the last ones: they hang the guest under Xen on QEMU */
    { "lapic_tpr", lapic_tpr },
    { 0 },
};
