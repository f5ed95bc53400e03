"""Every cell of the table by name, and the rules of the whole against a small operating system."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from world import POLICIES, WALKS, World, walk

from ncolony.decide.lifecycle import (
    EVENTS,
    NOT_DUE,
    TABLE,
    Beat,
    Conditions,
    Configured,
    Effect,
    Emptied,
    Ended,
    Event,
    Extend,
    Fault,
    Forget,
    Kill,
    Lost,
    Process,
    Ready,
    Removed,
    Restart,
    Resumed,
    Shutdown,
    Signal,
    Spawn,
    Start,
    Started,
    State,
    Stop,
    Tick,
    Wanted,
    step,
)
from ncolony.decide.restart import Action, Decision, Exit, Policy, decide

UP, DOWN, GONE = Wanted.UP, Wanted.DOWN, Wanted.GONE
NOW, LATE = 100.0, 999.0  # LATE is after every deadline
POLICY = Policy(1.0, 1.0, 20.0, 0.5, "always", (0,), ((15, 5.0), (2, 2.0)), "tree")
OTHER = Policy(1.0, 1.0, 2.0, 0.5, "always", (0,), ((1, 3.0),), "tree")
NEVER = msgspec.structs.replace(POLICY, restart="never")
GIVES_UP = msgspec.structs.replace(POLICY, failures=2, within=10.0)
RETRIES = msgspec.structs.replace(GIVES_UP, retry_after=30.0)
ENDS_GIVEN_UP = msgspec.structs.replace(GIVES_UP, on_give_up="shutdown")
ENDS = msgspec.structs.replace(POLICY, on_exit="shutdown")
SHOWS = msgspec.structs.replace(POLICY, ready_timeout=30.0)
WATCHED = msgspec.structs.replace(POLICY, watchdog=10.0)
JOB = msgspec.structs.replace(POLICY, restart="never", job=True)
ALONE = msgspec.structs.replace(POLICY, scope="process")
DONE = Exit(code=0, lived=50.0)
QUICK = Exit(code=3, lived=0.2)

BASE = Process(name="web", policy=POLICY, wanted=UP, number=7, since=90.0, delay=4.0, restarts=2)
BLOCKED = {"waiting_for": ("db to be ready",)}
GIVEN: dict[State, dict[str, Any]] = {
    State.WAITING: {**BLOCKED},
    State.STARTING: {"alive": True},
    State.RUNNING: {"alive": True},
    State.BACKOFF: {"deadline": 104.0, "last": QUICK},
    State.STOPPING: {"alive": True, "wanted": DOWN, "rung": 1, "deadline": 104.0},
    State.STOPPED: {"wanted": DOWN},
    State.EXITED: {"policy": NEVER, "last": DONE},
    State.FATAL: {},
}
BEFORE = {state: msgspec.structs.replace(BASE, state=state, **given) for state, given in GIVEN.items()}
LIVE_STATES = (State.STARTING, State.RUNNING)
DOWN_STATES = (State.WAITING, State.BACKOFF, State.STOPPED, State.EXITED, State.FATAL)

RELAUNCH = Configured(OTHER, True, relaunch=True)
LIVE = Configured(OTHER, True, relaunch=False)
DISABLE = Configured(OTHER, False, relaunch=True)


def ended(how: Exit, empty: bool = True) -> Ended:
    return Ended(7, how, empty, luck=0.5)


class Row:
    """One expectation: in a state, after what else is given, an event makes these changes and effects."""

    def __init__(
        self,
        state: State,
        event: Event,
        changes: dict[str, Any],
        *effects: Effect,
        note: str = "",
        given: dict[str, Any] | None = None,
        now: float = NOW,
    ) -> None:
        self.before = msgspec.structs.replace(BEFORE[state], **(given or {}))
        self.cell = state, type(event)
        self.event, self.changes, self.effects, self.now = event, changes, effects, now
        self.name = " ".join(filter(None, [state.value, type(event).__name__, note]))


SAME: dict[str, Any] = {}


def begun(**changes: Any) -> dict[str, Any]:
    """A new instance is ordered."""
    return {
        "state": State.STARTING, "wanted": UP, "number": 8, "alive": True, "since": NOW, "deadline": None,
        "pending": None, "restarts": 3, "delay": 0.0,
    } | changes  # fmt: skip


def halting(wanted: Wanted, **changes: Any) -> dict[str, Any]:
    """The stop sequence has begun."""
    return {"state": State.STOPPING, "wanted": wanted, "since": NOW, "deadline": NOW + 5.0} | changes


def rests(state: State, wanted: Wanted, **changes: Any) -> dict[str, Any]:
    """There is no instance, and nothing is awaited."""
    return {"state": state, "wanted": wanted, "since": NOW, "deadline": None, "pending": None} | changes


def waits(**changes: Any) -> dict[str, Any]:
    """It would start, but for others."""
    return {
        "state": State.WAITING, "wanted": UP, "since": NOW, "deadline": None, "pending": None, "restarts": 3,
        "delay": 0.0, **BLOCKED,
    } | changes  # fmt: skip


def rows_of_waiting() -> list[Row]:
    """Who asks for it gets it as soon as others are so far, and that alone starts it."""
    state, other = State.WAITING, ("db to be started",)
    free = {"waiting_for": ()}
    disabled = rests(State.STOPPED, DOWN, policy=OTHER, enabled=False)
    return [
        Row(state, RELAUNCH, {"policy": OTHER, "delay": 0.0}, note="relaunch"),
        Row(state, DISABLE, disabled, note="disabled"),
        Row(state, Removed(), rests(State.STOPPED, GONE), Forget()),
        Row(state, Start(), {"delay": 0.0}),
        Row(state, Restart(), {"delay": 0.0}),
        Row(state, Stop(), rests(State.STOPPED, DOWN)),
        Row(state, Conditions(other), {"waiting_for": other}, note="for others"),
        Row(state, Conditions(()), begun(restarts=2, delay=4.0, **free), Spawn(8), note="no more"),
        Row(
            state, Conditions(()), disabled | {"policy": POLICY, "waiting_for": ()}, given={"enabled": False},
            note="disabled",
        ),
        Row(state, Tick(), SAME, note="late", now=LATE),
        *(Row(state, event, SAME, now=LATE) for event in NEWS),
    ]  # fmt: skip


# What is told of an instance.
NEWS: tuple[Event, ...] = (
    Kill(), Started(7), ended(DONE), Emptied(7), Lost(7), Resumed(7),
    Ready(7), Beat(7), Fault(7, "why"), Extend(7, 9.0),
)  # fmt: skip


def rows_of_down(state: State) -> list[Row]:
    """Without an instance: who asks for one gets it at once, and news of the former one is old."""
    fresh = {"restarts": 0} if state is State.STOPPED else {}
    disabled = rests(State.STOPPED, DOWN, policy=OTHER, enabled=False)
    return [
        Row(state, Conditions(("db",)), {"waiting_for": ("db",)}),
        Row(state, Start(), waits(**fresh), given=BLOCKED, note="waits"),
        Row(state, Restart(), waits(**fresh), given=BLOCKED, note="waits"),
        Row(state, RELAUNCH, waits(policy=OTHER, **fresh), given=BLOCKED, note="relaunch, waits"),
        Row(state, RELAUNCH, begun(policy=OTHER, **fresh), Spawn(8), note="relaunch"),
        Row(state, DISABLE, disabled, note="disabled"),
        Row(state, Removed(), rests(State.STOPPED, GONE), Forget()),
        Row(state, Start(), begun(**fresh), Spawn(8)),
        Row(state, Restart(), begun(**fresh), Spawn(8)),
        Row(state, Stop(), SAME if state is State.STOPPED else rests(State.STOPPED, DOWN)),
        *(Row(state, event, SAME, now=LATE) for event in NEWS),
        Row(state, ended(QUICK, empty=False), SAME, now=LATE, note="not empty"),
        Row(state, Tick(), SAME, note="early"),
    ]


def rows_of_live(state: State) -> list[Row]:
    """With an instance: who wants another or none stops this one first."""
    term, decision = Signal(7, 15, "tree"), decide(POLICY, QUICK, 4.0, 0.5)
    waiting = {
        "state": State.BACKOFF,
        "since": NOW,
        "deadline": NOW + 4.0 * 1.25,
        "delay": 8.0,
        "alive": False,
        "last": QUICK,
    }
    finished = rests(State.EXITED, UP, alive=False, last=QUICK)
    killed = halting(DOWN, deadline=NOW + 1.0)
    once, twice = {"policy": GIVES_UP}, {"policy": GIVES_UP, "failed": (NOW - 10.0,)}
    given_up = {**rests(State.FATAL, UP), "alive": False, "last": QUICK, "delay": 0.0, "failed": ()}
    colony, over = {"policy": ENDS}, decide(ENDS, QUICK, 4.0, 0.5)
    refused = Exit(refused="no such program")
    return [
        Row(state, LIVE, {"policy": OTHER}, note="live"),
        Row(
            state, RELAUNCH, halting(UP, policy=OTHER, deadline=NOW + 3.0), Signal(7, 1, "tree"), note="relaunch"
        ),
        Row(
            state, DISABLE, halting(DOWN, policy=OTHER, enabled=False, deadline=NOW + 3.0), Signal(7, 1, "tree"),
            note="disabled",
        ),
        Row(state, Removed(), halting(GONE), term),
        Row(state, Start(), SAME),
        Row(state, Stop(), halting(DOWN), term),
        Row(state, Stop(), halting(DOWN), Signal(7, 15, "process"), given={"policy": ALONE}, note="process alone"),
        Row(
            state, Stop(), halting(DOWN, deadline=NOW + 1.0), Signal(7, 9, "tree"), note="without steps",
            given={"policy": msgspec.structs.replace(ALONE, stop=())},
        ),
        Row(state, Restart(), halting(UP), term),
        Row(state, Kill(), killed, Signal(7, 9, "tree")),
        Row(state, Kill(), killed, Signal(7, 9, "tree"), given={"policy": ALONE}, note="process alone"),
        Row(state, Started(7), running() if state is State.STARTING else SAME),
        Row(state, Conditions(("db",)), {"waiting_for": ("db",)}),
        Row(
            state, Conditions(("db", "a"), ("db",)),
            halting(UP, waiting_for=("db", "a"), reason="is bound to others: needs db"), term, note="bound",
        ),
        Row(state, Fault(7, "why"), fault("why", 10.0), term),
        Row(
            state, Fault(7, "why"), fault("why", 10.0, JOB), term, given={"policy": JOB}, note="of a job"
        ),
        Row(
            state, Fault(7, "why"), fault("why", 10.0, GIVES_UP) | {"failed": (NOW,)}, term, given={"policy": GIVES_UP},
            note="is a failure",
        ),
        Row(
            state, Configured(JOB, True, relaunch=True), {"policy": JOB}, given={"policy": JOB},
            note="a job's next run has it",
        ),
        Row(state, ended(DONE), begun(last=DONE), Spawn(8), note="healthy"),
        Row(state, ended(QUICK), waiting, note="instant"),
        Row(state, ended(refused), waiting | {"last": refused}, note="refused"),
        Row(state, ended(QUICK), finished, given={"policy": NEVER}, note="rests"),
        Row(
            state, ended(QUICK, empty=False), halting(UP, alive=False, last=QUICK, pending=decision), term,
            note="leftovers",
        ),
        Row(
            state, ended(QUICK, empty=False), halting(UP, alive=False, last=QUICK, pending=decision), term,
            given={"policy": ALONE}, note="leftovers have no process alone",
        ),
        Row(state, ended(QUICK), waiting | {"failed": (NOW,)}, given=once, note="failed once"),
        Row(
            state, ended(QUICK), waiting | {"failed": (NOW,)}, given=once | {"failed": (NOW - 10.1,)},
            note="failed long ago",
        ),
        Row(
            state, ended(DONE), begun(last=DONE, failed=(NOW - 10.0,)), Spawn(8), given=twice, note="healthy meanwhile"
        ),
        Row(state, ended(QUICK), given_up, given=twice, note="failed too often"),
        Row(
            state, ended(refused), given_up | {"last": refused}, given=twice, note="refused too often",
        ),
        Row(
            state, ended(QUICK), given_up | {"deadline": NOW + 30.0}, given=twice | {"policy": RETRIES},
            note="given up for now",
        ),
        Row(
            state, ended(QUICK), given_up, Shutdown(QUICK), given=twice | {"policy": ENDS_GIVEN_UP},
            note="given up with the colony",
        ),
        Row(state, ended(QUICK), finished, Shutdown(QUICK), given=colony, note="ends the colony"),
        Row(state, ended(DONE), finished | {"last": DONE}, Shutdown(DONE), given=colony, note="ends the colony well"),
        Row(
            state, ended(QUICK, empty=False), halting(UP, alive=False, last=QUICK, pending=over), term, given=colony,
            note="leftovers end before the colony",
        ),
        Row(state, Stop(), halting(DOWN), term, given=colony, note="no end of the colony"),
        Row(state, Emptied(7), SAME),
        Row(state, Lost(7), begun(delay=4.0), Spawn(8)),
        Row(state, Resumed(7), SAME),
        Row(state, Tick(), SAME),
    ]  # fmt: skip


def running(**changes: Any) -> dict[str, Any]:
    """It is of use."""
    return {"state": State.RUNNING, "since": NOW, "ready": True, "deadline": None} | changes


def fault(why: str, lived: float, policy: Policy = POLICY) -> dict[str, Any]:
    """It is ended for something that it is to blame for."""
    how = Exit(lived=lived, fault=why)
    return halting(UP, fault=how, pending=decide(policy, how, 4.0, 0.0))


def rows_of_readiness() -> list[Row]:
    """From the start of an instance to that it is of use, and that it stays so."""
    starting, state = {"policy": SHOWS}, State.STARTING
    awaited = starting | {"deadline": 104.0}
    watched = {"policy": WATCHED, "watched": True}
    alive = watched | {"deadline": 104.0}
    term, soon = Signal(7, 15, "tree"), msgspec.structs.replace(WATCHED, watchdog=2.0)
    return [
        Row(state, Started(7), {"deadline": NOW + 30.0}, given=starting, note="has to show that it is ready"),
        Row(state, Started(7), SAME, given=awaited, note="told again", now=LATE),
        Row(state, Started(7), running(), given=starting | {"ready": True}, note="had shown it"),
        Row(state, Started(7), running(deadline=NOW + 10.0), given=watched, note="is watched"),
        Row(state, Started(7), running(), given={"policy": WATCHED}, note="cannot be watched"),
        Row(state, Ready(7), running(), given=awaited, note="in time"),
        Row(state, Ready(7), running(), note="although nobody asked"),
        Row(state, Tick(), SAME, given=awaited, note="there is time", now=103.9),
        Row(
            state, Tick(), fault("not ready within 30 s", 0.0) | {"since": 104.0, "deadline": 109.0}, term,
            given=awaited, now=104.0, note="not ready in time",
        ),
        Row(state, Extend(7, 9.0), {"deadline": NOW + 9.0}, given=awaited, note="more time"),
        Row(state, Extend(7, 1.0), SAME, given=awaited, note="less time"),
        Row(state, Extend(7, 9.0), SAME, note="without a time"),
        Row(state, Beat(7), {"watched": True}),
        Row(state, Lost(7), begun(delay=4.0, policy=JOB), Spawn(8), given={"policy": JOB}, note="of a job"),
        Row(State.RUNNING, Ready(7), SAME),
        Row(State.RUNNING, Beat(7), SAME | {"watched": True}),
        Row(State.RUNNING, Beat(7), {"deadline": NOW + 10.0}, given=alive, note="in time"),
        Row(State.RUNNING, Resumed(7), {"deadline": NOW + 10.0}, given=alive, note="its time anew"),
        Row(
            State.RUNNING, Beat(7), {"deadline": NOW + 10.0, "watched": True}, given={"policy": WATCHED},
            note="the first",
        ),
        Row(State.RUNNING, Tick(), SAME, given=alive, now=103.9, note="there is time"),
        Row(
            State.RUNNING, Tick(),
            fault("watchdog: no sign of life for 10 s", 14.0, WATCHED) | {"since": 104.0, "deadline": 109.0}, term,
            given=alive, now=104.0, note="no sign of life",
        ),
        Row(
            State.RUNNING, Configured(soon, True, relaunch=False), {"policy": soon, "deadline": NOW + 2.0}, given=alive,
            note="another time",
        ),
        Row(
            State.RUNNING, Configured(soon, True, relaunch=False), {"policy": soon, "deadline": NOW + 10.0},
            given=alive | {"pace": 10.0}, note="a shorter time, of which it was not told",
        ),
        Row(
            State.RUNNING, Configured(POLICY, True, relaunch=False), {"policy": POLICY, "deadline": None}, given=alive,
            note="watched no more",
        ),
        Row(
            State.RUNNING, Configured(WATCHED, True, relaunch=False), {"policy": WATCHED},
            note="watched once it shows that it can be",
        ),
        Row(State.RUNNING, Extend(7, 9.0), SAME),
        Row(
            State.RUNNING, Lost(7), rests(State.EXITED, DOWN, alive=False, last=Exit()), given={"policy": JOB},
            note="of a job",
        ),
        Row(
            State.RUNNING, ended(QUICK), rests(State.EXITED, DOWN, alive=False, last=QUICK), given={"policy": JOB},
            note="of a job",
        ),
    ]  # fmt: skip


def rows_of_jobs() -> list[Row]:
    """A job is not started because of its file, and never again by itself."""
    job, other = {"policy": JOB}, Configured(JOB, True, relaunch=True)
    live, plain = Configured(JOB, True, relaunch=False), Configured(POLICY, True, relaunch=False)
    idle = rests(State.STOPPED, DOWN, policy=JOB)
    return [
        *(
            Row(state, event, idle, note=f"becomes a job, {note}")
            for state in (State.STOPPED, State.BACKOFF, State.FATAL)
            for event, note in ((other, "relaunch"), (live, "live"))
        ),
        Row(State.STOPPED, other, idle, given=job, note="another job"),
        Row(State.STOPPED, live, SAME, given=job, note="the same job", now=LATE),
        Row(State.STOPPED, plain, begun(policy=POLICY, restarts=0), Spawn(8), given=job, note="no job any more"),
        Row(State.EXITED, other, SAME, given=job, note="another job", now=LATE),
        Row(State.EXITED, live, {"policy": JOB}, note="becomes a job"),
        Row(State.EXITED, plain, begun(policy=POLICY), Spawn(8), given=job, note="no job any more"),
        Row(State.WAITING, other, idle, note="becomes a job"),
        Row(State.WAITING, live, idle, note="becomes a job, live"),
        Row(State.WAITING, other, {"policy": JOB}, given=job, note="the run that waits has the new definition"),
        Row(State.STOPPED, Start(), begun(restarts=0), Spawn(8), given=job, note="of a job"),
        Row(State.STOPPED, Stop(), {"reason": Stop().reason}, given=job, note="of a job"),
        Row(State.STOPPED, Stop("the colony was stopped"), SAME, given=job, note="of a job, with all", now=LATE),
        Row(State.STOPPING, other, {"policy": JOB}, given=job, note="another job"),
    ]  # fmt: skip


def rows_of_the_end(event: Event, last: Exit | None) -> list[Row]:
    """What follows when nothing is left of a stopping instance, in whatever way that is told."""
    known = {"last": last} if last else {}
    over = {"alive": False} if last or isinstance(event, Lost) else {}
    wait, rest = Decision(Action.WAIT, 5.0, 8.0, "why"), Decision(Action.REST, 0.0, 0.0, "why")
    healthy = Decision(Action.START, 0.0, 0.0, "why")
    end, give_up = Decision(Action.END, 0.0, 0.0, "why"), Decision(Action.GIVE_UP, 0.0, 0.0, "why")
    told: dict[str, Any] = over | known
    state = State.STOPPING
    given: dict[str, Any] = {"wanted": UP, "alive": False, "last": QUICK}
    after: dict[str, Any] = {} if last is None else {"last": QUICK}
    backoff: dict[str, Any] = {"state": State.BACKOFF, "since": NOW, "deadline": NOW + 5.0, "delay": 8.0}
    return [
        Row(state, event, rests(State.STOPPED, DOWN, **told), note="wanted down"),
        Row(state, event, rests(State.STOPPED, GONE, **told), Forget(), given={"wanted": GONE}, note="wanted gone"),
        Row(state, event, begun(**known), Spawn(8), given={"wanted": UP}, note="wanted up"),
        Row(
            state, event, backoff | {"pending": None} | after, given=given | {"pending": wait}, note="then it waits"
        ),
        Row(
            state, event, rests(State.EXITED, UP, **after), given=given | {"pending": rest}, note="then it rests"
        ),
        Row(state, event, begun(**after), Spawn(8), given=given | {"pending": healthy}, note="then it starts"),
        Row(
            state, event, rests(State.EXITED, UP, **after), Shutdown(QUICK), given=given | {"pending": end},
            note="then the colony ends",
        ),
        Row(
            state, event, rests(State.FATAL, UP, delay=0.0, failed=(), **after),
            given=given | {"pending": give_up, "failed": (90.0, 99.0)}, note="then it is given up",
        ),
        Row(
            state, event, rests(State.STOPPED, DOWN, **told), given={"wanted": UP, "enabled": False},
            note="meanwhile disabled",
        ),
    ]  # fmt: skip


def rows_of_stopping() -> list[Row]:
    """While stopping: what follows may change, the stop goes on."""
    state = State.STOPPING
    gone, up = {"wanted": GONE}, {"wanted": UP, "pending": Decision(Action.WAIT, 5.0, 8.0, "why")}
    off = {"enabled": False}
    kill = Signal(7, 9, "tree")
    return [
        Row(state, LIVE, {"policy": OTHER}, note="live"),
        Row(state, RELAUNCH, {"policy": OTHER, "wanted": UP}, note="relaunch"),
        Row(state, RELAUNCH, {"policy": OTHER, "wanted": UP}, given=gone, note="back again"),
        Row(state, RELAUNCH, {"policy": OTHER, "pending": None}, given=up, note="instead of a wait"),
        Row(state, DISABLE, {"policy": OTHER, "enabled": False}, note="disabled"),
        Row(state, Removed(), {"wanted": GONE}),
        Row(state, Removed(), {"wanted": GONE, "pending": None}, given=up, note="instead of a wait"),
        Row(state, Start(), {"wanted": UP}),
        Row(state, Start(), SAME, now=LATE, given=gone, note="gone"),
        Row(state, Start(), SAME, given=off, note="disabled"),
        Row(state, Stop(), {"wanted": DOWN}),
        Row(state, Stop(), {"wanted": DOWN, "pending": None}, given=up, note="instead of a wait"),
        Row(state, Stop(), SAME, now=LATE, given=gone, note="gone"),
        Row(state, Restart(), {"wanted": UP}),
        Row(state, Restart(), {"pending": None}, given=up, note="instead of a wait"),
        Row(state, Restart(), SAME, now=LATE, given=gone, note="gone"),
        Row(state, Restart(), SAME, given=off, note="disabled"),
        Row(state, Kill(), {"deadline": NOW + 1.0}, kill),
        Row(state, Kill(), {"deadline": NOW + 1.0}, kill, given={"policy": ALONE}, note="process alone"),
        *(Row(state, event, SAME, now=LATE) for event in (Started(7), Ready(7), Beat(7), Fault(7, "why"))),
        Row(state, Conditions(("db",)), {"waiting_for": ("db",)}),
        Row(state, Conditions(("db",), ("db",)), {"waiting_for": ("db",)}, note="bound: it ends already"),
        Row(state, Extend(7, 9.0), {"deadline": NOW + 9.0}, note="more time"),
        Row(state, Extend(7, 1.0), SAME, note="less time"),
        Row(state, Extend(7, 9.0), SAME, given={"rung": 1 << 30}, note="no time after KILL"),
        Row(state, Extend(7, 9.0), SAME, given={"alive": False}, note="no time for leftovers"),
        Row(
            state, LIVE, {"policy": OTHER, "pending": decide(OTHER, QUICK, 4.0, 0.0)}, note="live, with a fault",
            given={"wanted": UP, "fault": QUICK, "pending": Decision(Action.WAIT, 5.0, 8.0, "why")},
        ),
        Row(state, ended(QUICK, empty=False), {"alive": False, "last": QUICK}, note="leftovers"),
        *rows_of_the_end(ended(QUICK), QUICK),
        *rows_of_the_end(Emptied(7), None),
        *rows_of_the_end(Lost(7), None),
        Row(state, Resumed(7), SAME, Signal(7, 1, "tree"), given={"policy": OTHER}, note="the step again"),
        Row(state, Resumed(7), SAME, Signal(7, 15, "process"), given={"policy": ALONE}, note="the step again, alone"),
        Row(
            state, Resumed(7), SAME, Signal(7, 1, "tree"), given={"policy": OTHER, "rung": 2},
            note="the last step there is",
        ),
        Row(state, Resumed(7), SAME, kill, given={"rung": 1 << 30}, note="KILL again"),
        Row(
            state, Resumed(7), {"deadline": NOW + 5.0}, Signal(7, 15, "tree"),
            given={"rung": 0, "alive": False, "deadline": None}, note="nothing was sent yet",
        ),
        Row(state, Tick(), SAME, note="early"),
        Row(state, Tick(), {"deadline": 106.0}, Signal(7, 2, "tree"), now=104.0, note="next step"),
        Row(
            state, Tick(), {"deadline": 106.5}, Signal(7, 2, "process"), now=104.5, given={"policy": ALONE},
            note="next step alone",
        ),
        Row(
            state, Tick(), {"deadline": 106.5}, Signal(7, 2, "tree"), now=104.5,
            given={"policy": ALONE, "alive": False}, note="next step for leftovers",
        ),
        Row(state, Tick(), {"deadline": 105.0}, kill, now=104.0, given={"rung": 2}, note="no step is left"),
        Row(
            state, Tick(), {"deadline": 105.0}, kill, now=104.0, given={"rung": 2, "policy": ALONE},
            note="no step is left, not even alone",
        ),
    ]  # fmt: skip


ROWS: list[Row] = [
    *rows_of_waiting(),
    *rows_of_readiness(),
    *rows_of_jobs(),
    *(row for state in DOWN_STATES if state is not State.WAITING for row in rows_of_down(state)),
    *(row for state in LIVE_STATES for row in rows_of_live(state)),
    *rows_of_stopping(),
    *(
        Row(state, LIVE, {"policy": OTHER}, note="live")
        for state in (State.WAITING, State.STOPPED)
    ),
    Row(State.FATAL, LIVE, begun(policy=OTHER), Spawn(8), note="live"),
    Row(State.FATAL, Configured(POLICY, True, relaunch=False), SAME, note="nothing that governs it", now=LATE),
    Row(State.FATAL, Tick(), begun(delay=4.0, since=104.0), Spawn(8), now=104.0, note="due", given={"deadline": 104.0}),
    Row(State.FATAL, Tick(), SAME, now=103.9, note="not due", given={"deadline": 104.0}),
    Row(State.BACKOFF, LIVE, {"policy": OTHER, "deadline": NOW + 2.0}, note="shorter"),
    Row(
        State.BACKOFF, Configured(NEVER, True, relaunch=False), {"policy": NEVER}, note="longer",
        given={"policy": OTHER, "deadline": NOW + 1.0},
    ),
    Row(State.BACKOFF, Tick(), begun(delay=4.0, since=104.0), Spawn(8), now=104.0, note="due"),
    Row(State.BACKOFF, Tick(), begun(delay=4.0, since=999.0), Spawn(8), now=999.0, note="overdue"),
    Row(State.EXITED, LIVE, begun(policy=OTHER, delay=4.0), Spawn(8), note="rests no more"),
    *(
        Row(
            State.EXITED, Configured(policy, True, relaunch=False), begun(policy=policy, delay=4.0), Spawn(8),
            given={"failed": (90.0, 99.0)}, note=f"rests no more, {note}",
        )
        for policy, note in ((GIVES_UP, "although it failed too often"), (ENDS, "although it would end the colony"))
    ),
    Row(
        State.EXITED, Configured(msgspec.structs.replace(NEVER, on_exit="shutdown"), True, relaunch=False),
        {"policy": msgspec.structs.replace(NEVER, on_exit="shutdown")}, note="rests, and the colony goes on",
    ),
    Row(
        State.EXITED, Configured(msgspec.structs.replace(NEVER, restart="on-failure"), True, relaunch=False),
        {"policy": msgspec.structs.replace(NEVER, restart="on-failure")}, note="rests all the same",
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_cell(row: Row) -> None:
    """The event makes of the process exactly the changes and effects of its row."""
    after, effects = step(row.before, row.event, row.now)
    if row.changes:
        # How a reason is worded, and how steps are counted, is not what a cell promises.
        free = {"reason": after.reason, "rung": after.rung}
        if after.number > row.before.number or after.state is State.WAITING:  # of another instance
            watchdog = after.policy.watchdog
            free |= {"ready": False, "watched": watchdog is not None, "pace": watchdog or 0.0, "fault": None}
        assert after == msgspec.structs.replace(row.before, **(row.changes | free))
    else:
        assert after == row.before
    assert effects == row.effects


@pytest.mark.parametrize("state", [*State])
def test_every_cell_has_a_row(state: State) -> None:
    """Every state has an answer to every event, and every answer has an expectation."""
    assert {*TABLE[state]} == {*EVENTS}
    assert {event for where, event in (row.cell for row in ROWS) if where is state} == {*EVENTS}


def test_rows_have_names_of_their_own() -> None:
    """No two rows have one name."""
    assert [name for name, count in Counter(row.name for row in ROWS).items() if count > 1] == []


@pytest.mark.parametrize("state", [*State])
@pytest.mark.parametrize("number", [6, 8])
@pytest.mark.parametrize("empty", [True, False])
def test_news_of_another_instance_changes_nothing(state: State, number: int, empty: bool) -> None:
    """What is told of an instance that is not the newest is ignored, whatever it is."""
    news = (Started(number), Ended(number, QUICK, empty, 0.5), Emptied(number), Lost(number), Resumed(number))
    for event in (*news, Ready(number), Beat(number), Fault(number, "why"), Extend(number, 900.0)):
        assert step(BEFORE[state], event, NOW) == (BEFORE[state], ())


@pytest.mark.parametrize("state", DOWN_STATES)
@pytest.mark.parametrize("event", [Start(), Restart(), LIVE, Tick(), Conditions(())])
def test_what_is_disabled_does_not_start(state: State, event: Event) -> None:
    """No request, no live change and no deadline starts a disabled process."""
    disabled = msgspec.structs.replace(BEFORE[state], enabled=False)
    if isinstance(event, Configured):
        event = msgspec.structs.replace(event, enabled=False)
    after, effects = step(disabled, event, 999.0)
    assert effects == ()
    assert after.state in DOWN_STATES


# Sequences


def after_all(process: Process, *events: Event) -> Process:
    """The process after the events, a second apart."""
    for passed, event in enumerate(events):
        process, _ = step(process, event, NOW + passed)
    return process


LEFTOVERS = ended(QUICK, empty=False)


def test_a_start_asked_for_is_not_lost_with_the_leftovers() -> None:
    """Asked to start while its last leftovers are being ended, a process that would rest starts."""
    once = msgspec.structs.replace(BEFORE[State.RUNNING], policy=NEVER)
    after = after_all(once, LEFTOVERS, Start(), Emptied(7))
    assert (after.state, after.number) == (State.STARTING, 8)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (NEVER, POLICY, {State.STARTING, State.BACKOFF}),
        (POLICY, NEVER, {State.EXITED}),
    ],
)
def test_a_live_policy_counts_although_leftovers_are_being_ended(
    old: Policy, new: Policy, expected: set[State]
) -> None:
    """A restart policy that is changed while leftovers are being ended decides what follows them."""
    process = msgspec.structs.replace(BEFORE[State.RUNNING], policy=old)
    after = after_all(process, LEFTOVERS, Configured(new, True, relaunch=False), Emptied(7))
    assert after.state in expected


def test_a_live_delay_counts_although_leftovers_are_being_ended() -> None:
    """A greatest delay that is lowered while leftovers are being ended holds for the wait that follows them."""
    after = after_all(BEFORE[State.RUNNING], LEFTOVERS, LIVE, Emptied(7))
    assert after.state is State.BACKOFF
    assert after.deadline is not None
    assert after.deadline <= NOW + 2 + OTHER.max_delay


@pytest.mark.parametrize("killed", [[Kill()], [Stop(), Tick()]])
def test_once_it_is_killed_it_is_killed_again(killed: list[Event]) -> None:
    """After the first KILL comes no lesser signal, even when the stop sequence grows meanwhile."""
    process = msgspec.structs.replace(BEFORE[State.RUNNING], policy=msgspec.structs.replace(POLICY, stop=((15, 0.5),)))
    process = after_all(process, *killed)
    longer = msgspec.structs.replace(POLICY, stop=((15, 0.5), (2, 1.0), (15, 1.0)))
    process, _ = step(process, Configured(longer, True, relaunch=False), NOW + 2)
    _, effects = step(process, Tick(), NOW + 50)
    assert effects == (Signal(7, 9, "tree"),)


def test_how_it_ended_is_not_forgotten() -> None:
    """The first report of an end stands: a later keeper, which could not see it, knows less."""
    once = msgspec.structs.replace(BEFORE[State.RUNNING], policy=NEVER)
    after = after_all(once, ended(DONE, empty=False), ended(Exit(lived=50.0)))
    assert after.state is State.EXITED
    assert after.last == DONE


@pytest.mark.parametrize(
    ("stopped_by", "undone_by"),
    [(Stop(), Start()), (Stop(), RELAUNCH), (Removed(), RELAUNCH), (DISABLE, RELAUNCH)],
)
def test_a_start_does_not_bear_the_reason_of_a_stop(stopped_by: Event, undone_by: Event) -> None:
    """A process that is wanted again while it stops does not start "stopped on request"."""
    stopping = after_all(BEFORE[State.RUNNING], stopped_by)
    assert stopping.reason
    after = after_all(stopping, undone_by, ended(DONE))
    assert after.state is State.STARTING
    assert after.reason != stopping.reason


@pytest.mark.parametrize(
    ("before", "event"),
    [
        (BEFORE[State.RUNNING], ended(QUICK)),
        (msgspec.structs.replace(BEFORE[State.RUNNING], policy=NEVER), ended(QUICK)),
        (BEFORE[State.RUNNING], ended(QUICK, empty=False)),
        (BEFORE[State.RUNNING], Stop()),
        (BEFORE[State.RUNNING], Kill()),
        (BEFORE[State.RUNNING], Removed()),
        (BEFORE[State.RUNNING], RELAUNCH),
        (BEFORE[State.RUNNING], Restart()),
        (BEFORE[State.BACKOFF], Stop()),
        (BEFORE[State.STOPPED], DISABLE),
    ],
)
def test_what_does_not_run_says_why(before: Process, event: Event) -> None:
    """A process on its way down, or kept down, has a reason that people can read."""
    after, _ = step(before, event, NOW)
    assert after.state not in (*LIVE_STATES, State.WAITING)
    assert after.reason


def test_what_runs_needs_no_reason() -> None:
    """Why it was started is said until it runs."""
    starting = after_all(BEFORE[State.STOPPED], Start(), Restart(), Lost(8))
    assert starting.reason
    assert after_all(starting, Started(9)).reason == ""


def test_instant_deaths_wait_longer_and_longer_and_a_long_life_ends_that() -> None:
    """Death after instant death the wait doubles, up to the greatest; after a long life it begins anew."""
    plain = msgspec.structs.replace(POLICY, jitter=0.0)
    process, _ = step(Process(name="web", policy=plain), Start(), NOW)
    waits, now = list[float](), NOW
    for lived in [0.1] * 6 + [30.0] + [0.1] * 2:
        process, _ = step(process, Started(process.number), now)
        process, _ = step(process, Ended(process.number, Exit(code=1, lived=lived), True, 1.0), now + lived)
        now += lived
        if process.deadline is not None:
            waits.append(round(process.deadline - now, 6))
            now = process.deadline
            process, _ = step(process, Tick(), now)
        assert process.state is State.STARTING
    assert waits == [1, 2, 4, 8, 16, 20, 1, 2]


def test_a_job_says_why_it_does_not_run() -> None:
    """A job that is not due has a reason for people."""
    assert after_all(Process(name="x", policy=JOB), Configured(JOB, True, relaunch=True)).reason == NOT_DUE


def test_what_is_not_ready_in_time_waits_longer_and_longer() -> None:
    """However long it took to show nothing, it counts as an instant death."""
    process, now = Process(name="web", policy=msgspec.structs.replace(SHOWS, jitter=0.0)), NOW
    process, _ = step(process, Start(), now)
    for expected in (1.0, 2.0, 4.0):
        process, _ = step(process, Started(process.number), now)
        now += 30.0
        process, _ = step(process, Tick(), now)
        process, _ = step(process, Ended(process.number, Exit(signal=15, lived=30.0), True, 0.5), now)
        assert (process.state, process.deadline) == (State.BACKOFF, now + expected)
        assert process.reason == "not ready within 30 s"
        now += expected
        process, _ = step(process, Tick(), now)


# The whole


def test_chance_breaks_no_rule_and_visits_every_cell() -> None:
    """In many worlds moved by chance every rule holds, each settles, and every cell of the table is visited."""
    cells = Counter[tuple[State, type]]()
    for seed in range(WALKS):
        cells.update(walk(seed).cells)
    assert [cell for cell in ((state, event) for state in State for event in EVENTS) if not cells[cell]] == []


def alive(machine: Machine) -> bool:
    return machine.world.newest is not None and machine.world.newest.alive


def left_over(machine: Machine) -> bool:
    return machine.world.newest is not None and not machine.world.newest.alive and machine.world.newest.others > 0


policies = st.sampled_from(POLICIES)
deaths = st.sampled_from([Exit(code=0), Exit(code=3), Exit(code=7), Exit(signal=11)])


class Machine(RuleBasedStateMachine):
    """What may happen to a process, in any order; the world breaks at the first broken rule."""

    world: World

    @initialize(state=st.sampled_from([State.STOPPED, State.WAITING, State.FATAL]), policy=policies)
    def begin(self, state: State, policy: Policy) -> None:
        self.world = World(state, policy)

    @rule(policy=policies, enabled=st.booleans(), relaunch=st.booleans())
    def configure(self, policy: Policy, enabled: bool, relaunch: bool) -> None:
        self.world.configure(policy, enabled, relaunch)

    @rule()
    def remove(self) -> None:
        self.world.remove()

    @rule(request=st.sampled_from([Start(), Stop(), Restart(), Kill()]))
    def request(self, request: Event) -> None:
        self.world.feed(request)

    @precondition(lambda machine: machine.world.orders)
    @rule(refuse=st.booleans(), ignores=st.booleans(), tough=st.integers(0, 2))
    def carry_out(self, refuse: bool, ignores: bool, tough: int) -> None:
        self.world.carry_out(refuse=refuse, ignores=ignores, tough=tough)

    @precondition(lambda machine: machine.world.reports)
    @rule()
    def tell(self) -> None:
        self.world.tell()

    @rule(index=st.integers(0, 20))
    def tell_again(self, index: int) -> None:
        self.world.tell_again(index)

    @rule(index=st.integers(0, 3))
    def tell_nonsense(self, index: int) -> None:
        self.world.tell_nonsense(index)

    @rule(record=st.booleans())
    def lose_keeper(self, record: bool) -> None:
        self.world.lose_keeper(record=record)

    @rule()
    def lose_supervisor(self) -> None:
        self.world.lose_supervisor()

    @precondition(alive)
    @rule(how=deaths, others=st.integers(0, 2))
    def die(self, how: Exit, others: int) -> None:
        assert self.world.newest is not None
        self.world.die(self.world.newest, how, others)

    @precondition(left_over)
    @rule()
    def leftover_ends(self) -> None:
        assert self.world.newest is not None
        self.world.die(self.world.newest, Exit(), self.world.newest.others - 1)

    @rule(blocked=st.booleans())
    def others(self, blocked: bool) -> None:
        self.world.others_change(blocked)

    @rule(word=st.integers(0, 3))
    def say(self, word: int) -> None:
        self.world.say(word)

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 5.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    def teardown(self) -> None:
        self.world.settle()


Machine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None, derandomize=True)
TestMachine = Machine.TestCase
TestMachine.__doc__ = "Whatever happens in whatever order, no rule is broken, and left alone the process settles."
