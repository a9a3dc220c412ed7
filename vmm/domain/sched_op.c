/* sched_op.c: the SCHEDOP_* hypercalls: give up the CPU, wait for ports, shut down, watchdogs. */
#include "core/atomic.h"
#include "core/errno.h"
#include "domain/evtchn.h"
#include "platform/platform.h"

#define MAX_POLL_PORTS 128
#define NR_WATCHDOGS   2

struct watchdogs {
    struct timer timer[NR_WATCHDOGS]; /* watchdog id - 1 */
    bool used[NR_WATCHDOGS];          /* d->lock */
};

struct sched_poll32 {
    uint32_t ports, nr_ports;
    uint64_t timeout;
} __packed;

/* ---- waiting -------------------------------------------------------------------------------- */

/* Does v have something to do that blocking must not sleep through? */
static bool must_run(struct vcpu *v)
{
    enum intr_source src;

    return evtchn_upcall_pending(v) || READ_ONCE(v->nmi_pending) ||
           platform_pending_interrupt(v, &src) >= 0;
}

static long op_block(struct vcpu *v)
{
    if (evtchn_has_vcpu_info(v))
        WRITE_ONCE(v->info->evtchn_upcall_mask, 0);
    vcpu_block(v, VBLOCK_HALTED);
    smp_mb(); /* whoever makes something pending after this check sees v blocked */
    if (must_run(v))
        vcpu_unblock(v, VBLOCK_HALTED);
    return 0;
}

/* Wait until one of the ports is pending, the timeout (absolute ns, 0 for none), or an interrupt.
 */
static long op_poll(struct vcpu *v, uint64_t gva)
{
    struct evtchn_domain *ed = v->domain->evtchn;
    struct sched_poll op;
    struct sched_poll32 op32;
    evtchn_port_t ports[MAX_POLL_PORTS];
    uint64_t list;
    long rc = 0;

    if (v->compat) {
        if (copy_from_guest(&op32, gva, sizeof(op32)))
            return -EFAULT;
        list = op32.ports;
        op.nr_ports = op32.nr_ports;
        op.timeout = op32.timeout;
    } else {
        if (copy_from_guest(&op, gva, sizeof(op)))
            return -EFAULT;
        list = (uint64_t)op.ports.p;
    }
    if (op.nr_ports > MAX_POLL_PORTS)
        return -EINVAL;
    if (copy_from_guest(ports, list, op.nr_ports * sizeof(ports[0])))
        return -EFAULT;

    timer_stop(&v->poll_timer);
    WRITE_ONCE(v->poll_port, op.nr_ports == 1 ? ports[0] : EVTCHN_POLL_SEVERAL);
    vcpu_block(v, VBLOCK_POLL);
    set_bit(v->id, ed->polling); /* a full barrier: senders look after they set the port pending */
    for (unsigned i = 0; i < op.nr_ports && !rc; i++)
        rc = evtchn_port_pending(v->domain, ports[i]);
    if (rc || must_run(v)) {
        clear_bit(v->id, ed->polling);
        vcpu_unblock(v, VBLOCK_POLL);
        return MIN(rc, 0);
    }
    if (op.timeout)
        vcpu_arm_poll_timer(v, op.timeout);
    return 0;
}

/* ---- shutting down -------------------------------------------------------------------------- */

static long op_remote_shutdown(struct vcpu *v, uint64_t gva)
{
    struct sched_remote_shutdown op;
    struct domain *d;
    long rc;

    if (copy_from_guest(&op, gva, sizeof(op)))
        return -EFAULT;
    if (op.reason > SHUTDOWN_MAX)
        return -EINVAL;
    rc = domain_resolve(v, op.domain_id, &d);
    if (rc)
        return rc;
    domain_shutdown(d, (int)op.reason);
    domain_put(d);
    return 0;
}

static long op_shutdown(struct vcpu *v, uint64_t gva, bool now)
{
    struct sched_shutdown op;

    if (copy_from_guest(&op, gva, sizeof(op)))
        return -EFAULT;
    if (op.reason > SHUTDOWN_MAX)
        return -EINVAL;
    if (now) {
        domain_shutdown(v->domain, (int)op.reason);
    } else {
        spin_lock(&v->domain->lock);
        v->domain->shutdown_code = (int)op.reason;
        spin_unlock(&v->domain->lock);
    }
    return 0;
}

static void watchdog_expired(void *data)
{
    domain_shutdown(data, SHUTDOWN_watchdog);
}

/* d's watchdogs, allocated by the first caller; NULL without memory. */
static struct watchdogs *get_watchdogs(struct domain *d)
{
    struct watchdogs *w = atomic_load(&d->watchdogs);

    if (w)
        return w;
    w = kzalloc(sizeof(*w));
    if (!w)
        return NULL;
    for (unsigned i = 0; i < NR_WATCHDOGS; i++)
        timer_init(&w->timer[i], watchdog_expired, d, d->vcpu[0]->sched.cpu);
    if (!atomic_cas(&d->watchdogs, NULL, (void *)w))
        kfree(w);
    return atomic_load(&d->watchdogs);
}

static long op_watchdog(struct domain *d, uint64_t gva)
{
    struct sched_watchdog op;
    struct watchdogs *w;
    unsigned i;
    long rc = 0;

    if (copy_from_guest(&op, gva, sizeof(op)))
        return -EFAULT;
    if (op.id > NR_WATCHDOGS || (!op.id && !op.timeout))
        return -EINVAL;
    w = get_watchdogs(d);
    if (!w)
        return -ENOMEM;
    spin_lock(&d->lock);
    if (op.id) {
        i = op.id - 1;
        rc = w->used[i] ? 0 : -EINVAL;
    } else {
        for (i = 0; i < NR_WATCHDOGS && w->used[i]; i++)
            ;
        rc = i < NR_WATCHDOGS ? (long)i + 1 : -ENOSPC;
    }
    if (rc >= 0) {
        w->used[i] = op.timeout;
        if (op.timeout)
            timer_set(&w->timer[i], now_ns() + op.timeout * NS_PER_SEC);
        else
            timer_stop(&w->timer[i]);
    }
    spin_unlock(&d->lock);
    return rc;
}

void sched_op_domain_destroy(struct domain *d)
{
    struct watchdogs *w = d->watchdogs;

    if (!w)
        return;
    for (unsigned i = 0; i < NR_WATCHDOGS; i++)
        timer_kill(&w->timer[i]);
    d->watchdogs = NULL;
    kfree(w);
}

/* HYPERVISOR_sched_op(cmd, argument). v is current; no locks held. A vCPU that blocks here does so
 * before it next enters its guest, with the result already in place. */
long do_sched_op(struct vcpu *v, const uint64_t arg[6])
{
    unsigned cmd = (unsigned)arg[0];

    switch (cmd) {
    case SCHEDOP_yield:
        vcpu_yield(v);
        return 0;
    case SCHEDOP_block:
        return op_block(v);
    case SCHEDOP_poll:
        return op_poll(v, arg[1]);
    case SCHEDOP_shutdown:
    case SCHEDOP_shutdown_code:
        return op_shutdown(v, arg[1], cmd == SCHEDOP_shutdown);
    case SCHEDOP_remote_shutdown:
        return op_remote_shutdown(v, arg[1]);
    case SCHEDOP_watchdog:
        return op_watchdog(v->domain, arg[1]);
    case SCHEDOP_pin_override:
        return v->domain->is_dom0 ? hypercall_missing(v, "sched_op", cmd, -ENOSYS) : -EPERM;
    default:
        return hypercall_missing(v, "sched_op", cmd, -ENOSYS);
    }
}
