"""Restarting many processes a few at a time: each is ready before the next one goes."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from .lifecycle import Process, State, Wanted
from .ready import is_ready, ready_at


class Rolling(msgspec.Struct, frozen=True):
    """`waiting` have still to be restarted, `under_way` have been told to and are not ready yet.

    `since` has the newest instance of each when the request came: a later one is the restarted one.
    """

    at_once: int
    waiting: tuple[str, ...]
    since: dict[str, int]
    under_way: tuple[str, ...] = ()


class Outcome(enum.Enum):
    """How the whole stands."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"


class Step(msgspec.Struct, frozen=True):
    """What follows: the names to `restart` now, when to look `again` (monotonic seconds), and how the whole stands."""

    rolling: Rolling
    restart: tuple[str, ...]
    again: float | None
    outcome: Outcome
    why: str = ""


def step(rolling: Rolling, processes: Mapping[str, Process | None], now: float) -> Step:
    """Go on as far as what is known of the processes allows.

    One that does not become ready ends it: those that wait are left alone, since they still work.
    """
    under_way, again = [], None
    for name in rolling.under_way:
        process = processes.get(name)
        if process is None or process.wanted is not Wanted.UP:
            continue  # removed or stopped meanwhile: nobody waits for it
        restarted = process.number > rolling.since[name]
        if restarted and process.state in (State.BACKOFF, State.FATAL, State.EXITED):
            if process.state is State.EXITED and process.has_succeeded:
                continue
            why = f"{name} is {process.state}: {process.reason}"
            left = len(rolling.waiting)
            return Step(rolling, (), None, Outcome.FAILED, f"{why}; {left} more were left alone" if left else why)
        if restarted and is_ready(process, now):
            continue
        under_way.append(name)
        if restarted and (at := ready_at(process)) is not None:
            again = at if again is None else min(again, at)
    room = max(0, rolling.at_once - len(under_way))
    restart, waiting = rolling.waiting[:room], rolling.waiting[room:]
    rolling = msgspec.structs.replace(rolling, waiting=waiting, under_way=(*under_way, *restart))
    done = not rolling.waiting and not rolling.under_way
    return Step(rolling, restart, again, Outcome.DONE if done else Outcome.OPEN)
