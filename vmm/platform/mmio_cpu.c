/* mmio_cpu.c: the processor state that emulated instructions reach: segments, control and debug
 * registers, MSRs, and the vector registers, which hold the guest's values while v is current (FPU
 * state moves only when another vCPU takes the pCPU).
 */
#include "core/atomic.h"
#include "core/errno.h"
#include "platform/mmio.h"

static enum emul_result read_seg(struct emul_ctx *c, enum emul_seg seg, struct emul_segment *out)
{
    hvm_ops->get_segment(mmio_of(c)->v, (enum segment_reg)seg, (struct segment *)out);
    return EMUL_OK;
}

static enum emul_result write_seg(struct emul_ctx *c, enum emul_seg seg,
                                  const struct emul_segment *in)
{
    hvm_ops->set_segment(mmio_of(c)->v, (enum segment_reg)seg, (const struct segment *)in);
    return EMUL_OK;
}

static enum emul_result read_table(struct emul_ctx *c, int table, uint64_t *base, uint32_t *limit)
{
    struct segment s;

    hvm_ops->get_segment(mmio_of(c)->v, table == EMUL_TABLE_GDT ? SEGR_GDTR : SEGR_LDTR, &s);
    if (table == EMUL_TABLE_LDT && !(s.attr & EMUL_SEG_P))
        return emul_fault(c, EXC_GP, 0);
    *base = s.base;
    *limit = s.limit;
    return EMUL_OK;
}

static enum emul_result gp_unless(struct emul_ctx *c, int rc)
{
    return rc ? emul_fault(c, EXC_GP, 0) : EMUL_OK;
}

static enum emul_result read_cr(struct emul_ctx *c, unsigned cr, uint64_t *val)
{
    struct vcpu *v = mmio_of(c)->v;

    *val = cr == 8 ? vlapic_get_tpr(v) >> 4 : hvm_ops->get_cr(v, cr);
    return EMUL_OK;
}

static enum emul_result write_cr(struct emul_ctx *c, unsigned cr, uint64_t val)
{
    struct vcpu *v = mmio_of(c)->v;

    switch (cr) {
    case 0:
        return gp_unless(c, hvm_set_cr0(v, val));
    case 2:
        hvm_ops->set_cr(v, 2, val);
        return EMUL_OK;
    case 3:
        return gp_unless(c, hvm_set_cr3(v, val));
    case 4:
        return gp_unless(c, hvm_set_cr4(v, val));
    case 8:
        if (val > 15)
            return emul_fault(c, EXC_GP, 0);
        vlapic_set_tpr(v, (uint8_t)(val << 4));
        return EMUL_OK;
    default:
        return EMUL_UNHANDLEABLE;
    }
}

static enum emul_result write_xcr(struct emul_ctx *c, unsigned xcr, uint64_t val)
{
    return gp_unless(c, xcr ? -EINVAL : hvm_set_xcr0(mmio_of(c)->v, val));
}

static enum emul_result read_msr(struct emul_ctx *c, uint32_t msr, uint64_t *val)
{
    return gp_unless(c, guest_rdmsr(mmio_of(c)->v, msr, val));
}

static enum emul_result write_msr(struct emul_ctx *c, uint32_t msr, uint64_t val)
{
    return gp_unless(c, guest_wrmsr(mmio_of(c)->v, msr, val));
}

static enum emul_result cpuid(struct emul_ctx *c, uint32_t regs[4])
{
    uint32_t leaf = regs[0], sub = regs[2];

    guest_cpuid(mmio_of(c)->v, leaf, sub, regs);
    return EMUL_OK;
}

/* Guests' memory is cached as the host says: there is nothing to write back. */
static enum emul_result wbinvd(struct emul_ctx *c)
{
    (void)c;
    return EMUL_OK;
}

static enum emul_result invlpg(struct emul_ctx *c, uint64_t linear)
{
    (void)linear;
    hvm_ops->flush_tlb(mmio_of(c)->v);
    return EMUL_OK;
}

/* ---- vector registers ----------------------------------------------------------------------- */

struct vec16 {
    uint8_t b[16];
};
struct vec32 {
    uint8_t b[32];
};

#define EACH_VECTOR(X)                                                                             \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define EACH_MM(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)

#define XCR0_AVX   BIT(2)

static bool has_avx(const struct emul_ctx *c)
{
    return (c->cr4 & CR4_OSXSAVE) && (((struct mmio_vcpu *)c->opaque)->v->xcr0 & XCR0_AVX);
}

static enum emul_result read_vec(struct emul_ctx *c, unsigned reg, void *buf, unsigned bytes)
{
    if (bytes == 32 && !has_avx(c))
        return EMUL_UNHANDLEABLE;
    switch (reg + (bytes == 32 ? 16 : 0)) {
#define X(n)                                                                                       \
    case n:                                                                                        \
        __asm__ volatile("movups %%xmm" #n ", %0" : "=m"(*(struct vec16 *)buf));                   \
        return EMUL_OK;                                                                            \
    case n + 16:                                                                                   \
        __asm__ volatile("vmovups %%ymm" #n ", %0" : "=m"(*(struct vec32 *)buf));                  \
        return EMUL_OK;
        EACH_VECTOR(X)
#undef X
    default:
        return EMUL_UNHANDLEABLE;
    }
}

static enum emul_result write_vec(struct emul_ctx *c, unsigned reg, const void *buf, unsigned bytes)
{
    if (bytes == 32 && !has_avx(c))
        return EMUL_UNHANDLEABLE;
    switch (reg + (bytes == 32 ? 16 : 0)) {
#define X(n)                                                                                       \
    case n:                                                                                        \
        __asm__ volatile("movups %0, %%xmm" #n ::"m"(*(const struct vec16 *)buf));                 \
        return EMUL_OK;                                                                            \
    case n + 16:                                                                                   \
        __asm__ volatile("vmovups %0, %%ymm" #n ::"m"(*(const struct vec32 *)buf));                \
        return EMUL_OK;
        EACH_VECTOR(X)
#undef X
    default:
        return EMUL_UNHANDLEABLE;
    }
}

/* An MMX instruction of ours would raise the x87 exception that the guest left pending. (A guest
 * only gets here by changing the instruction under us: its own would have faulted first.) */
static bool x87_pending(void)
{
    uint16_t fsw;

    __asm__ volatile("fnstsw %0" : "=a"(fsw));
    return fsw & BIT(7);
}

static enum emul_result read_mm(struct emul_ctx *c, unsigned reg, uint64_t *val)
{
    if (x87_pending())
        return emul_fault(c, EXC_MF, 0);
    switch (reg) {
#define X(n)                                                                                       \
    case n:                                                                                        \
        __asm__ volatile("movq %%mm" #n ", %0" : "=m"(*val));                                      \
        return EMUL_OK;
        EACH_MM(X)
#undef X
    default:
        return EMUL_UNHANDLEABLE;
    }
}

static enum emul_result write_mm(struct emul_ctx *c, unsigned reg, uint64_t val)
{
    if (x87_pending())
        return emul_fault(c, EXC_MF, 0);
    switch (reg) {
#define X(n)                                                                                       \
    case n:                                                                                        \
        __asm__ volatile("movq %0, %%mm" #n ::"m"(val));                                           \
        return EMUL_OK;
        EACH_MM(X)
#undef X
    default:
        return EMUL_UNHANDLEABLE;
    }
}

static enum emul_result read_dr(struct emul_ctx *c, unsigned dr, uint64_t *val)
{
    if (dr != 6 && dr != 7)
        return EMUL_UNHANDLEABLE;
    *val = hvm_ops->get_dr(mmio_of(c)->v, dr);
    return EMUL_OK;
}

static enum emul_result write_dr(struct emul_ctx *c, unsigned dr, uint64_t val)
{
    if (dr != 6 && dr != 7)
        return EMUL_UNHANDLEABLE;
    if (val >> 32)
        return emul_fault(c, EXC_GP, 0);
    hvm_ops->set_dr(mmio_of(c)->v, dr, val);
    return EMUL_OK;
}

const struct emul_ops mmio_ops = {
    .read = mmio_read,
    .write = mmio_write,
    .cmpxchg = mmio_cmpxchg,
    .rep_movs = mmio_rep_movs,
    .rep_stos = mmio_rep_stos,
    .rep_ins = mmio_rep_ins,
    .rep_outs = mmio_rep_outs,
    .retire = mmio_retire,
    .io_read = mmio_io_read,
    .io_write = mmio_io_write,
    .io_permitted = mmio_io_permitted,
    .read_seg = read_seg,
    .write_seg = write_seg,
    .read_table = read_table,
    .read_cr = read_cr,
    .write_cr = write_cr,
    .read_dr = read_dr,
    .write_dr = write_dr,
    .write_xcr = write_xcr,
    .read_msr = read_msr,
    .write_msr = write_msr,
    .cpuid = cpuid,
    .wbinvd = wbinvd,
    .invlpg = invlpg,
    .read_vec = read_vec,
    .write_vec = write_vec,
    .read_mm = read_mm,
    .write_mm = write_mm,
};
