/* ioreq.c: device accesses travel to emulators in other domains, and their answers back.
 *
 * Every page shared with an emulator is hostile: the request is written from our own copy, of the
 * answer only state and data are read, once, and nothing in the pages steers us: which server a
 * vCPU waits for, its ports and the ring's write position are kept here.
 *
 * Locks: `control` serialises life cycle operations, and may be held while event channels, the p2m
 * and the heap are called; `lock` is the exit path's: short, taken inside control or an event
 * channel's lock, never held while those are called. Whatever takes a server away pauses the domain
 * first, so a running vCPU may use its server after dropping the lock.
 */
#include "platform/ioreq.h"

#include "core/atomic.h"
#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "platform/ioreq_range.h"

#define RANGE_KINDS 3 /* XEN_DMOP_IO_RANGE_PORT, _MEMORY, _PCI */
#define NO_PORT     0
#define RING_SLOTS  IOREQ_BUFFER_SLOT_NUM
/* Where a ring whose pointers cannot be folded back stops being used: indices must not wrap. */
#define RING_END 0xfffffc00u

/* Legacy gfns: those of HVM_PARAM_IOREQ_SERVER_PFN, then IOREQ_PFN and BUFIOREQ_PFN. */
#define LEGACY_SERVER_GFNS 8
#define LEGACY_GFNS        (LEGACY_SERVER_GFNS + 2)

/* A vCPU's slot in the synchronous page, touched by whole words only. */
union ioreq_slot {
    ioreq_t req;
    uint64_t word[4];
};
STATIC_ASSERT(sizeof(union ioreq_slot) == 32);
STATIC_ASSERT(MAX_VCPUS_PER_DOMAIN * sizeof(union ioreq_slot) <= PAGE_SIZE);
#define SLOT_STATE_SHIFT 48 /* ioreq_t.state in word[3] */

/* A slot of the ring. */
union ring_slot {
    buf_ioreq_t req;
    uint64_t word;
};
STATIC_ASSERT(sizeof(union ring_slot) == 8);

struct posted_page {
    union {
        struct {
            uint32_t read, write; /* read is the emulator's, write is ours */
        };
        uint64_t both;
    };
    union ring_slot slot[RING_SLOTS];
};
STATIC_ASSERT(sizeof(struct posted_page) <= PAGE_SIZE);

struct ioreq_server {
    domid_t emulator;
    bool enabled;    /* lock */
    uint8_t bufmode; /* HVM_IOREQSRV_BUFIOREQ_* */
    struct page_info *sync_page, *ring_page;
    union ioreq_slot *slot;          /* sync_page */
    struct posted_page *ring;        /* ring_page, NULL without */
    uint32_t ring_write;             /* lock; our own idea of ring->write */
    int sync_legacy, ring_legacy;    /* control; index of the gfn the page was given, or -1 */
    bool sync_visible, ring_visible; /* control; it is in the p2m there now */
    uint32_t ring_port;
    uint32_t port[MAX_VCPUS_PER_DOMAIN];
    struct io_ranges ranges[RANGE_KINDS]; /* lock */
};

struct ioreq_domain {
    spinlock_t control, lock;
    struct ioreq_server *server[IOREQ_SERVERS_MAX]; /* written under both locks */
    uint32_t cf8;         /* configuration address latch; racing vCPUs get what they deserve */
    int mem_type_server;  /* lock; -1 none */
    uint32_t legacy_used; /* control; bit per legacy gfn */
    bool dying;           /* control */
};

/* Per vCPU. server and lost: lock; the rest: v itself. */
struct ioreq_vcpu {
    struct ioreq_server *server; /* the one that owes us an answer */
    bool outstanding;            /* sent, and the answer not taken yet */
    ioreq_t sent;
};

/* What a request asks for, as ranges are kept. */
struct target {
    uint32_t kind;
    uint64_t first, last;
};

/* ---- the emulator's notifications --------------------------------------------------------- */

static unsigned slot_state(const union ioreq_slot *slot)
{
    return atomic_load(&slot->word[3]) >> SLOT_STATE_SHIFT & 0xf;
}

static bool being_served(unsigned state)
{
    return state == STATE_IOREQ_READY || state == STATE_IOREQ_INPROCESS;
}

/* The work bit must be there before the vCPU can run. */
static void wake(struct vcpu *v)
{
    vcpu_kick(v, VWORK_IOREQ);
    vcpu_unblock(v, VBLOCK_IOREQ);
}

/* In the emulator's evtchn send: event channel locks are held. A bad state is left for v to find.
 */
static void sync_notified(struct vcpu *v)
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
        wake(v);
}

static void ring_notified(struct vcpu *v)
{
    (void)v;
}

/* ---- pages and ports ------------------------------------------------------------------------ */

static struct page_info *shared_page_alloc(struct domain *d)
{
    struct page_info *pg = heap_alloc(0);

    if (pg)
        page_share_with_domain(pg, d);
    return pg;
}

static int vcpu_port_alloc(struct domain *d, struct ioreq_server *s, unsigned id)
{
    int port = evtchn_alloc_xen_port(d, id, s->emulator, sync_notified);

    if (port < 0)
        return port;
    s->port[id] = port;
    s->slot[id].word[3] = (uint32_t)port;
    return 0;
}

static void ports_free(struct domain *d, struct ioreq_server *s)
{
    for (unsigned i = 0; i < MAX_VCPUS_PER_DOMAIN; i++)
        if (s->port[i] != NO_PORT)
            evtchn_free_xen_port(d, s->port[i]);
    if (s->ring_port != NO_PORT)
        evtchn_free_xen_port(d, s->ring_port);
    memset(s->port, 0, sizeof(s->port));
    s->ring_port = NO_PORT;
}

/* The legacy gfn of that index, or INVALID_GFN when the tools set none aside. */
static gfn_t legacy_gfn(const struct domain *d, unsigned index)
{
    gfn_t gfn;

    if (index == LEGACY_SERVER_GFNS)
        gfn = d->hvm_params[HVM_PARAM_IOREQ_PFN];
    else if (index == LEGACY_SERVER_GFNS + 1)
        gfn = d->hvm_params[HVM_PARAM_BUFIOREQ_PFN];
    else if (index < d->hvm_params[HVM_PARAM_NR_IOREQ_SERVER_PAGES])
        gfn = d->hvm_params[HVM_PARAM_IOREQ_SERVER_PFN] + index;
    else
        gfn = 0;
    return gfn ? gfn : INVALID_GFN;
}

/* Put pg in the guest's map at a legacy gfn, in place of the page that the tools left there. */
static int legacy_show(struct domain *d, struct page_info *pg, int *index, bool *visible)
{
    struct ioreq_domain *id = d->ioreq;
    gfn_t gfn;
    unsigned i;
    int rc;

    if (*visible)
        return 0;
    for (i = 0; *index < 0; i++) {
        if (i == LEGACY_GFNS)
            return -ENOSPC;
        if (!(id->legacy_used & BIT(i)) && legacy_gfn(d, i) != INVALID_GFN)
            *index = i;
    }
    gfn = legacy_gfn(d, *index);
    rc = guest_physmap_vacate(d, gfn, 0);
    if (rc == 0)
        rc = p2m_set(d, gfn, page_to_mfn(pg), 0, P2M_RAM);
    if (rc) {
        *index = -1;
        return rc;
    }
    id->legacy_used |= BIT(*index);
    *visible = true;
    return 0;
}

/* Take the page out of the guest's map; the guest may have moved it, then it is gone from here. */
static void legacy_hide(struct domain *d, struct page_info *pg, int index, bool *visible)
{
    enum p2m_type t;
    unsigned order;
    gfn_t gfn;

    if (!*visible)
        return;
    gfn = legacy_gfn(d, index);
    *visible = false;
    if (gfn != INVALID_GFN && p2m_get(d, gfn, &t, &order) == page_to_mfn(pg))
        p2m_set(d, gfn, INVALID_MFN, 0, P2M_HOLE);
}

static void legacy_release(struct domain *d, struct ioreq_server *s)
{
    legacy_hide(d, s->sync_page, s->sync_legacy, &s->sync_visible);
    if (s->sync_legacy >= 0)
        d->ioreq->legacy_used &= ~BIT(s->sync_legacy);
    if (s->ring_page)
        legacy_hide(d, s->ring_page, s->ring_legacy, &s->ring_visible);
    if (s->ring_legacy >= 0)
        d->ioreq->legacy_used &= ~BIT(s->ring_legacy);
    s->sync_legacy = s->ring_legacy = -1;
}

/* ---- life cycle --------------------------------------------------------------------------- */

static void server_free(struct domain *d, struct ioreq_server *s)
{
    ports_free(d, s);
    if (s->sync_page)
        page_put(s->sync_page);
    if (s->ring_page)
        page_put(s->ring_page);
    for (unsigned i = 0; i < RANGE_KINDS; i++)
        io_ranges_free(&s->ranges[i]);
    kfree(s);
}

static int server_fill(struct domain *d, struct ioreq_server *s)
{
    int rc;

    s->sync_page = shared_page_alloc(d);
    if (!s->sync_page)
        return -ENOMEM;
    s->slot = page_to_virt(s->sync_page);
    for (unsigned i = 0; i < MAX_VCPUS_PER_DOMAIN; i++) {
        if (i >= d->max_vcpus || !d->vcpu[i])
            continue;
        rc = vcpu_port_alloc(d, s, i);
        if (rc)
            return rc;
    }
    if (s->bufmode == HVM_IOREQSRV_BUFIOREQ_OFF)
        return 0;
    s->ring_page = shared_page_alloc(d);
    if (!s->ring_page)
        return -ENOMEM;
    s->ring = page_to_virt(s->ring_page);
    rc = evtchn_alloc_xen_port(d, 0, s->emulator, ring_notified);
    if (rc < 0)
        return rc;
    s->ring_port = rc;
    return 0;
}

int ioreq_server_create(struct domain *d, domid_t emulator, uint8_t bufmode, ioservid_t *id_out)
{
    struct ioreq_domain *id = d->ioreq;
    struct ioreq_server *s;
    unsigned i;
    int rc;

    if (bufmode > HVM_IOREQSRV_BUFIOREQ_ATOMIC)
        return -EINVAL;
    s = kzalloc(sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->emulator = emulator;
    s->bufmode = bufmode;
    s->sync_legacy = s->ring_legacy = -1;

    domain_pause(d);
    spin_lock(&id->control);
    for (i = 0; i < IOREQ_SERVERS_MAX && id->server[i]; i++)
        ;
    if (id->dying)
        rc = -EINVAL;
    else if (i == IOREQ_SERVERS_MAX)
        rc = -ENOSPC;
    else
        rc = server_fill(d, s);
    if (rc == 0) {
        spin_lock(&id->lock);
        id->server[i] = s;
        spin_unlock(&id->lock);
        *id_out = i;
    }
    spin_unlock(&id->control);
    domain_unpause(d);
    if (rc)
        server_free(d, s);
    return rc;
}

/* control is held. */
static struct ioreq_server *find(struct ioreq_domain *id, unsigned server)
{
    return server < IOREQ_SERVERS_MAX ? id->server[server] : NULL;
}

/* Unlink and free; control is held and no vCPU of d runs. */
static void server_remove(struct domain *d, unsigned server)
{
    struct ioreq_domain *id = d->ioreq;
    struct ioreq_server *s = id->server[server];

    spin_lock(&id->lock);
    id->server[server] = NULL;
    if (id->mem_type_server == (int)server)
        id->mem_type_server = -1;
    spin_unlock(&id->lock);

    for (unsigned i = 0; i < d->max_vcpus; i++) {
        struct vcpu *v = d->vcpu[i];
        struct ioreq_vcpu *iv = v ? v->ioreq : NULL;
        bool orphan = false;

        if (!iv)
            continue;
        spin_lock(&id->lock);
        if (iv->server == s) {
            iv->server = NULL;
            orphan = true;
        }
        spin_unlock(&id->lock);
        if (orphan)
            wake(v);
    }
    legacy_release(d, s);
    server_free(d, s);
}

int ioreq_server_destroy(struct domain *d, ioservid_t server)
{
    struct ioreq_domain *id = d->ioreq;
    int rc = -ENOENT;

    domain_pause(d);
    spin_lock(&id->control);
    if (find(id, server)) {
        server_remove(d, server);
        rc = 0;
    }
    spin_unlock(&id->control);
    domain_unpause(d);
    return rc;
}

int ioreq_server_info(struct domain *d, ioservid_t server, bool with_gfns,
                      evtchn_port_t *bufioreq_port, gfn_t *ioreq_gfn, gfn_t *bufioreq_gfn)
{
    struct ioreq_domain *id = d->ioreq;
    struct ioreq_server *s;
    int rc = 0;

    spin_lock(&id->control);
    s = find(id, server);
    if (!s)
        rc = -ENOENT;
    else if (with_gfns && s->enabled && !s->sync_visible && s->sync_legacy < 0)
        rc = -EBUSY;
    if (rc == 0 && with_gfns && !s->enabled) {
        rc = legacy_show(d, s->sync_page, &s->sync_legacy, &s->sync_visible);
        if (rc == 0 && s->ring)
            rc = legacy_show(d, s->ring_page, &s->ring_legacy, &s->ring_visible);
    }
    if (rc == 0) {
        *bufioreq_port = s->ring_port;
        if (with_gfns) {
            *ioreq_gfn = legacy_gfn(d, s->sync_legacy);
            if (s->ring)
                *bufioreq_gfn = legacy_gfn(d, s->ring_legacy);
        }
    }
    spin_unlock(&id->control);
    return rc;
}

int ioreq_server_range(struct domain *d, ioservid_t server, uint32_t kind, uint64_t first,
                       uint64_t last, bool add)
{
    struct ioreq_domain *id = d->ioreq;
    struct ioreq_server *s;
    int rc = -ENOENT;

    if (kind >= RANGE_KINDS)
        return -EINVAL;
    spin_lock(&id->control);
    s = find(id, server);
    if (s) {
        spin_lock(&id->lock);
        rc = add ? io_ranges_add(&s->ranges[kind], first, last)
                 : io_ranges_remove(&s->ranges[kind], first, last);
        spin_unlock(&id->lock);
    }
    spin_unlock(&id->control);
    return rc;
}

/* No vCPU runs: forget what the guest or an emulator may have left in the slots of idle vCPUs. A
 * ring that the guest never saw goes on: its emulator may be reading it. */
static void pages_reset(struct domain *d, struct ioreq_server *s, bool ring_too)
{
    for (unsigned i = 0; i < d->max_vcpus; i++) {
        struct ioreq_vcpu *iv = d->vcpu[i] ? d->vcpu[i]->ioreq : NULL;

        if (!iv || (iv->outstanding && iv->server == s))
            continue;
        s->slot[i] = (union ioreq_slot){.word[3] = s->port[i]};
    }
    if (ring_too) {
        s->ring_write = 0;
        s->ring->both = 0;
    }
}

static void server_expose(struct domain *d, struct ioreq_server *s)
{
    bool guest_had_ring = s->ring_visible;

    legacy_hide(d, s->sync_page, s->sync_legacy, &s->sync_visible);
    if (s->ring)
        legacy_hide(d, s->ring_page, s->ring_legacy, &s->ring_visible);
    pages_reset(d, s, guest_had_ring);
}

int ioreq_server_enable(struct domain *d, ioservid_t server, bool enable)
{
    struct ioreq_domain *id = d->ioreq;
    struct ioreq_server *s;
    int rc = -ENOENT;

    domain_pause(d);
    spin_lock(&id->control);
    s = find(id, server);
    if (s)
        rc = 0;
    if (s && s->enabled != enable) {
        if (enable)
            server_expose(d, s);
        spin_lock(&id->lock);
        s->enabled = enable;
        spin_unlock(&id->lock);
    }
    spin_unlock(&id->control);
    domain_unpause(d);
    return rc;
}

int ioreq_server_mem_type(struct domain *d, ioservid_t server, uint32_t flags)
{
    struct ioreq_domain *id = d->ioreq;
    int rc = 0;

    if (flags & ~XEN_DMOP_IOREQ_MEM_ACCESS_WRITE)
        return -EINVAL;
    spin_lock(&id->control);
    if (!find(id, server))
        rc = -ENOENT;
    else if (flags && id->mem_type_server >= 0)
        rc = -EBUSY;
    else if (!flags && id->mem_type_server != server)
        rc = -EINVAL;
    if (rc == 0) {
        spin_lock(&id->lock);
        id->mem_type_server = flags ? server : -1;
        spin_unlock(&id->lock);
    }
    spin_unlock(&id->control);
    return rc;
}

int ioreq_server_frame(struct domain *d, unsigned server, unsigned idx, mfn_t *mfn)
{
    struct ioreq_domain *id = d->ioreq;
    struct ioreq_server *s;
    int rc = 0;

    if (!id)
        return -EINVAL;
    spin_lock(&id->control);
    s = find(id, server);
    if (!s)
        rc = -ENOENT;
    else if (idx == XENMEM_resource_ioreq_server_frame_ioreq(0))
        *mfn = page_to_mfn(s->sync_page);
    else if (idx == XENMEM_resource_ioreq_server_frame_bufioreq && s->ring_page)
        *mfn = page_to_mfn(s->ring_page);
    else
        rc = -EINVAL;
    spin_unlock(&id->control);
    return rc;
}

int ioreq_domain_init(struct domain *d)
{
    struct ioreq_domain *id = kzalloc(sizeof(*id));

    if (!id)
        return -ENOMEM;
    spin_lock_init(&id->control);
    spin_lock_init(&id->lock);
    id->mem_type_server = -1;
    d->ioreq = id;
    return 0;
}

void ioreq_domain_destroy(struct domain *d)
{
    struct ioreq_domain *id = d->ioreq;

    if (!id)
        return;
    spin_lock(&id->control);
    id->dying = true;
    for (unsigned i = 0; i < IOREQ_SERVERS_MAX; i++)
        if (id->server[i])
            server_remove(d, i);
    spin_unlock(&id->control);
}

void ioreq_domain_free(struct domain *d)
{
    kfree(d->ioreq);
    d->ioreq = NULL;
}

int ioreq_vcpu_init(struct vcpu *v)
{
    struct ioreq_domain *id = v->domain->ioreq;
    struct ioreq_vcpu *iv = kzalloc(sizeof(*iv));
    int rc = 0;

    if (!iv)
        return -ENOMEM;
    v->ioreq = iv;
    spin_lock(&id->control);
    for (unsigned i = 0; i < IOREQ_SERVERS_MAX && rc == 0; i++)
        if (id->server[i] && id->server[i]->port[v->id] == NO_PORT)
            rc = vcpu_port_alloc(v->domain, id->server[i], v->id);
    spin_unlock(&id->control);
    if (rc)
        ioreq_vcpu_destroy(v);
    return rc;
}

void ioreq_vcpu_destroy(struct vcpu *v)
{
    kfree(v->ioreq);
    v->ioreq = NULL;
}

/* ---- choosing a server ---------------------------------------------------------------------- */

#define CF8_ENABLE 0x80000000u

static inline uint32_t cf8_sbdf(uint32_t cf8)
{
    return cf8 >> 8 & 0xffff;
}

/* The server that claims all of t, highest number first; lock is held. */
static struct ioreq_server *choose(struct ioreq_domain *id, const struct target *t)
{
    for (int i = IOREQ_SERVERS_MAX - 1; i >= 0; i--) {
        struct ioreq_server *s = id->server[i];

        if (s && s->enabled && io_ranges_contain(&s->ranges[t->kind], t->first, t->last))
            return s;
    }
    return NULL;
}

/* A data access to 0xCFC..0xCFF with the latch enabled becomes a configuration access when someone
 * claims the function. (PCI local bus 3.0, 3.2.2.3.2.) */
static struct ioreq_server *choose_config(struct ioreq_domain *id, ioreq_t *p)
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

static struct ioreq_server *choose_for(struct ioreq_domain *id, ioreq_t *p)
{
    uint64_t extent = p->count > 1 ? (uint64_t)p->size * (p->count - 1) : 0;
    struct ioreq_server *s = NULL;
    struct target t = {XEN_DMOP_IO_RANGE_PORT, p->addr, p->addr + p->size - 1};

    switch (p->type) {
    case IOREQ_TYPE_PIO:
        if ((p->addr & ~3ULL) == 0xcfc)
            s = choose_config(id, p);
        return s ? s : choose(id, &t);
    case IOREQ_TYPE_COPY:
        t.kind = XEN_DMOP_IO_RANGE_MEMORY;
        if (p->df)
            t.first -= extent;
        else
            t.last += extent;
        return t.first <= t.last ? choose(id, &t) : NULL;
    case IOREQ_TYPE_PCI_CONFIG:
        t = (struct target){XEN_DMOP_IO_RANGE_PCI, p->addr >> 32, p->addr >> 32};
        return choose(id, &t);
    default:
        return NULL;
    }
}

/* ---- posting ----------------------------------------------------------------------------------
 */

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

/* ---- requests -----------------------------------------------------------------------------------
 */

/* Write the request, its state last, and wait for the answer. Not locked: v runs, so s stays. */
static enum ioreq_result send_sync(struct vcpu *v, struct ioreq_server *s, const ioreq_t *p)
{
    union ioreq_slot *slot = &s->slot[v->id], fill = {.req = *p};
    struct ioreq_vcpu *iv = v->ioreq;
    unsigned state = slot_state(slot);

    if (unlikely(state != STATE_IOREQ_NONE)) {
        iv->server = NULL;
        domain_crash(v->domain, "ioreq: device model left vCPU %u's slot in state %u", v->id,
                     state);
        return IOREQ_NO_SERVER;
    }
    fill.req.state = STATE_IOREQ_READY;
    fill.req.vp_eport = s->port[v->id];
    iv->sent = *p;
    iv->outstanding = true;
    WRITE_ONCE(slot->word[0], fill.word[0]);
    WRITE_ONCE(slot->word[1], fill.word[1]);
    WRITE_ONCE(slot->word[2], fill.word[2]);
    vcpu_block(v, VBLOCK_IOREQ);
    atomic_store(&slot->word[3], fill.word[3]);
    evtchn_notify_xen_port(v->domain, s->port[v->id]);
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

/* The state of the answer; when there is none yet, v is blocked again before the last look. */
static unsigned answer_state(struct vcpu *v, const union ioreq_slot *slot)
{
    unsigned state = slot_state(slot);

    if (!being_served(state))
        return state;
    vcpu_block(v, VBLOCK_IOREQ);
    smp_mb();
    state = slot_state(slot);
    if (!being_served(state))
        vcpu_unblock(v, VBLOCK_IOREQ);
    return state;
}

bool ioreq_take_response(struct vcpu *v, ioreq_t *out)
{
    struct ioreq_vcpu *iv = v->ioreq;
    union ioreq_slot *slot;
    struct ioreq_server *s;
    unsigned state;

    if (!iv || !iv->outstanding)
        return false;
    s = READ_ONCE(iv->server);
    if (!s) { /* its server went away */
        *out = iv->sent;
        out->data = ~0ULL;
        iv->outstanding = false;
        return true;
    }
    slot = &s->slot[v->id];
    state = answer_state(v, slot);
    if (being_served(state))
        return false;
    if (state == STATE_IORESP_READY) {
        *out = iv->sent;
        out->data = READ_ONCE(slot->word[1]);
        out->state = STATE_IORESP_READY;
        atomic_store(&slot->word[3], (uint64_t)s->port[v->id]);
    }
    iv->outstanding = false;
    WRITE_ONCE(iv->server, NULL);
    if (state != STATE_IORESP_READY)
        domain_crash(v->domain, "ioreq: device model answered vCPU %u with state %u", v->id, state);
    return state == STATE_IORESP_READY;
}

/* ---- the configuration address latch ----------------------------------------------------------
 */

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
