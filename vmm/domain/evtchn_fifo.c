/* evtchn_fifo.c: the FIFO event channel ABI: pending events hang in per-vCPU queues by priority.
 *
 * Each port has an event word in pages that the guest lends (the event array): PENDING, MASKED,
 * LINKED, and the LINK to the next port of the queue. The hypervisor appends to a queue's tail; the
 * guest takes from its head, clearing LINKED and LINK of the word it takes. So the tail is still
 * queued exactly when its word is LINKED: then the new port goes in its LINK, otherwise the queue
 * ran empty and the new port goes in the control block's head, and `ready` says so. Everything in
 * those pages is the guest's to spoil: a bad word loses the guest's own events and nothing else.
 */
#include "core/errno.h"
#include "core/string.h"
#include "domain/evtchn.h"

#define WORD_PENDING (1u << EVTCHN_FIFO_PENDING)
#define WORD_MASKED  (1u << EVTCHN_FIFO_MASKED)
#define WORD_LINKED  (1u << EVTCHN_FIFO_LINKED)
#define WORD_BUSY    (1u << EVTCHN_FIFO_BUSY)
#define WORD_LINK    ((uint32_t)EVTCHN_FIFO_LINK_MASK)

struct fifo_queue {
    spinlock_t lock;
    uint32_t tail; /* last port appended; 0 for none */
};

struct fifo_vcpu {
    struct evtchn_fifo_control_block *block; /* in the guest's page, referenced */
    struct fifo_queue queue[EVTCHN_FIFO_MAX_QUEUES];
};

struct evtchn_fifo {
    struct fifo_vcpu *vcpu[MAX_VCPUS_PER_DOMAIN]; /* published once, then constant */
    unsigned pages;                               /* ed->lock */
    event_word_t *array[EVTCHN_FIFO_PAGES];       /* guest's pages, referenced; published once */
};

static event_word_t *fifo_word(const struct evtchn_fifo *f, unsigned port)
{
    event_word_t *page = NULL;

    if (port / EVTCHN_FIFO_WORDS < EVTCHN_FIFO_PAGES)
        page = atomic_load(&f->array[port / EVTCHN_FIFO_WORDS]);
    return page ? page + port % EVTCHN_FIFO_WORDS : NULL;
}

static struct fifo_queue *fifo_queue(const struct evtchn_fifo *f, uint16_t vcpu_and_priority)
{
    struct fifo_vcpu *fv = atomic_load(&f->vcpu[vcpu_and_priority >> 8]);

    return fv ? &fv->queue[vcpu_and_priority & 0xff] : NULL;
}

static void lock_queues(struct fifo_queue *a, struct fifo_queue *b)
{
    spin_lock(a <= b ? &a->lock : &b->lock);
    if (a != b)
        spin_lock(a <= b ? &b->lock : &a->lock);
}

static void unlock_queues(struct fifo_queue *a, struct fifo_queue *b)
{
    spin_unlock(&a->lock);
    if (a != b)
        spin_unlock(&b->lock);
}

/* Put port in the LINK of the queue's tail; false when the guest has taken the tail already. The
 * guest changes the word too: after a few lost races BUSY makes an honest one wait, and a hostile
 * one loses its queue. */
static __attribute__((noinline)) bool fifo_link(event_word_t *tail, uint32_t port)
{
    enum { TRIES = 8, POLITE_TRIES = 4 };

    for (unsigned i = 0; i < TRIES; i++) {
        event_word_t w =
            i < POLITE_TRIES ? READ_ONCE(*tail) : atomic_or(tail, WORD_BUSY) | WORD_BUSY;

        if (!(w & WORD_LINKED))
            break;
        if (atomic_cas(tail, w, (w & ~(WORD_BUSY | WORD_LINK)) | port))
            return true;
    }
    atomic_and(tail, ~WORD_BUSY);
    return false;
}

/* Lock q and the queue that chn was last linked to, which is returned: q when there is none. */
static __attribute__((noinline)) struct fifo_queue *
lock_both(const struct evtchn_fifo *f, const struct evtchn *chn, struct fifo_queue *q)
{
    for (;;) {
        uint16_t last = READ_ONCE(chn->last_queue);
        struct fifo_queue *old = fifo_queue(f, last);

        if (!old)
            old = q;
        lock_queues(q, old);
        if (READ_ONCE(chn->last_queue) == last)
            return old;
        unlock_queues(q, old);
    }
}

/* The same, but mostly it was linked to q. */
static inline struct fifo_queue *lock_for(const struct evtchn_fifo *f, const struct evtchn *chn,
                                          struct fifo_queue *q, unsigned target)
{
    if (likely(READ_ONCE(chn->last_queue) == target)) {
        spin_lock(&q->lock);
        if (likely(READ_ONCE(chn->last_queue) == target))
            return q;
        spin_unlock(&q->lock);
    }
    return lock_both(f, chn, q);
}

/* Append port, which is PENDING and unmasked, to the queue of its vCPU and priority, unless it is
 * in a queue already. */
static inline void fifo_enqueue(struct domain *d, struct evtchn_fifo *f, struct evtchn *chn,
                                event_word_t *word, unsigned port)
{
    unsigned vcpu = READ_ONCE(chn->vcpu), priority = READ_ONCE(chn->priority);
    unsigned target = vcpu << 8 | priority;
    struct fifo_vcpu *fv = atomic_load(&f->vcpu[vcpu]);
    struct fifo_queue *q, *old;
    bool announce = false;

    if (!fv)
        return; /* that vCPU has no control block: the event stays PENDING */
    q = &fv->queue[priority];
    old = lock_for(f, chn, q, target);
    if (!test_and_set_bit(EVTCHN_FIFO_LINKED, word)) {
        event_word_t *tail = NULL;

        /* It was the tail of a queue that has been emptied: that queue must not link behind it. */
        if (old->tail == port)
            old->tail = 0;
        WRITE_ONCE(chn->last_queue, (uint16_t)target);
        if (q->tail)
            tail = fifo_word(f, q->tail);
        q->tail = port;
        if (!tail || !fifo_link(tail, port)) {
            atomic_store(&fv->block->head[priority], port);
            announce = true;
        }
    }
    if (likely(old == q))
        spin_unlock(&q->lock);
    else
        unlock_queues(q, old);

    if (announce && !test_and_set_bit(priority, &fv->block->ready))
        evtchn_mark_vcpu(d->vcpu[vcpu]);
}

void evtchn_fifo_set_pending(struct domain *d, struct evtchn_fifo *f, struct evtchn *chn,
                             unsigned port)
{
    event_word_t *word = fifo_word(f, port);

    if (unlikely(!word)) {
        (void)atomic_xchg(&chn->missed, true); /* expand_array looks for it after it added a page */
        word = fifo_word(f, port);
        if (!word)
            return;
    }
    set_bit(EVTCHN_FIFO_PENDING, word); /* a barrier: who unmasks it later finds it pending */
    if (READ_ONCE(*word) & (WORD_MASKED | WORD_LINKED))
        return; /* the guest will ask by unmask, or finds it in the queue */
    fifo_enqueue(d, f, chn, word, port);
}

bool evtchn_fifo_pending(const struct evtchn_fifo *f, unsigned port)
{
    event_word_t *word = fifo_word(f, port);

    return word && (READ_ONCE(*word) & WORD_PENDING);
}

bool evtchn_fifo_linked(const struct evtchn_fifo *f, unsigned port)
{
    event_word_t *word = fifo_word(f, port);

    return word && (READ_ONCE(*word) & WORD_LINKED);
}

void evtchn_fifo_clear_pending(struct evtchn_fifo *f, unsigned port)
{
    event_word_t *word = fifo_word(f, port);

    if (word)
        atomic_and(word, ~WORD_PENDING);
}

void evtchn_fifo_unmask(struct domain *d, struct evtchn_fifo *f, struct evtchn *chn, unsigned port)
{
    event_word_t *word = fifo_word(f, port);

    if (word && (atomic_and(word, ~WORD_MASKED) & WORD_PENDING))
        evtchn_fifo_set_pending(d, f, chn, port);
}

/* The guest's RAM page at gfn for the hypervisor to write in, referenced, or NULL. */
static void *borrow_page(struct domain *d, gfn_t gfn)
{
    enum p2m_type t;
    struct page_info *pg = p2m_get_page(d, gfn, true, &t);

    if (!pg)
        return NULL;
    if (!p2m_is_ram(t)) {
        page_put(pg);
        return NULL;
    }
    return page_to_virt(pg);
}

static void return_page(const void *va)
{
    page_put(mfn_to_page(virt_to_mfn((void *)((uint64_t)va & PAGE_MASK))));
}

int evtchn_fifo_init_control(struct domain *d, struct evtchn_init_control *op)
{
    struct evtchn_domain *ed = d->evtchn;
    struct evtchn_fifo *f = NULL, *fresh = NULL;
    struct fifo_vcpu *fv;
    char *page;
    int rc;

    if (op->vcpu >= d->max_vcpus || !d->vcpu[op->vcpu])
        return -ENOENT;
    if (op->offset > PAGE_SIZE - sizeof(struct evtchn_fifo_control_block) || op->offset % 8)
        return -EINVAL;
    page = borrow_page(d, op->control_gfn);
    if (!page)
        return -EINVAL;
    fv = kzalloc(sizeof(*fv));
    fresh = kzalloc(sizeof(*fresh));

    spin_lock(&ed->lock);
    f = ed->fifo ? ed->fifo : fresh;
    rc = !fv || !fresh ? -ENOMEM : ed->dead || f->vcpu[op->vcpu] ? -EINVAL : 0;
    if (!rc) {
        fv->block = (void *)(page + op->offset);
        atomic_store(&f->vcpu[op->vcpu], fv);
        atomic_store(&ed->fifo, f);
        op->link_bits = EVTCHN_FIFO_LINK_BITS;
        fv = NULL;
        page = NULL;
        if (f == fresh)
            fresh = NULL;
    }
    spin_unlock(&ed->lock);

    kfree(fv);
    kfree(fresh);
    if (page)
        return_page(page);
    return rc;
}

/* Ports of array page i that were raised before it came. Holds ed->lock. */
static void raise_missed(struct domain *d, struct evtchn_fifo *f, unsigned i)
{
    for (unsigned n = 0; n < EVTCHN_FIFO_WORDS; n++) {
        unsigned port = i * EVTCHN_FIFO_WORDS + n;
        struct evtchn *chn = evtchn_get(d, port);

        if (!chn || !READ_ONCE(chn->missed))
            continue;
        spin_lock(&chn->lock);
        if (atomic_xchg(&chn->missed, false) && chn->state != EVTCHNSTAT_closed)
            evtchn_fifo_set_pending(d, f, chn, port);
        spin_unlock(&chn->lock);
    }
}

int evtchn_fifo_expand_array(struct domain *d, gfn_t gfn)
{
    struct evtchn_domain *ed = d->evtchn;
    event_word_t *page = borrow_page(d, gfn);
    struct evtchn_fifo *f;
    int rc = 0;

    if (!page)
        return -EINVAL;
    spin_lock(&ed->lock);
    f = ed->fifo;
    if (!f || ed->dead) {
        rc = -EOPNOTSUPP;
    } else if (f->pages == EVTCHN_FIFO_PAGES) {
        rc = -ENOSPC;
    } else {
        atomic_store(&f->array[f->pages], page);
        smp_mb();
        raise_missed(d, f, f->pages++);
    }
    spin_unlock(&ed->lock);
    if (rc)
        return_page(page);
    return rc;
}

void evtchn_fifo_destroy(struct domain *d)
{
    struct evtchn_fifo *f = d->evtchn->fifo;

    if (!f)
        return;
    atomic_store(&d->evtchn->fifo, NULL);
    for (unsigned i = 0; i < MAX_VCPUS_PER_DOMAIN; i++) {
        if (!f->vcpu[i])
            continue;
        return_page(f->vcpu[i]->block);
        kfree(f->vcpu[i]);
    }
    for (unsigned i = 0; i < f->pages; i++)
        return_page(f->array[i]);
    kfree(f);
}
