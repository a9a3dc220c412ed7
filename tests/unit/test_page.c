/* sources: vmm/core/heap.c vmm/core/page.c */
/* test_page.c: owners and references of frames, against a model that counts them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "core/errno.h"
#include "core/string.h"
#include "core/print.h"
#include "domain/domain.h"

#define FRAMES 8192

char *host_test_ram;
struct cpu host_test_cpu;
static jmp_buf panic_jmp;
static bool panic_expected;
static int preempt_after = -1; /* calls of hypercall_preempt_check until it says yes */

void panic(const char *fmt, ...)
{
    va_list ap;

    if (panic_expected)
        longjmp(panic_jmp, 1);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    abort();
}

#define expect_panic(statement)                                                                    \
    do {                                                                                           \
        panic_expected = true;                                                                     \
        if (!setjmp(panic_jmp)) {                                                                  \
            statement;                                                                             \
            fail_msg("no panic: %s", #statement);                                                  \
        }                                                                                          \
        panic_expected = false;                                                                    \
    } while (0)

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
    assert_false(spin_is_locked(&d->page_lock));
    assert_true(d->refs-- > 1); /* the test has one */
}

static uint64_t random_state = 88172645463325252ULL;
static uint64_t rnd(uint64_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % n;
}

static int setup(void **state)
{
    (void)state;
    host_test_ram =
        mmap(NULL, FRAMES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(host_test_ram, MAP_FAILED);
    frame_table = calloc(FRAMES, sizeof(*frame_table));
    max_mfn = FRAMES;
    heap_add(64, FRAMES);
    return 0;
}

#define DOMAIN_ORDER 4
STATIC_ASSERT(sizeof(struct domain) <= PAGE_SIZE << DOMAIN_ORDER);

static struct domain *new_domain(uint64_t max_pages)
{
    struct domain *d = pages_alloc(DOMAIN_ORDER);

    d->refs = 1;
    d->max_pages = max_pages;
    list_init(&d->page_list);
    list_init(&d->xenpage_list);
    return d;
}

static void free_domain(struct domain *d)
{
    assert_int_equal(d->refs, 1);
    assert_int_equal(d->tot_pages, 0);
    assert_true(list_empty(&d->page_list) && list_empty(&d->xenpage_list));
    memset(d, 0, sizeof(*d));
    pages_free(d, DOMAIN_ORDER);
}

static bool is_zero(const struct page_info *pg)
{
    const uint64_t *w = page_to_virt(pg);

    for (unsigned i = 0; i < 512; i++)
        if (w[i])
            return false;
    return true;
}

static unsigned list_length(const struct list *l)
{
    unsigned n = 0;

    for (const struct list *e = l->next; e != l; e = e->next)
        n++;
    return n;
}

static void test_one_page(void **state)
{
    struct domain *d = new_domain(10), *other = new_domain(10);
    struct page_info *pg = domain_page_alloc(d, 0, 0), *own = heap_alloc(0);
    uint64_t free;

    (void)state;
    assert_non_null(pg);
    assert_ptr_equal(page_owner(pg), d);
    assert_null(page_owner(own));
    assert_int_equal(pg->refs, 1);
    assert_int_equal(d->tot_pages, 1);
    assert_int_equal(d->refs, 2);
    assert_true(is_zero(pg));
    memset(page_to_virt(pg), 0xaa, PAGE_SIZE);

    assert_false(page_get(pg, other));
    assert_int_equal(pg->refs, 1);
    assert_false(page_get(own, NULL)); /* the hypervisor's own has none to begin with */
    assert_true(page_get(pg, d));
    assert_true(page_get(pg, NULL));
    assert_int_equal(pg->refs, 3);

    free = heap_free_pages();
    assert_true(page_put_alloc_ref(pg));
    assert_false(page_put_alloc_ref(pg));
    assert_int_equal(pg->refs, 2);
    page_put(pg);
    assert_ptr_equal(page_owner(pg), d);
    assert_int_equal(d->tot_pages, 1);
    page_put(pg);
    assert_int_equal(heap_free_pages(), free + 1);
    assert_int_equal(d->tot_pages, 0);
    assert_int_equal(d->refs, 1);
    assert_null(page_owner(pg));
    assert_true(is_zero(pg)); /* scrubbed when freed, not when somebody else gets it */
    assert_false(page_get(pg, NULL));
    assert_false(page_get(pg, d));
    expect_panic(page_put(pg));
    pg->refs = 0;
    heap_free(own, 0);
    free_domain(d);
    free_domain(other);
}

static void test_last_put_needs_alloc_ref_given_up(void **state)
{
    struct domain *d = new_domain(10);
    struct page_info *pg = domain_page_alloc(d, 0, 0);

    (void)state;
    expect_panic(page_put(pg));
    pg->refs = 1;
    page_put_alloc_ref(pg);
    free_domain(d);
}

static void test_saturation(void **state)
{
    struct domain *d = new_domain(1);
    struct page_info *pg = domain_page_alloc(d, 0, 0);

    (void)state;
    pg->refs = 0x7ffffffe;
    assert_true(page_get(pg, d));
    assert_false(page_get(pg, d));
    assert_int_equal(pg->refs, 0x7fffffff);
    pg->refs = 1;
    page_put_alloc_ref(pg);
    free_domain(d);
}

static void test_limits(void **state)
{
    struct domain *d = new_domain(600);
    struct page_info *pg = domain_page_alloc(d, 9, 4096), *one;
    uint64_t free;

    (void)state;
    assert_true(page_to_mfn(pg) + 512 <= 4096);
    assert_int_equal(d->tot_pages, 512);
    for (unsigned i = 0; i < 512; i++) {
        assert_ptr_equal(page_owner(pg + i), d);
        assert_int_equal(pg[i].refs, 1);
    }
    free = heap_free_pages();
    assert_null(domain_page_alloc(d, 9, 0)); /* over max_pages */
    one = domain_page_alloc(d, 0, 0);
    assert_non_null(one);
    d->max_pages = 10; /* the tools lowered it below what is there */
    assert_null(domain_page_alloc(d, 0, 0));
    assert_non_null(domain_page_alloc_beyond(d, 0, 0));
    assert_int_equal(d->tot_pages, 514);
    d->max_pages = 514; /* one of those is extra: room for one more, until an extra one was freed */
    assert_non_null(one = domain_page_alloc(d, 0, 0));
    assert_null(domain_page_alloc(d, 0, 0));
    assert_true(page_get(one, d));
    assert_true(page_put_alloc_ref(one));
    page_put(one);
    assert_null(domain_page_alloc(d, 0, 0));
    d->max_pages = 600;
    d->dying = DOMAIN_DYING;
    assert_null(domain_page_alloc(d, 0, 0));
    assert_null(domain_page_alloc_beyond(d, 0, 0));
    assert_int_equal(heap_free_pages(), free - 2);
    assert_int_equal(domain_pages_release(d), 0);
    assert_int_equal(heap_free_pages(), free + 512);
    free_domain(d);
}

static void test_shared_page(void **state)
{
    struct domain *d = new_domain(0);
    struct page_info *pg = heap_alloc(0);

    (void)state;
    page_share_with_domain(pg, d);
    assert_int_equal(d->refs, 2);
    assert_int_equal(d->tot_pages, 0);
    assert_int_equal(d->xenheap_pages, 1);
    assert_true(page_get(pg, d));
    assert_false(page_put_alloc_ref(pg)); /* a guest cannot give it away */
    d->dying = DOMAIN_DYING;
    assert_int_equal(domain_pages_release(d), 0);
    page_put(pg);
    assert_int_equal(d->xenheap_pages, 1);
    page_put(pg);
    assert_int_equal(d->xenheap_pages, 0);
    free_domain(d);
}

/* dom0's pages come from outside the heap and go into it. */
static void test_assigned_pages(void **state)
{
    struct domain *d = new_domain(100);
    uint64_t free = heap_free_pages(), total = heap_total_pages();

    (void)state;
    domain_pages_assign(d, mfn_to_page(0), 16);
    domain_page_assign(d, mfn_to_page(16));
    assert_int_equal(d->tot_pages, 17);
    assert_int_equal(d->refs, 2);
    assert_int_equal(heap_total_pages(), total + 17);
    assert_int_equal(heap_free_pages(), free);
    for (mfn_t m = 0; m < 17; m++)
        assert_true(page_put_alloc_ref(mfn_to_page(m)));
    assert_int_equal(heap_free_pages(), free + 16); /* frame 0 is never used */
    free_domain(d);
}

static void test_release_with_foreign_references(void **state)
{
    struct domain *d = new_domain(1000);
    struct page_info *pg[300];
    uint64_t free = heap_free_pages();
    unsigned calls = 0;
    int err;

    (void)state;
    for (unsigned i = 0; i < 300; i++)
        pg[i] = domain_page_alloc(d, 0, 0);
    for (unsigned i = 0; i < 300; i += 3)
        assert_true(page_get(pg[i], d)); /* a tool maps it */
    for (unsigned i = 0; i < 300; i += 7)
        page_put_alloc_ref(pg[i]); /* the guest ballooned it out */
    d->dying = DOMAIN_DYING;
    preempt_after = 0;
    while ((err = domain_pages_release(d)) == -ERESTART) {
        preempt_after = 0;
        calls++;
    }
    preempt_after = -1;
    assert_int_equal(err, 0);
    assert_true(calls >= 3);
    assert_int_equal(d->tot_pages, 100);
    assert_int_equal(d->refs, 2);
    assert_int_equal(domain_pages_release(d), 0);
    for (unsigned i = 0; i < 300; i += 3) {
        assert_int_equal(pg[i]->refs, 1);
        page_put(pg[i]);
    }
    assert_int_equal(heap_free_pages(), free);
    free_domain(d);
}

/* Random references on random pages of three domains. */
static void test_random(void **state)
{
    enum { DOMAINS = 3, PAGES = 400 };
    struct domain *d[DOMAINS];
    struct model {
        struct page_info *pg;
        unsigned dom, refs;
        bool alloc;
    } m[PAGES] = {0};
    uint64_t free = heap_free_pages();

    (void)state;
    for (unsigned i = 0; i < DOMAINS; i++)
        d[i] = new_domain(150);
    for (unsigned step = 0; step < 200000; step++) {
        struct model *p = &m[rnd(PAGES)];
        bool draining = step > 180000;
        unsigned count[DOMAINS] = {0};

        host_test_cpu.id = (unsigned)rnd(4);
        switch (p->refs ? rnd(5) : 0) {
        case 0:
            if (p->refs || draining)
                break;
            p->dom = (unsigned)rnd(DOMAINS);
            p->pg = domain_page_alloc(d[p->dom], 0, rnd(2) ? 0 : 4096);
            if (!p->pg)
                break;
            p->refs = 1;
            p->alloc = true;
            assert_true(is_zero(p->pg));
            memset(page_to_virt(p->pg), (int)rnd(255) + 1, PAGE_SIZE);
            break;
        case 1:
            assert_true(page_get(p->pg, d[p->dom]));
            p->refs++;
            assert_false(page_get(p->pg, d[(p->dom + 1) % DOMAINS]));
            break;
        case 2:
            assert_int_equal(page_put_alloc_ref(p->pg), p->alloc);
            p->refs -= p->alloc;
            p->alloc = false;
            break;
        case 3:
        case 4:
            if (p->refs > p->alloc) {
                page_put(p->pg);
                p->refs--;
            }
            break;
        }
        if (p->refs) {
            assert_ptr_equal(page_owner(p->pg), d[p->dom]);
            assert_int_equal(p->pg->refs, p->refs);
        }
        if (step % 1000)
            continue;
        for (unsigned i = 0; i < PAGES; i++)
            if (m[i].refs)
                count[m[i].dom]++;
        for (unsigned i = 0; i < DOMAINS; i++) {
            assert_int_equal(d[i]->tot_pages, count[i]);
            assert_int_equal(list_length(&d[i]->page_list), count[i]);
            assert_int_equal(d[i]->refs, 1 + (count[i] > 0));
        }
    }
    for (unsigned i = 0; i < PAGES; i++) {
        for (; m[i].refs > m[i].alloc; m[i].refs--)
            page_put(m[i].pg);
        if (m[i].alloc)
            page_put_alloc_ref(m[i].pg);
    }
    for (unsigned i = 0; i < DOMAINS; i++)
        free_domain(d[i]);
    assert_int_equal(heap_free_pages(), free);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_page),
        cmocka_unit_test(test_last_put_needs_alloc_ref_given_up),
        cmocka_unit_test(test_saturation),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_shared_page),
        cmocka_unit_test(test_assigned_pages),
        cmocka_unit_test(test_release_with_foreign_references),
        cmocka_unit_test(test_random),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
