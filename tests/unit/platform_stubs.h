/* platform_stubs.h: a world for vmm/platform's devices on the host: one domain with NR_VCPUS vCPUs,
 * a clock that only moves when a test moves it, timers that fire in order as it does, and records
 * of what the devices asked of the rest of the hypervisor.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/inner.h"

#define NR_VCPUS 4

struct cpu host_test_cpu;
char *host_test_ram;
uint64_t tsc_khz = 1000000; /* 1 GHz: a tick a nanosecond */
unsigned p2m_gpa_bits = 40;

static struct domain dom;
static struct vcpu vcpus[NR_VCPUS];
static struct vcpu_info infos[NR_VCPUS];

void hvm_callback_update(struct vcpu *v)
{
    (void)v;
}

/* ---- clock and timers -------------------------------------------------------------------- */

static uint64_t clock_ns;
static struct timer *timers[64];
static unsigned nr_timers;
static unsigned timers_fired;

uint64_t now_ns(void)
{
    return clock_ns;
}
uint64_t host_tsc(void)
{
    return clock_ns;
}
uint64_t tsc_to_ns(uint64_t tsc)
{
    return tsc;
}
uint64_t wallclock_boot_ns(void)
{
    return 1700000000ULL * NS_PER_SEC; /* 2023-11-14 22:13:20 UTC, a Tuesday */
}

void timer_init(struct timer *t, void (*fn)(void *), void *data, unsigned cpu)
{
    memset(t, 0, sizeof(*t));
    t->expires_ns = TIME_NEVER;
    t->fn = fn;
    t->data = data;
    t->cpu = cpu;
    assert_true(nr_timers < ARRAY_SIZE(timers));
    timers[nr_timers++] = t;
}
void timer_set(struct timer *t, uint64_t expires_ns)
{
    assert_non_null(t->fn);
    t->expires_ns = expires_ns;
}
void timer_stop(struct timer *t)
{
    t->expires_ns = TIME_NEVER;
}
void timer_kill(struct timer *t)
{
    t->expires_ns = TIME_NEVER;
}
void timer_migrate(struct timer *t, unsigned cpu)
{
    t->cpu = cpu;
}

static struct timer *first_timer(void)
{
    struct timer *first = NULL;
    for (unsigned i = 0; i < nr_timers; i++)
        if (!first || timers[i]->expires_ns < first->expires_ns)
            first = timers[i];
    return first;
}

/* Move the clock to an absolute time, firing timers at theirs. */
static inline void run_to(uint64_t ns)
{
    for (unsigned guard = 0; guard < 1000000; guard++) {
        struct timer *t = first_timer();
        if (!t || t->expires_ns > ns)
            break;
        if (t->expires_ns > clock_ns)
            clock_ns = t->expires_ns;
        t->expires_ns = TIME_NEVER;
        timers_fired++;
        t->fn(t->data);
    }
    clock_ns = ns;
}
static inline void run_ns(uint64_t ns)
{
    run_to(clock_ns + ns);
}
/* Move the clock with no timer firing: a host that was busy. */
static inline void stall_ns(uint64_t ns)
{
    clock_ns += ns;
}

/* ---- the rest of the hypervisor ----------------------------------------------------------- */

static unsigned kicks[NR_VCPUS], nmis[NR_VCPUS], inits[NR_VCPUS], sipis[NR_VCPUS];
static uint8_t sipi_vector[NR_VCPUS];
static unsigned eoi_gsi_count, rte_count, eoi_gsi, rte_gsi;
static uint64_t rte_value;
static int64_t timeoffset;
static unsigned broadcasts;

void vcpu_kick(struct vcpu *v, uint32_t work)
{
    v->work |= work;
    kicks[v->id]++;
}
void vcpu_post(struct vcpu *v)
{
    vcpu_kick(v, VWORK_EVENT);
}
void vcpu_nmi(struct vcpu *v)
{
    nmis[v->id]++;
}
void vcpu_init_signal(struct vcpu *v)
{
    inits[v->id]++;
}
void vcpu_sipi(struct vcpu *v, uint8_t vector)
{
    sipis[v->id]++;
    sipi_vector[v->id] = vector;
}
void dom0_gsi_rte(unsigned gsi, uint64_t rte)
{
    rte_count++;
    rte_gsi = gsi;
    rte_value = rte;
}
void dom0_gsi_eoi(unsigned gsi)
{
    eoi_gsi_count++;
    eoi_gsi = gsi;
}
void ioreq_broadcast(struct domain *d, ioreq_t *p)
{
    (void)d;
    broadcasts++;
    timeoffset = (int64_t)p->data;
}
bool evtchn_upcall_pending(const struct vcpu *v)
{
    return v->info->evtchn_upcall_pending && !v->info->evtchn_upcall_mask;
}
void pvtime_update_wallclock(struct domain *d)
{
    (void)d;
}
void *kzalloc(size_t bytes)
{
    return calloc(1, bytes);
}
void kfree(void *p)
{
    free(p);
}
void *page_alloc(void)
{
    return calloc(1, PAGE_SIZE);
}
void page_free(void *va)
{
    free(va);
}
void panic(const char *fmt, ...)
{
    (void)fmt;
    abort();
}
void printk(enum log_level level, const char *fmt, ...)
{
    (void)level, (void)fmt;
}
void guest_printk(enum log_level level, const char *fmt, ...)
{
    (void)level, (void)fmt;
}

/* ---- the domain --------------------------------------------------------------------------- */

static inline void world_clear(void)
{
    memset(&dom, 0, sizeof(dom));
    memset(vcpus, 0, sizeof(vcpus));
    memset(infos, 0, sizeof(infos));
    memset(kicks, 0, sizeof(kicks));
    memset(nmis, 0, sizeof(nmis));
    memset(inits, 0, sizeof(inits));
    memset(sipis, 0, sizeof(sipis));
    nr_timers = timers_fired = 0;
    eoi_gsi_count = rte_count = broadcasts = 0;
    clock_ns = 5 * NS_PER_SEC;
}

static inline int world_with(uint32_t emulation, bool is_dom0)
{
    world_clear();
    dom.is_dom0 = is_dom0;
    dom.emulation_flags = emulation;
    dom.max_vcpus = NR_VCPUS;
    dom.hvm_params[HVM_PARAM_HPET_ENABLED] = 1;
    dom.hvm_params[HVM_PARAM_TIMER_MODE] = HVMPTM_no_delay_for_missed_ticks;
    assert_int_equal(platform_domain_init(&dom), 0);
    for (unsigned i = 0; i < NR_VCPUS; i++) {
        vcpus[i].id = i;
        vcpus[i].domain = &dom;
        vcpus[i].info = &infos[i];
        dom.vcpu[i] = &vcpus[i];
        assert_int_equal(platform_vcpu_init(&vcpus[i]), 0);
    }
    return 0;
}

static inline int world_up(void **state)
{
    (void)state;
    return world_with(XEN_X86_EMU_ALL & ~XEN_X86_EMU_VPCI, false);
}

static inline int world_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NR_VCPUS; i++)
        platform_vcpu_destroy(&vcpus[i]);
    platform_domain_destroy(&dom);
    for (unsigned i = 0; i < nr_timers; i++)
        assert_true(timers[i]->expires_ns == TIME_NEVER);
    for (unsigned i = 0; i < NR_VCPUS; i++)
        platform_vcpu_free(&vcpus[i]);
    platform_domain_free(&dom);
    return 0;
}

/* ---- what a guest does --------------------------------------------------------------------- */

static inline uint32_t port_in(uint16_t port, unsigned bytes)
{
    uint32_t val = 0xdeadbeef;
    assert_true(platform_pio(&vcpus[0], port, bytes, false, &val));
    return val;
}
static inline void port_out(uint16_t port, unsigned bytes, uint32_t val)
{
    assert_true(platform_pio(&vcpus[0], port, bytes, true, &val));
}
static inline uint8_t inb(uint16_t port)
{
    return (uint8_t)port_in(port, 1);
}
static inline void outb(uint16_t port, uint8_t val)
{
    port_out(port, 1, val);
}
static inline uint64_t mem_read(unsigned vcpu, paddr_t gpa, unsigned bytes)
{
    uint64_t val = 0xdeadbeefdeadbeefULL;
    assert_true(platform_mmio(&vcpus[vcpu], gpa, bytes, false, &val));
    return val;
}
static inline void mem_write(unsigned vcpu, paddr_t gpa, unsigned bytes, uint64_t val)
{
    assert_true(platform_mmio(&vcpus[vcpu], gpa, bytes, true, &val));
}
static inline uint32_t apic_read(unsigned vcpu, unsigned offset)
{
    return (uint32_t)mem_read(vcpu, LAPIC_DEFAULT_BASE + offset, 4);
}
static inline void apic_write(unsigned vcpu, unsigned offset, uint32_t val)
{
    mem_write(vcpu, LAPIC_DEFAULT_BASE + offset, 4, val);
}
static inline void apic_enable(unsigned vcpu)
{
    apic_write(vcpu, LAPIC_SVR, 0x1ff);
}
/* The vector v would take now, or -1; and take it. */
static inline int pending(unsigned vcpu)
{
    enum intr_source src;
    return platform_pending_interrupt(&vcpus[vcpu], &src);
}
static inline int take(unsigned vcpu)
{
    enum intr_source src;
    int vector = platform_pending_interrupt(&vcpus[vcpu], &src);
    return vector < 0 ? -1 : platform_accept_interrupt(&vcpus[vcpu], src, vector);
}
static inline void eoi(unsigned vcpu)
{
    apic_write(vcpu, LAPIC_EOI, 0);
}
static inline void ioapic_write(unsigned index, uint32_t val)
{
    mem_write(0, VIOAPIC_BASE, 4, index);
    mem_write(0, VIOAPIC_BASE + 0x10, 4, val);
}
static inline uint32_t ioapic_read(unsigned index)
{
    mem_write(0, VIOAPIC_BASE, 4, index);
    return (uint32_t)mem_read(0, VIOAPIC_BASE + 0x10, 4);
}
static inline void set_rte(unsigned pin, uint64_t rte)
{
    ioapic_write(0x11 + 2 * pin, (uint32_t)(rte >> 32));
    ioapic_write(0x10 + 2 * pin, (uint32_t)rte);
}
/* Both PICs as PC firmware leaves them: vectors 0x20 and 0x28, everything unmasked. */
static inline void pic_init(void)
{
    static const uint8_t icw[2][4] = {{0x11, 0x20, 0x04, 0x01}, {0x11, 0x28, 0x02, 0x01}};
    for (unsigned c = 0; c < 2; c++) {
        uint16_t base = c ? 0xa0 : 0x20;
        outb(base, icw[c][0]);
        for (unsigned i = 1; i < 4; i++)
            outb((uint16_t)(base + 1), icw[c][i]);
        outb((uint16_t)(base + 1), 0);
    }
    apic_enable(0);
    apic_write(0, LAPIC_LVT_LINT0, 0x700);
}
