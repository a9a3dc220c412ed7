/* sysctl_host.c: sysctl: the machine's shape: CPUs, one NUMA node, one CPU pool, and their
 * features. */
#include "core/print.h"
#include "domain/compat.h"
#include "domain/domctl.h"
#include "platform/platform.h"

#define LOCAL_DISTANCE 10 /* ACPI's SLIT unit */
#define MAX_PCI_DEVS   65536

/* One socket, every CPU a core of its own: nothing here depends on more. */
long sysctl_cputopoinfo(struct vcpu *v, struct xen_sysctl *op)
{
    struct xen_sysctl_cputopoinfo *t = &op->u.cputopoinfo;
    uint32_t n = MIN(t->num_cpus, nr_cpus);

    (void)v;
    for (uint32_t i = 0; t->cputopo.p && i < n; i++) {
        struct xen_sysctl_cputopo cpu = {.core = i};
        if (copy_to_guest((uint64_t)t->cputopo.p + i * sizeof(cpu), &cpu, sizeof(cpu)))
            return -EFAULT;
    }
    t->num_cpus = nr_cpus;
    return 0;
}

long sysctl_numainfo(struct vcpu *v, struct xen_sysctl *op)
{
    struct xen_sysctl_numainfo *n = &op->u.numainfo;
    struct xen_sysctl_meminfo mem = {
        .memsize = heap_total_pages() << PAGE_SHIFT,
        .memfree = heap_free_pages() << PAGE_SHIFT,
    };
    uint32_t distance = LOCAL_DISTANCE;

    (void)v;
    if (n->num_nodes && n->meminfo.p && copy_to_guest((uint64_t)n->meminfo.p, &mem, sizeof(mem)))
        return -EFAULT;
    if (n->num_nodes && n->distance.p &&
        copy_to_guest((uint64_t)n->distance.p, &distance, sizeof(distance)))
        return -EFAULT;
    n->num_nodes = 1;
    return 0;
}

long sysctl_pcitopoinfo(struct vcpu *v, struct xen_sysctl *op)
{
    struct xen_sysctl_pcitopoinfo *p = &op->u.pcitopoinfo;
    uint32_t node = 0;

    (void)v;
    if (!p->devs.p || !p->nodes.p || p->num_devs > MAX_PCI_DEVS)
        return -EINVAL;
    for (uint32_t i = 0; i < p->num_devs; i++) {
        physdev_pci_device_t dev;
        if (copy_from_guest(&dev, (uint64_t)p->devs.p + i * sizeof(dev), sizeof(dev)) ||
            copy_to_guest((uint64_t)p->nodes.p + i * sizeof(node), &node, sizeof(node)))
            return -EFAULT;
    }
    return 0;
}

/* ---- CPU pools: pool 0, of all CPUs and all domains
 * ------------------------------------------------- */

static long pool_info(struct xen_sysctl_cpupool_op *p)
{
    p->cpupool_id = 0;
    p->sched_id = XEN_SCHEDULER_CREDIT2;
    p->n_dom = 0;
    for (struct domain *d = domain_next(0); d;) {
        domid_t next = (domid_t)(d->id + 1);
        p->n_dom++;
        domain_put(d);
        d = domain_next(next);
    }
    return bitmap_to_guest(&p->cpumap, nr_cpus >= 64 ? ~0ULL : BIT(nr_cpus) - 1, MAX_CPUS);
}

long sysctl_cpupool_op(struct vcpu *v, struct xen_sysctl *op)
{
    struct xen_sysctl_cpupool_op *p = &op->u.cpupool_op;

    switch (p->op) {
    case XEN_SYSCTL_CPUPOOL_OP_INFO: /* the pool of this number or the next one */
        return p->cpupool_id ? -ENOENT : pool_info(p);
    case XEN_SYSCTL_CPUPOOL_OP_FREEINFO: /* CPUs in no pool */
        return bitmap_to_guest(&p->cpumap, 0, MAX_CPUS);
    case XEN_SYSCTL_CPUPOOL_OP_MOVEDOMAIN:
        return p->cpupool_id ? -ENOENT : 0;
    case XEN_SYSCTL_CPUPOOL_OP_DESTROY:
    case XEN_SYSCTL_CPUPOOL_OP_RMCPU:
        return p->cpupool_id ? -ENOENT : -EBUSY;
    case XEN_SYSCTL_CPUPOOL_OP_ADDCPU:
        return p->cpupool_id ? -ENOENT : -ENODEV;
    case XEN_SYSCTL_CPUPOOL_OP_CREATE:
        return -EOPNOTSUPP;
    default:
        return hypercall_missing(v, "cpupool_op", p->op, -ENOSYS);
    }
}

long sysctl_scheduler_op(struct vcpu *v, struct xen_sysctl *op)
{
    struct xen_sysctl_scheduler_op *s = &op->u.scheduler_op;

    (void)v;
    if (s->cpupool_id)
        return -ESRCH;
    if (s->sched_id != XEN_SCHEDULER_CREDIT2)
        return -EINVAL;
    uint32_t us = s->u.sched_credit2.ratelimit_us;
    switch (s->cmd) {
    case XEN_SYSCTL_SCHEDOP_getinfo:
        s->u.sched_credit2.ratelimit_us = (uint32_t)(sched_ratelimit_ns / NS_PER_US);
        return 0;
    case XEN_SYSCTL_SCHEDOP_putinfo: /* 0: no limit */
        if (us && (us < XEN_SYSCTL_SCHED_RATELIMIT_MIN || us > XEN_SYSCTL_SCHED_RATELIMIT_MAX))
            return -EINVAL;
        WRITE_ONCE(sched_ratelimit_ns, us * NS_PER_US);
        return 0;
    default:
        return -EINVAL;
    }
}

/* ---- features
 * ------------------------------------------------------------------------------------------ */

static int system_leaves(const void *which, xen_cpuid_leaf_t *leaves, uint32_t *nr)
{
    return cpuid_policy_get_system(*(const uint32_t *)which, leaves, nr);
}

long sysctl_get_cpu_policy(struct vcpu *v, struct xen_sysctl *op)
{
    struct xen_sysctl_cpu_policy *p = &op->u.cpu_policy;

    (void)v;
    if (p->_rsvd)
        return -EINVAL;
    return cpu_policy_to_guest(system_leaves, &p->index, (uint64_t)p->leaves.p, &p->nr_leaves,
                               (uint64_t)p->msrs.p, &p->nr_msrs);
}

long sysctl_get_cpu_featureset(struct vcpu *v, struct xen_sysctl *op)
{
    struct xen_sysctl_cpu_featureset *f = &op->u.cpu_featureset;
    uint32_t words[CPUID_FEATURE_WORDS], n = MIN(f->nr_features, (uint32_t)CPUID_FEATURE_WORDS);
    int rc = cpuid_featureset(f->index, words);

    (void)v;
    if (rc)
        return rc;
    if (!f->features.p) {
        f->nr_features = CPUID_FEATURE_WORDS;
        return 0;
    }
    if (n && copy_to_guest((uint64_t)f->features.p, words, n * sizeof(words[0])))
        return -EFAULT;
    rc = f->nr_features < CPUID_FEATURE_WORDS ? -ENOBUFS : 0;
    f->nr_features = n;
    return rc;
}

/* About masking CPUID for PV guests, which there are none of. */
long sysctl_get_cpu_levelling_caps(struct vcpu *v, struct xen_sysctl *op)
{
    (void)v;
    op->u.cpu_levelling_caps.caps = 0;
    return 0;
}
