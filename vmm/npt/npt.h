/* npt.h: a domain's guest-physical map (p2m) in nested page tables: the front door of vmm/npt.
 *
 * One format-neutral walker; NPT (APM 2, 15.25) and EPT (SDM 3C, 28.3) differ in bit encodings
 * only. A p2m entry is gfn -> mfn, type; 4 KiB, 2 MiB or 1 GiB. The p2m lock guards the tables;
 * lookups on the exit path take it for reading the tree only.
 */
#pragma once

#include "core/mm.h"
#include "core/types.h"

struct domain;
struct vcpu;
struct p2m;

enum p2m_type {           /* stored in the entry's software bits; 0 must be a hole */
                P2M_HOLE, /* nothing here: an access goes to the device models */
                P2M_RAM,
                P2M_RAM_RO,      /* ROM: guest writes are dropped */
                P2M_LOGDIRTY,    /* RAM, write-protected until the next write marks it dirty */
                P2M_MMIO_DIRECT, /* host device memory (or anything of dom0's identity map) */
                P2M_MMIO_DM,     /* explicitly the device model's */
                P2M_GRANT_RW,
                P2M_GRANT_RO,
                P2M_FOREIGN_RW, /* another domain's page mapped by a tool; holds a page reference */
                P2M_FOREIGN_RO,
                P2M_IOREQ_SERVER, /* RAM whose writes go to an ioreq server */
                P2M_NR_TYPES
};

static inline bool p2m_is_ram(enum p2m_type t) /* backed by the domain's own RAM */
{
    return t == P2M_RAM || t == P2M_RAM_RO || t == P2M_LOGDIRTY || t == P2M_IOREQ_SERVER;
}
static inline bool p2m_is_mapped(enum p2m_type t) /* has an mfn of a frame that can be accessed */
{
    return p2m_is_ram(t) || t == P2M_GRANT_RW || t == P2M_GRANT_RO || t == P2M_FOREIGN_RW ||
           t == P2M_FOREIGN_RO;
}
static inline bool p2m_is_writable(enum p2m_type t)
{
    return t == P2M_RAM || t == P2M_LOGDIRTY || t == P2M_GRANT_RW || t == P2M_FOREIGN_RW ||
           t == P2M_IOREQ_SERVER;
}

enum p2m_format { P2M_FORMAT_NPT, P2M_FORMAT_EPT };

struct p2m_limits {
    bool large_1g, large_2m;
    bool large_code_unsafe; /* guests but dom0 execute from 4 KiB entries only */
    bool dirty_bits;        /* CPUs set accessed and dirty bits in entries */
    unsigned gpa_bits;
};

/* Boot: what the CPU offers. */
void p2m_setup(enum p2m_format format, struct p2m_limits limits);
extern unsigned p2m_gpa_bits; /* guest-physical address width, bits */

int p2m_init(struct domain *d);
/* Drop all entries and references, then all tables; -ERESTART when preempted (call again). */
int p2m_teardown(struct domain *d);
void p2m_free(struct domain *d);
/* What goes in the VMCB's nCR3 or the EPT pointer's address. */
paddr_t p2m_root(const struct domain *d);
uint64_t p2m_table_pages(const struct domain *d);

/* Map 1 << order frames at gfn (both aligned to the order; 0, 9, 18). Replaces what was there:
 * references held by foreign entries that are replaced are put; RAM's allocation references are
 * the caller's business. mfn is INVALID_MFN for P2M_HOLE and P2M_MMIO_DM. Entries of P2M_FOREIGN_*
 * expect that the caller took the page reference that the entry then owns.
 * 0, -EINVAL, -ENOMEM (then nothing changed). Takes the p2m lock; flushes (batched). */
int p2m_set(struct domain *d, gfn_t gfn, mfn_t mfn, unsigned order, enum p2m_type t);
/* Boot, dom0: map [gfn, gfn + count) to the same mfns, with the largest entries that fit. */
int p2m_set_range(struct domain *d, gfn_t gfn, mfn_t mfn, uint64_t count, enum p2m_type t);
/* The entry at gfn: its mfn (INVALID_MFN for none), type and order (of the entry). */
mfn_t p2m_get(struct domain *d, gfn_t gfn, enum p2m_type *t, unsigned *order);
/* Frame at gfn with a page reference taken under the p2m lock; NULL for anything that is not
 * mapped memory, or when write is asked for and the type is read-only. Caller does page_put. */
struct page_info *p2m_get_page(struct domain *d, gfn_t gfn, bool write, enum p2m_type *t);
/* Change type where it is `from`: -EBUSY otherwise. Splits large entries. */
int p2m_change_type(struct domain *d, gfn_t gfn, enum p2m_type from, enum p2m_type to);

/* Dirty logging. enable: all RAM turns P2M_LOGDIRTY lazily or at once; a write fault calls
 * p2m_fault which marks and unprotects. Without it, ranges are tracked by dirty bits where there
 * are any. Bitmaps are read and cleared by range. */
int p2m_logdirty_enable(struct domain *d);
void p2m_logdirty_disable(struct domain *d);
bool p2m_logdirty_enabled(const struct domain *d);
/* Dirty bits of [first, first + count) into bitmap (1 bit a page), cleared when `clean`;
 * re-protects and flushes. bitmap may be NULL. Returns the number of dirty pages found. */
int64_t p2m_logdirty_range(struct domain *d, gfn_t first, uint64_t count, uint8_t *bitmap,
                           bool clean);
uint64_t p2m_dirty_count(const struct domain *d);
/* Are d's pages tracked by dirty bits, which its CPUs must set then? From now on they are not, as
 * CPUs that set them would refuse d something. Any context. */
bool p2m_dirty_bits(const struct domain *d);
void p2m_forgo_dirty_bits(struct domain *d);
/* The hypervisor itself wrote this frame. */
void p2m_mark_dirty(struct domain *d, gfn_t gfn);
uint64_t p2m_max_gfn(const struct domain *d); /* highest gfn ever mapped */

/* A nested fault at gpa. RESOLVED: retry the instruction; EMULATE: device memory: ask the
 * platform; READONLY: a write to ROM, to be dropped by emulation; BAD: nothing can be done. */
enum p2m_fault_result { P2M_FAULT_RESOLVED, P2M_FAULT_EMULATE, P2M_FAULT_READONLY, P2M_FAULT_BAD };
enum p2m_fault_result p2m_fault(struct vcpu *v, paddr_t gpa, bool write, bool exec);

/* Given by dom0's builder: gfn is device memory that Ringfence does not keep for itself, so dom0
 * may have it identity-mapped on first touch. Pages to be emulated are better set to P2M_MMIO_DM:
 * then their faults do not ask. Called without locks. */
bool dom0_may_map_mmio(gfn_t gfn);

/* Flush the domain's guest-physical translations on every pCPU that may hold some; returns when
 * none can be used any more. Given by core/sched.c: p2m code calls it after lowering permissions.
 */
void domain_flush_tlb(struct domain *d);

/* ---- guest page walk: npt/gwalk.c ----------------------------------------------------------- */
enum gwalk_access {
    GWALK_WRITE = 1,
    GWALK_USER = 2,
    GWALK_FETCH = 4,
    GWALK_IMPLICIT = 8 /* system access: no SMAP check */
};
struct gwalk_mode {
    uint64_t cr0, cr3, cr4, efer, rflags;
};
/* Translate a linear address through the guest's own page tables (none, 2-level, PAE, 4-level),
 * setting accessed and dirty bits as hardware does. 0 and *gpa, *page_bytes_left; or -EFAULT with
 * the page fault error code in *pfec. Does not check reserved bits of PAE PDPTEs (emulators.md). */
int guest_walk(struct domain *d, const struct gwalk_mode *m, uint64_t linear, unsigned access,
               paddr_t *gpa, uint32_t *pfec);

/* ---- short reads on the exit path: npt/gpeek.c ---------------------------------------------- */
/* What a vCPU remembers; valid while generation is that of its domain's p2m. All zero at first. */
struct guest_peek {
    uint64_t generation;
    struct {
        gfn_t gfn;
        const char *page;
    } frame[32];         /* RAM, by gfn */
    struct guest_route { /* a walk through the guest's tables, which is good while they stay so */
        uint64_t linear, cr3, mode;
        const uint64_t *entry[4]; /* what was read on the way; fewer levels: some twice */
        uint64_t value[4];
        const char *page;
    } route[4]; /* by page of linear */
};
/* Read bytes of RAM at linear, all in one page, for v == current. The caller is entitled to read
 * there: it is where the CPU has just fetched, or the kernel's read with AC set. False (buf may
 * have changed): use guest_walk. Takes no lock and no reference. */
bool guest_peek(struct vcpu *v, const struct gwalk_mode *m, uint64_t linear, void *buf,
                unsigned bytes);
