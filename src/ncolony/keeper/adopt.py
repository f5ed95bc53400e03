"""Find and prove the instances that a former keeper started; the exit status of a process that is not our child.

A process that cannot be proven ours is neither adopted nor signalled.
"""

from __future__ import annotations

import fcntl
import functools
import os
import select
import struct

import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from spawn import Journal

# PIDFD_GET_INFO (Linux 6.13; exit status since 6.15): _IOWR(0xFF, 11, struct pidfd_info), and its bits.
_GET_INFO = (3 << 30) | (64 << 16) | (0xFF << 8) | 11
_ASK = 1 | 2 | 4 | 8
_EXIT = 8


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
    """One instance on disk: alive (`pid` and `pidfd`), ended with a known exit line, or ended with an unknown one."""

    def __init__(
        self,
        identity: str,
        intent: dict[str, Any],
        end: dict[str, Any],
        pid: int = 0,
        pidfd: int = -1,
    ) -> None:
        self.identity, self.intent, self.end, self.pid, self.pidfd = identity, intent, end, pid, pidfd


def find(journal: Journal) -> list[Found]:
    """Every instance of this boot that a former keeper started, as Found; what is stale is forgotten."""
    here, found = boot(), []
    everybody: dict[str, list[int]] | None = None
    for identity, steps in journal.read():
        intent = steps.get("intent")
        if intent is None or intent.get("boot") != here or not _is_whole(intent):
            journal.forget(identity)
            continue
        if everybody is None:
            everybody = tree.everybody()
        one = _prove(identity, steps, everybody.get(identity, []))
        if one is None:
            journal.forget(identity)
        else:
            found.append(one)
    return found


def _prove(identity: str, steps: dict[str, dict[str, Any]], marked: Sequence[int]) -> Found | None:
    """What became of one instance; None when it was never started."""
    intent = steps["intent"]
    recorded = steps.get("record")
    if recorded is not None and not (_is_number(recorded.get("pid")) and _is_number(recorded.get("began"))):
        recorded = None
    if "exit" in steps:
        return Found(identity, intent, steps["exit"])
    if recorded is None:
        leader = next((pid for pid in marked if tree.session(pid) == pid), None)
        if leader is None and not marked:
            return None
        recorded = {"pid": leader, "began": leader and tree.start_time(leader)}
    pid, began = recorded["pid"], recorded["began"]
    pidfd = _open_if_it_is(pid, began)
    if pidfd is not None:
        return Found(identity, intent, {}, pid, pidfd)
    return Found(identity, intent, {"step": "exit", "unknown": True})


def _is_whole(intent: dict[str, Any]) -> bool:
    return isinstance(intent.get("name"), str) and all(_is_number(intent.get(key)) for key in ("number", "started"))


def _is_number(value: object) -> bool:
    """A number that may be a pid or a time; anything else in a journal proves nothing."""
    return isinstance(value, int | float) and 0 <= value < 1 << 63


def _open_if_it_is(pid: int | None, began: int | None) -> int | None:
    """A pidfd of the process, or None when it is dead or the pid is another's by now."""
    if not pid or began is None:
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, AttributeError, OverflowError, TypeError):
        return None  # any other failure is doubt, not death: it ends the adoption, which is tried again
    # Read after opening, and still alive afterwards: then what was read was of the process that we hold.
    if tree.start_time(pid) == began and not _dead(pidfd):
        return pidfd
    os.close(pidfd)
    return None


def _dead(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def exit_status(pidfd: int) -> int | None:
    """The wait status of a process that its parent has reaped, or None when it is not known (yet, or here)."""
    info = bytearray(64)
    struct.pack_into("Q", info, 0, _ASK)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, info)
    except OSError:
        return None
    mask, _cgroup, *rest = struct.unpack("QQ11Ii", info)
    return int(rest[11]) if mask & _EXIT else None
