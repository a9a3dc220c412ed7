/* mmio_string.c: string instructions and ports for the emulator: a run of REP items between plain
 * memory and a device becomes one request to its device model.
 *
 * Only what a device model can do by itself is batched: plain RAM of the guest on one side, and an
 * address that one server claims entirely on the other. All else goes item by item.
 */
#include "platform/mmio.h"

#include "core/errno.h"
#include "core/string.h"

#define TSS_BUSY 11 /* type of a 32- or 64-bit TSS in TR */

/* ---- batches -------------------------------------------------------------------------------- */

/* May a device model read (or write) the guest's memory there by itself? */
static bool is_plain_ram(struct mmio_vcpu *m, paddr_t gpa, bool write)
{
    enum p2m_type t;
    unsigned order;

    if (platform_mmio_claims(m->v, gpa))
        return false;
    p2m_get(m->v->domain, gpa >> PAGE_SHIFT, &t, &order);
    return t == P2M_RAM || t == P2M_LOGDIRTY || (t == P2M_RAM_RO && !write);
}

static bool is_device(struct mmio_vcpu *m, paddr_t gpa)
{
    enum p2m_type t;
    unsigned order;

    if (platform_mmio_claims(m->v, gpa))
        return false;
    p2m_get(m->v->domain, gpa >> PAGE_SHIFT, &t, &order);
    return t == P2M_HOLE || t == P2M_MMIO_DM;
}

/* Ports that the hypervisor or the configuration latch may have a word in go one by one. */
static bool port_is_models(struct mmio_vcpu *m, uint16_t port)
{
    if (m->v->domain->is_dom0 || port < 0x100)
        return false;
    return (port & ~1u) != 0x4d0 && (port & ~7u) != 0xcf8 &&
           (port & ~0xfu) != ACPI_PM1A_EVT_BLK_ADDRESS_V1 &&
           (port & ~0xfu) != ACPI_PM1A_EVT_BLK_ADDRESS_V0;
}

static bool batch_is(const struct mmio_vcpu *m, const ioreq_t *p)
{
    return m->batch.addr == p->addr && m->batch.data == p->data && m->batch.count == p->count &&
           m->batch.size == p->size && m->batch.type == p->type && m->batch.dir == p->dir;
}

/* Send the batch, or collect the answer to it. *reps: items done, 0 when they must go singly. */
static enum emul_result batch(struct mmio_vcpu *m, ioreq_t *p, unsigned long *reps)
{
    *reps = 0;
    if (m->batch_answered) {
        m->batch_answered = false;
        if (batch_is(m, p)) {
            *reps = p->count;
            return EMUL_OK;
        }
    }
    m->batch.addr = p->addr;
    m->batch.data = p->data;
    m->batch.count = p->count;
    m->batch.size = p->size;
    m->batch.type = p->type;
    m->batch.dir = p->dir;
    switch (ioreq_send(m->v, p, false)) {
    case IOREQ_PENDING:
        m->waiting = WAIT_BATCH;
        return EMUL_RETRY;
    case IOREQ_DONE:
        *reps = p->count;
        return EMUL_OK;
    case IOREQ_NO_SERVER:
        return EMUL_OK;
    }
    return EMUL_OK;
}

/* An item is under way already: the batch is not tried in its midst. */
static bool busy_with_item(const struct mmio_vcpu *m)
{
    return m->n_done != 0;
}

enum emul_result mmio_rep_movs(struct emul_ctx *c, uint64_t src, uint64_t dst, unsigned bytes,
                               unsigned long *reps, bool df)
{
    struct mmio_vcpu *m = mmio_of(c);
    unsigned long n = *reps; /* the emulator keeps them within a page */
    paddr_t from, to;
    bool faulted, to_device;
    enum emul_result res;
    ioreq_t p;

    *reps = 0;
    if (n < 2 || busy_with_item(m))
        return EMUL_OK;
    res = mmio_translate(m, src, EMUL_ACC_READ, &from, &faulted);
    if (res == EMUL_OK)
        res = mmio_translate(m, dst, EMUL_ACC_WRITE, &to, &faulted);
    if (res != EMUL_OK)
        return res;
    to_device = is_device(m, to);
    if (to_device ? !is_plain_ram(m, from, false)
                  : !is_device(m, from) || !is_plain_ram(m, to, true))
        return EMUL_OK;
    p = (ioreq_t){
        .addr = to_device ? to : from,
        .data = to_device ? from : to,
        .data_is_ptr = 1,
        .count = n,
        .size = bytes,
        .df = df,
        .dir = to_device ? IOREQ_WRITE : IOREQ_READ,
        .type = IOREQ_TYPE_COPY,
    };
    return batch(m, &p, reps);
}

enum emul_result mmio_rep_stos(struct emul_ctx *c, uint64_t dst, uint64_t value, unsigned bytes,
                               unsigned long *reps, bool df)
{
    struct mmio_vcpu *m = mmio_of(c);
    unsigned long n = *reps;
    enum emul_result res;
    bool faulted;
    paddr_t to;
    ioreq_t p;

    *reps = 0;
    if (n < 2 || busy_with_item(m))
        return EMUL_OK;
    res = mmio_translate(m, dst, EMUL_ACC_WRITE, &to, &faulted);
    if (res != EMUL_OK || !is_device(m, to))
        return res;
    p = (ioreq_t){
        .addr = to,
        .data = value,
        .count = n,
        .size = bytes,
        .df = df,
        .dir = IOREQ_WRITE,
        .type = IOREQ_TYPE_COPY,
    };
    return batch(m, &p, reps);
}

static enum emul_result rep_port(struct emul_ctx *c, uint16_t port, uint64_t linear, unsigned bytes,
                                 unsigned long *reps, bool df, bool in)
{
    struct mmio_vcpu *m = mmio_of(c);
    unsigned long n = *reps;
    enum emul_result res;
    bool faulted;
    paddr_t gpa;
    ioreq_t p;

    *reps = 0;
    if (n < 2 || busy_with_item(m) || !port_is_models(m, port))
        return EMUL_OK;
    res = mmio_translate(m, linear, in ? EMUL_ACC_WRITE : EMUL_ACC_READ, &gpa, &faulted);
    if (res != EMUL_OK || !is_plain_ram(m, gpa, in))
        return res;
    p = (ioreq_t){
        .addr = port,
        .data = gpa,
        .data_is_ptr = 1,
        .count = n,
        .size = bytes,
        .df = df,
        .dir = in ? IOREQ_READ : IOREQ_WRITE,
        .type = IOREQ_TYPE_PIO,
    };
    return batch(m, &p, reps);
}

enum emul_result mmio_rep_ins(struct emul_ctx *c, uint16_t port, uint64_t dst, unsigned bytes,
                              unsigned long *reps, bool df)
{
    return rep_port(c, port, dst, bytes, reps, df, true);
}

enum emul_result mmio_rep_outs(struct emul_ctx *c, uint16_t port, uint64_t src, unsigned bytes,
                               unsigned long *reps, bool df)
{
    return rep_port(c, port, src, bytes, reps, df, false);
}

void mmio_retire(struct emul_ctx *c)
{
    struct mmio_vcpu *m = mmio_of(c);

    m->n_done = m->next = 0;
}

/* ---- single ports --------------------------------------------------------------------------- */

enum emul_result mmio_io_read(struct emul_ctx *c, uint16_t port, unsigned bytes, uint32_t *val)
{
    uint64_t wide = 0;
    enum emul_result res = mmio_device(mmio_of(c), ACCESS_PORT, port, bytes, false, &wide);

    *val = (uint32_t)wide;
    if (res == EMUL_OK)
        mmio_of(c)->io_hits = mmio_of(c)->io_watch;
    return res;
}

enum emul_result mmio_io_write(struct emul_ctx *c, uint16_t port, unsigned bytes, uint32_t val)
{
    uint64_t wide = val & (~0u >> (32 - 8 * bytes));

    enum emul_result res = mmio_device(mmio_of(c), ACCESS_PORT, port, bytes, true, &wide);

    if (res == EMUL_OK)
        mmio_of(c)->io_hits = mmio_of(c)->io_watch;
    return res;
}

/* The TSS's I/O permission bitmap: all bits of the access must be clear. APM 2, 12.2.4, 12.2.5. */
enum emul_result mmio_io_permitted(struct emul_ctx *c, uint16_t port, unsigned bytes)
{
    struct mmio_vcpu *m = mmio_of(c);
    enum emul_result res;
    struct segment tr;
    uint16_t base, bits;

    if (m->io_permitted)
        return EMUL_OK;
    hvm_ops->get_segment(m->v, SEGR_TR, &tr);
    if (!(tr.attr & EMUL_SEG_P) || (tr.attr & 0xf) != TSS_BUSY || tr.limit < 0x67)
        return emul_fault(c, EXC_GP, 0);
    res = mmio_read(c, tr.base + 0x66, &base, sizeof(base), EMUL_ACC_SYSTEM);
    if (res != EMUL_OK)
        return res;
    if ((uint64_t)base + port / 8 + 1 > tr.limit)
        return emul_fault(c, EXC_GP, 0);
    res = mmio_read(c, tr.base + base + port / 8, &bits, sizeof(bits), EMUL_ACC_SYSTEM);
    if (res != EMUL_OK)
        return res;
    if (bits >> (port % 8) & ((1u << bytes) - 1))
        return emul_fault(c, EXC_GP, 0);
    return EMUL_OK;
}
