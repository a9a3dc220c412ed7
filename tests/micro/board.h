/* board.h: the parts of a PC that several 64-bit micro-guests drive alike: LAPIC, IOAPIC, 8259, RTC, PCI configuration,
 * the FADT, and waiting by the TSC. */
#pragma once
#include "micro.h"

#define APIC(r) MMIO32(0xfee00000 + (r))
#define HPET(r) (*(volatile uint64_t *)(0xfed00000ul + (r)))
#define MASKED  0x10000
#define LEVEL   0x8000

/* ---- time ----------------------------------------------------------------------------------- */
static inline uint64_t tsc_khz(void) { return tsc_hz() / 1000; }
static inline uint64_t us_since(uint64_t from) { return (rdtsc() - from) * 1000 / tsc_khz(); }
/* Three instructions with interrupts on. */
static inline void window(void) { __asm__ volatile("sti; nop; nop; nop; cli" ::: "memory"); }
/* Wait until *what reaches value, for so long; whether it did. Interrupts stay as they are. */
static inline bool wait_for(volatile unsigned *what, unsigned value, unsigned us)
{
    uint64_t from = rdtsc();
    while (*what < value && us_since(from) < us) pause();
    return *what >= value;
}
/* Wait with interrupts on until counts[v] reaches n, for so long; whether it did. */
static inline bool wait_count(unsigned v, unsigned n, unsigned us)
{
    uint64_t from = rdtsc();
    while (counts[v] < n && us_since(from) < us) __asm__ volatile("sti; nop; pause; cli" ::: "memory");
    return counts[v] >= n;
}

/* ---- interrupt controllers ------------------------------------------------------------------ */
/* The LAPIC enabled, in xAPIC mode, its local interrupts masked, nothing in service. */
static inline void lapic_reset(void)
{
    wrmsr(0x1b, (rdmsr(0x1b) | 0x800) & ~0x400ull);
    APIC(0xf0) = 0x1ff;
    APIC(0x80) = 0;
    for (unsigned i = 0; i < 6; i++) APIC(0x320 + 0x10 * i) = MASKED;
    APIC(0x380) = 0; /* the timer */
    for (unsigned i = 0; i < 8; i++) APIC(0xb0) = 0;
}
static inline uint32_t io_read(unsigned r)
{
    MMIO32(0xfec00000) = r;
    return MMIO32(0xfec00010);
}
static inline void io_write(unsigned r, uint32_t v)
{
    MMIO32(0xfec00000) = r;
    MMIO32(0xfec00010) = v;
}
/* An IOAPIC pin to this CPU. */
static inline void route(unsigned pin, uint32_t low)
{
    io_write(0x11 + 2 * pin, APIC(0x20));
    io_write(0x10 + 2 * pin, low);
}
/* Both 8259s at vectors 0x20 and 0x28, everything masked but the cascade. */
static inline void pic_reset(void)
{
    static const uint8_t icw[2][4] = { { 0x11, 0x20, 4, 1 }, { 0x11, 0x28, 2, 1 } };
    for (unsigned c = 0; c < 2; c++) {
        uint16_t at = c ? 0xa0 : 0x20;
        outb(at, icw[c][0]);
        for (unsigned i = 1; i < 4; i++) outb((uint16_t)(at + 1), icw[c][i]);
        outb((uint16_t)(at + 1), c ? 0xff : 0xfb);
        outb((uint16_t)(0x4d0 + c), 0);
    }
}

/* ---- CMOS and PCI --------------------------------------------------------------------------- */
static inline uint8_t cmos(unsigned r)
{
    outb(0x70, (uint8_t)r);
    return inb(0x71);
}
static inline void cmos_set(unsigned r, uint8_t v)
{
    outb(0x70, (uint8_t)r);
    outb(0x71, v);
}
/* PCI functions are named by slot << 3 | function. */
static inline void pci_select(unsigned where, unsigned reg) { outl(0xcf8, 0x80000000 | where << 8 | (reg & 0xfc)); }
static inline uint32_t pci_read(unsigned where, unsigned reg)
{
    pci_select(where, reg);
    return inl(0xcfc);
}
static inline void pci_write(unsigned where, unsigned reg, uint32_t v)
{
    pci_select(where, reg);
    outl(0xcfc, v);
}
/* The first function with this device and vendor ID, which may then be bus master; NOWHERE: there is none. */
#define NOWHERE 256
static inline unsigned pci_find(uint32_t id)
{
    unsigned where = 0;
    while (where < NOWHERE && pci_read(where, 0) != id) where++;
    if (where < NOWHERE) pci_write(where, 4, (pci_read(where, 4) & 0xffff) | 7);
    return where;
}
/* The IOAPIC pin of a function's interrupt pin, as xenfv has it. */
static inline unsigned pci_gsi(unsigned where)
{
    unsigned slot = where >> 3, pin = (pci_read(where, 0x3c) >> 8 & 0xff) - 1;
    return 16 + ((slot * 4 + slot / 8 + pin) & 31);
}

/* ---- ACPI ----------------------------------------------------------------------------------- */
/* The FADT, found through the RSDT as XP does; NULL when there is none. */
static inline const uint8_t *fadt(void)
{
    for (const uint8_t *p = (uint8_t *)0xe0000; p < (uint8_t *)0x100000; p += 16) {
        if (memcmp(p, "RSD PTR ", 8)) continue;
        const uint8_t *rsdt = (uint8_t *)(unsigned long)*(const uint32_t *)(p + 16);
        unsigned n = (*(const uint32_t *)(rsdt + 4) - 36) / 4;
        for (unsigned i = 0; i < n; i++) {
            const uint8_t *t = (uint8_t *)(unsigned long)*(const uint32_t *)(rsdt + 36 + 4 * i);
            if (!memcmp(t, "FACP", 4)) return t;
        }
    }
    return NULL;
}
