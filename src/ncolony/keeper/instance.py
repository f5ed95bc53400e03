"""One process run for a name, and how it ended."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pump import Log
    from tree import Held


class Instance:
    """Alive, or ended and kept until the supervisor has taken note."""

    __slots__ = (
        "identity name number memo pid held fifo log started end alive others empty killing reported adopted"
        " stop scope cgroup ordered since began killed"
    ).split()

    def __init__(self, identity: str, intent: dict[str, Any], log: Log) -> None:
        self.identity, self.log = identity, log
        self.name: str = intent["name"]
        self.number: int = intent["number"]
        self.started: float = intent["started"]
        self.memo: Any = intent.get("memo")
        self.stop: list[list[float]] = intent.get("stop") or []
        self.scope: str = intent.get("scope") or "tree"
        self.cgroup: str = intent.get("cgroup") or ""
        self.since: int = intent.get("since") or 0  # where its output begins in the log
        self.pid, self.fifo = 0, -1
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
        keys = ("name", "number", "memo", "pid", "started", "alive", "empty", "end", "since", "began")
        return {"id": self.identity, **{key: getattr(self, key) for key in keys}}


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
