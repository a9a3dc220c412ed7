/* trap.h: host interrupts and exceptions: vectors, handlers, and instructions that may fault. */
#pragma once

#include "core/types.h"

enum { /* host vectors above the devices' */
       VECTOR_FIRST_DEVICE = 0x30,
       VECTOR_LAST_DEVICE = 0xef,
       VECTOR_TIMER = 0xf0,
       VECTOR_KICK = 0xf1,
       VECTOR_POSTED = 0xf2, /* a vCPU's posted interrupts: vcpu_post */
       VECTOR_SPURIOUS = 0xff,
};

struct trap_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

/* Build the IDT (once, on the BSP) and load it on this pCPU. */
void trap_init(void);
void trap_load_idt(void);
/* Route a device vector to fn(data), called with interrupts off; fn does the EOI. */
typedef void irq_fn(unsigned data);
void trap_set_irq(uint8_t vector, irq_fn *fn, unsigned data);
/* Handle an interrupt that this pCPU's LAPIC has handed over, but not through the IDT. */
void trap_irq(uint8_t vector);
/* A free device vector, or -ENOSPC. */
int trap_alloc_vector(irq_fn *fn, unsigned data);

/* MSR access that may fault: 0, or -EFAULT on #GP. */
int rdmsr_safe(uint32_t msr, uint64_t *val);
int wrmsr_safe(uint32_t msr, uint64_t val);
/* For inline assembly: a fault at label `fault` goes on at label `resume`. */
#define FIXUP(fault, resume)                                                                       \
    ".pushsection .fixup, \"a\"\n\t.quad " fault ", " resume "\n\t.popsection\n\t"
