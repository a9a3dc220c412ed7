"""What tests share that look at a guest's screen by VNC: a machine whose dom0 can be reached, pictures and their comparison.

Pictures are kept in build/tests/screens as PNG files.
"""
import time

import harness
from boottest import BUILD, Session, check
from vnc import Screen

SCREENS = f"{BUILD}/tests/screens"


class ScreenSession(Session):
    """A machine whose dom0's port 5900 is a port of this host, and whose log has what firmware says."""
    port = None

    def machine(self):
        machine = super().machine()
        machine.vnc_port = self.port = harness.free_port()
        machine.hv_args = "guest_loglvl=all"  # what the firmware says
        return machine

    def screen(self):
        """A new connection to the guest's screen."""
        clock = self.dom0().clock()
        while True:
            try:
                return Screen(self.port)
            except OSError:
                check(clock.seconds() < 60 * harness.slowness(), f"nothing answers on port {self.port}")
                time.sleep(1)


def shot(screen, name):
    """The whole picture, kept as a PNG; its pixels."""
    screen.refresh(whole=True, timeout=30)
    screen.save(f"{SCREENS}/{name}.png")
    return bytes(screen.pixels)


def differs(one, other):
    """The part of the pixels that differ, 0 to 1."""
    if len(one) != len(other):
        return 1.0
    step = 3 * 5
    pairs = range(0, len(one), step)
    return sum(one[at:at + 3] != other[at:at + 3] for at in pairs) / max(len(pairs), 1)


def settled(screen, name, timeout=300, unlike=None, ready=None):
    """Wait until the picture stands still (and is unlike another one, and ready(screen) is true); keep it."""
    began = time.monotonic()
    last = None
    while True:
        time.sleep(4)
        now = shot(screen, name)
        if last is not None and differs(now, last) < 0.001 and (unlike is None or differs(now, unlike) > 0.02) and \
                (ready is None or ready(screen)):
            return now
        check(time.monotonic() - began < timeout * harness.slowness() * 3, f"the screen did not come to rest: {name}")
        last = now
