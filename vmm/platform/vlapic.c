/* vlapic.c: the local APIC's registers, priorities and in-service state (SDM 3A, chapter 10). */
#include "platform/vlapic.h"
#include "platform/inner.h"

/* Registers by number (offset >> 4), as sets. */
#define REG(r)     BIT((r) >> 4)
#define REGS(a, b) (BIT(((b) >> 4) + 1) - BIT((a) >> 4))
#define READABLE_COMMON                                                                            \
    (REG(LAPIC_ID) | REG(LAPIC_VERSION) | REG(LAPIC_TPR) | REG(LAPIC_PPR) | REG(LAPIC_LDR) |       \
     REG(LAPIC_SVR) | REGS(LAPIC_ISR, LAPIC_ESR) | REG(LAPIC_ICR) |                                \
     REGS(LAPIC_LVT_TIMER, LAPIC_TMCCT) | REG(LAPIC_TDCR))
#define READABLE_XAPIC                                                                             \
    (READABLE_COMMON | REG(LAPIC_APR) | REG(LAPIC_RRD) | REG(LAPIC_DFR) | REG(LAPIC_ICR2))
#define READABLE_X2APIC READABLE_COMMON /* SDM 3A, table 10-6 */

#define SVR_WRITABLE    0x3ffu
#define ICR_WRITABLE    0xccfffu
#define ICR_RESERVED_X2 0xfff32000u

/* What a guest may set in each LVT entry, from LAPIC_LVT_TIMER on (SDM 3A, fig. 10-8). */
static const uint32_t lvt_writable[] = {0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff};

static uint32_t *reg(const struct vlapic *l, unsigned offset)
{
    return &l->regs[offset / 4];
}

/* The word of a 256-bit register (ISR, TMR, IRR) that holds vector. */
static uint32_t *vector_word(const struct vlapic *l, unsigned base, uint8_t vector)
{
    return reg(l, base + (vector / 32) * 16u);
}

/* ---- priorities -------------------------------------------------------------------------- */

/* Highest vector of a 256-bit register whose non-zero words are in summary; -1 for none. */
static int highest(const struct vlapic *l, unsigned base, uint32_t summary)
{
    if (!summary)
        return -1;
    unsigned word = 31 - (unsigned)__builtin_clz(summary);
    uint32_t bits = READ_ONCE(*reg(l, base + word * 16));
    return bits ? (int)(word * 32 + 31 - (unsigned)__builtin_clz(bits)) : -1;
}

int vlapic_highest(const struct vlapic *l, unsigned base)
{
    for (int word = 7; word >= 0; word--) {
        int vector = highest(l, base, 1u << word);
        if (vector >= 0)
            return vector;
    }
    return -1;
}

/* Highest requested vector. A summary bit may be stale: set while its word is already empty. */
static int highest_irr(struct vlapic *l)
{
    for (;;) {
        uint32_t summary = atomic_load(&l->irr_summary);
        int vector = highest(l, LAPIC_IRR, summary);
        if (vector >= 0 || !summary)
            return vector;
        uint32_t bit = 1u << (31 - (unsigned)__builtin_clz(summary));
        atomic_and(&l->irr_summary, ~bit);
        /* A sender sets IRR before the summary: look again after the summary was cleared. */
        if (atomic_load(reg(l, LAPIC_IRR + (31 - (unsigned)__builtin_clz(bit)) * 16)))
            atomic_or(&l->irr_summary, bit);
    }
}

static int highest_isr(const struct vlapic *l)
{
    return unlikely(l->by_cpu) ? vlapic_highest(l, LAPIC_ISR)
                               : highest(l, LAPIC_ISR, l->isr_summary);
}

uint32_t vlapic_ppr(const struct vlapic *l)
{
    int isrv = highest_isr(l);
    uint32_t tpr = *reg(l, LAPIC_TPR), in_service = isrv < 0 ? 0 : (uint32_t)isrv & 0xf0;

    return (tpr & 0xf0) >= in_service ? tpr : in_service;
}

int vlapic_pending(struct vcpu *v)
{
    struct vlapic *l = v->vlapic;
    int vector;

    if (unlikely(l->by_cpu)) {
        vlapic_move_requests(l);
        vector = l->accepts ? vlapic_highest(l, LAPIC_IRR) : -1;
    } else {
        if (!READ_ONCE(l->irr_summary) || !l->accepts)
            return -1;
        vector = highest_irr(l);
    }
    if (vector < 0 || ((uint32_t)vector & 0xf0) <= (vlapic_ppr(l) & 0xf0))
        return -1;
    return vector;
}

void vlapic_accept(struct vcpu *v, uint8_t vector)
{
    struct vlapic *l = v->vlapic;

    atomic_and(vector_word(l, LAPIC_IRR, vector), ~(1u << (vector & 31)));
    *vector_word(l, LAPIC_ISR, vector) |= 1u << (vector & 31);
    l->isr_summary |= 1u << (vector / 32);
}

void vlapic_set_irq(struct vcpu *v, uint8_t vector, bool level)
{
    struct vlapic *l = v->vlapic;
    uint32_t bit = 1u << (vector & 31), *tmr = vector_word(l, LAPIC_TMR, vector);

    if (!READ_ONCE(l->accepts))
        return;
    if (vector < 16) {
        vlapic_error(v, LAPIC_ERR_RECV_VECTOR);
        return;
    }
    if (level && !(READ_ONCE(*tmr) & bit))
        atomic_or(tmr, bit);
    else if (!level && (READ_ONCE(*tmr) & bit))
        atomic_and(tmr, ~bit);
    if (l->posted && !level) {
        if (posted_request(l->posted, vector))
            vcpu_post(v);
        return;
    }
    if (atomic_or(&l->requests[vector / 32 * 4], bit) & bit)
        return; /* still waiting since the last time */
    if (!(READ_ONCE(l->irr_summary) & 1u << (vector / 32)))
        atomic_or(&l->irr_summary, 1u << (vector / 32));
    vcpu_kick(v, VWORK_EVENT);
}

/* v, which is in an exit handler, lowered its priority: something may be deliverable now. */
static void recheck(struct vcpu *v)
{
    if (v->vlapic->by_cpu || READ_ONCE(v->vlapic->irr_summary))
        atomic_or(&v->work, VWORK_EVENT);
}

void vlapic_eoi(struct vcpu *v)
{
    struct vlapic *l = v->vlapic;
    int vector = highest_isr(l);

    if (vector < 0)
        return;
    uint32_t *isr = vector_word(l, LAPIC_ISR, (uint8_t)vector), bit = 1u << (vector & 31);
    *isr &= ~bit;
    if (!*isr)
        l->isr_summary &= ~(1u << (vector / 32));
    if (*vector_word(l, LAPIC_TMR, (uint8_t)vector) & bit)
        vioapic_eoi(v->domain, (uint8_t)vector);
    if (ticks_wait(v->domain))
        ticks_look(v->domain, v);
    recheck(v);
}

uint8_t vlapic_get_tpr(const struct vcpu *v)
{
    return (uint8_t)*reg(v->vlapic, LAPIC_TPR);
}

void vlapic_set_tpr(struct vcpu *v, uint8_t tpr)
{
    uint32_t *r = reg(v->vlapic, LAPIC_TPR), old = *r;

    *r = tpr;
    if (tpr < old)
        recheck(v);
}

/* ---- errors and local interrupts --------------------------------------------------------- */

void vlapic_error(struct vcpu *v, enum lapic_error e)
{
    uint32_t lvt = READ_ONCE(*reg(v->vlapic, LAPIC_LVT_ERROR));

    atomic_or(&v->vlapic->esr_pending, (uint32_t)e);
    if (!(lvt & LVT_MASKED) && (lvt & 0xff) >= 16)
        vlapic_set_irq(v, (uint8_t)lvt, false);
}

void vlapic_lint0(struct vcpu *v)
{
    uint32_t lvt = READ_ONCE(*reg(v->vlapic, LAPIC_LVT_LINT0));

    if (!v->vlapic->hw_enabled || (lvt & LVT_MASKED))
        return;
    if ((lvt >> 8 & 7) == APIC_FIXED)
        vlapic_set_irq(v, (uint8_t)lvt, false);
    else if ((lvt >> 8 & 7) == APIC_NMI)
        vcpu_nmi(v);
}

/* What follows from IA32_APIC_BASE, SVR and LINT0, kept at hand for the hot paths. */
static void refresh(struct vcpu *v)
{
    struct vlapic *l = v->vlapic;
    uint32_t lint0 = *reg(l, LAPIC_LVT_LINT0);

    l->hw_enabled = l->base_msr & APIC_BASE_EN;
    l->x2apic = l->hw_enabled && (l->base_msr & APIC_BASE_EXTD);
    bool was = l->accepts;
    l->accepts = l->hw_enabled && (*reg(l, LAPIC_SVR) & LAPIC_SVR_ENABLE);
    /* An event upcall that came meanwhile was not accepted, and no later event repeats it. */
    if (l->accepts && !was && v->upcall_vector && evtchn_upcall_pending(v))
        vlapic_set_irq(v, v->upcall_vector, false);
    l->extint =
        l->hw_enabled ? !(lint0 & LVT_MASKED) && (lint0 >> 8 & 7) == APIC_EXTINT : v->id == 0;
    l->mmio_page = l->hw_enabled && !l->x2apic ? l->base_msr & PAGE_MASK : ~0ULL;
    recheck(v);
    if (l->extint && v->domain->platform->pic.next >= 0)
        atomic_or(&v->work, VWORK_EVENT);
}

/* ---- reset, identity, mode --------------------------------------------------------------- */

paddr_t vlapic_page(const struct vcpu *v)
{
    return v->vlapic->mmio_page;
}

uint32_t vlapic_id(const struct vcpu *v)
{
    uint32_t id = READ_ONCE(*reg(v->vlapic, LAPIC_ID));

    return v->vlapic->x2apic ? id : id >> 24;
}

/* ID and, in x2APIC mode, the logical ID derived from it (SDM 3A, 10.12.10.2). */
static void set_id(struct vcpu *v)
{
    struct vlapic *l = v->vlapic;
    uint32_t id = 2 * v->id;

    if (l->base_msr & APIC_BASE_EXTD) {
        *reg(l, LAPIC_ID) = id;
        *reg(l, LAPIC_LDR) = (id >> 4) << 16 | 1u << (id & 15);
    } else {
        *reg(l, LAPIC_ID) = id << 24;
    }
}

void vlapic_restore_id(struct vcpu *v)
{
    set_id(v);
}

/* Registers as after power-on or INIT, in the mode that IA32_APIC_BASE has. */
void vlapic_init_reset(struct vcpu *v)
{
    struct vlapic *l = v->vlapic;
    uint32_t id = *reg(l, LAPIC_ID);

    vlapic_timer_reset(v);
    l->accepts = false;
    atomic_store(&l->irr_summary, 0); /* before IRR: a late sender must find the bit to set */
    if (l->by_cpu)
        vlapic_drop_requests(l);
    memset(l->regs, 0, LAPIC_REGS_BYTES);
    *reg(l, LAPIC_VERSION) = LAPIC_VERSION_VAL;
    *reg(l, LAPIC_DFR) = ~0u;
    *reg(l, LAPIC_SVR) = 0xff;
    for (unsigned offset = LAPIC_LVT_TIMER; offset <= LAPIC_LVT_ERROR; offset += 16)
        *reg(l, offset) = LVT_MASKED;
    *reg(l, LAPIC_ID) = id;
    if (l->base_msr & APIC_BASE_EXTD)
        set_id(v);
    atomic_store(&l->esr_pending, 0);
    l->isr_summary = 0;
    refresh(v);
}

void vlapic_reset(struct vcpu *v)
{
    struct vlapic *l = v->vlapic;

    l->base_msr = LAPIC_DEFAULT_BASE | APIC_BASE_EN | (v->id == 0 ? APIC_BASE_BSP : 0);
    set_id(v);
    vlapic_init_reset(v);
}

/* Allocate and reset v's LAPIC; 0 or -ENOMEM. */
int vlapic_init(struct vcpu *v)
{
    struct vlapic *l = kzalloc(sizeof(*l));

    if (!l)
        return -ENOMEM;
    l->regs = page_alloc();
    if (!l->regs) {
        kfree(l);
        return -ENOMEM;
    }
    l->requests = reg(l, LAPIC_IRR);
    l->vcpu = v;
    v->vlapic = l;
    vlapic_timer_init(v);
    vlapic_reset(v);
    return 0;
}

void vlapic_destroy(struct vcpu *v)
{
    timer_kill(&v->vlapic->timer);
}

void vlapic_free(struct vcpu *v)
{
    if (v->vlapic->by_cpu)
        kfree(v->vlapic->requests);
    kfree(v->vlapic->posted);
    page_free(v->vlapic->regs);
    kfree(v->vlapic);
    v->vlapic = NULL;
}

uint64_t vlapic_base_msr(const struct vcpu *v)
{
    return v->vlapic->base_msr;
}

/* Write IA32_APIC_BASE; -EINVAL (#GP) for reserved bits and forbidden changes of mode (SDM 3A,
 * 10.12.5: x2APIC is entered from xAPIC and left by disabling). */
int vlapic_set_base_msr(struct vcpu *v, uint64_t val)
{
    struct vlapic *l = v->vlapic;
    uint64_t old = l->base_msr, allowed = APIC_BASE_BSP | APIC_BASE_EXTD | APIC_BASE_EN |
                                          ((BIT(p2m_gpa_bits) - 1) & PAGE_MASK);
    bool was_en = old & APIC_BASE_EN, was_x2 = old & APIC_BASE_EXTD;
    bool en = val & APIC_BASE_EN, x2 = val & APIC_BASE_EXTD;

    if ((val & ~allowed) || (x2 && !en) || (was_x2 && en && !x2) || (!was_en && x2))
        return -EINVAL;
    l->base_msr = (val & ~APIC_BASE_BSP) | (old & APIC_BASE_BSP);
    if (en != was_en) { /* state does not outlive being disabled */
        set_id(v);
        vlapic_init_reset(v);
        return 0;
    }
    if (x2 && !was_x2) {
        set_id(v);
        *reg(l, LAPIC_ICR2) = 0;
    }
    refresh(v);
    return 0;
}

/* ---- registers --------------------------------------------------------------------------- */

uint32_t vlapic_read(struct vcpu *v, unsigned offset)
{
    struct vlapic *l = v->vlapic;

    if (offset >= LAPIC_REGS_BYTES || (offset & 15) || !(READABLE_XAPIC & REG(offset))) {
        if (offset < LAPIC_REGS_BYTES && !(offset & 15) && offset != LAPIC_EOI)
            vlapic_error(v, LAPIC_ERR_REGISTER);
        return 0;
    }
    if (offset == LAPIC_PPR || offset == LAPIC_APR)
        return vlapic_ppr(l);
    if (offset == LAPIC_TMCCT)
        return vlapic_timer_count(v);
    return READ_ONCE(*reg(l, offset));
}

static void write_lvt(struct vcpu *v, unsigned offset, uint32_t val)
{
    struct vlapic *l = v->vlapic;

    val &= lvt_writable[(offset - LAPIC_LVT_TIMER) / 16];
    if (!(*reg(l, LAPIC_SVR) & LAPIC_SVR_ENABLE))
        val |= LVT_MASKED;
    *reg(l, offset) = val;
    if (offset == LAPIC_LVT_TIMER)
        vlapic_timer_lvt(v, val);
    if (offset == LAPIC_LVT_LINT0)
        refresh(v);
}

static void write_svr(struct vcpu *v, uint32_t val)
{
    struct vlapic *l = v->vlapic;
    bool was_enabled = l->accepts; /* not from SVR: the CPU may have written it already */

    *reg(l, LAPIC_SVR) = val & SVR_WRITABLE;
    if (was_enabled && !(val & LAPIC_SVR_ENABLE)) /* SDM 3A, 10.4.7.2 */
        for (unsigned offset = LAPIC_LVT_TIMER; offset <= LAPIC_LVT_ERROR; offset += 16)
            write_lvt(v, offset, *reg(l, offset) | LVT_MASKED);
    refresh(v);
}

void vlapic_write(struct vcpu *v, unsigned offset, uint32_t val)
{
    struct vlapic *l = v->vlapic;

    switch (offset) {
    case LAPIC_EOI:
        vlapic_eoi(v);
        break;
    case LAPIC_TPR:
        vlapic_set_tpr(v, (uint8_t)val);
        atomic_or(&v->work, VWORK_EVENT); /* the next entry tells the CPU: CR8 is there */
        break;
    case LAPIC_ICR:
        *reg(l, LAPIC_ICR) = val & ICR_WRITABLE;
        vlapic_icr(v, val, *reg(l, LAPIC_ICR2) >> 24);
        break;
    case LAPIC_ICR2:
        *reg(l, LAPIC_ICR2) = val & 0xff000000;
        break;
    case LAPIC_LDR:
        *reg(l, LAPIC_LDR) = val & 0xff000000;
        break;
    case LAPIC_DFR:
        *reg(l, LAPIC_DFR) = val | 0x0fffffff;
        break;
    case LAPIC_SVR:
        write_svr(v, val);
        break;
    case LAPIC_ESR: /* a write, of anything, shows what was latched since the last one */
        *reg(l, LAPIC_ESR) = atomic_xchg(&l->esr_pending, 0);
        break;
    case LAPIC_LVT_TIMER:
    case LAPIC_LVT_THERMAL:
    case LAPIC_LVT_PERF:
    case LAPIC_LVT_LINT0:
    case LAPIC_LVT_LINT1:
    case LAPIC_LVT_ERROR:
        write_lvt(v, offset, val);
        break;
    case LAPIC_TMICT:
        vlapic_timer_initial_count(v, val);
        break;
    case LAPIC_TDCR:
        vlapic_timer_divide(v, val & 0xb);
        break;
    case LAPIC_ID: /* read-only here, as on processors of the last decade (SDM 3A, 10.4.6) */
        break;
    default:
        if (offset < LAPIC_REGS_BYTES && !(offset & 15) && !(READABLE_XAPIC & REG(offset)))
            vlapic_error(v, LAPIC_ERR_REGISTER);
        break;
    }
}

/* Access to the register page: 32 bits at multiples of 16 (SDM 3A, 10.4.1); parts of a register
 * can be read, and written where that has no side effect of its own. */
void vlapic_mmio(struct vcpu *v, unsigned offset, unsigned bytes, bool write, uint64_t *val)
{
    unsigned in_reg = offset & 3, base = offset & ~3u;

    if (bytes >= 4 && !in_reg) {
        if (write)
            vlapic_write(v, base, (uint32_t)*val);
        else
            *val = base & 15 ? 0 : vlapic_read(v, base);
        return;
    }
    uint64_t mask = (bytes >= 4 ? ~0u : (1u << (8 * bytes)) - 1) & 0xffffffffu;
    bool in_first = !(base & 15) && base < LAPIC_REGS_BYTES;
    uint32_t old = in_first ? vlapic_read(v, base) : 0;
    if (!write) {
        *val = old >> (8 * in_reg) & mask;
    } else if (in_first) {
        uint32_t keep = ~(uint32_t)(mask << (8 * in_reg));
        vlapic_write(v, base, (old & keep) | ((uint32_t)(*val & mask) << (8 * in_reg)));
    }
}

int vlapic_x2apic_read(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    struct vlapic *l = v->vlapic;
    unsigned offset = (msr & 0xff) << 4;

    if (!l->x2apic || offset >= LAPIC_REGS_BYTES || !(READABLE_X2APIC & REG(offset)))
        return -EINVAL;
    *val = vlapic_read(v, offset);
    if (offset == LAPIC_ICR)
        *val |= (uint64_t)*reg(l, LAPIC_ICR2) << 32;
    return 0;
}

static int x2apic_icr(struct vcpu *v, uint64_t val)
{
    struct vlapic *l = v->vlapic;

    if (val & ICR_RESERVED_X2)
        return -EINVAL;
    *reg(l, LAPIC_ICR) = (uint32_t)val & ICR_WRITABLE;
    *reg(l, LAPIC_ICR2) = (uint32_t)(val >> 32);
    vlapic_icr(v, (uint32_t)val, (uint32_t)(val >> 32));
    return 0;
}

/* Bits that must be zero in a write of register offset; ~0 for what cannot be written. */
static uint64_t x2apic_reserved(unsigned offset)
{
    switch (offset) {
    case LAPIC_TPR:
    case LAPIC_SELF_IPI:
        return ~0xffULL;
    case LAPIC_SVR:
        return ~(uint64_t)SVR_WRITABLE;
    case LAPIC_TMICT:
        return ~0xffffffffULL;
    case LAPIC_TDCR:
        return ~0xbULL;
    case LAPIC_LVT_TIMER ... LAPIC_LVT_ERROR: /* delivery status and remote IRR are ignored */
        return ~(uint64_t)(lvt_writable[(offset - LAPIC_LVT_TIMER) / 16] | 0x5000);
    default:
        return ~0ULL;
    }
}

int vlapic_x2apic_write(struct vcpu *v, uint32_t msr, uint64_t val)
{
    unsigned offset = (msr & 0xff) << 4;

    if (!v->vlapic->x2apic)
        return -EINVAL;
    switch (offset) {
    case LAPIC_EOI:
    case LAPIC_ESR:
        if (val)
            return -EINVAL;
        vlapic_write(v, offset, 0);
        return 0;
    case LAPIC_ICR:
        return x2apic_icr(v, val);
    case LAPIC_TPR:
    case LAPIC_SVR:
    case LAPIC_TMICT:
    case LAPIC_TDCR:
    case LAPIC_LVT_TIMER:
    case LAPIC_LVT_THERMAL:
    case LAPIC_LVT_PERF:
    case LAPIC_LVT_LINT0:
    case LAPIC_LVT_LINT1:
    case LAPIC_LVT_ERROR:
        if (val & x2apic_reserved(offset))
            return -EINVAL;
        vlapic_write(v, offset, (uint32_t)val);
        return 0;
    case LAPIC_SELF_IPI:
        if (val & x2apic_reserved(offset))
            return -EINVAL;
        vlapic_icr(v, (uint32_t)val | 1u << 18, 0);
        return 0;
    default:
        return -EINVAL;
    }
}

/* ---- HVM contexts ------------------------------------------------------------------------ */

int vlapic_save(struct vcpu *v, struct hvm_hw_lapic *out)
{
    struct vlapic *l = v->vlapic;

    memset(out, 0, sizeof(*out));
    out->apic_base_msr = l->base_msr;
    out->disabled = (l->hw_enabled ? 0 : 1u) | /* Xen: bit 0 by hardware, bit 1 by software */
                    (*reg(l, LAPIC_SVR) & LAPIC_SVR_ENABLE ? 0 : 2u);
    out->timer_divisor = l->divisor;
    out->tdt_msr = vlapic_tsc_deadline(v);
    return 0;
}

int vlapic_load(struct vcpu *v, const struct hvm_hw_lapic *in)
{
    struct vlapic *l = v->vlapic;
    bool x2 = in->apic_base_msr & APIC_BASE_EXTD, en = in->apic_base_msr & APIC_BASE_EN;

    if (x2 && !en)
        return -EINVAL;
    l->base_msr = in->apic_base_msr & (APIC_BASE_BSP | APIC_BASE_EXTD | APIC_BASE_EN |
                                       ((BIT(p2m_gpa_bits) - 1) & PAGE_MASK));
    set_id(v);
    refresh(v);
    vlapic_timer_restore(v, *reg(l, LAPIC_TMCCT), in->tdt_msr);
    return 0;
}

int vlapic_save_regs(struct vcpu *v, struct hvm_hw_lapic_regs *out)
{
    struct vlapic *l = v->vlapic;

    if (l->by_cpu)
        vlapic_move_requests(l);
    uint32_t count = vlapic_timer_count(v), ppr = vlapic_ppr(l);

    memcpy(out->data, l->regs, sizeof(out->data));
    memcpy(out->data + LAPIC_TMCCT, &count, sizeof(count));
    memcpy(out->data + LAPIC_PPR, &ppr, sizeof(ppr));
    return 0;
}

/* Bits of the 256-bit register at base, one for each non-zero word. */
static uint32_t summarise(const struct vlapic *l, unsigned base)
{
    uint32_t summary = 0;

    for (unsigned word = 0; word < 8; word++)
        if (*reg(l, base + word * 16))
            summary |= 1u << word;
    return summary;
}

int vlapic_load_regs(struct vcpu *v, const struct hvm_hw_lapic_regs *in)
{
    struct vlapic *l = v->vlapic;

    if (l->by_cpu)
        vlapic_drop_requests(l);
    memcpy(l->regs, in->data, sizeof(in->data));
    *reg(l, LAPIC_VERSION) = LAPIC_VERSION_VAL;
    *reg(l, LAPIC_TPR) &= 0xff;
    *reg(l, LAPIC_SVR) &= SVR_WRITABLE;
    *reg(l, LAPIC_ICR) &= ICR_WRITABLE;
    *reg(l, LAPIC_TDCR) &= 0xb;
    for (unsigned i = 0; i < ARRAY_SIZE(lvt_writable); i++)
        *reg(l, LAPIC_LVT_TIMER + 16 * i) &= lvt_writable[i];
    *reg(l, LAPIC_IRR) &= 0xffff0000; /* vectors below 16 cannot be requested */
    *reg(l, LAPIC_ISR) &= 0xffff0000;
    l->isr_summary = summarise(l, LAPIC_ISR);
    atomic_store(&l->irr_summary, summarise(l, LAPIC_IRR));
    set_id(v);
    refresh(v);
    vlapic_timer_restore(v, *reg(l, LAPIC_TMCCT), l->tsc_deadline);
    vcpu_kick(v, VWORK_EVENT);
    return 0;
}
