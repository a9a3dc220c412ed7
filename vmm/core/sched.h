/* sched.h: which vCPU a pCPU runs: run queues, blocking and waking, and the loop of every pCPU. */
#pragma once

#include "domain/domain.h"

/* Never returns: run vCPUs, do pending work, idle. */
void cpu_loop(void) __noreturn;
/* Place a new vCPU on a pCPU. */
void sched_vcpu_init(struct vcpu *v);
void sched_vcpu_destroy(struct vcpu *v);
/* Wait until v's lazily switched state is in memory; v does not run. */
void vcpu_sync_state(struct vcpu *v);
/* Tell everybody that the vCPU's runnability may have changed. */
void vcpu_wake(struct vcpu *v);
/* Print run queues: a debug key. */
void sched_dump(void);
