"""On which filesystem a directory lies, and whether inotify hears of all that happens there."""

from __future__ import annotations

import os
from collections.abc import Iterable

# Whoever changes a file there does so through our kernel. Not so where files are shared with other machines.
_LOCAL = {b"ext2", b"ext3", b"ext4", b"xfs", b"btrfs", b"f2fs", b"zfs", b"tmpfs", b"ramfs", b"overlay"}


def tells_of_changes(directory: str) -> bool:
    """Whether inotify tells of every change of a file in it; no, where that is not certain.

    It tells nothing of what other machines do, and of a file that is a mount of its own (as `docker run -v FILE:FILE`
    makes them), it tells who watches that file's own directory.
    """
    try:
        with open("/proc/self/mountinfo", "rb") as table:
            return _tells(table, os.fsencode(os.path.realpath(directory)))
    except (OSError, IndexError):
        return False


def _tells(table: Iterable[bytes], here: bytes) -> bool:
    """The same by the lines of such a table (proc(5)) and the real path.

    :raises IndexError: for lines of another kind.
    """
    best, kind = b"", b""
    for line in table:
        # ID, parent, major:minor, root, mount point, options …, "-", type, …
        before, _, after = line.partition(b" - ")
        point = _unescaped(before.split(b" ")[4])
        if point.startswith(here.rstrip(b"/") + b"/") and point != here:
            return False
        if _is_within(here, point) and len(point) >= len(best):
            best, kind = point, after.split(b" ", 1)[0]
    return kind in _LOCAL


def _is_within(path: bytes, point: bytes) -> bool:
    return path == point or path.startswith(point.rstrip(b"/") + b"/")


def _unescaped(point: bytes) -> bytes:
    """A path as it is: blanks and the like are written in octal."""
    if b"\\" not in point:
        return point
    return point.decode("unicode_escape").encode("latin-1")
