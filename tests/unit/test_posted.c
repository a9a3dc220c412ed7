/* sources: */
/* test_posted.c: posted interrupts between senders and a vCPU that enters, leaves, sleeps and is
 * put aside as the hypervisor has it do (core/sched.c: vcpu_post; vmx/vmx.c; domain/exit.c: halt):
 * none is lost, and none waits for another.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ucontext.h>

/* Every access to shared memory is a step; atomic ones are those that posted.h makes. */
#include "core/atomic.h"
static void step(void);
static void locked(void);
#undef READ_ONCE
#undef WRITE_ONCE
#undef atomic_or
#undef atomic_and
#undef atomic_xchg
#undef atomic_store
#undef atomic_load
#undef smp_mb
#define READ_ONCE(x)       (step(), *(volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v)   (step(), *(volatile __typeof__(x) *)&(x) = (v))
#define atomic_load(p)     (step(), *(p))
#define atomic_store(p, v) ((void)(locked(), *(p) = (v)))
#define atomic_or(p, v)    (locked(), __atomic_fetch_or((p), (v), __ATOMIC_RELAXED))
#define atomic_and(p, v)   (locked(), __atomic_fetch_and((p), (v), __ATOMIC_RELAXED))
#define atomic_xchg(p, v)  (locked(), __atomic_exchange_n((p), (v), __ATOMIC_RELAXED))
#define smp_mb()           locked()

#include "platform/posted.h"

/* ---- one step at a time --------------------------------------------------------------------- */

static void who_finds_on_clear_tells(void **state)
{
    struct posted p = {};
    uint64_t vectors[4];

    (void)state;
    assert_false(posted_take(&p, vectors));
    assert_true(posted_request(&p, 0x41));
    assert_false(posted_request(&p, 0x41)); /* it waits already */
    assert_false(posted_request(&p, 0xfe)); /* the vCPU was told */
    assert_true(posted_news(&p));
    assert_true(posted_take(&p, vectors));
    assert_int_equal(vectors[0], 0);
    assert_int_equal(vectors[1], BIT(1));
    assert_int_equal(vectors[2], 0);
    assert_int_equal(vectors[3], BIT(62));
    assert_false(posted_news(&p));
    assert_true(posted_request(&p, 0x41));
}

/* The CPU clears ON, a sender comes, the CPU takes the bits: the sender tells once more, and that
 * finds nothing. */
static void on_is_cleared_before_the_bits_are_taken(void **state)
{
    struct posted p = {};
    uint64_t vectors[4];

    (void)state;
    posted_request(&p, 0x50);
    atomic_and(&p.control, ~POSTED_ON);
    assert_true(posted_request(&p, 0x51));
    atomic_store(&p.pir[1], 0UL); /* both are taken */
    assert_true(posted_take(&p, vectors));
    assert_int_equal(vectors[1], 0);
}

static void layout_is_the_cpus(void **state)
{
    struct posted p = {};

    (void)state;
    assert_int_equal(sizeof(p), 64);
    posted_request(&p, 0xb3);
    assert_int_equal(((uint8_t *)&p)[0xb3 / 8], 1 << 0xb3 % 8);
    assert_int_equal(((uint8_t *)&p)[32], 1); /* bit 256 */
}

/* ---- all at once ------------------------------------------------------------------------------
 */

/* Two senders and the vCPU run as coroutines that change at every access to what they share, by
 * chance. That the vCPU has left its guest stays in its store buffer for a while. */
enum { VCPU, SENDER_0, SENDER_1, AGENTS };
#define RUNS  30000
#define STEPS 400

static ucontext_t scheduler, agent[AGENTS];
static char stacks[AGENTS][32768];
static int running = -1;
static bool done[AGENTS], quiet;
static uint32_t seed;

static struct posted desc;
static uint32_t in_guest, curr, work, block, ipi, kick;
static bool leaving;        /* the store to in_guest is not yet seen */
static uint32_t asked, got; /* vectors, by sender */

static uint32_t chance(uint32_t n)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 16) % n;
}

static void step(void)
{
    if (running < 0) /* one step at a time */
        return;
    swapcontext(&agent[running], &scheduler);
}

/* A locked instruction of the vCPU's empties its store buffer. */
static void locked(void)
{
    step();
    if (running == VCPU && leaving) {
        in_guest = 0;
        leaving = false;
    }
}

static void deliver(void)
{
    uint64_t vectors[4];

    if (!posted_take(&desc, vectors))
        return;
    got |= (vectors[0] >> 40 & 1) | (vectors[3] >> 63) << 1;
}

static void send(void)
{
    if (posted_request(&desc, running == SENDER_0 ? 40 : 255)) {
        if (READ_ONCE(in_guest) && READ_ONCE(curr)) { /* vcpu_post */
            atomic_store(&ipi, 1u);
        } else {
            atomic_or(&work, 1u); /* vcpu_kick */
            if (READ_ONCE(block))
                atomic_and(&block, 0u);
            else
                atomic_store(&kick, 1u);
        }
    }
    asked |= running == SENDER_0 ? 1 : 2;
}

/* The pCPU is in the hypervisor or another guest: its handler has the one that runs look. */
static void host_interrupt(void)
{
    if (READ_ONCE(ipi) && atomic_xchg(&ipi, 0u) && curr)
        atomic_or(&work, 1u);
    atomic_store(&kick, 0u);
}

static void stay_in_guest(void)
{
    WRITE_ONCE(in_guest, 1u);
    smp_mb();
    while (!READ_ONCE(work) && !READ_ONCE(kick) && (quiet || chance(3)))
        if (READ_ONCE(ipi) && atomic_xchg(&ipi, 0u))
            deliver();
    leaving = true;
}

static void sleep_until_kicked(void)
{
    deliver();
    atomic_or(&block, 1u);
    if (READ_ONCE(work) || posted_news(&desc)) {
        atomic_or(&work, 1u);
        atomic_and(&block, 0u);
    }
    curr = 0;
    while (atomic_load(&block))
        host_interrupt();
    curr = 1;
}

static void vcpu(void)
{
    for (;;) {
        if (posted_news(&desc)) /* vmx_run */
            atomic_or(&work, 1u);
        if (READ_ONCE(work) && atomic_xchg(&work, 0u))
            deliver();
        stay_in_guest();
        if (chance(2)) {
            sleep_until_kicked();
        } else if (chance(2)) { /* another runs meanwhile */
            curr = 0;
            host_interrupt();
            curr = 1;
        } else {
            host_interrupt();
        }
    }
}

static void enter_agent(int which)
{
    if (which == VCPU)
        vcpu();
    send();
    done[which] = true;
    step();
}

static void start_agent(int which)
{
    done[which] = false;
    getcontext(&agent[which]);
    agent[which].uc_stack.ss_sp = stacks[which];
    agent[which].uc_stack.ss_size = sizeof(stacks[which]);
    makecontext(&agent[which], (void (*)(void))enter_agent, 1, which);
}

static void one_run(uint32_t with)
{
    desc = (struct posted){};
    in_guest = work = block = ipi = kick = asked = got = 0;
    curr = 1;
    leaving = quiet = false;
    seed = with;
    for (int i = 0; i < AGENTS; i++)
        start_agent(i);
    for (unsigned n = 0; n < STEPS && (got != 3 || !done[SENDER_0] || !done[SENDER_1]); n++) {
        quiet = done[SENDER_0] && done[SENDER_1];
        running = quiet ? VCPU : (int)chance(AGENTS);
        if (leaving && !chance(4)) {
            in_guest = 0;
            leaving = false;
        }
        if (!done[running])
            swapcontext(&scheduler, &agent[running]);
    }
    if (got != asked)
        fail_msg("run %u: an interrupt is lost: got %u of %u, work %u block %u ipi %u control %lx",
                 with, got, asked, work, block, ipi, desc.control);
}

static void none_is_lost(void **state)
{
    (void)state;
    for (uint32_t run = 0; run < RUNS; run++)
        one_run(run * 7919);
    running = -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_finds_on_clear_tells),
        cmocka_unit_test(on_is_cleared_before_the_bits_are_taken),
        cmocka_unit_test(layout_is_the_cpus),
        cmocka_unit_test(none_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
