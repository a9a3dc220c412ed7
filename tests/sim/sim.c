/* sim.c: a discrete-event simulator around vmm/core/runq.c, balance.c and tree.c. */
#include "sim.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum event_kind { EVENT_DECIDE, EVENT_BLOCK, EVENT_WAKE, EVENT_RELEASE };
struct event {
    uint64_t when, order;
    enum event_kind kind;
    unsigned index, generation;
};
struct sim_cpu {
    struct run_queue rq;
    unsigned generation;
    bool raised;
};

struct sim_stats sim_stats;
struct sim_task *sim_tasks;
unsigned sim_nr_tasks, nr_cpus;
uint64_t sim_now;
static struct sim_cpu *sim_cpus;
static struct sched_share *shares;
static uint64_t *release_at;
static unsigned nr_shares, max_tasks, max_shares;
static struct event *heap;
static size_t nr_events, room;
static uint64_t orders;

/* ---- events: a binary heap, first come first served at equal times
 * ------------------------------- */
static bool earlier(const struct event *a, const struct event *b)
{
    return a->when != b->when ? a->when < b->when : a->order < b->order;
}

static void push(uint64_t when, enum event_kind kind, unsigned index, unsigned generation)
{
    if (nr_events == room) {
        room = room ? 2 * room : 1024;
        heap = realloc(heap, room * sizeof(*heap));
        assert(heap);
    }
    struct event e = {when, orders++, kind, index, generation};
    size_t i = nr_events++;
    for (; i && earlier(&e, &heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = e;
}

static struct event pop(void)
{
    struct event first = heap[0], last = heap[--nr_events];
    size_t i = 0, c;
    while ((c = 2 * i + 1) < nr_events) {
        c += c + 1 < nr_events && earlier(&heap[c + 1], &heap[c]);
        if (!earlier(&heap[c], &last))
            break;
        heap[i] = heap[c];
        i = c;
    }
    heap[i] = last;
    return first;
}

/* ---- what the scheduler asks for
 * ------------------------------------------------------------------- */
static struct sim_task *task_of(struct sched_unit *u)
{
    return container_of(u, struct sim_task, unit);
}

static bool runnable(const struct sched_unit *u)
{
    return task_of((struct sched_unit *)u)->runnable;
}

struct run_queue *sched_hook_queue(unsigned cpu)
{
    return &sim_cpus[cpu].rq;
}

void sched_hook_decide_at(unsigned cpu, uint64_t when, uint64_t now)
{
    struct sim_cpu *c = &sim_cpus[cpu];
    if (when <= now) {
        if (!c->raised)
            push(now, EVENT_DECIDE, cpu, ~0u);
        c->raised = true;
    } else {
        push(when, EVENT_DECIDE, cpu, ++c->generation);
    }
}

void sched_hook_release_at(struct sched_share *s, uint64_t when)
{
    if (s < shares || s >= shares + nr_shares)
        return; /* a test's own */
    unsigned i = (unsigned)(s - shares);
    if (release_at[i] != when)
        push(when, EVENT_RELEASE, i, 0);
    release_at[i] = when;
}

static void record_latency(struct sim_task *t, uint64_t now)
{
    uint64_t ns = now - t->woken_ns;
    sim_stats.wakes++;
    sim_stats.wake_sum_ns += ns;
    sim_stats.wake_max_ns = MAX(sim_stats.wake_max_ns, ns);
    sim_stats.wake_bucket[ns ? 64 - __builtin_clzll(ns) : 0]++;
    t->woken_ns = 0;
}

void sched_hook_state(struct sched_unit *u, enum unit_state state, uint64_t now)
{
    struct sim_task *t = task_of(u);
    if (t->state == UNIT_RUNNING) {
        t->ran_ns += now - t->since_ns;
        t->burst_left_ns -= MIN(t->burst_left_ns, now - t->since_ns);
        t->generation++;
    }
    if (state == UNIT_WAITING && t->state == UNIT_STOPPED)
        t->woken_ns = now;
    if (state == UNIT_RUNNING) {
        if (t->woken_ns)
            record_latency(t, now);
        if (t->burst_ns)
            push(now + t->burst_left_ns, EVENT_BLOCK, (unsigned)(t - sim_tasks), t->generation);
    }
    t->state = state;
    t->since_ns = now;
}

/* ---- running
 * ------------------------------------------------------------------------------------------ */
static void decide(unsigned cpu)
{
    sched_next(&sim_cpus[cpu].rq, runnable, sim_now);
}

static void handle(const struct event *e)
{
    struct sim_task *t = &sim_tasks[e->index];
    struct sim_cpu *c = &sim_cpus[e->index];
    struct sched_unit *u;
    switch (e->kind) {
    case EVENT_DECIDE:
        if (e->generation == ~0u)
            c->raised = false;
        else if (e->generation == c->generation)
            sched_due(&c->rq);
        else
            return;
        decide(e->index);
        return;
    case EVENT_BLOCK:
        if (e->generation != t->generation)
            return;
        t->runnable = false;
        t->burst_left_ns = t->burst_ns;
        decide(t->unit.cpu);
        push(sim_now + t->sleep_ns, EVENT_WAKE, e->index, 0);
        return;
    case EVENT_WAKE:
        t->runnable = true;
        sched_wake(&t->unit, runnable, sim_now);
        return;
    case EVENT_RELEASE:
        release_at[e->index] = 0;
        while ((u = share_release(&shares[e->index], sim_now)))
            sched_unpark(u, runnable, sim_now);
        return;
    }
}

void sim_run(uint64_t ns)
{
    uint64_t end = sim_now + ns;
    clock_t start = clock();
    while (nr_events && heap[0].when <= end) {
        struct event e = pop();
        assert(e.when >= sim_now);
        sim_now = e.when;
        handle(&e);
    }
    sim_stats.host_ns += (uint64_t)(clock() - start) * NS_PER_SEC / CLOCKS_PER_SEC;
    sim_now = end;
    for (unsigned i = 0; i < sim_nr_tasks; i++) {
        struct sim_task *t = &sim_tasks[i];
        if (t->state == UNIT_RUNNING) {
            t->ran_ns += end - t->since_ns;
            t->burst_left_ns -= MIN(t->burst_left_ns, end - t->since_ns);
            t->since_ns = end;
        }
    }
    sim_stats.decisions = sim_stats.steps = sim_stats.steals = sim_stats.pulls = 0;
    for (unsigned i = 0; i < nr_cpus; i++) {
        const struct run_queue *rq = &sim_cpus[i].rq;
        sim_stats.decisions += rq->decisions;
        sim_stats.steps += rq->steps;
        sim_stats.steals += rq->steals;
        sim_stats.pulls += rq->pulls;
    }
}

void sim_forget(void)
{
    sim_stats = (struct sim_stats){0};
    for (unsigned i = 0; i < nr_cpus; i++) {
        struct run_queue *rq = &sim_cpus[i].rq;
        rq->decisions = rq->steps = rq->steals = rq->pulls = 0;
    }
    for (unsigned i = 0; i < sim_nr_tasks; i++)
        sim_tasks[i].ran_ns = 0;
}

void sim_reset(unsigned cpus, unsigned tasks, unsigned nshares)
{
    free(sim_cpus);
    free(sim_tasks);
    free(shares);
    free(release_at);
    sim_cpus = calloc(cpus, sizeof(*sim_cpus));
    sim_tasks = calloc(tasks, sizeof(*sim_tasks));
    shares = calloc(nshares, sizeof(*shares));
    release_at = calloc(nshares, sizeof(*release_at));
    assert(sim_cpus && sim_tasks && shares && release_at && cpus <= MAX_CPUS);
    nr_cpus = cpus;
    max_tasks = tasks;
    max_shares = nshares;
    sim_nr_tasks = nr_shares = 0;
    nr_events = 0;
    sim_now = NS_PER_SEC;
    balance_reset();
    for (unsigned i = 0; i < cpus; i++) {
        runq_init(&sim_cpus[i].rq, i);
        decide(i);
    }
    sim_forget();
}

struct sched_share *sim_share(uint32_t weight, uint32_t cap)
{
    assert(nr_shares < max_shares);
    struct sched_share *s = &shares[nr_shares++];
    share_init(s);
    s->weight = weight;
    s->cap = cap;
    return s;
}

struct sim_task *sim_task(struct sched_share *s, uint64_t burst, uint64_t sleep, uint64_t start)
{
    assert(sim_nr_tasks < max_tasks);
    struct sim_task *t = &sim_tasks[sim_nr_tasks];
    unit_init(&t->unit, s);
    t->unit.cpu = sim_nr_tasks++ % nr_cpus;
    t->burst_ns = t->burst_left_ns = burst;
    t->sleep_ns = sleep;
    push(sim_now + start, EVENT_WAKE, (unsigned)(t - sim_tasks), 0);
    return t;
}

void sim_pin(struct sim_task *t, const uint64_t *hard, const uint64_t *soft)
{
    sched_changed(&t->unit, hard, soft, runnable, sim_now);
}

void sim_set_share(struct sched_share *s, uint32_t weight, uint32_t cap)
{
    struct sched_unit *u;
    s->weight = weight;
    s->cap = cap;
    for (unsigned i = 0; i < sim_nr_tasks; i++) {
        if (sim_tasks[i].unit.share == s)
            sched_changed(&sim_tasks[i].unit, NULL, NULL, runnable, sim_now);
    }
    while (!cap && (u = share_release(s, sim_now)))
        sched_unpark(u, runnable, sim_now);
}

void sim_stop(struct sim_task *t)
{
    t->runnable = false;
    sched_sleep(&t->unit, runnable, sim_now);
}

void sim_wake(struct sim_task *t)
{
    t->runnable = true;
    sched_wake(&t->unit, runnable, sim_now);
}

void sim_answer(struct sim_task *t, const struct sim_task *by)
{
    t->runnable = true;
    unsigned cpu = by->unit.cpu;
    if (sched_hand_over(&t->unit, &sim_cpus[cpu].rq, runnable))
        sched_hook_decide_at(cpu, sim_now, sim_now);
    else
        sched_wake(&t->unit, runnable, sim_now);
}

/* ---- judging
 * --------------------------------------------------------------------------------------------- */
void sim_ideal(uint64_t ns)
{
    double cpus = nr_cpus, weight = 0;
    bool changed = true;
    for (unsigned i = 0; i < sim_nr_tasks; i++) {
        sim_tasks[i].ideal_ns = -1;
        weight += sim_tasks[i].unit.share->weight;
    }
    while (
        changed) { /* those that want less than their share get that, the others share the rest */
        changed = false;
        for (unsigned i = 0; i < sim_nr_tasks; i++) {
            struct sim_task *t = &sim_tasks[i];
            double w = t->unit.share->weight, want = 1;
            if (t->burst_ns)
                want = (double)t->ran_ns / (double)ns;
            if (t->ideal_ns < 0 && w * cpus >= want * weight) {
                t->ideal_ns = (double)ns * want;
                cpus -= want;
                weight -= w;
                changed = true;
            }
        }
    }
    for (unsigned i = 0; i < sim_nr_tasks; i++) {
        if (sim_tasks[i].ideal_ns < 0)
            sim_tasks[i].ideal_ns = (double)ns * cpus * sim_tasks[i].unit.share->weight / weight;
    }
}

uint64_t sim_wake_quantile(double part)
{
    double want = part * (double)sim_stats.wakes, seen = 0;
    for (unsigned i = 0; i < 64; i++) {
        seen += (double)sim_stats.wake_bucket[i];
        if (seen >= want)
            return 1ULL << i;
    }
    return TIME_NEVER;
}

static int check_tree(const struct tree_node *n, const struct tree_node *parent, unsigned *count,
                      uint64_t *weight)
{
    if (!n)
        return 0;
    assert(n->parent == parent);
    int l = check_tree(n->left, n, count, weight), r = check_tree(n->right, n, count, weight);
    assert(l - r >= -1 && l - r <= 1 && n->height == 1 + MAX(l, r));
    assert(!n->left || (int64_t)(n->left->key - n->key) <= 0);
    assert(!n->right || (int64_t)(n->right->key - n->key) >= 0);
    *count += 1;
    *weight += container_of(n, struct sched_unit, node)->weight;
    return n->height;
}

void sim_check(void)
{
    for (unsigned i = 0; i < nr_cpus; i++) {
        struct run_queue *rq = &sim_cpus[i].rq;
        unsigned count = 0;
        uint64_t weight = rq->curr ? rq->curr->weight : 0;
        check_tree(rq->movable.root, NULL, &count, &weight);
        check_tree(rq->pinned.root, NULL, &count, &weight);
        assert(count == rq->count && weight == rq->weight);
        assert(!rq->curr || (rq->curr->running && rq->curr->cpu == i && unit_allowed(rq->curr, i)));
        assert(!spin_is_locked(&rq->lock));
        assert(rq->curr || !rq->count ||
               sim_cpus[i].raised); /* no pCPU idles before a waiting unit */
    }
}
