"""Log files -> lines with their times, from any offset on, through rotations, and for ever if need be."""

from __future__ import annotations

import collections
import heapq
import os
from bisect import bisect_right

from ncolony.system.lines import LONGEST_LINE, pieces
from ncolony.system.logfiles import CHUNK, TRIES, Packed, Plain

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import NamedTuple

    from ncolony.system.logfiles import File, Log
    from ncolony.system.timeindex import Times

    class Line(NamedTuple):
        """One line of output.

        `time_ns` is the wall clock's, `data` is without the newline, `end` is the offset behind the line. `partial`
        says that the line is longer than 64 KiB and goes on with the next of the stream.
        """

        time_ns: int
        name: str
        stream: str
        data: bytes
        end: int
        partial: bool

else:
    Line = collections.namedtuple("Line", "time_ns name stream data end partial")

_FOR_EVER = 1 << 63
# Readers that need not be closed between two looks.
_OPEN_AT_MOST = 64
# How often to look for more: what people do not notice, more rarely while nothing comes, and still more rarely where
# there are so many logs that looking takes long.
FIRST_DELAY_S, _LONGEST_DELAY_S = 0.05, 0.25
_MANY = 256


class Reader:
    """Reads a log line by line from an offset on, through rotations, and can be asked for more for ever.

    `offset` is where the last line that was given ended.
    """

    def __init__(self, log: Log, offset: int, chunk: int = CHUNK) -> None:
        self.log, self.offset, self._chunk = log, offset, chunk
        self._rest = b""  # read, but the line is not finished
        self._at = offset  # the next byte to read
        self._file: File | None = None
        self._opened: Plain | Packed | None = None
        self._times: Times | None = None
        self._done = False  # it is read to its end, and will not grow
        self._least = 0  # files that begin before this were read to their end
        self._seen: tuple[tuple[int, int], int] | None = None  # the current file when it was closed, and its size
        self._left = 0, 0  # up to where we had read when we left a file amid a line, and when that was written
        self._stamp, self._until = 0, -1  # the time of what ends at or before the offset `_until`

    def read(self) -> list[Line]:
        """The next lines: those that end in the next piece of the files. None, when nothing more is there at present.

        A line that is not finished yet is not given, see `finish`. A log that was removed and begun anew is read from
        its new beginning.

        :raises OSError: when a file cannot be read; nothing is lost by asking again.
        """
        lines: list[Line] = []
        while True:
            try:
                begins, data = self._next()
            except OSError:
                self._close_files()
                raise
            if begins != self._at:
                self._give(lines, self._rest, finished=True)
                self._rest, self.offset = b"", begins
            self._at = begins + len(data)
            if data or self._rest:
                self._take(lines, self._rest + data if self._rest else data)
            if lines or not data:
                return lines

    def _take(self, lines: list[Line], buffer: bytes) -> None:
        """Append the lines in the buffer, which reaches from our offset to what was read last; the rest is kept."""
        cuts = self.log.cuts()
        for cut in cuts[bisect_right(cuts, self.offset) : bisect_right(cuts, self._at)]:
            length = cut - self.offset
            self._give(lines, buffer[:length], finished=True)
            buffer = buffer[length:]
        self._rest = buffer[self._give(lines, buffer, finished=False) :]

    def finish(self) -> list[Line]:
        """What is there of a line that is not finished, as if it were."""
        lines: list[Line] = []
        self._give(lines, self._rest, finished=True)
        self._rest = b""
        return lines

    def close(self) -> None:
        """Close the files; a later `read` opens them again. Cheap to ask for more as long as nothing was printed."""
        if self._opened is not None and self._file is not None:
            current = self._file.path == self.log.current
            self._seen = (self._file.inode, self._at - self._file.start) if current else None
        self._leave()

    def _leave(self) -> None:
        if self._rest and self._file is not None:
            self._left = self._at, self._when(self._at)[0]
        self._close_files()

    def _close_files(self) -> None:
        for opened in (self._opened, self._times):
            if opened is not None:
                opened.close()
        self._file = self._opened = self._times = None
        self._until, self._done = -1, False

    def _give(self, lines: list[Line], data: bytes, finished: bool) -> int:
        """Append the lines that data at our offset consists of, the last too if it is `finished`; how many bytes."""
        parts = data.split(b"\n")
        rest, offset, end = parts.pop(), self.offset, self.offset
        name, stream, make, add = self.log.name, self.log.stream, Line._make, lines.append
        stamp, until = self._stamp, self._until
        for part in parts:
            whole, end = part, end + len(part) + 1
            if len(part) > LONGEST_LINE:
                whole = self._long(lines, part, end - len(part) - 1)
            if end > until:
                stamp, until = self._when(end)
            add(make((stamp, name, stream, whole, end, False)))
        if len(rest) > LONGEST_LINE or (rest and finished):
            last = self._long(lines, rest, end)
            end += len(rest) - len(last)
            if finished:
                end += len(last)
                add(make((self._when(end)[0], name, stream, last, end, False)))
        # What was not in the index a moment ago may be there the next time.
        self._stamp, self._until = stamp, until if until != _FOR_EVER else -1
        self.offset = end
        return end - offset

    def _long(self, lines: list[Line], part: bytes, offset: int) -> bytes:
        """Append the pieces of a long line that begins at `offset`, but for the last, which is returned."""
        *before, last = pieces(part)
        for piece in before:
            offset += len(piece)
            lines.append(Line(self._when(offset)[0], self.log.name, self.log.stream, piece, offset, True))
        return last

    def _when(self, end: int) -> tuple[int, int]:
        """When what ends at the offset `end` was written, and up to which offset the same is true."""
        if self._file is None or end == self._left[0]:
            return self._left[1], end
        if self._times is None:
            self._times = self.log.times(self._file, self._file_end)
        if self._times is not None and (found := self._times.lookup(end)) is not None:
            return found
        # Not in the index (yet): at most 10 ms after its last entry, unless the file itself knows better.
        stamp = self._times.last()[1] if self._times is not None else 0
        if isinstance(self._opened, Plain):
            stamp = max(stamp, self._opened.look().st_mtime_ns)
        elif not stamp:
            stamp = self._file.mtime_ns
        return stamp, _FOR_EVER

    def _file_end(self) -> int:
        assert self._file is not None
        if isinstance(self._opened, Plain):
            return self._file.start + self._opened.look().st_size
        return self._file.end

    def _next(self) -> tuple[int, bytes]:
        """The next bytes and their offset, which is larger than expected where some are gone; none for the moment."""
        if self._seen is not None and self._is_as_seen():
            return self._at, b""
        self._seen = None
        at = self._at
        while True:
            if self._opened is None or self._done:
                begins = self._open(at)
                if begins is None:
                    return self._at, b""
                at = begins
            assert self._file is not None and self._opened is not None
            if data := self._opened.read(at - self._file.start, self._chunk):
                return at, data
            is_current = self._file.path == self.log.current
            if is_current and self._is_current():
                return at, b""
            # Rotated, perhaps just now: what was written before that is the last of it.
            if data := self._opened.read(at - self._file.start, self._chunk):
                return at, data
            self._done = True
            if not is_current:
                self._least = self._file.start + 1

    def _is_current(self) -> bool:
        assert self._file is not None
        try:
            found = os.stat(self.log.current)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return (found.st_dev, found.st_ino) == self._file.inode

    def _is_as_seen(self) -> bool:
        """Whether the current file is what it was when we closed it."""
        try:
            found = os.stat(self.log.current)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return ((found.st_dev, found.st_ino), found.st_size) == self._seen

    def _open(self, at: int) -> int | None:
        """Open the file with the byte at an offset, or the next after it; the offset of what can be read, or None."""
        for _ in range(TRIES):
            files = self.log.files()
            left = [file for file in files if file.start >= self._least or file.path == self.log.current]
            if not left:
                return None
            chosen = next((file for file in left if at < file.end), left[-1])
            if at > chosen.end:
                chosen, at, self._least = files[0], files[0].start, 0  # the log was begun anew
            elif at == chosen.end and chosen.path != self.log.current:
                return None  # all is read, and there is no newer file yet
            try:
                opened = Packed(chosen.path) if chosen.packed else Plain(chosen.path)
            except FileNotFoundError:
                continue
            if opened.inode != chosen.inode:  # rotated while we looked
                opened.close()
                continue
            self._leave()
            self._opened, self._file = opened, chosen
            return max(at, chosen.start)
        return None


def most_open() -> int:
    """How many readers may stay open: each has two files."""
    import resource  # not needed by what reads a few

    return min(_OPEN_AT_MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)


def longest_delay(readers: int) -> float:
    """Seconds between two looks for more when nothing comes."""
    return _LONGEST_DELAY_S * max(1.0, readers / _MANY)


def merged(sources: Iterable[Iterator[Line]]) -> Iterator[Line]:
    """The lines of several sources by their times. Those of each keep their order, and pieces stay together."""
    heap = []
    for number, source in enumerate(sources):
        if (line := next(source, None)) is not None:
            heap.append((line.time_ns, number, line, source))
    heapq.heapify(heap)
    while heap:
        _, number, line, source = heap[0]
        yield line
        while line.partial and (following := next(source, None)) is not None:
            line = following
            yield line
        if (following := next(source, None)) is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (following.time_ns, number, following, source))
