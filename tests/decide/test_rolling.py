"""Restarting a few at a time: the next step by what is known, and the whole in a small world."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncolony.decide.lifecycle import Process, State, Wanted
from ncolony.decide.ready import is_ready, ready_at
from ncolony.decide.restart import Exit, Policy
from ncolony.decide.rolling import Outcome, Rolling, step

NOW = 100.0
POLICY = Policy(2.0, 1.0, 20.0, 0.0, "always", (0,), ((15, 5.0),), "tree")
OLD = Process(name="", policy=POLICY, state=State.RUNNING, wanted=Wanted.UP, number=1, since=10.0, alive=True)


def process(state: State = State.RUNNING, number: int = 2, since: float = 10.0, **changes: object) -> Process:
    return msgspec.structs.replace(OLD, state=state, number=number, since=since, **changes)


READY = process()
YOUNG = process(since=NOW - 0.5)
FAILED = Exit(code=3, lived=0.1)


# Ready


@pytest.mark.parametrize("state", [*State])
def test_only_what_runs_is_ready(state: State) -> None:
    """Without an instance that runs there is no time from when on it is ready."""
    one = process(state)
    assert (ready_at(one) is not None) == (state is State.RUNNING)
    assert is_ready(one, 1e9) == (state is State.RUNNING)


@pytest.mark.parametrize(("passed", "ready"), [(0.0, False), (1.999, False), (2.0, True), (2.001, True)])
def test_the_threshold_belongs_to_the_ready(passed: float, ready: bool) -> None:
    """It is ready once it has run for exactly its threshold."""
    one = process(since=NOW)
    assert ready_at(one) == NOW + 2.0
    assert is_ready(one, NOW + passed) is ready


def test_without_a_threshold() -> None:
    """With a threshold of 0 it is ready as soon as it runs."""
    one = process(since=NOW, policy=msgspec.structs.replace(POLICY, threshold=0.0))
    assert is_ready(one, NOW)


# Single steps


def rolling(at_once: int, waiting: str = "", under_way: str = "") -> Rolling:
    names = [*under_way.split(), *waiting.split()]
    return Rolling(at_once, tuple(waiting.split()), dict.fromkeys(names, 1), tuple(under_way.split()))


@pytest.mark.parametrize(
    ("before", "processes", "restart", "waiting", "under_way", "again", "outcome"),
    [
        # At first so many go, in order.
        (rolling(1, "a b c"), {}, "a", "b c", "a", None, Outcome.OPEN),
        (rolling(2, "a b c"), {}, "a b", "c", "a b", None, Outcome.OPEN),
        (rolling(9, "a b c"), {}, "a b c", "", "a b c", None, Outcome.OPEN),
        (rolling(1, ""), {}, "", "", "", None, Outcome.DONE),
        # Not yet told, stopping, starting: it has its time.
        (rolling(1, "b", "a"), {"a": OLD}, "", "b", "a", None, Outcome.OPEN),
        (rolling(1, "b", "a"), {"a": process(State.STOPPING, 1)}, "", "b", "a", None, Outcome.OPEN),
        (rolling(1, "b", "a"), {"a": process(State.STARTING)}, "", "b", "a", None, Outcome.OPEN),
        # Young: looked at again when it is ready.
        (rolling(1, "b", "a"), {"a": YOUNG}, "", "b", "a", NOW + 1.5, Outcome.OPEN),
        (rolling(2, "c", "a b"), {"a": YOUNG, "b": process(since=NOW)}, "", "c", "a b", NOW + 1.5, Outcome.OPEN),
        # Ready: the next.
        (rolling(1, "b c", "a"), {"a": READY}, "b", "c", "b", None, Outcome.OPEN),
        (rolling(2, "c d", "a b"), {"a": READY, "b": YOUNG}, "c", "d", "b c", NOW + 1.5, Outcome.OPEN),
        (rolling(2, "c d", "a b"), {"a": READY, "b": READY}, "c d", "", "c d", None, Outcome.OPEN),
        (rolling(1, "", "a"), {"a": READY}, "", "", "", None, Outcome.DONE),
        (rolling(1, "", "a"), {"a": YOUNG}, "", "", "a", NOW + 1.5, Outcome.OPEN),
        # An instance even newer, since its file changed meanwhile, is as good.
        (rolling(1, "", "a"), {"a": process(number=5)}, "", "", "", None, Outcome.DONE),
        # The one of before does not count, however long it runs.
        (rolling(1, "", "a"), {"a": process(number=1)}, "", "", "a", None, Outcome.OPEN),
        # A failure of before neither.
        (rolling(1, "b", "a"), {"a": process(State.BACKOFF, 1)}, "", "b", "a", None, Outcome.OPEN),
        # Nobody waits for what is gone, stopped or on its way there.
        (rolling(1, "b", "a"), {"a": None}, "b", "", "b", None, Outcome.OPEN),
        (rolling(1, "b", "a"), {"a": process(State.STOPPED, 1, wanted=Wanted.DOWN)}, "b", "", "b", None, Outcome.OPEN),
        (rolling(1, "b", "a"), {"a": process(State.STOPPING, 2, wanted=Wanted.GONE)}, "b", "", "b", None, Outcome.OPEN),
        # What has done its work is done.
        (
            rolling(1, "b", "a"), {"a": process(State.EXITED, last=Exit(code=0, lived=0.1))},
            "b", "", "b", None, Outcome.OPEN,
        ),
        # Failures.
        (rolling(1, "b c", "a"), {"a": process(State.BACKOFF, last=FAILED)}, "", "b c", "a", None, Outcome.FAILED),
        (rolling(1, "b c", "a"), {"a": process(State.FATAL, last=FAILED)}, "", "b c", "a", None, Outcome.FAILED),
        (rolling(1, "b c", "a"), {"a": process(State.EXITED, last=FAILED)}, "", "b c", "a", None, Outcome.FAILED),
        (
            rolling(2, "c", "a b"), {"a": READY, "b": process(State.BACKOFF, last=FAILED)},
            "", "c", "a b", None, Outcome.FAILED,
        ),
    ],
)  # fmt: skip
def test_each_step(
    before: Rolling, processes: dict[str, Process | None], restart: str, waiting: str, under_way: str,
    again: float | None, outcome: Outcome,
) -> None:  # fmt: skip
    """What is restarted now, what goes on waiting, and when to look again."""
    taken = step(before, {**dict.fromkeys(before.since, OLD), **processes}, NOW)
    assert (taken.restart, taken.again, taken.outcome) == (tuple(restart.split()), again, outcome)
    assert taken.rolling.waiting == tuple(waiting.split())
    assert taken.rolling.under_way == tuple(under_way.split())
    assert (taken.rolling.at_once, taken.rolling.since) == (before.at_once, before.since)


@pytest.mark.parametrize(("waiting", "said"), [("", False), ("b", True), ("b c d", True)])
def test_why_it_failed(waiting: str, said: bool) -> None:
    """A failure names the process, its state and its reason, and how many were left alone, if any."""
    one = process(State.BACKOFF, last=FAILED, reason="exit code 3 after 0.1 s")
    why = step(rolling(1, waiting, "a"), {"a": one}, NOW).why
    assert why.startswith("a is BACKOFF: exit code 3 after 0.1 s")
    assert (f"{len(waiting.split())} more" in why) is said


# The whole


def restarted(before: Process, now: float) -> Process:
    return msgspec.structs.replace(before, number=before.number + 1, since=now)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 6), st.integers(0, 6), st.integers(0, 10**6), st.booleans())
def test_never_more_at_once(at_once: int, count: int, seed: int, fails: bool) -> None:
    """Whatever takes how long, and looked at however often: never more than N are not ready, each has one turn.

    With a failure nobody has a turn any more; without one everybody has had one in the end, in order.
    """
    chance = Random(seed)
    names = tuple(f"p{number}" for number in range(count))
    processes: dict[str, Process | None] = dict.fromkeys(names, OLD)
    current, now, turns = Rolling(at_once, names, dict.fromkeys(names, 1)), NOW, list[str]()
    doomed = chance.choice(names) if fails and names else None
    stopping = dict[str, float]()
    for _ in range(1000):
        taken = step(current, processes, now)
        current = taken.rolling
        turns += taken.restart
        for name in taken.restart:
            stopping[name] = now + chance.choice([0.0, 0.5, 3.0])
            processes[name] = process(State.STOPPING, 1)
        assert sum(one is None or not is_ready(one, now) for one in processes.values()) <= at_once
        if taken.outcome is not Outcome.OPEN:
            break
        now += chance.choice([0.0, 0.1, 1.0])
        for name in [name for name, until in stopping.items() if until <= now]:
            del stopping[name]
            state = State.BACKOFF if name == doomed else State.RUNNING
            processes[name] = process(state, 2, now, last=FAILED)
    assert taken.outcome is (Outcome.FAILED if doomed else Outcome.DONE)
    assert turns == [*names[: len(turns)]]
    if doomed is None:
        assert turns == [*names]
    else:
        assert doomed in turns
