/*
 * Integer instructions: operands are fetched here, results and flags come from emul_arith.c.
 */
#include "platform/emul_internal.h"

static uint64_t modify_alu(struct emul_ctx *c, uint64_t old, uint64_t src, uint64_t *flags)
{
    const struct emul_insn *in = &c->insn;
    unsigned op = A_HANDLER(in->attr) == H_alu ? in->opcode >> 3 : in->modrm >> 3 & 7;
    return arith_alu(op, in->op_bytes, old, src, flags);
}

/* Destination r/m, source src: all but CMP write back. */
static enum emul_result alu_rm(struct emul_ctx *c, unsigned op, uint64_t src)
{
    uint64_t value;
    bool done;

    if (op != ALU_CMP) {
        return emul_modify(c, c->insn.op_bytes, modify_alu, src, false, &value, &done);
    }
    enum emul_result res = emul_rm_get(c, c->insn.op_bytes, &value);
    if (res == EMUL_OK) {
        arith_alu(op, c->insn.op_bytes, value, src, &c->regs->rflags);
    }
    return res;
}

static void alu_reg(struct emul_ctx *c, unsigned op, unsigned reg, uint64_t src)
{
    unsigned bytes = c->insn.op_bytes;
    uint64_t value = arith_alu(op, bytes, reg_get(c, reg, bytes), src, &c->regs->rflags);
    if (op != ALU_CMP) {
        reg_set(c, reg, bytes, value);
    }
}

/* 00 to 3D: bits 5-3 the operation, bits 2-0 the operands. */
enum emul_result emul_op_alu(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    unsigned op = in->opcode >> 3;
    uint64_t src;

    if (in->opcode & 4) {
        alu_reg(c, op, R_AX, in->imm);
        return EMUL_OK;
    }
    if (!(in->opcode & 2)) {
        return alu_rm(c, op, reg_get(c, in->reg, in->op_bytes));
    }
    enum emul_result res = emul_rm_get(c, in->op_bytes, &src);
    if (res == EMUL_OK) {
        alu_reg(c, op, in->reg, src);
    }
    return res;
}

enum emul_result emul_op_alu_imm(struct emul_ctx *c)
{
    return alu_rm(c, c->insn.modrm >> 3 & 7, c->insn.imm);
}

static enum emul_result test_rm(struct emul_ctx *c, uint64_t src)
{
    uint64_t value;
    enum emul_result res = emul_rm_get(c, c->insn.op_bytes, &value);
    if (res == EMUL_OK) {
        arith_alu(ALU_AND, c->insn.op_bytes, value, src, &c->regs->rflags);
    }
    return res;
}

enum emul_result emul_op_test(struct emul_ctx *c)
{
    return test_rm(c, reg_get(c, c->insn.reg, c->insn.op_bytes));
}

enum emul_result emul_op_test_imm(struct emul_ctx *c)
{
    unsigned bytes = c->insn.op_bytes;
    arith_alu(ALU_AND, bytes, reg_get(c, R_AX, bytes), c->insn.imm, &c->regs->rflags);
    return EMUL_OK;
}

/* src is the enum unary_op. */
static uint64_t modify_unary(struct emul_ctx *c, uint64_t old, uint64_t src, uint64_t *flags)
{
    return arith_unary(src, c->insn.op_bytes, old, flags);
}

static uint64_t modify_not(struct emul_ctx *c, uint64_t old, uint64_t src, uint64_t *flags)
{
    (void)c, (void)src, (void)flags;
    return ~old;
}

/* 40 to 4F outside 64-bit mode. */
enum emul_result emul_op_incdec_reg(struct emul_ctx *c)
{
    unsigned reg = c->insn.opcode & 7, bytes = c->insn.op_bytes;
    unsigned op = c->insn.opcode & 8 ? UN_DEC : UN_INC;
    reg_set(c, reg, bytes, arith_unary(op, bytes, reg_get(c, reg, bytes), &c->regs->rflags));
    return EMUL_OK;
}

static enum emul_result multiply(struct emul_ctx *c, bool is_signed, uint64_t src)
{
    uint64_t *gpr = c->regs->gpr;
    arith_mul(is_signed, c->insn.op_bytes, &gpr[R_AX], &gpr[R_DX], src, &c->regs->rflags);
    return EMUL_OK;
}

static enum emul_result divide(struct emul_ctx *c, bool is_signed, uint64_t src)
{
    unsigned bytes = c->insn.op_bytes;
    uint64_t ax = c->regs->gpr[R_AX];
    uint64_t lo = ax & mask_of(bytes);
    uint64_t hi = bytes == 1 ? ax >> 8 & 0xff : reg_get(c, R_DX, bytes);

    if (!arith_div(is_signed, bytes, &lo, &hi, src)) {
        return emul_fault(c, VEC_DE, 0);
    }
    if (bytes == 1) {
        reg_set(c, R_AX, 2, hi << 8 | lo);
    } else {
        reg_set(c, R_AX, bytes, lo);
        reg_set(c, R_DX, bytes, hi);
    }
    return EMUL_OK;
}

/* F6 and F7. */
enum emul_result emul_op_group3(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    unsigned bytes = in->op_bytes, ext = in->modrm >> 3 & 7;
    uint64_t value;
    bool done;

    switch (ext) {
    case 0:
    case 1:
        return test_rm(c, in->imm);
    case 2:
        return emul_modify(c, bytes, modify_not, 0, false, &value, &done);
    case 3:
        return emul_modify(c, bytes, modify_unary, UN_NEG, false, &value, &done);
    }
    enum emul_result res = emul_rm_get(c, bytes, &value);
    if (res != EMUL_OK) {
        return res;
    }
    return ext < 6 ? multiply(c, ext & 1, value) : divide(c, ext & 1, value);
}

/* FE and FF. Far CALL and JMP take a pointer from memory. */
enum emul_result emul_op_group45(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    unsigned bytes = in->op_bytes, ext = in->modrm >> 3 & 7;
    uint64_t value, sel;
    bool done;

    if (ext < 2) {
        return emul_modify(c, bytes, modify_unary, ext ? UN_DEC : UN_INC, false, &value, &done);
    }
    if (in->opcode == 0xfe || ext == 7 || (!in->mem && (ext == 3 || ext == 5))) {
        return emul_fault(c, VEC_UD, 0);
    }
    if ((ext == 3 || ext == 5) && is_protected(c)) {
        return EMUL_UNHANDLEABLE;
    }
    enum emul_result res = emul_rm_get(c, bytes, &value);
    if (res != EMUL_OK) {
        return res;
    }
    switch (ext) {
    case 2:
        return emul_call_near(c, value);
    case 4:
        return emul_jump(c, value, bytes);
    case 6: {
        uint64_t sp = c->regs->gpr[R_SP];
        res = emul_push(c, &sp, bytes, value);
        if (res == EMUL_OK) {
            emul_set_sp(c, sp);
        }
        return res;
    }
    }
    res = emul_load(c, in->seg, (in->ea + bytes) & mask_of(in->addr_bytes), 2, EMUL_ACC_READ, &sel);
    return res == EMUL_OK ? emul_far(c, sel, value, ext == 3) : res;
}

/* src is the count. */
static uint64_t modify_shift(struct emul_ctx *c, uint64_t old, uint64_t src, uint64_t *flags)
{
    return arith_shift(c->insn.modrm >> 3 & 7, c->insn.op_bytes, old, src, flags);
}

/* C0, C1: by an immediate; D0, D1: by 1; D2, D3: by CL. */
enum emul_result emul_op_shift(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    uint64_t old, count = in->imm & 0xff;
    bool done;

    if (in->opcode & 0x10) {
        count = in->opcode & 2 ? c->regs->gpr[R_CX] & 0xff : 1;
    }
    count &= in->op_bytes == 8 ? 63 : 31;
    return emul_modify(c, in->op_bytes, modify_shift, count, false, &old, &done);
}

static uint64_t modify_shiftd(struct emul_ctx *c, uint64_t old, uint64_t src, uint64_t *flags)
{
    const struct emul_insn *in = &c->insn;
    uint64_t fill = reg_get(c, in->reg, in->op_bytes);
    return arith_shiftd(in->opcode & 8, in->op_bytes, old, fill, src, flags);
}

/* SHLD, SHRD: even opcodes take an immediate, odd ones CL. */
enum emul_result emul_op_shiftd(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    uint64_t old, count = in->opcode & 1 ? c->regs->gpr[R_CX] : in->imm;
    bool done;

    count &= in->op_bytes == 8 ? 63 : 31;
    return emul_modify(c, in->op_bytes, modify_shiftd, count, false, &old, &done);
}

static enum emul_result imul(struct emul_ctx *c, bool immediate)
{
    const struct emul_insn *in = &c->insn;
    uint64_t src, by = immediate ? in->imm : reg_get(c, in->reg, in->op_bytes);
    enum emul_result res = emul_rm_get(c, in->op_bytes, &src);
    if (res == EMUL_OK) {
        reg_set(c, in->reg, in->op_bytes, arith_imul2(in->op_bytes, by, src, &c->regs->rflags));
    }
    return res;
}

enum emul_result emul_op_imul2(struct emul_ctx *c)
{
    return imul(c, false);
}

enum emul_result emul_op_imul3(struct emul_ctx *c)
{
    return imul(c, true);
}

/* src: the bit, with the operation above it. */
static uint64_t modify_bt(struct emul_ctx *c, uint64_t old, uint64_t src, uint64_t *flags)
{
    return arith_bt(src >> 8, c->insn.op_bytes, old, src & 0xff, flags);
}

/* A register bit offset reaches beyond the operand, in both directions. APM 3, BT. */
enum emul_result emul_op_bt(struct emul_ctx *c)
{
    struct emul_insn *in = &c->insn;
    unsigned bytes = in->op_bytes, bits = 8 * bytes;
    unsigned op = in->opcode >> 3 & 3;
    uint64_t old, bit = in->imm;
    bool done;

    if (in->opcode == 0xba) {
        if (!(in->modrm & 0x20)) {
            return emul_fault(c, VEC_UD, 0);
        }
        op = in->modrm >> 3 & 3;
    } else {
        bit = sign_extend(reg_get(c, in->reg, bytes), bytes);
        if (in->mem) {
            int64_t words = (int64_t)bit >> (bytes == 8 ? 6 : bytes == 4 ? 5 : 4);
            in->ea = (in->ea + (uint64_t)words * bytes) & mask_of(in->addr_bytes);
        }
    }
    bit &= bits - 1;
    if (op != BIT_TEST) {
        return emul_modify(c, bytes, modify_bt, op << 8 | bit, false, &old, &done);
    }
    enum emul_result res = emul_rm_get(c, bytes, &old);
    if (res == EMUL_OK) {
        arith_bt(op, bytes, old, bit, &c->regs->rflags);
    }
    return res;
}

/* B8 POPCNT (F3 only), BC BSF or TZCNT, BD BSR or LZCNT. */
enum emul_result emul_op_bitscan(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    unsigned op = in->opcode == 0xbc ? SCAN_BSF : SCAN_BSR;
    uint64_t src, *dst = &c->regs->gpr[in->reg];

    if (in->opcode == 0xb8 && in->rep != 0xf3) {
        return emul_fault(c, VEC_UD, 0);
    }
    if (in->rep == 0xf3) {
        op = in->opcode == 0xb8 ? SCAN_POPCNT : op + SCAN_TZCNT - SCAN_BSF;
    }
    enum emul_result res = emul_rm_get(c, in->op_bytes, &src);
    if (res == EMUL_OK) {
        *dst = arith_scan(op, in->op_bytes, *dst, src, &c->regs->rflags);
    }
    return res;
}

static uint64_t modify_add(struct emul_ctx *c, uint64_t old, uint64_t src, uint64_t *flags)
{
    return arith_alu(ALU_ADD, c->insn.op_bytes, old, src, flags);
}

/* With both operands the same register, the sum wins. */
enum emul_result emul_op_xadd(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    unsigned bytes = in->op_bytes;
    uint64_t old, src = reg_get(c, in->reg, bytes);
    bool done;

    if (!in->mem) {
        uint64_t dst = reg_get(c, in->rm, bytes);
        reg_set(c, in->reg, bytes, dst);
        reg_set(c, in->rm, bytes, arith_alu(ALU_ADD, bytes, dst, src, &c->regs->rflags));
        return EMUL_OK;
    }
    enum emul_result res = emul_modify(c, bytes, modify_add, src, false, &old, &done);
    if (res == EMUL_OK && done) {
        reg_set(c, in->reg, bytes, old);
    }
    return res;
}

/* Memory is always written, with its old value if the comparison fails. */
static uint64_t modify_cmpxchg(struct emul_ctx *c, uint64_t old, uint64_t src, uint64_t *flags)
{
    unsigned bytes = c->insn.op_bytes;
    uint64_t expected = reg_get(c, R_AX, bytes);
    arith_alu(ALU_CMP, bytes, expected, old, flags);
    return expected == old ? src : old;
}

enum emul_result emul_op_cmpxchg(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    unsigned bytes = in->op_bytes;
    uint64_t old, src = reg_get(c, in->reg, bytes);
    bool done;

    if (!in->mem) {
        old = reg_get(c, in->rm, bytes);
        arith_alu(ALU_CMP, bytes, reg_get(c, R_AX, bytes), old, &c->regs->rflags);
        bool equal = c->regs->rflags & FL_ZF;
        reg_set(c, equal ? in->rm : R_AX, bytes, equal ? src : old);
        return EMUL_OK;
    }
    enum emul_result res = emul_modify(c, bytes, modify_cmpxchg, src, false, &old, &done);
    if (res == EMUL_OK && done && !(c->regs->rflags & FL_ZF)) {
        reg_set(c, R_AX, bytes, old);
    }
    return res;
}

/* CMPXCHG8B and CMPXCHG16B; half is 4 or 8 bytes. */
static enum emul_result cmpxchg_pair(struct emul_ctx *c, unsigned half)
{
    const struct emul_insn *in = &c->insn;
    uint64_t seen[2] = {0}, want[2], result[2], linear;
    uint64_t ax = reg_get(c, R_AX, half), dx = reg_get(c, R_DX, half);
    uint64_t bx = reg_get(c, R_BX, half), cx = reg_get(c, R_CX, half);
    unsigned bytes = 2 * half;
    bool equal = false, done = false;

    want[0] = half == 8 ? ax : dx << 32 | ax;
    want[1] = half == 8 ? dx : 0;
    enum emul_result res = emul_linear(c, in->seg, in->ea, bytes, EMUL_ACC_RMW, &linear);
    if (res == EMUL_OK && half == 8 && (linear & 15)) {
        return gp_fault(c);
    }
    if (res == EMUL_OK) {
        res = c->ops->read(c, linear, seen, bytes, EMUL_ACC_RMW);
    }
    for (unsigned i = 0; res == EMUL_OK && !done; i++) {
        if (i == EMUL_LOCK_TRIES) {
            c->next_rip = c->regs->rip;
            return EMUL_OK;
        }
        equal = seen[0] == want[0] && seen[1] == want[1];
        result[0] = !equal ? seen[0] : half == 8 ? bx : cx << 32 | bx;
        result[1] = !equal ? seen[1] : half == 8 ? cx : 0;
        res = emul_replace(c, linear, bytes, in->lock, seen, result, &done);
    }
    if (res != EMUL_OK) {
        return res;
    }
    set_flags(c, equal ? FL_ZF : 0, FL_ZF);
    if (!equal) {
        reg_set(c, R_AX, half, seen[0]);
        reg_set(c, R_DX, half, half == 8 ? seen[1] : seen[0] >> 32);
    }
    return EMUL_OK;
}

/* 0F C7: only /1 with memory; the rest (RDRAND, VMPTRLD, XSAVES...) is not for us. */
enum emul_result emul_op_group9(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    if ((in->modrm >> 3 & 7) != 1) {
        return EMUL_UNHANDLEABLE;
    }
    if (!in->mem) {
        return emul_fault(c, VEC_UD, 0);
    }
    return cmpxchg_pair(c, in->op_bytes == 8 ? 8 : 4);
}
