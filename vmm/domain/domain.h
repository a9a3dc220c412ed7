/* domain.h: a domain, its vCPUs, and their life cycle: the front door of vmm/domain.
 *
 * Life cycle of a domain: domain_create -> (paused until the tools unpause it) -> running ->
 * domain_shutdown (guest's own doing or a crash; the tools see the reason) -> domain_kill (the
 * tools' destroydomain; preemptible: gives back every page) -> freed when the last reference goes.
 */
#pragma once

#include "core/cpu.h"
#include "core/list.h"
#include "core/mm.h"
#include "core/spinlock.h"
#include "core/time.h"
#include "core/types.h"
#include "domain/abi.h"
#include "npt/npt.h"

#define MAX_VCPUS_PER_DOMAIN 128
#define DOMID_HASH           64

struct domain;
struct evtchn_domain; /* domain/evtchn.c */
struct grant_table;   /* domain/grant.c */
struct ioreq_domain;  /* platform/ioreq.c */
struct platform;      /* platform/platform.c: the emulated PC */
struct cpuid_policy;  /* platform/cpuid.c */
struct vlapic;        /* platform/vlapic.c */
struct vcpu_msrs;     /* platform/msr.c */

/* General registers in the order of instruction encodings (rax rcx rdx rbx rsp rbp rsi rdi r8..).
 */
enum gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, NR_GPRS };
struct guest_regs {
    uint64_t gpr[NR_GPRS];
    uint64_t rip, rflags;
};

/* A segment register in the form both vendors' manuals share (attr: APM 2, fig. 4-20 packed as in
 * the VMCB: type 3:0, s 4, dpl 6:5, p 7, avl 8, l 9, db 10, g 11). Same layout as emul_segment. */
struct segment {
    uint16_t sel, attr;
    uint32_t limit;
    uint64_t base;
};
enum segment_reg { /* the first six in instruction encoding order */
                   SEGR_ES,
                   SEGR_CS,
                   SEGR_SS,
                   SEGR_DS,
                   SEGR_FS,
                   SEGR_GS,
                   SEGR_LDTR,
                   SEGR_TR,
                   SEGR_GDTR,
                   SEGR_IDTR,
                   NR_SEGRS
};

/* vcpu->work: what must be done before the vCPU enters its guest again. Atomic. */
enum vcpu_work {
    VWORK_EVENT = 1,     /* look for an interrupt or NMI to deliver */
    VWORK_IOREQ = 2,     /* a device model answered or must be waited for */
    VWORK_FLUSH_TLB = 4, /* take a new ASID/VPID */
    VWORK_RESET = 16,    /* state was set from outside (INIT-SIPI, setvcpucontext) */
};

/* vcpu->block: why a vCPU may not run; it runs when all are clear and pause_count is 0. Atomic. */
enum vcpu_block {
    VBLOCK_DOWN = 1,   /* not brought up yet, or VCPUOP_down, or waiting for SIPI */
    VBLOCK_HALTED = 2, /* HLT or SCHEDOP_block: ends at the next deliverable event */
    VBLOCK_POLL = 4,   /* SCHEDOP_poll */
    VBLOCK_IOREQ = 8,  /* a device model has not answered yet */
};

struct vcpu {
    struct guest_regs regs; /* current while out of the guest; entry code indexes it */
    unsigned id;
    struct domain *domain;

    uint32_t work;        /* enum vcpu_work, atomic */
    uint32_t block;       /* enum vcpu_block, atomic */
    uint32_t pause_count; /* atomic; domain pause adds to the domain's own count */

    struct sched_unit sched; /* guarded by its run queue's lock */
    int state_cpu;           /* pCPU that holds lazily switched state, its to change; -1 none */

    /* Hardware side: svm or vmx. */
    void *hw;    /* struct svm_vcpu or vmx_vcpu */
    void *xsave; /* guest FPU/XSAVE area, 64-byte aligned */
    uint64_t xcr0;
    uint64_t tsc_offset; /* guest TSC = host TSC (scaled: domain's tsc_ratio) + offset */
    uint64_t tsc_aux;

    /* Pending exception or NMI, delivered at the next entry. */
    struct {
        bool valid, has_error;
        uint8_t type, vector; /* type as in EVENTINJ: 2 NMI, 3 exception, 4 software interrupt */
        uint8_t insn_bytes;
        uint32_t error;
    } inject;
    bool nmi_pending;
    bool halted;         /* executed HLT: goes on only with a deliverable event */
    bool init_requested; /* INIT came: reset before anything else */
    int sipi_page;       /* SIPI's start page, -1 for none */

    /* ABI. */
    bool compat;            /* the hypercall under way uses 32-bit layouts */
    bool hypercall_restart; /* a continuation was asked for: leave RIP at the hypercall */
    struct vcpu_info *info; /* hypervisor mapping of vcpu_info; never NULL (a dummy at first) */
    struct page_info *info_page; /* referenced when registered elsewhere than in shared_info */
    uint64_t info_gpa;
    uint64_t runstate_gva; /* VCPUOP_register_runstate_memory_area; 0 none */
    void *runstate_guest;  /* the same mapped, page referenced; NULL: only to be had by address */
    spinlock_t area_lock;  /* the two above */
    struct vcpu_runstate_info runstate;
    uint64_t time_info_gva; /* VCPUOP_register_vcpu_time_memory_area */
    struct timer singleshot, periodic, poll_timer;
    uint64_t periodic_ns;
    uint8_t upcall_vector;           /* HVMOP_set_evtchn_upcall_vector; 0 for none */
    uint32_t virq_to_port[NR_VIRQS]; /* 0 none; d->evtchn's lock to write */
    uint32_t poll_port; /* SCHEDOP_poll: 0 none, otherwise the port, or ~0 for several */
    bool initialised;   /* has a register state to start from (VCPUOP_initialise, SIPI, tools) */
    uint32_t nr_events_delivered;

    struct vlapic *vlapic;
    struct vcpu_msrs *msrs; /* MTRRs, platform/msr.c */
    void *ioreq;            /* per-vCPU ioreq state, platform/ioreq.c */
    void *emul;             /* per-vCPU emulation state (pending MMIO response), platform/mmio.c */

    struct guest_peek peek; /* npt/gpeek.c */
    uint64_t exits[256];    /* counters by exit reason class */
};

enum domain_dying { DOMAIN_ALIVE, DOMAIN_DYING, DOMAIN_DEAD };

struct domain {
    domid_t id;
    bool is_dom0;
    bool privileged;          /* may use domctl, sysctl, platform_op */
    uint32_t refs;            /* atomic; freed at 0 */
    struct domain *hash_next; /* domain table, domain_table_lock */
    uint8_t handle[16];
    uint32_t ssidref, options, max_evtchn_port;
    int32_t max_grant_frames, max_maptrack_frames;
    domid_t target; /* domid this one is a device model for, DOMID_INVALID for none */

    spinlock_t lock; /* life cycle: vcpu table, shutdown state, hvm params */
    unsigned max_vcpus;
    struct vcpu *vcpu[MAX_VCPUS_PER_DOMAIN];

    uint32_t pause_count; /* atomic */
    uint32_t systemcontroller_pauses;
    bool created_paused;
    enum domain_dying dying;
    bool shutting_down, shut_down;
    bool s3_asleep; /* suspended to RAM: holds one count of pause_count */
    int shutdown_code;
    unsigned kill_stage; /* progress of the preemptible domain_kill */

    /* Memory. */
    spinlock_t page_lock; /* page_list, xenpage_list and the counters */
    struct list page_list, xenpage_list;
    uint64_t tot_pages, max_pages, outstanding_pages, shr_pages, xenheap_pages;
    uint64_t extra_pages; /* of tot_pages, those that max_pages does not count; the next freed are
                             these */
    struct p2m *p2m;
    uint64_t paging_mempool_bytes; /* what the tools asked for: reported back */

    /* ABI. */
    struct shared_info *shared_info; /* hypervisor mapping of the frame shared with the guest */
    struct page_info *shared_info_page;
    bool has_32bit_shinfo; /* layout of shared_info, vcpu_info: latched as Xen does */
    uint64_t hvm_params[HVM_NR_PARAMS];
    struct evtchn_domain *evtchn;
    struct grant_table *grants;
    uint8_t callback_via_type;  /* HVM_PARAM_CALLBACK_TYPE_* */
    uint32_t callback_via_data; /* vector, GSI, or INTx dev/pin */
    bool callback_via_asserted;
    uint64_t hypercall_gpa;
    uint32_t memory_map_entries;
    struct e820entry *memory_map_table; /* XENMEM_set_memory_map */
    uint64_t time_offset_seconds;
    uint32_t tsc_mode, tsc_incarnation;
    uint64_t tsc_khz, tsc_elapsed_ns;
    uint64_t tsc_ratio; /* guest ticks a host tick, 16.48 fixed point; 0: not scaled. Changes while
                           no vCPU runs */

    struct cpuid_policy *cpuid;
    struct platform *platform;
    struct ioreq_domain *ioreq;
    uint32_t emulation_flags; /* XEN_X86_EMU_* */
    struct sched_share sched; /* weight and cap */
    struct timer budget_timer;
    uint32_t cpupool;
    uint32_t vm_assist; /* bitmap of VMASST_TYPE_* that the guest enabled */
    void *dom0_pci;     /* dom0 only: physical devices, domain/dom0_pci.c */
    void *watchdogs;    /* SCHEDOP_watchdog timers, domain/sched_op.c; NULL until used */
};

extern struct domain *dom0;

/* ---- life cycle: domain/domain.c -------------------------------------------------------- */
/* Create domain id with the tools' configuration; vCPUs are created by vcpu_create. The caller
 * holds no lock. On success *out is referenced by the domain table. -EINVAL, -EEXIST, -ENOMEM. */
int domain_create(domid_t id, const struct xen_domctl_createdomain *config, bool privileged,
                  struct domain **out);
int vcpu_create(struct domain *d, unsigned id);
/* Find and take a reference / give it back. Dying domains are found until they are freed. */
struct domain *domain_get(domid_t id);
void domain_put(struct domain *d);
void domain_hold(struct domain *d);
/* Next domain with id >= first, referenced, or NULL: for lists. */
struct domain *domain_next(domid_t first);
/* Resolve a hypercall's domid: DOMID_SELF or own id always; another only when the caller is
 * privileged or it is the caller's target. Referenced. -ESRCH, -EPERM. */
int domain_resolve(struct vcpu *caller, domid_t id, struct domain **out);

/* Pausing nests. domain_pause returns when no vCPU runs (must not be d's own vCPU calling). */
void domain_pause(struct domain *d);
void domain_unpause(struct domain *d);
/* ACPI S3: stop d with its memory kept and its CPUs and devices as after a reset; start its first
 * vCPU at the firmware's reset vector, with WAK_STS set. Both do nothing in the state they lead to.
 * Not for d's own vCPUs; no lock held. */
void domain_s3_sleep(struct domain *d);
void domain_s3_wake(struct domain *d);
void vcpu_pause(struct vcpu *v);
void vcpu_unpause(struct vcpu *v);

/* Shut down: stop all vCPUs, report it. For dom0, reboots or halts the machine. */
void domain_shutdown(struct domain *d, int reason);
/* Show the tools that d is shut down, with VIRQ_DOM_EXC, once, as soon as they do not hold it
 * paused: xl destroy pauses d and then ends the device model, which on its way out may say that d
 * is off; the xl that waits for that would destroy d at the same time. Takes d->lock; any context
 * that may send an event. */
void domain_report_shutdown(struct domain *d);
/* The guest did what cannot go on: print why with a register dump, then shut down as crashed. */
void domain_crash(struct domain *d, const char *fmt, ...) __printf(2, 3);
/* Release a shut-down domain for running again (XEN_DOMCTL_resumedomain). */
void domain_resume(struct domain *d);
/* Destroy, in steps: -ERESTART until done, then 0. Called by dom0's hypercall; d is not current. */
int domain_kill(struct domain *d);
/* v's CPU shut down (APM 2, 8.2.9): reset or crash the domain. v is current. */
void domain_triple_fault(struct vcpu *v);
/* Registers of all vCPUs that do not run, to the log (debug key, xl dmesg). */
void domain_dump_registers(struct domain *d);
/* The layout of shared_info follows the guest's mode when it sets itself up. */
void domain_latch_shinfo(struct domain *d, bool is_32bit);
void domain_getinfo(struct domain *d, struct xen_domctl_getdomaininfo *info);

/* ---- scheduling: core/sched.c ------------------------------------------------------------ */
/* Set a work bit and make v look at it: wakes it, or interrupts the pCPU it runs on. */
void vcpu_kick(struct vcpu *v, uint32_t work);
/* The same for an interrupt posted to v: no exit where v is in its guest on another pCPU. */
void vcpu_post(struct vcpu *v);
/* Clear / set block bits. vcpu_unblock wakes v when nothing blocks it any more. */
void vcpu_unblock(struct vcpu *v, uint32_t bits);
void vcpu_block(struct vcpu *v, uint32_t bits);
/* The current vCPU has done what v waits for: set the work, clear the block bits, and let v have
 * the pCPU back (sched_hand_over). */
void vcpu_answer(struct vcpu *v, uint32_t work, uint32_t bits);
bool vcpu_runnable(const struct vcpu *v);
void vcpu_sleep(
    struct vcpu *v); /* it may not be runnable any more: off the queue, off its pCPU soon */
void vcpu_sleep_sync(struct vcpu *v); /* wait until v is off its pCPU; not for current */
void vcpu_yield(struct vcpu *v);
int vcpu_set_affinity(struct vcpu *v, const uint64_t *hard, const uint64_t *soft);
uint64_t vcpu_cpu_time(struct vcpu *v); /* ns */
void vcpu_runstate_get(struct vcpu *v, struct vcpu_runstate_info *out);

static inline struct vcpu *current_vcpu(void)
{
    return this_cpu()->curr;
}

/* ---- a guest's TSC (SDM 3C, 25.3; APM 2, 15.30.5) ----------------------------------------- */
static inline uint64_t tsc_scaled(const struct domain *d, uint64_t host)
{
    return likely(!d->tsc_ratio) ? host : (uint64_t)((unsigned __int128)host * d->tsc_ratio >> 48);
}
/* v's TSC when the host's is that. */
static inline uint64_t guest_tsc(const struct vcpu *v, uint64_t host)
{
    return tsc_scaled(v->domain, host) + v->tsc_offset;
}

/* ---- guest memory: domain/guest_copy.c ---------------------------------------------------- */
/* Copy between the hypervisor and the *current* vCPU's linear address space with the privileges of
 * the kernel (hypercall arguments). 0 or -EFAULT. Any length; may cross pages. */
int copy_from_guest(void *dst, uint64_t gva, size_t bytes);
int copy_word_from_guest(struct vcpu *v, uint32_t *dst, uint64_t gva); /* v == current */
int copy_to_guest(uint64_t gva, const void *src, size_t bytes);
int clear_guest(uint64_t gva, size_t bytes);
/* The same by guest-physical address in domain d; RAM only. */
int copy_from_gpa(struct domain *d, void *dst, paddr_t gpa, size_t bytes);
int copy_to_gpa(struct domain *d, paddr_t gpa, const void *src, size_t bytes);

/* ---- hypercalls: domain/hypercall.c -------------------------------------------------------- */
/* A handler gets its arguments as the caller's registers hold them (zero-extended for 32-bit
 * callers, with v->compat set) and returns what the guest gets in rax/eax. */
typedef long hypercall_fn(struct vcpu *v, const uint64_t arg[6]);
/* True when the hypercall under way should stop and continue later (work waits on this pCPU). */
bool hypercall_preempt_check(void);
/* Ask to be called again: same number, argument i replaced by value for the next call. Return the
 * result of hypercall_continue() from the handler. */
void hypercall_set_arg(struct vcpu *v, unsigned i, uint64_t value);
long hypercall_continue(struct vcpu *v);
/* Log once per (op, sub-op) that something is not there; returns err. */
long hypercall_missing(struct vcpu *v, const char *group, unsigned op, long err);

/* The table's handler for nr, as a guest's own call would reach it (multicall). -ENOSYS. */
long hypercall_dispatch(struct vcpu *v, unsigned nr, const uint64_t arg[6]);
/* Write the hypercall page to gpa in v's domain, in the layout of v's vendor. -EINVAL. */
int hypercall_page_install(struct vcpu *v, uint64_t gpa);

hypercall_fn do_xen_version, do_console_io, do_memory_op, do_hvm_op, do_event_channel_op,
    do_sched_op, do_vcpu_op, do_grant_table_op, do_physdev_op, do_platform_op, do_multicall,
    do_domctl, do_sysctl, do_dm_op, do_set_timer_op, do_vm_assist;

/* ---- event delivery: domain/evtchn.c ------------------------------------------------------- */
int evtchn_domain_init(struct domain *d);
void evtchn_domain_destroy(struct domain *d); /* closes all ports; when d is being killed */
void evtchn_domain_free(struct domain *d);    /* memory; at the last reference */
/* vcpu_create, after shared_info exists: v's vcpu_info in shared_info (id < 32) or the dummy. */
void evtchn_vcpu_init(struct vcpu *v);
/* Raise a VIRQ: per-vCPU ones on v, global ones where bound. Any context without evtchn locks. */
void send_vcpu_virq(struct vcpu *v, unsigned virq);
void send_domain_virq(struct domain *d, unsigned virq);
void send_global_virq(unsigned virq); /* to dom0, or whoever bound it */
/* Hypervisor's own ports (ioreq): a port in d (remote end: domain `remote`) whose notifications
 * from the remote call fn(v) here; notify_xen_port raises it towards the remote. */
int evtchn_alloc_xen_port(struct domain *d, unsigned vcpu_id, domid_t remote,
                          void (*fn)(struct vcpu *));
void evtchn_free_xen_port(struct domain *d, unsigned port);
void evtchn_notify_xen_port(struct domain *d, unsigned port);
/* Move v's vcpu_info to its new place, keeping pending state; used by VCPUOP_register_vcpu_info. */
int evtchn_map_vcpu_info(struct vcpu *v, gfn_t gfn, unsigned offset);
void evtchn_unmap_vcpu_info(struct vcpu *v);
/* True when the callback should be delivered: upcall pending and not masked. */
bool evtchn_upcall_pending(const struct vcpu *v);
/* Something was set pending for v: deliver by whatever callback the domain asked for. In
 * domain/callback.c. */
void evtchn_notify_vcpu(struct vcpu *v);

/* ---- grants: domain/grant.c ---------------------------------------------------------------- */
int grant_table_init(struct domain *d);
/* Release what d mapped (d's vCPUs stopped): -ERESTART when preempted (call again), then 0. */
int grant_table_destroy(struct domain *d);
void grant_table_free(struct domain *d);
/* Frame idx of the grant table (status frames when status) for physmap or acquire_resource; grows
 * the table up to max_grant_frames. INVALID_MFN's errno otherwise. */
int grant_table_frame(struct domain *d, unsigned idx, bool status, mfn_t *mfn);

/* ---- callbacks and params: domain/callback.c ------------------------------------------------ */
int hvm_set_callback_via(struct domain *d, uint64_t via);
/* Set / clear the level-triggered GSI or INTx callback after vcpu_info changed. */
void hvm_callback_update(struct vcpu *v);

/* ---- time: domain/pvtime.c ------------------------------------------------------------------- */
void pvtime_update_vcpu(struct vcpu *v); /* refresh vcpu_info.time (and the registered area) */
void pvtime_update_wallclock(struct domain *d);

/* ---- vcpu_op, sched_op: domain/vcpu_op.c, sched_op.c ------------------------------------------
 */
/* vcpu_create: prepare the vCPU's ABI timers and areas. vcpu destruction: stop the timers (waits
 * for a running one; no lock held); idempotent. */
void vcpu_op_init(struct vcpu *v);
void vcpu_op_destroy(struct vcpu *v);
/* domain_kill: stop and free the watchdog timers; no lock held; idempotent. */
void sched_op_domain_destroy(struct domain *d);
/* Given by domain/vcpu_boot.c: load a checked-for-mode VCPUOP_initialise context into v, which is
 * down. -EINVAL when the state is not one a CPU can be in. */
int vcpu_hvm_initialise(struct vcpu *v, const struct vcpu_hvm_context *ctx);

/* ---- guest memory operations: domain/memory.c
 * ---------------------------------------------------- */
/* Take the RAM page at gfn out of d's map and give up its allocation (dom0 keeps the frame, which
 * stays its own for a later populate at the same gfn). -ENOENT: no RAM there; -ENOMEM. */
int guest_physmap_remove_ram(struct domain *d, gfn_t gfn);
/* Make [gfn, gfn + (1 << order)) ready for a new mapping: what is mapped there now is removed, its
 * RAM given up, foreign references put. -EBUSY: a grant mapping or a device is there. */
int guest_physmap_vacate(struct domain *d, gfn_t gfn, unsigned order);
/* Move the page at `from` to gfn `to`, in the place of what is there. -EINVAL, -EBUSY, -ENOMEM;
 * -EOPNOTSUPP for dom0. */
int guest_physmap_move(struct domain *d, gfn_t from, gfn_t to);

/* ---- guests' console output: domain/console_op.c
 * --------------------------------------------------- */
/* One character from d (port 0xE9, console_io): logged line by line with d's number. */
void console_guest_char(struct domain *d, char c);

/* ---- given by boot and core for dom0's hypercalls
 * -------------------------------------------------- */
extern char boot_cmdline[];                                  /* Ringfence's own command line */
int dom0_memory_map(struct e820entry *out, unsigned max);    /* entries written, or -errno */
int machine_memory_map(struct e820entry *out, unsigned max); /* the host's, likewise */
/* Enter ACPI sleep state (5: power off). Returns only when it failed: -errno. */
int machine_acpi_sleep(unsigned state, uint16_t val_a, uint16_t val_b);
