"""sd_notify(3) for programs: tell the socket in NOTIFY_SOCKET how this one is.

Each function returns whether anybody was told, and raises nothing: without a socket it does nothing. Where the other
side does not read, what must arrive is waited for a second; a sign of life and a status are not.
"""

from __future__ import annotations

import errno
import os
import time

PATIENCE_S = 1.0
"""Seconds that a full queue of the other side is waited for."""

# sizeof(sun_path) less its final NUL; a longer path is reached through its directory.
_LONGEST_PATH = 107


def ready(text: str = "") -> bool:
    """It is ready for work, or works again after `reloading`; `text`, if any, is its status."""
    return _tell(f"READY=1\nSTATUS={_line(text)}" if text else "READY=1", PATIENCE_S)


def status(text: str) -> bool:
    """What it does at present, for people, in one line."""
    return _tell(f"STATUS={_line(text)}")


def reloading() -> bool:
    """It begins to read its configuration anew. `ready` is to follow."""
    return _tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}", PATIENCE_S)


def stopping() -> bool:
    """It begins to end."""
    return _tell("STOPPING=1", PATIENCE_S)


def watchdog() -> bool:
    """It still works: to be said more often than `watchdog` in its config file asks for."""
    return _tell("WATCHDOG=1")


def extend(seconds: float) -> bool:
    """Its start or its end, whichever is going on, takes so many seconds more."""
    return _tell(f"EXTEND_TIMEOUT_USEC={max(0, round(seconds * 1e6))}", PATIENCE_S)


def watchdog_period() -> float | None:
    """Seconds within which `watchdog` must be said once; None where nobody asks this process for it."""
    asked, whose = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    # The variables are inherited by children, of whom nothing was asked.
    if whose not in ("", str(os.getpid())) or not (asked.isascii() and asked.isdigit() and int(asked)):
        return None
    return int(asked) / 1e6


def _line(text: str) -> str:
    """The text without what would begin another line."""
    return " ".join(text.split("\n"))


def _tell(text: str, patience_s: float = 0.0) -> bool:
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return False
    import socket  # 3 ms, which those whom nobody asks need not spend

    deadline = time.monotonic() + patience_s
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours, _Reachable(name) as address:
            ours.setblocking(False)
            while True:
                try:
                    ours.sendto(text.encode("utf-8", "backslashreplace"), address)
                    return True
                except OSError as error:
                    if error.errno not in (errno.EAGAIN, errno.ENOBUFS) or time.monotonic() >= deadline:
                        return False
                time.sleep(0.01)
    except OSError:
        return False


class _Reachable:
    """The address of a socket as the kernel takes it."""

    def __init__(self, name: str) -> None:
        self._name, self._directory = name, -1

    def __enter__(self) -> bytes:
        if self._name.startswith("@"):
            return b"\0" + os.fsencode(self._name[1:])
        path = os.fsencode(self._name)
        if len(path) <= _LONGEST_PATH:
            return path
        self._directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return b"/proc/self/fd/%d/%b" % (self._directory, os.path.basename(path))

    def __exit__(self, *_: object) -> None:
        if self._directory >= 0:
            os.close(self._directory)
