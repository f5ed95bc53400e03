"""How many looks go on at the same time: few that are quick, more that are slow, so that nobody waits for the slow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

# Who has not ended after this long is slow, and makes room for the next.
_SLOW_S = 1.0


class Turn:
    """One look: waiting for its turn, going on, or over."""

    __slots__ = ("_begin", "_lanes", "over", "since")

    def __init__(self, lanes: Lanes, begin: Callable[[], None]) -> None:
        self._lanes, self._begin = lanes, begin
        self.since: float | None = None  # when it began
        self.over = False

    def wait(self) -> None:
        """Get in line. It begins when there is room, which may be at once; then it must say when it is over."""
        self._lanes.enter(self)

    def begin(self, now: float) -> None:
        """It is its turn."""
        self.since = now
        self._begin()

    def end(self) -> None:
        """It is over, or not wanted any more. Nothing happens when it was over already."""
        if not self.over:
            self.over = True
            self._lanes.ended(self)


class Lanes:
    """At most `at_once` looks that began less than a second ago, and `most` altogether. The others wait in line."""

    def __init__(self, reactor: Any, at_once: int, most: int) -> None:
        self._reactor, self._at_once, self._most = reactor, at_once, most
        self._waiting: deque[Turn] = deque()
        self._fresh: dict[Turn, None] = {}  # the oldest first
        self._going_on = 0
        self._call: Any = None

    def enter(self, turn: Turn) -> None:
        """Begin it when there is room."""
        self._waiting.append(turn)
        self._fill()

    def ended(self, turn: Turn) -> None:
        """A turn is over."""
        if turn.since is None:
            return  # it is left out when it comes to it
        self._fresh.pop(turn, None)
        self._going_on -= 1
        self._fill()

    def _fill(self) -> None:
        now = self._reactor.seconds()
        while self._waiting:
            if self._waiting[0].over:
                self._waiting.popleft()
                continue
            if self._going_on >= self._most:
                return  # whoever ends calls us
            if len(self._fresh) >= self._at_once and not self._pass_by(now):
                return
            turn = self._waiting.popleft()
            self._going_on += 1
            self._fresh[turn] = None
            turn.begin(now)

    def _pass_by(self, now: float) -> bool:
        """Let go of the oldest, if it is slow; otherwise come back when it is."""
        oldest = next(iter(self._fresh))
        assert oldest.since is not None
        if now - oldest.since >= _SLOW_S:
            del self._fresh[oldest]
            return True
        if self._call is None:
            self._call = self._reactor.callLater(oldest.since + _SLOW_S - now, self._come_back)
        return False

    def _come_back(self) -> None:
        self._call = None
        self._fill()
