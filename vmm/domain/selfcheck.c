/* selfcheck.c: what must be true of event channels and grants at any moment; only in a build with
 * DEBUG=1, where it is looked at each second and by debug key E. What is not true is reported.
 */
#include "domain/selfcheck.h"

#ifdef DEBUG_BUILD
#include "core/cpu.h"
#include "core/print.h"
#include "core/time.h"
#include "domain/evtchn.h"
#include "domain/grant.h"

static struct timer every_second;
static unsigned faults;

static void fault(const struct domain *d, const char *what, unsigned where)
{
    if (faults++ < 20)
        log_err("selfcheck: d%u: %s (%u)", d->id, what, where);
}

/* One port. d's ed->lock is held, which binding and closing at the far end take too. */
static void check_port(struct domain *d, struct evtchn *chn, unsigned port)
{
    const struct evtchn *far;

    switch (chn->state) {
    case EVTCHNSTAT_closed:
        if (chn->xen_fn)
            fault(d, "a closed port has a consumer", port);
        break;
    case EVTCHNSTAT_interdomain:
        far = chn->peer ? evtchn_get(chn->peer, chn->peer_port) : NULL;
        if (!far || far->state != EVTCHNSTAT_interdomain || far->peer != d ||
            far->peer_port != port)
            fault(d, "the far end of a port is not wired to it", port);
        break;
    case EVTCHNSTAT_virq:
        if (chn->peer_port >= NR_VIRQS)
            fault(d, "a port of a VIRQ that is none", port);
        break;
    case EVTCHNSTAT_unbound:
    case EVTCHNSTAT_ipi:
        break;
    default:
        fault(d, "a port has no known state", port);
    }
    if (chn->state != EVTCHNSTAT_closed && (chn->vcpu >= d->max_vcpus || !d->vcpu[chn->vcpu]))
        fault(d, "a port notifies a vCPU that is none", port);
}

static unsigned check_ports(struct domain *d)
{
    struct evtchn_domain *ed = d->evtchn;
    unsigned used = 0, ours = 0, ports = ed->nr_buckets * EVTCHN_BUCKET;

    spin_lock(&ed->lock);
    for (unsigned port = 1; port < ports; port++) {
        struct evtchn *chn = evtchn_get(d, port);

        if (!chn) {
            port |= EVTCHN_BUCKET - 1;
            continue;
        }
        check_port(d, chn, port);
        used += chn->state != EVTCHNSTAT_closed;
        ours += chn->xen_fn != NULL;
        if (port < ed->first_free && chn->state == EVTCHNSTAT_closed)
            fault(d, "a free port is below the first free one", port);
    }
    if (used != ed->used || ours != ed->xen_ports)
        fault(d, "ports in use are miscounted", used);
    for (unsigned i = 0; i < d->max_vcpus; i++) {
        for (unsigned virq = 0; d->vcpu[i] && virq < NR_VIRQS; virq++) {
            struct evtchn *chn = evtchn_get(d, d->vcpu[i]->virq_to_port[virq]);

            if (chn && (chn->state != EVTCHNSTAT_virq || chn->peer_port != virq))
                fault(d, "a VIRQ's port is another's", virq);
        }
    }
    spin_unlock(&ed->lock);
    return used;
}

/* How many handles of all domains use grants of d. */
static unsigned count_maps(struct domain *d)
{
    struct domain *user;
    unsigned maps = 0;

    for (unsigned id = 0; (user = domain_next((domid_t)id)); id = user->id + 1u, domain_put(user)) {
        struct grant_table *gt = user->grants;

        if (!gt)
            continue;
        spin_lock(&gt->map_lock);
        for (unsigned i = 0; i < gt->nr_map_pages * GRANT_MAPS_PER_PAGE; i++) {
            const struct grant_map *m = &gt->maps[i / GRANT_MAPS_PER_PAGE][i % GRANT_MAPS_PER_PAGE];
            maps += m->flags && m->granter == d;
        }
        spin_unlock(&gt->map_lock);
    }
    return maps;
}

static unsigned check_grants(struct domain *d)
{
    struct grant_table *gt = d->grants;
    unsigned pins = 0, maps = count_maps(d);

    for (unsigned i = 0; i < atomic_load(&gt->nr_frames) * GRANTS_PER_FRAME; i++) {
        struct grant_active *act = &gt->active[i / GRANTS_PER_FRAME][i % GRANTS_PER_FRAME];

        spin_lock(&act->lock);
        pins += act->pins;
        if (act->write_pins > act->pins)
            fault(d, "an entry has more writers than users", i);
        if (act->pins && d->dying == DOMAIN_ALIVE && page_owner(mfn_to_page(act->mfn)) != d)
            fault(d, "a pinned entry's page is not the granter's", i);
        spin_unlock(&act->lock);
    }
    /* Elsewhere a pin may be made or a copy under way in the middle of all this. */
    if (nr_cpus == 1 && pins != maps)
        fault(d, "entries are pinned more or less often than they are mapped", pins);
    return pins;
}

unsigned selfcheck(bool report)
{
    struct domain *d;

    for (unsigned id = 0; (d = domain_next((domid_t)id)); id = d->id + 1u, domain_put(d)) {
        unsigned used = d->evtchn ? check_ports(d) : 0, pins = d->grants ? check_grants(d) : 0;

        if (report)
            log_err("selfcheck: d%u has %u ports in use, %u grants", d->id, used, pins);
    }
    if (report)
        log_err("selfcheck: %u faults", faults);
    return faults;
}

static void look(void *unused)
{
    (void)unused;
    selfcheck(false);
    timer_set(&every_second, now_ns() + NS_PER_SEC);
}

void selfcheck_start(void)
{
    timer_init(&every_second, look, NULL, 0);
    timer_set(&every_second, now_ns() + NS_PER_SEC);
}
#endif
