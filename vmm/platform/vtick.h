/* vtick.h: a periodic interrupt source that neither loses ticks nor delivers them in a heap.
 *
 * Tick k is due at start_ns + k * num / hz seconds, exactly, for ever. A tick that cannot be
 * delivered, because the guest has not taken the one before it, is owed. While that is so no timer
 * is needed: the guest's acknowledgement (EOI, RTC register C, HPET status) asks again, and what
 * came due meanwhile is worked out from the clock. So a vCPU that gets a small part of a CPU has
 * its ticks one after the other in that part, and one that hangs costs nothing.
 *
 * So that the guest itself gets on, the last few owed ticks come a twentieth of their period after
 * the guest took the one before; and of more than a few, VTICK_BURST come back to back, then there
 * is a pause of a twentieth of their time, or of a quarter of the time they took if that is more.
 * What is owed is bounded, so a domain that stood still for long does not get a storm. The
 * structure belongs to its device and its device's lock.
 */
#pragma once

#include "core/types.h"

#define VTICK_MIN_NS  50000ULL    /* no guest makes the host's timer fire more often than this */
#define VTICK_BACK_NS 10000000ULL /* looks this often, at most, for what nobody acknowledges */
#define VTICK_BURST   16
#define VTICK_FEW     3

struct vtick {
    bool on;
    bool busy;  /* the guest has not taken the last one: no timer, an acknowledgement asks again */
    bool waits; /* that acknowledgement is an EOI */
    bool noted; /* the domain's count of those that wait has it (tick_note) */
    uint32_t owed;
    uint64_t start_ns, num, hz;
    uint64_t done;     /* nominal ticks accounted for so far: delivered or owed */
    uint64_t next_ns;  /* an owed one comes no earlier */
    uint64_t burst_ns; /* begin of the burst */
    unsigned burst;    /* ticks of it */
};

enum vtick_line {
    VTICK_READY,  /* a tick would reach the guest */
    VTICK_BUSY,   /* the guest has not taken the last one; its EOI will be told of */
    VTICK_HELD,   /* the device itself waits to be acknowledged, and knows when that happens */
    VTICK_MASKED, /* nobody listens: ticks pass unseen and none is owed */
};

/* Start: ticks every num / hz seconds, the first one period after start_ns (ns of now_ns()). */
void vtick_start(struct vtick *t, uint64_t start_ns, uint64_t num, uint64_t hz);
void vtick_stop(struct vtick *t);
/* Account for time now; true when one tick is to be delivered at once. mode: HVMPTM_*. */
bool vtick_fire(struct vtick *t, uint64_t now, enum vtick_line line, uint64_t mode);
/* When to call vtick_fire next, if no acknowledgement comes before, in ns of now_ns(); TIME_NEVER
 * when stopped. */
uint64_t vtick_next(const struct vtick *t, uint64_t now);
/* Nominal ticks that came due and were not accounted for; accounts for them. */
uint64_t vtick_skip(struct vtick *t, uint64_t now);
