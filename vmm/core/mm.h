/* mm.h: machine frames: who owns each, how many references it has, and the buddy allocator.
 *
 * A frame is free, or the hypervisor's own (no owner), or a domain's. A domain's frame holds one
 * allocation reference, given up by decrease_reservation or by the domain's death, and one for
 * each foreign mapping, grant mapping or hypervisor use; the last reference frees it, scrubbed.
 */
#pragma once

#include "core/list.h"
#include "core/types.h"

struct domain;

enum page_flags {
    PG_FREE = 1,      /* head of a free block of 1 << order frames */
    PG_ALLOCATED = 2, /* the owner's allocation reference is held */
    PG_XENHEAP = 4,   /* the hypervisor's page shared with its owner (shared_info, grant frames) */
    PG_INHEAP = 8,    /* every frame of a free block, and those on a pCPU's free list */
    PG_ZERO = 16,     /* with PG_FREE or alone on a pCPU's list: the free frames are known zero */
};

struct page_info {    /* 32 bytes a frame, in one array indexed by mfn */
    struct list list; /* free block: buddy list. domain's page: d->page_list (d->page_lock) */
    uint32_t refs;    /* atomic */
    uint32_t owner;   /* opaque handle of the owning domain, 0 for none: page_owner() */
    uint8_t order;    /* of a free block */
    uint8_t flags;    /* enum page_flags; changed by owner under page_lock */
    uint16_t pad;
    uint32_t spare;
};
STATIC_ASSERT(sizeof(struct page_info) == 32);

#ifdef HOST_TEST
extern char *host_test_ram; /* the test's stand-in for machine memory; mfn 0 is its first byte */
#define DIRECTMAP_BASE ((uint64_t)host_test_ram)
#else
#define DIRECTMAP_BASE 0xffff800000000000ULL /* every RAM frame, write-back */
#define UCMAP_BASE     0xffff880000000000ULL /* physical addresses 0..4 GiB+ mapped uncached */
#define FRAME_TABLE_BASE                                                                           \
    0xffff900000000000ULL /* frame_table; parts that describe no RAM are zeroes, read-only */
#define IMAGE_BASE 0xffffffff80000000ULL /* the hypervisor's image */
#endif

extern struct page_info *frame_table; /* [0, max_mfn) */
extern mfn_t max_mfn;

static inline void *pa_to_virt(paddr_t pa)
{
    return (void *)(DIRECTMAP_BASE + pa);
}
static inline void *mfn_to_virt(mfn_t mfn)
{
    return pa_to_virt(mfn << PAGE_SHIFT);
}
static inline paddr_t virt_to_pa(const void *va) /* a direct-map address only */
{
    return (uint64_t)va - DIRECTMAP_BASE;
}
static inline mfn_t virt_to_mfn(const void *va)
{
    return virt_to_pa(va) >> PAGE_SHIFT;
}
static inline struct page_info *mfn_to_page(mfn_t mfn)
{
    return &frame_table[mfn];
}
static inline mfn_t page_to_mfn(const struct page_info *pg)
{
    return (mfn_t)(pg - frame_table);
}
static inline void *page_to_virt(const struct page_info *pg)
{
    return mfn_to_virt(page_to_mfn(pg));
}
static inline bool mfn_valid(mfn_t mfn)
{
    return mfn < max_mfn;
}

/* Boot: give RAM [start, end) in mfns to the allocator. frame_table (zeroed) and max_mfn are set
 * before. Frame 0 is left out: handle 0 means "no owner", and blocks never span address zones. */
void heap_add(mfn_t start, mfn_t end);

/* Allocate 1 << order contiguous zeroed frames for the hypervisor itself; NULL when out of memory.
 * Any context but under the heap lock. heap_alloc_below keeps them under `limit` (an mfn). */
struct page_info *heap_alloc(unsigned order);
struct page_info *heap_alloc_below(unsigned order, mfn_t limit);
void heap_free(struct page_info *pg, unsigned order);
/* heap_free for frames that the caller has just filled with zeroes. */
void heap_free_zeroed(struct page_info *pg, unsigned order);
/* One zeroed page / several, as a pointer; and back. */
void *page_alloc(void);
void page_free(void *va);
void *pages_alloc(unsigned order);
void pages_free(void *va, unsigned order);
/* General small objects and arrays: whole pages underneath above 2 KiB. Zeroed. Never on the exit
 * path. kfree(NULL) is allowed. */
void *kzalloc(size_t bytes);
void kfree(void *p);

/* Free frames in the heap, total frames managed (dom0's own, assigned at boot, are counted). */
uint64_t heap_free_pages(void);
uint64_t heap_total_pages(void);
void heap_count_assigned(uint64_t frames); /* boot: frames that domain_pages_assign brought in */

/* Allocate 1 << order scrubbed frames for d, each with refs = 1 (the allocation reference), on
 * d->page_list and counted in d->tot_pages, or NULL (out of memory, or over d->max_pages, or d is
 * dying). Takes d->page_lock and the heap lock. `limit` is an mfn bound, 0 for none. */
struct page_info *domain_page_alloc(struct domain *d, unsigned order, mfn_t limit);
/* The same whatever d->max_pages says: memory that the tools give d to boot with, and its balloon
 * gives back. */
struct page_info *domain_page_alloc_beyond(struct domain *d, unsigned order, mfn_t limit);
/* Make the hypervisor's page pg (from heap_alloc order 0) shareable with d (PG_XENHEAP): it can be
 * put in d's p2m, is not in tot_pages, and is freed by its last reference. refs becomes 1. */
void page_share_with_domain(struct page_info *pg, struct domain *d);
/* Boot, dom0: make a frame that never was in the heap d's own, as domain_page_alloc would. */
void domain_page_assign(struct domain *d, struct page_info *pg);
/* The same for count frames from pg on, under one taking of the lock. */
void domain_pages_assign(struct domain *d, struct page_info *pg, uint64_t count);
/* Death of d: give up the allocation reference of every page it has; pages that others still map
 * stay d's until they let go. -ERESTART when preempted (call again), then 0. No page lock held. */
int domain_pages_release(struct domain *d);

struct domain *page_owner(const struct page_info *pg);
/* Take a reference if pg is owned by d (or by anyone when d is NULL) and has one already. */
bool page_get(struct page_info *pg, const struct domain *d);
void page_put(struct page_info *pg);
/* Give up the owner's allocation reference (once; false when already given up). */
bool page_put_alloc_ref(struct page_info *pg);
