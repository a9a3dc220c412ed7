/* page.c: a frame's owner and its references: the last reference frees it, scrubbed.
 *
 * The owner of a frame changes only while it has no references, so whoever holds one may rely on
 * page_owner(). A domain structure outlives its frames: they hold one domain reference together.
 * d->page_list has the frames whose allocation reference is held first, then those that the owner
 * gave up and others still use.
 */
#include "core/atomic.h"
#include "core/errno.h"
#include "core/mm.h"
#include "core/print.h"
#include "core/string.h"
#include "domain/domain.h"

#define REFS_MAX 0x7fffffffu /* far more than maptrack limits allow; then page_get refuses */

static uint32_t owner_handle(const struct domain *d)
{
    mfn_t mfn = virt_to_mfn(d);

    ASSERT(mfn && mfn <= UINT32_MAX && !((uint64_t)d & (PAGE_SIZE - 1)));
    return (uint32_t)mfn;
}

struct domain *page_owner(const struct page_info *pg)
{
    uint32_t owner = READ_ONCE(pg->owner);

    return owner ? mfn_to_virt(owner) : NULL;
}

/* Make count fresh frames d's; d->page_lock is held. */
static void take_ownership(struct domain *d, struct page_info *pg, uint64_t count, uint8_t flags)
{
    uint32_t owner = owner_handle(d);
    bool shared = flags & PG_XENHEAP;

    if (!(d->tot_pages + d->xenheap_pages) && count)
        domain_hold(d);
    for (uint64_t i = 0; i < count; i++) {
        ASSERT(!pg[i].flags && !pg[i].refs && !pg[i].owner);
        pg[i].owner = owner;
        pg[i].flags = flags;
        list_add(shared ? &d->xenpage_list : &d->page_list, &pg[i].list);
        atomic_store(&pg[i].refs, 1); /* from here page_get finds it */
    }
    *(shared ? &d->xenheap_pages : &d->tot_pages) += count;
}

static bool may_grow(const struct domain *d, uint64_t frames, bool beyond)
{
    uint64_t extra = READ_ONCE(d->extra_pages), have = READ_ONCE(d->tot_pages),
             max = READ_ONCE(d->max_pages);

    have -= MIN(have, extra);
    return READ_ONCE(d->dying) == DOMAIN_ALIVE && (beyond || (have <= max && frames <= max - have));
}

static struct page_info *page_alloc_for(struct domain *d, unsigned order, mfn_t limit, bool beyond)
{
    uint64_t frames = 1ULL << order;
    struct page_info *pg;

    if (!may_grow(d, frames, beyond))
        return NULL;
    pg = heap_alloc_below(order, limit ? limit : INVALID_MFN);
    if (!pg)
        return NULL;
    spin_lock(&d->page_lock);
    if (!may_grow(d, frames, beyond)) {
        spin_unlock(&d->page_lock);
        heap_free_zeroed(pg, order);
        return NULL;
    }
    take_ownership(d, pg, frames, PG_ALLOCATED);
    if (beyond)
        d->extra_pages += frames;
    spin_unlock(&d->page_lock);
    return pg;
}

struct page_info *domain_page_alloc(struct domain *d, unsigned order, mfn_t limit)
{
    return page_alloc_for(d, order, limit, false);
}

struct page_info *domain_page_alloc_beyond(struct domain *d, unsigned order, mfn_t limit)
{
    return page_alloc_for(d, order, limit, true);
}

void page_share_with_domain(struct page_info *pg, struct domain *d)
{
    spin_lock(&d->page_lock);
    take_ownership(d, pg, 1, PG_XENHEAP);
    spin_unlock(&d->page_lock);
}

void domain_pages_assign(struct domain *d, struct page_info *pg, uint64_t count)
{
    spin_lock(&d->page_lock);
    take_ownership(d, pg, count, PG_ALLOCATED);
    spin_unlock(&d->page_lock);
    heap_count_assigned(count);
}

void domain_page_assign(struct domain *d, struct page_info *pg)
{
    domain_pages_assign(d, pg, 1);
}

bool page_get(struct page_info *pg, const struct domain *d)
{
    uint32_t refs = READ_ONCE(pg->refs);

    do {
        if (refs == 0 || refs >= REFS_MAX)
            return false;
    } while (!__atomic_compare_exchange_n(&pg->refs, &refs, refs + 1, false, __ATOMIC_SEQ_CST,
                                          __ATOMIC_RELAXED));
    if (likely(!d || page_owner(pg) == d))
        return true;
    page_put(pg);
    return false;
}

/* The last reference is gone: nobody else can reach pg but through d->page_list. */
static void page_release(struct page_info *pg)
{
    struct domain *d = page_owner(pg);
    bool last;

    ASSERT(d && !(pg->flags & PG_ALLOCATED));
    spin_lock(&d->page_lock);
    list_del(&pg->list);
    if (pg->flags & PG_XENHEAP) {
        d->xenheap_pages--;
    } else {
        d->tot_pages--;
        d->extra_pages -= d->extra_pages != 0;
    }
    last = !(d->tot_pages + d->xenheap_pages);
    pg->owner = 0;
    pg->flags = 0;
    spin_unlock(&d->page_lock);

    memset(page_to_virt(pg), 0, PAGE_SIZE);
    heap_free_zeroed(pg, 0);
    if (last)
        domain_put(d);
}

void page_put(struct page_info *pg)
{
    uint32_t refs = atomic_sub(&pg->refs, 1);

    ASSERT(refs != UINT32_MAX);
    if (refs == 0)
        page_release(pg);
}

bool page_put_alloc_ref(struct page_info *pg)
{
    struct domain *d = page_owner(pg);
    bool had;

    ASSERT(d);
    spin_lock(&d->page_lock);
    had = pg->flags & PG_ALLOCATED;
    if (had) {
        pg->flags &= (uint8_t)~PG_ALLOCATED;
        list_del(&pg->list);
        list_add_tail(&d->page_list, &pg->list);
    }
    spin_unlock(&d->page_lock);
    if (had)
        page_put(pg);
    return had;
}

int domain_pages_release(struct domain *d)
{
    ASSERT(d->dying != DOMAIN_ALIVE);
    for (unsigned done = 1;; done++) {
        struct page_info *pg = NULL;

        spin_lock(&d->page_lock);
        if (!list_empty(&d->page_list)) {
            pg = list_first(&d->page_list, struct page_info, list);
            /* A frame is at the front without it only when all the frames behind it are too. */
            if (!(pg->flags & PG_ALLOCATED) || !page_get(pg, d))
                pg = NULL;
        }
        spin_unlock(&d->page_lock);
        if (!pg)
            return 0;
        page_put_alloc_ref(pg);
        page_put(pg);
        if (!(done % 64) && hypercall_preempt_check())
            return -ERESTART;
    }
}
