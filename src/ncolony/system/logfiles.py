"""The files that the output of processes is kept in: which there are, what each holds, and where in them to begin.

The layout: `logs/NAME/` holds `current`, and `START.log` or `START.log.gz` for what was set aside, each with a time
index; `cuts` tells where an instance ended in mid-line; `stderr/` holds the same for standard error, where that goes a
way of its own. Offsets count all bytes ever printed on a stream, and START is the offset that a file begins at.
Nothing is changed here, and nobody is asked.
"""

from __future__ import annotations

import collections
import itertools
import os
from bisect import bisect_right

from ncolony.model.names import problem_with_name
from ncolony.system.timeindex import Times

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STDOUT, STDERR = "stdout", "stderr"
# What is read at a time.
CHUNK = 1 << 18
# Files are looked for anew when they are renamed while we look, but not for ever.
TRIES = 20
_BLOCK = 1 << 16
_PACKED = 1 << 14  # compressed bytes at a time; zlib makes at most a thousand times as many of them
_CUT = 8
_WRAP = 1 << 32
_GZIP = 31  # zlib's word for "with gzip's header"


class File:
    """One file of a log, as it was when it was looked at. `size` is that of what was printed, also if compressed."""

    __slots__ = ("inode", "mtime_ns", "packed", "path", "size", "start")

    def __init__(self, path: str, found: os.stat_result, start: int, size: int, packed: bool = False) -> None:
        self.path, self.start, self.size, self.packed = path, start, size, packed
        self.inode, self.mtime_ns = (found.st_dev, found.st_ino), found.st_mtime_ns

    @property
    def end(self) -> int:
        return self.start + self.size

    def fit_before(self, later: File) -> None:
        """Put the size right by where the next file begins: a compressed one knows its own modulo 4 GiB, if at all."""
        room = later.start - self.start
        if self.packed and room > 0:
            self.size = min(self.size + max(0, room - self.size) // _WRAP * _WRAP, room)


class Log:
    """The files of one stream of one process. It need not be there (yet)."""

    def __init__(self, directory: str, name: str, stream: str = STDOUT) -> None:
        self.directory, self.name, self.stream = directory, name, stream
        self.current = f"{directory}/current"
        self._cuts: tuple[object, list[int]] = (None, [])

    def files(self) -> list[File]:
        """Its files, the oldest first, `current` last; none where there is no log.

        :raises OSError: when they may not be read.
        """
        found: list[File] = []
        names = self._set_aside()
        for _ in range(TRIES):
            try:
                found = [self._file(name) for name in names]
                now = self._current(found[-1] if found else None)
            except FileNotFoundError:  # compressed, thrown away or rotated meanwhile
                names = self._set_aside()
                continue
            found += [now] if now else []
            for file, later in itertools.pairwise(found):
                file.fit_before(later)
            again = self._set_aside()
            if again == names:
                break
            names = again
        return found

    def _set_aside(self) -> list[str]:
        """The names of the rotated files in order. While one is being compressed it is there twice, and counts once."""
        try:
            names = os.listdir(self.directory)
        except (FileNotFoundError, NotADirectoryError):
            return []
        plain = [name for name in names if name.endswith(".log") and name[:-4].isdigit()]
        packed = [name for name in names if name.endswith(".log.gz") and name[:-7].isdigit()]
        return sorted({*plain, *(name for name in packed if name[:-3] not in plain)})

    def _file(self, name: str) -> File:
        path = f"{self.directory}/{name}"
        found = os.stat(path)
        if not name.endswith(".gz"):
            return File(path, found, int(name[:-4]), found.st_size)
        with open(path, "rb") as file:
            file.seek(max(0, found.st_size - 4))
            return File(path, found, int(name[:-7]), int.from_bytes(file.read(4), "little"), packed=True)

    def _current(self, before: File | None) -> File | None:
        """The current file. Where it begins its index says, unless that was left over from the file before.

        :raises FileNotFoundError: when it was rotated while we looked.
        """
        try:
            found = os.stat(self.current)
        except (FileNotFoundError, NotADirectoryError):
            return None
        begin = before.end if before else 0
        try:
            with open(f"{self.current}.index", "rb") as index:
                first = index.read(8)
        except (FileNotFoundError, NotADirectoryError):
            first = b""
        if len(first) == 8 and (before is None or int.from_bytes(first, "big") > before.start):
            begin = int.from_bytes(first, "big")
        elif not found.st_size:
            return None  # just created, before its index
        if os.stat(self.current).st_ino != found.st_ino:
            raise FileNotFoundError(self.current)
        return File(self.current, found, begin, found.st_size)

    def begin(self) -> int:
        """The offset of the oldest byte that is kept."""
        files = self.files()
        return files[0].start if files else 0

    def end(self) -> int:
        """The offset behind the newest byte."""
        files = self.files()
        return files[-1].end if files else 0

    def times(self, file: File, end: Callable[[], int]) -> Times | None:
        """The time index for a file; None where there is none.

        After a crash in the middle of a rotation it is still the next one's.
        """
        own = f"{self.directory}/{file.start:020d}.index"
        for path in (own, f"{self.current}.index", *self._indexes_after(own)):
            try:
                times = Times(path, end)
            except (OSError, ValueError):
                continue
            if times.first[0] <= file.start:
                return times
            times.close()
        return None

    def _indexes_after(self, path: str) -> Iterator[str]:
        later = [name for name in self._set_aside() if name[:20] > os.path.basename(path)[:20]]
        if later:
            yield f"{self.directory}/{later[0][:20]}.index"

    def cuts(self) -> list[int]:
        """The offsets, in order, at which an instance ended in mid-line: an unfinished line ends there too."""
        try:
            found = os.stat(f"{self.directory}/cuts")
            signature = (found.st_ino, found.st_size, found.st_mtime_ns)
            if signature != self._cuts[0]:
                with open(f"{self.directory}/cuts", "rb") as file:
                    data = file.read()
                whole = len(data) - len(data) % _CUT
                cuts = {int.from_bytes(data[place : place + _CUT], "big") for place in range(0, whole, _CUT)}
                self._cuts = signature, sorted(cuts)
        except (FileNotFoundError, NotADirectoryError):
            self._cuts = None, []
        return self._cuts[1]

    # Where to begin

    def last_lines(self, count: int, end: int | None = None) -> int:
        """The offset at which the last `count` lines before the offset `end` begin; by default the last of all.

        Only what is needed of the end is read, except of compressed files.
        """
        files = self.files()
        if not files or count <= 0:
            return (files[-1].end if files else 0) if end is None else end
        end = files[-1].end if end is None else min(end, files[-1].end)
        cuts, left, edge = self.cuts(), count, files[0].start
        for file, before in zip(reversed(files), [*reversed(files[:-1]), None], strict=True):
            for starts in self._starts(file, end, left, cuts):
                if left <= len(starts):
                    return starts[-left]
                left -= len(starts)
            # Where bytes are missing between two files, a line begins.
            if file.start < end and (before is None or before.end != file.start):
                edge, left = file.start, left - 1
                if not left:
                    break
        return edge

    def _starts(self, file: File, end: int, most: int, cuts: list[int]) -> Iterator[list[int]]:
        """Where lines begin in a file, in (start, end), a block after the other from its end; each in order.

        Of a block in which more than `most` begin, only the last may be there.
        """
        opened = self._open(file)
        if opened is None:
            return
        try:
            if isinstance(opened, Packed):
                yield _starts_packed(opened, file.start, end, most, cuts)
                return
            place = min(file.size, end - file.start)
            while place > 0:
                begin = max(0, place - _BLOCK)
                yield _line_starts(opened.read(begin, place - begin), file.start + begin, end, cuts)
                place = begin
        finally:
            opened.close()

    def _open(self, file: File) -> Plain | Packed | None:
        """A file that was looked at, whatever its name is by now; None when it was thrown away."""
        rotated = f"{self.directory}/{file.start:020d}.log"
        for path in (file.path, rotated, f"{rotated}.gz"):
            try:
                opened = Packed(path) if path.endswith(".gz") else Plain(path)
            except FileNotFoundError:
                continue
            if path != self.current or opened.inode == file.inode:
                return opened
            opened.close()
        return None

    def since(self, time_ns: int) -> int:
        """An offset, the beginning of a line, before which nothing was written at `time_ns` or later."""
        files = self.files()
        begin = files[-1].end if files else 0
        for file in reversed(files):
            times = self.times(file, lambda file=file: self._end_of(file))  # type: ignore[misc]
            if times is None:
                if file.mtime_ns < time_ns:
                    break
                begin = file.start
                continue
            before = times.written_before(time_ns)
            times.close()
            if before is not None:
                begin = self._line_at(min(max(before[0], file.start), file.end))
                break
            begin = file.start
        return begin

    def until(self, time_ns: int) -> int:
        """An offset behind which nothing was written at `time_ns` or before, as far as the index can tell."""
        files = self.files()
        for file in reversed(files):
            times = self.times(file, lambda file=file: self._end_of(file))  # type: ignore[misc]
            if times is None:
                if file.mtime_ns <= time_ns:
                    return file.end
                continue
            before, last = times.written_before(time_ns, at_most=True), times.last()
            times.close()
            if before is not None:
                return file.end if before == last else min(max(before[0], file.start), file.end)
        return files[0].start if files else 0

    def _end_of(self, file: File) -> int:
        """Where a file ends now: what its index says is younger than what we know."""
        if file.packed:
            return file.end
        try:
            return file.start + os.stat(file.path).st_size
        except FileNotFoundError:
            return file.end

    def _line_at(self, offset: int) -> int:
        """Where the line begins that the byte at `offset` belongs to."""
        return self.last_lines(1, offset + 1)


def _line_starts(data: bytes, offset: int, end: int, cuts: list[int]) -> list[int]:
    """The offsets behind the newlines in the data that stands at `offset`, and the cuts in it; those before `end`."""
    lengths = [len(part) + 1 for part in data.split(b"\n")]
    starts = list(itertools.accumulate(lengths[:-1], initial=offset))[1:]
    inside = cuts[bisect_right(cuts, offset) : bisect_right(cuts, offset + len(data))]
    if inside:
        starts = sorted({*starts, *inside})
    while starts and starts[-1] >= end:
        starts.pop()
    return starts


def _starts_packed(opened: Packed, start: int, end: int, most: int, cuts: list[int]) -> list[int]:
    starts: collections.deque[int] = collections.deque(maxlen=most)
    place = 0
    while start + place < end and (data := opened.read(place, CHUNK)):
        starts.extend(_line_starts(data, start + place, end, cuts))
        place += len(data)
    return list(starts)


class Plain:
    """A file that is read as it is."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        found = os.fstat(self._file)
        self.inode = (found.st_dev, found.st_ino)

    def read(self, place: int, count: int) -> bytes:
        """The bytes at a place; none where the file ends."""
        return os.pread(self._file, count, place)

    def look(self) -> os.stat_result:
        """How the file is now, whatever its name is."""
        return os.fstat(self._file)

    def close(self) -> None:
        os.close(self._file)


class Packed:
    """A compressed file, read from its beginning on. What cannot be unpacked is its end."""

    def __init__(self, path: str) -> None:
        import zlib  # needed for compressed files alone

        self._zlib = zlib
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by close)
        found = os.fstat(self._file.fileno())
        self.inode = (found.st_dev, found.st_ino)
        self._unpacker = zlib.decompressobj(_GZIP)
        self._raw = self._ready = b""
        self._place = 0

    def read(self, place: int, count: int) -> bytes:
        """The bytes at a place, which is not before one that was read; none where the file ends."""
        while place >= self._place + len(self._ready):
            self._place += len(self._ready)
            self._ready = self._unpack()
            if not self._ready:
                return b""
        begin = place - self._place
        return self._ready[begin : begin + count]

    def _unpack(self) -> bytes:
        try:
            while raw := self._raw or self._file.read(_PACKED):
                data = self._unpacker.decompress(raw)
                self._raw = self._unpacker.unused_data
                if self._unpacker.eof:
                    self._unpacker = self._zlib.decompressobj(_GZIP)
                if data:
                    return data
        except self._zlib.error:
            self._file.seek(0, os.SEEK_END)
            self._raw = b""
        return b""

    def close(self) -> None:
        self._file.close()


def find(directory: str, wanted: Callable[[str], bool] = lambda name: True) -> list[Log]:
    """The logs in a directory of logs, of the processes whose names are wanted, by name, standard error second.

    :raises OSError: when the directory may not be read.
    """
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for name in sorted(names):
        if problem_with_name(name) is None and wanted(name):
            found += of_process(directory, name)
    return found


def of_process(directory: str, name: str) -> list[Log]:
    """The logs of one process in a directory of logs: none, one, or two where standard error goes a way of its own."""
    own = f"{directory}/{name}"
    both = (Log(own, name, STDOUT), Log(f"{own}/{STDERR}", name, STDERR))
    return [log for log in both if os.path.isdir(log.directory)]
