/* grant.h: what grant.c, grant_map.c and grant_copy.c share: pins of a domain's grant entries.
 *
 * A pin is one use of one grant: a mapping, or a copy under way. While an entry has pins the
 * hypervisor remembers its frame with a page reference, and the guest sees GTF_reading or
 * GTF_writing in it. Locks: gt->lock (growth), gt->map_lock (map handles) and an entry's lock are
 * never held together, but for two entries' locks in ascending order.
 */
#pragma once

#include "core/atomic.h"
#include "domain/domain.h"

#define GRANTS_PER_FRAME     (PAGE_SIZE / sizeof(struct grant_entry_v1))
#define GRANT_MAPS_PER_PAGE  (PAGE_SIZE / sizeof(struct grant_map))
#define DEFAULT_GRANT_FRAMES 64
#define MAX_GRANT_FRAMES     16384
/* The tools count maptrack frames of this many handles. */
#define MAPTRACK_PER_FRAME      256
#define DEFAULT_MAPTRACK_FRAMES 1024
#define MAX_MAPTRACK_FRAMES     16384

struct grant_active { /* one for each entry of the table */
    spinlock_t lock;
    uint16_t pins, write_pins; /* all; of those, for writing */
    uint64_t mfn : 40;         /* while pinned: the frame, referenced once */
    uint64_t writable : 1;     /* the granter itself may write it */
    uint64_t domid : 16;       /* who uses it */
};
STATIC_ASSERT(sizeof(struct grant_active) == 16);

struct grant_map {          /* a handle of the mapping domain; guarded by its map_lock */
    struct domain *granter; /* referenced while in use */
    uint64_t gfn;           /* with GNTMAP_host_map: where it is mapped */
    uint32_t ref;
    uint32_t flags;     /* GNTMAP_*; 0 when free */
    uint32_t next_free; /* handle + 1 of the next free one; 0 ends */
    uint32_t pad;
};
STATIC_ASSERT(sizeof(struct grant_map) == 32);

struct grant_table {
    spinlock_t lock;
    unsigned nr_frames, max_frames; /* nr_frames is published after the pointers below it */
    struct grant_entry_v1 **shared; /* frames shared with the guest */
    struct grant_active **active;

    spinlock_t map_lock;
    unsigned nr_map_pages, max_map_pages;
    uint32_t free_maps; /* handle + 1 of the first free one */
    struct grant_map **maps;
    unsigned destroy_next; /* grant_table_destroy under way: the next handle */
};

/* The rest of a hypercall's batch: the domain looked up last stays referenced. */
struct grant_copy_side {
    bool valid;
    bool by_ref, write;
    domid_t domid;        /* as the caller gave it */
    uint64_t frame;       /* the ref or the gmfn */
    struct domain *d;     /* by_ref: the granter, referenced */
    struct page_info *pg; /* !by_ref: referenced */
    char *va;
};
struct grant_batch {
    struct domain *granter; /* referenced */
    struct grant_copy_side source, dest;
};

/* 32-bit callers' layouts where they differ. */
struct gnttab_setup_table32 {
    domid_t dom;
    uint32_t nr_frames;
    int16_t status;
    uint32_t frame_list;
};
struct gnttab_get_status_frames32 {
    uint32_t nr_frames;
    domid_t dom;
    int16_t status;
    uint32_t frame_list;
};
struct gnttab_copy32 {
    struct {
        uint32_t frame;
        domid_t domid;
        uint16_t offset;
    } source, dest;
    uint16_t len, flags;
    int16_t status;
};
STATIC_ASSERT(sizeof(struct gnttab_setup_table32) == 16);
STATIC_ASSERT(sizeof(struct gnttab_get_status_frames32) == 12);
STATIC_ASSERT(sizeof(struct gnttab_copy32) == 24);

/* ---- grant.c -------------------------------------------------------------------------------- */
/* Domain domid as a granter, referenced; NULL. DOMID_SELF is v's own. */
struct domain *grant_domain(struct vcpu *v, domid_t domid);
/* Pin rd's entry ref for domain `user`: GNTST_okay and its frame, or the GNTST error. */
int16_t grant_pin(struct domain *rd, grant_ref_t ref, domid_t user, bool write, mfn_t *mfn);
void grant_unpin(struct domain *rd, grant_ref_t ref, bool write);
/* The frame of an entry that the caller has pinned. */
mfn_t grant_pinned_mfn(struct domain *rd, grant_ref_t ref);

/* ---- grant_map.c: one operation each; status in the operation, result 0 --------------------- */
void grant_map_op(struct vcpu *v, struct grant_batch *b, struct gnttab_map_grant_ref *op);
void grant_unmap_op(struct vcpu *v, struct gnttab_unmap_grant_ref *op);
/* Forget a mapping just made, whose handle the caller will never hear of. */
void grant_map_undo(struct vcpu *v, const struct gnttab_map_grant_ref *op);

/* ---- grant_copy.c --------------------------------------------------------------------------- */
void grant_copy_op(struct vcpu *v, struct grant_batch *b, struct gnttab_copy *op);
/* Release what the copies of a batch kept for the next. */
void grant_copy_end(struct grant_batch *b);
