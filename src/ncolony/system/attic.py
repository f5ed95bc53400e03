"""Logs of processes that were removed: kept for people to look at, the newest of them, within a share of the budget."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable

# What is in the log directory of a process: see keeper/kept.py. Whatever else is in it, it is somebody else's.
_OURS = re.compile(r"current|current\.index|cuts|cuts\.new|[0-9]{20}\.(log|index|log\.gz|log\.gz\.new)")
# The part of the budget of all logs that they may take together.
SHARE = 4
# And how many there may be, as of histories: a log of one line is small, but takes three blocks of a disk.
MOST = 1000


class Attic:
    """Knows what there is of them, and removes those that were removed longest ago."""

    def __init__(
        self,
        logs: str,
        budget: int,
        is_wanted: Callable[[str], bool],
        removed: Callable[[str], None],
        most: int = MOST,
    ) -> None:
        """`is_wanted(name)`: a log that is not to be touched; `removed(name)` is called when one is removed."""
        self._logs, self._most_bytes, self._most = logs, budget // SHARE, most
        self._is_wanted, self._removed = is_wanted, removed
        self._sizes: dict[str, int] = {}  # the one removed longest ago first
        self._total = 0

    def look(self) -> None:
        """Find what is there of processes that are not."""
        found: list[tuple[float, str, int]] = []
        with contextlib.suppress(OSError), os.scandir(self._logs) as listing:
            found = [
                (measured[1], entry.name, measured[0])
                for entry in listing
                if not self._is_wanted(entry.name) and (measured := _measure(entry.path)) is not None
            ]
        for _, name, size in sorted(found):
            self._note(name, size)
        self._trim()

    def add(self, name: str) -> None:
        """A process was removed, and all of its output was forwarded."""
        if not self._is_wanted(name) and (measured := _measure(f"{self._logs}/{name}")) is not None:
            self._note(name, measured[0])
            self._trim()

    def _note(self, name: str, size: int) -> None:
        self._total += size - self._sizes.pop(name, 0)
        self._sizes[name] = size

    def _trim(self) -> None:
        for name in list(self._sizes):
            if self._total <= self._most_bytes and len(self._sizes) <= self._most:
                return
            self._total -= self._sizes.pop(name)
            # It may have come back meanwhile, or something may have been put there that is not ours.
            if not self._is_wanted(name) and _measure(f"{self._logs}/{name}") is not None:
                shutil.rmtree(f"{self._logs}/{name}", ignore_errors=True)
                self._removed(name)


def _measure(directory: str) -> tuple[int, float] | None:
    """(bytes, when it was written last) of a log directory; None for what is none, or is not ours alone."""
    size, last, is_one = 0, 0.0, False
    places = [directory]
    try:
        if os.path.islink(directory) or not os.path.isdir(directory):
            return None
        for place in places:
            with os.scandir(place) as listing:
                for entry in listing:
                    if entry.name == "stderr" and place is directory and entry.is_dir(follow_symlinks=False):
                        places.append(entry.path)
                        continue
                    if not (_OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)):
                        return None
                    found = entry.stat(follow_symlinks=False)
                    size, last, is_one = size + found.st_size, max(last, found.st_mtime), True
    except OSError:
        return None
    return (size, last) if is_one else None
