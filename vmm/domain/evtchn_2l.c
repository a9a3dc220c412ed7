/* evtchn_2l.c: the 2-level event channel ABI, and vcpu_info, through which every ABI tells a vCPU.
 *
 * shared_info holds a bitmap of pending ports and one of masked ports; each vcpu_info holds a
 * selector of the pending bitmap's words. Both have a 64-bit and a 32-bit layout, chosen by
 * d->has_32bit_shinfo. All of it is the guest's to write: nothing here trusts what it reads.
 */
#include "core/errno.h"
#include "core/string.h"
#include "domain/evtchn.h"

/* Layout of struct shared_info for 32-bit guests; the 64-bit one is the header's. */
enum {
    SHINFO32_PENDING = XEN_LEGACY_MAX_VCPUS * 64,
    SHINFO32_MASK = SHINFO32_PENDING + 128,
    VCPU_INFO32_SEL = 4,
};
STATIC_ASSERT(sizeof(struct vcpu_info) == 64 && offsetof(struct vcpu_info, time) == 32);
STATIC_ASSERT(sizeof(((struct shared_info *)0)->vcpu_info) == SHINFO32_PENDING);

/* vcpu_info of vCPUs that have none yet. Never written. */
static struct vcpu_info no_vcpu_info;

/* ---- 2-level ABI ---------------------------------------------------------------------------- */

static unsigned char *pending_map(const struct domain *d)
{
    return d->has_32bit_shinfo ? (unsigned char *)d->shared_info + SHINFO32_PENDING
                               : (unsigned char *)d->shared_info->evtchn_pending;
}

static unsigned char *mask_map(const struct domain *d)
{
    return d->has_32bit_shinfo ? (unsigned char *)d->shared_info + SHINFO32_MASK
                               : (unsigned char *)d->shared_info->evtchn_mask;
}

unsigned evtchn_2l_ports(const struct domain *d)
{
    return d->has_32bit_shinfo ? 32 * 32 : 64 * 64;
}

/* Select port's word in v's vcpu_info and tell v. */
static inline void select_port(struct vcpu *v, unsigned port, bool layout32)
{
    struct vcpu_info *info = READ_ONCE(v->info);
    void *sel = layout32 ? (char *)info + VCPU_INFO32_SEL : (void *)&info->evtchn_pending_sel;

    if (likely(info != &no_vcpu_info) && !test_and_set_bit(port / (layout32 ? 32 : 64), sel) &&
        !atomic_xchg(&info->evtchn_upcall_pending, 1))
        evtchn_notify_vcpu(v);
}

static __attribute__((noinline)) void set_pending32(struct domain *d, struct evtchn *chn,
                                                    unsigned port)
{
    if (port < evtchn_2l_ports(d) && !test_and_set_bit(port, pending_map(d)) &&
        !test_bit(port, mask_map(d)))
        select_port(d->vcpu[chn->vcpu], port, true);
}

void evtchn_2l_set_pending(struct domain *d, struct evtchn *chn, unsigned port)
{
    struct shared_info *s = d->shared_info;

    if (unlikely(d->has_32bit_shinfo)) {
        set_pending32(d, chn, port);
        return;
    }
    if (port < 64 * 64 && !test_and_set_bit(port, s->evtchn_pending) &&
        !test_bit(port, s->evtchn_mask))
        select_port(d->vcpu[chn->vcpu], port, false);
}

bool evtchn_2l_pending(const struct domain *d, unsigned port)
{
    return port < evtchn_2l_ports(d) && test_bit(port, pending_map(d));
}

void evtchn_2l_clear_pending(struct domain *d, unsigned port)
{
    if (port < evtchn_2l_ports(d))
        clear_bit(port, pending_map(d));
}

void evtchn_2l_unmask(struct domain *d, struct evtchn *chn, unsigned port)
{
    if (port < evtchn_2l_ports(d) && test_and_clear_bit(port, mask_map(d)) &&
        test_bit(port, pending_map(d)))
        select_port(d->vcpu[chn->vcpu], port, d->has_32bit_shinfo);
}

/* ---- vcpu_info ------------------------------------------------------------------------------ */

bool evtchn_has_vcpu_info(const struct vcpu *v)
{
    return READ_ONCE(v->info) != &no_vcpu_info;
}

bool evtchn_upcall_pending(const struct vcpu *v)
{
    /* evtchn_upcall_mask is for PV guests: an HVM guest masks with its own interrupt flag. */
    return READ_ONCE(v->info->evtchn_upcall_pending);
}

void evtchn_mark_vcpu(struct vcpu *v)
{
    struct vcpu_info *info = READ_ONCE(v->info);

    if (info != &no_vcpu_info && !atomic_xchg(&info->evtchn_upcall_pending, 1))
        evtchn_notify_vcpu(v);
}

void evtchn_vcpu_init(struct vcpu *v)
{
    struct shared_info *s = v->domain->shared_info;

    memset(v->virq_to_port, 0, sizeof(v->virq_to_port));
    v->poll_port = 0;
    v->info_gpa = ~0ULL;
    v->info_page = NULL;
    v->info = s && v->id < XEN_LEGACY_MAX_VCPUS ? &s->vcpu_info[v->id] : &no_vcpu_info;
    pvtime_update_vcpu(v);
}

/* v is current, or down. -EINVAL: registered already, or no such RAM. Takes ed->lock. */
int evtchn_map_vcpu_info(struct vcpu *v, gfn_t gfn, unsigned offset)
{
    struct evtchn_domain *ed = v->domain->evtchn;
    struct vcpu_info *info;
    struct page_info *pg;
    enum p2m_type t;
    bool done = false;

    if (offset > PAGE_SIZE - sizeof(*info) || offset % 4)
        return -EINVAL;
    pg = p2m_get_page(v->domain, gfn, true, &t);
    if (!pg)
        return -EINVAL;
    info = (struct vcpu_info *)((char *)page_to_virt(pg) + offset);

    spin_lock(&ed->lock);
    if (!v->info_page && !ed->dead && p2m_is_ram(t)) {
        memcpy(info, v->info, sizeof(*info));
        v->info_page = pg;
        v->info_gpa = (gfn << PAGE_SHIFT) + offset;
        atomic_store(&v->info, info);
        done = true;
    }
    spin_unlock(&ed->lock);
    if (!done) {
        page_put(pg);
        return -EINVAL;
    }
    /* A sender may have marked the old place after the copy: say that anything may be pending. */
    smp_mb();
    if (v->domain->has_32bit_shinfo)
        atomic_store((uint32_t *)((char *)info + VCPU_INFO32_SEL), ~0u);
    else
        atomic_store(&info->evtchn_pending_sel, ~0ULL);
    atomic_store(&info->evtchn_upcall_pending, 1);
    evtchn_notify_vcpu(v);
    pvtime_update_vcpu(v);
    return 0;
}

/* Does nothing while there may be senders that hold the old place: evtchn_domain_destroy, which
 * closes every port first, calls it again. */
void evtchn_unmap_vcpu_info(struct vcpu *v)
{
    struct page_info *pg = v->info_page;

    if (!pg || !READ_ONCE(v->domain->evtchn->dead))
        return;
    atomic_store(&v->info, &no_vcpu_info);
    v->info_page = NULL;
    v->info_gpa = ~0ULL;
    page_put(pg);
}
