"""What the kill matrix runs: it knows for itself whether it is alone, what it printed and how it ended.

    python -I -S witness.py FOLDER NAME COUNT PERIOD

FOLDER/NAME is what it notes, whole lines, each when it has happened; FOLDER/NAME.lock is held for life.

    up PID IDENTITY      alive, and alone
    fault TEXT           something that must never be
    said NUMBER          that line was printed, as `line` makes it
    asked                a USR2 came
    exit CODE TIME       about to exit, at this wall-clock time

With NOTIFY_SOCKET it says READY=1 there, and with SAY_IT_AGAIN again and again. With LISTEN_FDS it must have a socket.

It prints COUNT lines at its start, for a USR2, and before it exits: for a USR1 with 10 to 49, for a TERM with 60 to 99,
by the number of lines so far. With a PERIOD other than 0 it prints one line in each such number of seconds.
Signals wait until it is ready for them, except in the first milliseconds.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import sys
import time

AGAIN = "SAY_IT_AGAIN" in os.environ
HEARD = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def say_ready() -> None:
    """Tell whoever wants to know, if anybody is there."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            try:
                out.connect("\0" + address[1:] if address.startswith("@") else address)
                out.send(b"READY=1")
            except OSError:
                if not AGAIN:
                    raise


def line(name: str, number: int) -> bytes:
    """The line with this number: of different lengths, and in the own words of each."""
    return f"{name} {number} {'abcdefghijklmnopqrstuvwxyz'[number % 26] * (number * 37 % 150)}\n".encode()


def main(folder: str, name: str, count: int, period: float) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    notes = os.open(f"{folder}/{name}", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)

    def note(text: str) -> None:
        os.write(notes, f"{text}\n".encode())

    lock = os.open(f"{folder}/{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note(f"fault duplicate {os.getpid()}")
        os._exit(3)
    config = os.environ.get("NCOLONY_CONFIG_FILE")
    if config is not None and not os.path.exists(config):
        note(f"fault no config file {config}")
    with open(f"{folder}/{name}", "rb") as file:
        said = file.read().count(b"said ")
    note(f"up {os.getpid()} {os.environ['NCOLONY_INSTANCE']}")
    if "LISTEN_FDS" in os.environ and not stat.S_ISSOCK(os.fstat(3).st_mode):
        note("fault no socket")
    say_ready()

    def say(lines: int) -> None:
        nonlocal said
        for _ in range(lines):
            said += 1
            data = line(name, said)
            while data:
                data = data[os.write(1, data) :]
            note(f"said {said}")

    say(count)
    while True:
        heard = signal.sigtimedwait(HEARD, 0.05 if AGAIN else period or 3600)
        if AGAIN:
            say_ready()
        if heard is None and not period:
            continue
        if heard is None:
            say(1)
        elif heard.si_signo == signal.SIGUSR2:
            note("asked")
            say(count)
        else:
            say(count)
            code = said % 40 + (60 if heard.si_signo == signal.SIGTERM else 10)
            note(f"exit {code} {time.time()}")
            os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
