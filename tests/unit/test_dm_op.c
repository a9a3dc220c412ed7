/* sources: vmm/platform/dm_op.c vmm/domain/hvm_op.c vmm/domain/physdev_op.c */
/* test_dm_op.c: argument checks, rights and continuations of dm_op, hvm_op and physdev_op. A guest
 * address is a host address here, or a bad one; what lies behind an operation is noted by stubs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <sys/mman.h>

#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "domain/hvm.h"
#include "platform/ioreq.h"

#define BAD ((void *)0x1000)

char *host_test_ram;
struct page_info *frame_table;
mfn_t max_mfn;
struct cpu host_test_cpu;
unsigned p2m_gpa_bits = 48;

static struct domain dom0_domain, guest, stub;
static struct vcpu caller, guest_vcpu;
static uint64_t guest_cr2;
static void set_cr(struct vcpu *v, unsigned cr, uint64_t val)
{
    assert_ptr_equal(v, &guest_vcpu);
    assert_int_equal(cr, 2);
    guest_cr2 = val;
}
static const struct hvm_ops fake_hvm_ops = {.set_cr = set_cr};
const struct hvm_ops *hvm_ops = &fake_hvm_ops;

static unsigned refs, marked, moved, preempt_after = ~0u, vector_sent, retyped, notified, paused;
static uint64_t max_gfn = 0xfffff, first_marked;
static char did[32]; /* the last thing that a stub was asked for */
static uint64_t did_arg[4];
static bool logdirty;
static bool latched_32, latched;

#define DID(what, a, b, c)                                                                         \
    (snprintf(did, sizeof(did), "%s", what), did_arg[0] = (a), did_arg[1] = (b), did_arg[2] = (c))

/* ---- the rest of the hypervisor ------------------------------------------------------------- */

static bool bad(uint64_t gva)
{
    return gva < 0x10000;
}
int copy_from_guest(void *dst, uint64_t gva, size_t bytes)
{
    if (bad(gva))
        return -EFAULT;
    memcpy(dst, (void *)gva, bytes);
    return 0;
}
int copy_to_guest(uint64_t gva, const void *src, size_t bytes)
{
    if (bad(gva))
        return -EFAULT;
    memcpy((void *)gva, src, bytes);
    return 0;
}
int domain_resolve(struct vcpu *v, domid_t id, struct domain **out)
{
    if (id == DOMID_SELF || id == v->domain->id)
        *out = v->domain;
    else if (!v->domain->privileged && v->domain->target != id)
        return -EPERM;
    else if (id == 0)
        *out = &dom0_domain;
    else if (id == 5)
        *out = &guest;
    else
        return -ESRCH;
    refs++;
    return 0;
}
void domain_put(struct domain *d)
{
    (void)d;
    refs--;
}
bool hypercall_preempt_check(void)
{
    return preempt_after-- == 0;
}
long hypercall_continue(struct vcpu *v)
{
    v->hypercall_restart = true;
    return -ERESTART;
}
long hypercall_missing(struct vcpu *v, const char *group, unsigned op, long err)
{
    (void)v, (void)group, (void)op;
    return err;
}
int ioreq_server_create(struct domain *d, domid_t emulator, uint8_t bufmode, ioservid_t *id)
{
    assert_ptr_equal(d, &guest);
    DID("create", emulator, bufmode, 0);
    *id = 3;
    return 0;
}
int ioreq_server_destroy(struct domain *d, ioservid_t id)
{
    (void)d;
    DID("destroy", id, 0, 0);
    return 0;
}
int ioreq_server_info(struct domain *d, ioservid_t id, bool with_gfns, evtchn_port_t *port,
                      gfn_t *ioreq_gfn, gfn_t *bufioreq_gfn)
{
    (void)d, (void)ioreq_gfn, (void)bufioreq_gfn;
    DID("info", id, with_gfns, 0);
    *port = 9;
    return 0;
}
int ioreq_server_range(struct domain *d, ioservid_t id, uint32_t kind, uint64_t first,
                       uint64_t last, bool add)
{
    (void)d, (void)kind, (void)id;
    DID(add ? "map" : "unmap", first, last, kind);
    return 0;
}
int ioreq_server_enable(struct domain *d, ioservid_t id, bool enable)
{
    (void)d;
    DID("enable", id, enable, 0);
    return 0;
}
int ioreq_server_mem_type(struct domain *d, ioservid_t id, uint32_t flags)
{
    (void)d;
    DID("mem_type", id, flags, 0);
    return 0;
}
void platform_isa_irq(struct domain *d, unsigned irq, bool level)
{
    (void)d;
    DID("isa", irq, level, 0);
}
void platform_pci_intx(struct domain *d, unsigned dev, unsigned pin, bool level)
{
    (void)d;
    DID("intx", dev, pin, level);
}
int platform_pci_link_route(struct domain *d, unsigned link, unsigned isa_irq)
{
    (void)d;
    DID("link", link, isa_irq, 0);
    return 0;
}
int platform_msi(struct domain *d, uint64_t addr, uint32_t data)
{
    (void)d;
    DID("msi", addr, data, 0);
    return 0;
}
void vlapic_set_irq(struct vcpu *v, uint8_t vector, bool level)
{
    (void)v, (void)level;
    vector_sent = vector;
}
void vcpu_nmi(struct vcpu *v)
{
    (void)v;
    DID("nmi", 0, 0, 0);
}
void vcpu_pause(struct vcpu *v)
{
    (void)v;
    paused++;
}
void vcpu_unpause(struct vcpu *v)
{
    (void)v;
    paused--;
}
bool p2m_logdirty_enabled(const struct domain *d)
{
    (void)d;
    return logdirty;
}
int64_t p2m_logdirty_range(struct domain *d, gfn_t first, uint64_t count, uint8_t *bitmap,
                           bool clean)
{
    (void)d;
    assert_true(clean && count <= 4096);
    memset(bitmap, 0, (count + 7) / 8);
    bitmap[0] = first == 0x1000 ? 0x81 : 0x42;
    return 2;
}
uint64_t p2m_max_gfn(const struct domain *d)
{
    (void)d;
    return max_gfn;
}
void p2m_mark_dirty(struct domain *d, gfn_t gfn)
{
    (void)d;
    if (!marked++)
        first_marked = gfn;
}
static enum p2m_type type_now = P2M_RAM;
mfn_t p2m_get(struct domain *d, gfn_t gfn, enum p2m_type *t, unsigned *order)
{
    (void)d, (void)gfn;
    *t = type_now;
    *order = 0;
    return gfn;
}
int p2m_change_type(struct domain *d, gfn_t gfn, enum p2m_type from, enum p2m_type to)
{
    (void)d, (void)gfn;
    assert_int_equal(from, type_now);
    assert_true(to != from);
    retyped++;
    return 0;
}
int guest_physmap_move(struct domain *d, gfn_t from, gfn_t to)
{
    (void)d;
    DID("move", from, to, 0);
    moved++;
    return 0;
}
void domain_shutdown(struct domain *d, int reason)
{
    (void)d;
    DID("shutdown", reason, 0, 0);
}
void domain_latch_shinfo(struct domain *d, bool is_32bit)
{
    (void)d;
    latched = true;
    latched_32 = is_32bit;
}
static int s3_calls;
void domain_s3_sleep(struct domain *d)
{
    assert_ptr_equal(d, &guest);
    s3_calls += 100;
}

void domain_s3_wake(struct domain *d)
{
    assert_ptr_equal(d, &guest);
    s3_calls++;
}

int hvm_set_callback_via(struct domain *d, uint64_t via)
{
    (void)d;
    DID("via", via, 0, 0);
    return via >> 56 > 2 ? -EINVAL : 0;
}
void hvm_callback_update(struct vcpu *v)
{
    (void)v;
}
bool evtchn_upcall_pending(const struct vcpu *v)
{
    (void)v;
    return true;
}
void evtchn_notify_vcpu(struct vcpu *v)
{
    (void)v;
    notified++;
}
void domain_flush_tlb(struct domain *d)
{
    (void)d;
    DID("flush", 0, 0, 0);
}
uint64_t now_ns(void)
{
    return 12345;
}

static int setup(void **state)
{
    (void)state;
    memset(&caller, 0, sizeof(caller));
    memset(&guest, 0, sizeof(guest));
    memset(&guest_vcpu, 0, sizeof(guest_vcpu));
    dom0_domain = (struct domain){.id = 0, .is_dom0 = true, .privileged = true};
    guest.id = 5;
    guest.target = DOMID_INVALID;
    guest.max_vcpus = 2;
    guest.vcpu[0] = &guest_vcpu;
    guest_vcpu.domain = &guest;
    stub = (struct domain){.id = 6, .target = 5};
    caller.domain = &dom0_domain;
    refs = marked = moved = vector_sent = retyped = notified = paused = 0;
    preempt_after = ~0u;
    logdirty = latched = false;
    type_now = P2M_RAM;
    did[0] = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(refs, 0);
    assert_int_equal(paused, 0);
    return 0;
}

/* ---- dm_op ---------------------------------------------------------------------------------- */

static long call_bufs(domid_t id, unsigned nr, struct xen_dm_op_buf *bufs)
{
    uint64_t arg[6] = {id, nr, (uint64_t)bufs};

    return do_dm_op(&caller, arg);
}

static long call(struct xen_dm_op *op, void *buf1, size_t bytes1)
{
    struct xen_dm_op_buf bufs[2] = {{.size = sizeof(*op)}, {.size = bytes1}};

    bufs[0].h.p = op;
    bufs[1].h.p = buf1;
    return call_bufs(5, buf1 ? 2 : 1, bufs);
}

static void who_may_call(void **state)
{
    struct xen_dm_op op = {.op = XEN_DMOP_nr_vcpus};
    struct xen_dm_op_buf b = {.size = sizeof(op)};

    (void)state;
    b.h.p = &op;
    assert_int_equal(call_bufs(5, 1, &b), 0);
    assert_int_equal(op.u.nr_vcpus.vcpus, 2);
    assert_int_equal(call_bufs(4, 1, &b), -ESRCH);
    assert_int_equal(call_bufs(0, 1, &b), -EPERM); /* dom0 on itself */
    assert_int_equal(call_bufs(DOMID_SELF, 1, &b), -EPERM);
    caller.domain = &stub;
    assert_int_equal(call_bufs(5, 1, &b), 0);
    assert_int_equal(call_bufs(0, 1, &b), -EPERM);
    caller.domain = &guest;
    assert_int_equal(call_bufs(5, 1, &b), -EPERM);
    caller.domain = &dom0_domain;
    guest.dying = DOMAIN_DYING;
    assert_int_equal(call_bufs(5, 1, &b), -ESRCH);
}

static void bad_buffers(void **state)
{
    struct xen_dm_op op = {.op = XEN_DMOP_nr_vcpus};
    struct xen_dm_op_buf b = {.size = sizeof(op)};

    (void)state;
    b.h.p = &op;
    assert_int_equal(call_bufs(5, 0, &b), -EINVAL);
    assert_int_equal(call_bufs(5, 1, BAD), -EFAULT);
    b.size = 7;
    assert_int_equal(call_bufs(5, 1, &b), -EINVAL);
    b.size = offsetof(struct xen_dm_op, u) + sizeof(op.u.nr_vcpus) - 1;
    assert_int_equal(call_bufs(5, 1, &b), -EINVAL);
    b.size++;
    assert_int_equal(call_bufs(5, 1, &b), 0);
    b.size = ~0UL; /* a newer, larger structure */
    assert_int_equal(call_bufs(5, 1, &b), 0);
    b.h.p = BAD;
    assert_int_equal(call_bufs(5, 1, &b), -EFAULT);
    op.pad = 1;
    assert_int_equal(call(&op, NULL, 0), -EINVAL);
    op = (struct xen_dm_op){.op = 0};
    assert_int_equal(call(&op, NULL, 0), -EOPNOTSUPP);
    op.op = XEN_DMOP_set_irq_level;
    assert_int_equal(call(&op, NULL, 0), -EOPNOTSUPP);
    op.op = 0xffffffff;
    assert_int_equal(call(&op, NULL, 0), -EOPNOTSUPP);
}

static void servers(void **state)
{
    struct xen_dm_op op = {.op = XEN_DMOP_create_ioreq_server};

    (void)state;
    op.u.create_ioreq_server.handle_bufioreq = 2;
    assert_int_equal(call(&op, NULL, 0), 0);
    assert_int_equal(op.u.create_ioreq_server.id, 3);
    assert_int_equal(did_arg[1], 2);
    op.u.create_ioreq_server.pad[2] = 1;
    assert_int_equal(call(&op, NULL, 0), -EINVAL);
    op = (struct xen_dm_op){.op = XEN_DMOP_get_ioreq_server_info};
    op.u.get_ioreq_server_info.flags = XEN_DMOP_no_gfns;
    assert_int_equal(call(&op, NULL, 0), 0);
    assert_int_equal(op.u.get_ioreq_server_info.bufioreq_port, 9);
    assert_int_equal(did_arg[1], false);
    op.u.get_ioreq_server_info.flags = 2;
    assert_int_equal(call(&op, NULL, 0), -EINVAL);
    op = (struct xen_dm_op){.op = XEN_DMOP_unmap_io_range_from_ioreq_server};
    op.u.unmap_io_range_from_ioreq_server.start = 1;
    op.u.unmap_io_range_from_ioreq_server.end = 2;
    assert_int_equal(call(&op, NULL, 0), 0);
    assert_string_equal(did, "unmap");
    assert_int_equal(did_arg[1], 2);
}

static void interrupts(void **state)
{
    struct xen_dm_op op = {.op = XEN_DMOP_set_pci_intx_level};

    (void)state;
    op.u.set_pci_intx_level.device = 31;
    op.u.set_pci_intx_level.intx = 3;
    op.u.set_pci_intx_level.level = 1;
    assert_int_equal(call(&op, NULL, 0), 0);
    assert_int_equal(did_arg[0], 31);
    for (unsigned i = 0; i < 5; i++) {
        struct xen_dm_op b = op;

        b.u.set_pci_intx_level.device = i == 0 ? 32 : 0;
        b.u.set_pci_intx_level.intx = i == 1 ? 4 : 0;
        b.u.set_pci_intx_level.level = i == 2 ? 2 : 0;
        b.u.set_pci_intx_level.bus = i == 3;
        b.u.set_pci_intx_level.domain = i == 4;
        assert_int_equal(call(&b, NULL, 0), -EINVAL);
    }
    op = (struct xen_dm_op){.op = XEN_DMOP_set_isa_irq_level};
    op.u.set_isa_irq_level.isa_irq = 16;
    assert_int_equal(call(&op, NULL, 0), -EINVAL);
    op = (struct xen_dm_op){.op = XEN_DMOP_set_pci_link_route};
    op.u.set_pci_link_route.link = 4;
    assert_int_equal(call(&op, NULL, 0), -EINVAL);
    op.u.set_pci_link_route.link = 3;
    op.u.set_pci_link_route.isa_irq = 16;
    assert_int_equal(call(&op, NULL, 0), -EINVAL);
    op = (struct xen_dm_op){.op = XEN_DMOP_inject_msi};
    op.u.inject_msi.data = 0x31;
    for (unsigned whole = 0; whole < 2; whole++) { /* QEMU's way, and the header's */
        op.u.inject_msi.addr = (whole ? 0xfee00000 : 0) | 0x01004;
        assert_int_equal(call(&op, NULL, 0), 0);
        assert_string_equal(did, "msi");
        assert_int_equal(did_arg[0], 0xfee01004);
        assert_int_equal(did_arg[1], 0x31);
        did[0] = 0;
    }
    op.u.inject_msi.pad = 1;
    assert_int_equal(call(&op, NULL, 0), -EINVAL);
    op = (struct xen_dm_op){.op = XEN_DMOP_inject_event};
    op.u.inject_event.type = XEN_DMOP_EVENT_hw_exc;
    op.u.inject_event.vector = 14;
    op.u.inject_event.cr2 = 0xc0de;
    assert_int_equal(call(&op, NULL, 0), 0);
    assert_true(guest_vcpu.inject.valid && guest_vcpu.inject.has_error);
    assert_int_equal(guest_cr2, 0xc0de);
    assert_int_equal(call(&op, NULL, 0), -EBUSY);
    guest_vcpu.inject.valid = false;
    op.u.inject_event.vector = 32;
    assert_int_equal(call(&op, NULL, 0), -EINVAL);
    op.u.inject_event.type = 1;
    assert_int_equal(call(&op, NULL, 0), -EINVAL);
    op.u.inject_event.type = XEN_DMOP_EVENT_ext_int;
    assert_int_equal(call(&op, NULL, 0), 0);
    assert_int_equal(vector_sent, 32);
    op.u.inject_event.vcpuid = 1; /* not there */
    assert_int_equal(call(&op, NULL, 0), -EINVAL);
    op.u.inject_event.vcpuid = 0xffffffff;
    assert_int_equal(call(&op, NULL, 0), -EINVAL);
}

static void video_memory(void **state)
{
    struct xen_dm_op op = {.op = XEN_DMOP_track_dirty_vram};
    uint8_t map[1024 + 1];

    (void)state;
    memset(map, 0xee, sizeof(map));
    op.u.track_dirty_vram.nr = 8192;
    op.u.track_dirty_vram.first_pfn = 0x1000;
    assert_int_equal(call(&op, map, 1023), -EINVAL);
    assert_int_equal(call(&op, NULL, 0), -EINVAL);
    assert_int_equal(call(&op, map, 1024), 0);
    assert_int_equal(map[0], 0x81);
    assert_int_equal(map[1], 0);
    assert_int_equal(map[512], 0x42);
    assert_int_equal(map[1024], 0xee);
    logdirty = true;
    assert_int_equal(call(&op, map, 1024), 0);
    assert_int_equal(map[77], 0xff);
    assert_int_equal(map[1024], 0xee);
    op.u.track_dirty_vram.nr = (1 << 18) + 1;
    assert_int_equal(call(&op, map, ~0UL), -EINVAL);
    op.u.track_dirty_vram.nr = 8;
    op.u.track_dirty_vram.first_pfn = ~0ULL - 3;
    assert_int_equal(call(&op, map, 1), -EINVAL);
    op.u.track_dirty_vram.nr = 0;
    op.u.track_dirty_vram.first_pfn = 0;
    assert_int_equal(call(&op, NULL, 0), 0);
}

/* Call as the hypercall page would, until it is done. */
static long call_to_end(struct xen_dm_op *op, void *buf1, size_t bytes1, unsigned every,
                        unsigned *rounds)
{
    long rc;

    *rounds = 0;
    do {
        preempt_after = every;
        caller.hypercall_restart = false;
        rc = call(op, buf1, bytes1);
        (*rounds)++;
    } while (caller.hypercall_restart);
    preempt_after = ~0u;
    return rc;
}

static void modified(void **state)
{
    struct xen_dm_op op = {.op = XEN_DMOP_modified_memory};
    struct xen_dm_op_modified_memory_extent e[3] = {
        {.nr = 1000, .first_pfn = 16}, {.nr = 0}, {.nr = 500, .first_pfn = 0xffe0c}};
    unsigned rounds;

    (void)state;
    op.u.modified_memory.nr_extents = 3;
    assert_int_equal(call(&op, e, sizeof(e) - 1), -EINVAL);
    assert_int_equal(call_to_end(&op, e, sizeof(e), 1, &rounds), 0);
    assert_true(rounds > 3);
    assert_int_equal(marked, 1500);
    assert_int_equal(first_marked, 16);
    op.u.modified_memory.opaque = 4;
    assert_int_equal(call(&op, e, sizeof(e)), -EINVAL);
    op.u.modified_memory.opaque = 0;
    e[0] = (struct xen_dm_op_modified_memory_extent){.nr = 1};
    e[1] = (struct xen_dm_op_modified_memory_extent){.nr = 2, .first_pfn = max_gfn};
    assert_int_equal(call(&op, e, sizeof(e)), -EINVAL);
    assert_int_equal(op.u.modified_memory.nr_extents, 2); /* the second */
    op = (struct xen_dm_op){.op = XEN_DMOP_modified_memory};
    op.u.modified_memory.nr_extents = 0xffffffff;
    assert_int_equal(call(&op, e, sizeof(e)), -EINVAL);
    op.u.modified_memory.nr_extents = 1;
    assert_int_equal(call(&op, BAD, sizeof(e)), -EFAULT);
}

static void memory_types(void **state)
{
    struct xen_dm_op op = {.op = XEN_DMOP_set_mem_type};
    unsigned rounds;

    (void)state;
    op.u.set_mem_type.nr = 300;
    op.u.set_mem_type.mem_type = HVMMEM_ram_ro;
    assert_int_equal(call_to_end(&op, NULL, 0, 0, &rounds), 0);
    assert_int_equal(retyped, 300);
    assert_true(rounds > 1);
    op = (struct xen_dm_op){.op = XEN_DMOP_set_mem_type};
    op.u.set_mem_type.nr = 1;
    for (unsigned type = 0; type < 8; type++) {
        bool good = type == HVMMEM_ram_rw || type == HVMMEM_ram_ro || type == HVMMEM_ioreq_server;

        op.u.set_mem_type.mem_type = type;
        assert_int_equal(call(&op, NULL, 0), good ? 0 : -EINVAL);
    }
    type_now = P2M_FOREIGN_RW;
    op.u.set_mem_type.mem_type = HVMMEM_ram_ro;
    assert_int_equal(call(&op, NULL, 0), -EINVAL);
    type_now = P2M_RAM;
    op.u.set_mem_type.first_pfn = max_gfn + 1;
    assert_int_equal(call(&op, NULL, 0), -EINVAL);
    op = (struct xen_dm_op){.op = XEN_DMOP_relocate_memory};
    op.u.relocate_memory.size = 200;
    op.u.relocate_memory.src_gfn = 0x1000;
    op.u.relocate_memory.dst_gfn = 0xf0000;
    assert_int_equal(call_to_end(&op, NULL, 0, 0, &rounds), 0);
    assert_int_equal(moved, 200);
    assert_int_equal(did_arg[0], 0x1000 + 199);
    assert_int_equal(did_arg[1], 0xf0000 + 199);
    op = (struct xen_dm_op){.op = XEN_DMOP_pin_memory_cacheattr};
    op.u.pin_memory_cacheattr.type = 2;
    assert_int_equal(call(&op, NULL, 0), -EINVAL);
}

/* ---- hvm_op --------------------------------------------------------------------------------- */

/* The structure lies where a 32-bit caller can point to it. */
static long param(unsigned op, domid_t id, uint32_t index, uint64_t *value)
{
    static struct xen_hvm_param *a;
    uint64_t arg[6];
    long rc;

    if (!a)
        a = mmap(NULL, sizeof(*a), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT,
                 -1, 0);
    *a = (struct xen_hvm_param){.domid = id, .index = index, .value = *value};
    arg[0] = op;
    arg[1] = (uint64_t)a;
    rc = do_hvm_op(&caller, arg);
    *value = a->value;
    return rc;
}

static long set(domid_t id, uint32_t index, uint64_t value)
{
    return param(HVMOP_set_param, id, index, &value);
}

static long get(domid_t id, uint32_t index, uint64_t *value)
{
    *value = 0;
    return param(HVMOP_get_param, id, index, value);
}

static void parameters(void **state)
{
    uint64_t val;

    (void)state;
    assert_int_equal(set(5, HVM_PARAM_STORE_PFN, 0xfeff), 0);
    assert_int_equal(get(5, HVM_PARAM_STORE_PFN, &val), 0);
    assert_int_equal(val, 0xfeff);
    assert_int_equal(set(5, HVM_NR_PARAMS, 0), -EINVAL);
    assert_int_equal(set(5, 0xffffffff, 0), -EINVAL);
    assert_int_equal(get(5, 3, &val), -EINVAL); /* a hole */
    assert_int_equal(set(5, HVM_PARAM_TIMER_MODE, 4), -EINVAL);
    assert_int_equal(set(5, HVM_PARAM_NR_IOREQ_SERVER_PAGES, 0), -EINVAL);
    assert_int_equal(set(5, HVM_PARAM_NR_IOREQ_SERVER_PAGES, 9), -EINVAL);
    assert_int_equal(set(5, HVM_PARAM_IOREQ_SERVER_PFN, 0x100), 0);
    assert_int_equal(set(5, HVM_PARAM_IOREQ_SERVER_PFN, 0x100), 0);
    assert_int_equal(set(5, HVM_PARAM_IOREQ_SERVER_PFN, 0x200), -EEXIST);
    assert_int_equal(set(5, HVM_PARAM_BUFIOREQ_EVTCHN, 1), -EPERM);
    assert_int_equal(set(5, HVM_PARAM_NESTEDHVM, 1), -EOPNOTSUPP);
    assert_int_equal(set(5, HVM_PARAM_NESTEDHVM, 0), 0);
    assert_int_equal(set(5, HVM_PARAM_VIRIDIAN, HVMPV_no_freq), -EINVAL);
    assert_int_equal(set(5, HVM_PARAM_VIRIDIAN, HVMPV_base_freq), 0);
    assert_int_equal(set(5, HVM_PARAM_X87_FIP_WIDTH, 5), -EINVAL);
    assert_int_equal(set(5, HVM_PARAM_ACPI_S_STATE, 1), -EINVAL);
    assert_int_equal(s3_calls, 0);
    assert_int_equal(set(5, HVM_PARAM_ACPI_S_STATE, 3), 0);
    assert_int_equal(s3_calls, 100);
    assert_int_equal(set(5, HVM_PARAM_ACPI_S_STATE, 0), 0);
    assert_int_equal(s3_calls, 101);
    assert_int_equal(set(5, HVM_PARAM_MCA_CAP, 2), -EINVAL);
    assert_int_equal(set(5, HVM_PARAM_CALLBACK_IRQ, 3ULL << 56), -EINVAL);
    assert_false(latched); /* the tools' mode says nothing about the guest's */

    caller.domain = &guest;
    caller.compat = true;
    assert_int_equal(set(DOMID_SELF, HVM_PARAM_CALLBACK_IRQ, 2ULL << 56 | 0xf3), 0);
    assert_true(latched && latched_32);
    assert_int_equal(get(DOMID_SELF, HVM_PARAM_CALLBACK_IRQ, &val), 0);
    assert_int_equal(val, 2ULL << 56 | 0xf3);
    assert_int_equal(get(5, HVM_PARAM_STORE_PFN, &val), 0);
    assert_int_equal(set(5, HVM_PARAM_STORE_PFN, 1), -EPERM);
    assert_int_equal(get(5, HVM_PARAM_IOREQ_SERVER_PFN, &val), -EPERM);
    assert_int_equal(val, 0);
    assert_int_equal(set(5, HVM_PARAM_ACPI_IOPORTS_LOCATION, 1), 0);
    assert_int_equal(set(0, HVM_PARAM_STORE_EVTCHN, 1), -EPERM);
}

static void small_operations(void **state)
{
    struct xen_hvm_evtchn_upcall_vector up = {.vector = 15};
    struct xen_hvm_get_mem_type mt = {.domid = DOMID_SELF, .pfn = 7};
    struct xen_hvm_get_time t;
    uint64_t arg[6] = {HVMOP_set_evtchn_upcall_vector, (uint64_t)&up};

    (void)state;
    caller.domain = &guest;
    assert_int_equal(do_hvm_op(&caller, arg), -EINVAL);
    up.vector = 0xf0;
    up.vcpu = 1;
    assert_int_equal(do_hvm_op(&caller, arg), -ENOENT);
    up.vcpu = 0;
    assert_int_equal(do_hvm_op(&caller, arg), 0);
    assert_int_equal(guest_vcpu.upcall_vector, 0xf0);
    assert_int_equal(notified, 1);
    arg[0] = HVMOP_get_mem_type;
    arg[1] = (uint64_t)&mt;
    type_now = P2M_RAM_RO;
    assert_int_equal(do_hvm_op(&caller, arg), 0);
    assert_int_equal(mt.mem_type, HVMMEM_ram_ro);
    arg[0] = HVMOP_get_time;
    arg[1] = (uint64_t)&t;
    assert_int_equal(do_hvm_op(&caller, arg), 0);
    assert_int_equal(t.now, 12345);
    arg[0] = HVMOP_flush_tlbs;
    assert_int_equal(do_hvm_op(&caller, arg), -EINVAL);
    arg[1] = 0;
    assert_int_equal(do_hvm_op(&caller, arg), 0);
    arg[0] = 99;
    assert_int_equal(do_hvm_op(&caller, arg), -ENOSYS);
}

static void physical_devices(void **state)
{
    uint8_t a[64] = {0};
    uint64_t arg[6] = {PHYSDEVOP_pci_device_add, (uint64_t)a};

    (void)state;
    assert_int_equal(do_physdev_op(&caller, arg), 0);
    arg[1] = (uint64_t)BAD;
    assert_int_equal(do_physdev_op(&caller, arg), -EFAULT);
    arg[1] = (uint64_t)a;
    arg[0] = PHYSDEVOP_map_pirq;
    assert_int_equal(do_physdev_op(&caller, arg), -ENOSYS);
    caller.domain = &guest;
    arg[0] = PHYSDEVOP_pci_device_add;
    assert_int_equal(do_physdev_op(&caller, arg), -ENOSYS);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_may_call),     TEST(bad_buffers),      TEST(servers),      TEST(interrupts),
        TEST(video_memory),     TEST(modified),         TEST(memory_types), TEST(parameters),
        TEST(small_operations), TEST(physical_devices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
