/* vtick.c: the arithmetic of periodic interrupts: what is due, what is owed, when to look again. */
#include "platform/vtick.h"
#include "platform/inner.h"

#define CATCH_UP 20 /* times the nominal rate */

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
    *t = (struct vtick){
        .on = num != 0, .noted = t->noted, .start_ns = start_ns, .num = num, .hz = hz};
}

void vtick_stop(struct vtick *t)
{
    t->on = t->busy = t->waits = false;
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

/* One of `owed` owed ticks is delivered now: when may the next one be? */
static void space(struct vtick *t, uint64_t owed, uint64_t now)
{
    uint64_t gap = period_ns(t) / CATCH_UP;

    if (owed <= VTICK_FEW)
        t->burst = 0;
    else if (t->burst++ == 0)
        t->burst_ns = now;
    t->next_ns = now;
    if (t->burst < VTICK_BURST)
        return;
    t->burst = 0;
    t->next_ns = now + MAX(VTICK_BURST * gap, (now - t->burst_ns) / 4);
}

bool vtick_fire(struct vtick *t, uint64_t now, enum vtick_line line, uint64_t mode)
{
    if (!t->on)
        return false;
    uint64_t owed = t->owed + vtick_skip(t, now);
    bool held = line == VTICK_BUSY || line == VTICK_HELD;
    bool none_pends = mode == HVMPTM_no_missed_ticks_pending;

    if (none_pends && (held || t->busy))
        owed = 0;
    else if (mode == HVMPTM_one_missed_tick_pending)
        owed = MIN(owed, 1ULL);
    if (t->busy && !held && owed <= VTICK_FEW) /* taken just now: the guest goes on first */
        t->next_ns = MAX(t->next_ns, now + period_ns(t) / CATCH_UP);
    bool deliver = owed && !held && (line == VTICK_MASKED || now >= t->next_ns);
    if (deliver)
        space(t, owed--, now);
    if (line == VTICK_MASKED || none_pends)
        owed = 0;
    t->owed = (uint32_t)MIN(owed, (uint64_t)owed_limit(t));
    t->busy = held || (deliver && t->owed);
    t->waits = t->busy && line != VTICK_HELD;
    return deliver;
}

uint64_t vtick_next(const struct vtick *t, uint64_t now)
{
    if (!t->on)
        return TIME_NEVER;
    if (t->busy)
        return now + MAX(period_ns(t), VTICK_BACK_NS);
    uint64_t next = t->start_ns + muldiv((t->done + 1) * t->num, NS_PER_SEC, t->hz) + 1;

    if (t->owed)
        next = MIN(next, t->next_ns);
    return MAX(next, now + VTICK_MIN_NS);
}
