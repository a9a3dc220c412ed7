"""Bad input at boot: each yields one clear line on the console, and a halt."""
import os
import re
import tempfile

import harness
from boottest import BUILD, check, hypervisor


def refuses(pattern, name, timeout=40, **settings):
    """Boot with these settings of Machine; a line must match, and nothing but a halt may follow."""
    machine = harness.Machine(hypervisor())
    for key, value in settings.items():
        setattr(machine, key, value)
    with machine.start(f"{BUILD}/tests/badinput.{name}.log") as console:
        match = console.expect(r"[^\r\n]*(?i:" + pattern + r")[^\r\n]*\r*\n", timeout)
        while console.read(2):
            pass
        after = [line for line in console.text[match.end():].replace("\r", "").split("\n") if line.strip()]
        after = [line for line in after if not re.search(r"(?i)halt", line)]
        check(len(after) <= 1, f"{len(after)} more lines after {match.group(0).strip()!r}, the last {after[-1:]}")
        check(not console.ended, "the machine reset itself instead of halting")


def dom0_modules(kernel):
    """Modules with this file in the kernel's place."""
    return [(kernel, "console=hvc0"), (f"{BUILD}/dom0/initrd", "")]


def no_svm():
    """A CPU without SVM."""
    refuses("svm", "no-svm", cpu="EPYC,-svm,-monitor")


def no_nested_paging():
    """SVM without nested paging."""
    refuses("nested paging|npt", "no-npt", cpu="EPYC,+svm,-npt,-monitor")


def too_little_memory():
    """A machine of 128 MiB cannot hold dom0."""
    refuses("memory", "memory", memory="128M", dom0_memory="64M")


def dom0_mem_too_big():
    """dom0_mem= beyond what the machine has."""
    refuses("memory", "dom0-mem", memory="1G", dom0_memory="8G")


def no_module():
    """No kernel given."""
    refuses("module|dom0 kernel|no kernel", "no-module", modules=[])


def module_not_a_kernel():
    """The kernel module is some other file."""
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(os.urandom(1 << 20))
        file.flush()
        refuses("kernel|module", "not-a-kernel", modules=dom0_modules(file.name))


def empty_module():
    """The kernel module holds a single byte."""
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(b"x")
        file.flush()
        refuses("kernel|module", "empty-module", modules=dom0_modules(file.name))


def truncated_kernel():
    """The kernel is cut in the middle of its payload."""
    with open(f"{BUILD}/dom0/vmlinuz", "rb") as kernel, tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(kernel.read(4 << 20))
        file.flush()
        refuses("kernel|module|trunc|cut", "truncated", modules=dom0_modules(file.name))


TESTS = [no_svm, no_nested_paging, too_little_memory, dom0_mem_too_big, no_module, module_not_a_kernel, empty_module,
         truncated_kernel]
