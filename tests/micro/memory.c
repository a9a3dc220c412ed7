/* memory.c: run twice: what one guest leaves behind, the next one must not find. */
#include "micro.h"

#define PATTERN        0x5ec2e75e0ddba11ull
#define UNTOUCHED      0x800000ul /* hvmloader and SeaBIOS stay below, and in the last 17 MiB */
#define FIRMWARE_ABOVE (17ul << 20)

static void memory_zero(void)
{
    uint64_t end = 0;
    for (unsigned i = 0; i < E820_COUNT; i++)
        if (E820_TABLE[i].type == 1 && E820_TABLE[i].base >= 0x100000 && E820_TABLE[i].base < 0xf0000000)
            end = E820_TABLE[i].base + E820_TABLE[i].size;
    CHECK(end > UNTOUCHED + FIRMWARE_ABOVE, "RAM ends at %llx", (unsigned long long)end);
    for (const volatile uint64_t *p = (uint64_t *)0x100000; (unsigned long)p < end; p++) {
        CHECK(*p != PATTERN, "another guest's data at %lx", (unsigned long)p);
        if ((unsigned long)p >= UNTOUCHED && (unsigned long)p < end - FIRMWARE_ABOVE)
            CHECK(*p == 0, "%llx at %lx", (unsigned long long)*p, (unsigned long)p);
    }
}
static void memory_fill(void)
{
    for (unsigned i = 0; i < E820_COUNT; i++) {
        if (E820_TABLE[i].type != 1 || E820_TABLE[i].base < 0x100000 || E820_TABLE[i].base > 0xf0000000) continue;
        unsigned long n = E820_TABLE[i].size / 8;
        volatile uint64_t *from = (uint64_t *)E820_TABLE[i].base, *p = from;
        __asm__ volatile("rep stosq" : "+D"(p), "+c"(n) : "a"(PATTERN) : "memory");
        for (n = 0; n < E820_TABLE[i].size / 8; n += 64)
            CHECK(from[n] == PATTERN, "%llx at %lx", (unsigned long long)from[n], (unsigned long)&from[n]);
    }
}

const struct test tests[] = {
    { "memory_zero", memory_zero },
    { "memory_fill", memory_fill },
    { 0 },
};
