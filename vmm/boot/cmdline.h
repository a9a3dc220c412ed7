/* cmdline.h: the hypervisor's command line: Xen's option names, parsed by a table.
 *
 * Parsing prints nothing, since console= and loglvl= decide about printing: what was not understood
 * is listed for the caller to report. Of an option given twice the last counts.
 */
#pragma once

#include "core/types.h"

enum cmdline_console { CONSOLE_SERIAL = 1, CONSOLE_VGA = 2 };

enum cmdline_iommu { IOMMU_AUTO, IOMMU_OFF, IOMMU_FORCE }; /* FORCE: refuse to start without */
/* AUTO: where the CPU offers all of it, posted interrupts included; ON: any part that we use. */
enum cmdline_apicv { APICV_AUTO, APICV_ON, APICV_OFF };

enum cmdline_problem_kind {
    CMDLINE_UNKNOWN,   /* no such option */
    CMDLINE_BAD_VALUE, /* the option keeps its earlier value */
};

#define CMDLINE_PROBLEM_TEXT 64
#define CMDLINE_MAX_PROBLEMS 8

struct cmdline_problem {
    enum cmdline_problem_kind kind;
    char option[CMDLINE_PROBLEM_TEXT]; /* as written, cut to fit */
};

struct cmdline_options {
    unsigned console; /* console=com1,vga,none: enum cmdline_console bits. Default: both */

    struct cmdline_com1 { /* com1=BAUD[,DPS[,IOPORT[,...]]]. Default: 115200,8n1,0x3f8 */
        uint32_t baud;    /* bits per second; 0 for "auto": leave what firmware set */
        uint8_t data_bits, stop_bits;
        char parity; /* 'n', 'e', 'o', 'm', 's' */
        uint16_t ioport;
    } com1;

    struct cmdline_dom0_mem { /* dom0_mem=[min:|max:]SIZE[,...], bytes; 0 is not given. See
                                 cmdline_dom0_bytes */
        uint64_t size, min, max;
    } dom0_mem;
    struct { /* dom0_max_vcpus=N or [MIN]-[MAX]; 0 is not given. See cmdline_dom0_vcpus */
        unsigned min, max;
    } dom0_vcpus;
    bool dom0_vcpus_pin; /* vCPU n only on CPU n. Default: off */

    /* loglvl= and guest_loglvl=ALWAYS[/LIMITED], each of none, error, warning, info, debug, all.
     * A message of level l (enum log_level) prints when l < always, prints rate-limited when
     * l < limited, else is dropped. Default: loglvl=warning, guest_loglvl=none/warning. */
    struct cmdline_loglvl {
        uint8_t always, limited;
    } loglvl, guest_loglvl;

    enum cmdline_apicv
        apicv;     /* apicv=yes|no: let the CPU deliver guests' interrupts. Default: auto */
    bool asid;     /* tag TLB entries by vCPU; off: each switch of vCPUs flushes. Default: on */
    bool noreboot; /* halt after a crash instead. Default: off */
    bool watchdog; /* NMI watchdog. Default: off */
    enum cmdline_iommu iommu; /* iommu=[on|off|force][,...]. Default: auto */
    unsigned maxcpus;         /* CPUs to bring up, 0 for all. Default: 0 */
    char sched[16];           /* sched=credit2, the only one. Default: that */

    const char *dom0_extra; /* into the parsed string: what follows " -- ", for dom0's own command
                             * line; "" when nothing */

    unsigned nr_problems; /* may be more than the list holds */
    struct cmdline_problem problems[CMDLINE_MAX_PROBLEMS];
};

/* Parse a NUL-terminated command line (NULL is an empty one) into *out, all of which is set. A
 * first word with a '/' and no '=' is the image's path (GRUB's Multiboot 1 puts it there) and
 * skipped. Any context. Reference for names and forms: Xen's xen-command-line document. */
void cmdline_parse(const char *cmdline, struct cmdline_options *out);

/* dom0's memory in bytes when `available` bytes can be given: dom0_mem=SIZE or, without, all but
 * 1/16th (at most 128 MiB), then raised to min:, cut to max: and to what is available; whole pages.
 */
uint64_t cmdline_dom0_bytes(const struct cmdline_options *options, uint64_t available);

/* dom0's number of vCPUs on a host of nr_cpus: nr_cpus, raised to MIN and cut to MAX; at least 1.
 */
unsigned cmdline_dom0_vcpus(const struct cmdline_options *options, unsigned nr_cpus);

/* Read a size: decimal or 0x-hexadecimal with one of B, K, M, G, T behind it in either case;
 * without one it counts KiB, as in Xen. Returns 0 and bytes, or -EINVAL (also on overflow). */
int cmdline_parse_size(const char *text, uint64_t *bytes);
