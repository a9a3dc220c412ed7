/* console.h: the serial console, its ring, its input, and the keys it answers. */
#pragma once

#include "core/print.h"
#include "core/types.h"

struct domain;

/* Boot: open the UART at ioport with `baud` (0: leave the firmware's setting). Polled output. */
void console_init(uint16_t ioport, unsigned baud);
/* Boot: show what is printed on the VGA screen too, if the BIOS left it in text mode, until dom0
 * owns it. */
void vga_init(void);
void vga_release(void);
/* One character on that screen; nothing when it is not ours. Under the console's lock. */
void vga_put(char ch);
void console_set_levels(int level, int guest_level);
/* Raw output to the UART, no ring: dom0's console. Any context. */
void console_write_guest(struct domain *d, const char *buf, size_t n);
size_t console_read_guest(char *buf, size_t n);
/* Copy from the ring for `xl dmesg`: from *index on (incremental) or from its start; returns bytes
 * and moves *index past them. */
size_t console_ring_copy(char *dst, size_t max, uint32_t *index, bool incremental, bool clear);
/* Poll the UART for input (timer) and give it to dom0 or to the keys. */
void console_poll_input(void);
/* A key of `xl debug-keys`, or typed while the console's input is Ringfence's. */
void console_key(char c);
extern uint16_t console_ioport;
/* Print a backtrace from a frame pointer with symbols. */
void backtrace(uint64_t rip, uint64_t rbp);
/* The same into frame[0..max-1]; returns how many. On the stack of this pCPU; any context. */
unsigned backtrace_collect(uint64_t rip, uint64_t rbp, uint64_t *frame, unsigned max);
/* One line of a backtrace. */
void print_frame(uint64_t addr);
const char *symbol_lookup(uint64_t addr, uint64_t *offset);
