/* gpeek.c: reads a few bytes of the current vCPU's memory by linear address, without a reference to
 * any page: the instruction that left the guest, the argument of a hypercall.
 *
 * Where the pages of the guest's RAM are in the hypervisor is remembered by frame number, for one
 * generation of the p2m. The generation goes up at every change that takes a page away, after the
 * entry was changed and before the page can be freed; so what was read while it stayed the same was
 * the guest's. Walks through the guest's tables are remembered with the entries that were read, and
 * hold while these have the same values. Rights are not looked at: the caller is entitled to them.
 * Any doubt, and nothing is read: guest_walk and p2m_get_page are the specification, and the way
 * that works always.
 */
#include "core/string.h"
#include "domain/domain.h"
#include "domain/hvm.h"
#include "npt/inner.h"

#define GPTE_P       BIT(0)
#define GPTE_A       BIT(5)
#define GPTE_PS      BIT(7)

#define GPTE_NX      BIT(63)
#define PAE_RESERVED (0x7ffULL << 52)
#define NO_PAGE      (~0ULL) /* of linear: not a page's start */

typedef uint16_t word16 __attribute__((aligned(1)));
typedef uint32_t word32 __attribute__((aligned(1)));
typedef uint64_t word64 __attribute__((aligned(1)));

enum { MODE_32BIT, MODE_PAE, MODE_LONG };
static const struct {
    uint8_t levels, index_bits, entry_bytes, unaccessed; /* levels above it have no accessed bit */
    uint64_t cr3_mask, address;
} formats[] = {
    [MODE_32BIT] = {2, 10, 4, 3, 0xfffff000, 0xfffff000},
    [MODE_PAE] = {3, 9, 8, 3, 0xffffffe0, PTE_ADDR},
    [MODE_LONG] = {4, 9, 8, 5, PTE_ADDR, PTE_ADDR},
};

static __attribute__((noinline)) void forget(struct guest_peek *c, uint64_t generation)
{
    for (unsigned i = 0; i < ARRAY_SIZE(c->frame); i++)
        c->frame[i].gfn = INVALID_GFN;
    for (unsigned i = 0; i < ARRAY_SIZE(c->route); i++)
        c->route[i].linear = NO_PAGE;
    c->generation = generation;
}

/* Remember RAM at gfn; NULL: there is none. */
static __attribute__((noinline)) const char *learn(struct vcpu *v, gfn_t gfn)
{
    unsigned i = gfn % ARRAY_SIZE(v->peek.frame);
    enum p2m_type t = P2M_HOLE;
    struct page_info *pg = p2m_get_page(v->domain, gfn, false, &t);
    const char *page;

    if (!pg)
        return NULL;
    page = page_to_virt(pg);
    page_put(pg);
    if (!p2m_is_ram(t))
        return NULL;
    v->peek.frame[i].gfn = gfn;
    v->peek.frame[i].page = page;
    return page;
}

static inline const char *page_at(struct vcpu *v, gfn_t gfn)
{
    unsigned i = gfn % ARRAY_SIZE(v->peek.frame);

    return likely(v->peek.frame[i].gfn == gfn) ? v->peek.frame[i].page : learn(v, gfn);
}

/* The page at linear, by the guest's tables, and in *r the way there; NULL: ask guest_walk. */
static const char *walk(struct vcpu *v, const struct gwalk_mode *m, uint64_t linear,
                        struct guest_route *r)
{
    unsigned mode = m->efer & EFER_LMA ? MODE_LONG : m->cr4 & CR4_PAE ? MODE_PAE : MODE_32BIT;
    unsigned bits = formats[mode].index_bits, level = formats[mode].levels;
    unsigned shift = PAGE_SHIFT + bits * (level - 1);
    uint64_t reserved = (PTE_ADDR & ~(BIT(p2m_limits.gpa_bits) - 1)) |
                        (mode == MODE_PAE ? PAE_RESERVED : 0) | (m->efer & EFER_NXE ? 0 : GPTE_NX);
    uint64_t table = m->cr3 & formats[mode].cr3_mask, e;

    if (mode != MODE_LONG)
        linear = (uint32_t)linear;
    for (;; level--, shift -= bits) {
        const char *at = page_at(v, table >> PAGE_SHIFT);
        uint64_t want = level >= formats[mode].unaccessed ? GPTE_P : GPTE_P | GPTE_A;

        if (!at)
            return NULL;
        at +=
            (table & ~PAGE_MASK) + (linear >> shift & (BIT(bits) - 1)) * formats[mode].entry_bytes;
        if (mode == MODE_32BIT) {
            e = READ_ONCE(*(const uint32_t *)at);
        } else {
            e = READ_ONCE(*(const uint64_t *)at);
            for (unsigned i = 0; i < level; i++) { /* the rest is overwritten, if there is more */
                r->entry[i] = (const uint64_t *)at;
                r->value[i] = e;
            }
        }
        if ((e & want) != want || e & reserved)
            return NULL;
        table = e & formats[mode].address;
        if (level == 1)
            break;
        if (e & GPTE_PS) {
            /* A page of this size may be none here, or have more address bits than expected. */
            if (level >= formats[mode].unaccessed || level > 3 ||
                (mode == MODE_32BIT && !(m->cr4 & CR4_PSE)) ||
                table & (BIT(shift) - 1) & ~BIT(PAGE_SHIFT))
                return NULL;
            break;
        }
    }
    table = (table & ~(BIT(shift) - 1)) | (linear & (BIT(shift) - 1));
    return page_at(v, table >> PAGE_SHIFT);
}

/* What decides, but for CR3 and the tables, how linear addresses are translated. */
static inline uint64_t mode_of(const struct gwalk_mode *m)
{
    return (m->cr4 & (CR4_PAE | CR4_PSE)) | (m->efer & (EFER_LMA | EFER_NXE));
}

static __attribute__((noinline)) const char *new_route(struct vcpu *v, const struct gwalk_mode *m,
                                                       uint64_t linear, struct guest_route *r)
{
    const char *page;

    r->linear = NO_PAGE;
    if (m->efer & EFER_LMA && (int64_t)(linear << 16) >> 16 != (int64_t)linear)
        return NULL; /* not canonical */
    page = walk(v, m, linear, r);
    if (page && m->cr4 & CR4_PAE) { /* entries of 4 bytes are not remembered */
        for (unsigned i = (m->efer & EFER_LMA) ? 4 : 3; i < ARRAY_SIZE(r->entry); i++) {
            r->entry[i] = r->entry[0];
            r->value[i] = r->value[0];
        }
        r->linear = linear & PAGE_MASK;
        r->cr3 = m->cr3;
        r->mode = mode_of(m);
        r->page = page;
    }
    return page;
}

static inline bool still_good(const struct guest_route *r, const struct gwalk_mode *m,
                              uint64_t linear)
{
    return r->linear == (linear & PAGE_MASK) && r->cr3 == m->cr3 && r->mode == mode_of(m) &&
           READ_ONCE(*r->entry[0]) == r->value[0] && READ_ONCE(*r->entry[1]) == r->value[1] &&
           READ_ONCE(*r->entry[2]) == r->value[2] && READ_ONCE(*r->entry[3]) == r->value[3];
}

static __attribute__((noinline)) bool peek_anything(struct vcpu *v, const struct gwalk_mode *m,
                                                    uint64_t linear, void *buf, unsigned bytes)
{
    const uint64_t *now = &v->domain->p2m->generation;
    uint64_t generation = atomic_load(now);
    const char *page;

    if (unlikely((linear & ~PAGE_MASK) + bytes > PAGE_SIZE))
        return false;
    if (unlikely(v->peek.generation != generation))
        forget(&v->peek, generation);
    if (likely(m->cr0 & CR0_PG)) {
        struct guest_route *r = &v->peek.route[linear >> PAGE_SHIFT & 3];
        page = likely(still_good(r, m, linear)) ? r->page : new_route(v, m, linear, r);
    } else {
        page = page_at(v, (uint32_t)linear >> PAGE_SHIFT);
    }
    if (unlikely(!page))
        return false;
    memcpy(buf, page + (linear & ~PAGE_MASK), bytes);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return likely(READ_ONCE(*now) == generation);
}

/* What is asked for most, in as few instructions as can be: a few bytes by a route that is known.
 */
bool guest_peek(struct vcpu *v, const struct gwalk_mode *m, uint64_t linear, void *buf,
                unsigned bytes)
{
    const uint64_t *now = &v->domain->p2m->generation;
    uint64_t generation = atomic_load(now);
    const struct guest_route *r = &v->peek.route[linear >> PAGE_SHIFT & 3];
    const char *at;

    if (unlikely((linear & ~PAGE_MASK) > PAGE_SIZE - 16 || v->peek.generation != generation ||
                 !(m->cr0 & CR0_PG) || !still_good(r, m, linear)))
        return peek_anything(v, m, linear, buf, bytes);
    at = r->page + (linear & ~PAGE_MASK);
    if (bytes == 4)
        *(word32 *)buf = *(const word32 *)at;
    else if (bytes == 2)
        *(word16 *)buf = *(const word16 *)at;
    else if (bytes >= 8 && bytes <= 16) { /* two words, which may overlap */
        *(word64 *)buf = *(const word64 *)at;
        *(word64 *)((char *)buf + bytes - 8) = *(const word64 *)(at + bytes - 8);
    } else
        return peek_anything(v, m, linear, buf, bytes);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return likely(READ_ONCE(*now) == generation);
}
