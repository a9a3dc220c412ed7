/* ioreq.h: ioreq servers as vmm/platform's own files see them; the world sees platform.h.
 *
 * An ioreq server is an emulator's end of a domain's device accesses: which addresses it claims,
 * the page of synchronous requests (a slot a vCPU), the ring of posted writes, and the event
 * channels that ring its bell. <xen/hvm/dm_op.h> is the tools' view of the same.
 *
 * Every page shared with an emulator is hostile: the request is written from our own copy, of the
 * answer only state and data are read, once, and nothing in the pages steers us: which server a
 * vCPU waits for, its ports and the ring's write position are kept here.
 *
 * Locks: `control` serialises life cycle operations, and may be held while event channels, the p2m
 * and the heap are called; `lock` is the exit path's: short, taken inside control or an event
 * channel's lock, never held while those are called. Whatever takes a server away pauses the domain
 * first, so a running vCPU may use its server after dropping the lock.
 */
#pragma once

#include "core/atomic.h"
#include "platform/ioreq_range.h"
#include "platform/platform.h"

#define IOREQ_SERVERS_MAX 8
#define RANGE_KINDS       3 /* XEN_DMOP_IO_RANGE_PORT, _MEMORY, _PCI */
#define RING_SLOTS        IOREQ_BUFFER_SLOT_NUM

/* A vCPU's slot in the synchronous page, touched by whole words only. */
union ioreq_slot {
    ioreq_t req;
    uint64_t word[4];
};
STATIC_ASSERT(sizeof(union ioreq_slot) == 32);
STATIC_ASSERT(MAX_VCPUS_PER_DOMAIN * sizeof(union ioreq_slot) <= PAGE_SIZE);
#define SLOT_STATE_SHIFT 48 /* ioreq_t.state in word[3] */

/* A slot of the ring. */
union ring_slot {
    buf_ioreq_t req;
    uint64_t word;
};
STATIC_ASSERT(sizeof(union ring_slot) == 8);

struct posted_page {
    union {
        struct {
            uint32_t read, write; /* read is the emulator's, write is ours */
        };
        uint64_t both;
    };
    union ring_slot slot[RING_SLOTS];
};
STATIC_ASSERT(sizeof(struct posted_page) <= PAGE_SIZE);

struct ioreq_server {
    domid_t emulator;
    bool enabled;    /* lock */
    uint8_t bufmode; /* HVM_IOREQSRV_BUFIOREQ_* */
    struct page_info *sync_page, *ring_page;
    union ioreq_slot *slot;          /* sync_page */
    struct posted_page *ring;        /* ring_page, NULL without */
    uint32_t ring_write;             /* lock; our own idea of ring->write */
    int sync_legacy, ring_legacy;    /* control; index of the gfn the page was given, or -1 */
    bool sync_visible, ring_visible; /* control; it is in the p2m there now */
    uint32_t ring_port;
    uint32_t port[MAX_VCPUS_PER_DOMAIN];
    struct io_ranges ranges[RANGE_KINDS]; /* lock */
};

struct ioreq_domain {
    spinlock_t control, lock;
    struct ioreq_server *server[IOREQ_SERVERS_MAX]; /* written under both locks */
    unsigned servers;     /* none is at or above this; written under both locks */
    uint32_t cf8;         /* configuration address latch; racing vCPUs get what they deserve */
    int mem_type_server;  /* lock; -1 none */
    uint32_t legacy_used; /* control; bit per legacy gfn */
    bool dying;           /* control */
    /* Bit n: a server may claim ports 8n..8n+7. Written under both locks, read without. */
    uint64_t claimed_ports[65536 / 8 / 64];
};

/* False when no server claims port, for sure as of now. */
static inline bool ioreq_may_claim(const struct ioreq_domain *id, uint16_t port)
{
    return READ_ONCE(id->claimed_ports[port / 512]) >> (port / 8 % 64) & 1;
}

/* Per vCPU. server and lost: lock; the rest: v itself. */
struct ioreq_vcpu {
    struct ioreq_server *server; /* the one that owes us an answer */
    bool outstanding;            /* sent, and the answer not taken yet */
};

static inline unsigned slot_state(const union ioreq_slot *slot)
{
    return atomic_load(&slot->word[3]) >> SLOT_STATE_SHIFT & 0xf;
}

static inline bool being_served(unsigned state)
{
    return state == STATE_IOREQ_READY || state == STATE_IOREQ_INPROCESS;
}

/* Let a waiting vCPU look for its answer. The work bit must be there before the vCPU can run. */
static inline void ioreq_wake(struct vcpu *v)
{
    vcpu_answer(v, VWORK_IOREQ, VBLOCK_IOREQ);
}

/* Life cycle, for dm_op. d is not the caller's own domain. All may take d's locks, pause d and
 * allocate; none is called with a lock held. -ENOENT: no such server. */

/* Create a server for the emulator running in domain `emulator`; bufmode is
 * HVM_IOREQSRV_BUFIOREQ_*. Disabled at first. -EINVAL, -ENOSPC (too many servers), -ENOMEM, or
 * evtchn's error. */
int ioreq_server_create(struct domain *d, domid_t emulator, uint8_t bufmode, ioservid_t *id);
/* Vcpus that wait for it go on as if nobody claimed the access. */
int ioreq_server_destroy(struct domain *d, ioservid_t id);
/* What get_ioreq_server_info tells. with_gfns: put the pages at gfns of d (the legacy way of
 * mapping them); -ENOSPC when the tools set no gfns aside, -EBUSY while the server is enabled. */
int ioreq_server_info(struct domain *d, ioservid_t id, bool with_gfns, evtchn_port_t *bufioreq_port,
                      gfn_t *ioreq_gfn, gfn_t *bufioreq_gfn);
/* Claim or give up [first, last] of kind XEN_DMOP_IO_RANGE_*. Errors of io_ranges_add, _remove. */
int ioreq_server_range(struct domain *d, ioservid_t id, uint32_t kind, uint64_t first,
                       uint64_t last, bool add);
int ioreq_server_enable(struct domain *d, ioservid_t id, bool enable);
/* Writes to P2M_IOREQ_SERVER pages go to this server; flags 0 ends it. -EINVAL, -EBUSY. */
int ioreq_server_mem_type(struct domain *d, ioservid_t id, uint32_t flags);

/* What emulators' notifications call, with event channel locks held. */
void ioreq_sync_notified(struct vcpu *v);
void ioreq_ring_notified(struct vcpu *v);

/* ---- vCPU side: v == current ----------------------------------------------------------------- */
/* ioreq_send for a write to a P2M_IOREQ_SERVER page: IOREQ_NO_SERVER means it is plain RAM now. */
enum ioreq_result ioreq_send_mem_type(struct vcpu *v, ioreq_t *p);
/* A read of all 4 bytes at 0xCF8. */
uint32_t ioreq_cf8_read(struct vcpu *v);
