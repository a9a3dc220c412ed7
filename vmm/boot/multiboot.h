/* multiboot.h: what a Multiboot 1 or 2 loader hands over, in one form. */
#pragma once

#include "boot/e820.h"
#include "core/types.h"

#define BOOT_MAX_MODULES 4
#define BOOT_CMDLINE     1024

struct boot_module {
    uint64_t pa, bytes;
    char cmdline[BOOT_CMDLINE];
};

struct boot_info {
    char cmdline[BOOT_CMDLINE];
    unsigned nr_modules;
    struct boot_module module[BOOT_MAX_MODULES];
    struct e820_map map;
    uint8_t rsdp[64]; /* Multiboot 2's copy of the RSDP */
    size_t rsdp_bytes;
};

/* Read the loader's tables, which lie below 4 GiB under the boot direct map. 0; -EINVAL for a magic
 * that is neither's; -ENOENT without a memory map. Boot CPU only. */
int multiboot_parse(uint32_t magic, uint32_t info_pa, struct boot_info *out);
