"""ringfence-bench as `make install` puts it into dom0: every part comes to its end and every row has a figure."""
import os
import re
import subprocess

from boottest import TOP, Session, check

BY_NAME = {"bench_from_dom0"}
ROWS = {"exits": ["cpuid", "hypercall", "qemu_in", "event_guests"], "life": ["shell", "many_up", "many_kept"]}
WAYS = ("pv-qdisk", "pv-blkback", "ide", "ahci")
WORK = ("read-random-4096", "write-sequential-131072", "ping", "stream")


def session():
    """One CPU; what install-bench installs goes to dom0 with the job."""
    s = Session("bench", drives=(), dom0_args="net=1")
    subprocess.run(["make", "--no-print-directory", "-s", "-C", TOP, "install-bench", f"DESTDIR={os.path.join(s.job, 'root')}"],
                   check=True, stdout=subprocess.DEVNULL)
    return s


def figures(text):
    """{row: first figure} of the indented lines."""
    return {name: float(value) for name, value in re.findall(r"^  (\S+) +(\d+(?:\.\d+)?)", text, re.M)}


def bench_from_dom0(s):
    """All three parts."""
    s.run("cp -r /root/job/root/usr / && ringfence-bench nonsense", 60, expect_status=2)
    for part, rows in ROWS.items():
        found = figures(s.run(f"ringfence-bench {part}", 1200))
        check(all(found.get(row, 0) > 0 or row == "many_kept" and row in found for row in rows), f"{part}: {found}")
        print(f"# {part}: {found}", flush=True)
    output = s.run("ringfence-bench pv", 2400)
    for text, way in zip(output.split("ticks for one operation")[1:], WAYS, strict=True):
        found = figures(text)
        check(all(found.get(row, 0) > 0 for row in WORK), f"{way}: {text[-300:]}")
        print(f"# {way}: {found}", flush=True)
    check(s.run("xl list | wc -l").strip() == "2" and not s.run("ip link show rfbench0 2>/dev/null", 60, None).strip(),
          "something is left behind")


TESTS = [bench_from_dom0]
