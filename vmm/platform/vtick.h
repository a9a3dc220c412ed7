/* vtick.h: a periodic interrupt source that neither loses ticks nor delivers them in a heap.
 *
 * Tick k is due at start_ns + k * num / hz seconds, exactly, for ever. A tick that cannot be
 * delivered, because the guest has not taken the one before it, is owed. Owed ticks are delivered
 * at twenty times the nominal rate until none is left: a vCPU that gets a quarter of a CPU keeps up.
 * What is owed is bounded, so a domain that stood still for long does not get a storm. The
 * structure belongs to its device and its device's lock.
 */
#pragma once

#include "core/types.h"

#define VTICK_MIN_NS 50000ULL /* no guest makes the host's timer fire more often than this */

struct vtick {
    bool on;
    uint64_t start_ns, num, hz;
    uint64_t done; /* nominal ticks accounted for so far: delivered or owed */
    uint32_t owed;
    bool busy; /* the guest had not taken the last one when vtick_fire looked */
};

enum vtick_line {
    VTICK_READY,  /* a tick would reach the guest */
    VTICK_BUSY,   /* the guest has not taken the last one */
    VTICK_MASKED, /* nobody listens: ticks pass unseen and none is owed */
};

/* Start: ticks every num / hz seconds, the first one period after start_ns (ns of now_ns()). */
void vtick_start(struct vtick *t, uint64_t start_ns, uint64_t num, uint64_t hz);
void vtick_stop(struct vtick *t);
/* Account for time now; true when one tick is to be delivered at once. mode: HVMPTM_*. */
bool vtick_fire(struct vtick *t, uint64_t now, enum vtick_line line, uint64_t mode);
/* When to call vtick_fire next, in ns of now_ns(); TIME_NEVER when stopped. */
uint64_t vtick_next(const struct vtick *t, uint64_t now);
/* Nominal ticks that came due and were not accounted for; accounts for them. */
uint64_t vtick_skip(struct vtick *t, uint64_t now);
