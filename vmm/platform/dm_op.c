/* dm_op.c: the hypercall by which a device model serves its guest.
 *
 * A table says for each operation how much of its structure is read and whether it is written back.
 * The caller is dom0 or the domain's own device model domain; neither is trusted further than the
 * one guest it names.
 */
#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "domain/compat.h"
#include "domain/hvm.h"
#include "platform/ioreq.h"

#define MSI_BASE 0xfee00000UL
#define BUFS_MAX 2 /* no operation takes more */
/* Pages of video memory looked at in one go: a bitmap of 512 bytes on the stack. */
#define VRAM_CHUNK 4096
#define VRAM_MAX   (BIT(30) >> PAGE_SHIFT)
#define STEP_PAGES 64 /* between looks at whether others want the pCPU */

struct dm_call {
    struct vcpu *v; /* caller */
    struct domain *d;
    struct xen_dm_op op;
    struct {
        uint64_t gva, bytes;
    } buf[BUFS_MAX];
};

typedef long dm_fn(struct dm_call *c);

/* ---- ioreq servers -------------------------------------------------------------------------- */

static long create_server(struct dm_call *c)
{
    struct xen_dm_op_create_ioreq_server *a = &c->op.u.create_ioreq_server;

    if (a->pad[0] || a->pad[1] || a->pad[2])
        return -EINVAL;
    return ioreq_server_create(c->d, c->v->domain->id, a->handle_bufioreq, &a->id);
}

static long server_info(struct dm_call *c)
{
    struct xen_dm_op_get_ioreq_server_info *a = &c->op.u.get_ioreq_server_info;

    if (a->flags & ~XEN_DMOP_no_gfns)
        return -EINVAL;
    return ioreq_server_info(c->d, a->id, !(a->flags & XEN_DMOP_no_gfns), &a->bufioreq_port,
                             &a->ioreq_gfn, &a->bufioreq_gfn);
}

static long map_range(struct dm_call *c)
{
    const struct xen_dm_op_ioreq_server_range *a = &c->op.u.map_io_range_to_ioreq_server;

    return a->pad ? -EINVAL : ioreq_server_range(c->d, a->id, a->type, a->start, a->end, true);
}

static long unmap_range(struct dm_call *c)
{
    const struct xen_dm_op_ioreq_server_range *a = &c->op.u.unmap_io_range_from_ioreq_server;

    return a->pad ? -EINVAL : ioreq_server_range(c->d, a->id, a->type, a->start, a->end, false);
}

static long server_state(struct dm_call *c)
{
    const struct xen_dm_op_set_ioreq_server_state *a = &c->op.u.set_ioreq_server_state;

    return a->pad ? -EINVAL : ioreq_server_enable(c->d, a->id, a->enabled);
}

static long destroy_server(struct dm_call *c)
{
    const struct xen_dm_op_destroy_ioreq_server *a = &c->op.u.destroy_ioreq_server;

    return a->pad ? -EINVAL : ioreq_server_destroy(c->d, a->id);
}

static long map_mem_type(struct dm_call *c)
{
    const struct xen_dm_op_map_mem_type_to_ioreq_server *a = &c->op.u.map_mem_type_to_ioreq_server;

    if (a->opaque || a->type != HVMMEM_ioreq_server)
        return -EINVAL;
    return ioreq_server_mem_type(c->d, a->id, a->flags);
}

/* ---- interrupts ----------------------------------------------------------------------------- */

static long pci_intx(struct dm_call *c)
{
    const struct xen_dm_op_set_pci_intx_level *a = &c->op.u.set_pci_intx_level;

    if (a->domain || a->bus || a->device > 31 || a->intx > 3 || a->level > 1)
        return -EINVAL;
    platform_pci_intx(c->d, a->device, a->intx, a->level);
    return 0;
}

static long isa_irq(struct dm_call *c)
{
    const struct xen_dm_op_set_isa_irq_level *a = &c->op.u.set_isa_irq_level;

    if (a->isa_irq > 15 || a->level > 1)
        return -EINVAL;
    platform_isa_irq(c->d, a->isa_irq, a->level);
    return 0;
}

static long pci_link(struct dm_call *c)
{
    const struct xen_dm_op_set_pci_link_route *a = &c->op.u.set_pci_link_route;

    if (a->link > 3 || a->isa_irq > 15)
        return -EINVAL;
    return platform_pci_link_route(c->d, a->link, a->isa_irq);
}

/* The header's address is 0xfeexxxxx; QEMU gives what is behind the 0xfee, and Xen minds no more.
 */
static long inject_msi(struct dm_call *c)
{
    const struct xen_dm_op_inject_msi *a = &c->op.u.inject_msi;
    uint64_t addr = a->addr >> 20 ? a->addr : MSI_BASE | a->addr;

    return a->pad ? -EINVAL : platform_msi(c->d, addr, a->data);
}

/* v is paused, so its pending event is ours to set. Types as in EVENTINJ (APM 2, 15.20). */
static long set_pending_event(struct vcpu *v, const struct xen_dm_op_inject_event *a)
{
    uint8_t type = a->type;

    if (type == XEN_DMOP_EVENT_pri_sw_exc || type == XEN_DMOP_EVENT_sw_exc)
        type = XEN_DMOP_EVENT_hw_exc; /* INT1, INT3 and INTO are exceptions with a length */
    if (v->inject.valid)
        return -EBUSY;
    if (type == XEN_DMOP_EVENT_hw_exc && a->vector >= 32)
        return -EINVAL;
    if (type == XEN_DMOP_EVENT_hw_exc && a->vector == 14)
        hvm_ops->set_cr(v, 2, a->cr2);
    v->inject.type = type;
    v->inject.vector = a->vector;
    v->inject.insn_bytes = a->insn_len;
    v->inject.error = a->error_code;
    v->inject.has_error = type == XEN_DMOP_EVENT_hw_exc && a->error_code != ~0u;
    v->inject.valid = true;
    return 0;
}

static long inject_event(struct dm_call *c)
{
    const struct xen_dm_op_inject_event *a = &c->op.u.inject_event;
    struct vcpu *v;
    long rc = 0;

    if (a->pad0 || a->pad1 || a->vcpuid >= c->d->max_vcpus || a->insn_len > 15)
        return -EINVAL;
    v = c->d->vcpu[a->vcpuid];
    if (!v)
        return -EINVAL;
    switch (a->type) {
    case XEN_DMOP_EVENT_ext_int:
        if (a->vector < 16)
            return -EINVAL;
        vlapic_set_irq(v, a->vector, false);
        return 0;
    case XEN_DMOP_EVENT_nmi:
        vcpu_nmi(v);
        return 0;
    case XEN_DMOP_EVENT_hw_exc:
    case XEN_DMOP_EVENT_sw_int:
    case XEN_DMOP_EVENT_pri_sw_exc:
    case XEN_DMOP_EVENT_sw_exc:
        vcpu_pause(v);
        rc = set_pending_event(v, a);
        vcpu_unpause(v);
        return rc;
    default:
        return -EINVAL;
    }
}

/* ---- memory --------------------------------------------------------------------------------- */

/* Every page is dirty: what to say while live migration needs the dirty state for itself. */
static long all_dirty(struct dm_call *c, uint64_t pages)
{
    uint8_t chunk[64];

    memset(chunk, 0xff, sizeof(chunk));
    for (uint64_t done = 0; done < (pages + 7) / 8; done += sizeof(chunk)) {
        uint64_t n = MIN((pages + 7) / 8 - done, sizeof(chunk));

        if (copy_to_guest(c->buf[1].gva + done, chunk, n))
            return -EFAULT;
    }
    return 0;
}

/* Tracking starts with the first question: then all that was written so far is dirty. */
static long track_vram(struct dm_call *c)
{
    const struct xen_dm_op_track_dirty_vram *a = &c->op.u.track_dirty_vram;
    uint8_t bitmap[VRAM_CHUNK / 8];

    if (a->pad || a->nr > VRAM_MAX)
        return -EINVAL;
    if (!a->nr)
        return 0;
    if (a->first_pfn + a->nr < a->first_pfn || c->buf[1].bytes < (a->nr + 7) / 8)
        return -EINVAL;
    if (p2m_logdirty_enabled(c->d))
        return all_dirty(c, a->nr);
    for (uint32_t done = 0; done < a->nr; done += VRAM_CHUNK) {
        uint32_t n = MIN(a->nr - done, (uint32_t)VRAM_CHUNK);

        if (p2m_logdirty_range(c->d, a->first_pfn + done, n, bitmap, true) < 0)
            return -EINVAL;
        if (copy_to_guest(c->buf[1].gva + done / 8, bitmap, (n + 7) / 8))
            return -EFAULT;
    }
    return 0;
}

/* Write back what is left, in the caller's own structure, and come again. */
static long come_again(struct dm_call *c)
{
    if (copy_to_guest(c->buf[0].gva, &c->op, MIN(c->buf[0].bytes, sizeof(c->op))))
        return -EFAULT;
    return hypercall_continue(c->v);
}

/* One extent. When preempted, what is left of it is written back to `at`: -ERESTART. */
static long modified_extent(struct dm_call *c, uint64_t at)
{
    struct xen_dm_op_modified_memory_extent e;
    uint64_t max = p2m_max_gfn(c->d);

    if (copy_from_guest(&e, at, sizeof(e)))
        return -EFAULT;
    if (e.pad || (e.nr && (e.first_pfn > max || e.nr - 1 > max - e.first_pfn)))
        return -EINVAL;
    for (uint32_t done = 0; e.nr; e.nr--, e.first_pfn++) {
        if (++done % STEP_PAGES == 0 && hypercall_preempt_check())
            return copy_to_guest(at, &e, sizeof(e)) ? -EFAULT : -ERESTART;
        p2m_mark_dirty(c->d, e.first_pfn);
    }
    return 0;
}

static long modified_memory(struct dm_call *c)
{
    struct xen_dm_op_modified_memory *a = &c->op.u.modified_memory;

    if (c->buf[1].bytes / sizeof(struct xen_dm_op_modified_memory_extent) < a->nr_extents ||
        a->opaque > a->nr_extents)
        return -EINVAL;
    for (; a->opaque < a->nr_extents; a->opaque++) {
        uint64_t at = c->buf[1].gva + a->opaque * sizeof(struct xen_dm_op_modified_memory_extent);
        long rc = modified_extent(c, at);

        if (rc == -ERESTART)
            return come_again(c);
        if (rc) {
            a->nr_extents = a->opaque + 1;
            return rc;
        }
        if (a->opaque + 1 < a->nr_extents && hypercall_preempt_check()) {
            a->opaque++;
            return come_again(c);
        }
    }
    a->opaque = 0;
    return 0;
}

/* Logged pages are RAM too. Nothing to do when the page has the type already. */
static long retype(struct domain *d, gfn_t gfn, enum p2m_type to)
{
    enum p2m_type t;
    unsigned order;

    p2m_get(d, gfn, &t, &order);
    if (t == to || (t == P2M_LOGDIRTY && to == P2M_RAM))
        return 0;
    if (!p2m_is_ram(t) || (t == P2M_RAM_RO && to == P2M_IOREQ_SERVER) ||
        (t == P2M_IOREQ_SERVER && to == P2M_RAM_RO))
        return -EINVAL;
    return p2m_change_type(d, gfn, t, to);
}

static long set_mem_type(struct dm_call *c)
{
    static const enum p2m_type types[] = {
        [HVMMEM_ram_rw] = P2M_RAM,
        [HVMMEM_ram_ro] = P2M_RAM_RO,
        [HVMMEM_ioreq_server] = P2M_IOREQ_SERVER,
    };
    struct xen_dm_op_set_mem_type *a = &c->op.u.set_mem_type;
    uint64_t max = p2m_max_gfn(c->d);

    if (a->pad || a->mem_type >= ARRAY_SIZE(types) || types[a->mem_type] == P2M_HOLE)
        return -EINVAL;
    if (a->nr && (a->first_pfn > max || a->nr - 1 > max - a->first_pfn))
        return -EINVAL;
    for (uint32_t done = 0; a->nr; a->nr--, a->first_pfn++) {
        long rc;

        if (++done % STEP_PAGES == 0 && hypercall_preempt_check())
            return come_again(c);
        rc = retype(c->d, a->first_pfn, types[a->mem_type]);
        if (rc)
            return rc;
    }
    return 0;
}

static long relocate_memory(struct dm_call *c)
{
    struct xen_dm_op_relocate_memory *a = &c->op.u.relocate_memory;

    if (a->pad)
        return -EINVAL;
    for (uint32_t done = 0; a->size; a->size--, a->src_gfn++, a->dst_gfn++) {
        int rc;

        if (++done % STEP_PAGES == 0 && hypercall_preempt_check())
            return come_again(c);
        rc = guest_physmap_move(c->d, a->src_gfn, a->dst_gfn);
        if (rc)
            return rc;
    }
    return 0;
}

/* Guests' RAM is always cached by the host's type, so a pin to write-back is what there is, and
 * other types change nothing that can be observed but speed. */
static long pin_cacheattr(struct dm_call *c)
{
    const struct xen_dm_op_pin_memory_cacheattr *a = &c->op.u.pin_memory_cacheattr;

    if (a->pad || a->end < a->start)
        return -EINVAL;
    switch (a->type) {
    case XEN_DMOP_MEM_CACHEATTR_UC:
    case XEN_DMOP_MEM_CACHEATTR_WC:
    case XEN_DMOP_MEM_CACHEATTR_WT:
    case XEN_DMOP_MEM_CACHEATTR_WP:
    case XEN_DMOP_MEM_CACHEATTR_WB:
    case XEN_DMOP_MEM_CACHEATTR_UCM:
    case XEN_DMOP_DELETE_MEM_CACHEATTR:
        return 0;
    default:
        return -EINVAL;
    }
}

/* ---- the domain ----------------------------------------------------------------------------- */

static long remote_shutdown(struct dm_call *c)
{
    domain_shutdown(c->d, (int)c->op.u.remote_shutdown.reason);
    return 0;
}

static long nr_vcpus(struct dm_call *c)
{
    c->op.u.nr_vcpus.vcpus = c->d->max_vcpus;
    return 0;
}

/* ---- dispatch ------------------------------------------------------------------------------- */

#define OP(name, member, out, fn)                                                                  \
    [XEN_DMOP_##name] = {                                                                          \
        offsetof(struct xen_dm_op, u) + sizeof(((struct xen_dm_op *)0)->u.member), out, fn}

static const struct {
    uint16_t bytes; /* of the structure, the header included */
    bool out;       /* written back on success */
    dm_fn *fn;
} ops[] = {
    OP(create_ioreq_server, create_ioreq_server, true, create_server),
    OP(get_ioreq_server_info, get_ioreq_server_info, true, server_info),
    OP(map_io_range_to_ioreq_server, map_io_range_to_ioreq_server, false, map_range),
    OP(unmap_io_range_from_ioreq_server, unmap_io_range_from_ioreq_server, false, unmap_range),
    OP(set_ioreq_server_state, set_ioreq_server_state, false, server_state),
    OP(destroy_ioreq_server, destroy_ioreq_server, false, destroy_server),
    OP(track_dirty_vram, track_dirty_vram, false, track_vram),
    OP(set_pci_intx_level, set_pci_intx_level, false, pci_intx),
    OP(set_isa_irq_level, set_isa_irq_level, false, isa_irq),
    OP(set_pci_link_route, set_pci_link_route, false, pci_link),
    OP(modified_memory, modified_memory, true, modified_memory),
    OP(set_mem_type, set_mem_type, false, set_mem_type),
    OP(inject_event, inject_event, false, inject_event),
    OP(inject_msi, inject_msi, false, inject_msi),
    OP(map_mem_type_to_ioreq_server, map_mem_type_to_ioreq_server, false, map_mem_type),
    OP(remote_shutdown, remote_shutdown, false, remote_shutdown),
    OP(relocate_memory, relocate_memory, false, relocate_memory),
    OP(pin_memory_cacheattr, pin_memory_cacheattr, false, pin_cacheattr),
    OP(nr_vcpus, nr_vcpus, true, nr_vcpus),
};

/* The caller's array of buffers, in its width. */
static long read_bufs(struct dm_call *c, unsigned nr, uint64_t gva)
{
    for (unsigned i = 0; i < MIN(nr, (unsigned)BUFS_MAX); i++) {
        if (read_guest_word(c->v, gva, 2 * i, &c->buf[i].gva) ||
            read_guest_word(c->v, gva, 2 * i + 1, &c->buf[i].bytes))
            return -EFAULT;
    }
    return 0;
}

static long dispatch(struct dm_call *c)
{
    uint64_t have = MIN(c->buf[0].bytes, sizeof(c->op));
    uint32_t op;
    long rc;

    if (have < offsetof(struct xen_dm_op, u))
        return -EINVAL;
    if (copy_from_guest(&c->op, c->buf[0].gva, have))
        return -EFAULT;
    op = c->op.op;
    if (c->op.pad)
        return -EINVAL;
    if (op >= ARRAY_SIZE(ops) || !ops[op].fn)
        return hypercall_missing(c->v, "dm_op", op, -EOPNOTSUPP);
    if (have < ops[op].bytes)
        return -EINVAL;
    rc = ops[op].fn(c);
    if (c->v->hypercall_restart || (rc && op != XEN_DMOP_modified_memory) || !ops[op].out)
        return rc;
    return copy_to_guest(c->buf[0].gva, &c->op, ops[op].bytes) ? -EFAULT : rc;
}

/* dm_op(domid, nr_bufs, bufs): buffer 0 is a struct xen_dm_op. The caller must be privileged over
 * the domain, and be another one. -ESRCH, -EPERM, -EFAULT, -EINVAL, -EOPNOTSUPP, or the operation's
 * own. May be continued. */
long do_dm_op(struct vcpu *v, const uint64_t arg[6])
{
    struct dm_call c = {.v = v};
    struct domain *d;
    long rc;

    if ((uint32_t)arg[1] < 1)
        return -EINVAL;
    rc = domain_resolve(v, (domid_t)arg[0], &d);
    if (rc)
        return rc;
    c.d = d;
    if (d == v->domain || d->is_dom0)
        rc = -EPERM;
    else if (READ_ONCE(d->dying) != DOMAIN_ALIVE)
        rc = -ESRCH;
    else
        rc = read_bufs(&c, (uint32_t)arg[1], guest_addr(v, arg[2]));
    if (rc == 0)
        rc = dispatch(&c);
    domain_put(d);
    return rc;
}
