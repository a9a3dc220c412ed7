/* domctl.c: domctl: the toolstack's operations on one domain. The table, and the life cycle.
 *
 * Operations are serialised by one lock. A caller that finds it taken tries again by a
 * continuation, so that nobody spins while the holder waits for a vCPU to stop.
 */
#include "core/atomic.h"
#include "core/print.h"
#include "domain/compat.h"
#include "domain/domctl.h"

static spinlock_t domctl_lock = SPINLOCK_INIT;

/* ---- helpers shared with the other files --------------------------------------------------------
 */

struct vcpu *domctl_vcpu(struct domain *d, uint32_t id)
{
    return id < d->max_vcpus && id < MAX_VCPUS_PER_DOMAIN ? d->vcpu[id] : NULL;
}

int bitmap_from_guest(uint64_t *bits, const struct xenctl_bitmap *map, unsigned nr_bits)
{
    unsigned n = MIN(map->nr_bits, nr_bits);

    *bits = 0;
    if (n && copy_from_guest(bits, (uint64_t)map->bitmap.p, (n + 7) / 8))
        return -EFAULT;
    if (n < 64)
        *bits &= BIT(n) - 1;
    return 0;
}

int bitmap_to_guest(const struct xenctl_bitmap *map, uint64_t bits, unsigned nr_bits)
{
    uint64_t gva = (uint64_t)map->bitmap.p;
    uint32_t bytes = (map->nr_bits + 7) / 8, have = MIN(bytes, (nr_bits + 7) / 8);

    if (map->nr_bits > 65536)
        return -EINVAL;
    if (MIN(nr_bits, map->nr_bits) < 64)
        bits &= BIT(MIN(nr_bits, map->nr_bits)) - 1;
    if (have && copy_to_guest(gva, &bits, have))
        return -EFAULT;
    return bytes > have ? clear_guest(gva + have, bytes - have) : 0;
}

/* ---- life cycle
 * ------------------------------------------------------------------------------------ */

#define CDF_ACCEPTED                                                                               \
    (XEN_DOMCTL_CDF_hvm | XEN_DOMCTL_CDF_hap | XEN_DOMCTL_CDF_oos_off | XEN_DOMCTL_CDF_xs_domain)
#define CDF_NEEDED   (XEN_DOMCTL_CDF_hvm | XEN_DOMCTL_CDF_hap)
#define EMU_ACCEPTED (XEN_X86_EMU_ALL & ~XEN_X86_EMU_VPCI)

static int check_config(const struct xen_domctl_createdomain *c)
{
    unsigned grant_version = XEN_DOMCTL_GRANT_version(c->grant_opts);

    if ((c->flags & CDF_NEEDED) != CDF_NEEDED || c->flags & ~CDF_ACCEPTED || c->iommu_opts)
        return -EINVAL;
    if (!c->max_vcpus || c->max_vcpus > MAX_VCPUS_PER_DOMAIN)
        return -EINVAL;
    if (c->grant_opts & ~XEN_DOMCTL_GRANT_version_mask || !grant_version || grant_version > 2)
        return -EINVAL;
    if (c->arch.emulation_flags & ~EMU_ACCEPTED || c->arch.misc_flags & ~XEN_X86_MSR_RELAXED)
        return -EINVAL;
    if (c->vmtrace_size)
        return -EOPNOTSUPP;
    return c->cpupool_id ? -ESRCH : 0;
}

/* The next free number after the last one given, so that numbers are not reused soon. */
static int create_anywhere(const struct xen_domctl_createdomain *c, struct domain **out)
{
    static domid_t last;

    for (unsigned tries = 0; tries < DOMID_FIRST_RESERVED; tries++) {
        last = (domid_t)(last + 1);
        if (last >= DOMID_FIRST_RESERVED)
            last = 1;
        int rc = domain_create(last, c, false, out);
        if (rc != -EEXIST)
            return rc;
    }
    return -ENOSPC;
}

static long createdomain(struct vcpu *v, struct domain *none, struct xen_domctl *op)
{
    const struct xen_domctl_createdomain *c = &op->u.createdomain;
    struct domain *d;
    int rc = check_config(c);

    (void)v;
    (void)none;
    if (rc)
        return rc;
    if (op->domain && op->domain < DOMID_FIRST_RESERVED)
        rc = domain_create(op->domain, c, false, &d);
    else
        rc = create_anywhere(c, &d);
    if (rc)
        return rc;
    op->domain = d->id;
    memcpy(op->u.createdomain.handle, d->handle, sizeof(d->handle));
    return 0;
}

static long destroydomain(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    (void)v;
    (void)op;
    return domain_kill(d);
}

static long pausedomain(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    (void)v;
    (void)op;
    if (d->systemcontroller_pauses >= 255)
        return -EOVERFLOW;
    d->systemcontroller_pauses++;
    domain_pause(d);
    return 0;
}

static long unpausedomain(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    (void)v;
    (void)op;
    if (!d->systemcontroller_pauses && !d->created_paused)
        return -EINVAL;
    if (d->systemcontroller_pauses)
        d->systemcontroller_pauses--;
    d->created_paused = false;
    domain_report_shutdown(d);
    domain_unpause(d);
    return 0;
}

static long resumedomain(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    (void)v;
    (void)op;
    domain_resume(d);
    return 0;
}

/* The domain of this number or, when there is none, of the next higher one. */
static long getdomaininfo(struct vcpu *v, struct domain *none, struct xen_domctl *op)
{
    struct domain *d;

    (void)v;
    (void)none;
    if (op->domain >= DOMID_FIRST_RESERVED)
        return -EINVAL;
    d = domain_next(op->domain);
    if (!d)
        return -ESRCH;
    memset(&op->u, 0, sizeof(op->u));
    domain_getinfo(d, &op->u.getdomaininfo);
    op->domain = d->id;
    domain_put(d);
    return 0;
}

static long setdomainhandle(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    (void)v;
    memcpy(d->handle, op->u.setdomainhandle.handle, sizeof(d->handle));
    return 0;
}

/* d becomes the device model's domain of another. */
static long set_target(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    struct domain *target = domain_get(op->u.set_target.target);

    (void)v;
    if (!target)
        return -ESRCH;
    if (target == d || target->is_dom0) {
        domain_put(target);
        return -EINVAL;
    }
    d->target = target->id;
    domain_put(target);
    return 0;
}

/* One node, which every domain has affinity with. */
static long setnodeaffinity(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    uint64_t nodes;

    (void)v;
    (void)d;
    if (bitmap_from_guest(&nodes, &op->u.nodeaffinity.nodemap, 64))
        return -EFAULT;
    return nodes & 1 ? 0 : -EINVAL;
}

static long getnodeaffinity(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    (void)v;
    (void)d;
    return bitmap_to_guest(&op->u.nodeaffinity.nodemap, 1, 1);
}

/* Rights to devices, debugging: nothing is passed through, so there is nothing to change. */
static long accepted(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    (void)v;
    (void)d;
    (void)op;
    return 0;
}

/* Taking a device range away that was never given is fine; giving one is not there. */
static long memory_mapping(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    (void)d;
    if (op->u.memory_mapping.add_mapping == DPCI_REMOVE_MAPPING)
        return 0;
    return hypercall_missing(v, "domctl", op->cmd, -EOPNOTSUPP);
}

static long ioport_mapping(struct vcpu *v, struct domain *d, struct xen_domctl *op)
{
    (void)d;
    if (op->u.ioport_mapping.add_mapping == DPCI_REMOVE_MAPPING)
        return 0;
    return hypercall_missing(v, "domctl", op->cmd, -EOPNOTSUPP);
}

/* ---- the table
 * -------------------------------------------------------------------------------------- */

enum domctl_flags {
    NO_DOMAIN = 1, /* op->domain is not resolved */
    COPY_BACK = 2, /* the structure is an answer, too */
    NOT_SELF = 4,  /* stops or replaces what the caller runs on */
};

static const struct domctl_entry {
    domctl_fn *fn;
    uint8_t flags;
} table[] = {
    [XEN_DOMCTL_createdomain] = {createdomain, NO_DOMAIN | COPY_BACK},
    [XEN_DOMCTL_destroydomain] = {destroydomain, NOT_SELF},
    [XEN_DOMCTL_pausedomain] = {pausedomain, NOT_SELF},
    [XEN_DOMCTL_unpausedomain] = {unpausedomain, 0},
    [XEN_DOMCTL_resumedomain] = {resumedomain, NOT_SELF},
    [XEN_DOMCTL_getdomaininfo] = {getdomaininfo, NO_DOMAIN | COPY_BACK},
    [XEN_DOMCTL_setdomainhandle] = {setdomainhandle, 0},
    [XEN_DOMCTL_set_target] = {set_target, NOT_SELF},
    [XEN_DOMCTL_setnodeaffinity] = {setnodeaffinity, 0},
    [XEN_DOMCTL_getnodeaffinity] = {getnodeaffinity, 0},
    [XEN_DOMCTL_setdebugging] = {accepted, NOT_SELF},
    [XEN_DOMCTL_irq_permission] = {accepted, 0},
    [XEN_DOMCTL_iomem_permission] = {accepted, 0},
    [XEN_DOMCTL_ioport_permission] = {accepted, 0},
    [XEN_DOMCTL_set_access_required] = {accepted, NOT_SELF},
    [XEN_DOMCTL_cacheflush] = {accepted, 0},
    [XEN_DOMCTL_memory_mapping] = {memory_mapping, 0},
    [XEN_DOMCTL_ioport_mapping] = {ioport_mapping, 0},

    [XEN_DOMCTL_max_mem] = {domctl_max_mem, 0},
    [XEN_DOMCTL_getpageframeinfo3] = {domctl_getpageframeinfo3, 0},
    [XEN_DOMCTL_shadow_op] = {domctl_shadow_op, COPY_BACK | NOT_SELF},
    [XEN_DOMCTL_get_paging_mempool_size] = {domctl_get_mempool, COPY_BACK},
    [XEN_DOMCTL_set_paging_mempool_size] = {domctl_set_mempool, 0},

    [XEN_DOMCTL_max_vcpus] = {domctl_max_vcpus, 0},
    [XEN_DOMCTL_getvcpuinfo] = {domctl_getvcpuinfo, COPY_BACK},
    [XEN_DOMCTL_setvcpuaffinity] = {domctl_setvcpuaffinity, 0},
    [XEN_DOMCTL_getvcpuaffinity] = {domctl_getvcpuaffinity, 0},
    [XEN_DOMCTL_setvcpucontext] = {domctl_setvcpucontext, NOT_SELF},
    [XEN_DOMCTL_getvcpucontext] = {domctl_getvcpucontext, NOT_SELF},
    [XEN_DOMCTL_scheduler_op] = {domctl_scheduler_op, COPY_BACK},
    [XEN_DOMCTL_get_vcpu_msrs] = {domctl_get_vcpu_msrs, COPY_BACK},
    [XEN_DOMCTL_set_vcpu_msrs] = {domctl_set_vcpu_msrs, 0},
    [XEN_DOMCTL_sendtrigger] = {domctl_sendtrigger, NOT_SELF},

    [XEN_DOMCTL_gethvmcontext] = {domctl_gethvmcontext, COPY_BACK | NOT_SELF},
    [XEN_DOMCTL_sethvmcontext] = {domctl_sethvmcontext, NOT_SELF},
    [XEN_DOMCTL_gethvmcontext_partial] = {domctl_gethvmcontext_partial, COPY_BACK | NOT_SELF},
    [XEN_DOMCTL_get_cpu_policy] = {domctl_get_cpu_policy, COPY_BACK},
    [XEN_DOMCTL_set_cpu_policy] = {domctl_set_cpu_policy, COPY_BACK | NOT_SELF},
    [XEN_DOMCTL_settimeoffset] = {domctl_settimeoffset, NOT_SELF},
    [XEN_DOMCTL_gettscinfo] = {domctl_gettscinfo, COPY_BACK},
    [XEN_DOMCTL_settscinfo] = {domctl_settscinfo, NOT_SELF},
    [XEN_DOMCTL_hypercall_init] = {domctl_hypercall_init, NOT_SELF},
    [XEN_DOMCTL_get_address_size] = {domctl_get_address_size, COPY_BACK},
};

static long run(struct vcpu *v, const struct domctl_entry *e, struct xen_domctl *op, uint64_t gva)
{
    struct domain *d = NULL;
    long rc;

    if (!(e->flags & NO_DOMAIN)) {
        d = op->domain == DOMID_SELF ? domain_get(v->domain->id) : domain_get(op->domain);
        if (!d)
            return -ESRCH;
    }
    rc = d == v->domain && e->flags & NOT_SELF ? -EINVAL : e->fn(v, d, op);
    if (d)
        domain_put(d);
    /* Some operations say in the structure what they failed on. */
    if (e->flags & COPY_BACK && rc != -ERESTART && copy_to_guest(gva, op, sizeof(*op)))
        return -EFAULT;
    return rc;
}

/* The domctl hypercall: (pointer to struct xen_domctl, the same in both widths). */
long do_domctl(struct vcpu *v, const uint64_t arg[6])
{
    uint64_t gva = guest_addr(v, arg[0]);
    const struct domctl_entry *e;
    struct xen_domctl op;
    long rc;

    if (!v->domain->privileged)
        return -EPERM;
    if (copy_from_guest(&op, gva, sizeof(op)))
        return -EFAULT;
    if (op.interface_version != XEN_DOMCTL_INTERFACE_VERSION)
        return -EACCES;
    e = op.cmd < ARRAY_SIZE(table) ? &table[op.cmd] : NULL;
    if (!e || !e->fn)
        return hypercall_missing(v, "domctl", op.cmd, -EOPNOTSUPP);
    if (!spin_trylock(&domctl_lock))
        return hypercall_continue(v);
    rc = run(v, e, &op, gva);
    spin_unlock(&domctl_lock);
    return rc == -ERESTART ? hypercall_continue(v) : rc;
}
