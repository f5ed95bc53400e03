"""Our own log, when it is a file: a piece of forwarded output is in it once, whenever we are killed."""

from __future__ import annotations

import contextlib
import json
import json.encoder
import os
import stat
from collections.abc import Iterator
from typing import IO, Annotated, Any

import msgspec
from twisted.logger import FileLogObserver, FilteringLogObserver, LogEvent, Logger, globalLogPublisher

from ..keeper.kept import MOST_BYTES
from .lines import LONGEST_LINE, escaped, is_plain, whole_characters

_NAMESPACE = "ncolony.output"
_output = Logger(namespace=_NAMESPACE)
# Stands for a line in a record that many are made of; no name contains it.
_ANY_LINE = "\0"
# More than a piece can become in the log: every byte escaped, and 300 bytes around each line.
_LONGEST_TAIL = 64 << 20
_LONGEST_RECORD = 1 << 20
_Offset = Annotated[int, msgspec.Meta(ge=0, le=MOST_BYTES)]


def say(name: str, line: bytes, whole: bool, stream: str = "") -> None:
    """Log one line of a process's output; a piece of a longer one when it is not `whole`.

    `stream`: "stdout" or "stderr", where the two are kept apart.
    """
    text = line.decode("utf-8", "backslashreplace")
    _say(_output, name, text, escaped(text), whole, stream)


def _say(logger: Logger, name: str, text: str, shown: str, whole: bool, stream: str) -> None:
    more: dict[str, Any] = {} if whole else {"partial": True}
    if stream:
        more["stream"] = stream
    if shown == text:
        logger.info("[{tag}] {line}" if whole else "[{tag}] {line} …", tag=name, line=text, **more)
    else:
        template = "[{tag}] {shown}" if whole else "[{tag}] {shown} …"
        logger.info(template, tag=name, line=text, shown=shown, **more)


def say_all(name: str, lines: list[tuple[bytes, bool]], stream: str = "") -> None:
    """Log these lines, each with whether it is whole: the same records as of `say`, all of the same time.

    Where our log goes to one file, as Twisted writes it, they are made and written together: an event for each line
    costs more than ten times as much.
    """
    observer = _only_observer()
    data = b"\n".join([line for line, _ in lines])
    if observer is not None and lines[-1][1] and is_plain(data):
        text = data.decode("utf-8", "backslashreplace")
        with contextlib.suppress(UnicodeEncodeError):  # nothing was written then
            _write_all(observer, name, text, stream)
            return
    for line, whole in lines:
        say(name, line, whole, stream)


def _write_all(observer: Any, name: str, text: str, stream: str) -> None:
    """Write whole, plain lines. Raises UnicodeEncodeError."""
    events: list[LogEvent] = []
    keep: Any = events.append
    _say(Logger(namespace=_NAMESPACE, observer=keep), name, _ANY_LINE, _ANY_LINE, True, stream)
    if not observer._shouldLogEvent(events[0]):
        return
    writer = observer._observer
    record = writer.formatEvent(events[0])
    around = record.split(json.dumps(_ANY_LINE))
    if len(around) > 1:
        encoded = map(json.encoder.encode_basestring_ascii, text.split("\n"))
        said = "".join([line.join(around) for line in encoded])
    else:
        before, after = record.split(_ANY_LINE)
        said = before + text.replace("\n", after + before) + after
    with contextlib.suppress(OSError):  # a full disk: Twisted's observer is as helpless
        writer._outFile.write(said if writer._encoding is None else said.encode(writer._encoding))
        writer._outFile.flush()


def _only_observer() -> Any:
    """What Twisted writes our log with, if there is nothing else that events go to; else None.

    Should the names change that Twisted keeps to itself, each line is an event again.
    """
    observers: list[Any] = getattr(globalLogPublisher, "_observers", [])
    if len(observers) != 1 or type(observers[0]) is not FilteringLogObserver:
        return None
    writer = getattr(observers[0], "_observer", None)
    known = hasattr(observers[0], "_shouldLogEvent") and hasattr(writer, "_outFile") and hasattr(writer, "_encoding")
    return observers[0] if known and type(writer) is FileLogObserver else None


class Piece(msgspec.Struct, frozen=True):
    """What is about to be said: bytes `start` to `end` of a stream, and where our own log ended before.

    `partial`: its last line goes on beyond it.
    """

    name: str
    start: _Offset
    end: _Offset
    partial: bool
    device: int
    inode: int
    size: _Offset


def lines_of(data: bytes, finished: bool) -> tuple[list[tuple[bytes, bool]], int]:
    """The lines to say of the next bytes of a log, each with whether it is whole, and how many bytes they take.

    `finished`: nothing is added to the last line any more.
    """
    taken, goes_on = whole_part(data, finished)
    *whole, rest = data[:taken].split(b"\n")
    lines = [(line, True) for line in whole]
    if rest:
        lines.append((rest, not goes_on))
    return lines, taken


def whole_part(data: bytes, finished: bool) -> tuple[int, bool]:
    """How many of these bytes can be said by now, and whether the last line goes on beyond them. As in `lines_of`."""
    if finished:
        return len(data), False
    end = data.rfind(b"\n") + 1
    if len(data) - end >= LONGEST_LINE:
        return end + len(whole_characters(data[end:])), True
    return end, False


def cut_torn_record(note: str) -> None:
    """Cut off what a supervisor that was killed wrote of its last record; to be called before anything is logged.

    Whoever calls holds the lock on the state directory, so nobody else is writing. `note` is where pieces are noted: it
    tells which of our open files is the log.
    """
    piece = _noted(note)
    try:
        descriptors = [int(entry) for entry in os.listdir("/proc/self/fd")] if piece is not None else []
    except OSError:
        return
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            found = os.fstat(descriptor)
            if piece is None or (found.st_dev, found.st_ino) != (piece.device, piece.inode):
                continue
            if not stat.S_ISREG(found.st_mode) or found.st_size <= piece.size:
                return
            with open(f"/proc/self/fd/{descriptor}", "rb") as file:
                tail = os.pread(
                    file.fileno(), found.st_size - piece.size, max(piece.size, found.st_size - _LONGEST_RECORD)
                )
            if not tail.endswith(b"\n"):
                os.ftruncate(descriptor, found.st_size - (len(tail) - tail.rfind(b"\n") - 1))
            return


def _noted(note: str) -> Piece | None:
    try:
        with open(note, "rb") as file:
            return msgspec.json.decode(file.read(), type=Piece)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class OwnLog:
    """Notes each piece before it is said, so that whoever comes after a SIGKILL knows how much of it was.

    Where our log is no regular file (a terminal, a pipe), nothing is noted, and a piece may then be said twice.
    """

    def __init__(self, path: str) -> None:
        self._path, self._note = path, -1
        self._file = _file_of_the_log()

    def about_to_say(self, name: str, start: int, end: int, partial: bool) -> None:
        """Note a piece. A disk that is full makes it like a log that is no file."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            found = os.fstat(self._file.fileno())
            piece = Piece(name, start, end, partial, found.st_dev, found.st_ino, found.st_size)
            if self._note < 0:
                self._note = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            # One write over the former: shorter notes are padded, so that nothing of it is left.
            os.pwrite(self._note, msgspec.json.encode(piece).ljust(1024) + b"\n", 0)

    def unfinished(self) -> Piece | None:
        """The piece that was noted last, perhaps by a supervisor that was killed while it said it."""
        return _noted(self._path)

    def said(self, piece: Piece, data: bytes) -> int:
        """How many bytes of `data`, which is what `piece` stands for, are in our log already.

        A record that was torn when its writer was killed does not count: its line is said again (cut_torn_record).
        """
        *whole, rest = data.split(b"\n")
        lines = [(line, True) for line in whole]
        if rest:
            lines.append((rest, not piece.partial))
        count, name = 0, piece.name.partition("/")[0]
        for record in self._records_since(piece):
            if count < len(lines) and self._is(record, name, *lines[count]):
                count += 1
        return len(data) if count == len(lines) else sum(len(line) + 1 for line, _ in lines[:count])

    def _records_since(self, piece: Piece) -> Iterator[bytes]:
        if self._file is None:
            return
        ours = f"/proc/self/fd/{self._file.fileno()}"
        try:
            current = os.readlink(ours)
            with os.scandir(os.path.dirname(current)) as listing:
                # Moved aside meanwhile, it has another name, most likely in the same directory.
                others = [found.path for found in listing if found.inode() == piece.inode]
        except OSError:
            return
        for path in [current, *others]:
            with contextlib.suppress(OSError), open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                found = os.fstat(file.fileno())
                if (found.st_dev, found.st_ino) == (piece.device, piece.inode):
                    yield from os.pread(file.fileno(), _LONGEST_TAIL, piece.size).split(b"\n")[:-1]
                    return

    def _is(self, record: bytes, name: str, line: bytes, whole: bool) -> bool:
        """Whether the record is the event of this line, in either of Twisted's two formats."""
        text = line.decode("utf-8", "backslashreplace")
        if record.startswith(b"\x1e"):
            try:
                event = json.loads(record[1:])
            except ValueError:
                return False
            return (event.get("tag"), event.get("line"), not event.get("partial")) == (name, text, whole)
        assert self._file is not None
        shown = f"] [{name}] {escaped(text)}" + ("" if whole else " …")
        encoding, errors = getattr(self._file, "encoding", None), getattr(self._file, "errors", None)
        with contextlib.suppress(UnicodeEncodeError):
            return record.endswith(shown.encode(encoding or "utf-8", errors or "strict"))
        return False


def _file_of_the_log() -> IO[Any] | None:
    """The file that Twisted writes our log to, None when it is a terminal, a pipe, or not to be found.

    Twisted keeps its observers to itself; should these names change, the log is treated like a pipe.
    """
    for observer in getattr(globalLogPublisher, "_observers", ()):
        writer = getattr(observer, "_observer", observer)  # behind the filter for the log level
        file = getattr(writer, "_outFile", None)
        try:
            if file is not None and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file  # type: ignore[no-any-return]
        except (OSError, ValueError):
            continue
    return None
