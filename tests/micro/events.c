/* events.c: how a guest is told of its event channels: the callback by GSI and by PCI INTx (irqs.c has their edges), by
 * vector, and a vector for each vCPU; masks; the FIFO ABI and its priorities. And what grant tables refuse. 64-bit code, two
 * CPUs; the order counts: nothing leads back from a vCPU's own vector, nor from the FIFO. */
#include "board.h"
#include <xen/xen.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/memory.h>

#define DEV      5
#define PIN      1
#define INTX_GSI (16 + ((DEV * 4 + DEV / 8 + PIN) & 31))
#define FREE_GSI 10
#define CALLBACK 0xf3
#define OWN(cpu) (0x71 + 0x11 * (cpu))

static volatile struct shared_info *const info = (struct shared_info *)0xb00000;
static struct evtchn_fifo_control_block *const block = (struct evtchn_fifo_control_block *)0xb10000;
static volatile event_word_t *const word = (volatile event_word_t *)0xb11000;
extern char ap_blob[], ap_blob_end[];
static char stack[16384] __attribute__((aligned(16)));
uint32_t ap_stack;
static volatile unsigned ap_up;
static evtchn_port_t port[2]; /* an IPI port of each CPU */
static struct {
    volatile unsigned came, vector, in_service;
} seen[2];

static long event_op(unsigned op, void *arg)
{
    return hypercall(__HYPERVISOR_event_channel_op, op, (unsigned long)arg, 0, 0, 0);
}
static long grant_op(unsigned op, void *arg)
{
    return hypercall(__HYPERVISOR_grant_table_op, op, (unsigned long)arg, 1, 0, 0);
}
static long set_callback(uint64_t value)
{
    struct xen_hvm_param via = { .domid = DOMID_SELF, .index = HVM_PARAM_CALLBACK_IRQ, .value = value };
    return hypercall(__HYPERVISOR_hvm_op, HVMOP_set_param, (unsigned long)&via, 0, 0, 0);
}
static unsigned me(void) { return APIC(0x20) >> 24 ? 1 : 0; }
static void send(evtchn_port_t p)
{
    struct evtchn_send op = { .port = p };
    event_op(EVTCHNOP_send, &op);
}
static bool in_service(unsigned vector) { return APIC(0x100 + 0x10 * (vector / 32)) >> vector % 32 & 1; }

/* Every upcall's handler: takes its CPU's own port and notes how it came. */
static void on_upcall(struct frame *f)
{
    unsigned vector = f->vector & 0xff, cpu = vector == OWN(1);
    info->vcpu_info[cpu].evtchn_upcall_pending = 0;
    info->vcpu_info[cpu].evtchn_pending_sel = 0;
    __atomic_and_fetch((uint64_t *)&info->evtchn_pending[port[cpu] / 64], ~(1ull << port[cpu] % 64), __ATOMIC_SEQ_CST);
    seen[cpu].vector = me() == cpu ? vector : ~0u;
    seen[cpu].in_service = in_service(vector);
    if (seen[cpu].in_service) APIC(0xb0) = 0;
    seen[cpu].came++;
}
static bool ready(void)
{
    static const unsigned vectors[] = { 0x50, CALLBACK, OWN(0), OWN(1) };
    lapic_reset();
    pic_reset();
    for (unsigned i = 0; i < 4; i++) handlers[vectors[i]] = on_upcall;
    memset((void *)seen, 0, sizeof seen);
    if (port[0]) return true;
    struct xen_add_to_physmap map = { .domid = DOMID_SELF, .space = XENMAPSPACE_shared_info, .gpfn = 0xb00 };
    if (hypercall(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, (unsigned long)&map, 0, 0, 0)) return false;
    for (unsigned cpu = 0; cpu < 2; cpu++) {
        struct evtchn_bind_ipi ipi = { .vcpu = cpu };
        if (event_op(EVTCHNOP_bind_ipi, &ipi)) return false;
        port[cpu] = ipi.port;
    }
    return true;
}
/* After a send: it came once, by this vector, through the LAPIC or past it. */
static void came_once(unsigned vector, bool by_lapic)
{
    CHECK(seen[0].came == 1, "%u upcalls", seen[0].came);
    CHECK_EQ(seen[0].vector, vector);
    CHECK_EQ(seen[0].in_service, by_lapic);
}
static void by_line(unsigned gsi, uint64_t via)
{
    CHECK(ready(), "no event channels");
    CHECK(gsi <= (io_read(1) >> 16 & 0xff), "no pin %u", gsi);
    CHECK(!set_callback(via), "callback %llx refused", (unsigned long long)via);
    route(gsi, LEVEL | 0x50);
    send(port[0]);
    for (unsigned i = 0; i < 4; i++) window();
    route(gsi, MASKED);
    came_once(0x50, true);
}
static void callback_gsi(void) { by_line(FREE_GSI, FREE_GSI); }
static void callback_intx(void) { by_line(INTX_GSI, 1ull << 56 | DEV << 11 | PIN); }

/* Not through the LAPIC: neither TPR nor EOI has a part in it. */
static void callback_vector(void)
{
    CHECK(ready(), "no event channels");
    CHECK(set_callback(2ull << 56 | 5) < 0, "vector 5 taken");
    CHECK(!set_callback(2ull << 56 | CALLBACK), "refused");
    APIC(0x80) = 0xff;
    send(port[0]);
    CHECK(!seen[0].came, "with interrupts off");
    for (unsigned i = 0; i < 4; i++) window();
    APIC(0x80) = 0;
    came_once(CALLBACK, false);
}
/* A handler that leaves the guest before it clears upcall_pending; each upcall then is a new event's. */
static void on_slow_upcall(struct frame *f)
{
    cpuid(0, 0);
    on_upcall(f);
}
static void slow_handler(void)
{
    CHECK(ready(), "no event channels");
    handlers[CALLBACK] = on_slow_upcall;
    for (unsigned n = 1; n <= 3; n++) {
        send(port[0]);
        for (unsigned i = 0; i < 4; i++) window();
        CHECK(seen[0].came == n, "%u upcalls of %u", seen[0].came, n);
    }
}
static void masked_channel(void)
{
    CHECK(ready(), "no event channels");
    info->evtchn_mask[port[0] / 64] |= 1ull << port[0] % 64;
    send(port[0]);
    window();
    CHECK(!seen[0].came, "an upcall of a masked channel");
    CHECK(info->evtchn_pending[port[0] / 64] >> port[0] % 64 & 1, "not pending");
    struct evtchn_unmask unmask = { .port = port[0] };
    CHECK(!event_op(EVTCHNOP_unmask, &unmask), "unmask");
    window();
    came_once(CALLBACK, false);
}

void ap_main(void)
{
    lapic_reset();
    ap_up = 1;
    for (;;) __asm__ volatile("sti; hlt");
}
static bool start_other(void)
{
    ap_stack = (uint32_t)(unsigned long)stack + sizeof stack;
    memcpy((void *)0x8000, ap_blob, (size_t)(ap_blob_end - ap_blob));
    APIC(0x300) = 0xc4500; /* INIT and SIPI to all but self */
    delay_us(200);
    APIC(0x300) = 0xc4608;
    for (uint64_t from = rdtsc(); !ap_up && us_since(from) < 5000000;) pause();
    return ap_up;
}
static void vector_each(void)
{
    CHECK(ready() && start_other(), "no second CPU");
    for (unsigned cpu = 0; cpu < 2; cpu++) {
        struct xen_hvm_evtchn_upcall_vector up = { .vcpu = cpu, .vector = OWN(cpu) };
        CHECK(!hypercall(__HYPERVISOR_hvm_op, HVMOP_set_evtchn_upcall_vector, (unsigned long)&up, 0, 0, 0), "CPU %u", cpu);
    }
    APIC(0x80) = 0x80; /* above its class: the LAPIC holds it */
    send(port[0]);
    window();
    CHECK(!seen[0].came, "TPR does not count");
    APIC(0x80) = 0;
    window();
    came_once(OWN(0), true);
    CHECK(!seen[1].came, "the other CPU was told");
    send(port[1]);
    for (uint64_t from = rdtsc(); !seen[1].came && us_since(from) < 5000000;) pause();
    CHECK(seen[1].came == 1 && seen[1].vector == OWN(1) && seen[1].in_service, "CPU 1: %u upcalls, vector %x", seen[1].came,
          seen[1].vector);
    CHECK_EQ(seen[0].came, 1);
}

/* The next event by the ABI: of the most urgent queue that is ready, the first; 0: none. */
static unsigned fifo_take(void)
{
    for (unsigned q = 0; q < EVTCHN_FIFO_MAX_QUEUES; q++) {
        if (!(*(volatile uint32_t *)&block->ready >> q & 1)) continue;
        unsigned p = *(volatile uint32_t *)&block->head[q];
        event_word_t w = __atomic_fetch_and(&word[p], ~(1u << EVTCHN_FIFO_LINKED | EVTCHN_FIFO_LINK_MASK), __ATOMIC_SEQ_CST);
        block->head[q] = w & EVTCHN_FIFO_LINK_MASK;
        if (!block->head[q]) __atomic_and_fetch(&block->ready, ~(1u << q), __ATOMIC_SEQ_CST);
        __atomic_and_fetch(&word[p], ~(1u << EVTCHN_FIFO_PENDING), __ATOMIC_SEQ_CST);
        return p;
    }
    return 0;
}
static void fifo_priorities(void)
{
    static const struct {
        int priority; /* -1: as it is by itself, 7 */
    } made[] = { { -1 }, { 15 }, { 0 }, { -1 }, { 3 } };
    static const unsigned sent[] = { 1, 0, 4, 0, 3, 2 }, want[] = { 2, 4, 0, 3, 1 };
    evtchn_port_t p[5];
    CHECK(ready(), "no event channels");
    memset(block, 0, 4096);
    memset((void *)word, 0, 4096);
    struct evtchn_init_control control = { .control_gfn = 0xb10, .offset = 0, .vcpu = 0 };
    CHECK(!event_op(EVTCHNOP_init_control, &control), "init_control");
    struct evtchn_expand_array array = { .array_gfn = 0xb11 };
    CHECK(!event_op(EVTCHNOP_expand_array, &array), "expand_array");
    for (unsigned i = 0; i < 5; i++) {
        struct evtchn_bind_ipi ipi = { .vcpu = 0 };
        CHECK(!event_op(EVTCHNOP_bind_ipi, &ipi), "bind_ipi");
        p[i] = ipi.port;
        struct evtchn_set_priority set = { .port = ipi.port, .priority = (uint32_t)made[i].priority };
        if (made[i].priority >= 0) CHECK(!event_op(EVTCHNOP_set_priority, &set), "set_priority");
        set.priority = EVTCHN_FIFO_PRIORITY_MIN + 1;
        CHECK(event_op(EVTCHNOP_set_priority, &set) == -22, "priority 16 taken");
    }
    for (unsigned i = 0; i < 6; i++) send(p[sent[i]]);
    window();
    CHECK(seen[0].came == 1, "%u upcalls for six events", seen[0].came);
    CHECK_EQ(block->ready, 1u << 0 | 1u << 3 | 1u << 7 | 1u << 15);
    for (unsigned i = 0; i < 5; i++) {
        unsigned got = fifo_take();
        CHECK(got == p[want[i]], "event %u is of port %u, not %u", i, got, p[want[i]]);
    }
    CHECK(!fifo_take(), "one too many");
    word[p[0]] |= 1u << EVTCHN_FIFO_MASKED;
    send(p[0]);
    window();
    CHECK(seen[0].came == 1 && !block->ready, "an upcall of a masked channel");
    struct evtchn_unmask unmask = { .port = p[0] };
    CHECK(!event_op(EVTCHNOP_unmask, &unmask), "unmask");
    window();
    CHECK(seen[0].came == 2, "%u upcalls", seen[0].came);
    CHECK_EQ(fifo_take(), p[0]);
}

/* A page is not given away: the call or its status says no, and it is still ours. */
static void grant_transfer(void)
{
    volatile uint64_t *page = (uint64_t *)0xb20000;
    struct gnttab_transfer transfer = { .mfn = 0xb20, .domid = 0, .ref = 8 };
    *page = 0x1122334455667788;
    long rc = grant_op(GNTTABOP_transfer, &transfer);
    CHECK(rc < 0 || (!rc && transfer.status < 0), "call %ld, status %d", rc, transfer.status);
    CHECK_EQ(*page, 0x1122334455667788);
    *page = 0;
    CHECK_EQ(*page, 0);
}
static void grant_versions(void)
{
    struct gnttab_set_version set = { .version = 3 };
    CHECK(grant_op(GNTTABOP_set_version, &set) < 0, "version 3 taken");
    set.version = 1;
    CHECK(!grant_op(GNTTABOP_set_version, &set), "version 1 refused");
    struct gnttab_get_version get = { .dom = DOMID_SELF };
    CHECK(!grant_op(GNTTABOP_get_version, &get), "get_version");
    CHECK_EQ(get.version, 1);
}

const struct test tests[] = {
    { "callback_gsi", callback_gsi },       { "callback_intx", callback_intx },
    { "callback_vector", callback_vector }, { "slow_handler", slow_handler },
    { "masked_channel", masked_channel },   { "vector_each", vector_each },
    { "fifo_priorities", fifo_priorities }, { "grant_transfer", grant_transfer },
    { "grant_versions", grant_versions },   { 0 },
};
