/* sysctl.c: sysctl: the toolstack's questions about the machine. The table, and the plain ones. */
#include "core/atomic.h"
#include "core/print.h"
#include "domain/compat.h"
#include "core/console.h"
#include "domain/domctl.h"
#include "domain/memory.h"
#include "platform/platform.h"

#define MAX_CONSOLE_BYTES 32768
#define MAX_DEBUG_KEYS    1024

/* Bytes from the log's ring, for `xl dmesg`. */
static long readconsole(struct vcpu *v, struct xen_sysctl *op)
{
    struct xen_sysctl_readconsole *r = &op->u.readconsole;
    uint32_t room = MIN(r->count, (uint32_t)MAX_CONSOLE_BYTES), index = r->index;
    char *buf;
    size_t n;
    long rc;

    (void)v;
    buf = kzalloc(room ? room : 1);
    if (!buf)
        return -ENOMEM;
    n = console_ring_copy(buf, room, &index, r->incremental, r->clear);
    rc = n ? copy_to_guest((uint64_t)r->buffer.p, buf, n) : 0;
    kfree(buf);
    r->index = index;
    r->count = (uint32_t)n;
    return rc;
}

static long physinfo(struct vcpu *v, struct xen_sysctl *op)
{
    struct xen_sysctl_physinfo *p = &op->u.physinfo;
    uint32_t words[CPUID_FEATURE_WORDS];

    (void)v;
    memset(p, 0, sizeof(*p));
    p->threads_per_core = 1;
    p->cores_per_socket = nr_cpus;
    p->nr_cpus = nr_cpus;
    p->max_cpu_id = nr_cpus - 1;
    p->nr_nodes = 1;
    p->cpu_khz = (uint32_t)tsc_khz;
    p->capabilities =
        XEN_SYSCTL_PHYSCAP_hvm | XEN_SYSCTL_PHYSCAP_hap | XEN_SYSCTL_PHYSCAP_gnttab_v1;
    p->total_pages = heap_total_pages();
    p->free_pages = heap_free_pages();
    p->outstanding_pages = claimed_pages(NULL);
    p->max_mfn = max_mfn - 1;
    if (!cpuid_featureset(XEN_SYSCTL_cpu_featureset_host, words))
        memcpy(p->hw_cap, words, sizeof(p->hw_cap));
    return 0;
}

static long sched_id(struct vcpu *v, struct xen_sysctl *op)
{
    (void)v;
    op->u.sched_id.sched_id = XEN_SCHEDULER_CREDIT2;
    return 0;
}

static long getdomaininfolist(struct vcpu *v, struct xen_sysctl *op)
{
    struct xen_sysctl_getdomaininfolist *l = &op->u.getdomaininfolist;
    struct xen_domctl_getdomaininfo info;
    domid_t next = l->first_domain;
    uint32_t n = 0;
    int rc = 0;

    (void)v;
    while (n < l->max_domains && next < DOMID_FIRST_RESERVED) {
        struct domain *d = domain_next(next);
        if (!d)
            break;
        memset(&info, 0, sizeof(info));
        domain_getinfo(d, &info);
        next = (domid_t)(d->id + 1);
        domain_put(d);
        rc = copy_to_guest((uint64_t)l->buffer.p + n * sizeof(info), &info, sizeof(info));
        if (rc)
            return rc;
        n++;
    }
    l->num_domains = n;
    return 0;
}

static long debug_keys(struct vcpu *v, struct xen_sysctl *op)
{
    const struct xen_sysctl_debug_keys *k = &op->u.debug_keys;

    (void)v;
    if (k->nr_keys > MAX_DEBUG_KEYS)
        return -E2BIG;
    for (uint32_t i = 0; i < k->nr_keys; i++) {
        char c;
        if (copy_from_guest(&c, (uint64_t)k->keys.p + i, 1))
            return -EFAULT;
        console_key(c);
    }
    return 0;
}

static long getcpuinfo(struct vcpu *v, struct xen_sysctl *op)
{
    struct xen_sysctl_getcpuinfo *g = &op->u.getcpuinfo;
    uint32_t n = MIN(g->max_cpus, nr_cpus);

    (void)v;
    for (uint32_t i = 0; i < n; i++) {
        struct xen_sysctl_cpuinfo info = {.idletime = cpus[i] ? READ_ONCE(cpus[i]->idle_ns) : 0};
        if (copy_to_guest((uint64_t)g->info.p + i * sizeof(info), &info, sizeof(info)))
            return -EFAULT;
    }
    g->nr_cpus = n;
    return 0;
}

static long availheap(struct vcpu *v, struct xen_sysctl *op)
{
    struct xen_sysctl_availheap *a = &op->u.availheap;

    (void)v;
    if (a->node < -1)
        return -EINVAL;
    a->avail_bytes = a->node > 0 ? 0 : heap_free_pages() << PAGE_SHIFT;
    return 0;
}

/* Not there, and the tools know what to do then: no trace buffers, no power management. */
static long not_there(struct vcpu *v, struct xen_sysctl *op)
{
    (void)v;
    (void)op;
    return -ENOSYS;
}

static long not_supported(struct vcpu *v, struct xen_sysctl *op)
{
    (void)v;
    (void)op;
    return -EOPNOTSUPP;
}

/* ---- the table
 * ------------------------------------------------------------------------------------ */

static sysctl_fn *const table[] = {
    [XEN_SYSCTL_readconsole] = readconsole,
    [XEN_SYSCTL_tbuf_op] = not_there,
    [XEN_SYSCTL_physinfo] = physinfo,
    [XEN_SYSCTL_sched_id] = sched_id,
    [XEN_SYSCTL_perfc_op] = not_there,
    [XEN_SYSCTL_getdomaininfolist] = getdomaininfolist,
    [XEN_SYSCTL_debug_keys] = debug_keys,
    [XEN_SYSCTL_getcpuinfo] = getcpuinfo,
    [XEN_SYSCTL_availheap] = availheap,
    [XEN_SYSCTL_get_pmstat] = not_there,
    [XEN_SYSCTL_pm_op] = not_there,
    [XEN_SYSCTL_lockprof_op] = not_there,
    [XEN_SYSCTL_cputopoinfo] = sysctl_cputopoinfo,
    [XEN_SYSCTL_numainfo] = sysctl_numainfo,
    [XEN_SYSCTL_cpupool_op] = sysctl_cpupool_op,
    [XEN_SYSCTL_scheduler_op] = sysctl_scheduler_op,
    [XEN_SYSCTL_coverage_op] = not_supported,
    [XEN_SYSCTL_psr_cmt_op] = not_there,
    [XEN_SYSCTL_psr_alloc] = not_there,
    [XEN_SYSCTL_pcitopoinfo] = sysctl_pcitopoinfo,
    [XEN_SYSCTL_get_cpu_levelling_caps] = sysctl_get_cpu_levelling_caps,
    [XEN_SYSCTL_get_cpu_featureset] = sysctl_get_cpu_featureset,
    [XEN_SYSCTL_livepatch_op] = not_supported,
    [XEN_SYSCTL_get_cpu_policy] = sysctl_get_cpu_policy,
};

/* The sysctl hypercall: (pointer to struct xen_sysctl, the same in both widths). */
long do_sysctl(struct vcpu *v, const uint64_t arg[6])
{
    uint64_t gva = guest_addr(v, arg[0]);
    struct xen_sysctl op;
    sysctl_fn *fn;
    long rc;

    if (!v->domain->privileged)
        return -EPERM;
    if (copy_from_guest(&op, gva, sizeof(op)))
        return -EFAULT;
    if (op.interface_version != XEN_SYSCTL_INTERFACE_VERSION)
        return -EACCES;
    fn = op.cmd < ARRAY_SIZE(table) ? table[op.cmd] : NULL;
    if (!fn)
        return hypercall_missing(v, "sysctl", op.cmd, -EOPNOTSUPP);
    if (fn == not_there || fn == not_supported)
        return fn(v, &op);
    rc = fn(v, &op);
    /* The answer is in the structure; -ENOBUFS comes with the size that is needed. */
    if ((!rc || rc == -ENOBUFS) && copy_to_guest(gva, &op, sizeof(op)))
        return -EFAULT;
    return rc;
}
