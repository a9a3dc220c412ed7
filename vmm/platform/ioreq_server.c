/* ioreq_server.c: ioreq servers come and go: pages, ports, ranges; the tools' half of ioreq.h. */
#include "platform/ioreq.h"

#include "core/errno.h"
#include "core/string.h"

#define NO_PORT 0
/* Legacy gfns: those of HVM_PARAM_IOREQ_SERVER_PFN, then IOREQ_PFN and BUFIOREQ_PFN. */
#define LEGACY_SERVER_GFNS 8
#define LEGACY_GFNS        (LEGACY_SERVER_GFNS + 2)

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
    int port = evtchn_alloc_xen_port(d, id, s->emulator, ioreq_sync_notified);

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
    rc = evtchn_alloc_xen_port(d, 0, s->emulator, ioreq_ring_notified);
    if (rc < 0)
        return rc;
    s->ring_port = rc;
    return 0;
}

/* A server came or went, or its ranges changed; both locks are held. */
static void servers_changed(struct ioreq_domain *id)
{
    uint64_t map[ARRAY_SIZE(id->claimed_ports)] = {0};

    map[0xcf8 / 512] = BIT(0xcf8 / 8 % 64); /* configuration space: by function, not by port */
    id->servers = 0;
    for (unsigned i = 0; i < IOREQ_SERVERS_MAX; i++) {
        const struct ioreq_server *s = id->server[i];
        const struct io_ranges *set = s ? &s->ranges[XEN_DMOP_IO_RANGE_PORT] : NULL;

        if (s)
            id->servers = i + 1;
        for (unsigned n = 0; set && n < set->count && set->r[n].first <= 0xffff; n++)
            for (uint64_t g = set->r[n].first / 8; g <= MIN(set->r[n].last, 0xffffu) / 8; g++)
                map[g / 64] |= BIT(g % 64);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(map); i++)
        WRITE_ONCE(id->claimed_ports[i], map[i]);
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
        servers_changed(id);
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
    servers_changed(id);
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
            ioreq_wake(v);
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
        servers_changed(id);
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
