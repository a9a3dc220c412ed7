/* sources: vmm/platform/ioreq_range.c */
/* test_ioreq_range.c: range sets against a model, a byte for each address of a small space. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "core/errno.h"
#include "core/string.h"
#include "platform/ioreq_range.h"

#define SPACE 600

void *kzalloc(size_t bytes)
{
    return calloc(1, bytes);
}
void kfree(void *p)
{
    free(p);
}

static bool model_all(const uint8_t *model, unsigned first, unsigned last, uint8_t want)
{
    for (unsigned i = first; i <= last; i++)
        if (model[i] != want)
            return false;
    return true;
}

static void check_shape(const struct io_ranges *s, const uint8_t *model)
{
    unsigned held = 0, in_model = 0;

    for (unsigned i = 0; i < s->count; i++) {
        assert_true(s->r[i].first <= s->r[i].last);
        if (i)
            assert_true(s->r[i - 1].last + 1 < s->r[i].first);
        held += s->r[i].last - s->r[i].first + 1;
    }
    for (unsigned i = 0; i < SPACE; i++)
        in_model += model[i];
    assert_int_equal(held, in_model);
}

static void agrees_with_model(void **state)
{
    struct io_ranges s = {0};
    uint8_t model[SPACE] = {0};

    (void)state;
    srand(1);
    for (unsigned n = 0; n < 200000; n++) {
        unsigned first = rand() % SPACE, last = first + rand() % (rand() % 20 ? 4 : 100);
        int rc;

        if (last >= SPACE)
            last = SPACE - 1;
        switch (rand() % 3) {
        case 0:
            rc = io_ranges_add(&s, first, last);
            assert_int_equal(rc, model_all(model, first, last, 0) ? 0 : -EEXIST);
            if (rc == 0)
                memset(model + first, 1, last - first + 1);
            break;
        case 1:
            rc = io_ranges_remove(&s, first, last);
            assert_int_equal(rc, model_all(model, first, last, 1) ? 0 : -ENOENT);
            if (rc == 0)
                memset(model + first, 0, last - first + 1);
            break;
        default:
            assert_int_equal(io_ranges_contain(&s, first, last), model_all(model, first, last, 1));
        }
        if (n % 64 == 0)
            check_shape(&s, model);
    }
    io_ranges_free(&s);
}

static void limits(void **state)
{
    struct io_ranges s = {0};

    (void)state;
    assert_int_equal(io_ranges_add(&s, 5, 4), -EINVAL);
    assert_int_equal(io_ranges_remove(&s, 5, 4), -EINVAL);
    assert_false(io_ranges_contain(&s, 0, ~0ULL));
    assert_int_equal(io_ranges_add(&s, 0, ~0ULL), 0);
    assert_true(io_ranges_contain(&s, ~0ULL, ~0ULL));
    assert_int_equal(io_ranges_add(&s, 7, 7), -EEXIST);
    assert_int_equal(io_ranges_remove(&s, 0, ~0ULL), 0);
    for (uint64_t i = 0; i < IO_RANGES_MAX; i++)
        assert_int_equal(io_ranges_add(&s, 10 * i, 10 * i + 4), 0);
    assert_int_equal(io_ranges_add(&s, 100000, 100000), -ENOSPC);
    assert_int_equal(io_ranges_remove(&s, 11, 12), -ENOSPC); /* would split */
    assert_true(io_ranges_contain(&s, 10, 14));
    assert_int_equal(io_ranges_add(&s, 15, 15), 0); /* joins: needs no room */
    assert_int_equal(s.count, IO_RANGES_MAX);
    assert_int_equal(io_ranges_add(&s, 16, 19), 0); /* fills the gap: one fewer */
    assert_int_equal(s.count, IO_RANGES_MAX - 1);
    io_ranges_free(&s);
    assert_int_equal(s.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_model),
        cmocka_unit_test(limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
