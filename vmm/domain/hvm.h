/* hvm.h: the operations table by which everything meets SVM and VT-x.
 *
 * Each vendor fills one struct hvm_ops; nothing outside vmm/svm and vmm/vmx knows a VMCB or VMCS.
 * Unless said otherwise the calls are made on v == current, or on a vCPU that is paused and whose
 * state was saved.
 */
#pragma once

#include "domain/domain.h"

#define EFER_SCE       BIT(0)
#define EFER_LME       BIT(8)
#define EFER_LMA       BIT(10)
#define EFER_NXE       BIT(11)
#define EFER_SVME      BIT(12)
#define EFER_FFXSR     BIT(14)

#define CR0_PE         BIT(0)
#define CR0_MP         BIT(1)
#define CR0_EM         BIT(2)
#define CR0_TS         BIT(3)
#define CR0_ET         BIT(4)
#define CR0_NE         BIT(5)
#define CR0_WP         BIT(16)
#define CR0_AM         BIT(18)
#define CR0_NW         BIT(29)
#define CR0_CD         BIT(30)
#define CR0_PG         BIT(31)
#define CR4_DE         BIT(3)
#define CR4_PSE        BIT(4)
#define CR4_PAE        BIT(5)
#define CR4_PGE        BIT(7)
#define CR4_OSFXSR     BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_LA57       BIT(12)
#define CR4_FSGSBASE   BIT(16)
#define CR4_PCIDE      BIT(17)
#define CR4_OSXSAVE    BIT(18)
#define CR4_SMEP       BIT(20)
#define CR4_SMAP       BIT(21)
#define CR4_PKE        BIT(22)

#define DR6_BS         BIT(14)
#define DR7_RW_HIGH    0x22220000 /* R/Wn is 2, ports if CR4.DE is set, or 3, data */

#define RFLAGS_TF      BIT(8)
#define RFLAGS_IF      BIT(9)
#define RFLAGS_RF      BIT(16)
#define RFLAGS_VM      BIT(17)

enum exception {
    EXC_DE,
    EXC_DB,
    EXC_NMI,
    EXC_BP,
    EXC_OF,
    EXC_BR,
    EXC_UD,
    EXC_NM,
    EXC_DF,
    EXC_TS = 10,
    EXC_NP,
    EXC_SS,
    EXC_GP,
    EXC_PF,
    EXC_MF = 16,
    EXC_AC,
    EXC_MC,
    EXC_XM
};

/* Where the next instruction is, and what it takes to read it. */
struct insn_place {
    struct gwalk_mode mode;
    uint64_t linear;
    uint8_t bytes; /* of code: 2, 4 or 8 (16-, 32-, 64-bit) */
    uint8_t cpl;
};

struct hvm_ops {
    const char *name;
    int (*cpu_up)(struct cpu *c); /* turn virtualisation on, on this pCPU */
    void (*cpu_down)(struct cpu *c);
    int (*vcpu_init)(struct vcpu *v); /* allocate hw state in the reset state; -ENOMEM */
    void (*vcpu_free)(struct vcpu *v);
    void (*vcpu_reset)(struct vcpu *v); /* hardware state as after INIT; GPRs are the caller's */
    void (*run)(struct vcpu *v);        /* enter the guest once and handle the exit */
    void (*load)(struct vcpu *v);       /* v takes this pCPU: load lazily switched state */
    void (*save)(struct vcpu *v);       /* v leaves it: store that state */

    void (*inject)(
        struct vcpu *v); /* put v's pending exception, NMI, interrupt where entry delivers it */

    void (*get_segment)(struct vcpu *v, enum segment_reg r, struct segment *out);
    void (*set_segment)(struct vcpu *v, enum segment_reg r, const struct segment *in);
    uint64_t (*get_cr)(struct vcpu *v, unsigned cr);           /* 0, 2, 3, 4 */
    void (*set_cr)(struct vcpu *v, unsigned cr, uint64_t val); /* already checked */
    uint64_t (*get_efer)(struct vcpu *v);
    void (*set_efer)(struct vcpu *v, uint64_t val);  /* already checked */
    uint64_t (*get_dr)(struct vcpu *v, unsigned dr); /* 6, 7 */
    void (*set_dr)(struct vcpu *v, unsigned dr, uint64_t val);
    unsigned (*get_cpl)(struct vcpu *v);
    unsigned (*get_code_bytes)(struct vcpu *v); /* 2, 4 or 8: 16-, 32- or 64-bit code */
    /* All in one call: the exit path. */
    void (*get_insn_place)(struct vcpu *v, struct insn_place *out);
    /* MSRs that live in the hardware state (STAR.., SYSENTER_*, FS/GS base, PAT). -ENOENT. */
    int (*get_msr)(struct vcpu *v, uint32_t msr, uint64_t *val);
    int (*set_msr)(struct vcpu *v, uint32_t msr, uint64_t val);
    unsigned (*get_interrupt_shadow)(struct vcpu *v); /* 0 none, 1 blocked */
    void (*set_interrupt_shadow)(struct vcpu *v, unsigned shadow);
    /* And the domain's tsc_ratio takes effect. v is current, or does not run. */
    void (*set_tsc_offset)(struct vcpu *v, uint64_t offset);
    void (*flush_tlb)(struct vcpu *v); /* before v's next entry: a new tag */
    void (*dump)(struct vcpu *v);      /* registers and control state, to the log */
};

extern const struct hvm_ops svm_ops, vmx_ops;
extern const struct hvm_ops *hvm_ops;  /* chosen at boot */
extern bool hvm_xsaves;                /* guests may use XSAVES and XRSTORS. Set at boot */
extern unsigned hvm_tsc_fraction_bits; /* of a TSC ratio; 0: this CPU scales none. Set at boot */

#define INSN_MAX 15u /* bytes; SDM 2A, 2.3.11 */

/* The bytes at `at` that are in its page, INSN_MAX at most; 0: not to be had this way. */
static inline unsigned insn_peek(struct vcpu *v, const struct insn_place *at, uint8_t *buf)
{
    unsigned n = (unsigned)MIN(INSN_MAX, PAGE_SIZE - (at->linear & ~PAGE_MASK));
    return guest_peek(v, &at->mode, at->linear, buf, n) ? n : 0;
}

static inline bool vcpu_long_mode(struct vcpu *v) /* EFER.LMA */
{
    return hvm_ops->get_efer(v) & EFER_LMA;
}
/* Queue an exception for v's next entry (with #DF and triple-fault combination rules,
 * APM 2, 8.2.9). error < 0 for none. */
void hvm_inject_exception(struct vcpu *v, unsigned vector, int64_t error);
void hvm_inject_page_fault(struct vcpu *v, uint64_t cr2, uint32_t error);
/* Step RIP over the instruction of `bytes` length: clears RF and the interrupt shadow. */
void hvm_skip(struct vcpu *v, unsigned bytes);
/* Guest-requested register changes, with the architecture's checks; -EINVAL means #GP. */
int hvm_set_cr0(struct vcpu *v, uint64_t val);
int hvm_set_cr3(struct vcpu *v, uint64_t val);
int hvm_set_cr4(struct vcpu *v, uint64_t val);
int hvm_set_efer(struct vcpu *v, uint64_t val);
int hvm_set_xcr0(struct vcpu *v, uint64_t val);
/* MSRs and CPUID as the guest sees them: platform/msr.c, platform/cpuid.c. -EINVAL means #GP. */
int guest_rdmsr(struct vcpu *v, uint32_t msr, uint64_t *val);
int guest_wrmsr(struct vcpu *v, uint32_t msr, uint64_t val);
void guest_cpuid(struct vcpu *v, uint32_t leaf, uint32_t sub, uint32_t out[4]);
/* v's emulated MSRs that no other part keeps (MTRRs): allocated, set to their reset values, freed.
 */
int msr_vcpu_init(struct vcpu *v);
void msr_vcpu_free(struct vcpu *v);
/* The exit handlers both vendors share: domain/exit.c. */
void exit_hypercall(struct vcpu *v);
