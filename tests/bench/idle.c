/* idle.c: a guest that says that it is up and halts for ever: ci/bench-life has twenty of them at once. */
#include "micro.h"

static void idle(void)
{
    say("SERVING");
    for (;;) __asm__ volatile("sti; hlt");
}

const struct test tests[] = {
    { "idle", idle },
    { 0 },
};
