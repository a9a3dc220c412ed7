/* sched.c: run queues, one per pCPU, and the loop that every pCPU lives in.
 *
 * A vCPU is queued on cpus[v->cpu]->rq, or current there, or blocked. State that a world switch
 * does not need stays in the pCPU (cpu->state_vcpu) until another vCPU takes it, so waking a vCPU
 * where it ran last is cheap, and a pCPU that wants it elsewhere first asks the holder to store it.
 * Lock: rq->lock; nothing but a timer heap's lock is taken inside it.
 */
#include "core/sched.h"

#include "core/atomic.h"
#include "core/console.h"
#include "core/errno.h"
#include "core/lapic.h"
#include "core/smp.h"
#include "core/x86.h"
#include "domain/exit.h"
#include "domain/hvm.h"
#include "platform/platform.h"

#define SLICE_NS (10 * NS_PER_MS)
#define LEAST_NS (500 * NS_PER_US) /* no vCPU is interrupted for a woken one before */

static struct timer slice_timer[MAX_CPUS];

bool vcpu_runnable(const struct vcpu *v)
{
    return !READ_ONCE(v->block) && !READ_ONCE(v->pause_count) && !READ_ONCE(v->domain->pause_count);
}

static void runstate_change(struct vcpu *v, int state)
{
    uint64_t now = now_ns();
    if (v->runstate.state == state)
        return;
    v->runstate.time[v->runstate.state] += now - v->runstate.state_entry_time;
    v->runstate.state_entry_time = now;
    v->runstate.state = state;
}

void vcpu_runstate_get(struct vcpu *v, struct vcpu_runstate_info *out)
{
    *out = v->runstate;
    out->time[out->state] += now_ns() - out->state_entry_time;
}

uint64_t vcpu_cpu_time(struct vcpu *v)
{
    struct vcpu_runstate_info r;
    vcpu_runstate_get(v, &r);
    return r.time[RUNSTATE_running];
}

static bool allowed(const struct vcpu *v, unsigned cpu)
{
    return v->affinity_hard[cpu / 64] >> (cpu % 64) & 1;
}

static unsigned load_of(unsigned cpu)
{
    return cpus[cpu]->rq.count + (cpus[cpu]->curr != NULL);
}

static unsigned least_loaded(const struct vcpu *v)
{
    unsigned best = MAX_CPUS;
    for (unsigned i = 0; i < nr_cpus; i++) {
        unsigned c = (v->cpu + i) % nr_cpus;
        if (allowed(v, c) && (best == MAX_CPUS || load_of(c) < load_of(best)))
            best = c;
    }
    return best == MAX_CPUS ? 0 : best;
}

void sched_vcpu_init(struct vcpu *v)
{
    static unsigned spread;
    list_init(&v->rq_list);
    for (unsigned i = 0; i < ARRAY_SIZE(v->affinity_hard); i++)
        v->affinity_hard[i] = v->affinity_soft[i] = ~0ULL;
    v->runstate.state = RUNSTATE_offline;
    v->runstate.state_entry_time = now_ns();
    v->cpu = atomic_add(&spread, 1) % nr_cpus;
    v->cpu = least_loaded(v);
}

static void enqueue(struct run_queue *rq, struct vcpu *v, bool head)
{
    if (head)
        list_add(&rq->runnable, &v->rq_list);
    else
        list_add_tail(&rq->runnable, &v->rq_list);
    v->queued = true;
    rq->count++;
}

static void dequeue(struct run_queue *rq, struct vcpu *v)
{
    list_del(&v->rq_list);
    v->queued = false;
    rq->count--;
}

static struct run_queue *lock_vcpu_rq(struct vcpu *v)
{
    for (;;) {
        unsigned cpu = READ_ONCE(v->cpu);
        struct run_queue *rq = &cpus[cpu]->rq;
        spin_lock(&rq->lock);
        if (v->cpu == cpu)
            return rq;
        spin_unlock(&rq->lock);
    }
}

/* An idle pCPU that may steal work is poked when a queue grows behind a busy one. */
static void poke_idle(struct vcpu *v)
{
    for (unsigned i = 0; i < nr_cpus; i++) {
        if (i != v->cpu && !cpus[i]->curr && allowed(v, i)) {
            cpu_raise(cpus[i], SOFTIRQ_SCHED);
            return;
        }
    }
}

void vcpu_wake(struct vcpu *v)
{
    struct run_queue *rq = lock_vcpu_rq(v);
    bool poke = false;
    if (vcpu_runnable(v) && !v->queued && !v->running) {
        struct cpu *c = cpus[v->cpu];
        runstate_change(v, RUNSTATE_runnable);
        enqueue(rq, v, true);
        /* A vCPU that waited goes first: what runs there gives way once it had its least. */
        struct vcpu *curr = READ_ONCE(c->curr);
        uint64_t now = now_ns();
        if (curr && now >= curr->slice_end_ns - SLICE_NS + LEAST_NS)
            WRITE_ONCE(curr->slice_end_ns, now);
        if (!curr || now >= curr->slice_end_ns)
            cpu_raise(c, SOFTIRQ_SCHED);
        poke = c->curr != NULL;
    }
    spin_unlock(&rq->lock);
    if (poke)
        poke_idle(v);
}

void vcpu_kick(struct vcpu *v, uint32_t work)
{
    atomic_or(&v->work, work);
    const uint32_t waits = VBLOCK_HALTED | VBLOCK_POLL;
    if (work & VWORK_EVENT && READ_ONCE(v->block) & waits) {
        vcpu_unblock(v, waits);
        return;
    }
    if (READ_ONCE(v->running) && v != this_cpu()->curr)
        cpu_kick(cpus[v->cpu]);
}

void vcpu_unblock(struct vcpu *v, uint32_t bits)
{
    atomic_and(&v->block, ~bits);
    vcpu_wake(v);
}

void vcpu_block(struct vcpu *v, uint32_t bits)
{
    atomic_or(&v->block, bits);
    if (v->running)
        cpu_raise(cpus[v->cpu], SOFTIRQ_SCHED);
}

static void flush_own_state(struct cpu *c)
{
    atomic_and(&c->work, ~SOFTIRQ_FLUSH_STATE);
    if (c->state_vcpu && c->state_vcpu != c->curr) {
        hvm_ops->save(c->state_vcpu);
        atomic_store(&c->state_vcpu, NULL);
    }
}

/* Spin, but answer others who wait for the state that this pCPU holds (two may wait crosswise). */
static void wait_relax(void)
{
    struct cpu *c = this_cpu();
    if (READ_ONCE(c->work) & SOFTIRQ_FLUSH_STATE)
        flush_own_state(c);
    cpu_relax();
}

void vcpu_sync_state(struct vcpu *v)
{
    for (unsigned i = 0; i < nr_cpus; i++) {
        struct cpu *c = cpus[i];
        if (READ_ONCE(c->state_vcpu) != v)
            continue;
        if (c == this_cpu()) {
            if (c->curr != v)
                flush_own_state(c);
            return;
        }
        while (READ_ONCE(c->state_vcpu) == v) {
            cpu_raise(c, SOFTIRQ_FLUSH_STATE);
            wait_relax();
        }
    }
}

void vcpu_sleep_sync(struct vcpu *v)
{
    struct run_queue *rq = lock_vcpu_rq(v);
    if (v->queued && !vcpu_runnable(v)) {
        dequeue(rq, v);
        runstate_change(v, RUNSTATE_offline);
    }
    spin_unlock(&rq->lock);
    if (v == this_cpu()->curr)
        return;
    while (READ_ONCE(v->running) && !vcpu_runnable(v)) {
        cpu_raise(cpus[v->cpu], SOFTIRQ_SCHED);
        wait_relax();
    }
    if (!vcpu_runnable(v))
        vcpu_sync_state(v);
}

void vcpu_yield(struct vcpu *v)
{
    v->slice_end_ns = 0;
    cpu_raise(this_cpu(), SOFTIRQ_SCHED);
}

int vcpu_set_affinity(struct vcpu *v, const uint64_t *hard, const uint64_t *soft)
{
    if (hard) {
        bool any = false;
        for (unsigned i = 0; i < nr_cpus; i++)
            any |= hard[i / 64] >> (i % 64) & 1;
        if (!any)
            return -EINVAL;
    }
    struct run_queue *rq = lock_vcpu_rq(v);
    for (unsigned i = 0; i < ARRAY_SIZE(v->affinity_hard); i++) {
        if (hard)
            v->affinity_hard[i] = hard[i];
        if (soft)
            v->affinity_soft[i] = soft[i];
    }
    bool move = !allowed(v, v->cpu);
    if (move && v->queued) {
        dequeue(rq, v);
        v->cpu = least_loaded(v);
        spin_unlock(&rq->lock);
        vcpu_wake(v);
        return 0;
    }
    if (move && v->running)
        cpu_raise(cpus[v->cpu], SOFTIRQ_SCHED);
    spin_unlock(&rq->lock);
    return 0;
}

void sched_vcpu_destroy(struct vcpu *v)
{
    struct run_queue *rq = lock_vcpu_rq(v);
    if (v->queued)
        dequeue(rq, v);
    spin_unlock(&rq->lock);
    for (unsigned i = 0; i < nr_cpus; i++)
        ASSERT(cpus[i]->state_vcpu != v && cpus[i]->curr != v);
}

/* First runnable vCPU of a queue that may run on `cpu`, dequeued and moved there. */
static struct vcpu *take_from(struct run_queue *rq, unsigned cpu)
{
    struct vcpu *v, *tmp;
    list_for_each_safe(v, tmp, &rq->runnable, rq_list)
    {
        if (!vcpu_runnable(v)) {
            dequeue(rq, v);
            runstate_change(v, RUNSTATE_offline);
            continue;
        }
        if (allowed(v, cpu)) {
            dequeue(rq, v);
            v->cpu = cpu;
            v->running = true;
            return v;
        }
    }
    return NULL;
}

static struct vcpu *steal(struct cpu *c)
{
    for (unsigned i = 1; i < nr_cpus; i++) {
        struct cpu *from = cpus[(c->id + i) % nr_cpus];
        if (!READ_ONCE(from->rq.count) || !spin_trylock(&from->rq.lock))
            continue;
        struct vcpu *v = take_from(&from->rq, c->id);
        spin_unlock(&from->rq.lock);
        if (v)
            return v;
    }
    return NULL;
}

static void slice_expired(void *data)
{
    cpu_raise(data, SOFTIRQ_SCHED);
}

static void schedule(struct cpu *c)
{
    struct vcpu *prev = c->curr, *next;
    uint64_t now = now_ns();

    if (timers_due(now)) /* its interrupt comes in a moment, or was lost */
        atomic_or(&c->work, SOFTIRQ_TIMER);
    spin_lock(&c->rq.lock);
    if (prev && vcpu_runnable(prev) && allowed(prev, c->id) &&
        (now < prev->slice_end_ns || !c->rq.count)) {
        if (now >= prev->slice_end_ns) { /* nobody waits now, but somebody may at its end */
            prev->slice_end_ns = now + SLICE_NS;
            timer_set(&slice_timer[c->id], prev->slice_end_ns);
        }
        spin_unlock(&c->rq.lock);
        return;
    }
    bool requeue_elsewhere = false;
    if (prev) {
        if (vcpu_runnable(prev)) {
            runstate_change(prev, RUNSTATE_runnable);
            if (allowed(prev, c->id)) {
                enqueue(&c->rq, prev, false);
            } else {
                prev->cpu = least_loaded(prev);
                requeue_elsewhere = true;
            }
        } else {
            bool paused =
                prev->pause_count || prev->domain->pause_count || prev->block & VBLOCK_DOWN;
            runstate_change(prev, paused ? RUNSTATE_offline : RUNSTATE_blocked);
        }
        c->curr = NULL;
    }
    next = take_from(&c->rq, c->id);
    if (next != prev && prev)
        atomic_store(&prev->running, false);
    spin_unlock(&c->rq.lock);
    if (requeue_elsewhere)
        vcpu_wake(prev);
    if (!next)
        next = steal(c);
    /* prev may have been made runnable between its check and here: then it was not queued. */
    if (prev && prev != next && vcpu_runnable(prev))
        vcpu_wake(prev);
    if (!next) {
        timer_stop(&slice_timer[c->id]);
        return;
    }
    if (c->state_vcpu != next) {
        if (c->state_vcpu) {
            hvm_ops->save(c->state_vcpu);
            atomic_store(&c->state_vcpu, NULL);
        }
        vcpu_sync_state(next);
        hvm_ops->load(next);
        c->state_vcpu = next;
    }
    c->curr = next;
    runstate_change(next, RUNSTATE_running);
    next->slice_end_ns = now + SLICE_NS;
    if (!slice_timer[c->id].fn)
        timer_init(&slice_timer[c->id], slice_expired, c, c->id);
    timer_set(&slice_timer[c->id], next->slice_end_ns);
    if (next != prev)
        vcpu_loaded(next);
}

static void do_work(struct cpu *c)
{
    uint32_t work = atomic_xchg(&c->work, 0);
    if (work & SOFTIRQ_STOP) {
        for (;;)
            __asm__ volatile("cli; hlt");
    }
    if (work & SOFTIRQ_TIMER)
        timers_run();
    if (work & SOFTIRQ_FLUSH_STATE)
        flush_own_state(c);
    if (work & SOFTIRQ_SCHED)
        schedule(c);
}

/* Quirk lost-interrupts (docs/design.md): set once this machine was seen to keep a due timer's
 * interrupt to itself. */
static bool quirk_lost_interrupts;

/* Nothing halts while a timer is due: one that was due before interrupts were open has raised its
 * interrupt, unless the CPU lost it. */
static bool may_halt(struct cpu *c, uint64_t start)
{
    irq_window();
    if (READ_ONCE(c->work))
        return false;
    if (timers_due(start)) {
        if (!quirk_lost_interrupts)
            log_info("CPU%u lost its timer's interrupt; pending ones are looked for before each "
                     "halt from now on",
                     c->id);
        quirk_lost_interrupts = true;
        atomic_or(&c->work, SOFTIRQ_TIMER);
        return false;
    }
    if (quirk_lost_interrupts)
        lapic_reevaluate();
    return true;
}

static void idle(struct cpu *c)
{
    uint64_t start = now_ns();
    if (may_halt(c, start))
        __asm__ volatile("sti; hlt; cli" ::: "memory");
    irq_window();
    c->idle_ns += now_ns() - start;
}

void cpu_loop(void)
{
    struct cpu *c = this_cpu();
    atomic_or(&c->work, SOFTIRQ_SCHED | SOFTIRQ_TIMER);
    for (;;) {
        if (READ_ONCE(c->work))
            do_work(c);
        struct vcpu *v = c->curr;
        if (!v) {
            idle(c);
            continue;
        }
        if (!vcpu_runnable(v)) {
            schedule(c);
            continue;
        }
        if (READ_ONCE(v->work) && !vcpu_do_work(v))
            continue;
        hvm_ops->run(v);
    }
}

void domain_flush_tlb(struct domain *d)
{
    for (unsigned i = 0; i < d->max_vcpus; i++) {
        struct vcpu *v = d->vcpu[i];
        if (v)
            atomic_or(&v->work, VWORK_FLUSH_TLB);
    }
    smp_mb();
    /* A pCPU that is in one of d's vCPUs must leave it once; one that is not, flushes on entry. */
    for (unsigned i = 0; i < nr_cpus; i++) {
        struct cpu *c = cpus[i];
        if (c == this_cpu())
            continue;
        uint64_t seen = READ_ONCE(c->guest_exits);
        struct vcpu *v = READ_ONCE(c->curr);
        if (!READ_ONCE(c->in_guest) || !v || v->domain != d)
            continue;
        cpu_kick(c);
        while (READ_ONCE(c->in_guest) && READ_ONCE(c->guest_exits) == seen)
            wait_relax();
    }
}

void sched_dump(void)
{
    for (unsigned i = 0; i < nr_cpus; i++) {
        struct cpu *c = cpus[i];
        struct vcpu *v = c->curr;
        log_err("CPU%u: %u queued, work %x, idle %lu ms, NMIs %lu, runs d%dv%d", i, c->rq.count,
                c->work, c->idle_ns / NS_PER_MS, c->nmi_count, v ? v->domain->id : -1,
                v ? (int)v->id : -1);
    }
}
