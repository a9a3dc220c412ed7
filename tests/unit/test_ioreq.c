/* sources: vmm/platform/ioreq.c vmm/platform/ioreq_server.c vmm/platform/ioreq_range.c */
/* test_ioreq.c: ioreq servers with a device model that may lie. The test is the rest of the
 * hypervisor: pages, event channels and vCPU blocking are counted here, so leaks show.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "core/errno.h"
#include "core/string.h"
#include "platform/ioreq.h"

#define PAGES     64
#define NR_VCPUS  3
#define DM_DOMAIN 7

char *host_test_ram;
struct page_info *frame_table;
mfn_t max_mfn = PAGES;
struct cpu host_test_cpu;

static struct domain dom;
static struct vcpu vcpus[NR_VCPUS];
static unsigned pages_used, allocations, pauses, crashes, notified[64];
static struct {
    bool used;
    unsigned vcpu;
    void (*fn)(struct vcpu *);
} ports[64];
static int fail_port_after = -1;
static mfn_t p2m_map[256];

/* ---- the rest of the hypervisor ------------------------------------------------------------- */

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
struct page_info *heap_alloc(unsigned order)
{
    assert_int_equal(order, 0);
    for (mfn_t i = 1; i < PAGES; i++) {
        if (!frame_table[i].refs) {
            frame_table[i].refs = 1;
            memset(mfn_to_virt(i), 0, PAGE_SIZE);
            pages_used++;
            return &frame_table[i];
        }
    }
    return NULL;
}
void page_share_with_domain(struct page_info *pg, struct domain *d)
{
    (void)d;
    pg->flags = PG_XENHEAP;
}
void page_put(struct page_info *pg)
{
    assert_true(pg->refs > 0);
    if (--pg->refs == 0)
        pages_used--;
}
int p2m_set(struct domain *d, gfn_t gfn, mfn_t mfn, unsigned order, enum p2m_type t)
{
    (void)d, (void)order, (void)t;
    p2m_map[gfn] = mfn;
    return 0;
}
mfn_t p2m_get(struct domain *d, gfn_t gfn, enum p2m_type *t, unsigned *order)
{
    (void)d;
    *t = p2m_map[gfn] == INVALID_MFN ? P2M_HOLE : P2M_RAM;
    *order = 0;
    return p2m_map[gfn];
}
int guest_physmap_vacate(struct domain *d, gfn_t gfn, unsigned order)
{
    (void)d, (void)order;
    p2m_map[gfn] = INVALID_MFN;
    return 0;
}
int evtchn_alloc_xen_port(struct domain *d, unsigned vcpu_id, domid_t remote,
                          void (*fn)(struct vcpu *))
{
    assert_int_equal(remote, DM_DOMAIN);
    (void)d;
    if (fail_port_after == 0)
        return -ENOSPC;
    if (fail_port_after > 0)
        fail_port_after--;
    for (int i = 1; i < 64; i++) {
        if (!ports[i].used) {
            ports[i].used = true;
            ports[i].vcpu = vcpu_id;
            ports[i].fn = fn;
            return i;
        }
    }
    return -ENOSPC;
}
void evtchn_free_xen_port(struct domain *d, unsigned port)
{
    (void)d;
    assert_true(ports[port].used);
    ports[port].used = false;
}
void evtchn_notify_xen_port(struct domain *d, unsigned port)
{
    assert_false(spin_is_locked(&d->ioreq->lock));
    assert_true(ports[port].used);
    notified[port]++;
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
void vcpu_kick(struct vcpu *v, uint32_t work)
{
    v->work |= work;
}
void vcpu_block(struct vcpu *v, uint32_t bits)
{
    v->block |= bits;
}
void vcpu_unblock(struct vcpu *v, uint32_t bits)
{
    assert_true(v->work & VWORK_IOREQ); /* or it would run without looking */
    v->block &= ~bits;
}
void vcpu_answer(struct vcpu *v, uint32_t work, uint32_t bits)
{
    vcpu_kick(v, work);
    vcpu_unblock(v, bits);
}
void domain_crash(struct domain *d, const char *fmt, ...)
{
    (void)d, (void)fmt;
    crashes++;
}

/* ---- the device model ----------------------------------------------------------------------- */

static struct shared_iopage *sync_page(unsigned id)
{
    mfn_t mfn;

    assert_int_equal(ioreq_server_frame(&dom, id, 1, &mfn), 0);
    return mfn_to_virt(mfn);
}

static struct posted_page *ring_page(unsigned id)
{
    mfn_t mfn;

    assert_int_equal(ioreq_server_frame(&dom, id, 0, &mfn), 0);
    return mfn_to_virt(mfn);
}

static ioreq_t *slot_of(unsigned id, unsigned vcpu)
{
    return &sync_page(id)->vcpu_ioreq[vcpu];
}

static void dm_notify(unsigned port)
{
    ports[port].fn(&vcpus[ports[port].vcpu]);
}

static void dm_answer(unsigned id, unsigned vcpu, uint64_t data)
{
    ioreq_t *r = slot_of(id, vcpu);

    assert_int_equal(r->state, STATE_IOREQ_READY);
    r->state = STATE_IOREQ_INPROCESS;
    dm_notify(r->vp_eport); /* too early: must not wake */
    assert_true(vcpus[vcpu].block & VBLOCK_IOREQ);
    r->data = data;
    r->state = STATE_IORESP_READY;
    dm_notify(r->vp_eport);
}

static ioservid_t new_server(uint8_t bufmode)
{
    ioservid_t id = 99;

    assert_int_equal(ioreq_server_create(&dom, DM_DOMAIN, bufmode, &id), 0);
    return id;
}

static ioservid_t vga_server(uint8_t bufmode)
{
    ioservid_t id = new_server(bufmode);

    assert_int_equal(ioreq_server_range(&dom, id, XEN_DMOP_IO_RANGE_MEMORY, 0xa0000, 0xbffff, true),
                     0);
    assert_int_equal(ioreq_server_range(&dom, id, XEN_DMOP_IO_RANGE_PORT, 0x3c0, 0x3df, true), 0);
    assert_int_equal(ioreq_server_enable(&dom, id, true), 0);
    return id;
}

static ioreq_t pio(uint16_t port, unsigned bytes, bool read)
{
    return (ioreq_t){.addr = port, .size = bytes, .count = 1, .dir = read, .type = IOREQ_TYPE_PIO};
}

static ioreq_t store(uint64_t addr, unsigned bytes, uint64_t data)
{
    return (ioreq_t){
        .addr = addr, .size = bytes, .count = 1, .data = data, .type = IOREQ_TYPE_COPY};
}

static int setup(void **state)
{
    (void)state;
    host_test_ram = aligned_alloc(PAGE_SIZE, PAGES * PAGE_SIZE);
    frame_table = calloc(PAGES, sizeof(*frame_table));
    memset(&dom, 0, sizeof(dom));
    memset(ports, 0, sizeof(ports));
    memset(notified, 0, sizeof(notified));
    memset(p2m_map, 0xff, sizeof(p2m_map));
    memset(vcpus, 0, sizeof(vcpus));
    crashes = 0;
    fail_port_after = -1;
    dom.max_vcpus = NR_VCPUS;
    assert_int_equal(ioreq_domain_init(&dom), 0);
    for (unsigned i = 0; i < NR_VCPUS; i++) {
        vcpus[i].id = i;
        vcpus[i].domain = &dom;
        dom.vcpu[i] = &vcpus[i];
        assert_int_equal(ioreq_vcpu_init(&vcpus[i]), 0);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ioreq_domain_destroy(&dom);
    ioreq_domain_destroy(&dom);
    for (unsigned i = 0; i < NR_VCPUS; i++)
        ioreq_vcpu_destroy(&vcpus[i]);
    ioreq_domain_free(&dom);
    assert_int_equal(pages_used, 0);
    assert_int_equal(allocations, 0);
    assert_int_equal(dom.pause_count, 0);
    for (unsigned i = 0; i < 64; i++)
        assert_false(ports[i].used);
    free(host_test_ram);
    free(frame_table);
    return 0;
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void life_cycle(void **state)
{
    ioservid_t id;
    mfn_t mfn;

    (void)state;
    assert_int_equal(ioreq_server_create(&dom, DM_DOMAIN, 3, &id), -EINVAL);
    for (unsigned i = 0; i < IOREQ_SERVERS_MAX; i++)
        assert_int_equal(new_server(HVM_IOREQSRV_BUFIOREQ_OFF), i);
    assert_int_equal(ioreq_server_create(&dom, DM_DOMAIN, 0, &id), -ENOSPC);
    assert_int_equal(ioreq_server_destroy(&dom, 3), 0);
    assert_int_equal(ioreq_server_destroy(&dom, 3), -ENOENT);
    assert_int_equal(ioreq_server_destroy(&dom, 1000), -ENOENT);
    assert_int_equal(new_server(HVM_IOREQSRV_BUFIOREQ_ATOMIC), 3);
    assert_int_equal(ioreq_server_frame(&dom, 3, 0, &mfn), 0);
    assert_int_equal(ioreq_server_frame(&dom, 2, 0, &mfn), -EINVAL);
    assert_int_equal(ioreq_server_frame(&dom, 3, 2, &mfn), -EINVAL);
    assert_int_equal(ioreq_server_frame(&dom, 8, 1, &mfn), -ENOENT);
    assert_int_equal(ioreq_server_range(&dom, 3, 3, 0, 1, true), -EINVAL);
    assert_int_equal(ioreq_server_range(&dom, 9, 0, 0, 1, true), -ENOENT);
    assert_int_equal(ioreq_server_enable(&dom, 9, true), -ENOENT);
    for (unsigned i = 0; i < NR_VCPUS; i++)
        assert_true(slot_of(3, i)->vp_eport);
}

static void creation_fails_without_leak(void **state)
{
    ioservid_t id;

    (void)state;
    for (int n = 0; n <= NR_VCPUS; n++) {
        fail_port_after = n;
        assert_int_equal(ioreq_server_create(&dom, DM_DOMAIN, 2, &id), -ENOSPC);
        assert_int_equal(pages_used, 0);
    }
}

static void round_trip(void **state)
{
    ioservid_t id = vga_server(HVM_IOREQSRV_BUFIOREQ_ATOMIC);
    struct vcpu *v = &vcpus[1];
    ioreq_t p = pio(0x3c4, 2, true);
    uint64_t data;
    const ioreq_t *r = slot_of(id, 1);

    (void)state;
    assert_int_equal(ioreq_send(v, &p, true), IOREQ_PENDING);
    assert_int_equal(notified[r->vp_eport], 1);
    assert_int_equal(r->addr, 0x3c4);
    assert_int_equal(r->size, 2);
    assert_int_equal(r->count, 1);
    assert_int_equal(r->dir, IOREQ_READ);
    assert_int_equal(r->type, IOREQ_TYPE_PIO);
    assert_true(ioreq_outstanding(v));
    assert_true(v->block & VBLOCK_IOREQ);
    assert_false(ioreq_take_response(v, &data));
    v->work = 0;
    dm_answer(id, 1, 0xbeef);
    assert_true(v->work & VWORK_IOREQ);
    assert_false(v->block);
    assert_true(ioreq_take_response(v, &data));
    assert_int_equal(data, 0xbeef);
    assert_int_equal(r->state, STATE_IOREQ_NONE);
    assert_false(ioreq_take_response(v, &data));
    assert_false(ioreq_outstanding(v));
    assert_int_equal(crashes, 0);
}

static void routing(void **state)
{
    ioservid_t a = vga_server(HVM_IOREQSRV_BUFIOREQ_OFF), b = new_server(HVM_IOREQSRV_BUFIOREQ_OFF);
    struct vcpu *v = &vcpus[0];
    ioreq_t p = pio(0x3de, 4, true); /* half outside */
    uint64_t data;

    (void)state;
    assert_int_equal(ioreq_send(v, &p, false), IOREQ_NO_SERVER);
    assert_int_equal(ioreq_server_range(&dom, b, XEN_DMOP_IO_RANGE_PORT, 0x3c4, 0x3c5, true), 0);
    p = pio(0x3c4, 2, true);
    assert_int_equal(ioreq_send(v, &p, false), IOREQ_PENDING); /* b is not enabled yet */
    dm_answer(a, 0, 0);
    assert_true(ioreq_take_response(v, &data));
    assert_int_equal(ioreq_server_enable(&dom, b, true), 0);
    assert_int_equal(ioreq_send(v, &p, false), IOREQ_PENDING);
    dm_answer(b, 0, 0);
    assert_true(ioreq_take_response(v, &data));

    p = store(0xbfff8, 4, 0); /* two items upwards fit, three do not */
    p.count = 3;
    assert_int_equal(ioreq_send(v, &p, false), IOREQ_NO_SERVER);
    p.count = 2;
    assert_int_equal(ioreq_send(v, &p, false), IOREQ_PENDING);
    dm_answer(a, 0, 0);
    assert_true(ioreq_take_response(v, &data));
    p = store(0xa0000, 4, 0);
    p.count = 2;
    p.df = 1;
    assert_int_equal(ioreq_send(v, &p, false), IOREQ_NO_SERVER);
    p = store(~0ULL - 3, 8, 0);
    assert_int_equal(ioreq_send(v, &p, false), IOREQ_NO_SERVER);
}

static void configuration_space(void **state)
{
    ioservid_t id = new_server(HVM_IOREQSRV_BUFIOREQ_OFF);
    struct vcpu *v = &vcpus[0];
    uint64_t data;
    ioreq_t p;
    uint32_t sbdf = XEN_DMOP_PCI_SBDF(0, 0, 3, 1);

    (void)state;
    ioreq_server_range(&dom, id, XEN_DMOP_IO_RANGE_PCI, sbdf, sbdf, true);
    ioreq_server_range(&dom, id, XEN_DMOP_IO_RANGE_PORT, 0xcf8, 0xcff, true);
    ioreq_server_enable(&dom, id, true);
    assert_true(ioreq_cf8_write(v, 0x80000000 | sbdf << 8 | 0x44));
    assert_int_equal(ioreq_cf8_read(v), 0x80000000 | sbdf << 8 | 0x44);
    p = pio(0xcfe, 2, true);
    assert_int_equal(ioreq_send(v, &p, false), IOREQ_PENDING);
    assert_int_equal(slot_of(id, 0)->type, IOREQ_TYPE_PCI_CONFIG);
    assert_int_equal(slot_of(id, 0)->addr, (uint64_t)sbdf << 32 | 0x46);
    dm_answer(id, 0, 1);
    assert_true(ioreq_take_response(v, &data));
    p = pio(0xcfe, 4, true); /* runs past the register: a port access */
    assert_int_equal(ioreq_send(v, &p, false), IOREQ_NO_SERVER);

    assert_false(ioreq_cf8_write(v, 0x80000000 | (sbdf + 8) << 8)); /* nobody's */
    p = pio(0xcfc, 4, true);
    assert_int_equal(ioreq_send(v, &p, false), IOREQ_PENDING);
    assert_int_equal(slot_of(id, 0)->type, IOREQ_TYPE_PIO);
    dm_answer(id, 0, 1);
    assert_true(ioreq_take_response(v, &data));
    assert_false(ioreq_cf8_write(v, sbdf << 8)); /* not enabled */
    p = pio(0xcfc, 4, true);
    assert_int_equal(ioreq_send(v, &p, false), IOREQ_PENDING);
    assert_int_equal(slot_of(id, 0)->type, IOREQ_TYPE_PIO);
    dm_answer(id, 0, 1);
    assert_true(ioreq_take_response(v, &data));
}

static void post(ioservid_t id, unsigned n, uint64_t seed)
{
    for (unsigned i = 0; i < n; i++) {
        ioreq_t p = store(0xa0000 + (seed + i) % 0x1000, 1, (seed + i) & 0xff);
        assert_int_equal(ioreq_send(&vcpus[0], &p, true), IOREQ_DONE);
    }
    (void)id;
}

/* As a device model reads the ring. */
static void drain(ioservid_t id, unsigned n, uint64_t seed)
{
    struct posted_page *ring = ring_page(id);

    for (unsigned i = 0; i < n; i++) {
        const buf_ioreq_t *b = &ring->slot[ring->read % RING_SLOTS].req;

        assert_int_not_equal(ring->read, ring->write);
        assert_int_equal(b->addr, 0xa0000 + (seed + i) % 0x1000);
        assert_int_equal(b->data, (seed + i) & 0xff);
        assert_int_equal(b->type, IOREQ_TYPE_COPY);
        assert_int_equal(b->dir, IOREQ_WRITE);
        __atomic_fetch_add(&ring->read, 1, __ATOMIC_SEQ_CST);
    }
}

static void ring_wraps_and_fills(void **state)
{
    ioservid_t id = vga_server(HVM_IOREQSRV_BUFIOREQ_ATOMIC);
    struct posted_page *ring = ring_page(id);
    ioreq_t p;

    (void)state;
    for (unsigned i = 0; i < 5000; i++) {
        post(id, 7, 7 * i);
        drain(id, 7, 7 * i);
        assert_true(ring->write < 2 * RING_SLOTS + 8); /* folded back */
    }
    assert_int_equal(ring->read, ring->write);
    post(id, RING_SLOTS - 1, 0);
    p = store(0xa0000, 8, 0); /* needs two slots */
    assert_int_equal(ioreq_send(&vcpus[0], &p, true), IOREQ_PENDING);
    dm_answer(id, 0, 0);
    assert_true(ioreq_take_response(&vcpus[0], &p.data));
    post(id, 1, RING_SLOTS - 1);
    p = store(0xa0000, 1, 0); /* full: goes synchronously, after the posted ones */
    assert_int_equal(ioreq_send(&vcpus[1], &p, true), IOREQ_PENDING);
    drain(id, RING_SLOTS, 0);
    p = store(0xa0010, 8, 0x1122334455667788);
    assert_int_equal(ioreq_send(&vcpus[0], &p, true), IOREQ_DONE);
    assert_int_equal(ring->write - ring->read, 2);
    assert_int_equal(ring->slot[ring->read % RING_SLOTS].req.data, 0x55667788);
    assert_int_equal(ring->slot[ring->read % RING_SLOTS].req.size, 3);
    assert_int_equal(ring->slot[(ring->read + 1) % RING_SLOTS].req.data, 0x11223344);
}

static void ring_takes_only_what_fits(void **state)
{
    ioservid_t id = vga_server(HVM_IOREQSRV_BUFIOREQ_ATOMIC);
    ioreq_t bad[] = {store(0xa0000, 4, 0), store(0xa0000, 4, 0), store(0xa0000, 4, 0),
                     store(0xa0000, 3, 0)};

    (void)state;
    bad[0].dir = IOREQ_READ;
    bad[1].count = 2;
    bad[2].data_is_ptr = 1;
    for (unsigned i = 0; i < 4; i++) {
        ioreq_t p = bad[i];

        assert_int_equal(ioreq_send(&vcpus[0], &p, true), IOREQ_PENDING);
        dm_answer(id, 0, 0);
        assert_true(ioreq_take_response(&vcpus[0], &p.data));
    }
    ioreq_invalidate(&dom);
    assert_int_equal(ring_page(id)->write, 1);
    assert_int_equal(ring_page(id)->slot[0].req.type, IOREQ_TYPE_INVALIDATE);
}

/* The device model scribbles over the pointers: posts go nowhere wild, requests still work. */
static void hostile_ring(void **state)
{
    static const uint32_t values[] = {0,    1,          5,          510,        511,       512,
                                      1021, 0x7fffffff, 0xfffffbff, 0xfffffc00, 0xffffffff};
    ioservid_t id = vga_server(HVM_IOREQSRV_BUFIOREQ_ATOMIC);
    struct posted_page *ring = ring_page(id);
    uint8_t *after = (uint8_t *)ring + sizeof(*ring);
    uint8_t copy[PAGE_SIZE - sizeof(*ring) + 1];

    (void)state;
    memcpy(copy, after, PAGE_SIZE - sizeof(*ring));
    srand(2);
    for (unsigned i = 0; i < 100000; i++) {
        ioreq_t p = store(0xa0000, 8, ~0ULL);

        ring->read = values[rand() % ARRAY_SIZE(values)] + rand() % 3;
        ring->write = values[rand() % ARRAY_SIZE(values)];
        if (ioreq_send(&vcpus[0], &p, true) == IOREQ_PENDING) {
            dm_answer(id, 0, 0);
            assert_true(ioreq_take_response(&vcpus[0], &p.data));
        }
    }
    assert_memory_equal(copy, after, PAGE_SIZE - sizeof(*ring));
    assert_int_equal(crashes, 0);
}

static void hostile_states(void **state)
{
    ioservid_t id = vga_server(HVM_IOREQSRV_BUFIOREQ_OFF);
    ioreq_t *r = slot_of(id, 0);
    struct vcpu *v = &vcpus[0];

    (void)state;
    for (unsigned bad = 0; bad < 16; bad++) {
        ioreq_t p = pio(0x3c0, 1, true);
        uint64_t data;
        unsigned port = slot_of(id, 1)->vp_eport - 1;

        memset(r, 0, sizeof(*r));
        crashes = 0;
        if (bad == STATE_IORESP_READY || bad == STATE_IOREQ_READY || bad == STATE_IOREQ_INPROCESS)
            continue;
        assert_int_equal(ioreq_send(v, &p, false), IOREQ_PENDING);
        r->state = bad;
        r->vp_eport = 0x7fffffff; /* must not be used */
        ports[port].fn(v);
        assert_false(v->block);
        assert_int_equal(crashes, 0); /* not in the device model's context */
        assert_false(ioreq_take_response(v, &data));
        assert_int_equal(crashes, 1);
        assert_false(ioreq_outstanding(v));
    }
    for (unsigned bad = 1; bad < 16; bad++) {
        ioreq_t p = pio(0x3c0, 1, true);

        r->state = bad;
        crashes = 0;
        assert_int_equal(ioreq_send(v, &p, false), IOREQ_NO_SERVER);
        assert_int_equal(crashes, 1);
        assert_false(ioreq_outstanding(v));
    }
}

/* A wake-up without an answer blocks again; answering in between is not lost. */
static void spurious_wake(void **state)
{
    ioservid_t id = vga_server(HVM_IOREQSRV_BUFIOREQ_OFF);
    struct vcpu *v = &vcpus[2];
    ioreq_t p = pio(0x3c0, 1, true);
    uint64_t data;

    (void)state;
    ioreq_send(v, &p, false);
    v->work = VWORK_IOREQ;
    v->block = 0;
    assert_false(ioreq_take_response(v, &data));
    assert_true(v->block & VBLOCK_IOREQ);
    dm_answer(id, 2, 5);
    assert_true(ioreq_take_response(v, &data));
    assert_int_equal(data, 5);
    p = pio(0x3c0, 1, true);
    ioreq_send(v, &p, false);
    crashes = 0;
    assert_int_equal(ioreq_send(v, &p, false), IOREQ_NO_SERVER); /* our own bug: one at a time */
    assert_int_equal(crashes, 1);
}

static void server_goes_away(void **state)
{
    ioservid_t id = vga_server(HVM_IOREQSRV_BUFIOREQ_OFF), other = new_server(0);
    struct vcpu *v = &vcpus[0];
    ioreq_t p = pio(0x3c0, 4, true);
    uint64_t data;

    (void)state;
    ioreq_send(v, &p, false);
    assert_int_equal(ioreq_server_destroy(&dom, other), 0);
    assert_true(v->block & VBLOCK_IOREQ);
    v->work = 0;
    assert_int_equal(ioreq_server_destroy(&dom, id), 0);
    assert_true(v->work & VWORK_IOREQ);
    assert_false(v->block);
    assert_true(ioreq_take_response(v, &data));
    assert_int_equal(data, ~0ULL);
    assert_int_equal(crashes, 0);
    assert_int_equal(ioreq_send(v, &p, false), IOREQ_NO_SERVER);
}

static void legacy_gfns(void **state)
{
    ioservid_t id = new_server(HVM_IOREQSRV_BUFIOREQ_ATOMIC);
    evtchn_port_t port = 0;
    gfn_t sync = 0, ring = 0;

    (void)state;
    assert_int_equal(ioreq_server_info(&dom, id, true, &port, &sync, &ring), -ENOSPC);
    dom.hvm_params[HVM_PARAM_IOREQ_SERVER_PFN] = 100;
    dom.hvm_params[HVM_PARAM_NR_IOREQ_SERVER_PAGES] = 1;
    dom.hvm_params[HVM_PARAM_BUFIOREQ_PFN] = 50;
    assert_int_equal(ioreq_server_info(&dom, id, true, &port, &sync, &ring), 0);
    assert_int_equal(sync, 100);
    assert_int_equal(ring, 50);
    assert_true(ports[port].used);
    assert_ptr_equal(mfn_to_virt(p2m_map[100]), sync_page(id));
    assert_ptr_equal(mfn_to_virt(p2m_map[50]), ring_page(id));
    slot_of(id, 0)->state = 9; /* the guest can still write there */
    ring_page(id)->read = 77;
    assert_int_equal(ioreq_server_enable(&dom, id, true), 0);
    assert_true(p2m_map[100] == INVALID_MFN && p2m_map[50] == INVALID_MFN);
    assert_int_equal(slot_of(id, 0)->state, 0);
    assert_true(slot_of(id, 0)->vp_eport);
    assert_int_equal(ring_page(id)->read, 0);
    assert_int_equal(ioreq_server_destroy(&dom, id), 0);
    id = new_server(0);
    assert_int_equal(ioreq_server_info(&dom, id, true, &port, &sync, &ring), 0);
    assert_int_equal(sync, 100); /* free again */
}

static void watched_memory(void **state)
{
    ioservid_t id = new_server(0);
    struct vcpu *v = &vcpus[0];
    ioreq_t p = store(0x5000, 4, 1);
    uint64_t data;

    (void)state;
    assert_int_equal(ioreq_send_mem_type(v, &p), IOREQ_NO_SERVER);
    assert_int_equal(ioreq_server_mem_type(&dom, id, XEN_DMOP_IOREQ_MEM_ACCESS_READ), -EINVAL);
    assert_int_equal(ioreq_server_mem_type(&dom, id, 0), -EINVAL);
    assert_int_equal(ioreq_server_mem_type(&dom, id, XEN_DMOP_IOREQ_MEM_ACCESS_WRITE), 0);
    assert_int_equal(ioreq_server_mem_type(&dom, id, XEN_DMOP_IOREQ_MEM_ACCESS_WRITE), -EBUSY);
    assert_int_equal(ioreq_send_mem_type(v, &p), IOREQ_NO_SERVER); /* disabled */
    ioreq_server_enable(&dom, id, true);
    assert_int_equal(ioreq_send_mem_type(v, &p), IOREQ_PENDING);
    dm_answer(id, 0, 0);
    assert_true(ioreq_take_response(v, &data));
    ioreq_server_destroy(&dom, id);
    assert_int_equal(ioreq_send_mem_type(v, &p), IOREQ_NO_SERVER);
}

/* A port that somebody claims is never taken for nobody's. */
static void claimed_ports(void **state)
{
    ioservid_t a = new_server(0), b = new_server(0);

    (void)state;
    ioreq_server_range(&dom, a, XEN_DMOP_IO_RANGE_PORT, 0x1f0, 0x1f7, true);
    ioreq_server_range(&dom, b, XEN_DMOP_IO_RANGE_PORT, 0x1ff0, 0x200f, true);
    ioreq_server_range(&dom, b, XEN_DMOP_IO_RANGE_PORT, 0xffff, 0x2000000, true);
    assert_true(ioreq_may_claim(dom.ioreq, 0x1f0) && ioreq_may_claim(dom.ioreq, 0x1f7));
    assert_false(ioreq_may_claim(dom.ioreq, 0x1ef) || ioreq_may_claim(dom.ioreq, 0x1f8));
    for (unsigned port = 0x1ff0; port < 0x2010; port++)
        assert_true(ioreq_may_claim(dom.ioreq, (uint16_t)port));
    assert_true(ioreq_may_claim(dom.ioreq, 0xffff));
    assert_true(ioreq_may_claim(dom.ioreq, 0xcf8) && ioreq_may_claim(dom.ioreq, 0xcff));
    ioreq_server_range(&dom, a, XEN_DMOP_IO_RANGE_PORT, 0x1f0, 0x1f7, false);
    assert_false(ioreq_may_claim(dom.ioreq, 0x1f0));
    ioreq_server_destroy(&dom, b);
    assert_false(ioreq_may_claim(dom.ioreq, 0x2000) || ioreq_may_claim(dom.ioreq, 0xffff));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(life_cycle),
        TEST(creation_fails_without_leak),
        TEST(round_trip),
        TEST(routing),
        TEST(configuration_space),
        TEST(ring_wraps_and_fills),
        TEST(ring_takes_only_what_fits),
        TEST(hostile_ring),
        TEST(hostile_states),
        TEST(spurious_wake),
        TEST(server_goes_away),
        TEST(legacy_gfns),
        TEST(watched_memory),
        TEST(claimed_ports),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
