"""Log files -> lines -> the supervisor's own log and files that processes have of their own, from committed offsets.

A stream is what a process prints, by the process's name, or its standard error where that is kept apart: NAME/stderr.
Each goes up to two ways, and how far it got on each is on disk.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import resource
import shutil
import tempfile
import zlib
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Container, Iterator
from typing import Any

import msgspec
from twisted.logger import Logger

from ..keeper.kept import MOST_BYTES, older
from ..keeper.kernel import CUT, reach
from ..model.config import LogConfig
from .compress import Compressor
from .files import sweep, write_whole
from .own_log import OwnLog, lines_of
from .sinks import Files, FileSink, Plan, Target, Unwritable, resized

_log = Logger(namespace="ncolony")
# A log that cannot be read is tried again after this, and a file that cannot be written.
_AGAIN_S = 1.0
# What is dropped within this time is told at once.
_LOSS_S = 1.0
# What is read in one turn of the reactor, so that a flood leaves room for messages and restarts.
_BYTES_PER_TURN = 1 << 16
_OPEN_AT_MOST = 64
# While output goes on and on, what was set aside is looked through each time so much of it was forwarded.
_COMPRESS_BYTES = 1 << 20
Say = Callable[[str, list[tuple[bytes, bool]], str], None]
# The ways of a stream.
_LOG, _FILE = "log", "file"
# Their commits are files in one directory: the way's and the stream's beginning of the name, then the process's name,
# which never begins with a dot and has 250 bytes at most.
_PLACES = {(_LOG, ""): "", (_LOG, "stderr"): ".2.", (_FILE, ""): ".3.", (_FILE, "stderr"): ".4."}
_DIGITS = 20
# In the place of an offset: this way is not gone.
_NOWHERE = b"-" * _DIGITS


class _ToLog:
    """The way to our own log."""

    trouble = ""

    def __init__(self, own_log: OwnLog, say: Say, split: Container[str]) -> None:
        self._own_log, self._say, self._split = own_log, say, split

    def take(self, key: str, offset: int, data: bytes, finished: bool) -> int:
        """Say the whole lines; how many bytes they take."""
        lines, taken = lines_of(data, finished)
        if not lines:
            return 0
        name, _, stream = key.partition("/")
        if not stream and name in self._split:
            stream = "stdout"
        self._own_log.about_to_say(key, offset, offset + taken, not lines[-1][1])
        reach("forward.noted")
        self._say(name, lines, stream)
        reach("forward.said")
        return taken


class _Reader:
    """How far a stream has got on one way, and the file that the next byte is in."""

    __slots__ = ("base", "file", "offset", "queued", "sink", "stream", "then", "trouble", "way")

    def __init__(self, stream: _Stream, way: str, offset: int, sink: _ToLog | FileSink) -> None:
        self.stream, self.way, self.offset, self.sink = stream, way, offset, sink
        self.base, self.file, self.queued, self.trouble = 0, -1, False, ""
        # From these offsets on it goes elsewhere, or not at all.
        self.then: deque[tuple[int, Target | None]] = deque()


class _Stream:
    """What is known of one."""

    __slots__ = ("compress", "compressed", "cuts", "end", "gone", "key", "leaving", "readers", "unlogged")

    def __init__(self, key: str) -> None:
        self.key, self.end, self.gone, self.compressed = key, 0, 0, 0
        self.readers: dict[str, _Reader] = {}
        self.cuts: list[int] = []  # where an instance ended: an unfinished line is finished there
        self.leaving = self.unlogged = self.compress = False


class Follower:
    """Forwards what the keeper wrote, a bounded piece per turn, each way of each stream in its turn.

    `say(name, lines, stream)` is called with lines that go to our log, each with whether it is whole;
    `done(key, offset)` when everything before `offset` went where it is to go; `trouble(key, text)` when a file cannot
    be written, and with "" when it can be again; `lost(key, count)` when so many bytes were removed before they went
    anywhere; `left(name)` when nothing is known any more of a name that was forgotten.
    """

    def __init__(
        self,
        reactor: Any,
        logs: str,
        commits: str,
        own_log: OwnLog,
        say: Say,
        done: Callable[[str, int], None],
        trouble: Callable[[str, str], None] = lambda key, text: None,
        lost: Callable[[str, int], None] = lambda key, count: None,
        left: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._reactor, self._logs, self._commits = reactor, logs, commits
        self._own_log, self._done = own_log, done
        self._tell_trouble, self._tell_loss, self._left = trouble, lost, left
        self._compressor = Compressor(logs)
        self._files = Files(f"{commits}/.writing.new", self._compressor)
        self._split: set[str] = set()  # processes whose streams are kept apart
        self._to_log = _ToLog(own_log, say, self._split)
        self._streams: dict[str, _Stream] = {}
        self._queue: deque[_Reader] = deque()
        self._waiting: dict[_Reader, None] = {}  # logs that could not be read, and are tried again
        self._troubled: dict[_Reader, None] = {}  # files that could not be written, likewise
        self._losses: dict[str, int] = {}
        self._opened: dict[_Reader, None] = {}  # what was opened longest ago first
        self._scheduled = False
        self._most_open = min(_OPEN_AT_MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)
        self._idle: list[Callable[[], None]] = []

    # beginning

    def finish(self) -> None:
        """Take note of what a supervisor that was killed had said and written without having noted that."""
        piece = self._own_log.unfinished()
        if piece is not None and self._committed(piece.name, _LOG) == piece.start:
            stream = _Stream(piece.name)
            reader, stream.end = _Reader(stream, _LOG, piece.start, self._to_log), piece.end
            with contextlib.suppress(OSError):
                data = self._read(reader)[: piece.end - piece.start]
                if len(data) == piece.end - piece.start:
                    self._write_commit(piece.name, _LOG, piece.start + self._own_log.said(piece, data))
            self._close(reader)
        if (note := self._files.finish(lambda key: self._committed(key, _FILE))) is not None:
            self._write_commit(note.key, _FILE, note.end)
        sweep(self._commits)
        self._compressor.sweep()
        for key in self._on_disk():
            if (target := self._target(key)) is not None and target.compress:
                self._compressor.add_rotated(target.path, target.keep)

    def offsets(self) -> dict[str, int]:
        """What every stream was forwarded to, for a keeper that does not know."""
        found = {key: self._reached(stream) for key, stream in self._streams.items() if stream.readers}
        for key in self._on_disk():
            if key not in self._streams and (committed := self._least_committed(key)) is not None:
                found[key] = committed
        return found

    def catch_up(self, alive: Container[str]) -> None:
        """Forward what is in the logs already and was not forwarded before we came, also of what does not run."""
        for key in self._on_disk():
            with contextlib.suppress(OSError):
                committed, end = self._least_committed(key), self._end(key)
                if committed is not None and committed < end:
                    self.output(key, committed, end, last=key.partition("/")[0] not in alive)

    def _on_disk(self) -> list[str]:
        """The streams of which something is committed."""
        found: dict[str, None] = {}
        with contextlib.suppress(OSError):
            for place in os.listdir(self._commits):
                begin = place[:3] if place.startswith(".") else ""
                for (_, stream), beginning in _PLACES.items():
                    if begin == beginning:
                        name = place.removeprefix(begin)
                        found[f"{name}/{stream}" if stream else name] = None
        return list(found)

    def _least_committed(self, key: str) -> int | None:
        committed = [self._committed(key, way) for way in (_LOG, _FILE)]
        return min((offset for offset in committed if offset is not None), default=None)

    def _end(self, key: str) -> int:
        """Where a log ends, by its files."""
        directory = f"{self._logs}/{key}"
        begin = self._begin(directory, self._older(directory))
        try:
            return begin + os.stat(f"{directory}/current").st_size
        except (FileNotFoundError, NotADirectoryError):
            return begin

    # what is to be done with a stream

    def follow(self, name: str, plan: Plan, since: dict[str, int], is_new: bool = True) -> None:
        """An instance runs whose output is treated so, from where it begins in each stream: see Instance.since.

        Of one that is not new the sizes may have changed since it was started: what is known here is newer.
        """
        (self._split.add if plan.split else self._split.discard)(name)
        ways = [(name, plan.stdout, since.get("since", 0))]
        if plan.split:
            ways.append((f"{name}/stderr", plan.stderr, since.get("since_stderr", 0)))
        for key, target, at in ways:
            if target is not None and not is_new and (former := self._target(key)) is not None:
                target = msgspec.structs.replace(target, max_bytes=former.max_bytes, keep=former.keep)
            self._plan(key, plan.forward, target, plan.compress, at)

    def _plan(self, key: str, forward: bool, target: Target | None, compress: bool, since: int) -> None:
        stream = self._streams.get(key)
        if stream is None:
            plain = forward and not target and not compress
            if plain and not self._is_nowhere(key) and self._committed(key, _FILE) is None:
                return  # as is everything of which nothing is known
            stream = self._load(key)
        stream.compress = compress
        log, file = stream.readers.get(_LOG), stream.readers.get(_FILE)
        if forward and stream.unlogged:
            self._add(stream, _LOG, since, self._to_log)
            stream.unlogged = False
        elif forward and log is not None:
            log.then.clear()
        elif not forward and log is not None:
            log.then.append((since, None))
        elif not forward and not stream.unlogged:
            stream.unlogged = True
            self._write_commit(key, _LOG, None)
        if file is None and target is not None:
            self._write_target(key, since, target)
            self._add(stream, _FILE, since, self._file_sink(stream, target))
        elif file is not None and isinstance(file.sink, FileSink):
            planned = file.then[-1][1] if file.then else file.sink.target
            if planned != target:
                # What cannot be written where it was to go goes where it can.
                file.then.append((min(since, file.offset) if file.trouble else since, target))
        for reader in list(stream.readers.values()):
            self._switch(reader)

    def resize(self, name: str, log: LogConfig) -> None:
        """New sizes for the files of a running process."""
        for key in (name, f"{name}/stderr"):
            stream = self._streams.get(key)
            reader = stream.readers.get(_FILE) if stream is not None else None
            if reader is None and self._committed(key, _FILE) is not None:
                reader = self._load(key).readers.get(_FILE)
            if reader is not None and isinstance(reader.sink, FileSink):
                reader.sink.target = resized(reader.sink.target, log)
                reader.then = deque((since, target and resized(target, log)) for since, target in reader.then)
                self._write_target(key, reader.offset, reader.sink.target)

    def _load(self, key: str) -> _Stream:
        """A stream as an earlier supervisor left it."""
        stream = self._streams[key] = _Stream(key)
        stream.unlogged = self._is_nowhere(key)
        if (offset := self._committed(key, _LOG)) is not None:
            self._add(stream, _LOG, offset, self._to_log, is_new=False)
        if (offset := self._committed(key, _FILE)) is not None and (target := self._target(key)) is not None:
            self._add(stream, _FILE, offset, self._file_sink(stream, target), is_new=False)
        return stream

    def _add(self, stream: _Stream, way: str, offset: int, sink: _ToLog | FileSink, is_new: bool = True) -> None:
        stream.readers[way] = _Reader(stream, way, offset, sink)
        if is_new and way == _LOG:
            self._write_commit(stream.key, way, offset)

    def _file_sink(self, stream: _Stream, target: Target) -> FileSink:
        return FileSink(target, self._files, self._logs, lambda: self._is_in_line(stream))

    def _is_in_line(self, stream: _Stream) -> bool:
        """Whether what is next for the file continues a line."""
        at = stream.readers[_FILE].offset - 1
        if at < 0 or at + 1 in self._cuts(stream.key, at):
            return False
        before = _Reader(stream, _FILE, at, self._to_log)
        try:
            return self._open(before, at) == at and os.pread(before.file, 1, at - before.base) != b"\n"
        finally:
            self._close(before)

    def _switch(self, reader: _Reader) -> None:
        """Go elsewhere, where that is due."""
        stream = reader.stream
        while reader.then and reader.then[0][0] <= reader.offset:
            target = reader.then.popleft()[1]
            if target is not None:
                self._write_target(stream.key, reader.offset, target)
                reader.sink = self._file_sink(stream, target)
                continue
            del stream.readers[reader.way]
            self._close(reader)
            if reader.way == _LOG:
                stream.unlogged = True
                self._write_commit(stream.key, _LOG, None)
            else:
                self._untrouble(reader)
                with contextlib.suppress(OSError):
                    os.unlink(self._place(stream.key, _FILE))
            return

    # what is told

    def output(self, key: str, start: int, end: int, last: bool) -> None:
        """There is output up to `end`; `last` says that an instance ended there.

        `start` is where to begin when nothing is known here.
        """
        stream = self._streams.get(key)
        is_new = stream is None
        if stream is None:
            stream = self._load(key)
        if _LOG not in stream.readers and not stream.unlogged:
            self._add(stream, _LOG, start, self._to_log)
        for reader in stream.readers.values():
            if is_new and self._is_anew(key, reader.offset, end):
                reader.offset = start
                self._write_commit(key, reader.way, start, reader.sink)
        if is_new or last:
            stream.cuts = self._cuts(key, min((one.offset for one in stream.readers.values()), default=end))
        # What is told may be older than what was found in the files: only ever forward.
        stream.end, stream.leaving = max(stream.end, end), False
        if not stream.readers:
            self._answer(stream)
        for reader in stream.readers.values():
            self._enqueue(reader)

    def _is_anew(self, key: str, committed: int, end: int) -> bool:
        """Whether the log was removed since it was forwarded up to `committed`."""
        try:
            return committed > end and committed > self._end(key)
        except OSError:
            return False

    def forget(self, name: str) -> None:
        """The process is gone; its log stays, what we know of it goes, once its last words are forwarded."""
        streams = [stream for key in (name, f"{name}/stderr") if (stream := self._streams.get(key)) is not None]
        for stream in streams:
            stream.leaving = True
            self._leave_if_done(stream)
        if not streams:
            self._has_left(name)

    def forget_offsets(self, name: str) -> None:
        """The log of the process is gone too: should it come back, everything begins anew."""
        for key in (name, f"{name}/stderr"):
            for way in (_LOG, _FILE):
                with contextlib.suppress(OSError):
                    os.unlink(self._place(key, way))

    def _leave_if_done(self, stream: _Stream) -> None:
        if any(reader.queued or reader in self._waiting for reader in stream.readers.values()):
            return
        # How far it was forwarded stays on disk, as the log does: it may come back.
        del self._streams[stream.key]
        for reader in stream.readers.values():
            self._close(reader)
            self._untrouble(reader)
        if not self.holds(name := stream.key.partition("/")[0]):
            self._has_left(name)

    def _has_left(self, name: str) -> None:
        self._split.discard(name)
        self._left(name)

    def holds(self, name: str) -> bool:
        """Whether something is known of a process's output, such as what is still to be forwarded."""
        return name in self._streams or f"{name}/stderr" in self._streams

    def names(self) -> set[str]:
        """The processes of which something is known."""
        return {key.partition("/")[0] for key in self._streams}

    def forwarded(self) -> set[str]:
        """The processes of which it is on disk how far their output was forwarded."""
        return {key.partition("/")[0] for key in self._on_disk()}

    def when_idle(self, call: Callable[[], None]) -> None:
        """Call once everything known is forwarded, but for files that cannot be written or read, when tried again."""
        for reader in list(self._waiting):
            self._try_again(reader)
        if self._queue:
            self._idle.append(call)
        else:
            self._tell_losses()
            call()

    def reopen(self) -> None:
        """Close the files of processes, so that one which was moved away is created anew."""
        self._files.reopen()

    # forwarding

    def _enqueue(self, reader: _Reader) -> None:
        if not reader.queued:
            reader.queued = True
            self._queue.append(reader)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._turn)

    def _try_again(self, reader: _Reader) -> None:
        self._waiting.pop(reader, None)
        if reader.stream.readers.get(reader.way) is reader:
            self._enqueue(reader)
        else:
            self._schedule()

    def _turn(self) -> None:
        self._scheduled = False
        budget = _BYTES_PER_TURN
        while self._queue and budget > 0:
            reader = self._queue.popleft()
            reader.queued = False
            stream = reader.stream
            if stream.readers.get(reader.way) is not reader:
                continue
            before = reader.offset
            try:
                budget -= self._piece(reader) + 256
            except Unwritable as error:
                self._in_trouble(reader, str(error))
            except OSError as error:
                # For want of descriptors, or the disk's fault: nothing is lost by waiting.
                _log.error("cannot read the log of {name}: {why}; trying again", name=stream.key, why=error.strerror)
                self._waiting[reader] = None
                self._reactor.callLater(_AGAIN_S, self._try_again, reader)
                continue
            else:
                self._show_trouble(reader, reader.sink.trouble)
            self._commit(reader, moved=reader.offset > before)
            if reader.offset != before and reader.offset < stream.end:
                self._enqueue(reader)
            elif stream.leaving and self._streams.get(stream.key) is stream:
                self._leave_if_done(stream)
        if self._queue:
            self._schedule()
        else:
            waiting, self._idle = self._idle, []
            if waiting:
                self._tell_losses()
            for call in waiting:
                call()

    def _piece(self, reader: _Reader) -> int:
        """Hand on the next piece; the number of bytes read."""
        self._switch(reader)
        stream = reader.stream
        if stream.readers.get(reader.way) is not reader:
            return 0
        data, finished = self._read(reader), False
        at = bisect_right(stream.cuts, reader.offset)
        for bound in (*stream.cuts[at : at + 1], *(offset for offset, _ in reader.then)):
            if bound <= reader.offset + len(data):
                data, finished = data[: bound - reader.offset], True
        reader.offset += reader.sink.take(stream.key, reader.offset, data, finished)
        return len(data)

    def _in_trouble(self, reader: _Reader, why: str) -> None:
        """A file cannot be written: the output waits in the log, and nobody waits for it."""
        self._show_trouble(reader, why)
        if not self._troubled:
            self._reactor.callLater(_AGAIN_S, self._write_again)
        self._troubled[reader] = None

    def _show_trouble(self, reader: _Reader, why: str) -> None:
        if reader.trouble != why:
            reader.trouble = why
            self._tell_trouble(reader.stream.key, why)

    def _untrouble(self, reader: _Reader) -> None:
        self._show_trouble(reader, "")
        self._troubled.pop(reader, None)

    def _write_again(self) -> None:
        troubled, self._troubled = self._troubled, {}
        for reader in troubled:
            if reader.stream.readers.get(reader.way) is reader:
                self._enqueue(reader)

    # reading

    def _read(self, reader: _Reader, most: int = _BYTES_PER_TURN) -> bytes:
        """The next bytes from the reader's offset on, across files; none when there are none to be had."""
        data, end = b"", reader.stream.end
        while len(data) < most and reader.offset + len(data) < end:
            at = reader.offset + len(data)
            if (
                reader.file >= 0
                and at >= reader.base
                and (part := os.pread(reader.file, most - len(data), at - reader.base))
            ):
                data += part
                continue
            self._close(reader)  # this file ends here: the next one begins here
            begins = self._open(reader, at)
            if begins == at:
                continue
            if not data:
                # Somebody removed what was to come; what is left of it follows.
                gone = end if begins is None else begins
                self._lose(reader.stream, at, gone)
                reader.offset = gone
                continue
            break
        return data

    def _lose(self, stream: _Stream, at: int, to: int) -> None:
        """Bytes that are gone count once, whichever way they were to go."""
        count, stream.gone = to - max(at, stream.gone), max(to, stream.gone)
        if count > 0:
            if not self._losses:
                self._reactor.callLater(_LOSS_S, self._tell_losses)
            self._losses[stream.key] = self._losses.get(stream.key, 0) + count

    def _tell_losses(self) -> None:
        losses, self._losses = self._losses, {}
        for key, count in losses.items():
            self._tell_loss(key, count)

    def _open(self, reader: _Reader, at: int) -> int | None:
        """Open the file that holds offset `at`, or the next after it; the offset that can be read, or None.

        Files that were set aside are named by the offset they begin at.
        """
        directory = f"{self._logs}/{reader.stream.key}"
        for _ in range(3):
            before = self._older(directory)
            base, path = next(
                ((start, f"{directory}/{start:020d}.log") for start, size in before if at < start + size),
                (self._begin(directory, before), f"{directory}/current"),
            )
            try:
                reader.file = _open_log(path)
            except FileNotFoundError:
                continue
            # Rotated while we looked: then what we opened as current may be a later file.
            if self._older(directory) == before:
                reader.base = base
                self._note_open(reader)
                if os.fstat(reader.file).st_size > at - base:
                    return max(at, base)
                # One that was set aside and is damaged holds less than it should.
                return next((start + size for start, size in before if start == base), None)
            self._close(reader)
        return None

    def _cuts(self, key: str, offset: int) -> list[int]:
        """Where, beyond an offset, an instance ended without a newline: the keeper wrote that down."""
        try:
            with open(f"{self._logs}/{key}/cuts", "rb") as file:
                data = file.read()
        except OSError:
            return []
        whole = len(data) - len(data) % CUT.size
        return sorted(cut for (cut,) in CUT.iter_unpack(data[:whole]) if cut > offset)

    @staticmethod
    def _begin(directory: str, before: list[tuple[int, int]]) -> int:
        """The offset at which the current file begins: its index says, or else the file before it."""
        ended = before[-1][0] + before[-1][1] if before else 0
        try:
            with open(f"{directory}/current.index", "rb") as index:
                said = int.from_bytes(index.read(8), "big")
                return max(ended, said) if said <= MOST_BYTES else ended
        except (FileNotFoundError, NotADirectoryError):
            return ended

    @staticmethod
    def _older(directory: str) -> list[tuple[int, int]]:
        try:
            return older(directory)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _note_open(self, reader: _Reader) -> None:
        self._opened[reader] = None
        if len(self._opened) > self._most_open:
            self._close(next(iter(self._opened)))

    def _close(self, reader: _Reader) -> None:
        self._opened.pop(reader, None)
        if reader.file >= 0:
            os.close(reader.file)
            reader.file = -1

    # what is on disk of it

    def _place(self, key: str, way: str) -> str:
        name, _, stream = key.partition("/")
        return f"{self._commits}/{_PLACES[way, stream]}{name}"

    def _committed(self, key: str, way: str) -> int | None:
        try:
            with open(self._place(key, way), "rb") as file:
                return int(file.read(_DIGITS))
        except (OSError, ValueError):
            return None

    def _is_nowhere(self, key: str) -> bool:
        """Whether a stream is not to be in our log."""
        try:
            with open(self._place(key, _LOG), "rb") as file:
                return file.read(_DIGITS) == _NOWHERE
        except OSError:
            return False

    def _target(self, key: str) -> Target | None:
        try:
            with open(self._place(key, _FILE), "rb") as file:
                return msgspec.json.decode(file.read()[_DIGITS:], type=Target)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _write_target(self, key: str, offset: int, target: Target) -> None:
        with contextlib.suppress(OSError):
            write_whole(self._place(key, _FILE), b"%020d\n" % offset + msgspec.json.encode(target), 0o600)

    def _commit(self, reader: _Reader, moved: bool) -> None:
        """On disk first: should we die now, the next supervisor goes on here. Then the keeper may tell of more."""
        if moved:
            self._write_commit(reader.stream.key, reader.way, reader.offset, reader.sink)
            if reader.way == _LOG:
                reach("forward.committed")
            else:
                reach("file.committed")
        self._answer(reader.stream)

    def _answer(self, stream: _Stream) -> None:
        self._done(stream.key, self._reached(stream))
        if stream.compress:
            upto = min((reader.offset for reader in stream.readers.values()), default=stream.end)
            if upto >= stream.end or upto - stream.compressed > _COMPRESS_BYTES:
                stream.compressed = upto
                self._compressor.add_log(f"{self._logs}/{stream.key}", upto)

    @staticmethod
    def _reached(stream: _Stream) -> int:
        """What may be thrown away: a file that cannot be written holds nobody up."""
        offsets: Iterator[int] = (reader.offset for reader in stream.readers.values() if not reader.trouble)
        return min(offsets, default=stream.end)

    def _write_commit(self, key: str, way: str, offset: int | None, sink: _ToLog | FileSink | None = None) -> None:
        """`offset` None: this way is not gone."""
        create = os.O_CREAT if way == _LOG else 0  # what it says of a file is more than an offset
        try:
            descriptor = os.open(self._place(key, way), os.O_WRONLY | create, 0o600)
        except FileNotFoundError:
            if isinstance(sink, FileSink) and offset is not None:
                self._write_target(key, offset, sink.target)
            return
        except OSError:
            return
        with contextlib.suppress(OSError):
            os.pwrite(descriptor, _NOWHERE if offset is None else b"%020d" % offset, 0)
        os.close(descriptor)


def _open_log(path: str) -> int:
    """Open a log file that was perhaps compressed, by its name before that. Raises OSError."""
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        if not path.endswith(".log"):
            raise
    with gzip.open(f"{path}.gz") as packed, tempfile.TemporaryFile() as file:
        with contextlib.suppress(EOFError, zlib.error, gzip.BadGzipFile):  # damaged: the rest of it is gone
            shutil.copyfileobj(packed, file)
        return os.dup(file.fileno())
