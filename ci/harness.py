"""The emulated machine, driven over its serial port. Python 3 standard library only.

Machine builds QEMU's command line and runs it on a pseudo-terminal; Console reads and writes that
terminal with hard time-outs whose error names the last line seen. Dom0 and Guest add what is known
about their shells.
"""
import ctypes
import os
import pty
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(TOP, "build")

RINGFENCE, XEN_PVH, XEN_PV = "ringfence", "baseline", "baseline-pv"
KVM = "kvm"  # no hypervisor: Linux alone, whose kvm-amd and QEMU run the guests (tests/bench/kvm)

DOM0_PROMPT = r"root@dom0:[^\r\n]*# $"
GUEST_PROMPT = r"guest:[^\r\n]*# $"
# Linux probes the ports of emulated disks at the same time: the small one, with the test's program, becomes sdb.
SMALL_DISK_LAST = ("[ $(cat /sys/block/sdb/size) -lt 131072 ] || "
                   "{ mv /dev/sda /dev/s; mv /dev/sdb /dev/sda; mv /dev/s /dev/sdb; }")


# Terminal escape sequences, and the beginning of one at the end of the input.
ESCAPE = re.compile(rb"\x1b(?:\[[0-9;?]*[@-~]|[()][A-Z0-9]|[=>78])")
ESCAPE_START = re.compile(rb"\x1b(?:\[[0-9;?]*|[()])?$")


class Timeout(Exception):
    """The awaited text did not come (or QEMU ended first)."""


def run_counts(titles, results):
    """How many runs each side had, by its title."""
    return ", ".join(f"{title}: {len(results[side])}" for side, title in titles.items() if results.get(side))


def slowness():
    """Factor on every time-out, for slow machines: RINGFENCE_SLOW=2 doubles them."""
    return float(os.environ.get("RINGFENCE_SLOW", "1"))


def image_format(path):
    """qcow2 or raw, from the file's first bytes."""
    with open(path, "rb") as image:
        return "qcow2" if image.read(4) == b"QFI\xfb" else "raw"


def is_cd(path):
    """True when the file starts like an ISO 9660 file system."""
    with open(path, "rb") as image:
        image.seek(0x8001)
        return image.read(5) == b"CD001"


def free_port(first=5901, last=5999):
    """A TCP port of this host's loopback that nobody listens on."""
    for port in range(first, last + 1):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise OSError(f"ports {first} to {last} are all in use")


def has_kvm_svm():
    """True when KVM is usable and gives nested SVM."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    try:
        with open("/sys/module/kvm_amd/parameters/nested", encoding="ascii") as nested:
            return nested.read().strip() in ("1", "Y")
    except OSError:
        return False


def die_with_parent():
    """In the child: be killed when this program goes, however it goes."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Machine:
    """What to boot. Every attribute may be changed before start()."""

    def __init__(self, hypervisor=RINGFENCE, smp=1, memory="4G", accel=None):
        self.hypervisor = hypervisor
        self.smp = smp
        self.memory = memory
        self.accel = accel or os.environ.get("ACCEL") or "tcg"
        if self.accel == "auto":
            self.accel = "kvm" if has_kvm_svm() else "tcg"
        self.dom0_memory = "1500M"
        self.dom0_vcpus = None          # as many as CPUs
        self.hv_args = ""               # added to the hypervisor's command line
        self.dom0_args = ""             # added to dom0's kernel's
        self.cpu = None
        self.image = None
        self.modules = None             # [(file, arguments)] in place of dom0's kernel and initrd
        self.drives = []                # [(name, path)]: dom0 sees /dev/NAME
        self.job = None                 # directory whose files go to dom0's /root/job
        self.cdrom = None               # boot from this ISO instead of -kernel
        self.vnc_port = None            # of this host: leads to dom0's port 5900; dom0 needs net=1
        self.qemu_args = []
        self.thread = None              # TCG's: single or multi; None: multi when there are several CPUs
        self.icount = False             # time is instructions, 2^icount_shift ns each
        self.icount_shift = 0
        self._job_tar = None

    def hypervisor_image(self):
        if self.image:
            return self.image
        name = "ringfence" if self.hypervisor == RINGFENCE else "baseline-xen"
        return os.path.join(BUILD, name)

    def hypervisor_args(self):
        vcpus = self.dom0_vcpus or self.smp
        args = (f"console=com1 com1=115200,8n1 dom0_mem={self.dom0_memory},max:{self.dom0_memory} "
                f"dom0_max_vcpus={vcpus} loglvl=info noreboot")
        if self.hypervisor == RINGFENCE:
            args = args.replace(f",max:{self.dom0_memory}", "")
        else:
            args += " spec-ctrl=no cpuidle=0 cpufreq=none"
            if self.hypervisor == XEN_PVH:
                args += " dom0=pvh"
        return f"{args} {self.hv_args}".strip()

    def dom0_cmdline(self):
        return f"console=hvc0 quiet net.ifnames=0 psi=0 {self.dom0_args}".strip()

    def command(self):
        """QEMU's argument list."""
        cpu = self.cpu
        if not cpu:
            if self.accel == "kvm":
                cpu = "host"
            elif self.hypervisor in (RINGFENCE, KVM):
                cpu = "EPYC,+svm,+npt,-monitor"
            else:
                cpu = "EPYC,+svm,+npt,-smap,-smep,-monitor,-rdtscp"
        accel = "kvm" if self.accel == "kvm" else "tcg,thread=" + (self.thread or ("single" if self.smp == 1 else "multi"))
        nic = "user,model=e1000e"
        if self.vnc_port:
            nic += f",hostfwd=tcp:127.0.0.1:{self.vnc_port}-10.0.2.100:5900"
        cmd = ["qemu-system-x86_64", "-M", "q35", "-accel", accel, "-cpu", cpu, "-smp", str(self.smp),
               "-m", self.memory, "-display", "none", "-vga", "std", "-serial", "stdio", "-monitor", "none",
               "-no-reboot", "-nic", nic]
        if self.hypervisor == XEN_PVH:
            cmd += ["-device", "amd-iommu,intremap=on"]
        if self.icount:
            cmd += ["-icount", f"shift={self.icount_shift},sleep=off"]
        drives = []
        if self.cdrom:
            cmd += ["-drive", f"file={self.cdrom},if=none,id=cd,format=raw,readonly=on",
                    "-device", "ide-cd,drive=cd,bus=ide.0", "-boot", "d"]
        elif self.hypervisor == KVM:
            cmd += ["-kernel", f"{BUILD}/kvm/vmlinuz", "-initrd", f"{BUILD}/kvm/initrd",
                    "-append", f"console=ttyS0 quiet net.ifnames=0 psi=0 mitigations=off {self.dom0_args}".strip()]
        else:
            cmd += ["-kernel", self.hypervisor_image(), "-append", self.hypervisor_args()]
            modules = self.modules
            if modules is None:
                modules = [(f"{BUILD}/dom0/vmlinuz", self.dom0_cmdline()), (f"{BUILD}/dom0/initrd", "")]
            if modules:
                cmd += ["-initrd", ",".join(f"{file} {args}".strip().replace(",", ",,") for file, args in modules)]
            drives.append(("root", f"{BUILD}/dom0/root.sqfs"))
        drives += self.drives
        if self.job:
            fd, self._job_tar = tempfile.mkstemp(suffix=".tar")
            os.close(fd)
            subprocess.run(["tar", "-chf", self._job_tar, "-C", self.job, "."], check=True)
            drives.append(("job", self._job_tar))
        for number, (name, path) in enumerate(drives):
            unit = number + (1 if self.cdrom else 0)
            serial = f"model=RF-{name.upper()}"
            file = os.path.abspath(path).replace(",", ",,")
            cmd += ["-drive", f"file={file},if=none,id=d{number},format={image_format(path)},snapshot=on",
                    "-device", f"ide-hd,drive=d{number},bus=ide.{unit},{serial}"]
        return cmd + self.qemu_args

    def start(self, log=None, echo=False):
        """Power on; returns the Console."""
        return Console(self.command(), log or os.path.join(BUILD, "serial.log"), echo, self._job_tar)


class Clock:
    """Seconds for a time-out on the emulator: wall time, less what the emulator waited for a host CPU that others had.

    Linux counts that wait for each thread (schedstat, second field, ns). Of several threads the longest counts. So that
    a time-out always ends, at most three quarters of the wall time are forgiven."""

    def __init__(self, pid):
        self.pid = pid
        self.start = time.monotonic()
        self.waited_before = self.waited()

    def waited(self):
        """Seconds that the thread which waited longest stood in a run queue."""
        longest = 0
        try:
            for thread in os.listdir(f"/proc/{self.pid}/task"):
                with open(f"/proc/{self.pid}/task/{thread}/schedstat", encoding="ascii") as stat:
                    longest = max(longest, int(stat.read().split()[1]))
        except (OSError, IndexError, ValueError):
            pass
        return longest / 1e9

    def seconds(self):
        """Since this clock was made."""
        wall = time.monotonic() - self.start
        return max(wall - max(self.waited() - self.waited_before, 0), wall / 4)


class Console:
    """A process on a pseudo-terminal, with everything it printed kept in `text`.

    slow is a factor on every time-out, chunk how many bytes the machine's UART takes at once: bochsmachine.py has others."""
    slow = 1
    chunk = 16

    def __init__(self, command, log, echo=False, scratch=None):
        os.makedirs(os.path.dirname(log), exist_ok=True)
        self.log = open(log, "wb")
        self.log.write(("+ " + shlex.join(command) + "\n").encode())
        self.log.flush()
        self.echo = echo
        self.text = ""                  # without terminal escapes
        self._raw = b""                 # an escape sequence that has only begun
        self.mark = 0                   # expect() looks from here on
        self.scratch = scratch
        self.started = time.monotonic()
        self.ended = False
        self.process = None
        self.fd = self.spawn(command)

    def spawn(self, command):
        """Start the emulator; the file descriptor that is its serial port."""
        master, slave = pty.openpty()
        attributes = termios.tcgetattr(slave)
        attributes[0] &= ~(termios.ICRNL | termios.IXON)
        attributes[1] &= ~termios.OPOST
        attributes[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                        preexec_fn=die_with_parent)
        os.close(slave)
        return master

    def read(self, timeout):
        """Take in what arrives within `timeout` seconds; False when nothing did."""
        if self.ended:
            return False
        ready, _, _ = select.select([self.fd], [], [], max(timeout, 0))
        if not ready:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            data = b""
        if not data:
            self.ended = True
            self.process.wait()
            return False
        self.log.write(data)
        self.log.flush()
        if self.echo:
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
        self._raw += data
        cut = ESCAPE_START.search(self._raw)
        whole, self._raw = (self._raw[:cut.start()], self._raw[cut.start():]) if cut else (self._raw, b"")
        self.text += ESCAPE.sub(b"", whole).decode("utf-8", "replace")
        return True

    def clock(self):
        """A clock for time-outs, that starts now."""
        return Clock(self.process.pid)

    def last_line(self):
        """The last line with anything in it, for error messages."""
        lines = [line.strip() for line in self.text.replace("\r", "\n").split("\n")]
        lines = [line for line in lines if line]
        return lines[-1] if lines else "nothing"

    def expect(self, pattern, timeout, settle=0):
        """Wait for a regular expression; returns the match and moves the mark behind it.

        With settle, the match must also have been quiet for that many seconds (for prompts)."""
        regex = re.compile(pattern, re.MULTILINE if settle == 0 else 0)
        timeout *= slowness() * self.slow
        clock = self.clock()
        while True:
            match = regex.search(self.text, self.mark)
            if match and (settle == 0 or not self.read(settle)):
                self.mark = match.end()
                return match
            if match:
                continue
            left = timeout - clock.seconds()
            if left <= 0:
                raise Timeout(f"no {pattern!r} in {timeout:.0f} s (last line seen: {self.last_line()})")
            if not self.read(min(left, 1)) and self.ended:
                if regex.search(self.text, self.mark):
                    continue
                raise Timeout(f"the machine stopped before {pattern!r} (last line seen: {self.last_line()})")

    def send(self, text):
        """Type this, in pieces a 16-byte UART takes."""
        data = text.encode()
        for at in range(0, len(data), self.chunk):
            os.write(self.fd, data[at:at + self.chunk])
            if at + self.chunk < len(data):
                self.read(0.02)

    def status(self, line, timeout=60):
        """Run a line at the shell at hand (dom0's or a guest's); returns (exit status, output).

        Two markers that the echo of the line does not contain keep the answer apart from the echo,
        from prompts and from a terminal's line wrapping."""
        self.mark = len(self.text)
        self.send(f"echo @\"\"@; {line}; echo \"@$?\"@\r")
        start = self.expect(r"@@(?:\r*\n|(?=\((?:RF|XEN)\) ))", 30).end()  # the hypervisor's log may come between
        match = self.expect(r"@(\d+)@", timeout)
        return int(match.group(1)), self.text[start:match.start()].replace("\r", "").rstrip("\n")

    def command(self, line, timeout=60):
        """Run a line at the shell at hand; returns what it printed."""
        return self.status(line, timeout)[1]

    def attach(self, guest, pattern=None, timeout=240, running=False):
        """From dom0's shell to the guest's console; waits for a pattern there (its shell by default).

        With `running` the shell is known to be there, and is asked at once."""
        # Before the device model has said which terminal is the serial port's, "xl console" ends up on the PV console,
        # with "-t serial" too, and an HVM guest says nothing there. Seen under Debian's Xen just the same.
        tty = f"/local/domain/$(xl domid {guest})/serial/0/tty"
        self.status(f"for i in $(seq 60); do xenstore-exists {tty} 2>/dev/null && break; sleep 1; done", 120)
        self.mark = len(self.text)
        self.send(f"xl console {guest}\r")
        if pattern:
            self.expect(pattern, timeout)
            return
        # A shell that was there before its console was attached says nothing until it is asked.
        clock = self.clock()
        if running:
            self.read(1)
            self.send("\r")
        while True:
            try:
                self.expect(GUEST_PROMPT, 20, settle=0.3)
                return
            except Timeout:
                if self.ended or clock.seconds() > timeout * slowness() * self.slow:
                    raise
                self.send("\r")

    def detach(self):
        """From a guest's console to dom0's shell. xl takes Ctrl-] only when it comes alone."""
        for _ in range(3):
            self.read(0.3)
            self.mark = len(self.text)
            self.send("\x1d")
            time.sleep(0.3)
            self.send("\r")
            try:
                self.expect(DOM0_PROMPT, 15)
                return
            except Timeout:
                if self.ended:
                    raise
        raise Timeout(f"Ctrl-] does not lead back to dom0 (last line seen: {self.last_line()})")

    def elapsed(self):
        """Seconds since power-on."""
        return time.monotonic() - self.started

    def wait_end(self, timeout):
        """Wait for the machine to power itself off; False when it did not."""
        clock = self.clock()
        while not self.ended and clock.seconds() < timeout * slowness() * self.slow:
            self.read(1)
        return self.ended

    def close(self):
        """Power off the hard way."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        try:
            os.close(self.fd)
        except OSError:
            pass
        if self.scratch and os.path.exists(self.scratch):
            os.unlink(self.scratch)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def wait_dom0(console, timeout=150):
    """Wait for dom0's shell; returns seconds from power-on."""
    match = console.expect(r"DOM0-UP|[^\r\n]*(?:Dom0 crashed|Kernel panic|(?i:hypervisor panic|ringfence.*panic))[^\r\n]*\r", timeout)
    if match.group(0) != "DOM0-UP":
        raise Timeout(f"dom0 did not come up (last line seen: {match.group(0).strip()})")
    console.expect(DOM0_PROMPT, 30)
    return console.elapsed()
