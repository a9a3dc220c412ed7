/* posted.h: the posted-interrupt descriptor, by which a vCPU's CPU takes interrupts without leaving
 * the guest (SDM 3C, 29.6), and the protocol between senders and the vCPU.
 *
 * A sender sets the vector's bit, then ON; who finds ON clear tells the vCPU (vcpu_post). The CPU,
 * when told in the guest, or the vCPU itself outside clears ON, then takes the bits. So while ON is
 * set the vCPU has been told and has not looked yet, and it looks before it enters and before it
 * sleeps. Level-triggered interrupts are not posted: the CPU must know of them before it delivers.
 */
#pragma once

#include "core/atomic.h"
#include "core/types.h"

struct posted {
    uint64_t pir[4]; /* requested vectors */
    uint64_t control;
    uint64_t unused[3];
} __aligned(64);

#define POSTED_ON BIT(0) /* outstanding notification */

/* Request vector. True: the vCPU must be told. Any context. */
static inline bool posted_request(struct posted *p, uint8_t vector)
{
    uint64_t bit = BIT(vector % 64);

    if (atomic_or(&p->pir[vector / 64], bit) & bit)
        return false; /* who set it tells */
    return !(atomic_or(&p->control, POSTED_ON) & POSTED_ON);
}

static inline bool posted_news(const struct posted *p)
{
    return READ_ONCE(p->control) & POSTED_ON;
}

/* What the CPU does when it is told. The vCPU, outside its guest. False: there was nothing. */
static inline bool posted_take(struct posted *p, uint64_t vectors[4])
{
    if (!posted_news(p))
        return false;
    atomic_and(&p->control, ~POSTED_ON);
    for (unsigned i = 0; i < 4; i++)
        vectors[i] = READ_ONCE(p->pir[i]) ? atomic_xchg(&p->pir[i], 0UL) : 0;
    return true;
}
