/* multiboot.c: Multiboot 1 (0.6.96, 3.3) and Multiboot 2 (2.0, 3.4 to 3.6) boot information. */
#include "boot/multiboot.h"

#include "core/errno.h"
#include "core/mm.h"
#include "core/string.h"

#define MB1_MAGIC 0x2BADB002u
#define MB2_MAGIC 0x36D76289u

struct mb1_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
    uint32_t mmap_length, mmap_addr;
};
struct mb1_module {
    uint32_t start, end, cmdline, reserved;
};
struct mb2_tag {
    uint32_t type, size;
};
struct mb2_module {
    struct mb2_tag tag;
    uint32_t start, end;
    char cmdline[];
};

static void copy_string(char *dst, const char *src)
{
    size_t n = strnlen(src, BOOT_CMDLINE - 1);
    memcpy(dst, src, n);
    dst[n] = '\0';
}

static void add_module(struct boot_info *out, uint32_t start, uint32_t end, const char *cmdline)
{
    if (out->nr_modules >= BOOT_MAX_MODULES || end < start)
        return;
    struct boot_module *m = &out->module[out->nr_modules++];
    m->pa = start;
    m->bytes = end - start;
    copy_string(m->cmdline, cmdline);
}

static int parse_mb1(uint32_t info_pa, struct boot_info *out)
{
    const struct mb1_info *mb = pa_to_virt(info_pa);
    if (mb->flags & 4)
        copy_string(out->cmdline, pa_to_virt(mb->cmdline));
    const struct mb1_module *m = pa_to_virt(mb->mods_addr);
    for (uint32_t i = 0; mb->flags & 8 && i < mb->mods_count; i++)
        add_module(out, m[i].start, m[i].end, m[i].cmdline ? pa_to_virt(m[i].cmdline) : "");
    if (!(mb->flags & 0x40))
        return -ENOENT;
    return e820_add_multiboot1(&out->map, pa_to_virt(mb->mmap_addr), mb->mmap_length);
}

static int parse_mb2(uint32_t info_pa, struct boot_info *out)
{
    const uint32_t *head = pa_to_virt(info_pa);
    const char *p = (const char *)head + 8, *end = (const char *)head + head[0];
    int err = -ENOENT;
    while (p + sizeof(struct mb2_tag) <= end) {
        const struct mb2_tag *t = (const void *)p;
        if (t->type == 0 || t->size < 8 || p + t->size > end)
            break;
        if (t->type == 1) {
            copy_string(out->cmdline, (const char *)(t + 1));
        } else if (t->type == 3) {
            const struct mb2_module *m = (const void *)t;
            add_module(out, m->start, m->end, m->cmdline);
        } else if (t->type == 6) {
            err = e820_add_multiboot2(&out->map, t, t->size);
        } else if ((t->type == 14 && !out->rsdp_bytes) || t->type == 15) {
            out->rsdp_bytes = MIN(t->size - 8, sizeof(out->rsdp));
            memcpy(out->rsdp, t + 1, out->rsdp_bytes);
        }
        p += ALIGN_UP(t->size, 8u);
    }
    return err;
}

int multiboot_parse(uint32_t magic, uint32_t info_pa, struct boot_info *out)
{
    if (magic == MB1_MAGIC)
        return parse_mb1(info_pa, out);
    if (magic == MB2_MAGIC)
        return parse_mb2(info_pa, out);
    return -EINVAL;
}
