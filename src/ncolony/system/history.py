"""How instances ended: a bounded file of records for each process, and the last lines that one printed."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
from collections import deque
from collections.abc import Callable, Container

import msgspec

from ..keeper.kept import older
from ..keeper.kernel import reach
from ..model.history import Record, decode
from ..model.names import DECEPTIVE, is_ignored
from .files import write_whole
from .times import Times

# What one file holds at most. When it is full the newest records that fit into half of it are kept, so that most
# exits cost one appended line and not a whole file.
MOST_RECORDS = 50
MOST_BYTES = 1 << 16
# Files of processes that were removed: people look at why one had died.
_MOST_GONE = 1000
_LINES = 20
_MOST_WAITING = 1000
_LONGEST_LINE = 200
_TAIL_BYTES = 1 << 13
# What is decompressed for the sake of its end: 50 ms of work.
_MOST_UNPACKED = 1 << 24
# As in our own log: control characters but the tab, the C1 controls that terminals act on, and what deceives.
_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(9), *range(10, 32), *range(127, 160))}
_ESCAPED |= {ord(character): f"\\u{ord(character):04x}" for character in DECEPTIVE}


class History:
    """The files of one directory, named for the processes. One supervisor writes; anybody may read."""

    def __init__(self, directory: str, most_gone: int = _MOST_GONE) -> None:
        self._directory, self._most_gone = directory, most_gone
        self._counts: dict[str, int] = {}
        self._gone: dict[str, None] = {}  # removed processes, the one gone longest first
        self._known: Container[str] = ()

    def add(self, name: str, record: Record) -> None:
        """Append a record to the file of `name`, or raise and leave it as it was.

        :raises OSError: when it cannot be written, such as on a full disk.
        """
        line = msgspec.json.encode(record) + b"\n"
        path = f"{self._directory}/{name}"
        try:
            file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError:  # the directory was taken away
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            size = os.lseek(file, 0, os.SEEK_END)
            count = self._count(name, file, size)
            if count < MOST_RECORDS and size + len(line) < MOST_BYTES:
                self._append(file, size, line)
                self._counts[name] = count + 1
                return
            lines = os.pread(file, MOST_BYTES, max(0, size - MOST_BYTES)).split(b"\n")
        finally:
            os.close(file)
        kept = _newest([old + b"\n" for old in lines if decode(old)], line)
        write_whole(path, b"".join(kept), 0o644)
        self._counts[name] = len(kept)

    def _count(self, name: str, file: int, size: int) -> int:
        """How many records there are; whoever emptied the file meanwhile began anew."""
        if size == 0:
            return 0
        if name not in self._counts:
            self._counts[name] = os.pread(file, MOST_BYTES, 0).count(b"\n")
        return self._counts[name]

    @staticmethod
    def _append(file: int, size: int, line: bytes) -> None:
        if size and os.pread(file, 1, size - 1) != b"\n":
            line = b"\n" + line  # whoever wrote before us died of it, or its disk was full
        try:
            if os.write(file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(file, size)
            raise

    def has(self, name: str, identity: str) -> bool:
        """Whether the end of this instance is recorded already."""
        try:
            with open(f"{self._directory}/{name}", "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - MOST_BYTES))
                lines = file.read(MOST_BYTES).split(b"\n")
        except OSError:
            return False
        marked = b'"id":' + msgspec.json.encode(identity)
        found = (decode(line) for line in reversed(lines) if marked in line)
        return any(record is not None and record.id == identity for record in found)

    def forget(self, name: str) -> None:
        """The process was removed. Its file stays, but the files of those gone longest do not stay for ever."""
        self._counts.pop(name, None)
        self._gone.pop(name, None)
        self._gone[name] = None  # also when it has no file: its last exit may be recorded after this
        self._trim()

    def prune(self, known_names: Container[str]) -> None:
        """At our start: find the files of processes that exist no more, and what a killed supervisor left half written.

        `known_names` is asked later too, when a process that was removed may have come back.

        :raises OSError: when the directory cannot be listed.
        """
        self._known = known_names
        gone = []
        with os.scandir(self._directory) as listing:
            for found in listing:
                if is_ignored(found.name):
                    with contextlib.suppress(OSError):
                        os.unlink(found.path)
                elif found.name not in known_names:
                    with contextlib.suppress(FileNotFoundError):
                        gone.append((found.stat(follow_symlinks=False).st_mtime_ns, found.name))
        self._gone = dict.fromkeys(name for _, name in sorted(gone))
        self._trim()

    def _trim(self) -> None:
        while len(self._gone) > self._most_gone:
            name = next(iter(self._gone))
            del self._gone[name]
            if name not in self._known:
                with contextlib.suppress(OSError):
                    os.unlink(f"{self._directory}/{name}")


class Chronicle:
    """Notes how instances ended at once, and writes it down when there is time: before the keeper may forget them."""

    def __init__(self, state: str, logs: str, problem: Callable[[str, str], object]) -> None:
        self.history = History(f"{state}/history")
        self._state, self._logs, self._problem = state, logs, problem
        self._waiting: deque[tuple[str, Record, dict[str, int] | None]] = deque()

    def note(self, name: str, record: Record, since: dict[str, int] | None, again: bool) -> None:
        """Note an end; `again`: it may be noted already.

        `since`: where its output begins in its logs, if it had any (see Instance.since of the keeper).
        """
        if not (again and self.history.has(name, record.id)):
            self._waiting.append((name, record, since))

    def unwritten(self) -> set[str]:
        """Identities of the instances whose ends could not be written down yet."""
        return {record.id for _, record, _ in self._waiting}

    def write(self) -> None:
        """Write down what was noted. On a full disk it is kept, within bounds, and tried again."""
        problem = ""
        while self._waiting:
            reach("exited.decided")
            name, record, since = self._waiting[0]
            if since is not None:
                record = msgspec.structs.replace(record, lines=self._lines(name, since))
            try:
                self.history.add(name, record)
            except OSError as error:
                problem = f"cannot record exits in {self._state}/history: {error.strerror}"
                break
            self._waiting.popleft()
            reach("exited.recorded")
        while len(self._waiting) > _MOST_WAITING:
            self._waiting.popleft()
        self._problem("history", problem)

    def _lines(self, name: str, since: dict[str, int]) -> tuple[str, ...]:
        """The last lines of its output; of two streams, in the order in which they were printed."""
        directory = f"{self._logs}/{name}"
        if "since_stderr" not in since:
            return last_lines(directory, since=since["since"])
        found = [
            *timed_lines(directory, since["since"]),
            *timed_lines(f"{directory}/stderr", since["since_stderr"]),
        ]
        return tuple(line for _, line in sorted(found, key=lambda one: one[0])[-_LINES:])


def _newest(lines: list[bytes], line: bytes) -> list[bytes]:
    """As many of the last lines as fit with the new one into half of what a file may hold, and the new one."""
    room = MOST_BYTES // 2 - len(line)
    kept = [line]
    for old in reversed(lines[-(MOST_RECORDS // 2 - 1) :]):
        room -= len(old)
        if room < 0:
            break
        kept.append(old)
    return kept[::-1]


def last_lines(directory: str, count: int = _LINES, since: int = 0) -> tuple[str, ...]:
    """The last lines in a process's log directory, of what was printed from offset `since` on, for people to read.

    Offsets count all bytes that the process ever printed, as the names of the rotated files do. Looks at 8 KiB at most.
    What cannot be read is left out.
    """
    return tuple(line for _, line in _shown(directory, count, since))


def timed_lines(directory: str, since: int) -> list[tuple[int, str]]:
    """The same, each with when it was printed, in nanoseconds."""
    lines = _shown(directory, _LINES, since)
    if not lines:
        return []
    times = Times(directory, lines[0][0] - 1, lines[-1][0])
    return [(times.of(end), line) for end, line in lines]


def _shown(directory: str, count: int, since: int) -> list[tuple[int, str]]:
    """The last lines as they are shown, each with the offset at which it ends."""
    data, at, torn = _tail(directory, since)
    end, lines = at + len(data), data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    if torn and len(lines) > 1:
        at += len(lines.pop(0)) + 1
        torn = False
    found = []
    for line in lines:
        at = min(at + len(line) + 1, end)
        shown = line.decode("utf-8", "backslashreplace").translate(_ESCAPED)
        if torn:
            shown = "…" + shown[1 - _LONGEST_LINE :]
        elif len(shown) > _LONGEST_LINE:
            shown = shown[: _LONGEST_LINE - 1] + "…"
        found.append((at, shown))
    return found[-count:]


def _tail(directory: str, since: int) -> tuple[bytes, int, bool]:
    """The last bytes of a log from `since` on, their offset, and whether they begin in the middle of something."""
    # Read before the names are listed: should a new file begin meanwhile, too little is found, and nothing wrong.
    begin = int.from_bytes(_read(f"{directory}/current.index", 0, 8), "big")
    try:
        kept = older(directory)
    except OSError:
        return b"", since, False
    newest, size = kept[-1] if kept else (0, 0)
    ended = newest + size
    begin = max(begin, ended)
    data, at = _end_of(f"{directory}/current", begin, since, _TAIL_BYTES)
    if kept and since < at == ended and len(data) < _TAIL_BYTES:
        begin = newest
        more, at = _end_of(f"{directory}/{newest:020d}.log", begin, since, _TAIL_BYTES - len(data), size)
        data = more + data
    return data, at, at not in (begin, since)


def _end_of(path: str, begin: int, since: int, room: int, size: int | None = None) -> tuple[bytes, int]:
    """The last `room` bytes of the file that begins at offset `begin`, but none before `since`; and their offset."""
    try:
        start = max(since - begin, (os.stat(path).st_size if size is None else size) - room, 0)
    except OSError:
        start = max(since - begin, 0)
    return _read(path, start, room) or _read_compressed(path, start, room), begin + start


def _read_compressed(path: str, start: int, length: int) -> bytes:
    """A part of what was a file before it was compressed; nothing where that would take long."""
    if start > _MOST_UNPACKED:
        return b""
    try:
        with gzip.open(f"{path}.gz") as file:
            file.seek(start)
            return file.read(length)
    except (OSError, EOFError):
        return b""


def _read(path: str, start: int, length: int) -> bytes:
    """A part of a file; nothing where it cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(file, length, start)
    except OSError:
        return b""
    finally:
        os.close(file)
