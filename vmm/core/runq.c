/* runq.c: one run queue: virtual time, slices, budgets.
 *
 * Virtual time is in 1/64 ns of a unit of weight 256. Two units of a queue whose virtual times keep
 * step have had time in the ratio of their weights. A slice is the unit's part of a round, so that
 * each runs about once a round and no share is off by more than one slice.
 */
#include "core/runq_inner.h"

#define WINDOW_ROUNDS 16 /* clocks further apart than that tell nothing of fairness */

uint64_t sched_ratelimit_ns = RATELIMIT_DEFAULT_US * NS_PER_US;

uint64_t vtime_of(uint64_t ns, uint64_t weight)
{
    return vtime_in(ns, weight);
}

/* ---- shares: weights and budgets --------------------------------------------------------------
 */
void share_init(struct sched_share *s)
{
    *s = (struct sched_share){.weight = WEIGHT_DEFAULT};
    list_init(&s->parked);
}

/* One period's budget may be left over, for who was released late; what was used too much is paid
 * back. s->lock is held. */
static void fill_up(struct sched_share *s, uint64_t now)
{
    int64_t full = (int64_t)(CAP_PERIOD_NS / 100 * s->cap);
    if (!s->period_end_ns) {
        s->period_end_ns = now + CAP_PERIOD_NS;
        s->budget_ns = full;
    }
    if (now < s->period_end_ns)
        return;
    uint64_t periods = (now - s->period_end_ns) / CAP_PERIOD_NS + 1;
    s->period_end_ns += periods * CAP_PERIOD_NS;
    s->budget_ns = MIN(2 * full, s->budget_ns + (int64_t)periods * full);
}

/* Take some of the budget for u, a quarter or a least amount, so that several units share it;
 * false: there is none, and u is parked. */
static bool claim(struct sched_unit *u, uint64_t now)
{
    struct sched_share *s = u->share;
    spin_lock(&s->lock);
    fill_up(s, now);
    int64_t least = MIN(s->budget_ns, (int64_t)RATELIMIT_DEFAULT_US * (int64_t)NS_PER_US);
    bool any = s->budget_ns > 0;
    if (any) {
        u->claim_ns = MAX(s->budget_ns / 4, least);
        s->budget_ns -= u->claim_ns;
    } else {
        u->parked = true;
        list_add_tail(&s->parked, &u->park_link);
        sched_hook_release_at(s, s->period_end_ns);
    }
    spin_unlock(&s->lock);
    return any;
}

/* What is left of the claim, or what was used beyond it. */
static void unclaim(struct sched_unit *u)
{
    if (!u->claim_ns)
        return;
    spin_lock(&u->share->lock);
    u->share->budget_ns += u->claim_ns;
    spin_unlock(&u->share->lock);
    u->claim_ns = 0;
}

struct sched_unit *share_release(struct sched_share *s, uint64_t now)
{
    struct sched_unit *u = NULL;
    spin_lock(&s->lock);
    if (s->cap)
        fill_up(s, now);
    if (!list_empty(&s->parked)) {
        if (!s->cap || s->budget_ns > 0) {
            u = list_first(&s->parked, struct sched_unit, park_link);
            list_del(&u->park_link);
        } else {
            sched_hook_release_at(s, s->period_end_ns);
        }
    }
    spin_unlock(&s->lock);
    return u;
}

/* ---- units
 * ---------------------------------------------------------------------------------------- */
void unit_init(struct sched_unit *u, struct sched_share *s)
{
    *u = (struct sched_unit){.share = s, .weight = s->weight};
    list_init(&u->park_link);
    for (unsigned i = 0; i < ARRAY_SIZE(u->hard); i++)
        u->hard[i] = u->soft[i] = ~0ULL;
    unit_set_affinity(u, u->hard, u->soft);
}

void unit_set_affinity(struct sched_unit *u, const uint64_t *hard, const uint64_t *soft)
{
    unsigned allowed = 0, preferred = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(u->hard); i++) {
        u->hard[i] = hard[i];
        u->soft[i] = soft[i];
        u->prefer[i] = hard[i] & soft[i];
    }
    for (unsigned i = 0; i < nr_cpus && (allowed < 2 || !preferred); i++) {
        allowed += unit_allowed(u, i);
        preferred += unit_prefers(u, i);
    }
    u->pinned = allowed == 1;
    for (unsigned i = 0; !preferred && i < ARRAY_SIZE(u->hard); i++)
        u->prefer[i] = hard[i];
}

/* ---- the queue
 * ------------------------------------------------------------------------------------ */
void runq_init(struct run_queue *rq, unsigned cpu)
{
    *rq = (struct run_queue){.cpu = cpu, .random = cpu * 2654435761u + 1, .decide_ns = TIME_NEVER};
}

void runq_insert(struct run_queue *rq, struct sched_unit *u)
{
    rq_insert(rq, u);
}

void runq_remove(struct run_queue *rq, struct sched_unit *u)
{
    rq_remove(rq, u);
}

void runq_set_clock(struct run_queue *rq, uint64_t clock)
{
    uint64_t shift = clock - rq->clock;
    rq->clock += shift;
    rq->base += shift;
    if (rq->curr)
        rq->curr->vtime += shift;
}

void runq_admit(struct run_queue *rq, struct sched_unit *u, uint64_t from, bool slept)
{
    uint64_t apart = rq->clock - from;
    if (apart) {
        int64_t window = (int64_t)vtime_of(WINDOW_ROUNDS * ROUND_NS, rq->weight + u->share->weight);
        if (!rq->count && !rq->curr)
            runq_set_clock(rq, from);
        else if ((int64_t)apart > window || (int64_t)apart < -window)
            u->vtime += apart;
    }
    if (slept)
        admit_sleeper(rq, u);
}

void runq_update(struct run_queue *rq, uint64_t now)
{
    struct sched_unit *first = rq_best(rq);
    if (rq->curr)
        rq_charge(rq, rq->curr, first, now);
    else if (first && vtime_before(rq->clock, waiting_vtime(rq, first)))
        rq->clock = waiting_vtime(rq, first);
}

void runq_reweigh(struct run_queue *rq, struct sched_unit *u, uint64_t now)
{
    uint32_t to = u->share->weight;
    int64_t ahead;
    runq_update(rq, now);
    if (rq->curr == u)
        rq->weight += to - (uint64_t)u->weight;
    ahead = (int64_t)(u->vtime - rq->clock);
    if (ahead > 0 && to > u->weight) /* what it had too much weighs less now */
        u->vtime = rq->clock + (uint64_t)ahead / to * u->weight;
    u->weight = to;
}

struct sched_unit *runq_pick(struct run_queue *rq, uint64_t now)
{
    struct sched_unit *u;
    while ((u = rq_best(rq))) {
        rq_remove(rq, u);
        if (!u->share->cap || claim(u, now))
            break;
    }
    if (!u)
        return NULL;
    rq_start(rq, u, now);
    if (u->claim_ns)
        u->slice_end_ns = MIN(u->slice_end_ns, now + (uint64_t)u->claim_ns);
    return u;
}

void runq_put(struct run_queue *rq, uint64_t now)
{
    struct sched_unit *u = rq->curr;
    if (now > u->charged_ns)
        runq_update(rq, now);
    rq->weight -= u->weight;
    rq->curr = NULL;
    unclaim(u);
    u->running = false;
    u->answered = false;
}

uint64_t runq_next_decision(struct run_queue *rq, uint64_t now)
{
    struct sched_unit *u = rq->curr, *first = rq_best(rq);
    if (!u)
        return first ? now : TIME_NEVER;
    if (now > u->charged_ns)
        runq_update(rq, now);
    if (first) {
        u->slice_end_ns = MIN(u->slice_end_ns, u->run_start_ns + slice(rq, u));
        if (vtime_before(waiting_vtime(rq, first), u->vtime))
            u->slice_end_ns = MIN(u->slice_end_ns, u->run_start_ns + sched_ratelimit_ns);
    }
    return MAX(u->slice_end_ns, now);
}
