/* mmio_fast.c: the plain 32-bit MOV between a register (or an immediate) and a device of ours: what
 * guests do to their LAPIC all day. The slow path, mmio.c, is its specification.
 *
 * The hardware has computed, checked and translated the operand before it faulted, so all that is
 * needed of the instruction is its direction, register and length. Any doubt: the slow path.
 */
#include "core/string.h"
#include "platform/mmio.h"

#define CS_L  0x200
#define CS_DB 0x400

struct fast_mov {
    unsigned bytes; /* of the instruction */
    unsigned reg;   /* gpr */
    bool store, has_imm;
    uint32_t imm;
};

/* Bytes of ModRM, SIB and displacement with 32- or 64-bit addressing, 0 for a register operand.
 * APM 3, 1.4. The buffer holds at least two bytes at p. */
static unsigned modrm_bytes(const uint8_t *p)
{
    unsigned mod = p[0] >> 6, rm = p[0] & 7, n = 1, base = rm;

    if (mod == 3)
        return 0;
    if (rm == 4) {
        n++;
        base = p[1] & 7;
    }
    if (mod == 1)
        return n + 1;
    return mod == 2 || base == 5 ? n + 4 : n;
}

/* From the first n bytes; false when it is another instruction, or too little is there. */
static bool decode(const uint8_t *insn, unsigned n, bool wide, struct fast_mov *f)
{
    const uint8_t *p = insn, *end = insn + n;
    unsigned rex = 0, modrm;

    if (n < 3)
        return false;
    if (wide && (*p & 0xf8) == 0x40) /* REX without W */
        rex = *p++;
    f->store = *p != 0x8b;
    f->has_imm = *p == 0xc7;
    if (*p != 0x8b && *p != 0x89 && *p != 0xc7)
        return false;
    p++;
    if (p + 2 > end || (f->has_imm && (*p & 0x38)))
        return false;
    f->reg = (*p >> 3 & 7) | (rex & 4) << 1;
    modrm = modrm_bytes(p);
    p += modrm;
    if (f->has_imm) {
        if (p + 4 > end)
            return false;
        memcpy(&f->imm, p, 4);
        p += 4;
    }
    f->bytes = (unsigned)(p - insn);
    return modrm != 0;
}

/* Up to want bytes at CS:RIP, of its page; 0 when they cannot be read. */
static unsigned fetch(struct vcpu *v, uint64_t linear, uint8_t *buf, unsigned want)
{
    struct gwalk_mode mode = {
        .cr0 = hvm_ops->get_cr(v, 0),
        .cr3 = hvm_ops->get_cr(v, 3),
        .cr4 = hvm_ops->get_cr(v, 4),
        .efer = hvm_ops->get_efer(v),
        .rflags = v->regs.rflags,
    };
    unsigned n = MIN(want, PAGE_SIZE - (linear & (PAGE_SIZE - 1)));
    unsigned access = GWALK_FETCH | (hvm_ops->get_cpl(v) == 3 ? GWALK_USER : 0);
    struct page_info *pg;
    enum p2m_type t;
    paddr_t gpa;
    uint32_t pfec;

    if (guest_walk(v->domain, &mode, linear, access, &gpa, &pfec))
        return 0;
    pg = p2m_get_page(v->domain, gpa >> PAGE_SHIFT, false, &t);
    if (!pg)
        return 0;
    memcpy(buf, (uint8_t *)page_to_virt(pg) + (gpa & (PAGE_SIZE - 1)), n);
    page_put(pg);
    return n;
}

bool mmio_fast_mov(struct vcpu *v, paddr_t gpa, bool write, const uint8_t *insn, unsigned n)
{
    uint8_t buf[16];
    struct segment cs;
    struct fast_mov f;
    uint64_t val;
    bool wide;

    /* At a page's start the access may have begun in the page before. */
    if ((gpa & 3) || !(gpa & (PAGE_SIZE - 1)) || (v->regs.rflags & RFLAGS_TF))
        return false;
    hvm_ops->get_segment(v, SEGR_CS, &cs);
    wide = (cs.attr & CS_L) && vcpu_long_mode(v);
    if (!wide && (!(cs.attr & CS_DB) || (v->regs.rflags & RFLAGS_VM)))
        return false;
    if (!n) {
        n = fetch(v, wide ? v->regs.rip : (uint32_t)(cs.base + v->regs.rip), buf, sizeof(buf) - 1);
        insn = buf;
    }
    if (!decode(insn, n, wide, &f) || f.store != write)
        return false;
    val = f.has_imm ? f.imm : (uint32_t)v->regs.gpr[f.reg];
    if (!platform_mmio(v, gpa, 4, write, &val))
        return false;
    if (!write)
        v->regs.gpr[f.reg] = (uint32_t)val;
    hvm_skip(v, f.bytes);
    return true;
}
