"""What happens, one line of JSON each, for whoever wants to know at once or afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgspec

# So that both files together stay within 2 MiB, some 10,000 events.
_MOST_BYTES = 1 << 20


class Events:
    """The file `events` of the state directory, and `events.old`, which it becomes when it is full."""

    def __init__(self, state: str, problem: Callable[[str, str], object]) -> None:
        self._path, self._problem = f"{state}/events", problem
        self._waiting: list[bytes] = []

    def add(self, event: dict[str, Any]) -> None:
        """Note an event; it is in the file once this turn of the loop is over."""
        self._waiting.append(msgspec.json.encode(event) + b"\n")

    def write(self) -> None:
        """Write what was noted. On a full disk it is gone: processes matter more."""
        if not self._waiting:
            return
        data, self._waiting = b"".join(self._waiting), []
        problem = ""
        try:
            if self._append(data) < len(data):
                problem = f"cannot write {self._path}: the disk is full"
        except OSError as error:
            problem = f"cannot write {self._path}: {error.strerror}"
        self._problem("events", problem)

    def _append(self, data: bytes) -> int:
        """Append to the file, which is not kept open: so nothing stands in the way of who moves or removes it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(self._path, flags, 0o644)
        try:
            size = os.lseek(file, 0, os.SEEK_END)
            if size and size + len(data) > _MOST_BYTES:
                os.rename(self._path, f"{self._path}.old")
                return self._append(data)
            if size and os.pread(file, 1, size - 1) != b"\n":
                os.write(file, b"\n")  # whoever wrote before us was killed
            return os.write(file, data)
        finally:
            os.close(file)
