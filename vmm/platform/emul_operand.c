/*
 * Operands: values in memory and registers, and the one place where an instruction reads, changes
 * and writes back its destination, atomically when LOCK says so.
 */
#include "core/string.h"
#include "platform/emul_internal.h"

enum emul_result emul_load(struct emul_ctx *c, unsigned seg, uint64_t offset, unsigned bytes,
                           enum emul_access access, uint64_t *value)
{
    uint64_t linear;
    *value = 0;
    enum emul_result res = emul_linear(c, seg, offset, bytes, access, &linear);
    if (res != EMUL_OK) {
        return res;
    }
    return c->ops->read(c, linear, value, bytes, access);
}

enum emul_result emul_store(struct emul_ctx *c, unsigned seg, uint64_t offset, unsigned bytes,
                            uint64_t value)
{
    uint64_t linear;
    enum emul_result res = emul_linear(c, seg, offset, bytes, EMUL_ACC_WRITE, &linear);
    if (res != EMUL_OK) {
        return res;
    }
    return c->ops->write(c, linear, &value, bytes);
}

enum emul_result emul_replace(struct emul_ctx *c, uint64_t linear, unsigned bytes, bool locked,
                              void *old, const void *new_val, bool *done)
{
    if (locked && c->ops->cmpxchg) {
        return c->ops->cmpxchg(c, linear, old, new_val, bytes, done);
    }
    *done = true;
    return c->ops->write(c, linear, new_val, bytes);
}

enum emul_result emul_modify(struct emul_ctx *c, unsigned bytes, emul_modify_fn *fn, uint64_t src,
                             bool locked, uint64_t *old, bool *done)
{
    const struct emul_insn *in = &c->insn;
    uint64_t linear, seen = 0, flags = 0;
    enum emul_result res;

    *done = true;
    if (!in->mem) {
        *old = reg_get(c, in->rm, bytes);
        flags = c->regs->rflags;
        reg_set(c, in->rm, bytes, fn(c, *old, src, &flags));
        set_flags(c, flags, FL_ARITH);
        return EMUL_OK;
    }
    res = emul_linear(c, in->seg, in->ea, bytes, EMUL_ACC_RMW, &linear);
    if (res == EMUL_OK) {
        res = c->ops->read(c, linear, &seen, bytes, EMUL_ACC_RMW);
    }
    for (unsigned i = 0; res == EMUL_OK && i < EMUL_LOCK_TRIES; i++) {
        flags = c->regs->rflags;
        uint64_t result = fn(c, seen, src, &flags);
        res = emul_replace(c, linear, bytes, locked || in->lock, &seen, &result, done);
        if (res == EMUL_OK && *done) {
            *old = seen;
            set_flags(c, flags, FL_ARITH);
            return EMUL_OK;
        }
    }
    if (res == EMUL_OK) {
        c->next_rip = c->regs->rip;
    }
    return res;
}
