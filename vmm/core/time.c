/* time.c: system time from the TSC, its measurement at boot, and the wall clock from the RTC. */
#include "core/time.h"

#include "core/machine.h"
#include "core/mm.h"
#include "core/print.h"
#include "core/x86.h"

uint64_t tsc_khz;
static uint64_t boot_tsc, boot_wallclock_ns;
static uint64_t ns_per_tsc_frac; /* ns per tick, 32.32 fixed point */
static uint64_t tsc_per_ns_frac; /* ticks per ns, 32.32 fixed point */

#define PIT_HZ     1193182ULL
#define PM_HZ      3579545ULL
#define FS_PER_MS  1000000000000ULL
#define MEASURE_MS 20
#define FS_PER_MS  1000000000000ULL

static inline uint64_t mul_frac(uint64_t v, uint64_t frac)
{
    return (uint64_t)(((unsigned __int128)v * frac) >> 32);
}

uint64_t tsc_to_ns(uint64_t tsc)
{
    return mul_frac(tsc, ns_per_tsc_frac);
}

/* The host TSC at which now_ns() will be ns; rounded up, so that a timer is never early. */
uint64_t ns_to_tsc(uint64_t ns)
{
    return boot_tsc + mul_frac(ns, tsc_per_ns_frac) + 2;
}

uint64_t now_ns(void)
{
    return tsc_to_ns(rdtsc() - boot_tsc);
}

uint64_t wallclock_boot_ns(void)
{
    return boot_wallclock_ns;
}

void wallclock_set_boot_ns(uint64_t ns)
{
    boot_wallclock_ns = ns;
}

void time_sample(uint32_t (*read)(uint64_t where), uint64_t where, uint64_t *tsc, uint32_t *count)
{
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < 8; i++) {
        uint64_t before = rdtsc();
        uint32_t value = read(where);
        uint64_t took = rdtsc() - before;

        if (took >= best)
            continue;
        best = took;
        *tsc = before + took / 2;
        *count = value;
    }
}

/* TSC ticks in `ticks` of a counter of `mask` + 1 values, scaled: TSC ticks * scale / counter
 * ticks. */
static uint64_t measure(uint32_t (*read)(uint64_t), uint64_t where, uint32_t mask, uint32_t ticks,
                        uint64_t scale)
{
    uint64_t t0 = 0, t1 = 0;
    uint32_t c0 = 0, c1 = 0;

    time_sample(read, where, &t0, &c0);
    do
        time_sample(read, where, &t1, &c1);
    while (((c1 - c0) & mask) < ticks);
    return (t1 - t0) * scale / ((c1 - c0) & mask);
}

static uint32_t read_hpet(uint64_t base)
{
    return mmio_read32((volatile char *)(UCMAP_BASE + base) + 0xf0);
}

static uint32_t read_pmtimer(uint64_t port)
{
    return inl((uint16_t)port);
}

/* TSC ticks per ms against the HPET's main counter (HPET spec 1.0a, 2.3). */
static uint64_t measure_hpet(paddr_t base)
{
    volatile char *hpet = (volatile char *)(UCMAP_BASE + base);
    uint32_t period_fs = mmio_read32(hpet + 4);
    if (!period_fs || period_fs > 100000000)
        return 0;
    uint32_t config = mmio_read32(hpet + 0x10);
    mmio_write32(hpet + 0x10, config | 1);
    uint64_t tsc_per_ms =
        measure(read_hpet, base, ~0u, (uint32_t)(MEASURE_MS * FS_PER_MS / period_fs),
                FS_PER_MS / period_fs);
    mmio_write32(hpet + 0x10, config);
    return tsc_per_ms;
}

static uint64_t measure_pmtimer(uint16_t port)
{
    return measure(read_pmtimer, port, 0xffffff, (uint32_t)(PM_HZ * MEASURE_MS / 1000), PM_HZ) /
           1000;
}

/* Channel 2 in mode 0 with the speaker's gate (8254 data sheet). */
static uint64_t measure_pit(void)
{
    uint16_t ticks = (uint16_t)(PIT_HZ * MEASURE_MS / 1000);
    outb(0x61, (uint8_t)((inb(0x61) & ~2) | 1));
    outb(0x43, 0xb0);
    outb(0x42, (uint8_t)ticks);
    outb(0x42, (uint8_t)(ticks >> 8));
    uint64_t t0 = rdtsc();
    while (!(inb(0x61) & 0x20))
        ;
    return (rdtsc() - t0) / MEASURE_MS;
}

static uint8_t cmos(uint8_t reg)
{
    outb(0x70, reg);
    return inb(0x71);
}

static unsigned from_bcd(unsigned v, bool binary)
{
    return binary ? v : (v >> 4) * 10 + (v & 15);
}

/* Days from 1970-01-01 of a Gregorian date, by counting years from March. */
static uint64_t days_from_civil(unsigned y, unsigned m, unsigned d)
{
    y -= m <= 2;
    unsigned era = y / 400, yoe = y - era * 400;
    unsigned doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    unsigned doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return (uint64_t)era * 146097 + doe - 719468;
}

static uint64_t read_rtc_seconds(void)
{
    for (int i = 0; i < 1000000 && (cmos(0x0a) & 0x80); i++)
        ;
    bool binary = cmos(0x0b) & 4, h24 = cmos(0x0b) & 2;
    unsigned s = from_bcd(cmos(0), binary), mi = from_bcd(cmos(2), binary), raw = cmos(4);
    unsigned h = from_bcd(raw & 0x7f, binary);
    if (!h24)
        h = h % 12 + (raw & 0x80 ? 12 : 0);
    unsigned d = from_bcd(cmos(7), binary), mo = from_bcd(cmos(8), binary);
    unsigned y = from_bcd(cmos(9), binary);
    y += y < 70 ? 2000 : 1900;
    return days_from_civil(y, mo, d) * 86400 + h * 3600 + mi * 60 + s;
}

void time_init(void)
{
    const char *by = "PIT";
    boot_tsc = rdtsc();
    if (acpi_info.hpet_base && acpi_info.hpet_base < 0x100000000ULL) {
        tsc_khz = measure_hpet(acpi_info.hpet_base);
        by = "HPET";
    }
    if (!tsc_khz && acpi_info.pm_timer_port) {
        tsc_khz = measure_pmtimer(acpi_info.pm_timer_port);
        by = "PM timer";
    }
    if (!tsc_khz) {
        tsc_khz = measure_pit();
        by = "PIT";
    }
    ns_per_tsc_frac = (1000000ULL << 32) / tsc_khz;
    tsc_per_ns_frac = (tsc_khz << 32) / 1000000;
    boot_wallclock_ns = read_rtc_seconds() * NS_PER_SEC - now_ns();
    log_info("TSC %lu.%03lu MHz, measured by the %s", tsc_khz / 1000, tsc_khz % 1000, by);
}
