/* lockcheck.c: the order of locks, checked while they are taken; only in a build with DEBUG=1.
 *
 * Locks taken at places of the same text in the same file are one class. Taking B while A is held
 * notes that A comes before B; taking them the other way round, then or ever after, is reported
 * once, with a backtrace, whether or not it ended in a deadlock. A lock that was only tried for
 * orders nothing.
 */
#include "core/spinlock.h"

#ifdef DEBUG_BUILD
#include "core/atomic.h"
#include "core/console.h"
#include "core/cpu.h"
#include "core/print.h"
#include "core/string.h"

#define MAX_CLASSES 256
#define MAX_HELD    8

static struct {
    spinlock_t *lock;
    uint32_t class;
} held[MAX_CPUS][MAX_HELD];
static unsigned nr_held[MAX_CPUS];
static struct lock_site *class_site[MAX_CLASSES];     /* the first of each; 0 unused */
static uint64_t after[MAX_CLASSES][MAX_CLASSES / 64]; /* [a], bit b: b was taken while a was held */
static uint32_t nr_classes = 1;

/* Two places may race to name a class: then it has two names, and less is found. */
static uint32_t class_of(struct lock_site *s)
{
    uint32_t c = READ_ONCE(s->class);
    if (c)
        return c;
    for (c = 1; c < READ_ONCE(nr_classes); c++) {
        struct lock_site *o = class_site[c];
        if (o && !strcmp(o->lock, s->lock) && !strcmp(o->file, s->file))
            break;
    }
    if (c == READ_ONCE(nr_classes)) {
        c = atomic_add(&nr_classes, 1) - 1;
        if (c >= MAX_CLASSES) {
            atomic_store(&nr_classes, MAX_CLASSES);
            return 0;
        }
        class_site[c] = s;
    }
    WRITE_ONCE(s->class, c);
    return c;
}

static void report(uint32_t outer, uint32_t inner)
{
    static uint32_t reports;
    if (atomic_add(&reports, 1) > 20)
        return;
    log_err("lock order: %s (%s) is taken inside %s (%s), and the other way round elsewhere",
            class_site[inner]->lock, class_site[inner]->file, class_site[outer]->lock,
            class_site[outer]->file);
    backtrace(0, (uint64_t)__builtin_frame_address(0));
}

void lockcheck_take(spinlock_t *l, struct lock_site *site, bool tried)
{
    unsigned cpu = this_cpu()->id, n = nr_held[cpu];
    uint32_t class = class_of(site);
    if (n == MAX_HELD)
        panic("CPU %u holds %u locks", cpu, n);
    held[cpu][n].lock = l;
    held[cpu][n].class = class;
    nr_held[cpu] = n + 1;
    for (unsigned i = 0; i < n && class && !tried; i++) {
        uint32_t outer = held[cpu][i].class;
        if (!outer || test_and_set_bit(class, after[outer]))
            continue;
        if (outer == class || test_bit(outer, after[class]))
            report(outer, class);
    }
}

void lockcheck_release(spinlock_t *l)
{
    unsigned cpu = this_cpu()->id, i = nr_held[cpu];
    while (i && held[cpu][i - 1].lock != l)
        i--;
    if (!i)
        panic("CPU %u gives back a lock that it does not hold", cpu);
    for (; i < nr_held[cpu]; i++)
        held[cpu][i - 1] = held[cpu][i];
    nr_held[cpu]--;
}
#endif
