"""An instance's descendants: who they are, signals to them, is the tree empty.

Instances are children of the keeper's worker thread, while the kernel gives orphans to the main thread of the nearest
subreaper (kernel/exit.c, find_new_reaper). So the main thread's list of children holds orphans only, and looking for
leftovers of one instance costs the same with ten instances as with ten thousand.
"""

from __future__ import annotations

import os
import select
import signal
import time

import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    Proof = Callable[[int], bool]

_MARK = b"NCOLONY_INSTANCE="
# The grain of start times (proc(5): sysconf(_SC_CLK_TCK)), in nanoseconds.
_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
_clock_agrees: bool | None = None
# Of our main thread.
_CHILDREN = kernel.Asked(f"/proc/{os.getpid()}/task/{os.getpid()}/children", 1 << 20)


def orphans() -> list[int]:
    """Pids of processes that lost their parent and were given to us. Empty where the kernel does not tell.

    Raises OSError when there is no descriptor left to ask with.
    """
    try:
        return [int(word) for word in _CHILDREN.read().split()]
    except OSError as error:
        if error.errno in kernel.NO_DESCRIPTORS:
            raise
        return []


def owner(pid: int) -> str | None:
    """Identity of the instance that the process belongs to by its environment, None without one.

    "" when the environment is empty, as it also is for a moment in the middle of an exec.
    """
    try:
        environment = kernel.read_file(f"/proc/{pid}/environ", 4 << 20)
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
    return kernel.read_file(f"/proc/{pid}/stat", 4096).rpartition(b")")[2].split()


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


def parent(pid: int) -> int:
    """The pid of a process's parent, 0 when it is gone."""
    try:
        return int(stat_fields(pid)[1])
    except (OSError, IndexError, ValueError):
        return 0


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot (proc(5), stat field 22), or None when it is gone."""
    try:
        return int(stat_fields(pid)[19])
    except (OSError, IndexError, ValueError):
        return None


def ticks() -> int | None:
    """Now, in the clock and the unit of start times, or None where there is no such clock."""
    return int(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // _TICK_NS) if hasattr(time, "CLOCK_BOOTTIME") else None


def when_started(pid: int, since: int | None) -> int | None:
    """When a process started that did so since the tick given, as `start_time`, but read from /proc only if need be.

    It mostly is within one tick. That /proc goes by our clock, as it does with Linux, is first seen once.
    """
    global _clock_agrees
    if since is None or ticks() != since or _clock_agrees is False:
        return start_time(pid)
    if _clock_agrees is None:
        began = start_time(pid)
        _clock_agrees = began == since
        return began
    return since


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
                children = kernel.read_file(f"/proc/{pid}/task/{thread}/children", 1 << 20)
                found += [int(word) for word in children.split()]
            except OSError:
                continue
    return found


def memory(pids: Iterable[int], limit: int) -> int:
    """Bytes of memory that these processes take together.

    What they share counts once for each at first, which is quick to find out; only where that is above the limit it is
    shared out among them (proc(5), smaps_rollup, Linux 4.14), for which the kernel looks at every page.
    """
    pids, page = list(pids), os.sysconf("SC_PAGE_SIZE")
    resident = 0
    for pid in pids:
        try:
            resident += int(kernel.read_file(f"/proc/{pid}/statm", 256).split()[1]) * page
        except (OSError, IndexError, ValueError):
            continue  # gone
    if resident <= limit:
        return resident
    shared_out = 0
    for pid in pids:
        try:
            found = kernel.read_file(f"/proc/{pid}/smaps_rollup", 1 << 16).partition(b"\nPss:")[2].split()
            shared_out += int(found[0]) << 10
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}"):
                return resident  # an older kernel
        except (OSError, IndexError, ValueError):
            continue
    return shared_out


def everybody(known: Container[int] = ()) -> dict[str, list[int]]:
    """{instance identity: its pids} by the environment of every process: for what an earlier keeper left.

    Those that are `known` are left out: of thousands most are, and each environment has to be opened and read.
    """
    found: dict[str, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in known and (identity := owner(int(entry))):
            found.setdefault(identity, []).append(int(entry))
    return found


class Held:
    """A process that is not our child: by a pidfd, or, where there are none, by its pid and start time."""

    __slots__ = ("began", "pid", "pidfd")

    def __init__(self, pid: int, pidfd: int | None = None) -> None:
        """Hold `pid` by the pidfd given (-1: none) or a new one. Raises ProcessLookupError when it is gone."""
        self.pid = pid
        self.pidfd = kernel.pidfd_open(pid) if pidfd is None else pidfd
        self.began = start_time(pid)
        if self.pidfd < 0 and self.began is None:
            raise ProcessLookupError(pid)

    def is_dead(self) -> bool:
        """Whether it has ended."""
        if self.pidfd < 0:
            return start_time(self.pid) != self.began or is_zombie(self.pid)
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def signal(self, number: int) -> None:
        """Send a signal. Raises OSError, as for a process that is gone."""
        if self.pidfd >= 0:
            signal.pidfd_send_signal(self.pidfd, number)
        elif not self.is_dead():
            os.kill(self.pid, number)

    def close(self) -> None:
        """Let go of it."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def send(
    ours: Iterable[int], held: Iterable[Held], others: Iterable[tuple[int, Proof]], number: int, wake: bool
) -> None:
    """Send one signal to a tree: parents first, but every descendant was proven before any of them can die.

    `ours` are unreaped children, whose pids cannot be recycled. Of `others`, each comes with a proof that the pid is
    still who it was when it was listed, since it may be an innocent's by now.
    """
    proven = [one for pid, proof in others if (one := _hold_if(pid, proof)) is not None]
    # SIGCONT follows, as in s6 and systemd: a stopped process cannot act on a polite signal.
    numbers = (number, signal.SIGCONT) if wake and number not in (signal.SIGKILL, signal.SIGCONT) else (number,)
    for each in numbers:
        for pid in ours:
            _quietly(os.kill, pid, each)
        for one in [*held, *proven]:
            _quietly(one.signal, each)
    for one in proven:
        one.close()


def is_below(family: Container[int]) -> Proof:
    """The proof that a process's parent is one of the tree."""
    return lambda pid: int(stat_fields(pid)[1]) in family


def _hold_if(pid: int, proof: Proof) -> Held | None:
    """The process, held, when it stands the proof."""
    try:
        held = Held(pid)
    except OSError:
        return None
    try:
        if proof(pid):
            return held
    except (OSError, IndexError, ValueError):
        pass
    held.close()
    return None


def named(pid: int) -> str:
    """The process as people are told of it: "pid 17 (sleep)", with its state where that explains why it stays."""
    try:
        name = kernel.read_file(f"/proc/{pid}/comm", 64).decode("utf-8", "backslashreplace").strip()
        # A process may call itself whatever it likes.
        name = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
        state = stat_fields(pid)[0].decode()
    except (OSError, IndexError):
        return f"pid {pid}"
    more = {"D": ", in uninterruptible sleep", "T": ", stopped", "t": ", traced", "Z": ", a zombie"}.get(state, "")
    return f"pid {pid} ({name}{more})"


def in_cgroup(directory: str) -> list[int]:
    """The processes of a control group and of those below it, none when it is gone."""
    found = []
    for group, _, _ in os.walk(directory):
        try:
            found += [int(word) for word in kernel.read_file(f"{group}/cgroup.procs", 1 << 20).split()]
        except OSError:
            continue
    return found


def _quietly(call: Callable[..., object], *arguments: int) -> None:
    try:
        call(*arguments)
    except OSError:
        pass  # gone already, or not ours to signal: a setuid program under a supervisor that is not root
