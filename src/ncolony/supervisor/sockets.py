"""Which sockets are still wanted. The keeper opens them for an instance; we say when nobody needs them any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..decide.lifecycle import Wanted
from ..decide.order import AT_REST
from ..system.giving import socket_keys
from .known import Known

if TYPE_CHECKING:
    from .loop import Supervisor


class Sockets:
    """Who wants which socket: processes that are to run, and instances until nothing is left of them."""

    def __init__(self, colony: Supervisor) -> None:
        self._colony = colony
        self._claims: dict[tuple[str, str], frozenset[str]] = {}
        self._count: Counter[str] = Counter()
        self._doubtful: set[str] = set()  # keys that perhaps nobody claims

    def concern(self, name: str, known: Known) -> None:
        """Something about the process has changed."""
        process, definition = known.process, known.definition
        # At rest nobody will accept a connection: better none is taken. Whoever waits to be started again keeps his.
        wanted = process is not None and process.wanted is Wanted.UP and process.state not in AT_REST
        keys: Iterable[str] = ()
        if wanted and definition is not None and definition.config.sockets:
            keys = socket_keys(definition.config, known.file).values()
        self._claim(("process", name), keys)

    def given(self, identity: str, keys: Iterable[str]) -> None:
        """An instance has these."""
        self._claim(("instance", identity), keys)

    def over(self, identity: str) -> None:
        """Nothing is left of an instance."""
        self._claim(("instance", identity), ())

    def offered(self, key: str) -> None:
        """The keeper holds this one."""
        self._doubtful.add(key)

    def review(self) -> None:
        """Have those closed that nobody wants any more."""
        colony = self._colony
        if not self._doubtful or not colony.adopted or not colony.hands.agreed:
            return
        unwanted = sorted(key for key in self._doubtful if not self._count[key])
        self._doubtful.clear()
        if unwanted:
            colony.hands.close_sockets(unwanted)

    def _claim(self, who: tuple[str, str], keys: Iterable[str]) -> None:
        before = self._claims.get(who, frozenset())
        now = frozenset(keys)
        if now == before:
            return
        if now:
            self._claims[who] = now
        else:
            del self._claims[who]
        self._count.update(now - before)
        for key in before - now:
            self._count[key] -= 1
            if not self._count[key]:
                del self._count[key]
                self._doubtful.add(key)
