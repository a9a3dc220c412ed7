/* sources: vmm/core/heap.c vmm/core/kmalloc.c */
/* test_heap.c: the buddy allocator and kzalloc against models of who has which bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "core/cpu.h"
#include "core/mm.h"
#include "core/print.h"
#include "core/string.h"

#define FRAMES 40000 /* machine memory, of which three ranges are RAM */
static const struct {
    mfn_t start, end;
} ram[] = {{0, 157}, {256, 9001}, {16384, 39999}};

char *host_test_ram;
struct cpu host_test_cpu;
static jmp_buf panic_jmp;
static bool panic_expected;

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
    host_test_ram = mmap(NULL, FRAMES * PAGE_SIZE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(host_test_ram, MAP_FAILED);
    memset(host_test_ram, 0xe5, FRAMES * PAGE_SIZE); /* what the firmware left there */
    frame_table = calloc(FRAMES, sizeof(*frame_table));
    max_mfn = FRAMES;
    for (unsigned i = 0; i < ARRAY_SIZE(ram); i++)
        heap_add(ram[i].start, ram[i].end);
    return 0;
}

static bool is_ram(mfn_t mfn)
{
    for (unsigned i = 0; i < ARRAY_SIZE(ram); i++)
        if (mfn >= ram[i].start && mfn < ram[i].end)
            return mfn != 0;
    return false;
}

static uint64_t ram_frames(void)
{
    uint64_t n = 0;

    for (mfn_t m = 0; m < FRAMES; m++)
        n += is_ram(m);
    return n;
}

/* ---- buddy ---- */

#define MAX_BLOCKS 4096
static struct block {
    struct page_info *pg;
    unsigned order;
    uint64_t mark;
} blocks[MAX_BLOCKS];
static unsigned nr_blocks;
static uint8_t taken[FRAMES];
static uint64_t taken_frames;

static void model_alloc(unsigned order, mfn_t limit)
{
    struct page_info *pg = heap_alloc_below(order, limit);
    uint64_t *words, n = 1ULL << order;
    mfn_t mfn;

    if (!pg)
        return;
    mfn = page_to_mfn(pg);
    assert_int_equal(mfn & (n - 1), 0);
    assert_true(mfn + n <= limit);
    for (mfn_t m = mfn; m < mfn + n; m++) {
        assert_true(is_ram(m));
        assert_false(taken[m]);
        taken[m] = 1;
        assert_int_equal(mfn_to_page(m)->flags, 0);
        assert_int_equal(mfn_to_page(m)->refs, 0);
        assert_int_equal(mfn_to_page(m)->owner, 0);
    }
    taken_frames += n;
    words = page_to_virt(pg);
    for (uint64_t i = 0; i < n * 512; i++)
        if (words[i])
            fail_msg("word %lu of %lu frames is not zero", i, n);
    blocks[nr_blocks] = (struct block){pg, order, rnd(~0ULL) | 1};
    for (uint64_t i = 0; i < n * 512; i += 64)
        words[i] = blocks[nr_blocks].mark + i;
    nr_blocks++;
}

static void model_free(unsigned i)
{
    struct block b = blocks[i];
    uint64_t *words = page_to_virt(b.pg), n = 1ULL << b.order;

    for (uint64_t w = 0; w < n * 512; w += 64)
        assert_int_equal(words[w], b.mark + w);
    for (uint64_t f = 0; f < n; f++)
        taken[page_to_mfn(b.pg) + f] = 0;
    taken_frames -= n;
    blocks[i] = blocks[--nr_blocks];
    if (b.order && rnd(4) == 0) { /* parts of a block can be freed by themselves */
        heap_free(b.pg + n / 2, b.order - 1);
        heap_free(b.pg, b.order - 1);
    } else if (rnd(2)) {
        memset(words, 0, n * PAGE_SIZE);
        heap_free_zeroed(b.pg, b.order);
    } else {
        heap_free(b.pg, b.order);
    }
}

static void test_buddy_random(void **state)
{
    (void)state;
    assert_int_equal(heap_free_pages(), ram_frames());
    assert_int_equal(heap_total_pages(), ram_frames());
    for (unsigned step = 0; step < 18000; step++) {
        bool grow = rnd(100) < (step / 2000 % 2 ? 40 : 60);

        host_test_cpu.id = (unsigned)rnd(3); /* a thread of control moves between pCPUs */
        if (grow && nr_blocks < MAX_BLOCKS) {
            mfn_t limit = rnd(4) ? INVALID_MFN : rnd(2) ? 1ULL << rnd(17) : rnd(FRAMES);
            model_alloc(rnd(3) ? 0 : (unsigned)rnd(9), limit);
        } else if (nr_blocks) {
            model_free((unsigned)rnd(nr_blocks));
        }
        assert_int_equal(heap_free_pages(), ram_frames() - taken_frames);
        if (step == 9000 || step == 15000)
            while (nr_blocks)
                model_free(0);
    }
    while (nr_blocks)
        model_free(0);
    assert_int_equal(heap_free_pages(), ram_frames());
}

/* Everything that can merge has merged: the largest blocks are there again. */
static void test_buddy_coalesces(void **state)
{
    unsigned orders[] = {14, 12, 12, 11, 11};
    struct page_info *pg[ARRAY_SIZE(orders)];

    (void)state;
    for (host_test_cpu.id = 0; host_test_cpu.id < 3; host_test_cpu.id++) {
        struct page_info *drain = heap_alloc(15); /* too large: fails, after draining the CPU's */
        assert_null(drain);
    }
    host_test_cpu.id = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(orders); i++) {
        pg[i] = heap_alloc(orders[i]);
        assert_non_null(pg[i]);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(orders); i++)
        heap_free(pg[i], orders[i]);
    assert_null(heap_alloc(19));
    assert_int_equal(heap_free_pages(), ram_frames());
}

static void test_low_memory_is_kept(void **state)
{
    struct page_info *high = heap_alloc(0), *block = heap_alloc(4), *low = heap_alloc_below(0, 256);

    (void)state;
    assert_true(page_to_mfn(high) >= 32768 && page_to_mfn(block) >= 32768);
    assert_true(page_to_mfn(low) < 256);
    assert_null(heap_alloc_below(0, 1));
    assert_null(heap_alloc_below(8, 256));
    heap_free(high, 0);
    heap_free(block, 4);
    heap_free(low, 0);
}

static void test_bad_frees_panic(void **state)
{
    struct page_info *pg = heap_alloc(3), *one = heap_alloc(0);

    (void)state;
    expect_panic(heap_free(pg + 1, 1));                  /* not aligned */
    expect_panic(heap_free(mfn_to_page(FRAMES - 1), 1)); /* not all there */
    pg->refs = 1;
    expect_panic(heap_free(pg, 3)); /* in use */
    pg->refs = 0;
    heap_free(pg, 3);
    expect_panic(heap_free(pg, 3));
    expect_panic(heap_free(pg + 4, 2)); /* inside a free block */
    heap_free(one, 0);
    expect_panic(heap_free(one, 0)); /* on a pCPU's list */
    expect_panic(pages_free((char *)page_to_virt(one) + 8, 0));
}

/* ---- kzalloc ---- */

#define MAX_OBJECTS 3000
static struct object {
    uint8_t *p;
    size_t bytes;
    uint8_t mark;
} objects[MAX_OBJECTS];
static unsigned nr_objects;

static void object_free(unsigned i)
{
    for (size_t b = 0; b < objects[i].bytes; b++)
        if (objects[i].p[b] != objects[i].mark)
            fail_msg("byte %zu of %zu was overwritten", b, objects[i].bytes);
    kfree(objects[i].p);
    objects[i] = objects[--nr_objects];
}

static void test_kzalloc_random(void **state)
{
    uint64_t before = heap_free_pages();

    (void)state;
    for (unsigned step = 0; step < 60000; step++) {
        if (rnd(100) < (step / 8000 % 2 ? 40u : 60u) && nr_objects < MAX_OBJECTS) {
            size_t bytes = rnd(20) ? rnd(2100) : rnd(50000);
            struct object *o = &objects[nr_objects];
            size_t align = 32;

            o->p = kzalloc(bytes);
            if (!o->p)
                continue;
            o->bytes = bytes;
            o->mark = (uint8_t)rnd(256);
            while (align < bytes && align < PAGE_SIZE)
                align *= 2;
            assert_int_equal((uint64_t)o->p & (align - 1), 0);
            for (size_t b = 0; b < bytes; b++)
                if (o->p[b])
                    fail_msg("byte %zu of %zu is not zero", b, bytes);
            memset(o->p, o->mark, bytes);
            nr_objects++;
        } else if (nr_objects) {
            object_free((unsigned)rnd(nr_objects));
        }
    }
    while (nr_objects)
        object_free(0);
    kfree(NULL);
    assert_true(before - heap_free_pages() <= 7); /* one empty page a class */
}

static void test_kzalloc_rounds_to_pages(void **state)
{
    uint64_t before = heap_free_pages();
    void *p = kzalloc(5 * PAGE_SIZE - 100);

    (void)state;
    assert_int_equal(before - heap_free_pages(), 5);
    kfree(p);
    assert_int_equal(heap_free_pages(), before);
    assert_null(kzalloc(~0ULL));
    assert_null(kzalloc((PAGE_SIZE << 18) + 1));
}

static void test_bad_kfree_panics(void **state)
{
    char *a = kzalloc(100), *b = kzalloc(100), *kept = kzalloc(100), *big = kzalloc(9000);

    (void)state;
    expect_panic(kfree(big + PAGE_SIZE));
    kfree(a);
    kfree(b);
    assert_non_null(kept); /* keeps the slab's page in use */
    expect_panic(kfree(a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buddy_random),
        cmocka_unit_test(test_buddy_coalesces),
        cmocka_unit_test(test_low_memory_is_kept),
        cmocka_unit_test(test_kzalloc_random),
        cmocka_unit_test(test_kzalloc_rounds_to_pages),
        cmocka_unit_test(test_bad_frees_panic),
        cmocka_unit_test(test_bad_kfree_panics),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
