/* hypercall.c: the hypercall table, entry in both widths, continuations, and the hypercall page. */
#include "core/atomic.h"
#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "core/x86.h"
#include "domain/exit.h"
#include "domain/hvm.h"

#define NR_HYPERCALLS 64

static hypercall_fn *const hypercalls[NR_HYPERCALLS] = {
    [__HYPERVISOR_memory_op] = do_memory_op,
    [__HYPERVISOR_multicall] = do_multicall,
    [__HYPERVISOR_set_timer_op] = do_set_timer_op,
    [__HYPERVISOR_xen_version] = do_xen_version,
    [__HYPERVISOR_console_io] = do_console_io,
    [__HYPERVISOR_grant_table_op] = do_grant_table_op,
    [__HYPERVISOR_vm_assist] = do_vm_assist,
    [__HYPERVISOR_vcpu_op] = do_vcpu_op,
    [__HYPERVISOR_sched_op] = do_sched_op,
    [__HYPERVISOR_event_channel_op] = do_event_channel_op,
    [__HYPERVISOR_physdev_op] = do_physdev_op,
    [__HYPERVISOR_hvm_op] = do_hvm_op,
    [__HYPERVISOR_sysctl] = do_sysctl,
    [__HYPERVISOR_domctl] = do_domctl,
    [__HYPERVISOR_dm_op] = do_dm_op,
    [__HYPERVISOR_platform_op] = do_platform_op,
};

static struct {
    unsigned op;
    const char *group;
} missing[64];

long hypercall_missing(struct vcpu *v, const char *group, unsigned op, long err)
{
    for (unsigned i = 0; i < ARRAY_SIZE(missing); i++) {
        if (missing[i].group == group && missing[i].op == op)
            return err;
        if (!missing[i].group) {
            missing[i].op = op;
            missing[i].group = group;
            log_warn("d%uv%u: %s operation %u is not there (%ld)", v->domain->id, v->id, group, op,
                     err);
            return err;
        }
    }
    return err;
}

long hypercall_dispatch(struct vcpu *v, unsigned nr, const uint64_t arg[6])
{
    if (nr >= NR_HYPERCALLS || !hypercalls[nr])
        return hypercall_missing(v, "hypercall", nr, -ENOSYS);
    return hypercalls[nr](v, arg);
}

static const uint8_t arg_regs64[6] = {RDI, RSI, RDX, R10, R8, R9};
static const uint8_t arg_regs32[6] = {RBX, RCX, RDX, RSI, RDI, RBP};

void hypercall_set_arg(struct vcpu *v, unsigned i, uint64_t value)
{
    v->regs.gpr[v->compat ? arg_regs32[i] : arg_regs64[i]] = v->compat ? (uint32_t)value : value;
}

long hypercall_continue(struct vcpu *v)
{
    v->hypercall_restart = true;
    return -ERESTART;
}

bool hypercall_preempt_check(void)
{
    irq_window();
    timers_look();
    return READ_ONCE(this_cpu()->work);
}

static inline void arguments64(const struct guest_regs *r, uint64_t arg[6])
{
    arg[0] = r->gpr[RDI];
    arg[1] = r->gpr[RSI];
    arg[2] = r->gpr[RDX];
    arg[3] = r->gpr[R10];
    arg[4] = r->gpr[R8];
    arg[5] = r->gpr[R9];
}

static void arguments32(const struct guest_regs *r, uint64_t arg[6])
{
    for (unsigned i = 0; i < 6; i++)
        arg[i] = (uint32_t)r->gpr[arg_regs32[i]];
}

/* VMCALL or VMMCALL from kernel mode: number in rax, arguments by width, result in rax. */
void exit_vmcall(struct vcpu *v, unsigned insn_bytes, unsigned code_bytes, unsigned cpl)
{
    struct guest_regs *r = &v->regs;
    bool wide = code_bytes == 8;
    uint64_t nr = wide ? r->gpr[RAX] : (uint32_t)r->gpr[RAX];
    uint64_t arg[6];

    if (!insn_bytes)
        insn_bytes = 3;
    if (unlikely(cpl != 0)) {
        r->gpr[RAX] = (uint64_t)-EPERM;
        hvm_skip(v, insn_bytes);
        return;
    }
    if (likely(wide))
        arguments64(r, arg);
    else
        arguments32(r, arg);
    if (unlikely(!wide))
        v->compat = true;
    long ret = nr < NR_HYPERCALLS && hypercalls[nr]
                   ? hypercalls[nr](v, arg)
                   : hypercall_missing(v, "hypercall", (unsigned)nr, -ENOSYS);
    v->compat = false;
    if (unlikely(v->hypercall_restart)) {
        v->hypercall_restart = false; /* RIP stays at the instruction: it runs again */
        return;
    }
    r->gpr[RAX] = wide ? (uint64_t)ret : (uint32_t)ret;
    hvm_skip(v, insn_bytes);
}

/* Each 32-byte entry: mov $nr, %eax; vmcall or vmmcall; ret. */
int hypercall_page_install(struct vcpu *v, uint64_t gpa)
{
    static uint8_t page[PAGE_SIZE];
    static spinlock_t lock;
    if (gpa & ~PAGE_MASK)
        return -EINVAL;
    spin_lock(&lock);
    memset(page, 0xcc, sizeof(page));
    for (uint32_t nr = 0; nr < PAGE_SIZE / 32; nr++) {
        uint8_t *p = page + 32 * nr;
        p[0] = 0xb8;
        memcpy(p + 1, &nr, 4);
        p[5] = 0x0f;
        p[6] = 0x01;
        p[7] = hvm_ops == &svm_ops ? 0xd9 : 0xc1;
        p[8] = 0xc3;
    }
    int err = copy_to_gpa(v->domain, gpa, page, sizeof(page));
    spin_unlock(&lock);
    if (!err)
        v->domain->hypercall_gpa = gpa;
    return err;
}

void domain_latch_shinfo(struct domain *d, bool is_32bit)
{
    if (d->has_32bit_shinfo == is_32bit)
        return;
    d->has_32bit_shinfo = is_32bit;
    pvtime_update_wallclock(d);
}
