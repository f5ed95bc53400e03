"""When a job runs next, and what to do with a run that is due while the last one still goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol


class Times(Protocol):
    """The moments at which a job is due."""

    def after(self, moment: float) -> float:
        """Return the first due moment that is later than `moment`."""


@dataclass(frozen=True, slots=True)
class Every:
    """Due at `start` and then each `period` seconds, computed from the start each time, so that nothing adds up.

    `period` is finite, above zero, and large against the resolution of the moments (a millisecond is, for any uptime).
    """

    start: float
    period: float

    def after(self, moment: float) -> float:
        """Return the first of start, start + period, start + 2 * period, ... that is later than `moment`."""
        if moment < self.start:
            return self.start
        count = math.floor((moment - self.start) / self.period) + 1
        # The division rounds, so the count can be one off; a due moment must be neither passed over nor given twice.
        while self.start + count * self.period <= moment:
            count += 1
        while self.start + (count - 1) * self.period > moment:
            count -= 1
        return self.start + count * self.period


class Action(Enum):
    """What to do now."""

    WAIT = "wait"
    RUN = "run"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and why."""

    action: Action
    reason: str


@dataclass(frozen=True, slots=True)
class Schedule:
    """A job's due moments, and the next of them that has not been decided about."""

    times: Times
    due: float


def every(start: float, period: float) -> Schedule:
    """Return the schedule of a job that is due at `start` and each `period` seconds after it."""
    return Schedule(times=Every(start, period), due=start)


def step(schedule: Schedule, now: float, *, running: bool) -> tuple[Schedule, Decision]:
    """Decide about the moment `now` (monotonic seconds); the returned schedule's `due` is when to ask again.

    However many due moments have passed, they make one run. While a run still goes on they make none.
    """
    if now < schedule.due:
        return schedule, Decision(Action.WAIT, "not due yet")
    later = replace(schedule, due=schedule.times.after(now))
    if running:
        return later, Decision(Action.SKIP, "the last run is still going")
    return later, Decision(Action.RUN, "due")
