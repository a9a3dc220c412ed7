/* pvtime.h: the arithmetic of the guests' clock, apart so that it can be tested on the host. */
#pragma once

#include "domain/domain.h"

/* One moment seen by both clocks: at host TSC `tsc`, now_ns() was `ns`. */
struct pvtime_anchor {
    uint64_t tsc, ns;
};

/* Fill everything but the version: the line through `a` for a guest whose TSC is the host's plus
 * tsc_offset, at ns_per_tick nanoseconds a tick (32.32 fixed point, not 0). */
void pvtime_fill(struct vcpu_time_info *t, const struct pvtime_anchor *a, uint64_t ns_per_tick,
                 uint64_t tsc_offset);
/* Write the wall clock at system time 0, in ns since 1970, to a shared_info of either layout. */
void pvtime_fill_wallclock(struct shared_info *s, bool layout32, uint64_t utc_ns);
/* v was given a pCPU and is current: its PV time, where it is not what it should be, and its
 * runstate are written. */
void pvtime_loaded(struct vcpu *v);
/* v's time information as it is now, version 0. */
void pvtime_read(struct vcpu *v, struct vcpu_time_info *t);
/* Write t to the current address space at gva, telling readers by the version. -EFAULT. */
int pvtime_copy_out(uint64_t gva, struct vcpu_time_info *t);
/* Copy a runstate to the current address space in a 32- or 64-bit guest's layout. -EFAULT. */
int runstate_copy_out(uint64_t gva, const struct vcpu_runstate_info *r, bool layout32);
size_t runstate_bytes(bool layout32);
