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
/* Measure the timer (BSP, after the TSC is known). */
void lapic_timer_calibrate(void);
/* Has the timer the deadline mode? After lapic_init. */
bool lapic_timer_has_deadline(void);
#define LAPIC_TIMER_OFF (~0ULL)
/* Interrupt this pCPU at an absolute host TSC; LAPIC_TIMER_OFF: no more, or each 100 ms without the
 * deadline mode. Any context with interrupts off. Without the deadline mode, which AMD's LAPICs
 * lack, 10 us to 100 ms from now, and again as long after that, until armed anew: the repetition
 * costs nothing, as who is interrupted arms anew, and brings an interrupt that got lost (quirk
 * lost-interrupts). (SDM 3A, 10.5.4.) */
void lapic_timer_arm(uint64_t tsc);
