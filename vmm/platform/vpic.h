/* vpic.h: the pair of 8259A interrupt controllers, with their edge/level registers.
 *
 * State is struct hvm_hw_vpic itself, so saving is copying. All of it is guarded by the
 * platform's irq_lock; `next` is also read without it.
 */
#pragma once

#include "domain/domain.h"

struct vpic {
    struct hvm_hw_vpic chip[2]; /* master, slave */
    uint16_t lines;             /* level of the 16 inputs now; bit 2 is never set from outside */
    int next;                   /* vector that INTA would give now; -1 when INT is low */
};

void vpic_reset(struct domain *d);
/* Input line irq (0..15, not 2) changed to level. Under irq_lock. */
void vpic_line(struct domain *d, unsigned irq, bool level);
/* INTA cycle in which the CPU took vector, which `next` held when it was offered: even when the
 * request went away since, it is in service now. Takes irq_lock. */
void vpic_ack(struct domain *d, int vector);
/* State of input irq for a tick source: masked, still in IRR, or ready. Under irq_lock. */
bool vpic_masked(const struct domain *d, unsigned irq);
bool vpic_requested(const struct domain *d, unsigned irq);
/* One byte of port I/O at 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1. Takes irq_lock. */
void vpic_pio(struct domain *d, uint16_t port, bool write, uint8_t *val);
int vpic_save(struct domain *d, unsigned chip, struct hvm_hw_vpic *out);
int vpic_load(struct domain *d, unsigned chip, const struct hvm_hw_vpic *in);
