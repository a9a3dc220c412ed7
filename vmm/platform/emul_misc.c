/*
 * Small instructions on flags and on AL and AX: decimal arithmetic, which 64-bit processors cannot
 * run for us, flag moves, and the interrupt flag with its privilege rules.
 */
#include "platform/emul_internal.h"

/* SF, ZF and PF of a byte result; the rest of flags is kept. */
static uint64_t byte_flags(uint64_t flags, uint8_t value)
{
    uint64_t scratch = 0;
    arith_alu(ALU_OR, 1, value, 0, &scratch);
    return (flags & ~(uint64_t)(FL_SF | FL_ZF | FL_PF)) | (scratch & (FL_SF | FL_ZF | FL_PF));
}

/* DAA and DAS. APM 3, DAA. */
static void adjust_packed(struct emul_ctx *c, bool subtract)
{
    uint64_t flags = c->regs->rflags;
    uint8_t al = c->regs->gpr[R_AX], old = al;
    bool carry = flags & FL_CF, low = (al & 15) > 9 || (flags & FL_AF);
    bool high = old > 0x99 || carry;
    uint8_t by = (low ? 6 : 0) + (high ? 0x60 : 0);

    al = subtract ? al - by : al + by;
    if (low && subtract && old < 6) {
        high = true; /* the borrow of the low digit */
    }
    flags = byte_flags(flags, al) & ~(uint64_t)(FL_CF | FL_AF);
    flags |= (high ? FL_CF : 0) | (low ? FL_AF : 0);
    reg_set(c, R_AX, 2, (c->regs->gpr[R_AX] & 0xff00) | al);
    set_flags(c, flags, FL_ARITH);
}

/* AAA and AAS. */
static void adjust_unpacked(struct emul_ctx *c, bool subtract)
{
    uint64_t flags = c->regs->rflags & ~(uint64_t)(FL_CF | FL_AF);
    uint16_t ax = c->regs->gpr[R_AX];

    if ((ax & 15) > 9 || (c->regs->rflags & FL_AF)) {
        ax = subtract ? ax - 0x106 : ax + 0x106;
        flags |= FL_CF | FL_AF;
    }
    ax &= 0xff0f;
    reg_set(c, R_AX, 2, ax);
    set_flags(c, byte_flags(flags, ax), FL_ARITH);
}

/* 27 DAA, 2F DAS, 37 AAA, 3F AAS. */
enum emul_result emul_op_bcd(struct emul_ctx *c)
{
    bool subtract = c->insn.opcode & 8;
    if (c->insn.opcode & 0x10) {
        adjust_unpacked(c, subtract);
    } else {
        adjust_packed(c, subtract);
    }
    return EMUL_OK;
}

enum emul_result emul_op_aam(struct emul_ctx *c)
{
    uint8_t al = c->regs->gpr[R_AX], base = c->insn.imm;
    if (base == 0) {
        return emul_fault(c, VEC_DE, 0);
    }
    reg_set(c, R_AX, 2, (al / base) << 8 | al % base);
    set_flags(c, byte_flags(0, al % base), FL_ARITH);
    return EMUL_OK;
}

enum emul_result emul_op_aad(struct emul_ctx *c)
{
    uint16_t ax = c->regs->gpr[R_AX];
    uint8_t al = ax + (ax >> 8) * (uint8_t)c->insn.imm;
    reg_set(c, R_AX, 2, al);
    set_flags(c, byte_flags(0, al), FL_ARITH);
    return EMUL_OK;
}

enum emul_result emul_op_lahf(struct emul_ctx *c)
{
    uint64_t ah = (c->regs->rflags & 0xd5) | FL_FIXED;
    c->regs->gpr[R_AX] = (c->regs->gpr[R_AX] & ~0xff00ull) | ah << 8;
    return EMUL_OK;
}

enum emul_result emul_op_sahf(struct emul_ctx *c)
{
    set_flags(c, c->regs->gpr[R_AX] >> 8, 0xd5);
    return EMUL_OK;
}

/* F5 CMC, F8 CLC, F9 STC, FC CLD, FD STD. */
enum emul_result emul_op_flag(struct emul_ctx *c)
{
    unsigned opcode = c->insn.opcode;
    if (opcode == 0xf5) {
        c->regs->rflags ^= FL_CF;
    } else {
        unsigned flag = opcode & 4 ? FL_DF : FL_CF;
        set_flags(c, opcode & 1 ? flag : 0, flag);
    }
    return EMUL_OK;
}

/* Whether CLI and STI may touch IF. With the virtual interrupt flag we do not say. APM 3, CLI. */
static enum emul_result interrupt_flag_access(struct emul_ctx *c)
{
    if (c->cpl <= iopl(c)) {
        return EMUL_OK;
    }
    if (c->cr4 & (is_vm86(c) ? CR4_VME : CR4_PVI)) {
        return EMUL_UNHANDLEABLE;
    }
    return gp_fault(c);
}

enum emul_result emul_op_cli(struct emul_ctx *c)
{
    enum emul_result res = interrupt_flag_access(c);
    if (res == EMUL_OK) {
        set_flags(c, 0, FL_IF);
    }
    return res;
}

enum emul_result emul_op_sti(struct emul_ctx *c)
{
    enum emul_result res = interrupt_flag_access(c);
    if (res == EMUL_OK) {
        if (!(c->regs->rflags & FL_IF)) {
            c->interrupt_shadow = EMUL_SHADOW_STI;
        }
        set_flags(c, FL_IF, FL_IF);
    }
    return res;
}
