"""Descriptors: who gets some, who waits until there are some again, and what is said of it. See decide/budget.py."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from ..decide import lifecycle
from ..decide.budget import NO_ROOM, Need, Seats, keeper_half, supervisor_half, tighter
from ..decide.lifecycle import State, Wanted
from ..decide.order import AT_REST
from ..model.config import ProcessConfig
from ..system import limits
from ..system.giving import socket_keys
from ..system.launch import Impossible
from . import companions
from .known import Known

if TYPE_CHECKING:
    from .loop import Supervisor

_log = Logger(namespace="ncolony")
# In these is one that found no room, unless somebody has stopped it since: it starts as soon as there is some.
_TURNED_AWAY = (State.STARTING, State.BACKOFF, State.EXITED, State.FATAL)
# Figures for people and programs are at most this old.
_SHOWN_AFTER_S = 1.0


class Descriptors:
    """Sees to it that a process is only started where its next instances find descriptors too."""

    def __init__(self, colony: Supervisor, problem: Callable[[str, str], bool], describe: Callable[[], None]) -> None:
        self._colony, self._problem, self._describe = colony, problem, describe
        self.seats = Seats()
        self._told: tuple[int, int] | None = None  # by the keeper: how many it was allowed, how many are for processes
        self._freed = self._reported = False
        self._shown: dict[str, int] = {}
        self._showing: Any = None

    def welcome(self, told: tuple[int, int] | None) -> None:
        """There is a keeper, perhaps one that was allowed less than we are; an older one does not tell."""
        self._told = told
        limits.raise_for(self._colony.hands.pid)
        self._look()
        for name in companions.NAMES:
            # Without them nobody looks after all the others: they come first.
            if (known := self._colony.known.get(name)) is not None and known.definition and known.process is None:
                self.seats.take(name, _need(known))

    def _look(self) -> None:
        """How many there are: somebody may have changed that from outside."""
        half, keeper = supervisor_half(limits.descriptors()), None
        if self._told is not None:
            # Lower than it has told it is for a moment only: while it starts a process, which gets its limit so.
            now = limits.descriptors_of(self._colony.hands.pid) or 0
            keeper = keeper_half(self._told, max(now, self._told[0]))
        if self.seats.half != (half := tighter(half, keeper)):
            self._freed |= half.most > self.seats.half.most
            self.seats.half = half

    def take(self, name: str, known: Known) -> None:
        """The process is about to be started.

        :raises Impossible: when there is no room for it.
        """
        need = _need(known)
        if not self.seats.fits(name, need):
            self._look()
        if why := self.seats.take(name, need):
            raise Impossible(why)

    def keep(self, name: str, known: Known) -> None:
        """An earlier supervisor has left it like this: running, or between two instances, it had what it needs."""
        process = known.process
        if process is not None and process.state not in AT_REST and not process.reason.startswith(NO_ROOM):
            self.seats.hold(name, _need(known))

    def concern(self, name: str, known: Known) -> None:
        """The state of the process has changed."""
        process = known.process
        at_rest = process is None or process.state in AT_REST
        if name in self.seats.waiting:
            if process is None or process.state not in _TURNED_AWAY or process.wanted is not Wanted.UP:
                self._freed |= self.seats.release(name)
        elif at_rest:
            self._freed |= self.seats.release(name)

    def review(self) -> None:
        """Start those for which there is room by now, and say so."""
        colony, seats = self._colony, self.seats
        if colony.quitting or not colony.hands.agreed:
            return
        if self._freed:
            self._freed = False
            # The queue is empty: nothing that was asked for meanwhile comes later than this.
            colony.events += [(name, lifecycle.Start()) for name in seats.next_in()]
            colony.drain_events()
        if not self._reported or self._showing is not None:
            return
        if bool(seats.waiting) != bool(self._shown.get("waiting")):
            self._show()
        elif self._shown != seats.figures():
            self._showing = colony.reactor.callLater(_SHOWN_AFTER_S, colony.guarded, self._show)

    def begin(self) -> None:
        """What was to be started was started: say how many fit."""
        self._reported = True
        say = _log.warn if self.seats.waiting else _log.info
        say("{report}", report=self.seats.report())
        self._show()

    def _show(self) -> None:
        self._showing, self._shown = None, self.seats.figures()
        if not self._colony.quitting and not self._problem("descriptors", self.seats.problem()):
            self._describe()

    def figures(self) -> dict[str, int]:
        """How many there are and how many processes fit, for who asks."""
        return self.seats.figures()


def _need(known: Known) -> Need:
    """What the instances of a process take."""
    if known.definition is None:
        return Need()
    config: ProcessConfig = known.definition.config
    ready = config.ready
    hears = config.watchdog is not None or (ready is not None and ready.notify)
    own = 1 + config.log.is_split + hears + (ready is not None and ready.fd is not None)
    return Need(own, frozenset(socket_keys(config, known.file).values())) if config.sockets else _plain(own)


@functools.cache
def _plain(own: int) -> Need:
    """One for all who need the same."""
    return Need(own)
