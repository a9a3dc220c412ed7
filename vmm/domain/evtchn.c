/* evtchn.c: event channels: a port of one domain wired to a port of another, to a VIRQ, or to a
 * vCPU.
 *
 * A channel is one bit of news. Setting it pending marks the domain's shared memory (the 2-level
 * bitmaps here, the FIFO's queues in evtchn_fifo.c) and tells a vCPU once (callback.c). Locks are
 * told in evtchn.h.
 */
#include "domain/evtchn.h"
#include "platform/platform.h"

#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"

/* ---- delivery ------------------------------------------------------------------------------- */

static __attribute__((noinline)) void wake_pollers(struct domain *d, unsigned port)
{
    struct evtchn_domain *ed = d->evtchn;

    for (unsigned i = 0; i < ARRAY_SIZE(ed->polling); i++) {
        for (uint64_t left = READ_ONCE(ed->polling[i]); left; left &= left - 1) {
            struct vcpu *v = d->vcpu[i * 64 + (unsigned)__builtin_ctzll(left)];
            uint32_t on = READ_ONCE(v->poll_port);

            if ((on == port || on == EVTCHN_POLL_SEVERAL) && test_and_clear_bit(v->id, ed->polling))
                vcpu_unblock(v, VBLOCK_POLL);
        }
    }
}

static inline void set_pending(struct domain *d, struct evtchn *chn, unsigned port)
{
    struct evtchn_domain *ed = d->evtchn;
    struct evtchn_fifo *f = atomic_load(&ed->fifo);

    if (f)
        evtchn_fifo_set_pending(d, f, chn, port);
    else
        evtchn_2l_set_pending(d, chn, port);
    if (unlikely(READ_ONCE(ed->polling[0]) | READ_ONCE(ed->polling[1])))
        wake_pollers(d, port);
}
STATIC_ASSERT(ARRAY_SIZE(((struct evtchn_domain *)0)->polling) == 2);

void evtchn_set_pending(struct domain *d, struct evtchn *chn, unsigned port)
{
    set_pending(d, chn, port);
}

static bool is_pending(struct domain *d, unsigned port)
{
    struct evtchn_fifo *f = atomic_load(&d->evtchn->fifo);

    return f ? evtchn_fifo_pending(f, port) : evtchn_2l_pending(d, port);
}

int evtchn_port_pending(struct domain *d, unsigned port)
{
    struct evtchn *chn = evtchn_get(d, port);
    int rc = -EINVAL;

    if (!chn)
        return rc;
    spin_lock(&chn->lock);
    if (chn->state != EVTCHNSTAT_closed)
        rc = is_pending(d, port);
    spin_unlock(&chn->lock);
    return rc;
}

/* Raise the far end of chn, which is interdomain and locked. */
static inline __attribute__((always_inline)) void send_to_peer(struct evtchn *chn)
{
    struct domain *d = chn->peer;
    struct evtchn *far = evtchn_get(d, chn->peer_port);

    if (far->xen_fn)
        far->xen_fn(d->vcpu[far->vcpu]);
    else
        set_pending(d, far, chn->peer_port);
}

static int evtchn_send(struct domain *d, unsigned port)
{
    struct evtchn *chn = evtchn_get(d, port);
    int rc = 0;

    if (!chn)
        return -EINVAL;
    spin_lock(&chn->lock);
    if (chn->xen_fn)
        rc = -EINVAL;
    else if (chn->state == EVTCHNSTAT_interdomain)
        send_to_peer(chn);
    else if (chn->state == EVTCHNSTAT_ipi)
        evtchn_set_pending(d, chn, port);
    else if (chn->state != EVTCHNSTAT_unbound) /* nobody there yet: not an error */
        rc = -EINVAL;
    spin_unlock(&chn->lock);
    return rc;
}

void evtchn_notify_xen_port(struct domain *d, unsigned port)
{
    struct evtchn *chn = evtchn_get(d, port);

    if (!chn)
        return;
    spin_lock(&chn->lock);
    if (chn->xen_fn && chn->state == EVTCHNSTAT_interdomain)
        send_to_peer(chn);
    spin_unlock(&chn->lock);
}

static bool virq_is_global(unsigned virq)
{
    return virq != VIRQ_TIMER && virq != VIRQ_DEBUG && virq != VIRQ_XENOPROF && virq != VIRQ_XENPMU;
}

static void raise_virq(struct vcpu *v, unsigned virq)
{
    unsigned port = READ_ONCE(v->virq_to_port[virq]);
    struct evtchn *chn = evtchn_get(v->domain, port);

    if (!chn)
        return;
    spin_lock(&chn->lock); /* closed or reused meanwhile: not this VIRQ's any more */
    if (chn->state == EVTCHNSTAT_virq && chn->peer_port == virq &&
        (virq_is_global(virq) || chn->vcpu == v->id))
        evtchn_set_pending(v->domain, chn, port);
    spin_unlock(&chn->lock);
}

void send_vcpu_virq(struct vcpu *v, unsigned virq)
{
    ASSERT(virq < NR_VIRQS && !virq_is_global(virq));
    raise_virq(v, virq);
}

void send_domain_virq(struct domain *d, unsigned virq)
{
    ASSERT(virq < NR_VIRQS && virq_is_global(virq));
    if (d && d->evtchn && d->vcpu[0])
        raise_virq(d->vcpu[0], virq); /* a global VIRQ is bound through vCPU 0 */
}

void send_global_virq(unsigned virq)
{
    send_domain_virq(dom0, virq);
}

/* ---- ports ---------------------------------------------------------------------------------- */

/* A free port of d and its channel, closed still; or -ENOSPC, -ENOMEM, -ESRCH. Holds ed->lock. */
static int find_port(struct domain *d, struct evtchn **chn)
{
    struct evtchn_domain *ed = d->evtchn;
    unsigned limit = ed->fifo ? (unsigned)EVTCHN_FIFO_NR_CHANNELS : evtchn_2l_ports(d);

    if (ed->dead)
        return -ESRCH;
    limit = MIN(limit, ed->nr_buckets * EVTCHN_BUCKET);
    if (d->max_evtchn_port < limit)
        limit = d->max_evtchn_port + 1;
    for (unsigned port = ed->first_free; port < limit; port++) {
        struct evtchn **bucket = &ed->bucket[port / EVTCHN_BUCKET];

        if (!*bucket) {
            struct evtchn *page = page_alloc();

            if (!page)
                return -ENOMEM;
            for (unsigned i = 0; i < EVTCHN_BUCKET; i++)
                page[i].priority = EVTCHN_FIFO_PRIORITY_DEFAULT;
            atomic_store(bucket, page);
        }
        *chn = evtchn_get(d, port);
        /* A word still in a queue would come out as the new owner's event. */
        if ((*chn)->state == EVTCHNSTAT_closed && !(ed->fifo && evtchn_fifo_linked(ed->fifo, port)))
            return (int)port;
        if (port == ed->first_free && (*chn)->state != EVTCHNSTAT_closed)
            ed->first_free++;
    }
    return -ENOSPC;
}

/* Turn the closed channel into a used one of vCPU `vcpu`. Holds ed->lock and chn->lock. */
static void open_port(struct domain *d, struct evtchn *chn, uint8_t state, unsigned vcpu)
{
    chn->vcpu = (uint16_t)vcpu;
    chn->priority = EVTCHN_FIFO_PRIORITY_DEFAULT;
    chn->state = state;
    d->evtchn->used++;
}

/* Close what needs no peer, or whose peer was disconnected. Holds ed->lock and chn->lock. */
static void shut_port(struct domain *d, struct evtchn *chn, unsigned port)
{
    struct evtchn_domain *ed = d->evtchn;

    if (chn->state == EVTCHNSTAT_virq)
        for (unsigned i = 0; i < d->max_vcpus; i++)
            if (d->vcpu[i] && d->vcpu[i]->virq_to_port[chn->peer_port] == port)
                WRITE_ONCE(d->vcpu[i]->virq_to_port[chn->peer_port], 0);
    if (ed->fifo)
        evtchn_fifo_clear_pending(ed->fifo, port);
    else
        evtchn_2l_clear_pending(d, port);
    if (chn->xen_fn)
        ed->xen_ports--;
    chn->xen_fn = NULL;
    chn->missed = false;
    chn->peer = NULL;
    chn->peer_port = 0;
    chn->vcpu = 0;
    chn->state = EVTCHNSTAT_closed;
    ed->used--;
    ed->first_free = MIN(ed->first_free, port);
}

static void lock_domains(struct domain *a, struct domain *b)
{
    struct domain *first = !b || a < b ? a : b, *second = first == a ? b : a;

    spin_lock(&first->evtchn->lock);
    if (second && second != first)
        spin_lock(&second->evtchn->lock);
}

static void unlock_domains(struct domain *a, struct domain *b)
{
    spin_unlock(&a->evtchn->lock);
    if (b && b != a)
        spin_unlock(&b->evtchn->lock);
}

/* The far end of chn goes back to waiting for d. Returns the vCPU of a far end that is Ringfence's
 * own, else NULL. Holds both domains' locks and chn->lock. */
static struct vcpu *disconnect(struct domain *d, struct evtchn *chn)
{
    struct evtchn *far = evtchn_get(chn->peer, chn->peer_port);
    struct vcpu *ours = far->xen_fn ? chn->peer->vcpu[far->vcpu] : NULL;

    if (far != chn)
        spin_lock(&far->lock);
    far->state = EVTCHNSTAT_unbound;
    far->peer = NULL;
    far->peer_domid = d->id;
    far->peer_port = 0;
    if (far != chn)
        spin_unlock(&far->lock);
    return ours;
}

/* Close d's port. 0 or -EINVAL: not in use, or the hypervisor's and the guest asks. No locks held.
 */
static int close_port(struct domain *d, unsigned port, bool by_guest)
{
    struct evtchn *chn = evtchn_get(d, port);
    struct domain *peer = NULL; /* referenced */
    struct vcpu *bereft = NULL;
    int rc = -EINVAL;

    if (!chn)
        return rc;
    for (;;) { /* until the locks of the domain at the far end, as it is now, are held */
        struct domain *want;

        lock_domains(d, peer);
        want = chn->state == EVTCHNSTAT_interdomain && chn->peer != d ? chn->peer : NULL;
        if (!want || want == peer)
            break;
        domain_hold(want); /* alive: it cannot die without taking our lock to disconnect */
        unlock_domains(d, peer);
        if (peer)
            domain_put(peer);
        peer = want;
    }
    if (chn->state != EVTCHNSTAT_closed && !(by_guest && chn->xen_fn)) {
        spin_lock(&chn->lock);
        if (chn->state == EVTCHNSTAT_interdomain)
            bereft = disconnect(d, chn);
        shut_port(d, chn, port);
        spin_unlock(&chn->lock);
        rc = 0;
    }
    unlock_domains(d, peer);
    if (bereft && bereft->domain == peer)
        ioreq_emulator_closed(bereft);
    if (peer)
        domain_put(peer);
    return rc;
}

int evtchn_alloc_xen_port(struct domain *d, unsigned vcpu_id, domid_t remote,
                          void (*fn)(struct vcpu *))
{
    struct evtchn *chn;
    int port;

    if (vcpu_id >= d->max_vcpus || !d->vcpu[vcpu_id])
        return -ENOENT;
    spin_lock(&d->evtchn->lock);
    port = find_port(d, &chn);
    if (port >= 0) {
        spin_lock(&chn->lock);
        chn->peer_domid = remote;
        chn->xen_fn = fn;
        open_port(d, chn, EVTCHNSTAT_unbound, vcpu_id);
        d->evtchn->xen_ports++;
        spin_unlock(&chn->lock);
    }
    spin_unlock(&d->evtchn->lock);
    return port;
}

void evtchn_free_xen_port(struct domain *d, unsigned port)
{
    close_port(d, port, false);
}

/* ---- operations ----------------------------------------------------------------------------- */

static int op_alloc_unbound(struct vcpu *v, struct evtchn_alloc_unbound *op)
{
    struct evtchn *chn;
    struct domain *d;
    int port = domain_resolve(v, op->dom, &d);

    if (port)
        return port;
    spin_lock(&d->evtchn->lock);
    port = find_port(d, &chn);
    if (port >= 0) {
        spin_lock(&chn->lock);
        chn->peer_domid = op->remote_dom == DOMID_SELF ? v->domain->id : op->remote_dom;
        open_port(d, chn, EVTCHNSTAT_unbound, 0);
        spin_unlock(&chn->lock);
    }
    spin_unlock(&d->evtchn->lock);
    domain_put(d);
    if (port < 0)
        return port;
    op->port = (unsigned)port;
    return 0;
}

static int op_bind_interdomain(struct vcpu *v, struct evtchn_bind_interdomain *op)
{
    struct domain *d = v->domain, *rd;
    struct evtchn *chn, *far;
    int port = -EINVAL;

    rd = domain_get(op->remote_dom == DOMID_SELF ? d->id : op->remote_dom);
    if (!rd)
        return -ESRCH;
    far = evtchn_get(rd, op->remote_port);
    lock_domains(d, rd);
    if (far && far->state == EVTCHNSTAT_unbound && far->peer_domid == d->id && !rd->evtchn->dead)
        port = find_port(d, &chn);
    if (port >= 0) {
        spin_lock(&chn->lock); /* both ed->locks held: nobody else takes two channels' locks */
        spin_lock(&far->lock);
        far->peer = d;
        far->peer_port = (unsigned)port;
        far->state = EVTCHNSTAT_interdomain;
        chn->peer = rd;
        chn->peer_port = op->remote_port;
        open_port(d, chn, EVTCHNSTAT_interdomain, 0);
        /* The far end may have sent before there was anybody to hear it. */
        evtchn_set_pending(d, chn, (unsigned)port);
        spin_unlock(&far->lock);
        spin_unlock(&chn->lock);
    }
    unlock_domains(d, rd);
    domain_put(rd);
    if (port < 0)
        return port;
    op->local_port = (unsigned)port;
    return 0;
}

/* Bind a VIRQ or an IPI of vCPU `id`. */
static int bind_local(struct domain *d, uint8_t state, uint32_t virq, uint32_t id, uint32_t *out)
{
    struct evtchn_domain *ed = d->evtchn;
    struct evtchn *chn;
    int port;

    if (state == EVTCHNSTAT_virq && (virq >= NR_VIRQS || (virq_is_global(virq) && id)))
        return -EINVAL;
    if (id >= d->max_vcpus || !d->vcpu[id])
        return -ENOENT;
    spin_lock(&ed->lock);
    if (state == EVTCHNSTAT_virq && d->vcpu[id]->virq_to_port[virq])
        port = -EEXIST;
    else
        port = find_port(d, &chn);
    if (port >= 0) {
        spin_lock(&chn->lock);
        chn->peer_port = virq;
        open_port(d, chn, state, id);
        if (state == EVTCHNSTAT_virq)
            WRITE_ONCE(d->vcpu[id]->virq_to_port[virq], (unsigned)port);
        spin_unlock(&chn->lock);
        *out = (unsigned)port;
    }
    spin_unlock(&ed->lock);
    return port < 0 ? port : 0;
}

static int op_status(struct vcpu *v, struct evtchn_status *op)
{
    struct evtchn *chn;
    struct domain *d;
    int rc = domain_resolve(v, op->dom, &d);

    if (rc)
        return rc;
    chn = evtchn_get(d, op->port);
    if (!chn) {
        rc = -EINVAL;
    } else {
        spin_lock(&chn->lock);
        op->status = chn->state;
        op->vcpu = chn->vcpu;
        if (chn->state == EVTCHNSTAT_unbound) {
            op->u.unbound.dom = chn->peer_domid;
        } else if (chn->state == EVTCHNSTAT_interdomain) {
            op->u.interdomain.dom = chn->peer->id;
            op->u.interdomain.port = chn->peer_port;
        } else if (chn->state == EVTCHNSTAT_virq) {
            op->u.virq = chn->peer_port;
        }
        spin_unlock(&chn->lock);
    }
    domain_put(d);
    return rc;
}

static int op_bind_vcpu(struct domain *d, const struct evtchn_bind_vcpu *op)
{
    struct evtchn *chn = evtchn_get(d, op->port);
    int rc = 0;

    if (op->vcpu >= d->max_vcpus || !d->vcpu[op->vcpu])
        return -ENOENT;
    if (!chn)
        return -EINVAL;
    spin_lock(&chn->lock);
    if (chn->xen_fn || chn->state == EVTCHNSTAT_closed || chn->state == EVTCHNSTAT_ipi ||
        (chn->state == EVTCHNSTAT_virq && !virq_is_global(chn->peer_port)))
        rc = -EINVAL;
    else
        WRITE_ONCE(chn->vcpu, (uint16_t)op->vcpu);
    spin_unlock(&chn->lock);
    return rc;
}

static int op_unmask(struct domain *d, unsigned port)
{
    struct evtchn *chn = evtchn_get(d, port);
    struct evtchn_fifo *f = atomic_load(&d->evtchn->fifo);

    if (!chn)
        return -EINVAL;
    spin_lock(&chn->lock);
    if (chn->state != EVTCHNSTAT_closed) {
        if (f)
            evtchn_fifo_unmask(d, f, chn, port);
        else
            evtchn_2l_unmask(d, chn, port);
    }
    spin_unlock(&chn->lock);
    return 0;
}

static int op_set_priority(struct domain *d, const struct evtchn_set_priority *op)
{
    struct evtchn *chn = evtchn_get(d, op->port);
    int rc = 0;

    if (!atomic_load(&d->evtchn->fifo))
        return -ENOSYS;
    if (!chn || op->priority > EVTCHN_FIFO_PRIORITY_MIN)
        return -EINVAL;
    spin_lock(&chn->lock);
    if (chn->state == EVTCHNSTAT_closed)
        rc = -EINVAL;
    else
        WRITE_ONCE(chn->priority, (uint8_t)op->priority);
    spin_unlock(&chn->lock);
    return rc;
}

static long op_reset(struct vcpu *v, domid_t id)
{
    struct evtchn_domain *ed;
    struct domain *d;
    long rc = domain_resolve(v, id, &d);
    unsigned port;

    if (rc)
        return rc;
    ed = d->evtchn;
    for (port = ed->reset_next; port < ed->nr_buckets * EVTCHN_BUCKET; port++) {
        if (!ed->bucket[port / EVTCHN_BUCKET]) {
            port |= EVTCHN_BUCKET - 1;
            continue;
        }
        close_port(d, port, true);
        if (port % 64 == 63 && hypercall_preempt_check()) {
            ed->reset_next = port + 1;
            domain_put(d);
            return hypercall_continue(v);
        }
    }
    spin_lock(&ed->lock);
    ed->reset_next = 0;
    if (ed->used == ed->xen_ports)
        evtchn_fifo_destroy(d);
    else
        rc = -EBUSY; /* somebody binds while resetting */
    spin_unlock(&ed->lock);
    domain_put(d);
    return rc;
}

/* The operations' arguments, the same for 32-bit callers, and which come back with an answer. */
static const struct {
    uint8_t bytes;
    bool answers;
} op_args[] = {
    [EVTCHNOP_bind_interdomain] = {sizeof(struct evtchn_bind_interdomain), true},
    [EVTCHNOP_bind_virq] = {sizeof(struct evtchn_bind_virq), true},
    [EVTCHNOP_close] = {sizeof(struct evtchn_close), false},
    [EVTCHNOP_status] = {sizeof(struct evtchn_status), true},
    [EVTCHNOP_alloc_unbound] = {sizeof(struct evtchn_alloc_unbound), true},
    [EVTCHNOP_bind_ipi] = {sizeof(struct evtchn_bind_ipi), true},
    [EVTCHNOP_bind_vcpu] = {sizeof(struct evtchn_bind_vcpu), false},
    [EVTCHNOP_unmask] = {sizeof(struct evtchn_unmask), false},
    [EVTCHNOP_reset] = {sizeof(struct evtchn_reset), false},
    [EVTCHNOP_init_control] = {sizeof(struct evtchn_init_control), true},
    [EVTCHNOP_expand_array] = {sizeof(struct evtchn_expand_array), false},
    [EVTCHNOP_set_priority] = {sizeof(struct evtchn_set_priority), false},
};

static __attribute__((noinline)) long other_op(struct vcpu *v, const uint64_t arg[6])
{
    union {
        struct evtchn_bind_interdomain bind_interdomain;
        struct evtchn_bind_virq bind_virq;
        struct evtchn_close close;
        struct evtchn_status status;
        struct evtchn_alloc_unbound alloc_unbound;
        struct evtchn_bind_ipi bind_ipi;
        struct evtchn_bind_vcpu bind_vcpu;
        struct evtchn_unmask unmask;
        struct evtchn_reset reset;
        struct evtchn_init_control init_control;
        struct evtchn_expand_array expand_array;
        struct evtchn_set_priority set_priority;
    } u;
    struct domain *d = v->domain;
    unsigned cmd = (unsigned)arg[0];
    long rc = -ENOSYS;

    if (cmd >= ARRAY_SIZE(op_args) || !op_args[cmd].bytes) /* bind_pirq: no guest gets a real IRQ */
        return hypercall_missing(v, "event_channel_op", cmd,
                                 cmd == EVTCHNOP_bind_pirq ? -EOPNOTSUPP : -ENOSYS);
    if (copy_from_guest(&u, arg[1], op_args[cmd].bytes))
        return -EFAULT;

    switch (cmd) {
    case EVTCHNOP_unmask:
        return op_unmask(d, u.unmask.port);
    case EVTCHNOP_bind_interdomain:
        rc = op_bind_interdomain(v, &u.bind_interdomain);
        break;
    case EVTCHNOP_bind_virq:
        rc = bind_local(d, EVTCHNSTAT_virq, u.bind_virq.virq, u.bind_virq.vcpu, &u.bind_virq.port);
        break;
    case EVTCHNOP_bind_ipi:
        rc = bind_local(d, EVTCHNSTAT_ipi, 0, u.bind_ipi.vcpu, &u.bind_ipi.port);
        break;
    case EVTCHNOP_close:
        rc = close_port(d, u.close.port, true);
        break;
    case EVTCHNOP_status:
        rc = op_status(v, &u.status);
        break;
    case EVTCHNOP_alloc_unbound:
        rc = op_alloc_unbound(v, &u.alloc_unbound);
        break;
    case EVTCHNOP_bind_vcpu:
        rc = op_bind_vcpu(d, &u.bind_vcpu);
        break;
    case EVTCHNOP_reset:
        rc = op_reset(v, u.reset.dom);
        break;
    case EVTCHNOP_init_control:
        rc = evtchn_fifo_init_control(d, &u.init_control);
        break;
    case EVTCHNOP_expand_array:
        rc = evtchn_fifo_expand_array(d, u.expand_array.array_gfn);
        break;
    case EVTCHNOP_set_priority:
        rc = op_set_priority(d, &u.set_priority);
        break;
    }
    if (!rc && op_args[cmd].answers && copy_to_guest(arg[1], &u, op_args[cmd].bytes))
        rc = -EFAULT;
    return rc;
}

/* HYPERVISOR_event_channel_op(cmd, argument). v is current; no locks held. */
long do_event_channel_op(struct vcpu *v, const uint64_t arg[6])
{
    struct evtchn_send send;

    if ((uint32_t)arg[0] != EVTCHNOP_send)
        return other_op(v, arg);
    if (copy_word_from_guest(v, &send.port, arg[1]))
        return -EFAULT;
    return evtchn_send(v->domain, send.port);
}

/* ---- life cycle ----------------------------------------------------------------------------- */

/* Make d's event channels; d->max_evtchn_port is set. -ENOMEM. */
int evtchn_domain_init(struct domain *d)
{
    unsigned ports = MIN(d->max_evtchn_port, (uint32_t)EVTCHN_FIFO_NR_CHANNELS - 1) + 1;
    unsigned buckets = (ports + EVTCHN_BUCKET - 1) / EVTCHN_BUCKET;
    struct evtchn_domain *ed = kzalloc(sizeof(*ed) + buckets * sizeof(ed->bucket[0]));

    if (!ed)
        return -ENOMEM;
    ed->nr_buckets = buckets;
    ed->first_free = 1; /* port 0 is never used */
    d->evtchn = ed;
    return 0;
}

/* Close every port and let go of the guest's pages; d's vCPUs do not run any more. Idempotent. */
void evtchn_domain_destroy(struct domain *d)
{
    struct evtchn_domain *ed = d->evtchn;

    if (!ed)
        return;
    spin_lock(&ed->lock);
    ed->dead = true;
    spin_unlock(&ed->lock);
    for (unsigned port = 1; port < ed->nr_buckets * EVTCHN_BUCKET && READ_ONCE(ed->used); port++)
        close_port(d, port, false);
    spin_lock(&ed->lock);
    evtchn_fifo_destroy(d);
    spin_unlock(&ed->lock);
    for (unsigned i = 0; i < d->max_vcpus; i++)
        if (d->vcpu[i])
            evtchn_unmap_vcpu_info(d->vcpu[i]);
}

void evtchn_domain_free(struct domain *d)
{
    struct evtchn_domain *ed = d->evtchn;

    if (!ed)
        return;
    ASSERT(!ed->used && !ed->fifo); /* destroyed, or never used */
    for (unsigned i = 0; i < ed->nr_buckets; i++)
        if (ed->bucket[i])
            page_free(ed->bucket[i]);
    kfree(ed);
    d->evtchn = NULL;
}
