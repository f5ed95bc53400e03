"""What changes in the config directory: noticed at once, worked off a few files at a time."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

from ..decide.reconcile import in_order
from ..keeper.kernel import reach
from ..model.names import is_ignored
from ..system.files import Directory

if TYPE_CHECKING:
    from ..system.files import Entry
    from ..system.wake import Names
    from .loop import Supervisor

# From the last removal of a config file until it is applied.
_DEPARTURE_S = 0.03
# So many files, at 0.1 to 0.3 ms each, are read and applied in one turn, however many there are: messages and deaths
# have their turns between.
_AT_ONCE = 32


class Changes:
    """Reads the files of a supervisor's config directory as they change, and has it apply them."""

    def __init__(self, colony: Supervisor) -> None:
        settings = colony.settings
        self._colony, self._path = colony, settings.config
        self._directory = Directory(settings.config, is_ignored, settings.strict and os.geteuid() == 0)
        self._unread: dict[str, None] = {}
        self._going_on: Any = None
        self._departing: set[str] = set()  # files that are gone, which is not applied yet
        self._departure: Any = None

    def notice(self, names: Names, hinted: bool = False) -> None:
        """Take note that these files have changed, or find out which; `hinted`: see Directory.scan."""
        try:
            self._unread |= dict.fromkeys(self._directory.differing(hinted) if names is None else names)
        except OSError as error:
            self._colony.cannot_read(self._path, error)
            return
        if names is None and self._colony.problem(self._path, ""):
            self._departing |= set(self._colony.definitions) - self._directory.seen.keys() - self._unread.keys()

    def begin(self) -> None:
        """Read all there is. What it means for processes is applied later, once it is known what runs."""
        self.notice(None)
        self._read_all()

    def work(self) -> None:
        """Work off some of it, and go on in another turn."""
        self._going_on = None
        if self._colony.quitting:
            return
        self._read(list(itertools.islice(self._unread, _AT_ONCE)))
        if not self._unread:
            self._untangle()
        if self._colony.adopted:
            self._colony.apply(list(itertools.islice(self._colony.pending, _AT_ONCE)))
            self._colony.drain_promptly()
        self.go_on()

    def go_on(self) -> None:
        """Have the rest worked off, if now is the time."""
        left = self._unread or (self._colony.pending and self._colony.adopted)
        if left and self._going_on is None and not self._colony.hands.is_busy:
            self._going_on = self._colony.reactor.callLater(0, self._colony.guarded, self.work)

    def catch_up(self, names: Names, fully: bool = False) -> list[str]:
        """Apply what was written before a message before the message; the processes concerned.

        `names` are of the files that the message is about, None for all. `fully`: look at every file, also where the
        kernel tells which of them have changed.
        """
        told = None if fully else self._colony.watcher.take(self._path)
        self.notice(None if told is None else told.union(self._directory.differing_links()))
        if names is None:
            self._read_all()
            self._depart()
            self._colony.begin_now()
            return self._colony.apply()
        self._read([name for name in names if name in self._unread])
        if self._departing & names:
            self._depart()
        self._untangle()
        concerned = [one for name in names for one in (name, *self._colony.definitions.processes(name))]
        self._colony.begin_now(concerned)
        applied = self._colony.apply(concerned)
        self.go_on()
        return applied

    def _read_all(self) -> None:
        self._read(list(self._unread))
        self._untangle()

    def _read(self, names: list[str]) -> None:
        for name in names:
            self._unread.pop(name, None)
        changed = self._directory.look(names)
        for name in in_order(changed):
            self._colony.attempt(self._read_one, name, changed[name])
        if self._departing and (self._departure is None or not self._departure.active()):
            self._depart_later()

    def _read_one(self, name: str, entry: Entry | None) -> None:
        """Take note of a file: a new definition, a problem beside the last good one, or its absence."""
        colony = self._colony
        if entry is None:
            if name in colony.definitions:
                self._departing.add(name)
            return
        self._departing.discard(name)
        concerned = colony.definitions.read(name, entry, colony.reactor.seconds())
        if name not in colony.known or colony.known[name].problem is not None:
            concerned |= colony.strange(name)  # now the file can tell how many there are
        colony.note_all(concerned)

    def _untangle(self) -> None:
        self._colony.note_all(self._colony.definitions.untangle(self._colony.reactor.seconds()))

    def _depart_later(self) -> None:
        self._departure = self._colony.reactor.callLater(
            _DEPARTURE_S, self._colony.guarded, self._await_departure, len(self._departing)
        )

    def _await_departure(self, seen: int) -> None:
        """`rm -r` removes the files before the directory: while more of them go (there were `seen`), wait."""
        if len(self._departing) > seen:
            self._depart_later()
            return
        self._depart()
        self.work()

    def _depart(self) -> None:
        """Take note of the removal of files, unless it was their directory that was removed."""
        departing, self._departing = self._departing, set()
        if not os.path.isdir(self._path):
            return
        reach("removed.noticed")
        for name in departing:
            path = f"{self._path}/{name}"
            if os.path.lexists(path) and not os.path.isdir(path):
                self._unread[name] = None  # it is back, perhaps in a new directory that nobody has told of yet
                continue
            self._colony.note_all(self._colony.definitions.remove(name) | self._colony.strange(name))
        self._untangle()
