"""What boot tests share: the report, a dom0 that is booted again when it dies, and guests' images.

A scenario file in tests/boot has a list TESTS of functions taking a Session; each is one test, named after
the function, and its docstring is what it shows. Tests of one file share a boot of dom0 as long as it lives.
"""
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time

import harness
from harness import BUILD, TOP, Timeout  # noqa: F401


class Failure(Exception):
    """A test's expectation did not hold."""


def check(condition, reason):
    """Fail the running test with this reason unless the condition holds."""
    if not condition:
        raise Failure(reason)


class Report:
    """Counts and prints results, one line each."""

    def __init__(self):
        self.passed = self.failed = 0

    def ok(self, name, seconds=None):
        """A test passed."""
        self.passed += 1
        print(f"ok - {name}" + (f" ({seconds:.0f} s)" if seconds is not None else ""), flush=True)

    def fail(self, name, reason):
        """A test failed."""
        self.failed += 1
        print(f"not ok - {name}: {reason}", flush=True)


def hypervisor():
    """The hypervisor under test: HYPERVISOR, Ringfence by default."""
    return os.environ.get("HYPERVISOR") or harness.RINGFENCE


def job_directory():
    """A directory for dom0's /root/job with the micro-guests' images."""
    path = tempfile.mkdtemp(prefix="ringfence-job.")
    source = os.path.join(TOP, "tests", "boot", "guests")
    for name in sorted(os.listdir(source)):
        if name.endswith(".asm"):
            image = os.path.join(path, name[:-4] + ".img")
            subprocess.run(["nasm", "-f", "bin", os.path.join(source, name), "-o", image], check=True)
            os.truncate(image, 1 << 20)
        else:
            shutil.copy(os.path.join(source, name), path)
    return path


class Session:
    """A machine with dom0 at its shell, booted when first needed and again after it died."""

    def __init__(self, name, smp=1, memory="4G", drives=("guest.iso", "guest.img"), dom0_args="", folder="guest",
                 icount_shift=None):
        self.name = name
        self.smp, self.memory, self.drives, self.dom0_args = smp, memory, drives, dom0_args
        self.folder = folder  # of build/, where the drives' images are
        self.icount_shift = icount_shift  # not None: time is instructions, see harness.Machine
        self.console = None
        self.boots = self.failed_boots = 0
        self.job = job_directory()

    def machine(self):
        """What to boot."""
        machine = harness.Machine(hypervisor(), self.smp, self.memory)
        if self.icount_shift is not None:
            machine.icount, machine.icount_shift = True, self.icount_shift
        return machine

    def dom0(self):
        """The console, at dom0's shell."""
        if self.console and not self.console.ended:
            return self.console
        if self.failed_boots == 4:
            raise Failure("dom0 did not come up four times, not tried again")
        self.close_console()
        machine = self.machine()
        machine.drives = [(drive.split(".")[0] + drive.split(".")[1], f"{BUILD}/{self.folder}/{drive}") for drive in self.drives]
        machine.job = self.job
        machine.dom0_args += self.dom0_args
        self.boots += 1
        self.console = machine.start(f"{BUILD}/tests/{self.name}.{self.boots}.log")
        try:
            harness.wait_dom0(self.console, 120)
        except Timeout:
            self.failed_boots += 1
            self.close_console()
            raise
        return self.console

    def close_console(self):
        """Power off."""
        if self.console:
            self.console.close()
        self.console = None

    def close(self):
        """Power off and clean up."""
        self.close_console()
        shutil.rmtree(self.job, ignore_errors=True)

    # What tests say in terms of guests. `self.dom0()` is at its shell before and after each.

    def run(self, line, timeout=60, expect_status=0):
        """A command in dom0 that must end with this status; returns its output."""
        status, output = self.dom0().status(line, timeout)
        check(expect_status is None or status == expect_status, f"{line!r} ended with {status}: {output[-300:]}")
        return output

    def create(self, name, **options):
        """Start a guest with rf-create."""
        words = " ".join(f"{key}={value}" for key, value in options.items())
        self.run(f"rf-create {name} {words}", 120)

    def domid(self, name):
        """The guest's number, or None when there is no such domain."""
        output = self.run(f"xl list | awk '$1 == \"{name}\" {{ print $2 }}'")
        lines = [line for line in output.split("\n") if line.strip().isdigit()]
        return int(lines[0]) if lines else None

    def state(self, name):
        """The guest's state letters in xl list."""
        return self.run(f"xl list | awk '$1 == \"{name}\" {{ print $5 }}'").strip()

    def wait_gone(self, name, timeout=60):
        """Wait until no domain has this name."""
        clock = self.dom0().clock()
        while self.domid(name) is not None:
            check(clock.seconds() < timeout * harness.slowness() * self.console.slow, f"domain {name} is still there (state {self.state(name)})")
            time.sleep(2)

    def shell(self, name, timeout=240, running=False):
        """On to the guest's shell; leave with self.leave(). With `running` it is there already."""
        self.dom0().attach(name, timeout=timeout, running=running)
        return self.console

    def shell_line(self, name, line):
        """Type a line at the guest's shell that ends the guest, and come back to dom0's."""
        console = self.dom0()
        console.mark = len(console.text)
        console.send(f"xl console {name}\r")
        time.sleep(1)
        console.send("\r")
        console.expect(harness.GUEST_PROMPT, 60, settle=0.3)
        console.send(line + "\r")
        console.expect(harness.DOM0_PROMPT, 60)

    def leave(self):
        """From the guest's console to dom0's shell."""
        self.console.detach()

    def alive(self, name, timeout=60):
        """The guest's shell, which must be there, answers."""
        console = self.dom0()
        console.mark = len(console.text)
        console.send(f"xl console {name}\r")
        time.sleep(1)
        console.send("\r")
        console.expect(harness.GUEST_PROMPT, timeout, settle=0.3)
        answer = console.command("echo $((6 * 7))", timeout)
        self.leave()
        check("42" in answer, f"guest {name} answered {answer!r}")

    def destroy(self, name):
        """xl destroy; the domain and its QEMU must be gone."""
        domid = self.domid(name)
        self.run(f"xl destroy {name}", 60)
        self.wait_gone(name, 20)
        self.run(f"for i in 1 2 3 4 5; do pgrep -f -- '-xen-domid {domid} ' >/dev/null || exit_ok=1; "
                 "[ \"$exit_ok\" ] && break; sleep 1; done; [ \"$exit_ok\" ]; r=$?; exit_ok=; (exit $r)")


def attempt(test, session):
    """One try; the reason why it failed, or None."""
    try:
        if session:
            test(session)
        else:
            test()
        return None
    except (Failure, Timeout, OSError, subprocess.SubprocessError) as error:
        reason = str(error)
        if session and session.console and "last line seen" not in reason:
            reason += f" (last line seen: {session.console.last_line()})"
        return reason


TRIES = 3


def run_test(test, name, session, report):
    """Run a test; one that fails is tried again on a fresh machine, and each try is shown.

    For QEMU loses interrupts, and there are stalls that nobody has explained (docs/design.md, quirk lost-interrupts
    and "Known faults"): a failed try is something to look into."""
    started = time.monotonic()
    for left in reversed(range(TRIES)):
        reason = attempt(test, session)
        if reason is None:
            report.ok(name, time.monotonic() - started)
            return
        if session:
            session.close_console()
        if left:
            print(f"# {name}: a try failed: {reason}", flush=True)
    report.fail(name, reason)


def run_file(path, report, only=()):
    """Run the tests of a scenario file."""
    spec = importlib.util.spec_from_file_location(os.path.basename(path)[:-3], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    by_name = getattr(module, "BY_NAME", ())  # tests that are too long for the default run
    tests = [test for test in module.TESTS if (test.__name__ not in by_name if not only else
                                               test.__name__ in only or spec.name in only)]
    for test in module.TESTS:
        if not only and test not in tests:
            print(f"# {spec.name}: {test.__name__}: not run (by name only)", flush=True)
    if not tests:
        return
    try:
        session = module.session() if hasattr(module, "session") else None
    except (OSError, subprocess.CalledProcessError) as error:
        report.fail(spec.name, f"what its tests need could not be made: {error}")
        return
    for test in tests:
        run_test(test, f"{spec.name}: {test.__name__}", session, report)
    if session:
        session.close()


if __name__ == "__main__":
    sys.exit("boottest is a library; run ci/run-tests")
