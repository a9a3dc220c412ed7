/* apic.c: the guest's LAPIC in the CPU's hands where it offers that: virtual-interrupt delivery,
 * APIC-register virtualisation, and access to the registers by memory or MSR (SDM 3C, 29).
 *
 * All of it or nothing. The LAPIC's own page (platform/vlapic_cpu.c) is the virtual-APIC page.
 */
#include "boot/cmdline.h"
#include "core/errno.h"
#include "core/machine.h"
#include "core/print.h"
#include "core/trap.h"
#include "domain/hvm.h"
#include "platform/platform.h"
#include "vmx/vmcs.h"

#define APIC_GFN     (0xfee00000ULL >> PAGE_SHIFT)
#define ALL_OF_IT    (PROC2_APIC_REGISTERS | PROC2_INTERRUPT_DELIVERY)
#define ACCESS_MODES (PROC2_APIC_ACCESSES | PROC2_X2APIC)

/* Maps at APIC_GFN where every vCPU's LAPIC is: what marks an access to it. Never read or written
 * by one whose LAPIC is there. */
static void *access_page;

/* CPUs got virtual-interrupt delivery and posted interrupts together; where only the first is
 * there, it is an emulation of the CPU, and used on demand only (docs/design.md, quirks). */
static bool wanted(void)
{
    bool whole = vmx_caps.allowed[CONTROL_PIN].may & PIN_POSTED_INTERRUPTS;

    return boot_options.apicv == APICV_ON || (boot_options.apicv == APICV_AUTO && whole);
}

/* Boot: vmx_caps.proc2 has what of all this the CPU allows, and keeps what is used. */
void vmx_apic_setup(void)
{
    uint32_t all = ALL_OF_IT | PROC2_APIC_ACCESSES;

    if (wanted() && vmx_caps.proc & PROC_TPR_SHADOW && (vmx_caps.proc2 & all) == all)
        access_page = page_alloc();
    if (!access_page)
        vmx_caps.proc2 &= ~(uint32_t)(ALL_OF_IT | ACCESS_MODES);
    if (!access_page || !(vmx_caps.exit & EXIT_ACK_INTERRUPT)) /* 26.2.1.1 */
        vmx_caps.pin &= ~(uint32_t)PIN_POSTED_INTERRUPTS;
    log_info("VT-x: guests' interrupts are delivered by %s%s",
             access_page ? "the CPU" : "VM entries", vmx_apic_posts() ? ", and posted" : "");
}

int vmx_apic_vcpu_init(struct vcpu *v)
{
    enum p2m_type t;

    if (!vmx_apic_delivers())
        return 0;
    p2m_get(v->domain, APIC_GFN, &t, NULL);
    int err = t == P2M_HOLE ? p2m_set(v->domain, APIC_GFN, virt_to_mfn(access_page), ORDER_4K,
                                      P2M_MMIO_DIRECT)
                            : 0;
    return err ? err : vlapic_by_cpu(v, vmx_apic_posts());
}

/* The fields of v's VMCS, which is current. */
void vmx_apic_init_controls(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_vcpu(v);

    s->proc2 &= ~(uint32_t)ACCESS_MODES;
    if (s->proc & PROC_TPR_SHADOW) {
        vmwrite(VMCS_VIRTUAL_APIC_PAGE, vlapic_registers(v));
        vmwrite(VMCS_TPR_THRESHOLD, 0);
    }
    if (!vmx_apic_delivers())
        return;
    vmwrite(VMCS_APIC_ACCESS, virt_to_pa(access_page));
    vmwrite(VMCS_GUEST_INTR_STATUS, 0);
    if (vmx_apic_posts()) {
        vmwrite(VMCS_POSTED_VECTOR, VECTOR_POSTED);
        vmwrite(VMCS_POSTED_DESCRIPTOR, vlapic_descriptor(v));
    }
    for (unsigned i = 0; i < ARRAY_SIZE(s->eoi_exit); i++)
        vmwrite(VMCS_EOI_EXIT0 + 2 * i, s->eoi_exit[i]);
}

/* By which way the CPU serves accesses to v's LAPIC: memory, MSRs, or not at all. */
static uint32_t access_mode(const struct vcpu *v)
{
    if (vlapic_page(v) >> PAGE_SHIFT == APIC_GFN)
        return PROC2_APIC_ACCESSES;
    bool x2apic = vlapic_base_msr(v) & BIT(10);

    return x2apic ? vmx_caps.proc2 & PROC2_X2APIC : 0;
}

/* A vCPU whose LAPIC is not there must find nothing there, so it is nobody's place any more: the
 * accesses of others are emulated. */
static void unmap_access_page(struct domain *d)
{
    if (p2m_get(d, APIC_GFN, NULL, NULL) == virt_to_mfn(access_page))
        p2m_set(d, APIC_GFN, INVALID_MFN, ORDER_4K, P2M_HOLE);
}

static void change_access_mode(struct vcpu *v, uint32_t mode)
{
    struct vmx_vcpu *s = vmx_vcpu(v);

    if (mode != PROC2_APIC_ACCESSES)
        unmap_access_page(v->domain);
    s->proc2 = (s->proc2 & ~(uint32_t)ACCESS_MODES) | mode;
    vmwrite(VMCS_PROC2_CONTROLS, s->proc2);
    vmwrite(VMCS_MSR_BITMAP, vmx_msr_bitmap(mode == PROC2_X2APIC));
    s->flush_ept = true; /* cached translations may know the access page or not (28.3.3.4) */
    vmx_new_tag(v);
}

/* v, loaded, enters next: tell the CPU what waits, what is in service, and whose end we must hear
 * of. */
void vmx_apic_enter(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    struct vlapic_entry e;
    uint32_t mode = access_mode(v);

    if (unlikely((s->proc2 & ACCESS_MODES) != mode))
        change_access_mode(v, mode);
    vlapic_entry(v, &e);
    vmwrite(VMCS_GUEST_INTR_STATUS, e.requested | (uint64_t)e.in_service << 8);
    for (unsigned i = 0; i < ARRAY_SIZE(e.told); i++) {
        if (e.told[i] != s->eoi_exit[i]) {
            s->eoi_exit[i] = e.told[i];
            vmwrite(VMCS_EOI_EXIT0 + 2 * i, e.told[i]);
        }
    }
}

/* What the CPU does not serve (29.4): the access did not happen, and the instruction runs again in
 * the emulator. Table 27-6. */
void vmx_on_apic_access(struct vcpu *v)
{
    uint64_t q = vmread(VMCS_EXIT_QUALIFICATION);
    paddr_t gpa = (APIC_GFN << PAGE_SHIFT) | (q & 0xfff);
    unsigned type = q >> 12 & 15;

    if (type > 1) { /* not an instruction's read or write of data */
        domain_crash(v->domain, "d%uv%u: access of type %u to the LAPIC's page is impossible",
                     v->domain->id, v->id, type);
        return;
    }
    if (!handle_lapic_mov(v, gpa, type, NULL, 0))
        handle_mmio(v, gpa, 0, false, type, NULL, 0);
}

/* Trap-like: the register has its new value, and RIP is behind the instruction (29.4.3.3). */
void vmx_on_apic_write(struct vcpu *v)
{
    vlapic_written(v, vmread(VMCS_EXIT_QUALIFICATION) & 0xfff);
}

/* Trap-like: the EOI of a vector in the EOI-exit bitmap is done (29.1.4). */
void vmx_on_virtualized_eoi(struct vcpu *v)
{
    vlapic_ended(v, (uint8_t)vmread(VMCS_EXIT_QUALIFICATION));
}
