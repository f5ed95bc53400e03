"""What scenarios let a colony run: `payload.py NOTES MODE [ARGUMENT...]`.

NOTES is a file to which every mode appends whole lines, beginning with "up PID". It is the witness independent of the
supervisor: what is noted there has happened. Standard library only, started with -I -S, so that it starts fast.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

NOTES, MODE, *ARGUMENTS = sys.argv[1:]
TELLING = ("HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM", "CONT")


def note(text: str) -> None:
    descriptor = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def print_now(text: str) -> None:
    data = f"{text}\n".encode("utf-8", "surrogateescape")
    while data:
        data = data[os.write(1, data) :]


def wait_for_ever() -> NoReturn:
    while True:
        signal.pause()


def exit_at_term(who: str) -> None:
    """Note the TERM, then end."""

    def handle(number: int, frame: FrameType | None) -> None:
        note(f"term {who} {os.getpid()}")
        os._exit(0)

    signal.signal(signal.SIGTERM, handle)


def serve() -> None:
    """Just be there."""
    note(f"up {os.getpid()}")
    wait_for_ever()


def say() -> None:
    """Print each argument as a line, then be there."""
    for text in ARGUMENTS:
        print_now(text)
    serve()


def leave() -> None:
    """Exit with code ARGUMENT 1, after ARGUMENT 2 seconds (0), having noted when it started."""
    note(f"up {os.getpid()} {time.monotonic()}")
    if len(ARGUMENTS) > 1:
        time.sleep(float(ARGUMENTS[1]))
    os._exit(int(ARGUMENTS[0]))


def leave_when() -> None:
    """Exit with code ARGUMENT 1 when the file ARGUMENT 2 appears."""
    note(f"up {os.getpid()}")
    while not os.path.exists(ARGUMENTS[1]):
        time.sleep(0.01)
    os._exit(int(ARGUMENTS[0]))


def signals() -> None:
    """Note each signal and when it came, and outlive all but ARGUMENT 1 (none by default)."""

    def handle(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name.removeprefix("SIG")
        note(f"got {name} {time.monotonic()}")
        if name in ARGUMENTS:
            os._exit(0)

    for name in TELLING:
        signal.signal(getattr(signal, f"SIG{name}"), handle)
    serve()


def tick() -> None:
    """Print "tick 1", "tick 2", … every ARGUMENT 1 seconds until TERM; then note "last N"."""
    over: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: over.append(number))
    note(f"up {os.getpid()}")
    count = 0
    while not over:
        count += 1
        print_now(f"tick {count}")
        note(f"tick {count}")
        time.sleep(float(ARGUMENTS[0]))
    note(f"last {count}")


def lines() -> None:
    """Print "line 1" to "line ARGUMENT 1" as fast as possible, then be there."""
    note(f"up {os.getpid()}")
    data = b"".join(b"line %d\n" % number for number in range(1, int(ARGUMENTS[0]) + 1))
    while data:
        data = data[os.write(1, data) :]
    note("printed")
    wait_for_ever()


def raw() -> None:
    """Write the bytes of the file ARGUMENT 1 to stdout, then exit with 0."""
    note(f"up {os.getpid()}")
    with open(ARGUMENTS[0], "rb") as source:
        data = source.read()
    while data:
        data = data[os.write(1, data) :]
    note("printed")


def family(leader_goes: bool, session: bool) -> None:
    """A child that holds stdout and notes its TERM, perhaps in a session of its own, double-forked."""
    ready, tell = os.pipe()
    if os.fork() == 0:
        if session:
            os.setsid()
            if os.fork():
                os._exit(0)
        exit_at_term("child")
        note(f"child {os.getpid()}")
        os.write(tell, b"1")
        os.close(tell)
        wait_for_ever()
    os.read(ready, 1)
    note(f"up {os.getpid()}")
    if leader_goes:
        os._exit(0)
    wait_for_ever()


def parent() -> None:
    family(leader_goes=False, session=False)


def deserter() -> None:
    family(leader_goes=True, session=False)


def daemon() -> None:
    family(leader_goes=False, session=True)


def began() -> float:
    """When this very process was forked: seconds since boot, to 10 ms."""
    with open("/proc/self/stat", "rb") as stat:
        return int(stat.read().rpartition(b")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def service() -> None:
    """Note "up PID NAME BEGAN" and, at TERM, "down PID NAME NOW", in seconds since boot; then end with 0.

    From its ARGUMENT 1st start on (never) it exits at once with code ARGUMENT 2.
    """
    name = os.environ.get("NCOLONY_NAME", "")

    def handle(number: int, frame: FrameType | None) -> None:
        note(f"down {os.getpid()} {name} {time.clock_gettime(time.CLOCK_BOOTTIME)}")
        os._exit(0)

    signal.signal(signal.SIGTERM, handle)
    note(f"up {os.getpid()} {name} {began()}")
    if ARGUMENTS:
        with open(NOTES) as notes:
            starts = sum(line.startswith("up ") and line.split()[2] == name for line in notes)
        if starts >= int(ARGUMENTS[0]):
            os._exit(int(ARGUMENTS[1]))
    wait_for_ever()


def eat() -> None:
    """Take ARGUMENT 1 MiB of memory, then fork ARGUMENT 2 children (0) that take ARGUMENT 3 MiB (0) each."""
    mine, children, theirs = (*map(int, ARGUMENTS), 0, 0)[:3]
    held = [bytearray(b"x" * (mine << 20))]
    for _ in range(children):
        if os.fork() == 0:
            held.append(bytearray(b"y" * (theirs << 20)))
            note(f"child {os.getpid()}")
            wait_for_ever()
    serve()


def orphans() -> None:
    """Leave ARGUMENT 1 orphans behind that exit at once, then be there."""
    for _ in range(int(ARGUMENTS[0])):
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                time.sleep(0.05)
            os._exit(0)
        os.waitpid(child, 0)
    serve()


def serve_callers() -> None:
    """Tell each caller at socket 3 who answers; at TERM end, once the present caller has his answer."""
    over: list[int] = []
    heard, hear = os.pipe2(os.O_NONBLOCK)
    signal.signal(signal.SIGTERM, lambda number, frame: over.append(number))
    signal.set_wakeup_fd(hear)
    door = socket.socket(fileno=3)
    door.setblocking(False)
    note(f"up {os.getpid()} {os.environ['LISTEN_PID']} {os.environ['LISTEN_FDS']} {os.environ['LISTEN_FDNAMES']}")
    while not over:
        select.select([door, heard], [], [])
        if over:
            break
        try:
            caller, _ = door.accept()
        except BlockingIOError:
            continue  # another copy was faster
        with caller:
            caller.sendall(b"%d" % os.getpid())


globals()[MODE]()
