"""What people and other programs read about processes: status files, PID files, and our own description."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from ..model.status import Status, decode
from .files import remove_if_there, write_whole

# A process that starts passes through two states within milliseconds, or half a second when a thousand start: one file
# for both, since on some filesystems a file costs as much as a process (ext4: 0.2 ms for each rename onto another).
_SOON_S = 0.01
_TRANSIENT_S = 0.5
_FILES_PER_TURN = 64
# While more processes than these change, files wait: what changes has the processor, and most will change again. No
# file waits longer than a transient one.
_STORM = 64
# While everything stops, a process passes through two states too, and it takes as long as it takes.
_SLOWLY_S = 1.0


class Records:
    """Writes status files soon after something changed, and PID files at once."""

    def __init__(
        self,
        reactor: Any,
        state: str,
        pids: str | None,
        describe: Callable[[str], Status | None],
        problem: Callable[[str, str], object],
    ) -> None:
        self._reactor, self._describe, self._problem = reactor, describe, problem
        self._unwritten_pids: dict[str, tuple[int | None, str]] = {}
        self._statuses, self._pids = f"{state}/status", pids
        self._dirty: dict[str, None] = {}
        self._transient: dict[str, None] = {}
        self._unwritten: set[str] = set()
        self._scheduled = self._scheduled_transient = False
        self._soon = _SOON_S
        self._storms, self._since = False, 0.0  # something has changed since the last look; when nothing was due

    def slow_down(self) -> None:
        """Everything is about to change: write less often. `flush` at the end writes the rest."""
        self._soon = _SLOWLY_S

    def changed(self, name: str, transient: bool = False) -> None:
        """The process is not what its status file says; `transient` when it will soon change again."""
        self._storms = True
        if not transient:
            self._transient.pop(name, None)
            if not self._dirty:
                self._since = self._reactor.seconds()
            self._dirty[name] = None
            self._later(self._soon)
            return
        self._dirty.pop(name, None)
        self._transient[name] = None
        if not self._scheduled_transient:
            self._scheduled_transient = True
            self._reactor.callLater(_TRANSIENT_S, self._flush_transient)

    def _flush_transient(self) -> None:
        """What was to change soon did not."""
        self._scheduled_transient = False
        for name in list(self._transient):
            self.changed(name)

    def _later(self, delay: float) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(delay, self._flush_some)

    def _flush_some(self) -> None:
        self._scheduled = False
        storms, self._storms = self._storms and len(self._dirty) > _STORM, False
        if storms and self._reactor.seconds() - self._since < _TRANSIENT_S:
            self._later(self._soon)
            return
        for name in list(itertools.islice(self._dirty, _FILES_PER_TURN)):
            self.write(name)
        if self._dirty:
            self._later(0)

    def write(self, name: str) -> None:
        """Write the status file now, or remove it when the process is gone. A full disk harms nothing else."""
        self._dirty.pop(name, None)
        self._transient.pop(name, None)
        status = self._describe(name)
        try:
            if status is None:
                remove_if_there(f"{self._statuses}/{name}")
            else:
                write_whole(f"{self._statuses}/{name}", msgspec.json.encode(status))
        except OSError as error:
            self._unwritten.add(name)
            self._problem("status", f"cannot write {self._statuses}: {error.strerror}")
            return
        self._unwritten.discard(name)
        if not self._unwritten:
            self._problem("status", "")

    def leave(self, name: str) -> None:
        """Its file is not to be written: soon something will be different, and `see_to` is called."""
        self._dirty.pop(name, None)
        self._transient.pop(name, None)

    def see_to(self, name: str) -> None:
        """Its file was left alone and is due now, if nothing has been different since."""
        if name not in self._dirty and name not in self._transient:
            self.changed(name)

    def settle(self, names: Iterable[str]) -> None:
        """Write those of these that are due."""
        for name in names:
            if name in self._dirty or name in self._transient:
                self.write(name)

    def retry(self) -> None:
        """Try again what could not be written."""
        for name in list(self._unwritten):
            self.changed(name)
        for name, (pid, _) in list(self._unwritten_pids.items()):
            if not self.pid(name, pid):
                self.changed(name)

    def flush(self) -> None:
        """Write everything that is due."""
        for name in [*self._dirty, *self._transient]:
            self.write(name)

    def earlier(self) -> dict[str, Status]:
        """What an earlier supervisor wrote. Records that cannot be read are removed."""
        found = {}
        for name in os.listdir(self._statuses):
            path = f"{self._statuses}/{name}"
            with contextlib.suppress(OSError), open(path, "rb") as file:
                if (status := decode(file.read())) is not None and not name.startswith("."):
                    found[name] = status
                else:
                    os.unlink(path)
        return found

    def pid(self, name: str, pid: int | None) -> str:
        """Write or remove the PID file; why it could not be done, or "". It is never read again by us."""
        if self._pids is None:
            return ""
        path = f"{self._pids}/{name}"
        try:
            if pid is None:
                remove_if_there(path)
            else:
                write_whole(path, b"%d\n" % pid)
        except OSError as error:
            why = f"cannot write PID file {path}: {error.strerror}"
            self._unwritten_pids[name] = pid, why
            return why
        self._unwritten_pids.pop(name, None)
        return ""

    def trouble(self, name: str) -> tuple[str, ...]:
        """What is wrong with the PID file of a process."""
        return (self._unwritten_pids[name][1],) if name in self._unwritten_pids else ()
