/* p2m.c: the p2m's tree of tables: looking up, setting, splitting, taking down. */
#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "domain/domain.h"
#include "npt/inner.h"

enum p2m_format p2m_format;
struct p2m_limits p2m_limits;
unsigned p2m_gpa_bits = 48;

/* What the hardware allows for each type; 0 is not present. */
static const uint8_t type_access[P2M_NR_TYPES] = {
    [P2M_HOLE] = 0,
    [P2M_RAM] = PTE_PRESENT | PTE_USER_EXEC | PTE_WRITE,
    [P2M_RAM_RO] = PTE_PRESENT | PTE_USER_EXEC,
    [P2M_LOGDIRTY] = PTE_PRESENT | PTE_USER_EXEC,
    [P2M_MMIO_DIRECT] = PTE_PRESENT | PTE_USER_EXEC | PTE_WRITE,
    [P2M_MMIO_DM] = 0,
    [P2M_GRANT_RW] = PTE_PRESENT | PTE_USER_EXEC | PTE_WRITE,
    [P2M_GRANT_RO] = PTE_PRESENT | PTE_USER_EXEC,
    [P2M_FOREIGN_RW] = PTE_PRESENT | PTE_USER_EXEC | PTE_WRITE,
    [P2M_FOREIGN_RO] = PTE_PRESENT | PTE_USER_EXEC,
    [P2M_IOREQ_SERVER] = PTE_PRESENT | PTE_USER_EXEC,
};

void p2m_setup(enum p2m_format format, struct p2m_limits limits)
{
    p2m_format = format;
    p2m_limits = limits;
    p2m_gpa_bits = MIN(limits.gpa_bits, 48u); /* what four levels reach */
}

/* ---- entries ------------------------------------------------------------------------------ */

/* Device memory: EPT replaces the MTRRs, so it must say UC (a guest's PAT can still make it WC).
 * Under NPT the host's MTRRs hold, so dom0's identity map leaves the choice to them and its PAT. */
static uint64_t memory_type(const struct p2m *p, enum p2m_type t)
{
    if (p2m_format == P2M_FORMAT_EPT)
        return t == P2M_MMIO_DIRECT ? 0 : EPT_WB;
    return t == P2M_MMIO_DIRECT && !p->d->is_dom0 ? NPT_UC : 0;
}

uint64_t pte_leaf(const struct p2m *p, mfn_t mfn, unsigned level, enum p2m_type t)
{
    uint64_t e = (uint64_t)t << PTE_TYPE_SHIFT;

    if (!type_access[t])
        return e;
    if (p->small_code && level > 1)
        e |= type_access[t] & (uint8_t)~PTE_USER_EXEC;
    else
        e |= type_access[t];
    e |= p->dirty_bit | p->dirty_bit >> 1;
    return e | memory_type(p, t) | mfn << PAGE_SHIFT | (level > 1 ? PTE_LARGE : 0);
}

uint64_t pte_retype(const struct p2m *p, uint64_t e, unsigned level, enum p2m_type t)
{
    return pte_leaf(p, pte_mfn(e), level, t);
}

/* A leaf for a page that somebody just put there: while logging, its contents are news. */
static uint64_t new_leaf(const struct p2m *p, mfn_t mfn, unsigned level, enum p2m_type t)
{
    bool dirty = p->logdirty && (t == P2M_RAM_RO || t == P2M_IOREQ_SERVER);

    return pte_leaf(p, mfn, level, t) | (dirty ? PTE_SW_DIRTY : 0);
}

/* The i-th part, one level lower, of the leaf e at level. */
static uint64_t leaf_part(uint64_t e, unsigned level, unsigned i)
{
    if (!(e & PTE_PRESENT))
        return e;
    if (level == 2)
        e = (e & ~PTE_LARGE) | type_access[pte_type(e)];
    return e + ((uint64_t)i << (PAGE_SHIFT + level_order(level - 1)));
}

static bool is_foreign(uint64_t e)
{
    return pte_type(e) == P2M_FOREIGN_RW || pte_type(e) == P2M_FOREIGN_RO;
}

/* Translations of the leaf old may be cached, and must not be used once it is now. */
static bool needs_flush(uint64_t old, uint64_t now)
{
    if (!(old & PTE_PRESENT))
        return false;
    return !(now & PTE_PRESENT) || (old & ~now & PTE_WRITE) ||
           ((old ^ now) & (PTE_ADDR | PTE_MEMTYPE));
}

/* ---- looking up --------------------------------------------------------------------------- */

/* One try; false when a table was unlinked meanwhile. The check comes before each step down, so
 * that only entries read from linked tables are followed. */
static bool try_lookup(struct p2m *p, gfn_t gfn, uint64_t *e, unsigned *level)
{
    uint32_t seq = atomic_load(&p->seq);
    const uint64_t *table = p->root;

    for (unsigned l = P2M_LEVELS;; l--) {
        *e = atomic_load(&table[pte_index(gfn, l)]);
        if (unlikely(atomic_load(&p->seq) != seq))
            return false;
        if (!pte_is_table(*e, l)) {
            *level = l;
            return true;
        }
        table = pte_table(*e);
    }
}

uint64_t p2m_lookup(struct p2m *p, gfn_t gfn, unsigned *level)
{
    uint64_t e;

    if (unlikely(gfn >> (p2m_gpa_bits - PAGE_SHIFT))) {
        *level = 1;
        return 0;
    }
    while (!try_lookup(p, gfn, &e, level)) /* again only after another CPU's progress */
        __builtin_ia32_pause();
    return e;
}

mfn_t p2m_get(struct domain *d, gfn_t gfn, enum p2m_type *t, unsigned *order)
{
    unsigned level;
    uint64_t e = p2m_lookup(d->p2m, gfn, &level);

    if (t)
        *t = pte_type(e);
    if (order)
        *order = level_order(MIN(level, 3u));
    if (!(e & PTE_PRESENT))
        return INVALID_MFN;
    return pte_mfn(e) + (gfn & ((1ULL << level_order(level)) - 1));
}

struct page_info *p2m_get_page(struct domain *d, gfn_t gfn, bool write, enum p2m_type *t)
{
    struct p2m *p = d->p2m;
    enum p2m_type type, again;
    struct page_info *pg;
    mfn_t mfn = p2m_get(d, gfn, &type, NULL);

    if (t)
        *t = type;
    if (!p2m_is_mapped(type) || (write && !p2m_is_writable(type)) || !mfn_valid(mfn))
        return NULL;
    pg = mfn_to_page(mfn);
    if (!page_get(pg, p2m_is_ram(type) ? d : NULL))
        return NULL;
    /* Another's page is ours to use only while it is mapped: look again, now that it stays. */
    if (!p2m_is_ram(type) && (p2m_get(d, gfn, &again, NULL) != mfn || again != type)) {
        page_put(pg);
        return NULL;
    }
    if (write && (p->logdirty || p->tracking))
        p2m_mark_dirty(d, gfn);
    return pg;
}

/* ---- tables ------------------------------------------------------------------------------- */

/* A guest that maps its pages far apart pays for it: tables are limited by its memory. */
static bool may_have_tables(const struct p2m *p, uint64_t more)
{
    return p->d->is_dom0 || p->table_pages + more <= 1024 + READ_ONCE(p->d->max_pages) / 64;
}

int p2m_reserve(struct p2m *p, unsigned n)
{
    while (p->pool_count < n) {
        struct page_info *pg = may_have_tables(p, 1) ? heap_alloc(0) : NULL;

        if (!pg)
            return -ENOMEM;
        list_add(&p->pool, &pg->list);
        p->pool_count++;
        p->table_pages++;
    }
    return 0;
}

static uint64_t *table_take(struct p2m *p)
{
    struct page_info *pg;

    ASSERT(p->pool_count);
    pg = list_first(&p->pool, struct page_info, list);
    list_del(&pg->list);
    p->pool_count--;
    pg->spare = 0;
    return page_to_virt(pg);
}

void p2m_write_entry(uint64_t *entry, uint64_t new)
{
    table_page(entry)->spare += (uint32_t)(new != 0) - (uint32_t)(*entry != 0);
    atomic_store(entry, new);
}

void p2m_split(struct p2m *p, uint64_t *entry, unsigned level)
{
    uint64_t *table = table_take(p), e = *entry;

    if (e) {
        for (unsigned i = 0; i < TABLE_ENTRIES; i++)
            table[i] = leaf_part(e, level, i);
        table_page(table)->spare = TABLE_ENTRIES;
    }
    p2m_write_entry(entry, virt_to_pa(table) | PTE_TABLE);
}

void p2m_resolve(struct p2m *p, uint64_t *entry, unsigned level)
{
    uint64_t *table = pte_table(*entry);

    if (likely(*entry & PTE_WRITE))
        return;
    for (unsigned i = 0; p->logdirty && i < TABLE_ENTRIES; i++) {
        uint64_t e = table[i];

        if (pte_is_table(e, level - 1))
            WRITE_ONCE(table[i], e & ~PTE_WRITE);
        else if (pte_type(e) == P2M_RAM)
            WRITE_ONCE(table[i], pte_retype(p, e, level - 1, P2M_LOGDIRTY));
        else
            WRITE_ONCE(table[i], e & ~PTE_SW_DIRTY);
    }
    atomic_store(entry, *entry | PTE_WRITE);
}

/* Take the table that *entry points to out of the tree; the caller has overwritten the entry. */
static void unlink_table(struct p2m *p, uint64_t *table, unsigned level, struct p2m_change *c)
{
    table_page(table)->pad = (uint16_t)level;
    list_add(&c->dead, &table_page(table)->list);
    c->flush = true; /* the CPUs cache pointers to tables, too */
    atomic_add(&p->seq, 1);
}

void p2m_change_init(struct p2m_change *c)
{
    c->flush = false;
    c->put = NULL;
    list_init(&c->dead);
}

/* Put the references of an unlinked tree and collect its tables, zeroed, in `pages`. */
static unsigned drop_tree(uint64_t *table, unsigned level, struct list *pages)
{
    unsigned n = 1;

    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        if (pte_is_table(table[i], level))
            n += drop_tree(pte_table(table[i]), level - 1, pages);
        else if (is_foreign(table[i]))
            page_put(mfn_to_page(pte_mfn(table[i])));
    }
    memset(table, 0, PAGE_SIZE);
    list_add(pages, &table_page(table)->list);
    return n;
}

void p2m_finish(struct p2m *p, struct p2m_change *c)
{
    struct list pages = LIST_INIT(pages);
    unsigned n = 0;

    if (c->flush)
        domain_flush_tlb(p->d);
    if (c->put)
        page_put(c->put);
    while (!list_empty(&c->dead)) {
        struct page_info *pg = list_first(&c->dead, struct page_info, list);

        list_del(&pg->list);
        n += drop_tree(page_to_virt(pg), pg->pad, &pages);
    }
    if (n) {
        spin_lock(&p->lock);
        while (!list_empty(&pages)) {
            struct list *l = pages.next;

            list_del(l);
            list_add(&p->pool, l);
        }
        p->pool_count += n;
        spin_unlock(&p->lock);
    }
    p2m_change_init(c);
}

/* ---- setting ------------------------------------------------------------------------------ */

/* An entry became a hole: tables with nothing in them leave the tree. */
static void prune(struct p2m *p, uint64_t **path, unsigned level, uint64_t *table,
                  struct p2m_change *c)
{
    for (; level < P2M_LEVELS && !table_page(table)->spare; level++) {
        uint64_t *parent = path[level + 1];

        p2m_write_entry(parent, 0);
        unlink_table(p, table, level, c);
        table = page_to_virt(table_page(parent));
    }
}

static void account_dirty(struct p2m *p, uint64_t old, uint64_t new, unsigned level)
{
    uint64_t pages = 1ULL << level_order(level);

    if (!p->logdirty)
        return;
    if (pte_is_table(old, level))
        p->dirty_count -= p2m_count_dirty(p, pte_table(old), level - 1);
    else if (pte_dirty(p, old))
        p->dirty_count -= pages;
    if (pte_dirty(p, new))
        p->dirty_count += pages;
}

/* Make new (a leaf at level, or 0) the entry of gfn. -ENOMEM: no translation changed. */
int p2m_set_entry(struct p2m *p, gfn_t gfn, uint64_t new, unsigned level, struct p2m_change *c)
{
    uint64_t *path[P2M_LEVELS + 1], *table = p->root, *entry, old;
    bool reserved = false;

    for (unsigned l = P2M_LEVELS; l > level; l--) {
        entry = path[l] = &table[pte_index(gfn, l)];
        if (pte_is_table(*entry, l)) {
            p2m_resolve(p, entry, l);
        } else {
            if (!*entry && !new)
                return 0;
            if (!reserved && p2m_reserve(p, l - level))
                return -ENOMEM;
            reserved = true;
            p2m_split(p, entry, l);
        }
        table = pte_table(*entry);
    }
    entry = &table[pte_index(gfn, level)];
    if (pte_is_table(*entry, level) && p->logdirty)
        p2m_resolve(p, entry, level); /* so that dirty pages in it are counted rightly */
    old = *entry;
    account_dirty(p, old, new, level);
    p2m_write_entry(entry, new);
    if (pte_is_table(old, level)) {
        unlink_table(p, pte_table(old), level - 1, c);
        atomic_add(&p->generation, 1);
    } else {
        c->flush |= needs_flush(old, new);
        if (needs_flush(old, new) && p2m_is_ram(pte_type(old)))
            atomic_add(&p->generation, 1);
        if (is_foreign(old))
            c->put = mfn_to_page(pte_mfn(old));
    }
    if (new)
        p->max_gfn = MAX(p->max_gfn, gfn | ((1ULL << level_order(level)) - 1));
    else
        prune(p, path, level, table, c);
    return 0;
}

/* Entries that are not present may have any size. */
static bool level_supported(unsigned level, enum p2m_type t)
{
    return level == 1 || !type_access[t] ||
           (level == 2 ? p2m_limits.large_2m : p2m_limits.large_1g);
}

static bool valid_request(gfn_t gfn, mfn_t mfn, unsigned order, enum p2m_type t)
{
    uint64_t frames = 1ULL << order, limit = 1ULL << (p2m_gpa_bits - PAGE_SHIFT);

    if ((order != ORDER_4K && order != ORDER_2M && order != ORDER_1G) || t >= P2M_NR_TYPES)
        return false;
    if ((gfn & (frames - 1)) || gfn >= limit || frames > limit - gfn)
        return false;
    if (!type_access[t])
        return true;
    if (order && p2m_is_mapped(t) && !p2m_is_ram(t))
        return false; /* grants and foreign pages come one by one */
    return !(mfn & (frames - 1)) && mfn <= (PTE_ADDR >> PAGE_SHIFT) - (frames - 1);
}

int p2m_set(struct domain *d, gfn_t gfn, mfn_t mfn, unsigned order, enum p2m_type t)
{
    struct p2m *p = d->p2m;
    struct p2m_change c;
    unsigned level = order / 9 + 1;
    int err;

    if (!valid_request(gfn, mfn, order, t))
        return -EINVAL;
    /* Smaller entries instead can fail at the first only, which makes their common table. */
    if (!level_supported(level, t))
        return p2m_set_range(d, gfn, mfn, 1ULL << order, t);
    p2m_change_init(&c);
    spin_lock(&p->lock);
    err = p2m_set_entry(p, gfn, new_leaf(p, mfn, level, t), level, &c);
    spin_unlock(&p->lock);
    p2m_finish(p, &c);
    return err;
}

static unsigned largest_order(gfn_t gfn, mfn_t mfn, uint64_t count, enum p2m_type t)
{
    for (unsigned level = 3; level > 1; level--) {
        uint64_t frames = 1ULL << level_order(level);

        if (level_supported(level, t) && !((gfn | mfn) & (frames - 1)) && count >= frames)
            return level_order(level);
    }
    return ORDER_4K;
}

int p2m_set_range(struct domain *d, gfn_t gfn, mfn_t mfn, uint64_t count, enum p2m_type t)
{
    struct p2m *p = d->p2m;
    struct p2m_change c;
    int err = 0;

    p2m_change_init(&c);
    spin_lock(&p->lock);
    while (!err && count) {
        unsigned order = largest_order(gfn, type_access[t] ? mfn : 0, count, t);
        unsigned level = order / 9 + 1;

        err = -EINVAL;
        if (valid_request(gfn, mfn, order, t))
            err = p2m_set_entry(p, gfn, new_leaf(p, mfn, level, t), level, &c);
        gfn += 1ULL << order;
        mfn += 1ULL << order;
        count -= 1ULL << order;
        if (c.put || !list_empty(&c.dead)) { /* the change has room for one page only */
            spin_unlock(&p->lock);
            p2m_finish(p, &c);
            spin_lock(&p->lock);
        }
    }
    spin_unlock(&p->lock);
    p2m_finish(p, &c);
    return err;
}

static bool may_change_type(enum p2m_type t)
{
    return t == P2M_HOLE || t == P2M_MMIO_DM || p2m_is_ram(t);
}

int p2m_change_type(struct domain *d, gfn_t gfn, enum p2m_type from, enum p2m_type to)
{
    struct p2m *p = d->p2m;
    struct p2m_change c;
    enum p2m_type have;
    int err = -EBUSY;
    mfn_t mfn;

    if (!may_change_type(from) || !may_change_type(to) || (p2m_is_ram(to) && !p2m_is_ram(from)) ||
        gfn >> (p2m_gpa_bits - PAGE_SHIFT))
        return -EINVAL;
    p2m_change_init(&c);
    spin_lock(&p->lock);
    mfn = p2m_get(d, gfn, &have, NULL);
    if (have == from || (have == P2M_LOGDIRTY && from == P2M_RAM)) /* dirty logging is not seen */
        err = p2m_set_entry(p, gfn, new_leaf(p, mfn, 1, to), 1, &c);
    spin_unlock(&p->lock);
    p2m_finish(p, &c);
    return err;
}

/* ---- life cycle --------------------------------------------------------------------------- */

int p2m_init(struct domain *d)
{
    struct p2m *p = kzalloc(sizeof(*p));

    if (!p)
        return -ENOMEM;
    p->root = page_alloc();
    if (!p->root) {
        kfree(p);
        return -ENOMEM;
    }
    spin_lock_init(&p->lock);
    list_init(&p->pool);
    p->d = d;
    p->table_pages = 1;
    p->small_code = p2m_limits.large_code_unsafe && !d->is_dom0;
    if (p2m_limits.dirty_bits)
        p->dirty_bit = p2m_format == P2M_FORMAT_EPT ? EPT_DIRTY : NPT_DIRTY;
    p->generation = 1; /* what no vCPU remembers yet */
    d->p2m = p;
    return 0;
}

/* Unlink the first last-level table or large leaf; false when there is none any more. */
static bool drop_first(struct p2m *p)
{
    uint64_t *path[P2M_LEVELS + 1], *table = p->root, *entry = NULL;
    unsigned level = P2M_LEVELS;
    struct p2m_change c;

    p2m_change_init(&c);
    spin_lock(&p->lock);
    if (!table_page(table)->spare) {
        spin_unlock(&p->lock);
        return false;
    }
    for (;; level--) {
        unsigned i = 0;

        while (!table[i])
            i++;
        entry = path[level] = &table[i];
        if (level == 2 || !pte_is_table(*entry, level))
            break;
        table = pte_table(*entry);
    }
    if (pte_is_table(*entry, level))
        unlink_table(p, pte_table(*entry), level - 1, &c);
    p2m_write_entry(entry, 0); /* large leaves hold no reference */
    prune(p, path, level, table, &c);
    spin_unlock(&p->lock);
    c.flush = false; /* no vCPU of a dead domain runs; p2m_teardown flushed */
    p2m_finish(p, &c);
    return true;
}

int p2m_teardown(struct domain *d)
{
    struct p2m *p = d->p2m;

    if (!p)
        return 0;
    domain_flush_tlb(d);
    p->logdirty = false;
    while (drop_first(p))
        if (hypercall_preempt_check())
            return -ERESTART;
    return 0;
}

void p2m_free(struct domain *d)
{
    struct p2m *p = d->p2m;

    if (!p)
        return;
    while (drop_first(p)) /* something is left only when the domain's creation failed */
        ;
    while (p->pool_count)
        page_free(table_take(p));
    page_free(p->root);
    d->p2m = NULL;
    kfree(p);
}

paddr_t p2m_root(const struct domain *d)
{
    return virt_to_pa(d->p2m->root);
}

uint64_t p2m_table_pages(const struct domain *d)
{
    return READ_ONCE(d->p2m->table_pages);
}

uint64_t p2m_max_gfn(const struct domain *d)
{
    return READ_ONCE(d->p2m->max_gfn);
}
