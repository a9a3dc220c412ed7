/* smp.c: two CPUs: INIT-SIPI, IPIs of every kind, and state that is each CPU's own. */
#include "board.h"

#define EOI  0xb0
#define ICR  0x300
#define ICR2 0x310
extern char ap_blob[], ap_blob_end[];
static char stack[16384] __attribute__((aligned(16)));
uint32_t ap_stack;

static volatile unsigned ap_starts, ap_done;
static void (*volatile ap_job)(void);
static volatile unsigned irqs[2], nmis[2];
static volatile uint32_t ap_id, ap_cpuid_id, ap_vcpu_id;
static volatile uint64_t ap_base;

static unsigned me(void) { return APIC(0x20) >> 24 ? 1 : 0; }
static void on_irq(struct frame *f)
{
    (void)f;
    __atomic_add_fetch(&irqs[me()], 1, __ATOMIC_SEQ_CST);
    APIC(EOI) = 0;
}
static void on_nmi(struct frame *f)
{
    (void)f;
    nmis[me()]++;
}
static void on_cpu1(void) /* a job: the next one is awaited in ap_main */ {}
void ap_main(void)
{
    lapic_reset();
    ap_id = APIC(0x20) >> 24;
    ap_cpuid_id = cpuid(1, 0).b >> 24;
    ap_vcpu_id = cpuid(xen_base + 4, 0).b;
    ap_base = rdmsr(0x1b);
    ap_starts++;
    for (;;) {
        while (!ap_job) pause();
        void (*job)(void) = ap_job;
        job();
        ap_job = NULL;
        ap_done++;
    }
}
static void send(uint32_t icr)
{
    while (APIC(ICR) & 0x1000) pause();
    APIC(ICR2) = ap_id << 24;
    APIC(ICR) = icr;
}
static bool start(void)
{
    unsigned before = ap_starts;
    ap_job = NULL;
    ap_stack = (uint32_t)(unsigned long)stack + sizeof stack;
    memcpy((void *)0x8000, ap_blob, (size_t)(ap_blob_end - ap_blob));
    APIC(ICR) = 0xc4500; /* INIT to all but self */
    delay_us(200);
    APIC(ICR) = 0xc4608; /* SIPI, page 8 */
    delay_us(200);
    APIC(ICR) = 0xc4608;
    return wait_for(&ap_starts, before + 1, 5000000);
}
static bool run(void (*job)(void))
{
    ap_done = 0;
    ap_job = job;
    return true;
}
static bool finished(void) { return wait_for(&ap_done, 1, 5000000); }
static void setup(void)
{
    lapic_reset();
    irqs[0] = irqs[1] = nmis[0] = nmis[1] = 0;
    handlers[0x50] = handlers[0x51] = on_irq;
    handlers[2] = on_nmi;
}

static void ap_first_start(void)
{
    setup();
    delay_us(5000);
    CHECK_EQ(ap_starts, 0); /* waits for SIPI */
    CHECK(start(), "the second CPU does not start");
    CHECK(ap_id && ap_id == ap_cpuid_id, "APIC id %x, by CPUID %x", ap_id, ap_cpuid_id);
    CHECK_EQ(ap_vcpu_id, 1);
    CHECK(!(ap_base & 0x100) && rdmsr(0x1b) & 0x100, "BSP bits: %llx %llx", (unsigned long long)ap_base,
          (unsigned long long)rdmsr(0x1b));
    CHECK_EQ(ap_starts, 1); /* the second SIPI was ignored */
    run(on_cpu1);
    CHECK(finished(), "no job done");
}
static void ap_restart(void)
{
    setup();
    unsigned before = ap_starts;
    CHECK(start(), "no second start");
    CHECK_EQ(ap_starts, before + 1);
    run(on_cpu1);
    CHECK(finished(), "no job done");
    send(0x4500); /* INIT alone: it stops */
    delay_us(1000);
    run(on_cpu1);
    CHECK(!wait_for(&ap_done, 1, 50000), "goes on after INIT");
    CHECK(start(), "no third start");
}

static void job_hlt(void)
{
    while (irqs[1] < 1) __asm__ volatile("sti; hlt; cli" ::: "memory");
}
static void job_spin(void)
{
    while (irqs[1] < 1) __asm__ volatile("sti; pause; cli" ::: "memory");
}
static void ipi_to_halted(void)
{
    setup();
    run(job_hlt);
    delay_us(20000);
    CHECK_EQ(irqs[1], 0);
    send(0x50);
    CHECK(finished(), "HLT does not end");
    CHECK(irqs[1] == 1 && irqs[0] == 0, "%u %u", irqs[0], irqs[1]);
}
static void ipi_to_running(void)
{
    setup();
    run(job_spin);
    delay_us(20000);
    APIC(ICR) = 0xc0050; /* all but self */
    CHECK(finished(), "it does not come");
    CHECK(irqs[1] == 1 && irqs[0] == 0, "%u %u", irqs[0], irqs[1]);
}
static void ipi_logical(void)
{
    setup();
    run(job_spin);
    delay_us(1000);
    APIC(0xd0) = 0x01000000;
    APIC(ICR2) = 0x03000000; /* flat: everybody whose LDR has one of these bits, only this CPU */
    APIC(ICR) = 0x850;
    delay_us(2000);
    __asm__ volatile("sti; nop; nop; cli");
    CHECK(irqs[0] == 1 && irqs[1] == 0, "%u %u", irqs[0], irqs[1]);
    APIC(ICR) = 0x80050; /* all */
    CHECK(finished(), "it does not come");
    __asm__ volatile("sti; nop; nop; cli");
    CHECK(irqs[0] == 2 && irqs[1] == 1, "%u %u", irqs[0], irqs[1]);
}

#define ROUNDS 200u
static void job_pong(void)
{
    for (unsigned i = 1; i <= ROUNDS; i++) {
        while (irqs[1] < i) __asm__ volatile("sti; hlt; cli" ::: "memory");
        APIC(ICR2) = 0;
        APIC(ICR) = 0x50;
    }
}
static void ipi_ping_pong(void)
{
    setup();
    run(job_pong);
    uint64_t end = rdtsc() + 20 * tsc_hz();
    for (unsigned i = 1; i <= ROUNDS; i++) {
        send(0x50);
        APIC(0x320) = 0x51; /* a timer, so that a lost answer does not hang the test */
        APIC(0x3e0) = 0xb;
        APIC(0x380) = 1000000000;
        unsigned before = counts[0x51];
        while (irqs[0] < i && counts[0x51] == before && rdtsc() < end) __asm__ volatile("sti; hlt; cli" ::: "memory");
        APIC(0x380) = 0;
        CHECK(counts[0x51] == before && irqs[0] == i, "lost in round %u: %u and %u came", i, irqs[0], irqs[1]);
    }
    CHECK(finished(), "the other side did not end");
    CHECK(irqs[1] == ROUNDS, "%u of %u", irqs[1], ROUNDS);
}
static void job_nmi(void)
{
    while (nmis[1] < 1) __asm__ volatile("hlt" ::: "memory");
}
static void ipi_nmi(void)
{
    setup();
    run(job_nmi);
    delay_us(10000);
    send(0x400);
    CHECK(finished(), "NMI does not end HLT");
    CHECK(nmis[1] == 1 && nmis[0] == 0, "%u %u", nmis[0], nmis[1]);
    run(on_cpu1);
    CHECK(finished(), "no job done after an NMI");
}

/* Each CPU its own XMM, ST, MXCSR, DR0 and FS base through switches between them. */
static volatile unsigned wrong[2];
static void own_state(unsigned cpu)
{
    static uint8_t in[2][512] __attribute__((aligned(16))), out[2][512] __attribute__((aligned(16)));
    __asm__ volatile("fninit; fxsave (%0)" ::"r"(in[cpu]) : "memory");
    for (unsigned i = 0; i < 256; i++) in[cpu][160 + i] = (uint8_t)(i * 3 + cpu * 101 + 1);
    for (unsigned i = 0; i < 128; i++)
        if (i % 16 < 8) in[cpu][32 + i] = (uint8_t)(i + cpu * 77);
    *(uint32_t *)(in[cpu] + 24) = cpu ? 0x1f80 : 0x1fa0;
    __asm__ volatile("fxrstor (%0)" ::"r"(in[cpu]) : "memory");
    write_dr0(0x1000ul + cpu);
    wrmsr(0xc0000100, 0x123456000ul + cpu);
    wrmsr(0xc0000102, 0x654321000ul + cpu);
    for (unsigned i = 0; i < 100; i++) {
        inb(0x3fb); /* dom0 */
        pause();    /* perhaps the other CPU */
        __asm__ volatile("fxsave (%0)" ::"r"(out[cpu]) : "memory");
        if (memcmp(in[cpu] + 160, out[cpu] + 160, 256)) wrong[cpu] |= 1;
        for (unsigned r = 0; r < 8; r++)
            if (memcmp(in[cpu] + 32 + 16 * r, out[cpu] + 32 + 16 * r, 8)) wrong[cpu] |= 2;
        if (*(uint32_t *)(out[cpu] + 24) != *(uint32_t *)(in[cpu] + 24)) wrong[cpu] |= 4;
        if (read_dr0() != 0x1000ul + cpu) wrong[cpu] |= 8;
        if (rdmsr(0xc0000100) != 0x123456000ul + cpu || rdmsr(0xc0000102) != 0x654321000ul + cpu) wrong[cpu] |= 16;
    }
    write_dr0(0);
    wrmsr(0xc0000100, 0);
    wrmsr(0xc0000102, 0);
    __asm__ volatile("fninit");
}
static void job_own_state(void) { own_state(1); }
static void state_apart(void)
{
    setup();
    wrong[0] = wrong[1] = 0;
    run(job_own_state);
    own_state(0);
    CHECK(wait_for(&ap_done, 1, 30000000), "the other CPU did not end");
    CHECK(!wrong[0] && !wrong[1], "changed (1 XMM, 2 ST, 4 MXCSR, 8 DR, 16 MSR): %x %x", wrong[0], wrong[1]);
}

static volatile unsigned turn, backwards;
static volatile uint64_t last_tsc;
static void take_turns(unsigned cpu)
{
    for (unsigned i = 0; i < 100; i++) {
        while (turn != cpu) pause();
        uint64_t now = rdtsc();
        if (now < last_tsc) backwards++;
        last_tsc = now;
        turn = !cpu;
    }
}
static void job_turns(void) { take_turns(1); }
static void tsc_agrees(void)
{
    setup();
    turn = backwards = 0;
    last_tsc = 0;
    run(job_turns);
    take_turns(0);
    CHECK(finished(), "the other CPU did not end");
    CHECK_EQ(backwards, 0);
}
static volatile uint64_t counter;
static void count_up(void)
{
    for (unsigned i = 0; i < 200000; i++) __asm__ volatile("lock incq %0" : "+m"(counter)::"cc");
}
static void atomic_memory(void)
{
    setup();
    counter = 0;
    run(count_up);
    count_up();
    CHECK(finished(), "the other CPU did not end");
    CHECK_EQ(counter, 400000);
}

const struct test tests[] = {
    { "ap_first_start", ap_first_start },
    { "ap_restart", ap_restart },
    { "ipi_to_halted", ipi_to_halted },
    { "ipi_to_running", ipi_to_running },
    { "ipi_logical", ipi_logical },
    { "ipi_ping_pong", ipi_ping_pong },
    { "ipi_nmi", ipi_nmi },
    { "state_apart", state_apart },
    { "tsc_agrees", tsc_agrees },
    { "atomic_memory", atomic_memory },
    { 0 },
};
