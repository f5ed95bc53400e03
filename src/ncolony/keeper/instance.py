"""One process run for a name, and how it ended."""

from __future__ import annotations

import functools
import os
import sys

from wire import STDERR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pump import Log, Logs
    from tree import Held


class Pipe:
    """One way of an instance's output: its FIFO, the log that it goes to, and where in there it began."""

    __slots__ = ("descriptor", "key", "log", "name", "since")

    def __init__(self, name: str, log: Log, key: str, intent: dict[str, Any]) -> None:
        self.name, self.log, self.key, self.descriptor = name, log, key, -1
        self.since: int = intent.get(key) or 0


class Instance:
    """Alive, or ended and kept until the supervisor has taken note."""

    __slots__ = (
        "identity name number memo follow pid held pipes started end alive others empty killing reported adopted"
        " stop scope cgroup ordered began killed notify uid ready given said"
    ).split()

    def __init__(self, identity: str, intent: dict[str, Any], logs: Logs) -> None:
        self.identity = identity
        self.name: str = intent["name"]
        self.number: int = intent["number"]
        self.started: float = intent["started"]
        self.memo = _kept_once(intent.get("memo"))
        self.follow = _kept_once(intent.get("follow"))  # as `memo`: what the supervisor does with its output
        self.stop: tuple[tuple[float, float], ...] = _same(tuple(map(tuple, intent.get("stop") or ())))
        self.scope: str = intent.get("scope") or "tree"
        self.cgroup: str = intent.get("cgroup") or ""
        self.notify: bool = bool(intent.get("notify"))  # it has a socket to say how it is
        self.uid: int | None = intent.get("uid")  # who it is, if not who we are
        self.ready: int | None = intent.get("ready")  # its descriptor for a newline that says that it is ready
        # Sockets that it listens on: [key, its descriptor, where], as it was when the instance began.
        self.given: Sequence[list[Any]] = intent.get("given") or ()
        self.said: dict[str, str] = {}  # of itself, the last word on each subject
        self.pipes = [Pipe(identity, logs.get(self.name), "since", intent)]
        if (intent.get("log") or {}).get("split"):
            errors = logs.get(f"{self.name}/stderr")
            self.pipes.append(Pipe(identity + STDERR, errors, "since_stderr", intent))
        self.pid = 0
        self.began: int | None = None  # its start time as in proc(5), which proves later that the pid is still its own
        self.held: Held | None = None  # the process, when it is not our child
        self.end: dict[str, Any] | None = None
        self.alive, self.empty, self.reported, self.adopted = True, False, False, False
        self.killing = False  # KILL was sent to its tree, and goes on
        self.killed = False  # KILL was sent by us, to it alone or to its tree
        self.ordered = False  # its end was ordered by us, in the absence of a supervisor
        # Processes of its tree that are not found below `pid`: our own children, or held.
        self.others: dict[int, Held | None] = {}

    def described(self) -> dict[str, Any]:
        """What a supervisor must know to carry on with it."""
        keys = ("name", "number", "memo", "follow", "pid", "started", "alive", "empty", "end", "began", "said", "given")
        return {"id": self.identity, **{key: getattr(self, key) for key in keys}, **self.since()}

    @property
    def is_ready(self) -> bool:
        """It has said so."""
        return self.said.get("READY") == "1"

    def since(self) -> dict[str, int]:
        """Where its output begins in its logs: "since", and "since_stderr" when the streams are kept apart."""
        return {pipe.key: pipe.since for pipe in self.pipes}


@functools.lru_cache(256)
def _same(steps: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """An equal value, one for all instances."""
    return steps


def _kept_once(words: object) -> object:
    """What we keep without looking into it: most of its words are the same for many instances."""
    if isinstance(words, str):
        return sys.intern(words)
    return tuple(map(_kept_once, words)) if isinstance(words, list) else words


def how_it_ended(peek: os.waitid_result) -> dict[str, Any]:
    """An exit in words: {"code": n} or {"signal": n, "core": bool}."""
    if peek.si_code == os.CLD_EXITED:
        return {"code": peek.si_status}
    return {"signal": peek.si_status, "core": peek.si_code == os.CLD_DUMPED}


def in_words(status: int) -> dict[str, Any]:
    """A wait status (waitpid(2)) in the same words."""
    if os.WIFEXITED(status):
        return {"code": os.WEXITSTATUS(status)}
    return {"signal": os.WTERMSIG(status), "core": os.WCOREDUMP(status)}
