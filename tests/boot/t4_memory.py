"""Guests' memory on a one-CPU dom0: private, and given back to the last page."""
import os
import re

from boottest import Session, check

CYCLES = int(os.environ.get("TEST_CYCLES") or 50)


def session():
    """One CPU; the images come with the job."""
    return Session("memory", drives=("guest.img",))


def memory_run(s, name):
    """Start the memory micro-guest; returns what it found, destroys it."""
    s.run(f"rf-create --config {name} disk=/root/job/memory.img mem=64")
    console = s.dom0()
    console.mark = len(console.text)
    console.send(f"xl create -c /root/{name}.cfg\r")
    found = console.expect(r"([0-9A-F]+ [0-9A-F]+ )?MEMORY-(ZERO|DIRTY)", 180).group(0)
    console.expect("MEMORY-FILLED", 180)
    s.leave()
    s.destroy(name)
    return found


def memory_is_private(s):
    """A guest fills its RAM; those created after its destruction find zeroes."""
    found = [memory_run(s, f"memory{number}") for number in range(3)]
    check(found == ["MEMORY-ZERO"] * 3, f"guests found {found}")


def create_and_destroy_many(s):
    """Create and destroy in a row leaves the same free page count."""
    s.run("rf-create --config cycle disk=/root/job/memory.img mem=128")
    output = s.run(f"bash /root/job/cycle /root/cycle.cfg {CYCLES}", 1500)
    match = re.search(r"FREE (\d+) (\d+)", output)
    check(match, f"no count: {output[-200:]}")
    before, after = (int(group) for group in match.groups())
    check(before == after, f"free memory went from {before} to {after} KiB")


TESTS = [memory_is_private, create_and_destroy_many]
