/* sources: */
/* libs: -lpthread */
/* test_posted.c: posted interrupts between senders and a vCPU that enters, leaves, sleeps and is
 * put aside as the hypervisor has it do (core/sched.c: vcpu_post; vmx/vmx.c; domain/exit.c: halt):
 * none is lost, and none waits for another.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "platform/posted.h"

#define SENDERS 2
#define ROUNDS  20000
#define WAIT_S  20

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

static struct posted desc;
static uint32_t in_guest, curr, work, block, ipi, kick, stop;
static uint32_t asked[256], got[256]; /* times a vector was requested; the last one delivered */
static uint32_t lost;

static uint32_t chance(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 24;
}

static void deliver(void)
{
    uint64_t vectors[4];

    if (!posted_take(&desc, vectors))
        return;
    for (unsigned v = 0; v < 256; v++)
        if (vectors[v / 64] >> v % 64 & 1)
            atomic_store(&got[v], atomic_load(&asked[v]));
}

static void post(uint8_t vector)
{
    if (!posted_request(&desc, vector))
        return;
    if (READ_ONCE(in_guest) && READ_ONCE(curr)) {
        atomic_store(&ipi, 1u);
        return;
    }
    atomic_or(&work, 1u);
    if (READ_ONCE(block))
        atomic_and(&block, 0u);
    atomic_store(&kick, 1u);
}

static void *sender(void *number)
{
    uint32_t seed = (uint32_t)(uintptr_t)number + 1;

    for (unsigned n = 0; n < ROUNDS && !atomic_load(&lost); n++) {
        uint8_t vector = (uint8_t)(chance(&seed) / SENDERS * SENDERS + (uintptr_t)number);
        uint32_t want = atomic_add(&asked[vector], 1u) + 1;
        time_t give_up = time(NULL) + WAIT_S;

        post(vector);
        for (uint32_t spins = 1; chance(&seed) && atomic_load(&got[vector]) != want; spins++) {
            if (!(spins % 64))
                sched_yield();
            if (!(spins % 65536) && time(NULL) > give_up)
                atomic_store(&lost, 1u);
            if (atomic_load(&lost))
                break;
        }
    }
    return NULL;
}

/* The pCPU is in the hypervisor or another guest: its handler has the one that runs look. */
static void host_interrupt(void)
{
    if (READ_ONCE(ipi) && atomic_xchg(&ipi, 0u) && curr)
        atomic_or(&work, 1u);
}

static void sleep_until_kicked(void)
{
    deliver();
    atomic_or(&block, 1u);
    if (READ_ONCE(work) || posted_news(&desc)) {
        atomic_or(&work, 1u);
        atomic_and(&block, 0u);
    }
    WRITE_ONCE(curr, 0u);
    while (atomic_load(&block) && !atomic_load(&stop)) {
        host_interrupt();
        sched_yield();
    }
    WRITE_ONCE(curr, 1u);
}

static void *vcpu(void *unused)
{
    uint32_t seed = 99;

    WRITE_ONCE(curr, 1u);
    while (!atomic_load(&stop)) {
        if (posted_news(&desc)) /* vmx_run */
            atomic_or(&work, 1u);
        if (READ_ONCE(work) && atomic_xchg(&work, 0u))
            deliver();
        WRITE_ONCE(in_guest, 1u);
        smp_mb();
        if (!READ_ONCE(work)) {
            for (unsigned n = chance(&seed); n && !READ_ONCE(kick); n--)
                if (READ_ONCE(ipi) && atomic_xchg(&ipi, 0u))
                    deliver();
        }
        WRITE_ONCE(in_guest, 0u); /* no barrier, as there */
        if (chance(&seed) < 100) {
            sleep_until_kicked();
        } else if (chance(&seed) < 50) {
            WRITE_ONCE(curr, 0u);
            host_interrupt();
            WRITE_ONCE(curr, 1u);
        } else if (chance(&seed) < 50) {
            host_interrupt();
        }
        atomic_store(&kick, 0u);
    }
    return unused;
}

static void none_is_lost(void **state)
{
    pthread_t senders[SENDERS], runner;

    (void)state;
    pthread_create(&runner, NULL, vcpu, NULL);
    for (uintptr_t i = 0; i < SENDERS; i++)
        pthread_create(&senders[i], NULL, sender, (void *)i);
    for (unsigned i = 0; i < SENDERS; i++)
        pthread_join(senders[i], NULL);
    atomic_store(&stop, 1u);
    pthread_join(runner, NULL);
    assert_false(lost);
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
