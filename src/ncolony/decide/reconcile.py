"""(what was applied, what the directory holds, what the keeper holds) -> events, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from .lifecycle import NOT_DUE, Configured, Event, Fault, Process, Removed, Restart, State, Stop, Wanted
from .restart import Exit, Policy, is_failure

# So many policies are remembered in any case; some hundred bytes each.
_LEAST_ROOM = 256


class Applied(msgspec.Struct, frozen=True):
    """What identifies a definition, and what of it decisions need."""

    generation: str
    digest: str
    policy: Policy
    enabled: bool


class Policies:
    """Equal policies as one object: of thousands of processes most have the same."""

    def __init__(self) -> None:
        self._known: dict[Policy, Policy] = {}
        self._room = _LEAST_ROOM

    def __len__(self) -> int:
        return len(self._known)

    def shared(self, policy: Policy, in_use: Callable[[], Iterable[Policy]]) -> Policy:
        """The one that is equal. From time to time those that are not `in_use` any more are forgotten."""
        if len(self._known) >= self._room:
            self._known = {one: one for one in in_use()}
            # So that this costs nothing that counts, however many are in use.
            self._room = max(_LEAST_ROOM, 2 * len(self._known))
        return self._known.setdefault(policy, policy)


class Memory(msgspec.Struct, frozen=True):
    """What an earlier supervisor left in writing about a process."""

    state: str
    generation: str
    wanted: str
    number: int
    reason: str
    wait: float | None  # seconds until the next try, for BACKOFF and FATAL
    last: Exit | None = None
    restarts: int = 0
    pending: str = ""  # what follows when the leftovers of an instance that ended by itself are gone
    failed: tuple[float, ...] = ()  # how many seconds ago it failed


def change(before: Applied | None, found: Applied | None) -> Event | None:
    """The event that makes `found` of `before`; None when they mean the same."""
    if found is None:
        return None if before is None else Removed()
    if before is None:
        return Configured(found.policy, found.enabled, relaunch=True)
    if before.digest == found.digest and before.policy == found.policy:
        return None
    return Configured(found.policy, found.enabled, relaunch=before.generation != found.generation)


def in_order(names: Iterable[str]) -> list[str]:
    """The order in which names are looked at: the same each time."""
    return sorted(names)


def remembered(name: str, found: Applied, memory: Memory | None, now: float) -> Process | None:
    """The process as an earlier supervisor left it, where starting it at once would break a promise.

    A process that somebody stopped stays stopped, one that has finished is not run again, one that was given up stays
    so, and a crash loop goes on waiting: all until its configuration changes. None when it simply starts.
    """
    if memory is None or memory.generation != found.generation or not found.enabled:
        return None
    process = Process(
        name=name,
        policy=found.policy,
        number=memory.number,
        since=now,
        reason=memory.reason,
        wanted=Wanted.UP,
        last=memory.last,
        failed=_ago(memory, now),
    )
    if found.policy.job and memory.state in (State.STARTING, State.WAITING) and memory.wanted == Wanted.UP:
        # If there were an instance, it would be known: the order to start it never reached a keeper.
        number = memory.number - (memory.state == State.STARTING)
        return msgspec.structs.replace(process, number=number, state=State.BACKOFF, deadline=now, reason="")
    if found.policy.job:
        state = State.EXITED if memory.state == State.EXITED else State.STOPPED
        reason = memory.reason if state is State.EXITED or memory.wanted == Wanted.DOWN else NOT_DUE
        return msgspec.structs.replace(process, state=state, wanted=Wanted.DOWN, reason=reason)
    if memory.wanted == Wanted.DOWN:
        return msgspec.structs.replace(process, wanted=Wanted.DOWN)
    if memory.state == State.EXITED and found.policy.restart != "always" and found.policy.on_exit != "shutdown":
        return msgspec.structs.replace(process, state=State.EXITED)
    if memory.state == State.FATAL and found.policy.failures:
        again = None if memory.wait is None else now + max(memory.wait, 0.0)
        return msgspec.structs.replace(process, state=State.FATAL, deadline=again, failed=())
    if memory.state == State.BACKOFF:
        wait = min(max(memory.wait or 0.0, 0.0), found.policy.max_delay)
        return msgspec.structs.replace(process, state=State.BACKOFF, deadline=now + wait, delay=wait * 2)
    return None


def _ago(memory: Memory | None, now: float) -> tuple[float, ...]:
    return () if memory is None else tuple(now - seconds for seconds in memory.failed)


def _told_again(memory: Memory | None, alive: bool, policy: Policy, now: float) -> tuple[float, ...]:
    """When it failed, without the end or the fault that will be told once more."""
    failed = _ago(memory, now)
    if memory is None or not memory.pending or (memory.last is None and not alive):
        return failed
    return failed[:-1] if alive or (memory.last and is_failure(policy, memory.last)) else failed


def adopted(
    name: str,
    number: int,
    alive: bool,
    found: Applied,
    memory: Memory | None,
    now: float,
    pace: float | None = None,
) -> tuple[Process, tuple[Event, ...]]:
    """The process whose instance a keeper holds, as an earlier supervisor left it, and what has to be asked again.

    `alive`: the instance's leader lives. What it was being stopped for still holds. `pace`: how often (seconds) it was
    told to say that it lives, when it was started.
    """
    down = memory is not None and memory.wanted == Wanted.DOWN
    if memory is not None and found.policy.job and memory.state == State.EXITED:
        down = False  # it is wanted no more because it has had its run, not because somebody stopped it
    stopping = memory is not None and memory.state == State.STOPPING and memory.number == number
    state = State.STARTING
    again: tuple[Event, ...] = ()
    if memory is not None and memory.pending and not alive and not down:
        pass  # it ended by itself: its policy says again what follows
    elif not alive and (stopping or down):
        state = State.STOPPING
    elif down:
        again = (Stop(memory.reason) if memory is not None and memory.reason else Stop(),)
    elif stopping and memory is not None and memory.pending:
        again = (Fault(number, memory.reason),)  # what follows is what was to follow, be it nothing
    elif stopping:
        again = (Restart(),)
    process = Process(
        name=name,
        policy=found.policy,
        enabled=found.enabled,
        wanted=Wanted.DOWN if down else Wanted.UP,
        state=state,
        number=number,
        since=now,
        alive=True,
        watched=pace is not None and found.policy.watchdog is not None,
        pace=pace or 0.0,
        ready=memory is not None and memory.state == State.RUNNING and memory.number == number,
        reason=memory.reason if memory is not None and state is State.STOPPING else "",
        restarts=memory.restarts if memory is not None else 0,
        failed=_told_again(memory, alive, found.policy, now),
    )
    return process, again
