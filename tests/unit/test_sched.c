/* sources: vmm/core/runq.c vmm/core/balance.c vmm/core/tree.c tests/sim/sim.c */
/* libs: -lm */
/* test_sched.c: the scheduler under simulated time: shares by weight, caps, latency, affinity, and
 * that the cost of a decision depends on no sleeper. The sizes are scaled to seconds; `make
 * bench-sched` goes to 4,096 pCPUs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "../sim/sim.h"

#define PERCENT_OF_CPU (NS_PER_SEC / 100) /* in a second */

static const uint32_t weights[] = {256, 512, 128, 1024};
static uint64_t only[MAX_CPUS / 64][1], all = ~0ULL;

static const uint64_t *cpu_mask(unsigned cpu)
{
    only[0][0] = 1ULL << cpu;
    return only[0];
}

/* Run a second to settle and one to count. */
static void settle_and_run(void)
{
    sim_run(NS_PER_SEC);
    sim_forget();
    sim_run(NS_PER_SEC);
    sim_check();
}

/* Every task had its share within a percent of a pCPU, and the tasks of each share together within
 * a percent of what is theirs. */
static void assert_fair(void)
{
    sim_ideal(NS_PER_SEC);
    for (unsigned i = 0; i < sim_nr_tasks; i++) {
        const struct sim_task *t = &sim_tasks[i];
        double got = 0, ideal = 0;
        assert_true(fabs((double)t->ran_ns - t->ideal_ns) <= PERCENT_OF_CPU);
        for (unsigned j = 0; j < sim_nr_tasks; j++) {
            if (sim_tasks[j].unit.share == t->unit.share) {
                got += (double)sim_tasks[j].ran_ns;
                ideal += sim_tasks[j].ideal_ns;
            }
        }
        assert_true(fabs(got - ideal) <= ideal / 100);
    }
}

static void hogs(unsigned cpus, unsigned n, unsigned nr_weights)
{
    struct sched_share *s[4];
    srand(cpus * 1000 + n);
    sim_reset(cpus, n, 4);
    for (unsigned i = 0; i < 4; i++)
        s[i] = sim_share(weights[i], 0);
    for (unsigned i = 0; i < n; i++)
        sim_task(s[i % nr_weights], 0, 0, (uint64_t)rand() % NS_PER_MS);
    settle_and_run();
    assert_fair();
}

static void shares_follow_weights(void **state)
{
    (void)state;
    hogs(1, 2, 2);
    hogs(1, 10, 4);
    hogs(1, 20, 1);
    hogs(2, 3, 1); /* takes turns on two pCPUs */
    hogs(2, 3, 2);
    hogs(3, 7, 3);
    hogs(4, 10, 4);
    hogs(16, 100, 4);
    hogs(64, 100, 4);
    hogs(64, 600, 4);
}

/* Ratios to 65535:1 hold as far as a least slice allows; nobody starves. */
static void extreme_weights(void **state)
{
    (void)state;
    sim_reset(1, 3, 3);
    struct sim_task *least = sim_task(sim_share(1, 0), 0, 0, 0);
    struct sim_task *most = sim_task(sim_share(WEIGHT_MAX, 0), 0, 0, 0);
    sim_run(NS_PER_SEC);
    sim_forget();
    sim_run(200 * NS_PER_SEC);
    assert_true(most->ran_ns > 199 * NS_PER_SEC);
    assert_true(least->ran_ns > 0 && least->ran_ns < 20 * NS_PER_MS);
}

/* A weight that changes while all run takes effect at once. */
static void weight_changes(void **state)
{
    (void)state;
    sim_reset(1, 2, 2);
    struct sched_share *s = sim_share(256, 0);
    struct sim_task *a = sim_task(s, 0, 0, 0), *b = sim_task(sim_share(256, 0), 0, 0, 0);
    sim_run(NS_PER_SEC);
    sim_set_share(s, 768, 0);
    sim_forget();
    sim_run(NS_PER_SEC);
    assert_true(fabs((double)a->ran_ns - 0.75 * NS_PER_SEC) <= PERCENT_OF_CPU);
    assert_true(fabs((double)b->ran_ns - 0.25 * NS_PER_SEC) <= PERCENT_OF_CPU);
    sim_set_share(s, 1, 0); /* each slice now is worth 500 ms of the other's */
    sim_run(NS_PER_SEC);
    sim_set_share(s, 256, 0);
    sim_forget();
    sim_run(NS_PER_SEC);
    assert_true(fabs((double)a->ran_ns - 0.5 * NS_PER_SEC) <= PERCENT_OF_CPU);
    sim_check();
}

static void caps_hold(void **state)
{
    (void)state;
    for (uint32_t cap = 1; cap <= 400; cap += cap < 100 ? 7 : 83) {
        sim_reset(4, 6, 2);
        struct sched_share *s = sim_share(256, cap);
        uint64_t got = 0;
        for (unsigned i = 0; i < 4; i++)
            sim_task(s, 0, 0, i * NS_PER_MS);
        settle_and_run();
        for (unsigned i = 0; i < 4; i++)
            got += sim_tasks[i].ran_ns;
        assert_true(fabs((double)got - cap * (double)PERCENT_OF_CPU) <= PERCENT_OF_CPU);
    }
}

/* Time used beyond the budget, when a pCPU decided late, is paid back. */
static void debt_is_paid(void **state)
{
    struct run_queue rq;
    struct sched_share s;
    struct sched_unit u;
    uint64_t now = NS_PER_SEC, ran = 0;
    (void)state;
    sim_reset(1, 1, 1);
    runq_init(&rq, 0);
    share_init(&s);
    s.cap = 20;
    unit_init(&u, sim_share(256, 0));
    u.share = &s;
    for (unsigned i = 0; i < 10000; i++, now += NS_PER_MS / 10) {
        if (!u.running && (!u.parked || share_release(&s, now))) {
            u.parked = false;
            runq_insert(&rq, &u);
            runq_pick(&rq, now);
        } else if (u.running && now >= u.slice_end_ns + NS_PER_MS * 7 / 10) { /* late */
            ran += now - u.run_start_ns;
            runq_put(&rq, now);
        }
    }
    assert_true(fabs((double)ran - 0.2 * NS_PER_SEC) <= PERCENT_OF_CPU);
}

/* A capped domain among others: its cap or its weight, whichever gives less; without the cap, all.
 */
static void caps_change(void **state)
{
    (void)state;
    sim_reset(1, 2, 2);
    struct sched_share *s = sim_share(1024, 30);
    struct sim_task *a = sim_task(s, 0, 0, 0), *b = sim_task(sim_share(256, 0), 0, 0, 0);
    settle_and_run();
    assert_true(fabs((double)a->ran_ns - 0.3 * NS_PER_SEC) <= PERCENT_OF_CPU);
    assert_true(fabs((double)b->ran_ns - 0.7 * NS_PER_SEC) <= PERCENT_OF_CPU);
    sim_set_share(s, 1024, 0);
    settle_and_run();
    assert_true(fabs((double)a->ran_ns - 0.8 * NS_PER_SEC) <= PERCENT_OF_CPU);
    sim_set_share(s, 1024, 10);
    settle_and_run();
    assert_true(fabs((double)a->ran_ns - 0.1 * NS_PER_SEC) <= PERCENT_OF_CPU);
    sim_stop(b);
    settle_and_run();
    assert_true(fabs((double)a->ran_ns - 0.1 * NS_PER_SEC) <= PERCENT_OF_CPU);
}

/* I/O tasks (50 us of each 10 ms) between 10 computing ones a pCPU: no wake-up waits longer than a
 * tick, and what is left is shared out by weight. */
static void woken_run_within_a_tick(void **state)
{
    (void)state;
    srand(7);
    sim_reset(8, 112, 2);
    struct sched_share *s = sim_share(256, 0), *io = sim_share(256, 0);
    for (unsigned i = 0; i < 80; i++)
        sim_task(s, 0, 0, (uint64_t)rand() % NS_PER_MS);
    for (unsigned i = 0; i < 32; i++)
        sim_task(io, 50 * NS_PER_US, 9950 * NS_PER_US, (uint64_t)rand() % (10 * NS_PER_MS));
    settle_and_run();
    assert_true(sim_stats.wakes > 3000);
    assert_true(sim_stats.wake_max_ns <= TICK_NS);
    assert_fair();
    sim_reset(1, 2, 1); /* one that computes, whose slice is long */
    s = sim_share(256, 0);
    sim_task(s, 0, 0, 0);
    sim_task(s, 50 * NS_PER_US, 2950 * NS_PER_US, 0);
    settle_and_run();
    assert_true(sim_stats.wakes >= 250);
    assert_true(sim_stats.wake_max_ns <= TICK_NS);
}

/* Who sleeps for long saves up no more than a millisecond. */
static void sleepers_do_not_hoard(void **state)
{
    (void)state;
    sim_reset(1, 2, 1);
    struct sched_share *s = sim_share(256, 0);
    struct sim_task *a = sim_task(s, 0, 0, 0), *b = sim_task(s, 0, 0, 0);
    sim_run(NS_PER_SEC);
    sim_stop(b);
    sim_run(10 * NS_PER_SEC);
    sim_wake(b);
    sim_forget();
    sim_run(100 * NS_PER_MS);
    assert_true(b->ran_ns >= 50 * NS_PER_MS && b->ran_ns <= 57 * NS_PER_MS);
    assert_true(a->ran_ns + b->ran_ns == 100 * NS_PER_MS);
}

/* A pCPU's clock goes back when an empty queue takes in a unit from a queue that is behind: who
 * slept there meanwhile has its share all the same. */
static void sleepers_survive_a_clock_set_back(void **state)
{
    (void)state;
    sim_reset(2, 2, 1);
    struct sched_share *s = sim_share(256, 0);
    struct sim_task *sleeper = sim_task(s, 0, 0, 0), *late = sim_task(s, 0, 0, 0);
    sim_pin(sleeper, cpu_mask(1), NULL);
    sim_pin(late, cpu_mask(0), NULL);
    sim_run(NS_PER_MS);
    sim_stop(late);
    sim_run(10 * NS_PER_SEC);
    sim_stop(sleeper);
    sim_wake(late);
    sim_run(100 * NS_PER_MS);
    sim_pin(late, cpu_mask(1), NULL); /* pCPU 1 is idle: it takes the clock of pCPU 0 */
    sim_run(100 * NS_PER_MS);
    sim_wake(sleeper);
    sim_forget();
    sim_run(100 * NS_PER_MS);
    assert_true(sleeper->ran_ns >= 40 * NS_PER_MS && sleeper->ran_ns <= 60 * NS_PER_MS);
}

/* No pCPU idles while one that may run there waits. */
static void idle_pcpus_take_work(void **state)
{
    (void)state;
    sim_reset(4, 4, 1);
    struct sched_share *s = sim_share(256, 0);
    for (unsigned i = 0; i < 4; i++) {
        sim_task(s, 0, 0, 0);
        sim_pin(&sim_tasks[i], cpu_mask(0), NULL);
    }
    sim_run(NS_PER_SEC);
    for (unsigned i = 0; i < 4; i++)
        assert_true(fabs((double)sim_tasks[i].ran_ns - 0.25 * NS_PER_SEC) <= PERCENT_OF_CPU);
    sim_check();
    for (unsigned i = 0; i < 4; i++)
        sim_pin(&sim_tasks[i], &all, NULL);
    sim_run(20 * NS_PER_MS);
    sim_forget();
    sim_run(NS_PER_SEC);
    for (unsigned i = 0; i < 4; i++)
        assert_true(sim_tasks[i].ran_ns >= NS_PER_SEC - PERCENT_OF_CPU);
    sim_check();
}

/* Hard affinity holds whatever else is idle; soft affinity is a wish. */
static void affinity(void **state)
{
    (void)state;
    sim_reset(2, 3, 1);
    struct sched_share *s = sim_share(256, 0);
    struct sim_task *a = sim_task(s, 0, 0, 0), *b = sim_task(s, 0, 0, 0), *c;
    sim_run(NS_PER_MS);
    sim_pin(a, cpu_mask(1), NULL); /* moved while it runs */
    sim_pin(b, cpu_mask(1), NULL);
    settle_and_run();
    assert_int_equal(a->unit.cpu, 1);
    assert_int_equal(b->unit.cpu, 1);
    assert_true(fabs((double)a->ran_ns - 0.5 * NS_PER_SEC) <= PERCENT_OF_CPU);
    sim_pin(b, &all, cpu_mask(1)); /* rather 1, but 0 is idle */
    settle_and_run();
    assert_true(b->ran_ns >= NS_PER_SEC - PERCENT_OF_CPU);
    assert_int_equal(b->unit.cpu, 0);
    sim_stop(a); /* now 1 is free for it */
    sim_run(20 * NS_PER_MS);
    assert_int_equal(b->unit.cpu, 1);
    c = sim_task(s, 0, 0, 0);
    settle_and_run();
    assert_int_equal(b->unit.cpu, 1);
    assert_true(b->ran_ns >= NS_PER_SEC - PERCENT_OF_CPU &&
                c->ran_ns >= NS_PER_SEC - PERCENT_OF_CPU);
    sim_pin(b, cpu_mask(0), cpu_mask(1)); /* where they do not meet, the hard one counts */
    settle_and_run();
    assert_int_equal(b->unit.cpu, 0);
    assert_true(c->ran_ns >= NS_PER_SEC - PERCENT_OF_CPU);
}

/* A unit that yields lets another run, though it be its turn still. */
static void yield(void **state)
{
    (void)state;
    sim_reset(1, 2, 2);
    struct sim_task *a = sim_task(sim_share(1024, 0), 0, 0, 0);
    struct sim_task *b = sim_task(sim_share(256, 0), 0, 0, 0);
    sim_run(NS_PER_SEC);
    for (unsigned i = 0; i < 1000; i++) {
        struct sim_task *was = a->state == UNIT_RUNNING ? a : b;
        sched_yield_cpu(0, sim_now);
        sim_run(0);
        assert_int_equal(was->state, UNIT_WAITING);
        sim_run(100 * NS_PER_US);
    }
    sim_stop(b);
    sched_yield_cpu(0, sim_now); /* alone: goes on */
    sim_run(NS_PER_MS);
    assert_int_equal(a->state, UNIT_RUNNING);
}

/* A device model that answers: the vCPU that waited goes first when it is behind, for no longer
 * than the rate limit; both have their share. */
static void answers_go_first(void **state)
{
    (void)state;
    sim_reset(1, 2, 1);
    struct sched_share *s = sim_share(256, 0);
    struct sim_task *model = sim_task(s, 0, 0, 0), *asks = sim_task(s, 0, 0, 0);
    sim_run(NS_PER_SEC);
    sim_stop(asks);
    for (unsigned i = 0; i < 100; i++) {
        sim_run(20 * NS_PER_US);
        assert_int_equal(model->state, UNIT_RUNNING);
        sim_answer(asks, model);
        sim_run(0);
        assert_int_equal(asks->state, UNIT_RUNNING);
        sim_run(NS_PER_US);
        sim_stop(asks);
        sim_run(0);
    }
    sim_answer(asks, model);
    sim_run(sched_ratelimit_ns - NS_PER_US);
    assert_int_equal(asks->state, UNIT_RUNNING);
    sim_run(2 * NS_PER_US);
    assert_int_equal(model->state, UNIT_RUNNING);
    settle_and_run();
    assert_true(fabs((double)asks->ran_ns - 0.5 * NS_PER_SEC) <= PERCENT_OF_CPU);
    sim_stop(model); /* who asks gets ahead */
    sim_run(5 * NS_PER_MS);
    sim_wake(model);
    sim_run(600 * NS_PER_US);
    assert_int_equal(model->state, UNIT_RUNNING);
    sim_stop(asks);
    sim_answer(asks, model);
    sim_run(0);
    assert_int_equal(model->state, UNIT_RUNNING);
}

/* A decision has just been taken, so that the next has no queues to even out. */
static void ask_once(struct sim_task *asks, struct sim_task *model)
{
    sim_answer(asks, model);
    sim_run(0);
    assert_int_equal(asks->state, UNIT_RUNNING);
    sim_stop(asks);
    sim_run(0);
    assert_int_equal(model->state, UNIT_RUNNING);
}

/* What may happen between an answer and the decision that follows it. */
static void answers_and_others(void **state)
{
    (void)state;
    sim_reset(2, 5, 2);
    struct sched_share *s = sim_share(256, 0), *capped = sim_share(256, 10);
    struct sim_task *model = sim_task(s, 0, 0, 0), *asks = sim_task(s, 0, 0, 0);
    struct sim_task *third = sim_task(s, 0, 0, 0), *poor = sim_task(capped, 0, 0, 0);
    struct sim_task *spends = sim_task(capped, 0, 0, 0);
    for (unsigned i = 0; i < 5; i++)
        sim_pin(&sim_tasks[i], cpu_mask(i == 4), &all);
    sim_run(NS_PER_MS);
    sim_stop(poor);
    sim_stop(spends);
    sim_run(NS_PER_SEC);
    sim_stop(third);
    sim_stop(asks);
    sim_run(5 * NS_PER_MS);
    ask_once(asks, model);

    sim_answer(asks, model); /* it may not run any more */
    sim_stop(asks);
    sim_run(0);
    assert_int_equal(asks->state, UNIT_STOPPED);
    assert_int_equal(model->state, UNIT_RUNNING);

    sim_answer(asks, model); /* it may not run here any more */
    sim_pin(asks, cpu_mask(1), &all);
    sim_run(0);
    assert_int_equal(asks->state, UNIT_RUNNING);
    assert_int_equal(asks->unit.cpu, 1);
    assert_int_equal(model->state, UNIT_RUNNING);
    sim_stop(asks);
    sim_pin(asks, cpu_mask(0), &all);
    sim_answer(asks, model); /* and comes back from there */
    sim_run(NS_PER_MS);
    assert_int_equal(asks->unit.cpu, 0);
    sim_stop(asks);
    sim_run(5 * NS_PER_MS);

    ask_once(asks, model);
    third->unit.vtime = model->unit.vtime;
    sim_answer(asks, model); /* the second of two answers is an ordinary wake-up */
    sim_answer(third, model);
    sim_run(0);
    assert_int_equal(asks->state, UNIT_RUNNING);
    assert_int_equal(third->state, UNIT_WAITING);
    sim_stop(third);
    sim_stop(asks);
    sim_run(5 * NS_PER_MS);

    ask_once(asks, model);
    sim_wake(third); /* who was as far behind and woke before is first */
    sim_answer(asks, model);
    sim_run(0);
    assert_int_equal(third->state, UNIT_RUNNING);
    assert_int_equal(asks->state, UNIT_WAITING);
    sim_stop(third);
    sim_stop(asks);
    sim_run(5 * NS_PER_MS);

    sim_wake(poor); /* a cap holds, and what was claimed and not used is given back */
    sim_run(NS_PER_SEC);
    sim_forget();
    for (unsigned i = 0; i < 1000; i++) {
        sim_stop(poor);
        sim_run(NS_PER_MS / 4);
        sim_answer(poor, model);
        sim_run(3 * NS_PER_MS / 4);
    }
    assert_true(fabs((double)poor->ran_ns - 10.0 * PERCENT_OF_CPU) <= PERCENT_OF_CPU);
    sim_stop(poor);
    sim_run(20 * NS_PER_MS);
    sim_wake(spends);
    sim_run(5 * NS_PER_MS);
    assert_true(spends->unit.parked);
    ask_once(asks, model);
    sim_answer(poor, model);
    sim_run(0);
    assert_int_equal(model->state, UNIT_RUNNING);
    sim_stop(spends);
    sim_stop(poor);

    sim_pin(asks, &all, &all); /* an idle pCPU is better than the answerer's */
    sim_run(5 * NS_PER_MS);
    asks->unit.cpu = 0;
    sim_answer(asks, model);
    sim_run(0);
    assert_int_equal(asks->state, UNIT_RUNNING);
    assert_int_equal(asks->unit.cpu, 1);
    assert_int_equal(model->state, UNIT_RUNNING);
    sim_check();
}

static double steps_per_decision(unsigned cpus, unsigned hogs_per_cpu, unsigned sleepers)
{
    srand(3);
    sim_reset(cpus, cpus * hogs_per_cpu + sleepers, 1);
    struct sched_share *s = sim_share(256, 0);
    for (unsigned i = 0; i < cpus * hogs_per_cpu; i++)
        sim_task(s, 0, 0, (uint64_t)rand() % NS_PER_MS);
    for (unsigned i = 0; i < sleepers; i++)
        sim_task(s, NS_PER_US, 1000 * NS_PER_SEC, (uint64_t)rand() % NS_PER_MS);
    settle_and_run();
    return (double)sim_stats.steps / (double)sim_stats.decisions;
}

/* Steps: tree nodes and queues looked at. */
static void cost_of_a_decision(void **state)
{
    (void)state;
    double few = steps_per_decision(2, 8, 0), with_sleepers = steps_per_decision(2, 8, 5000);
    assert_true(fabs(few - with_sleepers) <= 0.1 * few);
    /* 64 times the runnable ones: at most 6 levels more on the way in, out, and to the next. */
    assert_true(steps_per_decision(2, 512, 0) <= few + 3 * 6 * 1.45);
    assert_true(steps_per_decision(64, 8, 0) <= 1.5 * few);
}

/* The tree against an array: any order of insertions and removals. */
static void tree_keeps_order(void **state)
{
    static struct tree_node n[500];
    static bool in[500];
    struct tree t = {0};
    unsigned count = 0;
    (void)state;
    srand(1);
    for (unsigned i = 0; i < 20000; i++) {
        unsigned k = (unsigned)rand() % 500, seen = 0;
        uint64_t first = 0;
        bool any = false;
        if (in[k]) {
            assert_true(tree_remove(&t, &n[k]) <= 40);
        } else {
            n[k].key = (uint64_t)rand() % 300 - 150; /* wraps, and repeats */
            assert_true(tree_insert(&t, &n[k]) <= 40);
        }
        in[k] = !in[k];
        count = in[k] ? count + 1 : count - 1;
        if (i % 50)
            continue;
        for (struct tree_node *x = t.first, *next; x; x = next, seen++) {
            next = tree_next(x);
            assert_true(!next || (int64_t)(next->key - x->key) >= 0);
        }
        assert_int_equal(seen, count);
        for (unsigned j = 0; j < 500; j++) {
            if (in[j] && (!any || (int64_t)(n[j].key - first) < 0))
                first = n[j].key, any = true;
        }
        assert_true(!any || t.first->key == first);
        assert_true(!t.root || t.root->height <= 13);
    }
}

/* Who runs on pCPU cpu, or NULL. */
static struct sim_task *runs_on(unsigned cpu)
{
    for (unsigned i = 0; i < sim_nr_tasks; i++)
        if (sim_tasks[i].state == UNIT_RUNNING && sim_tasks[i].unit.cpu == cpu)
            return &sim_tasks[i];
    return NULL;
}

/* Whatever happens in whatever order, the queues stay consistent and nobody runnable is forgotten.
 */
static void random_operations(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 20; seed++) {
        srand(seed);
        sim_reset(1 + seed % 8, 60, 3);
        struct sched_share *s[3] = {sim_share(256, 0), sim_share(512, 0), sim_share(128, 70)};
        for (unsigned i = 0; i < 60; i++)
            sim_task(s[i % 3], i % 2 ? 300 * NS_PER_US : 0, 2 * NS_PER_MS,
                     (uint64_t)rand() % NS_PER_MS);
        for (unsigned i = 0; i < 3000; i++) {
            struct sim_task *t = &sim_tasks[(unsigned)rand() % 60];
            struct sim_task *by = runs_on(t->unit.cpu);
            uint64_t hard = (uint64_t)rand() | 1ULL << ((unsigned)rand() % nr_cpus),
                     soft = (uint64_t)rand();
            if (!t->burst_ns && !t->runnable && by && i % 3 == 0)
                sim_answer(t, by); /* and something else before the decision */
            if (i % 7 == 0)
                sim_pin(t, rand() % 2 ? &hard : &all, &soft);
            else if (i % 11 == 0)
                sim_set_share(s[2], 1 + (uint32_t)rand() % 2000, (uint32_t)rand() % 200);
            else if (i % 5 == 0)
                sched_yield_cpu((unsigned)rand() % nr_cpus, sim_now);
            else if (!t->burst_ns && t->runnable)
                sim_stop(t);
            else if (!t->burst_ns)
                sim_wake(t);
            sim_run((uint64_t)rand() % (NS_PER_MS / 2));
            sim_check();
        }
        sim_set_share(s[2], 128, 70);
        for (unsigned i = 0; i < 60; i++) {
            sim_pin(&sim_tasks[i], &all, &all);
            if (!sim_tasks[i].burst_ns)
                sim_wake(&sim_tasks[i]);
        }
        sim_forget();
        sim_run(2 * NS_PER_SEC);
        sim_check();
        for (unsigned i = 0; i < 60; i++)
            assert_true(sim_tasks[i].ran_ns > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tree_keeps_order),
        cmocka_unit_test(shares_follow_weights),
        cmocka_unit_test(extreme_weights),
        cmocka_unit_test(weight_changes),
        cmocka_unit_test(caps_hold),
        cmocka_unit_test(debt_is_paid),
        cmocka_unit_test(caps_change),
        cmocka_unit_test(woken_run_within_a_tick),
        cmocka_unit_test(sleepers_do_not_hoard),
        cmocka_unit_test(sleepers_survive_a_clock_set_back),
        cmocka_unit_test(idle_pcpus_take_work),
        cmocka_unit_test(affinity),
        cmocka_unit_test(yield),
        cmocka_unit_test(answers_go_first),
        cmocka_unit_test(answers_and_others),
        cmocka_unit_test(cost_of_a_decision),
        cmocka_unit_test(random_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
