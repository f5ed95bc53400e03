"""Another version of ourselves: tried out, then executed in our place; and what it is handed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from twisted.logger import Logger

from .. import __version__
from ..keeper.kernel import reach
from ..model.message import Answer
from ..system import upgrade
from ..system.orphans import kill

if TYPE_CHECKING:
    from .loop import Supervisor

_log = Logger(namespace="ncolony")


class Replacing:
    """Upgrades of the supervisor that it belongs to."""

    def __init__(self, colony: Supervisor) -> None:
        self._colony = colony
        self._under_way = False
        self._trial: tuple[str | None, int] | None = None  # the message that asks for it, the pid that shows it
        self.received = upgrade.received()  # what an earlier version handed to us

    def was_handed(self, name: str, number: int) -> bool:
        """Whether this instance was being stopped when we were executed in the place of an earlier version."""
        return self.received is not None and self.received.stopping.get(name, (0,))[0] == number

    def begin(self, file_name: str | None = None) -> None:
        """Become the installed version, in place, if it can be started; `file_name` is the message that asks for it."""
        colony, why = self._colony, ""
        if self._under_way:
            why = "an upgrade is under way"
        elif colony.quitting or not colony.adopted:
            why = "the supervisor is starting or stopping"
        else:
            try:
                pid = upgrade.try_out(
                    colony.reactor, colony.orphans, lambda why: colony.guarded(self._tried_out, file_name, why)
                )
                self._trial = file_name, pid
            except OSError as error:
                why = f"cannot run {sys.executable}: {error.strerror}"
        if why:
            self._stay(file_name, why)
            return
        self._under_way = True
        colony.notifier.reloading()
        _log.info("upgrading: trying out the installed version")
        if file_name is not None:
            colony.inbox.answer(file_name, Answer(accepted=True, state="accepted"))

    def _tried_out(self, file_name: str | None, why: str) -> None:
        self._under_way, self._trial = False, None
        if why or self._colony.quitting:
            self._stay(file_name, why or "the supervisor is stopping")
            return
        reach("upgrade.tried")
        upgrade.hold_off_signals()
        # What came before that stands in the same queue, and may be the wish to end.
        self._colony.reactor.callFromThread(self._colony.guarded, self._become, file_name)

    def _become(self, file_name: str | None) -> None:
        """Execute the installed version, if nobody has asked for the end meanwhile."""
        colony = self._colony
        if colony.quitting:
            self._stay(file_name, "the supervisor is stopping")
            return
        colony.settle_turn()
        colony.records.flush()
        _log.info("upgrading")
        self._have_patience(upgrade.PATIENCE_S)
        handover = upgrade.Handover(
            *colony.locks, colony.hands.fifos, __version__, colony.surroundings.nofile, file_name, colony.stops_left()
        )
        try:
            upgrade.execute(handover)
        except OSError as error:
            self._stay(file_name, f"cannot execute {sys.executable}: {error.strerror}")

    def _have_patience(self, least: float = 0.0) -> None:
        """Tell the keeper how long to wait for a supervisor."""
        if (linger := self._colony.settings.linger) is not None:
            self._colony.hands.order({"do": "patience", "seconds": max(linger, least)})
            self._colony.hands.flush()

    def _stay(self, file_name: str | None, why: str) -> None:
        upgrade.hear_signals()
        self._have_patience()
        if not self._under_way:
            self._colony.notifier.ready()
        _log.error("cannot upgrade: {why}; {version} goes on", why=why, version=__version__)
        if file_name is not None:
            self._colony.inbox.answer(file_name, Answer(accepted=True, state="failed", why=f"cannot upgrade: {why}"))

    def end(self) -> None:
        """The supervisor ends: so does what was being tried out."""
        if self._trial is not None:
            kill(self._trial[1])
            self._stay(self._trial[0], "the supervisor is stopping")
