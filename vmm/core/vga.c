/* vga.c: Ringfence's messages on a VGA screen in text mode, from power-on until dom0 takes the
 * screen over.
 *
 * Only a screen that the BIOS left in the 80x25 colour text mode is used; the BIOS data area tells.
 */
#include "core/console.h"
#include "core/mm.h"
#include "core/x86.h"

#define COLUMNS       80u
#define ROWS          25u
#define BLANK         0x0720u /* a space, grey on black */
#define BDA_MODE      0x449u  /* BIOS data area: the video mode */
#define BDA_CURSOR    0x450u  /* the cursor's column and row on page 0 */
#define TEXT_BUFFER   0xb8000u
#define CRTC          0x3d4
#define CRTC_CURSOR   14 /* and 15: its position, high byte first */
#define TEXT_MODE_80C 3

static bool active;
static unsigned column, row;

static volatile uint16_t *cell(unsigned r, unsigned c)
{
    return (volatile uint16_t *)pa_to_virt(TEXT_BUFFER) + r * COLUMNS + c;
}

static void new_line(void)
{
    column = 0;
    if (++row < ROWS)
        return;
    row = ROWS - 1;
    for (unsigned r = 0; r + 1 < ROWS; r++)
        for (unsigned c = 0; c < COLUMNS; c++)
            *cell(r, c) = *cell(r + 1, c);
    for (unsigned c = 0; c < COLUMNS; c++)
        *cell(row, c) = BLANK;
}

void vga_put(char ch)
{
    if (!active || ch == '\r')
        return;
    if (ch == '\n') {
        new_line();
    } else {
        *cell(row, column) = (uint16_t)((BLANK & 0xff00) | (uint8_t)ch);
        if (++column == COLUMNS)
            new_line();
    }
    unsigned position = row * COLUMNS + column;
    outb(CRTC, CRTC_CURSOR);
    outb(CRTC + 1, (uint8_t)(position >> 8));
    outb(CRTC, CRTC_CURSOR + 1);
    outb(CRTC + 1, (uint8_t)position);
}

void vga_init(void)
{
    const volatile uint8_t *mode = pa_to_virt(BDA_MODE), *cursor = pa_to_virt(BDA_CURSOR);

    if (*mode != TEXT_MODE_80C)
        return;
    row = MIN(cursor[1], ROWS - 1);
    active = true;
    vga_put('\n');
}

void vga_release(void)
{
    active = false;
}
