"""One measured run: a supervisor in a fresh directory, its processes in a group of their own, and what they report."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from .group import new_group
from .places import LOCK, PAYLOAD

if TYPE_CHECKING:
    from .peers.base import Peer

now = time.monotonic
Argv = list[str]
# A client command that takes longer hangs.
LONGEST_CALL_S = 300.0
# No rival holds more descriptors for 10,000 processes.
ENOUGH_DESCRIPTORS = 262144
_serial = itertools.count(1)


class DNF(Exception):
    """The supervisor did not do the work. The reason is its result."""


class Event(NamedTuple):
    """What a payload wrote down: S started, T told to stop, P SIGPIPE, E EPIPE, D done; `at` is CLOCK_MONOTONIC."""

    kind: str
    name: str
    pid: int
    at: float
    lines: int
    cpu_us: int


class Memory(NamedTuple):
    """Of the supervisor's own processes: MB and how many they are."""

    pss_mb: float
    rss_mb: float
    processes: int


def raise_descriptor_limit() -> int:
    """Let supervisors hold as many descriptors as this machine allows; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def _open_lock() -> int:
    """A descriptor of the lock, which may be another user's file: reading is enough for flock()."""
    with contextlib.suppress(FileNotFoundError):
        return os.open(LOCK, os.O_RDONLY | os.O_CLOEXEC)
    return os.open(LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)


class Run:
    """A context in which one supervisor runs, one at a time on a machine. At its end all its processes are gone."""

    def __init__(self, peer: type[Peer], *, fast: bool = False, capture: str = "") -> None:
        """`capture`: see :class:`bench.peers.base.Peer`."""
        self._lock = _open_lock()
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        tag = f"{os.getpid()}-{next(_serial)}"
        shared, disk = Path("/dev/shm"), Path(tempfile.gettempdir())
        memory = shared if os.access(shared, os.W_OK) else disk
        # In memory, where service directories and sockets are on most machines (/run), for all alike: what making and
        # removing small files costs on a disk is that file system's, and what another run left to it. What is captured
        # goes to the disk.
        self.directory = (disk if capture else memory) / f"bench-{tag}"
        self.directory.mkdir(parents=True)
        # For small files that are no part of the work.
        self.memory_directory = memory / f"bench-{tag}"
        self.memory_directory.mkdir(exist_ok=True)
        self._path = self.memory_directory / "events"
        self.group = new_group(tag)
        self.events: list[Event] = []
        self._offset, self._torn = 0, b""
        self._children: list[subprocess.Popen[bytes]] = []
        self.peer = peer(self, fast=fast, capture=capture)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        end = now() + 60
        # Only what this run started: who is in its own group.
        while (pids := self.group.pids()) and now() < end:
            for pid in pids:
                self.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        for child in self._children:
            child.wait()
        self.group.close()
        if kind and os.environ.get("KEEP"):
            print("kept", self.directory, self.memory_directory, file=sys.stderr)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)
            shutil.rmtree(self.memory_directory, ignore_errors=True)
        os.close(self._lock)

    # --- what adapters use

    def _popen(self, argv: Argv, env: Mapping[str, str] | None, output: str) -> subprocess.Popen[bytes]:
        with open(self.directory / output, "ab") as out:
            return subprocess.Popen(
                self.group.wrap(argv),
                cwd=self.directory,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def daemon(self, argv: Argv, env: Mapping[str, str] | None = None) -> int:
        """Start a program that goes on; its pid."""
        child = self._popen(argv, env, "supervisor.out")
        self._children.append(child)
        return child.pid

    def call(self, argv: Argv, env: Mapping[str, str] | None = None) -> int:
        """Run a client command to its end; its exit status."""
        try:
            return self._popen(argv, env, "client.out").wait(LONGEST_CALL_S)
        except subprocess.TimeoutExpired:
            raise DNF(f"client command took > {LONGEST_CALL_S:.0f} s") from None

    # --- what is seen of it

    @staticmethod
    def kill(pid: int, number: int) -> None:
        """Send a signal to one of the run's processes, which may be gone by now."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def split(self) -> tuple[list[int], dict[int, str]]:
        """The supervisor's own processes, and {pid: name} of the payloads, alive now."""
        own, payloads = [], {}
        for pid in self.group.pids():
            with contextlib.suppress(OSError, IndexError):
                if os.readlink(f"/proc/{pid}/exe") == PAYLOAD:
                    payloads[pid] = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[2]
                else:
                    own.append(pid)
        return own, payloads

    def cpu(self) -> float:
        """Seconds of CPU so far; NaN where they cannot be measured."""
        return self.group.cpu()

    def memory(self) -> Memory:
        """The memory of the supervisor's own processes; pages that several share count once in PSS."""
        pss = rss = count = 0
        for pid in self.split()[0]:
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                kb = {key: int(size) for key, size in re.findall(r"\n(Rss|Pss): +(\d+)", text)}
                rss += kb.get("Rss", 0)
                pss += kb.get("Pss", 0)
                count += 1
        return Memory(pss / 1024, rss / 1024, count)

    def poll(self) -> None:
        """Read what the payloads wrote since."""
        with contextlib.suppress(FileNotFoundError), open(self._path, "rb") as file:
            file.seek(self._offset)
            data = file.read()
            self._offset += len(data)
            *lines, self._torn = (self._torn + data).split(b"\n")
            for line in lines:
                kind, name, pid, at, count, cpu = line.decode().split()
                self.events.append(Event(kind, name, int(pid), int(at) / 1e9, int(count), int(cpu)))

    def started(self, since: int = 0) -> list[Event]:
        """The starts among the events from number `since` on."""
        return [event for event in self.events[since:] if event.kind == "S"]

    def have_started(self, count: int, since: int = 0) -> bool:
        """Whether `count` different processes started from event number `since` on."""
        return len(self.events) - since >= count and len({event.name for event in self.started(since)}) >= count

    def wait(self, what: str, condition: Callable[[], bool], timeout: float, step: float = 0.02) -> None:
        """Wait until `condition()`, looking every `step` seconds.

        :raises DNF: when it has not come true within `timeout` seconds.
        """
        end = now() + timeout
        while True:
            self.poll()
            if condition():
                return
            if now() > end:
                count = len({event.name for event in self.started()})
                raise DNF(f"{what}: not within {timeout:.0f} s ({count} names started)")
            time.sleep(step)

    # --- the work

    def payload(self, name: str, *mode: object) -> Argv:
        """The command of the process `name`; see payload.c for the modes."""
        return [PAYLOAD, str(self._path), name, *map(str, mode)]

    def up(
        self,
        n: int,
        *mode: object,
        others: Mapping[str, Argv] | None = None,
        settle: float = 0,
        timeout: float = 400,
    ) -> Start:
        """Configure `p0` to `p(n-1)` and the `others`, launch the supervisor, wait until all run and `settle` s more.

        Some supervisors hold fewer than `n`: see :attr:`Start.n`.
        """
        n = min(n, self.peer.max_n)
        processes = {f"p{i}": self.payload(f"p{i}", *mode) for i in range(n)} | dict(others or {})
        self.peer.prepare(processes)
        before = now()
        self.peer.launch()
        self.wait(f"start of {n}", lambda: self.have_started(len(processes)), timeout)
        last = max((event.at for event in self.events), default=now())
        cpu = self.cpu()
        time.sleep(settle)
        self.poll()
        return Start(n, last - before, cpu)


class Start(NamedTuple):
    """How many processes run; seconds from the launch until the last one ran; seconds of CPU by then."""

    n: int
    wall_s: float
    cpu_s: float


def load() -> float:
    """How many processes wanted to run here during the last minute."""
    return os.getloadavg()[0]


def as_json(value: object) -> str:
    """One line."""
    return json.dumps(value, separators=(", ", ": "))
