"""Find and prove the instances that a former keeper started, or that we started before we executed ourselves anew.

A process that cannot be proven ours is neither adopted nor signalled.
"""

from __future__ import annotations

import functools
import os

import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from spawn import Journal
    from tree import Held


@functools.cache
def boot() -> str:
    """What must be equal for a pid on disk to mean anything: the boot and the pid namespace."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return "unknown"


def record(pid: int) -> dict[str, Any]:
    """What proves later that a process is the one we started."""
    return {"step": "record", "pid": pid, "began": tree.start_time(pid), "boot": boot()}


class Found:
    """One instance on disk: our own child, or held, or ended as `end` says."""

    def __init__(self, identity: str, intent: dict[str, Any], pid: int = 0, held: Held | None = None) -> None:
        self.identity, self.intent, self.pid, self.held = identity, intent, pid, held
        self.end: dict[str, Any] = {}
        self.recorded = True


def find(journal: Journal, handover: dict[str, Any], room: int) -> tuple[list[Found], dict[str, dict[str, Any]]]:
    """Every instance of this boot that was started before, and the intents of those of which there is no trace.

    What is stale is forgotten. The pidfds of the handover need no proof; its records are of
    what was found when its keeper was dead.
    `room` is how many pidfds there are descriptors for.
    """
    here = boot()
    found: list[Found] = []
    vanished: dict[str, dict[str, Any]] = {}
    everybody: dict[str, list[int]] | None = None
    pidfds = handover.get("pidfds", {})
    for identity, steps in journal.read():
        intent = steps.get("intent")
        if intent is None or intent.get("boot") != here or not _is_whole(intent):
            journal.forget(identity)
            continue
        if "record" not in steps and identity in pidfds and identity in handover.get("records", {}):
            pid, began = handover["records"][identity]
            steps["found"] = {"pid": pid, "began": began}
        if everybody is None and "exit" not in steps and not _is_recorded(steps):
            everybody = tree.everybody()
        one = _prove(identity, steps, (everybody or {}).get(identity, []), pidfds.get(identity, -1), room > len(found))
        if one is None:
            vanished[identity] = intent
        else:
            found.append(one)
    return found, vanished


def _prove(
    identity: str, steps: dict[str, dict[str, Any]], marked: Sequence[int], pidfd: int, room: bool
) -> Found | None:
    """What became of one instance; None when it was never started."""
    found = Found(identity, steps["intent"])
    if _is_recorded(steps):
        recorded = steps.get("record") or steps["found"]
        pid, began = recorded["pid"], recorded["began"]
        found.recorded = "record" in steps
    elif "exit" in steps:
        pid, began = 0, 0
    else:
        found.recorded = False
        # The first of those that lead a session: its daemons came later.
        leaders = [pid for pid in marked if tree.session(pid) == pid]
        leader = min(leaders, key=lambda pid: tree.start_time(pid) or 0, default=None)
        if leader is None and not marked:
            return None
        pid, began = leader or 0, leader and tree.start_time(leader)
    if "exit" in steps:
        found.pid = pid
        found.end = {key: value for key, value in steps["exit"].items() if key != "step"} | {"was": [pid, began]}
    elif pid and tree.start_time(pid) == began and tree.parent(pid) == os.getpid():
        found.pid = pid
    elif (held := _hold_if_it_is(pid, began, pidfd, room)) is not None:
        found.pid, found.held = pid, held
    else:
        found.end = {"unknown": True, "was": [pid, began]}
    return found


def _is_recorded(steps: dict[str, dict[str, Any]]) -> bool:
    recorded = steps.get("record") or steps.get("found", {})
    return _is_number(recorded.get("pid")) and _is_number(recorded.get("began"))


def _is_whole(intent: dict[str, Any]) -> bool:
    return isinstance(intent.get("name"), str) and all(_is_number(intent.get(key)) for key in ("number", "started"))


def _is_number(value: object) -> bool:
    """A number that may be a pid or a time; anything else in a journal proves nothing."""
    return isinstance(value, int | float) and 0 <= value < 1 << 63


def _hold_if_it_is(pid: int, began: int | None, pidfd: int, room: bool) -> Held | None:
    """The process, held, or None when it is dead or the pid is another's by now."""
    if pidfd >= 0:
        return tree.Held(pid, pidfd)
    if not pid or began is None:
        return None
    try:
        held = tree.Held(pid, None if room else -1)
    except (ProcessLookupError, OverflowError, TypeError):
        return None  # any other failure is doubt, not death: it ends the adoption, which is tried again
    # Read after opening: what was read is of the process that we hold, be it dead by now, or of none.
    if held.began == began and (held.pidfd >= 0 or not held.is_dead()):
        return held
    held.close()
    return None
