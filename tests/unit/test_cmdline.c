/* sources: vmm/boot/cmdline.c */
/* test_cmdline.c: each option's forms, and that what does not parse is reported and changes
 * nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "boot/cmdline.h"
#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"

static struct cmdline_options o;

/* Parse a line in which everything is understood. */
static void parse(const char *line)
{
    cmdline_parse(line, &o);
    assert_int_equal(o.nr_problems, 0);
}

static void parse_bad(const char *line, enum cmdline_problem_kind kind, const char *word)
{
    cmdline_parse(line, &o);
    assert_int_equal(o.nr_problems, 1);
    assert_int_equal(o.problems[0].kind, kind);
    assert_string_equal(o.problems[0].option, word);
}

static void check_defaults(void)
{
    assert_int_equal(o.console, CONSOLE_SERIAL | CONSOLE_VGA);
    assert_int_equal(o.com1.baud, 115200);
    assert_int_equal(o.com1.data_bits, 8);
    assert_int_equal(o.com1.parity, 'n');
    assert_int_equal(o.com1.stop_bits, 1);
    assert_int_equal(o.com1.ioport, 0x3f8);
    assert_int_equal(o.dom0_mem.size | o.dom0_mem.min | o.dom0_mem.max, 0);
    assert_int_equal(o.dom0_vcpus.min | o.dom0_vcpus.max | o.maxcpus, 0);
    assert_false(o.dom0_vcpus_pin || o.noreboot || o.watchdog);
    assert_int_equal(o.loglvl.always, LOG_WARN + 1);
    assert_int_equal(o.guest_loglvl.always, 0);
    assert_int_equal(o.guest_loglvl.limited, LOG_WARN + 1);
    assert_int_equal(o.iommu, IOMMU_AUTO);
    assert_string_equal(o.sched, "credit2");
    assert_string_equal(o.dom0_extra, "");
}

static void defaults(void **state)
{
    static const char *const empty[] = {
        NULL, "", "  ", "/boot/ringfence", "(hd0)/x.elf ", "placeholder no-real-mode edd=off"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(empty); i++) {
        parse(empty[i]);
        check_defaults();
    }
}

static void a_whole_line(void **state)
{
    (void)state;
    parse("/boot/ringfence console=com1,vga com1=115200,8n1 dom0_mem=1G,max:2G\tdom0_max_vcpus=2 "
          "dom0_vcpus_pin loglvl=all guest_loglvl=all/all noreboot iommu=no sched=credit2 "
          "maxcpus=4 watchdog -- root=/dev/sda1  quiet");
    assert_int_equal(o.dom0_mem.size, 1 << 30);
    assert_int_equal(o.dom0_mem.max, 2LL << 30);
    assert_int_equal(o.dom0_vcpus.min, 2);
    assert_int_equal(o.dom0_vcpus.max, 2);
    assert_true(o.dom0_vcpus_pin && o.noreboot && o.watchdog);
    assert_int_equal(o.loglvl.always, LOG_DEBUG + 1);
    assert_int_equal(o.guest_loglvl.always, LOG_DEBUG + 1);
    assert_int_equal(o.iommu, IOMMU_OFF);
    assert_int_equal(o.maxcpus, 4);
    assert_string_equal(o.dom0_extra, "root=/dev/sda1  quiet");
}

static void only_the_first_word_may_be_a_path(void **state)
{
    (void)state;
    parse_bad("noreboot /boot/x", CMDLINE_UNKNOWN, "/boot/x");
    parse_bad("xen.gz noreboot", CMDLINE_UNKNOWN, "xen.gz");
    parse_bad("root=/dev/sda noreboot", CMDLINE_UNKNOWN, "root=/dev/sda");
    assert_true(o.noreboot);
}

static void sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
        int rc;
    } cases[] = {
        {"512", 512 << 10, 0},     {"0x10", 16 << 10, 0},
        {"4096B", 4096, 0},        {"3k", 3 << 10, 0},
        {"768M", 768 << 20, 0},    {"2g", 2ULL << 30, 0},
        {"1T", 1ULL << 40, 0},     {"", 0, -EINVAL},
        {"M", 0, -EINVAL},         {"1MB", 0, -EINVAL},
        {"1 M", 0, -EINVAL},       {"-1G", 0, -EINVAL},
        {"50%", 0, -EINVAL},       {"0x", 0, -EINVAL},
        {"16777216T", 0, -EINVAL}, {"99999999999999999999", 0, -EINVAL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t bytes = 0;

        assert_int_equal(cmdline_parse_size(cases[i].text, &bytes), cases[i].rc);
        assert_int_equal(bytes, cases[i].bytes);
    }
}

static void dom0_mem(void **state)
{
    (void)state;
    parse("dom0_mem=min:256M,max:1G,512M");
    assert_int_equal(o.dom0_mem.size, 512 << 20);
    assert_int_equal(o.dom0_mem.min, 256 << 20);
    assert_int_equal(o.dom0_mem.max, 1 << 30);
    parse("dom0_mem=max:1G");
    assert_int_equal(o.dom0_mem.size, 0);
    assert_int_equal(cmdline_dom0_bytes(&o, 4ULL << 30), 1 << 30);
    assert_int_equal(cmdline_dom0_bytes(&o, 512 << 20), 480 << 20);
    parse("dom0_mem=512M,min:600M");
    assert_int_equal(cmdline_dom0_bytes(&o, 4ULL << 30), 600 << 20);
    assert_int_equal(cmdline_dom0_bytes(&o, (100 << 20) + 5), 100 << 20);
    parse("");
    assert_int_equal(cmdline_dom0_bytes(&o, 1ULL << 30), (1ULL << 30) - (64 << 20));
    assert_int_equal(cmdline_dom0_bytes(&o, 8ULL << 30), (8ULL << 30) - (128 << 20));
    parse_bad("dom0_mem=512M,max:x", CMDLINE_BAD_VALUE, "dom0_mem=512M,max:x");
    assert_int_equal(o.dom0_mem.size, 0);
    parse_bad("dom0_mem", CMDLINE_BAD_VALUE, "dom0_mem");
}

static void dom0_max_vcpus(void **state)
{
    (void)state;
    parse("dom0_max_vcpus=2-4");
    assert_int_equal(cmdline_dom0_vcpus(&o, 1), 2);
    assert_int_equal(cmdline_dom0_vcpus(&o, 3), 3);
    assert_int_equal(cmdline_dom0_vcpus(&o, 8), 4);
    parse("dom0_max_vcpus=-4");
    assert_int_equal(cmdline_dom0_vcpus(&o, 8), 4);
    assert_int_equal(cmdline_dom0_vcpus(&o, 1), 1);
    parse("dom0_max_vcpus=3-");
    assert_int_equal(cmdline_dom0_vcpus(&o, 1), 3);
    assert_int_equal(cmdline_dom0_vcpus(&o, 8), 8);
    parse("dom0_max_vcpus=3");
    assert_int_equal(cmdline_dom0_vcpus(&o, 1), 3);
    assert_int_equal(cmdline_dom0_vcpus(&o, 8), 3);
    parse("");
    assert_int_equal(cmdline_dom0_vcpus(&o, 8), 8);
    parse_bad("dom0_max_vcpus=0", CMDLINE_BAD_VALUE, "dom0_max_vcpus=0");
    parse_bad("dom0_max_vcpus=4-2", CMDLINE_BAD_VALUE, "dom0_max_vcpus=4-2");
    parse_bad("dom0_max_vcpus=two", CMDLINE_BAD_VALUE, "dom0_max_vcpus=two");
}

static void com1(void **state)
{
    (void)state;
    parse("com1=9600,7e2,0x2f8,3");
    assert_int_equal(o.com1.baud, 9600);
    assert_int_equal(o.com1.data_bits, 7);
    assert_int_equal(o.com1.parity, 'e');
    assert_int_equal(o.com1.stop_bits, 2);
    assert_int_equal(o.com1.ioport, 0x2f8);
    parse("com1=auto,,0x3e8");
    assert_int_equal(o.com1.baud, 0);
    assert_int_equal(o.com1.data_bits, 8);
    assert_int_equal(o.com1.ioport, 0x3e8);
    parse("com1=57600");
    assert_int_equal(o.com1.baud, 57600);
    parse_bad("com1=9600,9n1", CMDLINE_BAD_VALUE, "com1=9600,9n1");
    assert_int_equal(o.com1.baud, 115200);
    parse_bad("com1=9600,8n", CMDLINE_BAD_VALUE, "com1=9600,8n");
    parse_bad("com1", CMDLINE_BAD_VALUE, "com1");
    parse_bad("com1=fast", CMDLINE_BAD_VALUE, "com1=fast");
    parse_bad("com1=9600,8n1,0x10000", CMDLINE_BAD_VALUE, "com1=9600,8n1,0x10000");
}

static void levels(void **state)
{
    (void)state;
    parse("loglvl=none guest_loglvl=error/debug");
    assert_int_equal(o.loglvl.always, 0);
    assert_int_equal(o.loglvl.limited, 0);
    assert_int_equal(o.guest_loglvl.always, LOG_ERR + 1);
    assert_int_equal(o.guest_loglvl.limited, LOG_DEBUG + 1);
    parse("loglvl=info/error");
    assert_int_equal(o.loglvl.limited, LOG_INFO + 1);
    parse_bad("loglvl=loud", CMDLINE_BAD_VALUE, "loglvl=loud");
    parse_bad("guest_loglvl=info/", CMDLINE_BAD_VALUE, "guest_loglvl=info/");
    assert_int_equal(o.guest_loglvl.always, 0);
}

static void flags_and_lists(void **state)
{
    (void)state;
    parse("");
    assert_int_equal(o.apicv, APICV_AUTO);
    parse("apicv=yes");
    assert_int_equal(o.apicv, APICV_ON);
    parse("no-apicv");
    assert_int_equal(o.apicv, APICV_OFF);
    parse_bad("apicv=maybe", CMDLINE_BAD_VALUE, "apicv=maybe");
    assert_true(o.asid);
    parse("asid=no");
    assert_false(o.asid);
    parse("noreboot=yes watchdog=0 dom0_vcpus_pin no-dom0_vcpus_pin");
    assert_true(o.noreboot);
    assert_false(o.watchdog || o.dom0_vcpus_pin);
    parse_bad("noreboot=maybe", CMDLINE_BAD_VALUE, "noreboot=maybe");
    parse("console=com1");
    assert_int_equal(o.console, CONSOLE_SERIAL);
    parse("console=vga console=none");
    assert_int_equal(o.console, 0);
    parse_bad("console=com3", CMDLINE_BAD_VALUE, "console=com3");
    assert_int_equal(o.console, CONSOLE_SERIAL | CONSOLE_VGA);
    parse("iommu=force");
    assert_int_equal(o.iommu, IOMMU_FORCE);
    parse_bad("iommu=off,quantum", CMDLINE_BAD_VALUE, "iommu=off,quantum");
    assert_int_equal(o.iommu, IOMMU_AUTO);
    parse_bad("sched=credit", CMDLINE_BAD_VALUE, "sched=credit");
    parse_bad("no-such", CMDLINE_UNKNOWN, "no-such");
    parse_bad("no-dom0_mem", CMDLINE_BAD_VALUE, "no-dom0_mem");
}

static void problems_are_counted_and_cut(void **state)
{
    char line[4000] = "";

    (void)state;
    for (unsigned i = 0; i < 20; i++)
        strcat(line, "bogus ");
    cmdline_parse(line, &o);
    assert_int_equal(o.nr_problems, 20);
    assert_string_equal(o.problems[CMDLINE_MAX_PROBLEMS - 1].option, "bogus");
    memset(line, 'x', sizeof(line));
    line[sizeof(line) - 1] = 0;
    cmdline_parse(line, &o);
    assert_int_equal(o.nr_problems, 1);
    assert_int_equal(strlen(o.problems[0].option), CMDLINE_PROBLEM_TEXT - 1);
}

static void noise_does_no_harm(void **state)
{
    static const char alphabet[] = "abcdom0_mem=,:/- 128nMGx\t";
    static const char *const starts[] = {"dom0_mem=", "com1=", "loglvl=", "dom0_max_vcpus=", ""};

    (void)state;
    srand(5);
    for (unsigned n = 0; n < 20000; n++) {
        const char *start = starts[(size_t)rand() % ARRAY_SIZE(starts)];
        size_t at = strlen(start), length = at + (size_t)rand() % 40;
        char *line = malloc(length + 1); /* exact, for the address sanitizer */

        memcpy(line, start, at);
        while (at < length)
            line[at++] = alphabet[(size_t)rand() % (sizeof(alphabet) - 1)];
        line[length] = '\0';
        cmdline_parse(line, &o);
        free(line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(a_whole_line),
        cmocka_unit_test(only_the_first_word_may_be_a_path),
        cmocka_unit_test(sizes),
        cmocka_unit_test(dom0_mem),
        cmocka_unit_test(dom0_max_vcpus),
        cmocka_unit_test(com1),
        cmocka_unit_test(levels),
        cmocka_unit_test(flags_and_lists),
        cmocka_unit_test(problems_are_counted_and_cut),
        cmocka_unit_test(noise_does_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
