"""Guests on a two-CPU dom0: from CD and from disk, two at once, the whole life of a domain."""
import os
import re
import time

import harness
from boottest import Session, check

CPUS = int(os.environ.get("TEST_SMP") or 2)
TRIPLE = "disk=/root/job/triplefault.img mem=64"


def session():
    """Two CPUs, both guest images. Under Debian's Xen two CPUs crash on this emulator: TEST_SMP=1 there."""
    return Session("guests", smp=CPUS)


def running_disk(s):
    """The guest from disk at its shell: the one that is there, or a new one. Returns its number."""
    domid = s.domid("disk")
    if domid is None:
        s.create("disk", disk="/dev/guestimg")
        s.shell("disk", 300)
        s.leave()
        domid = s.domid("disk")
    return domid


def boots_on_two_cpus(s):
    """dom0 has two CPUs and both do work."""
    check(s.run("nproc").strip() == str(CPUS), f"dom0 has not {CPUS} CPUs")
    s.run("for c in $(seq 0 $(($(nproc) - 1))); do taskset -c $c sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done' & done; wait", 120)


def guest_from_disk(s):
    """SeaBIOS, GRUB from the MBR, stock kernel, its shell."""
    s.create("disk", disk="/dev/guestimg")
    s.shell("disk", 300)
    check("Linux" in s.console.command("uname -a"), "uname -a does not say Linux")
    s.leave()


def guest_from_cd_beside_it(s):
    """SeaBIOS, ISOLINUX from CD, while the first guest runs; both answer."""
    running_disk(s)
    s.create("cd", disk="/dev/guestiso", kind="cd")
    s.shell("cd", 400)
    check("Linux" in s.console.command("uname -a"), "uname -a does not say Linux")
    s.leave()
    s.alive("disk")
    s.alive("cd")


def stock_commands_on_guests(s):
    """list, vcpu-list, uptime, xentop, xenstore-ls and xen-hvmctx about running guests."""
    domid = running_disk(s)
    for command in ("xl list", "xl vcpu-list", "xl uptime", "xentop -b -i1", "xenstore-ls"):
        check("disk" in s.run(command), f"{command} does not show the guest")
    output = s.run(f"xen-hvmctx {domid}")
    for record in ("CPU", "LAPIC", "PIC", "PIT", "RTC"):
        check(record in output, f"xen-hvmctx shows no {record}")


def pause_and_unpause(s):
    """A paused guest uses no CPU time and answers again after unpause."""
    running_disk(s)
    s.run("xl pause disk")
    check("p" in s.state("disk"), f"paused, but its state is {s.state('disk')}")
    first = s.run("xl list disk | awk 'END { print $6 }'")
    time.sleep(3)
    check(first == s.run("xl list disk | awk 'END { print $6 }'"), "a paused guest uses CPU time")
    s.run("xl unpause disk")
    check("p" not in s.state("disk"), "still paused")
    s.alive("disk")


def triple_fault_ends_its_guest_only(s):
    """The guest is destroyed with a register dump; dom0 and the other guests go on."""
    running_disk(s)
    s.run(f"rf-create triple {TRIPLE} hdtype=ide onreboot=destroy", 120)
    s.wait_gone("triple", 180)
    output = s.run("xl dmesg | tail -n 80")
    check(re.search(r"(?i)triple.?fault|crash", output), f"no word of a triple fault in xl dmesg: {output[-200:]}")
    check(re.search(r"(?i)\brip\b", output), "no register dump in xl dmesg")
    s.alive("disk")


def qemu_killed(s):
    """kill -9 of a guest's QEMU ends that guest; the rest goes on."""
    running_disk(s)
    domid = s.domid("cd")
    if domid is None:
        s.create("cd", disk="/dev/guestiso", kind="cd")
        s.shell("cd", 400)
        s.leave()
        domid = s.domid("cd")
    # It reads a port of its device model's, the UART's, every second from now on.
    console = s.dom0()
    console.send("xl console cd\r")
    time.sleep(1)
    console.send("\r")
    console.expect(harness.GUEST_PROMPT, 60, settle=0.3)
    console.command("while sleep 1; do dd if=/dev/port bs=1 skip=1021 count=1 of=/dev/null 2>/dev/null; done & true")
    s.leave()
    s.run(f"pkill -9 -f -- '-xen-domid {domid} '")
    clock = s.dom0().clock()
    while s.domid("cd") is not None and not re.search("[sc]", s.state("cd")):
        check(clock.seconds() < 60 * harness.slowness(), f"the guest goes on without its QEMU (state {s.state('cd')})")
        time.sleep(3)
    if s.domid("cd") is not None:
        s.run("xl destroy cd; true")
    s.alive("disk")


def guest_reboots_from_inside(s):
    """reboot -f in the guest: a new domain of that name comes to its shell."""
    old = running_disk(s)
    s.shell_line("disk", "reboot -f")
    clock = s.dom0().clock()
    while s.domid("disk") in (old, None):
        check(clock.seconds() < 90 * harness.slowness(), "no new domain after reboot -f")
        time.sleep(3)
    s.shell("disk", 300)
    s.leave()


def xl_reboot(s):
    """xl reboot: the same, asked for from dom0."""
    old = running_disk(s)
    s.run("xl reboot disk")
    clock = s.dom0().clock()
    while s.domid("disk") in (old, None):
        check(clock.seconds() < 90 * harness.slowness(), "no new domain after xl reboot")
        time.sleep(3)


def destroy_running(s):
    """xl destroy of a running guest (it is in its boot loader or kernel)."""
    running_disk(s)
    s.destroy("disk")


def create_paused_with_console(s):
    """xl create -p leaves it paused; xl create -c shows its console; poweroff -f from inside ends it."""
    s.run("rf-create --config disk disk=/dev/guestimg; xl create -p /root/disk.cfg", 120)
    check("p" in s.state("disk"), f"created with -p, its state is {s.state('disk')}")
    s.run("xl unpause disk")
    s.destroy("disk")
    console = s.dom0()
    console.mark = len(console.text)
    console.send("xl create -c /root/disk.cfg\r")
    console.expect(harness.GUEST_PROMPT, 300, settle=0.5)
    console.send("poweroff -f\r")
    console.expect(harness.DOM0_PROMPT, 60)
    s.wait_gone("disk", 60)


def xl_shutdown(s):
    """xl shutdown ends a guest through its PV drivers."""
    running_disk(s)
    s.run("xl shutdown disk")
    s.wait_gone("disk", 90)


def no_leftovers(s):
    """No domain and no QEMU is left; a domain that just ended has a moment to go."""
    left = s.run("for i in $(seq 30); do [ $(xl list | wc -l) = 2 ] && break; sleep 1; done; xl list | tail -n +3")
    check(not left.strip(), f"a domain is left: {left}")
    check(s.run("pgrep -c qemu-system; true").strip() == "0", "a QEMU is left")


TESTS = [boots_on_two_cpus, guest_from_disk, guest_from_cd_beside_it, stock_commands_on_guests, pause_and_unpause,
         triple_fault_ends_its_guest_only, qemu_killed, guest_reboots_from_inside, xl_reboot, destroy_running,
         create_paused_with_console, xl_shutdown, no_leftovers]
