/* vpit.h: the 8254 interval timer and port 0x61. Guarded by its own lock (taken before irq_lock).
 */
#pragma once

#include "domain/domain.h"
#include "platform/vtick.h"

#define PIT_HZ 1193182u

struct vpit_channel {
    struct hvm_hw_pit_channel hw;
    bool armed;        /* a count was written since the control word */
    bool running;      /* counts now: by gate, or triggered in modes 1 and 5 */
    uint64_t start_ns; /* when running: time of clock 0 of the count */
    uint64_t held;     /* when not: clocks already counted */
    uint32_t next;     /* count that takes over (modes 2, 3: at switch_ns; 1, 5: next trigger) */
    uint64_t switch_ns;
};

struct vpit {
    spinlock_t lock;
    struct vpit_channel ch[3];
    uint8_t port61;      /* bits 3:0 as written */
    uint64_t oneshot_ns; /* channel 0, modes 0 and 4: when OUT rises; TIME_NEVER */
    struct vtick tick;   /* channel 0, modes 2 and 3 */
    struct timer timer;
};

void vpit_init(struct domain *d);
void vpit_reset(struct domain *d);
void vpit_destroy(struct domain *d);
/* The guest ended an interrupt: does a tick wait for that? */
void vpit_look(struct domain *d);
/* One byte of port I/O at 0x40..0x43 and 0x61. */
void vpit_pio(struct domain *d, uint16_t port, bool write, uint8_t *val);
int vpit_save(struct domain *d, struct hvm_hw_pit *out);
int vpit_load(struct domain *d, const struct hvm_hw_pit *in);
