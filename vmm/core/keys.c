/* keys.c: the keys of the hypervisor's console and of `xl debug-keys`. */
#include "core/console.h"
#include "core/irq.h"
#include "core/machine.h"
#include "core/mm.h"
#include "core/sched.h"
#include "core/x86.h"
#include "domain/hvm.h"
#include "domain/selfcheck.h"

static void key_help(void);

static void key_domains(void)
{
    struct domain *d;
    for (unsigned id = 0; (d = domain_next((domid_t)id)); id = d->id + 1u, domain_put(d)) {
        log_err("d%u: refs %u, pages %lu of %lu (+%lu shared), tables %lu, pause %u%s%s", d->id,
                d->refs, d->tot_pages, d->max_pages, d->xenheap_pages, p2m_table_pages(d),
                d->pause_count, d->shut_down ? ", shut down" : "", d->dying ? ", dying" : "");
        for (unsigned i = 0; i < d->max_vcpus; i++) {
            struct vcpu *v = d->vcpu[i];
            if (v)
                log_err("  v%u: CPU%u block %x pause %u work %x%s, %lu ms", i, v->sched.cpu,
                        v->block, v->pause_count, v->work, v->sched.running ? " running" : "",
                        vcpu_cpu_time(v) / NS_PER_MS);
        }
    }
}

static void key_memory(void)
{
    log_err("heap: %lu pages free of %lu", heap_free_pages(), heap_total_pages());
}

static void key_exits(void)
{
    struct domain *d;
    for (unsigned id = 0; (d = domain_next((domid_t)id)); id = d->id + 1u, domain_put(d)) {
        for (unsigned i = 0; i < d->max_vcpus; i++) {
            struct vcpu *v = d->vcpu[i];
            for (unsigned r = 0; v && r < ARRAY_SIZE(v->exits); r++) {
                if (v->exits[r])
                    log_err("d%uv%u: exit %02x: %lu", d->id, i, r, v->exits[r]);
            }
        }
    }
}

static void key_registers(void)
{
    struct domain *d;
    for (unsigned id = 0; (d = domain_next((domid_t)id)); id = d->id + 1u, domain_put(d))
        domain_dump_registers(d);
}

#ifdef DEBUG_BUILD
/* For the watchdog's test: this pCPU does nothing for 8 s. */
static void key_stand_still(void)
{
    uint64_t end = now_ns() + 8 * NS_PER_SEC;
    while (now_ns() < end)
        cpu_relax();
}

static void key_selfcheck(void)
{
    selfcheck(true);
}
#endif

static const struct {
    char key;
    const char *what;
    void (*fn)(void);
} keys[] = {
    {'h', "this list", key_help},
    {'q', "domains and vCPUs", key_domains},
    {'r', "run queues", sched_dump},
    {'l', "locks that were waited for", locks_dump},
    {'m', "memory", key_memory},
    {'i', "interrupts", irq_dump},
    {'x', "VM exits by reason", key_exits},
#ifdef DEBUG_BUILD
    {'E', "check event channels and grants", key_selfcheck},
    {'W', "stand still for 8 s", key_stand_still},
#endif
    {'0', "registers of all vCPUs that do not run", key_registers},
    {'R', "reboot", machine_reboot},
};

static void key_help(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++)
        log_err("%c: %s", keys[i].key, keys[i].what);
}

void console_key(char c)
{
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
        if (keys[i].key == c) {
            keys[i].fn();
            return;
        }
    }
}
