/* svm.c: AMD SVM behind the operations table: set-up, vCPU state, and the run loop. */
#include "boot/cmdline.h"
#include "core/atomic.h"
#include "core/errno.h"
#include "core/machine.h"
#include "core/mm.h"
#include "core/print.h"
#include "core/string.h"
#include "core/trap.h"
#include "core/x86.h"
#include "domain/fpu.h"
#include "domain/hvm.h"
#include "platform/platform.h"
#include "svm/vmcb.h"

uint32_t svm_features;

void svm_enter(paddr_t vmcb_pa, struct guest_regs *regs);

static inline void vmload(paddr_t pa)
{
    __asm__ volatile("vmload %0" ::"a"(pa) : "memory");
}
static inline void vmsave(paddr_t pa)
{
    __asm__ volatile("vmsave %0" ::"a"(pa) : "memory");
}

int svm_setup(void)
{
    struct cpuid_regs r = cpuid(0x80000001, 0);
    if (cpuid(0x80000000, 0).a < 0x8000000a || !(r.c & 4))
        return -ENODEV;
    svm_features = cpuid(0x8000000a, 0).d;
    if (!(svm_features & SVM_NP)) {
        log_err("this CPU has SVM but no nested paging (CPUID 8000000Ah EDX bit 0)");
        return -EOPNOTSUPP;
    }
    if (rdmsr(MSR_VM_CR) & 0x10) {
        log_err("SVM is locked off by the firmware (VM_CR.SVMDIS)");
        return -EPERM;
    }
    hvm_tsc_fraction_bits = svm_features & SVM_TSC_RATE ? 32 : 0;
    svm_permissions_init();
    return 0;
}

/* Has this CPU what svm_setup found on the first one? */
static bool same_svm(void)
{
    return cpuid(0x80000001, 0).c & 4 && (cpuid(0x8000000a, 0).d & svm_features) == svm_features &&
           !(rdmsr(MSR_VM_CR) & 0x10);
}

static int svm_cpu_up(struct cpu *c)
{
    if (!same_svm())
        return -ENODEV;
    struct svm_cpu *s = kzalloc(sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->hsave = page_alloc();
    if (!s->hsave) {
        kfree(s);
        return -ENOMEM;
    }
    s->asid_generation = 1;
    s->next_asid = 1;
    s->max_asid = boot_options.asid ? cpuid(0x8000000a, 0).b : 2;
    c->vendor = s;
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
    wrmsr(MSR_VM_HSAVE_PA, virt_to_pa(s->hsave));
    wrmsr_safe(MSR_TSC_AUX, s->tsc_aux);
    fpu_cpu_up();
    return 0;
}

static void svm_cpu_down(struct cpu *c)
{
    struct svm_cpu *s = c->vendor;
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_SVME);
    wrmsr(MSR_VM_HSAVE_PA, 0);
    page_free(s->hsave);
    kfree(s);
    c->vendor = NULL;
}

/* The state after RESET or INIT (APM 2, table 14-1). */
void svm_vcpu_reset(struct vcpu *v)
{
    struct vmcb *b = vmcb_of(v);
    struct segment data = {0, 0x93, 0xffff, 0};

    b->cs = (struct segment){0xf000, 0x9b, 0xffff, 0xffff0000};
    b->ds = b->es = b->ss = b->fs = b->gs = data;
    b->gdtr = b->idtr = (struct segment){0, 0, 0xffff, 0};
    b->ldtr = (struct segment){0, 0x82, 0xffff, 0};
    b->tr = (struct segment){0, 0x8b, 0xffff, 0};
    b->cpl = 0;
    b->efer = EFER_SVME;
    b->cr0 = CR0_ET;
    b->cr2 = b->cr3 = b->cr4 = 0;
    b->dr6 = 0xffff0ff0;
    b->dr7 = 0x400;
    b->g_pat = 0x0007040600070406ULL;
    b->event_inject = 0;
    b->int_control = INT_V_MASKING;
    b->int_state = 0;
    svm_vcpu(v)->clean = 0;
    svm_vcpu(v)->virq_armed = false;
    svm_vcpu(v)->nmi_masked = svm_vcpu(v)->iret_seen = false;
    svm_vcpu(v)->reinject_vector = -1;
}

static const uint8_t always_intercepted[] = {
    ICPT_INTR,
    ICPT_NMI,
    ICPT_SMI,
    ICPT_INIT,
    ICPT_VINTR,
    ICPT_CPUID,
    ICPT_RDPMC,
    ICPT_INVD,
    ICPT_HLT,
    ICPT_INVLPGA,
    ICPT_IOIO,
    ICPT_MSR,
    ICPT_FERR_FREEZE,
    ICPT_SHUTDOWN,
    ICPT_VMRUN,
    ICPT_VMMCALL,
    ICPT_VMLOAD,
    ICPT_VMSAVE,
    ICPT_STGI,
    ICPT_CLGI,
    ICPT_SKINIT,
    ICPT_MONITOR,
    ICPT_MWAIT,
    ICPT_XSETBV,
    ICPT_EXCEPTION + EXC_AC,
    ICPT_EXCEPTION + EXC_DB,
    ICPT_EXCEPTION + EXC_MC,
};

static void nmi_timer_fired(void *data)
{
    vcpu_kick(data, VWORK_EVENT);
}

static int svm_vcpu_init(struct vcpu *v)
{
    struct svm_vcpu *s = kzalloc(sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->vmcb = page_alloc();
    if (!s->vmcb) {
        kfree(s);
        return -ENOMEM;
    }
    s->vmcb_pa = virt_to_pa(s->vmcb);
    v->hw = s;
    timer_init(&s->nmi_timer, nmi_timer_fired, v, 0);
    struct vmcb *b = s->vmcb;
    for (unsigned i = 0; i < ARRAY_SIZE(always_intercepted); i++)
        vmcb_set_intercept(b, always_intercepted[i]);
    if (!v->domain->is_dom0)
        vmcb_set_intercept(b, ICPT_WBINVD);
    if (svm_features & SVM_PAUSE_FILTER) {
        vmcb_set_intercept(b, ICPT_PAUSE);
        b->pause_count = 3000;
        b->pause_threshold = svm_features & SVM_PAUSE_THRESHOLD ? 128 : 0;
    }
    b->iopm_pa = svm_iopm(v->domain);
    b->msrpm_pa = svm_msrpm();
    b->np_control = 1;
    b->n_cr3 = p2m_root(v->domain);
    b->tsc_offset = v->tsc_offset;
    svm_vcpu_reset(v);
    return 0;
}

static void svm_vcpu_free(struct vcpu *v)
{
    struct svm_vcpu *s = v->hw;
    if (!s)
        return;
    timer_kill(&s->nmi_timer);
    page_free(s->vmcb);
    kfree(s);
    v->hw = NULL;
}

static bool state_is_loaded(const struct vcpu *v)
{
    return this_cpu()->state_vcpu == v;
}

static __attribute__((noinline)) void set_tsc_aux(struct svm_cpu *sc, uint64_t val)
{
    sc->tsc_aux = val;
    wrmsr_safe(MSR_TSC_AUX, val);
}

static void svm_load(struct vcpu *v)
{
    struct svm_vcpu *s = svm_vcpu(v);
    struct svm_cpu *sc = this_cpu()->vendor;
    vmload(s->vmcb_pa);
    fpu_load(v);
    __asm__ volatile("mov %0, %%dr0; mov %1, %%dr1; mov %2, %%dr2; mov %3, %%dr3" ::"r"(s->dr[0]),
                     "r"(s->dr[1]), "r"(s->dr[2]), "r"(s->dr[3]));
    if (unlikely(v->tsc_aux != sc->tsc_aux))
        set_tsc_aux(sc, v->tsc_aux);
    if (unlikely(v->domain->tsc_ratio != sc->tsc_ratio)) {
        sc->tsc_ratio = v->domain->tsc_ratio;
        wrmsr(MSR_TSC_RATIO, sc->tsc_ratio ? sc->tsc_ratio >> 16 : 1ULL << 32);
    }
    s->clean = 0;
}

/* Quirk "xsetbv-not-intercepted" (QEMU TCG 7.2): the guest's XSETBV takes effect without an exit,
 * so our copy is read back from the CPU. On hardware it is what exit_xsetbv wrote. v is loaded
 * here. */
void svm_quirk_reread_xcr0(struct vcpu *v)
{
    if (!host_xcr0)
        return;
    uint64_t now = xgetbv(0);
    v->xcr0 = now & host_xcr0;
    if (now != v->xcr0)
        xsetbv(0, v->xcr0);
}

static void svm_save(struct vcpu *v)
{
    struct svm_vcpu *s = svm_vcpu(v);
    vmsave(s->vmcb_pa);
    svm_quirk_reread_xcr0(v);
    fpu_save(v);
    __asm__ volatile("mov %%dr0, %0; mov %%dr1, %1; mov %%dr2, %2; mov %%dr3, %3"
                     : "=r"(s->dr[0]), "=r"(s->dr[1]), "=r"(s->dr[2]), "=r"(s->dr[3]));
}

/* A fresh ASID on this pCPU; when they run out, a new generation and one full flush. */
static void take_asid(struct svm_vcpu *s, struct svm_cpu *sc, unsigned cpu)
{
    s->vmcb->tlb_control = 0;
    if (sc->next_asid >= sc->max_asid) {
        sc->asid_generation++;
        this_cpu()->tlb_generations++;
        sc->next_asid = 1;
        s->vmcb->tlb_control = 1;
    }
    this_cpu()->tlb_tags++;
    s->vmcb->asid = sc->next_asid++;
    s->asid_generation = sc->asid_generation;
    s->asid_cpu = cpu;
    s->clean &= ~CLEAN_ASID;
}

static void svm_flush_tlb(struct vcpu *v)
{
    svm_vcpu(v)->asid_generation = 0;
}

static void svm_run(struct vcpu *v)
{
    struct cpu *c = this_cpu();
    struct svm_cpu *sc = c->vendor;
    struct svm_vcpu *s = svm_vcpu(v);
    struct vmcb *b = s->vmcb;

    do {
        if (unlikely(s->asid_generation != sc->asid_generation || s->asid_cpu != c->id))
            take_asid(s, sc, c->id);
        b->rax = v->regs.gpr[RAX];
        b->rsp = v->regs.gpr[RSP];
        b->rip = v->regs.rip;
        b->rflags = v->regs.rflags;
        b->clean = s->clean;
        __asm__ volatile("clgi" ::: "memory");
        WRITE_ONCE(c->in_guest, true);
        smp_mb();
        if (unlikely(READ_ONCE(c->work) | READ_ONCE(v->work))) {
            WRITE_ONCE(c->in_guest, false);
            __asm__ volatile("stgi" ::: "memory");
            return;
        }
        svm_enter(s->vmcb_pa, &v->regs);
        WRITE_ONCE(c->in_guest, false);
        c->guest_exits++;
        v->regs.gpr[RAX] = b->rax;
        v->regs.gpr[RSP] = b->rsp;
        v->regs.rip = b->rip;
        v->regs.rflags = b->rflags;
        b->tlb_control = 0;
        s->clean = CLEAN_ALL & ~(CLEAN_TPR);
        __asm__ volatile("stgi" ::: "memory");
        svm_dispatch(v);
    } while (!(READ_ONCE(c->work) | READ_ONCE(v->work)));
}

static struct segment *segment_of(struct vmcb *b, enum segment_reg r)
{
    switch (r) {
    case SEGR_ES:
        return &b->es;
    case SEGR_CS:
        return &b->cs;
    case SEGR_SS:
        return &b->ss;
    case SEGR_DS:
        return &b->ds;
    case SEGR_FS:
        return &b->fs;
    case SEGR_GS:
        return &b->gs;
    case SEGR_LDTR:
        return &b->ldtr;
    case SEGR_TR:
        return &b->tr;
    case SEGR_GDTR:
        return &b->gdtr;
    case SEGR_IDTR:
        return &b->idtr;
    case NR_SEGRS:
        break;
    }
    panic("no such segment register");
}

static bool is_vmload_segment(enum segment_reg r)
{
    return r == SEGR_FS || r == SEGR_GS || r == SEGR_LDTR || r == SEGR_TR;
}

static void svm_get_segment(struct vcpu *v, enum segment_reg r, struct segment *out)
{
    struct svm_vcpu *s = svm_vcpu(v);
    if (is_vmload_segment(r) && state_is_loaded(v))
        vmsave(s->vmcb_pa);
    *out = *segment_of(s->vmcb, r);
    if (r == SEGR_CS && out->attr & 0x400 && !(out->attr & 0x800) && out->limit > 0xfffff)
        out->attr |= 0x800; /* SVM keeps G only in the limit; APM 2, 15.5.1 */
}

static void svm_set_segment(struct vcpu *v, enum segment_reg r, const struct segment *in)
{
    struct svm_vcpu *s = svm_vcpu(v);
    bool loaded = is_vmload_segment(r) && state_is_loaded(v);
    if (loaded)
        vmsave(s->vmcb_pa);
    *segment_of(s->vmcb, r) = *in;
    if (loaded)
        vmload(s->vmcb_pa);
    if (r == SEGR_SS)
        s->vmcb->cpl = (in->attr >> 5) & 3;
    s->clean &= ~(CLEAN_SEG | CLEAN_DT);
}

static uint64_t svm_get_cr(struct vcpu *v, unsigned cr)
{
    struct vmcb *b = vmcb_of(v);
    switch (cr) {
    case 0:
        return b->cr0;
    case 2:
        return b->cr2;
    case 3:
        return b->cr3;
    default:
        return b->cr4;
    }
}

static void svm_set_cr(struct vcpu *v, unsigned cr, uint64_t val)
{
    struct vmcb *b = vmcb_of(v);
    switch (cr) {
    case 0:
        b->cr0 = val;
        break;
    case 2:
        b->cr2 = val;
        break;
    case 3:
        b->cr3 = val;
        break;
    default:
        b->cr4 = val;
        break;
    }
    svm_vcpu(v)->clean &= ~(CLEAN_CR | CLEAN_CR2);
    if (cr != 2)
        svm_flush_tlb(v);
}

static uint64_t svm_get_efer(struct vcpu *v)
{
    return vmcb_of(v)->efer & ~EFER_SVME;
}

static void svm_set_efer(struct vcpu *v, uint64_t val)
{
    vmcb_of(v)->efer = val | EFER_SVME;
    svm_vcpu(v)->clean &= ~CLEAN_CR;
}

static uint64_t svm_get_dr(struct vcpu *v, unsigned dr)
{
    struct svm_vcpu *s = svm_vcpu(v);
    uint64_t r;
    if (dr == 6 || dr == 7)
        return dr == 6 ? s->vmcb->dr6 : s->vmcb->dr7;
    if (state_is_loaded(v)) {
        __asm__ volatile("mov %%dr0, %0" : "=r"(s->dr[0]));
        __asm__ volatile("mov %%dr1, %0" : "=r"(s->dr[1]));
        __asm__ volatile("mov %%dr2, %0" : "=r"(s->dr[2]));
        __asm__ volatile("mov %%dr3, %0" : "=r"(r));
        s->dr[3] = r;
    }
    return s->dr[dr & 3];
}

static void svm_set_dr(struct vcpu *v, unsigned dr, uint64_t val)
{
    struct svm_vcpu *s = svm_vcpu(v);
    if (dr == 6)
        s->vmcb->dr6 = val;
    else if (dr == 7)
        s->vmcb->dr7 = val;
    else
        s->dr[dr & 3] = val;
    if (dr < 4 && state_is_loaded(v))
        __asm__ volatile(
            "mov %0, %%dr0; mov %1, %%dr1; mov %2, %%dr2; mov %3, %%dr3" ::"r"(s->dr[0]),
            "r"(s->dr[1]), "r"(s->dr[2]), "r"(s->dr[3]));
    s->clean &= ~CLEAN_DR;
}

static unsigned svm_get_cpl(struct vcpu *v)
{
    return vmcb_of(v)->cpl;
}

static unsigned svm_get_code_bytes(struct vcpu *v)
{
    return vmcb_code_bytes(vmcb_of(v));
}

static void svm_get_insn_place(struct vcpu *v, struct insn_place *out)
{
    const struct vmcb *b = vmcb_of(v);
    unsigned bytes = vmcb_code_bytes(b);
    out->mode.cr0 = b->cr0;
    out->mode.cr3 = b->cr3;
    out->mode.cr4 = b->cr4;
    out->mode.efer = b->efer & ~EFER_SVME;
    out->mode.rflags = v->regs.rflags;
    out->linear = bytes == 8 ? v->regs.rip : (uint32_t)(b->cs.base + v->regs.rip);
    out->bytes = (uint8_t)bytes;
    out->cpl = b->cpl;
}

/* The MSRs that VMLOAD and VMSAVE move, and those the VMCB holds. */
static uint64_t *msr_field(struct vmcb *b, uint32_t msr, bool *vmload_state)
{
    *vmload_state = true;
    switch (msr) {
    case MSR_FS_BASE:
        return &b->fs.base;
    case MSR_GS_BASE:
        return &b->gs.base;
    case MSR_KERNEL_GS_BASE:
        return &b->kernel_gs_base;
    case MSR_STAR:
        return &b->star;
    case MSR_LSTAR:
        return &b->lstar;
    case MSR_CSTAR:
        return &b->cstar;
    case MSR_SYSCALL_MASK:
        return &b->sfmask;
    case MSR_SYSENTER_CS:
        return &b->sysenter_cs;
    case MSR_SYSENTER_ESP:
        return &b->sysenter_esp;
    case MSR_SYSENTER_EIP:
        return &b->sysenter_eip;
    case MSR_PAT:
        *vmload_state = false;
        return &b->g_pat;
    default:
        return NULL;
    }
}

static int svm_get_msr(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    struct svm_vcpu *s = svm_vcpu(v);
    bool vmload_state;
    uint64_t *f = msr_field(s->vmcb, msr, &vmload_state);
    if (!f)
        return -ENOENT;
    if (vmload_state && state_is_loaded(v))
        vmsave(s->vmcb_pa);
    *val = *f;
    return 0;
}

static int svm_set_msr(struct vcpu *v, uint32_t msr, uint64_t val)
{
    struct svm_vcpu *s = svm_vcpu(v);
    bool vmload_state;
    uint64_t *f = msr_field(s->vmcb, msr, &vmload_state);
    if (msr == MSR_TSC_AUX) { /* v->tsc_aux has it */
        if (state_is_loaded(v))
            set_tsc_aux(this_cpu()->vendor, val);
        return 0;
    }
    if (!f)
        return -ENOENT;
    if (vmload_state && state_is_loaded(v))
        vmsave(s->vmcb_pa);
    *f = val;
    if (vmload_state && state_is_loaded(v))
        vmload(s->vmcb_pa);
    s->clean &= ~CLEAN_NP;
    return 0;
}

static unsigned svm_get_interrupt_shadow(struct vcpu *v)
{
    return vmcb_of(v)->int_state & 1;
}

static void svm_set_interrupt_shadow(struct vcpu *v, unsigned shadow)
{
    vmcb_of(v)->int_state = shadow & 1;
}

static void svm_set_tsc_offset(struct vcpu *v, uint64_t offset)
{
    v->tsc_offset = offset;
    vmcb_of(v)->tsc_offset = offset;
    svm_vcpu(v)->clean &= ~CLEAN_INTERCEPTS;
}

const struct hvm_ops svm_ops = {
    .name = "SVM",
    .cpu_up = svm_cpu_up,
    .cpu_down = svm_cpu_down,
    .vcpu_init = svm_vcpu_init,
    .vcpu_free = svm_vcpu_free,
    .vcpu_reset = svm_vcpu_reset,
    .run = svm_run,
    .load = svm_load,
    .save = svm_save,
    .inject = svm_inject,
    .get_segment = svm_get_segment,
    .set_segment = svm_set_segment,
    .get_cr = svm_get_cr,
    .set_cr = svm_set_cr,
    .get_efer = svm_get_efer,
    .set_efer = svm_set_efer,
    .get_dr = svm_get_dr,
    .set_dr = svm_set_dr,
    .get_cpl = svm_get_cpl,
    .get_code_bytes = svm_get_code_bytes,
    .get_insn_place = svm_get_insn_place,
    .get_msr = svm_get_msr,
    .set_msr = svm_set_msr,
    .get_interrupt_shadow = svm_get_interrupt_shadow,
    .set_interrupt_shadow = svm_set_interrupt_shadow,
    .set_tsc_offset = svm_set_tsc_offset,
    .flush_tlb = svm_flush_tlb,
    .dump = svm_dump,
};
