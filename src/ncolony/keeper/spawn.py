"""Start an instance: own session, user, directory, environment, output into its FIFO; journal before and after."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import signal
import sys

from kernel import Opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_EVERY_SIGNAL = [s for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP)]


class Refused(Exception):
    """The instance could not be started; the text is the reason, in the user's words."""


class Journal:
    """What is on disk about instances: one file each, to which a line is added per step of its life.

    `intent` before the spawn, `record` once it runs, `exit` before it is reaped. A line is one write, so a SIGKILL
    leaves it whole or absent; the file's name alone is enough of an intent.
    """

    def __init__(self, state: str) -> None:
        self.directory = os.path.join(state, "instances")
        os.makedirs(self.directory, mode=0o700, exist_ok=True)

    def add(self, identity: str, line: dict[str, Any], create: bool = False) -> None:
        """Append one line. Raises OSError: a full disk, a directory that was taken away."""
        flags = os.O_WRONLY | os.O_APPEND | (os.O_CREAT | os.O_EXCL if create else 0)
        with Opened(f"{self.directory}/{identity}", flags) as descriptor:
            data = json.dumps(line).encode() + b"\n"
            if os.write(descriptor, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def forget(self, identity: str) -> None:
        """Remove the file; one that is gone already is fine."""
        with contextlib.suppress(OSError):
            os.unlink(f"{self.directory}/{identity}")

    def read(self) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
        """Every instance on disk as (identity, {step: line}); torn lines are left out."""
        for identity in sorted(os.listdir(self.directory)):
            steps: dict[str, dict[str, Any]] = {}
            if os.path.isdir(f"{self.directory}/{identity}"):
                continue
            with open(f"{self.directory}/{identity}", "rb") as file:
                for line in file:
                    try:
                        found = json.loads(line)
                        steps[found["step"]] = found
                    except (ValueError, KeyError, TypeError, RecursionError):
                        continue
            yield identity, steps


def make_cgroup(directory: str) -> str:
    """Make a control group; its path, or "" where none is wanted or it cannot be made: it is a help, no condition."""
    try:
        if directory:
            os.mkdir(directory)
    except OSError:
        return ""
    return directory


def _enter_cgroup(directory: str) -> None:
    """Go into a control group, if there is one."""
    with contextlib.suppress(OSError):
        if directory:
            with open(f"{directory}/cgroup.procs", "w") as file:
                file.write("0")


def kill_cgroup(directory: str) -> None:
    """Kill everything in a control group (Linux 5.14)."""
    # An older kernel does not do that; each process gets its signal all the same.
    with contextlib.suppress(OSError), open(f"{directory}/cgroup.kill", "w") as file:
        file.write("1")


def remove_cgroup(directory: str) -> None:
    """Remove an empty control group, and what its processes made below it."""
    for group, _, _ in os.walk(directory, topdown=False) if directory else ():
        try:
            os.rmdir(group)
        except OSError:
            continue


def spawn(order: dict[str, Any], fifos: dict[int, str], cgroup: str, given: dict[int, int]) -> int:
    """Start what `order` says; its pid. Of its descriptors some are FIFOs, some duplicates of ours. Raises Refused."""
    # Into its control group it must go itself, before it can start anything; the rest posix_spawn cannot set.
    itself = cgroup or given or any(order.get(key) is not None for key in ("uid", "gid", "nice", "oom_score_adj"))
    try:
        if itself or order.get("limits"):
            return _by_fork(order, fifos, cgroup, given)
        return _by_posix_spawn(order, fifos)
    except OSError as error:
        raise Refused(f"cannot run {order['path']!r}: {error.strerror}") from None


def _by_posix_spawn(order: dict[str, Any], fifos: dict[int, str]) -> int:
    """The fast way: vfork, so its cost does not grow with us. What it cannot set is set here for a moment.

    This thread is the only one that uses files, so nobody else sees the borrowed directory, umask and limit.
    """
    umask, limit = os.umask(order["umask"]), None
    try:
        _enter(order["cwd"])
        limit = _lower_limit(order.get("nofile"))
        return os.posix_spawn(
            order["path"],
            order["argv"],
            order["env"],
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                *((os.POSIX_SPAWN_OPEN, number, path, os.O_RDWR, 0) for number, path in fifos.items()),
            ),
            setsid=True,
            setsigmask=(),
            setsigdef=_EVERY_SIGNAL,
        )
    finally:
        if limit:
            _set_limit(limit)
        os.umask(umask)
        os.chdir("/")


def _enter(directory: str) -> None:
    try:
        os.chdir(directory)
    except OSError as error:
        raise Refused(f"cannot enter directory {directory!r}: {error.strerror}") from None


def _lower_limit(soft: int | None) -> tuple[int, int] | None:
    """Give the child the soft limit of descriptors that the supervisor was started with; ours, to be set back."""
    if soft is None:
        return None
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)
    if ours[0] == soft:
        return None
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, ours[1]), ours[1]))
    return ours


def _set_limit(limit: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def _by_fork(order: dict[str, Any], fifos: dict[int, str], cgroup: str, given: dict[int, int]) -> int:
    """The way for another user or a control group: what fails before the exec comes back through a pipe."""
    told, tell = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(told)
        os.close(tell)
        raise
    if not pid:
        _enter_cgroup(cgroup)
        _become(order, fifos, given, tell)
    os.close(tell)
    with open(told, "rb") as pipe:
        why = pipe.read()
    if why:
        os.waitpid(pid, 0)
        raise Refused(why.decode("utf-8", "replace"))
    return pid


def _place(fifos: dict[int, str], given: dict[int, int], tell: int) -> int:
    """Put every descriptor where the program expects it; where the one named `tell` is now."""
    # All of them beyond those places first: one may lie where another has to go.
    beyond = max([2, *fifos, *given]) + 1
    tell = fcntl.fcntl(tell, fcntl.F_DUPFD_CLOEXEC, beyond)
    moved = {number: fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, beyond) for number, descriptor in given.items()}
    for number, path in {0: os.devnull, **fifos}.items():
        opened = os.open(path, os.O_RDWR if number else os.O_RDONLY)
        moved[number] = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, beyond)
    for number, descriptor in moved.items():
        os.dup2(descriptor, number)
    return tell


def _become(order: dict[str, Any], fifos: dict[int, str], given: dict[int, int], tell: int) -> None:
    """In the forked child: take on what the order says and exec. Never returns."""
    doing = "prepare"
    try:
        os.setsid()
        tell = _place(fifos, given, tell)
        os.umask(order["umask"])
        _lower_limit(order.get("nofile"))
        if order.get("nice") is not None:
            doing = f"set nice to {order['nice']}"
            os.setpriority(os.PRIO_PROCESS, 0, order["nice"])
        if order.get("oom_score_adj") is not None:
            doing = f"set oom_score_adj to {order['oom_score_adj']}"
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write(str(order["oom_score_adj"]))
        # Above the limits of its user only root can set them: before the user is changed. Nothing is opened after it.
        for name, values in (order.get("limits") or {}).items():
            doing = f"set limit {name} to {' and '.join('unlimited' if one == -1 else str(one) for one in values)}"
            resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), tuple(values))
        doing = f"become user {order.get('uid')} and group {order.get('gid')}"
        if order.get("groups") is not None:
            os.setgroups(order["groups"])
        if order.get("gid") is not None:
            os.setresgid(order["gid"], order["gid"], order["gid"])
        if order.get("uid") is not None:
            os.setresuid(order["uid"], order["uid"], order["uid"])
        doing = f"enter directory {order['cwd']!r}"
        os.chdir(order["cwd"])
        doing = f"run {order['path']!r}"
        for number in _EVERY_SIGNAL:
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                pass  # the two that the C library keeps for itself
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if given:
            order["env"]["LISTEN_PID"] = str(os.getpid())
        os.execve(order["path"], order["argv"], order["env"])
    except OSError as error:
        os.write(tell, f"cannot {doing}: {error.strerror}".encode("utf-8", "replace"))
    except BaseException as error:
        os.write(tell, f"cannot {doing}: {error}".encode("utf-8", "replace"))
    finally:
        sys.stderr = None
        os._exit(127)
