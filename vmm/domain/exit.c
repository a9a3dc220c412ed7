/* exit.c: what a guest's instruction asked for, in vendor-neutral terms, and the work that waits
 * before a vCPU enters its guest again. */
#include "domain/exit.h"

#include "core/atomic.h"
#include "core/errno.h"
#include "core/string.h"
#include "core/x86.h"
#include "platform/emul.h"
#include "platform/platform.h"

/* ---- pending work
 * ---------------------------------------------------------------------------------- */
static bool event_deliverable(struct vcpu *v)
{
    enum intr_source src;
    if (v->inject.valid || v->nmi_pending)
        return true;
    return v->regs.rflags & RFLAGS_IF && platform_pending_interrupt(v, &src) >= 0;
}

/* Sleep until an event comes. One that came since they were looked for is seen here: the locked
 * instruction in vcpu_block keeps this look behind the end of the stay in the guest. */
static void halt(struct vcpu *v)
{
    vcpu_block(v, VBLOCK_HALTED);
    if (READ_ONCE(v->work) & VWORK_EVENT || vlapic_news(v)) {
        atomic_or(&v->work, VWORK_EVENT);
        atomic_and(&v->block, ~VBLOCK_HALTED);
    }
}

bool vcpu_do_work(struct vcpu *v)
{
    uint32_t work = atomic_xchg(&v->work, 0);

    if (work & VWORK_RESET)
        vcpu_start_requested(v);
    if (work & VWORK_FLUSH_TLB)
        hvm_ops->flush_tlb(v);
    if (work & VWORK_IOREQ) {
        io_complete(v);
        if (READ_ONCE(v->block)) {
            atomic_or(&v->work, work & VWORK_EVENT);
            return false;
        }
    }
    if (work & VWORK_EVENT) {
        /* The guest may have cleared its upcall: a line callback ends with it (EOI raises this). */
        if (unlikely(v->domain->callback_via_asserted) && v->id == 0)
            hvm_callback_update(v);
        if (v->halted) {
            if (!event_deliverable(v)) {
                halt(v);
                return false;
            }
            v->halted = false;
        }
        hvm_ops->inject(v);
    }
    return true;
}

/* ---- exceptions
 * ---------------------------------------------------------------------------------- */
static bool contributory(unsigned vector)
{
    return vector == EXC_DE || (vector >= EXC_TS && vector <= EXC_GP);
}

/* APM 2, 8.2.9: a contributory exception while delivering another makes #DF, and that a shutdown.
 */
void hvm_inject_exception(struct vcpu *v, unsigned vector, int64_t error)
{
    if (v->inject.valid && v->inject.type == 3) {
        unsigned first = v->inject.vector;
        if (first == EXC_DF) {
            domain_triple_fault(v);
            return;
        }
        if ((contributory(first) && contributory(vector)) ||
            (first == EXC_PF && (contributory(vector) || vector == EXC_PF))) {
            vector = EXC_DF;
            error = 0;
        }
    }
    v->inject.valid = true;
    v->inject.type = 3;
    v->inject.vector = (uint8_t)vector;
    v->inject.has_error = error >= 0 && (hvm_ops->get_cr(v, 0) & CR0_PE);
    v->inject.error = (uint32_t)error;
    atomic_or(&v->work, VWORK_EVENT);
}

void hvm_inject_page_fault(struct vcpu *v, uint64_t cr2, uint32_t error)
{
    hvm_ops->set_cr(v, 2, cr2);
    hvm_inject_exception(v, EXC_PF, error);
}

static __attribute__((noinline)) void single_step(struct vcpu *v)
{
    hvm_ops->set_dr(v, 6, hvm_ops->get_dr(v, 6) | DR6_BS);
    hvm_inject_exception(v, EXC_DB, -1);
}

/* RIP has gone past 4 GiB, or each instruction traps. */
static __attribute__((noinline)) void skip_with_care(struct vcpu *v, uint64_t old)
{
    /* Only 64-bit code gets past. */
    if ((old ^ v->regs.rip) >> 32 && hvm_ops->get_code_bytes(v) != 8)
        v->regs.rip = (uint32_t)v->regs.rip;
    hvm_ops->set_interrupt_shadow(v, 0);
    if (v->regs.rflags & RFLAGS_TF)
        single_step(v);
}

void hvm_skip(struct vcpu *v, unsigned bytes)
{
    uint64_t old = v->regs.rip, rip = old + bytes, rflags = v->regs.rflags & ~RFLAGS_RF;

    v->regs.rip = rip;
    v->regs.rflags = rflags;
    if (unlikely((old ^ rip) >> 32 || rflags & RFLAGS_TF))
        skip_with_care(v, old);
    else
        hvm_ops->set_interrupt_shadow(v, 0);
}

/* ---- the length of an instruction that the CPU did not tell
 * ---------------------------------------- */
/* Up to want bytes, which may cross a page; how many can be read. */
static unsigned fetch_bytes(struct vcpu *v, const struct insn_place *at, uint8_t *buf,
                            unsigned want)
{
    unsigned got = 0, access = GWALK_FETCH | (at->cpl == 3 ? GWALK_USER : 0);
    uint64_t linear = at->linear;

    while (got < want) {
        unsigned n = (unsigned)MIN(want - got, PAGE_SIZE - (linear & ~PAGE_MASK));
        paddr_t gpa;
        uint32_t pfec;
        if (guest_walk(v->domain, &at->mode, linear, access, &gpa, &pfec) ||
            copy_from_gpa(v->domain, buf + got, gpa, n))
            break;
        got += n;
        linear += n;
    }
    return got;
}

/* Two bytes tell most exits' instructions; the rest is decoded. */
static unsigned known_length(const uint8_t *b)
{
    switch (b[0]) {
    case 0xf4: /* HLT */
        return 1;
    case 0xf3: /* PAUSE */
        return b[1] == 0x90 ? 2 : 0;
    case 0x0f:
        switch (b[1]) {
        case 0x08: /* INVD, WBINVD, WRMSR, RDTSC, RDMSR, RDPMC, CPUID */
        case 0x09:
        case 0x30:
        case 0x31:
        case 0x32:
        case 0x33:
        case 0xa2:
            return 2;
        case 0x01: /* VMMCALL, VMCALL, XSETBV, RDTSCP */
            return 3;
        }
    }
    return 0;
}

/* All bytes that can be read are at hand: the decoder asking for more means a fault. */
static enum emul_result no_read(struct emul_ctx *c, uint64_t linear, void *buf, unsigned bytes,
                                enum emul_access access)
{
    (void)c, (void)linear, (void)buf, (void)bytes, (void)access;
    return EMUL_UNHANDLEABLE;
}
static const struct emul_ops no_ops = {.read = no_read};

static __attribute__((noinline)) unsigned decoded_length(struct vcpu *v,
                                                         const struct insn_place *at)
{
    struct emul_ctx c;
    uint8_t b[INSN_MAX];
    unsigned got = fetch_bytes(v, at, b, sizeof(b));

    memset(&c, 0, sizeof(c));
    c.regs = (struct emul_regs *)&v->regs;
    c.code_bytes = at->bytes;
    c.stack_bytes = c.code_bytes;
    c.cr0 = at->mode.cr0;
    c.ops = &no_ops;
    memcpy(c.bytes, b, got);
    emul_begin(&c, got);
    int n = emul_decode(&c);
    return n > 0 ? (unsigned)n : 0;
}

unsigned exit_insn_length(struct vcpu *v)
{
    struct insn_place at;
    uint8_t b[2];
    unsigned known = 0;

    hvm_ops->get_insn_place(v, &at);
    if (likely(guest_peek(v, &at.mode, at.linear, b, sizeof(b))))
        known = known_length(b);
    return likely(known) ? known : decoded_length(v, &at);
}

static __attribute__((noinline)) bool unreadable(struct vcpu *v)
{
    domain_crash(v->domain, "d%uv%u: instruction at %lx cannot be read", v->domain->id, v->id,
                 v->regs.rip);
    return false;
}

static inline bool skip_insn(struct vcpu *v, unsigned insn_bytes)
{
    if (!insn_bytes)
        insn_bytes = exit_insn_length(v);
    if (unlikely(!insn_bytes))
        return unreadable(v);
    hvm_skip(v, insn_bytes);
    return true;
}

/* ---- exits
 * ------------------------------------------------------------------------------------------ */
void exit_cpuid(struct vcpu *v, unsigned insn_bytes)
{
    uint64_t *g = v->regs.gpr;
    uint32_t out[4];
    guest_cpuid(v, (uint32_t)g[RAX], (uint32_t)g[RCX], out);
    g[RAX] = out[0];
    g[RBX] = out[1];
    g[RCX] = out[2];
    g[RDX] = out[3];
    skip_insn(v, insn_bytes);
}

void exit_rdmsr(struct vcpu *v, unsigned insn_bytes)
{
    uint64_t val;
    if (guest_rdmsr(v, (uint32_t)v->regs.gpr[RCX], &val)) {
        hvm_inject_exception(v, EXC_GP, 0);
        return;
    }
    v->regs.gpr[RAX] = (uint32_t)val;
    v->regs.gpr[RDX] = val >> 32;
    skip_insn(v, insn_bytes);
}

void exit_wrmsr(struct vcpu *v, unsigned insn_bytes)
{
    uint64_t val = (uint32_t)v->regs.gpr[RAX] | v->regs.gpr[RDX] << 32;
    if (guest_wrmsr(v, (uint32_t)v->regs.gpr[RCX], val))
        hvm_inject_exception(v, EXC_GP, 0);
    else
        skip_insn(v, insn_bytes);
}

void exit_hlt(struct vcpu *v, unsigned insn_bytes)
{
    if (!skip_insn(v, insn_bytes) || event_deliverable(v)) {
        atomic_or(&v->work, VWORK_EVENT);
        return;
    }
    v->halted = true;
    halt(v);
}

void exit_xsetbv(struct vcpu *v, unsigned insn_bytes)
{
    uint64_t val = (uint32_t)v->regs.gpr[RAX] | v->regs.gpr[RDX] << 32;
    if ((uint32_t)v->regs.gpr[RCX] || hvm_ops->get_cpl(v) || hvm_set_xcr0(v, val))
        hvm_inject_exception(v, EXC_GP, 0);
    else
        skip_insn(v, insn_bytes);
}

void exit_nested_fault(struct vcpu *v, paddr_t gpa, uint64_t gla, bool gla_valid, bool write,
                       bool exec, const uint8_t *insn, unsigned insn_bytes)
{
    /* The LAPIC's page is above all else at its address. */
    if (likely(!exec) && handle_lapic_mov(v, gpa, write, insn, insn_bytes))
        return;
    switch (p2m_fault(v, gpa, write, exec)) {
    case P2M_FAULT_RESOLVED:
        return;
    case P2M_FAULT_EMULATE:
    case P2M_FAULT_READONLY:
        if (!exec) {
            handle_mmio(v, gpa, gla, gla_valid, write, insn, insn_bytes);
            return;
        }
        /* fall through */
    case P2M_FAULT_BAD:
        domain_crash(v->domain, "d%uv%u: %s of guest-physical %lx is impossible", v->domain->id,
                     v->id,
                     exec    ? "execution"
                     : write ? "write"
                             : "read",
                     gpa);
    }
}
