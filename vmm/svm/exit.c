/* exit.c: what happens after VMEXIT: decode the reason, hand it to the vendor-neutral handlers, and
 * deliver events with the next entry (APM 2, 15.12 to 15.21). */
#include "core/atomic.h"
#include "core/errno.h"
#include "core/mcheck.h"
#include "core/print.h"
#include "core/x86.h"
#include "domain/exit.h"
#include "platform/platform.h"
#include "svm/vmcb.h"

#define NMI_LOOK_NS 20000 /* how soon to look whether an NMI handler's IRET is done */

static unsigned insn_length(struct vcpu *v)
{
    struct vmcb *b = vmcb_of(v);
    return svm_features & SVM_NRIP && b->next_rip ? (unsigned)(b->next_rip - b->rip) : 0;
}

/* ---- event delivery -----------------------------------------------------------------------------
 */
static void arm_virq(struct svm_vcpu *s, int vector, bool ignore_tpr)
{
    struct vmcb *b = s->vmcb;
    b->int_control &= ~(uint32_t)(INT_V_IGN_TPR | 0xf << INT_V_PRIO_SHIFT);
    b->int_control |= INT_V_IRQ | (uint32_t)(ignore_tpr ? 15 : vector >> 4) << INT_V_PRIO_SHIFT |
                      (ignore_tpr ? INT_V_IGN_TPR : 0);
    b->int_vector = (uint32_t)vector;
    vmcb_clear_intercept(b, ICPT_VINTR);
    s->virq_armed = true;
    s->virq_vector = vector;
}

/* May an NMI be injected? Not before the IRET of the last one is behind us: in a hardware task,
 * whose TSS is busy until then, it would be a #GP. */
static bool nmi_open(struct vcpu *v, struct svm_vcpu *s)
{
    if (s->nmi_masked && s->iret_seen && v->regs.rip != s->iret_rip)
        s->nmi_masked = s->iret_seen = false;
    if (s->nmi_masked && s->iret_seen) {
        timer_migrate(&s->nmi_timer, this_cpu()->id);
        timer_set(&s->nmi_timer, now_ns() + NMI_LOOK_NS);
    }
    return !s->nmi_masked;
}

/* Exceptions and NMIs go through EVENTINJ. The highest interrupt waits in V_IRQ, where the CPU
 * holds it until IF, the shadow and TPR allow: no window exit (APM 2, 15.21.4). */
void svm_inject(struct vcpu *v)
{
    struct svm_vcpu *s = svm_vcpu(v);
    struct vmcb *b = s->vmcb;
    uint8_t tpr = vlapic_get_tpr(v) >> 4;
    enum intr_source src = INTR_LAPIC;

    if (v->inject.valid) {
        b->event_inject = EVENT_VALID | (uint64_t)v->inject.type << 8 | v->inject.vector;
        if (v->inject.has_error)
            b->event_inject |= EVENT_HAS_CODE | (uint64_t)v->inject.error << 32;
        v->inject.valid = false;
    } else if (v->nmi_pending && !(b->int_state & 1) && !(b->event_inject & EVENT_VALID) &&
               nmi_open(v, s)) {
        b->event_inject = EVENT_VALID | 2 << 8 | 2;
        v->nmi_pending = false;
        s->nmi_masked = true;
        s->iret_seen = false;
        vmcb_set_intercept(b, ICPT_IRET);
        s->clean &= ~CLEAN_INTERCEPTS;
    }
    b->int_control = (b->int_control & ~(uint32_t)(INT_V_TPR | INT_V_IRQ)) | tpr;
    vmcb_set_intercept(b, ICPT_VINTR); /* quirk ghost-virq: one that is not there comes to us */
    s->virq_armed = false;
    if (s->reinject_vector >= 0) {
        arm_virq(s, s->reinject_vector, true);
    } else {
        int vector = platform_pending_interrupt(v, &src);
        if (vector >= 0) {
            arm_virq(s, vector, src != INTR_LAPIC);
            s->virq_source = (uint8_t)src;
        }
        if (unlikely(s->upcall_taken)) {
            s->upcall_taken = src == INTR_CALLBACK;
            if (s->upcall_taken)
                vmcb_set_intercept(b, ICPT_VINTR);
        }
    }
    if (tpr)
        vmcb_set_intercept(b, ICPT_CR_WRITE + 8);
    else
        vmcb_clear_intercept(b, ICPT_CR_WRITE + 8);
    s->clean &= ~(CLEAN_TPR | CLEAN_INTERCEPTS);
}

/* After an exit: V_IRQ clear means that the CPU took the interrupt. */
static void note_taken_interrupt(struct vcpu *v, struct svm_vcpu *s)
{
    s->virq_armed = false;
    if (s->reinject_vector >= 0)
        s->reinject_vector = -1;
    else if (s->virq_source != INTR_CALLBACK) /* that ends when the guest clears its upcall */
        platform_accept_interrupt(v, s->virq_source, s->virq_vector);
    if (s->virq_source == INTR_CALLBACK)
        s->upcall_taken = evtchn_upcall_pending(v);
    v->nr_events_delivered++;
    atomic_or(&v->work, VWORK_EVENT);
}

/* An event whose delivery the exit cut short is delivered again (APM 2, 15.7.2). Software
 * interrupts (type 4), #BP and #OF come from an instruction that will simply run again. */
static __attribute__((noinline)) void note_interrupted_delivery(struct vcpu *v, struct svm_vcpu *s,
                                                                uint64_t info)
{
    uint8_t vector = (uint8_t)info, type = (info >> 8) & 7;
    switch (type) {
    case 0:
        s->reinject_vector = vector;
        break;
    case 2:
        v->nmi_pending = true;
        s->nmi_masked = false;
        break;
    case 3:
        if (vector == EXC_BP || vector == EXC_OF)
            return;
        v->inject.valid = true;
        v->inject.type = 3;
        v->inject.vector = vector;
        v->inject.has_error = info & EVENT_HAS_CODE;
        v->inject.error = (uint32_t)(info >> 32);
        break;
    default:
        return;
    }
    vcpu_kick(v, VWORK_EVENT);
}

/* ---- handlers
 * ------------------------------------------------------------------------------------ */
static void on_interrupt(struct vcpu *v)
{
    (void)v;
    irq_window();
}

/* The guest could take the upcall that its handler may have been about to clear: look again. */
static void on_window(struct vcpu *v)
{
    struct svm_vcpu *s = svm_vcpu(v);

    if (s->virq_armed) {
        s->upcall_taken = false;
        vcpu_kick(v, VWORK_EVENT);
    }
}

static void on_nothing(struct vcpu *v)
{
    (void)v; /* NMI: taken by the host at STGI */
}

static void on_cpuid(struct vcpu *v)
{
    if (unlikely((uint32_t)v->regs.gpr[RAX] == 0xd))
        svm_quirk_reread_xcr0(v);
    exit_cpuid(v, insn_length(v));
}

static void on_hlt(struct vcpu *v)
{
    exit_hlt(v, insn_length(v));
}

static void on_msr(struct vcpu *v)
{
    if (vmcb_of(v)->exit_info1 & 1)
        exit_wrmsr(v, insn_length(v));
    else
        exit_rdmsr(v, insn_length(v));
}

static void on_ioio(struct vcpu *v)
{
    struct vmcb *b = vmcb_of(v);
    uint32_t info = (uint32_t)b->exit_info1; /* APM 2, 15.10.2 */
    uint16_t port = (uint16_t)(info >> 16);
    unsigned bytes = (info >> 4) & 7;
    if (info & 4)
        handle_string_io(v, port, bytes, info & 1, info & 8);
    else if (unlikely(b->dr7 & DR7_RW_HIGH))
        handle_watched_pio(v, port, bytes, info & 1, (unsigned)(b->exit_info2 - b->rip));
    else
        handle_pio(v, port, bytes, info & 1, (unsigned)(b->exit_info2 - b->rip));
}

static void on_npf(struct vcpu *v)
{
    struct vmcb *b = vmcb_of(v);
    uint64_t err = b->exit_info1;
    bool decoded = svm_features & SVM_DECODE;
    if (unlikely(err & BIT(33))) { /* on the walk of the guest's own page tables */
        if (p2m_fault(v, b->exit_info2, err & 2, false) != P2M_FAULT_RESOLVED)
            domain_crash(v->domain, "d%uv%u: page table at guest-physical %lx is not RAM",
                         v->domain->id, v->id, b->exit_info2);
        return;
    }
    exit_nested_fault(v, b->exit_info2, 0, false, err & 2, err & 16, b->insn,
                      decoded ? MIN(b->fetched, 15) : 0);
}

static void on_vmmcall(struct vcpu *v)
{
    const struct vmcb *b = vmcb_of(v);
    exit_vmcall(v, insn_length(v), vmcb_code_bytes(b), b->cpl);
}

static void on_xsetbv(struct vcpu *v)
{
    exit_xsetbv(v, insn_length(v));
}

static void on_undefined(struct vcpu *v)
{
    hvm_inject_exception(v, EXC_UD, -1);
}

static void on_general_protection(struct vcpu *v)
{
    hvm_inject_exception(v, EXC_GP, 0);
}

static void on_skip(struct vcpu *v)
{
    unsigned n = insn_length(v);
    hvm_skip(v, n ? n : exit_insn_length(v));
}

static void on_pause(struct vcpu *v)
{
    on_skip(v);
    vcpu_yield(v);
}

static void on_shutdown(struct vcpu *v)
{
    domain_triple_fault(v);
}

static void on_iret(struct vcpu *v)
{
    /* The NMI handler is about to return. There is no exit behind the IRET, so the next one, of
     * whatever reason, or the timer's, lets a further NMI in. */
    struct svm_vcpu *s = svm_vcpu(v);
    s->iret_seen = true;
    s->iret_rip = v->regs.rip;
    vmcb_clear_intercept(s->vmcb, ICPT_IRET);
    s->clean &= ~CLEAN_INTERCEPTS;
    vcpu_kick(v, VWORK_EVENT);
}

static void on_cr8_write(struct vcpu *v)
{
    handle_emulate(v);
}

static void on_exception(struct vcpu *v)
{
    struct vmcb *b = vmcb_of(v);
    unsigned vector = (unsigned)(b->exit_code - EXIT_EXCEPTION);
    if (vector == EXC_MC) {
        mcheck_log();
        panic("machine check while d%uv%u ran", v->domain->id, v->id);
    }
    hvm_inject_exception(v, vector, vector == EXC_AC ? (int64_t)(uint32_t)b->exit_info1 : -1);
}

typedef void handler_fn(struct vcpu *v);
static handler_fn *const handlers[EXIT_XSETBV + 1] = {
    [EXIT_CR_WRITE + 8] = on_cr8_write,
    [EXIT_EXCEPTION + EXC_DB] = on_exception,
    [EXIT_EXCEPTION + EXC_AC] = on_exception,
    [EXIT_EXCEPTION + EXC_MC] = on_exception,
    [EXIT_INTR] = on_interrupt,
    [EXIT_NMI] = on_nothing,
    [EXIT_SMI] = on_nothing,
    [EXIT_INIT] = on_nothing,
    [EXIT_VINTR] = on_window,
    [EXIT_RDPMC] = on_general_protection,
    [EXIT_CPUID] = on_cpuid,
    [EXIT_IRET] = on_iret,
    [EXIT_INVD] = on_skip,
    [EXIT_PAUSE] = on_pause,
    [EXIT_HLT] = on_hlt,
    [EXIT_INVLPGA] = on_undefined,
    [EXIT_IOIO] = on_ioio,
    [EXIT_MSR] = on_msr,
    [EXIT_FERR_FREEZE] = on_nothing,
    [EXIT_SHUTDOWN] = on_shutdown,
    [EXIT_VMRUN] = on_undefined,
    [EXIT_VMMCALL] = on_vmmcall,
    [EXIT_VMLOAD] = on_undefined,
    [EXIT_VMSAVE] = on_undefined,
    [EXIT_STGI] = on_undefined,
    [EXIT_CLGI] = on_undefined,
    [EXIT_SKINIT] = on_undefined,
    [EXIT_WBINVD] = on_skip,
    [EXIT_MONITOR] = on_undefined,
    [EXIT_MWAIT] = on_undefined,
    [EXIT_XSETBV] = on_xsetbv,
};

static __attribute__((noinline)) void unexpected_exit(struct vcpu *v)
{
    struct vmcb *b = vmcb_of(v);
    domain_crash(v->domain, "d%uv%u: unexpected exit %lx (info %lx, %lx)", v->domain->id, v->id,
                 b->exit_code, b->exit_info1, b->exit_info2);
}

void svm_dispatch(struct vcpu *v)
{
    struct svm_vcpu *s = svm_vcpu(v);
    struct vmcb *b = s->vmcb;
    uint8_t tpr = (uint8_t)(b->int_control << 4);

    b->event_inject = 0;
    if (unlikely((vlapic_get_tpr(v) & 0xf0) != tpr))
        vlapic_set_tpr(v, tpr);
    if (s->virq_armed && !(b->int_control & INT_V_IRQ))
        note_taken_interrupt(v, s);
    if (unlikely(b->exit_int_info & EVENT_VALID))
        note_interrupted_delivery(v, s, b->exit_int_info);
    uint64_t code = b->exit_code;
    if (likely(code < ARRAY_SIZE(handlers) && handlers[code])) {
        v->exits[code]++;
        handlers[code](v);
    } else if (code == EXIT_NPF) {
        v->exits[0xff]++;
        on_npf(v);
    } else {
        unexpected_exit(v);
    }
}

/* ---- dump
 * ---------------------------------------------------------------------------------------- */
void svm_dump(struct vcpu *v)
{
    static const char names[NR_SEGRS][5] = {"ES", "CS",   "SS", "DS",   "FS",
                                            "GS", "LDTR", "TR", "GDTR", "IDTR"};
    struct vmcb *b = vmcb_of(v);
    log_err("cr0 %lx cr2 %lx cr3 %lx cr4 %lx efer %lx cpl %u", b->cr0, b->cr2, b->cr3, b->cr4,
            b->efer, b->cpl);
    for (unsigned i = 0; i < NR_SEGRS; i++) {
        struct segment g;
        svm_ops.get_segment(v, i, &g);
        log_err("%4s %04x attr %03x limit %08x base %016lx", names[i], g.sel, g.attr, g.limit,
                g.base);
    }
    log_err("exit %lx info %lx %lx intinfo %lx inject %lx intctl %x vec %x shadow %lx asid %u",
            b->exit_code, b->exit_info1, b->exit_info2, b->exit_int_info, b->event_inject,
            b->int_control, b->int_vector, b->int_state, b->asid);
    log_err("dr6 %lx dr7 %lx pat %lx ncr3 %lx tsc_offset %lx", b->dr6, b->dr7, b->g_pat, b->n_cr3,
            b->tsc_offset);
}
