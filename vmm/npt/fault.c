/* fault.c: what to do about a nested page fault. */
#include "core/errno.h"
#include "domain/domain.h"
#include "npt/inner.h"

/* Device memory of dom0's that was not known at boot: map it where it is, 2 MiB at a time when all
 * of them may be. */
static enum p2m_fault_result map_mmio(struct domain *d, gfn_t gfn)
{
    struct p2m *p = d->p2m;
    gfn_t base = ALIGN_DOWN(gfn, 1ULL << ORDER_2M);
    struct p2m_change c;
    unsigned level;
    bool large = p2m_limits.large_2m;
    int err = 0;

    p2m_lookup(p, gfn, &level);
    for (unsigned i = 0; level > 1 && large && i < TABLE_ENTRIES; i++)
        large = dom0_may_map_mmio(base + i);
    p2m_change_init(&c);
    spin_lock(&p->lock);
    if (!p2m_lookup(p, gfn, &level)) { /* still a hole */
        if (large && level > 1)
            err = p2m_set_entry(p, base, pte_leaf(p, base, 2, P2M_MMIO_DIRECT), 2, &c);
        else
            err = p2m_set_entry(p, gfn, pte_leaf(p, gfn, 1, P2M_MMIO_DIRECT), 1, &c);
    }
    spin_unlock(&p->lock);
    p2m_finish(p, &c);
    return err ? P2M_FAULT_BAD : P2M_FAULT_RESOLVED;
}

/* The tables allow the access already: another vCPU was faster, or this one used a stale
 * translation, so give it a new tag. */
static enum p2m_fault_result spurious(struct vcpu *v)
{
    atomic_or(&v->work, VWORK_FLUSH_TLB);
    return P2M_FAULT_RESOLVED;
}

static enum p2m_fault_result write_fault(struct vcpu *v, gfn_t gfn)
{
    struct p2m *p = v->domain->p2m;
    unsigned level;
    uint64_t before = p2m_lookup(p, gfn, &level);

    spin_lock(&p->lock);
    p2m_make_dirty(p, gfn);
    spin_unlock(&p->lock);
    return pte_type(before) == P2M_LOGDIRTY ? P2M_FAULT_RESOLVED : spurious(v);
}

/* Execution in a large entry that must not be executed: from now on it is small ones. */
static enum p2m_fault_result exec_fault(struct vcpu *v, gfn_t gfn)
{
    struct p2m *p = v->domain->p2m;
    uint64_t *table = p->root;
    int err = 0;

    spin_lock(&p->lock);
    for (unsigned level = P2M_LEVELS; level > 1 && !err; level--) {
        uint64_t *entry = &table[pte_index(gfn, level)];

        if (!pte_is_table(*entry, level)) {
            if (!(*entry & PTE_PRESENT))
                break;
            err = p2m_reserve(p, 1);
            if (err)
                break;
            p2m_split(p, entry, level);
        }
        table = pte_table(*entry);
    }
    spin_unlock(&p->lock);
    return err ? P2M_FAULT_BAD : P2M_FAULT_RESOLVED;
}

enum p2m_fault_result p2m_fault(struct vcpu *v, paddr_t gpa, bool write, bool exec)
{
    struct domain *d = v->domain;
    gfn_t gfn = gpa >> PAGE_SHIFT;
    unsigned level;
    uint64_t e = p2m_lookup(d->p2m, gfn, &level);

    if (exec && e & PTE_PRESENT && !(e & PTE_USER_EXEC))
        return exec_fault(v, gfn);
    switch (pte_type(e)) {
    case P2M_HOLE:
        if (unlikely(d->is_dom0) && !(gfn >> (p2m_gpa_bits - PAGE_SHIFT)) && dom0_may_map_mmio(gfn))
            return map_mmio(d, gfn);
        return P2M_FAULT_EMULATE;
    case P2M_MMIO_DM:
        return P2M_FAULT_EMULATE;
    case P2M_RAM:
    case P2M_LOGDIRTY:
    case P2M_MMIO_DIRECT:
    case P2M_GRANT_RW:
    case P2M_FOREIGN_RW: /* the last three: a table above may be write-protected for logging */
        return write ? write_fault(v, gfn) : spurious(v);
    case P2M_RAM_RO:
    case P2M_GRANT_RO:
    case P2M_FOREIGN_RO:
        return write ? P2M_FAULT_READONLY : spurious(v);
    case P2M_IOREQ_SERVER:
        return write ? P2M_FAULT_EMULATE : spurious(v);
    case P2M_NR_TYPES:
        break;
    }
    return P2M_FAULT_BAD;
}
