/*
 * The opcode maps as data: how each opcode is decoded and which handler executes it. Adding an
 * instruction is changing an entry here and writing its handler. Opcodes we do not execute are
 * still described, so that their length is known. APM 3, appendix A.
 */
#include "platform/emul_internal.h"

#define N        H_none
#define U        H_ud
#define M        A_MODRM
#define B        A_BYTE
#define I8       A_IMM8
#define IZ       A_IMMZ
#define L        A_LOCK
#define D64      A_D64
#define BR       (A_D64 | A_NEAR)
#define I64      A_I64
#define P        (H_none | A_PREFIX)
#define REP4(x)  x, x, x, x
#define REP8(x)  REP4(x), REP4(x)
#define REP16(x) REP8(x), REP8(x)

/* ADD, OR, ... : Eb Gb, Ev Gv, Gb Eb, Gv Ev, AL Ib, rAX Iz. */
#define ALU(lock)                                                                                  \
    H_alu | M | B | (lock), H_alu | M | (lock), H_alu | M | B, H_alu | M, H_alu | B | I8, H_alu | IZ

/* Rows as in the manual's opcode maps. */
/* clang-format off */
const uint32_t emul_table_1byte[256] = {
    /* 00 */ ALU(L), H_push_sreg | I64, H_pop_sreg | I64,
    /* 08 */ ALU(L), H_push_sreg | I64, A_ESCAPE,
    /* 10 */ ALU(L), H_push_sreg | I64, H_pop_sreg | I64,
    /* 18 */ ALU(L), H_push_sreg | I64, H_pop_sreg | I64,
    /* 20 */ ALU(L), P, H_bcd | I64,
    /* 28 */ ALU(L), P, H_bcd | I64,
    /* 30 */ ALU(L), P, H_bcd | I64,
    /* 38 */ ALU(0), P, H_bcd | I64,
    /* 40 */ REP16(H_incdec_reg | A_PREFIX),
    /* 50 */ REP8(H_push_reg | D64),
    /* 58 */ REP8(H_pop_reg | D64),
    /* 60 */ H_pusha | I64, H_popa | I64, N | M | A_ESCAPE, H_movsxd | M | A_GROUP,
    /* 64 */ P, P, P, P,
    /* 68 */ H_push_imm | IZ | D64, H_imul3 | M | IZ, H_push_imm | I8 | D64, H_imul3 | M | I8,
    /* 6c */ H_ins | B, H_ins, H_outs | B, H_outs,
    /* 70 */ REP16(H_jcc | I8 | BR),
    /* 80 */ H_alu_imm | M | B | I8 | L, H_alu_imm | M | IZ | L, H_alu_imm | M | B | I8 | L | I64,
    /* 83 */ H_alu_imm | M | I8 | L, H_test | M | B, H_test | M, H_xchg | M | B | L, H_xchg | M | L,
    /* 88 */ H_mov | M | B, H_mov | M, H_mov | M | B, H_mov | M,
    /* 8c */ H_mov_from_sreg | M, H_lea | M, H_mov_to_sreg | M, H_pop_rm | M | D64,
    /* 90 */ REP8(H_xchg_ax),
    /* 98 */ H_cbw, H_cwd, H_far_imm | A_FAR | I64, N,
    /* 9c */ H_pushf | D64, H_popf | D64, H_sahf, H_lahf,
    /* a0 */ H_mov_moffs | A_MOFFS | B, H_mov_moffs | A_MOFFS, H_mov_moffs | A_MOFFS | B,
    /* a3 */ H_mov_moffs | A_MOFFS,
    /* a4 */ H_movs | B, H_movs, H_cmps | B, H_cmps,
    /* a8 */ H_test_imm | B | I8, H_test_imm | IZ, H_stos | B, H_stos,
    /* ac */ H_lods | B, H_lods, H_scas | B, H_scas,
    /* b0 */ REP8(H_mov_reg_imm | B | I8),
    /* b8 */ REP8(H_mov_reg_imm | A_IMMV),
    /* c0 */ H_shift | M | B | I8, H_shift | M | I8, H_ret | A_IMM16 | BR, H_ret | BR,
    /* c4 */ H_load_far | M | I64 | A_ESCAPE, H_load_far | M | I64 | A_ESCAPE,
    /* c6 */ H_mov_imm | M | B | I8, H_mov_imm | M | IZ,
    /* c8 */ H_enter | A_IMM16 | I8 | D64, H_leave | D64, H_retf | A_IMM16, H_retf,
    /* cc */ N, N | I8, N | I64, H_iret,
    /* d0 */ H_shift | M | B, H_shift | M, H_shift | M | B, H_shift | M,
    /* d4 */ H_aam | I8 | I64, H_aad | I8 | I64, N | I64, H_xlat | B,
    /* d8 */ REP8(N | M),
    /* e0 */ REP4(H_loop | I8 | BR),
    /* e4 */ H_in | B | I8, H_in | I8, H_out | B | I8, H_out | I8,
    /* e8 */ H_call | IZ | BR, H_jmp | IZ | BR, H_far_imm | A_FAR | I64, H_jmp | I8 | BR,
    /* ec */ H_in | B, H_in, H_out | B, H_out,
    /* f0 */ P, N, P, P,
    /* f4 */ N, H_flag, H_group3 | M | B | L | A_GROUP, H_group3 | M | L | A_GROUP,
    /* f8 */ H_flag, H_flag, H_cli, H_sti,
    /* fc */ H_flag, H_flag, H_group45 | M | B | L, H_group45 | M | L | A_GROUP,
};

const uint32_t emul_table_0f[256] = {
    /* 00 */ H_group6 | M, H_group7 | M, N | M, N | M, U, N, H_clts, N,
    /* 08 */ H_wbinvd, H_wbinvd, U, U, U, H_prefetch | M, N, N | M | I8,
    /* 10 */ H_sse_mov | M | A_VEX, H_sse_mov | M | A_VEX, H_sse_half | M | A_VEX,
    /* 13 */ H_sse_half | M | A_VEX, N | M, N | M, H_sse_half | M | A_VEX, H_sse_half | M | A_VEX,
    /* 18 */ REP8(H_nop | M),
    /* 20 */ H_mov_cr | M | A_REGONLY, H_mov_dr | M | A_REGONLY, H_mov_cr | M | A_REGONLY,
    /* 23 */ H_mov_dr | M | A_REGONLY, U, U, U, U,
    /* 28 */ H_sse_mov | M | A_VEX, H_sse_mov | M | A_VEX, N | M, H_sse_mov | M | A_VEX,
    /* 2c */ REP4(N | M),
    /* 30 */ H_wrmsr, H_rdtsc, H_rdmsr, N, N, N, U, N,
    /* 38 */ N, U, N, U, U, U, U, U,
    /* 40 */ REP16(H_cmov | M),
    /* 50 */ REP16(N | M),
    /* 60 */ REP8(N | M),
    /* 68 */ REP4(N | M), N | M, N | M, H_sse_movd | M | A_VEX, H_sse_mov | M | A_VEX,
    /* 70 */ REP4(N | M | I8), N | M, N | M, N | M, N,
    /* 78 */ N | M | A_GROUP, N | M, U, U, N | M, N | M, H_sse_movd | M | A_VEX, H_sse_mov | M | A_VEX,
    /* 80 */ REP16(H_jcc | IZ | BR),
    /* 90 */ REP16(H_setcc | M | B),
    /* a0 */ H_push_sreg | D64, H_pop_sreg | D64, H_cpuid, H_bt | M,
    /* a4 */ H_shiftd | M | I8, H_shiftd | M, U, U,
    /* a8 */ H_push_sreg | D64, H_pop_sreg | D64, N, H_bt | M | L,
    /* ac */ H_shiftd | M | I8, H_shiftd | M, H_group15 | M, H_imul2 | M,
    /* b0 */ H_cmpxchg | M | B | L, H_cmpxchg | M | L, H_load_far | M, H_bt | M | L,
    /* b4 */ H_load_far | M, H_load_far | M, H_movzx | M, H_movzx | M,
    /* b8 */ H_bitscan | M, U, H_bt | M | I8 | L, H_bt | M | L,
    /* bc */ H_bitscan | M, H_bitscan | M, H_movsx | M, H_movsx | M,
    /* c0 */ H_xadd | M | B | L, H_xadd | M | L, N | M | I8, H_movnti | M,
    /* c4 */ N | M | I8, N | M | I8, N | M | I8, H_group9 | M | L,
    /* c8 */ REP8(H_bswap),
    /* d0 */ REP4(N | M), N | M, N | M, H_sse_movd | M | A_VEX, N | M,
    /* d8 */ REP8(N | M),
    /* e0 */ REP4(N | M), N | M, N | M, N | M, H_sse_mov | M | A_VEX,
    /* e8 */ REP8(N | M),
    /* f0 */ H_sse_mov | M | A_VEX, N | M, N | M, N | M, REP4(N | M),
    /* f8 */ REP4(N | M), N | M, N | M, N | M, U,
};

/* Nearly all of it is vector arithmetic with a ModRM byte and no immediate. */
const uint32_t emul_table_0f38[256] = {
    /* 00 */ REP16(N | M),
    /* 10 */ REP16(N | M),
    /* 20 */ REP8(N | M), N | M, N | M, H_sse_mov | M | A_VEX, N | M, REP4(N | M),
    /* 30 */ REP16(N | M),
    /* 40 */ REP16(N | M),
    /* 50 */ REP16(N | M),
    /* 60 */ REP16(N | M),
    /* 70 */ REP16(N | M),
    /* 80 */ REP16(N | M),
    /* 90 */ REP16(N | M),
    /* a0 */ REP16(N | M),
    /* b0 */ REP16(N | M),
    /* c0 */ REP16(N | M),
    /* d0 */ REP16(N | M),
    /* e0 */ REP16(N | M),
    /* f0 */ H_movbe | M, H_movbe | M, N | M, N | M, REP4(N | M),
    /* f8 */ REP8(N | M),
};
