"""A guest that uses the PV drivers its stock kernel carries: block, network, balloon, and what xl does to it."""
import re

from boottest import Session, check

MIB = 8  # of data written and read back


def session():
    """One CPU, the guest from disk, dom0 on a bridge."""
    return Session("pv", drives=("guest.img",), dom0_args="net=1")


def guest(s):
    """The guest with its front ends loaded, its disk, network card and a balloon; back in dom0."""
    if s.domid("pv") is not None:
        return
    s.run("rf-create pv disk=/dev/guestimg net=1 mem=384 extra=maxmem=512", 120)
    s.shell("pv", 300)
    s.leave()
    in_guest(s, f"load blkfront netfront && dd if=/dev/urandom of=/data bs=1M count={MIB} 2>/dev/null")


def in_guest(s, line, timeout=60):
    """Run a line in the guest that must end with status 0; returns its output, back in dom0."""
    s.shell("pv", running=True)
    status, output = s.console.status(line, timeout)
    s.leave()
    check(status == 0, f"{line!r} in the guest ended with {status}: {output[-300:]}")
    return output


def disk_by_qdisk(s):
    """blkfront takes the boot disk over from the emulated one, and reads what dom0 has."""
    guest(s)
    read = in_guest(s, "[ ! -e /dev/sda ] && dd if=/dev/xvda bs=1M count=40 2>/dev/null | md5sum", 120)
    check(read.split()[0] in s.run("dd if=/dev/guestimg bs=1M count=40 2>/dev/null | md5sum"), f"the guest read {read}")


def disk_by_blkback(s):
    """block-attach of a file by dom0's kernel back end, data written, read back and checked in both; block-detach."""
    guest(s)
    s.run("truncate -s 64M /root/d.img && xl block-attach pv format=raw,vdev=xvdb,access=rw,target=/root/d.img")
    sums = in_guest(s, "for i in 1 2 3 4 5; do [ -e /dev/xvdb ] && break; sleep 1; done; md5sum < /data && "
                       "dd if=/data of=/dev/xvdb bs=64k conv=fsync 2>/dev/null && echo 3 > /proc/sys/vm/drop_caches && "
                       f"dd if=/dev/xvdb bs=64k count={MIB * 16} 2>/dev/null | md5sum", 120)
    found = re.findall(r"\b[0-9a-f]{32}\b", sums)
    check(len(found) == 2 and found[0] == found[1], f"checksums in the guest: {found}")
    here = s.run(f"sync; dd if=/root/d.img bs=1M count={MIB} 2>/dev/null | md5sum")
    check(found[0] in here, f"dom0's file has {here}, the guest wrote {found[0]}")
    s.run("xl block-detach pv xvdb")
    check("vbd" not in s.run("xl block-list pv"), "still in block-list")
    in_guest(s, "[ ! -e /dev/xvdb ]")


def network(s):
    """netfront to dom0's bridge: pings of 1,400 bytes; a second card comes and goes."""
    guest(s)
    output = in_guest(s, "ifconfig eth0 10.0.2.101 up && ping -c 5 -s 1400 10.0.2.100")
    check(" 0% packet loss" in output, f"ping: {output[-200:]}")
    s.run("xl network-attach pv bridge=xenbr0")
    in_guest(s, "for i in 1 2 3 4 5; do [ -e /sys/class/net/eth1 ] && break; sleep 1; done; [ -e /sys/class/net/eth1 ]")
    s.run("xl network-detach pv 1")
    in_guest(s, "[ ! -e /sys/class/net/eth1 ]")


def balloon(s):
    """xl mem-set down and up again: the guest's memory follows, and the hypervisor's free memory with it."""
    guest(s)

    def free():
        return int(re.search(r"free_memory\s*:\s*(\d+)", s.run("xl info")).group(1))

    def total():
        return int(re.search(r"Mem:\s+(\d+)", in_guest(s, "free -m")).group(1))

    first, host = total(), free()
    s.run("xl mem-set pv 300; sleep 5")
    small, freed = total(), free() - host
    check(60 <= first - small <= 100, f"the guest has {small} MiB after {first}")
    check(abs(freed - (first - small)) <= 4, f"the guest gave back {first - small} MiB, {freed} came free")
    s.run("xl mem-set pv 500; sleep 5")
    check(total() - small >= 190, f"the guest has {total()} MiB")
    check(s.run("xl mem-set pv 700", expect_status=None) != "", "mem-set beyond maxmem said nothing")
    s.run("xl mem-max pv 600")


def sysrq_and_nmi(s):
    """xl sysrq and xl trigger nmi arrive."""
    guest(s)
    s.run("xl sysrq pv h && xl trigger pv nmi && sleep 1")
    output = in_guest(s, "dmesg | tail -n 6")
    check("HELP" in output and "NMI received" in output, f"the guest's log ends with {output[-300:]}")


TESTS = [disk_by_qdisk, disk_by_blkback, network, balloon, sysrq_and_nmi]
