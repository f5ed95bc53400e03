"""The moments of a cron expression in a time zone, through the days on which clocks are changed.

Moments are seconds since 1970, which know no time zone; *local* is the same count on the zone's own clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import ClassVar

from ncolony.model.cron import Offset, plain_cron, zone

_DAY = 86400
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (local clocks are counted from it as well)
_FIXED_BACK_S = 3 * 3600.0
_WILDCARD_BACK_S = 60.0


def _utc(_: float) -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class Cron:
    """Due whenever the local clock shows what the expression says; the rules of Debian's cron for changed clocks.

    An expression is *fixed* unless its hour, minute or second begins with ``*``. A fixed one is due once for each time
    of day that it names: if that time is left out when the clock goes forward, at the moment of the change, and if it
    comes twice, at the first. Any other is due at every moment at which the clock shows a time of its, so not at all
    in an hour that is left out, and twice in one that is repeated.

    The expression and the zone are known to be good (see `ncolony.model.cron`); `offset` tells about the zone.
    """

    expression: str
    zone: str | None = None
    offset: Offset = field(default=_utc, compare=False, repr=False)
    wall: ClassVar[bool] = True

    @property
    def fixed(self) -> bool:
        """Whether it names times of the day, rather than how often."""
        *time_of_day, _, _, _ = self.expression.split()
        return not any(word.startswith("*") for word in time_of_day)

    @property
    def back(self) -> float:
        """How far the clock may be set back while moments that have been due count as done.

        Further back, and it was the clock that had been wrong.
        """
        return _FIXED_BACK_S if self.fixed else _WILDCARD_BACK_S

    def after(self, moment: float) -> float:
        """Return the first due moment that is later than `moment`, infinity where the calendar ends before it."""
        start = math.floor(moment)
        try:
            return float(self._fixed_after(start) if self.fixed else self._shown_after(start))
        except OverflowError:
            return math.inf

    def last(self, first: float, moment: float) -> float:
        """Return the last due moment that is no later than `moment`; `first` is one of them."""
        low, high = math.floor(first) - 1, math.floor(moment)
        # `after` never falls as its argument grows: the last argument that still gives a moment in time gives the last.
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.after(middle) <= moment else (low, middle)
        return self.after(low)

    def _fixed_after(self, moment: int) -> float:
        # Times that come twice were done the first time, and those left out at the change: neither is later.
        for local in self._locals(moment + int(self.offset(moment))):
            if (due := _first_shown(self.offset, local)) > moment:
                return due
        return math.inf

    def _shown_after(self, moment: int) -> float:
        while True:
            ahead = int(self.offset(moment))
            due = next(self._locals(moment + ahead), None)
            if due is None:
                return math.inf
            change = _first_change(self.offset, moment, due - ahead)
            if change is None:
                return due - ahead
            # From there on the clock shows other times, its first one included.
            moment = change
            if self._is_shown(moment):
                return moment

    def _is_shown(self, moment: int) -> bool:
        local = moment + int(self.offset(moment))
        return next(self._locals(local - 1), None) == local

    def _locals(self, local: int) -> Iterator[int]:
        """Yield the times on the local clock, later than `local`, that the expression names."""
        from cronsim import CronSim

        for found in CronSim(self.expression, _EPOCH + timedelta(seconds=local)):
            yield int((found - _EPOCH).total_seconds())


def cron(expression: str, zone_name: str | None, here: Offset) -> Cron:
    """Return the times of a good cron expression; without a name of a time zone, on the clock of the machine, `here`.

    Raises ValueError when there is no such time zone (any more).
    """
    return Cron(plain_cron(expression), zone_name, here if zone_name is None else zone(zone_name))


def _first_shown(offset: Offset, local: int) -> int:
    """Return the first moment at which the local clock shows `local`, or a later time because it was left out."""
    before, behind = int(offset(local - _DAY)), int(offset(local + _DAY))
    for ahead in sorted({before, behind}, reverse=True):
        if int(offset(local - ahead)) == ahead:
            return local - ahead
    low, high = local - max(before, behind), local - min(before, behind)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if middle + offset(middle) >= local else (middle, high)
    return high


def _first_change(offset: Offset, moment: int, until: int) -> int | None:
    """Return the first moment after `moment` and no later than `until` at which the offset is another, or None."""
    ahead = offset(moment)
    low = moment
    while low < until:
        high = min(low + _DAY, until)
        if offset(high) != ahead:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if offset(middle) != ahead else (middle, high)
            return high
        low = high
    return None


def shown(moment: float, offset: Offset) -> str:
    """Return a moment for people to read, on the local clock: 2026-10-25 02:30:00+01:00."""
    ahead = timedelta(seconds=round(offset(moment)))
    local = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=math.floor(moment))
    return local.astimezone(timezone(ahead)).isoformat(" ")
