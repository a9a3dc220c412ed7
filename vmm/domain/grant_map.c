/* grant_map.c: granted pages in the guest-physical map of the domain that uses them.
 *
 * A mapping has a handle of the mapping domain (its "maptrack"), which keeps the granter alive,
 * pins the entry once, and names the gfn. The pin is given up only after the p2m entry is gone and
 * flushed. A handle in work has MAP_BUSY, so that two vCPUs cannot undo it together.
 */
#include "core/errno.h"
#include "core/print.h"
#include "domain/grant.h"
#include "domain/memory.h"

#define MAP_BUSY  (1u << 31)
#define MAP_KINDS ((uint32_t)(GNTMAP_host_map | GNTMAP_device_map))
#define NO_HANDLE (~0u)

/* ---- handles -------------------------------------------------------------------------------- */

static struct grant_map *find_map(const struct grant_table *gt, uint32_t handle)
{
    if (handle / GRANT_MAPS_PER_PAGE >= gt->nr_map_pages)
        return NULL;
    return &gt->maps[handle / GRANT_MAPS_PER_PAGE][handle % GRANT_MAPS_PER_PAGE];
}

/* One more page of free handles. Holds map_lock. */
static bool add_map_page(struct grant_table *gt)
{
    struct grant_map *page;
    uint32_t first = gt->nr_map_pages * (uint32_t)GRANT_MAPS_PER_PAGE;

    if (gt->nr_map_pages == gt->max_map_pages)
        return false;
    if (!gt->maps)
        gt->maps = kzalloc(gt->max_map_pages * sizeof(gt->maps[0]));
    page = gt->maps ? page_alloc() : NULL;
    if (!page)
        return false;
    for (uint32_t i = 0; i < GRANT_MAPS_PER_PAGE; i++)
        page[i].next_free = i + 1 < GRANT_MAPS_PER_PAGE ? first + i + 2 : 0;
    gt->maps[gt->nr_map_pages++] = page;
    gt->free_maps = first + 1;
    return true;
}

static uint32_t alloc_handle(struct grant_table *gt)
{
    uint32_t handle = NO_HANDLE;

    spin_lock(&gt->map_lock);
    if (gt->free_maps || add_map_page(gt)) {
        handle = gt->free_maps - 1;
        gt->free_maps = find_map(gt, handle)->next_free;
    }
    spin_unlock(&gt->map_lock);
    return handle;
}

static void free_handle(struct grant_table *gt, uint32_t handle)
{
    struct grant_map *m = find_map(gt, handle);

    spin_lock(&gt->map_lock);
    m->flags = 0;
    m->granter = NULL;
    m->next_free = gt->free_maps;
    gt->free_maps = handle + 1;
    spin_unlock(&gt->map_lock);
}

/* ---- map ------------------------------------------------------------------------------------ */

/* Enter the frame at gpa in d's map, in the place of what is there unless that is a grant too. The
 * entry holds no page reference: the pin does. */
static int16_t map_host(struct domain *d, uint64_t gpa, mfn_t mfn, bool write)
{
    if (gpa & ~PAGE_MASK)
        return GNTST_bad_virt_addr;
    switch (physmap_put_foreign(d, gpa >> PAGE_SHIFT, mfn_to_page(mfn),
                                write ? P2M_GRANT_RW : P2M_GRANT_RO)) {
    case 0:
        return GNTST_okay;
    case -EINVAL:
        return GNTST_bad_virt_addr;
    case -ENOMEM:
        return GNTST_no_space;
    default:
        return GNTST_general_error;
    }
}

/* The granter, from the batch when it is the same as last time. */
static struct domain *batch_domain(struct vcpu *v, struct grant_batch *b, domid_t domid)
{
    domid_t id = domid == DOMID_SELF ? v->domain->id : domid;

    if (b->granter && b->granter->id == id)
        return b->granter;
    if (b->granter)
        domain_put(b->granter);
    b->granter = domain_get(id);
    return b->granter;
}

void grant_map_op(struct vcpu *v, struct grant_batch *b, struct gnttab_map_grant_ref *op)
{
    struct domain *d = v->domain, *rd;
    bool write = !(op->flags & GNTMAP_readonly);
    struct grant_map *m;
    uint32_t handle;
    mfn_t mfn;

    op->handle = NO_HANDLE;
    op->dev_bus_addr = 0;
    op->status = GNTST_bad_gntref;
    if (!(op->flags & MAP_KINDS))
        return;
    op->status = GNTST_general_error; /* a PTE is what PV guests map at */
    if (op->flags & GNTMAP_contains_pte)
        return;
    op->status = GNTST_bad_domain;
    rd = batch_domain(v, b, op->dom);
    if (!rd || rd->dying != DOMAIN_ALIVE || !rd->grants)
        return;
    op->status = GNTST_no_space;
    handle = alloc_handle(d->grants);
    if (handle == NO_HANDLE)
        return;
    op->status = grant_pin(rd, op->ref, d->id, write, &mfn);
    if (op->status == GNTST_okay && (op->flags & GNTMAP_host_map)) {
        op->status = map_host(d, op->host_addr, mfn, write);
        if (op->status != GNTST_okay)
            grant_unpin(rd, op->ref, write);
    }
    if (op->status != GNTST_okay) {
        free_handle(d->grants, handle);
        return;
    }
    domain_hold(rd);
    spin_lock(&d->grants->map_lock);
    m = find_map(d->grants, handle);
    m->granter = rd;
    m->ref = op->ref;
    m->gfn = op->host_addr >> PAGE_SHIFT;
    m->flags = op->flags & (MAP_KINDS | GNTMAP_readonly);
    spin_unlock(&d->grants->map_lock);
    op->handle = handle;
    /* Only dom0 drives devices, and only it may know machine addresses. */
    if (d->is_dom0)
        op->dev_bus_addr = mfn << PAGE_SHIFT;
}

/* ---- unmap ---------------------------------------------------------------------------------- */

/* Take gfn out of d's map, when it still is this mapping: 0 or p2m_set's error. */
static int unmap_host(struct domain *d, gfn_t gfn, mfn_t mfn)
{
    unsigned order;
    enum p2m_type t;
    mfn_t there = p2m_get(d, gfn, &t, &order);

    if ((t != P2M_GRANT_RW && t != P2M_GRANT_RO) || there != mfn)
        return 0;
    return p2m_set(d, gfn, INVALID_MFN, 0, P2M_HOLE);
}

/* End the kinds of mapping that host_addr and dev_bus_addr name (0: leave that kind). */
static int16_t unmap(struct domain *d, uint32_t handle, uint64_t host_addr, uint64_t dev_bus_addr)
{
    struct grant_table *gt = d->grants;
    int16_t status = GNTST_okay;
    uint32_t flags = 0, drop = 0;
    struct grant_map *m;
    struct domain *rd;
    grant_ref_t ref;

    spin_lock(&gt->map_lock);
    m = find_map(gt, handle);
    if (!m || !m->flags || (m->flags & MAP_BUSY)) {
        status = GNTST_bad_handle;
    } else {
        flags = m->flags;
        if (host_addr && (flags & GNTMAP_host_map)) {
            if (host_addr == m->gfn << PAGE_SHIFT)
                drop |= GNTMAP_host_map;
            else
                status = GNTST_bad_virt_addr;
        }
        if (dev_bus_addr)
            drop |= flags & GNTMAP_device_map;
        if (status == GNTST_okay)
            m->flags |= MAP_BUSY;
    }
    spin_unlock(&gt->map_lock);
    if (status != GNTST_okay)
        return status;

    rd = m->granter; /* ours alone while busy */
    ref = m->ref;
    if ((drop & GNTMAP_host_map) && unmap_host(d, m->gfn, grant_pinned_mfn(rd, ref))) {
        status = GNTST_general_error;
        drop = 0;
    }
    flags &= ~drop;
    if (flags & MAP_KINDS) {
        spin_lock(&gt->map_lock);
        m->flags = flags;
        spin_unlock(&gt->map_lock);
        return status;
    }
    grant_unpin(rd, ref, !(flags & GNTMAP_readonly));
    free_handle(gt, handle);
    domain_put(rd);
    return status;
}

void grant_unmap_op(struct vcpu *v, struct gnttab_unmap_grant_ref *op)
{
    op->status = unmap(v->domain, op->handle, op->host_addr, op->dev_bus_addr);
}

void grant_map_undo(struct vcpu *v, const struct gnttab_map_grant_ref *op)
{
    if (op->status == GNTST_okay)
        unmap(v->domain, op->handle, op->host_addr, 1);
}

/* d is being killed: end what it has mapped. d's vCPUs do not run; no locks held. */
int grant_table_destroy(struct domain *d)
{
    enum { MAPS_BETWEEN_CHECKS = 64 };
    struct grant_table *gt = d->grants;

    if (!gt)
        return 0;
    while (gt->destroy_next / GRANT_MAPS_PER_PAGE < gt->nr_map_pages) {
        uint32_t handle = gt->destroy_next++;
        struct grant_map *m = find_map(gt, handle);

        if (m->flags) {
            struct domain *rd = m->granter;

            if (m->flags & GNTMAP_host_map)
                (void)unmap_host(d, m->gfn, grant_pinned_mfn(rd, m->ref));
            grant_unpin(rd, m->ref, !(m->flags & GNTMAP_readonly));
            free_handle(gt, handle);
            domain_put(rd);
        }
        if (handle % MAPS_BETWEEN_CHECKS == MAPS_BETWEEN_CHECKS - 1 && hypercall_preempt_check())
            return -ERESTART;
    }
    return 0;
}
