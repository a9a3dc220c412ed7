/* dom0_pci.c: dom0's PCI devices: configuration space, and message-signalled interrupts translated
 * from what dom0 writes (its own APIC ids and vectors) to host vectors (PCI 3.0, 6.8).
 *
 * What dom0 writes in a capability or an MSI-X table is kept here and read back from here; the
 * device gets an address and vector of ours, whose interrupt is then delivered as dom0's message
 * says. Lock: pci_lock, around configuration cycles and this state; not held while messages are
 * delivered.
 */
#include "core/console.h"
#include "core/cpu.h"
#include "core/errno.h"
#include "core/lapic.h"
#include "core/machine.h"
#include "core/mm.h"
#include "core/trap.h"
#include "core/x86.h"
#include "domain/dom0.h"
#include "platform/platform.h"

#define MAX_MESSAGES 512
#define CAP_MSI      0x05
#define CAP_MSIX     0x11
#define MSI_64BIT    0x80
#define MSI_MULTIPLE 0x0e /* number of messages the device could send: shown as one */
#define MSI_ENABLE   0x01
#define MSIX_ENABLE  0x8000
#define MSG_BASE     0xfee00000u
#define MSIX_ENTRY   16u
#define MSIX_MASKED  1u

struct message {   /* one translated interrupt */
    uint64_t addr; /* dom0's */
    uint32_t data;
    uint8_t vector; /* host's, 0 for none */
};

struct msix_table {
    paddr_t pa;
    unsigned count;
    struct message *msg;
    uint32_t *control; /* dom0's vector control words */
};

struct pci_device {
    struct pci_device *next;
    uint32_t bdf;      /* bus << 8 | device << 3 | function */
    uint8_t msi, msix; /* capability offsets, 0 for none */
    bool msi_64;
    struct message message; /* MSI */
    struct msix_table table;
};

static spinlock_t pci_lock;
static struct pci_device *devices;
static uint32_t cf8;
static struct message *by_index[MAX_MESSAGES]; /* interrupt data is an index here */
static unsigned nr_by_index;

/* ---- hardware access
 * -------------------------------------------------------------------------------- */
static uint32_t hw_read(uint32_t bdf, unsigned reg, unsigned bytes)
{
    if (reg >= 256) {
        volatile char *p =
            (volatile char *)(UCMAP_BASE + acpi_info.segments[0].pa + ((uint64_t)bdf << 12) + reg);
        return bytes == 1   ? *(volatile uint8_t *)p
               : bytes == 2 ? *(volatile uint16_t *)p
                            : mmio_read32(p);
    }
    outl(0xcf8, 0x80000000u | bdf << 8 | (reg & 0xfc));
    uint16_t port = (uint16_t)(0xcfc + (reg & 3));
    return bytes == 1 ? inb(port) : bytes == 2 ? inw(port) : inl(port);
}

static void hw_write(uint32_t bdf, unsigned reg, unsigned bytes, uint32_t v)
{
    if (reg >= 256) {
        volatile char *p =
            (volatile char *)(UCMAP_BASE + acpi_info.segments[0].pa + ((uint64_t)bdf << 12) + reg);
        if (bytes == 1)
            *(volatile uint8_t *)p = (uint8_t)v;
        else if (bytes == 2)
            *(volatile uint16_t *)p = (uint16_t)v;
        else
            mmio_write32(p, v);
        return;
    }
    outl(0xcf8, 0x80000000u | bdf << 8 | (reg & 0xfc));
    uint16_t port = (uint16_t)(0xcfc + (reg & 3));
    if (bytes == 1)
        outb(port, (uint8_t)v);
    else if (bytes == 2)
        outw(port, (uint16_t)v);
    else
        outl(port, v);
}

/* ---- messages
 * ------------------------------------------------------------------------------------------ */
static void message_interrupt(unsigned index)
{
    struct message *m = by_index[index];
    lapic_eoi();
    platform_msi(dom0, m->addr, m->data);
}

/* A host vector for m, once; stays with it. */
static bool bind_message(struct message *m)
{
    if (m->vector)
        return true;
    if (nr_by_index >= MAX_MESSAGES)
        return false;
    by_index[nr_by_index] = m;
    int v = trap_alloc_vector(message_interrupt, nr_by_index);
    if (v < 0) {
        log_err("no host vector left for an MSI of dom0");
        return false;
    }
    nr_by_index++;
    m->vector = (uint8_t)v;
    return true;
}

static uint32_t host_address(void)
{
    return MSG_BASE | cpus[0]->apic_id << 12;
}

/* ---- devices
 * -------------------------------------------------------------------------------------------- */
static void find_capabilities(struct pci_device *p)
{
    if (!(hw_read(p->bdf, 6, 2) & 0x10))
        return;
    unsigned at = hw_read(p->bdf, 0x34, 1) & 0xfc;
    for (int i = 0; i < 48 && at >= 0x40; i++) {
        unsigned id = hw_read(p->bdf, at, 1);
        if (id == CAP_MSI) {
            p->msi = (uint8_t)at;
            p->msi_64 = hw_read(p->bdf, at + 2, 2) & MSI_64BIT;
        } else if (id == CAP_MSIX) {
            p->msix = (uint8_t)at;
        }
        at = hw_read(p->bdf, at + 1, 1) & 0xfc;
    }
}

/* The record of bdf, made at dom0's first access to a device that is there. pci_lock is held. */
static struct pci_device *find_device(uint32_t bdf)
{
    struct pci_device *p;
    for (p = devices; p; p = p->next) {
        if (p->bdf == bdf)
            return p;
    }
    if ((hw_read(bdf, 0, 2) & 0xffff) == 0xffff)
        return NULL;
    p = kzalloc(sizeof(*p));
    if (!p)
        return NULL;
    p->bdf = bdf;
    find_capabilities(p);
    p->next = devices;
    devices = p;
    return p;
}

/* ---- MSI
 * ------------------------------------------------------------------------------------------------
 */
static unsigned msi_data_reg(const struct pci_device *p)
{
    return p->msi + (p->msi_64 ? 12u : 8u);
}

static void program_msi(struct pci_device *p)
{
    if (!bind_message(&p->message))
        return;
    hw_write(p->bdf, p->msi + 4u, 4, host_address());
    if (p->msi_64)
        hw_write(p->bdf, p->msi + 8u, 4, 0);
    hw_write(p->bdf, msi_data_reg(p), 2, p->message.vector);
}

/* Merge a partial write into a 32-bit register kept here. */
static uint32_t merge(uint32_t old, unsigned off, unsigned bytes, uint32_t v)
{
    uint32_t mask = (bytes == 4 ? ~0u : (1u << 8 * bytes) - 1) << 8 * off;
    return (old & ~mask) | (v << 8 * off & mask);
}

/* True when the access was to one of the translated registers. */
static bool msi_access(struct pci_device *p, unsigned reg, unsigned bytes, bool write,
                       uint32_t *val)
{
    unsigned data_reg = msi_data_reg(p), word = reg & ~3u, off = reg & 3;
    uint32_t have;
    if (word == p->msi) {
        if (write && reg <= p->msi + 2u && reg + bytes > p->msi + 2u) {
            uint32_t control = *val >> 8 * (p->msi + 2u - reg);
            if (control & MSI_ENABLE)
                program_msi(p);
            hw_write(p->bdf, p->msi + 2u, 2, control & 0xff8f);
            return true;
        }
        if (write)
            return true;
        have = hw_read(p->bdf, word, 4) & ~((uint32_t)MSI_MULTIPLE << 16);
    } else if (word == p->msi + 4u) {
        have = (uint32_t)p->message.addr;
        if (write)
            p->message.addr = (p->message.addr >> 32 << 32) | merge(have, off, bytes, *val);
    } else if (p->msi_64 && word == p->msi + 8u) {
        have = (uint32_t)(p->message.addr >> 32);
        if (write)
            p->message.addr = (uint32_t)p->message.addr | (uint64_t)merge(have, off, bytes, *val)
                                                              << 32;
    } else if (word == data_reg) {
        have = p->message.data;
        if (write)
            p->message.data = merge(have, off, bytes, *val) & 0xffff;
    } else {
        return false;
    }
    if (!write)
        *val = have >> 8 * off;
    return true;
}

/* ---- MSI-X
 * ---------------------------------------------------------------------------------------------- */
static paddr_t bar_address(uint32_t bdf, unsigned bar)
{
    uint32_t lo = hw_read(bdf, 0x10 + 4 * bar, 4);
    if (lo & 1)
        return 0;
    paddr_t pa = lo & ~0xfu;
    if ((lo & 6) == 4 && bar < 5)
        pa |= (paddr_t)hw_read(bdf, 0x14 + 4 * bar, 4) << 32;
    return pa;
}

static void trap_table(struct pci_device *p)
{
    struct msix_table *t = &p->table;
    uint32_t where = hw_read(p->bdf, p->msix + 4u, 4);
    paddr_t bar = bar_address(p->bdf, where & 7);
    unsigned count = (hw_read(p->bdf, p->msix + 2u, 2) & 0x7ff) + 1;
    if (!bar)
        return;
    if (!t->msg) {
        t->msg = kzalloc(count * sizeof(*t->msg));
        t->control = kzalloc(count * sizeof(*t->control));
        if (!t->msg || !t->control) {
            kfree(t->msg);
            kfree(t->control);
            t->msg = NULL;
            t->control = NULL;
            log_err("no memory for an MSI-X table of dom0's");
            return;
        }
        t->count = count;
        for (unsigned i = 0; i < count; i++)
            t->control[i] = MSIX_MASKED;
    }
    t->pa = bar + (where & ~7u);
    for (gfn_t g = PFN_DOWN(t->pa); g <= PFN_DOWN(t->pa + t->count * MSIX_ENTRY - 1); g++) {
        if (p2m_set(dom0, g, INVALID_MFN, 0, P2M_MMIO_DM))
            log_err("MSI-X table page %lx of dom0's cannot be trapped", g);
    }
}

static void program_entry(struct msix_table *t, unsigned i)
{
    volatile char *e = (volatile char *)(UCMAP_BASE + t->pa + i * MSIX_ENTRY);
    if (!(t->control[i] & MSIX_MASKED) && bind_message(&t->msg[i])) {
        mmio_write32(e + 12, MSIX_MASKED);
        mmio_write32(e, host_address());
        mmio_write32(e + 4, 0);
        mmio_write32(e + 8, t->msg[i].vector);
    }
    mmio_write32(e + 12, t->control[i]);
}

static bool table_access(struct msix_table *t, paddr_t gpa, unsigned bytes, bool write,
                         uint64_t *val)
{
    unsigned i = (unsigned)(gpa - t->pa) / MSIX_ENTRY, off = (unsigned)(gpa - t->pa) % MSIX_ENTRY;
    struct message *m = &t->msg[i];
    if (off % 4 || (bytes != 4 && bytes != 8))
        return true; /* PCI 3.0, 6.8.2: only aligned words are defined */
    for (unsigned k = 0; k < bytes; k += 4, off += 4) {
        uint32_t v = (uint32_t)(*val >> 8 * k), have = 0;
        switch (off) {
        case 0:
            have = (uint32_t)m->addr;
            if (write)
                m->addr = (m->addr >> 32 << 32) | v;
            break;
        case 4:
            have = (uint32_t)(m->addr >> 32);
            if (write)
                m->addr = (uint32_t)m->addr | (uint64_t)v << 32;
            break;
        case 8:
            have = m->data;
            if (write)
                m->data = v;
            break;
        case 12:
            have = t->control[i];
            if (write) {
                t->control[i] = v;
                program_entry(t, i);
            }
            break;
        }
        if (!write)
            *val = (k ? *val : 0) | (uint64_t)have << 8 * k;
    }
    return true;
}

static void pass_through(paddr_t pa, unsigned bytes, bool write, uint64_t *val)
{
    volatile char *p = (volatile char *)(UCMAP_BASE + pa);
    switch (bytes) {
    case 1:
        if (write)
            *(volatile uint8_t *)p = (uint8_t)*val;
        else
            *val = *(volatile uint8_t *)p;
        break;
    case 2:
        if (write)
            *(volatile uint16_t *)p = (uint16_t)*val;
        else
            *val = *(volatile uint16_t *)p;
        break;
    case 4:
        if (write)
            mmio_write32(p, (uint32_t)*val);
        else
            *val = mmio_read32(p);
        break;
    default:
        if (write)
            *(volatile uint64_t *)p = *val;
        else
            *val = *(volatile uint64_t *)p;
    }
}

bool dom0_msix_mmio(paddr_t gpa, unsigned bytes, bool write, uint64_t *val)
{
    bool taken = false;
    spin_lock(&pci_lock);
    for (struct pci_device *p = devices; p && !taken; p = p->next) {
        struct msix_table *t = &p->table;
        paddr_t end = t->pa + (paddr_t)t->count * MSIX_ENTRY;
        if (!t->pa || gpa < (t->pa & PAGE_MASK) || gpa >= ALIGN_UP(end, PAGE_SIZE))
            continue;
        if (gpa >= t->pa && gpa < end)
            table_access(t, gpa, bytes, write, val);
        else
            pass_through(gpa, bytes, write, val); /* the device's other registers in that page */
        taken = true;
    }
    spin_unlock(&pci_lock);
    return taken;
}

static void msix_control_write(struct pci_device *p, unsigned reg, unsigned bytes, uint32_t val)
{
    if (reg <= p->msix + 3u && reg + bytes > p->msix + 3u &&
        val >> 8 * (p->msix + 3u - reg) & MSIX_ENABLE >> 8)
        trap_table(p);
}

/* ---- configuration space
 * ---------------------------------------------------------------------------------- */
void dom0_pci_config(uint32_t bdf, unsigned reg, unsigned bytes, bool write, uint32_t *val)
{
    spin_lock(&pci_lock);
    struct pci_device *p = reg >= 0x40 && reg < 256 ? find_device(bdf) : NULL;
    if (p && p->msi && reg >= p->msi && reg < msi_data_reg(p) + 4 &&
        msi_access(p, reg, bytes, write, val)) {
        spin_unlock(&pci_lock);
        return;
    }
    if (p && p->msix && write)
        msix_control_write(p, reg, bytes, *val);
    if (write)
        hw_write(bdf, reg, bytes, *val);
    else
        *val = hw_read(bdf, reg, bytes);
    spin_unlock(&pci_lock);
}

/* ---- ports
 * ---------------------------------------------------------------------------------------------------
 */
bool dom0_port_traps(uint16_t port)
{
    return (port & 0xfff8) == 0xcf8 || (port & 0xff7e) == 0x20 || (port & 0xfffc) == 0x40 ||
           (port & 0xfffe) == 0x4d0 || (console_ioport && (port & 0xfff8) == console_ioport);
}

bool dom0_pio(struct vcpu *v, uint16_t port, unsigned bytes, bool write, uint32_t *val)
{
    (void)v;
    if ((port & 0xfffc) == 0x40 || (port & 0xff7e) == 0x20) {
        *val = 0; /* no PIT, no PIC: zeroes make Linux's calibration give up at its first look */
        return true;
    }
    if (port == 0xcf8 && bytes == 4) {
        if (write)
            cf8 = *val;
        else
            *val = cf8;
        return true;
    }
    if (port == 0xcf9 && bytes == 1) {
        if (write && *val & 4)
            machine_reboot();
        *val = 0;
        return true;
    }
    if ((port & 0xfffc) == 0xcfc && (port & 3) + bytes <= 4 && cf8 & 0x80000000u) {
        uint32_t bdf = cf8 >> 8 & 0xffff;
        unsigned reg = (cf8 & 0xfc) | (port & 3);
        dom0_pci_config(bdf, reg, bytes, write, val);
        return true;
    }
    return false;
}

int dom0_pci_init(struct domain *d)
{
    d->dom0_pci = &devices;
    return 0;
}
