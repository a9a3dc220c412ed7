/* printf.c: vsnprintf for the log: %d %i %u %x %X %p %s %c %%, l ll z h lengths, width, 0 and -. */
#include "core/string.h"
#include "core/types.h"

struct out {
    char *buf;
    size_t size, len;
};

static void put(struct out *o, char c)
{
    if (o->len + 1 < o->size)
        o->buf[o->len] = c;
    o->len++;
}

static void put_padded(struct out *o, const char *s, size_t n, int width, bool left, char pad)
{
    int fill = width - (int)n;
    while (!left && fill-- > 0)
        put(o, pad);
    while (n--)
        put(o, *s++);
    while (left && fill-- > 0)
        put(o, ' ');
}

static void put_number(struct out *o, uint64_t v, unsigned base, bool negative, bool upper,
                       int width, bool left, char pad)
{
    char tmp[24];
    size_t n = sizeof(tmp);
    do {
        unsigned digit = (unsigned)(v % base);
        tmp[--n] = (char)(digit < 10 ? '0' + digit : (upper ? 'A' : 'a') + digit - 10);
        v /= base;
    } while (v);
    if (negative)
        tmp[--n] = '-';
    put_padded(o, tmp + n, sizeof(tmp) - n, width, left, pad);
}

int vsnprintf(char *buf, size_t size, const char *fmt, va_list ap)
{
    struct out o = {buf, size, 0};
    for (; *fmt; fmt++) {
        if (*fmt != '%') {
            put(&o, *fmt);
            continue;
        }
        bool left = false;
        char pad = ' ';
        int width = 0, longs = 0, precision = -1;
        for (fmt++; *fmt == '-' || *fmt == '0' || *fmt == '#'; fmt++) {
            left |= *fmt == '-';
            if (*fmt == '0')
                pad = '0';
        }
        if (*fmt == '*') {
            width = va_arg(ap, int);
            fmt++;
        }
        for (; *fmt >= '0' && *fmt <= '9'; fmt++)
            width = width * 10 + *fmt - '0';
        if (*fmt == '.') {
            fmt++;
            precision = 0;
            if (*fmt == '*') {
                precision = va_arg(ap, int);
                fmt++;
            }
            for (; *fmt >= '0' && *fmt <= '9'; fmt++)
                precision = precision * 10 + *fmt - '0';
        }
        for (; *fmt == 'l' || *fmt == 'z' || *fmt == 'h'; fmt++)
            longs += *fmt == 'h' ? 0 : 1;
        switch (*fmt) {
        case 'd':
        case 'i': {
            int64_t v = longs ? va_arg(ap, int64_t) : va_arg(ap, int);
            put_number(&o, v < 0 ? -(uint64_t)v : (uint64_t)v, 10, v < 0, false, width, left, pad);
            break;
        }
        case 'u':
        case 'x':
        case 'X': {
            uint64_t v = longs ? va_arg(ap, uint64_t) : va_arg(ap, unsigned);
            put_number(&o, v, *fmt == 'u' ? 10 : 16, false, *fmt == 'X', width, left, pad);
            break;
        }
        case 'p':
            put_number(&o, (uint64_t)va_arg(ap, void *), 16, false, false, 16, false, '0');
            break;
        case 's': {
            const char *s = va_arg(ap, const char *);
            if (!s)
                s = "(null)";
            put_padded(&o, s, strnlen(s, precision < 0 ? (size_t)-1 : (size_t)precision), width,
                       left, ' ');
            break;
        }
        case 'c':
            put(&o, (char)va_arg(ap, int));
            break;
        case '\0':
            fmt--;
            break;
        default:
            put(&o, *fmt);
        }
    }
    if (size)
        buf[MIN(o.len, size - 1)] = '\0';
    return (int)o.len;
}

int snprintf(char *buf, size_t n, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(buf, n, fmt, ap);
    va_end(ap);
    return len;
}
