/* vlapic_ipi.c: who an APIC message is for, and its delivery (SDM 3A, 10.6 and 10.12.10). */
#include "platform/inner.h"
#include "platform/vlapic.h"

#define ICR_LEVEL_ASSERT BIT(14)
#define ICR_TRIG_LEVEL   BIT(15)

enum shorthand { SH_NONE, SH_SELF, SH_ALL, SH_OTHERS };

static uint32_t peek(const struct vlapic *l, unsigned offset)
{
    return READ_ONCE(l->regs[offset / 4]);
}

/* Logical destination in the target's own mode and model. */
static bool matches_logical(const struct vlapic *l, uint32_t dest)
{
    uint32_t ldr = peek(l, LAPIC_LDR);

    if (l->x2apic)
        return ldr >> 16 == dest >> 16 && (ldr & dest & 0xffff);
    ldr >>= 24;
    if (peek(l, LAPIC_DFR) >> 28 == 0xf) /* flat */
        return ldr & dest;
    return ldr >> 4 == dest >> 4 && (ldr & dest & 0xf);
}

bool vlapic_matches(const struct vlapic *l, uint32_t dest, bool logical)
{
    if (!l->hw_enabled)
        return false;
    if (dest == (l->x2apic ? ~0u : 0xffu))
        return true;
    return logical ? matches_logical(l, dest) : vlapic_id(l->vcpu) == dest;
}

static struct vcpu *vcpu_at(const struct domain *d, unsigned i)
{
    struct vcpu *v = i < d->max_vcpus ? d->vcpu[i] : NULL;

    return v && v->vlapic ? v : NULL;
}

/* The vCPU that dest names when it can only be one, without a search; NULL: search. */
static struct vcpu *unicast(const struct domain *d, uint32_t dest, bool logical)
{
    if (logical || (dest & 1))
        return NULL;
    struct vcpu *v = vcpu_at(d, dest / 2);
    return v && v->vlapic->hw_enabled && vlapic_id(v) == dest ? v : NULL;
}

/* Hand the message to one LAPIC; true when it took it. */
static bool deliver_to(struct vcpu *v, const struct apic_msg *m)
{
    switch (m->mode) {
    case APIC_FIXED:
    case APIC_LOWEST:
        if (!READ_ONCE(v->vlapic->accepts))
            return false;
        vlapic_set_irq(v, m->vector, m->level);
        return true;
    case APIC_NMI:
        vcpu_nmi(v);
        return true;
    default: /* SMI and ExtINT messages have no meaning here */
        return false;
    }
}

/* Lowest-priority arbitration (SDM 3A, 10.6.2.4), turn by turn among equals. */
static struct vcpu *arbitrate(struct domain *d, const struct apic_msg *m)
{
    unsigned first = READ_ONCE(d->platform->lowest_next), best_ppr = ~0u;
    struct vcpu *best = NULL;

    for (unsigned n = 0; n < d->max_vcpus; n++) {
        struct vcpu *v = vcpu_at(d, (first + n) % d->max_vcpus);
        if (!v || !v->vlapic->accepts || !vlapic_matches(v->vlapic, m->dest, m->logical))
            continue;
        uint32_t ppr = vlapic_ppr(v->vlapic);
        if (ppr < best_ppr) {
            best = v;
            best_ppr = ppr;
        }
    }
    if (best)
        WRITE_ONCE(d->platform->lowest_next, (best->id + 1) % d->max_vcpus);
    return best;
}

unsigned vlapic_deliver(struct domain *d, const struct apic_msg *m)
{
    struct vcpu *v = unicast(d, m->dest, m->logical);
    unsigned taken = 0;

    if (v)
        return deliver_to(v, m);
    if (m->mode == APIC_LOWEST) {
        v = arbitrate(d, m);
        return v && deliver_to(v, m);
    }
    for (unsigned i = 0; i < d->max_vcpus; i++) {
        v = vcpu_at(d, i);
        if (v && vlapic_matches(v->vlapic, m->dest, m->logical))
            taken += deliver_to(v, m);
    }
    return taken;
}

bool vlapic_requested(const struct domain *d, const struct apic_msg *m)
{
    for (unsigned i = 0; i < d->max_vcpus; i++) {
        struct vcpu *v = vcpu_at(d, i);
        if (!v || !vlapic_matches(v->vlapic, m->dest, m->logical))
            continue;
        if (vlapic_is_requested(v->vlapic, m->vector))
            return true;
    }
    return false;
}

/* INIT and SIPI exist only as IPIs. */
static void deliver_ipi(struct vcpu *v, const struct apic_msg *m)
{
    if (m->mode == APIC_INIT)
        vcpu_init_signal(v);
    else if (m->mode == APIC_SIPI)
        vcpu_sipi(v, m->vector);
    else
        deliver_to(v, m);
}

/* To all but v, or to whoever dest names. */
static void send_search(struct vcpu *from, const struct apic_msg *m, enum shorthand sh)
{
    struct domain *d = from->domain;

    for (unsigned i = 0; i < d->max_vcpus; i++) {
        struct vcpu *v = vcpu_at(d, i);
        if (!v)
            continue;
        bool wanted = sh == SH_NONE ? vlapic_matches(v->vlapic, m->dest, m->logical)
                                    : v->vlapic->hw_enabled && (sh == SH_ALL || v != from);
        if (wanted)
            deliver_ipi(v, m);
    }
}

void vlapic_icr(struct vcpu *v, uint32_t low, uint32_t dest)
{
    enum shorthand sh = low >> 18 & 3;
    struct apic_msg m = {.dest = dest,
                         .logical = low >> 11 & 1,
                         .level = false, /* IPIs are edges but for INIT (SDM 3A, 10.6.1) */
                         .vector = low & 0xff,
                         .mode = low >> 8 & 7};
    bool plain = m.mode == APIC_FIXED || m.mode == APIC_LOWEST;

    if (plain && m.vector < 16) {
        vlapic_error(v, LAPIC_ERR_SEND_VECTOR);
        return;
    }
    if (m.mode == APIC_INIT && (low & ICR_TRIG_LEVEL) && !(low & ICR_LEVEL_ASSERT))
        return; /* de-assert: only resynchronised arbitration on old processors */
    if (sh == SH_SELF) {
        if (plain)
            deliver_to(v, &m);
        return;
    }
    if (sh == SH_NONE && plain) {
        vlapic_deliver(v->domain, &m);
        return;
    }
    if (sh == SH_ALL && !plain)
        sh = SH_OTHERS; /* not allowed to include oneself (SDM 3A, table 10-5) */
    struct vcpu *one = sh == SH_NONE ? unicast(v->domain, dest, m.logical) : NULL;
    if (one)
        deliver_ipi(one, &m);
    else
        send_search(v, &m, sh);
}
