/* sources: vmm/domain/evtchn.c vmm/domain/evtchn_2l.c vmm/domain/evtchn_fifo.c */
/* libs: -lpthread */
/* test_evtchn.c: two fake domains call every event channel operation, in both ABIs and both
 * layouts, and consume their events as the ABI's documents tell a guest to. What must hold: an
 * event set pending and not masked is always found by a guest that looks only when it was told;
 * connections are symmetric; nothing stays referenced or allocated at the end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "domain/evtchn.h"
#include "platform/platform.h"
#include "domain/callback.c" /* here, as the first line is full */
#include "domain/sched_op.c"

enum {
    DOMAINS = 2,
    VCPUS = 3,
    GFNS = 64, /* each domain's RAM; gfn 0 is its shared_info */
    FRAMES = DOMAINS * GFNS,
    GFN_CONTROL = 1,
    GFN_ARRAY = 8,
    GFN_INFO = 16,
    MAX_PORTS = 400,
};

struct cpu host_test_cpu;
struct page_info *frame_table;
mfn_t max_mfn = FRAMES;
char *host_test_ram;
struct domain *dom0;
static long allocations;
static struct domain domains[DOMAINS];
static struct vcpu vcpus[DOMAINS][VCPUS];
static unsigned kicks[DOMAINS][VCPUS], lapic_vectors[DOMAINS][VCPUS], xen_calls, virq_shutdowns;
static bool line_level;
static int preempt_after = -1;
static bool continued;
static uint64_t set_arg[6];
static uint64_t timer_at;

/* ---- what the rest of the hypervisor gives ---- */
void panic(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    abort();
}
void *kzalloc(size_t bytes)
{
    allocations++;
    return calloc(1, bytes);
}
void kfree(void *p)
{
    allocations -= p != NULL;
    free(p);
}
void *page_alloc(void)
{
    void *p = aligned_alloc(PAGE_SIZE, PAGE_SIZE);

    allocations++;
    return memset(p, 0, PAGE_SIZE);
}
void page_free(void *va)
{
    allocations--;
    free(va);
}
void page_put(struct page_info *pg)
{
    assert_true(pg->refs > 1);
    pg->refs--;
}
struct page_info *p2m_get_page(struct domain *d, gfn_t gfn, bool write, enum p2m_type *t)
{
    (void)write;
    if (gfn >= GFNS)
        return NULL;
    struct page_info *pg = mfn_to_page((mfn_t)(d - domains) * GFNS + gfn);
    *t = gfn == GFNS - 1 ? P2M_GRANT_RW : P2M_RAM;
    pg->refs++;
    return pg;
}
struct domain *domain_get(domid_t id)
{
    for (unsigned i = 0; i < DOMAINS; i++)
        if (domains[i].id == id) {
            domains[i].refs++;
            return &domains[i];
        }
    return NULL;
}
void domain_hold(struct domain *d)
{
    d->refs++;
}
void domain_put(struct domain *d)
{
    assert_true(d->refs > 1);
    d->refs--;
}
int domain_resolve(struct vcpu *caller, domid_t id, struct domain **out)
{
    *out = domain_get(id == DOMID_SELF ? caller->domain->id : id);
    if (!*out)
        return -ESRCH;
    if (*out != caller->domain && !caller->domain->privileged) {
        domain_put(*out);
        return -EPERM;
    }
    return 0;
}
void domain_shutdown(struct domain *d, int reason)
{
    (void)d;
    virq_shutdowns = (unsigned)reason + 100;
}
int copy_from_guest(void *dst, uint64_t gva, size_t bytes)
{
    if (gva < PAGE_SIZE)
        return bytes ? -EFAULT : 0;
    memcpy(dst, (void *)gva, bytes);
    return 0;
}
int copy_word_from_guest(struct vcpu *v, uint32_t *dst, uint64_t gva)
{
    (void)v;
    return copy_from_guest(dst, gva, sizeof(*dst));
}
int copy_to_guest(uint64_t gva, const void *src, size_t bytes)
{
    if (gva < PAGE_SIZE)
        return -EFAULT;
    memcpy((void *)gva, src, bytes);
    return 0;
}
bool hypercall_preempt_check(void)
{
    return preempt_after >= 0 && preempt_after-- == 0;
}
void hypercall_set_arg(struct vcpu *v, unsigned i, uint64_t value)
{
    (void)v;
    set_arg[i] = value;
}
long hypercall_continue(struct vcpu *v)
{
    (void)v;
    continued = true;
    return -ERESTART;
}
long hypercall_missing(struct vcpu *v, const char *group, unsigned op, long err)
{
    (void)v, (void)group, (void)op;
    return err;
}
/* Closing the emulator's end of a hypervisor port tells the ioreq servers. */
static unsigned emulators_closed;
void ioreq_emulator_closed(struct vcpu *v)
{
    (void)v;
    emulators_closed++;
}

void vcpu_kick(struct vcpu *v, uint32_t work)
{
    assert_int_equal(work, VWORK_EVENT);
    atomic_add(&kicks[v->domain - domains][v->id], 1);
}
void vcpu_block(struct vcpu *v, uint32_t bits)
{
    (void)atomic_or(&v->block, bits);
}
void vcpu_unblock(struct vcpu *v, uint32_t bits)
{
    (void)atomic_and(&v->block, ~bits);
}
void vcpu_yield(struct vcpu *v)
{
    (void)v;
}
void vlapic_set_irq(struct vcpu *v, uint8_t vector, bool level)
{
    assert_false(level);
    lapic_vectors[v->domain - domains][v->id] = vector;
}
void platform_gsi(struct domain *d, unsigned gsi, bool level)
{
    (void)d;
    assert_int_equal(gsi, 9);
    assert_true(line_level != level);
    line_level = level;
}
void platform_pci_intx(struct domain *d, unsigned dev, unsigned pin, bool level)
{
    (void)d;
    assert_int_equal(dev, 3);
    assert_int_equal(pin, 1);
    assert_true(line_level != level);
    line_level = level;
}
int platform_pending_interrupt(struct vcpu *v, enum intr_source *src)
{
    (void)v, (void)src;
    return -1;
}
void pvtime_update_vcpu(struct vcpu *v)
{
    (void)v;
}
void vcpu_arm_poll_timer(struct vcpu *v, uint64_t expires_ns)
{
    (void)v;
    timer_at = expires_ns;
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
uint64_t now_ns(void)
{
    return 1000;
}

/* ---- the fake domains ---- */
static uint64_t random_state;
static uint64_t rnd(uint64_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % n;
}

static bool masked_model[DOMAINS][MAX_PORTS]; /* what the guest itself did to its mask bits */
static bool fifo_on[DOMAINS];
static uint32_t fifo_head[DOMAINS][VCPUS][EVTCHN_FIFO_MAX_QUEUES]; /* guest's own queue heads */
static uint32_t fifo_ready[DOMAINS][VCPUS];
static unsigned delivered[DOMAINS][MAX_PORTS];

static void setup(bool layout32)
{
    allocations = 0;
    free(frame_table);
    free(host_test_ram);
    frame_table = calloc(FRAMES, sizeof(*frame_table));
    host_test_ram = aligned_alloc(PAGE_SIZE, FRAMES * PAGE_SIZE);
    memset(host_test_ram, 0, FRAMES * PAGE_SIZE);
    memset(domains, 0, sizeof(domains));
    memset(vcpus, 0, sizeof(vcpus));
    memset(kicks, 0, sizeof(kicks));
    memset(fifo_on, 0, sizeof(fifo_on));
    memset(fifo_head, 0, sizeof(fifo_head));
    memset(fifo_ready, 0, sizeof(fifo_ready));
    memset(masked_model, 0, sizeof(masked_model));
    xen_calls = 0;
    preempt_after = -1;
    for (unsigned i = 0; i < FRAMES; i++)
        frame_table[i].refs = 1;
    for (unsigned i = 0; i < DOMAINS; i++) {
        struct domain *d = &domains[i];

        d->id = (domid_t)(i * 5);
        d->refs = 1;
        d->privileged = i == 0;
        d->is_dom0 = i == 0;
        d->max_vcpus = VCPUS;
        d->max_evtchn_port = MAX_PORTS - 1;
        d->has_32bit_shinfo = layout32;
        d->shared_info = mfn_to_virt(i * GFNS);
        d->callback_via_type = HVM_PARAM_CALLBACK_TYPE_VECTOR;
        d->callback_via_data = 0xf3;
        assert_int_equal(evtchn_domain_init(d), 0);
        for (unsigned j = 0; j < VCPUS; j++) {
            vcpus[i][j].id = j;
            vcpus[i][j].domain = d;
            d->vcpu[j] = &vcpus[i][j];
            evtchn_vcpu_init(d->vcpu[j]);
        }
    }
    dom0 = &domains[0];
}

static void teardown(void)
{
    for (unsigned i = 0; i < DOMAINS; i++)
        evtchn_domain_destroy(&domains[i]);
    for (unsigned i = 0; i < DOMAINS; i++) {
        sched_op_domain_destroy(&domains[i]);
        assert_int_equal(domains[i].evtchn->used, 0);
        assert_int_equal(domains[i].evtchn->xen_ports, 0);
        evtchn_domain_free(&domains[i]);
        assert_int_equal(domains[i].refs, 1);
    }
    for (unsigned i = 0; i < FRAMES; i++)
        assert_int_equal(frame_table[i].refs, 1);
    assert_int_equal(allocations, 0);
}

static long evtchn_op(struct vcpu *v, unsigned cmd, void *arg)
{
    uint64_t a[6] = {cmd, (uint64_t)arg};

    return do_event_channel_op(v, a);
}

static int alloc_unbound(unsigned i, unsigned remote)
{
    struct evtchn_alloc_unbound op = {.dom = DOMID_SELF, .remote_dom = domains[remote].id};
    long rc = evtchn_op(&vcpus[i][0], EVTCHNOP_alloc_unbound, &op);

    return rc ? (int)rc : (int)op.port;
}
static int bind_interdomain(unsigned i, unsigned remote, unsigned port)
{
    struct evtchn_bind_interdomain op = {.remote_dom = domains[remote].id, .remote_port = port};
    long rc = evtchn_op(&vcpus[i][0], EVTCHNOP_bind_interdomain, &op);

    return rc ? (int)rc : (int)op.local_port;
}
static long send(unsigned i, unsigned port)
{
    struct evtchn_send op = {.port = port};

    return evtchn_op(&vcpus[i][0], EVTCHNOP_send, &op);
}
static long close_op(unsigned i, unsigned port)
{
    struct evtchn_close op = {.port = port};

    return evtchn_op(&vcpus[i][0], EVTCHNOP_close, &op);
}
static long unmask(unsigned i, unsigned port)
{
    struct evtchn_unmask op = {.port = port};

    return evtchn_op(&vcpus[i][0], EVTCHNOP_unmask, &op);
}
static long bind_vcpu(unsigned i, unsigned port, unsigned vcpu)
{
    struct evtchn_bind_vcpu op = {.port = port, .vcpu = vcpu};

    return evtchn_op(&vcpus[i][0], EVTCHNOP_bind_vcpu, &op);
}
static unsigned state_of(unsigned i, unsigned port)
{
    struct evtchn_status op = {.dom = DOMID_SELF, .port = port};

    return evtchn_op(&vcpus[i][0], EVTCHNOP_status, &op) ? EVTCHNSTAT_closed : op.status;
}
static int virq_bind(unsigned i, unsigned virq, unsigned vcpu)
{
    struct evtchn_bind_virq op = {.virq = virq, .vcpu = vcpu};
    long rc = evtchn_op(&vcpus[i][0], EVTCHNOP_bind_virq, &op);

    return rc ? (int)rc : (int)op.port;
}

/* ---- the guest's side of the two ABIs ---- */
static event_word_t *word(unsigned i, unsigned port)
{
    return (event_word_t *)mfn_to_virt(i * GFNS + GFN_ARRAY) + port;
}
static struct evtchn_fifo_control_block *control(unsigned i, unsigned vcpu)
{
    return (void *)((char *)mfn_to_virt(i * GFNS + GFN_CONTROL) + vcpu * 128);
}
static void fifo_start(unsigned i)
{
    struct evtchn_expand_array expand = {.array_gfn = GFN_ARRAY};

    memset(mfn_to_virt(i * GFNS + GFN_CONTROL), 0, PAGE_SIZE);
    memset(fifo_head[i], 0, sizeof(fifo_head[i]));
    memset(fifo_ready[i], 0, sizeof(fifo_ready[i]));
    for (unsigned port = 0; port < EVTCHN_FIFO_WORDS; port++)
        *word(i, port) = 0;
    for (unsigned vcpu = 0; vcpu < VCPUS; vcpu++) {
        struct evtchn_init_control op = {
            .control_gfn = GFN_CONTROL, .offset = vcpu * 128, .vcpu = vcpu};

        assert_int_equal(evtchn_op(&vcpus[i][0], EVTCHNOP_init_control, &op), 0);
        assert_int_equal(op.link_bits, 17);
    }
    assert_int_equal(evtchn_op(&vcpus[i][0], EVTCHNOP_expand_array, &expand), 0);
    memset(masked_model[i], 0, sizeof(masked_model[i]));
    fifo_on[i] = true;
}

static bool guest_pending(unsigned i, unsigned port)
{
    struct domain *d = &domains[i];

    if (fifo_on[i])
        return *word(i, port) >> EVTCHN_FIFO_PENDING & 1;
    return test_bit(port, d->has_32bit_shinfo ? (char *)d->shared_info + 2048
                                              : (char *)d->shared_info->evtchn_pending);
}
static void guest_mask(unsigned i, unsigned port)
{
    struct domain *d = &domains[i];

    masked_model[i][port] = true;
    if (fifo_on[i])
        (void)atomic_or(word(i, port), 1u << EVTCHN_FIFO_MASKED);
    else
        set_bit(port, d->has_32bit_shinfo ? (char *)d->shared_info + 2048 + 128
                                          : (char *)d->shared_info->evtchn_mask);
}
static void guest_unmask(unsigned i, unsigned port)
{
    masked_model[i][port] = false;
    unmask(i, port);
}

/* Take the first event of a queue; false when it is empty. */
static bool fifo_consume_one(unsigned i, unsigned vcpu, unsigned q)
{
    uint32_t port = fifo_head[i][vcpu][q];
    event_word_t *w, old;

    if (!port)
        port = atomic_load(&control(i, vcpu)->head[q]);
    w = word(i, port);
    do
        old = READ_ONCE(*w);
    while (
        !atomic_cas(w, old, old & ~(1u << EVTCHN_FIFO_LINKED | (uint32_t)EVTCHN_FIFO_LINK_MASK)));
    fifo_head[i][vcpu][q] = old & EVTCHN_FIFO_LINK_MASK;
    assert_true(old >> EVTCHN_FIFO_LINKED & 1); /* a chain never runs into what is not queued */
    old = READ_ONCE(*w);
    if ((old >> EVTCHN_FIFO_PENDING & 1) && !(old >> EVTCHN_FIFO_MASKED & 1)) {
        (void)atomic_and(w, ~(1u << EVTCHN_FIFO_PENDING));
        atomic_add(&delivered[i][port], 1);
    }
    return fifo_head[i][vcpu][q] != 0;
}

/* Handle at most `most` events of a vCPU that was told of some. */
static void fifo_upcall(unsigned i, unsigned vcpu, unsigned most)
{
    struct vcpu_info *info = vcpus[i][vcpu].info;
    uint32_t *ready = &fifo_ready[i][vcpu];

    (void)atomic_xchg(&info->evtchn_upcall_pending, 0);
    *ready |= atomic_xchg(&control(i, vcpu)->ready, 0);
    while (*ready && most--) {
        unsigned q = (unsigned)__builtin_ctz(*ready);

        if (!fifo_consume_one(i, vcpu, q))
            *ready &= ~(1u << q);
        *ready |= atomic_xchg(&control(i, vcpu)->ready, 0);
    }
    if (*ready)
        (void)atomic_xchg(&info->evtchn_upcall_pending, 1); /* comes back for the rest */
}

static void bitmap_upcall(unsigned i, unsigned vcpu)
{
    struct domain *d = &domains[i];
    struct vcpu_info *info = vcpus[i][vcpu].info;
    bool narrow = d->has_32bit_shinfo;
    unsigned bits = narrow ? 32 : 64;
    char *pending = narrow ? (char *)d->shared_info + 2048 : (char *)d->shared_info->evtchn_pending;
    char *mask = narrow ? pending + 128 : (char *)d->shared_info->evtchn_mask;

    (void)atomic_xchg(&info->evtchn_upcall_pending, 0);
    uint64_t sel =
        narrow ? atomic_xchg((uint32_t *)info + 1, 0) : atomic_xchg(&info->evtchn_pending_sel, 0);
    for (; sel; sel &= sel - 1) {
        unsigned first = (unsigned)__builtin_ctzll(sel) * bits;

        for (unsigned port = first; port < first + bits; port++)
            if (test_bit(port, pending) && !test_bit(port, mask)) {
                clear_bit(port, pending);
                delivered[i][port]++;
            }
    }
}

static void drain(unsigned i, unsigned most)
{
    for (unsigned vcpu = 0; vcpu < VCPUS; vcpu++) {
        if (!evtchn_upcall_pending(&vcpus[i][vcpu]))
            continue;
        assert_true(kicks[i][vcpu]); /* it was told */
        if (fifo_on[i])
            fifo_upcall(i, vcpu, most);
        else
            bitmap_upcall(i, vcpu);
    }
}

static void check_nothing_left(unsigned i)
{
    for (unsigned port = 1; port < MAX_PORTS; port++)
        if (state_of(i, port) != EVTCHNSTAT_closed && !masked_model[i][port])
            assert_false(guest_pending(i, port));
}

static void check_symmetric(void)
{
    for (unsigned i = 0; i < DOMAINS; i++) {
        unsigned used = 0, xen = 0;

        for (unsigned port = 1; port < MAX_PORTS; port++) {
            struct evtchn *chn = evtchn_get(&domains[i], port);

            if (!chn || chn->state == EVTCHNSTAT_closed)
                continue;
            used++;
            xen += chn->xen_fn != NULL;
            if (chn->state == EVTCHNSTAT_interdomain) {
                struct evtchn *far = evtchn_get(chn->peer, chn->peer_port);

                assert_int_equal(far->state, EVTCHNSTAT_interdomain);
                assert_ptr_equal(far->peer, &domains[i]);
                assert_int_equal(far->peer_port, port);
            }
            assert_int_equal(chn->lock.head, chn->lock.tail);
        }
        assert_int_equal(used, domains[i].evtchn->used);
        assert_int_equal(xen, domains[i].evtchn->xen_ports);
        assert_int_equal(domains[i].refs, 1);
    }
}

/* ---- tests ---- */
static void xen_fn(struct vcpu *v)
{
    assert_ptr_equal(v, &vcpus[1][2]);
    xen_calls++;
}

static void basics_with(bool layout32, bool fifo)
{
    setup(layout32);
    if (fifo)
        fifo_start(1);
    int p = alloc_unbound(1, 0), q = bind_interdomain(0, 1, (unsigned)p);
    assert_true(p > 0 && q > 0);
    assert_true(guest_pending(0, (unsigned)q));                     /* bind raises the binder */
    assert_int_equal(bind_interdomain(0, 1, (unsigned)p), -EINVAL); /* taken */
    assert_int_equal(send(0, (unsigned)q), 0);
    assert_true(guest_pending(1, (unsigned)p));
    assert_int_equal(kicks[1][0], 1);
    send(0, (unsigned)q); /* told once */
    assert_int_equal(kicks[1][0], 1);
    drain(1, ~0u);
    check_nothing_left(1);

    assert_int_equal(bind_vcpu(1, (unsigned)p, 2), 0);
    assert_int_equal(bind_vcpu(1, (unsigned)p, VCPUS), -ENOENT);
    guest_mask(1, (unsigned)p);
    send(0, (unsigned)q);
    assert_int_equal(kicks[1][2], 0);
    guest_unmask(1, (unsigned)p);
    assert_int_equal(kicks[1][2], 1);
    drain(1, ~0u);
    check_nothing_left(1);

    /* Closing one end makes the other wait again, for the same domain. */
    assert_int_equal(close_op(0, (unsigned)q), 0);
    assert_int_equal(close_op(0, (unsigned)q), -EINVAL);
    assert_int_equal(state_of(1, (unsigned)p), EVTCHNSTAT_unbound);
    assert_int_equal(send(1, (unsigned)p), 0);
    assert_int_equal(bind_interdomain(0, 1, (unsigned)p), q);
    /* A loop inside one domain. */
    int a = alloc_unbound(0, 0), b = bind_interdomain(0, 0, (unsigned)a);
    assert_true(a > 0 && b > 0);
    assert_int_equal(close_op(0, (unsigned)a), 0);
    assert_int_equal(state_of(0, (unsigned)b), EVTCHNSTAT_unbound);

    /* The hypervisor's port: calls its function, is out of the guest's reach. */
    int x = evtchn_alloc_xen_port(&domains[1], 2, domains[0].id, xen_fn);
    int y = bind_interdomain(0, 1, (unsigned)x);
    assert_true(x > 0 && y > 0);
    send(0, (unsigned)y);
    assert_int_equal(xen_calls, 1);
    assert_int_equal(send(1, (unsigned)x), -EINVAL);
    assert_int_equal(close_op(1, (unsigned)x), -EINVAL);
    bitmap_upcall(0, 0);
    assert_false(guest_pending(0, (unsigned)y));
    evtchn_notify_xen_port(&domains[1], (unsigned)x);
    assert_true(guest_pending(0, (unsigned)y));
    check_symmetric();
    /* An emulator that closes its end is gone, as when its process is killed; it can bind again. */
    emulators_closed = 0;
    assert_int_equal(close_op(0, (unsigned)y), 0);
    assert_int_equal(emulators_closed, 1);
    y = bind_interdomain(0, 1, (unsigned)x);
    assert_true(y > 0);
    evtchn_free_xen_port(&domains[1], (unsigned)x);
    assert_int_equal(emulators_closed, 1);
    assert_int_equal(state_of(0, (unsigned)y), EVTCHNSTAT_unbound);

    /* VIRQs. */
    int t = virq_bind(1, VIRQ_TIMER, 1), e = virq_bind(0, VIRQ_DOM_EXC, 0);
    assert_true(t > 0 && e > 0);
    assert_int_equal(virq_bind(1, VIRQ_TIMER, 1), -EEXIST);
    assert_int_equal(virq_bind(0, VIRQ_CONSOLE, 1), -EINVAL);
    assert_int_equal(virq_bind(0, NR_VIRQS, 0), -EINVAL);
    assert_int_equal(bind_vcpu(1, (unsigned)t, 0), -EINVAL);
    assert_int_equal(bind_vcpu(0, (unsigned)e, 1), 0);
    send_vcpu_virq(&vcpus[1][0], VIRQ_TIMER);
    assert_false(guest_pending(1, (unsigned)t));
    send_vcpu_virq(&vcpus[1][1], VIRQ_TIMER);
    assert_true(guest_pending(1, (unsigned)t));
    send_global_virq(VIRQ_DOM_EXC);
    assert_true(guest_pending(0, (unsigned)e));
    assert_int_equal(close_op(1, (unsigned)t), 0);
    assert_int_equal(vcpus[1][1].virq_to_port[VIRQ_TIMER], 0);
    assert_true(virq_bind(1, VIRQ_TIMER, 1) > 0);

    /* Bad arguments. */
    assert_int_equal(evtchn_op(&vcpus[0][0], EVTCHNOP_send, NULL), -EFAULT);
    assert_int_equal(evtchn_op(&vcpus[0][0], 99, NULL), -ENOSYS);
    assert_int_equal(evtchn_op(&vcpus[0][0], EVTCHNOP_bind_pirq, NULL), -EOPNOTSUPP);
    assert_int_equal(send(0, 0), -EINVAL);
    assert_int_equal(send(0, ~0u), -EINVAL);
    struct evtchn_alloc_unbound other = {.dom = 0, .remote_dom = DOMID_SELF};
    assert_int_equal(evtchn_op(&vcpus[1][0], EVTCHNOP_alloc_unbound, &other), -EPERM);
    check_symmetric();
    teardown();
}

static void basics(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++)
        basics_with(i & 1, i & 2);
}

static void port_limit(void **state)
{
    (void)state;
    setup(false);
    for (unsigned i = 1; i < MAX_PORTS; i++)
        assert_int_equal(alloc_unbound(1, 0), i);
    assert_int_equal(alloc_unbound(1, 0), -ENOSPC);
    close_op(1, 77);
    close_op(1, 78);
    assert_int_equal(alloc_unbound(1, 0), 77);
    assert_int_equal(alloc_unbound(1, 0), 78);
    assert_int_equal(alloc_unbound(1, 0), -ENOSPC);
    /* Reset closes all but the hypervisor's, in steps. */
    close_op(1, 5);
    assert_int_equal(evtchn_alloc_xen_port(&domains[1], 2, 0, xen_fn), 5);
    struct evtchn_reset op = {.dom = DOMID_SELF};
    preempt_after = 1;
    assert_int_equal(evtchn_op(&vcpus[1][0], EVTCHNOP_reset, &op), -ERESTART);
    preempt_after = -1;
    assert_int_equal(evtchn_op(&vcpus[1][0], EVTCHNOP_reset, &op), 0);
    assert_int_equal(domains[1].evtchn->used, 1);
    check_symmetric();
    teardown();
}

static void fifo_setup(void **state)
{
    struct evtchn_init_control op = {.control_gfn = GFN_CONTROL, .vcpu = VCPUS};
    struct evtchn_expand_array expand = {.array_gfn = GFN_ARRAY};
    struct evtchn_set_priority prio = {.port = 1, .priority = 3};
    struct vcpu *v = &vcpus[1][0];

    (void)state;
    setup(false);
    int p = alloc_unbound(1, 0), q = bind_interdomain(0, 1, (unsigned)p);
    assert_int_equal(evtchn_op(v, EVTCHNOP_expand_array, &expand), -EOPNOTSUPP);
    assert_int_equal(evtchn_op(v, EVTCHNOP_set_priority, &prio), -ENOSYS);
    assert_int_equal(evtchn_op(v, EVTCHNOP_init_control, &op), -ENOENT);
    op.vcpu = 0;
    op.offset = 4;
    assert_int_equal(evtchn_op(v, EVTCHNOP_init_control, &op), -EINVAL);
    op.offset = PAGE_SIZE - 8;
    assert_int_equal(evtchn_op(v, EVTCHNOP_init_control, &op), -EINVAL);
    op.offset = 0;
    op.control_gfn = GFNS - 1; /* a grant mapping: not the guest's own RAM */
    assert_int_equal(evtchn_op(v, EVTCHNOP_init_control, &op), -EINVAL);
    op.control_gfn = GFNS;
    assert_int_equal(evtchn_op(v, EVTCHNOP_init_control, &op), -EINVAL);
    op.control_gfn = GFN_CONTROL;
    assert_int_equal(evtchn_op(v, EVTCHNOP_init_control, &op), 0);
    assert_int_equal(evtchn_op(v, EVTCHNOP_init_control, &op), -EINVAL);
    /* Raised before its word exists: comes when the array grows. */
    assert_int_equal(send(0, (unsigned)q), 0);
    assert_int_equal(kicks[1][0], 0);
    assert_int_equal(evtchn_op(v, EVTCHNOP_set_priority, &prio), 0);
    prio.priority = 16;
    assert_int_equal(evtchn_op(v, EVTCHNOP_set_priority, &prio), -EINVAL);
    assert_int_equal(evtchn_op(v, EVTCHNOP_expand_array, &expand), 0);
    assert_int_equal(kicks[1][0], 1);
    assert_int_equal(control(1, 0)->ready, 1 << 3);
    assert_int_equal(control(1, 0)->head[3], p);
    for (unsigned i = 1; i < EVTCHN_FIFO_PAGES; i++)
        assert_int_equal(evtchn_op(v, EVTCHNOP_expand_array, &expand), 0);
    assert_int_equal(evtchn_op(v, EVTCHNOP_expand_array, &expand), -ENOSPC);
    /* A port still queued is not handed out again. */
    close_op(1, (unsigned)p);
    assert_true(alloc_unbound(1, 0) != p);
    /* After a reset the 2-level ABI is back. */
    struct evtchn_reset reset = {.dom = domains[1].id};
    assert_int_equal(evtchn_op(&vcpus[0][0], EVTCHNOP_reset, &reset), 0);
    assert_null(domains[1].evtchn->fifo);
    p = alloc_unbound(1, 0);
    q = bind_interdomain(0, 1, (unsigned)p);
    send(0, (unsigned)q);
    assert_true(guest_pending(1, (unsigned)p));
    teardown();
}

static void vcpu_info_moves(void **state)
{
    (void)state;
    for (unsigned narrow = 0; narrow < 2; narrow++) {
        setup(narrow);
        int p = alloc_unbound(1, 0), q = bind_interdomain(0, 1, (unsigned)p);
        struct vcpu *v = &vcpus[1][1];
        bind_vcpu(1, (unsigned)p, 1);
        send(0, (unsigned)q);
        assert_int_equal(evtchn_map_vcpu_info(v, GFN_INFO, PAGE_SIZE - 60), -EINVAL);
        assert_int_equal(evtchn_map_vcpu_info(v, GFN_INFO, 2), -EINVAL);
        assert_int_equal(evtchn_map_vcpu_info(v, GFNS - 1, 0), -EINVAL);
        assert_int_equal(evtchn_map_vcpu_info(v, GFN_INFO, 64), 0);
        assert_int_equal(evtchn_map_vcpu_info(v, GFN_INFO, 128), -EINVAL);
        assert_ptr_equal(v->info, (char *)mfn_to_virt(GFNS + GFN_INFO) + 64);
        drain(1, ~0u);
        check_nothing_left(1);
        send(0, (unsigned)q);
        assert_true(evtchn_upcall_pending(v));
        teardown();
    }
}

static void callbacks(void **state)
{
    struct domain *d = &domains[1];

    (void)state;
    setup(false);
    int p = alloc_unbound(1, 0), q = bind_interdomain(0, 1, (unsigned)p);
    assert_int_equal(hvm_set_callback_via(d, 5ULL << 56), -EINVAL);
    assert_int_equal(hvm_set_callback_via(d, 48), -EINVAL);
    assert_int_equal(hvm_set_callback_via(d, 0), 0); /* none */
    send(0, (unsigned)q);
    assert_int_equal(kicks[1][0], 0);
    line_level = false;
    assert_int_equal(hvm_set_callback_via(d, 9), 0); /* delivers what is pending */
    assert_true(line_level && d->callback_via_asserted);
    bitmap_upcall(1, 0);
    hvm_callback_update(&vcpus[1][0]);
    assert_false(line_level);
    send(0, (unsigned)q);
    assert_true(line_level);
    assert_int_equal(hvm_set_callback_via(d, 1ULL << 56 | 3 << 11 | 1), 0);
    assert_true(line_level);
    vcpus[1][0].upcall_vector = 0x51;
    hvm_callback_update(&vcpus[1][0]);
    assert_false(line_level);
    bitmap_upcall(1, 0);
    send(0, (unsigned)q);
    assert_int_equal(lapic_vectors[1][0], 0x51);
    assert_false(line_level);
    teardown();
}

static long poll(struct vcpu *v, evtchn_port_t *ports, unsigned n, uint64_t timeout)
{
    struct sched_poll op = {.ports = {ports}, .nr_ports = n, .timeout = timeout};
    uint64_t arg[6] = {SCHEDOP_poll, (uint64_t)&op};

    return do_sched_op(v, arg);
}

static void polling(void **state)
{
    struct vcpu *v = &vcpus[1][2];

    (void)state;
    for (unsigned fifo = 0; fifo < 2; fifo++) {
        setup(false);
        if (fifo)
            fifo_start(1);
        int p = alloc_unbound(1, 0), q = bind_interdomain(0, 1, (unsigned)p);
        int p2 = alloc_unbound(1, 0), q2 = bind_interdomain(0, 1, (unsigned)p2);
        evtchn_port_t ports[] = {(unsigned)p, (unsigned)p2, 300};
        guest_mask(1, (unsigned)p);
        guest_mask(1, (unsigned)p2);
        assert_int_equal(poll(v, ports, 3, 0), -EINVAL);
        assert_int_equal(poll(v, ports, 129, 0), -EINVAL);
        assert_int_equal(poll(v, NULL, 1, 0), -EFAULT);
        assert_int_equal(v->block, 0);
        assert_int_equal(poll(v, ports, 1, 5000), 0);
        assert_int_equal(timer_at, 5000);
        assert_int_equal(v->block, VBLOCK_POLL);
        send(0, (unsigned)q2);
        assert_int_equal(v->block, VBLOCK_POLL); /* not the one it polls */
        send(0, (unsigned)q);
        assert_int_equal(v->block, 0);
        assert_int_equal(poll(v, ports, 2, 0), 0); /* pending already */
        assert_int_equal(v->block, 0);
        assert_int_equal(domains[1].evtchn->polling[0], 0);
        teardown();
    }
}

static void watchdog(void **state)
{
    struct sched_watchdog op = {.id = 0, .timeout = 2};
    uint64_t arg[6] = {SCHEDOP_watchdog, (uint64_t)&op};
    struct vcpu *v = &vcpus[1][0];

    (void)state;
    setup(false);
    assert_int_equal(do_sched_op(v, arg), 1);
    assert_int_equal(do_sched_op(v, arg), 2);
    assert_int_equal(do_sched_op(v, arg), -ENOSPC);
    op.id = 3;
    assert_int_equal(do_sched_op(v, arg), -EINVAL);
    op.id = 1;
    op.timeout = 0;
    assert_int_equal(do_sched_op(v, arg), 0);
    assert_int_equal(do_sched_op(v, arg), -EINVAL);
    struct timer *second = (struct timer *)domains[1].watchdogs + 1;
    assert_int_equal(second->expires_ns, 2 * NS_PER_SEC + 1000);
    second->fn(second->data);
    assert_int_equal(virq_shutdowns, SHUTDOWN_watchdog + 100);
    teardown();
}

/* Random operations; after each the guests look, but only where they were told to. */
static void storm_with(uint64_t seed, bool layout32, bool fifo0, bool fifo1)
{
    enum { STEPS = 30000 };

    random_state = seed;
    setup(layout32);
    if (fifo0)
        fifo_start(0);
    if (fifo1)
        fifo_start(1);
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned i = (unsigned)rnd(2), port = (unsigned)rnd(rnd(4) ? 24 : MAX_PORTS);
        unsigned other = (unsigned)rnd(2);

        switch (rnd(20)) {
        case 0:
            alloc_unbound(i, other);
            break;
        case 1:
            bind_interdomain(i, other, port);
            break;
        case 2: {
            struct evtchn_bind_ipi op = {.vcpu = (unsigned)rnd(VCPUS + 1)};
            evtchn_op(&vcpus[i][0], EVTCHNOP_bind_ipi, &op);
            break;
        }
        case 3:
            virq_bind(i, (unsigned)rnd(NR_VIRQS), (unsigned)rnd(VCPUS));
            break;
        case 4:
            if (port && port < MAX_PORTS && state_of(i, port) != EVTCHNSTAT_closed && rnd(2)) {
                close_op(i, port);
                if (!fifo_on[0] && !i)
                    assert_false(guest_pending(i, port));
            }
            break;
        case 5:
            bind_vcpu(i, port, (unsigned)rnd(VCPUS + 1));
            break;
        case 6: {
            struct evtchn_set_priority op = {.port = port, .priority = (unsigned)rnd(17)};
            evtchn_op(&vcpus[i][0], EVTCHNOP_set_priority, &op);
            break;
        }
        case 7:
            if (port && state_of(i, port) != EVTCHNSTAT_closed)
                guest_mask(i, port);
            break;
        case 8:
        case 9:
            if (port && state_of(i, port) != EVTCHNSTAT_closed)
                guest_unmask(i, port);
            break;
        case 10:
            send_vcpu_virq(&vcpus[i][rnd(VCPUS)], rnd(2) ? VIRQ_TIMER : VIRQ_DEBUG);
            break;
        case 11:
            send_domain_virq(&domains[i], VIRQ_DOM_EXC);
            break;
        case 12:
            if (!rnd(50)) {
                struct evtchn_reset op = {.dom = DOMID_SELF};
                assert_int_equal(evtchn_op(&vcpus[i][0], EVTCHNOP_reset, &op), 0);
                if (fifo_on[i])
                    fifo_start(i);
            }
            break;
        case 13: {
            int x = evtchn_alloc_xen_port(&domains[1], 2, 0, xen_fn);
            if (x > 0 && rnd(2))
                evtchn_free_xen_port(&domains[1], (unsigned)x);
            else if (x > 0)
                bind_interdomain(0, 1, (unsigned)x);
            break;
        }
        case 14: {
            struct evtchn *chn = evtchn_get(&domains[1], port);
            evtchn_notify_xen_port(&domains[1], port);
            if (chn && chn->xen_fn && rnd(2))
                evtchn_free_xen_port(&domains[1], port);
            break;
        }
        default: {
            struct evtchn *chn = evtchn_get(&domains[i], port), *far = NULL;
            bool connected = chn && chn->state == EVTCHNSTAT_interdomain && !chn->xen_fn;
            if (connected)
                far = evtchn_get(chn->peer, chn->peer_port);
            long rc = send(i, port);
            if (connected) {
                assert_int_equal(rc, 0);
                if (!far->xen_fn)
                    assert_true(guest_pending((unsigned)(chn->peer - domains), chn->peer_port));
            }
            break;
        }
        }
        if (rnd(3))
            drain((unsigned)rnd(2), (unsigned)rnd(3));
        if (step % 64 == 0) {
            for (unsigned k = 0; k < DOMAINS; k++) {
                drain(k, ~0u);
                check_nothing_left(k);
            }
            check_symmetric();
        }
    }
    teardown();
}

static void storm(void **state)
{
    (void)state;
    storm_with(1, false, false, false);
    storm_with(2, true, false, false);
    storm_with(3, false, true, true);
    storm_with(4, true, false, true);
    storm_with(5, false, true, false);
}

/* Senders on real threads against one consumer: no event may be lost between the two. */
enum { SENDERS = 4, SENDS = 30000 };
static unsigned sender_port[SENDERS];
static unsigned senders_done;

static void *sender(void *arg)
{
    unsigned n = (unsigned)(uintptr_t)arg;

    for (unsigned i = 0; i < SENDS; i++)
        send(0, sender_port[(n + (i & 1)) % SENDERS]);
    atomic_add(&senders_done, 1);
    return NULL;
}

static void threads(void **state)
{
    pthread_t thread[SENDERS];

    (void)state;
    for (unsigned fifo = 0; fifo < 2; fifo++) {
        setup(false);
        if (fifo)
            fifo_start(1);
        memset(delivered, 0, sizeof(delivered));
        senders_done = 0;
        unsigned ports[SENDERS];
        for (unsigned i = 0; i < SENDERS; i++) {
            ports[i] = (unsigned)alloc_unbound(1, 0);
            sender_port[i] = (unsigned)bind_interdomain(0, 1, ports[i]);
        }
        kicks[1][0] = kicks[1][1] = kicks[1][2] = 1;
        for (uintptr_t i = 0; i < SENDERS; i++)
            pthread_create(&thread[i], NULL, sender, (void *)i);
        random_state = 99;
        while (atomic_load(&senders_done) < SENDERS) {
            unsigned port = ports[rnd(SENDERS)];
            switch (rnd(6)) {
            case 0:
                bind_vcpu(1, port, (unsigned)rnd(VCPUS));
                break;
            case 1: {
                struct evtchn_set_priority op = {.port = port, .priority = (unsigned)rnd(16)};
                evtchn_op(&vcpus[1][0], EVTCHNOP_set_priority, &op);
                break;
            }
            case 2:
                guest_mask(1, port);
                guest_unmask(1, port);
                break;
            default:
                drain(1, 1 + (unsigned)rnd(5));
            }
        }
        for (unsigned i = 0; i < SENDERS; i++)
            pthread_join(thread[i], NULL);
        drain(1, ~0u);
        check_nothing_left(1);
        for (unsigned i = 0; i < SENDERS; i++)
            assert_true(delivered[1][ports[i]] > 0);
        teardown();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(basics),     cmocka_unit_test(port_limit),
        cmocka_unit_test(fifo_setup), cmocka_unit_test(vcpu_info_moves),
        cmocka_unit_test(callbacks),  cmocka_unit_test(polling),
        cmocka_unit_test(watchdog),   cmocka_unit_test(storm),
        cmocka_unit_test(threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
