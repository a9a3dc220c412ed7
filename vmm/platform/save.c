/* save.c: HVM contexts: a domain's state as a stream of typed records (<xen/hvm/save.h>).
 *
 * One table says for each type which instances there are and who saves and loads it. libxl's
 * builder reads a fresh domain's HEADER and MTRR and writes HEADER, CPU, MTRR and END back.
 */
#include "platform/inner.h"

#define VARIABLE 0 /* length of records whose size differs from vCPU to vCPU */

enum instances { PER_DOMAIN, PER_CHIP, PER_VCPU };

/* save: bytes written to buf (at most `bytes`), or with buf NULL the most it may write; -ENOENT to
 * leave the record out. load: 0 or -EINVAL. */
struct record_type {
    unsigned code;
    enum instances instances;
    uint32_t length;
    uint32_t emu; /* XEN_X86_EMU_* that the domain must have; 0 for none */
    long (*save)(struct domain *d, unsigned instance, void *buf, size_t bytes);
    int (*load)(struct domain *d, unsigned instance, const void *buf, size_t bytes);
};

/* ---- defaults for what the vendor-neutral state code gives -------------------------------- */

#define WEAK __attribute__((weak))

WEAK int hvm_cpu_save(struct vcpu *v, struct hvm_hw_cpu *out)
{
    (void)v, (void)out;
    return -ENOENT;
}
WEAK int hvm_cpu_load(struct vcpu *v, const struct hvm_hw_cpu *in)
{
    (void)v, (void)in;
    return -EOPNOTSUPP;
}
WEAK int hvm_mtrr_save(struct vcpu *v, struct hvm_hw_mtrr *out)
{
    (void)v, (void)out;
    return -ENOENT;
}
WEAK int hvm_mtrr_load(struct vcpu *v, const struct hvm_hw_mtrr *in)
{
    (void)v, (void)in;
    return 0;
}
WEAK int hvm_tsc_adjust_save(struct vcpu *v, struct hvm_tsc_adjust *out)
{
    (void)v, (void)out;
    return -ENOENT;
}
WEAK int hvm_tsc_adjust_load(struct vcpu *v, const struct hvm_tsc_adjust *in)
{
    (void)v, (void)in;
    return 0;
}
WEAK long hvm_xsave_save(struct vcpu *v, void *buf, size_t bytes)
{
    (void)v, (void)buf, (void)bytes;
    return -ENOENT;
}
WEAK int hvm_xsave_load(struct vcpu *v, const void *buf, size_t bytes)
{
    (void)v, (void)buf, (void)bytes;
    return 0;
}
WEAK long hvm_msr_save(struct vcpu *v, void *buf, size_t bytes)
{
    (void)v, (void)buf, (void)bytes;
    return -ENOENT;
}
WEAK int hvm_msr_load(struct vcpu *v, const void *buf, size_t bytes)
{
    (void)v, (void)buf, (void)bytes;
    return 0;
}

/* ---- one pair of functions a type ---------------------------------------------------------- */

#define DOMAIN_RECORD(name, type, dev)                                                             \
    static long name##_out(struct domain *d, unsigned i, void *buf, size_t bytes)                  \
    {                                                                                              \
        (void)i, (void)bytes;                                                                      \
        return dev##_save(d, buf);                                                                 \
    }                                                                                              \
    static int name##_in(struct domain *d, unsigned i, const void *buf, size_t bytes)              \
    {                                                                                              \
        (void)i, (void)bytes;                                                                      \
        return dev##_load(d, (const type *)buf);                                                   \
    }
#define irq_pci_save  irq_lines_save_pci
#define irq_pci_load  irq_lines_load_pci
#define irq_isa_save  irq_lines_save_isa
#define irq_isa_load  irq_lines_load_isa
#define irq_link_save irq_lines_save_link
#define irq_link_load irq_lines_load_link
DOMAIN_RECORD(ioapic, struct hvm_hw_vioapic, vioapic)
DOMAIN_RECORD(pit, struct hvm_hw_pit, vpit)
DOMAIN_RECORD(rtc, struct hvm_hw_rtc, vrtc)
DOMAIN_RECORD(hpet, struct hvm_hw_hpet, vhpet)
DOMAIN_RECORD(pm, struct hvm_hw_pmtimer, vpmtmr)
DOMAIN_RECORD(pci, struct hvm_hw_pci_irqs, irq_pci)
DOMAIN_RECORD(isa, struct hvm_hw_isa_irqs, irq_isa)
DOMAIN_RECORD(link, struct hvm_hw_pci_link, irq_link)

static long pic_out(struct domain *d, unsigned i, void *buf, size_t bytes)
{
    (void)bytes;
    return vpic_save(d, i, buf);
}
static int pic_in(struct domain *d, unsigned i, const void *buf, size_t bytes)
{
    (void)bytes;
    return vpic_load(d, i, buf);
}

#define VCPU_RECORD(name, type, save_fn, load_fn)                                                  \
    static long name##_out(struct domain *d, unsigned i, void *buf, size_t bytes)                  \
    {                                                                                              \
        (void)bytes;                                                                               \
        return save_fn(d->vcpu[i], buf);                                                           \
    }                                                                                              \
    static int name##_in(struct domain *d, unsigned i, const void *buf, size_t bytes)              \
    {                                                                                              \
        (void)bytes;                                                                               \
        return load_fn(d->vcpu[i], (const type *)buf);                                             \
    }
VCPU_RECORD(lapic, struct hvm_hw_lapic, vlapic_save, vlapic_load)
VCPU_RECORD(lapic_regs, struct hvm_hw_lapic_regs, vlapic_save_regs, vlapic_load_regs)
VCPU_RECORD(mtrr, struct hvm_hw_mtrr, hvm_mtrr_save, hvm_mtrr_load)
VCPU_RECORD(tsc_adjust, struct hvm_tsc_adjust, hvm_tsc_adjust_save, hvm_tsc_adjust_load)

/* A vCPU that is down has no CPU record: loading one brings a vCPU up. */
static long cpu_out(struct domain *d, unsigned i, void *buf, size_t bytes)
{
    (void)bytes;
    return atomic_load(&d->vcpu[i]->block) & VBLOCK_DOWN ? -ENOENT : hvm_cpu_save(d->vcpu[i], buf);
}
static int cpu_in(struct domain *d, unsigned i, const void *buf, size_t bytes)
{
    (void)bytes;
    return hvm_cpu_load(d->vcpu[i], buf);
}
static long xsave_out(struct domain *d, unsigned i, void *buf, size_t bytes)
{
    if (buf && (atomic_load(&d->vcpu[i]->block) & VBLOCK_DOWN))
        return -ENOENT;
    return hvm_xsave_save(d->vcpu[i], buf, bytes);
}
static int xsave_in(struct domain *d, unsigned i, const void *buf, size_t bytes)
{
    return hvm_xsave_load(d->vcpu[i], buf, bytes);
}
static long msr_out(struct domain *d, unsigned i, void *buf, size_t bytes)
{
    return hvm_msr_save(d->vcpu[i], buf, bytes);
}
static int msr_in(struct domain *d, unsigned i, const void *buf, size_t bytes)
{
    return hvm_msr_load(d->vcpu[i], buf, bytes);
}

static uint32_t host_cpuid_1_eax(void)
{
    uint32_t a = 1, b, c = 0, d;

    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return a;
}

static long header_out(struct domain *d, unsigned i, void *buf, size_t bytes)
{
    struct hvm_save_header *h = buf;

    (void)i, (void)bytes;
    *h = (struct hvm_save_header){.magic = HVM_FILE_MAGIC,
                                  .version = HVM_FILE_VERSION,
                                  .changeset = ~0ULL,
                                  .cpuid = host_cpuid_1_eax(),
                                  .gtsc_khz = (uint32_t)(d->tsc_khz ? d->tsc_khz : tsc_khz)};
    return 0;
}
static int header_in(struct domain *d, unsigned i, const void *buf, size_t bytes)
{
    const struct hvm_save_header *h = buf;

    (void)d, (void)i, (void)bytes;
    return h->magic == HVM_FILE_MAGIC && h->version == HVM_FILE_VERSION ? 0 : -EINVAL;
}

#define FIXED(NAME, which, needs, name)                                                            \
    {                                                                                              \
        HVM_SAVE_CODE(NAME), which, HVM_SAVE_LENGTH(NAME), needs, name##_out, name##_in            \
    }

/* In the order of saving; loading takes any order after HEADER. */
static const struct record_type types[] = {
    FIXED(HEADER, PER_DOMAIN, 0, header),
    FIXED(CPU, PER_VCPU, 0, cpu),
    FIXED(PIC, PER_CHIP, XEN_X86_EMU_PIC, pic),
    FIXED(IOAPIC, PER_DOMAIN, XEN_X86_EMU_IOAPIC, ioapic),
    FIXED(LAPIC, PER_VCPU, XEN_X86_EMU_LAPIC, lapic),
    FIXED(LAPIC_REGS, PER_VCPU, XEN_X86_EMU_LAPIC, lapic_regs),
    FIXED(PCI_IRQ, PER_DOMAIN, 0, pci),
    FIXED(ISA_IRQ, PER_DOMAIN, 0, isa),
    FIXED(PCI_LINK, PER_DOMAIN, 0, link),
    FIXED(PIT, PER_DOMAIN, XEN_X86_EMU_PIT, pit),
    FIXED(RTC, PER_DOMAIN, XEN_X86_EMU_RTC, rtc),
    FIXED(HPET, PER_DOMAIN, XEN_X86_EMU_HPET, hpet),
    FIXED(PMTIMER, PER_DOMAIN, XEN_X86_EMU_PM, pm),
    FIXED(MTRR, PER_VCPU, 0, mtrr),
    {CPU_XSAVE_CODE, PER_VCPU, VARIABLE, 0, xsave_out, xsave_in},
    FIXED(TSC_ADJUST, PER_VCPU, 0, tsc_adjust),
    {CPU_MSR_CODE, PER_VCPU, VARIABLE, 0, msr_out, msr_in},
};

/* Types of Xen's that hold nothing here: skipped on load. */
static bool is_ignored(unsigned code)
{
    return code == HVM_SAVE_CODE(VIRIDIAN_DOMAIN) || code == HVM_SAVE_CODE(VIRIDIAN_VCPU) ||
           code == HVM_SAVE_CODE(VMCE_VCPU);
}

static const struct record_type *find_type(unsigned code)
{
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++)
        if (types[i].code == code)
            return &types[i];
    return NULL;
}

static bool instance_exists(const struct domain *d, const struct record_type *t, unsigned instance)
{
    if (t->emu && !has_emulation(d, t->emu))
        return false;
    switch (t->instances) {
    case PER_DOMAIN:
        return instance == 0;
    case PER_CHIP:
        return instance < 2;
    case PER_VCPU:
        return instance < d->max_vcpus && d->vcpu[instance];
    }
    return false;
}

static unsigned instances_of(const struct domain *d, const struct record_type *t)
{
    return t->instances == PER_VCPU ? d->max_vcpus : t->instances == PER_CHIP ? 2 : 1;
}

/* Payload bytes at most, or the errno of a type that has none. */
static long payload_limit(struct domain *d, const struct record_type *t, unsigned instance)
{
    return t->length ? (long)t->length : t->save(d, instance, NULL, 0);
}

/* Save one payload into buf: bytes used, or a negative errno. buf is zeroed first. */
static long save_payload(struct domain *d, const struct record_type *t, unsigned instance,
                         void *buf, size_t bytes)
{
    long need = payload_limit(d, t, instance);

    if (need < 0)
        return need;
    if ((size_t)need > bytes)
        return -ENOSPC;
    memset(buf, 0, (size_t)need);
    long got = t->save(d, instance, buf, bytes);
    return got < 0 ? got : t->length ? (long)t->length : got;
}

static long saved_size(struct domain *d)
{
    size_t total = sizeof(struct hvm_save_descriptor); /* END */

    for (unsigned n = 0; n < ARRAY_SIZE(types); n++) {
        for (unsigned i = 0; i < instances_of(d, &types[n]); i++) {
            if (!instance_exists(d, &types[n], i))
                continue;
            long need = payload_limit(d, &types[n], i);
            if (need >= 0)
                total += sizeof(struct hvm_save_descriptor) + (size_t)need;
        }
    }
    return (long)total;
}

static void put_descriptor(void *at, unsigned code, unsigned instance, size_t length)
{
    struct hvm_save_descriptor desc = {(uint16_t)code, (uint16_t)instance, (uint32_t)length};

    memcpy(at, &desc, sizeof(desc));
}

/* Append one record at *used; 0, or -ENOSPC. A record that does not exist adds nothing. */
static int append(struct domain *d, const struct record_type *t, unsigned instance, char *buf,
                  size_t bytes, size_t *used)
{
    size_t head = sizeof(struct hvm_save_descriptor);

    if (!instance_exists(d, t, instance))
        return 0;
    if (bytes - *used < head)
        return -ENOSPC;
    long got = save_payload(d, t, instance, buf + *used + head, bytes - *used - head);
    if (got == -ENOENT || got == -EOPNOTSUPP)
        return 0;
    if (got < 0)
        return (int)got;
    put_descriptor(buf + *used, t->code, instance, (size_t)got);
    *used += head + (size_t)got;
    return 0;
}

/* d is paused. buf (8-byte aligned) NULL: the most that can be needed. -ENOSPC. */
long hvm_context_save(struct domain *d, void *buf, size_t bytes)
{
    size_t used = 0;

    if (!buf)
        return saved_size(d);
    for (unsigned n = 0; n < ARRAY_SIZE(types); n++) {
        for (unsigned i = 0; i < instances_of(d, &types[n]); i++) {
            int err = append(d, &types[n], i, buf, bytes, &used);
            if (err)
                return err;
        }
    }
    if (bytes - used < sizeof(struct hvm_save_descriptor))
        return -ENOSPC;
    put_descriptor((char *)buf + used, HVM_SAVE_CODE(END), 0, 0);
    return (long)(used + sizeof(struct hvm_save_descriptor));
}

/* The payload alone of one record. d is paused. buf NULL: its size. -ENOENT: no such record. */
long hvm_context_save_one(struct domain *d, unsigned typecode, unsigned instance, void *buf,
                          size_t bytes)
{
    const struct record_type *t = find_type(typecode);

    if (!t || !instance_exists(d, t, instance))
        return -ENOENT;
    return buf ? save_payload(d, t, instance, buf, bytes) : payload_limit(d, t, instance);
}

/* One record of the stream. */
static int load_record(struct domain *d, const struct hvm_save_descriptor *desc, const void *data)
{
    const struct record_type *t = find_type(desc->typecode);

    if (!t) {
        if (is_ignored(desc->typecode))
            return 0;
        guest_printk(LOG_WARN, "d%u: HVM context: unknown record %u\n", d->id, desc->typecode);
        return -EINVAL;
    }
    if (!instance_exists(d, t, desc->instance))
        return -EINVAL;
    if (t->length && desc->length != t->length) {
        guest_printk(LOG_WARN, "d%u: HVM context: record %u.%u of %u bytes, not %u\n", d->id,
                     desc->typecode, desc->instance, desc->length, t->length);
        return -EINVAL;
    }
    int err = t->load(d, desc->instance, data, desc->length);
    if (err)
        guest_printk(LOG_WARN, "d%u: HVM context: record %u.%u refused: %d\n", d->id,
                     desc->typecode, desc->instance, err);
    return err;
}

/* d is paused, buf is 8-byte aligned. HEADER first, END last; what is between may be any part of
 * the state. -EINVAL for a malformed stream or a state no guest can have; what came before the
 * offending record was loaded. */
long hvm_context_load(struct domain *d, const void *buf, size_t bytes)
{
    const char *at = buf;
    bool first = true;

    while (bytes >= sizeof(struct hvm_save_descriptor)) {
        struct hvm_save_descriptor desc;
        memcpy(&desc, at, sizeof(desc));
        at += sizeof(desc);
        bytes -= sizeof(desc);
        if (desc.length > bytes || desc.length % 8)
            return -EINVAL;
        if (first != (desc.typecode == HVM_SAVE_CODE(HEADER)))
            return -EINVAL;
        first = false;
        if (desc.typecode == HVM_SAVE_CODE(END)) {
            vioapic_resync(d);
            return at - (const char *)buf;
        }
        int err = load_record(d, &desc, at);
        if (err)
            return err;
        at += desc.length;
        bytes -= desc.length;
    }
    return -EINVAL; /* no END */
}
