/*
 * The instruction emulator's front door: one context, one operations table, two verbs (decode,
 * execute). It is pure logic: everything outside the instruction (memory, ports, control registers,
 * vector registers) is reached through the operations table, so the same code runs in the
 * hypervisor and on the host under test.
 */
#ifndef VMM_PLATFORM_EMUL_H
#define VMM_PLATFORM_EMUL_H

#include <stdbool.h>
#include <stdint.h>

struct emul_ctx;

enum emul_result {
    EMUL_OK,
    EMUL_RETRY,        /* a device must answer first: execute again when it has */
    EMUL_EXCEPTION,    /* the instruction faults: exc_* say how */
    EMUL_UNHANDLEABLE, /* an instruction or mode we do not emulate */
};

/* Segment registers in the order of their x86 encoding. */
enum emul_seg {
    EMUL_SEG_ES,
    EMUL_SEG_CS,
    EMUL_SEG_SS,
    EMUL_SEG_DS,
    EMUL_SEG_FS,
    EMUL_SEG_GS,
    EMUL_SEG_COUNT,
};

enum emul_access {
    EMUL_ACC_READ,   /* data read */
    EMUL_ACC_RMW,    /* data read that the same instruction will write back: faults as a write */
    EMUL_ACC_WRITE,  /* never given to ops->read */
    EMUL_ACC_FETCH,  /* instruction bytes */
    EMUL_ACC_SYSTEM, /* descriptor tables, interrupt vectors: a supervisor read at any CPL */
};

enum { EMUL_TABLE_GDT, EMUL_TABLE_LDT };

/* Bits of emul_ctx.interrupt_shadow, VMX's encoding; SVM has one bit for both. */
enum { EMUL_SHADOW_NONE = 0, EMUL_SHADOW_STI = 1, EMUL_SHADOW_MOV_SS = 2 };

/* A segment register. attr as in the VMCB: type:4, s, dpl:2, p, avl, l, db, g. limit in bytes. */
struct emul_segment {
    uint16_t sel;
    uint16_t attr;
    uint32_t limit;
    uint64_t base;
};

#define EMUL_SEG_S  0x010
#define EMUL_SEG_P  0x080
#define EMUL_SEG_L  0x200
#define EMUL_SEG_DB 0x400
#define EMUL_SEG_G  0x800

/* rax rcx rdx rbx rsp rbp rsi rdi r8..r15 */
struct emul_regs {
    uint64_t gpr[16];
    uint64_t rip, rflags;
};

/*
 * What the emulator asks of its surroundings. Each returns EMUL_OK, EMUL_RETRY, EMUL_UNHANDLEABLE,
 * or EMUL_EXCEPTION after emul_fault() or emul_page_fault(). Addresses are linear, segment and
 * canonical checks done. Only read and write must be there; NULL elsewhere makes the instructions
 * that need it EMUL_UNHANDLEABLE unless said otherwise.
 *
 * An instruction makes its accesses in an order that depends on its registers, memory and operands
 * only, and reads each location once. After EMUL_RETRY it is executed again from its start, so the
 * operations must then answer the accesses already made from what they saved, in order.
 */
struct emul_ops {
    /* 1 to 64 bytes; may cross a page and may be device memory. */
    enum emul_result (*read)(struct emul_ctx *c, uint64_t linear, void *buf, unsigned bytes,
                             enum emul_access access);
    enum emul_result (*write)(struct emul_ctx *c, uint64_t linear, const void *buf, unsigned bytes);
    /*
     * For LOCKed and XCHG accesses, always after a read with EMUL_ACC_RMW. Atomically: if memory
     * holds *old, store *new and set *done; otherwise clear *done and put what was seen in *old.
     * Device memory: write *new, set *done. bytes is 1, 2, 4, 8 or 16. NULL: plain writes are used.
     */
    enum emul_result (*cmpxchg)(struct emul_ctx *c, uint64_t linear, void *old, const void *new_val,
                                unsigned bytes, bool *done);
    /*
     * REP in one go. *reps: in, items wanted (>= 1); out, items done, also with EMUL_RETRY and
     * EMUL_EXCEPTION. No item leaves the page in which the first starts, in either direction of
     * travel (df: addresses go down from the given ones). EMUL_OK with *reps = 0, or NULL: "do it
     * item by item". While a batch is pending (EMUL_RETRY, *reps = 0) the same call comes again.
     */
    enum emul_result (*rep_movs)(struct emul_ctx *c, uint64_t src, uint64_t dst, unsigned bytes,
                                 unsigned long *reps, bool df);
    enum emul_result (*rep_stos)(struct emul_ctx *c, uint64_t dst, uint64_t value, unsigned bytes,
                                 unsigned long *reps, bool df);
    enum emul_result (*rep_ins)(struct emul_ctx *c, uint16_t port, uint64_t dst, unsigned bytes,
                                unsigned long *reps, bool df);
    enum emul_result (*rep_outs)(struct emul_ctx *c, uint16_t port, uint64_t src, unsigned bytes,
                                 unsigned long *reps, bool df);
    /* Optional: the accesses made so far belong to REP items that are complete; forget answers. */
    void (*retire)(struct emul_ctx *c);

    enum emul_result (*io_read)(struct emul_ctx *c, uint16_t port, unsigned bytes, uint32_t *val);
    enum emul_result (*io_write)(struct emul_ctx *c, uint16_t port, unsigned bytes, uint32_t val);
    /* CPL > IOPL: look the port up in the TSS bitmap, #GP(0) if closed. NULL: always #GP(0). */
    enum emul_result (*io_permitted)(struct emul_ctx *c, uint16_t port, unsigned bytes);

    /* Fills *seg; needed unless the caller fills emul_ctx.seg and seg_valid itself. */
    enum emul_result (*read_seg)(struct emul_ctx *c, enum emul_seg seg, struct emul_segment *out);
    /* Sets the register with its hidden part; all checks have been made. */
    enum emul_result (*write_seg)(struct emul_ctx *c, enum emul_seg seg,
                                  const struct emul_segment *in);
    /* Base and limit (bytes - 1) of a descriptor table, for selector loads in protected mode. */
    enum emul_result (*read_table)(struct emul_ctx *c, int table, uint64_t *base, uint32_t *limit);

    /* cr: 0, 2, 3, 4, 8. The CPL has been checked; write_cr checks the value (#GP(0)). */
    enum emul_result (*read_cr)(struct emul_ctx *c, unsigned cr, uint64_t *val);
    enum emul_result (*write_cr)(struct emul_ctx *c, unsigned cr, uint64_t val);
    enum emul_result (*read_dr)(struct emul_ctx *c, unsigned dr, uint64_t *val);
    enum emul_result (*write_dr)(struct emul_ctx *c, unsigned dr, uint64_t val);
    enum emul_result (*write_xcr)(struct emul_ctx *c, unsigned xcr, uint64_t val);
    enum emul_result (*read_msr)(struct emul_ctx *c, uint32_t msr, uint64_t *val);
    enum emul_result (*write_msr)(struct emul_ctx *c, uint32_t msr, uint64_t val);
    /* regs: eax, ebx, ecx, edx; in, leaf in [0] and subleaf in [2]. */
    enum emul_result (*cpuid)(struct emul_ctx *c, uint32_t regs[4]);
    enum emul_result (*wbinvd)(struct emul_ctx *c);
    enum emul_result (*invlpg)(struct emul_ctx *c, uint64_t linear);

    /*
     * Vector registers. bytes is 16 (XMM; the upper half is kept) or 32 (YMM). EMUL_UNHANDLEABLE
     * for 32 when the guest's XCR0 lacks AVX.
     */
    enum emul_result (*read_vec)(struct emul_ctx *c, unsigned reg, void *buf, unsigned bytes);
    enum emul_result (*write_vec)(struct emul_ctx *c, unsigned reg, const void *buf,
                                  unsigned bytes);
    enum emul_result (*read_mm)(struct emul_ctx *c, unsigned reg, uint64_t *val);
    enum emul_result (*write_mm)(struct emul_ctx *c, unsigned reg, uint64_t val);
};

enum emul_map { EMUL_MAP_1BYTE, EMUL_MAP_0F, EMUL_MAP_0F38, EMUL_MAP_0F3A };

/* What emul_decode() found out. Callers may read it; map and opcode name the instruction. */
struct emul_insn {
    uint32_t attr;      /* the table's entry */
    uint8_t opcode;     /* last opcode byte */
    uint8_t op_bytes;   /* operand size: 1, 2, 4, 8 */
    uint8_t addr_bytes; /* address size: 2, 4, 8 */
    uint8_t base;       /* base register of the memory operand, 0xff when none */
    uint8_t len;        /* bytes, 0 when nothing is decoded */
    uint8_t map;        /* enum emul_map */
    bool lock, opsize;  /* prefixes F0, 66 */
    uint8_t rep;        /* 0, 0xf2 or 0xf3 */
    uint8_t rex;        /* 0 or the prefix */
    uint8_t vex;        /* 0, or 16 or 32: VEX encoding and its vector length in bytes */
    uint8_t vvvv;       /* VEX register operand */
    bool mem;           /* ModRM or moffs names memory, at ea */
    uint8_t modrm;      /* the byte itself */
    uint8_t reg, rm;    /* ModRM fields with their REX bits; rm only when !mem */
    uint8_t seg;        /* enum emul_seg of the memory operand */
    uint16_t imm2;      /* selector of a far pointer, level of ENTER */
    uint64_t imm;       /* sign-extended */
    uint64_t ea;        /* offset in seg, cut to the address size */
};

/*
 * One emulation. Owned by the caller, one vCPU at a time, no lock. The caller fills the first
 * group; emul_begin() resets what must not be left over from the last instruction.
 */
struct emul_ctx {
    const struct emul_ops *ops;
    void *opaque;
    struct emul_regs *regs;
    uint64_t cr0, cr4;
    uint8_t code_bytes;  /* 2, 4 or 8 (64-bit mode): see emul_set_mode() */
    uint8_t stack_bytes; /* 2, 4 or 8 */
    uint8_t cpl;         /* 0 in real mode, 3 in virtual-8086 mode */
    bool intel;          /* where vendors differ (66 on near branches, far pointers with REX.W) */
    bool one_item;       /* a REP is to end after one item */
    uint8_t seg_valid;   /* bit per filled seg[] */
    uint8_t n_bytes;     /* instruction bytes the caller put into bytes[], at most 15 */
    uint8_t bytes[15];
    struct emul_segment seg[EMUL_SEG_COUNT];

    struct emul_insn insn;
    uint64_t next_rip;

    /* After EMUL_OK. */
    uint8_t interrupt_shadow; /* EMUL_SHADOW_*; the old shadow is over in any case */
    bool single_step;         /* RFLAGS.TF (a #DB with DR6.BS is due) or one_item was set */

    /* After EMUL_EXCEPTION. */
    uint8_t exc_vector;
    bool exc_has_error;
    uint32_t exc_error;
    uint64_t exc_cr2; /* #PF only */
};

/*
 * Prepares c for an instruction of which the caller knows the first n_bytes (0: none; they are
 * fetched when needed). Keeps registers, mode and segments. No errors. Any context.
 */
static inline void emul_begin(struct emul_ctx *c, unsigned n_bytes)
{
    c->n_bytes = n_bytes;
    c->insn.len = 0;
}

/*
 * Sets code_bytes and stack_bytes from the attributes of CS and SS (VMCB layout) and EFER.LMA.
 * Sets nothing else. No errors. Any context. APM 2, 4.8; APM 3, 1.2.
 */
static inline void emul_set_mode(struct emul_ctx *c, uint16_t cs_attr, uint16_t ss_attr, bool lma)
{
    if (lma && (cs_attr & EMUL_SEG_L)) {
        c->code_bytes = 8;
        c->stack_bytes = 8;
        return;
    }
    c->code_bytes = cs_attr & EMUL_SEG_DB ? 4 : 2;
    c->stack_bytes = ss_attr & EMUL_SEG_DB ? 4 : 2;
}

/*
 * Records an exception for the operations and for the emulator: vector and, for the vectors that
 * push one, its error code. Returns EMUL_EXCEPTION. Any context. APM 2, 8.2.
 */
enum emul_result emul_fault(struct emul_ctx *c, unsigned vector, uint32_t error);

/* The same for #PF: error as pushed (APM 2, 8.4.2), linear for CR2. Returns EMUL_EXCEPTION. */
enum emul_result emul_page_fault(struct emul_ctx *c, uint64_t linear, uint32_t error);

/*
 * Decodes the instruction at regs->rip into c->insn. Executes nothing; works also for the many
 * instructions that emul_execute() refuses, so it gives their length. Returns the length, 1 to 15
 * bytes, or -(enum emul_result): -EMUL_EXCEPTION for #UD, #GP (over 15 bytes, past the CS limit)
 * and faults of the fetch. In VM-exit context; calls only ops->read (fetch) and ops->read_seg. APM
 * 3, 1.2 (prefixes, ModRM), 1.3, 1.6 (immediates), appendix A (opcode maps).
 */
int emul_decode(struct emul_ctx *c);

/*
 * Executes one instruction, decoding it first unless insn.len says that this is done. EMUL_OK:
 * registers, RIP and RFLAGS are committed. RIP still at the instruction means that it has more
 * to do (REP bounded or single-stepped, contended LOCK): the guest simply comes back. Otherwise
 * nothing is committed but complete items of a REP. In VM-exit context, may call any operation.
 * APM 3 and 4, the instruction's page.
 */
enum emul_result emul_execute(struct emul_ctx *c);

#endif
