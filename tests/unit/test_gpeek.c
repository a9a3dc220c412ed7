/* sources: vmm/npt/gpeek.c vmm/npt/gwalk.c */
/* test_gpeek.c: short reads without references against the walker that is their specification, over
 * tables that change all the time, and against a p2m that takes pages away.
 */
#include "test_walk_ram.h"

static struct p2m p2m;
static mfn_t map[FRAMES]; /* by gfn; FRAMES: a hole */
static enum p2m_type type[FRAMES];
static bool change_under_way; /* another processor changes the p2m while we look */

struct page_info *p2m_get_page(struct domain *d, gfn_t gfn, bool write, enum p2m_type *t)
{
    (void)d, (void)write;
    if (gfn >= FRAMES || map[gfn] == FRAMES)
        return NULL;
    if (t)
        *t = type[gfn];
    if (change_under_way)
        p2m.generation++;
    gets++;
    return &frame_table[map[gfn]];
}
bool p2m_logdirty_enabled(const struct domain *d)
{
    (void)d;
    return false;
}
void p2m_mark_dirty(struct domain *d, gfn_t gfn)
{
    (void)d, (void)gfn;
}

static uint64_t *q(paddr_t gpa)
{
    return (uint64_t *)(host_test_ram + (map[gpa >> PAGE_SHIFT] << PAGE_SHIFT) +
                        (gpa & ~PAGE_MASK));
}

static int reset(void **state)
{
    (void)state;
    memset(host_test_ram, 0, FRAMES * PAGE_SIZE);
    dom->p2m = &p2m;
    memset(&vcpu->peek, 0, sizeof(vcpu->peek));
    p2m.generation = 1;
    change_under_way = false;
    for (unsigned i = 0; i < FRAMES; i++) {
        map[i] = i;
        type[i] = P2M_RAM;
    }
    gets = puts_ = 0;
    return 0;
}

static const struct gwalk_mode mode_flat = {.cr0 = CR0_PE};
static const struct gwalk_mode mode_32 = {.cr0 = CR0_PG | CR0_PE, .cr4 = CR4_PSE};
static const struct gwalk_mode mode_32_small = {.cr0 = CR0_PG | CR0_PE};
static const struct gwalk_mode mode_pae = {
    .cr0 = CR0_PG | CR0_PE, .cr4 = CR4_PAE, .efer = EFER_NXE};
static const struct gwalk_mode mode_long = {
    .cr0 = CR0_PG | CR0_PE, .cr3 = 0x1000, .cr4 = CR4_PAE, .efer = EFER_NXE | EFER_LMA | EFER_LME};
static const struct gwalk_mode mode_long_nx = {
    .cr0 = CR0_PG | CR0_PE, .cr3 = 0x1000, .cr4 = CR4_PAE, .efer = EFER_LMA | EFER_LME};

/* 4-level tables in frames 1 to 4 that map linear 0 to frame 10. */
static void map_one(void)
{
    *q(0x1000) = 0x2023;
    *q(0x2000) = 0x3023;
    *q(0x3000) = 0x4023;
    *q(0x4000) = 0xa063;
    memcpy(q(0xa000), "0123456789abcdef", 16);
}

static void test_reads(void **state)
{
    char buf[16] = "";

    (void)state;
    map_one();
    assert_true(guest_peek(vcpu, &mode_long, 3, buf, 5));
    assert_memory_equal(buf, "34567", 5);
    assert_int_equal(gets, 5); /* four tables and the page */
    assert_true(guest_peek(vcpu, &mode_long, 0, buf, 16));
    assert_memory_equal(buf, "0123456789abcdef", 16);
    assert_int_equal(gets, 5); /* all remembered */
    assert_int_equal(gets, puts_);
    assert_true(guest_peek(vcpu, &mode_flat, 0xa001, buf, 2));
    assert_memory_equal(buf, "12", 2);
    assert_true(guest_peek(vcpu, &mode_flat, 0x100000000a001ULL, buf, 2)); /* 32 bits count */
    assert_false(guest_peek(vcpu, &mode_long, 0xffd, buf, 4));             /* crosses a page */
    assert_false(guest_peek(vcpu, &mode_long, 0x1000, buf, 4));
    assert_false(guest_peek(vcpu, &mode_long, 0x1000000000000ULL, buf, 4)); /* not canonical */
}

static void test_tables_change(void **state)
{
    char buf[2];

    (void)state;
    map_one();
    assert_true(guest_peek(vcpu, &mode_long, 0, buf, 2));
    *q(0x4000) = 0xb063;
    assert_true(guest_peek(vcpu, &mode_long, 0, buf, 2));
    assert_memory_equal(buf, "\0\0", 2);
    *q(0x2000) = 0x3022;
    assert_false(guest_peek(vcpu, &mode_long, 0, buf, 2));
    *q(0x2000) = 0x3023;
    assert_true(guest_peek(vcpu, &mode_long, 0, buf, 2));
    *q(0x1000) = 0x2003; /* not accessed yet: the walker sets that bit */
    assert_false(guest_peek(vcpu, &mode_long, 0, buf, 2));
}

static void test_p2m_changes(void **state)
{
    char buf[2];

    (void)state;
    map_one();
    assert_true(guest_peek(vcpu, &mode_long, 0, buf, 2));
    memcpy(host_test_ram + 0x20000, "xy", 2);
    map[10] = 32;
    p2m.generation++;
    assert_true(guest_peek(vcpu, &mode_long, 0, buf, 2));
    assert_memory_equal(buf, "xy", 2);
    map[3] = FRAMES;
    p2m.generation++;
    assert_false(guest_peek(vcpu, &mode_long, 0, buf, 2));
    map[3] = 3;
    type[10] = P2M_GRANT_RW; /* another's page may go at any time */
    p2m.generation++;
    assert_false(guest_peek(vcpu, &mode_long, 0, buf, 2));
    type[10] = P2M_RAM;
    change_under_way = true;
    p2m.generation++;
    assert_false(guest_peek(vcpu, &mode_long, 0, buf, 2));
    change_under_way = false;
    assert_true(guest_peek(vcpu, &mode_long, 0, buf, 2));
    assert_int_equal(gets, puts_);
}

/* Whatever it reads, the walker finds at the same place. */
static void test_as_the_walker(void **state)
{
    static const struct gwalk_mode *modes[] = {&mode_32,   &mode_32_small, &mode_pae,
                                               &mode_long, &mode_long_nx,  &mode_flat};
    uint64_t s = 777, found = 0, linear[6] = {0};

    (void)state;
    for (unsigned n = 0; n < 400000; n++) {
        struct gwalk_mode m = *modes[n % 6];
        uint64_t got, at;
        uint32_t code;
        paddr_t gpa;

        s = s * 6364136223846793005ULL + 1442695040888963407ULL;
        at = (s >> 20) % (FRAMES * 512);
        if (n % 3 == 0) /* changed often, but not between any two looks */
            *q(at * 8) = ((s >> 33) % FRAMES) << 12 | (s >> 50 & 0xff) | (n % 8 ? 0x21 : 0) |
                         (n % 50 ? 0 : s << 13);
        if (n % 5000 == 0) {
            map[s >> 40 & 31] = s >> 46 & 31;
            p2m.generation++;
        }
        if (n % 64 < 6)
            linear[n % 6] = (s ^ s << 17) & 0x80403fffULL;
        m.cr3 = (n >> 9) % FRAMES << 12;
        if (!guest_peek(vcpu, &m, linear[n % 6], &got, 8))
            continue;
        found++;
        assert_int_equal(guest_walk(dom, &m, linear[n % 6], 0, &gpa, &code), 0);
        assert_memory_equal(&got, (char *)q(gpa & PAGE_MASK) + (gpa & ~PAGE_MASK), 8);
        assert_int_equal(gets, puts_);
    }
    assert_true(found > 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_reads, reset),
        cmocka_unit_test_setup(test_tables_change, reset),
        cmocka_unit_test_setup(test_p2m_changes, reset),
        cmocka_unit_test_setup(test_as_the_walker, reset),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
