/* triple.c: a triple fault with an IDT in place: the domain must end, dom0 must go on. */
#include "micro.h"

static void triple_fault(void)
{
    for (unsigned v = 0; v < 32; v++) idt[2 * v] = 0;
    __asm__ volatile("ud2");
}

const struct test tests[] = {
    { "triple_fault", triple_fault },
    { 0 },
};
