"""The processes of one run: which they are, and what CPU time they took together."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import re
from pathlib import Path
from typing import Protocol

ENTER = 'echo $$ > "$0"/cgroup.procs; exec "$@"'
PR_SET_CHILD_SUBREAPER = 36
NOT_MEASURED = (
    "CPU time is not measured: no control group can be made here (that takes root and a writable /sys/fs/cgroup)"
)


class Group(Protocol):
    """What a run starts, and everything that comes of it."""

    def wrap(self, argv: list[str]) -> list[str]:
        """The command that runs `argv` inside."""

    def pids(self) -> list[int]:
        """Who is inside now."""

    def cpu(self) -> float:
        """Seconds of CPU that all took who were ever inside, the ended ones too; NaN where nobody counts them."""

    def close(self) -> None:
        """Give the group back. Nobody is inside any more."""


class Cgroup:
    """A control group of its own, of version 1 (cpuacct) or 2: nobody leaves it by a fork, and nobody is missed."""

    def __init__(self, tag: str) -> None:
        """:raises OSError: when it cannot be made."""
        first = Path("/sys/fs/cgroup/cpuacct")
        self.path = (first if first.is_dir() else first.parent) / f"bench-{tag}"
        self.path.mkdir()
        if not (self.path / "cgroup.procs").exists():
            self.path.rmdir()
            raise FileNotFoundError(f"{self.path.parent} holds no control groups")

    def wrap(self, argv: list[str]) -> list[str]:
        return ["/bin/sh", "-c", ENTER, str(self.path), *argv]

    def pids(self) -> list[int]:
        return [int(pid) for pid in (self.path / "cgroup.procs").read_text().split()]

    def cpu(self) -> float:
        with contextlib.suppress(FileNotFoundError):
            return int((self.path / "cpuacct.usage").read_text()) / 1e9
        found = re.search(r"usage_usec (\d+)", (self.path / "cpu.stat").read_text())
        return int(found[1]) / 1e6 if found else math.nan

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.path.rmdir()


class Descendants:
    """Where no control group can be made: the descendants of this process, to which orphans come back."""

    def __init__(self) -> None:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._before = set(self._alive())

    def wrap(self, argv: list[str]) -> list[str]:
        return argv

    def pids(self) -> list[int]:
        return [pid for pid in self._alive() if pid not in self._before]

    def cpu(self) -> float:
        return math.nan

    def close(self) -> None:
        """Nothing to give back."""

    def _alive(self) -> list[int]:
        children: dict[int, list[int]] = {}
        ended = set()
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit():
                    state, parent = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:2]
                    children.setdefault(int(parent), []).append(int(entry))
                    if state == "Z":
                        ended.add(int(entry))
        found, left = [], [os.getpid()]
        while left:
            more = children.get(left.pop(), [])
            found += more
            left += more
        return [pid for pid in found if pid not in ended]


def new_group(tag: str) -> Group:
    """A control group, or the next best."""
    try:
        return Cgroup(tag)
    except OSError:
        return Descendants()


def counts_cpu() -> bool:
    """Whether CPU time can be measured here."""
    group = new_group(f"{os.getpid()}-try")
    group.close()
    return isinstance(group, Cgroup)
