/* spinlock.h: ticket locks.
 *
 * Ringfence runs with interrupts off everywhere but at three named places that hold no lock (idle,
 * the exit loop, the hypercall preemption point), so no lock needs an interrupt-saving form. The
 * lock order is in docs/design.md; a build with DEBUG=1 checks it (lockcheck.c).
 *
 * Each place that takes a lock has a record of how often and how long it had to wait there: written
 * only when it waits, shown by the debug key 'l'.
 */
#pragma once

#include "core/types.h"

typedef struct {
    uint16_t head, tail; /* ticket being served; next ticket to hand out */
} spinlock_t;

struct lock_site {
    const char *lock, *file;
    uint64_t waits, spins; /* not atomic: a few may be lost */
    uint32_t class;        /* lockcheck.c's; 0 not known yet */
};

#define SPINLOCK_INIT                                                                              \
    {                                                                                              \
        0, 0                                                                                       \
    }

#ifdef DEBUG_BUILD
void lockcheck_take(spinlock_t *l, struct lock_site *site, bool tried);
void lockcheck_release(spinlock_t *l);
#else
static inline void lockcheck_take(spinlock_t *l, struct lock_site *site, bool tried)
{
    (void)l;
    (void)site;
    (void)tried;
}
static inline void lockcheck_release(spinlock_t *l)
{
    (void)l;
}
#endif

static inline void spin_lock_init(spinlock_t *l)
{
    l->head = l->tail = 0;
}
static inline void spin_lock_at(spinlock_t *l, struct lock_site *site)
{
    lockcheck_take(l, site, false);
    uint16_t me = __atomic_fetch_add(&l->tail, 1, __ATOMIC_RELAXED);
    if (likely(__atomic_load_n(&l->head, __ATOMIC_ACQUIRE) == me))
        return;
    uint64_t spins = 0;
    for (; __atomic_load_n(&l->head, __ATOMIC_ACQUIRE) != me; spins++)
        __builtin_ia32_pause();
    site->waits++;
    site->spins += spins;
}
static inline bool spin_trylock_at(spinlock_t *l, struct lock_site *site)
{
    uint16_t head = __atomic_load_n(&l->head, __ATOMIC_ACQUIRE), want = head;
    bool got = __atomic_compare_exchange_n(&l->tail, &want, (uint16_t)(head + 1), false,
                                           __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
    if (got)
        lockcheck_take(l, site, true);
    else
        site->waits++;
    return got;
}
static inline void spin_unlock(spinlock_t *l)
{
    lockcheck_release(l);
    __atomic_store_n(&l->head, (uint16_t)(l->head + 1), __ATOMIC_RELEASE);
}
static inline bool spin_is_locked(const spinlock_t *l)
{
    return READ_ONCE(l->head) != READ_ONCE(l->tail);
}

/* The record of the place where the macro stands. */
#define LOCK_SITE(l)                                                                               \
    ({                                                                                             \
        static struct lock_site site_ __attribute__((section("lock_sites"), used, aligned(8))) = { \
            .lock = #l, .file = __FILE__};                                                         \
        &site_;                                                                                    \
    })
#define spin_lock(l)    spin_lock_at(l, LOCK_SITE(l))
#define spin_trylock(l) spin_trylock_at(l, LOCK_SITE(l))
