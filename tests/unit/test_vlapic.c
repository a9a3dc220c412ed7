/* sources: vmm/platform/v*.c vmm/platform/platform.c vmm/platform/save.c */
/* test_vlapic.c: SDM 3A, chapter 10: registers, priorities, IPIs, modes and the timer. */
#include "platform_stubs.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#define X2APIC_MSR(offset) (0x800u + ((offset) >> 4))

static void enable_all(void)
{
    for (unsigned i = 0; i < NR_VCPUS; i++)
        apic_enable(i);
}

static void x2apic(unsigned vcpu)
{
    uint64_t base = vlapic_base_msr(&vcpus[vcpu]);
    assert_int_equal(vlapic_set_base_msr(&vcpus[vcpu], base | APIC_BASE_EXTD), 0);
}

static uint64_t x2_read(unsigned vcpu, unsigned offset)
{
    uint64_t val = 0;
    assert_int_equal(vlapic_x2apic_read(&vcpus[vcpu], X2APIC_MSR(offset), &val), 0);
    return val;
}

static void reset_state(void **state)
{
    (void)state;
    assert_int_equal(apic_read(0, LAPIC_VERSION), 0x50014);
    assert_int_equal(apic_read(0, LAPIC_SVR), 0xff);
    assert_int_equal(apic_read(0, LAPIC_DFR), 0xffffffff);
    for (unsigned i = 0; i < NR_VCPUS; i++) {
        assert_int_equal(apic_read(i, LAPIC_ID), 2 * i << 24);
        assert_int_equal(vlapic_id(&vcpus[i]), 2 * i);
        assert_int_equal(vlapic_base_msr(&vcpus[i]), 0xfee00800 | (i ? 0 : 0x100));
    }
    for (unsigned r = LAPIC_LVT_TIMER; r <= LAPIC_LVT_ERROR; r += 16)
        assert_int_equal(apic_read(0, r), 0x10000);
    assert_int_equal(apic_read(0, 0x2f0), 0); /* no CMCI entry */
    apic_write(0, LAPIC_ID, 0xaa000000);
    assert_int_equal(apic_read(0, LAPIC_ID), 0);
}

static void priorities(void **state)
{
    (void)state;
    apic_enable(0);
    vlapic_set_irq(&vcpus[0], 0x41, false);
    vlapic_set_irq(&vcpus[0], 0x45, false);
    vlapic_set_irq(&vcpus[0], 0x91, false);
    vlapic_set_irq(&vcpus[0], 0xe3, false);
    assert_int_equal(kicks[0], 4);
    vlapic_set_irq(&vcpus[0], 0xe3, false);
    assert_int_equal(kicks[0], 4); /* already waiting: nobody is bothered */
    assert_int_equal(take(0), 0xe3);
    assert_int_equal(apic_read(0, LAPIC_PPR), 0xe0);
    assert_int_equal(pending(0), -1);
    eoi(0);
    assert_int_equal(take(0), 0x91);
    vlapic_set_irq(&vcpus[0], 0x9f, false);
    assert_int_equal(pending(0), -1); /* same class waits */
    eoi(0);
    assert_int_equal(take(0), 0x9f);
    eoi(0);
    apic_write(0, LAPIC_TPR, 0x45);
    assert_int_equal(apic_read(0, LAPIC_PPR), 0x45);
    assert_int_equal(pending(0), -1);
    vcpus[0].work = 0;
    apic_write(0, LAPIC_TPR, 0x30);
    assert_int_equal(vcpus[0].work & VWORK_EVENT, VWORK_EVENT);
    assert_int_equal(take(0), 0x45);
    vlapic_set_irq(&vcpus[0], 0x45, false); /* IRR and ISR at once */
    eoi(0);
    assert_int_equal(take(0), 0x45);
    eoi(0);
    assert_int_equal(take(0), 0x41);
    eoi(0);
    eoi(0); /* one too many */
    assert_int_equal(pending(0), -1);
    assert_int_equal(vcpus[0].vlapic->irr_summary, 0);
    assert_int_equal(vcpus[0].vlapic->isr_summary, 0);
}

static void registers_show_vectors(void **state)
{
    (void)state;
    apic_enable(0);
    vlapic_set_irq(&vcpus[0], 0x65, true);
    assert_int_equal(apic_read(0, LAPIC_IRR + 0x30), 1u << 5);
    assert_int_equal(apic_read(0, LAPIC_TMR + 0x30), 1u << 5);
    assert_int_equal(take(0), 0x65);
    assert_int_equal(apic_read(0, LAPIC_IRR + 0x30), 0);
    assert_int_equal(apic_read(0, LAPIC_ISR + 0x30), 1u << 5);
    eoi(0);
    assert_int_equal(apic_read(0, LAPIC_ISR + 0x30), 0);
    vlapic_set_irq(&vcpus[0], 0x65, false);
    assert_int_equal(apic_read(0, LAPIC_TMR + 0x30), 0);
}

static void software_disabled(void **state)
{
    (void)state;
    vlapic_set_irq(&vcpus[0], 0x41, false);
    assert_int_equal(pending(0), -1);
    apic_write(0, LAPIC_LVT_TIMER, 0x41);
    assert_int_equal(apic_read(0, LAPIC_LVT_TIMER), 0x10041);
    apic_enable(0);
    apic_write(0, LAPIC_LVT_TIMER, 0x41);
    assert_int_equal(apic_read(0, LAPIC_LVT_TIMER), 0x41);
    apic_write(0, LAPIC_SVR, 0xff);
    assert_int_equal(apic_read(0, LAPIC_LVT_TIMER), 0x10041);
    apic_write(1, LAPIC_ICR2, 0);
    apic_write(1, LAPIC_ICR, 0x400); /* NMIs get through */
    assert_int_equal(nmis[0], 1);
}

static void ipi_physical(void **state)
{
    (void)state;
    enable_all();
    apic_write(0, LAPIC_ICR2, 4u << 24);
    apic_write(0, LAPIC_ICR, 0x4052);
    assert_int_equal(take(2), 0x52);
    assert_int_equal(pending(0), -1);
    assert_int_equal(pending(1), -1);
    assert_int_equal(apic_read(0, LAPIC_ICR), 0x4052); /* delivery status idle */
    apic_write(0, LAPIC_ICR2, 5u << 24);               /* nobody */
    apic_write(0, LAPIC_ICR, 0x4053);
    apic_write(0, LAPIC_ICR2, 0xffu << 24);
    apic_write(0, LAPIC_ICR, 0x4054);
    for (unsigned i = 0; i < NR_VCPUS; i++)
        assert_int_equal(pending(i), i == 2 ? -1 : 0x54);
}

static void ipi_shorthands(void **state)
{
    (void)state;
    enable_all();
    apic_write(1, LAPIC_ICR, 0x44061); /* self */
    assert_int_equal(pending(1), 0x61);
    assert_int_equal(pending(0), -1);
    apic_write(1, LAPIC_ICR, 0x84071); /* all */
    apic_write(1, LAPIC_ICR, 0xc4081); /* others */
    assert_int_equal(pending(1), 0x71);
    assert_int_equal(pending(0), 0x81);
    assert_int_equal(pending(3), 0x81);
}

static void ipi_logical_flat(void **state)
{
    (void)state;
    enable_all();
    for (unsigned i = 0; i < NR_VCPUS; i++)
        apic_write(i, LAPIC_LDR, 1u << (24 + i));
    apic_write(0, LAPIC_ICR2, 0x0au << 24);
    apic_write(0, LAPIC_ICR, 0x4841);
    assert_int_equal(pending(0), -1);
    assert_int_equal(pending(1), 0x41);
    assert_int_equal(pending(2), -1);
    assert_int_equal(pending(3), 0x41);
}

static void ipi_logical_cluster(void **state)
{
    (void)state;
    enable_all();
    for (unsigned i = 0; i < NR_VCPUS; i++) {
        apic_write(i, LAPIC_DFR, 0x0fffffff);
        apic_write(i, LAPIC_LDR, (i / 2 << 4 | 1u << i % 2) << 24);
    }
    apic_write(0, LAPIC_ICR2, 0x13u << 24);
    apic_write(0, LAPIC_ICR, 0x4841);
    assert_int_equal(pending(0), -1);
    assert_int_equal(pending(1), -1);
    assert_int_equal(pending(2), 0x41);
    assert_int_equal(pending(3), 0x41);
    apic_write(0, LAPIC_ICR2, 0x02u << 24);
    apic_write(0, LAPIC_ICR, 0x4842);
    assert_int_equal(pending(1), 0x42);
    assert_int_equal(pending(0), -1);
}

static void ipi_lowest_priority(void **state)
{
    unsigned got[NR_VCPUS] = {0};
    (void)state;
    enable_all();
    apic_write(0, LAPIC_TPR, 0x20);
    apic_write(2, LAPIC_TPR, 0x20);
    for (unsigned n = 0; n < 40; n++) {
        apic_write(0, LAPIC_ICR2, 0xffu << 24);
        apic_write(0, LAPIC_ICR, 0x4141);
        for (unsigned i = 0; i < NR_VCPUS; i++) {
            if (take(i) == 0x41) {
                got[i]++;
                eoi(i);
            }
        }
    }
    assert_int_equal(got[0] + got[2], 0);
    assert_int_equal(got[1], 20); /* in turn among equals */
    assert_int_equal(got[3], 20);
}

static void ipi_init_sipi_nmi(void **state)
{
    (void)state;
    enable_all();
    apic_write(0, LAPIC_ICR2, 2u << 24);
    apic_write(0, LAPIC_ICR, 0xc500); /* INIT, level, assert */
    assert_int_equal(inits[1], 1);
    apic_write(0, LAPIC_ICR, 0x8500); /* de-assert */
    assert_int_equal(inits[1], 1);
    apic_write(0, LAPIC_ICR, 0x4608);
    assert_int_equal(sipis[1], 1);
    assert_int_equal(sipi_vector[1], 8);
    apic_write(0, LAPIC_ICR, 0xc4400); /* NMI to all others */
    assert_int_equal(nmis[0], 0);
    assert_int_equal(nmis[1] + nmis[2] + nmis[3], 3);
    apic_write(0, LAPIC_ICR, 0x84400); /* all including self is not allowed for it */
    assert_int_equal(nmis[0], 0);
    apic_write(0, LAPIC_ICR, 0xc4500);
    assert_int_equal(inits[0], 0);
    assert_int_equal(inits[3], 1);
}

static void errors(void **state)
{
    (void)state;
    enable_all();
    apic_write(0, LAPIC_LVT_ERROR, 0xfe);
    apic_write(0, LAPIC_ICR, 0x4405f); /* NMI to self: reserved, nothing */
    apic_write(0, LAPIC_ICR, 0x4400e); /* fixed mode, vector 14 */
    assert_int_equal(apic_read(0, LAPIC_ESR), 0);
    apic_write(0, LAPIC_ESR, 0);
    assert_int_equal(apic_read(0, LAPIC_ESR), 0x20);
    apic_write(0, LAPIC_ESR, 0);
    assert_int_equal(apic_read(0, LAPIC_ESR), 0);
    assert_int_equal(take(0), 0xfe);
    eoi(0);
    vlapic_set_irq(&vcpus[0], 5, false);
    apic_read(0, 0x40);
    apic_write(0, LAPIC_ESR, 0);
    assert_int_equal(apic_read(0, LAPIC_ESR), 0xc0);
}

static void base_msr_modes(void **state)
{
    struct vcpu *v = &vcpus[1];
    const uint64_t base = LAPIC_DEFAULT_BASE, en = APIC_BASE_EN, x2 = APIC_BASE_EXTD;
    uint64_t val;
    (void)state;
    assert_int_equal(vlapic_set_base_msr(v, base | x2), -EINVAL);
    assert_int_equal(vlapic_set_base_msr(v, base | en | 1), -EINVAL);
    assert_int_equal(vlapic_set_base_msr(v, base | en | BIT(41)), -EINVAL);
    assert_int_equal(vlapic_x2apic_read(v, X2APIC_MSR(LAPIC_ID), &val), -EINVAL);
    apic_enable(1);
    assert_int_equal(vlapic_set_base_msr(v, base | en | x2), 0);
    assert_false(platform_mmio_claims(v, base));
    assert_int_equal(x2_read(1, LAPIC_ID), 2);
    assert_int_equal(x2_read(1, LAPIC_LDR), 0x4);
    assert_int_equal(x2_read(1, LAPIC_SVR), 0x1ff); /* state is kept */
    assert_int_equal(vlapic_set_base_msr(v, base | en), -EINVAL);
    assert_int_equal(vlapic_set_base_msr(v, base), 0);
    assert_int_equal(vlapic_set_base_msr(v, base | en | x2), -EINVAL);
    assert_int_equal(vlapic_set_base_msr(v, 0x80000000 | en), 0);
    assert_false(platform_mmio_claims(v, base));
    assert_int_equal(mem_read(1, 0x80000000 + LAPIC_SVR, 4), 0xff); /* reset */
    assert_int_equal(mem_read(1, 0x80000000 + LAPIC_ID, 4), 2 << 24);
}

static void x2apic_registers(void **state)
{
    struct vcpu *v = &vcpus[0];
    uint64_t val;
    (void)state;
    x2apic(0);
    assert_int_equal(vlapic_x2apic_write(v, X2APIC_MSR(LAPIC_SVR), 0x1ff), 0);
    assert_int_equal(vlapic_x2apic_write(v, X2APIC_MSR(LAPIC_SVR), 0x10000), -EINVAL);
    assert_int_equal(vlapic_x2apic_write(v, X2APIC_MSR(LAPIC_TPR), 0x100), -EINVAL);
    assert_int_equal(vlapic_x2apic_write(v, X2APIC_MSR(LAPIC_EOI), 1), -EINVAL);
    assert_int_equal(vlapic_x2apic_read(v, X2APIC_MSR(LAPIC_EOI), &val), -EINVAL);
    assert_int_equal(vlapic_x2apic_read(v, X2APIC_MSR(LAPIC_DFR), &val), -EINVAL);
    assert_int_equal(vlapic_x2apic_read(v, X2APIC_MSR(LAPIC_ICR2), &val), -EINVAL);
    assert_int_equal(vlapic_x2apic_write(v, X2APIC_MSR(LAPIC_ID), 0), -EINVAL);
    assert_int_equal(vlapic_x2apic_write(v, X2APIC_MSR(LAPIC_ICR), BIT(13)), -EINVAL);
    assert_int_equal(vlapic_x2apic_read(v, 0x8ff, &val), -EINVAL);
    assert_int_equal(vlapic_x2apic_write(v, 0x8ff, 0), -EINVAL);
    assert_int_equal(vlapic_x2apic_write(v, X2APIC_MSR(LAPIC_SELF_IPI), 0x77), 0);
    assert_int_equal(take(0), 0x77);
    assert_int_equal(vlapic_x2apic_write(v, X2APIC_MSR(LAPIC_EOI), 0), 0);
    assert_int_equal(vcpus[0].vlapic->isr_summary, 0);
    assert_int_equal(vlapic_x2apic_write(v, X2APIC_MSR(LAPIC_ICR), 6ULL << 32 | 0x55), 0);
    assert_int_equal(x2_read(0, LAPIC_ICR), 6ULL << 32 | 0x55);
}

static void x2apic_ipis(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_VCPUS; i++) {
        apic_enable(i);
        x2apic(i);
    }
    vlapic_x2apic_write(&vcpus[0], X2APIC_MSR(LAPIC_ICR), 6ULL << 32 | 0x55);
    assert_int_equal(take(3), 0x55);
    vlapic_x2apic_write(&vcpus[0], X2APIC_MSR(LAPIC_ICR), 0x14ULL << 32 | 0x841);
    assert_int_equal(pending(0), -1);
    assert_int_equal(pending(1), 0x41); /* ids 2 and 4 of cluster 0 */
    assert_int_equal(pending(2), 0x41);
    vlapic_x2apic_write(&vcpus[0], X2APIC_MSR(LAPIC_ICR), 0x10001ULL << 32 | 0x842);
    assert_int_equal(pending(0), -1); /* cluster 1 is empty */
    vlapic_x2apic_write(&vcpus[0], X2APIC_MSR(LAPIC_ICR), 0xffffffffULL << 32 | 0x61);
    for (unsigned i = 0; i < NR_VCPUS; i++)
        assert_int_equal(pending(i), i == 3 ? 0x61 : 0x61);
}

/* Senders on other processors against the owner: each waits until its vector was taken before it
 * sends it again, so a single lost one stops the test. */
#define SENDS 20000
static uint32_t sent[2], got_vector[2];

static void *sender(void *arg)
{
    unsigned n = (unsigned)(uintptr_t)arg;
    for (uint32_t i = 0; i < SENDS; i++) {
        atomic_store(&sent[n], i + 1);
        vlapic_set_irq(&vcpus[0], (uint8_t)(0x50 + 0x10 * n), false); /* words 2 and 3 */
        while (atomic_load(&got_vector[n]) != i + 1)
            sched_yield();
    }
    return NULL;
}

static void concurrent_senders(void **state)
{
    pthread_t t[2];
    time_t end = time(NULL) + 60;
    (void)state;
    apic_enable(0);
    memset(sent, 0, sizeof(sent));
    memset(got_vector, 0, sizeof(got_vector));
    for (uintptr_t n = 0; n < 2; n++)
        assert_int_equal(pthread_create(&t[n], NULL, sender, (void *)n), 0);
    while (got_vector[0] < SENDS || got_vector[1] < SENDS) {
        int vector = take(0);
        if (vector < 0) {
            assert_true(time(NULL) < end);
            sched_yield();
            continue;
        }
        unsigned n = (unsigned)(vector - 0x50) / 0x10;
        eoi(0);
        assert_int_equal(got_vector[n] + 1, atomic_load(&sent[n])); /* never one too many */
        atomic_store(&got_vector[n], got_vector[n] + 1);
    }
    for (unsigned n = 0; n < 2; n++)
        pthread_join(t[n], NULL);
    assert_int_equal(pending(0), -1);
}

static void timer_oneshot(void **state)
{
    (void)state;
    apic_enable(0);
    apic_write(0, LAPIC_TDCR, 0x3); /* 16: 160 ns a count */
    apic_write(0, LAPIC_LVT_TIMER, 0xef);
    apic_write(0, LAPIC_TMICT, 1000);
    run_ns(160 * 400);
    assert_int_equal(apic_read(0, LAPIC_TMCCT), 600);
    run_ns(160 * 599);
    assert_int_equal(pending(0), -1);
    run_ns(160);
    assert_int_equal(take(0), 0xef);
    eoi(0);
    assert_int_equal(apic_read(0, LAPIC_TMCCT), 0);
    run_ns(NS_PER_SEC);
    assert_int_equal(pending(0), -1);
    apic_write(0, LAPIC_TMICT, 1000);
    apic_write(0, LAPIC_TMICT, 0); /* stop */
    run_ns(NS_PER_SEC);
    assert_int_equal(pending(0), -1);
}

static void timer_divisors(void **state)
{
    static const struct {
        uint8_t code, divisor;
    } table[] = {{0, 2}, {1, 4}, {2, 8}, {3, 16}, {8, 32}, {9, 64}, {10, 128}, {11, 1}};
    (void)state;
    apic_enable(0);
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        apic_write(0, LAPIC_TDCR, table[i].code);
        assert_int_equal(apic_read(0, LAPIC_TDCR), table[i].code);
        apic_write(0, LAPIC_TMICT, 1000000);
        run_ns(10ULL * table[i].divisor * 1000);
        assert_int_equal(apic_read(0, LAPIC_TMCCT), 999000);
    }
}

static void timer_periodic(void **state)
{
    unsigned n = 0;
    (void)state;
    apic_enable(0);
    apic_write(0, LAPIC_TDCR, 0xb);
    apic_write(0, LAPIC_LVT_TIMER, 0x200ef);
    apic_write(0, LAPIC_TMICT, 100000); /* 1 ms */
    run_ns(1);
    for (unsigned i = 0; i < 100; i++) {
        run_ns(NS_PER_MS);
        if (take(0) == 0xef) {
            eoi(0);
            n++;
        }
    }
    assert_int_equal(n, 100);
    run_ns(100 *
           NS_PER_MS); /* untaken: they follow, twenty times as fast, and no more than there were */
    n = 0;
    for (unsigned i = 0; i < 600; i++) {
        run_ns(NS_PER_MS / 20);
        if (take(0) == 0xef) {
            eoi(0);
            n++;
        }
    }
    assert_in_range(n, 129, 131); /* 100 ms and 30 ms */
    apic_write(0, LAPIC_LVT_TIMER, 0x300ef);
    timers_fired = 0;
    run_ns(100 * NS_PER_MS);
    assert_int_equal(timers_fired, 0); /* masked: the host is left alone */
    run_ns(NS_PER_MS / 4);
    assert_in_range(apic_read(0, LAPIC_TMCCT), 74990, 75010); /* but it counts */
    apic_write(0, LAPIC_LVT_TIMER, 0x200ef);
    run_ns(NS_PER_MS);
    assert_int_equal(take(0), 0xef);
}

static void timer_no_storm(void **state)
{
    (void)state;
    apic_enable(0);
    apic_write(0, LAPIC_TDCR, 0xb);
    apic_write(0, LAPIC_LVT_TIMER, 0x200ef);
    apic_write(0, LAPIC_TMICT, 1);
    timers_fired = 0;
    run_ns(100 * NS_PER_MS);
    assert_in_range(timers_fired, 1, 2100);
}

static void timer_deadline(void **state)
{
    struct vcpu *v = &vcpus[0];
    (void)state;
    apic_enable(0);
    v->tsc_offset = 1000000;
    vlapic_set_tsc_deadline(v, clock_ns + 5000000);
    assert_int_equal(vlapic_tsc_deadline(v), 0); /* not in that mode */
    apic_write(0, LAPIC_LVT_TIMER, 0x400ee);
    uint64_t guest_now = clock_ns + v->tsc_offset;
    vlapic_set_tsc_deadline(v, guest_now + 5000000);
    assert_int_equal(vlapic_tsc_deadline(v), guest_now + 5000000);
    assert_int_equal(apic_read(0, LAPIC_TMCCT), 0);
    run_ns(4999999);
    assert_int_equal(pending(0), -1);
    run_ns(2);
    assert_int_equal(take(0), 0xee);
    eoi(0);
    assert_int_equal(vlapic_tsc_deadline(v), 0);
    vlapic_set_tsc_deadline(v, 1); /* long gone: at once */
    assert_int_equal(take(0), 0xee);
    eoi(0);
    vlapic_set_tsc_deadline(v, clock_ns + v->tsc_offset + 1000);
    vlapic_set_tsc_deadline(v, 0);
    run_ns(NS_PER_SEC);
    assert_int_equal(pending(0), -1);
    vlapic_set_tsc_deadline(v, clock_ns + v->tsc_offset + 1000);
    apic_write(0, LAPIC_LVT_TIMER, 0xee); /* leaving the mode disarms */
    run_ns(NS_PER_SEC);
    assert_int_equal(pending(0), -1);
    apic_write(0, LAPIC_LVT_TIMER, 0x400ee);
    vlapic_set_tsc_deadline(v, ~0ULL);
    assert_int_equal(pending(0), -1);
    v->domain->tsc_ratio = 1ULL << 47; /* half as many ticks as the host's */
    v->domain->tsc_khz = tsc_khz / 2;
    vlapic_set_tsc_deadline(v, clock_ns / 2 + v->tsc_offset + 1000);
    run_ns(1990);
    assert_int_equal(pending(0), -1);
    run_ns(20);
    assert_int_equal(take(0), 0xee);
    eoi(0);
    v->domain->tsc_ratio = 0;
}

static void mmio_widths(void **state)
{
    (void)state;
    apic_enable(0);
    assert_int_equal(mem_read(0, LAPIC_DEFAULT_BASE + LAPIC_VERSION + 2, 1), 0x05);
    assert_int_equal(mem_read(0, LAPIC_DEFAULT_BASE + LAPIC_VERSION, 2), 0x14);
    assert_int_equal(mem_read(0, LAPIC_DEFAULT_BASE + LAPIC_VERSION, 8), 0x50014);
    assert_int_equal(mem_read(0, LAPIC_DEFAULT_BASE + LAPIC_VERSION + 4, 4), 0);
    mem_write(0, LAPIC_DEFAULT_BASE + LAPIC_TPR, 1, 0x30);
    assert_int_equal(apic_read(0, LAPIC_TPR), 0x30);
    for (unsigned offset = 0; offset < 0x1000; offset++)
        for (unsigned bytes = 1; bytes <= 8; bytes *= 2) {
            mem_read(0, LAPIC_DEFAULT_BASE + offset, bytes);
            if (offset + bytes <= LAPIC_SVR)
                mem_write(0, LAPIC_DEFAULT_BASE + offset, bytes, 0);
        }
}

static void callback_vector_comes_first(void **state)
{
    (void)state;
    apic_enable(0);
    dom.callback_via_type = HVM_PARAM_CALLBACK_TYPE_VECTOR;
    dom.callback_via_data = 0xf3;
    vlapic_set_irq(&vcpus[0], 0x99, false);
    infos[0].evtchn_upcall_pending = 1;
    assert_int_equal(take(0), 0xf3);
    assert_int_equal(take(0), 0xf3); /* until the guest clears it */
    infos[0].evtchn_upcall_pending = 0;
    assert_int_equal(take(0), 0x99);
    infos[0].evtchn_upcall_pending = 1;
    vcpus[0].upcall_vector = 0xf4; /* comes through the LAPIC instead */
    assert_int_equal(pending(0), -1);
}

static void refused_upcall_is_repeated(void **state)
{
    (void)state;
    vcpus[0].upcall_vector = 0xf4;
    infos[0].evtchn_upcall_pending = 1;
    vlapic_set_irq(&vcpus[0], 0xf4, false); /* disabled by software: refused */
    assert_int_equal(pending(0), -1);
    apic_enable(0);
    assert_int_equal(take(0), 0xf4);
    eoi(0);
    apic_enable(0); /* enabled already: nothing to repeat */
    assert_int_equal(pending(0), -1);
}

static void init_keeps_identity(void **state)
{
    (void)state;
    apic_enable(1);
    apic_write(1, LAPIC_LVT_TIMER, 0x200ef);
    apic_write(1, LAPIC_TMICT, 1000);
    vlapic_set_irq(&vcpus[1], 0x44, false);
    x2apic(1);
    vlapic_init_reset(&vcpus[1]);
    assert_int_equal(vlapic_id(&vcpus[1]), 2);
    assert_int_equal(x2_read(1, LAPIC_LDR), 4);
    assert_int_equal(x2_read(1, LAPIC_SVR), 0xff);
    run_ns(NS_PER_SEC);
    vlapic_x2apic_write(&vcpus[1], X2APIC_MSR(LAPIC_SVR), 0x1ff);
    assert_int_equal(pending(1), -1);
    vlapic_set_irq(&vcpus[1], 0x44, false);
    assert_int_equal(pending(1), 0x44);
}

static void saved_and_loaded(void **state)
{
    struct hvm_hw_lapic hid;
    struct hvm_hw_lapic_regs regs;
    (void)state;
    apic_enable(1);
    apic_write(1, LAPIC_TDCR, 0xb);
    apic_write(1, LAPIC_LVT_TIMER, 0x200ef);
    apic_write(1, LAPIC_TMICT, 100000);
    vlapic_set_irq(&vcpus[1], 0x99, false);
    vlapic_set_irq(&vcpus[1], 0x55, false);
    assert_int_equal(take(1), 0x99);
    run_ns(NS_PER_MS / 4);
    assert_int_equal(vlapic_save(&vcpus[1], &hid), 0);
    assert_int_equal(vlapic_save_regs(&vcpus[1], &regs), 0);
    vlapic_reset(&vcpus[1]);
    run_ns(77 * NS_PER_MS);
    assert_int_equal(vlapic_load(&vcpus[1], &hid), 0);
    assert_int_equal(vlapic_load_regs(&vcpus[1], &regs), 0);
    assert_in_range(apic_read(1, LAPIC_TMCCT), 74990, 75000);
    assert_int_equal(pending(1), -1);
    eoi(1);
    assert_int_equal(take(1), 0x55);
    run_ns(NS_PER_MS * 3 / 4 + 10);
    assert_int_equal(take(1), 0xef);
    hid.apic_base_msr = APIC_BASE_EXTD;
    assert_int_equal(vlapic_load(&vcpus[1], &hid), -EINVAL);
}

static void saved_deadline(void **state)
{
    struct hvm_hw_lapic hid;
    struct hvm_hw_lapic_regs regs;
    (void)state;
    apic_enable(1);
    apic_write(1, LAPIC_LVT_TIMER, 0x400ef);
    vlapic_set_tsc_deadline(&vcpus[1], clock_ns + 5 * NS_PER_MS);
    vlapic_save(&vcpus[1], &hid);
    vlapic_save_regs(&vcpus[1], &regs);
    vlapic_reset(&vcpus[1]);
    vlapic_load(&vcpus[1], &hid); /* LVT comes only with the second record */
    vlapic_load_regs(&vcpus[1], &regs);
    run_ns(4 * NS_PER_MS);
    assert_int_equal(pending(1), -1);
    run_ns(2 * NS_PER_MS);
    assert_int_equal(pending(1), 0xef);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, world_up, world_down)
    const struct CMUnitTest tests[] = {
        T(reset_state),
        T(priorities),
        T(registers_show_vectors),
        T(software_disabled),
        T(ipi_physical),
        T(ipi_shorthands),
        T(ipi_logical_flat),
        T(ipi_logical_cluster),
        T(ipi_lowest_priority),
        T(ipi_init_sipi_nmi),
        T(errors),
        T(base_msr_modes),
        T(x2apic_registers),
        T(x2apic_ipis),
        T(concurrent_senders),
        T(timer_oneshot),
        T(timer_divisors),
        T(timer_periodic),
        T(timer_no_storm),
        T(timer_deadline),
        T(mmio_widths),
        T(callback_vector_comes_first),
        T(init_keeps_identity),
        T(refused_upcall_is_repeated),
        T(saved_and_loaded),
        T(saved_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
