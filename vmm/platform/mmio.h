/* mmio.h: an intercepted access under way, as io.c, mmio.c and their neighbours share it.
 *
 * An instruction may need several answers from device models. It is executed again from its start
 * after each, and every access to a device that was already made is answered from what was noted
 * then, in order, so that no device sees an access twice.
 */
#pragma once

#include "domain/hvm.h"
#include "platform/emul.h"
#include "platform/ioreq.h"

/* Accesses that one instruction, or one item of a REP, may make: a 64-byte one in 8-byte pieces,
 * read and written back, and two spare. More is not emulated. */
#define ACCESSES_MAX 18

enum access_kind {
    ACCESS_MMIO, /* device memory at a guest-physical address */
    ACCESS_PORT,
    ACCESS_WP_RAM, /* a write to a P2M_IOREQ_SERVER page */
};

struct access {
    uint64_t addr; /* guest-physical, or port */
    uint64_t data; /* what a read gave */
    uint8_t kind, bytes;
    bool write;
};

enum waiting {
    WAIT_NOTHING,
    WAIT_PIO,    /* IN or OUT done without the emulator */
    WAIT_ACCESS, /* one access of an emulated instruction: pending */
    WAIT_BATCH,  /* a run of REP items: batch */
};

/* v->emul. Used by v itself only. */
struct mmio_vcpu {
    struct vcpu *v;
    enum waiting waiting;
    uint64_t rip; /* of the instruction that waits */

    struct { /* WAIT_PIO */
        uint8_t bytes, insn_bytes;
        bool in;
    } pio;

    /* What the nested fault told about the one access that caused it. */
    struct {
        bool valid, gla_valid, write;
        paddr_t gpa;
        uint64_t gla;
    } fault;
    uint8_t n_done, next;      /* accesses noted; the one to answer from next */
    bool io_permitted;         /* the hardware has checked the port permissions already */
    uint8_t io_watch, io_hits; /* DR6 bits: breakpoints on the port at hand; the hit ones */
    struct access done[ACCESSES_MAX], pending;

    bool batch_answered;
    struct {
        uint64_t addr, data;
        uint32_t count, size;
        uint8_t type, dir;
    } batch;

    struct gwalk_mode mode;
    struct emul_ctx ctx; /* kept while waiting, decoded instruction included */
};

/* io.c: a port that the hypervisor itself serves (or, for dom0, the hardware): true when done. For
 * reads *val is all ones at first. v == current. */
bool io_local(struct vcpu *v, uint16_t port, unsigned bytes, bool write, uint32_t *val);
/* Writes to it need no answer: they may be posted. */
bool io_may_post(uint16_t port);
/* Finish an IN or OUT: result to AL, AX or EAX, RIP forward. */
void pio_finish(struct vcpu *v, unsigned bytes, bool in, unsigned insn_bytes, uint64_t val);

/* The guest's breakpoints that an access to these ports hits, as bits of DR6. v == current. */
unsigned io_breakpoints(struct vcpu *v, uint16_t port, unsigned bytes);
/* An access to ports is complete, RIP included: #DB for what it hit. */
void io_trap(struct mmio_vcpu *m, uint64_t dr6_bits);

/* mmio.c: the guest-physical address of linear for this kind of access; *faulted: it is the access
 * that caused the nested fault, so a device is to be expected there. */
enum emul_result mmio_translate(struct mmio_vcpu *m, uint64_t linear, enum emul_access access,
                                paddr_t *gpa, bool *faulted);
/* One access to a device, answered from the notes or made now. bytes: 1, 2, 4, 8. EMUL_RETRY: v is
 * blocked until the answer. ACCESS_WP_RAM: EMUL_UNHANDLEABLE when nobody claims it (any more). */
enum emul_result mmio_device(struct mmio_vcpu *m, enum access_kind kind, uint64_t addr,
                             unsigned bytes, bool write, uint64_t *val);
enum emul_result mmio_read(struct emul_ctx *c, uint64_t linear, void *buf, unsigned bytes,
                           enum emul_access access);
enum emul_result mmio_write(struct emul_ctx *c, uint64_t linear, const void *buf, unsigned bytes);
enum emul_result mmio_cmpxchg(struct emul_ctx *c, uint64_t linear, void *old, const void *new_val,
                              unsigned bytes, bool *done);

static inline struct mmio_vcpu *mmio_of(struct emul_ctx *c)
{
    return c->opaque;
}

/* mmio_fast.c: a plain MOV to or from a device that the hypervisor has at gpa, done without the
 * emulator. False, and nothing done, for everything else. insn, n: the first bytes if known. */
bool mmio_fast_mov(struct vcpu *v, paddr_t gpa, bool write, const uint8_t *insn, unsigned n);

/* mmio_string.c: emul_ops by those names. */
enum emul_result mmio_rep_movs(struct emul_ctx *c, uint64_t src, uint64_t dst, unsigned bytes,
                               unsigned long *reps, bool df);
enum emul_result mmio_rep_stos(struct emul_ctx *c, uint64_t dst, uint64_t value, unsigned bytes,
                               unsigned long *reps, bool df);
enum emul_result mmio_rep_ins(struct emul_ctx *c, uint16_t port, uint64_t dst, unsigned bytes,
                              unsigned long *reps, bool df);
enum emul_result mmio_rep_outs(struct emul_ctx *c, uint16_t port, uint64_t src, unsigned bytes,
                               unsigned long *reps, bool df);
void mmio_retire(struct emul_ctx *c);
enum emul_result mmio_io_read(struct emul_ctx *c, uint16_t port, unsigned bytes, uint32_t *val);
enum emul_result mmio_io_write(struct emul_ctx *c, uint16_t port, unsigned bytes, uint32_t val);
enum emul_result mmio_io_permitted(struct emul_ctx *c, uint16_t port, unsigned bytes);

/* mmio_cpu.c: processor state, emul_ops by those names. */
extern const struct emul_ops mmio_ops;
