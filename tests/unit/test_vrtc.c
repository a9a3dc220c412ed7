/* sources: vmm/platform/v*.c vmm/platform/platform.c vmm/platform/save.c */
/* test_vrtc.c: the MC146818's time, alarm, periodic and update rules. The world's wall clock starts
 * at 2023-11-14 22:13:25 UTC, a Tuesday (the stub's 22:13:20, plus five seconds of uptime).
 */
#include "platform_stubs.h"

#include <time.h>

static uint8_t get(unsigned index)
{
    outb(0x70, (uint8_t)index);
    return inb(0x71);
}
static void set(unsigned index, uint8_t val)
{
    outb(0x70, (uint8_t)index);
    outb(0x71, val);
}

static int up(void **state)
{
    world_up(state);
    pic_init();
    return 0;
}

static bool irq8(void)
{
    if (take(0) != 0x28)
        return false;
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
    return true;
}

static void time_of_day(void **state)
{
    (void)state;
    assert_int_equal(get(9), 0x23);
    assert_int_equal(get(8), 0x11);
    assert_int_equal(get(7), 0x14);
    assert_int_equal(get(6), 3); /* Tuesday, Sunday being 1 */
    assert_int_equal(get(4), 0x22);
    assert_int_equal(get(2), 0x13);
    assert_int_equal(get(0), 0x25);
    run_ns(35 * NS_PER_SEC);
    assert_int_equal(get(2), 0x14);
    assert_int_equal(get(0), 0x00);
    set(11, 0x06); /* binary, 24 h */
    assert_int_equal(get(4), 22);
    set(11, 0x04); /* binary, 12 h */
    assert_int_equal(get(4), 0x80 | 10);
    set(11, 0x00); /* BCD, 12 h */
    assert_int_equal(get(4), 0x80 | 0x10);
    dom.time_offset_seconds = (uint64_t)-22 * 3600;
    assert_int_equal(get(4), 0x12); /* midnight is 12 AM */
    assert_int_equal(get(13), 0x80);
}

/* Every day of 136 years against the C library. */
static void calendar(void **state)
{
    (void)state;
    set(11, 0x06);
    for (uint64_t day = 0; day < 49700; day++) {
        time_t t = (time_t)(day * 86400 + 4711);
        struct tm tm;
        gmtime_r(&t, &tm);
        dom.time_offset_seconds = (uint64_t)t - 1700000005;
        assert_int_equal(get(9), tm.tm_year % 100);
        assert_int_equal(get(8), tm.tm_mon + 1);
        assert_int_equal(get(7), tm.tm_mday);
        assert_int_equal(get(6), tm.tm_wday + 1);
    }
}

static void update_in_progress(void **state)
{
    (void)state;
    assert_int_equal(get(10) & 0x80, 0);
    run_ns(NS_PER_SEC - 245000);
    assert_int_equal(get(10) & 0x80, 0);
    run_ns(2000);
    assert_int_equal(get(10) & 0x80, 0x80);
    run_ns(244000);
    assert_int_equal(get(10) & 0x80, 0);
    assert_int_equal(get(0), 0x26);
}

static void setting_the_clock(void **state)
{
    (void)state;
    set(11, 0x82); /* SET */
    set(0, 0x50);
    set(2, 0x59);
    set(4, 0x23);
    set(7, 0x31);
    set(8, 0x12);
    set(9, 0x99);
    run_ns(30 * NS_PER_SEC); /* stands still */
    assert_int_equal(get(0), 0x50);
    assert_int_equal(broadcasts, 0);
    set(11, 0x02);
    assert_int_equal(broadcasts, 1);
    assert_true(timeoffset == 946684790 - (1700000005 + 30));
    assert_true((int64_t)dom.time_offset_seconds == timeoffset);
    run_ns(11 * NS_PER_SEC);
    assert_int_equal(get(0), 0x01);
    assert_int_equal(get(2), 0x00);
    assert_int_equal(get(4), 0x00);
    assert_int_equal(get(9), 0x00); /* 2000: a new century and a leap year */
    assert_int_equal(get(6), 7);    /* a Saturday */
    set(8, 0x02);
    set(7, 0x29);
    run_ns(86400 * NS_PER_SEC);
    assert_int_equal(get(8), 0x03);
    assert_int_equal(get(7), 0x01);
    set(0, 0xff); /* nonsense */
    set(8, 0xff);
    set(7, 0x00);
    assert_in_range(get(8), 1, 0x12);
}

static void periodic(void **state)
{
    unsigned n = 0;
    (void)state;
    set(10, 0x26); /* 1,024 Hz */
    set(11, 0x42); /* PIE */
    uint64_t end = clock_ns + NS_PER_SEC;
    while (clock_ns < end) {
        run_ns(100000);
        if (irq8()) {
            assert_int_equal(get(12) & 0xc0, 0xc0);
            n++;
        }
    }
    assert_in_range(n, 1023, 1024);
    n = 0;
    run_ns(10 * NS_PER_MS);
    while (irq8()) /* register C is not read: no more edges */
        n++;
    assert_int_equal(n, 1);
    run_ns(10 * NS_PER_MS);
    assert_false(irq8());
    get(12);
    run_ns(NS_PER_MS);
    assert_true(irq8());
}

/* XP sets 1,024 Hz for multimedia: what it missed while another vCPU ran must come, but not at
 * once. */
static void periodic_catches_up(void **state)
{
    unsigned n = 0, burst = 0, in_ms = 0;
    (void)state;
    set(10, 0x26);
    set(11, 0x42);
    run_ns(30 * NS_PER_MS); /* not running */
    for (unsigned i = 0; i < 10 * 97; i++) {
        run_ns(100000);
        in_ms = i % 10 ? in_ms : 0;
        if (irq8()) {
            get(12);
            n++;
            in_ms++;
        }
        burst = in_ms > burst ? in_ms : burst;
    }
    assert_in_range(n, 128, 131); /* 127 ms at 1,024 Hz, one having waited */
    assert_in_range(burst, 4, 10);
}

static void rates(void **state)
{
    (void)state;
    static const unsigned hz[] = {0,   256, 128, 8192, 4096, 2048, 1024, 512,
                                  256, 128, 64,  32,   16,   8,    4,    2};
    for (unsigned rate = 1; rate < 16; rate++) {
        set(10, (uint8_t)(0x20 | rate));
        set(11, 0x42);
        unsigned n = 0;
        uint64_t end = clock_ns + NS_PER_SEC;
        while (clock_ns < end) {
            run_ns(50000);
            if (irq8()) {
                get(12);
                n++;
            }
        }
        assert_in_range(n, hz[rate] - 1, hz[rate] + 1);
        set(11, 0x02);
        get(12);
        irq8();
    }
}

static void update_ended(void **state)
{
    (void)state;
    assert_int_equal(get(12), 0);
    run_ns(NS_PER_SEC);
    assert_int_equal(get(12), 0x50); /* polled: periodic and update flags, no interrupt */
    set(11, 0x12);                   /* UIE */
    run_ns(NS_PER_SEC);
    assert_true(irq8());
    assert_int_equal(get(12) & 0x90, 0x90);
    timers_fired = 0;
    set(11, 0x02);
    run_ns(10 * NS_PER_SEC);
    assert_int_equal(timers_fired, 0); /* no interrupt wanted, no host timer */
    set(11, 0x92);
    assert_int_equal(get(11), 0x82); /* SET clears UIE */
}

static void alarm_time(void **state)
{
    (void)state;
    set(1, 0x00);
    set(3, 0x15);
    set(5, 0x22);
    set(11, 0x22); /* AIE */
    timers_fired = 0;
    run_ns(94 * NS_PER_SEC);
    assert_false(irq8());
    run_ns(NS_PER_SEC);
    assert_true(irq8());
    assert_int_equal(timers_fired, 1);
    assert_int_equal(get(12) & 0xa0, 0xa0);
    assert_int_equal(get(4) << 16 | get(2) << 8 | get(0), 0x221500);
    run_ns(86399 * NS_PER_SEC);
    assert_false(irq8());
    run_ns(NS_PER_SEC);
    assert_true(irq8()); /* tomorrow again */
    get(12);
    set(5, 0xff); /* any hour */
    set(3, 0xc0); /* any minute */
    set(1, 0x30);
    run_ns(29 * NS_PER_SEC);
    assert_false(irq8());
    run_ns(NS_PER_SEC);
    assert_true(irq8());
    get(12);
    run_ns(60 * NS_PER_SEC);
    assert_true(irq8());
    get(12);
    set(1, 0x77); /* never */
    run_ns(86400 * NS_PER_SEC);
    assert_false(irq8());
}

static void alarm_flag_polled(void **state)
{
    (void)state;
    set(1, 0x28);
    set(3, 0x13);
    set(5, 0x22);
    run_ns(2 * NS_PER_SEC);
    assert_int_equal(get(12) & 0x20, 0);
    run_ns(5 * NS_PER_SEC);
    assert_int_equal(get(12) & 0x20, 0x20);
    run_ns(86400 * NS_PER_SEC);
    assert_int_equal(get(12) & 0x20, 0x20);
}

static void rest_is_the_device_models(void **state)
{
    uint32_t val = 0x8e;
    (void)state;
    assert_false(platform_pio(&vcpus[0], 0x70, 1, true, &val));
    assert_false(platform_pio(&vcpus[0], 0x71, 1, false, &val));
    assert_true(dom.platform->rtc.nmi_masked);
    apic_write(0, LAPIC_LVT_LINT1, 0x400);
    platform_nmi(&dom);
    assert_int_equal(nmis[0], 0);
    outb(0x70, 0x0d);
    platform_nmi(&dom);
    assert_int_equal(nmis[0], 1);
    assert_int_equal(inb(0x71), 0x80);
    port_out(0x70, 2, 0x0501); /* index and data in one OUT */
    assert_int_equal(get(1), 0x05);
}

static void saved_and_loaded(void **state)
{
    struct hvm_hw_rtc rec;
    (void)state;
    set(10, 0x2a); /* 64 Hz */
    set(11, 0x42);
    set(3, 0x33);
    assert_int_equal(vrtc_save(&dom, &rec), 0);
    assert_int_equal(rec.cmos_data[0], 0x25);
    vrtc_reset(&dom);
    run_ns(7 * NS_PER_SEC);
    assert_int_equal(vrtc_load(&dom, &rec), 0);
    assert_int_equal(get(0), 0x32); /* time goes on */
    assert_int_equal(get(3), 0x33);
    run_ns(17 * NS_PER_MS);
    assert_true(irq8());
}

static void hostile(void **state)
{
    uint32_t seed = 7;
    (void)state;
    for (unsigned i = 0; i < 100000; i++) {
        seed = seed * 1664525 + 1013904223;
        unsigned r = seed >> 8;
        uint32_t val = r >> 8 & 0xff;
        platform_pio(&vcpus[0], r & 1 ? 0x71 : 0x70, 1, r & 2, &val);
        if ((r >> 4 & 63) == 0)
            run_ns((uint64_t)r << 4);
        take(0);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, up, world_down)
    const struct CMUnitTest tests[] = {
        T(time_of_day),
        T(calendar),
        T(update_in_progress),
        T(setting_the_clock),
        T(periodic),
        T(periodic_catches_up),
        T(rates),
        T(update_ended),
        T(alarm_time),
        T(alarm_flag_polled),
        T(rest_is_the_device_models),
        T(saved_and_loaded),
        T(hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
