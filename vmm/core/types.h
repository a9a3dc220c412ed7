/* types.h: the words and small macros that every file uses. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t paddr_t; /* host-physical or guest-physical address, bytes */
typedef uint64_t mfn_t;   /* machine frame number, 4 KiB pages */
typedef uint64_t gfn_t;   /* guest frame number, 4 KiB pages */

#define INVALID_MFN           (~0UL)
#define INVALID_GFN           (~0UL)

#define PAGE_SHIFT            12
#define PAGE_SIZE             (1UL << PAGE_SHIFT)
#define PAGE_MASK             (~(PAGE_SIZE - 1))

#define ORDER_4K              0
#define ORDER_2M              9
#define ORDER_1G              18

#define ARRAY_SIZE(a)         (sizeof(a) / sizeof((a)[0]))
#define container_of(p, t, m) ((t *)((char *)(p)-offsetof(t, m)))
#define ALIGN_UP(x, a)        (((x) + (a)-1) & ~((a)-1))
#define ALIGN_DOWN(x, a)      ((x) & ~((a)-1))
#define MIN(a, b)             ((a) < (b) ? (a) : (b))
#define MAX(a, b)             ((a) > (b) ? (a) : (b))
#define PFN_UP(x)             (((x) + PAGE_SIZE - 1) >> PAGE_SHIFT)
#define PFN_DOWN(x)           ((x) >> PAGE_SHIFT)
#define BIT(n)                (1UL << (n))
#define STATIC_ASSERT(c)      _Static_assert(c, #c)

#define likely(x)             __builtin_expect(!!(x), 1)
#define unlikely(x)           __builtin_expect(!!(x), 0)

#define __packed              __attribute__((packed))
#define __aligned(n)          __attribute__((aligned(n)))
#define __noreturn            __attribute__((noreturn))
#define __printf(f, a)        __attribute__((format(printf, f, a)))

#define READ_ONCE(x)          (*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v)      (*(volatile __typeof__(x) *)&(x) = (v))
#define barrier()             __asm__ volatile("" ::: "memory")
