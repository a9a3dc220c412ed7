/* sources: vmm/platform/v*.c vmm/platform/platform.c vmm/platform/save.c */
/* test_vpic.c: the 8259A data sheet's rules, seen through ports and the interrupts vCPU 0 gets. */
#include "platform_stubs.h"

static void pulse(unsigned irq)
{
    platform_isa_irq(&dom, irq, true);
    platform_isa_irq(&dom, irq, false);
}

static void vectors_and_priorities(void **state)
{
    (void)state;
    pic_init();
    pulse(4);
    pulse(1);
    pulse(12);
    assert_int_equal(take(0), 0x21);
    assert_int_equal(pending(0), -1); /* lower priority waits for the EOI */
    pulse(1);
    assert_int_equal(pending(0), -1); /* and so does the same one */
    outb(0x20, 0x20);
    assert_int_equal(take(0), 0x21);
    outb(0x20, 0x20);
    assert_int_equal(take(0), 0x2c); /* through input 2, before 4 */
    assert_int_equal(pending(0), -1);
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
    assert_int_equal(take(0), 0x24);
    pulse(0); /* higher priority nests */
    assert_int_equal(take(0), 0x20);
    outb(0x20, 0x0b);
    assert_int_equal(inb(0x20), 0x11);
}

static void initialisation_resets(void **state)
{
    (void)state;
    pic_init();
    outb(0x21, 0xaa);
    pulse(1);
    assert_int_equal(inb(0x21), 0xaa);
    outb(0x20, 0x11);
    assert_int_equal(pending(0), -1); /* in the middle of ICWs */
    outb(0x21, 0x40);
    outb(0x21, 0x04);
    outb(0x21, 0x01);
    assert_int_equal(inb(0x21), 0);   /* IMR is cleared by ICW1 */
    assert_int_equal(pending(0), -1); /* the latched edge is gone */
    pulse(3);
    assert_int_equal(take(0), 0x43);
}

static void masks(void **state)
{
    (void)state;
    pic_init();
    outb(0x21, 0x02);
    pulse(1);
    assert_int_equal(pending(0), -1);
    assert_int_equal(inb(0x20), 0x02); /* IRR holds it */
    outb(0x21, 0);
    assert_int_equal(pending(0), 0x21);
    outb(0x21, 0x04); /* the cascade masked hides the slave */
    assert_int_equal(take(0), 0x21);
    outb(0x20, 0x20);
    pulse(8);
    assert_int_equal(pending(0), -1);
}

static void level_inputs_follow_the_line(void **state)
{
    (void)state;
    pic_init();
    outb(0x4d1, 0xff);
    outb(0x4d0, 0xff);
    assert_int_equal(inb(0x4d0), 0xf8);
    assert_int_equal(inb(0x4d1), 0xde);
    platform_isa_irq(&dom, 10, true);
    assert_int_equal(take(0), 0x2a);
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
    assert_int_equal(take(0), 0x2a); /* still high */
    platform_isa_irq(&dom, 10, false);
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
    assert_int_equal(pending(0), -1);
    platform_isa_irq(&dom, 10, true);
    platform_isa_irq(&dom, 10, false);
    assert_int_equal(pending(0), -1); /* went away before INTA */
}

static void edge_needs_a_new_edge(void **state)
{
    (void)state;
    pic_init();
    platform_isa_irq(&dom, 1, true);
    assert_int_equal(take(0), 0x21);
    outb(0x20, 0x20);
    platform_isa_irq(&dom, 1, true);
    assert_int_equal(pending(0), -1);
    platform_isa_irq(&dom, 1, false);
    platform_isa_irq(&dom, 1, true);
    assert_int_equal(pending(0), 0x21);
}

static void automatic_eoi_and_rotation(void **state)
{
    (void)state;
    pic_init();
    outb(0x20, 0x11);
    outb(0x21, 0x20);
    outb(0x21, 0x04);
    outb(0x21, 0x03); /* AEOI */
    outb(0x20, 0x80); /* rotate in AEOI */
    pulse(3);
    assert_int_equal(take(0), 0x23);
    outb(0x20, 0x0b);
    assert_int_equal(inb(0x20), 0);
    pulse(3);
    pulse(4);
    assert_int_equal(take(0), 0x24); /* 3 has become the lowest */
    assert_int_equal(take(0), 0x23);
}

static void specific_rotation(void **state)
{
    (void)state;
    pic_init();
    outb(0x20, 0xc0 | 4); /* 4 lowest, so 5 highest */
    pulse(0);
    pulse(5);
    assert_int_equal(take(0), 0x25);
    outb(0x20, 0x60 | 5); /* specific EOI */
    assert_int_equal(take(0), 0x20);
    pulse(1);
    assert_int_equal(pending(0), -1);
    outb(0x20, 0xe0 | 0); /* specific EOI with rotation: 1 highest */
    pulse(5);
    assert_int_equal(take(0), 0x21);
}

static void special_mask_mode(void **state)
{
    (void)state;
    pic_init();
    pulse(1);
    assert_int_equal(take(0), 0x21);
    pulse(6);
    assert_int_equal(pending(0), -1);
    outb(0x21, 0x02); /* mask the one in service, then let the lower ones in */
    outb(0x20, 0x68);
    assert_int_equal(take(0), 0x26);
    outb(0x20, 0x48);
    outb(0x20, 0x0b);
    assert_int_equal(inb(0x20), 0x42);
}

static void special_fully_nested(void **state)
{
    (void)state;
    pic_init();
    outb(0x20, 0x11);
    outb(0x21, 0x20);
    outb(0x21, 0x04);
    outb(0x21, 0x11);
    pulse(12);
    assert_int_equal(take(0), 0x2c);
    pulse(9);
    assert_int_equal(take(0), 0x29); /* a higher one of the same slave gets through */
}

static void poll_is_an_acknowledge(void **state)
{
    (void)state;
    pic_init();
    outb(0x20, 0x0c);
    assert_int_equal(inb(0x20) & 0x80, 0);
    pulse(6);
    outb(0x20, 0x0c);
    assert_int_equal(inb(0x20), 0x86);
    outb(0x20, 0x0b);
    assert_int_equal(inb(0x20), 0x40);
    outb(0x20, 0x0a);
    assert_int_equal(inb(0x20), 0);
}

static void taken_though_masked_since(void **state)
{
    enum intr_source src;
    (void)state;
    pic_init();
    pulse(1);
    assert_int_equal(platform_pending_interrupt(&vcpus[0], &src), 0x21);
    vcpus[0].work = 0;
    outb(0x21, 0xff);
    assert_int_equal(pending(0), -1);
    assert_int_equal(vcpus[0].work & VWORK_EVENT, VWORK_EVENT); /* look again: it is not offered */
    outb(0x21, 0);
    pulse(0); /* something more urgent came while the CPU was taking 0x21 */
    assert_int_equal(platform_accept_interrupt(&vcpus[0], src, 0x21), 0x21);
    outb(0x20, 0x0b);
    assert_int_equal(inb(0x20), 0x02);
    assert_int_equal(take(0), 0x20);
}

static void who_gets_it(void **state)
{
    (void)state;
    pic_init();
    pulse(1);
    assert_int_equal(pending(0), 0x21);
    assert_int_equal(pending(1), -1);
    apic_write(0, LAPIC_LVT_LINT0, 0x10700);
    assert_int_equal(pending(0), -1);
    apic_enable(1);
    apic_write(1, LAPIC_LVT_LINT0, 0x700);
    assert_int_equal(pending(1), 0x21);
    apic_write(1, LAPIC_LVT_LINT0, 0x10700);
    /* Without a LAPIC the PIC is wired to the CPU. */
    assert_int_equal(vlapic_set_base_msr(&vcpus[0], LAPIC_DEFAULT_BASE | APIC_BASE_BSP), 0);
    assert_int_equal(pending(0), 0x21);
}

static void lint0_other_modes(void **state)
{
    (void)state;
    pic_init();
    apic_write(0, LAPIC_LVT_LINT0, 0x55);
    pulse(1);
    assert_int_equal(take(0), 0x55);
    eoi(0);
    apic_write(0, LAPIC_LVT_LINT0, 0x400);
    outb(0x20, 0x0c);
    assert_int_equal(inb(0x20), 0x81);
    outb(0x20, 0x20);
    pulse(1);
    assert_int_equal(nmis[0], 1);
}

static void hostile(void **state)
{
    (void)state;
    uint32_t seed = 12345;
    static const uint16_t ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1};
    apic_enable(0);
    apic_write(0, LAPIC_LVT_LINT0, 0x700);
    for (unsigned i = 0; i < 200000; i++) {
        seed = seed * 1664525 + 1013904223;
        unsigned r = seed >> 8;
        switch (r & 7) {
        case 0 ... 2:
            outb(ports[(r >> 3) % 6], (uint8_t)(r >> 8));
            break;
        case 3:
            inb(ports[(r >> 3) % 6]);
            break;
        case 4:
            assert_in_range(take(0) + 1, 0, 256);
            break;
        default:
            platform_isa_irq(&dom, r >> 3 & 15, r >> 8 & 1);
        }
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, world_up, world_down)
    const struct CMUnitTest tests[] = {
        T(vectors_and_priorities),
        T(initialisation_resets),
        T(masks),
        T(level_inputs_follow_the_line),
        T(edge_needs_a_new_edge),
        T(automatic_eoi_and_rotation),
        T(specific_rotation),
        T(special_mask_mode),
        T(special_fully_nested),
        T(poll_is_an_acknowledge),
        T(taken_though_masked_since),
        T(who_gets_it),
        T(lint0_other_modes),
        T(hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
