/* sources: vmm/domain/domctl*.c vmm/domain/multicall.c vmm/domain/version.c */
/* test_domctl.c: domctl's argument checks, life cycle and answers; multicall and xen_version. After
 * every test the domains' references and the number of live allocations are as before.
 */
#include "test_domctl_guest.h"

#include "core/x86.h"

#include "domain/compat.h"
#include "domain/hvm.h"
#include "platform/platform.h"

unsigned p2m_gpa_bits = 40, nr_cpus = 2;
uint64_t tsc_khz = 1000000;
struct cpu *cpus[MAX_CPUS];
char boot_cmdline[64] = "console=com1 dom0_mem=1G";
static int live, pauses, created, kills_left, context_bytes = 100, save_fails;
static bool fail_alloc, dirty_on;

void *kzalloc(size_t n)
{
    live += !fail_alloc;
    return fail_alloc ? NULL : calloc(1, n);
}
void kfree(void *p)
{
    live -= p != NULL;
    free(p);
}
void *pages_alloc(unsigned order)
{
    return kzalloc(PAGE_SIZE << order);
}
void pages_free(void *va, unsigned order)
{
    (void)order;
    kfree(va);
}
bool gfn_range_valid(gfn_t gfn, unsigned order)
{
    return gfn + (1ULL << order) <= 1ULL << 28;
}
/* ---- the rest of the hypervisor, small
 * ------------------------------------------------------------------ */
int domain_create(domid_t id, const struct xen_domctl_createdomain *c, bool privileged,
                  struct domain **out)
{
    (void)c;
    assert_false(privileged);
    if (id < NR_TEST_DOMAINS)
        return -EEXIST;
    created = id;
    domains[3].id = id;
    *out = &domains[3];
    return 0;
}
int vcpu_create(struct domain *d, unsigned id)
{
    static struct vcpu more[8];
    d->vcpu[id] = &more[id];
    more[id].domain = d;
    return id == 5 ? -ENOMEM : 0;
}
int domain_kill(struct domain *d)
{
    assert_false(d->is_dom0);
    return kills_left-- > 0 ? -ERESTART : 0;
}
void domain_pause(struct domain *d)
{
    d->pause_count++;
    pauses++;
}
void domain_unpause(struct domain *d)
{
    assert_true(d->pause_count > 0);
    d->pause_count--;
}
void vcpu_pause(struct vcpu *v)
{
    v->pause_count++;
}
void vcpu_unpause(struct vcpu *v)
{
    v->pause_count--;
}
void vcpu_unblock(struct vcpu *v, uint32_t bits)
{
    v->block &= ~bits;
}
void domain_resume(struct domain *d)
{
    (void)d;
}
void domain_shutdown(struct domain *d, int reason)
{
    d->shut_down = true;
    d->shutdown_code = reason;
}
void domain_report_shutdown(struct domain *d)
{
    d->shut_down = d->shutting_down && !d->systemcontroller_pauses;
}
void domain_getinfo(struct domain *d, struct xen_domctl_getdomaininfo *info)
{
    info->domain = d->id;
    info->tot_pages = 42;
}
int vcpu_set_affinity(struct vcpu *v, const uint64_t *hard, const uint64_t *soft)
{
    if (hard)
        v->sched.hard[0] = *hard;
    if (soft)
        v->sched.soft[0] = *soft;
    return 0;
}
void sched_domain_set(struct domain *d, uint32_t weight, uint32_t cap)
{
    d->sched.weight = weight;
    d->sched.cap = cap;
}
uint64_t vcpu_cpu_time(struct vcpu *v)
{
    (void)v;
    return 777;
}
void vcpu_nmi(struct vcpu *v)
{
    v->nmi_pending = true;
}
void vcpu_init_signal(struct vcpu *v)
{
    (void)v;
}
void vpmtmr_power_button(struct domain *d)
{
    (void)d;
}
void vpmtmr_sleep_button(struct domain *d)
{
    (void)d;
}
void pvtime_update_wallclock(struct domain *d)
{
    (void)d;
}
uint64_t now_ns(void)
{
    return 5;
}
int hypercall_page_install(struct vcpu *v, uint64_t gpa)
{
    v->domain->hypercall_gpa = gpa;
    return 0;
}
long hvm_context_save(struct domain *d, void *buf, size_t bytes)
{
    (void)d;
    if (save_fails)
        return -EINVAL;
    if (buf)
        memset(buf, 0x11, bytes);
    return context_bytes;
}
long hvm_context_load(struct domain *d, const void *buf, size_t bytes)
{
    assert_true(d->pause_count > 0);
    return bytes == 100 && *(const char *)buf == 0x11 ? 0 : -EINVAL;
}
long hvm_context_save_one(struct domain *d, unsigned type, unsigned instance, void *buf,
                          size_t bytes)
{
    (void)d;
    if (type != 2 || instance || bytes < 16)
        return -ENOENT;
    memset(buf, 0x22, 16);
    return 16;
}
int cpuid_policy_get(struct domain *d, xen_cpuid_leaf_t *leaves, uint32_t *nr)
{
    (void)d;
    if (leaves && *nr < 3)
        return -ENOBUFS;
    if (leaves)
        memset(leaves, 0x33, 3 * sizeof(*leaves));
    *nr = leaves ? 3 : CPUID_MAX_SERIALISED;
    return 0;
}
int cpuid_policy_set(struct domain *d, const xen_cpuid_leaf_t *leaves, uint32_t nr,
                     uint32_t *err_leaf, uint32_t *err_sub)
{
    (void)d;
    (void)nr;
    *err_leaf = leaves[0].leaf;
    *err_sub = 9;
    return leaves[0].leaf == 1 ? 0 : -ERANGE;
}
mfn_t p2m_get(struct domain *d, gfn_t gfn, enum p2m_type *t, unsigned *order)
{
    (void)d;
    (void)order;
    *t = gfn == 8 ? P2M_RAM : gfn == 9 ? P2M_MMIO_DM : P2M_HOLE;
    return 1;
}
uint64_t p2m_max_gfn(const struct domain *d)
{
    (void)d;
    return 9999;
}
bool p2m_logdirty_enabled(const struct domain *d)
{
    (void)d;
    return dirty_on;
}
int p2m_logdirty_enable(struct domain *d)
{
    (void)d;
    dirty_on = true;
    return 0;
}
void p2m_logdirty_disable(struct domain *d)
{
    (void)d;
    dirty_on = false;
}
int64_t p2m_logdirty_range(struct domain *d, gfn_t first, uint64_t count, uint8_t *bitmap,
                           bool clean)
{
    assert_true(d->pause_count > 0);
    (void)clean;
    bitmap[0] = (uint8_t)(first / 4096 + 1);
    return (int64_t)count;
}
static void get_segment(struct vcpu *v, enum segment_reg r, struct segment *out)
{
    assert_true(v->pause_count > 0);
    *out = (struct segment){.sel = (uint16_t)(8 * (r + 1))};
}
static uint64_t get_cr(struct vcpu *v, unsigned cr)
{
    assert_true(v->pause_count > 0);
    return 0x1000 + cr;
}
static int get_msr(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    (void)v;
    *val = msr;
    return 0;
}
unsigned hvm_tsc_fraction_bits;
static unsigned clocks_updated, deadlines_set;
uint64_t vlapic_tsc_deadline(struct vcpu *v)
{
    (void)v;
    return 5000;
}
void vlapic_set_tsc_deadline(struct vcpu *v, uint64_t tsc)
{
    assert_int_equal(tsc, 5000);
    assert_true(v->domain->tsc_ratio || clocks_updated > 2); /* as the new rate has it */
    deadlines_set++;
}
static void set_tsc_offset(struct vcpu *v, uint64_t offset)
{
    assert_true(v->domain->pause_count);
    v->tsc_offset = offset;
}
void pvtime_update_vcpu(struct vcpu *v)
{
    (void)v;
    clocks_updated++;
}
static const struct hvm_ops ops = {.get_segment = get_segment,
                                   .get_cr = get_cr,
                                   .get_dr = get_cr,
                                   .get_msr = get_msr,
                                   .set_tsc_offset = set_tsc_offset};
const struct hvm_ops *hvm_ops = &ops;
static unsigned dispatch_restarts;
long hypercall_dispatch(struct vcpu *v, unsigned nr, const uint64_t arg[6])
{
    if (nr == 40 && dispatch_restarts) { /* continues with its first argument counted up */
        dispatch_restarts--;
        v->regs.gpr[v->compat ? RBX : RDI] = arg[0] + 1;
        return hypercall_continue(v);
    }
    return nr == 40 ? (long)arg[0] : -ENOSYS;
}

/* ---- fixture
 * ---------------------------------------------------------------------------------------------- */
static struct xen_domctl op;

static int reset(void **state)
{
    (void)state;
    arena_reset();
    domains_reset();
    live = pauses = kills_left = save_fails = 0;
    fail_alloc = dirty_on = false;
    context_bytes = 100;
    memset(&op, 0, sizeof(op));
    return 0;
}
static int audit(void **state)
{
    (void)state;
    assert_int_equal(live, 0);
    check_domain_refs();
    for (unsigned i = 0; i < NR_TEST_DOMAINS; i++)
        assert_int_equal(vcpus[i].pause_count, 0);
    return 0;
}
static long ctl(uint32_t cmd, domid_t domid)
{
    op.cmd = cmd;
    op.interface_version = XEN_DOMCTL_INTERFACE_VERSION;
    op.domain = domid;
    void *p = guest_alloc(&op, sizeof(op));
    long rc = call(do_domctl, &vcpus[0], (uint64_t)p, 0);
    memcpy(&op, p, sizeof(op));
    return rc;
}

static void entry(void **state)
{
    (void)state;
    op.cmd = XEN_DOMCTL_max_mem;
    op.interface_version = XEN_DOMCTL_INTERFACE_VERSION;
    op.domain = 1;
    void *p = guest_alloc(&op, sizeof(op));
    assert_int_equal(call(do_domctl, &vcpus[1], (uint64_t)p, 0), -EPERM);
    assert_int_equal(call(do_domctl, &vcpus[0], BAD_POINTER, 0), -EFAULT);
    op.interface_version++;
    assert_int_equal(call(do_domctl, &vcpus[0], (uint64_t)guest_alloc(&op, sizeof(op)), 0),
                     -EACCES);
    assert_int_equal(ctl(0, 1), -EOPNOTSUPP);
    assert_int_equal(ctl(1003, 1), -EOPNOTSUPP);
    assert_int_equal(ctl(~0u, 1), -EOPNOTSUPP);
    /* Every operation survives a structure of ones and of zeroes, on a domain and on none. */
    for (uint32_t cmd = 0; cmd < 90; cmd++)
        for (int fill = 0; fill < 2; fill++)
            for (domid_t id = 1; id < 99; id += 90) {
                memset(&op.u, fill ? 0xff : 0, sizeof(op.u));
                ctl(cmd, id);
                arena_used = 64;
                domains[1].systemcontroller_pauses = domains[1].pause_count = 1;
            }
    assert_int_equal(ctl(XEN_DOMCTL_max_mem, 50), -ESRCH);
}

static void create(void **state)
{
    struct xen_domctl_createdomain good = {
        .flags = XEN_DOMCTL_CDF_hvm | XEN_DOMCTL_CDF_hap,
        .max_vcpus = 2,
        .grant_opts = 1,
        .arch.emulation_flags = XEN_X86_EMU_ALL & ~XEN_X86_EMU_VPCI,
    };
    struct xen_domctl_createdomain *c = &op.u.createdomain;

    (void)state;
    *c = good;
    assert_int_equal(ctl(XEN_DOMCTL_createdomain, 0), 0);
    assert_int_equal(op.domain, created);
    assert_true(created >= NR_TEST_DOMAINS);
    *c = good;
    assert_int_equal(ctl(XEN_DOMCTL_createdomain, 300), 0);
    assert_int_equal(op.domain, 300);
    *c = good;
    assert_int_equal(ctl(XEN_DOMCTL_createdomain, 2), -EEXIST);
    *c = good;
    assert_int_equal(ctl(XEN_DOMCTL_createdomain, DOMID_INVALID), 0);
    domains[3].id = 3;
#define BAD(field, value, err)                                                                     \
    *c = good;                                                                                     \
    c->field = value;                                                                              \
    assert_int_equal(ctl(XEN_DOMCTL_createdomain, 0), err)
    BAD(flags, XEN_DOMCTL_CDF_hvm, -EINVAL);
    BAD(flags, 0, -EINVAL);
    BAD(flags, good.flags | XEN_DOMCTL_CDF_nested_virt, -EINVAL);
    BAD(flags, good.flags | XEN_DOMCTL_CDF_iommu, -EINVAL);
    BAD(flags, ~0u, -EINVAL);
    BAD(iommu_opts, 1, -EINVAL);
    BAD(max_vcpus, 0, -EINVAL);
    BAD(max_vcpus, 129, -EINVAL);
    BAD(grant_opts, 3, -EINVAL);
    BAD(grant_opts, 0x11, -EINVAL);
    BAD(arch.emulation_flags, XEN_X86_EMU_ALL, -EINVAL);
    BAD(arch.misc_flags, 2, -EINVAL);
    BAD(vmtrace_size, 4096, -EOPNOTSUPP);
    BAD(cpupool_id, 1, -ESRCH);
}

static void life_cycle(void **state)
{
    (void)state;
    assert_int_equal(ctl(XEN_DOMCTL_unpausedomain, 1), -EINVAL);
    assert_int_equal(ctl(XEN_DOMCTL_pausedomain, 1), 0);
    assert_int_equal(ctl(XEN_DOMCTL_pausedomain, 1), 0);
    assert_int_equal(domains[1].pause_count, 2);
    domains[1].shutting_down = true; /* the tools hear of it when they hold it paused no more */
    assert_int_equal(ctl(XEN_DOMCTL_unpausedomain, 1), 0);
    assert_false(domains[1].shut_down);
    assert_int_equal(ctl(XEN_DOMCTL_unpausedomain, 1), 0);
    assert_true(domains[1].shut_down);
    assert_int_equal(ctl(XEN_DOMCTL_unpausedomain, 1), -EINVAL);
    domains[1].systemcontroller_pauses = 255;
    assert_int_equal(ctl(XEN_DOMCTL_pausedomain, 1), -EOVERFLOW);
    static const uint32_t not_self[] = {XEN_DOMCTL_pausedomain,   XEN_DOMCTL_destroydomain,
                                        XEN_DOMCTL_resumedomain,  XEN_DOMCTL_gethvmcontext,
                                        XEN_DOMCTL_sethvmcontext, XEN_DOMCTL_set_cpu_policy};
    for (unsigned i = 0; i < ARRAY_SIZE(not_self); i++) {
        assert_int_equal(ctl(not_self[i], 0), -EINVAL);
        assert_int_equal(ctl(not_self[i], DOMID_SELF), -EINVAL);
    }
    kills_left = 3;
    assert_int_equal(ctl(XEN_DOMCTL_destroydomain, 2), 0);
    assert_int_equal(continuations, 3);
    assert_int_equal(ctl(XEN_DOMCTL_getdomaininfo, 2), 0);
    assert_int_equal(op.u.getdomaininfo.tot_pages, 42);
    assert_int_equal(ctl(XEN_DOMCTL_getdomaininfo, 4), -ESRCH);
    assert_int_equal(ctl(XEN_DOMCTL_getdomaininfo, DOMID_INVALID), -EINVAL);
    op.u.set_target.target = 2;
    assert_int_equal(ctl(XEN_DOMCTL_set_target, 1), 0);
    assert_int_equal(domains[1].target, 2);
    op.u.set_target.target = 1;
    assert_int_equal(ctl(XEN_DOMCTL_set_target, 1), -EINVAL);
    op.u.set_target.target = 0;
    assert_int_equal(ctl(XEN_DOMCTL_set_target, 1), -EINVAL);
    op.u.set_target.target = 9;
    assert_int_equal(ctl(XEN_DOMCTL_set_target, 1), -ESRCH);
    op.u.sendtrigger.trigger = XEN_DOMCTL_SENDTRIGGER_NMI;
    op.u.sendtrigger.vcpu = 1;
    assert_int_equal(ctl(XEN_DOMCTL_sendtrigger, 1), -ESRCH);
    op.u.sendtrigger.vcpu = 0;
    assert_int_equal(ctl(XEN_DOMCTL_sendtrigger, 1), 0);
    assert_true(vcpus[1].nmi_pending);
}

static void vcpus_and_scheduling(void **state)
{
    uint64_t *map = guest_alloc((uint64_t[8]){0xfe}, 64);

    (void)state;
    domains[1].max_vcpus = 3;
    op.u.max_vcpus.max = 4;
    assert_int_equal(ctl(XEN_DOMCTL_max_vcpus, 1), -EINVAL);
    op.u.max_vcpus.max = 3;
    assert_int_equal(ctl(XEN_DOMCTL_max_vcpus, 1), 0);
    assert_non_null(domains[1].vcpu[2]);
    assert_ptr_equal(domains[1].vcpu[0], &vcpus[1]);
    domains[2].max_vcpus = op.u.max_vcpus.max = 7;
    assert_int_equal(ctl(XEN_DOMCTL_max_vcpus, 2), -ENOMEM);

    op.u.getvcpuinfo.vcpu = 0;
    vcpus[1].block = VBLOCK_HALTED;
    assert_int_equal(ctl(XEN_DOMCTL_getvcpuinfo, 1), 0);
    assert_int_equal(op.u.getvcpuinfo.online, 1);
    assert_int_equal(op.u.getvcpuinfo.blocked, 1);
    assert_int_equal(op.u.getvcpuinfo.cpu_time, 777);
    op.u.getvcpuinfo.vcpu = 3;
    assert_int_equal(ctl(XEN_DOMCTL_getvcpuinfo, 1), -ESRCH);
    op.u.getvcpuinfo.vcpu = ~0u;
    assert_int_equal(ctl(XEN_DOMCTL_getvcpuinfo, 1), -ESRCH);

    struct xen_domctl_vcpuaffinity *a = &op.u.vcpuaffinity;
    memset(a, 0, sizeof(*a));
    a->flags = XEN_VCPUAFFINITY_HARD;
    a->cpumap_hard.bitmap.p = (void *)map;
    a->cpumap_hard.nr_bits = 64;
    assert_int_equal(ctl(XEN_DOMCTL_setvcpuaffinity, 1), 0);
    assert_int_equal(*map, 2); /* what took effect on two CPUs */
    assert_int_equal(vcpus[1].sched.hard[0], 0xfe);
    *map = 0xf0; /* CPUs that are not there */
    assert_int_equal(ctl(XEN_DOMCTL_setvcpuaffinity, 1), -EINVAL);
    *map = 0;
    assert_int_equal(ctl(XEN_DOMCTL_setvcpuaffinity, 1), -EINVAL);
    a->vcpu = 3;
    *map = 1;
    assert_int_equal(ctl(XEN_DOMCTL_setvcpuaffinity, 1), -ESRCH);
    a->vcpu = 0;
    assert_int_equal(vcpus[1].sched.hard[0], 0xfe);
    a->flags = 0;
    assert_int_equal(ctl(XEN_DOMCTL_setvcpuaffinity, 1), -EINVAL);
    a->flags = XEN_VCPUAFFINITY_HARD;
    a->cpumap_hard.nr_bits = 200;
    memset(map, 0xff, 25);
    assert_int_equal(ctl(XEN_DOMCTL_getvcpuaffinity, 1), 0);
    assert_int_equal(map[0], 0xfe);
    assert_int_equal(map[1] | map[2] | (map[3] & 0xff), 0);
    a->cpumap_hard.bitmap.p = (void *)BAD_POINTER;
    assert_int_equal(ctl(XEN_DOMCTL_getvcpuaffinity, 1), -EFAULT);
    assert_int_equal(ctl(XEN_DOMCTL_setvcpuaffinity, 1), -EFAULT);
    a->cpumap_hard.nr_bits = ~0u;
    assert_int_equal(ctl(XEN_DOMCTL_getvcpuaffinity, 1), -EINVAL);

    struct xen_domctl_scheduler_op *s = &op.u.scheduler_op;
    memset(s, 0, sizeof(*s));
    s->sched_id = XEN_SCHEDULER_CREDIT2;
    s->cmd = XEN_DOMCTL_SCHEDOP_putinfo;
    s->u.credit2.weight = 512;
    s->u.credit2.cap = 50;
    assert_int_equal(ctl(XEN_DOMCTL_scheduler_op, 1), 0);
    s->u.credit2.weight = 65535;
    s->u.credit2.cap = 301; /* of three vCPUs: nothing changes */
    assert_int_equal(ctl(XEN_DOMCTL_scheduler_op, 1), -EINVAL);
    s->cmd = XEN_DOMCTL_SCHEDOP_getinfo;
    assert_int_equal(ctl(XEN_DOMCTL_scheduler_op, 1), 0);
    assert_int_equal(s->u.credit2.weight, 512);
    assert_int_equal(s->u.credit2.cap, 50);
    s->cmd = XEN_DOMCTL_SCHEDOP_putinfo;
    s->u.credit2.weight = 0; /* as it is */
    s->u.credit2.cap = 0;    /* none */
    assert_int_equal(ctl(XEN_DOMCTL_scheduler_op, 1), 0);
    assert_int_equal(domains[1].sched.weight, 512);
    assert_int_equal(domains[1].sched.cap, 0);
    s->cmd = XEN_DOMCTL_SCHEDOP_putvcpuinfo;
    assert_int_equal(ctl(XEN_DOMCTL_scheduler_op, 1), -EINVAL);
    s->cmd = 77;
    assert_int_equal(ctl(XEN_DOMCTL_scheduler_op, 1), -EINVAL);
    s->sched_id = XEN_SCHEDULER_CREDIT;
    assert_int_equal(ctl(XEN_DOMCTL_scheduler_op, 1), -EINVAL);
}

static void contexts(void **state)
{
    struct vcpu_guest_context *c = guest_alloc(NULL, sizeof(*c));
    char *buf = guest_alloc(NULL, 256);

    (void)state;
    vcpus[1].regs.gpr[RDI] = 0xd1;
    vcpus[1].regs.rip = 0x1234;
    vcpus[1].block = VBLOCK_DOWN;
    op.u.vcpucontext.ctxt.p = c;
    assert_int_equal(ctl(XEN_DOMCTL_getvcpucontext, 1), 0);
    assert_int_equal(c->user_regs.rdi, 0xd1);
    assert_int_equal(c->user_regs.rip, 0x1234);
    assert_int_equal(c->user_regs.cs, 16);
    assert_int_equal(c->ctrlreg[3], 0x1003);
    assert_int_equal(c->flags & VGCF_online, 0);
    c->user_regs.r15 = 15;
    c->user_regs.rflags = ~0ULL;
    c->flags = VGCF_online;
    assert_int_equal(ctl(XEN_DOMCTL_setvcpucontext, 1), 0);
    assert_int_equal(vcpus[1].regs.gpr[R15], 15);
    assert_int_equal(vcpus[1].regs.rflags & ~0x3f7fd7ULL, 0);
    assert_int_equal(vcpus[1].block, 0);
    op.u.vcpucontext.ctxt.p = (void *)BAD_POINTER;
    assert_int_equal(ctl(XEN_DOMCTL_getvcpucontext, 1), -EFAULT);
    assert_int_equal(ctl(XEN_DOMCTL_setvcpucontext, 1), -EFAULT);
    fail_alloc = true;
    assert_int_equal(ctl(XEN_DOMCTL_getvcpucontext, 1), -ENOMEM);
    assert_int_equal(ctl(XEN_DOMCTL_setvcpucontext, 1), -ENOMEM);
    fail_alloc = false;
    op.u.vcpucontext.vcpu = 1;
    assert_int_equal(ctl(XEN_DOMCTL_getvcpucontext, 1), -ESRCH);

    struct xen_domctl_hvmcontext *h = &op.u.hvmcontext;
    memset(&op.u, 0, sizeof(op.u));
    assert_int_equal(ctl(XEN_DOMCTL_gethvmcontext, 1), 0);
    assert_int_equal(h->size, 100);
    h->buffer.p = (void *)buf;
    h->size = 99;
    assert_int_equal(ctl(XEN_DOMCTL_gethvmcontext, 1), -ENOSPC);
    h->size = 200;
    assert_int_equal(ctl(XEN_DOMCTL_gethvmcontext, 1), 0);
    assert_int_equal(h->size, 100);
    assert_int_equal(buf[99], 0x11);
    assert_int_equal(buf[100], 0);
    assert_int_equal(ctl(XEN_DOMCTL_sethvmcontext, 1), 0);
    h->size = 0;
    assert_int_equal(ctl(XEN_DOMCTL_sethvmcontext, 1), -EINVAL);
    h->size = 5 << 20;
    assert_int_equal(ctl(XEN_DOMCTL_sethvmcontext, 1), -EINVAL);
    h->size = 50;
    assert_int_equal(ctl(XEN_DOMCTL_sethvmcontext, 1), -EINVAL);
    h->buffer.p = (void *)BAD_POINTER;
    assert_int_equal(ctl(XEN_DOMCTL_sethvmcontext, 1), -EFAULT);
    h->size = 200;
    assert_int_equal(ctl(XEN_DOMCTL_gethvmcontext, 1), -EFAULT);
    assert_int_equal(domains[1].pause_count, 0);
    memset(&op.u, 0, sizeof(op.u));
    op.u.hvmcontext_partial.type = 2;
    op.u.hvmcontext_partial.bufsz = 64;
    op.u.hvmcontext_partial.buffer.p = (void *)buf;
    assert_int_equal(ctl(XEN_DOMCTL_gethvmcontext_partial, 1), 0);
    assert_int_equal(op.u.hvmcontext_partial.bufsz, 16);
    assert_int_equal(buf[15], 0x22);
    op.u.hvmcontext_partial.type = 3;
    assert_int_equal(ctl(XEN_DOMCTL_gethvmcontext_partial, 1), -ENOENT);
}

static void policy(void **state)
{
    struct xen_domctl_cpu_policy *p = &op.u.cpu_policy;
    xen_cpuid_leaf_t *l = guest_alloc(NULL, 3 * sizeof(*l));
    xen_msr_entry_t *m = guest_alloc(NULL, 3 * sizeof(*m));

    (void)state;
    assert_int_equal(ctl(XEN_DOMCTL_get_cpu_policy, 1), 0);
    assert_int_equal(p->nr_leaves, CPUID_MAX_SERIALISED);
    p->leaves.p = l;
    p->msrs.p = m;
    p->nr_leaves = p->nr_msrs = 3;
    assert_int_equal(ctl(XEN_DOMCTL_get_cpu_policy, 1), 0);
    assert_int_equal(l[2].d, 0x33333333);
    assert_int_equal(p->nr_msrs, 1);
    assert_int_equal(m[0].idx, 0xce);
    p->nr_leaves = 2;
    assert_int_equal(ctl(XEN_DOMCTL_get_cpu_policy, 1), -ENOBUFS);
    p->nr_leaves = 3;
    p->leaves.p = (void *)BAD_POINTER;
    assert_int_equal(ctl(XEN_DOMCTL_get_cpu_policy, 1), -EFAULT);
    p->nr_msrs = 0;
    assert_int_equal(ctl(XEN_DOMCTL_set_cpu_policy, 1), -EFAULT);
    p->leaves.p = l;
    l[0].leaf = 1;
    assert_int_equal(ctl(XEN_DOMCTL_set_cpu_policy, 1), 0);
    l[0].leaf = 77;
    assert_int_equal(ctl(XEN_DOMCTL_set_cpu_policy, 1), -ERANGE);
    assert_int_equal(p->err_leaf, 77);
    p->nr_msrs = 1;
    m[0].val = 1;
    assert_int_equal(ctl(XEN_DOMCTL_set_cpu_policy, 1), -EINVAL);
    assert_int_equal(p->err_msr, 0xce);
    p->nr_msrs = 0;
    p->nr_leaves = ~0u;
    assert_int_equal(ctl(XEN_DOMCTL_set_cpu_policy, 1), -E2BIG);
    p->nr_leaves = 3;
    fail_alloc = true;
    assert_int_equal(ctl(XEN_DOMCTL_set_cpu_policy, 1), -ENOMEM);
}

/* A rate that the CPU can scale to takes effect with the TSC standing where it was; what it cannot
 * is refused and changes nothing. The host's is 1 GHz. */
static void tsc_rate(void **state)
{
    struct xen_domctl_tsc_info *t = &op.u.tsc_info;
    struct domain *d = &domains[1];
    struct vcpu *v = d->vcpu[0];
    static const struct {
        uint32_t mode, khz;
        int rc;
    } refused[] = {
        {0, 2000000, -EOPNOTSUPP}, {3, 0, -EINVAL}, {0, 62499, -EINVAL}, {0, 16000001, -EINVAL}};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(refused); i++) {
        hvm_tsc_fraction_bits = i ? 48 : 0;
        d->tsc_mode = 1;
        *t = (struct xen_domctl_tsc_info){.tsc_mode = refused[i].mode, .gtsc_khz = refused[i].khz};
        assert_int_equal(ctl(XEN_DOMCTL_settscinfo, 1), refused[i].rc);
        assert_int_equal(d->tsc_mode, 1);
        assert_int_equal(d->tsc_ratio, 0);
    }
    v->tsc_offset = 12345;
    *t = (struct xen_domctl_tsc_info){.gtsc_khz = 1000200}; /* the host's, measured again */
    assert_int_equal(ctl(XEN_DOMCTL_settscinfo, 1), 0);
    assert_int_equal(d->tsc_ratio, 0);
    *t = (struct xen_domctl_tsc_info){.tsc_mode = 2, .gtsc_khz = 2000000}; /* never */
    assert_int_equal(ctl(XEN_DOMCTL_settscinfo, 1), 0);
    assert_int_equal(d->tsc_ratio, 0);
    clocks_updated = deadlines_set = 0;
    for (unsigned bits = 32; bits <= 48; bits += 16) {
        uint64_t before = guest_tsc(v, rdtsc());
        hvm_tsc_fraction_bits = bits;
        *t = (struct xen_domctl_tsc_info){.gtsc_khz = 333333};
        assert_int_equal(ctl(XEN_DOMCTL_settscinfo, 1), 0);
        assert_in_range(guest_tsc(v, rdtsc()) - before, 0, 10000000000ULL);
        assert_int_equal(d->tsc_khz, 333333);
        assert_int_equal(!(d->tsc_ratio & 0xffff), bits == 32);
        uint64_t second = tsc_scaled(d, 3000000000ULL) - tsc_scaled(d, 2000000000ULL);
        assert_in_range(second, 333332999, 333333001);
        assert_int_equal(ctl(XEN_DOMCTL_gettscinfo, 1), 0);
        assert_int_equal(t->gtsc_khz, 333333);
    }
    assert_int_equal(clocks_updated, 2);
    assert_int_equal(deadlines_set, 2);
    *t = (struct xen_domctl_tsc_info){0};
    assert_int_equal(ctl(XEN_DOMCTL_settscinfo, 1), 0);
    assert_int_equal(d->tsc_ratio, 0);
    assert_int_equal(d->tsc_khz, 1000000);
    hvm_tsc_fraction_bits = 0;
}

static void memory(void **state)
{
    uint64_t *array = guest_alloc((uint64_t[]){8, 9, 10, ~0ULL}, 32);
    uint8_t *bits = guest_alloc(NULL, 2048);

    (void)state;
    op.u.max_mem.max_memkb = 4096;
    assert_int_equal(ctl(XEN_DOMCTL_max_mem, 1), 0);
    assert_int_equal(domains[1].max_pages, 1024);
    op.u.getpageframeinfo3.num = 4;
    op.u.getpageframeinfo3.array.p = (void *)array;
    assert_int_equal(ctl(XEN_DOMCTL_getpageframeinfo3, 1), 0);
    assert_int_equal(array[0], XEN_DOMCTL_PFINFO_NOTAB);
    assert_int_equal(array[1] & array[2] & array[3], XEN_DOMCTL_PFINFO_XTAB);
    op.u.getpageframeinfo3.num = 1025;
    assert_int_equal(ctl(XEN_DOMCTL_getpageframeinfo3, 1), -E2BIG);
    op.u.paging_mempool.size = 5000;
    assert_int_equal(ctl(XEN_DOMCTL_set_paging_mempool_size, 1), -EINVAL);
    op.u.paging_mempool.size = 3 << 20;
    assert_int_equal(ctl(XEN_DOMCTL_set_paging_mempool_size, 1), 0);
    op.u.paging_mempool.size = 0;
    assert_int_equal(ctl(XEN_DOMCTL_get_paging_mempool_size, 1), 0);
    assert_int_equal(op.u.paging_mempool.size, 3 << 20);

    struct xen_domctl_shadow_op *s = &op.u.shadow_op;
    memset(s, 0, sizeof(*s));
    s->op = XEN_DOMCTL_SHADOW_OP_GET_ALLOCATION;
    assert_int_equal(ctl(XEN_DOMCTL_shadow_op, 1), 0);
    assert_int_equal(s->mb, 3);
    s->op = XEN_DOMCTL_SHADOW_OP_CLEAN;
    assert_int_equal(ctl(XEN_DOMCTL_shadow_op, 1), -EINVAL); /* not logging */
    s->op = XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY;
    assert_int_equal(ctl(XEN_DOMCTL_shadow_op, 1), 0);
    assert_int_equal(ctl(XEN_DOMCTL_shadow_op, 1), -EINVAL); /* twice */
    s->op = XEN_DOMCTL_SHADOW_OP_CLEAN;
    s->pages = 100000;
    s->dirty_bitmap.p = bits;
    assert_int_equal(ctl(XEN_DOMCTL_shadow_op, 1), 0);
    assert_int_equal(s->pages, 10000);
    assert_int_equal(s->stats.dirty_count, 10000);
    assert_int_equal(bits[0] | bits[512] << 8 | bits[1024] << 16, 0x030201);
    assert_int_equal(bits[1250], 0);
    s->dirty_bitmap.p = (void *)BAD_POINTER;
    assert_int_equal(ctl(XEN_DOMCTL_shadow_op, 1), -EFAULT);
    s->op = XEN_DOMCTL_SHADOW_OP_OFF;
    assert_int_equal(ctl(XEN_DOMCTL_shadow_op, 1), 0);
    assert_false(dirty_on);
    assert_int_equal(domains[1].pause_count, 0);
}

/* ---- multicall, xen_version
 * --------------------------------------------------------------------------------- */
static long multicall(struct vcpu *v, void *list, unsigned n)
{
    uint64_t arg[6] = {(uint64_t)list, n};
    long rc;

    do { /* as the entry code does: arguments from registers each time */
        v->regs.gpr[v->compat ? RBX : RDI] = arg[0];
        v->regs.gpr[v->compat ? RCX : RSI] = arg[1];
        memcpy(next_arg, arg, sizeof(arg));
        v->hypercall_restart = false;
        rc = do_multicall(v, arg);
        if (v->hypercall_restart)
            memcpy(arg, next_arg, sizeof(arg));
        continuations += v->hypercall_restart;
    } while (v->hypercall_restart);
    return rc;
}

static void multicalls(void **state)
{
    static const struct multicall_entry wide[] = {{40, 0, {7}},
                                                  {99, 0, {0}},
                                                  {__HYPERVISOR_multicall, 0, {0}},
                                                  {40, 0, {9}},
                                                  {1ULL << 40, 0, {0}}};
    struct compat_multicall_entry narrow[5];

    (void)state;
    for (unsigned i = 0; i < 5; i++)
        narrow[i] =
            (struct compat_multicall_entry){(uint32_t)wide[i].op, 0, {(uint32_t)wide[i].args[0]}};
    narrow[4].op = 99;
    for (int compat = 0; compat < 2; compat++) {
        struct multicall_entry *w = guest_alloc(wide, sizeof(wide));
        struct compat_multicall_entry *c = guest_alloc(narrow, sizeof(narrow));
        static const long expect[] = {9, -ENOSYS, -EINVAL, 9, -ENOSYS};
        vcpus[1].compat = compat;
        dispatch_restarts = 2;
        preempt_every = 2;
        assert_int_equal(multicall(&vcpus[1], compat ? (void *)c : (void *)w, 5), 0);
        for (unsigned i = 0; i < 5; i++)
            assert_int_equal(compat ? (long)(int32_t)c[i].result : (long)w[i].result, expect[i]);
        assert_int_equal(multicall(&vcpus[1], (void *)BAD_POINTER, 1), -EFAULT);
        assert_int_equal(multicall(&vcpus[1], arena + ARENA_BYTES - 32, 3), -EFAULT);
        assert_int_equal(multicall(&vcpus[1], (void *)BAD_POINTER, 0), 0);
    }
    assert_true(continuations >= 6);
}

static void version(void **state)
{
    char *p = guest_alloc(NULL, 2048);
    struct xen_feature_info f = {0}, *fp = guest_alloc(&f, sizeof(f));

    (void)state;
    assert_int_equal(call(do_xen_version, &vcpus[1], XENVER_version, 0), 4 << 16 | 17);
    assert_int_equal(call(do_xen_version, &vcpus[1], XENVER_pagesize, 0), 4096);
    assert_int_equal(call(do_xen_version, &vcpus[0], XENVER_commandline, (uint64_t)p), 0);
    assert_non_null(strstr(p, "dom0_mem="));
    assert_int_equal(call(do_xen_version, &vcpus[0], XENVER_capabilities, (uint64_t)p), 0);
    assert_non_null(strstr(p, "hvm-3.0-x86_64"));
    assert_int_equal(call(do_xen_version, &vcpus[0], XENVER_extraversion, (uint64_t)p), 0);
    assert_int_equal(p[0], '.');
    assert_int_equal(call(do_xen_version, &vcpus[0], XENVER_compile_info, (uint64_t)p), 0);
    memset(p, 0xff, 16);
    vcpus[1].compat = true;
    assert_int_equal(call(do_xen_version, &vcpus[1], XENVER_platform_parameters, (uint64_t)p), 0);
    assert_int_equal(p[3], 0);
    assert_int_equal((uint8_t)p[4], 0xff);
    assert_int_equal(call(do_xen_version, &vcpus[1], XENVER_get_features, (uint64_t)fp), 0);
    assert_true(fp->submap & BIT(XENFEAT_hvm_callback_vector));
    assert_false(fp->submap & BIT(XENFEAT_dom0) || fp->submap & BIT(XENFEAT_hvm_pirqs));
    assert_int_equal(call(do_xen_version, &vcpus[0], XENVER_get_features, (uint64_t)fp), 0);
    assert_true(fp->submap & BIT(XENFEAT_dom0));
    fp->submap_idx = 1;
    assert_int_equal(call(do_xen_version, &vcpus[0], XENVER_get_features, (uint64_t)fp), -EINVAL);
    for (unsigned cmd = 0; cmd < 12; cmd++)
        if (cmd != XENVER_version)
            assert_true(call(do_xen_version, &vcpus[0], cmd, BAD_POINTER) < 0);
    assert_int_equal(
        call(do_vm_assist, &vcpus[1], VMASST_CMD_enable, VMASST_TYPE_runstate_update_flag), 0);
    assert_int_equal(domains[1].vm_assist, 1 << 5);
    assert_int_equal(
        call(do_vm_assist, &vcpus[1], VMASST_CMD_disable, VMASST_TYPE_runstate_update_flag), 0);
    assert_int_equal(domains[1].vm_assist, 0);
    assert_int_equal(call(do_vm_assist, &vcpus[1], VMASST_CMD_enable, 2), -EINVAL);
}

#define T(f) cmocka_unit_test_setup_teardown(f, reset, audit)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(entry),  T(create),   T(life_cycle), T(vcpus_and_scheduling), T(contexts),
        T(policy), T(tsc_rate), T(memory),     T(multicalls),           T(version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
