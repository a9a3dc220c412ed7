/* print.h: the log (serial console and the ring that `xl dmesg` reads), assertions and panic. */
#pragma once

#include "core/types.h"

enum log_level { LOG_ERR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Print one message of at most 511 bytes; any context. Dropped when above the loglvl= threshold. */
void printk(enum log_level level, const char *fmt, ...) __printf(2, 3);

/* As printk, for messages a guest can cause: rate-limited and under guest_loglvl=. */
void guest_printk(enum log_level level, const char *fmt, ...) __printf(2, 3);

#define log_err(...)   printk(LOG_ERR, __VA_ARGS__)
#define log_warn(...)  printk(LOG_WARN, __VA_ARGS__)
#define log_info(...)  printk(LOG_INFO, __VA_ARGS__)
#define log_debug(...) printk(LOG_DEBUG, __VA_ARGS__)

/* Stop the machine with a message and a backtrace: for our own bugs only, never guest input. */
void panic(const char *fmt, ...) __printf(1, 2) __noreturn;

#define ASSERT(c)                                                                                  \
    do {                                                                                           \
        if (unlikely(!(c)))                                                                        \
            panic("%s:%d: assertion failed: %s", __FILE__, __LINE__, #c);                          \
    } while (0)
