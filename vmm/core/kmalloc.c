/* kmalloc.c: small objects cut from pages by size class; whole frames for bigger ones.
 *
 * All bookkeeping is in the page's struct page_info, whose fields a hypervisor page does not use:
 * `pad` says what the page is, `spare` counts, `list` links pages of a class with room. Objects
 * are therefore aligned to their size class, and large ones to a page.
 */
#include "core/mm.h"
#include "core/print.h"
#include "core/spinlock.h"
#include "core/string.h"

#define MIN_SHIFT  5  /* 32 bytes */
#define MAX_SHIFT  11 /* 2 KiB */
#define NR_CLASSES (MAX_SHIFT - MIN_SHIFT + 1)
#define NO_OBJECT  0xffffu

/* page_info.pad: 1 + class for a slab page, KM_LARGE for the first frame of a large object, whose
 * `spare` is the number of frames. A slab page's `spare` is used << 16 | offset of first free. */
#define KM_LARGE   0xffffu

#define FREE_MAGIC 0x6b667265650a51abULL

struct free_object {
    uint64_t next;  /* offset in the page, or NO_OBJECT */
    uint64_t magic; /* FREE_MAGIC: looks free, worth checking on kfree */
};

static struct {
    spinlock_t lock;
    struct list partial; /* pages with at least one free object */
    unsigned empty;      /* of them, pages with none in use: one is kept */
} classes[NR_CLASSES];

static struct free_object *object_at(const struct page_info *pg, unsigned offset)
{
    return (struct free_object *)((char *)page_to_virt(pg) + offset);
}

static void slab_set(struct page_info *pg, unsigned used, unsigned first)
{
    pg->spare = used << 16 | first;
}

static unsigned slab_used(const struct page_info *pg)
{
    return pg->spare >> 16;
}

static unsigned slab_first(const struct page_info *pg)
{
    return pg->spare & 0xffff;
}

/* A fresh page becomes a slab of class c, all objects free. */
static void slab_init(struct page_info *pg, unsigned c)
{
    unsigned size = 1u << (c + MIN_SHIFT);

    for (unsigned off = 0; off < PAGE_SIZE; off += size) {
        object_at(pg, off)->next = off + size < PAGE_SIZE ? off + size : NO_OBJECT;
        object_at(pg, off)->magic = FREE_MAGIC;
    }
    pg->pad = (uint16_t)(1 + c);
    slab_set(pg, 0, 0);
}

static void *small_alloc(unsigned c)
{
    struct page_info *pg, *fresh = NULL;
    struct free_object *o;

    spin_lock(&classes[c].lock);
    if (!classes[c].partial.next)
        list_init(&classes[c].partial);
    if (list_empty(&classes[c].partial)) {
        spin_unlock(&classes[c].lock);
        fresh = heap_alloc(0);
        if (!fresh)
            return NULL;
        slab_init(fresh, c);
        spin_lock(&classes[c].lock);
        list_add(&classes[c].partial, &fresh->list);
        classes[c].empty++;
    }
    pg = list_first(&classes[c].partial, struct page_info, list);
    o = object_at(pg, slab_first(pg));
    if (slab_used(pg) == 0)
        classes[c].empty--;
    slab_set(pg, slab_used(pg) + 1, (unsigned)o->next);
    if (slab_first(pg) == NO_OBJECT)
        list_del(&pg->list);
    spin_unlock(&classes[c].lock);
    memset(o, 0, 1u << (c + MIN_SHIFT));
    return o;
}

static void check_not_free(const struct page_info *pg, unsigned offset)
{
    for (unsigned off = slab_first(pg); off != NO_OBJECT; off = (unsigned)object_at(pg, off)->next)
        ASSERT(off != offset); /* freed twice */
}

static void small_free(struct page_info *pg, unsigned c, unsigned offset)
{
    struct free_object *o = object_at(pg, offset);
    bool give_back = false;

    ASSERT(c < NR_CLASSES && !(offset & ((1u << (c + MIN_SHIFT)) - 1)));
    spin_lock(&classes[c].lock);
    if (o->magic == FREE_MAGIC)
        check_not_free(pg, offset);
    ASSERT(slab_used(pg));
    if (slab_first(pg) == NO_OBJECT)
        list_add(&classes[c].partial, &pg->list);
    o->next = slab_first(pg);
    o->magic = FREE_MAGIC;
    slab_set(pg, slab_used(pg) - 1, offset);
    if (slab_used(pg) == 0) {
        give_back = classes[c].empty > 0;
        if (give_back)
            list_del(&pg->list);
        else
            classes[c].empty++;
    }
    spin_unlock(&classes[c].lock);
    if (give_back) {
        pg->pad = 0;
        pg->spare = 0;
        heap_free(pg, 0);
    }
}

/* Free frames [from, to) of a block that is aligned to at least its size, in the largest pieces. */
static void free_frames(struct page_info *block, uint64_t from, uint64_t to)
{
    while (from < to) {
        unsigned order = from ? (unsigned)__builtin_ctzll(from) : 63;

        while (order > ORDER_1G || 1ULL << order > to - from)
            order--;
        heap_free(block + from, order);
        from += 1ULL << order;
    }
}

static void *large_alloc(size_t bytes)
{
    uint64_t frames = PFN_UP(bytes);
    unsigned order = frames > 1 ? 64 - (unsigned)__builtin_clzll(frames - 1) : 0;
    struct page_info *pg = heap_alloc(order);

    if (!pg)
        return NULL;
    free_frames(pg, frames, 1ULL << order); /* the tail that rounding up would waste */
    pg->pad = KM_LARGE;
    pg->spare = (uint32_t)frames;
    return page_to_virt(pg);
}

void *kzalloc(size_t bytes)
{
    if (bytes > PAGE_SIZE << ORDER_1G)
        return NULL;
    if (bytes > 1u << MAX_SHIFT)
        return large_alloc(bytes);
    for (unsigned c = 0;; c++)
        if (bytes <= 1u << (c + MIN_SHIFT))
            return small_alloc(c);
}

void kfree(void *p)
{
    struct page_info *pg;
    unsigned offset = (uint64_t)p & (PAGE_SIZE - 1);

    if (!p)
        return;
    ASSERT(mfn_valid(virt_to_mfn(p)));
    pg = mfn_to_page(virt_to_mfn(p));
    ASSERT(pg->pad && !(pg->flags & PG_INHEAP)); /* not from kzalloc, or freed twice */
    if (pg->pad == KM_LARGE) {
        uint64_t frames = pg->spare;

        ASSERT(!offset);
        pg->pad = 0;
        pg->spare = 0;
        free_frames(pg, 0, frames);
        return;
    }
    small_free(pg, pg->pad - 1u, offset);
}
