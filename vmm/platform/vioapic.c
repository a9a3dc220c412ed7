/* vioapic.c: redirection entries: an edge or a level on a pin becomes a message to LAPICs (82093AA
 * data sheet; version 11h, so the end of a level-triggered interrupt comes from the LAPICs).
 */
#include "platform/vioapic.h"
#include "platform/inner.h"

#define REG_ID        0x00
#define REG_VERSION   0x01
#define REG_ARB       0x02
#define REG_RTE       0x10

#define OFS_SELECT    0x00
#define OFS_WINDOW    0x10

#define RTE_RESET     BIT(16) /* masked */
#define RTE_READ_ONLY (BIT(12) | BIT(14))
#define RTE_DEFINED   (0xff00000000000000ULL | 0x1ffffULL)

static struct vioapic *by_gsi(const struct domain *d, unsigned gsi)
{
    struct platform *p = d->platform;

    for (unsigned i = 0; i < p->nr_ioapics; i++)
        if (gsi - p->ioapic[i].gsi_base < p->ioapic[i].pins)
            return &p->ioapic[i];
    return NULL;
}

static union vioapic_redir_entry *rte_of(const struct domain *d, unsigned gsi)
{
    struct vioapic *io = by_gsi(d, gsi);

    return io ? &io->rte[gsi - io->gsi_base] : NULL;
}

static struct apic_msg rte_msg(const union vioapic_redir_entry *e)
{
    return (struct apic_msg){.dest = e->fields.dest_id,
                             .logical = e->fields.dest_mode,
                             .level = e->fields.trig_mode,
                             .vector = e->fields.vector,
                             .mode = e->fields.delivery_mode};
}

/* Send the message of entry e, unless masked or still in service. True when a LAPIC took it. */
static bool send(struct domain *d, union vioapic_redir_entry *e)
{
    struct apic_msg m = rte_msg(e);
    bool level = m.level && (m.mode == APIC_FIXED || m.mode == APIC_LOWEST);

    if (e->fields.mask || (level && e->fields.remote_irr))
        return false;
    if (!vlapic_deliver(d, &m))
        return false;
    if (level)
        e->fields.remote_irr = 1;
    return true;
}

static int add(struct domain *d, paddr_t base, unsigned gsi_base, unsigned pins, uint8_t id)
{
    struct platform *p = d->platform;

    if (p->nr_ioapics == VIOAPIC_MAX || !pins || pins > VIOAPIC_MAX_PINS)
        return -EINVAL;
    struct vioapic *io = &p->ioapic[p->nr_ioapics];
    io->rte = kzalloc(pins * sizeof(*io->rte));
    if (!io->rte)
        return -ENOMEM;
    io->base = base;
    io->gsi_base = gsi_base;
    io->pins = pins;
    io->id = id;
    io->physical = d->is_dom0;
    for (unsigned i = 0; i < pins; i++)
        io->rte[i].bits = RTE_RESET;
    p->nr_ioapics++;
    return 0;
}

int vioapic_init(struct domain *d)
{
    d->platform->pin0_extint = -1;
    return d->is_dom0 ? 0 : add(d, VIOAPIC_BASE, 0, VIOAPIC_NUM_PINS, 0);
}

int vioapic_dom0_add(struct domain *d, paddr_t base, unsigned gsi_base, unsigned pins, uint8_t id)
{
    return add(d, base, gsi_base, pins, id);
}

void vioapic_reset(struct domain *d)
{
    struct platform *p = d->platform;

    p->pin0_extint = -1;
    for (unsigned n = 0; n < p->nr_ioapics; n++) {
        p->ioapic[n].ioregsel = 0;
        for (unsigned i = 0; i < p->ioapic[n].pins; i++)
            p->ioapic[n].rte[i].bits = RTE_RESET;
    }
}

void vioapic_free(struct domain *d)
{
    struct platform *p = d->platform;

    for (unsigned n = 0; n < p->nr_ioapics; n++)
        kfree(p->ioapic[n].rte);
    p->nr_ioapics = 0;
}

void vioapic_line(struct domain *d, unsigned gsi, bool level)
{
    union vioapic_redir_entry *e = rte_of(d, gsi);

    if (e && level) /* a masked edge is lost; a level is looked at again when unmasked */
        send(d, e);
}

void vioapic_dom0_assert(struct domain *d, unsigned gsi)
{
    struct platform *p = d->platform;
    bool end = true;

    spin_lock(&p->irq_lock);
    union vioapic_redir_entry *e = rte_of(d, gsi);
    if (e) {
        bool sent = send(d, e);
        end = e->fields.trig_mode && !sent && !e->fields.remote_irr;
    }
    spin_unlock(&p->irq_lock);
    if (end) /* nobody will end it later */
        dom0_gsi_eoi(gsi);
}

void vioapic_eoi(struct domain *d, uint8_t vector)
{
    struct platform *p = d->platform;

    /* The line of an upcall falls when the guest has cleared it, which made no exit: look before it
     * counts as held. */
    if (unlikely(READ_ONCE(d->callback_via_asserted)))
        hvm_callback_update(d->vcpu[0]);
    for (unsigned n = 0; n < p->nr_ioapics; n++) {
        struct vioapic *io = &p->ioapic[n];
        for (unsigned i = 0; i < io->pins; i++) {
            union vioapic_redir_entry *e = &io->rte[i];
            if (e->fields.vector != vector || !e->fields.remote_irr)
                continue;
            spin_lock(&p->irq_lock);
            bool ended = e->fields.vector == vector && e->fields.remote_irr;
            if (ended) {
                e->fields.remote_irr = 0;
                if (!io->physical && gsi_asserted(d, io->gsi_base + i))
                    send(d, e);
            }
            spin_unlock(&p->irq_lock);
            if (ended && io->physical)
                dom0_gsi_eoi(io->gsi_base + i);
        }
    }
}

bool vioapic_masked(const struct domain *d, unsigned gsi)
{
    const union vioapic_redir_entry *e = rte_of(d, gsi);

    return !e || e->fields.mask;
}

bool vioapic_requested(const struct domain *d, unsigned gsi)
{
    const union vioapic_redir_entry *e = rte_of(d, gsi);

    if (!e || e->fields.mask)
        return false;
    struct apic_msg m = rte_msg(e);
    return e->fields.remote_irr || vlapic_requested(d, &m);
}

struct vioapic *vioapic_at(const struct domain *d, paddr_t gpa)
{
    struct platform *p = d->platform;

    for (unsigned i = 0; i < p->nr_ioapics; i++)
        if (p->ioapic[i].base >> PAGE_SHIFT == gpa >> PAGE_SHIFT)
            return &p->ioapic[i];
    return NULL;
}

static uint32_t read_reg(const struct vioapic *io)
{
    unsigned reg = io->ioregsel, pin = (reg - REG_RTE) / 2;

    switch (reg) {
    case REG_ID:
    case REG_ARB:
        return io->id << 24;
    case REG_VERSION:
        return VIOAPIC_VERSION | (io->pins - 1) << 16;
    default:
        if (reg < REG_RTE || pin >= io->pins)
            return 0;
        return (uint32_t)(io->rte[pin].bits >> (reg & 1 ? 32 : 0));
    }
}

/* Pin 0 in ExtINT mode hands the PIC's INT to one LAPIC, as LINT0 does. */
static void update_pin0(struct domain *d)
{
    struct platform *p = d->platform;
    const union vioapic_redir_entry *e = &p->ioapic[0].rte[0];

    p->pin0_extint = -1;
    if (e->fields.mask || e->fields.delivery_mode != APIC_EXTINT)
        return;
    for (unsigned i = 0; i < d->max_vcpus; i++) {
        struct vcpu *v = d->vcpu[i];
        if (v && v->vlapic && vlapic_matches(v->vlapic, e->fields.dest_id, e->fields.dest_mode)) {
            p->pin0_extint = (int)i;
            vcpu_kick(v, VWORK_EVENT);
            return;
        }
    }
}

/* Write half of entry `pin`; true when a physical interrupt in service was given up by it. */
static bool write_rte(struct domain *d, struct vioapic *io, unsigned pin, bool high, uint32_t val)
{
    union vioapic_redir_entry *e = &io->rte[pin], old = *e;
    uint64_t bits =
        high ? (old.bits & 0xffffffff) | (uint64_t)val << 32 : (old.bits & ~0xffffffffULL) | val;

    e->bits = (bits & RTE_DEFINED & ~RTE_READ_ONLY) | (old.bits & RTE_READ_ONLY);
    if (!e->fields.trig_mode) /* how software drops remote IRR without an EOI */
        e->fields.remote_irr = 0;
    if (e->fields.trig_mode && !io->physical && gsi_asserted(d, io->gsi_base + pin))
        send(d, e);
    if (!io->physical && io->gsi_base + pin == 0)
        update_pin0(d);
    return old.fields.remote_irr && !e->fields.remote_irr;
}

/* Write the selected register. Takes irq_lock; tells core/irq.c without it. */
static void write_reg(struct domain *d, struct vioapic *io, uint32_t val)
{
    spin_lock(&d->platform->irq_lock);
    unsigned reg = io->ioregsel, pin = (reg - REG_RTE) / 2;
    bool rte_written = reg >= REG_RTE && pin < io->pins, ended = false;
    uint64_t rte = 0;

    if (reg == REG_ID) {
        io->id = val >> 24 & 0xf;
    } else if (rte_written) {
        ended = write_rte(d, io, pin, reg & 1, val);
        rte = io->rte[pin].bits;
    }
    spin_unlock(&d->platform->irq_lock);
    if (!io->physical || !rte_written)
        return;
    dom0_gsi_rte(io->gsi_base + pin, rte);
    if (ended)
        dom0_gsi_eoi(io->gsi_base + pin);
}

void vioapic_mmio(struct domain *d, struct vioapic *io, paddr_t gpa, unsigned bytes, bool write,
                  uint64_t *val)
{
    unsigned offset = gpa & 0xff;

    if (write && offset == OFS_SELECT)
        io->ioregsel = *val & 0xff;
    else if (write && offset == OFS_WINDOW)
        write_reg(d, io, (uint32_t)*val);
    else if (!write)
        *val = offset == OFS_SELECT ? io->ioregsel : offset == OFS_WINDOW ? read_reg(io) : 0;
    if (!write && bytes < 4)
        *val &= BIT(8 * bytes) - 1;
}

void vioapic_resync(struct domain *d)
{
    struct platform *p = d->platform;

    if (d->is_dom0 || !p->nr_ioapics)
        return;
    spin_lock(&p->irq_lock);
    for (unsigned i = 0; i < p->ioapic[0].pins; i++)
        if (p->ioapic[0].rte[i].fields.trig_mode && gsi_asserted(d, i))
            send(d, &p->ioapic[0].rte[i]);
    update_pin0(d);
    spin_unlock(&p->irq_lock);
}

int vioapic_save(struct domain *d, struct hvm_hw_vioapic *out)
{
    struct vioapic *io = &d->platform->ioapic[0];

    if (d->is_dom0 || !d->platform->nr_ioapics)
        return -ENOENT;
    spin_lock(&d->platform->irq_lock);
    out->base_address = io->base;
    out->ioregsel = io->ioregsel;
    out->id = io->id;
    memcpy(out->redirtbl, io->rte, sizeof(out->redirtbl));
    spin_unlock(&d->platform->irq_lock);
    return 0;
}

int vioapic_load(struct domain *d, const struct hvm_hw_vioapic *in)
{
    struct vioapic *io = &d->platform->ioapic[0];

    if (d->is_dom0 || !d->platform->nr_ioapics || in->base_address != VIOAPIC_BASE)
        return -EINVAL;
    spin_lock(&d->platform->irq_lock);
    io->ioregsel = in->ioregsel & 0xff;
    io->id = in->id & 0xf;
    for (unsigned i = 0; i < io->pins; i++)
        io->rte[i].bits = in->redirtbl[i].bits & RTE_DEFINED;
    spin_unlock(&d->platform->irq_lock);
    return 0;
}
