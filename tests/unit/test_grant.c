/* sources: vmm/domain/grant.c vmm/domain/grant_map.c vmm/domain/grant_copy.c */
/* test_grant.c: three fake domains grant, map, copy and revoke at random, against a model of who
 * has what mapped. What must hold: a mapping reaches exactly the granted frame with the granted
 * rights; GTF_reading and GTF_writing say how an entry is used; no page is let go while it is
 * mapped; and at the end no pin, reference, handle or allocation is left.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "domain/grant.h"
#include "domain/memory.h"

enum {
    DOMAINS = 3,
    RAM = 16,   /* gfns 0..15 of each domain */
    GFNS = 128, /* in its map; above RAM free for mappings */
    HEAP = 64,
    FRAMES = DOMAINS * RAM + HEAP,
    GFN_ROM = 15,
};

struct cpu host_test_cpu;
struct page_info *frame_table;
mfn_t max_mfn = FRAMES;
char *host_test_ram;
unsigned p2m_gpa_bits = 40;
static long allocations;
static struct domain domains[DOMAINS];
static struct vcpu vcpus[DOMAINS];
static struct {
    mfn_t mfn;
    enum p2m_type type;
} p2m_entries[DOMAINS][GFNS];
static struct domain *owner[FRAMES];
static int preempt_after = -1, fail_alloc_after = -1, fail_write_after = -1;
static uint64_t set_args[6];
static unsigned dirtied[DOMAINS];
static bool logdirty;

/* ---- what the rest of the hypervisor gives ---- */
void panic(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    abort();
}
static bool out_of_memory(void)
{
    return fail_alloc_after >= 0 && fail_alloc_after-- == 0;
}
void *kzalloc(size_t bytes)
{
    if (out_of_memory())
        return NULL;
    allocations++;
    return calloc(1, bytes);
}
void kfree(void *p)
{
    allocations -= p != NULL;
    free(p);
}
void *pages_alloc(unsigned order)
{
    if (out_of_memory())
        return NULL;
    allocations++;
    return memset(aligned_alloc(PAGE_SIZE, PAGE_SIZE << order), 0, PAGE_SIZE << order);
}
void pages_free(void *va, unsigned order)
{
    (void)order;
    allocations--;
    free(va);
}
void *page_alloc(void)
{
    return pages_alloc(0);
}
void page_free(void *va)
{
    pages_free(va, 0);
}
struct page_info *heap_alloc(unsigned order)
{
    assert_int_equal(order, 0);
    for (unsigned i = DOMAINS * RAM; i < FRAMES && !out_of_memory(); i++)
        if (!frame_table[i].refs) {
            frame_table[i].refs = 1;
            memset(mfn_to_virt(i), 0, PAGE_SIZE);
            return &frame_table[i];
        }
    return NULL;
}
void heap_free(struct page_info *pg, unsigned order)
{
    assert_int_equal(order, 0);
    pg->refs = 0;
}
void page_share_with_domain(struct page_info *pg, struct domain *d)
{
    owner[page_to_mfn(pg)] = d;
}
struct domain *page_owner(const struct page_info *pg)
{
    return owner[page_to_mfn(pg)];
}
void page_put(struct page_info *pg)
{
    assert_true(pg->refs > 0);
    if (!--pg->refs) /* no map may still reach it */
        for (unsigned i = 0; i < DOMAINS; i++)
            for (unsigned j = 0; j < GFNS; j++)
                if (p2m_entries[i][j].type != P2M_HOLE)
                    assert_true(p2m_entries[i][j].mfn != page_to_mfn(pg));
}
struct page_info *p2m_get_page(struct domain *d, gfn_t gfn, bool write, enum p2m_type *t)
{
    if (gfn >= GFNS)
        return NULL;
    *t = p2m_entries[d - domains][gfn].type;
    if (!p2m_is_mapped(*t) || (write && !p2m_is_writable(*t)))
        return NULL;
    struct page_info *pg = mfn_to_page(p2m_entries[d - domains][gfn].mfn);
    if (!pg->refs)
        return NULL;
    pg->refs++;
    return pg;
}
mfn_t p2m_get(struct domain *d, gfn_t gfn, enum p2m_type *t, unsigned *order)
{
    *order = 0;
    *t = gfn < GFNS ? p2m_entries[d - domains][gfn].type : P2M_HOLE;
    return gfn < GFNS ? p2m_entries[d - domains][gfn].mfn : INVALID_MFN;
}
int p2m_set(struct domain *d, gfn_t gfn, mfn_t mfn, unsigned order, enum p2m_type t)
{
    assert_int_equal(order, 0);
    assert_true(gfn < GFNS);
    p2m_entries[d - domains][gfn].mfn = mfn;
    p2m_entries[d - domains][gfn].type = t;
    return 0;
}
int physmap_put_foreign(struct domain *d, gfn_t gfn, struct page_info *pg, enum p2m_type t)
{
    if (gfn >= GFNS)
        return -EINVAL;
    enum p2m_type now = p2m_entries[d - domains][gfn].type;
    if (now == P2M_GRANT_RW || now == P2M_GRANT_RO)
        return -EBUSY;
    if (out_of_memory())
        return -ENOMEM;
    return p2m_set(d, gfn, page_to_mfn(pg), 0, t);
}
bool p2m_logdirty_enabled(const struct domain *d)
{
    (void)d;
    return logdirty;
}
void p2m_mark_dirty(struct domain *d, gfn_t gfn)
{
    (void)gfn;
    dirtied[d - domains]++;
}
struct domain *domain_get(domid_t id)
{
    if (id >= DOMAINS)
        return NULL;
    domains[id].refs++;
    return &domains[id];
}
void domain_hold(struct domain *d)
{
    d->refs++;
}
void domain_put(struct domain *d)
{
    assert_true(d->refs > 1);
    d->refs--;
}
int domain_resolve(struct vcpu *caller, domid_t id, struct domain **out)
{
    *out = domain_get(id == DOMID_SELF ? caller->domain->id : id);
    if (!*out)
        return -ESRCH;
    if (*out != caller->domain && !caller->domain->privileged) {
        domain_put(*out);
        return -EPERM;
    }
    return 0;
}
int copy_from_guest(void *dst, uint64_t gva, size_t bytes)
{
    if (gva < PAGE_SIZE)
        return -EFAULT;
    memcpy(dst, (void *)gva, bytes);
    return 0;
}
int copy_to_guest(uint64_t gva, const void *src, size_t bytes)
{
    if (gva < PAGE_SIZE || (fail_write_after >= 0 && fail_write_after-- == 0))
        return -EFAULT;
    memcpy((void *)gva, src, bytes);
    return 0;
}
bool hypercall_preempt_check(void)
{
    return preempt_after >= 0 && preempt_after-- == 0;
}
void hypercall_set_arg(struct vcpu *v, unsigned i, uint64_t value)
{
    (void)v;
    set_args[i] = value;
}
long hypercall_continue(struct vcpu *v)
{
    (void)v;
    return -ERESTART;
}
long hypercall_missing(struct vcpu *v, const char *group, unsigned op, long err)
{
    (void)v, (void)group, (void)op;
    return err;
}

/* ---- the fake domains ---- */
static uint64_t random_state = 1;
static uint64_t rnd(uint64_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % n;
}

static void setup(void)
{
    allocations = 0;
    free(frame_table);
    free(host_test_ram);
    frame_table = calloc(FRAMES, sizeof(*frame_table));
    host_test_ram = aligned_alloc(PAGE_SIZE, FRAMES * PAGE_SIZE);
    memset(host_test_ram, 0, FRAMES * PAGE_SIZE);
    memset(domains, 0, sizeof(domains));
    memset(p2m_entries, 0, sizeof(p2m_entries));
    memset(owner, 0, sizeof(owner));
    memset(dirtied, 0, sizeof(dirtied));
    preempt_after = fail_alloc_after = fail_write_after = -1;
    logdirty = false;
    for (unsigned i = 0; i < DOMAINS; i++) {
        struct domain *d = &domains[i];

        d->id = (domid_t)i;
        d->refs = 1;
        d->is_dom0 = d->privileged = i == 0;
        d->max_grant_frames = 2;
        d->max_maptrack_frames = 1;
        vcpus[i] = (struct vcpu){.domain = d};
        for (unsigned j = 0; j < RAM; j++) {
            p2m_entries[i][j].mfn = i * RAM + j;
            p2m_entries[i][j].type = j == GFN_ROM ? P2M_RAM_RO : P2M_RAM;
            frame_table[i * RAM + j].refs = 1;
            owner[i * RAM + j] = d;
        }
        assert_int_equal(grant_table_init(d), 0);
    }
}

static void teardown(void)
{
    for (unsigned i = 0; i < DOMAINS; i++) {
        preempt_after = 0;
        while (grant_table_destroy(&domains[i]) == -ERESTART)
            preempt_after = 1;
        preempt_after = -1;
    }
    for (unsigned i = 0; i < DOMAINS; i++) {
        struct grant_table *gt = domains[i].grants;

        for (unsigned j = 0; j < gt->nr_frames * GRANTS_PER_FRAME; j++) {
            struct grant_active *act = &gt->active[j / GRANTS_PER_FRAME][j % GRANTS_PER_FRAME];
            struct grant_entry_v1 *e = &gt->shared[j / GRANTS_PER_FRAME][j % GRANTS_PER_FRAME];

            assert_int_equal(act->pins, 0);
            assert_int_equal(act->write_pins, 0);
            assert_int_equal(e->flags & (GTF_reading | GTF_writing), 0);
        }
        for (unsigned j = 0; j < GFNS; j++)
            assert_true(p2m_entries[i][j].type < P2M_GRANT_RW);
        assert_int_equal(domains[i].refs, 1);
    }
    for (unsigned i = 0; i < DOMAINS; i++)
        grant_table_free(&domains[i]);
    for (unsigned i = 0; i < FRAMES; i++)
        assert_int_equal(frame_table[i].refs, i < DOMAINS * RAM);
    assert_int_equal(allocations, 0);
}

static struct grant_entry_v1 *entry(unsigned i, unsigned ref)
{
    return &domains[i].grants->shared[ref / GRANTS_PER_FRAME][ref % GRANTS_PER_FRAME];
}
static void grant(unsigned i, unsigned ref, unsigned to, uint32_t gfn, bool ro)
{
    *entry(i, ref) = (struct grant_entry_v1){
        .flags = GTF_permit_access | (ro ? GTF_readonly : 0), .domid = (domid_t)to, .frame = gfn};
}
/* As the header tells a guest: only while nobody uses it. */
static bool revoke(unsigned i, unsigned ref)
{
    uint16_t flags = entry(i, ref)->flags;

    return !(flags & (GTF_reading | GTF_writing)) && atomic_cas(&entry(i, ref)->flags, flags, 0);
}
static long grant_op(unsigned i, unsigned cmd, void *arg, unsigned count)
{
    uint64_t a[6] = {cmd, (uint64_t)arg, count};

    return do_grant_table_op(&vcpus[i], a);
}
static int map(unsigned i, unsigned from, unsigned ref, uint64_t gfn, bool ro, uint32_t *handle)
{
    struct gnttab_map_grant_ref op = {.host_addr = gfn << PAGE_SHIFT,
                                      .flags = GNTMAP_host_map | (ro ? GNTMAP_readonly : 0),
                                      .ref = ref,
                                      .dom = (domid_t)from};

    assert_int_equal(grant_op(i, GNTTABOP_map_grant_ref, &op, 1), 0);
    *handle = op.handle;
    return op.status;
}
static int unmap(unsigned i, uint32_t handle, uint64_t gfn)
{
    struct gnttab_unmap_grant_ref op = {.host_addr = gfn << PAGE_SHIFT, .handle = handle};

    assert_int_equal(grant_op(i, GNTTABOP_unmap_grant_ref, &op, 1), 0);
    return op.status;
}

/* ---- tests ---- */
static void mapping(void **state)
{
    uint32_t h, h2;

    (void)state;
    setup();
    grant(1, 9, 0, 3, false);
    assert_int_equal(map(0, 1, 9, 40, false, &h), GNTST_okay);
    assert_int_equal(p2m_entries[0][40].mfn, RAM + 3);
    assert_int_equal(p2m_entries[0][40].type, P2M_GRANT_RW);
    assert_int_equal(entry(1, 9)->flags, GTF_permit_access | GTF_reading | GTF_writing);
    assert_int_equal(frame_table[RAM + 3].refs, 2);
    assert_int_equal(domains[1].refs, 2);
    assert_false(revoke(1, 9));
    entry(1, 9)->domid = 2; /* in use by 0: nobody else's, whatever the entry says now */
    assert_int_equal(map(2, 1, 9, 40, false, &h2), GNTST_bad_gntref);
    entry(1, 9)->domid = 0;
    /* Again, read-only: both pins, one page reference. */
    assert_int_equal(map(0, 1, 9, 41, true, &h2), GNTST_okay);
    assert_int_equal(p2m_entries[0][41].type, P2M_GRANT_RO);
    assert_int_equal(frame_table[RAM + 3].refs, 2);
    assert_int_equal(unmap(0, h, 41), GNTST_bad_virt_addr);
    assert_int_equal(unmap(0, h, 40), GNTST_okay);
    assert_int_equal(unmap(0, h, 40), GNTST_bad_handle);
    assert_int_equal(p2m_entries[0][40].type, P2M_HOLE);
    assert_int_equal(entry(1, 9)->flags, GTF_permit_access | GTF_reading);
    assert_int_equal(unmap(0, h2, 41), GNTST_okay);
    assert_int_equal(entry(1, 9)->flags, GTF_permit_access);
    assert_true(revoke(1, 9));
    assert_int_equal(map(0, 1, 9, 40, false, &h), GNTST_bad_gntref);

    /* Refusals. */
    grant(1, 10, 2, 4, true);
    assert_int_equal(map(0, 1, 10, 40, true, &h), GNTST_bad_gntref);     /* another's */
    assert_int_equal(map(2, 1, 10, 40, false, &h), GNTST_general_error); /* read-only */
    assert_int_equal(map(2, 1, 10, GFNS, true, &h), GNTST_bad_virt_addr);
    assert_int_equal(map(2, 1, 100000, 40, true, &h), GNTST_bad_gntref);
    assert_int_equal(map(2, 77, 10, 40, true, &h), GNTST_bad_domain);
    grant(1, 11, 2, RAM + 1, false);
    assert_int_equal(map(2, 1, 11, 40, false, &h), GNTST_bad_page); /* a hole */
    grant(1, 11, 2, GFN_ROM, false);
    assert_int_equal(map(2, 1, 11, 40, false, &h), GNTST_general_error); /* ROM */
    assert_int_equal(entry(1, 11)->flags, GTF_permit_access);
    assert_int_equal(map(2, 1, 11, 40, true, &h), GNTST_okay);
    assert_int_equal(map(2, 1, 10, 40, true, &h2), GNTST_general_error); /* a grant is there */
    /* A page one has only mapped cannot be granted on. */
    grant(2, 1, 0, 40, true);
    assert_int_equal(map(0, 2, 1, 40, true, &h2), GNTST_bad_page);
    domains[1].dying = DOMAIN_DYING;
    assert_int_equal(map(2, 1, 10, 42, true, &h2), GNTST_bad_domain);
    assert_int_equal(unmap(2, h, 40), GNTST_okay);
    struct gnttab_map_grant_ref op = {.flags = GNTMAP_readonly, .dom = 1};
    assert_int_equal(grant_op(0, GNTTABOP_map_grant_ref, &op, 1), 0);
    assert_int_equal(op.status, GNTST_bad_gntref);
    op.flags = GNTMAP_host_map | GNTMAP_contains_pte;
    assert_int_equal(grant_op(0, GNTTABOP_map_grant_ref, &op, 1), 0);
    assert_int_equal(op.status, GNTST_general_error);
    assert_int_equal(grant_op(0, GNTTABOP_map_grant_ref, NULL, 1), -EFAULT);
    assert_int_equal(grant_op(0, GNTTABOP_map_grant_ref, &op, ~0u), -EINVAL);
    assert_int_equal(grant_op(0, GNTTABOP_unmap_and_replace, &op, 1), -EOPNOTSUPP);
    assert_int_equal(grant_op(0, GNTTABOP_transfer, &op, 1), -EOPNOTSUPP);
    assert_int_equal(grant_op(0, 99, &op, 1), -ENOSYS);
    teardown();
}

static void host_and_device(void **state)
{
    struct gnttab_map_grant_ref op = {
        .host_addr = 50 << PAGE_SHIFT, .flags = GNTMAP_host_map | GNTMAP_device_map, .dom = 1};

    (void)state;
    setup();
    grant(1, 0, 0, 2, false);
    assert_int_equal(grant_op(0, GNTTABOP_map_grant_ref, &op, 1), 0);
    assert_int_equal(op.status, GNTST_okay);
    assert_int_equal(op.dev_bus_addr, (RAM + 2) << PAGE_SHIFT);
    assert_int_equal(unmap(0, op.handle, 50), GNTST_okay); /* the device's part stays */
    assert_int_equal(p2m_entries[0][50].type, P2M_HOLE);
    assert_int_equal(entry(1, 0)->flags & GTF_writing, GTF_writing);
    struct gnttab_unmap_grant_ref un = {.dev_bus_addr = op.dev_bus_addr, .handle = op.handle};
    assert_int_equal(grant_op(0, GNTTABOP_unmap_grant_ref, &un, 1), 0);
    assert_int_equal(entry(1, 0)->flags, GTF_permit_access);
    /* The answer cannot be written: the mapping is undone. */
    fail_write_after = 0;
    op.flags = GNTMAP_host_map | GNTMAP_device_map;
    assert_int_equal(grant_op(0, GNTTABOP_map_grant_ref, &op, 1), -EFAULT);
    assert_int_equal(entry(1, 0)->flags, GTF_permit_access);
    assert_int_equal(domains[1].refs, 1);
    /* No memory for the table entry. */
    fail_alloc_after = 0;
    assert_int_equal(grant_op(0, GNTTABOP_map_grant_ref, &op, 1), 0);
    assert_int_equal(op.status, GNTST_no_space);
    assert_int_equal(entry(1, 0)->flags, GTF_permit_access);
    teardown();
}

static void handles_run_out(void **state)
{
    enum { HANDLES = MAPTRACK_PER_FRAME };
    static struct gnttab_map_grant_ref ops[HANDLES + 1];

    (void)state;
    setup();
    for (unsigned i = 0; i <= HANDLES; i++) {
        grant(1, i, 0, 3, true);
        ops[i] = (struct gnttab_map_grant_ref){
            .flags = GNTMAP_device_map | GNTMAP_readonly, .ref = i, .dom = 1};
    }
    preempt_after = 3;
    assert_int_equal(grant_op(0, GNTTABOP_map_grant_ref, ops, HANDLES + 1), -ERESTART);
    assert_int_equal(set_args[1], (uint64_t)&ops[64]);
    assert_int_equal(set_args[2], HANDLES + 1 - 64);
    assert_int_equal(
        grant_op(0, GNTTABOP_map_grant_ref, (void *)set_args[1], (unsigned)set_args[2]), 0);
    for (unsigned i = 0; i < HANDLES; i++)
        assert_int_equal(ops[i].status, GNTST_okay);
    assert_int_equal(ops[HANDLES].status, GNTST_no_space);
    assert_int_equal(domains[1].refs, 1 + HANDLES);
    teardown();
}

static void queries(void **state)
{
    struct gnttab_query_size size = {.dom = DOMID_SELF};
    struct gnttab_setup_table table = {.dom = DOMID_SELF, .nr_frames = 2};
    struct gnttab_set_version version = {.version = 2};
    struct gnttab_get_version got = {.dom = 1};
    struct gnttab_swap_grant_ref swap = {.ref_a = 20, .ref_b = 600};
    uint64_t frames[2] = {1, 2};
    uint32_t h;
    mfn_t mfn;

    (void)state;
    setup();
    assert_int_equal(grant_op(1, GNTTABOP_query_size, &size, 1), 0);
    assert_int_equal(size.nr_frames, 1);
    assert_int_equal(size.max_nr_frames, 2);
    assert_int_equal(grant_op(1, GNTTABOP_query_size, &size, 2), -EINVAL);
    size.dom = 2;
    assert_int_equal(grant_op(1, GNTTABOP_query_size, &size, 1), 0);
    assert_int_equal(size.status, GNTST_permission_denied);
    table.frame_list.p = frames;
    fail_alloc_after = 0;
    assert_int_equal(grant_op(1, GNTTABOP_setup_table, &table, 1), 0);
    assert_int_equal(table.status, GNTST_general_error);
    fail_alloc_after = 1;
    assert_int_equal(grant_op(1, GNTTABOP_setup_table, &table, 1), 0);
    assert_int_equal(table.status, GNTST_general_error);
    fail_alloc_after = -1;
    assert_int_equal(grant_op(1, GNTTABOP_setup_table, &table, 1), 0);
    assert_int_equal(table.status, GNTST_okay);
    assert_true(frames[0] == ~0ULL && frames[1] == ~0ULL);
    table.nr_frames = 3;
    assert_int_equal(grant_op(1, GNTTABOP_setup_table, &table, 1), 0);
    assert_int_equal(table.status, GNTST_general_error);
    assert_int_equal(grant_op(1, GNTTABOP_set_version, &version, 1), -ENOSYS);
    version.version = 1;
    assert_int_equal(grant_op(1, GNTTABOP_set_version, &version, 1), 0);
    assert_int_equal(grant_op(0, GNTTABOP_get_version, &got, 1), 0);
    assert_int_equal(got.version, 1);
    assert_int_equal(grant_table_frame(&domains[1], 0, true, &mfn), -EINVAL);
    assert_int_equal(grant_table_frame(&domains[1], 2, false, &mfn), -EINVAL);
    assert_int_equal(grant_table_frame(&domains[1], 1, false, &mfn), 0);
    assert_ptr_equal(mfn_to_virt(mfn), entry(1, GRANTS_PER_FRAME));
    grant(1, 600, 0, 5, true);
    assert_int_equal(grant_op(1, GNTTABOP_swap_grant_ref, &swap, 1), 0);
    assert_int_equal(swap.status, GNTST_okay);
    assert_int_equal(entry(1, 20)->frame, 5);
    assert_int_equal(entry(1, 600)->flags, 0);
    assert_int_equal(map(0, 1, 20, 40, true, &h), GNTST_okay);
    assert_int_equal(grant_op(1, GNTTABOP_swap_grant_ref, &swap, 1), 0);
    assert_int_equal(swap.status, GNTST_eagain);
    /* 32-bit caller. */
    struct gnttab_setup_table32 table32 = {.dom = DOMID_SELF, .nr_frames = 1, .frame_list = 8};
    vcpus[1].compat = true;
    assert_int_equal(grant_op(1, GNTTABOP_setup_table, &table32, 1), 0);
    assert_int_equal(table32.status, GNTST_bad_virt_addr);
    vcpus[1].compat = false;
    teardown();
}

static char *ram(unsigned i, unsigned gfn)
{
    return mfn_to_virt(i * RAM + gfn);
}

static void copies(void **state)
{
    struct gnttab_copy op[3] = {0};

    (void)state;
    setup();
    grant(1, 30, 0, 3, true);
    grant(2, 31, 0, 4, false);
    strcpy(ram(1, 3) + 100, "the quick brown fox");
    for (unsigned i = 0; i < 3; i++) { /* three pieces of one page to another */
        op[i].source.u.ref = 30;
        op[i].source.domid = 1;
        op[i].source.offset = (uint16_t)(100 + i * 8);
        op[i].dest.u.ref = 31;
        op[i].dest.domid = 2;
        op[i].dest.offset = (uint16_t)(4076 + i * 8);
        op[i].len = i == 2 ? 4 : 8;
        op[i].flags = GNTCOPY_source_gref | GNTCOPY_dest_gref;
    }
    logdirty = true;
    assert_int_equal(grant_op(0, GNTTABOP_copy, op, 3), 0);
    logdirty = false;
    assert_int_equal(op[2].status, GNTST_okay);
    assert_string_equal(ram(2, 4) + 4076, "the quick brown fox");
    assert_int_equal(dirtied[2], 1); /* pinned once for the batch */
    assert_int_equal(dirtied[1], 0);
    op[0].len = 30; /* over the page's end */
    op[0].dest.offset = 4080;
    op[1].dest.u.ref = 32;
    op[2].flags = GNTCOPY_source_gref; /* the caller's own page */
    op[2].dest.u.gmfn = 7;
    op[2].dest.domid = DOMID_SELF;
    assert_int_equal(grant_op(0, GNTTABOP_copy, op, 3), 0);
    assert_int_equal(op[0].status, GNTST_bad_copy_arg);
    assert_int_equal(op[1].status, GNTST_bad_gntref);
    assert_int_equal(op[2].status, GNTST_okay);
    assert_memory_equal(ram(0, 7) + 4092, "fox", 4);
    op[0].len = 4;
    op[0].flags = 0;
    op[0].source.domid = 1; /* not the caller's */
    op[0].source.u.gmfn = 3;
    op[1].flags = GNTCOPY_source_gref | GNTCOPY_dest_gref;
    op[1].dest.domid = 1; /* read-only */
    op[1].dest.u.ref = 30;
    op[2].dest.u.gmfn = GFN_ROM;
    assert_int_equal(grant_op(0, GNTTABOP_copy, op, 3), 0);
    assert_int_equal(op[0].status, GNTST_permission_denied);
    assert_int_equal(op[1].status, GNTST_general_error);
    assert_int_equal(op[2].status, GNTST_bad_page);
    assert_int_equal(entry(1, 30)->flags, GTF_permit_access | GTF_readonly);
    /* 32-bit caller. */
    struct gnttab_copy32 op32 = {.source = {30, 1, 100},
                                 .dest = {6, DOMID_SELF, 0},
                                 .len = 20,
                                 .flags = GNTCOPY_source_gref};
    vcpus[0].compat = true;
    assert_int_equal(grant_op(0, GNTTABOP_copy, &op32, 1), 0);
    vcpus[0].compat = false;
    assert_int_equal(op32.status, GNTST_okay);
    assert_string_equal(ram(0, 6), "the quick brown fox");
    teardown();
}

/* Out of memory at every step of making a table leaves nothing behind. */
static void no_memory(void **state)
{
    struct domain d = {.id = 9, .refs = 1, .max_grant_frames = -1, .max_maptrack_frames = -1};
    int rc = -ENOMEM;

    (void)state;
    setup();
    long before = allocations;
    for (int i = 0; rc; i++) {
        fail_alloc_after = i;
        rc = grant_table_init(&d);
        if (rc) {
            assert_int_equal(rc, -ENOMEM);
            assert_null(d.grants);
            assert_int_equal(allocations, before);
        }
    }
    fail_alloc_after = -1;
    assert_int_equal(d.grants->max_frames, DEFAULT_GRANT_FRAMES);
    grant_table_free(&d);
    assert_int_equal(allocations, before);
    teardown();
}

struct model_map {
    bool used, ro;
    unsigned mapper, granter, ref;
    uint64_t gfn;
    mfn_t mfn;
    uint32_t handle;
};

static void storm(void **state)
{
    enum { STEPS = 60000, MAPS = 60, REFS = 24 };
    static struct model_map maps[MAPS];
    unsigned okay = 0;

    (void)state;
    setup();
    memset(maps, 0, sizeof(maps));
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned i = (unsigned)rnd(DOMAINS), j = (unsigned)rnd(DOMAINS), ref = (unsigned)rnd(REFS);
        struct model_map *m = &maps[rnd(MAPS)];

        fail_alloc_after = rnd(20) ? -1 : 0;
        switch (rnd(8)) {
        case 0:
            if (!(entry(i, ref)->flags & (GTF_reading | GTF_writing)))
                grant(i, ref, j, (uint32_t)rnd(RAM + 2), !rnd(3));
            break;
        case 1:
            revoke(i, ref);
            break;
        case 2: /* a guest that spoils its entry, but for what says it is in use */
            entry(i, ref)->domid = (domid_t)rnd(DOMAINS);
            entry(i, ref)->frame = (uint32_t)rnd(GFNS);
            break;
        case 3: {
            struct gnttab_copy op = {.source = {.u.ref = ref, .domid = (domid_t)j},
                                     .dest = {.u.gmfn = rnd(GFNS), .domid = DOMID_SELF},
                                     .len = 64,
                                     .flags = GNTCOPY_source_gref};
            assert_int_equal(grant_op(i, GNTTABOP_copy, &op, 1), 0);
            break;
        }
        case 4:
        case 5:
            if (m->used) {
                assert_int_equal(unmap(m->mapper, m->handle, m->gfn), GNTST_okay);
                assert_int_equal(p2m_entries[m->mapper][m->gfn].type, P2M_HOLE);
                m->used = false;
            } else {
                unmap(i, (uint32_t)rnd(300), 0); /* a guess that unmaps nothing */
            }
            break;
        default: {
            uint64_t gfn = RAM + 4 + rnd(GFNS - RAM - 4);
            bool ro = rnd(2);
            uint32_t handle;
            if (m->used)
                break;
            int status = map(i, j, ref, gfn, ro, &handle);
            fail_alloc_after = -1;
            if (status != GNTST_okay)
                break;
            okay++;
            mfn_t mfn = p2m_entries[i][gfn].mfn;
            assert_int_equal(p2m_entries[i][gfn].type, ro ? P2M_GRANT_RO : P2M_GRANT_RW);
            assert_ptr_equal(owner[mfn], &domains[j]);
            assert_int_equal(entry(j, ref)->domid, i);
            assert_true(ro || !(entry(j, ref)->flags & GTF_readonly));
            /* All mappings of an entry in use are of the frame it named at first. */
            for (unsigned k = 0; k < MAPS; k++)
                if (maps[k].used && maps[k].granter == j && maps[k].ref == ref)
                    assert_int_equal(maps[k].mfn, mfn);
            *m = (struct model_map){.used = true,
                                    .ro = ro,
                                    .mapper = i,
                                    .granter = j,
                                    .ref = ref,
                                    .gfn = gfn,
                                    .mfn = mfn,
                                    .handle = handle};
            break;
        }
        }
        fail_alloc_after = -1;
        /* The flags of each entry, and each frame's references, as the model has them. */
        unsigned refs[DOMAINS * RAM] = {0};
        bool reading[DOMAINS][REFS] = {0}, writing[DOMAINS][REFS] = {0};
        for (unsigned k = 0; k < MAPS; k++)
            if (maps[k].used) {
                if (!reading[maps[k].granter][maps[k].ref])
                    refs[maps[k].mfn]++;
                reading[maps[k].granter][maps[k].ref] = true;
                writing[maps[k].granter][maps[k].ref] |= !maps[k].ro;
            }
        for (unsigned d = 0; d < DOMAINS; d++)
            for (unsigned r = 0; r < REFS; r++) {
                assert_int_equal(!!(entry(d, r)->flags & GTF_reading), reading[d][r]);
                assert_int_equal(!!(entry(d, r)->flags & GTF_writing), writing[d][r]);
            }
        for (unsigned f = 0; f < DOMAINS * RAM; f++)
            assert_int_equal(frame_table[f].refs, 1 + refs[f]);
    }
    assert_true(okay > 1000);
    teardown();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mapping),         cmocka_unit_test(host_and_device),
        cmocka_unit_test(handles_run_out), cmocka_unit_test(queries),
        cmocka_unit_test(copies),          cmocka_unit_test(no_memory),
        cmocka_unit_test(storm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
