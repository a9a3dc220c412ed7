/* selfcheck.h: a debug build's look at what must be true of event channels and grants. */
#pragma once

#include "core/types.h"

#ifdef DEBUG_BUILD
/* Look at all domains now; with `report`, print what each has. How many faults were found so far.
 * Takes event channel and grant locks; the caller holds none. */
unsigned selfcheck(bool report);
/* Look each second from now on. Once, at boot, when timers work. */
void selfcheck_start(void);
#endif
