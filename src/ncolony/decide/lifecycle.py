"""Everything that moves a process from one state to another: states, events, effects, and the table of all cells.

`step(process, event, now)` answers with the process as it is then and what has to be done. Nothing else changes a
process. Times are monotonic seconds; a deadline is a field, and its passing is one more event, `Tick`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from .restart import Action, Decision, Exit, Policy, decide, is_failure, is_success, rests

# The reason that a job which is not due is not running.
NOT_DUE = "waits for its schedule"

# After the last step of a stop, KILL is repeated this often until the tree is empty.
_KILL_AGAIN_S = 1.0
_KILL = 9
# The rung once KILL was sent: no lesser signal follows, however long the stop sequence becomes meanwhile.
_PAST_ALL = 1 << 30


class State(enum.StrEnum):
    """Where a process is: words that scripts already grep for."""

    WAITING = "WAITING"  # for another process
    STARTING = "STARTING"  # the order to start is out, or its instance has not shown yet that it is ready
    RUNNING = "RUNNING"  # its instance exists, and is ready where it has to show that
    BACKOFF = "BACKOFF"  # its instance died young; the next one starts at the deadline
    STOPPING = "STOPPING"  # its instance, or what that left behind, is being ended
    STOPPED = "STOPPED"  # ended because that was wanted
    EXITED = "EXITED"  # ended, and its policy says not to start it again
    FATAL = "FATAL"  # given up: cannot be started as things are


class Wanted(enum.StrEnum):
    """What should be, apart from what is."""

    UP = "up"
    DOWN = "down"
    GONE = "gone"


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A named entry of the config directory, as far as decisions go."""

    name: str
    policy: Policy
    enabled: bool = True
    wanted: Wanted = Wanted.DOWN
    state: State = State.STOPPED
    number: int = 0  # of the newest instance
    since: float = 0.0  # when the state began
    deadline: float | None = None  # when a Tick changes something
    delay: float = 0.0  # what the next instant death waits; 0 after a healthy life
    rung: int = 0  # the next step of the stop sequence
    alive: bool = False  # the leader of the newest instance lives
    pending: Decision | None = None  # what follows once the tree is empty
    last: Exit | None = None
    restarts: int = 0
    reason: str = ""
    failed: tuple[float, ...] = ()  # when it failed lately, for a policy that gives up
    waiting_for: tuple[str, ...] = ()  # what has to be before it may start, in words
    ready: bool = False  # the newest instance has shown that it is
    watched: bool = False  # the newest instance can say that it lives, and has to
    pace: float = 0.0  # how often it was told to, when it was started
    fault: Exit | None = None  # what the newest instance is ended for by us

    @property
    def has_succeeded(self) -> bool:
        """Whether its last instance ended, and in success."""
        return self.last is not None and is_success(self.policy, self.last)


# Events. Those about an instance carry its number: what is told of a former one is ignored.


class Configured(msgspec.Struct, frozen=True):
    """Its definition is new; `relaunch` when that needs a new instance."""

    policy: Policy
    enabled: bool
    relaunch: bool


class Removed(msgspec.Struct, frozen=True):
    """Nothing defines it any more."""

    reason: str = "its file was removed"


class Start(msgspec.Struct, frozen=True):
    """Somebody asks for it to run."""


class Stop(msgspec.Struct, frozen=True):
    """Somebody asks for it not to run."""

    reason: str = "stopped on request"


class Restart(msgspec.Struct, frozen=True):
    """Somebody, or something that went wrong, asks for a new instance."""

    reason: str = "restarted on request"


class Kill(msgspec.Struct, frozen=True):
    """No more patience: end it now."""


class Started(msgspec.Struct, frozen=True):
    """Its instance exists, since `at` if that is known."""

    number: int
    at: float | None = None


class Ended(msgspec.Struct, frozen=True):
    """Its instance's leader is dead, or could not be started; `empty` when nothing of its tree is left."""

    number: int
    how: Exit
    empty: bool
    luck: float


class Emptied(msgspec.Struct, frozen=True):
    """Nothing is left of its instance's tree."""

    number: int


class Lost(msgspec.Struct, frozen=True):
    """The order to start it never reached a keeper."""

    number: int


class Resumed(msgspec.Struct, frozen=True):
    """Another keeper holds its instance now; what was ordered meanwhile may have been lost."""

    number: int


class Tick(msgspec.Struct, frozen=True):
    """Time has passed."""

    luck: float = 0.0


class Conditions(msgspec.Struct, frozen=True):
    """What has to be before it may start, and is not, in words; `broken` is what of that it cannot go on without."""

    waiting_for: tuple[str, ...]
    broken: tuple[str, ...] = ()


class Ready(msgspec.Struct, frozen=True):
    """Its instance has shown that it is ready."""

    number: int


class Beat(msgspec.Struct, frozen=True):
    """Its instance says that it lives."""

    number: int


class Fault(msgspec.Struct, frozen=True):
    """Its instance says that it is beyond help."""

    number: int
    reason: str
    luck: float = 0.0


class Extend(msgspec.Struct, frozen=True):
    """Its instance asks for so many more seconds from now, to become ready or to end."""

    number: int
    seconds: float


Event: TypeAlias = (
    Configured | Removed | Start | Stop | Restart | Kill | Started | Ended | Emptied | Lost | Resumed | Tick
    | Conditions | Ready | Beat | Fault | Extend
)  # fmt: skip


# Effects, to be performed in order.


class Spawn(msgspec.Struct, frozen=True):
    """Start instance `number` with the newest definition."""

    number: int


class Signal(msgspec.Struct, frozen=True):
    """Send a signal to the instance's `scope`: its tree, or its process alone."""

    number: int
    signal: int
    scope: str


class Forget(msgspec.Struct, frozen=True):
    """Nothing is left of the process: drop it."""


class Shutdown(msgspec.Struct, frozen=True):
    """End the whole colony, because of how this process ended."""

    how: Exit


Effect: TypeAlias = Spawn | Signal | Forget | Shutdown
Outcome: TypeAlias = tuple[Process, tuple[Effect, ...]]
_Cell: TypeAlias = Callable[[Process, msgspec.Struct, float], Outcome]


def step(process: Process, event: Event, now: float) -> Outcome:
    """What `event` makes of `process`, and the effects to perform."""
    number = getattr(event, "number", None)
    if number is not None and number != process.number:
        return process, ()
    return TABLE[process.state][type(event)](process, event, now)


def _to(process: Process, state: State, now: float, **changes: object) -> Process:
    """The process in another state, with nothing left over from the one it was in unless said."""
    cleared: dict[str, object] = {"deadline": None, "pending": None, "rung": 0}
    return msgspec.structs.replace(process, state=state, since=now, **(cleared | changes))


def _set(process: Process, **changes: object) -> Process:
    return msgspec.structs.replace(process, **changes)


# Building blocks of the cells


def _begin(process: Process, now: float, reason: str = "", **changes: object) -> Outcome:
    """Order a new instance, unless the process is disabled or has to wait for others."""
    if not process.enabled:
        return _to(process, State.STOPPED, now, wanted=Wanted.DOWN, reason="disabled"), ()
    if process.state is not State.WAITING:  # while it waits, it is counted already
        changes = {"restarts": 0 if process.state is State.STOPPED else process.restarts + 1, **changes}
    watchdog = process.policy.watchdog
    changes |= {"watched": watchdog is not None, "pace": watchdog or 0.0}
    changes |= {"wanted": Wanted.UP, "ready": False, "fault": None}
    if process.waiting_for:
        why = _waits_for(process.waiting_for)
        if process.state is State.WAITING:
            return _set(process, reason=why, **changes), ()
        return _to(process, State.WAITING, now, reason=why, **changes), ()
    number = process.number + 1
    started = _to(process, State.STARTING, now, number=number, alive=True, reason=reason, **changes)
    return started, (Spawn(number),)


def _waits_for(conditions: tuple[str, ...]) -> str:
    return f"waits for {', '.join(conditions)}"


def _rest(process: Process, now: float) -> Outcome:
    """A job whose time has not come."""
    return _to(process, State.STOPPED, now, wanted=Wanted.DOWN, reason=NOT_DUE), ()


def _halt(process: Process, now: float, wanted: Wanted, reason: str, pending: Decision | None = None) -> Outcome:
    """Begin the stop sequence."""
    stopping = _to(process, State.STOPPING, now, wanted=wanted, reason=reason, pending=pending)
    return _next_rung(stopping, now)


def _next_rung(process: Process, now: float) -> Outcome:
    """Send the next signal of the stop sequence; KILL, to the whole tree and again and again, after the last."""
    steps = process.policy.stop
    if process.rung < len(steps):
        number, seconds = steps[process.rung]
        # Once the leader is dead only its leftovers are left to signal, whatever the scope.
        scope = process.policy.scope if process.alive else "tree"
        moved = _set(process, rung=process.rung + 1, deadline=now + seconds)
        return moved, (Signal(process.number, number, scope),)
    return _kill(process, now)


def _kill(process: Process, now: float) -> Outcome:
    moved = _set(process, rung=_PAST_ALL, deadline=now + _KILL_AGAIN_S)
    return moved, (Signal(process.number, _KILL, "tree"),)


def _follow(process: Process, decision: Decision, now: float) -> Outcome:
    """Do what was decided about a dead instance whose tree is empty."""
    if decision.action is Action.START:
        return _begin(process, now, decision.reason, delay=0.0)
    if decision.action is Action.REST:
        wanted = Wanted.DOWN if process.policy.job else process.wanted
        return _to(process, State.EXITED, now, wanted=wanted, reason=decision.reason), ()
    if decision.action is Action.END:
        return _to(process, State.EXITED, now, reason=decision.reason), (Shutdown(process.last or Exit()),)
    if decision.action is Action.GIVE_UP:
        return _give_up(process, decision, now)
    waiting = _to(process, State.BACKOFF, now, reason=decision.reason)
    return _set(waiting, deadline=now + decision.delay, delay=decision.next_delay), ()


def _give_up(process: Process, decision: Decision, now: float) -> Outcome:
    policy = process.policy
    again = None if policy.retry_after is None else now + policy.retry_after
    fatal = _to(process, State.FATAL, now, reason=decision.reason, deadline=again, delay=0.0, failed=())
    return fatal, (Shutdown(process.last or Exit()),) if policy.on_give_up == "shutdown" else ()


def _settle(process: Process, now: float) -> Outcome:
    """The tree of a stopping process is empty: go on with what is wanted."""
    if process.wanted is Wanted.GONE:
        return _to(process, State.STOPPED, now), (Forget(),)
    if process.wanted is Wanted.DOWN:
        return _to(process, State.STOPPED, now, reason=process.reason), ()
    if process.pending is not None:
        return _follow(process, process.pending, now)
    return _begin(process, now, process.reason, delay=0.0)


# Cells. The name says what happens; the table says where.


def _ignore(process: Process, event: msgspec.Struct, now: float) -> Outcome:
    return process, ()


def _reconfigure_live(process: Process, event: Configured, now: float) -> Outcome:
    process = _set(process, policy=event.policy, enabled=event.enabled)
    if not event.relaunch:
        if process.state is State.STARTING and process.deadline is not None and event.policy.ready_timeout is None:
            return _ready(process, event, now)
        return _watch(process, now) if process.state is State.RUNNING else process, ()
    if not event.enabled:
        return _halt(process, now, Wanted.DOWN, "disabled")
    if process.policy.job:
        return process, ()  # the next run has it
    return _halt(process, now, Wanted.UP, "its configuration changed")


def _reconfigure_stopping(process: Process, event: Configured, now: float) -> Outcome:
    process = _set(process, policy=event.policy, enabled=event.enabled)
    if not event.relaunch:
        how = process.fault or process.last
        if process.pending is not None and how is not None:
            process = _set(process, pending=_decide(process, how, 0.0))
        return process, ()
    if not event.enabled:
        return _set(process, wanted=Wanted.DOWN, pending=None, reason="disabled"), ()
    if process.policy.job:
        return process, ()
    return _set(process, wanted=Wanted.UP, pending=None, reason="its configuration changed"), ()


def _reconfigure_down(process: Process, event: Configured, now: float) -> Outcome:
    """Of a process without an instance: a change that needs a restart starts it, others do not."""
    was_job, process = process.policy.job, _set(process, policy=event.policy, enabled=event.enabled)
    if process.policy.job and process.enabled:
        waits = process.state is State.WAITING  # for its run, if it was a job before
        settled = process.state is State.EXITED or (was_job and (waits or not event.relaunch))
        return (process, ()) if settled else _rest(process, now)
    if not event.relaunch and not was_job:
        return process, ()
    reason = "" if process.state is State.STOPPED else "its configuration changed"
    return _begin(process, now, reason, delay=0.0)


def _reconfigure_backoff(process: Process, event: Configured, now: float) -> Outcome:
    process, effects = _reconfigure_down(process, event, now)
    if process.state is State.BACKOFF and process.deadline is not None:
        process = _set(process, deadline=min(process.deadline, now + event.policy.max_delay))
    return process, effects


def _reconfigure_exited(process: Process, event: Configured, now: float) -> Outcome:
    """A live change of the policy may mean that it should have been started again after all."""
    process, effects = _reconfigure_down(process, event, now)
    if process.state is State.EXITED and process.enabled and not rests(process.policy, process.last or Exit()):
        return _begin(process, now, "its restart policy changed")
    return process, effects


def _reconfigure_fatal(process: Process, event: Configured, now: float) -> Outcome:
    """A live change of what governs it may be what it takes: it is tried again."""
    changed = event.policy != process.policy
    process, effects = _reconfigure_down(process, event, now)
    if changed and process.state is State.FATAL and process.enabled:
        return _begin(process, now, "its configuration changed", delay=0.0)
    return process, effects


def _remove_live(process: Process, event: Removed, now: float) -> Outcome:
    return _halt(process, now, Wanted.GONE, event.reason)


def _remove_stopping(process: Process, event: Removed, now: float) -> Outcome:
    return _set(process, wanted=Wanted.GONE, pending=None, reason=event.reason), ()


def _remove_down(process: Process, event: Removed, now: float) -> Outcome:
    return _to(process, State.STOPPED, now, wanted=Wanted.GONE, reason=event.reason), (Forget(),)


def _start_stopping(process: Process, event: msgspec.Struct, now: float) -> Outcome:
    if process.wanted is Wanted.GONE or not process.enabled:
        return process, ()
    return _set(process, wanted=Wanted.UP, pending=None, reason="started on request"), ()


def _start_down(process: Process, event: msgspec.Struct, now: float) -> Outcome:
    return _begin(process, now, delay=0.0)


def _stop_live(process: Process, event: Stop, now: float) -> Outcome:
    return _halt(process, now, Wanted.DOWN, event.reason)


def _stop_stopping(process: Process, event: Stop, now: float) -> Outcome:
    if process.wanted is Wanted.GONE:
        return process, ()
    return _set(process, wanted=Wanted.DOWN, pending=None, reason=event.reason), ()


def _stop_down(process: Process, event: Stop, now: float) -> Outcome:
    return _to(process, State.STOPPED, now, wanted=Wanted.DOWN, reason=event.reason), ()


def _stop_stopped(process: Process, event: Stop, now: float) -> Outcome:
    """It does not run. But a job that somebody stops does not run at its times either, and it has to be seen why."""
    if process.policy.job and event == Stop():
        return _set(process, reason=event.reason), ()
    return process, ()


def _restart_live(process: Process, event: Restart, now: float) -> Outcome:
    return _halt(process, now, Wanted.UP, event.reason)


def _restart_stopping(process: Process, event: Restart, now: float) -> Outcome:
    if process.wanted is Wanted.GONE or not process.enabled:
        return process, ()
    return _set(process, wanted=Wanted.UP, pending=None, reason=event.reason), ()


def _restart_down(process: Process, event: Restart, now: float) -> Outcome:
    return _begin(process, now, event.reason, delay=0.0)


def _kill_live(process: Process, event: msgspec.Struct, now: float) -> Outcome:
    return _kill(_to(process, State.STOPPING, now, wanted=Wanted.DOWN, reason="killed on request"), now)


def _kill_stopping(process: Process, event: msgspec.Struct, now: float) -> Outcome:
    return _kill(process, now)


def _started(process: Process, event: Started, now: float) -> Outcome:
    since, patience = now if event.at is None else min(event.at, now), process.policy.ready_timeout
    if patience is None or process.ready:
        return _watch(_to(process, State.RUNNING, since, reason="", ready=True), now), ()
    if process.deadline is not None:
        return process, ()  # told again
    return _set(process, deadline=now + patience, reason="has not shown yet that it is ready"), ()


def _ready(process: Process, event: msgspec.Struct, now: float) -> Outcome:
    return _watch(_to(process, State.RUNNING, now, reason="", ready=True), now), ()


def _watch(process: Process, now: float) -> Process:
    """Of a running process: until when it has to say that it lives. It cannot know that it should more often now."""
    seconds = process.policy.watchdog if process.watched else None
    return _set(process, deadline=None if seconds is None else now + max(seconds, process.pace))


def _beat_starting(process: Process, event: msgspec.Struct, now: float) -> Outcome:
    return _set(process, watched=True), ()


def _beat_running(process: Process, event: msgspec.Struct, now: float) -> Outcome:
    return _watch(_set(process, watched=True), now), ()


def _resumed_running(process: Process, event: msgspec.Struct, now: float) -> Outcome:
    """What it said meanwhile, nobody has heard: it has its time anew."""
    return _watch(process, now), ()


def _fault(process: Process, event: Fault, now: float) -> Outcome:
    return _fail(process, now, event.reason, max(0.0, now - process.since), event.luck)


def _fail(process: Process, now: float, why: str, lived: float, luck: float) -> Outcome:
    """End the instance for what it did or did not do. What follows is what would follow such a death.

    But for the end of the colony: it does not end by itself.
    """
    how = Exit(lived=lived, fault=why)
    process = _set(process, fault=how, failed=_failures(process, how, now))
    return _halt(process, now, Wanted.UP, why, _decide(process, how, luck))


def _tick_starting(process: Process, event: Tick, now: float) -> Outcome:
    if not _due(process, now):
        return process, ()
    # However long it took: it was never of use.
    return _fail(process, now, f"not ready within {process.policy.ready_timeout or 0.0:g} s", 0.0, event.luck)


def _tick_running(process: Process, event: Tick, now: float) -> Outcome:
    if not _due(process, now):
        return process, ()
    why = f"watchdog: no sign of life for {max(process.policy.watchdog or 0.0, process.pace):g} s"
    return _fail(process, now, why, max(0.0, now - process.since), event.luck)


def _extend_starting(process: Process, event: Extend, now: float) -> Outcome:
    if process.deadline is None:
        return process, ()
    return _set(process, deadline=max(process.deadline, now + event.seconds)), ()


def _extend_stopping(process: Process, event: Extend, now: float) -> Outcome:
    """Where it has been asked politely; KILL is nothing to put off."""
    if process.deadline is None or process.rung == _PAST_ALL or not process.alive:
        return process, ()
    return _set(process, deadline=max(process.deadline, now + event.seconds)), ()


def _conditions(process: Process, event: Conditions, now: float) -> Outcome:
    return _set(process, waiting_for=event.waiting_for), ()


def _conditions_live(process: Process, event: Conditions, now: float) -> Outcome:
    process = _set(process, waiting_for=event.waiting_for)
    if not event.broken:
        return process, ()
    return _halt(process, now, Wanted.UP, f"is bound to others: needs {', '.join(event.broken)}")


def _conditions_waiting(process: Process, event: Conditions, now: float) -> Outcome:
    return _begin(_set(process, waiting_for=event.waiting_for), now)


def _ended_live(process: Process, event: Ended, now: float) -> Outcome:
    """Decide what follows; what the instance left behind gets the stop sequence first."""
    process = _set(process, alive=False, last=event.how, failed=_failures(process, event.how, now))
    decision = _decide(process, event.how, event.luck)
    if event.empty:
        return _follow(process, decision, now)
    return _halt(process, now, Wanted.UP, f"{decision.reason}; ending what it left behind", decision)


def _failures(process: Process, how: Exit, now: float) -> tuple[float, ...]:
    """When it failed within the time that counts, with this end if it is a failure."""
    policy = process.policy
    if not policy.failures:
        return ()
    recent = tuple(at for at in process.failed if now - at <= policy.within)
    return (*recent, now)[-policy.failures :] if is_failure(policy, how) else recent


def _decide(process: Process, how: Exit, luck: float) -> Decision:
    policy = msgspec.structs.replace(process.policy, on_exit="restart") if how.fault else process.policy
    return decide(policy, how, process.delay, luck, len(process.failed))


def _ended_stopping(process: Process, event: Ended, now: float) -> Outcome:
    if process.alive:  # told again, it may know less
        process = _set(process, alive=False, last=event.how)
    return _settle(process, now) if event.empty else (process, ())


def _emptied(process: Process, event: msgspec.Struct, now: float) -> Outcome:
    return _settle(process, now)


def _begin_again(process: Process, event: msgspec.Struct, now: float) -> Outcome:
    return _begin(process, now, process.reason)


def _vanished(process: Process, event: Lost, now: float) -> Outcome:
    """It has run, so a job has had its run."""
    if process.policy.job:
        return _ended_live(process, Ended(event.number, Exit(), True, 0.0), now)
    return _begin(process, now, process.reason)


def _lost_stopping(process: Process, event: msgspec.Struct, now: float) -> Outcome:
    return _settle(_set(process, alive=False), now)


def _signal_again(process: Process, event: msgspec.Struct, now: float) -> Outcome:
    """What was sent to the last keeper may not have arrived; being asked twice harms nobody."""
    if process.rung == 0:
        return _next_rung(process, now)
    if process.rung == _PAST_ALL:
        return process, (Signal(process.number, _KILL, "tree"),)
    steps = process.policy.stop[: process.rung]
    scope = process.policy.scope if process.alive else "tree"
    return process, tuple(Signal(process.number, number, scope) for number, _ in steps[-1:])


def _tick_waiting(process: Process, event: msgspec.Struct, now: float) -> Outcome:
    return _begin(process, now, process.reason) if _due(process, now) else (process, ())


def _tick_stopping(process: Process, event: msgspec.Struct, now: float) -> Outcome:
    return _next_rung(process, now) if _due(process, now) else (process, ())


def _due(process: Process, now: float) -> bool:
    return process.deadline is not None and now >= process.deadline


_ROWS: dict[State, tuple[Callable[..., Outcome], ...]] = {
    # event:         Configured             Removed           Start            Stop            Restart
    #                Kill            Started   Ended            Emptied   Lost     Resumed   Tick
    #                Conditions      Ready     Beat             Fault     Extend
    State.WAITING: (
        _reconfigure_down, _remove_down, _start_down, _stop_down, _restart_down,
        _ignore, _ignore, _ignore, _ignore, _ignore, _ignore, _ignore,
        _conditions_waiting, _ignore, _ignore, _ignore, _ignore,
    ),
    State.STARTING: (
        _reconfigure_live, _remove_live, _ignore, _stop_live, _restart_live,
        _kill_live, _started, _ended_live, _ignore, _begin_again, _ignore, _tick_starting,
        _conditions_live, _ready, _beat_starting, _fault, _extend_starting,
    ),
    State.RUNNING: (
        _reconfigure_live, _remove_live, _ignore, _stop_live, _restart_live,
        _kill_live, _ignore, _ended_live, _ignore, _vanished, _resumed_running, _tick_running,
        _conditions_live, _ignore, _beat_running, _fault, _ignore,
    ),
    State.BACKOFF: (
        _reconfigure_backoff, _remove_down, _start_down, _stop_down, _restart_down,
        _ignore, _ignore, _ignore, _ignore, _ignore, _ignore, _tick_waiting,
        _conditions, _ignore, _ignore, _ignore, _ignore,
    ),
    State.STOPPING: (
        _reconfigure_stopping, _remove_stopping, _start_stopping, _stop_stopping, _restart_stopping,
        _kill_stopping, _ignore, _ended_stopping, _emptied, _lost_stopping, _signal_again, _tick_stopping,
        _conditions, _ignore, _ignore, _ignore, _extend_stopping,
    ),
    State.STOPPED: (
        _reconfigure_down, _remove_down, _start_down, _stop_stopped, _restart_down,
        _ignore, _ignore, _ignore, _ignore, _ignore, _ignore, _ignore,
        _conditions, _ignore, _ignore, _ignore, _ignore,
    ),
    State.EXITED: (
        _reconfigure_exited, _remove_down, _start_down, _stop_down, _restart_down,
        _ignore, _ignore, _ignore, _ignore, _ignore, _ignore, _ignore,
        _conditions, _ignore, _ignore, _ignore, _ignore,
    ),
    State.FATAL: (
        _reconfigure_fatal, _remove_down, _start_down, _stop_down, _restart_down,
        _ignore, _ignore, _ignore, _ignore, _ignore, _ignore, _tick_waiting,
        _conditions, _ignore, _ignore, _ignore, _ignore,
    ),
}  # fmt: skip
EVENTS = (
    Configured, Removed, Start, Stop, Restart, Kill, Started, Ended, Emptied, Lost, Resumed, Tick,
    Conditions, Ready, Beat, Fault, Extend,
)  # fmt: skip
TABLE: dict[State, dict[type, Callable[..., Outcome]]] = {
    state: dict(zip(EVENTS, row, strict=True)) for state, row in _ROWS.items()
}
