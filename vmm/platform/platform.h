/* platform.h: the PC that a guest sees inside the hypervisor: the front door of vmm/platform.
 *
 * Devices: vLAPIC (per vCPU), vIOAPIC, vPIC pair, vPIT, vRTC, vHPET, PM timer (per domain). Each
 * is a file with the same verbs: _init, _reset, _destroy, its handlers, _save and _load (records of
 * <xen/hvm/save.h>). Which ones a domain has: d->emulation_flags (XEN_X86_EMU_*); dom0 (PVH) has
 * LAPIC and an IOAPIC bound to the real one.
 */
#pragma once

#include "domain/domain.h"

int platform_domain_init(struct domain *d);
void platform_domain_destroy(struct domain *d); /* stops all timers; idempotent */
void platform_domain_free(struct domain *d);
int platform_vcpu_init(struct vcpu *v);
void platform_vcpu_destroy(struct vcpu *v);
void platform_vcpu_free(struct vcpu *v);

/* Port I/O served here: true when a device took it. bytes is 1, 2 or 4. Called by v == current. */
bool platform_pio(struct vcpu *v, uint16_t port, unsigned bytes, bool write, uint32_t *val);
/* MMIO served here (LAPIC, IOAPIC, HPET pages): true when taken. */
bool platform_mmio(struct vcpu *v, paddr_t gpa, unsigned bytes, bool write, uint64_t *val);
bool platform_mmio_claims(struct vcpu *v, paddr_t gpa);

/* Interrupt lines. isa irq 0..15 (edge/level by ELCR; also the GSI it maps to), gsi 0..47, PCI
 * INTx of device 0..31 pin 0..3 through the PIIX links set by the guest. Any context. */
void platform_isa_irq(struct domain *d, unsigned irq, bool level);
void platform_pci_intx(struct domain *d, unsigned dev, unsigned pin, bool level);
int platform_pci_link_route(struct domain *d, unsigned link, unsigned isa_irq);
void platform_gsi(struct domain *d, unsigned gsi, bool level);
/* NMI from the board through LINT1 of every vCPU that has it there (xl trigger nmi). */
void platform_nmi(struct domain *d);
/* ACPI buttons (xl trigger power, sleep): the PM1 status bit and the SCI. Any context. */
void vpmtmr_power_button(struct domain *d);
void vpmtmr_sleep_button(struct domain *d);
/* The domain woke from a sleep state: WAK_STS. Any context. */
void vpmtmr_woke(struct domain *d);
/* All devices and LAPICs as at power-on (S3, soft reset); d is paused. */
void platform_reset(struct domain *d);
/* Deliver an MSI: address and data as the device would write them (SDM 3A, 11.11). -EINVAL. */
int platform_msi(struct domain *d, uint64_t addr, uint32_t data);

/* The interrupt to deliver next on v, or -1. Sources in order: event callback vector (no LAPIC),
 * PIC through LINT0/ExtINT, LAPIC above PPR. Does not change state. */
enum intr_source { INTR_CALLBACK, INTR_PIC, INTR_LAPIC };
int platform_pending_interrupt(struct vcpu *v, enum intr_source *src);
/* The CPU took (or will certainly take) it: IRR to ISR. Returns the vector (PIC may differ). */
int platform_accept_interrupt(struct vcpu *v, enum intr_source src, int vector);

/* Save and load of HVM contexts (XEN_DOMCTL_gethvmcontext, _sethvmcontext, _partial): a stream of
 * hvm_save_descriptor records. Returns bytes used, or negative errno. buf NULL: size needed. */
long hvm_context_save(struct domain *d, void *buf, size_t bytes);
long hvm_context_load(struct domain *d, const void *buf, size_t bytes);
long hvm_context_save_one(struct domain *d, unsigned typecode, unsigned instance, void *buf,
                          size_t bytes);

/* Vendor-neutral state that records carry. save.c has weak versions that return -ENOENT, which
 * leaves the record out. *_load: -EINVAL for values the guest could not have. d is paused.
 * The long ones return the bytes they put in buf, or the most they may need when buf is NULL. */
int hvm_cpu_save(struct vcpu *v, struct hvm_hw_cpu *out);
int hvm_cpu_load(struct vcpu *v, const struct hvm_hw_cpu *in);
int hvm_mtrr_save(struct vcpu *v, struct hvm_hw_mtrr *out);
int hvm_mtrr_load(struct vcpu *v, const struct hvm_hw_mtrr *in);
int hvm_tsc_adjust_save(struct vcpu *v, struct hvm_tsc_adjust *out);
int hvm_tsc_adjust_load(struct vcpu *v, const struct hvm_tsc_adjust *in);
long hvm_xsave_save(struct vcpu *v, void *buf, size_t bytes); /* struct hvm_hw_cpu_xsave */
int hvm_xsave_load(struct vcpu *v, const void *buf, size_t bytes);
long hvm_msr_save(struct vcpu *v, void *buf, size_t bytes); /* struct hvm_msr */
int hvm_msr_load(struct vcpu *v, const void *buf, size_t bytes);

/* ---- vLAPIC: platform/vlapic.c ----------------------------------------------------------------
 */
/* Set vector pending (edge when !level) and kick v. Any context. */
void vlapic_set_irq(struct vcpu *v, uint8_t vector, bool level);
paddr_t vlapic_page(const struct vcpu *v);      /* of its registers; ~0 when they are nowhere */
uint32_t vlapic_id(const struct vcpu *v);       /* xAPIC or x2APIC id; 2 * vcpu id at reset */
uint64_t vlapic_base_msr(const struct vcpu *v); /* IA32_APIC_BASE */
int vlapic_set_base_msr(struct vcpu *v, uint64_t val);
int vlapic_x2apic_read(struct vcpu *v, uint32_t msr, uint64_t *val); /* -EINVAL: #GP */
int vlapic_x2apic_write(struct vcpu *v, uint32_t msr, uint64_t val);
uint64_t vlapic_tsc_deadline(struct vcpu *v);
void vlapic_set_tsc_deadline(struct vcpu *v, uint64_t tsc);
uint8_t vlapic_get_tpr(const struct vcpu *v); /* 8 bits; CR8 is bits 7:4 */
void vlapic_set_tpr(struct vcpu *v, uint8_t tpr);
void vlapic_eoi(struct vcpu *v);
/* Register file access by byte offset (32-bit registers), for MMIO fast paths. */
uint32_t vlapic_read(struct vcpu *v, unsigned offset);
void vlapic_write(struct vcpu *v, unsigned offset, uint32_t val);
/* Power-on state; and the state after INIT, which keeps the ID and IA32_APIC_BASE (SDM 3A,
 * 10.4.7.3). v does not run. */
void vlapic_reset(struct vcpu *v);
void vlapic_init_reset(struct vcpu *v);
/* For a CPU that works on the LAPIC's page itself: platform/vlapic_cpu.c. All by the owner. */
/* From now on it does, before v ever ran; posted: and takes interrupts while the guest runs.
 * -ENOMEM. */
int vlapic_by_cpu(struct vcpu *v, bool posted);
paddr_t vlapic_descriptor(const struct vcpu *v); /* of posted interrupts, 64 bytes */
/* Has an interrupt been posted for v that nobody has taken yet? Any context. */
bool vlapic_news(const struct vcpu *v);
paddr_t vlapic_registers(const struct vcpu *v); /* the page */
struct vlapic_entry {
    uint8_t requested, in_service; /* highest vectors of IRR and ISR; 0: none */
    uint64_t told[4];              /* the vectors whose EOI must be told to vlapic_ended */
};
/* v enters its guest next: what came since the last time is in IRR. */
void vlapic_entry(struct vcpu *v, struct vlapic_entry *out);
/* The guest's write has changed the register at offset in the page: do what follows from that. */
void vlapic_written(struct vcpu *v, unsigned offset);
void vlapic_ended(struct vcpu *v, uint8_t vector);
/* Given by domain/vcpu_boot.c: INIT, SIPI and NMI arriving at v from an IPI. */
void vcpu_init_signal(struct vcpu *v);
/* Registers as after a reset, at the BIOS's copy of the reset vector below 1 MiB (guests have no
 * ROM at 4 GiB). The domain is paused, its LAPICs are reset. */
void vcpu_firmware_start(struct vcpu *v);
void vcpu_sipi(struct vcpu *v, uint8_t vector);
void vcpu_nmi(struct vcpu *v);

/* ---- dom0's IOAPIC binding: given by core/irq.c, called by vioapic for dom0 --------------------
 */
/* dom0 wrote redirection entry `rte` of physical pin gsi (unmasked or masked now). */
void dom0_gsi_rte(unsigned gsi, uint64_t rte);
/* dom0's LAPIC got an EOI for a level-triggered gsi: unmask / EOI the physical pin. */
void dom0_gsi_eoi(unsigned gsi);
/* Boot: dom0 has an IOAPIC like the real one at base with pins [gsi_base, gsi_base + pins).
 * -EINVAL: too many, -ENOMEM. */
int vioapic_dom0_add(struct domain *d, paddr_t base, unsigned gsi_base, unsigned pins, uint8_t id);
/* The physical interrupt of gsi arrived: deliver it as dom0's redirection entry says. A level is
 * ended by dom0_gsi_eoi, at once when dom0 masked it. The caller holds no lock that dom0_gsi_eoi
 * takes. */
void vioapic_dom0_assert(struct domain *d, unsigned gsi);

/* ---- ioreq servers: platform/ioreq.c ------------------------------------------------------------
 */
int ioreq_domain_init(struct domain *d);
/* destroy: no more servers, waiting vCPUs are let go; d's vCPUs are stopped. free: the memory. */
void ioreq_domain_destroy(struct domain *d);
void ioreq_domain_free(struct domain *d);
int ioreq_vcpu_init(struct vcpu *v);
void ioreq_vcpu_destroy(struct vcpu *v);
enum ioreq_result {
    IOREQ_DONE,     /* answered (or posted); *p holds the response data */
    IOREQ_PENDING,  /* sent: v is blocked (VBLOCK_IOREQ) until the answer; come again then */
    IOREQ_NO_SERVER /* nobody claims it: reads give all ones, writes vanish */
};
/* Send a PIO, MMIO or PCI-config ioreq for v (== current) to the server that claims it. buffered:
 * allow posting. After IOREQ_PENDING and the vCPU's wake-up the caller asks ioreq_take_response. */
enum ioreq_result ioreq_send(struct vcpu *v, ioreq_t *p, bool buffered);
/* The answer to v's outstanding synchronous request, once; false while there is none. Of a server
 * that went away: all ones. */
bool ioreq_take_response(struct vcpu *v, uint64_t *data);
bool ioreq_outstanding(struct vcpu *v);
/* The emulator closed its end of v's event channel. When the tools have not paused the domain, the
 * emulator died under a running guest, which cannot go on: it is shut down as crashed. No locks. */
void ioreq_emulator_closed(struct vcpu *v);
/* To all servers of d (timeoffset, invalidate); no answer awaited. */
void ioreq_broadcast(struct domain *d, ioreq_t *p);
/* d's map of its RAM changed: device models shall drop their mappings of it before they serve d's
 * next request. Posted; any context without ioreq or event channel locks. */
void ioreq_invalidate(struct domain *d);
/* XENMEM_acquire_resource of type ioreq_server: mfn of frame idx (0 buffered, 1 synchronous). */
int ioreq_server_frame(struct domain *d, unsigned server, unsigned idx, mfn_t *mfn);
/* HVM_PARAM_DM_DOMAIN etc. need nothing here. CF8 latch: */
bool ioreq_cf8_write(struct vcpu *v, uint32_t val);

/* ---- intercepted accesses: platform/io.c, mmio.c. All for v == current, in its exit loop
 * ---------- */
int mmio_vcpu_init(struct vcpu *v); /* the state of an access under way; -ENOMEM */
void mmio_vcpu_free(struct vcpu *v);
/* IN or OUT of 1, 2 or 4 bytes, permission checked by the hardware; steps RIP by insn_bytes at once
 * or when the device model has answered. */
void handle_pio(struct vcpu *v, uint16_t port, unsigned bytes, bool in, unsigned insn_bytes);
/* The same where DR7 may have breakpoints on ports (DR7_RW_HIGH): what the access hits is reported
 * by a #DB behind it. */
void handle_watched_pio(struct vcpu *v, uint16_t port, unsigned bytes, bool in,
                        unsigned insn_bytes);
/* INS or OUTS, with or without REP: emulated from its bytes; port and bytes tell which
 * breakpoints it may hit. */
void handle_string_io(struct vcpu *v, uint16_t port, unsigned bytes, bool in, bool rep);
/* A nested fault on a data access (not on a page table's, nor a fetch) to memory that is not there
 * (devices) or must not be written (ROM). gla: the linear address if gla_valid (VT-x tells, SVM
 * does not). insn: the first insn_bytes of the instruction (decode assist), 0 to fetch them. */
void handle_mmio(struct vcpu *v, paddr_t gpa, uint64_t gla, bool gla_valid, bool write,
                 const uint8_t *insn, unsigned insn_bytes);
/* The same where it is a plain MOV to or from v's LAPIC: done. False, and nothing done: go on. */
bool handle_lapic_mov(struct vcpu *v, paddr_t gpa, bool write, const uint8_t *insn,
                      unsigned insn_bytes);
/* Emulate the instruction at RIP, whatever it does. */
void handle_emulate(struct vcpu *v);
/* VWORK_IOREQ was set: finish the access that waited, if its answer is there. Clears nothing. May
 * block v again (the next request of the same instruction): look at v->block afterwards. */
void io_complete(struct vcpu *v);
/* Given by the lead: dom0's own access to a host port; false when it is not dom0's to touch. */
bool dom0_pio(struct vcpu *v, uint16_t port, unsigned bytes, bool write, uint32_t *val);

/* ---- CPUID and MSR policy: platform/cpuid.c -----------------------------------------------------
 */
int cpuid_policy_init(struct domain *d);
void cpuid_policy_free(struct domain *d);
/* Boot: read the host's CPUID and derive what guests may see. After p2m_setup. */
void cpuid_setup(void);
/* The tools' view, as an array of leaves in the form of XEN_DOMCTL_get_cpu_policy. index: one of
 * XEN_SYSCTL_cpu_policy_*; or a domain's own. leaves NULL: only the number. *nr: room in, used out.
 * -ENOBUFS, -EOPNOTSUPP (PV), -EINVAL. */
#define CPUID_MAX_SERIALISED 160
int cpuid_policy_get_system(unsigned index, xen_cpuid_leaf_t *leaves, uint32_t *nr);
int cpuid_policy_get(struct domain *d, xen_cpuid_leaf_t *leaves, uint32_t *nr);
/* Overlay leaves on d's policy; what d may not have is masked. -ERANGE with *err_leaf, *err_sub. */
int cpuid_policy_set(struct domain *d, const xen_cpuid_leaf_t *leaves, uint32_t nr,
                     uint32_t *err_leaf, uint32_t *err_sub);
/* Word n of a feature set (XEN_SYSCTL_cpu_featureset_*); -EOPNOTSUPP, -EINVAL. */
#define CPUID_FEATURE_WORDS 19
int cpuid_featureset(unsigned index, uint32_t words[CPUID_FEATURE_WORDS]);
/* XCR0 bits that d's guests may set; 0 when it has no XSAVE. True if d may use RDTSCP. */
uint64_t cpuid_xcr0_mask(const struct domain *d);
bool cpuid_has(const struct domain *d, unsigned feature); /* XEN_X86_FEATURE_* */

/* ---- PM: platform/vpmtmr.c --------------------------------------------------------------------
 */
void vpmtmr_power_button(struct domain *d);
void vpmtmr_sleep_button(struct domain *d);
