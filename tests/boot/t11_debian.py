"""Debian 12 as people run it: installed on a disk, and its graphical installer by VNC. All of it is run by name, and makes
its media first (devmodel/debian-guests, some minutes)."""
import os
import subprocess
import time

import harness
from boottest import BUILD, TOP, check
from screentest import ScreenSession, differs, settled, shot

BY_NAME = {"installed_debian", "installed_debian_nopv", "graphical_installer"}
UUID = "12345678-9abc-def0-1234-56789abcdef0"


def session():
    """One CPU, the media of devmodel/debian-guests."""
    subprocess.run([os.path.join(TOP, "devmodel", "debian-guests"), BUILD], check=True)
    return ScreenSession("debian", drives=("debian.img", "installer.img"), folder="debian", dom0_args="net=1")


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

def has_list(screen):
    """A page with a list of choices: much white, the banner's many colours."""
    colours = screen.colours()
    return colours.get(b"\xff\xff\xff", 0) > 0.3 * sum(colours.values()) and len(colours) > 200


def graphical_installer(s):
    """Debian's graphical installer by VNC: its language list, keys in it, the mouse on Continue and Go Back."""
    s.create("installer", disk="/dev/installerimg", mem=1400, vnc=1)
    screen = s.screen()
    began = time.monotonic()
    while not has_list(screen):
        check(time.monotonic() - began < 900 * harness.slowness() * 2,
              f"no installer: {screen.width}x{screen.height}, {len(screen.colours())} colours")
        time.sleep(5)
        shot(screen, "installer-0-boot")
    languages = settled(screen, "installer-1-language")
    screen.key("down")
    down = settled(screen, "installer-2-key-down")
    check(0.002 < differs(languages, down) < 0.2, f"Down changed {differs(languages, down):.2%} of the screen")
    screen.key("up")
    up = settled(screen, "installer-3-key-up")
    check(differs(languages, up) < 0.001, f"after Up {differs(languages, up):.2%} of the screen differ")
    bottom = screen.height - 26
    screen.click(screen.width - 61, bottom)
    location = settled(screen, "installer-4-continue", unlike=languages, ready=has_list)
    check(differs(languages, location) > 0.05, "Continue changed next to nothing")
    screen.click(screen.width - 164, bottom)
    again = settled(screen, "installer-5-go-back", unlike=location, ready=has_list)
    check(differs(languages, again) < 0.02, f"after Go Back {differs(languages, again):.2%} of the screen differ")
    screen.close()
    s.destroy("installer")


TESTS = [installed_debian, installed_debian_nopv, graphical_installer]
