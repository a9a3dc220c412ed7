/* work.c: the work of ci/bench-pv and of tests/boot/t5_pv.py, in a guest and at its other end in dom0. Timed with the
 * TSC, which counts the whole machine's instructions under -icount. A static program.
 *
 *   work disk FILE read|write random|sequential BYTES COUNT [DEPTH]
 *                                O_DIRECT, DEPTH (1) at a time; write verifies what it wrote
 *   work whole FILE MIB          write pseudo-random data to all of it, flush, read back past the cache and compare
 *   work stamp FILE COUNT        write and flush blocks of 64 KiB one by one; "FLUSHED n" says that n are safe
 *   work verify FILE COUNT       are the first COUNT blocks what stamp wrote?
 *   work serve                   UDP echo and TCP sink on port 7
 *   work ping HOST COUNT | work stream HOST BYTES
 *   work compute COUNT           rounds of arithmetic on 16 KiB
 *   work fork COUNT              fork a child that writes to 64 pages, wait for it; map, touch and unmap 64 more
 *   work hammer SECONDS          a timer every 500 us, and a clock that must not go back
 * Each prints "WORK what operations instructions-per-operation", or "FAIL why" and exits with 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define PORT 7

static void fail(const char *what)
{
    printf("FAIL %s: %s\n", what, strerror(errno));
    exit(1);
}

static void report(const char *what, unsigned long operations, uint64_t ticks)
{
    printf("WORK %s %lu %llu\n", what, operations, (unsigned long long)(ticks / operations));
}

static uint64_t next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return *seed >> 33;
}

/* ---- disk -------------------------------------------------------------------------------------------------------- */
static off_t place(uint64_t *seed, int random, unsigned long n, unsigned long blocks, size_t bytes)
{
    return (off_t)((random ? next(seed) % blocks : n % blocks) * bytes);
}

struct disk_work {
    int file, write, random;
    size_t bytes;
    unsigned long blocks, count;
};

static uint64_t signature(off_t at) { return (uint64_t)at ^ 0x1234567; }

static void sign(uint64_t *buffer, const struct disk_work *w, off_t at)
{
    buffer[0] = buffer[w->bytes / 8 - 1] = signature(at);
}

static void one_at_a_time(const struct disk_work *w, uint64_t *buffer)
{
    uint64_t seed = 42;
    for (unsigned long n = 0; n < w->count; n++) {
        off_t at = place(&seed, w->random, n, w->blocks, w->bytes);
        if (w->write) {
            sign(buffer, w, at);
            if (pwrite(w->file, buffer, w->bytes, at) != (ssize_t)w->bytes) fail("write");
        } else if (pread(w->file, buffer, w->bytes, at) != (ssize_t)w->bytes) {
            fail("read");
        }
    }
}

/* The same, `depth` of them under way at any time. */
static void many_at_a_time(const struct disk_work *w, unsigned depth)
{
    enum { MOST = 64 };
    struct iocb block[MOST], *ready[MOST];
    struct io_event done[MOST];
    unsigned idle[MOST], idling = 0;
    unsigned long begun = 0, ended = 0;
    uint64_t seed = 42;
    char *buffers = aligned_alloc(4096, depth * w->bytes);
    aio_context_t context = 0;

    if (depth > MOST || syscall(SYS_io_setup, depth, &context)) fail("io_setup");
    while (idling < depth) idle[idling] = idling, idling++;
    while (ended < w->count) {
        long n = 0, got;
        for (; idling && begun < w->count; begun++) {
            unsigned i = idle[--idling];
            char *buffer = buffers + i * w->bytes;
            off_t at = place(&seed, w->random, begun, w->blocks, w->bytes);
            if (w->write) sign((uint64_t *)buffer, w, at);
            block[i] = (struct iocb){ .aio_data = i,
                                      .aio_lio_opcode = w->write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
                                      .aio_fildes = (uint32_t)w->file,
                                      .aio_buf = (uintptr_t)buffer,
                                      .aio_nbytes = w->bytes,
                                      .aio_offset = at };
            ready[n++] = &block[i];
        }
        if (n && syscall(SYS_io_submit, context, n, ready) != n) fail("io_submit");
        got = syscall(SYS_io_getevents, context, 1L, (long)depth, done, NULL);
        if (got < 1) fail("io_getevents");
        for (long i = 0; i < got; i++) {
            if (done[i].res != (int64_t)w->bytes) fail("read or write");
            idle[idling++] = (unsigned)done[i].data;
        }
        ended += (unsigned long)got;
    }
    syscall(SYS_io_destroy, context);
}

static void disk(char **arg)
{
    struct disk_work w = { .write = !strcmp(arg[1], "write"),
                           .random = !strcmp(arg[2], "random"),
                           .bytes = strtoul(arg[3], NULL, 0),
                           .count = strtoul(arg[4], NULL, 0) };
    unsigned depth = arg[5] ? (unsigned)strtoul(arg[5], NULL, 0) : 1;
    uint64_t *buffer = aligned_alloc(4096, w.bytes), seed = 42, begin;
    char what[80], deep[16] = "";

    w.file = open(arg[0], (w.write ? O_RDWR : O_RDONLY) | O_DIRECT);
    off_t size = w.file < 0 ? 0 : lseek(w.file, 0, SEEK_END);
    if (w.file < 0 || size < (off_t)w.bytes) fail(arg[0]);
    w.blocks = (unsigned long)size / w.bytes;
    memset(buffer, 0x5a, w.bytes);
    if (pread(w.file, buffer, w.bytes, 0) != (ssize_t)w.bytes) fail("read");
    begin = __rdtsc();
    if (depth > 1)
        many_at_a_time(&w, depth);
    else
        one_at_a_time(&w, buffer);
    uint64_t ticks = __rdtsc() - begin;
    if (w.write && fsync(w.file)) fail("fsync");
    for (unsigned long n = 0; w.write && n < w.count; n++) {
        off_t at = place(&seed, w.random, n, w.blocks, w.bytes);
        if (pread(w.file, buffer, w.bytes, at) != (ssize_t)w.bytes) fail("read back");
        if (buffer[0] != signature(at) || buffer[w.bytes / 8 - 1] != buffer[0]) {
            errno = EIO;
            fail("not what was written");
        }
    }
    if (depth > 1) snprintf(deep, sizeof deep, "-%u", depth);
    snprintf(what, sizeof what, "%s-%s-%zu%s", arg[1], arg[2], w.bytes, deep);
    report(what, w.count, ticks);
}

/* ---- is it what was written? -------------------------------------------------------------------------------------- */
enum { BLOCK = 65536 };

static void fill(uint64_t *block, unsigned long n)
{
    uint64_t seed = n * 2654435761u + 1;
    for (unsigned i = 0; i < BLOCK / 8; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        block[i] = seed;
    }
}

static void write_blocks(const char *path, unsigned long count, int flush_each)
{
    int file = open(path, O_WRONLY | O_DIRECT);
    uint64_t *block = aligned_alloc(4096, BLOCK);

    if (file < 0) fail(path);
    for (unsigned long n = 0; n < count; n++) {
        fill(block, n);
        if (pwrite(file, block, BLOCK, (off_t)(n * BLOCK)) != BLOCK) fail("write");
        if (flush_each) {
            if (fdatasync(file)) fail("flush");
            printf("FLUSHED %lu\n", n + 1);
            fflush(stdout);
        }
    }
    if (fsync(file)) fail("flush");
    close(file);
}

static void verify(const char *path, unsigned long count)
{
    int file = open(path, O_RDONLY | O_DIRECT);
    uint64_t *block = aligned_alloc(4096, BLOCK), *right = malloc(BLOCK);

    if (file < 0) fail(path);
    for (unsigned long n = 0; n < count; n++) {
        if (pread(file, block, BLOCK, (off_t)(n * BLOCK)) != BLOCK) fail("read");
        fill(right, n);
        if (memcmp(block, right, BLOCK)) {
            printf("FAIL block %lu is not what was written\n", n);
            exit(1);
        }
    }
    close(file);
}

/* ---- the processor, memory and timers ------------------------------------------------------------------------------ */
static void compute(unsigned long count)
{
    static volatile uint32_t data[4096];
    uint64_t begin = __rdtsc();

    for (unsigned long n = 0; n < count; n++)
        for (unsigned i = 0; i < 4096; i++) data[i] = data[i] * 1664525 + (uint32_t)n + i;
    report("compute", count, __rdtsc() - begin);
}

static void forks(unsigned long count)
{
    enum { BYTES = 64 * 4096 };
    char *kept = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t begin;

    memset(kept, 1, BYTES);
    begin = __rdtsc();
    for (unsigned long n = 0; n < count; n++) {
        int status;
        pid_t child = fork();
        if (child < 0) fail("fork");
        if (!child) {
            for (unsigned i = 0; i < BYTES; i += 4096) kept[i] = 2;
            _exit(0);
        }
        if (waitpid(child, &status, 0) != child || status) fail("child");
        char *more = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (more == MAP_FAILED) fail("mmap");
        for (unsigned i = 0; i < BYTES; i += 4096) more[i] = 3;
        munmap(more, BYTES);
    }
    report("fork", count, __rdtsc() - begin);
}

static volatile unsigned long ticks_seen;

static void tick(int number)
{
    (void)number;
    ticks_seen++;
}

static void hammer(unsigned long seconds)
{
    struct itimerval every = { { 0, 500 }, { 0, 500 } };
    struct timespec now, last = { 0 }, end;
    uint64_t begin = __rdtsc();

    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += (time_t)seconds;
    signal(SIGALRM, tick);
    setitimer(ITIMER_REAL, &every, NULL);
    do {
        pause();
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec < last.tv_sec || (now.tv_sec == last.tv_sec && now.tv_nsec < last.tv_nsec)) {
            printf("FAIL the clock goes back\n");
            exit(1);
        }
        last = now;
    } while (now.tv_sec < end.tv_sec);
    report("hammer", ticks_seen ? ticks_seen : 1, __rdtsc() - begin);
}

/* ---- network ------------------------------------------------------------------------------------------------------ */
static int peer(int type, const char *host)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(PORT) };
    struct timeval wait = { .tv_sec = 60 };
    int s = socket(AF_INET, type, 0);

    if (s < 0 || !inet_aton(host, &to.sin_addr) || connect(s, (struct sockaddr *)&to, sizeof to)) fail(host);
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    return s;
}

static void ping(const char *host, unsigned long count)
{
    int s = peer(SOCK_DGRAM, host);
    char data[64] = "";
    uint64_t begin = 0;

    for (unsigned long n = 0; n <= count; n++) { /* the first one finds the way */
        if (n == 1) begin = __rdtsc();
        if (send(s, data, sizeof data, 0) != sizeof data || recv(s, data, sizeof data, 0) != sizeof data) fail("round trip");
    }
    report("ping", count, __rdtsc() - begin);
}

/* The other side says a byte when it has them all. Per KiB. */
static void stream(const char *host, unsigned long bytes)
{
    static char data[65536];
    int s = peer(SOCK_STREAM, host);
    uint64_t begin = __rdtsc(), total = bytes;

    if (write(s, &total, sizeof total) != sizeof total) fail("stream");
    for (unsigned long left = bytes; left;) {
        ssize_t n = write(s, data, left < sizeof data ? left : sizeof data);
        if (n <= 0) fail("stream");
        left -= (unsigned long)n;
    }
    if (read(s, data, 1) != 1) fail("end of stream");
    report("stream", bytes / 1024, __rdtsc() - begin);
}

static void sink(int s)
{
    static char data[65536];
    uint64_t left;

    if (recv(s, &left, sizeof left, MSG_WAITALL) == sizeof left) {
        while (left) {
            ssize_t n = read(s, data, left < sizeof data ? left : sizeof data);
            if (n <= 0) break;
            left -= (uint64_t)n;
        }
        if (!left && write(s, "", 1) != 1) perror("write");
    }
    close(s);
}

static void serve(void)
{
    struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(PORT) }, from;
    int udp = socket(AF_INET, SOCK_DGRAM, 0), tcp = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct pollfd fds[2] = { { udp, POLLIN, 0 }, { tcp, POLLIN, 0 } };
    char data[64];

    setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(udp, (struct sockaddr *)&any, sizeof any) || bind(tcp, (struct sockaddr *)&any, sizeof any) || listen(tcp, 4))
        fail("port");
    while (poll(fds, 2, -1) > 0) {
        socklen_t length = sizeof from;
        if (fds[0].revents) {
            ssize_t n = recvfrom(udp, data, sizeof data, 0, (struct sockaddr *)&from, &length);
            if (n > 0) sendto(udp, data, (size_t)n, 0, (struct sockaddr *)&from, length);
        }
        if (fds[1].revents) {
            int s = accept(tcp, NULL, NULL);
            if (s >= 0) sink(s);
        }
    }
}

int main(int argc, char **argv)
{
    if ((argc == 7 || argc == 8) && !strcmp(argv[1], "disk"))
        disk(argv + 2);
    else if (argc == 4 && !strcmp(argv[1], "whole")) {
        unsigned long blocks = strtoul(argv[3], NULL, 0) * ((1 << 20) / BLOCK);
        uint64_t begin = __rdtsc();
        write_blocks(argv[2], blocks, 0);
        verify(argv[2], blocks);
        report("whole", blocks, __rdtsc() - begin);
    } else if (argc == 4 && !strcmp(argv[1], "stamp")) {
        write_blocks(argv[2], strtoul(argv[3], NULL, 0), 1);
    } else if (argc == 4 && !strcmp(argv[1], "verify")) {
        verify(argv[2], strtoul(argv[3], NULL, 0));
        report("verify", strtoul(argv[3], NULL, 0), 0);
    } else if (argc == 2 && !strcmp(argv[1], "serve"))
        serve();
    else if (argc == 4 && !strcmp(argv[1], "ping"))
        ping(argv[2], strtoul(argv[3], NULL, 0));
    else if (argc == 4 && !strcmp(argv[1], "stream"))
        stream(argv[2], strtoul(argv[3], NULL, 0));
    else if (argc == 3 && !strcmp(argv[1], "compute"))
        compute(strtoul(argv[2], NULL, 0));
    else if (argc == 3 && !strcmp(argv[1], "fork"))
        forks(strtoul(argv[2], NULL, 0));
    else if (argc == 3 && !strcmp(argv[1], "hammer"))
        hammer(strtoul(argv[2], NULL, 0));
    else
        return 2;
    return 0;
}
