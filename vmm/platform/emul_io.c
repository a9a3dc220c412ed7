/*
 * Single port accesses: IN and OUT with their permission check. INS and OUTS are in emul_string.c.
 */
#include "platform/emul_internal.h"

/* Below IOPL, and always in virtual-8086 mode, the TSS decides. APM 2, 12.2.4; APM 3, IN. */
enum emul_result emul_io_check(struct emul_ctx *c, uint16_t port, unsigned bytes)
{
    if (!(c->cr0 & CR0_PE) || (c->cpl <= iopl(c) && !is_vm86(c))) {
        return EMUL_OK;
    }
    return c->ops->io_permitted ? c->ops->io_permitted(c, port, bytes) : gp_fault(c);
}

/* E4 to E7 have the port as immediate, EC to EF in DX. */
static uint16_t port_of(const struct emul_ctx *c)
{
    return c->insn.opcode & 8 ? c->regs->gpr[R_DX] : c->insn.imm & 0xff;
}

static unsigned port_bytes(const struct emul_ctx *c)
{
    return c->insn.op_bytes == 8 ? 4 : c->insn.op_bytes;
}

enum emul_result emul_op_in(struct emul_ctx *c)
{
    unsigned bytes = port_bytes(c);
    uint32_t value = 0;

    if (!c->ops->io_read) {
        return EMUL_UNHANDLEABLE;
    }
    enum emul_result res = emul_io_check(c, port_of(c), bytes);
    if (res == EMUL_OK) {
        res = c->ops->io_read(c, port_of(c), bytes, &value);
    }
    if (res == EMUL_OK) {
        reg_set(c, R_AX, bytes, value);
    }
    return res;
}

enum emul_result emul_op_out(struct emul_ctx *c)
{
    unsigned bytes = port_bytes(c);

    if (!c->ops->io_write) {
        return EMUL_UNHANDLEABLE;
    }
    enum emul_result res = emul_io_check(c, port_of(c), bytes);
    if (res == EMUL_OK) {
        res = c->ops->io_write(c, port_of(c), bytes, reg_get(c, R_AX, bytes));
    }
    return res;
}
