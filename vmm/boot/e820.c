/* e820.c: a memory map kept sorted and without overlaps by painting ranges into it. */
#include "boot/e820.h"

#include "core/errno.h"
#include "core/string.h"

#define ADDRESS_END BIT(52) /* APM 2, 5.1: physical addresses have at most 52 bits */
#define NOTHING     0       /* the type of an address that no entry covers */

static uint64_t entry_end(const struct e820_entry *e)
{
    return e->addr + e->size;
}

static int insert(struct e820_map *map, unsigned i, uint64_t start, uint64_t end, uint32_t type)
{
    if (map->nr_entries == E820_MAX_ENTRIES)
        return -E2BIG;
    memmove(&map->entries[i + 1], &map->entries[i],
            (map->nr_entries - i) * sizeof(map->entries[0]));
    map->entries[i] = (struct e820_entry){.addr = start, .size = end - start, .type = type};
    map->nr_entries++;
    return 0;
}

static void merge_neighbours(struct e820_map *map)
{
    unsigned kept = 0;

    for (unsigned i = 1; i < map->nr_entries; i++) {
        struct e820_entry *last = &map->entries[kept], *e = &map->entries[i];

        if (last->type == e->type && entry_end(last) == e->addr)
            last->size += e->size;
        else
            map->entries[++kept] = *e;
    }
    if (map->nr_entries)
        map->nr_entries = kept + 1;
}

/* The first entry that ends after addr; nr_entries when there is none. */
static unsigned entry_from(const struct e820_map *map, uint64_t addr)
{
    unsigned i = 0;

    while (i < map->nr_entries && entry_end(&map->entries[i]) <= addr)
        i++;
    return i;
}

/* Cut entry i in two at addr, if addr is inside of it. */
static int split_at(struct e820_map *map, uint64_t addr)
{
    unsigned i = entry_from(map, addr);
    int rc;

    if (i == map->nr_entries || map->entries[i].addr >= addr)
        return 0;
    rc = insert(map, i, map->entries[i].addr, addr, map->entries[i].type);
    if (rc)
        return rc;
    map->entries[i + 1].size -= addr - map->entries[i + 1].addr;
    map->entries[i + 1].addr = addr;
    return 0;
}

/* Change [start, end) to to_type wherever may_change(old type, from_type or to_type) allows; holes
 * have the type NOTHING. */
static int paint(struct e820_map *map, uint64_t start, uint64_t end, uint32_t to_type,
                 bool (*may_change)(uint32_t old, uint32_t key), uint32_t key)
{
    int rc = split_at(map, start);

    if (rc == 0)
        rc = split_at(map, end);
    for (unsigned i = entry_from(map, start); rc == 0 && start < end; i++) {
        uint64_t next = i < map->nr_entries ? MIN(map->entries[i].addr, end) : end;

        if (start < next) { /* a hole in front of entry i */
            if (may_change(NOTHING, key))
                rc = insert(map, i, start, next, to_type);
            else
                i--;
            start = next;
            continue;
        }
        if (may_change(map->entries[i].type, key))
            map->entries[i].type = to_type;
        start = entry_end(&map->entries[i]);
    }
    merge_neighbours(map);
    return rc;
}

static bool is_weaker(uint32_t old, uint32_t type)
{
    return old < type;
}

static bool is_same(uint32_t old, uint32_t type)
{
    return old == type;
}

int e820_add(struct e820_map *map, uint64_t addr, uint64_t size, uint32_t type)
{
    uint64_t end;

    if (type == NOTHING)
        return -EINVAL;
    if (addr >= ADDRESS_END || size == 0)
        return 0;
    end = addr + MIN(size, ADDRESS_END - addr);
    return paint(map, addr, end, type, is_weaker, type);
}

int e820_reserve_range(struct e820_map *map, uint64_t start, uint64_t end, uint32_t from_type,
                       uint32_t to_type)
{
    if (start > end || from_type == NOTHING || to_type == NOTHING)
        return -EINVAL;
    return paint(map, start, end, to_type, is_same, from_type);
}

/* --- boot loaders' lists --- */

struct multiboot_range {
    uint64_t addr, size;
    uint32_t type;
} __packed;

static int add_range(struct e820_map *map, const uint8_t *p)
{
    struct multiboot_range r;

    memcpy(&r, p, sizeof(r));
    return e820_add(map, r.addr, r.size, r.type ? r.type : (uint32_t)E820_RESERVED);
}

int e820_add_multiboot1(struct e820_map *map, const void *mmap, size_t bytes)
{
    const uint8_t *p = mmap;

    while (bytes > 0) {
        uint32_t size; /* of the entry, this field not counted */
        int rc;

        if (bytes < sizeof(size))
            return -EINVAL;
        memcpy(&size, p, sizeof(size));
        if (size < sizeof(struct multiboot_range) || size > bytes - sizeof(size))
            return -EINVAL;
        rc = add_range(map, p + sizeof(size));
        if (rc)
            return rc;
        p += sizeof(size) + size;
        bytes -= sizeof(size) + size;
    }
    return 0;
}

int e820_add_multiboot2(struct e820_map *map, const void *tag, size_t tag_bytes)
{
    struct {
        uint32_t type, size, entry_size, entry_version;
    } head;
    const uint8_t *p = tag;

    if (tag_bytes < sizeof(head))
        return -EINVAL;
    memcpy(&head, tag, sizeof(head));
    if (head.entry_size < sizeof(struct multiboot_range))
        return -EINVAL;
    for (size_t pos = sizeof(head); tag_bytes - pos >= head.entry_size; pos += head.entry_size) {
        int rc = add_range(map, p + pos);

        if (rc)
            return rc;
    }
    return 0;
}

/* --- questions --- */

static uint64_t first_page(const struct e820_entry *e)
{
    return PFN_UP(e->addr);
}

static uint64_t whole_pages(const struct e820_entry *e)
{
    uint64_t first = first_page(e), end = PFN_DOWN(entry_end(e));

    return end > first ? end - first : 0;
}

uint64_t e820_ram_pages(const struct e820_map *map)
{
    uint64_t pages = 0;

    for (unsigned i = 0; i < map->nr_entries; i++)
        if (map->entries[i].type == E820_RAM)
            pages += whole_pages(&map->entries[i]);
    return pages;
}

uint32_t e820_type_at(const struct e820_map *map, uint64_t addr)
{
    unsigned i = entry_from(map, addr);

    return i < map->nr_entries && map->entries[i].addr <= addr ? map->entries[i].type : NOTHING;
}

bool e820_is_ram(const struct e820_map *map, uint64_t start, uint64_t end)
{
    return start < end && e820_type_at(map, start) == E820_RAM &&
           entry_end(&map->entries[entry_from(map, start)]) >= end;
}

uint64_t e820_ram_end(const struct e820_map *map)
{
    for (unsigned i = map->nr_entries; i-- > 0;)
        if (map->entries[i].type == E820_RAM)
            return entry_end(&map->entries[i]);
    return 0;
}

/* --- shares --- */

int e820_alloc_top(struct e820_map *map, uint64_t bytes, uint64_t align, uint64_t below,
                   uint64_t *out)
{
    if (bytes == 0 || bytes > ADDRESS_END || (align & (align - 1)))
        return -EINVAL;
    bytes = ALIGN_UP(bytes, PAGE_SIZE);
    align = MAX(align, PAGE_SIZE);
    for (unsigned i = map->nr_entries; i-- > 0;) {
        const struct e820_entry *e = &map->entries[i];
        uint64_t end = MIN(entry_end(e), below), start;

        if (e->type != E820_RAM || end < bytes)
            continue;
        start = ALIGN_DOWN(end - bytes, align);
        if (start < e->addr)
            continue;
        *out = start;
        return e820_reserve_range(map, start, start + bytes, E820_RAM, E820_OWNED);
    }
    return -ENOMEM;
}

/* Make a host's RAM entry dom0's: at most *pages of it as RAM, the rest reserved. */
static int share_ram(struct e820_map *dom0, const struct e820_entry *e, uint64_t *pages)
{
    uint64_t take = MIN(*pages, whole_pages(e));
    uint64_t start = first_page(e) << PAGE_SHIFT, end = start + (take << PAGE_SHIFT);
    int rc;

    *pages -= take;
    if (take == 0)
        return e820_add(dom0, e->addr, e->size, E820_RESERVED);
    rc = e820_add(dom0, start, end - start, E820_RAM);
    if (rc == 0)
        rc = e820_add(dom0, e->addr, start - e->addr, E820_RESERVED);
    if (rc == 0)
        rc = e820_add(dom0, end, entry_end(e) - end, E820_RESERVED);
    return rc;
}

int e820_dom0(const struct e820_map *host, uint64_t dom0_bytes, struct e820_map *dom0)
{
    uint64_t pages = PFN_DOWN(dom0_bytes);

    dom0->nr_entries = 0;
    for (unsigned i = 0; i < host->nr_entries; i++) {
        const struct e820_entry *e = &host->entries[i];
        int rc;

        if (e->type == E820_RAM)
            rc = share_ram(dom0, e, &pages);
        else if (e->type == E820_OWNED)
            rc = e820_add(dom0, e->addr, e->size, E820_RESERVED);
        else
            rc = e820_add(dom0, e->addr, e->size, e->type);
        if (rc)
            return rc;
    }
    return 0;
}
