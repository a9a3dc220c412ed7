/* platform_op.c: platform_op: what dom0's kernel asks of the machine: time of day, CPUs, sleep. */
#include "core/atomic.h"
#include "core/print.h"
#include "core/string.h"
#include "domain/compat.h"

/* dom0 says that it was <secs, nsecs> at system time `system_time`. */
static long settime64(struct vcpu *v, struct xen_platform_op *op)
{
    const struct xenpf_settime64 *t = &op->u.settime64;

    (void)v;
    if (t->mbz || t->nsecs >= NS_PER_SEC || t->secs > UINT64_MAX / NS_PER_SEC - 1 ||
        t->system_time > t->secs * NS_PER_SEC + t->nsecs)
        return -EINVAL;
    wallclock_set_boot_ns(t->secs * NS_PER_SEC + t->nsecs - t->system_time);
    for (struct domain *d = domain_next(0); d;) {
        domid_t next = (domid_t)(d->id + 1);
        pvtime_update_wallclock(d);
        domain_put(d);
        d = domain_next(next);
    }
    return 0;
}

static long get_cpuinfo(struct vcpu *v, struct xen_platform_op *op)
{
    struct xenpf_pcpuinfo *i = &op->u.pcpu_info;
    bool there = i->xen_cpuid < nr_cpus && cpus[i->xen_cpuid];

    (void)v;
    i->max_present = nr_cpus - 1;
    i->flags = there ? XEN_PCPU_FLAGS_ONLINE : XEN_PCPU_FLAGS_INVALID;
    i->apic_id = there ? cpus[i->xen_cpuid]->apic_id : 0;
    i->acpi_id = there ? i->xen_cpuid : 0;
    return 0;
}

static long get_cpu_version(struct vcpu *v, struct xen_platform_op *op)
{
    struct xenpf_pcpu_version *p = &op->u.pcpu_version;

    (void)v;
    if (p->xen_cpuid >= nr_cpus)
        return -ENODEV;
    memset(p->vendor_id, 0, sizeof(p->vendor_id));
    p->max_present = nr_cpus - 1;
    p->family = p->model = p->stepping = 0;
    return 0;
}

/* Idle times of the CPUs in a bitmap, which comes back without those that do not exist. */
static long getidletime(struct vcpu *v, struct xen_platform_op *op)
{
    struct xenpf_getidletime *g = &op->u.getidletime;
    uint64_t map = 0, asked = MIN(g->cpumap_nr_cpus, 64u), gva = (uint64_t)g->cpumap_bitmap.p;

    (void)v;
    if (asked && copy_from_guest(&map, gva, (asked + 7) / 8))
        return -EFAULT;
    for (unsigned i = 0; i < asked; i++) {
        uint64_t ns = i < nr_cpus && cpus[i] ? READ_ONCE(cpus[i]->idle_ns) : 0;
        if (!(map & BIT(i)))
            continue;
        if (i >= nr_cpus)
            map &= ~BIT(i);
        if (copy_to_guest((uint64_t)g->idletime.p + i * sizeof(ns), &ns, sizeof(ns)))
            return -EFAULT;
    }
    g->now = now_ns();
    return asked ? copy_to_guest(gva, &map, (asked + 7) / 8) : 0;
}

static long enter_sleep(struct vcpu *v, struct xen_platform_op *op)
{
    const struct xenpf_enter_acpi_sleep *s = &op->u.enter_acpi_sleep;

    (void)v;
    if (s->flags & ~XENPF_ACPI_SLEEP_EXTENDED)
        return -EINVAL;
    if (s->flags) /* hardware-reduced ACPI */
        return -EOPNOTSUPP;
    return machine_acpi_sleep(s->sleep_state, s->val_a, s->val_b);
}

/* The CPUs' idle and performance states, from dom0's ACPI interpreter: heard, not used. */
static long accepted(struct vcpu *v, struct xen_platform_op *op)
{
    (void)v;
    (void)op;
    return 0;
}

/* What the BIOS knew about disks and keyboard was not asked for at boot. */
static long firmware_info(struct vcpu *v, struct xen_platform_op *op)
{
    (void)v;
    if (op->u.firmware_info.type == XEN_FW_KBD_SHIFT_FLAGS) {
        op->u.firmware_info.u.kbd_shift_flags = 0;
        return 0;
    }
    return -ESRCH;
}

static long cpu_online(struct vcpu *v, struct xen_platform_op *op)
{
    (void)v;
    return op->u.cpu_ol.cpuid < nr_cpus ? 0 : -EINVAL; /* those there are, are */
}

static long core_parking(struct vcpu *v, struct xen_platform_op *op)
{
    (void)v;
    if (op->u.core_parking.type != XEN_CORE_PARKING_GET)
        return -EOPNOTSUPP;
    op->u.core_parking.idle_nums = 0;
    return 0;
}

static long not_there(struct vcpu *v, struct xen_platform_op *op)
{
    return hypercall_missing(v, "platform_op", op->cmd, -EOPNOTSUPP);
}

static const struct {
    long (*fn)(struct vcpu *v, struct xen_platform_op *op);
    bool copy_back;
} table[] = {
    [XENPF_settime64] = {settime64, false},
    [XENPF_add_memtype] = {not_there, false},
    [XENPF_microcode_update] = {not_there, false},
    [XENPF_efi_runtime_call] = {not_there, false},
    [XENPF_firmware_info] = {firmware_info, true},
    [XENPF_enter_acpi_sleep] = {enter_sleep, false},
    [XENPF_change_freq] = {not_there, false},
    [XENPF_getidletime] = {getidletime, true},
    [XENPF_set_processor_pminfo] = {accepted, false},
    [XENPF_get_cpu_version] = {get_cpu_version, true},
    [XENPF_get_cpuinfo] = {get_cpuinfo, true},
    [XENPF_cpu_online] = {cpu_online, false},
    [XENPF_cpu_offline] = {not_there, false},
    [XENPF_core_parking] = {core_parking, true},
    [XENPF_resource_op] = {not_there, false},
};

/* The platform_op hypercall: (pointer to its structure). dom0 is a 64-bit kernel: one layout. */
long do_platform_op(struct vcpu *v, const uint64_t arg[6])
{
    struct xen_platform_op op;
    long rc;

    if (!v->domain->is_dom0)
        return -EPERM;
    if (v->compat)
        return -EOPNOTSUPP;
    if (copy_from_guest(&op, arg[0], sizeof(op)))
        return -EFAULT;
    if (op.interface_version != XENPF_INTERFACE_VERSION)
        return -EACCES;
    if (op.cmd >= ARRAY_SIZE(table) || !table[op.cmd].fn)
        return hypercall_missing(v, "platform_op", op.cmd, -ENOSYS);
    rc = table[op.cmd].fn(v, &op);
    if (!rc && table[op.cmd].copy_back && copy_to_guest(arg[0], &op, sizeof(op)))
        return -EFAULT;
    return rc;
}
