/* balance.c: many run queues: where a woken unit goes, what an idle pCPU takes, and how queues of
 * unequal weight even out.
 *
 * Two sets of pCPUs steer it: the idle ones, and those whose queue holds a waiting unit that others
 * may take (surplus). A pCPU that finds nothing to run enters the idle set, then looks at the
 * surplus set again; a queue enters the surplus set, then looks at the idle set: one of them sees
 * the other. Whoever sends work to an idle pCPU takes it out of the set.
 *
 * Busy pCPUs look at a few others of the surplus set now and then, and take a unit when that evens
 * the weights, or when it lags behind in virtual time: so that three units on two pCPUs take turns.
 *
 * A second queue's lock is only tried for while one is held.
 */
#include "core/atomic.h"
#include "core/runq_inner.h"

#define SCAN_MAX   16              /* waiting units looked at in another's queue */
#define PROBES     4               /* queues looked at for balance */
#define SYNC_NS    (16 * ROUND_NS) /* a clock further behind is not comparable: it is set */
#define BALANCE_NS (ROUND_NS / 8)
#define WORDS      (MAX_CPUS / 64)

static uint64_t idle_set[WORDS], surplus_set[WORDS];

static struct run_queue *queue_of(unsigned cpu)
{
    return sched_hook_queue(cpu);
}

/* First pCPU from `from` on in a & b; nr_cpus when there is none. */
static unsigned find_from(unsigned from, const uint64_t *a, const uint64_t *b)
{
    uint64_t mask = ~0ULL << (from % 64);
    for (unsigned w = from / 64; w * 64 < nr_cpus; w++, mask = ~0ULL) {
        uint64_t bits = READ_ONCE(a[w]) & b[w] & mask;
        if (bits)
            return w * 64 + (unsigned)__builtin_ctzll(bits);
    }
    return nr_cpus;
}

/* The same, going round the end. */
static unsigned find_cpu(unsigned from, const uint64_t *a, const uint64_t *b)
{
    unsigned cpu = find_from(from, a, b);
    return cpu < nr_cpus || !from ? cpu : find_from(0, a, b);
}

static unsigned next_random(struct run_queue *rq)
{
    rq->random = rq->random * 1664525 + 1013904223;
    return (rq->random >> 8) % nr_cpus;
}

/* ---- the two sets
 * ----------------------------------------------------------------------------------- */
/* Take a pCPU out of the idle set: true for one caller. */
static bool claim_idle(unsigned cpu)
{
    return READ_ONCE(idle_set[cpu / 64]) >> (cpu % 64) & 1 && test_and_clear_bit(cpu, idle_set);
}

/* An idle pCPU where u may run, taken out of the set: one it prefers, else any; nr_cpus for none.
 */
static unsigned claim_idle_for(const struct sched_unit *u, unsigned near, bool preferred_only)
{
    unsigned cpu;
    do
        cpu = find_cpu(near, idle_set, u->prefer);
    while (cpu < nr_cpus && !claim_idle(cpu));
    if (cpu < nr_cpus || preferred_only)
        return cpu;
    do
        cpu = find_cpu(near, idle_set, u->hard);
    while (cpu < nr_cpus && !claim_idle(cpu));
    return cpu;
}

static __attribute__((noinline)) void offer_surplus(struct run_queue *rq, bool surplus,
                                                    uint64_t now)
{
    const struct tree_node *first = rq->movable.first;
    unsigned idle = nr_cpus;
    if (surplus != rq->surplus) {
        rq->surplus = surplus;
        if (surplus)
            set_bit(rq->cpu, surplus_set);
        else
            clear_bit(rq->cpu, surplus_set);
    }
    if (surplus)
        idle = claim_idle_for(container_of(first, struct sched_unit, node), rq->cpu, false);
    if (idle < nr_cpus)
        sched_hook_decide_at(idle, now, now);
}

static inline __attribute__((always_inline)) void unlock(struct run_queue *rq, uint64_t now)
{
    bool surplus = rq->movable.first && (rq->curr || rq->count > 1);
    if (surplus || rq->surplus)
        offer_surplus(rq, surplus, now);
    spin_unlock(&rq->lock);
}

/* Have rq's pCPU decide at `when`. A decision that was asked for earlier looks and asks anew: so
 * nothing is done at most switches, and the timer set about once a slice. */
static inline void decide_at(struct run_queue *rq, uint64_t when, uint64_t now)
{
    if (when > now) {
        if (when >= rq->decide_ns)
            return;
        rq->decide_ns = when;
    }
    sched_hook_decide_at(rq->cpu, when, now);
}

static inline __attribute__((always_inline)) struct run_queue *lock_unit(struct sched_unit *u)
{
    for (;;) {
        unsigned cpu = READ_ONCE(u->cpu);
        struct run_queue *rq = queue_of(cpu);
        spin_lock(&rq->lock);
        if (u->cpu == cpu)
            return rq;
        spin_unlock(&rq->lock);
    }
}

/* ---- wake-ups
 * ----------------------------------------------------------------------------------------- */
/* Where u may run with least weight; where it ran last among equals. */
static unsigned least_loaded(const struct sched_unit *u, bool preferred)
{
    unsigned found = nr_cpus;
    for (unsigned i = 0, cpu = u->cpu; i < nr_cpus; i++, cpu = cpu + 1 == nr_cpus ? 0 : cpu + 1) {
        if (!(preferred ? unit_prefers(u, cpu) : unit_allowed(u, cpu)))
            continue;
        if (found == nr_cpus || queue_of(cpu)->weight < queue_of(found)->weight)
            found = cpu;
    }
    return found;
}

unsigned sched_place_new(const struct sched_unit *u)
{
    unsigned cpu = least_loaded(u, true);
    if (cpu == nr_cpus)
        cpu = least_loaded(u, false);
    return cpu == nr_cpus ? 0 : cpu;
}

/* Where a waking unit goes: where it ran last if that is idle and it likes it there, an idle pCPU,
 * or where it ran last: the surplus is evened out from there. */
static unsigned place(const struct sched_unit *u)
{
    if (unit_prefers(u, u->cpu) && claim_idle(u->cpu))
        return u->cpu;
    unsigned cpu = u->pinned ? nr_cpus : claim_idle_for(u, u->cpu, false);
    if (cpu < nr_cpus)
        return cpu;
    return unit_prefers(u, u->cpu) ? u->cpu : sched_place_new(u);
}

static void queue_here(struct run_queue *rq, struct sched_unit *u, uint64_t now)
{
    runq_insert(rq, u);
    sched_hook_state(u, UNIT_WAITING, now);
    decide_at(rq, runq_next_decision(rq, now), now);
}

/* u, which was handed over, waits. */
static __attribute__((noinline)) void queue_handed(struct run_queue *rq, struct sched_unit *u,
                                                   uint64_t now)
{
    rq->handed = NULL;
    u->handed = false;
    runq_update(rq, now);
    runq_admit(rq, u, rq->clock, true);
    queue_here(rq, u, now);
}

/* The same as lock_unit, for who goes on from what u is: no longer handed over. */
static struct run_queue *lock_settled(struct sched_unit *u, uint64_t now)
{
    struct run_queue *rq = lock_unit(u);
    if (u->handed)
        queue_handed(rq, u, now);
    return rq;
}

static inline bool is_up(const struct sched_unit *u)
{
    return u->queued || u->running || u->parked || u->handed;
}

void sched_wake(struct sched_unit *u, runnable_fn *runnable, uint64_t now)
{
    struct run_queue *rq = lock_unit(u);
    if (is_up(u) || !runnable(u)) {
        unlock(rq, now);
        return;
    }
    unsigned to = place(u);
    uint64_t from = rq->clock;
    if (to != u->cpu) { /* it neither waits nor runs: nobody but another waker minds where it is */
        WRITE_ONCE(u->cpu, to);
        unlock(rq, now);
        rq = lock_unit(u);
        if (is_up(u) || !runnable(u)) {
            sched_hook_decide_at(to, now, now); /* it is not idle for the set any more */
            unlock(rq, now);
            return;
        }
    }
    runq_update(rq, now);
    runq_admit(rq, u, to == u->cpu ? from : rq->clock, true);
    queue_here(rq, u, now);
    unlock(rq, now);
}

/* Would a waking u go to a pCPU that idles? */
static inline bool idle_for(const struct sched_unit *u)
{
    uint64_t idle = 0;
    for (unsigned w = 0; w < WORDS; w++)
        idle |= READ_ONCE(idle_set[w]) & u->hard[w];
    return idle;
}

bool sched_hand_over(struct sched_unit *u, struct run_queue *rq, runnable_fn *runnable)
{
    bool handed = false;
    if (READ_ONCE(u->cpu) != rq->cpu)
        return false;
    spin_lock(&rq->lock);
    if (u->cpu == rq->cpu && rq->curr && !rq->handed && !is_up(u) && unit_prefers(u, rq->cpu) &&
        !idle_for(u) && runnable(u)) {
        rq->handed = u;
        u->handed = handed = true;
    }
    spin_unlock(&rq->lock);
    return handed;
}

void sched_unpark(struct sched_unit *u, runnable_fn *runnable, uint64_t now)
{
    struct run_queue *rq = lock_unit(u);
    u->parked = false;
    unlock(rq, now);
    sched_wake(u, runnable, now);
}

void sched_sleep(struct sched_unit *u, runnable_fn *runnable, uint64_t now)
{
    struct run_queue *rq = lock_settled(u, now);
    if (!runnable(u)) {
        if (u->queued) {
            runq_remove(rq, u);
            sched_hook_state(u, UNIT_STOPPED, now);
        } else if (u->parked) {
            sched_hook_state(u, UNIT_STOPPED, now);
        } else if (u->running) {
            u->slice_end_ns = now;
            sched_hook_decide_at(rq->cpu, now, now);
        }
    }
    unlock(rq, now);
}

void sched_forget(struct sched_unit *u, uint64_t now)
{
    struct run_queue *rq = lock_settled(u, now);
    if (u->queued)
        runq_remove(rq, u);
    spin_lock(&u->share->lock);
    list_del(&u->park_link);
    u->parked = false;
    spin_unlock(&u->share->lock);
    unlock(rq, now);
}

void sched_changed(struct sched_unit *u, const uint64_t *hard, const uint64_t *soft,
                   runnable_fn *runnable, uint64_t now)
{
    struct run_queue *rq = lock_settled(u, now);
    bool was_queued = u->queued;
    if (was_queued)
        runq_remove(rq, u);
    unit_set_affinity(u, hard ? hard : u->hard, soft ? soft : u->soft);
    runq_reweigh(rq, u, now);
    if (was_queued && unit_prefers(u, rq->cpu)) {
        queue_here(rq, u, now);
        was_queued = false;
    }
    if (u->running) {
        u->slice_end_ns = now;
        sched_hook_decide_at(rq->cpu, now, now);
    }
    unlock(rq, now);
    if (was_queued)
        sched_wake(u, runnable, now);
}

void sched_yield_cpu(unsigned cpu, uint64_t now)
{
    struct run_queue *rq = queue_of(cpu);
    spin_lock(&rq->lock);
    if (rq->curr && rq->count) {
        rq->curr->yielded = true;
        sched_hook_decide_at(cpu, now, now);
    }
    unlock(rq, now);
}

/* ---- taking from others
 * ----------------------------------------------------------------------------- */
/* Both locks are held. */
static void move(struct run_queue *from, struct run_queue *to, struct sched_unit *u)
{
    runq_remove(from, u);
    runq_admit(to, u, from->clock, false);
    WRITE_ONCE(u->cpu, to->cpu);
    runq_insert(to, u);
}

/* One of the first waiting units of `from` that may run on rq's pCPU: one that prefers it. */
static struct sched_unit *candidate(struct run_queue *rq, struct run_queue *from, bool preferred)
{
    struct tree_node *n = from->movable.first;
    for (unsigned i = 0; n && i < SCAN_MAX; i++, n = tree_next(n)) {
        struct sched_unit *u = container_of(n, struct sched_unit, node);
        rq->steps++;
        if (preferred ? unit_prefers(u, rq->cpu) : unit_allowed(u, rq->cpu))
            return u;
    }
    return NULL;
}

/* Move a unit that waits on pCPU cpu to rq; *busy: that queue was in use. */
static bool steal_from(struct run_queue *rq, unsigned cpu, bool preferred, bool *busy, uint64_t now)
{
    struct run_queue *from = queue_of(cpu);
    rq->steps++;
    if (from == rq)
        return false;
    if (!spin_trylock(&from->lock)) {
        *busy = true;
        return false;
    }
    struct sched_unit *u = candidate(rq, from, preferred);
    if (u) {
        runq_update(from, now);
        move(from, rq, u);
        rq->steals++;
    }
    unlock(from, now);
    return u;
}

/* rq's pCPU has nothing to run: true when it has now. */
static bool steal(struct run_queue *rq, bool preferred, bool *busy, uint64_t now)
{
    const uint64_t *s = surplus_set;
    unsigned start = next_random(rq), cpu;
    for (cpu = find_from(start, s, s); cpu < nr_cpus; cpu = find_from(cpu + 1, s, s)) {
        if (steal_from(rq, cpu, preferred, busy, now))
            return true;
    }
    for (cpu = find_from(0, s, s); cpu < start; cpu = find_from(cpu + 1, s, s)) {
        if (steal_from(rq, cpu, preferred, busy, now))
            return true;
    }
    return false;
}

/* A waiting unit of `from` that should rather wait here: the weights get more even by it, or it
 * lags behind by a quarter of a round. */
static struct sched_unit *deserving(struct run_queue *rq, struct run_queue *from)
{
    uint64_t excess = from->weight - rq->weight;
    int64_t late = (int64_t)vtime_of(ROUND_NS / 4, from->weight);
    struct tree_node *n = from->movable.first;
    for (unsigned i = 0; n && i < SCAN_MAX; i++, n = tree_next(n)) {
        struct sched_unit *u = container_of(n, struct sched_unit, node);
        rq->steps++;
        if (!unit_prefers(u, rq->cpu))
            continue;
        if (excess > u->weight || (int64_t)(rq->clock - (n->key + from->base)) > late)
            return u;
    }
    return NULL;
}

/* Is a the better one of two queues to take from: heavier, or as heavy and further behind? */
static bool better(const struct run_queue *a, const struct run_queue *b)
{
    uint64_t wa = READ_ONCE(a->weight), wb = READ_ONCE(b->weight);
    return wa != wb ? wa > wb : (int64_t)(READ_ONCE(a->clock) - READ_ONCE(b->clock)) < 0;
}

/* Look at a few other queues and take one unit from the heaviest of them when that is fair. Queues
 * of equal weight go equally fast: what sets them apart is past. */
static void balance(struct run_queue *rq, uint64_t now)
{
    struct run_queue *from = NULL;
    rq->next_balance_ns = now + BALANCE_NS;
    for (unsigned i = 0; i < PROBES; i++) {
        unsigned cpu = find_cpu(next_random(rq), surplus_set, surplus_set);
        rq->steps++;
        if (cpu == nr_cpus)
            return;
        struct run_queue *other = queue_of(cpu);
        if (other != rq && (!from || better(other, from)))
            from = other;
    }
    if (!from || !spin_trylock(&from->lock))
        return;
    runq_update(from, now);
    if ((int64_t)(from->clock - rq->clock) > (int64_t)vtime_of(SYNC_NS, rq->weight))
        runq_set_clock(rq, from->clock);
    struct sched_unit *u = from->weight > rq->weight ? deserving(rq, from) : NULL;
    if (u) {
        if (from->weight - rq->weight > 4UL * u->weight)
            rq->next_balance_ns = now; /* far from even: go on at the next decision */
        move(from, rq, u);
        rq->pulls++;
    }
    unlock(from, now);
}

/* ---- the decision
 * --------------------------------------------------------------------------------------- */
/* Take u off its pCPU. True: done, *again when it still is to be queued here after others (it
 * yielded). False: it must go elsewhere, and that queue was in use. */
static bool stop(struct run_queue *rq, struct sched_unit *u, bool goes_on, bool *again,
                 uint64_t now)
{
    struct run_queue *to = rq;
    bool allowed = unit_allowed(u, rq->cpu);
    *again = false;
    if (goes_on && !allowed) {
        to = queue_of(place(u));
    } else if (goes_on && !unit_prefers(u, rq->cpu)) {
        unsigned cpu = claim_idle_for(u, rq->cpu, true);
        if (cpu < nr_cpus)
            to = queue_of(cpu);
    }
    if (to != rq && !spin_trylock(&to->lock)) {
        sched_hook_decide_at(to->cpu, now,
                             now); /* back into the idle set, where it may come from */
        if (!allowed)
            return false;
        to = rq;
    }
    runq_put(rq, now);
    if (!goes_on) {
        sched_hook_state(u, UNIT_STOPPED, now);
    } else if (to != rq) {
        runq_admit(to, u, rq->clock, false);
        WRITE_ONCE(u->cpu, to->cpu);
        queue_here(to, u, now);
        unlock(to, now);
    } else {
        sched_hook_state(u, UNIT_WAITING, now);
        if (u->yielded)
            *again = true;
        else
            runq_insert(rq, u);
    }
    return true;
}

/* The next unit to run from rq or another queue, made current. */
static struct sched_unit *pick_or_steal(struct run_queue *rq, bool *busy, uint64_t now)
{
    struct sched_unit *u = runq_pick(rq, now);
    while (!u && (steal(rq, true, busy, now) || steal(rq, false, busy, now)))
        u = runq_pick(rq, now); /* what was taken may have no budget */
    return u;
}

/* The whole of a decision, with moves between queues. rq is locked, its current unit charged. NULL:
 * idle. */
static __attribute__((noinline)) struct sched_unit *decide(struct run_queue *rq,
                                                           runnable_fn *runnable, uint64_t now)
{
    for (;; spin_lock(&rq->lock)) {
        struct sched_unit *u = rq->curr, *next;
        bool goes_on = u && runnable(u), again = false, busy = false;
        rq->decisions++;
        if (u && u->answered && now >= u->slice_end_ns)
            u->yielded = true;
        if (u && !stop(rq, u, goes_on, &again, now)) {
            spin_unlock(&rq->lock);
            __builtin_ia32_pause();
            continue;
        }
        if (now >= rq->next_balance_ns && rq->weight)
            balance(rq, now);
        next = again ? runq_pick(rq, now) : pick_or_steal(rq, &busy, now);
        if (again) {
            runq_insert(rq, u);
            next = next ? next : runq_pick(rq, now);
        }
        if (!next) { /* idle, unless work comes up between the last look and the set */
            set_bit(rq->cpu, idle_set);
            smp_mb();
            next = pick_or_steal(rq, &busy, now);
        }
        if (next) {
            clear_bit(rq->cpu, idle_set);
            sched_hook_state(next, UNIT_RUNNING, now);
            decide_at(rq, next->slice_end_ns, now);
        }
        unlock(rq, now);
        if (next || !busy)
            return next;
        __builtin_ia32_pause();
    }
}

/* u waits here, and a decision is being taken. */
static __attribute__((noinline)) void queue_for_now(struct run_queue *rq, struct sched_unit *u,
                                                    uint64_t now)
{
    runq_insert(rq, u);
    sched_hook_state(u, UNIT_WAITING, now);
    (void)runq_next_decision(rq, now); /* the current unit's slice may get shorter */
}

/* Who was handed over waits; but it is returned, and not queued, when it takes the pCPU from u, the
 * current unit, which is charged, and nobody else is before it. first is rq_best(rq). */
static inline struct sched_unit *take_handed(struct run_queue *rq, struct sched_unit *u,
                                             const struct sched_unit *first, uint64_t now)
{
    struct sched_unit *h = rq->handed;
    rq->handed = NULL;
    h->handed = false;
    admit_sleeper(rq, h);
    h->answered = vtime_before(h->vtime, u->vtime);
    if (h->answered) {
        u->slice_end_ns = now;
        if (!first || vtime_before(h->vtime, waiting_vtime(rq, first)))
            return h;
    }
    queue_for_now(rq, h, now);
    return NULL;
}

/* Is it more than a matter of u, the current unit, and of next, who would take its place? */
static inline bool is_involved(const struct run_queue *rq, const struct sched_unit *u,
                               const struct sched_unit *next, bool goes_on, uint64_t now)
{
    return !next || next->share->cap || u->claim_ns || now >= rq->next_balance_ns ||
           (goes_on && !unit_prefers(u, rq->cpu));
}

struct sched_unit *sched_next(struct run_queue *rq, runnable_fn *runnable, uint64_t now)
{
    struct sched_unit *u, *next, *handed = NULL;
    bool goes_on;

    spin_lock(&rq->lock);
    u = rq->curr;
    if (!u)
        return decide(rq, runnable, now);
    next = rq_best(rq);
    rq_charge(rq, u, next, now);
    if (rq->handed) {
        handed = take_handed(rq, u, next, now);
        next = handed ? handed : rq_best(rq);
    }
    goes_on = runnable(u);
    if (goes_on && !u->yielded && now < u->slice_end_ns) {
        decide_at(rq, u->slice_end_ns, now);
        unlock(rq, now);
        return u;
    }
    if (is_involved(rq, u, next, goes_on, now) ||
        (!handed && goes_on && vtime_before(u->vtime, waiting_vtime(rq, next)))) {
        if (handed)
            queue_for_now(rq, handed, now);
        return decide(rq, runnable, now);
    }
    rq->decisions++;
    if (!handed)
        rq_remove(rq, next);
    rq->weight -= u->weight;
    u->running = u->answered = false;
    sched_hook_state(u, goes_on ? UNIT_WAITING : UNIT_STOPPED, now);
    if (goes_on)
        rq_insert(rq, u);
    rq_start(rq, next, now);
    sched_hook_state(next, UNIT_RUNNING, now);
    decide_at(rq, next->slice_end_ns, now);
    unlock(rq, now);
    return next;
}

void sched_due(struct run_queue *rq)
{
    spin_lock(&rq->lock);
    rq->decide_ns = TIME_NEVER;
    spin_unlock(&rq->lock);
}

void balance_reset(void)
{
    for (unsigned i = 0; i < WORDS; i++)
        idle_set[i] = surplus_set[i] = 0;
}
