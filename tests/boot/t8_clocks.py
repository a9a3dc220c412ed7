"""A guest's clocks while others use the CPU, on a machine whose time is instructions (16 ns each), so that what else runs on
the host does not matter."""
import os
import shutil
import subprocess

import harness
from boottest import TOP, Session, check

BY_NAME = {"two_guests_for_ten_minutes", "eight_guests_for_ten_minutes"}
BUSY = ("one", "two", "three", "four", "five", "six", "seven")


class CountedSession(Session):
    """On a machine that counts instructions."""

    def machine(self):
        machine = super().machine()
        machine.icount, machine.icount_shift = True, 4
        return machine


def session():
    """One CPU for dom0 and all guests."""
    s = CountedSession("clocks", drives=())
    subprocess.run(["make", "-s", "build/micro/clocks.img"], cwd=TOP, check=True)
    shutil.copy(os.path.join(harness.BUILD, "micro", "clocks.img"), s.job)
    return s


def said_by_clocks(s, seconds, busy):
    """Guests that compute, and one (tests/micro/clocks.c) that says how far each of its clocks came: what they say
    after so many seconds by its TSC, and the CPU time of each guest."""
    for name in busy:
        s.run(f"cp /root/job/busy.img /root/{name}.img")
        s.create(name, disk=f"/root/{name}.img", mem=64)
        s.run(f"xl pause {name}")  # so that the next one does not take as many times longer
    s.run("cp /root/job/clocks.img /root/; rm -f /tmp/clocks.txt")
    s.create("clocks", disk="/root/clocks.img", mem=64, vcpus=2, extra="'serial=\"file:/tmp/clocks.txt\"'")
    for name in busy:
        s.run(f"xl unpause {name}")
    clock = s.dom0().clock()
    said, used = {}, {}
    while said.get("tsc", 0) < seconds * 1000000:
        check(clock.seconds() < (10 * seconds + 240) * harness.slowness(), f"after {clock.seconds():.0f} s: {said}")
        words = s.run("sleep 10; grep CLOCKS /tmp/clocks.txt | tail -n 2 | head -n 1", 120, None).split()
        said = {name: int(us) for name, us in zip(words[1::2], words[2::2])}
    for line in s.run("xl vcpu-list").splitlines():
        words = line.split()
        if words and words[0] in (*busy, "clocks") and words[2] == "0":
            used[words[0]] = float(words[5])
    for name in (*busy, "clocks"):
        s.destroy(name)
    return said, used


def clocks_agree(s, guests, seconds):
    """8254, RTC at 1024 Hz, LAPIC timer, TSC deadlines, PM timer, HPET and TSC (and the PV clock, which it is) agree within
    0.1 percent."""
    busy = BUSY[:guests - 1]
    said, used = said_by_clocks(s, seconds, busy)
    print(f"# {guests} guests: microseconds by each clock: {said}", flush=True)
    check({"tsc", "hpet", "pm", "pit", "rtc", "lapic", "deadline"} == set(said), f"not all clocks: {said}")
    check(all(abs(us / said["tsc"] - 1) < 0.001 for us in said.values()), f"microseconds by each clock: {said}")
    check(min(used[name] for name in busy) > 0.8 * used["clocks"], f"the CPU was not shared: {used}")


def four_guests_on_a_cpu(s):
    """Half a minute with four guests that run."""
    clocks_agree(s, 4, 30)


def two_guests_for_ten_minutes(s):
    """With two."""
    clocks_agree(s, 2, 600)


def eight_guests_for_ten_minutes(s):
    """With eight."""
    clocks_agree(s, 8, 600)


TESTS = [four_guests_on_a_cpu, two_guests_for_ten_minutes, eight_guests_for_ten_minutes]
