/* sources: vmm/npt/gwalk.c */
/* test_gwalk.c: the guest page walker against hand-built tables in every paging mode, and every
 * combination of rights against the manuals' rules written as a list of what faults.
 */
#include "test_walk_ram.h"

#define AC     BIT(18)

#define F_P    1u
#define F_W    2u
#define F_U    4u
#define F_RSVD 8u
#define F_I    16u

#define E_P    1ULL
#define E_RW   2ULL
#define E_US   4ULL
#define E_A    0x20ULL
#define E_D    0x40ULL
#define E_PS   0x80ULL
#define E_NX   BIT(63)
#define E_ALL  (E_P | E_RW | E_US)

/* ---- what gwalk.c needs of the p2m ---- */

static bool read_only[FRAMES];
static unsigned dirty_marks;
static void (*before_write)(void); /* another processor, between the read and the update */

struct page_info *p2m_get_page(struct domain *d, gfn_t gfn, bool write, enum p2m_type *t)
{
    assert_ptr_equal(d, dom);
    assert_null(t);
    if (gfn >= FRAMES || (write && read_only[gfn]))
        return NULL;
    if (write && before_write)
        before_write();
    gets++;
    return &frame_table[gfn];
}
bool p2m_logdirty_enabled(const struct domain *d)
{
    (void)d;
    return true;
}
void p2m_mark_dirty(struct domain *d, gfn_t gfn)
{
    (void)d;
    assert_true(gfn < FRAMES);
    dirty_marks++;
}

/* ---- guest tables ---- */

static uint64_t *q(paddr_t gpa)
{
    return (uint64_t *)(host_test_ram + gpa);
}
static uint32_t *l(paddr_t gpa)
{
    return (uint32_t *)(host_test_ram + gpa);
}

static int reset(void **state)
{
    (void)state;
    memset(host_test_ram, 0, FRAMES * PAGE_SIZE);
    memset(read_only, 0, sizeof(read_only));
    before_write = NULL;
    gets = puts_ = dirty_marks = 0;
    p2m_limits.gpa_bits = 40;
    return 0;
}

static const struct gwalk_mode mode_32 = {
    .cr0 = CR0_PG | CR0_PE | CR0_WP, .cr3 = 0x1018, .cr4 = CR4_PSE};
static const struct gwalk_mode mode_pae = {
    .cr0 = CR0_PG | CR0_PE | CR0_WP, .cr3 = 0x1fe0 | 0x1f, .cr4 = CR4_PAE, .efer = EFER_NXE};
static const struct gwalk_mode mode_long = {.cr0 = CR0_PG | CR0_PE | CR0_WP,
                                            .cr3 = 0x1fff,
                                            .cr4 = CR4_PAE,
                                            .efer = EFER_NXE | EFER_LMA | EFER_LME};

static void expect_gpa(const struct gwalk_mode *m, uint64_t linear, unsigned access, paddr_t want)
{
    paddr_t gpa = ~0ULL;
    uint32_t code = 0x1234;

    assert_int_equal(guest_walk(dom, m, linear, access, &gpa, &code), 0);
    assert_int_equal(gpa, want);
    assert_int_equal(code, 0x1234);
    assert_int_equal(gets, puts_);
}

static void expect_fault(const struct gwalk_mode *m, uint64_t linear, unsigned access,
                         uint32_t want)
{
    paddr_t gpa = 0x5555;
    uint32_t code = ~0u;

    assert_int_equal(guest_walk(dom, m, linear, access, &gpa, &code), -EFAULT);
    assert_int_equal(code, want);
    assert_int_equal(gpa, 0x5555);
    assert_int_equal(gets, puts_);
}

static void test_no_paging(void **state)
{
    struct gwalk_mode m = mode_long;

    (void)state;
    m.cr0 &= ~CR0_PG;
    expect_gpa(&m, 0x123456789, GWALK_WRITE, 0x23456789);
    assert_int_equal(gets, 0);
}

static void test_32bit(void **state)
{
    struct gwalk_mode m = mode_32;

    (void)state;
    *l(0x1000 + 4 * 0x48) = 0x2000 | E_ALL; /* 0x12000000.. */
    *l(0x2000 + 4 * 0x345) = 0xabcde000 | E_ALL;
    expect_gpa(&m, 0x12345678, 0, 0xabcde678);
    assert_int_equal(*l(0x1000 + 4 * 0x48), 0x2000 | E_ALL | E_A);
    assert_int_equal(*l(0x2000 + 4 * 0x345), 0xabcde000 | E_ALL | E_A);
    expect_gpa(&m, 0xffffffff12345678, GWALK_WRITE, 0xabcde678); /* linear addresses wrap */
    assert_int_equal(*l(0x2000 + 4 * 0x345), 0xabcde000 | E_ALL | E_A | E_D);
    assert_int_equal(*l(0x1000 + 4 * 0x48), 0x2000 | E_ALL | E_A); /* no D above the leaf */
    assert_int_equal(dirty_marks, 3);
    expect_fault(&m, 0x12344000, GWALK_WRITE, F_W);
    expect_fault(&m, 0x13000000, GWALK_USER, F_U);
    expect_fault(&m, 0x13000000, GWALK_FETCH, 0); /* no I/D bit without NX or SMEP */
    m.cr4 |= CR4_SMEP;
    expect_fault(&m, 0x13000000, GWALK_FETCH | GWALK_USER, F_I | F_U);
}

static void test_pse(void **state)
{
    struct gwalk_mode m = mode_32;

    (void)state;
    *l(0x1000 + 4 * 0x3ff) = 0x12400000 | 0x5a << 13 | E_PS | E_ALL;
    expect_gpa(&m, 0xffc12345, GWALK_WRITE, 0x5a12412345);
    assert_int_equal(*l(0x1ffc), 0x12400000 | 0x5a << 13 | E_PS | E_ALL | E_A | E_D);
    *l(0x1ffc) |= BIT(21);
    expect_fault(&m, 0xffc12345, 0, F_P | F_RSVD);
    *l(0x1ffc) &= ~BIT(21);
    p2m_limits.gpa_bits = 38; /* 0x5a needs 39 bits */
    expect_fault(&m, 0xffc12345, GWALK_USER, F_P | F_RSVD | F_U);
    p2m_limits.gpa_bits = 39;
    expect_gpa(&m, 0xffc12345, 0, 0x5a12412345);
    m.cr4 = 0; /* without PSE it is a table at 0x124b4000, where nothing is */
    expect_fault(&m, 0xffc12345, 0, 0);
    *l(0x1ffc) = 0x3000 | E_PS | E_ALL;
    *l(0x3000 + 4 * 0x12) = 0x7000 | E_PS | E_ALL; /* PAT there */
    expect_gpa(&m, 0xffc12345, 0, 0x7345);
}

static void test_pae(void **state)
{
    struct gwalk_mode m = mode_pae;

    (void)state;
    *q(0x1fe0 + 8 * 2) = 0x2000 | E_P; /* 0x80000000.. */
    *q(0x2000 + 8 * 0x91) = 0x3000 | E_ALL;
    *q(0x3000 + 8 * 0x145) = 0xabcdef000 | E_ALL;
    *q(0x2000 + 8 * 0x92) = 0xfedc600000 | E_PS | E_ALL;
    expect_gpa(&m, 0x92345678, GWALK_USER | GWALK_WRITE, 0xabcdef678);
    assert_int_equal(*q(0x1fe0 + 8 * 2), 0x2000 | E_P); /* no A there */
    assert_int_equal(*q(0x2000 + 8 * 0x91), 0x3000 | E_ALL | E_A);
    assert_int_equal(*q(0x3000 + 8 * 0x145), 0xabcdef000 | E_ALL | E_A | E_D);
    expect_gpa(&m, 0x92512345, 0, 0xfedc712345);
    /* The emulator sets A in a directory pointer; other bits do not fault on a walk either. */
    *q(0x1fe0 + 8 * 2) |= E_A | E_RW | E_US | E_NX | E_PS | BIT(52);
    expect_gpa(&m, 0x92345678, GWALK_FETCH, 0xabcdef678);
    *q(0x3000 + 8 * 0x145) |= BIT(52); /* reserved here, ignored in long mode */
    expect_fault(&m, 0x92345678, 0, F_P | F_RSVD);
    *q(0x3000 + 8 * 0x145) ^= BIT(52) | BIT(40);
    expect_fault(&m, 0x92345678, GWALK_FETCH, F_P | F_RSVD | F_I);
    *q(0x2000 + 8 * 0x92) |= BIT(13);
    expect_fault(&m, 0x92512345, 0, F_P | F_RSVD);
    expect_fault(&m, 0x12345678, 0, 0);
}

static void build_long(uint64_t rights)
{
    *q(0x1000 + 8 * 0x1ff) = 0x2000 | rights; /* 0xffffff8000000000.. */
    *q(0x2000 + 8 * 0x1fe) = 0x3000 | rights; /* 0xffffffff80000000.. */
    *q(0x3000 + 8 * 8) = 0x4000 | rights;     /* +0x1000000 */
    *q(0x4000 + 8 * 5) = 0xabc000 | rights;
}

static void test_long(void **state)
{
    struct gwalk_mode m = mode_long;

    (void)state;
    build_long(E_ALL | BIT(52) | BIT(62)); /* software's bits */
    expect_gpa(&m, 0xffffffff81005678, 0, 0xabc678);
    for (paddr_t gpa = 0; gpa < FRAMES * PAGE_SIZE; gpa += 8)
        assert_true(*q(gpa) == 0 || (*q(gpa) & (E_A | E_D)) == E_A);
    expect_gpa(&m, 0xffffffff81005678, GWALK_WRITE, 0xabc678);
    assert_int_equal(*q(0x4028) & (E_A | E_D), E_A | E_D);
    gets = puts_ = 0;
    expect_gpa(&m, 0xffffffff81005678, GWALK_WRITE, 0xabc678);
    assert_int_equal(gets, 4); /* nothing to set: four reads */

    *q(0x3000 + 8 * 9) = 0x7fff200000 | E_PS | BIT(12) | E_ALL; /* PAT */
    expect_gpa(&m, 0xffffffff813fffff, GWALK_WRITE, 0x7fff3fffff);
    assert_int_equal(*q(0x3048) & (E_A | E_D), E_A | E_D);
    *q(0x2000 + 8 * 0x1ff) = 0x7fc0000000 | E_PS | BIT(12) | E_ALL;
    expect_gpa(&m, 0xfffffffffedcba98, 0, 0x7ffedcba98);

    expect_fault(&m, 0xffffffff81006000, GWALK_WRITE | GWALK_USER, F_W | F_U);
    expect_fault(&m, 0, GWALK_FETCH, F_I);
}

static void test_long_reserved(void **state)
{
    static const struct {
        paddr_t entry;
        uint64_t bit;
        bool leaf_ps; /* sets PS, too */
        bool reserved;
    } cases[] = {
        {0x1ff8, BIT(7), false, true},  {0x1ff8, BIT(40), false, true},
        {0x1ff8, BIT(51), false, true}, {0x1ff8, BIT(8), false, false},
        {0x2ff0, BIT(40), false, true}, {0x3040, BIT(45), false, true},
        {0x4028, BIT(40), false, true}, {0x4028, BIT(39), false, false},
        {0x4028, BIT(7), false, false}, {0x3040, BIT(13), true, true},
        {0x3040, BIT(20), true, true},  {0x3040, BIT(12), true, false},
        {0x3040, BIT(21), true, false}, {0x2ff0, BIT(13), true, true},
        {0x2ff0, BIT(29), true, true},  {0x2ff0, BIT(30), true, false},
        {0x2ff0, BIT(12), true, false},
    };
    struct gwalk_mode m = mode_long;
    paddr_t gpa;
    uint32_t code;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        int err;

        memset(host_test_ram, 0, FRAMES * PAGE_SIZE);
        build_long(E_ALL);
        if (cases[i].leaf_ps)
            *q(cases[i].entry) = E_PS | E_ALL;
        *q(cases[i].entry) |= cases[i].bit;
        err = guest_walk(dom, &m, 0xffffffff81005678, GWALK_USER, &gpa, &code);
        assert_int_equal(err, cases[i].reserved ? -EFAULT : 0);
        if (err)
            assert_int_equal(code, F_P | F_RSVD | F_U);
    }
    build_long(E_ALL | E_NX); /* NX is reserved when it is off */
    *q(0x3040) &= ~E_NX;
    m.efer &= ~EFER_NXE;
    expect_fault(&m, 0xffffffff81005678, GWALK_FETCH, F_P | F_RSVD);
    p2m_limits.gpa_bits = 52;
    build_long(E_ALL);
    *q(0x4028) |= BIT(51);
    expect_gpa(&m, 0xffffffff81005678, 0, 0x8000000abc678);
}

/* Rights of the upper and of the lower level, control bits and access, all combinations. */
static bool may_access(const struct gwalk_mode *m, uint64_t upper, uint64_t lower, unsigned access)
{
    bool user_page = upper & lower & E_US, writable = upper & lower & E_RW;
    bool nx = (upper | lower) & E_NX;

    if ((access & GWALK_USER) && !user_page)
        return false;
    if ((access & GWALK_USER) && (access & GWALK_WRITE) && !writable)
        return false;
    if (!(access & GWALK_USER) && (access & GWALK_WRITE) && !writable && (m->cr0 & CR0_WP))
        return false;
    if ((access & GWALK_FETCH) && nx && (m->efer & EFER_NXE))
        return false;
    if ((access & GWALK_FETCH) && !(access & GWALK_USER) && user_page && (m->cr4 & CR4_SMEP))
        return false;
    if (!(access & (GWALK_FETCH | GWALK_USER | GWALK_IMPLICIT)) && user_page &&
        (m->cr4 & CR4_SMAP) && !(m->rflags & AC))
        return false;
    return true;
}

static uint64_t rights_of(unsigned bits)
{
    return E_P | (bits & 1 ? E_RW : 0) | (bits & 2 ? E_US : 0) | (bits & 4 ? E_NX : 0);
}

static void check_rights(const struct gwalk_mode *base, unsigned combination)
{
    static const unsigned accesses[] = {0, GWALK_WRITE, GWALK_FETCH};
    struct gwalk_mode m = *base;
    bool is_32 = !(m.cr4 & CR4_PAE);
    uint64_t upper = rights_of(combination & 7), lower = rights_of(combination >> 3 & 7);
    unsigned access = accesses[(combination >> 6) % 3];
    unsigned control = combination / (64 * 3);
    uint32_t want;

    if (is_32)
        upper &= ~E_NX, lower &= ~E_NX;
    access |= (control & 1 ? GWALK_USER : 0) | (control & 2 ? GWALK_IMPLICIT : 0);
    m.cr0 ^= control & 4 ? CR0_WP : 0;
    m.cr4 |= (control & 8 ? CR4_SMEP : 0) | (control & 16 ? CR4_SMAP : 0);
    m.rflags = control & 32 ? AC : 0;

    memset(host_test_ram, 0, 5 * PAGE_SIZE);
    if (is_32) {
        *l(0x1000) = (uint32_t)(0x2000 | upper);
        *l(0x2000) = (uint32_t)(0x9000 | lower);
    } else if (m.efer & EFER_LMA) { /* the middle levels allow everything */
        *q(0x1000) = 0x2000 | upper;
        *q(0x2000) = 0x3000 | E_ALL;
        *q(0x3000) = 0x4000 | E_ALL;
        *q(0x4000) = 0x9000 | lower;
    } else {
        *q(0x1fe0) = 0x2000 | E_P;
        *q(0x2000) = 0x3000 | upper;
        *q(0x3000) = 0x9000 | lower;
    }
    if (may_access(&m, upper, lower, access)) {
        expect_gpa(&m, 0x123, access, 0x9123);
        return;
    }
    want = F_P | (access & GWALK_WRITE ? F_W : 0) | (access & GWALK_USER ? F_U : 0);
    if ((access & GWALK_FETCH) && (!is_32 || (m.cr4 & CR4_SMEP)))
        want |= F_I;
    expect_fault(&m, 0x123, access, want);
    assert_int_equal(*l(is_32 ? 0x2000 : m.efer & EFER_LMA ? 0x4000 : 0x3000) & (E_A | E_D), 0);
}

static void test_rights(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 64 * 3 * 64; c++) {
        check_rights(&mode_32, c);
        check_rights(&mode_pae, c);
        check_rights(&mode_long, c);
    }
}

/* Another processor changes an entry between our read and our update. */
static void swap_leaf(void)
{
    before_write = NULL;
    *q(0x4028) = 0xdef000 | E_ALL;
}
static void unmap_leaf(void)
{
    *q(0x4028) = 0;
}
static void flip_leaf(void)
{
    *q(0x4028) = (*q(0x4028) ^ 0x1000) & ~(E_A | E_D);
}

static void test_races(void **state)
{
    struct gwalk_mode m = mode_long;

    (void)state;
    build_long(E_ALL);
    before_write = swap_leaf;
    expect_gpa(&m, 0xffffffff81005678, GWALK_WRITE, 0xdef678);
    assert_int_equal(*q(0x4028), 0xdef000 | E_ALL | E_A | E_D);
    build_long(E_ALL);
    before_write = unmap_leaf;
    expect_fault(&m, 0xffffffff81005678, GWALK_WRITE, F_W);
    assert_int_equal(*q(0x4028), 0); /* no bit was set in what is no entry any more */
    build_long(E_ALL | E_A);
    before_write = flip_leaf; /* for ever: the guest gets a fault, and we get away */
    expect_fault(&m, 0xffffffff81005678, GWALK_WRITE, F_W);
}

/* Tables in ROM are walked; the bits cannot be set. Tables in holes are not there. */
static void test_odd_tables(void **state)
{
    struct gwalk_mode m = mode_long;

    (void)state;
    build_long(E_ALL);
    read_only[4] = true;
    expect_gpa(&m, 0xffffffff81005678, GWALK_WRITE, 0xabc678);
    assert_int_equal(*q(0x4028), 0xabc000 | E_ALL);
    *q(0x3040) = FRAMES << 12 | E_ALL;
    expect_fault(&m, 0xffffffff81005678, GWALK_WRITE, F_W);
    m.cr3 = FRAMES << 12;
    expect_fault(&m, 0xffffffff81005678, 0, 0);
}

/* No entry whatever makes it read outside the guest's memory or loop. */
static void test_garbage(void **state)
{
    static const struct gwalk_mode *modes[] = {&mode_32, &mode_pae, &mode_long};
    uint64_t s = 12345, found = 0;

    (void)state;
    for (unsigned n = 0; n < 300000; n++) {
        struct gwalk_mode m = *modes[n % 3];
        paddr_t gpa, at;
        uint32_t code;

        s = s * 6364136223846793005ULL + 1442695040888963407ULL;
        at = (s >> 20) % (FRAMES * 512);
        *q(at * 8) = ((s >> 33) % FRAMES) << 12 | (s >> 50 & 0xff) | (n % 8 ? 1 : 0) |
                     (n % 50 ? 0 : s << 13);
        m.cr3 = (s >> 40) % (FRAMES + 1) << 12;
        found += !guest_walk(dom, &m, s ^ s << 17, (unsigned)(s >> 60), &gpa, &code);
        assert_int_equal(gets, puts_);
    }
    assert_true(found > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_no_paging, reset),
        cmocka_unit_test_setup(test_32bit, reset),
        cmocka_unit_test_setup(test_pse, reset),
        cmocka_unit_test_setup(test_pae, reset),
        cmocka_unit_test_setup(test_long, reset),
        cmocka_unit_test_setup(test_long_reserved, reset),
        cmocka_unit_test_setup(test_rights, reset),
        cmocka_unit_test_setup(test_races, reset),
        cmocka_unit_test_setup(test_odd_tables, reset),
        cmocka_unit_test_setup(test_garbage, reset),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
