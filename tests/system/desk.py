"""A real reactor of its own for each test, turned by hand until something is true."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

if sys.platform == "linux":
    from twisted.internet.epollreactor import EPollReactor as Reactor
else:
    from twisted.internet.selectreactor import SelectReactor as Reactor

PATIENCE_S = 20.0


class Desk:
    """The reactor, and the means to turn it."""

    def __init__(self) -> None:
        self.reactor: Any = Reactor()  # type: ignore[no-untyped-call]

    def turn(self, timeout: float = 0) -> None:
        """Do what is due, and what is ready within the time."""
        self.reactor.runUntilCurrent()
        due = self.reactor.timeout()
        self.reactor.doIteration(timeout if due is None else min(timeout, due))

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Turn until the condition holds; what it returned."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            assert time.monotonic() < deadline, f"it never came true: {what}"
            self.turn(0.01)
        return found

    def settle(self) -> None:
        """Turn until nothing is ready and nothing is due at once."""
        for _ in range(20):
            self.turn()

    def close(self) -> None:
        """Give back the reactor's own descriptors."""
        self.reactor.removeAll()
        for call in self.reactor.getDelayedCalls():
            call.cancel()
        self.reactor.waker.connectionLost(None)
        if sys.platform == "linux":
            self.reactor._poller.close()
