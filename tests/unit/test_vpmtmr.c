/* sources: vmm/platform/v*.c vmm/platform/platform.c vmm/platform/save.c */
/* test_vpmtmr.c: the PM timer and the PM1 event block (ACPI 6.4, 4.8). */
#include "platform_stubs.h"

#define BLOCK 0xb000

static int up(void **state)
{
    world_up(state);
    dom.hvm_params[HVM_PARAM_ACPI_IOPORTS_LOCATION] = 1;
    apic_enable(0);
    set_rte(SCI_IRQ, 0x59 | BIT(15));
    return 0;
}

static void counts(void **state)
{
    (void)state;
    uint32_t a = port_in(BLOCK + 8, 4);
    run_ns(NS_PER_SEC);
    assert_int_equal(port_in(BLOCK + 8, 4) - a, 3579545);
    port_out(BLOCK + 8, 4, 0); /* read-only */
    assert_int_equal(port_in(BLOCK + 8, 4) - a, 3579545);
    assert_int_equal(port_in(BLOCK + 9, 1), (3579545 + a) >> 8 & 0xff);
    run_ns(1300 * NS_PER_SEC); /* past 2^32 */
    assert_int_equal(port_in(BLOCK + 8, 4), (uint32_t)(a + 1301ULL * 3579545));
}

static void location(void **state)
{
    uint32_t val = 0;
    (void)state;
    dom.hvm_params[HVM_PARAM_ACPI_IOPORTS_LOCATION] = 0;
    assert_false(platform_pio(&vcpus[0], 0xb008, 4, false, &val));
    assert_true(platform_pio(&vcpus[0], 0x1f48, 4, false, &val));
    assert_true(platform_pio(&vcpus[0], 0x1f40, 2, false, &val));
    assert_false(platform_pio(&vcpus[0], 0x1f44, 2, false, &val)); /* PM1a_CNT: device model */
    dom.hvm_params[HVM_PARAM_ACPI_IOPORTS_LOCATION] = 1;
    assert_false(platform_pio(&vcpus[0], 0xb004, 2, false, &val));
    assert_false(platform_pio(&vcpus[0], 0xb002, 4, false, &val));
}

static void buttons_raise_the_sci(void **state)
{
    (void)state;
    vpmtmr_power_button(&dom);
    assert_int_equal(port_in(BLOCK, 2), PM1_PWRBTN);
    assert_int_equal(pending(0), -1); /* not enabled */
    port_out(BLOCK + 2, 2, PM1_PWRBTN | PM1_SLPBTN);
    assert_int_equal(take(0), 0x59);
    eoi(0);
    assert_int_equal(take(0), 0x59); /* a level */
    port_out(BLOCK, 2, PM1_PWRBTN);
    assert_int_equal(port_in(BLOCK, 2), 0);
    eoi(0);
    assert_int_equal(pending(0), -1);
    vpmtmr_sleep_button(&dom);
    assert_int_equal(port_in(BLOCK, 4), PM1_SLPBTN | (PM1_PWRBTN | PM1_SLPBTN) << 16);
    assert_int_equal(pending(0), 0x59);
    port_out(BLOCK + 3, 1, 0); /* the enable register's high byte alone */
    assert_int_equal(port_in(BLOCK + 2, 2), 0);
    port_out(BLOCK + 1, 1, 0xff);
    assert_int_equal(port_in(BLOCK, 2), 0);
}

static void waking_sets_its_status_alone(void **state)
{
    (void)state;
    port_out(BLOCK + 2, 2, 0xffff);
    vpmtmr_woke(&dom);
    assert_int_equal(port_in(BLOCK, 2), PM1_WAK);
    assert_int_equal(pending(0), -1);
    port_out(BLOCK, 2, PM1_WAK);
    assert_int_equal(port_in(BLOCK, 2), 0);
}

static void overflow(void **state)
{
    (void)state;
    const uint64_t half_ns = (1ULL << 31) * NS_PER_SEC / PMTMR_HZ;
    run_ns(half_ns + 10);
    assert_int_equal(port_in(BLOCK, 2), PM1_TMR); /* status without the interrupt */
    port_out(BLOCK, 2, PM1_TMR);
    assert_int_equal(port_in(BLOCK, 2), 0);
    port_out(BLOCK + 2, 2, PM1_TMR);
    run_ns(half_ns - 1000);
    assert_int_equal(pending(0), -1);
    run_ns(2000);
    assert_int_equal(take(0), 0x59);
    port_out(BLOCK, 2, PM1_TMR);
    eoi(0);
    run_ns(half_ns);
    assert_int_equal(take(0), 0x59);
}

static void shares_the_sci_with_the_device_model(void **state)
{
    (void)state;
    port_out(BLOCK + 2, 2, PM1_PWRBTN);
    platform_isa_irq(&dom, SCI_IRQ, true);
    assert_int_equal(take(0), 0x59);
    vpmtmr_power_button(&dom);
    platform_isa_irq(&dom, SCI_IRQ, false);
    eoi(0);
    assert_int_equal(take(0), 0x59); /* ours is still up */
}

static void saved_and_loaded(void **state)
{
    struct hvm_hw_pmtimer rec;
    (void)state;
    port_out(BLOCK + 2, 2, PM1_PWRBTN);
    vpmtmr_power_button(&dom);
    run_ns(NS_PER_SEC);
    uint32_t count = port_in(BLOCK + 8, 4);
    assert_int_equal(vpmtmr_save(&dom, &rec), 0);
    vpmtmr_reset(&dom);
    run_ns(3 * NS_PER_SEC);
    rec.pm1a_sts |= 0x4000; /* a bit nobody has */
    assert_int_equal(vpmtmr_load(&dom, &rec), 0);
    assert_int_equal(port_in(BLOCK + 8, 4), count);
    assert_int_equal(port_in(BLOCK, 4), PM1_PWRBTN | PM1_PWRBTN << 16);
    assert_int_equal(pending(0), 0x59);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, up, world_down)
    const struct CMUnitTest tests[] = {
        T(counts),
        T(location),
        T(overflow),
        T(waking_sets_its_status_alone),
        T(buttons_raise_the_sci),
        T(shares_the_sci_with_the_device_model),
        T(saved_and_loaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
