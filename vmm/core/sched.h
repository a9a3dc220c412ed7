/* sched.h: which vCPU a pCPU runs: run queues, blocking and waking, and the loop of every pCPU. */
#pragma once

#include "domain/domain.h"

/* Never returns: run vCPUs, do pending work, idle. */
void cpu_loop(void) __noreturn;
/* A pCPU's queue, before anything is woken there. */
void sched_cpu_init(struct cpu *c);
/* A new domain: weight 256, no cap. Its end, when none of its vCPUs runs any more; before
 * sched_vcpu_destroy of each. */
void sched_domain_init(struct domain *d);
void sched_domain_destroy(struct domain *d);
/* Set weight (1..WEIGHT_MAX) and cap (percent of one pCPU for all vCPUs together, 0 none); the
 * caller has checked them. No lock held. */
void sched_domain_set(struct domain *d, uint32_t weight, uint32_t cap);
/* Place a new vCPU on a pCPU; the end of one that does not run and whose state is in memory. */
void sched_vcpu_init(struct vcpu *v);
void sched_vcpu_destroy(struct vcpu *v);
/* Wait until v's lazily switched state is in memory; v does not run. */
void vcpu_sync_state(struct vcpu *v);
/* Tell everybody that the vCPU's runnability may have changed. */
void vcpu_wake(struct vcpu *v);
/* Print where locks were waited for: a debug key (locks.c). */
void locks_dump(void);
/* Print run queues: a debug key. */
void sched_dump(void);
