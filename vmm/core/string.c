/* string.c: the few C library functions that freestanding code needs. */
#include "core/string.h"

typedef uint16_t word16 __attribute__((aligned(1)));
typedef uint32_t word32 __attribute__((aligned(1)));
typedef uint64_t word64 __attribute__((aligned(1)));

/* At most 16 bytes: the first and the last half, which may overlap. All is read before a write. */
static inline void copy_short(char *d, const char *s, size_t n)
{
    if (n >= 8) {
        word64 a = *(const word64 *)s, b = *(const word64 *)(s + n - 8);
        *(word64 *)d = a;
        *(word64 *)(d + n - 8) = b;
    } else if (n >= 4) {
        word32 a = *(const word32 *)s, b = *(const word32 *)(s + n - 4);
        *(word32 *)d = a;
        *(word32 *)(d + n - 4) = b;
    } else if (n >= 2) {
        word16 a = *(const word16 *)s, b = *(const word16 *)(s + n - 2);
        *(word16 *)d = a;
        *(word16 *)(d + n - 2) = b;
    } else if (n) {
        *d = *s;
    }
}

void *memcpy(void *dst, const void *src, size_t n)
{
    if (n <= 16) {
        copy_short(dst, src, n);
        return dst;
    }
    void *d = dst;
    size_t words = n / 8, rest = n % 8;
    __asm__ volatile("rep movsq" : "+D"(d), "+S"(src), "+c"(words)::"memory");
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(src), "+c"(rest)::"memory");
    return dst;
}

void *memmove(void *dst, const void *src, size_t n)
{
    if ((char *)dst <= (const char *)src || (char *)dst >= (const char *)src + n)
        return memcpy(dst, src, n);
    void *d = (char *)dst + n - 1;
    const void *s = (const char *)src + n - 1;
    __asm__ volatile("std; rep movsb; cld" : "+D"(d), "+S"(s), "+c"(n)::"memory");
    return dst;
}

void *memset(void *dst, int c, size_t n)
{
    void *d = dst;
    if (((uintptr_t)dst | n) % 8 == 0) {
        n /= 8;
        __asm__ volatile("rep stosq"
                         : "+D"(d), "+c"(n)
                         : "a"((unsigned char)c * 0x0101010101010101ULL)
                         : "memory");
    } else {
        __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
    }
    return dst;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const unsigned char *x = a, *y = b;
    for (; n--; x++, y++) {
        if (*x != *y)
            return *x - *y;
    }
    return 0;
}

void *memchr(const void *s, int c, size_t n)
{
    for (const unsigned char *p = s; n--; p++) {
        if (*p == (unsigned char)c)
            return (void *)p;
    }
    return NULL;
}

size_t strnlen(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && s[i])
        i++;
    return i;
}

size_t strlen(const char *s)
{
    return strnlen(s, (size_t)-1);
}

int strncmp(const char *a, const char *b, size_t n)
{
    for (; n--; a++, b++) {
        if (*a != *b || !*a)
            return (unsigned char)*a - (unsigned char)*b;
    }
    return 0;
}

int strcmp(const char *a, const char *b)
{
    return strncmp(a, b, (size_t)-1);
}

char *strchr(const char *s, int c)
{
    for (;; s++) {
        if (*s == (char)c)
            return (char *)s;
        if (!*s)
            return NULL;
    }
}
