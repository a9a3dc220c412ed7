/* vioapic.h: IOAPICs: one with 48 pins for a guest, mirrors of the real ones for dom0.
 *
 * Guarded by the platform's irq_lock. The calls that dom0's mirrors make into core/irq.c
 * (dom0_gsi_rte, dom0_gsi_eoi) are made after it was released.
 */
#pragma once

#include "domain/domain.h"

#define VIOAPIC_BASE     0xfec00000ULL
#define VIOAPIC_VERSION  0x11
#define VIOAPIC_MAX      8   /* IOAPICs of one domain */
#define VIOAPIC_MAX_PINS 240 /* of one IOAPIC: the 8-bit maximum redirection entry, less room */

struct vioapic {
    paddr_t base;
    unsigned gsi_base, pins;
    uint32_t ioregsel, id;
    bool physical; /* mirrors a real one (dom0) */
    union vioapic_redir_entry *rte;
};

int vioapic_init(struct domain *d);
void vioapic_reset(struct domain *d);
void vioapic_free(struct domain *d);
/* Line gsi changed to level. Under irq_lock. */
void vioapic_line(struct domain *d, unsigned gsi, bool level);
/* A LAPIC ended level-triggered vector: clear remote IRR, deliver again what is still asserted. */
void vioapic_eoi(struct domain *d, uint8_t vector);
/* For tick sources: is pin gsi masked; is its edge still waiting in a LAPIC? Under irq_lock. */
bool vioapic_masked(const struct domain *d, unsigned gsi);
bool vioapic_requested(const struct domain *d, unsigned gsi);
/* The IOAPIC whose page gpa is in, or NULL. */
struct vioapic *vioapic_at(const struct domain *d, paddr_t gpa);
void vioapic_mmio(struct domain *d, struct vioapic *io, paddr_t gpa, unsigned bytes, bool write,
                  uint64_t *val);
/* After a load: deliver level-triggered pins that are asserted and not in service. */
void vioapic_resync(struct domain *d);
int vioapic_save(struct domain *d, struct hvm_hw_vioapic *out);
int vioapic_load(struct domain *d, const struct hvm_hw_vioapic *in);
