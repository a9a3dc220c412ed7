/* domctl.h: what the files behind domctl and sysctl share.
 *
 * domctl.c and sysctl.c look an operation up in a table, check what the table says, copy the
 * structure in and, for operations that answer in it, out. The other files hold the operations.
 */
#pragma once

#include "domain/domain.h"

/* An operation on d (referenced; NULL where the table says so). Returns 0, a positive result, or
 * -errno; -ERESTART asks for a continuation with the structure unchanged. */
typedef long domctl_fn(struct vcpu *v, struct domain *d, struct xen_domctl *op);
typedef long sysctl_fn(struct vcpu *v, struct xen_sysctl *op);

/* vCPU `id` of d, or NULL. */
struct vcpu *domctl_vcpu(struct domain *d, uint32_t id);
/* A CPU or node map in the caller's memory, and one of ours of nr_bits (up to 64). */
int bitmap_from_guest(uint64_t *bits, const struct xenctl_bitmap *map, unsigned nr_bits);
int bitmap_to_guest(const struct xenctl_bitmap *map, uint64_t bits, unsigned nr_bits);

/* domctl_mem.c: memory sizes, page types, dirty logging. */
domctl_fn domctl_max_mem, domctl_getpageframeinfo3, domctl_shadow_op, domctl_get_mempool,
    domctl_set_mempool;
/* domctl_vcpu.c: vCPUs, their registers and their scheduling. */
domctl_fn domctl_max_vcpus, domctl_getvcpuinfo, domctl_setvcpuaffinity, domctl_getvcpuaffinity,
    domctl_setvcpucontext, domctl_getvcpucontext, domctl_scheduler_op, domctl_get_vcpu_msrs,
    domctl_set_vcpu_msrs, domctl_sendtrigger;
/* domctl_hvm.c: the machine: HVM contexts, CPUID policy, time. */
domctl_fn domctl_gethvmcontext, domctl_sethvmcontext, domctl_gethvmcontext_partial,
    domctl_get_cpu_policy, domctl_set_cpu_policy, domctl_settimeoffset, domctl_gettscinfo,
    domctl_settscinfo, domctl_hypercall_init, domctl_get_address_size;
/* sysctl_host.c: the machine's CPUs, nodes and pools. sysctl_cpuid.c: what its CPUs can do. */
sysctl_fn sysctl_cputopoinfo, sysctl_numainfo, sysctl_pcitopoinfo, sysctl_cpupool_op,
    sysctl_scheduler_op, sysctl_get_cpu_policy, sysctl_get_cpu_featureset,
    sysctl_get_cpu_levelling_caps;
/* Copy leaves of policy `get` (a system's or a domain's) out: shared by both policy operations. */
long cpu_policy_to_guest(int (*get)(const void *which, xen_cpuid_leaf_t *, uint32_t *),
                         const void *which, uint64_t leaves, uint32_t *nr_leaves, uint64_t msrs,
                         uint32_t *nr_msrs);
