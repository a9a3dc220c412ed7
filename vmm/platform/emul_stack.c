/*
 * The stack: PUSH and POP in all forms, frames, and the flags image. The stack pointer is a local
 * until everything that can fail is done.
 */
#include "platform/emul_internal.h"

static uint64_t stack_mask(const struct emul_ctx *c)
{
    return mask_of(c->stack_bytes);
}

enum emul_result emul_push(struct emul_ctx *c, uint64_t *sp, unsigned bytes, uint64_t value)
{
    uint64_t top = (*sp - bytes) & stack_mask(c);
    enum emul_result res = emul_store(c, EMUL_SEG_SS, top, bytes, value);
    if (res == EMUL_OK) {
        *sp = top;
    }
    return res;
}

enum emul_result emul_pop(struct emul_ctx *c, uint64_t *sp, unsigned bytes, uint64_t *value)
{
    uint64_t top = *sp & stack_mask(c);
    enum emul_result res = emul_load(c, EMUL_SEG_SS, top, bytes, EMUL_ACC_READ, value);
    if (res == EMUL_OK) {
        *sp = (top + bytes) & stack_mask(c);
    }
    return res;
}

void emul_set_sp(struct emul_ctx *c, uint64_t sp)
{
    reg_set(c, R_SP, c->stack_bytes, sp);
}

static enum emul_result push_one(struct emul_ctx *c, uint64_t value)
{
    uint64_t sp = c->regs->gpr[R_SP];
    enum emul_result res = emul_push(c, &sp, c->insn.op_bytes, value);
    if (res == EMUL_OK) {
        emul_set_sp(c, sp);
    }
    return res;
}

static unsigned opcode_reg(const struct emul_ctx *c)
{
    return (c->insn.opcode & 7) | (c->insn.rex & 1) << 3;
}

enum emul_result emul_op_push_reg(struct emul_ctx *c)
{
    return push_one(c, c->regs->gpr[opcode_reg(c)]);
}

enum emul_result emul_op_push_imm(struct emul_ctx *c)
{
    return push_one(c, c->insn.imm);
}

enum emul_result emul_op_push_sreg(struct emul_ctx *c)
{
    unsigned seg = c->insn.opcode >> 3 & 7; /* 06 0E 16 1E, 0F A0, 0F A8 */
    enum emul_result res = emul_seg_get(c, seg);
    return res == EMUL_OK ? push_one(c, c->seg[seg].sel) : res;
}

enum emul_result emul_op_pop_reg(struct emul_ctx *c)
{
    uint64_t value, sp = c->regs->gpr[R_SP];
    enum emul_result res = emul_pop(c, &sp, c->insn.op_bytes, &value);
    if (res == EMUL_OK) {
        emul_set_sp(c, sp); /* first: POP rSP loads what was read */
        reg_set(c, opcode_reg(c), c->insn.op_bytes, value);
    }
    return res;
}

/* An address based on rSP is computed with rSP after the pop. APM 3, POP. */
enum emul_result emul_op_pop_rm(struct emul_ctx *c)
{
    struct emul_insn *in = &c->insn;
    uint64_t value, sp = c->regs->gpr[R_SP];

    if (in->modrm & 0x38) {
        return EMUL_UNHANDLEABLE; /* XOP on old AMD processors, #UD elsewhere */
    }
    enum emul_result res = emul_pop(c, &sp, in->op_bytes, &value);
    if (res != EMUL_OK) {
        return res;
    }
    if (!in->mem) {
        emul_set_sp(c, sp);
        reg_set(c, in->rm, in->op_bytes, value);
        return EMUL_OK;
    }
    uint64_t ea = in->base == R_SP ? in->ea + in->op_bytes : in->ea;
    res = emul_store(c, in->seg, ea & mask_of(in->addr_bytes), in->op_bytes, value);
    if (res == EMUL_OK) {
        emul_set_sp(c, sp);
    }
    return res;
}

enum emul_result emul_op_pop_sreg(struct emul_ctx *c)
{
    unsigned seg = c->insn.opcode >> 3 & 7;
    uint64_t value, sp = c->regs->gpr[R_SP];
    enum emul_result res = emul_pop(c, &sp, c->insn.op_bytes, &value);
    if (res == EMUL_OK) {
        res = emul_load_sreg(c, seg, value);
    }
    if (res == EMUL_OK) {
        emul_set_sp(c, sp);
    }
    if (res == EMUL_OK && seg == EMUL_SEG_SS) {
        c->interrupt_shadow = EMUL_SHADOW_MOV_SS;
    }
    return res;
}

enum emul_result emul_op_pusha(struct emul_ctx *c)
{
    uint64_t sp = c->regs->gpr[R_SP];
    for (unsigned reg = R_AX; reg <= R_DI; reg++) {
        enum emul_result res = emul_push(c, &sp, c->insn.op_bytes, c->regs->gpr[reg]);
        if (res != EMUL_OK) {
            return res;
        }
    }
    emul_set_sp(c, sp);
    return EMUL_OK;
}

enum emul_result emul_op_popa(struct emul_ctx *c)
{
    uint64_t values[8], sp = c->regs->gpr[R_SP];
    for (int reg = R_DI; reg >= R_AX; reg--) {
        enum emul_result res = emul_pop(c, &sp, c->insn.op_bytes, &values[reg]);
        if (res != EMUL_OK) {
            return res;
        }
    }
    for (unsigned reg = R_AX; reg <= R_DI; reg++) {
        if (reg != R_SP) {
            reg_set(c, reg, c->insn.op_bytes, values[reg]);
        }
    }
    emul_set_sp(c, sp);
    return EMUL_OK;
}

/* Virtual-8086 mode below IOPL 3: #GP, or the virtual interrupt flag, which we leave alone. */
static enum emul_result flags_image_access(struct emul_ctx *c)
{
    if (!is_vm86(c) || iopl(c) == 3) {
        return EMUL_OK;
    }
    return c->cr4 & CR4_VME && c->insn.op_bytes == 2 ? EMUL_UNHANDLEABLE : gp_fault(c);
}

enum emul_result emul_op_pushf(struct emul_ctx *c)
{
    enum emul_result res = flags_image_access(c);
    if (res != EMUL_OK) {
        return res;
    }
    return push_one(c, c->regs->rflags & ~(uint64_t)(FL_VM | FL_RF));
}

/* The flags that POPF and IRET may change at this privilege. APM 3, POPF. */
static uint64_t popf_mask(const struct emul_ctx *c)
{
    uint64_t mask = FL_ARITH | FL_TF | FL_DF | FL_NT | FL_AC | FL_ID;
    if (c->cpl <= iopl(c)) {
        mask |= FL_IF;
    }
    if (c->cpl == 0) {
        mask |= FL_IOPL;
    }
    return c->insn.op_bytes == 2 ? mask & 0xffff : mask;
}

enum emul_result emul_op_popf(struct emul_ctx *c)
{
    uint64_t value, sp = c->regs->gpr[R_SP];
    enum emul_result res = flags_image_access(c);
    if (res == EMUL_OK) {
        res = emul_pop(c, &sp, c->insn.op_bytes, &value);
    }
    if (res == EMUL_OK) {
        emul_set_sp(c, sp);
        set_flags(c, value, popf_mask(c));
    }
    return res;
}

/* APM 3, ENTER: the frame pointers of the outer levels are copied down the new frame. */
enum emul_result emul_op_enter(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    unsigned bytes = in->op_bytes, level = in->imm2 & 31;
    uint64_t sp = c->regs->gpr[R_SP], bp = c->regs->gpr[R_BP], frame, value;

    enum emul_result res = emul_push(c, &sp, bytes, bp);
    frame = sp | (c->regs->gpr[R_SP] & ~stack_mask(c)); /* all of rSP, also on a 16-bit stack */
    for (unsigned i = 1; res == EMUL_OK && i < level; i++) {
        bp = (bp - bytes) & stack_mask(c);
        res = emul_load(c, EMUL_SEG_SS, bp, bytes, EMUL_ACC_READ, &value);
        if (res == EMUL_OK) {
            res = emul_push(c, &sp, bytes, value);
        }
    }
    if (res == EMUL_OK && level) {
        res = emul_push(c, &sp, bytes, frame);
    }
    sp = (sp - in->imm) & stack_mask(c);
    if (res == EMUL_OK) { /* the new top must be writable */
        res = emul_load(c, EMUL_SEG_SS, sp, bytes, EMUL_ACC_RMW, &value);
    }
    if (res != EMUL_OK) {
        return res;
    }
    reg_set(c, R_BP, bytes, frame);
    emul_set_sp(c, sp);
    return EMUL_OK;
}

enum emul_result emul_op_leave(struct emul_ctx *c)
{
    uint64_t value, sp = c->regs->gpr[R_BP];
    enum emul_result res = emul_pop(c, &sp, c->insn.op_bytes, &value);
    if (res == EMUL_OK) {
        emul_set_sp(c, sp);
        reg_set(c, R_BP, c->insn.op_bytes, value);
    }
    return res;
}

/* Real mode, and virtual-8086 mode at IOPL 3. APM 3, IRET. */
enum emul_result emul_op_iret(struct emul_ctx *c)
{
    unsigned bytes = c->insn.op_bytes;
    uint64_t ip, sel, flags, sp = c->regs->gpr[R_SP];

    if (is_protected(c)) {
        return EMUL_UNHANDLEABLE;
    }
    enum emul_result res = flags_image_access(c);
    if (res == EMUL_OK) {
        res = emul_pop(c, &sp, bytes, &ip);
    }
    if (res == EMUL_OK) {
        res = emul_pop(c, &sp, bytes, &sel);
    }
    if (res == EMUL_OK) {
        res = emul_pop(c, &sp, bytes, &flags);
    }
    if (res == EMUL_OK) {
        res = emul_far(c, sel, ip, false);
    }
    if (res == EMUL_OK) {
        emul_set_sp(c, sp);
        set_flags(c, flags, popf_mask(c));
    }
    return res;
}
