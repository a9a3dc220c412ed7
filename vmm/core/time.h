/* time.h: system time and one-shot timers.
 *
 * now_ns() is monotonic nanoseconds since Ringfence's boot, the same on every pCPU. Timers fire on
 * the pCPU they are set on, in its exit loop or idle loop, with interrupts off and no lock held.
 */
#pragma once

#include "core/types.h"

#define NS_PER_SEC 1000000000UL
#define NS_PER_MS  1000000UL
#define NS_PER_US  1000UL
#define TIME_NEVER (~0UL)

struct timer {
    uint64_t expires_ns; /* absolute; TIME_NEVER when not set */
    void (*fn)(void *data);
    void *data;
    unsigned cpu; /* pCPU whose heap holds it */
    bool queued;
    struct timer *child, *next, *prev; /* pairing heap: first child, siblings, left or parent */
};

/* a * b / c, rounded down, without overflow while the result fits and b, c < 2^32. */
static inline uint64_t muldiv(uint64_t a, uint64_t b, uint64_t c)
{
    return a / c * b + a % c * b / c;
}

uint64_t now_ns(void);
uint64_t tsc_to_ns(uint64_t tsc_delta);
uint64_t ns_to_tsc(uint64_t ns);
extern uint64_t tsc_khz; /* host TSC frequency */
/* Boot: a counter's value and the TSC at the same moment: the closest of a few tries, since on a
 * hypervisor's CPU the two reads may be far apart. */
void time_sample(uint32_t (*read)(uint64_t where), uint64_t where, uint64_t *tsc, uint32_t *count);
uint64_t wallclock_boot_ns(void);        /* UTC ns since 1970 at system time 0 */
void wallclock_set_boot_ns(uint64_t ns); /* dom0 set the time (XENPF_settime64) */

/* Boot: measure the TSC against the HPET, the PM timer or the PIT; read the wall clock. */
void time_init(void);
/* This pCPU's share: arm the hardware for its first timer; run what has expired. */
void timers_cpu_init(void);
void timers_run(void);
/* A guest's stay ends by itself when timers.due_tsc of its pCPU has come, which therefore takes no
 * interrupt for it: the LAPIC timer, which must have the deadline mode, is armed for idling only.
 * Set at boot. */
extern bool timers_end_stays;
/* This pCPU is about to halt: the LAPIC timer will wake it. Interrupts off. */
void timers_before_halt(void);
/* In the middle of long work: see whether a timer is due, which no interrupt may tell. */
void timers_look(void);

/* Prepare a timer for pCPU cpu; fn(data) is called there, with no lock held. */
void timer_init(struct timer *t, void (*fn)(void *), void *data, unsigned cpu);
/* (Re)arm at an absolute time in ns; a time in the past fires at once. Any pCPU, any lock but the
 * timer heap's. */
void timer_set(struct timer *t, uint64_t expires_ns);
/* Disarm. On return fn does not start any more, but may still be running on another pCPU. */
void timer_stop(struct timer *t);
/* Disarm and wait until fn is not running anywhere; the caller holds no lock that fn takes. */
void timer_kill(struct timer *t);
/* Move to another pCPU, keeping its expiry. */
void timer_migrate(struct timer *t, unsigned cpu);
static inline bool timer_pending(const struct timer *t)
{
    return t->queued;
}
