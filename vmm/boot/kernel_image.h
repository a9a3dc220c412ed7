/* kernel_image.h: dom0's kernel as a boot module: what it is, unpacking it, and its load map.
 *
 * Order of use: kernel_image_open on the module, kernel_image_decompress into memory of elf_bytes
 * (with decompress_set_arena for scratch_bytes before), kernel_elf_parse on the result. A module
 * is not trusted: anything out of its bounds is an error code.
 */
#pragma once

#include "core/types.h"

struct kernel_image {
    const uint8_t *payload; /* inside the module: the ELF file, or its compressed form */
    size_t payload_bytes;
    uint64_t elf_bytes;      /* size of the ELF file when unpacked, as the image states it */
    size_t scratch_bytes;    /* working memory that unpacking needs: decompress_set_arena */
    const char *format_name; /* "ELF", "gzip", "xz", "zstd", "lz4": for messages */
    int format;              /* enum decompress_format, or KERNEL_FORMAT_ELF */
};

#define KERNEL_FORMAT_ELF (-1) /* not compressed */

/* Recognise a module of `bytes` bytes: an ELF64 vmlinux or a bzImage (Linux
 * Documentation/arch/x86/boot.rst, protocol 2.08 or later). `out` points into the module. Any
 * context.
 * Returns 0; -ENOEXEC when it is neither or its compression is not one of ours; -EINVAL when its
 * header points outside of the module (a truncated one). */
int kernel_image_open(const void *image, size_t bytes, struct kernel_image *out);

/* Unpack to dst, of dst_bytes >= elf_bytes. The boot CPU only, in the state that
 * boot/decompress.h asks for, and with its arena set to at least scratch_bytes. dst must not
 * overlap the module.
 * Returns 0; -ENOSPC when dst is too small; -ENOMEM when the arena is; -EIO when the payload is
 * corrupt or does not unpack to exactly elf_bytes. */
int kernel_image_decompress(const struct kernel_image *image, void *dst, size_t dst_bytes);

#define KERNEL_MAX_SEGMENTS 16

struct kernel_segment {  /* one PT_LOAD */
    uint64_t paddr;      /* guest-physical address, bytes */
    uint64_t offset;     /* in the ELF file, bytes */
    uint64_t file_bytes; /* to copy */
    uint64_t mem_bytes;  /* >= file_bytes; the rest is zero */
};

struct kernel_elf {
    struct kernel_segment segments[KERNEL_MAX_SEGMENTS]; /* in the file's order, none empty */
    unsigned nr_segments;
    uint64_t lowest_paddr;  /* first byte of the lowest segment */
    uint64_t highest_paddr; /* one past the last byte of the highest segment */
    uint64_t pvh_entry;     /* guest-physical, inside a segment: XEN_ELFNOTE_PHYS32_ENTRY */
};

/* Read an ELF64 x86-64 kernel's program headers and notes. Any context.
 * Returns 0; -ENOEXEC when it is not ELF64 for x86-64; -EINVAL when a header points outside of the
 * file, or a segment or the entry is impossible; -E2BIG for more than KERNEL_MAX_SEGMENTS;
 * -ENOENT when it has no PVH entry point (a kernel without CONFIG_PVH). */
int kernel_elf_parse(const void *elf, size_t bytes, struct kernel_elf *out);
