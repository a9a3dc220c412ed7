/* smp.h: bringing up the other CPUs, and interrupting them. */
#pragma once

#include "core/cpu.h"

/* Make the stack and struct cpu of pCPU id; the BSP's are the boot stack. NULL: out of memory. */
struct cpu *cpu_create(unsigned id, uint32_t apic_id, void *stack);
/* Boot: start every CPU the MADT lists, one after the other; one that does not answer within a
 * second, or cannot run guests, is left out with a message, and stays out should it come up later.
 */
void smp_boot_all(unsigned max_cpus);
/* What every CPU does once it is up: timers, virtualisation on. 0, or why it cannot run guests. */
int cpu_start(struct cpu *c);
/* Interrupt a pCPU without setting work: it leaves its guest and looks. */
void cpu_kick(struct cpu *c);
/* Stop all other CPUs (reboot, panic). */
void smp_stop_others(void);
