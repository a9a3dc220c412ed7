/* checks.c: what a VM entry checks before it enters (SDM 3C, 26.2 and 26.3), done by us after one
 * was refused, so that the log names the offending field. Reads fields through a function: pure
 * logic, unit-tested on the host. */
#include "core/x86.h"
#include "domain/hvm.h"
#include "vmx/vmcs.h"

struct check {
    uint64_t (*read)(enum vmcs_field f);
    void (*broken)(enum vmcs_field f, uint64_t val, const char *rule);
    unsigned count;
};

/* A rule about field f, whose value is val: reported when it does not hold. */
static void rule(struct check *c, bool holds, enum vmcs_field f, uint64_t val, const char *text)
{
    if (holds)
        return;
    c->count++;
    c->broken(f, val, text);
}

static bool canonical(uint64_t va)
{
    return (uint64_t)((int64_t)(va << 16) >> 16) == va;
}

static bool physical(uint64_t pa)
{
    return pa >> p2m_gpa_bits == 0;
}

/* ---- 26.2.1: control fields
 * ------------------------------------------------------------------------------- */
static void check_allowed(struct check *c, enum vmcs_field f, enum control_word w, const char *text)
{
    uint32_t val = (uint32_t)c->read(f), must = vmx_caps.allowed[w].must,
             may = vmx_caps.allowed[w].may;
    rule(c, (val & must) == must && !(val & ~may), f, val, text);
}

static void check_page(struct check *c, bool used, enum vmcs_field f)
{
    uint64_t pa = c->read(f);
    rule(c, !used || (!(pa & 0xfff) && physical(pa)), f, pa, "26.2.1.1: not the address of a page");
}

/* 26.2.1.1: what the TPR shadow is needed for, and what goes with virtual-interrupt delivery. */
static void check_apic_controls(struct check *c, uint32_t pin, uint32_t proc, uint32_t proc2)
{
    uint64_t threshold = c->read(VMCS_TPR_THRESHOLD), descriptor = c->read(VMCS_POSTED_DESCRIPTOR);
    bool posts = pin & PIN_POSTED_INTERRUPTS;
    bool shadow = proc & PROC_TPR_SHADOW, delivers = proc2 & PROC2_INTERRUPT_DELIVERY;

    check_page(c, shadow, VMCS_VIRTUAL_APIC_PAGE);
    check_page(c, proc2 & PROC2_APIC_ACCESSES, VMCS_APIC_ACCESS);
    rule(c, !shadow || delivers || !(threshold >> 4), VMCS_TPR_THRESHOLD, threshold,
         "26.2.1.1: bits 31:4 are reserved");
    rule(c, shadow || !(proc2 & (PROC2_X2APIC | PROC2_APIC_REGISTERS | PROC2_INTERRUPT_DELIVERY)),
         VMCS_PROC2_CONTROLS, proc2, "26.2.1.1: virtualising the APIC needs the TPR shadow");
    rule(c, !(proc2 & PROC2_X2APIC) || !(proc2 & PROC2_APIC_ACCESSES), VMCS_PROC2_CONTROLS, proc2,
         "26.2.1.1: x2APIC mode excludes APIC accesses");
    rule(c, !posts || delivers, VMCS_PIN_CONTROLS, pin,
         "26.2.1.1: posted interrupts need virtual-interrupt delivery");
    rule(c, !posts || c->read(VMCS_EXIT_CONTROLS) & EXIT_ACK_INTERRUPT, VMCS_EXIT_CONTROLS,
         c->read(VMCS_EXIT_CONTROLS), "26.2.1.1: posted interrupts need acknowledgement on exit");
    rule(c, !posts || !(c->read(VMCS_POSTED_VECTOR) >> 8), VMCS_POSTED_VECTOR,
         c->read(VMCS_POSTED_VECTOR), "26.2.1.1: bits 15:8 are reserved");
    rule(c, !posts || (!(descriptor & 0x3f) && physical(descriptor)), VMCS_POSTED_DESCRIPTOR,
         descriptor, "26.2.1.1: not an address aligned to 64 bytes");
    rule(c, !delivers || pin & PIN_INTERRUPT, VMCS_PIN_CONTROLS, pin,
         "26.2.1.1: virtual-interrupt delivery needs external-interrupt exiting");
}

static void check_execution_controls(struct check *c)
{
    uint32_t pin = (uint32_t)c->read(VMCS_PIN_CONTROLS),
             proc = (uint32_t)c->read(VMCS_PROC_CONTROLS);
    uint32_t proc2 = proc & PROC_SECONDARY ? (uint32_t)c->read(VMCS_PROC2_CONTROLS) : 0;
    uint64_t eptp = c->read(VMCS_EPT_POINTER);

    check_allowed(c, VMCS_PIN_CONTROLS, CONTROL_PIN, "26.2.1.1: a bit that the CPU does not allow");
    check_allowed(c, VMCS_PROC_CONTROLS, CONTROL_PROC,
                  "26.2.1.1: a bit that the CPU does not allow");
    if (proc & PROC_SECONDARY)
        check_allowed(c, VMCS_PROC2_CONTROLS, CONTROL_PROC2,
                      "26.2.1.1: a bit that the CPU does not allow");
    check_allowed(c, VMCS_EXIT_CONTROLS, CONTROL_EXIT,
                  "26.2.1.2: a bit that the CPU does not allow");
    check_allowed(c, VMCS_ENTRY_CONTROLS, CONTROL_ENTRY,
                  "26.2.1.3: a bit that the CPU does not allow");
    rule(c, c->read(VMCS_CR3_TARGET_COUNT) <= 4, VMCS_CR3_TARGET_COUNT,
         c->read(VMCS_CR3_TARGET_COUNT), "26.2.1.1: above four");
    check_page(c, proc & PROC_IO_BITMAPS, VMCS_IO_BITMAP_A);
    check_page(c, proc & PROC_IO_BITMAPS, VMCS_IO_BITMAP_B);
    check_page(c, proc & PROC_MSR_BITMAPS, VMCS_MSR_BITMAP);
    check_apic_controls(c, pin, proc, proc2);
    rule(c, pin & PIN_PREEMPTION_TIMER || !(c->read(VMCS_EXIT_CONTROLS) & EXIT_SAVE_TIMER),
         VMCS_EXIT_CONTROLS, c->read(VMCS_EXIT_CONTROLS),
         "26.2.1.2: saving the preemption timer needs the timer");
    rule(c, pin & PIN_NMI || !(pin & PIN_VIRTUAL_NMI), VMCS_PIN_CONTROLS, pin,
         "26.2.1.1: virtual NMIs need NMI exiting");
    rule(c, pin & PIN_VIRTUAL_NMI || !(proc & PROC_NMI_WINDOW), VMCS_PROC_CONTROLS, proc,
         "26.2.1.1: NMI-window exiting needs virtual NMIs");
    rule(c, !(proc2 & PROC2_VPID) || c->read(VMCS_VPID), VMCS_VPID, 0,
         "26.2.1.1: VPID 0 is the host's");
    rule(c,
         !(proc2 & PROC2_EPT) ||
             ((eptp & 0x3f) == EPTP_WB_4_LEVELS && !(eptp & 0xf80) && physical(eptp) &&
              (!(eptp & EPTP_DIRTY_BITS) || vmx_caps.ept_vpid & BIT(CAP_EPT_DIRTY))),
         VMCS_EPT_POINTER, eptp, "26.2.1.1: must be write-back, four levels, no reserved bit");
    rule(c, proc2 & PROC2_EPT || !(proc2 & PROC2_UNRESTRICTED), VMCS_PROC2_CONTROLS, proc2,
         "26.2.1.1: unrestricted guest needs EPT");
    rule(c, !(proc2 & PROC2_TSC_SCALING) || c->read(VMCS_TSC_MULTIPLIER), VMCS_TSC_MULTIPLIER, 0,
         "26.2.1.1: a TSC multiplier of 0");
}

/* 26.2.1.3 */
static void check_event(struct check *c)
{
    uint64_t info = c->read(VMCS_ENTRY_INFO), error = c->read(VMCS_ENTRY_ERROR);
    unsigned vector = info & 0xff, type = info >> 8 & 7;
    bool code = info & EVENT_HAS_CODE, pe = c->read(VMCS_GUEST_CR0) & CR0_PE;

    if (!(info & EVENT_VALID))
        return;
    rule(c, !(info & 0x7ffff000), VMCS_ENTRY_INFO, info, "26.2.1.3: bits 30:12 are reserved");
    rule(c, type != 1 && type != 7, VMCS_ENTRY_INFO, info, "26.2.1.3: reserved type");
    rule(c, type != EVENT_NMI || vector == EXC_NMI, VMCS_ENTRY_INFO, info,
         "26.2.1.3: an NMI's vector is 2");
    rule(c, type != EVENT_EXCEPTION || vector < 32, VMCS_ENTRY_INFO, info,
         "26.2.1.3: a hardware exception's vector is below 32");
    rule(c,
         code == (type == EVENT_EXCEPTION && pe && vector < 32 && EVENTS_WITH_CODE >> vector & 1),
         VMCS_ENTRY_INFO, info, "26.2.1.3: error code delivered or missing against the vector");
    rule(c, !code || !(error >> 16), VMCS_ENTRY_ERROR, error, "26.2.1.3: bits 31:16 are reserved");
    rule(c, type < 4 || c->read(VMCS_ENTRY_INSN_LENGTH) - 1 < 15, VMCS_ENTRY_INSN_LENGTH,
         c->read(VMCS_ENTRY_INSN_LENGTH), "26.2.1.3: no instruction has this length");
}

/* ---- 26.2.2 to 26.2.4: host state
 * ---------------------------------------------------------------------------- */
static bool pat_valid(uint64_t pat)
{
    for (; pat; pat >>= 8) {
        if ((pat & 0xff) > 7 || (pat & 0xff) == 2 || (pat & 0xff) == 3)
            return false;
    }
    return true;
}

static void check_host(struct check *c)
{
    static const enum vmcs_field selectors[] = {
        VMCS_HOST_ES_SEL, VMCS_HOST_CS_SEL, VMCS_HOST_SS_SEL, VMCS_HOST_DS_SEL,
        VMCS_HOST_FS_SEL, VMCS_HOST_GS_SEL, VMCS_HOST_TR_SEL};
    static const enum vmcs_field addresses[] = {
        VMCS_HOST_FS_BASE,   VMCS_HOST_GS_BASE,      VMCS_HOST_TR_BASE,      VMCS_HOST_GDTR_BASE,
        VMCS_HOST_IDTR_BASE, VMCS_HOST_SYSENTER_ESP, VMCS_HOST_SYSENTER_EIP, VMCS_HOST_RIP};
    uint64_t cr0 = c->read(VMCS_HOST_CR0), cr3 = c->read(VMCS_HOST_CR3),
             cr4 = c->read(VMCS_HOST_CR4);
    uint64_t efer = c->read(VMCS_HOST_EFER), pat = c->read(VMCS_HOST_PAT);

    rule(c, (cr0 & vmx_caps.cr0_fixed0) == vmx_caps.cr0_fixed0 && !(cr0 & ~vmx_caps.cr0_fixed1),
         VMCS_HOST_CR0, cr0, "26.2.2: a bit fixed for VMX has the other value");
    rule(c, (cr4 & vmx_caps.cr4_fixed0) == vmx_caps.cr4_fixed0 && !(cr4 & ~vmx_caps.cr4_fixed1),
         VMCS_HOST_CR4, cr4, "26.2.2: a bit fixed for VMX has the other value");
    rule(c, cr4 & CR4_PAE, VMCS_HOST_CR4, cr4, "26.2.4: a 64-bit host needs PAE");
    rule(c, !(cr3 >> 52), VMCS_HOST_CR3, cr3, "26.2.2: a bit beyond the physical addresses");
    rule(c, pat_valid(pat), VMCS_HOST_PAT, pat, "26.2.2: not a memory type");
    rule(c, efer & EFER_LMA && efer & EFER_LME && !(efer & ~EFER_KNOWN), VMCS_HOST_EFER, efer,
         "26.2.2: a 64-bit host has LMA and LME and no reserved bit");
    rule(c, c->read(VMCS_EXIT_CONTROLS) & EXIT_HOST_64, VMCS_EXIT_CONTROLS,
         c->read(VMCS_EXIT_CONTROLS), "26.2.4: the host is 64-bit");
    for (unsigned i = 0; i < ARRAY_SIZE(selectors); i++)
        rule(c, !(c->read(selectors[i]) & 7), selectors[i], c->read(selectors[i]),
             "26.2.3: RPL and TI must be 0");
    rule(c, c->read(VMCS_HOST_CS_SEL), VMCS_HOST_CS_SEL, 0, "26.2.3: must not be null");
    rule(c, c->read(VMCS_HOST_TR_SEL), VMCS_HOST_TR_SEL, 0, "26.2.3: must not be null");
    for (unsigned i = 0; i < ARRAY_SIZE(addresses); i++)
        rule(c, canonical(c->read(addresses[i])), addresses[i], c->read(addresses[i]),
             "26.2.2: not canonical");
}

/* ---- 26.3.1.1: guest control registers and MSRs
 * ----------------------------------------------------------------- */
static void check_guest_registers(struct check *c)
{
    static const enum vmcs_field addresses[] = {VMCS_GUEST_SYSENTER_ESP, VMCS_GUEST_SYSENTER_EIP};
    uint64_t cr0 = c->read(VMCS_GUEST_CR0), cr3 = c->read(VMCS_GUEST_CR3),
             cr4 = c->read(VMCS_GUEST_CR4);
    uint64_t efer = c->read(VMCS_GUEST_EFER), pat = c->read(VMCS_GUEST_PAT),
             dr7 = c->read(VMCS_GUEST_DR7);
    uint64_t must = vmx_caps.cr0_fixed0 & ~(CR0_PE | CR0_PG);
    bool ia32e = c->read(VMCS_ENTRY_CONTROLS) & ENTRY_IA32E;

    rule(c, (cr0 & must) == must && !(cr0 & ~vmx_caps.cr0_fixed1), VMCS_GUEST_CR0, cr0,
         "26.3.1.1: a bit fixed for VMX has the other value");
    rule(c, !(cr0 & CR0_PG) || cr0 & CR0_PE, VMCS_GUEST_CR0, cr0, "26.3.1.1: PG needs PE");
    rule(c, (cr4 & vmx_caps.cr4_fixed0) == vmx_caps.cr4_fixed0 && !(cr4 & ~vmx_caps.cr4_fixed1),
         VMCS_GUEST_CR4, cr4, "26.3.1.1: a bit fixed for VMX has the other value");
    rule(c, !ia32e || cr0 & CR0_PG, VMCS_GUEST_CR0, cr0, "26.3.1.1: IA-32e mode needs PG");
    rule(c, !ia32e || cr4 & CR4_PAE, VMCS_GUEST_CR4, cr4, "26.3.1.1: IA-32e mode needs PAE");
    rule(c, ia32e || !(cr4 & CR4_PCIDE), VMCS_GUEST_CR4, cr4, "26.3.1.1: PCIDE needs IA-32e mode");
    rule(c, !(cr3 >> 52), VMCS_GUEST_CR3, cr3, "26.3.1.1: a bit beyond the physical addresses");
    rule(c, !(dr7 >> 32), VMCS_GUEST_DR7, dr7, "26.3.1.1: bits 63:32 are reserved");
    for (unsigned i = 0; i < ARRAY_SIZE(addresses); i++)
        rule(c, canonical(c->read(addresses[i])), addresses[i], c->read(addresses[i]),
             "26.3.1.1: not canonical");
    rule(c, pat_valid(pat), VMCS_GUEST_PAT, pat, "26.3.1.1: not a memory type");
    rule(c, !(efer & ~EFER_KNOWN), VMCS_GUEST_EFER, efer, "26.3.1.1: a reserved bit");
    rule(c,
         ia32e == !!(efer & EFER_LMA) &&
             (!(cr0 & CR0_PG) || !!(efer & EFER_LMA) == !!(efer & EFER_LME)),
         VMCS_GUEST_EFER, efer, "26.3.1.1: LMA, LME and IA-32e mode must agree");
}

/* ---- 26.3.1.2, 26.3.1.3: segments
 * ---------------------------------------------------------------------------------- */
static bool type_valid(enum segment_reg r, unsigned type, bool ia32e)
{
    switch (r) {
    case SEGR_CS: /* 3: the data segment of real mode */
        return type == 3 || (type & 9) == 9;
    case SEGR_SS:
        return type == 3 || type == 7;
    case SEGR_LDTR:
        return type == 2;
    case SEGR_TR:
        return type == 11 || (type == 3 && !ia32e);
    default:
        return type & 1 && (type & 10) != 8;
    }
}

static bool dpl_valid(struct check *c, enum segment_reg r, uint64_t ar)
{
    unsigned dpl = ar >> 5 & 3, type = ar & 15, ss_dpl = c->read(VMCS_GUEST_SS_AR) >> 5 & 3;
    bool flat = !(c->read(VMCS_GUEST_CR0) & CR0_PE) || (c->read(VMCS_GUEST_CS_AR) & 15) == 3;
    if (r == SEGR_CS)
        return type == 3 ? dpl == 0 : type & 4 ? dpl <= ss_dpl : dpl == ss_dpl;
    return r != SEGR_SS || !flat || dpl == 0;
}

static void check_usable_segment(struct check *c, enum segment_reg r, uint64_t ar)
{
    enum vmcs_field f = VMCS_GUEST_ES_AR + 2 * r;
    uint32_t limit = (uint32_t)c->read(VMCS_GUEST_ES_LIMIT + 2 * r);
    uint64_t base = c->read(VMCS_GUEST_ES_BASE + 2 * r), sel = c->read(VMCS_GUEST_ES_SEL + 2 * r);
    bool ia32e = c->read(VMCS_ENTRY_CONTROLS) & ENTRY_IA32E;

    rule(c, type_valid(r, ar & 15, ia32e), f, ar, "26.3.1.2: type");
    rule(c, !!(ar & 0x10) == (r <= SEGR_GS), f, ar, "26.3.1.2: S bit");
    rule(c, dpl_valid(c, r, ar), f, ar, "26.3.1.2: DPL");
    rule(c, ar & 0x80, f, ar, "26.3.1.2: must be present");
    rule(c, !(ar & 0xfffe0f00), f, ar, "26.3.1.2: reserved bits");
    rule(c, r != SEGR_CS || !ia32e || (ar & 0x6000) != 0x6000, f, ar, "26.3.1.2: L and D both set");
    rule(c, ((limit & 0xfff) == 0xfff || !(ar & 0x8000)) && (!(limit >> 20) || ar & 0x8000), f, ar,
         "26.3.1.2: G contradicts the limit");
    if (r >= SEGR_LDTR)
        rule(c, !(sel & 4), VMCS_GUEST_ES_SEL + 2 * r, sel, "26.3.1.2: TI must be 0");
    if (r == SEGR_LDTR)
        rule(c, canonical(base), VMCS_GUEST_LDTR_BASE, base, "26.3.1.2: not canonical");
    if (r == SEGR_SS || r == SEGR_DS || r == SEGR_ES)
        rule(c, !(base >> 32), VMCS_GUEST_ES_BASE + 2 * r, base, "26.3.1.2: bits 63:32 must be 0");
}

static void check_segments(struct check *c)
{
    bool v86 = c->read(VMCS_GUEST_RFLAGS) & RFLAGS_VM;

    for (unsigned r = SEGR_ES; r <= SEGR_TR; r++) {
        uint64_t ar = c->read(VMCS_GUEST_ES_AR + 2 * r), base = c->read(VMCS_GUEST_ES_BASE + 2 * r);
        if (v86 && r <= SEGR_GS) {
            rule(c, ar == 0xf3, VMCS_GUEST_ES_AR + 2 * r, ar,
                 "26.3.1.2: virtual-8086 mode wants F3");
            rule(c, c->read(VMCS_GUEST_ES_LIMIT + 2 * r) == 0xffff, VMCS_GUEST_ES_LIMIT + 2 * r,
                 c->read(VMCS_GUEST_ES_LIMIT + 2 * r), "26.3.1.2: virtual-8086 mode wants FFFF");
            rule(c, base == c->read(VMCS_GUEST_ES_SEL + 2 * r) << 4, VMCS_GUEST_ES_BASE + 2 * r,
                 base, "26.3.1.2: virtual-8086 mode wants 16 times the selector");
        } else if (ar & AR_UNUSABLE) {
            rule(c, r != SEGR_CS && r != SEGR_TR, VMCS_GUEST_ES_AR + 2 * r, ar,
                 "26.3.1.2: must be usable");
        } else {
            check_usable_segment(c, r, ar);
        }
        if (r == SEGR_FS || r == SEGR_GS || r == SEGR_TR)
            rule(c, canonical(base), VMCS_GUEST_ES_BASE + 2 * r, base, "26.3.1.2: not canonical");
        if (r == SEGR_CS)
            rule(c, !(base >> 32), VMCS_GUEST_CS_BASE, base, "26.3.1.2: bits 63:32 must be 0");
    }
    for (unsigned r = SEGR_GDTR; r <= SEGR_IDTR; r++) {
        uint64_t base = c->read(VMCS_GUEST_ES_BASE + 2 * r),
                 limit = c->read(VMCS_GUEST_ES_LIMIT + 2 * r);
        rule(c, canonical(base), VMCS_GUEST_ES_BASE + 2 * r, base, "26.3.1.3: not canonical");
        rule(c, !(limit >> 16), VMCS_GUEST_ES_LIMIT + 2 * r, limit, "26.3.1.3: above FFFF");
    }
}

/* ---- 26.3.1.4 to 26.3.1.6: RIP, RFLAGS, what is not a register, PDPTEs
 * -------------------------------------------------- */
static void check_rip_rflags(struct check *c)
{
    uint64_t rflags = c->read(VMCS_GUEST_RFLAGS), rip = c->read(VMCS_GUEST_RIP),
             info = c->read(VMCS_ENTRY_INFO);
    bool ia32e = c->read(VMCS_ENTRY_CONTROLS) & ENTRY_IA32E;
    bool wide = ia32e && c->read(VMCS_GUEST_CS_AR) & 0x2000;

    rule(c, wide ? rip >> 48 == 0 || rip >> 48 == 0xffff : rip >> 32 == 0, VMCS_GUEST_RIP, rip,
         wide ? "26.3.1.4: bits 63:48 differ" : "26.3.1.4: above 4 GiB outside 64-bit mode");
    rule(c, !(rflags & 0xffffffffffc08028ULL) && rflags & 2, VMCS_GUEST_RFLAGS, rflags,
         "26.3.1.4: reserved bits");
    rule(c, !(rflags & RFLAGS_VM) || (!ia32e && c->read(VMCS_GUEST_CR0) & CR0_PE),
         VMCS_GUEST_RFLAGS, rflags, "26.3.1.4: VM needs protected mode and no IA-32e mode");
    rule(c, !(info & EVENT_VALID) || (info >> 8 & 7) != EVENT_INTERRUPT || rflags & RFLAGS_IF,
         VMCS_GUEST_RFLAGS, rflags, "26.3.1.4: an interrupt is injected while IF is clear");
}

static void check_non_register(struct check *c)
{
    uint64_t activity = c->read(VMCS_GUEST_ACTIVITY),
             blocked = c->read(VMCS_GUEST_INTERRUPTIBILITY);
    uint64_t info = c->read(VMCS_ENTRY_INFO), rflags = c->read(VMCS_GUEST_RFLAGS),
             link = c->read(VMCS_LINK_POINTER);
    uint64_t pending = c->read(VMCS_GUEST_PENDING_DEBUG);
    bool event = info & EVENT_VALID, shadow = blocked & (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS);
    unsigned type = info >> 8 & 7;

    rule(c, activity == 0, VMCS_GUEST_ACTIVITY, activity, "26.3.1.5: only active is used here");
    rule(c, !(blocked & ~0xfULL) && !(blocked & 4), VMCS_GUEST_INTERRUPTIBILITY, blocked,
         "26.3.1.5: reserved bits, or blocking by SMI");
    rule(c, (blocked & 3) != 3, VMCS_GUEST_INTERRUPTIBILITY, blocked,
         "26.3.1.5: blocking by both STI and MOV SS");
    rule(c, !(blocked & BLOCKED_BY_STI) || rflags & RFLAGS_IF, VMCS_GUEST_INTERRUPTIBILITY, blocked,
         "26.3.1.5: blocking by STI while IF is clear");
    rule(c, !event || type != EVENT_INTERRUPT || !shadow, VMCS_GUEST_INTERRUPTIBILITY, blocked,
         "26.3.1.5: an interrupt is injected while blocked");
    rule(c, !event || type != EVENT_NMI || !(blocked & (BLOCKED_BY_MOV_SS | BLOCKED_BY_NMI)),
         VMCS_GUEST_INTERRUPTIBILITY, blocked, "26.3.1.5: an NMI is injected while blocked");
    rule(c, !(pending & ~0x1500fULL), VMCS_GUEST_PENDING_DEBUG, pending, "26.3.1.5: reserved bits");
    rule(c, !shadow || !!(pending & BIT(14)) == !!(rflags & RFLAGS_TF), VMCS_GUEST_PENDING_DEBUG,
         pending, "26.3.1.5: BS must be TF while blocked by STI or MOV SS");
    rule(c, link == ~0ULL, VMCS_LINK_POINTER, link, "26.3.1.5: must be all ones");
}

static void check_pdptes(struct check *c)
{
    uint64_t reserved = 0x1e6 | ~((1ULL << p2m_gpa_bits) - 1);

    if (!(c->read(VMCS_GUEST_CR0) & CR0_PG) || !(c->read(VMCS_GUEST_CR4) & CR4_PAE) ||
        c->read(VMCS_ENTRY_CONTROLS) & ENTRY_IA32E)
        return;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t e = c->read(VMCS_GUEST_PDPTE0 + 2 * i);
        rule(c, !(e & 1) || !(e & reserved), VMCS_GUEST_PDPTE0 + 2 * i, e,
             "26.3.1.6: reserved bits");
    }
}

unsigned vmx_check_entry(uint64_t (*read)(enum vmcs_field f),
                         void (*broken)(enum vmcs_field f, uint64_t val, const char *rule))
{
    struct check c = {.read = read, .broken = broken};

    check_execution_controls(&c);
    check_event(&c);
    check_host(&c);
    check_guest_registers(&c);
    check_segments(&c);
    check_rip_rflags(&c);
    check_non_register(&c);
    check_pdptes(&c);
    return c.count;
}
