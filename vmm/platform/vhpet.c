/* vhpet.c: the HPET's main counter is a clock; each timer is the host timer of its next match
 * (IA-PC HPET specification 1.0a).
 */
#include "platform/vhpet.h"
#include "platform/inner.h"

#define CAP_VALUE       (0x8086a201ULL | 16000000ULL << 32) /* 3 timers, 64-bit, legacy; period in fs */

#define OFS_CAP         0x000
#define OFS_CONFIG      0x010
#define OFS_ISR         0x020
#define OFS_COUNTER     0x0f0
#define OFS_TIMER       0x100 /* + 0x20 * n: configuration, comparator at + 8 */

#define CFG_ENABLE      BIT(0)
#define CFG_LEGACY      BIT(1)

#define TN_LEVEL        BIT(1)
#define TN_ENABLE       BIT(2)
#define TN_PERIODIC     BIT(3)
#define TN_PERIODIC_CAP BIT(4)
#define TN_SIZE_CAP     BIT(5)
#define TN_SETVAL       BIT(6)
#define TN_32BIT        BIT(8)
#define TN_ROUTE_SHIFT  9
#define TN_ROUTE        (0x1fULL << TN_ROUTE_SHIFT)
#define TN_ROUTE_CAP    (0x00f00000ULL << 32) /* GSI 20 to 23 */
#define TN_FIXED        (TN_ROUTE_CAP | TN_PERIODIC_CAP | TN_SIZE_CAP)
#define TN_WRITABLE     (TN_LEVEL | TN_ENABLE | TN_PERIODIC | TN_SETVAL | TN_32BIT | TN_ROUTE)

/* A comparator set this far behind the counter was just missed: it fires at once. */
#define JUST_MISSED (10 * NS_PER_MS / VHPET_PERIOD_NS)

static struct vhpet *hpet_of(const struct domain *d)
{
    return &d->platform->hpet;
}

static uint64_t counter(const struct vhpet *h, uint64_t now)
{
    return h->config & CFG_ENABLE ? h->mc64 + (now - h->start_ns) / VHPET_PERIOD_NS : h->mc64;
}

static uint64_t width_mask(const struct vhpet_timer *t)
{
    return t->config & TN_32BIT ? 0xffffffffULL : ~0ULL;
}

static bool is_periodic(const struct vhpet_timer *t)
{
    return t->config & TN_PERIODIC;
}

/* ---- interrupts -------------------------------------------------------------------------- */

static bool legacy_routed(const struct vhpet *h, unsigned n)
{
    return n < 2 && (h->config & CFG_LEGACY);
}

static unsigned route_of(const struct vhpet_timer *t)
{
    return (t->config & TN_ROUTE) >> TN_ROUTE_SHIFT;
}

/* Routes outside the advertised set are ignored. */
static bool route_valid(unsigned gsi)
{
    return gsi >= 20 && gsi <= 23;
}

static void interrupt(struct vhpet *h, unsigned n)
{
    struct vhpet_timer *t = &h->t[n];
    unsigned gsi = route_of(t);

    if (legacy_routed(h, n)) {
        isa_pulse(h->domain, n == 0 ? 0 : 8);
        return;
    }
    if (!route_valid(gsi))
        return;
    if (!(t->config & TN_LEVEL)) {
        gsi_pulse(h->domain, gsi);
        return;
    }
    h->isr |= BIT(n);
    device_gsi(h->domain, gsi, true);
}

static enum vtick_line tick_line(const struct vhpet *h, unsigned n)
{
    const struct vhpet_timer *t = &h->t[n];
    unsigned gsi = route_of(t);

    if (legacy_routed(h, n))
        return isa_tick_line(h->domain, n == 0 ? 0 : 8);
    if (t->config & TN_LEVEL && h->isr >> n & 1)
        return VTICK_HELD;
    return route_valid(gsi) ? gsi_tick_line(h->domain, gsi) : VTICK_MASKED;
}

/* Timer n's level-triggered interrupt ended, or its route changes: let go of the line unless
 * another timer holds the same one. */
static void drop_line(struct vhpet *h, unsigned n)
{
    unsigned gsi = route_of(&h->t[n]);

    if (!(h->isr >> n & 1))
        return;
    h->isr &= ~BIT(n);
    for (unsigned i = 0; i < HPET_TIMER_NUM; i++)
        if (h->isr >> i & 1 && route_of(&h->t[i]) == gsi)
            return;
    device_gsi(h->domain, gsi, false);
}

/* ---- matches ----------------------------------------------------------------------------- */

/* Periodic: the comparator moves on by whole periods once the counter passed it. */
static void advance(struct vhpet *h, struct vhpet_timer *t, uint64_t now)
{
    if (!is_periodic(t) || !t->period || !(h->config & CFG_ENABLE))
        return;
    uint64_t mask = width_mask(t), behind = (counter(h, now) - t->cmp) & mask;
    if (behind <= mask / 2) /* not ahead */
        t->cmp = (t->cmp + (behind / t->period + 1) * t->period) & mask;
}

/* Something about timer n changed: plan its next match from now. fresh: the comparator was just
 * written, so that a match just missed still counts. */
static void plan(struct vhpet *h, unsigned n, uint64_t now, bool fresh)
{
    struct vhpet_timer *t = &h->t[n];
    uint64_t ahead = (t->cmp - counter(h, now)) & width_mask(t);

    vtick_stop(&t->tick);
    t->due_ns = TIME_NEVER;
    if ((h->config & CFG_ENABLE) && (t->config & TN_ENABLE)) {
        if (fresh && (-ahead & width_mask(t)) <= JUST_MISSED)
            ahead = 0;
        ahead = MIN(ahead, TIME_NEVER / 4 / VHPET_PERIOD_NS);
        uint64_t due = now + ahead * VHPET_PERIOD_NS;
        if (!is_periodic(t))
            t->due_ns = due;
        else if (t->period)
            vtick_start(&t->tick, due - t->period * VHPET_PERIOD_NS, t->period, VHPET_HZ);
    }
    tick_note(h->domain, &t->tick);
    device_timer_set(&t->timer, t->tick.on ? vtick_next(&t->tick, now) : t->due_ns);
}

static void plan_all(struct vhpet *h, uint64_t now)
{
    for (unsigned n = 0; n < HPET_TIMER_NUM; n++)
        plan(h, n, now, false);
}

/* One-shot timers match again each time the counter wraps (32-bit: every 68.7 s). */
static uint64_t next_wrap_ns(const struct vhpet_timer *t, uint64_t due)
{
    return t->config & TN_32BIT ? due + (VHPET_PERIOD_NS << 32) : TIME_NEVER;
}

/* A periodic timer's ticks until now. */
static void tick(struct vhpet *h, unsigned n, uint64_t now)
{
    struct vhpet_timer *t = &h->t[n];
    uint64_t mode = h->domain->hvm_params[HVM_PARAM_TIMER_MODE];

    if (vtick_fire(&t->tick, now, tick_line(h, n), mode)) {
        interrupt(h, n);
        if (h->isr >> n & 1)
            t->tick.waits = false; /* for the status register first */
    }
    advance(h, t, now);
    tick_note(h->domain, &t->tick);
    device_timer_set(&t->timer, vtick_next(&t->tick, now));
}

static void fired(struct vhpet *h, unsigned n)
{
    struct vhpet_timer *t = &h->t[n];

    spin_lock(&h->lock);
    uint64_t now = now_ns();
    if (t->tick.on) {
        tick(h, n, now);
    } else if (t->due_ns != TIME_NEVER) {
        if (now >= t->due_ns) {
            interrupt(h, n);
            t->due_ns = next_wrap_ns(t, t->due_ns);
        }
        if (t->due_ns != TIME_NEVER)
            timer_set(&t->timer, t->due_ns);
    }
    spin_unlock(&h->lock);
}

void vhpet_look(struct domain *d, unsigned n)
{
    fired(hpet_of(d), n);
}

static void fired0(void *data)
{
    fired(data, 0);
}
static void fired1(void *data)
{
    fired(data, 1);
}
static void fired2(void *data)
{
    fired(data, 2);
}

/* ---- registers --------------------------------------------------------------------------- */

static uint64_t read_reg(struct vhpet *h, unsigned offset, uint64_t now)
{
    unsigned n = (offset - OFS_TIMER) / 0x20;

    switch (offset) {
    case OFS_CAP:
        return CAP_VALUE;
    case OFS_CONFIG:
        return h->config;
    case OFS_ISR:
        return h->isr;
    case OFS_COUNTER:
        return counter(h, now);
    default:
        break;
    }
    if (offset < OFS_TIMER || n >= HPET_TIMER_NUM)
        return 0;
    switch (offset & 0x18) {
    case 0x00:
        return h->t[n].config;
    case 0x08:
        advance(h, &h->t[n], now);
        return h->t[n].cmp;
    default: /* FSB delivery is not offered */
        return 0;
    }
}

static void write_config(struct vhpet *h, uint64_t val, uint64_t now)
{
    uint64_t old = h->config;

    val &= CFG_ENABLE | CFG_LEGACY;
    if ((old & CFG_ENABLE) && !(val & CFG_ENABLE))
        h->mc64 = counter(h, now);
    else if (!(old & CFG_ENABLE) && (val & CFG_ENABLE))
        h->start_ns = now;
    h->config = val;
    WRITE_ONCE(h->legacy, val == (CFG_ENABLE | CFG_LEGACY));
    plan_all(h, now);
}

static void write_isr(struct vhpet *h, uint64_t val, uint64_t now)
{
    for (unsigned n = 0; n < HPET_TIMER_NUM; n++) {
        if (!(val >> n & 1))
            continue;
        drop_line(h, n);
        if (h->t[n].tick.busy)
            tick(h, n, now);
    }
}

static void write_timer_config(struct vhpet *h, unsigned n, uint64_t val, uint64_t now)
{
    struct vhpet_timer *t = &h->t[n];

    advance(h, t, now);
    if ((t->config ^ val) & (TN_LEVEL | TN_ROUTE | TN_ENABLE))
        drop_line(h, n);
    t->config = (val & TN_WRITABLE) | TN_FIXED;
    t->cmp &= width_mask(t);
    t->period &= width_mask(t);
    plan(h, n, now, false);
}

/* The comparator; of a periodic timer also the period, and the match itself only right after
 * TN_SETVAL was set (1.0a, 2.3.9.2.2). */
static void write_comparator(struct vhpet *h, unsigned n, uint64_t val, uint64_t now)
{
    struct vhpet_timer *t = &h->t[n];

    advance(h, t, now);
    val &= width_mask(t);
    if (!is_periodic(t) || (t->config & TN_SETVAL))
        t->cmp = val;
    if (is_periodic(t))
        t->period = val;
    t->config &= ~TN_SETVAL;
    plan(h, n, now, true);
}

static void write_reg(struct vhpet *h, unsigned offset, uint64_t val, uint64_t now)
{
    unsigned n = (offset - OFS_TIMER) / 0x20;

    switch (offset) {
    case OFS_CONFIG:
        write_config(h, val, now);
        return;
    case OFS_ISR:
        write_isr(h, val, now);
        return;
    case OFS_COUNTER: /* to be written while halted */
        h->mc64 = val;
        h->start_ns = now;
        plan_all(h, now);
        return;
    default:
        break;
    }
    if (offset < OFS_TIMER || n >= HPET_TIMER_NUM)
        return;
    if ((offset & 0x18) == 0x00)
        write_timer_config(h, n, val, now);
    else if ((offset & 0x18) == 0x08)
        write_comparator(h, n, val, now);
}

/* A write of half a register keeps the other half, but that zeros mean nothing to the status. A
 * periodic comparator's high half then is what was last written to it, not where it moved. */
static uint64_t merge(struct vhpet *h, unsigned reg_offset, unsigned shift, uint64_t mask,
                      uint64_t val, uint64_t now)
{
    uint64_t old = reg_offset == OFS_ISR ? 0 : read_reg(h, reg_offset, now);
    unsigned n = (reg_offset - OFS_TIMER) / 0x20;

    if (reg_offset >= OFS_TIMER && n < HPET_TIMER_NUM && (reg_offset & 0x18) == 8 &&
        is_periodic(&h->t[n]) && !(h->t[n].config & TN_SETVAL))
        old = h->t[n].period;
    return (old & ~(mask << shift)) | (val & mask) << shift;
}

void vhpet_mmio(struct domain *d, paddr_t gpa, unsigned bytes, bool write, uint64_t *val)
{
    struct vhpet *h = hpet_of(d);
    unsigned offset = (unsigned)(gpa - VHPET_BASE), shift = 8 * (offset & 7);
    uint64_t mask = bytes >= 8 ? ~0ULL : BIT(8 * bytes) - 1;

    if (offset & (bytes - 1)) { /* unaligned */
        if (!write)
            *val = mask;
        return;
    }
    offset &= ~7u;
    spin_lock(&h->lock);
    uint64_t now = now_ns();
    bool was_legacy = h->legacy;
    if (write)
        write_reg(h, offset, merge(h, offset, shift, mask, *val, now), now);
    else
        *val = read_reg(h, offset, now) >> shift & mask;
    bool legacy_changed = was_legacy != h->legacy;
    spin_unlock(&h->lock);
    if (legacy_changed)
        vrtc_refresh_line(d);
}

/* ---- life cycle, contexts ---------------------------------------------------------------- */

void vhpet_reset(struct domain *d)
{
    struct vhpet *h = hpet_of(d);

    spin_lock(&h->lock);
    for (unsigned n = 0; n < HPET_TIMER_NUM; n++) {
        struct vhpet_timer *t = &h->t[n];
        drop_line(h, n);
        t->config = TN_FIXED;
        t->cmp = ~0ULL;
        t->period = 0;
        t->due_ns = TIME_NEVER;
        vtick_stop(&t->tick);
        tick_note(d, &t->tick);
        timer_stop(&t->timer);
    }
    h->config = h->isr = h->mc64 = 0;
    h->legacy = false;
    spin_unlock(&h->lock);
}

void vhpet_init(struct domain *d)
{
    static void (*const fns[HPET_TIMER_NUM])(void *) = {fired0, fired1, fired2};
    struct vhpet *h = hpet_of(d);

    h->domain = d;
    for (unsigned n = 0; n < HPET_TIMER_NUM; n++)
        timer_init(&h->t[n].timer, fns[n], h, 0);
    vhpet_reset(d);
}

void vhpet_destroy(struct domain *d)
{
    for (unsigned n = 0; n < HPET_TIMER_NUM; n++)
        timer_kill(&hpet_of(d)->t[n].timer);
}

int vhpet_save(struct domain *d, struct hvm_hw_hpet *out)
{
    struct vhpet *h = hpet_of(d);

    memset(out, 0, sizeof(*out));
    spin_lock(&h->lock);
    uint64_t now = now_ns();
    out->capability = CAP_VALUE;
    out->config = h->config;
    out->isr = h->isr;
    out->mc64 = counter(h, now);
    for (unsigned n = 0; n < HPET_TIMER_NUM; n++) {
        advance(h, &h->t[n], now);
        out->timers[n].config = h->t[n].config;
        out->timers[n].cmp = h->t[n].cmp;
        out->period[n] = h->t[n].period;
    }
    spin_unlock(&h->lock);
    return 0;
}

int vhpet_load(struct domain *d, const struct hvm_hw_hpet *in)
{
    struct vhpet *h = hpet_of(d);

    spin_lock(&h->lock);
    uint64_t now = now_ns();
    h->config = in->config & (CFG_ENABLE | CFG_LEGACY);
    WRITE_ONCE(h->legacy, h->config == (CFG_ENABLE | CFG_LEGACY));
    h->mc64 = in->mc64;
    h->start_ns = now;
    h->isr = in->isr & (BIT(HPET_TIMER_NUM) - 1);
    for (unsigned n = 0; n < HPET_TIMER_NUM; n++) {
        struct vhpet_timer *t = &h->t[n];
        t->config = (in->timers[n].config & TN_WRITABLE) | TN_FIXED;
        t->cmp = in->timers[n].cmp & width_mask(t);
        t->period = in->period[n] & width_mask(t);
        if (h->isr >> n & 1) {
            if (route_valid(route_of(t)))
                device_gsi(d, route_of(t), true);
            else
                h->isr &= ~BIT(n);
        }
    }
    plan_all(h, now);
    spin_unlock(&h->lock);
    return 0;
}
