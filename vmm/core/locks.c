/* locks.c: which locks were waited for: a debug key. */
#include "core/print.h"
#include "core/sched.h"
#include "core/spinlock.h"

extern struct lock_site lock_sites_start[], lock_sites_end[];

void locks_dump(void)
{
    unsigned sites = 0;
    for (const struct lock_site *s = lock_sites_start; s < lock_sites_end; s++, sites++) {
        if (s->waits)
            log_err("%s: %s: waited %lu times, %lu turns", s->file, s->lock, s->waits, s->spins);
    }
    log_err("%u places take locks; the others never waited", sites);
}
