/* sources: vmm/platform/v*.c vmm/platform/platform.c vmm/platform/save.c */
/* test_vhpet.c: the HPET specification (1.0a): counter, comparators, periodic mode, routing. */
#include "platform_stubs.h"

#define CAP          0x00
#define CONFIG       0x10
#define STATUS       0x20
#define COUNTER      0xf0
#define TN_CONFIG(n) (0x100 + 0x20 * (n))
#define TN_CMP(n)    (0x108 + 0x20 * (n))
#define ROUTE(gsi)   ((uint64_t)(gsi) << 9)

static uint64_t get(unsigned offset)
{
    return mem_read(0, VHPET_BASE + offset, 8);
}
static void set(unsigned offset, uint64_t val)
{
    mem_write(0, VHPET_BASE + offset, 8, val);
}
static bool taken(int vector)
{
    if (take(0) != vector)
        return false;
    eoi(0);
    return true;
}

static int up(void **state)
{
    world_up(state);
    apic_enable(0);
    set_rte(2, 0x42);
    set_rte(8, 0x48);
    set_rte(20, 0x50);
    set_rte(21, 0x51 | BIT(15));
    return 0;
}

static void identity(void **state)
{
    (void)state;
    uint64_t cap = get(CAP);
    assert_int_equal(cap >> 32, 16000000); /* femtoseconds */
    assert_int_equal(cap >> 8 & 31, 2);    /* last timer */
    assert_int_equal(cap >> 13 & 1, 1);    /* 64-bit */
    assert_int_equal(cap >> 15 & 1, 1);    /* legacy replacement */
    set(CAP, 0);
    assert_int_equal(get(CAP), cap);
    for (unsigned n = 0; n < 3; n++) {
        assert_int_equal(get(TN_CONFIG(n)), 0x00f00000ULL << 32 | 0x30);
        set(TN_CONFIG(n), ~0ULL);
        assert_int_equal(get(TN_CONFIG(n)), 0x00f00000ULL << 32 | 0x3f7e);
    }
    assert_int_equal(mem_read(0, VHPET_BASE + 4, 4), 16000000);
    dom.hvm_params[HVM_PARAM_HPET_ENABLED] = 0;
    assert_false(platform_mmio_claims(&vcpus[0], VHPET_BASE));
}

static void counts_while_enabled(void **state)
{
    (void)state;
    run_ns(NS_PER_MS);
    assert_int_equal(get(COUNTER), 0);
    set(COUNTER, 0xfffffff0);
    set(CONFIG, 1);
    run_ns(16 * 0x30);
    assert_int_equal(get(COUNTER), 0x100000020);
    assert_int_equal(mem_read(0, VHPET_BASE + COUNTER, 4), 0x20);
    assert_int_equal(mem_read(0, VHPET_BASE + COUNTER + 4, 4), 1);
    set(CONFIG, 0);
    run_ns(NS_PER_SEC);
    assert_int_equal(get(COUNTER), 0x100000020);
}

static void oneshot_edge(void **state)
{
    (void)state;
    set(CONFIG, 1);
    set(TN_CONFIG(0), ROUTE(20) | BIT(2));
    set(TN_CMP(0), get(COUNTER) + 1000);
    run_ns(15999);
    assert_int_equal(pending(0), -1);
    run_ns(1);
    assert_true(taken(0x50));
    assert_int_equal(get(STATUS), 0);
    run_ns(200 * NS_PER_SEC);
    assert_int_equal(pending(0), -1);
    set(TN_CMP(0), get(COUNTER) - 5); /* just missed: not lost */
    run_ns(1);
    assert_true(taken(0x50));
    set(TN_CMP(0), get(COUNTER) + 1000);
    set(TN_CONFIG(0), ROUTE(20)); /* disabled in time */
    run_ns(NS_PER_SEC);
    assert_int_equal(pending(0), -1);
    set(TN_CMP(0), get(COUNTER) + 1000);
    set(TN_CONFIG(0), ROUTE(5) | BIT(2)); /* a route it does not have */
    run_ns(NS_PER_SEC);
    assert_int_equal(pending(0), -1);
}

static void oneshot_32bit_wraps(void **state)
{
    (void)state;
    set(CONFIG, 1);
    set(TN_CONFIG(0), ROUTE(20) | BIT(2) | BIT(8));
    set(TN_CMP(0), get(COUNTER) + 1000);
    run_ns(16000);
    assert_true(taken(0x50));
    run_ns((16ULL << 32) - 1);
    assert_int_equal(pending(0), -1);
    run_ns(1);
    assert_true(taken(0x50));
}

static void level(void **state)
{
    (void)state;
    set(CONFIG, 1);
    set(TN_CONFIG(1), ROUTE(21) | BIT(2) | BIT(1));
    set(TN_CMP(1), get(COUNTER) + 100);
    run_ns(1600);
    assert_true(taken(0x51));
    assert_int_equal(get(STATUS), 2);
    assert_true(taken(0x51)); /* still asserted */
    set(STATUS, 1);           /* another timer's bit */
    assert_int_equal(get(STATUS), 2);
    assert_int_equal(take(0), 0x51);
    set(STATUS, 2);
    eoi(0);
    assert_int_equal(get(STATUS), 0);
    assert_int_equal(pending(0), -1);
}

/* As Linux does it: VAL_SET, the first match, then the period. */
static void periodic(void **state)
{
    (void)state;
    set(CONFIG, 0);
    set(TN_CONFIG(0), ROUTE(20) | BIT(2) | BIT(3) | BIT(6));
    set(TN_CMP(0), get(COUNTER) + 62500);
    set(TN_CMP(0), 62500);
    set(CONFIG, 1);
    unsigned n = 0;
    for (unsigned i = 0; i < 1000; i++) {
        run_ns(100000);
        n += taken(0x50);
    }
    assert_in_range(n, 99, 100);
    uint64_t now = get(COUNTER), cmp = get(TN_CMP(0));
    assert_true(cmp > now && cmp - now <= 62500);
    run_ns(10 * NS_PER_MS); /* not taken: made up for, at twice the rate */
    n = 0;
    for (unsigned i = 0; i < 400; i++) {
        run_ns(100000);
        n += taken(0x50);
    }
    assert_in_range(n, 49, 51);
    cmp = get(TN_CMP(0));
    set(TN_CMP(0), 125000); /* without VAL_SET: the period alone */
    assert_int_equal(get(TN_CMP(0)), cmp);
    run_ns((cmp - get(COUNTER)) * 16 + 16);
    assert_true(taken(0x50));
    assert_int_equal(get(TN_CMP(0)), cmp + 125000);
    set(CONFIG, 0);
    run_ns(NS_PER_SEC);
    taken(0x50);
    assert_int_equal(pending(0), -1);
}

static void legacy_replacement(void **state)
{
    (void)state;
    outb(0x43, 0x34);
    outb(0x40, 0xa9);
    outb(0x40, 0x04); /* the PIT at 1 kHz */
    run_ns(2 * NS_PER_MS);
    assert_true(taken(0x42));
    set(TN_CONFIG(0), BIT(2) | ROUTE(20));
    set(TN_CONFIG(1), BIT(2) | ROUTE(20));
    set(TN_CMP(0), 1000000);
    set(TN_CMP(1), 2000000);
    set(CONFIG, 3);
    taken(0x42);
    run_ns(15 * NS_PER_MS);
    assert_int_equal(pending(0), -1); /* the PIT is cut off */
    run_ns(NS_PER_MS);
    assert_true(taken(0x42));
    run_ns(16 * NS_PER_MS);
    assert_true(taken(0x48));
    run_ns(100);
    set(CONFIG, 1);
    run_ns(2 * NS_PER_MS);
    assert_true(taken(0x42)); /* the PIT again */
}

static void halves(void **state)
{
    (void)state;
    mem_write(0, VHPET_BASE + TN_CMP(2), 4, 0x11111111);
    mem_write(0, VHPET_BASE + TN_CMP(2) + 4, 4, 0x22222222);
    assert_int_equal(get(TN_CMP(2)), 0x2222222211111111);
    set(TN_CONFIG(2), BIT(8));
    assert_int_equal(get(TN_CMP(2)), 0x11111111);
    mem_write(0, VHPET_BASE + 0x3f8, 8, 1);
    assert_int_equal(mem_read(0, VHPET_BASE + 0x3f8, 8), 0);
    mem_read(0, VHPET_BASE + 0x101, 4);
}

static void saved_and_loaded(void **state)
{
    static struct hvm_hw_hpet rec;
    (void)state;
    set(TN_CONFIG(0), ROUTE(20) | BIT(2) | BIT(3) | BIT(6));
    set(TN_CMP(0), 62500);
    set(CONFIG, 1);
    set(TN_CONFIG(1), ROUTE(21) | BIT(2) | BIT(1));
    set(TN_CMP(1), get(COUNTER) + 10);
    run_ns(500000);
    assert_int_equal(vhpet_save(&dom, &rec), 0);
    assert_int_equal(rec.period[0], 62500);
    assert_int_equal(rec.mc64, 31250);
    vhpet_reset(&dom);
    assert_true(taken(0x51));
    assert_int_equal(pending(0), -1);
    run_ns(NS_PER_SEC);
    assert_int_equal(vhpet_load(&dom, &rec), 0);
    assert_true(taken(0x51)); /* its line is up again */
    set(STATUS, 2);
    taken(0x51);
    assert_int_equal(get(COUNTER), 31250);
    run_ns(499000);
    assert_int_equal(pending(0), -1);
    run_ns(1500);
    assert_true(taken(0x50));
}

static void hostile(void **state)
{
    uint32_t seed = 3;
    (void)state;
    timers_fired = 0;
    for (unsigned i = 0; i < 100000; i++) {
        seed = seed * 1664525 + 1013904223;
        unsigned r = seed >> 8, bytes = 1u << (r & 3);
        unsigned offset = r >> 2 & 1 ? (r >> 4 & 0x17f) : (r >> 4 & 0x3ff);
        if (offset + bytes > 1024)
            continue;
        if (r & 8)
            mem_write(0, VHPET_BASE + offset, bytes, (uint64_t)seed << (r & 31));
        else
            mem_read(0, VHPET_BASE + offset, bytes);
        if ((i & 15) == 0)
            run_ns(r & 0xffff);
        take(0);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, up, world_down)
    const struct CMUnitTest tests[] = {
        T(identity), T(counts_while_enabled), T(oneshot_edge), T(oneshot_32bit_wraps), T(level),
        T(periodic), T(legacy_replacement),   T(halves),       T(saved_and_loaded),    T(hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
