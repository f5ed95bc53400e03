"""Has what was asked for come about? A message's request against the process as it is."""

from __future__ import annotations

import enum

from .lifecycle import Process, State, Wanted


class Goal(enum.StrEnum):
    """What a request wants to see."""

    UP = "up"
    DOWN = "down"


class Verdict(enum.Enum):
    """How a request stands."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"


def verdict(goal: Goal, since: int, process: Process | None) -> Verdict:
    """How a request stands that was made when `since` was the newest instance; no process: its file was removed."""
    if goal is Goal.DOWN:
        if process is None or process.state is State.STOPPED:
            return Verdict.DONE
        return Verdict.FAILED if process.wanted is Wanted.UP else Verdict.OPEN
    if process is None or process.state in (State.STOPPED, State.FATAL):
        return Verdict.FAILED
    if process.number < since:
        return Verdict.FAILED  # its file was removed, and what is there now is another process
    if process.number == since:
        return Verdict.OPEN
    if process.state is State.RUNNING:
        return Verdict.DONE
    if process.state is State.EXITED:
        return Verdict.DONE if process.has_succeeded else Verdict.FAILED
    return Verdict.FAILED if process.state is State.BACKOFF else Verdict.OPEN
