/* mmio_fast.c: the plain 32-bit MOV between a register (or an immediate) and a device of ours: what
 * guests do to their LAPIC all day. The slow path, mmio.c, is its specification.
 *
 * The hardware has computed, checked and translated the operand before it faulted, so all that is
 * needed of the instruction is its direction, register and length. Any doubt: the slow path.
 */
#include "core/string.h"
#include "platform/mmio.h"

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

/* The instruction's bytes in its page, by the long way; 0 when they cannot be read. */
static unsigned fetch(struct vcpu *v, const struct insn_place *at, uint8_t *buf, unsigned want)
{
    unsigned n = (unsigned)MIN(want, PAGE_SIZE - (at->linear & (PAGE_SIZE - 1)));
    unsigned access = GWALK_FETCH | (at->cpl == 3 ? GWALK_USER : 0);
    struct page_info *pg;
    enum p2m_type t;
    paddr_t gpa;
    uint32_t pfec;

    if (guest_walk(v->domain, &at->mode, at->linear, access, &gpa, &pfec))
        return 0;
    pg = p2m_get_page(v->domain, gpa >> PAGE_SHIFT, false, &t);
    if (!pg)
        return 0;
    memcpy(buf, (uint8_t *)page_to_virt(pg) + (gpa & (PAGE_SIZE - 1)), n);
    page_put(pg);
    return n;
}

/* The MOV that accesses gpa and may be done here; false: none. */
static bool find_mov(struct vcpu *v, paddr_t gpa, bool write, const uint8_t *insn, unsigned n,
                     struct fast_mov *f)
{
    struct insn_place at;
    uint8_t buf[INSN_MAX];

    /* At a page's start the access may have begun in the page before. */
    if ((gpa & 3) || !(gpa & (PAGE_SIZE - 1)) || (v->regs.rflags & (RFLAGS_TF | RFLAGS_VM)))
        return false;
    hvm_ops->get_insn_place(v, &at);
    if (at.bytes == 2)
        return false;
    if (!n) {
        n = insn_peek(v, &at, buf);
        if (unlikely(!n))
            n = fetch(v, &at, buf, sizeof(buf));
        insn = buf;
    }
    return decode(insn, n, at.bytes == 8, f) && f->store == write;
}

bool mmio_fast_mov(struct vcpu *v, paddr_t gpa, bool write, const uint8_t *insn, unsigned n)
{
    struct fast_mov f;
    uint64_t val;

    if (!find_mov(v, gpa, write, insn, n, &f))
        return false;
    val = f.has_imm ? f.imm : (uint32_t)v->regs.gpr[f.reg];
    if (!platform_mmio(v, gpa, 4, write, &val))
        return false;
    if (!write)
        v->regs.gpr[f.reg] = (uint32_t)val;
    hvm_skip(v, f.bytes);
    return true;
}

bool handle_lapic_mov(struct vcpu *v, paddr_t gpa, bool write, const uint8_t *insn,
                      unsigned insn_bytes)
{
    return (gpa & PAGE_MASK) == vlapic_page(v) &&
           mmio_fast_mov(v, gpa, write, insn, MIN(insn_bytes, INSN_MAX));
}
