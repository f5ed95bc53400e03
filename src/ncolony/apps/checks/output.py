"""Looks at what an instance prints: does a line match a regular expression."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ...system import logfiles
from ...system.files import Unreadable, read_small
from ...system.logreader import Reader
from .outcome import GOOD, Outcome

# Of a line, what a pattern is applied to; and the processor time that it may take for the lines of one look.
_LONGEST = 1 << 14
_MOST_CPU_S = 0.1
# What is read in one look.
_MOST_BYTES = 1 << 20
_CHUNK = 1 << 16


class Matching:
    """Reads what one instance prints, from its beginning on, until a line matches."""

    def __init__(self, state: str, logs: str, name: str, pid: int, started: float, pattern: str) -> None:
        """`started` is when the instance was started (wall clock)."""
        self._pattern = re.compile(pattern)
        self._logs, self._name, self._started_ns = logs, name, int(started * 1e9)
        self._begins = _begins(state, pid)
        self._readers: dict[str, Reader] = {}
        self._unread: deque[str] = deque()

    def look(self) -> Outcome | None:
        """GOOD when a line matches, None when none has yet. Unknown when nobody can tell."""
        try:
            if not self._unread:
                self._unread.extend(self._texts())
            with _limited():
                while self._unread:
                    if self._pattern.search(self._unread.popleft()):
                        return GOOD
            return None
        except _TooLong:  # that line is left out
            return Outcome(f"the expression takes more than {_MOST_CPU_S:g} s for what it prints", unknown=True)
        except OSError as error:
            return Outcome(f"cannot read its output: {error.strerror}", unknown=True)

    def close(self) -> None:
        """Close the files."""
        for reader in self._readers.values():
            reader.close()
        self._readers = {}

    def _texts(self) -> Iterator[str]:
        for log in logfiles.of_process(self._logs, self._name):
            if log.directory not in self._readers:
                self._readers[log.directory] = Reader(log, self._begin_of(log), _CHUNK)
            reader, began = self._readers[log.directory], self._readers[log.directory].offset
            while reader.offset - began < _MOST_BYTES and (lines := reader.read()):
                for line in lines:
                    if self._begins is not None or line.time_ns >= self._started_ns:
                        yield line.data[:_LONGEST].decode("utf-8", "backslashreplace").removesuffix("\r")

    def _begin_of(self, log: logfiles.Log) -> int:
        """Where the output of the instance begins: the keeper has written it down. If not, its start tells."""
        if self._begins is None:
            return log.since(self._started_ns)
        return self._begins.get("since_stderr" if log.stream == logfiles.STDERR else "since", 0)


def _begins(state: str, pid: int) -> dict[str, int] | None:
    """What the keeper has noted of an instance, found by the mark in its environment; None where that is not known."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            marks = [one for one in file.read().split(b"\0") if one.startswith(b"NCOLONY_INSTANCE=")]
        identity = os.fsdecode(marks[0].partition(b"=")[2]).replace("/", "_")
        intent = json.loads(read_small(f"{state}/instances/{identity}").partition(b"\n")[0])
        return {key: int(intent[key]) for key in ("since", "since_stderr") if key in intent} or None
    except (OSError, Unreadable, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None


class _TooLong(BaseException):
    """The pattern has taken its time. No Exception, so that nothing on the way takes it for its own."""


@contextmanager
def _limited() -> Iterator[None]:
    """Have what is done inside take a certain time of the processor at most.

    A regular expression may take for ever. While it does, Python handles nothing but signals: so it is a signal that
    ends it. Only the main thread can have one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGVTALRM, _enough)
    signal.setitimer(signal.ITIMER_VIRTUAL, _MOST_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, former)


def _enough(number: int, frame: FrameType | None) -> None:
    raise _TooLong
