/* vlapic.h: a vCPU's local APIC (SDM 3A, chapter 10).
 *
 * The register page has the architecture's layout. Its vCPU alone changes it, but for the IRR and
 * TMR words, irr_summary and esr_pending, which anyone changes atomically, and the timer's fields,
 * guarded by timer_lock.
 *
 * Where the CPU itself delivers interrupts from that page (vlapic_cpu.c), it changes IRR, ISR, TPR
 * and what else the guest writes while the guest runs: then requests wait apart from IRR.
 */
#pragma once

#include "domain/domain.h"
#include "platform/posted.h"
#include "platform/vtick.h"

enum lapic_reg { /* byte offsets; SDM 3A, table 10-1 */
                 LAPIC_ID = 0x20,
                 LAPIC_VERSION = 0x30,
                 LAPIC_TPR = 0x80,
                 LAPIC_APR = 0x90,
                 LAPIC_PPR = 0xa0,
                 LAPIC_EOI = 0xb0,
                 LAPIC_RRD = 0xc0,
                 LAPIC_LDR = 0xd0,
                 LAPIC_DFR = 0xe0,
                 LAPIC_SVR = 0xf0,
                 LAPIC_ISR = 0x100,
                 LAPIC_TMR = 0x180,
                 LAPIC_IRR = 0x200,
                 LAPIC_ESR = 0x280,
                 LAPIC_ICR = 0x300,
                 LAPIC_ICR2 = 0x310,
                 LAPIC_LVT_TIMER = 0x320,
                 LAPIC_LVT_THERMAL = 0x330,
                 LAPIC_LVT_PERF = 0x340,
                 LAPIC_LVT_LINT0 = 0x350,
                 LAPIC_LVT_LINT1 = 0x360,
                 LAPIC_LVT_ERROR = 0x370,
                 LAPIC_TMICT = 0x380,
                 LAPIC_TMCCT = 0x390,
                 LAPIC_TDCR = 0x3e0,
                 LAPIC_SELF_IPI = 0x3f0,
};

#define LAPIC_REGS_BYTES   1024
#define LAPIC_VERSION_VAL  0x50014u
#define LAPIC_BUS_NS       10 /* Xen's saved format: the bus runs at 100 MHz */
#define LAPIC_DEFAULT_BASE 0xfee00000ULL
#define LAPIC_SVR_ENABLE   BIT(8)
#define LVT_MASKED         0x10000u
#define LVT_MODE           0x700u

#define APIC_BASE_BSP      BIT(8)
#define APIC_BASE_EXTD     BIT(10)
#define APIC_BASE_EN       BIT(11)

enum apic_mode { /* delivery modes: ICR, LVT, RTE and MSI data bits 10:8 */
                 APIC_FIXED,
                 APIC_LOWEST,
                 APIC_SMI,
                 APIC_RESERVED,
                 APIC_NMI,
                 APIC_INIT,
                 APIC_SIPI,
                 APIC_EXTINT
};

enum lapic_error {
    LAPIC_ERR_SEND_VECTOR = 0x20,
    LAPIC_ERR_RECV_VECTOR = 0x40,
    LAPIC_ERR_REGISTER = 0x80
};

struct vlapic {
    uint32_t *regs;        /* the page, indexed by byte offset / 4 */
    uint32_t *requests;    /* where senders set bits, laid out as IRR: it, or apart. Atomic */
    bool by_cpu;           /* apart: the CPU delivers; the summaries mean nothing */
    struct posted *posted; /* by_cpu: edge-triggered ones are set here instead; NULL: no */
    uint32_t irr_summary;  /* bit i: word i of IRR may be non-zero. Atomic */
    uint32_t isr_summary;  /* bit i: word i of ISR is non-zero */
    bool accepts;          /* enabled by both IA32_APIC_BASE and the spurious vector register */
    bool hw_enabled, x2apic;
    bool extint; /* takes the PIC's interrupts */
    uint64_t base_msr;
    paddr_t mmio_page; /* where the register page is; ~0 when it is nowhere */
    struct vcpu *vcpu;
    uint32_t esr_pending; /* atomic */

    spinlock_t timer_lock;
    struct timer timer;
    uint64_t start_ns;  /* when the count was TMICT; meaningful while period_ns is not 0 */
    uint64_t period_ns; /* TMICT * divisor * bus period; 0: stopped */
    uint64_t next_ns;   /* next expiry; TIME_NEVER */
    uint64_t tsc_deadline;
    uint32_t divisor;
    uint32_t lvt;      /* LVT timer entry as last acted upon */
    struct vtick tick; /* on: a periodic timer that is not masked */
};

/* A message on the APIC bus. */
struct apic_msg {
    uint32_t dest;
    bool logical;
    bool level; /* trigger mode */
    uint8_t vector;
    uint8_t mode; /* enum apic_mode */
};

int vlapic_init(struct vcpu *v);
void vlapic_destroy(struct vcpu *v);
void vlapic_free(struct vcpu *v);
void vlapic_mmio(struct vcpu *v, unsigned offset, unsigned bytes, bool write, uint64_t *val);
/* Highest vector in IRR above the processor priority, or -1. Owner only. */
int vlapic_pending(struct vcpu *v);
/* IRR to ISR. Owner only. */
void vlapic_accept(struct vcpu *v, uint8_t vector);
uint32_t vlapic_ppr(const struct vlapic *l);
/* Highest vector of the 256-bit register at base, all of whose words are looked at; -1 for none. */
int vlapic_highest(const struct vlapic *l, unsigned base);
/* Is vector requested, wherever that may stand? Any context. */
static inline bool vlapic_is_requested(const struct vlapic *l, uint8_t vector)
{
    uint32_t word = READ_ONCE(l->regs[LAPIC_IRR / 4 + vector / 32 * 4]) |
                    READ_ONCE(l->requests[vector / 32 * 4]);

    if (l->posted && READ_ONCE(l->posted->pir[vector / 64]) >> vector % 64 & 1)
        return true;
    return word >> vector % 32 & 1;
}
/* The register that an xAPIC's software cannot change has its value again. Owner only. */
void vlapic_restore_id(struct vcpu *v);
/* Note an error and raise the error LVT. Any context. */
void vlapic_error(struct vcpu *v, enum lapic_error e);
/* The PIC's INT pin rose: LINT0 in any mode but ExtINT acts on it. Any context. */
void vlapic_lint0(struct vcpu *v);

/* vlapic_ipi.c */
/* Deliver m to every matching LAPIC of d (one of them for lowest priority); INIT and SIPI are the
 * ICR's alone and are ignored here. The number of LAPICs that took it. Any context. */
unsigned vlapic_deliver(struct domain *d, const struct apic_msg *m);
bool vlapic_matches(const struct vlapic *l, uint32_t dest, bool logical);
/* Is the vector of m still in the IRR of a matching LAPIC? Any context. */
bool vlapic_requested(const struct domain *d, const struct apic_msg *m);
/* The guest wrote ICR: send. Owner only. */
void vlapic_icr(struct vcpu *v, uint32_t low, uint32_t dest);

/* vlapic_timer.c. All by the owner, or while it does not run. */
void vlapic_timer_init(struct vcpu *v);
void vlapic_timer_reset(struct vcpu *v);
void vlapic_timer_initial_count(struct vcpu *v, uint32_t count);
void vlapic_timer_divide(struct vcpu *v, uint32_t tdcr);
void vlapic_timer_lvt(struct vcpu *v, uint32_t lvt);
uint32_t vlapic_timer_count(struct vcpu *v);
/* The guest ended an interrupt: does a tick wait for that? */
void vlapic_timer_look(struct vcpu *v);
/* Start again from saved registers: count is the saved current count. */
void vlapic_timer_restore(struct vcpu *v, uint32_t count, uint64_t tsc_deadline);

/* vlapic_cpu.c */
/* l->by_cpu: requests enter IRR. Owner, or while it does not run. */
void vlapic_move_requests(struct vlapic *l);
/* l->by_cpu: no request waits any more. While it does not run. */
void vlapic_drop_requests(struct vlapic *l);

int vlapic_save(struct vcpu *v, struct hvm_hw_lapic *out);
int vlapic_load(struct vcpu *v, const struct hvm_hw_lapic *in);
int vlapic_save_regs(struct vcpu *v, struct hvm_hw_lapic_regs *out);
int vlapic_load_regs(struct vcpu *v, const struct hvm_hw_lapic_regs *in);
