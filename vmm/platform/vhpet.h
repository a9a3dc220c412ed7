/* vhpet.h: the HPET: 62.5 MHz, three 64-bit periodic timers. Own lock (before irq_lock). */
#pragma once

#include "domain/domain.h"
#include "platform/vtick.h"

#define VHPET_BASE      0xfed00000ULL
#define VHPET_BYTES     1024
#define VHPET_PERIOD_NS 16ULL
#define VHPET_HZ        62500000u

struct vhpet_timer {
    uint64_t config, cmp, period;
    uint64_t due_ns;   /* one-shot: when; TIME_NEVER */
    struct vtick tick; /* periodic */
    struct timer timer;
};

struct vhpet {
    spinlock_t lock;
    struct domain *domain;
    uint64_t config, isr, mc64; /* mc64: the counter at start_ns, or where it stands */
    uint64_t start_ns;
    bool legacy; /* enabled with legacy replacement: IRQ 0 and 8 are ours. Read without the lock */
    struct vhpet_timer t[HPET_TIMER_NUM];
};

void vhpet_init(struct domain *d);
void vhpet_reset(struct domain *d);
void vhpet_destroy(struct domain *d);
/* The guest ended an interrupt: does a tick of timer n wait for that? */
void vhpet_look(struct domain *d, unsigned n);
void vhpet_mmio(struct domain *d, paddr_t gpa, unsigned bytes, bool write, uint64_t *val);
int vhpet_save(struct domain *d, struct hvm_hw_hpet *out);
int vhpet_load(struct domain *d, const struct hvm_hw_hpet *in);
