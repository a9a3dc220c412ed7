/* sources: vmm/platform/emul_*.c */
/*
 * Fuzzes decoder and emulator: the input is the mode, the registers, the instruction, and how the
 * operations answer. Whatever comes, execution ends within bounds, the fetch stays within 15
 * bytes, operations get sane arguments, and what did not succeed has changed nothing.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/emul.h"

#define MAX_CALLS 40000u

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct input {
    const uint8_t *data;
    size_t left;
    unsigned calls;
    uint64_t fetched; /* highest offset from RIP that was fetched */
    bool items;       /* a REP item may have completed */
};

static uint64_t take(struct input *in, unsigned bytes)
{
    uint64_t value = 0;
    if (bytes > in->left) {
        bytes = in->left;
    }
    memcpy(&value, in->data, bytes);
    in->data += bytes;
    in->left -= bytes;
    return value;
}

/* Mostly success; the input chooses the rest. */
static enum emul_result answer(struct emul_ctx *c)
{
    struct input *in = c->opaque;
    CHECK(++in->calls < MAX_CALLS);
    switch (in->left ? take(in, 1) : 0) {
    case 0xff:
        return EMUL_RETRY;
    case 0xfe:
        return emul_page_fault(c, 0x1234, 2);
    case 0xfd:
        return EMUL_UNHANDLEABLE;
    case 0xfc:
        return emul_fault(c, 13, 0);
    }
    return EMUL_OK;
}

static enum emul_result f_read(struct emul_ctx *c, uint64_t linear, void *buf, unsigned bytes,
                               enum emul_access access)
{
    struct input *in = c->opaque;
    CHECK(bytes >= 1 && bytes <= 64);
    CHECK(access != EMUL_ACC_WRITE);
    if (access == EMUL_ACC_FETCH) {
        CHECK(c->n_bytes + bytes <= 15);
        CHECK((linear & 0xfff) + bytes <= 0x1000);
    }
    enum emul_result res = answer(c);
    if (res == EMUL_OK) {
        for (unsigned i = 0; i < bytes; i++) {
            ((uint8_t *)buf)[i] = take(in, 1);
        }
    }
    return res;
}

static enum emul_result f_write(struct emul_ctx *c, uint64_t linear, const void *buf,
                                unsigned bytes)
{
    uint8_t copy[64];
    (void)linear;
    CHECK(bytes >= 1 && bytes <= 64);
    memcpy(copy, buf, bytes); /* all of it is there */
    return answer(c);
}

static enum emul_result f_cmpxchg(struct emul_ctx *c, uint64_t linear, void *old,
                                  const void *new_val, unsigned bytes, bool *done)
{
    uint8_t copy[16];
    (void)linear;
    CHECK(bytes && bytes <= 16 && !(bytes & (bytes - 1)));
    memcpy(copy, new_val, bytes);
    *done = take(c->opaque, 1) < 0xc0;
    if (!*done) {
        memset(old, 0x5a, bytes);
    }
    return answer(c);
}

static enum emul_result batch(struct emul_ctx *c, uint64_t at, unsigned bytes, unsigned long *reps,
                              bool df)
{
    struct input *in = c->opaque;
    uint64_t span = (*reps - 1) * bytes;
    CHECK(bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8);
    CHECK(*reps > 1 && *reps <= 4096);
    CHECK((at & 0xfff) + bytes <= 0x1000);
    CHECK((df ? at - span : at + span) >> 12 == at >> 12);
    uint64_t some = take(in, 2);
    *reps = some < *reps ? some : *reps;
    in->items = true;
    return answer(c);
}

static enum emul_result f_rep_movs(struct emul_ctx *c, uint64_t src, uint64_t dst, unsigned bytes,
                                   unsigned long *reps, bool df)
{
    uint64_t span = (*reps - 1) * bytes;
    CHECK((df ? src - span : src + span) >> 12 == src >> 12);
    return batch(c, dst, bytes, reps, df);
}

static enum emul_result f_rep_stos(struct emul_ctx *c, uint64_t dst, uint64_t value, unsigned bytes,
                                   unsigned long *reps, bool df)
{
    (void)value;
    return batch(c, dst, bytes, reps, df);
}

static enum emul_result f_rep_port(struct emul_ctx *c, uint16_t port, uint64_t at, unsigned bytes,
                                   unsigned long *reps, bool df)
{
    (void)port;
    CHECK(bytes <= 4);
    return batch(c, at, bytes, reps, df);
}

static void f_retire(struct emul_ctx *c)
{
    struct input *in = c->opaque;
    in->items = true;
}

static enum emul_result f_io_read(struct emul_ctx *c, uint16_t port, unsigned bytes, uint32_t *val)
{
    (void)port;
    CHECK(bytes == 1 || bytes == 2 || bytes == 4);
    *val = take(c->opaque, bytes);
    return answer(c);
}

static enum emul_result f_io_write(struct emul_ctx *c, uint16_t port, unsigned bytes, uint32_t val)
{
    (void)port, (void)val;
    CHECK(bytes == 1 || bytes == 2 || bytes == 4);
    return answer(c);
}

static enum emul_result f_permitted(struct emul_ctx *c, uint16_t port, unsigned bytes)
{
    (void)port, (void)bytes;
    return answer(c);
}

static enum emul_result f_read_seg(struct emul_ctx *c, enum emul_seg seg, struct emul_segment *out)
{
    CHECK(seg < EMUL_SEG_COUNT);
    out->sel = take(c->opaque, 2);
    out->attr = take(c->opaque, 2) & 0xfff;
    out->base = take(c->opaque, 4);
    out->limit = ~take(c->opaque, 4);
    return answer(c);
}

static enum emul_result f_write_seg(struct emul_ctx *c, enum emul_seg seg,
                                    const struct emul_segment *in)
{
    struct emul_segment copy = *in;
    CHECK(seg < EMUL_SEG_COUNT);
    (void)copy;
    return answer(c);
}

static enum emul_result f_table(struct emul_ctx *c, int table, uint64_t *base, uint32_t *limit)
{
    CHECK(table == EMUL_TABLE_GDT || table == EMUL_TABLE_LDT);
    *base = take(c->opaque, 8);
    *limit = 0xffff;
    return answer(c);
}

static enum emul_result f_read_reg(struct emul_ctx *c, unsigned reg, uint64_t *val)
{
    CHECK(reg < 16);
    *val = take(c->opaque, 8);
    return answer(c);
}

static enum emul_result f_write_reg(struct emul_ctx *c, unsigned reg, uint64_t val)
{
    (void)val;
    CHECK(reg < 16);
    return answer(c);
}

static enum emul_result f_write_xcr(struct emul_ctx *c, unsigned reg, uint64_t val)
{
    (void)reg, (void)val;
    return answer(c);
}

static enum emul_result f_read_msr(struct emul_ctx *c, uint32_t msr, uint64_t *val)
{
    *val = msr;
    return answer(c);
}

static enum emul_result f_write_msr(struct emul_ctx *c, uint32_t msr, uint64_t val)
{
    (void)msr, (void)val;
    return answer(c);
}

static enum emul_result f_cpuid(struct emul_ctx *c, uint32_t regs[4])
{
    regs[1] = 1;
    return answer(c);
}

static enum emul_result f_wbinvd(struct emul_ctx *c)
{
    return answer(c);
}

static enum emul_result f_invlpg(struct emul_ctx *c, uint64_t linear)
{
    (void)linear;
    return answer(c);
}

static enum emul_result f_read_vec(struct emul_ctx *c, unsigned reg, void *buf, unsigned bytes)
{
    CHECK(reg < 16 && (bytes == 16 || bytes == 32));
    memset(buf, reg, bytes);
    return answer(c);
}

static enum emul_result f_write_vec(struct emul_ctx *c, unsigned reg, const void *buf,
                                    unsigned bytes)
{
    uint8_t copy[32];
    CHECK(reg < 16 && (bytes == 16 || bytes == 32));
    memcpy(copy, buf, bytes);
    return answer(c);
}

static const struct emul_ops fuzz_ops = {
    .read = f_read,
    .write = f_write,
    .cmpxchg = f_cmpxchg,
    .rep_movs = f_rep_movs,
    .rep_stos = f_rep_stos,
    .rep_ins = f_rep_port,
    .rep_outs = f_rep_port,
    .retire = f_retire,
    .io_read = f_io_read,
    .io_write = f_io_write,
    .io_permitted = f_permitted,
    .read_seg = f_read_seg,
    .write_seg = f_write_seg,
    .read_table = f_table,
    .read_cr = f_read_reg,
    .write_cr = f_write_reg,
    .read_dr = f_read_reg,
    .write_dr = f_write_reg,
    .write_xcr = f_write_xcr,
    .read_msr = f_read_msr,
    .write_msr = f_write_msr,
    .cpuid = f_cpuid,
    .wbinvd = f_wbinvd,
    .invlpg = f_invlpg,
    .read_vec = f_read_vec,
    .write_vec = f_write_vec,
    .read_mm = f_read_reg,
    .write_mm = f_write_reg,
};

static const struct emul_ops bare_ops = {.read = f_read, .write = f_write};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t widths[4] = {2, 4, 8, 8};
    struct input in = {.data = data, .left = size};
    struct emul_regs regs;
    struct emul_ctx c;

    if (size < 32) {
        return 0;
    }
    memset(&c, 0xa5, sizeof(c)); /* nothing must hang on what was left over */
    unsigned mode = take(&in, 1), flags = take(&in, 1);
    c.regs = &regs;
    c.opaque = &in;
    c.ops = flags & 1 ? &bare_ops : &fuzz_ops;
    c.code_bytes = widths[mode & 3];
    c.stack_bytes = c.code_bytes == 8 ? 8 : mode & 4 ? 2 : 4;
    c.cpl = mode & 8 ? 3 : 0;
    c.intel = flags & 2;
    c.cr0 = c.code_bytes == 8 || (mode & 16) ? 0x80000011 : 0x10;
    c.cr0 |= flags & 0x0c; /* EM, TS */
    c.cr4 = flags & 0x10 ? 0x40200 : 0;
    c.seg_valid = 0;
    uint64_t seed = take(&in, 8);
    for (unsigned i = 0; i < 16; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        regs.gpr[i] = flags & 0x20 ? seed : seed >> 40;
    }
    regs.rip = flags & 0x40 ? seed >> 17 : 0x1000 - (seed >> 60);
    regs.rflags = (take(&in, 4) & 0x27fffd7) | 2;
    if (c.code_bytes == 8 || !(c.cr0 & 1)) {
        regs.rflags &= ~0x20000ull;
    }
    unsigned given = take(&in, 1) & 15;
    for (unsigned i = 0; i < given; i++) {
        c.bytes[i] = take(&in, 1);
    }
    emul_begin(&c, given);

    struct emul_regs before = regs;
    int len = emul_decode(&c);
    CHECK(len <= 15 && len != 0 && len >= -(int)EMUL_UNHANDLEABLE);
    CHECK(memcmp(&before, &regs, sizeof(regs)) == 0);
    if (len < 0) {
        CHECK(c.insn.len == 0);
        return 0;
    }
    CHECK(c.insn.len == len && len <= c.n_bytes && c.n_bytes <= 15);
    CHECK(c.insn.reg < 16 && c.insn.rm < 16);
    in.items = flags & 1; /* without retire() we do not see them */
    bool rep = c.insn.rep != 0;
    enum emul_result res = emul_execute(&c);
    CHECK(res <= EMUL_UNHANDLEABLE);
    if (res == EMUL_EXCEPTION) {
        CHECK(c.exc_vector < 32);
    }
    if (res != EMUL_OK) {
        CHECK(regs.rip == before.rip);
        CHECK((rep && in.items) || memcmp(&before, &regs, sizeof(regs)) == 0);
    }
    return 0;
}
