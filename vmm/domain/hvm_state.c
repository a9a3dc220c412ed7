/* hvm_state.c: control registers as guests and tools set them, and the CPU record of HVM contexts.
 */
#include "core/errno.h"
#include "core/machine.h"
#include "core/sched.h"
#include "core/string.h"
#include "core/x86.h"
#include "domain/hvm.h"
#include "platform/platform.h"

const struct hvm_ops *hvm_ops;
bool hvm_xsaves;
unsigned hvm_tsc_fraction_bits;

#define CR0_DEFINED                                                                                \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD |     \
     CR0_PG)
#define CR4_DEFINED                                                                                \
    (0x7ffULL | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP | CR4_PKE | BIT(11))
#define EFER_LMSLE   BIT(13)
#define EFER_DEFINED (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_FFXSR | EFER_LMSLE)

/* APM 2, 3.1.1 and 14.6: consistent with paging modes; LMA follows LME and PG. */
int hvm_set_cr0(struct vcpu *v, uint64_t val)
{
    uint64_t efer = hvm_ops->get_efer(v), cr4 = hvm_ops->get_cr(v, 4);
    struct segment cs;
    if (val >> 32 || (val & CR0_PG && !(val & CR0_PE)) || (val & CR0_NW && !(val & CR0_CD)))
        return -EINVAL;
    val = (val & CR0_DEFINED) | CR0_ET;
    if (val & CR0_PG && efer & EFER_LME) {
        hvm_ops->get_segment(v, SEGR_CS, &cs);
        if (!(cr4 & CR4_PAE) || (!(efer & EFER_LMA) && cs.attr & 0x200))
            return -EINVAL;
        hvm_ops->set_efer(v, efer | EFER_LMA);
    } else {
        hvm_ops->set_efer(v, efer & ~EFER_LMA);
    }
    hvm_ops->set_cr(v, 0, val);
    return 0;
}

int hvm_set_cr3(struct vcpu *v, uint64_t val)
{
    if (vcpu_long_mode(v)) {
        val &= ~BIT(63);
        if (val >> p2m_gpa_bits)
            return -EINVAL;
    } else {
        val = (uint32_t)val;
    }
    hvm_ops->set_cr(v, 3, val);
    return 0;
}

int hvm_set_cr4(struct vcpu *v, uint64_t val)
{
    if (val & ~CR4_DEFINED || (vcpu_long_mode(v) && !(val & CR4_PAE)))
        return -EINVAL;
    hvm_ops->set_cr(v, 4, val);
    return 0;
}

int hvm_set_efer(struct vcpu *v, uint64_t val)
{
    uint64_t old = hvm_ops->get_efer(v);
    if (val & ~EFER_DEFINED)
        return -EINVAL;
    if (hvm_ops->get_cr(v, 0) & CR0_PG && (old ^ val) & EFER_LME)
        return -EINVAL;
    hvm_ops->set_efer(v, (val & ~EFER_LMA) | (old & EFER_LMA));
    return 0;
}

/* SDM 1, 13.3: x87 always; AVX needs SSE. */
int hvm_set_xcr0(struct vcpu *v, uint64_t val)
{
    if (!(val & 1) || (val & 6) == 4 || val & ~cpuid_xcr0_mask(v->domain))
        return -EINVAL;
    v->xcr0 = val;
    if (v == current_vcpu())
        xsetbv(0, val);
    return 0;
}

/* ---- HVM context
 * -------------------------------------------------------------------------------------- */
static void save_segment(struct vcpu *v, enum segment_reg r, uint32_t *sel, uint64_t *base,
                         uint32_t *limit, uint32_t *attr)
{
    struct segment g;
    hvm_ops->get_segment(v, r, &g);
    *base = g.base;
    *limit = g.limit;
    if (sel)
        *sel = g.sel;
    if (attr)
        *attr = g.attr;
}

static void load_segment(struct vcpu *v, enum segment_reg r, uint32_t sel, uint64_t base,
                         uint32_t limit, uint32_t attr)
{
    struct segment g = {(uint16_t)sel, (uint16_t)(attr & 0xfff), limit, base};
    hvm_ops->set_segment(v, r, &g);
}

int hvm_cpu_save(struct vcpu *v, struct hvm_hw_cpu *c)
{
    const uint64_t *g = v->regs.gpr;
    memset(c, 0, sizeof(*c));
    memcpy(c->fpu_regs, v->xsave, sizeof(c->fpu_regs));
    c->flags = XEN_X86_FPU_INITIALISED;
    c->rax = g[RAX];
    c->rbx = g[RBX];
    c->rcx = g[RCX];
    c->rdx = g[RDX];
    c->rbp = g[RBP];
    c->rsi = g[RSI];
    c->rdi = g[RDI];
    c->rsp = g[RSP];
    memcpy(&c->r8, &g[R8], 8 * sizeof(uint64_t));
    c->rip = v->regs.rip;
    c->rflags = v->regs.rflags;
    c->cr0 = hvm_ops->get_cr(v, 0);
    c->cr2 = hvm_ops->get_cr(v, 2);
    c->cr3 = hvm_ops->get_cr(v, 3);
    c->cr4 = hvm_ops->get_cr(v, 4);
    c->dr0 = hvm_ops->get_dr(v, 0);
    c->dr1 = hvm_ops->get_dr(v, 1);
    c->dr2 = hvm_ops->get_dr(v, 2);
    c->dr3 = hvm_ops->get_dr(v, 3);
    c->dr6 = hvm_ops->get_dr(v, 6);
    c->dr7 = hvm_ops->get_dr(v, 7);
#define SAVE(R, r) save_segment(v, R, &c->r##_sel, &c->r##_base, &c->r##_limit, &c->r##_arbytes)
    SAVE(SEGR_CS, cs);
    SAVE(SEGR_DS, ds);
    SAVE(SEGR_ES, es);
    SAVE(SEGR_FS, fs);
    SAVE(SEGR_GS, gs);
    SAVE(SEGR_SS, ss);
    SAVE(SEGR_TR, tr);
    SAVE(SEGR_LDTR, ldtr);
#undef SAVE
    save_segment(v, SEGR_IDTR, NULL, &c->idtr_base, &c->idtr_limit, NULL);
    save_segment(v, SEGR_GDTR, NULL, &c->gdtr_base, &c->gdtr_limit, NULL);
    hvm_ops->get_msr(v, MSR_SYSENTER_CS, &c->sysenter_cs);
    hvm_ops->get_msr(v, MSR_SYSENTER_ESP, &c->sysenter_esp);
    hvm_ops->get_msr(v, MSR_SYSENTER_EIP, &c->sysenter_eip);
    hvm_ops->get_msr(v, MSR_KERNEL_GS_BASE, &c->shadow_gs);
    hvm_ops->get_msr(v, MSR_SYSCALL_MASK, &c->msr_syscall_mask);
    hvm_ops->get_msr(v, MSR_STAR, &c->msr_star);
    hvm_ops->get_msr(v, MSR_LSTAR, &c->msr_lstar);
    hvm_ops->get_msr(v, MSR_CSTAR, &c->msr_cstar);
    c->msr_efer = hvm_ops->get_efer(v);
    c->msr_tsc_aux = v->tsc_aux;
    c->tsc = guest_tsc(v, rdtsc());
    if (v->inject.valid) {
        c->pending_vector = v->inject.vector;
        c->pending_type = v->inject.type;
        c->pending_error_valid = v->inject.has_error;
        c->pending_valid = 1;
        c->error_code = v->inject.error;
    }
    return 0;
}

int hvm_cpu_load(struct vcpu *v, const struct hvm_hw_cpu *c)
{
    uint64_t *g = v->regs.gpr;
    bool paged = c->cr0 & CR0_PG, lme = c->msr_efer & EFER_LME;
    if (c->cr0 >> 32 || (paged && !(c->cr0 & CR0_PE)) || c->cr4 & ~CR4_DEFINED ||
        c->msr_efer & ~EFER_DEFINED || !!(c->msr_efer & EFER_LMA) != (paged && lme) ||
        (paged && lme && !(c->cr4 & CR4_PAE)) || (c->cr0 & CR0_NW && !(c->cr0 & CR0_CD)))
        return -EINVAL;
    if (c->flags & XEN_X86_FPU_INITIALISED) {
        memcpy(v->xsave, c->fpu_regs, sizeof(c->fpu_regs));
        *(uint64_t *)((char *)v->xsave + 512) = 3;
    }
    g[RAX] = c->rax;
    g[RBX] = c->rbx;
    g[RCX] = c->rcx;
    g[RDX] = c->rdx;
    g[RBP] = c->rbp;
    g[RSI] = c->rsi;
    g[RDI] = c->rdi;
    g[RSP] = c->rsp;
    memcpy(&g[R8], &c->r8, 8 * sizeof(uint64_t));
    v->regs.rip = c->rip;
    v->regs.rflags = (c->rflags & 0x3f7fd7) | 2;
    hvm_ops->set_efer(v, c->msr_efer);
    hvm_ops->set_cr(v, 4, c->cr4);
    hvm_ops->set_cr(v, 3, c->cr3);
    hvm_ops->set_cr(v, 2, c->cr2);
    hvm_ops->set_cr(v, 0, c->cr0 | CR0_ET);
    hvm_ops->set_dr(v, 0, c->dr0);
    hvm_ops->set_dr(v, 1, c->dr1);
    hvm_ops->set_dr(v, 2, c->dr2);
    hvm_ops->set_dr(v, 3, c->dr3);
    hvm_ops->set_dr(v, 6, (c->dr6 & 0xe00f) | 0xffff0ff0);
    hvm_ops->set_dr(v, 7, (c->dr7 & 0xffff27ff) | 0x400);
#define LOAD(R, r) load_segment(v, R, c->r##_sel, c->r##_base, c->r##_limit, c->r##_arbytes)
    LOAD(SEGR_CS, cs);
    LOAD(SEGR_DS, ds);
    LOAD(SEGR_ES, es);
    LOAD(SEGR_FS, fs);
    LOAD(SEGR_GS, gs);
    LOAD(SEGR_SS, ss);
    LOAD(SEGR_TR, tr);
    LOAD(SEGR_LDTR, ldtr);
#undef LOAD
    load_segment(v, SEGR_IDTR, 0, c->idtr_base, c->idtr_limit, 0);
    load_segment(v, SEGR_GDTR, 0, c->gdtr_base, c->gdtr_limit, 0);
    hvm_ops->set_msr(v, MSR_SYSENTER_CS, c->sysenter_cs);
    hvm_ops->set_msr(v, MSR_SYSENTER_ESP, c->sysenter_esp);
    hvm_ops->set_msr(v, MSR_SYSENTER_EIP, c->sysenter_eip);
    hvm_ops->set_msr(v, MSR_KERNEL_GS_BASE, c->shadow_gs);
    hvm_ops->set_msr(v, MSR_SYSCALL_MASK, c->msr_syscall_mask);
    hvm_ops->set_msr(v, MSR_STAR, c->msr_star);
    hvm_ops->set_msr(v, MSR_LSTAR, c->msr_lstar);
    hvm_ops->set_msr(v, MSR_CSTAR, c->msr_cstar);
    v->tsc_aux = (uint32_t)c->msr_tsc_aux;
    hvm_ops->set_tsc_offset(v, c->tsc - tsc_scaled(v->domain, rdtsc()));
    if (c->pending_valid) {
        v->inject.valid = true;
        v->inject.type = c->pending_type;
        v->inject.vector = c->pending_vector;
        v->inject.has_error = c->pending_error_valid;
        v->inject.error = c->error_code;
    }
    hvm_ops->flush_tlb(v);
    v->initialised = true;
    vcpu_unblock(v, VBLOCK_DOWN);
    vcpu_kick(v, VWORK_EVENT);
    return 0;
}
