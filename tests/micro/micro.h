/* micro.h: what a micro-guest is made of: ports, MSRs, exceptions caught, tests and their verdicts.
 *
 * A guest is a table of tests; main() comes from lib.c. A test ends by returning (passed) or by CHECK
 * (failed). An exception that a test does not catch fails it.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __x86_64__
#define M64 1
#else
#define M64 0
#endif

/* ---- tests ---------------------------------------------------------------------------------- */
struct test {
    const char *name;
    void (*fn)(void);
};
extern const struct test tests[]; /* ends with a NULL name */

/* Fail the running test, with printf's %s, %d, %u, %x (long with l, 64 bits with ll). */
#define CHECK(cond, ...)                                                                                                    \
    do {                                                                                                                    \
        if (!(cond)) {                                                                                                      \
            fail(__VA_ARGS__);                                                                                              \
            return;                                                                                                         \
        }                                                                                                                   \
    } while (0)
#define CHECK_EQ(a, b)                                                                                                      \
    do {                                                                                                                    \
        uint64_t a_ = (a), b_ = (b);                                                                                        \
        if (a_ != b_) {                                                                                                     \
            fail(#a " is %llx, not %llx", (unsigned long long)a_, (unsigned long long)b_);                                  \
            return;                                                                                                         \
        }                                                                                                                   \
    } while (0)
void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The running test ends here: what it needs is not there. It returns; the verdict is SKIP. */
void skip(const char *why);
bool failed(void); /* the running test has failed: for callers of functions that CHECK */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void power_off(void) __attribute__((noreturn));

/* ---- exceptions and interrupts -------------------------------------------------------------- */
struct frame {
#if M64
    uint64_t ax, cx, dx, bx, bp, si, di, r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t vector, error, ip, cs, flags, sp, ss;
#else
    uint32_t es, ds, di, si, bp, sp_, bx, dx, cx, ax;
    uint32_t vector, error, ip, cs, flags, sp, ss; /* sp and ss: only from ring 3 */
#endif
};
typedef void handler_fn(struct frame *f);
extern handler_fn *handlers[256];          /* set for a test; all cleared before the next */
extern volatile unsigned long counts[256]; /* interrupts and exceptions that came */
struct fault {
    unsigned vector;
    unsigned long error, ip, cr2, ax, flags;
};
/* Run fn(arg); the exception that ended it (valid until the next), or NULL. */
const struct fault *caught(void (*fn)(void *), void *arg);
/* CHECK that f is exception `v` with error `e`. */
#define CHECK_FAULT(f, v, e)                                                                                                \
    do {                                                                                                                    \
        const struct fault *f_ = (f);                                                                                       \
        CHECK(f_, "no exception");                                                                                          \
        CHECK(f_->vector == (v) && f_->error == (e), "exception %u error %lx, not %u error %lx", f_->vector, f_->error,     \
              (unsigned)(v), (unsigned long)(e));                                                                           \
    } while (0)
/* The same in ring 3; fn ends with USER_EXIT (vector 0x80, ax as it left it). */
const struct fault *catch_user(void (*fn)(void));
#define USER_EXIT() __asm__ volatile("int $0x80")
void idt_set(unsigned vector, void *stub, unsigned dpl);

/* The descriptor tables of entry.asm. Selectors: 8 code32, 16 data, 24 code64, 32 and 40 16 bits,
 * 48, 56 and 64 ring 3, 72 the TSS; from GDT_FREE on for the tests. */
extern uint64_t gdt[], idt[];
extern uint32_t tss[];
extern char stack_top[], trap_stack_top[], stubs[];
#define GDT_FREE 88
static inline uint64_t descriptor(uint32_t base, uint32_t limit, uint16_t attr)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(attr & 0xff) << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(attr >> 8) << 52 | (uint64_t)(base >> 24) << 56;
}
struct __attribute__((packed)) dtr {
    uint16_t limit;
    unsigned long base;
};

/* ---- instructions --------------------------------------------------------------------------- */
static inline void outb(uint16_t port, uint8_t val) { __asm__ volatile("outb %0, %1" ::"a"(val), "Nd"(port)); }
static inline void outw(uint16_t port, uint16_t val) { __asm__ volatile("outw %0, %1" ::"a"(val), "Nd"(port)); }
static inline void outl(uint16_t port, uint32_t val) { __asm__ volatile("outl %0, %1" ::"a"(val), "Nd"(port)); }
static inline uint8_t inb(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint16_t inw(uint16_t port)
{
    uint16_t v;
    __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint32_t inl(uint16_t port)
{
    uint32_t v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t lo, hi;
    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return lo | (uint64_t)hi << 32;
}
static inline void wrmsr(uint32_t msr, uint64_t val)
{
    __asm__ volatile("wrmsr" ::"c"(msr), "a"((uint32_t)val), "d"((uint32_t)(val >> 32)) : "memory");
}
struct regs4 {
    uint32_t a, b, c, d;
};
static inline struct regs4 cpuid(uint32_t leaf, uint32_t sub)
{
    struct regs4 r;
    __asm__ volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(sub));
    return r;
}
static inline uint64_t rdtsc(void)
{
    uint32_t lo, hi;
    __asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi)::"memory");
    return lo | (uint64_t)hi << 32;
}
/* clang-format off */
#define CR(n)                                                                                                               \
    static inline unsigned long read_cr##n(void)                                                                            \
    {                                                                                                                       \
        unsigned long v;                                                                                                    \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(v)::"memory");                                                         \
        return v;                                                                                                           \
    }                                                                                                                       \
    static inline void write_cr##n(unsigned long v) { __asm__ volatile("mov %0, %%cr" #n ::"r"(v) : "memory"); }
CR(0) CR(2) CR(3) CR(4)
#if M64
CR(8)
#endif
#undef CR
/* clang-format on */
#define DR(n)                                                                                                               \
    static inline unsigned long read_dr##n(void)                                                                            \
    {                                                                                                                       \
        unsigned long v;                                                                                                    \
        __asm__ volatile("mov %%dr" #n ", %0" : "=r"(v));                                                                   \
        return v;                                                                                                           \
    }                                                                                                                       \
    static inline void write_dr##n(unsigned long v) { __asm__ volatile("mov %0, %%dr" #n ::"r"(v)); }
        DR(0) DR(1) DR(2) DR(3) DR(6) DR(7)
#undef DR
    /* From 32-bit or PAE paging to none. */
    static inline void paging_off(void)
{
    write_cr0(read_cr0() & ~0x80000000ul);
    write_cr4(read_cr4() & ~0x30ul);
}
static inline void invlpg(void *p) { __asm__ volatile("invlpg (%0)" ::"r"(p) : "memory"); }
static inline void cli(void) { __asm__ volatile("cli" ::: "memory"); }
static inline void sti(void) { __asm__ volatile("sti; nop" ::: "memory"); }
static inline void pause(void) { __asm__ volatile("pause" ::: "memory"); }
static inline void barrier(void) { __asm__ volatile("" ::: "memory"); }
#define MMIO32(addr) (*(volatile uint32_t *)(unsigned long)(addr))

void *memset(void *p, int c, size_t n);
void *memcpy(void *to, const void *from, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* ---- Xen ------------------------------------------------------------------------------------ */
extern uint32_t xen_base; /* the first CPUID leaf */
extern uint8_t hypercall_page[4096];
long hypercall(unsigned nr, unsigned long a, unsigned long b, unsigned long c, unsigned long d, unsigned long e);
uint64_t tsc_hz(void);      /* as the hypervisor says; 0 when it does not */
void delay_us(unsigned us); /* by the TSC */

/* ---- the BIOS's memory map ------------------------------------------------------------------ */
struct __attribute__((packed)) e820 {
    uint64_t base, size;
    uint32_t type;
};
#define E820_COUNT (*(volatile uint16_t *)0x5000)
#define E820_TABLE ((volatile struct e820 *)0x5010)
