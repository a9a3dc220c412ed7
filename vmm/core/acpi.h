/* acpi.h: what Ringfence learns from firmware's ACPI tables, and the tables that dom0 sees instead.
 *
 * Only static tables are read, no AML. Tables are not trusted: every read is inside a table whose
 * length was checked, and a table with a wrong checksum is not used. Section numbers are those of
 * the ACPI specification 6.4.
 */
#pragma once

#include "core/types.h"

enum {
    ACPI_MAX_TABLES = 128,
    ACPI_MAX_CPUS = 512,
    ACPI_MAX_IOAPICS = 16,
    ACPI_MAX_OVERRIDES = 32,
    ACPI_MAX_NMIS = 16,
    ACPI_MAX_SEGMENTS = 16,
};

/* Make [pa, pa + bytes) readable and return where, or NULL if that cannot be. The memory stays
 * readable while acpi_parse runs. In the hypervisor: the direct map, or the uncached map. */
typedef const void *(*acpi_map_fn)(uint64_t pa, size_t bytes);

struct acpi_table {
    char signature[4];
    uint32_t bytes; /* with its header */
    uint64_t pa;
};

struct acpi_cpu { /* a local APIC */
    uint32_t apic_id;
    uint32_t uid;        /* processor's _UID */
    bool enabled;        /* can be started now */
    bool online_capable; /* not enabled, but can be plugged in */
};

struct acpi_ioapic {
    uint8_t id;
    uint32_t gsi_base;
    uint64_t pa;
};

/* flags of overrides and NMIs (5.2.12.5, MPS INTI): bits 0-1 polarity (0 bus's, 1 high, 3 low),
 * bits 2-3 trigger (0 bus's, 1 edge, 3 level) */
struct acpi_override { /* ISA interrupt `irq` arrives as `gsi` */
    uint8_t bus, irq;
    uint16_t flags;
    uint32_t gsi;
};

struct acpi_nmi_source {
    uint16_t flags;
    uint32_t gsi;
};

struct acpi_lapic_nmi { /* uid 0xff (0xffffffff in an x2APIC entry, kept as 0xff): all CPUs */
    uint32_t uid;
    uint16_t flags;
    uint8_t lint; /* 0 or 1 */
};

struct acpi_segment { /* MMCONFIG of PCI buses [first_bus, last_bus]; pa is that of bus 0 */
    uint64_t pa;
    uint16_t segment;
    uint8_t first_bus, last_bus;
};

struct acpi_gas {  /* 5.2.3.2: generic address; pa 0 is absent */
    uint8_t space; /* 0 memory, 1 I/O port, 2 PCI configuration */
    uint8_t bits;  /* register width */
    uint64_t address;
};

enum { ACPI_SPACE_MEMORY, ACPI_SPACE_IO, ACPI_SPACE_PCI };

struct acpi_fadt { /* ports are 0 where there is none or it is not in I/O space */
    bool present;
    uint16_t sci_irq; /* ISA interrupt, to be looked up in the overrides */
    uint16_t pm1a_evt_port, pm1b_evt_port;
    uint8_t pm1_evt_bytes; /* status half, then enable half */
    uint16_t pm1a_cnt_port, pm1b_cnt_port;
    uint32_t smi_cmd_port;
    uint8_t acpi_enable;   /* written to smi_cmd_port to leave legacy mode */
    uint8_t century;       /* CMOS register, 0 without */
    uint16_t boot_arch;    /* IAPC_BOOT_ARCH, 5.2.9.3 */
    uint32_t flags;        /* 5.2.9, table 5.10 */
    struct acpi_gas reset; /* address 0 unless the flags say it is supported */
    uint8_t reset_value;
    uint64_t dsdt_pa, facs_pa;
};

struct acpi_info {    /* filled in once at boot, read-only afterwards */
    uint8_t revision; /* RSDP's: 0 is ACPI 1.0, 2 is later */

    unsigned nr_tables; /* what the XSDT or RSDT lists */
    struct acpi_table tables[ACPI_MAX_TABLES];

    uint64_t lapic_pa;
    bool pcat_compat; /* there is a pair of 8259s */
    unsigned nr_cpus, nr_ioapics, nr_overrides, nr_nmi_sources, nr_lapic_nmis, nr_segments;
    struct acpi_cpu cpu[ACPI_MAX_CPUS]; /* firmware's order, no APIC id twice */
    struct acpi_ioapic ioapics[ACPI_MAX_IOAPICS];
    struct acpi_override overrides[ACPI_MAX_OVERRIDES];
    struct acpi_nmi_source nmi_sources[ACPI_MAX_NMIS];
    struct acpi_lapic_nmi lapic_nmis[ACPI_MAX_NMIS];
    struct acpi_segment segments[ACPI_MAX_SEGMENTS];

    struct acpi_fadt fadt;
    uint64_t hpet_base;     /* physical, 0 without */
    uint16_t pm_timer_port; /* 0 without */
    uint8_t pm_timer_bits;  /* 24 or 32; 0 without */
    uint64_t dmar_pa, ivrs_pa;
    uint32_t dmar_bytes, ivrs_bytes; /* 0 without */

    unsigned nr_bad;     /* tables or entries not used: checksum, length, not mappable */
    unsigned nr_dropped; /* entries above the maxima */
};

extern struct acpi_info acpi_info; /* the host's; whoever boots us fills it in */

/* Find and read the tables. rsdp is the copy that a Multiboot 2 tag 14 or 15 holds (rsdp_bytes of
 * it), or NULL: then the EBDA's first KiB and 0xe0000-0xfffff are searched (5.2.5.1). Boot only.
 * Returns 0 and *out; -ENOENT when there is no RSDP or no MADT; -EINVAL when neither the XSDT nor
 * the RSDT is sound. */
int acpi_parse(acpi_map_fn map, const void *rsdp, size_t rsdp_bytes, struct acpi_info *out);

/* The table of that signature (the first), or NULL. */
const struct acpi_table *acpi_find_table(const struct acpi_info *info, const char *signature);

/* The GSI and flags (as in struct acpi_override) that ISA interrupt irq arrives on. */
uint32_t acpi_isa_gsi(const struct acpi_info *info, uint8_t irq, uint16_t *flags);

/* Write dom0's RSDP, XSDT and MADT to buf, which dom0 sees at buf_pa (16-byte aligned). The XSDT
 * lists the host's tables but those that Ringfence replaces or consumes; the MADT lists nr_vcpus
 * enabled CPUs, with APIC id 2 * vcpu_id and UID vcpu_id, and the host's IOAPICs, overrides and NMI
 * sources. Boot only. Needs 36 + 36 + 8 * nr_tables + 44 + 16 * nr_vcpus + 30 * (the rest) bytes at
 * most; 8 KiB do for any host with 128 vCPUs.
 * Returns 0 and dom0's RSDP address; -ENOSPC; -EINVAL for a misaligned buf_pa. */
int acpi_build_dom0_tables(const struct acpi_info *info, unsigned nr_vcpus, void *buf,
                           size_t buf_bytes, uint64_t buf_pa, uint64_t *rsdp_pa);
