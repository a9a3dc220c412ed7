/* domctl_hvm.c: domctl: the machine a domain sees: its HVM context, CPUID policy and clock. */
#include "core/print.h"
#include "core/x86.h"
#include "domain/compat.h"
#include "domain/domctl.h"
#include "domain/hvm.h"
#include "platform/platform.h"

#define MAX_CONTEXT_BYTES (4u << 20)

static unsigned order_for(size_t bytes)
{
    unsigned order = 0;

    while ((PAGE_SIZE << order) < bytes)
        order++;
    return order;
}

/* The whole context. A NULL buffer asks for the size. */
long domctl_gethvmcontext(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    struct xen_domctl_hvmcontext *h = &op->u.hvmcontext;
    long bytes = hvm_context_save(d, NULL, 0);
    unsigned order;
    void *buf;

    (void)v;
    if (bytes < 0)
        return bytes;
    if (!h->buffer.p) {
        h->size = (uint32_t)bytes;
        return 0;
    }
    if (h->size < (uint64_t)bytes)
        return -ENOSPC;
    order = order_for((size_t)bytes);
    buf = pages_alloc(order);
    if (!buf)
        return -ENOMEM;
    domain_pause(d);
    bytes = hvm_context_save(d, buf, (size_t)bytes);
    domain_unpause(d);
    if (bytes >= 0) {
        h->size = (uint32_t)bytes;
        bytes = copy_to_guest((uint64_t)h->buffer.p, buf, (size_t)bytes);
    }
    pages_free(buf, order);
    return bytes;
}

long domctl_sethvmcontext(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    const struct xen_domctl_hvmcontext *h = &op->u.hvmcontext;
    unsigned order;
    void *buf;
    long rc;

    (void)v;
    if (!h->size || h->size > MAX_CONTEXT_BYTES)
        return -EINVAL;
    order = order_for(h->size);
    buf = pages_alloc(order);
    if (!buf)
        return -ENOMEM;
    rc = copy_from_guest(buf, (uint64_t)h->buffer.p, h->size);
    if (!rc) {
        domain_pause(d);
        rc = hvm_context_load(d, buf, h->size);
        domain_unpause(d);
    }
    pages_free(buf, order);
    return rc < 0 ? rc : 0;
}

/* One record's content, without its descriptor. */
long domctl_gethvmcontext_partial(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    struct xen_domctl_hvmcontext_partial *p = &op->u.hvmcontext_partial;
    size_t room = MIN(p->bufsz, (uint64_t)4 * PAGE_SIZE);
    void *buf = pages_alloc(order_for(4 * PAGE_SIZE));
    long bytes;

    (void)v;
    if (!buf)
        return -ENOMEM;
    domain_pause(d);
    bytes = hvm_context_save_one(d, p->type, p->instance, buf, room);
    domain_unpause(d);
    if (bytes > (long)room)
        bytes = -ENOSPC;
    if (bytes >= 0) {
        p->bufsz = (uint64_t)bytes;
        bytes = bytes ? copy_to_guest((uint64_t)p->buffer.p, buf, (size_t)bytes) : 0;
    }
    pages_free(buf, order_for(4 * PAGE_SIZE));
    return bytes;
}

/* ---- CPUID policy
 * ------------------------------------------------------------------------------------ */

#define MSR_PLATFORM_INFO 0xce
#define NR_POLICY_MSRS    1

static long msrs_to_guest(uint64_t msrs, uint32_t *nr)
{
    const xen_msr_entry_t entry = {.idx = MSR_PLATFORM_INFO};

    if (msrs) {
        if (*nr < NR_POLICY_MSRS)
            return -ENOBUFS;
        if (copy_to_guest(msrs, &entry, sizeof(entry)))
            return -EFAULT;
    }
    *nr = msrs ? NR_POLICY_MSRS : 2; /* the size that the tools' own library counts with */
    return 0;
}

/* The MSR part of a policy is one read-only register without features. */
long cpu_policy_to_guest(int (*get)(const void *which, xen_cpuid_leaf_t *, uint32_t *),
                         const void *which, uint64_t leaves, uint32_t *nr_leaves, uint64_t msrs,
                         uint32_t *nr_msrs)
{
    xen_cpuid_leaf_t *buf = NULL;
    long rc;

    if (leaves) {
        buf = kzalloc(CPUID_MAX_SERIALISED * sizeof(*buf));
        if (!buf)
            return -ENOMEM;
        *nr_leaves = MIN(*nr_leaves, (uint32_t)CPUID_MAX_SERIALISED);
    }
    rc = get(which, buf, nr_leaves);
    if (!rc && leaves)
        rc = copy_to_guest(leaves, buf, *nr_leaves * sizeof(*buf));
    kfree(buf);
    return rc ? rc : msrs_to_guest(msrs, nr_msrs);
}

static int domain_leaves(const void *which, xen_cpuid_leaf_t *leaves, uint32_t *nr)
{
    return cpuid_policy_get((struct domain *)(uintptr_t)which, leaves, nr);
}

long domctl_get_cpu_policy(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    struct xen_domctl_cpu_policy *p = &op->u.cpu_policy;

    (void)v;
    return cpu_policy_to_guest(domain_leaves, d, (uint64_t)p->leaves.p, &p->nr_leaves,
                               (uint64_t)p->msrs.p, &p->nr_msrs);
}

static int check_msrs(struct xen_domctl_cpu_policy *p)
{
    for (uint32_t i = 0; i < p->nr_msrs; i++) {
        xen_msr_entry_t e;
        if (i >= 2)
            return -E2BIG;
        if (copy_from_guest(&e, (uint64_t)p->msrs.p + i * sizeof(e), sizeof(e)))
            return -EFAULT;
        if (e.flags || e.val || (e.idx != MSR_PLATFORM_INFO && e.idx != 0x10a)) {
            p->err_msr = e.idx;
            return -EINVAL;
        }
    }
    return 0;
}

/* Before the domain runs: leaves that the tools changed, over what it has. */
long domctl_set_cpu_policy(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    struct xen_domctl_cpu_policy *p = &op->u.cpu_policy;
    xen_cpuid_leaf_t *buf = NULL;
    long rc;

    (void)v;
    p->err_leaf = p->err_subleaf = p->err_msr = ~0u;
    if (p->nr_leaves > CPUID_MAX_SERIALISED)
        return -E2BIG;
    rc = check_msrs(p);
    if (rc || !p->nr_leaves)
        return rc;
    buf = kzalloc(p->nr_leaves * sizeof(*buf));
    if (!buf)
        return -ENOMEM;
    rc = copy_from_guest(buf, (uint64_t)p->leaves.p, p->nr_leaves * sizeof(*buf));
    if (!rc) {
        domain_pause(d);
        rc = cpuid_policy_set(d, buf, p->nr_leaves, &p->err_leaf, &p->err_subleaf);
        domain_unpause(d);
    }
    kfree(buf);
    return rc;
}

/* ---- time, and the rest
 * -------------------------------------------------------------------------------- */

long domctl_settimeoffset(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    (void)v;
    d->time_offset_seconds = (uint64_t)op->u.settimeoffset.time_offset_seconds;
    pvtime_update_wallclock(d);
    return 0;
}

long domctl_gettscinfo(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    struct xen_domctl_tsc_info *t = &op->u.tsc_info;

    (void)v;
    *t = (struct xen_domctl_tsc_info){.tsc_mode = d->tsc_mode,
                                      .gtsc_khz = (uint32_t)(d->tsc_khz ? d->tsc_khz : tsc_khz),
                                      .incarnation = d->tsc_incarnation,
                                      .elapsed_nsec = now_ns()};
    return 0;
}

/* d's TSC runs at khz from now on, where it stands (vCPU 0's, for all). 0 and what differs from the
 * host's rate by no more than two measurements of one clock do: the host's. -EOPNOTSUPP: this CPU
 * does not scale; -EINVAL: not between a sixteenth and sixteen times the host's. */
static int set_tsc_rate(struct domain *d, uint64_t khz)
{
    uint64_t host = tsc_khz, slack = host / 4096, ratio = 0;

    if (khz && (khz > host + slack || khz + slack < host)) {
        if (!hvm_tsc_fraction_bits)
            return -EOPNOTSUPP;
        if (khz < host / 16 || khz > host * 16)
            return -EINVAL;
        ratio = (khz << 32) / host << 16 | ((khz << 32) % host << 16) / host;
        ratio &= ~0ULL << (48 - hvm_tsc_fraction_bits);
    } else {
        khz = host;
    }
    if (ratio == d->tsc_ratio)
        return 0;
    domain_pause(d);
    uint64_t now = rdtsc(), at = d->vcpu[0] ? guest_tsc(d->vcpu[0], now) : now;
    d->tsc_ratio = ratio;
    d->tsc_khz = khz;
    for (unsigned i = 0; i < d->max_vcpus; i++) {
        struct vcpu *v = d->vcpu[i];
        if (!v)
            continue;
        uint64_t deadline = vlapic_tsc_deadline(v);
        hvm_ops->set_tsc_offset(v, at - tsc_scaled(d, now));
        pvtime_update_vcpu(v);
        if (deadline)
            vlapic_set_tsc_deadline(v, deadline);
    }
    domain_unpause(d);
    return 0;
}

/* Modes: 0 default, 1 always emulate, 2 never. The TSC is the hardware's with an offset in all, and
 * scaled where another rate is asked for but in mode 2. */
long domctl_settscinfo(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    const struct xen_domctl_tsc_info *t = &op->u.tsc_info;

    (void)v;
    if (t->tsc_mode > 2)
        return -EINVAL;
    int err = set_tsc_rate(d, t->tsc_mode == 2 ? 0 : t->gtsc_khz);
    if (err)
        return err;
    d->tsc_mode = t->tsc_mode;
    d->tsc_incarnation = t->incarnation;
    d->tsc_elapsed_ns = t->elapsed_nsec;
    return 0;
}

/* Fill a page of the guest's with hypercall stubs, as the guest's own MSR write would. */
long domctl_hypercall_init(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    struct vcpu *first = domctl_vcpu(d, 0);

    (void)v;
    if (!first)
        return -ESRCH;
    if (op->u.hypercall_init.gmfn >> (p2m_gpa_bits - PAGE_SHIFT))
        return -EINVAL;
    return hypercall_page_install(first, op->u.hypercall_init.gmfn << PAGE_SHIFT);
}

long domctl_get_address_size(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    (void)v;
    (void)d;
    op->u.address_size.size = 64;
    return 0;
}
