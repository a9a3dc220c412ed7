/* planar.h: planar VGA, 640x480 in 16 colours, what XP's setup shows: tests for the VGA of devices.c and the Cirrus of
 * cirrus.c. */
#pragma once
#include "board.h"

#define PLANES ((volatile uint8_t *)0xa0000)
static void vga_set(uint16_t index, unsigned reg, unsigned value) { outw(index, (uint16_t)(value << 8 | reg)); }
static void gc(unsigned reg, unsigned value) { vga_set(0x3ce, reg, value); }
static void map_mask(unsigned value) { vga_set(0x3c4, 2, value); }
static uint8_t read_plane(unsigned plane, unsigned at)
{
    gc(4, plane);
    return PLANES[at];
}
static void mode_12h(void)
{
    static const uint8_t seq[] = { 3, 1, 15, 0, 6 };
    static const uint8_t crtc[] = { 0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0,    0x40, 0,    0,   0,
                                    0,    0,    0,    0xea, 0x0c, 0xdf, 0x28, 0,    0xe7, 0x04, 0xe3, 0xff };
    static const uint8_t graphics[] = { 0, 0, 0, 0, 0, 0, 5, 15, 0xff };
    outb(0x3c2, 0xe3);
    for (unsigned i = 0; i < sizeof seq; i++) vga_set(0x3c4, i, seq[i]);
    vga_set(0x3d4, 0x11, 0x0c); /* the CRTC's first registers may be written */
    for (unsigned i = 0; i < sizeof crtc; i++) vga_set(0x3d4, i, crtc[i]);
    for (unsigned i = 0; i < sizeof graphics; i++) gc(i, graphics[i]);
    inb(0x3da);
    for (unsigned i = 0; i < 16; i++) {
        outb(0x3c0, (uint8_t)i);
        outb(0x3c0, (uint8_t)i);
    }
    static const uint8_t attribute[][2] = { { 0x10, 1 }, { 0x11, 0 }, { 0x12, 15 }, { 0x13, 0 } };
    for (unsigned i = 0; i < 4; i++) {
        outb(0x3c0, attribute[i][0]);
        outb(0x3c0, attribute[i][1]);
    }
    outb(0x3c0, 0x20);
    map_mask(15);
    for (unsigned i = 0; i < 512; i++) PLANES[i] = 0;
}
#define CHECK_PLANES(at, a, b, c, d)                                                                                        \
    do {                                                                                                                    \
        const uint8_t want_[4] = { a, b, c, d };                                                                            \
        for (unsigned p_ = 0; p_ < 4; p_++) {                                                                               \
            uint8_t got_ = read_plane(p_, at);                                                                              \
            CHECK(got_ == want_[p_], "plane %u at %u is %x, not %x", p_, at, got_, want_[p_]);                              \
        }                                                                                                                   \
    } while (0)
static void vga_planar(void)
{
    mode_12h();
    static const uint8_t data[4] = { 0x12, 0x34, 0x56, 0x78 };
    for (unsigned p = 0; p < 4; p++) { /* one plane after another */
        map_mask(1u << p);
        PLANES[0] = data[p];
    }
    map_mask(15);
    CHECK_PLANES(0, 0x12, 0x34, 0x56, 0x78);
    (void)PLANES[0]; /* write mode 1: the latches go on to where a byte is written */
    gc(5, 1);
    PLANES[1] = 0;
    gc(5, 0);
    CHECK_PLANES(1, 0x12, 0x34, 0x56, 0x78);
    gc(0, 5); /* write mode 0 with set/reset in planes 0, 1 and 2, and a bit mask */
    gc(1, 7);
    gc(8, 0x0f);
    (void)PLANES[1];
    PLANES[1] = 0xff;
    gc(1, 0);
    gc(8, 0xff);
    CHECK_PLANES(1, 0x1f, 0x30, 0x5f, 0x7f);
    gc(5, 2); /* write mode 2: a colour into the bits of the mask */
    gc(8, 0x80);
    (void)PLANES[2];
    PLANES[2] = 10;
    gc(8, 0xff);
    gc(5, 0);
    CHECK_PLANES(2, 0, 0x80, 0, 0x80);
    gc(3, 0x18); /* XOR with the latches */
    (void)PLANES[0];
    PLANES[0] = 0xff;
    gc(3, 0x02); /* rotated by two */
    PLANES[3] = 0x03;
    gc(3, 0);
    CHECK_PLANES(0, 0xed, 0xcb, 0xa9, 0x87);
    CHECK_PLANES(3, 0xc0, 0xc0, 0xc0, 0xc0);
    gc(0, 9); /* write mode 3: set/reset where data and bit mask agree */
    gc(5, 3);
    PLANES[4] = 0;
    gc(8, 0xf0);
    (void)PLANES[5];
    PLANES[5] = 0x3c;
    gc(5, 0);
    gc(0, 0);
    gc(8, 0xff);
    CHECK_PLANES(5, 0x30, 0, 0, 0x30);
    gc(5, 8); /* read mode 1: where the colour is 10 */
    gc(2, 10);
    gc(7, 15);
    uint8_t where = PLANES[2];
    gc(7, 2); /* only plane 1 counts */
    uint8_t care = PLANES[2];
    gc(5, 0);
    CHECK_EQ(where, 0x80);
    CHECK_EQ(care, 0x80);
}
/* String instructions on planes: a row filled, and copied through the latches. */
static void vga_planar_strings(void)
{
    mode_12h();
    map_mask(15);
    gc(0, 6);
    gc(1, 15);
    volatile void *to = PLANES + 80;
    unsigned long n = 40;
    __asm__ volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(0) : "memory");
    gc(1, 0);
    CHECK(n == 0 && to == PLANES + 160, "registers after REP STOSW");
    CHECK_PLANES(80, 0, 0xff, 0xff, 0);
    CHECK_PLANES(159, 0, 0xff, 0xff, 0);
    gc(5, 1);
    to = PLANES + 160;
    volatile const void *from = PLANES + 80;
    n = 80;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
    gc(5, 0);
    CHECK(n == 0 && to == PLANES + 240 && from == PLANES + 160, "registers after REP MOVSB");
    CHECK_PLANES(160, 0, 0xff, 0xff, 0);
    CHECK_PLANES(239, 0, 0xff, 0xff, 0);
    CHECK_PLANES(240, 0, 0, 0, 0);
}
