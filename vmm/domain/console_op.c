/* console_op.c: text from guests: dom0's console, and everyone else's lines in the log.
 *
 * dom0's bytes go to the serial port as they are. Other domains' (console_io and port 0xE9) are
 * gathered into lines, stripped of control characters, and logged with the domain's number at
 * guest level, which is rate-limited. A few lines are under way at a time: a domain that finds
 * none free takes the one used longest ago, whose text is logged first.
 */
#include "core/atomic.h"
#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "domain/compat.h"
#include "core/console.h"

#define LINE_BYTES 120
#define LINES      16

static struct console_line {
    bool used;
    domid_t domid;
    uint8_t length;
    uint64_t last_use; /* ticks of `uses` */
    char text[LINE_BYTES + 1];
} lines[LINES]; /* lines_lock */
static uint64_t uses;
static spinlock_t lines_lock = SPINLOCK_INIT;

static void flush_line(struct console_line *l)
{
    if (!l->length)
        return;
    l->text[l->length] = 0;
    l->length = 0;
    guest_printk(LOG_INFO, "(d%u) %s", l->domid, l->text);
}

static struct console_line *line_of(domid_t domid)
{
    struct console_line *oldest = &lines[0];

    for (struct console_line *l = lines; l < lines + LINES; l++) {
        if (l->used && l->domid == domid)
            return l;
        if (!l->used || (oldest->used && l->last_use < oldest->last_use))
            oldest = l;
    }
    flush_line(oldest);
    oldest->used = true;
    oldest->domid = domid;
    return oldest;
}

/* One character of d's output. Any context without the console's locks. */
void console_guest_char(struct domain *d, char c)
{
    spin_lock(&lines_lock);
    struct console_line *l = line_of(d->id);
    l->last_use = ++uses;
    if (c == '\n') {
        flush_line(l);
    } else if (c == '\t' || (c >= ' ' && c <= '~')) {
        l->text[l->length++] = c;
        if (l->length == LINE_BYTES)
            flush_line(l);
    }
    spin_unlock(&lines_lock);
}

static long console_write(struct vcpu *v, uint32_t count, uint64_t gva)
{
    char chunk[128];

    for (uint32_t done = 0; done < count;) {
        uint32_t n = MIN(count - done, (uint32_t)sizeof(chunk));

        if (done && hypercall_preempt_check()) {
            hypercall_set_arg(v, 1, count - done);
            hypercall_set_arg(v, 2, gva + done);
            return hypercall_continue(v);
        }
        if (copy_from_guest(chunk, gva + done, n))
            return -EFAULT;
        if (v->domain->is_dom0)
            console_write_guest(v->domain, chunk, n);
        else
            for (uint32_t i = 0; i < n; i++)
                console_guest_char(v->domain, chunk[i]);
        done += n;
    }
    return 0;
}

static long console_read(uint32_t count, uint64_t gva)
{
    char chunk[128];
    size_t n = console_read_guest(chunk, MIN(count, sizeof(chunk)));

    return n && copy_to_guest(gva, chunk, n) ? -EFAULT : (long)n;
}

/* The console_io hypercall: (command, bytes, buffer). A read gives what is there, at most 128. */
long do_console_io(struct vcpu *v, const uint64_t arg[6])
{
    uint32_t cmd = (uint32_t)arg[0], count = (uint32_t)arg[1];
    uint64_t gva = guest_addr(v, arg[2]);

    if ((int32_t)count < 0)
        return -EINVAL;
    switch (cmd) {
    case CONSOLEIO_write:
        return console_write(v, count, gva);
    case CONSOLEIO_read:
        return v->domain->is_dom0 ? console_read(count, gva) : -EPERM;
    default:
        return hypercall_missing(v, "console_io", cmd, -ENOSYS);
    }
}
