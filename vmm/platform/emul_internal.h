/*
 * What the emulator's files share: the format of the opcode tables, access to registers, and the
 * helpers through which every memory operand passes. Nothing outside emul_*.c includes this.
 */
#ifndef VMM_PLATFORM_EMUL_INTERNAL_H
#define VMM_PLATFORM_EMUL_INTERNAL_H

#include <stddef.h>

#include "platform/emul.h"

#define EMUL_MAX_LEN 15

/* Exceptions by vector. APM 2, 8.2. */
enum { VEC_DE = 0, VEC_UD = 6, VEC_NM = 7, VEC_NP = 11, VEC_SS = 12, VEC_GP = 13, VEC_PF = 14 };

/* RFLAGS. APM 2, 3.1.4. */
#define FL_CF       (1u << 0)
#define FL_FIXED    (1u << 1)
#define FL_PF       (1u << 2)
#define FL_AF       (1u << 4)
#define FL_ZF       (1u << 6)
#define FL_SF       (1u << 7)
#define FL_TF       (1u << 8)
#define FL_IF       (1u << 9)
#define FL_DF       (1u << 10)
#define FL_OF       (1u << 11)
#define FL_IOPL     (3u << 12)
#define FL_NT       (1u << 14)
#define FL_RF       (1u << 16)
#define FL_VM       (1u << 17)
#define FL_AC       (1u << 18)
#define FL_VIF      (1u << 19)
#define FL_VIP      (1u << 20)
#define FL_ID       (1u << 21)
#define FL_ARITH    (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

#define CR0_PE      (1u << 0)
#define CR0_EM      (1u << 2)
#define CR0_TS      (1u << 3)
#define CR4_VME     (1u << 0)
#define CR4_PVI     (1u << 1)
#define CR4_TSD     (1u << 2)
#define CR4_OSFXSR  (1u << 9)
#define CR4_LA57    (1u << 12)
#define CR4_OSXSAVE (1u << 18)

/* General registers by number. */
enum { R_AX, R_CX, R_DX, R_BX, R_SP, R_BP, R_SI, R_DI };

/* An entry of an opcode table: bits 0-7 the handler, then how to decode. */
#define A_HANDLER(a) ((a)&0xff)
#define A_MODRM      (1u << 8)  /* has a ModRM byte */
#define A_BYTE       (1u << 9)  /* operand size 1 */
#define A_IMM8       (1u << 10) /* immediate byte */
#define A_IMMZ       (1u << 11) /* immediate of 2 or 4 bytes */
#define A_IMMV       (1u << 12) /* immediate of 2, 4 or 8 bytes */
#define A_IMM16      (1u << 13) /* immediate of 2 bytes, first of two when with A_IMM8 (ENTER) */
#define A_D64        (1u << 14) /* 64-bit operands by default in 64-bit mode */
#define A_I64        (1u << 15) /* #UD in 64-bit mode */
#define A_LOCK       (1u << 16) /* LOCK is allowed with a memory destination */
#define A_MOFFS      (1u << 17) /* memory operand given by an offset in the instruction */
#define A_FAR        (1u << 18) /* far pointer as immediate */
#define A_PREFIX     (1u << 19) /* a prefix, or REX in 64-bit mode */
#define A_REGONLY    (1u << 20) /* ModRM.mod is ignored, both are registers */
#define A_GROUP      (1u << 21) /* ModRM.reg changes how to decode: see decode_group() */
#define A_VEX        (1u << 22) /* has a VEX form that we execute */
#define A_NEAR       (1u << 23) /* near branch: Intel ignores 66 in 64-bit mode, AMD cuts RIP */
#define A_ESCAPE     (1u << 24) /* 0F, C4, C5, 62: what follows decides */

/* Every handler: emul_op_NAME executes, H_NAME stands in the tables. */
#define EMUL_HANDLERS(X)                                                                           \
    X(none)                                                                                        \
    X(ud)                                                                                          \
    X(mov)                                                                                         \
    X(mov_imm)                                                                                     \
    X(mov_reg_imm)                                                                                 \
    X(mov_moffs)                                                                                   \
    X(movzx)                                                                                       \
    X(movsx)                                                                                       \
    X(movsxd)                                                                                      \
    X(movnti)                                                                                      \
    X(movbe)                                                                                       \
    X(mov_from_sreg)                                                                               \
    X(mov_to_sreg)                                                                                 \
    X(lea)                                                                                         \
    X(xchg)                                                                                        \
    X(xchg_ax)                                                                                     \
    X(cmpxchg)                                                                                     \
    X(xadd)                                                                                        \
    X(group9)                                                                                      \
    X(alu)                                                                                         \
    X(alu_imm)                                                                                     \
    X(test)                                                                                        \
    X(test_imm)                                                                                    \
    X(incdec_reg)                                                                                  \
    X(group3)                                                                                      \
    X(group45)                                                                                     \
    X(shift)                                                                                       \
    X(shiftd)                                                                                      \
    X(imul2)                                                                                       \
    X(imul3)                                                                                       \
    X(bt)                                                                                          \
    X(bitscan)                                                                                     \
    X(bswap)                                                                                       \
    X(setcc)                                                                                       \
    X(cmov)                                                                                        \
    X(cbw)                                                                                         \
    X(cwd)                                                                                         \
    X(bcd)                                                                                         \
    X(aam)                                                                                         \
    X(aad)                                                                                         \
    X(xlat)                                                                                        \
    X(lahf)                                                                                        \
    X(sahf)                                                                                        \
    X(flag)                                                                                        \
    X(cli)                                                                                         \
    X(sti)                                                                                         \
    X(nop)                                                                                         \
    X(prefetch)                                                                                    \
    X(push_reg)                                                                                    \
    X(push_imm)                                                                                    \
    X(push_sreg)                                                                                   \
    X(pop_reg)                                                                                     \
    X(pop_rm)                                                                                      \
    X(pop_sreg)                                                                                    \
    X(pusha)                                                                                       \
    X(popa)                                                                                        \
    X(pushf)                                                                                       \
    X(popf)                                                                                        \
    X(enter)                                                                                       \
    X(leave)                                                                                       \
    X(call)                                                                                        \
    X(ret)                                                                                         \
    X(jmp)                                                                                         \
    X(jcc)                                                                                         \
    X(loop)                                                                                        \
    X(far_imm)                                                                                     \
    X(retf)                                                                                        \
    X(iret)                                                                                        \
    X(load_far)                                                                                    \
    X(movs)                                                                                        \
    X(stos)                                                                                        \
    X(lods)                                                                                        \
    X(cmps)                                                                                        \
    X(scas)                                                                                        \
    X(ins)                                                                                         \
    X(outs)                                                                                        \
    X(in)                                                                                          \
    X(out)                                                                                         \
    X(group6)                                                                                      \
    X(group7)                                                                                      \
    X(group15)                                                                                     \
    X(mov_cr)                                                                                      \
    X(mov_dr)                                                                                      \
    X(clts)                                                                                        \
    X(wbinvd)                                                                                      \
    X(rdmsr)                                                                                       \
    X(wrmsr)                                                                                       \
    X(rdtsc)                                                                                       \
    X(cpuid)                                                                                       \
    X(sse_mov)                                                                                     \
    X(sse_half)                                                                                    \
    X(sse_movd)

#define X(name) H_##name,
enum emul_handler { EMUL_HANDLERS(X) H_COUNT };
#undef X

#define X(name) enum emul_result emul_op_##name(struct emul_ctx *c);
EMUL_HANDLERS(X)
#undef X

extern const uint32_t emul_table_1byte[256];
extern const uint32_t emul_table_0f[256];
extern const uint32_t emul_table_0f38[256];

static inline bool is_long(const struct emul_ctx *c)
{
    return c->code_bytes == 8;
}

static inline bool is_vm86(const struct emul_ctx *c)
{
    return (c->regs->rflags & FL_VM) != 0;
}

/* Protected mode proper: segment registers hold selectors. */
static inline bool is_protected(const struct emul_ctx *c)
{
    return (c->cr0 & CR0_PE) && !is_vm86(c);
}

static inline unsigned iopl(const struct emul_ctx *c)
{
    return (c->regs->rflags & FL_IOPL) >> 12;
}

static inline uint64_t mask_of(unsigned bytes)
{
    return ~0ull >> (64 - 8 * bytes);
}

static inline uint64_t sign_extend(uint64_t value, unsigned bytes)
{
    unsigned shift = 64 - 8 * bytes;
    return (uint64_t)((int64_t)(value << shift) >> shift);
}

static inline enum emul_result gp_fault(struct emul_ctx *c)
{
    return emul_fault(c, VEC_GP, 0);
}

/* Without REX, byte registers 4 to 7 are AH, CH, DH, BH. */
static inline bool is_high_byte(const struct emul_ctx *c, unsigned reg, unsigned bytes)
{
    return bytes == 1 && !c->insn.rex && (reg & ~3u) == 4;
}

static inline uint64_t reg_get(const struct emul_ctx *c, unsigned reg, unsigned bytes)
{
    if (is_high_byte(c, reg, bytes)) {
        return (c->regs->gpr[reg - 4] >> 8) & 0xff;
    }
    return c->regs->gpr[reg] & mask_of(bytes);
}

/* 4-byte results clear the upper half, smaller ones leave the rest alone. */
static inline void reg_set(struct emul_ctx *c, unsigned reg, unsigned bytes, uint64_t value)
{
    uint64_t *gpr = &c->regs->gpr[reg];
    if (bytes == 8) {
        *gpr = value;
    } else if (bytes == 4) {
        *gpr = (uint32_t)value;
    } else if (bytes == 2) {
        *gpr = (*gpr & ~0xffffull) | (uint16_t)value;
    } else if (is_high_byte(c, reg, 1)) {
        gpr = &c->regs->gpr[reg - 4];
        *gpr = (*gpr & ~0xff00ull) | (uint64_t)(uint8_t)value << 8;
    } else {
        *gpr = (*gpr & ~0xffull) | (uint8_t)value;
    }
}

/* An address or count register with the address size's or stack's width; keeps what is above. */
static inline void reg_set_addr(struct emul_ctx *c, unsigned reg, unsigned bytes, uint64_t value)
{
    reg_set(c, reg, bytes, value);
}

static inline void set_flags(struct emul_ctx *c, uint64_t flags, uint64_t changed)
{
    c->regs->rflags = (c->regs->rflags & ~changed) | (flags & changed);
}

/* emul_seg.c: from segment and offset to a checked linear address; selector loads. */
enum emul_result emul_seg_get(struct emul_ctx *c, unsigned seg);
enum emul_result emul_linear_slow(struct emul_ctx *c, unsigned seg, uint64_t offset, unsigned bytes,
                                  enum emul_access access, uint64_t *linear);
enum emul_result emul_load_sreg(struct emul_ctx *c, unsigned seg, uint16_t sel);
enum emul_result emul_write_seg(struct emul_ctx *c, unsigned seg, const struct emul_segment *in);
enum emul_result emul_real_segment(struct emul_ctx *c, unsigned seg, uint16_t sel,
                                   struct emul_segment *out);
bool emul_canonical(const struct emul_ctx *c, uint64_t linear);

static inline enum emul_result emul_linear(struct emul_ctx *c, unsigned seg, uint64_t offset,
                                           unsigned bytes, enum emul_access access,
                                           uint64_t *linear)
{
    uint64_t last = offset + bytes - 1;
    int64_t top = (int64_t)offset >> 47;
    if (is_long(c) && seg < EMUL_SEG_FS && (top == 0 || top == -1) &&
        ((offset ^ last) >> 47) == 0) {
        *linear = offset;
        return EMUL_OK;
    }
    return emul_linear_slow(c, seg, offset, bytes, access, linear);
}

/* emul_operand.c: operands up to 8 bytes. */
enum emul_result emul_load(struct emul_ctx *c, unsigned seg, uint64_t offset, unsigned bytes,
                           enum emul_access access, uint64_t *value);
enum emul_result emul_store(struct emul_ctx *c, unsigned seg, uint64_t offset, unsigned bytes,
                            uint64_t value);

static inline enum emul_result emul_rm_get(struct emul_ctx *c, unsigned bytes, uint64_t *value)
{
    const struct emul_insn *in = &c->insn;
    if (in->mem) {
        return emul_load(c, in->seg, in->ea, bytes, EMUL_ACC_READ, value);
    }
    *value = reg_get(c, in->rm, bytes);
    return EMUL_OK;
}

static inline enum emul_result emul_rm_set(struct emul_ctx *c, unsigned bytes, uint64_t value)
{
    const struct emul_insn *in = &c->insn;
    if (in->mem) {
        return emul_store(c, in->seg, in->ea, bytes, value);
    }
    reg_set(c, in->rm, bytes, value);
    return EMUL_OK;
}

/* Computes what replaces old; may change *flags (arithmetic ones). Called again on contention. */
typedef uint64_t emul_modify_fn(struct emul_ctx *c, uint64_t old, uint64_t src, uint64_t *flags);
/*
 * Replaces the r/m operand by fn's result, atomically with LOCK or when locked. Then *old holds the
 * former value and RFLAGS are set. When the other side never lets go, leaves *old alone, sets
 * next_rip to start over, clears *done.
 */
enum emul_result emul_modify(struct emul_ctx *c, unsigned bytes, emul_modify_fn *fn, uint64_t src,
                             bool locked, uint64_t *old, bool *done);
/* Stores new_val over *old at linear; with LOCK through ops->cmpxchg. */
enum emul_result emul_replace(struct emul_ctx *c, uint64_t linear, unsigned bytes, bool locked,
                              void *old, const void *new_val, bool *done);
/* Bound on attempts of a LOCKed instruction before the guest gets a chance to run. */
#define EMUL_LOCK_TRIES 64

/* emul_arith.c: results and flags by the native instruction. flags: the arithmetic ones. */
enum alu_op { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };
uint64_t arith_alu(unsigned op, unsigned bytes, uint64_t dst, uint64_t src, uint64_t *flags);
enum unary_op { UN_INC, UN_DEC, UN_NEG };
uint64_t arith_unary(unsigned op, unsigned bytes, uint64_t dst, uint64_t *flags);
uint64_t arith_shift(unsigned op, unsigned bytes, uint64_t dst, unsigned count, uint64_t *flags);
uint64_t arith_shiftd(bool right, unsigned bytes, uint64_t dst, uint64_t src, unsigned count,
                      uint64_t *flags);
void arith_mul(bool is_signed, unsigned bytes, uint64_t *lo, uint64_t *hi, uint64_t src,
               uint64_t *flags);
uint64_t arith_imul2(unsigned bytes, uint64_t dst, uint64_t src, uint64_t *flags);
enum bt_op { BIT_TEST, BIT_SET, BIT_RESET, BIT_COMPLEMENT };
uint64_t arith_bt(unsigned op, unsigned bytes, uint64_t dst, uint64_t bit, uint64_t *flags);
enum scan_op { SCAN_BSF, SCAN_BSR, SCAN_TZCNT, SCAN_LZCNT, SCAN_POPCNT };
uint64_t arith_scan(unsigned op, unsigned bytes, uint64_t dst, uint64_t src, uint64_t *flags);
bool arith_div(bool is_signed, unsigned bytes, uint64_t *lo, uint64_t *hi, uint64_t src);

/* emul_stack.c */
enum emul_result emul_push(struct emul_ctx *c, uint64_t *sp, unsigned bytes, uint64_t value);
enum emul_result emul_pop(struct emul_ctx *c, uint64_t *sp, unsigned bytes, uint64_t *value);
void emul_set_sp(struct emul_ctx *c, uint64_t sp);
/* emul_flow.c */
bool emul_condition(const struct emul_ctx *c, unsigned cc);
enum emul_result emul_jump(struct emul_ctx *c, uint64_t target, unsigned bytes);
enum emul_result emul_call_near(struct emul_ctx *c, uint64_t target);
enum emul_result emul_far(struct emul_ctx *c, uint16_t sel, uint64_t target, bool call);
/* emul_io.c */
enum emul_result emul_io_check(struct emul_ctx *c, uint16_t port, unsigned bytes);

#endif
