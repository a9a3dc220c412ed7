/*
 * Control flow: near branches in every mode, far ones in real and virtual-8086 mode. A branch sets
 * next_rip after its target has been checked; emul_execute() commits it.
 */
#include "platform/emul_internal.h"

/* The conditions of Jcc, SETcc and CMOVcc; odd codes negate. APM 3, appendix A.1. */
bool emul_condition(const struct emul_ctx *c, unsigned cc)
{
    uint64_t f = c->regs->rflags;
    bool less = !(f & FL_SF) != !(f & FL_OF);
    bool hold = false;

    switch (cc >> 1) {
    case 0:
        hold = f & FL_OF;
        break;
    case 1:
        hold = f & FL_CF;
        break;
    case 2:
        hold = f & FL_ZF;
        break;
    case 3:
        hold = f & (FL_CF | FL_ZF);
        break;
    case 4:
        hold = f & FL_SF;
        break;
    case 5:
        hold = f & FL_PF;
        break;
    case 6:
        hold = less;
        break;
    case 7:
        hold = less || (f & FL_ZF);
        break;
    }
    return hold != (cc & 1);
}

/* Cuts target to bytes, checks it against the code segment or for canonical form. */
static enum emul_result check_target(struct emul_ctx *c, uint64_t *target, unsigned bytes)
{
    *target &= mask_of(bytes);
    if (is_long(c)) {
        return emul_canonical(c, *target) ? EMUL_OK : gp_fault(c);
    }
    enum emul_result res = emul_seg_get(c, EMUL_SEG_CS);
    if (res != EMUL_OK) {
        return res;
    }
    return *target <= c->seg[EMUL_SEG_CS].limit ? EMUL_OK : gp_fault(c);
}

enum emul_result emul_jump(struct emul_ctx *c, uint64_t target, unsigned bytes)
{
    enum emul_result res = check_target(c, &target, bytes);
    if (res == EMUL_OK) {
        c->next_rip = target;
    }
    return res;
}

enum emul_result emul_call_near(struct emul_ctx *c, uint64_t target)
{
    uint64_t sp = c->regs->gpr[R_SP];
    unsigned bytes = c->insn.op_bytes;
    enum emul_result res = check_target(c, &target, bytes);
    if (res == EMUL_OK) {
        res = emul_push(c, &sp, bytes, c->next_rip);
    }
    if (res == EMUL_OK) {
        emul_set_sp(c, sp);
        c->next_rip = target;
    }
    return res;
}

enum emul_result emul_op_call(struct emul_ctx *c)
{
    return emul_call_near(c, c->next_rip + c->insn.imm);
}

enum emul_result emul_op_jmp(struct emul_ctx *c)
{
    return emul_jump(c, c->next_rip + c->insn.imm, c->insn.op_bytes);
}

/* 70 to 7F, 0F 80 to 8F. */
enum emul_result emul_op_jcc(struct emul_ctx *c)
{
    return emul_condition(c, c->insn.opcode & 15) ? emul_op_jmp(c) : EMUL_OK;
}

/* E0 LOOPNE, E1 LOOPE, E2 LOOP, E3 JrCXZ; they count in an address-sized rCX. */
enum emul_result emul_op_loop(struct emul_ctx *c)
{
    unsigned bytes = c->insn.addr_bytes, kind = c->insn.opcode & 3;
    uint64_t count = reg_get(c, R_CX, bytes);
    bool zero = c->regs->rflags & FL_ZF, taken;

    if (kind == 3) {
        return count ? EMUL_OK : emul_op_jmp(c);
    }
    count = (count - 1) & mask_of(bytes);
    taken = count && (kind == 2 || zero == (kind == 1));
    enum emul_result res = taken ? emul_op_jmp(c) : EMUL_OK;
    if (res == EMUL_OK) {
        reg_set(c, R_CX, bytes, count);
    }
    return res;
}

enum emul_result emul_op_ret(struct emul_ctx *c)
{
    uint64_t target, sp = c->regs->gpr[R_SP];
    enum emul_result res = emul_pop(c, &sp, c->insn.op_bytes, &target);
    if (res == EMUL_OK) {
        res = emul_jump(c, target, c->insn.op_bytes);
    }
    if (res == EMUL_OK) {
        uint64_t drop = c->insn.attr & A_IMM16 ? c->insn.imm : 0;
        emul_set_sp(c, sp + drop);
    }
    return res;
}

/*
 * A far branch where CS is only shifted: real and virtual-8086 mode. With call, the return address
 * is pushed. Loads CS last, then sets next_rip.
 */
enum emul_result emul_far(struct emul_ctx *c, uint16_t sel, uint64_t target, bool call)
{
    struct emul_segment cs;
    uint64_t sp = c->regs->gpr[R_SP];
    unsigned bytes = c->insn.op_bytes;

    if (is_protected(c)) {
        return EMUL_UNHANDLEABLE;
    }
    enum emul_result res = check_target(c, &target, bytes);
    if (res == EMUL_OK) {
        res = emul_real_segment(c, EMUL_SEG_CS, sel, &cs);
    }
    if (res == EMUL_OK && call) {
        res = emul_push(c, &sp, bytes, c->seg[EMUL_SEG_CS].sel);
        if (res == EMUL_OK) {
            res = emul_push(c, &sp, bytes, c->next_rip);
        }
    }
    if (res == EMUL_OK) {
        res = emul_write_seg(c, EMUL_SEG_CS, &cs);
    }
    if (res == EMUL_OK) {
        if (call) {
            emul_set_sp(c, sp);
        }
        c->next_rip = target;
    }
    return res;
}

/* 9A CALL, EA JMP with the pointer in the instruction. */
enum emul_result emul_op_far_imm(struct emul_ctx *c)
{
    return emul_far(c, c->insn.imm2, c->insn.imm, c->insn.opcode == 0x9a);
}

enum emul_result emul_op_retf(struct emul_ctx *c)
{
    uint64_t ip, sel, sp = c->regs->gpr[R_SP];
    unsigned bytes = c->insn.op_bytes;

    if (is_protected(c)) {
        return EMUL_UNHANDLEABLE;
    }
    enum emul_result res = emul_pop(c, &sp, bytes, &ip);
    if (res == EMUL_OK) {
        res = emul_pop(c, &sp, bytes, &sel);
    }
    if (res == EMUL_OK) {
        res = emul_far(c, sel, ip, false);
    }
    if (res == EMUL_OK) {
        uint64_t drop = c->insn.attr & A_IMM16 ? c->insn.imm : 0;
        emul_set_sp(c, sp + drop);
    }
    return res;
}

/* C4 LES, C5 LDS, 0F B2 LSS, B4 LFS, B5 LGS: offset, then selector. */
enum emul_result emul_op_load_far(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    unsigned seg = in->opcode & 7;
    unsigned bytes = in->op_bytes == 8 && !c->intel ? 4 : in->op_bytes; /* AMD: no 16:64 */
    uint64_t offset, sel;

    if (!in->mem) {
        return emul_fault(c, VEC_UD, 0);
    }
    if (in->map == EMUL_MAP_1BYTE) {
        seg = in->opcode == 0xc4 ? EMUL_SEG_ES : EMUL_SEG_DS;
    }
    enum emul_result res = emul_load(c, in->seg, in->ea, bytes, EMUL_ACC_READ, &offset);
    if (res == EMUL_OK) {
        uint64_t at = (in->ea + bytes) & mask_of(in->addr_bytes);
        res = emul_load(c, in->seg, at, 2, EMUL_ACC_READ, &sel);
    }
    if (res == EMUL_OK) {
        res = emul_load_sreg(c, seg, sel);
    }
    if (res == EMUL_OK) {
        reg_set(c, in->reg, bytes, offset);
    }
    return res;
}
