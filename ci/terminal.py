"""Join the user's terminal and the machine's serial port."""
import os
import select
import sys
import termios
import tty


def interact(console):
    """Until the machine stops or Ctrl-\\ is typed, what is typed goes there and what it prints comes here."""
    stdin = sys.stdin.fileno()
    saved = termios.tcgetattr(stdin)
    console.echo = True
    try:
        tty.setraw(stdin)
        while not console.ended:
            ready, _, _ = select.select([stdin, console.fd], [], [])
            if console.fd in ready:
                console.read(0)
            if stdin in ready:
                keys = os.read(stdin, 64)
                if not keys or b"\x1c" in keys:
                    return
                os.write(console.fd, keys)
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, saved)
