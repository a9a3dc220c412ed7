/*
 * Segmentation: from a segment and an offset to a checked linear address, and loads of segment
 * registers, by shifting in real and virtual-8086 mode and from descriptors in protected mode.
 */
#include "core/string.h"
#include "platform/emul_internal.h"

#define TYPE_ACCESSED 1
#define TYPE_WRITABLE 2 /* data; readable for code */
#define TYPE_DOWN     4 /* data: expand-down; code: conforming */
#define TYPE_CODE     8

bool emul_canonical(const struct emul_ctx *c, uint64_t linear)
{
    unsigned bits = c->cr4 & CR4_LA57 ? 57 : 48;
    int64_t top = (int64_t)linear >> (bits - 1);
    return top == 0 || top == -1;
}

enum emul_result emul_seg_get(struct emul_ctx *c, unsigned seg)
{
    if (c->seg_valid & (1u << seg)) {
        return EMUL_OK;
    }
    if (!c->ops->read_seg) {
        return EMUL_UNHANDLEABLE;
    }
    enum emul_result res = c->ops->read_seg(c, seg, &c->seg[seg]);
    if (res == EMUL_OK) {
        c->seg_valid |= 1u << seg;
    }
    return res;
}

/* Type and limit checks outside 64-bit mode. APM 2, 4.7.2 to 4.7.4, 4.8.1, 4.12. */
static bool segment_allows(const struct emul_ctx *c, const struct emul_segment *s, uint64_t offset,
                           unsigned bytes, enum emul_access access)
{
    bool write = access == EMUL_ACC_WRITE || access == EMUL_ACC_RMW;
    uint64_t last = offset + bytes - 1;
    bool code = s->attr & TYPE_CODE;

    if (is_protected(c)) {
        if (!(s->attr & EMUL_SEG_P)) {
            return false; /* a null selector */
        }
        if (write && (code || !(s->attr & TYPE_WRITABLE))) {
            return false;
        }
        if (!write && code && !(s->attr & TYPE_WRITABLE)) {
            return false;
        }
        if (!code && (s->attr & TYPE_DOWN)) {
            return offset > s->limit && last <= (s->attr & EMUL_SEG_DB ? 0xffffffff : 0xffff);
        }
    }
    return last <= s->limit;
}

enum emul_result emul_linear_slow(struct emul_ctx *c, unsigned seg, uint64_t offset, unsigned bytes,
                                  enum emul_access access, uint64_t *linear)
{
    unsigned vector = seg == EMUL_SEG_SS ? VEC_SS : VEC_GP;
    uint64_t base = 0;

    if (!is_long(c) || seg >= EMUL_SEG_FS) {
        enum emul_result res = emul_seg_get(c, seg);
        if (res != EMUL_OK) {
            return res;
        }
        base = c->seg[seg].base;
    }
    if (is_long(c)) {
        *linear = base + offset;
        bool good = emul_canonical(c, *linear) && emul_canonical(c, *linear + bytes - 1);
        return good ? EMUL_OK : emul_fault(c, vector, 0);
    }
    if (!segment_allows(c, &c->seg[seg], offset, bytes, access)) {
        return emul_fault(c, vector, 0);
    }
    *linear = (base + offset) & 0xffffffff;
    return EMUL_OK;
}

enum emul_result emul_write_seg(struct emul_ctx *c, unsigned seg, const struct emul_segment *in)
{
    if (!c->ops->write_seg) {
        return EMUL_UNHANDLEABLE;
    }
    enum emul_result res = c->ops->write_seg(c, seg, in);
    if (res == EMUL_OK) {
        c->seg[seg] = *in;
        c->seg_valid |= 1u << seg;
    }
    return res;
}

/* Real and virtual-8086 mode: only selector and base change. APM 2, 4.5. */
enum emul_result emul_real_segment(struct emul_ctx *c, unsigned seg, uint16_t sel,
                                   struct emul_segment *out)
{
    enum emul_result res = emul_seg_get(c, seg);
    if (res != EMUL_OK) {
        return res;
    }
    *out = c->seg[seg];
    out->sel = sel;
    out->base = (uint32_t)sel << 4;
    return EMUL_OK;
}

/* Finds and reads the descriptor that sel names; *where is its linear address. */
static enum emul_result read_descriptor(struct emul_ctx *c, uint16_t sel, uint64_t *where,
                                        uint64_t *raw)
{
    uint64_t base;
    uint32_t limit;

    if (!c->ops->read_table) {
        return EMUL_UNHANDLEABLE;
    }
    enum emul_result res =
        c->ops->read_table(c, sel & 4 ? EMUL_TABLE_LDT : EMUL_TABLE_GDT, &base, &limit);
    if (res != EMUL_OK) {
        return res;
    }
    if ((sel | 7u) > limit) {
        return emul_fault(c, VEC_GP, sel & ~3u);
    }
    *where = base + (sel & ~7u);
    if (!is_long(c)) {
        *where &= 0xffffffff;
    }
    return c->ops->read(c, *where, raw, 8, EMUL_ACC_SYSTEM);
}

static void unpack_descriptor(uint64_t raw, uint16_t sel, struct emul_segment *out)
{
    out->sel = sel;
    out->attr = (raw >> 40 & 0xff) | (raw >> 44 & 0xf00);
    out->base = (raw >> 16 & 0xffffff) | (raw >> 32 & 0xff000000);
    out->limit = (raw & 0xffff) | (raw >> 32 & 0xf0000);
    if (out->attr & EMUL_SEG_G) {
        out->limit = out->limit << 12 | 0xfff;
    }
}

/* Whether type and privilege fit the data or stack register seg. APM 2, 4.9.3, 4.9.4. */
static bool descriptor_fits(const struct emul_ctx *c, unsigned seg, const struct emul_segment *s)
{
    unsigned dpl = s->attr >> 5 & 3, rpl = s->sel & 3;
    unsigned type = s->attr & 0xf;
    bool code = type & TYPE_CODE;

    if (!(s->attr & EMUL_SEG_S)) {
        return false;
    }
    if (seg == EMUL_SEG_SS) {
        return rpl == c->cpl && dpl == c->cpl && !code && (type & TYPE_WRITABLE);
    }
    if (code && !(type & TYPE_WRITABLE)) {
        return false;
    }
    if (code && (type & TYPE_DOWN)) {
        return true; /* readable and conforming: any privilege */
    }
    return rpl <= dpl && c->cpl <= dpl;
}

static enum emul_result load_null(struct emul_ctx *c, unsigned seg, uint16_t sel)
{
    struct emul_segment null = {.sel = sel};
    if (seg == EMUL_SEG_SS && (!is_long(c) || c->cpl == 3 || (sel & 3) != c->cpl)) {
        return gp_fault(c);
    }
    if (seg == EMUL_SEG_SS) {
        null.attr = c->cpl << 5; /* SVM keeps the CPL in SS.DPL: APM 2, 15.5.1 */
    }
    return emul_write_seg(c, seg, &null);
}

/* Sets the accessed bit without losing a concurrent change of the descriptor's other bits. */
static enum emul_result mark_accessed(struct emul_ctx *c, uint64_t where, uint64_t raw)
{
    uint8_t old = raw >> 40, marked = old | TYPE_ACCESSED;
    bool done = true;

    if (old & TYPE_ACCESSED) {
        return EMUL_OK;
    }
    return emul_replace(c, where + 5, 1, true, &old, &marked, &done);
}

/*
 * Loads a data or stack segment register (not CS) with sel, as MOV and POP do. Nothing is changed
 * unless it returns EMUL_OK. #GP, #SS, #NP carry the selector. APM 3, MOV; APM 2, 4.8.
 */
enum emul_result emul_load_sreg(struct emul_ctx *c, unsigned seg, uint16_t sel)
{
    struct emul_segment s;
    uint64_t where = 0, raw = 0;
    enum emul_result res;

    if (!is_protected(c)) {
        res = emul_real_segment(c, seg, sel, &s);
        return res == EMUL_OK ? emul_write_seg(c, seg, &s) : res;
    }
    if (!(sel & ~3u)) {
        return load_null(c, seg, sel);
    }
    res = read_descriptor(c, sel, &where, &raw);
    if (res != EMUL_OK) {
        return res;
    }
    unpack_descriptor(raw, sel, &s);
    if (!descriptor_fits(c, seg, &s)) {
        return emul_fault(c, VEC_GP, sel & ~3u);
    }
    if (!(s.attr & EMUL_SEG_P)) {
        return emul_fault(c, seg == EMUL_SEG_SS ? VEC_SS : VEC_NP, sel & ~3u);
    }
    res = mark_accessed(c, where, raw);
    if (res != EMUL_OK) {
        return res;
    }
    s.attr |= TYPE_ACCESSED;
    return emul_write_seg(c, seg, &s);
}
