/* sched.c: the scheduler's core (runq.h) joined to vCPUs, and the loop that every pCPU lives in.
 *
 * State that a world switch does not need stays in the pCPU (cpu->state_vcpu) until another vCPU
 * takes it, so waking a vCPU where it ran last is cheap, and a pCPU that wants it elsewhere first
 * asks the holder to store it.
 */
#include "core/sched.h"

#include "core/atomic.h"
#include "core/console.h"
#include "core/errno.h"
#include "core/lapic.h"
#include "core/smp.h"
#include "core/trap.h"
#include "core/watchdog.h"
#include "core/x86.h"
#include "domain/exit.h"
#include "domain/hvm.h"
#include "domain/pvtime.h"
#include "platform/platform.h"

static struct timer slice_timer[MAX_CPUS];

bool vcpu_runnable(const struct vcpu *v)
{
    return !READ_ONCE(v->block) && !READ_ONCE(v->pause_count) && !READ_ONCE(v->domain->pause_count);
}

static struct vcpu *vcpu_of(const struct sched_unit *u)
{
    return container_of(u, struct vcpu, sched);
}

static bool runnable(const struct sched_unit *u)
{
    return vcpu_runnable(vcpu_of(u));
}

/* ---- what the scheduler's core asks for: runq.h
 * -------------------------------------------------- */
struct run_queue *sched_hook_queue(unsigned cpu)
{
    return &cpus[cpu]->rq;
}

static void slice_expired(void *data)
{
    struct cpu *c = data;
    sched_due(&c->rq);
    cpu_raise(c, SOFTIRQ_SCHED);
}

void sched_hook_decide_at(unsigned cpu, uint64_t when, uint64_t now)
{
    if (when <= now)
        cpu_raise(cpus[cpu], SOFTIRQ_SCHED);
    else
        timer_set(&slice_timer[cpu], when);
}

void sched_hook_release_at(struct sched_share *s, uint64_t when)
{
    timer_set(&container_of(s, struct domain, sched)->budget_timer, when);
}

static void runstate_change(struct vcpu *v, int state, uint64_t now)
{
    if (v->runstate.state == state)
        return;
    v->runstate.time[v->runstate.state] += now - v->runstate.state_entry_time;
    v->runstate.state_entry_time = now;
    v->runstate.state = state;
}

void sched_hook_state(struct sched_unit *u, enum unit_state state, uint64_t now)
{
    struct vcpu *v = vcpu_of(u);
    if (state == UNIT_RUNNING)
        runstate_change(v, RUNSTATE_running, now);
    else if (state == UNIT_WAITING)
        runstate_change(v, RUNSTATE_runnable, now);
    else if (v->pause_count || v->domain->pause_count || v->block & VBLOCK_DOWN)
        runstate_change(v, RUNSTATE_offline, now);
    else
        runstate_change(v, RUNSTATE_blocked, now);
}

void vcpu_runstate_get(struct vcpu *v, struct vcpu_runstate_info *out)
{
    uint64_t now;
    do { /* a change on another pCPU: the entry time moves with it */
        *out = *(volatile struct vcpu_runstate_info *)&v->runstate;
        smp_mb();
        now = now_ns();
    } while (out->state_entry_time != READ_ONCE(v->runstate.state_entry_time));
    if (now > out->state_entry_time)
        out->time[out->state] += now - out->state_entry_time;
}

uint64_t vcpu_cpu_time(struct vcpu *v)
{
    struct vcpu_runstate_info r;
    vcpu_runstate_get(v, &r);
    return r.time[RUNSTATE_running];
}

/* ---- domains and vCPUs come and go
 * ------------------------------------------------------------------ */
/* The budget was filled up: those that waited for it go on. */
static void budget_filled(void *data)
{
    struct domain *d = data;
    struct sched_unit *u;
    while ((u = share_release(&d->sched, now_ns())))
        sched_unpark(u, runnable, now_ns());
}

void sched_domain_init(struct domain *d)
{
    share_init(&d->sched);
    timer_init(&d->budget_timer, budget_filled, d, this_cpu()->id);
}

void sched_domain_destroy(struct domain *d)
{
    timer_kill(&d->budget_timer);
}

void sched_domain_set(struct domain *d, uint32_t weight, uint32_t cap)
{
    spin_lock(&d->sched.lock);
    d->sched.weight = weight;
    d->sched.cap = cap;
    spin_unlock(&d->sched.lock);
    for (unsigned i = 0; i < d->max_vcpus; i++) {
        if (d->vcpu[i])
            sched_changed(&d->vcpu[i]->sched, NULL, NULL, runnable, now_ns());
    }
    budget_filled(d);
}

void sched_cpu_init(struct cpu *c)
{
    runq_init(&c->rq, c->id);
    timer_init(&slice_timer[c->id], slice_expired, c, c->id);
}

void sched_vcpu_init(struct vcpu *v)
{
    static unsigned spread;
    unit_init(&v->sched, &v->domain->sched);
    v->sched.cpu = atomic_add(&spread, 1) % nr_cpus;
    v->state_cpu = -1;
    v->runstate.state = RUNSTATE_offline;
    v->runstate.state_entry_time = now_ns();
    v->sched.cpu = sched_place_new(&v->sched);
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
    sched_changed(&v->sched, hard, soft, runnable, now_ns());
    return 0;
}

/* ---- waking and stopping
 * ------------------------------------------------------------------------------ */
void vcpu_wake(struct vcpu *v)
{
    sched_wake(&v->sched, runnable, now_ns());
}

void vcpu_kick(struct vcpu *v, uint32_t work)
{
    atomic_or(&v->work, work);
    const uint32_t waits = VBLOCK_HALTED | VBLOCK_POLL;
    if (work & VWORK_EVENT && READ_ONCE(v->block) & waits) {
        vcpu_unblock(v, waits);
        return;
    }
    if (READ_ONCE(v->sched.running) && v != this_cpu()->curr)
        cpu_kick(cpus[v->sched.cpu]);
}

/* Wherever the interrupt finds its pCPU, v hears of it: in v, the CPU takes what was posted; in the
 * hypervisor or another guest, v, which has left, looks before it enters or sleeps (vlapic_news).
 * A CPU that does not take it exits, and its handler makes the one that runs look. */
void vcpu_post(struct vcpu *v)
{
    struct cpu *c = cpus[READ_ONCE(v->sched.cpu)];

    if (c != this_cpu() && READ_ONCE(c->in_guest) && READ_ONCE(c->curr) == v)
        lapic_send(c->apic_id, VECTOR_POSTED);
    else
        vcpu_kick(v, VWORK_EVENT);
}

void vcpu_unblock(struct vcpu *v, uint32_t bits)
{
    atomic_and(&v->block, ~bits);
    vcpu_wake(v);
}

void vcpu_answer(struct vcpu *v, uint32_t work, uint32_t bits)
{
    struct cpu *c = this_cpu();
    atomic_or(&v->work, work);
    atomic_and(&v->block, ~bits);
    if (likely(sched_hand_over(&v->sched, &c->rq, runnable)))
        atomic_or(&c->work, SOFTIRQ_SCHED);
    else
        sched_wake(&v->sched, runnable, now_ns());
}

void vcpu_block(struct vcpu *v, uint32_t bits)
{
    atomic_or(&v->block, bits);
    if (v == this_cpu()->curr)
        atomic_or(&this_cpu()->work, SOFTIRQ_SCHED);
    else
        vcpu_sleep(v);
}

void vcpu_sleep(struct vcpu *v)
{
    sched_sleep(&v->sched, runnable, now_ns());
}

void vcpu_yield(struct vcpu *v)
{
    sched_yield_cpu(v->sched.cpu, now_ns());
}

/* ---- state that stays in a pCPU
 * -------------------------------------------------------------------------- */
static void save_held_state(struct cpu *c)
{
    struct vcpu *v = c->state_vcpu;
    if (!v)
        return;
    hvm_ops->save(v);
    c->state_vcpu = NULL;
    atomic_store(&v->state_cpu, -1);
}

static void flush_own_state(struct cpu *c)
{
    atomic_and(&c->work, ~SOFTIRQ_FLUSH_STATE);
    if (c->state_vcpu != c->curr)
        save_held_state(c);
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
    struct cpu *me = this_cpu();
    int cpu;
    while ((cpu = atomic_load(&v->state_cpu)) >= 0) {
        if (cpus[cpu] == me) {
            if (me->curr != v)
                flush_own_state(me);
            return;
        }
        cpu_raise(cpus[cpu], SOFTIRQ_FLUSH_STATE);
        wait_relax();
    }
}

void vcpu_sleep_sync(struct vcpu *v)
{
    vcpu_sleep(v);
    if (v == this_cpu()->curr)
        return;
    while (READ_ONCE(v->sched.running) && !vcpu_runnable(v)) {
        cpu_raise(cpus[READ_ONCE(v->sched.cpu)], SOFTIRQ_SCHED);
        wait_relax();
    }
    if (!vcpu_runnable(v))
        vcpu_sync_state(v);
}

void sched_vcpu_destroy(struct vcpu *v)
{
    sched_forget(&v->sched, now_ns());
    ASSERT(v->state_cpu < 0 && !v->sched.running);
}

/* ---- the loop of every pCPU
 * ------------------------------------------------------------------------------- */
/* Let the scheduler decide and bring the vCPU's state here. c->curr is NULL meanwhile: prev may be
 * taken by another pCPU as soon as it waits, and that one asks for its state. */
static void schedule(struct cpu *c)
{
    struct vcpu *prev = c->curr;
    uint64_t now = now_ns();
    WRITE_ONCE(c->curr, NULL);
    struct sched_unit *u = sched_next(&c->rq, runnable, now);
    struct vcpu *next = u ? vcpu_of(u) : NULL;
    if (next && c->state_vcpu != next) {
        save_held_state(c);
        if (unlikely(atomic_load(&next->state_cpu) >= 0))
            vcpu_sync_state(next);
        hvm_ops->load(next);
        c->state_vcpu = next;
        c->switches++;
        atomic_store(&next->state_cpu, (int)c->id);
    }
    WRITE_ONCE(c->curr, next);
    if (next && next != prev)
        pvtime_loaded(next);
}

static void do_work(struct cpu *c)
{
    uint32_t work = atomic_xchg(&c->work, 0);
    WRITE_ONCE(c->beats, c->beats + 1);
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

static void idle(struct cpu *c)
{
    uint64_t start = now_ns();
    WRITE_ONCE(c->halted, true);
    irq_window();
    if (!READ_ONCE(c->work)) {
        timers_before_halt();
        __asm__ volatile("sti; hlt; cli" ::: "memory");
    }
    irq_window();
    WRITE_ONCE(c->halted, false);
    WRITE_ONCE(c->beats, c->beats + 1);
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
    for (unsigned i = 0; i < d->max_vcpus; i++) {
        struct vcpu *v = d->vcpu[i];
        if (!v || !READ_ONCE(v->sched.running))
            continue;
        struct cpu *c = cpus[READ_ONCE(v->sched.cpu)];
        uint64_t seen = READ_ONCE(c->guest_exits);
        if (c == this_cpu() || !READ_ONCE(c->in_guest) || READ_ONCE(c->curr) != v)
            continue;
        cpu_kick(c);
        while (READ_ONCE(c->in_guest) && READ_ONCE(c->guest_exits) == seen)
            wait_relax();
    }
}

void sched_dump(void)
{
    log_err("rate limit %lu us", sched_ratelimit_ns / NS_PER_US);
    for (unsigned i = 0; i < nr_cpus; i++) {
        struct cpu *c = cpus[i];
        const struct run_queue *rq = &c->rq;
        const struct vcpu *v = READ_ONCE(c->curr);
        log_err("CPU%u: %u waiting, weight %lu, work %x, idle %lu ms, NMIs %lu, runs d%dv%d", i,
                rq->count, rq->weight, c->work, c->idle_ns / NS_PER_MS, c->nmi_count,
                v ? v->domain->id : -1, v ? (int)v->id : -1);
        log_err("  %lu timers run, %lu of them 10 ms late or more", c->timers.run, c->timers.late);
        log_err("  %lu switches of vCPUs, %lu TLB tags, %lu generations", c->switches, c->tlb_tags,
                c->tlb_generations);
        log_err("  %lu decisions, %lu steps, %lu taken when idle, %lu for balance, clock %lu",
                rq->decisions, rq->steps, rq->steals, rq->pulls, rq->clock);
    }
}
