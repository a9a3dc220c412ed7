/* vpmtmr.h: ACPI's PM timer and PM1a event block. Own lock (before irq_lock). */
#pragma once

#include "domain/domain.h"

#define PMTMR_HZ   3579545u
#define SCI_IRQ    9
#define PM1_TMR    BIT(0) /* ACPI 4.8.3.1.1 */
#define PM1_GBL    BIT(5)
#define PM1_PWRBTN BIT(8)
#define PM1_SLPBTN BIT(9)
#define PM1_WAK    BIT(15)

struct vpmtmr {
    spinlock_t lock;
    uint32_t base; /* the counter at base_ns */
    uint64_t base_ns;
    uint64_t seen; /* half-ranges (2^31 clocks) already turned into TMR_STS */
    uint16_t sts, en;
    struct timer timer; /* set while TMR_EN is on */
};

void vpmtmr_init(struct domain *d);
void vpmtmr_reset(struct domain *d);
void vpmtmr_destroy(struct domain *d);
/* First port of the event block (timer at + 8): where HVM_PARAM_ACPI_IOPORTS_LOCATION says. */
static inline uint16_t vpmtmr_port(const struct domain *d)
{
    return d->hvm_params[HVM_PARAM_ACPI_IOPORTS_LOCATION] == 1 ? ACPI_PM1A_EVT_BLK_ADDRESS_V1
                                                               : ACPI_PM1A_EVT_BLK_ADDRESS_V0;
}
/* The counter now. Any context, no lock. */
uint32_t vpmtmr_count(const struct domain *d);
/* Event block access at byte offset 0..3, bytes 1, 2 or 4 within it. */
void vpmtmr_event_pio(struct domain *d, unsigned offset, unsigned bytes, bool write, uint32_t *val);
int vpmtmr_save(struct domain *d, struct hvm_hw_pmtimer *out);
int vpmtmr_load(struct domain *d, const struct hvm_hw_pmtimer *in);
