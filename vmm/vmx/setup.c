/* setup.c: what VT-x this machine has, in one table of controls, and turning it on (SDM 3D,
 * appendix A; 3C, 23.7). */
#include "boot/cmdline.h"
#include "core/errno.h"
#include "core/lapic.h"
#include "core/machine.h"
#include "core/print.h"
#include "core/string.h"
#include "core/x86.h"
#include "domain/fpu.h"
#include "domain/hvm.h"
#include "vmx/vmcs.h"

enum { /* SDM 3D, appendix A */
       MSR_VMX_BASIC = 0x480,
       MSR_VMX_PIN = 0x481,
       MSR_VMX_PROC = 0x482,
       MSR_VMX_EXIT = 0x483,
       MSR_VMX_ENTRY = 0x484,
       MSR_VMX_MISC = 0x485,
       MSR_VMX_CR0_FIXED0 = 0x486,
       MSR_VMX_PROC2 = 0x48b,
       MSR_VMX_EPT_VPID = 0x48c,
       MSR_VMX_TRUE_PIN = 0x48d,
};
#define MSR_ARCH_CAPABILITIES 0x10a
#define PSCHANGE_MC_NO        BIT(6)
#define BASIC_TRUE_CONTROLS   BIT(55)
#define FEATURE_LOCKED        BIT(0)
#define FEATURE_VMX           BIT(2) /* outside SMX */
#define CR4_VMXE              BIT(13)

struct vmx_caps vmx_caps;

struct control {
    uint32_t bit;
    bool required;
    const char *name;
};
static const struct control pin_controls[] = {{PIN_INTERRUPT, true, "external-interrupt exiting"},
                                              {PIN_NMI, true, "NMI exiting"},
                                              {PIN_VIRTUAL_NMI, true, "virtual NMIs"},
                                              {PIN_PREEMPTION_TIMER, false, "preemption timer"},
                                              {PIN_POSTED_INTERRUPTS, false, "posted interrupts"},
                                              {}};
static const struct control proc_controls[] = {
    {PROC_INTERRUPT_WINDOW, true, "interrupt-window exiting"},
    {PROC_TSC_OFFSET, true, "TSC offsetting"},
    {PROC_HLT, true, "HLT exiting"},
    {PROC_MWAIT, true, "MWAIT exiting"},
    {PROC_RDPMC, true, "RDPMC exiting"},
    {PROC_TPR_SHADOW, false, "TPR shadow"},
    {PROC_NMI_WINDOW, true, "NMI-window exiting"},
    {PROC_IO_BITMAPS, true, "I/O bitmaps"},
    {PROC_MSR_BITMAPS, true, "MSR bitmaps"},
    {PROC_MONITOR, true, "MONITOR exiting"},
    {PROC_SECONDARY, true, "secondary controls"},
    {}};
static const struct control proc2_controls[] = {
    {PROC2_EPT, true, "EPT"},
    {PROC2_VPID, true, "VPID"},
    {PROC2_UNRESTRICTED, true, "unrestricted guest"},
    {PROC2_RDTSCP, false, "RDTSCP"},
    {PROC2_WBINVD, false, "WBINVD exiting"},
    {PROC2_PAUSE_LOOP, false, "PAUSE-loop exiting"},
    {PROC2_INVPCID, false, "INVPCID"},
    {PROC2_XSAVES, false, "XSAVES"},
    {PROC2_TSC_SCALING, false, "TSC scaling"},
    {PROC2_APIC_ACCESSES, false, "APIC accesses"},
    {PROC2_X2APIC, false, "x2APIC"},
    {PROC2_APIC_REGISTERS, false, "APIC registers"},
    {PROC2_INTERRUPT_DELIVERY, false, "virtual-interrupt delivery"},
    {}};
static const struct control exit_controls[] = {
    {EXIT_SAVE_DEBUG, true, "save debug controls on exit"},
    {EXIT_HOST_64, true, "64-bit host"},
    {EXIT_ACK_INTERRUPT, false, "acknowledge interrupt on exit"},
    {EXIT_LOAD_PAT, true, "load PAT on exit"},
    {EXIT_LOAD_EFER, true, "load EFER on exit"},
    {EXIT_SAVE_TIMER, false, "save the preemption timer on exit"},
    {}};
static const struct control entry_controls[] = {
    {ENTRY_LOAD_DEBUG, true, "load debug controls on entry"},
    {ENTRY_IA32E, true, "64-bit guests"},
    {ENTRY_LOAD_PAT, true, "load PAT on entry"},
    {ENTRY_LOAD_EFER, true, "load EFER on entry"},
    {}};

/* Names of required parts that are not there, for one line of the log. */
struct missing {
    char text[160];
    size_t used;
};

static void note_missing(struct missing *m, const char *name)
{
    m->used += (size_t)snprintf(m->text + m->used, sizeof(m->text) - m->used, "%s%s",
                                m->used ? ", " : "", name);
    m->used = MIN(m->used, sizeof(m->text) - 1);
}

/* The capability MSR's low half must be set, its high half may be (A.3 to A.5). */
static uint32_t choose(enum control_word w, uint64_t cap, const struct control *t,
                       struct missing *m)
{
    uint32_t must = (uint32_t)cap, may = (uint32_t)(cap >> 32), val = must;

    vmx_caps.allowed[w].must = must;
    vmx_caps.allowed[w].may = may;
    for (; t->bit; t++) {
        if (may & t->bit)
            val |= t->bit;
        else if (t->required)
            note_missing(m, t->name);
    }
    return val;
}

static void choose_controls(struct missing *m)
{
    uint64_t basic = rdmsr(MSR_VMX_BASIC);
    uint32_t shift = basic & BASIC_TRUE_CONTROLS ? MSR_VMX_TRUE_PIN - MSR_VMX_PIN : 0;

    vmx_caps.revision = (uint32_t)basic & 0x7fffffff;
    vmx_caps.pin = choose(CONTROL_PIN, rdmsr(MSR_VMX_PIN + shift), pin_controls, m);
    vmx_caps.proc = choose(CONTROL_PROC, rdmsr(MSR_VMX_PROC + shift), proc_controls, m);
    vmx_caps.proc2 =
        choose(CONTROL_PROC2, vmx_caps.proc & PROC_SECONDARY ? rdmsr(MSR_VMX_PROC2) : 0,
               proc2_controls, m);
    vmx_caps.exit = choose(CONTROL_EXIT, rdmsr(MSR_VMX_EXIT + shift), exit_controls, m);
    vmx_caps.entry = choose(CONTROL_ENTRY, rdmsr(MSR_VMX_ENTRY + shift), entry_controls, m);
    /* What is switched on when there is a reason. */
    vmx_caps.proc &= ~(uint32_t)(PROC_INTERRUPT_WINDOW | PROC_NMI_WINDOW | PROC_IO_BITMAPS);
    vmx_caps.entry &= ~(uint32_t)ENTRY_IA32E;
    if (!(vmx_caps.proc & PROC_TPR_SHADOW))
        vmx_caps.proc |= PROC_CR8_LOAD | PROC_CR8_STORE;
}

static const struct {
    unsigned cap;
    const char *name;
} needed_caps[] = {
    {CAP_EPT_4_LEVELS, "EPT of four levels"},
    {CAP_EPT_WB, "write-back EPT"},
    {CAP_INVEPT, "INVEPT"},
    {CAP_INVEPT_ALL, "INVEPT of all contexts"},
    {CAP_INVVPID, "INVVPID"},
    {CAP_INVVPID_ALL, "INVVPID of all contexts"},
};

/* Westmere's preemption timer may count at another rate than it says (Intel's specification
 * updates). Older CPUs with the same fault have no unrestricted guest. */
static bool timer_counts_wrongly(void)
{
    uint32_t a = cpuid(1, 0).a, model = (a >> 4 & 0xf) | (a >> 12 & 0xf0);

    return (a >> 8 & 0xf) == 6 && (model == 0x25 || model == 0x2c || model == 0x2f);
}

/* The preemption timer (25.5.1) as the pCPU's timer while a guest runs: with all that goes with it,
 * or not at all. */
static void choose_timer(void)
{
    timers_end_stays = vmx_caps.pin & PIN_PREEMPTION_TIMER && vmx_caps.exit & EXIT_SAVE_TIMER &&
                       lapic_timer_has_deadline() && !timer_counts_wrongly();
    vmx_caps.timer_shift = rdmsr(MSR_VMX_MISC) & 0x1f;
    if (!timers_end_stays) {
        vmx_caps.pin &= ~(uint32_t)PIN_PREEMPTION_TIMER;
        vmx_caps.exit &= ~(uint32_t)EXIT_SAVE_TIMER;
    }
    log_info("VT-x: a guest's stay ends by the %s timer",
             timers_end_stays ? "preemption" : "LAPIC's");
}

/* May changing an executable entry's size raise a machine check (CVE-2018-12207)? A guest does that
 * by itself with its own tables over a large entry. Only a CPU that says so is free of it. */
static bool large_code_unsafe(void)
{
    bool told = cpuid(0, 0).a >= 7 && cpuid(7, 0).d & (1u << 29);
    return !told || !(rdmsr(MSR_ARCH_CAPABILITIES) & PSCHANGE_MC_NO);
}

int vmx_setup(struct p2m_limits *ept)
{
    if (!(cpuid(1, 0).c & (1u << 5)))
        return -ENODEV;
    uint64_t feature = rdmsr(MSR_FEATURE_CONTROL);
    if (feature & FEATURE_LOCKED && !(feature & FEATURE_VMX)) {
        log_err("VT-x is locked off by the firmware (IA32_FEATURE_CONTROL is %lx)", feature);
        return -EPERM;
    }
    struct missing missing = {};
    choose_controls(&missing);
    /* The MSR is there when EPT or VPID is (A.10). */
    vmx_caps.ept_vpid = vmx_caps.proc2 & (PROC2_EPT | PROC2_VPID) ? rdmsr(MSR_VMX_EPT_VPID) : 0;
    for (unsigned i = 0; vmx_caps.ept_vpid && i < ARRAY_SIZE(needed_caps); i++) {
        if (!(vmx_caps.ept_vpid & BIT(needed_caps[i].cap)))
            note_missing(&missing, needed_caps[i].name);
    }
    if (missing.used) {
        log_err("this CPU has VT-x without what Ringfence needs of it: %s", missing.text);
        return -EOPNOTSUPP;
    }
    choose_timer();
    vmx_caps.cr0_fixed0 = rdmsr(MSR_VMX_CR0_FIXED0);
    vmx_caps.cr0_fixed1 = rdmsr(MSR_VMX_CR0_FIXED0 + 1);
    vmx_caps.cr4_fixed0 = rdmsr(MSR_VMX_CR0_FIXED0 + 2);
    vmx_caps.cr4_fixed1 = rdmsr(MSR_VMX_CR0_FIXED0 + 3);
    *ept = (struct p2m_limits){.large_1g = vmx_caps.ept_vpid & BIT(CAP_EPT_1G),
                               .large_2m = vmx_caps.ept_vpid & BIT(CAP_EPT_2M),
                               .large_code_unsafe = large_code_unsafe(),
                               .dirty_bits = vmx_caps.ept_vpid & BIT(CAP_EPT_DIRTY),
                               .gpa_bits = MIN(cpuid(0x80000008, 0).a & 0xff, 48u)};
    log_debug(
        "VT-x controls: pin %x, processor %x, secondary %x, exit %x, entry %x; EPT and VPID %lx",
        vmx_caps.pin, vmx_caps.proc, vmx_caps.proc2, vmx_caps.exit, vmx_caps.entry,
        vmx_caps.ept_vpid);
    hvm_xsaves = vmx_caps.proc2 & PROC2_XSAVES;
    hvm_tsc_fraction_bits = vmx_caps.proc2 & PROC2_TSC_SCALING ? 48 : 0;
    vmx_apic_setup();
    vmx_permissions_init();
    return 0;
}

static bool vmxon(paddr_t pa)
{
    bool ok;
    __asm__ volatile("vmxon %1" : "=@cca"(ok) : "m"(pa) : "memory");
    return ok;
}

/* A CPU whose firmware left IA32_FEATURE_CONTROL open (APs' often do) is closed with VT-x on. */
static int unlock(void)
{
    uint64_t feature = rdmsr(MSR_FEATURE_CONTROL);
    if (!(feature & FEATURE_LOCKED))
        wrmsr(MSR_FEATURE_CONTROL, feature | FEATURE_LOCKED | FEATURE_VMX);
    return rdmsr(MSR_FEATURE_CONTROL) & FEATURE_VMX ? 0 : -EPERM;
}

int vmx_cpu_up(struct cpu *c)
{
    struct vmx_cpu *x = kzalloc(sizeof(*x));
    if (!x)
        return -ENOMEM;
    int err = -ENOMEM;
    x->vmxon = page_alloc();
    if (!x->vmxon)
        goto fail;
    err = unlock();
    if (err)
        goto fail;
    x->tag_generation = 1;
    x->next_vpid = 1;
    x->last_vpid = boot_options.asid ? 0xffff : 1;
    fpu_cpu_up();
    if (hvm_xsaves)
        wrmsr(MSR_XSS, 0); /* the guests', who may not set a bit */
    write_cr0((read_cr0() | vmx_caps.cr0_fixed0) & vmx_caps.cr0_fixed1);
    write_cr4(((read_cr4() | vmx_caps.cr4_fixed0) & vmx_caps.cr4_fixed1) | CR4_VMXE);
    *(uint32_t *)x->vmxon = vmx_caps.revision;
    err = -EIO;
    if (!vmxon(virt_to_pa(x->vmxon)))
        goto fail;
    c->vendor = x;
    vmx_invept(0);
    vmx_invvpid_all();
    return 0;
fail:
    if (x->vmxon)
        page_free(x->vmxon);
    kfree(x);
    return err;
}

void vmx_cpu_down(struct cpu *c)
{
    struct vmx_cpu *x = c->vendor;
    __asm__ volatile("vmxoff" ::: "cc", "memory");
    write_cr4(read_cr4() & ~CR4_VMXE);
    page_free(x->vmxon);
    kfree(x);
    c->vendor = NULL;
}

/* One EPT pointer's translations, or all (eptp 0) (28.3.3.1). */
void vmx_invept(uint64_t eptp)
{
    struct {
        uint64_t eptp, zero;
    } d = {eptp, 0};
    uint64_t type = eptp && vmx_caps.ept_vpid & BIT(CAP_INVEPT_SINGLE) ? 1 : 2;
    __asm__ volatile("invept %0, %1" ::"m"(d), "r"(type) : "cc", "memory");
}

void vmx_invvpid_all(void)
{
    struct {
        uint64_t vpid, linear;
    } d = {0, 0};
    __asm__ volatile("invvpid %0, %1" ::"m"(d), "r"(2UL) : "cc", "memory");
}
