/* runq_inner.h: the steps of a queue's decision, inline: runq.c's, and balance.c's for the usual
 * decision on the exit path. The caller holds the queue's lock.
 */
#pragma once

#include "core/runq.h"
#include "core/time.h"

#define VTIME_SCALE   (WEIGHT_DEFAULT * 64UL)
#define WAKE_BONUS_NS NS_PER_MS /* at weight 256: how far a sleeper may be ahead of its rights */

#define STEP          static inline __attribute__((always_inline))

STEP bool vtime_before(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b) < 0;
}

STEP uint64_t vtime_in(uint64_t ns, uint64_t weight)
{
    return ns * VTIME_SCALE / weight;
}

STEP struct tree *tree_of(struct run_queue *rq, const struct sched_unit *u)
{
    return u->pinned ? &rq->pinned : &rq->movable;
}

/* The waiting unit with the least virtual time. */
STEP struct sched_unit *rq_best(const struct run_queue *rq)
{
    struct tree_node *m = rq->movable.first, *p = rq->pinned.first;
    if (p && (!m || vtime_before(p->key, m->key)))
        m = p;
    return m ? container_of(m, struct sched_unit, node) : NULL;
}

/* The virtual time of a waiting unit. */
STEP uint64_t waiting_vtime(const struct run_queue *rq, const struct sched_unit *u)
{
    return u->node.key + rq->base;
}

STEP void rq_insert(struct run_queue *rq, struct sched_unit *u)
{
    struct tree *t = tree_of(rq, u);
    u->weight = u->share->weight;
    u->node.key = u->vtime - rq->base;
    u->queued = true;
    if (likely(!t->root)) {
        tree_plant(t, &u->node);
        rq->steps++;
    } else {
        rq->steps += tree_insert(t, &u->node);
    }
    rq->count++;
    rq->weight += u->weight;
}

STEP void rq_remove(struct run_queue *rq, struct sched_unit *u)
{
    struct tree *t = tree_of(rq, u);
    if (likely(tree_is_alone(t, &u->node))) {
        t->root = t->first = NULL;
        rq->steps++;
    } else {
        rq->steps += tree_remove(t, &u->node);
    }
    u->vtime = waiting_vtime(rq, u);
    u->queued = false;
    rq->count--;
    rq->weight -= u->weight;
}

/* Charge u, the current unit, and move the clock on to the least virtual time there is; first is
 * rq_best(rq). */
STEP void rq_charge(struct run_queue *rq, struct sched_unit *u, const struct sched_unit *first,
                    uint64_t now)
{
    uint64_t least;
    if (now > u->charged_ns) {
        u->vtime += vtime_in(now - u->charged_ns, u->weight);
        if (u->claim_ns || u->share->cap)
            u->claim_ns -= (int64_t)(now - u->charged_ns);
        u->charged_ns = now;
    }
    least = u->vtime;
    if (first && vtime_before(waiting_vtime(rq, first), least))
        least = waiting_vtime(rq, first);
    if (vtime_before(rq->clock, least))
        rq->clock = least;
}

/* Who slept knows nothing of the queue's clock, which runq_set_clock may have put back since: its
 * virtual time counts only near the clock, no more ahead than one turn can bring it. */
STEP void admit_sleeper(struct run_queue *rq, struct sched_unit *u)
{
    uint64_t earliest = rq->clock - vtime_in(WAKE_BONUS_NS, WEIGHT_DEFAULT);
    if (vtime_before(u->vtime, earliest)) {
        u->vtime = earliest;
    } else if (vtime_before(rq->clock, u->vtime)) {
        uint64_t latest = rq->clock + vtime_in(ROUND_NS, u->share->weight);
        if (vtime_before(latest, u->vtime))
            u->vtime = latest;
    }
}

/* u's part of a round among all that wait and run. */
STEP uint64_t slice(const struct run_queue *rq, const struct sched_unit *u)
{
    uint64_t ns = ROUND_NS * u->weight / rq->weight;
    uint64_t least = sched_ratelimit_ns ? sched_ratelimit_ns : SLICE_MIN_NS;
    return u->answered ? least : MAX(ns, least);
}

/* u, which does not wait, has no cap or has claimed time, runs from now on. */
STEP void rq_start(struct run_queue *rq, struct sched_unit *u, uint64_t now)
{
    u->running = true;
    u->yielded = false;
    u->run_start_ns = u->charged_ns = now;
    rq->curr = u;
    rq->weight += u->weight;
    u->slice_end_ns = now + slice(rq, u);
}
