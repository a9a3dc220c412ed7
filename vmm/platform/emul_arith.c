/*
 * Arithmetic done by the processor itself: each function runs the very instruction on the given
 * values, so that results and flags, also the undefined ones, are the hardware's. The flags travel
 * in AX (LAHF's layout in AH, OF in AL), which spares the stack and PUSHF/POPF. APM 3.
 */
#include "platform/emul_internal.h"

/* AL is 0 or 1: adding 0x7f sets OF if it is 1. SAHF then leaves OF alone. */
#define FLAGS_IN  "addb $0x7f, %%al\n\tsahf\n\t"
#define FLAGS_OUT "\n\tseto %%al\n\tlahf"

static inline uint64_t pack(uint64_t flags)
{
    return (flags & 0xd7) << 8 | (flags >> 11 & 1);
}

static inline uint64_t unpack(uint64_t flags, uint64_t ax)
{
    return (flags & ~(uint64_t)FL_ARITH) | (ax >> 8 & 0xd5) | (ax & 1) << 11;
}

/* One statement for each operand size; the function's "bytes" chooses. */
#define WLQ(ASM, op)                                                                               \
    do {                                                                                           \
        if (bytes == 8) {                                                                          \
            ASM(op "q", "q");                                                                      \
        } else if (bytes == 4) {                                                                   \
            ASM(op "l", "k");                                                                      \
        } else {                                                                                   \
            ASM(op "w", "w");                                                                      \
        }                                                                                          \
    } while (0)
#define BWLQ(ASM, op)                                                                              \
    do {                                                                                           \
        if (bytes == 1) {                                                                          \
            ASM(op "b", "b");                                                                      \
        } else {                                                                                   \
            WLQ(ASM, op);                                                                          \
        }                                                                                          \
    } while (0)

#define ASM2(op, size)                                                                             \
    __asm__(FLAGS_IN op " %" size "[s], %" size "[d]" FLAGS_OUT                                    \
            : [d] "+r"(dst), "+&a"(ax)                                                             \
            : [s] "r"(src)                                                                         \
            : "cc")

uint64_t arith_alu(unsigned op, unsigned bytes, uint64_t dst, uint64_t src, uint64_t *flags)
{
    uint64_t ax = pack(*flags);
    switch ((enum alu_op)op) {
    case ALU_ADD:
        BWLQ(ASM2, "add");
        break;
    case ALU_OR:
        BWLQ(ASM2, "or");
        break;
    case ALU_ADC:
        BWLQ(ASM2, "adc");
        break;
    case ALU_SBB:
        BWLQ(ASM2, "sbb");
        break;
    case ALU_AND:
        BWLQ(ASM2, "and");
        break;
    case ALU_SUB:
        BWLQ(ASM2, "sub");
        break;
    case ALU_XOR:
        BWLQ(ASM2, "xor");
        break;
    case ALU_CMP:
        BWLQ(ASM2, "cmp");
        break;
    }
    *flags = unpack(*flags, ax);
    return dst & mask_of(bytes);
}

#define ASM1(op, size)                                                                             \
    __asm__(FLAGS_IN op " %" size "[d]" FLAGS_OUT : [d] "+r"(dst), "+&a"(ax)::"cc")

uint64_t arith_unary(unsigned op, unsigned bytes, uint64_t dst, uint64_t *flags)
{
    uint64_t ax = pack(*flags);
    switch ((enum unary_op)op) {
    case UN_INC:
        BWLQ(ASM1, "inc");
        break;
    case UN_DEC:
        BWLQ(ASM1, "dec");
        break;
    case UN_NEG:
        BWLQ(ASM1, "neg");
        break;
    }
    *flags = unpack(*flags, ax);
    return dst & mask_of(bytes);
}

#define ASMS(op, size)                                                                             \
    __asm__(FLAGS_IN op " %%cl, %" size "[d]" FLAGS_OUT                                            \
            : [d] "+r"(dst), "+&a"(ax)                                                             \
            : "c"(count)                                                                           \
            : "c"                                                                                  \
              "c")

/* op is ModRM.reg of the shift group; 6 is an old name of 4. */
uint64_t arith_shift(unsigned op, unsigned bytes, uint64_t dst, unsigned count, uint64_t *flags)
{
    uint64_t ax = pack(*flags);
    switch (op) {
    case 0:
        BWLQ(ASMS, "rol");
        break;
    case 1:
        BWLQ(ASMS, "ror");
        break;
    case 2:
        BWLQ(ASMS, "rcl");
        break;
    case 3:
        BWLQ(ASMS, "rcr");
        break;
    case 5:
        BWLQ(ASMS, "shr");
        break;
    case 7:
        BWLQ(ASMS, "sar");
        break;
    default:
        BWLQ(ASMS, "shl");
        break;
    }
    *flags = unpack(*flags, ax);
    return dst & mask_of(bytes);
}

#define ASMD(op, size)                                                                             \
    __asm__(FLAGS_IN op " %%cl, %" size "[s], %" size "[d]" FLAGS_OUT                              \
            : [d] "+r"(dst), "+&a"(ax)                                                             \
            : [s] "r"(src), "c"(count)                                                             \
            : "cc")

uint64_t arith_shiftd(bool right, unsigned bytes, uint64_t dst, uint64_t src, unsigned count,
                      uint64_t *flags)
{
    uint64_t ax = pack(*flags);
    if (right) {
        WLQ(ASMD, "shrd");
    } else {
        WLQ(ASMD, "shld");
    }
    *flags = unpack(*flags, ax);
    return dst & mask_of(bytes);
}

/* RAX is both the flags and the implicit operand: swap it in between, MOV keeps flags. */
#define ASMM(op, size)                                                                             \
    __asm__(FLAGS_IN "movq %[l], %%rax\n\t" op " %" size "[s]\n\tmovq %%rax, %[l]" FLAGS_OUT       \
            : [l] "+&r"(*lo), "+d"(*hi), "+&a"(ax)                                                 \
            : [s] "r"(src)                                                                         \
            : "cc")

/* lo and hi hold RAX and RDX before and after; a product of bytes is in lo's lower 16 bits. */
void arith_mul(bool is_signed, unsigned bytes, uint64_t *lo, uint64_t *hi, uint64_t src,
               uint64_t *flags)
{
    uint64_t ax = pack(*flags);
    if (is_signed) {
        BWLQ(ASMM, "imul");
    } else {
        BWLQ(ASMM, "mul");
    }
    *flags = unpack(*flags, ax);
}

uint64_t arith_imul2(unsigned bytes, uint64_t dst, uint64_t src, uint64_t *flags)
{
    uint64_t ax = pack(*flags);
    WLQ(ASM2, "imul");
    *flags = unpack(*flags, ax);
    return dst & mask_of(bytes);
}

/* bit is taken modulo the operand size. */
uint64_t arith_bt(unsigned op, unsigned bytes, uint64_t dst, uint64_t src, uint64_t *flags)
{
    uint64_t ax = pack(*flags);
    switch ((enum bt_op)op) {
    case BIT_TEST:
        WLQ(ASM2, "bt");
        break;
    case BIT_SET:
        WLQ(ASM2, "bts");
        break;
    case BIT_RESET:
        WLQ(ASM2, "btr");
        break;
    case BIT_COMPLEMENT:
        WLQ(ASM2, "btc");
        break;
    }
    *flags = unpack(*flags, ax);
    return dst & mask_of(bytes);
}

/* dst and the result are whole 64-bit registers: what a zero source leaves is the hardware's. */
uint64_t arith_scan(unsigned op, unsigned bytes, uint64_t dst, uint64_t src, uint64_t *flags)
{
    uint64_t ax = pack(*flags);
    switch ((enum scan_op)op) {
    case SCAN_BSF:
        WLQ(ASM2, "bsf");
        break;
    case SCAN_BSR:
        WLQ(ASM2, "bsr");
        break;
    case SCAN_TZCNT:
        WLQ(ASM2, "tzcnt");
        break;
    case SCAN_LZCNT:
        WLQ(ASM2, "lzcnt");
        break;
    case SCAN_POPCNT:
        WLQ(ASM2, "popcnt");
        break;
    }
    *flags = unpack(*flags, ax);
    return dst;
}

/* Unsigned 128 by 64 bits. The caller has made sure that the quotient fits: hi < src. */
static inline void divide_wide(uint64_t *lo, uint64_t *hi, uint64_t src)
{
    __asm__("divq %[s]" : "+a"(*lo), "+d"(*hi) : [s] "r"(src) : "cc");
}

static bool divide_unsigned(unsigned bytes, uint64_t *lo, uint64_t *hi, uint64_t src)
{
    if (*hi >= src) {
        return false;
    }
    if (bytes == 8) {
        divide_wide(lo, hi, src);
        return true;
    }
    uint64_t dividend = *hi << (8 * bytes) | *lo;
    *lo = dividend / src;
    *hi = dividend % src;
    return true;
}

/* By magnitudes: the quotient truncates towards zero, the remainder has the dividend's sign. */
static bool divide_signed(unsigned bytes, uint64_t *lo, uint64_t *hi, uint64_t src)
{
    uint64_t mask = mask_of(bytes), sign = mask ^ (mask >> 1);
    bool negative = *hi & sign, opposite = negative != ((src & sign) != 0);
    uint64_t l = *lo, h = *hi, s = src & sign ? -src & mask : src;

    if (negative) {
        l = -l & mask;
        h = (~h + (l == 0)) & mask;
    }
    if (!divide_unsigned(bytes, &l, &h, s) || l > sign || (l == sign && !opposite)) {
        return false;
    }
    *lo = opposite ? -l & mask : l;
    *hi = negative ? -h & mask : h;
    return true;
}

/*
 * Divides hi:lo (each of bytes, zero-extended) by src: quotient to lo, remainder to hi. False when
 * the processor would raise #DE. APM 3, DIV and IDIV; their flags are undefined and left alone.
 */
bool arith_div(bool is_signed, unsigned bytes, uint64_t *lo, uint64_t *hi, uint64_t src)
{
    if (src == 0) {
        return false;
    }
    return is_signed ? divide_signed(bytes, lo, hi, src) : divide_unsigned(bytes, lo, hi, src);
}
