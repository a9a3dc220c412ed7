/* timers.c: the PC's clocks as old HALs program them: 8254 modes, latches and read-back, the RTC's periodic rates,
 * update-in-progress, alarm and formats, the PM timer's width, ticks that were missed. 64-bit code without PV time but
 * for the TSC's frequency. */
#include "board.h"

static void on_irq(struct frame *f)
{
    (void)f;
    APIC(0xb0) = 0;
}

/* ---- 8254: channel 2, whose gate is ours ---------------------------------------------------------- */
static void control(uint8_t v) { outb(0x43, v); }
static void count2(unsigned n)
{
    outb(0x42, (uint8_t)n);
    outb(0x42, (uint8_t)(n >> 8));
}
static unsigned read2(void)
{
    uint8_t low = inb(0x42);
    return low | (unsigned)inb(0x42) << 8;
}
static unsigned latched2(void)
{
    control(0x80);
    return read2();
}
static void gate2(bool on) { outb(0x61, (inb(0x61) & ~3) | on); }
static bool out2(void) { return inb(0x61) & 0x20; }

/* Mode 2: counts down by one from N to 1, again and again. */
static void pit_mode2(void)
{
    gate2(true);
    control(0xb4);
    count2(1000);
    unsigned low = ~0u, high = 0, wraps = 0, last = 0;
    for (unsigned i = 0; i < 2000; i++) {
        unsigned v = latched2();
        low = v < low ? v : low;
        high = v > high ? v : high;
        wraps += v > last;
        last = v;
    }
    CHECK(low >= 1 && high <= 1000, "counts from %u to %u", high, low);
    CHECK(wraps > 5, "%u periods", wraps);
    CHECK(high > 900 && low < 100, "seen only %u to %u", high, low);
}
/* Mode 3: by two, so a period is passed twice; the value is even for an even count. */
static void pit_mode3(void)
{
    gate2(true);
    control(0xb6);
    count2(0x8000);
    unsigned odd = 0, above = 0;
    for (unsigned i = 0; i < 200; i++) {
        unsigned v = latched2();
        odd += v & 1;
        above += v > 0x8000;
    }
    CHECK(!odd && !above, "%u odd values, %u above the count", odd, above);
    for (unsigned chance = 0; chance < 5; chance++) {
        uint64_t from = rdtsc();
        unsigned a = latched2();
        delay_us(5000);
        unsigned b = latched2();
        uint64_t us = us_since(from);
        if (b > a) continue; /* wrapped between */
        uint64_t want = us * 1193182 / 1000000 * 2, got = a - b;
        CHECK(got < want + want / 10, "in %llu us it counted %llu", (unsigned long long)us, (unsigned long long)got);
        if (got > want - want / 5) return;
    }
    fail("it does not count by two");
}
static void pit_latch(void)
{
    gate2(true);
    control(0xb4);
    count2(0);
    control(0x80);
    delay_us(2000);
    control(0x80); /* a second latch changes nothing */
    unsigned first = read2(), later = latched2();
    CHECK(first > later, "latched %x, later %x", first, later);
    CHECK(first > 0x10000 - 1500, "the first latch did not stand: %x", first);
    control(0x94); /* low byte only, mode 2 */
    outb(0x42, 200);
    for (unsigned i = 0; i < 50; i++) {
        control(0x80);
        uint8_t v = inb(0x42);
        CHECK(v >= 1 && v <= 200, "low byte %u", v);
    }
    control(0xa4); /* high byte only: counts 0x0400 */
    outb(0x42, 4);
    for (unsigned i = 0; i < 50; i++) {
        control(0x80);
        uint8_t v = inb(0x42);
        CHECK(v <= 4, "high byte %u", v);
    }
}
static void pit_read_back(void)
{
    gate2(true);
    control(0xb4);
    control(0xe8); /* status of channel 2, before a count came */
    uint8_t empty = inb(0x42);
    count2(5000);
    delay_us(100);
    control(0xc8); /* count and status: the status is read first */
    uint8_t status = inb(0x42);
    unsigned count = read2();
    CHECK((empty & 0x7f) == 0x74, "status without a count is %x", empty);
    CHECK((status & 0x7f) == 0x34, "status is %x", status);
    CHECK(count >= 1 && count <= 5000, "count is %u", count);
    control(0xb0); /* mode 0: low until the end */
    count2(0xffff);
    control(0xe8);
    status = inb(0x42);
    CHECK((status & 0xbf) == 0x30, "mode 0 status is %x", status);
    control(0xd8); /* counts of channels 2 and 1 */
    unsigned first = read2();
    delay_us(100);
    CHECK(first > latched2(), "count %x did not go on", first);
}
static void pit_bcd(void)
{
    gate2(true);
    control(0xb5);
    count2(0x9999);
    for (unsigned i = 0; i < 200; i++) {
        unsigned v = latched2();
        for (unsigned n = 0; n < 16; n += 4) CHECK((v >> n & 15) < 10, "count %x is not decimal", v);
    }
}
/* Mode 0 with the gate closed stands still; mode 1 starts by the gate. */
static void pit_gate(void)
{
    gate2(false);
    control(0xb0);
    count2(3000);
    delay_us(1000);
    unsigned a = latched2();
    delay_us(1000);
    unsigned b = latched2();
    CHECK_EQ(a, b);
    CHECK(!out2(), "output is high before the end");
    gate2(true);
    delay_us(4000);
    CHECK(out2(), "output is low after the end");
    gate2(false);
    control(0xb2); /* mode 1 */
    count2(2000);
    delay_us(3000);
    CHECK(out2(), "mode 1 without a trigger: output is low");
    gate2(true);
    bool during = out2();
    delay_us(5000);
    bool after = out2();
    gate2(false);
    CHECK(!during && after, "mode 1: output %u, then %u", during, after);
}
static void pit_refresh(void)
{
    bool last = inb(0x61) & 0x10;
    unsigned changes = 0;
    uint64_t from = rdtsc();
    while (changes <= 50 && us_since(from) < 1000000) { /* 20 ms have 1300, if nobody takes the CPU */
        bool now = inb(0x61) & 0x10;
        changes += now != last;
        last = now;
    }
    CHECK(changes > 50, "the refresh bit changed %u times in a second", changes);
}
/* Interrupts of channel 0 in modes 2, 3 and 0, through the IOAPIC's pin 2. */
static void pit_interrupts(void)
{
    lapic_reset();
    handlers[0x62] = on_irq;
    static const uint8_t modes[] = { 0x34, 0x36 };
    for (unsigned m = 0; m < 2; m++) {
        counts[0x62] = 0;
        control(modes[m]);
        outb(0x40, 0x9c); /* 11932: 100 Hz */
        outb(0x40, 0x2e);
        route(2, 0x62);
        uint64_t from = rdtsc();
        bool ok = wait_count(0x62, 20, 3000000);
        uint64_t us = us_since(from);
        route(2, MASKED);
        CHECK(ok, "mode %u: %lu interrupts", m + 2, counts[0x62]);
        CHECK(us > 185000, "mode %u: 20 ticks of 10 ms in %llu us", m + 2, (unsigned long long)us);
    }
    window();
    counts[0x62] = 0;
    control(0x30);
    route(2, 0x62);
    outb(0x40, 0x9c);
    outb(0x40, 0x2e);
    bool ok = wait_count(0x62, 1, 1000000);
    delay_us(30000);
    window();
    route(2, MASKED);
    CHECK(ok, "mode 0: no interrupt");
    CHECK_EQ(counts[0x62], 1);
}
/* Interrupts off for 300 ms at 100 Hz: what was missed comes after it (timer_mode is the xl default), no storm. */
static void pit_missed(void)
{
    lapic_reset();
    handlers[0x62] = on_irq;
    control(0x34);
    outb(0x40, 0x9c);
    outb(0x40, 0x2e);
    route(2, 0x62);
    uint64_t from = rdtsc();
    bool ok = wait_count(0x62, 5, 2000000);
    delay_us(300000);
    wait_count(0x62, ~0u, 700000);
    uint64_t us = us_since(from);
    unsigned long n = counts[0x62];
    route(2, MASKED);
    window();
    CHECK(ok, "%lu ticks", n);
    CHECK(n <= us / 10000 + 2, "%lu ticks in %llu us", n, (unsigned long long)us);
    CHECK(n + 5 >= us / 10000 * 7 / 10, "%lu ticks in %llu us", n, (unsigned long long)us);
}

/* ---- RTC ---------------------------------------------------------------------------------------------- */
static volatile uint8_t flags_seen;
static void on_rtc(struct frame *f)
{
    (void)f;
    flags_seen |= cmos(0xc);
    APIC(0xb0) = 0;
}
static void rtc_on(uint8_t enable)
{
    lapic_reset();
    handlers[0x63] = on_rtc;
    counts[0x63] = 0;
    flags_seen = 0;
    cmos(0xc);
    route(8, 0x63);
    cmos_set(0xb, 0x02 | enable);
}
static void rtc_off(void)
{
    cmos_set(0xb, 0x02);
    cmos(0xc);
    route(8, MASKED | 0x63);
    window();
    cmos_set(0xa, 0x26);
}
/* Every rate from 2 to 8192 Hz: not too fast ever, and not much too slow where the emulator can follow. */
static void rtc_rates(void)
{
    for (unsigned rate = 3; rate <= 15; rate++) {
        unsigned hz = 32768u >> (rate - 1), want = hz < 8 ? 3 : hz < 512 ? hz / 4 : hz / 16;
        cmos_set(0xa, (uint8_t)(0x20 | rate));
        CHECK_EQ(cmos(0xa) & 0x7f, 0x20 | rate);
        rtc_on(0x40);
        uint64_t from = rdtsc();
        bool ok = wait_count(0x63, want, 10000000);
        uint64_t us = us_since(from), nominal = (uint64_t)want * 1000000 / hz;
        unsigned long n = counts[0x63];
        rtc_off();
        CHECK(ok, "%u Hz: %lu interrupts in %llu us", hz, n, (unsigned long long)us);
        CHECK(flags_seen & 0x40, "%u Hz: register C had %x", hz, flags_seen);
        CHECK(us + nominal / 8 + 1000000 / hz > nominal, "%u Hz: %u interrupts in %llu us", hz, want,
              (unsigned long long)us);
        CHECK(hz > 1024 || us < nominal * 3 + 500000, "%u Hz: %u interrupts took %llu us", hz, want, (unsigned long long)us);
    }
}
/* No second interrupt until register C was read. */
static void rtc_needs_ack(void)
{
    rtc_on(0x40);
    handlers[0x63] = on_irq; /* does not read C */
    bool ok = wait_count(0x63, 1, 1000000);
    delay_us(50000);
    window();
    unsigned long n = counts[0x63];
    uint8_t c = cmos(0xc);
    bool again = wait_count(0x63, n + 1, 1000000);
    rtc_off();
    CHECK(ok, "no interrupt");
    CHECK_EQ(n, 1);
    CHECK((c & 0xc0) == 0xc0, "register C is %x", c);
    CHECK(again, "no interrupt after C was read");
}
/* UIP comes before the second changes; while it is low, 244 us are safe. */
static void rtc_uip(void)
{
    unsigned seen = 0, late = 0;
    for (unsigned i = 0; i < 3; i++) {
        uint8_t s = cmos(0);
        bool up = false;
        uint64_t from = rdtsc();
        while (us_since(from) < 2500000) {
            bool uip = cmos(0xa) & 0x80;
            up |= uip;
            if (cmos(0) != s) break;
        }
        seen += up;
        late += cmos(0) == s;
    }
    CHECK(!late, "the second did not change %u times", late);
    CHECK(seen, "UIP was never seen before an update");
    cmos_set(0xb, 0x82); /* SET: no update, no UIP */
    uint8_t s = cmos(0);
    unsigned up = 0;
    uint64_t from = rdtsc();
    while (us_since(from) < 1300000) up += cmos(0xa) >> 7;
    uint8_t later = cmos(0);
    cmos_set(0xb, 0x02);
    CHECK_EQ(up, 0);
    CHECK_EQ(later, s);
}
static void rtc_update_interrupt(void)
{
    rtc_on(0x10);
    uint64_t from = rdtsc();
    bool ok = wait_count(0x63, 3, 6000000);
    uint64_t us = us_since(from);
    rtc_off();
    CHECK(ok, "%lu interrupts", counts[0x63]);
    CHECK((flags_seen & 0x90) == 0x90, "register C had %x", flags_seen);
    CHECK(us > 1900000 && us < 5000000, "3 updates took %llu us", (unsigned long long)us);
}
static uint8_t bcd_next(uint8_t v, uint8_t end)
{
    v = (v & 15) == 9 ? (uint8_t)(v + 7) : (uint8_t)(v + 1);
    return v == end ? 0 : v;
}
static void rtc_alarm(void)
{
    while (cmos(0xa) & 0x80) pause();
    uint8_t s = bcd_next(bcd_next(cmos(0), 0x60), 0x60);
    cmos_set(1, s);
    cmos_set(3, 0xc0); /* every minute, every hour */
    cmos_set(5, 0xff);
    rtc_on(0x20);
    bool ok = wait_count(0x63, 1, 4000000);
    uint8_t at = cmos(0);
    rtc_off();
    CHECK(ok, "no alarm");
    CHECK((flags_seen & 0xa0) == 0xa0, "register C had %x", flags_seen);
    CHECK(at == s || at == bcd_next(s, 0x60), "alarm for %x at %x", s, at);
}
/* Binary and 12-hour formats of the same time. */
static void rtc_formats(void)
{
    uint8_t bcd, bin, half;
    do {
        bcd = cmos(4);
        cmos_set(0xb, 0x06);
        bin = cmos(4);
        cmos_set(0xb, 0x00);
        half = cmos(4);
        cmos_set(0xb, 0x02);
    } while (bcd != cmos(4));
    unsigned hour = (bcd >> 4) * 10u + (bcd & 15), h12 = (half >> 4 & 7) * 10u + (half & 15);
    CHECK_EQ(bin, hour);
    CHECK(h12 == (hour % 12 ? hour % 12 : 12), "12 hours: %x for %u", half, hour);
    CHECK_EQ(half >> 7, hour >= 12);
}
/* XP sets the clock: SET, write, clear; the time goes on from there. */
static void rtc_set(void)
{
    static const uint8_t regs[] = { 0, 2, 4, 7, 8, 9 };
    static const uint8_t to[] = { 0x58, 0x59, 0x23, 0x31, 0x12, 0x24 };
    uint8_t kept[6];
    for (unsigned i = 0; i < 6; i++) kept[i] = cmos(regs[i]);
    cmos_set(0xb, 0x82);
    for (unsigned i = 0; i < 6; i++) cmos_set(regs[i], to[i]);
    cmos_set(0xb, 0x02);
    uint8_t s = cmos(0), m = cmos(2);
    uint64_t from = rdtsc();
    while (cmos(9) == 0x24 && us_since(from) < 4000000) pause();
    uint8_t y = cmos(9), mo = cmos(8), d = cmos(7), h = cmos(4);
    cmos_set(0xb, 0x82);
    for (unsigned i = 0; i < 6; i++) cmos_set(regs[i], kept[i]);
    cmos_set(0xb, 0x02);
    CHECK(m == 0x59 && (s == 0x58 || s == 0x59), "%x:%x after setting 59:58", m, s);
    CHECK(y == 0x25 && mo == 1 && d == 1 && h == 0, "new year: %x-%x-%x %x h", y, mo, d, h);
}

/* ---- PM timer ------------------------------------------------------------------------------------------- */
static void pm_width(void)
{
    const uint8_t *t = fadt();
    CHECK(t, "no FADT");
    uint16_t port = (uint16_t) * (const uint32_t *)(t + 76);
    bool wide = *(const uint32_t *)(t + 112) & 0x100;
    CHECK_EQ(t[91], 4); /* PM_TMR_LEN */
    CHECK(wide, "24 bits by the FADT's flags");
    uint32_t a = inl(port);
    uint32_t most = 0;
    uint64_t from = rdtsc();
    while (us_since(from) < 5000000) { /* 2^24 ticks are 4.69 s: bit 24 shows */
        uint32_t v = inl(port);
        most |= v ^ a;
        CHECK(v - a < 0x80000000u, "went back: %x after %x", v, a);
    }
    CHECK(most & 0xff000000, "the upper byte never changes");
    /* By bytes, as a 16-bit program reads it. */
    uint32_t before = inl(port), bytes, upper;
    do { /* upper half: goes round every 18 ms */
        upper = inl(port) >> 16;
        bytes = 0;
        for (unsigned i = 4; i-- > 0;) bytes = bytes << 8 | inb((uint16_t)(port + i));
    } while (inl(port) >> 16 != upper);
    /* The lowest byte may go round after the one above it was read: 256 too few. */
    CHECK(bytes - before + 256 < 3579545, "bytes %x, word %x", bytes, before);
    outl(port, 0); /* read-only */
    CHECK(inl(port) - before < 3579545, "a write changed it");
}
static void pm_event_block(void)
{
    const uint8_t *t = fadt();
    CHECK(t, "no FADT");
    uint16_t evt = (uint16_t) * (const uint32_t *)(t + 56), cnt = (uint16_t) * (const uint32_t *)(t + 64);
    outw((uint16_t)(evt + 2), 0x0320);
    CHECK_EQ(inw((uint16_t)(evt + 2)), 0x0320);
    outb((uint16_t)(evt + 3), 0x01);
    CHECK_EQ(inw((uint16_t)(evt + 2)), 0x0120);
    outw((uint16_t)(evt + 2), 0);
    outw(evt, 0xffff); /* clears what is set */
    CHECK_EQ(inw(evt) & 0x0300, 0);
    CHECK(inw(cnt) & 1, "SCI_EN is not set: PM1_CNT %x", inw(cnt)); /* no SMM: ACPI mode from the start */
    CHECK_EQ(*(const uint16_t *)(t + 46), 9);                       /* SCI_INT */
}

const struct test tests[] = {
    { "pit_mode2", pit_mode2 },
    { "pit_mode3", pit_mode3 },
    { "pit_latch", pit_latch },
    { "pit_read_back", pit_read_back },
    { "pit_bcd", pit_bcd },
    { "pit_gate", pit_gate },
    { "pit_refresh", pit_refresh },
    { "pit_interrupts", pit_interrupts },
    { "pit_missed", pit_missed },
    { "rtc_rates", rtc_rates },
    { "rtc_needs_ack", rtc_needs_ack },
    { "rtc_uip", rtc_uip },
    { "rtc_update_interrupt", rtc_update_interrupt },
    { "rtc_alarm", rtc_alarm },
    { "rtc_formats", rtc_formats },
    { "rtc_set", rtc_set },
    { "pm_width", pm_width },
    { "pm_event_block", pm_event_block },
    { 0 },
};
