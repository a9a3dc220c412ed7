/* fpu.h: the x87, SSE and AVX state of vCPUs, moved only when another vCPU takes the pCPU. */
#pragma once

#include "domain/domain.h"

/* Turn XSAVE on, on this pCPU, with every component that Ringfence switches. */
void fpu_cpu_up(void);
/* v's state into the CPU, XCR0 included; and back. */
void fpu_load(struct vcpu *v);
void fpu_save(struct vcpu *v);
