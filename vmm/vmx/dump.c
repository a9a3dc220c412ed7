/* dump.c: a vCPU's VMCS in words, for the log: its registers and controls, and after a failed entry
 * every field, with those that break the checks of an entry (checks.c). */
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

static void broken(enum vmcs_field f, uint64_t val, const char *rule)
{
    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
        if (fields[i].field == f)
            log_err("the entry's check fails: %s (%04x) = %lx: SDM 3C, %s", fields[i].name, f, val,
                    rule);
    }
}

static const char segment_names[NR_SEGRS][5] = {"ES", "CS",   "SS", "DS",   "FS",
                                                "GS", "LDTR", "TR", "GDTR", "IDTR"};

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
        log_err("%4s %04x attr %03x limit %08x base %016lx", segment_names[i], g.sel, g.attr,
                g.limit, g.base);
    }
    log_err("exit %x qualification %lx intinfo %lx inject %lx proc %x blocked %x vpid %u",
            s->reason, vmcs_read(v, VMCS_EXIT_QUALIFICATION), vmcs_read(v, VMCS_IDT_VECTORING_INFO),
            vmcs_read(v, VMCS_ENTRY_INFO), s->proc, vmx_interruptibility(v), s->vpid);
    log_err("dr6 %lx dr7 %lx pat %lx eptp %lx tsc_offset %lx", vmx_get_dr(v, 6), vmx_get_dr(v, 7),
            vmcs_read(v, VMCS_GUEST_PAT), s->eptp, vmcs_read(v, VMCS_TSC_OFFSET));
    if (!s->dump_fields || !vmx_is_loaded(v))
        return;
    if (s->reason & REASON_ENTRY_FAILED)
        log_err("%u of the entry's checks fail", vmx_check_entry(vmread, broken));
    dump_fields();
}
