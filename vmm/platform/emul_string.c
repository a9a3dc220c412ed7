/*
 * String instructions: MOVS, STOS, LODS, CMPS, SCAS, INS, OUTS, with REP. Each item is committed to
 * rCX, rSI and rDI as it completes, so that a fault or a pending device stops exactly there. Runs
 * within a page are offered to the operations in one piece, to become one request to a device
 * model.
 */
#include "platform/emul_internal.h"

/* Items done one by one before the guest gets a chance to take an interrupt. */
#define MAX_ITEMS 4096
#define PAGE_MASK 0xfffull

struct string_op {
    struct emul_ctx *c;
    unsigned bytes;      /* of an item */
    unsigned addr_bytes; /* of rCX, rSI, rDI */
    uint64_t step;       /* +bytes, or -bytes with DF */
    bool df, rep;
    uint64_t left; /* items, 1 without REP */
};

static void string_begin(struct emul_ctx *c, struct string_op *s)
{
    s->c = c;
    s->bytes = c->insn.op_bytes;
    s->addr_bytes = c->insn.addr_bytes;
    s->df = c->regs->rflags & FL_DF;
    s->step = s->df ? -(uint64_t)s->bytes : s->bytes;
    s->rep = c->insn.rep != 0;
    s->left = s->rep ? reg_get(c, R_CX, s->addr_bytes) : 1;
}

static void advance(struct string_op *s, unsigned reg, uint64_t items)
{
    reg_set(s->c, reg, s->addr_bytes, s->c->regs->gpr[reg] + s->step * items);
}

/* Takes items off rCX and lets the operations forget their saved answers. */
static void complete(struct string_op *s, uint64_t items)
{
    s->left -= items;
    if (s->rep) {
        reg_set(s->c, R_CX, s->addr_bytes, s->left);
        if (s->c->ops->retire) {
            s->c->ops->retire(s->c);
        }
    }
}

/* Linear address of the item at segment seg and register reg. */
static enum emul_result item_at(struct string_op *s, unsigned seg, unsigned reg,
                                enum emul_access access, uint64_t *linear)
{
    uint64_t offset = reg_get(s->c, reg, s->addr_bytes);
    return emul_linear(s->c, seg, offset, s->bytes, access, linear);
}

/*
 * How many of items starting at linear stay in its page, in the segment, and short of the address
 * size's wrap. 0 when not even the first is within a page, then it must go alone.
 */
static uint64_t run_length(struct string_op *s, unsigned seg, unsigned reg, uint64_t linear,
                           uint64_t items)
{
    uint64_t offset = reg_get(s->c, reg, s->addr_bytes), in_page = linear & PAGE_MASK, fit, last;

    if (in_page + s->bytes > PAGE_MASK + 1) {
        return 0;
    }
    fit = s->df ? in_page / s->bytes + 1 : (PAGE_MASK + 1 - in_page) / s->bytes;
    if (fit > items) {
        fit = items;
    }
    last = offset + s->step * (fit - 1);
    if (last > mask_of(s->addr_bytes) || (!s->df && last < offset) || (s->df && last > offset)) {
        return 0;
    }
    uint64_t scratch;
    struct emul_ctx *c = s->c;
    bool wraps = s->addr_bytes < 8 && last + s->bytes - 1 > mask_of(s->addr_bytes);
    if (wraps || emul_linear(c, seg, last, s->bytes, EMUL_ACC_READ, &scratch) != EMUL_OK) {
        return 0;
    }
    return fit;
}

/* One batch can be tried: REP, more than one item to do, and nobody single-steps. */
static bool can_batch(const struct string_op *s)
{
    return s->rep && s->left > 1 && !s->c->single_step;
}

typedef enum emul_result item_fn(struct string_op *s);
/* Tries several at once; *items is 0 when it must be done singly. */
typedef enum emul_result batch_fn(struct string_op *s, uint64_t *items);

/*
 * The loop of every REP whose end only rCX decides. A step that handled nothing falls back to one
 * item. Leaves RIP at the instruction when items are left after the bound.
 */
static enum emul_result repeat(struct string_op *s, item_fn *one, batch_fn *batch)
{
    for (unsigned i = 0; s->left; i++) {
        uint64_t items = 0;
        enum emul_result res = EMUL_OK;
        if (i == MAX_ITEMS || (i == 1 && s->c->single_step)) {
            s->c->next_rip = s->c->regs->rip;
            break;
        }
        if (batch && can_batch(s)) {
            res = batch(s, &items);
        }
        if (items) {
            complete(s, items);
        }
        if (res == EMUL_OK && !items) {
            res = one(s);
            if (res == EMUL_OK) {
                complete(s, 1);
            }
        }
        if (res != EMUL_OK) {
            return res;
        }
    }
    return EMUL_OK;
}

static uint64_t at_most(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Guards against an operation that claims more than it was asked for. */
static uint64_t accept(struct string_op *s, unsigned long done, uint64_t asked, int reg1, int reg2)
{
    uint64_t items = at_most(done, asked);
    if (reg1 >= 0) {
        advance(s, reg1, items);
    }
    if (reg2 >= 0) {
        advance(s, reg2, items);
    }
    return items;
}

static enum emul_result movs_one(struct string_op *s)
{
    struct emul_ctx *c = s->c;
    uint64_t src, dst, value = 0;
    enum emul_result res = item_at(s, c->insn.seg, R_SI, EMUL_ACC_READ, &src);
    if (res == EMUL_OK) {
        res = item_at(s, EMUL_SEG_ES, R_DI, EMUL_ACC_WRITE, &dst);
    }
    if (res == EMUL_OK) {
        res = c->ops->read(c, src, &value, s->bytes, EMUL_ACC_READ);
    }
    if (res == EMUL_OK) {
        res = c->ops->write(c, dst, &value, s->bytes);
    }
    if (res == EMUL_OK) {
        advance(s, R_SI, 1);
        advance(s, R_DI, 1);
    }
    return res;
}

static enum emul_result movs_batch(struct string_op *s, uint64_t *items)
{
    struct emul_ctx *c = s->c;
    uint64_t src, dst;
    enum emul_result res = item_at(s, c->insn.seg, R_SI, EMUL_ACC_READ, &src);
    if (res == EMUL_OK) {
        res = item_at(s, EMUL_SEG_ES, R_DI, EMUL_ACC_WRITE, &dst);
    }
    if (res != EMUL_OK) {
        return res;
    }
    uint64_t asked = run_length(s, c->insn.seg, R_SI, src, s->left);
    asked = run_length(s, EMUL_SEG_ES, R_DI, dst, asked);
    unsigned long done = asked;
    if (asked > 1) {
        res = c->ops->rep_movs(c, src, dst, s->bytes, &done, s->df);
        *items = accept(s, done, asked, R_SI, R_DI);
    }
    return res;
}

enum emul_result emul_op_movs(struct emul_ctx *c)
{
    struct string_op s;
    string_begin(c, &s);
    return repeat(&s, movs_one, c->ops->rep_movs ? movs_batch : NULL);
}

static enum emul_result stos_one(struct string_op *s)
{
    struct emul_ctx *c = s->c;
    uint64_t dst;
    enum emul_result res = item_at(s, EMUL_SEG_ES, R_DI, EMUL_ACC_WRITE, &dst);
    if (res == EMUL_OK) {
        res = c->ops->write(c, dst, &c->regs->gpr[R_AX], s->bytes);
    }
    if (res == EMUL_OK) {
        advance(s, R_DI, 1);
    }
    return res;
}

static enum emul_result stos_batch(struct string_op *s, uint64_t *items)
{
    struct emul_ctx *c = s->c;
    uint64_t dst;
    enum emul_result res = item_at(s, EMUL_SEG_ES, R_DI, EMUL_ACC_WRITE, &dst);
    if (res != EMUL_OK) {
        return res;
    }
    uint64_t asked = run_length(s, EMUL_SEG_ES, R_DI, dst, s->left);
    unsigned long done = asked;
    if (asked > 1) {
        res = c->ops->rep_stos(c, dst, reg_get(c, R_AX, s->bytes), s->bytes, &done, s->df);
        *items = accept(s, done, asked, R_DI, -1);
    }
    return res;
}

enum emul_result emul_op_stos(struct emul_ctx *c)
{
    struct string_op s;
    string_begin(c, &s);
    return repeat(&s, stos_one, c->ops->rep_stos ? stos_batch : NULL);
}

static enum emul_result lods_one(struct string_op *s)
{
    struct emul_ctx *c = s->c;
    uint64_t value, offset = reg_get(c, R_SI, s->addr_bytes);
    enum emul_result res = emul_load(c, c->insn.seg, offset, s->bytes, EMUL_ACC_READ, &value);
    if (res == EMUL_OK) {
        reg_set(c, R_AX, s->bytes, value);
        advance(s, R_SI, 1);
    }
    return res;
}

enum emul_result emul_op_lods(struct emul_ctx *c)
{
    struct string_op s;
    string_begin(c, &s);
    return repeat(&s, lods_one, NULL);
}

/* Compares; REPE and REPNE stop on the flags of an item that is complete. */
static enum emul_result compare_one(struct string_op *s, bool scan)
{
    struct emul_ctx *c = s->c;
    uint64_t left = reg_get(c, R_AX, s->bytes), right;
    uint64_t si = reg_get(c, R_SI, s->addr_bytes), di = reg_get(c, R_DI, s->addr_bytes);
    enum emul_result res;

    res = emul_load(c, EMUL_SEG_ES, di, s->bytes, EMUL_ACC_READ, &right);
    if (res == EMUL_OK && !scan) {
        res = emul_load(c, c->insn.seg, si, s->bytes, EMUL_ACC_READ, &left);
    }
    if (res != EMUL_OK) {
        return res;
    }
    arith_alu(ALU_CMP, s->bytes, left, right, &c->regs->rflags);
    if (!scan) {
        advance(s, R_SI, 1);
    }
    advance(s, R_DI, 1);
    return EMUL_OK;
}

static enum emul_result compare(struct emul_ctx *c, bool scan)
{
    struct string_op s;
    string_begin(c, &s);
    for (unsigned i = 0; s.left; i++) {
        if (i == MAX_ITEMS || (i == 1 && c->single_step)) {
            c->next_rip = c->regs->rip;
            break;
        }
        enum emul_result res = compare_one(&s, scan);
        if (res != EMUL_OK) {
            return res;
        }
        complete(&s, 1);
        bool equal = c->regs->rflags & FL_ZF;
        if (equal != (c->insn.rep == 0xf3)) {
            break;
        }
    }
    return EMUL_OK;
}

enum emul_result emul_op_cmps(struct emul_ctx *c)
{
    return compare(c, false);
}

enum emul_result emul_op_scas(struct emul_ctx *c)
{
    return compare(c, true);
}

static uint16_t dx_port(const struct emul_ctx *c)
{
    return c->regs->gpr[R_DX];
}

/* Port items are at most 4 bytes, whatever REX.W says. */
static enum emul_result port_begin(struct emul_ctx *c, struct string_op *s)
{
    string_begin(c, s);
    if (s->bytes == 8) {
        s->bytes = 4;
        s->step = s->df ? -4ull : 4;
    }
    return emul_io_check(c, dx_port(c), s->bytes);
}

static enum emul_result ins_one(struct string_op *s)
{
    struct emul_ctx *c = s->c;
    uint64_t dst;
    uint32_t value = 0;

    if (!c->ops->io_read) {
        return EMUL_UNHANDLEABLE;
    }
    enum emul_result res = item_at(s, EMUL_SEG_ES, R_DI, EMUL_ACC_WRITE, &dst);
    if (res == EMUL_OK) {
        res = c->ops->io_read(c, dx_port(c), s->bytes, &value);
    }
    if (res == EMUL_OK) {
        res = c->ops->write(c, dst, &value, s->bytes);
    }
    if (res == EMUL_OK) {
        advance(s, R_DI, 1);
    }
    return res;
}

static enum emul_result ins_batch(struct string_op *s, uint64_t *items)
{
    struct emul_ctx *c = s->c;
    uint64_t dst;
    enum emul_result res = item_at(s, EMUL_SEG_ES, R_DI, EMUL_ACC_WRITE, &dst);
    if (res != EMUL_OK) {
        return res;
    }
    uint64_t asked = run_length(s, EMUL_SEG_ES, R_DI, dst, s->left);
    unsigned long done = asked;
    if (asked > 1) {
        res = c->ops->rep_ins(c, dx_port(c), dst, s->bytes, &done, s->df);
        *items = accept(s, done, asked, R_DI, -1);
    }
    return res;
}

enum emul_result emul_op_ins(struct emul_ctx *c)
{
    struct string_op s;
    enum emul_result res = port_begin(c, &s);
    return res == EMUL_OK ? repeat(&s, ins_one, c->ops->rep_ins ? ins_batch : NULL) : res;
}

static enum emul_result outs_one(struct string_op *s)
{
    struct emul_ctx *c = s->c;
    uint64_t value, offset = reg_get(c, R_SI, s->addr_bytes);

    if (!c->ops->io_write) {
        return EMUL_UNHANDLEABLE;
    }
    enum emul_result res = emul_load(c, c->insn.seg, offset, s->bytes, EMUL_ACC_READ, &value);
    if (res == EMUL_OK) {
        res = c->ops->io_write(c, dx_port(c), s->bytes, value);
    }
    if (res == EMUL_OK) {
        advance(s, R_SI, 1);
    }
    return res;
}

static enum emul_result outs_batch(struct string_op *s, uint64_t *items)
{
    struct emul_ctx *c = s->c;
    uint64_t src;
    enum emul_result res = item_at(s, c->insn.seg, R_SI, EMUL_ACC_READ, &src);
    if (res != EMUL_OK) {
        return res;
    }
    uint64_t asked = run_length(s, c->insn.seg, R_SI, src, s->left);
    unsigned long done = asked;
    if (asked > 1) {
        res = c->ops->rep_outs(c, dx_port(c), src, s->bytes, &done, s->df);
        *items = accept(s, done, asked, R_SI, -1);
    }
    return res;
}

enum emul_result emul_op_outs(struct emul_ctx *c)
{
    struct string_op s;
    enum emul_result res = port_begin(c, &s);
    return res == EMUL_OK ? repeat(&s, outs_one, c->ops->rep_outs ? outs_batch : NULL) : res;
}
