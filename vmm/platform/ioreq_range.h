/* ioreq_range.h: a set of disjoint address ranges that answers "is all of [first, last] yours?".
 *
 * One for each kind of address (ports, memory, PCI functions) of an ioreq server: a sorted array,
 * searched by halving, so that a request costs the same few steps whatever a device model claims;
 * a guest asks for the same device's ports again and again, so the last range found comes first.
 */
#pragma once

#include "core/types.h"

#define IO_RANGES_MAX 256 /* per set: a device model must not eat the hypervisor's memory */

struct io_range {
    uint64_t first, last; /* inclusive */
};

/* Owned by its server; changes and look-ups under the domain's ioreq lock. */
struct io_ranges {
    struct io_range *r; /* sorted, disjoint, with a gap between neighbours; NULL when capacity 0 */
    unsigned count, capacity;
    unsigned last_hit; /* where io_ranges_contain found the last one, if it is there still */
};

/* True when one range holds all of [first, last]. first <= last. */
bool io_ranges_search(struct io_ranges *s, uint64_t first, uint64_t last);
static inline bool io_ranges_contain(struct io_ranges *s, uint64_t first, uint64_t last)
{
    unsigned i = s->last_hit;

    if (likely(i < s->count && s->r[i].first <= first && last <= s->r[i].last))
        return true;
    return io_ranges_search(s, first, last);
}
/* Add [first, last], joining ranges that touch it. -EINVAL when last < first, -EEXIST when it
 * overlaps the set, -ENOSPC at IO_RANGES_MAX, -ENOMEM. On error nothing changed. */
int io_ranges_add(struct io_ranges *s, uint64_t first, uint64_t last);
/* Take [first, last] out, splitting its range if need be. -EINVAL, -ENOENT when the set does not
 * hold all of it, -ENOSPC or -ENOMEM when the split needs room. On error nothing changed. */
int io_ranges_remove(struct io_ranges *s, uint64_t first, uint64_t last);
/* Give the memory back and leave an empty set. */
void io_ranges_free(struct io_ranges *s);
