/* sources: vmm/platform/emul_*.c */
/*
 * String instructions: batches and their bounds, faults and pending devices in the middle, single
 * steps, ports and their permission.
 */
#include "test_emul.h"

static uint8_t memory[WORLD_BYTES];
#define DEVICE       (WORLD_BASE + PAGE_DEVICE * 4096)
#define HOLE         (WORLD_BASE + PAGE_NONE * 4096)
#define RUN(w, code) world_run(w, code, sizeof(code) - 1)

static struct emul_ops ops;

static void start(struct world *w, unsigned mode)
{
    world_init(w, memory, mode);
    ops = world_ops;
    w->c.ops = &ops;
    w->device = true;
    w->batch_limit = ~0u;
    for (unsigned i = 0; i < WORLD_BYTES; i++) {
        memory[i] = i * 5 + (i >> 8);
    }
}

/* A batch operation that does at most batch_limit items of the plain copy and logs the call. */
static enum emul_result rep_movs(struct emul_ctx *c, uint64_t src, uint64_t dst, unsigned bytes,
                                 unsigned long *reps, bool df)
{
    struct world *w = world_of(c);
    uint64_t asked = *reps;
    log_access(w, 's', dst, &asked, bytes);
    assert_true(*reps > 1);
    uint64_t span = (*reps - 1) * bytes;
    assert_int_equal(src >> 12, (df ? src - span : src + span + bytes - 1) >> 12);
    assert_int_equal(dst >> 12, (df ? dst - span : dst + span + bytes - 1) >> 12);
    if (*reps > w->batch_limit) {
        *reps = w->batch_limit;
    }
    for (unsigned long i = 0; i < *reps; i++) {
        uint64_t at = df ? -(i * bytes) : i * bytes;
        memcpy(memory + (dst + at - WORLD_BASE), memory + (src + at - WORLD_BASE), bytes);
    }
    w->batches++;
    return EMUL_OK;
}

static enum emul_result rep_stos(struct emul_ctx *c, uint64_t dst, uint64_t value, unsigned bytes,
                                 unsigned long *reps, bool df)
{
    struct world *w = world_of(c);
    log_access(w, 's', dst, &value, bytes);
    assert_false(df);
    for (unsigned long i = 0; i < *reps; i++) {
        memcpy(memory + (dst + i * bytes - WORLD_BASE), &value, bytes);
    }
    w->batches++;
    return EMUL_OK;
}

/* The device model has the whole batch: nothing done now, all of it at the second call. */
static enum emul_result rep_pending(struct emul_ctx *c, uint16_t port, uint64_t at, unsigned bytes,
                                    unsigned long *reps, bool df)
{
    struct world *w = world_of(c);
    (void)df;
    uint64_t asked = *reps;
    log_access(w, 's', at, &asked, bytes);
    assert_int_equal(port, 0x1f0);
    if (w->pending) {
        w->pending = false;
        *reps = 0;
        return EMUL_RETRY;
    }
    w->batches++;
    return EMUL_OK;
}

static void retire(struct emul_ctx *c)
{
    world_of(c)->retired++;
}

static void test_batches(void **state)
{
    struct world w;
    (void)state;
    start(&w, 8);
    ops.rep_movs = rep_movs;
    ops.retire = retire;
    w.r.gpr[RSI] = WORLD_BASE + 0x1ff0;
    w.r.gpr[RDI] = WORLD_BASE + 0x5000;
    w.r.gpr[RCX] = 0x400; /* 4 KiB: source pages 1, 2; destination page 5 */
    assert_int_equal(RUN(&w, "\xf3\xa5"), EMUL_OK);
    assert_int_equal(w.r.gpr[RCX], 0);
    assert_int_equal(w.r.gpr[RSI], WORLD_BASE + 0x2ff0);
    assert_int_equal(w.r.gpr[RDI], WORLD_BASE + 0x6000);
    assert_int_equal(w.batches, 2);
    assert_int_equal(w.retired, 2);
    assert_memory_equal(memory + 0x1ff0, memory + 0x5000, 0x1000);
    start(&w, 8); /* an item across a page goes alone */
    ops.rep_movs = rep_movs;
    w.r.gpr[RSI] = WORLD_BASE + 0x1ffe;
    w.r.gpr[RDI] = WORLD_BASE + 0x5000;
    w.r.gpr[RCX] = 5;
    assert_int_equal(RUN(&w, "\xf3\xa5"), EMUL_OK);
    assert_int_equal(w.batches, 1);
    assert_int_equal(w.log[0].value, 4);
    assert_memory_equal(memory + 0x1ffe, memory + 0x5000, 20);
    start(&w, 8); /* downwards */
    ops.rep_movs = rep_movs;
    w.r.rflags |= 0x400;
    w.r.gpr[RSI] = WORLD_BASE + 0x2010;
    w.r.gpr[RDI] = WORLD_BASE + 0x5100;
    w.r.gpr[RCX] = 8;
    assert_int_equal(RUN(&w, "\xf3\xa5"), EMUL_OK);
    assert_int_equal(w.r.gpr[RSI], WORLD_BASE + 0x1ff0);
    assert_int_equal(w.batches, 2); /* 5 items in the upper page, 3 in the lower */
    assert_int_equal(w.log[0].value, 5);
    assert_int_equal(w.log[1].value, 3);
    assert_memory_equal(memory + 0x1ff4, memory + 0x50e4, 32);
    start(&w, 8); /* an operation that does part, then no more: one by one */
    ops.rep_movs = rep_movs;
    w.batch_limit = 0;
    w.r.gpr[RSI] = WORLD_BASE + 0x2000;
    w.r.gpr[RDI] = WORLD_BASE + 0x5000;
    w.r.gpr[RCX] = 8;
    assert_int_equal(RUN(&w, "\xf3\xa4"), EMUL_OK);
    assert_int_equal(w.r.gpr[RCX], 0);
    assert_memory_equal(memory + 0x2000, memory + 0x5000, 8);
    start(&w, 8);
    ops.rep_stos = rep_stos;
    w.r.gpr[RDI] = WORLD_BASE + 0x5000;
    w.r.gpr[RAX] = 0xa1b2c3d4e5f60718;
    w.r.gpr[RCX] = 3;
    assert_int_equal(RUN(&w, "\xf3\xaa"), EMUL_OK);
    assert_int_equal(w.log[0].value, 0x18);
    assert_memory_equal(memory + 0x5000, "\x18\x18\x18", 3);
}

static void test_counts(void **state)
{
    struct world w;
    (void)state;
    start(&w, 8);
    w.r.gpr[RDI] = 0x123; /* RCX 0: no access */
    assert_int_equal(RUN(&w, "\xf3\xab"), EMUL_OK);
    assert_int_equal(w.r.rip, WORLD_BASE + 0x102);
    start(&w, 8);
    w.r.gpr[RDI] = WORLD_BASE + 0x1000;
    w.r.gpr[RCX] = 10000; /* bounded: the guest comes back */
    unsigned calls = 0;
    do {
        assert_int_equal(RUN(&w, "\xf3\xaa"), EMUL_OK);
        calls++;
    } while (w.r.rip == WORLD_BASE + 0x100);
    assert_int_equal(calls, 3);
    assert_int_equal(w.r.gpr[RCX], 0);
    assert_int_equal(w.r.gpr[RDI], WORLD_BASE + 0x1000 + 10000);
    start(&w, 8); /* single step: one item each */
    ops.rep_stos = rep_stos;
    w.r.rflags |= 0x100;
    w.r.gpr[RDI] = WORLD_BASE + 0x1000;
    w.r.gpr[RCX] = 2;
    assert_int_equal(RUN(&w, "\xf3\xaa"), EMUL_OK);
    assert_true(w.c.single_step);
    assert_int_equal(w.r.gpr[RCX], 1);
    assert_int_equal(w.r.rip, WORLD_BASE + 0x100);
    assert_int_equal(RUN(&w, "\xf3\xaa"), EMUL_OK);
    assert_int_equal(w.r.rip, WORLD_BASE + 0x102);
    start(&w, 8); /* an address-sized count */
    w.r.gpr[RDI] = WORLD_BASE + 0x1000;
    w.r.gpr[RCX] = 0xffffffff00000002;
    assert_int_equal(RUN(&w, "\x67\xf3\xaa"), EMUL_OK);
    assert_int_equal(w.r.gpr[RCX], 0);
    start(&w, 2); /* 16 bits of it: the rest stays */
    w.r.gpr[RDI] = 0x50001000;
    w.r.gpr[RCX] = 0x60000003;
    assert_int_equal(RUN(&w, "\xf3\xaa"), EMUL_OK);
    assert_int_equal(w.r.gpr[RCX], 0x60000000);
    assert_int_equal(w.r.gpr[RDI], 0x50001003);
}

static void test_fault_in_rep(void **state)
{
    struct world w;
    (void)state;
    start(&w, 8);
    w.r.gpr[RDI] = HOLE - 12;
    w.r.gpr[RCX] = 8;
    w.r.gpr[RAX] = 0x5a5a5a5a;
    assert_int_equal(RUN(&w, "\xf3\xab"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 14);
    assert_int_equal(w.c.exc_cr2, HOLE);
    assert_int_equal(w.r.gpr[RCX], 5);
    assert_int_equal(w.r.gpr[RDI], HOLE);
    assert_int_equal(w.r.rip, WORLD_BASE + 0x100);
    start(&w, 2); /* limit of the segment */
    w.c.seg[EMUL_SEG_ES].limit = 0x200f;
    w.r.gpr[RDI] = 0x2008;
    w.r.gpr[RCX] = 8;
    ops.rep_stos = rep_stos;
    assert_int_equal(RUN(&w, "\xf3\xab"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 13);
    assert_int_equal(w.r.gpr[RCX], 4);
    assert_int_equal(w.r.gpr[RDI], 0x2010);
    start(&w, 2); /* DI wraps within the segment */
    w.r.gpr[RDI] = 0xfffe;
    w.r.gpr[RCX] = 3;
    w.r.gpr[RAX] = 0x77;
    memory[0] = 0;
    assert_int_equal(RUN(&w, "\xf3\xaa"), EMUL_OK);
    assert_int_equal(w.r.gpr[RDI], 1);
    assert_int_equal(memory[0], 0x77);
    assert_int_equal(memory[0xffff], 0x77);
}

/* REP MOVS from a device that answers two reads at once and then needs time. */
static void test_retry_in_rep(void **state)
{
    struct world w;
    (void)state;
    start(&w, 8);
    ops.retire = retire;
    w.pending = true;
    w.pending_after = 2;
    w.r.gpr[RSI] = DEVICE;
    w.r.gpr[RDI] = WORLD_BASE + 0x2000;
    w.r.gpr[RCX] = 4;
    assert_int_equal(RUN(&w, "\xf3\xa5"), EMUL_RETRY);
    assert_int_equal(w.r.gpr[RCX], 2);
    assert_int_equal(w.r.gpr[RSI], DEVICE + 8);
    assert_int_equal(w.r.gpr[RDI], WORLD_BASE + 0x2008);
    assert_int_equal(w.r.rip, WORLD_BASE + 0x100);
    assert_int_equal(w.retired, 2);
    assert_int_equal(RUN(&w, "\xf3\xa5"), EMUL_OK);
    assert_int_equal(w.log_n, 2); /* the rest, each once */
    assert_memory_equal(memory + 0x2000, memory + PAGE_DEVICE * 4096, 16);
    start(&w, 8);
    ops.rep_ins = rep_pending;
    w.pending = true;
    w.r.gpr[RDX] = 0x1f0;
    w.r.gpr[RDI] = WORLD_BASE + 0x2000;
    w.r.gpr[RCX] = 0x100;
    struct emul_regs before = w.r;
    assert_int_equal(RUN(&w, "\x66\xf3\x6d"), EMUL_RETRY);
    assert_memory_equal(&before, &w.r, sizeof(before));
    assert_int_equal(w.log[0].value, 0x100);
    assert_int_equal(RUN(&w, "\x66\xf3\x6d"), EMUL_OK);
    assert_int_equal(w.log[0].value, 0x100);
    assert_int_equal(w.r.gpr[RDI], WORLD_BASE + 0x2200);
    assert_int_equal(w.r.gpr[RCX], 0);
    start(&w, 4);
    ops.rep_outs = rep_pending;
    w.r.gpr[RDX] = 0x1f0;
    w.r.gpr[RSI] = WORLD_BASE + 0x2000;
    w.r.gpr[RCX] = 0x80;
    assert_int_equal(RUN(&w, "\xf3\x6f"), EMUL_OK);
    assert_int_equal(w.batches, 1);
    assert_int_equal(w.r.gpr[RSI], WORLD_BASE + 0x2200);
}

static void test_compare(void **state)
{
    struct world w;
    (void)state;
    start(&w, 8);
    memset(memory + 0x2000, 'x', 32);
    memory[0x2009] = 'y';
    w.r.gpr[RDI] = WORLD_BASE + 0x2000;
    w.r.gpr[RAX] = 'y';
    w.r.gpr[RCX] = 32;
    assert_int_equal(RUN(&w, "\xf2\xae"), EMUL_OK); /* strchr */
    assert_int_equal(w.r.gpr[RDI], WORLD_BASE + 0x200a);
    assert_int_equal(w.r.gpr[RCX], 22);
    assert_true(w.r.rflags & 0x40);
    w.r.rip = WORLD_BASE + 0x100;
    w.r.gpr[RSI] = WORLD_BASE + 0x2000;
    w.r.gpr[RDI] = WORLD_BASE + 0x2010;
    w.r.gpr[RCX] = 16;
    assert_int_equal(RUN(&w, "\xf3\xa6"), EMUL_OK); /* memcmp */
    assert_int_equal(w.r.gpr[RSI], WORLD_BASE + 0x200a);
    assert_false(w.r.rflags & 0x40);
    w.r.gpr[RSI] = DEVICE;
    w.r.gpr[RDI] = DEVICE + 4;
    assert_int_equal(RUN(&w, "\xa7"), EMUL_OK);
    assert_int_equal(w.log_n, 2);
    w.r.gpr[RSI] = DEVICE;
    w.r.gpr[RCX] = 2;
    assert_int_equal(RUN(&w, "\xf3\xad"), EMUL_OK); /* lods */
    assert_int_equal(w.log_n, 2);
    assert_int_equal(w.r.gpr[RAX], w.log[1].value);
}

static enum emul_result deny_odd(struct emul_ctx *c, uint16_t port, unsigned bytes)
{
    (void)bytes;
    return port & 1 ? emul_fault(c, 13, 0) : EMUL_OK;
}

static void test_ports(void **state)
{
    struct world w;
    (void)state;
    start(&w, 8);
    w.r.gpr[RDX] = 0x3f8;
    w.r.gpr[RAX] = 0x1122334455667788;
    assert_int_equal(RUN(&w, "\xee"), EMUL_OK);
    assert_int_equal(w.log[0].kind, 'o');
    assert_int_equal(w.log[0].where, 0x3f8);
    assert_int_equal(w.log[0].value, 0x88);
    assert_int_equal(RUN(&w, "\x66\xe7\x80"), EMUL_OK);
    assert_int_equal(w.log[0].where, 0x80);
    assert_int_equal(w.log[0].value, 0x7788);
    assert_int_equal(RUN(&w, "\xec"), EMUL_OK);
    assert_int_equal(w.r.gpr[RAX], 0x1122334455667700 | port_answer(0x3f8, 1));
    assert_int_equal(RUN(&w, "\x48\xed"), EMUL_OK); /* 4 bytes at most, upper half cleared */
    assert_int_equal(w.log[0].bytes, 4);
    assert_int_equal(w.r.gpr[RAX], port_answer(0x3f8, 4));
    w.r.gpr[RDI] = WORLD_BASE + 0x2000;
    w.r.gpr[RCX] = 3;
    assert_int_equal(RUN(&w, "\x48\xf3\x6d"), EMUL_OK); /* REX before REP: ignored anyway */
    assert_int_equal(w.log_n, 3);
    assert_int_equal(w.r.gpr[RDI], WORLD_BASE + 0x200c);
    w.r.gpr[RDI] = HOLE;
    assert_int_equal(RUN(&w, "\x6c"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 14);
    w.c.cpl = 3;
    assert_int_equal(RUN(&w, "\xec"), EMUL_EXCEPTION);
    assert_int_equal(w.c.exc_vector, 13);
    w.r.gpr[RDI] = WORLD_BASE + 0x2000;
    assert_int_equal(RUN(&w, "\x6c"), EMUL_EXCEPTION);
    assert_int_equal(w.log_n, 0);
    ops.io_permitted = deny_odd;
    assert_int_equal(RUN(&w, "\xec"), EMUL_OK);
    w.r.gpr[RDX] |= 1;
    assert_int_equal(RUN(&w, "\xee"), EMUL_EXCEPTION);
    w.r.rflags |= 0x3000; /* IOPL 3 */
    assert_int_equal(RUN(&w, "\xee"), EMUL_OK);
    start(&w, 1); /* real mode has no permissions, virtual-8086 mode always has */
    ops.io_permitted = deny_odd;
    w.r.gpr[RDX] = 0x61;
    assert_int_equal(RUN(&w, "\xec"), EMUL_OK);
    w.c.cr0 |= 1;
    w.c.cpl = 3;
    w.r.rflags |= 0x23000;
    assert_int_equal(RUN(&w, "\xec"), EMUL_EXCEPTION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batches),      cmocka_unit_test(test_counts),
        cmocka_unit_test(test_fault_in_rep), cmocka_unit_test(test_retry_in_rep),
        cmocka_unit_test(test_compare),      cmocka_unit_test(test_ports),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
