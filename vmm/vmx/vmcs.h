/* vmcs.h: the VMCS's fields (SDM 3D, appendix B), controls (SDM 3C, 24.6 to 24.8), exit reasons
 * (appendix C), and the structures that vmm/vmx keeps per vCPU and per pCPU. */
#pragma once

#include "core/mm.h"
#include "core/types.h"
#include "domain/hvm.h"
#include "vmx/vmx.h"

/* Every field that we read, write or dump, by encoding. */
/* clang-format off */
#define VMCS_FIELDS(X) \
    X(VPID, 0x0000) X(POSTED_VECTOR, 0x0002) X(GUEST_ES_SEL, 0x0800) X(GUEST_CS_SEL, 0x0802) X(GUEST_SS_SEL, 0x0804) \
    X(GUEST_DS_SEL, 0x0806) X(GUEST_FS_SEL, 0x0808) X(GUEST_GS_SEL, 0x080a) X(GUEST_LDTR_SEL, 0x080c) \
    X(GUEST_TR_SEL, 0x080e) X(GUEST_INTR_STATUS, 0x0810) X(HOST_ES_SEL, 0x0c00) X(HOST_CS_SEL, 0x0c02) \
    X(HOST_SS_SEL, 0x0c04) X(HOST_DS_SEL, 0x0c06) X(HOST_FS_SEL, 0x0c08) X(HOST_GS_SEL, 0x0c0a) \
    X(HOST_TR_SEL, 0x0c0c) X(IO_BITMAP_A, 0x2000) X(IO_BITMAP_B, 0x2002) X(MSR_BITMAP, 0x2004) \
    X(TSC_OFFSET, 0x2010) X(VIRTUAL_APIC_PAGE, 0x2012) X(APIC_ACCESS, 0x2014) X(POSTED_DESCRIPTOR, 0x2016) X(EPT_POINTER, 0x201a) \
    X(EOI_EXIT0, 0x201c) X(EOI_EXIT1, 0x201e) X(EOI_EXIT2, 0x2020) X(EOI_EXIT3, 0x2022) X(XSS_EXITING, 0x202c) \
    X(TSC_MULTIPLIER, 0x2032) X(GUEST_PHYSICAL, 0x2400) X(LINK_POINTER, 0x2800) X(GUEST_DEBUGCTL, 0x2802) \
    X(GUEST_PAT, 0x2804) X(GUEST_EFER, 0x2806) X(GUEST_PDPTE0, 0x280a) X(GUEST_PDPTE1, 0x280c) \
    X(GUEST_PDPTE2, 0x280e) X(GUEST_PDPTE3, 0x2810) X(HOST_PAT, 0x2c00) X(HOST_EFER, 0x2c02) \
    X(PIN_CONTROLS, 0x4000) X(PROC_CONTROLS, 0x4002) X(EXCEPTION_BITMAP, 0x4004) X(PF_ERROR_MASK, 0x4006) \
    X(PF_ERROR_MATCH, 0x4008) X(CR3_TARGET_COUNT, 0x400a) X(EXIT_CONTROLS, 0x400c) \
    X(EXIT_MSR_STORE_COUNT, 0x400e) X(EXIT_MSR_LOAD_COUNT, 0x4010) X(ENTRY_CONTROLS, 0x4012) \
    X(ENTRY_MSR_LOAD_COUNT, 0x4014) X(ENTRY_INFO, 0x4016) X(ENTRY_ERROR, 0x4018) X(ENTRY_INSN_LENGTH, 0x401a) \
    X(TPR_THRESHOLD, 0x401c) X(PROC2_CONTROLS, 0x401e) X(PLE_GAP, 0x4020) X(PLE_WINDOW, 0x4022) \
    X(INSTRUCTION_ERROR, 0x4400) X(EXIT_REASON, 0x4402) X(EXIT_INTR_INFO, 0x4404) X(EXIT_INTR_ERROR, 0x4406) \
    X(IDT_VECTORING_INFO, 0x4408) X(IDT_VECTORING_ERROR, 0x440a) X(EXIT_INSN_LENGTH, 0x440c) \
    X(EXIT_INSN_INFO, 0x440e) X(GUEST_ES_LIMIT, 0x4800) X(GUEST_CS_LIMIT, 0x4802) X(GUEST_SS_LIMIT, 0x4804) \
    X(GUEST_DS_LIMIT, 0x4806) X(GUEST_FS_LIMIT, 0x4808) X(GUEST_GS_LIMIT, 0x480a) X(GUEST_LDTR_LIMIT, 0x480c) \
    X(GUEST_TR_LIMIT, 0x480e) X(GUEST_GDTR_LIMIT, 0x4810) X(GUEST_IDTR_LIMIT, 0x4812) X(GUEST_ES_AR, 0x4814) \
    X(GUEST_CS_AR, 0x4816) X(GUEST_SS_AR, 0x4818) X(GUEST_DS_AR, 0x481a) X(GUEST_FS_AR, 0x481c) \
    X(GUEST_GS_AR, 0x481e) X(GUEST_LDTR_AR, 0x4820) X(GUEST_TR_AR, 0x4822) X(GUEST_INTERRUPTIBILITY, 0x4824) \
    X(GUEST_ACTIVITY, 0x4826) X(GUEST_SYSENTER_CS, 0x482a) X(PREEMPTION_TIMER, 0x482e) \
    X(HOST_SYSENTER_CS, 0x4c00) X(CR0_MASK, 0x6000) X(CR4_MASK, 0x6002) X(CR0_SHADOW, 0x6004) \
    X(CR4_SHADOW, 0x6006) X(EXIT_QUALIFICATION, 0x6400) X(GUEST_LINEAR, 0x640a) X(GUEST_CR0, 0x6800) \
    X(GUEST_CR3, 0x6802) X(GUEST_CR4, 0x6804) X(GUEST_ES_BASE, 0x6806) X(GUEST_CS_BASE, 0x6808) \
    X(GUEST_SS_BASE, 0x680a) X(GUEST_DS_BASE, 0x680c) X(GUEST_FS_BASE, 0x680e) X(GUEST_GS_BASE, 0x6810) \
    X(GUEST_LDTR_BASE, 0x6812) X(GUEST_TR_BASE, 0x6814) X(GUEST_GDTR_BASE, 0x6816) X(GUEST_IDTR_BASE, 0x6818) \
    X(GUEST_DR7, 0x681a) X(GUEST_RSP, 0x681c) X(GUEST_RIP, 0x681e) X(GUEST_RFLAGS, 0x6820) \
    X(GUEST_PENDING_DEBUG, 0x6822) X(GUEST_SYSENTER_ESP, 0x6824) X(GUEST_SYSENTER_EIP, 0x6826) \
    X(HOST_CR0, 0x6c00) X(HOST_CR3, 0x6c02) X(HOST_CR4, 0x6c04) X(HOST_FS_BASE, 0x6c06) \
    X(HOST_GS_BASE, 0x6c08) X(HOST_TR_BASE, 0x6c0a) X(HOST_GDTR_BASE, 0x6c0c) X(HOST_IDTR_BASE, 0x6c0e) \
    X(HOST_SYSENTER_ESP, 0x6c10) X(HOST_SYSENTER_EIP, 0x6c12) X(HOST_RSP, 0x6c14) X(HOST_RIP, 0x6c16)
/* clang-format on */

enum vmcs_field {
#define X(name, encoding) VMCS_##name = encoding,
    VMCS_FIELDS(X)
#undef X
};

enum pin_control { /* SDM 3C, table 24-5 */
                   PIN_INTERRUPT = 1 << 0,
                   PIN_NMI = 1 << 3,
                   PIN_VIRTUAL_NMI = 1 << 5,
                   PIN_PREEMPTION_TIMER = 1 << 6,
                   PIN_POSTED_INTERRUPTS = 1 << 7,
};
enum proc_control { /* table 24-6 */
                    PROC_INTERRUPT_WINDOW = 1 << 2,
                    PROC_TSC_OFFSET = 1 << 3,
                    PROC_HLT = 1 << 7,
                    PROC_MWAIT = 1 << 10,
                    PROC_RDPMC = 1 << 11,
                    PROC_CR8_LOAD = 1 << 19,
                    PROC_CR8_STORE = 1 << 20,
                    PROC_TPR_SHADOW = 1 << 21,
                    PROC_NMI_WINDOW = 1 << 22,
                    PROC_ALL_IO = 1 << 24,
                    PROC_IO_BITMAPS = 1 << 25,
                    PROC_MSR_BITMAPS = 1 << 28,
                    PROC_MONITOR = 1 << 29,
};
#define PROC_SECONDARY (1u << 31)
enum proc2_control { /* table 24-7 */
                     PROC2_APIC_ACCESSES = 1 << 0,
                     PROC2_EPT = 1 << 1,
                     PROC2_RDTSCP = 1 << 3,
                     PROC2_X2APIC = 1 << 4,
                     PROC2_VPID = 1 << 5,
                     PROC2_WBINVD = 1 << 6,
                     PROC2_UNRESTRICTED = 1 << 7,
                     PROC2_APIC_REGISTERS = 1 << 8,
                     PROC2_INTERRUPT_DELIVERY = 1 << 9,
                     PROC2_PAUSE_LOOP = 1 << 10,
                     PROC2_INVPCID = 1 << 12,
                     PROC2_XSAVES = 1 << 20,
                     PROC2_TSC_SCALING = 1 << 25,
};
enum exit_control { /* table 24-13 */
                    EXIT_SAVE_DEBUG = 1 << 2,
                    EXIT_HOST_64 = 1 << 9,
                    EXIT_ACK_INTERRUPT = 1 << 15,
                    EXIT_LOAD_PAT = 1 << 19,
                    EXIT_LOAD_EFER = 1 << 21,
                    EXIT_SAVE_TIMER = 1 << 22,
};
enum entry_control { /* table 24-15 */
                     ENTRY_LOAD_DEBUG = 1 << 2,
                     ENTRY_IA32E = 1 << 9,
                     ENTRY_LOAD_PAT = 1 << 14,
                     ENTRY_LOAD_EFER = 1 << 15,
};

enum ept_vpid_cap { /* IA32_VMX_EPT_VPID_CAP: SDM 3D, A.10; bit numbers */
                    CAP_EPT_4_LEVELS = 6,
                    CAP_EPT_WB = 14,
                    CAP_EPT_2M = 16,
                    CAP_EPT_1G = 17,
                    CAP_INVEPT = 20,
                    CAP_EPT_DIRTY = 21,
                    CAP_INVEPT_SINGLE = 25,
                    CAP_INVEPT_ALL = 26,
                    CAP_INVVPID = 32,
                    CAP_INVVPID_ALL = 42,
};

#define EPTP_WB_4_LEVELS (6 | 3 << 3) /* SDM 3C, 24.6.11 */
#define EPTP_DIRTY_BITS  BIT(6)

/* Event information, the same in VM-entry, exit and IDT-vectoring fields (24.8.3, 24.9.2). */
#define EVENT_VALID    (1u << 31)
#define EVENT_HAS_CODE (1u << 11)
/* Error codes go with just these exceptions, in protected mode (26.2.1.3). */
#define EVENTS_WITH_CODE (BIT(EXC_DF) | 0x1fUL << EXC_TS | BIT(EXC_AC))
/* EFER as guests and the host have it: LMSLE, FFXSR and the like are AMD's. */
#define EFER_KNOWN (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)
enum event_type {
    EVENT_INTERRUPT = 0,
    EVENT_NMI = 2,
    EVENT_EXCEPTION = 3,
    EVENT_SOFTWARE = 4,
    EVENT_INT1
};

enum interruptibility { /* 24.4.2 */
                        BLOCKED_BY_STI = 1,
                        BLOCKED_BY_MOV_SS = 2,
                        BLOCKED_BY_NMI = 8,
};

#define AR_UNUSABLE (1u << 16) /* 24.4.1 */

enum vmx_reason { /* SDM 3D, appendix C */
                  REASON_EXCEPTION_NMI,
                  REASON_INTERRUPT,
                  REASON_TRIPLE_FAULT,
                  REASON_INIT,
                  REASON_SIPI,
                  REASON_INTERRUPT_WINDOW = 7,
                  REASON_NMI_WINDOW,
                  REASON_TASK_SWITCH,
                  REASON_CPUID,
                  REASON_GETSEC,
                  REASON_HLT,
                  REASON_INVD,
                  REASON_INVLPG,
                  REASON_RDPMC,
                  REASON_RDTSC,
                  REASON_RSM,
                  REASON_VMCALL,
                  REASON_VMCLEAR,
                  REASON_VMXON = 27,
                  REASON_CR_ACCESS,
                  REASON_DR_ACCESS,
                  REASON_IO,
                  REASON_RDMSR,
                  REASON_WRMSR,
                  REASON_BAD_GUEST_STATE,
                  REASON_MSR_LOADING,
                  REASON_MWAIT = 36,
                  REASON_MONITOR = 39,
                  REASON_PAUSE,
                  REASON_MACHINE_CHECK,
                  REASON_TPR_BELOW_THRESHOLD = 43,
                  REASON_APIC_ACCESS,
                  REASON_VIRTUALIZED_EOI,
                  REASON_EPT_VIOLATION = 48,
                  REASON_EPT_MISCONFIGURATION,
                  REASON_INVEPT,
                  REASON_RDTSCP,
                  REASON_PREEMPTION_TIMER,
                  REASON_INVVPID,
                  REASON_WBINVD,
                  REASON_XSETBV,
                  REASON_APIC_WRITE,
                  REASON_NR = 64,
};
#define REASON_ENTRY_FAILED (1u << 31)

/* Which event the next entry delivers. It is taken from where it waits only after that entry. */
enum armed { ARMED_NOTHING, ARMED_EXCEPTION, ARMED_NMI, ARMED_REINJECT, ARMED_INTERRUPT };

/* The MSRs that are the guest's own while its state is loaded; the host uses none of them. */
enum lazy_msr {
    LAZY_STAR,
    LAZY_LSTAR,
    LAZY_CSTAR,
    LAZY_SYSCALL_MASK,
    LAZY_KERNEL_GS_BASE,
    NR_LAZY_MSRS
};

struct vmx_vcpu {
    void *vmcs;
    paddr_t vmcs_pa;
    spinlock_t foreign_lock; /* one pCPU at a time reads or writes a VMCS that is not loaded */
    int active_cpu;          /* pCPU where the VMCS is loaded; -1: cleared, memory is current */
    bool launched;
    uint64_t host_rsp;         /* what the VMCS holds: enter.asm keeps it right */
    uint64_t rip, rsp, rflags; /* what the VMCS holds */
    uint64_t due_tsc;          /* when the preemption timer was loaded to end the stay */
    uint64_t cr0_shadow, cr4_shadow, efer;
    uint32_t proc, proc2, entry_controls;
    uint64_t eoi_exit[4]; /* what the VMCS holds */
    bool shadow_known;    /* interruptibility was read since the last exit */
    uint32_t interruptibility;

    unsigned tag_cpu;        /* pCPU its VPID belongs to */
    uint64_t tag_generation; /* valid while equal to that pCPU's */
    bool flush_ept;
    uint16_t vpid;
    uint64_t eptp;

    enum armed armed;
    uint8_t intr_source;
    int intr_vector;
    int reinject_vector; /* external interrupt whose delivery was cut short; -1 none */
    uint32_t reason;     /* of the last exit */
    bool dump_fields;    /* vmx_dump shows the whole VMCS */

    /* Lazily switched; current only while not loaded. */
    uint64_t msr[NR_LAZY_MSRS];
    uint64_t cr2, dr[4], dr6;
};

struct vmx_cpu {
    void *vmxon;
    uint64_t tag_generation;
    uint32_t next_vpid, last_vpid;
};

enum control_word {
    CONTROL_PIN,
    CONTROL_PROC,
    CONTROL_PROC2,
    CONTROL_EXIT,
    CONTROL_ENTRY,
    NR_CONTROL_WORDS
};

struct vmx_caps {
    uint32_t revision;
    struct {
        uint32_t must, may; /* be set */
    } allowed[NR_CONTROL_WORDS];
    uint32_t pin, proc, proc2, exit, entry; /* control words as we use them */
    uint64_t cr0_fixed0, cr0_fixed1, cr4_fixed0, cr4_fixed1;
    uint64_t ept_vpid;
    uint8_t timer_shift; /* the preemption timer counts TSC ticks shifted right by this */
};
extern struct vmx_caps vmx_caps;

static inline struct vmx_vcpu *vmx_vcpu(const struct vcpu *v)
{
    return v->hw;
}

/* ---- the current VMCS of this pCPU
 * ----------------------------------------------------------------- */
static inline bool vmptrld(paddr_t pa)
{
    bool ok;
    __asm__ volatile("vmptrld %1" : "=@cca"(ok) : "m"(pa) : "memory");
    return ok;
}
static inline bool vmclear(paddr_t pa)
{
    bool ok;
    __asm__ volatile("vmclear %1" : "=@cca"(ok) : "m"(pa) : "memory");
    return ok;
}
static inline uint64_t vmread(enum vmcs_field f)
{
    uint64_t val = 0;
    __asm__ volatile("vmread %1, %0" : "+r"(val) : "r"((uint64_t)f) : "cc");
    return val;
}
static inline bool vmread_ok(enum vmcs_field f, uint64_t *val)
{
    bool ok;
    __asm__ volatile("vmread %2, %1" : "=@cca"(ok), "=r"(*val) : "r"((uint64_t)f));
    return ok;
}
static inline void vmwrite(enum vmcs_field f, uint64_t val)
{
    __asm__ volatile("vmwrite %1, %0" ::"r"((uint64_t)f), "r"(val) : "cc");
}

/* ---- v's VMCS, loaded or not: vmx/vmx.c
 * ------------------------------------------------------------ */
static inline bool vmx_is_loaded(const struct vcpu *v)
{
    return this_cpu()->state_vcpu == v;
}
uint64_t vmcs_foreign_read(struct vcpu *v, enum vmcs_field f);
void vmcs_foreign_write(struct vcpu *v, enum vmcs_field f, uint64_t val);
static inline uint64_t vmcs_read(struct vcpu *v, enum vmcs_field f)
{
    return likely(vmx_is_loaded(v)) ? vmread(f) : vmcs_foreign_read(v, f);
}
static inline void vmcs_write(struct vcpu *v, enum vmcs_field f, uint64_t val)
{
    if (likely(vmx_is_loaded(v)))
        vmwrite(f, val);
    else
        vmcs_foreign_write(v, f, val);
}

/* ---- the parts
 * -------------------------------------------------------------------------------------- */
int vmx_cpu_up(struct cpu *c);
void vmx_cpu_down(struct cpu *c);
void vmx_invept(uint64_t eptp);
void vmx_invvpid_all(void);

void vmx_dispatch(struct vcpu *v);
void vmx_inject(struct vcpu *v);
void vmx_entry_refused(struct vcpu *v);
void vmx_dump(struct vcpu *v);
/* The checks of an entry (26.2, 26.3) on the VMCS that read() reads (0 for a field that is not
 * there): broken() hears of each field that breaks one, in the manual's words. The number of them.
 */
unsigned vmx_check_entry(uint64_t (*read)(enum vmcs_field f),
                         void (*broken)(enum vmcs_field f, uint64_t val, const char *rule));

int vmx_task_switch(struct vcpu *v);

/* The LAPIC in the CPU's hands: vmx/apic.c. */
void vmx_apic_setup(void);
int vmx_apic_vcpu_init(struct vcpu *v);
void vmx_apic_init_controls(struct vcpu *v);
void vmx_apic_enter(struct vcpu *v);
void vmx_on_apic_access(struct vcpu *v);
void vmx_on_apic_write(struct vcpu *v);
void vmx_on_virtualized_eoi(struct vcpu *v);
static inline bool vmx_apic_delivers(void) /* virtual-interrupt delivery is used */
{
    return vmx_caps.proc2 & PROC2_INTERRUPT_DELIVERY;
}

static inline bool vmx_apic_posts(void) /* posted interrupts are used */
{
    return vmx_caps.pin & PIN_POSTED_INTERRUPTS;
}

void vmx_permissions_init(void);
paddr_t vmx_io_bitmap(unsigned half);
paddr_t vmx_msr_bitmap(bool x2apic); /* x2apic: the CPU serves the LAPIC's MSRs */

/* The registers: vmx/state.c. */
void vmx_vcpu_reset(struct vcpu *v);
void vmx_load_lazy(struct vcpu *v);
void vmx_save_lazy(struct vcpu *v);
void vmx_new_tag(struct vcpu *v);
uint32_t vmx_interruptibility(struct vcpu *v);
void vmx_set_interruptibility(struct vcpu *v, uint32_t val);
void vmx_get_segment(struct vcpu *v, enum segment_reg r, struct segment *out);
void vmx_set_segment(struct vcpu *v, enum segment_reg r, const struct segment *in);
uint64_t vmx_get_cr(struct vcpu *v, unsigned cr);
void vmx_set_cr(struct vcpu *v, unsigned cr, uint64_t val);
uint64_t vmx_get_efer(struct vcpu *v);
void vmx_set_efer(struct vcpu *v, uint64_t val);
uint64_t vmx_get_dr(struct vcpu *v, unsigned dr);
void vmx_set_dr(struct vcpu *v, unsigned dr, uint64_t val);
unsigned vmx_get_cpl(struct vcpu *v);
unsigned vmx_get_code_bytes(struct vcpu *v);
void vmx_get_insn_place(struct vcpu *v, struct insn_place *out);
int vmx_get_msr(struct vcpu *v, uint32_t msr, uint64_t *val);
int vmx_set_msr(struct vcpu *v, uint32_t msr, uint64_t val);
unsigned vmx_get_interrupt_shadow(struct vcpu *v);
void vmx_set_interrupt_shadow(struct vcpu *v, unsigned shadow);
