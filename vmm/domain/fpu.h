/* fpu.h: the x87, SSE and AVX state of vCPUs, moved only when another vCPU takes the pCPU. */
#pragma once

#include "core/trap.h"
#include "core/x86.h"
#include "domain/domain.h"

extern uint64_t host_xcr0; /* every state component the CPU has; 0 without XSAVE */

/* Turn XSAVE on, on this pCPU, with every component that Ringfence switches. */
void fpu_cpu_up(void);
/* v's area cannot be loaded: a tool gave what no CPU could have saved. */
void fpu_load_initial(struct vcpu *v);

/* XRSTOR, or FXRSTOR without XSAVE; false: it faulted. */
static inline bool fpu_restore(const void *area)
{
    if (likely(host_xcr0))
        __asm__ goto("1: xrstor64 (%0)\n\t" FIXUP("1b", "%l[faulted]")
                     :
                     : "r"(area), "a"(~0u), "d"(~0u)
                     : "memory"
                     : faulted);
    else
        __asm__ goto("1: fxrstor64 (%0)\n\t" FIXUP("1b", "%l[faulted]")
                     :
                     : "r"(area)
                     : "memory"
                     : faulted);
    return true;
faulted:
    return false;
}

/* v's state into the CPU, XCR0 included; and back. XCR0 is host_xcr0 unless a vCPU's state is
 * loaded. */
static inline void fpu_load(struct vcpu *v)
{
    if (unlikely(!fpu_restore(v->xsave)))
        fpu_load_initial(v);
    if (unlikely(v->xcr0 != host_xcr0) && host_xcr0)
        xsetbv(0, v->xcr0);
}

static inline void fpu_save(struct vcpu *v)
{
    if (likely(host_xcr0)) {
        if (unlikely(v->xcr0 != host_xcr0))
            xsetbv(0, host_xcr0);
        __asm__ volatile("xsave64 (%0)" ::"r"(v->xsave), "a"(~0u), "d"(~0u) : "memory");
    } else {
        __asm__ volatile("fxsave64 (%0)" ::"r"(v->xsave) : "memory");
    }
}
