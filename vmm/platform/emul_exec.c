/*
 * Execution: the dispatch from decoded instruction to handler, the commit of RIP and RFLAGS, and
 * the handlers that move data.
 */
#include "platform/emul_internal.h"

typedef enum emul_result emul_handler_fn(struct emul_ctx *c);

#define X(name) emul_op_##name,
static emul_handler_fn *const handlers[H_COUNT] = {EMUL_HANDLERS(X)};
#undef X

enum emul_result emul_execute(struct emul_ctx *c)
{
    struct emul_regs *regs = c->regs;
    enum emul_result res;

    if (c->insn.len == 0) {
        int len = emul_decode(c);
        if (len < 0) {
            return (enum emul_result) - len;
        }
    }
    c->interrupt_shadow = EMUL_SHADOW_NONE;
    c->single_step = c->one_item | ((regs->rflags & FL_TF) != 0);
    c->next_rip = regs->rip + c->insn.len;
    if (!is_long(c)) {
        c->next_rip &= 0xffffffff;
    }
    if (A_HANDLER(c->insn.attr) == H_mov) {
        res = emul_op_mov(c);
    } else {
        res = handlers[A_HANDLER(c->insn.attr)](c);
    }
    if (res == EMUL_OK) {
        regs->rip = c->next_rip;
        regs->rflags &= ~(uint64_t)FL_RF;
    }
    return res;
}

enum emul_result emul_op_none(struct emul_ctx *c)
{
    (void)c;
    return EMUL_UNHANDLEABLE;
}

enum emul_result emul_op_ud(struct emul_ctx *c)
{
    return emul_fault(c, VEC_UD, 0);
}

enum emul_result emul_op_nop(struct emul_ctx *c)
{
    (void)c;
    return EMUL_OK;
}

/* 0F 0D: a hint too, but only with memory. */
enum emul_result emul_op_prefetch(struct emul_ctx *c)
{
    return c->insn.mem ? EMUL_OK : emul_fault(c, VEC_UD, 0);
}

/* 88 to 8B: bit 1 of the opcode is the direction. */
enum emul_result emul_op_mov(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    unsigned bytes = in->op_bytes;
    uint64_t value;

    if (!(in->opcode & 2)) {
        return emul_rm_set(c, bytes, reg_get(c, in->reg, bytes));
    }
    enum emul_result res = emul_rm_get(c, bytes, &value);
    if (res == EMUL_OK) {
        reg_set(c, in->reg, bytes, value);
    }
    return res;
}

enum emul_result emul_op_mov_imm(struct emul_ctx *c)
{
    if (c->insn.modrm & 0x38) {
        return emul_fault(c, VEC_UD, 0);
    }
    return emul_rm_set(c, c->insn.op_bytes, c->insn.imm);
}

static unsigned opcode_reg(const struct emul_ctx *c)
{
    return (c->insn.opcode & 7) | (c->insn.rex & 1) << 3;
}

enum emul_result emul_op_mov_reg_imm(struct emul_ctx *c)
{
    reg_set(c, opcode_reg(c), c->insn.op_bytes, c->insn.imm);
    return EMUL_OK;
}

enum emul_result emul_op_mov_moffs(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    uint64_t value;

    if (in->opcode & 2) {
        return emul_store(c, in->seg, in->ea, in->op_bytes, reg_get(c, R_AX, in->op_bytes));
    }
    enum emul_result res = emul_load(c, in->seg, in->ea, in->op_bytes, EMUL_ACC_READ, &value);
    if (res == EMUL_OK) {
        reg_set(c, R_AX, in->op_bytes, value);
    }
    return res;
}

/* Loads an r/m operand of from bytes and extends it into the register. */
static enum emul_result extend(struct emul_ctx *c, unsigned from, bool is_signed)
{
    uint64_t value;
    enum emul_result res = emul_rm_get(c, from, &value);
    if (res == EMUL_OK) {
        reg_set(c, c->insn.reg, c->insn.op_bytes, is_signed ? sign_extend(value, from) : value);
    }
    return res;
}

enum emul_result emul_op_movzx(struct emul_ctx *c)
{
    return extend(c, c->insn.opcode & 1 ? 2 : 1, false);
}

enum emul_result emul_op_movsx(struct emul_ctx *c)
{
    return extend(c, c->insn.opcode & 1 ? 2 : 1, true);
}

enum emul_result emul_op_movsxd(struct emul_ctx *c)
{
    return extend(c, c->insn.op_bytes == 2 ? 2 : 4, true);
}

enum emul_result emul_op_movnti(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    if (!in->mem || in->opsize || in->rep) {
        return emul_fault(c, VEC_UD, 0);
    }
    unsigned bytes = in->rex & 8 ? 8 : 4;
    return emul_rm_set(c, bytes, reg_get(c, in->reg, bytes));
}

static uint64_t swap_bytes(uint64_t value, unsigned bytes)
{
    return __builtin_bswap64(value) >> (64 - 8 * bytes);
}

enum emul_result emul_op_movbe(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    uint64_t value;

    if (in->rep == 0xf2) {
        return EMUL_UNHANDLEABLE; /* CRC32 */
    }
    if (!in->mem || in->rep) {
        return emul_fault(c, VEC_UD, 0);
    }
    if (in->opcode & 1) {
        value = swap_bytes(reg_get(c, in->reg, in->op_bytes), in->op_bytes);
        return emul_rm_set(c, in->op_bytes, value);
    }
    enum emul_result res = emul_rm_get(c, in->op_bytes, &value);
    if (res == EMUL_OK) {
        reg_set(c, in->reg, in->op_bytes, swap_bytes(value, in->op_bytes));
    }
    return res;
}

/* A 16-bit BSWAP is undefined; processors give 0. */
enum emul_result emul_op_bswap(struct emul_ctx *c)
{
    unsigned reg = opcode_reg(c), bytes = c->insn.op_bytes;
    uint64_t value = bytes == 2 ? 0 : swap_bytes(reg_get(c, reg, bytes), bytes);
    reg_set(c, reg, bytes, value);
    return EMUL_OK;
}

enum emul_result emul_op_mov_from_sreg(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    unsigned seg = in->reg & 7;
    if (seg >= EMUL_SEG_COUNT) {
        return emul_fault(c, VEC_UD, 0);
    }
    enum emul_result res = emul_seg_get(c, seg);
    if (res != EMUL_OK) {
        return res;
    }
    return emul_rm_set(c, in->mem ? 2 : in->op_bytes, c->seg[seg].sel);
}

enum emul_result emul_op_mov_to_sreg(struct emul_ctx *c)
{
    unsigned seg = c->insn.reg & 7;
    uint64_t sel;

    if (seg >= EMUL_SEG_COUNT || seg == EMUL_SEG_CS) {
        return emul_fault(c, VEC_UD, 0);
    }
    enum emul_result res = emul_rm_get(c, 2, &sel);
    if (res == EMUL_OK) {
        res = emul_load_sreg(c, seg, sel);
    }
    if (res == EMUL_OK && seg == EMUL_SEG_SS) {
        c->interrupt_shadow = EMUL_SHADOW_MOV_SS;
    }
    return res;
}

enum emul_result emul_op_lea(struct emul_ctx *c)
{
    if (!c->insn.mem) {
        return emul_fault(c, VEC_UD, 0);
    }
    reg_set(c, c->insn.reg, c->insn.op_bytes, c->insn.ea);
    return EMUL_OK;
}

static uint64_t modify_xchg(struct emul_ctx *c, uint64_t old, uint64_t src, uint64_t *flags)
{
    (void)c, (void)old, (void)flags;
    return src;
}

/* Locked with memory, prefix or not. */
enum emul_result emul_op_xchg(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    uint64_t old, src = reg_get(c, in->reg, in->op_bytes);
    bool done;
    enum emul_result res = emul_modify(c, in->op_bytes, modify_xchg, src, true, &old, &done);
    if (res == EMUL_OK && done) {
        reg_set(c, in->reg, in->op_bytes, old);
    }
    return res;
}

/* 90 to 97; plain 90 is NOP (and PAUSE), it does not clear the upper half of RAX. */
enum emul_result emul_op_xchg_ax(struct emul_ctx *c)
{
    unsigned reg = opcode_reg(c), bytes = c->insn.op_bytes;
    uint64_t ax = reg_get(c, R_AX, bytes);
    if (reg != R_AX) {
        reg_set(c, R_AX, bytes, reg_get(c, reg, bytes));
        reg_set(c, reg, bytes, ax);
    }
    return EMUL_OK;
}

enum emul_result emul_op_xlat(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    uint64_t value, offset = c->regs->gpr[R_BX] + reg_get(c, R_AX, 1);

    offset &= mask_of(in->addr_bytes);
    enum emul_result res = emul_load(c, in->seg, offset, 1, EMUL_ACC_READ, &value);
    if (res == EMUL_OK) {
        reg_set(c, R_AX, 1, value);
    }
    return res;
}

enum emul_result emul_op_setcc(struct emul_ctx *c)
{
    return emul_rm_set(c, 1, emul_condition(c, c->insn.opcode & 15));
}

/* Memory is read, and a 4-byte destination is zero-extended, whether or not the condition holds. */
enum emul_result emul_op_cmov(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    uint64_t value;
    enum emul_result res = emul_rm_get(c, in->op_bytes, &value);
    if (res != EMUL_OK) {
        return res;
    }
    if (!emul_condition(c, in->opcode & 15)) {
        value = reg_get(c, in->reg, in->op_bytes);
    }
    reg_set(c, in->reg, in->op_bytes, value);
    return EMUL_OK;
}

/* CBW, CWDE, CDQE. */
enum emul_result emul_op_cbw(struct emul_ctx *c)
{
    unsigned bytes = c->insn.op_bytes;
    reg_set(c, R_AX, bytes, sign_extend(reg_get(c, R_AX, bytes), bytes / 2));
    return EMUL_OK;
}

/* CWD, CDQ, CQO. */
enum emul_result emul_op_cwd(struct emul_ctx *c)
{
    unsigned bytes = c->insn.op_bytes;
    uint64_t ax = sign_extend(reg_get(c, R_AX, bytes), bytes);
    reg_set(c, R_DX, bytes, (int64_t)ax < 0 ? ~0ull : 0);
    return EMUL_OK;
}
