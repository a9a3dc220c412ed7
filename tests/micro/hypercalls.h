/* hypercalls.h: the tests of hyper32.c and hyper64.c: what an unprivileged guest may ask, and that nonsense gets
 * the ABI's errno and changes nothing. */
#include "micro.h"
#include <xen/xen.h>
#include <xen/version.h>
#include <xen/memory.h>
#include <xen/event_channel.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/sched.h>
#include <xen/grant_table.h>
#include <xen/vcpu.h>

enum {
    X_EPERM = 1,
    X_ENOENT = 2,
    X_ESRCH = 3,
    X_EFAULT = 14,
    X_EINVAL = 22,
    X_ENOSYS = 38,
    X_EOPNOTSUPP = 95,
    X_EACCES = 13
};

/* A pointer that no mapping has (64-bit: canonical and not mapped; 32-bit: above all RAM, without paging). */
#define NOWHERE              (M64 ? (void *)0x7f0000000000ull : (void *)0xd0000000ul)
#define CALL(nr, a, b, c, d) hypercall(nr, (unsigned long)(a), (unsigned long)(b), (unsigned long)(c), (unsigned long)(d), 0)
#define CHECK_CALL(call, expected)                                                                                          \
    do {                                                                                                                    \
        long r_ = (call);                                                                                                   \
        CHECK(r_ == (expected), #call ": %ld, not %ld", r_, (long)(expected));                                              \
    } while (0)

static void hc_version(void)
{
    long version = CALL(__HYPERVISOR_xen_version, XENVER_version, 0, 0, 0);
    CHECK(version >> 16 == 4, "version %lx", version);
    CHECK_EQ((unsigned long)version, cpuid(xen_base + 1, 0).a);
    static char extra[XEN_EXTRAVERSION_LEN];
    memset(extra, 0x7f, sizeof extra);
    CHECK_CALL(CALL(__HYPERVISOR_xen_version, XENVER_extraversion, extra, 0, 0), 0);
    bool ends = false;
    for (unsigned i = 0; i < sizeof extra; i++) ends |= extra[i] == 0;
    CHECK(ends, "no end of the string");
    struct xen_feature_info info = { .submap_idx = 0 };
    CHECK_CALL(CALL(__HYPERVISOR_xen_version, XENVER_get_features, &info, 0, 0), 0);
    CHECK(info.submap & 1u << 8, "no HVM callback vector: %x", info.submap); /* XENFEAT_hvm_callback_vector */
    CHECK_CALL(CALL(__HYPERVISOR_xen_version, XENVER_pagesize, 0, 0, 0), 4096);
}
static void hc_version_errors(void)
{
    CHECK_CALL(CALL(__HYPERVISOR_xen_version, 1000, 0, 0, 0), -X_ENOSYS);
    CHECK_CALL(CALL(__HYPERVISOR_xen_version, XENVER_extraversion, NOWHERE, 0, 0), -X_EFAULT);
    CHECK_CALL(CALL(__HYPERVISOR_xen_version, XENVER_get_features, NOWHERE, 0, 0), -X_EFAULT);
}
/* Device memory as a buffer: nothing is read or written there. */
static void hc_device_pointer(void)
{
    CHECK_CALL(CALL(__HYPERVISOR_xen_version, XENVER_extraversion, 0xfee00000ul, 0, 0), -X_EFAULT);
    CHECK_CALL(CALL(__HYPERVISOR_xen_version, XENVER_extraversion, 0xb8000ul, 0, 0), -X_EFAULT);
}
static long raw_call(unsigned long nr)
{
    long result;
    unsigned long b = 0, c = 0, d = 0;
    bool intel = cpuid(0, 0).c == 0x6c65746e;
#if M64
    if (intel)
        __asm__ volatile("vmcall"
                         : "=a"(result), "+b"(b), "+c"(c), "+d"(d)
                         : "a"(nr), "D"(0), "S"(0)
                         : "r8", "r10", "memory");
    else
        __asm__ volatile("vmmcall"
                         : "=a"(result), "+b"(b), "+c"(c), "+d"(d)
                         : "a"(nr), "D"(0), "S"(0)
                         : "r8", "r10", "memory");
#else
    if (intel)
        __asm__ volatile("vmcall" : "=a"(result), "+b"(b), "+c"(c), "+d"(d) : "a"(nr), "D"(0), "S"(0) : "memory");
    else
        __asm__ volatile("vmmcall" : "=a"(result), "+b"(b), "+c"(c), "+d"(d) : "a"(nr), "D"(0), "S"(0) : "memory");
#endif
    return result;
}
static void hc_numbers(void)
{
    static const uint32_t nobody[] = { 6, 27, 50, 55, 60, 64, 100, 0x1000, 0x7fffffff };
    for (unsigned i = 0; i < sizeof nobody / sizeof *nobody; i++) {
        long r = raw_call(nobody[i]);
        CHECK(r == -X_ENOSYS, "number %u: %ld", nobody[i], r);
    }
    CHECK_EQ(raw_call(__HYPERVISOR_xen_version), cpuid(xen_base + 1, 0).a);
}
static volatile long user_result;
static void user_call_kept(void)
{
    user_result = 0x1234;
    user_result = raw_call(__HYPERVISOR_xen_version);
    USER_EXIT();
}
static void hc_ring3(void)
{
    const struct fault *f = catch_user(user_call_kept);
    CHECK(f->vector == 0x80, "exception %u", f->vector);
    CHECK_EQ((unsigned long)user_result, (unsigned long)-X_EPERM);
}

/* ---- memory_op ---------------------------------------------------------------------------------------- */
static void hc_memory(void)
{
    domid_t self = DOMID_SELF, dom0 = 0, nobody = 0x7000;
    long pages = CALL(__HYPERVISOR_memory_op, XENMEM_current_reservation, &self, 0, 0);
    long gpfn = CALL(__HYPERVISOR_memory_op, XENMEM_maximum_gpfn, &self, 0, 0);
    CHECK(pages > 4096 && pages < 0x10000, "%ld pages", pages);
    CHECK(gpfn > 0x1000, "highest gfn %lx", gpfn);
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, 63, 0, 0, 0), -X_ENOSYS);
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_current_reservation, NOWHERE, 0, 0), -X_EFAULT);
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_current_reservation, &dom0, 0, 0), -X_EPERM);
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_current_reservation, &nobody, 0, 0), -X_ESRCH);
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_maximum_reservation, &dom0, 0, 0), -X_EPERM);
}
static void hc_memory_reservation(void)
{
    domid_t self = DOMID_SELF;
    long before = CALL(__HYPERVISOR_memory_op, XENMEM_current_reservation, &self, 0, 0);
    xen_pfn_t gfn = 0x1000000; /* nothing there */
    struct xen_memory_reservation r = { .nr_extents = 1, .domid = DOMID_SELF };
    set_xen_guest_handle(r.extent_start, &gfn);
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_decrease_reservation, NOWHERE, 0, 0), 0); /* as Xen: no extent done */
    r.domid = 0; /* an errno, or nothing done (Xen) */
    CHECK(CALL(__HYPERVISOR_memory_op, XENMEM_decrease_reservation, &r, 0, 0) <= 0, "a page of dom0");
    r.domid = 0x7000;
    CHECK(CALL(__HYPERVISOR_memory_op, XENMEM_decrease_reservation, &r, 0, 0) <= 0, "a page of nobody");
    r.domid = DOMID_SELF;
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_decrease_reservation, &r, 0, 0), 0); /* no extent done */
    r.extent_order = 40;
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_populate_physmap, &r, 0, 0), 0);
    r.extent_order = 0;
    set_xen_guest_handle(r.extent_start, (xen_pfn_t *)NOWHERE);
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_decrease_reservation, &r, 0, 0), 0);
    long after = CALL(__HYPERVISOR_memory_op, XENMEM_current_reservation, &self, 0, 0);
    CHECK_EQ((unsigned long)before, (unsigned long)after);
    /* Give a page away and get it back: it is zero then. */
    volatile uint32_t *page = (uint32_t *)0xa00000;
    page[0] = 0x11111111;
    gfn = 0xa00;
    set_xen_guest_handle(r.extent_start, &gfn);
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_decrease_reservation, &r, 0, 0), 1);
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_current_reservation, &self, 0, 0), before - 1);
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_decrease_reservation, &r, 0, 0), 0); /* gone already */
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_populate_physmap, &r, 0, 0), 1);
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_current_reservation, &self, 0, 0), before);
    CHECK(page[0] != 0x11111111, "the page is not new");
    page[0] = 0x22222222;
    CHECK_EQ(page[0], 0x22222222);
}
static void hc_memory_physmap(void)
{
    struct xen_add_to_physmap a = { .domid = DOMID_SELF, .space = 99, .gpfn = 0x2000 };
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, &a, 0, 0), -X_EINVAL);
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, NOWHERE, 0, 0), -X_EFAULT);
    a.space = XENMAPSPACE_shared_info;
    a.domid = 0;
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, &a, 0, 0), -X_EPERM);
    a.domid = DOMID_SELF;
    a.idx = 1;
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, &a, 0, 0), -X_EINVAL);
    a.idx = 0;
    a.gpfn = 0xb00; /* RAM of ours: replaced */
    volatile struct shared_info *info = (struct shared_info *)0xb00000;
    memset((void *)info, 0x5a, 4096);
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, &a, 0, 0), 0);
    struct xen_hvm_param via = { .domid = DOMID_SELF, .index = HVM_PARAM_CALLBACK_IRQ, .value = 2ull << 56 | 0x75 };
    CHECK_CALL(CALL(__HYPERVISOR_hvm_op, HVMOP_set_param, &via, 0, 0), 0); /* now the layout is ours */
    CHECK(info->wc_sec != 0x5a5a5a5a && info->wc_sec > 1000000000, "wall clock %u", info->wc_sec);
    CHECK(info->vcpu_info[0].time.tsc_to_system_mul, "no time in vcpu_info");
    struct xen_remove_from_physmap rm = { .domid = DOMID_SELF, .gpfn = 0xb00 };
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_remove_from_physmap, &rm, 0, 0), 0);
    xen_pfn_t gfn = 0xb00;
    struct xen_memory_reservation r = { .nr_extents = 1, .domid = DOMID_SELF };
    set_xen_guest_handle(r.extent_start, &gfn);
    CHECK_CALL(CALL(__HYPERVISOR_memory_op, XENMEM_populate_physmap, &r, 0, 0), 1);
}

/* ---- event channels ------------------------------------------------------------------------------------ */
static void hc_events(void)
{
    struct evtchn_alloc_unbound a = { .dom = DOMID_SELF, .remote_dom = DOMID_SELF };
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_alloc_unbound, &a, 0, 0), 0);
    CHECK(a.port > 0 && a.port < 1024, "port %u", a.port);
    struct evtchn_status s = { .dom = DOMID_SELF, .port = a.port };
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_status, &s, 0, 0), 0);
    CHECK_EQ(s.status, EVTCHNSTAT_unbound);
    struct evtchn_bind_interdomain b = { .remote_dom = DOMID_SELF, .remote_port = a.port };
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_interdomain, &b, 0, 0), 0);
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_status, &s, 0, 0), 0);
    CHECK_EQ(s.status, EVTCHNSTAT_interdomain);
    CHECK_EQ(s.u.interdomain.port, b.local_port);
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_interdomain, &b, 0, 0), -X_EINVAL); /* taken */
    struct evtchn_send send = { .port = b.local_port };
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_send, &send, 0, 0), 0);
    struct evtchn_close c = { .port = a.port };
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_close, &c, 0, 0), 0);
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_close, &c, 0, 0), -X_EINVAL);
    c.port = b.local_port;
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_close, &c, 0, 0), 0);
    struct evtchn_bind_ipi ipi = { .vcpu = 0 };
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_ipi, &ipi, 0, 0), 0);
    struct evtchn_bind_virq virq = { .virq = VIRQ_TIMER, .vcpu = 0 };
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_virq, &virq, 0, 0), 0);
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_virq, &virq, 0, 0), -17); /* EEXIST */
    c.port = ipi.port;
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_close, &c, 0, 0), 0);
    c.port = virq.port;
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_close, &c, 0, 0), 0);
}
static void hc_events_errors(void)
{
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, 77, 0, 0, 0), -X_ENOSYS);
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_send, NOWHERE, 0, 0), -X_EFAULT);
    struct evtchn_send send = { .port = 900 };
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_send, &send, 0, 0), -X_EINVAL);
    send.port = 0xffffffff;
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_send, &send, 0, 0), -X_EINVAL);
    send.port = 0;
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_send, &send, 0, 0), -X_EINVAL);
    struct evtchn_alloc_unbound a = { .dom = 0, .remote_dom = DOMID_SELF };
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_alloc_unbound, &a, 0, 0), -X_EPERM);
    a.dom = 0x7000;
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_alloc_unbound, &a, 0, 0), -X_ESRCH);
    struct evtchn_bind_interdomain b = { .remote_dom = 0, .remote_port = 1 };
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_interdomain, &b, 0, 0), -X_EINVAL); /* not for us */
    b.remote_dom = 0x7000;
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_interdomain, &b, 0, 0), -X_ESRCH);
    struct evtchn_bind_virq v = { .virq = 1000 };
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_virq, &v, 0, 0), -X_EINVAL);
    v.virq = VIRQ_DOM_EXC; /* dom0's */
    long r = CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_virq, &v, 0, 0);
    CHECK(r == -X_EPERM || r == 0, "VIRQ_DOM_EXC: %ld", r);
    if (!r) {
        struct evtchn_close c = { .port = v.port };
        CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_close, &c, 0, 0);
    }
    v.virq = VIRQ_TIMER;
    v.vcpu = 200;
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_virq, &v, 0, 0), -X_ENOENT);
    struct evtchn_bind_ipi ipi = { .vcpu = 99999 };
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_ipi, &ipi, 0, 0), -X_ENOENT);
    struct evtchn_close c = { .port = 1023 };
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_close, &c, 0, 0), -X_EINVAL);
    struct evtchn_unmask u = { .port = 5000 };
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_unmask, &u, 0, 0), -X_EINVAL);
    struct evtchn_reset reset = { .dom = 0 };
    CHECK_CALL(CALL(__HYPERVISOR_event_channel_op, EVTCHNOP_reset, &reset, 0, 0), -X_EPERM);
}

/* ---- hvm_op ------------------------------------------------------------------------------------------------ */
static void hc_hvm(void)
{
    struct xen_hvm_param p = { .domid = DOMID_SELF, .index = HVM_PARAM_STORE_PFN };
    CHECK_CALL(CALL(__HYPERVISOR_hvm_op, HVMOP_get_param, &p, 0, 0), 0);
    CHECK(p.value > 0x100, "store page %llx", (unsigned long long)p.value);
    p.index = HVM_NR_PARAMS;
    CHECK_CALL(CALL(__HYPERVISOR_hvm_op, HVMOP_get_param, &p, 0, 0), -X_EINVAL);
    p.index = 0xffffffff;
    CHECK_CALL(CALL(__HYPERVISOR_hvm_op, HVMOP_get_param, &p, 0, 0), -X_EINVAL);
    p.index = HVM_PARAM_STORE_PFN;
    p.value = 1;
    CHECK_CALL(CALL(__HYPERVISOR_hvm_op, HVMOP_set_param, &p, 0, 0), -X_EPERM);
    p.index = HVM_PARAM_IDENT_PT;
    CHECK_CALL(CALL(__HYPERVISOR_hvm_op, HVMOP_set_param, &p, 0, 0), -X_EPERM);
    CHECK_CALL(CALL(__HYPERVISOR_hvm_op, HVMOP_get_param, &p, 0, 0), -X_EPERM);
    p.domid = 0;
    p.index = HVM_PARAM_STORE_PFN;
    CHECK_CALL(CALL(__HYPERVISOR_hvm_op, HVMOP_get_param, &p, 0, 0), -X_EPERM);
    p.domid = 0x7000;
    CHECK_CALL(CALL(__HYPERVISOR_hvm_op, HVMOP_get_param, &p, 0, 0), -X_ESRCH);
    CHECK_CALL(CALL(__HYPERVISOR_hvm_op, HVMOP_get_param, NOWHERE, 0, 0), -X_EFAULT);
    CHECK_CALL(CALL(__HYPERVISOR_hvm_op, 200, 0, 0, 0), -X_ENOSYS);
    struct xen_hvm_evtchn_upcall_vector up = { .vcpu = 0, .vector = 5 };
    CHECK_CALL(CALL(__HYPERVISOR_hvm_op, HVMOP_set_evtchn_upcall_vector, &up, 0, 0), -X_EINVAL);
    up.vector = 0x70;
    up.vcpu = 500;
    CHECK_CALL(CALL(__HYPERVISOR_hvm_op, HVMOP_set_evtchn_upcall_vector, &up, 0, 0), -X_ENOENT);
}

/* ---- sched_op, vcpu_op ---------------------------------------------------------------------------------------- */
static void hc_sched(void)
{
    CHECK_CALL(CALL(__HYPERVISOR_sched_op, SCHEDOP_yield, 0, 0, 0), 0);
    CHECK_CALL(CALL(__HYPERVISOR_sched_op, 99, 0, 0, 0), -X_ENOSYS);
    CHECK_CALL(CALL(__HYPERVISOR_sched_op, SCHEDOP_shutdown, NOWHERE, 0, 0), -X_EFAULT);
    struct sched_poll poll = { .nr_ports = 1000 };
    CHECK_CALL(CALL(__HYPERVISOR_sched_op, SCHEDOP_poll, &poll, 0, 0), -X_EINVAL);
    CHECK_CALL(CALL(__HYPERVISOR_sched_op, SCHEDOP_poll, NOWHERE, 0, 0), -X_EFAULT);
    evtchn_port_t port = 100000;
    poll.nr_ports = 1;
    set_xen_guest_handle(poll.ports, &port);
    CHECK_CALL(CALL(__HYPERVISOR_sched_op, SCHEDOP_poll, &poll, 0, 0), -X_EINVAL);
    struct sched_remote_shutdown remote = { .domain_id = 0, .reason = SHUTDOWN_poweroff };
    CHECK_CALL(CALL(__HYPERVISOR_sched_op, SCHEDOP_remote_shutdown, &remote, 0, 0), -X_EPERM);
    CHECK_CALL(CALL(__HYPERVISOR_vcpu_op, VCPUOP_is_up, 0, 0, 0), 1);
    CHECK_CALL(CALL(__HYPERVISOR_vcpu_op, VCPUOP_is_up, 100, 0, 0), -X_ENOENT);
    CHECK_CALL(CALL(__HYPERVISOR_vcpu_op, 99, 0, 0, 0), -X_ENOSYS);
    CHECK_CALL(CALL(__HYPERVISOR_vcpu_op, VCPUOP_get_runstate_info, 0, NOWHERE, 0), -X_EFAULT);
    struct vcpu_runstate_info state;
    CHECK_CALL(CALL(__HYPERVISOR_vcpu_op, VCPUOP_get_runstate_info, 0, &state, 0), 0);
    CHECK_EQ(state.state, RUNSTATE_running);
    CHECK(state.time[RUNSTATE_running] > 0, "no time running");
}

/* ---- grant tables -------------------------------------------------------------------------------------------- */
static void hc_grant(void)
{
    CHECK_CALL(CALL(__HYPERVISOR_grant_table_op, 99, 0, 1, 0), -X_ENOSYS);
    struct gnttab_query_size q = { .dom = DOMID_SELF };
    CHECK_CALL(CALL(__HYPERVISOR_grant_table_op, GNTTABOP_query_size, &q, 1, 0), 0);
    CHECK_EQ((unsigned)q.status, (unsigned)GNTST_okay);
    CHECK(q.max_nr_frames >= 4 && q.max_nr_frames <= 1024, "%u frames", q.max_nr_frames);
    q.dom = 0;
    q.status = 0;
    CHECK_CALL(CALL(__HYPERVISOR_grant_table_op, GNTTABOP_query_size, &q, 1, 0), 0);
    CHECK_EQ((unsigned)q.status, (unsigned)GNTST_permission_denied);
    CHECK_CALL(CALL(__HYPERVISOR_grant_table_op, GNTTABOP_query_size, NOWHERE, 1, 0), -X_EFAULT);
    struct gnttab_map_grant_ref m = { .host_addr = 0xc00000, .flags = GNTMAP_host_map, .ref = 8, .dom = 0x7000 };
    CHECK_CALL(CALL(__HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref, &m, 1, 0), 0);
    CHECK_EQ((unsigned)m.status, (unsigned)GNTST_bad_domain);
    m.dom = 0;
    m.ref = 0x7fffffff;
    CHECK_CALL(CALL(__HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref, &m, 1, 0), 0);
    CHECK_EQ((unsigned)m.status, (unsigned)GNTST_bad_gntref);
    m.flags = 0;
    CHECK_CALL(CALL(__HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref, &m, 1, 0), 0);
    CHECK_EQ((unsigned)m.status, (unsigned)GNTST_bad_gntref);
    struct gnttab_unmap_grant_ref u = { .host_addr = 0xc00000, .handle = 0x123456 };
    CHECK_CALL(CALL(__HYPERVISOR_grant_table_op, GNTTABOP_unmap_grant_ref, &u, 1, 0), 0);
    CHECK_EQ((unsigned)u.status, (unsigned)GNTST_bad_handle);
    struct gnttab_copy c = { .source = { .u.ref = 9999, .domid = 0 },
                             .dest = { .u.gmfn = 0xa00, .domid = DOMID_SELF },
                             .len = 16,
                             .flags = GNTCOPY_source_gref };
    volatile uint32_t *page = (uint32_t *)0xa00000;
    page[0] = 0x33333333;
    CHECK_CALL(CALL(__HYPERVISOR_grant_table_op, GNTTABOP_copy, &c, 1, 0), 0);
    CHECK((int16_t)c.status < 0, "copy from a reference that is not there: %x", c.status);
    CHECK_EQ(page[0], 0x33333333);
    c.source.domid = 0;
    c.source.u.gmfn = 0x100; /* dom0's memory by frame number: never */
    c.flags = 0;
    CHECK_CALL(CALL(__HYPERVISOR_grant_table_op, GNTTABOP_copy, &c, 1, 0), 0);
    CHECK_EQ((unsigned)(int)c.status, (unsigned)GNTST_permission_denied);
    CHECK_EQ(page[0], 0x33333333);
}

/* ---- what is not for guests ------------------------------------------------------------------------------------ */
static void hc_privileged(void)
{
    static uint8_t zero[256];
    long r = CALL(__HYPERVISOR_domctl, zero, 0, 0, 0);
    CHECK(r == -X_EPERM || r == -X_EACCES || r == -X_ENOSYS, "domctl: %ld", r);
    r = CALL(__HYPERVISOR_sysctl, zero, 0, 0, 0);
    CHECK(r == -X_EPERM || r == -X_EACCES || r == -X_ENOSYS, "sysctl: %ld", r);
    r = CALL(__HYPERVISOR_platform_op, zero, 0, 0, 0);
    CHECK(r == -X_EPERM || r == -X_EACCES || r == -X_ENOSYS, "platform_op: %ld", r);
    *(uint32_t *)zero = 0x15; /* the version of 4.17, and an operation that destroys dom0 */
    r = CALL(__HYPERVISOR_domctl, zero, 0, 0, 0);
    CHECK(r == -X_EPERM || r == -X_EACCES || r == -X_ENOSYS || r == -X_ESRCH, "domctl: %ld", r);
    r = CALL(__HYPERVISOR_dm_op, 0, 0, 0, 0);
    CHECK(r < 0, "dm_op on dom0: %ld", r);
    r = CALL(__HYPERVISOR_dm_op, DOMID_SELF, 0, 0, 0);
    CHECK(r < 0, "dm_op on itself: %ld", r);
    r = CALL(__HYPERVISOR_physdev_op, 1000, zero, 0, 0);
    CHECK(r == -X_ENOSYS, "physdev_op: %ld", r);
}
static void hc_multicall(void)
{
    struct multicall_entry e[3] = {
        { .op = __HYPERVISOR_xen_version, .args = { XENVER_version } },
        { .op = 60 },
        { .op = __HYPERVISOR_xen_version, .args = { XENVER_extraversion, (unsigned long)NOWHERE } },
    };
    CHECK_CALL(CALL(__HYPERVISOR_multicall, e, 3, 0, 0), 0);
    CHECK_EQ((unsigned long)e[0].result, cpuid(xen_base + 1, 0).a);
    CHECK_EQ((unsigned long)e[1].result, (unsigned long)-X_ENOSYS);
    CHECK_EQ((unsigned long)e[2].result, (unsigned long)-X_EFAULT);
    CHECK_CALL(CALL(__HYPERVISOR_multicall, NOWHERE, 3, 0, 0), -X_EFAULT);
}

const struct test tests[] = {
    { "hc_version", hc_version },
    { "hc_version_errors", hc_version_errors },
    { "hc_device_pointer", hc_device_pointer },
    { "hc_numbers", hc_numbers },
    { "hc_ring3", hc_ring3 },
    { "hc_memory", hc_memory },
    { "hc_memory_reservation", hc_memory_reservation },
    { "hc_memory_physmap", hc_memory_physmap },
    { "hc_events", hc_events },
    { "hc_events_errors", hc_events_errors },
    { "hc_hvm", hc_hvm },
    { "hc_sched", hc_sched },
    { "hc_grant", hc_grant },
    { "hc_privileged", hc_privileged },
    { "hc_multicall", hc_multicall },
    { 0 },
};
