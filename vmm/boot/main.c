/* main.c: from the boot loader's hand-over to the first vCPU of dom0: the order of everything. */
#include "boot/multiboot.h"
#include "core/console.h"
#include "core/cpu.h"
#include "core/errno.h"
#include "core/irq.h"
#include "core/lapic.h"
#include "core/machine.h"
#include "core/mm.h"
#include "core/sched.h"
#include "core/smp.h"
#include "core/string.h"
#include "core/time.h"
#include "core/trap.h"
#include "core/x86.h"
#include "core/watchdog.h"
#include "domain/dom0.h"
#include "domain/hvm.h"
#include "domain/selfcheck.h"
#include "platform/platform.h"
#include "svm/svm.h"
#include "vmx/vmx.h"

#define FRAME_CHUNK  0x200000ULL /* the frame table is mapped in 2 MiB pages */
#define IMAGE_AREA   0x400000ULL /* two 2 MiB pages: 1 MiB spare, the image, the rest */
#define IMAGE_OFFSET 0x100000ULL
#define POLL_NS      (20 * NS_PER_MS)
#define MIN_RAM      (64ULL << 20)
#define MIN_HEAP     (16ULL << 20)

extern char image_start[], image_end[], boot_stack[];
void relocate_image(void *dst, const void *src, size_t bytes, uint64_t cr3);

struct e820_map host_e820;
struct cmdline_options boot_options;
uint64_t host_cr3, host_xcr0;
char boot_cmdline[BOOT_CMDLINE];
static struct boot_info boot;
static struct timer poll_timer;
static uint64_t table_pool, table_pool_end;

void boot_main(uint32_t magic, uint32_t info_pa);

static void __noreturn refuse(const char *why)
{
    log_err("Ringfence cannot start: %s", why);
    for (;;)
        __asm__ volatile("cli; hlt");
}

static void *next_table_page(void)
{
    if (table_pool >= table_pool_end)
        refuse("page-table pool exhausted");
    void *p = pa_to_virt(table_pool);
    table_pool += PAGE_SIZE;
    return memset(p, 0, PAGE_SIZE);
}

static uint64_t alloc_top(uint64_t bytes, uint64_t align, uint64_t below)
{
    uint64_t pa;
    if (e820_alloc_top(&host_e820, bytes, align, below, &pa))
        refuse("not enough memory");
    return pa;
}

/* Move out of the way of dom0's memory: the image to the top of RAM below 4 GiB, under tables of
 * our own. The modules' places are marked as taken until copy_modules(). */
static void relocate(void)
{
    uint64_t bytes = (uint64_t)image_end - (uint64_t)image_start;
    e820_reserve_range(&host_e820, IMAGE_OFFSET, IMAGE_OFFSET + bytes, E820_RAM, E820_OWNED);
    for (unsigned i = 0; i < boot.nr_modules; i++)
        e820_reserve_range(&host_e820, ALIGN_DOWN(boot.module[i].pa, PAGE_SIZE),
                           ALIGN_UP(boot.module[i].pa + boot.module[i].bytes, PAGE_SIZE), E820_RAM,
                           E820_OWNED);
    uint64_t image_pa = alloc_top(IMAGE_AREA, 0x200000, 1ULL << 32);
    uint64_t tables = (e820_ram_end(&host_e820) >> 30) + 4 * host_e820.nr_entries + 32 +
                      (e820_ram_end(&host_e820) >> 37); /* the frame table's: 1 GiB for 128 GiB */
    table_pool = alloc_top(tables * PAGE_SIZE, PAGE_SIZE, 1ULL << 32);
    table_pool_end = table_pool + tables * PAGE_SIZE;
    host_cr3 = paging_build(&host_e820, image_pa, next_table_page);
    relocate_image(pa_to_virt(image_pa + IMAGE_OFFSET), image_start, bytes, host_cr3);
    e820_reserve_range(&host_e820, IMAGE_OFFSET, IMAGE_OFFSET + bytes, E820_OWNED, E820_RAM);
}

static void copy_modules(void)
{
    for (unsigned i = 0; i < boot.nr_modules; i++) {
        struct boot_module *m = &boot.module[i];
        uint64_t to = alloc_top(m->bytes ? m->bytes : 1, PAGE_SIZE, ~0ULL);
        memcpy(pa_to_virt(to), pa_to_virt(m->pa), m->bytes);
        e820_reserve_range(&host_e820, ALIGN_DOWN(m->pa, PAGE_SIZE),
                           ALIGN_UP(m->pa + m->bytes, PAGE_SIZE), E820_OWNED, E820_RAM);
        m->pa = to;
    }
}

/* Only what describes RAM has memory behind it; the table's part for a hole reads as zeroes: frames
 * that nobody owns and nobody can take a reference to. */
static void frame_table_init(void)
{
    const uint64_t frames = FRAME_CHUNK / sizeof(struct page_info);

    max_mfn = e820_ram_end(&boot.map) >> PAGE_SHIFT; /* before anything was taken */
    frame_table = (struct page_info *)FRAME_TABLE_BASE;
    for (mfn_t first = 0; first < max_mfn; first += frames) {
        struct page_info *chunk = frame_table + first;
        bool ram = false;

        for (unsigned i = 0; i < boot.map.nr_entries; i++) {
            const struct e820_entry *e = &boot.map.entries[i];
            ram |= e->type == E820_RAM && e->addr >> PAGE_SHIFT < first + frames &&
                   e->addr + e->size > first << PAGE_SHIFT;
        }
        if (!ram) {
            paging_map_zeroes(chunk);
            continue;
        }
        paging_map_chunk(chunk, alloc_top(FRAME_CHUNK, FRAME_CHUNK, ~0ULL));
        memset(chunk, 0, FRAME_CHUNK);
    }
}

/* Everything dom0 does not get is the heap's. */
static void heap_init(const struct e820_map *dom0_map)
{
    for (unsigned i = 0; i < host_e820.nr_entries; i++) {
        const struct e820_entry *e = &host_e820.entries[i];
        uint64_t start = ALIGN_UP(e->addr, PAGE_SIZE),
                 end = ALIGN_DOWN(e->addr + e->size, PAGE_SIZE);
        if (e->type != E820_RAM)
            continue;
        for (unsigned j = 0; j < dom0_map->nr_entries && start < end; j++) {
            const struct e820_entry *x = &dom0_map->entries[j];
            if (x->type == E820_RAM && x->addr < end && x->addr + x->size > start)
                start = x->addr + x->size;
        }
        if (start < end)
            heap_add(start >> PAGE_SHIFT, end >> PAGE_SHIFT);
    }
}

static void xsave_setup(void)
{
    if (!(cpuid(1, 0).c & (1u << 26)))
        return;
    struct cpuid_regs r = cpuid(0xd, 0);
    host_xcr0 = (r.a | (uint64_t)r.d << 32) & 0x7; /* x87, SSE, AVX */
}

static void poll_console(void *data)
{
    (void)data;
    console_poll_input();
    timer_set(&poll_timer, now_ns() + POLL_NS);
}

static const void *map_acpi(uint64_t pa, size_t bytes)
{
    return pa + bytes <= (1ULL << 32) ? pa_to_virt(pa) : NULL;
}

static void report_options(void)
{
    for (unsigned i = 0; i < MIN(boot_options.nr_problems, CMDLINE_MAX_PROBLEMS); i++)
        log_warn("option \"%s\": %s", boot_options.problems[i].option,
                 boot_options.problems[i].kind == CMDLINE_UNKNOWN ? "unknown" : "bad value");
}

static void choose_vendor(void)
{
    struct p2m_limits ept;
    int no_vmx = -ENODEV, no_svm = svm_setup();
    if (!no_svm) {
        hvm_ops = &svm_ops;
        p2m_setup(P2M_FORMAT_NPT,
                  (struct p2m_limits){.large_1g = cpuid(0x80000001, 0).d & (1u << 26),
                                      .large_2m = true,
                                      .dirty_bits = true,
                                      .gpa_bits = MIN(cpuid(0x80000008, 0).a & 0xff, 48u)});
        return;
    }
    if (no_svm == -ENODEV)
        no_vmx = vmx_setup(&ept);
    if (!no_vmx) {
        hvm_ops = &vmx_ops;
        p2m_setup(P2M_FORMAT_EPT, ept);
        return;
    }
    if (no_svm == -EPERM || no_vmx == -EPERM)
        refuse("turn virtualisation on in the firmware's set-up");
    refuse(no_svm == -ENODEV && no_vmx == -ENODEV
               ? "this CPU has neither VT-x (CPUID 1 ECX bit 5) nor SVM (CPUID 80000001h ECX bit 2)"
               : "it needs VT-x with EPT, VPID and unrestricted guest, or SVM with nested paging");
}

void boot_main(uint32_t magic, uint32_t info_pa)
{
    struct cpu *c = cpu_create(0, 0, boot_stack);
    nr_cpus = 1;
    int err = multiboot_parse(magic, info_pa, &boot);
    memcpy(boot_cmdline, boot.cmdline, sizeof(boot_cmdline));
    cmdline_parse(boot_cmdline, &boot_options);
    if (boot_options.console & CONSOLE_SERIAL)
        console_init(boot_options.com1.ioport, boot_options.com1.baud);
    if (boot_options.console & CONSOLE_VGA)
        vga_init();
    console_set_levels(
        (int)boot_options.loglvl.always - 1,
        (int)MAX(boot_options.guest_loglvl.always, boot_options.guest_loglvl.limited) - 1);
    trap_init();
    printk(LOG_ERR, "Ringfence: a type-1 hypervisor for unmodified guests");
    printk(LOG_ERR, "Command line: %s", boot_cmdline);
    report_options();
    if (err)
        refuse(err == -ENOENT ? "the boot loader gave no memory map"
                              : "not started by Multiboot 1 or 2");
    if (!boot.nr_modules)
        refuse("no dom0 kernel: give it as the first module");
    host_e820 = boot.map;
    if (e820_ram_pages(&host_e820) * PAGE_SIZE < MIN_RAM)
        refuse("not enough memory: 64 MiB is the least");
    relocate();
    copy_modules();
    frame_table_init();
    if (acpi_parse(map_acpi, boot.rsdp_bytes ? boot.rsdp : NULL, boot.rsdp_bytes, &acpi_info))
        refuse("no usable ACPI tables");

    static struct e820_map dom0_map;
    uint64_t available = e820_ram_pages(&host_e820) * PAGE_SIZE;
    uint64_t want = cmdline_dom0_bytes(&boot_options, available);
    if (e820_dom0(&host_e820, want, &dom0_map))
        refuse("not enough memory for dom0_mem=");
    heap_init(&dom0_map);
    if (heap_free_pages() * PAGE_SIZE < MIN_HEAP)
        refuse("dom0_mem= leaves it less than 16 MiB of memory");
    log_info("%lu MiB RAM, %lu MiB for dom0, %lu MiB free", available >> 20, want >> 20,
             heap_free_pages() >> 8);

    xsave_setup();
    lapic_init();
    c->apic_id = lapic_id();
    time_init();
    choose_vendor();
    log_info("%s with nested paging", hvm_ops->name);
    cpuid_setup();
    if (cpu_start(c))
        panic("the boot CPU cannot run guests");
    lapic_timer_calibrate();
    smp_boot_all(boot_options.maxcpus ? boot_options.maxcpus : MAX_CPUS);
    irq_init();
    dom0_build(&dom0_map, &boot);
    timer_init(&poll_timer, poll_console, NULL, 0);
    timer_set(&poll_timer, now_ns() + POLL_NS);
    watchdog_start();
#ifdef DEBUG_BUILD
    selfcheck_start();
#endif
    cpu_loop();
}
