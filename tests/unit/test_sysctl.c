/* sources: vmm/domain/sysctl*.c vmm/domain/platform_op.c vmm/domain/console_op.c */
/* test_sysctl.c: sysctl, platform_op and console_io: checks, sizes that do not fit, answers. */
#include "test_domctl_guest.h"

#include "core/console.h"
#include "domain/domctl.h"
#include "platform/platform.h"

unsigned nr_cpus = 2;
uint64_t sched_ratelimit_ns = 500 * NS_PER_US;
uint64_t tsc_khz = 1500000;
struct cpu *cpus[MAX_CPUS];
mfn_t max_mfn = 1 << 20;
struct page_info *frame_table;
char *host_test_ram;
static struct cpu two[2];
static char keys[64], out[1024];
static unsigned nr_keys, slept;
static uint64_t wall;
static int live;

void *kzalloc(size_t n)
{
    live++;
    return calloc(1, n);
}
void kfree(void *p)
{
    live -= p != NULL;
    free(p);
}
size_t console_ring_copy(char *dst, size_t max, uint32_t *index, bool incremental, bool clear)
{
    static const char ring[] = "hello, ring";
    uint32_t at = incremental ? *index : 0;
    size_t n = at < 11 ? MIN(11 - at, max) : 0;

    (void)clear;
    memcpy(dst, ring + at, n);
    *index = at + (uint32_t)n;
    return n;
}
void console_key(char c)
{
    keys[nr_keys++] = c;
}
void console_write_guest(struct domain *d, const char *buf, size_t n)
{
    assert_true(d->is_dom0);
    strncat(out, buf, n);
}
size_t console_read_guest(char *buf, size_t n)
{
    memset(buf, 'k', MIN(n, 5));
    return MIN(n, 5);
}
uint64_t heap_total_pages(void)
{
    return 1000;
}
uint64_t heap_free_pages(void)
{
    return 600;
}
uint64_t claimed_pages(const struct domain *except)
{
    assert_null(except);
    return 7;
}
void domain_getinfo(struct domain *d, struct xen_domctl_getdomaininfo *info)
{
    info->domain = d->id;
}
int bitmap_to_guest(const struct xenctl_bitmap *map, uint64_t bits, unsigned nr_bits)
{
    (void)nr_bits;
    return copy_to_guest((uint64_t)map->bitmap.p, &bits, (map->nr_bits + 7) / 8);
}
int cpuid_featureset(unsigned index, uint32_t words[CPUID_FEATURE_WORDS])
{
    memset(words, 0x44, CPUID_FEATURE_WORDS * 4);
    return index > 5 ? -EINVAL : 0;
}
int cpuid_policy_get_system(unsigned index, xen_cpuid_leaf_t *leaves, uint32_t *nr)
{
    (void)leaves;
    *nr = 3;
    return index == 5 ? 0 : -EOPNOTSUPP;
}
long cpu_policy_to_guest(int (*get)(const void *which, xen_cpuid_leaf_t *, uint32_t *),
                         const void *which, uint64_t leaves, uint32_t *nr_leaves, uint64_t msrs,
                         uint32_t *nr_msrs)
{
    (void)leaves;
    (void)msrs;
    *nr_msrs = 2;
    return get(which, NULL, nr_leaves);
}
void wallclock_set_boot_ns(uint64_t ns)
{
    wall = ns;
}
void pvtime_update_wallclock(struct domain *d)
{
    (void)d;
}
uint64_t now_ns(void)
{
    return 99;
}
int machine_acpi_sleep(unsigned state, uint16_t val_a, uint16_t val_b)
{
    (void)val_a;
    (void)val_b;
    slept = state;
    return -EBUSY;
}

static struct xen_sysctl op;
static struct xen_platform_op pf;

static int reset(void **state)
{
    (void)state;
    arena_reset();
    domains_reset();
    memset(&op, 0, sizeof(op));
    memset(&pf, 0, sizeof(pf));
    memset(out, 0, sizeof(out));
    nr_keys = live = 0;
    two[0].idle_ns = 11;
    two[1].idle_ns = 22;
    two[1].apic_id = 4;
    cpus[0] = &two[0];
    cpus[1] = &two[1];
    return 0;
}
static int audit(void **state)
{
    (void)state;
    assert_int_equal(live, 0);
    check_domain_refs();
    return 0;
}
static long ctl(uint32_t cmd)
{
    op.cmd = cmd;
    op.interface_version = XEN_SYSCTL_INTERFACE_VERSION;
    void *p = guest_alloc(&op, sizeof(op));
    long rc = call(do_sysctl, &vcpus[0], (uint64_t)p, 0);
    memcpy(&op, p, sizeof(op));
    return rc;
}
static long plat(uint32_t cmd)
{
    pf.cmd = cmd;
    pf.interface_version = XENPF_INTERFACE_VERSION;
    void *p = guest_alloc(&pf, sizeof(pf));
    long rc = call(do_platform_op, &vcpus[0], (uint64_t)p, 0);
    memcpy(&pf, p, sizeof(pf));
    return rc;
}

static void entry(void **state)
{
    (void)state;
    op.cmd = XEN_SYSCTL_physinfo;
    op.interface_version = XEN_SYSCTL_INTERFACE_VERSION;
    assert_int_equal(call(do_sysctl, &vcpus[1], (uint64_t)guest_alloc(&op, sizeof(op)), 0), -EPERM);
    assert_int_equal(call(do_sysctl, &vcpus[0], BAD_POINTER, 0), -EFAULT);
    op.interface_version = 1;
    assert_int_equal(call(do_sysctl, &vcpus[0], (uint64_t)guest_alloc(&op, sizeof(op)), 0),
                     -EACCES);
    assert_int_equal(ctl(0), -EOPNOTSUPP);
    assert_int_equal(ctl(XEN_SYSCTL_cpu_hotplug), -EOPNOTSUPP);
    assert_int_equal(ctl(~0u), -EOPNOTSUPP);
    assert_int_equal(ctl(XEN_SYSCTL_tbuf_op), -ENOSYS);
    assert_int_equal(ctl(XEN_SYSCTL_livepatch_op), -EOPNOTSUPP);
    for (uint32_t cmd = 0; cmd < 40; cmd++)
        for (int fill = 0; fill < 2; fill++) {
            memset(&op.u, fill ? 0xff : 0, sizeof(op.u));
            ctl(cmd);
            arena_used = 64;
            nr_keys = 0;
        }
}

static void machine(void **state)
{
    struct xen_sysctl_cputopo *t = guest_alloc(NULL, 4 * sizeof(*t));
    struct xen_sysctl_cpuinfo *i = guest_alloc(NULL, 4 * sizeof(*i));
    struct xen_domctl_getdomaininfo *d = guest_alloc(NULL, 4 * sizeof(*d));
    uint32_t *words = guest_alloc(NULL, 100);

    (void)state;
    assert_int_equal(ctl(XEN_SYSCTL_physinfo), 0);
    assert_int_equal(op.u.physinfo.nr_cpus, 2);
    assert_int_equal(op.u.physinfo.total_pages, 1000);
    assert_int_equal(op.u.physinfo.free_pages, 600);
    assert_int_equal(op.u.physinfo.outstanding_pages, 7);
    assert_true(op.u.physinfo.capabilities & XEN_SYSCTL_PHYSCAP_hvm);
    assert_int_equal(op.u.physinfo.capabilities & XEN_SYSCTL_PHYSCAP_pv, 0);
    assert_int_equal(op.u.physinfo.hw_cap[7], 0x44444444);
    assert_int_equal(ctl(XEN_SYSCTL_sched_id), 0);
    assert_int_equal(op.u.sched_id.sched_id, XEN_SCHEDULER_CREDIT2);

    memset(&op.u, 0, sizeof(op.u));
    assert_int_equal(ctl(XEN_SYSCTL_cputopoinfo), 0);
    assert_int_equal(op.u.cputopoinfo.num_cpus, 2);
    op.u.cputopoinfo.cputopo.p = t;
    op.u.cputopoinfo.num_cpus = 4;
    t[2].core = 77;
    assert_int_equal(ctl(XEN_SYSCTL_cputopoinfo), 0);
    assert_int_equal(t[1].core, 1);
    assert_int_equal(t[2].core, 77);
    op.u.cputopoinfo.cputopo.p = (void *)BAD_POINTER;
    assert_int_equal(ctl(XEN_SYSCTL_cputopoinfo), -EFAULT);

    memset(&op.u, 0, sizeof(op.u));
    op.u.getcpuinfo.max_cpus = 4;
    op.u.getcpuinfo.info.p = i;
    assert_int_equal(ctl(XEN_SYSCTL_getcpuinfo), 0);
    assert_int_equal(op.u.getcpuinfo.nr_cpus, 2);
    assert_int_equal(i[1].idletime, 22);

    memset(&op.u, 0, sizeof(op.u));
    op.u.getdomaininfolist.first_domain = 2;
    op.u.getdomaininfolist.max_domains = 4;
    op.u.getdomaininfolist.buffer.p = d;
    assert_int_equal(ctl(XEN_SYSCTL_getdomaininfolist), 0);
    assert_int_equal(op.u.getdomaininfolist.num_domains, 2);
    assert_int_equal(d[1].domain, 3);
    op.u.getdomaininfolist.first_domain = 0;
    op.u.getdomaininfolist.max_domains = 1;
    assert_int_equal(ctl(XEN_SYSCTL_getdomaininfolist), 0);
    assert_int_equal(op.u.getdomaininfolist.num_domains, 1);
    op.u.getdomaininfolist.buffer.p = (void *)BAD_POINTER;
    assert_int_equal(ctl(XEN_SYSCTL_getdomaininfolist), -EFAULT);

    memset(&op.u, 0, sizeof(op.u));
    op.u.cpu_featureset.index = 3;
    assert_int_equal(ctl(XEN_SYSCTL_get_cpu_featureset), 0);
    assert_int_equal(op.u.cpu_featureset.nr_features, CPUID_FEATURE_WORDS);
    op.u.cpu_featureset.features.p = words;
    op.u.cpu_featureset.nr_features = 2;
    assert_int_equal(ctl(XEN_SYSCTL_get_cpu_featureset), -ENOBUFS);
    assert_int_equal(words[1], 0x44444444);
    assert_int_equal(words[2], 0);
    op.u.cpu_featureset.index = 6;
    assert_int_equal(ctl(XEN_SYSCTL_get_cpu_featureset), -EINVAL);
    memset(&op.u, 0, sizeof(op.u));
    op.u.cpu_policy.index = 5;
    assert_int_equal(ctl(XEN_SYSCTL_get_cpu_policy), 0);
    assert_int_equal(op.u.cpu_policy.nr_leaves, 3);
    op.u.cpu_policy._rsvd = 1;
    assert_int_equal(ctl(XEN_SYSCTL_get_cpu_policy), -EINVAL);
}

static void pools(void **state)
{
    uint64_t *map = guest_alloc(NULL, 8);
    struct xen_sysctl_cpupool_op *p = &op.u.cpupool_op;

    (void)state;
    p->op = XEN_SYSCTL_CPUPOOL_OP_INFO;
    p->cpumap.bitmap.p = (void *)map;
    p->cpumap.nr_bits = 8;
    assert_int_equal(ctl(XEN_SYSCTL_cpupool_op), 0);
    assert_int_equal(p->n_dom, NR_TEST_DOMAINS);
    assert_int_equal(*map, 3);
    p->cpupool_id = 1;
    assert_int_equal(ctl(XEN_SYSCTL_cpupool_op), -ENOENT);
    p->op = XEN_SYSCTL_CPUPOOL_OP_CREATE;
    assert_int_equal(ctl(XEN_SYSCTL_cpupool_op), -EOPNOTSUPP);
    p->op = XEN_SYSCTL_CPUPOOL_OP_MOVEDOMAIN;
    p->cpupool_id = 0;
    assert_int_equal(ctl(XEN_SYSCTL_cpupool_op), 0);
    op.u.scheduler_op.cpupool_id = 0;
    op.u.scheduler_op.sched_id = XEN_SCHEDULER_CREDIT2;
    op.u.scheduler_op.cmd = XEN_SYSCTL_SCHEDOP_getinfo;
    assert_int_equal(ctl(XEN_SYSCTL_scheduler_op), 0);
    assert_int_equal(op.u.scheduler_op.u.sched_credit2.ratelimit_us, 500);
    op.u.scheduler_op.cmd = XEN_SYSCTL_SCHEDOP_putinfo;
    for (unsigned i = 0; i < 2; i++) { /* out of range: nothing changes */
        op.u.scheduler_op.u.sched_credit2.ratelimit_us =
            i ? XEN_SYSCTL_SCHED_RATELIMIT_MAX + 1 : XEN_SYSCTL_SCHED_RATELIMIT_MIN - 1;
        assert_int_equal(ctl(XEN_SYSCTL_scheduler_op), -EINVAL);
        assert_int_equal(sched_ratelimit_ns, 500 * NS_PER_US);
    }
    op.u.scheduler_op.u.sched_credit2.ratelimit_us = 1000;
    assert_int_equal(ctl(XEN_SYSCTL_scheduler_op), 0);
    assert_int_equal(sched_ratelimit_ns, NS_PER_MS);
    op.u.scheduler_op.u.sched_credit2.ratelimit_us = 0;
    assert_int_equal(ctl(XEN_SYSCTL_scheduler_op), 0);
    assert_int_equal(sched_ratelimit_ns, 0);
    op.u.scheduler_op.cpupool_id = 1;
    assert_int_equal(ctl(XEN_SYSCTL_scheduler_op), -ESRCH);
    op.u.scheduler_op.cpupool_id = 0;
    op.u.scheduler_op.sched_id = XEN_SCHEDULER_RTDS;
    assert_int_equal(ctl(XEN_SYSCTL_scheduler_op), -EINVAL);
}

static void console(void **state)
{
    char *buf = guest_alloc(NULL, 64), *text = guest_alloc(NULL, 512);
    uint64_t arg[6] = {CONSOLEIO_write, 5, (uint64_t)text};

    (void)state;
    op.u.readconsole.buffer.p = buf;
    op.u.readconsole.count = 5;
    assert_int_equal(ctl(XEN_SYSCTL_readconsole), 0);
    assert_int_equal(op.u.readconsole.count, 5);
    assert_int_equal(op.u.readconsole.index, 5);
    op.u.readconsole.incremental = 1;
    op.u.readconsole.count = ~0u;
    assert_int_equal(ctl(XEN_SYSCTL_readconsole), 0);
    assert_int_equal(op.u.readconsole.count, 6);
    assert_memory_equal(buf, ", ring", 6);
    op.u.readconsole.incremental = 0;
    op.u.readconsole.buffer.p = (void *)BAD_POINTER;
    assert_int_equal(ctl(XEN_SYSCTL_readconsole), -EFAULT);
    op.u.debug_keys.keys.p = memcpy(buf, "hq", 2);
    op.u.debug_keys.nr_keys = 2;
    assert_int_equal(ctl(XEN_SYSCTL_debug_keys), 0);
    assert_memory_equal(keys, "hq", 2);
    op.u.debug_keys.nr_keys = 1025;
    assert_int_equal(ctl(XEN_SYSCTL_debug_keys), -E2BIG);

    memcpy(text, "login", 5);
    assert_int_equal(do_console_io(&vcpus[0], arg), 0);
    assert_string_equal(out, "login");
    arg[1] = (uint64_t)-1;
    assert_int_equal(do_console_io(&vcpus[0], arg), -EINVAL);
    arg[1] = 5;
    arg[2] = BAD_POINTER;
    assert_int_equal(do_console_io(&vcpus[0], arg), -EFAULT);
    arg[0] = CONSOLEIO_read;
    arg[2] = (uint64_t)text;
    assert_int_equal(do_console_io(&vcpus[0], arg), 5);
    assert_int_equal(do_console_io(&vcpus[1], arg), -EPERM);
    arg[0] = 2;
    assert_int_equal(do_console_io(&vcpus[0], arg), -ENOSYS);
    memset(text, 'x', 500);
    arg[0] = CONSOLEIO_write;
    arg[1] = 500;
    preempt_every = 1;
    assert_int_equal(do_console_io(&vcpus[0], arg), -ERESTART);
    assert_int_equal(next_arg[1], 500 - 128);
    assert_int_equal(next_arg[2], (uint64_t)text + 128);
    preempt_every = 0;
    assert_int_equal(do_console_io(&vcpus[1], arg), 0); /* a line of 500: cut, not overrun */
    for (unsigned id = 10; id < 40; id++) {             /* more domains than there are lines */
        domains[3].id = (domid_t)id;
        console_guest_char(&domains[3], 'a');
        console_guest_char(&domains[3], '\x1b');
    }
    console_guest_char(&domains[3], '\n');
    domains[3].id = 3;
}

static void platform_ops(void **state)
{
    uint8_t *map = guest_alloc(&(uint8_t){0x0f}, 1);
    uint64_t *idle = guest_alloc(NULL, 64);

    (void)state;
    assert_int_equal(call(do_platform_op, &vcpus[1], BAD_POINTER, 0), -EPERM);
    assert_int_equal(call(do_platform_op, &vcpus[0], BAD_POINTER, 0), -EFAULT);
    assert_int_equal(plat(0), -ENOSYS);
    assert_int_equal(plat(1000), -ENOSYS);
    assert_int_equal(plat(XENPF_microcode_update), -EOPNOTSUPP);
    pf.u.settime64.secs = 1000;
    pf.u.settime64.nsecs = 5;
    pf.u.settime64.system_time = 1005;
    assert_int_equal(plat(XENPF_settime64), 0);
    assert_int_equal(wall, 1000 * NS_PER_SEC - 1000);
    pf.u.settime64.nsecs = NS_PER_SEC;
    assert_int_equal(plat(XENPF_settime64), -EINVAL);
    pf.u.settime64.nsecs = 0;
    pf.u.settime64.secs = ~0ULL;
    assert_int_equal(plat(XENPF_settime64), -EINVAL);
    pf.u.settime64.secs = 0;
    assert_int_equal(plat(XENPF_settime64), -EINVAL);
    memset(&pf.u, 0, sizeof(pf.u));
    pf.u.pcpu_info.xen_cpuid = 1;
    assert_int_equal(plat(XENPF_get_cpuinfo), 0);
    assert_int_equal(pf.u.pcpu_info.flags, XEN_PCPU_FLAGS_ONLINE);
    assert_int_equal(pf.u.pcpu_info.apic_id, 4);
    pf.u.pcpu_info.xen_cpuid = 2;
    assert_int_equal(plat(XENPF_get_cpuinfo), 0);
    assert_int_equal(pf.u.pcpu_info.flags, XEN_PCPU_FLAGS_INVALID);
    assert_int_equal(pf.u.pcpu_info.max_present, 1);
    memset(&pf.u, 0, sizeof(pf.u));
    pf.u.getidletime.cpumap_bitmap.p = map;
    pf.u.getidletime.cpumap_nr_cpus = 4;
    pf.u.getidletime.idletime.p = idle;
    assert_int_equal(plat(XENPF_getidletime), 0);
    assert_int_equal(*map, 3);
    assert_int_equal(idle[1], 22);
    assert_int_equal(pf.u.getidletime.now, 99);
    memset(&pf.u, 0, sizeof(pf.u));
    pf.u.enter_acpi_sleep.sleep_state = 5;
    assert_int_equal(plat(XENPF_enter_acpi_sleep), -EBUSY);
    assert_int_equal(slept, 5);
    pf.u.enter_acpi_sleep.flags = 2;
    assert_int_equal(plat(XENPF_enter_acpi_sleep), -EINVAL);
    assert_int_equal(plat(XENPF_set_processor_pminfo), 0);
    pf.u.firmware_info.type = XEN_FW_DISK_INFO;
    assert_int_equal(plat(XENPF_firmware_info), -ESRCH);
    for (uint32_t cmd = 0; cmd < 70; cmd++) {
        memset(&pf.u, 0xff, sizeof(pf.u));
        plat(cmd);
        arena_used = 128;
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, reset, audit)
int main(void)
{
    const struct CMUnitTest tests[] = {T(entry), T(machine), T(pools), T(console), T(platform_ops)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
