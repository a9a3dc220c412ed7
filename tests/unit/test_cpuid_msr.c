/* sources: vmm/platform/msr.c */
/* test_cpuid_msr.c: the MSR table: every kind of register, the checks on values, the MTRR record.
 */
#include "test_domctl_guest.h"

#include "domain/hvm.h"
#include "platform/platform.h"
#include <xen/arch-x86/cpufeatureset.h>

unsigned p2m_gpa_bits = 40;
static uint64_t hw[4], efer, deadline, apic_base, x2apic_last, tsc_offset;
static bool rdtscp, xsaves, install_fails;
static paddr_t installed;

/* Hardware state: PAT, LSTAR, FS_BASE, SYSENTER_EIP. */
static uint64_t *hw_slot(uint32_t msr)
{
    switch (msr) {
    case 0x277:
        return &hw[0];
    case 0xc0000082:
        return &hw[1];
    case 0xc0000100:
        return &hw[2];
    case 0x176:
        return &hw[3];
    default:
        return NULL;
    }
}
static int get_msr(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    (void)v;
    if (!hw_slot(msr))
        return -ENOENT;
    *val = *hw_slot(msr);
    return 0;
}
static int set_msr(struct vcpu *v, uint32_t msr, uint64_t val)
{
    (void)v;
    if (!hw_slot(msr))
        return -ENOENT;
    *hw_slot(msr) = val;
    return 0;
}
static uint64_t get_efer(struct vcpu *v)
{
    (void)v;
    return efer;
}
static void set_tsc_offset(struct vcpu *v, uint64_t offset)
{
    (void)v;
    tsc_offset = offset;
}
static const struct hvm_ops ops = {
    .get_msr = get_msr, .set_msr = set_msr, .get_efer = get_efer, .set_tsc_offset = set_tsc_offset};
const struct hvm_ops *hvm_ops = &ops;
int hvm_set_efer(struct vcpu *v, uint64_t val)
{
    (void)v;
    efer = val;
    return val >> 63 ? -EINVAL : 0;
}
uint64_t vlapic_base_msr(const struct vcpu *v)
{
    (void)v;
    return apic_base;
}
int vlapic_set_base_msr(struct vcpu *v, uint64_t val)
{
    (void)v;
    apic_base = val;
    return 0;
}
int vlapic_x2apic_read(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    (void)v;
    *val = msr;
    return 0;
}
int vlapic_x2apic_write(struct vcpu *v, uint32_t msr, uint64_t val)
{
    (void)v;
    (void)msr;
    x2apic_last = val;
    return 0;
}
uint64_t vlapic_tsc_deadline(struct vcpu *v)
{
    (void)v;
    return deadline;
}
void vlapic_set_tsc_deadline(struct vcpu *v, uint64_t tsc)
{
    (void)v;
    deadline = tsc;
}
bool cpuid_has(const struct domain *d, unsigned feature)
{
    (void)d;
    return (feature == XEN_X86_FEATURE_RDTSCP && rdtscp) ||
           (feature == XEN_X86_FEATURE_XSAVES && xsaves);
}
int hypercall_page_install(struct vcpu *v, uint64_t gpa)
{
    (void)v;
    installed = gpa;
    return install_fails ? -EFAULT : 0;
}
void pvtime_update_vcpu(struct vcpu *v)
{
    (void)v;
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
    domains_reset();
    memset(hw, 0, sizeof(hw));
    rdtscp = xsaves = install_fails = false;
    assert_int_equal(msr_vcpu_init(&vcpus[1]), 0);
    return 0;
}
static int release(void **state)
{
    (void)state;
    msr_vcpu_free(&vcpus[1]);
    assert_null(vcpus[1].msrs);
    return 0;
}
static uint64_t rd(uint32_t msr)
{
    uint64_t val = 0xdead;

    assert_int_equal(guest_rdmsr(&vcpus[1], msr, &val), 0);
    return val;
}
static int wr(uint32_t msr, uint64_t val)
{
    return guest_wrmsr(&vcpus[1], msr, val);
}

static void kinds(void **state)
{
    uint64_t val;

    (void)state;
    assert_int_equal(wr(0xc0000082, 0xffffffff81000000), 0);
    assert_int_equal(rd(0xc0000082), 0xffffffff81000000);
    assert_int_equal(wr(0xc0000082, 0x8000000000000000), -EINVAL);
    assert_int_equal(wr(0xc0000100, 0x0000800000000000), -EINVAL);
    assert_int_equal(rd(0xc0000082), 0xffffffff81000000);
    assert_int_equal(wr(0x176, 0x1000), 0);
    efer = 0x1d01;
    assert_int_equal(rd(0xc0000080), 0xd01); /* SVME is ours */
    assert_int_equal(wr(0xc0000080, 0x500), 0);
    assert_int_equal(efer, 0x500);
    assert_int_equal(wr(0xc0000080, 1ULL << 63), -EINVAL);
    assert_int_equal(rd(0x80b), 0x80b);
    assert_int_equal(wr(0x83f, 5), 0);
    assert_int_equal(x2apic_last, 5);
    assert_int_equal(wr(0x6e0, 77), 0);
    assert_int_equal(rd(0x6e0), 77);
    assert_int_equal(wr(0x1b, 0xfee00800), 0);
    assert_int_equal(rd(0x1b), 0xfee00800);
    assert_int_equal(rd(0x179), 0);
    assert_int_equal(rd(0xc0010015), 1 << 24);
    assert_int_equal(wr(0xc0010015, ~0ULL), 0);
    assert_int_equal(rd(0xc0010015), 1 << 24);
    assert_int_equal(wr(0x40000000, 0x1234000), 0);
    assert_int_equal(installed, 0x1234000);
    assert_int_equal(wr(0x40000000, 0x1234001), -EINVAL); /* there is one page */
    install_fails = true;
    assert_int_equal(wr(0x40000000, 0x5000), -EINVAL);
    static const uint32_t faults[] = {0x3b,       0x48,       0x49,  0x10a, 0xda0,
                                      0xc0000104, 0xc0010117, 0x210, 0x24f, 0x40000001,
                                      0xc001011f, 0x7ff,      0x900, ~0u};
    for (unsigned i = 0; i < ARRAY_SIZE(faults); i++) {
        assert_int_equal(guest_rdmsr(&vcpus[1], faults[i], &val), -EINVAL);
        assert_int_equal(wr(faults[i], 0), -EINVAL);
    }
    assert_int_equal(wr(0xfe, 0), -EINVAL);
    assert_int_equal(guest_rdmsr(&vcpus[1], 0x79, &val), -EINVAL);
}

/* Each number answers in the same way whichever way the search comes to it: the table is sorted. */
static void all_numbers(void **state)
{
    static const uint32_t from[] = {0, 0x40000000 - 16, 0xc0000000, 0xc0010000, 0xc0011000};
    unsigned known = 0;
    uint64_t val;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(from); i++)
        for (uint32_t m = from[i]; m < from[i] + 0x1000; m++)
            known += !guest_rdmsr(&vcpus[1], m, &val);
    /* Sum of the table's readable ranges, x2APIC's 256 and the deadline; TSC_AUX faults here. */
    assert_int_equal(known, 2 + 5 + 1 + 1 + 1 + 3 + 3 + 2 + 1 + 1 + 4 + 16 + 1 + 2 + 8 + 1 + 1 +
                                32 + 1 + 1 + 4 + 3 + 8 + 7 + 8 + 3 + 1 + 2 + 12 + 4 + 1 + 3 + 256 +
                                1);
}

static void time_registers(void **state)
{
    uint64_t val;

    (void)state;
    deadline = 123;
    assert_int_equal(wr(0x10, 1ULL << 50), 0);
    assert_int_equal(tsc_offset, vcpus[1].tsc_offset);
    assert_true(rd(0x10) - (1ULL << 50) < 1ULL << 40);
    assert_int_equal(guest_rdmsr(&vcpus[1], 0xc0000103, &val), -EINVAL);
    assert_int_equal(wr(0xc0000103, 1), -EINVAL);
    rdtscp = true;
    assert_int_equal(wr(0xc0000103, 0x1001), 0);
    assert_int_equal(rd(0xc0000103), 0x1001);
    assert_int_equal(wr(0xc0000103, 1ULL << 32), -EINVAL);
}

static void supervisor_states(void **state)
{
    uint64_t val;

    (void)state;
    assert_int_equal(guest_rdmsr(&vcpus[1], 0xda0, &val), -EINVAL);
    assert_int_equal(wr(0xda0, 0), -EINVAL);
    xsaves = true;
    assert_int_equal(rd(0xda0), 0);
    assert_int_equal(wr(0xda0, 0), 0);
    assert_int_equal(wr(0xda0, 1 << 8), -EINVAL);
}

static void mtrrs(void **state)
{
    struct hvm_hw_mtrr m, again;

    (void)state;
    assert_int_equal(rd(0xfe), 0x508);
    assert_int_equal(rd(0x2ff), 0);
    assert_int_equal(wr(0x2ff, 0xc06), 0);
    assert_int_equal(wr(0x2ff, 0xc02), -EINVAL);
    assert_int_equal(wr(0x2ff, 0x1c06), -EINVAL);
    assert_int_equal(wr(0x200, 0xf0000000), 0);
    assert_int_equal(wr(0x200, 0xf0000003), -EINVAL);
    assert_int_equal(wr(0x200, 1ULL << 40), -EINVAL);
    assert_int_equal(wr(0x20f, 0xfff0000800), 0);
    assert_int_equal(wr(0x20f, 0xfff0000801), -EINVAL);
    assert_int_equal(wr(0x250, 0x0606060606060606), 0);
    assert_int_equal(wr(0x26f, 0x0505050505050505), 0);
    assert_int_equal(wr(0x259, 0x0707070707070707), -EINVAL);
    assert_int_equal(wr(0x277, 0x0007040600070406), 0);
    assert_int_equal(wr(0x277, 0x0007040600070402), -EINVAL);
    assert_int_equal(rd(0x26f), 0x0505050505050505);

    assert_int_equal(hvm_mtrr_save(&vcpus[1], &m), 0);
    assert_int_equal(m.msr_mtrr_var[15], 0xfff0000800);
    assert_int_equal(m.msr_mtrr_fixed[10], 0x0505050505050505);
    assert_int_equal(m.msr_pat_cr, 0x0007040600070406);
    msr_vcpu_free(&vcpus[1]);
    assert_int_equal(hvm_mtrr_load(&vcpus[1], &m), 0); /* comes up by itself */
    assert_int_equal(hvm_mtrr_save(&vcpus[1], &again), 0);
    assert_memory_equal(&m, &again, sizeof(m));
    m.msr_mtrr_def_type = 0x806;
    m.msr_mtrr_fixed[3] = 2;
    assert_int_equal(hvm_mtrr_load(&vcpus[1], &m), -EINVAL);
    m.msr_mtrr_fixed[3] = 0;
    m.msr_pat_cr = 2;
    assert_int_equal(hvm_mtrr_load(&vcpus[1], &m), -EINVAL);
    m.msr_pat_cr = 0;
    m.msr_mtrr_cap = 9;
    assert_int_equal(hvm_mtrr_load(&vcpus[1], &m), -EINVAL);
    assert_int_equal(hvm_mtrr_save(&vcpus[1], &m), 0);
    assert_memory_equal(&m, &again, sizeof(m));
}

#define T(f) cmocka_unit_test_setup_teardown(f, reset, release)
int main(void)
{
    const struct CMUnitTest tests[] = {T(kinds), T(all_numbers), T(time_registers),
                                       T(supervisor_states), T(mtrrs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
