"""Who waits for whom, and for how long."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncolony.decide.lifecycle import Process, State
from ncolony.decide.order import Standing, circles, files_meant, look
from ncolony.decide.restart import Exit, Policy

NOW, SINCE = 100.0, 90.0
PLAIN = Policy(3.0, 1.0, 20.0, 0.0, "always", (0,), ((15, 5.0),), "tree")
SHOWS = Policy(3.0, 1.0, 20.0, 0.0, "always", (0,), ((15, 5.0),), "tree", ready_timeout=30.0)
GOOD, BAD = Exit(code=0, lived=5.0), Exit(code=3, lived=5.0)


def standing(state: State, policy: Policy = PLAIN, **more: object) -> Standing:
    healthy, held = more.pop("healthy", None), more.pop("held", False)
    process = Process(name="db", policy=policy, state=state, **({"since": SINCE} | more))  # type: ignore[arg-type]
    return Standing("db", process, healthy, held)  # type: ignore[arg-type]


RUNS, EXITED = standing(State.RUNNING), standing(State.EXITED, last=GOOD)
NEVER = (State.WAITING, State.BACKOFF, State.STOPPING, State.STOPPED, State.FATAL)
EXISTS = standing(State.STARTING, SHOWS, deadline=120.0)
# How one stands -> the conditions that are met by that.
MET: list[tuple[Standing, str]] = [
    (RUNS, "started ready"),
    (EXISTS, "started"),
    (standing(State.STARTING, SHOWS), ""),
    (standing(State.STARTING), ""),
    (standing(State.RUNNING, SHOWS, since=NOW), "started ready"),
    (standing(State.RUNNING, healthy=True), "started ready healthy"),
    (standing(State.RUNNING, healthy=False), "started ready"),
    (EXITED, "started ready completed"),
    (standing(State.EXITED, last=BAD), "started"),
    *((standing(state, healthy=True, last=GOOD), "") for state in NEVER),
]


@pytest.mark.parametrize(("one", "met"), MET)
def test_what_meets_a_condition(one: Standing, met: str) -> None:
    """Each standing meets exactly the conditions of its row, and none when it is about to go."""
    conditions = ("started", "ready", "completed", "healthy")
    assert [each for each in conditions if look(each, "db", [one], NOW).why == ""] == met.split()
    held = Standing(one.name, one.process, one.healthy, held=True)
    assert all(look(each, "db", [held], NOW).why for each in conditions)


def test_ready_without_showing_it_takes_time() -> None:
    """Where nothing shows that it is ready, it is when it has lived for its threshold: until then, when that is."""
    young = standing(State.RUNNING, since=98.0)
    seen = look("ready", "db", [RUNS, young], NOW)
    assert (seen.why, seen.again) == ("db to be ready", 101.0)
    assert look("started", "db", [young], NOW).why == ""


def test_every_copy_counts() -> None:
    """What a name means is so far when every copy is; of those that are not, the first is named."""
    down = Standing("db:1", Process(name="db:1", policy=PLAIN, state=State.BACKOFF))
    assert look("started", "db", [RUNS, down, RUNS], NOW).why == "db:1 to be started (it is BACKOFF)"
    assert look("started", "db", [RUNS, RUNS], NOW).why == ""


def test_nobody_is_not_met() -> None:
    """What does not exist, or has a file that is of no use, is waited for."""
    assert look("started", "db", [Standing("db", None)], NOW).why == "db to be started (its file cannot be used)"
    assert look("started", "db", [], NOW).why == "db to be started (there is no such process)"


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ({}, {}),
        ({"a": "b", "b": "c"}, {}),
        ({"a": "a"}, {"a": "aa"}),
        ({"a": "b", "b": "a"}, {"a": "aba", "b": "bab"}),
        ({"a": "b", "b": "c", "c": "b"}, {"b": "bcb", "c": "cbc"}),
        ({"a": "bc", "b": "d", "c": "d", "d": ""}, {}),
        ({"a": "b", "b": "cd", "c": "a", "d": "a", "e": "a"}, {"a": "abca", "b": "bcab", "c": "cabc", "d": "dabd"}),
    ],
)
def test_circles(edges: dict[str, str], expected: dict[str, str]) -> None:
    """Who waits for itself by way of others is found, with the shortest way; who only waits for those is not."""
    assert circles(edges) == {name: tuple(way) for name, way in expected.items()}


def reachable(edges: dict[int, list[int]], start: int) -> set[int]:
    found, todo = set[int](), list(edges.get(start, ()))
    while todo:
        if (one := todo.pop()) not in found:
            found.add(one)
            todo += edges.get(one, ())
    return found


@given(st.dictionaries(st.integers(0, 9), st.lists(st.integers(0, 9), max_size=4)))
def test_circles_are_what_is_reached_from_itself(numbers: dict[int, list[int]]) -> None:
    """Whatever the graph: in a circle is exactly who can be reached from itself, and its way leads along the edges."""
    edges = {str(one): [str(other) for other in others] for one, others in numbers.items()}
    found = circles(edges)
    assert set(found) == {str(one) for one in numbers if one in reachable(numbers, one)}
    for name, way in found.items():
        assert way[0] == way[-1] == name
        assert all(after in edges[before] for before, after in pairwise(way))


def test_a_long_chain_is_no_trouble() -> None:
    """Thousands that wait for one another in a row are looked at without recursion."""
    chain = {str(number): [str(number + 1)] for number in range(5000)}
    assert circles(chain) == {}
    assert len(circles(chain | {"5000": ["0"]})) == 5001


def test_a_copy_means_its_file() -> None:
    """The name of a copy is the file that has it, unless there is a file of that very name."""
    assert files_meant(["web:0", "db"], {"web", "db"}) == {"web", "db"}
    assert files_meant(["web:0"], {"web", "web:0"}) == {"web:0"}
