/* state.c: a vCPU's registers, in its VMCS or in the CPU while its state is loaded there. */
#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "core/trap.h"
#include "core/x86.h"
#include "domain/hvm.h"
#include "vmx/vmcs.h"

/* CR0 bits that a guest's writes exit for; the rest is its own. Caching is never turned off. */
#define CR0_OWNED (CR0_NE | CR0_NW | CR0_CD | CR0_PG | 0xffffffff00000000ULL)
/* CR4: MCE, LA57, VMXE, SMXE and what hvm_set_cr4 does not know: 23 and above. DE, so that the exit
 * of every port need not read DR7. */
#define CR4_OWNED (CR4_DE | CR4_MCE | 7ULL << 12 | ~((1ULL << 23) - 1))
#define CR4_MCE   BIT(6) /* the host's: without it an error in the guest shuts the CPU down */
#define CR4_VMXE  BIT(13)
#define PAT_RESET 0x0007040600070406ULL

/* ---- tags
 * -------------------------------------------------------------------------------------------- */
/* A new VPID before the next entry: what linear addresses translated to is forgotten. */
void vmx_new_tag(struct vcpu *v)
{
    vmx_vcpu(v)->tag_generation = 0;
}

/* ---- control registers
 * --------------------------------------------------------------------------------- */
/* With EPT the four PDPTEs of PAE paging are part of the state, loaded by entries (26.3.2.4). Their
 * reserved bits would make the entry fail. */
static void load_pdptes(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    uint64_t e[4], reserved = 0x1e6 | ~((1ULL << p2m_gpa_bits) - 1);

    if (!(vmcs_read(v, VMCS_GUEST_CR0) & CR0_PG) || !(vmcs_read(v, VMCS_GUEST_CR4) & CR4_PAE) ||
        s->efer & EFER_LMA)
        return;
    if (copy_from_gpa(v->domain, e, vmcs_read(v, VMCS_GUEST_CR3) & 0xffffffe0, sizeof(e)))
        memset(e, 0, sizeof(e));
    for (unsigned i = 0; i < 4; i++)
        vmcs_write(v, VMCS_GUEST_PDPTE0 + 2 * i, e[i] & 1 ? e[i] & ~reserved : 0);
}

uint64_t vmx_get_cr(struct vcpu *v, unsigned cr)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    switch (cr) {
    case 0:
        return (vmcs_read(v, VMCS_GUEST_CR0) & ~CR0_OWNED) | (s->cr0_shadow & CR0_OWNED);
    case 2:
        return vmx_is_loaded(v) ? read_cr2() : s->cr2;
    case 3:
        return vmcs_read(v, VMCS_GUEST_CR3);
    default:
        return (vmcs_read(v, VMCS_GUEST_CR4) & ~CR4_OWNED) | (s->cr4_shadow & CR4_OWNED);
    }
}

/* Unrestricted guest lets PE and PG be anything (23.8, 26.3.1.1). */
static void set_cr0(struct vcpu *v, uint64_t val)
{
    uint64_t must = vmx_caps.cr0_fixed0 & ~(CR0_PE | CR0_PG);
    vmx_vcpu(v)->cr0_shadow = val;
    vmcs_write(v, VMCS_CR0_SHADOW, val);
    vmcs_write(v, VMCS_GUEST_CR0,
               ((val & ~(CR0_CD | CR0_NW)) | must | CR0_ET) & vmx_caps.cr0_fixed1);
}

void vmx_set_cr(struct vcpu *v, unsigned cr, uint64_t val)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    switch (cr) {
    case 0:
        set_cr0(v, val);
        break;
    case 2:
        if (vmx_is_loaded(v))
            write_cr2(val);
        s->cr2 = val;
        return;
    case 3:
        vmcs_write(v, VMCS_GUEST_CR3, val);
        break;
    default:
        s->cr4_shadow = val;
        vmcs_write(v, VMCS_CR4_SHADOW, val);
        vmcs_write(v, VMCS_GUEST_CR4,
                   ((val & ~CR4_MCE) | (read_cr4() & CR4_MCE) | vmx_caps.cr4_fixed0) &
                       vmx_caps.cr4_fixed1);
        break;
    }
    load_pdptes(v);
    vmx_new_tag(v);
}

uint64_t vmx_get_efer(struct vcpu *v)
{
    return vmx_vcpu(v)->efer;
}

void vmx_set_efer(struct vcpu *v, uint64_t val)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    s->efer = val & EFER_KNOWN;
    s->entry_controls =
        (s->entry_controls & ~(uint32_t)ENTRY_IA32E) | (val & EFER_LMA ? ENTRY_IA32E : 0);
    vmcs_write(v, VMCS_GUEST_EFER, s->efer);
    vmcs_write(v, VMCS_ENTRY_CONTROLS, s->entry_controls);
}

/* ---- segments
 * ------------------------------------------------------------------------------------------ */
/* The fields of ES to TR are two apart; those of GDTR and IDTR follow TR's (limit) and (base). */
static enum vmcs_field limit_field(enum segment_reg r)
{
    return VMCS_GUEST_ES_LIMIT + 2 * r;
}
static enum vmcs_field base_field(enum segment_reg r)
{
    return VMCS_GUEST_ES_BASE + 2 * r;
}
STATIC_ASSERT(VMCS_GUEST_ES_LIMIT + 2 * SEGR_IDTR == VMCS_GUEST_IDTR_LIMIT);
STATIC_ASSERT(VMCS_GUEST_ES_BASE + 2 * SEGR_IDTR == VMCS_GUEST_IDTR_BASE);

void vmx_get_segment(struct vcpu *v, enum segment_reg r, struct segment *out)
{
    *out = (struct segment){.limit = (uint32_t)vmcs_read(v, limit_field(r)),
                            .base = vmcs_read(v, base_field(r))};
    if (r >= SEGR_GDTR)
        return;
    uint32_t ar = (uint32_t)vmcs_read(v, VMCS_GUEST_ES_AR + 2 * r);
    out->sel = (uint16_t)vmcs_read(v, VMCS_GUEST_ES_SEL + 2 * r);
    if (ar & AR_UNUSABLE)
        out->attr = r == SEGR_SS ? ar & 0x60 : 0; /* SS.DPL is the CPL all the same */
    else
        out->attr = (uint16_t)((ar & 0xff) | (ar >> 4 & 0xf00));
}

/* Access rights as an entry wants them (26.3.1.2): null is unusable; usable code and data are
 * accessed, a task's TSS busy; G says no more and no less than the limit. */
static uint32_t access_rights(enum segment_reg r, uint32_t attr, uint32_t limit)
{
    if (!(attr & 0x80))
        return AR_UNUSABLE | (r == SEGR_SS ? attr & 0x60 : 0);
    if (attr & 0x10)
        attr |= 1;
    else if (r == SEGR_TR)
        attr |= 2;
    if (limit >> 20)
        attr |= 0x800;
    else if ((limit & 0xfff) != 0xfff)
        attr &= ~0x800u;
    return (attr & 0xff) | (attr & 0xf00) << 4;
}

void vmx_set_segment(struct vcpu *v, enum segment_reg r, const struct segment *in)
{
    uint32_t limit = in->limit;
    if (r >= SEGR_GDTR) {
        limit &= 0xffff;
    } else {
        if (limit >> 20)
            limit |= 0xfff;
        /* LDTR and TR have no RPL or TI that the entry would accept otherwise. */
        vmcs_write(v, VMCS_GUEST_ES_SEL + 2 * r, r >= SEGR_LDTR ? in->sel & ~4u : in->sel);
        vmcs_write(v, VMCS_GUEST_ES_AR + 2 * r, access_rights(r, in->attr, limit));
    }
    vmcs_write(v, limit_field(r), limit);
    vmcs_write(v, base_field(r), in->base);
}

unsigned vmx_get_cpl(struct vcpu *v)
{
    return (unsigned)vmcs_read(v, VMCS_GUEST_SS_AR) >> 5 & 3;
}

unsigned vmx_get_code_bytes(struct vcpu *v)
{
    uint64_t ar = vmcs_read(v, VMCS_GUEST_CS_AR);
    return ar & BIT(13) && vmx_vcpu(v)->efer & EFER_LMA ? 8 : ar & BIT(14) ? 4 : 2;
}

void vmx_get_insn_place(struct vcpu *v, struct insn_place *out)
{
    unsigned bytes = vmx_get_code_bytes(v);
    out->mode.cr0 = vmx_get_cr(v, 0);
    out->mode.cr3 = vmx_get_cr(v, 3);
    out->mode.cr4 = vmx_get_cr(v, 4);
    out->mode.efer = vmx_vcpu(v)->efer;
    out->mode.rflags = v->regs.rflags;
    out->linear =
        bytes == 8 ? v->regs.rip : (uint32_t)(vmcs_read(v, VMCS_GUEST_CS_BASE) + v->regs.rip);
    out->bytes = (uint8_t)bytes;
    out->cpl = (uint8_t)vmx_get_cpl(v);
}

/* ---- debug registers
 * ----------------------------------------------------------------------------------- */
static void read_debug(struct vmx_vcpu *s)
{
    __asm__ volatile("mov %%dr0, %0; mov %%dr1, %1; mov %%dr2, %2; mov %%dr3, %3; mov %%dr6, %4"
                     : "=r"(s->dr[0]), "=r"(s->dr[1]), "=r"(s->dr[2]), "=r"(s->dr[3]),
                       "=r"(s->dr6));
}

static void write_debug(const struct vmx_vcpu *s)
{
    __asm__ volatile(
        "mov %0, %%dr0; mov %1, %%dr1; mov %2, %%dr2; mov %3, %%dr3; mov %4, %%dr6" ::"r"(s->dr[0]),
        "r"(s->dr[1]), "r"(s->dr[2]), "r"(s->dr[3]), "r"(s->dr6));
}

uint64_t vmx_get_dr(struct vcpu *v, unsigned dr)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    if (dr == 7)
        return vmcs_read(v, VMCS_GUEST_DR7);
    if (vmx_is_loaded(v))
        read_debug(s);
    return dr == 6 ? s->dr6 : s->dr[dr & 3];
}

void vmx_set_dr(struct vcpu *v, unsigned dr, uint64_t val)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    if (dr == 7) {
        vmcs_write(v, VMCS_GUEST_DR7, val);
        return;
    }
    if (vmx_is_loaded(v))
        read_debug(s);
    if (dr == 6)
        s->dr6 = val;
    else
        s->dr[dr & 3] = val;
    if (vmx_is_loaded(v))
        write_debug(s);
}

/* ---- MSRs
 * --------------------------------------------------------------------------------------------------
 */
static const uint32_t lazy_msrs[NR_LAZY_MSRS] = {
    [LAZY_STAR] = MSR_STAR,
    [LAZY_LSTAR] = MSR_LSTAR,
    [LAZY_CSTAR] = MSR_CSTAR,
    [LAZY_SYSCALL_MASK] = MSR_SYSCALL_MASK,
    [LAZY_KERNEL_GS_BASE] = MSR_KERNEL_GS_BASE,
};

static int lazy_index(uint32_t msr)
{
    for (int i = 0; i < NR_LAZY_MSRS; i++) {
        if (lazy_msrs[i] == msr)
            return i;
    }
    return -1;
}

static enum vmcs_field msr_field(uint32_t msr)
{
    switch (msr) {
    case MSR_FS_BASE:
        return VMCS_GUEST_FS_BASE;
    case MSR_GS_BASE:
        return VMCS_GUEST_GS_BASE;
    case MSR_SYSENTER_CS:
        return VMCS_GUEST_SYSENTER_CS;
    case MSR_SYSENTER_ESP:
        return VMCS_GUEST_SYSENTER_ESP;
    case MSR_SYSENTER_EIP:
        return VMCS_GUEST_SYSENTER_EIP;
    case MSR_PAT:
        return VMCS_GUEST_PAT;
    default:
        return VMCS_VPID; /* none */
    }
}

int vmx_get_msr(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    int lazy = lazy_index(msr);
    enum vmcs_field f = msr_field(msr);

    if (lazy >= 0)
        *val = vmx_is_loaded(v) ? rdmsr(msr) : vmx_vcpu(v)->msr[lazy];
    else if (f != VMCS_VPID)
        *val = vmcs_read(v, f);
    else
        return -ENOENT;
    return 0;
}

int vmx_set_msr(struct vcpu *v, uint32_t msr, uint64_t val)
{
    int lazy = lazy_index(msr);
    enum vmcs_field f = msr_field(msr);

    if (msr == MSR_TSC_AUX) { /* v->tsc_aux has it */
        if (vmx_is_loaded(v))
            wrmsr_safe(msr, val);
        return 0;
    }
    if (lazy >= 0) {
        vmx_vcpu(v)->msr[lazy] = val;
        return vmx_is_loaded(v) && wrmsr_safe(msr, val) ? -EINVAL : 0;
    }
    if (f == VMCS_VPID)
        return -ENOENT;
    vmcs_write(v, f, val);
    return 0;
}

void vmx_load_lazy(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    for (unsigned i = 0; i < NR_LAZY_MSRS; i++)
        wrmsr_safe(lazy_msrs[i], s->msr[i]);
    wrmsr_safe(MSR_TSC_AUX, v->tsc_aux);
    write_debug(s);
    write_cr2(s->cr2);
}

void vmx_save_lazy(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    for (unsigned i = 0; i < NR_LAZY_MSRS; i++)
        s->msr[i] = rdmsr(lazy_msrs[i]);
    read_debug(s);
    s->cr2 = read_cr2();
}

/* ---- interruptibility
 * ---------------------------------------------------------------------------------- */
uint32_t vmx_interruptibility(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    if (!s->shadow_known) {
        s->interruptibility = (uint32_t)vmcs_read(v, VMCS_GUEST_INTERRUPTIBILITY);
        s->shadow_known = true;
    }
    return s->interruptibility;
}

void vmx_set_interruptibility(struct vcpu *v, uint32_t val)
{
    if (vmx_interruptibility(v) == val)
        return;
    vmx_vcpu(v)->interruptibility = val;
    vmcs_write(v, VMCS_GUEST_INTERRUPTIBILITY, val);
}

unsigned vmx_get_interrupt_shadow(struct vcpu *v)
{
    return (vmx_interruptibility(v) & (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS)) != 0;
}

void vmx_set_interrupt_shadow(struct vcpu *v, unsigned shadow)
{
    uint32_t now = vmx_interruptibility(v) & ~(uint32_t)(BLOCKED_BY_STI | BLOCKED_BY_MOV_SS);
    vmx_set_interruptibility(v, now | (shadow ? BLOCKED_BY_MOV_SS : 0));
}

/* ---- reset
 * -----------------------------------------------------------------------------------------------
 */
/* The state after RESET or INIT (SDM 3A, table 9-1). */
void vmx_vcpu_reset(struct vcpu *v)
{
    static const struct segment cs = {0xf000, 0x9b, 0xffff, 0xffff0000},
                                data = {0, 0x93, 0xffff, 0}, table = {0, 0, 0xffff, 0},
                                ldt = {0, 0x82, 0xffff, 0}, tss = {0, 0x8b, 0xffff, 0};
    static const struct segment *const segments[NR_SEGRS] = {&data, &cs,  &data, &data,  &data,
                                                             &data, &ldt, &tss,  &table, &table};
    struct vmx_vcpu *s = vmx_vcpu(v);

    for (unsigned r = 0; r < NR_SEGRS; r++)
        vmx_set_segment(v, r, segments[r]);
    vmx_set_efer(v, 0);
    vmx_set_cr(v, 0, CR0_ET);
    vmx_set_cr(v, 2, 0);
    vmx_set_cr(v, 3, 0);
    vmx_set_cr(v, 4, 0);
    vmcs_write(v, VMCS_CR0_MASK, CR0_OWNED);
    vmcs_write(v, VMCS_CR4_MASK, CR4_OWNED);
    for (unsigned i = 0; i < 4; i++)
        vmx_set_dr(v, i, 0);
    vmx_set_dr(v, 6, 0xffff0ff0);
    vmx_set_dr(v, 7, 0x400);
    vmcs_write(v, VMCS_GUEST_DEBUGCTL, 0);
    vmcs_write(v, VMCS_GUEST_PENDING_DEBUG, 0);
    vmcs_write(v, VMCS_GUEST_PAT, PAT_RESET);
    vmcs_write(v, VMCS_GUEST_SYSENTER_CS, 0);
    vmcs_write(v, VMCS_GUEST_SYSENTER_ESP, 0);
    vmcs_write(v, VMCS_GUEST_SYSENTER_EIP, 0);
    vmcs_write(v, VMCS_GUEST_ACTIVITY, 0);
    vmx_set_interruptibility(v, 0);
    vmcs_write(v, VMCS_ENTRY_INFO, 0);
    s->armed = ARMED_NOTHING;
    s->reinject_vector = -1;
}
