/* vpmtmr.c: the ACPI PM timer is now_ns() in other units; its status and enable bits make the SCI
 * (ACPI 6.4, 4.8.2.1 and 4.8.3.1).
 */
#include "platform/vpmtmr.h"
#include "platform/inner.h"

#define HALF_RANGE_SHIFT 31 /* TMR_STS: the top bit of the 32-bit counter changed */
#define STS_WRITABLE     (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_WAK)
#define PM1_RTC          (1u << 10) /* alarm: enabled by guests, never raised */
#define EN_WRITABLE      (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC)

static struct vpmtmr *pm_of(const struct domain *d)
{
    return &d->platform->pm;
}

/* Clocks since base_ns, plus base: does not wrap, so half-ranges can be counted. */
static uint64_t clocks(const struct vpmtmr *t, uint64_t now)
{
    return t->base + muldiv(now - t->base_ns, PMTMR_HZ, NS_PER_SEC);
}

uint32_t vpmtmr_count(const struct domain *d)
{
    return (uint32_t)clocks(pm_of(d), now_ns());
}

/* Turn what passed since the last look into TMR_STS. */
static void catch_up(struct vpmtmr *t, uint64_t now)
{
    uint64_t half = clocks(t, now) >> HALF_RANGE_SHIFT;

    if (half != t->seen)
        t->sts |= PM1_TMR;
    t->seen = half;
}

static void update_sci(struct domain *d)
{
    struct vpmtmr *t = pm_of(d);

    device_gsi(d, SCI_IRQ, t->sts & t->en & EN_WRITABLE);
}

static uint64_t next_half_ns(const struct vpmtmr *t)
{
    uint64_t target = (t->seen + 1) << HALF_RANGE_SHIFT;

    return t->base_ns + muldiv(target - t->base, NS_PER_SEC, PMTMR_HZ) + 1;
}

static void timer_fired(void *data)
{
    struct domain *d = data;
    struct vpmtmr *t = pm_of(d);

    spin_lock(&t->lock);
    catch_up(t, now_ns());
    update_sci(d);
    if (t->en & PM1_TMR)
        timer_set(&t->timer, next_half_ns(t));
    spin_unlock(&t->lock);
}

void vpmtmr_event_pio(struct domain *d, unsigned offset, unsigned bytes, bool write, uint32_t *val)
{
    struct vpmtmr *t = pm_of(d);

    spin_lock(&t->lock);
    catch_up(t, now_ns());
    uint32_t both = t->sts | (uint32_t)t->en << 16;
    uint32_t mask = bytes >= 4 ? ~0u : (1u << (8 * bytes)) - 1;
    if (!write) {
        *val = both >> (8 * offset) & mask;
    } else {
        uint32_t touched = mask << (8 * offset), bits = *val << (8 * offset) & touched;
        t->sts &= (uint16_t) ~(bits & STS_WRITABLE); /* write 1 to clear */
        both = (both & ~touched) | bits;
        t->en = both >> 16 & EN_WRITABLE;
        device_timer_set(&t->timer, t->en & PM1_TMR ? next_half_ns(t) : TIME_NEVER);
        update_sci(d);
    }
    spin_unlock(&t->lock);
}

static void set_status(struct domain *d, uint16_t bit)
{
    struct vpmtmr *t = pm_of(d);

    if (!has_emulation(d, XEN_X86_EMU_PM))
        return;
    spin_lock(&t->lock);
    t->sts |= bit;
    update_sci(d);
    spin_unlock(&t->lock);
}

void vpmtmr_power_button(struct domain *d)
{
    set_status(d, PM1_PWRBTN);
}

void vpmtmr_sleep_button(struct domain *d)
{
    set_status(d, PM1_SLPBTN);
}

static void post_out(struct domain *d, uint16_t port, unsigned bytes, uint32_t val)
{
    ioreq_t p = {.type = IOREQ_TYPE_PIO,
                 .dir = IOREQ_WRITE,
                 .count = 1,
                 .size = bytes,
                 .addr = port,
                 .data = val};

    ioreq_broadcast(d, &p);
}

/* Waking, QEMU resets the PIIX4, which then does not decode PM1_CNT, and SeaBIOS sets that up only
 * for machines whose PCI it set up at boot: without this the guest could not power off any more
 * (82371AB, 7.1.26 and 7.1.32: PMBA and PMREGMISC of function 3). */
static void device_model_decodes_again(struct domain *d)
{
    static const uint32_t function_3 = 0x80000000u | 1 << 11 | 3 << 8;

    post_out(d, 0xcf8, 4, function_3 | 0x40);
    post_out(d, 0xcfc, 4, vpmtmr_port(d) | 1u);
    post_out(d, 0xcf8, 4, function_3 | 0x80);
    post_out(d, 0xcfc, 1, 1);
}

void vpmtmr_woke(struct domain *d)
{
    set_status(d, PM1_WAK);
    if (has_emulation(d, XEN_X86_EMU_PM))
        device_model_decodes_again(d);
}

void vpmtmr_reset(struct domain *d)
{
    struct vpmtmr *t = pm_of(d);

    spin_lock(&t->lock);
    t->base = 0;
    t->base_ns = now_ns();
    t->seen = 0;
    t->sts = t->en = 0;
    timer_stop(&t->timer);
    update_sci(d);
    spin_unlock(&t->lock);
}

void vpmtmr_init(struct domain *d)
{
    timer_init(&pm_of(d)->timer, timer_fired, d, 0);
    vpmtmr_reset(d);
}

void vpmtmr_destroy(struct domain *d)
{
    timer_kill(&pm_of(d)->timer);
}

int vpmtmr_save(struct domain *d, struct hvm_hw_pmtimer *out)
{
    struct vpmtmr *t = pm_of(d);

    spin_lock(&t->lock);
    catch_up(t, now_ns());
    out->tmr_val = vpmtmr_count(d);
    out->pm1a_sts = t->sts;
    out->pm1a_en = t->en;
    spin_unlock(&t->lock);
    return 0;
}

int vpmtmr_load(struct domain *d, const struct hvm_hw_pmtimer *in)
{
    struct vpmtmr *t = pm_of(d);

    spin_lock(&t->lock);
    t->base = in->tmr_val;
    t->base_ns = now_ns();
    t->seen = in->tmr_val >> HALF_RANGE_SHIFT;
    t->sts = in->pm1a_sts & STS_WRITABLE;
    t->en = in->pm1a_en & EN_WRITABLE;
    device_timer_set(&t->timer, t->en & PM1_TMR ? next_half_ns(t) : TIME_NEVER);
    update_sci(d);
    spin_unlock(&t->lock);
    return 0;
}
