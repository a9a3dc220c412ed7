/* machine.h: the machine as found at boot, and turning it off. */
#pragma once

#include "boot/cmdline.h"
#include "boot/e820.h"
#include "core/acpi.h"

extern struct e820_map host_e820; /* as firmware told, with what Ringfence took marked E820_OWNED */
extern struct cmdline_options boot_options;
extern uint64_t host_cr3;  /* Ringfence's page tables */
extern uint64_t host_xcr0; /* XSAVE components of the CPU; 0 without XSAVE */

/* Boot: tables for the direct map, the uncached map and the image at image_pa; returns the CR3.
 * The pages come from `next_page`. */
uint64_t paging_build(const struct e820_map *map, uint64_t image_pa, void *(*next_page)(void));
/* Boot CPU, after paging_build: map 2 MiB at va (2 MiB-aligned, never mapped before): physical
 * memory at pa, or zeroes that cannot be written. They take pages from paging_build's `next_page`.
 */
void paging_map_chunk(void *va, uint64_t pa);
void paging_map_zeroes(void *va);

/* Reset the machine: ACPI reset register, keyboard controller, port CF9, triple fault in turn. */
void machine_reboot(void) __noreturn;
/* Stop every CPU for good. */
void machine_halt(void) __noreturn;
/* dom0 ended: power off, reboot or halt by its reason (SHUTDOWN_*). */
void machine_dom0_shutdown(int reason) __noreturn;
