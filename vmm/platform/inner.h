/* inner.h: what the devices of vmm/platform share and nobody outside sees.
 *
 * Lock order: a device's own lock (vpit, vrtc, vhpet, vpmtmr), then irq_lock (interrupt lines,
 * vPIC, vIOAPIC), then what vcpu_kick takes. LAPICs have no lock but their timer's, taken last.
 */
#pragma once

#include "core/atomic.h"
#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "domain/hvm.h"
#include "platform/platform.h"
#include "platform/vhpet.h"
#include "platform/vioapic.h"
#include "platform/vlapic.h"
#include "platform/vpic.h"
#include "platform/vpit.h"
#include "platform/vpmtmr.h"
#include "platform/vrtc.h"

#define NR_GUEST_GSIS VIOAPIC_NUM_PINS

/* Every source of a GSI is a bit, so that setting a level twice changes nothing. irq_lock. */
struct irq_lines {
    uint64_t intx[2];             /* device * 4 + pin */
    uint16_t isa;                 /* ISA irq 0..15 */
    uint64_t direct;              /* platform_gsi(): by gsi */
    uint64_t device;              /* the HPET's and the PM block's: by gsi */
    uint8_t route[4];             /* PCI link -> ISA irq, 0 none */
    uint8_t link_count[4];        /* asserted INTx on each link */
    uint8_t count[NR_GUEST_GSIS]; /* asserted sources of each gsi */
};

struct platform {
    struct domain *domain;
    spinlock_t irq_lock;
    struct irq_lines lines;
    struct vpic pic;
    struct vioapic ioapic[VIOAPIC_MAX];
    unsigned nr_ioapics;
    unsigned ticks_wait;  /* tick sources that wait for an EOI (vtick.h). Atomic */
    int pin0_extint;      /* vCPU that IOAPIC pin 0 gives the PIC's interrupts to, or -1 */
    unsigned lowest_next; /* lowest-priority arbitration starts here; a hint */

    struct vpit pit;
    struct vrtc rtc;
    struct vhpet hpet;
    struct vpmtmr pm;
};

static inline bool has_emulation(const struct domain *d, uint32_t xen_x86_emu)
{
    return d->emulation_flags & xen_x86_emu;
}

/* Ports of ISA's slots: platform_pio serves none of them. */
static inline bool is_slot_port(uint16_t port)
{
    return port >= 0x100 && port < 0x4d0;
}

/* Arm from the guest's own doing: the timer moves to the pCPU its vCPU runs on. */
static inline void device_timer_set(struct timer *t, uint64_t expires_ns)
{
    if (expires_ns == TIME_NEVER) {
        timer_stop(t);
        return;
    }
    if (t->cpu != this_cpu()->id)
        timer_migrate(t, this_cpu()->id);
    timer_set(t, expires_ns);
}

/* t's state changed: keep count of d's that wait for an EOI. Under the device's lock. */
void tick_note(struct domain *d, struct vtick *t);
/* d ended an interrupt, of the PIC's or of v's LAPIC (NULL: the PIC's), and tick sources wait for
 * that: they look again. No lock held. */
void ticks_look(struct domain *d, struct vcpu *v);

static inline bool ticks_wait(const struct domain *d)
{
    return unlikely(READ_ONCE(d->platform->ticks_wait));
}

#ifdef HOST_TEST
uint64_t host_tsc(void);
#else
static inline uint64_t host_tsc(void)
{
    return __builtin_ia32_rdtsc();
}
#endif

/* Lines driven by devices inside (platform.c). Take irq_lock. */
void device_gsi(struct domain *d, unsigned gsi, bool level);
void isa_pulse(struct domain *d, unsigned irq); /* low, then high, and stays there */
void gsi_pulse(struct domain *d, unsigned gsi);
enum vtick_line isa_tick_line(struct domain *d, unsigned irq);
enum vtick_line gsi_tick_line(struct domain *d, unsigned gsi);
/* Is line gsi asserted? Under irq_lock. */
static inline bool gsi_asserted(const struct domain *d, unsigned gsi)
{
    return gsi < NR_GUEST_GSIS && d->platform->lines.count[gsi];
}

int irq_lines_save_pci(struct domain *d, struct hvm_hw_pci_irqs *out);
int irq_lines_load_pci(struct domain *d, const struct hvm_hw_pci_irqs *in);
int irq_lines_save_isa(struct domain *d, struct hvm_hw_isa_irqs *out);
int irq_lines_load_isa(struct domain *d, const struct hvm_hw_isa_irqs *in);
int irq_lines_save_link(struct domain *d, struct hvm_hw_pci_link *out);
int irq_lines_load_link(struct domain *d, const struct hvm_hw_pci_link *in);
