/* cmdline.c: split the command line into words and look each up in a table of options. */
#include "boot/cmdline.h"

#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"

#define WORD_BYTES 128 /* longer words are cut, and then do not parse */

/* --- values --- */

static bool parse_number(const char *text, uint64_t *value, const char **rest)
{
    unsigned base = 10;
    const char *start;

    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
        base = 16;
        text += 2;
    }
    *value = 0;
    for (start = text;; text++) {
        unsigned digit = base;

        if (*text >= '0' && *text <= '9')
            digit = (unsigned)(*text - '0');
        else if ((*text | 0x20) >= 'a' && (*text | 0x20) <= 'f')
            digit = (unsigned)((*text | 0x20) - 'a') + 10;
        if (digit >= base)
            break;
        if (__builtin_mul_overflow(*value, base, value) ||
            __builtin_add_overflow(*value, digit, value))
            return false;
    }
    *rest = text;
    return text != start;
}

/* A whole word that is a number of at most max. */
static bool parse_bounded(const char *text, uint64_t max, uint64_t *value)
{
    const char *rest;

    return parse_number(text, value, &rest) && *rest == '\0' && *value <= max;
}

int cmdline_parse_size(const char *text, uint64_t *bytes)
{
    static const char units[] = "bkmgt";
    unsigned shift = 10;
    const char *rest, *unit;
    uint64_t n;

    if (!parse_number(text, &n, &rest))
        return -EINVAL;
    if (*rest) {
        unit = strchr(units, *rest | 0x20);
        if (!unit || rest[1])
            return -EINVAL;
        shift = (unsigned)(unit - units) * 10;
    }
    if (n > UINT64_MAX >> shift)
        return -EINVAL;
    *bytes = n << shift;
    return 0;
}

static bool parse_bool(const char *text, bool *value)
{
    static const char *const yes[] = {"1", "on", "yes", "true", "enable"};
    static const char *const no[] = {"0", "off", "no", "false", "disable"};

    for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *value = strcmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

/* Cut the part up to `separator` off *text. NULL when nothing is left. */
static char *next_part(char **text, char separator)
{
    char *part = *text, *end;

    if (!part)
        return NULL;
    end = strchr(part, separator);
    if (end)
        *end++ = '\0';
    *text = end;
    return part;
}

/* --- options; a value may be written into, and on false nothing of *o has changed --- */

static bool opt_console(char *value, struct cmdline_options *o)
{
    unsigned set = 0;

    for (char *part; (part = next_part(&value, ','));) {
        if (strcmp(part, "com1") == 0)
            set |= CONSOLE_SERIAL;
        else if (strcmp(part, "vga") == 0)
            set |= CONSOLE_VGA;
        else if (strcmp(part, "none") != 0)
            return false;
    }
    o->console = set;
    return true;
}

/* DPS: data bits, parity, stop bits, as in 8n1. */
static bool parse_framing(const char *s, struct cmdline_com1 *com1)
{
    if (strlen(s) != 3 || s[0] < '5' || s[0] > '8' || !strchr("neoms", s[1]) ||
        (s[2] != '1' && s[2] != '2'))
        return false;
    com1->data_bits = (uint8_t)(s[0] - '0');
    com1->parity = s[1];
    com1->stop_bits = (uint8_t)(s[2] - '0');
    return true;
}

static bool opt_com1(char *value, struct cmdline_options *o)
{
    struct cmdline_com1 new = o->com1;
    char *baud = next_part(&value, ','), *framing = next_part(&value, ',');
    char *port = next_part(&value, ','); /* what follows (IRQ, bridge) we do not use */
    uint64_t n = 0;

    if (strcmp(baud, "auto") != 0 && *baud && (!parse_bounded(baud, 4000000, &n) || n == 0))
        return false;
    if (*baud)
        new.baud = (uint32_t)n;
    if (framing && *framing && !parse_framing(framing, &new))
        return false;
    if (port && *port) {
        if (!parse_bounded(port, 0xfff8, &n) || n == 0)
            return false;
        new.ioport = (uint16_t)n;
    }
    o->com1 = new;
    return true;
}

static bool opt_dom0_mem(char *value, struct cmdline_options *o)
{
    struct cmdline_dom0_mem new = o->dom0_mem;

    for (char *part; (part = next_part(&value, ','));) {
        uint64_t *field = &new.size;

        if (strncmp(part, "min:", 4) == 0)
            field = &new.min;
        else if (strncmp(part, "max:", 4) == 0)
            field = &new.max;
        if (cmdline_parse_size(field == &new.size ? part : part + 4, field))
            return false;
    }
    o->dom0_mem = new;
    return true;
}

static bool opt_dom0_max_vcpus(char *value, struct cmdline_options *o)
{
    char *max_text = value, *min_text;
    uint64_t min = 0, max = 0;

    if (!strchr(value, '-')) { /* exactly N */
        if (!parse_bounded(value, UINT16_MAX, &max) || max == 0)
            return false;
        min = max;
    } else {
        min_text = next_part(&max_text, '-');
        if (*min_text && !parse_bounded(min_text, UINT16_MAX, &min))
            return false;
        if (*max_text && !parse_bounded(max_text, UINT16_MAX, &max))
            return false;
        if (max && max < min)
            return false;
    }
    o->dom0_vcpus.min = (unsigned)min;
    o->dom0_vcpus.max = (unsigned)max;
    return true;
}

static bool parse_level(const char *text, uint8_t *level)
{
    static const struct {
        const char *name;
        uint8_t below; /* levels under this one print */
    } names[] = {
        {"none", LOG_ERR},      {"error", LOG_ERR + 1},   {"warning", LOG_WARN + 1},
        {"info", LOG_INFO + 1}, {"debug", LOG_DEBUG + 1}, {"all", LOG_DEBUG + 1},
    };

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (strcmp(text, names[i].name) == 0) {
            *level = names[i].below;
            return true;
        }
    }
    return false;
}

static bool parse_levels(char *value, struct cmdline_loglvl *out)
{
    char *always = next_part(&value, '/');
    struct cmdline_loglvl new;

    if (!parse_level(always, &new.always))
        return false;
    new.limited = new.always;
    if (value && !parse_level(value, &new.limited))
        return false;
    new.limited = MAX(new.limited, new.always);
    *out = new;
    return true;
}

static bool opt_loglvl(char *value, struct cmdline_options *o)
{
    return parse_levels(value, &o->loglvl);
}

static bool opt_guest_loglvl(char *value, struct cmdline_options *o)
{
    return parse_levels(value, &o->guest_loglvl);
}

static bool opt_iommu(char *value, struct cmdline_options *o)
{
    enum cmdline_iommu new = o->iommu;
    bool on;

    for (char *part; (part = next_part(&value, ','));) {
        if (parse_bool(part, &on))
            new = on ? IOMMU_AUTO : IOMMU_OFF;
        else if (strcmp(part, "force") == 0 || strcmp(part, "required") == 0)
            new = IOMMU_FORCE;
        else
            return false;
    }
    o->iommu = new;
    return true;
}

static bool opt_apicv(char *value, struct cmdline_options *o)
{
    bool on;

    if (!parse_bool(value, &on))
        return false;
    o->apicv = on ? APICV_ON : APICV_OFF;
    return true;
}

static bool opt_maxcpus(char *value, struct cmdline_options *o)
{
    uint64_t n;

    if (!parse_bounded(value, UINT16_MAX, &n))
        return false;
    o->maxcpus = (unsigned)n;
    return true;
}

static bool opt_sched(char *value, struct cmdline_options *o)
{
    (void)o;
    return strcmp(value, "credit2") == 0;
}

/* --- the table --- */

static const struct option {
    const char *name;
    bool (*parse)(char *value, struct cmdline_options *o); /* NAME=VALUE */
    size_t flag; /* without parse: the offset of a bool, for NAME, NAME=BOOL and no-NAME */
} options[] = {
    {"apicv", opt_apicv, 0},
    {"asid", NULL, offsetof(struct cmdline_options, asid)},
    {"com1", opt_com1, 0},
    {"console", opt_console, 0},
    {"dom0_max_vcpus", opt_dom0_max_vcpus, 0},
    {"dom0_mem", opt_dom0_mem, 0},
    {"dom0_vcpus_pin", NULL, offsetof(struct cmdline_options, dom0_vcpus_pin)},
    {"guest_loglvl", opt_guest_loglvl, 0},
    {"iommu", opt_iommu, 0},
    {"loglvl", opt_loglvl, 0},
    {"maxcpus", opt_maxcpus, 0},
    {"noreboot", NULL, offsetof(struct cmdline_options, noreboot)},
    {"sched", opt_sched, 0},
    {"watchdog", NULL, offsetof(struct cmdline_options, watchdog)},
};

/* Words that Debian's GRUB scripts put on every Xen command line; they ask for nothing here. */
static const char *const silent[] = {"placeholder", "no-real-mode", "edd=off"};

static const struct option *find_option(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(options); i++)
        if (strcmp(options[i].name, name) == 0)
            return &options[i];
    return NULL;
}

static bool set_flag(const struct option *option, const char *value, struct cmdline_options *o)
{
    bool *flag = (bool *)((char *)o + option->flag);

    if (value)
        return parse_bool(value, flag);
    *flag = true;
    return true;
}

static void note_problem(struct cmdline_options *o, enum cmdline_problem_kind kind,
                         const char *word)
{
    struct cmdline_problem *p;
    size_t n;

    if (o->nr_problems++ >= CMDLINE_MAX_PROBLEMS)
        return;
    p = &o->problems[o->nr_problems - 1];
    p->kind = kind;
    n = MIN(strlen(word), sizeof(p->option) - 1);
    memcpy(p->option, word, n);
    p->option[n] = '\0';
}

static void take_word(const char *word, struct cmdline_options *o)
{
    char copy[WORD_BYTES], off[] = "off", *value = copy, *name;
    const struct option *option;
    bool ok;

    for (size_t i = 0; i < ARRAY_SIZE(silent); i++)
        if (strcmp(word, silent[i]) == 0)
            return;
    memcpy(copy, word, strlen(word) + 1);
    name = next_part(&value, '=');
    option = find_option(name);
    if (!option && !value && strncmp(name, "no-", 3) == 0) {
        option = find_option(name + 3);
        value = off;
    }
    if (!option) {
        note_problem(o, CMDLINE_UNKNOWN, word);
        return;
    }
    if (option->parse)
        ok = value && *value && option->parse(value, o);
    else
        ok = set_flag(option, value, o);
    if (!ok)
        note_problem(o, CMDLINE_BAD_VALUE, word);
}

/* --- the line --- */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Copy the next word out, cut to fit. Returns what follows it, NULL when there was none. */
static const char *next_word(const char *p, char word[WORD_BYTES])
{
    size_t n = 0;

    while (is_space(*p))
        p++;
    if (!*p)
        return NULL;
    for (; *p && !is_space(*p); p++)
        if (n < WORD_BYTES - 1)
            word[n++] = *p;
    word[n] = '\0';
    return p;
}

static void set_defaults(struct cmdline_options *o)
{
    *o = (struct cmdline_options){
        .console = CONSOLE_SERIAL | CONSOLE_VGA,
        .com1 = {.baud = 115200, .data_bits = 8, .parity = 'n', .stop_bits = 1, .ioport = 0x3f8},
        .loglvl = {.always = LOG_WARN + 1, .limited = LOG_WARN + 1},
        .guest_loglvl = {.always = LOG_ERR, .limited = LOG_WARN + 1},
        .sched = "credit2",
        .asid = true,
        .dom0_extra = "",
    };
}

void cmdline_parse(const char *cmdline, struct cmdline_options *out)
{
    char word[WORD_BYTES];
    bool first = true;

    set_defaults(out);
    for (const char *p = cmdline; p && (p = next_word(p, word)); first = false) {
        if (first && strchr(word, '/') && !strchr(word, '='))
            continue;
        if (strcmp(word, "--") == 0) {
            while (is_space(*p))
                p++;
            out->dom0_extra = p;
            return;
        }
        take_word(word, out);
    }
}

/* --- what the options mean on this machine --- */

uint64_t cmdline_dom0_bytes(const struct cmdline_options *options, uint64_t available)
{
    uint64_t bytes = options->dom0_mem.size;

    if (bytes == 0)
        bytes = available - MIN(available / 16, 128ULL << 20);
    bytes = MAX(bytes, options->dom0_mem.min);
    if (options->dom0_mem.max)
        bytes = MIN(bytes, options->dom0_mem.max);
    return MIN(bytes, available) & PAGE_MASK;
}

unsigned cmdline_dom0_vcpus(const struct cmdline_options *options, unsigned nr_cpus)
{
    unsigned n = MAX(nr_cpus, options->dom0_vcpus.min);

    if (options->dom0_vcpus.max)
        n = MIN(n, options->dom0_vcpus.max);
    return MAX(n, 1u);
}
