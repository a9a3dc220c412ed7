/* gwalk.c: walks a guest's own page tables as its processor would (APM 2, 5; SDM 3A, 4).
 *
 * A walk reads an entry at each level, judges the access by what all of them allow together, and
 * sets accessed and dirty bits last, by compare-and-swap: an entry that changed meanwhile starts
 * the walk again. Guest tables are only read and written with a reference to their page.
 */
#include "core/errno.h"
#include "core/string.h"
#include "domain/domain.h"
#include "domain/hvm.h"
#include "npt/inner.h"

#define GPTE_P  BIT(0)
#define GPTE_RW BIT(1)
#define GPTE_US BIT(2)
#define GPTE_A  BIT(5)
#define GPTE_D  BIT(6)
#define GPTE_PS BIT(7)
#define GPTE_NX BIT(63)

/* Page fault error code, APM 2, 8.4.2. */
#define PFEC_P    BIT(0)
#define PFEC_RW   BIT(1)
#define PFEC_US   BIT(2)
#define PFEC_RSVD BIT(3)
#define PFEC_ID   BIT(4)

#define RFLAGS_AC BIT(18)

#define MAX_TRIES 16 /* against a guest that keeps changing its tables: then it gets the fault */

enum walk_mode { WALK_32BIT, WALK_PAE, WALK_LONG };

static const struct {
    uint8_t levels, index_bits, entry_bytes;
    uint64_t cr3_mask;
} formats[] = {
    [WALK_32BIT] = {2, 10, 4, 0xfffff000},
    [WALK_PAE] = {3, 9, 8, 0xffffffe0},
    [WALK_LONG] = {4, 9, 8, PTE_ADDR},
};

struct walk {
    struct domain *d;
    const struct gwalk_mode *m;
    enum walk_mode mode;
    bool nx_on;
    struct {
        paddr_t gpa;
        uint64_t value;
    } entry[5];      /* by level, of those that were read */
    unsigned leaf;   /* level */
    bool rw, us, nx; /* of all levels together */
};

static uint64_t bits(unsigned high, unsigned low) /* high may be below low: none */
{
    return high < low ? 0 : (~0ULL >> (63 - high)) & ~(BIT(low) - 1);
}

static int read_entry(struct walk *w, paddr_t gpa, uint64_t *value)
{
    struct page_info *pg = p2m_get_page(w->d, gpa >> PAGE_SHIFT, false, NULL);
    const char *at;

    if (!pg)
        return -EFAULT;
    at = (const char *)page_to_virt(pg) + (gpa & ~PAGE_MASK);
    *value =
        w->mode == WALK_32BIT ? READ_ONCE(*(const uint32_t *)at) : READ_ONCE(*(const uint64_t *)at);
    page_put(pg);
    return 0;
}

/* Set bits in an entry that still is what the walk saw. ROM drops the write. -EAGAIN. */
static int update_entry(struct walk *w, paddr_t gpa, uint64_t old, uint64_t new)
{
    struct page_info *pg = p2m_get_page(w->d, gpa >> PAGE_SHIFT, true, NULL);
    bool done;
    char *at;

    if (!pg)
        return 0;
    at = (char *)page_to_virt(pg) + (gpa & ~PAGE_MASK);
    if (w->mode == WALK_32BIT)
        done = atomic_cas((uint32_t *)at, (uint32_t)old, (uint32_t) new);
    else
        done = atomic_cas((uint64_t *)at, old, new);
    page_put(pg);
    if (p2m_logdirty_enabled(w->d))
        p2m_mark_dirty(w->d, gpa >> PAGE_SHIFT);
    return done ? 0 : -EAGAIN;
}

static bool is_pdpte(const struct walk *w, unsigned level)
{
    return w->mode == WALK_PAE && level == 3;
}

static bool is_leaf(const struct walk *w, uint64_t e, unsigned level)
{
    if (level == 1)
        return true;
    if (!(e & GPTE_PS) || level == 4 || is_pdpte(w, level))
        return false;
    return w->mode != WALK_32BIT || (w->m->cr4 & CR4_PSE);
}

/* Bits that must be 0 in an entry (SDM 3A, tables 4-4 to 4-20; APM 2, 5.3 and 5.2). PAE directory
 * pointers are not checked: hardware does when CR3 is loaded, not on a walk (emulators.md). */
static uint64_t reserved_bits(const struct walk *w, uint64_t e, unsigned level)
{
    unsigned width = p2m_limits.gpa_bits;
    uint64_t r;

    if (is_pdpte(w, level))
        return 0;
    if (w->mode == WALK_32BIT) {
        if (level == 1 || !is_leaf(w, e, level))
            return 0;
        /* PSE-36: bits 20:13 are the address's 39:32, as far as there are. */
        return BIT(21) | (width < 40 ? bits(20, 13 + MAX(width, 32u) - 32) : 0);
    }
    r = bits(51, width) | (w->nx_on ? 0 : GPTE_NX);
    if (w->mode == WALK_PAE)
        r |= bits(62, 52);
    if (level == 4)
        r |= GPTE_PS;
    else if (level > 1 && is_leaf(w, e, level))
        r |= bits(level == 3 ? 29 : 20, 13);
    return r;
}

/* Read the entries down to the leaf. 0, or -EFAULT with the error code's P and RSVD in *pfec. */
static int descend(struct walk *w, uint64_t linear, uint32_t *pfec)
{
    unsigned index_bits = formats[w->mode].index_bits;
    paddr_t table = w->m->cr3 & formats[w->mode].cr3_mask;

    *pfec = 0;
    w->rw = w->us = true;
    w->nx = false;
    for (unsigned level = formats[w->mode].levels;; level--) {
        unsigned shift = PAGE_SHIFT + index_bits * (level - 1);
        uint64_t e, index = (linear >> shift) & (BIT(index_bits) - 1);
        paddr_t gpa = table + index * formats[w->mode].entry_bytes;

        if (read_entry(w, gpa, &e) || !(e & GPTE_P))
            return -EFAULT;
        if (e & reserved_bits(w, e, level)) {
            *pfec = PFEC_P | PFEC_RSVD;
            return -EFAULT;
        }
        w->entry[level].gpa = gpa;
        w->entry[level].value = e;
        if (!is_pdpte(w, level)) {
            w->rw = w->rw && (e & GPTE_RW);
            w->us = w->us && (e & GPTE_US);
            w->nx = w->nx || (w->nx_on && (e & GPTE_NX));
        }
        if (is_leaf(w, e, level)) {
            w->leaf = level;
            return 0;
        }
        table = e & (w->mode == WALK_32BIT ? 0xfffff000 : PTE_ADDR);
    }
}

/* SDM 3A, 4.6.1. */
static bool allowed(const struct walk *w, unsigned access)
{
    const struct gwalk_mode *m = w->m;
    bool write = access & GWALK_WRITE, fetch = access & GWALK_FETCH;

    if (fetch && w->nx)
        return false;
    if (access & GWALK_USER)
        return w->us && (!write || w->rw);
    if (write && !w->rw && (m->cr0 & CR0_WP))
        return false;
    if (!w->us)
        return true;
    if (fetch)
        return !(m->cr4 & CR4_SMEP);
    return !(m->cr4 & CR4_SMAP) || (m->rflags & RFLAGS_AC) || (access & GWALK_IMPLICIT);
}

static int set_accessed_dirty(struct walk *w, bool write)
{
    for (unsigned level = formats[w->mode].levels; level >= w->leaf; level--) {
        uint64_t e = w->entry[level].value, want = GPTE_A;

        if (is_pdpte(w, level))
            continue;
        if (write && level == w->leaf)
            want |= GPTE_D;
        if ((e & want) != want && update_entry(w, w->entry[level].gpa, e, e | want))
            return -EAGAIN;
    }
    return 0;
}

static paddr_t leaf_address(const struct walk *w, uint64_t linear)
{
    uint64_t e = w->entry[w->leaf].value;
    uint64_t span = 1ULL << (PAGE_SHIFT + formats[w->mode].index_bits * (w->leaf - 1));
    uint64_t base = e & PTE_ADDR;

    if (w->mode == WALK_32BIT) {
        base = e & 0xfffff000;
        if (w->leaf == 2)
            base = (e & 0xffc00000) | ((e & bits(20, 13)) << (32 - 13));
    }
    return (base & ~(span - 1)) | (linear & (span - 1));
}

int guest_walk(struct domain *d, const struct gwalk_mode *m, uint64_t linear, unsigned access,
               paddr_t *gpa, uint32_t *pfec)
{
    struct walk w = {.d = d, .m = m, .mode = WALK_LONG};
    uint32_t code = 0;

    if (!(m->cr0 & CR0_PG)) {
        *gpa = (uint32_t)linear;
        return 0;
    }
    if (!(m->cr4 & CR4_PAE))
        w.mode = WALK_32BIT;
    else if (!(m->efer & EFER_LMA))
        w.mode = WALK_PAE;
    if (w.mode != WALK_LONG)
        linear = (uint32_t)linear;
    w.nx_on = w.mode != WALK_32BIT && (m->efer & EFER_NXE);

    for (unsigned try = 0; try < MAX_TRIES; try++) {
        if (descend(&w, linear, &code))
            break;
        if (!allowed(&w, access)) {
            code = PFEC_P;
            break;
        }
        if (!set_accessed_dirty(&w, access & GWALK_WRITE)) {
            *gpa = leaf_address(&w, linear);
            return 0;
        }
    }
    if (access & GWALK_WRITE)
        code |= PFEC_RW;
    if (access & GWALK_USER)
        code |= PFEC_US;
    /* SDM 3A, 4.7: the flag is only there with a feature that needs it. */
    if ((access & GWALK_FETCH) && (w.nx_on || (m->cr4 & CR4_SMEP)))
        code |= PFEC_ID;
    *pfec = code;
    return -EFAULT;
}
