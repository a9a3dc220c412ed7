/* storm.c: event channel and grant operations with random arguments, from both vCPUs, for ever.
 *
 * Two of these guests run at once, neighbours by number, so that what one offers the other finds. Arguments are mostly
 * near to what could be right: a port among the first 64, a handle, the neighbour's number. tests/boot/t5_storm.py
 * watches the lines "STORM n", and ends the guests in the middle of it.
 */
#include "micro.h"
#include <xen/xen.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/hvm/hvm_op.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/vcpu.h>

#define APIC(r)    MMIO32(0xfee00000 + (r))
#define ICR        0x300
#define ICR2       0x310
#define SAY_EVERY  1000
#define SHARED_GFN 0xb00ul
#define GRANTS_GFN 0xb10ul /* four frames of the grant table */
#define GRANTS     (4 * 512u)
#define OFFERED    0x1000ul /* pages that entries offer and copies use: 256, in RAM */
#define APERTURE   0x2000ul /* where the neighbour's are mapped: 256, in RAM, then 256 where there is none */
#define APERTURE2  0x40000ul

struct random {
    uint64_t state;
};
static volatile unsigned long done[2];
static unsigned self;
extern char ap_blob[], ap_blob_end[];
static uint8_t ap_stack_area[8192] __attribute__((aligned(16)));
uint32_t ap_stack; /* for ap.asm */

static unsigned pick(struct random *r, unsigned n)
{
    r->state ^= r->state << 13;
    r->state ^= r->state >> 7;
    r->state ^= r->state << 17;
    return (unsigned)(r->state >> 20) % n;
}
/* One of the first n, now and then anything. */
static unsigned near(struct random *r, unsigned n) { return pick(r, 50) ? pick(r, n) : (unsigned)(r->state >> 16); }
static domid_t domid(struct random *r)
{
    static const domid_t odd[] = { 0, DOMID_SELF, DOMID_IO, DOMID_XEN, DOMID_INVALID, DOMID_COW, DOMID_IDLE };
    unsigned n = pick(r, 16);
    return (domid_t)(n < 7 ? self - 1 + 2 * (n & 1) : n < 9 ? self : n < 14 ? odd[pick(r, 7)] : near(r, 10));
}
static unsigned long gfn(struct random *r) { return (pick(r, 2) ? APERTURE : APERTURE2) + pick(r, 256); }

static void event_op(struct random *r)
{
    union {
        evtchn_bind_interdomain_t bind;
        evtchn_bind_virq_t virq;
        evtchn_bind_ipi_t ipi;
        evtchn_close_t close;
        evtchn_send_t send;
        evtchn_status_t status;
        evtchn_alloc_unbound_t alloc;
        evtchn_bind_vcpu_t vcpu;
        evtchn_unmask_t unmask;
        evtchn_reset_t reset;
        evtchn_init_control_t control;
        evtchn_expand_array_t array;
        evtchn_set_priority_t priority;
        uint32_t words[8];
    } u;
    unsigned op = pick(r, 20);
    for (unsigned i = 0; i < 8; i++) u.words[i] = near(r, 64);
    switch (op) {
    case EVTCHNOP_bind_interdomain:
        u.bind.remote_dom = domid(r);
        break;
    case EVTCHNOP_bind_virq:
        u.virq.virq = near(r, 24);
        u.virq.vcpu = near(r, 2);
        break;
    case EVTCHNOP_bind_ipi:
        u.ipi.vcpu = near(r, 2);
        break;
    case EVTCHNOP_status:
        u.status.dom = domid(r);
        break;
    case EVTCHNOP_alloc_unbound:
        u.alloc.dom = pick(r, 3) ? DOMID_SELF : domid(r);
        u.alloc.remote_dom = domid(r);
        break;
    case EVTCHNOP_bind_vcpu:
        u.vcpu.vcpu = near(r, 2);
        break;
    case EVTCHNOP_reset: /* rarely: nothing else would ever be long-lived */
        if (pick(r, 400)) op = EVTCHNOP_send;
        u.reset.dom = domid(r);
        break;
    case EVTCHNOP_init_control:
        u.control.control_gfn = OFFERED + pick(r, 256);
        u.control.offset = pick(r, 3) ? pick(r, 512) * 8 : near(r, 4096);
        u.control.vcpu = near(r, 2);
        break;
    case EVTCHNOP_expand_array:
        u.array.array_gfn = OFFERED + pick(r, 256);
        break;
    case EVTCHNOP_set_priority:
        u.priority.priority = near(r, 16);
        break;
    default:
        op = pick(r, 4) ? EVTCHNOP_send : op;
    }
    hypercall(__HYPERVISOR_event_channel_op, op, pick(r, 200) ? (unsigned long)&u : r->state, 0, 0, 0);
}

/* The guest's own part: an entry offered or taken back, whether or not it is in use. */
static void offer(struct random *r)
{
    static const uint16_t types[] = { GTF_permit_access, GTF_permit_access,   GTF_permit_access | GTF_readonly,
                                      GTF_invalid,       GTF_accept_transfer, GTF_transitive };
    volatile grant_entry_v1_t *e = (void *)(GRANTS_GFN << 12);
    unsigned n = pick(r, 64) + (pick(r, 8) ? 0 : pick(r, GRANTS - 64));
    if (pick(r, 20))
        e[n].frame = (uint32_t)(OFFERED + pick(r, 256));
    else
        e[n].frame = (uint32_t)(pick(r, 2) ? gfn(r) : r->state);
    e[n].domid = domid(r);
    e[n].flags = types[pick(r, 6)];
}

static void copy_side(struct random *r, struct gnttab_copy *c, bool source)
{
    bool ref = pick(r, 2);
    unsigned frame = ref ? near(r, 64) : (unsigned)(pick(r, 4) ? OFFERED + pick(r, 256) : gfn(r));
    domid_t dom = ref ? domid(r) : DOMID_SELF;
    uint16_t offset = (uint16_t)near(r, 4096);
    if (source) {
        c->source.u.gmfn = frame, c->source.domid = dom, c->source.offset = offset;
        c->flags = ref ? GNTCOPY_source_gref : 0;
    } else {
        c->dest.u.gmfn = frame, c->dest.domid = dom, c->dest.offset = offset;
        c->flags |= ref ? GNTCOPY_dest_gref : 0;
    }
}

/* A vCPU's arguments. */
enum { MOST = 20 };
static union arguments {
    gnttab_map_grant_ref_t map[MOST];
    gnttab_unmap_grant_ref_t unmap[MOST];
    gnttab_copy_t copy[MOST];
    gnttab_swap_grant_ref_t swap[MOST];
    gnttab_setup_table_t setup;
    gnttab_query_size_t size;
    gnttab_set_version_t set;
    gnttab_get_version_t get;
    gnttab_get_status_frames_t status;
    uint64_t words[MOST * 6];
} arguments[2];

static void grant_op(struct random *r, unsigned cpu)
{
    static uint64_t frames[64];
    union arguments *u = &arguments[cpu];
    unsigned op = pick(r, 14), n = pick(r, 4) ? 1 : pick(r, MOST + 1), count = n;
    if (!pick(r, 50)) count = (unsigned)r->state | 1u << 31;
    if (pick(r, 3)) /* the three that matter */
        op = (const unsigned[]){ GNTTABOP_map_grant_ref, GNTTABOP_unmap_grant_ref, GNTTABOP_copy }[pick(r, 3)];
    for (unsigned i = 0; i < n; i++) {
        switch (op) {
        case GNTTABOP_map_grant_ref:
            u->map[i].host_addr = gfn(r) << 12 | (pick(r, 50) ? 0 : pick(r, 4096));
            u->map[i].flags = pick(r, 10) ? GNTMAP_host_map | (pick(r, 3) ? 0 : GNTMAP_readonly) : near(r, 64);
            u->map[i].ref = near(r, 64);
            u->map[i].dom = domid(r);
            break;
        case GNTTABOP_unmap_grant_ref:
            u->unmap[i].handle = near(r, 300);
            u->unmap[i].host_addr = pick(r, 3) ? 0 : gfn(r) << 12;
            u->unmap[i].dev_bus_addr = pick(r, 4) ? 0 : near(r, 4096);
            break;
        case GNTTABOP_copy:
            copy_side(r, &u->copy[i], true);
            copy_side(r, &u->copy[i], false);
            u->copy[i].len = (uint16_t)near(r, 2048);
            break;
        case GNTTABOP_swap_grant_ref:
            u->swap[i].ref_a = near(r, 64);
            u->swap[i].ref_b = near(r, 64);
            break;
        case GNTTABOP_setup_table:
            u->setup.dom = domid(r);
            u->setup.nr_frames = near(r, 8);
            u->setup.frame_list.p = (void *)frames;
            break;
        default:
            for (unsigned w = 0; w < 4; w++) u->words[i * 4 + w] = near(r, 16);
        }
    }
    hypercall(__HYPERVISOR_grant_table_op, op, pick(r, 200) ? (unsigned long)u : r->state, count, 0, 0);
}

/* What is mapped is used: the pages must be there as long as the mapping is. */
static void touch(void *where) { *(volatile unsigned long *)where += 1; }

static void other_op(struct random *r)
{
    struct xen_remove_from_physmap remove = { .domid = DOMID_SELF, .gpfn = gfn(r) };
    struct sched_poll poll = { .nr_ports = 1, .timeout = 1 };
    evtchn_port_t port = near(r, 64);
    vcpu_set_singleshot_timer_t timer = { .timeout_abs_ns = 1 };
    switch (pick(r, 4)) {
    case 0:
        hypercall(__HYPERVISOR_memory_op, XENMEM_remove_from_physmap, (unsigned long)&remove, 0, 0, 0);
        break;
    case 1:
        poll.ports.p = &port;
        hypercall(__HYPERVISOR_sched_op, SCHEDOP_poll, (unsigned long)&poll, 0, 0, 0);
        break;
    case 2:
        hypercall(__HYPERVISOR_vcpu_op, VCPUOP_set_singleshot_timer, pick(r, 2), (unsigned long)&timer, 0, 0);
        break;
    default: /* the AP catches no exceptions */
        if (APIC(0x20) == 0) caught(touch, (void *)((APERTURE + pick(r, 256)) << 12));
    }
}

static void storm(unsigned cpu)
{
    struct random r = { .state = rdtsc() * 2654435761u + self * 7919 + cpu + 1 };
    for (unsigned long n = 1;; n++) {
        switch (pick(&r, 8)) {
        case 0:
        case 1:
        case 2:
            event_op(&r);
            break;
        case 3:
        case 4:
        case 5:
            grant_op(&r, cpu);
            break;
        case 6:
            offer(&r);
            break;
        default:
            other_op(&r);
        }
        done[cpu] = n;
        if (!cpu && n % SAY_EVERY == 0) say("STORM %lu %lu", n, done[1]);
    }
}

void ap_main(void)
{
    APIC(0xf0) = 0x1ff;
    storm(1);
}

static bool map(unsigned space, unsigned long idx, unsigned long at)
{
    struct xen_add_to_physmap op = { .domid = DOMID_SELF, .space = space, .idx = idx, .gpfn = at };
    return !hypercall(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, (unsigned long)&op, 0, 0, 0);
}

static void start(void)
{
    if (!xen_base) {
        skip("no hypervisor");
        return;
    }
    self = cpuid(xen_base + 4, 0).c;
    bool ok = map(XENMAPSPACE_shared_info, 0, SHARED_GFN);
    for (unsigned i = 0; i < 4; i++) ok &= map(XENMAPSPACE_grant_table, i, GRANTS_GFN + i);
    if (!ok) {
        fail("no shared pages");
        return;
    }
    APIC(0xf0) = 0x1ff;
    ap_stack = (uint32_t)(unsigned long)ap_stack_area + sizeof ap_stack_area;
    memcpy((void *)0x8000, ap_blob, (size_t)(ap_blob_end - ap_blob));
    APIC(ICR) = 0xc4500;
    delay_us(10000);
    APIC(ICR) = 0xc4608;
    say("STORM 0 0");
    storm(0);
}

const struct test tests[] = {
    { "storm", start },
    { 0 },
};
