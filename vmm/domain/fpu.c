/* fpu.c: the guests' x87, SSE and AVX state (SDM 1, chapter 13). Ringfence itself uses none. */
#include "domain/fpu.h"

#include "core/string.h"
#include "core/trap.h"
#include "core/x86.h"
#include "domain/hvm.h"

extern uint64_t host_xcr0; /* every state component the CPU has; 0 without XSAVE */

void fpu_cpu_up(void)
{
    if (!host_xcr0)
        return;
    write_cr4(read_cr4() | CR4_OSXSAVE);
    xsetbv(0, host_xcr0);
}

/* XCR0 is host_xcr0 unless a vCPU's state is loaded. */
void fpu_load(struct vcpu *v)
{
    if (xrstor_safe(v->xsave, ~0ULL, host_xcr0 != 0)) {
        /* A tool gave what no CPU could have saved. */
        memset(v->xsave, 0, 576);
        *(uint16_t *)v->xsave = 0x37f;
        *(uint32_t *)((char *)v->xsave + 24) = 0x1f80;
        xrstor_safe(v->xsave, ~0ULL, host_xcr0 != 0);
    }
    if (host_xcr0 && v->xcr0 != host_xcr0)
        xsetbv(0, v->xcr0);
}

void fpu_save(struct vcpu *v)
{
    if (host_xcr0) {
        if (v->xcr0 != host_xcr0)
            xsetbv(0, host_xcr0);
        __asm__ volatile("xsave64 (%0)" ::"r"(v->xsave), "a"(~0u), "d"(~0u) : "memory");
    } else {
        __asm__ volatile("fxsave64 (%0)" ::"r"(v->xsave) : "memory");
    }
}
