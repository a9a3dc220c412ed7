/* runq.h: the order in which vCPUs get a pCPU: virtual time, weights, caps, and who moves where.
 *
 * No hardware and no vCPU here: sched.c links this into the hypervisor, tests/sim into the
 * simulator. Time comes in as an argument; what must happen outside goes out through two hooks.
 *
 * A unit's virtual time advances with the time it runs, divided by its weight; the unit with the
 * least runs next. A queue's clock is the least virtual time in it and never goes back. One turn of
 * all units of a queue (a round) takes ROUND_NS, each having its slice of it by weight. Nothing
 * allocates; a decision costs O(log queued), whatever sleeps.
 *
 * Locks: each queue's own (never two at once), inside it a share's.
 */
#pragma once

#include "core/list.h"
#include "core/spinlock.h"
#include "core/types.h"

#ifndef MAX_CPUS
#define MAX_CPUS 64
#endif

#define ROUND_NS             10000000UL /* all runnable units of a queue have run once */
#define TICK_NS              1000000UL  /* a woken unit within its rights waits no longer */
#define CAP_PERIOD_NS        10000000UL /* budgets are filled up once in this time */
#define WEIGHT_DEFAULT       256
#define WEIGHT_MAX           65535
#define RATELIMIT_DEFAULT_US 500
#define SLICE_MIN_NS         100000UL /* when there is no rate limit */

/* ---- tree.c: a balanced tree inside the things it orders ---------------------------------------
 */
struct tree_node {
    struct tree_node *left, *right, *parent;
    uint64_t key; /* compared as a difference: it may wrap */
    int height;
};
struct tree {
    struct tree_node *root, *first;
};
/* Equal keys stay in the order of insertion. Both return the number of nodes looked at. */
unsigned tree_insert(struct tree *t, struct tree_node *n);
unsigned tree_remove(struct tree *t, struct tree_node *n);
/* n, whose links are NULL, becomes the only node of a tree; is it that? */
static inline void tree_plant(struct tree *t, struct tree_node *n)
{
    n->height = 1;
    t->root = t->first = n;
}
static inline bool tree_is_alone(const struct tree *t, const struct tree_node *n)
{
    return t->root == n && n->height == 1;
}
/* The node after n in order, or NULL. */
struct tree_node *tree_next(const struct tree_node *n);

/* ---- structures
 * ---------------------------------------------------------------------------------- */
/* What a domain's units have in common: weight, and with a cap the time that is left. */
struct sched_share {
    spinlock_t lock;        /* the rest; inside a queue's lock */
    uint32_t weight;        /* 1..65535, of each unit */
    uint32_t cap;           /* percent of one pCPU for all units together; 0 none */
    int64_t budget_ns;      /* below 0: debt */
    uint64_t period_end_ns; /* when the budget is filled up next; 0 not begun */
    struct list parked;     /* of unit->park_link: runnable, waiting for budget */
};

/* A vCPU as the scheduler sees it. Guarded by the lock of the queue of pCPU `cpu`. */
struct sched_unit {
    struct tree_node node; /* while queued */
    struct sched_share *share;
    unsigned cpu; /* runs, waits, or ran last there */
    bool running, queued, parked, handed;
    bool yielded;
    bool answered;         /* went before its answerer (sched_hand_over) until its turn ends */
    bool pinned;           /* may run on one pCPU only */
    uint32_t weight;       /* as counted in the queue's */
    uint64_t vtime;        /* while not queued */
    uint64_t run_start_ns; /* of this turn */
    uint64_t charged_ns;   /* running: charged up to here */
    uint64_t slice_end_ns; /* running: others may have the pCPU from then on */
    int64_t claim_ns;      /* running with a cap: taken from the budget and not used yet */
    struct list park_link; /* share->lock */
    uint64_t hard[MAX_CPUS / 64], soft[MAX_CPUS / 64]; /* affinity, as set */
    uint64_t prefer[MAX_CPUS / 64]; /* both; where they do not meet, the hard one */
};

struct run_queue {
    spinlock_t lock;
    struct tree movable, pinned; /* waiting units */
    unsigned count;              /* of both */
    struct sched_unit *curr;
    struct sched_unit *handed; /* woken, and looked at by the decision that comes at once */
    uint64_t weight;           /* of waiting and running units */
    uint64_t clock;
    uint64_t base;                            /* a node's key is its virtual time less this */
    uint64_t next_balance_ns;                 /* not before */
    uint64_t decide_ns;                       /* sched_hook_decide_at was called for; TIME_NEVER */
    uint64_t decisions, steps, steals, pulls; /* counters; steps: nodes and queues looked at */
    unsigned cpu;                             /* whose queue it is */
    uint32_t random;
    bool surplus; /* in the set of queues with waiting units that others may take */
};

enum unit_state { UNIT_STOPPED, UNIT_WAITING, UNIT_RUNNING };

/* ---- hooks: the hypervisor's or the simulator's
 * --------------------------------------------------- */
/* u's state changed. Under its queue's lock. */
void sched_hook_state(struct sched_unit *u, enum unit_state state, uint64_t now);
/* Call share_release at `when`. Under a queue's and the share's lock. */
void sched_hook_release_at(struct sched_share *s, uint64_t when);
/* Make pCPU `cpu` call sched_next at `when`, at once when that is not after now; what was asked for
 * a later time may be forgotten. sched_due before the call if it was not at once. Under a queue's
 * lock. */
void sched_hook_decide_at(unsigned cpu, uint64_t when, uint64_t now);
/* The queue of a pCPU below nr_cpus. */
struct run_queue *sched_hook_queue(unsigned cpu);
extern unsigned nr_cpus;

/* ---- runq.c: one queue. The caller holds its lock
 * ---------------------------------------------------- */
extern uint64_t sched_ratelimit_ns; /* no unit loses its pCPU to a woken one before; 0 no limit */

void share_init(struct sched_share *s);
void unit_init(struct sched_unit *u, struct sched_share *s);
/* Affinity; the hard one holds one of the nr_cpus at least. u is not queued. */
void unit_set_affinity(struct sched_unit *u, const uint64_t *hard, const uint64_t *soft);
static inline bool unit_allowed(const struct sched_unit *u, unsigned cpu)
{
    return u->hard[cpu / 64] >> (cpu % 64) & 1;
}
static inline bool unit_prefers(const struct sched_unit *u, unsigned cpu)
{
    return u->prefer[cpu / 64] >> (cpu % 64) & 1;
}

void runq_init(struct run_queue *rq, unsigned cpu);
/* Queue u, which keeps its virtual time. */
void runq_insert(struct run_queue *rq, struct sched_unit *u);
void runq_remove(struct run_queue *rq, struct sched_unit *u);
/* Bring u's virtual time into the range of this queue, which it joins from one with clock `from`
 * (its own: no change but that a sleeper saves up no more than a bounded bonus). */
void runq_admit(struct run_queue *rq, struct sched_unit *u, uint64_t from, bool slept);
/* Take the best waiting unit and make it current until its slice_end_ns; NULL when none waits that
 * has budget: those that have none are parked. */
struct sched_unit *runq_pick(struct run_queue *rq, uint64_t now);
/* The current unit stops; its time is charged. Not queued again. */
void runq_put(struct run_queue *rq, uint64_t now);
/* When the queue must decide next, as it is now: at once (now), or a time; TIME_NEVER when it is
 * empty. Shortens the current unit's slice for those that wait. */
uint64_t runq_next_decision(struct run_queue *rq, uint64_t now);
/* Charge the current unit and move the clock on, as of now. */
void runq_update(struct run_queue *rq, uint64_t now);
/* Shift the queue in virtual time, so that its clock is `clock`. */
void runq_set_clock(struct run_queue *rq, uint64_t clock);
/* u's weight is the share's again; u is not queued. */
void runq_reweigh(struct run_queue *rq, struct sched_unit *u, uint64_t now);
/* Virtual time in which a queue of that weight runs for ns. */
uint64_t vtime_of(uint64_t ns, uint64_t weight);

/* Fill the budget up when its time has come, and take one parked unit off the list; NULL when there
 * is none or no budget: then, if units wait, sched_hook_release_at was called. No queue's lock is
 * held. The caller hands the unit to sched_unpark. */
struct sched_unit *share_release(struct sched_share *s, uint64_t now);

/* ---- balance.c: between queues. The caller holds no queue's lock
 * ------------------------------------ */
typedef bool runnable_fn(const struct sched_unit *u);

/* Make u waiting somewhere it may run, unless `runnable`, asked under its lock, says no, or it
 * waits, runs or is parked already. */
void sched_wake(struct sched_unit *u, runnable_fn *runnable, uint64_t now);
/* The same for u that waited for what the current unit of rq, this pCPU's queue, has now done for
 * it, if it is to wait in rq: true. Then the caller has sched_next called at once: u takes the pCPU
 * when it is behind in virtual time, for no longer than the rate limit: then the other goes on.
 * False: nothing was done. */
bool sched_hand_over(struct sched_unit *u, struct run_queue *rq, runnable_fn *runnable);
/* u came from share_release: it may run again. */
void sched_unpark(struct sched_unit *u, runnable_fn *runnable, uint64_t now);
/* u, when not `runnable`, waits no longer, and its pCPU is poked when it runs. */
void sched_sleep(struct sched_unit *u, runnable_fn *runnable, uint64_t now);
/* u leaves for good; it does not run. */
void sched_forget(struct sched_unit *u, uint64_t now);
/* Its share's weight or cap, or its affinity (NULL: as it is) changed. */
void sched_changed(struct sched_unit *u, const uint64_t *hard, const uint64_t *soft,
                   runnable_fn *runnable, uint64_t now);
/* The pCPU's current unit lets others go first once. */
void sched_yield_cpu(unsigned cpu, uint64_t now);
/* Decide for rq's pCPU, its own loop only. Returns who runs now, until slice_end_ns (the same as
 * before when nothing changes), NULL to idle: then wake-ups and surplus units are sent here. */
struct sched_unit *sched_next(struct run_queue *rq, runnable_fn *runnable, uint64_t now);
/* A time that sched_hook_decide_at gave has come; sched_next follows. */
void sched_due(struct run_queue *rq);
/* A pCPU for a new unit: the one with least weight in its affinity. O(pCPUs). */
unsigned sched_place_new(const struct sched_unit *u);
/* Forget which pCPUs are idle: before the first of them decides (the simulator starts over). */
void balance_reset(void);
