"""Data before speed: what was written and flushed is there, by every way to a disk, whatever happens to the other end."""
import os
import re
import shutil
import subprocess
import time

import harness
from boottest import Session, check

BY_NAME = ("gigabytes",)
PV_MIB, EMULATED_MIB = 48, 8
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
    guest(s, f"load {modules}; for i in 1 2 3 4 5 6 7 8; do [ -e /dev/{program} ] && break; sleep 1; done; "
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
    """Write, flush, read back and compare so much of each device while the second CPU has timers every 100 us."""
    guest(s, "(taskset 2 /work hammer 100000 > /hammer 2>&1 &)")
    for device in devices * passes:
        output = guest(s, f"/work whole /dev/{device} {mib}", 600)
        check(f"WORK whole {mib * 16} " in output, f"{device}: {output[-200:]}")
    guest(s, "[ ! -s /hammer ] && killall work")


def send(s, name, device, mib):
    """Guest `name`, whose console is attached, sends a disk's content to dom0; both count its sum. Back in dom0."""
    s.leave()
    s.run("(setsid busybox nc -l -p 9 > /tmp/got 2>/dev/null < /dev/null &) ; sleep 1")
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
    send(s, "pv", "xvdb", 16)
    s.run("cmp -n 50331648 /root/raw.img /root/phy.img")


def detach_while_busy(s):
    """xl block-detach of a disk that is being written refuses or drains: nothing is lost, and it goes in the end."""
    pv_guest(s)
    guest(s, f"(/work whole /dev/xvdf {PV_MIB} > /out 2>&1 &) ; sleep 1")
    s.leave()
    refused = s.run("xl block-detach pv xvdf", 120, expect_status=None)
    s.shell("pv", running=True)
    guest(s, "for i in $(seq 100); do [ -s /out ] && break; sleep 1; done; cat /out; grep -q 'WORK whole' /out", 300)
    s.leave()
    if "xvdf" in s.run("xl block-list pv; xenstore-ls -f /local/domain/0/backend | grep dev.*xvdf; true"):
        s.run("xl block-detach pv xvdf; true", 60)
    s.shell("pv", running=True)
    guest(s, "for i in $(seq 30); do [ -e /dev/xvdf ] || break; sleep 1; done; [ ! -e /dev/xvdf ]", 60)
    s.leave()
    check("phy" not in s.run("xenstore-ls -f /local/domain/0/backend | grep params; true"), f"still attached ({refused})")


def kill(s, fmt, image):
    """kill -9 of the back end in the middle of writes; the guest again, and what it had flushed is there."""
    disk = f"xvdb:{fmt}:qdisk:{image}"
    create(s, "victim", "guestiso", "pv", "blkfront", "xvdd", disk)
    s.leave()
    safe = int(re.search(r"SAFE (\d+)", s.run("bash /root/job/proof-kill victim /dev/xvdb 30", 200)).group(1))
    check(safe >= 30, f"only {safe} blocks were flushed")
    time.sleep(1)
    s.destroy("victim")
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
    """AHCI and e1000."""
    emulated(s, "ahci", "ata e1000")


def gigabytes(s):
    """A gigabyte and more over each PV path."""
    pv_guest(s)
    whole(s, ["xvdb", "xvde", "xvdf"], 96, 12)
    s.leave()


TESTS = [pv_paths, detach_while_busy, back_end_killed_raw, back_end_killed_qcow2, emulated_ide, emulated_ahci, gigabytes]
