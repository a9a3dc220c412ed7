/* ioreq_range.c: the sorted array behind ioreq_range.h. */
#include "platform/ioreq_range.h"

#include "core/errno.h"
#include "core/mm.h"
#include "core/string.h"

#define FIRST_CAPACITY 16

/* Index of the first range that ends at or after addr; count when there is none. */
static unsigned lower_bound(const struct io_ranges *s, uint64_t addr)
{
    unsigned lo = 0, hi = s->count;

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;

        if (s->r[mid].last < addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

bool io_ranges_search(struct io_ranges *s, uint64_t first, uint64_t last)
{
    unsigned i = lower_bound(s, first);

    if (i >= s->count || s->r[i].first > first || last > s->r[i].last)
        return false;
    s->last_hit = i;
    return true;
}

static int make_room(struct io_ranges *s)
{
    unsigned capacity = s->capacity ? 2 * s->capacity : FIRST_CAPACITY;
    struct io_range *r;

    if (s->count < s->capacity)
        return 0;
    if (s->count >= IO_RANGES_MAX)
        return -ENOSPC;
    r = kzalloc(capacity * sizeof(*r));
    if (!r)
        return -ENOMEM;
    if (s->count)
        memcpy(r, s->r, s->count * sizeof(*r));
    kfree(s->r);
    s->r = r;
    s->capacity = capacity;
    return 0;
}

/* There is room for it. */
static void insert_at(struct io_ranges *s, unsigned i, uint64_t first, uint64_t last)
{
    memmove(&s->r[i + 1], &s->r[i], (s->count - i) * sizeof(*s->r));
    s->r[i] = (struct io_range){first, last};
    s->count++;
}

static void delete_at(struct io_ranges *s, unsigned i)
{
    s->count--;
    memmove(&s->r[i], &s->r[i + 1], (s->count - i) * sizeof(*s->r));
}

int io_ranges_add(struct io_ranges *s, uint64_t first, uint64_t last)
{
    unsigned i;
    bool touches_prev, touches_next;
    int rc;

    if (last < first)
        return -EINVAL;
    i = lower_bound(s, first);
    if (i < s->count && s->r[i].first <= last)
        return -EEXIST;
    touches_prev = i > 0 && s->r[i - 1].last + 1 == first;
    touches_next = i < s->count && last + 1 == s->r[i].first;
    if (touches_prev && touches_next) {
        s->r[i - 1].last = s->r[i].last;
        delete_at(s, i);
        return 0;
    }
    if (touches_prev) {
        s->r[i - 1].last = last;
        return 0;
    }
    if (touches_next) {
        s->r[i].first = first;
        return 0;
    }
    rc = make_room(s);
    if (rc == 0)
        insert_at(s, i, first, last);
    return rc;
}

int io_ranges_remove(struct io_ranges *s, uint64_t first, uint64_t last)
{
    struct io_range whole;
    unsigned i;
    int rc;

    if (last < first)
        return -EINVAL;
    if (!io_ranges_contain(s, first, last))
        return -ENOENT;
    i = lower_bound(s, first);
    whole = s->r[i];
    if (whole.first == first && whole.last == last) {
        delete_at(s, i);
    } else if (whole.first == first) {
        s->r[i].first = last + 1;
    } else if (whole.last == last) {
        s->r[i].last = first - 1;
    } else {
        rc = make_room(s);
        if (rc)
            return rc;
        s->r[i].last = first - 1;
        insert_at(s, i + 1, last + 1, whole.last);
    }
    return 0;
}

void io_ranges_free(struct io_ranges *s)
{
    kfree(s->r);
    *s = (struct io_ranges){0};
}
