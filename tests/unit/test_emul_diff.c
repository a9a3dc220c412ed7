/* sources: vmm/platform/emul_*.c */
/*
 * The emulator against the processor: random instructions run in a traced child, one single step
 * each, and in the emulator; registers, flags, memory and faults must agree. 64-bit code, 32-bit
 * flat code, and 16-bit code through the local descriptor table. EMUL_DIFF_CASES sets the number of
 * cases of each mode (those that this machine runs do the cases of the others too), EMUL_DIFF_SEED
 * the random sequence.
 */
#define _GNU_SOURCE
#include "test_emul.h"
#include "test_emul_native.h"

#define MAX_MISMATCHES 12
#define CMP_FLAGS      0xcd5ull /* CF PF AF ZF SF DF OF */

static uint8_t model[WORLD_BYTES];
static uint64_t rng_state;
static unsigned mismatches;
static bool
    keeps_selectors; /* the processor's side loads what the manual lets it load, and keeps it */

static uint64_t rnd(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state * 0x2545f4914f6cdd1dull;
}

static unsigned below(unsigned n)
{
    return (rnd() >> 33) % n;
}

/* Descriptor tables as Linux and ldt_entry() set them up, seen by system reads only. */
static enum emul_result diff_read(struct emul_ctx *c, uint64_t linear, void *buf, unsigned bytes,
                                  enum emul_access access)
{
    static const uint64_t gdt[16] = {
        [2] = 0x00af9b000000ffff, [3] = 0x00cf93000000ffff, [4] = 0x00cffb000000ffff,
        [5] = 0x00cff3000000ffff, [6] = 0x00affb000000ffff, [15] = 0x0040f50000000000};
    static const uint64_t ldt[2] = {0x1000fb000000ffff, 0x1000f3000000ffff};
    if (access != EMUL_ACC_SYSTEM) {
        return w_read(c, linear, buf, bytes, access);
    }
    memcpy(buf, linear >= 0x1000 ? &ldt[(linear - 0x1000) / 8] : &gdt[linear / 8], bytes);
    return EMUL_OK;
}

/* A register value: mostly a place in the window, else small, else anything. */
static uint64_t random_value(unsigned mode)
{
    static const uint16_t selectors[] = {0,    1,    3,    0x2b, 0x2a, 0x23, 0x33,
                                         0x10, 0x18, 0x7b, 7,    0xf,  0x17};
    unsigned kind = below(16);
    uint64_t value = rnd();
    if (kind == 15 && below(2)) {
        return (value & 0xff0000) | selectors[below(sizeof(selectors) / 2)];
    }
    if (kind < 9) {
        value = (mode == 2 ? 0 : WORLD_BASE) + 0x1000 + below(WORLD_BYTES - 0x1000);
        if (below(3) == 0) { /* around a page boundary */
            value = (value & ~0xfffull) + below(16) - 8;
        }
    } else if (kind < 13) {
        value = below(40) - 8ull;
    }
    return mode == 8 ? value : (uint32_t)value;
}

static void random_state(struct world *w, unsigned mode)
{
    for (unsigned i = 0; i < 16; i++) {
        w->r.gpr[i] = random_value(mode);
    }
    if (below(4)) {
        w->r.gpr[RSP] = (mode == 2 ? 0 : WORLD_BASE) + 0x2000 + below(0x4000);
    }
    if (below(4)) {
        w->r.gpr[RCX] = below(24);
    }
    w->r.rflags = 0x202 | (rnd() & CMP_FLAGS);
    unsigned offset = below(8) ? 0x100 + below(0xe00) : PAGE_NONE * 4096 - 1 - below(16);
    w->r.rip = (mode == 2 ? 0 : WORLD_BASE) + offset;
    for (unsigned i = 0; i < 16; i++) {
        uint64_t fill[4] = {rnd(), rnd(), rnd(), rnd()};
        memcpy(w->vec[i], fill, 32);
        w->mm[i & 7] = fill[0] ^ fill[1];
    }
    if (mode == 8) {
        w->c.seg[EMUL_SEG_FS].base = rnd() & 0xff8;
        w->c.seg[EMUL_SEG_GS].base = below(4) ? WORLD_BASE : rnd() >> 18;
    }
}

static unsigned random_prefixes(uint8_t *p, unsigned mode, uint8_t opcode)
{
    static const uint8_t segs[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
    bool string = (opcode & 0xf4) == 0xa4 || opcode >= 0xaa;
    unsigned n = 0;
    if (below(7) == 0) {
        p[n++] = 0x66;
    }
    if (below(10) == 0) {
        p[n++] = 0x67;
    }
    if (below(12) == 0) {
        p[n++] = segs[below(6)];
    }
    if (below(16) == 0) {
        p[n++] = 0xf0;
    }
    if (below(string ? 3 : 8) == 0) {
        p[n++] = 0xf2 + below(2);
    }
    if (mode == 8 && below(2)) {
        p[n++] = 0x40 | below(16);
    }
    return n;
}

static void random_insn(uint8_t code[32], unsigned mode)
{
    static const uint8_t vex_ops[] = {0x10, 0x11, 0x12, 0x13, 0x16, 0x17, 0x28, 0x29,
                                      0x2b, 0x6e, 0x6f, 0x7e, 0x7f, 0xd6, 0xe7, 0xf0};
    uint8_t opcode = below(256);
    unsigned n, kind = below(32);

    for (n = 0; n < 32; n++) {
        code[n] = below(3) ? rnd() >> 40 : 0;
    }
    if (kind == 0 && nat.has_avx && nat.xstate_bytes) {
        n = 0;
        if (below(2)) {
            code[n++] = 0xc5;
            code[n++] = (rnd() & 0x87) | (below(3) ? 0x78 : rnd() & 0x78);
        } else {
            code[n++] = 0xc4;
            code[n++] = (rnd() & 0xe0) | 1;
            code[n++] = (rnd() & 0x87) | (below(3) ? 0x78 : rnd() & 0x78);
        }
        code[n++] = vex_ops[below(sizeof(vex_ops))];
        return;
    }
    n = random_prefixes(code, mode, kind < 18 ? opcode : 0);
    if (kind >= 18) {
        code[n++] = 0x0f;
        if (kind == 18) {
            code[n++] = 0x38;
            opcode = below(3) ? 0xf0 + below(2) : 0x2a;
        } else if (kind < 22) {
            opcode = vex_ops[below(sizeof(vex_ops))];
        }
    }
    code[n++] = opcode;
    if (below(3) == 0) { /* plain memory operands more often */
        code[n] &= 0x3f;
    }
}

/* What hangs on time or on the kernel, and MOV SS, after which single-stepping skips one. */
static bool comparable(const struct emul_insn *in)
{
    if (in->map == EMUL_MAP_0F) {
        switch (in->opcode) {
        case 0x01: /* with UMIP, the kernel emulates SMSW */
        case 0x31:
        case 0xb2:
            return false;
        case 0xa1:
        case 0xa9:
        case 0xb4:
        case 0xb5:
            return keeps_selectors || in->lock;
        case 0x00: /* LOCK VERW ran on one machine */
        case 0x20:
        case 0x22: /* LOCK MOV CR0: not everywhere */
            return !in->lock;
        case 0xae: /* CLFLUSH: we do not look whether the page is there */
            return !in->mem;
        }
    } else if (in->map == EMUL_MAP_1BYTE) {
        switch (in->opcode) {
        case 0x17:
            return false;
        case 0x8e:
            return keeps_selectors && (in->modrm >> 3 & 7) != EMUL_SEG_SS;
        case 0xe0: /* AMD lets REP prefixes change the condition of LOOPcc */
        case 0xe1:
            return !in->rep;
        }
    }
    return true;
}

/* Flags that the manual leaves undefined and that we do not get from the hardware. */
static uint64_t flags_to_compare(const struct emul_insn *in)
{
    if (in->map != EMUL_MAP_1BYTE) {
        return CMP_FLAGS;
    }
    unsigned ext = in->modrm >> 3 & 7;
    switch (in->opcode) {
    case 0x27:
    case 0x2f:
        return CMP_FLAGS & ~0x800ull; /* DAA, DAS: OF */
    case 0x37:
    case 0x3f:
        return CMP_FLAGS & ~0x8c4ull; /* AAA, AAS: OF SF ZF PF */
    case 0xd4:
    case 0xd5:
        return CMP_FLAGS & ~0x811ull; /* AAM, AAD: OF AF CF */
    case 0xf6:
    case 0xf7:
        return ext >= 6 ? 0x400 : CMP_FLAGS; /* DIV, IDIV */
    }
    return CMP_FLAGS;
}

static void describe(const struct world *w, const uint8_t *code, const struct emul_regs *before,
                     const struct outcome *e, const struct outcome *n)
{
    print_error("mode %u len %u:", w->c.code_bytes, w->c.insn.len);
    for (unsigned i = 0; i < 15; i++) {
        print_error(" %02x", code[i]);
    }
    print_error("\nemulator vector %d cr2 %lx, processor vector %d cr2 %lx\n", e->vector, e->cr2,
                n->vector, n->cr2);
    for (unsigned i = 0; i < 16; i++) {
        bool differs = e->r.gpr[i] != n->r.gpr[i];
        if (differs) {
            print_error("r%-2u %016lx emulator %016lx processor %016lx\n", i, before->gpr[i],
                        e->r.gpr[i], n->r.gpr[i]);
        }
    }
    for (unsigned i = 0; i < EMUL_SEG_COUNT; i++) {
        if (e->sel[i] != n->sel[i]) {
            print_error("segment %u emulator %x processor %x\n", i, e->sel[i], n->sel[i]);
        }
    }
    print_error("rip %lx emulator %lx processor %lx\nflags %lx emulator %lx processor %lx\n",
                before->rip, e->r.rip, n->r.rip, before->rflags, e->r.rflags, n->r.rflags);
    for (unsigned i = 0, shown = 0; i < WORLD_BYTES && shown < 16; i++) {
        if ((i >> 12) != PAGE_NONE && model[i] != nat.mem[i]) {
            print_error("memory %05x emulator %02x processor %02x\n", i, model[i], nat.mem[i]);
            shown++;
        }
    }
}

/* Where an instruction has two reasons to fault, which comes first varies between processors. */
static bool either_fault(const struct world *w, const struct outcome *e, const struct outcome *n)
{
    const struct emul_insn *in = &w->c.insn;
    const uint64_t hole = WORLD_BASE + PAGE_NONE * 4096;

    if (in->len == 0) { /* #UD, or the fetch of bytes that would not have mattered */
        return (e->vector == 6 && n->vector == 14 && n->cr2 == hole) ||
               (n->vector == 6 && e->vector == 14 && e->cr2 == hole);
    }
    if (in->map != EMUL_MAP_1BYTE) {
        return false;
    }
    switch (in->opcode) {
    case 0x61: /* POPA: AMD keeps the registers popped before the fault */
        return e->vector == n->vector && e->cr2 == n->cr2;
    case 0xa4: /* MOVS and CMPS */
    case 0xa5:
    case 0xa6:
    case 0xa7:
    case 0xe8: /* CALL: the stack and the target */
        return true;
    case 0xff:
        return (in->modrm & 0x30) == 0x10;
    }
    return false;
}

static bool same(const struct world *w, const struct outcome *e, const struct outcome *n)
{
    uint64_t mask = w->c.code_bytes == 8 ? ~0ull : 0xffffffff;
    uint64_t flags = e->vector < 0 ? flags_to_compare(&w->c.insn) : 0;

    if (e->vector >= 0 && n->vector >= 0 && either_fault(w, e, n)) {
        return true;
    }
    if (e->vector != n->vector || (e->vector == 14 && e->cr2 != n->cr2)) {
        return false;
    }
    for (unsigned i = 0; i < (mask == ~0ull ? 16 : 8); i++) {
        if ((e->r.gpr[i] ^ n->r.gpr[i]) & mask) {
            return false;
        }
    }
    if (memcmp(e->sel, n->sel, sizeof(e->sel))) {
        return false;
    }
    return !((e->r.rip ^ n->r.rip) & mask) && !((e->r.rflags ^ n->r.rflags) & flags);
}

/* What single-stepping itself shows: the processor pushes the trace flag that is set for it. */
static void hide_trace_flag(const struct world *w)
{
    if (w->c.insn.map == EMUL_MAP_1BYTE && w->c.insn.opcode == 0x9c) {
        uint64_t sp = w->r.gpr[RSP], bad;
        sp = w->c.stack_bytes == 2 ? WORLD_BASE + (sp & 0xffff) : sp;
        if (!first_fault(sp, 2, true, &bad)) {
            nat.mem[sp - WORLD_BASE + 1] &= ~1;
            if (w->c.insn.op_bytes > 2) {
                nat.mem[sp - WORLD_BASE + 2] &= ~0x20; /* ID: the tracer cannot set it */
            }
        }
    }
}

static bool is_vector(const struct emul_insn *in)
{
    if (in->vex || (in->map == EMUL_MAP_0F38 && in->opcode == 0x2a)) {
        return true;
    }
    unsigned row = in->opcode >> 4;
    return in->map == EMUL_MAP_0F &&
           (in->opcode < 0x18 || row == 2 || row == 6 || row == 7 || row >= 13) &&
           in->opcode >= 0x10;
}

static bool memory_equal(void)
{
    return !memcmp(model, nat.mem, PAGE_NONE * 4096) &&
           !memcmp(model + PAGE_RO * 4096, nat.mem + PAGE_RO * 4096, WORLD_BYTES - PAGE_RO * 4096);
}

static void store_model(uint32_t offset, const void *data, unsigned bytes)
{
    for (unsigned i = 0; i < bytes && offset + i < WORLD_BYTES; i++) {
        unsigned page = (offset + i) >> 12;
        model[offset + i] = ((const uint8_t *)data)[i];
        if (page != PAGE_NONE && page != PAGE_RO) {
            nat.mem[offset + i] = model[offset + i];
        }
    }
}

static void reload_processor_memory(void)
{
    for (unsigned page = 0; page < WORLD_PAGES; page++) {
        if (page != PAGE_NONE) {
            memcpy(nat.mem + page * 4096, model + page * 4096, 4096);
        }
    }
}

static bool is_string(const struct emul_insn *in)
{
    unsigned op = in->opcode;
    return in->map == EMUL_MAP_1BYTE && ((op >= 0xa4 && op < 0xa8) || (op >= 0xaa && op < 0xb0));
}

/* Does a NOP run in this state? There are kernels, under hypervisors that have no nested paging,
 * that run 64-bit code only, or take only some segment bases: there it gets the #GP that no NOP can
 * have. */
static bool nop_runs(const struct world *start)
{
    struct outcome out;
    uint8_t *at = nat.mem + (start->r.rip & (WORLD_BYTES - 1)), kept = *at;

    *at = 0x90;
    run_native(start, false, &out);
    *at = kept;
    return out.vector < 0;
}

/* An instruction and registers that are not random. */
struct fixed_case {
    uint8_t code[4];
    uint64_t rax, flags;
};

/* User code in a window of its own, in a random state. */
static void user_state(struct world *w, struct emul_ops *ops, unsigned mode)
{
    static const uint16_t code_sel[] = {[2] = 7, [4] = 0x23, [8] = 0x33};

    world_init(w, model, mode);
    world_segments(w, mode, mode == 2 ? WORLD_BASE : 0, mode == 2 ? 0xffff : 0xffffffff, 3);
    w->c.cpl = 3;
    *ops = world_ops;
    ops->read = diff_read;
    w->c.ops = ops;
    w->c.intel = __builtin_cpu_is("intel");
    w->gdt_limit = 0x7f;
    w->ldt = 0x1000;
    w->ldt_limit = nat.has_ldt ? 15 : 0;
    for (unsigned s = 0; s < EMUL_SEG_COUNT; s++) {
        w->c.seg[s].sel = s == EMUL_SEG_CS ? code_sel[mode] : mode == 2 ? 0xf : 0x2b;
    }
    if (mode == 8) {
        w->c.seg[EMUL_SEG_FS].sel = w->c.seg[EMUL_SEG_GS].sel = 0;
    }
    random_state(w, mode);
}

/* One case. Returns whether it could be compared. */
static bool one_case(unsigned mode, const struct fixed_case *fixed)
{
    static struct world w;
    static struct emul_ops ops;
    uint8_t code[32];
    struct outcome emulated = {.vector = -1}, native;

    user_state(&w, &ops, mode);
    random_insn(code, mode);
    if (fixed) {
        memcpy(code, fixed->code, sizeof(fixed->code));
        w.r.gpr[RAX] = fixed->rax;
        w.r.rflags = fixed->flags;
    }
    uint32_t at = mode == 2 ? w.r.rip : w.r.rip - WORLD_BASE;

    if (below(2)) { /* something to pop */
        uint64_t value = random_value(mode), sp = w.r.gpr[RSP] - (mode == 2 ? 0 : WORLD_BASE);
        if (sp < 0x7000) {
            store_model(sp, &value, 8);
        }
    }
    store_model(at, code, 16);
    struct world start = w;
    emul_begin(&w.c, 0);
    int len = emul_decode(&w.c);
    if (len < 0 && -len != EMUL_EXCEPTION) {
        return false;
    }
    bool repeats = w.c.insn.rep != 0;
    if (!comparable(&w.c.insn)) {
        return false;
    }
    static uint8_t saved[WORLD_BYTES];
    memcpy(saved, model, WORLD_BYTES);
    enum emul_result res = len > 0 ? emul_execute(&w.c) : EMUL_EXCEPTION;
    if (res == EMUL_UNHANDLEABLE) {
        assert_memory_equal(saved, model, WORLD_BYTES);
        return false;
    }
    assert_int_not_equal(res, EMUL_RETRY);
    if (len > 0 && memcmp(model + at, saved + at, at + len <= WORLD_BYTES ? len : 1)) {
        memcpy(model, saved, WORLD_BYTES); /* it wrote over itself */
        return false;
    }
    if (res == EMUL_EXCEPTION) {
        emulated.vector = w.c.exc_vector;
        emulated.cr2 = w.c.exc_cr2;
    } else if (w.r.rip == start.r.rip && repeats) {
        memcpy(model, saved, WORLD_BYTES);
        return false; /* a long REP */
    }
    emulated.r = w.r;
    for (unsigned i = 0; i < EMUL_SEG_COUNT; i++) {
        emulated.sel[i] = w.c.seg[i].sel;
    }
    bool vector = len > 0 && is_vector(&w.c.insn) && nat.xstate_bytes;
    if (repeats && len > 0 && is_string(&w.c.insn) &&
        start.r.gpr[RCX] - w.r.gpr[RCX] >= MAX_STEPS) {
        memcpy(model, saved, WORLD_BYTES);
        return false;
    }
    if (vector) {
        xstate_set(&start);
    }
    run_native(&start, repeats, &native);
    if (native.vector == 13 && !nop_runs(&start)) {
        memcpy(model, saved, WORLD_BYTES);
        return false;
    }
    if (emulated.vector < 0) {
        hide_trace_flag(&w);
    }
    if (!same(&w, &emulated, &native) || !memory_equal() || (vector && !xstate_equal(&w))) {
        describe(&w, code, &start.r, &emulated, &native);
        mismatches++;
        reload_processor_memory();
    }
    return true;
}

/* MOV FS, AX with a null selector whose RPL is 1, and with one of the local descriptor table. Under
 * some hypervisors (as with nop_runs) the first comes back as 0 and the table is not there. */
static bool selectors_are_kept(void)
{
    static struct world w;
    static const uint16_t selectors[] = {1, 0xf};
    struct emul_ops ops;
    struct outcome out = {.vector = -1};
    bool kept = true;

    for (unsigned i = 0; i < (nat.has_ldt ? 2 : 1); i++) {
        user_state(&w, &ops, 8);
        w.c.seg[EMUL_SEG_GS].base = 0;
        w.r.rip = WORLD_BASE;
        w.r.gpr[RAX] = selectors[i];
        memcpy(nat.mem, "\x8e\xe0", 2);
        run_native(&w, false, &out);
        kept = kept && out.vector < 0 && out.sel[EMUL_SEG_FS] == selectors[i];
    }
    return kept;
}

/* Why the processor's side cannot run code of this mode; NULL: it can. */
static const char *lacking(unsigned mode)
{
    static struct world w;
    struct emul_ops ops;

    if (!nat.mem) {
        return "no traced child here";
    }
    if (mode == 2 && !nat.has_ldt) {
        return "the kernel refuses modify_ldt";
    }
    user_state(&w, &ops, mode);
    return mode == 8 || nop_runs(&w) ? NULL : "not even a NOP runs on this machine";
}

static void need_native(unsigned mode)
{
    const char *why = lacking(mode);

    if (why) {
        print_message("skipped: %u-bit code: %s\n", mode * 8, why);
        skip();
    }
}

/* The three modes have so many cases each; those that run here do the others' too. */
static unsigned long share_of(unsigned long each)
{
    unsigned running = !lacking(8) + !lacking(4) + !lacking(2);

    return each * 3 / running;
}

static void run_mode(unsigned mode, const char *name)
{
    const char *cases = getenv("EMUL_DIFF_CASES"), *seed = getenv("EMUL_DIFF_SEED");
    unsigned long want, compared = 0, tried = 0;

    need_native(mode);
    want = share_of(cases ? strtoul(cases, NULL, 0) : 20000);
    rng_state = 0x1234567 + mode + (seed ? strtoull(seed, NULL, 0) * 0x9e3779b97f4a7c15ull : 0);
    for (unsigned i = 0; i < WORLD_BYTES; i++) {
        model[i] = rnd() >> 32;
    }
    reload_processor_memory();
    mismatches = 0;
    while (compared < want && tried < 10 * want && mismatches < MAX_MISMATCHES) {
        compared += one_case(mode, NULL);
        tried++;
    }
    print_message("%s: %lu cases compared of %lu tried\n", name, compared, tried);
    assert_int_equal(mismatches, 0);
    assert_int_equal(compared, want);
}

static void test_64(void **state)
{
    (void)state;
    run_mode(8, "64-bit");
}

static void test_32(void **state)
{
    (void)state;
    run_mode(4, "32-bit");
}

static void test_16(void **state)
{
    (void)state;
    run_mode(2, "16-bit");
}

/* The decimal adjustments with every AL (and some AH), CF and AF; the others with every base. */
static void test_bcd(void **state)
{
    static const uint8_t opcodes[] = {0x27, 0x2f, 0x37, 0x3f, 0xd4, 0xd5};
    (void)state;
    need_native(4);
    mismatches = 0;
    rng_state = 99;
    reload_processor_memory();
    for (unsigned n = 0; n < sizeof(opcodes) * 1024 && mismatches < MAX_MISMATCHES; n++) {
        unsigned i = n & 1023;
        struct fixed_case fixed = {.code = {opcodes[n >> 10], i * 7, 0x90, 0x90}};
        fixed.rax = 0x50400 + 0x100 * (i % 5) + (i & 255);
        fixed.flags = 0x202 | (i >> 8 & 1) | (i >> 9 & 1) << 4;
        one_case(4, &fixed);
    }
    assert_int_equal(mismatches, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_64),
        cmocka_unit_test(test_32),
        cmocka_unit_test(test_16),
        cmocka_unit_test(test_bcd),
    };
    start_child();
    rng_state = 1;
    keeps_selectors = nat.mem && selectors_are_kept();
    if (nat.mem && !keeps_selectors) {
        print_message(
            "segment loads are not compared: this machine does not keep what is loaded\n");
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (nat.pid > 0) {
        kill(nat.pid, SIGKILL);
    }
    return failed;
}
