"""Intel VT-x, on Bochs: dom0, the micro-guests, and an unmodified Linux guest created by stock xl; and Bochs' SVM.

ci/run-tests runs this file beside the others: it takes one CPU for some quarter of an hour.
"""
import importlib.machinery
import re
import subprocess

from bochsmachine import AMD, INTEL, BochsMachine
from boottest import BUILD, TOP, Failure, Session, check, hypervisor

micro = importlib.machinery.SourceFileLoader("micro", f"{TOP}/tests/micro/run").load_module()


class BochsSession(Session):
    """dom0 on Bochs, by default with VT-x."""

    def __init__(self, name, cpu=INTEL, hv_args="", **more):
        super().__init__(name, **more)
        self.cpu, self.more_args = cpu, hv_args

    def machine(self):
        machine = BochsMachine(self.smp, self.cpu)
        machine.hv_args += " " + self.more_args
        return machine


def session():
    """Two disks beside dom0's root are all that Bochs has room for."""
    s = BochsSession("vtx", drives=("guest.img",))
    micro.job(s.job, [*micro.GUESTS, ("clocks", "clocks", 2)])
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


def tsc_scaling(s):
    """A guest whose TSC was set to two thirds of the host's rate: TSC, TSC deadlines and PV clock agree with the other clocks."""
    s.run("cp /root/job/clocks.img /root/; rm -f /tmp/clocks.txt")
    s.create("clocks", disk="/root/clocks.img", mem=64, vcpus=2, extra="'serial=\"file:/tmp/clocks.txt\"'")
    said = s.run(f"python3 job/tsc-rate {s.domid('clocks')} 2 3")
    before, after = (int(khz) for khz in re.findall(r"(\d+)(?: kHz|$)", said))
    check(abs(after / before - 2 / 3) < 0.001, f"the rates are {said}")
    line = s.run("for i in $(seq 60); do [ $(grep -c CLOCKS /tmp/clocks.txt) -gt 3 ] && break; sleep 1; done; "
                 "grep CLOCKS /tmp/clocks.txt | tail -n 2 | head -n 1", 240)
    words = line.split()
    clocks = {name: int(us) for name, us in zip(words[1::2], words[2::2])}
    print(f"# two thirds of the rate: {clocks}", flush=True)
    check("deadline" in clocks, f"the guest says {line!r}")
    check(all(abs(us / clocks["hpet"] - 1) < 0.02 for us in clocks.values()), f"microseconds by each clock: {clocks}")
    s.destroy("clocks")


def bad_fpu_state(s):
    """A tool loads an MXCSR which XRSTOR refuses (QEMU's does not): the guest goes on with a fresh one, and the host too."""
    s.create("fpu", disk="/root/job/busy.img", mem=32)
    domid = s.domid("fpu")
    s.run(f"xl pause fpu && python3 job/bad-fpu {domid} 0xffffffff && xl unpause fpu && sleep 3 && xl pause fpu")
    found = s.run(f"python3 job/bad-fpu {domid}")
    check(found.strip() == "0x1f80", f"MXCSR is {found!r}")
    s.destroy("fpu")


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


def after_rdmsr(function, msr):
    """The address behind a function's first RDMSR of this register."""
    code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", f"--disassemble={function}", f"{BUILD}/vmm.elf"],
                          stdout=subprocess.PIPE, text=True, check=True).stdout
    return int(re.search(rf"mov +\$0x{msr:x},%ecx\n[^\n]*rdmsr *\n *([0-9a-f]+):", code).group(1), 16)


def locked_off(_):
    """VT-x is locked off by the firmware, which Bochs' is not: the debugger changes what IA32_FEATURE_CONTROL reads."""
    machine = BochsMachine()
    machine.modules = [(f"{BUILD}/dom0/initrd", "")]
    machine.debugger = [f"lb {after_rdmsr('vmx_setup', 0x3a):#x}", "c", "set eax = 1", "c"]
    with machine.start(f"{BUILD}/tests/vtx.locked.log") as console:
        console.expect(r"VT-x is locked off by the firmware \(IA32_FEATURE_CONTROL is 1\)", 60)
        console.expect(r"cannot start[^\r\n]*turn virtualisation on in the firmware's set-up", 10)


def run_micro(s, emulator, name, image, vcpus):
    """Every verdict of a micro-guest, but for what the emulator is known for."""
    output = s.run(f"bash job/dom0-job {name} {image} {vcpus} 300", 200)
    bad = [line for line in micro.judged(name, output, emulator) if line.startswith("not ok")]
    if bad:
        raise Failure("; ".join(bad))


def micro_guest(*guest):
    """A test of one micro-guest."""
    name = guest[0]

    def test(s):
        run_micro(s, "bochs", *guest)
    test.__name__ = "micro_" + name
    test.__doc__ = f"The micro-guest {name}: every test passes."
    return test


def two_cpus(s):
    """Two CPUs with VT-x: both of dom0's vCPUs run."""
    s.close_console()
    two = BochsSession("vtx2", smp=2, drives=())
    try:
        check(two.run("nproc").strip() == "2", "dom0 has not two CPUs")
        two.run("for c in 0 1; do taskset -c $c sh -c 'i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done' & done; wait", 120)
        times = re.findall(r"^Domain-0 +0 +\d+ +\d+ +\S+ +([\d.]+)", two.run("xl vcpu-list"), re.M)
        check(len(times) == 2 and all(float(seconds) > 0 for seconds in times), f"the vCPUs ran {times} s")
    finally:
        two.close()


def another_boot(s, name, guests, emulator, says, **more):
    """dom0 in another boot, whose hypervisor says what it uses, and some micro-guests."""
    s.close_console()
    other = BochsSession(name, drives=(), **more)
    try:
        micro.job(other.job, guests)
        check(says in other.run("xl dmesg"), f"xl dmesg does not say {says}")
        for guest in guests:
            run_micro(other, emulator, *guest)
    finally:
        other.close()


def apicv(s):
    """The CPU delivers the guests' interrupts and serves their LAPICs (apicv=yes)."""
    another_boot(s, "apicv", [("pc", "pc", 1)], "bochs", "interrupts are delivered by the CPU", hv_args="apicv=yes")


def svm_second_opinion(s):
    """Bochs' SVM, with next-RIP save: another emulation than QEMU's. V86 mode stops it (tests/micro/README.md)."""
    guests = [("real", "real", 1), ("prot", "nov86", 1), ("long", "long", 1), ("hyper32", "hyper32", 1)]
    another_boot(s, "svm", guests, "bochs-svm", "SVM with nested paging", cpu=AMD)


TESTS = [locked_off, no_ept, no_unrestricted_guest, apicv, svm_second_opinion, dom0_on_vtx, linux_guest, tsc_scaling,
         bad_fpu_state, *(micro_guest(*guest) for guest in micro.GUESTS), two_cpus]
if hypervisor() != "ringfence":
    TESTS = []  # the baseline's tests run on QEMU
