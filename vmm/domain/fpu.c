/* fpu.c: the guests' x87, SSE and AVX state (SDM 1, chapter 13). Ringfence itself uses none. */
#include "domain/fpu.h"

#include "core/string.h"
#include "domain/hvm.h"

void fpu_cpu_up(void)
{
    if (!host_xcr0)
        return;
    write_cr4(read_cr4() | CR4_OSXSAVE);
    xsetbv(0, host_xcr0);
}

void fpu_load_initial(struct vcpu *v)
{
    memset(v->xsave, 0, 576);
    *(uint16_t *)v->xsave = 0x37f;
    *(uint32_t *)((char *)v->xsave + 24) = 0x1f80;
    fpu_restore(v->xsave);
}
