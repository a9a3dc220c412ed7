/* domain.c: domains and vCPUs: creation, the table of them, pausing, shutdown, destruction.
 *
 * Locks: domain_table_lock guards the table; d->lock the vCPU table and the shutdown state. Neither
 * is held while vCPUs are waited for.
 */
#include "domain/domain.h"

#include "core/atomic.h"
#include "core/console.h"
#include "core/errno.h"
#include "core/machine.h"
#include "core/print.h"
#include "core/sched.h"
#include "core/string.h"
#include "domain/dom0.h"
#include "domain/exit.h"
#include "domain/hvm.h"
#include "domain/memory.h"
#include "domain/pvtime.h"
#include "platform/platform.h"

/* x87, SSE and AVX in the standard format take 832 (SDM 1, 13.4); kzalloc aligns it to its size. */
#define XSAVE_BYTES 1024

struct domain *dom0;
static struct domain *table[DOMID_HASH];
static spinlock_t table_lock;
static struct vcpu_info dummy_info;

/* ---- the table
 * ------------------------------------------------------------------------------------ */
void domain_hold(struct domain *d)
{
    atomic_add(&d->refs, 1);
}

static struct domain *find_locked(domid_t id)
{
    struct domain *d = table[id % DOMID_HASH];
    while (d && d->id != id)
        d = d->hash_next;
    return d;
}

struct domain *domain_get(domid_t id)
{
    spin_lock(&table_lock);
    struct domain *d = find_locked(id);
    if (d)
        domain_hold(d);
    spin_unlock(&table_lock);
    return d;
}

struct domain *domain_next(domid_t first)
{
    struct domain *best = NULL;
    spin_lock(&table_lock);
    for (unsigned i = 0; i < DOMID_HASH; i++) {
        for (struct domain *d = table[i]; d; d = d->hash_next) {
            if (d->id >= first && (!best || d->id < best->id))
                best = d;
        }
    }
    if (best)
        domain_hold(best);
    spin_unlock(&table_lock);
    return best;
}

int domain_resolve(struct vcpu *caller, domid_t id, struct domain **out)
{
    struct domain *self = caller->domain;
    if (id == DOMID_SELF || id == self->id) {
        domain_hold(self);
        *out = self;
        return 0;
    }
    *out = domain_get(id);
    if (!*out)
        return -ESRCH;
    if (self->privileged || self->target == id)
        return 0;
    domain_put(*out);
    *out = NULL;
    return -EPERM;
}

/* ---- creation
 * ------------------------------------------------------------------------------------- */
static void vcpu_free(struct vcpu *v)
{
    if (!v)
        return;
    vcpu_op_destroy(v); /* no timer may be queued in memory that is given back */
    platform_vcpu_destroy(v);
    mmio_vcpu_free(v);
    msr_vcpu_free(v);
    ioreq_vcpu_destroy(v);
    platform_vcpu_free(v);
    if (v->hw)
        hvm_ops->vcpu_free(v);
    kfree(v->xsave);
    page_free(v);
}

/* A page each; a frame names its owner by the page's number. */
STATIC_ASSERT(sizeof(struct vcpu) <= PAGE_SIZE);
STATIC_ASSERT(sizeof(struct domain) <= PAGE_SIZE);

/* The x87 and SSE state after reset, in both the legacy and the XSAVE area (SDM 1, 13.6). */
static void fpu_reset(struct vcpu *v)
{
    memset(v->xsave, 0, XSAVE_BYTES);
    *(uint16_t *)v->xsave = 0x37f;
    *(uint32_t *)((char *)v->xsave + 24) = 0x1f80;
    *(uint64_t *)((char *)v->xsave + 512) = 3; /* XSTATE_BV: x87 and SSE */
    v->xcr0 = 1;
}

int vcpu_create(struct domain *d, unsigned id)
{
    if (id >= d->max_vcpus || id >= MAX_VCPUS_PER_DOMAIN)
        return -EINVAL;
    if (d->vcpu[id])
        return 0;
    struct vcpu *v = page_alloc();
    if (!v)
        return -ENOMEM;
    v->id = id;
    v->domain = d;
    v->block = VBLOCK_DOWN;
    v->info = &dummy_info;
    v->work = VWORK_EVENT;
    sched_vcpu_init(v);
    int err = -ENOMEM;
    v->xsave = kzalloc(XSAVE_BYTES);
    if (!v->xsave)
        goto fail;
    fpu_reset(v);
    err = platform_vcpu_init(v);
    if (!err)
        err = hvm_ops->vcpu_init(v);
    if (!err)
        err = ioreq_vcpu_init(v);
    if (!err)
        err = mmio_vcpu_init(v);
    if (err)
        goto fail;
    vcpu_op_init(v);
    evtchn_vcpu_init(v);
    v->regs.gpr[RDX] = 0x600;
    v->regs.rip = 0xfff0;
    v->regs.rflags = 2;
    d->vcpu[id] = v;
    return 0;
fail:
    vcpu_free(v);
    return err;
}

static void domain_free(struct domain *d)
{
    sched_op_domain_destroy(d);
    sched_domain_destroy(d);
    if (d->platform)
        platform_domain_destroy(d);
    for (unsigned i = 0; i < MAX_VCPUS_PER_DOMAIN; i++)
        vcpu_free(d->vcpu[i]);
    grant_table_free(d);
    evtchn_domain_free(d);
    ioreq_domain_free(d);
    platform_domain_free(d);
    cpuid_policy_free(d);
    p2m_free(d);
    kfree(d->memory_map_table);
    page_free(d);
}

void domain_put(struct domain *d)
{
    uint32_t left = atomic_sub(&d->refs, 1);
    /* A dead domain's last reference may be that of its own grant frames: each mapping of a grant
     * holds one more, so nobody uses the table now, and it goes with its frames. */
    if (left == 1 && d->dying == DOMAIN_DEAD && d->grants && d->tot_pages + d->xenheap_pages) {
        domain_hold(d);
        grant_table_free(d);
        domain_put(d);
        return;
    }
    if (left)
        return;
    ASSERT(!d->tot_pages && !d->xenheap_pages);
    domain_free(d);
}

static int shared_info_init(struct domain *d)
{
    struct page_info *pg = heap_alloc(0);
    if (!pg)
        return -ENOMEM;
    d->shared_info_page = pg;
    d->shared_info = page_to_virt(pg);
    pvtime_update_wallclock(d);
    page_share_with_domain(pg, d);
    return 0;
}

int domain_create(domid_t id, const struct xen_domctl_createdomain *config, bool privileged,
                  struct domain **out)
{
    if (!config->max_vcpus || config->max_vcpus > MAX_VCPUS_PER_DOMAIN ||
        id >= DOMID_FIRST_RESERVED)
        return -EINVAL;
    struct domain *d = page_alloc();
    if (!d)
        return -ENOMEM;
    d->id = id;
    d->refs = 1;
    d->privileged = privileged;
    d->is_dom0 = privileged && !dom0;
    d->max_vcpus = config->max_vcpus;
    d->ssidref = config->ssidref;
    d->options = config->flags;
    d->max_evtchn_port = config->max_evtchn_port;
    d->max_grant_frames = config->max_grant_frames;
    d->max_maptrack_frames = config->max_maptrack_frames;
    d->emulation_flags = config->arch.emulation_flags;
    memcpy(d->handle, config->handle, sizeof(d->handle));
    d->target = DOMID_INVALID;
    d->shutdown_code = -1;
    sched_domain_init(d);
    d->pause_count = 1; /* the tools unpause it */
    d->created_paused = true;
    d->systemcontroller_pauses = 1;
    d->tsc_khz = tsc_khz;
    d->hvm_params[HVM_PARAM_HPET_ENABLED] = 1;
    d->hvm_params[HVM_PARAM_TRIPLE_FAULT_REASON] = SHUTDOWN_reboot;
    list_init(&d->page_list);
    list_init(&d->xenpage_list);

    int err = p2m_init(d);
    if (!err)
        err = cpuid_policy_init(d);
    if (!err)
        err = shared_info_init(d);
    if (!err)
        err = evtchn_domain_init(d);
    if (!err)
        err = grant_table_init(d);
    if (!err)
        err = platform_domain_init(d);
    if (!err)
        err = ioreq_domain_init(d);
    if (!err) {
        spin_lock(&table_lock);
        if (find_locked(id)) {
            err = -EEXIST;
        } else {
            d->hash_next = table[id % DOMID_HASH];
            table[id % DOMID_HASH] = d;
        }
        spin_unlock(&table_lock);
    }
    if (err) {
        d->dying = DOMAIN_DEAD;
        if (d->shared_info_page)
            page_put(d->shared_info_page);
        domain_put(d);
        return err;
    }
    *out = d;
    return 0;
}

/* ---- pausing
 * --------------------------------------------------------------------------------------- */
void domain_pause(struct domain *d)
{
    atomic_add(&d->pause_count, 1);
    for (unsigned i = 0; i < d->max_vcpus; i++) {
        if (d->vcpu[i])
            vcpu_sleep_sync(d->vcpu[i]);
    }
}

void domain_unpause(struct domain *d)
{
    if (atomic_sub(&d->pause_count, 1))
        return;
    for (unsigned i = 0; i < d->max_vcpus; i++) {
        if (d->vcpu[i])
            vcpu_wake(d->vcpu[i]);
    }
}

void vcpu_pause(struct vcpu *v)
{
    atomic_add(&v->pause_count, 1);
    vcpu_sleep_sync(v);
}

void vcpu_unpause(struct vcpu *v)
{
    if (!atomic_sub(&v->pause_count, 1))
        vcpu_wake(v);
}

/* ---- shutdown and destruction
 * ------------------------------------------------------------------------ */
void domain_shutdown(struct domain *d, int reason)
{
    if (d->is_dom0)
        machine_dom0_shutdown(reason);
    spin_lock(&d->lock);
    if (d->shutdown_code == -1)
        d->shutdown_code = reason;
    if (d->shutting_down) {
        spin_unlock(&d->lock);
        return;
    }
    d->shutting_down = true;
    atomic_add(&d->pause_count, 1); /* for good, until domain_resume */
    for (unsigned i = 0; i < d->max_vcpus; i++) {
        struct vcpu *v = d->vcpu[i];
        if (v)
            vcpu_sleep(v);
    }
    spin_unlock(&d->lock);
    domain_report_shutdown(d);
}

void domain_report_shutdown(struct domain *d)
{
    spin_lock(&d->lock);
    bool due = d->shutting_down && !d->shut_down && !READ_ONCE(d->systemcontroller_pauses);
    if (due)
        d->shut_down = true;
    spin_unlock(&d->lock);
    if (due)
        send_global_virq(VIRQ_DOM_EXC);
}

void domain_s3_sleep(struct domain *d)
{
    spin_lock(&d->lock);
    bool was = d->s3_asleep;
    d->s3_asleep = true;
    spin_unlock(&d->lock);
    if (was)
        return;
    domain_pause(d);
    platform_reset(d);
    for (unsigned i = 0; i < d->max_vcpus; i++) {
        if (d->vcpu[i] && i)
            vcpu_init_signal(d->vcpu[i]);
        else if (d->vcpu[i])
            vcpu_firmware_start(d->vcpu[i]);
    }
}

void domain_s3_wake(struct domain *d)
{
    spin_lock(&d->lock);
    bool was = d->s3_asleep;
    d->s3_asleep = false;
    spin_unlock(&d->lock);
    if (!was)
        return;
    vpmtmr_woke(d);
    domain_unpause(d);
}

void domain_resume(struct domain *d)
{
    spin_lock(&d->lock);
    bool was = d->shutting_down;
    d->shutting_down = d->shut_down = false;
    d->shutdown_code = -1;
    spin_unlock(&d->lock);
    if (was)
        domain_unpause(d);
}

static void dump_vcpu(struct vcpu *v)
{
    struct guest_regs *r = &v->regs;
    uint8_t code[16];
    char text[3 * sizeof(code) + 1];
    struct segment cs;
    log_err("d%uv%u: rip %016lx rflags %08lx", v->domain->id, v->id, r->rip, r->rflags);
    for (unsigned i = 0; i < NR_GPRS; i += 4)
        log_err("%016lx %016lx %016lx %016lx  %s", r->gpr[i], r->gpr[i + 1], r->gpr[i + 2],
                r->gpr[i + 3],
                (const char *[]){"rax rcx rdx rbx", "rsp rbp rsi rdi", "r8-r11", "r12-r15"}[i / 4]);
    hvm_ops->dump(v);
    if (v != current_vcpu())
        return;
    hvm_ops->get_segment(v, SEGR_CS, &cs);
    if (!copy_from_guest(code, (cs.attr & 0x200 ? 0 : cs.base) + r->rip, sizeof(code))) {
        for (unsigned i = 0; i < sizeof(code); i++)
            snprintf(text + 3 * i, 4, "%02x ", code[i]);
        log_err("code: %s", text);
    }
    uint64_t stack[8];
    if (!copy_from_guest(stack, r->gpr[RSP], sizeof(stack))) {
        log_err("stack: %016lx %016lx %016lx %016lx", stack[0], stack[1], stack[2], stack[3]);
        log_err("       %016lx %016lx %016lx %016lx", stack[4], stack[5], stack[6], stack[7]);
    }
}

void domain_crash(struct domain *d, const char *fmt, ...)
{
    char text[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (d->shutting_down)
        return;
    log_err("domain %u crashed: %s", d->id, text);
    struct vcpu *v = current_vcpu();
    if (v && v->domain == d)
        dump_vcpu(v);
    domain_shutdown(d, SHUTDOWN_crash);
}

/* A shutdown cycle on the CPU. With an IDT too small to hold even the double fault's gate the guest
 * asked for it, as kernels do to reset the machine: then the tools' wish counts
 * (HVM_PARAM_TRIPLE_FAULT_REASON, normally reboot). Otherwise it is a crash. */
void domain_triple_fault(struct vcpu *v)
{
    struct segment idtr;
    hvm_ops->get_segment(v, SEGR_IDTR, &idtr);
    if (idtr.limit < 8 * (EXC_DF + 1) - 1) {
        log_err("d%uv%u: triple fault without an IDT: a reset", v->domain->id, v->id);
        dump_vcpu(v);
        domain_shutdown(v->domain, (int)v->domain->hvm_params[HVM_PARAM_TRIPLE_FAULT_REASON]);
        return;
    }
    domain_crash(v->domain, "d%uv%u: triple fault", v->domain->id, v->id);
}

void domain_dump_registers(struct domain *d)
{
    for (unsigned i = 0; i < d->max_vcpus; i++) {
        struct vcpu *v = d->vcpu[i];
        if (v && (v == current_vcpu() || !v->sched.running))
            dump_vcpu(v);
    }
}

static void unlink_domain(struct domain *d)
{
    spin_lock(&table_lock);
    struct domain **p = &table[d->id % DOMID_HASH];
    while (*p != d)
        p = &(*p)->hash_next;
    *p = d->hash_next;
    spin_unlock(&table_lock);
}

/* Each stage can be entered again; what it has given back it does not give back twice. */
int domain_kill(struct domain *d)
{
    enum { STOP, GRANTS, PAGES, TABLES, UNLINK };
    int err = 0;
    if (d->is_dom0)
        return -EINVAL;
    switch (d->kill_stage) {
    case STOP:
        if (!atomic_cas(&d->dying, DOMAIN_ALIVE, DOMAIN_DYING))
            return -ESRCH;
        domain_pause(d);
        physmap_lock(d); /* whoever was mapping into d has seen it die when this is ours */
        physmap_unlock(d);
        sched_op_domain_destroy(d);
        sched_domain_destroy(d);
        for (unsigned i = 0; i < d->max_vcpus; i++) {
            struct vcpu *v = d->vcpu[i];
            if (!v)
                continue;
            vcpu_op_destroy(v);
            platform_vcpu_destroy(v);
        }
        platform_domain_destroy(d);
        ioreq_domain_destroy(d);
        evtchn_domain_destroy(d);
        d->kill_stage = GRANTS;
        /* fall through */
    case GRANTS:
        err = grant_table_destroy(d);
        if (err)
            return err;
        d->kill_stage = PAGES;
        /* fall through */
    case PAGES:
        err = domain_pages_release(d);
        if (err)
            return err;
        d->kill_stage = TABLES;
        /* fall through */
    case TABLES:
        err = p2m_teardown(d);
        if (err)
            return err;
        for (unsigned i = 0; i < d->max_vcpus; i++) {
            if (d->vcpu[i])
                sched_vcpu_destroy(d->vcpu[i]);
        }
        d->kill_stage = UNLINK;
        d->dying = DOMAIN_DEAD;
        page_put(d->shared_info_page);
        unlink_domain(d);
        send_global_virq(VIRQ_DOM_EXC);
        domain_put(d);
        break;
    case UNLINK:
        return -ESRCH;
    }
    return 0;
}

void domain_getinfo(struct domain *d, struct xen_domctl_getdomaininfo *info)
{
    bool blocked = true, running = false;
    memset(info, 0, sizeof(*info));
    info->domain = d->id;
    for (unsigned i = 0; i < d->max_vcpus; i++) {
        struct vcpu *v = d->vcpu[i];
        if (!v)
            continue;
        info->max_vcpu_id = i;
        info->cpu_time += vcpu_cpu_time(v);
        if (v->block & VBLOCK_DOWN)
            continue;
        info->nr_online_vcpus++;
        blocked &= v->block != 0;
        running |= v->sched.running;
    }
    info->flags = XEN_DOMINF_hvm_guest | XEN_DOMINF_hap;
    if (blocked)
        info->flags |= XEN_DOMINF_blocked;
    if (running)
        info->flags |= XEN_DOMINF_running;
    if (d->systemcontroller_pauses)
        info->flags |= XEN_DOMINF_paused;
    if (d->dying == DOMAIN_DEAD)
        info->flags |= XEN_DOMINF_dying;
    if (d->shut_down)
        info->flags |= XEN_DOMINF_shutdown | (uint32_t)d->shutdown_code << XEN_DOMINF_shutdownshift;
    info->tot_pages = d->tot_pages;
    info->max_pages = d->max_pages;
    info->shr_pages = d->shr_pages;
    info->outstanding_pages = d->outstanding_pages;
    info->ssidref = d->ssidref;
    info->cpupool = d->cpupool;
    memcpy(info->handle, d->handle, sizeof(d->handle));
    info->shared_info_frame = d->shared_info ? virt_to_mfn(d->shared_info) : INVALID_MFN;
    info->gpaddr_bits = (uint8_t)p2m_gpa_bits;
    info->arch_config.emulation_flags = d->emulation_flags;
}
