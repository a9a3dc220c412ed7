/* permissions.c: which ports and MSRs a guest touches without an exit (SDM 3C, 24.6.4 and 24.6.9).
 */
#include "core/mm.h"
#include "core/print.h"
#include "core/string.h"
#include "core/x86.h"
#include "domain/dom0.h"
#include "vmx/vmcs.h"

static uint8_t *io_dom0; /* two pages; other domains have no bitmap: every port exits */
static uint8_t *msr_bitmap;

/* MSRs that the VMCS or the vCPU switch make the guest's own. */
static const uint32_t passed_msrs[] = {
    MSR_FS_BASE, MSR_GS_BASE,      MSR_KERNEL_GS_BASE, MSR_STAR,         MSR_LSTAR,
    MSR_CSTAR,   MSR_SYSCALL_MASK, MSR_SYSENTER_CS,    MSR_SYSENTER_ESP, MSR_SYSENTER_EIP,
};

/* Four maps of 1 KiB: read low, read high, write low, write high. */
static void pass_msr(uint32_t msr)
{
    unsigned base = msr >= 0xc0000000 ? 0x400 : 0, bit = msr & 0x1fff;
    msr_bitmap[base + bit / 8] &= (uint8_t) ~(1u << (bit % 8));
    msr_bitmap[base + 0x800 + bit / 8] &= (uint8_t) ~(1u << (bit % 8));
}

void vmx_permissions_init(void)
{
    io_dom0 = pages_alloc(1);
    msr_bitmap = page_alloc();
    if (!io_dom0 || !msr_bitmap)
        panic("no memory for the permission maps");
    for (unsigned port = 0; port < 0x10000; port++) {
        if (dom0_port_traps((uint16_t)port))
            io_dom0[port / 8] |= (uint8_t)(1u << (port % 8));
    }
    memset(msr_bitmap, 0xff, PAGE_SIZE);
    for (unsigned i = 0; i < ARRAY_SIZE(passed_msrs); i++)
        pass_msr(passed_msrs[i]);
}

paddr_t vmx_io_bitmap(unsigned half)
{
    return virt_to_pa(io_dom0 + half * PAGE_SIZE);
}

paddr_t vmx_msr_bitmap(void)
{
    return virt_to_pa(msr_bitmap);
}
