/* ioreq.c: device accesses travel to emulators in other domains, and their answers back: the exit
 * path's half of ioreq.h.
 */
#include "platform/ioreq.h"

#include "core/print.h"

/* Where a ring whose pointers cannot be folded back stops being used: indices must not wrap. */
#define RING_END 0xfffffc00u

/* What a request asks for, as ranges are kept. */
struct target {
    uint32_t kind;
    uint64_t first, last;
};

/* ---- the emulator's notifications --------------------------------------------------------- */

/* In the emulator's evtchn send: event channel locks are held. v finds out about bad states. */
void ioreq_sync_notified(struct vcpu *v)
{
    struct ioreq_domain *id = v->domain->ioreq;
    struct ioreq_vcpu *iv = v->ioreq;
    bool answered;

    if (!iv)
        return;
    spin_lock(&id->lock);
    answered = iv->server && !being_served(slot_state(&iv->server->slot[v->id]));
    spin_unlock(&id->lock);
    if (answered)
        ioreq_wake(v);
}

void ioreq_ring_notified(struct vcpu *v)
{
    (void)v;
}

/* ---- choosing a server ---------------------------------------------------------------------- */

#define CF8_ENABLE 0x80000000u

static inline uint32_t cf8_sbdf(uint32_t cf8)
{
    return cf8 >> 8 & 0xffff;
}

/* The server that claims all of t, highest number first; lock is held. */
static inline struct ioreq_server *choose(struct ioreq_domain *id, const struct target *t)
{
    for (unsigned i = id->servers; i-- > 0;) {
        struct ioreq_server *s = id->server[i];

        if (s && s->enabled && io_ranges_contain(&s->ranges[t->kind], t->first, t->last))
            return s;
    }
    return NULL;
}

/* A data access to 0xCFC..0xCFF with the latch enabled becomes a configuration access when someone
 * claims the function. (PCI local bus 3.0, 3.2.2.3.2.) */
static __attribute__((noinline)) struct ioreq_server *choose_config(struct ioreq_domain *id,
                                                                    ioreq_t *p)
{
    uint32_t cf8 = READ_ONCE(id->cf8), sbdf = cf8_sbdf(cf8);
    struct target t = {XEN_DMOP_IO_RANGE_PCI, sbdf, sbdf};
    struct ioreq_server *s;

    if (!(cf8 & CF8_ENABLE) || p->count != 1 || p->data_is_ptr ||
        (p->addr & 3) + p->size > sizeof(uint32_t))
        return NULL;
    s = choose(id, &t);
    if (s) {
        p->type = IOREQ_TYPE_PCI_CONFIG;
        p->addr = (uint64_t)sbdf << 32 | (cf8 & 0xfc) | (p->addr & 3);
    }
    return s;
}

static inline struct ioreq_server *choose_for(struct ioreq_domain *id, ioreq_t *p)
{
    struct ioreq_server *s = NULL;
    struct target t = {XEN_DMOP_IO_RANGE_PORT, p->addr, p->addr + p->size - 1};
    uint64_t extent;

    switch (p->type) {
    case IOREQ_TYPE_PIO:
        if ((p->addr & ~3ULL) == 0xcfc)
            s = choose_config(id, p);
        if (s)
            return s;
        break;
    case IOREQ_TYPE_COPY:
        extent = p->count > 1 ? (uint64_t)p->size * (p->count - 1) : 0;
        t.kind = XEN_DMOP_IO_RANGE_MEMORY;
        if (p->df)
            t.first -= extent;
        else
            t.last += extent;
        if (t.first > t.last)
            return NULL;
        break;
    case IOREQ_TYPE_PCI_CONFIG:
        t = (struct target){XEN_DMOP_IO_RANGE_PCI, p->addr >> 32, p->addr >> 32};
        break;
    default:
        return NULL;
    }
    return choose(id, &t);
}

/* ---- posting -------------------------------------------------------------------------------- */

/* Fold both pointers back by whole rings, so that they never wrap; lock is held. When the emulator
 * moves its own at that moment, the next post tries again. */
static void ring_fold(struct ioreq_server *s, uint32_t read)
{
    uint64_t old = (uint64_t)s->ring_write << 32 | read;
    uint32_t by = read - read % RING_SLOTS;

    if (s->bufmode != HVM_IOREQSRV_BUFIOREQ_ATOMIC || by == 0)
        return;
    if (atomic_cas(&s->ring->both, old, old - ((uint64_t)by << 32 | by)))
        s->ring_write -= by;
}

/* Post p, false when it does not fit in a slot or the ring is full (or its pointers are nonsense):
 * it must be sent synchronously then. lock is held. */
static bool ring_post(struct ioreq_server *s, const ioreq_t *p)
{
    unsigned slots = p->size == 8 ? 2 : 1, size_log2;
    uint32_t read, write = s->ring_write;
    union ring_slot slot;

    if (!s->ring || p->dir != IOREQ_WRITE || p->data_is_ptr || p->count != 1)
        return false;
    if (p->addr + p->size > 1u << 20 || p->size == 0 || p->size > 8 || (p->size & (p->size - 1)))
        return false;
    read = READ_ONCE(s->ring->read);
    if (read > write || write - read > RING_SLOTS - slots || write >= RING_END)
        return false;
    size_log2 = __builtin_ctz(p->size);
    for (unsigned i = 0; i < slots; i++) {
        slot.req = (buf_ioreq_t){.type = p->type,
                                 .dir = IOREQ_WRITE,
                                 .size = size_log2,
                                 .addr = p->addr,
                                 .data = p->data >> (32 * i)};
        WRITE_ONCE(s->ring->slot[(write + i) % RING_SLOTS].word, slot.word);
    }
    s->ring_write = write + slots;
    atomic_store(&s->ring->write, s->ring_write);
    if (unlikely(read >= RING_SLOTS))
        ring_fold(s, read);
    return true;
}

void ioreq_broadcast(struct domain *d, ioreq_t *p)
{
    struct ioreq_domain *id = d->ioreq;
    uint32_t ports[IOREQ_SERVERS_MAX];
    unsigned n = 0;

    if (!id)
        return;
    spin_lock(&id->lock);
    for (unsigned i = 0; i < IOREQ_SERVERS_MAX; i++)
        if (id->server[i] && id->server[i]->enabled && ring_post(id->server[i], p))
            ports[n++] = id->server[i]->ring_port;
    spin_unlock(&id->lock);
    while (n > 0)
        evtchn_notify_xen_port(d, ports[--n]);
}

/* Emulators read the ring before they look at a request, so posting is soon enough. */
void ioreq_invalidate(struct domain *d)
{
    ioreq_t p = {.type = IOREQ_TYPE_INVALIDATE,
                 .dir = IOREQ_WRITE,
                 .count = 1,
                 .size = 4,
                 .data = UINT32_MAX};

    ioreq_broadcast(d, &p);
}

/* ---- requests ------------------------------------------------------------------------------- */

/* Write the request, its state last, and wait for the answer. Not locked: v runs, so s stays. */
static enum ioreq_result send_sync(struct vcpu *v, struct ioreq_server *s, const ioreq_t *p)
{
    const union ioreq_slot *ask = (const union ioreq_slot *)p;
    union ioreq_slot *slot = &s->slot[v->id], last = {.word[3] = ask->word[3]};
    struct ioreq_vcpu *iv = v->ioreq;
    uint32_t port = s->port[v->id];
    unsigned state = slot_state(slot);

    if (unlikely(state != STATE_IOREQ_NONE)) {
        iv->server = NULL;
        domain_crash(v->domain, "ioreq: device model left vCPU %u's slot in state %u", v->id,
                     state);
        return IOREQ_NO_SERVER;
    }
    last.req.state = STATE_IOREQ_READY;
    last.req.vp_eport = port;
    iv->outstanding = true;
    WRITE_ONCE(slot->word[0], ask->word[0]);
    WRITE_ONCE(slot->word[1], ask->word[1]);
    WRITE_ONCE(slot->word[2], ask->word[2]);
    vcpu_block(v, VBLOCK_IOREQ);
    atomic_store(&slot->word[3], last.word[3]);
    evtchn_notify_xen_port(v->domain, port);
    return IOREQ_PENDING;
}

static enum ioreq_result send_to(struct vcpu *v, ioreq_t *p, bool buffered, bool mem_type)
{
    struct ioreq_domain *id = v->domain->ioreq;
    struct ioreq_vcpu *iv = v->ioreq;
    struct ioreq_server *s;

    if (unlikely(!id || !iv))
        return IOREQ_NO_SERVER;
    if (unlikely(iv->outstanding)) {
        domain_crash(v->domain, "ioreq: vCPU %u asks while it waits for an answer", v->id);
        return IOREQ_NO_SERVER;
    }
    spin_lock(&id->lock);
    if (mem_type) {
        s = id->mem_type_server >= 0 ? id->server[id->mem_type_server] : NULL;
        s = s && s->enabled ? s : NULL;
    } else {
        s = choose_for(id, p);
    }
    if (s && buffered && ring_post(s, p)) {
        spin_unlock(&id->lock);
        evtchn_notify_xen_port(v->domain, s->ring_port);
        return IOREQ_DONE;
    }
    iv->server = s;
    spin_unlock(&id->lock);
    return s ? send_sync(v, s, p) : IOREQ_NO_SERVER;
}

enum ioreq_result ioreq_send(struct vcpu *v, ioreq_t *p, bool buffered)
{
    return send_to(v, p, buffered, false);
}

enum ioreq_result ioreq_send_mem_type(struct vcpu *v, ioreq_t *p)
{
    return send_to(v, p, false, true);
}

bool ioreq_outstanding(struct vcpu *v)
{
    struct ioreq_vcpu *iv = v->ioreq;

    return iv && iv->outstanding;
}

/* There is no answer that the emulator may give: none yet, then v is blocked again before the last
 * look, or nonsense. */
static __attribute__((noinline)) bool await_answer(struct vcpu *v, uint64_t *data)
{
    struct ioreq_vcpu *iv = v->ioreq;
    const union ioreq_slot *slot = &iv->server->slot[v->id];
    unsigned state = slot_state(slot);

    if (being_served(state)) {
        vcpu_block(v, VBLOCK_IOREQ);
        smp_mb();
        state = slot_state(slot);
        if (being_served(state))
            return false;
        vcpu_unblock(v, VBLOCK_IOREQ);
    }
    if (state == STATE_IORESP_READY)
        return ioreq_take_response(v, data);
    iv->outstanding = false;
    WRITE_ONCE(iv->server, NULL);
    domain_crash(v->domain, "ioreq: device model answered vCPU %u with state %u", v->id, state);
    return false;
}

bool ioreq_take_response(struct vcpu *v, uint64_t *data)
{
    struct ioreq_vcpu *iv = v->ioreq;
    struct ioreq_server *s;

    if (!iv || !iv->outstanding)
        return false;
    s = READ_ONCE(iv->server);
    if (unlikely(!s)) { /* its server went away */
        *data = ~0ULL;
    } else {
        union ioreq_slot *slot = &s->slot[v->id];

        if (unlikely(slot_state(slot) != STATE_IORESP_READY))
            return await_answer(v, data);
        *data = READ_ONCE(slot->word[1]);
        atomic_store(&slot->word[3], (uint64_t)s->port[v->id]);
        WRITE_ONCE(iv->server, NULL);
    }
    iv->outstanding = false;
    return true;
}

/* ---- the configuration address latch -------------------------------------------------------- */

/* Latch what a 4-byte write to 0xCF8 gives. True when nobody else needs to know: the function
 * selected is one that a server claims. Otherwise the write goes on to whoever claims the port, so
 * that its own latch is right when it gets the plain access to 0xCFC. */
bool ioreq_cf8_write(struct vcpu *v, uint32_t val)
{
    struct ioreq_domain *id = v->domain->ioreq;
    struct target t = {XEN_DMOP_IO_RANGE_PCI, cf8_sbdf(val), cf8_sbdf(val)};
    bool claimed;

    if (!id)
        return false;
    WRITE_ONCE(id->cf8, val);
    if (!(val & CF8_ENABLE))
        return false;
    spin_lock(&id->lock);
    claimed = choose(id, &t);
    spin_unlock(&id->lock);
    return claimed;
}

uint32_t ioreq_cf8_read(struct vcpu *v)
{
    return v->domain->ioreq ? READ_ONCE(v->domain->ioreq->cf8) : ~0u;
}

void ioreq_emulator_closed(struct vcpu *v)
{
    struct domain *d = v->domain;

    if (READ_ONCE(d->systemcontroller_pauses) || READ_ONCE(d->shutting_down) ||
        READ_ONCE(d->dying) != DOMAIN_ALIVE)
        return;
    domain_crash(d, "its device model is gone");
}
