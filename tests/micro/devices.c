/* devices.c: the PC's built-in devices that QEMU emulates, by port, DMA and interrupt: IDE by bus mastering, ATAPI, the
 * floppy controller, keyboard and mouse, serial and parallel port, planar VGA. 64-bit code; the interrupts come through
 * the IOAPIC. dom0-job gives the guest a CD and a floppy disk that hold its own image. */
#include "board.h"
#include "planar.h"

/* The image's beginning: the boot sector up to its variables, and code behind it. */
static bool is_image(const uint8_t *sector, const uint8_t *code)
{
    return !memcmp(sector, (void *)0x7c00, 64) && sector[510] == 0x55 && sector[511] == 0xaa &&
           !memcmp(code, (void *)0x10000, 512);
}

static uint8_t buffer[4096] __attribute__((aligned(4096)));
static uint8_t second[4096] __attribute__((aligned(4096)));

static void on_irq(struct frame *f)
{
    (void)f;
    APIC(0xb0) = 0;
}
/* An ISA interrupt by edge to vector 0x60 + irq, heard from now on. */
static void hear(unsigned irq, handler_fn *fn)
{
    for (unsigned pin = 0; pin < 16; pin++) route(pin, MASKED);
    lapic_reset();
    handlers[0x60 + irq] = fn;
    counts[0x60 + irq] = 0;
    route(irq, 0x60 + irq);
}
static void deaf(unsigned irq)
{
    route(irq, MASKED);
    window();
}
static bool wait_port(uint16_t port, uint8_t mask, uint8_t want)
{
    uint64_t from = rdtsc();
    while ((inb(port) & mask) != want)
        if (us_since(from) > 3000000) return false;
    return true;
}

/* ---- IDE bus mastering ------------------------------------------------------------------------- */
struct prd {
    uint32_t base, count;
};
static struct prd prds[2] __attribute__((aligned(16)));
static uint16_t bus_master(unsigned channel)
{
    return (uint16_t)((pci_read(pci_find(0x70108086), 0x20) & 0xfff0) + 8 * channel);
}
/* Two parts of the buffer, the second of them apart from the first. */
static void prd_set(unsigned first, unsigned then)
{
    prds[0] = (struct prd){ (uint32_t)(unsigned long)buffer, first };
    prds[1] = (struct prd){ (uint32_t)(unsigned long)second, then | 0x80000000 };
}
static uint8_t dma_run(uint16_t bm, uint8_t direction, unsigned irq)
{
    outl((uint16_t)(bm + 4), (uint32_t)(unsigned long)prds);
    outb((uint16_t)(bm + 2), 6); /* clears what was */
    outb(bm, direction);
    outb(bm, direction | 1);
    if (irq) wait_count(0x60 + irq, 1, 3000000);
    uint8_t status = inb((uint16_t)(bm + 2));
    outb(bm, 0);
    return status;
}
static void ide_command(unsigned lba, unsigned n, uint8_t command)
{
    outb(0x3f6, 0);
    outb(0x1f6, 0xe0);
    outb(0x1f2, (uint8_t)n);
    outb(0x1f3, (uint8_t)lba);
    outb(0x1f4, (uint8_t)(lba >> 8));
    outb(0x1f5, 0);
    outb(0x1f7, command);
}
static void ide_dma(void)
{
    CHECK(pci_find(0x70108086) != NOWHERE, "no PIIX3 IDE");
    uint16_t bm = bus_master(0);
    hear(14, on_irq);
    memset(buffer, 0, sizeof buffer);
    memset(second, 0, sizeof second);
    prd_set(512, 1024);
    ide_command(0, 3, 0xc8);
    uint8_t status = dma_run(bm, 8, 14), ide = inb(0x1f7);
    unsigned long n = counts[0x6e];
    deaf(14);
    CHECK_EQ(n, 1);
    CHECK((status & 7) == 4, "bus master status %x", status);
    CHECK((ide & 0x89) == 0, "IDE status %x", ide);
    CHECK(is_image(buffer, second), "not our image");
}
static void ide_dma_write(void)
{
    uint16_t bm = bus_master(0);
    for (unsigned i = 0; i < 512; i++) {
        buffer[i] = (uint8_t)(i * 7);
        second[i] = (uint8_t)(i * 11);
    }
    prd_set(512, 512);
    hear(14, on_irq);
    ide_command(1200, 2, 0xca);
    uint8_t status = dma_run(bm, 0, 14);
    inb(0x1f7);
    memset(buffer, 0, 512);
    memset(second, 0, 512);
    counts[0x6e] = 0;
    ide_command(1200, 2, 0xc8);
    uint8_t again = dma_run(bm, 8, 14);
    inb(0x1f7);
    deaf(14);
    CHECK((status & 7) == 4 && (again & 7) == 4, "bus master status %x, %x", status, again);
    for (unsigned i = 0; i < 512; i++)
        CHECK(buffer[i] == (uint8_t)(i * 7) && second[i] == (uint8_t)(i * 11), "byte %u: %x %x", i, buffer[i], second[i]);
}

/* ---- ATAPI: the secondary channel's master -------------------------------------------------------- */
static bool packet(const uint8_t *command, uint8_t features)
{
    outb(0x376, 0);
    outb(0x176, 0xa0);
    outb(0x171, features);
    outb(0x174, 0); /* at most 2 KiB at a time */
    outb(0x175, 8);
    outb(0x177, 0xa0);
    if (!wait_port(0x177, 0x88, 8)) return false;
    for (unsigned i = 0; i < 6; i++) outw(0x170, ((const uint16_t *)(const void *)command)[i]);
    return true;
}
static unsigned packet_data(uint8_t *to)
{
    if (!wait_port(0x177, 0x80, 0) || !(inb(0x177) & 8)) return 0;
    unsigned n = inb(0x174) | (unsigned)inb(0x175) << 8;
    unsigned long words = n / 2;
    __asm__ volatile("rep insw" : "+D"(to), "+c"(words) : "d"(0x170) : "memory");
    wait_port(0x177, 0x88, 0);
    return n;
}
static void atapi(void)
{
    outb(0x176, 0xa0);
    outb(0x177, 0xa1); /* IDENTIFY PACKET DEVICE */
    CHECK(wait_port(0x177, 0x88, 8), "no CD drive: status %x", inb(0x177));
    for (unsigned i = 0; i < 256; i++) ((uint16_t *)(void *)buffer)[i] = inw(0x170);
    CHECK((buffer[1] & 0xdf) == 0x85, "not a CD-ROM: %x", buffer[1]);
    static const uint8_t ready[12] = { 0 }, capacity[12] = { 0x25 }, read[12] = { 0x28, [8] = 1 };
    for (unsigned i = 0; i < 3; i++) { /* a unit attention may stand first */
        CHECK(packet(ready, 0), "no request for a packet");
        wait_port(0x177, 0x80, 0);
        if (!(inb(0x177) & 1)) break;
        CHECK(i < 2, "not ready: error %x", inb(0x171));
    }
    hear(15, on_irq);
    CHECK(packet(capacity, 0), "no request for a packet");
    CHECK_EQ(packet_data(buffer), 8);
    unsigned last = buffer[2] << 8 | buffer[3], size = buffer[6] << 8 | buffer[7];
    CHECK(last == 511 && size == 2048, "%u blocks of %u", last + 1, size);
    CHECK(packet(read, 0), "no request for a packet");
    CHECK_EQ(packet_data(buffer), 2048);
    CHECK(is_image(buffer, buffer + 512), "not our image");
    window();
    CHECK(counts[0x6f], "no interrupt"); /* one: reading the status took the others back */
    /* The same by DMA. */
    memset(buffer, 0, sizeof buffer);
    prd_set(512, 1536);
    inb(0x177);
    window();
    CHECK(packet(read, 1), "no request for a packet");
    counts[0x6f] = 0;
    uint8_t status = dma_run(bus_master(1), 8, 15);
    inb(0x177);
    deaf(15);
    CHECK((status & 7) == 4, "bus master status %x", status);
    CHECK(is_image(buffer, second), "not our image by DMA");
}

/* ---- floppy: 82078 with the 8237's channel 2 -------------------------------------------------------- */
static void fdc_out(uint8_t v)
{
    if (!wait_port(0x3f4, 0xc0, 0x80)) fail("the floppy controller takes no byte: %x", inb(0x3f4));
    outb(0x3f5, v);
}
static uint8_t fdc_in(void)
{
    if (!wait_port(0x3f4, 0xc0, 0xc0)) fail("the floppy controller has no byte: %x", inb(0x3f4));
    return inb(0x3f5);
}
static uint8_t fdc_sense(uint8_t *cylinder)
{
    fdc_out(8);
    uint8_t st0 = fdc_in();
    *cylinder = fdc_in();
    return st0;
}
/* write: memory to disk. Sectors count from 1. */
static void fdc_transfer(bool write, unsigned sector, unsigned n)
{
    uint32_t at = (uint32_t)(unsigned long)buffer, bytes = n * 512 - 1;
    outb(0x0a, 6);
    outb(0x0c, 0);
    outb(0x0b, write ? 0x4a : 0x46); /* single transfers, channel 2 */
    outb(0x04, (uint8_t)at);
    outb(0x04, (uint8_t)(at >> 8));
    outb(0x81, (uint8_t)(at >> 16));
    outb(0x05, (uint8_t)bytes);
    outb(0x05, (uint8_t)(bytes >> 8));
    outb(0x0a, 2);
    counts[0x66] = 0;
    const uint8_t command[9] = { write ? 0xc5 : 0xe6, 0, 0, 0, (uint8_t)sector, 2, 18, 0x1b, 0xff };
    for (unsigned i = 0; i < 9; i++) fdc_out(command[i]);
    if (!wait_count(0x66, 1, 5000000)) fail("no interrupt at the end of a transfer");
    uint8_t result[7];
    for (unsigned i = 0; i < 7; i++) result[i] = fdc_in();
    if (result[0] & 0xc0) fail("status %x %x %x", result[0], result[1], result[2]);
}
static void floppy(void)
{
    CHECK(cmos(0x10) >> 4 == 4, "CMOS knows no 1.44 MB drive: %x", cmos(0x10));
    hear(6, on_irq);
    outb(0x3f2, 0);
    outb(0x3f2, 0x0c);
    CHECK(wait_count(0x66, 1, 2000000), "no interrupt after reset");
    uint8_t cylinder;
    for (unsigned i = 0; i < 4; i++) CHECK((fdc_sense(&cylinder) & 0xfc) == 0xc0, "reset: no status of drive %u", i);
    outb(0x3f7, 0);
    fdc_out(3); /* SPECIFY, with DMA */
    fdc_out(0xaf);
    fdc_out(2);
    outb(0x3f2, 0x1c);
    counts[0x66] = 0;
    fdc_out(7); /* RECALIBRATE */
    fdc_out(0);
    CHECK(wait_count(0x66, 1, 3000000), "no interrupt after RECALIBRATE");
    CHECK((fdc_sense(&cylinder) & 0xe0) == 0x20 && cylinder == 0, "RECALIBRATE: cylinder %u", cylinder);
    counts[0x66] = 0;
    for (unsigned i = 0; i < 3; i++) /* SEEK */
        fdc_out((const uint8_t[]){ 0x0f, 0, 1 }[i]);
    CHECK(wait_count(0x66, 1, 3000000), "no interrupt after SEEK");
    CHECK((fdc_sense(&cylinder) & 0xe0) == 0x20 && cylinder == 1, "SEEK: cylinder %u", cylinder);
    CHECK_EQ(inb(0x3f7) & 0x80, 0); /* the change line falls when the drive steps with a disk in it */
    memset(buffer, 0, sizeof buffer);
    fdc_transfer(false, 1, 4);
    CHECK(is_image(buffer, buffer + 512), "not our image");
    for (unsigned i = 0; i < 1024; i++) buffer[i] = (uint8_t)(i * 5 + 1);
    fdc_transfer(true, 10, 2);
    memset(buffer, 0, sizeof buffer);
    fdc_transfer(false, 10, 2);
    deaf(6);
    outb(0x3f2, 0);
    for (unsigned i = 0; i < 1024; i++) CHECK(buffer[i] == (uint8_t)(i * 5 + 1), "byte %u is %x", i, buffer[i]);
}

/* ---- keyboard and mouse ----------------------------------------------------------------------------- */
static uint8_t keys[16];
static volatile unsigned keys_came;
static void on_key(struct frame *f)
{
    (void)f;
    uint8_t v = inb(0x60);
    if (keys_came < sizeof keys) keys[keys_came] = v;
    keys_came++;
    APIC(0xb0) = 0;
}
static void kbc(uint8_t command)
{
    wait_port(0x64, 2, 0);
    outb(0x64, command);
}
static void kbc_data(uint8_t v)
{
    wait_port(0x64, 2, 0);
    outb(0x60, v);
}
static unsigned kbc_answer(void) { return wait_port(0x64, 1, 1) ? inb(0x60) : 0x100; }
static void kbc_drain(void)
{
    for (unsigned i = 0; i < 32 && inb(0x64) & 1; i++) inb(0x60);
}
static void wait_keys(unsigned n)
{
    uint64_t from = rdtsc();
    while (keys_came < n && us_since(from) < 2000000) window();
}
static void keyboard(void)
{
    kbc_drain();
    kbc(0xaa);
    CHECK_EQ(kbc_answer(), 0x55);
    kbc(0xab);
    CHECK_EQ(kbc_answer(), 0);
    kbc(0x60);
    kbc_data(0x41); /* interrupt of the keyboard, translation */
    kbc(0x20);
    CHECK_EQ(kbc_answer() & 0x43, 0x41);
    hear(1, on_key);
    keys_came = 0;
    kbc_data(0xee); /* echo */
    wait_keys(1);
    CHECK(keys_came == 1 && keys[0] == 0xee, "echo: %u bytes, %x", keys_came, keys[0]);
    kbc_data(0xed); /* lights */
    wait_keys(2);
    kbc_data(7);
    wait_keys(3);
    CHECK(keys_came == 3 && keys[1] == 0xfa && keys[2] == 0xfa, "LEDs: %u bytes, %x %x", keys_came, keys[1], keys[2]);
    kbc_data(0xf2); /* identify */
    wait_keys(6);
    CHECK(keys_came == 6 && keys[3] == 0xfa && keys[4] == 0xab, "ID: %u bytes, %x %x %x", keys_came, keys[3], keys[4],
          keys[5]);
    kbc(0xd2); /* as if it came from the keyboard: the same interrupt */
    kbc_data(0x1e);
    wait_keys(7);
    deaf(1);
    CHECK(keys_came == 7 && keys[6] == 0x1e, "scan code: %u bytes, %x", keys_came, keys[6]);
}
static void mouse(void)
{
    kbc_drain();
    kbc(0xa8);
    kbc(0x60);
    kbc_data(0x43);
    hear(12, on_key);
    keys_came = 0;
    kbc(0xd4);
    kbc_data(0xff); /* reset */
    wait_keys(3);
    CHECK(keys_came == 3 && keys[0] == 0xfa && keys[1] == 0xaa && keys[2] == 0, "reset: %u bytes, %x %x %x", keys_came,
          keys[0], keys[1], keys[2]);
    kbc(0xd4);
    kbc_data(0xe9); /* status */
    wait_keys(7);
    CHECK(keys_came == 7 && keys[3] == 0xfa && keys[6] == 100, "status: %u bytes, %x, rate %u", keys_came, keys[3], keys[6]);
    kbc(0xd3);
    kbc_data(0x5a);
    wait_keys(8);
    deaf(12);
    CHECK(keys_came == 8 && keys[7] == 0x5a, "as the mouse's: %u bytes, %x", keys_came, keys[7]);
}

/* ---- serial and parallel ------------------------------------------------------------------------------- */
static uint8_t uart_got[32];
static volatile unsigned uart_count;
static void on_uart(struct frame *f)
{
    (void)f;
    while ((inb(0x3fa) & 0xf) == 4 || (inb(0x3fd) & 1)) {
        uint8_t v = inb(0x3f8);
        if (uart_count < sizeof uart_got) uart_got[uart_count] = v;
        uart_count++;
    }
    APIC(0xb0) = 0;
}
/* COM1, on which our verdicts go, in loop-back. */
static void serial(void)
{
    uint8_t mcr = inb(0x3fc), lcr = inb(0x3fb);
    uart_count = 0;
    hear(4, on_uart);
    outb(0x3fb, 0x83);
    outb(0x3f8, 1); /* 115,200 */
    outb(0x3f9, 0);
    uint8_t divisor = inb(0x3f8);
    outb(0x3fb, 3);
    outb(0x3fa, 0x07);
    outb(0x3fc, 0x1a); /* loop-back with RTS and OUT2 */
    uint8_t msr = inb(0x3fe);
    outb(0x3f9, 1);
    for (unsigned i = 0; i < 20; i++) {
        wait_port(0x3fd, 0x20, 0x20);
        outb(0x3f8, (uint8_t)(0x30 + i));
        uint64_t from = rdtsc();
        while (uart_count <= i && us_since(from) < 500000) window();
    }
    outb(0x3f9, 0);
    outb(0x3fc, mcr);
    outb(0x3fb, lcr);
    deaf(4);
    CHECK_EQ(divisor, 1);
    CHECK_EQ(msr & 0xf0, 0x90); /* RTS is CTS, OUT2 is DCD */
    CHECK_EQ(uart_count, 20);
    for (unsigned i = 0; i < 20; i++) CHECK(uart_got[i] == 0x30 + i, "byte %u is %x", i, uart_got[i]);
}
/* LPT1, whose printer is a file that dom0-job looks at. */
static void parallel(void)
{
    static const char text[] = "printed\n";
    outb(0x378, 0x5a);
    CHECK(inb(0x378) == 0x5a, "no data latch: %x", inb(0x378));
    hear(7, on_irq);
    outb(0x37a, 0x08); /* reset the printer */
    delay_us(100);
    outb(0x37a, 0x1c); /* selected, interrupt enabled */
    for (const char *c = text; *c; c++) {
        outb(0x378, (uint8_t)*c);
        CHECK(wait_port(0x379, 0x80, 0x80), "the printer stays busy: %x", inb(0x379));
        counts[0x67] = 0;
        outb(0x37a, 0x1d); /* strobe */
        outb(0x37a, 0x1c);
        CHECK(wait_count(0x67, 1, 1000000), "no interrupt");
        inb(0x379);
    }
    outb(0x37a, 0x0c);
    deaf(7);
}

const struct test tests[] = {
    { "ide_dma", ide_dma },
    { "ide_dma_write", ide_dma_write },
    { "atapi", atapi },
    { "floppy", floppy },
    { "keyboard", keyboard },
    { "mouse", mouse },
    { "serial", serial },
    { "parallel", parallel },
    { "vga_planar", vga_planar },
    { "vga_planar_strings", vga_planar_strings },
    { 0 },
};
