/* cpuid_policy.h: the CPUID leaves of a domain, and where they are kept: inside cpuid.c's family.
 */
#pragma once

#include "platform/platform.h"

#define CPUID_BASIC    0xe  /* leaves 0 .. 0xd */
#define CPUID_CACHE    6    /* sub-leaves of 4 */
#define CPUID_FEATURE  2    /* of 7 */
#define CPUID_TOPOLOGY 2    /* of 0xb */
#define CPUID_XSTATE   63   /* of 0xd */
#define CPUID_EXTENDED 0x22 /* leaves 0x80000000 .. 0x80000021 */

struct cpuid_leaf {
    uint32_t a, b, c, d;
};

/* All that a domain's CPUID answers from; what changes with the vCPU or its registers is filled in
 * by guest_cpuid(). Written while the domain does not run, read without a lock. */
struct cpuid_policy {
    struct cpuid_leaf basic[CPUID_BASIC]; /* 4, 7, 0xb, 0xd: unused, see below */
    struct cpuid_leaf cache[CPUID_CACHE];
    struct cpuid_leaf feature[CPUID_FEATURE];
    struct cpuid_leaf topology[CPUID_TOPOLOGY];
    struct cpuid_leaf xstate[CPUID_XSTATE];
    struct cpuid_leaf extended[CPUID_EXTENDED];
    uint32_t max_basic, max_feature, max_extended; /* the last counted from 0x80000000 */
};

/* Where feature word n (XEN_CPUFEATURE's numbering) is in a policy; NULL for words not kept. */
uint32_t *cpuid_feature_word(struct cpuid_policy *p, unsigned n);
/* Policies by XEN_SYSCTL_cpu_policy_*: raw and host, HVM maximum and default. */
extern struct cpuid_policy cpuid_raw, cpuid_max, cpuid_default;
/* Turn off what does not make sense without something that is off, fix sizes and limits. */
void cpuid_policy_settle(struct cpuid_policy *p);
/* Execute CPUID on this CPU (on a test's host: the test's own). */
void host_cpuid(uint32_t leaf, uint32_t sub, struct cpuid_leaf *out);
