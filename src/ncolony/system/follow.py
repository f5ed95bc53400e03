"""Log files -> lines -> the supervisor's own log, from a committed offset."""

from __future__ import annotations

import contextlib
import os
import resource
from collections import deque
from collections.abc import Callable, Container
from typing import Any

from twisted.logger import Logger

from ..keeper.kernel import CUT, MOST_BYTES, is_set_aside, reach
from .own_log import OwnLog, lines_of

_log = Logger(namespace="ncolony")
# A log that cannot be read is tried again after this.
_AGAIN_S = 1.0
# What is read in one turn of the reactor, so that a flood leaves room for messages and restarts.
_BYTES_PER_TURN = 1 << 16
_OPEN_AT_MOST = 64


class _Reader:
    """Where one process's log has been forwarded to, and the file that the next byte is in."""

    __slots__ = ("base", "cuts", "end", "file", "leaving", "offset", "queued")

    def __init__(self, offset: int) -> None:
        self.offset = self.end = offset
        self.base, self.file, self.queued, self.leaving = 0, -1, False, False
        self.cuts: deque[int] = deque()  # where an instance ended: an unfinished line is finished there


class Follower:
    """Forwards what the keeper wrote, a bounded piece per turn, each process in its turn.

    `say(name, line, whole)` is called for every line; `done(name, offset)` when everything before `offset` was said.
    """

    def __init__(
        self,
        reactor: Any,
        logs: str,
        commits: str,
        own_log: OwnLog,
        say: Callable[[str, bytes, bool], None],
        done: Callable[[str, int], None],
    ) -> None:
        self._reactor, self._logs, self._commits = reactor, logs, commits
        self._own_log, self._say, self._done = own_log, say, done
        self._readers: dict[str, _Reader] = {}
        self._queue: deque[str] = deque()
        self._waiting: dict[str, None] = {}  # logs that could not be read, and are tried again
        self._opened: deque[str] = deque()
        self._scheduled = False
        self._most_open = min(_OPEN_AT_MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)
        self._idle: list[Callable[[], None]] = []

    def offsets(self) -> dict[str, int]:
        """What every log was forwarded to, for a keeper that does not know."""
        found = {name: reader.offset for name, reader in self._readers.items()}
        with contextlib.suppress(OSError):
            for name in os.listdir(self._commits):
                if name not in found and (committed := self._committed(name)) is not None:
                    found[name] = committed
        return found

    def catch_up(self, alive: Container[str]) -> None:
        """Forward what is in the logs already and was not forwarded before we came, also of what does not run."""
        for name in os.listdir(self._commits):
            with contextlib.suppress(OSError):
                committed, end = self._committed(name), self._end(name)
                if committed is not None and committed < end:
                    self.output(name, committed, end, last=name not in alive)

    def finish(self) -> None:
        """Take note of what a supervisor that was killed had said of its last piece without having noted that."""
        piece = self._own_log.unfinished()
        if piece is None or self._committed(piece.name) != piece.start:
            return
        reader = _Reader(piece.start)
        reader.end = piece.end
        try:
            data = self._read(piece.name, reader)[: piece.end - piece.start]
        except OSError:
            return
        self._close(reader)
        if len(data) == piece.end - piece.start:
            self._write_commit(piece.name, piece.start + self._own_log.said(piece, data))

    def _end(self, name: str) -> int:
        """Where a log ends, by its files."""
        directory = f"{self._logs}/{name}"
        begin = self._begin(directory, self._rotated(directory))
        try:
            return begin + os.stat(f"{directory}/current").st_size
        except (FileNotFoundError, NotADirectoryError):
            return begin

    def output(self, name: str, start: int, end: int, last: bool) -> None:
        """There is output up to `end`; `last` says that an instance ended there.

        `start` is where to begin when nothing is known here.
        """
        reader = self._readers.get(name)
        if reader is None:
            committed = self._committed(name)
            begin = start if committed is None or self._is_anew(name, committed, end) else committed
            reader = self._readers[name] = _Reader(begin)
            if begin != committed:
                self._write_commit(name, begin)
            reader.cuts = self._cuts(name, begin)
        elif last:
            reader.cuts = self._cuts(name, reader.offset)
        # What is told may be older than what was found in the files: only ever forward.
        reader.end, reader.leaving = max(reader.end, end), False
        self._enqueue(name, reader)

    def _is_anew(self, name: str, committed: int, end: int) -> bool:
        """Whether the log was removed since it was forwarded up to `committed`."""
        try:
            return committed > end and committed > self._end(name)
        except OSError:
            return False

    def _enqueue(self, name: str, reader: _Reader) -> None:
        if not reader.queued:
            reader.queued = True
            self._queue.append(name)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._turn)

    def forget(self, name: str) -> None:
        """The process is gone; its log stays, what we know of it goes, once its last words are forwarded."""
        reader = self._readers.get(name)
        if reader is not None and reader.queued:
            reader.leaving = True
        elif reader is not None:
            # How far it was forwarded stays on disk, as the log does: it may come back.
            del self._readers[name]
            self._close(reader)

    def when_idle(self, call: Callable[[], None]) -> None:
        """Call once everything known is forwarded."""
        if self._queue or self._waiting:
            self._idle.append(call)
        else:
            call()

    def _try_again(self, name: str) -> None:
        self._waiting.pop(name, None)
        if (reader := self._readers.get(name)) is not None:
            self._enqueue(name, reader)
        else:
            self._schedule()

    def _turn(self) -> None:
        self._scheduled = False
        budget = _BYTES_PER_TURN
        while self._queue and budget > 0:
            name = self._queue.popleft()
            if (reader := self._readers.get(name)) is None:
                continue
            reader.queued = False
            before = reader.offset, len(reader.cuts)
            try:
                budget -= self._piece(name, reader) + 256
            except OSError as error:
                # For want of descriptors, or the disk's fault: nothing is lost by waiting.
                _log.error("cannot read the log of {name}: {why}; trying again", name=name, why=error.strerror)
                self._waiting[name] = None
                self._reactor.callLater(_AGAIN_S, self._try_again, name)
                continue
            self._commit(name, reader.offset, moved=reader.offset > before[0])
            if (reader.offset, len(reader.cuts)) != before and reader.offset < reader.end:
                self._enqueue(name, reader)
            elif reader.leaving:
                self.forget(name)
        if self._queue:
            self._schedule()
        elif not self._waiting:
            waiting, self._idle = self._idle, []
            for call in waiting:
                call()

    def _piece(self, name: str, reader: _Reader) -> int:
        """Say the whole lines of the next piece; the number of bytes read."""
        data = self._read(name, reader)
        while reader.cuts and reader.cuts[0] <= reader.offset:
            reader.cuts.popleft()
        finished = bool(reader.cuts) and reader.cuts[0] <= reader.offset + len(data)
        if finished:
            data = data[: reader.cuts.popleft() - reader.offset]
        lines, taken = lines_of(data, finished)
        if lines:
            self._own_log.about_to_say(name, reader.offset, reader.offset + taken, not lines[-1][1])
            reach("forward.noted")
        for line, whole in lines:
            self._say(name, line, whole)
            reach("forward.said")
        reader.offset += taken
        return len(data)

    def _read(self, name: str, reader: _Reader) -> bytes:
        """The next bytes from the reader's offset on, across files; none when there are none to be had."""
        data = b""
        while len(data) < _BYTES_PER_TURN and reader.offset + len(data) < reader.end:
            at = reader.offset + len(data)
            if (
                reader.file >= 0
                and at >= reader.base
                and (part := os.pread(reader.file, _BYTES_PER_TURN - len(data), at - reader.base))
            ):
                data += part
                continue
            self._close(reader)  # this file ends here: the next one begins here
            begins = self._open(name, reader, at)
            if begins == at:
                continue
            if not data:
                # Somebody removed what was to come; what is left of it follows.
                gone = reader.end if begins is None else begins
                _log.warn("{name}: {count} bytes of its log are gone", name=name, count=gone - at)
                reader.offset = gone
                continue
            break
        return data

    def _open(self, name: str, reader: _Reader, at: int) -> int | None:
        """Open the file that holds offset `at`, or the next after it; the offset that can be read, or None.

        Rotated files are named by the offset they begin at.
        """
        directory = f"{self._logs}/{name}"
        for _ in range(3):
            older = self._rotated(directory)
            base, path = next(
                ((start, f"{directory}/{start:020d}.log") for start, size in older if at < start + size),
                (self._begin(directory, older), f"{directory}/current"),
            )
            try:
                reader.file = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
            # Rotated while we looked: then what we opened as current may be a later file.
            if self._rotated(directory) == older:
                reader.base = base
                self._note_open(name)
                return max(at, base) if os.fstat(reader.file).st_size > at - base else None
            self._close(reader)
        return None

    def _cuts(self, name: str, offset: int) -> deque[int]:
        """Where, beyond an offset, an instance ended without a newline: the keeper wrote that down."""
        try:
            with open(f"{self._logs}/{name}/cuts", "rb") as file:
                data = file.read()
        except OSError:
            return deque()
        whole = len(data) - len(data) % CUT.size
        return deque(sorted(cut for (cut,) in CUT.iter_unpack(data[:whole]) if cut > offset))

    @staticmethod
    def _begin(directory: str, older: list[tuple[int, int]]) -> int:
        """The offset at which the current file begins: its index says, or else the file before it."""
        ended = older[-1][0] + older[-1][1] if older else 0
        try:
            with open(f"{directory}/current.index", "rb") as index:
                said = int.from_bytes(index.read(8), "big")
                return max(ended, said) if said <= MOST_BYTES else ended
        except (FileNotFoundError, NotADirectoryError):
            return ended

    @staticmethod
    def _rotated(directory: str) -> list[tuple[int, int]]:
        try:
            names = filter(is_set_aside, os.listdir(directory))
            return sorted((int(entry[:-4]), os.stat(f"{directory}/{entry}").st_size) for entry in names)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _note_open(self, name: str) -> None:
        self._opened.append(name)
        if len(self._opened) > self._most_open:
            oldest = self._readers.get(self._opened.popleft())
            if oldest is not None:
                self._close(oldest)

    @staticmethod
    def _close(reader: _Reader) -> None:
        if reader.file >= 0:
            os.close(reader.file)
            reader.file = -1

    def _committed(self, name: str) -> int | None:
        try:
            with open(f"{self._commits}/{name}", "rb") as file:
                return int(file.read(20))
        except (OSError, ValueError):
            return None

    def _commit(self, name: str, offset: int, moved: bool) -> None:
        """On disk first: should we die now, the next supervisor goes on here. Then the keeper may tell of more."""
        if moved:
            self._write_commit(name, offset)
            reach("forward.committed")
        self._done(name, offset)

    def _write_commit(self, name: str, offset: int) -> None:
        with contextlib.suppress(OSError):
            descriptor = os.open(f"{self._commits}/{name}", os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(descriptor, b"%020d" % offset, 0)
            finally:
                os.close(descriptor)
