/* logdirty.c: dirty logging, kept in the entries themselves: a page is dirty when it is writable
 * and, where the CPU keeps one, has its dirty bit set.
 *
 * Enabling takes the write permission from the entries of the top level, whatever the size of the
 * domain; p2m_resolve hands it down where somebody writes. A clean page is P2M_LOGDIRTY, or lies
 * below a table that is not writable.
 */
#include "core/errno.h"
#include "core/string.h"
#include "domain/domain.h"
#include "npt/inner.h"

/* Dirty pages below a table that is itself writable. */
uint64_t p2m_count_dirty(const struct p2m *p, const uint64_t *table, unsigned level)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        uint64_t e = table[i];

        if (pte_is_table(e, level))
            n += e & PTE_WRITE ? p2m_count_dirty(p, pte_table(e), level - 1) : 0;
        else if (pte_dirty(p, e))
            n += 1ULL << level_order(level);
    }
    return n;
}

int p2m_logdirty_enable(struct domain *d)
{
    struct p2m *p = d->p2m;

    spin_lock(&p->lock);
    p->logdirty = p->logged = true;
    p->dirty_count = 0;
    for (unsigned i = 0; i < TABLE_ENTRIES; i++)
        if (p->root[i])
            WRITE_ONCE(p->root[i], p->root[i] & ~PTE_WRITE);
    spin_unlock(&p->lock);
    domain_flush_tlb(d);
    return 0;
}

/* What is still protected is unprotected when it is written to. */
void p2m_logdirty_disable(struct domain *d)
{
    struct p2m *p = d->p2m;

    spin_lock(&p->lock);
    p->logdirty = false;
    p->dirty_count = 0;
    for (unsigned i = 0; i < TABLE_ENTRIES; i++)
        if (p->root[i])
            WRITE_ONCE(p->root[i], p->root[i] | PTE_WRITE);
    spin_unlock(&p->lock);
}

/* What was clean by its dirty bit counts as dirty once more. */
void p2m_forgo_dirty_bits(struct domain *d)
{
    struct p2m *p = d->p2m;

    spin_lock(&p->lock);
    p->dirty_bit = 0;
    spin_unlock(&p->lock);
}

bool p2m_dirty_bits(const struct domain *d)
{
    return READ_ONCE(d->p2m->dirty_bit);
}

bool p2m_logdirty_enabled(const struct domain *d)
{
    return READ_ONCE(d->p2m->logdirty);
}

uint64_t p2m_dirty_count(const struct domain *d)
{
    return READ_ONCE(d->p2m->dirty_count);
}

/* Split a protected large leaf down to the page while somebody wants to know which page; without
 * memory for that the whole leaf is dirty. */
static bool want_split(struct p2m *p, unsigned level)
{
    return level > 1 && (p->logdirty || p->tracking) && !p2m_reserve(p, level - 1);
}

/* What the leaf e becomes when its pages are written to. */
static uint64_t dirtied(const struct p2m *p, uint64_t e, unsigned level)
{
    enum p2m_type t = pte_type(e);

    if (t == P2M_LOGDIRTY)
        return pte_retype(p, e, level, P2M_RAM);
    if (t == P2M_RAM)
        return e | p->dirty_bit;
    return p->logdirty && p2m_is_ram(t) ? e | PTE_SW_DIRTY : e;
}

void p2m_make_dirty(struct p2m *p, gfn_t gfn)
{
    uint64_t *table = p->root;

    for (unsigned level = P2M_LEVELS;; level--) {
        uint64_t *entry = &table[pte_index(gfn, level)], e = *entry, new;

        if (!pte_is_table(e, level)) {
            new = dirtied(p, e, level);
            if (new == e)
                return;
            if (!want_split(p, level)) {
                if (p->logdirty)
                    p->dirty_count += 1ULL << level_order(level);
                p2m_write_entry(entry, new);
                return;
            }
            p2m_split(p, entry, level);
        }
        p2m_resolve(p, entry, level);
        table = pte_table(*entry);
    }
}

void p2m_mark_dirty(struct domain *d, gfn_t gfn)
{
    struct p2m *p = d->p2m;
    unsigned level;

    if (gfn >> (p2m_gpa_bits - PAGE_SHIFT))
        return;
    if (!p->logged && pte_dirty(p, p2m_lookup(p, gfn, &level)))
        return; /* most pages, while only VRAM is tracked */
    spin_lock(&p->lock);
    if (p->logdirty || p->tracking)
        p2m_make_dirty(p, gfn);
    spin_unlock(&p->lock);
}

/* The entry to look at for gfn and its level: a leaf, or a table that is clean as a whole. */
static uint64_t *find_entry(struct p2m *p, gfn_t gfn, unsigned *level)
{
    uint64_t *table = p->root;

    for (unsigned l = P2M_LEVELS;; l--) {
        uint64_t *entry = &table[pte_index(gfn, l)];

        if (!pte_is_table(*entry, l) || !(*entry & PTE_WRITE)) {
            *level = l;
            return entry;
        }
        table = pte_table(*entry);
    }
}

/* The dirty leaf *entry is clean from now on; its translations must be flushed. One that is large
 * is protected, so that the next write splits it. */
static void make_clean(struct p2m *p, uint64_t *entry, unsigned level)
{
    uint64_t e = *entry;

    if (p->dirty_bit && level == 1 && !p->logdirty && pte_type(e) == P2M_RAM) {
        atomic_and(entry, ~p->dirty_bit);
        return;
    }
    if (p->logdirty)
        p->dirty_count -= 1ULL << level_order(level);
    p2m_write_entry(entry, pte_type(e) == P2M_RAM ? pte_retype(p, e, level, P2M_LOGDIRTY)
                                                  : e & ~PTE_SW_DIRTY);
}

static void set_bits(uint8_t *bitmap, uint64_t first, uint64_t n)
{
    for (; bitmap && n; first++, n--) {
        if (!(first % 8) && n >= 8) {
            bitmap[first / 8] = 0xff;
            first += 7;
            n -= 7;
        } else {
            bitmap[first / 8] |= (uint8_t)(1u << first % 8);
        }
    }
}

/* Look at the entry that has gfn: how many of at most `count` pages from gfn on it answers for, and
 * whether they are dirty. */
static uint64_t scan_entry(struct p2m *p, gfn_t gfn, uint64_t count, bool clean, bool *dirty)
{
    for (;;) {
        unsigned level;
        uint64_t *entry = find_entry(p, gfn, &level);
        uint64_t span = 1ULL << level_order(level);
        uint64_t n = MIN(count, span - (gfn & (span - 1)));

        *dirty = !pte_is_table(*entry, level) && pte_dirty(p, *entry);
        if (!*dirty || !clean)
            return n;
        if (n == span) {
            make_clean(p, entry, level);
            return n;
        }
        if (p2m_reserve(p, 1))
            return n; /* only a part was asked for, and cannot be told apart: all stays dirty */
        p2m_split(p, entry, level);
    }
}

int64_t p2m_logdirty_range(struct domain *d, gfn_t first, uint64_t count, uint8_t *bitmap,
                           bool clean)
{
    struct p2m *p = d->p2m;
    uint64_t limit = 1ULL << (p2m_gpa_bits - PAGE_SHIFT);
    int64_t found = 0;

    if (bitmap)
        memset(bitmap, 0, (count + 7) / 8);
    if (first >= limit)
        return 0;
    count = MIN(count, limit - first);
    spin_lock(&p->lock);
    if (clean && !p->logdirty)
        p->tracking = true;
    for (uint64_t done = 0; done < count;) {
        bool dirty;
        uint64_t n = scan_entry(p, first + done, count - done, clean, &dirty);

        if (dirty) {
            set_bits(bitmap, done, n);
            found += (int64_t)n;
        }
        done += n;
        if (!(done % TABLE_ENTRIES)) { /* let others in */
            spin_unlock(&p->lock);
            spin_lock(&p->lock);
        }
    }
    spin_unlock(&p->lock);
    if (clean && found)
        domain_flush_tlb(d);
    return found;
}
