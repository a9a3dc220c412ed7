/* grant.c: grant tables: a domain lets another use one of its pages, by an entry of a shared table.
 *
 * Version 1 entries only (a stock guest asks for version 2 when its frame numbers do not fit 32
 * bits, and goes on with 1 otherwise). An entry is the guest's to write at any moment: it is read
 * once, taken over with compare-and-swap on its header word (flags and domid together), and from
 * then on the pin in struct grant_active is what counts.
 */
#include "domain/grant.h"

#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"

/* A guest that changes its entry all the time loses the race after so many attempts. */
#define PIN_TRIES 8

struct domain *grant_domain(struct vcpu *v, domid_t domid)
{
    return domain_get(domid == DOMID_SELF ? v->domain->id : domid);
}

/* Entry ref of gt, when the table has it. */
static struct grant_active *find_entry(struct grant_table *gt, grant_ref_t ref,
                                       struct grant_entry_v1 **shared)
{
    unsigned frame = ref / GRANTS_PER_FRAME, i = ref % GRANTS_PER_FRAME;

    if (frame >= atomic_load(&gt->nr_frames))
        return NULL;
    *shared = &gt->shared[frame][i];
    return &gt->active[frame][i];
}

/* Drop GTF_writing when no writer is left, and GTF_reading with it when nobody is. Holds act->lock.
 */
static void show_pins(struct grant_entry_v1 *shared, const struct grant_active *act)
{
    uint16_t gone = 0;

    if (!act->write_pins)
        gone |= GTF_writing;
    if (!act->pins)
        gone |= GTF_reading;
    if (gone)
        (void)atomic_and(&shared->flags, (uint16_t)~gone);
}

/* Check that the entry permits the use and set its flags, in one step. Holds act->lock. */
static int16_t take_entry(struct grant_entry_v1 *shared, domid_t user, bool write)
{
    uint32_t *header = (uint32_t *)shared; /* flags in the low half, domid in the high one */

    for (unsigned i = 0; i < PIN_TRIES; i++) {
        uint32_t old = READ_ONCE(*header);

        if ((old & GTF_type_mask) != GTF_permit_access || old >> 16 != user)
            return GNTST_bad_gntref;
        if (write && (old & GTF_readonly))
            return GNTST_general_error;
        if (atomic_cas(header, old, old | GTF_reading | (write ? GTF_writing : 0)))
            return GNTST_okay;
    }
    return GNTST_general_error;
}

/* First pin: the frame that the entry names now. Holds act->lock, takes rd's p2m lock. */
static int16_t take_frame(struct domain *rd, struct grant_active *act,
                          const struct grant_entry_v1 *shared)
{
    enum p2m_type t;
    struct page_info *pg = p2m_get_page(rd, READ_ONCE(shared->frame), false, &t);

    if (!pg)
        return GNTST_bad_page;
    /* A page that was itself granted or mapped from elsewhere is not rd's to give. */
    if (!p2m_is_ram(t) || page_owner(pg) != rd) {
        page_put(pg);
        return GNTST_bad_page;
    }
    act->mfn = page_to_mfn(pg);
    act->writable = p2m_is_writable(t);
    return GNTST_okay;
}

int16_t grant_pin(struct domain *rd, grant_ref_t ref, domid_t user, bool write, mfn_t *mfn)
{
    struct grant_entry_v1 *shared;
    struct grant_active *act = find_entry(rd->grants, ref, &shared);
    int16_t status;

    if (!act)
        return GNTST_bad_gntref;
    spin_lock(&act->lock);
    if (act->pins == UINT16_MAX)
        status = GNTST_no_space;
    else if (act->pins && act->domid != user)
        status = GNTST_bad_gntref;
    else
        status = take_entry(shared, user, write);
    if (status == GNTST_okay) {
        if (!act->pins)
            status = take_frame(rd, act, shared);
        if (status == GNTST_okay && write && !act->writable) {
            status = GNTST_general_error;
            if (!act->pins)
                page_put(mfn_to_page(act->mfn));
        }
        if (status != GNTST_okay)
            show_pins(shared, act);
    }
    if (status == GNTST_okay) {
        act->domid = user;
        act->pins++;
        act->write_pins += write;
        *mfn = act->mfn;
    }
    spin_unlock(&act->lock);
    return status;
}

void grant_unpin(struct domain *rd, grant_ref_t ref, bool write)
{
    struct grant_entry_v1 *shared;
    struct grant_active *act = find_entry(rd->grants, ref, &shared);
    struct page_info *pg = NULL;

    ASSERT(act && act->pins && (!write || act->write_pins));
    spin_lock(&act->lock);
    if (write && p2m_logdirty_enabled(rd))
        p2m_mark_dirty(rd, READ_ONCE(shared->frame));
    act->write_pins -= write;
    if (!--act->pins)
        pg = mfn_to_page(act->mfn);
    show_pins(shared, act);
    spin_unlock(&act->lock);
    if (pg)
        page_put(pg);
}

mfn_t grant_pinned_mfn(struct domain *rd, grant_ref_t ref)
{
    struct grant_entry_v1 *shared;
    struct grant_active *act = find_entry(rd->grants, ref, &shared);

    ASSERT(act && act->pins);
    return act->mfn;
}

/* ---- the table's size ----------------------------------------------------------------------- */

/* One more frame. -ENOMEM. Holds gt->lock. */
static int add_frame(struct domain *d, struct grant_table *gt)
{
    struct grant_active *active = pages_alloc(1);
    struct page_info *pg = heap_alloc(0);

    STATIC_ASSERT(sizeof(struct grant_active) * GRANTS_PER_FRAME == PAGE_SIZE << 1);
    if (!active || !pg) {
        if (active)
            pages_free(active, 1);
        if (pg)
            heap_free(pg, 0);
        return -ENOMEM;
    }
    page_share_with_domain(pg, d);
    gt->shared[gt->nr_frames] = page_to_virt(pg);
    gt->active[gt->nr_frames] = active;
    atomic_store(&gt->nr_frames, gt->nr_frames + 1);
    return 0;
}

/* At least `frames` frames: -EINVAL (more than the tools allow), -ENOMEM. Takes gt->lock. */
static int grow(struct domain *d, unsigned frames)
{
    struct grant_table *gt = d->grants;
    int rc = 0;

    if (frames > gt->max_frames)
        return -EINVAL;
    spin_lock(&gt->lock);
    while (!rc && gt->nr_frames < frames)
        rc = add_frame(d, gt);
    spin_unlock(&gt->lock);
    return rc;
}

int grant_table_frame(struct domain *d, unsigned idx, bool status, mfn_t *mfn)
{
    int rc = -EINVAL; /* status frames are version 2's */

    if (!status && idx < d->grants->max_frames)
        rc = grow(d, idx + 1);
    if (!rc)
        *mfn = virt_to_mfn(d->grants->shared[idx]);
    return rc;
}

/* ---- operations ----------------------------------------------------------------------------- */

/* The domain a query names, referenced, or NULL with the status to answer. */
static struct domain *resolve(struct vcpu *v, domid_t id, int16_t *status)
{
    struct domain *d;
    int rc = domain_resolve(v, id, &d);

    *status = !rc ? GNTST_okay : rc == -EPERM ? GNTST_permission_denied : GNTST_bad_domain;
    return rc ? NULL : d;
}

static long op_query_size(struct vcpu *v, struct grant_batch *b, void *arg)
{
    struct gnttab_query_size *op = arg;
    struct domain *d = resolve(v, op->dom, &op->status);

    (void)b;
    if (d) {
        op->nr_frames = atomic_load(&d->grants->nr_frames);
        op->max_nr_frames = d->grants->max_frames;
        domain_put(d);
    }
    return 0;
}

/* Grow the table. The frames' numbers are not told: guests here place them with
 * XENMEM_add_to_physmap, so each is answered with "nowhere". */
static long op_setup_table(struct vcpu *v, struct grant_batch *b, void *arg)
{
    struct gnttab_setup_table32 *op32 = arg;
    struct gnttab_setup_table *op = arg;
    uint64_t list = v->compat ? op32->frame_list : (uint64_t)op->frame_list.p, none = ~0ULL;
    unsigned bytes = v->compat ? 4 : 8, frames = op->nr_frames; /* same place in both layouts */
    int16_t status;
    struct domain *d = resolve(v, op->dom, &status);

    (void)b;
    STATIC_ASSERT(offsetof(struct gnttab_setup_table, status) ==
                  offsetof(struct gnttab_setup_table32, status));
    if (d) {
        if (grow(d, frames))
            status = GNTST_general_error;
        for (unsigned i = 0; status == GNTST_okay && i < frames; i++)
            if (copy_to_guest(list + i * bytes, &none, bytes))
                status = GNTST_bad_virt_addr;
        domain_put(d);
    }
    op->status = status;
    return 0;
}

static long op_get_status_frames(struct vcpu *v, struct grant_batch *b, void *arg)
{
    struct gnttab_get_status_frames *op = arg;

    (void)v, (void)b;
    STATIC_ASSERT(offsetof(struct gnttab_get_status_frames, status) ==
                  offsetof(struct gnttab_get_status_frames32, status));
    op->status = GNTST_general_error;
    return 0;
}

static long op_set_version(struct vcpu *v, struct grant_batch *b, void *arg)
{
    struct gnttab_set_version *op = arg;
    uint32_t asked = op->version;

    (void)v, (void)b;
    op->version = 1;
    return asked == 1 ? 0 : asked == 2 ? -ENOSYS : -EINVAL;
}

static long op_get_version(struct vcpu *v, struct grant_batch *b, void *arg)
{
    struct gnttab_get_version *op = arg;
    struct domain *d;
    int rc = domain_resolve(v, op->dom, &d);

    (void)b;
    if (rc)
        return rc;
    domain_put(d);
    op->version = 1;
    return 0;
}

static long op_swap(struct vcpu *v, struct grant_batch *b, void *arg)
{
    struct gnttab_swap_grant_ref *op = arg;
    struct grant_entry_v1 *shared_lo = NULL, *shared_hi = NULL, tmp;
    grant_ref_t lo = MIN(op->ref_a, op->ref_b), hi = MAX(op->ref_a, op->ref_b);
    struct grant_active *act_lo = find_entry(v->domain->grants, lo, &shared_lo);
    struct grant_active *act_hi = find_entry(v->domain->grants, hi, &shared_hi);

    (void)b;
    op->status = act_lo && act_hi ? GNTST_okay : GNTST_bad_gntref;
    if (lo == hi || op->status != GNTST_okay)
        return 0;
    spin_lock(&act_lo->lock);
    spin_lock(&act_hi->lock);
    if (act_lo->pins || act_hi->pins) {
        op->status = GNTST_eagain;
    } else {
        tmp = *shared_lo;
        *shared_lo = *shared_hi;
        *shared_hi = tmp;
    }
    spin_unlock(&act_hi->lock);
    spin_unlock(&act_lo->lock);
    return 0;
}

static long op_map(struct vcpu *v, struct grant_batch *b, void *arg)
{
    grant_map_op(v, b, arg);
    return 0;
}

static long op_unmap(struct vcpu *v, struct grant_batch *b, void *arg)
{
    (void)b;
    grant_unmap_op(v, arg);
    return 0;
}

static long op_copy(struct vcpu *v, struct grant_batch *b, void *arg)
{
    struct gnttab_copy32 *op32 = arg;
    struct gnttab_copy op;

    if (!v->compat) {
        grant_copy_op(v, b, arg);
        return 0;
    }
    memset(&op, 0, sizeof(op));
    op.source.u.gmfn = op32->source.frame;
    op.source.domid = op32->source.domid;
    op.source.offset = op32->source.offset;
    op.dest.u.gmfn = op32->dest.frame;
    op.dest.domid = op32->dest.domid;
    op.dest.offset = op32->dest.offset;
    op.len = op32->len;
    op.flags = op32->flags;
    grant_copy_op(v, b, &op);
    op32->status = op.status;
    return 0;
}

static const struct grant_op {
    uint8_t bytes, bytes32; /* of one argument */
    bool single;            /* takes one argument, not an array */
    long (*run)(struct vcpu *v, struct grant_batch *b, void *arg);
} grant_ops[] = {
#define SAME(type) sizeof(struct type), sizeof(struct type)
#define BOTH(type) sizeof(struct type), sizeof(struct type##32)
    [GNTTABOP_map_grant_ref] = {SAME(gnttab_map_grant_ref), false, op_map},
    [GNTTABOP_unmap_grant_ref] = {SAME(gnttab_unmap_grant_ref), false, op_unmap},
    [GNTTABOP_setup_table] = {BOTH(gnttab_setup_table), true, op_setup_table},
    [GNTTABOP_copy] = {BOTH(gnttab_copy), false, op_copy},
    [GNTTABOP_query_size] = {SAME(gnttab_query_size), true, op_query_size},
    [GNTTABOP_set_version] = {SAME(gnttab_set_version), true, op_set_version},
    [GNTTABOP_get_status_frames] = {BOTH(gnttab_get_status_frames), true, op_get_status_frames},
    [GNTTABOP_get_version] = {SAME(gnttab_get_version), true, op_get_version},
    [GNTTABOP_swap_grant_ref] = {SAME(gnttab_swap_grant_ref), false, op_swap},
#undef SAME
#undef BOTH
};

enum { CHUNK = 16, CHUNK_BYTES = CHUNK * sizeof(struct gnttab_copy) };

/* Read, run and write back one chunk of n arguments of `bytes`. */
static long run_chunk(struct vcpu *v, struct grant_batch *b, const struct grant_op *op,
                      uint64_t gva, unsigned n, unsigned bytes)
{
    uint64_t buf[CHUNK_BYTES / sizeof(uint64_t)];
    unsigned done;
    long rc = 0;

    if (copy_from_guest(buf, gva, (size_t)n * bytes))
        return -EFAULT;
    for (done = 0; done < n && !rc; done++)
        rc = op->run(v, b, (char *)buf + done * bytes);
    if (copy_to_guest(gva, buf, (size_t)done * bytes)) {
        rc = rc ? rc : -EFAULT;
        for (unsigned i = 0; op->run == op_map && i < done; i++)
            grant_map_undo(v, (struct gnttab_map_grant_ref *)((char *)buf + i * bytes));
    }
    return rc;
}

/* HYPERVISOR_grant_table_op(cmd, array, count). v is current; no locks held. Each argument has its
 * own status; the call fails only when the arguments cannot be read or written. */
long do_grant_table_op(struct vcpu *v, const uint64_t arg[6])
{
    unsigned cmd = (unsigned)arg[0], count = (unsigned)arg[2], bytes;
    struct grant_batch batch = {0};
    uint64_t gva = arg[1];
    long rc = 0;

    STATIC_ASSERT(CHUNK_BYTES >= CHUNK * sizeof(struct gnttab_map_grant_ref));
    if (cmd >= ARRAY_SIZE(grant_ops) || !grant_ops[cmd].run)
        return hypercall_missing(v, "grant_table_op", cmd,
                                 cmd <= GNTTABOP_cache_flush ? -EOPNOTSUPP : -ENOSYS);
    if ((int)count < 0 || (grant_ops[cmd].single && count != 1))
        return -EINVAL;
    bytes = v->compat ? grant_ops[cmd].bytes32 : grant_ops[cmd].bytes;
    while (count && !rc) {
        unsigned n = MIN(count, (unsigned)CHUNK);

        rc = run_chunk(v, &batch, &grant_ops[cmd], gva, n, bytes);
        gva += (uint64_t)n * bytes;
        count -= n;
        if (!rc && count && hypercall_preempt_check()) {
            hypercall_set_arg(v, 1, gva);
            hypercall_set_arg(v, 2, count);
            rc = hypercall_continue(v);
            break;
        }
    }
    if (batch.granter)
        domain_put(batch.granter);
    grant_copy_end(&batch);
    return rc;
}

/* ---- life cycle ----------------------------------------------------------------------------- */

/* Make d's grant table with one frame; d->max_grant_frames and max_maptrack_frames (negative: the
 * default) are set. -ENOMEM. */
int grant_table_init(struct domain *d)
{
    struct grant_table *gt = kzalloc(sizeof(*gt));
    int rc = -ENOMEM;
    unsigned maptrack;

    if (!gt)
        return rc;
    gt->max_frames = d->max_grant_frames < 0 ? DEFAULT_GRANT_FRAMES : (unsigned)d->max_grant_frames;
    gt->max_frames = MAX(MIN(gt->max_frames, MAX_GRANT_FRAMES), 1u);
    maptrack =
        d->max_maptrack_frames < 0 ? DEFAULT_MAPTRACK_FRAMES : (unsigned)d->max_maptrack_frames;
    gt->max_map_pages =
        MIN(maptrack, MAX_MAPTRACK_FRAMES) * MAPTRACK_PER_FRAME / GRANT_MAPS_PER_PAGE;
    gt->shared = kzalloc(gt->max_frames * sizeof(gt->shared[0]));
    gt->active = kzalloc(gt->max_frames * sizeof(gt->active[0]));
    d->grants = gt;
    if (gt->shared && gt->active)
        rc = grow(d, 1);
    if (rc)
        grant_table_free(d);
    return rc;
}

void grant_table_free(struct domain *d)
{
    struct grant_table *gt = d->grants;

    if (!gt)
        return;
    while (grant_table_destroy(d) == -ERESTART)
        ;
    for (unsigned i = 0; i < gt->nr_frames; i++) {
        pages_free(gt->active[i], 1);
        page_put(mfn_to_page(virt_to_mfn(gt->shared[i])));
    }
    for (unsigned i = 0; i < gt->nr_map_pages; i++)
        page_free(gt->maps[i]);
    kfree(gt->maps);
    kfree(gt->shared);
    kfree(gt->active);
    kfree(gt);
    d->grants = NULL;
}
