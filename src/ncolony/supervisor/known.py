"""What the supervisor knows of each name, and how it is put into the words that others keep or read."""

from __future__ import annotations

import functools
import json
import signal
import time
from collections.abc import Hashable
from typing import Any, TypeVar, cast

import msgspec

from ..decide.lifecycle import Process, State, Wanted
from ..decide.reconcile import Applied, Memory
from ..decide.restart import Exit, Policy
from ..model.config import Definition, signal_name, signal_number
from ..model.status import LastExit, Status
from ..system.sinks import Plan

_Kind = TypeVar("_Kind")


class Settings(msgspec.Struct, frozen=True):
    """The options, resolved. `policy` holds for processes that say nothing themselves."""

    config: str
    messages: str
    state: str
    logs: str | None
    log_budget: int
    pids: str | None
    frequency: float
    linger: float | None
    cgroup: str | None
    strict: bool
    policy: Policy


class Known:
    """What the supervisor knows of one name."""

    __slots__ = (
        "applied", "definition", "dropped", "file", "health", "healthy", "holding", "identity", "index", "last_exit",
        "late", "memory", "phase", "pid", "problem", "process", "rolled_back", "said", "started", "timed", "troubles",
    )  # fmt: skip

    def __init__(self) -> None:
        self.definition: Definition | None = None
        self.file = ""  # that has the definition
        self.index: int | None = None  # of the copy, with `instances`
        self.rolled_back: str | None = None
        self.applied: Applied | None = None
        self.problem: str | None = None
        self.process: Process | None = None
        self.identity: str | None = None  # of the newest instance
        self.pid: int | None = None
        self.started: float | None = None  # wall clock
        self.last_exit: LastExit | None = None
        self.timed: float | None = None  # the deadline that is in the heap
        self.troubles: dict[str, str] = {}  # with its output, by what is concerned
        self.dropped = 0  # bytes of its output, since it was started
        self.holding: tuple[str, ...] = ()  # what a stop waits for
        self.healthy: bool | None = None  # the running instance, as its checks say
        self.health = ""  # why it is not
        self.said = ""  # its own words (sd_notify STATUS)
        self.phase = ""  # "reloading" or "stopping", as it says itself
        self.late = ""  # of a job: why it should have run by now
        self.memory: int | None = None  # bytes of its tree, as last measured

    @property
    def state(self) -> State:
        """As its status shows it: FATAL where nothing but a problem is known."""
        return State.FATAL if self.process is None else self.process.state

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that it is in."""
        return self.definition.config.groups if self.definition is not None else ()

    @property
    def should_run(self) -> bool:
        """Whether it is wanted up."""
        return self.process is not None and self.process.wanted is Wanted.UP


@functools.lru_cache(1024)
def as_text(value: Policy | Plan) -> str:
    """What a keeper keeps for us: a text, which costs it little, and nothing where it has the same one already."""
    return json.dumps(msgspec.to_builtins(value))  # not by msgspec: paths need not be UTF-8


@functools.lru_cache(1024)
def _from_text(text: str, kind: Hashable) -> Any:
    return msgspec.convert(json.loads(text), kind)


def from_text(found: object, kind: type[_Kind]) -> _Kind:
    """What `as_text` made a text of. An earlier version had its parts kept.

    :raises ValueError: when it is neither (msgspec.ValidationError is one).
    """
    return (
        cast(_Kind, _from_text(found, cast(Hashable, kind))) if isinstance(found, str) else msgspec.convert(found, kind)
    )


def exit_from(record: LastExit) -> Exit:
    """How an instance ended, as its status says."""
    number = None if record.signal is None else signal_number(record.signal)
    return Exit(code=record.code, signal=number, lived=record.lived, signal_name=record.signal or "")


def exit_in(end: dict[str, Any]) -> Exit:
    """What the keeper says of an end."""
    number = end.get("signal")
    return Exit(
        code=end.get("code"), signal=number, lived=end["lived"], core=end.get("core", False),
        signal_name="" if number is None else signal_name(number), out_of_memory=end.get("oom", False),
    )  # fmt: skip


def memory_of(status: Status) -> Memory:
    """What an earlier supervisor wrote about a process."""
    now = time.time()
    wait = None if status.next_try is None else status.next_try - now
    last = None if status.last_exit is None else exit_from(status.last_exit)
    return Memory(
        status.state, status.generation, status.wanted, status.instance, status.reason, wait, last, status.restarts,
        status.pending, tuple(max(0.0, now - at) for at in status.failures),
    )  # fmt: skip


def while_running(definition: Definition, policy: Policy) -> dict[str, Any]:
    """What the keeper must know of an instance while it runs: its log, and how to stop it without a supervisor."""
    log = definition.config.log
    has_file = log.stdout is not None or isinstance(log.stderr, str)
    return {
        "log": {
            # To be told of output, whatever for.
            "forward": log.forward or has_file or log.compress,
            "max_bytes": log.most_bytes,
            "keep": log.keep,
            "overflow": log.overflow,
            "split": log.is_split,
        },
        "stop": [[int(number), seconds] for number, seconds in policy.stop],
        "scope": policy.scope,
    }


def policy_of(definition: Definition, defaults: Policy) -> Policy:
    """What governs the process: its own keys, else the supervisor's options."""
    config = definition.config
    job, ready = config.schedule, config.ready
    kill_time = config.kill_time if config.kill_time is not None else defaults.stop[0][1]
    if job is not None and job.grace is not None:
        kill_time = job.grace
    steps = config.stop if config.stop is not None else (("TERM", kill_time),)
    least = defaults.min_delay if config.min_restart_delay is None else config.min_restart_delay
    most = defaults.max_delay if config.max_restart_delay is None else config.max_restart_delay
    give_up = config.give_up
    return Policy(
        threshold=defaults.threshold if config.threshold is None else config.threshold,
        min_delay=min(least, most) if config.min_restart_delay is None else least,
        max_delay=max(least, most) if config.max_restart_delay is None else most,
        jitter=config.jitter,
        restart=config.restart if job is None else "never",
        success_codes=config.success_codes,
        stop=tuple((signal_number(name) or signal.SIGTERM, seconds) for name, seconds in steps),
        scope=config.stop_scope,
        failures=0 if give_up is None else give_up.failures,
        within=0.0 if give_up is None else give_up.within,
        retry_after=None if give_up is None else give_up.retry_after,
        on_exit=config.on_exit,
        on_give_up=config.on_give_up,
        ready_timeout=None if ready is None else ready.timeout,
        watchdog=config.watchdog,
        job=job is not None,
    )
