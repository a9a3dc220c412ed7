/* e820.h: the machine's memory map (ACPI 15, "System Address Map Interfaces") and dom0's view of
 * it.
 *
 * A map is always sorted, its entries never overlap or touch with the same type, and addresses that
 * no entry covers hold nothing. Boot CPU only; nothing here locks.
 */
#pragma once

#include "core/types.h"

#define E820_MAX_ENTRIES 128

enum e820_type {
    E820_RAM = 1,
    E820_RESERVED = 2,
    E820_ACPI = 3, /* tables; RAM once they were read */
    E820_NVS = 4,
    E820_UNUSABLE = 5, /* RAM with errors */
    /* other numbers from firmware are kept as they are */
    E820_OWNED = 0x52460001, /* RAM that Ringfence took for itself; reserved in dom0's view */
};

struct e820_entry {
    uint64_t addr; /* bytes */
    uint64_t size; /* bytes, never 0 */
    uint32_t type; /* enum e820_type */
};

struct e820_map { /* all zero is the empty map */
    unsigned nr_entries;
    struct e820_entry entries[E820_MAX_ENTRIES];
};

/* Add what firmware or a boot loader says, in any order. Where it overlaps an earlier entry the
 * higher type number wins, so that RAM never hides something reserved. An empty range is ignored;
 * what lies above the architecture's 52 address bits is cut off.
 * Returns 0; -EINVAL for type 0; -E2BIG when the map is full (the range is then added in part). */
int e820_add(struct e820_map *map, uint64_t addr, uint64_t size, uint32_t type);

/* Add every entry of Multiboot 1's memory map (Multiboot 0.6.96, 3.3: mmap_addr, mmap_length), or
 * of Multiboot 2's tag 6 (Multiboot 2.0, 3.6.8: the whole tag, tag_bytes from its size field).
 * Returns as e820_add, or -EINVAL for a list that does not add up. */
int e820_add_multiboot1(struct e820_map *map, const void *mmap, size_t bytes);
int e820_add_multiboot2(struct e820_map *map, const void *tag, size_t tag_bytes);

/* Turn what is from_type in [start, end) into to_type; the rest of the range stays as it is.
 * Returns 0; -EINVAL when start > end; -E2BIG when the map is full (then done in part). */
int e820_reserve_range(struct e820_map *map, uint64_t start, uint64_t end, uint32_t from_type,
                       uint32_t to_type);

/* Take `bytes` of RAM (rounded up to pages), aligned to `align` (a power of two, at least a page is
 * used), from the highest place that ends at or under `below`, and make it E820_OWNED.
 * Returns 0 and the address in *out; -ENOMEM when none fits; -EINVAL; -E2BIG when the map is full.
 */
int e820_alloc_top(struct e820_map *map, uint64_t bytes, uint64_t align, uint64_t below,
                   uint64_t *out);

/* Whole pages of RAM in the map. */
uint64_t e820_ram_pages(const struct e820_map *map);

/* Whether [start, end), not empty, is all RAM. */
bool e820_is_ram(const struct e820_map *map, uint64_t start, uint64_t end);

/* The type at addr, 0 where nothing is. */
uint32_t e820_type_at(const struct e820_map *map, uint64_t addr);

/* One past the highest byte of RAM, 0 without RAM. */
uint64_t e820_ram_end(const struct e820_map *map);

/* dom0's view: the lowest whole pages of the host's RAM, dom0_bytes of them (rounded down to pages;
 * all RAM when there is less), stay RAM; other RAM and E820_OWNED become reserved; everything else
 * is as on the host. Returns 0, or -E2BIG when the map is full. */
int e820_dom0(const struct e820_map *host, uint64_t dom0_bytes, struct e820_map *dom0);
