/* sources: vmm/platform/cpuid.c vmm/platform/cpuid_policy.c */
/* test_cpuid.c: what guests see of a host that is made up here (an EPYC with AVX2, SVM, MWAIT), and
 * of the host this runs on: never a feature outside the list, always what depends on the vCPU.
 */
#include "test_domctl_guest.h"

#include "domain/hvm.h"
#include "platform/cpuid_policy.h"
#include <cpuid.h>
#include <xen/arch-x86/cpufeatureset.h>

unsigned p2m_gpa_bits = 40;
uint64_t tsc_khz = 2500000;
static bool real_host, old_host;
static uint64_t cr4, apic_base;
static struct vcpu_info info;

static const xen_cpuid_leaf_t epyc[] = {
    {0x0, 0, 0xd, 0x68747541, 0x444d4163, 0x69746e65},
    {0x1, 0, 0x800f12, 0x00100800, 0xfffa3283 | 1 << 3 | 1 << 31, 0x178bfbff},
    {0x5, 0, 0x40, 0x40, 3, 0},
    {0x7, 0, 1, 0xffffffff, 0xffffffff, 0xffffffff},
    {0x7, 1, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
    {0xd, 0, 7, 832, 832, 0},
    {0xd, 1, 0xf, 832, 0, 0},
    {0xd, 2, 256, 576, 0, 0},
    {0x80000000, 0, 0x8000001e, 0x68747541, 0x444d4163, 0x69746e65},
    {0x80000001, 0, 0x800f12, 0, 0x00c003ff | 1 << 29, 0x2fd3fbff | 1 << 26},
    {0x80000002, 0, 0x20444d41, 1, 2, 3},
    {0x80000007, 0, 7, 7, 7, 1 << 8 | 1 << 7},
    {0x80000008, 0, 0x3030, 0xffffffff, 0, 7},
    {0x8000000a, 0, 1, 16, 0, 0xff},
    {0x8000001d, 0, 1, 1, 1, 1},
};

void host_cpuid(uint32_t leaf, uint32_t sub, struct cpuid_leaf *out)
{
    memset(out, 0, sizeof(*out));
    if (real_host) {
        __cpuid_count(leaf, sub, out->a, out->b, out->c, out->d);
        return;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(epyc); i++)
        if (epyc[i].leaf == leaf && epyc[i].subleaf == sub)
            *out = (struct cpuid_leaf){epyc[i].a, epyc[i].b, epyc[i].c, epyc[i].d};
    if (old_host && leaf == 1)
        out->c &= ~(1u << 28);
}
static uint64_t get_cr(struct vcpu *v, unsigned cr)
{
    (void)v;
    return cr == 4 ? cr4 : 0;
}
static const struct hvm_ops ops = {.get_cr = get_cr};
const struct hvm_ops *hvm_ops = &ops;
bool hvm_xsaves;
uint64_t vlapic_base_msr(const struct vcpu *v)
{
    (void)v;
    return apic_base;
}
void *kzalloc(size_t n)
{
    return calloc(1, n);
}
void kfree(void *p)
{
    free(p);
}

static int reset(void **state)
{
    (void)state;
    arena_reset();
    domains_reset();
    real_host = old_host = false;
    cr4 = 0;
    apic_base = 0xfee00900;
    cpuid_setup();
    for (unsigned i = 0; i < NR_TEST_DOMAINS; i++) {
        vcpus[i].info = &info;
        vcpus[i].xcr0 = 1;
        assert_int_equal(cpuid_policy_init(&domains[i]), 0);
    }
    return 0;
}
static int release(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_TEST_DOMAINS; i++)
        cpuid_policy_free(&domains[i]);
    return 0;
}

static struct cpuid_leaf ask(struct vcpu *v, uint32_t leaf, uint32_t sub)
{
    uint32_t o[4];

    guest_cpuid(v, leaf, sub, o);
    return (struct cpuid_leaf){o[0], o[1], o[2], o[3]};
}

static bool bit(uint32_t word, unsigned feature)
{
    return word >> feature % 32 & 1;
}

static void features(void **state)
{
    struct vcpu *v = &vcpus[1];
    struct cpuid_leaf l = ask(v, 1, 0);

    (void)state;
    assert_true(bit(l.c, XEN_X86_FEATURE_X2APIC) && bit(l.c, XEN_X86_FEATURE_TSC_DEADLINE));
    assert_true(bit(l.c, XEN_X86_FEATURE_HYPERVISOR) && bit(l.c, XEN_X86_FEATURE_AVX));
    assert_false(bit(l.c, XEN_X86_FEATURE_MONITOR) || bit(l.c, XEN_X86_FEATURE_VMX));
    l = ask(v, 0x80000001, 0);
    assert_true(bit(l.d, XEN_X86_FEATURE_NX) && bit(l.d, XEN_X86_FEATURE_LM) && l.d & 1);
    assert_false(bit(l.c, XEN_X86_FEATURE_SVM) || bit(l.c, XEN_X86_FEATURE_TOPOEXT));
    assert_false(bit(l.c, XEN_X86_FEATURE_OSVW) || bit(l.c, XEN_X86_FEATURE_MONITORX));
    l = ask(v, 7, 0);
    assert_true(bit(l.b, XEN_X86_FEATURE_AVX2) && bit(l.b, XEN_X86_FEATURE_SMAP));
    assert_false(bit(l.b, XEN_X86_FEATURE_AVX512F) || bit(l.b, XEN_X86_FEATURE_MPX));
    assert_false(bit(l.b, XEN_X86_FEATURE_TSC_ADJUST) || bit(l.c, XEN_X86_FEATURE_PKU));
    assert_false(bit(l.d, XEN_X86_FEATURE_IBRSB) || bit(l.d, XEN_X86_FEATURE_ARCH_CAPS));
    assert_int_equal(ask(v, 5, 0).a | ask(v, 0xa, 0).a | ask(v, 0x8000000a, 0).d, 0);
    assert_int_equal(ask(v, 0x8000001d, 0).a, 0);
    assert_int_equal(ask(v, 7, 2).a | ask(v, 7, 9).b, 0);
    assert_int_equal(ask(v, 0x80000002, 0).a, 0x20444d41);
    assert_int_equal(ask(v, 0x80000008, 0).a, 40 | 48 << 8);
    assert_int_equal(ask(v, 0x80000007, 0).d, 0);
    assert_int_equal(ask(&vcpus[0], 0x80000007, 0).d, 1 << 8); /* dom0 knows its TSC is invariant */
    assert_int_equal(ask(v, 0x10, 0).a | ask(v, 0x7fffffff, 0).a | ask(v, 0x80001000, 0).a |
                         ask(v, 0xffffffff, 0).a,
                     0);
}

static void xsaves_where_the_cpu_allows_it(void **state)
{
    assert_false(bit(ask(&vcpus[1], 0xd, 1).a, XEN_X86_FEATURE_XSAVES));
    release(state);
    hvm_xsaves = true;
    reset(state);
    hvm_xsaves = false;
    assert_true(bit(ask(&vcpus[1], 0xd, 1).a, XEN_X86_FEATURE_XSAVES));
    vcpus[1].xcr0 = 7;
    assert_int_equal(ask(&vcpus[1], 0xd, 1).b, 832);
    assert_int_equal(ask(&vcpus[1], 0xd, 1).c | ask(&vcpus[1], 0xd, 1).d, 0); /* IA32_XSS */
}

static void follows_the_vcpu(void **state)
{
    struct vcpu *v = &vcpus[1];

    (void)state;
    v->id = 3;
    domains[1].max_vcpus = 4;
    assert_int_equal(ask(v, 1, 0).b >> 24, 6);
    assert_int_equal(ask(v, 1, 0).b >> 16 & 0xff, 8);
    assert_false(bit(ask(v, 1, 0).c, XEN_X86_FEATURE_OSXSAVE));
    cr4 = CR4_OSXSAVE;
    assert_true(bit(ask(v, 1, 0).c, XEN_X86_FEATURE_OSXSAVE));
    assert_true(bit(ask(v, 1, 0).d, XEN_X86_FEATURE_APIC));
    apic_base = 0xfee00000;
    assert_false(bit(ask(v, 1, 0).d, XEN_X86_FEATURE_APIC));
    assert_false(bit(ask(v, 0x80000001, 0).d, XEN_X86_FEATURE_APIC));
    /* One thread a core, one package: (shift, count, level and type, id). */
    struct cpuid_leaf smt = ask(v, 0xb, 0), core = ask(v, 0xb, 1), end = ask(v, 0xb, 2);
    assert_int_equal(smt.a, 1);
    assert_int_equal(smt.b, 1);
    assert_int_equal(smt.c, 0x100);
    assert_int_equal(core.a, 3);
    assert_int_equal(core.b, 4);
    assert_int_equal(core.c, 0x201);
    assert_int_equal(end.b | end.a, 0);
    assert_int_equal(smt.d & core.d & end.d, 6);
    assert_int_equal(ask(v, 0x80000008, 0).c, 7 | 3 << 12);
    /* XSAVE sizes follow XCR0. */
    assert_int_equal(ask(v, 0xd, 0).b, 576);
    assert_int_equal(ask(v, 0xd, 1).b, 576);
    v->xcr0 = 7;
    assert_int_equal(ask(v, 0xd, 0).b, 832);
    assert_int_equal(ask(v, 0xd, 0).c, 832);
    assert_int_equal(ask(v, 0xd, 1).b, 832);
    assert_int_equal(ask(v, 0xd, 1).a, 7); /* no XSAVES */
    assert_int_equal(ask(v, 0xd, 3).a | ask(v, 0xd, 63).a | ask(v, 0xd, ~0u).a, 0);
}

static void says_xen(void **state)
{
    struct vcpu *v = &vcpus[2];
    struct cpuid_leaf l = ask(v, 0x40000000, 0);

    (void)state;
    assert_int_equal(l.a, 0x40000004);
    assert_memory_equal(&l.b, "XenVMMXenVMM", 12);
    assert_int_equal(ask(v, 0x40000001, 0).a, 4 << 16 | 17);
    assert_int_equal(ask(v, 0x40000002, 0).a, 1);
    assert_int_equal(ask(v, 0x40000002, 0).b, 0x40000000);
    l = ask(v, 0x40000004, 0);
    assert_true(l.a & XEN_HVM_CPUID_VCPU_ID_PRESENT);
    assert_false(l.a & XEN_HVM_CPUID_UPCALL_VECTOR); /* an EOI exit for each upcall */
    assert_int_equal(l.b, 0);
    assert_int_equal(l.c, 2);
    v->tsc_offset = 0x123456789abcULL;
    assert_int_equal(ask(v, 0x40000003, 0).c, 2500000);
    assert_int_equal(ask(v, 0x40000003, 1).a, 0x56789abc);
    assert_int_equal(ask(v, 0x40000003, 2).a, 2500000);
    assert_int_equal(ask(v, 0x40000005, 0).a | ask(v, 0x40000100, 0).a, 0);
}

/* ---- the tools' side
 * ----------------------------------------------------------------------------- */
static xen_cpuid_leaf_t leaves[CPUID_MAX_SERIALISED];
static uint32_t err_leaf, err_sub;

static xen_cpuid_leaf_t *leaf_of(uint32_t nr, uint32_t leaf, uint32_t sub)
{
    for (uint32_t i = 0; i < nr; i++)
        if (leaves[i].leaf == leaf && leaves[i].subleaf == sub)
            return &leaves[i];
    fail_msg("no leaf %x.%x", leaf, sub);
    return NULL;
}

static void goes_to_the_tools_and_back(void **state)
{
    static struct cpuid_policy before;
    uint32_t nr = 0;

    (void)state;
    assert_int_equal(cpuid_policy_get(&domains[1], NULL, &nr), 0);
    assert_true(nr >= 120); /* libxc's own limit */
    nr = CPUID_MAX_SERIALISED;
    assert_int_equal(cpuid_policy_get(&domains[1], leaves, &nr), 0);
    assert_true(nr <= 120);
    for (uint32_t i = 0; i < nr; i++) { /* what libxc's policy can hold */
        uint32_t l = leaves[i].leaf, s = leaves[i].subleaf;
        assert_true(l <= 0xd || l == 0x40000000 || l == 0x40000100 || (l >> 31 && l <= 0x80000021));
        assert_int_equal(s != XEN_CPUID_NO_SUBLEAF, l == 4 || l == 7 || l == 0xb || l == 0xd);
    }
    before = *domains[1].cpuid;
    assert_int_equal(cpuid_policy_set(&domains[1], leaves, nr, &err_leaf, &err_sub), 0);
    assert_memory_equal(&before, domains[1].cpuid, sizeof(before));
    uint32_t few = nr - 1;
    assert_int_equal(cpuid_policy_get(&domains[1], leaves, &few), -ENOBUFS);
    assert_int_equal(few, nr);
}

static void tools_cannot_give_what_is_not_there(void **state)
{
    static struct cpuid_policy before;
    uint32_t nr = CPUID_MAX_SERIALISED;

    (void)state;
    assert_int_equal(cpuid_policy_get(&domains[1], leaves, &nr), 0);
    for (uint32_t i = 0; i < nr; i++)
        if (leaves[i].leaf - 0x40000000 > 0x200)
            leaves[i].a = leaves[i].b = leaves[i].c = leaves[i].d = ~0u;
    assert_int_equal(cpuid_policy_set(&domains[1], leaves, nr, &err_leaf, &err_sub), 0);
    for (unsigned w = 0; w < CPUID_FEATURE_WORDS; w++) {
        uint32_t *mine = cpuid_feature_word(domains[1].cpuid, w);
        if (mine)
            assert_int_equal(*mine & ~*cpuid_feature_word(&cpuid_max, w), 0);
    }
    struct cpuid_leaf vendor = ask(&vcpus[1], 0, 0);
    assert_memory_equal(&vendor.b, "AuthcAMDenti", 12);
    assert_int_equal(ask(&vcpus[1], 0, 0).a, 0xd);
    assert_int_equal(domains[1].cpuid->max_extended, cpuid_max.max_extended);
    assert_int_equal(cpuid_xcr0_mask(&domains[1]), 7);

    before = *domains[1].cpuid;
    static const uint32_t bad[][2] = {{0xe, ~0u}, {0xd, 63}, {4, 6}, {0x80000022, ~0u}, {1, 0}};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        xen_cpuid_leaf_t l[2] = {{1, XEN_CPUID_NO_SUBLEAF, 0, 0, 0, 0},
                                 {bad[i][0], bad[i][1], 0, 0, 0, 0}};
        assert_int_equal(cpuid_policy_set(&domains[1], l, 2, &err_leaf, &err_sub), -ERANGE);
        assert_int_equal(err_leaf, bad[i][0]);
        assert_int_equal(err_sub, bad[i][1]);
        assert_memory_equal(&before, domains[1].cpuid, sizeof(before));
    }
}

static void dependencies(void **state)
{
    uint32_t nr = CPUID_MAX_SERIALISED;

    (void)state;
    assert_int_equal(cpuid_policy_get(&domains[1], leaves, &nr), 0);
    leaf_of(nr, 1, XEN_CPUID_NO_SUBLEAF)->c &= ~(1u << 28);
    assert_int_equal(cpuid_policy_set(&domains[1], leaves, nr, &err_leaf, &err_sub), 0);
    assert_false(cpuid_has(&domains[1], XEN_X86_FEATURE_AVX2));
    assert_false(cpuid_has(&domains[1], XEN_X86_FEATURE_FMA));
    assert_true(cpuid_has(&domains[1], XEN_X86_FEATURE_SSE4_2));
    assert_int_equal(cpuid_xcr0_mask(&domains[1]), 3);
    assert_int_equal(ask(&vcpus[1], 0xd, 2).a, 0);
    assert_int_equal(ask(&vcpus[1], 0xd, 0).c, 576);
    leaf_of(nr, 1, XEN_CPUID_NO_SUBLEAF)->c &= ~(1u << 26);
    assert_int_equal(cpuid_policy_set(&domains[1], leaves, nr, &err_leaf, &err_sub), 0);
    assert_int_equal(cpuid_xcr0_mask(&domains[1]), 0);
    assert_int_equal(ask(&vcpus[1], 0xd, 0).b | ask(&vcpus[1], 0xd, 1).a, 0);
    /* The tools may switch the invariant TSC on. */
    leaf_of(nr, 0x80000007, XEN_CPUID_NO_SUBLEAF)->d |= 1 << 8;
    assert_int_equal(cpuid_policy_set(&domains[1], leaves, nr, &err_leaf, &err_sub), 0);
    assert_true(cpuid_has(&domains[1], XEN_X86_FEATURE_ITSC));
    old_host = true;
    cpuid_setup();
    uint32_t w[CPUID_FEATURE_WORDS];
    assert_int_equal(cpuid_featureset(XEN_SYSCTL_cpu_featureset_hvm_max, w), 0);
    assert_false(bit(w[5], XEN_X86_FEATURE_AVX2));
    assert_int_equal(cpuid_featureset(XEN_SYSCTL_cpu_featureset_pv, w), -EOPNOTSUPP);
    assert_int_equal(cpuid_featureset(6, w), -EINVAL);
    assert_int_equal(cpuid_policy_get_system(XEN_SYSCTL_cpu_policy_pv_max, leaves, &nr),
                     -EOPNOTSUPP);
    assert_int_equal(cpuid_policy_get_system(6, leaves, &nr), -EINVAL);
}

static void on_this_host(void **state)
{
    static const uint16_t never[] = {
        XEN_X86_FEATURE_SVM,     XEN_X86_FEATURE_VMX,     XEN_X86_FEATURE_MONITOR,
        XEN_X86_FEATURE_AVX512F, XEN_X86_FEATURE_TOPOEXT, XEN_X86_FEATURE_PKU,
        XEN_X86_FEATURE_XSAVES,  XEN_X86_FEATURE_OSXSAVE, XEN_X86_FEATURE_PDCM};

    (void)state;
    real_host = true;
    cpuid_setup();
    *domains[1].cpuid = cpuid_default;
    for (unsigned i = 0; i < ARRAY_SIZE(never); i++)
        assert_false(cpuid_has(&domains[1], never[i]));
    for (uint32_t l = 0; l < 0x20; l++)
        for (uint32_t s = 0; s < 70; s++) {
            ask(&vcpus[1], l, s);
            ask(&vcpus[1], 0x80000000 + l, s);
        }
    uint32_t nr = CPUID_MAX_SERIALISED;
    assert_int_equal(cpuid_policy_get_system(XEN_SYSCTL_cpu_policy_hvm_default, leaves, &nr), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, reset, release)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(features),
        T(xsaves_where_the_cpu_allows_it),
        T(follows_the_vcpu),
        T(says_xen),
        T(goes_to_the_tools_and_back),
        T(tools_cannot_give_what_is_not_there),
        T(dependencies),
        T(on_this_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
