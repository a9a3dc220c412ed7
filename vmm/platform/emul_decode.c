/*
 * From bytes to struct emul_insn. Prefixes, opcode, ModRM, SIB, displacement and immediates are
 * read in order through a cursor whose failure sticks, so that the common path has no error checks:
 * it is the price of every emulated access, and must stay short. APM 3, 1.2 to 1.7, appendix A.
 */
#include "core/string.h"
#include "platform/emul_internal.h"

#define NO_BASE       0xff
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define UNLIKELY(x)   __builtin_expect(!!(x), 0)

struct cursor {
    struct emul_ctx *c;
    unsigned pos;
    enum emul_result failed;
    bool invalid; /* #UD, once all bytes are there */
};

enum emul_result emul_fault(struct emul_ctx *c, unsigned vector, uint32_t error)
{
    c->exc_vector = vector;
    c->exc_error = error;
    c->exc_has_error = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
    return EMUL_EXCEPTION;
}

enum emul_result emul_page_fault(struct emul_ctx *c, uint64_t linear, uint32_t error)
{
    c->exc_cr2 = linear;
    return emul_fault(c, VEC_PF, error);
}

/* How many bytes the code segment and the page still give at offset, and where they are. */
static enum emul_result fetch_window(struct emul_ctx *c, uint64_t offset, uint64_t *linear,
                                     unsigned *bytes)
{
    if (is_long(c)) {
        if (!emul_canonical(c, offset)) {
            return gp_fault(c);
        }
        *linear = offset;
    } else {
        offset &= 0xffffffff;
        enum emul_result res = emul_seg_get(c, EMUL_SEG_CS);
        if (res != EMUL_OK) {
            return res;
        }
        const struct emul_segment *cs = &c->seg[EMUL_SEG_CS];
        if (offset > cs->limit) {
            return gp_fault(c);
        }
        if (cs->limit - offset < *bytes - 1) {
            *bytes = cs->limit - offset + 1;
        }
        *linear = (cs->base + offset) & 0xffffffff;
    }
    unsigned in_page = 0x1000 - (*linear & 0xfff);
    if (in_page < *bytes) {
        *bytes = in_page;
    }
    return EMUL_OK;
}

/*
 * Brings in at least one more byte, stopping at the end of a page: the next may not be needed. The
 * cursor goes by value here and below, so that the common path keeps it in registers.
 */
static __attribute__((noinline, cold)) struct cursor fetch_more(struct cursor cur)
{
    struct emul_ctx *c = cur.c;
    if (cur.failed != EMUL_OK) {
        return cur;
    }
    if (cur.pos >= EMUL_MAX_LEN) {
        cur.failed = gp_fault(c);
        return cur;
    }
    unsigned bytes = EMUL_MAX_LEN - c->n_bytes;
    uint64_t linear;
    cur.failed = fetch_window(c, c->regs->rip + c->n_bytes, &linear, &bytes);
    if (cur.failed == EMUL_OK) {
        cur.failed = c->ops->read(c, linear, c->bytes + c->n_bytes, bytes, EMUL_ACC_FETCH);
    }
    if (cur.failed == EMUL_OK) {
        c->n_bytes += bytes;
    }
    return cur;
}

static ALWAYS_INLINE uint8_t next8(struct cursor *cur)
{
    if (UNLIKELY(cur->pos >= cur->c->n_bytes)) {
        *cur = fetch_more(*cur);
        if (cur->failed != EMUL_OK) {
            return 0;
        }
    }
    return cur->c->bytes[cur->pos++];
}

/* Makes sure that bytes more are there, or the cursor has failed. */
static __attribute__((noinline, cold)) struct cursor fetch_all(struct cursor cur, unsigned bytes)
{
    while (cur.failed == EMUL_OK && cur.pos + bytes > cur.c->n_bytes) {
        struct cursor end = cur;
        end.pos = cur.c->n_bytes;
        cur.failed = fetch_more(end).failed;
    }
    return cur;
}

/* 1, 2, 4 or 8 bytes, little endian, sign-extended. */
static ALWAYS_INLINE uint64_t next_signed(struct cursor *cur, unsigned bytes)
{
    const uint8_t *at = cur->c->bytes + cur->pos;
    if (UNLIKELY(cur->pos + bytes > cur->c->n_bytes)) {
        *cur = fetch_all(*cur, bytes);
        if (cur->failed != EMUL_OK) {
            return 0;
        }
    }
    cur->pos += bytes;
    int64_t value8;
    int32_t value4;
    int16_t value2;
    switch (bytes) {
    case 1:
        return (uint64_t)(int64_t)(int8_t)*at;
    case 2:
        memcpy(&value2, at, 2);
        return (uint64_t)(int64_t)value2;
    case 4:
        memcpy(&value4, at, 4);
        return (uint64_t)(int64_t)value4;
    default:
        memcpy(&value8, at, 8);
        return (uint64_t)value8;
    }
}

/* 16-bit addressing: base and index of each r/m. APM 3, table 1-13. */
static __attribute__((noinline)) void decode_modrm16(struct cursor *cur, struct emul_insn *in,
                                                     bool override)
{
    static const uint8_t base[8] = {R_BX, R_BX, R_BP, R_BP, R_SI, R_DI, R_BP, R_BX};
    static const uint8_t index[4] = {R_SI, R_DI, R_SI, R_DI};
    const uint64_t *gpr = cur->c->regs->gpr;
    unsigned mod = in->modrm >> 6, rm = in->modrm & 7;

    if (mod == 0 && rm == 6) {
        in->ea = next_signed(cur, 2) & 0xffff;
        return;
    }
    uint64_t ea = gpr[base[rm]];
    if (rm < 4) {
        ea += gpr[index[rm]];
    }
    if (mod != 0) {
        ea += next_signed(cur, mod);
    }
    in->ea = ea & 0xffff;
    in->base = base[rm];
    if (base[rm] == R_BP && !override) {
        in->seg = EMUL_SEG_SS;
    }
}

static ALWAYS_INLINE uint64_t decode_sib(struct cursor *cur, struct emul_insn *in, unsigned *base,
                                         unsigned mod)
{
    const uint64_t *gpr = cur->c->regs->gpr;
    uint8_t sib = next8(cur);
    unsigned index = (sib >> 3 & 7) | (in->rex & 2) << 2;
    uint64_t ea = 0;

    *base = (sib & 7) | (in->rex & 1) << 3;
    if (index != 4) {
        ea = gpr[index] << (sib >> 6);
    }
    if ((sib & 7) == 5 && mod == 0) {
        *base = NO_BASE;
        ea += next_signed(cur, 4);
    }
    return ea;
}

/* 32- and 64-bit addressing. Returns whether ea is relative to the next instruction. */
static ALWAYS_INLINE bool decode_modrm(struct cursor *cur, struct emul_insn *in, bool override)
{
    const uint64_t *gpr = cur->c->regs->gpr;
    unsigned mod = in->modrm >> 6, rm = in->modrm & 7;
    unsigned base = rm | (in->rex & 1) << 3;
    uint64_t ea = 0;
    bool relative = false;

    if (rm == 4) {
        ea = decode_sib(cur, in, &base, mod);
    } else if (rm == 5 && mod == 0) {
        base = NO_BASE;
        ea = next_signed(cur, 4);
        relative = is_long(cur->c);
    }
    if (base != NO_BASE) {
        ea += gpr[base];
        in->base = base;
        if ((base == R_SP || base == R_BP) && !override) {
            in->seg = EMUL_SEG_SS;
        }
    }
    if (mod == 1) {
        ea += next_signed(cur, 1);
    } else if (mod == 2) {
        ea += next_signed(cur, 4);
    }
    in->ea = in->addr_bytes == 4 ? (uint32_t)ea : ea;
    return relative;
}

/* Entries whose decoding hangs on ModRM.reg or the mode. */
static uint32_t decode_group(const struct emul_ctx *c, uint32_t attr)
{
    const struct emul_insn *in = &c->insn;
    unsigned ext = in->modrm >> 3 & 7;

    switch (in->opcode) {
    case 0x63: /* MOVSXD in 64-bit mode, ARPL elsewhere */
        return is_long(c) ? attr : (H_none | A_MODRM);
    case 0x78: /* 0F 78: EXTRQ and INSERTQ have two immediate bytes, VMREAD has none */
        return in->opsize || in->rep == 0xf2 ? attr | A_IMM16 : attr;
    case 0xf6: /* TEST has an immediate, NOT to IDIV have none */
        return ext < 2 ? attr | A_IMM8 : attr;
    case 0xf7:
        return ext < 2 ? attr | A_IMMZ : attr;
    case 0xff: /* near CALL, near JMP, PUSH */
        return ext == 2 || ext == 4 ? attr | A_D64 | A_NEAR : ext == 6 ? attr | A_D64 : attr;
    }
    return attr;
}

/* LOCK needs a memory destination that is read and written. APM 3, 1.2.5. */
static bool lock_allowed(const struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    unsigned ext = in->modrm >> 3 & 7;

    if (A_HANDLER(in->attr) == H_mov_cr) {
        return ext == 0; /* AMD's other name for CR8: APM 3, MOV CRn */
    }
    if (!(in->attr & A_LOCK) || !in->mem) {
        return false;
    }
    switch (A_HANDLER(in->attr)) {
    case H_alu_imm:
        return ext != ALU_CMP;
    case H_group3:
        return ext == 2 || ext == 3; /* NOT, NEG */
    case H_group45:
        return ext < 2; /* INC, DEC */
    case H_group9:
        return ext == 1; /* CMPXCHG8B */
    case H_bt:
        return in->opcode != 0xba || ext > 4; /* BTS, BTR, BTC */
    }
    return true;
}

/* VEX: C5 with one payload byte, C4 with two. APM 3, 1.8. */
static void decode_vex(struct cursor *cur, struct emul_insn *in)
{
    static const uint8_t rep_of_pp[4] = {0, 0, 0xf3, 0xf2};
    uint8_t first = next8(cur), last = first;
    bool three = in->opcode == 0xc4;

    cur->invalid = in->lock || in->opsize || in->rep || in->rex;
    in->map = EMUL_MAP_0F;
    in->rex = 0x40 | (~first >> 5 & 4);
    if (three) {
        in->map = first & 0x1f;
        in->rex |= ~first >> 5 & 3;
        last = next8(cur);
        in->rex |= last >> 4 & 8;
    }
    if (!is_long(cur->c)) {
        in->rex = 0x40;
    }
    in->vex = last & 4 ? 32 : 16;
    in->vvvv = ~last >> 3 & 15;
    in->opsize = (last & 3) == 1;
    in->rep = rep_of_pp[last & 3];
    in->opcode = next8(cur);
    if (in->map < EMUL_MAP_0F || in->map > EMUL_MAP_0F3A) {
        cur->invalid = true;
        in->map = EMUL_MAP_0F38;
    }
}

/* C4 and C5 are VEX in 64-bit mode and, outside real mode, where LES and LDS would be invalid. */
static bool is_vex(struct cursor *cur)
{
    if (is_long(cur->c)) {
        return true;
    }
    uint8_t peek = next8(cur);
    if (cur->failed == EMUL_OK) {
        cur->pos--;
    }
    return is_protected(cur->c) && peek >= 0xc0;
}

/* After 0F, C4, C5, 62: sets opcode and map, returns the table's entry; attr is the one-byte one.
 */
static __attribute__((noinline)) uint32_t decode_escape(struct cursor *cur, struct emul_insn *in,
                                                        uint32_t attr)
{
    if (in->opcode == 0x0f) {
        in->map = EMUL_MAP_0F;
        in->opcode = next8(cur);
        if (in->opcode == 0x38 || in->opcode == 0x3a) {
            in->map = in->opcode == 0x38 ? EMUL_MAP_0F38 : EMUL_MAP_0F3A;
            in->opcode = next8(cur);
        }
    } else if (in->opcode == 0x62) {
        cur->failed = is_long(cur->c) ? EMUL_UNHANDLEABLE : cur->failed; /* EVEX */
        return attr;
    } else if (is_vex(cur)) {
        decode_vex(cur, in);
    } else {
        return attr;
    }
    if (in->map == EMUL_MAP_0F3A) {
        return H_none | A_MODRM | A_IMM8;
    }
    attr = in->map == EMUL_MAP_0F ? emul_table_0f[in->opcode] : emul_table_0f38[in->opcode];
    if (in->vex && !(attr & A_VEX)) {
        attr = H_none | (attr & (A_MODRM | A_IMM8));
    }
    return attr;
}

/* The prefixes; returns the first byte that is none. */
static ALWAYS_INLINE uint8_t decode_prefixes(struct cursor *cur, struct emul_insn *in,
                                             bool *override, unsigned *addr_toggle)
{
    for (;;) {
        uint8_t byte = next8(cur);
        if (!(emul_table_1byte[byte] & A_PREFIX)) {
            return byte;
        }
        if ((byte & 0xf0) == 0x40) {
            if (!is_long(cur->c)) {
                return byte;
            }
            in->rex = byte;
            continue;
        }
        in->rex = 0; /* REX counts only directly before the opcode */
        switch (byte) {
        case 0x66:
            in->opsize = true;
            break;
        case 0x67:
            *addr_toggle = 1;
            break;
        case 0xf0:
            in->lock = true;
            break;
        case 0xf2:
        case 0xf3:
            in->rep = byte;
            break;
        case 0x64:
        case 0x65:
            in->seg = byte - 0x64 + EMUL_SEG_FS;
            *override = true;
            break;
        default: /* 26, 2E, 36, 3E: ES, CS, SS, DS */
            if (!is_long(cur->c)) {
                in->seg = byte >> 3 & 3;
                *override = true;
            }
        }
    }
}

static inline unsigned operand_bytes(const struct emul_ctx *c, uint32_t attr)
{
    const struct emul_insn *in = &c->insn;
    if (attr & A_BYTE) {
        return 1;
    }
    if (is_long(c)) {
        if (in->rex & 8) {
            return 8;
        }
        bool opsize = in->opsize && !(c->intel && (attr & A_NEAR));
        return opsize ? 2 : attr & A_D64 ? 8 : 4;
    }
    return in->opsize ? 6 - c->code_bytes : c->code_bytes;
}

static __attribute__((noinline)) void decode_immediates(struct cursor *cur, struct emul_insn *in)
{
    unsigned op_bytes = in->op_bytes;
    if (in->attr & A_MOFFS) {
        in->ea = next_signed(cur, in->addr_bytes) & mask_of(in->addr_bytes);
        in->mem = true;
    }
    if (in->attr & A_FAR) {
        in->imm = next_signed(cur, op_bytes == 2 ? 2 : 4);
        in->imm2 = next_signed(cur, 2);
    }
    if (in->attr & A_IMM16) {
        in->imm = next_signed(cur, 2) & 0xffff;
        if (in->attr & A_IMM8) {
            in->imm2 = next8(cur);
        }
    } else if (in->attr & A_IMM8) {
        in->imm = next_signed(cur, 1);
    }
    if (in->attr & A_IMMZ) {
        in->imm = next_signed(cur, op_bytes == 2 ? 2 : 4);
    }
    if (in->attr & A_IMMV) {
        in->imm = next_signed(cur, op_bytes);
    }
}

/* ModRM and what belongs to it. Returns attr, changed where ModRM.reg changes the instruction. */
static ALWAYS_INLINE uint32_t decode_rm(struct cursor *cur, struct emul_insn *in, uint32_t attr,
                                        bool override, bool *relative)
{
    in->modrm = next8(cur);
    in->reg = (in->modrm >> 3 & 7) | (in->rex & 4) << 1;
    in->rm = (in->modrm & 7) | (in->rex & 1) << 3;
    if (attr & A_GROUP) {
        attr = decode_group(cur->c, attr);
    }
    if (in->modrm >= 0xc0 || (attr & A_REGONLY)) {
        return attr;
    }
    in->mem = true;
    if (in->addr_bytes == 2) {
        struct cursor copy = *cur;
        decode_modrm16(&copy, in, override);
        *cur = copy;
    } else {
        *relative = decode_modrm(cur, in, override);
    }
    return attr;
}

/* #UD that is known only when the instruction is complete. */
static __attribute__((noinline)) bool is_invalid(const struct emul_ctx *c, bool bad_prefix)
{
    return bad_prefix || (c->insn.lock && !lock_allowed(c)) ||
           ((c->insn.attr & A_I64) && is_long(c));
}

int emul_decode(struct emul_ctx *c)
{
    struct emul_insn *in = &c->insn;
    struct cursor cur = {c, 0, EMUL_OK, false};
    bool override = false, relative = false;
    unsigned addr_toggle = 0;

    in->len = in->map = 0;
    in->lock = in->opsize = false;
    in->rep = in->rex = in->vex = in->vvvv = 0;
    in->mem = false;
    in->modrm = in->reg = in->rm = 0;
    in->seg = EMUL_SEG_DS;
    in->imm2 = 0;
    in->base = NO_BASE;
    in->opcode = decode_prefixes(&cur, in, &override, &addr_toggle);
    uint32_t attr = emul_table_1byte[in->opcode];
    if (attr & A_ESCAPE) {
        struct cursor copy = cur;
        attr = decode_escape(&copy, in, attr);
        cur = copy;
        if (A_HANDLER(attr) == H_ud || cur.failed != EMUL_OK) {
            return -(int)(cur.failed != EMUL_OK ? cur.failed : emul_fault(c, VEC_UD, 0));
        }
    }
    in->addr_bytes = !addr_toggle ? c->code_bytes : c->code_bytes == 4 ? 2 : 4;
    if (attr & A_MODRM) {
        attr = decode_rm(&cur, in, attr, override, &relative);
    }
    in->attr = attr;
    in->op_bytes = operand_bytes(c, attr);
    if (attr & (A_IMM8 | A_IMMZ | A_IMMV | A_IMM16 | A_MOFFS | A_FAR)) {
        struct cursor copy = cur;
        decode_immediates(&copy, in);
        cur = copy;
    }
    if (UNLIKELY(cur.failed != EMUL_OK)) {
        return -(int)cur.failed;
    }
    if (relative) {
        in->ea = (in->ea + c->regs->rip + cur.pos) & mask_of(in->addr_bytes);
    }
    if (UNLIKELY(cur.invalid || in->lock || (attr & A_I64)) && is_invalid(c, cur.invalid)) {
        return -(int)emul_fault(c, VEC_UD, 0);
    }
    in->len = cur.pos;
    return cur.pos;
}
