/* vlapic_cpu.c: a LAPIC whose page the CPU works on while the guest runs (VT-x: virtual-interrupt
 * delivery, SDM 3C, 29): it takes interrupts from IRR to ISR, does EOIs and writes registers.
 *
 * Nobody else may change IRR meanwhile, so senders leave their requests apart, and the vCPU moves
 * them before it enters; or the CPU itself does, from the posted-interrupt descriptor.
 */
#include "platform/inner.h"
#include "platform/vlapic.h"

#define WORDS 8 /* of a 256-bit register; each is the first of four */

int vlapic_by_cpu(struct vcpu *v, bool posted)
{
    struct vlapic *l = v->vlapic;
    uint32_t *apart = kzalloc(WORDS * 4 * sizeof(uint32_t));

    if (!apart)
        return -ENOMEM;
    l->requests = apart; /* freed with l, whatever comes */
    l->by_cpu = true;
    if (posted) {
        l->posted = kzalloc(sizeof(*l->posted)); /* aligned to its size */
        if (!l->posted)
            return -ENOMEM;
    }
    return 0;
}

paddr_t vlapic_descriptor(const struct vcpu *v)
{
    return virt_to_pa(v->vlapic->posted);
}

bool vlapic_news(const struct vcpu *v)
{
    return v->vlapic->posted && posted_news(v->vlapic->posted);
}

paddr_t vlapic_registers(const struct vcpu *v)
{
    return virt_to_pa(v->vlapic->regs);
}

void vlapic_move_requests(struct vlapic *l)
{
    uint64_t posted[4];

    for (unsigned i = 0; i < WORDS * 4; i += 4)
        if (READ_ONCE(l->requests[i]))
            l->regs[LAPIC_IRR / 4 + i] |= atomic_xchg(&l->requests[i], 0);
    if (l->posted && posted_take(l->posted, posted))
        for (unsigned i = 0; i < WORDS; i++)
            l->regs[LAPIC_IRR / 4 + 4 * i] |= (uint32_t)(posted[i / 2] >> i % 2 * 32);
}

void vlapic_drop_requests(struct vlapic *l)
{
    uint64_t posted[4];

    if (l->posted)
        posted_take(l->posted, posted);
    for (unsigned i = 0; i < WORDS * 4; i += 4)
        atomic_store(&l->requests[i], 0);
}

void vlapic_entry(struct vcpu *v, struct vlapic_entry *out)
{
    struct vlapic *l = v->vlapic;

    vlapic_move_requests(l);
    int irr = l->accepts ? vlapic_highest(l, LAPIC_IRR) : -1, isr = vlapic_highest(l, LAPIC_ISR);
    out->requested = (uint8_t)MAX(irr, 0);
    out->in_service = (uint8_t)MAX(isr, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(out->told); i++)
        out->told[i] = ticks_wait(v->domain)
                           ? ~0ULL
                           : READ_ONCE(l->regs[LAPIC_TMR / 4 + 8 * i]) |
                                 (uint64_t)READ_ONCE(l->regs[LAPIC_TMR / 4 + 8 * i + 4]) << 32;
}

void vlapic_written(struct vcpu *v, unsigned offset)
{
    uint32_t val = v->vlapic->regs[(offset & 0x3f0) / 4];

    switch (offset & 0x3f0) {
    case LAPIC_ID:
        vlapic_restore_id(v);
        break;
    case LAPIC_SELF_IPI:
        vlapic_icr(v, (val & 0xff) | 1u << 18, 0);
        break;
    default:
        vlapic_write(v, offset & 0x3f0, val);
    }
}

void vlapic_ended(struct vcpu *v, uint8_t vector)
{
    vioapic_eoi(v->domain, vector);
    if (ticks_wait(v->domain))
        ticks_look(v->domain, v);
}
