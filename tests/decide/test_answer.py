"""When a request is done, has failed, or is still open."""

from __future__ import annotations

import msgspec
import pytest

from ncolony.decide.answer import Goal, Verdict, verdict
from ncolony.decide.lifecycle import Process, State, Wanted
from ncolony.decide.restart import Exit, Policy

UP, DOWN, GONE = Wanted.UP, Wanted.DOWN, Wanted.GONE
OPEN, DONE, FAILED = Verdict.OPEN, Verdict.DONE, Verdict.FAILED
PROCESS = Process(name="web", policy=Policy(1.0, 1.0, 8.0, 0.0, "on-failure", (0, 3), ((15, 5.0),), "tree"))
ASKED = 4  # the newest instance when the request was made


def at(state: State, wanted: Wanted, number: int, last: Exit | None = None) -> Process:
    return msgspec.structs.replace(PROCESS, state=state, wanted=wanted, number=number, last=last)


def test_a_process_that_is_gone() -> None:
    """A removed process is down, and will not come up."""
    assert verdict(Goal.DOWN, ASKED, None) is DONE
    assert verdict(Goal.UP, ASKED, None) is FAILED


@pytest.mark.parametrize(
    ("state", "wanted", "expected"),
    [
        (State.STOPPED, DOWN, DONE),
        (State.STOPPING, DOWN, OPEN),
        (State.STOPPING, GONE, OPEN),
        (State.STOPPING, UP, FAILED),
        (State.STARTING, UP, FAILED),
        (State.RUNNING, UP, FAILED),
        (State.BACKOFF, UP, FAILED),
        (State.WAITING, UP, FAILED),
        (State.EXITED, UP, FAILED),
        (State.FATAL, UP, FAILED),
    ],
)
@pytest.mark.parametrize("number", [ASKED, ASKED + 1])
def test_down(state: State, wanted: Wanted, expected: Verdict, number: int) -> None:
    """A stop is done when the process is stopped, and has failed when it is wanted up again."""
    assert verdict(Goal.DOWN, ASKED, at(state, wanted, number)) is expected


@pytest.mark.parametrize(
    ("state", "wanted", "former", "newer"),
    [
        (State.STOPPED, DOWN, FAILED, FAILED),
        (State.FATAL, UP, FAILED, FAILED),
        (State.WAITING, UP, OPEN, OPEN),
        (State.STARTING, UP, OPEN, OPEN),
        (State.RUNNING, UP, OPEN, DONE),
        (State.BACKOFF, UP, OPEN, FAILED),
        (State.STOPPING, UP, OPEN, OPEN),
        (State.STOPPING, DOWN, OPEN, OPEN),
        (State.STOPPING, GONE, OPEN, OPEN),
    ],
)
def test_up(state: State, wanted: Wanted, former: Verdict, newer: Verdict) -> None:
    """A start or restart is done when an instance runs that is newer than the request."""
    assert verdict(Goal.UP, ASKED, at(state, wanted, ASKED)) is former
    assert verdict(Goal.UP, ASKED, at(state, wanted, ASKED + 1)) is newer
    assert verdict(Goal.UP, ASKED, at(state, wanted, ASKED + 9)) is newer


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (Exit(code=0), DONE),
        (Exit(code=3), DONE),
        (Exit(code=1), FAILED),
        (Exit(signal=9), FAILED),
        (Exit(), FAILED),
        (Exit(refused="no such program"), FAILED),
        (None, FAILED),
    ],
)
def test_up_of_what_has_finished(last: Exit | None, expected: Verdict) -> None:
    """A start is done when the new instance has already finished its work, if it was a success."""
    assert verdict(Goal.UP, ASKED, at(State.EXITED, UP, ASKED + 1, last)) is expected


def test_every_state_has_a_verdict() -> None:
    """No state of a process leaves a request without an answer."""
    for state in State:
        for wanted in Wanted:
            for goal in Goal:
                assert isinstance(verdict(goal, ASKED, at(state, wanted, ASKED)), Verdict)


@pytest.mark.parametrize("state", [*State])
def test_another_process_of_that_name(state: State) -> None:
    """Numbers count up: one below that of the request is of another process, which nobody asked to start."""
    assert verdict(Goal.UP, ASKED, at(state, UP, ASKED - 1)) is FAILED
