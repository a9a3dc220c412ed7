/* console.c: the serial port, the ring that `xl dmesg` reads, log levels, and dom0's terminal. */
#include "core/console.h"

#include "core/atomic.h"
#include "core/cpu.h"
#include "core/spinlock.h"
#include "core/string.h"
#include "core/time.h"
#include "core/x86.h"
#include "domain/domain.h"

#define RING_BYTES    32768u
#define INPUT_BYTES   4096u /* a line of a terminal: what dom0 has not taken yet */
#define ESCAPE        0x01  /* Ctrl-A, three times, switches input */
#define UART_TX_SPINS 100000
#define GUEST_BURST   200 /* guest-caused lines per second */

uint16_t console_ioport;
static spinlock_t console_lock;
static char ring[RING_BYTES];
static uint32_t ring_produced; /* free-running */
static uint32_t ring_start;    /* oldest byte after `xl dmesg -c` */
static char input[INPUT_BYTES];
static uint32_t input_head, input_tail;
static bool input_to_ringfence;
static unsigned escapes;
static int threshold = LOG_INFO, guest_threshold = LOG_WARN;
static bool panicking;

void console_init(uint16_t ioport, unsigned baud)
{
    console_ioport = ioport;
    if (baud) {
        unsigned divisor = 115200 / baud;
        outb(ioport + 3, 0x80);
        outb(ioport + 0, (uint8_t)divisor);
        outb(ioport + 1, (uint8_t)(divisor >> 8));
        outb(ioport + 3, 0x03);
    }
    outb(ioport + 1, 0);    /* no UART interrupts: input is polled */
    outb(ioport + 2, 0xc7); /* FIFO on */
    outb(ioport + 4, 0x03);
}

void console_set_levels(int level, int guest_level)
{
    threshold = level;
    guest_threshold = guest_level;
}

static void uart_put(char c)
{
    if (!console_ioport)
        return;
    for (int spins = 0; !(inb(console_ioport + 5) & 0x20) && spins < UART_TX_SPINS; spins++)
        cpu_relax();
    outb(console_ioport, (uint8_t)c);
}

static void lock_console(void)
{
    if (!panicking)
        spin_lock(&console_lock);
}

static void unlock_console(void)
{
    if (!panicking)
        spin_unlock(&console_lock);
}

static void emit(const char *s, size_t n, bool to_ring)
{
    for (; n--; s++) {
        if (*s == '\n')
            uart_put('\r');
        uart_put(*s);
        vga_put(*s);
        if (to_ring)
            ring[ring_produced++ % RING_BYTES] = *s;
    }
}

static void print_line(const char *fmt, va_list ap)
{
    char buf[512];
    int n = vsnprintf(buf, sizeof(buf) - 1, fmt, ap);
    size_t len = MIN((size_t)n, sizeof(buf) - 2);
    buf[len++] = '\n';
    lock_console();
    emit("(RF) ", 5, true);
    emit(buf, len, true);
    unlock_console();
}

void printk(enum log_level level, const char *fmt, ...)
{
    if ((int)level > threshold)
        return;
    va_list ap;
    va_start(ap, fmt);
    print_line(fmt, ap);
    va_end(ap);
}

void guest_printk(enum log_level level, const char *fmt, ...)
{
    static uint64_t second;
    static uint32_t lines;

    if ((int)level > guest_threshold)
        return;
    uint64_t now = now_ns() / NS_PER_SEC;
    if (atomic_load(&second) != now) {
        atomic_store(&second, now);
        atomic_store(&lines, 0);
    }
    if (atomic_add(&lines, 1) > GUEST_BURST)
        return;
    va_list ap;
    va_start(ap, fmt);
    print_line(fmt, ap);
    va_end(ap);
}

void console_write_guest(struct domain *d, const char *buf, size_t n)
{
    (void)d;
    lock_console();
    emit(buf, n, false);
    unlock_console();
}

size_t console_read_guest(char *buf, size_t n)
{
    size_t got = 0;
    lock_console();
    while (got < n && input_head != input_tail)
        buf[got++] = input[input_head++ % INPUT_BYTES];
    unlock_console();
    return got;
}

size_t console_ring_copy(char *dst, size_t max, uint32_t *index, bool incremental, bool clear)
{
    lock_console();
    uint32_t oldest = ring_start;
    if (ring_produced - oldest > RING_BYTES)
        oldest = ring_produced - RING_BYTES;
    uint32_t at = oldest;
    if (incremental && ring_produced - *index <= ring_produced - oldest)
        at = *index;
    size_t n = 0;
    while (n < max && at != ring_produced)
        dst[n++] = ring[at++ % RING_BYTES];
    *index = at;
    if (clear)
        ring_start = ring_produced;
    unlock_console();
    return n;
}

void console_poll_input(void)
{
    bool got = false;
    if (!console_ioport)
        return;
    for (int i = 0; i < 64 && (inb(console_ioport + 5) & 1); i++) {
        char c = (char)inb(console_ioport);
        escapes = c == ESCAPE ? escapes + 1 : 0;
        if (escapes == 3) {
            escapes = 0;
            input_to_ringfence = !input_to_ringfence;
            log_err("input to %s (Ctrl-A three times switches)",
                    input_to_ringfence ? "Ringfence; h lists its keys" : "dom0");
            continue;
        }
        if (input_to_ringfence) {
            console_key(c);
            continue;
        }
        lock_console();
        if (input_tail - input_head < INPUT_BYTES)
            input[input_tail++ % INPUT_BYTES] = c;
        unlock_console();
        got = true;
    }
    if (got)
        send_global_virq(VIRQ_CONSOLE);
}

/* ---- panic and backtrace ----------------------------------------------------------------------
 */
extern struct {
    uint32_t count;
    struct {
        uint32_t offset, name;
    } sym[];
} symbol_table;
extern char image_start[], image_end[];

const char *symbol_lookup(uint64_t addr, uint64_t *offset)
{
    uint32_t want = (uint32_t)(addr - IMAGE_BASE), lo = 0, hi = symbol_table.count;
    if (addr < (uint64_t)image_start || addr >= (uint64_t)image_end || !hi)
        return NULL;
    while (hi - lo > 1) {
        uint32_t mid = (lo + hi) / 2;
        if (symbol_table.sym[mid].offset <= want)
            lo = mid;
        else
            hi = mid;
    }
    *offset = want - symbol_table.sym[lo].offset;
    return (const char *)&symbol_table.sym[symbol_table.count] + symbol_table.sym[lo].name;
}

void print_frame(uint64_t addr)
{
    uint64_t off = 0;
    const char *name = symbol_lookup(addr, &off);
    printk(LOG_ERR, "  [%016lx] %s+0x%lx", addr, name ? name : "?", off);
}

unsigned backtrace_collect(uint64_t rip, uint64_t rbp, uint64_t *frame, unsigned max)
{
    uint64_t stack = (uint64_t)this_cpu();
    unsigned n = 0;
    if (rip && n < max)
        frame[n++] = rip;
    while (n < max && rbp > stack && rbp + 16 <= stack + STACK_SIZE && rbp % 8 == 0) {
        uint64_t ret = ((uint64_t *)rbp)[1], next = ((uint64_t *)rbp)[0];
        if (!ret)
            break;
        frame[n++] = ret - 1;
        if (next <= rbp)
            break;
        rbp = next;
    }
    return n;
}

void backtrace(uint64_t rip, uint64_t rbp)
{
    uint64_t frame[24];
    unsigned n = backtrace_collect(rip, rbp, frame, ARRAY_SIZE(frame));
    for (unsigned i = 0; i < n; i++)
        print_frame(frame[i]);
}

void panic(const char *fmt, ...)
{
    static uint32_t once;
    va_list ap;
    __asm__ volatile("cli");
    if (atomic_xchg(&once, 1)) {
        for (;;)
            __asm__ volatile("hlt");
    }
    panicking = true;
    threshold = LOG_DEBUG;
    printk(LOG_ERR, "**** Ringfence panic on CPU %u ****", this_cpu()->id);
    va_start(ap, fmt);
    print_line(fmt, ap);
    va_end(ap);
    backtrace(0, (uint64_t)__builtin_frame_address(0));
    struct vcpu *v = this_cpu()->curr;
    if (v)
        printk(LOG_ERR, "current: d%uv%u", v->domain->id, v->id);
    printk(LOG_ERR, "Halted; reset to go on.");
    for (;;)
        __asm__ volatile("cli; hlt");
}
