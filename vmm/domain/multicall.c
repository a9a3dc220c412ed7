/* multicall.c: several hypercalls in one.
 *
 * The caller's list is its own memory: an entry is read, called and answered one at a time. A call
 * that wants to be continued leaves its new arguments in the registers that hold the multicall's;
 * they are put into its entry, and the multicall continues from there.
 */
#include "core/print.h"
#include "core/string.h"
#include "domain/compat.h"

static const uint8_t wide_args[6] = {RDI, RSI, RDX, R10, R8, R9};
static const uint8_t narrow_args[6] = {RBX, RCX, RDX, RSI, RDI, RBP};

static size_t entry_bytes(const struct vcpu *v)
{
    return v->compat ? sizeof(struct compat_multicall_entry) : sizeof(struct multicall_entry);
}

static int read_entry(struct vcpu *v, uint64_t gva, struct multicall_entry *e)
{
    struct compat_multicall_entry c;

    if (!v->compat)
        return copy_from_guest(e, gva, sizeof(*e));
    if (copy_from_guest(&c, gva, sizeof(c)))
        return -EFAULT;
    e->op = c.op;
    for (unsigned i = 0; i < 6; i++)
        e->args[i] = c.args[i];
    return 0;
}

static int write_result(struct vcpu *v, uint64_t gva, long result)
{
    return write_guest_word(v, gva, 1, (uint64_t)result);
}

static int write_args(struct vcpu *v, uint64_t gva, const uint64_t arg[6])
{
    for (unsigned i = 0; i < 6; i++)
        if (write_guest_word(v, gva, 2 + i, arg[i]))
            return -EFAULT;
    return 0;
}

static void load_args(const struct vcpu *v, uint64_t arg[6])
{
    const uint8_t *reg = v->compat ? narrow_args : wide_args;

    for (unsigned i = 0; i < 6; i++)
        arg[i] = v->regs.gpr[reg[i]];
}

static void store_args(struct vcpu *v, const uint64_t arg[6])
{
    const uint8_t *reg = v->compat ? narrow_args : wide_args;

    for (unsigned i = 0; i < 6; i++)
        v->regs.gpr[reg[i]] = arg[i];
}

enum outcome { DONE, CONTINUE, FAULT };

/* One entry, with the argument registers as a call of its own would have them. */
static enum outcome call_entry(struct vcpu *v, uint64_t gva)
{
    struct multicall_entry e;
    uint64_t ours[6], args[6];
    long result;
    bool again;

    if (read_entry(v, gva, &e))
        return FAULT;
    for (unsigned i = 0; i < 6; i++)
        args[i] = e.args[i];
    if (e.op == __HYPERVISOR_multicall) /* no lists in lists */
        return write_result(v, gva, -EINVAL) ? FAULT : DONE;
    load_args(v, ours);
    store_args(v, args);
    result = e.op > UINT32_MAX ? -ENOSYS : hypercall_dispatch(v, (unsigned)e.op, args);
    load_args(v, args);
    store_args(v, ours);
    again = v->hypercall_restart;
    v->hypercall_restart = false;
    if (again)
        return write_args(v, gva, args) ? FAULT : CONTINUE;
    return write_result(v, gva, result) ? FAULT : DONE;
}

/* The multicall hypercall: (list, number of entries). */
long do_multicall(struct vcpu *v, const uint64_t arg[6])
{
    uint64_t list = guest_addr(v, arg[0]);
    uint32_t n = (uint32_t)arg[1];

    for (uint32_t i = 0; i < n; i++) {
        uint64_t at = list + i * entry_bytes(v);
        enum outcome o = CONTINUE;

        if (!i || !hypercall_preempt_check())
            o = call_entry(v, at);
        if (o == FAULT)
            return -EFAULT;
        if (o == CONTINUE) {
            hypercall_set_arg(v, 0, at);
            hypercall_set_arg(v, 1, n - i);
            return hypercall_continue(v);
        }
    }
    return 0;
}
