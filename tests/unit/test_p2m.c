/* sources: vmm/core/heap.c vmm/core/kmalloc.c vmm/core/page.c vmm/npt/logdirty.c vmm/npt/fault.c */
/* test_p2m.c: the p2m against a flat model, in both formats, seen through p2m_get and through a
 * walk of the raw entries as the manuals have it, with a TLB that must never be wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "core/atomic.h"
#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "domain/domain.h"

/* p2m.c is included, so that the test can come between any two steps of a walk without the lock. */
static void (*walk_hook)(void);
#undef atomic_load
#define atomic_load(p)                                                                             \
    ({                                                                                             \
        __typeof__(*(p)) loaded_ = __atomic_load_n((p), __ATOMIC_ACQUIRE);                         \
        if (walk_hook)                                                                             \
            walk_hook();                                                                           \
        loaded_;                                                                                   \
    })
#include "npt/p2m.c"

#define FRAMES  12288
#define WINDOW  (1ULL << 20)                  /* gfns that the model has: 4 GiB */
#define BASE    ((1ULL << 27) - (1ULL << 19)) /* of them, across a border of the top level */
#define FOREIGN 64
#define TLB     256

char *host_test_ram;
struct cpu host_test_cpu;
static int preempt_after = -1;

void panic(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    abort();
}
bool hypercall_preempt_check(void)
{
    return preempt_after >= 0 && preempt_after-- == 0;
}
void domain_hold(struct domain *d)
{
    d->refs++;
}
void domain_put(struct domain *d)
{
    d->refs--;
}

static uint64_t random_state = 88172645463325252ULL;
static uint64_t rnd(uint64_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % n;
}

/* ---- the hardware's side ------------------------------------------------------------------- */

static enum p2m_format format;
static struct {
    gfn_t gfn;
    mfn_t mfn;
    bool valid, w, d;
} tlb[TLB];
static unsigned flushes;
static gfn_t mmio_start, mmio_end;

void domain_flush_tlb(struct domain *d)
{
    assert_false(spin_is_locked((spinlock_t *)d->p2m)); /* its first member */
    flushes++;
    for (unsigned i = 0; i < TLB; i++)
        tlb[i].valid = false;
}
bool dom0_may_map_mmio(gfn_t gfn)
{
    return gfn >= mmio_start && gfn < mmio_end;
}

static bool small_code; /* large entries must not be executable */
static bool dirty_bits, forgone;

struct translation {
    bool present, w, x, d;
    mfn_t mfn;
    unsigned level, memtype; /* NPT: PAT index; EPT: type */
};

/* APM 2, 15.25 with 5.3, and SDM 3C, 28.3.2; asserts that nothing reserved is set. */
static struct translation hardware_walk(const struct domain *d, gfn_t gfn)
{
    const uint64_t *table = pa_to_virt(p2m_root(d));
    struct translation t = {.w = true};

    for (t.level = 4;; t.level--) {
        uint64_t e = table[gfn >> (9 * (t.level - 1)) & 511];
        bool leaf = t.level == 1 || (e & 0x80);

        if (!(e & (format == P2M_FORMAT_NPT ? 1 : 7)))
            return t;
        assert_int_equal(e >> 59, 0); /* NPT: PKE and NX; EPT: rights of other features */
        t.x = e & 4;                  /* NPT: a guest's access is a user's; EPT: X */
        assert_true(e & 1 && t.x == !(small_code && leaf && t.level > 1));
        t.w = t.w && (e & 2);
        if (!leaf) {
            assert_int_equal(e & ~(0x000ffffffffff000ULL | 7), 0);
            table = pa_to_virt(e & 0x000ffffffffff000ULL);
            continue;
        }
        assert_true(t.level < 4);
        assert_int_equal(e & ((1ULL << (9 * (t.level - 1))) - 1) << 12, 0);
        assert_int_equal(e & 0x80, t.level > 1 ? 0x80 : 0); /* NPT, 4 KiB: PAT */
        if (format == P2M_FORMAT_NPT) {
            assert_int_equal(e & 0xf00, 0); /* G, and software's that we leave alone */
            assert_true(forgone || !(e & 0x20) == !dirty_bits);
            t.memtype = e >> 3 & 3;
            t.d = e & 0x40;
        } else {
            assert_int_equal(e & 0xc40, 0);
            assert_true(forgone || !(e & 0x100) == !dirty_bits);
            t.memtype = e >> 3 & 7;
            t.d = e & 0x200;
        }
        t.present = true;
        t.mfn = (e & 0x000ffffffffff000ULL) >> 12;
        t.mfn += gfn & ((1ULL << (9 * (t.level - 1))) - 1);
        return t;
    }
}

static void tlb_check(const struct domain *d)
{
    for (unsigned i = 0; i < TLB; i++) {
        struct translation t;

        if (!tlb[i].valid)
            continue;
        t = hardware_walk(d, tlb[i].gfn);
        if (!t.present || t.mfn != tlb[i].mfn || (tlb[i].w && !t.w) || (tlb[i].d && !t.d))
            fail_msg("stale translation of gfn %lx", tlb[i].gfn);
    }
}

static void tlb_fill(const struct domain *d, gfn_t gfn)
{
    struct translation t = hardware_walk(d, gfn);
    unsigned i = (unsigned)rnd(TLB);

    if (!t.present)
        return;
    tlb[i].gfn = gfn;
    tlb[i].mfn = t.mfn;
    tlb[i].w = t.w;
    tlb[i].d = t.d;
    tlb[i].valid = true;
}

/* ---- the model ------------------------------------------------------------------------------ */

#define DOMAIN_ORDER 4
static struct domain *dom, *other;
static struct page_info *foreign[FOREIGN];
static struct {
    mfn_t mfn;
    uint8_t type, dirty;
} model[WINDOW];
static uint64_t heap_before;

static struct domain *new_domain(uint64_t max_pages)
{
    struct domain *d = pages_alloc(DOMAIN_ORDER);

    d->refs = 1;
    d->max_pages = max_pages;
    list_init(&d->page_list);
    list_init(&d->xenpage_list);
    return d;
}

static void start(enum p2m_format f, bool large_1g, uint64_t max_pages, bool is_dom0)
{
    struct p2m_limits limits = {.large_1g = large_1g,
                                .large_2m = true,
                                .large_code_unsafe = small_code,
                                .dirty_bits = dirty_bits,
                                .gpa_bits = 40};

    format = f;
    p2m_setup(f, limits);
    kfree(kzalloc(sizeof(void *) * 32)); /* the slab page that stays */
    heap_before = heap_free_pages();
    dom = new_domain(max_pages);
    dom->is_dom0 = is_dom0;
    other = new_domain(1000);
    assert_int_equal(p2m_init(dom), 0);
    for (unsigned i = 0; i < FOREIGN; i++)
        foreign[i] = domain_page_alloc(other, 0, 0);
    memset(model, 0, sizeof(model));
    memset(tlb, 0, sizeof(tlb));
}

static void finish(void)
{
    int err;

    preempt_after = 0;
    while ((err = p2m_teardown(dom)) == -ERESTART)
        preempt_after = (int)rnd(5);
    assert_int_equal(err, 0);
    preempt_after = -1;
    assert_int_equal(p2m_get(dom, BASE, NULL, NULL), INVALID_MFN);
    p2m_free(dom);
    assert_null(dom->p2m);
    for (unsigned i = 0; i < FOREIGN; i++) {
        assert_int_equal(foreign[i]->refs, 1);
        page_put_alloc_ref(foreign[i]);
    }
    pages_free(dom, DOMAIN_ORDER);
    pages_free(other, DOMAIN_ORDER);
    assert_true(heap_before - heap_free_pages() <= 1); /* kzalloc keeps one page a class */
}

static bool type_writable(enum p2m_type t)
{
    return t == P2M_RAM || t == P2M_MMIO_DIRECT || t == P2M_GRANT_RW || t == P2M_FOREIGN_RW;
}

static void check_gfn(uint64_t i)
{
    gfn_t gfn = BASE + i;
    enum p2m_type t, want = (enum p2m_type)model[i].type;
    unsigned order;
    mfn_t mfn = p2m_get(dom, gfn, &t, &order);
    struct translation hw = hardware_walk(dom, gfn);
    bool logging = p2m_logdirty_enabled(dom), present = want != P2M_HOLE && want != P2M_MMIO_DM;

    if (t == P2M_LOGDIRTY) {
        assert_false(logging && model[i].dirty);
        t = P2M_RAM;
    }
    if (t != want || mfn != (present ? model[i].mfn : INVALID_MFN))
        fail_msg("gfn %lx: type %d mfn %lx, not %d %lx", gfn, t, mfn, want, model[i].mfn);
    assert_int_equal(hw.present, present);
    if (!present)
        return;
    assert_int_equal(hw.mfn, mfn);
    assert_int_equal(order, 9 * (hw.level - 1));
    if (hw.w && (!type_writable(want) || (logging && want == P2M_RAM && !model[i].dirty)))
        fail_msg("gfn %lx of type %d is writable", gfn, want);
    if (format == P2M_FORMAT_EPT)
        assert_int_equal(hw.memtype, want == P2M_MMIO_DIRECT ? 0 : 6);
    else
        assert_int_equal(hw.memtype, want == P2M_MMIO_DIRECT ? 3 : 0);
}

static void check_all(void)
{
    uint64_t dirty = 0;
    unsigned refs[FOREIGN] = {0};

    for (uint64_t i = 0; i < WINDOW; i++) {
        check_gfn(i);
        dirty += model[i].dirty;
        if (model[i].type == P2M_FOREIGN_RW || model[i].type == P2M_FOREIGN_RO)
            for (unsigned f = 0; f < FOREIGN; f++)
                refs[f] += page_to_mfn(foreign[f]) == model[i].mfn;
    }
    for (unsigned f = 0; f < FOREIGN; f++)
        assert_int_equal(foreign[f]->refs, refs[f] + 1);
    if (p2m_logdirty_enabled(dom))
        assert_int_equal(p2m_dirty_count(dom), dirty);
}

static void model_set(uint64_t i, mfn_t mfn, uint64_t count, enum p2m_type t)
{
    for (uint64_t n = 0; n < count; n++) {
        model[i + n].mfn = mfn + n;
        model[i + n].type = (uint8_t)t;
        model[i + n].dirty = p2m_logdirty_enabled(dom) && p2m_is_ram(t);
    }
}

/* ---- random operations ----------------------------------------------------------------------- */

static bool is_other(enum p2m_type t)
{
    return t == P2M_GRANT_RW || t == P2M_GRANT_RO || t == P2M_FOREIGN_RW || t == P2M_FOREIGN_RO;
}

static void op_set(void)
{
    unsigned order = rnd(40) == 0 ? 18 : rnd(4) == 0 ? 9 : 0;
    enum p2m_type t;
    uint64_t i = rnd(WINDOW) & ~((1ULL << order) - 1);
    mfn_t mfn = (rnd(1ULL << 28) + FRAMES) & ~((1ULL << order) - 1);
    struct page_info *pg = NULL;
    int err;

    do
        t = (enum p2m_type)rnd(P2M_NR_TYPES);
    while (t == P2M_LOGDIRTY || (order && is_other(t)));
    if (order == 0 && rnd(2))
        i = i % 2048 + rnd(2) * (WINDOW / 2); /* make some tables crowded */
    if (is_other(t)) {
        pg = foreign[rnd(FOREIGN)];
        mfn = page_to_mfn(pg);
        if (t == P2M_FOREIGN_RW || t == P2M_FOREIGN_RO)
            assert_true(page_get(pg, other));
        else
            pg = NULL;
    } else if (t == P2M_HOLE || t == P2M_MMIO_DM) {
        mfn = INVALID_MFN;
    }
    err = p2m_set(dom, BASE + i, mfn, order, t);
    if (err) {
        assert_int_equal(err, -ENOMEM);
        if (pg)
            page_put(pg);
        return;
    }
    model_set(i, mfn, 1ULL << order, t);
    assert_true(p2m_max_gfn(dom) >= (t ? BASE + i : 0));
}

static void op_range(void)
{
    static const enum p2m_type types[] = {P2M_HOLE, P2M_RAM, P2M_RAM, P2M_RAM_RO, P2M_MMIO_DIRECT};
    uint64_t i = rnd(WINDOW), want = rnd(5000), count = MIN(want, WINDOW - i);
    mfn_t mfn = FRAMES + rnd(1ULL << 20) * 512 + i % 512;
    enum p2m_type t = types[rnd(ARRAY_SIZE(types))];

    if (rnd(4) == 0)
        mfn++; /* no large entry fits */
    assert_int_equal(p2m_set_range(dom, BASE + i, mfn, count, t), 0);
    model_set(i, mfn, count, t);
}

static void op_change_type(void)
{
    static const enum p2m_type to[] = {P2M_RAM, P2M_RAM_RO, P2M_IOREQ_SERVER, P2M_MMIO_DM};
    uint64_t i = rnd(WINDOW);
    enum p2m_type from = (enum p2m_type)model[i].type, t = to[rnd(ARRAY_SIZE(to))];
    int err;

    if (is_other(from) || from == P2M_MMIO_DIRECT || (!p2m_is_ram(from) && p2m_is_ram(t))) {
        assert_int_equal(p2m_change_type(dom, BASE + i, from, t), -EINVAL);
        return;
    }
    if (rnd(3) == 0) {
        assert_int_equal(
            p2m_change_type(dom, BASE + i, from == P2M_RAM_RO ? P2M_RAM : P2M_RAM_RO, P2M_MMIO_DM),
            -EBUSY);
        return;
    }
    err = p2m_change_type(dom, BASE + i, from, t);
    if (!err)
        model_set(i, model[i].mfn, 1, t);
    else
        assert_int_equal(err, -ENOMEM);
}

static enum p2m_fault_result fault_by(gfn_t gfn, bool write, bool exec)
{
    struct vcpu *v = calloc(1, sizeof(*v));
    enum p2m_fault_result r;

    v->domain = dom;
    r = p2m_fault(v, gfn << 12 | rnd(4096), write, exec);
    free(v);
    return r;
}

static enum p2m_fault_result fault(gfn_t gfn, bool write)
{
    return fault_by(gfn, write, false);
}

/* Execution: whatever is present is executable afterwards, unless there is no memory for that. */
static void op_exec(void)
{
    gfn_t gfn = BASE + rnd(WINDOW);
    struct translation before = hardware_walk(dom, gfn), after;

    if (!before.present)
        return;
    enum p2m_fault_result r = fault_by(gfn, false, true);
    after = hardware_walk(dom, gfn);
    assert_true(after.present && after.mfn == before.mfn && after.w == before.w);
    assert_true(r == P2M_FAULT_RESOLVED ? after.x : r == P2M_FAULT_BAD && !after.x);
}

static void op_fault(void)
{
    uint64_t i = rnd(WINDOW);
    gfn_t gfn = BASE + i;
    enum p2m_type t = (enum p2m_type)model[i].type;
    bool write = rnd(4);
    enum p2m_fault_result r = fault(gfn, write);

    if (t == P2M_HOLE || t == P2M_MMIO_DM || (write && t == P2M_IOREQ_SERVER)) {
        assert_int_equal(r, P2M_FAULT_EMULATE);
    } else if (!write || type_writable(t)) {
        assert_int_equal(r, P2M_FAULT_RESOLVED);
        if (write) {
            model[i].dirty = t == P2M_RAM && p2m_logdirty_enabled(dom);
            assert_true(hardware_walk(dom, gfn).w);
        }
    } else {
        assert_int_equal(r, P2M_FAULT_READONLY);
    }
}

static void op_logdirty_switch(void)
{
    if (rnd(20))
        return;
    if (p2m_logdirty_enabled(dom))
        p2m_logdirty_disable(dom);
    else
        assert_int_equal(p2m_logdirty_enable(dom), 0);
    for (uint64_t i = 0; i < WINDOW; i++)
        model[i].dirty = 0;
}

static void op_logdirty_range(void)
{
    static uint8_t bitmap[5000];
    uint64_t i = rnd(WINDOW), most = rnd(rnd(2) ? 100 : 40000), count = MIN(most, WINDOW - i);
    bool clean = rnd(2), bits = rnd(4);
    int64_t want = 0, got;

    if (!p2m_logdirty_enabled(dom))
        return;
    memset(bitmap, 0xff, sizeof(bitmap));
    got = p2m_logdirty_range(dom, BASE + i, count, bits ? bitmap : NULL, clean);
    for (uint64_t n = 0; n < count; n++) {
        want += model[i + n].dirty;
        if (bits)
            assert_int_equal(bitmap[n / 8] >> (n % 8) & 1, model[i + n].dirty);
        if (clean)
            model[i + n].dirty = 0;
    }
    assert_int_equal(got, want);
}

static void op_mark(void)
{
    uint64_t i = rnd(WINDOW);

    p2m_mark_dirty(dom, BASE + i);
    if (p2m_logdirty_enabled(dom) && p2m_is_ram((enum p2m_type)model[i].type))
        model[i].dirty = 1;
}

/* All frames but a few are taken: operations fail, and change nothing. */
static void op_without_memory(void)
{
    struct list all = LIST_INIT(all);
    struct page_info *pg;

    while ((pg = heap_alloc(0)))
        list_add(&all, &pg->list);
    for (unsigned n = 0; n < 50; n++) {
        if (rnd(2))
            op_set();
        else
            op_change_type();
        tlb_check(dom);
    }
    while (!list_empty(&all)) {
        pg = list_first(&all, struct page_info, list);
        list_del(&pg->list);
        heap_free(pg, 0);
    }
}

static void run_random(enum p2m_format f, bool large_1g)
{
    start(f, large_1g, 1ULL << 24, false);
    for (unsigned step = 1; step <= 20000; step++) {
        switch (rnd(13)) {
        case 0:
        case 1:
        case 2:
        case 3:
            op_set();
            break;
        case 4:
            op_range();
            break;
        case 5:
            op_change_type();
            break;
        case 6:
        case 7:
        case 8:
            op_fault();
            break;
        case 9:
            op_logdirty_switch();
            break;
        case 10:
            op_logdirty_range();
            break;
        case 11:
            op_mark();
            break;
        case 12:
            op_exec();
            break;
        }
        tlb_check(dom);
        for (unsigned n = 0; n < 8; n++) {
            uint64_t i = rnd(WINDOW);
            check_gfn(i);
            tlb_fill(dom, BASE + (rnd(2) ? i : i % 2048));
        }
        if (step % 2500 == 0)
            op_without_memory();
        if (step % 2500 == 0)
            check_all();
    }
    finish();
}

static void test_random_npt(void **state)
{
    (void)state;
    dirty_bits = true;
    run_random(P2M_FORMAT_NPT, true);
    dirty_bits = false;
}

static void test_random_ept(void **state)
{
    (void)state;
    run_random(P2M_FORMAT_EPT, true);
}

static void test_random_ept_dirty_bits(void **state)
{
    (void)state;
    dirty_bits = true;
    run_random(P2M_FORMAT_EPT, true);
    dirty_bits = false;
}

static void test_random_no_1g(void **state)
{
    (void)state;
    run_random(P2M_FORMAT_NPT, false);
}

/* ---- one thing at a time --------------------------------------------------------------------- */

static uint64_t raw_entry(gfn_t gfn, unsigned level)
{
    const uint64_t *table = pa_to_virt(p2m_root(dom));

    for (unsigned l = 4; l > level; l--)
        table = pa_to_virt(table[gfn >> (9 * (l - 1)) & 511] & 0x000ffffffffff000ULL);
    return table[gfn >> (9 * (level - 1)) & 511];
}

/* The bits as the manuals have them, written out. */
static void test_raw_entries(void **state)
{
    static const struct {
        enum p2m_type t;
        uint64_t npt, ept; /* of a 4 KiB entry, without address and type */
    } want[] = {
        {P2M_HOLE, 0, 0},
        {P2M_RAM, 0x07, 0x37},
        {P2M_RAM_RO, 0x05, 0x35},
        {P2M_LOGDIRTY, 0x05, 0x35},
        {P2M_MMIO_DIRECT, 0x1f, 0x07},
        {P2M_MMIO_DM, 0, 0},
        {P2M_GRANT_RW, 0x07, 0x37},
        {P2M_GRANT_RO, 0x05, 0x35},
        {P2M_FOREIGN_RW, 0x07, 0x37},
        {P2M_FOREIGN_RO, 0x05, 0x35},
        {P2M_IOREQ_SERVER, 0x05, 0x35},
    };

    (void)state;
    for (unsigned f = 0; f < 2; f++) {
        start(f ? P2M_FORMAT_EPT : P2M_FORMAT_NPT, true, 1000, false);
        for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
            uint64_t bits = f ? want[i].ept : want[i].npt;
            uint64_t type = (uint64_t)want[i].t << 52;
            mfn_t mfn = page_to_mfn(foreign[0]);

            if (want[i].t == P2M_FOREIGN_RW || want[i].t == P2M_FOREIGN_RO)
                page_get(foreign[0], other);
            assert_int_equal(p2m_set(dom, 512 + i, mfn, 0, want[i].t), 0);
            assert_int_equal(raw_entry(512 + i, 1), type | bits | (bits ? mfn << 12 : 0));
        }
        assert_int_equal(p2m_set(dom, 0x40000, 0x80000, 18, P2M_RAM), 0);
        assert_int_equal(raw_entry(0x40000, 3), 1ULL << 52 | 0x80000000ULL | (f ? 0xb7 : 0x87));
        assert_int_equal(p2m_set(dom, 0x400, 0x80200, 9, P2M_RAM_RO), 0);
        assert_int_equal(raw_entry(0x400, 2), 2ULL << 52 | 0x80200000ULL | (f ? 0xb5 : 0x85));
        assert_int_equal(raw_entry(0x400, 3) & 0xfff0000000000fffULL, 7);
        finish();
    }
}

static void test_dom0_memory_type(void **state)
{
    (void)state;
    start(P2M_FORMAT_NPT, true, 1000, true);
    assert_int_equal(p2m_set(dom, 0x1000, 0x1000, 0, P2M_MMIO_DIRECT), 0);
    assert_int_equal(raw_entry(0x1000, 1), 4ULL << 52 | 0x1000007);
    finish();
}

static void test_bad_requests(void **state)
{
    (void)state;
    start(P2M_FORMAT_NPT, true, 1000, false);
    assert_int_equal(p2m_set(dom, 1, 512, 9, P2M_RAM), -EINVAL);
    assert_int_equal(p2m_set(dom, 512, 1, 9, P2M_RAM), -EINVAL);
    assert_int_equal(p2m_set(dom, 512, 512, 3, P2M_RAM), -EINVAL);
    assert_int_equal(p2m_set(dom, 512, 512, 9, P2M_GRANT_RW), -EINVAL);
    assert_int_equal(p2m_set(dom, 512, 512, 9, P2M_FOREIGN_RW), -EINVAL);
    assert_int_equal(p2m_set(dom, 512, INVALID_MFN, 0, P2M_RAM), -EINVAL);
    assert_int_equal(p2m_set(dom, 512, 512, 0, P2M_NR_TYPES), -EINVAL);
    assert_int_equal(p2m_set(dom, 1ULL << 28, 512, 0, P2M_RAM), -EINVAL);
    assert_int_equal(p2m_set(dom, INVALID_GFN, 512, 0, P2M_RAM), -EINVAL);
    assert_int_equal(p2m_get(dom, INVALID_GFN, NULL, NULL), INVALID_MFN);
    assert_int_equal(p2m_get(dom, (1ULL << 28) + 512, NULL, NULL), INVALID_MFN);
    assert_int_equal(p2m_change_type(dom, 1ULL << 28, P2M_HOLE, P2M_MMIO_DM), -EINVAL);
    assert_int_equal(fault(1ULL << 28, false), P2M_FAULT_EMULATE);
    assert_int_equal(p2m_set(dom, (1ULL << 28) - 1, 512, 0, P2M_RAM), 0);
    assert_int_equal(p2m_max_gfn(dom), (1ULL << 28) - 1);
    finish();
}

/* Gigabytes cost a handful of tables. */
static void test_identity_range(void **state)
{
    (void)state;
    start(P2M_FORMAT_NPT, true, 0, true);
    assert_int_equal(p2m_set_range(dom, 0, 0, 0xa0, P2M_RAM), 0);
    assert_int_equal(p2m_set_range(dom, 0x100, 0x100, (32ULL << 18) - 0x100, P2M_RAM), 0);
    assert_int_equal(p2m_table_pages(dom), 4);
    assert_int_equal(hardware_walk(dom, 0xff).present, false);
    assert_int_equal(hardware_walk(dom, 0x100).level, 1);
    assert_int_equal(hardware_walk(dom, 0x200).level, 2);
    assert_int_equal(hardware_walk(dom, 0x40000).level, 3);
    assert_int_equal(hardware_walk(dom, (32ULL << 18) - 1).mfn, (32ULL << 18) - 1);
    assert_int_equal(p2m_set(dom, 0x7fffe, INVALID_MFN, 0, P2M_HOLE), 0);
    assert_int_equal(p2m_table_pages(dom), 6);
    assert_int_equal(hardware_walk(dom, 0x7fffd).level, 1);
    assert_int_equal(hardware_walk(dom, 0x7fdff).level, 2);
    finish();
}

/* No flush where nothing can be cached, and one for a batch. */
static void test_flushes(void **state)
{
    (void)state;
    start(P2M_FORMAT_NPT, true, 1000, false);
    flushes = 0;
    p2m_set_range(dom, 0, 0x10000, 2000, P2M_RAM_RO);
    p2m_set(dom, 5000, INVALID_MFN, 0, P2M_MMIO_DM);
    p2m_set(dom, 5000, INVALID_MFN, 0, P2M_HOLE);
    flushes = 0; /* an emptied table leaves the tree with a flush */
    p2m_set(dom, 5, 0x10005, 0, P2M_RAM);
    assert_int_equal(flushes, 0);
    p2m_set(dom, 5, 0x10006, 0, P2M_RAM);
    assert_int_equal(flushes, 1);
    p2m_set(dom, 5, 0x10006, 0, P2M_RAM_RO);
    assert_int_equal(flushes, 2);
    p2m_set_range(dom, 0, 0, 511, P2M_HOLE);
    assert_int_equal(flushes, 3);
    finish();
}

/* A guest that spreads its pages gets only so many tables, and gives them back. */
static void test_table_limit(void **state)
{
    unsigned mapped = 0;

    (void)state;
    start(P2M_FORMAT_NPT, true, 64, false);
    while (p2m_set(dom, (uint64_t)mapped << 18, 7, 0, P2M_RAM) == 0)
        mapped++;
    assert_true(mapped > 400 && p2m_table_pages(dom) <= 1025);
    for (unsigned i = 0; i < mapped; i++)
        assert_int_equal(p2m_set(dom, (uint64_t)i << 18, 0, 0, P2M_HOLE), 0);
    for (unsigned i = 0; i < 5000; i++) { /* one page wanders */
        gfn_t gfn = rnd(1ULL << 28);
        assert_int_equal(p2m_set(dom, gfn, 7, 0, P2M_RAM), 0);
        assert_int_equal(p2m_set(dom, gfn, 7, 0, P2M_HOLE), 0);
    }
    assert_true(p2m_table_pages(dom) <= 1025);
    finish();
}

static void test_get_page(void **state)
{
    struct page_info *ram, *pg;
    enum p2m_type t;

    (void)state;
    start(P2M_FORMAT_NPT, true, 1000, false);
    ram = domain_page_alloc(dom, 9, 0);
    assert_int_equal(p2m_set(dom, 0x200, page_to_mfn(ram), 9, P2M_RAM), 0);
    pg = p2m_get_page(dom, 0x203, true, &t);
    assert_ptr_equal(pg, ram + 3);
    assert_int_equal(pg->refs, 2);
    assert_int_equal(t, P2M_RAM);
    page_put(pg);
    assert_int_equal(p2m_change_type(dom, 0x203, P2M_RAM, P2M_RAM_RO), 0);
    assert_null(p2m_get_page(dom, 0x203, true, NULL));
    pg = p2m_get_page(dom, 0x203, false, &t);
    assert_ptr_equal(pg, ram + 3);
    page_put(pg);
    assert_null(p2m_get_page(dom, 0x100, false, &t));
    assert_int_equal(t, P2M_HOLE);
    p2m_set(dom, 0x100, page_to_mfn(ram), 0, P2M_MMIO_DIRECT);
    assert_null(p2m_get_page(dom, 0x100, false, NULL));
    /* Another's page under a RAM type is a bug elsewhere; it is not handed out. */
    p2m_set(dom, 0x101, page_to_mfn(foreign[0]), 0, P2M_RAM);
    assert_null(p2m_get_page(dom, 0x101, false, NULL));
    page_get(foreign[1], other);
    p2m_set(dom, 0x102, page_to_mfn(foreign[1]), 0, P2M_FOREIGN_RW);
    pg = p2m_get_page(dom, 0x102, true, &t);
    assert_ptr_equal(pg, foreign[1]);
    assert_int_equal(pg->refs, 3);
    page_put(pg);
    /* A write through it is seen by dirty logging. */
    p2m_logdirty_enable(dom);
    page_put(p2m_get_page(dom, 0x207, false, NULL));
    assert_int_equal(p2m_dirty_count(dom), 0);
    page_put(p2m_get_page(dom, 0x207, true, NULL));
    assert_int_equal(p2m_dirty_count(dom), 1);
    for (unsigned i = 0; i < 512; i++)
        page_put_alloc_ref(ram + i);
    finish();
}

static void test_dom0_mmio(void **state)
{
    (void)state;
    start(P2M_FORMAT_NPT, true, 1000, true);
    mmio_start = 0x1010;
    mmio_end = 0x1800;
    assert_int_equal(fault(0x1000, false), P2M_FAULT_EMULATE);
    assert_int_equal(fault(0x1020, false), P2M_FAULT_RESOLVED);
    assert_int_equal(hardware_walk(dom, 0x1020).level, 1);
    assert_int_equal(hardware_walk(dom, 0x1020).mfn, 0x1020);
    assert_false(hardware_walk(dom, 0x1021).present);
    assert_int_equal(fault(0x1456, true), P2M_FAULT_RESOLVED);
    assert_int_equal(hardware_walk(dom, 0x1456).level, 2);
    assert_int_equal(hardware_walk(dom, 0x15ff).mfn, 0x15ff);
    assert_int_equal(p2m_set(dom, 0x1700, 0, 0, P2M_MMIO_DM), 0);
    assert_int_equal(fault(0x1700, true), P2M_FAULT_EMULATE);
    assert_int_equal(fault(0x1701, true), P2M_FAULT_RESOLVED);
    assert_int_equal(hardware_walk(dom, 0x1701).level, 1);
    dom->is_dom0 = false;
    assert_int_equal(fault(0x1702, true), P2M_FAULT_EMULATE);
    finish();
}

/* VRAM: a range is watched without logging the whole domain. */
static void test_tracking(void **state)
{
    uint8_t bitmap[64];

    (void)state;
    start(P2M_FORMAT_NPT, true, 1000, false);
    p2m_set(dom, 0x400, 0x10400, 9, P2M_RAM);
    assert_int_equal(p2m_logdirty_range(dom, 0x400, 512, bitmap, true), 512);
    assert_int_equal(p2m_logdirty_range(dom, 0x400, 512, bitmap, true), 0);
    assert_int_equal(hardware_walk(dom, 0x400).level, 2); /* clean as a whole: not split */
    assert_int_equal(fault(0x433, true), P2M_FAULT_RESOLVED);
    p2m_mark_dirty(dom, 0x434);
    assert_int_equal(p2m_logdirty_range(dom, 0x400, 512, bitmap, true), 2);
    assert_int_equal(bitmap[6], 0x18);
    assert_int_equal(p2m_logdirty_range(dom, 0x400, 512, bitmap, true), 0);
    finish();
}

/* A guest writes: the number of faults that took. */
static unsigned guest_writes(gfn_t gfn)
{
    uint64_t *table = pa_to_virt(p2m_root(dom));
    unsigned faults = 0, l = 4;

    while (!hardware_walk(dom, gfn).w) {
        assert_true(++faults < 3);
        assert_int_equal(fault(gfn, true), P2M_FAULT_RESOLVED);
    }
    for (; l > 1 && !(table[gfn >> (9 * (l - 1)) & 511] & 0x80); l--)
        table = pa_to_virt(table[gfn >> (9 * (l - 1)) & 511] & 0x000ffffffffff000ULL);
    table[gfn >> (9 * (l - 1)) & 511] |= format == P2M_FORMAT_NPT ? 0x40 : 0x200;
    return faults;
}

/* Tracked by dirty bits, a page costs no fault once its large entry is split. */
static void track_by_dirty_bits(enum p2m_format f)
{
    uint8_t bitmap[64];
    struct page_info *pg;

    dirty_bits = true;
    start(f, true, 1000, false);
    assert_true(p2m_dirty_bits(dom));
    pg = domain_page_alloc(dom, 0, 0);
    p2m_set(dom, 0x400, 0x10400, 9, P2M_RAM);
    assert_int_equal(p2m_logdirty_range(dom, 0x400, 512, bitmap, true), 512);
    assert_int_equal(guest_writes(0x433), 1);
    assert_int_equal(p2m_logdirty_range(dom, 0x400, 512, bitmap, true), 1);
    assert_int_equal(bitmap[6], 8);
    for (unsigned i = 0; i < 3; i++) {
        unsigned before = flushes;
        assert_int_equal(p2m_logdirty_range(dom, 0x400, 512, bitmap, true), 0);
        assert_int_equal(flushes, before);
        assert_int_equal(guest_writes(0x433), 0);
        assert_int_equal(p2m_logdirty_range(dom, 0x400, 512, bitmap, false), 1); /* still dirty */
        tlb_fill(dom, 0x433);
        assert_int_equal(p2m_logdirty_range(dom, 0x400, 512, bitmap, true), 1);
        assert_int_equal(flushes, before + 1);
        tlb_check(dom);
    }
    p2m_mark_dirty(dom, 0x433); /* the hypervisor wrote, or a new page came */
    assert_int_equal(p2m_logdirty_range(dom, 0x400, 512, bitmap, true), 1);
    p2m_set(dom, 0x433, page_to_mfn(pg), 0, P2M_RAM);
    assert_int_equal(p2m_logdirty_range(dom, 0x400, 512, bitmap, true), 1);
    page_put(p2m_get_page(dom, 0x433, false, NULL));
    assert_int_equal(p2m_logdirty_range(dom, 0x400, 512, bitmap, true), 0);
    page_put(p2m_get_page(dom, 0x433, true, NULL));
    assert_int_equal(p2m_logdirty_range(dom, 0x400, 512, bitmap, true), 1);
    p2m_logdirty_enable(dom); /* while the whole is logged, pages are write-protected */
    assert_int_equal(guest_writes(0x433), 1);
    assert_int_equal(p2m_dirty_count(dom), 1);
    assert_int_equal(p2m_logdirty_range(dom, 0x400, 512, bitmap, true), 1);
    assert_int_equal(guest_writes(0x433), 1);
    p2m_logdirty_disable(dom);
    p2m_mark_dirty(dom, 0x434);
    assert_int_equal(p2m_logdirty_range(dom, 0x400, 512, bitmap, true), 2);
    assert_int_equal(guest_writes(0x433), 0);
    assert_int_equal(p2m_logdirty_range(dom, 0x400, 512, bitmap, true), 1);
    forgone = true;
    p2m_forgo_dirty_bits(dom); /* all that its CPUs may have written counts */
    assert_int_equal(p2m_logdirty_range(dom, 0x433, 1, bitmap, true), 1);
    assert_int_equal(guest_writes(0x433), 1);
    assert_int_equal(p2m_logdirty_range(dom, 0x433, 1, bitmap, true), 1);
    p2m_set(dom, 0x433, INVALID_MFN, 0, P2M_HOLE);
    page_put_alloc_ref(pg);
    finish();
    dirty_bits = forgone = false;
}

static void test_dirty_bits_npt(void **state)
{
    (void)state;
    track_by_dirty_bits(P2M_FORMAT_NPT);
}

static void test_dirty_bits_ept(void **state)
{
    (void)state;
    track_by_dirty_bits(P2M_FORMAT_EPT);
}

/* Without memory to split a large entry, all of it is dirty rather than none. */
static void test_dirty_without_memory(void **state)
{
    struct list all = LIST_INIT(all);
    struct page_info *pg;

    (void)state;
    start(P2M_FORMAT_NPT, true, 1000, false);
    p2m_set(dom, 0x400, 0x10400, 9, P2M_RAM);
    p2m_logdirty_enable(dom);
    while ((pg = heap_alloc(0)))
        list_add(&all, &pg->list);
    assert_int_equal(fault(0x433, true), P2M_FAULT_RESOLVED);
    assert_int_equal(p2m_dirty_count(dom), 512);
    assert_true(hardware_walk(dom, 0x433).w);
    assert_int_equal(p2m_logdirty_range(dom, 0x410, 3, NULL, true), 3);
    assert_int_equal(p2m_dirty_count(dom), 512); /* cannot be told apart: stays */
    while (!list_empty(&all)) {
        pg = list_first(&all, struct page_info, list);
        list_del(&pg->list);
        heap_free(pg, 0);
    }
    assert_int_equal(p2m_logdirty_range(dom, 0x410, 3, NULL, true), 3);
    assert_int_equal(p2m_dirty_count(dom), 509);
    p2m_logdirty_disable(dom);
    finish();
}

/* ROM that the hypervisor writes for a device model. */
static void test_mark_rom(void **state)
{
    (void)state;
    start(P2M_FORMAT_NPT, true, 1000, false);
    p2m_set(dom, 0xf0, 0x100f0, 0, P2M_RAM_RO);
    p2m_logdirty_enable(dom);
    assert_int_equal(p2m_logdirty_range(dom, 0, 512, NULL, true), 0);
    p2m_mark_dirty(dom, 0xf0);
    assert_false(hardware_walk(dom, 0xf0).w);
    assert_int_equal(p2m_logdirty_range(dom, 0, 512, NULL, true), 1);
    assert_int_equal(p2m_logdirty_range(dom, 0, 512, NULL, true), 0);
    finish();
}

/* A CPU that may fail on executable large entries: executing makes small ones. */
static void test_small_code(void **state)
{
    (void)state;
    small_code = true;
    start(P2M_FORMAT_EPT, true, 1000, false);
    assert_int_equal(p2m_set(dom, 0x40000, 0x140000, 18, P2M_RAM), 0);
    assert_int_equal(hardware_walk(dom, 0x40123).level, 3);
    assert_int_equal(fault_by(0x40123, false, true), P2M_FAULT_RESOLVED);
    assert_true(hardware_walk(dom, 0x40123).x);
    assert_int_equal(hardware_walk(dom, 0x40123).level, 1);
    assert_int_equal(hardware_walk(dom, 0x40123).mfn, 0x140123);
    assert_int_equal(hardware_walk(dom, 0x40223).level, 2);
    assert_false(hardware_walk(dom, 0x40223).x);
    finish();
    start(P2M_FORMAT_EPT, true, 1000, true); /* dom0 is trusted with more than that */
    small_code = false;
    assert_int_equal(p2m_set(dom, 0x40000, 0x140000, 18, P2M_RAM), 0);
    assert_true(hardware_walk(dom, 0x40123).x);
    finish();
}

static void test_random_small_code(void **state)
{
    small_code = true;
    test_random_ept(state);
    small_code = false;
}

/* Readers take no lock: they see an old or a new translation of their gfn, never one of another. */
static bool stop;
static void *reader(void *arg)
{
    uint64_t s = (uint64_t)arg | 1, lookups = 0;

    while (!atomic_load(&stop)) {
        gfn_t gfn;
        mfn_t mfn;

        s = s * 6364136223846793005ULL + 1442695040888963407ULL;
        gfn = 0x400 + (s >> 33) % 1024;
        mfn = p2m_get(dom, gfn, NULL, NULL);
        if (mfn != INVALID_MFN && mfn != gfn + 0x10000)
            abort();
        lookups++;
    }
    return (void *)lookups;
}

static void test_lockless_readers(void **state)
{
    pthread_t threads[3];
    uint64_t lookups = 0;

    (void)state;
    start(P2M_FORMAT_NPT, true, 1000, false);
    atomic_store(&stop, false);
    for (uint64_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reader, (void *)(i + 1)), 0);
    for (unsigned n = 0; n < 40000; n++) {
        gfn_t gfn = 0x400 + rnd(1024), base = gfn & ~511ULL;

        /* A table comes and goes, and is at once used again, full of other frames, or higher up. */
        p2m_set(dom, gfn, gfn + 0x10000, 0, P2M_RAM_RO);
        if (rnd(4))
            p2m_set(dom, base, base + 0x10000, 9, P2M_RAM);
        else
            p2m_set(dom, base, 0, 9, P2M_HOLE);
        p2m_set(dom, 0x80000, 0x5000000, 9, P2M_RAM);
        p2m_set(dom, 0x80000 + gfn % 512, 0x6000000 + gfn, 0, P2M_RAM);
        if (rnd(4) == 0) {
            p2m_set(dom, 0x4000000 + (base << 9), base << 9, 9, P2M_RAM);
            p2m_set(dom, 0x4000000 + (base << 9), 0, 9, P2M_HOLE);
        }
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 3; i++) {
        void *n;
        pthread_join(threads[i], &n);
        lookups += (uint64_t)n;
    }
    assert_true(lookups > 1000);
    finish();
}

/* The same without chance: between any two loads of a lookup, its table goes and is used again. */
static unsigned hook_countdown;
static void reuse_tables(void)
{
    if (hook_countdown--)
        return;
    walk_hook = NULL;
    p2m_set(dom, 0x400, 0x10400, 9, P2M_RAM);
    p2m_set(dom, 0x80001, 0x6000000, 0, P2M_RAM); /* splits: the table is full of other frames */
}

static void test_reuse_during_lookup(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 12; k++) {
        start(P2M_FORMAT_NPT, true, 1000, false);
        p2m_set(dom, 0x80000, 0x5000000, 9, P2M_RAM);
        p2m_set(dom, 0x403, 0x10403, 0, P2M_RAM);
        hook_countdown = k;
        walk_hook = reuse_tables;
        assert_int_equal(p2m_get(dom, 0x403, NULL, NULL), 0x10403);
        assert_true(!walk_hook == (k < 9)); /* seq, then an entry and seq on four levels */
        walk_hook = NULL;
        finish();
    }
}

/* Another domain's page is unmapped (and might be freed) during p2m_get_page. */
static void unmap_foreign(void)
{
    if (hook_countdown--)
        return;
    walk_hook = NULL;
    p2m_set(dom, 0x403, INVALID_MFN, 0, P2M_HOLE);
}

static void test_unmap_during_get_page(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 18; k++) {
        start(P2M_FORMAT_NPT, true, 1000, false);
        page_get(foreign[0], other);
        p2m_set(dom, 0x403, page_to_mfn(foreign[0]), 0, P2M_FOREIGN_RW);
        hook_countdown = k;
        walk_hook = unmap_foreign;
        if (k < 17) /* the last step: after the last look, it was mapped all the time */
            assert_null(p2m_get_page(dom, 0x403, true, NULL));
        assert_int_equal(foreign[0]->refs, k < 17 ? 1 : 2);
        walk_hook = NULL;
        finish();
    }
}

static int setup(void **state)
{
    (void)state;
    host_test_ram =
        mmap(NULL, FRAMES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(host_test_ram, MAP_FAILED);
    frame_table = calloc(FRAMES, sizeof(*frame_table));
    max_mfn = FRAMES;
    heap_add(1, FRAMES);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raw_entries),
        cmocka_unit_test(test_dom0_memory_type),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_identity_range),
        cmocka_unit_test(test_flushes),
        cmocka_unit_test(test_table_limit),
        cmocka_unit_test(test_get_page),
        cmocka_unit_test(test_dom0_mmio),
        cmocka_unit_test(test_tracking),
        cmocka_unit_test(test_dirty_bits_npt),
        cmocka_unit_test(test_dirty_bits_ept),
        cmocka_unit_test(test_dirty_without_memory),
        cmocka_unit_test(test_mark_rom),
        cmocka_unit_test(test_random_npt),
        cmocka_unit_test(test_random_ept),
        cmocka_unit_test(test_random_ept_dirty_bits),
        cmocka_unit_test(test_random_no_1g),
        cmocka_unit_test(test_small_code),
        cmocka_unit_test(test_random_small_code),
        cmocka_unit_test(test_lockless_readers),
        cmocka_unit_test(test_reuse_during_lookup),
        cmocka_unit_test(test_unmap_during_get_page),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
