"""Processes with `memory_max`: how much they take is asked of the keeper now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from ..decide import lifecycle
from ..decide.lifecycle import State

if TYPE_CHECKING:
    from .loop import Supervisor

_log = Logger(namespace="ncolony")
# Looking at one process takes the keeper 0.05 to 0.1 ms, so that this is 5 % of a processor at the very most.
_EVERY_S, _EACH_S = 2.0, 0.002
# In the status a size that has hardly changed is not worth writing a file.
_NOTICEABLE = 0.05


class MemoryWatch:
    """Restarts what takes more memory than it may. Costs nothing while no process has a limit."""

    def __init__(self, colony: Supervisor) -> None:
        self._colony = colony
        self._limits: dict[str, int] = {}  # name -> bytes
        self._call: Any = None

    def concern(self, name: str) -> None:
        """The definition of a process may have changed."""
        known = self._colony.known.get(name)
        definition = known.definition if known is not None else None
        limit = definition.config.most_memory if definition is not None else None
        if limit is None:
            if self._limits.pop(name, None) is not None and known is not None:
                known.memory = None
            return
        self._limits[name] = limit
        if self._call is None:
            self._later()

    def _later(self) -> None:
        seconds = _EVERY_S + _EACH_S * len(self._limits)
        self._call = self._colony.reactor.callLater(seconds, self._colony.guarded, self._look)

    def _look(self) -> None:
        self._call = None
        if not self._limits or self._colony.quitting:
            return
        limits = {}
        for name, limit in self._limits.items():
            known = self._colony.known.get(name)
            if known is not None and known.identity is not None and known.pid is not None:
                limits[known.identity] = limit
        if limits:
            self._colony.hands.order({"do": "memory", "limits": limits})
        self._later()

    def measured(self, sizes: dict[str, int]) -> None:
        """What the keeper found, in bytes by instance."""
        for identity, size in sizes.items():
            name, _ = self._colony.instances.get(identity, ("", 0))
            known = self._colony.known.get(name)
            if known is None or known.identity != identity or known.process is None:
                continue
            if known.memory is None or abs(known.memory - size) > known.memory * _NOTICEABLE:
                known.memory = size
                self._colony.records.changed(name)
            limit = self._limits.get(name)
            if limit is not None and size > limit and known.process.state is State.RUNNING:
                reason = f"it takes {size >> 10} KiB of memory, more than memory_max, {limit >> 10} KiB"
                _log.warn("{name}: {reason}", name=name, reason=reason)
                self._colony.events.append((name, lifecycle.Restart(reason)))
