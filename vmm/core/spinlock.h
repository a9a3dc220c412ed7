/* spinlock.h: ticket locks.
 *
 * Ringfence runs with interrupts off everywhere but at three named places that hold no lock (idle,
 * the exit loop, the hypercall preemption point), so no lock needs an interrupt-saving form. The
 * lock order is in docs/design.md.
 */
#pragma once

#include "core/types.h"

typedef struct {
    uint16_t head, tail; /* ticket being served; next ticket to hand out */
} spinlock_t;

#define SPINLOCK_INIT                                                                              \
    {                                                                                              \
        0, 0                                                                                       \
    }

static inline void spin_lock_init(spinlock_t *l)
{
    l->head = l->tail = 0;
}
static inline void spin_lock(spinlock_t *l)
{
    uint16_t me = __atomic_fetch_add(&l->tail, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(&l->head, __ATOMIC_ACQUIRE) != me)
        __builtin_ia32_pause();
}
static inline bool spin_trylock(spinlock_t *l)
{
    uint16_t head = __atomic_load_n(&l->head, __ATOMIC_ACQUIRE), want = head;
    return __atomic_compare_exchange_n(&l->tail, &want, (uint16_t)(head + 1), false,
                                       __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}
static inline void spin_unlock(spinlock_t *l)
{
    __atomic_store_n(&l->head, (uint16_t)(l->head + 1), __ATOMIC_RELEASE);
}
static inline bool spin_is_locked(const spinlock_t *l)
{
    return READ_ONCE(l->head) != READ_ONCE(l->tail);
}
