/* vlapic_timer.c: the LAPIC timer (SDM 3A, 10.5.4): one-shot, periodic and TSC-deadline, on one
 * host timer; the current count is worked out from the clock.
 *
 * A periodic timer's ticks that come while its interrupt waits in IRR follow later (vtick.h): a
 * LAPIC would lose them, but the CPU that it is in does not stand still while others run.
 */
#include "platform/inner.h"
#include "platform/vlapic.h"

#define LVT_TIMER_MODE 0x60000u
enum { TIMER_ONESHOT = 0x00000, TIMER_PERIODIC = 0x20000, TIMER_DEADLINE = 0x40000 };

static uint32_t *reg(const struct vlapic *l, unsigned offset)
{
    return &l->regs[offset / 4];
}

static uint32_t mode_of(uint32_t lvt)
{
    return lvt & LVT_TIMER_MODE;
}

static bool counts(uint32_t lvt) /* one-shot or periodic; mode 11b is reserved */
{
    return mode_of(lvt) == TIMER_ONESHOT || mode_of(lvt) == TIMER_PERIODIC;
}

/* Divide configuration bits 3, 1, 0: 000b is 2, 110b is 128, 111b is 1. */
static uint32_t divisor_of(uint32_t tdcr)
{
    uint32_t code = (tdcr & 3) | (tdcr >> 1 & 4);

    return 1u << ((code + 1) & 7);
}

/* Set the host timer for what the registers say. Under timer_lock. */
static void arm(struct vlapic *l, uint64_t now)
{
    uint32_t lvt = *reg(l, LAPIC_LVT_TIMER);
    bool live = l->period_ns && !(lvt & LVT_MASKED);

    if (mode_of(lvt) != TIMER_PERIODIC || !live) {
        vtick_stop(&l->tick);
    } else if (!l->tick.on || l->tick.start_ns != l->start_ns || l->tick.num != l->period_ns) {
        vtick_start(&l->tick, l->start_ns, l->period_ns, NS_PER_SEC);
        vtick_skip(&l->tick, now); /* what went by unheard */
    }
    if (l->tick.on)
        l->next_ns = vtick_next(&l->tick, now);
    else if (mode_of(lvt) == TIMER_ONESHOT)
        l->next_ns =
            live && now - l->start_ns < l->period_ns ? l->start_ns + l->period_ns : TIME_NEVER;
    else if (counts(lvt))
        l->next_ns = TIME_NEVER;
    tick_note(l->vcpu->domain, &l->tick);
    device_timer_set(&l->timer, l->next_ns);
}

static void fire(struct vlapic *l)
{
    uint32_t lvt = *reg(l, LAPIC_LVT_TIMER);

    if (!(lvt & LVT_MASKED))
        vlapic_set_irq(l->vcpu, (uint8_t)lvt, false);
}

/* The periodic timer's ticks until now; true when one is to be delivered. Under timer_lock. */
static bool tick(struct vlapic *l, uint64_t now)
{
    uint8_t vector = (uint8_t)*reg(l, LAPIC_LVT_TIMER);
    bool due = vtick_fire(&l->tick, now, vlapic_is_requested(l, vector) ? VTICK_BUSY : VTICK_READY,
                          l->vcpu->domain->hvm_params[HVM_PARAM_TIMER_MODE]);

    l->next_ns = vtick_next(&l->tick, now);
    tick_note(l->vcpu->domain, &l->tick);
    return due;
}

static void timer_fired(void *data)
{
    struct vlapic *l = data;
    bool due;

    spin_lock(&l->timer_lock);
    uint64_t now = now_ns();
    due = now >= l->next_ns;
    if (due) {
        l->next_ns = TIME_NEVER;
        l->tsc_deadline = 0;
        if (l->tick.on)
            due = tick(l, now);
    }
    if (l->next_ns != TIME_NEVER)
        timer_set(&l->timer, l->next_ns);
    spin_unlock(&l->timer_lock);
    if (due)
        fire(l);
}

void vlapic_timer_look(struct vcpu *v)
{
    struct vlapic *l = v->vlapic;
    bool due = false;

    spin_lock(&l->timer_lock);
    if (l->tick.on) {
        due = tick(l, now_ns());
        device_timer_set(&l->timer, l->next_ns);
    }
    spin_unlock(&l->timer_lock);
    if (due)
        fire(l);
}

void vlapic_timer_init(struct vcpu *v)
{
    struct vlapic *l = v->vlapic;

    spin_lock_init(&l->timer_lock);
    timer_init(&l->timer, timer_fired, l, v->sched.cpu);
}

void vlapic_timer_reset(struct vcpu *v)
{
    struct vlapic *l = v->vlapic;

    spin_lock(&l->timer_lock);
    l->period_ns = 0;
    l->next_ns = TIME_NEVER;
    l->tsc_deadline = 0;
    l->divisor = divisor_of(0);
    l->lvt = LVT_MASKED;
    vtick_stop(&l->tick);
    tick_note(v->domain, &l->tick);
    timer_stop(&l->timer);
    spin_unlock(&l->timer_lock);
}

void vlapic_timer_initial_count(struct vcpu *v, uint32_t count)
{
    struct vlapic *l = v->vlapic;
    uint64_t now = now_ns();

    if (!counts(*reg(l, LAPIC_LVT_TIMER))) {
        *reg(l, LAPIC_TMICT) = 0; /* ignored in TSC-deadline mode; the CPU may have written it */
        return;
    }
    spin_lock(&l->timer_lock);
    *reg(l, LAPIC_TMICT) = count;
    l->start_ns = now;
    l->period_ns = (uint64_t)count * l->divisor * LAPIC_BUS_NS;
    arm(l, now);
    spin_unlock(&l->timer_lock);
}

static uint32_t count_at(const struct vlapic *l, uint64_t now)
{
    uint64_t elapsed = now - l->start_ns;

    if (!l->period_ns)
        return 0;
    if (elapsed >= l->period_ns) {
        if (mode_of(*reg(l, LAPIC_LVT_TIMER)) != TIMER_PERIODIC)
            return 0;
        elapsed %= l->period_ns;
    }
    return *reg(l, LAPIC_TMICT) - (uint32_t)(elapsed / ((uint64_t)l->divisor * LAPIC_BUS_NS));
}

uint32_t vlapic_timer_count(struct vcpu *v)
{
    struct vlapic *l = v->vlapic;

    spin_lock(&l->timer_lock);
    uint32_t count = count_at(l, now_ns());
    spin_unlock(&l->timer_lock);
    return count;
}

/* Make the current count `count` now, at the divisor in force. Under timer_lock. */
static void set_count(struct vlapic *l, uint32_t count, uint64_t now)
{
    uint32_t initial = *reg(l, LAPIC_TMICT);
    uint64_t clock_ns = (uint64_t)l->divisor * LAPIC_BUS_NS;

    l->period_ns = initial * clock_ns;
    l->start_ns = now - (uint64_t)(initial - MIN(count, initial)) * clock_ns;
}

void vlapic_timer_divide(struct vcpu *v, uint32_t tdcr)
{
    struct vlapic *l = v->vlapic;
    uint64_t now = now_ns();

    spin_lock(&l->timer_lock);
    uint32_t count = count_at(l, now);
    *reg(l, LAPIC_TDCR) = tdcr;
    l->divisor = divisor_of(tdcr);
    set_count(l, count, now);
    arm(l, now);
    spin_unlock(&l->timer_lock);
}

void vlapic_timer_lvt(struct vcpu *v, uint32_t lvt)
{
    struct vlapic *l = v->vlapic;
    uint64_t now = now_ns();

    spin_lock(&l->timer_lock);
    uint32_t old = l->lvt;
    l->lvt = lvt;
    if (mode_of(old) != mode_of(lvt) && counts(old) != counts(lvt)) {
        *reg(l, LAPIC_TMICT) = 0; /* to and from TSC-deadline mode disarms (SDM 3A, 10.5.4.1) */
        l->period_ns = 0;
        l->tsc_deadline = 0;
        l->next_ns = TIME_NEVER;
    }
    arm(l, now);
    spin_unlock(&l->timer_lock);
}

uint64_t vlapic_tsc_deadline(struct vcpu *v)
{
    struct vlapic *l = v->vlapic;

    return mode_of(*reg(l, LAPIC_LVT_TIMER)) == TIMER_DEADLINE ? READ_ONCE(l->tsc_deadline) : 0;
}

/* Host time at which the guest's TSC reaches deadline; far ones come a month early and are set
 * again by the guest, which no timer that far needs. */
static uint64_t deadline_ns(const struct vcpu *v, uint64_t deadline, uint64_t now)
{
    const struct domain *d = v->domain;
    uint64_t tsc = guest_tsc(v, host_tsc());

    if (deadline <= tsc)
        return now;
    uint64_t month = (d->tsc_ratio ? d->tsc_khz : tsc_khz) * 1000 * 86400 * 30;
    uint64_t ticks = MIN(deadline - tsc, month);
    if (unlikely(d->tsc_ratio))
        ticks = muldiv(ticks, tsc_khz, d->tsc_khz);
    return now + tsc_to_ns(ticks) + 1;
}

void vlapic_set_tsc_deadline(struct vcpu *v, uint64_t tsc)
{
    struct vlapic *l = v->vlapic;
    uint64_t now = now_ns();
    bool due = false;

    if (mode_of(*reg(l, LAPIC_LVT_TIMER)) != TIMER_DEADLINE)
        return; /* SDM 3A, 10.5.4.1: ignored in other modes */
    spin_lock(&l->timer_lock);
    l->tsc_deadline = tsc;
    l->next_ns = tsc ? deadline_ns(v, tsc, now) : TIME_NEVER;
    due = l->next_ns <= now;
    if (due) {
        l->tsc_deadline = 0;
        l->next_ns = TIME_NEVER;
    }
    arm(l, now);
    spin_unlock(&l->timer_lock);
    if (due)
        fire(l);
}

void vlapic_timer_restore(struct vcpu *v, uint32_t count, uint64_t tsc_deadline)
{
    struct vlapic *l = v->vlapic;
    uint64_t now = now_ns();

    spin_lock(&l->timer_lock);
    l->divisor = divisor_of(*reg(l, LAPIC_TDCR));
    l->lvt = *reg(l, LAPIC_LVT_TIMER);
    l->next_ns = TIME_NEVER;
    l->tsc_deadline = tsc_deadline; /* kept for when the LVT, in another record, is there too */
    l->period_ns = 0;
    if (counts(*reg(l, LAPIC_LVT_TIMER)))
        set_count(l, count, now);
    arm(l, now);
    spin_unlock(&l->timer_lock);
    vlapic_set_tsc_deadline(v, tsc_deadline);
}
