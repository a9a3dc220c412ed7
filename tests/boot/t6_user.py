"""What a user does: `echo uname -a | make run`, and the ISO."""
import os
import subprocess

import harness
from boottest import BUILD, TOP, check, hypervisor


def make_run_feeds_a_script():
    """make run with a script on its standard input prints the guest's answers and exits 0."""
    done = subprocess.run(["ci/run"], cwd=TOP, input="uname -a\necho $((40 + 2))\n", text=True, capture_output=True,
                          timeout=900, check=False)
    check(done.returncode == 0, f"exit status {done.returncode}: {done.stderr[-300:]}")
    check("Linux" in done.stdout and "42" in done.stdout, f"it printed {done.stdout!r}")


def iso_boots():
    """The ISO boots by its GRUB to dom0's shell."""
    image = "ringfence" if hypervisor() == harness.RINGFENCE else "baseline-xen"
    subprocess.run(["ci/iso", BUILD], cwd=TOP, check=True, capture_output=True,
                   env=dict(os.environ, IMAGE=f"{BUILD}/{image}"))
    machine = harness.Machine(hypervisor())
    machine.cdrom = f"{BUILD}/ringfence.iso"
    with machine.start(f"{BUILD}/tests/iso.log") as console:
        harness.wait_dom0(console, 200)
        check("Domain-0" in console.command("xl list"), "xl list does not answer")


TESTS = [make_run_feeds_a_script, iso_boots]
