/* storm.c SECONDS: in a Linux guest: two processes for each CPU fork, map and unmap, and pass turns by futex, for so many
 * seconds; every page and every turn is checked. Prints "STORM forks N maps N turns N errors N". */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGES 256
#define TURNS 100

struct shared {
    unsigned long forks, maps, turns, errors;
};
static struct shared *total;

static void add(unsigned long *what, unsigned long n) { __atomic_add_fetch(what, n, __ATOMIC_SEQ_CST); }

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* Touch fresh memory, of which every page must be zero, and give half of it back before the rest. */
static void map_and_unmap(void)
{
    size_t bytes = PAGES * 4096ul;
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        add(&total->errors, 1);
        return;
    }
    for (size_t i = 0; i < PAGES; i++) {
        uint64_t *page = (uint64_t *)(p + i * 4096);
        if (page[0] || page[511]) add(&total->errors, 1);
        page[0] = page[511] = (uintptr_t)page ^ (unsigned)getpid();
    }
    munmap(p, bytes / 2);
    for (size_t i = PAGES / 2; i < PAGES; i++) {
        uint64_t *page = (uint64_t *)(p + i * 4096), want = (uintptr_t)page ^ (unsigned)getpid();
        if (page[0] != want || page[511] != want) add(&total->errors, 1);
    }
    munmap(p + bytes / 2, bytes / 2);
    add(&total->maps, 1);
}

/* Take turns with the other process: each waits by futex until the word is its own number. */
static void take_turns(uint32_t *word, uint32_t me)
{
    struct timespec limit = { 20, 0 };
    for (unsigned i = 0; i < TURNS; i++) {
        uint32_t v;
        while ((v = __atomic_load_n(word, __ATOMIC_SEQ_CST)) % 2 != me)
            if (syscall(SYS_futex, word, FUTEX_WAIT, v, &limit, NULL, 0) && __atomic_load_n(word, __ATOMIC_SEQ_CST) == v) {
                add(&total->errors, 1); /* 20 s without a wake-up */
                return;
            }
        __atomic_store_n(word, v + 1, __ATOMIC_SEQ_CST);
        syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
    add(&total->turns, TURNS);
}

static void work(double end)
{
    uint32_t *word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    while (now() < end) {
        pid_t child = fork();
        if (child < 0) {
            add(&total->errors, 1);
            return;
        }
        if (!child) {
            map_and_unmap();
            take_turns(word, 1);
            _exit(0);
        }
        add(&total->forks, 1);
        take_turns(word, 0);
        map_and_unmap();
        int status;
        if (waitpid(child, &status, 0) != child || status) add(&total->errors, 1);
    }
}

int main(int argc, char **argv)
{
    double end = now() + (argc > 1 ? atoi(argv[1]) : 10);
    long n = 2 * sysconf(_SC_NPROCESSORS_ONLN);
    total = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (long i = 0; i < n; i++)
        if (!fork()) {
            work(end);
            _exit(0);
        }
    while (wait(NULL) > 0)
        ;
    printf("STORM forks %lu maps %lu turns %lu errors %lu\n", total->forks, total->maps, total->turns, total->errors);
    return total->errors != 0;
}
