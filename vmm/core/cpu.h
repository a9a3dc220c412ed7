/* cpu.h: one structure per physical CPU, found from the stack pointer.
 *
 * A guest's GS base and TR stay loaded while Ringfence runs (VMLOAD state moves only when another
 * vCPU takes the pCPU), so per-CPU data hangs off the stack: each pCPU has one stack of STACK_SIZE,
 * aligned to its size, with struct cpu at its low end.
 */
#pragma once

#include "core/runq.h"
#include "core/spinlock.h"
#include "core/types.h"

#define STACK_SIZE 16384

struct vcpu;

enum softirq {                    /* bits of cpu->work, looked at by the exit and idle loops */
               SOFTIRQ_SCHED = 1, /* pick another vCPU */
               SOFTIRQ_TIMER = 2, /* run expired timers */
               SOFTIRQ_STOP = 4,  /* halt: panic or reboot */
               SOFTIRQ_FLUSH_STATE = 8, /* save the lazily held vCPU state */
};

struct timer_heap {
    spinlock_t lock;
    struct timer *root;    /* pairing heap, earliest first */
    struct timer *running; /* the one whose function runs now */
    uint64_t due_tsc;      /* when root is due, in host TSC ticks; LAPIC_TIMER_OFF */
    uint64_t armed_tsc;    /* what the LAPIC timer was armed for: timers_end_stays */
    uint64_t run, late;    /* how many were run; of those, 10 ms late or more */
};

struct cpu {
    unsigned id;
    uint32_t apic_id;
    uint32_t work; /* enum softirq, atomic */
    bool online;
    bool in_guest;           /* set just before entry, clear after exit */
    uint64_t guest_exits;    /* odd-even free: counts exits, for waiting until a CPU left a guest */
    struct vcpu *curr;       /* runs or ran last; NULL when idle */
    struct vcpu *state_vcpu; /* whose VMLOAD and FPU state the CPU holds; NULL for none */
    void *vendor;            /* svm's or vmx's per-CPU data */
    struct run_queue rq;
    struct timer_heap timers;
    uint64_t idle_ns; /* accumulated */
    uint64_t beats;   /* times the loop left the guest for longer, or was idle: watchdog.c */
    bool halted;      /* idle: nothing is expected of it */
    uint64_t nmi_count;
    uint64_t switches;        /* times another vCPU's state was brought here */
    uint64_t tlb_tags;        /* ASIDs or VPIDs given out, each a flush of one vCPU's entries */
    uint64_t tlb_generations; /* times they ran out, each a flush of everything */
};

extern struct cpu *cpus[MAX_CPUS];
extern unsigned nr_cpus; /* online */

#ifdef HOST_TEST
extern struct cpu host_test_cpu;
static inline struct cpu *this_cpu(void)
{
    return &host_test_cpu;
}
#else
static inline struct cpu *this_cpu(void)
{
    uint64_t sp;
    __asm__("mov %%rsp, %0" : "=r"(sp));
    return (struct cpu *)(sp & ~(uint64_t)(STACK_SIZE - 1));
}
#endif

/* Ask a pCPU to look at its work word: sets the bits and, when it is another pCPU, interrupts it.
 */
void cpu_raise(struct cpu *c, uint32_t bits);
