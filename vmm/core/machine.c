/* machine.c: turning the machine off: reset, halt, ACPI sleep, and what dom0's end means. */
#include "core/machine.h"

#include "core/errno.h"
#include "core/mm.h"
#include "core/print.h"
#include "core/smp.h"
#include "core/x86.h"
#include "domain/domain.h"

#define CMOS_RESET_DELAY 1000000

void machine_halt(void)
{
    smp_stop_others();
    log_err("Halted.");
    for (;;)
        __asm__ volatile("cli; hlt");
}

static void delay(void)
{
    for (int i = 0; i < CMOS_RESET_DELAY; i++)
        cpu_relax();
}

void machine_reboot(void)
{
    const struct acpi_gas *r = &acpi_info.fadt.reset;
    log_err("Rebooting.");
    smp_stop_others();
    if (r->address && r->space == ACPI_SPACE_IO)
        outb((uint16_t)r->address, acpi_info.fadt.reset_value);
    else if (r->address && r->space == ACPI_SPACE_MEMORY && r->address < (1ULL << 32))
        *(volatile uint8_t *)(UCMAP_BASE + r->address) = acpi_info.fadt.reset_value;
    delay();
    outb(0x64, 0xfe);
    delay();
    outb(0xcf9, 0x02);
    outb(0xcf9, 0x06);
    delay();
    struct {
        uint16_t limit;
        uint64_t base;
    } __packed none = {0, 0};
    __asm__ volatile("lidt %0; int3" ::"m"(none));
    machine_halt();
}

int machine_acpi_sleep(unsigned state, uint16_t val_a, uint16_t val_b)
{
    if (state != 5)
        return -EOPNOTSUPP;
    smp_stop_others();
    if (acpi_info.fadt.pm1a_cnt_port)
        outw(acpi_info.fadt.pm1a_cnt_port, val_a);
    if (acpi_info.fadt.pm1b_cnt_port)
        outw(acpi_info.fadt.pm1b_cnt_port, val_b);
    delay();
    return -EIO;
}

void machine_dom0_shutdown(int reason)
{
    if (reason == SHUTDOWN_crash) {
        domain_dump_registers(dom0);
        if (boot_options.noreboot)
            machine_halt();
    }
    log_err("dom0 ended: %s", reason == SHUTDOWN_poweroff ? "power off"
                              : reason == SHUTDOWN_reboot ? "reboot"
                              : reason == SHUTDOWN_crash  ? "crash"
                                                          : "other reason");
    if (reason == SHUTDOWN_poweroff)
        machine_halt();
    machine_reboot();
}
