"""Looks at heartbeats: a file that the process touches again and again. One stat(2) a look."""

from __future__ import annotations

import math
import os
import stat
import time

from .outcome import GOOD, Outcome, lowered

# A file's time has the grain of the kernel's tick.
_GRAIN_S = 0.02


class Heartbeat:
    """The heartbeat file of one instance, as it was seen. All times are in seconds; `now` is the steady clock's.

    The file's own time is compared with the wall clock, which somebody may set: so a file that has changed since the
    last look was touched since then, whatever its time says.
    """

    def __init__(self, path: str, name: str, period: float, started: float) -> None:
        self._path, self._name, self._period = path, name, period
        self._started = started  # steady
        self._seen: int | None = None
        self._touched_at = self._looked_at = 0.0

    def look(self, now: float) -> tuple[Outcome | None, float]:
        """What there is to say, None if nothing yet, and in how many seconds to look again."""
        try:
            found = os.stat(self._path)
            if stat.S_ISDIR(found.st_mode):
                found = os.stat(f"{self._path}/{self._name}")
        except (FileNotFoundError, NotADirectoryError):
            return self._untouched(now)
        except OSError as error:
            return Outcome(f"cannot look at it: {lowered(error.strerror)}", unknown=True), self._period
        if found.st_mtime_ns != self._seen:
            age = time.time() - found.st_mtime
            since_last_look = math.inf if self._seen is None else now - self._looked_at + _GRAIN_S
            self._touched_at = now - (age if 0 <= age <= since_last_look else 0.0)
            self._seen = found.st_mtime_ns
        self._looked_at, age = now, now - self._touched_at
        if self._touched_at < self._started - _GRAIN_S:
            return self._untouched(now)  # by a former instance
        if age <= self._period:
            return GOOD, max(self._period - age, self._period / 4) + _GRAIN_S
        return Outcome(f"not touched for {age:.1f} s"), self._period

    def _untouched(self, now: float) -> tuple[Outcome | None, float]:
        """This instance has not touched it yet: it has as long as between any two times."""
        lived = now - self._started
        if lived <= self._period:
            return None, self._period - lived + _GRAIN_S
        return Outcome(f"not touched for {lived:.1f} s"), self._period
