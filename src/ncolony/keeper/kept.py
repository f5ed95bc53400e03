"""The files of one log as they lie in its directory: the keeper writes them, the supervisor reads and compresses them.

`current` is what is written now; what was set aside is named by the offset at which it begins, counted from the first
byte ever: `START.log`, or `START.log.gz` once it is compressed. Each has an index of times beside it.
"""

from __future__ import annotations

import os
import struct

# One record of an index: everything before this offset was written by this time (wall clock, in nanoseconds).
ENTRY = struct.Struct("!QQ")
# Offsets count a log's bytes from its first ever, and seek(2) takes no more.
MOST_BYTES = (1 << 63) - 1
ENDINGS = ("log", "log.gz", "index")


def older(directory: str) -> list[tuple[int, int]]:
    """(start, size) of every file that was set aside, oldest first. Raises OSError when the directory is not there."""
    starts = set()
    for name in os.listdir(directory):
        start, _, ending = name.partition(".")
        if ending in ENDINGS[:2] and start.isdecimal() and int(start) <= MOST_BYTES:
            starts.add(int(start))
    sizes = [(start, size_of(f"{directory}/{start:020d}")) for start in sorted(starts)]
    return [(start, size) for start, size in sizes if size is not None]


def size_of(path: str) -> int | None:
    """How much output is in the file of that path, to be given without its ending; None when it is gone."""
    try:
        return os.stat(f"{path}.log").st_size
    except OSError:
        pass  # compressed, perhaps just now
    try:
        with open(f"{path}.log.gz", "rb") as file:
            file.seek(-4, os.SEEK_END)  # RFC 1952: the size of the input
            return int.from_bytes(file.read(4), "little")
    except OSError:
        return None
