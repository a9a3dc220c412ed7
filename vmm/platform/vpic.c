/* vpic.c: the 8259A pair: priorities, in-service levels and the command words (Intel 8259A data
 * sheet, "Programming the 8259A"; the ELCR is the PIIX's).
 */
#include "platform/vpic.h"
#include "platform/inner.h"

enum { MASTER, SLAVE };
#define CASCADE  2 /* the master's input that the slave's INT drives */
#define SPURIOUS 7 /* what a chip answers when the request went away before INTA */

static const uint8_t elcr_writable[2] = {0xf8,
                                         0xde}; /* not the timer, keyboard, cascade, RTC, FPU */

static struct vpic *vpic_of(const struct domain *d)
{
    return &d->platform->pic;
}

/* Rank of the most urgent bit of mask: 0 is the top priority, 8 means none. */
static unsigned best_rank(const struct hvm_hw_vpic *c, uint8_t mask)
{
    unsigned turned = ((unsigned)mask << 8 | mask) >> c->priority_add & 0xff;

    return turned ? (unsigned)__builtin_ctz(turned) : 8;
}

static unsigned rank_to_irq(const struct hvm_hw_vpic *c, unsigned rank)
{
    return (rank + c->priority_add) & 7;
}

/* The input that INT would be raised for, or -1. */
static int chip_pending(const struct hvm_hw_vpic *c)
{
    unsigned rank = best_rank(c, c->irr & (uint8_t)~c->imr);
    uint8_t busy = c->isr;

    if (rank == 8)
        return -1;
    if (c->special_mask_mode)
        busy &= (uint8_t)~c->imr;
    if (c->special_fully_nested_mode && c->is_master)
        busy &= (uint8_t)~BIT(CASCADE);
    return rank < best_rank(c, busy) ? (int)rank_to_irq(c, rank) : -1;
}

/* What the CPU would be given changed: tell every vCPU that listens. */
static void next_changed(struct domain *d, bool rose)
{
    for (unsigned i = 0; i < d->max_vcpus; i++) {
        struct vcpu *v = d->vcpu[i];
        if (!v || !v->vlapic)
            continue;
        if (v->vlapic->extint || d->platform->pin0_extint == (int)i)
            vcpu_kick(v, VWORK_EVENT);
        else if (rose)
            vlapic_lint0(v);
    }
}

/* Vector of the interrupt in front. */
static int front_vector(const struct vpic *p)
{
    const struct hvm_hw_vpic *m = &p->chip[MASTER], *s = &p->chip[SLAVE];
    int irq = chip_pending(m), sub;

    if (irq != CASCADE)
        return m->irq_base + irq;
    sub = chip_pending(s);
    return s->irq_base + (sub < 0 ? SPURIOUS : sub);
}

/* State changed: work the cascade and the INT pins out again. */
static void update(struct domain *d)
{
    struct vpic *p = vpic_of(d);
    struct hvm_hw_vpic *m = &p->chip[MASTER], *s = &p->chip[SLAVE];

    s->int_output = !s->init_state && chip_pending(s) >= 0;
    m->irr = (uint8_t)((m->irr & ~BIT(CASCADE)) | (unsigned)s->int_output << CASCADE);
    m->int_output = !m->init_state && chip_pending(m) >= 0;
    int next = m->int_output ? front_vector(p) : -1, before = p->next;
    WRITE_ONCE(p->next, next);
    if (next != before)
        next_changed(d, before < 0);
}

/* INTA to one chip for input irq. */
static void chip_ack(struct hvm_hw_vpic *c, unsigned irq)
{
    uint8_t bit = (uint8_t)(1u << irq);

    if (!(c->elcr & bit))
        c->irr &= (uint8_t)~bit;
    if (!c->auto_eoi)
        c->isr |= bit;
    else if (c->rotate_on_auto_eoi)
        c->priority_add = (irq + 1) & 7;
}

void vpic_reset(struct domain *d)
{
    struct vpic *p = vpic_of(d);

    memset(p, 0, sizeof(*p));
    p->next = -1;
    p->chip[MASTER].is_master = 1;
    p->chip[MASTER].elcr = BIT(CASCADE);             /* the slave's INT is a level */
    p->chip[MASTER].imr = p->chip[SLAVE].imr = 0xff; /* silent until programmed */
}

void vpic_line(struct domain *d, unsigned irq, bool level)
{
    struct vpic *p = vpic_of(d);
    struct hvm_hw_vpic *c = &p->chip[irq >> 3];
    uint8_t bit = (uint8_t)(1u << (irq & 7));

    if (level) {
        p->lines |= (uint16_t)(1u << irq);
        c->irr |= bit;
    } else {
        p->lines &= (uint16_t) ~(1u << irq);
        if (c->elcr & bit)
            c->irr &= (uint8_t)~bit;
    }
    update(d);
}

/* Take input irq of a chip, unless its vector was a spurious one: then nothing is in service. */
static void take(struct hvm_hw_vpic *c, unsigned irq)
{
    if (irq != SPURIOUS || c->irr >> irq & 1)
        chip_ack(c, irq);
}

void vpic_ack(struct domain *d, int vector)
{
    struct vpic *p = vpic_of(d);
    struct hvm_hw_vpic *m = &p->chip[MASTER], *s = &p->chip[SLAVE];
    unsigned base = (unsigned)vector & ~7u, irq = (unsigned)vector & 7;

    spin_lock(&d->platform->irq_lock);
    if (base == s->irq_base && (base != m->irq_base || chip_pending(m) == CASCADE)) {
        take(s, irq);
        chip_ack(m, CASCADE);
    } else if (base == m->irq_base) {
        take(m, irq);
    }
    update(d);
    spin_unlock(&d->platform->irq_lock);
    if (ticks_wait(d)) /* with automatic EOI */
        ticks_look(d, NULL);
}

bool vpic_masked(const struct domain *d, unsigned irq)
{
    const struct vpic *p = vpic_of(d);

    if (irq >= 8 && (p->chip[MASTER].imr & BIT(CASCADE)))
        return true;
    return p->chip[irq >> 3].imr >> (irq & 7) & 1;
}

bool vpic_requested(const struct domain *d, unsigned irq)
{
    return vpic_of(d)->chip[irq >> 3].irr >> (irq & 7) & 1;
}

/* Inputs of chip c that are level-triggered and high now. */
static uint8_t held_levels(const struct vpic *p, unsigned chip)
{
    return (uint8_t)(p->lines >> (8 * chip)) & p->chip[chip].elcr;
}

/* ICW1: start over. Save format: bits 1:0 name the next ICW, bit 2 IC4, bit 3 SNGL. */
static void write_icw1(struct vpic *p, unsigned chip, uint8_t val)
{
    struct hvm_hw_vpic *c = &p->chip[chip];

    c->init_state = (uint8_t)((val & 3) << 2 | 1);
    c->imr = c->isr = 0;
    c->irr = held_levels(p, chip);
    c->priority_add = 0;
    c->special_mask_mode = 0;
    c->readsel_isr = 0;
    c->poll = 0;
    c->auto_eoi = 0;
    c->rotate_on_auto_eoi = 0;
    c->special_fully_nested_mode = 0;
}

/* ICW2, ICW3 or ICW4, whichever is next. */
static void write_icw(struct hvm_hw_vpic *c, uint8_t val)
{
    bool ic4 = c->init_state & 4, single = c->init_state & 8;
    unsigned next = 0;

    switch (c->init_state & 3) {
    case 1:
        c->irq_base = val & 0xf8;
        next = !single ? 2 : ic4 ? 3 : 0;
        break;
    case 2: /* the cascade is wired, not programmed */
        next = ic4 ? 3 : 0;
        break;
    case 3:
        c->special_fully_nested_mode = val >> 4 & 1;
        c->auto_eoi = val >> 1 & 1;
        break;
    }
    c->init_state = (uint8_t)(next ? (c->init_state & 0xc) | next : 0);
}

/* OCW2: end of interrupt and rotation. */
static void write_ocw2(struct hvm_hw_vpic *c, uint8_t val)
{
    unsigned irq = val & 7;
    bool rotate = val & 0x80, specific = val & 0x40, eoi = val & 0x20;

    if (!eoi && !specific) {
        c->rotate_on_auto_eoi = rotate;
        return;
    }
    if (eoi && !specific) {
        uint8_t in_service = c->isr;
        if (c->special_mask_mode)
            in_service &= (uint8_t)~c->imr;
        unsigned rank = best_rank(c, in_service);
        if (rank == 8)
            return;
        irq = rank_to_irq(c, rank);
    }
    if (eoi)
        c->isr &= (uint8_t) ~(1u << irq);
    if (rotate)
        c->priority_add = (irq + 1) & 7;
}

static void write_ocw3(struct hvm_hw_vpic *c, uint8_t val)
{
    if (val & 0x04)
        c->poll = 1;
    if (val & 0x02)
        c->readsel_isr = val & 1;
    if (val & 0x40)
        c->special_mask_mode = val >> 5 & 1;
}

static void write_command(struct vpic *p, unsigned chip, uint8_t val)
{
    if (val & 0x10)
        write_icw1(p, chip, val);
    else if (val & 0x08)
        write_ocw3(&p->chip[chip], val);
    else
        write_ocw2(&p->chip[chip], val);
}

/* A read after a poll command is an INTA whose answer comes back as data. */
static uint8_t read_poll(struct hvm_hw_vpic *c)
{
    int irq = chip_pending(c);

    c->poll = 0;
    if (irq < 0)
        return 7;
    chip_ack(c, (unsigned)irq);
    return (uint8_t)(0x80 | irq);
}

static void write_elcr(struct vpic *p, unsigned chip, uint8_t val)
{
    struct hvm_hw_vpic *c = &p->chip[chip];
    uint8_t keep = chip == MASTER ? BIT(CASCADE) : 0;

    uint8_t was = c->elcr;

    c->elcr = (uint8_t)((val & elcr_writable[chip]) | keep);
    uint8_t turned_level = c->elcr & (uint8_t)~was;
    c->irr = (uint8_t)((c->irr & ~turned_level) | (held_levels(p, chip) & turned_level));
}

void vpic_pio(struct domain *d, uint16_t port, bool write, uint8_t *val)
{
    struct vpic *p = vpic_of(d);
    bool elcr = port >= 0x4d0;
    unsigned chip = elcr ? port & 1 : port >> 7 & 1;
    struct hvm_hw_vpic *c = &p->chip[chip];

    spin_lock(&d->platform->irq_lock);
    if (elcr) {
        if (write)
            write_elcr(p, chip, *val);
        else
            *val = c->elcr & elcr_writable[chip];
    } else if (write && !(port & 1)) {
        write_command(p, chip, *val);
    } else if (write) {
        if (c->init_state)
            write_icw(c, *val);
        else
            c->imr = *val;
    } else if (c->poll) {
        *val = read_poll(c);
    } else {
        *val = port & 1 ? c->imr : c->readsel_isr ? c->isr : c->irr;
    }
    update(d);
    spin_unlock(&d->platform->irq_lock);
    if (write && ticks_wait(d))
        ticks_look(d, NULL);
}

int vpic_save(struct domain *d, unsigned chip, struct hvm_hw_vpic *out)
{
    spin_lock(&d->platform->irq_lock);
    *out = vpic_of(d)->chip[chip];
    spin_unlock(&d->platform->irq_lock);
    return 0;
}

int vpic_load(struct domain *d, unsigned chip, const struct hvm_hw_vpic *in)
{
    struct hvm_hw_vpic *c = &vpic_of(d)->chip[chip];

    spin_lock(&d->platform->irq_lock);
    *c = *in;
    c->is_master = chip == MASTER;
    c->priority_add &= 7;
    c->elcr = (uint8_t)((c->elcr & elcr_writable[chip]) | (chip == MASTER ? BIT(CASCADE) : 0));
    update(d);
    spin_unlock(&d->platform->irq_lock);
    return 0;
}
