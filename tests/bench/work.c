/* work.c: the work of ci/bench-pv, in a guest and at its other end in dom0: disk accesses one at a time, network round
 * trips and streams. Timed with the TSC, which counts the whole machine's instructions under -icount. A static program.
 *
 *   work disk FILE read|write random|sequential BYTES COUNT    O_DIRECT; write verifies what it wrote
 *   work serve                                                 UDP echo and TCP sink on port 7
 *   work ping HOST COUNT | work stream HOST BYTES
 * Each prints "WORK what operations instructions-per-operation", or "FAIL why" and exits with 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
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

static void disk(char **arg)
{
    int write = !strcmp(arg[1], "write"), random = !strcmp(arg[2], "random");
    size_t bytes = strtoul(arg[3], NULL, 0);
    unsigned long count = strtoul(arg[4], NULL, 0);
    int file = open(arg[0], (write ? O_RDWR : O_RDONLY) | O_DIRECT);
    off_t size = file < 0 ? 0 : lseek(file, 0, SEEK_END);
    uint64_t *buffer = aligned_alloc(4096, bytes), seed = 42, begin;
    char what[80];

    if (file < 0 || size < (off_t)bytes)
        fail(arg[0]);
    unsigned long blocks = (unsigned long)size / bytes;
    memset(buffer, 0x5a, bytes);
    if (pread(file, buffer, bytes, 0) != (ssize_t)bytes)
        fail("read");
    begin = __rdtsc();
    for (unsigned long n = 0; n < count; n++) {
        off_t at = place(&seed, random, n, blocks, bytes);
        if (write) {
            buffer[0] = buffer[bytes / 8 - 1] = (uint64_t)at ^ 0x1234567;
            if (pwrite(file, buffer, bytes, at) != (ssize_t)bytes)
                fail("write");
        } else if (pread(file, buffer, bytes, at) != (ssize_t)bytes) {
            fail("read");
        }
    }
    uint64_t ticks = __rdtsc() - begin;
    if (write && fsync(file))
        fail("fsync");
    seed = 42;
    for (unsigned long n = 0; write && n < count; n++) {
        off_t at = place(&seed, random, n, blocks, bytes);
        if (pread(file, buffer, bytes, at) != (ssize_t)bytes)
            fail("read back");
        if (buffer[0] != ((uint64_t)at ^ 0x1234567) || buffer[bytes / 8 - 1] != buffer[0]) {
            errno = EIO;
            fail("not what was written");
        }
    }
    snprintf(what, sizeof what, "%s-%s-%zu", arg[1], arg[2], bytes);
    report(what, count, ticks);
}

/* ---- network ------------------------------------------------------------------------------------------------------ */
static int peer(int type, const char *host)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    struct timeval wait = {.tv_sec = 60};
    int s = socket(AF_INET, type, 0);

    if (s < 0 || !inet_aton(host, &to.sin_addr) || connect(s, (struct sockaddr *)&to, sizeof to))
        fail(host);
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    return s;
}

static void ping(const char *host, unsigned long count)
{
    int s = peer(SOCK_DGRAM, host);
    char data[64] = "";
    uint64_t begin = 0;

    for (unsigned long n = 0; n <= count; n++) { /* the first one finds the way */
        if (n == 1)
            begin = __rdtsc();
        if (send(s, data, sizeof data, 0) != sizeof data || recv(s, data, sizeof data, 0) != sizeof data)
            fail("round trip");
    }
    report("ping", count, __rdtsc() - begin);
}

/* The other side says a byte when it has them all. Per KiB. */
static void stream(const char *host, unsigned long bytes)
{
    static char data[65536];
    int s = peer(SOCK_STREAM, host);
    uint64_t begin = __rdtsc(), total = bytes;

    if (write(s, &total, sizeof total) != sizeof total)
        fail("stream");
    for (unsigned long left = bytes; left;) {
        ssize_t n = write(s, data, left < sizeof data ? left : sizeof data);
        if (n <= 0)
            fail("stream");
        left -= (unsigned long)n;
    }
    if (read(s, data, 1) != 1)
        fail("end of stream");
    report("stream", bytes / 1024, __rdtsc() - begin);
}

static void sink(int s)
{
    static char data[65536];
    uint64_t left;

    if (recv(s, &left, sizeof left, MSG_WAITALL) == sizeof left) {
        while (left) {
            ssize_t n = read(s, data, left < sizeof data ? left : sizeof data);
            if (n <= 0)
                break;
            left -= (uint64_t)n;
        }
        if (!left && write(s, "", 1) != 1)
            perror("write");
    }
    close(s);
}

static void serve(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(PORT)}, from;
    int udp = socket(AF_INET, SOCK_DGRAM, 0), tcp = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct pollfd fds[2] = {{udp, POLLIN, 0}, {tcp, POLLIN, 0}};
    char data[64];

    setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(udp, (struct sockaddr *)&any, sizeof any) || bind(tcp, (struct sockaddr *)&any, sizeof any) ||
        listen(tcp, 4))
        fail("port");
    while (poll(fds, 2, -1) > 0) {
        socklen_t length = sizeof from;
        if (fds[0].revents) {
            ssize_t n = recvfrom(udp, data, sizeof data, 0, (struct sockaddr *)&from, &length);
            if (n > 0)
                sendto(udp, data, (size_t)n, 0, (struct sockaddr *)&from, length);
        }
        if (fds[1].revents) {
            int s = accept(tcp, NULL, NULL);
            if (s >= 0)
                sink(s);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc == 7 && !strcmp(argv[1], "disk"))
        disk(argv + 2);
    else if (argc == 2 && !strcmp(argv[1], "serve"))
        serve();
    else if (argc == 4 && !strcmp(argv[1], "ping"))
        ping(argv[2], strtoul(argv[3], NULL, 0));
    else if (argc == 4 && !strcmp(argv[1], "stream"))
        stream(argv[2], strtoul(argv[3], NULL, 0));
    else
        return 2;
    return 0;
}
