/* cpuid.c: what CPUID answers in a guest: its domain's policy (cpuid_policy.c), with what depends
 * on the vCPU filled in, and the leaves at 0x40000000 that say "Xen".
 *
 * Exit path: two comparisons and a copy for most leaves.
 */
#include "core/string.h"
#include "domain/hvm.h"
#include "platform/cpuid_policy.h"

#define APIC_BASE_ENABLE BIT(11)
#define MSR_HYPERCALL    0x40000000u
#define XEN_LAST_LEAF    4u
#define XSAVE_LEGACY     576u /* x87 and SSE area, header */

static const struct cpuid_leaf nothing;

/* Logical processors of the package: APIC ids are twice the vCPU's number, so twice as many. */
static uint32_t package_ids(const struct domain *d)
{
    return MIN(MAX(d->max_vcpus, 1u) * 2, 254u);
}

static uint32_t log2_up(uint32_t n)
{
    return n <= 1 ? 0 : 32 - (uint32_t)__builtin_clz(n - 1);
}

static void fill_features(struct vcpu *v, struct cpuid_leaf *l)
{
    l->b = (l->b & 0x0000ffff) | package_ids(v->domain) << 16 | v->id * 2 << 24;
    l->c &= ~(1u << 27);
    if (hvm_ops->get_cr(v, 4) & CR4_OSXSAVE)
        l->c |= 1u << 27;
    if (!(vlapic_base_msr(v) & APIC_BASE_ENABLE))
        l->d &= ~(1u << 9);
}

/* Extended topology (SDM 2A, CPUID 0BH): one thread a core, all cores in one package. */
static void fill_topology(struct vcpu *v, uint32_t sub, struct cpuid_leaf *l)
{
    *l = (struct cpuid_leaf){.c = sub & 0xff, .d = v->id * 2};
    if (sub == 0) {
        l->a = 1;
        l->b = 1;
        l->c |= 1 << 8;
    } else if (sub == 1) {
        l->a = log2_up(package_ids(v->domain));
        l->b = MAX(v->domain->max_vcpus, 1u);
        l->c |= 2 << 8;
    }
}

/* Sizes of the XSAVE area for what the guest has enabled (SDM 2A, CPUID 0DH). */
static void fill_xstate(struct vcpu *v, const struct cpuid_policy *p, uint32_t sub,
                        struct cpuid_leaf *l)
{
    const struct cpuid_leaf *avx = &p->xstate[2];

    if (sub == 0 && l->a)
        l->b = v->xcr0 & 4 ? avx->a + avx->b : XSAVE_LEGACY;
    else if (sub == 1 && l->a & (1 << 1 | 1 << 3)) /* XSAVEC, XSAVES */
        l->b = XSAVE_LEGACY + (v->xcr0 & 4 ? avx->a : 0);
}

static struct cpuid_leaf basic_leaf(struct vcpu *v, const struct cpuid_policy *p, uint32_t leaf,
                                    uint32_t sub)
{
    struct cpuid_leaf l = nothing;

    switch (leaf) {
    case 1:
        l = p->basic[1];
        fill_features(v, &l);
        break;
    case 4:
        if (sub < CPUID_CACHE)
            l = p->cache[sub];
        if (l.a & 0x1f)
            l.a |= MIN(package_ids(v->domain) - 1, 63u) << 26;
        break;
    case 7:
        if (sub <= p->max_feature)
            l = p->feature[sub];
        break;
    case 0xb:
        fill_topology(v, sub, &l);
        break;
    case 0xd:
        if (sub < CPUID_XSTATE)
            l = p->xstate[sub];
        fill_xstate(v, p, sub, &l);
        break;
    default:
        l = p->basic[leaf];
    }
    return l;
}

static struct cpuid_leaf extended_leaf(struct vcpu *v, const struct cpuid_policy *p, uint32_t i)
{
    struct cpuid_leaf l = p->extended[i];

    if (i == 1 && !(vlapic_base_msr(v) & APIC_BASE_ENABLE))
        l.d &= ~(1u << 9);
    if (i == 8) /* cores less one, bits of an APIC id that number them (APM 3, E.4.7) */
        l.c = (package_ids(v->domain) - 1) | log2_up(package_ids(v->domain)) << 12;
    return l;
}

/* Leaf 3 (<xen/arch-x86/cpuid.h>): how the guest's TSC relates to time. */
static struct cpuid_leaf tsc_leaf(struct vcpu *v, uint32_t sub)
{
    struct domain *d = v->domain;
    uint64_t khz = d->tsc_khz ? d->tsc_khz : tsc_khz;

    switch (sub) {
    case 0:
        return (struct cpuid_leaf){1u << 1 | (d->cpuid->extended[1].d >> 27 & 1) << 2, d->tsc_mode,
                                   (uint32_t)khz, d->tsc_incarnation};
    case 1: {
        const struct vcpu_time_info *t = &v->info->time;
        return (struct cpuid_leaf){(uint32_t)v->tsc_offset, (uint32_t)(v->tsc_offset >> 32),
                                   t->tsc_to_system_mul, (uint32_t)t->tsc_shift};
    }
    case 2:
        return (struct cpuid_leaf){.a = (uint32_t)tsc_khz};
    default:
        return nothing;
    }
}

static struct cpuid_leaf xen_leaf(struct vcpu *v, uint32_t i, uint32_t sub)
{
    switch (i) {
    case 0:
        return (struct cpuid_leaf){XEN_CPUID_LEAF(XEN_LAST_LEAF), XEN_CPUID_SIGNATURE_EBX,
                                   XEN_CPUID_SIGNATURE_ECX, XEN_CPUID_SIGNATURE_EDX};
    case 1:
        return (struct cpuid_leaf){.a = XEN_VERSION_MAJOR << 16 | XEN_VERSION_MINOR};
    case 2:
        return (struct cpuid_leaf){.a = 1, .b = MSR_HYPERCALL};
    case 3:
        return tsc_leaf(v, sub);
    case 4:
        if (sub)
            return nothing;
        /* XEN_HVM_CPUID_UPCALL_VECTOR is not shown, though HVMOP_set_evtchn_upcall_vector works:
         * a vector through the LAPIC costs the guest an EOI, an exit as long as there is no AVIC
         * or APICv; the callback vector does not. */
        return (struct cpuid_leaf){XEN_HVM_CPUID_VCPU_ID_PRESENT | XEN_HVM_CPUID_DOMID_PRESENT,
                                   v->id, v->domain->id, 0};
    default:
        return nothing;
    }
}

/* CPUID in the guest: out is eax, ebx, ecx, edx. Exit path, v == current. */
void guest_cpuid(struct vcpu *v, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    const struct cpuid_policy *p = v->domain->cpuid;
    struct cpuid_leaf l = nothing;

    if (leaf <= p->max_basic)
        l = basic_leaf(v, p, leaf, sub);
    else if (leaf - 0x80000000u <= p->max_extended)
        l = extended_leaf(v, p, leaf - 0x80000000u);
    else if (leaf - XEN_CPUID_FIRST_LEAF <= XEN_LAST_LEAF)
        l = xen_leaf(v, leaf - XEN_CPUID_FIRST_LEAF, sub);
    out[0] = l.a;
    out[1] = l.b;
    out[2] = l.c;
    out[3] = l.d;
}
