"""When output was printed, by the index beside each log file."""

from __future__ import annotations

import functools
import os
import time
from bisect import bisect_left
from collections.abc import Iterator

from ..keeper.kept import ENTRY, older

# Read of an index at a time.
_CHUNK = 1024 * ENTRY.size


class Times:
    """When the bytes between two offsets of a log were printed: (offset, wall ns) means before this, by then."""

    def __init__(self, directory: str, begin: int, end: int) -> None:
        self.entries = list(_entries(directory, begin, end)) or [(end, time.time_ns())]
        self._offsets = [offset for offset, _ in self.entries]

    def of(self, end: int) -> int:
        """When what ends at this offset was printed, in nanoseconds. What is not indexed yet came with the last."""
        at = bisect_left(self._offsets, end)
        return self.entries[min(at, len(self.entries) - 1)][1]


@functools.lru_cache(maxsize=16)
def in_words(ns: int) -> str:
    """ISO 8601 in UTC, to the millisecond: 2026-11-22T18:17:24.000Z."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest // 1_000_000:03d}Z"


def _entries(directory: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The entries that tell of these bytes, and one of before, in order."""
    try:
        names = [f"{start:020d}" for start, size in older(directory) if start < end and start + size > begin]
    except OSError:
        names = []
    last = -1
    for name in (*names, "current"):
        for offset, ns in _read(f"{directory}/{name}.index", begin, end):
            if offset > last:  # a file that was set aside while we looked is not told twice
                last = offset
                yield offset, ns


def _read(path: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    try:
        index = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        low, high = 0, os.fstat(index).st_size // ENTRY.size
        while low < high:  # for the first entry beyond `begin`
            middle = (low + high) // 2
            if ENTRY.unpack(os.pread(index, ENTRY.size, middle * ENTRY.size))[0] > begin:
                high = middle
            else:
                low = middle + 1
        at = max(low - 1, 0) * ENTRY.size
        while data := os.pread(index, _CHUNK, at):
            at += len(data)
            for offset, ns in ENTRY.iter_unpack(data[: len(data) - len(data) % ENTRY.size]):
                yield offset, ns
                if offset >= end:
                    return
    except OSError:
        return
    finally:
        os.close(index)
