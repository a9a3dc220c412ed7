/* locks.c: which locks were waited for: a debug key. */
#include "core/print.h"
#include "core/sched.h"
#include "core/spinlock.h"

extern struct lock_site lock_sites_start[], lock_sites_end[];

void locks_dump(void)
{
    size_t sites =
        ((uint64_t)lock_sites_end - (uint64_t)lock_sites_start) / sizeof(struct lock_site);
    for (size_t i = 0; i < sites; i++) {
        const struct lock_site *s = &lock_sites_start[i];
        if (s->waits)
            log_err("%s: %s: waited %lu times, %lu turns", s->file, s->lock, s->waits, s->spins);
    }
    log_err("%lu places take locks; the others never waited", sites);
}
