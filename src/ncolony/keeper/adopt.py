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

# That number itself stands for nobody.
_LARGEST_ID = (1 << 32) - 1


@functools.cache
def boot() -> str:
    """What must be equal for a pid on disk to mean anything: the boot and the pid namespace."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return "unknown"


def record(pid: int, since: int | None = None) -> dict[str, Any]:
    """What proves later that a process is the one we started; `since`: the tick before that, if it was just now."""
    return {"step": "record", "pid": pid, "began": tree.when_started(pid, since), "boot": boot()}


class Found:
    """One instance on disk: our own child, or held, or ended as `end` says."""

    def __init__(self, identity: str, intent: dict[str, Any], pid: int = 0, held: Held | None = None) -> None:
        self.identity, self.intent, self.pid, self.held = identity, intent, pid, held
        self.end: dict[str, Any] = {}
        self.recorded = True
        self.ready = False  # it has said so


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
        if intent is None or intent.get("boot") != here or not is_whole(intent):
            journal.forget(identity)
            continue
        steps["intent"] = intent = sensible(identity, intent)
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
    found.ready = steps.get("said", {}).get("READY") == "1"
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
        found.end = _sensible_end(steps["exit"]) | {"was": [pid, began]}
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


def is_whole(intent: dict[str, Any]) -> bool:
    """Whether an intent, of a journal or an order, says what it must. Its name and ours are names of files."""
    return is_file_name(intent.get("name")) and _is_number(intent.get("number")) and is_time(intent.get("started"))


def is_file_name(value: object) -> bool:
    """Whether it can be the name of a file in one of our directories, and cannot lead out of it."""
    return isinstance(value, str) and value not in ("", ".", "..") and "/" not in value and "\0" not in value


def _is_number(value: object) -> bool:
    """A number that may be a pid or a count; anything else in a journal proves nothing."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _is_given(one: object) -> bool:
    """Whether it is a socket that was given to an instance: its key, the number it got, where it is bound."""
    if not isinstance(one, list) or len(one) != 3:
        return False
    return isinstance(one[0], str) and _is_number(one[1]) and isinstance(one[2], str)


def is_time(value: object) -> bool:
    """Seconds that one can reckon with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1 << 63


def sensible_order(order: dict[str, Any]) -> dict[str, Any]:
    """An order without what makes no sense of that which it need not hold. Raises ValueError for one about nobody."""
    names = [order[key] for key in ("id", "name") if key in order]
    if not all(map(is_file_name, names)) or not _is_number(order.get("number", 0)):
        raise ValueError(f"an order about nobody: {order}")
    found = dict(order)
    if "log" in order:
        found["log"] = sensible_log(order["log"])
    if "stop" in order:
        found |= {"stop": sensible_stop(order["stop"]), "scope": sensible_scope(order.get("scope"))}
    return found


def sensible(identity: str, intent: dict[str, Any]) -> dict[str, Any]:
    """The intent without what makes no sense of that which it need not hold."""
    found = dict(intent)
    cgroup, since = intent.get("cgroup"), intent.get("since")
    found["log"] = sensible_log(intent.get("log"))
    found["stop"] = sensible_stop(intent.get("stop"))
    found["scope"] = sensible_scope(intent.get("scope"))
    found["since"] = since if _is_number(since) else 0
    uid, ready, given = intent.get("uid"), intent.get("ready"), intent.get("given")
    found["uid"] = uid if isinstance(uid, int) and _is_number(uid) and uid < _LARGEST_ID else None
    found["ready"] = ready if _is_number(ready) else None
    found["given"] = [one for one in given if _is_given(one)] if isinstance(given, list) else []
    # What it names is emptied and removed in the end.
    if cgroup is not None and not (isinstance(cgroup, str) and cgroup.endswith(f"/{group_name(identity)}")):
        del found["cgroup"]
    return found


def group_name(identity: str) -> str:
    """How the control group of an instance is called: by when it was started. The rest is not for everybody to read."""
    return identity[:16]


def sensible_scope(scope: object) -> str:
    """Whom the signals of a stop sequence reach."""
    return "process" if scope == "process" else "tree"


def sensible_log(settings: object) -> dict[str, Any]:
    """The settings of a log without numbers that are none."""
    if not isinstance(settings, dict):
        return {}
    return {key: value for key, value in settings.items() if key not in ("max_bytes", "keep") or _is_number(value)}


def sensible_stop(steps: object) -> list[list[float]]:
    """The steps of a stop sequence up to the first that makes no sense: KILL follows in any case."""
    found: list[list[float]] = []
    for step in steps if isinstance(steps, list) else ():
        if not (isinstance(step, list) and len(step) == 2 and _is_number(step[0]) and is_time(step[1])):
            break
        found.append(step)
    return found


def _sensible_end(step: dict[str, Any]) -> dict[str, Any]:
    """How an instance ended, as its journal says; nobody knows where that makes no sense."""
    numbers, times, words = ("code", "signal", "rss_kb"), ("lived", "at", "cpu"), ("core", "oom", "ordered")
    end = {key: step[key] for key in numbers if _is_number(step.get(key))}
    end |= {key: step[key] for key in times if is_time(step.get(key))}
    end |= {key: step[key] for key in words if isinstance(step.get(key), bool)}
    return end if "code" in end or "signal" in end else end | {"unknown": True}


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
