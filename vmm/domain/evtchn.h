/* evtchn.h: what evtchn.c, evtchn_fifo.c, callback.c and sched_op.c share: the port and its tables.
 *
 * Locks, outermost first:
 * - ed->lock: allocation, closing, binding, the FIFO's set-up. Two domains: lower address first.
 * - chn->lock: the channel's state. A sender holds the lock of the port it sends from, and no other
 *   channel's. Binding and closing hold both domains' ed->lock, then both ends' locks, the caller's
 *   end first: so the far end, its domain and the event words stay while a send is under way.
 * - queue lock: one FIFO queue.
 * - callback_lock: the level of the callback's interrupt line.
 * Ports' structures are never freed before the domain's last reference, so a lookup needs no lock.
 */
#pragma once

#include "core/atomic.h"
#include "domain/domain.h"

#define EVTCHN_BUCKET       128  /* channels in a page */
#define EVTCHN_FIFO_WORDS   1024 /* event words in an array page */
#define EVTCHN_FIFO_PAGES   (EVTCHN_FIFO_NR_CHANNELS / EVTCHN_FIFO_WORDS)
#define EVTCHN_POLL_SEVERAL (~0u)

struct evtchn {
    spinlock_t lock;     /* guards all but what names another guard */
    uint8_t state;       /* EVTCHNSTAT_* */
    uint8_t priority;    /* FIFO: of the next delivery */
    uint16_t vcpu;       /* to notify */
    uint16_t last_queue; /* FIFO: vcpu << 8 | priority it was last linked to; both queues' locks */
    bool missed;         /* FIFO: set pending before its event word existed; atomic */
    uint32_t peer_port;  /* interdomain: the far port. virq: its number */
    union {
        struct domain *peer; /* interdomain */
        domid_t peer_domid;  /* unbound: who may bind */
    };
    void (*xen_fn)(struct vcpu *v); /* not NULL: the hypervisor is the consumer */
};
STATIC_ASSERT(sizeof(struct evtchn) * EVTCHN_BUCKET <= PAGE_SIZE);

struct evtchn_fifo;

struct evtchn_domain {
    spinlock_t lock;
    bool dead; /* no new ports */
    unsigned nr_buckets;
    unsigned first_free;      /* no port below it is free */
    unsigned used, xen_ports; /* ports in use; of those, the hypervisor's */
    unsigned reset_next;      /* EVTCHNOP_reset under way: the next port to close */
    struct evtchn_fifo *fifo; /* NULL: 2-level ABI */
    uint64_t polling[(MAX_VCPUS_PER_DOMAIN + 63) / 64]; /* vCPUs in SCHEDOP_poll; atomic */
    spinlock_t callback_lock;
    struct evtchn *bucket[]; /* nr_buckets, each a page, allocated on demand */
};

/* d's channel `port`, free or not; NULL when there never was one. Any context. */
static inline struct evtchn *evtchn_get(const struct domain *d, unsigned port)
{
    const struct evtchn_domain *ed = d->evtchn;
    struct evtchn *bucket;

    if (!port || port / EVTCHN_BUCKET >= ed->nr_buckets)
        return NULL;
    bucket = atomic_load(&ed->bucket[port / EVTCHN_BUCKET]);
    return bucket ? &bucket[port % EVTCHN_BUCKET] : NULL;
}

/* False while v has no vcpu_info of its own: id >= 32 and none registered. */
bool evtchn_has_vcpu_info(const struct vcpu *v);
/* Tell v of pending events through its vcpu_info and callback, unless it was told already. */
void evtchn_mark_vcpu(struct vcpu *v);
/* Make d's port pending. Caller holds chn->lock or the lock of its interdomain peer. */
void evtchn_set_pending(struct domain *d, struct evtchn *chn, unsigned port);
/* Is d's port pending: 1, 0, or -EINVAL when it is not in use. Takes the channel's lock. */
int evtchn_port_pending(struct domain *d, unsigned port);

/* ---- evtchn_2l.c: for a domain with the 2-level ABI. chn->lock or its peer's is held -------- */
unsigned evtchn_2l_ports(const struct domain *d); /* how many ports the bitmaps have room for */
void evtchn_2l_set_pending(struct domain *d, struct evtchn *chn, unsigned port);
bool evtchn_2l_pending(const struct domain *d, unsigned port);
void evtchn_2l_clear_pending(struct domain *d, unsigned port);
void evtchn_2l_unmask(struct domain *d, struct evtchn *chn, unsigned port);

/* ---- evtchn_fifo.c: the same, for a domain that chose the FIFO ABI -------------------------- */
void evtchn_fifo_set_pending(struct domain *d, struct evtchn_fifo *f, struct evtchn *chn,
                             unsigned port);
bool evtchn_fifo_pending(const struct evtchn_fifo *f, unsigned port);
bool evtchn_fifo_linked(const struct evtchn_fifo *f, unsigned port);
void evtchn_fifo_clear_pending(struct evtchn_fifo *f, unsigned port);
void evtchn_fifo_unmask(struct domain *d, struct evtchn_fifo *f, struct evtchn *chn, unsigned port);
/* EVTCHNOP_init_control and _expand_array; take ed->lock. */
int evtchn_fifo_init_control(struct domain *d, struct evtchn_init_control *op);
int evtchn_fifo_expand_array(struct domain *d, gfn_t gfn);
/* Back to the 2-level ABI. Holds ed->lock, and no port but the hypervisor's is in use. */
void evtchn_fifo_destroy(struct domain *d);

/* ---- vcpu_op.c ------------------------------------------------------------------------------ */
void vcpu_arm_poll_timer(struct vcpu *v, uint64_t expires_ns);
