/* vmcb.h: the virtual machine control block (APM 2, appendix B) and SVM's CPUID and exit codes. */
#pragma once

#include "core/types.h"
#include "domain/hvm.h"
#include "svm/svm.h"

enum vmcb_intercept {                   /* bit numbers over the intercept words, APM 2, table B-1 */
                      ICPT_CR_READ = 0, /* + n */
                      ICPT_CR_WRITE = 16, /* + n */
                      ICPT_DR_READ = 32,
                      ICPT_DR_WRITE = 48,
                      ICPT_EXCEPTION = 64, /* + vector */
                      ICPT_INTR = 96,
                      ICPT_NMI,
                      ICPT_SMI,
                      ICPT_INIT,
                      ICPT_VINTR,
                      ICPT_CR0_SEL_WRITE,
                      ICPT_IDTR_READ,
                      ICPT_GDTR_READ,
                      ICPT_LDTR_READ,
                      ICPT_TR_READ,
                      ICPT_IDTR_WRITE,
                      ICPT_GDTR_WRITE,
                      ICPT_LDTR_WRITE,
                      ICPT_TR_WRITE,
                      ICPT_RDTSC,
                      ICPT_RDPMC,
                      ICPT_PUSHF,
                      ICPT_POPF,
                      ICPT_CPUID,
                      ICPT_RSM,
                      ICPT_IRET,
                      ICPT_INTN,
                      ICPT_INVD,
                      ICPT_PAUSE,
                      ICPT_HLT,
                      ICPT_INVLPG,
                      ICPT_INVLPGA,
                      ICPT_IOIO,
                      ICPT_MSR,
                      ICPT_TASK_SWITCH,
                      ICPT_FERR_FREEZE,
                      ICPT_SHUTDOWN,
                      ICPT_VMRUN,
                      ICPT_VMMCALL,
                      ICPT_VMLOAD,
                      ICPT_VMSAVE,
                      ICPT_STGI,
                      ICPT_CLGI,
                      ICPT_SKINIT,
                      ICPT_RDTSCP,
                      ICPT_ICEBP,
                      ICPT_WBINVD,
                      ICPT_MONITOR,
                      ICPT_MWAIT,
                      ICPT_MWAIT_ARMED,
                      ICPT_XSETBV,
};

enum vmexit { /* APM 2, appendix C */
              EXIT_CR_READ = 0x00,
              EXIT_CR_WRITE = 0x10,
              EXIT_DR_READ = 0x20,
              EXIT_DR_WRITE = 0x30,
              EXIT_EXCEPTION = 0x40,
              EXIT_INTR = 0x60,
              EXIT_NMI,
              EXIT_SMI,
              EXIT_INIT,
              EXIT_VINTR,
              EXIT_CR0_SEL_WRITE,
              EXIT_RDTSC = 0x6e,
              EXIT_RDPMC = 0x6f,
              EXIT_CPUID = 0x72,
              EXIT_IRET = 0x74,
              EXIT_INVD = 0x76,
              EXIT_PAUSE = 0x77,
              EXIT_HLT = 0x78,
              EXIT_INVLPG = 0x79,
              EXIT_INVLPGA = 0x7a,
              EXIT_IOIO = 0x7b,
              EXIT_MSR = 0x7c,
              EXIT_TASK_SWITCH = 0x7d,
              EXIT_FERR_FREEZE = 0x7e,
              EXIT_SHUTDOWN = 0x7f,
              EXIT_VMRUN = 0x80,
              EXIT_VMMCALL = 0x81,
              EXIT_VMLOAD = 0x82,
              EXIT_VMSAVE = 0x83,
              EXIT_STGI = 0x84,
              EXIT_CLGI = 0x85,
              EXIT_SKINIT = 0x86,
              EXIT_RDTSCP = 0x87,
              EXIT_ICEBP = 0x88,
              EXIT_WBINVD = 0x89,
              EXIT_MONITOR = 0x8a,
              EXIT_MWAIT = 0x8b,
              EXIT_MWAIT_ARMED = 0x8c,
              EXIT_XSETBV = 0x8d,
              EXIT_NPF = 0x400,
              EXIT_NR = 0x401,
};
#define EXIT_INVALID (~0ULL)

enum { /* interrupt control word, offset 60h */
       INT_V_TPR = 0xff,
       INT_V_IRQ = 1 << 8,
       INT_V_PRIO_SHIFT = 16,
       INT_V_IGN_TPR = 1 << 20,
       INT_V_MASKING = 1 << 24,
};

#define EVENT_VALID    BIT(31)
#define EVENT_HAS_CODE BIT(11)

enum vmcb_clean { /* APM 2, 15.15.3 */
                  CLEAN_INTERCEPTS = 1 << 0,
                  CLEAN_IOPM = 1 << 1,
                  CLEAN_ASID = 1 << 2,
                  CLEAN_TPR = 1 << 3,
                  CLEAN_NP = 1 << 4,
                  CLEAN_CR = 1 << 5,
                  CLEAN_DR = 1 << 6,
                  CLEAN_DT = 1 << 7,
                  CLEAN_SEG = 1 << 8,
                  CLEAN_CR2 = 1 << 9,
                  CLEAN_ALL = 0x3ff,
};

struct vmcb {
    /* Control area */
    uint32_t intercept[6]; /* 000: enum vmcb_intercept as a bitmap */
    uint32_t reserved0[9];
    uint16_t pause_threshold; /* 03c */
    uint16_t pause_count;
    uint64_t iopm_pa; /* 040 */
    uint64_t msrpm_pa;
    uint64_t tsc_offset; /* 050 */
    uint32_t asid;
    uint32_t tlb_control;
    uint32_t int_control; /* 060 */
    uint32_t int_vector;
    uint64_t int_state; /* 068: bit 0 interrupt shadow */
    uint64_t exit_code; /* 070 */
    uint64_t exit_info1, exit_info2;
    uint64_t exit_int_info; /* 088 */
    uint64_t np_control;    /* 090: bit 0 nested paging */
    uint64_t avic_bar, ghcb_pa;
    uint64_t event_inject; /* 0a8 */
    uint64_t n_cr3;        /* 0b0 */
    uint64_t lbr_control;
    uint32_t clean; /* 0c0 */
    uint32_t reserved1;
    uint64_t next_rip; /* 0c8 */
    uint8_t fetched;   /* 0d0 */
    uint8_t insn[15];
    uint8_t reserved2[0x400 - 0xe0];
    /* State save area, at 400h */
    struct segment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr; /* selector, attr, limit, base */
    uint8_t reserved3[0x4cb - 0x4a0];
    uint8_t cpl; /* 4cb */
    uint32_t reserved4;
    uint64_t efer; /* 4d0 */
    uint8_t reserved5[0x548 - 0x4d8];
    uint64_t cr4, cr3, cr0, dr7, dr6, rflags, rip; /* 548 */
    uint8_t reserved6[0x5d8 - 0x580];
    uint64_t rsp; /* 5d8 */
    uint8_t reserved7[0x5f8 - 0x5e0];
    uint64_t rax;                                          /* 5f8 */
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;   /* 600 */
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip, cr2; /* 628 */
    uint8_t reserved8[0x668 - 0x648];
    uint64_t g_pat, debugctl, br_from, br_to, last_excp_from, last_excp_to; /* 668 */
    uint8_t reserved9[0x1000 - 0x698];
} __packed __aligned(4096);
STATIC_ASSERT(sizeof(struct vmcb) == 4096);
STATIC_ASSERT(offsetof(struct vmcb, int_control) == 0x60);
STATIC_ASSERT(offsetof(struct vmcb, n_cr3) == 0xb0);
STATIC_ASSERT(offsetof(struct vmcb, next_rip) == 0xc8);
STATIC_ASSERT(offsetof(struct vmcb, es) == 0x400);
STATIC_ASSERT(offsetof(struct vmcb, cpl) == 0x4cb);
STATIC_ASSERT(offsetof(struct vmcb, efer) == 0x4d0);
STATIC_ASSERT(offsetof(struct vmcb, cr4) == 0x548);
STATIC_ASSERT(offsetof(struct vmcb, rip) == 0x578);
STATIC_ASSERT(offsetof(struct vmcb, rsp) == 0x5d8);
STATIC_ASSERT(offsetof(struct vmcb, rax) == 0x5f8);
STATIC_ASSERT(offsetof(struct vmcb, cr2) == 0x640);
STATIC_ASSERT(offsetof(struct vmcb, g_pat) == 0x668);

enum svm_feature { /* CPUID Fn8000_000A EDX */
                   SVM_NP = 1 << 0,
                   SVM_NRIP = 1 << 3,
                   SVM_TSC_RATE = 1 << 4,
                   SVM_CLEAN = 1 << 5,
                   SVM_FLUSH_ASID = 1 << 6,
                   SVM_DECODE = 1 << 7,
                   SVM_PAUSE_FILTER = 1 << 10,
                   SVM_PAUSE_THRESHOLD = 1 << 12,
};

struct svm_vcpu {
    struct vmcb *vmcb; /* guest state; VMSAVE'd fields are current only while not loaded */
    paddr_t vmcb_pa;
    unsigned asid_cpu;        /* pCPU its ASID belongs to */
    uint64_t asid_generation; /* valid while equal to that pCPU's */
    bool virq_armed;          /* V_IRQ holds virq_vector of virq_source */
    bool nmi_masked;          /* an NMI was injected and its IRET not done */
    bool iret_seen;           /* ... but about to be, at iret_rip */
    uint64_t iret_rip;
    struct timer nmi_timer; /* ends the guest's stay so that an NMI that waited for IRET comes in */
    /* An upcall by vector was taken, and upcall_pending set at the exit that told: its handler has
     * yet to clear it. So a window exit looks once more before the next one. */
    bool upcall_taken;
    uint8_t virq_source;
    int virq_vector;
    int reinject_vector; /* external interrupt whose delivery was cut short; -1 none */
    uint32_t clean;      /* clean bits for the next entry */
    uint64_t dr[4];      /* guest DR0-3 while not loaded */
};

struct svm_cpu {
    void *hsave;
    struct vmcb *host_vmcb; /* target of the host's VMSAVE: its TR, FS and so on are not used */
    uint64_t asid_generation;
    uint32_t next_asid, max_asid;
    uint64_t tsc_ratio; /* what the MSR holds, 16.48; 0: one */
    uint64_t tsc_aux;   /* what the MSR holds */
};

extern uint32_t svm_features;

static inline struct svm_vcpu *svm_vcpu(const struct vcpu *v)
{
    return v->hw;
}
static inline struct vmcb *vmcb_of(const struct vcpu *v)
{
    return svm_vcpu(v)->vmcb;
}
/* 2, 4 or 8: 16-, 32- or 64-bit code. */
static inline unsigned vmcb_code_bytes(const struct vmcb *b)
{
    return b->cs.attr & 0x200 && b->efer & EFER_LMA ? 8 : b->cs.attr & 0x400 ? 4 : 2;
}
static inline void vmcb_set_intercept(struct vmcb *b, unsigned n)
{
    b->intercept[n / 32] |= 1u << (n % 32);
}
static inline void vmcb_clear_intercept(struct vmcb *b, unsigned n)
{
    b->intercept[n / 32] &= ~(1u << (n % 32));
}
/* The guest's RIP, RSP, RAX and RFLAGS live in the VMCB while it runs; regs hold them outside. */
void svm_dispatch(struct vcpu *v);
void svm_inject(struct vcpu *v);
void svm_dump(struct vcpu *v);
void svm_quirk_reread_xcr0(struct vcpu *v);
void svm_vcpu_reset(struct vcpu *v);

void svm_permissions_init(void);
paddr_t svm_iopm(const struct domain *d);
paddr_t svm_msrpm(void);
