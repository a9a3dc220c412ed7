/* cirrus.c: QEMU's Cirrus CL-GD5446, XP's own driver's card: planar modes, 256 colours through the window at A0000 and in
 * the linear frame buffer, its blitter by ports and by memory. The registers are those of the CL-GD5446 reference manual. */
#include "planar.h"

static volatile uint8_t *frame; /* the linear frame buffer, BAR 0 */
static unsigned card;

static void sequencer(unsigned reg, unsigned value) { vga_set(0x3c4, reg, value); }
static uint8_t sequencer_read(unsigned reg)
{
    outb(0x3c4, (uint8_t)reg);
    return inb(0x3c5);
}
/* 256 colours, a byte a pixel; the window at A0000 shows what is at `bank` times 4 KiB. */
static void packed(unsigned bank)
{
    sequencer(6, 0x12);
    sequencer(7, 1);
    gc(0xb, 0);
    gc(9, bank);
    map_mask(15);
    gc(0, 0);
    gc(1, 0);
    gc(5, 0x40);
    gc(8, 0xff);
}
static bool found(void)
{
    card = pci_find(0x00b81013);
    frame = (volatile uint8_t *)(unsigned long)(pci_read(card, 0x10) & ~15u);
    return card != NOWHERE && frame;
}

static void cirrus_registers(void)
{
    CHECK(found(), "no Cirrus");
    CHECK(pci_read(card, 8) >> 8 == 0x30000, "class %x", pci_read(card, 8) >> 8);
    sequencer(6, 0);
    CHECK_EQ(sequencer_read(6), 0x0f); /* locked */
    sequencer(6, 0x12);
    CHECK_EQ(sequencer_read(6), 0x12);
    outb(0x3d4, 0x27);
    CHECK_EQ(inb(0x3d5), 0xb8); /* a 5446 */
}
static void cirrus_planar(void)
{
    sequencer(6, 0x12);
    sequencer(7, 0);
    gc(9, 0);
    gc(0xb, 0);
    vga_planar();
    if (!failed()) vga_planar_strings();
}
static void cirrus_linear(void)
{
    CHECK(found(), "no Cirrus");
    packed(0);
    for (unsigned i = 0; i < 4096; i++) frame[0x20000 + i] = (uint8_t)(i * 7 + i / 256);
    *(volatile uint64_t *)(frame + 0x21000) = 0x8877665544332211;
    packed(0x20); /* the same by the window */
    for (unsigned i = 0; i < 4096; i++)
        CHECK(PLANES[i] == (uint8_t)(i * 7 + i / 256), "pixel %u is %x in the window", i, PLANES[i]);
    CHECK_EQ(*(volatile uint32_t *)(PLANES + 0x1002), 0x66554433);
    volatile void *to = PLANES + 0x1100;
    unsigned long n = 100;
    __asm__ volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(0xa1b2c3d4) : "memory");
    CHECK(n == 0 && to == PLANES + 0x1100 + 400, "registers after REP STOSL");
    for (unsigned i = 0; i < 100; i++) CHECK(((volatile uint32_t *)(frame + 0x21100))[i] == 0xa1b2c3d4, "word %u", i);
    CHECK_EQ(frame[0x21100 + 400], 0);
    packed(0x60);
    PLANES[0] = 0x5a; /* posted: it is there when the device model has answered something else */
    inb(0x3cf);
    CHECK(frame[0x60000] == 0x5a && frame[0x20000] == 0, "the window's place: %x %x", frame[0x60000], frame[0x20000]);
}

/* ---- the blitter ------------------------------------------------------------------------------------ */
static bool blit_done(void)
{
    outb(0x3ce, 0x31);
    for (unsigned i = 0; i < 100000; i++)
        if (!(inb(0x3cf) & 1)) return true;
    return false;
}
static void cirrus_blit(void)
{
    CHECK(found(), "no Cirrus");
    packed(0);
    for (unsigned i = 0; i < 64 * 8; i++) {
        frame[0x40000 + i] = (uint8_t)(i ^ 0x35);
        frame[0x50000 + i] = 0xee;
    }
    gc(0x31, 4); /* reset */
    gc(0x31, 0);
    static const uint8_t set[][2] = { { 0x20, 31 }, { 0x21, 0 },   { 0x22, 7 },  { 0x23, 0 }, /* 32 by 8 */
                                      { 0x24, 64 }, { 0x25, 0 },   { 0x26, 64 }, { 0x27, 0 }, /* pitches */
                                      { 0x28, 0 },  { 0x29, 0 },   { 0x2a, 5 },               /* to 50000 */
                                      { 0x2c, 0 },  { 0x2d, 0 },   { 0x2e, 4 },               /* from 40000 */
                                      { 0x30, 0 },  { 0x32, 0x0d } };                         /* as it is */
    for (unsigned i = 0; i < sizeof set / sizeof *set; i++) gc(set[i][0], set[i][1]);
    gc(0x31, 2);
    CHECK(blit_done(), "the blitter stays busy");
    for (unsigned y = 0; y < 8; y++)
        for (unsigned x = 0; x < 64; x++) {
            uint8_t want = x < 32 ? (uint8_t)((y * 64 + x) ^ 0x35) : 0xee;
            CHECK(frame[0x50000 + y * 64 + x] == want, "(%u,%u) is %x", x, y, frame[0x50000 + y * 64 + x]);
        }
    /* By the registers in memory, at BAR 1 + 100h: once more to 50400, inverted. */
    volatile uint8_t *mmio = (volatile uint8_t *)(unsigned long)(pci_read(card, 0x14) & ~15u) + 0x100;
    mmio[0x1a] = 0xd0; /* NOT source */
    *(volatile uint16_t *)(mmio + 0x10) = 0x0400;
    mmio[0x12] = 5;
    mmio[0x40] = 2;
    CHECK(blit_done(), "the blitter stays busy");
    for (unsigned i = 0; i < 32; i++)
        CHECK(frame[0x50400 + i] == (uint8_t) ~(i ^ 0x35), "inverted %u is %x", i, frame[0x50400 + i]);
}

const struct test tests[] = {
    { "cirrus_registers", cirrus_registers },
    { "cirrus_planar", cirrus_planar },
    { "cirrus_linear", cirrus_linear },
    { "cirrus_blit", cirrus_blit },
    { 0 },
};
