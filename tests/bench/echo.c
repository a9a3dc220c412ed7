/* echo.c: an event channel between two guests: started twice, the first guest halts and answers, the second measures
 * the way there and back as exits.c does ("BENCH event_guests v...").
 *
 * The guests find each other by number: each looks for a port that the domain before it keeps for it.
 */
#include "micro.h"
#include <xen/xen.h>
#include <xen/event_channel.h>
#include <xen/hvm/hvm_op.h>
#include <xen/memory.h>

#define BATCHES   11
#define ROUNDS    50
#define VEC_EVENT 0x53
#define PORTS     64 /* the partner's lie among its first */
#define SHARED    ((struct shared_info *)0xb00000)

volatile uint64_t stamp;
__asm__(".text\nstamp_event: push %rax; push %rdx; rdtsc; shl $32, %rdx; or %rdx, %rax; mov %rax, stamp\n"
        "mov $0xfee000b0, %eax; movl $0, (%rax); pop %rdx; pop %rax; iretq\n");
extern char stamp_event[];

static bool events_on(void)
{
    struct xen_add_to_physmap map = { .domid = DOMID_SELF, .space = XENMAPSPACE_shared_info, .gpfn = 0xb00 };
    struct xen_hvm_evtchn_upcall_vector up = { .vcpu = 0, .vector = VEC_EVENT };
    wrmsr(0x1b, rdmsr(0x1b) | 0x800);
    MMIO32(0xfee000f0) = 0x1ff;
    MMIO32(0xfee00080) = 0;
    idt_set(VEC_EVENT, stamp_event, 0);
    return !hypercall(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, (unsigned long)&map, 0, 0, 0) &&
           !hypercall(__HYPERVISOR_hvm_op, HVMOP_set_evtchn_upcall_vector, (unsigned long)&up, 0, 0, 0);
}

static void send(unsigned port)
{
    struct evtchn_send op = { .port = port };
    hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_send, (unsigned long)&op, 0, 0, 0);
}

/* The mark is cleared before looking: what comes later interrupts. */
static void wait(unsigned port)
{
    for (;;) {
        SHARED->vcpu_info[0].evtchn_upcall_pending = 0;
        SHARED->vcpu_info[0].evtchn_pending_sel = 0;
        __sync_synchronize();
        if (SHARED->evtchn_pending[0] & 1ul << port) break;
        __asm__ volatile("sti; hlt; cli" ::: "memory");
    }
    __atomic_and_fetch(&SHARED->evtchn_pending[0], ~(1ul << port), __ATOMIC_SEQ_CST);
}

static uint64_t trip(unsigned port)
{
    uint64_t begin = rdtsc();
    send(port);
    wait(port);
    return stamp - begin;
}

/* Answers for ever; the tools end it. */
static void serve(unsigned partner)
{
    struct evtchn_alloc_unbound alloc = { .dom = DOMID_SELF, .remote_dom = (domid_t)partner };
    if (hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_alloc_unbound, (unsigned long)&alloc, 0, 0, 0)) {
        fail("no port for domain %u", partner);
        return;
    }
    say("SERVING %u", partner);
    for (;;) {
        wait(alloc.port);
        send(alloc.port);
    }
}

static void measure(unsigned port)
{
    unsigned v[BATCHES];
    wait(port); /* binding says that something may be there */
    trip(port);
    for (unsigned b = 0; b < BATCHES; b++) {
        uint64_t sum = 0;
        for (unsigned i = 0; i < ROUNDS; i++) sum += trip(port);
        v[b] = (unsigned)(sum / ROUNDS);
    }
    say("BENCH event_guests %u %u %u %u %u %u %u %u %u %u %u", v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9],
        v[10]);
}

static void echo(void)
{
    if (!xen_base || !events_on()) {
        skip("no event channels");
        return;
    }
    unsigned self = cpuid(xen_base + 4, 0).c;
    for (unsigned port = 1; port < PORTS; port++) {
        struct evtchn_bind_interdomain bind = { .remote_dom = (domid_t)(self - 1), .remote_port = port };
        if (!hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_interdomain, (unsigned long)&bind, 0, 0, 0)) {
            measure(bind.local_port);
            return;
        }
    }
    serve(self + 1);
}

const struct test tests[] = {
    { "echo", echo },
    { 0 },
};
