"""What a person sees first: the BIOS's boot order and menu, make run's screen. Pictures are kept in build/tests/screens."""
import os
import re
import subprocess
import tempfile
import time

import harness
from boottest import TOP, check
from screentest import SCREENS, ScreenSession
from vnc import Screen

BY_NAME = {"boot_order", "cd_change", "make_run_graphics"}


def session():
    """One CPU, boot sectors that say what they were booted from."""
    s = ScreenSession("screen", drives=(), dom0_args="net=1")
    for name, size in (("disk", 1 << 20), ("floppy", 1474560), ("cd", 2048), ("other", 2048), ("shades", 1 << 20)):
        assemble(f"{s.job}/{name}.img", name.upper(), size)
    for name in ("cd", "other"):
        with tempfile.TemporaryDirectory() as tree:
            os.rename(f"{s.job}/{name}.img", f"{tree}/boot.img")
            subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-o", f"{s.job}/{name}.img", "-b", "boot.img",
                            "-no-emul-boot", "-boot-load-size", "4", tree], check=True, stderr=subprocess.DEVNULL)
    return s


def assemble(path, name, size):
    """A boot sector that says this name, in a file of this size."""
    source = "shades" if name == "SHADES" else "hello"
    subprocess.run(["nasm", "-f", "bin", f"-DNAME='{name}'", f"{TOP}/tests/boot/guests/{source}.asm", "-o", path], check=True)
    os.truncate(path, size)


# ---- the BIOS ---------------------------------------------------------------------------------

MEDIA = {"disk": "/root/job/disk.img", "cd": "/root/job/cd.img", "floppy": "/root/job/floppy.img", "hdtype": "ide"}


def boot_order(s):
    """boot= c, d, a and n: disk, CD, floppy and network card are booted first in turn, all of them being there.

    Each boot sector says what it is; that iPXE's ROM was started is in the guest's log, versions included."""
    for order, marker in (("c", "DISK DRIVE 80"), ("d", "CD DRIVE e0"), ("a", "FLOPPY DRIVE 00")):
        s.create("order", boot=order, **MEDIA)
        s.dom0().attach("order", f"BOOTED-FROM {marker}", 120)
        s.leave()
        s.destroy("order")
    s.run("xl dmesg -c > /dev/null")
    s.create("order", boot="n", net=1, **MEDIA)
    clock = s.dom0().clock()
    log = ""
    while "Booting from ROM" not in log:
        check(clock.seconds() < 120 * harness.slowness(), f"no boot from a ROM: {log[-300:]}")
        log = s.run("sleep 2; xl dmesg | tail -n 60", 30)
    s.destroy("order")
    whole = s.run("xl dmesg")
    for word in (r"SeaBIOS \(version 1\.", r"HVM Loader", r"Booting from c[a-f]00:"):
        check(re.search(word, whole), f"the guest's log does not have {word!r}")


def seabios_menu(s):
    """Esc at SeaBIOS's prompt, by VNC: its menu lists disk, CD and floppy; the key of one boots it, against boot=."""
    s.run("xl dmesg -c > /dev/null")
    s.create("menu", boot="c", vnc=1, **MEDIA)
    screen = s.screen()
    clock = s.dom0().clock()
    log = ""
    while "Press ESC" not in log:
        check(clock.seconds() < 120 * harness.slowness(), f"SeaBIOS does not offer its menu: {log[-300:]}")
        log = s.run("xl dmesg")
    while "Select boot device" not in log:
        check(clock.seconds() < 180 * harness.slowness(), f"Esc does not bring the menu: {log[-300:]}")
        screen.key("esc")
        log = s.run("sleep 1; xl dmesg")
    time.sleep(2)
    screen.refresh(whole=True)
    screen.save(f"{SCREENS}/seabios-menu.png")
    menu = s.run("xl dmesg | sed -n '/Select boot device/,$p'")
    entries = {what: key for key, what in re.findall(r"\b(\d)\. (DVD/CD|Floppy|ata0-0)", menu)}
    check({"DVD/CD", "Floppy", "ata0-0"} <= set(entries), f"the menu has {entries}: {menu[-400:]}")
    s.console.send("xl console menu\r")
    time.sleep(3)
    screen.key(entries["DVD/CD"])
    s.console.expect("BOOTED-FROM CD", 120)
    s.leave()
    screen.close()
    s.destroy("menu")


def screen_follows(s):
    """A framebuffer that changes all over: updates of what changed bring each change whole (VRAM is tracked, page by page)."""
    s.create("shades", disk="/root/job/shades.img", hdtype="ide", boot="c", vnc=1)
    screen = s.screen()
    clock = s.dom0().clock()
    seen = []
    while len(seen) < 4 or len(set(seen)) < 3:  # each of the three, and one again; a busy machine may miss one
        check(clock.seconds() < 120 * harness.slowness(), f"the screen stands at {screen.colours()} after {seen}")
        screen.refresh()
        shades = set(screen.pixels)
        if screen.width == 640 and len(shades) == 1 and shades <= {0x40, 0x80, 0xc0} and seen[-1:] != list(shades):
            seen += shades
    screen.close()
    s.destroy("shades")


def cd_change(s):
    """xl cd-insert and cd-eject: after a reset the guest boots from the other CD, without one from its disk.

    Not into the drive that is empty since that reset: QEMU 7.2 dies of it (docs/design.md)."""
    s.create("cds", boot="dc", **MEDIA)
    s.dom0().attach("cds", "BOOTED-FROM CD DRIVE e0", 120)
    s.leave()
    for command, marker in (("cd-insert cds hdc /root/job/other.img", "OTHER DRIVE e0"), ("cd-eject cds hdc", "DISK DRIVE 80")):
        domid = s.domid("cds")
        s.run(f"xl {command} && xl trigger cds reset", 60)
        clock = s.dom0().clock()
        while s.domid("cds") in (domid, None):  # a reset makes a new domain
            check(clock.seconds() < 60 * harness.slowness(), "no reset")
            time.sleep(0.5)
        s.dom0().attach("cds", f"BOOTED-FROM {marker}", 120)
        s.leave()
    s.destroy("cds")


# ---- make run -------------------------------------------------------------------------------------------

def make_run_graphics(s):
    """make run GRAPHICS=1 tells a VNC address, and the guest's screen is there; the end of its input powers off."""
    s.close_console()
    with subprocess.Popen([f"{TOP}/ci/run"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                          env=dict(os.environ, GRAPHICS="1", GUEST=""), text=True, preexec_fn=harness.die_with_parent) as run:
        said = ""
        for line in run.stderr:  # ends when it ends; its own time-outs see to that
            said += line
            if "VNC at" in line or "failed" in line:
                break
        told = re.search(r"VNC at 127\.0\.0\.1:(\d+)", said)
        check(told, f"no address: {said[-300:]}")
        screen = Screen(int(told.group(1)))
        began = time.monotonic()
        while screen.width != 720 or len(screen.colours()) < 2:  # QEMU's own "not initialized (yet)" is 640 wide
            check(time.monotonic() - began < 120 * harness.slowness() * 2, "no VGA text on the screen")
            time.sleep(2)
            screen.refresh()
        screen.save(f"{SCREENS}/make-run.png")
        screen.close()
        run.stdin.close()
        rest = run.stderr.read()
        check(run.wait() == 0, f"it ended with {run.returncode}: {rest[-300:]}")


TESTS = [seabios_menu, screen_follows, cd_change, boot_order, make_run_graphics]
