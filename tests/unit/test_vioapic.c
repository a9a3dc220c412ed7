/* sources: vmm/platform/v*.c vmm/platform/platform.c vmm/platform/save.c */
/* test_vioapic.c: pins, redirection entries and remote IRR (82093AA data sheet), interrupt lines
 * and their sources, MSIs, and dom0's mirrors of real IOAPICs.
 */
#include "platform_stubs.h"

#define LEVEL         BIT(15)
#define MASKED        BIT(16)
#define DEST(apic_id) ((uint64_t)(apic_id) << 56)

static int up(void **state)
{
    world_up(state);
    for (unsigned i = 0; i < NR_VCPUS; i++)
        apic_enable(i);
    return 0;
}

static void registers(void **state)
{
    (void)state;
    assert_int_equal(ioapic_read(1), 0x11 | 47 << 16);
    ioapic_write(0, 0x01000000);
    assert_int_equal(ioapic_read(0), 0x01000000);
    assert_int_equal(ioapic_read(0x10), MASKED);
    assert_int_equal(ioapic_read(0x6f), 0);
    assert_int_equal(ioapic_read(0x70), 0); /* past the last pin */
    ioapic_write(0x10, 0xffffffff);
    assert_int_equal(ioapic_read(0x10), 0x1afff); /* bits 12 and 14 are read-only */
    mem_write(0, VIOAPIC_BASE, 1, 0x11);          /* byte access to the selector */
    mem_write(0, VIOAPIC_BASE + 0x10, 4, 0x0f0000ff);
    assert_int_equal(ioapic_read(0x11), 0x0f000000);
    assert_int_equal(mem_read(0, VIOAPIC_BASE, 4), 0x11);
}

static void edge(void **state)
{
    (void)state;
    set_rte(4, 0x44 | DEST(2));
    platform_isa_irq(&dom, 4, true);
    assert_int_equal(take(1), 0x44);
    assert_int_equal(pending(0), -1);
    eoi(1);
    assert_int_equal(pending(1), -1);
    platform_isa_irq(&dom, 4, true); /* no change, no edge */
    assert_int_equal(pending(1), -1);
    platform_isa_irq(&dom, 4, false);
    platform_isa_irq(&dom, 4, true);
    assert_int_equal(pending(1), 0x44);
    assert_int_equal(ioapic_read(0x18) & BIT(14), 0);
}

static void masked_edge_is_lost(void **state)
{
    (void)state;
    set_rte(4, 0x44 | MASKED);
    platform_isa_irq(&dom, 4, true);
    set_rte(4, 0x44);
    assert_int_equal(pending(0), -1);
}

static void level(void **state)
{
    (void)state;
    set_rte(10, 0x55 | LEVEL);
    platform_isa_irq(&dom, 10, true);
    assert_int_equal(take(0), 0x55);
    assert_int_equal(ioapic_read(0x24) & BIT(14), BIT(14));
    platform_isa_irq(&dom, 10, false);
    platform_isa_irq(&dom, 10, true);
    assert_int_equal(vcpus[0].vlapic->regs[(LAPIC_IRR + 0x20) / 4], 0); /* in service: not again */
    eoi(0);
    assert_int_equal(take(0), 0x55); /* still asserted */
    platform_isa_irq(&dom, 10, false);
    eoi(0);
    assert_int_equal(pending(0), -1);
    assert_int_equal(ioapic_read(0x24) & BIT(14), 0);
}

static void level_seen_when_unmasked(void **state)
{
    (void)state;
    set_rte(10, 0x55 | LEVEL | MASKED);
    platform_isa_irq(&dom, 10, true);
    assert_int_equal(pending(0), -1);
    set_rte(10, 0x55 | LEVEL);
    assert_int_equal(pending(0), 0x55);
}

/* Linux ends an interrupt on old IOAPICs by making the pin edge-triggered for a moment. */
static void edge_mode_drops_remote_irr(void **state)
{
    (void)state;
    set_rte(10, 0x55 | LEVEL);
    platform_isa_irq(&dom, 10, true);
    assert_int_equal(take(0), 0x55);
    platform_isa_irq(&dom, 10, false);
    ioapic_write(0x24, 0x55 | MASKED);
    ioapic_write(0x24, 0x55 | MASKED | LEVEL);
    assert_int_equal(ioapic_read(0x24) & BIT(14), 0);
}

static void two_pins_one_vector(void **state)
{
    (void)state;
    set_rte(20, 0x60 | LEVEL);
    set_rte(21, 0x60 | LEVEL);
    platform_gsi(&dom, 20, true);
    platform_gsi(&dom, 21, true);
    assert_int_equal(take(0), 0x60);
    platform_gsi(&dom, 20, false);
    eoi(0); /* ends both; one is still there */
    assert_int_equal(take(0), 0x60);
    platform_gsi(&dom, 21, false);
    eoi(0);
    assert_int_equal(pending(0), -1);
}

static void modes(void **state)
{
    (void)state;
    set_rte(4, 0x400 | DEST(4)); /* NMI */
    platform_isa_irq(&dom, 4, true);
    assert_int_equal(nmis[2], 1);
    apic_write(1, LAPIC_LDR, 2u << 24);
    apic_write(2, LAPIC_LDR, 4u << 24);
    apic_write(1, LAPIC_TPR, 0x20);
    set_rte(5, 0x144 | BIT(11) | DEST(6)); /* lowest priority, logical */
    platform_isa_irq(&dom, 5, true);
    assert_int_equal(pending(1), -1);
    assert_int_equal(pending(2), 0x44);
    set_rte(6, 0x500); /* INIT and SMI from a pin: nothing */
    set_rte(7, 0x200);
    platform_isa_irq(&dom, 6, true);
    platform_isa_irq(&dom, 7, true);
    assert_int_equal(inits[0], 0);
    assert_int_equal(pending(0), -1);
}

static void pin0_extint(void **state)
{
    (void)state;
    pic_init();
    apic_write(0, LAPIC_LVT_LINT0, 0x10700);
    platform_isa_irq(&dom, 3, true);
    assert_int_equal(pending(0), -1);
    set_rte(0, 0x700 | DEST(2));
    assert_int_equal(pending(1), 0x23);
    assert_int_equal(pending(0), -1);
    set_rte(0, 0x700 | MASKED | DEST(2));
    assert_int_equal(pending(1), -1);
}

static void isa_irq0_is_pin2(void **state)
{
    (void)state;
    set_rte(0, 0x40);
    set_rte(2, 0x42);
    platform_isa_irq(&dom, 0, true);
    assert_int_equal(take(0), 0x42);
    eoi(0);
    platform_isa_irq(&dom, 2, true); /* no such line */
    platform_isa_irq(&dom, 16, true);
    assert_int_equal(pending(0), -1);
}

static void pci_intx(void **state)
{
    (void)state;
    for (unsigned dev = 0; dev < 32; dev++) {
        for (unsigned pin = 0; pin < 4; pin++) {
            unsigned gsi = (((dev << 2) + (dev >> 3) + pin) & 31) + 16;
            set_rte(gsi, 0x70);
            platform_pci_intx(&dom, dev, pin, true);
            assert_int_equal(take(0), 0x70);
            eoi(0);
            platform_pci_intx(&dom, dev, pin, false);
            set_rte(gsi, MASKED);
        }
    }
    platform_pci_intx(&dom, 32, 0, true);
    platform_pci_intx(&dom, 0, 4, true);
    assert_int_equal(pending(0), -1);
}

/* Devices 3 and 35 share nothing; 1 INTB and 2 INTA share link 2. */
static void pci_links(void **state)
{
    (void)state;
    pic_init();
    outb(0x4d1, 0x0e);
    assert_int_equal(platform_pci_link_route(&dom, 2, 10), 0);
    platform_pci_intx(&dom, 1, 1, true);
    platform_pci_intx(&dom, 2, 0, true);
    assert_int_equal(take(0), 0x2a);
    platform_pci_intx(&dom, 1, 1, false);
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
    assert_int_equal(pending(0), 0x2a); /* the other one still holds the line */
    assert_int_equal(platform_pci_link_route(&dom, 2, 11), 0);
    assert_int_equal(pending(0), 0x2b); /* rerouted while asserted */
    assert_int_equal(platform_pci_link_route(&dom, 2, 0), 0);
    assert_int_equal(pending(0), -1);
    assert_int_equal(platform_pci_link_route(&dom, 2, 10), 0);
    assert_int_equal(pending(0), 0x2a);
    platform_pci_intx(&dom, 2, 0, false);
    assert_int_equal(pending(0), -1);
    assert_int_equal(platform_pci_link_route(&dom, 4, 10), -EINVAL);
    assert_int_equal(platform_pci_link_route(&dom, 0, 16), -EINVAL);
}

static void msi(void **state)
{
    (void)state;
    assert_int_equal(platform_msi(&dom, 0xfee04000, 0x4077), 0);
    assert_int_equal(take(2), 0x77);
    apic_write(3, LAPIC_LDR, 8u << 24);
    assert_int_equal(platform_msi(&dom, 0xfee0800c, 0x4178), 0);
    assert_int_equal(take(3), 0x78);
    assert_int_equal(platform_msi(&dom, 0xfee00000, 0x400), 0);
    assert_int_equal(nmis[0], 1);
    assert_int_equal(platform_msi(&dom, 0xfec00000, 0x77), -EINVAL);
    assert_int_equal(platform_msi(&dom, 0x1fee00000, 0x77), -EINVAL);
    assert_int_equal(platform_msi(&dom, 0xfee00000, 0x577), -EINVAL);
    assert_int_equal(pending(0), -1);
}

static void saved_and_loaded(void **state)
{
    struct hvm_hw_vioapic rec;
    (void)state;
    set_rte(10, 0x55 | LEVEL);
    platform_isa_irq(&dom, 10, true);
    assert_int_equal(take(0), 0x55);
    assert_int_equal(vioapic_save(&dom, &rec), 0);
    assert_int_equal(rec.redirtbl[10].fields.remote_irr, 1);
    set_rte(10, MASKED);
    assert_int_equal(vioapic_load(&dom, &rec), 0);
    eoi(0);
    assert_int_equal(take(0), 0x55);
    rec.base_address = 0;
    assert_int_equal(vioapic_load(&dom, &rec), -EINVAL);
}

static int up_dom0(void **state)
{
    (void)state;
    world_with(XEN_X86_EMU_LAPIC | XEN_X86_EMU_IOAPIC, true);
    for (unsigned i = 0; i < NR_VCPUS; i++)
        apic_enable(i);
    assert_int_equal(vioapic_dom0_add(&dom, 0xfec00000, 0, 24, 3), 0);
    assert_int_equal(vioapic_dom0_add(&dom, 0xfec10000, 24, 32, 4), 0);
    return 0;
}

static void dom0_mirrors(void **state)
{
    (void)state;
    assert_int_equal(ioapic_read(0) >> 24, 3);
    assert_int_equal(ioapic_read(1), 0x11 | 23 << 16);
    mem_write(0, 0xfec10000, 4, 1);
    assert_int_equal(mem_read(0, 0xfec10010, 4), 0x11 | 31 << 16);
    mem_write(0, 0xfec10000, 4, 0x10 + 2 * 6);
    mem_write(0, 0xfec10010, 4, 0x66);
    assert_int_equal(rte_gsi, 30);
    assert_int_equal(rte_value, 0x66);
    vioapic_dom0_assert(&dom, 30);
    assert_int_equal(take(0), 0x66);
    eoi(0);
    assert_int_equal(eoi_gsi_count, 0); /* edges need no EOI */
    uint32_t val = 0;
    assert_false(platform_pio(&vcpus[0], 0x40, 1, false, &val)); /* its PC is the real one */
    assert_false(platform_pio(&vcpus[0], 0x70, 1, false, &val));
    assert_false(platform_pio(&vcpus[0], 0x20, 1, false, &val));
    assert_false(platform_pio(&vcpus[0], 0x1f48, 4, false, &val));
    assert_false(platform_mmio_claims(&vcpus[0], VHPET_BASE));
}

/* handle_pio does not ask platform_pio for the ports of ISA's slots: it serves none. */
static void slot_ports(void **state)
{
    unsigned served = 0;
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        dom.hvm_params[HVM_PARAM_ACPI_IOPORTS_LOCATION] = i;
        for (unsigned n = 0; n < 3 * 65536; n++) {
            uint32_t val = ~0u;
            bool is = platform_pio(&vcpus[0], (uint16_t)n, 1u << (n >> 16), false, &val);
            assert_false(is && is_slot_port((uint16_t)n));
            served += is;
        }
    }
    assert_true(served > 100);
}

static void dom0_level(void **state)
{
    (void)state;
    set_rte(16, 0x55 | LEVEL);
    vioapic_dom0_assert(&dom, 16);
    assert_int_equal(eoi_gsi_count, 0);
    assert_int_equal(take(0), 0x55);
    vioapic_dom0_assert(&dom, 16); /* spurious second arrival: in service already */
    assert_int_equal(eoi_gsi_count, 0);
    eoi(0);
    assert_int_equal(eoi_gsi_count, 1);
    assert_int_equal(eoi_gsi, 16);
    ioapic_write(0x10 + 32, 0x55 | LEVEL | MASKED);
    vioapic_dom0_assert(&dom, 16); /* was on its way while dom0 masked it */
    assert_int_equal(pending(0), -1);
    assert_int_equal(eoi_gsi_count, 2);
    ioapic_write(0x10 + 32, 0x55 | LEVEL);
    vioapic_dom0_assert(&dom, 16);
    assert_int_equal(take(0), 0x55);
    ioapic_write(0x10 + 32, 0x55 | MASKED); /* gives it up without an EOI */
    assert_int_equal(eoi_gsi_count, 3);
    vioapic_dom0_assert(&dom, 99);
    for (unsigned i = 2; i < VIOAPIC_MAX; i++)
        assert_int_equal(vioapic_dom0_add(&dom, 0xfec20000, 100 + i, 1, 0), 0);
    assert_int_equal(vioapic_dom0_add(&dom, 0xfec20000, 200, 1, 0), -EINVAL);
}

int main(void)
{
#define T(f)  cmocka_unit_test_setup_teardown(f, up, world_down)
#define T0(f) cmocka_unit_test_setup_teardown(f, up_dom0, world_down)
    const struct CMUnitTest tests[] = {
        T(registers),
        T(slot_ports),
        T(edge),
        T(masked_edge_is_lost),
        T(level),
        T(level_seen_when_unmasked),
        T(edge_mode_drops_remote_irr),
        T(two_pins_one_vector),
        T(modes),
        T(pin0_extint),
        T(isa_irq0_is_pin2),
        T(pci_intx),
        T(pci_links),
        T(msi),
        T(saved_and_loaded),
        T0(dom0_mirrors),
        T0(dom0_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
