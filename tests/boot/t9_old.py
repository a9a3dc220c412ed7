"""Old and foreign guests from stock Debian media, power management without PV drivers, network boot.

The default run has what is quick; the rest is run by name: `make test TESTS=memtest`, or all by `TESTS=t9_old`.
"""
import base64
import collections
import os
import re
import subprocess
import tempfile
import time

import harness
from boottest import BUILD, TOP, Session, check
from screentest import SCREENS
from vnc import write_png

BY_NAME = {"pae_2_vcpus", "memtest", "netboot_installer", "ipxe_of_each_card", "s3_with_pv", "reset_ways", "acpi_tables"}
GRUB_READY = r"executed automatically in"  # the line that the menu writes each second


def session(name="old", icount_shift=None):
    """One CPU, a bridge in dom0, the media of devmodel/old-guests."""
    subprocess.run([os.path.join(TOP, "devmodel", "old-guests"), BUILD], check=True)
    return Session(name, drives=("old.img", "old.iso", "netboot.tar"), folder="old", dom0_args="net=1", icount_shift=icount_shift)


def boot(s, name, key, timeout=300, pattern=None, **options):
    """A guest from the GRUB disk: its menu on the serial port, the entry with this hotkey, a pattern or its shell."""
    s.create(name, disk="/dev/oldimg", **options)
    s.dom0().attach(name, GRUB_READY, 240)
    time.sleep(2)
    s.console.send(key)
    if pattern:
        s.console.expect(pattern, timeout)
        return
    clock = s.console.clock()
    while True:
        try:
            s.console.expect(harness.GUEST_PROMPT, 20, settle=0.3)
            return
        except harness.Timeout:
            if s.console.ended or clock.seconds() > timeout * harness.slowness():
                raise
            s.console.send("\r")


def screenshot(s, name):
    """The guest's screen, by QEMU's monitor in dom0, kept as a PNG file; returns its pixels (RGB)."""
    path = f"/tmp/{name}.ppm"
    s.run(f"xl qemu-monitor-command {name} 'screendump {path}' && sleep 2 && gzip -f {path}", 60)
    text = s.run(f"busybox base64 {path}.gz 2>/dev/null || base64 {path}.gz", 120)
    data = subprocess.run(["gzip", "-dc"], input=base64.b64decode("".join(text.split())), capture_output=True,
                          check=True).stdout
    header = re.match(rb"P6\s+(\d+)\s+(\d+)\s+255\s", data)
    check(header, f"no PPM: {data[:20]!r}")
    pixels = data[header.end():]
    write_png(f"{SCREENS}/{name}.png", int(header.group(1)), int(header.group(2)), pixels)
    return pixels


def is_picture(pixels):
    """At least a fiftieth is not background."""
    seen = collections.Counter(pixels[i:i + 3] for i in range(0, len(pixels), 3 * 7))
    check(seen.most_common(1)[0][1] < 0.98 * seen.total(), f"the screen is empty: {seen.most_common(3)}")


def linux_works(s, machine="i686"):
    """uname and the time, at the guest's shell."""
    check(machine in s.console.command("uname -m"), f"uname does not say {machine}")
    output = s.console.command("a=$(cut -d' ' -f1 /proc/uptime); sleep 3; b=$(cut -d' ' -f1 /proc/uptime); echo $a $b", 60)
    first, second = (float(word) for word in output.split()[-2:])
    check(2.8 <= second - first <= 9, f"a sleep of 3 s took {second - first:.2f} s")


# ---- stock guests ---------------------------------------------------------------------------

def i386_without_pae(s):
    """GRUB's menu, then linux-image-686 (32-bit paging without PAE) with xen_nopv, to its shell."""
    boot(s, "power", "b")
    linux_works(s)
    check("pae" not in s.console.command("uname -r"), "it is a PAE kernel")
    s.console.command("dmesg | tail -n 24 > /dev/tty0")
    s.leave()
    is_picture(screenshot(s, "power"))


def i386_pae_pv(s):
    """linux-image-686-pae with PV, on a Cirrus VGA, to its shell; SMBIOS has the UUID of the xl file."""
    uuid = "12345678-9abc-def0-1234-56789abcdef0"
    boot(s, "pae", "d", extra=f"'vga=\"cirrus\"\\nuuid=\"{uuid}\"'")
    linux_works(s)
    check("pae" in s.console.command("uname -r"), "no PAE kernel")
    for file in ("product_uuid", "product_serial"):
        check(uuid in s.console.command(f"cat /sys/class/dmi/id/{file}").lower(), f"{file} is not the xl file's UUID")
    s.console.command("dmesg | tail -n 24 > /dev/tty0")
    s.leave()
    is_picture(screenshot(s, "pae"))
    s.destroy("pae")


def acpi_tables(s):
    """Every ACPI table of a running guest: iasl reads it, and compiles what it read without an error."""
    running(s)
    s.shell("power", 120)
    tables = s.console.command("ls -p /sys/firmware/acpi/tables | grep -v /").split()
    check({"APIC", "DSDT", "FACP", "FACS"} <= set(tables), f"tables are {tables}")
    with tempfile.TemporaryDirectory() as path:
        for table in tables:
            text = s.console.command(f"gzip -c /sys/firmware/acpi/tables/{table} | base64", 300)
            data = subprocess.run(["gzip", "-dc"], input=base64.b64decode("".join(text.split())), capture_output=True,
                                  check=True).stdout
            check(table == "FACS" or sum(data) % 256 == 0, f"{table}: bad checksum")
            with open(f"{path}/{table}.dat", "wb") as out:
                out.write(data)
            for command in (["iasl", "-d", f"{table}.dat"], ["iasl", "-oa", f"{table}.dsl"]):
                done = subprocess.run(command, cwd=path, capture_output=True, text=True, check=False)
                output = done.stdout + done.stderr
                check(done.returncode == 0 and not re.search(r"(?m)^Error|[1-9]\d* Errors", output),
                      f"{' '.join(command)}: {output[-300:]}")
    s.leave()


def pae_2_vcpus(s):
    """linux-image-686-pae with xen_nopv, two vCPUs: INIT-SIPI and MP tables without PV."""
    boot(s, "pae2", "f", 500, vcpus=2)
    linux_works(s)
    check(s.console.command("nproc").split()[-1] == "2", "not two CPUs")
    s.leave()
    s.destroy("pae2")


def isolinux_686(s):
    """ISOLINUX's prompt on the serial port; a label typed there boots."""
    s.create("isolinux", disk="/dev/oldiso", kind="cd")
    s.dom0().attach("isolinux", r"boot:", 240)
    s.console.send("686\r")
    s.console.expect(harness.GUEST_PROMPT, 600, settle=0.3)
    linux_works(s)
    s.leave()
    s.destroy("isolinux")


def gnu_mach(s):
    """GNU Mach by Multiboot: it finds disk and clock, then panics, as the Hurd's servers are not in Debian 12."""
    boot(s, "mach", "g", 120, pattern=r"GNU Mach[^\r\n]*")
    s.console.expect(r"sd0: QEMU HARDDISK", 200)
    s.console.expect(r"RTC time is", 200)
    s.console.expect(r"panic", 60)
    s.leave()
    s.run("xl destroy mach", 60, None)


def memtest(other):
    """memtest86+, one full pass in a guest of 64 MiB, 16 of them the VGA's, without an error.

    On a machine whose time is instructions, 125 million a second (the last test waits for 160 s): by the wall clock dom0's
    ticks, a TLB flush of the emulator's each, leave the guest next to nothing where others use the host's CPU too."""
    other.close_console()
    s = session("memtest", icount_shift=3)
    try:
        boot(s, "memtest", "m", 60, pattern=r"Memtest86\+", mem=64)
        s.console.expect(r"Pass: +[1-9]\d* +Errors: +\d|Errors: +[1-9]", 3600)  # its banner is on the screen only
        status = re.findall(r"Errors: +\d+", s.console.text)[-1]
        s.leave()
        is_picture(screenshot(s, "memtest"))
        check(status.split()[-1] == "0", f"it found errors: {status}")
        check(not re.search(r"Failing Address|Error Mask", s.console.text), "it found errors")
        s.destroy("memtest")
    finally:
        s.close()


# ---- network boot -----------------------------------------------------------------------------

def serve(s, *script):
    """A DHCP, TFTP and HTTP server in dom0 for guests' bridge; its log is empty. script: the lines of the boot file."""
    s.run("mkdir -p /tmp/net && ip addr replace 10.9.0.1/24 dev xenbr0 && ip link set eth0 nomaster")  # QEMU's DHCP is there
    s.run(f"printf '%s\\n' '#!ipxe' {' '.join(repr(line) for line in script)} > /tmp/net/boot.ipxe")
    s.run("pkill -f netboot.py; python3 /root/job/netboot.py 10.9.0.1 /tmp/net > /tmp/netboot.log 2>&1 & sleep 2; cat /tmp/netboot.log")


def served(s, what, seconds):
    """Wait until the server's log has this; the log."""
    clock = s.dom0().clock()
    while True:
        log = s.run("sleep 3; cat /tmp/netboot.log")
        if what in log:
            return log
        check(clock.seconds() < seconds * harness.slowness(), f"no {what!r}, only {log[-300:]!r}")


def ipxe_of_each_card(s):
    """iPXE's ROM of each card that QEMU emulates: DHCP, a script by TFTP and a question by HTTP through that card."""
    serve(s, "chain http://10.9.0.1/here-${net0/mac:hexhyp} ||", "sleep 3600")
    for number, model in enumerate(("rtl8139", "e1000", "ne2k_pci", "pcnet", "virtio-net-pci")):
        mac = f"00:16:3e:5a:00:{number:02x}"
        s.create("card", boot="n", disk="/dev/oldimg", extra=f"'vif=[\"bridge=xenbr0,model={model},mac={mac}\"]'")
        log = served(s, f"GET /here-{mac.replace(':', '-')}", 180)
        check(f"dhcp: ack 10.9.0.2 for {mac}" in log, f"{model}: {log[-300:]}")
        is_picture(screenshot(s, "card"))
        os.replace(f"{SCREENS}/card.png", f"{SCREENS}/ipxe-{model}.png")
        s.destroy("card")


def netboot_installer(s):
    """iPXE from the emulated card's ROM: DHCP, a script by TFTP, the Debian installer by HTTP, up to its first screen."""
    s.run("mkdir -p /tmp/net && tar -xf /dev/netboottar -C /tmp/net", 120)
    serve(s, "kernel http://10.9.0.1/linux console=ttyS0 quiet vga=off priority=low", "initrd http://10.9.0.1/initrd.gz", "boot")
    s.create("net", boot="n", mem=768, net=1, disk="/dev/oldimg")
    served(s, "GET /initrd.gz", 300)
    s.dom0().attach("net", r"Choose language|Select a language|this program will", 900)
    s.leave()
    log = s.run("cat /tmp/netboot.log")
    for word in ("dhcp: ack", "tftp: boot.ipxe", "GET /linux", "GET /initrd.gz"):
        check(word in log, f"the servers did not see {word!r}: {log[-300:]}")
    s.destroy("net")


# ---- power ------------------------------------------------------------------------------------

def running(s, name="power", key="b", **options):
    """A guest without PV at its shell, from an earlier test or new; dom0's shell is at hand."""
    if s.domid(name) is None:
        boot(s, name, key, **options)
        s.leave()
    return s.domid(name)


def in_guest(s, name, line, timeout=60):
    """Run a line at the guest's shell and come back."""
    s.shell(name, 120)
    status, output = s.console.status(line, timeout)
    s.leave()
    check(status == 0, f"{line!r} in the guest ended with {status}: {output[-200:]}")
    return output


def s3_sleep_and_resume(s, name="power", key="b"):
    """echo mem > /sys/power/state; xl trigger s3resume: the guest goes on where it was."""
    running(s, name, key)
    s.shell(name, 120)
    s.console.command("echo kept > /kept")
    check("deep" in s.console.command("cat /sys/power/mem_sleep"), "the guest does not know S3")
    s.console.send("echo mem > /sys/power/state; echo WOKE=$?\r")
    time.sleep(15)
    s.leave()
    first = s.run(f"xl list {name} | awk 'END {{ print $6 }}'")
    time.sleep(4)
    check(first == s.run(f"xl list {name} | awk 'END {{ print $6 }}'"), "asleep, but it uses CPU time")
    s.run(f"xl trigger {name} s3resume", 60)
    s.shell(name, 120)
    check("kept" in s.console.command("cat /kept"), "its memory is not what it was")
    linux_works(s)
    s.leave()


def s3_with_pv(s):
    """The same with PV drivers."""
    s3_sleep_and_resume(s, "pvsleep", "a")
    s.destroy("pvsleep")


def power_button(s):
    """Without PV, xl trigger power and xl shutdown -F press ACPI's button: the guest counts an SCI each, and powers off by S5."""
    running(s)
    count = "awk '{ print $1 }' /sys/firmware/acpi/interrupts/ff_pwr_btn"
    check("waiting for event" in in_guest(s, "power", "power-button"), "the guest has no power button")
    s.run("xl trigger power power; sleep 1", 30)
    presses = in_guest(s, "power", count).split()[-1]
    check(presses == "1", f"the guest counted {presses} presses")
    s.run("xl shutdown -F power", 30)
    s.wait_gone("power", 90)


def reset_ways(s):
    """Linux' reset by keyboard controller, ACPI, port 0xCF9 and triple fault, first choice in turn: it boots again.

    Linux goes on to the next way when one does nothing, so this shows that each ends well, not which one did it."""
    domid = running(s, "resets")
    for way in ("kbd", "acpi", "pci", "triple"):
        in_guest(s, "resets", f"echo {way} > /sys/kernel/reboot/type && echo 1 > /sys/kernel/reboot/force")
        s.shell_line("resets", "reboot -f")
        clock = s.dom0().clock()
        while s.domid("resets") in (domid, None):
            check(clock.seconds() < 90 * harness.slowness(), f"{way}: no reset")
            time.sleep(2)
        domid = s.domid("resets")
        s.dom0().attach("resets", GRUB_READY, 240)
        time.sleep(2)
        s.console.send("b")
        s.console.expect(harness.GUEST_PROMPT, 300, settle=0.3)
        s.leave()
    s.destroy("resets")


TESTS = [i386_without_pae, acpi_tables, s3_sleep_and_resume, power_button, i386_pae_pv, gnu_mach, pae_2_vcpus, isolinux_686, memtest,
         ipxe_of_each_card, netboot_installer, s3_with_pv, reset_ways]
