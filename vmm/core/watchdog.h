/* watchdog.h: pCPUs that stand still are named on the console. */
#pragma once

#include "core/types.h"

/* Every pCPU starts to look after the next one. Once, when all that come up are up. */
void watchdog_start(void);
/* An NMI came while the hypervisor was at rip with frame pointer rbp: answer if a watch asked. Any
 * context; takes no lock. */
void watchdog_nmi(uint64_t rip, uint64_t rbp);
