#!/usr/bin/env python3
"""A VNC client for tests (RFC 6143): keys, a pointer, and the screen as a PNG. Python 3 standard library only.

Screen connects without a password, asks for raw pixels and keeps the whole picture; refresh() takes in what changed
since, so a device model that forgets to look for changed pages shows as a picture that stands still.
"""
import os
import socket
import struct
import sys
import time
import zlib

# Keysyms of the keys that are no characters.
KEYS = {"enter": 0xff0d, "esc": 0xff1b, "tab": 0xff09, "backspace": 0xff08, "up": 0xff52, "down": 0xff54, "left": 0xff51,
        "right": 0xff53, "f1": 0xffbe, "f2": 0xffbf, "f10": 0xffc7, "f12": 0xffc9, "shift": 0xffe1, "ctrl": 0xffe3}


def write_png(path, width, height, pixels):
    """A picture (RGB, three bytes a pixel) as a PNG file."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + pixels[at:at + width * 3] for at in range(0, len(pixels), width * 3))
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "wb") as out:
        out.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
                  + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


class Screen:
    """A connection to a VNC server; width, height and pixels (RGB, three bytes each) are the picture so far."""

    def __init__(self, port, host="127.0.0.1", timeout=60):
        self.socket = socket.create_connection((host, port), timeout)
        self.width = self.height = 0
        self.pixels = bytearray()
        version = self._take(12)
        if not version.startswith(b"RFB 003."):
            raise OSError(f"no VNC server: {version!r}")
        self.socket.sendall(b"RFB 003.008\n")
        kinds = self._take(self._take(1)[0])
        if 1 not in kinds:
            raise OSError(f"the VNC server wants a password: {list(kinds)}")
        self.socket.sendall(b"\x01")
        if self._take(4) != bytes(4):
            raise OSError("the VNC server refused")
        self.socket.sendall(b"\x01")
        width, height, _, name = struct.unpack(">HH16sI", self._take(24))
        self.name = self._take(name).decode(errors="replace")
        # 32 bits a pixel, red in the lowest byte; raw and a screen that changes its size (-223).
        self.socket.sendall(struct.pack(">B3xBBBBHHHBBB3x", 0, 32, 24, 0, 1, 255, 255, 255, 0, 8, 16))
        self.socket.sendall(struct.pack(">BxHii", 2, 2, 0, -223))
        self._resize(width, height)
        self.refresh(whole=True)

    def _take(self, count):
        data = bytearray()
        while len(data) < count:
            more = self.socket.recv(min(count - len(data), 1 << 20))
            if not more:
                raise OSError("the VNC server closed the connection")
            data += more
        return bytes(data)

    def _resize(self, width, height):
        self.width, self.height = width, height
        self.pixels = bytearray(width * height * 3)

    def _update(self):
        """A FramebufferUpdate; the number of pixels that came."""
        count = struct.unpack(">xH", self._take(3))[0]
        came = 0
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">HHHHi", self._take(12))
            if encoding == -223:
                self._resize(width, height)
                continue
            if encoding != 0:
                raise OSError(f"encoding {encoding} was not asked for")
            data = self._take(width * height * 4)
            came += width * height
            rgb = bytearray(width * height * 3)
            for part in range(3):
                rgb[part::3] = data[part::4]
            for row in range(height):
                at = ((y + row) * self.width + x) * 3
                self.pixels[at:at + width * 3] = rgb[row * width * 3:(row + 1) * width * 3]
        return came

    def refresh(self, whole=False, timeout=10):
        """Take in what changed since the last time (whole: everything); the number of pixels that came."""
        self.socket.settimeout(timeout)
        came = 0
        for _ in range(10):  # a screen that changed its size may say so first, and nothing else
            size = self.width, self.height
            self.socket.sendall(struct.pack(">BBHHHH", 3, 0 if whole else 1, 0, 0, *size))
            try:
                came += self._message()
            except socket.timeout:
                break
            if size != (self.width, self.height):
                whole, came = True, 0
            elif not whole or came >= self.width * self.height:
                break
        return came

    def _message(self):
        """What the server says, up to a FramebufferUpdate; the number of pixels that came."""
        while True:
            kind = self._take(1)[0]
            if kind == 0:
                return self._update()
            if kind == 1:  # colours of a palette: none in true colour
                self._take(struct.unpack(">3xH", self._take(5))[0] * 6)
            elif kind == 3:
                self._take(struct.unpack(">3xI", self._take(7))[0])
            elif kind != 2:
                raise OSError(f"message {kind} from the VNC server")

    def key(self, name, seconds=0.1):
        """Press and let go: a character, or one of KEYS; ctrl-x and shift-x hold the first."""
        parts = name.split("-") if len(name) > 1 else [name]
        codes = [KEYS.get(part) or ord(part) for part in parts]
        for code in codes:
            self.socket.sendall(struct.pack(">BBxxI", 4, 1, code))
            time.sleep(seconds)
        for code in reversed(codes):
            self.socket.sendall(struct.pack(">BBxxI", 4, 0, code))
            time.sleep(seconds)

    def type(self, text, seconds=0.1):
        """Characters, one key after another; a newline is Enter."""
        for char in text:
            if char.isupper() or char in '~!@#$%^&*()_+{}|:"<>?':
                self.key(f"shift-{char}", seconds)
            else:
                self.key("enter" if char == "\n" else char, seconds)

    def pointer(self, x, y, buttons=0):
        """Move the pointer; buttons is a mask (1 left, 4 right)."""
        self.socket.sendall(struct.pack(">BBHH", 5, buttons, x, y))

    def click(self, x, y, seconds=0.3):
        """Left button at (x, y)."""
        for buttons in (0, 1, 0):
            self.pointer(x, y, buttons)
            time.sleep(seconds)

    def colours(self):
        """How often each colour stands on a sample of the picture."""
        count = {}
        for at in range(0, len(self.pixels) - 2, 3 * 7):
            colour = bytes(self.pixels[at:at + 3])
            count[colour] = count.get(colour, 0) + 1
        return count

    def save(self, path):
        """The picture as a PNG file."""
        write_png(path, self.width, self.height, self.pixels)

    def close(self):
        """Hang up."""
        self.socket.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: vnc.py PORT FILE.png: a screenshot of the VNC server on this host's PORT")
    SCREEN = Screen(int(sys.argv[1]))
    SCREEN.save(sys.argv[2])
