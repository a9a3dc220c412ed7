"""Scheduling as the toolstack sees it: weights, caps, pinning, CPU pools, vCPUs that come and go, bad input."""
import re
import time

import harness
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
    for number in (1, 129, 65536):  # the ABI has 128 for a guest
        s.run(f"printf 'name=\"many\"\\ntype=\"hvm\"\\nnographic=1\\nmemory=32\\nvcpus={number}\\n' > /tmp/many{number}.cfg")
    s.run("xl create -q /tmp/many1.cfg; xl destroy many", 120)  # it is their number that is wrong with the others
    settings = "xl sched-credit2; xl vcpu-list | awk '{ print $1, $3, $(NF-2), $(NF-1), $NF }'"
    before = s.run(settings)
    for line in ("xl sched-credit2 -d one -w 65536", "xl sched-credit2 -d one -w 0", "xl sched-credit2 -d one -c 101",
                 "xl sched-credit2 -s -r 99", "xl sched-credit2 -s -r 500001", "xl vcpu-pin one 0 7",
                 "xl vcpu-pin one 9 0", "xl vcpu-set one 200",
                 "xl cpupool-destroy Pool-0", "xl create -q /tmp/many129.cfg", "xl create -q /tmp/many65536.cfg"):
        check(s.run(f"{line} >/dev/null 2>&1; echo status $?").strip() != "status 0", f"{line} was taken")
    check(s.run(settings) == before, "something changed")


CPU1 = "/sys/devices/system/cpu/cpu1"


def bring_up_cpu1(s):
    """At the guest's shell: a CPU that was plugged in is there, and goes on line."""
    s.console.command(f"for i in $(seq 60); do [ -e {CPU1}/online ] && break; sleep 1; done", 120)
    s.console.command(f"echo 1 > {CPU1}/online; sleep 1", 60)
    check(s.console.command("nproc").split()[-1] == "2", "the plugged CPU is not on line")


def vcpu_plugged_into_hvm(s):
    """vcpu-set plugs a vCPU into a stock guest by ACPI; the guest uses it, and takes it off line."""
    s.create("hot", disk="/dev/guestimg", vcpus=1, extra="maxvcpus=2")
    s.shell("hot")
    s.leave()
    s.run("xl vcpu-set hot 2")
    s.shell("hot", running=True)
    bring_up_cpu1(s)
    s.console.command(f"echo 0 > {CPU1}/online; sleep 1", 60)
    check(s.console.command("nproc").split()[-1] == "1", "it did not go off line")
    s.leave()
    check(len(re.findall(r"^hot .* -b- ", s.run("xl vcpu-list hot"), re.M)) == 2, "vcpu-list shows something else")
    s.destroy("hot")


def pvh_guest_and_vcpus(s):
    """A stock kernel as a PVH guest comes to its shell; vcpu-set gives it a vCPU and takes it back."""
    s.run("mkdir -p /tmp/iso && mount -o ro /dev/guestiso /tmp/iso")
    lines = ('name="pvh"', 'type="pvh"', 'kernel="/tmp/iso/vmlinuz"', 'ramdisk="/tmp/iso/initrd"', 'cmdline="console=hvc0 quiet"')
    s.run("printf '%s\\n' memory=256 vcpus=1 maxvcpus=2 " + " ".join(f"'{line}'" for line in lines) + " > /root/pvh.cfg")
    s.run("xl create /root/pvh.cfg", 120)

    def shell():
        s.console.mark = len(s.console.text)
        s.console.send("xl console pvh\r")
        time.sleep(1)
        s.console.send("\r")
        s.console.expect(harness.GUEST_PROMPT, 120, settle=0.3)

    shell()
    s.leave()
    s.run("xl vcpu-set pvh 2")
    shell()
    bring_up_cpu1(s)
    s.leave()
    s.run("xl vcpu-set pvh 1")
    shell()
    check(s.console.command("for i in $(seq 30); do [ $(nproc) = 1 ] && break; sleep 1; done; nproc", 60).split()[-1] == "1",
          "vcpu-set did not take it back")
    s.leave()
    s.destroy("pvh")
    s.run("umount /tmp/iso")


TESTS = [weights_share_a_cpu, cap_limits, pinning_holds, cpu_pool, bad_input_changes_nothing,
         vcpu_plugged_into_hvm, pvh_guest_and_vcpus]
