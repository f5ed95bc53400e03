"""What ncolony-jobs reads and writes: config files, statuses, its own notes, and messages that are sent once."""

from __future__ import annotations

import contextlib
import os
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec
from twisted.logger import Logger

from .. import ctllib
from ..ctllib.reports import reported
from ..model import config
from ..model.names import is_ignored, printable, problem_with_name
from ..system.files import Directory, remove_if_there, sweep, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..ctllib import Places, Status

_log = Logger(namespace="ncolony.jobs")


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

    def _take(self, name: str, data: bytes | None, entry: object) -> bool:
        """Note what a file says; whether that concerns a job."""
        if entry is None:
            self._said.pop(name, None)
            return self.good.pop(name, None) is not None
        if problem_with_name(name) is not None or data is None or b'"schedule"' not in data:
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
    """A file for each job in the directory `jobs` of the state directory: what was decided last, to go on from there."""

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
