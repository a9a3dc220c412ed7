/* guest_copy.c: copying between the hypervisor and a guest's memory, page by page with references.
 */
#include "core/errno.h"
#include "core/string.h"
#include "domain/hvm.h"

enum copy_op { COPY_FROM, COPY_TO, COPY_CLEAR };

static int copy_page(struct domain *d, paddr_t gpa, void *buf, size_t bytes, enum copy_op op)
{
    enum p2m_type t;
    gfn_t gfn = gpa >> PAGE_SHIFT;
    struct page_info *pg = p2m_get_page(d, gfn, op != COPY_FROM, &t);
    if (!pg)
        return -EFAULT;
    char *p = (char *)page_to_virt(pg) + (gpa & ~PAGE_MASK);
    if (op == COPY_FROM)
        memcpy(buf, p, bytes);
    else if (op == COPY_TO)
        memcpy(p, buf, bytes);
    else
        memset(p, 0, bytes);
    if (op != COPY_FROM && unlikely(p2m_logdirty_enabled(d)))
        p2m_mark_dirty(d, gfn);
    page_put(pg);
    return 0;
}

static int copy_linear(uint64_t gva, void *buf, size_t bytes, enum copy_op op)
{
    struct vcpu *v = current_vcpu();
    struct insn_place at;
    hvm_ops->get_insn_place(v, &at);
    struct gwalk_mode m = at.mode;
    bool wide = m.efer & EFER_LMA;
    m.rflags |= BIT(18); /* hypercall buffers may be the user's: as with STAC */
    while (bytes) {
        size_t n = MIN(bytes, PAGE_SIZE - (gva & ~PAGE_MASK));
        paddr_t gpa;
        uint32_t pfec;
        if (!wide)
            gva = (uint32_t)gva;
        else if ((int64_t)(gva << 16) >> 16 != (int64_t)gva)
            return -EFAULT;
        if (guest_walk(v->domain, &m, gva, op == COPY_FROM ? 0 : GWALK_WRITE, &gpa, &pfec))
            return -EFAULT;
        int err = copy_page(v->domain, gpa, buf, n, op);
        if (err)
            return err;
        gva += n;
        buf = (char *)buf + n;
        bytes -= n;
    }
    return 0;
}

int copy_from_guest(void *dst, uint64_t gva, size_t bytes)
{
    struct vcpu *v = current_vcpu();
    struct insn_place at;

    hvm_ops->get_insn_place(v, &at);
    if (likely(bytes <= PAGE_SIZE && guest_peek(v, &at.mode, gva, dst, (unsigned)bytes)))
        return 0;
    return copy_linear(gva, dst, bytes, COPY_FROM);
}

int copy_word_from_guest(struct vcpu *v, uint32_t *dst, uint64_t gva)
{
    struct insn_place at;

    hvm_ops->get_insn_place(v, &at);
    if (likely(guest_peek(v, &at.mode, gva, dst, sizeof(*dst))))
        return 0;
    return copy_linear(gva, dst, sizeof(*dst), COPY_FROM);
}

int copy_to_guest(uint64_t gva, const void *src, size_t bytes)
{
    return copy_linear(gva, (void *)src, bytes, COPY_TO);
}

int clear_guest(uint64_t gva, size_t bytes)
{
    return copy_linear(gva, NULL, bytes, COPY_CLEAR);
}

static int copy_physical(struct domain *d, paddr_t gpa, void *buf, size_t bytes, enum copy_op op)
{
    while (bytes) {
        size_t n = MIN(bytes, PAGE_SIZE - (gpa & ~PAGE_MASK));
        int err = copy_page(d, gpa, buf, n, op);
        if (err)
            return err;
        gpa += n;
        buf = (char *)buf + n;
        bytes -= n;
    }
    return 0;
}

int copy_from_gpa(struct domain *d, void *dst, paddr_t gpa, size_t bytes)
{
    return copy_physical(d, gpa, dst, bytes, COPY_FROM);
}

int copy_to_gpa(struct domain *d, paddr_t gpa, const void *src, size_t bytes)
{
    return copy_physical(d, gpa, (void *)src, bytes, COPY_TO);
}
