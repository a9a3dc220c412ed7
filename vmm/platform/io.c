/* io.c: IN and OUT: to the devices here, for dom0 to the hardware, or to a device model.
 *
 * RIP moves and a result is written only when the access is complete, so that an instruction that
 * waits for its device model has not happened yet.
 */
#include "core/errno.h"
#include "platform/inner.h"
#include "platform/mmio.h"

#define PORT_CF8   0xcf8 /* PCI configuration address */
#define PORT_POST  0x80  /* POST codes, written as a delay */
#define PORT_DEBUG 0xe9  /* a guest's log, a character a write */

static inline uint32_t ones(unsigned bytes)
{
    return ~0u >> (32 - 8 * bytes);
}

void pio_finish(struct vcpu *v, unsigned bytes, bool in, unsigned insn_bytes, uint64_t val)
{
    uint64_t *rax = &v->regs.gpr[RAX];

    if (in && bytes == 1)
        *(uint8_t *)rax = (uint8_t)val;
    else if (in && bytes == 2)
        *(uint16_t *)rax = (uint16_t)val;
    else if (in)
        *rax = (uint32_t)val;
    hvm_skip(v, insn_bytes);
}

/* Served here, but no device of the platform's. */
static inline bool other_port(struct vcpu *v, uint16_t port, unsigned bytes, bool write,
                              uint32_t *val)
{
    if (unlikely(v->domain->is_dom0)) {
        if (!dom0_pio(v, port, bytes, write, val) && !write)
            *val = ones(bytes);
        return true;
    }
    if (port == PORT_CF8 && bytes == 4) {
        if (write)
            return ioreq_cf8_write(v, *val);
        *val = ioreq_cf8_read(v);
        return true;
    }
    if (port == PORT_DEBUG && bytes == 1) {
        if (write)
            console_guest_char(v->domain, (char)*val);
        else
            *val = PORT_DEBUG; /* how guests find it */
        return true;
    }
    return false;
}

bool io_local(struct vcpu *v, uint16_t port, unsigned bytes, bool write, uint32_t *val)
{
    return platform_pio(v, port, bytes, write, val) || other_port(v, port, bytes, write, val);
}

bool io_may_post(uint16_t port)
{
    return port == PORT_POST;
}

/* A device model is asked; false: none claims the port. */
static bool ask_device_model(struct vcpu *v, uint16_t port, unsigned bytes, bool in,
                             unsigned insn_bytes, uint32_t val)
{
    struct mmio_vcpu *m = v->emul;
    ioreq_t p = {
        .addr = port,
        .data = val,
        .count = 1,
        .size = bytes,
        .dir = in ? IOREQ_READ : IOREQ_WRITE,
        .type = IOREQ_TYPE_PIO,
    };

    if (ioreq_send(v, &p, io_may_post(port)) != IOREQ_PENDING)
        return false;
    m->waiting = WAIT_PIO;
    m->rip = v->regs.rip;
    m->pio.bytes = bytes;
    m->pio.in = in;
    m->pio.insn_bytes = insn_bytes;
    return true;
}

/* What is written; for reads what they give unless somebody answers. */
static inline uint32_t pio_value(const struct vcpu *v, unsigned bytes, bool in)
{
    return in ? ones(bytes) : (uint32_t)v->regs.gpr[RAX] & ones(bytes);
}

/* A port that is not the platform's. */
static __attribute__((noinline)) void pio_elsewhere(struct vcpu *v, unsigned port, unsigned bytes,
                                                    bool in, unsigned insn_bytes, uint32_t val)
{
    if (!other_port(v, (uint16_t)port, bytes, !in, &val) &&
        ioreq_may_claim(v->domain->ioreq, (uint16_t)port) &&
        ask_device_model(v, (uint16_t)port, bytes, in, insn_bytes, val))
        return;
    pio_finish(v, bytes, in, insn_bytes, val);
}

/* The same; of its own, so that handle_pio has next to nothing to do before it goes either way. */
static __attribute__((noinline)) void pio_slot(struct vcpu *v, unsigned port, unsigned bytes,
                                               bool in, unsigned insn_bytes)
{
    pio_elsewhere(v, port, bytes, in, insn_bytes, pio_value(v, bytes, in));
}

/* The same, or the platform's. */
static __attribute__((noinline)) void pio_here(struct vcpu *v, unsigned port, unsigned bytes,
                                               bool in, unsigned insn_bytes)
{
    uint32_t val = pio_value(v, bytes, in);

    if (likely(platform_pio(v, (uint16_t)port, bytes, !in, &val)))
        pio_finish(v, bytes, in, insn_bytes, val);
    else
        pio_elsewhere(v, port, bytes, in, insn_bytes, val);
}

void handle_pio(struct vcpu *v, uint16_t port, unsigned bytes, bool in, unsigned insn_bytes)
{
    if (is_slot_port(port))
        pio_slot(v, port, bytes, in, insn_bytes);
    else
        pio_here(v, port, bytes, in, insn_bytes);
}

/* ---- breakpoints on ports (SDM 3B, 17.2.4 and 17.2.5; APM 2, 13.1.1) ---------------------------
 */

unsigned io_breakpoints(struct vcpu *v, uint16_t port, unsigned bytes)
{
    static const uint8_t lengths[4] = {1, 2, 8, 4};
    uint64_t dr7 = hvm_ops->get_dr(v, 7);
    unsigned hits = 0;

    if (likely(!(dr7 & DR7_RW_HIGH)) || !(hvm_ops->get_cr(v, 4) & CR4_DE))
        return 0;
    for (unsigned n = 0; n < 4; n++) {
        unsigned what = dr7 >> (16 + 4 * n) & 3, enabled = dr7 >> (2 * n) & 3;
        uint64_t length = lengths[dr7 >> (18 + 4 * n) & 3];
        uint64_t first = what == 2 && enabled ? hvm_ops->get_dr(v, n) & -length : ~0ULL;
        if (first < (uint64_t)port + bytes && port < first + length)
            hits |= 1u << n;
    }
    return hits;
}

void io_trap(struct mmio_vcpu *m, uint64_t dr6_bits)
{
    m->io_hits = 0;
    hvm_ops->set_dr(m->v, 6, hvm_ops->get_dr(m->v, 6) | dr6_bits);
    hvm_inject_exception(m->v, EXC_DB, -1);
}

void handle_watched_pio(struct vcpu *v, uint16_t port, unsigned bytes, bool in, unsigned insn_bytes)
{
    struct mmio_vcpu *m = v->emul;

    m->io_hits = (uint8_t)io_breakpoints(v, port, bytes);
    handle_pio(v, port, bytes, in, insn_bytes);
    if (m->io_hits && m->waiting == WAIT_NOTHING)
        io_trap(m, m->io_hits);
}
