/* sources: vmm/domain/pvtime.c vmm/domain/vcpu_op.c */
/* test_pvtime.c: the guest's formula applied to what pvtime.c publishes must give now_ns(), at any
 * TSC frequency, after any uptime, on every vCPU; wall clock and runstate land where each width
 * looks for them; and VCPUOP_* checks its arguments.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "core/x86.h"
#include "domain/evtchn.h"
#include "domain/hvm.h"
#include "domain/pvtime.h"

struct cpu host_test_cpu;
char *host_test_ram;
struct page_info *frame_table;
static uint64_t frac = (1000000ULL << 32) / 2400000; /* ns a tick, 32.32 */
uint64_t tsc_khz = 2400000;
static uint64_t fake_now, wallclock_ns;
static unsigned virqs, nmis, shutdowns, initialises, info_maps;
static struct domain dom;
static struct vcpu vcpu[2];
static struct shared_info shinfo;

/* ---- what the rest of the hypervisor gives ---- */
void panic(const char *fmt, ...)
{
    (void)fmt;
    abort();
}
uint64_t tsc_to_ns(uint64_t tsc)
{
    return (uint64_t)((unsigned __int128)tsc * frac >> 32);
}
uint64_t now_ns(void)
{
    return fake_now ? fake_now : tsc_to_ns(rdtsc());
}
uint64_t wallclock_boot_ns(void)
{
    return wallclock_ns;
}
bool evtchn_has_vcpu_info(const struct vcpu *v)
{
    return v->info != NULL;
}
int evtchn_map_vcpu_info(struct vcpu *v, gfn_t gfn, unsigned offset)
{
    (void)v, (void)gfn, (void)offset;
    info_maps++;
    return 0;
}
void send_vcpu_virq(struct vcpu *v, unsigned virq)
{
    (void)v;
    virqs += virq == VIRQ_TIMER;
}
void vcpu_nmi(struct vcpu *v)
{
    (void)v;
    nmis++;
}
int copy_from_guest(void *dst, uint64_t gva, size_t bytes)
{
    if (gva < PAGE_SIZE)
        return -EFAULT;
    memcpy(dst, (void *)gva, bytes);
    return 0;
}
int copy_to_guest(uint64_t gva, const void *src, size_t bytes)
{
    if (gva < PAGE_SIZE)
        return -EFAULT;
    memcpy((void *)gva, src, bytes);
    return 0;
}
long hypercall_missing(struct vcpu *v, const char *group, unsigned op, long err)
{
    (void)v, (void)group, (void)op;
    return err;
}
void vcpu_block(struct vcpu *v, uint32_t bits)
{
    v->block |= bits;
}
void vcpu_unblock(struct vcpu *v, uint32_t bits)
{
    v->block &= ~bits;
}
void vcpu_sleep_sync(struct vcpu *v)
{
    assert_true(v != current_vcpu());
}
void vcpu_runstate_get(struct vcpu *v, struct vcpu_runstate_info *out)
{
    *out = v->runstate;
}
void domain_shutdown(struct domain *d, int reason)
{
    (void)d;
    shutdowns += reason == SHUTDOWN_poweroff;
}
int vcpu_hvm_initialise(struct vcpu *v, const struct vcpu_hvm_context *ctx)
{
    (void)v;
    initialises++;
    return ctx->cpu_regs.x86_64.rip ? 0 : -EINVAL;
}
void timer_init(struct timer *t, void (*fn)(void *), void *data, unsigned cpu)
{
    *t = (struct timer){.fn = fn, .data = data, .cpu = cpu, .expires_ns = TIME_NEVER};
}
void timer_set(struct timer *t, uint64_t expires_ns)
{
    t->expires_ns = expires_ns;
}
void timer_stop(struct timer *t)
{
    t->expires_ns = TIME_NEVER;
}
void timer_kill(struct timer *t)
{
    timer_stop(t);
}
void timer_migrate(struct timer *t, unsigned cpu)
{
    t->cpu = cpu;
}

/* One page of guest RAM, which the guest's page tables have where the test has it. */
static uint64_t cr(struct vcpu *v, unsigned n)
{
    (void)v, (void)n;
    return 0;
}
static uint64_t efer(struct vcpu *v)
{
    (void)v;
    return 0;
}
static const struct hvm_ops fake_ops = {.get_cr = cr, .get_efer = efer};
const struct hvm_ops *hvm_ops = &fake_ops;
static bool walk_fails;
int guest_walk(struct domain *d, const struct gwalk_mode *m, uint64_t linear, unsigned access,
               paddr_t *gpa, uint32_t *pfec)
{
    (void)d, (void)m, (void)access, (void)pfec;
    *gpa = linear & ~PAGE_MASK;
    return walk_fails ? -EFAULT : 0;
}
struct page_info *p2m_get_page(struct domain *d, gfn_t gfn, bool write, enum p2m_type *t)
{
    (void)d, (void)write;
    assert_int_equal(gfn, 0);
    *t = P2M_RAM;
    frame_table[0].refs++;
    return &frame_table[0];
}
void page_put(struct page_info *pg)
{
    assert_true(pg->refs > 1);
    pg->refs--;
}

static uint64_t random_state = 77;
static uint64_t rnd(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* The formula of <xen/xen.h>. */
static uint64_t guest_clock(const struct vcpu_time_info *t, uint64_t guest_tsc)
{
    uint64_t delta = guest_tsc - t->tsc_timestamp;

    delta = t->tsc_shift < 0 ? delta >> -t->tsc_shift : delta << t->tsc_shift;
    return t->system_time + (uint64_t)((unsigned __int128)delta * t->tsc_to_system_mul >> 32);
}

static void setup(void)
{
    memset(&dom, 0, sizeof(dom));
    memset(vcpu, 0, sizeof(vcpu));
    memset(&shinfo, 0, sizeof(shinfo));
    fake_now = 0;
    virqs = nmis = shutdowns = initialises = info_maps = 0;
    dom.max_vcpus = 2;
    dom.shared_info = &shinfo;
    for (unsigned i = 0; i < 2; i++) {
        vcpu[i].id = i;
        vcpu[i].domain = &dom;
        vcpu[i].info = &shinfo.vcpu_info[i];
        dom.vcpu[i] = &vcpu[i];
        vcpu_op_init(&vcpu[i]);
    }
    vcpu[1].block = VBLOCK_DOWN;
    host_test_cpu.curr = &vcpu[0];
}

/* ---- tests ---- */
static void formula(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200000; i++) {
        uint64_t khz = 10000 + rnd() % 6000000, offset = rnd();
        uint64_t per_tick = (1000000ULL << 32) / khz;
        uint64_t boot_tsc = rnd() >> (1 + rnd() % 30);
        uint64_t uptime = rnd() % (khz * 1000 * 86400 * 365); /* ticks; a year */
        struct pvtime_anchor a = {.tsc = boot_tsc + rnd() % (khz * 1000)};
        struct vcpu_time_info t = {0}, t2 = {0};

#define NOW(tsc) ((uint64_t)((unsigned __int128)((tsc)-boot_tsc) * per_tick >> 32))
        a.ns = NOW(a.tsc);
        pvtime_fill(&t, &a, per_tick, offset);
        pvtime_fill(&t2, &a, per_tick, 0);
        uint64_t tsc = a.tsc + uptime, real = NOW(tsc), seen = guest_clock(&t, tsc + offset);
        /* Below 1 GHz the factor has 31 bits: within one part in 2^31. */
        uint64_t slack = 2 + (per_tick >> 32 ? real >> 30 : 0);

        assert_true(seen + slack >= real && seen <= real + slack);
        assert_int_equal(seen, guest_clock(&t2, tsc)); /* all vCPUs agree exactly */
        assert_int_equal(t.flags, XEN_PVCLOCK_TSC_STABLE_BIT);
        /* What Linux works the frequency out from. */
        uint64_t guest_khz = (1000000ULL << 32) / t.tsc_to_system_mul;
        guest_khz = t.tsc_shift < 0 ? guest_khz << -t.tsc_shift : guest_khz >> t.tsc_shift;
        assert_true(guest_khz + 1 + khz / 1000000 >= khz && guest_khz <= khz + 1 + khz / 1000000);
    }
}

static void vcpu_clock(void **state)
{
    struct vcpu_time_info *t = &shinfo.vcpu_info[0].time, copy = {.version = 7};
    struct vcpu_register_time_memory_area area = {.addr.p = (uint64_t)&copy};
    uint64_t arg[6] = {VCPUOP_register_vcpu_time_memory_area, 0, (uint64_t)&area};

    (void)state;
    setup();
    vcpu[0].tsc_offset = -123456789ULL;
    pvtime_update_vcpu(&vcpu[0]);
    assert_int_equal(t->version, 2);
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t before = now_ns(), seen = guest_clock(t, rdtsc() + vcpu[0].tsc_offset);
        uint64_t after = now_ns();
        /* The anchor's two readings are some ticks apart. */
        assert_true(seen + 2 >= before && seen <= after + 100000);
    }
    pvtime_update_vcpu(&vcpu[0]); /* nothing new: not written */
    pvtime_loaded(&vcpu[0]);
    assert_int_equal(t->version, 2);
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), 0);
    assert_int_equal(copy.version, 10);
    assert_int_equal(copy.tsc_timestamp, t->tsc_timestamp);
    vcpu[0].tsc_offset = 5;
    pvtime_update_vcpu(&vcpu[0]);
    assert_int_equal(t->version, 4);
    assert_int_equal(copy.version, 12);
    assert_int_equal(copy.tsc_timestamp, t->tsc_timestamp);
    memset(t, 0, sizeof(*t)); /* by the guest: it has its clock again at the next switch */
    pvtime_loaded(&vcpu[0]);
    assert_int_equal(t->version, 2);
    assert_int_equal(copy.version, 14);
    assert_int_equal(copy.tsc_timestamp, t->tsc_timestamp);
    area.addr.p = 8;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), -EFAULT);
    assert_int_equal(vcpu[0].time_info_gva, (uint64_t)&copy);
}

/* The same with the guest's TSC at two thirds of the host's rate. */
static void vcpu_clock_scaled(void **state)
{
    struct vcpu_time_info *t = &shinfo.vcpu_info[0].time;

    (void)state;
    setup();
    dom.tsc_ratio = (2ULL << 48) / 3;
    dom.tsc_khz = 1600000;
    vcpu[0].tsc_offset = -123456789ULL;
    pvtime_update_vcpu(&vcpu[0]);
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t before = now_ns(), seen = guest_clock(t, guest_tsc(&vcpu[0], rdtsc()));
        assert_true(seen + 10 >= before && seen <= now_ns() + 100000);
    }
    pvtime_loaded(&vcpu[0]); /* nothing new: not written */
    assert_int_equal(t->version, 2);
    dom.tsc_ratio = 0;
}

static void wallclock(void **state)
{
    uint32_t *narrow = (uint32_t *)((char *)&shinfo + 2304);

    (void)state;
    setup();
    wallclock_ns = (0x100000000ULL + 77) * NS_PER_SEC + 123456789; /* after 2106 */
    dom.time_offset_seconds = 3600;
    pvtime_update_wallclock(&dom);
    assert_int_equal(shinfo.wc_version, 2);
    assert_int_equal(shinfo.wc_sec, 77 + 3600);
    assert_int_equal(shinfo.wc_sec_hi, 1);
    assert_int_equal(shinfo.wc_nsec, 123456789);
    dom.has_32bit_shinfo = true;
    dom.time_offset_seconds = (uint64_t)-7;
    pvtime_update_wallclock(&dom);
    assert_int_equal(narrow[0], 2);
    assert_int_equal(narrow[1], 70);
    assert_int_equal(narrow[2], 123456789);
    assert_int_equal(*(uint32_t *)((char *)&shinfo + 2340), 1);
}

static void runstate(void **state)
{
    uint32_t area32[12] = {0};
    struct vcpu_register_runstate_memory_area reg;
    uint64_t arg[6] = {VCPUOP_register_runstate_memory_area, 0, (uint64_t)&reg};

    (void)state;
    host_test_ram = aligned_alloc(PAGE_SIZE, PAGE_SIZE);
    frame_table = calloc(1, sizeof(*frame_table));
    for (unsigned narrow = 0; narrow < 2; narrow++)
        for (walk_fails = false;; walk_fails = true) {
            struct vcpu_runstate_info *area = (void *)(host_test_ram + 128);
            setup();
            frame_table[0].refs = 1;
            memset(host_test_ram, 0, PAGE_SIZE);
            dom.has_32bit_shinfo = narrow;
            reg.addr.p = (uint64_t)area;
            vcpu[0].runstate = (struct vcpu_runstate_info){.state = RUNSTATE_running,
                                                           .state_entry_time = 1ULL << 40,
                                                           .time = {1, 2, 3, 4ULL << 33}};
            pvtime_loaded(&vcpu[0]); /* none registered */
            assert_int_equal(do_vcpu_op(&vcpu[0], arg), 0);
            assert_int_equal(frame_table[0].refs, walk_fails ? 1 : 2);
            vcpu[0].runstate.time[2] = 99;
            dom.vm_assist = 1 << VMASST_TYPE_runstate_update_flag;
            pvtime_loaded(&vcpu[0]);
            if (narrow) {
                uint32_t *words = (uint32_t *)area;
                assert_int_equal(words[2], 1 << 8);
                assert_int_equal(words[7], 99);
                assert_int_equal(words[11], 0);
            } else {
                assert_memory_equal(area, &vcpu[0].runstate, sizeof(*area)); /* flag down again */
            }
            if (walk_fails)
                break;
            reg.addr.p = (uint64_t)area + 64;
            assert_int_equal(do_vcpu_op(&vcpu[0], arg), 0);
            assert_int_equal(frame_table[0].refs, 2);
            reg.addr.p = 8;
            assert_int_equal(do_vcpu_op(&vcpu[0], arg), -EFAULT); /* the old one stays */
            assert_int_equal(vcpu[0].runstate_gva, (uint64_t)area + 64);
            vcpu_op_destroy(&vcpu[0]);
            assert_int_equal(frame_table[0].refs, 1);
            assert_null(vcpu[0].runstate_guest);
        }
    /* A 32-bit caller reads 44 bytes, packed. */
    walk_fails = false;
    arg[0] = VCPUOP_get_runstate_info;
    arg[2] = (uint64_t)area32;
    area32[11] = 0x5a5a5a5a;
    vcpu[0].compat = true;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), 0);
    vcpu[0].compat = false;
    assert_int_equal(area32[1], 0);
    assert_int_equal(area32[2], 1 << 8);
    assert_int_equal(area32[3], 1);
    assert_int_equal(area32[7], 99);
    assert_int_equal(area32[10], 8);
    assert_int_equal(area32[11], 0x5a5a5a5a);
    free(host_test_ram);
    free(frame_table);
}

static void timers(void **state)
{
    struct vcpu_set_singleshot_timer shot = {.timeout_abs_ns = 500, .flags = VCPU_SSHOTTMR_future};
    struct vcpu_set_periodic_timer period = {.period_ns = NS_PER_MS};
    uint64_t arg[6] = {VCPUOP_set_singleshot_timer, 0, (uint64_t)&shot};

    (void)state;
    setup();
    fake_now = 1000;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), -ETIME);
    shot.timeout_abs_ns = 2000;
    vcpu[0].sched.cpu = 3;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), 0);
    assert_int_equal(vcpu[0].singleshot.expires_ns, 2000);
    assert_int_equal(vcpu[0].singleshot.cpu, 3);
    arg[1] = 1;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), -EINVAL);
    vcpu[0].singleshot.fn(vcpu[0].singleshot.data);
    assert_int_equal(virqs, 1);
    uint64_t timer_arg[6] = {0x80000000, 0x10};
    assert_int_equal(do_set_timer_op(&vcpu[0], timer_arg), 0);
    assert_int_equal(vcpu[0].singleshot.expires_ns, 0x80000000);
    vcpu[0].compat = true;
    assert_int_equal(do_set_timer_op(&vcpu[0], timer_arg), 0);
    vcpu[0].compat = false;
    assert_int_equal(vcpu[0].singleshot.expires_ns, 0x1080000000);
    timer_arg[0] = 0;
    assert_int_equal(do_set_timer_op(&vcpu[0], timer_arg), 0);
    assert_true(vcpu[0].singleshot.expires_ns == TIME_NEVER);

    arg[0] = VCPUOP_set_periodic_timer;
    arg[2] = (uint64_t)&period;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), 0);
    assert_int_equal(vcpu[1].periodic.expires_ns, 1000 + NS_PER_MS);
    fake_now += NS_PER_MS;
    vcpu[1].periodic.fn(vcpu[1].periodic.data);
    assert_int_equal(virqs, 2);
    assert_int_equal(vcpu[1].periodic.expires_ns, 1000 + 2 * NS_PER_MS);
    arg[0] = VCPUOP_stop_periodic_timer;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), 0);
    vcpu[1].periodic.fn(vcpu[1].periodic.data); /* was about to run */
    assert_int_equal(virqs, 2);
    assert_true(vcpu[1].periodic.expires_ns == TIME_NEVER);
    arg[0] = VCPUOP_set_periodic_timer;
    period.period_ns = NS_PER_MS - 1;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), -EINVAL);
    vcpu_op_destroy(&vcpu[0]);
    vcpu_op_destroy(&vcpu[0]);
    struct vcpu never = {0};
    vcpu_op_destroy(&never);
}

static void up_and_down(void **state)
{
    struct vcpu_hvm_context ctx = {.mode = VCPU_HVM_MODE_64B};
    struct vcpu_register_vcpu_info info = {.mfn = 3, .offset = 64};
    uint64_t arg[6] = {VCPUOP_is_up, 1, (uint64_t)&ctx};

    (void)state;
    setup();
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), 0);
    arg[0] = VCPUOP_up;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), -EINVAL); /* nothing to start from */
    arg[0] = VCPUOP_initialise;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), -EINVAL);
    assert_false(vcpu[1].initialised);
    ctx.cpu_regs.x86_64.rip = 0x1000;
    ctx.mode = 2;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), -EINVAL);
    ctx.mode = VCPU_HVM_MODE_64B;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), 0);
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), -EEXIST);
    assert_int_equal(initialises, 2);
    arg[0] = VCPUOP_up;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), 0);
    arg[0] = VCPUOP_is_up;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), 1);
    arg[0] = VCPUOP_register_vcpu_info;
    arg[2] = (uint64_t)&info;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), -EINVAL); /* it runs, and is not the caller */
    arg[1] = 0;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), 0);
    assert_int_equal(info_maps, 1);
    arg[0] = VCPUOP_down;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), 0);
    assert_int_equal(shutdowns, 0);
    arg[1] = 1;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), 0);
    assert_int_equal(shutdowns, 1); /* that was the last */
    arg[0] = VCPUOP_send_nmi;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), 0);
    assert_int_equal(nmis, 1);
    arg[1] = 2;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), -ENOENT);
    arg[1] = 0;
    arg[0] = 77;
    assert_int_equal(do_vcpu_op(&vcpu[0], arg), -ENOSYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formula),           cmocka_unit_test(vcpu_clock),
        cmocka_unit_test(vcpu_clock_scaled), cmocka_unit_test(wallclock),
        cmocka_unit_test(runstate),          cmocka_unit_test(timers),
        cmocka_unit_test(up_and_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
