/* vmx.c: Intel VT-x behind the operations table: vCPUs' VMCSs, where they are loaded, and the run
 * loop. */
#include "core/atomic.h"
#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "core/x86.h"
#include "domain/fpu.h"
#include "domain/hvm.h"
#include "platform/platform.h"
#include "vmx/vmcs.h"

bool vmx_enter(struct guest_regs *regs, bool launched, uint64_t *host_rsp);
extern char vmx_exit[];

/* ---- VMCSs that are not loaded
 * ------------------------------------------------------------------------- */
/* A VMCS may be active on one pCPU only (24.11.1), so an access from elsewhere loads it, and clears
 * it again before anybody can run it. Then the loaded vCPU's becomes current again. False: it is
 * loaded on another pCPU, which hvm.h rules out but for dumps. */
static bool foreign_begin(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    spin_lock(&s->foreign_lock);
    if (s->active_cpu < 0 && vmptrld(s->vmcs_pa))
        return true;
    spin_unlock(&s->foreign_lock);
    return false;
}

static void foreign_end(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    struct vcpu *loaded = this_cpu()->state_vcpu;
    vmclear(s->vmcs_pa);
    s->launched = false;
    if (loaded)
        vmptrld(vmx_vcpu(loaded)->vmcs_pa);
    spin_unlock(&s->foreign_lock);
}

uint64_t vmcs_foreign_read(struct vcpu *v, enum vmcs_field f)
{
    if (!foreign_begin(v))
        return 0;
    uint64_t val = vmread(f);
    foreign_end(v);
    return val;
}

void vmcs_foreign_write(struct vcpu *v, enum vmcs_field f, uint64_t val)
{
    if (!foreign_begin(v)) {
        log_err("d%uv%u: VMCS field %x not written: it runs", v->domain->id, v->id, f);
        return;
    }
    vmwrite(f, val);
    foreign_end(v);
}

/* ---- vCPUs
 * -----------------------------------------------------------------------------------------------
 */
/* Host state (24.5). The hypervisor uses neither FS, GS nor a TSS: it has no other privilege level
 * to come from and no IST. But exits want a TR that is not null; its descriptor is never read. */
static void init_host_state(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __packed gdt, idt;
    uint16_t cs, ss;

    __asm__ volatile("sgdt %0; sidt %1; mov %%cs, %2; mov %%ss, %3"
                     : "=m"(gdt), "=m"(idt), "=r"(cs), "=r"(ss));
    vmwrite(VMCS_HOST_CS_SEL, cs);
    vmwrite(VMCS_HOST_SS_SEL, ss);
    vmwrite(VMCS_HOST_DS_SEL, ss);
    vmwrite(VMCS_HOST_ES_SEL, ss);
    vmwrite(VMCS_HOST_FS_SEL, 0);
    vmwrite(VMCS_HOST_GS_SEL, 0);
    vmwrite(VMCS_HOST_TR_SEL, 0x18);
    vmwrite(VMCS_HOST_FS_BASE, 0);
    vmwrite(VMCS_HOST_GS_BASE, 0);
    vmwrite(VMCS_HOST_TR_BASE, gdt.base);
    vmwrite(VMCS_HOST_GDTR_BASE, gdt.base);
    vmwrite(VMCS_HOST_IDTR_BASE, idt.base);
    vmwrite(VMCS_HOST_CR0, read_cr0());
    vmwrite(VMCS_HOST_CR3, read_cr3());
    vmwrite(VMCS_HOST_CR4, read_cr4());
    vmwrite(VMCS_HOST_EFER, rdmsr(MSR_EFER));
    vmwrite(VMCS_HOST_PAT, rdmsr(MSR_PAT));
    vmwrite(VMCS_HOST_SYSENTER_CS, 0);
    vmwrite(VMCS_HOST_SYSENTER_ESP, 0);
    vmwrite(VMCS_HOST_SYSENTER_EIP, 0);
    vmwrite(VMCS_HOST_RIP, (uint64_t)vmx_exit);
}

static void init_controls(struct vcpu *v, struct vmx_vcpu *s)
{
    s->proc = vmx_caps.proc;
    s->proc2 = vmx_caps.proc2;
    if (v->domain->tsc_ratio)
        vmwrite(VMCS_TSC_MULTIPLIER, v->domain->tsc_ratio);
    else
        s->proc2 &= ~(uint32_t)PROC2_TSC_SCALING;
    if (v->domain->is_dom0) {
        s->proc = (s->proc & ~(uint32_t)PROC_ALL_IO) | PROC_IO_BITMAPS;
        s->proc2 &= ~(uint32_t)PROC2_WBINVD;
        vmwrite(VMCS_IO_BITMAP_A, vmx_io_bitmap(0));
        vmwrite(VMCS_IO_BITMAP_B, vmx_io_bitmap(1));
    } else {
        s->proc |= PROC_ALL_IO;
    }
    s->entry_controls = vmx_caps.entry;
    vmwrite(VMCS_PIN_CONTROLS, vmx_caps.pin);
    vmwrite(VMCS_PROC_CONTROLS, s->proc);
    vmx_apic_init_controls(v);
    vmwrite(VMCS_PROC2_CONTROLS, s->proc2);
    vmwrite(VMCS_EXIT_CONTROLS, vmx_caps.exit);
    vmwrite(VMCS_ENTRY_CONTROLS, s->entry_controls);
    vmwrite(VMCS_EXCEPTION_BITMAP, BIT(EXC_DB) | BIT(EXC_AC) | BIT(EXC_MC));
    vmwrite(VMCS_PF_ERROR_MASK, 0);
    vmwrite(VMCS_PF_ERROR_MATCH, 0);
    vmwrite(VMCS_CR3_TARGET_COUNT, 0);
    vmwrite(VMCS_EXIT_MSR_STORE_COUNT, 0);
    vmwrite(VMCS_EXIT_MSR_LOAD_COUNT, 0);
    vmwrite(VMCS_ENTRY_MSR_LOAD_COUNT, 0);
    vmwrite(VMCS_MSR_BITMAP, vmx_msr_bitmap(false));
    vmwrite(VMCS_TSC_OFFSET, v->tsc_offset);
    vmwrite(VMCS_LINK_POINTER, ~0ULL);
    vmwrite(VMCS_EPT_POINTER, s->eptp);
    if (s->proc2 & PROC2_XSAVES)
        vmwrite(VMCS_XSS_EXITING, 0);
    if (s->proc2 & PROC2_PAUSE_LOOP) {
        vmwrite(VMCS_PLE_GAP, 128);
        vmwrite(VMCS_PLE_WINDOW, 4096);
    }
}

static void vmx_vcpu_free(struct vcpu *v)
{
    struct vmx_vcpu *s = v->hw;
    if (!s)
        return;
    page_free(s->vmcs);
    kfree(s);
    v->hw = NULL;
}

static int vmx_vcpu_init(struct vcpu *v)
{
    int err = vmx_apic_vcpu_init(v);
    if (err)
        return err;
    struct vmx_vcpu *s = kzalloc(sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->vmcs = page_alloc();
    if (!s->vmcs) {
        kfree(s);
        return -ENOMEM;
    }
    *(uint32_t *)s->vmcs = vmx_caps.revision;
    s->vmcs_pa = virt_to_pa(s->vmcs);
    s->active_cpu = -1;
    s->tag_cpu = MAX_CPUS;
    s->eptp =
        p2m_root(v->domain) | EPTP_WB_4_LEVELS | (p2m_dirty_bits(v->domain) ? EPTP_DIRTY_BITS : 0);
    s->dr6 = 0xffff0ff0;
    v->hw = s;
    vmclear(s->vmcs_pa);
    if (!foreign_begin(v))
        panic("a new VMCS cannot be loaded");
    init_host_state();
    init_controls(v, s);
    foreign_end(v);
    vmx_vcpu_reset(v);
    return 0;
}

static void vmx_load(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    spin_lock(&s->foreign_lock);
    s->active_cpu = (int)this_cpu()->id;
    spin_unlock(&s->foreign_lock);
    if (!vmptrld(s->vmcs_pa))
        panic("d%uv%u: its VMCS cannot be loaded", v->domain->id, v->id);
    s->rip = vmread(VMCS_GUEST_RIP);
    s->rsp = vmread(VMCS_GUEST_RSP);
    s->rflags = vmread(VMCS_GUEST_RFLAGS);
    s->shadow_known = false;
    fpu_load(v);
    vmx_load_lazy(v);
}

/* It may run elsewhere next: VMCLEAR brings the VMCS to memory (24.11.3). */
static void vmx_save(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    vmx_save_lazy(v);
    fpu_save(v);
    vmclear(s->vmcs_pa);
    s->launched = false;
    s->active_cpu = -1;
}

/* ---- tags and translations
 * ------------------------------------------------------------------------------- */
/* A fresh VPID on this pCPU; when they run out, a new generation and one full flush. Guest-physical
 * translations hang off the EPT pointer instead (28.3.1): stale ones may have stayed here from
 * before v left this pCPU, or from a dead domain. */
static void take_tag(struct vmx_vcpu *s, struct vmx_cpu *x, unsigned cpu)
{
    if (s->flush_ept || s->tag_cpu != cpu) {
        vmx_invept(s->eptp);
        s->flush_ept = false;
    }
    if (x->next_vpid > x->last_vpid) {
        x->tag_generation++;
        this_cpu()->tlb_generations++;
        x->next_vpid = 1;
        vmx_invvpid_all();
    }
    this_cpu()->tlb_tags++;
    s->vpid = (uint16_t)x->next_vpid++;
    s->tag_generation = x->tag_generation;
    s->tag_cpu = cpu;
    vmwrite(VMCS_VPID, s->vpid);
}

static void vmx_flush_tlb(struct vcpu *v)
{
    vmx_vcpu(v)->flush_ept = true;
    vmx_new_tag(v);
}

/* ---- the run loop
 * ------------------------------------------------------------------------------------------ */
static void write_changed(enum vmcs_field f, uint64_t *held, uint64_t val)
{
    if (*held != val) {
        *held = val;
        vmwrite(f, val);
    }
}

#define TIMER_KEPT_EXITS 16

/* The stay ends when the pCPU's first timer is due. What is left of it goes from exit to entry in
 * the VMCS, but the time between the two is not counted (25.5.1): it is loaded anew by each
 * vmx_run, when the pCPU has another first timer, and after some exits, so that it is late by no
 * more than those took. */
static void load_timer(struct vmx_vcpu *s, struct cpu *c)
{
    uint64_t due = c->timers.due_tsc, now = rdtsc();

    s->due_tsc = due;
    if (timers_end_stays)
        vmwrite(VMCS_PREEMPTION_TIMER,
                due > now ? MIN(((due - now) >> vmx_caps.timer_shift) + 1, 0xffffffffUL) : 0);
}

/* Interrupts are off throughout: one that comes after the look at the work words ends the guest at
 * once (25.2). */
static void vmx_run(struct vcpu *v)
{
    struct cpu *c = this_cpu();
    struct vmx_cpu *x = c->vendor;
    struct vmx_vcpu *s = vmx_vcpu(v);

    load_timer(s, c);
    if (vmx_apic_posts() && vlapic_news(v))
        atomic_or(&v->work, VWORK_EVENT);
    do {
        if (unlikely(s->due_tsc != c->timers.due_tsc || !(c->guest_exits % TIMER_KEPT_EXITS)))
            load_timer(s, c);
        if (unlikely(s->tag_generation != x->tag_generation || s->tag_cpu != c->id))
            take_tag(s, x, c->id);
        write_changed(VMCS_GUEST_RIP, &s->rip, v->regs.rip);
        write_changed(VMCS_GUEST_RSP, &s->rsp, v->regs.gpr[RSP]);
        write_changed(VMCS_GUEST_RFLAGS, &s->rflags, v->regs.rflags);
        WRITE_ONCE(c->in_guest, true);
        smp_mb();
        if (unlikely(READ_ONCE(c->work) | READ_ONCE(v->work))) {
            WRITE_ONCE(c->in_guest, false);
            return;
        }
        bool refused = vmx_enter(&v->regs, s->launched, &s->host_rsp);
        WRITE_ONCE(c->in_guest, false);
        c->guest_exits++;
        if (unlikely(refused)) {
            vmx_entry_refused(v);
            return;
        }
        v->regs.rip = s->rip = vmread(VMCS_GUEST_RIP);
        v->regs.gpr[RSP] = s->rsp = vmread(VMCS_GUEST_RSP);
        v->regs.rflags = s->rflags = vmread(VMCS_GUEST_RFLAGS);
        s->shadow_known = false;
        vmx_dispatch(v);
    } while (!(READ_ONCE(c->work) | READ_ONCE(v->work)));
}

static void vmx_set_tsc_offset(struct vcpu *v, uint64_t offset)
{
    struct vmx_vcpu *s = vmx_vcpu(v);
    uint64_t ratio = v->domain->tsc_ratio;

    v->tsc_offset = offset;
    vmcs_write(v, VMCS_TSC_OFFSET, offset);
    if (ratio)
        vmcs_write(v, VMCS_TSC_MULTIPLIER, ratio);
    if (!ratio != !(s->proc2 & PROC2_TSC_SCALING)) {
        s->proc2 ^= PROC2_TSC_SCALING;
        vmcs_write(v, VMCS_PROC2_CONTROLS, s->proc2);
    }
}

const struct hvm_ops vmx_ops = {
    .name = "VT-x",
    .cpu_up = vmx_cpu_up,
    .cpu_down = vmx_cpu_down,
    .vcpu_init = vmx_vcpu_init,
    .vcpu_free = vmx_vcpu_free,
    .vcpu_reset = vmx_vcpu_reset,
    .run = vmx_run,
    .load = vmx_load,
    .save = vmx_save,
    .inject = vmx_inject,
    .get_segment = vmx_get_segment,
    .set_segment = vmx_set_segment,
    .get_cr = vmx_get_cr,
    .set_cr = vmx_set_cr,
    .get_efer = vmx_get_efer,
    .set_efer = vmx_set_efer,
    .get_dr = vmx_get_dr,
    .set_dr = vmx_set_dr,
    .get_cpl = vmx_get_cpl,
    .get_code_bytes = vmx_get_code_bytes,
    .get_insn_place = vmx_get_insn_place,
    .get_msr = vmx_get_msr,
    .set_msr = vmx_set_msr,
    .get_interrupt_shadow = vmx_get_interrupt_shadow,
    .set_interrupt_shadow = vmx_set_interrupt_shadow,
    .set_tsc_offset = vmx_set_tsc_offset,
    .flush_tlb = vmx_flush_tlb,
    .dump = vmx_dump,
};
