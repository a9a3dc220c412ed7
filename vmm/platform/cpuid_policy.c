/* cpuid_policy.c: which CPU features guests may have, and the tools' view of that.
 *
 * A policy starts as the host's CPUID and keeps the feature bits of the lists below: those that
 * need nothing of Ringfence (instructions on registers it saves anyhow) and those it provides.
 * A bit in neither list is never shown, whatever the host or the tools say.
 */
#include "core/errno.h"
#include "core/string.h"
#include "domain/hvm.h"
#include "platform/cpuid_policy.h"
#include <xen/arch-x86/cpufeatureset.h>

#define F(name) XEN_X86_FEATURE_##name

/* Shown when the host has them. */
static const uint16_t allowed[] = {
    /* 1.edx */ F(FPU),
    F(VME),
    F(DE),
    F(PSE),
    F(TSC),
    F(MSR),
    F(PAE),
    F(MCE),
    F(CX8),
    F(SEP),
    F(MTRR),
    F(PGE),
    F(MCA),
    F(CMOV),
    F(PAT),
    F(PSE36),
    F(CLFLUSH),
    F(MMX),
    F(FXSR),
    F(SSE),
    F(SSE2),
    /* 1.ecx */ F(SSE3),
    F(PCLMULQDQ),
    F(SSSE3),
    F(FMA),
    F(CX16),
    F(PCID),
    F(SSE4_1),
    F(SSE4_2),
    F(MOVBE),
    F(POPCNT),
    F(AESNI),
    F(XSAVE),
    F(AVX),
    F(F16C),
    F(RDRAND),
    /* 80000001.edx */ F(SYSCALL),
    F(NX),
    F(MMXEXT),
    F(PAGE1GB),
    F(RDTSCP),
    F(LM),
    F(3DNOWEXT),
    F(3DNOW),
    /* 80000001.ecx */ F(LAHF_LM),
    F(CR8_LEGACY),
    F(ABM),
    F(SSE4A),
    F(MISALIGNSSE),
    F(3DNOWPREFETCH),
    F(XOP),
    F(FMA4),
    F(TBM),
    /* d.1.eax */ F(XSAVEOPT),
    F(XSAVEC),
    F(XGETBV1),
    F(XSAVES),
    /* 7.ebx */ F(FSGSBASE),
    F(BMI1),
    F(AVX2),
    F(FDP_EXCP_ONLY),
    F(SMEP),
    F(BMI2),
    F(ERMS),
    F(INVPCID),
    F(NO_FPU_SEL),
    F(RDSEED),
    F(ADX),
    F(SMAP),
    F(CLFLUSHOPT),
    F(CLWB),
    F(SHA),
    /* 7.ecx */ F(UMIP),
    F(GFNI),
    F(VAES),
    F(VPCLMULQDQ),
    F(RDPID),
    /* 80000007.edx */ F(ITSC),
    /* 80000008.ebx */ F(CLZERO),
    F(RSTR_FP_ERR_PTRS),
    F(NO_LMSL),
    F(SSB_NO),
    F(BTC_NO),
    /* 7.edx */ F(FSRM),
    F(SERIALIZE),
    /* 7.1.eax */ F(AVX_VNNI),
    F(FZRM),
    F(FSRS),
    F(FSRCS),
    /* 80000021.eax */ F(LFENCE_DISPATCH),
    F(NSCB),
};
/* Shown always: emulated, or a statement about Ringfence. */
static const uint16_t provided[] = {F(APIC), F(X2APIC), F(TSC_DEADLINE), F(HYPERVISOR), F(HTT)};
/* Shown to a guest only when the tools ask (dom0 gets them). */
static const uint16_t opt_in[] = {F(ITSC)};
/* What goes when the first is off. */
static const struct {
    uint16_t of, needs;
} depends[] = {
    {F(AVX), F(XSAVE)},     {F(XSAVEOPT), F(XSAVE)}, {F(XSAVEC), F(XSAVE)}, {F(XGETBV1), F(XSAVE)},
    {F(XSAVES), F(XSAVE)},  {F(FMA), F(AVX)},        {F(F16C), F(AVX)},     {F(AVX2), F(AVX)},
    {F(XOP), F(AVX)},       {F(FMA4), F(AVX)},       {F(VAES), F(AVX)},     {F(VPCLMULQDQ), F(AVX)},
    {F(AVX_VNNI), F(AVX2)}, {F(RDPID), F(RDTSCP)},   {F(PCID), F(LM)},      {F(INVPCID), F(PCID)},
    {F(PAGE1GB), F(LM)},    {F(LAHF_LM), F(LM)},     {F(LM), F(NX)},
};

/* Bits of 80000001.edx that repeat 1.edx on AMD (APM 3, E.4.2). */
#define COMMON_1D    0x0183f3ffu
#define XCR0_KNOWN   7u /* x87, SSE, AVX: what the guest state's save area holds */
#define XSAVE_HEADER 576
#define AMD_EBX      0x68747541u /* "Auth" */

struct cpuid_policy cpuid_raw, cpuid_max, cpuid_default;

#ifndef HOST_TEST
void host_cpuid(uint32_t leaf, uint32_t sub, struct cpuid_leaf *out)
{
    __asm__ volatile("cpuid"
                     : "=a"(out->a), "=b"(out->b), "=c"(out->c), "=d"(out->d)
                     : "a"(leaf), "c"(sub));
}
#endif

uint32_t *cpuid_feature_word(struct cpuid_policy *p, unsigned n)
{
    switch (n) {
    case 0:
        return &p->basic[1].d;
    case 1:
        return &p->basic[1].c;
    case 2:
        return &p->extended[1].d;
    case 3:
        return &p->extended[1].c;
    case 4:
        return &p->xstate[1].a;
    case 5:
        return &p->feature[0].b;
    case 6:
        return &p->feature[0].c;
    case 7:
        return &p->extended[7].d;
    case 8:
        return &p->extended[8].b;
    case 9:
        return &p->feature[0].d;
    case 10:
        return &p->feature[1].a;
    case 11:
        return &p->extended[0x21].a;
    case 12:
        return &p->feature[1].b;
    case 14:
        return &p->feature[1].c;
    case 15:
        return &p->feature[1].d;
    case 18:
        return &p->extended[0x21].c;
    default:
        return NULL;
    }
}

static bool has(struct cpuid_policy *p, unsigned f)
{
    return *cpuid_feature_word(p, f / 32) >> f % 32 & 1;
}

static void set(struct cpuid_policy *p, unsigned f, bool on)
{
    uint32_t *w = cpuid_feature_word(p, f / 32), bit = 1u << f % 32;

    *w = on ? *w | bit : *w & ~bit;
}

static bool is_amd(const struct cpuid_policy *p)
{
    return p->basic[0].b == AMD_EBX || p->basic[0].b == 0x6f677948u /* "Hygo" */;
}

static void read_host(struct cpuid_policy *p)
{
    struct cpuid_leaf l;

    host_cpuid(0, 0, &p->basic[0]);
    p->max_basic = MIN(p->basic[0].a, CPUID_BASIC - 1u);
    for (uint32_t i = 1; i <= p->max_basic; i++)
        host_cpuid(i, 0, &p->basic[i]);
    for (uint32_t i = 0; p->max_basic >= 4 && i < CPUID_CACHE; i++) {
        host_cpuid(4, i, &p->cache[i]);
        if (!(p->cache[i].a & 0x1f))
            break;
    }
    if (p->max_basic >= 7) {
        host_cpuid(7, 0, &p->feature[0]);
        p->max_feature = MIN(p->feature[0].a, CPUID_FEATURE - 1u);
        if (p->max_feature)
            host_cpuid(7, 1, &p->feature[1]);
    }
    for (uint32_t i = 0; p->max_basic >= 0xb && i < CPUID_TOPOLOGY; i++)
        host_cpuid(0xb, i, &p->topology[i]);
    if (p->max_basic >= 0xd && p->basic[1].c & 1u << F(XSAVE) % 32)
        for (uint32_t i = 0; i < CPUID_XSTATE; i++)
            host_cpuid(0xd, i, &p->xstate[i]);
    host_cpuid(0x80000000, 0, &l);
    p->max_extended = l.a >> 31 ? MIN(l.a & 0xffff, CPUID_EXTENDED - 1u) : 0;
    for (uint32_t i = 0; l.a >> 31 && i <= p->max_extended; i++)
        host_cpuid(0x80000000 + i, 0, &p->extended[i]);
}

/* Keep of each feature word what guests may have, given which bits `limit` has. */
static void mask_features(struct cpuid_policy *p, struct cpuid_policy *limit)
{
    uint32_t mask[CPUID_FEATURE_WORDS] = {0};

    for (unsigned i = 0; i < ARRAY_SIZE(allowed); i++)
        mask[allowed[i] / 32] |= 1u << allowed[i] % 32;
    for (unsigned i = 0; i < CPUID_FEATURE_WORDS; i++) {
        uint32_t *w = cpuid_feature_word(p, i);
        if (w)
            *w &= mask[i] & *cpuid_feature_word(limit, i);
    }
    if (!hvm_xsaves)
        set(p, F(XSAVES), false);
    for (unsigned i = 0; i < ARRAY_SIZE(provided); i++)
        set(p, provided[i], true);
}

static const struct cpuid_leaf none;

/* Leaves about power, monitoring, SVM and the host's topology say nothing to a guest. */
static void blank_leaves(struct cpuid_policy *p)
{
    static const uint8_t basic[] = {3, 5, 8, 9, 0xa, 0xc};
    static const uint8_t extended[] = {9,    0xa,  0xb,  0xc,  0xd,  0xe,  0xf,  0x10,
                                       0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
                                       0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x20};

    for (unsigned i = 0; i < ARRAY_SIZE(basic); i++)
        p->basic[basic[i]] = none;
    for (unsigned i = 0; i < ARRAY_SIZE(extended); i++)
        p->extended[extended[i]] = none;
    p->basic[6] = (struct cpuid_leaf){.a = 1u << 2}; /* ARAT: the APIC timer never stops */
    memset(p->topology, 0, sizeof(p->topology));     /* by guest_cpuid */
    for (unsigned i = 0; i < CPUID_CACHE; i++)
        if (p->cache[i].a & 0x1f)
            p->cache[i].a &= 0x3fff; /* nobody shares it; one core: see guest_cpuid */
}

static void settle_xstate(struct cpuid_policy *p)
{
    uint32_t features = p->xstate[1].a, xcr0 = has(p, F(AVX)) ? 7 : 3;
    struct cpuid_leaf avx = cpuid_raw.xstate[2];

    memset(p->xstate, 0, sizeof(p->xstate));
    if (!has(p, F(XSAVE)))
        return;
    p->xstate[0].a = xcr0 & cpuid_raw.xstate[0].a & XCR0_KNOWN;
    p->xstate[1].a = features;
    p->xstate[0].c = XSAVE_HEADER;
    if (p->xstate[0].a & 4) {
        p->xstate[2] = avx;
        p->xstate[0].c = avx.a + avx.b;
    }
    p->xstate[0].b = p->xstate[0].c; /* by guest_cpuid for the XCR0 in force */
}

void cpuid_policy_settle(struct cpuid_policy *p)
{
    for (bool again = true; again;) {
        again = false;
        for (unsigned i = 0; i < ARRAY_SIZE(depends); i++)
            if (has(p, depends[i].of) && !has(p, depends[i].needs)) {
                set(p, depends[i].of, false);
                again = true;
            }
    }
    p->extended[1].d &= ~COMMON_1D;
    if (is_amd(p))
        p->extended[1].d |= p->basic[1].d & COMMON_1D;
    settle_xstate(p);
    p->basic[0].a = p->max_basic;
    p->feature[0].a = p->max_feature;
    p->extended[0].a = 0x80000000u + p->max_extended;
    p->extended[7] = (struct cpuid_leaf){.d = p->extended[7].d};
    p->extended[8].a = p2m_gpa_bits | 48u << 8;
    p->extended[8].d = 0;
    if (p->max_extended >= 0x21)
        p->extended[0x21] = (struct cpuid_leaf){.a = p->extended[0x21].a};
}

/* Boot: see platform.h. */
void cpuid_setup(void)
{
    memset(&cpuid_raw, 0, sizeof(cpuid_raw));
    read_host(&cpuid_raw);
    cpuid_max = cpuid_raw;
    if (cpuid_max.max_basic < 0xb && cpuid_max.max_basic >= 1)
        cpuid_max.max_basic = 0xb; /* the x2APIC leaf is ours to give */
    if (!is_amd(&cpuid_max))
        cpuid_max.max_extended = MIN(cpuid_max.max_extended, 8u);
    mask_features(&cpuid_max, &cpuid_raw);
    blank_leaves(&cpuid_max);
    cpuid_policy_settle(&cpuid_max);
    cpuid_default = cpuid_max;
    for (unsigned i = 0; i < ARRAY_SIZE(opt_in); i++)
        set(&cpuid_default, opt_in[i], false);
}

int cpuid_policy_init(struct domain *d)
{
    d->cpuid = kzalloc(sizeof(*d->cpuid));
    if (!d->cpuid)
        return -ENOMEM;
    *d->cpuid = d->is_dom0 ? cpuid_max : cpuid_default;
    return 0;
}

void cpuid_policy_free(struct domain *d)
{
    kfree(d->cpuid);
    d->cpuid = NULL;
}

bool cpuid_has(const struct domain *d, unsigned feature)
{
    uint32_t *w = cpuid_feature_word(d->cpuid, feature / 32);

    return w && *w >> feature % 32 & 1;
}

uint64_t cpuid_xcr0_mask(const struct domain *d)
{
    return d->cpuid->xstate[0].a;
}

/* ---- the tools' form
 * ------------------------------------------------------------------------------- */

static struct cpuid_policy *system_policy(unsigned index)
{
    static struct cpuid_policy *const table[] = {
        [XEN_SYSCTL_cpu_policy_raw] = &cpuid_raw,
        [XEN_SYSCTL_cpu_policy_host] = &cpuid_raw,
        [XEN_SYSCTL_cpu_policy_hvm_max] = &cpuid_max,
        [XEN_SYSCTL_cpu_policy_hvm_default] = &cpuid_default,
    };

    return index < ARRAY_SIZE(table) ? table[index] : NULL;
}

/* Where (leaf, sub) is kept in p; NULL when p has no such leaf. */
static struct cpuid_leaf *find_leaf(struct cpuid_policy *p, uint32_t leaf, uint32_t sub)
{
    static const struct {
        uint8_t leaf, subs;
        uint16_t at;
    } nested[] = {
        {4, CPUID_CACHE, offsetof(struct cpuid_policy, cache)},
        {7, CPUID_FEATURE, offsetof(struct cpuid_policy, feature)},
        {0xb, CPUID_TOPOLOGY, offsetof(struct cpuid_policy, topology)},
        {0xd, CPUID_XSTATE, offsetof(struct cpuid_policy, xstate)},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(nested); i++)
        if (leaf == nested[i].leaf)
            return sub < nested[i].subs ? (struct cpuid_leaf *)((char *)p + nested[i].at) + sub
                                        : NULL;
    if (sub != XEN_CPUID_NO_SUBLEAF)
        return NULL;
    if (leaf < CPUID_BASIC)
        return &p->basic[leaf];
    if (leaf - 0x80000000u < CPUID_EXTENDED)
        return &p->extended[leaf - 0x80000000u];
    return NULL;
}

struct writer {
    xen_cpuid_leaf_t *out;
    uint32_t room, used;
};

static void put(struct writer *w, uint32_t leaf, uint32_t sub, const struct cpuid_leaf *l)
{
    if (w->out && w->used < w->room)
        w->out[w->used] = (xen_cpuid_leaf_t){leaf, sub, l->a, l->b, l->c, l->d};
    w->used++;
}

static int serialise(struct cpuid_policy *p, xen_cpuid_leaf_t *leaves, uint32_t *nr)
{
    struct writer w = {leaves, *nr, 0};
    static const uint8_t subs[CPUID_BASIC] = {
        [4] = CPUID_CACHE, [7] = CPUID_FEATURE, [0xb] = CPUID_TOPOLOGY, [0xd] = CPUID_XSTATE};

    if (!leaves) { /* the tools size their buffers by this, also for what they write themselves */
        *nr = CPUID_MAX_SERIALISED;
        return 0;
    }
    for (uint32_t i = 0; i <= p->max_basic; i++) {
        uint32_t n = i == 7 ? p->max_feature + 1 : subs[i];
        if (!n)
            put(&w, i, XEN_CPUID_NO_SUBLEAF, &p->basic[i]);
        for (uint32_t s = 0; s < n; s++)
            put(&w, i, s, find_leaf(p, i, s));
    }
    put(&w, XEN_CPUID_FIRST_LEAF, XEN_CPUID_NO_SUBLEAF, &none);
    put(&w, XEN_CPUID_FIRST_LEAF + 0x100, XEN_CPUID_NO_SUBLEAF, &none);
    for (uint32_t i = 0; i <= p->max_extended; i++)
        put(&w, 0x80000000u + i, XEN_CPUID_NO_SUBLEAF, &p->extended[i]);
    *nr = w.used;
    return w.used > w.room ? -ENOBUFS : 0;
}

int cpuid_policy_get_system(unsigned index, xen_cpuid_leaf_t *leaves, uint32_t *nr)
{
    struct cpuid_policy *p = system_policy(index);

    if (!p)
        return index <= XEN_SYSCTL_cpu_policy_hvm_default ? -EOPNOTSUPP : -EINVAL;
    return serialise(p, leaves, nr);
}

int cpuid_policy_get(struct domain *d, xen_cpuid_leaf_t *leaves, uint32_t *nr)
{
    return serialise(d->cpuid, leaves, nr);
}

/* The host's limits on what the tools wrote: features, number of leaves, vendor. */
static void confine(struct cpuid_policy *p)
{
    mask_features(p, &cpuid_max);
    p->max_basic = MIN(p->basic[0].a, cpuid_max.max_basic);
    p->max_feature = MIN(p->feature[0].a, cpuid_max.max_feature);
    p->max_extended = p->extended[0].a >> 31
                          ? MIN(p->extended[0].a & 0xffff, cpuid_max.max_extended)
                          : cpuid_max.max_extended;
    p->basic[0] = (struct cpuid_leaf){p->max_basic, cpuid_max.basic[0].b, cpuid_max.basic[0].c,
                                      cpuid_max.basic[0].d};
    blank_leaves(p);
    cpuid_policy_settle(p);
}

int cpuid_policy_set(struct domain *d, const xen_cpuid_leaf_t *leaves, uint32_t nr,
                     uint32_t *err_leaf, uint32_t *err_sub)
{
    struct cpuid_policy *p = kzalloc(sizeof(*p));

    if (!p)
        return -ENOMEM;
    *p = *d->cpuid;
    for (uint32_t i = 0; i < nr; i++) {
        const xen_cpuid_leaf_t *in = &leaves[i];
        struct cpuid_leaf *l = find_leaf(p, in->leaf, in->subleaf);

        if (l) {
            *l = (struct cpuid_leaf){in->a, in->b, in->c, in->d};
        } else if (in->leaf - XEN_CPUID_FIRST_LEAF > 0x1ff &&
                   !(in->leaf == 7 && in->subleaf < 8)) { /* the hypervisor's leaves are ours */
            *err_leaf = in->leaf;
            *err_sub = in->subleaf;
            kfree(p);
            return -ERANGE;
        }
    }
    confine(p);
    *d->cpuid = *p;
    kfree(p);
    return 0;
}

int cpuid_featureset(unsigned index, uint32_t words[CPUID_FEATURE_WORDS])
{
    static struct cpuid_policy *const table[] = {
        [XEN_SYSCTL_cpu_featureset_raw] = &cpuid_raw,
        [XEN_SYSCTL_cpu_featureset_host] = &cpuid_raw,
        [XEN_SYSCTL_cpu_featureset_hvm] = &cpuid_default,
        [XEN_SYSCTL_cpu_featureset_hvm_max] = &cpuid_max,
    };

    if (index > XEN_SYSCTL_cpu_featureset_hvm_max)
        return -EINVAL;
    if (!table[index])
        return -EOPNOTSUPP;
    for (unsigned i = 0; i < CPUID_FEATURE_WORDS; i++) {
        uint32_t *w = cpuid_feature_word(table[index], i);
        words[i] = w ? *w : 0;
    }
    return 0;
}
