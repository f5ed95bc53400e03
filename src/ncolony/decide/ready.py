"""When a running instance counts as ready. Here, and nowhere else, other signs of readiness come in."""

from __future__ import annotations

from .lifecycle import Process, State


def ready_at(process: Process) -> float | None:
    """From when on (monotonic seconds) the running instance counts as ready: it has outlived an instant death.

    None while it does not run.
    """
    if process.state is not State.RUNNING:
        return None
    return process.since + process.policy.threshold


def is_ready(process: Process, now: float) -> bool:
    """Whether the process has an instance that is ready."""
    at = ready_at(process)
    return at is not None and now >= at
