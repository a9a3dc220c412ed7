"""A stock kernel with four vCPUs under load (tests/boot/guests/storm.c: fork, mmap, futexes) on one, two and four CPUs."""
import os
import re
import subprocess

from boottest import TOP, Session, check

BY_NAME = {"ten_minutes_on_1_cpu", "ten_minutes_on_2_cpus", "ten_minutes_on_2_cpus_of_one_thread", "ten_minutes_on_4_cpus"}
COMPLAINTS = r"WARNING|BUG:|INFO: |Oops|stall|lockup|unstable|hung task|nobody cared"
AT_BOOT = r"WARNING: CPU|BUG:|INFO: |Oops|stalls? on|lockup|hung task|nobody cared"  # not: "installing", a CPU's old errata


class ThreadSession(Session):
    """On a machine whose CPUs are that many threads of the emulator: `single`, `multi` or as usual."""

    thread = None

    def machine(self):
        machine = super().machine()
        machine.thread = self.thread
        return machine


def complaints(s, pattern):
    """What the guest's kernel complained of since this was last asked. Picked there: all of its messages on a serial port
    that QEMU serves keep a vCPU in its interrupt handler for half a minute on a slow host, of which the kernel complains."""
    return re.findall(r"^\[ *\d+\.\d+\].*", s.console.command(f"dmesg -c | grep -E '{pattern}'", 240), re.M)


def load(cpus, seconds, thread=None):
    """The storm in a guest with more vCPUs than the machine has CPUs but for 4; neither it nor the kernel complains."""
    s = ThreadSession(f"load{cpus}{thread or ''}", smp=cpus)
    s.thread = thread
    try:
        subprocess.run(["gcc", "-O1", "-static", os.path.join(TOP, "tests", "boot", "guests", "storm.c"), "-o",
                        os.path.join(s.job, "storm.img")], check=True)
        s.run("cp /root/job/storm.img /root/ && truncate -s 2M /root/storm.img")
        s.create("load", disk="/dev/guestimg", vcpus=4, mem=384,
                 extra="'disk=[\"format=raw,vdev=hda,access=rw,backendtype=qdisk,target=/dev/guestimg\", "
                       "\"format=raw,vdev=xvdb,access=rw,backendtype=qdisk,target=/root/storm.img\"]'")
        s.shell("load", 400)
        check(s.console.command("nproc").split()[-1] == "4", "not four CPUs")
        s.console.command("load blkfront; dd if=/dev/xvdb of=/storm bs=64k 2>/dev/null; chmod +x /storm; mount -t tmpfs t /tmp", 120)
        found = complaints(s, AT_BOOT)
        check(not found, f"the kernel complains before the storm: {found}")
        output = s.console.command(f"/storm {seconds}", 6 * seconds + 120)
        found = re.search(r"STORM forks (\d+) maps (\d+) turns (\d+) errors (\d+)", output)
        check(found and int(found[4]) == 0 and int(found[1]) > seconds / 4, f"the storm said {output[-200:]!r}")
        print(f"# {cpus} CPUs, {seconds} s: {found[0]}", flush=True)
        found = complaints(s, COMPLAINTS)
        check(not found, f"the kernel complains: {found}")
        s.leave()
        s.destroy("load")
    finally:
        s.close()


def twenty_seconds_on_2_cpus():
    """In every run."""
    load(2, 20)


def ten_minutes_on_1_cpu():
    """Ten minutes."""
    load(1, 600)


def ten_minutes_on_2_cpus():
    """Ten minutes, each CPU a thread of the emulator."""
    load(2, 600)


def ten_minutes_on_2_cpus_of_one_thread():
    """Ten minutes, the CPUs one after the other in one thread of the emulator."""
    load(2, 600, "single")


def ten_minutes_on_4_cpus():
    """Ten minutes, four threads on however many CPUs there are."""
    load(4, 600)


TESTS = [twenty_seconds_on_2_cpus, ten_minutes_on_1_cpu, ten_minutes_on_2_cpus,
         ten_minutes_on_2_cpus_of_one_thread, ten_minutes_on_4_cpus]
