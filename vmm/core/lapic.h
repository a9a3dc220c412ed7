/* lapic.h: the physical local APIC, by MMIO or x2APIC MSRs (SDM 3A, chapter 10). */
#pragma once

#include "core/types.h"

/* Turn on this pCPU's LAPIC; on the BSP also choose the mode. */
void lapic_init(void);
uint32_t lapic_id(void);
void lapic_eoi(void);
/* Fixed-vector IPI to an APIC id. INIT and start-up IPIs for bringing up APs. */
void lapic_send(uint32_t apic_id, uint8_t vector);
void lapic_send_nmi(uint32_t apic_id);
void lapic_send_init(uint32_t apic_id);
void lapic_send_startup(uint32_t apic_id, uint8_t page);
/* Write the task priority as it is, 0, at which the LAPIC looks for pending interrupts again (quirk
 * lost-interrupts). */
void lapic_reevaluate(void);
/* Measure the timer (BSP, after the TSC is known), then arm it at an absolute host TSC. */
void lapic_timer_calibrate(void);
void lapic_timer_arm(uint64_t tsc);
