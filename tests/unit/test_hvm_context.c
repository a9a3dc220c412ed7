/* sources: vmm/platform/v*.c vmm/platform/platform.c vmm/platform/save.c */
/* test_hvm_context.c: streams of records: what libxl's builder does with a fresh domain, a whole
 * domain's state through a stream and back, and streams that are wrong.
 */
#include "platform_stubs.h"

static struct hvm_hw_cpu cpu_loaded[NR_VCPUS];
static unsigned cpu_loads, mtrr_loads;

int hvm_cpu_save(struct vcpu *v, struct hvm_hw_cpu *out)
{
    out->rip = 0x1000 + v->id;
    return 0;
}
int hvm_cpu_load(struct vcpu *v, const struct hvm_hw_cpu *in)
{
    cpu_loaded[v->id] = *in;
    cpu_loads++;
    return in->cr0 == 0xbad ? -EINVAL : 0;
}
int hvm_mtrr_save(struct vcpu *v, struct hvm_hw_mtrr *out)
{
    (void)v;
    out->msr_mtrr_def_type = 0xc06;
    return 0;
}
int hvm_mtrr_load(struct vcpu *v, const struct hvm_hw_mtrr *in)
{
    (void)v;
    mtrr_loads++;
    assert_int_equal(in->msr_mtrr_def_type, 0xc06);
    return 0;
}
long hvm_msr_save(struct vcpu *v, void *buf, size_t bytes)
{
    struct hvm_msr *m = buf;
    if (!buf)
        return 8 + 5 * 16;
    assert_true(bytes >= 8 + 5 * 16);
    if (v->id)
        return -ENOENT;
    m->count = 1;
    m->msr[0].index = 0x48;
    return 8 + 16;
}

static uint64_t stream[2][8192];

/* The n-th record of a type in a stream, or NULL. */
static void *find(void *buf, unsigned code, unsigned instance)
{
    char *at = buf;
    for (;;) {
        struct hvm_save_descriptor *d = (void *)at;
        if (d->typecode == code && d->instance == instance)
            return d;
        if (d->typecode == 0)
            return NULL;
        at += sizeof(*d) + d->length;
    }
}

static unsigned count_records(void *buf)
{
    char *at = buf;
    for (unsigned n = 0;; n++) {
        struct hvm_save_descriptor *d = (void *)at;
        if (d->typecode == 0)
            return n;
        at += sizeof(*d) + d->length;
    }
}

static int up(void **state)
{
    world_up(state);
    cpu_loads = mtrr_loads = 0;
    for (unsigned i = 0; i < NR_VCPUS; i++)
        vcpus[i].block = VBLOCK_DOWN;
    return 0;
}

/* tools/libs/guest, xc_dom_x86.c: vcpu_hvm(). */
static void what_the_builder_does(void **state)
{
    struct {
        struct hvm_save_descriptor header_d;
        HVM_SAVE_TYPE(HEADER) header;
        struct hvm_save_descriptor cpu_d;
        HVM_SAVE_TYPE(CPU) cpu;
        struct hvm_save_descriptor end_d;
    } bsp;
    struct {
        struct hvm_save_descriptor header_d;
        HVM_SAVE_TYPE(HEADER) header;
        struct hvm_save_descriptor mtrr_d;
        HVM_SAVE_TYPE(MTRR) mtrr;
        struct hvm_save_descriptor end_d;
    } mtrr;
    (void)state;
    long size = hvm_context_save(&dom, NULL, 0);
    assert_in_range(size, 1, sizeof(stream[0]));
    long used = hvm_context_save(&dom, stream[0], (size_t)size);
    assert_in_range(used, 1, size);
    assert_null(find(stream[0], HVM_SAVE_CODE(CPU), 0)); /* none is up yet */
    assert_non_null(find(stream[0], HVM_SAVE_CODE(MTRR), 3));
    memset(&bsp, 0, sizeof(bsp));
    memcpy(&bsp, stream[0], sizeof(bsp.header_d) + sizeof(bsp.header));
    assert_int_equal(bsp.header.magic, HVM_FILE_MAGIC);
    bsp.cpu_d = (struct hvm_save_descriptor){HVM_SAVE_CODE(CPU), 0, sizeof(bsp.cpu)};
    bsp.cpu.cr0 = 0x11;
    bsp.cpu.rip = 0x100000;
    assert_int_equal(hvm_context_load(&dom, &bsp, sizeof(bsp)), sizeof(bsp));
    assert_int_equal(cpu_loads, 1);
    assert_int_equal(cpu_loaded[0].rip, 0x100000);
    memset(&mtrr, 0, sizeof(mtrr));
    memcpy(&mtrr, stream[0], sizeof(mtrr.header_d) + sizeof(mtrr.header));
    struct hvm_save_descriptor *d = find(stream[0], HVM_SAVE_CODE(MTRR), 0);
    memcpy(&mtrr.mtrr_d, d, sizeof(*d) + d->length);
    assert_int_equal(hvm_context_load(&dom, &mtrr, sizeof(mtrr)), sizeof(mtrr));
    assert_int_equal(mtrr_loads, 1);
}

static void whole_domain(void **state)
{
    (void)state;
    vcpus[0].block = vcpus[1].block = 0;
    pic_init();
    apic_enable(1);
    outb(0x21, 0xf0);
    platform_pci_intx(&dom, 3, 0, true);
    platform_pci_intx(&dom, 31, 3, true);
    platform_pci_link_route(&dom, 3, 11);
    platform_isa_irq(&dom, 4, true);
    set_rte(20, 0x61 | BIT(15) | BIT(16));
    vpmtmr_power_button(&dom);
    vlapic_set_irq(&vcpus[1], 0x77, false);
    long used = hvm_context_save(&dom, stream[0], sizeof(stream[0]));
    assert_in_range(used, 1, sizeof(stream[0]));
    assert_non_null(find(stream[0], HVM_SAVE_CODE(CPU), 1));
    assert_null(find(stream[0], HVM_SAVE_CODE(CPU), 2));
    assert_non_null(find(stream[0], HVM_SAVE_CODE(PIC), 1));
    assert_non_null(find(stream[0], CPU_MSR_CODE, 0));
    assert_null(find(stream[0], CPU_MSR_CODE, 1));
    /* header, 2 cpu, 2 pic, ioapic, 8 lapic, 3 lines, pit, rtc, hpet, pm, 4 mtrr, 1 msr */
    assert_int_equal(count_records(stream[0]), 1 + 2 + 2 + 1 + 8 + 3 + 4 + 4 + 1);

    world_down(state);
    world_up(state);
    vcpus[2].block = vcpus[3].block = VBLOCK_DOWN;
    assert_int_equal(hvm_context_load(&dom, stream[0], (size_t)used), used);
    assert_int_equal(cpu_loads, 2);
    assert_int_equal(cpu_loaded[1].rip, 0x1001);
    long again = hvm_context_save(&dom, stream[1], sizeof(stream[1]));
    assert_int_equal(again, used);
    assert_memory_equal(stream[0], stream[1], (size_t)used);
    assert_int_equal(take(1), 0x77);
    assert_int_equal(inb(0x21), 0xf0);
    /* The lines are where they were: letting go of them leaves nothing behind. */
    platform_pci_intx(&dom, 3, 0, false);
    platform_pci_intx(&dom, 31, 3, false);
    platform_isa_irq(&dom, 4, false);
    outb(0x1f40, 0xff);
    outb(0x1f41, 0xff);
    for (unsigned i = 0; i < NR_GUEST_GSIS; i++)
        assert_int_equal(dom.platform->lines.count[i], 0);
}

static void one_record(void **state)
{
    struct hvm_hw_lapic rec;
    (void)state;
    assert_int_equal(hvm_context_save_one(&dom, HVM_SAVE_CODE(LAPIC), 1, NULL, 0), sizeof(rec));
    assert_int_equal(hvm_context_save_one(&dom, HVM_SAVE_CODE(LAPIC), 1, &rec, sizeof(rec)),
                     sizeof(rec));
    assert_int_equal(rec.apic_base_msr, 0xfee00800);
    assert_int_equal(rec.disabled, 2); /* by software */
    assert_int_equal(hvm_context_save_one(&dom, HVM_SAVE_CODE(LAPIC), 1, &rec, 8), -ENOSPC);
    assert_int_equal(hvm_context_save_one(&dom, HVM_SAVE_CODE(LAPIC), 9, &rec, 99), -ENOENT);
    assert_int_equal(hvm_context_save_one(&dom, 99, 0, &rec, sizeof(rec)), -ENOENT);
    assert_int_equal(hvm_context_save_one(&dom, HVM_SAVE_CODE(CPU), 0, &rec, sizeof(rec)), -ENOSPC);
}

static void too_small_a_buffer(void **state)
{
    (void)state;
    long used = hvm_context_save(&dom, stream[0], sizeof(stream[0]));
    for (long bytes = 0; bytes < used; bytes += 8) {
        char *buf = malloc((size_t)bytes + 1);
        assert_int_equal(hvm_context_save(&dom, buf, (size_t)bytes), -ENOSPC);
        free(buf);
    }
}

static void malformed_streams(void **state)
{
    (void)state;
    long used = hvm_context_save(&dom, stream[0], sizeof(stream[0]));
    struct hvm_save_descriptor *d;
    for (long bytes = 0; bytes < used; bytes += 8) { /* cut short anywhere */
        char *buf = malloc((size_t)bytes + 1);
        memcpy(buf, stream[0], (size_t)bytes);
        assert_int_equal(hvm_context_load(&dom, buf, (size_t)bytes), -EINVAL);
        free(buf);
    }
    memcpy(stream[1], stream[0], (size_t)used);
    stream[1][1] ^= 1; /* magic */
    assert_int_equal(hvm_context_load(&dom, stream[1], (size_t)used), -EINVAL);
    memcpy(stream[1], stream[0], (size_t)used);
    d = find(stream[1], HVM_SAVE_CODE(PIT), 0);
    d->instance = 1;
    assert_int_equal(hvm_context_load(&dom, stream[1], (size_t)used), -EINVAL);
    d->instance = 0;
    d->typecode = 77;
    assert_int_equal(hvm_context_load(&dom, stream[1], (size_t)used), -EINVAL);
    d->typecode = HVM_SAVE_CODE(VIRIDIAN_DOMAIN);
    assert_int_equal(hvm_context_load(&dom, stream[1], (size_t)used), used);
    d->typecode = HVM_SAVE_CODE(PIT);
    d->length -= 8;
    assert_int_equal(hvm_context_load(&dom, stream[1], (size_t)used), -EINVAL);
    d = (void *)stream[0]; /* no header */
    assert_int_equal(hvm_context_load(&dom, (char *)d + 32, (size_t)used - 32), -EINVAL);
}

/* Whatever a stream holds, the devices survive being used afterwards. */
static void random_states(void **state)
{
    uint32_t seed = 17;
    (void)state;
    long used = hvm_context_save(&dom, stream[0], sizeof(stream[0]));
    for (unsigned round = 0; round < 3000; round++) {
        memcpy(stream[1], stream[0], (size_t)used);
        for (unsigned i = 0; i < 40; i++) {
            seed = seed * 1664525 + 1013904223;
            size_t at = 32 + (seed >> 8) % (size_t)(used - 40);
            ((uint8_t *)stream[1])[at] = (uint8_t)(seed >> 3);
        }
        struct hvm_save_descriptor *d = find(stream[0], HVM_SAVE_CODE(MTRR), 0);
        size_t mtrr_at = (size_t)((char *)d - (char *)stream[0]);
        size_t mtrr_bytes = NR_VCPUS * (sizeof(*d) + d->length);
        memcpy((char *)stream[1] + mtrr_at, d, mtrr_bytes);
        for (char *at = (char *)stream[0]; ((struct hvm_save_descriptor *)at)->typecode;) {
            struct hvm_save_descriptor *from = (void *)at; /* keep the stream well-formed */
            memcpy((char *)stream[1] + (at - (char *)stream[0]), from, sizeof(*from));
            at += sizeof(*from) + from->length;
        }
        hvm_context_load(&dom, stream[1], (size_t)used);
        for (unsigned i = 0; i < NR_VCPUS; i++)
            if (take(i) >= 0)
                vlapic_eoi(&vcpus[i]);
        run_ns(NS_PER_MS);
        for (uint16_t port = 0x40; port < 0x43; port++)
            inb(port);
        uint64_t val;
        for (unsigned offset = 0; offset < 0x180; offset += 8)
            platform_mmio(&vcpus[0], VHPET_BASE + offset, 8, false, &val);
        assert_true(hvm_context_save(&dom, stream[1], sizeof(stream[1])) > 0);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, up, world_down)
    const struct CMUnitTest tests[] = {
        T(what_the_builder_does), T(whole_domain),      T(one_record),
        T(too_small_a_buffer),    T(malformed_streams), T(random_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
