/* long.c: 64-bit mode: CPUID and MSRs, exceptions, page tables, HLT and interrupt shadows, FPU and debug state. */
#include "board.h"

#define EFER    0xc0000080u
#define STAR    0xc0000081u
#define LSTAR   0xc0000082u
#define FS_BASE 0xc0000100u
#define GS_BASE 0xc0000101u
#define KGS     0xc0000102u

/* ---- CPUID ------------------------------------------------------------------------------------ */
static void cpuid_xen(void)
{
    CHECK(xen_base, "no XenVMMXenVMM");
    struct regs4 r = cpuid(xen_base, 0);
    CHECK(r.a >= xen_base + 3 && r.a < xen_base + 0x100, "last leaf %x", r.a);
    r = cpuid(xen_base + 1, 0);
    CHECK(r.a >> 16 == 4, "version %x", r.a);
    r = cpuid(xen_base + 2, 0);
    CHECK(r.a == 1, "%u hypercall pages", r.a);
    CHECK(r.b == 0x40000000, "hypercall MSR %x", r.b);
    r = cpuid(xen_base + 4, 0);
    CHECK(r.a & 8, "no vCPU id in leaf 4: %x", r.a);
    CHECK(r.b == 0, "vCPU id is %x", r.b);
    CHECK(cpuid(1, 0).c >> 31, "no hypervisor bit");
}
static void cpuid_consistent(void)
{
    struct regs4 one = cpuid(1, 0), ext = cpuid(0x80000001, 0);
    CHECK(!(one.c & 8), "MONITOR is shown");
    CHECK(!(one.c & 1u << 5), "VMX is shown");
    CHECK(!(ext.c & 4), "SVM is shown");
    CHECK(ext.d & 1u << 29, "no long mode");
    CHECK((one.d & 0x07000279) == 0x07000279, "FPU PSE MSR PAE APIC FXSR SSE SSE2 PGE: %x", one.d);
    CHECK(!(one.c & 1u << 28) || one.c & 1u << 26, "AVX without XSAVE");
    CHECK(one.b >> 24 == 0, "APIC id %x", one.b >> 24);
    CHECK_EQ(MMIO32(0xfee00020) >> 24, one.b >> 24);
    CHECK(cpuid(0, 0).a >= 1 && cpuid(0x80000000, 0).a >= 0x80000008, "last leaves");
    CHECK((cpuid(0x80000008, 0).a & 0xff) >= 36, "physical address bits");
}
static void cpuid_osxsave(void)
{
    CHECK(!(cpuid(1, 0).c & 1u << 27), "OSXSAVE without CR4.OSXSAVE");
    if (!(cpuid(1, 0).c & 1u << 26)) return;
    write_cr4(read_cr4() | 1u << 18);
    bool on = cpuid(1, 0).c & 1u << 27;
    uint32_t lo, hi, size, all;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    __asm__ volatile("xsetbv" ::"c"(0), "a"(3), "d"(0));
    size = cpuid(13, 0).b;
    all = cpuid(13, 0).c;
    __asm__ volatile("xsetbv" ::"c"(0), "a"(lo), "d"(hi));
    write_cr4(read_cr4() & ~(1ul << 18));
    CHECK(on, "no OSXSAVE with CR4.OSXSAVE");
    CHECK(lo & 1, "XCR0 is %x", lo);
    CHECK_EQ(size, 576);
    CHECK(all >= 576, "all states take %u", all);
    CHECK(!(cpuid(1, 0).c & 1u << 27), "OSXSAVE stays");
}
static void do_xsetbv(void *low) { __asm__ volatile("xsetbv" ::"c"(0), "a"((uint32_t)(unsigned long)low), "d"(0)); }
static void xcr0_checks(void)
{
    if (!(cpuid(1, 0).c & 1u << 26)) return;
    CHECK_FAULT(caught(do_xsetbv, (void *)3), 6, 0); /* CR4.OSXSAVE is clear */
    write_cr4(read_cr4() | 1u << 18);
    const struct fault *zero = caught(do_xsetbv, (void *)2); /* without x87 */
    unsigned v1 = zero ? zero->vector : 0;
    const struct fault *avx = caught(do_xsetbv, (void *)5); /* AVX without SSE */
    unsigned v2 = avx ? avx->vector : 0;
    write_cr4(read_cr4() & ~(1ul << 18));
    CHECK_EQ(v1, 13);
    CHECK_EQ(v2, 13);
}

/* ---- MSRs ------------------------------------------------------------------------------------- */
struct msr_access {
    uint32_t msr;
    uint64_t val;
};
static void do_rdmsr(void *p) { ((struct msr_access *)p)->val = rdmsr(((struct msr_access *)p)->msr); }
static void do_wrmsr(void *p) { wrmsr(((struct msr_access *)p)->msr, ((struct msr_access *)p)->val); }
static void msr_unknown(void)
{
    static const uint32_t nobody[] = { 0x3, 0x5ff, 0x2000, 0x12345678, 0xc0005000, 0xdeadbeef };
    for (unsigned i = 0; i < sizeof nobody / sizeof *nobody; i++) {
        struct msr_access a = { nobody[i], 0 };
        const struct fault *f = caught(do_rdmsr, &a);
        CHECK(f && f->vector == 13 && f->error == 0, "reading %x gives %llx", nobody[i], (unsigned long long)a.val);
    }
}
static void msr_round_trip(void)
{
    static const uint32_t msrs[] = { LSTAR, STAR, 0xc0000083, 0xc0000084, GS_BASE, FS_BASE, KGS, 0x175, 0x176 };
    for (unsigned i = 0; i < sizeof msrs / sizeof *msrs; i++) {
        uint64_t old = rdmsr(msrs[i]), pattern = 0x00007bcd12345678 & (msrs[i] == 0xc0000084 ? 0xffffffff : ~0ull);
        wrmsr(msrs[i], pattern);
        cpuid(0, 0); /* an exit between */
        inb(0x3fb);  /* a long one */
        uint64_t got = rdmsr(msrs[i]);
        wrmsr(msrs[i], old);
        CHECK(got == pattern, "MSR %x reads back %llx", msrs[i], (unsigned long long)got);
    }
    wrmsr(0x174, 0x1234);
    uint64_t cs = rdmsr(0x174);
    wrmsr(0x174, 0);
    CHECK_EQ(cs, 0x1234);
    wrmsr(0x277, 0x0007010600070106);
    uint64_t pat = rdmsr(0x277);
    wrmsr(0x277, 0x0007040600070406);
    CHECK_EQ(pat, 0x0007010600070106);
}
static void msr_refused(void)
{
    struct msr_access bad[] = {
        { EFER, rdmsr(EFER) | 1ull << 40 }, { EFER, rdmsr(EFER) & ~0x100ull }, /* LME off while paging */
        { 0x277, 0x0007040600070402 },                                         /* PAT type 2 */
        { 0x1b, 0xfee00000 | 1ull << 60 },  { 0x1b, 0xfee00000 | 0x400 },      /* EXTD without EN */
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        const struct fault *f = caught(do_wrmsr, &bad[i]);
        CHECK(f && f->vector == 13 && f->error == 0, "MSR %x takes %llx", bad[i].msr, (unsigned long long)bad[i].val);
    }
    CHECK((rdmsr(EFER) & 0xd00) == 0xd00, "EFER is %llx", (unsigned long long)rdmsr(EFER));
}
/* The bases the hardware checks on WRMSR: #GP for what is not canonical. */
static void msr_not_canonical(void)
{
    struct msr_access bad[] = { { LSTAR, 0x8000000000000000 }, { GS_BASE, 0x0000800000000000 } };
    for (unsigned i = 0; i < 2; i++) {
        uint64_t old = rdmsr(bad[i].msr);
        const struct fault *f = caught(do_wrmsr, &bad[i]);
        unsigned vector = f ? f->vector : 255;
        wrmsr(bad[i].msr, old);
        CHECK(vector == 13, "MSR %x takes %llx", bad[i].msr, (unsigned long long)bad[i].val);
    }
}
static void msr_efer_sce(void)
{
    uint64_t efer = rdmsr(EFER);
    wrmsr(EFER, efer | 1);
    CHECK_EQ(rdmsr(EFER), efer | 1);
    wrmsr(EFER, efer & ~1ull);
    CHECK_EQ(rdmsr(EFER), efer & ~1ull);
}
static void tsc_monotonic(void)
{
    uint64_t last = rdtsc();
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t now = i & 1 ? rdmsr(0x10) : rdtsc();
        if (i % 100 == 0) inb(0x3fb);
        CHECK(now >= last, "TSC went from %llx to %llx", (unsigned long long)last, (unsigned long long)now);
        last = now;
    }
}
static void tsc_aux(void)
{
    if (cpuid(0x80000001, 0).d & 1u << 27) {
        uint32_t lo, hi, aux;
        wrmsr(0xc0000103, 0x55);
        __asm__ volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(aux));
        CHECK((lo | (uint64_t)hi << 32) <= rdtsc(), "RDTSCP is ahead");
        CHECK_EQ(aux, 0x55);
        wrmsr(0xc0000103, 0);
    }
}
static void tsc_write(void)
{
    uint64_t before = rdtsc();
    wrmsr(0x10, 1000);
    uint64_t now = rdtsc();
    wrmsr(0x10, before + now);
    CHECK(now >= 1000 && now < 1000 + tsc_hz(), "after writing 1000 the TSC is %llx", (unsigned long long)now);
    CHECK(rdtsc() >= before, "the TSC is not back");
}

/* ---- exceptions --------------------------------------------------------------------------------- */
static void do_ud2(void *p) { __asm__ volatile("lea 1f(%%rip), %%rax; mov %%rax, (%0); 1: ud2" ::"r"(p) : "rax", "memory"); }
static void do_div(void *p)
{
    (void)p;
    __asm__ volatile("xor %%edx, %%edx; mov $1, %%eax; xor %%ecx, %%ecx; div %%ecx" ::: "eax", "ecx", "edx");
}
static void do_int3(void *p)
{
    __asm__ volatile("lea 1f(%%rip), %%rax; mov %%rax, (%0); int3; 1:" ::"r"(p) : "rax", "memory");
}
static void peek(void *p) { (void)*(volatile uint8_t *)p; }
static void poke(void *p) { *(volatile uint8_t *)p = 1; }
static void jump(void *p) { ((void (*)(void))p)(); }
static void do_ss(void *p) { __asm__ volatile("push %%rbp; mov %0, %%rbp; mov (%%rbp), %%rax; pop %%rbp" ::"r"(p) : "rax"); }
static void do_vmmcall_intel(void *p)
{
    (void)p;
    __asm__ volatile("vmxoff");
}
static void do_svm(void *p)
{
    (void)p;
    __asm__ volatile("vmrun %%rax" ::"a"(0x1000ul));
}
static void do_monitor(void *p)
{
    (void)p;
    __asm__ volatile("monitor" ::"a"(p), "c"(0), "d"(0));
}
static void exceptions(void)
{
    unsigned long at = 0;
    const struct fault *f = caught(do_ud2, &at);
    CHECK_FAULT(f, 6, 0);
    CHECK_EQ(f->ip, at);
    CHECK_FAULT(caught(do_div, NULL), 0, 0);
    f = caught(do_int3, &at);
    CHECK_FAULT(f, 3, 0);
    CHECK_EQ(f->ip, at);
    CHECK_FAULT(caught(peek, (void *)0x8000000000000000), 13, 0);
    f = caught(peek, (void *)0x4000001234);
    CHECK_FAULT(f, 14, 0);
    CHECK_EQ(f->cr2, 0x4000001234);
    CHECK_FAULT(caught(poke, (void *)0x4000001234), 14, 2);
    f = caught(jump, (void *)0x4000001234);
    CHECK_FAULT(f, 14, 0x10);
    CHECK_EQ(f->ip, 0x4000001234);
}
static void stack_fault(void) { CHECK_FAULT(caught(do_ss, (void *)0x8000000000000000), 12, 0); }
static void virtualization_hidden(void)
{
    const struct fault *f = caught(do_svm, NULL);
    CHECK(f && (f->vector == 6 || f->vector == 13), "VMRUN");
    f = caught(do_vmmcall_intel, NULL);
    CHECK_FAULT(f, 6, 0);
    f = caught(do_monitor, NULL);
    CHECK_FAULT(f, 6, 0);
    struct msr_access a = { EFER, rdmsr(EFER) | 0x1000 }; /* SVME */
    CHECK_FAULT(caught(do_wrmsr, &a), 13, 0);
}
static void user_cli(void)
{
    __asm__ volatile("cli");
    USER_EXIT();
}
static void user_hlt(void)
{
    __asm__ volatile("hlt");
    USER_EXIT();
}
static void user_in(void)
{
    inb(0x21);
    USER_EXIT();
}
static void user_rdmsr(void)
{
    rdmsr(0x1b);
    USER_EXIT();
}
static void user_cpuid(void)
{
    cpuid(0, 0);
    USER_EXIT();
}
static void user_wbinvd(void)
{
    __asm__ volatile("wbinvd");
    USER_EXIT();
}
static void user_invlpg(void)
{
    invlpg(NULL);
    USER_EXIT();
}
static void user_int(void)
{
    __asm__ volatile("int $0x40");
    USER_EXIT();
}
static void user_rdtsc(void)
{
    rdtsc();
    USER_EXIT();
}
static void user_xsetbv(void)
{
    __asm__ volatile("xsetbv" ::"c"(0), "a"(1), "d"(0));
    USER_EXIT();
}
static void user_lapic(void)
{
    __asm__ volatile("mov 0xfee00030, %%eax" ::: "eax");
    USER_EXIT();
}
static void user_privileges(void)
{
    static void (*const refused[])(void) = { user_cli, user_hlt, user_in, user_rdmsr, user_wbinvd, user_invlpg };
    for (unsigned i = 0; i < sizeof refused / sizeof *refused; i++) {
        const struct fault *f = catch_user(refused[i]);
        CHECK(f->vector == 13 && f->error == 0, "instruction %u: exception %u error %lx", i, f->vector, f->error);
    }
    CHECK_FAULT(catch_user(user_cpuid), 0x80, 0);
    CHECK_FAULT(catch_user(user_rdtsc), 0x80, 0);
    CHECK_FAULT(catch_user(user_lapic), 0x80, 0); /* a user page: the access is the program's */
    write_cr4(read_cr4() | 1u << 18);
    const struct fault *f = catch_user(user_xsetbv);
    unsigned v = f->vector;
    write_cr4(read_cr4() & ~(1ul << 18));
    CHECK_EQ(v, 13);
    write_cr4(read_cr4() | 4); /* TSD */
    f = catch_user(user_rdtsc);
    v = f->vector;
    write_cr4(read_cr4() & ~4ul);
    CHECK_EQ(v, 13);
}
static void user_interrupt(void) { CHECK_FAULT(catch_user(user_int), 13, 0x40 * 8 + 2); }
static void user_ioport(void)
{
    outb(0x80, 1);
    USER_EXIT();
}
static void user_io_bitmap(void)
{
    /* TSS with a bitmap that allows port 0x80 and nothing else. */
    tss[25] = 104 << 16;
    uint8_t *map = (uint8_t *)tss + 104;
    memset(map, 0xff, 0x22);
    map[0x80 / 8] = 0xfe;
    gdt[9] = (gdt[9] & ~0xffffull & ~(2ull << 40)) | (104 + 0x21);
    __asm__ volatile("ltr %w0" ::"r"(72));
    const struct fault *f = catch_user(user_ioport);
    unsigned allowed = f->vector;
    f = catch_user(user_in);
    unsigned refused = f->vector;
    gdt[9] = (gdt[9] & ~0xffffull & ~(2ull << 40)) | 0x67;
    __asm__ volatile("ltr %w0" ::"r"(72));
    CHECK_EQ(allowed, 0x80);
    CHECK_EQ(refused, 13);
}
static void double_fault_push(void *p)
{
    (void)p; /* #GP whose gate is not present */
    uint64_t *gate = &idt[2 * 13];
    *gate &= ~(1ull << 47);
    *(volatile uint8_t *)0x8000000000000000 = 1;
}
static void double_fault(void)
{
    uint64_t gate = idt[2 * 13];
    uint64_t np = idt[2 * 11];
    const struct fault *f = caught(double_fault_push, NULL);
    unsigned vector = f ? f->vector : 255;
    unsigned long error = f ? f->error : 0;
    idt[2 * 13] = gate;
    idt[2 * 11] = np;
    /* #GP then #NP: two contributory exceptions. */
    CHECK(vector == 8 && error == 0, "exception %u error %lx", vector, error);
}

/* ---- single step, breakpoints ------------------------------------------------------------------- */
static volatile unsigned steps;
static void on_step(struct frame *f)
{
    (void)f;
    steps++;
}
#define STEP(code)                                                                                                          \
    ({                                                                                                                      \
        steps = 0;                                                                                                          \
        handlers[1] = on_step;                                                                                              \
        __asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; nop; " code "; nop; pushfq; andl $~0x100, (%%rsp); popfq" ::  \
                             : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "memory");                                         \
        steps;                                                                                                              \
    })
static void single_step(void)
{
    CHECK_EQ(STEP("nop"), 6);
    CHECK_EQ(STEP("cpuid"), 6);
    CHECK_EQ(STEP("xor %%eax, %%eax; out %%al, $0x80"), 7);
    CHECK_EQ(STEP("in $0x21, %%al"), 6);
    CHECK_EQ(STEP("mov $0x3fb, %%edx; in %%dx, %%al"), 7);
    CHECK_EQ(STEP("rdtsc"), 6);
    CHECK_EQ(STEP("mov $0x1b, %%ecx; rdmsr"), 7);
    CHECK_EQ(STEP("mov 0xfee00030, %%eax"), 6);
    CHECK_EQ(STEP("mov $0xfee00080, %%edx; movl $0, (%%rdx)"), 7);
    CHECK_EQ(STEP("mov 0xb8000, %%eax"), 6);
    CHECK_EQ(STEP("wbinvd"), 6);
    CHECK(read_dr6() & 0x4000, "no BS in DR6: %lx", read_dr6());
    write_dr6(0xffff0ff0);
}
static void debug_registers(void)
{
    write_dr0(0x1111);
    write_dr1(0x222222);
    write_dr2(0x33333333);
    write_dr3(0x4444444444);
    write_dr7(0x400);
    for (unsigned i = 0; i < 20; i++) {
        cpuid(0, 0);
        inb(0x3fb);
    }
    CHECK(read_dr0() == 0x1111 && read_dr1() == 0x222222 && read_dr2() == 0x33333333 && read_dr3() == 0x4444444444,
          "DR0..3 changed");
    CHECK_EQ(read_dr7(), 0x400);
}
static void watchpoint(void)
{
    static volatile uint32_t data;
    handlers[1] = on_step;
    steps = 0;
    write_dr6(0xffff0ff0);
    write_dr3((unsigned long)&data);
    write_dr7(0x400 | 0x40 | 0xd0000000); /* L3, write of 4 bytes */
    inb(0x3fb);
    data = 1;
    unsigned wrote = steps;
    unsigned long dr6 = read_dr6();
    write_dr7(0x400);
    write_dr6(0xffff0ff0);
    CHECK_EQ(wrote, 1);
    CHECK_EQ(dr6 & 0xf, 8);
}

/* ---- page tables ----------------------------------------------------------------------------------- */
static volatile uint64_t own_pdpt[512] __attribute__((aligned(4096))), own_pd[512] __attribute__((aligned(4096))),
    own_pt[512] __attribute__((aligned(4096)));
#define WINDOW  0x8000000000ul /* 512 GiB: entry 1 of the PML4 */
#define SCRATCH 0x800000ul
static void window_on(void)
{
    memset((void *)own_pt, 0, sizeof own_pt);
    own_pdpt[0] = (uint64_t)own_pd | 7;
    own_pd[0] = (uint64_t)own_pt | 7;
    uint64_t *root = (uint64_t *)read_cr3();
    root[1] = (uint64_t)own_pdpt | 7;
    write_cr3(read_cr3());
}
static void accessed_dirty(void)
{
    window_on();
    own_pt[0] = SCRATCH | 3;
    own_pd[1] = SCRATCH | 0x83;
    CHECK_EQ(*(volatile uint8_t *)WINDOW, *(volatile uint8_t *)SCRATCH);
    CHECK((own_pt[0] & 0x60) == 0x20, "after a read the entry is %llx", (unsigned long long)own_pt[0]);
    CHECK(own_pdpt[0] & 0x20 && own_pd[0] & 0x20, "directories: %llx %llx", (unsigned long long)own_pdpt[0],
          (unsigned long long)own_pd[0]);
    *(volatile uint8_t *)WINDOW = 1;
    CHECK((own_pt[0] & 0x60) == 0x60, "after a write the entry is %llx", (unsigned long long)own_pt[0]);
    *(volatile uint8_t *)(WINDOW + 0x200000) = 2;
    CHECK((own_pd[1] & 0x60) == 0x60, "the 2 MiB entry is %llx", (unsigned long long)own_pd[1]);
    CHECK_EQ(*(volatile uint8_t *)SCRATCH, 2);
}
/* What the hypervisor or a device model reads and writes for an instruction has the same effects. */
static void accessed_dirty_emulated(void)
{
    window_on();
    own_pt[0] = SCRATCH | 3;
    own_pt[1] = (SCRATCH + 0x1000) | 3;
    void *at = (void *)(WINDOW + 8);
    unsigned long n = 4;
    __asm__ volatile("rep outsb" : "+S"(at), "+c"(n) : "d"(0x80) : "memory");
    CHECK((own_pt[0] & 0x60) == 0x20, "after OUTS the entry is %llx", (unsigned long long)own_pt[0]);
    at = (void *)(WINDOW + 0x1008);
    n = 4;
    __asm__ volatile("rep insb" : "+D"(at), "+c"(n) : "d"(0x3fb) : "memory");
    CHECK((own_pt[1] & 0x60) == 0x60, "after INS the entry is %llx", (unsigned long long)own_pt[1]);
}
static void movs_in(void *p)
{
    void *from = (void *)0xb8000;
    unsigned long n = 4;
    __asm__ volatile("rep movsb" : "+S"(from), "+D"(p), "+c"(n)::"memory");
}
static void insb(void *p)
{
    unsigned long n = 4;
    __asm__ volatile("rep insb" : "+D"(p), "+c"(n) : "d"(0x3fb) : "memory");
}
static void outsb(void *p)
{
    unsigned long n = 4;
    __asm__ volatile("rep outsb" : "+S"(p), "+c"(n) : "d"(0x80) : "memory");
}
static void string_faults(void)
{
    window_on();
    own_pt[0] = SCRATCH | 3;
    invlpg((void *)(WINDOW + 0x1000));
    const struct fault *f = caught(movs_in, (void *)(WINDOW + 0xffd));
    CHECK_FAULT(f, 14, 2);
    CHECK_EQ(f->cr2, WINDOW + 0x1000);
    f = caught(insb, (void *)(WINDOW + 0xffd));
    CHECK_FAULT(f, 14, 2);
    CHECK_EQ(f->cr2, WINDOW + 0x1000);
    f = caught(outsb, (void *)(WINDOW + 0xffd));
    CHECK_FAULT(f, 14, 0);
    CHECK_EQ(f->cr2, WINDOW + 0x1000);
    own_pt[1] = (SCRATCH + 0x1000) | 1;
    CHECK_FAULT(caught(insb, (void *)(WINDOW + 0xffd)), 14, 3);
    CHECK_FAULT(caught(insb, (void *)0x8000000000000000), 13, 0);
}
static void no_execute(void)
{
    window_on();
    *(volatile uint8_t *)SCRATCH = 0xc3;
    own_pt[0] = SCRATCH | 3 | 1ull << 63;
    CHECK_FAULT(caught(jump, (void *)WINDOW), 14, 0x11);
    own_pt[0] = SCRATCH | 3;
    invlpg((void *)WINDOW);
    CHECK(!caught(jump, (void *)WINDOW), "executable again");
}
static void self_modifying(void)
{
    window_on();
    own_pt[0] = SCRATCH | 3;
    volatile uint8_t *alias = (uint8_t *)WINDOW, *code = (uint8_t *)SCRATCH; /* mov eax, imm32; ret */
    code[0] = 0xb8;
    code[5] = 0xc3;
    for (uint32_t i = 0; i < 50; i++) { /* written by another linear address, then a serialising instruction */
        *(volatile uint32_t *)(alias + 1) = i * 0x01030507;
        cpuid(0, 0);
        CHECK_EQ(((uint32_t(*)(void))code)(), i * 0x01030507);
    }
}

/* ---- HLT, shadows ------------------------------------------------------------------------------------ */
static unsigned long irq_ip;
static void on_irq(struct frame *f)
{
    irq_ip = f->ip;
    APIC(0xb0) = 0;
}
static void apic_on(void)
{
    lapic_reset();
    handlers[0x50] = on_irq;
}
static void hlt_wakes(void)
{
    apic_on();
    APIC(0x3e0) = 0xb;
    APIC(0x320) = 0x50;
    for (unsigned i = 1; i <= 3; i++) {
        unsigned long after;
        APIC(0x380) = 200000; /* 2 ms at 100 MHz */
        __asm__ volatile("lea 1f(%%rip), %0; sti; hlt; 1: cli" : "=&r"(after)::"memory");
        for (unsigned n = 0; n < 256; n++) CHECK(n == 0x50 || !counts[n], "vector %x came", n);
        CHECK_EQ(counts[0x50], i);
        CHECK(irq_ip == after, "woken at %lx, not behind the HLT at %lx", irq_ip, after);
    }
}
/* STI; HLT with an interrupt pending since before: it must not be lost between the two. */
static void sti_shadow(void)
{
    apic_on();
    unsigned long first;
    APIC(0x300) = 0x40050; /* to self: pending, IF is 0 */
    (void)APIC(0x300);
    CHECK_EQ(counts[0x50], 0);
    __asm__ volatile("lea 1f(%%rip), %0; sti; nop; 1: nop; cli" : "=&r"(first)::"memory");
    CHECK_EQ(counts[0x50], 1);
    CHECK(irq_ip == first, "came at %lx, not behind the instruction after STI at %lx", irq_ip, first);
    APIC(0x300) = 0x40050;
    (void)APIC(0x300);
    __asm__ volatile("sti; cli; nop; nop" ::: "memory");
    CHECK_EQ(counts[0x50], 1); /* STI; CLI never opens a window */
    __asm__ volatile("sti; nop; nop; cli" ::: "memory");
    CHECK_EQ(counts[0x50], 2);
}
static void sti_shadow_exit(void)
{
    apic_on();
    unsigned long first;
    APIC(0x300) = 0x40050;
    (void)APIC(0x300);
    __asm__ volatile("lea 1f(%%rip), %0; xor %%eax, %%eax; sti; cpuid; 1: nop; cli"
                     : "=&r"(first)::"rax", "rbx", "rcx", "rdx", "memory");
    CHECK_EQ(counts[0x50], 1);
    CHECK(irq_ip == first, "came at %lx, not behind the CPUID after STI at %lx", irq_ip, first);
}
static void sti_hlt(void)
{
    apic_on();
    unsigned long first;
    APIC(0x300) = 0x40050;
    (void)APIC(0x300);
    __asm__ volatile("lea 1f(%%rip), %0; sti; hlt; 1: nop; cli" : "=&r"(first)::"memory");
    CHECK_EQ(counts[0x50], 1);
    CHECK(irq_ip == first, "came at %lx, not behind the HLT at %lx", irq_ip, first);
}
static void mov_ss_shadow(void)
{
    apic_on();
    unsigned long first;
    APIC(0x300) = 0x40050;
    (void)APIC(0x300);
    __asm__ volatile("mov %%ss, %%eax; lea 1f(%%rip), %0; sti; mov %%eax, %%ss; nop; 1: nop; cli"
                     : "=&r"(first)::"rax", "memory");
    CHECK_EQ(counts[0x50], 1);
    CHECK(irq_ip == first || irq_ip == first - 1, "came at %lx, expected by %lx", irq_ip, first);
}
static void popf_window(void)
{
    apic_on();
    APIC(0x300) = 0x40050;
    (void)APIC(0x300);
    unsigned long first;
    __asm__ volatile("lea 1f(%%rip), %0; pushfq; orl $0x200, (%%rsp); popfq; 1: nop; cli" : "=&r"(first)::"memory");
    CHECK_EQ(counts[0x50], 1);
    CHECK(irq_ip == first, "came at %lx, not behind POPF at %lx", irq_ip, first);
}
static void cr8_masks(void)
{
    apic_on();
    write_cr8(5);
    CHECK_EQ(APIC(0x80), 0x50);
    sti();
    APIC(0x300) = 0x40050;
    (void)APIC(0x300);
    unsigned long masked = counts[0x50];
    write_cr8(4);
    __asm__ volatile("nop; nop");
    unsigned long after = counts[0x50];
    cli();
    write_cr8(0);
    CHECK_EQ(masked, 0);
    CHECK_EQ(after, 1);
    APIC(0x80) = 0x70;
    CHECK_EQ(read_cr8(), 7);
    APIC(0x80) = 0;
}

/* ---- FPU ------------------------------------------------------------------------------------------------ */
static void fpu_kept(void)
{
    static uint8_t in[512] __attribute__((aligned(16))), out[512] __attribute__((aligned(16)));
    __asm__ volatile("fninit; fxsave (%0)" ::"r"(in) : "memory");
    for (unsigned i = 0; i < 256; i++) in[160 + i] = (uint8_t)(i * 7 + 1); /* XMM */
    for (unsigned r = 0; r < 8; r++)
        for (unsigned i = 0; i < 8; i++) in[32 + 16 * r + i] = (uint8_t)(r * 16 + i);
    *(uint32_t *)(in + 24) = 0x1fa0; /* MXCSR */
    *(uint16_t *)in = 0x27f;
    __asm__ volatile("fxrstor (%0)" ::"r"(in) : "memory");
    for (unsigned i = 0; i < 50; i++) {
        inb(0x3fb); /* dom0 runs, QEMU uses its own registers */
        cpuid(0, 0);
    }
    __asm__ volatile("fxsave (%0)" ::"r"(out) : "memory");
    __asm__ volatile("fninit");
    CHECK(!memcmp(in + 160, out + 160, 256), "XMM registers changed");
    for (unsigned r = 0; r < 8; r++) CHECK(!memcmp(in + 32 + 16 * r, out + 32 + 16 * r, 8), "ST%u changed", r);
    CHECK_EQ(*(uint32_t *)(out + 24), 0x1fa0);
    CHECK_EQ(*(uint16_t *)out, 0x27f);
}

/* ---- SYSCALL ------------------------------------------------------------------------------------------- */
extern char syscall_entry[];
__asm__(".globl syscall_entry; syscall_entry: mov %rsp, %r9; mov $trap_stack_top, %rsp; mov %rcx, %r8;"
        "mov $0x7777, %eax; mov %r9, %rsp; sysretq");
static void user_syscall(void)
{
    unsigned long ax = 0;
    __asm__ volatile("syscall" : "+a"(ax)::"rcx", "r8", "r9", "r11", "memory");
    USER_EXIT();
}
static void syscall_sysret(void)
{
    /* SYSRET wants data then code above its base: build them behind the tests' descriptors. */
    gdt[12] = gdt[7];
    gdt[13] = gdt[8];
    wrmsr(EFER, rdmsr(EFER) | 1);
    /* CS = 24, SS = 32 on entry; on return CS = 88 + 16, SS = 88 + 8. */
    gdt[4] = gdt[2];
    wrmsr(STAR, 24ull << 32 | (uint64_t)(88 | 3) << 48);
    wrmsr(LSTAR, (unsigned long)syscall_entry);
    wrmsr(0xc0000084, 0x200);
    const struct fault *f = catch_user(user_syscall);
    gdt[4] = 0x00009b000000ffff;
    wrmsr(EFER, rdmsr(EFER) & ~1ull);
    CHECK_FAULT(f, 0x80, 0);
}

/* XSAVEC leaves YMM_Hi128 behind the header, at 576, and of the header writes its first 16 bytes only (SDM 1, 13.4.3
 * and 13.10). */
static void xsave_compacted(void)
{
    static uint8_t area[1024] __attribute__((aligned(64))), ones[16], high[16];
    if (!(cpuid(1, 0).c & 1u << 28) || !(cpuid(13, 1).a & 2)) {
        skip("no AVX or no XSAVEC in CPUID");
        return;
    }
    memset(ones, 0xff, sizeof ones);
    memset(area, 0, sizeof area);
    write_cr4(read_cr4() | 1u << 18);
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    __asm__ volatile("xsetbv" ::"c"(0), "a"(7), "d"(0));
    __asm__ volatile("movdqu %1, %%xmm7; vinsertf128 $1, %%xmm7, %%ymm7, %%ymm7\n\t"
                     "xsavec %0; vzeroall"
                     : "+m"(area)
                     : "m"(ones), "a"(7), "d"(0));
    bool header_kept = true;
    for (unsigned i = 528; i < 576; i++) header_kept &= !area[i];
    if (header_kept)
        __asm__ volatile("xrstor %1; vextractf128 $1, %%ymm7, %0; vzeroall" : "=m"(high) : "m"(area), "a"(7), "d"(0));
    __asm__ volatile("xsetbv" ::"c"(0), "a"(lo), "d"(hi));
    write_cr4(read_cr4() & ~(1ul << 18));
    CHECK_EQ(*(uint64_t *)(area + 520), 1ul << 63 | 7);
    CHECK(!memcmp(area + 576 + 7 * 16, ones, 16), "the upper half of YMM7 is not where it belongs");
    CHECK(header_kept, "the header is overwritten");
    CHECK(!memcmp(high, ones, 16), "XRSTOR does not bring it back");
}

const struct test tests[] = {
    { "cpuid_xen", cpuid_xen },
    { "cpuid_consistent", cpuid_consistent },
    { "cpuid_osxsave", cpuid_osxsave },
    { "xcr0_checks", xcr0_checks },
    { "msr_unknown", msr_unknown },
    { "msr_round_trip", msr_round_trip },
    { "msr_refused", msr_refused },
    { "msr_not_canonical", msr_not_canonical },
    { "msr_efer_sce", msr_efer_sce },
    { "tsc_monotonic", tsc_monotonic },
    { "tsc_aux", tsc_aux },
    { "tsc_write", tsc_write },
    { "exceptions", exceptions },
    { "stack_fault", stack_fault },
    { "virtualization_hidden", virtualization_hidden },
    { "user_privileges", user_privileges },
    { "user_interrupt", user_interrupt },
    { "user_io_bitmap", user_io_bitmap },
    { "double_fault", double_fault },
    { "single_step", single_step },
    { "debug_registers", debug_registers },
    { "watchpoint", watchpoint },
    { "accessed_dirty", accessed_dirty },
    { "accessed_dirty_emulated", accessed_dirty_emulated },
    { "string_faults", string_faults },
    { "no_execute", no_execute },
    { "self_modifying", self_modifying },
    { "hlt_wakes", hlt_wakes },
    { "sti_shadow", sti_shadow },
    { "sti_shadow_exit", sti_shadow_exit },
    { "sti_hlt", sti_hlt },
    { "mov_ss_shadow", mov_ss_shadow },
    { "popf_window", popf_window },
    { "fpu_kept", fpu_kept },
    { "xsave_compacted", xsave_compacted },
    { "syscall_sysret", syscall_sysret },
    { "cr8_masks", cr8_masks }, /* the last: it hangs the guest under Xen on QEMU */
    { 0 },
};
