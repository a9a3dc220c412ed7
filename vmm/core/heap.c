/* heap.c: the buddy allocator: free blocks of 1 << order frames, sorted by address width.
 *
 * A zone holds the free blocks whose frame numbers have the same bit width, so "below a limit" is
 * a choice of zones, and unlimited requests take the highest zone that has something. Frame 0 is
 * never free, hence no block spans two zones. Each pCPU keeps a few single frames of its own,
 * which need no lock because interrupts are off.
 */
#include "core/mm.h"
#include "core/atomic.h"
#include "core/cpu.h"
#include "core/print.h"
#include "core/spinlock.h"
#include "core/string.h"

#define MAX_ORDER 18
#define NR_ZONES  41 /* bit widths of a frame number, 52-bit physical addresses */
#define PCP_BATCH 32 /* frames moved between a pCPU's list and the zones at a time */
#define PCP_MAX   (2 * PCP_BATCH)

struct page_info *frame_table;
mfn_t max_mfn;

struct zone {
    struct list free[MAX_ORDER + 1];
    uint32_t orders; /* bit o: free[o] is not empty */
};

/* All guarded by heap_lock. A zone's lists are set up when its first block comes. */
static spinlock_t heap_lock;
static struct zone zones[NR_ZONES];
static uint64_t zones_ready;    /* bit z: zones[z] is initialised */
static uint64_t zones_nonempty; /* bit z: zones[z].orders != 0 */
static uint64_t free_frames, total_frames;

static struct pcp {
    struct list list;
    unsigned count;
} pcps[MAX_CPUS]; /* touched by its own pCPU only */

static unsigned zone_of(mfn_t mfn)
{
    return 64 - (unsigned)__builtin_clzll(mfn);
}

static void block_insert(mfn_t mfn, unsigned order, bool zero)
{
    struct page_info *pg = mfn_to_page(mfn);
    unsigned z = zone_of(mfn);
    struct zone *zone = &zones[z];

    if (!(zones_ready & BIT(z))) {
        for (unsigned o = 0; o <= MAX_ORDER; o++)
            list_init(&zone->free[o]);
        zones_ready |= BIT(z);
    }
    pg->flags = PG_FREE | PG_INHEAP | (zero ? PG_ZERO : 0);
    pg->order = (uint8_t)order;
    list_add(&zone->free[order], &pg->list);
    zone->orders |= 1u << order;
    zones_nonempty |= BIT(z);
}

/* The frame stays PG_INHEAP: it is about to be part of another block, or handed out. */
static void block_remove(struct page_info *pg)
{
    unsigned z = zone_of(page_to_mfn(pg)), order = pg->order;
    struct zone *zone = &zones[z];

    list_del(&pg->list);
    pg->flags = PG_INHEAP;
    pg->order = 0;
    if (list_empty(&zone->free[order]))
        zone->orders &= ~(1u << order);
    if (!zone->orders)
        zones_nonempty &= ~BIT(z);
}

/* Put a block among the free ones, merging it with its buddy as often as that is free. All its
 * frames are PG_INHEAP. */
static void block_free(mfn_t mfn, unsigned order, bool zero)
{
    free_frames += 1ULL << order;
    for (; order < MAX_ORDER; order++) {
        mfn_t buddy = mfn ^ (1ULL << order);
        struct page_info *b = mfn_to_page(buddy);

        if (!mfn_valid(buddy) || !(READ_ONCE(b->flags) & PG_FREE) || b->order != order)
            break;
        zero = zero && (b->flags & PG_ZERO);
        block_remove(b);
        mfn_to_page(mfn)->flags = PG_INHEAP;
        mfn &= ~(1ULL << order);
    }
    block_insert(mfn, order, zero);
}

/* Cut a free block down to order: its low part, the rest goes back. */
static struct page_info *block_take(struct page_info *pg, unsigned order, bool *zero)
{
    unsigned have = pg->order;
    mfn_t mfn = page_to_mfn(pg);

    *zero = pg->flags & PG_ZERO;
    block_remove(pg);
    while (have > order) {
        have--;
        block_insert(mfn + (1ULL << have), have, *zero);
    }
    free_frames -= 1ULL << order;
    return pg;
}

/* A block of at least order in zone z whose low 1 << order frames lie under limit. The search is
 * one step unless the limit cuts the zone in two, which only boot code asks for. */
static struct page_info *zone_find(unsigned z, unsigned order, mfn_t limit)
{
    uint32_t orders = zones[z].orders >> order << order;

    for (; orders; orders &= orders - 1) {
        struct list *head = &zones[z].free[__builtin_ctz(orders)];
        struct page_info *pg;

        list_for_each(pg, head, list)
        {
            if (page_to_mfn(pg) + (1ULL << order) <= limit)
                return pg;
            if (limit <= 1ULL << (z - 1))
                break; /* the zone is above the limit altogether */
        }
    }
    return NULL;
}

static struct page_info *zones_alloc(unsigned order, mfn_t limit, bool *zero)
{
    for (uint64_t left = zones_nonempty; left;) {
        unsigned z = 63 - (unsigned)__builtin_clzll(left);
        struct page_info *pg = zone_find(z, order, limit);

        if (pg)
            return block_take(pg, order, zero);
        left &= ~BIT(z);
    }
    return NULL;
}

static struct pcp *this_pcp(void)
{
    struct pcp *pcp = &pcps[this_cpu()->id];

    if (unlikely(!pcp->list.next))
        list_init(&pcp->list);
    return pcp;
}

static void pcp_push(struct pcp *pcp, struct page_info *pg, bool zero)
{
    pg->flags = PG_INHEAP | (zero ? PG_ZERO : 0);
    list_add(&pcp->list, &pg->list);
    pcp->count++;
}

static struct page_info *pcp_pop(struct pcp *pcp, bool *zero)
{
    struct page_info *pg = list_first(&pcp->list, struct page_info, list);

    list_del(&pg->list);
    pcp->count--;
    *zero = pg->flags & PG_ZERO;
    pg->flags = PG_INHEAP;
    return pg;
}

static void pcp_drain(struct pcp *pcp, unsigned frames)
{
    spin_lock(&heap_lock);
    while (frames-- && pcp->count) {
        bool zero;
        struct page_info *pg = pcp_pop(pcp, &zero);
        block_free(page_to_mfn(pg), 0, zero);
    }
    spin_unlock(&heap_lock);
}

/* One frame from this pCPU's list, filled from the zones when empty. */
static struct page_info *pcp_alloc(bool *zero)
{
    struct pcp *pcp = this_pcp();

    if (!pcp->count) {
        spin_lock(&heap_lock);
        for (unsigned i = 0; i < PCP_BATCH; i++) {
            bool z;
            struct page_info *pg = zones_alloc(0, INVALID_MFN, &z);
            if (!pg)
                break;
            pcp_push(pcp, pg, z);
        }
        spin_unlock(&heap_lock);
    }
    return pcp->count ? pcp_pop(pcp, zero) : NULL;
}

static struct page_info *buddy_alloc(unsigned order, mfn_t limit, bool *zero)
{
    struct page_info *pg;

    spin_lock(&heap_lock);
    pg = zones_alloc(order, limit, zero);
    spin_unlock(&heap_lock);
    if (!pg && this_pcp()->count) { /* the frames held here may complete a block */
        pcp_drain(this_pcp(), PCP_MAX);
        spin_lock(&heap_lock);
        pg = zones_alloc(order, limit, zero);
        spin_unlock(&heap_lock);
    }
    return pg;
}

struct page_info *heap_alloc_below(unsigned order, mfn_t limit)
{
    struct page_info *pg;
    bool zero = false;

    if (order > MAX_ORDER)
        return NULL;
    pg = order == 0 && limit == INVALID_MFN ? pcp_alloc(&zero) : buddy_alloc(order, limit, &zero);
    if (!pg)
        return NULL;
    for (uint64_t i = 0; i < 1ULL << order; i++) {
        ASSERT(pg[i].flags == PG_INHEAP && !pg[i].refs && !pg[i].owner);
        pg[i].flags = 0;
    }
    if (!zero)
        memset(page_to_virt(pg), 0, PAGE_SIZE << order);
    return pg;
}

struct page_info *heap_alloc(unsigned order)
{
    return heap_alloc_below(order, INVALID_MFN);
}

static void free_block(struct page_info *pg, unsigned order, bool zero)
{
    mfn_t mfn = page_to_mfn(pg);

    ASSERT(order <= MAX_ORDER && !(mfn & ((1ULL << order) - 1)));
    ASSERT(mfn < max_mfn && (1ULL << order) <= max_mfn - mfn);
    for (uint64_t i = 0; i < 1ULL << order; i++) {
        /* Anything else is a double free, or memory that somebody still uses. */
        ASSERT(!pg[i].flags && !pg[i].refs && !pg[i].owner);
        pg[i].flags = PG_INHEAP;
        pg[i].pad = 0;
        pg[i].spare = 0;
    }
    if (unlikely(mfn == 0)) {
        ASSERT(order == 0); /* dom0's frame 0, ballooned out: retired, see heap_add */
        return;
    }
    if (order == 0) {
        struct pcp *pcp = this_pcp();

        pcp_push(pcp, pg, zero);
        if (pcp->count > PCP_MAX)
            pcp_drain(pcp, PCP_BATCH);
        return;
    }
    spin_lock(&heap_lock);
    block_free(mfn, order, zero);
    spin_unlock(&heap_lock);
}

void heap_free(struct page_info *pg, unsigned order)
{
    free_block(pg, order, false);
}

void heap_free_zeroed(struct page_info *pg, unsigned order)
{
    free_block(pg, order, true);
}

void heap_add(mfn_t start, mfn_t end)
{
    if (start == 0)
        start = 1;
    if (start >= end)
        return;
    ASSERT(end <= max_mfn);
    for (mfn_t m = start; m < end; m++) {
        ASSERT(!mfn_to_page(m)->flags);
        mfn_to_page(m)->flags = PG_INHEAP;
    }
    spin_lock(&heap_lock);
    total_frames += end - start;
    while (start < end) {
        unsigned order = MIN((unsigned)__builtin_ctzll(start), MAX_ORDER);

        while (1ULL << order > end - start)
            order--;
        block_free(start, order, false);
        start += 1ULL << order;
    }
    spin_unlock(&heap_lock);
}

void heap_count_assigned(uint64_t frames)
{
    atomic_add(&total_frames, frames);
}

uint64_t heap_free_pages(void)
{
    uint64_t n = READ_ONCE(free_frames);

    for (unsigned i = 0; i < MAX_CPUS; i++)
        n += READ_ONCE(pcps[i].count);
    return n;
}

uint64_t heap_total_pages(void)
{
    return READ_ONCE(total_frames);
}

void *page_alloc(void)
{
    return pages_alloc(0);
}

void page_free(void *va)
{
    pages_free(va, 0);
}

void *pages_alloc(unsigned order)
{
    struct page_info *pg = heap_alloc(order);

    return pg ? page_to_virt(pg) : NULL;
}

void pages_free(void *va, unsigned order)
{
    ASSERT(!((uint64_t)va & (PAGE_SIZE - 1)));
    heap_free(mfn_to_page(virt_to_mfn(va)), order);
}
