/* sources: vmm/domain/memory.c vmm/domain/memory_map.c vmm/domain/resource.c */
/* test_memory_op.c: memory_op in both widths against a p2m and frames made of arrays. After every
 * call, good or failed, the frames' references must be those that the maps and owners explain.
 */
#include "test_domctl_guest.h"

#include "domain/compat.h"
#include "platform/platform.h"

#define NR_FRAMES 4096
#define NR_GFNS   8192

static struct page_info frames[NR_FRAMES];
struct page_info *frame_table = frames;
mfn_t max_mfn = NR_FRAMES;
unsigned p2m_gpa_bits = 12 + 13; /* NR_GFNS */
char *host_test_ram;

static struct entry {
    mfn_t mfn;
    enum p2m_type t;
} maps[NR_TEST_DOMAINS][NR_GFNS];
static unsigned fail_set_after, fail_alloc_after; /* how many succeed still; ~0: all */
static unsigned fail_set_at;                      /* only this one from now fails */
static uint64_t used_frames;

/* Device models told that a domain's map changed. */
static unsigned invalidated[ARRAY_SIZE(domains)];
void ioreq_invalidate(struct domain *d)
{
    invalidated[d - domains]++;
}

/* ---- frames
 * ----------------------------------------------------------------------------------------- */
struct domain *page_owner(const struct page_info *pg)
{
    return pg->owner ? &domains[pg->owner - 1] : NULL;
}
bool page_get(struct page_info *pg, const struct domain *d)
{
    if (!pg->refs || (d && page_owner(pg) != d))
        return false;
    pg->refs++;
    return true;
}
void page_put(struct page_info *pg)
{
    assert_true(pg->refs > 0);
    if (--pg->refs)
        return;
    assert_false(pg->flags & PG_ALLOCATED);
    if (!(pg->flags & PG_XENHEAP))
        page_owner(pg)->tot_pages--;
    pg->owner = 0;
    pg->flags = 0;
    used_frames--;
}
bool page_put_alloc_ref(struct page_info *pg)
{
    assert_non_null(page_owner(pg));
    if (!(pg->flags & PG_ALLOCATED))
        return false;
    pg->flags &= (uint8_t)~PG_ALLOCATED;
    page_put(pg);
    return true;
}
static struct page_info *take(struct domain *d, mfn_t first, unsigned order, uint8_t flags)
{
    for (mfn_t m = first; m < first + (1ULL << order); m++) {
        frames[m].refs = 1;
        frames[m].owner = d->id + 1u;
        frames[m].flags = flags;
        used_frames++;
        if (!(flags & PG_XENHEAP))
            d->tot_pages++;
    }
    return &frames[first];
}
struct page_info *domain_page_alloc_beyond(struct domain *d, unsigned order, mfn_t limit)
{
    uint64_t n = 1ULL << order;

    if (!fail_alloc_after || d->dying)
        return NULL;
    fail_alloc_after -= fail_alloc_after != ~0u;
    for (mfn_t m = 1024; m + n <= (limit ? MIN(limit, NR_FRAMES) : NR_FRAMES); m += n) {
        mfn_t k = m;
        while (k < m + n && !frames[k].refs)
            k++;
        if (k == m + n)
            return take(d, m, order, PG_ALLOCATED);
    }
    return NULL;
}
struct page_info *domain_page_alloc(struct domain *d, unsigned order, mfn_t limit)
{
    return d->tot_pages + (1ULL << order) > d->max_pages
               ? NULL
               : domain_page_alloc_beyond(d, order, limit);
}
uint64_t heap_free_pages(void)
{
    return NR_FRAMES - used_frames;
}
void *kzalloc(size_t n)
{
    return calloc(1, n);
}
void kfree(void *p)
{
    free(p);
}

/* ---- p2m
 * --------------------------------------------------------------------------------------------- */
static bool foreign(enum p2m_type t)
{
    return t == P2M_FOREIGN_RW || t == P2M_FOREIGN_RO;
}
int p2m_set(struct domain *d, gfn_t gfn, mfn_t mfn, unsigned order, enum p2m_type t)
{
    if (!fail_set_after || (fail_set_at && !--fail_set_at))
        return -ENOMEM;
    fail_set_after -= fail_set_after != ~0u;
    assert_true(gfn + (1ULL << order) <= NR_GFNS);
    assert_false(gfn & ((1ULL << order) - 1));
    for (uint64_t i = 0; i < 1ULL << order; i++) {
        struct entry old = maps[d->id][gfn + i];
        maps[d->id][gfn + i] = (struct entry){t == P2M_HOLE ? INVALID_MFN : mfn + i, t};
        if (foreign(old.t))
            page_put(&frames[old.mfn]);
    }
    return 0;
}
int p2m_set_range(struct domain *d, gfn_t gfn, mfn_t mfn, uint64_t count, enum p2m_type t)
{
    for (uint64_t i = 0; i < count; i++) {
        int rc = p2m_set(d, gfn + i, t == P2M_HOLE ? INVALID_MFN : mfn + i, 0, t);
        if (rc)
            return rc;
    }
    return 0;
}
/* An aligned run of 512 like entries is a large one. */
mfn_t p2m_get(struct domain *d, gfn_t gfn, enum p2m_type *t, unsigned *order)
{
    struct entry *e = maps[d->id], *first = &e[gfn & ~511ULL];
    bool large = true;

    assert_true(gfn < NR_GFNS);
    for (unsigned i = 0; i < 512; i++)
        large &= first[i].t == first->t && !foreign(first->t) &&
                 (first->t == P2M_HOLE || first[i].mfn == first->mfn + i);
    if (t)
        *t = e[gfn].t;
    if (order)
        *order = large ? ORDER_2M : ORDER_4K;
    return e[gfn].t == P2M_HOLE ? INVALID_MFN : e[gfn].mfn;
}
struct page_info *p2m_get_page(struct domain *d, gfn_t gfn, bool write, enum p2m_type *t)
{
    struct entry e;

    assert_true(gfn < NR_GFNS);
    e = maps[d->id][gfn];
    *t = e.t;
    if (!p2m_is_mapped(e.t) || (write && !p2m_is_writable(e.t)))
        return NULL;
    return page_get(&frames[e.mfn], foreign(e.t) ? NULL : d) ? &frames[e.mfn] : NULL;
}
uint64_t p2m_max_gfn(const struct domain *d)
{
    (void)d;
    return 77;
}

/* ---- what the resources are
 * ----------------------------------------------------------------------------- */
#define SHARED_INFO_MFN 100
#define GRANT_MFN       200
#define IOREQ_MFN       300

int grant_table_frame(struct domain *d, unsigned idx, bool status, mfn_t *mfn)
{
    if (idx >= 4 || status)
        return -EINVAL;
    *mfn = GRANT_MFN + d->id * 4u + idx;
    return 0;
}
int ioreq_server_frame(struct domain *d, unsigned server, unsigned idx, mfn_t *mfn)
{
    if (server != 7 || idx > 1)
        return -ENOENT;
    *mfn = IOREQ_MFN + d->id * 2u + idx;
    return 0;
}
int dom0_memory_map(struct e820entry *out, unsigned max)
{
    assert_true(max >= 2);
    out[0] = (struct e820entry){0, 0xa0000, 1};
    out[1] = (struct e820entry){0x100000, 0x1000000, 1};
    return 2;
}
int machine_memory_map(struct e820entry *out, unsigned max)
{
    (void)max;
    out[0] = (struct e820entry){0, 0xffff, 2};
    return 1;
}

/* ---- fixture
 * ------------------------------------------------------------------------------------------ */
static int reset(void **state)
{
    (void)state;
    arena_reset();
    domains_reset();
    memset(frames, 0, sizeof(frames));
    memset(maps, 0, sizeof(maps));
    fail_set_after = fail_alloc_after = ~0u;
    used_frames = 0;
    for (unsigned i = 0; i < NR_TEST_DOMAINS; i++) {
        domains[i].max_grant_frames = 4;
        domains[i].shared_info_page = take(&domains[i], SHARED_INFO_MFN + i, 0, PG_XENHEAP);
        take(&domains[i], GRANT_MFN + i * 4, 2, PG_XENHEAP);
        take(&domains[i], IOREQ_MFN + i * 2, 1, PG_XENHEAP);
    }
    for (mfn_t m = 512; m < 640; m++) { /* dom0's RAM, at its own addresses */
        take(&domains[0], m, 0, PG_ALLOCATED);
        maps[0][m] = (struct entry){m, P2M_RAM};
    }
    return 0;
}

/* Each frame's references are: its allocation or its owner's structure, and its foreign mappings;
 * frames that are someone's are in one place of his map at most; what is mapped as RAM is owned. */
static int audit(void **state)
{
    static unsigned expect[NR_FRAMES];
    unsigned seen;

    (void)state;
    check_domain_refs();
    memset(expect, 0, sizeof(expect));
    for (unsigned m = 0; m < NR_FRAMES; m++)
        expect[m] = !!(frames[m].flags & (PG_ALLOCATED | PG_XENHEAP));
    for (unsigned d = 0; d < NR_TEST_DOMAINS; d++)
        for (unsigned g = 0; g < NR_GFNS; g++) {
            struct entry e = maps[d][g];
            if (foreign(e.t))
                expect[e.mfn]++;
            else if (e.t != P2M_HOLE && e.t != P2M_MMIO_DIRECT && e.t != P2M_GRANT_RW)
                assert_ptr_equal(page_owner(&frames[e.mfn]), &domains[d]);
        }
    for (unsigned m = 0; m < NR_FRAMES; m++)
        assert_int_equal(frames[m].refs, expect[m]);
    for (unsigned d = 0; d < NR_TEST_DOMAINS; d++) {
        static uint8_t where[NR_FRAMES];
        memset(where, 0, sizeof(where));
        for (unsigned g = 0; g < NR_GFNS; g++) {
            struct entry e = maps[d][g];
            if (e.t == P2M_RAM && frames[e.mfn].flags & PG_ALLOCATED)
                assert_int_equal(where[e.mfn]++, 0);
        }
    }
    seen = 0;
    for (unsigned m = 0; m < NR_FRAMES; m++)
        seen += frames[m].refs != 0;
    assert_int_equal(seen, used_frames);
    return 0;
}

static void *words(struct vcpu *v, const uint64_t *w, unsigned n)
{
    uint32_t narrow[512];

    if (!v->compat)
        return guest_alloc(w, n * 8);
    for (unsigned i = 0; i < n; i++)
        narrow[i] = (uint32_t)w[i];
    return guest_alloc(narrow, n * 4);
}

static long reserve_raw(struct vcpu *v, uint64_t op, uint64_t extents, uint64_t n, unsigned order,
                        unsigned flags, domid_t domid)
{
    if (v->compat) {
        struct compat_memory_reservation c = {
            (uint32_t)extents, (uint32_t)n, order, flags, domid, 0};
        return call(do_memory_op, v, op, (uint64_t)guest_alloc(&c, sizeof(c)));
    }
    struct xen_memory_reservation r = {
        .nr_extents = n, .extent_order = order, .mem_flags = flags, .domid = domid};
    r.extent_start.p = (void *)extents;
    return call(do_memory_op, v, op, (uint64_t)guest_alloc(&r, sizeof(r)));
}

static long reserve(struct vcpu *v, uint64_t op, const uint64_t *gfns, unsigned n, unsigned order,
                    domid_t domid)
{
    return reserve_raw(v, op, (uint64_t)words(v, gfns, n), n, order, 0, domid);
}

/* ---- reservations
 * ---------------------------------------------------------------------------------------- */
static void populate_width(bool compat)
{
    static const uint64_t gfns[] = {5, 6, 4095, 8191};
    struct vcpu *v = &vcpus[1];
    uint64_t before = used_frames;

    v->compat = compat;
    assert_int_equal(reserve(v, XENMEM_populate_physmap, gfns, 4, 0, DOMID_SELF), 4);
    assert_int_equal(domains[1].tot_pages, 4);
    assert_int_equal(used_frames, before + 4);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(maps[1][gfns[i]].t, P2M_RAM);
    /* Again at the same place: the old frames are given up. */
    assert_int_equal(reserve(v, XENMEM_populate_physmap, gfns, 4, 0, 1), 4);
    assert_int_equal(used_frames, before + 4);
    unsigned told = invalidated[v->domain - domains];
    assert_int_equal(reserve(v, XENMEM_decrease_reservation, gfns, 4, 0, 1), 4);
    assert_int_equal(invalidated[v->domain - domains], told + 1);
    assert_int_equal(used_frames, before);
    assert_int_equal(domains[1].tot_pages, 0);
}
static void populate_wide(void **state)
{
    (void)state;
    populate_width(false);
}
static void populate_compat(void **state)
{
    (void)state;
    populate_width(true);
}

static void populate_large(void **state)
{
    static const uint64_t gfns[] = {512, 1024, 1025};
    uint64_t before = used_frames, small = 700;

    (void)state;
    /* The third is not aligned. */
    assert_int_equal(reserve(&vcpus[0], XENMEM_populate_physmap, gfns, 3, ORDER_2M, 1), 2);
    assert_int_equal(domains[1].tot_pages, 1024);
    /* A hole in the middle of a large entry, then all of it anew and away. */
    assert_int_equal(reserve(&vcpus[1], XENMEM_decrease_reservation, &small, 1, 0, 1), 1);
    assert_int_equal(domains[1].tot_pages, 1023);
    assert_int_equal(reserve(&vcpus[0], XENMEM_populate_physmap, gfns, 1, ORDER_2M, 1), 1);
    assert_int_equal(domains[1].tot_pages, 1024);
    assert_int_equal(reserve(&vcpus[0], XENMEM_decrease_reservation, gfns, 2, ORDER_2M, 1), 2);
    assert_int_equal(used_frames, before);
    /* An order between the entries' sizes, and those that nobody may ask for. */
    assert_int_equal(reserve(&vcpus[0], XENMEM_populate_physmap, gfns, 1, 4, 1), 1);
    assert_int_equal(domains[1].tot_pages, 16);
    assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, gfns, 1, 10, 1), 0);
    assert_int_equal(reserve(&vcpus[0], XENMEM_populate_physmap, gfns, 1, 19, 1), 0);
    assert_int_equal(reserve(&vcpus[0], XENMEM_populate_physmap, gfns, 1, 99, 1), 0);
    assert_int_equal(reserve(&vcpus[0], XENMEM_decrease_reservation, gfns, 1, 64, 1), 0);
    assert_int_equal(domains[1].tot_pages, 16);
}

static void populate_failures(void **state)
{
    static const uint64_t gfns[] = {1, 2, 3, 4}, outside[] = {1, NR_GFNS, 2}, huge[] = {~0ULL};
    uint64_t before = used_frames, large = 512;

    (void)state;
    fail_alloc_after = 2;
    assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, gfns, 4, 0, 1), 2);
    fail_alloc_after = ~0u;
    assert_int_equal(used_frames, before + 2);
    fail_set_after = 2; /* gives up gfn 1, fails to map the new one */
    assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, gfns + 2, 2, 0, 1), 2);
    fail_set_after = 0;
    assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, &large, 1, ORDER_2M, 1), 0);
    fail_set_after = 5; /* a range of small entries, cut short */
    assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, &large, 1, 4, 1), 0);
    fail_set_after = ~0u;
    for (gfn_t g = 512; g < 528; g++)
        maps[1][g].t = P2M_HOLE; /* where unmapping could not be done either */
    assert_int_equal(used_frames, before + 4);
    assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, outside, 3, 0, 1), 1);
    assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, huge, 1, 0, 1), 0);
    assert_int_equal(domains[1].tot_pages, 4);
    domains[1].max_pages = 5;
    assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, (uint64_t[]){10, 11, 12}, 3, 0, 1),
                     1);
    domains[1].dying = DOMAIN_DYING;
    assert_int_equal(reserve(&vcpus[0], XENMEM_populate_physmap, (uint64_t[]){20}, 1, 0, 1), 0);
}

static void hostile_arguments(void **state)
{
    static const uint64_t gfns[] = {1, 2};
    uint64_t before = used_frames;

    (void)state;
    for (int compat = 0; compat < 2; compat++) {
        vcpus[1].compat = compat;
        assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, gfns, 2, 0, 2), -EPERM);
        assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, gfns, 2, 0, 0), -EPERM);
        assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, gfns, 2, 0, 99), -ESRCH);
        assert_int_equal(reserve_raw(&vcpus[1], XENMEM_populate_physmap, BAD_POINTER, 2, 0, 0, 1),
                         0);
        assert_int_equal(call(do_memory_op, &vcpus[1], XENMEM_populate_physmap, BAD_POINTER), 0);
        /* A continuation point of the guest's own making. */
        assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap | 3 << 6, gfns, 2, 0, 1), 3);
        assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap | 2 << 6, gfns, 2, 0, 1), 2);
        assert_int_equal(
            reserve_raw(&vcpus[1], XENMEM_populate_physmap, (uint64_t)arena, 2, 0, 12, 1), 0);
        assert_int_equal(reserve_raw(&vcpus[1], XENMEM_populate_physmap, (uint64_t)arena, 2, 0,
                                     XENMEMF_populate_on_demand, 1),
                         0);
        for (unsigned op = 0; op < 64; op++)
            call(do_memory_op, &vcpus[1], op, BAD_POINTER);
        assert_int_equal(call(do_memory_op, &vcpus[1], 63, BAD_POINTER), -ENOSYS);
        assert_int_equal(call(do_memory_op, &vcpus[1], XENMEM_exchange, BAD_POINTER), -EOPNOTSUPP);
    }
    vcpus[1].compat = false;
    assert_int_equal(
        reserve_raw(&vcpus[1], XENMEM_populate_physmap, (uint64_t)arena, ~0ULL, 0, 0, 1), 0);
    assert_int_equal(used_frames, before);
    domains[1].target = 2; /* a device model's domain may */
    assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, gfns, 2, 0, 2), 2);
    assert_int_equal(domains[2].tot_pages, 2);
    /* On demand: there at once, and not held back by the limit; for those who build domains only.
     */
    domains[2].max_pages = 2;
    domains[0].privileged = true;
    static const uint64_t more[2] = {20, 21};
    assert_int_equal(reserve(&vcpus[0], XENMEM_populate_physmap, more, 2, 0, 2), 0);
    assert_int_equal(reserve_raw(&vcpus[0], XENMEM_populate_physmap,
                                 (uint64_t)words(&vcpus[0], more, 2), 2, 0,
                                 XENMEMF_populate_on_demand, 2),
                     2);
    assert_int_equal(domains[2].tot_pages, 4);
}

static void preempted(void **state)
{
    uint64_t gfns[400];

    (void)state;
    for (unsigned i = 0; i < 400; i++)
        gfns[i] = i * 3;
    for (int compat = 0; compat < 2; compat++) {
        vcpus[1].compat = compat;
        preempt_every = 7;
        continuations = 0;
        assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, gfns, 400, 0, 1), 400);
        assert_true(continuations > 40);
        assert_int_equal(domains[1].tot_pages, 400);
        preempt_every = 1; /* always: each call still does something */
        assert_int_equal(reserve(&vcpus[1], XENMEM_decrease_reservation, gfns, 400, 0, 1), 400);
        assert_int_equal(domains[1].tot_pages, 0);
    }
}

static void decrease_refuses(void **state)
{
    uint64_t g = 9, ram = 10;

    (void)state;
    assert_int_equal(reserve(&vcpus[1], XENMEM_decrease_reservation, &g, 1, 0, 1), 0);
    take(&domains[2], 2000, 0, PG_ALLOCATED);
    frames[2000].refs++;
    maps[1][9] = (struct entry){2000, P2M_FOREIGN_RW};
    assert_int_equal(reserve(&vcpus[1], XENMEM_decrease_reservation, &g, 1, 0, 1), 0);
    assert_int_equal(maps[1][9].t, P2M_FOREIGN_RW);
    maps[1][11] = (struct entry){2000, P2M_GRANT_RW};
    g = 11;
    assert_int_equal(reserve(&vcpus[1], XENMEM_decrease_reservation, &g, 1, 0, 1), 0);
    assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, &g, 1, 0, 1), 0);
    assert_int_equal(maps[1][11].t, P2M_GRANT_RW);
    /* A frame that another domain maps stays until that goes. */
    assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, &ram, 1, 0, 1), 1);
    mfn_t m = maps[1][10].mfn;
    assert_true(page_get(&frames[m], NULL));
    maps[0][700] = (struct entry){m, P2M_FOREIGN_RW};
    assert_int_equal(reserve(&vcpus[1], XENMEM_decrease_reservation, &ram, 1, 0, 1), 1);
    assert_int_equal(frames[m].refs, 1);
    assert_ptr_equal(page_owner(&frames[m]), &domains[1]);
}

static void dom0_balloons(void **state)
{
    static const uint64_t gfns[] = {600, 601}, other[] = {700};

    (void)state;
    assert_int_equal(reserve(&vcpus[0], XENMEM_decrease_reservation, gfns, 2, 0, DOMID_SELF), 2);
    assert_int_equal(maps[0][600].t, P2M_HOLE);
    assert_int_equal(domains[0].tot_pages, 128);
    assert_int_equal(reserve(&vcpus[0], XENMEM_populate_physmap, gfns, 2, 0, DOMID_SELF), 2);
    assert_int_equal(maps[0][600].mfn, 600);
    assert_int_equal(maps[0][601].mfn, 601);
    /* Not at a place where it has no frame. */
    assert_int_equal(reserve(&vcpus[0], XENMEM_populate_physmap, other, 1, 0, DOMID_SELF), 0);
}

/* ---- physmap
 * ------------------------------------------------------------------------------------------- */
static long add(struct vcpu *v, domid_t domid, unsigned space, uint64_t idx, uint64_t gpfn,
                unsigned n)
{
    if (v->compat) {
        struct compat_add_to_physmap c = {domid, (uint16_t)n, space, (uint32_t)idx, (uint32_t)gpfn};
        return call(do_memory_op, v, XENMEM_add_to_physmap, (uint64_t)guest_alloc(&c, sizeof(c)));
    }
    struct xen_add_to_physmap a = {
        .domid = domid, .size = (uint16_t)n, .space = space, .idx = idx, .gpfn = gpfn};
    return call(do_memory_op, v, XENMEM_add_to_physmap, (uint64_t)guest_alloc(&a, sizeof(a)));
}

static void own_frames(void **state)
{
    uint64_t g = 30;

    (void)state;
    for (int compat = 0; compat < 2; compat++) {
        struct vcpu *v = &vcpus[1];
        uint64_t before = used_frames;
        v->compat = compat;
        assert_int_equal(reserve(v, XENMEM_populate_physmap, &g, 1, 0, 1), 1);
        assert_int_equal(add(v, DOMID_SELF, XENMAPSPACE_shared_info, 0, g, 0), 0);
        assert_int_equal(maps[1][g].mfn, SHARED_INFO_MFN + 1);
        assert_int_equal(used_frames, before); /* the RAM there was given up */
        assert_int_equal(add(v, DOMID_SELF, XENMAPSPACE_grant_table, 2, g + 1, 0), 0);
        assert_int_equal(maps[1][g + 1].mfn, GRANT_MFN + 4 + 2);
        /* Taking them out leaves the frames alone. */
        assert_int_equal(reserve(v, XENMEM_decrease_reservation, &g, 1, 0, 1), 1);
        assert_int_equal(used_frames, before);
        assert_int_equal(add(v, DOMID_SELF, XENMAPSPACE_shared_info, 1, g, 0), -EINVAL);
        assert_int_equal(add(v, DOMID_SELF, XENMAPSPACE_grant_table, 4, g, 0), -EINVAL);
        assert_int_equal(
            add(v, DOMID_SELF, XENMAPSPACE_grant_table, XENMAPIDX_grant_table_status, g, 0),
            -EINVAL);
        assert_int_equal(add(v, DOMID_SELF, XENMAPSPACE_shared_info, 0, NR_GFNS, 0), -EINVAL);
        assert_int_equal(add(v, DOMID_SELF, XENMAPSPACE_dev_mmio, 0, g, 0), -EINVAL);
        assert_int_equal(add(v, DOMID_SELF, XENMAPSPACE_gmfn_foreign, 0, g, 0), -ENOSYS);
        assert_int_equal(add(v, 0, XENMAPSPACE_shared_info, 0, g, 0), -EPERM);
        fail_set_after = 0;
        assert_int_equal(add(v, DOMID_SELF, XENMAPSPACE_shared_info, 0, g, 0), -ENOMEM);
        fail_set_after = ~0u;
    }
}

static void moves(void **state)
{
    static const uint64_t gfns[] = {40, 41, 42, 43, 50};

    (void)state;
    assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, gfns, 5, 0, 1), 5);
    mfn_t m = maps[1][40].mfn;
    assert_int_equal(add(&vcpus[1], 1, XENMAPSPACE_gmfn, 40, 60, 0), 0);
    assert_int_equal(maps[1][60].mfn, m);
    assert_int_equal(maps[1][40].t, P2M_HOLE);
    assert_int_equal(add(&vcpus[1], 1, XENMAPSPACE_gmfn, 60, 60, 0), 0);
    assert_int_equal(add(&vcpus[1], 1, XENMAPSPACE_gmfn, 60, 50, 0), 0); /* over RAM */
    assert_int_equal(domains[1].tot_pages, 4);
    assert_int_equal(add(&vcpus[1], 1, XENMAPSPACE_gmfn, 60, 61, 0), -EINVAL);
    assert_int_equal(add(&vcpus[1], 1, XENMAPSPACE_gmfn, ~0ULL, 61, 0), -EINVAL);
    assert_int_equal(add(&vcpus[0], 0, XENMAPSPACE_gmfn, 600, 601, 0), -EOPNOTSUPP);
    for (int compat = 0; compat < 2; compat++) {
        vcpus[1].compat = compat;
        preempt_every = 1;
        assert_int_equal(
            add(&vcpus[1], 1, XENMAPSPACE_gmfn_range, compat ? 141 : 41, compat ? 41 : 141, 3), 0);
        assert_int_equal(maps[1][compat ? 43 : 143].t, P2M_RAM);
        assert_int_equal(maps[1][compat ? 143 : 43].t, P2M_HOLE);
    }
    assert_true(continuations >= 4);
    vcpus[1].compat = false;
    fail_set_at = 2; /* the second step fails: the first is undone */
    assert_int_equal(add(&vcpus[1], 1, XENMAPSPACE_gmfn, 41, 300, 0), -ENOMEM);
    assert_int_equal(maps[1][41].t, P2M_RAM);
    assert_int_equal(maps[1][300].t, P2M_HOLE);
}

static long batch(struct vcpu *v, domid_t domid, unsigned space, domid_t from, const uint64_t *idx,
                  const uint64_t *gfn, unsigned n, int **errs)
{
    int minus[64];

    memset(minus, 0x5a, sizeof(minus));
    *errs = guest_alloc(minus, sizeof(minus));
    if (v->compat) {
        struct compat_add_to_physmap_batch c = {
            domid,
            (uint16_t)space,
            (uint16_t)n,
            from,
            (uint32_t)(uint64_t)words(v, idx, n),
            (uint32_t)(uint64_t)words(v, gfn, n),
            (uint32_t)(uint64_t)*errs,
        };
        return call(do_memory_op, v, XENMEM_add_to_physmap_batch,
                    (uint64_t)guest_alloc(&c, sizeof(c)));
    }
    struct xen_add_to_physmap_batch b = {
        .domid = domid, .space = (uint16_t)space, .size = (uint16_t)n};
    b.u.foreign_domid = from;
    b.idxs.p = words(v, idx, n);
    b.gpfns.p = words(v, gfn, n);
    b.errs.p = *errs;
    return call(do_memory_op, v, XENMEM_add_to_physmap_batch, (uint64_t)guest_alloc(&b, sizeof(b)));
}

static void foreign_mappings(void **state)
{
    static const uint64_t ram[] = {10, 11, 12}, idx[] = {10, 99, 11, 12, 10};
    static const uint64_t gfn[] = {2000, 2001, 2002, NR_GFNS, 2003};
    int *errs;

    (void)state;
    assert_int_equal(reserve(&vcpus[2], XENMEM_populate_physmap, ram, 3, 0, 2), 3);
    maps[2][11].t = P2M_RAM_RO;
    for (int compat = 0; compat < 2; compat++) {
        vcpus[0].compat = compat;
        preempt_every = 2;
        assert_int_equal(
            batch(&vcpus[0], DOMID_SELF, XENMAPSPACE_gmfn_foreign, 2, idx, gfn, 5, &errs), 0);
        assert_int_equal(errs[0], 0);
        assert_int_equal(errs[1], -EINVAL);
        assert_int_equal(errs[2], 0);
        assert_int_equal(errs[3], -EINVAL);
        assert_int_equal(errs[4], 0);
        assert_int_equal(maps[0][2000].t, P2M_FOREIGN_RW);
        assert_int_equal(maps[0][2002].t, P2M_FOREIGN_RO);
        audit(NULL);
        fail_set_after = 0;
        assert_int_equal(
            batch(&vcpus[0], DOMID_SELF, XENMAPSPACE_gmfn_foreign, 2, idx, gfn, 1, &errs), 0);
        assert_int_equal(errs[0], -ENOMEM);
        fail_set_after = ~0u;
    }
    vcpus[0].compat = false;
    /* The owner gives the frame up: it lives as long as the mapping. */
    mfn_t m = maps[2][10].mfn;
    assert_int_equal(reserve(&vcpus[2], XENMEM_decrease_reservation, ram, 1, 0, 2), 1);
    assert_int_equal(frames[m].refs, 2);
    struct xen_remove_from_physmap r = {.domid = DOMID_SELF, .gpfn = 2000};
    assert_int_equal(call(do_memory_op, &vcpus[0], XENMEM_remove_from_physmap,
                          (uint64_t)guest_alloc(&r, sizeof(r))),
                     0);
    r.gpfn = 2003;
    assert_int_equal(call(do_memory_op, &vcpus[0], XENMEM_remove_from_physmap,
                          (uint64_t)guest_alloc(&r, sizeof(r))),
                     0);
    assert_int_equal(frames[m].refs, 0);
    assert_int_equal(call(do_memory_op, &vcpus[0], XENMEM_remove_from_physmap,
                          (uint64_t)guest_alloc(&r, sizeof(r))),
                     -ENOENT);
}

static void foreign_refusals(void **state)
{
    static const uint64_t ram[] = {10}, at[] = {2000};
    int *errs;

    (void)state;
    assert_int_equal(reserve(&vcpus[2], XENMEM_populate_physmap, ram, 1, 0, 2), 1);
    assert_int_equal(batch(&vcpus[1], 1, XENMAPSPACE_gmfn_foreign, 2, ram, at, 1, &errs), -EPERM);
    assert_int_equal(batch(&vcpus[1], 1, XENMAPSPACE_gmfn_foreign, 0, ram, at, 1, &errs), -EPERM);
    assert_int_equal(batch(&vcpus[1], 1, XENMAPSPACE_gmfn_foreign, 1, ram, at, 1, &errs), -EINVAL);
    assert_int_equal(batch(&vcpus[0], 0, XENMAPSPACE_gmfn_foreign, DOMID_SELF, ram, at, 1, &errs),
                     -EINVAL);
    assert_int_equal(batch(&vcpus[0], 0, XENMAPSPACE_gmfn_foreign, 77, ram, at, 1, &errs), -ESRCH);
    assert_int_equal(batch(&vcpus[0], 0, XENMAPSPACE_gmfn, 2, ram, at, 1, &errs), -EINVAL);
    assert_int_equal(batch(&vcpus[0], 0, XENMAPSPACE_gmfn_range, 0, ram, at, 1, &errs), -EINVAL);
    domains[1].target = 2;
    assert_int_equal(batch(&vcpus[1], 1, XENMAPSPACE_gmfn_foreign, 2, ram, at, 1, &errs), 0);
    assert_int_equal(errs[0], 0);
    for (unsigned ok = 0; ok < 6; ok++) { /* whatever copy fails, nothing leaks (see audit) */
        fail_copies_after = ok;
        batch(&vcpus[0], 0, XENMAPSPACE_gmfn_foreign, 2, ram, at, 1, &errs);
        fail_copies_after = ~0u;
    }
}

/* ---- resources, maps, questions
 * -------------------------------------------------------------------------- */
static long acquire(struct vcpu *v, domid_t domid, unsigned type, unsigned id, uint64_t frame,
                    const uint64_t *gfns, unsigned n, uint32_t *nr_out)
{
    struct xen_mem_acquire_resource r = {
        .domid = domid, .type = (uint16_t)type, .id = id, .nr_frames = n, .frame = frame};
    struct compat_mem_acquire_resource c = {
        .domid = domid, .type = (uint16_t)type, .id = id, .nr_frames = n, .frame = frame};
    void *list = gfns ? words(v, gfns, n ? n : 1) : NULL;
    char *p;

    r.frame_list.p = list;
    c.frame_list = (uint32_t)(uint64_t)list;
    p = v->compat ? guest_alloc(&c, sizeof(c)) : guest_alloc(&r, sizeof(r));
    long rc = call(do_memory_op, v, XENMEM_acquire_resource, (uint64_t)p);
    if (nr_out)
        memcpy(nr_out, p + offsetof(struct xen_mem_acquire_resource, nr_frames), 4);
    return rc;
}

static void resources(void **state)
{
    static const uint64_t gfns[] = {3000, 3001, 3002, 3003, 3004};
    uint32_t nr;

    (void)state;
    for (int compat = 0; compat < 2; compat++) {
        struct vcpu *v = &vcpus[0];
        v->compat = compat;
        assert_int_equal(acquire(v, 2, XENMEM_resource_ioreq_server, 7, 0, gfns, 2, NULL), 0);
        assert_int_equal(maps[0][3001].mfn, IOREQ_MFN + 4 + 1);
        assert_int_equal(maps[0][3001].t, P2M_FOREIGN_RW);
        preempt_every = 1;
        assert_int_equal(acquire(v, 2, XENMEM_resource_grant_table, 0, 0, gfns, 4, NULL), 0);
        assert_int_equal(maps[0][3003].mfn, GRANT_MFN + 8 + 3);
        assert_int_equal(acquire(v, 2, XENMEM_resource_grant_table, 0, 0, NULL, 0, &nr), 0);
        assert_int_equal(nr, 4);
        assert_int_equal(acquire(v, 2, XENMEM_resource_grant_table, 0, 0, NULL, 1, NULL), -EINVAL);
        assert_int_equal(acquire(v, 2, XENMEM_resource_grant_table, 0, 0, gfns, 5, NULL), -EINVAL);
        assert_int_equal(acquire(v, 2, XENMEM_resource_grant_table, 0, ~0ULL, gfns, 1, NULL),
                         -EINVAL);
        assert_int_equal(acquire(v, 2, XENMEM_resource_grant_table, 2, 0, gfns, 1, NULL), -EINVAL);
        assert_int_equal(acquire(v, 2, XENMEM_resource_ioreq_server, 8, 0, gfns, 1, NULL), -ENOENT);
        assert_int_equal(acquire(v, 2, XENMEM_resource_vmtrace_buf, 0, 0, gfns, 1, NULL),
                         -EOPNOTSUPP);
        assert_int_equal(acquire(v, DOMID_SELF, XENMEM_resource_grant_table, 0, 0, gfns, 1, NULL),
                         -EINVAL);
        fail_set_after = 1; /* the first place is taken: only its replacement works */
        assert_true(acquire(v, 2, XENMEM_resource_grant_table, 0, 0, gfns, 2, NULL) < 0);
        fail_set_after = ~0u;
    }
    assert_int_equal(acquire(&vcpus[1], 2, XENMEM_resource_grant_table, 0, 0, gfns, 1, NULL),
                     -EPERM);
    assert_int_equal(acquire(&vcpus[1], 0, XENMEM_resource_grant_table, 0, 0, gfns, 1, NULL),
                     -EPERM);
}

static long set_map(struct vcpu *v, domid_t domid, const struct e820entry *e, unsigned n)
{
    struct xen_foreign_memory_map f = {.domid = domid, .map.nr_entries = n};
    struct compat_foreign_memory_map c = {.domid = domid, .map.nr_entries = n};
    void *p = guest_alloc(e, n * sizeof(*e));

    f.map.buffer.p = p;
    c.map.buffer = (uint32_t)(uint64_t)p;
    return call(do_memory_op, v, XENMEM_set_memory_map,
                (uint64_t)(v->compat ? guest_alloc(&c, sizeof(c)) : guest_alloc(&f, sizeof(f))));
}

static long get_map(struct vcpu *v, unsigned op, struct e820entry *out, unsigned *n)
{
    struct xen_memory_map m = {.nr_entries = *n};
    struct compat_memory_map c = {.nr_entries = *n};
    void *p = guest_alloc(NULL, *n * sizeof(*out)), *at;

    m.buffer.p = p;
    c.buffer = (uint32_t)(uint64_t)p;
    at = v->compat ? guest_alloc(&c, sizeof(c)) : guest_alloc(&m, sizeof(m));
    long rc = call(do_memory_op, v, op, (uint64_t)at);
    memcpy(n, at, 4);
    memcpy(out, p, *n * sizeof(*out));
    return rc;
}

static void memory_maps(void **state)
{
    static const struct e820entry e[] = {{0, 0x9fc00, 1}, {0x100000, 0x1ff00000, 1}};
    struct e820entry got[4], many[129] = {{0}};
    unsigned n = 4;

    (void)state;
    assert_int_equal(get_map(&vcpus[1], XENMEM_memory_map, got, &n), -ENOSYS);
    assert_int_equal(set_map(&vcpus[1], 1, e, 2), -EPERM);
    assert_int_equal(set_map(&vcpus[0], 0, e, 2), -EPERM);
    assert_int_equal(set_map(&vcpus[0], 66, e, 2), -ESRCH);
    assert_int_equal(set_map(&vcpus[0], 1, many, 129), -E2BIG);
    for (int compat = 0; compat < 2; compat++) {
        vcpus[0].compat = vcpus[1].compat = compat;
        assert_int_equal(set_map(&vcpus[0], 1, e, 2), 0);
        n = 4;
        assert_int_equal(get_map(&vcpus[1], XENMEM_memory_map, got, &n), 0);
        assert_int_equal(n, 2);
        assert_memory_equal(got, e, sizeof(e));
        n = 1;
        assert_int_equal(get_map(&vcpus[1], XENMEM_memory_map, got, &n), 0);
        assert_int_equal(n, 1);
    }
    assert_int_equal(get_map(&vcpus[1], XENMEM_machine_memory_map, got, &n), -EPERM);
    vcpus[0].compat = false;
    n = 4;
    assert_int_equal(get_map(&vcpus[0], XENMEM_memory_map, got, &n), 0);
    assert_int_equal(n, 2);
    n = 4;
    assert_int_equal(get_map(&vcpus[0], XENMEM_machine_memory_map, got, &n), 0);
    assert_int_equal(n, 1);
    kfree(domains[1].memory_map_table);
}

static void questions_and_claims(void **state)
{
    domid_t *who = guest_alloc(&(domid_t){1}, sizeof(domid_t));
    static const uint64_t gfns[] = {1, 2};

    (void)state;
    assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, gfns, 2, 0, 1), 2);
    assert_int_equal(call(do_memory_op, &vcpus[0], XENMEM_current_reservation, (uint64_t)who), 2);
    assert_int_equal(call(do_memory_op, &vcpus[0], XENMEM_maximum_reservation, (uint64_t)who),
                     100000);
    assert_int_equal(call(do_memory_op, &vcpus[1], XENMEM_maximum_gpfn, (uint64_t)who), 77);
    assert_int_equal(call(do_memory_op, &vcpus[2], XENMEM_maximum_gpfn, (uint64_t)who), -EPERM);
    assert_int_equal(call(do_memory_op, &vcpus[1], XENMEM_maximum_ram_page, 0), NR_FRAMES);

    uint64_t free = heap_free_pages();
    assert_int_equal(reserve_raw(&vcpus[1], XENMEM_claim_pages, 0, 5, 0, 0, 1), -EPERM);
    assert_int_equal(reserve_raw(&vcpus[0], XENMEM_claim_pages, 0, free + 3, 0, 0, 1), -ENOMEM);
    assert_int_equal(reserve_raw(&vcpus[0], XENMEM_claim_pages, 0, 2, 0, 0, 1), -EINVAL);
    assert_int_equal(reserve_raw(&vcpus[0], XENMEM_claim_pages, 0, 100001, 0, 0, 1), -EINVAL);
    assert_int_equal(reserve_raw(&vcpus[0], XENMEM_claim_pages, 0, free + 2, 0, 0, 1), 0);
    assert_int_equal(reserve_raw(&vcpus[0], XENMEM_claim_pages, 0, 1, 0, 0, 2), -ENOMEM);
    assert_int_equal(reserve(&vcpus[1], XENMEM_populate_physmap, (uint64_t[]){7, 8}, 2, 0, 1), 2);
    assert_int_equal(domains[1].outstanding_pages, free - 2);
    assert_int_equal(reserve_raw(&vcpus[0], XENMEM_claim_pages, 0, 0, 0, 0, 1), 0);
    assert_int_equal(domains[1].outstanding_pages, 0);
    struct xen_pod_target p = {.target_pages = 3, .pod_entries = 9, .domid = 1};
    struct xen_pod_target *at = guest_alloc(&p, sizeof(p));
    assert_int_equal(call(do_memory_op, &vcpus[0], XENMEM_set_pod_target, (uint64_t)at), 0);
    assert_int_equal(at->tot_pages, 4);
    assert_int_equal(at->pod_entries, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, reset, audit)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(populate_wide),     T(populate_compat), T(populate_large),       T(populate_failures),
        T(hostile_arguments), T(preempted),       T(decrease_refuses),     T(dom0_balloons),
        T(own_frames),        T(moves),           T(foreign_mappings),     T(foreign_refusals),
        T(resources),         T(memory_maps),     T(questions_and_claims),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
