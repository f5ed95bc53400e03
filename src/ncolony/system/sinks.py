"""Files of their own that processes' output goes to: each byte once, whenever we are killed, and nothing of others'.

Who writes such a file may be root, and the directory a service's, so a file is opened only as what it has to be: a
regular one with one name, no link. Before a piece is written, a note says what file it goes to and how long that is and
will be; whoever comes after a SIGKILL can tell by the file how far it got.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
from collections.abc import Callable

import msgspec

from ..keeper.kernel import reach
from ..model.config import LogConfig
from . import trust
from .compress import Compressor
from .own_log import lines_of, whole_part
from .times import Times, in_words

_MAX_BYTES, _KEEP = 10 << 20, 3
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPEN_AT_MOST = 32
# These mean another file to every process; what they mean to us is not what the user thinks of.
_NOT_FILES = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/self/")


_encoder = msgspec.json.Encoder()


class _Line(msgspec.Struct, omit_defaults=True):
    """A line in JSON. `partial`: it goes on in the next one."""

    time: str
    name: str
    stream: str | None
    line: str
    partial: bool = False


class Unwritable(Exception):
    """The file cannot be written now; the text names it and says why."""


class Target(msgspec.Struct, frozen=True):
    """A file that a stream goes to, with everything that is needed to write it. `stream` is None for both in one."""

    name: str
    stream: str | None
    path: str
    format: str
    timestamps: bool
    max_bytes: int
    keep: int
    compress: bool
    uid: int | None
    gid: int | None

    @property
    def in_lines(self) -> bool:
        """Whether something is added to each line."""
        return self.timestamps or self.format == "json"


class Plan(msgspec.Struct, frozen=True):
    """What is done with the output of an instance. It goes with it, through the keeper, to later supervisors."""

    forward: bool = True
    split: bool = False
    compress: bool = False
    stdout: Target | None = None
    stderr: Target | None = None


def plan(name: str, log: LogConfig, cwd: str, uid: int | None, gid: int | None) -> Plan:
    """What the `log` key of a process asks for, of one that runs in `cwd` as this user and group."""

    def target(path: str | bool | None, stream: str) -> Target | None:
        if not isinstance(path, str):
            return None
        return Target(
            name=name, stream=stream if log.is_split else None, path=os.path.normpath(os.path.join(cwd, path)),
            format=log.format, timestamps=log.timestamps, max_bytes=log.most_bytes or _MAX_BYTES,
            keep=_KEEP if log.keep is None else log.keep, compress=log.compress, uid=uid, gid=gid,
        )  # fmt: skip

    stderr = target(log.stderr, "stderr") if log.is_split else None
    return Plan(log.forward, log.is_split, log.compress, target(log.stdout, "stdout"), stderr)


def resized(target: Target, log: LogConfig) -> Target:
    """The target with the sizes of a newer definition."""
    keep = _KEEP if log.keep is None else log.keep
    return msgspec.structs.replace(target, max_bytes=log.most_bytes or _MAX_BYTES, keep=keep)


class Note(msgspec.Struct, frozen=True):
    """What is about to be written: bytes `start` to `end` of a stream make the file `before` become `after` long."""

    key: str
    start: int
    end: int
    path: str
    device: int
    inode: int
    before: int
    after: int
    shared: bool


class _File:
    """A file that is open for appending."""

    __slots__ = ("descriptor", "device", "inode", "path", "shared", "size")

    def __init__(self, target: Target) -> None:
        """Open or create it. Raises OSError or Unwritable."""
        self.path = target.path
        if self.path.startswith(_NOT_FILES):
            raise Unwritable("it is not a file of its own; for our own log there is `forward`")
        place, base = os.path.split(self.path)
        # The directory may be its process's, whose user is not to lead us anywhere else.
        directory = trust.open_directory(place)
        try:
            self.descriptor, is_new = os.open(base, _FLAGS | os.O_CREAT | os.O_EXCL, 0o640, dir_fd=directory), True
        except FileExistsError:
            self.descriptor, is_new = os.open(base, _FLAGS, dir_fd=directory), False
        finally:
            os.close(directory)
        try:
            found = os.fstat(self.descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise Unwritable("it is not a regular file")
            if found.st_nlink != 1:
                raise Unwritable("it has several names")
            if is_new and (target.uid, target.gid) != (None, None):
                user, group = (-1 if number is None else number for number in (target.uid, target.gid))
                os.fchown(self.descriptor, user, group)
        except (OSError, Unwritable):
            self.close()
            raise
        self.device, self.inode, self.size = found.st_dev, found.st_ino, found.st_size
        self.shared = False  # somebody else writes it too

    def close(self) -> None:
        os.close(self.descriptor)

    def is_full(self, limit: int) -> bool:
        """Whether it is time to begin another, at the end of a line, or beyond twice the limit anywhere."""
        if not self.size or self.size < limit:
            return False
        return self.size >= 2 * limit or os.pread(self.descriptor, 1, self.size - 1) == b"\n"

    def write(self, data: bytes) -> None:
        """Append all or nothing. Raises OSError."""
        written = 0
        try:
            with memoryview(data) as view:
                while written < len(data):
                    written += os.write(self.descriptor, view[written:])
        except OSError:
            with contextlib.suppress(OSError):
                if os.fstat(self.descriptor).st_size == self.size + written:
                    os.ftruncate(self.descriptor, self.size)
            raise
        self.size += written


class Files:
    """All of them, by their paths, so that processes that share one do not disturb each other."""

    def __init__(self, note: str, compressor: Compressor) -> None:
        self._path, self._note = note, -1
        self._compressor = compressor
        self._open: dict[str, _File] = {}
        self._most_open = max(1, min(_OPEN_AT_MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8))
        self.troubles: dict[str, str] = {}  # path -> why it is not rotated

    def append(self, target: Target, key: str, start: int, end: int, data: bytes) -> None:
        """Write what bytes `start` to `end` of a stream have become.

        :raises Unwritable: with the reason; nothing has been written then.
        """
        try:
            file = self._present(target)
            self._about_to_write(Note(
                key, start, end, file.path, file.device, file.inode, file.size, file.size + len(data), file.shared
            ))  # fmt: skip
            reach("file.noted")
            file.write(data)
            reach("file.written")
        except Unwritable as error:
            raise Unwritable(f"cannot write {target.path}: {error}") from None
        except OSError as error:
            self._close(target.path)
            raise Unwritable(f"cannot write {target.path}: {_why(error)}") from None

    def room(self, target: Target) -> int:
        """How many bytes fit until another file is due, which is begun now if it is.

        What keeps that from being done is in `troubles`; the file grows on then.

        :raises Unwritable: when the file cannot be opened.
        """
        try:
            file = self._present(target)
        except Unwritable as error:
            raise Unwritable(f"cannot write {target.path}: {error}") from None
        except OSError as error:
            raise Unwritable(f"cannot write {target.path}: {_why(error)}") from None
        if not file.is_full(target.max_bytes):
            return max(target.max_bytes - file.size, 0)
        if not self._compressor.is_at(target.path):
            try:
                self._turn_over(file, target)
                self.troubles.pop(target.path, None)
            except OSError as error:
                self.troubles[target.path] = f"cannot rotate {target.path}: {_why(error)}"
        return target.max_bytes

    def _present(self, target: Target) -> _File:
        """The file, open, with its present size."""
        file = self._open.pop(target.path, None)
        if file is not None:
            found = os.fstat(file.descriptor)
            if found.st_nlink == 0:
                file.close()
                file = None
            elif found.st_size != file.size:
                file.shared |= found.st_size > file.size  # shorter, it was emptied by who rotates so
                file.size = found.st_size
        if file is None:
            file = _File(target)
        self._open[target.path] = file
        if len(self._open) > self._most_open:
            self._close(next(iter(self._open)))
        return file

    def _close(self, path: str) -> None:
        if (file := self._open.pop(path, None)) is not None:
            file.close()

    def reopen(self) -> None:
        """Close every file, so that one which was moved away is created anew with the next output."""
        for path in list(self._open):
            self._close(path)

    def _turn_over(self, file: _File, target: Target) -> None:
        """path -> path.1 -> path.2 …: as far as there is a gap, so that whoever was killed halfway loses nothing."""
        place, base = os.path.split(target.path)
        directory = trust.open_directory(place)
        try:
            found = os.stat(base, dir_fd=directory, follow_symlinks=False)
            if (found.st_dev, found.st_ino) == (file.device, file.inode):
                _shift(directory, base, target.keep)
                reach("file.shifted")
                if target.keep:
                    os.rename(base, f"{base}.1", src_dir_fd=directory, dst_dir_fd=directory)
                else:
                    os.unlink(base, dir_fd=directory)
        finally:
            os.close(directory)
        self._close(target.path)
        if target.compress and target.keep:
            self._compressor.add_rotated(target.path, target.keep)

    # what a SIGKILL leaves

    def _about_to_write(self, note: Note) -> None:
        """Note a piece. On a full disk it is not noted, and may be written twice."""
        with contextlib.suppress(OSError):
            if self._note < 0:
                self._note = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            # One write over the former: shorter notes are padded, so that nothing of it is left.
            os.pwrite(self._note, msgspec.json.encode(note).ljust(8192) + b"\n", 0)

    def finish(self, committed: Callable[[str], int | None]) -> Note | None:
        """What an earlier supervisor was writing when it was killed, if it is complete and not committed yet.

        What there is of a piece that is not complete is cut off, so that it can be written again. `committed` tells
        what offset is on disk for a stream.
        """
        try:
            with open(self._path, "rb") as noted:
                note = msgspec.json.decode(noted.read(), type=Note)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        if committed(note.key) != note.start:
            return None
        for path in _candidates(note):
            with contextlib.suppress(OSError):
                file = os.open(path, _FLAGS)
                try:
                    found = os.fstat(file)
                    if (found.st_dev, found.st_ino) != (note.device, note.inode) or not stat.S_ISREG(found.st_mode):
                        continue
                    if found.st_size >= note.after:
                        return note
                    if found.st_size > note.before and not note.shared:
                        os.ftruncate(file, note.before)
                    return None
                finally:
                    os.close(file)
        return None


class FileSink:
    """Takes the bytes of a stream to the file that is its own."""

    def __init__(self, target: Target, files: Files, logs: str, in_line: Callable[[], bool]) -> None:
        """`in_line` tells whether the next byte continues a line that was not finished; it is asked once at most."""
        self.target, self._files, self._logs = target, files, logs
        self._in_line: bool | None = None if target.timestamps else False
        self._ask = in_line

    @property
    def trouble(self) -> str:
        """What is wrong although output can be written."""
        return self._files.troubles.get(self.target.path, "")

    def take(self, key: str, offset: int, data: bytes, finished: bool) -> int:
        """Write of these bytes what can be written by now; how many they were.

        `finished`: nothing is added to the last line any more.

        :raises Unwritable: when nothing can be written now.
        """
        if self._in_line is None:
            self._in_line = self._ask()
        if not data:
            return 0
        room = self._files.room(self.target)
        while True:
            shown, taken, in_line = self._shown(key, offset, data, finished)
            if len(shown) <= room or (cut := _first_part(data, room * len(data) // len(shown))) == len(data):
                break
            data, finished = data[:cut], False
        if taken:
            self._files.append(self.target, key, offset, offset + taken, shown)
            self._in_line = in_line
        return taken

    def _shown(self, key: str, offset: int, data: bytes, finished: bool) -> tuple[bytes, int, bool]:
        """What of the data is written now, how much of the data that is, and whether it ends within a line."""
        if not self.target.in_lines:
            return data, len(data), False
        times = Times(f"{self._logs}/{key}", offset, offset + len(data))
        if self.target.format == "json":
            return self._as_json(offset, data, finished, times)
        return self._with_times(offset, data, finished, times)

    def _as_json(self, offset: int, data: bytes, finished: bool, times: Times) -> tuple[bytes, int, bool]:
        lines, taken = lines_of(data, finished)
        said, at, entries = [], offset, iter(times.entries)
        until, ns = next(entries)
        shown = in_words(ns)
        for line, whole in lines:
            at = min(at + len(line) + 1, offset + taken)
            while until < at and (following := next(entries, None)) is not None:
                until, ns = following
                shown = in_words(ns)
            record = _Line(shown, self.target.name, self.target.stream, line.decode("utf-8", "backslashreplace"))
            said.append(_encoder.encode(record if whole else msgspec.structs.replace(record, partial=True)))
        return b"".join([part for record in said for part in (record, b"\n")]), taken, False

    def _with_times(self, offset: int, data: bytes, finished: bool, times: Times) -> tuple[bytes, int, bool]:
        taken, unfinished = whole_part(data, finished)
        if not taken:
            return b"", 0, bool(self._in_line)
        body = data[:taken]
        if not (unfinished or body.endswith(b"\n")):
            body += b"\n"
        parts, at = [], 0
        # Lines that were printed at the same time are done at once: that is what makes it fast.
        for until, ns in (*times.entries, (offset + len(body), times.entries[-1][1])):
            end = body.rfind(b"\n", at, max(until - offset, at)) + 1
            if until >= offset + len(body):
                end = len(body)
            if end > at:
                stamp = in_words(ns).encode() + b" "
                part = body[at:end]
                inner = part[:-1].replace(b"\n", b"\n" + stamp) + part[-1:]
                parts.append(inner if at == 0 and self._in_line else stamp + inner)
                at = end
        return b"".join(parts), taken, unfinished


def _first_part(data: bytes, room: int) -> int:
    """Where to cut so that whole lines fit into the room, or else behind the first line."""
    cut = data.rfind(b"\n", 0, room) + 1 or data.find(b"\n") + 1
    return cut or len(data)


def _shift(directory: int, base: str, keep: int) -> None:
    """Make base.1 free, as far as anything is kept."""

    def names(number: int) -> list[str]:
        found = (f"{base}.{number}", f"{base}.{number}.gz")
        return [name for name in found if _is_there(directory, name)]

    gap = next((number for number in range(1, keep + 1) if not names(number)), keep)
    beyond = max(gap, 1)
    while superfluous := names(beyond):  # none, if there was a gap
        for name in superfluous:
            os.unlink(name, dir_fd=directory)
        beyond += 1
    for number in range(gap - 1, 0, -1):
        for name in names(number):
            target = f"{base}.{number + 1}{name.removeprefix(f'{base}.{number}')}"
            os.rename(name, target, src_dir_fd=directory, dst_dir_fd=directory)


def _is_there(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _candidates(note: Note) -> list[str]:
    """Where the file may be by now: rotated, it has another name in the same directory."""
    try:
        with os.scandir(os.path.dirname(note.path)) as listing:
            return [found.path for found in listing if found.inode() == note.inode]
    except OSError:
        return []


def _why(error: OSError) -> str:
    return "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror or str(error)
