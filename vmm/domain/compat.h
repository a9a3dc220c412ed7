/* compat.h: hypercall arguments in both widths.
 *
 * A 32-bit caller (hvmloader, 32-bit guests) passes structures whose longs, frame numbers and
 * pointers are 4 bytes. These are those structures, laid out by hand (i386 aligns uint64_t to 4),
 * and readers that take either form into the native one. Structures of domctl, sysctl and dm_op
 * are the same in both widths.
 */
#pragma once

#include "core/errno.h"
#include "core/string.h"
#include "domain/domain.h"

struct compat_memory_reservation {
    uint32_t extent_start, nr_extents, extent_order, mem_flags;
    uint16_t domid, pad;
};
STATIC_ASSERT(sizeof(struct compat_memory_reservation) == 20);

struct compat_add_to_physmap {
    uint16_t domid, size;
    uint32_t space, idx, gpfn;
};
STATIC_ASSERT(sizeof(struct compat_add_to_physmap) == 16);

struct compat_add_to_physmap_batch {
    uint16_t domid, space, size, extra;
    uint32_t idxs, gpfns, errs;
};
STATIC_ASSERT(sizeof(struct compat_add_to_physmap_batch) == 20);

struct compat_remove_from_physmap {
    uint16_t domid, pad;
    uint32_t gpfn;
};
struct compat_memory_map {
    uint32_t nr_entries, buffer;
};
struct compat_foreign_memory_map {
    uint16_t domid, pad;
    struct compat_memory_map map;
};
struct compat_pod_target {
    uint64_t target_pages, tot_pages, pod_cache_pages, pod_entries;
    uint16_t domid, pad;
} __packed;
STATIC_ASSERT(sizeof(struct compat_pod_target) == 36);

struct compat_mem_acquire_resource {
    uint16_t domid, type;
    uint32_t id, nr_frames, pad;
    uint64_t frame;
    uint32_t frame_list;
} __packed;
STATIC_ASSERT(sizeof(struct compat_mem_acquire_resource) == 28);

struct compat_reserved_device_memory_map {
    uint32_t flags, nr_entries, buffer;
    uint32_t pci[2];
};

struct compat_multicall_entry {
    uint32_t op, result, args[6];
};
STATIC_ASSERT(sizeof(struct compat_multicall_entry) == 32);

/* The address of a caller's handle: what a pointer-sized register or field of it can hold. */
static inline uint64_t guest_addr(const struct vcpu *v, uint64_t a)
{
    return v->compat ? (uint32_t)a : a;
}
/* Element i of an array of longs, frame numbers or pointers at `base` in the caller's memory. */
static inline int read_guest_word(struct vcpu *v, uint64_t base, uint64_t i, uint64_t *out)
{
    uint32_t narrow;

    if (!v->compat)
        return copy_from_guest(out, base + i * 8, 8);
    if (copy_from_guest(&narrow, guest_addr(v, base + i * 4), 4))
        return -EFAULT;
    *out = narrow;
    return 0;
}
static inline int write_guest_word(struct vcpu *v, uint64_t base, uint64_t i, uint64_t value)
{
    uint32_t narrow = (uint32_t)value;

    if (!v->compat)
        return copy_to_guest(base + i * 8, &value, 8);
    return copy_to_guest(guest_addr(v, base + i * 4), &narrow, 4);
}
