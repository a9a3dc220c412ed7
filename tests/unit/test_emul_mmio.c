/* sources: vmm/platform/emul_*.c */
/*
 * Accesses as devices and other processors see them: each location once, in order, atomically when
 * locked, and nothing committed when an access faults or must wait.
 */
#include "test_emul.h"

static uint8_t memory[WORLD_BYTES];
#define DEVICE       (WORLD_BASE + PAGE_DEVICE * 4096)
#define HOLE         (WORLD_BASE + PAGE_NONE * 4096)
#define RUN(w, code) world_run(w, code, sizeof(code) - 1)

static void start(struct world *w)
{
    world_init(w, memory, 8);
    w->device = true;
    for (unsigned i = 0; i < WORLD_BYTES; i++) {
        memory[i] = i * 7 + (i >> 8);
    }
    w->r.gpr[RDI] = DEVICE + 0x80;
    w->r.gpr[RAX] = 0x1122334455667788;
}

static uint64_t peek(uint64_t linear, unsigned bytes)
{
    uint64_t value = 0;
    memcpy(&value, memory + (linear - WORLD_BASE), bytes);
    return value;
}

static void poke(uint64_t linear, uint64_t value, unsigned bytes)
{
    memcpy(memory + (linear - WORLD_BASE), &value, bytes);
}

static void expect_log(const struct world *w, unsigned n, const char *kinds, unsigned bytes)
{
    assert_int_equal(w->log_n, n);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(w->log[i].kind, kinds[i]);
        assert_int_equal(w->log[i].bytes, bytes);
    }
}

static void test_moves(void **state)
{
    static const struct {
        const char *code;
        unsigned len, bytes;
        bool store;
        uint64_t result; /* of RAX for loads */
    } moves[] = {
        {"\x88\x07", 2, 1, true, 0},
        {"\x66\x89\x07", 3, 2, true, 0},
        {"\x89\x07", 2, 4, true, 0},
        {"\x48\x89\x07", 3, 8, true, 0},
        {"\x8a\x07", 2, 1, false, 0x11223344556677f0},
        {"\x66\x8b\x07", 3, 2, false, 0x112233445566f1f0},
        {"\x8b\x07", 2, 4, false, 0xf3f2f1f0},
        {"\x48\x8b\x07", 3, 8, false, 0xf7f6f5f4f3f2f1f0},
        {"\x0f\xb6\x07", 3, 1, false, 0xf0},
        {"\x0f\xb7\x07", 3, 2, false, 0xf1f0},
        {"\x0f\xbe\x07", 3, 1, false, 0xfffffff0},
        {"\x48\x0f\xbf\x07", 4, 2, false, 0xfffffffffffff1f0},
        {"\x48\x63\x07", 3, 4, false, 0xfffffffff3f2f1f0},
        {"\x0f\x38\xf0\x07", 4, 4, false, 0xf0f1f2f3},
        {"\x0f\x38\xf1\x07", 4, 4, true, 0},
        {"\x0f\xc3\x07", 3, 4, true, 0},
        {"\xc7\x07\x78\x56\x34\x12", 6, 4, true, 0},
        {"\xaa", 1, 1, true, 0},
        {"\xab", 1, 4, true, 0},
    };
    struct world w;
    (void)state;
    for (unsigned i = 0; i < sizeof(moves) / sizeof(moves[0]); i++) {
        start(&w);
        poke(DEVICE + 0x80, 0xf7f6f5f4f3f2f1f0, 8);
        assert_int_equal(world_run(&w, moves[i].code, moves[i].len), EMUL_OK);
        expect_log(&w, 1, moves[i].store ? "w" : "r", moves[i].bytes);
        assert_int_equal(w.log[0].where, DEVICE + 0x80);
        assert_int_equal(w.r.rip, WORLD_BASE + 0x100 + moves[i].len);
        if (!moves[i].store) {
            assert_int_equal(w.r.gpr[RAX], moves[i].result);
        }
    }
    start(&w);
    assert_int_equal(RUN(&w, "\x0f\x38\xf1\x07"), EMUL_OK);
    assert_int_equal(w.log[0].value, 0x88776655);
    start(&w); /* moffs */
    poke(DEVICE, 0x12345678, 4);
    assert_int_equal(RUN(&w, "\xa1\x00\xa0\x00\x10\x00\x00\x00\x00"), EMUL_OK);
    assert_int_equal(w.r.gpr[RAX], 0x12345678);
    start(&w); /* high bytes */
    assert_int_equal(RUN(&w, "\x88\x27"), EMUL_OK);
    assert_int_equal(w.log[0].value, 0x77);
    start(&w); /* with REX it is SPL */
    assert_int_equal(RUN(&w, "\x40\x88\x27"), EMUL_OK);
    assert_int_equal(w.log[0].value, 0x00);
}

/* Read-modify-write: one read, one write; XCHG and LOCK through cmpxchg. */
static void test_modify(void **state)
{
    static const struct {
        const char *code;
        unsigned len;
        uint32_t result;
        bool locked;
    } cases[] = {
        {"\x01\x07", 2, 0x55667788 + 0x1000000f, false},
        {"\x09\x07", 2, 0x55667788 | 0x1000000f, false},
        {"\x21\x07", 2, 0x55667788 & 0x1000000f, false},
        {"\x29\x07", 2, 0x1000000f - 0x55667788, false},
        {"\x31\x07", 2, 0x55667788 ^ 0x1000000f, false},
        {"\x83\x0f\x30", 3, 0x1000003f, false},
        {"\xff\x07", 2, 0x10000010, false},
        {"\xff\x0f", 2, 0x1000000e, false},
        {"\xf7\x17", 2, ~0x1000000fu, false},
        {"\xf7\x1f", 2, -0x1000000fu, false},
        {"\xd1\x27", 2, 0x2000001e, false},
        {"\xc1\x07\x04", 3, 0x000000f1, false},
        {"\x0f\xba\x2f\x05", 4, 0x1000002f, false},
        {"\x0f\xba\x37\x00", 4, 0x1000000e, false},
        {"\x87\x07", 2, 0x55667788, true},
        {"\xf0\x09\x07", 3, 0x55667788 | 0x1000000f, true},
        {"\xf0\xff\x07", 3, 0x10000010, true},
        {"\x0f\xc1\x07", 3, 0x55667788 + 0x1000000f, false},
        {"\xf0\x0f\xc1\x07", 4, 0x55667788 + 0x1000000f, true},
        {"\x0f\xb1\x0f", 3, 0x1000000f, false}, /* not equal: written back */
        {"\x0f\xa4\x07\x08", 4, 0x00000f55, false},
    };
    struct world w;
    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        start(&w);
        poke(DEVICE + 0x80, 0x1000000f, 4);
        assert_int_equal(world_run(&w, cases[i].code, cases[i].len), EMUL_OK);
        expect_log(&w, 2, cases[i].locked ? "mc" : "mw", 4);
        assert_int_equal(w.log[1].value, cases[i].result);
        assert_int_equal(peek(DEVICE + 0x80, 4), cases[i].result);
    }
    start(&w); /* CMP and TEST only read */
    assert_int_equal(RUN(&w, "\x39\x07"), EMUL_OK);
    expect_log(&w, 1, "r", 4);
    assert_int_equal(RUN(&w, "\x85\x07"), EMUL_OK);
    expect_log(&w, 1, "r", 4);
    start(&w); /* the bit offset reaches away */
    w.r.gpr[RAX] = 8 * 64 + 3;
    assert_int_equal(RUN(&w, "\x48\x0f\xab\x07"), EMUL_OK);
    expect_log(&w, 2, "mw", 8);
    assert_int_equal(w.log[0].where, DEVICE + 0x80 + 64);
    start(&w);
    w.r.gpr[RAX] = -1ull;
    assert_int_equal(RUN(&w, "\x0f\xa3\x07"), EMUL_OK);
    expect_log(&w, 1, "r", 4);
    assert_int_equal(w.log[0].where, DEVICE + 0x7c);
}

static void test_contention(void **state)
{
    struct world w;
    (void)state;
    start(&w);
    w.contended = true;
    w.r.gpr[RDI] = WORLD_BASE + 0x2000;
    poke(w.r.gpr[RDI], 41, 8);
    assert_int_equal(RUN(&w, "\xf0\x48\xff\x07"), EMUL_OK);
    assert_int_equal(peek(w.r.gpr[RDI], 8), 43); /* theirs and ours */
    start(&w);
    w.contended = true;
    w.r.gpr[RDI] = WORLD_BASE + 0x2000;
    poke(w.r.gpr[RDI], 41, 8);
    assert_int_equal(RUN(&w, "\x48\x87\x07"), EMUL_OK);
    assert_int_equal(w.r.gpr[RAX], 42);
    start(&w); /* CMPXCHG whose expectation is overtaken */
    w.contended = true;
    w.r.gpr[RDI] = WORLD_BASE + 0x2000;
    w.r.gpr[RAX] = 41;
    w.r.gpr[RCX] = 7;
    poke(w.r.gpr[RDI], 41, 4);
    assert_int_equal(RUN(&w, "\xf0\x0f\xb1\x0f"), EMUL_OK);
    assert_int_equal(w.r.gpr[RAX], 42);
    assert_int_equal(w.r.rflags & 0x40, 0);
    assert_int_equal(peek(w.r.gpr[RDI], 4), 42);
}

/* A cmpxchg that never succeeds. */
static enum emul_result never(struct emul_ctx *c, uint64_t linear, void *old, const void *new_val,
                              unsigned bytes, bool *done)
{
    (void)c, (void)linear, (void)old, (void)new_val, (void)bytes;
    *done = false;
    return EMUL_OK;
}

static void test_contention_bounded(void **state)
{
    static const char *codes[] = {"\xf0\x01\x07", "\xf0\x0f\xc7\x0f", "\x87\x07\x90"};
    struct emul_ops ops = world_ops;
    struct world w;
    (void)state;
    ops.cmpxchg = never;
    for (unsigned i = 0; i < 3; i++) {
        start(&w);
        w.c.ops = &ops;
        w.r.gpr[RDI] = WORLD_BASE + 0x2000;
        struct emul_regs before = w.r;
        assert_int_equal(world_run(&w, codes[i], 4), EMUL_OK);
        assert_memory_equal(&before, &w.r, sizeof(before)); /* the guest tries again */
    }
}

static void test_cmpxchg_pair(void **state)
{
    struct world w;
    (void)state;
    for (unsigned equal = 0; equal < 2; equal++) {
        for (unsigned lock = 0; lock < 2; lock++) {
            start(&w);
            w.r.gpr[RDI] = WORLD_BASE + 0x2000;
            poke(w.r.gpr[RDI], 0x1111, 8);
            poke(w.r.gpr[RDI] + 8, 0x2222, 8);
            w.r.gpr[RAX] = equal ? 0x1111 : 0x1112;
            w.r.gpr[RDX] = 0x2222;
            w.r.gpr[RBX] = 0x3333;
            w.r.gpr[RCX] = 0x4444;
            const char *code = lock ? "\xf0\x48\x0f\xc7\x0f" : "\x48\x0f\xc7\x0f\x90";
            assert_int_equal(world_run(&w, code, 5), EMUL_OK);
            assert_int_equal(!!(w.r.rflags & 0x40), equal);
            assert_int_equal(peek(w.r.gpr[RDI], 8), equal ? 0x3333 : 0x1111);
            assert_int_equal(peek(w.r.gpr[RDI] + 8, 8), equal ? 0x4444 : 0x2222);
            assert_int_equal(w.r.gpr[RAX], 0x1111);
        }
    }
    start(&w);
    w.r.gpr[RDI] = WORLD_BASE + 0x2008; /* not on 16 bytes */
    assert_int_equal(RUN(&w, "\x48\x0f\xc7\x0f"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 13);
    start(&w);
    w.r.gpr[RDI] = WORLD_BASE + 0x2004; /* CMPXCHG8B does not mind */
    assert_int_equal(RUN(&w, "\x0f\xc7\x0f"), EMUL_OK);
}

/* A pending device leaves everything as it was; the same instruction then completes. */
static void test_retry(void **state)
{
    static const char *codes[] = {"\x8b\x07\x90\x90", "\x01\x07\x90\x90", "\xf0\x01\x07\x90",
                                  "\x87\x07\x90\x90", "\xff\x37\x90\x90", "\x0f\x10\x07\x90",
                                  "\x8f\x07\x90\x90", "\xa7\x90\x90\x90", "\xff\x17\x90\x90",
                                  "\x0f\xb1\x0f\x90"};
    struct world w;
    (void)state;
    for (unsigned i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        start(&w);
        w.pending = true;
        w.r.gpr[RSI] = WORLD_BASE + 0x2000;
        if (codes[i][0] == '\x8f') { /* POP from the device */
            w.r.gpr[RSP] = DEVICE + 0x100;
        }
        poke(DEVICE + 0x80, WORLD_BASE + 0x1234, 8);
        struct world before = w;
        static uint8_t saved[WORLD_BYTES];
        memcpy(saved, memory, sizeof(saved));
        assert_int_equal(world_run(&w, codes[i], 4), EMUL_RETRY);
        assert_memory_equal(&before.r, &w.r, sizeof(w.r));
        assert_memory_equal(before.vec, w.vec, sizeof(w.vec));
        assert_memory_equal(saved, memory, sizeof(saved));
        assert_int_equal(world_run(&w, codes[i], 4), EMUL_OK);
        assert_true(w.r.rip != before.r.rip);
    }
}

static bool reads_or_writes(struct world *w)
{
    const struct emul_insn *in = &w->c.insn;
    if (in->map == EMUL_MAP_0F && (in->opcode & 0xe7) == 0xa3 && in->reg > RBX) {
        return false; /* BT with an address as bit offset: far away */
    }
    if (in->map == EMUL_MAP_0F && (in->opcode == 0x0d || (in->opcode & 0xf8) == 0x18 ||
                                   in->opcode == 0xae || in->opcode == 0x01)) {
        return false; /* hints, CLFLUSH, INVLPG */
    }
    return in->mem && !(in->map == EMUL_MAP_1BYTE && in->opcode == 0x8d);
}

/*
 * Every opcode of the maps with a memory operand: where it works on plain memory, it must fault
 * with #PF and leave all alone when the operand begins or ends in a page that is not there.
 */
static unsigned sweep(unsigned map, unsigned prefix)
{
    static uint8_t saved[WORLD_BYTES];
    unsigned tested = 0;
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        for (unsigned reg = 0; reg < 8; reg++) {
            uint8_t code[15] = {0};
            unsigned n = 0;
            if (prefix) {
                code[n++] = prefix;
            }
            if (map) {
                code[n++] = 0x0f;
            }
            code[n++] = opcode;
            code[n++] = reg << 3 | 7; /* (%rdi) */
            struct world w;
            start(&w);
            w.r.gpr[RDI] = WORLD_BASE + 0x2000;
            memset(memory + 0x2000, 0, 64);
            memset(memory + 0x4000, 0, 64);
            w.r.gpr[RAX] = 5;
            w.r.gpr[RDX] = 0;
            memory[0x2000] = 3; /* a divisor */
            if (world_run(&w, code, 15) != EMUL_OK || !reads_or_writes(&w)) {
                continue;
            }
            for (unsigned before = 0; before < 2; before++) {
                start(&w);
                w.device = false;
                w.r.gpr[RDI] = before ? HOLE + 4095 : HOLE;
                w.r.gpr[RAX] = 5;
                struct world saved_world = w;
                memcpy(saved, memory, sizeof(saved));
                enum emul_result res = world_run(&w, code, 15);
                if (res != EMUL_EXCEPTION || (w.c.exc_vector != 14 && w.c.exc_vector != 13) ||
                    (w.c.exc_vector == 14 && w.c.exc_cr2 != w.r.gpr[RDI]) ||
                    memcmp(&saved_world.r, &w.r, sizeof(w.r)) ||
                    memcmp(saved, memory, sizeof(saved))) {
                    print_error("prefix %x map %u opcode %02x /%u: result %u vector %u\n", prefix,
                                map, opcode, reg, res, w.c.exc_vector);
                    fail();
                }
                tested++;
            }
        }
    }
    return tested;
}

static void test_faults(void **state)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3, 0x48};
    unsigned tested = 0;
    (void)state;
    for (unsigned i = 0; i < sizeof(prefixes); i++) {
        tested += sweep(0, prefixes[i]) + sweep(1, prefixes[i]);
    }
    print_message("%u faulting forms\n", tested);
    assert_true(tested > 2000);
}

/* Operands of several bytes that end in the missing page, and writes to a read-only one. */
static void test_fault_addresses(void **state)
{
    struct world w;
    (void)state;
    start(&w);
    w.r.gpr[RDI] = HOLE - 3;
    assert_int_equal(RUN(&w, "\x48\x8b\x07"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 14);
    assert_int_equal(w.c.exc_cr2, HOLE);
    assert_int_equal(w.c.exc_error, 0);
    assert_int_equal(RUN(&w, "\x48\x89\x07"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_error, 2);
    assert_int_equal(RUN(&w, "\x48\x01\x07"), EMUL_EXCEPTION); /* read to write: faults as write */
    assert_int_equal(w.c.exc_error, 2);
    w.r.gpr[RDI] = WORLD_BASE + PAGE_RO * 4096;
    assert_int_equal(RUN(&w, "\x48\x01\x07"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_error, 3);
    assert_int_equal(RUN(&w, "\x48\x8b\x07"), EMUL_OK);
    w.c.cpl = 3;
    assert_int_equal(RUN(&w, "\x48\x89\x07"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_error, 7);
}

static void test_canonical(void **state)
{
    struct world w;
    (void)state;
    start(&w);
    w.r.gpr[RDI] = 0x0000800000000000;
    assert_int_equal(RUN(&w, "\x8b\x07"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 13);
    w.r.gpr[RBP] = 0x00007ffffffffffd; /* ends beyond */
    assert_int_equal(RUN(&w, "\x8b\x45\x00"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 12);
    w.r.gpr[RSP] = 0x0000800000000008;
    assert_int_equal(RUN(&w, "\x58"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 12);
    w.r.gpr[RDI] = 0x0000800000000000;
    w.c.cr4 |= 1 << 12; /* five levels */
    assert_int_equal(RUN(&w, "\x8b\x07"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 14);
}

static void test_vectors(void **state)
{
    struct world w;
    (void)state;
    start(&w);
    for (unsigned i = 0; i < 32; i++) {
        w.vec[1][i] = i;
    }
    assert_int_equal(RUN(&w, "\x0f\x29\x0f"), EMUL_OK); /* movaps %xmm1,(%rdi) */
    expect_log(&w, 1, "w", 16);
    assert_memory_equal(memory + (DEVICE + 0x80 - WORLD_BASE), w.vec[1], 16);
    assert_int_equal(RUN(&w, "\xc5\xfc\x29\x0f"), EMUL_OK); /* vmovaps %ymm1 */
    expect_log(&w, 1, "w", 32);
    assert_memory_equal(memory + (DEVICE + 0x80 - WORLD_BASE), w.vec[1], 32);
    memset(w.vec[2], 0xee, 32);
    assert_int_equal(RUN(&w, "\x0f\x10\x17"), EMUL_OK); /* movups: upper half kept */
    assert_memory_equal(w.vec[2], w.vec[1], 16);
    assert_int_equal(w.vec[2][16], 0xee);
    assert_int_equal(RUN(&w, "\xc5\xf8\x10\x17"), EMUL_OK); /* vmovups: cleared */
    assert_int_equal(w.vec[2][16], 0);
    w.r.gpr[RDI]++;
    assert_int_equal(RUN(&w, "\x0f\x29\x0f"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 13);
    assert_int_equal(RUN(&w, "\x0f\x11\x0f"), EMUL_OK);
    w.c.cr0 |= 8; /* TS */
    assert_int_equal(RUN(&w, "\x0f\x11\x0f"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 7);
    w.c.cr0 |= 4; /* EM */
    assert_int_equal(RUN(&w, "\x0f\x11\x0f"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 6);
    w.c.cr0 &= ~12ull;
    w.c.cr4 &= ~0x200ull; /* OSFXSR */
    assert_int_equal(RUN(&w, "\x0f\x11\x0f"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 6);
    assert_int_equal(RUN(&w, "\x0f\x7f\x0f"), EMUL_OK); /* MMX does not need it */
    w.c.cr4 &= ~0x40000ull;                             /* OSXSAVE */
    assert_int_equal(RUN(&w, "\xc5\xf8\x10\x17"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 6);
    assert_int_equal(RUN(&w, "\x0f\x58\xc1"), EMUL_UNHANDLEABLE); /* addps */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moves),        cmocka_unit_test(test_modify),
        cmocka_unit_test(test_contention),   cmocka_unit_test(test_contention_bounded),
        cmocka_unit_test(test_cmpxchg_pair), cmocka_unit_test(test_retry),
        cmocka_unit_test(test_faults),       cmocka_unit_test(test_fault_addresses),
        cmocka_unit_test(test_canonical),    cmocka_unit_test(test_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
