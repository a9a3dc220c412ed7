/* vrtc.h: the MC146818 clock: CMOS registers 0..13. Guarded by its own lock (before irq_lock).
 *
 * The rest of CMOS (boot order, memory size, century) belongs to the device model, as under Xen.
 */
#pragma once

#include "domain/domain.h"
#include "platform/vtick.h"

struct vrtc {
    spinlock_t lock;
    uint8_t cmos[RTC_CMOS_SIZE];
    uint8_t index;
    bool nmi_masked;       /* port 0x70 bit 7 */
    int64_t shown;         /* the second that the date registers show; SHOWN_NONE: not known */
    uint64_t seen_ns;      /* RTC time up to which update and alarm flags were worked out */
    struct vtick tick;     /* periodic flag; runs whenever a rate is selected */
    struct timer periodic; /* set while PIE is on */
    struct timer update;   /* set while UIE or AIE is on */
};

void vrtc_init(struct domain *d);
void vrtc_reset(struct domain *d);
void vrtc_destroy(struct domain *d);
/* The guest ended an interrupt: does a tick wait for that? */
void vrtc_look(struct domain *d);
/* One byte at 0x70 or 0x71; false when the device model has that register. */
bool vrtc_pio(struct domain *d, uint16_t port, bool write, uint8_t *val);
/* The HPET took or gave back IRQ 8: drive the line accordingly. */
void vrtc_refresh_line(struct domain *d);
int vrtc_save(struct domain *d, struct hvm_hw_rtc *out);
int vrtc_load(struct domain *d, const struct hvm_hw_rtc *in);
