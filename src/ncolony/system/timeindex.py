"""The time index of a log file: by when everything before an offset had been written."""

from __future__ import annotations

import os
import struct
import sys
import time
from array import array
from bisect import bisect_left, bisect_right

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_record = struct.Struct("!QQ")
_RECORD = _record.size
# Records that are held at a time: 64 KiB, which is 40 s of a log that never rests.
_BLOCK = 1 << 12
# Before 2001 nobody printed; a record that says more than a day from now is none.
_EARLIEST_NS = 10**18
_DAY_NS = 86_400 * 10**9


class Times:
    """The records of one index, in order. Left out is what is torn, or stands in the wrong place behind it.

    `end` tells where the log file ends now: no offset can be beyond it.
    """

    def __init__(self, path: str, end: Callable[[], int]) -> None:
        """Open the index.

        :raises OSError: when it cannot be read.
        :raises ValueError: when there is no record in it.
        """
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._end = end
        self._size = self.count = 0
        self._repaired: array[int] | None = None  # every good record, where the file as it is cannot be trusted
        self._offsets: array[int] = array("Q")
        self._stamps: array[int] = array("Q")
        self._at = self._next = 0  # the cursor of `lookup`: in the block, and of the record behind the block
        try:
            if not self._refresh():
                raise ValueError("an empty index")
            self.first = self._get(0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def lookup(self, end: int) -> tuple[int, int] | None:
        """By when everything before the offset `end` had been written, and up to which offset the same holds.

        None where no record says so yet. Asked with ever larger offsets.
        """
        while True:
            self._at = bisect_left(self._offsets, end, self._at)
            if self._at < len(self._offsets):
                return self._stamps[self._at], self._offsets[self._at]
            if not self._load(end):
                return None

    def last(self) -> tuple[int, int]:
        """The newest record: (offset, wall nanoseconds)."""
        self._refresh()
        return self._get(self.count - 1)

    def written_before(self, time_ns: int, *, at_most: bool = False) -> tuple[int, int] | None:
        """The newest record from before a time (or, `at_most`, not after it); None when all are later."""
        self._refresh()
        find = bisect_right if at_most else bisect_left
        number = find(range(self.count), time_ns, key=lambda number: self._get(number)[1])
        return self._get(number - 1) if number else None

    def _load(self, end: int) -> bool:
        """Hold the block of records that begins with the one for `end`; False when there is none."""
        self._refresh()
        number = bisect_left(range(self.count), end, lo=self._next, key=lambda number: self._get(number)[0])
        if number >= self.count:
            return False
        count = min(_BLOCK, self.count - number)
        block = self._block(number, count)
        self._offsets, self._stamps = block[0::2], block[1::2]
        self._at, self._next = 0, number + count
        return True

    def _get(self, number: int) -> tuple[int, int]:
        if self._repaired is not None:
            return self._repaired[2 * number], self._repaired[2 * number + 1]
        offset, stamp = _record.unpack(os.pread(self._file, _RECORD, number * _RECORD))
        return offset, stamp

    def _block(self, number: int, count: int) -> array[int]:
        if self._repaired is not None:
            return self._repaired[2 * number : 2 * (number + count)]
        block = array("Q", os.pread(self._file, count * _RECORD, number * _RECORD))
        if sys.byteorder == "little":
            block.byteswap()
        return block

    def _refresh(self) -> bool:
        """Count the records there are now; whether there are any. A torn one at the end does not count yet."""
        size = os.fstat(self._file).st_size
        if size > self._size:
            self._size = size
            most = self._end()
            self.count = size // _RECORD
            if self._repaired is not None or (self.count and not self._is_sound(most)):
                self._repair(most)
        return self.count > 0

    def _is_sound(self, most: int) -> bool:
        first, last = self._get(0), self._get(self.count - 1)
        return first[0] <= last[0] and _is_good(*first, most) and _is_good(*last, most)

    def _repair(self, most: int) -> None:
        """Find the good records: after one that was written by halves, the others are not where they should be."""
        data = os.pread(self._file, self._size, 0)
        self._repaired = array("Q")
        place = before = 0
        while place + _RECORD <= len(data):
            offset, stamp = _record.unpack_from(data, place)
            if before <= offset and _is_good(offset, stamp, most):
                self._repaired.extend((offset, stamp))
                before = offset
                place += _RECORD
            else:
                place += 1
        self.count = len(self._repaired) // 2
        self._next = min(self._next, self.count)


def _is_good(offset: int, stamp: int, most: int) -> bool:
    return offset <= most and _EARLIEST_NS <= stamp <= time.time_ns() + _DAY_NS
