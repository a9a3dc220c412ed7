"""dom0 alone: it boots on one CPU and two, its devices work, the stock tools answer, it powers off."""
import os
import re
import time

import harness
from boottest import Session, check


def session():
    """One CPU, then (in its own test) two."""
    return Session("dom0")


def boots_on_one_cpu(s):
    """dom0's shell, one vCPU, the memory it was given."""
    check(s.run("nproc").strip() == "1", "dom0 has not one CPU")
    total = int(s.run("awk '/MemTotal/ { print $2 }' /proc/meminfo"))
    check(1300 << 10 <= total <= 1500 << 10, f"dom0 has {total} KiB with dom0_mem=1500M")


def disk_and_network(s):
    """AHCI reads; the network card is found and gets its interrupts."""
    s.run("dd if=/dev/guestimg of=/dev/null bs=1M count=32", 60)
    s.run("modprobe e1000e && ip link set eth0 up && sleep 3 && ip addr add 10.0.2.15/24 dev eth0")
    s.run("busybox ping -c 2 -W 5 10.0.2.2", 30)


def time_advances(s):
    """The clocks agree: 5 s of sleep are 5 s of wall clock and uptime."""
    output = s.run("a=$(cut -d' ' -f1 /proc/uptime); sleep 5; b=$(cut -d' ' -f1 /proc/uptime); echo $a $b", 30)
    first, second = (float(word) for word in output.split()[-2:])
    check(4.9 <= second - first <= 8, f"a sleep of 5 s took {second - first:.2f} s")


def xl_info(s):
    """xl info names the hypervisor and its memory."""
    output = s.run("xl info")
    for word in ("xen_version", "total_memory", "free_memory", "hvm", "xen_scheduler", "nr_cpus"):
        check(word in output, f"xl info does not say {word}")


def xl_list(s):
    """xl list shows dom0, running."""
    output = s.run("xl list")
    check("Domain-0" in output and "r-----" in output, f"xl list says {output!r}")


def xl_dmesg(s):
    """xl dmesg shows the console ring."""
    check(len(s.run("xl dmesg")) > 200, "xl dmesg is nearly empty")


def xl_vcpu_list_and_uptime(s):
    """xl vcpu-list and xl uptime."""
    check("Domain-0" in s.run("xl vcpu-list"), "no Domain-0 in xl vcpu-list")
    check("Domain-0" in s.run("xl uptime"), "no Domain-0 in xl uptime")


def xl_debug_keys(s):
    """xl debug-keys h lists the key handlers in xl dmesg."""
    s.run("xl debug-keys h; sleep 1")
    output = s.run("xl dmesg | tail -n 60")
    check(re.search("key|h: this list", output), f"no list of keys in xl dmesg: {output[-200:]}")


def pasted_lines(s):
    """Forty lines pasted at once into dom0's console arrive whole."""
    console = s.dom0()
    console.send("cat > /tmp/pasted\r")
    time.sleep(1)
    console.mark = len(console.text)
    os.write(console.fd, b"".join(b"%04d %s\r" % (n, b"x" * 94) for n in range(40)) + b"\x04")
    console.expect(harness.DOM0_PROMPT, 60, settle=0.5)
    output = s.run("wc -c < /tmp/pasted; cut -c1-4 /tmp/pasted | uniq | wc -l; awk 'length != 99' /tmp/pasted | wc -l")
    check(output.split() == ["4000", "40", "0"], f"of 4000 bytes and 40 lines there are {output}")


def xl_top(s):
    """xl top draws its table and leaves on q."""
    console = s.dom0()
    console.mark = len(console.text)
    console.send("TERM=vt100 xl top\r")
    console.expect("Domain-0", 30)
    console.send("q")
    console.expect(r"root@dom0:[^\r\n]*# $", 20)


def xentop_batch(s):
    """xentop -b -i1."""
    check("Domain-0" in s.run("xentop -b -i1"), "no Domain-0 in xentop")


def xenstore_ls(s):
    """xenstore-ls shows dom0's branch."""
    check("Domain-0" in s.run("xenstore-ls | head -n 60"), "no Domain-0 in xenstore")


def bad_xl_files(s):
    """Each bad xl file gives xl's own error and leaves no domain."""
    good = 'name=\\"bad\\"\\ntype=\\"hvm\\"\\nmemory=64\\n'
    bad = {
        "syntax": 'name = \\"bad\\nmemory = = 3\\n',
        "unknown type": 'name=\\"bad\\"\\ntype=\\"toaster\\"\\nmemory=64\\n',
        "no such disk": good + 'disk=[\\"format=raw,vdev=hda,target=/nowhere.img\\"]\\n',
        "bad disk line": good + 'disk=[\\"nonsense,,,\\"]\\n',
        "too much memory": good.replace("memory=64", "memory=900000"),
        "too many vcpus": good + "vcpus=100000\\n",
        "no such firmware": good + 'firmware_override=\\"/nowhere\\"\\n',
        "no such kernel": good + 'kernel=\\"/nowhere\\"\\n',
        "empty": "",
    }
    for what, text in bad.items():
        status, output = s.dom0().status(f'printf "{text}" > /tmp/bad.cfg; xl create /tmp/bad.cfg', 90)
        check(status != 0, f"xl create accepted a file with {what}")
        check(output.strip() != "", f"xl create said nothing about {what}")
        left = s.run("xl list | wc -l").strip()
        check(left == "2", f"a domain was left behind after {what}")
    status, _ = s.dom0().status("xl create /nowhere.cfg")
    check(status != 0, "xl create accepted a missing file")


def powers_off(s):
    """poweroff in dom0 ends the machine."""
    s.dom0().send("poweroff\r")
    check(s.console.wait_end(40), "the machine did not power off")
    check("Power down" in s.console.text, "dom0 did not say Power down")


def reboots(s):
    """reboot in dom0 resets the machine (QEMU runs with -no-reboot and ends)."""
    s.dom0().send("reboot\r")
    check(s.console.wait_end(40), "the machine did not reset")
    check("Restarting system" in s.console.text, "dom0 did not say Restarting system")


TESTS = [boots_on_one_cpu, disk_and_network, time_advances, xl_info, xl_list, xl_dmesg, xl_vcpu_list_and_uptime,
         xl_debug_keys, pasted_lines, xl_top, xentop_batch, xenstore_ls, bad_xl_files, reboots, powers_off]
