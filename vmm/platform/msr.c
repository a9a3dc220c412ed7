/* msr.c: model-specific registers as a guest sees them: one table, searched by number.
 *
 * A register is the hardware state's (through hvm_ops), another part's (LAPIC, EFER), kept here
 * (MTRRs: nested paging makes them bookkeeping, but guests insist), or a constant that tells a
 * guest's CPU-specific code that there is nothing to see. All others fault, and are logged once.
 * Numbers and fields: APM 2, appendix A; SDM 4, chapter 2.
 */
#include "core/atomic.h"
#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "core/x86.h"
#include "domain/hvm.h"
#include "platform/platform.h"
#include <xen/arch-x86/cpufeatureset.h>

#define MSR_TSC            0x10
#define MSR_TSC_DEADLINE   0x6e0
#define MSR_XEN_HYPERCALL  0x40000000
#define MTRR_DEF_TYPE_BITS 0xcffULL
#define MTRR_CAP_VALUE     (0x508ULL) /* write-combining, fixed ranges, 8 variable ones */
#define MTRR_PAIRS         8

struct vcpu_msrs { /* v->msrs; owner: v, or who has it paused */
    uint64_t mtrr_def_type;
    uint64_t mtrr_var[MTRR_PAIRS * 2]; /* base, mask */
    uint64_t mtrr_fixed[NUM_FIXED_MSR];
};

struct msr_range;
typedef int msr_read_fn(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t *val);
typedef int msr_write_fn(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t val);

struct msr_range { /* no read or write function: #GP */
    uint32_t first, last;
    msr_read_fn *read;
    msr_write_fn *write;
    uint64_t value; /* for read_value */
};

/* ---- kinds of registers
 * ---------------------------------------------------------------------------- */

static int read_value(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t *val)
{
    (void)v;
    (void)msr;
    *val = r->value;
    return 0;
}

/* IA32_XSS: no supervisor state component is offered, so none can be set. */
static int read_xss(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t *val)
{
    if (!cpuid_has(v->domain, XEN_X86_FEATURE_XSAVES))
        return -EINVAL;
    return read_value(v, r, msr, val);
}

static int write_xss(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t val)
{
    (void)r;
    (void)msr;
    return val || !cpuid_has(v->domain, XEN_X86_FEATURE_XSAVES) ? -EINVAL : 0;
}

static int ignore(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t val)
{
    (void)v;
    (void)r;
    (void)msr;
    (void)val;
    return 0;
}

/* In the hardware state where the vendor has it, otherwise it reads as zero. */
static int read_hw(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t *val)
{
    (void)r;
    if (hvm_ops->get_msr(v, msr, val))
        *val = 0;
    return 0;
}

static int write_hw(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t val)
{
    (void)r;
    return hvm_ops->set_msr(v, msr, val) == -EINVAL ? -EINVAL : 0;
}

static int write_address(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t val)
{
    if ((uint64_t)((int64_t)(val << 16) >> 16) != val) /* not canonical */
        return -EINVAL;
    return write_hw(v, r, msr, val);
}

static bool memory_type_valid(uint64_t type, bool pat)
{
    return type == 0 || type == 1 || (type >= 4 && type <= 6) || (pat && type == 7);
}

static int write_pat(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t val)
{
    for (unsigned i = 0; i < 64; i += 8)
        if (!memory_type_valid(val >> i & 0xff, true))
            return -EINVAL;
    return write_hw(v, r, msr, val);
}

/* ---- time, APIC, EFER
 * ------------------------------------------------------------------------------- */

static int read_tsc(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t *val)
{
    (void)r;
    (void)msr;
    *val = guest_tsc(v, rdtsc());
    return 0;
}

/* What is derived from the guest's TSC follows it: its clock and its deadline timer. */
static int write_tsc(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t val)
{
    uint64_t deadline = vlapic_tsc_deadline(v);

    (void)r;
    (void)msr;
    v->tsc_offset = val - tsc_scaled(v->domain, rdtsc());
    hvm_ops->set_tsc_offset(v, v->tsc_offset);
    pvtime_update_vcpu(v);
    if (deadline)
        vlapic_set_tsc_deadline(v, deadline);
    return 0;
}

static int read_tsc_aux(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t *val)
{
    (void)r;
    (void)msr;
    if (!cpuid_has(v->domain, XEN_X86_FEATURE_RDTSCP))
        return -EINVAL;
    *val = v->tsc_aux;
    return 0;
}

static int write_tsc_aux(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t val)
{
    if (!cpuid_has(v->domain, XEN_X86_FEATURE_RDTSCP) || val >> 32)
        return -EINVAL;
    v->tsc_aux = val;
    return write_hw(v, r, msr, val);
}

static int read_apic_base(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t *val)
{
    (void)r;
    (void)msr;
    *val = vlapic_base_msr(v);
    return 0;
}

static int write_apic_base(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t val)
{
    (void)r;
    (void)msr;
    return vlapic_set_base_msr(v, val);
}

static int read_efer(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t *val)
{
    (void)r;
    (void)msr;
    *val = hvm_ops->get_efer(v) & ~EFER_SVME;
    return 0;
}

static int write_efer(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t val)
{
    (void)r;
    (void)msr;
    return hvm_set_efer(v, val);
}

/* <xen/arch-x86/cpuid.h>, leaf 0x40000002: bits 11:0 number a page of the one there is. */
static int write_hypercall(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t val)
{
    (void)r;
    (void)msr;
    if (val & ~PAGE_MASK)
        return -EINVAL;
    return hypercall_page_install(v, val) ? -EINVAL : 0;
}

/* ---- MTRRs (SDM 3A, 12.11)
 * ---------------------------------------------------------------------------- */

/* dom0 has no firmware of its own: it finds what the machine's set up, and without that (MTRRs
 * off) Linux would not use PAT. */
static void copy_host_mtrrs(struct vcpu_msrs *m)
{
#ifndef HOST_TEST
    static const uint16_t fixed[NUM_FIXED_MSR] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
                                                  0x26b, 0x26c, 0x26d, 0x26e, 0x26f};
    uint64_t cap = rdmsr(MSR_MTRR_CAP);

    for (unsigned i = 0; i < MTRR_PAIRS * 2 && i < (cap & 0xff) * 2; i++)
        m->mtrr_var[i] = rdmsr(0x200 + i);
    for (unsigned i = 0; i < NUM_FIXED_MSR && cap & BIT(8); i++)
        m->mtrr_fixed[i] = rdmsr(fixed[i]);
    m->mtrr_def_type = rdmsr(0x2ff) & MTRR_DEF_TYPE_BITS;
#else
    (void)m;
#endif
}

int msr_vcpu_init(struct vcpu *v)
{
    if (v->msrs)
        return 0;
    v->msrs = kzalloc(sizeof(*v->msrs));
    if (!v->msrs)
        return -ENOMEM;
    if (v->domain->is_dom0 && cpuid_has(v->domain, XEN_X86_FEATURE_MTRR))
        copy_host_mtrrs(v->msrs);
    return 0;
}

void msr_vcpu_free(struct vcpu *v)
{
    kfree(v->msrs);
    v->msrs = NULL;
}

static uint64_t *mtrr_slot(struct vcpu *v, uint32_t msr)
{
    if (msr_vcpu_init(v))
        return NULL;
    if (msr >= 0x200 && msr < 0x200 + MTRR_PAIRS * 2)
        return &v->msrs->mtrr_var[msr - 0x200];
    if (msr == 0x250)
        return &v->msrs->mtrr_fixed[0];
    if (msr == 0x258 || msr == 0x259)
        return &v->msrs->mtrr_fixed[1 + msr - 0x258];
    if (msr >= 0x268 && msr <= 0x26f)
        return &v->msrs->mtrr_fixed[3 + msr - 0x268];
    return msr == 0x2ff ? &v->msrs->mtrr_def_type : NULL;
}

static bool mtrr_value_valid(uint32_t msr, uint64_t val)
{
    uint64_t address = (BIT(p2m_gpa_bits) - 1) & PAGE_MASK;

    if (msr == 0x2ff)
        return !(val & ~MTRR_DEF_TYPE_BITS) && memory_type_valid(val & 0xff, false);
    if (msr < 0x250) {
        if (msr & 1)
            return !(val & ~(address | BIT(11)));
        return !(val & ~(address | 0xff)) && memory_type_valid(val & 0xff, false);
    }
    for (unsigned i = 0; i < 64; i += 8)
        if (!memory_type_valid(val >> i & 0xff, false))
            return false;
    return true;
}

static int read_mtrr(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t *val)
{
    uint64_t *slot = mtrr_slot(v, msr);

    (void)r;
    if (!slot)
        return -EINVAL;
    *val = *slot;
    return 0;
}

static int write_mtrr(struct vcpu *v, const struct msr_range *r, uint32_t msr, uint64_t val)
{
    uint64_t *slot = mtrr_slot(v, msr);

    (void)r;
    if (!slot || !mtrr_value_valid(msr, val))
        return -EINVAL;
    *slot = val;
    return 0;
}

/* ---- the table, sorted
 * ---------------------------------------------------------------------------------- */

static const struct msr_range msrs[] = {
    {0x0, 0x1, read_value, ignore, 0}, /* P5 machine check */
    {MSR_TSC, MSR_TSC, read_tsc, write_tsc, 0},
    {0x17, 0x17, read_value, NULL, 0}, /* PLATFORM_ID */
    {MSR_APIC_BASE, MSR_APIC_BASE, read_apic_base, write_apic_base, 0},
    {0x2a, 0x2a, read_value, ignore, 0},                             /* EBL_CR_POWERON */
    {MSR_FEATURE_CONTROL, MSR_FEATURE_CONTROL, read_value, NULL, 1}, /* locked: no VMX, no SMX */
    {0x79, 0x79, NULL, ignore, 0},                                   /* microcode update */
    {0x8b, 0x8b, read_value, ignore, 0},                             /* BIOS_SIGN_ID, PATCH_LEVEL */
    {0xce, 0xce, read_value, NULL, 0},                               /* PLATFORM_INFO */
    {MSR_MTRR_CAP, MSR_MTRR_CAP, read_value, NULL, MTRR_CAP_VALUE},
    {MSR_SYSENTER_CS, MSR_SYSENTER_CS, read_hw, write_hw, 0},
    {MSR_SYSENTER_ESP, MSR_SYSENTER_EIP, read_hw, write_address, 0},
    {0x179, 0x17b, read_value, ignore, 0},      /* MCG_CAP (no banks), STATUS, CTL */
    {0x198, 0x199, read_value, ignore, 0},      /* PERF_STATUS, PERF_CTL */
    {0x1a0, 0x1a0, read_value, ignore, 0x1801}, /* MISC_ENABLE: fast strings; no BTS, no PEBS */
    {0x1d9, 0x1d9, read_hw, write_hw, 0},       /* DEBUGCTL */
    {0x1db, 0x1de, read_hw, ignore, 0},         /* last branch and exception */
    {0x200, 0x200 + MTRR_PAIRS * 2 - 1, read_mtrr, write_mtrr, 0},
    {0x250, 0x250, read_mtrr, write_mtrr, 0},
    {0x258, 0x259, read_mtrr, write_mtrr, 0},
    {0x268, 0x26f, read_mtrr, write_mtrr, 0},
    {MSR_PAT, MSR_PAT, read_hw, write_pat, 0},
    {0x2ff, 0x2ff, read_mtrr, write_mtrr, 0},
    {0x400, 0x41f, read_value, ignore, 0}, /* machine check banks */
    {MSR_XSS, MSR_XSS, read_xss, write_xss, 0},
    {MSR_XEN_HYPERCALL, MSR_XEN_HYPERCALL, read_value, write_hypercall, 0},
    {MSR_EFER, MSR_EFER, read_efer, write_efer, 0},
    {MSR_STAR, MSR_STAR, read_hw, write_hw, 0},
    {MSR_LSTAR, MSR_CSTAR, read_hw, write_address, 0},
    {MSR_SYSCALL_MASK, MSR_SYSCALL_MASK, read_hw, write_hw, 0},
    {MSR_FS_BASE, MSR_KERNEL_GS_BASE, read_hw, write_address, 0},
    {MSR_TSC_AUX, MSR_TSC_AUX, read_tsc_aux, write_tsc_aux, 0},
    {0xc0010000, 0xc0010007, read_value, ignore, 0},       /* performance counters: stand still */
    {0xc0010010, 0xc0010010, read_value, ignore, 0},       /* SYSCFG */
    {0xc0010015, 0xc0010015, read_value, ignore, BIT(24)}, /* HWCR: TSC at the P0 frequency */
    {0xc001001a, 0xc001001a, read_value, ignore, 0},       /* TOP_MEM */
    {0xc001001d, 0xc001001d, read_value, ignore, 0},       /* TOP_MEM2 */
    {0xc001001f, 0xc001001f, read_value, ignore, 0},       /* NB_CFG */
    {0xc0010055, 0xc0010055, read_value, ignore, 0},       /* interrupt pending message */
    {0xc0010058, 0xc0010058, read_value, ignore, 0},       /* MMIO configuration base: none */
    {0xc0010061, 0xc0010068, read_value, ignore, 0},       /* P-states */
    {0xc0010111, 0xc0010113, read_value, NULL, 0},         /* SMBASE, TSEG */
    {MSR_VM_CR, MSR_VM_CR, read_value, ignore, 0x18},      /* SVM off and locked */
    {0xc0010140, 0xc0010141, read_value, ignore, 0},       /* OS-visible workarounds: none */
    {0xc0010200, 0xc001020b, read_value, ignore, 0},       /* performance counters */
    {0xc0011020, 0xc0011023, read_value, ignore, 0},       /* LS, IC, DC, BU configuration */
    {0xc0011029, 0xc0011029, read_value, ignore, BIT(1)},  /* DE_CFG: LFENCE serialises */
    {0xc001102a, 0xc001102c, read_value, ignore, 0},       /* BU2, EX configuration */
};

static const struct msr_range *find(uint32_t msr)
{
    unsigned low = 0, high = ARRAY_SIZE(msrs);

    while (low < high) {
        unsigned mid = (low + high) / 2;
        if (msr < msrs[mid].first)
            high = mid;
        else if (msr > msrs[mid].last)
            low = mid + 1;
        else
            return &msrs[mid];
    }
    return NULL;
}

/* Each unknown register is worth one line. */
static void log_unknown(struct vcpu *v, const char *what, uint32_t msr)
{
    static uint32_t seen[64];

    for (unsigned i = 0; i < ARRAY_SIZE(seen); i++) {
        if (READ_ONCE(seen[i]) == msr)
            return;
        if (atomic_cas(&seen[i], 0u, msr))
            break;
    }
    guest_printk(LOG_DEBUG, "d%uv%u: %s of unknown MSR %x: #GP", v->domain->id, v->id, what, msr);
}

/* RDMSR in the guest. Exit path, v == current; the emulator. -EINVAL: #GP. */
int guest_rdmsr(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    const struct msr_range *r;

    if (msr - MSR_X2APIC < 0x100)
        return vlapic_x2apic_read(v, msr, val);
    if (msr == MSR_TSC_DEADLINE) {
        *val = vlapic_tsc_deadline(v);
        return 0;
    }
    r = find(msr);
    if (!r || !r->read) {
        log_unknown(v, "read", msr);
        return -EINVAL;
    }
    return r->read(v, r, msr, val);
}

/* WRMSR in the guest. -EINVAL: #GP. */
int guest_wrmsr(struct vcpu *v, uint32_t msr, uint64_t val)
{
    const struct msr_range *r;

    if (msr - MSR_X2APIC < 0x100)
        return vlapic_x2apic_write(v, msr, val);
    if (msr == MSR_TSC_DEADLINE) {
        vlapic_set_tsc_deadline(v, val);
        return 0;
    }
    r = find(msr);
    if (!r || !r->write) {
        log_unknown(v, "write", msr);
        return -EINVAL;
    }
    return r->write(v, r, msr, val);
}

/* ---- the HVM context's MTRR record
 * ------------------------------------------------------------------------ */

int hvm_mtrr_save(struct vcpu *v, struct hvm_hw_mtrr *out)
{
    if (msr_vcpu_init(v))
        return -ENOMEM;
    memset(out, 0, sizeof(*out));
    read_hw(v, NULL, MSR_PAT, &out->msr_pat_cr);
    memcpy(out->msr_mtrr_var, v->msrs->mtrr_var, sizeof(out->msr_mtrr_var));
    memcpy(out->msr_mtrr_fixed, v->msrs->mtrr_fixed, sizeof(out->msr_mtrr_fixed));
    out->msr_mtrr_cap = MTRR_CAP_VALUE;
    out->msr_mtrr_def_type = v->msrs->mtrr_def_type;
    return 0;
}

/* All values are checked before the first is taken. */
int hvm_mtrr_load(struct vcpu *v, const struct hvm_hw_mtrr *in)
{
    if (msr_vcpu_init(v))
        return -ENOMEM;
    if ((in->msr_mtrr_cap & 0xff) > MTRR_PAIRS || !mtrr_value_valid(0x2ff, in->msr_mtrr_def_type))
        return -EINVAL;
    for (uint32_t i = 0; i < MTRR_PAIRS * 2; i++)
        if (!mtrr_value_valid(0x200 + i, in->msr_mtrr_var[i]))
            return -EINVAL;
    for (uint32_t i = 0; i < NUM_FIXED_MSR; i++)
        if (!mtrr_value_valid(0x250, in->msr_mtrr_fixed[i]))
            return -EINVAL;
    if (write_pat(v, NULL, MSR_PAT, in->msr_pat_cr))
        return -EINVAL;
    memcpy(v->msrs->mtrr_var, in->msr_mtrr_var, sizeof(in->msr_mtrr_var));
    memcpy(v->msrs->mtrr_fixed, in->msr_mtrr_fixed, sizeof(in->msr_mtrr_fixed));
    v->msrs->mtrr_def_type = in->msr_mtrr_def_type;
    return 0;
}
