/* physdev_op.c: physical devices, told about by dom0.
 *
 * dom0 is PVH: it drives interrupts through its own IOAPIC and MSIs, so there are no PIRQs here; of
 * this hypercall it uses the announcements of PCI devices. Nothing is for other domains.
 */
#include "core/errno.h"
#include "domain/compat.h"
#include "domain/domain.h"

#define MAX_PIRQ 1024

/* Announcements: what they say must be readable; the machine's devices are known already. */
static long accept(uint64_t gva, size_t bytes)
{
    uint8_t a[32];

    return bytes > sizeof(a) || copy_from_guest(a, gva, bytes) ? -EFAULT : 0;
}

/* No interrupt waits for an EOI from here: they end at the LAPIC. */
static long irq_status(uint64_t gva)
{
    struct physdev_irq_status_query a;

    if (copy_from_guest(&a, gva, sizeof(a)))
        return -EFAULT;
    if (a.irq >= MAX_PIRQ)
        return -EINVAL;
    a.flags = 0;
    return copy_to_guest(gva, &a, sizeof(a)) ? -EFAULT : 0;
}

static long eoi(uint64_t gva)
{
    struct physdev_eoi a;

    if (copy_from_guest(&a, gva, sizeof(a)))
        return -EFAULT;
    return a.irq < MAX_PIRQ ? 0 : -EINVAL;
}

static long dbgp(uint64_t gva)
{
    struct physdev_dbgp_op a;

    if (copy_from_guest(&a, gva, sizeof(a)))
        return -EFAULT;
    return a.op == PHYSDEVOP_DBGP_RESET_PREPARE || a.op == PHYSDEVOP_DBGP_RESET_DONE ? 0 : -EINVAL;
}

/* physdev_op(operation, structure). */
long do_physdev_op(struct vcpu *v, const uint64_t arg[6])
{
    uint32_t op = (uint32_t)arg[0];
    uint64_t gva = guest_addr(v, arg[1]);

    if (!v->domain->is_dom0) /* no PIRQs are offered (XENFEAT_hvm_pirqs) */
        return hypercall_missing(v, "physdev_op of a guest", op, -ENOSYS);
    switch (op) {
    case PHYSDEVOP_eoi:
        return eoi(gva);
    case PHYSDEVOP_irq_status_query:
        return irq_status(gva);
    case PHYSDEVOP_setup_gsi:
        return accept(gva, sizeof(struct physdev_setup_gsi));
    case PHYSDEVOP_pci_device_add:
        return accept(gva, offsetof(struct physdev_pci_device_add, optarr));
    case PHYSDEVOP_pci_device_remove:
    case PHYSDEVOP_prepare_msix:
    case PHYSDEVOP_release_msix:
    case PHYSDEVOP_restore_msi_ext:
        return accept(gva, sizeof(struct physdev_pci_device));
    case PHYSDEVOP_manage_pci_add:
    case PHYSDEVOP_manage_pci_remove:
    case PHYSDEVOP_restore_msi:
        return accept(gva, sizeof(struct physdev_manage_pci));
    case PHYSDEVOP_manage_pci_add_ext:
        return accept(gva, sizeof(struct physdev_manage_pci_ext));
    case PHYSDEVOP_pci_mmcfg_reserved:
        return accept(gva, sizeof(struct physdev_pci_mmcfg_reserved));
    case PHYSDEVOP_dbgp_op:
        return dbgp(gva);
    default: /* map_pirq, unmap_pirq, get_free_pirq, pirq_eoi_gmfn, and PV's own */
        return hypercall_missing(v, "physdev_op", op, -ENOSYS);
    }
}
