/* memory_map.c: what appears where: pages put into and taken out of a physmap, and memory maps.
 *
 * A mapping of another domain's page (gmfn_foreign: how the tools and QEMU see a guest's memory)
 * holds a reference to the page, so that the page outlives its owner's interest in it until the
 * mapping goes.
 */
#include "domain/compat.h"
#include "domain/memory.h"

#define MAX_MAP_ENTRIES 128 /* of an E820 map, as the BIOS interface's users expect */

/* ---- add_to_physmap
 * ------------------------------------------------------------------------------ */

/* The hypervisor's frame that a domain may map: shared_info or its grant table. */
static int own_frame(struct domain *d, unsigned space, uint64_t idx, mfn_t *mfn)
{
    if (space == XENMAPSPACE_shared_info) {
        if (idx || !d->shared_info_page)
            return -EINVAL;
        *mfn = page_to_mfn(d->shared_info_page);
        return 0;
    }
    if (idx & ~(uint64_t)XENMAPIDX_grant_table_status & ~0x7fffffffULL)
        return -EINVAL;
    return grant_table_frame(d, idx & 0x7fffffff, idx & XENMAPIDX_grant_table_status, mfn);
}

static int place_own_frame(struct domain *d, unsigned space, uint64_t idx, gfn_t gpfn)
{
    mfn_t mfn;
    int rc = own_frame(d, space, idx, &mfn);

    if (rc)
        return rc;
    physmap_lock(d);
    rc = physmap_vacate_locked(d, gpfn, ORDER_4K);
    if (!rc)
        rc = p2m_set(d, gpfn, mfn, ORDER_4K, P2M_RAM);
    physmap_unlock(d);
    return rc;
}

/* Both entries change or none: the frame that leaves gpfn is given up, the one at `from` moves. */
static int move_locked(struct domain *d, gfn_t from, gfn_t gpfn)
{
    enum p2m_type t;
    struct page_info *pg = p2m_get_page(d, from, false, &t);
    int rc = -EINVAL;

    if (!pg)
        return -EINVAL;
    if (from == gpfn)
        rc = 0;
    else if (p2m_is_ram(t) && !(rc = physmap_vacate_locked(d, gpfn, ORDER_4K))) {
        rc = p2m_set(d, from, INVALID_MFN, ORDER_4K, P2M_HOLE);
        if (!rc) {
            rc = p2m_set(d, gpfn, page_to_mfn(pg), ORDER_4K, t);
            if (rc) /* the tables for `from` are there: this cannot fail */
                p2m_set(d, from, page_to_mfn(pg), ORDER_4K, t);
        }
    }
    page_put(pg);
    return rc;
}

int guest_physmap_move(struct domain *d, gfn_t from, gfn_t gpfn)
{
    if (d->is_dom0) /* its frames stand at their machine addresses */
        return -EOPNOTSUPP;
    if (!gfn_range_valid(from, ORDER_4K) || !gfn_range_valid(gpfn, ORDER_4K))
        return -EINVAL;
    physmap_lock(d);
    int rc = move_locked(d, from, gpfn);
    physmap_unlock(d);
    return rc;
}

static int map_foreign(struct domain *d, struct domain *foreign, gfn_t from, gfn_t gpfn)
{
    enum p2m_type t;
    struct page_info *pg;
    int rc = -EINVAL;

    if (!gfn_range_valid(from, ORDER_4K))
        return -EINVAL;
    pg = p2m_get_page(foreign, from, false, &t);
    if (!pg)
        return -EINVAL;
    if (p2m_is_ram(t))
        rc = physmap_put_foreign(d, gpfn, pg, t == P2M_RAM_RO ? P2M_FOREIGN_RO : P2M_FOREIGN_RW);
    if (rc)
        page_put(pg);
    return rc;
}

static int add_one(struct domain *d, unsigned space, struct domain *foreign, uint64_t idx,
                   gfn_t gpfn)
{
    if (!gfn_range_valid(gpfn, ORDER_4K))
        return -EINVAL;
    switch (space) {
    case XENMAPSPACE_shared_info:
    case XENMAPSPACE_grant_table:
        return place_own_frame(d, space, idx, gpfn);
    case XENMAPSPACE_gmfn:
    case XENMAPSPACE_gmfn_range:
        return guest_physmap_move(d, idx, gpfn);
    case XENMAPSPACE_gmfn_foreign:
        return foreign ? map_foreign(d, foreign, idx, gpfn) : -EINVAL;
    default:
        return -EINVAL;
    }
}

static int read_add(struct vcpu *v, uint64_t gva, struct xen_add_to_physmap *a)
{
    struct compat_add_to_physmap c;

    if (!v->compat)
        return copy_from_guest(a, gva, sizeof(*a));
    if (copy_from_guest(&c, gva, sizeof(c)))
        return -EFAULT;
    *a = (struct xen_add_to_physmap){
        .domid = c.domid, .size = c.size, .space = c.space, .idx = c.idx, .gpfn = c.gpfn};
    return 0;
}

/* A range is continued by writing to the caller's structure how much of it is left. */
static long continue_range(struct vcpu *v, uint64_t gva, const struct xen_add_to_physmap *a)
{
    struct compat_add_to_physmap c = {.domid = a->domid,
                                      .size = a->size,
                                      .space = a->space,
                                      .idx = (uint32_t)a->idx,
                                      .gpfn = (uint32_t)a->gpfn};

    if (v->compat ? copy_to_guest(gva, &c, sizeof(c)) : copy_to_guest(gva, a, sizeof(*a)))
        return -EFAULT;
    return memory_op_continue(v, XENMEM_add_to_physmap, 0);
}

/* XENMEM_add_to_physmap. */
long memory_add_to_physmap(struct vcpu *v, uint64_t gva)
{
    struct xen_add_to_physmap a;
    struct domain *d;
    long rc;

    if (read_add(v, gva, &a))
        return -EFAULT;
    if (a.space == XENMAPSPACE_gmfn_foreign) /* batch only: this form names no second domain */
        return -ENOSYS;
    rc = domain_resolve(v, a.domid, &d);
    if (rc)
        return rc;
    if (a.space != XENMAPSPACE_gmfn_range)
        rc = add_one(d, a.space, NULL, a.idx, a.gpfn);
    for (bool first = true; a.space == XENMAPSPACE_gmfn_range && a.size && !rc; first = false) {
        if (!first && hypercall_preempt_check()) {
            rc = continue_range(v, gva, &a);
            break;
        }
        rc = add_one(d, a.space, NULL, a.idx, a.gpfn);
        a.idx++;
        a.gpfn++;
        a.size--;
    }
    domain_put(d);
    return rc;
}

static int read_batch(struct vcpu *v, uint64_t gva, struct xen_add_to_physmap_batch *b)
{
    struct compat_add_to_physmap_batch c;

    if (!v->compat)
        return copy_from_guest(b, gva, sizeof(*b));
    if (copy_from_guest(&c, gva, sizeof(c)))
        return -EFAULT;
    b->domid = c.domid;
    b->space = c.space;
    b->size = c.size;
    b->u.foreign_domid = c.extra;
    b->idxs.p = (xen_ulong_t *)(uint64_t)c.idxs;
    b->gpfns.p = (xen_pfn_t *)(uint64_t)c.gpfns;
    b->errs.p = (int *)(uint64_t)c.errs;
    return 0;
}

static long add_batch(struct vcpu *v, const struct xen_add_to_physmap_batch *b, struct domain *d,
                      struct domain *foreign, uint64_t at)
{
    uint64_t idx, gpfn;

    for (uint64_t i = at; i < b->size; i++) {
        if (i != at && hypercall_preempt_check())
            return memory_op_continue(v, XENMEM_add_to_physmap_batch, i);
        if (read_guest_word(v, (uint64_t)b->idxs.p, i, &idx) ||
            read_guest_word(v, (uint64_t)b->gpfns.p, i, &gpfn))
            return -EFAULT;
        int err = add_one(d, b->space, foreign, idx, gpfn);
        if (copy_to_guest(guest_addr(v, (uint64_t)b->errs.p + i * sizeof(err)), &err, sizeof(err)))
            return -EFAULT;
    }
    return 0;
}

/* XENMEM_add_to_physmap_batch: an error for each index; the call itself succeeds. */
long memory_add_to_physmap_batch(struct vcpu *v, uint64_t gva, uint64_t at)
{
    struct xen_add_to_physmap_batch b;
    struct domain *d, *foreign = NULL;
    long rc;

    if (read_batch(v, gva, &b))
        return -EFAULT;
    if (at > b.size || b.space == XENMAPSPACE_gmfn_range ||
        (b.space != XENMAPSPACE_gmfn_foreign && b.u.res0))
        return -EINVAL;
    rc = domain_resolve(v, b.domid, &d);
    if (rc)
        return rc;
    if (b.space == XENMAPSPACE_gmfn_foreign) {
        rc = domain_resolve(v, b.u.foreign_domid, &foreign);
        if (!rc && foreign == d)
            rc = -EINVAL;
    }
    if (!rc)
        rc = add_batch(v, &b, d, foreign, at);
    if (foreign)
        domain_put(foreign);
    domain_put(d);
    return rc;
}

static int unmap_one(struct domain *d, gfn_t gfn)
{
    enum p2m_type t = P2M_HOLE;

    if (!gfn_range_valid(gfn, ORDER_4K))
        return -EINVAL;
    p2m_get(d, gfn, &t, NULL);
    if (t == P2M_HOLE)
        return -ENOENT;
    if (!p2m_is_ram(t) && t != P2M_FOREIGN_RW && t != P2M_FOREIGN_RO)
        return -EINVAL;
    return p2m_set(d, gfn, INVALID_MFN, ORDER_4K, P2M_HOLE);
}

/* XENMEM_remove_from_physmap: the mapping goes; RAM stays allocated, a foreign page is let go. */
long memory_remove_from_physmap(struct vcpu *v, uint64_t gva)
{
    struct xen_remove_from_physmap r = {0};
    struct compat_remove_from_physmap c;
    struct domain *d;
    long rc;

    if (v->compat ? copy_from_guest(&c, gva, sizeof(c)) : copy_from_guest(&r, gva, sizeof(r)))
        return -EFAULT;
    if (v->compat) {
        r.domid = c.domid;
        r.gpfn = c.gpfn;
    }
    rc = domain_resolve(v, r.domid, &d);
    if (rc)
        return rc;
    physmap_lock(d);
    rc = unmap_one(d, r.gpfn);
    physmap_unlock(d);
    domain_put(d);
    return rc;
}

/* ---- memory maps
 * --------------------------------------------------------------------------------- */

static int read_map(struct vcpu *v, uint64_t gva, struct xen_memory_map *m)
{
    struct compat_memory_map c;

    if (!v->compat)
        return copy_from_guest(m, gva, sizeof(*m));
    if (copy_from_guest(&c, gva, sizeof(c)))
        return -EFAULT;
    m->nr_entries = c.nr_entries;
    m->buffer.p = (void *)(uint64_t)c.buffer;
    return 0;
}

/* Answer with as many of n entries as there is room for. nr_entries comes first in both widths. */
static long write_map(struct vcpu *v, uint64_t gva, const struct e820entry *e, unsigned n)
{
    struct xen_memory_map m;

    if (read_map(v, gva, &m))
        return -EFAULT;
    m.nr_entries = MIN(m.nr_entries, n);
    if (m.nr_entries && copy_to_guest((uint64_t)m.buffer.p, e, m.nr_entries * sizeof(*e)))
        return -EFAULT;
    return copy_to_guest(gva, &m.nr_entries, sizeof(m.nr_entries));
}

/* XENMEM_memory_map: the caller's own map, as the tools (or, for dom0, the boot) made it. */
long memory_get_map(struct vcpu *v, uint64_t gva)
{
    struct e820entry map[MAX_MAP_ENTRIES];
    struct domain *d = v->domain;
    int n;

    if (d->is_dom0) {
        n = dom0_memory_map(map, MAX_MAP_ENTRIES);
    } else {
        spin_lock(&d->lock);
        n = (int)d->memory_map_entries;
        if (n)
            memcpy(map, d->memory_map_table, (size_t)n * sizeof(map[0]));
        spin_unlock(&d->lock);
        if (!n)
            return -ENOSYS;
    }
    return n < 0 ? n : write_map(v, gva, map, (unsigned)n);
}

/* XENMEM_machine_memory_map: the host's map, for the tools. */
long memory_machine_map(struct vcpu *v, uint64_t gva)
{
    struct e820entry map[MAX_MAP_ENTRIES];

    if (!v->domain->privileged)
        return -EPERM;
    int n = machine_memory_map(map, MAX_MAP_ENTRIES);
    return n < 0 ? n : write_map(v, gva, map, (unsigned)n);
}

static void replace_map(struct domain *d, struct e820entry *table, unsigned n)
{
    spin_lock(&d->lock);
    struct e820entry *old = d->memory_map_table;
    d->memory_map_table = table;
    d->memory_map_entries = n;
    spin_unlock(&d->lock);
    kfree(old);
}

/* XENMEM_set_memory_map: the tools give a guest its map. */
long memory_set_map(struct vcpu *v, uint64_t gva)
{
    struct xen_foreign_memory_map f;
    struct compat_foreign_memory_map c;
    struct e820entry *table = NULL;
    struct domain *d;

    if (!v->domain->privileged)
        return -EPERM;
    if (v->compat ? copy_from_guest(&c, gva, sizeof(c)) : copy_from_guest(&f, gva, sizeof(f)))
        return -EFAULT;
    if (v->compat) {
        f.domid = c.domid;
        f.map.nr_entries = c.map.nr_entries;
        f.map.buffer.p = (void *)(uint64_t)c.map.buffer;
    }
    if (f.map.nr_entries > MAX_MAP_ENTRIES)
        return -E2BIG;
    if (f.map.nr_entries) {
        size_t bytes = f.map.nr_entries * sizeof(*table);
        table = kzalloc(bytes);
        if (!table)
            return -ENOMEM;
        if (copy_from_guest(table, (uint64_t)f.map.buffer.p, bytes)) {
            kfree(table);
            return -EFAULT;
        }
    }
    d = domain_get(f.domid);
    if (!d || d->is_dom0) {
        int rc = d ? -EPERM : -ESRCH;
        if (d)
            domain_put(d);
        kfree(table);
        return rc;
    }
    replace_map(d, table, f.map.nr_entries);
    domain_put(d);
    return 0;
}

/* XENMEM_reserved_device_memory_map: no device reserves RAM addresses (no IOMMU is driven). */
long memory_reserved_devices(struct vcpu *v, uint64_t gva)
{
    uint32_t none = 0;
    size_t at = v->compat ? offsetof(struct compat_reserved_device_memory_map, nr_entries)
                          : offsetof(struct xen_reserved_device_memory_map, nr_entries);

    return copy_to_guest(gva + at, &none, sizeof(none));
}
