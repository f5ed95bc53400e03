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
    from collections.abc import Callable, Iterable

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
    """Identity of the instance that the process belongs to by its environment, or None."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            environment = file.read(4 << 20)
    except OSError:
        return None
    if environment.startswith(_MARK):
        return environment[len(_MARK) :].partition(b"\0")[0].decode("ascii", "replace")
    _, found, rest = environment.partition(b"\0" + _MARK)
    return rest.partition(b"\0")[0].decode("ascii", "replace") if found else None


def stat_fields(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third on (state, ppid, pgrp, session, …). Raises OSError."""
    with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
        return file.read(4096).rpartition(b")")[2].split()


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


def send(ours: Iterable[int], others: Iterable[int], number: int, wake: bool, family: Iterable[int] = ()) -> None:
    """Send one signal to `ours`, unreaped children whose pids cannot be recycled, and to `others`, their descendants.

    A descendant may be gone and its pid taken by an innocent since it was listed: it is signalled through a pidfd, and
    only if its parent is still one of the tree. `wake` follows up with SIGCONT, as s6 and systemd do, since a stopped
    process cannot act on a polite signal.
    """
    for pid in ours:
        for each in _numbers(number, wake):
            _quietly(os.kill, pid, each)
    tribe = {*ours, *others, *family}
    for pid in others:
        _prove_and_send(pid, lambda pid: int(stat_fields(pid)[1]) in tribe, number, wake)


def send_held(pidfd: int, number: int, wake: bool) -> None:
    """Send one signal to a process that we hold by its pidfd."""
    for each in _numbers(number, wake):
        _quietly(signal.pidfd_send_signal, pidfd, each)


def send_marked(pids: Iterable[int], identity: str, number: int, wake: bool) -> None:
    """Send one signal to processes that are not our children, each only if it carries the instance's identity."""
    for pid in pids:
        _prove_and_send(pid, lambda pid: owner(pid) == identity, number, wake)


def _numbers(number: int, wake: bool) -> tuple[int, ...]:
    return (number, signal.SIGCONT) if wake and number not in (signal.SIGKILL, signal.SIGCONT) else (number,)


def _prove_and_send(pid: int, proof: Callable[[int], bool], number: int, wake: bool) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    except AttributeError:  # not Linux: the check and the signal are two steps there
        descriptor = None
    try:
        if proof(pid):
            for each in _numbers(number, wake):
                if descriptor is None:
                    _quietly(os.kill, pid, each)
                else:
                    _quietly(signal.pidfd_send_signal, descriptor, each)
    except (OSError, IndexError, ValueError):
        pass
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _quietly(call: Callable[..., object], *arguments: int) -> None:
    try:
        call(*arguments)
    except OSError:
        pass  # gone already, or not ours to signal: a setuid program under a supervisor that is not root
