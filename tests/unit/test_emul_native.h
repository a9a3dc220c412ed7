/*
 * The processor's side of the comparison: a traced child that keeps only the window in its address
 * space and runs one instruction in it, and its vector state.
 */
#ifndef TESTS_UNIT_TEST_EMUL_NATIVE_H
#define TESTS_UNIT_TEST_EMUL_NATIVE_H

#include <asm/ldt.h>
#include <elf.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test_emul.h"

#define MAX_STEPS  64
#define YMM_OFFSET 576

struct native {
    pid_t pid;
    uint8_t *mem;
    struct user_regs_struct base;
    uint8_t xstate[16384];
    size_t xstate_bytes;
    bool has_ldt, has_avx;
};

struct outcome {
    struct emul_regs r;
    uint16_t sel[EMUL_SEG_COUNT];
    int vector; /* -1: none */
    uint64_t cr2;
};

static struct native nat;

static bool ldt_entry(unsigned n, bool code, bool big)
{
    struct user_desc d = {
        .entry_number = n, .base_addr = WORLD_BASE, .limit = 0xffff, .seg_32bit = big};
    d.contents = code ? 2 : 0;
    d.useable = 1;
    return syscall(SYS_modify_ldt, 0x11, &d, sizeof(d)) == 0;
}

/* Makes the stopped child unmap [from, to), by a SYSCALL instruction in the window. */
static void child_unmap(uint64_t from, uint64_t to)
{
    struct user_regs_struct u = nat.base;
    int status;

    memcpy(nat.mem, "\x0f\x05", 2);
    u.rax = SYS_munmap;
    u.orig_rax = -1;
    u.rdi = from;
    u.rsi = to - from;
    u.rip = WORLD_BASE;
    ptrace(PTRACE_SETREGS, nat.pid, NULL, &u);
    ptrace(PTRACE_SINGLESTEP, nat.pid, NULL, NULL);
    waitpid(nat.pid, &status, 0);
}

/* The kernel would write to the C library's area at every return to user mode. */
static void drop_rseq(void)
{
    if (__rseq_size) {
        syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32, 1, RSEQ_SIG);
    }
}

/* The child keeps only the window, so that it faults wherever the emulator does. */
static void start_child(void)
{
    nat.mem = mmap((void *)WORLD_BASE, WORLD_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC,
                   MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (nat.mem != (void *)WORLD_BASE) {
        nat.mem = NULL;
        return;
    }
    bool *ldt = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    nat.pid = fork();
    if (nat.pid == 0) {
        mprotect(nat.mem + PAGE_NONE * 4096, 4096, PROT_NONE);
        mprotect(nat.mem + PAGE_RO * 4096, 4096, PROT_READ | PROT_EXEC);
        drop_rseq();
        *ldt = ldt_entry(0, true, false) && ldt_entry(1, false, false);
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        _exit(0);
    }
    int status;
    if (nat.pid < 0 || waitpid(nat.pid, &status, 0) != nat.pid || !WIFSTOPPED(status) ||
        ptrace(PTRACE_GETREGS, nat.pid, NULL, &nat.base)) {
        nat.mem = NULL;
        return;
    }
    ptrace(PTRACE_SETOPTIONS, nat.pid, NULL, PTRACE_O_EXITKILL);
    child_unmap(0x1000, WORLD_BASE);
    child_unmap(WORLD_BASE + WORLD_BYTES, 0x7ffffffff000);
    nat.has_ldt = *ldt;
    nat.has_avx = __builtin_cpu_supports("avx");
    struct iovec v = {nat.xstate, sizeof(nat.xstate)};
    if (ptrace(PTRACE_GETREGSET, nat.pid, NT_X86_XSTATE, &v) == 0) {
        nat.xstate_bytes = v.iov_len;
    }
}

static uint64_t *user_gpr(struct user_regs_struct *u, unsigned n)
{
    unsigned long long *where[16] = {&u->rax, &u->rcx, &u->rdx, &u->rbx, &u->rsp, &u->rbp,
                                     &u->rsi, &u->rdi, &u->r8,  &u->r9,  &u->r10, &u->r11,
                                     &u->r12, &u->r13, &u->r14, &u->r15};
    return (uint64_t *)where[n];
}

static int vector_of(const siginfo_t *info)
{
    switch (info->si_signo) {
    case SIGSEGV:
        return info->si_code == SI_KERNEL ? 13 : 14;
    case SIGBUS:
        return 12;
    case SIGILL:
        return 6;
    case SIGFPE:
        return 0;
    }
    return 1000 + info->si_signo;
}

/* The vector state goes in and out through the child's XSAVE image. */
static void xstate_set(const struct world *w)
{
    uint64_t bv;
    memcpy(&bv, nat.xstate + 512, 8);
    bv |= nat.has_avx ? 7 : 3;
    memcpy(nat.xstate + 512, &bv, 8);
    for (unsigned i = 0; i < 16; i++) {
        memcpy(nat.xstate + 160 + 16 * i, w->vec[i], 16);
        if (nat.has_avx) {
            memcpy(nat.xstate + YMM_OFFSET + 16 * i, w->vec[i] + 16, 16);
        }
    }
    for (unsigned i = 0; i < 8; i++) {
        memcpy(nat.xstate + 32 + 16 * i, &w->mm[i], 8);
    }
    memset(nat.xstate + 2, 0, 4); /* status and tag: top of stack 0, all empty */
    struct iovec v = {nat.xstate, nat.xstate_bytes};
    assert_int_equal(ptrace(PTRACE_SETREGSET, nat.pid, NT_X86_XSTATE, &v), 0);
}

static bool xstate_equal(const struct world *w)
{
    static uint8_t now[sizeof(nat.xstate)];
    struct iovec v = {now, sizeof(now)};
    bool equal = ptrace(PTRACE_GETREGSET, nat.pid, NT_X86_XSTATE, &v) == 0;
    uint64_t bv;
    memcpy(&bv, now + 512, 8);
    for (unsigned i = 0; i < 16; i++) {
        equal = equal && (!(bv & 2) || !memcmp(now + 160 + 16 * i, w->vec[i], 16));
        equal = equal && (!(bv & 4) || !memcmp(now + YMM_OFFSET + 16 * i, w->vec[i] + 16, 16));
    }
    for (unsigned i = 0; i < 8; i++) {
        equal = equal && (!(bv & 1) || !memcmp(now + 32 + 16 * i, &w->mm[i], 8));
    }
    return equal;
}

static void run_native(const struct world *w, bool repeats, struct outcome *out)
{
    struct user_regs_struct u = nat.base;
    int status;

    for (unsigned i = 0; i < 16; i++) {
        *user_gpr(&u, i) = w->r.gpr[i];
    }
    u.rip = w->r.rip;
    u.eflags = w->r.rflags | 0x202;
    u.orig_rax = -1;
    u.cs = w->c.seg[EMUL_SEG_CS].sel;
    u.ss = w->c.seg[EMUL_SEG_SS].sel;
    u.ds = w->c.seg[EMUL_SEG_DS].sel;
    u.es = w->c.seg[EMUL_SEG_ES].sel;
    u.fs = w->c.seg[EMUL_SEG_FS].sel;
    u.gs = w->c.seg[EMUL_SEG_GS].sel;
    u.fs_base = w->c.seg[EMUL_SEG_FS].base;
    u.gs_base = w->c.seg[EMUL_SEG_GS].base;
    assert_int_equal(ptrace(PTRACE_SETREGS, nat.pid, NULL, &u), 0);
    out->vector = -1;
    for (unsigned step = 0; step < MAX_STEPS; step++) {
        siginfo_t info;
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, nat.pid, NULL, NULL), 0);
        assert_int_equal(waitpid(nat.pid, &status, 0), nat.pid);
        assert_true(WIFSTOPPED(status));
        assert_int_equal(ptrace(PTRACE_GETSIGINFO, nat.pid, NULL, &info), 0);
        assert_int_equal(ptrace(PTRACE_GETREGS, nat.pid, NULL, &u), 0);
        if (info.si_signo != SIGTRAP) {
            out->vector = vector_of(&info);
            out->cr2 = (uintptr_t)info.si_addr;
            break;
        }
        if (!repeats || u.rip != w->r.rip) {
            break;
        }
    }
    for (unsigned i = 0; i < 16; i++) {
        out->r.gpr[i] = *user_gpr(&u, i);
    }
    out->r.rip = u.rip;
    out->sel[EMUL_SEG_ES] = u.es;
    out->sel[EMUL_SEG_CS] = u.cs;
    out->sel[EMUL_SEG_SS] = u.ss;
    out->sel[EMUL_SEG_DS] = u.ds;
    out->sel[EMUL_SEG_FS] = u.fs;
    out->sel[EMUL_SEG_GS] = u.gs;
    out->r.rflags = u.eflags;
}

#endif
