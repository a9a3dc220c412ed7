/* irqs.c: interrupt lines from their source to the handler: 8259 and IOAPIC, edge and level, ELCR, PCI INTx through the
 * PIIX router, one line shared by two devices, NMI, polling and spurious requests. The line that a test moves is the Xen
 * platform device's: its level is that of an event channel's upcall. 64-bit code. */
#include "board.h"
#include <xen/xen.h>
#include <xen/event_channel.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/memory.h>

#define DEV      5 /* a slot where nothing is: no device of QEMU's drives its pins */
#define PIN      1 /* INTB# */
#define LINK     ((DEV + PIN) & 3)
#define INTX_GSI (16 + ((DEV * 4 + DEV / 8 + PIN) & 31))

static volatile struct shared_info *const info = (struct shared_info *)0xb00000;
static evtchn_port_t port;

/* ---- the line ------------------------------------------------------------------------------------- */
static long set_callback(uint64_t value)
{
    struct xen_hvm_param via = { .domid = DOMID_SELF, .index = HVM_PARAM_CALLBACK_IRQ, .value = value };
    return hypercall(__HYPERVISOR_hvm_op, HVMOP_set_param, (unsigned long)&via, 0, 0, 0);
}
/* The line is DEV's INTB# (or GSI gsi), and low. */
static bool line_is(unsigned gsi)
{
    if (!port) {
        struct xen_add_to_physmap a = { .domid = DOMID_SELF, .space = XENMAPSPACE_shared_info, .gpfn = 0xb00 };
        struct evtchn_bind_ipi ipi = { .vcpu = 0 };
        if (hypercall(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, (unsigned long)&a, 0, 0, 0) ||
            hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_bind_ipi, (unsigned long)&ipi, 0, 0, 0))
            return false;
        port = ipi.port;
        info->evtchn_mask[port / 64] &= ~(1ull << port % 64);
    }
    return !set_callback(gsi ? gsi : 1ull << 56 | DEV << 11 | PIN);
}
static void raise(void)
{
    struct evtchn_send send = { .port = port };
    hypercall(__HYPERVISOR_event_channel_op, EVTCHNOP_send, (unsigned long)&send, 0, 0, 0);
}
static void lower(void)
{
    info->vcpu_info[0].evtchn_upcall_pending = 0;
    info->vcpu_info[0].evtchn_pending_sel = 0;
    info->evtchn_pending[port / 64] &= ~(1ull << port % 64);
}

/* volatile: GCC takes window() not to change a static that only handlers write. */
static volatile unsigned came,
    keep_high; /* how often the handler came; it lowers the line unless keep_high times are left */
static void on_apic(struct frame *f)
{
    (void)f;
    came++;
    if (keep_high)
        keep_high--;
    else
        lower();
    APIC(0xb0) = 0;
}
static volatile unsigned pic_vector, pic_isr;
static void on_pic(struct frame *f)
{
    came++;
    pic_vector = f->vector & 0xff;
    uint16_t chip = pic_vector < 0x28 ? 0x20 : 0xa0;
    outb(chip, 0x0b);
    pic_isr = inb(chip);
    if (keep_high)
        keep_high--;
    else
        lower();
    if (chip == 0xa0) outb(0xa0, 0x20);
    outb(0x20, 0x20);
}
static void start(void)
{
    lapic_reset();
    for (unsigned v = 0x40; v < 0x60; v++) handlers[v] = on_apic;
    for (unsigned v = 0x20; v < 0x30; v++) handlers[v] = on_pic;
    for (unsigned pin = 0; pin < 24; pin++) route(pin, MASKED);
    pic_reset();
    came = keep_high = 0;
    pic_vector = 0;
}
static void pic_heard(bool on) { APIC(0x350) = on ? 0x700 : MASKED; }

/* PIRQRC A to D of the PIIX's function 0 (00:01.0): an ISA IRQ, or bit 7: not connected. */
static void pirq(unsigned link, uint8_t irq)
{
    pci_select(1 << 3, 0x60);
    outb((uint16_t)(0xcfc + link), irq);
}
static uint8_t pirq_read(unsigned link)
{
    pci_select(1 << 3, 0x60);
    return inb((uint16_t)(0xcfc + link));
}

/* ---- 8259 ------------------------------------------------------------------------------------------ */
static void elcr_registers(void)
{
    start();
    outb(0x4d0, 0xff);
    outb(0x4d1, 0xff);
    uint8_t a = inb(0x4d0), b = inb(0x4d1);
    outb(0x4d0, 0);
    outb(0x4d1, 0);
    CHECK_EQ(a, 0xf8); /* not the timer, the keyboard, the cascade */
    CHECK_EQ(b, 0xde); /* not the RTC, the FPU */
    CHECK_EQ(inb(0x4d0), 0);
    CHECK_EQ(inb(0x4d1), 0);
}
/* Edge: one request a rise, however long the line stays high. */
static void pic_edge(void)
{
    start();
    CHECK(line_is(5), "no line");
    pic_heard(true);
    outb(0x21, 0xdb);
    keep_high = 1;
    raise();
    window();
    window();
    unsigned first = came;
    lower();
    cpuid(0, 0);
    line_is(5); /* the level is looked at */
    raise();
    window();
    unsigned second = came;
    outb(0x21, 0xff);
    pic_heard(false);
    lower();
    CHECK_EQ(first, 1);
    CHECK_EQ(second, 2);
    CHECK_EQ(pic_vector, 0x25);
    CHECK_EQ(pic_isr, 0x20);
}
/* Level: again and again until the source is quiet. */
static void pic_level(void)
{
    start();
    CHECK(line_is(11), "no line");
    outb(0x4d1, 8);
    pic_heard(true);
    outb(0xa1, 0xf7);
    keep_high = 2;
    raise();
    for (unsigned i = 0; i < 6; i++) window();
    unsigned n = came, vector = pic_vector, isr = pic_isr;
    outb(0xa0, 0x0a);
    uint8_t request = inb(0xa0);
    outb(0xa1, 0xff);
    outb(0x4d1, 0);
    pic_heard(false);
    CHECK_EQ(n, 3);
    CHECK_EQ(vector, 0x2b);
    CHECK_EQ(isr, 8);
    CHECK_EQ(request & 8, 0);
}
/* A level that goes away before it is taken leaves no request. */
static void pic_level_gone(void)
{
    start();
    CHECK(line_is(10), "no line");
    outb(0x4d1, 4);
    outb(0xa1, 0xfb);
    raise();
    outb(0xa0, 0x0a);
    uint8_t up = inb(0xa0);
    lower();
    line_is(10);
    outb(0xa0, 0x0a);
    uint8_t down = inb(0xa0);
    pic_heard(true);
    window();
    pic_heard(false);
    outb(0xa1, 0xff);
    outb(0x4d1, 0);
    CHECK_EQ(up & 4, 4);
    CHECK_EQ(down & 4, 0);
    CHECK_EQ(came, 0);
}
/* Poll command: the answer to a request, and 7 without one. */
static void pic_poll(void)
{
    start();
    CHECK(line_is(5), "no line");
    outb(0x21, 0xdb);
    outb(0x20, 0x0c);
    uint8_t none = inb(0x20);
    raise();
    outb(0x20, 0x0c);
    uint8_t one = inb(0x20);
    outb(0x20, 0x0b);
    uint8_t isr = inb(0x20);
    outb(0x20, 0x65); /* specific EOI of 5 */
    uint8_t after = inb(0x20);
    lower();
    outb(0x21, 0xff);
    CHECK_EQ(none & 0x80, 0);
    CHECK_EQ(one, 0x85);
    CHECK_EQ(isr, 0x20);
    CHECK_EQ(after, 0);
}
/* The mask holds a request back, special mask mode lets lower ones through, automatic EOI leaves no ISR. */
static void pic_modes(void)
{
    start();
    CHECK(line_is(5), "no line");
    pic_heard(true);
    raise();
    window();
    unsigned masked = came;
    outb(0x20, 0x0a);
    uint8_t request = inb(0x20);
    outb(0x21, 0xdb);
    window();
    CHECK_EQ(masked, 0);
    CHECK(request & 0x20, "no request while masked: %x", request);
    CHECK_EQ(came, 1);
    outb(0x20, 0x11); /* automatic EOI */
    outb(0x21, 0x20);
    outb(0x21, 4);
    outb(0x21, 3);
    outb(0x21, 0xdb);
    lower();
    line_is(5);
    raise();
    window();
    unsigned n = came, isr = pic_isr;
    pic_heard(false);
    outb(0x21, 0xff);
    lower();
    CHECK_EQ(n, 2);
    CHECK_EQ(isr, 0);
}

/* ---- PCI INTx --------------------------------------------------------------------------------------- */
static void intx_router(void)
{
    start();
    CHECK(line_is(0), "no line");
    uint8_t kept = pirq_read(LINK);
    static const uint8_t to[] = { 5, 10, 11, 7 };
    unsigned vectors[4], n[4];
    pic_heard(true);
    for (unsigned i = 0; i < 4; i++) {
        pirq(LINK, to[i]);
        if (pirq_read(LINK) != to[i]) fail("PIRQRC reads %x, not %x", pirq_read(LINK), to[i]);
        outb((uint16_t)(0x4d0 + to[i] / 8), (uint8_t)(1u << to[i] % 8));
        outb(0x21, (uint8_t) ~(4u | (to[i] < 8 ? 1u << to[i] : 0)));
        outb(0xa1, (uint8_t) ~(to[i] >= 8 ? 1u << (to[i] - 8) : 0));
        came = pic_vector = 0;
        raise();
        window();
        window();
        n[i] = came;
        vectors[i] = pic_vector;
        outb((uint16_t)(0x4d0 + to[i] / 8), 0);
    }
    /* Moved while it is high, as ACPI's _SRS does; not connected at all. */
    outb(0x4d1, 0x0c);
    outb(0x21, 0xfb);
    outb(0xa1, 0xf3);
    pirq(LINK, 10);
    came = 0;
    raise();
    pirq(LINK, 11);
    window();
    window();
    unsigned moved = came, moved_to = pic_vector;
    pirq(LINK, 0x80);
    came = 0;
    raise();
    window();
    unsigned cut = came;
    lower();
    pic_heard(false);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    outb(0x4d1, 0);
    pirq(LINK, kept);
    for (unsigned i = 0; i < 4; i++)
        CHECK(n[i] == 1 && vectors[i] == 0x20u + to[i], "to IRQ %u: %u interrupts, vector %x", to[i], n[i], vectors[i]);
    CHECK(moved == 1 && moved_to == 0x2b, "moved while high: %u interrupts, vector %x", moved, moved_to);
    CHECK_EQ(cut, 0);
}
static void intx_ioapic_level(void)
{
    start();
    CHECK(line_is(0), "no line");
    CHECK(INTX_GSI <= (io_read(1) >> 16 & 0xff), "no pin %u", INTX_GSI);
    route(INTX_GSI, LEVEL | 0x50);
    keep_high = 2;
    raise();
    uint32_t before = io_read(0x10 + 2 * INTX_GSI); /* Remote IRR: a LAPIC has it */
    for (unsigned i = 0; i < 6; i++) window();
    unsigned n = came;
    uint32_t rte = io_read(0x10 + 2 * INTX_GSI);
    /* Masked while high: nothing; unmasked: it is still asserted. */
    route(INTX_GSI, MASKED | LEVEL | 0x50);
    raise();
    window();
    unsigned masked = came - n;
    route(INTX_GSI, LEVEL | 0x50);
    window();
    unsigned unmasked = came - n;
    route(INTX_GSI, MASKED);
    CHECK_EQ(n, 3);
    CHECK(before & 0x4000, "no Remote IRR: %x", before);
    CHECK(!(rte & 0x4000), "Remote IRR stays: %x", rte);
    CHECK_EQ(masked, 0);
    CHECK_EQ(unmasked, 1);
}
static void ioapic_edge(void)
{
    start();
    CHECK(line_is(11), "no line");
    route(11, 0x51);
    keep_high = 1;
    raise();
    window();
    window();
    unsigned first = came;
    lower();
    line_is(11);
    /* A rise while masked is lost, as on the 82093AA; the next one is not. */
    route(11, MASKED | 0x51);
    raise();
    window();
    lower();
    line_is(11);
    route(11, 0x51);
    window();
    unsigned masked = came;
    raise();
    window();
    route(11, MASKED);
    lower();
    CHECK_EQ(first, 1);
    CHECK_EQ(masked, 1);
    CHECK_EQ(came, 2);
}
/* Two sources on one level-triggered pin, ours and the HPET's: it is quiet only when both are. */
static unsigned shared_timer;
static void on_shared(struct frame *f)
{
    (void)f;
    came++;
    lower();
    if (came == 3) /* until here the HPET alone holds the line */
        HPET(0x20) = 1ull << shared_timer;
    APIC(0xb0) = 0;
}
static void shared_level(void)
{
    start();
    handlers[0x52] = on_shared;
    unsigned pin = 0;
    for (shared_timer = 0; shared_timer < 3; shared_timer++) {
        uint32_t routes = (uint32_t)(HPET(0x100 + 0x20 * shared_timer) >> 32) & 0xff0000;
        if (routes) {
            pin = 31 - (unsigned)__builtin_clz(routes);
            break;
        }
    }
    if (!pin) {
        skip("no HPET route above 15");
        return;
    }
    CHECK(line_is(pin), "no line");
    uint64_t period = HPET(0) >> 32;
    HPET(0x10) = 0;
    HPET(0xf0) = 0;
    HPET(0x100 + 0x20 * shared_timer) = (uint64_t)pin << 9 | 4 | 2; /* level */
    HPET(0x108 + 0x20 * shared_timer) = 1000000000000ull / period;  /* 1 ms */
    HPET(0x10) = 1;
    delay_us(5000);
    raise(); /* both are high now */
    route(pin, LEVEL | 0x52);
    for (unsigned i = 0; i < 6; i++) window();
    unsigned n = came;
    raise(); /* and ours alone, once more */
    window();
    window();
    HPET(0x10) = 0;
    HPET(0x100 + 0x20 * shared_timer) = 0;
    HPET(0x20) = 1ull << shared_timer;
    route(pin, MASKED);
    CHECK_EQ(n, 3);
    CHECK_EQ(came, 4);
}

/* ---- NMI ------------------------------------------------------------------------------------------- */
static volatile unsigned nested, inside;
static void on_nmi(struct frame *f)
{
    (void)f;
    came++;
    nested++;
    if (nested > 1) inside++;
    if (came == 1) { /* one more, from in here: it waits for the IRET */
        APIC(0x310) = APIC(0x20);
        APIC(0x300) = 0x4400;
        cpuid(0, 0);
        (void)inb(0x3d5);
    }
    nested--;
}
static void nmi_nesting(void)
{
    start();
    handlers[2] = on_nmi;
    nested = inside = 0;
    APIC(0x310) = APIC(0x20);
    APIC(0x300) = 0x4400;
    uint64_t from = rdtsc();
    while (came < 2 && us_since(from) < 500000) pause();
    CHECK_EQ(came, 2);
    CHECK_EQ(inside, 0);
}
/* The watchdog's way: the timer as NMI through LINT0, the IOAPIC's pin in NMI mode. */
static void on_nmi_count(struct frame *f)
{
    (void)f;
    came++;
}
static void nmi_from_timer(void)
{
    start();
    handlers[2] = on_nmi_count;
    outb(0x43, 0x34);
    outb(0x40, 0x9c); /* 100 Hz */
    outb(0x40, 0x2e);
    route(2, 0x400);
    uint64_t from = rdtsc();
    while (came < 5 && us_since(from) < 2000000) pause(); /* interrupts are off */
    route(2, MASKED);
    uint64_t us = us_since(from);
    CHECK(came >= 5, "%u NMIs in %llu us", came, (unsigned long long)us);
    CHECK(us > 35000, "5 NMIs in %llu us", (unsigned long long)us);
}
/* A TPR that rises over a request: it stays in IRR and comes when the TPR falls; the spurious vector never has an ISR. */
static void tpr_holds(void)
{
    start();
    CHECK(line_is(0), "no line");
    route(INTX_GSI, LEVEL | 0x50);
    APIC(0x80) = 0x50;
    raise();
    window();
    unsigned held = came;
    bool waits = APIC(0x200 + 0x20) >> 16 & 1;
    APIC(0x80) = 0x40;
    window();
    unsigned then = came;
    APIC(0x80) = 0;
    route(INTX_GSI, MASKED);
    CHECK_EQ(held, 0);
    CHECK(waits, "not in IRR");
    CHECK_EQ(then, 1);
    CHECK_EQ(counts[0xff], 0);
}

const struct test tests[] = {
    { "elcr_registers", elcr_registers },
    { "pic_edge", pic_edge },
    { "pic_level", pic_level },
    { "pic_level_gone", pic_level_gone },
    { "pic_poll", pic_poll },
    { "pic_modes", pic_modes },
    { "intx_router", intx_router },
    { "intx_ioapic_level", intx_ioapic_level },
    { "ioapic_edge", ioapic_edge },
    { "shared_level", shared_level },
    { "nmi_nesting", nmi_nesting },
    { "nmi_from_timer", nmi_from_timer },
    { "tpr_holds", tpr_holds }, /* hangs the guest under Xen on QEMU */
    { 0 },
};
