/* paging.c: Ringfence's own page tables: all of RAM write-back at DIRECTMAP_BASE, physical
 * addresses uncached at UCMAP_BASE, the image at IMAGE_BASE, and, while APs start, the first 2 MiB
 * at 0. */
#include "core/machine.h"
#include "core/mm.h"
#include "core/x86.h"

#define PTE_P   BIT(0)
#define PTE_W   BIT(1)
#define PTE_WT  BIT(3)
#define PTE_CD  BIT(4)
#define PTE_PS  BIT(7)
#define PTE_G   BIT(8)
#define PTE_NX  BIT(63)
#define SIZE_2M BIT(21)
#define SIZE_1G BIT(30)

static void *(*take_page)(void);
static uint64_t *pml4;

static uint64_t *next_level(uint64_t *entry)
{
    if (!(*entry & PTE_P))
        *entry = virt_to_pa(take_page()) | PTE_P | PTE_W;
    return pa_to_virt(*entry & 0xffffffffff000ULL);
}

static void map_2m(uint64_t va, uint64_t pa, uint64_t flags)
{
    uint64_t *pdpt = next_level(&pml4[va >> 39 & 511]);
    if (pdpt[va >> 30 & 511] & PTE_PS)
        return;
    uint64_t *pd = next_level(&pdpt[va >> 30 & 511]);
    pd[va >> 21 & 511] = pa | flags | PTE_P | PTE_PS;
}

static void map_1g(uint64_t va, uint64_t pa, uint64_t flags)
{
    uint64_t *pdpt = next_level(&pml4[va >> 39 & 511]);
    pdpt[va >> 30 & 511] = pa | flags | PTE_P | PTE_PS;
}

static void map_range(uint64_t base, uint64_t start, uint64_t end, uint64_t flags, bool huge)
{
    for (uint64_t pa = start; pa < end;) {
        if (huge && !(pa & (SIZE_1G - 1)) && end - pa >= SIZE_1G) {
            map_1g(base + pa, pa, flags);
            pa += SIZE_1G;
        } else {
            map_2m(base + pa, pa, flags);
            pa += SIZE_2M;
        }
    }
}

void paging_map_chunk(void *va, uint64_t pa)
{
    map_2m((uint64_t)va, pa, PTE_W | PTE_G | PTE_NX);
}

void paging_map_zeroes(void *va)
{
    static uint64_t table; /* its 512 entries all map the same page of zeroes, read-only */
    uint64_t at = (uint64_t)va;
    uint64_t *pd = next_level(next_level(&pml4[at >> 39 & 511]) + (at >> 30 & 511));

    if (!table) {
        uint64_t *entries = take_page(), zeroes = virt_to_pa(take_page());
        for (unsigned i = 0; i < 512; i++)
            entries[i] = zeroes | PTE_P | PTE_G | PTE_NX;
        table = virt_to_pa(entries) | PTE_P;
    }
    pd[at >> 21 & 511] = table;
}

uint64_t paging_build(const struct e820_map *map, uint64_t image_pa, void *(*next_page)(void))
{
    bool huge = cpuid(0x80000001, 0).d & (1u << 26);
    uint64_t uc_end = huge ? 1ULL << 39 : 1ULL << 32;

    take_page = next_page;
    pml4 = take_page();
    for (unsigned i = 0; i < map->nr_entries; i++) {
        const struct e820_entry *e = &map->entries[i];
        if (e->type == E820_UNUSABLE || (e->type == E820_RESERVED && e->addr >= BIT(32)))
            continue;
        map_range(DIRECTMAP_BASE, ALIGN_DOWN(e->addr, SIZE_2M),
                  ALIGN_UP(e->addr + e->size, SIZE_2M), PTE_W | PTE_G | PTE_NX, huge);
    }
    map_range(UCMAP_BASE, 0, uc_end, PTE_W | PTE_G | PTE_NX | PTE_CD | PTE_WT, huge);
    for (uint64_t off = 0; off < 2 * SIZE_2M; off += SIZE_2M)
        map_2m(IMAGE_BASE + off, image_pa + off, PTE_W | PTE_G);
    map_2m(0, 0, PTE_W);
    return virt_to_pa(pml4);
}
