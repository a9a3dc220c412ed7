/* irq.h: physical interrupts: the IOAPICs' pins and message-signalled ones, all bound to dom0. */
#pragma once

#include "core/types.h"

/* Boot: mask the 8259s and every IOAPIC pin. */
void irq_init(void);
/* The pins of IOAPIC i (acpi_info.ioapics[i]). */
unsigned irq_ioapic_pins(unsigned i);
void irq_dump(void);
