/* sources: vmm/platform/emul_*.c */
/*
 * Segments, privilege and system registers: selector loads with their faults, real mode's far
 * branches, interrupt shadows, and the instructions that go to operations.
 */
#include "test_emul.h"

static uint8_t memory[WORLD_BYTES];
static struct emul_ops ops;
#define RUN(w, code) world_run(w, code, sizeof(code) - 1)

static enum emul_result read_cr(struct emul_ctx *c, unsigned cr, uint64_t *val)
{
    *val = world_of(c)->cr[cr];
    return EMUL_OK;
}

static enum emul_result write_cr(struct emul_ctx *c, unsigned cr, uint64_t val)
{
    world_of(c)->cr[cr] = val;
    return EMUL_OK;
}

static enum emul_result read_dr(struct emul_ctx *c, unsigned dr, uint64_t *val)
{
    *val = world_of(c)->dr[dr];
    return EMUL_OK;
}

static enum emul_result write_dr(struct emul_ctx *c, unsigned dr, uint64_t val)
{
    world_of(c)->dr[dr] = val;
    return EMUL_OK;
}

static enum emul_result write_xcr(struct emul_ctx *c, unsigned xcr, uint64_t val)
{
    world_of(c)->xcr = val + xcr;
    return EMUL_OK;
}

static enum emul_result read_msr(struct emul_ctx *c, uint32_t msr, uint64_t *val)
{
    *val = world_of(c)->msr + msr;
    return msr == 0x666 ? emul_fault(c, 13, 0) : EMUL_OK;
}

static enum emul_result write_msr(struct emul_ctx *c, uint32_t msr, uint64_t val)
{
    world_of(c)->msr = val ^ msr;
    return EMUL_OK;
}

static enum emul_result cpuid(struct emul_ctx *c, uint32_t r[4])
{
    (void)c;
    uint32_t leaf = r[0], sub = r[2];
    for (unsigned i = 0; i < 4; i++) {
        r[i] = leaf + sub * 16 + i;
    }
    return EMUL_OK;
}

static enum emul_result wbinvd(struct emul_ctx *c)
{
    world_of(c)->retired++;
    return EMUL_OK;
}

static enum emul_result invlpg(struct emul_ctx *c, uint64_t linear)
{
    uint64_t zero = 0;
    log_access(world_of(c), 'f', linear, &zero, 1);
    return EMUL_OK;
}

static void start(struct world *w, unsigned mode)
{
    memset(memory, 0, sizeof(memory));
    world_init(w, memory, mode);
    ops = world_ops;
    ops.read_cr = read_cr;
    ops.write_cr = write_cr;
    ops.read_dr = read_dr;
    ops.write_dr = write_dr;
    ops.write_xcr = write_xcr;
    ops.read_msr = read_msr;
    ops.write_msr = write_msr;
    ops.cpuid = cpuid;
    ops.wbinvd = wbinvd;
    ops.invlpg = invlpg;
    w->c.ops = &ops;
}

static void poke(uint32_t offset, uint64_t value, unsigned bytes)
{
    memcpy(memory + offset, &value, bytes);
}

static uint64_t peek(uint32_t offset, unsigned bytes)
{
    uint64_t value = 0;
    memcpy(&value, memory + offset, bytes);
    return value;
}

static void test_real_mode_segments(void **state)
{
    struct world w;
    (void)state;
    start(&w, 1);
    w.r.gpr[RAX] = 0xb800;
    uint32_t limit = w.c.seg[EMUL_SEG_ES].limit;
    assert_int_equal(RUN(&w, "\x8e\xc0"), EMUL_OK);
    assert_int_equal(w.c.seg[EMUL_SEG_ES].base, 0xb8000);
    assert_int_equal(w.c.seg[EMUL_SEG_ES].sel, 0xb800);
    assert_int_equal(w.c.seg[EMUL_SEG_ES].limit, limit);
    assert_int_equal(w.c.interrupt_shadow, EMUL_SHADOW_NONE);
    assert_int_equal(RUN(&w, "\x8c\xc1"), EMUL_OK);
    assert_int_equal(w.r.gpr[RCX], 0xb800);
    start(&w, 1); /* MOV SS and POP SS hold interrupts */
    w.r.gpr[RAX] = 0x1000;
    assert_int_equal(RUN(&w, "\x8e\xd0"), EMUL_OK);
    assert_int_equal(w.c.interrupt_shadow, EMUL_SHADOW_MOV_SS);
    assert_int_equal(RUN(&w, "\x90"), EMUL_OK);
    assert_int_equal(w.c.interrupt_shadow, EMUL_SHADOW_NONE);
    assert_int_equal(RUN(&w, "\x8e\xc8"), EMUL_EXCEPTION); /* CS */
    assert_int_equal(w.c.exc_vector, 6);
    assert_int_equal(RUN(&w, "\x8e\xf0"), EMUL_EXCEPTION); /* no such */
    assert_int_equal(w.c.exc_vector, 6);
    start(&w, 1); /* LDS */
    poke(0x1234, 0x56789abc, 4);
    assert_int_equal(RUN(&w, "\xc5\x36\x34\x12"), EMUL_OK);
    assert_int_equal(w.r.gpr[RSI], 0x9abc);
    assert_int_equal(w.c.seg[EMUL_SEG_DS].base, 0x56780);
    start(&w, 1); /* the segment ends */
    assert_int_equal(RUN(&w, "\xa1\xff\xff"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 13);
    w.r.gpr[RBP] = 0xffff;
    assert_int_equal(RUN(&w, "\x8b\x46\x00"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 12);
    assert_int_equal(RUN(&w, "\x2e\x88\x06\x00\x20"), EMUL_OK); /* real mode writes through CS */
}

static void test_real_mode_far(void **state)
{
    struct world w;
    (void)state;
    start(&w, 1);
    assert_int_equal(RUN(&w, "\xea\x78\x56\x34\x12"), EMUL_OK);
    assert_int_equal(w.r.rip, 0x5678);
    assert_int_equal(w.c.seg[EMUL_SEG_CS].base, 0x12340);
    start(&w, 1);
    assert_int_equal(RUN(&w, "\x9a\x78\x56\x34\x12"), EMUL_OK);
    assert_int_equal(w.r.gpr[RSP], 0x3ffc);
    assert_int_equal(peek(0x3ffc, 2), 0x105);
    assert_int_equal(peek(0x3ffe, 2), 0x33);
    start(&w, 1); /* and back, dropping 4 */
    poke(0x4000, 0x12345678, 4);
    assert_int_equal(RUN(&w, "\xca\x04\x00"), EMUL_OK);
    assert_int_equal(w.r.rip, 0x5678);
    assert_int_equal(w.c.seg[EMUL_SEG_CS].sel, 0x1234);
    assert_int_equal(w.r.gpr[RSP], 0x4008);
    start(&w, 1); /* IRET */
    poke(0x4000, 0x7fd712345678, 6);
    assert_int_equal(RUN(&w, "\xcf"), EMUL_OK);
    assert_int_equal(w.r.rip, 0x5678);
    assert_int_equal(w.r.gpr[RSP], 0x4006);
    assert_int_equal(w.r.rflags, 0x7fd7);
    start(&w, 1); /* through memory */
    poke(0x2000, 0x12345678, 4);
    w.r.gpr[RBX] = 0x2000;
    assert_int_equal(RUN(&w, "\xff\x2f"), EMUL_OK);
    assert_int_equal(w.r.rip, 0x5678);
    assert_int_equal(w.c.seg[EMUL_SEG_CS].sel, 0x1234);
    start(&w, 4);
    assert_int_equal(RUN(&w, "\xea\1\2\3\4\5\6"), EMUL_UNHANDLEABLE);
    assert_int_equal(RUN(&w, "\xcf"), EMUL_UNHANDLEABLE);
    assert_int_equal(RUN(&w, "\xcb"), EMUL_UNHANDLEABLE);
}

/* A descriptor table at 0x1000 of the window. */
static void put_descriptor(unsigned n, uint64_t raw)
{
    poke(0x1000 + 8 * n, raw, 8);
}

static void load_fails(struct world *w, unsigned sel, unsigned vector)
{
    w->r.gpr[RAX] = sel;
    struct world before = *w;
    assert_int_equal(RUN(w, "\x8e\xd8"), EMUL_EXCEPTION);
    assert_int_equal(w->c.exc_vector, vector);
    assert_int_equal(w->c.exc_error, sel & ~3u);
    assert_memory_equal(&before.r, &w->r, sizeof(w->r));
    assert_memory_equal(before.c.seg, w->c.seg, sizeof(w->c.seg));
}

static void test_selectors(void **state)
{
    struct world w;
    (void)state;
    start(&w, 4);
    w.gdt = WORLD_BASE + 0x1000;
    w.gdt_limit = 0x7f;
    put_descriptor(1, 0x12cf92345678abcd); /* flat-ish data, not accessed */
    put_descriptor(2, 0x00cf12000000ffff); /* not present */
    put_descriptor(3, 0x00cf98000000ffff); /* execute only */
    put_descriptor(4, 0x00cf9a000000ffff); /* readable code */
    put_descriptor(5, 0x0000820000000000); /* a system descriptor */
    put_descriptor(6, 0x00cf90000000ffff); /* read-only data */
    put_descriptor(7, 0x00cff2000000ffff); /* DPL 3 */
    w.r.gpr[RAX] = 8;
    assert_int_equal(RUN(&w, "\x8e\xd8"), EMUL_OK);
    assert_int_equal(w.c.seg[EMUL_SEG_DS].base, 0x12345678);
    assert_int_equal(w.c.seg[EMUL_SEG_DS].limit, 0xfabcdfff);
    assert_int_equal(w.c.seg[EMUL_SEG_DS].attr, 0xc93);
    assert_int_equal(memory[0x100d], 0x93); /* accessed now */
    load_fails(&w, 0x10, 11);
    load_fails(&w, 0x18, 13);
    load_fails(&w, 0x28, 13);
    load_fails(&w, 0x80, 13); /* beyond the table */
    load_fails(&w, 0x0c, 13); /* beyond the empty local table */
    load_fails(&w, 0x0b, 13); /* RPL 3 above DPL 0 */
    w.r.gpr[RAX] = 0x20;
    assert_int_equal(RUN(&w, "\x8e\xd8"), EMUL_OK);
    assert_int_equal(RUN(&w, "\x8e\xd0"), EMUL_EXCEPTION); /* code in SS */
    assert_int_equal(w.c.exc_error, 0x20);
    w.r.gpr[RAX] = 0x30;
    assert_int_equal(RUN(&w, "\x8e\xd0"), EMUL_EXCEPTION); /* read-only in SS */
    w.r.gpr[RAX] = 0x3b;
    assert_int_equal(RUN(&w, "\x8e\xd0"), EMUL_EXCEPTION); /* DPL 3 in SS at CPL 0 */
    assert_int_equal(RUN(&w, "\x8e\xd8"), EMUL_OK);
    put_descriptor(2, 0x00cf12000000ffff);
    w.r.gpr[RAX] = 0x10;
    assert_int_equal(RUN(&w, "\x8e\xd0"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 12); /* not present in SS */
    w.r.gpr[RAX] = 2;
    assert_int_equal(RUN(&w, "\x8e\xd0"), EMUL_EXCEPTION); /* null in SS */
    assert_int_equal(w.c.exc_error, 0);
    assert_int_equal(RUN(&w, "\x8e\xd8"), EMUL_OK); /* null in DS, then its use */
    assert_int_equal(RUN(&w, "\xa1\x00\x20\x00\x10"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 13);
    w.r.gpr[RAX] = 8;
    ops.read_table = NULL;
    assert_int_equal(RUN(&w, "\x8e\xd8"), EMUL_UNHANDLEABLE);
}

static void test_segment_checks(void **state)
{
    struct world w;
    (void)state;
    start(&w, 4);
    w.r.gpr[RBX] = WORLD_BASE + 0x2000;
    assert_int_equal(RUN(&w, "\x2e\x8b\x03"), EMUL_OK);        /* read code */
    assert_int_equal(RUN(&w, "\x2e\x89\x03"), EMUL_EXCEPTION); /* not write it */
    assert_int_equal(w.c.exc_vector, 13);
    w.c.seg[EMUL_SEG_CS].attr &= ~2;
    assert_int_equal(RUN(&w, "\x2e\x8b\x03"), EMUL_EXCEPTION); /* execute only */
    w.c.seg[EMUL_SEG_DS].attr &= ~2;
    assert_int_equal(RUN(&w, "\x8b\x03"), EMUL_OK);
    assert_int_equal(RUN(&w, "\x01\x03"), EMUL_EXCEPTION); /* read-only */
    w.c.seg[EMUL_SEG_ES].attr |= 4;                        /* expand-down */
    w.c.seg[EMUL_SEG_ES].limit = WORLD_BASE + 0x1fff;
    assert_int_equal(RUN(&w, "\x26\x8b\x03"), EMUL_OK);
    w.r.gpr[RBX]--;
    assert_int_equal(RUN(&w, "\x26\x8b\x03"), EMUL_EXCEPTION);
    w.r.gpr[RBX] = 0xfffffffe; /* beyond 4 GiB */
    assert_int_equal(RUN(&w, "\x26\x8b\x03"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 13);
    w.c.seg[EMUL_SEG_GS].limit = 0xfff;
    w.r.gpr[RBX] = 0xffd;
    w.c.seg[EMUL_SEG_GS].base = WORLD_BASE;
    assert_int_equal(RUN(&w, "\x65\x8b\x03"), EMUL_EXCEPTION);
    w.r.gpr[RBX] = 0xffc;
    assert_int_equal(RUN(&w, "\x65\x8b\x03"), EMUL_OK);
    w.c.seg_valid = 0; /* and nobody to ask */
    assert_int_equal(RUN(&w, "\x8b\x03"), EMUL_UNHANDLEABLE);
}

static void test_flags(void **state)
{
    struct world w;
    (void)state;
    start(&w, 8);
    assert_int_equal(RUN(&w, "\xfb"), EMUL_OK);
    assert_int_equal(w.c.interrupt_shadow, EMUL_SHADOW_STI);
    assert_true(w.r.rflags & 0x200);
    assert_int_equal(RUN(&w, "\xfb"), EMUL_OK); /* already on: no shadow */
    assert_int_equal(w.c.interrupt_shadow, EMUL_SHADOW_NONE);
    assert_int_equal(RUN(&w, "\xfa"), EMUL_OK);
    assert_false(w.r.rflags & 0x200);
    w.c.cpl = 3;
    assert_int_equal(RUN(&w, "\xfa"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 13);
    w.r.rflags |= 0x3000;
    assert_int_equal(RUN(&w, "\xfb"), EMUL_OK);
    start(&w, 8); /* POPF at CPL 0 changes IF and IOPL, at CPL 3 neither */
    poke(0x4000, 0xffffffff, 8);
    assert_int_equal(RUN(&w, "\x9d"), EMUL_OK);
    assert_int_equal(w.r.rflags, 0x247fd7);
    w.r.rflags = 0x10002;
    w.r.gpr[RSP] = WORLD_BASE + 0x4000;
    w.c.cpl = 3;
    assert_int_equal(RUN(&w, "\x66\x9d"), EMUL_OK);
    assert_int_equal(w.r.rflags, 0x4dd7);
    start(&w, 1); /* virtual-8086 mode below IOPL 3 */
    w.c.cr0 |= 1;
    w.c.cpl = 3;
    w.c.cr4 = 0;
    w.r.rflags |= 0x20000;
    assert_int_equal(RUN(&w, "\x9c"), EMUL_EXCEPTION);
    assert_int_equal(RUN(&w, "\x9d"), EMUL_EXCEPTION);
    assert_int_equal(RUN(&w, "\xfa"), EMUL_EXCEPTION);
    assert_int_equal(RUN(&w, "\xcf"), EMUL_EXCEPTION);
    w.r.rflags |= 0x3000;
    assert_int_equal(RUN(&w, "\x9c"), EMUL_OK);
    assert_int_equal(peek(0x3ffe, 2), 0x3002);
    assert_int_equal(RUN(&w, "\xfa"), EMUL_OK);
}

static void test_system_registers(void **state)
{
    struct world w;
    (void)state;
    start(&w, 8);
    w.cr[0] = 0x8005003b;
    w.r.gpr[RAX] = 0x1234567890;
    assert_int_equal(RUN(&w, "\x0f\x22\xd8"), EMUL_OK);
    assert_int_equal(w.cr[3], 0x1234567890);
    assert_int_equal(RUN(&w, "\x44\x0f\x22\xc0"), EMUL_OK);
    assert_int_equal(w.cr[8], 0x1234567890);
    w.cr[8] = 5;
    assert_int_equal(RUN(&w, "\xf0\x0f\x20\xc1"), EMUL_OK); /* LOCK MOV CR0: CR8 */
    assert_int_equal(w.r.gpr[RCX], 5);
    assert_int_equal(RUN(&w, "\x0f\x20\xc8"), EMUL_EXCEPTION); /* CR1 */
    assert_int_equal(w.c.exc_vector, 6);
    assert_int_equal(RUN(&w, "\x0f\x06"), EMUL_OK); /* CLTS */
    assert_int_equal(w.cr[0], 0x80050033);
    w.r.gpr[RAX] = 0xfff8;
    assert_int_equal(RUN(&w, "\x0f\x01\xf0"), EMUL_OK); /* LMSW: PE stays, TS comes */
    assert_int_equal(w.cr[0], 0x80050039);
    assert_int_equal(RUN(&w, "\x0f\x01\xe2"), EMUL_OK); /* SMSW %edx */
    assert_int_equal(w.r.gpr[RDX], 0x80050039);
    w.r.gpr[RAX] = 0x400;
    assert_int_equal(RUN(&w, "\x0f\x23\xf8"), EMUL_OK);
    assert_int_equal(w.dr[7], 0x400);
    assert_int_equal(RUN(&w, "\x0f\x21\xf9"), EMUL_OK);
    assert_int_equal(w.r.gpr[RCX], 0x400);
    w.r.gpr[RCX] = 0x1b;
    w.r.gpr[RDX] = 0xffffffff00000002;
    w.r.gpr[RAX] = 0xffffffff00000900;
    assert_int_equal(RUN(&w, "\x0f\x30"), EMUL_OK);
    assert_int_equal(w.msr, 0x200000900ull ^ 0x1b);
    w.msr = 0x1122334455667788;
    w.r.gpr[RCX] = 0;
    assert_int_equal(RUN(&w, "\x0f\x32"), EMUL_OK);
    assert_int_equal(w.r.gpr[RAX], 0x55667788);
    assert_int_equal(w.r.gpr[RDX], 0x11223344);
    w.r.gpr[RCX] = 0x666;
    assert_int_equal(RUN(&w, "\x0f\x32"), EMUL_EXCEPTION);
    assert_int_equal(w.r.gpr[RAX], 0x55667788);
    w.msr = 0;
    assert_int_equal(RUN(&w, "\x0f\x31"), EMUL_OK);
    assert_int_equal(w.r.gpr[RAX], 0x10);
    assert_int_equal(RUN(&w, "\x0f\x01\xf9"), EMUL_OK);
    assert_int_equal(w.r.gpr[RCX], 0xc0000103);
    w.r.gpr[RAX] = 7;
    w.r.gpr[RCX] = 1;
    assert_int_equal(RUN(&w, "\x0f\xa2"), EMUL_OK);
    assert_int_equal(w.r.gpr[RAX], 23);
    assert_int_equal(w.r.gpr[RBX], 24);
    assert_int_equal(w.r.gpr[RCX], 25);
    assert_int_equal(w.r.gpr[RDX], 26);
    w.r.gpr[RCX] = 0;
    w.r.gpr[RAX] = 7;
    w.r.gpr[RDX] = 0;
    assert_int_equal(RUN(&w, "\x0f\x01\xd1"), EMUL_OK);
    assert_int_equal(w.xcr, 7);
    assert_int_equal(RUN(&w, "\x0f\x09"), EMUL_OK);
    assert_int_equal(RUN(&w, "\x0f\x08"), EMUL_OK);
    assert_int_equal(w.retired, 2);
    w.r.gpr[RDI] = 0x123456;
    assert_int_equal(RUN(&w, "\x0f\x01\x3f"), EMUL_OK);
    assert_int_equal(w.log[0].where, 0x123456);
    w.r.gpr[RDI] = 1ull << 63; /* not canonical: nothing */
    assert_int_equal(RUN(&w, "\x0f\x01\x3f"), EMUL_OK);
    assert_int_equal(w.log_n, 0);
    assert_int_equal(RUN(&w, "\x0f\x01\xcb"), EMUL_OK);
    assert_true(w.r.rflags & 0x40000);
    assert_int_equal(RUN(&w, "\x0f\x01\xca"), EMUL_OK);
    assert_false(w.r.rflags & 0x40000);
}

static void test_privilege(void **state)
{
    static const char privileged[][4] = {
        "\x0f\x20\xc0", "\x0f\x22\xc0", "\x0f\x21\xc0", "\x0f\x23\xc0", "\x0f\x06",
        "\x0f\x08",     "\x0f\x09",     "\x0f\x30",     "\x0f\x32",     "\x0f\x01\xf0",
        "\x0f\x01\x3f", "\x0f\x01\xd1", "\xfa",         "\xec"};
    static const char refused[][4] = {"\xf4",     "\x0f\x01\xd9", "\x0f\x01\xc1", "\xcc",
                                      "\xcd\x80", "\x0f\x05",     "\x0f\x33",     "\x0f\x01\xc8",
                                      "\x9b",     "\xd9\x07",     "\x0f\x58\xc1", "\x0f\xae\x07"};
    struct world w;
    (void)state;
    for (unsigned i = 0; i < sizeof(privileged) / 4; i++) {
        start(&w, 8);
        assert_int_equal(world_run(&w, privileged[i], 4), EMUL_OK);
        w.c.cpl = 3;
        assert_int_equal(world_run(&w, privileged[i], 4), EMUL_EXCEPTION);
        assert_int_equal(w.c.exc_vector, 13);
    }
    for (unsigned i = 0; i < sizeof(refused) / 4; i++) {
        start(&w, 8);
        struct world before = w;
        assert_int_equal(world_run(&w, refused[i], 4), EMUL_UNHANDLEABLE);
        assert_true(w.c.insn.len > 0);
        assert_memory_equal(&before.r, &w.r, sizeof(w.r));
    }
    start(&w, 8);
    w.c.ops = &world_ops; /* without the operations */
    for (unsigned i = 0; i < 12; i++) {
        assert_int_equal(world_run(&w, privileged[i], 4), EMUL_UNHANDLEABLE);
    }
    start(&w, 8);
    w.c.cr4 |= 4; /* TSD */
    w.c.cpl = 3;
    assert_int_equal(RUN(&w, "\x0f\x31"), EMUL_EXCEPTION);
    start(&w, 8); /* trace flag, resume flag */
    w.r.rflags |= 0x10100;
    assert_int_equal(RUN(&w, "\x90"), EMUL_OK);
    assert_true(w.c.single_step);
    assert_int_equal(w.r.rflags, 0x102);
}

static void test_stack(void **state)
{
    struct world w;
    (void)state;
    start(&w, 8); /* POP to memory based on RSP uses the new RSP */
    poke(0x4000, 0x1122334455667788, 8);
    assert_int_equal(RUN(&w, "\x8f\x44\x24\x08"), EMUL_OK);
    assert_int_equal(peek(0x4010, 8), 0x1122334455667788);
    assert_int_equal(w.r.gpr[RSP], WORLD_BASE + 0x4008);
    start(&w, 8);
    assert_int_equal(RUN(&w, "\x54"), EMUL_OK); /* PUSH RSP: the old one */
    assert_int_equal(peek(0x3ff8, 8), WORLD_BASE + 0x4000);
    assert_int_equal(RUN(&w, "\x5c"), EMUL_OK); /* POP RSP */
    assert_int_equal(w.r.gpr[RSP], WORLD_BASE + 0x4000);
    start(&w, 1); /* SP wraps in 16 bits, the upper half of ESP stays */
    w.r.gpr[RSP] = 0x12340000;
    w.r.gpr[RAX] = 0xabcd;
    assert_int_equal(RUN(&w, "\x50"), EMUL_OK);
    assert_int_equal(w.r.gpr[RSP], 0x1234fffe);
    assert_int_equal(peek(0xfffe, 2), 0xabcd);
    start(&w, 8); /* CALL to nowhere */
    w.r.gpr[RAX] = 1ull << 62;
    struct emul_regs before = w.r;
    assert_int_equal(RUN(&w, "\xff\xd0"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 13);
    assert_memory_equal(&before, &w.r, sizeof(before));
    start(&w, 4); /* jump beyond the limit */
    w.c.seg[EMUL_SEG_CS].limit = WORLD_BASE + 0x200;
    assert_int_equal(RUN(&w, "\xe9\x00\x10\x00\x00"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 13);
    assert_int_equal(RUN(&w, "\xeb\x10"), EMUL_OK);
    assert_int_equal(w.r.rip, WORLD_BASE + 0x112);
    start(&w, 8); /* vendors differ on 66 */
    assert_int_equal(RUN(&w, "\x66\xe9\x10\x00\x00\x00"), EMUL_OK);
    assert_int_equal(w.r.rip, 0x0114);
    start(&w, 8);
    w.c.intel = true;
    assert_int_equal(RUN(&w, "\x66\xe9\x10\x00\x00\x00"), EMUL_OK);
    assert_int_equal(w.r.rip, WORLD_BASE + 0x116);
}

/* The quotient's extremes, with a signed divisor of 1 and -1 in RBX. */
static void test_divide(void **state)
{
    struct world w;
    (void)state;
    for (unsigned shift = 0; shift < 4; shift++) {
        unsigned bytes = 1u << shift, bits = 8 * bytes;
        uint64_t low = ~0ull >> (64 - bits), sign = 1ull << (bits - 1);
        for (unsigned i = 0; i < 8; i++) {
            bool negative = i & 1, minus = i & 2, more = i & 4;
            uint64_t dividend = negative ? -sign & low : sign; /* -2^(n-1) or 2^(n-1) */
            uint64_t high = negative ? low : 0;
            if (more) { /* one farther from zero */
                dividend = (negative ? dividend - 1 : dividend + 1) & low;
            }
            start(&w, 8);
            w.r.gpr[RBX] = minus ? ~0ull : 1;
            w.r.gpr[RAX] = bytes == 1 ? high << 8 | dividend : dividend;
            w.r.gpr[RDX] = bytes == 1 ? 0 : high;
            static const char codes[4][4] = {"\xf6\xfb\x90", "\x66\xf7\xfb", "\xf7\xfb\x90",
                                             "\x48\xf7\xfb"};
            enum emul_result res = world_run(&w, codes[shift], 3);
            bool fits = !more && negative != minus;
            assert_int_equal(res, fits ? EMUL_OK : EMUL_EXCEPTION);
            if (fits) {
                assert_int_equal(w.r.gpr[RAX] & low, sign);
            } else {
                assert_int_equal(w.c.exc_vector, 0);
            }
        }
    }
    start(&w, 8); /* 128 by 64 bits */
    w.r.gpr[RDX] = 0x0123456789abcdef;
    w.r.gpr[RAX] = 0xfedcba9876543210;
    w.r.gpr[RBX] = 0x1000000000000000;
    assert_int_equal(RUN(&w, "\x48\xf7\xf3"), EMUL_OK);
    assert_int_equal(w.r.gpr[RAX], 0x123456789abcdeff);
    assert_int_equal(w.r.gpr[RDX], 0x0edcba9876543210);
    w.r.gpr[RBX] = w.r.gpr[RDX];
    assert_int_equal(RUN(&w, "\x48\xf7\xf3"), EMUL_EXCEPTION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_mode_segments),
        cmocka_unit_test(test_real_mode_far),
        cmocka_unit_test(test_selectors),
        cmocka_unit_test(test_segment_checks),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_system_registers),
        cmocka_unit_test(test_privilege),
        cmocka_unit_test(test_stack),
        cmocka_unit_test(test_divide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
