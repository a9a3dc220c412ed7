/* mcheck.c: machine checks (SDM 3B, 15; APM 2, 9): switched on, and what the banks hold put into
 * the log before the panic that each leads to: none is recovered from. */
#include "core/mcheck.h"

#include "core/print.h"
#include "core/trap.h"
#include "core/x86.h"

#define MCG_CAP        0x179
#define MCG_CTL        0x17b
#define MCG_HAS_CTL    BIT(8)
#define BANK_CTL(i)    (0x400 + 4 * (i))
#define BANK_STATUS(i) (0x401 + 4 * (i))
#define BANK_ADDR(i)   (0x402 + 4 * (i))
#define STATUS_VALID   BIT(63)
#define STATUS_ADDR    BIT(58)
#define CR4_MCE        BIT(6)
#define CPUID_MCE      (1u << 7)
#define CPUID_MCA      (1u << 14)

static unsigned banks(uint64_t *cap)
{
    return cpuid(1, 0).d & CPUID_MCA && !rdmsr_safe(MCG_CAP, cap) ? *cap & 0xff : 0;
}

void mcheck_cpu_up(void)
{
    uint64_t cap = 0;
    unsigned n = banks(&cap);

    if (!(cpuid(1, 0).d & CPUID_MCE))
        return;
    if (cap & MCG_HAS_CTL)
        wrmsr_safe(MCG_CTL, ~0ULL);
    for (unsigned i = 0; i < n; i++)
        wrmsr_safe(BANK_CTL(i), ~0ULL);
    write_cr4(read_cr4() | CR4_MCE);
}

void mcheck_log(void)
{
    uint64_t cap, status, addr;
    unsigned n = banks(&cap);

    for (unsigned i = 0; i < n; i++) {
        if (rdmsr_safe(BANK_STATUS(i), &status) || !(status & STATUS_VALID))
            continue;
        if (!(status & STATUS_ADDR) || rdmsr_safe(BANK_ADDR(i), &addr))
            addr = 0;
        log_err("machine check bank %u: status %016lx address %lx", i, status, addr);
    }
}
