/* io.c: ports and device memory that QEMU answers: PCI configuration, VGA, IDE; every instruction form that
 * touches VGA memory. */
#include "micro.h"

/* ---- ports ------------------------------------------------------------------------------------------ */
static void cf8(unsigned dev, unsigned fn, unsigned reg) { outl(0xcf8, 0x80000000 | dev << 11 | fn << 8 | (reg & 0xfc)); }
static void pci_config(void)
{
    cf8(0, 0, 0);
    uint32_t id = inl(0xcfc);
    CHECK(id == 0x12378086, "device 0 is %x", id);
    CHECK_EQ(inl(0xcf8), 0x80000000);
    CHECK_EQ(inw(0xcfc), 0x8086);
    CHECK_EQ(inw(0xcfe), 0x1237);
    CHECK_EQ(inb(0xcfc), 0x86);
    CHECK_EQ(inb(0xcfd), 0x80);
    CHECK_EQ(inb(0xcfe), 0x37);
    CHECK_EQ(inb(0xcff), 0x12);
    cf8(1, 0, 0);
    CHECK_EQ(inl(0xcfc), 0x70008086);
    cf8(31, 0, 0);
    CHECK_EQ(inl(0xcfc), 0xffffffff); /* nobody there */
    CHECK_EQ(inw(0xcfe), 0xffff);
    /* A byte and a word into a register of the VGA card: interrupt line. */
    unsigned vga;
    for (vga = 2; vga < 32; vga++) {
        cf8(vga, 0, 8);
        if (inl(0xcfc) >> 16 == 0x300) break;
    }
    CHECK(vga < 32, "no VGA card");
    cf8(vga, 0, 0x3c);
    uint8_t old = inb(0xcfc);
    outb(0xcfc, 0x5a);
    uint8_t byte = inb(0xcfc);
    outw(0xcfc, 0xff33);
    uint32_t all = inl(0xcfc);
    outb(0xcfc, old);
    CHECK_EQ(byte, 0x5a);
    CHECK_EQ(all & 0xff, 0x33);
    outl(0xcf8, 0); /* not enabled: no configuration cycle */
    CHECK(inl(0xcfc) != 0x12378086, "a cycle without the enable bit");
}
static void ports_unclaimed(void)
{
    CHECK_EQ(inb(0x2f8 + 0x1000), 0xff);
    CHECK_EQ(inw(0x1234), 0xffff);
    CHECK_EQ(inl(0x1234), 0xffffffff);
    /* IN AL and AX leave the rest of RAX alone, IN EAX clears the upper half. */
    uint64_t ax = 0x1122334455667788;
    __asm__ volatile("inb %%dx, %%al" : "+a"(ax) : "d"(0x1234));
    CHECK_EQ(ax, 0x11223344556677ff);
    ax = 0x1122334455667788;
    __asm__ volatile("inw %%dx, %%ax" : "+a"(ax) : "d"(0x1234));
    CHECK_EQ(ax, 0x112233445566ffff);
    ax = 0x1122334455667788;
    __asm__ volatile("inl %%dx, %%eax" : "+a"(ax) : "d"(0x1234));
    CHECK_EQ(ax, 0xffffffff);
}
static void vga_registers(void)
{
    outb(0x3d4, 0x0f);
    uint8_t old = inb(0x3d5);
    outb(0x3d5, 0x12);
    CHECK_EQ(inb(0x3d5), 0x12);
    outw(0x3d4, 0x340f); /* index and data at once */
    CHECK_EQ(inb(0x3d5), 0x34);
    outb(0x3d5, old);
    uint8_t misc = inb(0x3cc);
    outb(0x3c2, misc ^ 0x20);
    CHECK_EQ(inb(0x3cc), misc ^ 0x20);
    outb(0x3c2, misc);
    inb(0x3da);
    outb(0x3c7, 5); /* DAC: three reads are three components */
    uint8_t r = inb(0x3c9), g = inb(0x3c9), b = inb(0x3c9);
    outb(0x3c8, 5);
    static const uint8_t rgb[3] = { 11, 22, 33 };
    const uint8_t *from = rgb;
    unsigned long n = 3;
    __asm__ volatile("rep outsb" : "+S"(from), "+c"(n) : "d"(0x3c9) : "memory");
    outb(0x3c7, 5);
    uint8_t got[3], *to = got;
    n = 3;
    __asm__ volatile("rep insb" : "+D"(to), "+c"(n) : "d"(0x3c9) : "memory");
    outb(0x3c8, 5);
    outb(0x3c9, r);
    outb(0x3c9, g);
    outb(0x3c9, b);
    CHECK(!memcmp(got, rgb, 3), "%u %u %u", got[0], got[1], got[2]);
    CHECK(n == 0 && to == got + 3 && from == rgb + 3, "registers after REP");
}

/* ---- IDE ----------------------------------------------------------------------------------------------- */
static bool ide_wait(void)
{
    for (unsigned i = 0; i < 100000; i++) {
        uint8_t s = inb(0x1f7);
        if (!(s & 0x80) && s & 8) return true;
    }
    return false;
}
static void ide_command(unsigned lba, unsigned n)
{
    outb(0x3f6, 2);
    outb(0x1f6, 0xe0);
    outb(0x1f2, (uint8_t)n);
    outb(0x1f3, (uint8_t)lba);
    outb(0x1f4, 0);
    outb(0x1f5, 0);
    outb(0x1f7, 0x20);
}
static uint8_t sectors[2][2048];
static void ide_rep_ins(void)
{
    ide_command(0, 2);
    CHECK(ide_wait(), "no data: status %x", inb(0x1f7));
    void *to = sectors[0];
    unsigned long n = 256;
    __asm__ volatile("rep insw" : "+D"(to), "+c"(n) : "d"(0x1f0) : "memory");
    CHECK(to == sectors[0] + 512 && n == 0, "registers after REP INSW");
    CHECK(ide_wait(), "no second sector");
    n = 128;
    __asm__ volatile("rep insl" : "+D"(to), "+c"(n) : "d"(0x1f0) : "memory");
    CHECK(to == sectors[0] + 1024 && n == 0, "registers after REP INSL");
    CHECK(sectors[0][510] == 0x55 && sectors[0][511] == 0xaa, "no AA55");
    CHECK(!memcmp(sectors[0], (void *)0x7c00, 64), "not our boot sector");
    CHECK(!memcmp(sectors[0] + 512, (void *)0x10000, 512), "the second sector is not our code");
    /* The same word by word. */
    ide_command(0, 1);
    CHECK(ide_wait(), "no data");
    for (unsigned i = 0; i < 256; i++) ((uint16_t *)sectors[1])[i] = inw(0x1f0);
    CHECK(!memcmp(sectors[0], sectors[1], 512), "IN and REP INSW differ");
}
static void ide_write(void)
{
    ide_command(0, 1);
    CHECK(ide_wait(), "no data");
    void *p = sectors[0];
    unsigned long n = 128;
    __asm__ volatile("rep insl" : "+D"(p), "+c"(n) : "d"(0x1f0) : "memory");
    for (unsigned i = 0; i < 512; i++) sectors[0][i] = (uint8_t)(i * 13 + 5);
    ide_command(1000, 1);
    CHECK(ide_wait(), "no data");
    for (unsigned i = 0; i < 256; i++) inw(0x1f0);
    outb(0x1f2, 1);
    outb(0x1f3, 1000 & 0xff);
    outb(0x1f4, 1000 >> 8);
    outb(0x1f7, 0x30); /* write */
    CHECK(ide_wait(), "no request for data");
    p = sectors[0];
    n = 256;
    __asm__ volatile("rep outsw" : "+S"(p), "+c"(n) : "d"(0x1f0) : "memory");
    for (unsigned i = 0; i < 100000 && inb(0x1f7) & 0x80; i++)
        ;
    CHECK(!(inb(0x1f7) & 0x21), "status %x", inb(0x1f7));
    outb(0x1f2, 1);
    outb(0x1f3, 1000 & 0xff);
    outb(0x1f4, 1000 >> 8);
    outb(0x1f7, 0x20);
    CHECK(ide_wait(), "no data");
    p = sectors[1];
    n = 256;
    __asm__ volatile("rep insw" : "+D"(p), "+c"(n) : "d"(0x1f0) : "memory");
    CHECK(!memcmp(sectors[0], sectors[1], 512), "read back differently");
}

/* ---- breakpoints on ports ---------------------------------------------------------------------------------- */
static volatile unsigned hits;
static volatile uint64_t hit_dr6, hit_ip, hit_ax, hit_cx[8];
static void on_hit(struct frame *f)
{
    hit_dr6 = read_dr6();
    write_dr6(0xffff0ff0);
    hit_ip = f->ip;
    hit_ax = f->ax;
    hit_cx[hits++ & 7] = f->cx;
    f->flags &= ~0x100ul;
}
/* IN AL or AX from a port with this many #DBs (0 or 1), and with these bits of DR6. */
#define WATCHED_IN(width, port, n, bits)                                                                                    \
    do {                                                                                                                    \
        uint64_t got_ = 0, behind_;                                                                                         \
        hits = 0;                                                                                                           \
        __asm__ volatile("in" width "; 1: lea 1b(%%rip), %1" : "+a"(got_), "=r"(behind_) : "d"(port));                      \
        CHECK(hits == (n), "%u traps at port %x", hits, (unsigned)(port));                                                  \
        CHECK(!(n) || ((hit_dr6 & 0x400f) == (bits) && hit_ip == behind_ && hit_ax == got_),                                \
              "port %x: DR6 %llx, IP %llx not %llx, AX %llx not %llx", (unsigned)(port), (unsigned long long)hit_dr6,       \
              (unsigned long long)hit_ip, (unsigned long long)behind_, (unsigned long long)hit_ax,                          \
              (unsigned long long)got_);                                                                                    \
    } while (0)
#define IN8  "b %%dx, %%al"
#define IN16 "w %%dx, %%ax"
static void watched_ports(void)
{
    WATCHED_IN(IN8, 0x3fb, 1, 1); /* QEMU's */
    WATCHED_IN(IN8, 0x3fa, 0, 0);
    WATCHED_IN(IN16, 0x3fa, 1, 1); /* reaches into it */
    WATCHED_IN(IN8, 0x21, 1, 2);   /* the hypervisor's */
    WATCHED_IN(IN8, 0x20, 0, 0);
    WATCHED_IN(IN8, 0x1235, 1, 8); /* nobody's; aligned by LEN */
    hits = 0;
    outb(0x21, 0xff);
    CHECK(hits == 1 && (hit_dr6 & 0xf) == 2, "OUT: %u traps, DR6 %llx", hits, (unsigned long long)hit_dr6);
    hits = 0; /* single step too: one #DB tells both */
    __asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; inb %%dx, %%al" ::"d"(0x3fb) : "rax", "memory");
    CHECK(hits == 1 && (hit_dr6 & 0x400f) == 0x4001, "with TF: %u traps, DR6 %llx", hits, (unsigned long long)hit_dr6);
    hits = 0; /* a trap behind each item of a REP, the last one included */
    void *to = sectors[1];
    unsigned long n = 5;
    __asm__ volatile("rep insw" : "+D"(to), "+c"(n) : "d"(0x1f0) : "memory");
    CHECK(hits == 5 && (hit_dr6 & 0xf) == 4, "REP INSW: %u traps, DR6 %llx", hits, (unsigned long long)hit_dr6);
    for (unsigned i = 0; i < 5; i++) CHECK_EQ(hit_cx[i], 4 - i);
    CHECK(n == 0 && to == sectors[1] + 10, "registers after REP INSW");
    n = 0;
    __asm__ volatile("rep insw" : "+D"(to), "+c"(n) : "d"(0x1f0) : "memory");
    CHECK_EQ(hits, 5);
}
static void port_breakpoints(void)
{
    ide_command(0, 1);
    CHECK(ide_wait(), "no data");
    handlers[1] = on_hit;
    write_dr6(0xffff0ff0);
    write_cr4(read_cr4() | 8);
    write_dr0(0x3fb);
    write_dr1(0x21);
    write_dr2(0x1f0);
    write_dr3(0x1236);
    write_dr7(0x400 | 0x55 | 0xe6220000); /* all four by port; two and four of them for the last two */
    watched_ports();
    write_dr7(0x400);
    write_cr4(read_cr4() & ~8ul);
    if (failed()) return;
    for (unsigned i = 5; i < 256; i++) ((uint16_t *)sectors[1])[i] = inw(0x1f0);
    CHECK(sectors[1][510] == 0x55 && !memcmp(sectors[1], (void *)0x7c00, 64), "not our boot sector");
}

/* ---- VGA memory by every form ----------------------------------------------------------------------------- */
#define TEXT   ((volatile uint8_t *)0xb8000)
#define T16(o) (*(volatile uint16_t *)(0xb8000 + (o)))
#define T32(o) (*(volatile uint32_t *)(0xb8000 + (o)))
#define T64(o) (*(volatile uint64_t *)(0xb8000 + (o)))
static void vga_moves(void)
{
    TEXT[0] = 0x41;
    TEXT[1] = 0x1f;
    CHECK_EQ(T16(0), 0x1f41);
    T16(2) = 0x2e42;
    CHECK_EQ(T32(0), 0x2e421f41);
    T32(4) = 0x44434241;
    T64(8) = 0x8877665544332211;
    CHECK_EQ(T64(8), 0x8877665544332211);
    CHECK_EQ(T32(12), 0x88776655);
    CHECK_EQ(TEXT[15], 0x88);
    uint64_t v;
    __asm__ volatile("movzbl 0xb800f, %k0" : "=r"(v));
    CHECK_EQ(v, 0x88);
    __asm__ volatile("movsbq 0xb800f, %0" : "=r"(v));
    CHECK_EQ(v, 0xffffffffffffff88);
    __asm__ volatile("movzwl 0xb800e, %k0" : "=r"(v));
    CHECK_EQ(v, 0x8877);
    __asm__ volatile("movswq 0xb800e, %0" : "=r"(v));
    CHECK_EQ(v, 0xffffffffffff8877);
    __asm__ volatile("movslq 0xb800c, %0" : "=r"(v));
    CHECK_EQ(v, 0xffffffff88776655);
    __asm__ volatile("movb $0x77, 0xb8010; movw $0x1234, 0xb8012; movl $0x89abcdef, 0xb8014; movq $-2, 0xb8018" ::
                         : "memory");
    CHECK_EQ(TEXT[16], 0x77);
    CHECK_EQ(T16(18), 0x1234);
    CHECK_EQ(T32(20), 0x89abcdef);
    CHECK_EQ(T64(24), 0xfffffffffffffffe);
    v = 0x1111111111111111;
    __asm__ volatile("movb 0xb8010, %b0" : "+r"(v));
    CHECK_EQ(v, 0x1111111111111177);
    __asm__ volatile("mov 0xb8012, %%ah" : "=a"(v) : "a"(0x1111111111111111ul));
    CHECK_EQ(v, 0x1111111111113411);
    /* Across a page and not aligned. */
    T32(0xffe) = 0xa1b2c3d4;
    CHECK_EQ(T32(0xffe), 0xa1b2c3d4);
    CHECK_EQ(T16(0x1000), 0xa1b2);
    __asm__ volatile("movnti %0, 0xb8020" ::"r"(0x55667788) : "memory");
    CHECK_EQ(T32(0x20), 0x55667788);
}
#define RMW(code, before, after)                                                                                            \
    do {                                                                                                                    \
        T32(0x40) = (before);                                                                                               \
        __asm__ volatile(code ::: "rax", "rbx", "rcx", "rdx", "cc", "memory");                                              \
        CHECK(T32(0x40) == (after), code ": %x, not %x", T32(0x40), (uint32_t)(after));                                     \
    } while (0)
static void vga_read_modify_write(void)
{
    RMW("orl $0xf0, 0xb8040", 0x11223344u, 0x112233f4u);
    RMW("andw $0xff00, 0xb8040", 0x11223344u, 0x11223300u);
    RMW("xorb $0xff, 0xb8041", 0x11223344u, 0x1122cc44u);
    RMW("addl $1, 0xb8040", 0xffffffffu, 0u);
    RMW("stc; adcl $0, 0xb8040", 5u, 6u);
    RMW("subl $7, 0xb8040", 5u, 0xfffffffeu);
    RMW("stc; sbbl $1, 0xb8040", 5u, 3u);
    RMW("incl 0xb8040", 5u, 6u);
    RMW("decw 0xb8040", 0x10000u, 0x1ffffu);
    RMW("notl 0xb8040", 0x0f0f0f0fu, 0xf0f0f0f0u);
    RMW("negl 0xb8040", 1u, 0xffffffffu);
    RMW("btsl $4, 0xb8040", 0u, 0x10u);
    RMW("btrl $4, 0xb8040", 0x30u, 0x20u);
    RMW("btcl $31, 0xb8040", 0u, 0x80000000u);
    RMW("mov $0x99, %%eax; lock orl %%eax, 0xb8040", 0x100u, 0x199u);
    RMW("mov $0x12345678, %%eax; xchg %%eax, 0xb8040; mov %%eax, 0xb8044", 0x9abcdef0u, 0x12345678u);
    CHECK_EQ(T32(0x44), 0x9abcdef0);
    RMW("mov $5, %%eax; mov $9, %%ebx; lock cmpxchgl %%ebx, 0xb8040; setz 0xb8048", 5u, 9u);
    CHECK_EQ(TEXT[0x48], 1);
    RMW("mov $6, %%eax; mov $9, %%ebx; lock cmpxchgl %%ebx, 0xb8040; mov %%eax, 0xb8044", 5u, 5u);
    CHECK_EQ(T32(0x44), 5);
    RMW("mov $3, %%eax; lock xaddl %%eax, 0xb8040; mov %%eax, 0xb8044", 5u, 8u);
    CHECK_EQ(T32(0x44), 5);
    RMW("push $0x77; popq 0xb8040", 1u, 0x77u);
    uint64_t v;
    T32(0x40) = 0xcafe;
    T32(0x44) = 0;
    __asm__ volatile("pushq 0xb8040; pop %0" : "=r"(v));
    CHECK_EQ(v, 0xcafe);
    uint8_t z, c;
    __asm__ volatile("cmpl $0xcafe, 0xb8040; setz %0" : "=q"(z));
    __asm__ volatile("testl $1, 0xb8040; setz %0" : "=q"(c));
    CHECK(z == 1 && c == 1, "CMP, TEST: %u %u", z, c);
    __asm__ volatile("mov $0xcb00, %%eax; sub 0xb8040, %%eax; setz %0" : "=q"(z)::"rax");
    CHECK_EQ(z, 0);
    __asm__ volatile("btl $3, 0xb8040; setc %0" : "=q"(c));
    CHECK_EQ(c, 1);
    RMW("shll $4, 0xb8040", 0x11u, 0x110u);
    RMW("rorb $1, 0xb8040", 1u, 0x80u);
    T32(0x40) = 7;
    __asm__ volatile("imul $3, 0xb8040, %k0" : "=r"(v));
    CHECK_EQ(v, 21);
}
static void vga_strings(void)
{
    static uint8_t ram[256], back[256];
    for (unsigned i = 0; i < 256; i++) ram[i] = (uint8_t)(i ^ 0x5c);
    volatile void *to = TEXT + 0x100;
    const void *from = ram;
    unsigned long n = 32;
    __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n)::"memory");
    CHECK(n == 0 && to == TEXT + 0x200 && from == ram + 256, "registers after REP MOVSQ");
    to = back;
    from = (void *)(TEXT + 0x100);
    n = 64;
    __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(n)::"memory");
    CHECK(!memcmp(ram, back, 256), "there and back differ");
    to = TEXT + 0x200 + 63; /* backwards */
    from = ram + 63;
    n = 64;
    __asm__ volatile("std; rep movsb; cld" : "+D"(to), "+S"(from), "+c"(n)::"memory");
    CHECK(to == TEXT + 0x1ff, "RDI after a backward REP MOVSB");
    for (unsigned i = 0; i < 64; i++) CHECK(TEXT[0x200 + i] == ram[i], "byte %u", i);
    to = TEXT + 0x300;
    n = 50;
    __asm__ volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(0x1f20) : "memory");
    CHECK(T16(0x300) == 0x1f20 && T16(0x300 + 98) == 0x1f20 && to == TEXT + 0x364, "REP STOSW");
    to = TEXT + 0x300;
    n = 100;
    TEXT[0x310] = 0x55;
    __asm__ volatile("mov $0x55, %%eax; repne scasb" : "+D"(to), "+c"(n)::"rax", "cc", "memory");
    CHECK(to == TEXT + 0x311 && n == 100 - 17, "REPNE SCASB: %lu left", n);
    to = TEXT + 0x100;
    from = ram;
    n = 256;
    TEXT[0x100 + 77]++;
    __asm__ volatile("repe cmpsb" : "+D"(to), "+S"(from), "+c"(n)::"cc", "memory");
    CHECK(n == 256 - 78, "REPE CMPSB: %lu left", n);
    from = (void *)(TEXT + 0x100);
    uint64_t ax = 0;
    __asm__ volatile("lodsl" : "+S"(from), "+a"(ax)::"memory");
    CHECK_EQ(ax, *(uint32_t *)ram);
    n = 0;
    to = TEXT;
    from = ram;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory"); /* nothing */
    CHECK(to == TEXT && from == ram, "REP with RCX 0");
    /* VGA to VGA, overlapping upwards: the first byte goes everywhere. */
    TEXT[0x400] = 0x3c;
    to = TEXT + 0x401;
    from = (void *)(TEXT + 0x400);
    n = 40;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
    for (unsigned i = 0; i <= 40; i++) CHECK(TEXT[0x400 + i] == 0x3c, "overlapping: byte %u is %x", i, TEXT[0x400 + i]);
}
static void vga_sse(void)
{
    static const uint8_t pattern[16] __attribute__((aligned(16))) = "0123456789abcde";
    static uint8_t back[16] __attribute__((aligned(16)));
    __asm__ volatile(
        "movdqa (%0), %%xmm3; movdqu %%xmm3, 0xb8100; movdqu 0xb8100, %%xmm4; movdqa %%xmm4, (%1)" ::"r"(pattern), "r"(back)
        : "memory");
    CHECK(!memcmp(pattern, back, 16), "MOVDQU");
    memset(back, 0, 16);
    __asm__ volatile("movaps %%xmm3, 0xb8110; movaps 0xb8110, %%xmm5; movdqa %%xmm5, (%0)" ::"r"(back) : "memory");
    CHECK(!memcmp(pattern, back, 16), "MOVAPS");
    uint64_t v;
    __asm__ volatile("movq %%xmm3, 0xb8120; movq 0xb8120, %%xmm6; movq %%xmm6, %0" : "=r"(v));
    CHECK_EQ(v, *(const uint64_t *)pattern);
}
static void lapic_read_modify_write(void)
{
    volatile uint32_t *tpr = (uint32_t *)0xfee00080;
    *tpr = 0x10;
    __asm__ volatile("orl $0x20, (%0)" ::"r"(tpr) : "memory", "cc");
    CHECK_EQ(*tpr, 0x30);
    __asm__ volatile("addl $0x10, (%0)" ::"r"(tpr) : "memory", "cc");
    CHECK_EQ(read_cr8(), 4);
    uint32_t v = 0x70;
    __asm__ volatile("xchg %0, (%1)" : "+r"(v) : "r"(tpr) : "memory");
    CHECK_EQ(v, 0x40);
    CHECK_EQ(read_cr8(), 7);
    __asm__ volatile("andl $0, (%0)" ::"r"(tpr) : "memory", "cc");
    CHECK_EQ(*tpr, 0);
}

const struct test tests[] = {
    { "pci_config", pci_config },
    { "ports_unclaimed", ports_unclaimed },
    { "vga_registers", vga_registers },
    { "ide_rep_ins", ide_rep_ins },
    { "ide_write", ide_write },
    { "port_breakpoints", port_breakpoints },
    { "vga_moves", vga_moves },
    { "vga_read_modify_write", vga_read_modify_write },
    { "vga_strings", vga_strings },
    { "vga_sse", vga_sse },
    { "lapic_read_modify_write", lapic_read_modify_write },
    { 0 },
};
