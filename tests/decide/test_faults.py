"""A test of the tests: each of these seeded faults is caught by the rule that is there for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from world import OVER, WALKS, Broken, walk

from ncolony.decide import lifecycle
from ncolony.decide.lifecycle import (
    Configured,
    Emptied,
    Ended,
    Lost,
    Outcome,
    Process,
    Removed,
    Restart,
    Shutdown,
    Signal,
    Start,
    Started,
    State,
    Stop,
    Tick,
)
from ncolony.decide.restart import Exit

NEVER_TWO = "never two instances"
WISHED = "what is wanted is what was asked for last"
SETTLES = "left alone, it settles on what is wanted"
DELAYS = "delays double from the least, and start anew"
PATIENT = "no KILL before its time"
ASKED = "a restart asked for is never delayed by backoff"
DEADLINES = "deadlines are of BACKOFF, FATAL and STOPPING"
TOO_SOON = "nothing is given up before its time"
TOO_OFTEN = "what fails too often is given up"
ENDS = "the colony ends with it"

Patch = pytest.MonkeyPatch
Cell = Callable[..., Outcome]


def nothing(process: Process, event: Any, now: float) -> Outcome:
    return process, ()


def cell(state: State, event: type, fault: Cell) -> Callable[[Patch], None]:
    """Another cell in the table."""
    return lambda patch: patch.setitem(lifecycle.TABLE[state], event, fault)


def function(name: str, fault: Callable[[Any], Callable[..., Any]]) -> Callable[[Patch], None]:
    """Another building block: the fault is made from the right one."""
    return lambda patch: patch.setattr(lifecycle, name, fault(getattr(lifecycle, name)))


def of(name: str) -> Cell:
    """A building block as it is."""
    found: Cell = getattr(lifecycle, name)
    return found


def starts_over_leftovers(process: Process, event: Ended, now: float) -> Outcome:
    return of("_settle")(msgspec.structs.replace(process, alive=False, last=event.how), now)


def leftovers_do_not_count(process: Process, event: Ended, now: float) -> Outcome:
    return of("_ended_live")(process, msgspec.structs.replace(event, empty=True), now)


def restart_that_waits(process: Process, event: Restart, now: float) -> Outcome:
    after, effects = of("_restart_stopping")(process, event, now)
    return msgspec.structs.replace(after, pending=process.pending), effects


def stale_numbers(right: Cell) -> Cell:
    return lambda process, event, now: lifecycle.TABLE[process.state][type(event)](process, event, now)


def without_delay(right: Cell) -> Cell:
    def begin(process: Process, now: float, reason: str = "", **changes: Any) -> Outcome:
        changes.pop("delay", None)
        return right(process, now, reason, **changes)

    return begin


def same_number(right: Cell) -> Cell:
    def begin(process: Process, now: float, reason: str = "", **changes: Any) -> Outcome:
        return right(msgspec.structs.replace(process, number=process.number - 1), now, reason, **changes)

    return begin


def even_if_disabled(right: Cell) -> Cell:
    def begin(process: Process, now: float, reason: str = "", **changes: Any) -> Outcome:
        return right(msgspec.structs.replace(process, enabled=True), now, reason, **changes)

    return begin


def kill_once(right: Cell) -> Cell:
    def kill(process: Process, now: float) -> Outcome:
        after, effects = right(process, now)
        return msgspec.structs.replace(after, deadline=now + 1e6), effects

    return kill


def kill_process_alone(right: Cell) -> Cell:
    def kill(process: Process, now: float) -> Outcome:
        return right(process, now)[0], (Signal(process.number, 9, process.policy.scope),)

    return kill


def no_time_between_steps(right: Cell) -> Cell:
    def next_rung(process: Process, now: float) -> Outcome:
        after, effects = right(process, now)
        return msgspec.structs.replace(after, deadline=now), effects

    return next_rung


def kept_deadline(right: Callable[..., Process]) -> Callable[..., Process]:
    def to(process: Process, state: State, now: float, **changes: Any) -> Process:
        return right(process, state, now, **({"deadline": process.deadline} | changes))

    return to


def no_wait(right: Cell) -> Cell:
    def follow(process: Process, decision: Any, now: float) -> Outcome:
        return right(process, msgspec.structs.replace(decision, next_delay=0.0), now)

    return follow


def for_ever(right: Cell) -> Callable[..., tuple[float, ...]]:
    def failures(process: Process, how: Exit, now: float) -> tuple[float, ...]:
        endless = msgspec.structs.replace(process.policy, within=1e9)
        kept: tuple[float, ...] = right(msgspec.structs.replace(process, policy=endless), how, now)  # type: ignore[assignment]
        return kept

    return failures


def old_record(right: Cell) -> Cell:
    def give_up(process: Process, decision: Any, now: float) -> Outcome:
        after, effects = right(process, decision, now)
        return msgspec.structs.replace(after, failed=process.failed), effects

    return give_up


def without_shutdown(right: Cell) -> Cell:
    def follow(process: Process, decision: Any, now: float) -> Outcome:
        after, effects = right(process, decision, now)
        return after, tuple(effect for effect in effects if not isinstance(effect, Shutdown))

    return follow


def every_end_ends_it(process: Process, event: Ended, now: float) -> Outcome:
    after, effects = of("_ended_stopping")(process, event, now)
    return after, (*effects, Shutdown(event.how))


FAULTS: dict[str, tuple[Callable[[Patch], None], str]] = {
    "a restart is ignored in backoff": (cell(State.BACKOFF, Restart, nothing), ASKED),
    "a restart leaves the wait in place": (cell(State.STOPPING, Restart, restart_that_waits), ASKED),
    "leftovers do not delay the next instance": (cell(State.STOPPING, Ended, starts_over_leftovers), NEVER_TWO),
    "leftovers of a dead instance do not count": (cell(State.RUNNING, Ended, leftovers_do_not_count), NEVER_TWO),
    "a changed process starts before it has stopped": (
        cell(State.RUNNING, Configured, of("_reconfigure_down")),
        NEVER_TWO,
    ),
    "KILL comes first": (function("_next_rung", lambda right: of("_kill")), PATIENT),
    "steps have no time": (function("_next_rung", no_time_between_steps), "each step has its time"),
    "KILL comes once": (function("_kill", kill_once), SETTLES),
    "KILL goes to the process alone": (function("_kill", kill_process_alone), "KILL goes to the whole tree"),
    "the delay is never reset": (function("_begin", without_delay), DELAYS),
    "the delay does not double": (function("_follow", no_wait), DELAYS),
    "the number stays": (function("_begin", same_number), "numbers count up"),
    "removed is forgotten without a stop": (
        cell(State.RUNNING, Removed, of("_remove_down")),
        "nothing is forgotten before it has ended",
    ),
    "former instances count": (function("step", stale_numbers), "a former instance changes nothing"),
    "every tick is due": (function("_due", lambda right: lambda process, now: True), "an early tick changes nothing"),
    "a stop is ignored while starting": (cell(State.STARTING, Stop, nothing), WISHED),
    "a stop is ignored in backoff": (cell(State.BACKOFF, Stop, nothing), WISHED),
    "a start is ignored while stopping": (cell(State.STOPPING, Start, nothing), WISHED),
    "a removal is ignored while stopping": (cell(State.STOPPING, Removed, nothing), WISHED),
    "the disabled start": (function("_begin", even_if_disabled), WISHED),
    "a backoff never ends": (cell(State.BACKOFF, Tick, nothing), SETTLES),
    "a stop sequence has one step": (cell(State.STOPPING, Tick, nothing), SETTLES),
    "a start is never done": (cell(State.STARTING, Started, nothing), SETTLES),
    "a lost order is never repeated": (cell(State.STARTING, Lost, nothing), OVER),
    "an end is not noticed": (cell(State.RUNNING, Ended, nothing), OVER),
    "the end of leftovers is not noticed": (cell(State.STOPPING, Emptied, nothing), OVER),
    "failures are not counted": (function("_failures", lambda right: lambda process, how, now: ()), TOO_OFTEN),
    "every end is a failure": (function("is_failure", lambda right: lambda policy, how: True), TOO_SOON),
    "no failure grows old": (function("_failures", for_ever), TOO_SOON),
    "what was given up keeps its record": (function("_give_up", old_record), TOO_SOON),
    "what was given up is never tried again": (cell(State.FATAL, Tick, nothing), SETTLES),
    "the colony outlives its process": (function("_follow", without_shutdown), ENDS),
    "a stop ends the colony": (cell(State.STOPPING, Ended, every_end_ends_it), "only its own end ends the colony"),
    "a deadline outlives its state": (function("_to", kept_deadline), DEADLINES),
}


def breaks(rule: str, seed: int) -> bool:
    """Whether the walk breaks the rule."""
    try:
        walk(seed)
    except Broken as broken:
        return str(broken).startswith(f"{rule}: ")
    return False


@pytest.mark.parametrize("name", FAULTS)
def test_a_seeded_fault_is_caught(name: str) -> None:
    """A fault in the rules breaks the rule of the whole that forbids it, in walks that otherwise break none."""
    seed_fault, rule = FAULTS[name]
    with pytest.MonkeyPatch.context() as patch:
        seed_fault(patch)
        assert any(breaks(rule, seed) for seed in range(WALKS))
