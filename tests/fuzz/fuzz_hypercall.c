/* sources: vmm/domain/memory*.c vmm/domain/resource.c vmm/domain/multicall.c vmm/domain/version.c
 */
/*
 * Fuzzes the hypercalls that any guest may make: the input is a list of calls (who, width, number,
 * arguments) and the callers' memory. Whatever comes, each call ends within bounds, every domain
 * reference is given back, and a frame's references are those that owners and mappings explain.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "domain/domain.h"
#include "platform/platform.h"

#define NR_DOMAINS   3
#define NR_GFNS      1024
#define NR_FRAMES    2048
#define MEMORY_BYTES 4096 /* guest memory: linear addresses from 0, repeating nowhere */
#define MAX_STEPS    2000

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct cpu host_test_cpu;
struct domain *dom0;
char *host_test_ram;
char boot_cmdline[] = "";
unsigned p2m_gpa_bits = 22;
mfn_t max_mfn = NR_FRAMES;
static struct page_info frames[NR_FRAMES];
struct page_info *frame_table = frames;
static struct domain domains[NR_DOMAINS];
static struct vcpu vcpus[NR_DOMAINS];
static struct entry {
    mfn_t mfn;
    enum p2m_type t;
} maps[NR_DOMAINS][NR_GFNS];
static uint8_t memory[MEMORY_BYTES];
static unsigned steps;

int copy_from_guest(void *dst, uint64_t gva, size_t n)
{
    if (gva >= MEMORY_BYTES || n > MEMORY_BYTES - gva)
        return -EFAULT;
    memcpy(dst, memory + gva, n);
    return 0;
}
int copy_to_guest(uint64_t gva, const void *src, size_t n)
{
    if (gva >= MEMORY_BYTES || n > MEMORY_BYTES - gva)
        return -EFAULT;
    memcpy(memory + gva, src, n);
    return 0;
}
bool hypercall_preempt_check(void)
{
    return ++steps % 5 == 0;
}
static const uint8_t arg_regs[2][6] = {{RDI, RSI, RDX, R10, R8, R9},
                                       {RBX, RCX, RDX, RSI, RDI, RBP}};
void hypercall_set_arg(struct vcpu *v, unsigned i, uint64_t value)
{
    v->regs.gpr[arg_regs[v->compat][i]] = v->compat ? (uint32_t)value : value;
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
long hypercall_dispatch(struct vcpu *v, unsigned nr, const uint64_t arg[6])
{
    switch (nr) {
    case __HYPERVISOR_multicall:
        return do_multicall(v, arg);
    case __HYPERVISOR_xen_version:
        return do_xen_version(v, arg);
    case __HYPERVISOR_vm_assist:
        return do_vm_assist(v, arg);
    case __HYPERVISOR_memory_op:
        return do_memory_op(v, arg);
    default:
        return -ENOSYS;
    }
}
struct domain *domain_get(domid_t id)
{
    if (id >= NR_DOMAINS)
        return NULL;
    domains[id].refs++;
    return &domains[id];
}
void domain_put(struct domain *d)
{
    CHECK(d->refs-- > 1);
}
struct domain *domain_next(domid_t first)
{
    return domain_get(first);
}
int domain_resolve(struct vcpu *caller, domid_t id, struct domain **out)
{
    struct domain *self = caller->domain;

    if (id == DOMID_SELF)
        id = self->id;
    if (id >= NR_DOMAINS)
        return -ESRCH;
    if (id != self->id && !self->privileged && self->target != id)
        return -EPERM;
    *out = domain_get(id);
    return 0;
}
struct domain *page_owner(const struct page_info *pg)
{
    return pg->owner ? &domains[pg->owner - 1] : NULL;
}
void ioreq_invalidate(struct domain *d)
{
    (void)d;
}
bool page_get(struct page_info *pg, const struct domain *d)
{
    if (!pg->refs || (d && page_owner(pg) != d))
        return false;
    pg->refs++;
    return true;
}
void page_put(struct page_info *pg)
{
    CHECK(pg->refs > 0);
    if (--pg->refs)
        return;
    CHECK(!pg->flags);
    page_owner(pg)->tot_pages--;
    pg->owner = 0;
}
bool page_put_alloc_ref(struct page_info *pg)
{
    CHECK(page_owner(pg));
    if (!(pg->flags & PG_ALLOCATED))
        return false;
    pg->flags = 0;
    page_put(pg);
    return true;
}
static void take(struct domain *d, mfn_t m, uint8_t flags)
{
    frames[m] = (struct page_info){.refs = 1, .owner = d->id + 1u, .flags = flags};
    d->tot_pages += flags == PG_ALLOCATED;
}
struct page_info *domain_page_alloc_beyond(struct domain *d, unsigned order, mfn_t limit)
{
    uint64_t n = 1ULL << order, end = limit ? MIN(limit, NR_FRAMES) : NR_FRAMES;

    for (mfn_t m = 512; m + n <= end; m += n) {
        mfn_t k = m;
        while (k < m + n && !frames[k].refs)
            k++;
        if (k < m + n)
            continue;
        for (k = m; k < m + n; k++)
            take(d, k, PG_ALLOCATED);
        return &frames[m];
    }
    return NULL;
}
struct page_info *domain_page_alloc(struct domain *d, unsigned order, mfn_t limit)
{
    return d->tot_pages + (1ULL << order) > d->max_pages
               ? NULL
               : domain_page_alloc_beyond(d, order, limit);
}
uint64_t heap_free_pages(void)
{
    return 100;
}
void *kzalloc(size_t n)
{
    return calloc(1, n);
}
void kfree(void *p)
{
    free(p);
}
static bool foreign(enum p2m_type t)
{
    return t == P2M_FOREIGN_RW || t == P2M_FOREIGN_RO;
}
int p2m_set(struct domain *d, gfn_t gfn, mfn_t mfn, unsigned order, enum p2m_type t)
{
    uint64_t n = 1ULL << order;

    CHECK(gfn < NR_GFNS && n <= NR_GFNS - gfn);
    for (uint64_t i = 0; i < n; i++) {
        struct entry old = maps[d->id][gfn + i];
        CHECK(t == P2M_HOLE || mfn + i < NR_FRAMES);
        maps[d->id][gfn + i] = (struct entry){t == P2M_HOLE ? INVALID_MFN : mfn + i, t};
        if (foreign(old.t))
            page_put(&frames[old.mfn]);
    }
    return 0;
}
int p2m_set_range(struct domain *d, gfn_t gfn, mfn_t mfn, uint64_t count, enum p2m_type t)
{
    for (uint64_t i = 0; i < count; i++)
        p2m_set(d, gfn + i, t == P2M_HOLE ? mfn : mfn + i, 0, t);
    return 0;
}
mfn_t p2m_get(struct domain *d, gfn_t gfn, enum p2m_type *t, unsigned *order)
{
    struct entry e;

    CHECK(gfn < NR_GFNS);
    e = maps[d->id][gfn];
    *t = e.t;
    if (order)
        *order = 0;
    return e.t == P2M_HOLE ? INVALID_MFN : e.mfn;
}
struct page_info *p2m_get_page(struct domain *d, gfn_t gfn, bool write, enum p2m_type *t)
{
    struct entry e;

    CHECK(gfn < NR_GFNS);
    e = maps[d->id][gfn];
    *t = e.t;
    if (!p2m_is_mapped(e.t) || (write && !p2m_is_writable(e.t)))
        return NULL;
    return page_get(&frames[e.mfn], foreign(e.t) ? NULL : d) ? &frames[e.mfn] : NULL;
}
uint64_t p2m_max_gfn(const struct domain *d)
{
    (void)d;
    return NR_GFNS - 1;
}
int grant_table_frame(struct domain *d, unsigned idx, bool status, mfn_t *mfn)
{
    *mfn = 16 + d->id * 4u + (idx & 3);
    return idx > 3 || status ? -EINVAL : 0;
}
int ioreq_server_frame(struct domain *d, unsigned server, unsigned idx, mfn_t *mfn)
{
    *mfn = 32 + d->id * 2u + (idx & 1);
    return server || idx > 1 ? -ENOENT : 0;
}
int dom0_memory_map(struct e820entry *out, unsigned max)
{
    memset(out, 0, max * sizeof(*out));
    return (int)max;
}
int machine_memory_map(struct e820entry *out, unsigned max)
{
    return dom0_memory_map(out, max);
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
    fputs(fmt, stderr);
    abort();
}

/* Three domains: dom0 at its own addresses, a guest, and a device model's domain for the guest. */
static void start(void)
{
    memset(frames, 0, sizeof(frames));
    memset(maps, 0, sizeof(maps));
    memset(domains, 0, sizeof(domains));
    memset(vcpus, 0, sizeof(vcpus));
    dom0 = &domains[0];
    for (unsigned i = 0; i < NR_DOMAINS; i++) {
        struct domain *d = &domains[i];
        d->id = (domid_t)i;
        d->refs = 1;
        d->is_dom0 = d->privileged = !i;
        d->target = i == 2 ? 1 : DOMID_INVALID;
        d->max_pages = 600;
        d->max_grant_frames = 4;
        d->vcpu[0] = &vcpus[i];
        vcpus[i].domain = d;
        take(d, 8 + i, PG_XENHEAP);
        d->shared_info_page = &frames[8 + i];
        for (unsigned k = 0; k < 4; k++)
            take(d, 16 + i * 4 + k, PG_XENHEAP);
        for (unsigned k = 0; k < 2; k++)
            take(d, 32 + i * 2 + k, PG_XENHEAP);
        for (unsigned g = 64 + i * 64; g < 128 + i * 64; g++) {
            take(d, g, PG_ALLOCATED);
            maps[i][g] = (struct entry){g, P2M_RAM};
        }
    }
}

static void audit(void)
{
    static uint32_t expect[NR_FRAMES];

    for (unsigned m = 0; m < NR_FRAMES; m++)
        expect[m] = !!frames[m].flags;
    for (unsigned d = 0; d < NR_DOMAINS; d++)
        for (unsigned g = 0; g < NR_GFNS; g++) {
            struct entry e = maps[d][g];
            if (e.t == P2M_HOLE)
                continue;
            expect[e.mfn] += foreign(e.t);
            CHECK(foreign(e.t) ||
                  (frames[e.mfn].refs && page_owner(&frames[e.mfn]) == &domains[d]));
        }
    for (unsigned m = 0; m < NR_FRAMES; m++)
        CHECK(frames[m].refs == expect[m]);
    for (unsigned d = 0; d < NR_DOMAINS; d++) {
        CHECK(domains[d].refs == 1);
        kfree(domains[d].memory_map_table);
    }
}

static void call(struct vcpu *v, unsigned nr)
{
    for (steps = 0; steps < MAX_STEPS;) {
        uint64_t arg[6];
        for (unsigned i = 0; i < 6; i++)
            arg[i] = v->regs.gpr[arg_regs[v->compat][i]];
        steps++;
        v->hypercall_restart = false;
        hypercall_dispatch(v, nr, arg);
        if (!v->hypercall_restart)
            break;
    }
    v->hypercall_restart = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct {
        uint8_t who, nr;
        uint16_t arg[4];
    } c;
    static const unsigned numbers[] = {__HYPERVISOR_memory_op,   __HYPERVISOR_memory_op,
                                       __HYPERVISOR_memory_op,   __HYPERVISOR_multicall,
                                       __HYPERVISOR_xen_version, __HYPERVISOR_vm_assist};
    size_t calls = size / 4 / sizeof(c); /* a quarter of the input is calls, the rest memory */

    start();
    memset(memory, 0, sizeof(memory));
    memcpy(memory, data + calls * sizeof(c), MIN(size - calls * sizeof(c), sizeof(memory)));
    for (size_t k = 0; k < MIN(calls, (size_t)16); k++) {
        memcpy(&c, data + k * sizeof(c), sizeof(c));
        struct vcpu *v = &vcpus[(c.who & 3) % NR_DOMAINS];
        v->compat = c.who & 4;
        for (unsigned i = 0; i < 4; i++)
            v->regs.gpr[arg_regs[v->compat][i]] = c.arg[i];
        call(v, numbers[c.nr % ARRAY_SIZE(numbers)]);
    }
    audit();
    return 0;
}
