"""The host keeps standing: CPUs that are no use are left out, one that is stuck is named, debug keys dump."""
import os
import re
import subprocess

import harness
from boottest import BUILD, Session, check


def session():
    """Two CPUs, the hypervisor with DEBUG=1: it has a key that makes a CPU stand still."""
    subprocess.run(["make", "--no-print-directory", "-s", "-C", harness.TOP, "debug-image"], check=True, stdout=subprocess.DEVNULL)
    return DebugSession("robust", smp=2, drives=())


class DebugSession(Session):
    """A session on the hypervisor that checks itself."""

    def machine(self):
        machine = super().machine()
        machine.image = os.path.join(harness.TOP, "build", "debug-tree", "build", "ringfence")
        return machine


DUMPS = {
    "q": r"d0: refs \d+, pages \d+", "r": r"CPU1: \d+ waiting.*\n.*\n.*\d+ switches of vCPUs, \d+ TLB tags, \d+ generations",
    "l": r"\d+ places take locks", "m": r"heap: \d+ pages free of \d+", "x": r"d0v0: exit 72: \d+", "0": r"d0v1", "h": r"r: run queues",
}


def keys_dump(s):
    """Each debug key answers in xl dmesg, and the machine goes on."""
    for key, pattern in DUMPS.items():
        output = s.run(f"xl dmesg -c > /dev/null; xl debug-keys {key}; sleep 0.2; xl dmesg")
        check(re.search(pattern, output), f"key {key} does not say {pattern!r}: {output[-300:]}")


def stuck_cpu_is_named(s):
    """A CPU that stands still for 8 s: the other one tells where, by the name of the function, and when it goes on."""
    s.run("xl dmesg -c > /dev/null; xl debug-keys W; sleep 2", 60)
    output = s.run("xl dmesg")
    check(re.search(r"CPU[01] stands still for 5 s.* at:\n(?:.*\n){0,2}.*key_stand_still", output), f"it is not named: {output[-500:]}")
    check(re.search(r"CPU[01] goes on after [789] s", output), f"it does not say that it goes on: {output[-300:]}")


def useless_cpu_is_left_out(_):
    """A CPU without SVM is left out with a line; dom0 comes up on the other."""
    machine = harness.Machine()
    machine.cpu = "EPYC,svm=on,npt=on,monitor=off"  # +svm would be every CPU's
    machine.qemu_args = ["-smp", "1,maxcpus=2", "-device", "EPYC-x86_64-cpu,socket-id=0,core-id=1,thread-id=0,monitor=off,svm=off"]
    with machine.start(f"{BUILD}/tests/useless.log") as console:
        harness.wait_dom0(console, 120)
        check(re.search(r"CPU with APIC id 1 cannot run guests: left out", console.text), "nothing is said of the one without SVM")
        check(console.command("nproc").split()[-1] == "1", "dom0 has more than one CPU")


TESTS = [keys_dump, stuck_cpu_is_named, useless_cpu_is_left_out]
