/* sources: vmm/platform/v*.c vmm/platform/platform.c vmm/platform/save.c */
/* test_vpit.c: the 8254 data sheet's modes, through ports, against a clock that the test moves. */
#include "platform_stubs.h"

#define CLOCK(n) ((n)*1000000000ULL / PIT_HZ + 1)

static void start(unsigned channel, unsigned mode, unsigned count)
{
    outb(0x43, (uint8_t)(channel << 6 | 0x30 | mode << 1));
    outb((uint16_t)(0x40 + channel), (uint8_t)count);
    outb((uint16_t)(0x40 + channel), (uint8_t)(count >> 8));
}

static unsigned latched(unsigned channel)
{
    outb(0x43, (uint8_t)(channel << 6));
    unsigned low = inb((uint16_t)(0x40 + channel));
    return low | (unsigned)inb((uint16_t)(0x40 + channel)) << 8;
}

static uint8_t status(unsigned channel)
{
    outb(0x43, (uint8_t)(0xe0 | 2u << channel));
    return inb((uint16_t)(0x40 + channel));
}

/* IRQ 0s taken, at once, during ns. */
static unsigned irqs_in(uint64_t ns)
{
    unsigned n = 0;
    uint64_t end = clock_ns + ns;
    for (;;) {
        while (take(0) == 0x20) {
            outb(0x20, 0x20);
            n++;
        }
        if (clock_ns >= end)
            return n;
        struct timer *t = first_timer();
        run_to(t->expires_ns < end ? t->expires_ns : end);
    }
}

static void mode0_terminal_count(void **state)
{
    (void)state;
    pic_init();
    start(0, 0, 1000);
    assert_int_equal(status(0), 0x30);
    run_ns(CLOCK(400));
    assert_int_equal(latched(0), 600);
    run_ns(CLOCK(599));
    assert_int_equal(pending(0), -1);
    run_ns(CLOCK(1));
    assert_int_equal(take(0), 0x20);
    outb(0x20, 0x20);
    assert_int_equal(status(0), 0xb0); /* OUT stays high */
    assert_int_equal(irqs_in(NS_PER_SEC), 0);
    start(0, 0, 1000);
    run_ns(CLOCK(1000) + CLOCK(5));
    assert_int_equal(latched(0), 0x10000 - 5); /* counts on through zero */
}

static void mode0_first_byte_stops(void **state)
{
    (void)state;
    pic_init();
    start(0, 0, 1000);
    run_ns(CLOCK(990));
    outb(0x40, 0xe8);
    assert_int_equal(irqs_in(NS_PER_SEC), 0);
    outb(0x40, 0x03);
    assert_int_equal(irqs_in(CLOCK(999)), 0);
    assert_int_equal(irqs_in(CLOCK(2)), 1);
}

static void mode2_rate(void **state)
{
    (void)state;
    pic_init();
    start(0, 2, 11932); /* 100 Hz */
    run_ns(CLOCK(32));
    assert_int_equal(latched(0), 11900);
    run_ns(CLOCK(11932));
    assert_int_equal(take(0), 0x20);
    outb(0x20, 0x20);
    assert_int_equal(latched(0), 11900);
    assert_in_range(irqs_in(10 * NS_PER_SEC), 999, 1000);
}

static void mode2_new_count_waits(void **state)
{
    (void)state;
    pic_init();
    start(0, 2, 10000);
    run_ns(CLOCK(4000));
    outb(0x40, 5000 & 0xff);
    outb(0x40, 5000 >> 8);
    assert_int_equal(latched(0), 6000);
    assert_int_equal(status(0), 0x40 | 0x80 | 0x34); /* null count: not loaded yet */
    assert_int_equal(irqs_in(CLOCK(5990)), 0);
    assert_int_equal(irqs_in(CLOCK(20)), 1);
    assert_int_equal(status(0) & 0x40, 0);
    assert_int_equal(irqs_in(CLOCK(4970)), 0);
    assert_int_equal(irqs_in(CLOCK(40)), 1);
    assert_int_equal(irqs_in(CLOCK(5000)), 1);
}

static void mode3_square_wave(void **state)
{
    (void)state;
    pic_init();
    start(0, 3, 0); /* 65536 */
    assert_int_equal(status(0), 0xb6);
    run_ns(CLOCK(100));
    assert_int_equal(latched(0), (0x10000 - 200) & 0xffff);
    run_ns(CLOCK(0x8000));
    assert_int_equal(status(0), 0x36); /* second half: low */
    assert_int_equal(latched(0), 0x10000 - 200);
    assert_int_equal(irqs_in(10 * NS_PER_SEC), 182); /* 18.2 Hz */
}

static void mode4_strobe(void **state)
{
    (void)state;
    pic_init();
    start(0, 4, 500);
    assert_int_equal(irqs_in(CLOCK(500)), 0);
    assert_int_equal(irqs_in(CLOCK(3)), 1);
    assert_int_equal(irqs_in(NS_PER_SEC), 0);
    outb(0x40, 100); /* a new count alone starts again: how Linux uses it */
    outb(0x40, 0);
    assert_int_equal(irqs_in(CLOCK(103)), 1);
}

static void bcd(void **state)
{
    (void)state;
    outb(0x43, 0x31 | 4); /* channel 0, mode 2, BCD */
    outb(0x40, 0x00);
    outb(0x40, 0x10); /* 1000 */
    run_ns(CLOCK(1));
    assert_int_equal(latched(0), 0x0999);
    run_ns(CLOCK(500));
    assert_int_equal(latched(0), 0x0499);
    outb(0x43, 0x31);
    outb(0x40, 0);
    outb(0x40, 0); /* 10000 */
    run_ns(CLOCK(1));
    assert_int_equal(latched(0), 0x9999);
}

static void byte_access_modes(void **state)
{
    (void)state;
    outb(0x43, 0x14); /* LSB only, mode 2 */
    outb(0x40, 200);
    run_ns(CLOCK(10));
    assert_int_equal(inb(0x40), 190);
    assert_int_equal(inb(0x40), 190);
    outb(0x43, 0x24); /* MSB only */
    outb(0x40, 0x20);
    run_ns(CLOCK(0x100));
    assert_int_equal(inb(0x40), 0x1f);
    start(0, 2, 0x1234);
    run_ns(CLOCK(1));
    assert_int_equal(inb(0x40), 0x33); /* unlatched: low, then high */
    assert_int_equal(inb(0x40), 0x12);
}

static void latches_hold(void **state)
{
    (void)state;
    start(0, 2, 0x8000);
    run_ns(CLOCK(0x100));
    outb(0x43, 0x00);
    run_ns(CLOCK(0x100));
    outb(0x43, 0x00); /* ignored: the first one was not read */
    outb(0x43, 0xe2); /* read back: status of channel 0 too, which is read first */
    assert_int_equal(inb(0x40), 0xb4);
    assert_int_equal(inb(0x40), 0x00);
    assert_int_equal(inb(0x40), 0x7f);
    outb(0x43, 0xd2); /* read back: count of channel 0 */
    assert_int_equal(inb(0x40), 0x00);
    assert_int_equal(inb(0x40), 0x7e);
}

static void speaker_gate(void **state)
{
    (void)state;
    start(2, 0, 1000);
    run_ns(CLOCK(5000));
    assert_int_equal(inb(0x61) & 0x20, 0); /* gate low: stands still */
    outb(0x61, 1);
    run_ns(CLOCK(400));
    outb(0x61, 0);
    run_ns(CLOCK(4000));
    assert_int_equal(latched(2), 600);
    outb(0x61, 1);
    run_ns(CLOCK(590));
    assert_int_equal(inb(0x61) & 0x23, 1);
    run_ns(CLOCK(15));
    assert_int_equal(inb(0x61) & 0x23, 0x21);
    uint8_t refresh = inb(0x61) & 0x10;
    run_ns(15085);
    assert_int_equal(inb(0x61) & 0x10, refresh ^ 0x10);
}

static void mode1_retriggers(void **state)
{
    (void)state;
    start(2, 1, 1000);
    assert_int_equal(inb(0x61) & 0x20, 0x20);
    outb(0x61, 1);
    run_ns(CLOCK(10));
    assert_int_equal(inb(0x61) & 0x20, 0);
    run_ns(CLOCK(900));
    outb(0x61, 0);
    outb(0x61, 1); /* again: the whole count from here */
    run_ns(CLOCK(900));
    assert_int_equal(inb(0x61) & 0x20, 0);
    run_ns(CLOCK(105));
    assert_int_equal(inb(0x61) & 0x20, 0x20);
}

static void missed_ticks_are_made_up_for(void **state)
{
    (void)state;
    pic_init();
    start(0, 2, 1193);      /* 1 kHz */
    run_ns(20 * NS_PER_MS); /* the guest takes nothing meanwhile */
    unsigned n = irqs_in(2 * NS_PER_MS);
    assert_in_range(n, 10,
                    23); /* one held by the PIC, then at most twenty times the rate: no heap */
    n += irqs_in(78 * NS_PER_MS);
    assert_in_range(n, 99, 101); /* 100 ms, 100 ticks */
    stall_ns(3600 * NS_PER_SEC);
    n = irqs_in(10 * NS_PER_SEC);
    assert_in_range(n, 11990, 12010); /* two seconds' worth at most, not an hour's */
}

static void missed_ticks_by_timer_mode(void **state)
{
    (void)state;
    pic_init();
    dom.hvm_params[HVM_PARAM_TIMER_MODE] = HVMPTM_no_missed_ticks_pending;
    start(0, 2, 1193);
    run_ns(50 * NS_PER_MS);
    assert_in_range(irqs_in(50 * NS_PER_MS), 50, 51);
    dom.hvm_params[HVM_PARAM_TIMER_MODE] = HVMPTM_one_missed_tick_pending;
    run_ns(50 * NS_PER_MS);
    assert_in_range(irqs_in(50 * NS_PER_MS), 50, 52);
}

static void masked_ticks_are_not_owed(void **state)
{
    (void)state;
    pic_init();
    outb(0x21, 0xff);
    start(0, 2, 1193);
    run_ns(500 * NS_PER_MS);
    outb(0x21, 0);
    assert_in_range(irqs_in(100 * NS_PER_MS), 100, 102);
}

static void no_storm(void **state)
{
    (void)state;
    outb(0x43, 0x14);
    outb(0x40, 1); /* illegal in mode 2 */
    timers_fired = 0;
    run_ns(100 * NS_PER_MS);
    assert_in_range(timers_fired, 0, 2100);
}

static void saved_and_loaded(void **state)
{
    struct hvm_hw_pit rec;
    (void)state;
    pic_init();
    start(0, 2, 1193);
    outb(0x61, 3);
    assert_int_equal(hvm_context_save_one(&dom, HVM_SAVE_CODE(PIT), 0, &rec, sizeof(rec)),
                     sizeof(rec));
    assert_int_equal(rec.channels[0].count, 1193);
    assert_int_equal(rec.speaker_data_on, 1);
    assert_int_equal(rec.channels[2].gate, 1);
    start(0, 2, 0);
    assert_int_equal(vpit_load(&dom, &rec), 0);
    assert_in_range(irqs_in(100 * NS_PER_MS), 99, 101);
    rec.channels[1].mode = 7;
    assert_int_equal(vpit_load(&dom, &rec), -EINVAL);
}

static void hostile(void **state)
{
    uint32_t seed = 99;
    (void)state;
    for (unsigned i = 0; i < 300000; i++) {
        seed = seed * 1664525 + 1013904223;
        unsigned r = seed >> 8;
        uint16_t port = (uint16_t)((r & 7) == 7 ? 0x61 : 0x40 + (r & 3));
        if (r & 8)
            outb(port, (uint8_t)(r >> 8));
        else
            inb(port);
        if ((r >> 4 & 15) == 0)
            run_ns(r >> 12);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, world_up, world_down)
    const struct CMUnitTest tests[] = {
        T(mode0_terminal_count),
        T(mode0_first_byte_stops),
        T(mode2_rate),
        T(mode2_new_count_waits),
        T(mode3_square_wave),
        T(mode4_strobe),
        T(bcd),
        T(byte_access_modes),
        T(latches_hold),
        T(speaker_gate),
        T(mode1_retriggers),
        T(missed_ticks_are_made_up_for),
        T(missed_ticks_by_timer_mode),
        T(masked_ticks_are_not_owed),
        T(no_storm),
        T(saved_and_loaded),
        T(hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
