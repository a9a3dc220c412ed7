/* acpi.c: walk firmware's static tables with bounds; write dom0's. */
#include "core/acpi.h"

#include "core/errno.h"
#include "core/string.h"

enum {
    HEADER_BYTES = 36,  /* 5.2.6: every table's header */
    RSDP_V1_BYTES = 20, /* 5.2.5.3 */
    RSDP_V2_BYTES = 36,
    RSDP_REVISION = 15,
    MADT_ENTRIES = 44,    /* offset of the first interrupt controller structure, 5.2.12 */
    TABLE_MAX = 4u << 20, /* a longer table than this is a broken one */
    ISA_BUS = 0,
    NMI_ALL_CPUS = 0xff,
};

struct acpi_info acpi_info;

/* --- reading; a field past the end reads as 0, as if an older table had left it out --- */

struct bytes {
    const uint8_t *p;
    size_t n;
};

static uint64_t field(struct bytes b, size_t offset, size_t width)
{
    uint64_t v = 0;

    if (offset <= b.n && width <= b.n - offset)
        memcpy(&v, b.p + offset, width);
    return v;
}

static uint8_t get8(struct bytes b, size_t offset)
{
    return (uint8_t)field(b, offset, 1);
}

static uint16_t get16(struct bytes b, size_t offset)
{
    return (uint16_t)field(b, offset, 2);
}

static uint32_t get32(struct bytes b, size_t offset)
{
    return (uint32_t)field(b, offset, 4);
}

static uint64_t get64(struct bytes b, size_t offset)
{
    return field(b, offset, 8);
}

static uint8_t byte_sum(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;

    while (n--)
        sum = (uint8_t)(sum + *p++);
    return sum;
}

/* Read the header at pa. False when it cannot be mapped or its length is impossible. */
static bool read_header(acpi_map_fn map, uint64_t pa, struct acpi_table *table)
{
    struct bytes h = {.p = pa ? map(pa, HEADER_BYTES) : NULL, .n = HEADER_BYTES};

    if (!h.p)
        return false;
    memcpy(table->signature, h.p, sizeof(table->signature));
    table->bytes = get32(h, 4);
    table->pa = pa;
    return table->bytes >= HEADER_BYTES && table->bytes <= TABLE_MAX;
}

/* All of a table, checksummed. False when that cannot be. */
static bool read_table(acpi_map_fn map, const struct acpi_table *table, struct bytes *out)
{
    out->p = map(table->pa, table->bytes);
    out->n = table->bytes;
    return out->p && byte_sum(out->p, out->n) == 0;
}

static bool has_signature(const struct acpi_table *table, const char *signature)
{
    return memcmp(table->signature, signature, sizeof(table->signature)) == 0;
}

/* --- RSDP (5.2.5) --- */

static bool rsdp_is_sound(const uint8_t *p, size_t n)
{
    return n >= RSDP_V1_BYTES && memcmp(p, "RSD PTR ", 8) == 0 && byte_sum(p, RSDP_V1_BYTES) == 0;
}

/* Search [pa, pa + bytes) at its 16-byte boundaries; *rsdp is what is there from the RSDP on. */
static bool search_rsdp(acpi_map_fn map, uint64_t pa, size_t bytes, struct bytes *rsdp)
{
    const uint8_t *p = map(pa, bytes);

    for (size_t i = 0; p && i + RSDP_V1_BYTES <= bytes; i += 16) {
        if (rsdp_is_sound(p + i, bytes - i)) {
            *rsdp = (struct bytes){.p = p + i, .n = bytes - i};
            return true;
        }
    }
    return false;
}

static bool find_rsdp(acpi_map_fn map, struct bytes *rsdp)
{
    enum { EBDA_SEGMENT_AT = 0x40e, EBDA_SEARCH = 1024, BIOS = 0xe0000, BIOS_BYTES = 0x20000 };
    struct bytes bda = {.p = map(EBDA_SEGMENT_AT, 2), .n = 2};
    uint64_t ebda = bda.p ? (uint64_t)get16(bda, 0) << 4 : 0;

    if (ebda >= 0x400 && search_rsdp(map, ebda, EBDA_SEARCH, rsdp))
        return true;
    return search_rsdp(map, BIOS, BIOS_BYTES, rsdp);
}

/* --- XSDT or RSDT (5.2.7, 5.2.8) --- */

static bool read_root(acpi_map_fn map, uint64_t pa, const char *signature, struct bytes *root)
{
    struct acpi_table table;

    return read_header(map, pa, &table) && has_signature(&table, signature) &&
           read_table(map, &table, root);
}

/* Whether the RSDP is of the second version, whole, and with a right second checksum. */
static bool has_sound_xsdt_pointer(struct bytes rsdp)
{
    uint32_t n = get32(rsdp, RSDP_V1_BYTES);

    return get8(rsdp, RSDP_REVISION) >= 2 && n >= RSDP_V2_BYTES && n <= rsdp.n &&
           byte_sum(rsdp.p, n) == 0;
}

static int list_tables(acpi_map_fn map, struct bytes rsdp, struct acpi_info *info)
{
    enum { RSDT_AT = 16, XSDT_AT = 24 };
    struct bytes root;
    size_t width = 8;

    info->revision = get8(rsdp, RSDP_REVISION);
    if (!has_sound_xsdt_pointer(rsdp) || !read_root(map, get64(rsdp, XSDT_AT), "XSDT", &root)) {
        width = 4;
        if (!read_root(map, get32(rsdp, RSDT_AT), "RSDT", &root))
            return -EINVAL;
    }
    for (size_t at = HEADER_BYTES; at + width <= root.n; at += width) {
        uint64_t pa = field(root, at, width);

        if (info->nr_tables == ACPI_MAX_TABLES)
            info->nr_dropped++;
        else if (read_header(map, pa, &info->tables[info->nr_tables]))
            info->nr_tables++;
        else
            info->nr_bad += pa != 0;
    }
    return 0;
}

/* --- MADT (5.2.12) --- */

/* The next free element of an array of the info, or NULL and a drop counted. */
#define NEW_ELEMENT(info, array, count)                                                            \
    ((info)->count < ARRAY_SIZE((info)->array) ? &(info)->array[(info)->count++]                   \
                                               : ((info)->nr_dropped++, NULL))

static void add_lapic(struct acpi_info *info, uint32_t apic_id, uint32_t uid, uint32_t flags)
{
    struct acpi_cpu *l;

    for (unsigned i = 0; i < info->nr_cpus; i++) {
        if (info->cpu[i].apic_id != apic_id)
            continue;
        if (!info->cpu[i].enabled && (flags & 1)) /* an unused slot's id was a placeholder */
            info->cpu[i] = (struct acpi_cpu){.apic_id = apic_id, .uid = uid, .enabled = true};
        return;
    }
    l = NEW_ELEMENT(info, cpu, nr_cpus);
    if (l)
        *l = (struct acpi_cpu){
            .apic_id = apic_id,
            .uid = uid,
            .enabled = flags & 1,
            .online_capable = !(flags & 1) && (flags & 2),
        };
}

static void madt_lapic(struct acpi_info *info, struct bytes e)
{
    add_lapic(info, get8(e, 3), get8(e, 2), get32(e, 4));
}

static void madt_x2apic(struct acpi_info *info, struct bytes e)
{
    add_lapic(info, get32(e, 4), get32(e, 12), get32(e, 8));
}

static void madt_ioapic(struct acpi_info *info, struct bytes e)
{
    struct acpi_ioapic *io = NEW_ELEMENT(info, ioapics, nr_ioapics);

    if (io)
        *io = (struct acpi_ioapic){.id = get8(e, 2), .pa = get32(e, 4), .gsi_base = get32(e, 8)};
}

static void madt_override(struct acpi_info *info, struct bytes e)
{
    struct acpi_override *o = NEW_ELEMENT(info, overrides, nr_overrides);

    if (o)
        *o = (struct acpi_override){
            .bus = get8(e, 2), .irq = get8(e, 3), .gsi = get32(e, 4), .flags = get16(e, 8)};
}

static void madt_nmi_source(struct acpi_info *info, struct bytes e)
{
    struct acpi_nmi_source *n = NEW_ELEMENT(info, nmi_sources, nr_nmi_sources);

    if (n)
        *n = (struct acpi_nmi_source){.flags = get16(e, 2), .gsi = get32(e, 4)};
}

static void add_lapic_nmi(struct acpi_info *info, uint32_t uid, uint16_t flags, uint8_t lint)
{
    struct acpi_lapic_nmi *n = NEW_ELEMENT(info, lapic_nmis, nr_lapic_nmis);

    if (n)
        *n = (struct acpi_lapic_nmi){.uid = uid, .flags = flags, .lint = lint};
}

static void madt_lapic_nmi(struct acpi_info *info, struct bytes e)
{
    add_lapic_nmi(info, get8(e, 2), get16(e, 3), get8(e, 5));
}

static void madt_x2apic_nmi(struct acpi_info *info, struct bytes e)
{
    uint32_t uid = get32(e, 4);

    add_lapic_nmi(info, uid == UINT32_MAX ? (uint32_t)NMI_ALL_CPUS : uid, get16(e, 2), get8(e, 8));
}

static void madt_lapic_address(struct acpi_info *info, struct bytes e)
{
    info->lapic_pa = get64(e, 4);
}

enum madt_type { /* 5.2.12, table 5.21 */
                 MADT_LAPIC = 0,
                 MADT_IOAPIC = 1,
                 MADT_OVERRIDE = 2,
                 MADT_NMI_SOURCE = 3,
                 MADT_LAPIC_NMI = 4,
                 MADT_LAPIC_ADDRESS = 5,
                 MADT_X2APIC = 9,
                 MADT_X2APIC_NMI = 10,
};

static const struct madt_entry {
    uint8_t bytes; /* the least it must have; other types have none and are passed over */
    void (*read)(struct acpi_info *info, struct bytes e);
} madt_entries[] = {
    [MADT_LAPIC] = {8, madt_lapic},         [MADT_IOAPIC] = {12, madt_ioapic},
    [MADT_OVERRIDE] = {10, madt_override},  [MADT_NMI_SOURCE] = {8, madt_nmi_source},
    [MADT_LAPIC_NMI] = {6, madt_lapic_nmi}, [MADT_LAPIC_ADDRESS] = {12, madt_lapic_address},
    [MADT_X2APIC] = {16, madt_x2apic},      [MADT_X2APIC_NMI] = {12, madt_x2apic_nmi},
};

static void read_madt(struct acpi_info *info, struct bytes t)
{
    info->lapic_pa = get32(t, 36);
    info->pcat_compat = get32(t, 40) & 1;
    for (size_t at = MADT_ENTRIES; at + 2 <= t.n;) {
        uint8_t type = t.p[at];
        struct bytes e = {.p = t.p + at, .n = t.p[at + 1]};

        if (e.n < 2 || e.n > t.n - at) { /* where the next one starts is not known */
            info->nr_bad++;
            return;
        }
        if (type < ARRAY_SIZE(madt_entries) && madt_entries[type].read) {
            if (e.n >= madt_entries[type].bytes)
                madt_entries[type].read(info, e);
            else
                info->nr_bad++;
        }
        at += e.n;
    }
}

/* --- the other tables --- */

static void read_mcfg(struct acpi_info *info, struct bytes t)
{
    enum { FIRST = 44, ENTRY_BYTES = 16 };

    for (size_t at = FIRST; at + ENTRY_BYTES <= t.n; at += ENTRY_BYTES) {
        struct acpi_segment *s = NEW_ELEMENT(info, segments, nr_segments);

        if (s)
            *s = (struct acpi_segment){
                .pa = get64(t, at),
                .segment = get16(t, at + 8),
                .first_bus = get8(t, at + 10),
                .last_bus = get8(t, at + 11),
            };
    }
}

static struct acpi_gas get_gas(struct bytes t, size_t at)
{
    return (struct acpi_gas){
        .space = get8(t, at), .bits = get8(t, at + 1), .address = get64(t, at + 4)};
}

/* A register block's port: the X_ field when it is filled in, else the old 32-bit one. */
static uint16_t block_port(struct bytes t, size_t old_at, size_t gas_at)
{
    struct acpi_gas gas = get_gas(t, gas_at);
    uint64_t port = gas.address ? gas.address : get32(t, old_at);

    if (gas.address && gas.space != ACPI_SPACE_IO)
        return 0;
    return port <= UINT16_MAX ? (uint16_t)port : 0;
}

static void read_fadt(struct acpi_info *info, struct bytes t) /* 5.2.9 */
{
    enum { TMR_VAL_EXT = 1 << 8, RESET_REG_SUP = 1 << 10 };
    struct acpi_fadt *f = &info->fadt;

    f->present = true;
    f->flags = get32(t, 112);
    f->sci_irq = get16(t, 46);
    f->smi_cmd_port = get32(t, 48);
    f->acpi_enable = get8(t, 52);
    f->pm1a_evt_port = block_port(t, 56, 148);
    f->pm1b_evt_port = block_port(t, 60, 160);
    f->pm1_evt_bytes = get8(t, 88);
    f->pm1a_cnt_port = block_port(t, 64, 172);
    f->pm1b_cnt_port = block_port(t, 68, 184);
    info->pm_timer_port = block_port(t, 76, 208);
    if (info->pm_timer_port)
        info->pm_timer_bits = f->flags & TMR_VAL_EXT ? 32 : 24;
    f->century = get8(t, 108);
    f->boot_arch = get16(t, 109);
    if (f->flags & RESET_REG_SUP) {
        f->reset = get_gas(t, 116);
        f->reset_value = get8(t, 128);
    }
    f->facs_pa = get64(t, 132) ? get64(t, 132) : get32(t, 36);
    f->dsdt_pa = get64(t, 140) ? get64(t, 140) : get32(t, 40);
}

static void read_hpet(struct acpi_info *info, struct bytes t) /* IA-PC HPET 1.0a, 3.2.4 */
{
    struct acpi_gas gas = get_gas(t, 40);

    if (gas.space == ACPI_SPACE_MEMORY && info->hpet_base == 0)
        info->hpet_base = gas.address;
}

static const struct {
    const char *signature;
    void (*read)(struct acpi_info *info, struct bytes t);
} readers[] = {
    {"APIC", read_madt},
    {"FACP", read_fadt},
    {"HPET", read_hpet},
    {"MCFG", read_mcfg},
};

/* Read the first table of each kind, as an operating system does. */
static void read_tables(acpi_map_fn map, struct acpi_info *info)
{
    for (size_t i = 0; i < ARRAY_SIZE(readers); i++) {
        const struct acpi_table *table = acpi_find_table(info, readers[i].signature);
        struct bytes t;

        if (!table)
            continue;
        if (read_table(map, table, &t))
            readers[i].read(info, t);
        else
            info->nr_bad++;
    }
}

static void note_iommu(acpi_map_fn map, struct acpi_info *info, const char *signature, uint64_t *pa,
                       uint32_t *bytes)
{
    const struct acpi_table *table = acpi_find_table(info, signature);
    struct bytes t;

    if (!table)
        return;
    if (!read_table(map, table, &t)) {
        info->nr_bad++;
        return;
    }
    *pa = table->pa;
    *bytes = table->bytes;
}

/* --- questions --- */

const struct acpi_table *acpi_find_table(const struct acpi_info *info, const char *signature)
{
    for (unsigned i = 0; i < info->nr_tables; i++)
        if (has_signature(&info->tables[i], signature))
            return &info->tables[i];
    return NULL;
}

uint32_t acpi_isa_gsi(const struct acpi_info *info, uint8_t irq, uint16_t *flags)
{
    for (unsigned i = 0; i < info->nr_overrides; i++) {
        const struct acpi_override *o = &info->overrides[i];

        if (o->bus == ISA_BUS && o->irq == irq) {
            *flags = o->flags;
            return o->gsi;
        }
    }
    *flags = 0;
    return irq;
}

int acpi_parse(acpi_map_fn map, const void *rsdp, size_t rsdp_bytes, struct acpi_info *out)
{
    struct bytes r = {.p = rsdp, .n = rsdp_bytes};
    int rc;

    memset(out, 0, sizeof(*out));
    if (rsdp ? !rsdp_is_sound(rsdp, rsdp_bytes) : !find_rsdp(map, &r))
        return -ENOENT;
    rc = list_tables(map, r, out);
    if (rc)
        return rc;
    read_tables(map, out);
    note_iommu(map, out, "DMAR", &out->dmar_pa, &out->dmar_bytes);
    note_iommu(map, out, "IVRS", &out->ivrs_pa, &out->ivrs_bytes);
    return out->nr_cpus ? 0 : -ENOENT;
}

/* --- dom0's tables --- */

struct writer {
    uint8_t *p;
    size_t used, room;
};

static void put(struct writer *w, uint64_t value, size_t width)
{
    if (width <= w->room - MIN(w->used, w->room))
        memcpy(w->p + w->used, &value, width);
    w->used += width;
}

static void put_text(struct writer *w, const char *text, size_t width)
{
    for (size_t i = 0; i < width; i++)
        put(w, (uint8_t)text[i], 1);
}

static void align_to(struct writer *w, size_t align)
{
    while (w->used % align)
        put(w, 0, 1);
}

/* Give the table at `start` its length and checksum. Returns whether all of it fitted. */
static bool finish_table(struct writer *w, size_t start)
{
    uint32_t bytes = (uint32_t)(w->used - start);

    if (w->used > w->room)
        return false;
    memcpy(w->p + start + 4, &bytes, sizeof(bytes));
    w->p[start + 9] = (uint8_t)-byte_sum(w->p + start, bytes);
    return true;
}

static void put_header(struct writer *w, const char *signature, uint8_t revision)
{
    put_text(w, signature, 4);
    put(w, 0, 4); /* length: finish_table */
    put(w, revision, 1);
    put(w, 0, 1); /* checksum */
    put_text(w, "RNGFNC", 6);
    put_text(w, "RINGFENC", 8);
    put(w, 1, 4);
    put_text(w, "RGFC", 4);
    put(w, 1, 4);
}

/* Interrupts, timers and DMA remapping are Ringfence's; the tables of memory's affinity and power
 * speak of the machine's CPUs and RAM, not of dom0's. */
static bool is_hidden(const struct acpi_table *table)
{
    static const char hidden[][5] = {"APIC", "HPET", "DMAR", "IVRS",
                                     "SLIT", "SRAT", "MPST", "PMTT"};

    for (size_t i = 0; i < ARRAY_SIZE(hidden); i++)
        if (has_signature(table, hidden[i]))
            return true;
    return false;
}

static void put_vcpu(struct writer *w, unsigned vcpu)
{
    uint32_t apic_id = 2 * vcpu;

    if (apic_id < 255 && vcpu < 255) {
        put(w, MADT_LAPIC, 1);
        put(w, 8, 1);
        put(w, vcpu, 1);
        put(w, apic_id, 1);
        put(w, 1, 4); /* enabled */
        return;
    }
    put(w, MADT_X2APIC, 1);
    put(w, 16, 1);
    put(w, 0, 2);
    put(w, apic_id, 4);
    put(w, 1, 4);
    put(w, vcpu, 4);
}

static void put_interrupt_sources(struct writer *w, const struct acpi_info *info)
{
    for (unsigned i = 0; i < info->nr_ioapics; i++) {
        put(w, MADT_IOAPIC, 1);
        put(w, 12, 1);
        put(w, info->ioapics[i].id, 2);
        put(w, info->ioapics[i].pa, 4);
        put(w, info->ioapics[i].gsi_base, 4);
    }
    for (unsigned i = 0; i < info->nr_overrides; i++) {
        put(w, MADT_OVERRIDE, 1);
        put(w, 10, 1);
        put(w, info->overrides[i].bus, 1);
        put(w, info->overrides[i].irq, 1);
        put(w, info->overrides[i].gsi, 4);
        put(w, info->overrides[i].flags, 2);
    }
    for (unsigned i = 0; i < info->nr_nmi_sources; i++) {
        put(w, MADT_NMI_SOURCE, 1);
        put(w, 8, 1);
        put(w, info->nmi_sources[i].flags, 2);
        put(w, info->nmi_sources[i].gsi, 4);
    }
}

/* PCAT_COMPAT stays clear: a PVH domain has no 8259s. */
static bool put_madt(struct writer *w, const struct acpi_info *info, unsigned nr_vcpus)
{
    enum { REVISION = 3, LAPIC_PA = 0xfee00000u };
    size_t start = w->used;

    put_header(w, "APIC", REVISION);
    put(w, LAPIC_PA, 4);
    put(w, 0, 4);
    for (unsigned i = 0; i < nr_vcpus; i++)
        put_vcpu(w, i);
    put_interrupt_sources(w, info);
    return finish_table(w, start);
}

static bool put_xsdt(struct writer *w, const struct acpi_info *info, uint64_t madt_pa)
{
    size_t start = w->used;

    put_header(w, "XSDT", 1);
    put(w, madt_pa, 8);
    for (unsigned i = 0; i < info->nr_tables; i++)
        if (!is_hidden(&info->tables[i]))
            put(w, info->tables[i].pa, 8);
    return finish_table(w, start);
}

static bool put_rsdp(struct writer *w, uint64_t xsdt_pa)
{
    size_t start = w->used;

    put_text(w, "RSD PTR ", 8);
    put(w, 0, 1); /* checksum of the first 20 bytes */
    put_text(w, "RNGFNC", 6);
    put(w, 2, 1); /* revision */
    put(w, 0, 4); /* no RSDT */
    put(w, RSDP_V2_BYTES, 4);
    put(w, xsdt_pa, 8);
    put(w, 0, 4); /* checksum of all, and reserved */
    if (w->used > w->room)
        return false;
    w->p[start + 8] = (uint8_t)-byte_sum(w->p + start, RSDP_V1_BYTES);
    w->p[start + 32] = (uint8_t)-byte_sum(w->p + start, RSDP_V2_BYTES);
    return true;
}

int acpi_build_dom0_tables(const struct acpi_info *info, unsigned nr_vcpus, void *buf,
                           size_t buf_bytes, uint64_t buf_pa, uint64_t *rsdp_pa)
{
    struct writer w = {.p = buf, .room = buf_bytes};
    uint64_t madt_pa = buf_pa, xsdt_pa;

    if (buf_pa % 16)
        return -EINVAL;
    if (!put_madt(&w, info, nr_vcpus))
        return -ENOSPC;
    align_to(&w, 16);
    xsdt_pa = buf_pa + w.used;
    if (!put_xsdt(&w, info, madt_pa))
        return -ENOSPC;
    align_to(&w, 16);
    *rsdp_pa = buf_pa + w.used;
    return put_rsdp(&w, xsdt_pa) ? 0 : -ENOSPC;
}
