/* vcpu_boot.c: how a vCPU starts: INIT and SIPI, VCPUOP_initialise, and NMIs that arrive at it. */
#include "core/atomic.h"
#include "core/errno.h"
#include "core/sched.h"
#include "core/string.h"
#include "domain/exit.h"
#include "domain/pvtime.h"
#include "platform/platform.h"

/* INIT and SIPI only leave a request: v carries it out itself, so that two vCPUs that send each
 * other INITs never wait for one another. */
void vcpu_init_signal(struct vcpu *v)
{
    v->sipi_page = -1;
    atomic_store(&v->init_requested, true);
    vcpu_block(v, VBLOCK_DOWN);
    vcpu_kick(v, VWORK_RESET);
}

void vcpu_sipi(struct vcpu *v, uint8_t vector)
{
    if (!(READ_ONCE(v->block) & VBLOCK_DOWN))
        return;
    v->sipi_page = vector;
    atomic_store(&v->init_requested, true);
    v->initialised = true;
    atomic_or(&v->work, VWORK_RESET | VWORK_EVENT);
    vcpu_unblock(v, VBLOCK_DOWN | VBLOCK_HALTED);
}

void vcpu_nmi(struct vcpu *v)
{
    v->nmi_pending = true;
    vcpu_kick(v, VWORK_EVENT);
}

static void reset_registers(struct vcpu *v)
{
    memset(&v->regs, 0, sizeof(v->regs));
    v->regs.gpr[RDX] = 0x600;
    v->regs.rip = 0xfff0;
    v->regs.rflags = 2;
    v->inject.valid = false;
    v->nmi_pending = false;
    v->halted = false;
    hvm_ops->vcpu_reset(v);
}

void vcpu_firmware_start(struct vcpu *v)
{
    static const struct segment bios = {0xf000, 0x9b, 0xffff, 0xf0000};
    vcpu_sync_state(v);
    reset_registers(v);
    hvm_ops->set_segment(v, SEGR_CS, &bios);
    hvm_ops->flush_tlb(v);
    atomic_or(&v->work, VWORK_EVENT);
    vcpu_unblock(v, VBLOCK_HALTED | VBLOCK_POLL);
}

void vcpu_start_requested(struct vcpu *v)
{
    if (!atomic_xchg(&v->init_requested, false))
        return;
    reset_registers(v);
    vlapic_init_reset(v);
    hvm_ops->flush_tlb(v);
    if (v->sipi_page >= 0) {
        struct segment cs = {(uint16_t)(v->sipi_page << 8), 0x9b, 0xffff,
                             (uint64_t)v->sipi_page << 12};
        hvm_ops->set_segment(v, SEGR_CS, &cs);
        v->regs.rip = 0;
        v->sipi_page = -1;
        hvm_ops->set_tsc_offset(v, v->domain->vcpu[0]->tsc_offset); /* one time for all, as Xen */
        pvtime_update_vcpu(v);
    }
}

/* Access rights of VCPUOP_initialise: bits 0-7 type, s, dpl, p; 8-11 avl, l, db, g; 12 null. */
static struct segment segment_from_ar(uint32_t base, uint32_t limit, uint32_t ar)
{
    struct segment g = {0, (uint16_t)(ar & 0xfff), limit, base};
    return g;
}

static int load32(struct vcpu *v, const struct vcpu_hvm_x86_32 *c)
{
    struct guest_regs *r = &v->regs;
    struct segment g;
    uint64_t *gpr = r->gpr;
    gpr[RAX] = c->eax;
    gpr[RCX] = c->ecx;
    gpr[RDX] = c->edx;
    gpr[RBX] = c->ebx;
    gpr[RSP] = c->esp;
    gpr[RBP] = c->ebp;
    gpr[RSI] = c->esi;
    gpr[RDI] = c->edi;
    r->rip = c->eip;
    r->rflags = c->eflags | 2;
    g = segment_from_ar(c->cs_base, c->cs_limit, c->cs_ar);
    hvm_ops->set_segment(v, SEGR_CS, &g);
    g = segment_from_ar(c->ds_base, c->ds_limit, c->ds_ar);
    hvm_ops->set_segment(v, SEGR_DS, &g);
    g = segment_from_ar(c->ss_base, c->ss_limit, c->ss_ar);
    hvm_ops->set_segment(v, SEGR_SS, &g);
    g = segment_from_ar(c->es_base, c->es_limit, c->es_ar);
    hvm_ops->set_segment(v, SEGR_ES, &g);
    g = segment_from_ar(c->tr_base, c->tr_limit, c->tr_ar);
    hvm_ops->set_segment(v, SEGR_TR, &g);
    hvm_ops->set_cr(v, 3, c->cr3);
    hvm_ops->set_cr(v, 4, c->cr4);
    hvm_ops->set_efer(v, c->efer);
    hvm_ops->set_cr(v, 0, c->cr0 | CR0_ET);
    return 0;
}

static int load64(struct vcpu *v, const struct vcpu_hvm_x86_64 *c)
{
    static const struct segment code = {0, 0xa9b, ~0u, 0}, data = {0, 0xc93, ~0u, 0};
    struct segment tr = {0, 0x8b, 0x67, 0};
    uint64_t *gpr = v->regs.gpr;
    gpr[RAX] = c->rax;
    gpr[RCX] = c->rcx;
    gpr[RDX] = c->rdx;
    gpr[RBX] = c->rbx;
    gpr[RSP] = c->rsp;
    gpr[RBP] = c->rbp;
    gpr[RSI] = c->rsi;
    gpr[RDI] = c->rdi;
    v->regs.rip = c->rip;
    v->regs.rflags = c->rflags | 2;
    hvm_ops->set_segment(v, SEGR_CS, &code);
    hvm_ops->set_segment(v, SEGR_DS, &data);
    hvm_ops->set_segment(v, SEGR_SS, &data);
    hvm_ops->set_segment(v, SEGR_ES, &data);
    hvm_ops->set_segment(v, SEGR_TR, &tr);
    hvm_ops->set_cr(v, 3, c->cr3);
    hvm_ops->set_cr(v, 4, c->cr4);
    hvm_ops->set_efer(v, c->efer);
    hvm_ops->set_cr(v, 0, c->cr0 | CR0_ET);
    return 0;
}

int vcpu_hvm_initialise(struct vcpu *v, const struct vcpu_hvm_context *ctx)
{
    vcpu_sync_state(v);
    reset_registers(v);
    atomic_or(&v->work, VWORK_EVENT);
    switch (ctx->mode) {
    case VCPU_HVM_MODE_32B:
        return load32(v, &ctx->cpu_regs.x86_32);
    case VCPU_HVM_MODE_64B:
        if (!(ctx->cpu_regs.x86_64.efer & EFER_LME) || !(ctx->cpu_regs.x86_64.cr4 & CR4_PAE))
            return -EINVAL;
        return load64(v, &ctx->cpu_regs.x86_64);
    default:
        return -EINVAL;
    }
}
