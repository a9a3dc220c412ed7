/* permissions.c: which ports and MSRs a guest touches without an exit (APM 2, 15.10 and 15.11). */
#include "core/mm.h"
#include "core/print.h"
#include "core/string.h"
#include "core/x86.h"
#include "domain/dom0.h"
#include "svm/vmcb.h"

static uint8_t *iopm_guest; /* every port exits */
static uint8_t *iopm_dom0;  /* every port passes but dom0_port_traps() */
static uint8_t *msrpm;

/* MSRs that VMRUN, VMLOAD or the vCPU switch make the guest's own. */
static const uint32_t passed_msrs[] = {
    MSR_FS_BASE, MSR_GS_BASE,      MSR_KERNEL_GS_BASE, MSR_STAR,         MSR_LSTAR,
    MSR_CSTAR,   MSR_SYSCALL_MASK, MSR_SYSENTER_CS,    MSR_SYSENTER_ESP, MSR_SYSENTER_EIP,
};

static void pass_msr(uint32_t msr)
{
    unsigned base = msr >= 0xc0010000 ? 0x1000 : msr >= 0xc0000000 ? 0x800 : 0;
    unsigned bit = (msr & 0x1fff) * 2;
    msrpm[base + bit / 8] &= (uint8_t) ~(3u << (bit % 8));
}

void svm_permissions_init(void)
{
    iopm_guest = pages_alloc(2);
    iopm_dom0 = pages_alloc(2);
    msrpm = pages_alloc(1);
    if (!iopm_guest || !iopm_dom0 || !msrpm)
        panic("no memory for the permission maps");
    memset(iopm_guest, 0xff, 3 * PAGE_SIZE);
    memset(iopm_dom0 + 2 * PAGE_SIZE, 0xff, PAGE_SIZE);
    for (unsigned port = 0; port < 0x10000; port++) {
        if (dom0_port_traps((uint16_t)port))
            iopm_dom0[port / 8] |= (uint8_t)(1u << (port % 8));
    }
    memset(msrpm, 0xff, 2 * PAGE_SIZE);
    for (unsigned i = 0; i < ARRAY_SIZE(passed_msrs); i++)
        pass_msr(passed_msrs[i]);
}

paddr_t svm_iopm(const struct domain *d)
{
    return virt_to_pa(d->is_dom0 ? iopm_dom0 : iopm_guest);
}

paddr_t svm_msrpm(void)
{
    return virt_to_pa(msrpm);
}
