/* sources: vmm/platform/emul_*.c */
/*
 * The decoder alone: lengths and sizes of instructions in every mode, also of those that are not
 * executed, invalid ones, and the fetch across pages and limits.
 */
#include "test_emul.h"

static uint8_t memory[WORLD_BYTES];

struct sample {
    unsigned mode;
    const char *code;
    unsigned len; /* of the instruction; code may be followed by anything */
    uint8_t map, opcode, op_bytes;
};

#define ONE EMUL_MAP_1BYTE
#define TWO EMUL_MAP_0F

static const struct sample samples[] = {
    {8, "\x89\x07", 2, ONE, 0x89, 4},                         /* mov %eax,(%rdi) */
    {8, "\x48\x8b\x04\x25\x30\x00\xe0\xfe", 8, ONE, 0x8b, 8}, /* mov 0xfee00030,%rax */
    {8, "\x8b\x05\x01\x02\x03\x04", 6, ONE, 0x8b, 4},         /* mov disp(%rip),%eax */
    {8, "\x66\xc7\x44\x24\x08\x34\x12", 7, ONE, 0xc7, 2},     /* movw $0x1234,8(%rsp) */
    {8, "\x48\xb8\1\2\3\4\5\6\7\x08", 10, ONE, 0xb8, 8},      /* movabs */
    {8, "\xa1\1\2\3\4\5\6\7\x08", 9, ONE, 0xa1, 4},           /* moffs64 */
    {8, "\x67\xa1\1\2\3\4", 6, ONE, 0xa1, 4},
    {4, "\xa1\1\2\3\4", 5, ONE, 0xa1, 4},
    {4, "\x67\x8b\x40\x05", 4, ONE, 0x8b, 4}, /* mov 5(%bx,%si),%eax */
    {2, "\x8b\x06\x34\x12", 4, ONE, 0x8b, 2},
    {2, "\x66\x67\x8b\x04\x88", 5, ONE, 0x8b, 4},
    {2, "\x66\xb8\1\2\3\4", 6, ONE, 0xb8, 4},
    {8, "\xf6\x00\x12", 3, ONE, 0xf6, 1}, /* testb $,(%rax) */
    {8, "\xf6\x10", 2, ONE, 0xf6, 1},     /* notb */
    {8, "\xf7\x00\1\2\3\4", 6, ONE, 0xf7, 4},
    {8, "\x66\xf7\x00\1\2", 5, ONE, 0xf7, 2},
    {8, "\xf7\x38", 2, ONE, 0xf7, 4},
    {8, "\x0f\xa2", 2, TWO, 0xa2, 4},         /* cpuid */
    {8, "\xf4", 1, ONE, 0xf4, 4},             /* hlt */
    {8, "\x0f\x32", 2, TWO, 0x32, 4},         /* rdmsr */
    {8, "\x0f\x30", 2, TWO, 0x30, 4},         /* wrmsr */
    {8, "\x0f\x31", 2, TWO, 0x31, 4},         /* rdtsc */
    {8, "\x0f\x01\xf9", 3, TWO, 0x01, 4},     /* rdtscp */
    {8, "\x0f\x33", 2, TWO, 0x33, 4},         /* rdpmc */
    {8, "\x0f\x08", 2, TWO, 0x08, 4},         /* invd */
    {8, "\x0f\x09", 2, TWO, 0x09, 4},         /* wbinvd */
    {8, "\x0f\x01\x38", 3, TWO, 0x01, 4},     /* invlpg (%rax) */
    {8, "\x0f\x06", 2, TWO, 0x06, 4},         /* clts */
    {8, "\x0f\x01\xf0", 3, TWO, 0x01, 4},     /* lmsw %ax */
    {8, "\x0f\x01\xe0", 3, TWO, 0x01, 4},     /* smsw %eax */
    {8, "\x0f\x20\xc0", 3, TWO, 0x20, 4},     /* mov %cr0,%rax */
    {8, "\x44\x0f\x22\xc0", 4, TWO, 0x22, 4}, /* mov %rax,%cr8 */
    {8, "\x0f\x22\x04", 3, TWO, 0x22, 4},     /* mod is ignored: no SIB */
    {4, "\x0f\x21\x05", 3, TWO, 0x21, 4},     /* mov %dr0, no displacement */
    {8, "\x0f\x01\xd9", 3, TWO, 0x01, 4},     /* vmmcall */
    {8, "\x0f\x01\xc1", 3, TWO, 0x01, 4},     /* vmcall */
    {8, "\x0f\x01\xd1", 3, TWO, 0x01, 4},     /* xsetbv */
    {8, "\x0f\x01\xc8", 3, TWO, 0x01, 4},     /* monitor */
    {8, "\x0f\x01\xd8", 3, TWO, 0x01, 4},     /* vmrun */
    {8, "\xf3\x90", 2, ONE, 0x90, 4},         /* pause */
    {8, "\x0f\x05", 2, TWO, 0x05, 4},         /* syscall */
    {8, "\xcd\x80", 2, ONE, 0xcd, 4},         /* int */
    {8, "\xcc", 1, ONE, 0xcc, 4},
    {8, "\xd9\x45\x08", 3, ONE, 0xd9, 4},                       /* x87 */
    {8, "\x0f\x58\xc1", 3, TWO, 0x58, 4},                       /* addps */
    {8, "\x66\x0f\x70\x00\x1b", 5, TWO, 0x70, 2},               /* pshufd */
    {8, "\x66\x0f\x38\x00\x00", 5, EMUL_MAP_0F38, 0x00, 2},     /* pshufb */
    {8, "\x66\x0f\x3a\x0f\xc1\x08", 6, EMUL_MAP_0F3A, 0x0f, 2}, /* palignr */
    {8, "\x66\x0f\x78\xc0\x08\x10", 6, TWO, 0x78, 2},           /* extrq */
    {8, "\x0f\x78\xc0", 3, TWO, 0x78, 4},                       /* vmread */
    {8, "\xc5\xf8\x58\xc1", 4, TWO, 0x58, 4},                   /* vaddps */
    {8, "\xc4\xe2\x79\x18\x00", 5, EMUL_MAP_0F38, 0x18, 2},     /* vbroadcastss */
    {8, "\xc4\xe3\x79\x0f\xc1\x08", 6, EMUL_MAP_0F3A, 0x0f, 2},
    {4, "\xc5\xf8\x28\xc1", 4, TWO, 0x28, 4}, /* vmovaps, not lds */
    {4, "\xc5\x00", 2, ONE, 0xc5, 4},         /* lds */
    {4, "\x9a\1\2\3\4\5\6", 7, ONE, 0x9a, 4}, /* far call */
    {2, "\xea\1\2\3\4", 5, ONE, 0xea, 2},
    {8, "\xc8\x10\x00\x01", 4, ONE, 0xc8, 8}, /* enter */
    {8, "\xe8\1\2\3\4", 5, ONE, 0xe8, 8},     /* call */
    {2, "\xe8\1\2", 3, ONE, 0xe8, 2},
    {8, "\x0f\x84\1\2\3\4", 6, TWO, 0x84, 8}, /* jz */
    {8, "\x66\x50", 2, ONE, 0x50, 2},
    {8, "\x50", 1, ONE, 0x50, 8},
    {8, "\xff\x30", 2, ONE, 0xff, 8},             /* push (%rax) */
    {8, "\xff\x00", 2, ONE, 0xff, 4},             /* inc (%rax) */
    {8, "\x40\x66\x8b\x00", 4, ONE, 0x8b, 2},     /* a REX that does not count */
    {8, "\x66\x48\x8b\x00", 4, ONE, 0x8b, 8},     /* REX.W wins over 66 */
    {8, "\xf0\x48\x0f\xc7\x0f", 5, TWO, 0xc7, 8}, /* lock cmpxchg16b */
    {8, "\x0f\xba\x20\x05", 4, TWO, 0xba, 4},     /* bt $5,(%rax) */
    {8, "\x0f\xa4\x00\x05", 4, TWO, 0xa4, 4},     /* shld $5 */
    {8, "\x0f\x0f\x00\xbf", 4, TWO, 0x0f, 4},     /* 3DNow */
    {8, "\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x89\x07", 15, ONE, 0x89, 4},
    {8, "\x8b\x84\x25\1\2\3\4", 7, ONE, 0x8b, 4},     /* no index, disp32 */
    {8, "\x42\x8b\x04\x25\1\2\3\4", 8, ONE, 0x8b, 4}, /* r12 as index */
};

static void test_lengths(void **state)
{
    struct world w;
    (void)state;
    for (unsigned i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        const struct sample *s = &samples[i];
        for (unsigned given = 0; given <= s->len; given++) {
            world_init(&w, memory, s->mode);
            memset(memory + 0x100, 0xcc, 32);
            memcpy(memory + 0x100, s->code, s->len);
            memcpy(w.c.bytes, s->code, given);
            emul_begin(&w.c, given);
            int len = emul_decode(&w.c);
            if (len != (int)s->len || w.c.insn.opcode != s->opcode || w.c.insn.map != s->map ||
                w.c.insn.op_bytes != s->op_bytes || w.c.insn.len != len) {
                print_error("sample %u: len %d opcode %02x\n", i, len, w.c.insn.opcode);
                fail();
            }
        }
    }
}

static int decode(struct world *w, unsigned mode, const char *code, unsigned len)
{
    world_init(w, memory, mode);
    memcpy(w->c.bytes, code, len);
    emul_begin(&w->c, len);
    return emul_decode(&w->c);
}

static void expect_ud(unsigned mode, const char *code, unsigned len)
{
    struct world w;
    if (decode(&w, mode, code, len) != -EMUL_EXCEPTION || w.c.exc_vector != 6 ||
        w.c.exc_has_error || w.c.insn.len) {
        print_error("mode %u: %02x %02x decoded\n", mode, (uint8_t)code[0], (uint8_t)code[1]);
        fail();
    }
}

static void test_invalid_in_64bit(void **state)
{
    static const uint8_t invalid[] = {0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37,
                                      0x3f, 0x60, 0x61, 0x82, 0x9a, 0xce, 0xd4, 0xd5, 0xd6, 0xea};
    (void)state;
    for (unsigned i = 0; i < sizeof(invalid); i++) {
        struct world w;
        char code[15] = {(char)invalid[i]};
        expect_ud(8, code, 15);
        assert_true(decode(&w, 4, code, 15) > 0);
        assert_true(decode(&w, 2, code, 15) > 0);
    }
    expect_ud(8, "\x0f\x0b", 2); /* UD2 */
    expect_ud(4, "\x0f\x0b", 2);
    expect_ud(8, "\x66\xc5\xf8\x28\xc1", 5); /* prefixes before VEX */
    expect_ud(8, "\x48\xc5\xf8\x28\xc1", 5);
    expect_ud(8, "\xf0\xc5\xf8\x28\xc1", 5);
    expect_ud(8, "\xc4\xe4\x79\x18\x00", 5); /* map 4 */
}

/* LOCK: only with a memory destination of an instruction that reads and writes it. */
static void test_lock(void **state)
{
    static const char good[][4] = {"\x00\x00",     "\x01\x00",     "\x09\x00",     "\x11\x00",
                                   "\x19\x00",     "\x21\x00",     "\x29\x00",     "\x31\x00",
                                   "\x80\x00\x01", "\x86\x00",     "\x87\x00",     "\xf6\x10",
                                   "\xf7\x18",     "\xfe\x00",     "\xff\x08",     "\x0f\xab\x00",
                                   "\x0f\xb3\x00", "\x0f\xbb\x00", "\x0f\xb0\x00", "\x0f\xb1\x00",
                                   "\x0f\xc0\x00", "\x0f\xc1\x00", "\x0f\xc7\x08", "\x83\x30\x01"};
    static const char bad[][4] = {
        "\x01\xc0",     "\x02\x00",     "\x03\x00",     "\x38\x00",    "\x39\x00", "\x80\x38\x01",
        "\x83\x38\x01", "\x84\x00",     "\x88\x00",     "\x89\x00",    "\x8b\x00", "\xf6\x00\x01",
        "\xf6\x20",     "\xf7\x38",     "\xff\x10",     "\xff\x30",    "\xfe\xc0", "\x0f\xa3\x00",
        "\x87\xc0",     "\x0f\xb1\xc0", "\x90",         "\xa4",        "\xaa",     "\x50",
        "\xc7\x00",     "\xd1\x00",     "\x0f\xa4\x00", "\x0f\xaf\x00"};
    struct world w;
    (void)state;
    for (unsigned i = 0; i < sizeof(good) / 4; i++) {
        char code[15] = {(char)0xf0, good[i][0], good[i][1], good[i][2]};
        assert_true(decode(&w, 8, code, 15) > 0);
        assert_true(w.c.insn.lock);
    }
    for (unsigned i = 0; i < sizeof(bad) / 4; i++) {
        char code[15] = {(char)0xf0, bad[i][0], bad[i][1], bad[i][2]};
        expect_ud(8, code, 15);
    }
    assert_true(decode(&w, 8, "\xf0\x0f\xba\x28\x05", 5) > 0); /* bts */
    expect_ud(8, "\xf0\x0f\xba\x20\x05", 5);                   /* bt */
}

static void test_too_long(void **state)
{
    struct world w;
    char code[16];
    (void)state;
    memset(code, 0x3e, sizeof(code));
    assert_int_equal(decode(&w, 8, code, 15), -EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 13);
    assert_int_equal(w.c.exc_error, 0);
    assert_true(w.c.exc_has_error);
    memcpy(code + 13, "\x8b\x40", 2); /* its displacement would be the 16th byte */
    assert_int_equal(decode(&w, 8, code, 15), -EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 13);
    memcpy(code + 12, "\x8b\x40\x08", 3);
    assert_int_equal(decode(&w, 8, code, 15), 15);
}

/* The next page is not touched unless the instruction reaches into it. */
static void test_fetch_page(void **state)
{
    const uint32_t hole = PAGE_NONE * 4096;
    static const char code[] = "\xc7\x47\x10\x78\x56\x34\x12"; /* movl $,16(%rdi) */
    struct world w;
    (void)state;
    for (unsigned inside = 1; inside <= 7; inside++) {
        world_init(&w, memory, 8);
        memcpy(memory + hole - inside, code, inside);
        w.r.rip = WORLD_BASE + hole - inside;
        emul_begin(&w.c, 0);
        int len = emul_decode(&w.c);
        if (inside == 7) {
            assert_int_equal(len, 7);
            continue;
        }
        assert_int_equal(len, -EMUL_EXCEPTION);
        assert_int_equal(w.c.exc_vector, 14);
        assert_int_equal(w.c.exc_cr2, WORLD_BASE + hole);
        assert_int_equal(w.c.exc_error, 0x10);
    }
    for (unsigned first = 1; first < 7; first++) { /* across two present pages */
        world_init(&w, memory, 8);
        memcpy(memory + 0x3000 - first, code, 7);
        w.r.rip = WORLD_BASE + 0x3000 - first;
        emul_begin(&w.c, 0);
        assert_int_equal(emul_decode(&w.c), 7);
        assert_int_equal(w.c.insn.imm, 0x12345678);
    }
}

static void test_fetch_limit(void **state)
{
    struct world w;
    (void)state;
    for (unsigned room = 1; room <= 4; room++) {
        world_init(&w, memory, 1);
        memcpy(memory + 0x100, "\x8b\x06\x34\x12", 4);
        w.c.seg[EMUL_SEG_CS].limit = 0x100 + room - 1;
        emul_begin(&w.c, 0);
        int len = emul_decode(&w.c);
        assert_int_equal(len, room == 4 ? 4 : -EMUL_EXCEPTION);
        assert_true(len > 0 || w.c.exc_vector == 13);
    }
    world_init(&w, memory, 8);
    w.r.rip = 0x800000000000;
    emul_begin(&w.c, 0);
    assert_int_equal(emul_decode(&w.c), -EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 13);
}

struct address {
    unsigned mode;
    const char *code;
    unsigned len;
    uint64_t ea;
    uint8_t seg;
};

/* Registers for these: each one is 0x1000 times its number plus 0x100. */
static const struct address addresses[] = {
    {8, "\x8b\x00", 2, 0x100, EMUL_SEG_DS},
    {8, "\x8b\x04\x24", 3, 0x4100, EMUL_SEG_SS},
    {8, "\x8b\x45\x00", 3, 0x5100, EMUL_SEG_SS},
    {8, "\x41\x8b\x45\x00", 4, 0xd100, EMUL_SEG_DS},
    {8, "\x41\x8b\x04\x24", 4, 0xc100, EMUL_SEG_DS},
    {8, "\x8b\x45\xf0", 3, 0x50f0, EMUL_SEG_SS},
    {8, "\x8b\x84\x88\x00\x00\x01\x00", 7, 0x100 + 4 * 0x1100 + 0x10000, EMUL_SEG_DS},
    {8, "\x8b\x04\x0d\xf0\xff\xff\xff", 7, 0x1100 - 16, EMUL_SEG_DS},
    {8, "\x42\x8b\x04\xa0", 4, 0x100 + 4 * 0xc100, EMUL_SEG_DS},
    {8, "\x8b\x05\x10\x00\x00\x00", 6, WORLD_BASE + 0x100 + 6 + 16, EMUL_SEG_DS},
    {8, "\xc7\x05\x10\x00\x00\x00\1\2\3\4", 10, WORLD_BASE + 0x100 + 10 + 16, EMUL_SEG_DS},
    {8, "\x65\x8b\x04\x25\x08\x00\x00\x00", 8, 8, EMUL_SEG_GS},
    {8, "\x36\x8b\x00", 3, 0x100, EMUL_SEG_DS}, /* no effect in 64-bit mode */
    {8, "\x3e\x8b\x45\x00", 4, 0x5100, EMUL_SEG_SS},
    {8, "\x8b\x40\xfe", 3, 0xfe, EMUL_SEG_DS},
    {8, "\x8b\x80\x00\xfe\xff\xff", 6, 0x100 - 0x200ull, EMUL_SEG_DS},
    {8, "\x67\x8b\x80\x00\xfe\xff\xff", 7, 0xffffff00, EMUL_SEG_DS},
    {4, "\x8b\x05\x10\x00\x00\x00", 6, 0x10, EMUL_SEG_DS}, /* absolute */
    {4, "\x8b\x80\x00\xfe\xff\xff", 6, 0xffffff00, EMUL_SEG_DS},
    {4, "\x3e\x8b\x45\x00", 4, 0x5100, EMUL_SEG_DS},
    {4, "\x2e\x8b\x00", 3, 0x100, EMUL_SEG_CS},
    {2, "\x8b\x00", 2, 0x3100 + 0x6100, EMUL_SEG_DS}, /* bx+si */
    {2, "\x8b\x01", 2, 0x3100 + 0x7100, EMUL_SEG_DS},
    {2, "\x8b\x02", 2, 0x5100 + 0x6100, EMUL_SEG_SS},
    {2, "\x8b\x03", 2, 0x5100 + 0x7100, EMUL_SEG_SS},
    {2, "\x8b\x04", 2, 0x6100, EMUL_SEG_DS},
    {2, "\x8b\x05", 2, 0x7100, EMUL_SEG_DS},
    {2, "\x8b\x06\x34\x92", 4, 0x9234, EMUL_SEG_DS},
    {2, "\x8b\x07", 2, 0x3100, EMUL_SEG_DS},
    {2, "\x8b\x46\x00", 3, 0x5100, EMUL_SEG_SS},
    {2, "\x8b\x47\xff", 3, 0x30ff, EMUL_SEG_DS},
    {2, "\x8b\x80\x00\xff", 4, (0x3100 + 0x6100 + 0xff00) & 0xffff, EMUL_SEG_DS},
    {2, "\x67\x8b\x00", 3, 0x100, EMUL_SEG_DS},
};

static void test_addresses(void **state)
{
    struct world w;
    (void)state;
    for (unsigned i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
        const struct address *a = &addresses[i];
        world_init(&w, memory, a->mode);
        w.r.rip = WORLD_BASE + 0x100;
        for (unsigned r = 0; r < 16; r++) {
            w.r.gpr[r] = 0x1000 * r + 0x100;
        }
        memcpy(w.c.bytes, a->code, a->len);
        emul_begin(&w.c, a->len);
        if (emul_decode(&w.c) != (int)a->len || w.c.insn.ea != a->ea || w.c.insn.seg != a->seg) {
            print_error("address %u: ea %lx seg %u\n", i, w.c.insn.ea, w.c.insn.seg);
            fail();
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths),    cmocka_unit_test(test_invalid_in_64bit),
        cmocka_unit_test(test_lock),       cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_fetch_page), cmocka_unit_test(test_fetch_limit),
        cmocka_unit_test(test_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
