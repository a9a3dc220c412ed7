/* irq.c: IOAPIC pins (82093AA data sheet). A pin that dom0 unmasks in its own IOAPIC is bound to a
 * host vector; its interrupts are handed to dom0's IOAPIC, which decides where they go. */
#include "core/irq.h"

#include "core/cpu.h"
#include "core/lapic.h"
#include "core/machine.h"
#include "core/mm.h"
#include "core/print.h"
#include "core/spinlock.h"
#include "core/trap.h"
#include "core/x86.h"
#include "platform/platform.h"

#define MAX_GSIS   256
#define RTE_MASKED BIT(16)
#define RTE_LEVEL  BIT(15)
#define RTE_LOW    BIT(13)

struct gsi {
    uint8_t ioapic, vector; /* 0: not bound */
    bool present, level, guest_masked, in_service;
    uint64_t rte; /* the physical one, unmasked form */
    uint64_t count;
};

static struct gsi gsis[MAX_GSIS];
static spinlock_t ioapic_lock;

static uint32_t ioapic_read(unsigned i, uint8_t reg)
{
    volatile char *p = (volatile char *)(UCMAP_BASE + acpi_info.ioapics[i].pa);
    mmio_write32(p, reg);
    return mmio_read32(p + 0x10);
}

static void ioapic_write(unsigned i, uint8_t reg, uint32_t v)
{
    volatile char *p = (volatile char *)(UCMAP_BASE + acpi_info.ioapics[i].pa);
    mmio_write32(p, reg);
    mmio_write32(p + 0x10, v);
}

static void write_rte(unsigned gsi, uint64_t rte)
{
    unsigned i = gsis[gsi].ioapic;
    uint8_t reg = (uint8_t)(0x10 + 2 * (gsi - acpi_info.ioapics[i].gsi_base));
    spin_lock(&ioapic_lock);
    ioapic_write(i, reg, (uint32_t)rte | RTE_MASKED);
    ioapic_write(i, reg + 1, (uint32_t)(rte >> 32));
    ioapic_write(i, reg, (uint32_t)rte);
    spin_unlock(&ioapic_lock);
}

unsigned irq_ioapic_pins(unsigned i)
{
    return ((ioapic_read(i, 1) >> 16) & 0xff) + 1;
}

void irq_init(void)
{
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    for (unsigned i = 0; i < acpi_info.nr_ioapics; i++) {
        unsigned base = acpi_info.ioapics[i].gsi_base, pins = irq_ioapic_pins(i);
        for (unsigned gsi = base; gsi < base + pins && gsi < MAX_GSIS; gsi++) {
            gsis[gsi].ioapic = (uint8_t)i;
            gsis[gsi].present = true;
            gsis[gsi].guest_masked = true;
            write_rte(gsi, RTE_MASKED);
        }
    }
}

static void gsi_interrupt(unsigned gsi)
{
    struct gsi *g = &gsis[gsi];
    g->count++;
    if (g->level) {
        g->in_service = true;
        write_rte(gsi, g->rte | RTE_MASKED);
    }
    lapic_eoi();
    vioapic_dom0_assert(dom0, gsi);
}

void dom0_gsi_rte(unsigned gsi, uint64_t rte)
{
    if (gsi >= MAX_GSIS || !gsis[gsi].present)
        return;
    struct gsi *g = &gsis[gsi];
    unsigned mode = (rte >> 8) & 7;
    if (rte & RTE_MASKED || mode > 1) {
        g->guest_masked = true;
        write_rte(gsi, g->rte | RTE_MASKED);
        return;
    }
    if (!g->vector) {
        int v = trap_alloc_vector(gsi_interrupt, gsi);
        if (v < 0) {
            log_err("no host vector left for GSI %u", gsi);
            return;
        }
        g->vector = (uint8_t)v;
    }
    g->level = rte & RTE_LEVEL;
    g->rte = g->vector | (rte & (RTE_LEVEL | RTE_LOW)) | (uint64_t)cpus[0]->apic_id << 56;
    g->guest_masked = false;
    if (!g->in_service)
        write_rte(gsi, g->rte);
}

void dom0_gsi_eoi(unsigned gsi)
{
    if (gsi >= MAX_GSIS || !gsis[gsi].in_service)
        return;
    gsis[gsi].in_service = false;
    if (!gsis[gsi].guest_masked)
        write_rte(gsi, gsis[gsi].rte);
}

void irq_dump(void)
{
    for (unsigned gsi = 0; gsi < MAX_GSIS; gsi++) {
        struct gsi *g = &gsis[gsi];
        if (g->vector)
            log_err("GSI %u: vector %02x %s%s%s, %lu interrupts", gsi, g->vector,
                    g->level ? "level" : "edge", g->guest_masked ? " masked" : "",
                    g->in_service ? " in service" : "", g->count);
    }
}
