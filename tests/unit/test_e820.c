/* sources: vmm/boot/e820.c */
/* test_e820.c: the map against a brute-force model of one type per page, and dom0's share of a PC's
 * map.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "boot/e820.h"
#include "core/errno.h"
#include "core/string.h"

#define GIB (1ULL << 30)
#define MIB (1ULL << 20)

static void check_shape(const struct e820_map *m)
{
    for (unsigned i = 0; i < m->nr_entries; i++) {
        const struct e820_entry *e = &m->entries[i], *next = e + 1;

        assert_true(e->size > 0);
        if (i + 1 == m->nr_entries)
            break;
        assert_true(e->addr + e->size <= next->addr);
        assert_false(e->addr + e->size == next->addr && e->type == next->type);
    }
}

static void check_entry(const struct e820_map *m, unsigned i, uint64_t start, uint64_t end,
                        uint32_t type)
{
    assert_true(i < m->nr_entries);
    assert_int_equal(m->entries[i].addr, start);
    assert_int_equal(m->entries[i].addr + m->entries[i].size, end);
    assert_int_equal(m->entries[i].type, type);
}

/* What QEMU's pc machine with 6 GiB says. */
static void pc_map(struct e820_map *m)
{
    memset(m, 0, sizeof(*m));
    assert_int_equal(e820_add(m, 0x100000, 0xbffe0000 - 0x100000, E820_RAM), 0);
    assert_int_equal(e820_add(m, 0, 0x9fc00, E820_RAM), 0);
    assert_int_equal(e820_add(m, 4 * GIB, 3 * GIB, E820_RAM), 0);
    assert_int_equal(e820_add(m, 0x9fc00, 0x400, E820_RESERVED), 0);
    assert_int_equal(e820_add(m, 0xf0000, 0x10000, E820_RESERVED), 0);
    assert_int_equal(e820_add(m, 0xbffe0000, 0x20000, E820_RESERVED), 0);
    assert_int_equal(e820_add(m, 0xfeffc000, 0x4000, E820_RESERVED), 0);
}

static void random_ranges_match_the_model(void **state)
{
    enum { PAGES = 200, ROUNDS = 300 };

    (void)state;
    srand(3);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct e820_map m = {0};
        uint32_t model[PAGES] = {0};

        for (unsigned n = 0; n < 25; n++) {
            uint64_t start = (uint64_t)rand() % PAGES, end = start + (uint64_t)rand() % 40;
            uint32_t type = 1 + (uint32_t)rand() % 5, from = 1 + (uint32_t)rand() % 5;
            bool add = n < 10 || rand() % 2;

            end = MIN(end, (uint64_t)PAGES);
            if (add)
                assert_int_equal(e820_add(&m, start << 12, (end - start) << 12, type), 0);
            else
                assert_int_equal(e820_reserve_range(&m, start << 12, end << 12, from, type), 0);
            for (uint64_t p = start; p < end; p++)
                if (add ? model[p] < type : model[p] == from)
                    model[p] = type;
            check_shape(&m);
            for (uint64_t p = 0; p < PAGES; p++)
                assert_int_equal(e820_type_at(&m, (p << 12) + 5), model[p]);
        }
        uint64_t ram = 0;

        for (uint64_t p = 0; p < PAGES; p++)
            ram += model[p] == E820_RAM;
        assert_int_equal(e820_ram_pages(&m), ram);
    }
}

static void odd_input(void **state)
{
    struct e820_map m = {0};

    (void)state;
    assert_int_equal(e820_add(&m, 0x1000, 0, E820_RAM), 0);
    assert_int_equal(e820_add(&m, ~0ULL - 10, 100, E820_RAM), 0);
    assert_int_equal(m.nr_entries, 0);
    assert_int_equal(e820_add(&m, 0x1000, ~0ULL, E820_RESERVED), 0);
    check_entry(&m, 0, 0x1000, 1ULL << 52, E820_RESERVED);
    assert_int_equal(e820_add(&m, 0, 0x1000, 0), -EINVAL);
    assert_int_equal(e820_reserve_range(&m, 2, 1, 1, 2), -EINVAL);
}

static void a_full_map_is_an_error(void **state)
{
    static struct e820_map m, dom0;

    (void)state;
    memset(&m, 0, sizeof(m));
    for (uint64_t i = 0; i < E820_MAX_ENTRIES; i++)
        assert_int_equal(e820_add(&m, i * 0x10000, 0x8000, E820_RAM), 0);
    assert_int_equal(e820_add(&m, 0x9000000, 0x1000, E820_RAM), -E2BIG);
    assert_int_equal(e820_reserve_range(&m, 0x1000, 0x2000, E820_RAM, E820_RESERVED), -E2BIG);
    assert_int_equal(m.nr_entries, E820_MAX_ENTRIES);
    check_shape(&m);
    assert_int_equal(e820_dom0(&m, 0x1000, &dom0), -E2BIG);
}

static void multiboot_lists(void **state)
{
    struct e820_map m = {0};
    uint8_t mb1[24 + 28], mb2[16 + 48];
    uint64_t v;
    uint32_t w;

    (void)state;
    memset(mb1, 0, sizeof(mb1));
    w = 20, memcpy(mb1, &w, 4);
    v = 0x100000, memcpy(mb1 + 12, &v, 8);
    w = 1, memcpy(mb1 + 20, &w, 4);
    w = 24, memcpy(mb1 + 24, &w, 4); /* a longer entry */
    v = 0x200000, memcpy(mb1 + 28, &v, 8);
    v = 0x1000, memcpy(mb1 + 36, &v, 8);
    w = 3, memcpy(mb1 + 44, &w, 4);
    assert_int_equal(e820_add_multiboot1(&m, mb1, sizeof(mb1)), 0);
    assert_int_equal(m.nr_entries, 2);
    check_entry(&m, 0, 0, 0x100000, E820_RAM);
    check_entry(&m, 1, 0x200000, 0x201000, E820_ACPI);
    for (size_t n = 1; n < sizeof(mb1); n++)
        if (n != 24)
            assert_int_equal(e820_add_multiboot1(&m, mb1, n), -EINVAL);
    w = 0, memcpy(mb1 + 24, &w, 4);
    assert_int_equal(e820_add_multiboot1(&m, mb1, sizeof(mb1)), -EINVAL);

    memset(&m, 0, sizeof(m));
    memset(mb2, 0, sizeof(mb2));
    w = 6, memcpy(mb2, &w, 4);
    w = sizeof(mb2), memcpy(mb2 + 4, &w, 4);
    w = 24, memcpy(mb2 + 8, &w, 4);
    memcpy(mb2 + 16, mb1 + 4, 20);
    memcpy(mb2 + 40, mb1 + 28, 20);
    assert_int_equal(e820_add_multiboot2(&m, mb2, sizeof(mb2)), 0);
    check_entry(&m, 0, 0, 0x100000, E820_RAM);
    check_entry(&m, 1, 0x200000, 0x201000, E820_ACPI);
    assert_int_equal(m.nr_entries, 2);
    assert_int_equal(e820_add_multiboot2(&m, mb2, 15), -EINVAL);
    w = 0, memcpy(mb2 + 8, &w, 4);
    assert_int_equal(e820_add_multiboot2(&m, mb2, sizeof(mb2)), -EINVAL);
}

static void alloc_top(void **state)
{
    struct e820_map m;
    uint64_t at, before;

    (void)state;
    pc_map(&m);
    before = e820_ram_pages(&m);
    assert_int_equal(e820_alloc_top(&m, 2 * MIB - 5, 2 * MIB, ~0ULL, &at), 0);
    assert_int_equal(at, 7 * GIB - 2 * MIB);
    assert_int_equal(e820_type_at(&m, at), E820_OWNED);
    assert_int_equal(e820_ram_end(&m), at);
    assert_int_equal(e820_ram_pages(&m), before - 512);
    assert_int_equal(e820_alloc_top(&m, MIB, 2 * MIB, 4 * GIB, &at), 0);
    assert_int_equal(at, 0xbfe00000);
    assert_true(e820_is_ram(&m, 0xbff00000, 0xbffe0000)); /* the rest above it */
    assert_int_equal(e820_alloc_top(&m, 0x1000, 0, MIB, &at), 0);
    assert_int_equal(at, 0x9e000); /* under the page that RAM ends in */
    assert_int_equal(e820_alloc_top(&m, 3 * GIB, 1, ~0ULL, &at), -ENOMEM);
    assert_int_equal(e820_alloc_top(&m, 0, 1, ~0ULL, &at), -EINVAL);
    assert_int_equal(e820_alloc_top(&m, 1, 3, ~0ULL, &at), -EINVAL);
    assert_int_equal(e820_alloc_top(&m, ~0ULL, 1, ~0ULL, &at), -EINVAL);
    check_shape(&m);
}

static void is_ram(void **state)
{
    struct e820_map m;

    (void)state;
    pc_map(&m);
    assert_true(e820_is_ram(&m, 0x100000, 0xbffe0000));
    assert_false(e820_is_ram(&m, 0x100000, 0xbffe0001));
    assert_false(e820_is_ram(&m, 0xfffff, 0x100001));
    assert_false(e820_is_ram(&m, 0xd0000, 0xd0001));
    assert_false(e820_is_ram(&m, 0x100000, 0x100000));
    assert_false(e820_is_ram(&m, 8 * GIB, 9 * GIB));
}

static void dom0_gets_the_lowest_ram(void **state)
{
    struct e820_map m, dom0;
    uint64_t image;

    (void)state;
    pc_map(&m);
    assert_int_equal(e820_alloc_top(&m, 16 * MIB, 2 * MIB, 4 * GIB, &image), 0);
    assert_int_equal(e820_dom0(&m, 512 * MIB, &dom0), 0);
    check_shape(&dom0);
    assert_int_equal(e820_ram_pages(&dom0), 512 * MIB / 4096);
    check_entry(&dom0, 0, 0, 0x9f000, E820_RAM);
    check_entry(&dom0, 1, 0x9f000, 0xa0000, E820_RESERVED); /* the page RAM shares with the EBDA */
    check_entry(&dom0, 2, 0xf0000, 0x100000, E820_RESERVED);
    check_entry(&dom0, 3, 0x100000, 0x20061000, E820_RAM); /* 512 MiB - 0x9f000 from 1 MiB up */
    check_entry(&dom0, 4, 0x20061000, 0xc0000000, E820_RESERVED); /* other RAM, ours, firmware's */
    check_entry(&dom0, 5, 0xfeffc000, 0xff000000, E820_RESERVED);
    check_entry(&dom0, 6, 4 * GIB, 7 * GIB, E820_RESERVED);
    assert_int_equal(dom0.nr_entries, 7);

    assert_int_equal(e820_dom0(&m, 64 * GIB, &dom0), 0); /* all there is, but ours */
    assert_int_equal(e820_ram_pages(&dom0), e820_ram_pages(&m));
    assert_int_equal(e820_type_at(&dom0, image), E820_RESERVED);
    assert_true(e820_is_ram(&dom0, 4 * GIB, 7 * GIB));

    assert_int_equal(e820_dom0(&m, 0, &dom0), 0);
    assert_int_equal(e820_ram_pages(&dom0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_ranges_match_the_model),
        cmocka_unit_test(odd_input),
        cmocka_unit_test(a_full_map_is_an_error),
        cmocka_unit_test(multiboot_lists),
        cmocka_unit_test(alloc_top),
        cmocka_unit_test(is_ram),
        cmocka_unit_test(dom0_gets_the_lowest_ram),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
