/*
 * The emulator's surroundings in tests: a window of pages with chosen rights, plain segments,
 * recorded accesses, a device page whose reads may be pending, ports that answer by formula.
 */
#ifndef TESTS_UNIT_TEST_EMUL_H
#define TESTS_UNIT_TEST_EMUL_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "platform/emul.h"

#define WORLD_BASE  0x10000000ull
#define WORLD_PAGES 16u
#define WORLD_BYTES (WORLD_PAGES * 4096u)
#define PAGE_NONE   8u /* not present */
#define PAGE_RO     9u /* read-only */
#define PAGE_DEVICE 10u
#define LOG_MAX     64

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

struct access {
    char kind; /* r, w, m (read to modify), c (cmpxchg), i, o, s (string batch) */
    uint64_t where, value;
    unsigned bytes;
};

struct world {
    struct emul_ctx c;
    struct emul_regs r;
    uint8_t *mem; /* WORLD_BYTES */
    bool device;  /* PAGE_DEVICE is one: every access there is logged */
    bool pending; /* the device's next read is not answered yet */
    bool contended;
    unsigned pending_after; /* reads answered at once before one is pending; ~0: all */
    unsigned vex_limit;
    uint8_t vec[16][32];
    uint64_t mm[8];
    uint64_t cr[16], dr[8], msr, xcr;
    uint64_t gdt, ldt;
    uint32_t gdt_limit, ldt_limit;
    unsigned retired, batches, batch_limit, reads;
    struct access log[LOG_MAX];
    unsigned log_n;
};

static inline struct world *world_of(struct emul_ctx *c)
{
    return c->opaque;
}

static inline void log_access(struct world *w, char kind, uint64_t where, const void *value,
                              unsigned bytes)
{
    if (w->log_n < LOG_MAX) {
        struct access *a = &w->log[w->log_n++];
        *a = (struct access){kind, where, 0, bytes};
        memcpy(&a->value, value, bytes < 8 ? bytes : 8);
    }
}

/* Whether the access may not touch one of its bytes; *where is the first. */
static inline bool first_fault(uint64_t linear, unsigned bytes, bool write, uint64_t *where)
{
    for (unsigned i = 0; i < bytes; i++) {
        uint64_t page = (linear + i - WORLD_BASE) >> 12;
        if (page >= WORLD_PAGES || page == PAGE_NONE || (write && page == PAGE_RO)) {
            *where = linear + i;
            return true;
        }
    }
    return false;
}

static inline bool on_device(struct world *w, uint64_t linear)
{
    return w->device && (linear - WORLD_BASE) >> 12 == PAGE_DEVICE;
}

static inline enum emul_result check(struct emul_ctx *c, uint64_t linear, unsigned bytes,
                                     bool write, bool fetch)
{
    uint64_t bad;
    if (!first_fault(linear, bytes, write, &bad)) {
        return EMUL_OK;
    }
    bool present = (bad - WORLD_BASE) >> 12 == PAGE_RO;
    return emul_page_fault(c, bad, present | write << 1 | (c->cpl == 3) << 2 | fetch << 4);
}

static enum emul_result w_read(struct emul_ctx *c, uint64_t linear, void *buf, unsigned bytes,
                               enum emul_access access)
{
    struct world *w = world_of(c);
    bool rmw = access == EMUL_ACC_RMW;
    enum emul_result res = check(c, linear, bytes, rmw, access == EMUL_ACC_FETCH);
    if (res != EMUL_OK) {
        return res;
    }
    if (on_device(w, linear)) {
        if (w->pending && w->reads++ >= w->pending_after) {
            w->pending = false;
            return EMUL_RETRY;
        }
        memcpy(buf, w->mem + (linear - WORLD_BASE), bytes);
        log_access(w, rmw ? 'm' : 'r', linear, buf, bytes);
        return EMUL_OK;
    }
    memcpy(buf, w->mem + (linear - WORLD_BASE), bytes);
    return EMUL_OK;
}

static enum emul_result w_write(struct emul_ctx *c, uint64_t linear, const void *buf,
                                unsigned bytes)
{
    struct world *w = world_of(c);
    enum emul_result res = check(c, linear, bytes, true, false);
    if (res != EMUL_OK) {
        return res;
    }
    if (on_device(w, linear)) {
        log_access(w, 'w', linear, buf, bytes);
    }
    memcpy(w->mem + (linear - WORLD_BASE), buf, bytes);
    return EMUL_OK;
}

static enum emul_result w_cmpxchg(struct emul_ctx *c, uint64_t linear, void *old,
                                  const void *new_val, unsigned bytes, bool *done)
{
    struct world *w = world_of(c);
    enum emul_result res = check(c, linear, bytes, true, false);
    if (res != EMUL_OK) {
        return res;
    }
    uint8_t *at = w->mem + (linear - WORLD_BASE);
    if (w->contended) { /* somebody else was faster: the lowest byte went up by one */
        w->contended = false;
        at[0]++;
    }
    *done = memcmp(at, old, bytes) == 0;
    if (*done) {
        log_access(w, 'c', linear, new_val, bytes);
        memcpy(at, new_val, bytes);
    } else {
        memcpy(old, at, bytes);
    }
    return EMUL_OK;
}

static inline uint32_t port_answer(uint16_t port, unsigned bytes)
{
    return (0x9e3779b9u * (port + 1)) >> (32 - 8 * bytes);
}

static enum emul_result w_io_read(struct emul_ctx *c, uint16_t port, unsigned bytes, uint32_t *val)
{
    *val = port_answer(port, bytes);
    log_access(world_of(c), 'i', port, val, bytes);
    return EMUL_OK;
}

static enum emul_result w_io_write(struct emul_ctx *c, uint16_t port, unsigned bytes, uint32_t val)
{
    log_access(world_of(c), 'o', port, &val, bytes);
    return EMUL_OK;
}

static enum emul_result w_write_seg(struct emul_ctx *c, enum emul_seg seg,
                                    const struct emul_segment *in)
{
    (void)c, (void)seg, (void)in;
    return EMUL_OK; /* the emulator keeps its own copy in c->seg */
}

static enum emul_result w_read_table(struct emul_ctx *c, int table, uint64_t *base, uint32_t *limit)
{
    struct world *w = world_of(c);
    *base = table == EMUL_TABLE_LDT ? w->ldt : w->gdt;
    *limit = table == EMUL_TABLE_LDT ? w->ldt_limit : w->gdt_limit;
    return EMUL_OK;
}

static enum emul_result w_read_vec(struct emul_ctx *c, unsigned reg, void *buf, unsigned bytes)
{
    memcpy(buf, world_of(c)->vec[reg], bytes);
    return EMUL_OK;
}

static enum emul_result w_write_vec(struct emul_ctx *c, unsigned reg, const void *buf,
                                    unsigned bytes)
{
    memcpy(world_of(c)->vec[reg], buf, bytes);
    return EMUL_OK;
}

static enum emul_result w_read_mm(struct emul_ctx *c, unsigned reg, uint64_t *val)
{
    *val = world_of(c)->mm[reg];
    return EMUL_OK;
}

static enum emul_result w_write_mm(struct emul_ctx *c, unsigned reg, uint64_t val)
{
    world_of(c)->mm[reg] = val;
    return EMUL_OK;
}

static const struct emul_ops world_ops = {
    .read = w_read,
    .write = w_write,
    .cmpxchg = w_cmpxchg,
    .io_read = w_io_read,
    .io_write = w_io_write,
    .write_seg = w_write_seg,
    .read_table = w_read_table,
    .read_vec = w_read_vec,
    .write_vec = w_write_vec,
    .read_mm = w_read_mm,
    .write_mm = w_write_mm,
};

/* Data segments hold attr 0xcf3 (flat, DPL 3) or 0x0f3; code 0xfb with L or DB. */
static inline void world_segments(struct world *w, unsigned code_bytes, uint64_t base,
                                  uint32_t limit, unsigned dpl)
{
    unsigned size = code_bytes == 2 ? 0 : code_bytes == 4 ? EMUL_SEG_DB : EMUL_SEG_L;
    uint16_t rights = 0x93 | dpl << 5;
    uint16_t big = code_bytes == 2 ? 0 : EMUL_SEG_DB | EMUL_SEG_G;

    for (unsigned s = 0; s < EMUL_SEG_COUNT; s++) {
        w->c.seg[s] = (struct emul_segment){0x2b, rights | big, limit, base};
    }
    w->c.seg[EMUL_SEG_CS].sel = 0x33;
    w->c.seg[EMUL_SEG_CS].attr = (rights & ~0xfu) | 0xb | size | EMUL_SEG_G;
    w->c.seg_valid = 0x3f;
    emul_set_mode(&w->c, w->c.seg[EMUL_SEG_CS].attr, w->c.seg[EMUL_SEG_SS].attr, code_bytes == 8);
}

/* mode: 8, 4, 2 protected with CPL 0; 1 real mode, segments based at WORLD_BASE for 2 and 1. */
static inline void world_init(struct world *w, uint8_t *mem, unsigned mode)
{
    memset(w, 0, sizeof(*w));
    w->mem = mem;
    w->c.ops = &world_ops;
    w->c.opaque = w;
    w->c.regs = &w->r;
    w->c.cr0 = mode == 1 ? 0x10 : 0x80010033;
    w->c.cr4 = 0x406a0;
    w->r.rflags = 2;
    w->pending_after = 0;
    unsigned code_bytes = mode == 1 ? 2 : mode;
    bool small = code_bytes == 2;
    world_segments(w, code_bytes, small ? WORLD_BASE : 0, small ? 0xffff : 0xffffffff, 0);
    w->r.rip = small ? 0x100 : WORLD_BASE + 0x100;
    w->r.gpr[RSP] = small ? 0x4000 : WORLD_BASE + 0x4000;
}

static inline enum emul_result world_run(struct world *w, const void *code, unsigned len)
{
    emul_begin(&w->c, len);
    memcpy(w->c.bytes, code, len);
    w->log_n = 0;
    return emul_execute(&w->c);
}

#endif
