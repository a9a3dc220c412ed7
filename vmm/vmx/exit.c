/* exit.c: what happens after a VM exit: decode the reason (SDM 3C, 27.2), hand it to the
 * vendor-neutral handlers, and deliver events with the next entry (26.6). */
#include "core/atomic.h"
#include "core/errno.h"
#include "core/mcheck.h"
#include "core/print.h"
#include "core/trap.h"
#include "core/x86.h"
#include "domain/exit.h"
#include "platform/platform.h"
#include "vmx/vmcs.h"

static unsigned insn_length(void)
{
    return (unsigned)vmread(VMCS_EXIT_INSN_LENGTH);
}

/* ---- event delivery -----------------------------------------------------------------------------
 */
static void set_proc_controls(struct vmx_vcpu *s, uint32_t mask, uint32_t bits)
{
    uint32_t proc = (s->proc & ~mask) | bits;
    if (proc != s->proc) {
        s->proc = proc;
        vmwrite(VMCS_PROC_CONTROLS, proc);
    }
}

static void arm(struct vmx_vcpu *s, enum armed what, uint32_t info)
{
    s->armed = what;
    vmwrite(VMCS_ENTRY_INFO, info | EVENT_VALID);
}

static void arm_exception(struct vcpu *v, struct vmx_vcpu *s)
{
    uint32_t info = (uint32_t)v->inject.type << 8 | v->inject.vector;
    if (v->inject.type == EVENT_EXCEPTION && v->inject.has_error &&
        EVENTS_WITH_CODE >> v->inject.vector & 1) {
        info |= EVENT_HAS_CODE;
        vmwrite(VMCS_ENTRY_ERROR, v->inject.error & 0xffff);
    }
    if (v->inject.type == EVENT_SOFTWARE)
        vmwrite(VMCS_ENTRY_INSN_LENGTH, v->inject.insn_bytes);
    arm(s, ARMED_EXCEPTION, info);
}

/* The LAPIC as the CPU is to see it. Its TPR is in the page that both share (CR8 is); without
 * delivery by the CPU, lowering it below the threshold exits (29.3). */
static void enter_with_lapic(struct vcpu *v, struct vmx_vcpu *s)
{
    if (vmx_apic_delivers())
        vmx_apic_enter(v);
    else if (s->proc & PROC_TPR_SHADOW)
        vmwrite(VMCS_TPR_THRESHOLD, vlapic_get_tpr(v) >> 4);
}

/* One event goes with the next entry: the first of exception, NMI, cut-short interrupt, interrupt.
 * For what must wait until the guest is ready, a window exit tells when. Nothing is taken from
 * where it waits before the entry has happened (note_delivered), so this may be called again and
 * choose anew. */
void vmx_inject(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    uint32_t blocked = vmx_interruptibility(v), windows = 0;
    bool shadow = blocked & (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS);
    enum intr_source src = INTR_LAPIC;

    enter_with_lapic(v, s);
    if (s->armed != ARMED_NOTHING)
        vmwrite(VMCS_ENTRY_INFO, 0);
    s->armed = ARMED_NOTHING;
    if (v->inject.valid)
        arm_exception(v, s);
    if (v->nmi_pending) {
        if (s->armed || shadow || blocked & BLOCKED_BY_NMI)
            windows |= PROC_NMI_WINDOW;
        else
            arm(s, ARMED_NMI, EVENT_NMI << 8 | EXC_NMI);
    }
    int vector = s->reinject_vector >= 0 ? s->reinject_vector : platform_pending_interrupt(v, &src);
    bool by_cpu = src == INTR_LAPIC && s->reinject_vector < 0 && vmx_apic_delivers();
    if (vector >= 0 && !by_cpu) {
        if (s->armed || shadow || !(v->regs.rflags & RFLAGS_IF)) {
            windows |= PROC_INTERRUPT_WINDOW;
        } else {
            arm(s, s->reinject_vector >= 0 ? ARMED_REINJECT : ARMED_INTERRUPT,
                EVENT_INTERRUPT << 8 | (uint32_t)vector);
            s->intr_vector = vector;
            s->intr_source = (uint8_t)src;
        }
    }
    set_proc_controls(s, PROC_INTERRUPT_WINDOW | PROC_NMI_WINDOW, windows);
}

/* The entry happened, so the armed event is the guest's: take it from where it waited. Others that
 * waited behind it are looked at again. */
static void note_delivered(struct vcpu *v, struct vmx_vcpu *s)
{
    switch (s->armed) {
    case ARMED_NOTHING:
        return;
    case ARMED_EXCEPTION:
        v->inject.valid = false;
        break;
    case ARMED_NMI:
        v->nmi_pending = false;
        break;
    case ARMED_REINJECT:
        s->reinject_vector = -1;
        atomic_or(&v->work, VWORK_EVENT);
        break;
    case ARMED_INTERRUPT:
        platform_accept_interrupt(v, s->intr_source, s->intr_vector);
        v->nr_events_delivered++;
        atomic_or(&v->work, VWORK_EVENT);
        break;
    }
    s->armed = ARMED_NOTHING;
}

/* An event whose delivery the exit cut short is delivered again (27.2.4). Software interrupts (type
 * 4), INT1, INT3 and INTO (5, 6) come from an instruction that will simply run again. */
static void note_interrupted_delivery(struct vcpu *v, struct vmx_vcpu *s, uint32_t info)
{
    switch (info >> 8 & 7) {
    case EVENT_INTERRUPT:
        s->reinject_vector = info & 0xff;
        break;
    case EVENT_NMI:
        v->nmi_pending = true;
        vmx_set_interruptibility(v, vmx_interruptibility(v) & ~(uint32_t)BLOCKED_BY_NMI);
        break;
    case EVENT_EXCEPTION:
        v->inject.valid = true;
        v->inject.type = EVENT_EXCEPTION;
        v->inject.vector = (uint8_t)info;
        v->inject.has_error = info & EVENT_HAS_CODE;
        v->inject.error = (uint32_t)vmread(VMCS_IDT_VECTORING_ERROR);
        break;
    default:
        return;
    }
    atomic_or(&v->work, VWORK_EVENT);
}

/* ---- handlers
 * ------------------------------------------------------------------------------------ */
/* #DB: the exit leaves DR6 and DR7 alone and tells DR6's new bits (27.1, 27.2.1 and table 27-1),
 * where delivery in the guest would have cleared DR7.GD. INT1 (type 5) exits before it is done. */
static void note_debug_exception(struct vcpu *v, uint32_t info)
{
    uint64_t bits = vmread(VMCS_EXIT_QUALIFICATION) & 0x600f;

    vmx_set_dr(v, 6, (vmx_get_dr(v, 6) & ~0xfUL) | bits);
    if (bits & BIT(13))
        vmx_set_dr(v, 7, vmx_get_dr(v, 7) & ~BIT(13));
    if ((info >> 8 & 7) == EVENT_INT1)
        hvm_skip(v, insn_length());
}

static void on_exception_nmi(struct vcpu *v)
{
    uint32_t info = (uint32_t)vmread(VMCS_EXIT_INTR_INFO);
    switch (info & 0xff) {
    case EXC_NMI: /* the host's: blocked until its handler's IRET */
        __asm__ volatile("int $2" ::: "memory");
        return;
    case EXC_MC:
        mcheck_log();
        panic("machine check while d%uv%u ran", v->domain->id, v->id);
    case EXC_DB:
        note_debug_exception(v, info);
        break;
    }
    hvm_inject_exception(v, info & 0xff,
                         info & EVENT_HAS_CODE ? (int64_t)vmread(VMCS_EXIT_INTR_ERROR) : -1);
}

static void on_interrupt(struct vcpu *v)
{
    uint32_t info = (uint32_t)vmread(VMCS_EXIT_INTR_INFO);

    (void)v;
    if (info & EVENT_VALID) /* acknowledged on exit */
        trap_irq((uint8_t)info);
    else
        irq_window();
}

static void on_preemption_timer(struct vcpu *v)
{
    (void)v;
    atomic_or(&this_cpu()->work, SOFTIRQ_TIMER);
}

static void on_nothing(struct vcpu *v)
{
    (void)v;
}

static void on_triple_fault(struct vcpu *v)
{
    domain_crash(v->domain, "d%uv%u: triple fault", v->domain->id, v->id);
}

static void on_window(struct vcpu *v)
{
    atomic_or(&v->work, VWORK_EVENT);
}

static void on_cpuid(struct vcpu *v)
{
    exit_cpuid(v, insn_length());
}

static void on_hlt(struct vcpu *v)
{
    exit_hlt(v, insn_length());
}

static void on_rdmsr(struct vcpu *v)
{
    exit_rdmsr(v, insn_length());
}

static void on_wrmsr(struct vcpu *v)
{
    exit_wrmsr(v, insn_length());
}

static void on_vmcall(struct vcpu *v)
{
    exit_vmcall(v, insn_length(), vmx_get_code_bytes(v), vmx_get_cpl(v));
}

static void on_xsetbv(struct vcpu *v)
{
    exit_xsetbv(v, insn_length());
}

static void on_skip(struct vcpu *v)
{
    hvm_skip(v, insn_length());
}

static void on_pause(struct vcpu *v)
{
    on_skip(v);
    vcpu_yield(v);
}

static void on_undefined(struct vcpu *v)
{
    hvm_inject_exception(v, EXC_UD, -1);
}

static void on_general_protection(struct vcpu *v)
{
    hvm_inject_exception(v, EXC_GP, 0);
}

/* Table 27-5. */
static void on_io(struct vcpu *v)
{
    uint32_t q = (uint32_t)vmread(VMCS_EXIT_QUALIFICATION);
    uint16_t port = (uint16_t)(q >> 16);
    unsigned bytes = (q & 7) + 1;
    bool in = q & 8;
    if (q & 16)
        handle_string_io(v, port, bytes, in, q & 32);
    else if (unlikely(vmx_vcpu(v)->cr4_shadow & CR4_DE))
        handle_watched_pio(v, port, bytes, in, insn_length());
    else
        handle_pio(v, port, bytes, in, insn_length());
}

/* ---- control registers (table 27-3)
 * ---------------------------------------------------------------- */
enum { CR_WRITE, CR_READ, CR_CLTS, CR_LMSW };

static int write_cr(struct vcpu *v, unsigned cr, uint64_t val)
{
    switch (cr) {
    case 0:
        return hvm_set_cr0(v, val);
    case 3:
        return hvm_set_cr3(v, val);
    case 4:
        return hvm_set_cr4(v, val);
    case 8:
        if (val & ~0xfUL)
            return -EINVAL;
        vlapic_set_tpr(v, (uint8_t)(val << 4));
        atomic_or(&v->work, VWORK_EVENT);
        return 0;
    default:
        return -EINVAL;
    }
}

static void on_cr_access(struct vcpu *v)
{
    uint64_t q = vmread(VMCS_EXIT_QUALIFICATION);
    unsigned cr = q & 15, type = q >> 4 & 3;
    uint64_t *gpr = &v->regs.gpr[q >> 8 & 15];
    struct segment cs;
    int err = 0;

    vmx_get_segment(v, SEGR_CS, &cs);
    bool wide = vmx_get_efer(v) & EFER_LMA && cs.attr & 0x200;
    switch (type) {
    case CR_WRITE:
        err = write_cr(v, cr, wide ? *gpr : (uint32_t)*gpr);
        break;
    case CR_READ: /* 3 or 8: exits only where the controls that avoid them are not there */
        *gpr = cr == 8 ? vlapic_get_tpr(v) >> 4 : vmx_get_cr(v, cr);
        break;
    case CR_CLTS:
        err = hvm_set_cr0(v, vmx_get_cr(v, 0) & ~CR0_TS);
        break;
    case CR_LMSW: /* sets PE, does not clear it */
        err = hvm_set_cr0(v, (vmx_get_cr(v, 0) & ~0xeUL) | (q >> 16 & 0xf));
        break;
    }
    if (err)
        hvm_inject_exception(v, EXC_GP, 0);
    else
        hvm_skip(v, insn_length());
}

/* ---- nested faults
 * ----------------------------------------------------------------------------------- */
/* With dirty bits a walk through the guest's tables counts as a write (28.3.3.2), which those in
 * read-only memory refuse: the guest does without. */
static bool forgo_dirty_bits(struct vcpu *v, paddr_t gpa)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    enum p2m_type t;

    p2m_get(v->domain, gpa >> PAGE_SHIFT, &t, NULL);
    if (t != P2M_RAM_RO && t != P2M_IOREQ_SERVER && t != P2M_GRANT_RO && t != P2M_FOREIGN_RO)
        return false;
    p2m_forgo_dirty_bits(v->domain);
    s->eptp &= ~EPTP_DIRTY_BITS;
    vmwrite(VMCS_EPT_POINTER, s->eptp);
    s->flush_ept = true;
    vmx_new_tag(v);
    return true;
}

/* Table 27-7. Bit 12: an IRET that unblocked NMIs faulted, and will run again (27.2.3). */
static void on_ept_violation(struct vcpu *v)
{
    uint64_t q = vmread(VMCS_EXIT_QUALIFICATION);
    paddr_t gpa = vmread(VMCS_GUEST_PHYSICAL);
    bool data = (q & 0x180) == 0x180; /* a linear address's translation, not a walk to it */

    if (unlikely(q & BIT(12) && !(vmread(VMCS_IDT_VECTORING_INFO) & EVENT_VALID)))
        vmx_set_interruptibility(v, vmx_interruptibility(v) | BLOCKED_BY_NMI);
    if (unlikely((q & 0x182) == 0x82 && vmx_vcpu(v)->eptp & EPTP_DIRTY_BITS) &&
        forgo_dirty_bits(v, gpa))
        return;
    exit_nested_fault(v, gpa, data ? vmread(VMCS_GUEST_LINEAR) : 0, data, q & 2, q & 4, NULL, 0);
}

static void crash_with_fields(struct vcpu *v, const char *what)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    s->dump_fields = true;
    domain_crash(v->domain, "d%uv%u: %s (exit reason %x, qualification %lx)", v->domain->id, v->id,
                 what, s->reason, vmread(VMCS_EXIT_QUALIFICATION));
    s->dump_fields = false;
}

static void on_ept_misconfiguration(struct vcpu *v)
{
    log_err("EPT misconfiguration at guest-physical %lx", vmread(VMCS_GUEST_PHYSICAL));
    crash_with_fields(v, "EPT misconfiguration");
}

static void on_task_switch(struct vcpu *v)
{
    if (vmx_task_switch(v))
        crash_with_fields(v, "a hardware task switch cannot reach its tables");
}

void vmx_entry_refused(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    log_err("d%uv%u: VM entry refused, instruction error %lu (SDM 3C, 30.4)", v->domain->id, v->id,
            vmread(VMCS_INSTRUCTION_ERROR));
    s->reason = REASON_ENTRY_FAILED;
    crash_with_fields(v, "VM entry refused");
}

typedef void handler_fn(struct vcpu *v);
static handler_fn *const handlers[REASON_NR] = {
    [REASON_EXCEPTION_NMI] = on_exception_nmi,
    [REASON_INTERRUPT] = on_interrupt,
    [REASON_TRIPLE_FAULT] = on_triple_fault,
    [REASON_INIT] = on_nothing,
    [REASON_SIPI] = on_nothing,
    [REASON_INTERRUPT_WINDOW] = on_window,
    [REASON_NMI_WINDOW] = on_window,
    [REASON_TASK_SWITCH] = on_task_switch,
    [REASON_CPUID] = on_cpuid,
    [REASON_GETSEC] = on_undefined,
    [REASON_HLT] = on_hlt,
    [REASON_INVD] = on_skip,
    [REASON_RDPMC] = on_general_protection,
    [REASON_VMCALL] = on_vmcall,
    [REASON_VMCLEAR... REASON_VMXON] = on_undefined,
    [REASON_CR_ACCESS] = on_cr_access,
    [REASON_IO] = on_io,
    [REASON_RDMSR] = on_rdmsr,
    [REASON_WRMSR] = on_wrmsr,
    [REASON_MWAIT] = on_undefined,
    [REASON_MONITOR] = on_undefined,
    [REASON_PAUSE] = on_pause,
    [REASON_TPR_BELOW_THRESHOLD] = on_window,
    [REASON_APIC_ACCESS] = vmx_on_apic_access,
    [REASON_VIRTUALIZED_EOI] = vmx_on_virtualized_eoi,
    [REASON_EPT_VIOLATION] = on_ept_violation,
    [REASON_EPT_MISCONFIGURATION] = on_ept_misconfiguration,
    [REASON_INVEPT] = on_undefined,
    [REASON_PREEMPTION_TIMER] = on_preemption_timer,
    [REASON_INVVPID] = on_undefined,
    [REASON_WBINVD] = on_skip,
    [REASON_XSETBV] = on_xsetbv,
    [REASON_APIC_WRITE] = vmx_on_apic_write,
};

void vmx_dispatch(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    uint32_t reason = s->reason = (uint32_t)vmread(VMCS_EXIT_REASON);

    if (unlikely(reason & REASON_ENTRY_FAILED)) {
        if ((reason & 0xffff) == REASON_MACHINE_CHECK) {
            mcheck_log();
            panic("machine check while entering d%uv%u", v->domain->id, v->id);
        }
        crash_with_fields(v, "VM entry failed");
        return;
    }
    s->launched = true;
    note_delivered(v, s);
    uint32_t cut_short = (uint32_t)vmread(VMCS_IDT_VECTORING_INFO);
    if (unlikely(cut_short & EVENT_VALID))
        note_interrupted_delivery(v, s, cut_short);
    if (likely(reason < REASON_NR && handlers[reason])) {
        v->exits[reason]++;
        handlers[reason](v);
        return;
    }
    crash_with_fields(v, "unexpected exit");
}
