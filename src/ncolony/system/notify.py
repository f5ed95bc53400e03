"""Telling the service manager how we are: sd_notify(3), the protocol of systemd that others speak too.

Datagrams to the socket that NOTIFY_SOCKET names. Nothing here waits, and a manager that does not listen is no error.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from ..keeper.kernel import NO_DESCRIPTORS

# What a service manager says to us and to nobody whom we start (launch.Surroundings leaves it out). It stays in our
# own environment, since the version of us that is executed in our place needs it.
OURS_ALONE = frozenset(
    ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")
)
# The status is told at most this often, ...
_STATUS_EVERY_S = 1.0
# ... and until we are ready we look this often, and only when something changed, whether we are.
_LOOK_EVERY_S = 0.05
# While a stop goes on, more time is asked for this often, and this much of it.
_EXTEND_EVERY_S, _EXTEND_BY_S = 10.0, 30.0
# A manager whose queue is full is told again after this.
_AGAIN_S = 0.5
# States of a process that do not last: their end is waited for before we are ready.
_STARTING = "STARTING"


class Notifier:
    """What a supervisor tells its service manager. Without one, every method does nothing.

    `states()` gives the present state of every process, such as "RUNNING".
    """

    def __init__(self, reactor: Any, states: Callable[[], Iterable[str]]) -> None:
        self._reactor, self._states = reactor, states
        self._address = _address(os.environ.get("NOTIFY_SOCKET", ""))
        self._unsent: deque[str] = deque()
        self._applied = self._ready = self._reloading = self._stopping = False
        self._told, self._told_at = "", float("-inf")
        self._look: Any = None
        if self._address and (interval := watchdog_interval(os.environ, os.getpid())):
            self._beat(interval)

    # what happens to the supervisor

    def begun(self) -> None:
        """The config directory was applied to what runs; READY=1 follows when nothing is being started any more."""
        self._applied = True
        self.status()

    def status(self) -> None:
        """A process has another state. Cheap: it is looked at later, once for many."""
        if not self._address or not self._applied or self._look is not None:
            return
        if not self._ready:
            delay = _LOOK_EVERY_S
        else:
            delay = max(0.0, self._told_at + _STATUS_EVERY_S - self._reactor.seconds())
        self._look = self._reactor.callLater(delay, self._tell_status)

    def reloading(self) -> None:
        """We are about to become another version, or to read everything anew; `ready` or `begun` follows."""
        if self._ready and not self._stopping:
            self._reloading = True
            self._say(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def ready(self) -> None:
        """What `reloading` announced is over."""
        if self._reloading and not self._stopping:
            self._reloading = False
            self._say("READY=1")

    def around(self, call: Callable[[], None]) -> None:
        """Call something that is over when it returns, between `reloading` and `ready`."""
        if self._reloading:  # for something longer, which ends later
            call()
            return
        self.reloading()
        try:
            call()
        finally:
            self.ready()

    def stopping(self) -> None:
        """The end begins. From now on nothing but the status is told, and that we need more time."""
        if not self._stopping:
            self._stopping = True
            self._applied = True  # even if it never was: the status is of interest
            self._say("STOPPING=1")
            self._extend()
            self.status()

    # what is told

    def _tell_status(self) -> None:
        self._look = None
        count = Counter(map(str.lower, self._states()))
        if not self._ready and not self._stopping:
            if count[_STARTING.lower()]:
                return  # its next state calls us again
            self._ready = True
            self._told, self._told_at = _summary(count), self._reactor.seconds()
            self._say("\n".join(["READY=1", *_main_pid(), f"STATUS={self._told}"]))
        elif (summary := _summary(count)) != self._told:
            self._told_at = self._reactor.seconds()
            if self._send(f"STATUS={summary}"):
                self._told = summary
            else:
                self.status()

    def _beat(self, interval: float) -> None:
        """A sign of life, from the reactor, so that one that hangs is noticed."""
        self._send("WATCHDOG=1")
        self._reactor.callLater(interval, self._beat, interval)

    def _extend(self) -> None:
        """Ask for more time, as long as we live."""
        if self._address:
            self._send(f"EXTEND_TIMEOUT_USEC={_EXTEND_BY_S * 1e6:.0f}")
            self._reactor.callLater(_EXTEND_EVERY_S, self._extend)

    def _say(self, text: str) -> None:
        """Send what must arrive, and in order: now, or when the manager's queue has room."""
        if not self._address:
            return
        self._unsent.append(text)
        if len(self._unsent) == 1:
            self._say_rest()

    def _say_rest(self) -> None:
        while self._unsent:
            if not self._send(self._unsent[0]):
                self._reactor.callLater(_AGAIN_S, self._say_rest)
                return
            self._unsent.popleft()

    def _send(self, text: str) -> bool:
        """Send a datagram; False when there is no room for it now. One that nobody hears is sent."""
        try:
            # A descriptor for the moment only, and a name that is looked up each time: the manager may be replaced.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as ours:
                ours.sendto(text.encode(), self._address)
        except OSError as error:
            return error.errno not in (errno.EAGAIN, *NO_DESCRIPTORS)
        return True


def watchdog_interval(environment: Any, pid: int) -> float:
    """Seconds between two signs of life, half of what is allowed; 0 where none are asked of the process `pid`."""
    whose, allowed = environment.get("WATCHDOG_PID", ""), environment.get("WATCHDOG_USEC", "")
    if whose not in ("", str(pid)) or not (allowed.isascii() and allowed.isdigit()):
        return 0.0
    return int(allowed) / 2e6


def _address(name: str) -> str:
    """The socket's address for the kernel; "" where there is none, or one of a kind we do not know."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else ""


def _main_pid() -> list[str]:
    """Our pid, if systemd started another program first, and that pid means anything outside.

    In a pid namespace of its own, as its process 1, whoever started the container knows better.
    """
    started = os.environ.get("SYSTEMD_EXEC_PID", "")
    return [f"MAINPID={os.getpid()}"] if started not in ("", str(os.getpid())) and os.getpid() != 1 else []


def _summary(count: Counter[str]) -> str:
    """For people: "12 processes: 10 running, 1 backoff, 1 stopped"; the most frequent first."""
    whole = count.total()
    parts = [f"{number} {state}" for state, number in sorted(count.items(), key=lambda item: (-item[1], item[0]))]
    return f"{whole} process{'' if whole == 1 else 'es'}" + (f": {', '.join(parts)}" if parts else "")
