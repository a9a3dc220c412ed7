"""Event channels and grants under random operations of two guests, with the hypervisor's own checks (DEBUG=1)."""
import os
import re
import shutil
import subprocess
import time

import harness
from boottest import Failure, Session, check, hypervisor

STORM = ("build/micro/bench-storm.img", "build/debug-tree/build/ringfence")
BY_NAME = ("storm_for_minutes",)


class DebugSession(Session):
    """A session on the hypervisor that checks itself."""

    def machine(self):
        machine = super().machine()
        if hypervisor() == harness.RINGFENCE:
            machine.image = os.path.join(harness.TOP, STORM[1])
            machine.hv_args = "loglvl=all"
        return machine


def session():
    """One CPU; both guests' images are built here, and the debug hypervisor."""
    for target in (STORM[0], "debug-image"):
        subprocess.run(["make", "--no-print-directory", "-s", "-C", harness.TOP, target], check=True,
                       stdout=subprocess.DEVNULL)
    s = DebugSession("storm", drives=())
    for number in (1, 2):
        shutil.copy(os.path.join(harness.TOP, STORM[0]), os.path.join(s.job, f"bench-storm{number}.img"))
    shutil.copy(os.path.join(harness.TOP, "tests/micro/dom0-job"), s.job)
    return s


def key(s, letter, pattern):
    """What a debug key makes the hypervisor say, from its log."""
    s.run(f"xl dmesg -c > /dev/null; xl debug-keys {letter}; sleep 1")
    output = s.run("xl dmesg")
    match = re.search(pattern, output)
    check(match, f"debug key {letter} said {output[-300:]}")
    return match


def free_pages(s):
    """Free pages of the hypervisor's heap, and dom0's page tables, which grow with what it maps of its guests."""
    free = int(key(s, "m", r"heap: (\d+) pages free").group(1))
    return free + int(key(s, "q", r"d0: .*tables (\d+)").group(1))


def ports_of_dom0(s):
    """(event channels, grants) in use by or of dom0."""
    match = key(s, "E", r"selfcheck: d0 has (\d+) ports in use, (\d+) grants")
    return int(match.group(1)), int(match.group(2))


def progress(s, number):
    """Operations of both vCPUs of storm guest `number` so far; None before it says anything."""
    output = s.run(f"cat /tmp/storm{number}.txt", expect_status=None)
    found = re.findall(r"^STORM (\d+) (\d+)", output, re.M)
    return sum(int(count) for count in found[-1]) if found else None


def create(s, number):
    """Start a storm guest in the background."""
    s.run(f"rm -f /tmp/storm{number}.txt; (setsid bash /root/job/dom0-job storm{number} bench-storm{number} 2 3600 > /dev/null 2>&1 &)")
    clock = s.dom0().clock()
    while progress(s, number) is None:
        check(clock.seconds() < 120, f"storm guest {number} does not start")
        time.sleep(1)


def end(s, number):
    """Destroy a storm guest, which must not have ended by itself."""
    alive = s.domid(f"storm{number}") is not None
    check(alive, f"guest {number} ended by itself: {s.run(f'tail -n 3 /tmp/storm{number}.txt')}")
    s.destroy(f"storm{number}")
    s.run("sleep 2")


def rage(s, operations):
    """Two guests, until each has done so many operations; ended in the middle, one after the other."""
    s.dom0()
    create(s, 1)
    end(s, 1)
    pages, ports = free_pages(s), ports_of_dom0(s)
    create(s, 1)
    create(s, 2)
    clock, before = s.dom0().clock(), (0, 0)
    while True:
        now = progress(s, 1), progress(s, 2)
        check(None not in now, f"a guest is gone: {now} operations")
        if min(now) >= operations:
            break
        if now != before:
            clock, before = s.dom0().clock(), now
        check(clock.seconds() < 60, f"the guests stand still after {now} operations")
        time.sleep(3)
    end(s, 1)
    alone = progress(s, 2)
    clock = s.dom0().clock()
    while progress(s, 2) <= alone:  # it says how far it is each thousand operations: seconds apart, on a busy host
        check(clock.seconds() < 60, "the second guest stands still without the first")
        s.run("sleep 3")
    end(s, 2)
    check(s.run("xl list | wc -l").strip() == "2", "a guest is left")
    faults = key(s, "E", r"selfcheck: (\d+) faults").group(1)
    with open(s.console.log.name, encoding="utf-8", errors="replace") as log:
        said = re.findall(r".*(?:lock order:|selfcheck: d\d+: |ASSERT|panic).*", log.read())
    check(faults == "0" and not said, f"{faults} faults: {said[:3]}")
    check(ports_of_dom0(s) == ports, f"dom0 has {ports_of_dom0(s)} ports and grants in use, not {ports}")
    left = free_pages(s)
    if abs(left - pages) > 2:  # a slab may be kept for later
        raise Failure(f"{pages - left} pages of the hypervisor's are not free any more")


def storm(s):
    """Random operations of two guests with two vCPUs each: no fault found by the debug build, no leak."""
    rage(s, 30000)


def storm_for_minutes(s):
    """The same, for minutes."""
    rage(s, 1000000)


TESTS = [storm, storm_for_minutes]
