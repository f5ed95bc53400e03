"""Processes that the kernel gives us: the keeper when it dies, and then whatever it held, until there is another."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Container
from typing import Any

# Ends that nobody has asked about yet; as PID 1 we also get those of strangers.
_REMEMBERED = 20_000
# From the intent to start something until the kernel counts its start: clock ticks of 10 ms, and a loaded machine.
_TICK_S, _START_S = 0.02, 5.0


class Orphans:
    """Reaps them, and remembers how they ended: while there is no keeper, nobody else knows."""

    def __init__(self, noted: Callable[[int, dict[str, Any]], None]) -> None:
        """Call `noted(pid, end)` for each that was not expected."""
        self._noted = noted
        self._ends: dict[tuple[int, int], dict[str, Any]] = {}
        self._leaders: set[tuple[int, int]] = set()
        self._expected: dict[int, Callable[[int], None]] = {}

    def expect(self, pid: int, call: Callable[[int], None]) -> None:
        """Have `call(wait status)` called at the end of a child of ours."""
        self._expected[pid] = call

    def reap(self) -> None:
        """Reap whatever has ended."""
        while True:
            try:
                peek = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if peek is None:
                return
            pid = peek.si_pid
            key, leads = (pid, start_time(pid)), _leads_session(pid)
            _, status, usage = os.wait4(pid, 0)
            if (call := self._expected.pop(pid, None)) is not None:
                call(status)
                continue
            self._ends[key] = {
                **_in_words(status),
                "cpu": round(usage.ru_utime + usage.ru_stime, 3),
                "rss_kb": usage.ru_maxrss,
            }
            self._noted(pid, self._ends[key])
            if leads:
                self._leaders.add(key)
            if len(self._ends) > _REMEMBERED:
                oldest = next(iter(self._ends))
                del self._ends[oldest]
                self._leaders.discard(oldest)

    def end_of(self, pid: int, began: int) -> dict[str, Any] | None:
        """How the process ended that has, or had, this pid and start time (proc(5)); told once."""
        self._leaders.discard((pid, began))
        return self._ends.pop((pid, began), None)

    def end_of_unrecorded(self, intended: float, known: Container[int]) -> tuple[int, dict[str, Any]] | None:
        """Pid and end of the instance that was meant to be started at `intended` (monotonic) and that nobody saw.

        The keeper was killed between starting it and writing down its pid. None unless exactly one process can be it.
        """
        tick = os.sysconf("SC_CLK_TCK")
        if hasattr(time, "CLOCK_BOOTTIME"):  # the kernel counts starts on this one, which goes on while it sleeps
            intended += time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
        fit = [
            key for key in self._leaders
            if key[0] not in known and -_TICK_S <= key[1] / tick - intended <= _START_S
        ]  # fmt: skip
        if len(fit) != 1:
            return None
        end = self.end_of(*fit[0])
        return None if end is None else (fit[0][0], end)


def find_marked(identities: Container[str]) -> dict[str, int]:
    """The leaders of these instances, by the mark in their environment, where they live."""
    found: dict[str, int] = {}
    mark = b"NCOLONY_INSTANCE="
    for entry in os.listdir("/proc") if identities else ():
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/environ", "rb") as file:
                for variable in file.read().split(b"\0"):
                    if variable.startswith(mark) and _leads_session(int(entry)):
                        identity = variable[len(mark) :].decode("ascii", "replace")
                        # The first of those that lead a session: its daemons came later.
                        if identity in identities and (
                            identity not in found or start_time(int(entry)) < start_time(found[identity])
                        ):
                            found[identity] = int(entry)
    return found


def _in_words(status: int) -> dict[str, Any]:
    if os.WIFEXITED(status):
        return {"code": os.WEXITSTATUS(status)}
    return {"signal": os.WTERMSIG(status), "core": os.WCOREDUMP(status)}


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot (proc(5), stat field 22); 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read(4096).rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def _leads_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except OSError:
        return False


def kill(pid: int) -> None:
    """End a child of ours that has not been reaped yet."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
