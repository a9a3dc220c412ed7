/* callback.c: how a guest is told that its vcpu_info says "events pending".
 *
 * Three ways, by age: an interrupt line (GSI or PCI INTx of vCPU 0, held high while the upcall is
 * pending), one vector for all vCPUs that needs no LAPIC (the entry code looks at vcpu_info), and a
 * vector per vCPU sent through its vLAPIC.
 */
#include "core/errno.h"
#include "domain/evtchn.h"
#include "platform/platform.h"

/* Highest GSI that platform_gsi takes. */
#define MAX_GSI 47

static bool callback_is_line(const struct domain *d)
{
    return (d->callback_via_type == HVM_PARAM_CALLBACK_TYPE_GSI && d->callback_via_data) ||
           d->callback_via_type == HVM_PARAM_CALLBACK_TYPE_PCI_INTX;
}

/* Holds callback_lock. */
static void set_line(struct domain *d, bool level)
{
    if (d->callback_via_asserted == level)
        return;
    d->callback_via_asserted = level;
    if (d->callback_via_type == HVM_PARAM_CALLBACK_TYPE_GSI)
        platform_gsi(d, d->callback_via_data, level);
    else
        platform_pci_intx(d, d->callback_via_data >> 2, d->callback_via_data & 3, level);
}

/* Make the line's level that of vCPU 0's upcall. Any context without callback_lock. Cheap to leave
 * out where d->callback_via_asserted is false and nothing was set pending. */
void hvm_callback_update(struct vcpu *v)
{
    struct domain *d = v->domain;

    if (v->id || !callback_is_line(d))
        return;
    spin_lock(&d->evtchn->callback_lock);
    if (callback_is_line(d))
        set_line(d, !v->upcall_vector && evtchn_upcall_pending(v));
    spin_unlock(&d->evtchn->callback_lock);
}

/* Deliver v's upcall, which is pending. Any context; takes callback_lock and the platform's. */
void evtchn_notify_vcpu(struct vcpu *v)
{
    if (v->upcall_vector)
        vlapic_set_irq(v, v->upcall_vector, false);
    else if (v->domain->callback_via_type == HVM_PARAM_CALLBACK_TYPE_VECTOR)
        vcpu_kick(v, VWORK_EVENT);
    else
        hvm_callback_update(v);
}

/* HVM_PARAM_CALLBACK_IRQ written: `via` in that parameter's format. -EINVAL: no such callback, and
 * nothing changed. What is pending already is delivered the new way. Caller holds no lock. */
int hvm_set_callback_via(struct domain *d, uint64_t via)
{
    uint64_t type = via >> 56;
    uint32_t data;

    switch (type) {
    case HVM_PARAM_CALLBACK_TYPE_GSI:
        data = (uint32_t)via;
        if ((via & ~HVM_PARAM_CALLBACK_IRQ_TYPE_MASK) > MAX_GSI)
            return -EINVAL;
        break;
    case HVM_PARAM_CALLBACK_TYPE_PCI_INTX: /* devfn in bits 15:8: the device is its bits 7:3 */
        data = ((uint32_t)via >> 11 & 31) << 2 | ((uint32_t)via & 3);
        break;
    case HVM_PARAM_CALLBACK_TYPE_VECTOR:
        data = (uint8_t)via;
        if (data < 16)
            return -EINVAL;
        break;
    default:
        return -EINVAL;
    }

    spin_lock(&d->evtchn->callback_lock);
    if (callback_is_line(d))
        set_line(d, false);
    d->callback_via_type = (uint8_t)type;
    d->callback_via_data = data;
    spin_unlock(&d->evtchn->callback_lock);

    for (unsigned i = 0; i < d->max_vcpus; i++)
        if (d->vcpu[i] && evtchn_upcall_pending(d->vcpu[i]))
            evtchn_notify_vcpu(d->vcpu[i]);
    return 0;
}
