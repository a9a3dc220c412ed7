/* lib.c: a micro-guest's main: descriptor tables, verdicts, hypercalls, power-off. */
#include "micro.h"
#include <stdarg.h>
#include <xen/xen.h>
#include <xen/sched.h>

handler_fn *handlers[256];
volatile unsigned long counts[256];
uint32_t xen_base;
uint8_t hypercall_page[4096] __attribute__((aligned(4096)));
static struct fault last_fault;
static char reason[200];
static const char *skipped;

long catch_call(void (*fn)(void *), void *arg);
void catch_land(void) __attribute__((noreturn));
void user_go(void (*fn)(void)) __attribute__((noreturn));
extern unsigned long catch_sp;
extern struct dtr idtr;

void *memset(void *p, int c, size_t n)
{
    for (uint8_t *q = p; n; n--) *q++ = (uint8_t)c;
    return p;
}

void *memcpy(void *to, const void *from, size_t n)
{
    uint8_t *t = to;
    for (const uint8_t *f = from; n; n--) *t++ = *f++;
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;
    for (; n; n--, x++, y++)
        if (*x != *y) return *x < *y ? -1 : 1;
    return 0;
}

/* ---- text ----------------------------------------------------------------------------------- */
static size_t format(char *out, size_t room, const char *fmt, va_list args)
{
    size_t n = 0;
#define PUT(ch)                                                                                                             \
    do {                                                                                                                    \
        if (n + 1 < room) out[n++] = (ch);                                                                                  \
    } while (0)
    for (; *fmt; fmt++) {
        if (*fmt != '%') {
            PUT(*fmt);
            continue;
        }
        unsigned longs = 0;
        while (*++fmt == 'l') longs++;
        if (*fmt == 's') {
            for (const char *s = va_arg(args, const char *); *s; s++) PUT(*s);
            continue;
        }
        uint64_t val = longs == 2 ? va_arg(args, unsigned long long)
                       : longs    ? va_arg(args, unsigned long)
                                  : va_arg(args, unsigned);
        if (*fmt == 'd' && (longs == 2 ? (int64_t)val < 0 : longs ? (long)val < 0 : (int)val < 0)) {
            PUT('-');
            val = longs == 2 ? -val : longs ? (unsigned long)-val : (unsigned)-val;
        }
        char digits[20];
        unsigned len = 0;
        if (*fmt == 'x') {
            do digits[len++] = "0123456789abcdef"[val & 15];
            while (val >>= 4);
        } else {
            uint32_t low = (uint32_t)val; /* enough: no 64-bit division in 32-bit guests */
            do digits[len++] = (char)('0' + low % 10);
            while (low /= 10);
        }
        while (len) PUT(digits[--len]);
    }
    out[n] = 0;
    return n;
#undef PUT
}

/* A line to COM1 in one string instruction, and to the hypervisor's log. */
static void print(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) outb(0xe9, (uint8_t)text[i]);
    __asm__ volatile("cld; rep outsb" : "+S"(text), "+c"(n) : "d"(0x3f8) : "memory");
}

void say(const char *fmt, ...)
{
    char line[256];
    va_list args;
    va_start(args, fmt);
    size_t n = format(line, sizeof line - 1, fmt, args);
    va_end(args);
    line[n++] = '\n';
    print(line, n);
}

void fail(const char *fmt, ...)
{
    va_list args;
    if (reason[0]) return;
    va_start(args, fmt);
    format(reason, sizeof reason, fmt, args);
    va_end(args);
}

void skip(const char *why) { skipped = why; }

bool failed(void) { return reason[0]; }

/* ---- exceptions ----------------------------------------------------------------------------- */
void isr(struct frame *f)
{
    unsigned vector = f->vector & 0xff;
    counts[vector]++;
    if (handlers[vector]) {
        handlers[vector](f);
        return;
    }
    if (vector >= 32 && vector != 0x80) return;
    last_fault = (struct fault){
        .vector = vector, .error = f->error, .ip = f->ip, .cr2 = read_cr2(), .ax = f->ax, .flags = f->flags
    };
    if (catch_sp) catch_land();
    say("FAIL panic: exception %u error %lx at %lx cr2 %lx", vector, (unsigned long)f->error, (unsigned long)f->ip,
        read_cr2());
    power_off();
}

const struct fault *caught(void (*fn)(void *), void *arg)
{
    last_fault.vector = ~0u;
    return catch_call(fn, arg) ? &last_fault : NULL;
}

static void user_thunk(void *fn) { user_go((void (*)(void))fn); }

const struct fault *catch_user(void (*fn)(void)) { return caught(user_thunk, (void *)fn); }

void idt_set(unsigned vector, void *stub, unsigned dpl)
{
    unsigned long at = (unsigned long)stub;
    unsigned long selector = M64 ? 24 : 8;
    uint64_t gate =
        (at & 0xffff) | selector << 16 | (uint64_t)(0x8e00 | dpl << 13) << 32 | (uint64_t)(at >> 16 & 0xffff) << 48;
    if (M64) {
        idt[2 * vector] = gate;
        idt[2 * vector + 1] = (uint64_t)at >> 32;
    } else {
        idt[vector] = gate;
    }
}

/* ---- Xen ------------------------------------------------------------------------------------ */
long hypercall(unsigned nr, unsigned long a, unsigned long b, unsigned long c, unsigned long d, unsigned long e)
{
    void *entry = hypercall_page + nr * 32;
    long result;
#if M64
    register unsigned long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
    __asm__ volatile("call *%[entry]"
                     : "=a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(r10), "+r"(r8)
                     : [entry] "a"(entry)
                     : "memory", "rcx", "r11");
#else
    __asm__ volatile("call *%[entry]"
                     : "=a"(result), "+b"(a), "+c"(b), "+d"(c), "+S"(d), "+D"(e)
                     : [entry] "a"(entry)
                     : "memory");
#endif
    return result;
}

static void xen_init(void)
{
    for (uint32_t base = 0x40000000; base < 0x40010000; base += 0x100) {
        struct regs4 r = cpuid(base, 0);
        if (r.b == 0x566e6558 && r.c == 0x65584d4d && r.d == 0x4d4d566e) {
            xen_base = base;
            wrmsr(cpuid(base + 2, 0).b, (unsigned long)hypercall_page);
            return;
        }
    }
}

uint64_t tsc_hz(void) { return xen_base ? (uint64_t)cpuid(xen_base + 3, 0).c * 1000 : 0; }

void delay_us(unsigned us)
{
    uint32_t mhz = cpuid(xen_base + 3, 0).c / 1000;
    uint64_t end = rdtsc() + (uint64_t)us * mhz;
    while (rdtsc() < end) pause();
}

void power_off(void)
{
    struct sched_shutdown shutdown = { .reason = SHUTDOWN_poweroff };
    if (xen_base) hypercall(__HYPERVISOR_sched_op, SCHEDOP_shutdown, (unsigned long)&shutdown, 0, 0, 0);
    /* It did not work: a triple fault. */
    struct dtr none = { 0 };
    __asm__ volatile("lidt %0; int3" ::"m"(none));
    for (;;) __asm__ volatile("hlt");
}

static void run_test(void *test) { ((const struct test *)test)->fn(); }

int main(void)
{
    for (unsigned v = 0; v < 256; v++) idt_set(v, stubs + 16 * v, v == 3 || v == 4 || v == 0x80 ? 3 : 0);
    __asm__ volatile("lidt %0" ::"m"(idtr));
    *(unsigned long *)((char *)tss + 4) = (unsigned long)trap_stack_top;
    if (!M64) tss[2] = 16;
    tss[25] = 104 << 16; /* no I/O bitmap */
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    xen_init();
    unsigned total = 0;
    while (tests[total].name) total++;
    say("PLAN %u", total);
    for (const struct test *t = tests; t->name; t++) {
        for (unsigned v = 0; v < 256; v++) {
            handlers[v] = NULL;
            counts[v] = 0;
        }
        reason[0] = 0;
        skipped = NULL;
        const struct fault *f = caught(run_test, (void *)t);
        if (f) fail("exception %u error %lx at %lx cr2 %lx", f->vector, f->error, f->ip, f->cr2);
        if (reason[0])
            say("FAIL %s: %s", t->name, reason);
        else if (skipped)
            say("SKIP %s: %s", t->name, skipped);
        else
            say("PASS %s", t->name);
    }
    say("DONE");
    power_off();
}
