/* kernel_image.c: bzImage header, ELF program headers and the PVH entry note. */
#include "boot/kernel_image.h"

#include "boot/decompress.h"
#include "core/errno.h"
#include "core/string.h"

#include <xen/elfnote.h>

/* --- bzImage --- */

enum bzimage { /* byte offsets in the file: boot.rst, "The Real-Mode Kernel Header" */
               BZ_SETUP_SECTS = 0x1f1,
               BZ_BOOT_FLAG = 0x1fe,
               BZ_MAGIC = 0x202,
               BZ_VERSION = 0x206,
               BZ_PAYLOAD_OFFSET = 0x248, /* from the protected-mode code's start */
               BZ_PAYLOAD_LENGTH = 0x24c,
               BZ_HEADER_END = 0x250,
               BZ_SECTOR_BYTES = 512,
               BZ_VERSION_PAYLOAD = 0x208, /* the first with a payload field */
};

static uint16_t get_le16(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static uint32_t get_le32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static bool within(uint64_t offset, uint64_t length, uint64_t bytes)
{
    return offset <= bytes && length <= bytes - offset;
}

static bool is_elf(const void *p, size_t bytes)
{
    return bytes >= 4 && memcmp(p, "\177ELF", 4) == 0;
}

static void set_plain_elf(struct kernel_image *out, const uint8_t *p, size_t bytes)
{
    *out = (struct kernel_image){
        .payload = p,
        .payload_bytes = bytes,
        .elf_bytes = bytes,
        .format_name = "ELF",
        .format = KERNEL_FORMAT_ELF,
    };
}

static int bzimage_payload(const uint8_t *p, size_t bytes, const uint8_t **payload, size_t *length)
{
    unsigned setup_sects;
    uint64_t offset;

    if (bytes < BZ_HEADER_END || get_le16(p + BZ_BOOT_FLAG) != 0xaa55 ||
        memcmp(p + BZ_MAGIC, "HdrS", 4) != 0 || get_le16(p + BZ_VERSION) < BZ_VERSION_PAYLOAD)
        return -ENOEXEC;
    setup_sects = p[BZ_SETUP_SECTS] ? p[BZ_SETUP_SECTS] : 4;
    offset = (uint64_t)(setup_sects + 1) * BZ_SECTOR_BYTES + get_le32(p + BZ_PAYLOAD_OFFSET);
    *length = get_le32(p + BZ_PAYLOAD_LENGTH);
    if (!within(offset, *length, bytes))
        return -EINVAL;
    *payload = p + offset;
    return 0;
}

int kernel_image_open(const void *image, size_t bytes, struct kernel_image *out)
{
    enum { SIZE_TRAILER = 4 }; /* the kernel's build appends the unpacked size */
    enum decompress_format format;
    const uint8_t *payload;
    size_t length;
    int rc;

    if (is_elf(image, bytes)) {
        set_plain_elf(out, image, bytes);
        return 0;
    }
    rc = bzimage_payload(image, bytes, &payload, &length);
    if (rc)
        return rc;
    if (is_elf(payload, length)) {
        set_plain_elf(out, payload, length);
        return 0;
    }
    rc = decompress_probe(payload, length, &format);
    if (rc)
        return rc;
    if (length <= 2 * SIZE_TRAILER)
        return -EINVAL;
    *out = (struct kernel_image){
        .payload = payload,
        /* gzip's own trailer ends with that size, so there the build appends nothing */
        .payload_bytes = format == DECOMPRESS_GZIP ? length : length - SIZE_TRAILER,
        .elf_bytes = get_le32(payload + length - SIZE_TRAILER),
        .scratch_bytes = decompress_scratch_bytes(format, payload, length),
        .format_name = decompress_name(format),
        .format = (int)format,
    };
    return 0;
}

int kernel_image_decompress(const struct kernel_image *image, void *dst, size_t dst_bytes)
{
    size_t produced;
    int rc;

    if (dst_bytes < image->elf_bytes)
        return -ENOSPC;
    if (image->format == KERNEL_FORMAT_ELF) {
        memcpy(dst, image->payload, image->payload_bytes);
        return 0;
    }
    rc = decompress((enum decompress_format)image->format, image->payload, image->payload_bytes,
                    dst, image->elf_bytes, &produced);
    if (rc == -ENOSPC) /* it unpacks to more than it says */
        return -EIO;
    if (rc)
        return rc;
    return produced == image->elf_bytes ? 0 : -EIO;
}

/* --- ELF (System V ABI, chapters 4 and 5) --- */

struct elf64_header {
    uint8_t ident[16];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, phoff, shoff;
    uint32_t flags;
    uint16_t ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};

struct elf64_program_header {
    uint32_t type, flags;
    uint64_t offset, vaddr, paddr, file_bytes, mem_bytes, align;
};

struct elf64_section_header {
    uint32_t name, type;
    uint64_t flags, addr, offset, size;
    uint32_t link, info;
    uint64_t align, entsize;
};

enum { EM_X86_64 = 62, ELFCLASS64 = 2, ELFDATA2LSB = 1, PT_LOAD = 1, PT_NOTE = 4, SHT_NOTE = 7 };

struct elf_file {
    const uint8_t *base;
    size_t bytes;
};

/* Look through one note area for the PVH entry. Returns whether it was found. */
static bool find_pvh_note(const uint8_t *p, uint64_t bytes, uint64_t align, uint64_t *entry)
{
    enum { NOTE_HEADER = 12 };
    uint64_t pos = 0;

    align = align == 8 ? 8 : 4;
    while (within(pos, NOTE_HEADER, bytes)) {
        uint64_t name_bytes = get_le32(p + pos), desc_bytes = get_le32(p + pos + 4);
        uint32_t type = get_le32(p + pos + 8);
        uint64_t name = pos + NOTE_HEADER;
        uint64_t desc = ALIGN_UP(name + name_bytes, align);

        if (!within(name, name_bytes, bytes) || !within(desc, desc_bytes, bytes))
            return false;
        if (type == XEN_ELFNOTE_PHYS32_ENTRY && name_bytes == 4 &&
            memcmp(p + name, "Xen", 4) == 0 && (desc_bytes == 4 || desc_bytes == 8)) {
            *entry = 0;
            memcpy(entry, p + desc, desc_bytes);
            return true;
        }
        pos = ALIGN_UP(desc + desc_bytes, align);
    }
    return false;
}

static int add_segment(const struct elf_file *f, const struct elf64_program_header *ph,
                       struct kernel_elf *out)
{
    uint64_t end;

    if (ph->mem_bytes == 0)
        return 0;
    if (out->nr_segments == KERNEL_MAX_SEGMENTS)
        return -E2BIG;
    if (!within(ph->offset, ph->file_bytes, f->bytes) || ph->file_bytes > ph->mem_bytes ||
        __builtin_add_overflow(ph->paddr, ph->mem_bytes, &end))
        return -EINVAL;
    out->segments[out->nr_segments++] = (struct kernel_segment){
        .paddr = ph->paddr,
        .offset = ph->offset,
        .file_bytes = ph->file_bytes,
        .mem_bytes = ph->mem_bytes,
    };
    out->lowest_paddr = MIN(out->lowest_paddr, ph->paddr);
    out->highest_paddr = MAX(out->highest_paddr, end);
    return 0;
}

static int read_program_headers(const struct elf_file *f, const struct elf64_header *eh,
                                struct kernel_elf *out, bool *have_entry)
{
    struct elf64_program_header ph;

    if (eh->phentsize != sizeof(ph) ||
        !within(eh->phoff, (uint64_t)eh->phnum * sizeof(ph), f->bytes))
        return -EINVAL;
    for (unsigned i = 0; i < eh->phnum; i++) {
        memcpy(&ph, f->base + eh->phoff + i * sizeof(ph), sizeof(ph));
        if (ph.type == PT_LOAD) {
            int rc = add_segment(f, &ph, out);

            if (rc)
                return rc;
        } else if (ph.type == PT_NOTE && !*have_entry) {
            if (!within(ph.offset, ph.file_bytes, f->bytes))
                return -EINVAL;
            *have_entry =
                find_pvh_note(f->base + ph.offset, ph.file_bytes, ph.align, &out->pvh_entry);
        }
    }
    return 0;
}

/* For a file whose notes have sections but no segment. */
static int read_note_sections(const struct elf_file *f, const struct elf64_header *eh,
                              struct kernel_elf *out, bool *have_entry)
{
    struct elf64_section_header sh;

    if (eh->shnum == 0)
        return 0;
    if (eh->shentsize != sizeof(sh) ||
        !within(eh->shoff, (uint64_t)eh->shnum * sizeof(sh), f->bytes))
        return -EINVAL;
    for (unsigned i = 0; i < eh->shnum && !*have_entry; i++) {
        memcpy(&sh, f->base + eh->shoff + i * sizeof(sh), sizeof(sh));
        if (sh.type != SHT_NOTE)
            continue;
        if (!within(sh.offset, sh.size, f->bytes))
            return -EINVAL;
        *have_entry = find_pvh_note(f->base + sh.offset, sh.size, sh.align, &out->pvh_entry);
    }
    return 0;
}

static bool in_a_segment(const struct kernel_elf *elf, uint64_t paddr)
{
    for (unsigned i = 0; i < elf->nr_segments; i++) {
        const struct kernel_segment *s = &elf->segments[i];

        if (paddr >= s->paddr && paddr - s->paddr < s->file_bytes)
            return true;
    }
    return false;
}

int kernel_elf_parse(const void *elf, size_t bytes, struct kernel_elf *out)
{
    struct elf_file f = {.base = elf, .bytes = bytes};
    struct elf64_header eh;
    bool have_entry = false;
    int rc;

    memset(out, 0, sizeof(*out));
    out->lowest_paddr = UINT64_MAX;
    if (bytes < sizeof(eh))
        return -ENOEXEC;
    memcpy(&eh, elf, sizeof(eh));
    if (!is_elf(elf, bytes) || eh.ident[4] != ELFCLASS64 || eh.ident[5] != ELFDATA2LSB ||
        eh.machine != EM_X86_64)
        return -ENOEXEC;
    rc = read_program_headers(&f, &eh, out, &have_entry);
    if (rc)
        return rc;
    if (out->nr_segments == 0)
        return -EINVAL;
    if (!have_entry) {
        rc = read_note_sections(&f, &eh, out, &have_entry);
        if (rc)
            return rc;
    }
    if (!have_entry)
        return -ENOENT;
    return in_a_segment(out, out->pvh_entry) ? 0 : -EINVAL;
}
