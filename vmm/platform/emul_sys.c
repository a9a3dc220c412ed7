/*
 * System instructions: control and debug registers, MSRs, time, CPUID, caches. The operations do
 * the work; here are the privilege rules and where operands and results live.
 */
#include "platform/emul_internal.h"

#define MSR_TSC     0x10
#define MSR_TSC_AUX 0xc0000103
/* CR0 bits that LMSW may set; it cannot clear PE. APM 3, LMSW. */
#define LMSW_BITS 0xeull

static bool privileged(const struct emul_ctx *c)
{
    return c->cpl == 0;
}

static enum emul_result read_cr(struct emul_ctx *c, unsigned cr, uint64_t *value)
{
    return c->ops->read_cr ? c->ops->read_cr(c, cr, value) : EMUL_UNHANDLEABLE;
}

static enum emul_result write_cr(struct emul_ctx *c, unsigned cr, uint64_t value)
{
    return c->ops->write_cr ? c->ops->write_cr(c, cr, value) : EMUL_UNHANDLEABLE;
}

/* Operands of MOV CRn and DRn: 8 bytes in 64-bit mode, 4 elsewhere, whatever the prefixes. */
static unsigned system_bytes(const struct emul_ctx *c)
{
    return is_long(c) ? 8 : 4;
}

/* 0F 20 reads, 0F 22 writes. LOCK makes CR0 CR8 (AMD). */
enum emul_result emul_op_mov_cr(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    unsigned cr = in->lock ? 8 : in->reg, bytes = system_bytes(c);
    uint64_t value;

    if (cr == 1 || (cr > 4 && cr != 8)) {
        return emul_fault(c, VEC_UD, 0);
    }
    if (!privileged(c)) {
        return gp_fault(c);
    }
    if (in->opcode & 2) {
        return write_cr(c, cr, reg_get(c, in->rm, bytes));
    }
    enum emul_result res = read_cr(c, cr, &value);
    if (res == EMUL_OK) {
        reg_set(c, in->rm, bytes, value);
    }
    return res;
}

/* 0F 21 reads, 0F 23 writes. */
enum emul_result emul_op_mov_dr(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    unsigned bytes = system_bytes(c);
    uint64_t value;

    if (in->reg > 7) {
        return emul_fault(c, VEC_UD, 0);
    }
    if (!privileged(c)) {
        return gp_fault(c);
    }
    if (!c->ops->read_dr || !c->ops->write_dr) {
        return EMUL_UNHANDLEABLE;
    }
    if (in->opcode & 2) {
        return c->ops->write_dr(c, in->reg, reg_get(c, in->rm, bytes));
    }
    enum emul_result res = c->ops->read_dr(c, in->reg, &value);
    if (res == EMUL_OK) {
        reg_set(c, in->rm, bytes, value);
    }
    return res;
}

enum emul_result emul_op_clts(struct emul_ctx *c)
{
    uint64_t value;
    if (!privileged(c)) {
        return gp_fault(c);
    }
    enum emul_result res = read_cr(c, 0, &value);
    return res == EMUL_OK ? write_cr(c, 0, value & ~(uint64_t)CR0_TS) : res;
}

/* 0F 08 INVD and 0F 09 WBINVD: nothing of the guest's may be thrown away, so both write back. */
enum emul_result emul_op_wbinvd(struct emul_ctx *c)
{
    if (!privileged(c)) {
        return gp_fault(c);
    }
    return c->ops->wbinvd ? c->ops->wbinvd(c) : EMUL_UNHANDLEABLE;
}

/* A 64-bit value to EDX:EAX. */
static void set_dx_ax(struct emul_ctx *c, uint64_t value)
{
    reg_set(c, R_AX, 4, value);
    reg_set(c, R_DX, 4, value >> 32);
}

static uint64_t get_dx_ax(const struct emul_ctx *c)
{
    return c->regs->gpr[R_DX] << 32 | (uint32_t)c->regs->gpr[R_AX];
}

enum emul_result emul_op_rdmsr(struct emul_ctx *c)
{
    uint64_t value;
    if (!privileged(c)) {
        return gp_fault(c);
    }
    if (!c->ops->read_msr) {
        return EMUL_UNHANDLEABLE;
    }
    enum emul_result res = c->ops->read_msr(c, c->regs->gpr[R_CX], &value);
    if (res == EMUL_OK) {
        set_dx_ax(c, value);
    }
    return res;
}

enum emul_result emul_op_wrmsr(struct emul_ctx *c)
{
    if (!privileged(c)) {
        return gp_fault(c);
    }
    if (!c->ops->write_msr) {
        return EMUL_UNHANDLEABLE;
    }
    return c->ops->write_msr(c, c->regs->gpr[R_CX], get_dx_ax(c));
}

/* RDTSC, and RDTSCP with aux. */
static enum emul_result read_time(struct emul_ctx *c, bool with_aux)
{
    uint64_t time, aux = 0;
    if ((c->cr4 & CR4_TSD) && (c->cr0 & CR0_PE) && !privileged(c)) {
        return gp_fault(c);
    }
    if (!c->ops->read_msr) {
        return EMUL_UNHANDLEABLE;
    }
    enum emul_result res = c->ops->read_msr(c, MSR_TSC, &time);
    if (res == EMUL_OK && with_aux) {
        res = c->ops->read_msr(c, MSR_TSC_AUX, &aux);
    }
    if (res == EMUL_OK) {
        set_dx_ax(c, time);
        if (with_aux) {
            reg_set(c, R_CX, 4, aux);
        }
    }
    return res;
}

enum emul_result emul_op_rdtsc(struct emul_ctx *c)
{
    return read_time(c, false);
}

enum emul_result emul_op_cpuid(struct emul_ctx *c)
{
    static const uint8_t order[4] = {R_AX, R_BX, R_CX, R_DX};
    uint32_t values[4];

    if (!c->ops->cpuid) {
        return EMUL_UNHANDLEABLE;
    }
    for (unsigned i = 0; i < 4; i++) {
        values[i] = c->regs->gpr[order[i]];
    }
    enum emul_result res = c->ops->cpuid(c, values);
    for (unsigned i = 0; res == EMUL_OK && i < 4; i++) {
        reg_set(c, order[i], 4, values[i]);
    }
    return res;
}

/* 0F 00: only STR and SLDT exist without privilege, and they need registers we do not hold. */
enum emul_result emul_op_group6(struct emul_ctx *c)
{
    (void)c;
    return EMUL_UNHANDLEABLE;
}

static enum emul_result smsw(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    uint64_t value;
    enum emul_result res = read_cr(c, 0, &value);
    return res == EMUL_OK ? emul_rm_set(c, in->mem ? 2 : in->op_bytes, value) : res;
}

static enum emul_result lmsw(struct emul_ctx *c)
{
    uint64_t value, cr0;
    if (!privileged(c)) {
        return gp_fault(c);
    }
    enum emul_result res = emul_rm_get(c, 2, &value);
    if (res == EMUL_OK) {
        res = read_cr(c, 0, &cr0);
    }
    if (res != EMUL_OK) {
        return res;
    }
    return write_cr(c, 0, (cr0 & ~LMSW_BITS) | (value & (LMSW_BITS | CR0_PE)));
}

static enum emul_result invlpg(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    uint64_t base = 0;

    if (!privileged(c)) {
        return gp_fault(c);
    }
    if (!c->ops->invlpg) {
        return EMUL_UNHANDLEABLE;
    }
    if (!is_long(c) || in->seg >= EMUL_SEG_FS) {
        enum emul_result res = emul_seg_get(c, in->seg);
        if (res != EMUL_OK) {
            return res;
        }
        base = c->seg[in->seg].base;
    }
    uint64_t linear = base + in->ea;
    if (!is_long(c)) {
        linear &= 0xffffffff;
    } else if (!emul_canonical(c, linear)) {
        return EMUL_OK; /* a no-op: APM 3, INVLPG */
    }
    return c->ops->invlpg(c, linear);
}

static enum emul_result xsetbv(struct emul_ctx *c)
{
    if (!(c->cr4 & CR4_OSXSAVE)) {
        return emul_fault(c, VEC_UD, 0);
    }
    if (!privileged(c)) {
        return gp_fault(c);
    }
    if (!c->ops->write_xcr) {
        return EMUL_UNHANDLEABLE;
    }
    return c->ops->write_xcr(c, c->regs->gpr[R_CX], get_dx_ax(c));
}

/* 0F 01. The forms with registers are instructions of their own, by the whole byte. */
enum emul_result emul_op_group7(struct emul_ctx *c)
{
    unsigned modrm = c->insn.modrm, ext = modrm >> 3 & 7;

    if (modrm == 0xd1) {
        return xsetbv(c);
    }
    if (modrm == 0xf9) {
        return read_time(c, true);
    }
    if (modrm == 0xca || modrm == 0xcb) { /* CLAC, STAC */
        if (!privileged(c)) {
            return emul_fault(c, VEC_UD, 0);
        }
        set_flags(c, modrm & 1 ? FL_AC : 0, FL_AC);
        return EMUL_OK;
    }
    switch (ext) {
    case 4:
        return smsw(c);
    case 6:
        return lmsw(c);
    case 7:
        return c->insn.mem ? invlpg(c) : EMUL_UNHANDLEABLE;
    }
    return EMUL_UNHANDLEABLE; /* descriptor tables, VMCALL, VMMCALL, MONITOR, ... */
}

/* 0F AE: the fences do nothing for one who completes each access; CLFLUSH(OPT) only checks. */
enum emul_result emul_op_group15(struct emul_ctx *c)
{
    const struct emul_insn *in = &c->insn;
    unsigned ext = in->modrm >> 3 & 7;
    uint64_t linear;

    if (in->rep || ext < 5 || (in->opsize && !in->mem)) {
        return EMUL_UNHANDLEABLE;
    }
    if (!in->mem) {
        return EMUL_OK; /* LFENCE, MFENCE, SFENCE */
    }
    if (ext != 7) {
        return EMUL_UNHANDLEABLE;
    }
    return emul_linear(c, in->seg, in->ea, 1, EMUL_ACC_READ, &linear);
}
