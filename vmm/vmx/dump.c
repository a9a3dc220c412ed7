/* dump.c: a vCPU's VMCS in words, for the log: its registers and controls, and after a failed entry every
 * field, with what breaks the checks of SDM 3C, 26.3, as far as they can be named. */
#include "core/print.h"
#include "core/x86.h"
#include "domain/hvm.h"
#include "vmx/vmcs.h"

static const struct {
    enum vmcs_field field;
    const char *name;
} fields[] = {
#define X(name, encoding) {VMCS_##name, #name},
    VMCS_FIELDS(X)
#undef X
};

static void dump_fields(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
        uint64_t val;
        if (vmread_ok(fields[i].field, &val))
            log_err("%04x %-24s %lx", fields[i].field, fields[i].name, val);
    }
}

/* ---- the checks on guest state ------------------------------------------------------------------------ */
static void broken(const char *rule)
{
    log_err("the guest state breaks: %s", rule);
}

/* 26.3.1.1 */
static void check_control_registers(void)
{
    uint64_t cr0 = vmread(VMCS_GUEST_CR0), cr4 = vmread(VMCS_GUEST_CR4), efer = vmread(VMCS_GUEST_EFER);
    uint64_t must = vmx_caps.cr0_fixed0 & ~(CR0_PE | CR0_PG);
    bool ia32e = vmread(VMCS_ENTRY_CONTROLS) & ENTRY_IA32E;

    if ((cr0 & must) != must || cr0 & ~vmx_caps.cr0_fixed1)
        broken("CR0 has a bit fixed for VMX at the other value");
    if (cr0 & CR0_PG && !(cr0 & CR0_PE))
        broken("CR0.PG needs CR0.PE");
    if ((cr4 & vmx_caps.cr4_fixed0) != vmx_caps.cr4_fixed0 || cr4 & ~vmx_caps.cr4_fixed1)
        broken("CR4 has a bit fixed for VMX at the other value");
    if (ia32e && (!(cr0 & CR0_PG) || !(cr4 & CR4_PAE)))
        broken("IA-32e mode needs CR0.PG and CR4.PAE");
    if (!ia32e && cr4 & CR4_PCIDE)
        broken("CR4.PCIDE needs IA-32e mode");
    if (ia32e != !!(efer & EFER_LMA) || (cr0 & CR0_PG && !!(efer & EFER_LMA) != !!(efer & EFER_LME)))
        broken("EFER.LMA, EFER.LME and IA-32e mode must agree");
    if (efer & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE))
        broken("EFER has a reserved bit");
}

/* 26.3.1.2 */
static void check_segment(enum segment_reg r, const char *name)
{
    uint32_t ar = (uint32_t)vmread(VMCS_GUEST_ES_AR + 2 * r);
    uint32_t limit = (uint32_t)vmread(VMCS_GUEST_ES_LIMIT + 2 * r);
    uint32_t sel = (uint32_t)vmread(VMCS_GUEST_ES_SEL + 2 * r);
    unsigned type = ar & 15;
    const char *what = NULL;

    if (vmread(VMCS_GUEST_RFLAGS) & RFLAGS_VM && r <= SEGR_GS) {
        if (ar != 0xf3 || limit != 0xffff || vmread(VMCS_GUEST_ES_BASE + 2 * r) != sel << 4)
            what = "virtual-8086 mode wants rights f3, limit ffff, base 16 times the selector";
    } else if (ar & AR_UNUSABLE) {
        if (r == SEGR_CS || r == SEGR_TR)
            what = "must be usable";
    } else if (!(ar & 0x80)) {
        what = "must be present";
    } else if (ar & 0xfffe0f00) {
        what = "reserved access rights";
    } else if (((limit & 0xfff) != 0xfff && ar & 0x8000) || (limit >> 20 && !(ar & 0x8000))) {
        what = "granularity contradicts the limit";
    } else if (!!(ar & 0x10) != (r <= SEGR_GS)) {
        what = "S bit";
    } else if (r == SEGR_CS ? type != 3 && (type & 9) != 9 : r == SEGR_SS ? type != 3 && type != 7
               : r <= SEGR_GS ? !(type & 1) || (type & 10) == 8
               : r == SEGR_LDTR ? type != 2 : type != 11 && type != 3) {
        what = "type";
    } else if (r >= SEGR_LDTR && sel & 4) {
        what = "TI bit of the selector";
    } else if (r == SEGR_CS && vmread(VMCS_ENTRY_CONTROLS) & ENTRY_IA32E && (ar & 0x6000) == 0x6000) {
        what = "L and D both set";
    }
    if (what)
        log_err("the guest state breaks: %s: %s", name, what);
}

/* 26.3.1.4, 26.3.1.5 */
static void check_rip_rflags(void)
{
    uint64_t rflags = vmread(VMCS_GUEST_RFLAGS), rip = vmread(VMCS_GUEST_RIP);
    uint32_t blocked = (uint32_t)vmread(VMCS_GUEST_INTERRUPTIBILITY), info = (uint32_t)vmread(VMCS_ENTRY_INFO);
    bool ia32e = vmread(VMCS_ENTRY_CONTROLS) & ENTRY_IA32E;
    bool wide = ia32e && vmread(VMCS_GUEST_CS_AR) & 0x2000;

    if (!wide && rip >> 32)
        broken("RIP above 4 GiB outside 64-bit mode");
    if (rflags & 0xffffffffffc08028ULL || !(rflags & 2))
        broken("RFLAGS has reserved bits");
    if (rflags & RFLAGS_VM && (ia32e || !(vmread(VMCS_GUEST_CR0) & CR0_PE)))
        broken("RFLAGS.VM needs protected mode and no IA-32e mode");
    if (info & EVENT_VALID && !(info & 0x700) && !(rflags & RFLAGS_IF))
        broken("an interrupt is injected while RFLAGS.IF is clear");
    if (blocked & BLOCKED_BY_STI && !(rflags & RFLAGS_IF))
        broken("blocking by STI while RFLAGS.IF is clear");
    if ((blocked & 3) == 3)
        broken("blocking by both STI and MOV SS");
    if (info & EVENT_VALID && blocked & 3 && (info >> 8 & 7) != EVENT_EXCEPTION)
        broken("an interrupt or NMI is injected while blocked");
    if (vmread(VMCS_LINK_POINTER) != ~0ULL)
        broken("VMCS link pointer");
}

static const char segment_names[NR_SEGRS][5] = {"ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR", "GDTR", "IDTR"};

static void check_guest_state(void)
{
    check_control_registers();
    for (unsigned r = SEGR_ES; r <= SEGR_TR; r++)
        check_segment(r, segment_names[r]);
    check_rip_rflags();
}

void vmx_dump(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_vcpu(v);

    if (!vmx_is_loaded(v) && s->active_cpu >= 0) {
        log_err("its VMCS is loaded on CPU%d", s->active_cpu);
        return;
    }
    log_err("cr0 %lx cr2 %lx cr3 %lx cr4 %lx efer %lx cpl %u", vmx_get_cr(v, 0), vmx_get_cr(v, 2),
            vmx_get_cr(v, 3), vmx_get_cr(v, 4), s->efer, vmx_get_cpl(v));
    for (unsigned i = 0; i < NR_SEGRS; i++) {
        struct segment g;
        vmx_get_segment(v, i, &g);
        log_err("%4s %04x attr %03x limit %08x base %016lx", segment_names[i], g.sel, g.attr, g.limit, g.base);
    }
    log_err("exit %x qualification %lx intinfo %lx inject %lx proc %x blocked %x vpid %u", s->reason,
            vmcs_read(v, VMCS_EXIT_QUALIFICATION), vmcs_read(v, VMCS_IDT_VECTORING_INFO),
            vmcs_read(v, VMCS_ENTRY_INFO), s->proc, vmx_interruptibility(v), s->vpid);
    log_err("dr6 %lx dr7 %lx pat %lx eptp %lx tsc_offset %lx", vmx_get_dr(v, 6), vmx_get_dr(v, 7),
            vmcs_read(v, VMCS_GUEST_PAT), s->eptp, vmcs_read(v, VMCS_TSC_OFFSET));
    if (!s->dump_fields || !vmx_is_loaded(v))
        return;
    if (s->reason & REASON_ENTRY_FAILED)
        check_guest_state();
    dump_fields();
}
