/* sources: vmm/platform/v*.c vmm/platform/platform.c vmm/platform/save.c */
/* test_vtick.c: the ticks of a guest that gets a part of a CPU, under simulated time: all come, no
 * more than a burst at a time, and what nobody takes costs the host nothing.
 */
#include "platform_stubs.h"

enum { PIT = 0x42, RTC = 0x48, HPET = 0x50, LAPIC = 0xe0 };
enum ack_order { EOI_FIRST, STATUS_FIRST, STATUS_TWICE };

static unsigned ticks[256];
static enum ack_order order;
static uint64_t handler_ns, own_ns; /* what a handler takes; what the guest had for itself */

static uint8_t rtc_get(unsigned index)
{
    outb(0x70, (uint8_t)index);
    return inb(0x71);
}
static void rtc_set(unsigned index, uint8_t val)
{
    outb(0x70, (uint8_t)index);
    outb(0x71, val);
}
static void hpet_set(unsigned offset, uint64_t val)
{
    mem_write(0, VHPET_BASE + offset, 8, val);
}

static int up(void **state)
{
    world_up(state);
    memset(ticks, 0, sizeof(ticks));
    order = EOI_FIRST;
    handler_ns = 10000;
    own_ns = 0;
    apic_enable(0);
    set_rte(2, PIT);
    set_rte(8, RTC);
    set_rte(20, HPET | BIT(15));
    return 0;
}

static void pit_on(void)
{
    outb(0x43, 0x34);
    outb(0x40, 11932 & 0xff);
    outb(0x40, 11932 >> 8); /* 100 Hz */
}
static void rtc_on(void)
{
    rtc_set(10, 0x26); /* 1,024 Hz */
    rtc_set(11, 0x42);
}
static void lapic_on(void)
{
    apic_write(0, LAPIC_TDCR, 0xb);
    apic_write(0, LAPIC_LVT_TIMER, 0x20000 | LAPIC);
    apic_write(0, LAPIC_TMICT, 100000); /* 1 kHz */
}
static void hpet_on(void) /* 500 Hz, level-triggered */
{
    hpet_set(0x120, 20 << 9 | BIT(1) | BIT(2) | BIT(3) | BIT(6));
    hpet_set(0x128, 125000);
    hpet_set(0x10, 1);
}

/* What the device wants to hear of its interrupt. */
static void status(int vector)
{
    if (vector == RTC)
        rtc_get(12);
    if (vector == HPET)
        hpet_set(0x20, BIT(1));
}

static bool handle(void)
{
    int vector = take(0);

    if (vector < 0)
        return false;
    ticks[vector]++;
    bool first =
        order != EOI_FIRST || vector == HPET; /* a level comes again if it is still there */
    if (first)
        status(vector);
    run_ns(handler_ns);
    if (order == STATUS_TWICE)
        status(vector);
    eoi(0);
    if (!first)
        status(vector);
    return true;
}

/* The guest has the CPU for ns, and takes what comes. */
static void guest_runs(uint64_t ns)
{
    uint64_t end = clock_ns + ns;

    while (clock_ns < end) {
        if (handle())
            continue;
        uint64_t next = first_timer()->expires_ns, from = clock_ns;
        run_to(next < end ? MAX(next, clock_ns) : end);
        own_ns += clock_ns - from;
    }
}

/* An eighth of a CPU: 1.25 ms in each 10. Then time enough to take what is owed. */
static void an_eighth_for(uint64_t ns)
{
    for (uint64_t end = clock_ns + ns; clock_ns < end;) {
        run_ns(8750 * NS_PER_US);
        guest_runs(1250 * NS_PER_US);
    }
}

static void nothing_missing(int vector, unsigned want)
{
    if (ticks[vector] + 2 < want || ticks[vector] > want + 2)
        fail_msg("vector %x: %u ticks, not %u", vector, ticks[vector], want);
}

static void an_eighth_of_a_cpu(void **state)
{
    (void)state;
    pit_on();
    rtc_on();
    lapic_on();
    hpet_on();
    an_eighth_for(10 * NS_PER_SEC);
    guest_runs(NS_PER_MS);
    nothing_missing(PIT, 1000);
    nothing_missing(RTC, 10241);
    nothing_missing(LAPIC, 10001);
    nothing_missing(HPET, 5000);
}

/* Linux ends the interrupt before it reads register C, XP after it, and may read it again. */
static void whatever_the_order(void **state)
{
    (void)state;
    rtc_on();
    hpet_on();
    for (order = EOI_FIRST; order <= STATUS_TWICE; order++) {
        memset(ticks, 0, sizeof(ticks));
        an_eighth_for(2 * NS_PER_SEC);
        guest_runs(NS_PER_MS);
        nothing_missing(RTC, 2049);
        nothing_missing(HPET, 1000);
    }
}

/* Polled with interrupts off, register C gives owed ticks too, and each is one. */
static void polled(void **state)
{
    unsigned n = 0;
    (void)state;
    rtc_on();
    for (unsigned i = 0; i < 200; i++) {
        run_ns(10 * NS_PER_MS);
        for (unsigned k = 0; k < 20; k++) {
            run_ns(50 * NS_PER_US);
            if (rtc_get(12) & 0x40)
                n++;
            while (take(0) == RTC)
                eoi(0);
        }
    }
    assert_in_range(n, 11 * 200 * 1024 / 1000 - 12, 11 * 200 * 1024 / 1000 + 2);
}

/* A second behind: a burst, then at twenty times the rate, until all are there. */
static void bursts_are_bounded(void **state)
{
    (void)state;
    rtc_on();
    handler_ns = 1000;
    run_ns(NS_PER_SEC);
    guest_runs(NS_PER_MS / 2);
    unsigned in_all = ticks[RTC];
    assert_in_range(in_all, VTICK_BURST, VTICK_BURST + 12);
    for (unsigned i = 0; i < 10; i++) {
        unsigned before = ticks[RTC];
        guest_runs(NS_PER_MS);
        assert_in_range(ticks[RTC] - before, VTICK_BURST, 2 * VTICK_BURST);
    }
    assert_in_range(ticks[RTC] - in_all, 180, 220);
    guest_runs(60 * NS_PER_MS);
    nothing_missing(RTC, 1097);
}

/* Handling a tick takes longer than its period, as on a host that is starved: the guest itself has
 * a fifth of its time all the same. */
static void an_overloaded_guest_gets_on(void **state)
{
    (void)state;
    rtc_on();
    handler_ns = 1500 * NS_PER_US;
    guest_runs(2 * NS_PER_SEC);
    assert_in_range(own_ns, NS_PER_SEC / 4, NS_PER_SEC);
}

/* Just a few behind: one at a time, and the guest gets on after each, as a loop around HLT needs.
 */
static void a_few_come_one_by_one(void **state)
{
    (void)state;
    pit_on();
    run_ns(31 * NS_PER_MS);
    handler_ns = 1000;
    for (unsigned i = 0; i < 3; i++) {
        assert_true(handle());
        assert_int_equal(pending(0), -1);
        guest_runs(490 * NS_PER_US);
        assert_int_equal(ticks[PIT], i + 1);
        run_ns(11 * NS_PER_US);
    }
    assert_false(handle());
}

/* More than two seconds behind: those two seconds' ticks and no more. */
static void no_more_than_two_seconds(void **state)
{
    (void)state;
    rtc_on();
    stall_ns(3600 * NS_PER_SEC);
    guest_runs(NS_PER_SEC);
    nothing_missing(RTC, 3 * 1024);
}

static void a_hung_guest_costs_nothing(void **state)
{
    (void)state;
    pit_on();
    rtc_on();
    lapic_on();
    hpet_on();
    run_ns(50 * NS_PER_MS);
    timers_fired = 0;
    run_ns(NS_PER_SEC);
    assert_in_range(timers_fired, 0, 4 * 101);
    guest_runs(2 * NS_PER_SEC); /* woken, it has all of it */
    nothing_missing(RTC, 3123);
    nothing_missing(PIT, 305);
    assert_int_equal(dom.platform->ticks_wait, 0);
}

/* One that keeps up is asked for nothing beyond its ticks. */
static void keeping_up(void **state)
{
    (void)state;
    rtc_on();
    timers_fired = 0;
    guest_runs(NS_PER_SEC);
    nothing_missing(RTC, 1024);
    assert_in_range(timers_fired, 1022, 1026);
    assert_int_equal(dom.platform->ticks_wait, 0);
}

/* The PIC's automatic EOI: the acknowledgement is all there is. */
static void automatic_eoi(void **state)
{
    unsigned n = 0;
    (void)state;
    pic_init();
    set_rte(2, PIT | BIT(16));
    outb(0x20, 0x11);
    outb(0x21, 0x20);
    outb(0x21, 0x04);
    outb(0x21, 0x03);
    outb(0x21, 0);
    pit_on();
    run_ns(500 * NS_PER_MS);
    timers_fired = 0;
    while (take(0) == 0x20)
        n++;
    assert_int_equal(timers_fired, 0);
    assert_int_equal(n, VTICK_BURST + 1);
}

/* A LAPIC in the CPU's hands: while ticks wait every EOI exits, and looks. */
static void by_the_cpu(void **state)
{
    struct vlapic_entry e;
    (void)state;
    assert_int_equal(vlapic_by_cpu(&vcpus[0], false), 0);
    lapic_on();
    run_ns(NS_PER_MS + 1);
    vlapic_entry(&vcpus[0], &e);
    assert_int_equal(e.requested, LAPIC);
    assert_int_equal(e.told[3], 0);
    vcpus[0].work = 0;
    run_ns(10 * NS_PER_MS);
    assert_true(vcpus[0].work & VWORK_EVENT);
    vlapic_entry(&vcpus[0], &e);
    assert_int_equal(e.told[3], ~0ULL);
    vcpus[0].vlapic->regs[(LAPIC_IRR + LAPIC / 32 * 16) / 4] = 0; /* taken and ended */
    vlapic_ended(&vcpus[0], LAPIC);
    vlapic_entry(&vcpus[0], &e);
    assert_int_equal(e.requested, LAPIC);
    timer_kill(&vcpus[0].vlapic->timer);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, up, world_down)
    const struct CMUnitTest tests[] = {
        T(an_eighth_of_a_cpu),
        T(whatever_the_order),
        T(polled),
        T(bursts_are_bounded),
        T(an_overloaded_guest_gets_on),
        T(a_few_come_one_by_one),
        T(no_more_than_two_seconds),
        T(a_hung_guest_costs_nothing),
        T(keeping_up),
        T(automatic_eoi),
        T(by_the_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
