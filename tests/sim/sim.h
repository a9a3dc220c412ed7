/* sim.h: the hypervisor's scheduler under simulated time: tasks that compute, or compute and sleep.
 */
#pragma once

#include "core/runq.h"
#include "core/time.h"

struct sim_task {
    struct sched_unit unit;
    uint64_t burst_ns, sleep_ns; /* computes for one, sleeps for the other; burst 0: never sleeps */
    uint64_t burst_left_ns;
    uint64_t ran_ns, since_ns; /* had up to since_ns, when its state changed */
    uint64_t woken_ns;         /* waits since, for its first turn; 0 when not */
    unsigned generation;       /* of its pending event */
    enum unit_state state;
    bool runnable;
    double ideal_ns; /* sim_ideal's answer */
};

struct sim_stats {
    uint64_t decisions, steps, steals, pulls, wakes;
    uint64_t host_ns; /* of this host's CPU: the scheduler's and the events' */
    uint64_t wake_max_ns, wake_sum_ns, wake_bucket[64]; /* by log2 of ns */
};
extern struct sim_stats sim_stats;
extern struct sim_task *sim_tasks;
extern unsigned sim_nr_tasks;
extern uint64_t sim_now;

/* Start over with so many pCPUs and room for so many tasks and shares. */
void sim_reset(unsigned cpus, unsigned max_tasks, unsigned max_shares);
struct sched_share *sim_share(uint32_t weight, uint32_t cap);
/* A task that is woken at `start`; burst 0: it computes for ever. */
struct sim_task *sim_task(struct sched_share *s, uint64_t burst, uint64_t sleep, uint64_t start);
void sim_pin(struct sim_task *t, const uint64_t *hard, const uint64_t *soft);
void sim_set_share(struct sched_share *s, uint32_t weight, uint32_t cap);
void sim_stop(struct sim_task *t);
void sim_wake(struct sim_task *t);
/* The same, for what by, which runs, has done for it. */
void sim_answer(struct sim_task *t, const struct sim_task *by);
/* Advance by ns, then bring every task's ran_ns up to date. */
void sim_run(uint64_t ns);
/* Forget what was counted: statistics and ran_ns. */
void sim_forget(void);
/* What each task should get of ns on all pCPUs: by weight, no more than one pCPU; those that sleep
 * are taken to have got what they wanted. Affinities and caps are left aside. */
void sim_ideal(uint64_t ns);
/* Wake-up latency below which that part of all wake-ups lie, ns (a power of two). */
uint64_t sim_wake_quantile(double part);
/* Every queue's sums and orders are consistent; aborts when not. */
void sim_check(void);
