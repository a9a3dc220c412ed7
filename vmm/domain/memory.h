/* memory.h: what memory_op's files share: memory.c (reservations), memory_map.c (the physmap and
 * memory maps), resource.c (acquire_resource). */
#pragma once

#include "domain/domain.h"

#define MEMORY_OP_EXTENT_SHIFT                                                                     \
    6 /* the first argument: operation below, continuation point above                             \
       */

bool gfn_range_valid(gfn_t gfn, unsigned order);
long memory_op_continue(struct vcpu *v, unsigned op, uint64_t at);
uint64_t claimed_pages(const struct domain *except);
/* A domain's physmap is changed by memory_op under its lock; _locked: the caller holds it. */
void physmap_lock(struct domain *d);
void physmap_unlock(struct domain *d);
int physmap_vacate_locked(struct domain *d, gfn_t gfn, unsigned order);
/* Put the page (a reference that the entry takes over) at gfn of d, in the place of what is there.
 */
int physmap_put_foreign(struct domain *d, gfn_t gfn, struct page_info *pg, enum p2m_type t);

/* Handlers: gva is the structure's address; `at` the continuation point. */
long memory_add_to_physmap(struct vcpu *v, uint64_t gva);
long memory_add_to_physmap_batch(struct vcpu *v, uint64_t gva, uint64_t at);
long memory_remove_from_physmap(struct vcpu *v, uint64_t gva);
long memory_get_map(struct vcpu *v, uint64_t gva);
long memory_machine_map(struct vcpu *v, uint64_t gva);
long memory_set_map(struct vcpu *v, uint64_t gva);
long memory_acquire_resource(struct vcpu *v, uint64_t gva, uint64_t at);
long memory_reserved_devices(struct vcpu *v, uint64_t gva);
