/* sources: vmm/vmx/checks.c */
/* test_vmx_checks.c: a VMCS that a CPU enters breaks no check; each field spoilt, one at a time, is
 * the one named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "domain/hvm.h"
#include "vmx/vmcs.h"

struct cpu host_test_cpu;
char *host_test_ram;
unsigned p2m_gpa_bits = 40;
struct vmx_caps vmx_caps;

static uint64_t vmcs[0x8000]; /* by encoding */
static enum vmcs_field named[64];
static unsigned nr_named;

static uint64_t read_field(enum vmcs_field f)
{
    return vmcs[f];
}

static void broken(enum vmcs_field f, uint64_t val, const char *rule)
{
    assert_int_equal(val, vmcs[f]);
    assert_true(strncmp(rule, "26.", 3) == 0);
    if (nr_named < ARRAY_SIZE(named))
        named[nr_named++] = f;
}

static unsigned run_checks(void)
{
    nr_named = 0;
    return vmx_check_entry(read_field, broken);
}

static bool was_named(enum vmcs_field f)
{
    for (unsigned i = 0; i < nr_named; i++) {
        if (named[i] == f)
            return true;
    }
    return false;
}

static void segment(enum segment_reg r, uint64_t sel, uint64_t ar, uint64_t limit, uint64_t base)
{
    if (r <= SEGR_TR) {
        vmcs[VMCS_GUEST_ES_SEL + 2 * r] = sel;
        vmcs[VMCS_GUEST_ES_AR + 2 * r] = ar;
    }
    vmcs[VMCS_GUEST_ES_LIMIT + 2 * r] = limit;
    vmcs[VMCS_GUEST_ES_BASE + 2 * r] = base;
}

/* The controls are those that Bochs' Skylake-X offers and Ringfence chooses. */
static void controls_and_host(void)
{
    static const struct {
        uint32_t must, may;
    } allowed[NR_CONTROL_WORDS] = {{0x16, 0xff},
                                   {0x4006172, 0xfff9fffe},
                                   {0, 0x175fff},
                                   {0x36dfb, 0x1ffffff},
                                   {0x11fb, 0x3ffff}};
    memset(vmcs, 0, sizeof(vmcs));
    memcpy(vmx_caps.allowed, allowed, sizeof(allowed));
    vmx_caps.cr0_fixed0 = CR0_PE | CR0_NE | CR0_PG;
    vmx_caps.cr0_fixed1 = 0xffffffff;
    vmx_caps.cr4_fixed0 = BIT(13);
    vmx_caps.cr4_fixed1 = 0x7727ff;
    vmcs[VMCS_PIN_CONTROLS] = 0x16 | PIN_INTERRUPT | PIN_NMI | PIN_VIRTUAL_NMI;
    vmcs[VMCS_PROC_CONTROLS] =
        0x4006172 | PROC_SECONDARY | PROC_TPR_SHADOW | PROC_MSR_BITMAPS | PROC_IO_BITMAPS;
    vmcs[VMCS_PROC2_CONTROLS] = PROC2_EPT | PROC2_VPID | PROC2_UNRESTRICTED;
    vmcs[VMCS_EXIT_CONTROLS] = 0x36dfb | EXIT_HOST_64;
    vmcs[VMCS_ENTRY_CONTROLS] = 0x11fb;
    vmcs[VMCS_VPID] = 1;
    vmcs[VMCS_EPT_POINTER] = 0x100000 | 6 | 3 << 3;
    vmcs[VMCS_LINK_POINTER] = ~0ULL;
    vmcs[VMCS_HOST_CR0] = CR0_PE | CR0_NE | CR0_PG;
    vmcs[VMCS_HOST_CR4] = BIT(13) | CR4_PAE;
    vmcs[VMCS_HOST_EFER] = EFER_LME | EFER_LMA;
    vmcs[VMCS_HOST_PAT] = vmcs[VMCS_GUEST_PAT] = 0x0007040600070406;
    vmcs[VMCS_HOST_CS_SEL] = 8;
    vmcs[VMCS_HOST_TR_SEL] = 0x18;
    vmcs[VMCS_HOST_RIP] = 0xffffffff80000000;
    vmcs[VMCS_GUEST_CR4] = BIT(13);
    vmcs[VMCS_GUEST_RFLAGS] = 2;
    vmcs[VMCS_GUEST_DR7] = 0x400;
}

static void real_mode(void)
{
    controls_and_host();
    vmcs[VMCS_GUEST_CR0] = CR0_NE;
    vmcs[VMCS_GUEST_RIP] = 0xfff0;
    for (unsigned r = SEGR_ES; r <= SEGR_GS; r++)
        segment(r, 0, 0x93, 0xffff, 0);
    segment(SEGR_CS, 0xf000, 0x9b, 0xffff, 0xffff0000);
    segment(SEGR_LDTR, 0, 0x82, 0xffff, 0);
    segment(SEGR_TR, 0, 0x8b, 0xffff, 0);
    segment(SEGR_GDTR, 0, 0, 0xffff, 0);
    segment(SEGR_IDTR, 0, 0, 0xffff, 0);
}

static void long_mode(void)
{
    real_mode();
    vmcs[VMCS_GUEST_CR0] = CR0_PE | CR0_NE | CR0_PG;
    vmcs[VMCS_GUEST_CR4] |= CR4_PAE;
    vmcs[VMCS_GUEST_EFER] = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    vmcs[VMCS_ENTRY_CONTROLS] |= ENTRY_IA32E;
    vmcs[VMCS_GUEST_RIP] = 0xffffffff81000000;
    vmcs[VMCS_GUEST_RFLAGS] = 2 | RFLAGS_IF;
    for (unsigned r = SEGR_ES; r <= SEGR_GS; r++)
        segment(r, 0, AR_UNUSABLE, 0, 0);
    segment(SEGR_CS, 0x10, 0xa09b, 0xffffffff, 0);
    segment(SEGR_SS, 0x18, 0xc093, 0xffffffff, 0);
    segment(SEGR_LDTR, 0, AR_UNUSABLE, 0, 0);
    segment(SEGR_TR, 0x40, 0x8b, 0x206f, 0xfffffe0000003000);
    segment(SEGR_GDTR, 0, 0, 0x7f, 0xfffffe0000001000);
    segment(SEGR_IDTR, 0, 0, 0xfff, 0xfffffe0000000000);
}

/* The CPU delivers interrupts. */
static void long_mode_apic(void)
{
    long_mode();
    vmcs[VMCS_PROC2_CONTROLS] |=
        PROC2_APIC_ACCESSES | PROC2_APIC_REGISTERS | PROC2_INTERRUPT_DELIVERY;
    vmcs[VMCS_APIC_ACCESS] = 0x5000;
}

static void long_mode_posted(void)
{
    long_mode_apic();
    vmcs[VMCS_PIN_CONTROLS] |= PIN_POSTED_INTERRUPTS;
    vmcs[VMCS_EXIT_CONTROLS] |= EXIT_ACK_INTERRUPT;
    vmcs[VMCS_POSTED_VECTOR] = 0xf2;
    vmcs[VMCS_POSTED_DESCRIPTOR] = 0x5040;
}

static void pae_mode(void)
{
    real_mode();
    vmcs[VMCS_GUEST_CR0] = CR0_PE | CR0_NE | CR0_PG;
    vmcs[VMCS_GUEST_CR4] |= CR4_PAE;
    vmcs[VMCS_GUEST_RIP] = 0x100000;
    for (unsigned r = SEGR_ES; r <= SEGR_GS; r++)
        segment(r, 0x10, 0xc093, 0xffffffff, 0);
    segment(SEGR_CS, 8, 0xc09b, 0xffffffff, 0);
    vmcs[VMCS_GUEST_PDPTE0] = 0x5001;
}

static void v86_mode(void)
{
    pae_mode();
    vmcs[VMCS_GUEST_RFLAGS] = 2 | RFLAGS_VM;
    vmcs[VMCS_GUEST_RIP] = 0x100;
    for (unsigned r = SEGR_ES; r <= SEGR_GS; r++)
        segment(r, 0x1000, 0xf3, 0xffff, 0x10000);
}

static void good_states_pass(void **state)
{
    void (*const modes[])(void) = {real_mode,        long_mode, long_mode_apic,
                                   long_mode_posted, pae_mode,  v86_mode};
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        modes[i]();
        if (run_checks())
            fail_msg("mode %u: field %04x is named", i, named[0]);
    }
}

struct spoil {
    void (*mode)(void);
    enum vmcs_field field;
    uint64_t val;
    enum vmcs_field names; /* 0: the field itself */
};

static const struct spoil spoils[] = {
    {long_mode, VMCS_PIN_CONTROLS, 0, 0},
    {long_mode, VMCS_PROC_CONTROLS, 0x4006172 | PROC_SECONDARY | 1, 0},
    {long_mode, VMCS_PROC2_CONTROLS, BIT(31), 0},
    {long_mode, VMCS_PROC2_CONTROLS, PROC2_UNRESTRICTED, 0},
    {long_mode, VMCS_EXIT_CONTROLS, 0x36dfb & ~EXIT_HOST_64, 0},
    {long_mode, VMCS_EXIT_CONTROLS, 0x36dfb | EXIT_HOST_64 | EXIT_SAVE_TIMER, 0},
    {long_mode, VMCS_ENTRY_CONTROLS, 0, 0},
    {long_mode, VMCS_CR3_TARGET_COUNT, 5, 0},
    {long_mode, VMCS_MSR_BITMAP, 0x1008, 0},
    {long_mode, VMCS_IO_BITMAP_A, BIT(41), 0},
    {long_mode, VMCS_VIRTUAL_APIC_PAGE, 1, 0},
    {long_mode, VMCS_TPR_THRESHOLD, 0x10, 0},
    {long_mode, VMCS_PROC2_CONTROLS,
     PROC2_EPT | PROC2_VPID | PROC2_UNRESTRICTED | PROC2_APIC_ACCESSES | PROC2_X2APIC, 0},
    {long_mode_apic, VMCS_PROC_CONTROLS, 0x4006172 | PROC_SECONDARY | PROC_MSR_BITMAPS,
     VMCS_PROC2_CONTROLS},
    {long_mode_apic, VMCS_PIN_CONTROLS, 0x16 | PIN_NMI | PIN_VIRTUAL_NMI, 0},
    {long_mode_apic, VMCS_APIC_ACCESS, 0x5008, 0},
    {long_mode, VMCS_PIN_CONTROLS, 0x16 | PIN_INTERRUPT | PIN_POSTED_INTERRUPTS, 0},
    {long_mode_posted, VMCS_EXIT_CONTROLS, 0x36dfb | EXIT_HOST_64, 0},
    {long_mode_posted, VMCS_POSTED_VECTOR, 0x1f2, 0},
    {long_mode_posted, VMCS_POSTED_DESCRIPTOR, 0x5020, 0},
    {long_mode, VMCS_VPID, 0, 0},
    {long_mode, VMCS_EPT_POINTER, 0x100000 | 6, 0},
    {long_mode, VMCS_EPT_POINTER, 0x100000 | 5 | 3 << 3, 0},
    {long_mode, VMCS_EPT_POINTER, 0x100000 | EPTP_WB_4_LEVELS | EPTP_DIRTY_BITS, 0},
    {long_mode, VMCS_ENTRY_INFO, EVENT_VALID | 1 << 8 | 32, 0},
    {long_mode, VMCS_ENTRY_INFO, EVENT_VALID | EVENT_NMI << 8 | 3, 0},
    {long_mode, VMCS_ENTRY_INFO, EVENT_VALID | EVENT_EXCEPTION << 8 | 33, 0},
    {long_mode, VMCS_ENTRY_INFO, EVENT_VALID | EVENT_EXCEPTION << 8 | EXC_GP, 0},
    {real_mode, VMCS_ENTRY_INFO, EVENT_VALID | EVENT_HAS_CODE | EVENT_EXCEPTION << 8 | EXC_GP, 0},
    {long_mode, VMCS_ENTRY_INFO, EVENT_VALID | EVENT_SOFTWARE << 8 | 0x80, VMCS_ENTRY_INSN_LENGTH},
    {real_mode, VMCS_ENTRY_INFO, EVENT_VALID | 32, VMCS_GUEST_RFLAGS},
    {long_mode, VMCS_HOST_CR0, CR0_PE | CR0_PG, 0},
    {long_mode, VMCS_HOST_CR4, BIT(13), 0},
    {long_mode, VMCS_HOST_EFER, EFER_LME, 0},
    {long_mode, VMCS_HOST_PAT, 2, 0},
    {long_mode, VMCS_HOST_CS_SEL, 0, 0},
    {long_mode, VMCS_HOST_DS_SEL, 0x13, 0},
    {long_mode, VMCS_HOST_TR_SEL, 0, 0},
    {long_mode, VMCS_HOST_GDTR_BASE, 0x800000000000, 0},
    {long_mode, VMCS_HOST_RIP, 0x800000000000, 0},
    {real_mode, VMCS_GUEST_CR0, 0, 0},
    {real_mode, VMCS_GUEST_CR0, CR0_NE | CR0_PG, 0},
    {long_mode, VMCS_GUEST_CR0, CR0_PE | CR0_NE, 0},
    {long_mode, VMCS_GUEST_CR4, CR4_PAE, 0},
    {long_mode, VMCS_GUEST_CR4, BIT(13), 0},
    {pae_mode, VMCS_GUEST_CR4, BIT(13) | CR4_PAE | CR4_PCIDE, 0},
    {long_mode, VMCS_GUEST_CR3, BIT(52), 0},
    {long_mode, VMCS_GUEST_DR7, BIT(32), 0},
    {long_mode, VMCS_GUEST_PAT, 0x300, 0},
    {long_mode, VMCS_GUEST_EFER, EFER_LME | EFER_LMA | BIT(14), 0},
    {long_mode, VMCS_GUEST_EFER, EFER_LMA, 0},
    {long_mode, VMCS_GUEST_SYSENTER_EIP, 0x800000000000, 0},
    {long_mode, VMCS_GUEST_CS_AR, AR_UNUSABLE, 0},
    {long_mode, VMCS_GUEST_CS_AR, 0xe09b, 0},
    {long_mode, VMCS_GUEST_CS_AR, 0xa0fb, 0},
    {long_mode, VMCS_GUEST_CS_AR, 0xa01b, 0},
    {long_mode, VMCS_GUEST_CS_AR, 0xa08b, 0},
    {long_mode, VMCS_GUEST_CS_AR, 0xa19b, 0},
    {long_mode, VMCS_GUEST_CS_LIMIT, 0xfffff000, VMCS_GUEST_CS_AR},
    {real_mode, VMCS_GUEST_DS_LIMIT, 0x100000, VMCS_GUEST_DS_AR},
    {long_mode, VMCS_GUEST_CS_BASE, BIT(32), 0},
    {long_mode, VMCS_GUEST_SS_BASE, BIT(32), 0},
    {long_mode, VMCS_GUEST_SS_AR, 0xc091, 0},
    {real_mode, VMCS_GUEST_SS_AR, 0xf3, 0},
    {real_mode, VMCS_GUEST_DS_AR, 0x92, 0},
    {long_mode, VMCS_GUEST_FS_BASE, 0x800000000000, 0},
    {long_mode, VMCS_GUEST_TR_AR, 0x83, 0},
    {long_mode, VMCS_GUEST_TR_SEL, 0x44, 0},
    {long_mode, VMCS_GUEST_TR_BASE, 0x800000000000, 0},
    {pae_mode, VMCS_GUEST_LDTR_AR, 0x8b, 0},
    {pae_mode, VMCS_GUEST_LDTR_SEL, 4, 0},
    {long_mode, VMCS_GUEST_GDTR_BASE, 0x800000000000, 0},
    {long_mode, VMCS_GUEST_IDTR_LIMIT, 0x10000, 0},
    {v86_mode, VMCS_GUEST_ES_AR, 0x93, 0},
    {v86_mode, VMCS_GUEST_GS_LIMIT, 0xfffff, 0},
    {v86_mode, VMCS_GUEST_SS_SEL, 0x1001, VMCS_GUEST_SS_BASE},
    {long_mode, VMCS_GUEST_RIP, 0x1000000000000, 0},
    {pae_mode, VMCS_GUEST_RIP, 0x100000000, 0},
    {long_mode, VMCS_GUEST_RFLAGS, 0, 0},
    {long_mode, VMCS_GUEST_RFLAGS, 2 | BIT(22), 0},
    {long_mode, VMCS_GUEST_RFLAGS, 2 | RFLAGS_VM, 0},
    {long_mode, VMCS_GUEST_ACTIVITY, 3, 0},
    {long_mode, VMCS_GUEST_INTERRUPTIBILITY, 3, 0},
    {long_mode, VMCS_GUEST_INTERRUPTIBILITY, 16, 0},
    {real_mode, VMCS_GUEST_INTERRUPTIBILITY, 1, 0},
    {long_mode, VMCS_GUEST_PENDING_DEBUG, BIT(13), 0},
    {long_mode, VMCS_LINK_POINTER, 0, 0},
    {pae_mode, VMCS_GUEST_PDPTE2, 0x5003, 0},
};

static void the_spoilt_field_is_named(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(spoils); i++) {
        const struct spoil *s = &spoils[i];
        enum vmcs_field names = s->names ? s->names : s->field;
        s->mode();
        vmcs[s->field] = s->val;
        if (!run_checks() || !was_named(names))
            fail_msg("spoil %u: %04x = %lx: not named", i, s->field, (unsigned long)s->val);
    }
}

/* What else is on the list is a consequence at most: field by field, few are named. */
static void few_others_are_named(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(spoils); i++) {
        spoils[i].mode();
        vmcs[spoils[i].field] = spoils[i].val;
        /* RFLAGS.VM makes every segment one of virtual-8086 mode. */
        if (run_checks() > 3 && !(vmcs[VMCS_GUEST_RFLAGS] & RFLAGS_VM))
            fail_msg("spoil %u: %u fields are named", i, nr_named);
    }
}

static void an_interrupt_while_blocked(void **state)
{
    (void)state;
    long_mode();
    vmcs[VMCS_ENTRY_INFO] = EVENT_VALID | 0x30;
    assert_int_equal(run_checks(), 0);
    vmcs[VMCS_GUEST_INTERRUPTIBILITY] = BLOCKED_BY_MOV_SS;
    assert_int_equal(run_checks(), 1);
    assert_true(was_named(VMCS_GUEST_INTERRUPTIBILITY));
    vmcs[VMCS_ENTRY_INFO] = EVENT_VALID | EVENT_NMI << 8 | 2;
    vmcs[VMCS_GUEST_INTERRUPTIBILITY] = BLOCKED_BY_NMI;
    assert_int_equal(run_checks(), 1);
    vmcs[VMCS_ENTRY_INFO] = 0;
    assert_int_equal(run_checks(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_states_pass),
        cmocka_unit_test(the_spoilt_field_is_named),
        cmocka_unit_test(few_others_are_named),
        cmocka_unit_test(an_interrupt_while_blocked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
