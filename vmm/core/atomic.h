/* atomic.h: atomic operations on plain integers and bitmaps (SDM 3A, 8.1). Any context. */
#pragma once

#include "core/types.h"

#define atomic_load(p)     __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define atomic_store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define atomic_add(p, v)   __atomic_add_fetch((p), (v), __ATOMIC_SEQ_CST)
#define atomic_sub(p, v)   __atomic_sub_fetch((p), (v), __ATOMIC_SEQ_CST)
#define atomic_or(p, v)    __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST)
#define atomic_and(p, v)   __atomic_fetch_and((p), (v), __ATOMIC_SEQ_CST)
#define atomic_xchg(p, v)  __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)
#define smp_mb()           __atomic_thread_fence(__ATOMIC_SEQ_CST)

/* Compare and swap: true when *p was old and is now new. */
#define atomic_cas(p, old, new)                                                                    \
    ({                                                                                             \
        __typeof__(*(p)) expected_ = (old);                                                        \
        __atomic_compare_exchange_n((p), &expected_, (new), false, __ATOMIC_SEQ_CST,               \
                                    __ATOMIC_SEQ_CST);                                             \
    })

/* Bitmap of 32- or 64-bit words. The test_and_ forms return the bit's old value. */
static inline bool test_bit(unsigned n, const volatile void *map)
{
    return (((const volatile uint8_t *)map)[n / 8] >> (n % 8)) & 1;
}
static inline bool test_and_set_bit(unsigned n, volatile void *map)
{
    bool was;
    __asm__ volatile("lock btsl %2, %1"
                     : "=@ccc"(was), "+m"(((volatile uint32_t *)map)[n / 32])
                     : "r"(n % 32)
                     : "memory");
    return was;
}
static inline bool test_and_clear_bit(unsigned n, volatile void *map)
{
    bool was;
    __asm__ volatile("lock btrl %2, %1"
                     : "=@ccc"(was), "+m"(((volatile uint32_t *)map)[n / 32])
                     : "r"(n % 32)
                     : "memory");
    return was;
}
#define set_bit(n, map)   ((void)test_and_set_bit(n, map))
#define clear_bit(n, map) ((void)test_and_clear_bit(n, map))
