"""Intel VT-x, on Bochs: dom0, the micro-guests, and an unmodified Linux guest created by stock xl.

ci/run-tests runs this file beside the others: it takes one CPU for some ten minutes.
"""
import importlib.machinery
import re

from bochsmachine import BochsMachine
from boottest import BUILD, TOP, Failure, Session, check, hypervisor

micro = importlib.machinery.SourceFileLoader("micro", f"{TOP}/tests/micro/run").load_module()


class VtxSession(Session):
    """dom0 on Bochs' VT-x, with the guest's disk and the micro-guests at hand."""

    def machine(self):
        return BochsMachine(self.smp)


def session():
    """Two disks beside dom0's root are all that Bochs has room for."""
    s = VtxSession("vtx", drives=("guest.img",))
    micro.job(s.job, micro.GUESTS)
    return s


def dom0_on_vtx(s):
    """dom0's shell; the hypervisor says that it uses VT-x."""
    check("Domain-0" in s.run("xl list"), "xl list does not show dom0")
    check("VT-x with nested paging" in s.run("xl dmesg"), "xl dmesg does not say VT-x")


def linux_guest(s):
    """Stock xl creates an unmodified Linux guest from a disk; its shell answers."""
    s.create("guest", disk="/dev/guestimg", mem=192)
    s.shell("guest", 240)
    check("Linux" in s.console.command("uname -a"), "uname -a does not say Linux")
    s.leave()
    s.destroy("guest")


def refuses(cpu, *names):
    """The hypervisor does not start on this CPU, and names on one line what is missing."""
    machine = BochsMachine(cpu=cpu)
    machine.modules = [(f"{BUILD}/dom0/initrd", "")]
    with machine.start(f"{BUILD}/tests/vtx.{cpu}.log") as console:
        console.expect(r"cannot start[^\r\n]*\r", 60)
        line = re.search(r"VT-x without what Ringfence needs of it: (.*)", console.text)
    check(line, "nothing is said to be missing")
    for name in names:
        check(name in line.group(1), f"{name} is not named: {line.group(1)}")


def no_ept(_):
    """VT-x of 2008 (Penryn): without EPT, VPID and unrestricted guest."""
    refuses("core2_penryn_t9600", "EPT", "VPID", "unrestricted guest")


def no_unrestricted_guest(_):
    """VT-x of 2009 (Lynnfield): with EPT and VPID, without unrestricted guest."""
    refuses("corei5_lynnfield_750", "unrestricted guest")


def micro_guest(name, image, vcpus):
    """A test of every verdict of a micro-guest."""
    def test(s):
        output = s.run(f"bash job/dom0-job {name} {image} {vcpus} 300", 200)
        bad = [line for line in micro.judged(name, output, "bochs") if line.startswith("not ok")]
        if bad:
            raise Failure("; ".join(bad))
    test.__name__ = "micro_" + name
    test.__doc__ = f"The micro-guest {name}: every test passes."
    return test


def two_cpus(s):
    """Two CPUs with VT-x: both of dom0's vCPUs run."""
    s.close_console()
    two = VtxSession("vtx2", smp=2, drives=())
    try:
        check(two.run("nproc").strip() == "2", "dom0 has not two CPUs")
        two.run("for c in 0 1; do taskset -c $c sh -c 'i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done' & done; wait", 120)
        times = re.findall(r"^Domain-0 +0 +\d+ +\d+ +\S+ +([\d.]+)", two.run("xl vcpu-list"), re.M)
        check(len(times) == 2 and all(float(seconds) > 0 for seconds in times), f"the vCPUs ran {times} s")
    finally:
        two.close()


TESTS = [no_ept, no_unrestricted_guest, dom0_on_vtx, linux_guest, *(micro_guest(*guest) for guest in micro.GUESTS), two_cpus]
if hypervisor() != "ringfence":
    TESTS = []  # the baseline's tests run on QEMU
