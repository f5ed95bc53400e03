"""A process's record -> what is wrong with it, for those who ask whether all is well. Nothing: it is well.

The record is the JSON object that people read (status/NAME).
"""

from __future__ import annotations

TYPE_CHECKING = False  # see ncolony.ctllib: the command line starts quickly
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

KINDS = ("down", "starting", "unhealthy", "late", "unknown")


def ailments(status: Mapping[str, Any], succeeded: bool) -> list[tuple[str, str]]:
    """(kind, why) of each thing that is wrong; `succeeded` says whether its last instance ended well.

    What need not run is well, whatever became of it. So is a process that runs with a config file that cannot be used:
    its last good definition is in force, and to take it away would help nobody.
    """
    state, found = status["state"], []
    if state == "UNKNOWN":
        return [("unknown", str(status.get("problem") or "its status cannot be read"))]
    if status["wanted"] == "gone" or not status.get("enabled", True):
        return []
    if status.get("late"):
        found.append(("late", str(status["late"])))
    if status["wanted"] != "up":
        return found
    if state == "RUNNING":
        if status.get("healthy") is False:
            found.append(("unhealthy", str(status.get("health") or "its checks say so")))
    elif not _may_rest(status, succeeded):
        found.append(("starting" if state == "STARTING" else "down", _stands(status)))
    return found


def _may_rest(status: Mapping[str, Any], succeeded: bool) -> bool:
    """Whether it is not expected to run just now: it is done, or a job, of which only lateness counts."""
    if status.get("job"):
        # One whose file was never any good has no schedule to be late for.
        return not status.get("problem") or status["state"] != "FATAL"
    return bool(status["state"] == "EXITED" and succeeded)


def _stands(status: Mapping[str, Any]) -> str:
    """ "BACKOFF: exit code 3 after 0.01 s": how it stands, and why."""
    state, why = str(status["state"]), str(status.get("problem") or status.get("reason") or "")
    waiting = [str(one) for one in status.get("waiting_for") or ()]
    if waiting:
        why = f"{why + ', ' if why else ''}waiting for {', '.join(waiting)}"
    return f"{state}: {why}" if why else state
