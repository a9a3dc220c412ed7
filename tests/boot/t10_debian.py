"""What a person sees of a guest: the BIOS's menu and boot order, an installed Debian, its graphical installer by VNC.

Pictures of each stage are kept in build/tests/screens. The default run has what is quick; the rest is run by name.
"""
import os
import re
import subprocess
import tempfile
import time

import harness
from boottest import BUILD, TOP, Session, check
from vnc import Screen

BY_NAME = {"installed_debian", "installed_debian_nopv", "graphical_installer"}
SCREENS = f"{BUILD}/tests/screens"
UUID = "12345678-9abc-def0-1234-56789abcdef0"


class ScreenSession(Session):
    """A machine whose dom0's port 5900 is a port of this host, and whose log has what firmware says."""
    port = None

    def machine(self):
        machine = super().machine()
        machine.vnc_port = self.port = harness.free_port()
        machine.hv_args = "guest_loglvl=all"  # what the firmware says
        return machine

    def screen(self):
        """A new connection to the guest's screen."""
        clock = self.dom0().clock()
        while True:
            try:
                return Screen(self.port)
            except OSError:
                check(clock.seconds() < 60 * harness.slowness(), f"nothing answers on port {self.port}")
                time.sleep(1)


def session():
    """One CPU, the media of devmodel/debian-guests, boot sectors that say what they were booted from."""
    subprocess.run([os.path.join(TOP, "devmodel", "debian-guests"), BUILD], check=True)
    s = ScreenSession("debian", drives=("debian.img", "installer.img"), folder="debian", dom0_args="net=1")
    for name, size in (("disk", 1 << 20), ("floppy", 1474560), ("cd", 2048)):
        assemble(f"{s.job}/{name}.img", name.upper(), size)
    with tempfile.TemporaryDirectory() as tree:
        os.rename(f"{s.job}/cd.img", f"{tree}/boot.img")
        subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-o", f"{s.job}/cd.img", "-b", "boot.img", "-no-emul-boot",
                        "-boot-load-size", "4", tree], check=True, stderr=subprocess.DEVNULL)
    return s


def assemble(path, name, size):
    """A boot sector that says this name, in a file of this size."""
    subprocess.run(["nasm", "-f", "bin", f"-DNAME='{name}'", f"{TOP}/tests/boot/guests/hello.asm", "-o", path], check=True)
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


# ---- an installed Debian --------------------------------------------------------------------------

def debian(s, name, key, **options):
    """The installed system by GRUB's entry with this hotkey, to its root shell."""
    s.create(name, disk="/dev/debianimg", mem=640, extra=f"'uuid=\"{UUID}\"'", **options)
    s.dom0().attach(name, r"executed automatically in", 240)
    s.console.send(key)
    s.console.expect(harness.GUEST_PROMPT, 900, settle=1)


def installed(s, name, key, vcpus):
    """GRUB, the stock kernel, systemd, a shell; what is written survives a reboot from inside; power-off from inside."""
    debian(s, name, key, vcpus=vcpus)
    c = s.console
    check("x86_64" in c.command("uname -m", 60), "not amd64")
    check(c.command("nproc", 60).split()[-1] == str(vcpus), "the CPUs are not all there")
    for what in ("system-uuid", "system-serial-number"):
        said = c.command(f"dmidecode -s {what}", 60)
        check(UUID in said.lower(), f"dmidecode -s {what} says {said}")
    c.command("date +%s.%N > /kept; cp /kept /dev/shm/kept; sync", 60)
    kept = c.command("cat /kept", 60)
    c.send("systemctl reboot\r")
    c.expect(harness.DOM0_PROMPT, 240)
    clock = s.dom0().clock()
    while s.domid(name) is None:
        check(clock.seconds() < 120 * harness.slowness(), "no reboot")
        time.sleep(2)
    s.dom0().attach(name, r"executed automatically in", 240)
    c.send(key)
    c.expect(harness.GUEST_PROMPT, 900, settle=1)
    check(c.command("cat /kept", 60) == kept, "what was written is gone")
    check(c.command("ls /dev/shm", 60).strip() == "", "it was not rebooted")


def installed_debian(s):
    """With PV drivers, one CPU."""
    installed(s, "debian", "d", 1)
    kernel = s.console.command("cat /sys/hypervisor/type; lsblk -no NAME,TYPE; dmesg | grep -c xen", 60)
    check("xen" in kernel and "xvda" in kernel, f"no PV: {kernel}")
    s.console.send("systemctl poweroff\r")
    s.console.expect(harness.DOM0_PROMPT, 240)
    s.wait_gone("debian", 120)


def installed_debian_nopv(s):
    """xen_nopv, two CPUs; its screen by VNC."""
    installed(s, "debian", "n", 2)
    check("xvda" not in s.console.command("cat /proc/partitions", 60), "PV drivers")
    s.console.send("systemctl poweroff\r")
    s.console.expect(harness.DOM0_PROMPT, 240)
    s.wait_gone("debian", 120)


# ---- the installer in graphics ------------------------------------------------------------------------

def shot(screen, name):
    """The whole picture, kept as a PNG; its pixels."""
    screen.refresh(whole=True, timeout=30)
    screen.save(f"{SCREENS}/{name}.png")
    return bytes(screen.pixels)


def differs(one, other):
    """The part of the pixels that differ, 0 to 1."""
    if len(one) != len(other):
        return 1.0
    step = 3 * 5
    pairs = range(0, len(one), step)
    return sum(one[at:at + 3] != other[at:at + 3] for at in pairs) / max(len(pairs), 1)


def settled(screen, name, timeout=300, unlike=None):
    """Wait until the picture stands still (and is unlike another one); keep it."""
    began = time.monotonic()
    last = None
    while True:
        time.sleep(4)
        now = shot(screen, name)
        if last is not None and differs(now, last) < 0.001 and (unlike is None or differs(now, unlike) > 0.02):
            return now
        check(time.monotonic() - began < timeout * harness.slowness() * 3, f"the screen did not come to rest: {name}")
        last = now


def graphical_installer(s):
    """Debian's graphical installer by VNC: its language list, keys in it, the mouse on Continue and Go Back."""
    s.create("installer", disk="/dev/installerimg", mem=1400, vnc=1)
    screen = s.screen()
    began = time.monotonic()
    while True:  # 800x600, a white ground and Debian's banner
        time.sleep(5)
        shot(screen, "installer-boot")
        colours = screen.colours()
        if (screen.width, screen.height) == (800, 600) and len(colours) > 30 and \
                max(colours.values()) > 0.3 * sum(colours.values()) and max(colours, key=colours.get) > b"\xd0\xd0\xd0":
            break
        check(time.monotonic() - began < 900 * harness.slowness() * 2,
              f"no installer: {screen.width}x{screen.height}, {len(colours)} colours")
    first = settled(screen, "installer-1-language")
    screen.key("down")
    moved = settled(screen, "installer-2-key-down", unlike=None)
    check(0.0005 < differs(first, moved) < 0.2, f"Down changed {differs(first, moved):.2%} of the screen")
    screen.key("up")
    back = settled(screen, "installer-3-key-up")
    check(differs(first, back) < differs(first, moved), "Up does not undo Down")
    screen.click(740, 577)  # Continue
    second = settled(screen, "installer-4-continue", unlike=back)
    screen.click(635, 577)  # Go Back
    settled(screen, "installer-5-go-back", unlike=second)
    screen.close()
    s.destroy("installer")


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
        while len(screen.colours()) < 2:
            check(time.monotonic() - began < 120 * harness.slowness() * 2, "the screen stays empty")
            time.sleep(2)
            screen.refresh()
        screen.save(f"{SCREENS}/make-run.png")
        screen.close()
        run.stdin.close()
        rest = run.stderr.read()
        check(run.wait() == 0, f"it ended with {run.returncode}: {rest[-300:]}")


TESTS = [boot_order, seabios_menu, installed_debian, installed_debian_nopv, graphical_installer, make_run_graphics]
