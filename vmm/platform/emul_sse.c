/*
 * Vector moves between memory and registers, as drivers use them on frame buffers and FIFOs: SSE
 * and SSE2, their plain VEX forms, and MMX. The bytes go through buffers: the hypervisor itself
 * never touches a vector register. APM 4.
 */
#include "core/string.h"
#include "platform/emul_internal.h"

/* Which prefix chose the instruction: F2 and F3 win over 66. */
enum { PP_NONE, PP_66, PP_F3, PP_F2 };

static unsigned prefix_of(const struct emul_insn *in)
{
    if (in->rep) {
        return in->rep == 0xf3 ? PP_F3 : PP_F2;
    }
    return in->opsize ? PP_66 : PP_NONE;
}

/* #UD and #NM by the control registers. APM 4, 1.16 (table of exceptions); APM 2, 3.1.1. */
static enum emul_result vector_enabled(struct emul_ctx *c, bool mmx)
{
    const struct emul_insn *in = &c->insn;
    bool enabled = !(c->cr0 & CR0_EM);

    if (in->vex) {
        enabled = is_protected(c) && (c->cr4 & CR4_OSXSAVE);
    } else if (!mmx) {
        enabled = enabled && (c->cr4 & CR4_OSFXSR);
    }
    if (!enabled) {
        return emul_fault(c, VEC_UD, 0);
    }
    if (c->cr0 & CR0_TS) {
        return emul_fault(c, VEC_NM, 0);
    }
    if (mmx) {
        return c->ops->read_mm && c->ops->write_mm ? EMUL_OK : EMUL_UNHANDLEABLE;
    }
    return c->ops->read_vec && c->ops->write_vec ? EMUL_OK : EMUL_UNHANDLEABLE;
}

/* Aligned forms fault with #GP(0), also in SS. APM 4, MOVAPS. */
static enum emul_result vector_linear(struct emul_ctx *c, unsigned bytes, bool aligned,
                                      enum emul_access access, uint64_t *linear)
{
    const struct emul_insn *in = &c->insn;
    enum emul_result res = emul_linear(c, in->seg, in->ea, bytes, access, linear);
    if (res == EMUL_EXCEPTION) {
        *linear = in->ea; /* misalignment comes before a bad stack address */
    }
    if (res != EMUL_OK && res != EMUL_EXCEPTION) {
        return res;
    }
    return aligned && (*linear & (bytes - 1)) ? gp_fault(c) : res;
}

/* SSE keeps what is above the XMM register, VEX clears it. */
static enum emul_result vector_write(struct emul_ctx *c, unsigned reg, const void *buf)
{
    return c->ops->write_vec(c, reg, buf, c->insn.vex ? 32 : 16);
}

/* The register of the VEX prefix, which has 8 of them outside 64-bit mode. */
static unsigned vvvv_reg(const struct emul_ctx *c)
{
    return c->insn.vvvv & (is_long(c) ? 15 : 7);
}

/* The r/m operand's bytes into a zeroed buffer. */
static enum emul_result vector_rm_get(struct emul_ctx *c, uint8_t buf[32], unsigned bytes,
                                      bool aligned)
{
    const struct emul_insn *in = &c->insn;
    uint64_t linear;

    memset(buf, 0, 32);
    if (!in->mem) {
        enum emul_result res = c->ops->read_vec(c, in->rm, buf, bytes > 16 ? 32 : 16);
        if (res == EMUL_OK) {
            memset(buf + bytes, 0, 32 - bytes);
        }
        return res;
    }
    enum emul_result res = vector_linear(c, bytes, aligned, EMUL_ACC_READ, &linear);
    return res == EMUL_OK ? c->ops->read(c, linear, buf, bytes, EMUL_ACC_READ) : res;
}

static enum emul_result vector_store(struct emul_ctx *c, const uint8_t *buf, unsigned bytes,
                                     bool aligned)
{
    uint64_t linear;
    enum emul_result res = vector_linear(c, bytes, aligned, EMUL_ACC_WRITE, &linear);
    return res == EMUL_OK ? c->ops->write(c, linear, buf, bytes) : res;
}

/* MOVSS and MOVSD between registers keep the rest of the destination (VEX: of vvvv). */
static enum emul_result merge_scalar(struct emul_ctx *c, unsigned dst, unsigned src, unsigned bytes)
{
    const struct emul_insn *in = &c->insn;
    uint8_t from[32] = {0}, buf[32] = {0};
    enum emul_result res = c->ops->read_vec(c, src, from, 16);
    if (res == EMUL_OK) {
        res = c->ops->read_vec(c, in->vex ? vvvv_reg(c) : dst, buf, 16);
    }
    if (res != EMUL_OK) {
        return res;
    }
    memcpy(buf, from, bytes);
    return vector_write(c, dst, buf);
}

/* How an opcode moves; bytes 0: the whole vector. */
struct sse_move {
    uint8_t opcode, pp;
    uint8_t bytes;
    bool store, aligned, mem_only, mmx;
};

/* The 0F map, but for 0F 38 2A, whose opcode is free in this table. APM 4. */
static const struct sse_move moves[] = {
    {0x10, PP_NONE, 0, false, false, false, false}, /* MOVUPS */
    {0x10, PP_66, 0, false, false, false, false},   /* MOVUPD */
    {0x10, PP_F3, 4, false, false, false, false},   /* MOVSS */
    {0x10, PP_F2, 8, false, false, false, false},   /* MOVSD */
    {0x11, PP_NONE, 0, true, false, false, false},
    {0x11, PP_66, 0, true, false, false, false},
    {0x11, PP_F3, 4, true, false, false, false},
    {0x11, PP_F2, 8, true, false, false, false},
    {0x28, PP_NONE, 0, false, true, false, false}, /* MOVAPS */
    {0x28, PP_66, 0, false, true, false, false},   /* MOVAPD */
    {0x29, PP_NONE, 0, true, true, false, false},
    {0x29, PP_66, 0, true, true, false, false},
    {0x2a, PP_66, 0, false, true, true, false},    /* MOVNTDQA, 0F 38 */
    {0x2b, PP_NONE, 0, true, true, true, false},   /* MOVNTPS */
    {0x2b, PP_66, 0, true, true, true, false},     /* MOVNTPD */
    {0x6f, PP_NONE, 8, false, false, false, true}, /* MOVQ mm */
    {0x6f, PP_66, 0, false, true, false, false},   /* MOVDQA */
    {0x6f, PP_F3, 0, false, false, false, false},  /* MOVDQU */
    {0x7f, PP_NONE, 8, true, false, false, true},
    {0x7f, PP_66, 0, true, true, false, false},
    {0x7f, PP_F3, 0, true, false, false, false},
    {0xe7, PP_NONE, 8, true, false, true, true}, /* MOVNTQ */
    {0xe7, PP_66, 0, true, true, true, false},   /* MOVNTDQ */
    {0xf0, PP_F2, 0, false, false, true, false}, /* LDDQU */
};

static const struct sse_move *find_move(const struct emul_insn *in)
{
    unsigned pp = prefix_of(in);
    for (unsigned i = 0; i < sizeof(moves) / sizeof(moves[0]); i++) {
        if (moves[i].opcode == in->opcode && moves[i].pp == pp) {
            return &moves[i];
        }
    }
    return NULL;
}

static enum emul_result mmx_move(struct emul_ctx *c, bool store)
{
    const struct emul_insn *in = &c->insn;
    unsigned reg = in->reg & 7, rm = in->rm & 7;
    uint64_t value;
    enum emul_result res;

    if (store) {
        res = c->ops->read_mm(c, reg, &value);
        if (res != EMUL_OK) {
            return res;
        }
        return in->mem ? emul_store(c, in->seg, in->ea, 8, value) : c->ops->write_mm(c, rm, value);
    }
    res = in->mem ? emul_load(c, in->seg, in->ea, 8, EMUL_ACC_READ, &value)
                  : c->ops->read_mm(c, rm, &value);
    return res == EMUL_OK ? c->ops->write_mm(c, reg, value) : res;
}

static enum emul_result vector_move(struct emul_ctx *c, const struct sse_move *move)
{
    const struct emul_insn *in = &c->insn;
    unsigned bytes = move->bytes ? move->bytes : in->vex ? in->vex : 16;
    uint8_t buf[32] = {0};
    enum emul_result res;

    if (move->bytes && !in->mem) {
        return move->store ? merge_scalar(c, in->rm, in->reg, bytes)
                           : merge_scalar(c, in->reg, in->rm, bytes);
    }
    if (in->vvvv) {
        return emul_fault(c, VEC_UD, 0);
    }
    if (!move->store) {
        res = vector_rm_get(c, buf, bytes, move->aligned);
        return res == EMUL_OK ? vector_write(c, in->reg, buf) : res;
    }
    res = c->ops->read_vec(c, in->reg, buf, bytes > 16 ? 32 : 16);
    if (res != EMUL_OK) {
        return res;
    }
    return in->mem ? vector_store(c, buf, bytes, move->aligned) : vector_write(c, in->rm, buf);
}

enum emul_result emul_op_sse_mov(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    const struct sse_move *move = find_move(in);

    if (!move || (in->opcode == 0x2a && in->map != EMUL_MAP_0F38)) {
        return EMUL_UNHANDLEABLE;
    }
    if ((move->mem_only && !in->mem) || (move->mmx && in->vex)) {
        return emul_fault(c, VEC_UD, 0);
    }
    enum emul_result res = vector_enabled(c, move->mmx);
    if (res != EMUL_OK) {
        return res;
    }
    return move->mmx ? mmx_move(c, move->store) : vector_move(c, move);
}

/*
 * 12, 16 load 8 bytes into the low or high half, 13, 17 store them; with registers 12 is MOVHLPS
 * and 16 MOVLHPS. The other half comes from the destination, or vvvv with VEX.
 */
enum emul_result emul_op_sse_half(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    bool high = in->opcode & 4, store = in->opcode & 1;
    unsigned pp = prefix_of(in);
    uint8_t buf[32] = {0}, half[16] = {0};
    uint64_t value;

    if (pp > PP_66) {
        return EMUL_UNHANDLEABLE; /* MOVSLDUP, MOVDDUP, MOVSHDUP */
    }
    if ((!in->mem && (store || pp == PP_66)) || in->vex == 32 || (store && in->vvvv)) {
        return emul_fault(c, VEC_UD, 0);
    }
    enum emul_result res = vector_enabled(c, false);
    if (res != EMUL_OK) {
        return res;
    }
    if (store) {
        res = c->ops->read_vec(c, in->reg, buf, 16);
        memcpy(&value, buf + (high ? 8 : 0), 8);
        return res == EMUL_OK ? emul_store(c, in->seg, in->ea, 8, value) : res;
    }
    if (in->mem) {
        res = emul_load(c, in->seg, in->ea, 8, EMUL_ACC_READ, &value);
    } else {
        res = c->ops->read_vec(c, in->rm, half, 16);
        memcpy(&value, half + (high ? 0 : 8), 8);
    }
    if (res == EMUL_OK) {
        res = c->ops->read_vec(c, in->vex ? vvvv_reg(c) : in->reg, buf, 16);
    }
    if (res != EMUL_OK) {
        return res;
    }
    memcpy(buf + (high ? 8 : 0), &value, 8);
    return vector_write(c, in->reg, buf);
}

/* 6E: from r/m32 or r/m64, zero-extended; 7E: to it. Without 66 the register is MMX. */
static enum emul_result move_general(struct emul_ctx *c, bool mmx)
{
    const struct emul_insn *in = &c->insn;
    unsigned bytes = is_long(c) && (in->rex & 8) ? 8 : 4;
    bool store = in->opcode == 0x7e;
    uint8_t buf[32] = {0};
    uint64_t value = 0;
    enum emul_result res;

    if (store) {
        res = mmx ? c->ops->read_mm(c, in->reg & 7, &value) : c->ops->read_vec(c, in->reg, buf, 16);
        if (!mmx) {
            memcpy(&value, buf, 8);
        }
        return res == EMUL_OK ? emul_rm_set(c, bytes, value) : res;
    }
    res = emul_rm_get(c, bytes, &value);
    if (res != EMUL_OK) {
        return res;
    }
    memcpy(buf, &value, 8);
    return mmx ? c->ops->write_mm(c, in->reg & 7, value) : vector_write(c, in->reg, buf);
}

/* F3 7E loads and 66 D6 stores 8 bytes; between registers the upper half is cleared. */
static enum emul_result move_quad(struct emul_ctx *c, bool store)
{
    const struct emul_insn *in = &c->insn;
    uint8_t buf[32] = {0};
    enum emul_result res;

    if (!store) {
        res = vector_rm_get(c, buf, 8, false);
        return res == EMUL_OK ? vector_write(c, in->reg, buf) : res;
    }
    res = c->ops->read_vec(c, in->reg, buf, 16);
    if (res != EMUL_OK) {
        return res;
    }
    memset(buf + 8, 0, 24);
    return in->mem ? vector_store(c, buf, 8, false) : vector_write(c, in->rm, buf);
}

/* 6E, 7E, D6. */
enum emul_result emul_op_sse_movd(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    unsigned pp = prefix_of(in);
    bool quad = (in->opcode == 0x7e && pp == PP_F3) || (in->opcode == 0xd6 && pp == PP_66);
    bool general = in->opcode != 0xd6 && pp <= PP_66;
    bool mmx = general && pp == PP_NONE;

    if (!quad && !general) {
        return EMUL_UNHANDLEABLE; /* MOVQ2DQ, MOVDQ2Q */
    }
    if (in->vex == 32 || in->vvvv || (in->vex && mmx)) {
        return emul_fault(c, VEC_UD, 0);
    }
    enum emul_result res = vector_enabled(c, mmx);
    if (res != EMUL_OK) {
        return res;
    }
    return quad ? move_quad(c, in->opcode == 0xd6) : move_general(c, mmx);
}
