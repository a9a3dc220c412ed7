/* domctl_mem.c: domctl: how much memory a domain may have, what its frames are, which are dirty. */
#include "core/print.h"
#include "domain/compat.h"
#include "domain/domctl.h"
#include "domain/memory.h"

#define DIRTY_CHUNK_PAGES 4096 /* of the dirty bitmap, copied at a time */

long domctl_max_mem(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    (void)v;
    spin_lock(&d->page_lock);
    d->max_pages = op->u.max_mem.max_memkb >> (PAGE_SHIFT - 10);
    spin_unlock(&d->page_lock);
    return 0;
}

/* The pool is an accounting figure: page tables come from the heap. libxl sets it by the size of
 * the guest and reads it back. */
long domctl_get_mempool(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    (void)v;
    op->u.paging_mempool.size = d->paging_mempool_bytes;
    return 0;
}

long domctl_set_mempool(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    (void)v;
    if (op->u.paging_mempool.size & ~PAGE_MASK)
        return -EINVAL;
    d->paging_mempool_bytes = op->u.paging_mempool.size;
    return 0;
}

/* For each frame of the array: what a saved image has to hold for it. */
long domctl_getpageframeinfo3(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    uint64_t array = (uint64_t)op->u.getpageframeinfo3.array.p, num = op->u.getpageframeinfo3.num;

    (void)v;
    if (num > 1024)
        return -E2BIG;
    for (uint64_t i = 0; i < num; i++) {
        enum p2m_type t = P2M_HOLE;
        uint64_t gfn;

        if (copy_from_guest(&gfn, array + i * 8, sizeof(gfn)))
            return -EFAULT;
        if (gfn_range_valid(gfn, ORDER_4K))
            p2m_get(d, gfn, &t, NULL);
        gfn = p2m_is_ram(t) ? XEN_DOMCTL_PFINFO_NOTAB : XEN_DOMCTL_PFINFO_XTAB;
        if (copy_to_guest(array + i * 8, &gfn, sizeof(gfn)))
            return -EFAULT;
    }
    return 0;
}

/* Read (and with `clean` reset) the dirty bits from the first page on, as far as there is room. */
static long read_dirty(struct domain *d, struct xen_domctl_shadow_op *s, bool clean)
{
    uint64_t bitmap = (uint64_t)s->dirty_bitmap.p;
    uint64_t pages = MIN(s->pages, p2m_max_gfn(d) + 1);
    uint8_t bits[DIRTY_CHUNK_PAGES / 8];
    int64_t dirty = 0;

    if (!p2m_logdirty_enabled(d))
        return -EINVAL;
    for (uint64_t at = 0; at < pages; at += DIRTY_CHUNK_PAGES) {
        uint64_t n = MIN(pages - at, (uint64_t)DIRTY_CHUNK_PAGES);
        int64_t found;

        memset(bits, 0, sizeof(bits));
        found = p2m_logdirty_range(d, at, n, bits, clean);
        if (found < 0)
            return found;
        dirty += found;
        if (bitmap && copy_to_guest(bitmap + at / 8, bits, (n + 7) / 8))
            return -EFAULT;
    }
    s->pages = pages;
    s->stats.fault_count = 0;
    s->stats.dirty_count = (uint32_t)dirty;
    return 0;
}

static long enable(struct domain *d, uint32_t mode)
{
    if (mode != XEN_DOMCTL_SHADOW_ENABLE_LOG_DIRTY)
        return -EINVAL;
    return p2m_logdirty_enabled(d) ? -EINVAL : p2m_logdirty_enable(d);
}

/* The old interface to the pool, in MiB, and dirty logging. */
long domctl_shadow_op(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    struct xen_domctl_shadow_op *s = &op->u.shadow_op;
    long rc = 0;

    switch (s->op) {
    case XEN_DOMCTL_SHADOW_OP_GET_ALLOCATION:
        s->mb = (uint32_t)((d->paging_mempool_bytes + (1 << 20) - 1) >> 20);
        return 0;
    case XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION:
        d->paging_mempool_bytes = (uint64_t)s->mb << 20;
        return 0;
    case XEN_DOMCTL_SHADOW_OP_OFF:
    case XEN_DOMCTL_SHADOW_OP_ENABLE:
    case XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY:
    case XEN_DOMCTL_SHADOW_OP_CLEAN:
    case XEN_DOMCTL_SHADOW_OP_PEEK:
        break;
    default:
        return hypercall_missing(v, "shadow_op", s->op, -EINVAL);
    }
    if (s->mode & ~XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL && s->op != XEN_DOMCTL_SHADOW_OP_ENABLE)
        return -EINVAL;
    domain_pause(d);
    if (s->op == XEN_DOMCTL_SHADOW_OP_OFF)
        p2m_logdirty_disable(d);
    else if (s->op == XEN_DOMCTL_SHADOW_OP_ENABLE)
        rc = enable(d, s->mode);
    else if (s->op == XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY)
        rc = enable(d, XEN_DOMCTL_SHADOW_ENABLE_LOG_DIRTY);
    else
        rc = read_dirty(d, s, s->op == XEN_DOMCTL_SHADOW_OP_CLEAN);
    domain_unpause(d);
    return rc;
}
