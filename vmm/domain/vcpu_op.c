/* vcpu_op.c: the VCPUOP_* hypercalls: bring vCPUs up, register their shared areas, set their
 * timers. */
#include "core/atomic.h"
#include "core/errno.h"
#include "core/string.h"
#include "domain/evtchn.h"
#include "domain/hvm.h"
#include "domain/pvtime.h"
#include "platform/platform.h"

#define MIN_PERIOD_NS NS_PER_MS
#define MAX_PERIOD_NS (1ULL << 62)

static void set_runstate_area(struct vcpu *v, uint64_t gva, struct page_info *pg);

/* ---- timers --------------------------------------------------------------------------------- */

static void singleshot_expired(void *data)
{
    send_vcpu_virq(data, VIRQ_TIMER);
}

static void periodic_expired(void *data)
{
    struct vcpu *v = data;
    uint64_t period = READ_ONCE(v->periodic_ns);

    if (!period)
        return; /* stopped while it was about to run */
    send_vcpu_virq(v, VIRQ_TIMER);
    timer_set(&v->periodic, now_ns() + period);
}

static void poll_expired(void *data)
{
    vcpu_unblock(data, VBLOCK_POLL);
}

/* Arm one of v's timers, on the pCPU where v is. */
static void arm(struct vcpu *v, struct timer *t, uint64_t expires_ns)
{
    if (t->cpu != v->sched.cpu)
        timer_migrate(t, v->sched.cpu);
    timer_set(t, expires_ns);
}

void vcpu_op_init(struct vcpu *v)
{
    timer_init(&v->singleshot, singleshot_expired, v, v->sched.cpu);
    timer_init(&v->periodic, periodic_expired, v, v->sched.cpu);
    timer_init(&v->poll_timer, poll_expired, v, v->sched.cpu);
    v->periodic_ns = 0;
    v->time_info_gva = 0;
}

void vcpu_op_destroy(struct vcpu *v)
{
    if (!v->singleshot.fn)
        return; /* never came as far as vcpu_op_init */
    WRITE_ONCE(v->periodic_ns, 0);
    timer_kill(&v->singleshot);
    timer_kill(&v->periodic);
    timer_kill(&v->poll_timer);
    set_runstate_area(v, 0, NULL);
}

/* Arm the end of v's SCHEDOP_poll at an absolute time in ns. */
void vcpu_arm_poll_timer(struct vcpu *v, uint64_t expires_ns)
{
    arm(v, &v->poll_timer, expires_ns);
}

static long set_singleshot(struct vcpu *v, uint64_t gva)
{
    struct {
        uint64_t timeout_abs_ns;
        uint32_t flags;
    } __packed op; /* what 32- and 64-bit callers have in common */

    if (v != current_vcpu())
        return -EINVAL;
    if (copy_from_guest(&op, gva, sizeof(op)))
        return -EFAULT;
    if ((op.flags & VCPU_SSHOTTMR_future) && op.timeout_abs_ns < now_ns())
        return -ETIME;
    arm(v, &v->singleshot, op.timeout_abs_ns);
    return 0;
}

static long set_periodic(struct vcpu *v, uint64_t gva)
{
    struct vcpu_set_periodic_timer op;

    if (copy_from_guest(&op, gva, sizeof(op)))
        return -EFAULT;
    if (op.period_ns < MIN_PERIOD_NS || op.period_ns > MAX_PERIOD_NS)
        return -EINVAL;
    WRITE_ONCE(v->periodic_ns, op.period_ns);
    arm(v, &v->periodic, now_ns() + op.period_ns);
    return 0;
}

/* HYPERVISOR_set_timer_op(absolute time in ns): the current vCPU's single-shot timer; 0 stops it.
 * A 32-bit caller passes it in two halves. */
long do_set_timer_op(struct vcpu *v, const uint64_t arg[6])
{
    uint64_t expires_ns = v->compat ? (uint32_t)arg[0] | arg[1] << 32 : arg[0];

    if (expires_ns)
        arm(v, &v->singleshot, expires_ns);
    else
        timer_stop(&v->singleshot);
    return 0;
}

/* ---- up and down ---------------------------------------------------------------------------- */

static long op_initialise(struct vcpu *v, uint64_t gva)
{
    struct vcpu_hvm_context ctx;
    int rc = -EEXIST;

    if (copy_from_guest(&ctx, gva, sizeof(ctx)))
        return -EFAULT;
    if (ctx.pad || (ctx.mode != VCPU_HVM_MODE_32B && ctx.mode != VCPU_HVM_MODE_64B))
        return -EINVAL;
    if (!(READ_ONCE(v->block) & VBLOCK_DOWN) || v == current_vcpu())
        return -EEXIST;
    vcpu_sleep_sync(v); /* it may be on its way out of a pCPU still */
    spin_lock(&v->domain->lock);
    if (!v->initialised && (READ_ONCE(v->block) & VBLOCK_DOWN)) {
        rc = vcpu_hvm_initialise(v, &ctx);
        v->initialised = !rc;
    }
    spin_unlock(&v->domain->lock);
    return rc;
}

static long op_up(struct vcpu *v)
{
    bool wake;

    if (!evtchn_has_vcpu_info(v))
        return -EINVAL;
    spin_lock(&v->domain->lock);
    wake = v->initialised;
    spin_unlock(&v->domain->lock);
    if (!wake)
        return -EINVAL;
    vcpu_unblock(v, VBLOCK_DOWN);
    return 0;
}

static long op_down(struct vcpu *v)
{
    struct domain *d = v->domain;

    vcpu_block(v, VBLOCK_DOWN);
    for (unsigned i = 0; i < d->max_vcpus; i++)
        if (d->vcpu[i] && !(READ_ONCE(d->vcpu[i]->block) & VBLOCK_DOWN))
            return 0;
    domain_shutdown(d, SHUTDOWN_poweroff); /* nobody is left to bring one up again */
    return 0;
}

/* ---- shared areas --------------------------------------------------------------------------- */

/* The address in a register_*_memory_area argument: a guest handle, as wide as the caller. */
static int read_area(struct vcpu *caller, uint64_t gva, uint64_t *area)
{
    *area = 0;
    return copy_from_guest(area, gva, caller->compat ? sizeof(uint32_t) : sizeof(uint64_t));
}

/* The page under [gva, gva + bytes) of the caller's address space, referenced; NULL when that is
 * not one page of RAM that may be written. */
static struct page_info *page_at(struct vcpu *caller, uint64_t gva, size_t bytes)
{
    struct gwalk_mode mode = {
        .cr0 = hvm_ops->get_cr(caller, 0),
        .cr3 = hvm_ops->get_cr(caller, 3),
        .cr4 = hvm_ops->get_cr(caller, 4),
        .efer = hvm_ops->get_efer(caller),
        .rflags = caller->regs.rflags,
    };
    struct page_info *pg;
    enum p2m_type t;
    uint32_t pfec;
    paddr_t gpa;

    if ((gva & ~PAGE_MASK) + bytes > PAGE_SIZE ||
        guest_walk(caller->domain, &mode, gva, GWALK_WRITE | GWALK_IMPLICIT, &gpa, &pfec))
        return NULL;
    pg = p2m_get_page(caller->domain, gpa >> PAGE_SHIFT, true, &t);
    if (pg && !p2m_is_ram(t)) {
        page_put(pg);
        pg = NULL;
    }
    return pg;
}

/* Make gva (0: nothing) v's runstate area; pg is its page, whose reference goes with it, or NULL.
 */
static void set_runstate_area(struct vcpu *v, uint64_t gva, struct page_info *pg)
{
    char *old;

    spin_lock(&v->area_lock);
    old = v->runstate_guest;
    v->runstate_guest = pg ? (char *)page_to_virt(pg) + (gva & ~PAGE_MASK) : NULL;
    v->runstate_gva = gva;
    spin_unlock(&v->area_lock);
    if (old)
        page_put(mfn_to_page(virt_to_mfn(old)));
}

/* The area is found once: it is written at every context switch, when the page tables that are
 * loaded may not even have it. */
static long register_runstate(struct vcpu *v, uint64_t gva)
{
    bool layout32 = v->domain->has_32bit_shinfo;
    struct vcpu *caller = current_vcpu();
    struct vcpu_runstate_info r;
    uint64_t area;

    if (read_area(caller, gva, &area))
        return -EFAULT;
    vcpu_runstate_get(v, &r);
    if (area && runstate_copy_out(area, &r, layout32))
        return -EFAULT;
    set_runstate_area(v, area, area ? page_at(caller, area, runstate_bytes(layout32)) : NULL);
    return 0;
}

static long register_time(struct vcpu *v, uint64_t gva)
{
    struct vcpu_time_info t;
    uint64_t area;

    if (read_area(current_vcpu(), gva, &area))
        return -EFAULT;
    if (area) {
        pvtime_read(v, &t);
        if (pvtime_copy_out(area, &t))
            return -EFAULT;
    }
    v->time_info_gva = area;
    return 0;
}

static long register_info(struct vcpu *v, uint64_t gva)
{
    struct vcpu_register_vcpu_info op;

    if (copy_from_guest(&op, gva, sizeof(op)))
        return -EFAULT;
    if (v != current_vcpu() && !(READ_ONCE(v->block) & VBLOCK_DOWN))
        return -EINVAL;
    return evtchn_map_vcpu_info(v, op.mfn, op.offset);
}

/* HYPERVISOR_vcpu_op(cmd, vCPU number, argument). The caller is current; no locks held. */
long do_vcpu_op(struct vcpu *caller, const uint64_t arg[6])
{
    struct domain *d = caller->domain;
    unsigned cmd = (unsigned)arg[0], id = (unsigned)arg[1];
    uint64_t gva = arg[2];
    struct vcpu_runstate_info r;
    struct vcpu *v;

    if (id >= d->max_vcpus || !d->vcpu[id])
        return -ENOENT;
    v = d->vcpu[id];
    switch (cmd) {
    case VCPUOP_initialise:
        return op_initialise(v, gva);
    case VCPUOP_up:
        return op_up(v);
    case VCPUOP_down:
        return op_down(v);
    case VCPUOP_is_up:
        return !(READ_ONCE(v->block) & VBLOCK_DOWN);
    case VCPUOP_get_runstate_info:
        vcpu_runstate_get(v, &r);
        return runstate_copy_out(gva, &r, caller->compat);
    case VCPUOP_register_runstate_memory_area:
        return register_runstate(v, gva);
    case VCPUOP_register_vcpu_info:
        return register_info(v, gva);
    case VCPUOP_register_vcpu_time_memory_area:
        return register_time(v, gva);
    case VCPUOP_set_periodic_timer:
        return set_periodic(v, gva);
    case VCPUOP_stop_periodic_timer:
        WRITE_ONCE(v->periodic_ns, 0);
        timer_stop(&v->periodic);
        return 0;
    case VCPUOP_set_singleshot_timer:
        return set_singleshot(v, gva);
    case VCPUOP_stop_singleshot_timer:
        timer_stop(&v->singleshot);
        return 0;
    case VCPUOP_send_nmi:
        vcpu_nmi(v);
        return 0;
    case VCPUOP_get_physid: /* for vCPUs pinned by dom0_vcpus_pin, which PVH guests never are told
                             */
        return -EINVAL;
    default:
        return hypercall_missing(caller, "vcpu_op", cmd, -ENOSYS);
    }
}
