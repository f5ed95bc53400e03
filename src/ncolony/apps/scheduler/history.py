"""The record of past runs, a bounded file of JSON lines; and the last lines that a run printed."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Sequence

import msgspec

from ncolony.system.files import write_whole

from .output import Lined

LINES_KEPT = 20
LONGEST_KEPT = 200
"""Lines of a run that its record holds, and characters of each: enough to see why it failed."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Moments are wall-clock seconds since 1970; `due` is null for a run that was asked for."""

    run: int
    attempt: int
    due: float | None
    started: float
    ended: float
    lasted: float
    code: int | None
    signal: str | None
    success: bool
    text: str
    lines: tuple[str, ...]


_decoder = msgspec.json.Decoder(Record)


class History:
    """Appends records to a file and drops the oldest: it holds the last `keep` runs, and at most twice as many.

    Nobody else writes to the file. Raises OSError when it cannot be used, ValueError when it holds something else.
    """

    def __init__(self, path: str, keep: int) -> None:
        self._path = path
        self._keep = keep
        self._count = 0
        with os.fdopen(self._open(), "rb") as file:
            last = b""
            for line in file:
                self._count += 1
                last = line
            if last.endswith(b"\n"):
                try:
                    _decoder.decode(last)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise ValueError("it holds something else than runs") from error

    def _open(self) -> int:
        # A FIFO must not make us wait.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(self._path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ValueError("it is no regular file")
        return fd

    def add(self, record: Record) -> None:
        """Append a record. Raises OSError or ValueError when it cannot."""
        fd = self._open()
        try:
            size = os.fstat(fd).st_size
            # The end of a line is missing where its writer was killed or the disk was full.
            whole = size == 0 or os.pread(fd, 1, size - 1) == b"\n"
            os.write(fd, (b"" if whole else b"\n") + msgspec.json.encode(record) + b"\n")
        finally:
            os.close(fd)
        self._count += 1
        if self._count > 2 * self._keep:
            with open(self._path, "rb") as file:
                newest = deque(file, maxlen=self._keep)
            write_whole(self._path, b"".join(newest), 0o600)
            self._count = len(newest)


class Tail:
    """Passes output on and keeps the last lines."""

    def __init__(self, output: Lined) -> None:
        self._output = output
        self._kept: deque[str] = deque(maxlen=LINES_KEPT)

    @property
    def kept(self) -> tuple[str, ...]:
        """The last lines, each cut to its first characters."""
        return tuple(self._kept)

    @property
    def full(self) -> bool:
        """Whether the output is."""
        return self._output.full

    def lines(self, stream: str, lines: Sequence[str]) -> None:
        """Pass lines on."""
        self._kept += [line[:LONGEST_KEPT] for line in lines[-LINES_KEPT:]]
        self._output.lines(stream, lines)

    def problem(self, text: str) -> None:
        """Pass a line about the command on."""
        self._output.problem(text)
