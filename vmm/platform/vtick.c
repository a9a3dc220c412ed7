/* vtick.c: the arithmetic of periodic interrupts: what is due, what is owed, when to look again. */
#include "platform/vtick.h"
#include "platform/inner.h"

#define CATCH_UP 20        /* times the nominal rate */
#define LOOK_NS  500000ULL /* at least twice in the least of slices that a busy pCPU gives */

/* Nominal ticks due in all by now. */
static uint64_t ticks_by(const struct vtick *t, uint64_t now)
{
    int64_t elapsed = (int64_t)(now - t->start_ns);

    return elapsed <= 0 ? 0 : muldiv((uint64_t)elapsed, t->hz, NS_PER_SEC) / t->num;
}

static uint64_t period_ns(const struct vtick *t)
{
    return muldiv(t->num, NS_PER_SEC, t->hz);
}

void vtick_start(struct vtick *t, uint64_t start_ns, uint64_t num, uint64_t hz)
{
    t->on = num != 0;
    t->start_ns = start_ns;
    t->num = num;
    t->hz = hz;
    t->done = 0;
    t->owed = 0;
}

void vtick_stop(struct vtick *t)
{
    t->on = false;
    t->owed = 0;
}

uint64_t vtick_skip(struct vtick *t, uint64_t now)
{
    if (!t->on)
        return 0;
    uint64_t by = ticks_by(t, now), n = by > t->done ? by - t->done : 0;
    t->done += n;
    return n;
}

/* No more than two seconds of ticks are ever owed, and none at rates the timer does not follow. */
static uint32_t owed_limit(const struct vtick *t)
{
    if (period_ns(t) < VTICK_MIN_NS)
        return 1;
    return (uint32_t)MAX(2 * t->hz / t->num, 1ULL);
}

bool vtick_fire(struct vtick *t, uint64_t now, enum vtick_line line, uint64_t mode)
{
    if (!t->on)
        return false;
    uint64_t owed = t->owed + vtick_skip(t, now);
    t->busy = line == VTICK_BUSY;
    bool deliver = owed && line != VTICK_BUSY;

    owed -= deliver;
    if (line == VTICK_MASKED || mode == HVMPTM_no_missed_ticks_pending)
        owed = 0;
    else if (mode == HVMPTM_one_missed_tick_pending)
        owed = MIN(owed, 1ULL);
    t->owed = (uint32_t)MIN(owed, (uint64_t)owed_limit(t));
    return deliver;
}

uint64_t vtick_next(const struct vtick *t, uint64_t now)
{
    if (!t->on)
        return TIME_NEVER;
    uint64_t next = t->start_ns + muldiv((t->done + 1) * t->num, NS_PER_SEC, t->hz) + 1;

    if (t->owed)
        next = MIN(next, now + MIN(period_ns(t) / (t->busy ? 2 : CATCH_UP), LOOK_NS));
    return MAX(next, now + VTICK_MIN_NS);
}
