/* hvm_op.c: parameters of an HVM domain, and its small operations.
 *
 * Parameters are words that the tools, the guest and the hypervisor leave for one another. Who may
 * read and write each, and what a write does, is one table. Structures are the same in both widths.
 */
#include "core/errno.h"
#include "core/string.h"
#include "domain/compat.h"
#include "domain/domain.h"
#include "platform/platform.h"

/* ---- parameters ----------------------------------------------------------------------------- */

enum who {
    NOBODY,
    TOOLS, /* another domain that is privileged over this one */
    ANY,   /* also the domain itself */
};

struct param {
    uint8_t get, set; /* enum who */
    bool once;        /* a value that is not 0 stays */
    uint64_t max;     /* highest value */
    /* What a write does before the value is kept; caller's vCPU. NULL for nothing. */
    int (*apply)(struct vcpu *v, struct domain *d, uint64_t value);
};

/* A guest that sets up its callback says by its own mode which layout it reads its events from. */
static int apply_callback(struct vcpu *v, struct domain *d, uint64_t value)
{
    if (d == v->domain)
        domain_latch_shinfo(d, v->compat);
    return hvm_set_callback_via(d, value);
}

static int apply_viridian(struct vcpu *v, struct domain *d, uint64_t value)
{
    (void)v, (void)d;
    if (value & ~(uint64_t)HVMPV_feature_mask || (value && !(value & HVMPV_base_freq)))
        return -EINVAL;
    return 0;
}

static int apply_fip_width(struct vcpu *v, struct domain *d, uint64_t value)
{
    (void)v, (void)d;
    return value == 0 || value == 4 || value == 8 ? 0 : -EINVAL;
}

/* QEMU says 3 when the guest's sleep command reached it, and 0 after `xl trigger s3resume`. */
static int apply_s_state(struct vcpu *v, struct domain *d, uint64_t value)
{
    if (d == v->domain || (value && value != 3))
        return -EINVAL;
    if (value)
        domain_s3_sleep(d);
    else
        domain_s3_wake(d);
    return 0;
}

/* What is not there may only be switched off. */
static int apply_absent(struct vcpu *v, struct domain *d, uint64_t value)
{
    (void)v, (void)d;
    return value ? -EOPNOTSUPP : 0;
}

static int apply_nr_server_pages(struct vcpu *v, struct domain *d, uint64_t value)
{
    (void)v, (void)d;
    return value ? 0 : -EINVAL;
}

#define WORD                                    (~0ULL)
#define GFN                                     (BIT(40) - 1)
#define PARAM(name, get, set, once, max, apply) [HVM_PARAM_##name] = {get, set, once, max, apply}

static const struct param params[HVM_NR_PARAMS] = {
    PARAM(CALLBACK_IRQ, ANY, ANY, false, WORD, apply_callback),
    PARAM(STORE_PFN, ANY, TOOLS, false, GFN, NULL),
    PARAM(STORE_EVTCHN, ANY, ANY, false, UINT32_MAX, NULL),
    PARAM(PAE_ENABLED, TOOLS, TOOLS, false, 1, NULL),
    PARAM(IOREQ_PFN, TOOLS, TOOLS, false, GFN, NULL),
    PARAM(BUFIOREQ_PFN, TOOLS, TOOLS, false, GFN, NULL),
    PARAM(VIRIDIAN, TOOLS, TOOLS, true, WORD, apply_viridian),
    PARAM(TIMER_MODE, TOOLS, TOOLS, false, HVMPTM_one_missed_tick_pending, NULL),
    PARAM(HPET_ENABLED, TOOLS, TOOLS, false, 1, NULL),
    PARAM(IDENT_PT, TOOLS, TOOLS, false, WORD, NULL),
    PARAM(DM_DOMAIN, TOOLS, TOOLS, false, UINT16_MAX, NULL),
    PARAM(ACPI_S_STATE, ANY, TOOLS, false, 3, apply_s_state),
    PARAM(VM86_TSS, ANY, ANY, false, WORD, NULL),
    PARAM(VPT_ALIGN, TOOLS, TOOLS, false, 1, NULL),
    PARAM(CONSOLE_PFN, ANY, TOOLS, false, GFN, NULL),
    PARAM(CONSOLE_EVTCHN, ANY, ANY, false, UINT32_MAX, NULL),
    PARAM(ACPI_IOPORTS_LOCATION, ANY, ANY, false, 1,
          NULL), /* read by the PM block at each access */
    PARAM(NESTEDHVM, TOOLS, TOOLS, false, 1, apply_absent),
    PARAM(BUFIOREQ_EVTCHN, TOOLS, NOBODY, false, 0, NULL),
    PARAM(PAGING_RING_PFN, TOOLS, TOOLS, false, GFN, NULL),
    PARAM(MONITOR_RING_PFN, TOOLS, TOOLS, false, GFN, NULL),
    PARAM(SHARING_RING_PFN, TOOLS, TOOLS, false, GFN, NULL),
    PARAM(TRIPLE_FAULT_REASON, TOOLS, TOOLS, false, SHUTDOWN_MAX, NULL),
    PARAM(IOREQ_SERVER_PFN, TOOLS, TOOLS, true, GFN, NULL),
    PARAM(NR_IOREQ_SERVER_PAGES, TOOLS, TOOLS, true, 8, apply_nr_server_pages),
    PARAM(VM_GENERATION_ID_ADDR, ANY, ANY, false, WORD, NULL),
    PARAM(ALTP2M, ANY, TOOLS, true, XEN_ALTP2M_limited, apply_absent),
    PARAM(X87_FIP_WIDTH, ANY, ANY, false, 8, apply_fip_width),
    PARAM(VM86_TSS_SIZED, ANY, ANY, false, WORD, NULL),
    PARAM(MCA_CAP, TOOLS, TOOLS, true, XEN_HVM_MCA_CAP_MASK, NULL),
};

/* 0 when the caller may; -EINVAL for a parameter that nobody knows. */
static int may(const struct vcpu *v, const struct domain *d, uint8_t who)
{
    if (who == ANY || (who == TOOLS && d != v->domain))
        return 0;
    return -EPERM;
}

static bool is_known(uint32_t index)
{
    return index < HVM_NR_PARAMS && (params[index].get || params[index].set);
}

static int param_set(struct vcpu *v, struct domain *d, uint32_t index, uint64_t value)
{
    const struct param *p = &params[index];
    int rc = may(v, d, p->set);

    if (rc)
        return rc;
    if (index == HVM_PARAM_DM_DOMAIN && value == DOMID_SELF)
        value = v->domain->id;
    if (value > p->max)
        return -EINVAL;
    if (p->once && READ_ONCE(d->hvm_params[index]) && READ_ONCE(d->hvm_params[index]) != value)
        return -EEXIST;
    if (p->apply)
        rc = p->apply(v, d, value);
    if (rc)
        return rc;
    spin_lock(&d->lock);
    if (p->once && d->hvm_params[index] && d->hvm_params[index] != value)
        rc = -EEXIST; /* another tool was faster */
    else
        d->hvm_params[index] = value;
    spin_unlock(&d->lock);
    return rc;
}

static long hvm_param(struct vcpu *v, uint64_t gva, bool set)
{
    struct xen_hvm_param a;
    struct domain *d;
    int rc;

    if (copy_from_guest(&a, gva, sizeof(a)))
        return -EFAULT;
    if (!is_known(a.index))
        return -EINVAL;
    rc = domain_resolve(v, a.domid, &d);
    if (rc)
        return rc;
    if (set) {
        rc = param_set(v, d, a.index, a.value);
    } else {
        rc = may(v, d, params[a.index].get);
        a.value = READ_ONCE(d->hvm_params[a.index]);
    }
    domain_put(d);
    if (rc == 0 && !set && copy_to_guest(gva, &a, sizeof(a)))
        return -EFAULT;
    return rc;
}

/* ---- the rest ------------------------------------------------------------------------------- */

static uint16_t public_mem_type(enum p2m_type t)
{
    switch (t) {
    case P2M_RAM:
    case P2M_LOGDIRTY:
    case P2M_GRANT_RW:
    case P2M_FOREIGN_RW:
        return HVMMEM_ram_rw;
    case P2M_RAM_RO:
    case P2M_GRANT_RO:
    case P2M_FOREIGN_RO:
        return HVMMEM_ram_ro;
    case P2M_IOREQ_SERVER:
        return HVMMEM_ioreq_server;
    case P2M_HOLE:
    case P2M_MMIO_DIRECT:
    case P2M_MMIO_DM:
    case P2M_NR_TYPES:
        break;
    }
    return HVMMEM_mmio_dm;
}

static long get_mem_type(struct vcpu *v, uint64_t gva)
{
    struct xen_hvm_get_mem_type a;
    enum p2m_type t = P2M_HOLE;
    unsigned order;
    struct domain *d;
    int rc;

    if (copy_from_guest(&a, gva, sizeof(a)))
        return -EFAULT;
    rc = domain_resolve(v, a.domid, &d);
    if (rc)
        return rc;
    if (!(a.pfn >> (p2m_gpa_bits - PAGE_SHIFT)))
        p2m_get(d, a.pfn, &t, &order);
    domain_put(d);
    a.mem_type = public_mem_type(t);
    return copy_to_guest(gva, &a, sizeof(a)) ? -EFAULT : 0;
}

static long set_upcall_vector(struct vcpu *v, uint64_t gva)
{
    struct xen_hvm_evtchn_upcall_vector a;
    struct vcpu *target;

    if (copy_from_guest(&a, gva, sizeof(a)))
        return -EFAULT;
    if (a.vector < 16)
        return -EINVAL;
    target = a.vcpu < v->domain->max_vcpus ? v->domain->vcpu[a.vcpu] : NULL;
    if (!target)
        return -ENOENT;
    WRITE_ONCE(target->upcall_vector, a.vector);
    hvm_callback_update(target); /* a line held up for it is not wanted any more */
    if (evtchn_upcall_pending(target))
        evtchn_notify_vcpu(target);
    return 0;
}

static long get_time(uint64_t gva)
{
    struct xen_hvm_get_time a = {.now = now_ns()};

    return copy_to_guest(gva, &a, sizeof(a)) ? -EFAULT : 0;
}

/* A guest's own trace records are checked and dropped. */
static long guest_trace(uint64_t gva)
{
    struct xen_hvm_xentrace a;

    if (copy_from_guest(&a, gva, sizeof(a)))
        return -EFAULT;
    return a.extra_bytes > sizeof(a.extra) ? -EINVAL : 0;
}

/* hvm_op(operation, structure). */
long do_hvm_op(struct vcpu *v, const uint64_t arg[6])
{
    uint64_t gva = guest_addr(v, arg[1]);

    switch ((uint32_t)arg[0]) {
    case HVMOP_set_param:
        return hvm_param(v, gva, true);
    case HVMOP_get_param:
        return hvm_param(v, gva, false);
    case HVMOP_flush_tlbs:
        if (gva)
            return -EINVAL;
        domain_flush_tlb(v->domain);
        return 0;
    case HVMOP_get_mem_type:
        return get_mem_type(v, gva);
    case HVMOP_set_evtchn_upcall_vector:
        return set_upcall_vector(v, gva);
    case HVMOP_get_time:
        return get_time(gva);
    case HVMOP_xentrace:
        return guest_trace(gva);
    case HVMOP_pagetable_dying: /* a hint for shadow page tables: callers ask whether it helps */
    case HVMOP_guest_request_vm_event:
    case HVMOP_altp2m:
        return -EOPNOTSUPP;
    default:
        return hypercall_missing(v, "hvm_op", (uint32_t)arg[0], -ENOSYS);
    }
}
