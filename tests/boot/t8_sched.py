"""Scheduling as the toolstack sees it: weights, caps, pinning, CPU pools, vCPUs that come and go, bad input."""
import re

from boottest import Session, check


def session():
    """Two CPUs: dom0 on the first, busy guests on the second."""
    return Session("sched", smp=2)


def used(s, seconds):
    """Seconds of CPU that each vCPU, by "guest vcpu", got over about so many seconds. What the guests on CPU 1
    got together is what there was: clocks outside tell less on a busy machine."""
    found = []
    for wait in (seconds, 0):
        output = s.run(f"xl vcpu-list; sleep {wait}", wait + 60)
        found.append({f"{m[1]} {m[2]}": float(m[3])
                      for m in re.finditer(r"^(\S+) +\d+ +(\d+) +\S+ +\S+ +([\d.]+) ", output, re.M)})
    return {name: after - found[0][name] for name, after in found[1].items()}


def part_of_one(s, seconds):
    """Of what both guests got, the first one's part."""
    got = used(s, seconds)
    one, two = got["one 0"], got["two 0"]
    check(one + two > seconds * 0.6, f"CPU 1 was not used up: {got}")
    return one / (one + two)


def busy_guests(s):
    """Two guests that compute for ever, pinned to CPU 1; then dom0 stays on CPU 0."""
    if s.domid("one") is not None:
        return
    for name in ("one", "two"):
        s.run(f"cp /root/job/busy.img /root/{name}.img")  # QEMU locks its disk
        s.create(name, disk=f"/root/{name}.img", mem=64)
    for name in ("one", "two"):
        s.run("for i in $(seq 60); do /usr/lib/xen-4.17/bin/xenctx $(xl domid %s) 0 | grep -q 'eip: 0000:00007c' && "
              "break; sleep 1; done; [ $i != 60 ]" % name, 150)
        s.run(f"xl vcpu-pin {name} 0 1 1")
    s.run("xl vcpu-pin 0 all 0 0")


def weights_share_a_cpu(s):
    """Weights 256 and 512 on one CPU: a third and two thirds of it; then equal ones: halves."""
    busy_guests(s)
    s.run("xl sched-credit2 -d two -w 512")
    check(re.search(r"two +\d+ +512 +0", s.run("xl sched-credit2")), "sched-credit2 does not show the weight")
    part = part_of_one(s, 10)
    check(abs(part - 1 / 3) < 0.03, f"weight 256 of 768 gets {part}")
    s.run("xl sched-credit2 -d two -w 256")
    part = part_of_one(s, 6)
    check(abs(part - 1 / 2) < 0.03, f"weight 256 of 512 gets {part}")


def cap_limits(s):
    """A cap of 50 is half a CPU though its weight is worth more, and xentop agrees; without it, what its weight says."""
    busy_guests(s)
    s.run("xl sched-credit2 -d one -w 2560 -c 50")
    part = part_of_one(s, 10)
    check(abs(part - 1 / 2) < 0.05, f"cap 50 gives {part}")
    top = re.findall(r"^ *(?:one|two) +\S+ +\d+ +([\d.]+)", s.run("xentop -b -i2 -d5", 90), re.M)
    check(len(top) == 4 and all(abs(float(percent) - 50) < 8 for percent in top[2:]), f"xentop's percentages: {top}")
    s.run("xl sched-credit2 -d one -w 768 -c 0")
    part = part_of_one(s, 5)
    check(abs(part - 3 / 4) < 0.03, f"without a cap, weight 768 of 1024 gives {part}")
    s.run("xl sched-credit2 -d one -w 256")


def pinning_holds(s):
    """vcpu-list shows hard and soft affinity, and a vCPU stays where it is pinned; unpinned, it moves off."""
    busy_guests(s)
    s.run("xl vcpu-pin two 0 1 0")
    check(re.search(r"two +\d+ +0 +1 +\S+ +[\d.]+ +1 / 0", s.run("xl vcpu-list")), "vcpu-list does not show it")
    part = part_of_one(s, 5)
    check(abs(part - 1 / 2) < 0.03, f"pinned together they get {part}")
    s.run("xl vcpu-pin two 0 all all")
    got = used(s, 5)
    check(got["one 0"] + got["two 0"] > 1.2 * 5, f"unpinned, it stays behind: {got}")
    s.run("xl vcpu-pin two 0 1 1")


def cpu_pool(s):
    """One pool, of all CPUs and domains."""
    busy_guests(s)
    check(re.search(r"Pool-0 +2 +credit2 +y +3", s.run("xl cpupool-list")), "cpupool-list shows something else")
    check("CPU list" in s.run("xl cpupool-list -c"), "cpupool-list -c does not answer")
    s.run("xl sched-credit2 -s -r 2000")
    check("ratelimit=2000us" in s.run("xl sched-credit2 -s"), "the rate limit did not change")
    s.run("xl sched-credit2 -s -r 500")


def bad_input_changes_nothing(s):
    """Out of range: an error, and the settings are as before."""
    busy_guests(s)
    settings = "xl sched-credit2; xl vcpu-list | awk '{ print $1, $3, $(NF-2), $(NF-1), $NF }'"
    before = s.run(settings)
    for line in ("xl sched-credit2 -d one -w 65536", "xl sched-credit2 -d one -w 0", "xl sched-credit2 -d one -c 101",
                 "xl sched-credit2 -s -r 99", "xl sched-credit2 -s -r 500001", "xl vcpu-pin one 0 7",
                 "xl vcpu-pin one 9 0", "xl vcpu-set one 200",
                 "xl cpupool-destroy Pool-0"):
        check(s.run(f"{line} >/dev/null 2>&1; echo status $?").strip() != "status 0", f"{line} was taken")
    check(s.run(settings) == before, "something changed")


TESTS = [weights_share_a_cpu, cap_limits, pinning_holds, cpu_pool, bad_input_changes_nothing]
