/* memory.c: memory_op: who owns how much memory, and giving it and taking it.
 *
 * The order is always: the p2m entry goes, translations are flushed (p2m_set does both), then the
 * reference to the frame is given up. dom0 is mapped to the machine addresses of its memory, so a
 * frame it balloons out stays its own and comes back at the same place.
 *
 * Long operations continue from an extent number that rides above the operation's number in the
 * first argument. It is the guest's to set: every use checks it.
 */
#include "core/atomic.h"
#include "core/print.h"
#include "domain/compat.h"
#include "domain/memory.h"
#include "platform/platform.h"

static gfn_t gfn_limit(void)
{
    return 1ULL << (p2m_gpa_bits - PAGE_SHIFT);
}

/* True when [gfn, gfn + (1 << order)) is aligned and inside the guest-physical space. */
bool gfn_range_valid(gfn_t gfn, unsigned order)
{
    uint64_t pages = 1ULL << order;

    return !(gfn & (pages - 1)) && gfn < gfn_limit() && pages <= gfn_limit() - gfn;
}

/* Come back with the same arguments to go on at extent `at`. */
long memory_op_continue(struct vcpu *v, unsigned op, uint64_t at)
{
    hypercall_set_arg(v, 0, op | at << MEMORY_OP_EXTENT_SHIFT);
    return hypercall_continue(v);
}

static void give_up(struct domain *d, struct page_info *pg)
{
    if (!d->is_dom0) /* nor does this touch the hypervisor's frames: they have no such reference */
        page_put_alloc_ref(pg);
}

/* One lock a domain (shared by the domains of a hash) makes each of our changes of its physmap one
 * step: without it, a page could be moved by one vCPU while another gives it up, and stay mapped.
 * Taken before the p2m's and the page lock. */
static spinlock_t physmap_locks[DOMID_HASH];

void physmap_lock(struct domain *d)
{
    spin_lock(&physmap_locks[d->id % DOMID_HASH]);
}

void physmap_unlock(struct domain *d)
{
    spin_unlock(&physmap_locks[d->id % DOMID_HASH]);
}

static int remove_ram(struct domain *d, gfn_t gfn)
{
    enum p2m_type t;
    struct page_info *pg = p2m_get_page(d, gfn, false, &t);
    int rc;

    if (!pg)
        return -ENOENT;
    if (!p2m_is_ram(t)) {
        page_put(pg);
        return -ENOENT;
    }
    rc = p2m_set(d, gfn, INVALID_MFN, ORDER_4K, P2M_HOLE);
    if (!rc)
        give_up(d, pg);
    page_put(pg);
    return rc;
}

/* The same for a whole large entry at once. The references keep the frames d's own meanwhile. */
static int remove_large(struct domain *d, gfn_t gfn, mfn_t mfn, unsigned order)
{
    struct page_info *pg = mfn_to_page(mfn);
    uint64_t held = 0;
    int rc = -ENOENT;

    while (held < 1ULL << order && page_get(pg + held, d))
        held++;
    if (held == 1ULL << order)
        rc = p2m_set(d, gfn, INVALID_MFN, order, P2M_HOLE);
    for (uint64_t i = 0; i < held; i++) {
        if (!rc)
            give_up(d, pg + i);
        page_put(pg + i);
    }
    return rc;
}

static int vacate_entry(struct domain *d, gfn_t gfn, unsigned room, unsigned *step)
{
    enum p2m_type t = P2M_HOLE;
    mfn_t mfn = p2m_get(d, gfn, &t, step);

    if (*step > room || gfn & ((1ULL << *step) - 1)) {
        unsigned whole = *step;
        *step = ORDER_4K;
        if (t == P2M_HOLE || t == P2M_MMIO_DM)
            *step = MIN(whole, room); /* an aligned part of an empty entry is empty */
        if (gfn & ((1ULL << *step) - 1))
            *step = ORDER_4K;
    }
    switch (t) {
    case P2M_HOLE:
    case P2M_MMIO_DM:
        return 0;
    case P2M_RAM:
    case P2M_RAM_RO:
    case P2M_LOGDIRTY:
    case P2M_IOREQ_SERVER:
        return *step ? remove_large(d, gfn, mfn, *step) : remove_ram(d, gfn);
    case P2M_FOREIGN_RW:
    case P2M_FOREIGN_RO: /* p2m_set puts the entry's reference */
        *step = ORDER_4K;
        return p2m_set(d, gfn, INVALID_MFN, ORDER_4K, P2M_HOLE);
    case P2M_MMIO_DIRECT: /* dom0's identity map of nothing in particular */
        if (d->is_dom0)
            return p2m_set(d, gfn, INVALID_MFN, *step, P2M_HOLE);
        return -EBUSY;
    case P2M_GRANT_RW:
    case P2M_GRANT_RO:
    case P2M_NR_TYPES:
        break;
    }
    return -EBUSY;
}

int physmap_vacate_locked(struct domain *d, gfn_t gfn, unsigned order)
{
    for (uint64_t done = 0; done < 1ULL << order;) {
        unsigned step = ORDER_4K;
        int rc = vacate_entry(d, gfn + done, order, &step);

        if (rc && rc != -ENOENT)
            return rc;
        done += 1ULL << step;
    }
    return 0;
}

int guest_physmap_vacate(struct domain *d, gfn_t gfn, unsigned order)
{
    physmap_lock(d);
    int rc = physmap_vacate_locked(d, gfn, order);
    physmap_unlock(d);
    return rc;
}

int guest_physmap_remove_ram(struct domain *d, gfn_t gfn)
{
    physmap_lock(d);
    int rc = remove_ram(d, gfn);
    physmap_unlock(d);
    return rc;
}

int physmap_put_foreign(struct domain *d, gfn_t gfn, struct page_info *pg, enum p2m_type t)
{
    int rc;

    if (!gfn_range_valid(gfn, ORDER_4K))
        return -EINVAL;
    physmap_lock(d);
    rc = d->dying != DOMAIN_ALIVE ? -ESRCH : physmap_vacate_locked(d, gfn, ORDER_4K);
    if (!rc)
        rc = p2m_set(d, gfn, page_to_mfn(pg), ORDER_4K, t);
    physmap_unlock(d);
    return rc;
}

/* ---- reservations ------------------------------------------------------------------------------
 */

struct reservation {
    struct domain *d;
    uint64_t extents, nr; /* guest array and its length */
    unsigned order, flags;
    mfn_t limit; /* frames below this, 0 for any */
};

static int read_reservation(struct vcpu *v, uint64_t gva, struct xen_memory_reservation *r)
{
    struct compat_memory_reservation c;

    if (!v->compat)
        return copy_from_guest(r, gva, sizeof(*r));
    if (copy_from_guest(&c, gva, sizeof(c)))
        return -EFAULT;
    r->extent_start.p = (xen_pfn_t *)(uint64_t)c.extent_start;
    r->nr_extents = c.nr_extents;
    r->extent_order = c.extent_order;
    r->mem_flags = c.mem_flags;
    r->domid = c.domid;
    return 0;
}

/* What a caller may ask for at once: larger orders would be long without a preemption point. */
static unsigned max_order(const struct vcpu *v)
{
    return v->domain->privileged ? ORDER_1G : ORDER_2M;
}

static bool assign_page(struct reservation *r)
{
    return domain_page_alloc(r->d, r->order, r->limit);
}

static bool release_extent(struct vcpu *v, struct reservation *r, uint64_t i)
{
    uint64_t gfn;

    if (read_guest_word(v, r->extents, i, &gfn) || !gfn_range_valid(gfn, 0) ||
        (1ULL << r->order) > gfn_limit() - gfn)
        return false;
    for (uint64_t k = 0; k < 1ULL << r->order; k++)
        if (guest_physmap_remove_ram(r->d, gfn + k))
            return false;
    return true;
}

static void claim_used(struct domain *d, uint64_t pages)
{
    if (!READ_ONCE(d->outstanding_pages))
        return;
    spin_lock(&d->page_lock);
    d->outstanding_pages -= MIN(d->outstanding_pages, pages);
    spin_unlock(&d->page_lock);
}

static int map_new(struct domain *d, gfn_t gfn, mfn_t mfn, unsigned order)
{
    int rc;

    if (order == ORDER_4K || order == ORDER_2M || order == ORDER_1G)
        return p2m_set(d, gfn, mfn, order, P2M_RAM);
    rc = p2m_set_range(d, gfn, mfn, 1ULL << order, P2M_RAM);
    if (rc) /* part of it may be mapped */
        p2m_set_range(d, gfn, INVALID_MFN, 1ULL << order, P2M_HOLE);
    return rc;
}

/* dom0 takes back a frame that it ballooned out. */
static bool repopulate_dom0(struct domain *d, gfn_t gfn, unsigned order)
{
    for (uint64_t i = 0; i < 1ULL << order; i++) {
        struct page_info *pg;
        bool done;

        if (!mfn_valid(gfn + i))
            return false;
        pg = mfn_to_page(gfn + i);
        if (!page_get(pg, d))
            return false;
        done = pg->flags & PG_ALLOCATED && !p2m_set(d, gfn + i, gfn + i, ORDER_4K, P2M_RAM);
        page_put(pg);
        if (!done)
            return false;
    }
    return true;
}

static bool populate_locked(struct reservation *r, gfn_t gfn)
{
    struct page_info *pg;

    if (physmap_vacate_locked(r->d, gfn, r->order))
        return false;
    if (r->d->is_dom0)
        return repopulate_dom0(r->d, gfn, r->order);
    pg = r->flags & XENMEMF_populate_on_demand ? domain_page_alloc_beyond(r->d, r->order, r->limit)
                                               : domain_page_alloc(r->d, r->order, r->limit);
    if (!pg)
        return false;
    if (!map_new(r->d, gfn, page_to_mfn(pg), r->order))
        return true;
    for (uint64_t k = 0; k < 1ULL << r->order; k++)
        if (page_get(pg + k, r->d)) { /* unless the domain's death was quicker */
            page_put_alloc_ref(pg + k);
            page_put(pg + k);
        }
    return false;
}

static bool populate_extent(struct vcpu *v, struct reservation *r, uint64_t i)
{
    uint64_t gfn;
    bool ok;

    if (read_guest_word(v, r->extents, i, &gfn) || !gfn_range_valid(gfn, r->order))
        return false;
    physmap_lock(r->d);
    ok = populate_locked(r, gfn);
    physmap_unlock(r->d);
    if (ok)
        claim_used(r->d, 1ULL << r->order);
    return ok;
}

/* The three operations on arrays of extents. They return how many extents were done. */
static long reservation_op(struct vcpu *v, unsigned op, uint64_t gva, uint64_t at)
{
    struct xen_memory_reservation in;
    struct reservation r;
    unsigned bits;
    bool ok = true;
    long rc;

    if (read_reservation(v, gva, &in))
        return (long)at;
    if (at > in.nr_extents || in.nr_extents > UINT32_MAX)
        return (long)MIN(at, (uint64_t)UINT32_MAX);
    if (in.extent_order > (op == XENMEM_decrease_reservation ? ORDER_2M : max_order(v)))
        return (long)at;
    bits = XENMEMF_get_address_bits(in.mem_flags);
    if (bits && bits <= PAGE_SHIFT)
        return (long)at;
    if (in.mem_flags & XENMEMF_populate_on_demand && !v->domain->privileged)
        return (long)at;
    rc = domain_resolve(v, in.domid, &r.d);
    if (rc)
        return rc;
    r.extents = (uint64_t)in.extent_start.p;
    r.nr = in.nr_extents;
    r.order = in.extent_order;
    r.flags = in.mem_flags;
    r.limit = bits && bits < 64 ? 1ULL << (bits - PAGE_SHIFT) : 0;

    for (uint64_t first = at; ok && at < r.nr;) {
        if (at != first && hypercall_preempt_check()) {
            domain_put(r.d);
            return memory_op_continue(v, op, at);
        }
        if (op == XENMEM_populate_physmap)
            ok = populate_extent(v, &r, at);
        else if (op == XENMEM_increase_reservation)
            ok = assign_page(&r);
        else
            ok = release_extent(v, &r, at);
        at += ok;
    }
    domain_put(r.d);
    return (long)at;
}

/* ---- questions and small settings
 * ---------------------------------------------------------------- */

static long domain_question(struct vcpu *v, unsigned op, uint64_t gva)
{
    struct xen_memory_domain in;
    struct domain *d;
    long rc;

    if (copy_from_guest(&in, gva, sizeof(in)))
        return -EFAULT;
    rc = domain_resolve(v, in.domid, &d);
    if (rc)
        return rc;
    switch (op) {
    case XENMEM_current_reservation:
        rc = (long)READ_ONCE(d->tot_pages);
        break;
    case XENMEM_maximum_reservation:
        rc = (long)READ_ONCE(d->max_pages);
        break;
    default:
        rc = (long)p2m_max_gfn(d);
        break;
    }
    domain_put(d);
    return rc;
}

/* Claims of all domains but `except`, pages. */
uint64_t claimed_pages(const struct domain *except)
{
    uint64_t sum = 0;

    for (struct domain *d = domain_next(0); d;) {
        domid_t next = (domid_t)(d->id + 1);
        if (d != except && d->dying == DOMAIN_ALIVE)
            sum += READ_ONCE(d->outstanding_pages);
        domain_put(d);
        d = domain_next(next);
    }
    return sum;
}

/* Set memory aside for a domain that is being built: its total, less what it has. 0 cancels. */
static int claim(struct domain *d, uint64_t pages)
{
    uint64_t free = heap_free_pages(), taken = claimed_pages(d), need;
    int rc = 0;

    spin_lock(&d->page_lock);
    need = pages - MIN(pages, d->tot_pages);
    if (!pages)
        d->outstanding_pages = 0;
    else if (d->outstanding_pages || !need || pages > d->max_pages)
        rc = -EINVAL;
    else if (taken > free || need > free - taken)
        rc = -ENOMEM;
    else
        d->outstanding_pages = need;
    spin_unlock(&d->page_lock);
    return rc;
}

static long claim_pages(struct vcpu *v, uint64_t gva)
{
    struct xen_memory_reservation in;
    struct domain *d;
    long rc;

    if (!v->domain->privileged)
        return -EPERM;
    if (read_reservation(v, gva, &in))
        return -EFAULT;
    if (in.extent_start.p || in.extent_order || in.mem_flags)
        return -EINVAL;
    d = domain_get(in.domid);
    if (!d)
        return -ESRCH;
    rc = d->dying == DOMAIN_ALIVE ? claim(d, in.nr_extents) : -ESRCH;
    domain_put(d);
    return rc;
}

/* Memory asked for on demand is there at once (memory= below maxmem=), until the guest's balloon
 * gives it back. So the target (`xl mem-set` sets it) is the guest's balloon's business, and the
 * answer says that there is nothing to reclaim. */
static long pod_target(struct vcpu *v, uint64_t gva)
{
    struct xen_pod_target p = {0};
    struct compat_pod_target c = {0};
    struct domain *d;
    void *buf = v->compat ? (void *)&c : &p;
    size_t bytes = v->compat ? sizeof(c) : sizeof(p);

    if (!v->domain->privileged)
        return -EPERM;
    if (copy_from_guest(buf, gva, bytes))
        return -EFAULT;
    d = domain_get(v->compat ? c.domid : p.domid);
    if (!d)
        return -ESRCH;
    p.tot_pages = c.tot_pages = READ_ONCE(d->tot_pages);
    p.pod_cache_pages = p.pod_entries = c.pod_cache_pages = c.pod_entries = 0;
    domain_put(d);
    return copy_to_guest(gva, buf, bytes);
}

/* What the caller may have had mapped in its own domain is gone: device models must not go on with
 * their mappings of it. Passes rc on; a failed or unfinished call may have changed some pages too.
 */
static long map_shrank(struct vcpu *v, long rc)
{
    ioreq_invalidate(v->domain);
    return rc;
}

/* The memory_op hypercall: (operation and continuation point, pointer to its structure). */
long do_memory_op(struct vcpu *v, const uint64_t arg[6])
{
    uint64_t whole = v->compat ? (uint32_t)arg[0] : arg[0], gva = guest_addr(v, arg[1]);
    unsigned op = whole & (BIT(MEMORY_OP_EXTENT_SHIFT) - 1);
    uint64_t at = whole >> MEMORY_OP_EXTENT_SHIFT;

    switch (op) {
    case XENMEM_increase_reservation:
    case XENMEM_populate_physmap:
        return reservation_op(v, op, gva, at);
    case XENMEM_decrease_reservation:
        return map_shrank(v, reservation_op(v, op, gva, at));
    case XENMEM_maximum_ram_page:
        return (long)max_mfn;
    case XENMEM_current_reservation:
    case XENMEM_maximum_reservation:
    case XENMEM_maximum_gpfn:
        return domain_question(v, op, gva);
    case XENMEM_add_to_physmap:
        return map_shrank(v, memory_add_to_physmap(v, gva));
    case XENMEM_add_to_physmap_batch:
        return memory_add_to_physmap_batch(v, gva, at);
    case XENMEM_remove_from_physmap:
        return map_shrank(v, memory_remove_from_physmap(v, gva));
    case XENMEM_memory_map:
        return memory_get_map(v, gva);
    case XENMEM_machine_memory_map:
        return memory_machine_map(v, gva);
    case XENMEM_set_memory_map:
        return memory_set_map(v, gva);
    case XENMEM_acquire_resource:
        return memory_acquire_resource(v, gva, at);
    case XENMEM_reserved_device_memory_map:
        return memory_reserved_devices(v, gva);
    case XENMEM_claim_pages:
        return claim_pages(v, gva);
    case XENMEM_set_pod_target:
    case XENMEM_get_pod_target:
        return pod_target(v, gva);
    case XENMEM_get_sharing_freed_pages:
    case XENMEM_get_sharing_shared_pages:
        return 0;
    case XENMEM_get_vnumainfo: /* no virtual NUMA: hvmloader expects this very answer */
        return -EOPNOTSUPP;
    default:
        return hypercall_missing(v, "memory_op", op,
                                 op <= XENMEM_acquire_resource ? -EOPNOTSUPP : -ENOSYS);
    }
}
