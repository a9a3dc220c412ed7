/* mmio.c: instructions that touch devices are emulated: from the exit to the answer.
 *
 * The memory behind an access is found by walking the guest's page tables, except for the one that
 * the hardware has walked already: where an instruction has a single data operand, that operand is
 * what faulted, and its guest-physical address is known.
 */
#include "platform/mmio.h"

#include "core/atomic.h"
#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "domain/dom0.h"

#define IN_PAGE   (PAGE_SIZE - 1)

#define VGA_FIRST 0xa0000 /* plain frame buffer memory: writes may be posted */
#define VGA_LAST  0xbffff

/* The emulator works on our registers and segments as they are. */
STATIC_ASSERT(sizeof(struct emul_regs) == sizeof(struct guest_regs));
STATIC_ASSERT(offsetof(struct emul_regs, rip) == offsetof(struct guest_regs, rip));
STATIC_ASSERT(offsetof(struct emul_regs, rflags) == offsetof(struct guest_regs, rflags));
STATIC_ASSERT(sizeof(struct emul_segment) == sizeof(struct segment));
STATIC_ASSERT(offsetof(struct emul_segment, base) == offsetof(struct segment, base));

/* ---- from linear addresses to guest-physical ones ------------------------------------------- */

#define OPS(first, last)                                                                           \
    ((~0ULL >> (63 - ((last)-64 * ((first) / 64)))) & (~0ULL << ((first) % 64)))

/* Opcodes with one memory operand, and no other data access (no stack, no string, no far pointer):
 * a bit each. APM 3, appendix A. */
static const uint64_t single_1byte[4] = {
    [0] = 0x0f0f0f0f0f0f0f0fULL,                       /* ALU, r/m forms */
    [2] = OPS(0x80, 0x8b) | OPS(0xa0, 0xa3),           /* group 1, TEST, XCHG, MOV, MOV moffs */
    [3] = OPS(0xc0, 0xc1) | OPS(0xc6, 0xc7) |          /* shifts, MOV imm */
          OPS(0xd0, 0xd3) | OPS(0xf6, 0xf7) | BIT(62), /* shifts, group 3, INC/DEC byte */
};
static const uint64_t single_0f[4] = {
    [0] = OPS(0x10, 0x11) | OPS(0x28, 0x29) | BIT(0x2b),       /* SSE moves */
    [1] = OPS(0x40, 0x4f) | OPS(0x6e, 0x6f) | OPS(0x7e, 0x7f), /* CMOV, MMX and SSE moves */
    [2] = OPS(0x90, 0x9f) | BIT(0xa3 - 128) | BIT(0xab - 128) | OPS(0xb0, 0xb1) | /* SETcc, BT, */
          BIT(0xb3 - 128) | OPS(0xb6, 0xb7) | OPS(0xba, 0xbb) | OPS(0xbe, 0xbf),  /* MOVZX... */
    [3] = OPS(0xc0, 0xc1) | BIT(0xc3 - 192) | BIT(0xd6 - 192) | BIT(0xe7 - 192),  /* XADD, MOVNTI */
};

static bool has_single_operand(const struct emul_insn *in)
{
    const uint64_t *map = in->map == EMUL_MAP_1BYTE ? single_1byte : single_0f;

    return in->mem && in->map <= EMUL_MAP_0F && (map[in->opcode / 64] >> (in->opcode % 64) & 1);
}

/* Is linear the access that the nested fault was about? Then its translation is known. */
static bool is_faulting(const struct mmio_vcpu *m, uint64_t linear, bool write)
{
    if (!m->fault.valid || (write && !m->fault.write))
        return false;
    if (m->fault.gla_valid)
        return ((linear ^ m->fault.gla) & PAGE_MASK) == 0;
    return ((linear ^ m->fault.gpa) & IN_PAGE) == 0 && has_single_operand(&m->ctx.insn);
}

static unsigned walk_access(const struct mmio_vcpu *m, enum emul_access access)
{
    unsigned user = m->ctx.cpl == 3 ? GWALK_USER : 0;

    switch (access) {
    case EMUL_ACC_READ:
        return user;
    case EMUL_ACC_RMW:
    case EMUL_ACC_WRITE:
        return user | GWALK_WRITE;
    case EMUL_ACC_FETCH:
        return user | GWALK_FETCH;
    case EMUL_ACC_SYSTEM:
        return GWALK_IMPLICIT;
    }
    return user;
}

enum emul_result mmio_translate(struct mmio_vcpu *m, uint64_t linear, enum emul_access access,
                                paddr_t *gpa, bool *faulted)
{
    bool write = access == EMUL_ACC_RMW || access == EMUL_ACC_WRITE;
    uint32_t pfec;

    *faulted = (access == EMUL_ACC_READ || write) && is_faulting(m, linear, write);
    if (*faulted) {
        *gpa = (m->fault.gpa & PAGE_MASK) | (linear & IN_PAGE);
        return EMUL_OK;
    }
    if (guest_walk(m->v->domain, &m->mode, linear, walk_access(m, access), gpa, &pfec))
        return emul_page_fault(&m->ctx, linear, pfec);
    return EMUL_OK;
}

/* ---- devices -------------------------------------------------------------------------------- */

static void note(struct mmio_vcpu *m, const struct access *a)
{
    m->done[m->n_done++] = *a;
    m->next = m->n_done;
}

/* The noted answer to this access, if it was made before. When the guest's memory makes the
 * instruction take another way this time, the rest of the notes is void. */
static bool replay(struct mmio_vcpu *m, const struct access *a, uint64_t *val)
{
    const struct access *r = &m->done[m->next];

    if (m->next >= m->n_done)
        return false;
    if (r->addr != a->addr || r->kind != a->kind || r->bytes != a->bytes || r->write != a->write) {
        m->n_done = m->next;
        return false;
    }
    m->next++;
    if (!a->write)
        *val = r->data;
    return true;
}

/* Served in the hypervisor? */
static bool local_device(struct mmio_vcpu *m, const struct access *a, uint64_t *val)
{
    uint32_t val32 = (uint32_t)*val;
    bool taken;

    if (a->kind == ACCESS_MMIO)
        return platform_mmio(m->v, a->addr, a->bytes, a->write, val) ||
               (m->v->domain->is_dom0 && dom0_mmio(m->v, a->addr, a->bytes, a->write, val));
    if (a->kind != ACCESS_PORT)
        return false;
    taken = io_local(m->v, (uint16_t)a->addr, a->bytes, a->write, &val32);
    *val = val32;
    return taken;
}

static enum ioreq_result ask_model(struct mmio_vcpu *m, const struct access *a, uint64_t val)
{
    ioreq_t p = {
        .addr = a->addr,
        .data = a->write ? val : 0,
        .count = 1,
        .size = a->bytes,
        .dir = a->write ? IOREQ_WRITE : IOREQ_READ,
        .type = a->kind == ACCESS_PORT ? IOREQ_TYPE_PIO : IOREQ_TYPE_COPY,
    };
    bool post = a->kind == ACCESS_PORT ? io_may_post((uint16_t)a->addr)
                                       : a->addr >= VGA_FIRST && a->addr <= VGA_LAST;

    if (a->kind == ACCESS_WP_RAM)
        return ioreq_send_mem_type(m->v, &p);
    return ioreq_send(m->v, &p, post);
}

enum emul_result mmio_device(struct mmio_vcpu *m, enum access_kind kind, uint64_t addr,
                             unsigned bytes, bool write, uint64_t *val)
{
    struct access a = {.addr = addr, .kind = kind, .bytes = bytes, .write = write};

    if (replay(m, &a, val))
        return EMUL_OK;
    if (unlikely(m->n_done == ACCESSES_MAX))
        return EMUL_UNHANDLEABLE;
    if (!write)
        *val = ~0ULL >> (64 - 8 * bytes);
    if (!local_device(m, &a, val)) {
        switch (ask_model(m, &a, *val)) {
        case IOREQ_PENDING:
            m->pending = a;
            m->waiting = WAIT_ACCESS;
            return EMUL_RETRY;
        case IOREQ_NO_SERVER:
            if (kind == ACCESS_WP_RAM)
                return EMUL_UNHANDLEABLE;
            break;
        case IOREQ_DONE:
            break;
        }
    }
    a.data = *val;
    note(m, &a);
    return EMUL_OK;
}

/* Device memory in pieces that a device understands. */
static enum emul_result device_bytes(struct mmio_vcpu *m, paddr_t gpa, uint8_t *buf, unsigned bytes,
                                     bool write)
{
    while (bytes) {
        unsigned n = bytes >= 8 ? 8 : bytes >= 4 ? 4 : bytes >= 2 ? 2 : 1;
        uint64_t val = 0;
        enum emul_result res;

        if (write)
            memcpy(&val, buf, n);
        res = mmio_device(m, ACCESS_MMIO, gpa, n, write, &val);
        if (res != EMUL_OK)
            return res;
        if (!write)
            memcpy(buf, &val, n);
        gpa += n;
        buf += n;
        bytes -= n;
    }
    return EMUL_OK;
}

/* dom0's identity map of host devices, touched by an instruction that was emulated for another
 * reason. */
static void *direct_device(mfn_t mfn, paddr_t gpa)
{
    paddr_t pa = (mfn << PAGE_SHIFT) | (gpa & IN_PAGE);

#ifdef HOST_TEST
    return pa_to_virt(pa);
#else
    return pa < BIT(32) ? (void *)(UCMAP_BASE + pa) : NULL;
#endif
}

static enum emul_result direct_bytes(mfn_t mfn, paddr_t gpa, uint8_t *buf, unsigned bytes,
                                     bool write)
{
    void *p = direct_device(mfn, gpa);

    if (!p)
        return EMUL_UNHANDLEABLE;
    switch (bytes) {
    case 1:
        write ? (void)(*(volatile uint8_t *)p = *buf) : (void)(*buf = *(volatile uint8_t *)p);
        return EMUL_OK;
    case 2: {
        uint16_t val;

        memcpy(&val, buf, 2);
        write ? (void)(*(volatile uint16_t *)p = val) : (void)(val = *(volatile uint16_t *)p);
        memcpy(buf, &val, 2);
        return EMUL_OK;
    }
    case 4: {
        uint32_t val;

        memcpy(&val, buf, 4);
        write ? (void)(*(volatile uint32_t *)p = val) : (void)(val = *(volatile uint32_t *)p);
        memcpy(buf, &val, 4);
        return EMUL_OK;
    }
    case 8: {
        uint64_t val;

        memcpy(&val, buf, 8);
        write ? (void)(*(volatile uint64_t *)p = val) : (void)(val = *(volatile uint64_t *)p);
        memcpy(buf, &val, 8);
        return EMUL_OK;
    }
    default:
        return EMUL_UNHANDLEABLE;
    }
}

/* ---- memory --------------------------------------------------------------------------------- */

static void copy(uint8_t *memory, uint8_t *buf, unsigned bytes, bool write)
{
    if (write)
        memcpy(memory, buf, bytes);
    else
        memcpy(buf, memory, bytes);
}

/* A write to a page that an ioreq server wants to see. */
static enum emul_result write_watched(struct mmio_vcpu *m, paddr_t gpa, uint8_t *buf,
                                      unsigned bytes, uint8_t *memory)
{
    while (bytes) {
        unsigned n = bytes >= 8 ? 8 : bytes >= 4 ? 4 : bytes >= 2 ? 2 : 1;
        uint64_t val = 0;
        enum emul_result res;

        memcpy(&val, buf, n);
        res = mmio_device(m, ACCESS_WP_RAM, gpa, n, true, &val);
        if (res == EMUL_RETRY)
            return res;
        if (res != EMUL_OK)
            memcpy(memory, buf, n);
        gpa += n;
        buf += n;
        memory += n;
        bytes -= n;
    }
    return EMUL_OK;
}

/* Bytes within a page that is not plain memory to this access. */
static enum emul_result no_ram(struct mmio_vcpu *m, enum p2m_type t, paddr_t gpa, uint8_t *buf,
                               unsigned bytes, bool write)
{
    unsigned order;
    mfn_t mfn;

    if (p2m_is_mapped(t)) { /* read-only: ROM swallows writes */
        if (!write)
            memset(buf, 0xff, bytes); /* gone while we looked */
        return EMUL_OK;
    }
    if (t == P2M_MMIO_DIRECT && !platform_mmio_claims(m->v, gpa)) {
        mfn = p2m_get(m->v->domain, gpa >> PAGE_SHIFT, &t, &order);
        if (mfn != INVALID_MFN)
            return direct_bytes(mfn, gpa, buf, bytes, write);
    }
    return device_bytes(m, gpa, buf, bytes, write);
}

/* Read or write bytes within one page. */
static enum emul_result access_page(struct mmio_vcpu *m, paddr_t gpa, bool faulted, uint8_t *buf,
                                    unsigned bytes, bool write)
{
    struct page_info *pg;
    enum p2m_type t;
    enum emul_result res = EMUL_OK;
    uint8_t *memory;

    if (faulted && platform_mmio_claims(m->v, gpa))
        return device_bytes(m, gpa, buf, bytes, write);
    pg = p2m_get_page(m->v->domain, gpa >> PAGE_SHIFT, write, &t);
    if (!pg)
        return no_ram(m, t, gpa, buf, bytes, write);
    memory = (uint8_t *)page_to_virt(pg) + (gpa & IN_PAGE);
    if (unlikely(write && t == P2M_IOREQ_SERVER))
        res = write_watched(m, gpa, buf, bytes, memory);
    else
        copy(memory, buf, bytes, write);
    page_put(pg);
    return res;
}

static enum emul_result access_linear(struct mmio_vcpu *m, uint64_t linear, uint8_t *buf,
                                      unsigned bytes, enum emul_access access)
{
    bool write = access == EMUL_ACC_WRITE;

    for (;;) {
        unsigned n = MIN(bytes, PAGE_SIZE - (linear & IN_PAGE));
        enum emul_result res;
        bool faulted;
        paddr_t gpa;

        res = mmio_translate(m, linear, access, &gpa, &faulted);
        if (res == EMUL_OK)
            res = access_page(m, gpa, faulted, buf, n, write);
        bytes -= n;
        if (res != EMUL_OK || bytes == 0)
            return res;
        linear += n;
        if (m->ctx.code_bytes != 8)
            linear = (uint32_t)linear;
        buf += n;
    }
}

enum emul_result mmio_read(struct emul_ctx *c, uint64_t linear, void *buf, unsigned bytes,
                           enum emul_access access)
{
    return access_linear(mmio_of(c), linear, buf, bytes, access);
}

/* A write that crosses pages must be possible in both before it changes one. */
enum emul_result mmio_write(struct emul_ctx *c, uint64_t linear, const void *buf, unsigned bytes)
{
    struct mmio_vcpu *m = mmio_of(c);
    uint64_t last = linear + bytes - 1;

    if (unlikely((linear ^ last) & PAGE_MASK)) {
        enum emul_result res;
        bool faulted;
        paddr_t gpa;

        if (c->code_bytes != 8)
            last = (uint32_t)last;
        res = mmio_translate(m, last & PAGE_MASK, EMUL_ACC_WRITE, &gpa, &faulted);
        if (res != EMUL_OK)
            return res;
    }
    return access_linear(m, linear, (uint8_t *)(uintptr_t)buf, bytes, EMUL_ACC_WRITE);
}

static bool cmpxchg16(void *p, void *old, const void *new_val)
{
    uint64_t *o = old;
    const uint64_t *n = new_val;
    bool done;

    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(done), "+m"(*(char(*)[16])p), "+a"(o[0]), "+d"(o[1])
                     : "b"(n[0]), "c"(n[1])
                     : "memory");
    return done;
}

/* The processor's own, so that it is atomic against the guest's other vCPUs. */
static bool cmpxchg_memory(void *p, void *old, const void *new_val, unsigned bytes)
{
#define CASE(type)                                                                                 \
    {                                                                                              \
        type was, want;                                                                            \
        bool done;                                                                                 \
        memcpy(&was, old, sizeof(was));                                                            \
        memcpy(&want, new_val, sizeof(want));                                                      \
        __asm__ volatile("lock cmpxchg %3, %1"                                                     \
                         : "=@ccz"(done), "+m"(*(type *)p), "+a"(was)                              \
                         : "r"(want)                                                               \
                         : "memory");                                                              \
        memcpy(old, &was, sizeof(was));                                                            \
        return done;                                                                               \
    }
    switch (bytes) {
    case 1:
        CASE(uint8_t)
    case 2:
        CASE(uint16_t)
    case 4:
        CASE(uint32_t)
    case 8:
        CASE(uint64_t)
    default:
        return cmpxchg16(p, old, new_val);
    }
#undef CASE
}

enum emul_result mmio_cmpxchg(struct emul_ctx *c, uint64_t linear, void *old, const void *new_val,
                              unsigned bytes, bool *done)
{
    struct mmio_vcpu *m = mmio_of(c);
    struct page_info *pg = NULL;
    enum emul_result res;
    enum p2m_type t;
    bool faulted;
    paddr_t gpa;

    *done = true;
    if (((linear & IN_PAGE) + bytes > PAGE_SIZE) || (bytes == 16 && linear % 16))
        return mmio_write(c, linear, new_val, bytes); /* a split lock: not atomic */
    res = mmio_translate(m, linear, EMUL_ACC_WRITE, &gpa, &faulted);
    if (res != EMUL_OK)
        return res;
    if (!platform_mmio_claims(m->v, gpa))
        pg = p2m_get_page(m->v->domain, gpa >> PAGE_SHIFT, true, &t);
    if (!pg || t == P2M_IOREQ_SERVER) {
        if (pg)
            page_put(pg);
        return mmio_write(c, linear, new_val, bytes);
    }
    *done = cmpxchg_memory((uint8_t *)page_to_virt(pg) + (gpa & IN_PAGE), old, new_val, bytes);
    page_put(pg);
    return EMUL_OK;
}

/* ---- an emulation from begin to end --------------------------------------------------------- */

static struct mmio_vcpu *begin(struct vcpu *v, unsigned n_bytes)
{
    struct mmio_vcpu *m = v->emul;
    struct emul_ctx *c = &m->ctx;
    struct insn_place at;
    struct segment ss = {0};

    m->n_done = m->next = 0;
    m->io_permitted = false;
    m->io_watch = m->io_hits = 0;
    m->batch_answered = false;
    m->fault.valid = false;
    c->one_item = false;
    hvm_ops->get_insn_place(v, &at);
    m->mode = at.mode;
    c->cr0 = at.mode.cr0;
    c->cr4 = at.mode.cr4;
    c->cpl = at.cpl;
    if (!n_bytes)
        n_bytes = insn_peek(v, &at, c->bytes);
    hvm_ops->get_segment(v, SEGR_CS, (struct segment *)&c->seg[EMUL_SEG_CS]);
    c->seg_valid = 1u << EMUL_SEG_CS;
    if (!(m->mode.efer & EFER_LMA) || !(c->seg[EMUL_SEG_CS].attr & EMUL_SEG_L))
        hvm_ops->get_segment(v, SEGR_SS, &ss);
    emul_set_mode(c, c->seg[EMUL_SEG_CS].attr, ss.attr, m->mode.efer & EFER_LMA);
    emul_begin(c, n_bytes);
    return m;
}

static void give_up(struct mmio_vcpu *m)
{
    struct vcpu *v = m->v;
    const struct emul_ctx *c = &m->ctx;
    char hex[2 * 15 + 1] = "";

    for (unsigned i = 0; i < c->n_bytes && i < 15; i++)
        snprintf(hex + 2 * i, 3, "%02x", c->bytes[i]);
    if (c->cpl == 3) {
        guest_printk(LOG_WARN, "d%uv%u: cannot emulate %s at %04x:%lx\n", v->domain->id, v->id, hex,
                     c->seg[EMUL_SEG_CS].sel, (unsigned long)v->regs.rip);
        hvm_inject_exception(v, EXC_UD, -1);
        return;
    }
    domain_crash(v->domain, "cannot emulate %s at %04x:%lx for %s of gpa %lx", hex,
                 c->seg[EMUL_SEG_CS].sel, (unsigned long)v->regs.rip,
                 m->fault.write ? "a write" : "an access",
                 (unsigned long)(m->fault.valid ? m->fault.gpa : 0));
}

static void retired(struct mmio_vcpu *m)
{
    struct vcpu *v = m->v;

    hvm_ops->set_interrupt_shadow(v, m->ctx.interrupt_shadow != EMUL_SHADOW_NONE);
    if (unlikely(m->ctx.single_step)) {
        bool stepped = !m->ctx.one_item || v->regs.rflags & RFLAGS_TF;
        uint64_t bits = m->io_hits | (stepped ? DR6_BS : 0);
        if (bits)
            io_trap(m, bits);
    }
}

static void run(struct mmio_vcpu *m)
{
    const struct emul_ctx *c = &m->ctx;

    m->next = 0;
    switch (emul_execute(&m->ctx)) {
    case EMUL_OK:
        retired(m);
        return;
    case EMUL_RETRY:
        m->rip = m->v->regs.rip;
        return;
    case EMUL_EXCEPTION:
        if (c->exc_vector == EXC_PF)
            hvm_inject_page_fault(m->v, c->exc_cr2, c->exc_error);
        else
            hvm_inject_exception(m->v, c->exc_vector,
                                 c->exc_has_error ? (int64_t)c->exc_error : -1);
        return;
    case EMUL_UNHANDLEABLE:
        give_up(m);
        return;
    }
}

void handle_mmio(struct vcpu *v, paddr_t gpa, uint64_t gla, bool gla_valid, bool write,
                 const uint8_t *insn, unsigned insn_bytes)
{
    unsigned n = MIN(insn_bytes, 15u);
    struct mmio_vcpu *m;

    if (platform_mmio_claims(v, gpa) && mmio_fast_mov(v, gpa, write, insn, n))
        return;
    m = begin(v, n);
    if (n)
        memcpy(m->ctx.bytes, insn, n);
    m->fault.valid = true;
    m->fault.gpa = gpa;
    m->fault.gla = gla;
    m->fault.gla_valid = gla_valid;
    m->fault.write = write;
    run(m);
}

void handle_string_io(struct vcpu *v, uint16_t port, unsigned bytes, bool in, bool rep)
{
    struct mmio_vcpu *m = begin(v, 0);

    (void)in, (void)rep; /* the instruction says the same */
    m->io_permitted = true;
    m->io_watch = (uint8_t)io_breakpoints(v, port, bytes);
    m->ctx.one_item = m->io_watch != 0; /* the trap comes after each */
    run(m);
}

void handle_emulate(struct vcpu *v)
{
    run(begin(v, 0));
}

void io_complete(struct vcpu *v)
{
    struct mmio_vcpu *m = v->emul;
    enum waiting waiting = m->waiting;
    uint64_t data;

    if (!ioreq_take_response(v, &data))
        return;
    m->waiting = WAIT_NOTHING;
    if (v->regs.rip != m->rip) {
        m->io_hits = 0;
        return; /* INIT or the tools moved it elsewhere */
    }
    switch (waiting) {
    case WAIT_NOTHING:
        return;
    case WAIT_PIO:
        pio_finish(v, m->pio.bytes, m->pio.in, m->pio.insn_bytes, data);
        if (unlikely(m->io_hits))
            io_trap(m, m->io_hits);
        return;
    case WAIT_ACCESS:
        m->pending.data = data & (~0ULL >> (64 - 8 * m->pending.bytes));
        note(m, &m->pending);
        break;
    case WAIT_BATCH:
        m->batch_answered = true;
        break;
    }
    run(m);
}

int mmio_vcpu_init(struct vcpu *v)
{
    struct mmio_vcpu *m = kzalloc(sizeof(*m));

    if (!m)
        return -ENOMEM;
    m->v = v;
    m->ctx.ops = &mmio_ops;
    m->ctx.opaque = m;
    m->ctx.regs = (struct emul_regs *)&v->regs;
    v->emul = m;
    return 0;
}

void mmio_vcpu_free(struct vcpu *v)
{
    kfree(v->emul);
    v->emul = NULL;
}
