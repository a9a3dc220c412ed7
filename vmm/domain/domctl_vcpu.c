/* domctl_vcpu.c: domctl: vCPUs: making them, looking at them, their registers and scheduling. */
#include "core/atomic.h"
#include "core/print.h"
#include "core/sched.h"
#include "domain/compat.h"
#include "domain/domctl.h"
#include "domain/hvm.h"
#include "platform/platform.h"

/* The second half of creating a domain; the number was fixed by the first. */
long domctl_max_vcpus(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    uint32_t max = op->u.max_vcpus.max;

    (void)v;
    if (max != d->max_vcpus || d->dying != DOMAIN_ALIVE)
        return -EINVAL;
    for (uint32_t i = 0; i < max; i++) {
        int rc = d->vcpu[i] ? 0 : vcpu_create(d, i);
        if (rc)
            return rc;
    }
    return 0;
}

long domctl_getvcpuinfo(struct vcpu *caller, struct domain *d, struct xen_domctl *op)
{
    struct xen_domctl_getvcpuinfo *i = &op->u.getvcpuinfo;
    struct vcpu *v = domctl_vcpu(d, i->vcpu);
    uint32_t block;

    (void)caller;
    if (!v)
        return -ESRCH;
    block = atomic_load(&v->block);
    i->online = !(block & VBLOCK_DOWN);
    i->blocked = i->online && block;
    i->running = v->sched.running;
    i->cpu_time = vcpu_cpu_time(v);
    i->cpu = v->sched.cpu;
    return 0;
}

/* ---- affinity
 * ------------------------------------------------------------------------------------- */

static uint64_t online_cpus(void)
{
    return nr_cpus >= 64 ? ~0ULL : BIT(nr_cpus) - 1;
}

/* Both masks are given back as they took effect. */
long domctl_setvcpuaffinity(struct vcpu *caller, struct domain *d, struct xen_domctl *op)
{
    struct xen_domctl_vcpuaffinity *a = &op->u.vcpuaffinity;
    struct vcpu *v = domctl_vcpu(d, a->vcpu);
    bool hard = a->flags & XEN_VCPUAFFINITY_HARD, soft = a->flags & XEN_VCPUAFFINITY_SOFT;
    uint64_t hard_map, soft_map;
    int rc;

    (void)caller;
    if (!v)
        return -ESRCH;
    if ((!hard && !soft) ||
        a->flags & ~(XEN_VCPUAFFINITY_HARD | XEN_VCPUAFFINITY_SOFT | XEN_VCPUAFFINITY_FORCE))
        return -EINVAL;
    if ((hard && bitmap_from_guest(&hard_map, &a->cpumap_hard, MAX_CPUS)) ||
        (soft && bitmap_from_guest(&soft_map, &a->cpumap_soft, MAX_CPUS)))
        return -EFAULT;
    if (hard && !(hard_map & online_cpus()))
        return -EINVAL;
    rc = vcpu_set_affinity(v, hard ? &hard_map : NULL, soft ? &soft_map : NULL);
    if (rc)
        return rc;
    hard_map = v->sched.hard[0] & online_cpus();
    soft_map = v->sched.soft[0] & hard_map;
    if (hard)
        rc = bitmap_to_guest(&a->cpumap_hard, hard_map, MAX_CPUS);
    if (soft && !rc)
        rc = bitmap_to_guest(&a->cpumap_soft, soft_map, MAX_CPUS);
    return rc;
}

long domctl_getvcpuaffinity(struct vcpu *caller, struct domain *d, struct xen_domctl *op)
{
    struct xen_domctl_vcpuaffinity *a = &op->u.vcpuaffinity;
    struct vcpu *v = domctl_vcpu(d, a->vcpu);
    int rc = 0;

    (void)caller;
    if (!v)
        return -ESRCH;
    if (a->flags & XEN_VCPUAFFINITY_HARD)
        rc = bitmap_to_guest(&a->cpumap_hard, v->sched.hard[0], MAX_CPUS);
    if (a->flags & XEN_VCPUAFFINITY_SOFT && !rc)
        rc = bitmap_to_guest(&a->cpumap_soft, v->sched.soft[0], MAX_CPUS);
    return rc;
}

/* ---- registers
 * ------------------------------------------------------------------------------------ */

static const struct { /* of struct cpu_user_regs, by our numbering */
    uint16_t at;
} gpr_field[NR_GPRS] = {
#define GPR(reg, field) [reg] = {offsetof(struct cpu_user_regs, field)}
    GPR(RAX, rax), GPR(RCX, rcx), GPR(RDX, rdx), GPR(RBX, rbx), GPR(RSP, rsp), GPR(RBP, rbp),
    GPR(RSI, rsi), GPR(RDI, rdi), GPR(R8, r8),   GPR(R9, r9),   GPR(R10, r10), GPR(R11, r11),
    GPR(R12, r12), GPR(R13, r13), GPR(R14, r14), GPR(R15, r15),
#undef GPR
};

static uint64_t *user_gpr(struct cpu_user_regs *u, unsigned i)
{
    return (uint64_t *)((char *)u + gpr_field[i].at);
}

static uint16_t selector(struct vcpu *v, enum segment_reg r)
{
    struct segment s;

    hvm_ops->get_segment(v, r, &s);
    return s.sel;
}

static uint64_t hw_msr(struct vcpu *v, uint32_t msr)
{
    uint64_t val = 0;

    return hvm_ops->get_msr(v, msr, &val) ? 0 : val;
}

/* v is paused and its state saved. */
static void fill_context(struct vcpu *v, struct vcpu_guest_context *c)
{
    c->flags = VGCF_IN_KERNEL | (atomic_load(&v->block) & VBLOCK_DOWN ? 0 : VGCF_online);
    for (unsigned i = 0; i < NR_GPRS; i++)
        *user_gpr(&c->user_regs, i) = v->regs.gpr[i];
    c->user_regs.rip = v->regs.rip;
    c->user_regs.rflags = v->regs.rflags;
    c->user_regs.cs = selector(v, SEGR_CS);
    c->user_regs.ss = selector(v, SEGR_SS);
    c->user_regs.ds = selector(v, SEGR_DS);
    c->user_regs.es = selector(v, SEGR_ES);
    c->user_regs.fs = selector(v, SEGR_FS);
    c->user_regs.gs = selector(v, SEGR_GS);
    c->ctrlreg[0] = hvm_ops->get_cr(v, 0);
    c->ctrlreg[2] = hvm_ops->get_cr(v, 2);
    c->ctrlreg[3] = hvm_ops->get_cr(v, 3);
    c->ctrlreg[4] = hvm_ops->get_cr(v, 4);
    c->debugreg[6] = hvm_ops->get_dr(v, 6);
    c->debugreg[7] = hvm_ops->get_dr(v, 7);
    c->fs_base = hw_msr(v, 0xc0000100);
    c->gs_base_user = hw_msr(v, 0xc0000101);
    c->gs_base_kernel = hw_msr(v, 0xc0000102);
}

long domctl_getvcpucontext(struct vcpu *caller, struct domain *d, struct xen_domctl *op)
{
    struct vcpu *v = domctl_vcpu(d, op->u.vcpucontext.vcpu);
    struct vcpu_guest_context *c;
    long rc;

    (void)caller;
    if (!v)
        return -ESRCH;
    c = kzalloc(sizeof(*c));
    if (!c)
        return -ENOMEM;
    vcpu_pause(v);
    fill_context(v, c);
    vcpu_unpause(v);
    rc = copy_to_guest((uint64_t)op->u.vcpucontext.ctxt.p, c, sizeof(*c));
    kfree(c);
    return rc;
}

/* For an HVM vCPU the ABI takes the general registers only; the rest comes by sethvmcontext. */
static void take_context(struct vcpu *v, struct vcpu_guest_context *c)
{
    for (unsigned i = 0; i < NR_GPRS; i++)
        v->regs.gpr[i] = *user_gpr(&c->user_regs, i);
    v->regs.rip = c->user_regs.rip;
    v->regs.rflags = (c->user_regs.rflags & 0x003f7fd5) | 2;
    atomic_or(&v->work, VWORK_RESET);
}

long domctl_setvcpucontext(struct vcpu *caller, struct domain *d, struct xen_domctl *op)
{
    struct vcpu *v = domctl_vcpu(d, op->u.vcpucontext.vcpu);
    uint64_t gva = (uint64_t)op->u.vcpucontext.ctxt.p;
    struct vcpu_guest_context *c;

    (void)caller;
    if (!v)
        return -ESRCH;
    if (!gva) /* reset the vCPU */
        return -EOPNOTSUPP;
    c = kzalloc(sizeof(*c));
    if (!c)
        return -ENOMEM;
    if (copy_from_guest(c, gva, sizeof(*c))) {
        kfree(c);
        return -EFAULT;
    }
    vcpu_pause(v);
    take_context(v, c);
    vcpu_unpause(v);
    if (c->flags & VGCF_online)
        vcpu_unblock(v, VBLOCK_DOWN);
    kfree(c);
    return 0;
}

/* MSRs that no HVM context record has: none. */
long domctl_get_vcpu_msrs(struct vcpu *caller, struct domain *d, struct xen_domctl *op)
{
    (void)caller;
    if (!domctl_vcpu(d, op->u.vcpu_msrs.vcpu))
        return -EINVAL;
    op->u.vcpu_msrs.msr_count = 0;
    return 0;
}

long domctl_set_vcpu_msrs(struct vcpu *caller, struct domain *d, struct xen_domctl *op)
{
    (void)caller;
    if (!domctl_vcpu(d, op->u.vcpu_msrs.vcpu))
        return -EINVAL;
    return op->u.vcpu_msrs.msr_count ? -EINVAL : 0;
}

/* ---- scheduling, buttons
 * ---------------------------------------------------------------------------- */

/* Weight and cap, as `xl sched-credit2` shows and sets them. */
long domctl_scheduler_op(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    struct xen_domctl_scheduler_op *s = &op->u.scheduler_op;

    if (s->sched_id != XEN_SCHEDULER_CREDIT2)
        return -EINVAL;
    switch (s->cmd) {
    case XEN_DOMCTL_SCHEDOP_getinfo:
        s->u.credit2.weight = (uint16_t)d->sched.weight;
        s->u.credit2.cap = (uint16_t)d->sched.cap;
        return 0;
    case XEN_DOMCTL_SCHEDOP_putinfo: /* weight 0 leaves it as it is, cap 0 takes the cap away */
        if (s->u.credit2.cap > 100 * d->max_vcpus)
            return -EINVAL;
        sched_domain_set(d, s->u.credit2.weight ? s->u.credit2.weight : d->sched.weight,
                         s->u.credit2.cap);
        return 0;
    case XEN_DOMCTL_SCHEDOP_getvcpuinfo:
    case XEN_DOMCTL_SCHEDOP_putvcpuinfo: /* credit2 has none, as the ABI says */
        return -EINVAL;
    default:
        return hypercall_missing(v, "domctl scheduler_op", s->cmd, -EINVAL);
    }
}

long domctl_sendtrigger(struct vcpu *caller, struct domain *d, struct xen_domctl *op)
{
    struct vcpu *v = domctl_vcpu(d, op->u.sendtrigger.vcpu);

    switch (op->u.sendtrigger.trigger) {
    case XEN_DOMCTL_SENDTRIGGER_POWER:
        vpmtmr_power_button(d);
        return 0;
    case XEN_DOMCTL_SENDTRIGGER_SLEEP:
        vpmtmr_sleep_button(d);
        return 0;
    case XEN_DOMCTL_SENDTRIGGER_RESET:
        domain_shutdown(d, SHUTDOWN_reboot);
        return 0;
    case XEN_DOMCTL_SENDTRIGGER_NMI:
        if (!v)
            return -ESRCH;
        vcpu_nmi(v);
        return 0;
    case XEN_DOMCTL_SENDTRIGGER_INIT:
        if (!v)
            return -ESRCH;
        vcpu_init_signal(v);
        return 0;
    default:
        return hypercall_missing(caller, "sendtrigger", op->u.sendtrigger.trigger, -ENOSYS);
    }
}
