/* bench.c: fairness, wake-up latency and cost per decision at growing sizes; one line of figures
 * each. `make bench-sched` makes docs/bench/sched.md and its charts of them.
 */
#include "sim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const uint32_t weights[] = {256, 512, 128, 1024};

/* Off the ideal: the worst task, in percent of a pCPU and of its own share; the worst weight class.
 */
struct unfair {
    double cpu, own, class;
};

static struct unfair judge(uint64_t ns)
{
    struct unfair f = {0};
    sim_ideal(ns);
    for (unsigned k = 0; k < 4; k++) {
        double got = 0, ideal = 0;
        for (unsigned i = 0; i < sim_nr_tasks; i++) {
            const struct sim_task *t = &sim_tasks[i];
            double off = fabs((double)t->ran_ns - t->ideal_ns);
            if (t->burst_ns || t->unit.share->weight != weights[k])
                continue;
            f.cpu = fmax(f.cpu, off * 100 / (double)NS_PER_SEC);
            f.own = fmax(f.own, off * 100 / t->ideal_ns);
            got += (double)t->ran_ns;
            ideal += t->ideal_ns;
        }
        if (ideal > 0)
            f.class = fmax(f.class, fabs(got - ideal) * 100 / ideal);
    }
    return f;
}

/* Tasks that compute for ever, ones that do I/O (50 us of each 10 ms), ones that sleep: on `cpus`.
 */
static void run(const char *what, unsigned cpus, unsigned hogs, unsigned io, unsigned sleepers)
{
    struct sched_share *s[5];
    srand(1);
    sim_reset(cpus, hogs + io + sleepers, 5);
    for (unsigned i = 0; i < 4; i++)
        s[i] = sim_share(weights[i], 0);
    s[4] = sim_share(WEIGHT_DEFAULT, 0);
    for (unsigned i = 0; i < hogs; i++)
        sim_task(s[i % 4], 0, 0, (uint64_t)rand() % NS_PER_MS);
    for (unsigned i = 0; i < io; i++)
        sim_task(s[4], 50 * NS_PER_US, 9950 * NS_PER_US, (uint64_t)rand() % (10 * NS_PER_MS));
    for (unsigned i = 0; i < sleepers; i++)
        sim_task(s[4], NS_PER_US, 1000 * NS_PER_SEC, (uint64_t)rand() % NS_PER_MS);
    sim_run((1 + hogs / cpus / 800) * NS_PER_SEC); /* a round of many takes longer */
    sim_forget();
    sim_run(NS_PER_SEC);
    sim_check();
    struct unfair f = judge(NS_PER_SEC);
    double decisions = (double)(sim_stats.decisions + sim_stats.wakes);
    printf("%s %u %u %u %u %.3f %.2f %.3f %.0f %.0f %.1f %.0f %.0f\n", what, cpus, hogs, io,
           sleepers, f.cpu, f.own, f.class, (double)sim_wake_quantile(0.99) / 1000,
           (double)sim_stats.wake_max_ns / 1000, (double)sim_stats.steps / decisions,
           (double)sim_stats.host_ns / decisions, (double)sim_stats.pulls);
    fflush(stdout);
}

/* Many on one pCPU, over so long that each had its turns: the distance stays what it is, a slice.
 */
static void long_run(unsigned hogs, unsigned seconds)
{
    struct sched_share *s[4];
    sim_reset(1, hogs, 4);
    for (unsigned i = 0; i < 4; i++)
        s[i] = sim_share(weights[i], 0);
    for (unsigned i = 0; i < hogs; i++)
        sim_task(s[i % 4], 0, 0, i);
    sim_run((1 + hogs / 800) * NS_PER_SEC);
    sim_forget();
    sim_run(seconds * NS_PER_SEC);
    sim_check();
    struct unfair f = judge(seconds * NS_PER_SEC);
    printf("long %u %u %.3f %.2f %.3f\n", hogs, seconds, f.cpu * 10, f.own, f.class);
    fflush(stdout);
}

/* How far from its cap a domain of four tasks is that wants more, in percent of a pCPU. */
static void cap(uint32_t percent)
{
    double got = 0;
    sim_reset(4, 4, 1);
    struct sched_share *s = sim_share(WEIGHT_DEFAULT, percent);
    for (unsigned i = 0; i < 4; i++)
        sim_task(s, 0, 0, i * NS_PER_MS);
    sim_run(NS_PER_SEC);
    sim_forget();
    sim_run(NS_PER_SEC);
    for (unsigned i = 0; i < 4; i++)
        got += (double)sim_tasks[i].ran_ns;
    printf("cap %u %.3f\n", percent, got * 100 / (double)NS_PER_SEC);
}

int main(void)
{
    for (unsigned cpus = 1; cpus <= MAX_CPUS; cpus *= 4) {
        run("thin", cpus, cpus + (cpus + 1) / 2, 0, 0); /* three for two pCPUs */
        run("thick", cpus, cpus * 10, cpus * 2, 0);
        run("full", cpus, cpus * 16, cpus * 4, cpus * 5); /* 102,400 of them at 4,096 pCPUs */
    }
    for (unsigned n = 4; n <= 16384; n *= 4)
        run("queue", 1, n, 0, 0); /* how the cost grows with those that wait */
    for (unsigned n = 64; n <= 16384; n *= 4)
        long_run(n, n / 4);
    for (unsigned n = 1; n <= 65536; n *= 4)
        run("asleep", 1, 8, 0, n); /* and with those that sleep */
    for (uint32_t percent = 10; percent <= 400; percent += percent < 100 ? 30 : 100)
        cap(percent);
    return 0;
}
