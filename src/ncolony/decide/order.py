"""Who waits for whom: whether a condition is met, which files wait for each other in a circle, who may stop first."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

import msgspec

from .lifecycle import Process, State
from .ready import ready_at

# In these states there is an instance, or is about to be.
LIVE = frozenset({State.STARTING, State.RUNNING, State.STOPPING})
# In these nothing of a process runs, and it does not start by itself: what it had is for others.
AT_REST = frozenset({State.STOPPED, State.EXITED, State.FATAL})
# So many names of a circle are for people to read.
_LONGEST_WAY = 50


class Standing(msgspec.Struct, frozen=True):
    """How one process stands that others wait for. `held`: it is about to be restarted, or stopped."""

    name: str
    process: Process | None
    healthy: bool | None = None
    held: bool = False


class Look(msgspec.Struct, frozen=True):
    """Why a condition is not met ("" if it is), and when that changes by itself (monotonic seconds)."""

    why: str
    again: float | None = None


_HOW = {"started": "to be started", "ready": "to be ready", "completed": "to be completed", "healthy": "to be healthy"}


def look(condition: str, name: str, standings: Sequence[Standing], now: float) -> Look:
    """Whether what `name` means (a process, or every copy of one) is so far that others may start."""
    if not standings:
        return Look(f"{name} {_HOW[condition]} (there is no such process)")
    again = None
    for one in standings:
        at = _met_at(condition, one)
        if at is not None and at <= now:
            continue
        if at is None:
            return Look(f"{one.name} {_HOW[condition]}{_as_it_is(condition, one)}")
        again = at if again is None else max(again, at)
    return Look("" if again is None else f"{name} {_HOW[condition]}", again)


def _met_at(condition: str, one: Standing) -> float | None:
    """From when on (monotonic seconds) the condition is met, as things are; None: not by time alone."""
    process = one.process
    if process is None or one.held:
        return None
    done = process.state is State.EXITED and process.has_succeeded
    if condition == "completed":
        return process.since if done else None
    if condition == "healthy":
        return process.since if process.state is State.RUNNING and one.healthy else None
    if done:
        return process.since  # it has come to its end, which is more than was asked for
    if condition == "ready":
        return ready_at(process)
    exists = process.state is State.RUNNING or (process.state is State.STARTING and process.deadline is not None)
    return process.since if exists or process.state is State.EXITED else None


def _as_it_is(condition: str, one: Standing) -> str:
    process = one.process
    if process is None:
        return " (its file cannot be used)"
    if one.held:
        return ""
    if process.state is State.RUNNING:
        return " (it runs)" if condition in ("completed", "healthy") else ""
    return f" (it is {process.state})"


def circles(edges: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """The names that wait for themselves by way of others, each with that way: ("a", "b", "a"). Others are left out."""
    found: dict[str, tuple[str, ...]] = {}
    for group in _knots(edges):
        for name in group:
            found[name] = _way_back(name, edges, group)
    return found


def files_meant(after: Iterable[str], files: Container[str]) -> set[str]:
    """The files that the names in an `after` mean: "web" for "web:0" where that is a copy."""
    return {one if one in files else one.rpartition(":")[0] for one in after}


def _knots(edges: Mapping[str, Iterable[str]]) -> list[set[str]]:
    """The sets of names of which each is reached from each other (Tarjan 1972, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    knots: list[set[str]] = []
    for root in edges:
        if root in index:
            continue
        work = [(root, iter(edges[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            name, others = work[-1]
            for other in others:
                if other not in edges:
                    continue
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(edges[other])))
                    break
                if other in on_stack:
                    low[name] = min(low[name], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == index[name]:
                    knot = set[str]()
                    while name not in knot:
                        knot.add(stack.pop())
                    on_stack -= knot
                    if len(knot) > 1 or name in edges[name]:
                        knots.append(knot)
    return knots


def _way_back(name: str, edges: Mapping[str, Iterable[str]], group: set[str]) -> tuple[str, ...]:
    """The shortest way from `name` to itself within its group, or only that there is one."""
    if len(group) > _LONGEST_WAY:
        return (name, "…", name)
    ways: list[tuple[str, ...]] = [(name,)]
    seen = {name}
    for way in ways:
        for other in sorted(edges[way[-1]]):
            if other == name:
                return (*way, name)
            if other in group and other not in seen:
                seen.add(other)
                ways.append((*way, other))
    return (name,)
