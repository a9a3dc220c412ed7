/* task.c: hardware task switches, which VT-x leaves to the hypervisor (SDM 3C, 25.4.2): the steps
 * of SDM 3A, 7.3, after the checks that the CPU made before the exit. A fault while the new task's
 * segments load is the new task's. */
#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "core/x86.h"
#include "domain/hvm.h"
#include "vmx/vmcs.h"

enum task_source { TASK_CALL, TASK_IRET, TASK_JMP, TASK_GATE }; /* table 27-2 */

#define RFLAGS_NT   BIT(14)
#define DESC_BUSY   2
#define RFLAGS_TASK 0x3f7fd5UL /* what a TSS can hold */

struct tss32 {
    uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, gpr[8];
    uint32_t sel[6]; /* ES, CS, SS, DS, FS, GS */
    uint32_t ldt;
    uint16_t trap, iomap;
} __packed;
struct tss16 {
    uint16_t link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, gpr[8], sel[4], ldt;
} __packed;
STATIC_ASSERT(sizeof(struct tss32) == 104);
STATIC_ASSERT(sizeof(struct tss16) == 44);

static struct segment decode(uint16_t sel, uint64_t d)
{
    struct segment g = {sel, (uint16_t)((d >> 40 & 0xff) | (d >> 44 & 0xf00)),
                        (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000)),
                        (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000)};
    if (g.attr & 0x800)
        g.limit = g.limit << 12 | 0xfff;
    return g;
}

/* The linear address of a selector's descriptor; -EINVAL when it is outside its table. */
static int descriptor_at(struct vcpu *v, uint16_t sel, uint64_t *at)
{
    struct segment table;
    vmx_get_segment(v, sel & 4 ? SEGR_LDTR : SEGR_GDTR, &table);
    if ((sel & 4 && !(table.attr & 0x80)) || (sel | 7u) > table.limit)
        return -EINVAL;
    *at = table.base + (sel & ~7u);
    return 0;
}

static int set_busy(struct vcpu *v, uint16_t sel, bool busy)
{
    uint64_t at;
    uint8_t type;
    if (descriptor_at(v, sel, &at) || copy_from_guest(&type, at + 5, 1))
        return -EFAULT;
    type = busy ? type | DESC_BUSY : type & (uint8_t)~DESC_BUSY;
    return copy_to_guest(at + 5, &type, 1);
}

/* ---- leaving the old task
 * ---------------------------------------------------------------------------- */
static int save_task(struct vcpu *v, const struct segment *tr, uint64_t rip, uint64_t rflags)
{
    bool wide = tr->attr & 8;
    struct tss32 t;
    struct tss16 s;
    struct segment g;
    const uint64_t *gpr = v->regs.gpr;
    int err =
        wide ? copy_from_guest(&t, tr->base, sizeof(t)) : copy_from_guest(&s, tr->base, sizeof(s));
    if (err)
        return err;
    t.eip = (uint32_t)rip;
    s.ip = (uint16_t)rip;
    t.eflags = (uint32_t)rflags;
    s.flags = (uint16_t)rflags;
    for (unsigned i = 0; i < 8; i++) {
        t.gpr[i] = (uint32_t)gpr[i];
        s.gpr[i] = (uint16_t)gpr[i];
    }
    for (unsigned i = 0; i < 6; i++) {
        vmx_get_segment(v, i, &g);
        t.sel[i] = g.sel;
        if (i < 4)
            s.sel[i] = g.sel;
    }
    return wide ? copy_to_guest(tr->base + offsetof(struct tss32, eip), &t.eip,
                                offsetof(struct tss32, ldt) - offsetof(struct tss32, eip))
                : copy_to_guest(tr->base + offsetof(struct tss16, ip), &s.ip,
                                offsetof(struct tss16, ldt) - offsetof(struct tss16, ip));
}

/* ---- entering the new one
 * ------------------------------------------------------------------------------- */
/* One form for both sizes. */
static int read_task(const struct segment *tr, struct tss32 *t)
{
    struct tss16 s;
    if (tr->attr & 8)
        return copy_from_guest(t, tr->base, sizeof(*t));
    int err = copy_from_guest(&s, tr->base, sizeof(s));
    if (err)
        return err;
    memset(t, 0, sizeof(*t));
    t->eip = s.ip;
    t->eflags = s.flags;
    t->ldt = s.ldt;
    for (unsigned i = 0; i < 8; i++)
        t->gpr[i] = 0xffff0000u | s.gpr[i];
    for (unsigned i = 0; i < 4; i++)
        t->sel[i] = s.sel[i];
    return 0;
}

/* SDM 3A, table 7-1: the checks on a segment register's new selector. False: the fault is queued.
 */
static bool load_segment(struct vcpu *v, enum segment_reg r, uint16_t sel, unsigned cpl)
{
    struct segment g = {sel, 0, 0, 0};
    uint64_t at, d = 0;
    unsigned fault = EXC_TS;

    if (!(sel & ~3u)) {
        if (r != SEGR_CS && r != SEGR_SS) {
            vmx_set_segment(v, r, &g);
            return true;
        }
        goto refuse;
    }
    if ((r == SEGR_LDTR && sel & 4) || descriptor_at(v, sel, &at) ||
        copy_from_guest(&d, at, sizeof(d)))
        goto refuse;
    g = decode(sel, d);
    unsigned dpl = g.attr >> 5 & 3, rpl = sel & 3, type = g.attr & 0x1f;
    switch (r) {
    case SEGR_LDTR:
        if (type != 2)
            goto refuse;
        break;
    case SEGR_CS:
        if ((type & 0x18) != 0x18 || (type & 4 ? dpl > rpl : dpl != rpl))
            goto refuse;
        break;
    case SEGR_SS:
        if ((type & 0x1a) != 0x12 || dpl != rpl || dpl != cpl)
            goto refuse;
        fault = EXC_SS;
        break;
    default:
        if (!(type & 0x10) || (type & 0xa) == 8 ||
            ((type & 0xc) != 0xc && (rpl > dpl || cpl > dpl)))
            goto refuse;
    }
    if (!(g.attr & 0x80)) {
        if (r != SEGR_SS && r != SEGR_LDTR)
            fault = EXC_NP;
        goto refuse;
    }
    if (r != SEGR_LDTR && !(g.attr & 1)) {
        uint8_t accessed = (uint8_t)(g.attr | 1);
        if (copy_to_guest(at + 5, &accessed, 1))
            goto refuse;
    }
    vmx_set_segment(v, r, &g);
    return true;
refuse:
    hvm_inject_exception(v, fault, sel & ~3u);
    return false;
}

static void load_v86_segment(struct vcpu *v, enum segment_reg r, uint16_t sel)
{
    struct segment g = {sel, 0xf3, 0xffff, (uint64_t)sel << 4};
    vmx_set_segment(v, r, &g);
}

static bool load_segments(struct vcpu *v, const struct tss32 *t)
{
    static const struct segment no_ldt;
    /* Until each is loaded it is null, but CS: a fault must find a CPL. */
    vmx_set_segment(v, SEGR_LDTR, &no_ldt);
    if (t->eflags & RFLAGS_VM) {
        for (unsigned r = SEGR_ES; r <= SEGR_GS; r++)
            load_v86_segment(v, r, (uint16_t)t->sel[r]);
        return load_segment(v, SEGR_LDTR, (uint16_t)t->ldt, 3);
    }
    if (!load_segment(v, SEGR_LDTR, (uint16_t)t->ldt, 0))
        return false;
    unsigned cpl = t->sel[SEGR_CS] & 3;
    static const uint8_t order[] = {SEGR_SS, SEGR_CS, SEGR_DS, SEGR_ES, SEGR_FS, SEGR_GS};
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
        if (!load_segment(v, order[i], (uint16_t)t->sel[order[i]], cpl))
            return false;
    }
    return true;
}

static int push_error(struct vcpu *v, uint32_t error, bool wide)
{
    struct segment ss;
    unsigned bytes = wide ? 4 : 2;
    uint64_t *rsp = &v->regs.gpr[RSP];
    vmx_get_segment(v, SEGR_SS, &ss);
    uint64_t mask = ss.attr & 0x400 ? 0xffffffffu : 0xffff, sp = (*rsp - bytes) & mask;
    *rsp = (*rsp & ~mask) | sp;
    return copy_to_guest((uint32_t)(ss.base + sp), &error, bytes);
}

static void enter_task(struct vcpu *v, const struct segment *tr, struct tss32 *t, bool nested)
{
    if (tr->attr & 8 && vmx_get_cr(v, 0) & CR0_PG)
        hvm_set_cr3(v, t->cr3);
    v->regs.rip = t->eip;
    v->regs.rflags = (t->eflags & RFLAGS_TASK) | 2 | (nested ? RFLAGS_NT : 0);
    for (unsigned i = 0; i < 8; i++)
        v->regs.gpr[i] = t->gpr[i];
    vmx_set_segment(v, SEGR_TR, tr);
    hvm_set_cr0(v, vmx_get_cr(v, 0) | CR0_TS);
    vmx_set_dr(v, 7, vmx_get_dr(v, 7) & ~0x55UL);
    if (load_segments(v, t) && t->trap & 1) {
        vmx_set_dr(v, 6, vmx_get_dr(v, 6) | BIT(15));
        hvm_inject_exception(v, EXC_DB, -1);
    }
}

/* 0, or an errno: the guest's tables cannot be reached, and the domain is beyond help. */
int vmx_task_switch(struct vcpu *v)
{
    uint64_t q = vmread(VMCS_EXIT_QUALIFICATION), at, d, rflags = v->regs.rflags, rip = v->regs.rip;
    uint32_t event = (uint32_t)vmread(VMCS_IDT_VECTORING_INFO);
    enum task_source source = q >> 30 & 3;
    uint16_t sel = (uint16_t)q;
    struct segment old;
    struct tss32 t;

    vmx_get_segment(v, SEGR_TR, &old);
    if (descriptor_at(v, sel, &at) || copy_from_guest(&d, at, sizeof(d)))
        return -EFAULT;
    struct segment new = decode(sel, d);
    /* An event that came through a task gate is being delivered by this; only those of instructions
     * return behind the instruction. */
    bool from_event = source == TASK_GATE && event & EVENT_VALID;
    unsigned type = event >> 8 & 7;
    if (!from_event || type >= EVENT_SOFTWARE)
        rip += vmread(VMCS_EXIT_INSN_LENGTH);
    if (from_event && type == EVENT_EXCEPTION)
        v->inject.valid = false;
    if (from_event && type == EVENT_NMI) {
        v->nmi_pending = false;
        vmx_set_interruptibility(v, vmx_interruptibility(v) | BLOCKED_BY_NMI);
    }
    if (from_event && type == EVENT_INTERRUPT)
        vmx_vcpu(v)->reinject_vector = -1;
    vmx_set_interrupt_shadow(v, 0);
    if (source == TASK_IRET)
        rflags &= ~RFLAGS_NT;
    bool nested = source == TASK_CALL || source == TASK_GATE;
    uint16_t link = old.sel;
    if (save_task(v, &old, rip, rflags) || (!nested && set_busy(v, old.sel, false)) ||
        read_task(&new, &t) || (nested && copy_to_guest(new.base, &link, sizeof(link))) ||
        (source != TASK_IRET && set_busy(v, sel, true)))
        return -EFAULT;
    new.attr |= DESC_BUSY;
    enter_task(v, &new, &t, nested);
    if (from_event && type == EVENT_EXCEPTION && event & EVENT_HAS_CODE)
        return push_error(v, (uint32_t)vmread(VMCS_IDT_VECTORING_ERROR), new.attr & 8);
    return 0;
}
