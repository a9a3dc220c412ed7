/* prot.c: 32-bit protected mode: segments, exceptions, 4 MiB pages, PAE with NX, mode switches, task
 * switches, self-modifying code. Runs without paging between tests. */
#include "micro.h"

static volatile uint32_t pgdir[1024] __attribute__((aligned(4096)));
static volatile uint32_t pgtab[1024] __attribute__((aligned(4096)));
static volatile uint64_t pae_pdpt[4] __attribute__((aligned(32)));
static volatile uint64_t pae_pd[4][512] __attribute__((aligned(4096)));
static volatile uint64_t pae_pt[512] __attribute__((aligned(4096)));
#define SCRATCH 0x800000u /* 8 MiB: RAM nobody uses */
#define WINDOW  0x40000000u
#define EFER    0xc0000080u

static void set_gdt(unsigned selector, uint32_t base, uint32_t limit, uint16_t attr)
{
    gdt[selector / 8] = descriptor(base, limit, attr);
}

/* ---- segments ------------------------------------------------------------------------------- */
static void load_es(void *sel) { __asm__ volatile("mov %w0, %%es" ::"r"(sel)); }
static void load_ss(void *sel) { __asm__ volatile("mov %w0, %%ss" ::"r"(sel)); }
static void read_fs(void *at)
{
    uint8_t v;
    __asm__ volatile("movb %%fs:(%1), %0" : "=q"(v) : "r"(at));
}
static void write_fs(void *at) { __asm__ volatile("movb $1, %%fs:(%0)" ::"r"(at) : "memory"); }
static void set_fs(unsigned sel) { __asm__ volatile("mov %w0, %%fs" ::"r"(sel)); }

static void pm_state(void)
{
    CHECK((read_cr0() & 0x80000001) == 1, "CR0 is %lx", read_cr0());
    uint32_t cs, limit;
    __asm__ volatile("mov %%cs, %0" : "=r"(cs));
    __asm__ volatile("lsl %1, %0" : "=r"(limit) : "r"(16));
    CHECK(cs == 8, "CS is %x", cs);
    CHECK(limit == 0xffffffff, "limit is %x", limit);
}

static void pm_limits(void)
{
    set_gdt(GDT_FREE, SCRATCH, 0xfff, 0x493);
    set_fs(GDT_FREE);
    CHECK(!caught(read_fs, (void *)0xfff), "inside the limit");
    CHECK_FAULT(caught(read_fs, (void *)0x1000), 13, 0);
    set_gdt(GDT_FREE, SCRATCH, 0xfff, 0x497); /* expand down */
    set_fs(GDT_FREE);
    CHECK_FAULT(caught(read_fs, (void *)0xfff), 13, 0);
    CHECK(!caught(read_fs, (void *)0x1000), "inside an expand-down segment");
    set_fs(16);
}

static void pm_rights(void)
{
    set_gdt(GDT_FREE, SCRATCH, 0xfff, 0x491); /* read-only */
    set_fs(GDT_FREE);
    CHECK_FAULT(caught(write_fs, (void *)0), 13, 0);
    set_fs(0);
    CHECK_FAULT(caught(read_fs, (void *)0), 13, 0);
    set_fs(16);
}

static void pm_base(void)
{
    set_gdt(GDT_FREE, SCRATCH + 3, 0xfffff, 0xc93);
    set_fs(GDT_FREE);
    *(volatile uint32_t *)(SCRATCH + 3) = 0x11223344;
    uint32_t v;
    __asm__ volatile("mov %%fs:0, %0" : "=r"(v));
    set_fs(16);
    CHECK_EQ(v, 0x11223344);
    CHECK(gdt[GDT_FREE / 8] >> 40 & 1, "no accessed bit in the descriptor");
}

static void pm_selector_faults(void)
{
    set_gdt(GDT_FREE, 0, 0xfffff, 0xc13); /* not present */
    CHECK_FAULT(caught(load_es, (void *)GDT_FREE), 11, GDT_FREE);
    CHECK_FAULT(caught(load_ss, (void *)GDT_FREE), 12, GDT_FREE);
    CHECK_FAULT(caught(load_es, (void *)0x7f8), 13, 0x7f8); /* beyond the table */
    CHECK_FAULT(caught(load_ss, (void *)8), 13, 8);         /* code */
    CHECK_FAULT(caught(load_ss, (void *)0), 13, 0);
    CHECK_FAULT(caught(load_es, (void *)12), 13, 12); /* in an LDT there is not: TI set */
}

static void pm_16bit_code(void)
{
    /* cs 32 has base 0 and 64 KiB: run from a copy at 0x7000. mov ax, 0x1234; retf (32 bits) */
    static const uint8_t code[] = { 0xb8, 0x34, 0x12, 0x66, 0xcb };
    uint32_t ax = 0xffff0000;
    memcpy((void *)0x7000, code, sizeof code);
    __asm__ volatile("lcall $32, $0x7000" : "+a"(ax)::"memory");
    CHECK_EQ(ax, 0xffff1234);
}

/* ---- exceptions ------------------------------------------------------------------------------ */
static void do_ud2(void *p)
{
    (void)p;
    __asm__ volatile("ud2");
}
static void do_div(void *p)
{
    (void)p;
    __asm__ volatile("xor %%edx, %%edx; mov $1, %%eax; xor %%ecx, %%ecx; div %%ecx" ::: "eax", "ecx", "edx");
}
static void do_idiv(void *p)
{
    (void)p;
    __asm__ volatile("mov $0x80000000, %%eax; mov $-1, %%edx; mov $-1, %%ecx; idiv %%ecx" ::: "eax", "ecx", "edx");
}
static void do_int3(void *p) { __asm__ volatile("movl $1f, (%0); int3; 1:" ::"r"(p) : "memory"); }
static void do_into(void *p)
{
    (void)p;
    __asm__ volatile("mov $0x7fffffff, %%eax; add $1, %%eax; into" ::: "eax");
}
static void do_bound(void *p)
{
    static int32_t b[2] = { 1, 3 };
    (void)p;
    __asm__ volatile("bound %0, %1" ::"r"(5), "m"(b));
}
static void do_int(void *p)
{
    (void)p;
    __asm__ volatile("int $0x55");
}
static void do_fpu(void *p)
{
    (void)p;
    __asm__ volatile("fnop");
}
static void do_sse(void *p)
{
    (void)p;
    __asm__ volatile("xorps %xmm0, %xmm0");
}

static void pm_exceptions(void)
{
    uint32_t next = 0;
    CHECK_FAULT(caught(do_ud2, NULL), 6, 0);
    CHECK_FAULT(caught(do_div, NULL), 0, 0);
    CHECK_FAULT(caught(do_idiv, NULL), 0, 0);
    const struct fault *f = caught(do_int3, &next);
    CHECK_FAULT(f, 3, 0);
    CHECK_EQ(f->ip, next);
    CHECK_FAULT(caught(do_into, NULL), 4, 0);
    CHECK_FAULT(caught(do_bound, NULL), 5, 0);
    uint64_t gate = idt[0x55];
    idt[0x55] &= ~(1ull << 47);
    CHECK_FAULT(caught(do_int, NULL), 11, 0x55 * 8 + 2); /* #NP, in the IDT */
    idt[0x55] = 0;
    CHECK_FAULT(caught(do_int, NULL), 13, 0x55 * 8 + 2);
    idt[0x55] = gate;
}

static void pm_control_registers(void)
{
    write_cr0(read_cr0() | 8);
    const struct fault *f = caught(do_fpu, NULL);
    __asm__ volatile("clts");
    CHECK_FAULT(f, 7, 0);
    write_cr0(read_cr0() | 4);
    f = caught(do_sse, NULL);
    write_cr0(read_cr0() & ~4ul);
    CHECK_FAULT(f, 6, 0);
    CHECK(!(read_cr0() & 0xc), "CR0 is %lx", read_cr0());
    uint16_t msw;
    __asm__ volatile("smsw %0" : "=r"(msw));
    CHECK_EQ(msw, (uint16_t)read_cr0());
    __asm__ volatile("lmsw %w0" ::"r"(msw | 8));
    bool ts = read_cr0() & 8;
    __asm__ volatile("clts");
    CHECK(ts, "LMSW did not set TS");
    CHECK(!(read_cr0() & 8), "CLTS did not clear TS");
}

/* ---- single step ----------------------------------------------------------------------------- */
static unsigned long step_ip[16];
static unsigned steps;
static void on_step(struct frame *f)
{
    if (steps < 16) step_ip[steps] = f->ip;
    steps++;
}

#define STEP(code)                                                                                                          \
    ({                                                                                                                      \
        steps = 0;                                                                                                          \
        handlers[1] = on_step;                                                                                              \
        __asm__ volatile("pushfl; orl $0x100, (%%esp); popfl; nop; " code "; nop; pushfl; andl $~0x100, (%%esp); popfl" ::  \
                             : "eax", "ebx", "ecx", "edx", "memory");                                                       \
        steps;                                                                                                              \
    })
/* Beside the instruction itself: two NOPs, PUSHF, AND, POPF. */
static void pm_single_step(void)
{
    CHECK_EQ(STEP("nop"), 6);
    CHECK_EQ(STEP("cpuid"), 6);
    CHECK_EQ(STEP("xor %%eax, %%eax; outb %%al, $0x80"), 7);
    CHECK_EQ(STEP("inb $0x21, %%al"), 6);
    CHECK_EQ(STEP("rdtsc"), 6);
    CHECK_EQ(STEP("mov $0x1b, %%ecx; rdmsr"), 7);
    CHECK_EQ(STEP("mov 0xfee00030, %%eax"), 6);
    CHECK_EQ(STEP("mov %%cr0, %%eax; mov %%eax, %%cr0"), 7);
    CHECK_EQ(STEP("wbinvd"), 6);
    CHECK(read_dr6() & 0x4000, "no BS in DR6: %lx", read_dr6());
    write_dr6(0xffff0ff0);
}

static volatile uint32_t db_ip, db_came;
static void on_breakpoint(struct frame *f)
{
    db_came++;
    db_ip = f->ip;
    f->flags |= 0x10000; /* RF */
}
static void pm_breakpoints(void)
{
    handlers[1] = on_breakpoint;
    extern char bp_here[];
    write_dr6(0xffff0ff0);
    write_dr0((unsigned long)bp_here);
    write_dr7(0x402); /* instruction */
    __asm__ volatile("cpuid; .globl bp_here; bp_here: nop; cpuid" ::: "eax", "ebx", "ecx", "edx");
    uint32_t came = db_came, ip = db_ip, dr6 = read_dr6();
    static volatile uint32_t data;
    db_came = 0;
    write_dr6(0xffff0ff0);
    write_dr0((unsigned long)&data);
    write_dr7(0xd0402); /* write, 4 bytes */
    data = 5;
    uint32_t wrote = db_came;
    (void)data;
    uint32_t read = db_came;
    write_dr7(0x400);
    write_dr6(0xffff0ff0);
    CHECK_EQ(came, 1);
    CHECK_EQ(ip, (unsigned long)bp_here);
    CHECK_EQ(dr6 & 0xf, 1);
    CHECK_EQ(wrote, 1);
    CHECK_EQ(read, 1);
}

/* ---- 32-bit paging ---------------------------------------------------------------------------- */
static void paging_4m_on(void)
{
    for (unsigned i = 0; i < 1024; i++) pgdir[i] = i << 22 | 0x83;
    memset((void *)pgtab, 0, sizeof pgtab);
    pgdir[WINDOW >> 22] = (uint32_t)pgtab | 7;
    write_cr4(read_cr4() | 0x10);
    write_cr3((unsigned long)pgdir);
    write_cr0(read_cr0() | 0x80000000);
}
static void peek(void *p) { (void)*(volatile uint32_t *)p; }
static void poke(void *p) { *(volatile uint32_t *)p = 0xabcd1234; }
static void jump(void *p) { ((void (*)(void))p)(); }

static void in_4m(void)
{
    volatile uint32_t *window = (uint32_t *)WINDOW;
    pgtab[0] = SCRATCH | 3;
    *(volatile uint32_t *)SCRATCH = 0x55aa55aa;
    CHECK_EQ(window[0], 0x55aa55aa);
    CHECK((pgtab[0] & 0x60) == 0x20, "after a read the entry is %x", pgtab[0]);
    window[1] = 77;
    CHECK_EQ(*(volatile uint32_t *)(SCRATCH + 4), 77);
    CHECK((pgtab[0] & 0x60) == 0x60, "after a write the entry is %x", pgtab[0]);
    CHECK(pgdir[WINDOW >> 22] & 0x20, "no accessed bit in the directory");
    const struct fault *f = caught(peek, (void *)(WINDOW + 0x1004));
    CHECK_FAULT(f, 14, 0);
    CHECK_EQ(f->cr2, WINDOW + 0x1004);
    f = caught(poke, (void *)(WINDOW + 0x1008));
    CHECK_FAULT(f, 14, 2);
    CHECK_EQ(f->cr2, WINDOW + 0x1008);
    pgtab[1] = (SCRATCH + 0x1000) | 1;
    CHECK_FAULT(caught(poke, (void *)(WINDOW + 0x1000)), 14, 3); /* WP */
    pgtab[1] = (SCRATCH + 0x1000) | 3;
    CHECK(!caught(poke, (void *)(WINDOW + 0x1000)), "writable again, no flush needed after a fault");
    /* A large page elsewhere for the same memory, dirtied through it. */
    pgdir[(WINDOW >> 22) + 1] = SCRATCH | 0x83;
    *(volatile uint32_t *)(WINDOW + 0x400000) = 99;
    CHECK_EQ(window[0], 99);
    CHECK((pgdir[(WINDOW >> 22) + 1] & 0x60) == 0x60, "the 4 MiB entry is %x", pgdir[(WINDOW >> 22) + 1]);
    /* INVLPG makes a changed entry seen. */
    pgtab[0] = (SCRATCH + 0x2000) | 3;
    *(volatile uint32_t *)(SCRATCH + 0x2000) = 1234;
    invlpg((void *)WINDOW);
    CHECK_EQ(window[0], 1234);
    /* Device memory through a mapping: the LAPIC's version register. */
    pgtab[2] = 0xfee00000 | 0x13;
    CHECK_EQ(*(volatile uint32_t *)(WINDOW + 0x2030) & 0xff, MMIO32(0xfee00030) & 0xff);
    /* An exit with the operands crossing two pages: the hypervisor walks our tables. */
    static const char text[] = "ab";
    pgtab[4] = (SCRATCH + 0x7000) | 3;
    pgtab[5] = (SCRATCH + 0x5000) | 3;
    *(volatile char *)(WINDOW + 0x4fff) = text[0];
    *(volatile char *)(WINDOW + 0x5000) = text[1];
    const char *from = (const char *)WINDOW + 0x4fff;
    unsigned n = 2;
    outb(0x3d4, 0x0e);
    uint8_t old = inb(0x3d5);
    __asm__ volatile("rep outsb" : "+S"(from), "+c"(n) : "d"(0x3d5) : "memory");
    CHECK_EQ(n, 0);
    CHECK_EQ((unsigned long)from, WINDOW + 0x5001);
    CHECK_EQ(inb(0x3d5), 'b');
    outb(0x3d5, old);
}
static void paging32_4m(void)
{
    paging_4m_on();
    in_4m();
    paging_off();
}

static void outs_80(void *p)
{
    unsigned c = 4;
    __asm__ volatile("rep outsb" : "+S"(p), "+c"(c) : "d"(0x80) : "memory");
}
static void ins_vga(void *p)
{
    unsigned c = 4;
    __asm__ volatile("rep insb" : "+D"(p), "+c"(c) : "d"(0x3d5) : "memory");
}
static void movs_vga(void *p)
{
    void *from = (void *)0xb8000;
    unsigned c = 4;
    __asm__ volatile("rep movsb" : "+S"(from), "+D"(p), "+c"(c)::"memory");
}
static void in_faults(void)
{
    pgtab[0] = SCRATCH | 3;
    pgtab[1] = 0;
    invlpg((void *)(WINDOW + 0x1000));
    const struct fault *f = caught(outs_80, (void *)(WINDOW + 0xffe));
    CHECK_FAULT(f, 14, 0);
    CHECK_EQ(f->cr2, WINDOW + 0x1000);
    f = caught(ins_vga, (void *)(WINDOW + 0xffe));
    CHECK_FAULT(f, 14, 2);
    CHECK_EQ(f->cr2, WINDOW + 0x1000);
    f = caught(movs_vga, (void *)(WINDOW + 0xffe));
    CHECK_FAULT(f, 14, 2);
    CHECK_EQ(f->cr2, WINDOW + 0x1000);
    pgtab[1] = SCRATCH | 1;
    CHECK_FAULT(caught(movs_vga, (void *)(WINDOW + 0xffe)), 14, 3);
}
static void paging32_string_faults(void)
{
    paging_4m_on();
    in_faults();
    paging_off();
}

static void user_peek(void)
{
    (void)*(volatile uint32_t *)WINDOW;
    USER_EXIT();
}
static void user_poke(void)
{
    *(volatile uint32_t *)WINDOW = 1;
    USER_EXIT();
}
static void in_user(void)
{
    for (unsigned i = 0; i < 2; i++) pgdir[i] |= 4;
    write_cr3(read_cr3());
    pgtab[0] = SCRATCH | 3;
    CHECK_FAULT(catch_user(user_peek), 14, 5);
    pgtab[0] = SCRATCH | 5;
    CHECK_FAULT(catch_user(user_peek), 0x80, 0);
    CHECK_FAULT(catch_user(user_poke), 14, 7);
    pgtab[0] = 0;
    invlpg((void *)WINDOW);
    CHECK_FAULT(catch_user(user_peek), 14, 4);
}
static void paging32_user(void)
{
    paging_4m_on();
    in_user();
    paging_off();
}

/* ---- PAE --------------------------------------------------------------------------------------- */
static void pae_on(void)
{
    for (unsigned i = 0; i < 4; i++) {
        pae_pdpt[i] = (uint32_t)pae_pd[i] | 1;
        for (unsigned j = 0; j < 512; j++) pae_pd[i][j] = ((uint64_t)i << 30 | (uint64_t)j << 21) | 0x83;
    }
    memset((void *)pae_pt, 0, sizeof pae_pt);
    pae_pd[WINDOW >> 30][0] = (uint32_t)pae_pt | 7;
    write_cr4(read_cr4() | 0x20);
    wrmsr(EFER, rdmsr(EFER) | 0x800);
    write_cr3((unsigned long)pae_pdpt);
    write_cr0(read_cr0() | 0x80000000);
}
static void in_pae(void)
{
    volatile uint32_t *window = (uint32_t *)WINDOW;
    pae_pt[0] = SCRATCH | 3;
    *(volatile uint32_t *)SCRATCH = 0x0badcafe;
    CHECK_EQ(window[0], 0x0badcafe);
    CHECK((pae_pt[0] & 0x60) == 0x20, "after a read the entry is %llx", pae_pt[0]);
    window[0] = 0xc3c3c3c3; /* RET */
    CHECK((pae_pt[0] & 0x60) == 0x60, "after a write the entry is %llx", pae_pt[0]);
    CHECK(!caught(jump, (void *)WINDOW), "executable");
    pae_pt[1] = SCRATCH | 3 | 1ull << 63;
    const struct fault *f = caught(jump, (void *)(WINDOW + 0x1000));
    CHECK_FAULT(f, 14, 0x11);
    CHECK_EQ(f->cr2, WINDOW + 0x1000);
    CHECK_EQ(f->ip, WINDOW + 0x1000);
    CHECK(!caught(peek, (void *)(WINDOW + 0x1000)), "readable");
    f = caught(jump, (void *)(WINDOW + 0x2000));
    CHECK_FAULT(f, 14, 0x10);
    pae_pt[2] = SCRATCH | 3 | 1ull << 62;
    CHECK_FAULT(caught(peek, (void *)(WINDOW + 0x2000)), 14, 9); /* reserved bit */
    pae_pt[3] = SCRATCH | 1;
    CHECK_FAULT(caught(poke, (void *)(WINDOW + 0x3000)), 14, 3);
    /* A 2 MiB page. */
    pae_pd[WINDOW >> 30][1] = SCRATCH | 0x83;
    *(volatile uint32_t *)(WINDOW + 0x200000) = 4711;
    CHECK_EQ(*(volatile uint32_t *)SCRATCH, 4711);
    CHECK((pae_pd[WINDOW >> 30][1] & 0x60) == 0x60, "the 2 MiB entry is %llx", pae_pd[WINDOW >> 30][1]);
}
static void pae_nx(void)
{
    pae_on();
    in_pae();
    paging_off();
}

/* Emulated instructions walk these tables too. */
static void in_pae_emulated(void)
{
    pae_pt[4] = 0xfee00000 | 0x13;
    CHECK_EQ(*(volatile uint32_t *)(WINDOW + 0x4030) & 0xff, MMIO32(0xfee00030) & 0xff);
    CHECK_EQ(*(volatile uint32_t *)(WINDOW + 0x4030) & 0xff, 0x14);
    pae_pt[5] = 0xb8003;
    *(volatile uint16_t *)(WINDOW + 0x5000) = 0x1f41;
    __asm__ volatile("orw $0x2000, (%0)" ::"r"(WINDOW + 0x5000) : "memory");
    CHECK_EQ(*(volatile uint16_t *)0xb8000, 0x3f41);
    CHECK((pae_pt[5] & 0x60) == 0x60, "after writes the entry is %llx", pae_pt[5]);
}
static void pae_emulated(void)
{
    pae_on();
    in_pae_emulated();
    paging_off();
}

/* ---- switching modes --------------------------------------------------------------------------- */
uint32_t long_trip(uint32_t pml4); /* modes.asm */
uint32_t real_trip(uint32_t value);
static void pm_long_and_back(void)
{
    static uint64_t pml4[512] __attribute__((aligned(4096)));
    for (unsigned i = 0; i < 4; i++) {
        pae_pdpt[i] = (uint32_t)pae_pd[i] | 3; /* reserved in PAE, needed in long mode */
        for (unsigned j = 0; j < 512; j++) pae_pd[i][j] = ((uint64_t)i << 30 | (uint64_t)j << 21) | 0x83;
    }
    pml4[0] = (uint32_t)pae_pdpt | 3;
    for (unsigned i = 0; i < 20; i++) {
        uint32_t got = long_trip((uint32_t)pml4);
        CHECK_EQ(got, 0x12345678 + 1);
        CHECK(!(rdmsr(EFER) & 0x500), "EFER is %llx", (unsigned long long)rdmsr(EFER));
        CHECK(!(read_cr0() & 0x80000000), "paging is on");
    }
}
static void pm_real_and_back(void)
{
    for (unsigned i = 0; i < 20; i++) CHECK_EQ(real_trip(i * 3), i * 3 + 0x1000);
}

/* ---- task switch --------------------------------------------------------------------------------- */
static uint32_t tss2[26] __attribute__((aligned(128)));
static uint8_t task_stack[4096];
static volatile uint32_t task_ran, task_cr0;
static void task(void)
{
    task_ran++;
    task_cr0 = read_cr0();
    __asm__ volatile("iret");
}
static void pm_task_switch(void)
{
    memset(tss2, 0, sizeof tss2);
    tss2[8] = (uint32_t)task;
    tss2[9] = 2;
    tss2[14] = (uint32_t)task_stack + sizeof task_stack;
    tss2[18] = 16; /* ES CS SS DS FS GS */
    tss2[19] = 8;
    tss2[20] = tss2[21] = tss2[22] = tss2[23] = 16;
    set_gdt(GDT_FREE, (uint32_t)tss2, 103, 0x89);
    task_ran = 0;
    __asm__ volatile("lcall %0, $0" ::"i"(GDT_FREE) : "memory", "cc");
    CHECK_EQ(task_ran, 1);
    CHECK(task_cr0 & 8, "TS not set by the switch: CR0 %x", task_cr0);
    CHECK_EQ((uint16_t)tss2[0], 72); /* back link */
    uint16_t tr;
    __asm__ volatile("clts; str %0" : "=r"(tr));
    CHECK_EQ(tr, 72);
    CHECK_EQ(gdt[GDT_FREE / 8] >> 40 & 0xff, 0x89); /* not busy any more */
}

/* ---- self-modifying code --------------------------------------------------------------------------- */
static void pm_self_modifying(void)
{
    volatile uint8_t *code = (uint8_t *)SCRATCH + 0xffc; /* mov eax, imm32; ret across a page boundary */
    code[0] = 0xb8;
    code[5] = 0xc3;
    for (uint32_t i = 0; i < 50; i++) {
        code[1] = (uint8_t)i;
        code[2] = (uint8_t)(i * 3);
        code[3] = (uint8_t)(i * 5);
        code[4] = (uint8_t)(i * 7);
        __asm__ volatile("jmp 1f; 1:" ::: "memory");
        uint32_t got = ((uint32_t(*)(void))(uint32_t)code)();
        CHECK_EQ(got, (uint8_t)i | (uint32_t)(uint8_t)(i * 3) << 8 | (uint32_t)(uint8_t)(i * 5) << 16 |
                          (uint32_t)(uint8_t)(i * 7) << 24);
    }
    /* An exiting instruction put where another was: CPUID over NOP NOP. */
    volatile uint8_t *exits = (uint8_t *)SCRATCH;
    static const uint8_t nops[] = { 0x53, 0x31, 0xc0, 0x90, 0x90, 0x5b, 0xc3 };
    memcpy((void *)exits, nops, sizeof nops);
    uint32_t first = ((uint32_t(*)(void))(uint32_t)exits)();
    exits[3] = 0x0f;
    exits[4] = 0xa2;
    __asm__ volatile("jmp 1f; 1:" ::: "memory");
    uint32_t second;
    __asm__ volatile("call *%1" : "=a"(second) : "r"(exits) : "ecx", "edx", "memory");
    CHECK_EQ(first, 0);
    CHECK_EQ(second, cpuid(0, 0).a);
}

/* ---- virtual-8086 mode -------------------------------------------------------------------------------- */
#ifndef WITHOUT_V86
void v86_start(uint32_t flags) __attribute__((noreturn)); /* modes.asm: IRET into V86 at 0x700:0 */
static void v86_enter(void *p)
{
    (void)p;
    v86_start(0);
}
static void pm_v86(void)
{
    /* mov ax, 0x8086; mov [0x100], ax; hlt (privileged: #GP) */
    static const uint8_t code[] = { 0xb8, 0x86, 0x80, 0xa3, 0x00, 0x01, 0xf4 };
    memcpy((void *)0x7000, code, sizeof code);
    *(volatile uint32_t *)0x7100 = 0;
    const struct fault *f = caught(v86_enter, NULL);
    CHECK_FAULT(f, 13, 0);
    CHECK_EQ(f->ip, 6);
    CHECK(f->flags & 0x20000, "VM is not in the saved flags: %lx", f->flags);
    CHECK_EQ(*(volatile uint32_t *)0x7100, 0x8086);
    static const uint8_t cpuid_code[] = { 0x66, 0x31, 0xc0, 0x0f, 0xa2, 0x66, 0xa3, 0x00, 0x01, 0xf4 };
    memcpy((void *)0x7000, cpuid_code, sizeof cpuid_code);
    f = caught(v86_enter, NULL);
    CHECK_FAULT(f, 13, 0);
    CHECK_EQ(f->ip, 9);
    CHECK_EQ(*(volatile uint32_t *)0x7100, cpuid(0, 0).a);
}
#endif

const struct test tests[] = {
    { "pm_state", pm_state },
    { "pm_limits", pm_limits },
    { "pm_rights", pm_rights },
    { "pm_base", pm_base },
    { "pm_selector_faults", pm_selector_faults },
    { "pm_16bit_code", pm_16bit_code },
    { "pm_exceptions", pm_exceptions },
    { "pm_control_registers", pm_control_registers },
    { "pm_single_step", pm_single_step },
    { "pm_breakpoints", pm_breakpoints },
    { "paging32_4m", paging32_4m },
    { "paging32_string_faults", paging32_string_faults },
    { "paging32_user", paging32_user },
    { "pm_long_and_back", pm_long_and_back },
    { "pm_real_and_back", pm_real_and_back },
    { "pm_task_switch", pm_task_switch },
    { "pm_self_modifying", pm_self_modifying },
#ifndef WITHOUT_V86
    { "pm_v86", pm_v86 },
#endif
    { "pae_nx", pae_nx }, /* the last ones: they hang the guest under Xen on QEMU */
    { "pae_emulated", pae_emulated },
    { 0 },
};
