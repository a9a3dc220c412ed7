/* watchdog.c: a pCPU that makes no progress is named, with the function it is stuck in.
 *
 * Each pCPU looks once a second, from a timer of its own, at the next one: it must have left a
 * guest, done deferred work or gone idle since. A slice ends after 10 ms, so a healthy pCPU has.
 * One that stood still for STUCK_SECONDS gets an NMI, whose handler notes where it was; the one
 * that looks prints it, because the other may hold any lock. Nothing of this is on the exit path. A
 * machine with one pCPU has nobody to look.
 */
#include "core/atomic.h"
#include "core/console.h"
#include "core/lapic.h"
#include "core/print.h"
#include "core/smp.h"
#include "core/time.h"
#include "core/watchdog.h"
#include "core/x86.h"

#define STUCK_SECONDS 5
#define ANSWER_NS     (100 * NS_PER_MS)

static struct watch {
    struct timer timer;
    uint64_t seen;      /* the next pCPU's progress when last looked at */
    unsigned still;     /* seconds since it changed */
    unsigned asked;     /* set for its NMI handler, cleared with the answer */
    unsigned nr_frames; /* of the answer */
    uint64_t frame[16];
} watches[MAX_CPUS]; /* by the pCPU that looks; the answer: by the one looked at */

static uint64_t progress(const struct cpu *c)
{
    return READ_ONCE(c->guest_exits) + READ_ONCE(c->beats);
}

void watchdog_nmi(uint64_t rip, uint64_t rbp)
{
    struct cpu *c = this_cpu();
    struct watch *w = &watches[c->id];
    if (!atomic_load(&w->asked))
        return;
    w->nr_frames = backtrace_collect(rip, rbp, w->frame, ARRAY_SIZE(w->frame));
    atomic_store(&w->asked, 0);
}

static void report(const struct cpu *c, unsigned seconds)
{
    struct watch *w = &watches[c->id];
    const struct vcpu *v = READ_ONCE(c->curr);
    uint64_t end = now_ns() + ANSWER_NS;
    atomic_store(&w->asked, 1);
    lapic_send_nmi(c->apic_id);
    while (atomic_load(&w->asked) && now_ns() < end)
        cpu_relax();
    if (atomic_load(&w->asked)) {
        log_err("CPU%u stands still for %u s and takes no NMI", c->id, seconds);
        return;
    }
    log_err("CPU%u stands still for %u s, work %x%s, at:", c->id, seconds, c->work,
            v ? ", for a vCPU" : "");
    for (unsigned i = 0; i < w->nr_frames; i++)
        print_frame(w->frame[i]);
}

static void look(void *data)
{
    struct watch *w = data;
    const struct cpu *c = cpus[(this_cpu()->id + 1) % nr_cpus];
    uint64_t now = progress(c);
    if (now != w->seen || READ_ONCE(c->halted) || !READ_ONCE(c->beats)) {
        if (w->still > STUCK_SECONDS)
            log_err("CPU%u goes on after %u s", c->id, w->still);
        w->seen = now;
        w->still = 0;
    } else if (++w->still >= STUCK_SECONDS && w->still % STUCK_SECONDS == 0) {
        report(c, w->still);
    }
    timer_set(&w->timer, now_ns() + NS_PER_SEC);
}

void watchdog_start(void)
{
    for (unsigned i = 0; nr_cpus > 1 && i < nr_cpus; i++) {
        timer_init(&watches[i].timer, look, &watches[i], i);
        timer_set(&watches[i].timer, now_ns() + NS_PER_SEC);
    }
}
