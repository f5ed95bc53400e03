"""The command that is run when a run has failed."""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

import os
import shlex
from collections import deque
from collections.abc import Sequence
from typing import Any

from twisted.internet import defer

from .history import Record
from .output import Output
from .run import Run

PATIENCE_S = 60.0
GRACE_S = 10.0
"""Seconds that the command has, and that it has between SIGTERM and SIGKILL: it tells somebody, and does not work."""

MOST_WAITING = 16
"""Failures that wait while the command runs for another; beyond it they are only printed."""

_LONGEST_OUTPUT = 16 * 1024


class Failures:
    """Runs the command once for each failure, one at a time, in their order."""

    def __init__(self, reactor: Any, output: Output, args: Sequence[str], job: Sequence[str]) -> None:
        self._reactor = reactor
        self._output = output
        self._args = list(args)
        self._job = shlex.join(job)
        self._waiting: deque[dict[str, str]] = deque()
        self._run: Run | None = None
        self._stopped: defer.Deferred[None] | None = None

    def tell(self, record: Record, left: int) -> None:
        """Have the command run for this failure, after which `left` retries may come."""
        if not self._args or self._stopped is not None:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._output.problem(f"cannot run {self._args[0]!r} for a failure: {MOST_WAITING} others wait for it")
            return
        self._waiting.append(details(self._job, record, left))
        self._next()

    def resume(self) -> None:
        """Read on, after a pause because the output was full."""
        if self._run is not None:
            self._run.resume()

    def stop(self) -> defer.Deferred[None]:
        """Run nothing more and end what runs; the Deferred fires when it is gone."""
        self._waiting.clear()
        self._stopped = stopped = defer.Deferred[None]()
        if self._run is None:
            stopped.callback(None)
        else:
            self._run.stop()
        return stopped

    def kill(self) -> None:
        """End what runs by SIGKILL."""
        if self._run is not None:
            self._run.kill()

    def _next(self) -> None:
        while self._run is None and self._waiting:
            env = {**os.environ, **self._waiting.popleft()}
            try:
                run = Run(self._reactor, self._output, self._args, PATIENCE_S, GRACE_S, env=env)
            except Exception as problem:  # noqa: BLE001 (whatever it is, the job goes on)
                why = (problem.strerror if isinstance(problem, OSError) else None) or str(problem)
                self._output.problem(f"cannot run {self._args[0]!r} for a failure: {why}")
                continue
            self._run = run
            run.done.addCallback(self._ended)

    def _ended(self, _: None) -> None:
        self._run = None
        if self._stopped is not None:
            self._stopped.callback(None)
        self._next()


def details(job: str, record: Record, left: int) -> dict[str, str]:
    """Return what the command finds in its environment about a failure."""
    found = {
        "NCOLONY_JOB_COMMAND": job,
        "NCOLONY_JOB_RUN": str(record.run),
        "NCOLONY_JOB_ATTEMPT": str(record.attempt),
        "NCOLONY_JOB_RETRIES_LEFT": str(left),
        "NCOLONY_JOB_DUE": "" if record.due is None else f"{record.due:.3f}",
        "NCOLONY_JOB_STARTED": f"{record.started:.3f}",
        "NCOLONY_JOB_ENDED": f"{record.ended:.3f}",
        "NCOLONY_JOB_EXIT": "" if record.code is None else str(record.code),
        "NCOLONY_JOB_SIGNAL": record.signal or "",
        "NCOLONY_JOB_TEXT": record.text,
        "NCOLONY_JOB_OUTPUT": "\n".join(record.lines)[-_LONGEST_OUTPUT:],
    }
    # No variable can hold it, and a command cannot have it as an argument either.
    return {name: value.replace("\0", "") for name, value in found.items()}
