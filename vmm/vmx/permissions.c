/* permissions.c: which ports and MSRs a guest touches without an exit (SDM 3C, 24.6.4 and 24.6.9).
 */
#include "core/mm.h"
#include "core/print.h"
#include "core/string.h"
#include "core/x86.h"
#include "domain/dom0.h"
#include "vmx/vmcs.h"

static uint8_t *io_dom0; /* two pages; other domains have no bitmap: every port exits */
static uint8_t *msr_bitmap, *msr_bitmap_x2apic;

/* MSRs that the VMCS or the vCPU switch make the guest's own. */
static const uint32_t passed_msrs[] = {
    MSR_FS_BASE, MSR_GS_BASE,      MSR_KERNEL_GS_BASE, MSR_STAR,         MSR_LSTAR,
    MSR_CSTAR,   MSR_SYSCALL_MASK, MSR_SYSENTER_CS,    MSR_SYSENTER_ESP, MSR_SYSENTER_EIP,
};

/* x2APIC registers that the CPU serves from the virtual-APIC page (29.5): those that exist, but for
 * ICR, whose halves we keep apart, and the current count. */
static const struct {
    uint16_t first, last;
} x2apic_reads[] = {{0x802, 0x803}, {0x808, 0x808}, {0x80a, 0x80a}, {0x80d, 0x80d},
                    {0x80f, 0x828}, {0x832, 0x838}, {0x83e, 0x83e}},
  x2apic_writes[] = {{0x808, 0x808}, {0x80b, 0x80b}, {0x83f, 0x83f}};

/* Four maps of 1 KiB: read low, read high, write low, write high. */
enum { MSR_READS = 0, MSR_WRITES = 0x800 };

static void pass_msr(uint8_t *bitmap, uint32_t msr, unsigned way)
{
    unsigned base = way + (msr >= 0xc0000000 ? 0x400 : 0), bit = msr & 0x1fff;
    bitmap[base + bit / 8] &= (uint8_t) ~(1u << (bit % 8));
}

void vmx_permissions_init(void)
{
    io_dom0 = pages_alloc(1);
    msr_bitmap = page_alloc();
    msr_bitmap_x2apic = page_alloc();
    if (!io_dom0 || !msr_bitmap || !msr_bitmap_x2apic)
        panic("no memory for the permission maps");
    for (unsigned port = 0; port < 0x10000; port++) {
        if (dom0_port_traps((uint16_t)port))
            io_dom0[port / 8] |= (uint8_t)(1u << (port % 8));
    }
    memset(msr_bitmap, 0xff, PAGE_SIZE);
    for (unsigned i = 0; i < ARRAY_SIZE(passed_msrs); i++) {
        pass_msr(msr_bitmap, passed_msrs[i], MSR_READS);
        pass_msr(msr_bitmap, passed_msrs[i], MSR_WRITES);
    }
    memcpy(msr_bitmap_x2apic, msr_bitmap, PAGE_SIZE);
    for (unsigned i = 0; i < ARRAY_SIZE(x2apic_reads); i++)
        for (unsigned msr = x2apic_reads[i].first; msr <= x2apic_reads[i].last; msr++)
            pass_msr(msr_bitmap_x2apic, msr, MSR_READS);
    for (unsigned i = 0; i < ARRAY_SIZE(x2apic_writes); i++)
        for (unsigned msr = x2apic_writes[i].first; msr <= x2apic_writes[i].last; msr++)
            pass_msr(msr_bitmap_x2apic, msr, MSR_WRITES);
}

paddr_t vmx_io_bitmap(unsigned half)
{
    return virt_to_pa(io_dom0 + half * PAGE_SIZE);
}

paddr_t vmx_msr_bitmap(bool x2apic)
{
    return virt_to_pa(x2apic ? msr_bitmap_x2apic : msr_bitmap);
}
