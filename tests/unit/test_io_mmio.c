/* sources: vmm/platform/io.c vmm/platform/mmio.c vmm/platform/mmio_fast.c vmm/platform/mmio_string.c vmm/platform/mmio_cpu.c vmm/platform/emul_arith.c vmm/platform/emul_decode.c vmm/platform/emul_exec.c vmm/platform/emul_flow.c vmm/platform/emul_int.c vmm/platform/emul_io.c vmm/platform/emul_misc.c vmm/platform/emul_operand.c vmm/platform/emul_seg.c vmm/platform/emul_sse.c vmm/platform/emul_stack.c vmm/platform/emul_string.c vmm/platform/emul_sys.c vmm/platform/emul_tables.c */
/* test_io_mmio.c: intercepted accesses with the real emulator and a made-up machine: 16 pages of
 * RAM at 0, linear = guest-physical plus LINEAR, a local device page and a device model that
 * answers late. Every access a device sees is logged, so that one made twice shows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "core/errno.h"
#include "core/print.h"
#include "core/string.h"
#include "platform/ioreq.h"
#include "platform/mmio.h"

#define RAM_PAGES 16
#define ROM_PAGE  12
#define LINEAR    0x7f0000000000ULL
#define CODE      0x1000
#define LAPIC     0xfee00000u
#define DEVICE    0xf0000000u
#define NOBODY    0xe0000000u
#define VGA       0xa0000u

char *host_test_ram;
struct page_info *frame_table;
mfn_t max_mfn = RAM_PAGES;
struct cpu host_test_cpu;

static struct domain dom;
static struct ioreq_domain servers;
static struct vcpu vcpu;
static struct mmio_vcpu *m;

static struct {
    ioreq_t req;
    bool outstanding, answered, is_mem_type;
} dm;
static ioreq_t log[64];
static unsigned nr_log, nr_posted, crashes, injected_vector, walks, dirty, local_reads;
static bool watched_page_server = true;
static paddr_t everything_at; /* where all linear addresses lead, if not 0 */
static bool claims_hidden;    /* from the next question only */
static unsigned local_accesses;
static uint64_t injected_cr2, local_value, skipped;
static char debug_text[64];
static unsigned debug_chars;

/* ---- the machine ---------------------------------------------------------------------------- */

void *kzalloc(size_t bytes)
{
    return calloc(1, bytes);
}
void kfree(void *p)
{
    free(p);
}
int guest_walk(struct domain *d, const struct gwalk_mode *mode, uint64_t linear, unsigned access,
               paddr_t *gpa, uint32_t *pfec)
{
    (void)d, (void)mode;
    walks += !(access & GWALK_FETCH);
    if (everything_at && !(access & GWALK_FETCH)) {
        *gpa = everything_at;
        return 0;
    }
    if (linear < LINEAR || linear - LINEAR > 0xffffffff || linear - LINEAR == 0x9000) {
        *pfec = access & GWALK_WRITE ? 2 : 0;
        return -EFAULT;
    }
    *gpa = linear - LINEAR;
    return 0;
}
mfn_t p2m_get(struct domain *d, gfn_t gfn, enum p2m_type *t, unsigned *order)
{
    (void)d;
    *order = 0;
    *t = gfn >= RAM_PAGES  ? P2M_HOLE
         : gfn == ROM_PAGE ? P2M_RAM_RO
         : gfn == 13       ? P2M_IOREQ_SERVER
                           : P2M_RAM;
    return gfn >= RAM_PAGES ? INVALID_MFN : gfn;
}
struct page_info *p2m_get_page(struct domain *d, gfn_t gfn, bool write, enum p2m_type *t)
{
    unsigned order;

    if (p2m_get(d, gfn, t, &order) == INVALID_MFN || (write && !p2m_is_writable(*t)))
        return NULL;
    dirty += write;
    frame_table[gfn].refs++;
    return &frame_table[gfn];
}
void page_put(struct page_info *pg)
{
    assert_true(pg->refs > 0);
    pg->refs--;
}
bool platform_pio(struct vcpu *v, uint16_t port, unsigned bytes, bool write, uint32_t *val)
{
    (void)v, (void)bytes;
    if (port != 0x40)
        return false;
    if (write)
        local_value = *val;
    else
        *val = 0x12345678;
    return true;
}
bool dom0_pio(struct vcpu *v, uint16_t port, unsigned bytes, bool write, uint32_t *val)
{
    (void)v, (void)bytes;
    if (port != 0x60)
        return false;
    if (!write)
        *val = 0xd0;
    return true;
}
bool dom0_mmio(struct vcpu *v, paddr_t gpa, unsigned bytes, bool write, uint64_t *val)
{
    (void)v, (void)bytes;
    if (gpa != NOBODY)
        return false;
    if (!write)
        *val = 0x8086;
    return true;
}
bool platform_mmio_claims(struct vcpu *v, paddr_t gpa)
{
    (void)v;
    if (claims_hidden) {
        claims_hidden = false;
        return false;
    }
    return (gpa & PAGE_MASK) == LAPIC;
}
bool platform_mmio(struct vcpu *v, paddr_t gpa, unsigned bytes, bool write, uint64_t *val)
{
    (void)bytes;
    if (!platform_mmio_claims(v, gpa))
        return false;
    local_accesses++;
    if (write)
        local_value = *val;
    else
        *val = 0xa91c0000 + local_reads++;
    return true;
}
void console_guest_char(struct domain *d, char c)
{
    (void)d;
    debug_text[debug_chars++] = c;
}
static uint32_t cf8;
bool ioreq_cf8_write(struct vcpu *v, uint32_t val)
{
    (void)v;
    cf8 = val;
    return val & 1;
}
uint32_t ioreq_cf8_read(struct vcpu *v)
{
    (void)v;
    return cf8;
}
static bool claimed(const ioreq_t *p)
{
    if (p->type == IOREQ_TYPE_PIO)
        return p->addr >= 0x170 || p->addr == 0x80;
    return (p->addr & ~0xfffffULL) == DEVICE || (p->addr >= VGA && p->addr < 0xc0000);
}
enum ioreq_result ioreq_send(struct vcpu *v, ioreq_t *p, bool buffered)
{
    assert_false(dm.outstanding);
    if (!claimed(p))
        return IOREQ_NO_SERVER;
    log[nr_log++] = *p;
    if (buffered && p->dir == IOREQ_WRITE) {
        nr_posted++;
        return IOREQ_DONE;
    }
    dm.req = *p;
    dm.outstanding = true;
    v->block |= VBLOCK_IOREQ;
    return IOREQ_PENDING;
}
enum ioreq_result ioreq_send_mem_type(struct vcpu *v, ioreq_t *p)
{
    if (!watched_page_server)
        return IOREQ_NO_SERVER;
    p->addr |= DEVICE; /* so that claimed() likes it */
    return ioreq_send(v, p, false);
}
bool ioreq_take_response(struct vcpu *v, uint64_t *data)
{
    if (!dm.answered)
        return false;
    dm.answered = dm.outstanding = false;
    v->block = 0;
    *data = dm.req.data;
    return true;
}
void hvm_skip(struct vcpu *v, unsigned bytes)
{
    v->regs.rip += bytes;
    skipped += bytes;
}
void hvm_inject_exception(struct vcpu *v, unsigned vector, int64_t error)
{
    (void)v, (void)error;
    injected_vector = vector;
}
void hvm_inject_page_fault(struct vcpu *v, uint64_t cr2, uint32_t error)
{
    (void)v, (void)error;
    injected_vector = EXC_PF;
    injected_cr2 = cr2;
}
void domain_crash(struct domain *d, const char *fmt, ...)
{
    (void)d, (void)fmt;
    crashes++;
}
void guest_printk(enum log_level level, const char *fmt, ...)
{
    (void)level, (void)fmt;
}
int hvm_set_cr0(struct vcpu *v, uint64_t val)
{
    (void)v, (void)val;
    return 0;
}
int hvm_set_cr3(struct vcpu *v, uint64_t val)
{
    (void)v, (void)val;
    return 0;
}
int hvm_set_cr4(struct vcpu *v, uint64_t val)
{
    (void)v, (void)val;
    return 0;
}
int hvm_set_xcr0(struct vcpu *v, uint64_t val)
{
    (void)v, (void)val;
    return 0;
}
int guest_rdmsr(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    (void)v, (void)msr, (void)val;
    return -EINVAL;
}
int guest_wrmsr(struct vcpu *v, uint32_t msr, uint64_t val)
{
    (void)v, (void)msr, (void)val;
    return -EINVAL;
}
void guest_cpuid(struct vcpu *v, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    (void)v, (void)leaf, (void)sub, (void)out;
}
uint8_t vlapic_get_tpr(const struct vcpu *v)
{
    (void)v;
    return 0;
}
void vlapic_set_tpr(struct vcpu *v, uint8_t tpr)
{
    (void)v, (void)tpr;
}

static unsigned cpl;
static void get_segment(struct vcpu *v, enum segment_reg r, struct segment *out)
{
    (void)v;
    *out = (struct segment){.attr = r == SEGR_CS ? 0xa9b : 0xc93, .limit = ~0u};
}
static void set_segment(struct vcpu *v, enum segment_reg r, const struct segment *in)
{
    (void)v, (void)r, (void)in;
}
static uint64_t debug_cr4;
static uint64_t get_cr(struct vcpu *v, unsigned cr)
{
    (void)v;
    return cr == 0 ? CR0_PE | CR0_PG : cr == 4 ? CR4_PAE | CR4_OSFXSR | debug_cr4 : 0;
}
static uint64_t get_efer(struct vcpu *v)
{
    (void)v;
    return EFER_LME | EFER_LMA;
}
static unsigned get_cpl(struct vcpu *v)
{
    (void)v;
    return cpl;
}
static void set_shadow(struct vcpu *v, unsigned shadow)
{
    (void)v, (void)shadow;
}
static uint64_t dr6, dr7, breakpoints[4];
static uint64_t get_dr(struct vcpu *v, unsigned dr)
{
    (void)v;
    return dr == 6 ? dr6 : dr == 7 ? dr7 : breakpoints[dr];
}
static void set_dr(struct vcpu *v, unsigned dr, uint64_t val)
{
    (void)v;
    if (dr == 6)
        dr6 = val;
}
static void get_insn_place(struct vcpu *v, struct insn_place *out)
{
    *out = (struct insn_place){
        .mode = {.cr0 = CR0_PE | CR0_PG, .cr4 = CR4_PAE | CR4_OSFXSR, .efer = EFER_LME | EFER_LMA},
        .linear = v->regs.rip,
        .bytes = 8,
        .cpl = (uint8_t)cpl,
    };
}
/* Instructions come by the short way and by the long one, in turn. */
bool guest_peek(struct vcpu *v, const struct gwalk_mode *m, uint64_t linear, void *buf,
                unsigned bytes)
{
    static unsigned turn;
    uint32_t pfec;
    paddr_t gpa;

    if (turn++ % 2 || guest_walk(v->domain, m, linear, GWALK_FETCH, &gpa, &pfec) ||
        gpa >= RAM_PAGES * PAGE_SIZE)
        return false;
    memcpy(buf, host_test_ram + gpa, bytes);
    return true;
}
paddr_t vlapic_page(const struct vcpu *v)
{
    (void)v;
    return LAPIC;
}
static const struct hvm_ops fake_ops = {
    .get_insn_place = get_insn_place,
    .get_segment = get_segment,
    .set_segment = set_segment,
    .get_cr = get_cr,
    .get_efer = get_efer,
    .get_cpl = get_cpl,
    .set_interrupt_shadow = set_shadow,
    .get_dr = get_dr,
    .set_dr = set_dr,
};
const struct hvm_ops *hvm_ops = &fake_ops;

/* ---- helpers -------------------------------------------------------------------------------- */

static int setup(void **state)
{
    (void)state;
    host_test_ram = aligned_alloc(PAGE_SIZE, RAM_PAGES * PAGE_SIZE);
    memset(host_test_ram, 0, RAM_PAGES * PAGE_SIZE);
    frame_table = calloc(RAM_PAGES, sizeof(*frame_table));
    memset(&dom, 0, sizeof(dom));
    memset(&servers, 0, sizeof(servers));
    memset(servers.claimed_ports, 0xff, sizeof(servers.claimed_ports));
    dom.ioreq = &servers;
    memset(&vcpu, 0, sizeof(vcpu));
    memset(&dm, 0, sizeof(dm));
    nr_log = nr_posted = crashes = walks = dirty = local_reads = debug_chars = 0;
    injected_vector = ~0u;
    local_value = skipped = dr6 = dr7 = debug_cr4 = 0;
    cpl = 0;
    watched_page_server = true;
    vcpu.domain = &dom;
    vcpu.regs.rip = LINEAR + CODE;
    vcpu.regs.rflags = 2;
    assert_int_equal(mmio_vcpu_init(&vcpu), 0);
    m = vcpu.emul;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mmio_vcpu_free(&vcpu);
    for (unsigned i = 0; i < RAM_PAGES; i++)
        assert_int_equal(frame_table[i].refs, 0);
    free(host_test_ram);
    free(frame_table);
    return 0;
}

static void code(const char *bytes, unsigned n)
{
    memcpy(host_test_ram + CODE, bytes, n);
}
#define CODE_BYTES(s) code(s, sizeof(s) - 1)

/* The device model answers and the vCPU loop goes on. */
static void answer(uint64_t data)
{
    assert_true(dm.outstanding);
    assert_true(vcpu.block & VBLOCK_IOREQ);
    dm.req.data = data;
    dm.answered = true;
    io_complete(&vcpu);
}

static bool finished(unsigned insn_bytes)
{
    return vcpu.regs.rip == LINEAR + CODE + insn_bytes && !dm.outstanding;
}

/* handle_mmio as if there were no fast path and any linear address led to gpa. */
static void emulate_slowly(paddr_t gpa, bool write)
{
    claims_hidden = true;
    everything_at = gpa;
    handle_mmio(&vcpu, gpa, 0, true, write, NULL, 0);
    everything_at = 0;
}

/* ---- ports ---------------------------------------------------------------------------------- */

static void port_local(void **state)
{
    (void)state;
    vcpu.regs.gpr[RAX] = 0xffffffffffffffff;
    handle_pio(&vcpu, 0x40, 1, true, 2);
    assert_int_equal(vcpu.regs.gpr[RAX], 0xffffffffffffff78);
    handle_pio(&vcpu, 0x40, 2, true, 2);
    assert_int_equal(vcpu.regs.gpr[RAX], 0xffffffffffff5678);
    handle_pio(&vcpu, 0x40, 4, true, 1);
    assert_int_equal(vcpu.regs.gpr[RAX], 0x12345678);
    handle_pio(&vcpu, 0x40, 1, false, 1);
    assert_int_equal(local_value, 0x78);
    assert_int_equal(skipped, 6);
    handle_pio(&vcpu, 0x100, 2, true, 1); /* nobody's */
    assert_int_equal(vcpu.regs.gpr[RAX], 0x1234ffff);
    vcpu.regs.gpr[RAX] = 'x';
    handle_pio(&vcpu, 0xe9, 1, false, 1);
    assert_int_equal(debug_text[0], 'x');
    handle_pio(&vcpu, 0x80, 1, false, 2); /* posted */
    assert_int_equal(nr_posted, 1);
    vcpu.regs.gpr[RAX] = 0x80000001;
    nr_log = 0;
    handle_pio(&vcpu, 0xcf8, 4, false, 1); /* latched; claimed: goes no further */
    assert_int_equal(nr_log, 0);
    vcpu.regs.gpr[RAX] = 0;
    handle_pio(&vcpu, 0xcf8, 4, true, 1);
    assert_int_equal(vcpu.regs.gpr[RAX], 0x80000001);
    dom.is_dom0 = true;
    handle_pio(&vcpu, 0x60, 1, true, 1);
    assert_int_equal(vcpu.regs.gpr[RAX], 0x800000d0);
    handle_pio(&vcpu, 0x170, 1, true, 1); /* not dom0's, and no device model either */
    assert_int_equal(vcpu.regs.gpr[RAX], 0x800000ff);
    assert_int_equal(nr_log, 0);
}

static void port_of_model(void **state)
{
    (void)state;
    vcpu.regs.gpr[RAX] = 0x1122334455667788;
    handle_pio(&vcpu, 0x1f0, 2, true, 2);
    assert_true(dm.outstanding);
    assert_int_equal(skipped, 0);
    io_complete(&vcpu); /* too early */
    assert_int_equal(skipped, 0);
    answer(0xdeadbeefcafe);
    assert_int_equal(vcpu.regs.gpr[RAX], 0x112233445566cafe);
    assert_true(finished(2));
    handle_pio(&vcpu, 0x1f0, 1, false, 1);
    assert_int_equal(dm.req.data, 0xfe);
    answer(0);
    assert_int_equal(vcpu.regs.gpr[RAX], 0x112233445566cafe);
    handle_pio(&vcpu, 0x1f0, 4, true, 1);
    vcpu.regs.rip = 0x7c00; /* reset while it waited: the answer is stale */
    skipped = 0;
    answer(7);
    assert_int_equal(vcpu.regs.rip, 0x7c00);
    assert_int_equal(vcpu.regs.gpr[RAX], 0x112233445566cafe);
}

/* ---- memory --------------------------------------------------------------------------------- */

static void local_register(void **state)
{
    (void)state;
    CODE_BYTES("\x8b\x83\x80\x00\x00\x00"); /* mov eax, [rbx + 0x80] */
    vcpu.regs.gpr[RBX] = LINEAR + LAPIC;
    handle_mmio(&vcpu, LAPIC + 0x80, 0, false, false, NULL, 0);
    assert_int_equal(vcpu.regs.gpr[RAX], 0xa91c0000);
    assert_true(finished(6));
    assert_int_equal(walks, 0); /* the hardware's translation was used */
    assert_int_equal(local_reads, 1);
    vcpu.regs.rip = LINEAR + CODE;
    CODE_BYTES("\x89\x83\xb0\x00\x00\x00"); /* mov [rbx + 0xb0], eax */
    handle_mmio(&vcpu, LAPIC + 0xb0, 0, false, true, (const uint8_t *)"\x89\x83\xb0\x00\x00\x00",
                6);
    assert_int_equal(local_value, 0xa91c0000);
    assert_true(finished(6));
    assert_int_equal(walks, 0);
    /* The same fault said to be a read: the write's permission is not known, so it is looked up. */
    vcpu.regs.rip = LINEAR + CODE;
    handle_mmio(&vcpu, LAPIC + 0xb0, 0, false, false, NULL, 0);
    assert_int_equal(walks, 1);
    /* VT-x tells the linear address: the page is what counts. */
    vcpu.regs.rip = LINEAR + CODE;
    handle_mmio(&vcpu, LAPIC, LINEAR + LAPIC, true, true, NULL, 0);
    assert_int_equal(walks, 1);
}

/* Random instructions, fast and slow: where the fast path takes one, the slow one agrees. */
static void fast_as_slow(void **state)
{
    static const uint8_t opcodes[] = {0x8b, 0x89, 0xc7, 0x88, 0x8a, 0xa1, 0x66, 0xf0};
    unsigned taken = 0;

    (void)state;
    srand(3);
    for (unsigned i = 0; i < 300000; i++) {
        struct guest_regs before, fast;
        uint8_t *insn = (uint8_t *)host_test_ram + CODE;
        unsigned prefix = rand() % 3 == 0, given = rand() % 2 ? 0 : rand() % 16;
        uint64_t fast_value;
        bool write = rand() % 2;

        for (unsigned j = 0; j < 15; j++)
            insn[j] = rand() % 4 ? rand() : 0x24;
        if (prefix)
            insn[0] = 0x40 | rand() % 16;
        insn[prefix] = opcodes[rand() % 64 ? rand() % 3 : rand() % 8];
        for (unsigned r = 0; r < 16; r++)
            vcpu.regs.gpr[r] = LINEAR + 0x10000 + rand() % 4096;
        vcpu.regs.rip = LINEAR + CODE;
        before = vcpu.regs;
        local_reads = 0;
        local_value = 0;
        if (!mmio_fast_mov(&vcpu, LAPIC + 0x30, write, insn, given)) {
            assert_memory_equal(&before, &vcpu.regs, sizeof(before));
            continue;
        }
        fast = vcpu.regs;
        fast_value = local_value;
        vcpu.regs = before;
        local_reads = 0;
        local_value = 0;
        crashes = 0;
        injected_vector = ~0u;
        local_accesses = 0;
        emulate_slowly(LAPIC + 0x30, write);
        assert_int_equal(crashes, 0);
        if (injected_vector == EXC_GP || injected_vector == EXC_SS || local_accesses > 1)
            continue; /* not canonical, or across pages: the hardware would not have come here */
        assert_int_equal(injected_vector, ~0u);
        taken++;
        assert_memory_equal(&fast, &vcpu.regs, sizeof(fast));
        assert_int_equal(fast_value, local_value);
    }
    assert_true(taken > 20000);
}

static void model_register(void **state)
{
    (void)state;
    CODE_BYTES("\x48\x8b\x03"); /* mov rax, [rbx] */
    vcpu.regs.gpr[RBX] = LINEAR + DEVICE + 8;
    handle_mmio(&vcpu, DEVICE + 8, 0, false, false, NULL, 0);
    assert_int_equal(dm.req.addr, DEVICE + 8);
    assert_int_equal(dm.req.size, 8);
    assert_int_equal(vcpu.regs.rip, LINEAR + CODE);
    host_test_ram[CODE] = 0xf4; /* too late: the instruction was read */
    answer(0x1234567890abcdef);
    assert_int_equal(vcpu.regs.gpr[RAX], 0x1234567890abcdef);
    assert_true(finished(3));
    assert_int_equal(nr_log, 1);
}

/* A read and a write of one instruction: two requests, each sent once. */
static void read_modify_write(void **state)
{
    (void)state;
    CODE_BYTES("\xf0\x09\x03"); /* lock or [rbx], eax */
    vcpu.regs.gpr[RBX] = LINEAR + DEVICE;
    vcpu.regs.gpr[RAX] = 0xf0;
    handle_mmio(&vcpu, DEVICE, 0, false, true, NULL, 0);
    assert_int_equal(dm.req.dir, IOREQ_READ);
    answer(0x0f);
    assert_int_equal(dm.req.dir, IOREQ_WRITE);
    assert_int_equal(dm.req.data, 0xff);
    answer(0);
    assert_true(finished(3));
    assert_int_equal(nr_log, 2);
    assert_int_equal(crashes, 0);
}

/* 16 bytes come in two pieces; the first answer is kept while the second is waited for. */
static void sse_in_pieces(void **state)
{
    uint8_t *out = (uint8_t *)host_test_ram + 0x3000;

    (void)state;
    CODE_BYTES("\x0f\x10\x0b"); /* movups xmm1, [rbx] */
    vcpu.regs.gpr[RBX] = LINEAR + DEVICE + 4;
    handle_mmio(&vcpu, DEVICE + 4, 0, false, false, NULL, 0);
    answer(0x0706050403020100);
    assert_int_equal(dm.req.addr, DEVICE + 12);
    answer(0x0f0e0d0c0b0a0908);
    assert_true(finished(3));
    assert_int_equal(nr_log, 2);
    __asm__ volatile("movups %%xmm1, %0" : "=m"(*(char(*)[16])out));
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(out[i], i);
}

/* A device access and a page fault on the other operand: the fault comes first or the read is not
 * repeated. */
static void movs_to_bad_page(void **state)
{
    (void)state;
    CODE_BYTES("\xa5"); /* movsd */
    vcpu.regs.gpr[RSI] = LINEAR + DEVICE;
    vcpu.regs.gpr[RDI] = LINEAR + 0x9000; /* not present */
    handle_mmio(&vcpu, DEVICE, 0, false, false, NULL, 0);
    if (dm.outstanding)
        answer(5);
    assert_int_equal(injected_vector, EXC_PF);
    assert_int_equal(injected_cr2, LINEAR + 0x9000);
    assert_int_equal(vcpu.regs.rip, LINEAR + CODE);
    assert_true(nr_log <= 1);
}

static void rep_movs_is_one_request(void **state)
{
    (void)state;
    CODE_BYTES("\xf3\xa5"); /* rep movsd */
    vcpu.regs.gpr[RSI] = LINEAR + 0x2ff0;
    vcpu.regs.gpr[RDI] = LINEAR + VGA + 0x100;
    vcpu.regs.gpr[RCX] = 12;
    handle_mmio(&vcpu, VGA + 0x100, 0, false, true, NULL, 0);
    assert_int_equal(dm.req.count, 4); /* to the end of the source page */
    assert_int_equal(dm.req.size, 4);
    assert_int_equal(dm.req.data_is_ptr, 1);
    assert_int_equal(dm.req.data, 0x2ff0);
    assert_int_equal(dm.req.addr, VGA + 0x100);
    assert_int_equal(dm.req.dir, IOREQ_WRITE);
    answer(0x2ff0);
    assert_int_equal(dm.req.count, 8);
    assert_int_equal(dm.req.data, 0x3000);
    assert_int_equal(dm.req.addr, VGA + 0x110);
    assert_int_equal(vcpu.regs.gpr[RCX], 8);
    answer(0x3000);
    assert_true(finished(2));
    assert_int_equal(vcpu.regs.gpr[RCX], 0);
    assert_int_equal(vcpu.regs.gpr[RSI], LINEAR + 0x3020);
    assert_int_equal(nr_log, 2);
}

static void rep_movs_down_from_device(void **state)
{
    (void)state;
    CODE_BYTES("\xf3\x66\xa5"); /* rep movsw */
    vcpu.regs.rflags |= BIT(10);
    vcpu.regs.gpr[RSI] = LINEAR + DEVICE + 0x20;
    vcpu.regs.gpr[RDI] = LINEAR + 0x2004;
    vcpu.regs.gpr[RCX] = 4;
    handle_mmio(&vcpu, DEVICE + 0x20, 0, false, false, NULL, 0);
    assert_int_equal(dm.req.count, 3); /* 0x2004, 0x2002, 0x2000 */
    assert_int_equal(dm.req.df, 1);
    assert_int_equal(dm.req.dir, IOREQ_READ);
    assert_int_equal(dm.req.data, 0x2004);
    answer(0);
    assert_int_equal(dm.req.count, 1); /* the last one alone, through us */
    assert_int_equal(dm.req.data_is_ptr, 0);
    answer(0xabcd);
    assert_true(finished(3));
    assert_int_equal(*(uint16_t *)(host_test_ram + 0x1ffe), 0xabcd);
    assert_int_equal(nr_log, 2);
}

/* Device to device, item by item: each is read once and written once. */
static void rep_movs_between_devices(void **state)
{
    (void)state;
    CODE_BYTES("\xf3\xa4"); /* rep movsb */
    vcpu.regs.gpr[RSI] = LINEAR + DEVICE;
    vcpu.regs.gpr[RDI] = LINEAR + DEVICE + 0x1000;
    vcpu.regs.gpr[RCX] = 3;
    handle_mmio(&vcpu, DEVICE, 0, false, false, NULL, 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(dm.req.dir, IOREQ_READ);
        assert_int_equal(dm.req.addr, DEVICE + i);
        answer(0x40 + i);
        assert_int_equal(dm.req.dir, IOREQ_WRITE);
        assert_int_equal(dm.req.addr, DEVICE + 0x1000 + i);
        assert_int_equal(dm.req.data, 0x40 + i);
        answer(0);
    }
    assert_true(finished(2));
    assert_int_equal(nr_log, 6);
}

static void rep_stos(void **state)
{
    (void)state;
    CODE_BYTES("\xf3\xab"); /* rep stosd */
    vcpu.regs.gpr[RAX] = 0x720720;
    vcpu.regs.gpr[RDI] = LINEAR + VGA;
    vcpu.regs.gpr[RCX] = 1000;
    handle_mmio(&vcpu, VGA, 0, false, true, NULL, 0);
    assert_int_equal(dm.req.count, 1000);
    assert_int_equal(dm.req.data, 0x720720);
    assert_int_equal(dm.req.data_is_ptr, 0);
    answer(0);
    assert_true(finished(2));
    assert_int_equal(vcpu.regs.gpr[RDI], LINEAR + VGA + 4000);
}

static void string_io(void **state)
{
    (void)state;
    CODE_BYTES("\xf3\x66\x6d"); /* rep insw */
    vcpu.regs.gpr[RDX] = 0x1f0;
    vcpu.regs.gpr[RDI] = LINEAR + 0x4000;
    vcpu.regs.gpr[RCX] = 256;
    handle_string_io(&vcpu, 0x1f0, 2, true, true);
    assert_int_equal(dm.req.type, IOREQ_TYPE_PIO);
    assert_int_equal(dm.req.count, 256);
    assert_int_equal(dm.req.data, 0x4000);
    assert_int_equal(dm.req.data_is_ptr, 1);
    answer(0);
    assert_true(finished(3));
    assert_int_equal(vcpu.regs.gpr[RCX], 0);

    vcpu.regs.rip = LINEAR + CODE; /* into ROM: not for the device model to write */
    vcpu.regs.gpr[RDI] = LINEAR + (ROM_PAGE << 12);
    vcpu.regs.gpr[RCX] = 2;
    handle_string_io(&vcpu, 0x1f0, 2, true, true);
    assert_int_equal(dm.req.data_is_ptr, 0);
    answer(1);
    answer(2);
    assert_true(finished(3));
    assert_int_equal(host_test_ram[ROM_PAGE << 12], 0);

    CODE_BYTES("\x6e"); /* outsb, single, local port */
    vcpu.regs.rip = LINEAR + CODE;
    vcpu.regs.gpr[RDX] = 0x40;
    vcpu.regs.gpr[RSI] = LINEAR + 0x5000;
    host_test_ram[0x5000] = 0x5a;
    handle_string_io(&vcpu, 0x40, 1, false, false);
    assert_true(finished(1));
    assert_int_equal(local_value, 0x5a);
}

static void posted_and_rom(void **state)
{
    (void)state;
    CODE_BYTES("\x88\x03"); /* mov [rbx], al */
    vcpu.regs.gpr[RBX] = LINEAR + VGA + 5;
    vcpu.regs.gpr[RAX] = 0x41;
    handle_mmio(&vcpu, VGA + 5, 0, false, true, NULL, 0);
    assert_int_equal(nr_posted, 1);
    assert_true(finished(2));
    vcpu.regs.rip = LINEAR + CODE;
    vcpu.regs.gpr[RBX] = LINEAR + (ROM_PAGE << 12);
    handle_mmio(&vcpu, ROM_PAGE << 12, 0, false, true, NULL, 0);
    assert_true(finished(2));
    assert_int_equal(host_test_ram[ROM_PAGE << 12], 0);
    assert_int_equal(nr_log, 1);
}

static void watched_memory(void **state)
{
    (void)state;
    CODE_BYTES("\x89\x03"); /* mov [rbx], eax */
    vcpu.regs.gpr[RBX] = LINEAR + 0xd000;
    vcpu.regs.gpr[RAX] = 0x55;
    handle_mmio(&vcpu, 0xd000, 0, false, true, NULL, 0);
    assert_true(dm.outstanding);
    answer(0);
    assert_true(finished(2));
    assert_int_equal(host_test_ram[0xd000], 0);
    watched_page_server = false;
    vcpu.regs.rip = LINEAR + CODE;
    handle_mmio(&vcpu, 0xd000, 0, false, true, NULL, 0);
    assert_true(finished(2));
    assert_int_equal(host_test_ram[0xd000], 0x55);
}

static void across_pages(void **state)
{
    (void)state;
    CODE_BYTES("\x48\x89\x03"); /* mov [rbx], rax; the second half is not present */
    vcpu.regs.gpr[RBX] = LINEAR + 0x8ffc;
    vcpu.regs.gpr[RAX] = ~0ULL;
    handle_emulate(&vcpu);
    assert_int_equal(injected_vector, EXC_PF);
    assert_int_equal(injected_cr2, LINEAR + 0x9000);
    assert_int_equal(host_test_ram[0x8ffc], 0); /* nothing written */
    injected_vector = ~0u;
    vcpu.regs.gpr[RBX] = LINEAR + 0x3ffd;
    handle_emulate(&vcpu);
    assert_true(finished(3));
    assert_int_equal(*(uint64_t *)(host_test_ram + 0x3ff8), 0xffffff0000000000);
}

static void unclaimed_and_unknown(void **state)
{
    (void)state;
    CODE_BYTES("\x8b\x03");
    vcpu.regs.gpr[RBX] = LINEAR + NOBODY;
    vcpu.regs.gpr[RAX] = 0;
    handle_mmio(&vcpu, NOBODY, 0, false, false, NULL, 0);
    assert_int_equal(vcpu.regs.gpr[RAX], 0xffffffff);
    assert_true(finished(2));

    dom.is_dom0 = true; /* MMCONFIG and MSI-X tables */
    vcpu.regs.rip = LINEAR + CODE;
    handle_mmio(&vcpu, NOBODY, 0, false, false, NULL, 0);
    assert_int_equal(vcpu.regs.gpr[RAX], 0x8086);
    dom.is_dom0 = false;

    CODE_BYTES("\xdd\x03"); /* fld qword [rbx] */
    vcpu.regs.rip = LINEAR + CODE;
    handle_mmio(&vcpu, NOBODY, 0, false, false, NULL, 0);
    assert_int_equal(crashes, 1);
    cpl = 3;
    handle_mmio(&vcpu, NOBODY, 0, false, false, NULL, 0);
    assert_int_equal(crashes, 1);
    assert_int_equal(injected_vector, EXC_UD);
}

static void single_step(void **state)
{
    (void)state;
    CODE_BYTES("\x8b\x03");
    vcpu.regs.gpr[RBX] = LINEAR + LAPIC;
    vcpu.regs.rflags |= RFLAGS_TF;
    handle_mmio(&vcpu, LAPIC, 0, false, false, NULL, 0);
    assert_int_equal(injected_vector, EXC_DB);
    assert_true(dr6 & BIT(14));
}

/* ---- breakpoints on ports -------------------------------------------------------------------- */

/* Breakpoint n, enabled, of DR7's R/W and LEN there, alone. */
static void watch(unsigned n, uint64_t addr, unsigned rw, unsigned len)
{
    debug_cr4 = CR4_DE;
    breakpoints[n] = addr;
    dr7 = 0x400 | 1u << (2 * n) | (rw | len << 2) << (16 + 4 * n);
}

/* A #DB came, for these breakpoints. */
static bool trapped(uint64_t bits)
{
    bool yes = injected_vector == EXC_DB && dr6 == bits;

    injected_vector = ~0u;
    dr6 = 0;
    return yes;
}

static void port_breakpoints(void **state)
{
    static const struct {
        uint64_t addr;
        unsigned rw, len, port, bytes;
        bool hit;
    } cases[] = {
        {0x40, 2, 0, 0x40, 1, true},     {0x40, 2, 0, 0x41, 1, false},
        {0x40, 2, 0, 0x3f, 2, true},     {0x40, 2, 0, 0x3e, 2, false},
        {0x40, 2, 1, 0x41, 1, true},     {0x40, 2, 1, 0x42, 1, false},
        {0x43, 2, 3, 0x40, 1, true}, /* aligned by LEN */
        {0x43, 2, 3, 0x44, 4, false},    {0x40, 2, 3, 0x3d, 4, true},
        {0x40, 3, 0, 0x40, 1, false},    {0x40, 1, 0, 0x40, 1, false},
        {0x10040, 2, 0, 0x40, 1, false}, {0xffff, 2, 0, 0xffff, 1, true},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        watch(i % 4, cases[i].addr, cases[i].rw, cases[i].len);
        unsigned hits = io_breakpoints(&vcpu, (uint16_t)cases[i].port, cases[i].bytes);
        assert_int_equal(hits, cases[i].hit ? 1u << i % 4 : 0);
    }
    watch(1, 0x40, 2, 0);
    debug_cr4 = 0; /* without DE there are none */
    assert_int_equal(io_breakpoints(&vcpu, 0x40, 1), 0);
    watch(1, 0x40, 2, 0);
    dr7 &= ~0xfful; /* not enabled */
    assert_int_equal(io_breakpoints(&vcpu, 0x40, 1), 0);

    watch(2, 0x40, 2, 0); /* served here */
    handle_watched_pio(&vcpu, 0x40, 1, true, 2);
    assert_true(finished(2) && trapped(1 << 2));
    handle_watched_pio(&vcpu, 0x61, 1, true, 2);
    assert_int_equal(injected_vector, ~0u);

    vcpu.regs.rip = LINEAR + CODE;
    watch(3, 0x1f0, 2, 1); /* by a device model: not before its answer */
    handle_watched_pio(&vcpu, 0x1f0, 2, true, 1);
    assert_int_equal(injected_vector, ~0u);
    answer(0x55aa);
    assert_true(finished(1) && trapped(1 << 3));
    handle_watched_pio(&vcpu, 0x1f7, 1, true, 1);
    answer(0x50);
    assert_int_equal(injected_vector, ~0u);
}

static void string_breakpoints(void **state)
{
    (void)state;
    CODE_BYTES("\xf3\x66\x6d"); /* rep insw: a trap behind each word, no batch */
    watch(0, 0x1f0, 2, 1);
    vcpu.regs.gpr[RDX] = 0x1f0;
    vcpu.regs.gpr[RDI] = LINEAR + 0x4000;
    vcpu.regs.gpr[RCX] = 2;
    for (unsigned left = 2; left--;) {
        handle_string_io(&vcpu, 0x1f0, 2, true, true);
        assert_int_equal(dm.req.count, 1);
        answer(0x1234);
        assert_int_equal(vcpu.regs.gpr[RCX], left);
        assert_true(finished(left ? 0 : 3) && trapped(1));
    }
    vcpu.regs.rip = LINEAR + CODE; /* no item, no trap */
    handle_string_io(&vcpu, 0x1f0, 2, true, true);
    assert_true(finished(3));
    assert_int_equal(injected_vector, ~0u);

    vcpu.regs.rip = LINEAR + CODE; /* both: one #DB */
    vcpu.regs.gpr[RCX] = 2;
    vcpu.regs.rflags |= RFLAGS_TF;
    handle_string_io(&vcpu, 0x1f0, 2, true, true);
    answer(0x1234);
    assert_true(finished(0) && trapped(1 | DR6_BS));
    vcpu.regs.rflags &= ~RFLAGS_TF;

    watch(0, 0x1f2, 2, 1); /* another port: a batch again */
    vcpu.regs.gpr[RCX] = 100;
    handle_string_io(&vcpu, 0x1f0, 2, true, true);
    assert_int_equal(dm.req.count, 100);
    answer(0);
    assert_true(finished(3));
    assert_int_equal(injected_vector, ~0u);

    CODE_BYTES("\x6e"); /* outsb, served here */
    vcpu.regs.rip = LINEAR + CODE;
    watch(1, 0x40, 2, 0);
    vcpu.regs.gpr[RDX] = 0x40;
    vcpu.regs.gpr[RSI] = LINEAR + 0x5000;
    handle_string_io(&vcpu, 0x40, 1, false, false);
    assert_true(finished(1) && trapped(1 << 1));
}

/* Locked on memory: done by the processor, in place. */
static void locked_memory(void **state)
{
    (void)state;
    CODE_BYTES("\xf0\x0f\xc1\x03"); /* lock xadd [rbx], eax */
    vcpu.regs.gpr[RBX] = LINEAR + 0x6000;
    vcpu.regs.gpr[RAX] = 5;
    *(uint32_t *)(host_test_ram + 0x6000) = 37;
    handle_emulate(&vcpu);
    assert_true(finished(4));
    assert_int_equal(vcpu.regs.gpr[RAX], 37);
    assert_int_equal(*(uint32_t *)(host_test_ram + 0x6000), 42);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(port_local),
        TEST(port_of_model),
        TEST(local_register),
        TEST(fast_as_slow),
        TEST(model_register),
        TEST(read_modify_write),
        TEST(sse_in_pieces),
        TEST(movs_to_bad_page),
        TEST(rep_movs_is_one_request),
        TEST(rep_movs_down_from_device),
        TEST(rep_movs_between_devices),
        TEST(rep_stos),
        TEST(string_io),
        TEST(posted_and_rom),
        TEST(watched_memory),
        TEST(across_pages),
        TEST(unclaimed_and_unknown),
        TEST(single_step),
        TEST(port_breakpoints),
        TEST(string_breakpoints),
        TEST(locked_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
