"""What happened: the supervisor's record of events, as it stands and as it grows."""

from __future__ import annotations

import os

from ncolony.ctllib.common import parsed, refused, state_directory
from ncolony.ctllib.fitting import fitting
from ncolony.ctllib.reports import number

TYPE_CHECKING = False  # see ncolony.ctllib
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from ncolony.ctllib import Path, Places

_OLD, _CURRENT = "events.old", "events"
_CHUNK = 1 << 16
# So much of what stands before a place proves that it is the same.
_PROOF = 256
_KINDS: dict[str, type] = {"state": str, "instance": int, "pid": int, "reason": str}
_DEED = "show what happened"


class Event:
    """Something that happened. `at` is wall-clock seconds, `name` the process or "", `event` what happened to it.

    `event` is the state that a process came to, in lower case, or another word of those in the documentation. `record`
    is the whole JSON object.
    """

    __slots__ = ("at", "event", "instance", "name", "pid", "reason", "record", "state")

    at: float
    event: str
    name: str
    state: str
    instance: int | None
    pid: int | None
    reason: str
    record: dict[str, Any]

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = dict(record)
        record = fitting(record, _KINDS)
        self.at, self.event, self.name = float(record["at"]), record["event"], record["name"]
        self.state, self.instance = record.get("state") or "", record.get("instance")
        self.pid, self.reason = record.get("pid"), record.get("reason") or ""

    def __repr__(self) -> str:
        return f"Event({self.record!r})"


def events(places: Places, *, state: Path | None = None) -> list[Event]:
    """Everything that happened as far as it is still known, the newest last. Lines that are no events are left out.

    :raises CannotAccess: when it may not be read.
    """
    with EventReader(places, state) as reader:
        return reader.more()


def follow_events(places: Places, *, state: Path | None = None) -> Iterator[list[Event]]:
    """Everything known so far, then, each time one asks, what has happened since: a list that may be empty.

    It goes on for ever, across rotations of the files, across supervisors, and where there is no file yet. Between two
    questions one sleeps as long as one likes.

    :raises CannotAccess: when it may not be read.
    """
    with EventReader(places, state) as reader:
        while True:
            yield reader.more()


class EventReader:
    """Reads the two files one after the other, and knows how far it came.

    The file being read and the one before it are held open: so their inodes are no others', and the last lines of a
    file can be read once it was renamed.

    With a `position` that an earlier one had it goes on from there. Where that is not to be found any more, `is_lost`
    is true and it begins with the oldest line.
    """

    def __init__(self, places: Places, state: Path | None, position: str = "") -> None:
        directory = state_directory(places, state)
        self._old, self._current = os.path.join(directory, _OLD), os.path.join(directory, _CURRENT)
        self._descriptor, self._former = -1, -1
        self._offset = self._former_end = 0
        self.is_lost = bool(position) and not self._go_on_from(position)

    def __enter__(self) -> EventReader:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self._descriptor, self._former):
            if descriptor >= 0:
                os.close(descriptor)

    def position(self) -> str:
        """How far it came, for a later reader; "" where nothing was there to read."""
        if self._descriptor >= 0:
            return _position(self._descriptor, self._offset)
        return _position(self._former, self._former_end) if self._former >= 0 else ""

    def _go_on_from(self, position: str) -> bool:
        try:
            offset = int(position.split(":")[1])
        except (IndexError, ValueError):
            return False
        if offset < 0:
            return False
        # The newest file first, or it could become the old one between two looks.
        for path in (self._current, self._old, self._current):
            descriptor = _open(path)
            if descriptor < 0:
                continue
            if _position(descriptor, offset) == position:
                self._descriptor, self._offset = descriptor, offset
                return True
            os.close(descriptor)
        return False

    def more(self) -> list[Event]:
        """What was written since the last time."""
        found: list[Event] = []
        while True:
            if self._descriptor >= 0:
                # Asked first: nobody writes any more to what was renamed before it is read.
                rotated = _inode(self._current) != os.fstat(self._descriptor).st_ino
                found += self._lines()
                if not rotated:
                    return found
                if self._former >= 0:
                    os.close(self._former)
                self._former, self._former_end, self._descriptor = self._descriptor, self._offset, -1
            if not self._open_next():
                return found

    def _open_next(self) -> bool:
        """Open the oldest file that was not read yet; False when there is none."""
        read = os.fstat(self._former).st_ino if self._former >= 0 else None
        while True:
            old = _inode(self._old)
            path = self._current if old in (None, read) else self._old
            descriptor = _open(path)
            if descriptor >= 0 and path == self._current and _inode(self._old) != old:
                os.close(descriptor)  # rotated in between: first comes what was skipped
                continue
            self._descriptor, self._offset = descriptor, 0
            return descriptor >= 0

    def _lines(self) -> list[Event]:
        """The events in the whole lines from where we are; a line that is not whole is left for the next time."""
        try:
            if os.fstat(self._descriptor).st_size < self._offset:
                self._offset = 0  # somebody emptied it
            parts = []
            at = self._offset
            while part := os.pread(self._descriptor, _CHUNK, at):
                parts.append(part)
                at += len(part)
        except OSError as error:
            raise refused(_DEED, self._current, error) from error
        data = b"".join(parts)
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        return [event for line in data[:whole].split(b"\n") if line and (event := _event(line))]


def _position(descriptor: int, offset: int) -> str:
    """A place in a file, told by what stands before it too: the number of an inode is given again."""
    import zlib  # not needed by those who only read

    try:
        before = os.pread(descriptor, _PROOF, max(0, offset - _PROOF)) if offset else b""
        inode = os.fstat(descriptor).st_ino
    except OSError:
        return ""
    return f"{inode}:{offset}:{zlib.crc32(before[:offset]):08x}:{len(before[:offset])}"


def _inode(path: str) -> int | None:
    """The inode of a file; None when it is not there."""
    try:
        return os.stat(path).st_ino
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise refused(_DEED, path, error) from error


def _open(path: str) -> int:
    """A descriptor of the file; -1 when it is not there."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return -1
    except OSError as error:
        raise refused(_DEED, path, error) from error


def _event(line: bytes) -> Event | None:
    try:
        record = parsed(line)
    except ValueError:
        return None
    if number(record.get("at")) is None or not isinstance(record.get("event"), str):
        return None
    return Event(record) if isinstance(record.get("name"), str) else None
