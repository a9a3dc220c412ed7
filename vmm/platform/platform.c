/* platform.c: the devices put together: which port and page is whose, interrupt lines from their
 * sources to the controllers, and the next interrupt for a vCPU.
 */
#include "platform/inner.h"

static void recount(struct domain *d);

/* ---- life cycle -------------------------------------------------------------------------- */

/* Give d its devices, by d->emulation_flags. d->hvm_params is zero or set. 0 or -ENOMEM. */
int platform_domain_init(struct domain *d)
{
    struct platform *p = kzalloc(sizeof(*p));

    if (!p)
        return -ENOMEM;
    p->domain = d;
    d->platform = p;
    int err = vioapic_init(d);
    if (err) {
        kfree(p);
        d->platform = NULL;
        return err;
    }
    vpic_reset(d);
    vpit_init(d);
    vrtc_init(d);
    vhpet_init(d);
    vpmtmr_init(d);
    return 0;
}

/* Everything as at power-on, but for the lines that outside sources hold. d is paused. */
void platform_reset(struct domain *d)
{
    spin_lock(&d->platform->irq_lock);
    vioapic_reset(d);
    vpic_reset(d);
    recount(d);
    spin_unlock(&d->platform->irq_lock);
    vpit_reset(d);
    vrtc_reset(d);
    vhpet_reset(d);
    vpmtmr_reset(d);
    for (unsigned i = 0; i < d->max_vcpus; i++)
        if (d->vcpu[i] && d->vcpu[i]->vlapic)
            vlapic_reset(d->vcpu[i]);
}

void platform_domain_destroy(struct domain *d)
{
    if (!d->platform)
        return;
    vpit_destroy(d);
    vrtc_destroy(d);
    vhpet_destroy(d);
    vpmtmr_destroy(d);
}

void platform_domain_free(struct domain *d)
{
    if (!d->platform)
        return;
    vioapic_free(d);
    kfree(d->platform);
    d->platform = NULL;
}

int platform_vcpu_init(struct vcpu *v)
{
    return vlapic_init(v);
}

void platform_vcpu_destroy(struct vcpu *v)
{
    if (v->vlapic)
        vlapic_destroy(v);
}

void platform_vcpu_free(struct vcpu *v)
{
    if (v->vlapic)
        vlapic_free(v);
}

/* ---- ports ------------------------------------------------------------------------------- */

/* A device with byte-wide ports; false: not ours. */
static bool pio_byte(struct domain *d, uint16_t port, bool write, uint8_t *val)
{
    switch (port) {
    case 0x40 ... 0x43:
    case 0x61:
        if (!has_emulation(d, XEN_X86_EMU_PIT))
            return false;
        vpit_pio(d, port, write, val);
        return true;
    case 0x20 ... 0x21:
    case 0xa0 ... 0xa1:
    case 0x4d0 ... 0x4d1:
        if (!has_emulation(d, XEN_X86_EMU_PIC))
            return false;
        vpic_pio(d, port, write, val);
        return true;
    case 0x70 ... 0x71:
        return has_emulation(d, XEN_X86_EMU_RTC) && vrtc_pio(d, port, write, val);
    default:
        return false;
    }
}

static bool pio_pm(struct domain *d, unsigned offset, unsigned bytes, bool write, uint32_t *val)
{
    if (!has_emulation(d, XEN_X86_EMU_PM))
        return false;
    if (offset >= 8) { /* the timer is read-only */
        if (!write)
            *val = vpmtmr_count(d) >> (8 * (offset - 8)) & ~0u >> (32 - 8 * bytes);
        return true;
    }
    if (offset + bytes > 4) /* PM1a_CNT is the device model's */
        return false;
    vpmtmr_event_pio(d, offset, bytes, write, val);
    return true;
}

/* Two or four bytes at byte-wide devices. */
static __attribute__((noinline)) bool pio_wide(struct domain *d, uint16_t port, unsigned bytes,
                                               bool write, uint32_t *val)
{
    uint32_t got = 0;

    for (unsigned i = 0; i < bytes; i++) {
        uint8_t byte = write ? (uint8_t)(*val >> (8 * i)) : 0xff;
        if (!pio_byte(d, (uint16_t)(port + i), write, &byte)) {
            if (i == 0 || port + i == 0x71)
                return false;
            byte = 0xff;
        }
        got |= (uint32_t)byte << (8 * i);
    }
    if (!write)
        *val = got;
    return true;
}

bool platform_pio(struct vcpu *v, uint16_t port, unsigned bytes, bool write, uint32_t *val)
{
    struct domain *d = v->domain;
    unsigned pm_offset = (uint16_t)(port - vpmtmr_port(d));

    if (pm_offset < 12)
        return pio_pm(d, pm_offset, bytes, write, val);
    if (port > 0x4d1) /* above all the others */
        return false;
    if (bytes != 1)
        return pio_wide(d, port, bytes, write, val);
    if (!write)
        *val = 0xff;
    return pio_byte(d, port, write, (uint8_t *)val);
}

/* ---- pages ------------------------------------------------------------------------------- */

static bool hpet_claims(const struct domain *d, paddr_t gpa)
{
    return gpa - VHPET_BASE < VHPET_BYTES && has_emulation(d, XEN_X86_EMU_HPET) &&
           d->hvm_params[HVM_PARAM_HPET_ENABLED];
}

bool platform_mmio_claims(struct vcpu *v, paddr_t gpa)
{
    return (gpa & PAGE_MASK) == v->vlapic->mmio_page || vioapic_at(v->domain, gpa) ||
           hpet_claims(v->domain, gpa);
}

bool platform_mmio(struct vcpu *v, paddr_t gpa, unsigned bytes, bool write, uint64_t *val)
{
    if ((gpa & PAGE_MASK) == v->vlapic->mmio_page) {
        vlapic_mmio(v, gpa & (PAGE_SIZE - 1), bytes, write, val);
        return true;
    }
    struct vioapic *io = vioapic_at(v->domain, gpa);
    if (io) {
        vioapic_mmio(v->domain, io, gpa, bytes, write, val);
        return true;
    }
    if (hpet_claims(v->domain, gpa)) {
        vhpet_mmio(v->domain, gpa, bytes, write, val);
        return true;
    }
    return false;
}

/* ---- interrupt lines --------------------------------------------------------------------- */

/* The 8254 is wired to PIC input 0 and IOAPIC pin 2, where the cascade would be. */
static unsigned isa_to_gsi(unsigned irq)
{
    return irq == 0 ? 2 : irq;
}

static unsigned gsi_to_isa(unsigned gsi)
{
    return gsi == 2 ? 0 : gsi;
}

/* One more or one fewer source asserts gsi. Under irq_lock. */
static void gsi_count(struct domain *d, unsigned gsi, bool up)
{
    uint8_t *count = &d->platform->lines.count[gsi];
    bool was = *count;

    *count = (uint8_t)(up ? *count + 1 : *count - 1);
    bool level = *count;
    if (was == level)
        return;
    vioapic_line(d, gsi, level);
    if (gsi < 16 && gsi != 0 && has_emulation(d, XEN_X86_EMU_PIC))
        vpic_line(d, gsi_to_isa(gsi), level);
}

/* Set bit n of a source map to level; true when it changed. */
static bool change_bit(uint64_t *map, unsigned n, bool level)
{
    if ((*map >> n & 1) == level)
        return false;
    *map ^= BIT(n);
    return true;
}

static void isa_line(struct domain *d, unsigned irq, bool level)
{
    struct irq_lines *l = &d->platform->lines;

    if ((l->isa >> irq & 1) == level)
        return;
    l->isa ^= (uint16_t)(1u << irq);
    gsi_count(d, isa_to_gsi(irq), level);
}

void platform_isa_irq(struct domain *d, unsigned irq, bool level)
{
    if (irq > 15 || irq == 2)
        return;
    spin_lock(&d->platform->irq_lock);
    isa_line(d, irq, level);
    spin_unlock(&d->platform->irq_lock);
}

void isa_pulse(struct domain *d, unsigned irq)
{
    spin_lock(&d->platform->irq_lock);
    isa_line(d, irq, false);
    isa_line(d, irq, true);
    spin_unlock(&d->platform->irq_lock);
}

void platform_gsi(struct domain *d, unsigned gsi, bool level)
{
    if (gsi >= NR_GUEST_GSIS)
        return;
    spin_lock(&d->platform->irq_lock);
    if (change_bit(&d->platform->lines.direct, gsi, level))
        gsi_count(d, gsi, level);
    spin_unlock(&d->platform->irq_lock);
}

void device_gsi(struct domain *d, unsigned gsi, bool level)
{
    if (gsi >= NR_GUEST_GSIS)
        return;
    spin_lock(&d->platform->irq_lock);
    if (change_bit(&d->platform->lines.device, gsi, level))
        gsi_count(d, gsi, level);
    spin_unlock(&d->platform->irq_lock);
}

void gsi_pulse(struct domain *d, unsigned gsi)
{
    device_gsi(d, gsi, false);
    device_gsi(d, gsi, true);
}

static unsigned intx_gsi(unsigned dev, unsigned pin)
{
    return (((dev << 2) + (dev >> 3) + pin) & 31) + 16;
}

void platform_pci_intx(struct domain *d, unsigned dev, unsigned pin, bool level)
{
    struct irq_lines *l = &d->platform->lines;

    if (dev > 31 || pin > 3)
        return;
    spin_lock(&d->platform->irq_lock);
    unsigned n = dev * 4 + pin, link = (dev + pin) & 3;
    if (change_bit(&l->intx[n / 64], n % 64, level)) {
        gsi_count(d, intx_gsi(dev, pin), level);
        bool was = l->link_count[link];
        l->link_count[link] = (uint8_t)(l->link_count[link] + (level ? 1 : -1));
        if (was != (bool)l->link_count[link] && l->route[link])
            gsi_count(d, l->route[link], level);
    }
    spin_unlock(&d->platform->irq_lock);
}

/* isa_irq 0 disconnects the link. -EINVAL: no such link, or no PCI interrupt can go there. */
int platform_pci_link_route(struct domain *d, unsigned link, unsigned isa_irq)
{
    struct irq_lines *l = &d->platform->lines;

    if (link > 3 || isa_irq > 15 || isa_irq == 2)
        return -EINVAL;
    spin_lock(&d->platform->irq_lock);
    unsigned old = l->route[link];
    l->route[link] = (uint8_t)isa_irq;
    if (old != isa_irq && l->link_count[link]) {
        if (old)
            gsi_count(d, old, false);
        if (isa_irq)
            gsi_count(d, isa_irq, true);
    }
    spin_unlock(&d->platform->irq_lock);
    return 0;
}

int platform_msi(struct domain *d, uint64_t addr, uint32_t data)
{
    if (addr >> 20 != 0xfee)
        return -EINVAL;
    struct apic_msg m = {.dest = addr >> 12 & 0xff,
                         .logical = addr >> 2 & 1,
                         .level = data >> 15 & 1,
                         .vector = data & 0xff,
                         .mode = data >> 8 & 7};
    if (m.level && !(data >> 14 & 1))
        return 0; /* deassert means nothing to a LAPIC */
    if (m.mode != APIC_FIXED && m.mode != APIC_LOWEST && m.mode != APIC_NMI)
        return -EINVAL;
    vlapic_deliver(d, &m);
    return 0;
}

/* Does any vCPU take the PIC's interrupts? */
static bool pic_is_heard(const struct domain *d)
{
    if (!has_emulation(d, XEN_X86_EMU_PIC))
        return false;
    if (d->platform->pin0_extint >= 0)
        return true;
    for (unsigned i = 0; i < d->max_vcpus; i++)
        if (d->vcpu[i] && d->vcpu[i]->vlapic && d->vcpu[i]->vlapic->extint)
            return true;
    return false;
}

enum vtick_line isa_tick_line(struct domain *d, unsigned irq)
{
    enum vtick_line state = VTICK_MASKED;

    spin_lock(&d->platform->irq_lock);
    if (!vpic_masked(d, irq) && pic_is_heard(d))
        state = vpic_requested(d, irq) ? VTICK_BUSY : VTICK_READY;
    if (state != VTICK_BUSY && !vioapic_masked(d, isa_to_gsi(irq)))
        state = vioapic_requested(d, isa_to_gsi(irq)) ? VTICK_BUSY : VTICK_READY;
    spin_unlock(&d->platform->irq_lock);
    return state;
}

enum vtick_line gsi_tick_line(struct domain *d, unsigned gsi)
{
    enum vtick_line state = VTICK_MASKED;

    if (gsi > 0 && gsi < 16)
        return isa_tick_line(d, gsi_to_isa(gsi));
    spin_lock(&d->platform->irq_lock);
    if (!vioapic_masked(d, gsi))
        state = vioapic_requested(d, gsi) ? VTICK_BUSY : VTICK_READY;
    spin_unlock(&d->platform->irq_lock);
    return state;
}

/* An EOI just before this is not seen: then the source's own timer looks, a little later. */
void tick_note(struct domain *d, struct vtick *t)
{
    if (t->noted == t->waits)
        return;
    t->noted = t->waits;
    atomic_add(&d->platform->ticks_wait, t->noted ? 1u : -1u);
    for (unsigned i = 0; t->noted && i < d->max_vcpus; i++)
        if (d->vcpu[i] && d->vcpu[i]->vlapic && d->vcpu[i]->vlapic->by_cpu)
            vcpu_kick(d->vcpu[i], VWORK_EVENT); /* its EOIs must exit: vlapic_entry */
}

void ticks_look(struct domain *d, struct vcpu *v)
{
    struct platform *p = d->platform;

    if (v && READ_ONCE(v->vlapic->tick.waits))
        vlapic_timer_look(v);
    if (READ_ONCE(p->pit.tick.waits))
        vpit_look(d);
    if (READ_ONCE(p->rtc.tick.waits))
        vrtc_look(d);
    for (unsigned n = 0; n < HPET_TIMER_NUM; n++)
        if (READ_ONCE(p->hpet.t[n].tick.waits))
            vhpet_look(d, n);
}

/* NMI from the board (xl trigger nmi, watchdogs): through LINT1, unless port 0x70 masks it. */
void platform_nmi(struct domain *d)
{
    if (has_emulation(d, XEN_X86_EMU_RTC) && d->platform->rtc.nmi_masked)
        return;
    for (unsigned i = 0; i < d->max_vcpus; i++) {
        struct vcpu *v = d->vcpu[i];
        if (!v || !v->vlapic)
            continue;
        uint32_t lvt = vlapic_read(v, LAPIC_LVT_LINT1);
        bool wired =
            v->vlapic->hw_enabled ? !(lvt & LVT_MASKED) && (lvt >> 8 & 7) == APIC_NMI : v->id == 0;
        if (wired)
            vcpu_nmi(v);
    }
}

/* ---- the next interrupt ------------------------------------------------------------------ */

int platform_pending_interrupt(struct vcpu *v, enum intr_source *src)
{
    struct domain *d = v->domain;
    const struct platform *p = d->platform;

    if (READ_ONCE(v->info->evtchn_upcall_pending) && /* the mask is for PV guests only */
        d->callback_via_type == HVM_PARAM_CALLBACK_TYPE_VECTOR && !v->upcall_vector) {
        *src = INTR_CALLBACK;
        return (int)(d->callback_via_data & 0xff);
    }
    int pic = READ_ONCE(p->pic.next);
    if (pic >= 0 && (v->vlapic->extint || p->pin0_extint == (int)v->id)) {
        *src = INTR_PIC;
        return pic;
    }
    *src = INTR_LAPIC;
    return vlapic_pending(v);
}

int platform_accept_interrupt(struct vcpu *v, enum intr_source src, int vector)
{
    switch (src) {
    case INTR_CALLBACK: /* the guest's handler clears upcall_pending */
        break;
    case INTR_PIC:
        vpic_ack(v->domain, vector);
        break;
    case INTR_LAPIC:
        vlapic_accept(v, (uint8_t)vector);
        break;
    }
    return vector;
}

/* ---- lines in HVM contexts --------------------------------------------------------------- */

/* Work the counts out again from the source maps, with no edge made. Under irq_lock. */
static void recount(struct domain *d)
{
    struct platform *p = d->platform;
    struct irq_lines *l = &p->lines;

    memset(l->count, 0, sizeof(l->count));
    memset(l->link_count, 0, sizeof(l->link_count));
    for (unsigned n = 0; n < 128; n++) {
        if (!(l->intx[n / 64] >> (n % 64) & 1))
            continue;
        l->count[intx_gsi(n / 4, n % 4)]++;
        l->link_count[(n / 4 + n % 4) & 3]++;
    }
    for (unsigned i = 0; i < 4; i++)
        if (l->link_count[i] && l->route[i])
            l->count[l->route[i]]++;
    for (unsigned i = 0; i < NR_GUEST_GSIS; i++)
        l->count[i] = (uint8_t)(l->count[i] + (l->direct >> i & 1) + (l->device >> i & 1));
    for (unsigned i = 0; i < 16; i++)
        l->count[isa_to_gsi(i)] = (uint8_t)(l->count[isa_to_gsi(i)] + (l->isa >> i & 1));
    p->pic.lines = 0;
    for (unsigned i = 1; i < 16; i++)
        if (l->count[i])
            p->pic.lines |= (uint16_t)(1u << gsi_to_isa(i));
}

int irq_lines_save_pci(struct domain *d, struct hvm_hw_pci_irqs *out)
{
    memcpy(out->pad, d->platform->lines.intx, sizeof(out->pad));
    return 0;
}

int irq_lines_load_pci(struct domain *d, const struct hvm_hw_pci_irqs *in)
{
    spin_lock(&d->platform->irq_lock);
    memcpy(d->platform->lines.intx, in->pad, sizeof(in->pad));
    recount(d);
    spin_unlock(&d->platform->irq_lock);
    return 0;
}

int irq_lines_save_isa(struct domain *d, struct hvm_hw_isa_irqs *out)
{
    out->pad[0] = d->platform->lines.isa;
    return 0;
}

int irq_lines_load_isa(struct domain *d, const struct hvm_hw_isa_irqs *in)
{
    spin_lock(&d->platform->irq_lock);
    d->platform->lines.isa = (uint16_t)(in->pad[0] & ~BIT(2));
    recount(d);
    spin_unlock(&d->platform->irq_lock);
    return 0;
}

int irq_lines_save_link(struct domain *d, struct hvm_hw_pci_link *out)
{
    memset(out, 0, sizeof(*out));
    memcpy(out->route, d->platform->lines.route, sizeof(out->route));
    return 0;
}

int irq_lines_load_link(struct domain *d, const struct hvm_hw_pci_link *in)
{
    for (unsigned i = 0; i < 4; i++)
        if (in->route[i] > 15 || in->route[i] == 2)
            return -EINVAL;
    spin_lock(&d->platform->irq_lock);
    memcpy(d->platform->lines.route, in->route, sizeof(in->route));
    recount(d);
    spin_unlock(&d->platform->irq_lock);
    return 0;
}
