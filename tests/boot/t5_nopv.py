"""A guest that ignores PV boots on the emulated devices alone."""
from boottest import Session, check


def session():
    """One CPU, the CD whose kernel has xen_nopv."""
    return Session("nopv", drives=("nopv.iso",))


def xen_nopv(s):
    """The kernel with xen_nopv reaches its shell without PV."""
    s.create("nopv", disk="/dev/nopviso", kind="cd")
    s.shell("nopv", 600)
    check("xen_nopv" in s.console.command("cat /proc/cmdline"), "the kernel was not given xen_nopv")
    # Time must pass at the right rate without the PV clock.
    output = s.console.command("a=$(cut -d' ' -f1 /proc/uptime); sleep 5; b=$(cut -d' ' -f1 /proc/uptime); echo $a $b", 60)
    first, second = (float(word) for word in output.split()[-2:])
    check(4.8 <= second - first <= 15, f"a sleep of 5 s took {second - first:.2f} s")
    s.leave()
    s.destroy("nopv")


TESTS = [xen_nopv]
