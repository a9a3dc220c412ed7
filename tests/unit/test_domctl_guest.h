/* test_domctl_guest.h: a caller for tests of hypercalls: its memory (an arena below 4 GiB, so that
 * 32-bit callers reach it), its vCPU, continuations, and the domain table.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <sys/mman.h>

#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "domain/domain.h"

#define ARENA_BYTES (1 << 20)
#define BAD_POINTER 0x10ULL

struct cpu host_test_cpu;
static char *arena;
static size_t arena_used;
static unsigned fail_copies_after = ~0u; /* copies that still succeed */

static inline void arena_reset(void)
{
    if (!arena) {
        arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
        assert_ptr_not_equal(arena, MAP_FAILED);
    }
    memset(arena, 0, ARENA_BYTES);
    arena_used = 64;
    fail_copies_after = ~0u;
}
/* Guest memory with a copy of `bytes` from src (NULL: zeroes). */
static inline void *guest_alloc(const void *src, size_t bytes)
{
    void *p = arena + arena_used;
    arena_used += (bytes + 63) & ~63UL;
    assert_true(arena_used <= ARENA_BYTES);
    if (src)
        memcpy(p, src, bytes);
    return p;
}
static inline bool in_arena(uint64_t gva, size_t bytes)
{
    uint64_t base = (uint64_t)arena;
    if (!fail_copies_after)
        return false;
    fail_copies_after -= fail_copies_after != ~0u;
    return gva >= base && gva <= base + ARENA_BYTES && bytes <= base + ARENA_BYTES - gva;
}
int copy_from_guest(void *dst, uint64_t gva, size_t bytes)
{
    if (!in_arena(gva, bytes))
        return -EFAULT;
    memcpy(dst, (void *)gva, bytes);
    return 0;
}
int copy_to_guest(uint64_t gva, const void *src, size_t bytes)
{
    if (!in_arena(gva, bytes))
        return -EFAULT;
    memcpy((void *)gva, src, bytes);
    return 0;
}
int clear_guest(uint64_t gva, size_t bytes)
{
    if (!in_arena(gva, bytes))
        return -EFAULT;
    memset((void *)gva, 0, bytes);
    return 0;
}

/* ---- continuations
 * -------------------------------------------------------------------------------- */
static uint64_t next_arg[6];
static unsigned preempt_every, preempt_count, continuations; /* 0: never */

bool hypercall_preempt_check(void)
{
    return preempt_every && ++preempt_count % preempt_every == 0;
}
void hypercall_set_arg(struct vcpu *v, unsigned i, uint64_t value)
{
    next_arg[i] = v->compat ? (uint32_t)value : value;
}
long hypercall_continue(struct vcpu *v)
{
    v->hypercall_restart = true;
    return -ERESTART;
}
long hypercall_missing(struct vcpu *v, const char *group, unsigned op, long err)
{
    (void)v;
    (void)group;
    (void)op;
    return err;
}
/* Call until it is done, as the guest's instruction would. */
static inline long call(hypercall_fn *fn, struct vcpu *v, uint64_t a0, uint64_t a1)
{
    long rc;
    memset(next_arg, 0, sizeof(next_arg));
    next_arg[0] = a0;
    next_arg[1] = a1;
    do {
        uint64_t arg[6];
        memcpy(arg, next_arg, sizeof(arg));
        v->hypercall_restart = false;
        rc = fn(v, arg);
        continuations += v->hypercall_restart;
    } while (v->hypercall_restart);
    return rc;
}

/* ---- domains
 * -------------------------------------------------------------------------------------- */
#define NR_TEST_DOMAINS 4
struct domain *dom0;
static struct domain domains[NR_TEST_DOMAINS];
static struct vcpu vcpus[NR_TEST_DOMAINS];

static inline void domains_reset(void)
{
    memset(domains, 0, sizeof(domains));
    memset(vcpus, 0, sizeof(vcpus));
    for (unsigned i = 0; i < NR_TEST_DOMAINS; i++) {
        domains[i].id = (domid_t)i;
        domains[i].refs = 1;
        domains[i].is_dom0 = domains[i].privileged = i == 0;
        domains[i].target = DOMID_INVALID;
        domains[i].max_vcpus = 1;
        domains[i].vcpu[0] = &vcpus[i];
        domains[i].max_pages = 100000;
        vcpus[i].domain = &domains[i];
    }
    dom0 = &domains[0];
    preempt_every = preempt_count = continuations = 0;
}
struct domain *domain_get(domid_t id)
{
    if (id >= NR_TEST_DOMAINS)
        return NULL;
    domains[id].refs++;
    return &domains[id];
}
void domain_put(struct domain *d)
{
    assert_true(d->refs > 1);
    d->refs--;
}
struct domain *domain_next(domid_t first)
{
    return domain_get(first);
}
int domain_resolve(struct vcpu *caller, domid_t id, struct domain **out)
{
    if (id == DOMID_SELF)
        id = caller->domain->id;
    if (id >= NR_TEST_DOMAINS)
        return -ESRCH;
    if (id != caller->domain->id && !caller->domain->privileged && caller->domain->target != id)
        return -EPERM;
    *out = domain_get(id);
    return 0;
}
/* Every reference that a call took was given back. */
static inline void check_domain_refs(void)
{
    for (unsigned i = 0; i < NR_TEST_DOMAINS; i++)
        assert_int_equal(domains[i].refs, 1);
}
void printk(enum log_level level, const char *fmt, ...)
{
    (void)level;
    (void)fmt;
}
void guest_printk(enum log_level level, const char *fmt, ...)
{
    (void)level;
    (void)fmt;
}
void panic(const char *fmt, ...)
{
    fail_msg("panic: %s", fmt);
    abort();
}
