"""What ncolony-jobs reads and writes: config files, statuses, its own notes, and messages that are sent once."""

from __future__ import annotations

import contextlib
import os
import time
from hashlib import blake2b
from typing import TYPE_CHECKING

from twisted.logger import Logger

from .. import ctllib
from ..ctllib.reports import reported
from ..model import config
from ..model.names import is_ignored, printable, problem_with_name
from ..system.files import Directory, remove_if_there, sweep, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..ctllib import Places, Status

_log = Logger(namespace="ncolony.jobs")
# The statuses of thousands of processes take a supervisor a moment to write.
_SETTLE_S, _LONGEST_SETTLE_S = 0.5, 10.0


class Definitions:
    """The config files that define jobs; of one that cannot be used, its last good content."""

    def __init__(self, directory: str) -> None:
        self._directory = Directory(directory, is_ignored)
        self._said: dict[str, str] = {}
        self.good: dict[str, config.ProcessConfig] = {}

    def scan(self, names: Iterable[str] | None = None) -> set[str]:
        """Read what changed, of all files or of these; the names of jobs that are new, changed, or gone.

        A directory that is not there says nothing: whoever removed it did not remove its jobs one by one.
        """
        try:
            changed = self._directory.scan() if names is None else self._directory.look(names)
        except OSError as error:
            self._say("", f"cannot read {self._directory.path}: {error.strerror}; waiting for it")
            return set()
        self._said.pop("", None)
        if any(entry is None for entry in changed.values()) and not os.path.isdir(self._directory.path):
            return set()
        return {name for name, entry in changed.items() if self._take(name, entry.data if entry else None, entry)}

    def is_gone(self, name: str) -> bool:
        """Whether the file of this name was removed, and not the directory."""
        return os.path.isdir(self._directory.path) and not os.path.lexists(f"{self._directory.path}/{name}")

    def _take(self, name: str, data: bytes | None, entry: object) -> bool:
        """Note what a file says; whether that concerns a job."""
        if entry is None:
            self._said.pop(name, None)
            return self.good.pop(name, None) is not None
        may_be = data is not None and (b"schedule" in data or b"\\u" in data)
        if problem_with_name(name) is not None or data is None or not may_be:
            # The supervisor says what is wrong with it. One that can be read and has no schedule is no job any more.
            return data is not None and self._is_no_job(name, data)
        found = config.define(name, data)
        if isinstance(found, config.Problem):
            if name in self.good:
                self._say(name, f"{printable(str(found))}; its last good schedule stays")
            return False
        self._said.pop(name, None)
        if found.config.schedule is None:
            return self.good.pop(name, None) is not None
        before, self.good[name] = self.good.get(name), found.config
        return before != found.config

    def _is_no_job(self, name: str, data: bytes) -> bool:
        if name not in self.good or isinstance(config.define(name, data), config.Problem):
            return False
        del self.good[name]
        return True

    def _say(self, name: str, trouble: str) -> None:
        if self._said.get(name) != trouble:
            self._said[name] = trouble
            _log.warn("{trouble}", trouble=trouble)


class Notes:
    """A file for each job, in the directory `jobs` of the state directory: what was decided last."""

    def __init__(self, directory: str) -> None:
        """Make the directory.

        :raises OSError: when that cannot be done.
        """
        self._directory = directory
        os.makedirs(directory, mode=0o755, exist_ok=True)
        sweep(directory)
        self._trouble = ""

    def names(self) -> list[str]:
        """The jobs that something is noted of."""
        return [name for name in os.listdir(self._directory) if not is_ignored(name)]

    def get(self, name: str) -> bytes | None:
        """What is noted of a job."""
        try:
            with open(f"{self._directory}/{name}", "rb") as file:
                return file.read()
        except OSError:
            return None

    def put(self, name: str, data: bytes) -> bool:
        """Write it down; False, and a word in the log, when that cannot be done."""
        try:
            write_whole(f"{self._directory}/{name}", data)
        except OSError as error:
            trouble = f"cannot write {self._directory}: {error.strerror}"
            if trouble != self._trouble:
                _log.error("{trouble}", trouble=trouble)
            self._trouble = trouble
            return False
        self._trouble = ""
        return True

    def forget(self, name: str) -> None:
        """The job was removed."""
        with contextlib.suppress(OSError):
            remove_if_there(f"{self._directory}/{name}")


class Office:
    """Asks the supervisor, by messages whose names say what they are about, and reads what came of it."""

    def __init__(self, places: Places, state: str) -> None:
        self.places, self._state = places, state
        self._messages = os.fspath(places.messages)
        self._seen: dict[str, int] = {}  # when each status was written that we have read
        self._believed = 0.0  # when the supervisor began whose word we take
        self._met = 0.0, 0.0  # when the present one did, and when we first saw it

    def is_supervised(self) -> bool:
        """Whether a supervisor runs that has found out what runs, so that statuses can be believed.

        One that has just taken over writes them anew, and this at last of what it has applied.
        """
        found = self._supervisor()
        if found is None or not found.started:
            return False
        if found.started != self._believed:
            done, now = ctllib.applied(self.places, state=self._state), time.monotonic()
            if self._met[0] != found.started:
                self._met = found.started, now
            has_settled = done is not None and found.started <= done.at <= time.time() - _SETTLE_S
            # Where the clock was set in between, patience must do.
            if not has_settled and now - self._met[1] < _LONGEST_SETTLE_S:
                return False
            self._believed = found.started
        return True

    def is_deserted(self) -> bool:
        """Whether there is no supervisor at all, not even one that has still to find out what runs."""
        return self._supervisor() is None

    def _supervisor(self) -> ctllib.Supervisor | None:
        try:
            return ctllib.supervisor(self.places, state=self._state)
        except ctllib.Error:
            return None

    def status(self, name: str) -> Status | None:
        """How a process is; None when the supervisor has not seen it yet."""
        directory = f"{self._state}/status"
        with contextlib.suppress(OSError):
            self._seen[name] = os.stat(f"{directory}/{name}").st_mtime_ns
        return reported(directory, name)

    def changed_statuses(self, names: Iterable[str]) -> set[str]:
        """Those of the processes whose status is another than the one that was read last."""
        changed = set()
        for name in names:
            try:
                written = os.stat(f"{self._state}/status/{name}").st_mtime_ns
            except OSError:
                written = 0
            if written != self._seen.get(name, 0):
                changed.add(name)
        return changed

    def how_ended(self, name: str, instance: int) -> int | None:
        """The exit code of an instance that is not the newest any more; None where it is not known, or had none."""
        return next((one.code for one in self._past(name) if one.instance == instance), None)

    def first_since(self, name: str, before: int, newest: int) -> int:
        """The first instance after `before` that there really was, up to the newest one.

        An order to start one may die with the keeper. Then the next instance takes its place, and none has its number.
        """
        return min([newest, *(one.instance for one in self._past(name) if one.instance > before)])

    def _past(self, name: str) -> list[ctllib.PastExit]:
        try:
            return ctllib.history_of(self.places, name, state=self._state)
        except ctllib.Error:
            return []

    def was_sent(self, message_id: str) -> bool:
        """Whether a message was sent: it waits, or was answered. It is removed only when its answer is there."""
        return os.path.lexists(f"{self._messages}/{message_id}") or self.answer(message_id) is not None

    def answer(self, message_id: str) -> ctllib.Answer | None:
        """What became of a message so far."""
        return ctllib.answer(self.places, message_id, state=self._state)

    def withdraw(self, message_id: str) -> bool:
        """Take back a message that no supervisor is there to take; False when one has taken it."""
        with contextlib.suppress(OSError):
            os.unlink(f"{self._messages}/{message_id}")
            return True
        return False

    def start(self, name: str, message_id: str) -> None:
        """Ask for a run, once.

        :raises ctllib.Error: when it cannot be asked for.
        """
        if not self.was_sent(message_id):
            ctllib.start(self.places, name, message_id=message_id)

    def stop(self, name: str, instance: int | None, why: str, message_id: str) -> None:
        """Ask for the end of a run, once.

        :raises ctllib.Error: when it cannot be asked for.
        """
        if not self.was_sent(message_id):
            ctllib.stop(self.places, name, instance=instance, why=why, message_id=message_id)

    def report(self, name: str, what: str, why: str = "") -> None:
        """Tell that a job is late, or is not any more.

        :raises ctllib.Error: when it cannot be told.
        """
        ctllib.report(self.places, name, what, None, why)


def message_name(at: float, name: str, what: str) -> str:
    """The name of a message about a run that is due `at`: the same whoever makes it, and sorted by that time."""
    mark = blake2b(name.encode(), digest_size=8).hexdigest()
    return f"{round(at * 1e9):019d}-job-{mark}-{what}"


def luck(name: str, last: float | None) -> float:
    """A number from 0 to 1 by chance, but the same each time for the same run of the same job."""
    digest = blake2b(f"{last!r} {name}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / (256**7 - 1)
