/* pvtime.c: the PV clock, wall clock and runstate that a guest reads from its own memory.
 *
 * The guest computes system time from its TSC: system_time + ((tsc - tsc_timestamp) << tsc_shift) *
 * tsc_to_system_mul / 2^32. All vCPUs of all domains get the same line, taken once and with the
 * very factor that now_ns() uses: so clocks agree to the nanosecond across vCPUs, which is what
 * XEN_PVCLOCK_TSC_STABLE_BIT promises, never drift from the hypervisor's timers, and need no
 * refresh.
 */
#include "domain/pvtime.h"

#include "core/atomic.h"
#include "core/errno.h"
#include "core/string.h"
#include "core/x86.h"
#include "domain/evtchn.h"

/* Layout of the wall clock in a 32-bit shared_info: wc_version, wc_sec, wc_nsec follow the two
 * bitmaps of 128 bytes, wc_sec_hi ends arch_shared_info. */
enum {
    SHINFO32_WC = XEN_LEGACY_MAX_VCPUS * 64 + 2 * 128,
    SHINFO32_WC_SEC_HI = SHINFO32_WC + 12 + 24,
};
STATIC_ASSERT(offsetof(struct shared_info, wc_version) == 3072);
STATIC_ASSERT(SHINFO32_WC == 2304 && SHINFO32_WC_SEC_HI == 2340);

void pvtime_fill(struct vcpu_time_info *t, const struct pvtime_anchor *a, uint64_t ns_per_tick,
                 uint64_t tsc_offset)
{
    int8_t shift = 0;

    for (; ns_per_tick >> 32; ns_per_tick >>= 1) /* a TSC below 1 GHz */
        shift++;
    t->tsc_timestamp = a->tsc + tsc_offset;
    t->system_time = a->ns;
    t->tsc_to_system_mul = (uint32_t)ns_per_tick;
    t->tsc_shift = shift;
    t->flags = XEN_PVCLOCK_TSC_STABLE_BIT;
}

static struct pvtime_anchor the_anchor; /* of all; ns 0 until it is taken */

static const struct pvtime_anchor *anchor(void)
{
    static spinlock_t lock;
    struct pvtime_anchor *a = &the_anchor;

    if (likely(atomic_load(&a->ns)))
        return a;
    spin_lock(&lock);
    if (!a->ns) {
        a->tsc = rdtsc(); /* before now_ns(): guests' clocks are never behind our timers */
        atomic_store(&a->ns, now_ns());
    }
    spin_unlock(&lock);
    return a;
}

void pvtime_read(struct vcpu *v, struct vcpu_time_info *t)
{
    const struct domain *d = v->domain;
    struct pvtime_anchor a = *anchor();
    uint64_t ns_per_tick = tsc_to_ns(1ULL << 32);

    if (unlikely(d->tsc_ratio)) {
        a.tsc = tsc_scaled(d, a.tsc);
        ns_per_tick = muldiv(ns_per_tick, tsc_khz, d->tsc_khz);
    }
    memset(t, 0, sizeof(*t));
    pvtime_fill(t, &a, ns_per_tick, v->tsc_offset);
}

int pvtime_copy_out(uint64_t gva, struct vcpu_time_info *t)
{
    uint32_t version;

    if (copy_from_guest(&version, gva, sizeof(version)))
        return -EFAULT;
    t->version = (version + 1) | 1;
    if (copy_to_guest(gva, t, sizeof(*t)))
        return -EFAULT;
    t->version++;
    return copy_to_guest(gva, &t->version, sizeof(t->version));
}

static bool same_line(const struct vcpu_time_info *a, const struct vcpu_time_info *b)
{
    return a->tsc_timestamp == b->tsc_timestamp && a->system_time == b->system_time &&
           a->tsc_to_system_mul == b->tsc_to_system_mul && a->tsc_shift == b->tsc_shift &&
           a->flags == b->flags;
}

/* Bring v's clock up to date: at its creation, when vcpu_info moves, and when its TSC offset was
 * changed. Nothing is written when nothing changed. v is current, or does not run. */
void pvtime_update_vcpu(struct vcpu *v)
{
    struct vcpu_time_info *t = &v->info->time, fresh;
    uint32_t version;

    pvtime_read(v, &fresh);
    if (evtchn_has_vcpu_info(v)) {
        if (likely(same_line(t, &fresh)))
            return;
        version = (READ_ONCE(t->version) + 1) | 1;
        WRITE_ONCE(t->version, version);
        barrier(); /* x86 keeps the order of stores */
        t->tsc_timestamp = fresh.tsc_timestamp;
        t->system_time = fresh.system_time;
        t->tsc_to_system_mul = fresh.tsc_to_system_mul;
        t->tsc_shift = fresh.tsc_shift;
        t->flags = fresh.flags;
        barrier();
        WRITE_ONCE(t->version, version + 1);
    }
    if (v->time_info_gva && v == current_vcpu())
        (void)pvtime_copy_out(v->time_info_gva, &fresh);
}

void pvtime_fill_wallclock(struct shared_info *s, bool layout32, uint64_t utc_ns)
{
    uint32_t *wc = layout32 ? (uint32_t *)((char *)s + SHINFO32_WC) : &s->wc_version;
    uint32_t *sec_hi = layout32 ? (uint32_t *)((char *)s + SHINFO32_WC_SEC_HI) : &s->wc_sec_hi;
    uint64_t sec = utc_ns / NS_PER_SEC;
    uint32_t version = (READ_ONCE(wc[0]) + 1) | 1;

    WRITE_ONCE(wc[0], version);
    barrier();
    wc[1] = (uint32_t)sec;
    wc[2] = (uint32_t)(utc_ns % NS_PER_SEC);
    *sec_hi = (uint32_t)(sec >> 32);
    barrier();
    WRITE_ONCE(wc[0], version + 1);
}

/* Bring d's wall clock up to date: when it is built, when its time offset or the host's wall clock
 * was set, and when its shared_info changed width. Not called twice at once for a domain. */
void pvtime_update_wallclock(struct domain *d)
{
    if (d->shared_info)
        pvtime_fill_wallclock(d->shared_info, d->has_32bit_shinfo,
                              wallclock_boot_ns() + d->time_offset_seconds * NS_PER_SEC);
}

/* ---- runstate ------------------------------------------------------------------------------- */

/* The area as each width has it (i386 aligns uint64_t to 4 bytes), at any alignment. */
struct runstate32 {
    int32_t state;
    uint64_t state_entry_time, time[4];
} __packed;
struct runstate64 {
    int32_t state;
    uint32_t pad;
    uint64_t state_entry_time, time[4];
} __packed;
STATIC_ASSERT(sizeof(struct runstate32) == 44);
STATIC_ASSERT(sizeof(struct runstate64) == sizeof(struct vcpu_runstate_info));

size_t runstate_bytes(bool layout32)
{
    return layout32 ? sizeof(struct runstate32) : sizeof(struct runstate64);
}

/* With XEN_RUNSTATE_UPDATE up meanwhile, for readers on other vCPUs that asked for it. */
#define STORE_RUNSTATE(area, r, flagged)                                                           \
    do {                                                                                           \
        __auto_type a_ = (area);                                                                   \
        if (flagged)                                                                               \
            a_->state_entry_time |= XEN_RUNSTATE_UPDATE;                                           \
        barrier(); /* x86 keeps the order of stores */                                             \
        a_->state = (r)->state;                                                                    \
        a_->time[0] = (r)->time[0];                                                                \
        a_->time[1] = (r)->time[1];                                                                \
        a_->time[2] = (r)->time[2];                                                                \
        a_->time[3] = (r)->time[3];                                                                \
        barrier();                                                                                 \
        a_->state_entry_time = (r)->state_entry_time;                                              \
    } while (0)

int runstate_copy_out(uint64_t gva, const struct vcpu_runstate_info *r, bool layout32)
{
    struct runstate64 out = {0};
    struct runstate32 out32;

    STORE_RUNSTATE(&out, r, false);
    STORE_RUNSTATE(&out32, r, false);
    return layout32 ? copy_to_guest(gva, &out32, sizeof(out32))
                    : copy_to_guest(gva, &out, sizeof(out));
}

/* v was just loaded and is current: write its registered area. */
static void update_runstate(struct vcpu *v)
{
    bool layout32 = v->domain->has_32bit_shinfo;
    bool flagged = v->domain->vm_assist & BIT(VMASST_TYPE_runstate_update_flag);
    const struct vcpu_runstate_info *r = &v->runstate; /* only its pCPU changes it: this one */
    uint64_t gva;

    spin_lock(&v->area_lock);
    gva = v->runstate_gva;
    if (v->runstate_guest) {
        gva = 0;
        if (layout32)
            STORE_RUNSTATE((struct runstate32 *)v->runstate_guest, r, flagged);
        else
            STORE_RUNSTATE((struct runstate64 *)v->runstate_guest, r, flagged);
    }
    spin_unlock(&v->area_lock);
    /* By address it may be out of reach now (the guest's user runs on page tables without its
     * kernel): then the guest sees the last state that could be written. */
    if (gva)
        (void)runstate_copy_out(gva, r, layout32);
}

void pvtime_loaded(struct vcpu *v)
{
    if (unlikely(v->info->time.tsc_timestamp != guest_tsc(v, the_anchor.tsc)))
        pvtime_update_vcpu(v);
    if (READ_ONCE(v->runstate_gva))
        update_runstate(v);
}
