/* cards.c: PCI and ISA cards that QEMU emulates, as old drivers use them: USB 1.1 with a tablet, three sound cards,
 * rtl8139 and e1000. Each is found, given memory by DMA, and interrupts: PCI lines by level through the IOAPIC, several
 * cards on one line. 64-bit code. */
#include "board.h"

static uint8_t data[2][16384] __attribute__((aligned(4096)));
static uint32_t low(const volatile void *p) { return (uint32_t)(unsigned long)p; }

/* The card under test: its interrupt's vector is 0x50, and `quiet` makes it take its line back. */
static void (*quiet)(void);
static volatile unsigned came;
static void on_card(struct frame *f)
{
    (void)f;
    came++;
    quiet();
    APIC(0xb0) = 0;
}
static void hear(unsigned gsi, void (*fn)(void))
{
    for (unsigned pin = 0; pin < 48; pin++) route(pin, MASKED);
    lapic_reset();
    handlers[0x50] = on_card;
    quiet = fn;
    came = 0;
    route(gsi, (gsi < 16 ? 0 : LEVEL) | 0x50);
}
static void deaf(unsigned gsi)
{
    route(gsi, MASKED);
    window();
}
static bool wait_came(unsigned n, unsigned us)
{
    uint64_t from = rdtsc();
    while (came < n && us_since(from) < us) window();
    return came >= n;
}

/* ---- UHCI: descriptors and the address of the tablet --------------------------------------------------- */
struct transfer { /* a TD (UHCI 1.1, 3.2) */
    volatile uint32_t next, status, token, at;
    uint32_t ours[4];
};
struct queue {
    volatile uint32_t next, element;
    uint32_t ours[6];
};
static uint32_t frames[1024] __attribute__((aligned(4096)));
static struct transfer td[8] __attribute__((aligned(32)));
static struct queue queue __attribute__((aligned(32)));
static uint16_t usb;
static volatile uint16_t usb_seen;
static bool usb_slow;
static void usb_quiet(void)
{
    uint16_t status = inw((uint16_t)(usb + 2));
    usb_seen |= status;
    outw((uint16_t)(usb + 2), status);
}
/* A control transfer: the request, up to 40 bytes of answer, the handshake. The answer's length, or -1. */
static int control(unsigned address, const uint8_t *request, unsigned length, uint8_t *answer)
{
    unsigned n = 0, toggle = 0;
    uint32_t common = 3u << 27 | (uint32_t)usb_slow << 26 | 1u << 23;
    td[n++] = (struct transfer){ .status = common, .token = 7u << 21 | address << 8 | 0x2d, .at = low(request) };
    for (unsigned at = 0; at < length; at += 8) {
        unsigned part = length - at < 8 ? length - at : 8;
        toggle ^= 1;
        td[n++] = (struct transfer){ .status = common,
                                     .token = (part - 1) << 21 | toggle << 19 | address << 8 | 0x69,
                                     .at = low(answer + at) };
    }
    uint32_t pid = length ? 0xe1 : 0x69;
    td[n++] = (struct transfer){ .status = common | 1u << 24, .token = 0x7ffu << 21 | 1u << 19 | address << 8 | pid };
    for (unsigned i = 0; i < n; i++) td[i].next = i + 1 < n ? low(&td[i + 1]) | 4 : 1;
    came = 0;
    usb_seen = 0;
    queue.element = low(td);
    wait_came(1, 3000000);
    queue.element = 1;
    if (td[n - 1].status & 0xfe0000) return -1;
    int got = 0;
    for (unsigned i = 1; i + 1 < n; i++) got += (int)((td[i].status + 1) & 0x7ff);
    return got;
}
static void usb_tablet(void)
{
    unsigned where = pci_find(0x70208086);
    CHECK(where != NOWHERE, "no PIIX3 UHCI");
    usb = (uint16_t)(pci_read(where, 0x20) & 0xffe0);
    unsigned gsi = pci_gsi(where);
    outw(usb, 2); /* reset */
    delay_us(1000);
    CHECK_EQ(inw(usb) & 2, 0);
    queue.next = queue.element = 1;
    for (unsigned i = 0; i < 1024; i++) frames[i] = low(&queue) | 2;
    outl((uint16_t)(usb + 8), low(frames));
    outw((uint16_t)(usb + 6), 0);
    outw((uint16_t)(usb + 4), 4); /* interrupt on completion */
    outw(usb, 0x41);
    hear(gsi, usb_quiet);
    unsigned port = 0;
    while (port < 2 && !(inw((uint16_t)(usb + 0x10 + 2 * port)) & 1)) port++;
    CHECK(port < 2, "nothing is plugged in");
    uint16_t at = (uint16_t)(usb + 0x10 + 2 * port);
    outw(at, 0x200);
    delay_us(50000);
    outw(at, 0);
    delay_us(1000);
    outw(at, 0xe); /* enable, changes seen */
    delay_us(1000);
    uint16_t state = inw(at);
    CHECK((state & 5) == 5, "port state %x", state);
    usb_slow = state & 0x100;
    static uint8_t got[64];
    static const uint8_t get_device[] = { 0x80, 6, 0, 1, 0, 0, 18, 0 }, set_address[] = { 0, 5, 3, 0, 0, 0, 0, 0 },
                         get_configuration[] = { 0x80, 6, 0, 2, 0, 0, 34, 0 },
                         set_configuration[] = { 0, 9, 1, 0, 0, 0, 0, 0 };
    unsigned first = inw((uint16_t)(usb + 6));
    CHECK(control(0, get_device, 18, got) == 18, "device descriptor: status %x, %u interrupts", td[0].status, came);
    CHECK(came && usb_seen & 1, "%u interrupts, status %x", came, usb_seen);
    CHECK(got[0] == 18 && got[1] == 1 && got[8] == 0x27 && got[9] == 6, "device %x:%x", got[8] | got[9] << 8,
          got[10] | got[11] << 8);
    CHECK(control(0, set_address, 0, got) == 0, "SET_ADDRESS: status %x", td[0].status);
    CHECK(control(3, get_configuration, 34, got) == 34, "configuration: status %x", td[0].status);
    CHECK(got[1] == 2 && got[14] == 3, "interface class %u", got[14]); /* HID */
    CHECK(control(3, set_configuration, 0, got) == 0, "SET_CONFIGURATION: status %x", td[0].status);
    unsigned last = inw((uint16_t)(usb + 6));
    CHECK(last != first, "the frame number stands at %u", last);
    /* Its interrupt endpoint has nothing to say: NAK, and the TD stays active. */
    td[0] = (struct transfer){ .next = 1,
                               .status = 1u << 23 | (uint32_t)usb_slow << 26,
                               .token = 7u << 21 | 1u << 15 | 3u << 8 | 0x69,
                               .at = low(got) };
    queue.element = low(td);
    delay_us(30000);
    uint32_t status = td[0].status;
    queue.element = 1;
    outw(usb, 0);
    deaf(gsi);
    CHECK(status & 1u << 23, "the endpoint spoke: status %x", status);
}

/* ---- AC97 --------------------------------------------------------------------------------------------------- */
static uint16_t ac97;
static volatile uint16_t ac97_seen;
static void ac97_quiet(void)
{
    uint16_t status = inw((uint16_t)(ac97 + 0x16));
    ac97_seen |= status;
    outw((uint16_t)(ac97 + 0x16), status & 0x1c);
}
static uint32_t sounds[32][2] __attribute__((aligned(8)));
/* The bus master channel, ready to play `n` buffers of 2,000 samples with an interrupt behind each; false: no codec. */
static bool ac97_prepare(unsigned where, unsigned n)
{
    uint16_t mixer = (uint16_t)(pci_read(where, 0x10) & 0xfffc);
    ac97 = (uint16_t)(pci_read(where, 0x14) & 0xfffc);
    outl((uint16_t)(ac97 + 0x2c), 2); /* out of cold reset */
    if (!(inl((uint16_t)(ac97 + 0x30)) & 0x100)) return false;
    outw(mixer, 0);
    outw((uint16_t)(mixer + 2), 0x0808);
    if (inw((uint16_t)(mixer + 0x7c)) != 0x8384 || inw((uint16_t)(mixer + 2)) != 0x0808) return false;
    outb((uint16_t)(ac97 + 0x1b), 2); /* the channel's registers reset */
    for (unsigned i = 0; i < n; i++) {
        sounds[i][0] = low(data[i & 1]);
        sounds[i][1] = 2000 | 0x80000000;
    }
    outl((uint16_t)(ac97 + 0x10), low(sounds));
    outb((uint16_t)(ac97 + 0x15), (uint8_t)(n - 1));
    ac97_seen = 0;
    return true;
}
static void ac97_play(bool on) { outb((uint16_t)(ac97 + 0x1b), on ? 0x1d : 0); }
static void sound_ac97(void)
{
    unsigned where = pci_find(0x24158086);
    CHECK(where != NOWHERE, "no AC97");
    unsigned gsi = pci_gsi(where);
    CHECK(ac97_prepare(where, 2), "no codec");
    hear(gsi, ac97_quiet);
    ac97_play(true);
    bool ok = wait_came(2, 5000000);
    uint8_t index = inb((uint16_t)(ac97 + 0x14));
    ac97_play(false);
    deaf(gsi);
    CHECK(ok, "%u interrupts, buffer %u, status %x", came, index, ac97_seen);
    CHECK(ac97_seen & 8, "status %x", ac97_seen);
}

/* ---- ES1370: what XP's sound driver is for -------------------------------------------------------------------- */
static uint16_t es1370;
static volatile uint32_t es1370_seen;
static void es1370_quiet(void)
{
    es1370_seen |= inl((uint16_t)(es1370 + 4));
    outl((uint16_t)(es1370 + 0x20), 0x0c);
    outl((uint16_t)(es1370 + 0x20), 0x20c); /* the interrupt is acknowledged by its enable bit */
}
static void es1370_prepare(unsigned where)
{
    es1370 = (uint16_t)(pci_read(where, 0x10) & 0xffc0);
    outl(es1370, 0);
    outl((uint16_t)(es1370 + 0x0c), 0x0c); /* the page of DAC2's frame */
    outl((uint16_t)(es1370 + 0x38), low(data[0]));
    outl((uint16_t)(es1370 + 0x3c), 4095);  /* 16 KiB */
    outl((uint16_t)(es1370 + 0x28), 999);   /* samples to an interrupt */
    outl((uint16_t)(es1370 + 0x20), 0x20c); /* 16 bits, two channels, interrupt */
    es1370_seen = 0;
}
static void es1370_play(bool on)
{
    outl(es1370, on ? 0x20 | 0x200000 : 0); /* DAC2 on, at about 44 kHz */
    if (!on) outl((uint16_t)(es1370 + 0x20), 0);
}
static void sound_es1370(void)
{
    unsigned where = pci_find(0x50001274);
    CHECK(where != NOWHERE, "no ES1370");
    unsigned gsi = pci_gsi(where);
    es1370_prepare(where);
    CHECK_EQ(inl((uint16_t)(es1370 + 0x38)), low(data[0]));
    hear(gsi, es1370_quiet);
    es1370_play(true);
    bool ok = wait_came(2, 5000000);
    es1370_play(false);
    deaf(gsi);
    CHECK(ok, "%u interrupts, status %x", came, es1370_seen);
    CHECK((es1370_seen & 0x80000002) == 0x80000002, "status %x", es1370_seen);
}

/* ---- both on one line of the 8259, as the ACPI PIC HAL has it, and the line moved while they play ----------------- */
static volatile unsigned by_ac97, by_es1370, by_nobody, irq_taken;
static void on_shared(struct frame *f)
{
    irq_taken = (f->vector & 0xff) - 0x20;
    bool a = inw((uint16_t)(ac97 + 0x16)) & 0x1c, b = inl((uint16_t)(es1370 + 4)) >> 31;
    if (a) ac97_quiet();
    if (b) es1370_quiet();
    by_ac97 += a;
    by_es1370 += b;
    by_nobody += !a && !b;
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
}
static void links(uint8_t irq)
{
    for (unsigned link = 0; link < 4; link++) {
        pci_select(1 << 3, 0x60);
        outb((uint16_t)(0xcfc + link), irq);
    }
}
static bool both_play(void)
{
    by_ac97 = by_es1370 = 0;
    uint64_t from = rdtsc();
    while ((by_ac97 < 3 || by_es1370 < 3) && us_since(from) < 5000000) window();
    return by_ac97 >= 3 && by_es1370 >= 3;
}
static void intx_shared(void)
{
    unsigned a = pci_find(0x24158086), b = pci_find(0x50001274);
    CHECK(a != NOWHERE && b != NOWHERE && ac97_prepare(a, 32), "no two cards");
    es1370_prepare(b);
    uint32_t kept = pci_read(1 << 3, 0x60);
    for (unsigned pin = 0; pin < 48; pin++) route(pin, MASKED);
    lapic_reset();
    pic_reset();
    handlers[0x2a] = handlers[0x2b] = on_shared;
    APIC(0x350) = 0x700; /* the 8259 is heard */
    outb(0x4d1, 0x0c);
    outb(0xa1, 0xf3);
    by_nobody = 0;
    links(10);
    ac97_play(true);
    es1370_play(true);
    bool first = both_play();
    unsigned a1 = by_ac97, b1 = by_es1370, irq1 = irq_taken;
    links(11);
    bool moved = both_play();
    unsigned a2 = by_ac97, b2 = by_es1370, irq2 = irq_taken;
    ac97_play(false);
    es1370_play(false);
    window();
    APIC(0x350) = MASKED;
    outb(0xa1, 0xff);
    outb(0x4d1, 0);
    pci_write(1 << 3, 0x60, kept);
    CHECK(first && irq1 == 10, "IRQ %u: %u of AC97, %u of ES1370, %u of nobody", irq1, a1, b1, by_nobody);
    CHECK(moved && irq2 == 11, "IRQ %u: %u of AC97, %u of ES1370, %u of nobody", irq2, a2, b2, by_nobody);
    CHECK(by_nobody < 10, "%u interrupts of nobody", by_nobody);
}

/* ---- Sound Blaster 16: 8237 channel 1, IRQ 5 ------------------------------------------------------------------ */
static void sb_quiet(void) { inb(0x22e); }
static bool sb_out(uint8_t v)
{
    for (unsigned i = 0; i < 10000; i++)
        if (!(inb(0x22c) & 0x80)) {
            outb(0x22c, v);
            return true;
        }
    return false;
}
static unsigned sb_in(void)
{
    for (unsigned i = 0; i < 10000; i++)
        if (inb(0x22e) & 0x80) return inb(0x22a);
    return 0x100;
}
static void sound_sb16(void)
{
    outb(0x226, 1);
    delay_us(10);
    outb(0x226, 0);
    CHECK_EQ(sb_in(), 0xaa);
    sb_out(0xe1);
    unsigned major = sb_in(), minor = sb_in();
    CHECK(major == 4, "version %u.%u", major, minor);
    hear(5, sb_quiet);
    sb_out(0xf2); /* an interrupt */
    CHECK(wait_came(1, 1000000), "no interrupt by command F2");
    uint32_t at = low(data[0]), bytes = 2000 - 1;
    outb(0x0a, 5);
    outb(0x0c, 0);
    outb(0x0b, 0x49); /* memory to card */
    outb(0x02, (uint8_t)at);
    outb(0x02, (uint8_t)(at >> 8));
    outb(0x83, (uint8_t)(at >> 16));
    outb(0x03, (uint8_t)bytes);
    outb(0x03, (uint8_t)(bytes >> 8));
    outb(0x0a, 1);
    came = 0;
    static const uint8_t play[] = { 0xd1, 0x40, 0xd3, 0x14, (2000 - 1) & 255, (2000 - 1) >> 8 }; /* 22 kHz */
    for (unsigned i = 0; i < sizeof play; i++) CHECK(sb_out(play[i]), "the DSP takes no byte");
    bool ok = wait_came(1, 5000000);
    deaf(5);
    CHECK(ok, "no interrupt at the end");
}

/* ---- network cards, in loop-back -------------------------------------------------------------------------------- */
static uint8_t frame[64];
static void make_frame(const uint8_t *mac)
{
    memset(frame, 0x5a, sizeof frame);
    memcpy(frame, mac, 6);
    memcpy(frame + 6, mac, 6);
    frame[12] = 0x88;
    frame[13] = 0xb5;
    for (unsigned i = 14; i < sizeof frame; i++) frame[i] = (uint8_t)(i * 3);
}
static uint16_t rtl;
static volatile uint16_t rtl_seen;
static void rtl_quiet(void)
{
    uint16_t status = inw((uint16_t)(rtl + 0x3e));
    rtl_seen |= status;
    outw((uint16_t)(rtl + 0x3e), status);
}
static void net_rtl8139(void)
{
    unsigned where = pci_find(0x813910ec);
    CHECK(where != NOWHERE, "no rtl8139");
    unsigned gsi = pci_gsi(where);
    rtl = (uint16_t)(pci_read(where, 0x10) & 0xff00);
    outb((uint16_t)(rtl + 0x37), 0x10);
    delay_us(100);
    CHECK_EQ(inb((uint16_t)(rtl + 0x37)) & 0x10, 0);
    uint8_t mac[6];
    for (unsigned i = 0; i < 6; i++) mac[i] = inb((uint16_t)(rtl + i));
    make_frame(mac);
    memset(data[0], 0, sizeof data[0]);
    outl((uint16_t)(rtl + 0x30), low(data[0]));
    outb((uint16_t)(rtl + 0x37), 0x0c); /* receive and transmit */
    outl((uint16_t)(rtl + 0x44), 0x8f); /* 8 KiB, wrap, all kinds of address */
    outl((uint16_t)(rtl + 0x40), 0x60600);
    rtl_seen = 0;
    outw((uint16_t)(rtl + 0x3c), 5);
    hear(gsi, rtl_quiet);
    outl((uint16_t)(rtl + 0x20), low(frame));
    outl((uint16_t)(rtl + 0x10), sizeof frame);
    uint64_t from = rdtsc();
    while ((rtl_seen & 5) != 5 && us_since(from) < 2000000) window();
    outw((uint16_t)(rtl + 0x3c), 0);
    outb((uint16_t)(rtl + 0x37), 0);
    deaf(gsi);
    CHECK(came && (rtl_seen & 5) == 5, "%u interrupts, status %x", came, rtl_seen);
    uint16_t length = *(uint16_t *)(void *)(data[0] + 2);
    CHECK((data[0][0] & 1) && length == sizeof frame + 4, "header %x, length %u", data[0][0], length);
    CHECK(!memcmp(data[0] + 4, frame, sizeof frame), "the frame came back changed");
}

static uint32_t e1000;
#define E1000(r) MMIO32((unsigned long)e1000 + (r))
static volatile uint32_t e1000_seen;
static void e1000_quiet(void) { e1000_seen |= E1000(0xc0); }
struct __attribute__((packed)) e1000_descriptor {
    uint64_t at;
    uint16_t length;
    uint8_t a, b, status, c; /* transmit: checksum offset, command, status; receive: checksum (2), status, errors */
    uint16_t special;
};
static volatile struct e1000_descriptor tx[8] __attribute__((aligned(128))), rx[8] __attribute__((aligned(128)));
static void net_e1000(void)
{
    unsigned where = pci_find(0x100e8086);
    CHECK(where != NOWHERE, "no e1000");
    unsigned gsi = pci_gsi(where);
    e1000 = pci_read(where, 0x10) & ~15u;
    E1000(0) = 0x4000000; /* reset */
    delay_us(10000);
    CHECK_EQ(E1000(0) & 0x4000000, 0);
    E1000(0xd8) = ~0u;
    uint32_t ral = E1000(0x5400), rah = E1000(0x5404);
    uint8_t mac[6] = { (uint8_t)ral,         (uint8_t)(ral >> 8), (uint8_t)(ral >> 16),
                       (uint8_t)(ral >> 24), (uint8_t)rah,        (uint8_t)(rah >> 8) };
    CHECK(rah & 0x80000000, "no address: %x %x", ral, rah);
    make_frame(mac);
    E1000(0) = 0x41;                            /* full duplex, link up */
    E1000(0x20) = 1u << 26 | 1u << 21 | 0x4140; /* the PHY's control register: loop-back, 1000 Mb/s */
    delay_us(1000);
    memset((void *)tx, 0, sizeof tx);
    memset((void *)rx, 0, sizeof rx);
    for (unsigned i = 0; i < 8; i++) rx[i].at = low(data[1]) + i * 2048;
    E1000(0x2800) = low(rx);
    E1000(0x2804) = 0;
    E1000(0x2808) = sizeof rx;
    E1000(0x2810) = 0;
    E1000(0x2818) = 7;
    E1000(0x100) = 0x801a; /* receive everything, 2 KiB buffers */
    E1000(0x3800) = low(tx);
    E1000(0x3804) = 0;
    E1000(0x3808) = sizeof tx;
    E1000(0x3810) = 0;
    E1000(0x3818) = 0;
    E1000(0x400) = 0xa;
    e1000_seen = 0;
    hear(gsi, e1000_quiet);
    E1000(0xd0) = 0x81; /* transmitted, received */
    /* Its receiver takes a second to start after RCTL was written, so the frame is sent until it comes. */
    for (unsigned i = 0; i < 40 && !(e1000_seen & 0x80); i++) {
        tx[i % 8].at = low(frame);
        tx[i % 8].length = sizeof frame;
        tx[i % 8].b = 0x0b; /* end of packet, add the checksum, report */
        tx[i % 8].status = 0;
        E1000(0x3818) = (i + 1) % 8;
        uint64_t from = rdtsc();
        while ((!(e1000_seen & 0x80) || !tx[i % 8].status) && us_since(from) < 100000) window();
    }
    E1000(0xd8) = ~0u;
    deaf(gsi);
    CHECK(came && tx[0].status & 1, "%u interrupts, cause %x, status %x", came, e1000_seen, tx[0].status);
    CHECK(e1000_seen & 0x80 && rx[0].status & 1, "cause %x, received status %x", e1000_seen, rx[0].status);
    CHECK(!memcmp(data[1], frame, sizeof frame), "the frame came back changed");
}

const struct test tests[] = {
    { "usb_tablet", usb_tablet },     { "sound_ac97", sound_ac97 },
    { "sound_es1370", sound_es1370 }, { "intx_shared", intx_shared },
    { "sound_sb16", sound_sb16 },     { "net_rtl8139", net_rtl8139 },
    { "net_e1000", net_e1000 },       { 0 },
};
