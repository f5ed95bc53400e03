"""When a running instance counts as ready. Here, and nowhere else, other signs of readiness come in."""

from __future__ import annotations

from .lifecycle import Process, State


def ready_at(process: Process) -> float | None:
    """From when on (monotonic seconds) the running instance counts as ready: it has shown it, or, where it does not
    show it, has outlived an instant death.

    None while it does not run.
    """
    if process.state is not State.RUNNING:
        return None
    return process.since + (process.policy.threshold if process.policy.ready_timeout is None else 0.0)


def is_ready(process: Process, now: float) -> bool:
    """Whether the process has an instance that is ready."""
    at = ready_at(process)
    return at is not None and now >= at
