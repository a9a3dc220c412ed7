/* test_walk_ram.h: the guest memory that the tests of the page walker and of short reads stand on:
 * FRAMES pages, a domain, and counts of references taken and given back. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/errno.h"
#include "domain/domain.h"
#include "domain/hvm.h"
#include "npt/inner.h"

#define FRAMES 64 /* of memory; the rest is a hole */

char *host_test_ram;
struct page_info *frame_table;
mfn_t max_mfn = FRAMES;
enum p2m_format p2m_format;
struct p2m_limits p2m_limits = {.large_1g = true, .large_2m = true, .gpa_bits = 40};
static struct domain *dom;
static struct vcpu *vcpu;
static unsigned gets, puts_;

void page_put(struct page_info *pg)
{
    (void)pg;
    puts_++;
}

static int setup(void **state)
{
    (void)state;
    host_test_ram = aligned_alloc(PAGE_SIZE, FRAMES * PAGE_SIZE);
    frame_table = calloc(FRAMES, sizeof(*frame_table));
    dom = calloc(1, sizeof(*dom));
    vcpu = calloc(1, sizeof(*vcpu));
    vcpu->domain = dom;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(host_test_ram);
    free(frame_table);
    free(dom);
    free(vcpu);
    return 0;
}
