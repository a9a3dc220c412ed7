/* resource.c: XENMEM_acquire_resource: the hypervisor's pages of a domain, for its device model
 * and for the tools: an ioreq server's request pages and the grant table.
 *
 * The caller names frames of its own physmap (it is auto-translated) where they shall appear; each
 * mapping holds a reference, as for any foreign page.
 */
#include "domain/compat.h"
#include "domain/memory.h"
#include "platform/platform.h"

#define DEFAULT_GRANT_FRAMES 64
#define IOREQ_FRAMES         2 /* buffered, synchronous */

static int read_request(struct vcpu *v, uint64_t gva, struct xen_mem_acquire_resource *r)
{
    struct compat_mem_acquire_resource c;

    if (!v->compat)
        return copy_from_guest(r, gva, sizeof(*r));
    if (copy_from_guest(&c, gva, sizeof(c)))
        return -EFAULT;
    *r = (struct xen_mem_acquire_resource){.domid = c.domid,
                                           .type = c.type,
                                           .id = c.id,
                                           .nr_frames = c.nr_frames,
                                           .pad = c.pad,
                                           .frame = c.frame};
    r->frame_list.p = (xen_pfn_t *)(uint64_t)c.frame_list;
    return 0;
}

/* How many frames the resource can have; -EINVAL for an id it does not know, -EOPNOTSUPP. */
static long resource_limit(const struct domain *d, const struct xen_mem_acquire_resource *r)
{
    switch (r->type) {
    case XENMEM_resource_ioreq_server:
        return IOREQ_FRAMES;
    case XENMEM_resource_grant_table:
        if (r->id > XENMEM_resource_grant_table_id_status)
            return -EINVAL;
        return d->max_grant_frames > 0 ? d->max_grant_frames : DEFAULT_GRANT_FRAMES;
    default:
        return -EOPNOTSUPP;
    }
}

static int resource_frame(struct domain *d, const struct xen_mem_acquire_resource *r, uint64_t i,
                          mfn_t *mfn)
{
    if (r->type == XENMEM_resource_ioreq_server)
        return ioreq_server_frame(d, r->id, (unsigned)i, mfn);
    return grant_table_frame(d, (unsigned)i, r->id == XENMEM_resource_grant_table_id_status, mfn);
}

static int map_frame(struct vcpu *v, struct domain *d, const struct xen_mem_acquire_resource *r,
                     uint64_t i)
{
    struct page_info *pg;
    uint64_t gfn;
    mfn_t mfn;
    int rc;

    if (read_guest_word(v, (uint64_t)r->frame_list.p, i, &gfn))
        return -EFAULT;
    rc = resource_frame(d, r, r->frame + i, &mfn);
    if (rc)
        return rc;
    pg = mfn_to_page(mfn);
    if (!page_get(pg, d)) /* the resource went away since */
        return -EINVAL;
    rc = physmap_put_foreign(v->domain, gfn, pg, P2M_FOREIGN_RW);
    if (rc)
        page_put(pg);
    return rc;
}

static long map_frames(struct vcpu *v, struct domain *d, const struct xen_mem_acquire_resource *r,
                       uint64_t at)
{
    for (uint64_t i = at; i < r->nr_frames; i++) {
        if (i != at && hypercall_preempt_check())
            return memory_op_continue(v, XENMEM_acquire_resource, i);
        int rc = map_frame(v, d, r, i);
        if (rc)
            return i ? -EIO : rc; /* partly mapped: the caller unmaps all */
    }
    return 0;
}

static long acquire(struct vcpu *v, uint64_t gva, struct domain *d,
                    const struct xen_mem_acquire_resource *r, uint64_t at)
{
    long limit = resource_limit(d, r);

    if (limit < 0)
        return limit;
    if (!r->frame_list.p) {
        uint32_t n = (uint32_t)limit;
        if (r->nr_frames)
            return -EINVAL;
        return copy_to_guest(gva + offsetof(struct xen_mem_acquire_resource, nr_frames), &n,
                             sizeof(n));
    }
    if (r->frame > (uint64_t)limit || r->nr_frames > (uint64_t)limit - r->frame ||
        at > r->nr_frames)
        return -EINVAL;
    return map_frames(v, d, r, at);
}

STATIC_ASSERT(offsetof(struct xen_mem_acquire_resource, nr_frames) ==
              offsetof(struct compat_mem_acquire_resource, nr_frames));

/* XENMEM_acquire_resource, for dom0 and for a domain's device model. */
long memory_acquire_resource(struct vcpu *v, uint64_t gva, uint64_t at)
{
    struct xen_mem_acquire_resource r;
    struct domain *d;
    long rc;

    if (read_request(v, gva, &r))
        return -EFAULT;
    if (r.pad)
        return -EINVAL;
    rc = domain_resolve(v, r.domid, &d);
    if (rc)
        return rc;
    rc = d == v->domain ? -EINVAL : acquire(v, gva, d, &r, at);
    domain_put(d);
    return rc;
}
