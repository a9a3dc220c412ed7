/* timer.c: one-shot timers: a pairing heap per pCPU over the LAPIC timer.
 *
 * The heap is intrusive, so arming allocates nothing. Lock: the heap's own, innermost of all.
 */
#include "core/atomic.h"
#include "core/cpu.h"
#include "core/lapic.h"
#include "core/time.h"
#include "core/trap.h"
#include "core/x86.h"

#define LATE_NS (10 * NS_PER_MS)

bool timers_end_stays;

static struct timer *meld(struct timer *a, struct timer *b)
{
    if (!a || !b)
        return a ? a : b;
    if (b->expires_ns < a->expires_ns) {
        struct timer *t = a;
        a = b;
        b = t;
    }
    b->prev = a; /* the first child points to its parent */
    b->next = a->child;
    if (a->child)
        a->child->prev = b;
    a->child = b;
    return a;
}

/* Meld a list of siblings pairwise, left to right, then right to left (the pairing step). */
static struct timer *meld_siblings(struct timer *first)
{
    struct timer *pairs = NULL, *root = NULL;
    while (first) {
        struct timer *a = first, *b = a->next;
        first = b ? b->next : NULL;
        a->next = a->prev = NULL;
        if (b)
            b->next = b->prev = NULL;
        a = meld(a, b);
        a->next = pairs;
        pairs = a;
    }
    while (pairs) {
        struct timer *rest = pairs->next;
        pairs->next = NULL;
        root = meld(root, pairs);
        pairs = rest;
    }
    if (root)
        root->next = root->prev = NULL;
    return root;
}

static void heap_remove(struct timer_heap *h, struct timer *t)
{
    struct timer *below = meld_siblings(t->child);
    if (h->root == t) {
        h->root = below;
    } else {
        if (t->prev->child == t)
            t->prev->child = t->next;
        else
            t->prev->next = t->next;
        if (t->next)
            t->next->prev = t->prev;
        h->root = meld(h->root, below);
    }
    t->child = t->next = t->prev = NULL;
    t->queued = false;
}

static struct timer_heap *lock_heap(struct timer *t)
{
    for (;;) {
        unsigned cpu = READ_ONCE(t->cpu);
        struct timer_heap *h = &cpus[cpu]->timers;
        spin_lock(&h->lock);
        if (t->cpu == cpu)
            return h;
        spin_unlock(&h->lock);
    }
}

static void program(struct timer_heap *h)
{
    h->due_tsc = h->root ? ns_to_tsc(h->root->expires_ns) : LAPIC_TIMER_OFF;
    if (h->root && h->root->expires_ns <= now_ns())
        atomic_or(&this_cpu()->work, SOFTIRQ_TIMER);
    else if (!timers_end_stays)
        lapic_timer_arm(h->due_tsc);
}

void timers_before_halt(void)
{
    struct timer_heap *h = &this_cpu()->timers;

    if (timers_end_stays && h->armed_tsc != h->due_tsc)
        lapic_timer_arm(h->armed_tsc = h->due_tsc);
}

void timers_look(void)
{
    if (timers_end_stays && rdtsc() >= this_cpu()->timers.due_tsc)
        atomic_or(&this_cpu()->work, SOFTIRQ_TIMER);
}

void timer_init(struct timer *t, void (*fn)(void *), void *data, unsigned cpu)
{
    *t = (struct timer){.expires_ns = TIME_NEVER, .fn = fn, .data = data, .cpu = cpu};
}

static void insert(struct timer_heap *h, struct timer *t)
{
    t->child = t->next = t->prev = NULL;
    t->queued = true;
    h->root = meld(h->root, t);
    if (h->root == t) {
        if (t->cpu == this_cpu()->id)
            program(h);
        else
            cpu_raise(cpus[t->cpu], SOFTIRQ_TIMER);
    }
}

void timer_set(struct timer *t, uint64_t expires_ns)
{
    struct timer_heap *h = lock_heap(t);
    if (t->queued)
        heap_remove(h, t);
    t->expires_ns = expires_ns;
    if (expires_ns != TIME_NEVER)
        insert(h, t);
    spin_unlock(&h->lock);
}

void timer_stop(struct timer *t)
{
    if (!t->fn)
        return;
    struct timer_heap *h = lock_heap(t);
    if (t->queued)
        heap_remove(h, t);
    spin_unlock(&h->lock);
}

void timer_kill(struct timer *t)
{
    if (!t->fn)
        return;
    for (;;) {
        struct timer_heap *h = lock_heap(t);
        if (t->queued)
            heap_remove(h, t);
        bool running = h->running == t && h != &this_cpu()->timers;
        spin_unlock(&h->lock);
        if (!running)
            return;
        cpu_relax();
    }
}

void timer_migrate(struct timer *t, unsigned cpu)
{
    if (!t->fn || READ_ONCE(t->cpu) == cpu)
        return;
    struct timer_heap *h = lock_heap(t);
    bool was = t->queued;
    if (was)
        heap_remove(h, t);
    t->cpu = cpu;
    spin_unlock(&h->lock);
    if (was) {
        h = lock_heap(t);
        if (!t->queued)
            insert(h, t);
        spin_unlock(&h->lock);
    }
}

void timers_run(void)
{
    struct timer_heap *h = &this_cpu()->timers;
    spin_lock(&h->lock);
    for (int budget = 64; h->root && budget; budget--) {
        struct timer *t = h->root;
        uint64_t now = now_ns();
        if (t->expires_ns > now)
            break;
        h->run++;
        h->late += now - t->expires_ns > LATE_NS;
        heap_remove(h, t);
        h->running = t;
        spin_unlock(&h->lock);
        t->fn(t->data);
        spin_lock(&h->lock);
        h->running = NULL;
    }
    program(h);
    spin_unlock(&h->lock);
}

static void timer_interrupt(unsigned data)
{
    (void)data;
    lapic_eoi();
    this_cpu()->timers.armed_tsc = LAPIC_TIMER_OFF;
    atomic_or(&this_cpu()->work, SOFTIRQ_TIMER);
}

void timers_cpu_init(void)
{
    trap_set_irq(VECTOR_TIMER, timer_interrupt, 0);
    spin_lock_init(&this_cpu()->timers.lock);
    this_cpu()->timers.due_tsc = this_cpu()->timers.armed_tsc = LAPIC_TIMER_OFF;
}
