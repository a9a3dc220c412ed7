"""A machine emulated by Bochs, which has VT-x (and SVM), with the interface of harness.Machine.

A CD with ISOLINUX and mboot.c32 carries the hypervisor and dom0's kernel and initrd; the serial port is a socket.
Bochs runs some 30 million instructions a second, so what dom0 does without is left out: the kernel is unpacked here.
"""
import lzma
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile

import harness
from harness import BUILD

SYSLINUX = "/usr/lib/syslinux/modules/bios"
INTEL, AMD = "corei7_skylake_x", "ryzen"

# Without XSAVEC and XSAVES (features 321 and 323): once in three runs XRSTOR of a compacted area raised #GP in a new
# process of dom0, which then lost its FPU state; XCR0 and the area's owner were right.
QUIRKS = "clearcpuid=321,323"

BOCHSRC = """\
display_library: rfb, options="timeout=0"
config_interface: textconfig
memory: guest={memory}, host={memory}
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model={cpu}, count={smp}, ips={ips}, reset_on_triple_fault=0, ignore_bad_msrs=1
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15
ata0-master: type=cdrom, path={cd}, status=inserted
{disks}boot: cdrom
com1: enabled=1, mode=socket-client, dev=localhost:{port}
sound: driver=dummy
speaker: enabled=0
clock: sync=none
log: {log}
panic: action=fatal
error: action=report
info: action=ignore
debug: action=ignore
"""


def unpack_kernel(path):
    """A bzImage's ELF image when its payload is xz (Linux, Documentation/arch/x86/boot.rst), else the file itself."""
    with open(path, "rb") as kernel:
        image = kernel.read()
    if image[0x202:0x206] != b"HdrS":
        return path
    setup = ((image[0x1f1] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[setup + offset:setup + offset + length - 4]
    if not payload.startswith(b"\xfd7zXZ"):
        return path
    return write_once(f"{BUILD}/bochs/vmlinux", path, lambda out: out.write(lzma.decompress(payload)))


def write_once(path, source, write):
    """path, made by write(file) when it is older than source; another run may be doing the same."""
    if not os.path.exists(path) or os.path.getmtime(path) < os.path.getmtime(source):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=os.path.dirname(path), delete=False) as out:
            write(out)
        os.rename(out.name, path)
    return path


def whole_cylinders(path):
    """The image itself, or a copy grown to whole cylinders, which Bochs wants; and their number."""
    cylinder = 16 * 63 * 512
    cylinders = -(-os.path.getsize(path) // cylinder)
    if os.path.getsize(path) != cylinders * cylinder:
        name = os.path.abspath(path).replace("/", "_")

        def grow(out):
            with open(path, "rb") as image:
                shutil.copyfileobj(image, out, 1 << 20)
            out.truncate(cylinders * cylinder)
        path = write_once(f"{BUILD}/bochs/{name}", path, grow)
    return path, cylinders


class BochsMachine(harness.Machine):
    """What to boot on Bochs. Every attribute may be changed before start()."""

    def __init__(self, smp=1, cpu=INTEL):
        super().__init__(harness.RINGFENCE, smp, "2048M")
        self.accel = "bochs-svm" if cpu == AMD else "bochs"  # as tests/micro/run calls it
        self.cpu = cpu
        self.dom0_memory = "1200M"
        self.dom0_args = QUIRKS
        self.ips = 50000000
        self.debugger = ["c"]  # commands for Bochs' debugger

    def make_cd(self, out):
        """A CD that loads the hypervisor, dom0's kernel and its initrd by Multiboot 1."""
        modules = self.modules
        if modules is None:
            modules = [(unpack_kernel(f"{BUILD}/dom0/vmlinuz"), self.dom0_cmdline()), (f"{BUILD}/dom0/initrd", "")]
        with tempfile.TemporaryDirectory() as tmp:
            for path in ("/usr/lib/ISOLINUX/isolinux.bin", *(f"{SYSLINUX}/{n}" for n in
                         ("ldlinux.c32", "libcom32.c32", "mboot.c32"))):
                shutil.copy(path, tmp)
            shutil.copy(self.hypervisor_image(), f"{tmp}/ringfence")
            line = f" append /ringfence {self.hypervisor_args()}"
            for number, (path, arguments) in enumerate(modules):
                os.symlink(os.path.abspath(path), f"{tmp}/module{number}")
                line += f" --- /module{number} {arguments}".rstrip()
            with open(f"{tmp}/isolinux.cfg", "w", encoding="ascii") as config:
                config.write(f"default ringfence\nprompt 0\nlabel ringfence\n kernel mboot.c32\n{line}\n")
            subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-f", "-R", "-J", "-b", "isolinux.bin", "-c", "boot.cat",
                            "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "-o", out, tmp], check=True,
                           stderr=subprocess.DEVNULL)

    def disk_lines(self, out):
        """bochsrc's lines for dom0's root and the drives; what is written to them is forgotten."""
        drives = [("root", f"{BUILD}/dom0/root.sqfs")] + self.drives
        if self.job:
            subprocess.run(["tar", "-chf", f"{out}/job.tar", "-C", self.job, "."], check=True)
            drives.append(("job", f"{out}/job.tar"))
        if len(drives) > 3:
            raise ValueError("Bochs has room for the CD and three disks")
        lines = ""
        for number, (name, path) in enumerate(drives):
            if harness.image_format(path) != "raw":
                raise ValueError(f"{path}: Bochs takes raw images only")
            path, cylinders = whole_cylinders(path)
            lines += (f"ata{(number + 1) // 2}-{('slave', 'master')[number % 2]}: type=disk, mode=volatile, path={path}, "
                      f"journal={out}/{name}.redolog, cylinders={cylinders}, heads=16, spt=63, model=\"RF-{name.upper()}\"\n")
        return lines

    def start(self, log=None, echo=False):
        """Power on; returns the Console."""
        log = log or os.path.join(BUILD, "serial.log")
        out = f"{BUILD}/bochs/{os.path.basename(log)}.d"
        os.makedirs(out, exist_ok=True)
        if not self.cdrom:
            self.make_cd(f"{out}/boot.iso")
        server = socket.create_server(("127.0.0.1", 0))
        with open(f"{out}/bochsrc", "w", encoding="ascii") as config:
            config.write(BOCHSRC.format(
                memory=self.memory.rstrip("M"), cpu=self.cpu, smp=self.smp, ips=self.ips, disks=self.disk_lines(out),
                cd=self.cdrom or f"{out}/boot.iso", port=server.getsockname()[1], log=f"{out}/bochs.log"))
        with open(f"{out}/rc", "w", encoding="ascii") as commands:
            commands.write("\n".join(self.debugger) + "\n")
        return BochsConsole(out, server, log, echo)


class BochsConsole(harness.Console):
    """Bochs' serial port. Its UART has no room for more than is being read, and everything takes longer."""
    slow = 6
    chunk = 1

    def __init__(self, out, server, log, echo):
        self.out, self.server = out, server
        super().__init__(["bochs", "-q", "-f", f"{out}/bochsrc", "-rc", f"{out}/rc"], log, echo)

    def spawn(self, command):
        with open(f"{self.out}/bochs.out", "wb") as text:
            # pylint: disable=consider-using-with
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=text, stderr=subprocess.STDOUT,
                                            start_new_session=True, preexec_fn=harness.die_with_parent)
        self.server.settimeout(60)
        port = self.server.accept()[0]
        self.server.close()
        return port.detach()

    def close(self):
        """Power off. Bochs does not end by SIGTERM."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        super().close()
