/* version.c: what the hypervisor calls itself (xen_version) and what a guest switches on
 * (vm_assist).
 *
 * libxl reads these strings: capabilities decide which guest types it allows, the command line's
 * dom0_mem= switches its ballooning of dom0 off.
 */
#include "core/atomic.h"
#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "domain/compat.h"

#ifndef RINGFENCE_CHANGESET
#define RINGFENCE_CHANGESET "unknown"
#endif

static const char extra_version[] = ".0-ringfence";
static const char capabilities[] = "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ";

STATIC_ASSERT(sizeof(extra_version) <= XEN_EXTRAVERSION_LEN);

/* A string as a field of `bytes`, cut to fit, zero-filled, always terminated. */
static int put_string(uint64_t gva, const char *s, size_t bytes)
{
    char field[1024] = {0};

    ASSERT(bytes <= sizeof(field));
    memcpy(field, s, strnlen(s, bytes - 1));
    return copy_to_guest(gva, field, bytes);
}

static int put_compile_info(uint64_t gva)
{
    struct xen_compile_info info = {0};

    memcpy(info.compiler, "gcc " __VERSION__,
           MIN(sizeof("gcc " __VERSION__), sizeof(info.compiler) - 1));
    memcpy(info.compile_by, "ringfence", sizeof("ringfence"));
    memcpy(info.compile_domain, "local", sizeof("local"));
    return copy_to_guest(gva, &info, sizeof(info));
}

/* Features of submap 0. Not set on purpose: hvm_pirqs (interrupts reach HVM guests through their
 * emulated controllers only). */
static uint32_t features(const struct domain *d)
{
    uint32_t map = BIT(XENFEAT_memory_op_vnode_supported) | BIT(XENFEAT_writable_page_tables) |
                   BIT(XENFEAT_auto_translated_physmap) | BIT(XENFEAT_hvm_callback_vector) |
                   BIT(XENFEAT_hvm_safe_pvclock);

    if (d->is_dom0)
        return map | BIT(XENFEAT_dom0) | BIT(XENFEAT_direct_mapped);
    return map | BIT(XENFEAT_not_direct_mapped);
}

static int get_features(struct vcpu *v, uint64_t gva)
{
    struct xen_feature_info info;

    if (copy_from_guest(&info, gva, sizeof(info)))
        return -EFAULT;
    if (info.submap_idx >= XENFEAT_NR_SUBMAPS)
        return -EINVAL;
    info.submap = features(v->domain);
    return copy_to_guest(gva, &info, sizeof(info));
}

/* The xen_version hypercall: (command, pointer to its structure). */
long do_xen_version(struct vcpu *v, const uint64_t arg[6])
{
    uint64_t gva = guest_addr(v, arg[1]);
    uint32_t cmd = (uint32_t)arg[0];

    switch (cmd) {
    case XENVER_version:
        return XEN_VERSION_MAJOR << 16 | XEN_VERSION_MINOR;
    case XENVER_pagesize:
        return gva ? -EINVAL : (long)PAGE_SIZE;
    case XENVER_get_features:
        return get_features(v, gva);
    case XENVER_extraversion:
        return put_string(gva, extra_version, XEN_EXTRAVERSION_LEN);
    case XENVER_capabilities:
        return put_string(gva, capabilities, XEN_CAPABILITIES_INFO_LEN);
    case XENVER_changeset:
        return put_string(gva, RINGFENCE_CHANGESET, XEN_CHANGESET_INFO_LEN);
    case XENVER_compile_info:
        return put_compile_info(gva);
    case XENVER_platform_parameters: /* where a PV guest's space would end: nothing is reserved */
        return write_guest_word(v, gva, 0, 0);
    case XENVER_guest_handle:
        return copy_to_guest(gva, v->domain->handle, sizeof(v->domain->handle));
    case XENVER_commandline:
        return put_string(gva, v->domain->privileged ? boot_cmdline : "",
                          sizeof(xen_commandline_t));
    case XENVER_build_id:
        return -ENODATA;
    default:
        return hypercall_missing(v, "xen_version", cmd, -ENOSYS);
    }
}

/* The vm_assist hypercall: (enable or disable, which). HVM guests have one assist. */
long do_vm_assist(struct vcpu *v, const uint64_t arg[6])
{
    uint32_t cmd = (uint32_t)arg[0], type = (uint32_t)arg[1];

    if (type != VMASST_TYPE_runstate_update_flag)
        return -EINVAL;
    switch (cmd) {
    case VMASST_CMD_enable:
        atomic_or(&v->domain->vm_assist, (uint32_t)BIT(type));
        return 0;
    case VMASST_CMD_disable:
        atomic_and(&v->domain->vm_assist, (uint32_t)~BIT(type));
        return 0;
    default:
        return hypercall_missing(v, "vm_assist", cmd, -ENOSYS);
    }
}
