"""Run a command again and again, or at certain times: ``python -m twisted ncolony-scheduler``.

Each run is a session and process group of its own. After its timeout the group gets SIGTERM, and after the grace
SIGKILL. A run is over when its command has ended and its group is empty; whoever has left the group and merely holds
the output open is not waited for.
"""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

from twisted.application import service

from ncolony.system.clock import make_steady

from .history import History
from .options import Options as Options
from .options import rules_of
from .output import Output, choose_output
from .performer import Scheduler
from .signals import CleanSignals
from .state import StateFile


def makeService(opts: Any) -> service.MultiService:  # noqa: N802 (Twisted's interface)
    """Return the scheduler's service; `opts` has at least the keys args, frequency, timeout and grace (seconds)."""
    # Not at the top: `--reactor` must have had its choice first.
    from twisted.internet import reactor

    make_steady(reactor)
    output = choose_output(reactor, opts)
    rules = rules_of(opts)
    together = service.MultiService()
    scheduler = Scheduler(
        reactor,
        output,
        opts["args"],
        rules,
        opts["timeout"],
        opts["grace"],
        on_failure=opts.get("on-failure-exec") or (),
        history=_history(output, opts),
        state=StateFile(opts["state-file"], rules) if opts.get("state-file") else None,
    )
    scheduler.setName("scheduler")
    signals = CleanSignals(reactor, scheduler.kill)
    signals.setName("signals")
    # Signals first: the first run must already have default dispositions.
    signals.setServiceParent(together)
    scheduler.setServiceParent(together)
    return together


def _history(output: Output, opts: Any) -> History | None:
    """Return the history that was asked for; one that cannot be used stops no run."""
    path = opts.get("history")
    if not path:
        return None
    try:
        return History(path, opts["history-keep"])
    except (OSError, ValueError) as problem:
        why = (problem.strerror if isinstance(problem, OSError) else None) or str(problem)
        output.problem(f"cannot write --history {path}: {why}")
        return None
