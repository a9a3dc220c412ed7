/* sources: vmm/core/acpi.c */
/* test_acpi.c: a made-up PC's tables in made-up physical memory. Each mapping is a copy of exactly
 * its size, so that the address sanitizer sees any read past what was asked for. DUMP=file writes
 * dom0's MADT there, for iasl.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "core/acpi.h"
#include "core/errno.h"
#include "core/string.h"

enum {
    MEMORY = 0x110000,
    EBDA = 0x9fc00,
    RSDP = 0xf5a40,
    XSDT = 0x100000,
    RSDT = 0x101000,
    MADT = 0x102000,
    FADT = 0x103000,
    HPET = 0x104000,
    MCFG = 0x105000,
    DMAR = 0x106000,
    SSDT = 0x107000,
};

static uint8_t memory[MEMORY];
static struct acpi_info info;

/* --- physical memory --- */

static void *maps[1000];
static unsigned nr_maps;

static const void *map(uint64_t pa, size_t bytes)
{
    void *copy;

    if (pa >= MEMORY || bytes > MEMORY - pa || nr_maps == ARRAY_SIZE(maps))
        return NULL;
    copy = malloc(bytes);
    memcpy(copy, memory + pa, bytes);
    maps[nr_maps++] = copy;
    return copy;
}

static int parse(const void *rsdp, size_t bytes)
{
    int rc = acpi_parse(map, rsdp, bytes, &info);

    while (nr_maps)
        free(maps[--nr_maps]);
    return rc;
}

/* --- writing tables --- */

static void put(uint64_t pa, uint64_t value, size_t width)
{
    memcpy(memory + pa, &value, width);
}

static void seal(uint64_t pa, size_t from, size_t bytes)
{
    uint8_t sum = 0;

    memory[pa + from] = 0;
    for (size_t i = 0; i < bytes; i++)
        sum = (uint8_t)(sum + memory[pa + i]);
    memory[pa + from] = (uint8_t)-sum;
}

static void table(uint64_t pa, const char *signature, size_t bytes)
{
    memcpy(memory + pa, signature, 4);
    put(pa + 4, bytes, 4);
    seal(pa, 9, bytes);
}

static size_t entry(uint64_t pa, size_t at, const uint8_t *bytes)
{
    memcpy(memory + pa + at, bytes, bytes[1]);
    return at + bytes[1];
}

static void make_madt(void)
{
    static const uint8_t entries[][16] = {
        {0, 8, 0, 0, 1},
        {0, 8, 1, 4, 1},
        {0, 8, 2, 6, 0},
        {0, 8, 3, 7, 2},
        {1, 12, 9, 0, 0x00, 0x00, 0xc0, 0xfe, 0},
        {1, 12, 10, 0, 0x00, 0x10, 0xc0, 0xfe, 24},
        {2, 10, 0, 0, 2},
        {2, 10, 0, 9, 9, 0, 0, 0, 0xd},
        {3, 8, 5, 0, 17},
        {4, 6, 0xff, 0, 0, 1},
        {9, 16, 0, 0, 0x34, 0x12, 0, 0, 1, 0, 0, 0, 77},
        {9, 16, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 1}, /* the same CPU again */
        {10, 12, 5, 0, 0xff, 0xff, 0xff, 0xff, 0},
        {127, 4},
    };
    size_t at = 44;

    put(MADT + 36, 0xfee00000, 4);
    put(MADT + 40, 1, 4);
    for (size_t i = 0; i < ARRAY_SIZE(entries); i++)
        at = entry(MADT, at, entries[i]);
    table(MADT, "APIC", at);
}

static void make_fadt(size_t bytes)
{
    put(FADT + 36, 0x10f000, 4);
    put(FADT + 40, 0x10e000, 4);
    put(FADT + 46, 9, 2);
    put(FADT + 48, 0xb2, 4);
    put(FADT + 52, 0xf1, 1);
    put(FADT + 56, 0x600, 4);
    put(FADT + 64, 0x604, 4);
    put(FADT + 76, 0x608, 4);
    put(FADT + 88, 4, 1);
    put(FADT + 108, 0x32, 1);
    put(FADT + 109, 2, 2);
    put(FADT + 112, 1 << 10, 4);
    put(FADT + 116, 1 | 8 << 8, 4);
    put(FADT + 120, 0xcf9, 8);
    put(FADT + 128, 6, 1);
    put(FADT + 140, 0x10d000, 8);
    put(FADT + 208, 1 | 32 << 8, 4);
    put(FADT + 212, 0xb008, 8);
    table(FADT, "FACP", bytes);
}

static void make_rsdp(unsigned revision)
{
    memset(memory + RSDP, 0, 36);
    memcpy(memory + RSDP, "RSD PTR ", 8);
    put(RSDP + 15, revision, 1);
    put(RSDP + 16, RSDT, 4);
    seal(RSDP, 8, 20);
    put(RSDP + 20, 36, 4);
    put(RSDP + 24, XSDT, 8);
    seal(RSDP, 32, 36);
}

static const uint32_t listed[] = {FADT, MADT, HPET, MCFG, DMAR, SSDT, 0x7ffff000 /* no memory */};

static int make_pc(void **state)
{
    (void)state;
    memset(memory, 0, sizeof(memory));
    put(0x40e, EBDA >> 4, 2);
    make_rsdp(2);
    make_madt();
    make_fadt(244);
    put(HPET + 44, 0xfed00000, 8);
    table(HPET, "HPET", 56);
    put(MCFG + 44, 0xe0000000, 8);
    put(MCFG + 52, 3, 2);
    put(MCFG + 54, 0x7f10, 2);
    table(MCFG, "MCFG", 60);
    table(DMAR, "DMAR", 48);
    table(SSDT, "SSDT", 100);
    for (size_t i = 0; i < ARRAY_SIZE(listed); i++) {
        put(XSDT + 36 + 8 * i, listed[i], 8);
        put(RSDT + 36 + 4 * i, listed[i], 4);
    }
    table(XSDT, "XSDT", 36 + 8 * ARRAY_SIZE(listed));
    table(RSDT, "RSDT", 36 + 4 * ARRAY_SIZE(listed));
    return 0;
}

/* --- tests: reading --- */

static void a_pc(void **state)
{
    uint16_t flags;

    (void)state;
    assert_int_equal(parse(NULL, 0), 0);
    assert_int_equal(info.revision, 2);
    assert_int_equal(info.nr_tables, 6);
    assert_int_equal(info.nr_bad, 1); /* the table in no memory */
    assert_int_equal(info.nr_dropped, 0);
    assert_int_equal(info.lapic_pa, 0xfee00000);
    assert_true(info.pcat_compat);

    assert_int_equal(info.nr_cpus, 5);
    assert_int_equal(info.cpu[1].apic_id, 4);
    assert_int_equal(info.cpu[1].uid, 1);
    assert_true(info.cpu[1].enabled);
    assert_false(info.cpu[2].enabled || info.cpu[2].online_capable || info.cpu[3].enabled);
    assert_true(info.cpu[3].online_capable);
    assert_int_equal(info.cpu[4].apic_id, 0x1234);
    assert_int_equal(info.cpu[4].uid, 77);

    assert_int_equal(info.nr_ioapics, 2);
    assert_int_equal(info.ioapics[1].id, 10);
    assert_int_equal(info.ioapics[1].pa, 0xfec01000);
    assert_int_equal(info.ioapics[1].gsi_base, 24);
    assert_int_equal(acpi_isa_gsi(&info, 0, &flags), 2);
    assert_int_equal(flags, 0);
    assert_int_equal(acpi_isa_gsi(&info, 9, &flags), 9);
    assert_int_equal(flags, 0xd);
    assert_int_equal(acpi_isa_gsi(&info, 4, &flags), 4);
    assert_int_equal(flags, 0);
    assert_int_equal(info.nr_nmi_sources, 1);
    assert_int_equal(info.nmi_sources[0].gsi, 17);
    assert_int_equal(info.nr_lapic_nmis, 2);
    assert_int_equal(info.lapic_nmis[0].lint, 1);
    assert_int_equal(info.lapic_nmis[1].uid, 0xff);

    assert_int_equal(info.nr_segments, 1);
    assert_int_equal(info.segments[0].pa, 0xe0000000);
    assert_int_equal(info.segments[0].segment, 3);
    assert_int_equal(info.segments[0].first_bus, 0x10);
    assert_int_equal(info.segments[0].last_bus, 0x7f);
    assert_int_equal(info.hpet_base, 0xfed00000);
    assert_int_equal(info.dmar_pa, DMAR);
    assert_int_equal(info.dmar_bytes, 48);
    assert_int_equal(info.ivrs_bytes, 0);
}

static void fadt(void **state)
{
    (void)state;
    assert_int_equal(parse(NULL, 0), 0);
    assert_int_equal(info.fadt.sci_irq, 9);
    assert_int_equal(info.pm_timer_port, 0xb008); /* the X_ field */
    assert_int_equal(info.pm_timer_bits, 24);
    assert_int_equal(info.fadt.pm1a_evt_port, 0x600);
    assert_int_equal(info.fadt.pm1b_evt_port, 0);
    assert_int_equal(info.fadt.pm1_evt_bytes, 4);
    assert_int_equal(info.fadt.pm1a_cnt_port, 0x604);
    assert_int_equal(info.fadt.smi_cmd_port, 0xb2);
    assert_int_equal(info.fadt.acpi_enable, 0xf1);
    assert_int_equal(info.fadt.century, 0x32);
    assert_int_equal(info.fadt.boot_arch, 2);
    assert_int_equal(info.fadt.reset.space, ACPI_SPACE_IO);
    assert_int_equal(info.fadt.reset.address, 0xcf9);
    assert_int_equal(info.fadt.reset_value, 6);
    assert_int_equal(info.fadt.dsdt_pa, 0x10d000);
    assert_int_equal(info.fadt.facs_pa, 0x10f000);

    make_fadt(116); /* ACPI 1.0's: shorter */
    put(FADT + 112, 1 << 8, 4);
    table(FADT, "FACP", 116);
    assert_int_equal(parse(NULL, 0), 0);
    assert_int_equal(info.pm_timer_port, 0x608);
    assert_int_equal(info.pm_timer_bits, 32);
    assert_int_equal(info.fadt.reset.address, 0);
    assert_int_equal(info.fadt.dsdt_pa, 0x10e000);
    make_pc(state);
}

static void finding_the_rsdp(void **state)
{
    uint8_t copy[36];

    memcpy(copy, memory + RSDP, 36);
    memset(memory + RSDP, 0, 36);
    assert_int_equal(parse(NULL, 0), -ENOENT);
    assert_int_equal(parse(copy, 36), 0); /* Multiboot 2's */
    copy[10]++;
    assert_int_equal(parse(copy, 36), -ENOENT);
    copy[10]--;
    assert_int_equal(parse(copy, 19), -ENOENT);
    put(RSDT + 4, 36 + 4 * 2, 4); /* so that it is seen which root was read */
    seal(RSDT, 9, 36 + 4 * 2);
    assert_int_equal(parse(copy, 20), 0);
    assert_int_equal(info.nr_tables, 2);
    copy[33]++; /* the second checksum is wrong: RSDT */
    assert_int_equal(parse(copy, 36), 0);
    assert_int_equal(info.nr_tables, 2);
    copy[33]--;
    memcpy(memory + EBDA + 0x3d0, copy, 36);
    assert_int_equal(parse(NULL, 0), 0);
    assert_int_equal(info.nr_tables, 6);
    memset(memory + EBDA, 0, 0x400);
    memcpy(memory + 0xffff0, copy, 16); /* cut by the end of the area */
    assert_int_equal(parse(NULL, 0), -ENOENT);
    make_pc(state);
    make_rsdp(0);
    put(RSDT + 4, 36 + 4 * 2, 4);
    seal(RSDT, 9, 36 + 4 * 2);
    assert_int_equal(parse(NULL, 0), 0);
    assert_int_equal(info.revision, 0);
    assert_int_equal(info.nr_tables, 2);
    make_pc(state);
}

static void broken_tables(void **state)
{
    memory[XSDT + 20]++; /* falls back on the RSDT */
    assert_int_equal(parse(NULL, 0), 0);
    memory[RSDT + 20]++;
    assert_int_equal(parse(NULL, 0), -EINVAL);
    make_pc(state);
    memory[MADT + 20]++;
    assert_int_equal(parse(NULL, 0), -ENOENT);
    make_pc(state);
    memory[HPET + 20]++;
    memory[DMAR + 20]++;
    assert_int_equal(parse(NULL, 0), 0);
    assert_int_equal(info.hpet_base, 0);
    assert_int_equal(info.dmar_bytes, 0);
    assert_int_equal(info.nr_bad, 3);
    make_pc(state);
    put(MCFG + 4, 35, 4); /* shorter than a header; longer than memory */
    put(HPET + 4, 0x7fffffff, 4);
    assert_int_equal(parse(NULL, 0), 0);
    assert_int_equal(info.nr_tables, 4);
    make_pc(state);
    memory[MADT + 44 + 8 + 1] = 0; /* an entry of no length, then one past the end */
    seal(MADT, 9, *(uint32_t *)(memory + MADT + 4));
    assert_int_equal(parse(NULL, 0), 0);
    assert_int_equal(info.nr_cpus, 1);
    memory[MADT + 44 + 8 + 1] = 255;
    seal(MADT, 9, *(uint32_t *)(memory + MADT + 4));
    assert_int_equal(parse(NULL, 0), 0);
    assert_int_equal(info.nr_cpus, 1);
    memory[MADT + 44 + 8 + 1] = 5; /* too short for its type: what follows is misread, in bounds */
    seal(MADT, 9, *(uint32_t *)(memory + MADT + 4));
    assert_int_equal(parse(NULL, 0), 0);
    assert_true(info.nr_bad > 1);
    make_pc(state);
}

static void more_than_fits(void **state)
{
    enum { BIG = 0x10a000 };
    size_t at = 44;

    for (unsigned i = 0; i < ACPI_MAX_CPUS + 3; i++) {
        uint8_t x2apic[16] = {9, 16, 0, 0, (uint8_t)i, (uint8_t)(i >> 8), 0, 0, 1};

        at = entry(BIG, at, x2apic);
    }
    for (unsigned i = 0; i < ACPI_MAX_IOAPICS + 2; i++)
        at = entry(BIG, at, (uint8_t[12]){1, 12});
    memory[MADT] = 'X'; /* the small one */
    table(BIG, "APIC", at);
    put(XSDT + 36 + 8 * ARRAY_SIZE(listed), BIG, 8);
    table(XSDT, "XSDT", 36 + 8 * (ARRAY_SIZE(listed) + 1));
    assert_int_equal(parse(NULL, 0), 0);
    assert_int_equal(info.nr_cpus, ACPI_MAX_CPUS);
    assert_int_equal(info.nr_ioapics, ACPI_MAX_IOAPICS);
    assert_int_equal(info.nr_dropped, 5);
    make_pc(state);
}

static void noise_stays_in_bounds(void **state)
{
    static const uint32_t targets[] = {XSDT, RSDT, MADT, FADT, MCFG, HPET, RSDP};

    srand(9);
    for (unsigned n = 0; n < 3000; n++) {
        uint32_t pa = targets[(size_t)rand() % ARRAY_SIZE(targets)];

        for (unsigned i = 0; i < 3; i++)
            memory[pa + (size_t)rand() % 160] = (uint8_t)rand();
        for (size_t i = 0; i < ARRAY_SIZE(targets) - 1; i++) { /* valid sums, to get further */
            uint32_t bytes = *(uint32_t *)(memory + targets[i] + 4);

            if (bytes >= 36 && bytes < 0x1000)
                seal(targets[i], 9, bytes);
        }
        parse(NULL, 0);
        if (n % 10 == 0)
            make_pc(state);
    }
    make_pc(state);
}

/* --- tests: dom0's --- */

static uint8_t sum(const uint8_t *p, size_t n)
{
    uint8_t s = 0;

    while (n--)
        s = (uint8_t)(s + *p++);
    return s;
}

static void dom0_reads_what_was_built(void **state)
{
    enum { BUF = 0x108000, BYTES = 0x1000 };
    static struct acpi_info host;
    uint64_t rsdp;
    FILE *dump;

    assert_int_equal(parse(NULL, 0), 0);
    host = info;
    memset(memory + BUF, 0xcc, BYTES);
    assert_int_equal(acpi_build_dom0_tables(&host, 3, memory + BUF, BYTES, BUF, &rsdp), 0);
    assert_int_equal(rsdp % 16, 0);
    assert_int_equal(sum(memory + rsdp, 20), 0);
    assert_int_equal(sum(memory + rsdp, 36), 0);
    assert_int_equal(parse(memory + rsdp, 36), 0);

    assert_int_equal(info.nr_bad, 0);
    assert_int_equal(info.nr_tables, 4); /* the MADT, FADT, MCFG and SSDT */
    assert_non_null(acpi_find_table(&info, "SSDT"));
    assert_non_null(acpi_find_table(&info, "FACP"));
    assert_non_null(acpi_find_table(&info, "MCFG"));
    assert_null(acpi_find_table(&info, "HPET"));
    assert_null(acpi_find_table(&info, "DMAR"));
    assert_int_equal(acpi_find_table(&info, "APIC")->pa, BUF);
    assert_int_equal(info.nr_cpus, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(info.cpu[i].apic_id, 2 * i);
        assert_int_equal(info.cpu[i].uid, i);
        assert_true(info.cpu[i].enabled);
    }
    assert_false(info.pcat_compat);
    assert_int_equal(info.lapic_pa, 0xfee00000);
    assert_int_equal(info.nr_ioapics, 2);
    assert_memory_equal(info.ioapics, host.ioapics, sizeof(info.ioapics));
    assert_memory_equal(info.overrides, host.overrides, sizeof(info.overrides));
    assert_memory_equal(info.nmi_sources, host.nmi_sources, sizeof(info.nmi_sources));
    assert_int_equal(info.nr_overrides, 2);

    dump = getenv("DUMP") ? fopen(getenv("DUMP"), "wb") : NULL;
    if (dump) {
        fwrite(memory + BUF, 1, *(uint32_t *)(memory + BUF + 4), dump);
        fclose(dump);
    }
    make_pc(state);
}

static void dom0_with_many_vcpus(void **state)
{
    enum { BUF = 0x108000, BYTES = 0x4000, VCPUS = 300 };
    uint64_t rsdp;

    assert_int_equal(parse(NULL, 0), 0);
    assert_int_equal(acpi_build_dom0_tables(&info, VCPUS, memory + BUF, BYTES, BUF, &rsdp), 0);
    assert_int_equal(parse(memory + rsdp, 36), 0);
    assert_int_equal(info.nr_cpus, VCPUS);
    assert_int_equal(info.cpu[127].apic_id, 254);
    assert_int_equal(info.cpu[299].apic_id, 598);
    assert_int_equal(info.cpu[299].uid, 299);
    make_pc(state);
}

static void dom0_tables_need_their_room(void **state)
{
    uint64_t rsdp;
    int rc = -ENOSPC;
    size_t bytes;

    (void)state;
    assert_int_equal(parse(NULL, 0), 0);
    assert_int_equal(acpi_build_dom0_tables(&info, 1, memory, 4096, 8, &rsdp), -EINVAL);
    for (bytes = 0; rc == -ENOSPC; bytes++) {
        uint8_t *buf = malloc(bytes ? bytes : 1);

        rc = acpi_build_dom0_tables(&info, 2, buf, bytes, 0x100000, &rsdp);
        free(buf);
    }
    assert_int_equal(rc, 0);
    assert_int_equal(rsdp - 0x100000 + 36, bytes - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pc),
        cmocka_unit_test(fadt),
        cmocka_unit_test(finding_the_rsdp),
        cmocka_unit_test(broken_tables),
        cmocka_unit_test(more_than_fits),
        cmocka_unit_test(noise_stays_in_bounds),
        cmocka_unit_test(dom0_reads_what_was_built),
        cmocka_unit_test(dom0_with_many_vcpus),
        cmocka_unit_test(dom0_tables_need_their_room),
    };

    return cmocka_run_group_tests(tests, make_pc, NULL);
}
