/* inner.h: what the files of vmm/npt share: the p2m's structure and the entry encodings.
 *
 * NPT (APM 2, 15.25.5 and 5.3) and EPT (SDM 3C, 28.3.2) agree on more than they differ: bits 0-2
 * are present/write/user in the one and read/write/execute in the other, and we set bits 0 and 2
 * in everything that is mapped; bit 7 marks a large leaf; 51:12 is the address; bits 58:52 are
 * software's (EPT: while paging-write and guest-paging verification are off). Only the memory type
 * is encoded differently.
 */
#pragma once

#include "core/atomic.h"
#include "core/mm.h"
#include "core/spinlock.h"
#include "npt/npt.h"

#define PTE_PRESENT    BIT(0) /* NPT: P. EPT: R */
#define PTE_WRITE      BIT(1)
#define PTE_USER_EXEC  BIT(2) /* NPT: U/S, as guest accesses count as user's. EPT: X */
#define NPT_DIRTY      BIT(6) /* its accessed bit is the one below, as EPT's */
#define PTE_LARGE      BIT(7)
#define EPT_DIRTY      BIT(9)
#define PTE_ADDR       0x000ffffffffff000ULL
#define PTE_TYPE_SHIFT 52
#define PTE_TYPE       (0x3fULL << PTE_TYPE_SHIFT)
#define PTE_SW_DIRTY   BIT(58) /* written by the hypervisor while its type is not P2M_RAM */
#define PTE_TABLE      (PTE_PRESENT | PTE_WRITE | PTE_USER_EXEC)

#define NPT_UC         (BIT(3) | BIT(4)) /* PWT and PCD: PAT entry 3, UC; 0 is PAT entry 0, WB */
#define EPT_WB         (6ULL << 3)       /* UC is 0 */
#define PTE_MEMTYPE    (7ULL << 3)       /* covers both encodings */

#define P2M_LEVELS     4
#define TABLE_ENTRIES  512

/* A domain's p2m. Tables are frames of the heap; page_info.spare of a table counts its entries that
 * are not 0, page_info.pad has the level of one that was unlinked.
 *
 * The lock guards everything that is written. Readers walk without it: a table that is unlinked is
 * reused only by this p2m, and only after `seq` was bumped, which tells readers to start again.
 *
 * Dirty logging needs no bitmap: a page is dirty when its type is P2M_RAM, every table above it is
 * writable, and its entry's dirty bit is set. Logging starts by taking the write permission from
 * the top level's entries only; it is pushed down, one table at a time, where the guest writes
 * (p2m_resolve).
 *
 * Entries are made with the accessed and the dirty bit set, so that the CPU has nothing to write.
 * The dirty bit of a page is cleared where somebody tracks a range (VRAM): it costs no fault, and
 * CPUs set it behind our back, so a change that would lose one sets it. While the whole domain is
 * logged the pages are write-protected instead: that can be handed down, and counted. */
struct p2m {
    spinlock_t lock;
    struct domain *d;
    uint64_t *root;
    uint32_t seq;
    uint64_t generation; /* counts changes that took RAM away from where it was; gpeek.c */
    struct list pool;    /* zeroed tables, unused */
    unsigned pool_count;
    uint64_t table_pages; /* all: root, linked, unlinked and pooled */
    gfn_t max_gfn;
    bool small_code;    /* large entries are not executable: executing splits them */
    bool logdirty;      /* logging the whole domain */
    bool logged;        /* it was or is: tables may be write-protected */
    bool tracking;      /* somebody cleaned a range without logging the whole (VRAM) */
    uint64_t dirty_bit; /* of an entry; 0: not used, clean pages are write-protected */
    uint64_t dirty_count;
};

/* What a change leaves to be done when the lock is released, by p2m_finish. */
struct p2m_change {
    bool flush;
    struct page_info *put; /* foreign page whose mapping was replaced */
    struct list dead;      /* unlinked trees of tables */
};

extern enum p2m_format p2m_format;
extern struct p2m_limits p2m_limits;

static inline unsigned pte_index(gfn_t gfn, unsigned level)
{
    return (gfn >> (9 * (level - 1))) & (TABLE_ENTRIES - 1);
}
static inline unsigned level_order(unsigned level)
{
    return 9 * (level - 1);
}
static inline bool pte_is_table(uint64_t e, unsigned level)
{
    return level > 1 && (e & (PTE_PRESENT | PTE_LARGE)) == PTE_PRESENT;
}
static inline uint64_t *pte_table(uint64_t e)
{
    return pa_to_virt(e & PTE_ADDR);
}
static inline enum p2m_type pte_type(uint64_t e)
{
    return (enum p2m_type)((e & PTE_TYPE) >> PTE_TYPE_SHIFT);
}
static inline mfn_t pte_mfn(uint64_t e) /* of a leaf that is present */
{
    return (e & PTE_ADDR) >> PAGE_SHIFT;
}
static inline bool pte_dirty(const struct p2m *p, uint64_t e)
{
    if (pte_type(e) == P2M_RAM)
        return (e & p->dirty_bit) == p->dirty_bit;
    return e & PTE_SW_DIRTY;
}
static inline struct page_info *table_page(const uint64_t *entry)
{
    return mfn_to_page(virt_to_mfn(entry));
}

/* A leaf entry of p at level. */
uint64_t pte_leaf(const struct p2m *p, mfn_t mfn, unsigned level, enum p2m_type t);
/* The same leaf with another type. */
uint64_t pte_retype(const struct p2m *p, uint64_t e, unsigned level, enum p2m_type t);

/* The entry that translates gfn, and its level. No lock needed. */
uint64_t p2m_lookup(struct p2m *p, gfn_t gfn, unsigned *level);

/* The rest with the lock held, but p2m_finish, which needs it released. */
void p2m_change_init(struct p2m_change *c);
void p2m_finish(struct p2m *p, struct p2m_change *c);
int p2m_set_entry(struct p2m *p, gfn_t gfn, uint64_t new, unsigned level, struct p2m_change *c);
void p2m_write_entry(uint64_t *entry, uint64_t new);
/* Make table entry *entry writable, handing its write protection down to its children. */
void p2m_resolve(struct p2m *p, uint64_t *entry, unsigned level);
/* Have n zeroed tables in the pool. -ENOMEM. */
int p2m_reserve(struct p2m *p, unsigned n);
/* Turn a hole or leaf into a table of the same translations; one table must be reserved. */
void p2m_split(struct p2m *p, uint64_t *entry, unsigned level);
/* gfn is written to: unprotect it, or mark it when its type stays. In logdirty.c. */
void p2m_make_dirty(struct p2m *p, gfn_t gfn);
/* Dirty pages below a table that is itself writable. */
uint64_t p2m_count_dirty(const struct p2m *p, const uint64_t *table, unsigned level);
