"""Data before speed: what was written and flushed is there, by every way to a disk, whatever happens to the other end."""
import os
import re
import shutil
import subprocess

import harness
from boottest import Session, check

BY_NAME = ("back_end_killed_qcow2", "emulated_ide", "no_unplug", "gigabytes")  # for their length
PV_MIB, EMULATED_MIB = 16, 4
EMPTY_QCOW2 = "empty.qcow2"  # 256 MiB


def session():
    """One CPU, the guest's CDs, dom0 on a bridge; the program `work` and an empty qcow2 image in dom0."""
    subprocess.run(["make", "--no-print-directory", "-s", "-C", harness.TOP, "build/bench/work"], check=True,
                   stdout=subprocess.DEVNULL)
    s = Session("proof", drives=("guest.iso", "nopv.iso"), dom0_args="net=1")
    shutil.copy(f"{harness.BUILD}/bench/work", s.job)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", os.path.join(s.job, EMPTY_QCOW2), "256M"], check=True)
    return s


def create(s, name, iso, hdtype, modules, program, *disks):
    """A guest with its drivers loaded and /work there; on its console."""
    s.run(f"bash /root/job/proof-guest {name} {iso} {hdtype} {' '.join(disks)}", 120)
    s.shell(name, 400)
    order = harness.SMALL_DISK_LAST + "; " if program == "sdb" else ""
    guest(s, f"load {modules}; for i in $(seq 30); do [ -e /dev/{program} ] && break; sleep 1; done; {order}"
             f"dd if=/dev/{program} of=/work bs=64k 2>/dev/null; chmod +x /work", 90)


def guest(s, line, timeout=60):
    """A line at the guest's shell, whose console is attached, that must end with status 0; its output."""
    status, output = s.console.status(line, timeout)
    check(status == 0, f"{line!r} in the guest ended with {status}: {output[-300:]}")
    return output


def pv_guest(s):
    """A PV guest with a raw (xvdb) and a qcow2 disk (xvde) of QEMU's and one of dom0's kernel's (xvdf); on its console."""
    if s.domid("pv") is not None:
        s.shell("pv", running=True)
        return
    s.run(f"truncate -s 96M /root/raw.img /root/phy.img; cp /root/job/{EMPTY_QCOW2} /root/pv.qcow2")
    create(s, "pv", "guestiso", "pv", "blkfront netfront", "xvdd", "xvdb:raw:qdisk:/root/raw.img",
           "xvde:qcow2:qdisk:/root/pv.qcow2", "xvdf:raw:phy:/root/phy.img")
    guest(s, "ifconfig eth0 10.0.2.101 up; for i in 1 2 3 4 5 6 7 8; do [ -e /dev/xvdf ] && break; sleep 1; done")


def whole(s, devices, mib, passes=1):
    """Write, flush, read back and compare so much of each device while the second CPU has a timer every 500 us."""
    guest(s, "(taskset 2 /work hammer 100000 > /hammer 2>&1 &)")
    for device in devices * passes:
        output = guest(s, f"/work whole /dev/{device} {mib}", 600)
        check(f"WORK whole {mib * 16} " in output, f"{device}: {output[-200:]}")
    guest(s, "[ ! -s /hammer ] && killall work")


def send(s, name, device, mib):
    """Guest `name`, whose console is attached, sends a disk's content to dom0; both count its sum. Back in dom0."""
    s.leave()
    s.run("(tail -f /dev/null | setsid busybox nc -l -p 9 > /tmp/got 2> /dev/null &) ; sleep 1")
    s.shell(name, running=True)
    read = f"dd if=/dev/{device} bs=64k count={mib * 16} 2>/dev/null"
    sums = guest(s, f"{read} | nc 10.0.2.100 9; {read} | md5sum", 300)
    s.leave()
    want = re.search(r"\b[0-9a-f]{32}\b", sums).group(0)
    check(want in s.run("sleep 2; md5sum < /tmp/got"), "what dom0 got over the network is not what was sent")


def pv_paths(s):
    """PV: QEMU's back end with raw and qcow2, the kernel's, and netfront, the other CPU under a storm of timers."""
    pv_guest(s)
    whole(s, ["xvdb", "xvde", "xvdf"], PV_MIB)
    send(s, "pv", "xvdb", 8)
    s.run("cmp -n 16777216 /root/raw.img /root/phy.img")


def detach_while_busy(s):
    """xl block-detach of a disk that is being written: the writer ends or hears an error, what it had flushed is there."""
    pv_guest(s)
    attached = "for i in $(seq 30); do [ -e /dev/xvdf ] && break; sleep 1; done; [ -e /dev/xvdf ]"
    gone = "for i in $(seq 60); do [ -e /dev/xvdf ] || break; sleep 1; done; [ ! -e /dev/xvdf ]"
    guest(s, "(/work stamp /dev/xvdf 1400 > /out 2>&1; echo END >> /out) & "
             "for i in $(seq 60); do [ $(wc -l < /out) -ge 20 ] && break; sleep 1; done", 90)
    s.leave()
    refused = s.run("xl block-detach pv xvdf", 120, expect_status=None)
    s.shell("pv", running=True)
    output = guest(s, "for i in $(seq 200); do grep -q END /out && break; sleep 1; done; tail -n 3 /out; grep -c FLUSHED /out", 300)
    check("END" in output, f"the writer neither ends nor hears an error: {output[-200:]} ({refused})")
    safe = int(output.split()[-1])
    guest(s, gone, 90)
    s.leave()
    s.run("sleep 2; xl block-attach pv format=raw,vdev=xvdf,access=rw,backendtype=phy,target=/root/phy.img", 90)
    s.shell("pv", running=True)
    output = guest(s, f"{attached}; /work verify /dev/xvdf {safe}", 120)
    check(safe >= 20 and f"WORK verify {safe}" in output, f"{safe} were flushed: {output[-200:]}")
    s.leave()


def kill(s, fmt, image):
    """kill -9 of the back end in the middle of writes; the guest again, and what it had flushed is there."""
    disk = f"xvdb:{fmt}:qdisk:{image}"
    create(s, "victim", "guestiso", "pv", "blkfront", "xvdd", disk)
    s.leave()
    safe = int(re.search(r"SAFE (\d+)", s.run("bash /root/job/proof-kill victim /dev/xvdb 30", 200)).group(1))
    check(safe >= 30, f"only {safe} blocks were flushed")
    s.wait_gone("victim")  # a domain without its device model crashes
    create(s, "victim", "guestiso", "pv", "blkfront", "xvdd", disk)
    output = guest(s, f"/work verify /dev/xvdb {safe}", 120)
    check(f"WORK verify {safe}" in output, output[-200:])
    s.leave()
    s.destroy("victim")


def back_end_killed_raw(s):
    """QEMU, the back end of a raw disk, is killed in the middle of writes: what was flushed is there."""
    s.run("truncate -s 96M /root/victim.img")
    kill(s, "raw", "/root/victim.img")


def back_end_killed_qcow2(s):
    """The same with qcow2, whose tables QEMU keeps in its own memory until they are flushed."""
    s.run(f"cp /root/job/{EMPTY_QCOW2} /root/victim.qcow2")
    kill(s, "qcow2", "/root/victim.qcow2")


def emulated(s, hdtype, modules):
    """A guest without PV drivers: its emulated disk and network card."""
    s.run("truncate -s 96M /root/hvm.img")
    create(s, "hvm", "nopviso", hdtype, modules, "sdb", "hdb:raw:qdisk:/root/hvm.img")
    whole(s, ["sda"], EMULATED_MIB)
    guest(s, "ifconfig eth0 10.0.2.102 up")
    send(s, "hvm", "sda", 2)
    s.destroy("hvm")


def emulated_ide(s):
    """IDE and RTL8139."""
    emulated(s, "ide", "ata rtl8139")


def emulated_ahci(s):
    """AHCI, whose interrupts are messages, and e1000."""
    emulated(s, "ahci", "ata e1000")


def no_unplug(s):
    """A guest that keeps its emulated devices (xen_emul_unplug=never): its PV drivers stay away, nothing is lost."""
    s.run("mkdir -p /cd; mount -t iso9660 -o ro /dev/guestiso /cd; truncate -s 96M /root/keep.img; "
          "export CMDLINE='console=ttyS0 quiet xen_emul_unplug=never'")
    create(s, "keep", "nopviso", "ide", "ata rtl8139", "sdb", "hdb:raw:qdisk:/root/keep.img")
    s.leave()
    s.run("unset CMDLINE")
    s.shell("keep", running=True)
    guest(s, "grep xen_emul_unplug=never /proc/cmdline; load blkfront; sleep 1; [ ! -e /dev/xvdb ] && [ -e /dev/sda ]")
    whole(s, ["sda"], 2)
    s.leave()
    s.destroy("keep")


def gigabytes(s):
    """A gigabyte and more over each PV path."""
    pv_guest(s)
    whole(s, ["xvdb", "xvde", "xvdf"], 96, 12)
    s.leave()


TESTS = [pv_paths, detach_while_busy, back_end_killed_raw, back_end_killed_qcow2, emulated_ide, emulated_ahci, no_unplug,
         gigabytes]
