/* dom0.c: the first domain: a direct-mapped PVH Linux with the machine's devices.
 *
 * Its guest-physical addresses are machine addresses. RAM is mapped at boot; firmware tables too;
 * other device memory on first touch. What Ringfence owns is left out.
 */
#include "domain/dom0.h"

#include "boot/kernel_image.h"
#include "boot/decompress.h"
#include "core/console.h"
#include "core/errno.h"
#include "core/irq.h"
#include "core/machine.h"
#include "core/mm.h"
#include "core/string.h"
#include "core/x86.h"
#include "domain/hvm.h"
#include "platform/platform.h"

#define ACPI_AREA    0x4000ULL
#define INFO_AREA    0x4000ULL /* start_info, module list, memory map, command line */
#define MAX_BOOT_MAP 64

static struct e820_map *dom0_map;

static void __noreturn refuse(const char *why, int err)
{
    log_err("Ringfence cannot start dom0: %s (error %d)", why, err);
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* ---- memory
 * ------------------------------------------------------------------------------------------- */
static bool is_lapic_or_ioapic(paddr_t pa)
{
    if ((pa & PAGE_MASK) == (rdmsr(MSR_APIC_BASE) & 0xffffff000ULL))
        return true;
    for (unsigned i = 0; i < acpi_info.nr_ioapics; i++) {
        if ((pa & PAGE_MASK) == (acpi_info.ioapics[i].pa & PAGE_MASK))
            return true;
    }
    return false;
}

static bool in_mmconfig(paddr_t pa, uint32_t *bdf, unsigned *reg)
{
    for (unsigned i = 0; i < acpi_info.nr_segments; i++) {
        const struct acpi_segment *s = &acpi_info.segments[i];
        uint64_t first = s->pa + ((uint64_t)s->first_bus << 20);
        uint64_t end = s->pa + (((uint64_t)s->last_bus + 1) << 20);
        if (s->segment == 0 && pa >= first && pa < end) {
            *bdf = (uint32_t)(pa - s->pa) >> 12;
            *reg = (unsigned)(pa & 0xfff);
            return true;
        }
    }
    return false;
}

bool dom0_may_map_mmio(gfn_t gfn)
{
    paddr_t pa = gfn << PAGE_SHIFT;
    uint32_t bdf, type = e820_type_at(&host_e820, pa);
    unsigned reg;
    return type != E820_RAM && type != E820_OWNED && !is_lapic_or_ioapic(pa) &&
           !in_mmconfig(pa, &bdf, &reg) && pa >> p2m_gpa_bits == 0;
}

bool dom0_mmio(struct vcpu *v, paddr_t gpa, unsigned bytes, bool write, uint64_t *val)
{
    uint32_t bdf, data = (uint32_t)*val;
    unsigned reg;
    if (!v->domain->is_dom0)
        return false;
    if (in_mmconfig(gpa, &bdf, &reg)) {
        dom0_pci_config(bdf, reg, MIN(bytes, 4u), write, &data);
        uint32_t high = (uint32_t)(*val >> 32);
        if (bytes == 8)
            dom0_pci_config(bdf, reg + 4, 4, write, &high);
        *val = data | (uint64_t)high << 32;
        return true;
    }
    return dom0_msix_mmio(gpa, bytes, write, val);
}

static void map_memory(struct domain *d)
{
    for (unsigned i = 0; i < dom0_map->nr_entries; i++) {
        const struct e820_entry *e = &dom0_map->entries[i];
        gfn_t start = PFN_DOWN(e->addr), end = PFN_UP(e->addr + e->size);
        int err = 0;
        if (e->type == E820_RAM ||
            (e->type == E820_ACPI && e820_is_ram(&host_e820, e->addr, e->addr + e->size))) {
            start = PFN_UP(e->addr);
            end = PFN_DOWN(e->addr + e->size);
            if (start >= end)
                continue;
            domain_pages_assign(d, mfn_to_page(start), end - start);
            err = p2m_set_range(d, start, start, end - start, P2M_RAM);
        } else if (e->type == E820_ACPI || e->type == E820_NVS) {
            err = p2m_set_range(d, start, start, end - start, P2M_MMIO_DIRECT);
        }
        if (err)
            refuse("mapping its memory", err);
    }
}

int dom0_memory_map(struct e820entry *out, unsigned max)
{
    unsigned n = MIN(max, dom0_map->nr_entries);
    for (unsigned i = 0; i < n; i++)
        out[i] = (struct e820entry){dom0_map->entries[i].addr, dom0_map->entries[i].size,
                                    dom0_map->entries[i].type};
    return (int)n;
}

int machine_memory_map(struct e820entry *out, unsigned max)
{
    unsigned n = MIN(max, host_e820.nr_entries);
    for (unsigned i = 0; i < n; i++) {
        const struct e820_entry *e = &host_e820.entries[i];
        out[i] = (struct e820entry){e->addr, e->size, e->type == E820_OWNED ? E820_RAM : e->type};
    }
    return (int)n;
}

/* The lowest place above `from` with `bytes` of dom0's RAM. */
static uint64_t find_ram(uint64_t from, uint64_t bytes)
{
    for (unsigned i = 0; i < dom0_map->nr_entries; i++) {
        const struct e820_entry *e = &dom0_map->entries[i];
        uint64_t at = ALIGN_UP(MAX(e->addr, from), 0x200000);
        if (e->type == E820_RAM && at + bytes <= e->addr + e->size && at + bytes <= (1ULL << 32))
            return at;
    }
    refuse("dom0_mem= is too small for its kernel and initrd", -ENOMEM);
}

/* ---- kernel
 * --------------------------------------------------------------------------------------------- */
static struct kernel_elf load_kernel(const struct boot_module *m)
{
    struct kernel_image img;
    struct kernel_elf elf;
    int err = kernel_image_open(pa_to_virt(m->pa), m->bytes, &img);
    if (err)
        refuse("the first module is not a Linux kernel (ELF64 or bzImage), or is cut short", err);
    unsigned order = 0, scratch_order = 0;
    while ((PAGE_SIZE << order) < img.elf_bytes)
        order++;
    while ((PAGE_SIZE << scratch_order) < img.scratch_bytes)
        scratch_order++;
    void *unpacked = pages_alloc(order), *scratch = pages_alloc(scratch_order), *tls = page_alloc();
    if (!unpacked || !scratch || !tls)
        refuse("no memory to unpack its kernel", -ENOMEM);
    wrmsr(MSR_FS_BASE, (uint64_t)tls);
    decompress_set_arena(scratch, PAGE_SIZE << scratch_order);
    err = kernel_image_decompress(&img, unpacked, PAGE_SIZE << order);
    decompress_set_arena(NULL, 0);
    wrmsr(MSR_FS_BASE, 0);
    if (err)
        refuse("its kernel cannot be unpacked: damaged or cut short", err);
    err = kernel_elf_parse(unpacked, img.elf_bytes, &elf);
    if (err)
        refuse(err == -ENOENT ? "its kernel has no PVH entry point" : "its kernel's ELF is damaged",
               err);
    for (unsigned i = 0; i < elf.nr_segments; i++) {
        const struct kernel_segment *s = &elf.segments[i];
        if (!e820_is_ram(dom0_map, s->paddr, s->paddr + s->mem_bytes))
            refuse("dom0_mem= is too small for its kernel", -ENOMEM);
        memcpy(pa_to_virt(s->paddr), (char *)unpacked + s->offset, s->file_bytes);
        memset(pa_to_virt(s->paddr + s->file_bytes), 0, s->mem_bytes - s->file_bytes);
    }
    log_info("dom0 kernel: %s, %lu KiB, entry %lx", img.format_name, img.elf_bytes >> 10,
             elf.pvh_entry);
    pages_free(unpacked, order);
    pages_free(scratch, scratch_order);
    page_free(tls);
    return elf;
}

/* GRUB puts the file's path first (Multiboot 1); what follows is the kernel's command line. */
static const char *module_arguments(const char *s)
{
    const char *space = strchr(s, ' ');
    size_t n = space ? (size_t)(space - s) : strlen(s);
    bool path = memchr(s, '/', n) && !memchr(s, '=', n);
    if (!path)
        return s;
    return space ? space + 1 : "";
}

static bool iommu_in_use(void)
{
    return false; /* none is driven yet: dom0's granted and foreign pages must bounce */
}

static void fill_start_info(uint64_t pa, uint64_t rsdp_pa, uint64_t initrd_pa,
                            uint64_t initrd_bytes, const char *cmdline)
{
    struct hvm_start_info *si = pa_to_virt(pa);
    struct hvm_modlist_entry *mod = (void *)(si + 1);
    struct hvm_memmap_table_entry *mm = (void *)(mod + 1);
    char *text = (char *)(mm + MAX_BOOT_MAP);

    memset(si, 0, INFO_AREA);
    si->magic = XEN_HVM_START_MAGIC_VALUE;
    si->version = 1;
    si->flags = SIF_INITDOMAIN | SIF_PRIVILEGED;
    si->rsdp_paddr = rsdp_pa;
    si->cmdline_paddr = virt_to_pa(text);
    si->memmap_paddr = virt_to_pa(mm);
    if (initrd_bytes) {
        si->nr_modules = 1;
        si->modlist_paddr = virt_to_pa(mod);
        mod->paddr = initrd_pa;
        mod->size = initrd_bytes;
    }
    for (unsigned i = 0; i < dom0_map->nr_entries && i < MAX_BOOT_MAP; i++) {
        mm[i].addr = dom0_map->entries[i].addr;
        mm[i].size = dom0_map->entries[i].size;
        mm[i].type = dom0_map->entries[i].type;
        si->memmap_entries++;
    }
    snprintf(text, BOOT_CMDLINE + 64, "%s%s%s%s", cmdline, *boot_options.dom0_extra ? " " : "",
             boot_options.dom0_extra,
             iommu_in_use() || strncmp(cmdline, "swiotlb=", 8) == 0 ? "" : " swiotlb=force");
}

static void start_vcpu(struct vcpu *v, uint64_t entry, uint64_t start_info)
{
    static const struct segment code = {0, 0xc9b, ~0u, 0}, data = {0, 0xc93, ~0u, 0},
                                tr = {0, 0x8b, 0x67, 0};
    hvm_ops->set_segment(v, SEGR_CS, &code);
    hvm_ops->set_segment(v, SEGR_DS, &data);
    hvm_ops->set_segment(v, SEGR_ES, &data);
    hvm_ops->set_segment(v, SEGR_SS, &data);
    hvm_ops->set_segment(v, SEGR_TR, &tr);
    hvm_ops->set_cr(v, 0, CR0_PE | CR0_ET);
    v->regs.rip = entry;
    v->regs.gpr[RBX] = start_info;
    v->regs.gpr[RDX] = 0;
    v->initialised = true;
    vcpu_unblock(v, VBLOCK_DOWN);
}

static void add_ioapics(struct domain *d)
{
    for (unsigned i = 0; i < acpi_info.nr_ioapics; i++) {
        const struct acpi_ioapic *a = &acpi_info.ioapics[i];
        int err = vioapic_dom0_add(d, a->pa, a->gsi_base, irq_ioapic_pins(i), a->id);
        if (err)
            refuse("its IOAPIC", err);
    }
}

static struct domain *create(unsigned nr_vcpus)
{
    static struct xen_domctl_createdomain config;
    struct domain *d;
    config.flags = XEN_DOMCTL_CDF_hvm | XEN_DOMCTL_CDF_hap;
    config.max_vcpus = nr_vcpus;
    config.max_evtchn_port = (uint32_t)-1;
    config.max_grant_frames = 64;
    config.max_maptrack_frames = 1024;
    config.arch.emulation_flags = XEN_X86_EMU_LAPIC | XEN_X86_EMU_IOAPIC;
    int err = domain_create(0, &config, true, &d);
    if (err)
        refuse("creating it", err);
    d->max_pages = UINT32_MAX; /* no limit, as the tools show it */
    dom0 = d;
    for (unsigned i = 0; i < nr_vcpus; i++) {
        err = vcpu_create(d, i);
        if (err)
            refuse("creating its vCPUs", err);
        if (boot_options.dom0_vcpus_pin) {
            uint64_t mask[MAX_CPUS / 64] = {BIT(i % nr_cpus)};
            vcpu_set_affinity(d->vcpu[i], mask, NULL);
        }
    }
    return d;
}

void dom0_build(struct e820_map *map, struct boot_info *boot)
{
    uint64_t t0 = now_ns(), rsdp_pa;
    unsigned nr_vcpus = MIN(cmdline_dom0_vcpus(&boot_options, nr_cpus), MAX_VCPUS_PER_DOMAIN);
    struct boot_module *initrd = boot->nr_modules > 1 ? &boot->module[1] : NULL;

    dom0_map = map;
    struct kernel_elf elf = load_kernel(&boot->module[0]);
    uint64_t t1 = now_ns();
    uint64_t initrd_bytes = initrd ? initrd->bytes : 0;
    uint64_t initrd_pa = find_ram(elf.highest_paddr, initrd_bytes + ACPI_AREA + INFO_AREA);
    uint64_t info_pa = initrd_pa + ALIGN_UP(initrd_bytes, PAGE_SIZE), acpi_pa = info_pa + INFO_AREA;
    if (initrd)
        memcpy(pa_to_virt(initrd_pa), pa_to_virt(initrd->pa), initrd_bytes);
    int err = e820_reserve_range(map, acpi_pa, acpi_pa + ACPI_AREA, E820_RAM, E820_ACPI);
    if (!err)
        err = acpi_build_dom0_tables(&acpi_info, nr_vcpus, pa_to_virt(acpi_pa), ACPI_AREA, acpi_pa,
                                     &rsdp_pa);
    if (err)
        refuse("its ACPI tables", err);
    fill_start_info(info_pa, rsdp_pa, initrd_pa, initrd_bytes,
                    module_arguments(boot->module[0].cmdline));

    struct domain *d = create(nr_vcpus);
    map_memory(d);
    add_ioapics(d);
    err = dom0_pci_init(d);
    if (err)
        refuse("its PCI devices", err);
    for (unsigned i = 0; i < boot->nr_modules; i++) {
        uint64_t start = boot->module[i].pa,
                 end = ALIGN_UP(start + boot->module[i].bytes, PAGE_SIZE);
        e820_reserve_range(&host_e820, start, end, E820_OWNED, E820_RAM);
        heap_add(start >> PAGE_SHIFT, end >> PAGE_SHIFT);
    }
    start_vcpu(d->vcpu[0], elf.pvh_entry, info_pa);
    vga_release();
    log_info("dom0: %u vCPU%s, kernel unpacked in %lu ms, built in %lu us", nr_vcpus,
             nr_vcpus == 1 ? "" : "s", (t1 - t0) / NS_PER_MS, (now_ns() - t1) / NS_PER_US);
    d->systemcontroller_pauses = 0;
    domain_unpause(d);
}
