/* grant_copy.c: GNTTABOP_copy: the hypervisor moves bytes between two domains' pages.
 *
 * Network back ends send batches in which one page is copied in many pieces, so each side's page
 * stays pinned until the batch ends or names another.
 */
#include "core/errno.h"
#include "core/string.h"
#include "domain/grant.h"

static void release(struct grant_copy_side *s)
{
    if (!s->valid)
        return;
    s->valid = false;
    if (s->by_ref) {
        grant_unpin(s->d, (grant_ref_t)s->frame, s->write);
        domain_put(s->d);
    } else {
        page_put(s->pg);
    }
}

/* The caller's own page gmfn. */
static int16_t acquire_own(struct vcpu *v, struct grant_copy_side *s)
{
    enum p2m_type t;

    if (s->domid != DOMID_SELF && s->domid != v->domain->id)
        return GNTST_permission_denied;
    s->pg = p2m_get_page(v->domain, s->frame, s->write, &t);
    if (!s->pg)
        return GNTST_bad_page;
    s->va = page_to_virt(s->pg);
    if (s->write && p2m_logdirty_enabled(v->domain))
        p2m_mark_dirty(v->domain, s->frame);
    return GNTST_okay;
}

static int16_t acquire_grant(struct vcpu *v, struct grant_copy_side *s)
{
    int16_t status;
    mfn_t mfn;

    s->d = grant_domain(v, s->domid);
    if (!s->d)
        return GNTST_bad_domain;
    status = s->d->dying != DOMAIN_ALIVE || !s->d->grants
                 ? GNTST_bad_domain
                 : grant_pin(s->d, (grant_ref_t)s->frame, v->domain->id, s->write, &mfn);
    if (status != GNTST_okay) {
        domain_put(s->d);
        return status;
    }
    s->va = mfn_to_virt(mfn);
    return GNTST_okay;
}

/* Make *s the page that p names. */
static int16_t acquire(struct vcpu *v, struct grant_copy_side *s, const struct gnttab_copy_ptr *p,
                       bool by_ref, bool write)
{
    uint64_t frame = by_ref ? p->u.ref : p->u.gmfn;
    int16_t status;

    if (s->valid && s->by_ref == by_ref && s->domid == p->domid && s->frame == frame)
        return GNTST_okay;
    release(s);
    s->by_ref = by_ref;
    s->write = write;
    s->domid = p->domid;
    s->frame = frame;
    status = by_ref ? acquire_grant(v, s) : acquire_own(v, s);
    s->valid = status == GNTST_okay;
    return status;
}

void grant_copy_op(struct vcpu *v, struct grant_batch *b, struct gnttab_copy *op)
{
    op->status = GNTST_bad_copy_arg;
    if (op->source.offset + op->len > PAGE_SIZE || op->dest.offset + op->len > PAGE_SIZE)
        return;
    op->status = acquire(v, &b->source, &op->source, op->flags & GNTCOPY_source_gref, false);
    if (op->status == GNTST_okay)
        op->status = acquire(v, &b->dest, &op->dest, op->flags & GNTCOPY_dest_gref, true);
    if (op->status == GNTST_okay)
        memmove(b->dest.va + op->dest.offset, b->source.va + op->source.offset, op->len);
}

void grant_copy_end(struct grant_batch *b)
{
    release(&b->source);
    release(&b->dest);
}
