/* dom0.h: building dom0 and what it may touch of the real machine: the front door of dom0*.c. */
#pragma once

#include "boot/multiboot.h"
#include "domain/domain.h"

/* Boot: make dom0 from the first module (kernel) and the second (initrd, optional), in the RAM of
 * `map`; ends with vCPU 0 ready to run. Halts with one line when that cannot be. */
void dom0_build(struct e820_map *map, struct boot_info *boot);

/* Ports whose accesses by dom0 come to dom0_pio. */
bool dom0_port_traps(uint16_t port);
/* Memory in dom0's identity map that is trapped: MMCONFIG and MSI-X tables. True when it was one.
 */
bool dom0_mmio(struct vcpu *v, paddr_t gpa, unsigned bytes, bool write, uint64_t *val);

/* ---- dom0_pci.c -------------------------------------------------------------------------------
 */
int dom0_pci_init(struct domain *d);
/* An access of 1, 2 or 4 bytes to the configuration space of bdf by dom0: passed to the device but
 * for the MSI and MSI-X capabilities, which are translated. */
void dom0_pci_config(uint32_t bdf, unsigned reg, unsigned bytes, bool write, uint32_t *val);
bool dom0_msix_mmio(paddr_t gpa, unsigned bytes, bool write, uint64_t *val);
