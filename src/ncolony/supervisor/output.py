"""What processes print: where it goes, what is wrong with that, and what becomes of it when they are gone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from ..decide.restart import Policy
from ..system.attic import Attic
from ..system.follow import Follower
from ..system.own_log import OwnLog, say_all
from ..system.sinks import Plan
from .known import Known, from_text, while_running

if TYPE_CHECKING:
    from .loop import Supervisor

_log = Logger(namespace="ncolony")
# What a process's output is in trouble with when some of it was dropped.
_DROPPED = "dropped"


class Output:
    """The output of the processes of the supervisor that it belongs to."""

    def __init__(self, colony: Supervisor, logs: str) -> None:
        self._colony, self._logs = colony, logs
        state = colony.settings.state
        self._told: list[dict[str, Any]] = []  # what a keeper told of before it said what it holds
        self.attic = Attic(logs, colony.settings.log_budget, self._is_wanted, self._removed)
        self.follower = Follower(
            colony.reactor, logs, f"{state}/forwarded", OwnLog(f"{state}/forwarding"), say_all, self._forwarded,
            self._file_trouble, self._lost, self._left,
        )  # fmt: skip
        self.follower.finish()

    def welcome(self, held: list[dict[str, Any]]) -> None:
        """A keeper has said what it holds: now what it told before can be treated as it should be."""
        told, self._told = self._told, []
        for one in held:
            self._follow(one["name"], one, is_new=False)
        for message in told:
            self._take(message)

    def drop_told(self) -> None:
        """The keeper comes again, and tells it again."""
        self._told = []

    def started(self, name: str, known: Known, message: dict[str, Any]) -> None:
        """An instance runs: treat its output as its definition asked for when it was started."""
        if "follow" in message:
            known.dropped = 0
            known.troubles.pop(_DROPPED, None)
            self._follow(name, message, is_new=True)

    def _follow(self, name: str, about: dict[str, Any], is_new: bool) -> None:
        if about.get("follow"):  # a keeper of an earlier version does not know
            self.follower.follow(name, from_text(about["follow"], Plan), about, is_new)

    def resettle(self, name: str, known: Known, policy: Policy) -> None:
        """Have what is live of the `log` and `stop` keys in force for the instance that runs."""
        if known.definition is not None and known.identity is not None:
            settings = while_running(known.definition, policy)
            self._colony.hands.order({"do": "log", "name": name, "id": known.identity, **settings})
            self.follower.resize(name, known.definition.config.log)

    def written(self, message: dict[str, Any]) -> None:
        """A keeper has written output."""
        if self._colony.hands.agreed:
            self._take(message)
        else:
            self._told.append(message)

    def _take(self, message: dict[str, Any]) -> None:
        self.follower.output(message["name"], message["from"], message["to"], message["last"])
        name = message["name"].partition("/")[0]
        if name not in self._colony.known:
            self.follower.forget(name)  # once that is forwarded

    def _forwarded(self, key: str, offset: int) -> None:
        self._colony.hands.order({"do": "read", "name": key, "to": offset})
        self._colony.hands.flush()

    def trouble(self, message: dict[str, Any]) -> None:
        """A keeper cannot write output, or can again."""
        healed = f"its output is written again; {message['dropped']} bytes of it were dropped"
        self._show(message["name"], message["name"], message["why"], healed)

    def _file_trouble(self, key: str, why: str) -> None:
        self._show(key, f"{key} file", why, "its file is written again")

    def _show(self, key: str, what: str, why: str, healed: str) -> None:
        """Show what is wrong with a stream of output, or with what it goes to, as long as it is."""
        name = key.partition("/")[0]
        known = self._colony.known.get(name)
        if known is not None and known.troubles.get(what, "") != why:
            known.troubles[what] = why
            if not why:
                del known.troubles[what]
            _log.error("{name}: {why}", name=name, why=why or healed)
            self._colony.records.changed(name)

    def _lost(self, key: str, count: int) -> None:
        """Output was removed before it was forwarded."""
        name = key.partition("/")[0]
        _log.warn("{name}: {count} bytes of its output were dropped", name=name, count=count)
        if (known := self._colony.known.get(name)) is not None:
            known.dropped += count
            known.troubles[_DROPPED] = f"{known.dropped} bytes of its output were dropped"
            self._colony.records.changed(name)

    def _left(self, name: str) -> None:
        """All output of a process that was removed is where it was to go; its last lines are noted after this turn."""
        self._colony.reactor.callLater(0, self._colony.guarded, self._put_away, name)

    def _put_away(self, name: str) -> None:
        self.attic.add(name)
        self._forget_if_logless(name)

    def _forget_if_logless(self, name: str) -> None:
        """How far a log was forwarded stays as long as the log. Who never printed has none."""
        if not self._is_wanted(name) and not os.path.lexists(f"{self._logs}/{name}"):
            self.follower.forget_offsets(name)

    def tidy(self) -> None:
        """At our start: see to what there is of processes that are not."""
        self.attic.look()
        for name in self.follower.forwarded():
            self._forget_if_logless(name)

    def _is_wanted(self, name: str) -> bool:
        return name in self._colony.known or self.follower.holds(name)

    def _removed(self, name: str) -> None:
        """The log of a process that was removed went for want of room."""
        _log.info("{name}: its log was removed", name=name)
        self.follower.forget_offsets(name)

    def forget_strangers(self) -> None:
        """Nothing more comes of processes that there are not."""
        for name in self.follower.names() - self._colony.known.keys():
            self.follower.forget(name)

    def reopen(self) -> None:
        """Close every file of output, so that one that was moved away is made anew."""
        self._colony.hands.order({"do": "reopen"})
        self.follower.reopen()
