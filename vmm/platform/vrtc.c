/* vrtc.c: the MC146818 clock: time of day from the wall clock, flags worked out when looked at,
 * host timers only for interrupts that are enabled (MC146818A data sheet).
 */
#include "platform/vrtc.h"
#include "platform/inner.h"

enum {
    R_SEC,
    R_SEC_ALARM,
    R_MIN,
    R_MIN_ALARM,
    R_HOUR,
    R_HOUR_ALARM,
    R_WEEKDAY,
    R_DAY,
    R_MONTH,
    R_YEAR,
    R_A,
    R_B,
    R_C,
    R_D
};

#define A_UIP       0x80
#define A_DIVIDER   0x70
#define A_DIV_RUNS  0x20 /* 32,768 Hz crystal: the only divider that keeps time here */
#define A_RATE      0x0f
#define B_SET       0x80
#define B_PIE       0x40
#define B_AIE       0x20
#define B_UIE       0x10
#define B_BINARY    0x04
#define B_24H       0x02
#define C_IRQF      0x80
#define C_PF        0x40
#define C_AF        0x20
#define C_UF        0x10
#define D_VALID     0x80
#define HOUR_PM     0x80
#define ALARM_ANY   0xc0 /* an alarm byte with both bits set matches everything */
#define CRYSTAL_HZ  32768u
#define UIP_NS      244000 /* update-in-progress comes up this long before the update */
#define RTC_IRQ     8
#define DAY_SECONDS 86400
#define SHOWN_NONE  INT64_MIN

static struct vrtc *rtc_of(const struct domain *d)
{
    return &d->platform->rtc;
}

/* ---- calendar ---------------------------------------------------------------------------- */

struct date {
    int64_t year;                                 /* full */
    unsigned month, day, hour, min, sec, weekday; /* month, day and weekday (Sunday) from 1 */
};

/* Days from 1970-01-01 to y-m-d in the Gregorian calendar; months run from March so that the
 * leap day is a year's last. */
static int64_t days_of(int64_t y, unsigned m, unsigned d)
{
    if (m <= 2)
        y--;
    int64_t century = (y >= 0 ? y : y - 99) / 100, leap = (y >= 0 ? y : y - 3) / 4;
    int64_t leap400 = (y >= 0 ? y : y - 399) / 400;
    unsigned from_march = (m + 9) % 12;
    return 365 * y + leap - century + leap400 + (153 * from_march + 2) / 5 + d - 1 - 719468;
}

static int64_t seconds_of(const struct date *t)
{
    return days_of(t->year, t->month, t->day) * DAY_SECONDS + t->hour * 3600 + t->min * 60 + t->sec;
}

static struct date date_of(int64_t seconds)
{
    int64_t days = seconds / DAY_SECONDS, rest = seconds % DAY_SECONDS;
    if (rest < 0) {
        rest += DAY_SECONDS;
        days--;
    }
    struct date t = {.hour = (unsigned)(rest / 3600),
                     .min = (unsigned)(rest / 60 % 60),
                     .sec = (unsigned)(rest % 60)};
    t.weekday = (unsigned)(((days + 4) % 7 + 7) % 7) + 1; /* 1970-01-01 was a Thursday */
    t.year = 1970 + days / 366; /* never too late; at most a few steps to go */
    while (days_of(t.year + 1, 1, 1) <= days)
        t.year++;
    while (days_of(t.year, 1, 1) > days)
        t.year--;
    t.month = 12;
    while (days_of(t.year, t.month, 1) > days)
        t.month--;
    t.day = (unsigned)(days - days_of(t.year, t.month, 1)) + 1;
    return t;
}

/* ---- register coding --------------------------------------------------------------------- */

static uint8_t encode(const struct vrtc *r, unsigned v)
{
    return (uint8_t)(r->cmos[R_B] & B_BINARY ? v : v / 10 % 10 << 4 | v % 10);
}

static unsigned decode(const struct vrtc *r, uint8_t v)
{
    return r->cmos[R_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
}

static uint8_t encode_hour(const struct vrtc *r, unsigned hour)
{
    if (r->cmos[R_B] & B_24H)
        return encode(r, hour);
    return (uint8_t)(encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0));
}

static unsigned decode_hour(const struct vrtc *r, uint8_t v)
{
    if (r->cmos[R_B] & B_24H)
        return decode(r, v);
    return decode(r, v & 0x7f) % 12 + (v & HOUR_PM ? 12 : 0);
}

static void store_date(struct vrtc *r, const struct date *t)
{
    r->cmos[R_SEC] = encode(r, t->sec);
    r->cmos[R_MIN] = encode(r, t->min);
    r->cmos[R_HOUR] = encode_hour(r, t->hour);
    r->cmos[R_WEEKDAY] = encode(r, t->weekday);
    r->cmos[R_DAY] = encode(r, t->day);
    r->cmos[R_MONTH] = encode(r, t->month);
    r->cmos[R_YEAR] = encode(r, (unsigned)(t->year % 100));
}

/* The date in the registers, nonsense brought into range. The century is the device model's, so
 * two digits mean 1970 to 2069. */
static struct date load_date(const struct vrtc *r)
{
    unsigned year = decode(r, r->cmos[R_YEAR]) % 100, month = decode(r, r->cmos[R_MONTH]);
    unsigned day = decode(r, r->cmos[R_DAY]);

    return (struct date){.sec = decode(r, r->cmos[R_SEC]) % 60,
                         .min = decode(r, r->cmos[R_MIN]) % 60,
                         .hour = decode_hour(r, r->cmos[R_HOUR]) % 24,
                         .day = day < 1 ? 1 : MIN(day, 31u),
                         .month = month < 1 ? 1 : MIN(month, 12u),
                         .year = year < 70 ? 2000 + year : 1900 + year};
}

/* ---- time -------------------------------------------------------------------------------- */

/* The guest's wall clock at system time now, in ns since 1970. */
static uint64_t rtc_ns(const struct domain *d, uint64_t now)
{
    return wallclock_boot_ns() + now + d->time_offset_seconds * NS_PER_SEC;
}

/* Does the clock advance? Not while being set, nor with the divider chain held in reset. */
static bool ticking(const struct vrtc *r)
{
    return !(r->cmos[R_B] & B_SET) && (r->cmos[R_A] & A_DIVIDER) == A_DIV_RUNS;
}

static void refresh_date(struct domain *d, uint64_t now)
{
    struct vrtc *r = rtc_of(d);

    if (r->cmos[R_B] & B_SET)
        return; /* the registers are the guest's to write */
    int64_t second = (int64_t)(rtc_ns(d, now) / NS_PER_SEC);
    if (second == r->shown)
        return;
    struct date t = date_of(second);
    store_date(r, &t);
    r->shown = second;
}

/* The registers hold a new time: move the domain's clock. Returns the change in seconds. */
static int64_t commit_date(struct domain *d, uint64_t now)
{
    struct vrtc *r = rtc_of(d);
    struct date t = load_date(r);
    int64_t delta = seconds_of(&t) - (int64_t)(rtc_ns(d, now) / NS_PER_SEC);

    d->time_offset_seconds += (uint64_t)delta;
    r->seen_ns = rtc_ns(d, now);
    return delta;
}

/* ---- flags and interrupts ---------------------------------------------------------------- */

static bool alarm_byte_matches(uint8_t alarm, unsigned wanted, unsigned is)
{
    return (alarm & ALARM_ANY) == ALARM_ANY || wanted == is;
}

static bool alarm_at(const struct vrtc *r, unsigned day_second)
{
    const uint8_t *c = r->cmos;

    return alarm_byte_matches(c[R_SEC_ALARM], decode(r, c[R_SEC_ALARM]), day_second % 60) &&
           alarm_byte_matches(c[R_MIN_ALARM], decode(r, c[R_MIN_ALARM]), day_second / 60 % 60) &&
           alarm_byte_matches(c[R_HOUR_ALARM], decode_hour(r, c[R_HOUR_ALARM]), day_second / 3600);
}

/* Seconds from `from` (a second of the day) to the next alarm after it, at most a day; 0 when the
 * alarm bytes name no time at all. */
static unsigned seconds_to_alarm(const struct vrtc *r, unsigned from)
{
    unsigned s = from + 1;

    while (s <= from + DAY_SECONDS) {
        unsigned at = s % DAY_SECONDS;
        if (alarm_at(r, at))
            return s - from;
        unsigned hour = at / 3600, min = at / 60 % 60;
        const uint8_t *c = r->cmos;
        if (!alarm_byte_matches(c[R_HOUR_ALARM], decode_hour(r, c[R_HOUR_ALARM]), hour))
            s += 3600 - at % 3600;
        else if (!alarm_byte_matches(c[R_MIN_ALARM], decode(r, c[R_MIN_ALARM]), min))
            s += 60 - at % 60;
        else
            s++;
    }
    return 0;
}

/* Set the update, alarm and (without its interrupt) periodic flags for what passed since last. */
static void catch_up(struct domain *d, uint64_t now)
{
    struct vrtc *r = rtc_of(d);
    uint64_t t = rtc_ns(d, now), from = r->seen_ns / NS_PER_SEC, to = t / NS_PER_SEC;

    if (!(r->cmos[R_B] & B_PIE) && vtick_skip(&r->tick, now))
        r->cmos[R_C] |= C_PF;
    r->seen_ns = t;
    if (!ticking(r) || to <= from)
        return;
    r->cmos[R_C] |= C_UF;
    unsigned distance = seconds_to_alarm(r, (unsigned)(from % DAY_SECONDS));
    if (distance && from + distance <= to)
        r->cmos[R_C] |= C_AF;
}

static void update_line(struct domain *d)
{
    struct vrtc *r = rtc_of(d);
    bool irq = r->cmos[R_C] & r->cmos[R_B] & (C_PF | C_AF | C_UF);

    r->cmos[R_C] = (uint8_t)((r->cmos[R_C] & ~C_IRQF) | (irq ? C_IRQF : 0));
    if (!READ_ONCE(d->platform->hpet.legacy))
        platform_isa_irq(d, RTC_IRQ, irq);
}

/* When the update timer must look again: the next second for UIE, the alarm's for AIE. */
static uint64_t next_update_ns(const struct domain *d, uint64_t now)
{
    const struct vrtc *r = rtc_of(d);
    uint64_t t = rtc_ns(d, now), seconds;

    if (!ticking(r) || !(r->cmos[R_B] & (B_UIE | B_AIE)))
        return TIME_NEVER;
    if (r->cmos[R_B] & B_UIE)
        seconds = 1;
    else
        seconds = seconds_to_alarm(r, (unsigned)(t / NS_PER_SEC % DAY_SECONDS));
    return seconds ? now + seconds * NS_PER_SEC - t % NS_PER_SEC : TIME_NEVER;
}

static void arm_update(struct domain *d, uint64_t now)
{
    device_timer_set(&rtc_of(d)->update, next_update_ns(d, now));
}

static void arm_periodic(struct domain *d, uint64_t now)
{
    struct vrtc *r = rtc_of(d);

    tick_note(d, &r->tick);
    device_timer_set(&r->periodic, r->cmos[R_B] & B_PIE ? vtick_next(&r->tick, now) : TIME_NEVER);
}

/* Periodic ticks until now, while their interrupt is enabled. */
static void tick(struct domain *d, uint64_t now)
{
    struct vrtc *r = rtc_of(d);
    enum vtick_line line = isa_tick_line(d, RTC_IRQ);

    if (line != VTICK_MASKED && r->cmos[R_C] & C_PF) /* register C was not read since the last */
        line = VTICK_HELD;
    if (vtick_fire(&r->tick, now, line, d->hvm_params[HVM_PARAM_TIMER_MODE])) {
        r->cmos[R_C] |= C_PF;
        r->tick.waits = false; /* for register C first */
        update_line(d);
    }
    arm_periodic(d, now);
}

/* The rate bits changed: 3 is 8,192 Hz, 15 is 2 Hz, 1 and 2 are 256 and 128 Hz. */
static void restart_periodic(struct domain *d, uint64_t now)
{
    struct vrtc *r = rtc_of(d);
    unsigned rate = r->cmos[R_A] & A_RATE;

    vtick_stop(&r->tick);
    if (rate && (r->cmos[R_A] & A_DIVIDER) == A_DIV_RUNS)
        vtick_start(&r->tick, now, 1ULL << ((rate <= 2 ? rate + 7 : rate) - 1), CRYSTAL_HZ);
    arm_periodic(d, now);
}

static void update_fired(void *data)
{
    struct domain *d = data;
    struct vrtc *r = rtc_of(d);

    spin_lock(&r->lock);
    uint64_t now = now_ns(), next;
    catch_up(d, now);
    update_line(d);
    next = next_update_ns(d, now);
    if (next != TIME_NEVER)
        timer_set(&r->update, next);
    spin_unlock(&r->lock);
}

static void periodic_fired(void *data)
{
    struct domain *d = data;
    struct vrtc *r = rtc_of(d);

    spin_lock(&r->lock);
    if (r->cmos[R_B] & B_PIE)
        tick(d, now_ns());
    spin_unlock(&r->lock);
}

void vrtc_look(struct domain *d)
{
    periodic_fired(d);
}

void vrtc_refresh_line(struct domain *d)
{
    struct vrtc *r = rtc_of(d);

    spin_lock(&r->lock);
    update_line(d);
    spin_unlock(&r->lock);
}

/* ---- ports ------------------------------------------------------------------------------- */

static void write_a(struct domain *d, uint8_t val, uint64_t now)
{
    struct vrtc *r = rtc_of(d);
    uint8_t old = r->cmos[R_A];

    r->cmos[R_A] = val & (uint8_t)~A_UIP;
    if (r->cmos[R_A] != old)
        restart_periodic(d, now);
}

/* Returns the change of the domain's clock in seconds. */
static int64_t write_b(struct domain *d, uint8_t val, uint64_t now)
{
    struct vrtc *r = rtc_of(d);
    uint8_t old = r->cmos[R_B];
    int64_t delta = 0;

    if (!(old & B_SET))
        refresh_date(d, now); /* what the registers will hold while being set */
    r->shown = SHOWN_NONE;
    if (val & B_SET)
        val &= (uint8_t)~B_UIE; /* SET clears UIE */
    r->cmos[R_B] = val;
    if ((old & B_SET) && !(val & B_SET))
        delta = commit_date(d, now);
    if ((old ^ val) & B_PIE) {
        vtick_skip(&r->tick, now); /* ticks of the time before are gone */
        r->tick.owed = 0;
        r->tick.busy = r->tick.waits = false;
        arm_periodic(d, now);
    }
    return delta;
}

static int64_t write_reg(struct domain *d, unsigned index, uint8_t val, uint64_t now)
{
    struct vrtc *r = rtc_of(d);

    r->shown = SHOWN_NONE; /* the registers, or how they are coded, may change */
    switch (index) {
    case R_SEC_ALARM:
    case R_MIN_ALARM:
    case R_HOUR_ALARM:
        r->cmos[index] = val;
        return 0;
    case R_A:
        write_a(d, val, now);
        return 0;
    case R_B:
        return write_b(d, val, now);
    case R_C:
    case R_D:
        return 0;
    default:
        refresh_date(d, now);
        r->shown = SHOWN_NONE;
        r->cmos[index] = val;
        return r->cmos[R_B] & B_SET ? 0 : commit_date(d, now);
    }
}

static uint8_t read_reg(struct domain *d, unsigned index, uint64_t now)
{
    struct vrtc *r = rtc_of(d);
    uint8_t val;

    switch (index) {
    case R_SEC:
    case R_MIN:
    case R_HOUR:
    case R_WEEKDAY:
    case R_DAY:
    case R_MONTH:
    case R_YEAR:
        refresh_date(d, now);
        return r->cmos[index];
    case R_A:
        val = r->cmos[R_A];
        if (ticking(r) && rtc_ns(d, now) % NS_PER_SEC >= NS_PER_SEC - UIP_NS)
            val |= A_UIP;
        return val;
    case R_C: /* reading acknowledges */
        catch_up(d, now);
        update_line(d);
        val = r->cmos[R_C];
        r->cmos[R_C] = 0;
        update_line(d);
        if (r->tick.busy)
            tick(d, now);
        return val;
    case R_D:
        return D_VALID;
    default:
        return r->cmos[index];
    }
}

/* Tell the rest of the system that the guest set its clock. No lock held. */
static void clock_was_set(struct domain *d, int64_t delta)
{
    ioreq_t p = {.type = IOREQ_TYPE_TIMEOFFSET,
                 .size = 8,
                 .count = 1,
                 .dir = IOREQ_WRITE,
                 .state = STATE_IOREQ_READY,
                 .data = (uint64_t)delta};

    pvtime_update_wallclock(d);
    ioreq_broadcast(d, &p);
}

bool vrtc_pio(struct domain *d, uint16_t port, bool write, uint8_t *val)
{
    struct vrtc *r = rtc_of(d);
    bool ours = true;
    int64_t delta = 0;

    spin_lock(&r->lock);
    uint64_t now = now_ns();
    if (port == 0x70 && write) {
        r->index = *val & 0x7f;
        r->nmi_masked = *val & 0x80;
        ours = r->index < RTC_CMOS_SIZE; /* the device model latches its own registers' index */
    } else if (port == 0x70) {
        *val = 0xff; /* write-only */
    } else if (r->index >= RTC_CMOS_SIZE) {
        ours = false;
    } else if (write) {
        catch_up(d, now);
        delta = write_reg(d, r->index, *val, now);
        update_line(d);
        arm_update(d, now);
    } else {
        *val = read_reg(d, r->index, now);
    }
    spin_unlock(&r->lock);
    if (delta)
        clock_was_set(d, delta);
    return ours;
}

/* ---- life cycle, contexts ---------------------------------------------------------------- */

void vrtc_reset(struct domain *d)
{
    struct vrtc *r = rtc_of(d);
    uint64_t now = now_ns();

    spin_lock(&r->lock);
    memset(r->cmos, 0, sizeof(r->cmos));
    r->shown = SHOWN_NONE;
    r->cmos[R_A] = A_DIV_RUNS | 6; /* 1,024 Hz, as firmware finds it */
    r->cmos[R_B] = B_24H;
    r->cmos[R_D] = D_VALID;
    r->index = 0;
    r->nmi_masked = false;
    r->seen_ns = rtc_ns(d, now);
    restart_periodic(d, now);
    arm_update(d, now);
    update_line(d);
    spin_unlock(&r->lock);
}

void vrtc_init(struct domain *d)
{
    struct vrtc *r = rtc_of(d);

    timer_init(&r->periodic, periodic_fired, d, 0);
    timer_init(&r->update, update_fired, d, 0);
    vrtc_reset(d);
}

void vrtc_destroy(struct domain *d)
{
    timer_kill(&rtc_of(d)->periodic);
    timer_kill(&rtc_of(d)->update);
}

int vrtc_save(struct domain *d, struct hvm_hw_rtc *out)
{
    struct vrtc *r = rtc_of(d);

    spin_lock(&r->lock);
    catch_up(d, now_ns());
    refresh_date(d, now_ns());
    memcpy(out->cmos_data, r->cmos, sizeof(out->cmos_data));
    out->cmos_index = r->index;
    out->pad0 = 0;
    out->rtc_offset = (int64_t)d->time_offset_seconds;
    spin_unlock(&r->lock);
    return 0;
}

/* The time of day comes from this host's clock and the domain's time offset, not the record. */
int vrtc_load(struct domain *d, const struct hvm_hw_rtc *in)
{
    struct vrtc *r = rtc_of(d);

    spin_lock(&r->lock);
    uint64_t now = now_ns();
    memcpy(r->cmos, in->cmos_data, sizeof(r->cmos));
    r->shown = SHOWN_NONE;
    r->cmos[R_A] &= (uint8_t)~A_UIP;
    r->cmos[R_C] &= C_PF | C_AF | C_UF;
    r->cmos[R_D] = D_VALID;
    r->index = in->cmos_index & 0x7f;
    r->seen_ns = rtc_ns(d, now);
    restart_periodic(d, now);
    arm_update(d, now);
    update_line(d);
    spin_unlock(&r->lock);
    return 0;
}
