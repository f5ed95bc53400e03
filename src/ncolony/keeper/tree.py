"""An instance's descendants: who they are, signals to them, is the tree empty.

Instances are children of the keeper's worker thread, while the kernel gives orphans to the main thread of the nearest
subreaper (kernel/exit.c, find_new_reaper). So the main thread's list of children holds orphans only, and looking for
leftovers of one instance costs the same with ten instances as with ten thousand.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    Proof = Callable[[int], bool]

_MARK = b"NCOLONY_INSTANCE="


def orphans() -> list[int]:
    """Pids of processes that lost their parent and were given to us. Empty where the kernel does not tell."""
    pid = os.getpid()
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb", buffering=0) as file:
            return [int(word) for word in file.read(1 << 20).split()]
    except OSError:
        return []


def owner(pid: int) -> str | None:
    """Identity of the instance that the process belongs to by its environment, None without one.

    "" when the environment is empty, as it also is for a moment in the middle of an exec.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            environment = file.read(4 << 20)
    except OSError:
        return None
    if not environment:
        return ""
    if environment.startswith(_MARK):
        return environment[len(_MARK) :].partition(b"\0")[0].decode("ascii", "replace")
    _, found, rest = environment.partition(b"\0" + _MARK)
    return rest.partition(b"\0")[0].decode("ascii", "replace") if found else None


def stat_fields(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third on (state, ppid, pgrp, session, …). Raises OSError."""
    with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
        return file.read(4096).rpartition(b")")[2].split()


def is_zombie(pid: int) -> bool:
    """True for a process that is dead and not yet reaped, or gone."""
    try:
        return stat_fields(pid)[0] == b"Z"
    except (OSError, IndexError):
        return True


def session(pid: int) -> int:
    """The session a process belongs to, 0 when it is gone."""
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot (proc(5), stat field 22), or None when it is gone."""
    try:
        return int(stat_fields(pid)[19])
    except (OSError, IndexError, ValueError):
        return None


def with_descendants(roots: Iterable[int]) -> list[int]:
    """`roots` and everything below them, parents first."""
    found = list(roots)
    for pid in found:
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for thread in threads:
            try:
                with open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as file:
                    found += [int(word) for word in file.read(1 << 20).split()]
            except OSError:
                continue
    return found


def everybody() -> dict[str, list[int]]:
    """{instance identity: its pids} by the environment of every process: for what an earlier keeper left."""
    found: dict[str, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (identity := owner(int(entry))):
            found.setdefault(identity, []).append(int(entry))
    return found


def send(
    ours: Iterable[int], held: Iterable[int], others: Iterable[tuple[int, Proof]], number: int, wake: bool
) -> None:
    """Send one signal to a tree: parents first, but every descendant was proven before any of them can die.

    `ours` are unreaped children, whose pids cannot be recycled; `held` are pidfds. Of `others`, each comes with a proof
    that the pid is still who it was when it was listed, since it may be an innocent's by now.
    """
    proven = []
    for pid, proof in others:
        held_now = _hold_if(pid, proof)
        if held_now is not None:
            proven.append(held_now)
    # SIGCONT follows, as in s6 and systemd: a stopped process cannot act on a polite signal.
    numbers = (number, signal.SIGCONT) if wake and number not in (signal.SIGKILL, signal.SIGCONT) else (number,)
    for each in numbers:
        for pid in ours:
            _quietly(os.kill, pid, each)
        for pidfd in held:
            _quietly(signal.pidfd_send_signal, pidfd, each)
        for pid, pidfd in proven:
            if pidfd < 0:
                _quietly(os.kill, pid, each)
            else:
                _quietly(signal.pidfd_send_signal, pidfd, each)
    for _, pidfd in proven:
        if pidfd >= 0:
            os.close(pidfd)


def is_below(family: Container[int]) -> Proof:
    """The proof that a process's parent is one of the tree."""
    return lambda pid: int(stat_fields(pid)[1]) in family


def is_marked(identity: str) -> Proof:
    """The proof that a process carries the instance's identity."""
    return lambda pid: owner(pid) == identity


def _hold_if(pid: int, proof: Proof) -> tuple[int, int] | None:
    """(pid, pidfd) of a process that stands the proof; pidfd -1 where there are none (not Linux)."""
    try:
        pidfd = os.pidfd_open(pid)
    except AttributeError:
        pidfd = -1
    except OSError:
        return None
    try:
        if proof(pid):
            return pid, pidfd
    except (OSError, IndexError, ValueError):
        pass
    if pidfd >= 0:
        os.close(pidfd)
    return None


def _quietly(call: Callable[..., object], *arguments: int) -> None:
    try:
        call(*arguments)
    except OSError:
        pass  # gone already, or not ours to signal: a setuid program under a supervisor that is not root
