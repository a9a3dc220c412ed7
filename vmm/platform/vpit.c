/* vpit.c: the 8254's three counters, worked out from the clock when somebody looks (Intel 8254 data
 * sheet, "Mode definitions"); only channel 0, which drives IRQ 0, has a host timer.
 */
#include "platform/vpit.h"
#include "platform/inner.h"

/* Which byte a read or write touches next, and the control word's access field: Xen's values. */
enum { RW_LATCH, RW_LSB, RW_MSB, RW_WORD, RW_WORD_HIGH };
#define RW_FIRST(rw)    ((rw) == RW_MSB ? RW_MSB : (rw) == RW_LSB ? RW_LSB : RW_WORD)

#define PORT61_WRITABLE 0x0f
#define PORT61_GATE2    0x01
#define PORT61_SPEAKER  0x02
#define PORT61_REFRESH  0x10
#define PORT61_OUT2     0x20
#define REFRESH_NS      15085

static struct vpit *vpit_of(const struct domain *d)
{
    return &d->platform->pit;
}

static uint64_t ns_to_clocks(uint64_t ns)
{
    return muldiv(ns, PIT_HZ, NS_PER_SEC);
}

/* Rounded up, so that at this time the clock has ticked. */
static uint64_t clocks_to_ns(uint64_t clocks)
{
    return muldiv(clocks, NS_PER_SEC, PIT_HZ) + 1;
}

/* Modes 6 and 7 are 2 and 3. */
static unsigned mode_of(const struct vpit_channel *c)
{
    return c->hw.mode;
}

static bool is_periodic(const struct vpit_channel *c)
{
    return mode_of(c) == 2 || mode_of(c) == 3;
}

static bool is_triggered(const struct vpit_channel *c)
{
    return mode_of(c) == 1 || mode_of(c) == 5;
}

static uint32_t modulus(const struct vpit_channel *c)
{
    return c->hw.bcd ? 10000 : 0x10000;
}

static uint32_t from_bcd(uint16_t v)
{
    return (v >> 12) * 1000u + (v >> 8 & 15) * 100u + (v >> 4 & 15) * 10u + (v & 15);
}

static uint16_t to_bcd(uint32_t v)
{
    return (uint16_t)((v / 1000 % 10) << 12 | (v / 100 % 10) << 8 | (v / 10 % 10) << 4 | v % 10);
}

/* A count written while modes 2 and 3 run takes over at the end of the period. */
static void settle(struct vpit_channel *c, uint64_t now)
{
    if (!c->next || !is_periodic(c) || !c->running || now < c->switch_ns)
        return;
    c->start_ns = c->switch_ns;
    c->hw.count = c->next;
    c->next = 0;
}

static uint64_t clocks_counted(const struct vpit_channel *c, uint64_t now)
{
    if (!c->running)
        return c->held;
    return now > c->start_ns ? ns_to_clocks(now - c->start_ns) : 0;
}

/* The counting element's value as the guest reads it. */
static uint16_t value(struct vpit_channel *c, uint64_t now)
{
    settle(c, now);
    uint64_t n = clocks_counted(c, now);
    uint32_t count = c->hw.count, v;

    switch (mode_of(c)) {
    case 2:
        v = count - (uint32_t)(n % count);
        break;
    case 3: /* two at a time, twice a period */
        v = count - (uint32_t)(2 * n % count & ~1ULL);
        break;
    default:
        v = (uint32_t)((count + modulus(c) - n % modulus(c)) % modulus(c));
        break;
    }
    return c->hw.bcd ? to_bcd(v) : (uint16_t)v;
}

static bool out(struct vpit_channel *c, uint64_t now)
{
    settle(c, now);
    uint64_t n = clocks_counted(c, now);
    uint32_t count = c->hw.count;

    if (!c->armed)
        return mode_of(c) != 0;
    switch (mode_of(c)) {
    case 0:
        return n >= count;
    case 1:
        return !c->running || n >= count;
    case 2:
        return !c->running || n % count != count - 1;
    case 3:
        return !c->running || n % count < (count + 1) / 2;
    default: /* 4 and 5: low for the one clock at terminal count */
        return !c->running || n != count;
    }
}

/* Channel 0: set the host timer for OUT's next rise. */
static void arm(struct domain *d, uint64_t now)
{
    struct vpit *p = vpit_of(d);

    tick_note(d, &p->tick);
    device_timer_set(&p->timer, p->tick.on ? vtick_next(&p->tick, now) : p->oneshot_ns);
}

/* Channel 0's counting changed: when does OUT rise from now on? */
static void replan(struct domain *d, uint64_t now)
{
    struct vpit *p = vpit_of(d);
    struct vpit_channel *c = &p->ch[0];

    vtick_stop(&p->tick);
    p->oneshot_ns = TIME_NEVER;
    if (c->armed && c->running && is_periodic(c))
        vtick_start(&p->tick, c->start_ns, c->hw.count, PIT_HZ);
    else if (c->armed && c->running && !is_triggered(c))
        p->oneshot_ns = c->start_ns + clocks_to_ns(c->hw.count + (mode_of(c) == 4));
    arm(d, now);
}

static void irq0_rises(struct domain *d)
{
    if (!READ_ONCE(d->platform->hpet.legacy))
        isa_pulse(d, 0);
}

/* Channel 0's ticks until now. */
static void tick(struct domain *d, uint64_t now)
{
    struct vpit *p = vpit_of(d);
    struct vpit_channel *c = &p->ch[0];
    uint64_t start_ns = c->start_ns, mode = d->hvm_params[HVM_PARAM_TIMER_MODE];

    if (vtick_fire(&p->tick, now, isa_tick_line(d, 0), mode))
        irq0_rises(d);
    settle(c, now);
    if (c->start_ns != start_ns)
        vtick_start(&p->tick, c->start_ns, c->hw.count, PIT_HZ);
    arm(d, now);
}

void vpit_look(struct domain *d)
{
    struct vpit *p = vpit_of(d);

    spin_lock(&p->lock);
    if (p->tick.on)
        tick(d, now_ns());
    spin_unlock(&p->lock);
}

static void timer_fired(void *data)
{
    struct domain *d = data;
    struct vpit *p = vpit_of(d);

    spin_lock(&p->lock);
    uint64_t now = now_ns();
    if (p->tick.on) {
        tick(d, now);
    } else if (now >= p->oneshot_ns) {
        p->oneshot_ns = TIME_NEVER;
        irq0_rises(d);
    } else if (p->oneshot_ns != TIME_NEVER) {
        timer_set(&p->timer, p->oneshot_ns);
    }
    spin_unlock(&p->lock);
}

/* A whole count arrived. */
static void write_count(struct domain *d, unsigned n, uint16_t raw)
{
    struct vpit *p = vpit_of(d);
    struct vpit_channel *c = &p->ch[n];
    uint64_t now = now_ns();
    uint32_t count = c->hw.bcd ? from_bcd(raw) : raw;

    if (!count)
        count = modulus(c);
    settle(c, now);
    if (is_periodic(c) && count == 1) /* illegal there (8254, modes 2 and 3); 2 does no harm */
        count = 2;
    if (c->armed && c->running && (is_periodic(c) || is_triggered(c))) {
        uint64_t periods = clocks_counted(c, now) / c->hw.count + 1;
        c->next = count;
        c->switch_ns = c->start_ns + clocks_to_ns(periods * c->hw.count);
        return;
    }
    c->hw.count = count;
    c->armed = true;
    c->held = 0;
    c->next = 0;
    c->start_ns = now;
    c->running = !is_triggered(c) && c->hw.gate;
    if (n == 0)
        replan(d, now);
}

static void write_data(struct domain *d, unsigned n, uint8_t val)
{
    struct vpit_channel *c = &vpit_of(d)->ch[n];

    switch (c->hw.write_state) {
    case RW_LSB:
        write_count(d, n, val);
        break;
    case RW_MSB:
        write_count(d, n, (uint16_t)(val << 8));
        break;
    case RW_WORD:
        c->hw.write_latch = val;
        c->hw.write_state = RW_WORD_HIGH;
        if (mode_of(c) == 0) { /* the first byte stops counting and drops OUT */
            c->armed = false;
            if (n == 0)
                replan(d, now_ns());
        }
        break;
    case RW_WORD_HIGH:
        c->hw.write_state = RW_WORD;
        write_count(d, n, (uint16_t)(val << 8 | c->hw.write_latch));
        break;
    }
}

static void latch_count(struct vpit_channel *c)
{
    if (c->hw.count_latched)
        return; /* the first latch stands until it is read */
    c->hw.latched_count = value(c, now_ns());
    c->hw.count_latched = c->hw.rw_mode;
}

static void latch_status(struct vpit_channel *c)
{
    uint64_t now = now_ns();

    if (c->hw.status_latched)
        return;
    bool null_count = !c->armed || c->next;
    settle(c, now);
    c->hw.status = (uint8_t)(out(c, now) << 7 | null_count << 6 | c->hw.rw_mode << 4 |
                             c->hw.mode << 1 | c->hw.bcd);
    c->hw.status_latched = 1;
}

/* Read-back command: bits 5 and 4 low ask for count and status of the channels in bits 3:1. */
static void read_back(struct vpit *p, uint8_t val)
{
    for (unsigned n = 0; n < 3; n++) {
        if (!(val & (2u << n)))
            continue;
        if (!(val & 0x20))
            latch_count(&p->ch[n]);
        if (!(val & 0x10))
            latch_status(&p->ch[n]);
    }
}

static void write_control(struct domain *d, uint8_t val)
{
    struct vpit *p = vpit_of(d);
    unsigned n = val >> 6, rw = val >> 4 & 3, mode = val >> 1 & 7;

    if (n == 3) {
        read_back(p, val);
        return;
    }
    struct vpit_channel *c = &p->ch[n];
    if (rw == RW_LATCH) {
        latch_count(c);
        return;
    }
    c->hw.rw_mode = (uint8_t)rw;
    c->hw.read_state = c->hw.write_state = (uint8_t)RW_FIRST(rw);
    c->hw.mode = (uint8_t)(mode > 5 ? mode - 4 : mode);
    c->hw.bcd = val & 1;
    c->hw.count_latched = c->hw.status_latched = 0;
    c->armed = c->running = false;
    c->held = 0;
    c->next = 0;
    if (n == 0) {
        replan(d, now_ns());
        if (c->hw.mode == 0)
            platform_isa_irq(d, 0, false);
    }
}

static uint8_t read_data(struct vpit_channel *c)
{
    if (c->hw.status_latched) {
        c->hw.status_latched = 0;
        return c->hw.status;
    }
    if (c->hw.count_latched) {
        unsigned state = c->hw.count_latched;
        c->hw.count_latched = state == RW_WORD ? RW_WORD_HIGH : 0;
        bool high = state == RW_MSB || state == RW_WORD_HIGH;
        return (uint8_t)(c->hw.latched_count >> (high ? 8 : 0));
    }
    uint16_t v = value(c, now_ns());
    bool high = c->hw.read_state == RW_MSB || c->hw.read_state == RW_WORD_HIGH;
    if (c->hw.read_state == RW_WORD)
        c->hw.read_state = RW_WORD_HIGH;
    else if (c->hw.read_state == RW_WORD_HIGH)
        c->hw.read_state = RW_WORD;
    return (uint8_t)(v >> (high ? 8 : 0));
}

/* Channel 2's gate is port 0x61 bit 0 (8254, "Gate pin operations summary"). */
static void set_gate(struct vpit_channel *c, bool gate)
{
    uint64_t now = now_ns();

    if (gate == (bool)c->hw.gate)
        return;
    settle(c, now);
    c->hw.gate = gate;
    if (is_triggered(c)) {
        if (gate && c->armed) {
            c->hw.count = c->next ? c->next : c->hw.count;
            c->next = 0;
            c->start_ns = now;
            c->running = true;
        }
    } else if (!gate) {
        c->held = is_periodic(c) ? 0 : clocks_counted(c, now);
        c->running = false;
    } else if (c->armed) {
        if (c->next) { /* only modes 2 and 3: the period that was to end starts over */
            c->hw.count = c->next;
            c->next = 0;
        }
        c->start_ns = now - (c->held ? clocks_to_ns(c->held) : 0);
        c->running = true;
    }
}

static void port61(struct vpit *p, bool write, uint8_t *val)
{
    struct vpit_channel *c = &p->ch[2];
    uint64_t now = now_ns();

    if (write) {
        p->port61 = *val & PORT61_WRITABLE;
        set_gate(c, *val & PORT61_GATE2);
        return;
    }
    *val = (uint8_t)(p->port61 | (now / REFRESH_NS & 1 ? PORT61_REFRESH : 0) |
                     (out(c, now) ? PORT61_OUT2 : 0));
}

void vpit_pio(struct domain *d, uint16_t port, bool write, uint8_t *val)
{
    struct vpit *p = vpit_of(d);

    spin_lock(&p->lock);
    if (port == 0x61)
        port61(p, write, val);
    else if (port < 0x43 && write)
        write_data(d, port & 3, *val);
    else if (port < 0x43)
        *val = read_data(&p->ch[port & 3]);
    else if (write)
        write_control(d, *val);
    else
        *val = 0xff; /* the control word cannot be read */
    spin_unlock(&p->lock);
}

void vpit_reset(struct domain *d)
{
    struct vpit *p = vpit_of(d);

    spin_lock(&p->lock);
    for (unsigned n = 0; n < 3; n++) {
        struct vpit_channel *c = &p->ch[n];
        memset(c, 0, sizeof(*c));
        c->hw.count = 0x10000;
        c->hw.mode = 3;
        c->hw.rw_mode = RW_WORD;
        c->hw.read_state = c->hw.write_state = RW_WORD;
        c->hw.gate = n != 2;
    }
    p->port61 = 0;
    vtick_stop(&p->tick);
    tick_note(d, &p->tick);
    p->oneshot_ns = TIME_NEVER;
    timer_stop(&p->timer);
    spin_unlock(&p->lock);
}

void vpit_init(struct domain *d)
{
    timer_init(&vpit_of(d)->timer, timer_fired, d, 0);
    vpit_reset(d);
}

void vpit_destroy(struct domain *d)
{
    timer_kill(&vpit_of(d)->timer);
}

int vpit_save(struct domain *d, struct hvm_hw_pit *out_rec)
{
    struct vpit *p = vpit_of(d);
    uint64_t now = now_ns();

    spin_lock(&p->lock);
    for (unsigned n = 0; n < 3; n++) {
        settle(&p->ch[n], now);
        out_rec->channels[n] = p->ch[n].hw;
    }
    out_rec->speaker_data_on = !!(p->port61 & PORT61_SPEAKER);
    out_rec->pad0 = 0;
    spin_unlock(&p->lock);
    return 0;
}

static bool channel_valid(const struct hvm_hw_pit_channel *c)
{
    uint32_t most = c->bcd ? 10000 : 0x10000;

    return c->count <= most && c->mode <= 5 && c->rw_mode <= RW_WORD && c->bcd <= 1 &&
           c->gate <= 1 && c->read_state <= RW_WORD_HIGH && c->write_state <= RW_WORD_HIGH &&
           c->count_latched <= RW_WORD_HIGH;
}

int vpit_load(struct domain *d, const struct hvm_hw_pit *in)
{
    struct vpit *p = vpit_of(d);
    uint64_t now = now_ns();

    for (unsigned n = 0; n < 3; n++)
        if (!channel_valid(&in->channels[n]))
            return -EINVAL;
    spin_lock(&p->lock);
    for (unsigned n = 0; n < 3; n++) { /* the record has no phase: counting starts over */
        struct vpit_channel *c = &p->ch[n];
        c->hw = in->channels[n];
        c->hw.count = MAX(c->hw.count, is_periodic(c) ? 2u : 1u);
        c->armed = true;
        c->held = 0;
        c->next = 0;
        c->start_ns = now;
        c->running = !is_triggered(c) && c->hw.gate;
    }
    p->port61 = (uint8_t)((in->speaker_data_on ? PORT61_SPEAKER : 0) |
                          (in->channels[2].gate ? PORT61_GATE2 : 0));
    replan(d, now);
    spin_unlock(&p->lock);
    return 0;
}
