"""What the kernel offers beyond POSIX, each with what is done where it is missing; and the tests' way to do without.

`NCOLONY_WITHOUT`, words from `ABILITIES`, makes us do as if the kernel did not have them. `NCOLONY_KILL_AT` names a
directory: where the code says `reach("x")` and there is a file `x`, it is renamed (so it works once) and every process
whose pid it holds is killed, ourselves last; an empty file means ourselves. Nothing else reads these two.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import signal
import struct
import sys

# One entry of a log's file of cuts: where an instance ended without a newline, in bytes from the log's first ever.
CUT = struct.Struct("!Q")
# What open(2) and its kind say when there are too many open files, here or in the whole system.
NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
ABILITIES = ("pidfd", "exit-status", "subreaper", "cgroup", "inotify", "getfd")
_KILL_AT = os.environ.get("NCOLONY_KILL_AT")
# For the keeper, which inherits nothing else of its supervisor's environment.
PASSED_ON = {name: os.environ[name] for name in ("NCOLONY_WITHOUT", "NCOLONY_KILL_AT") if name in os.environ}

_PR_SET_CHILD_SUBREAPER = 36
# What a file of the kernel's gives at a time, and more than a line, or a word, of one that is `Asked`.
_PAGE, _LINE = os.sysconf("SC_PAGE_SIZE"), 64
# Of all architectures, as every system call that is newer than Linux 5.0.
_SYS_PIDFD_GETFD = 438
# PIDFD_GET_INFO (Linux 6.13; exit status since 6.15): _IOWR(0xFF, 11, struct pidfd_info), and its bits.
_GET_INFO = (3 << 30) | (64 << 16) | (0xFF << 8) | 11
_ASK = 1 | 2 | 4 | 8
_EXIT = 8


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def has(ability: str) -> bool:
    """Whether to try it at all."""
    return ability not in os.environ.get("NCOLONY_WITHOUT", "").split()


def reach(point: str) -> None:
    """A place where tests may have us killed."""
    if _KILL_AT:
        _kill_at(f"{_KILL_AT}/{point}")


def _kill_at(path: str) -> None:
    try:
        os.rename(path, f"{path}.reached")
        with open(f"{path}.reached") as file:
            pids = [int(word) for word in file.read().split()] or [os.getpid()]
    except FileNotFoundError:
        return
    for pid in sorted(pids, key=lambda pid: pid == os.getpid()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


class Opened:
    """An open file for a `with`, also when all descriptors are used up: one is kept free for it."""

    spare = -1

    def __init__(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o600) -> None:
        """Raises OSError, as open(2) does."""
        try:
            self.descriptor = os.open(path, flags, mode)
        except OSError as error:
            if error.errno not in NO_DESCRIPTORS or Opened.spare < 0:
                raise
            os.close(Opened.spare)
            Opened.spare = -1
            try:
                self.descriptor = os.open(path, flags, mode)
            except OSError:
                self.keep_spare()
                raise

    @staticmethod
    def keep_spare() -> None:
        """Keep a descriptor free for later."""
        if Opened.spare < 0:
            Opened.spare = os.open(os.devnull, os.O_RDONLY)

    def __enter__(self) -> int:
        return self.descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)
        self.keep_spare()


def read_file(path: str, most: int) -> bytes:
    """What is in a file of the kernel's, which gives some only page by page. Raises OSError."""
    found = b""
    with Opened(path) as file:
        while len(found) < most and (part := os.read(file, most)):
            found += part
    return found


class Asked:
    """A file of the kernel's that is asked again and again: opened once, since that costs more than to read it."""

    def __init__(self, path: str, most: int) -> None:
        self._path, self._most, self._descriptor = path, most, -1

    def read(self) -> bytes:
        """What it says now. Raises OSError."""
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_RDONLY)
        found = b""
        while part := os.pread(self._descriptor, self._most, len(found)):
            found += part
            if len(part) < _PAGE - _LINE:
                break  # it gives a page, but for a line that does not fit, as long as there is more
        return found


def peek(fifo: int, most: int) -> bytes:
    """What is next in a FIFO, where it stays (tee(2), Linux 2.6.17); nothing when it is empty. Raises OSError."""
    there, here = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        seen = _libc().tee(fifo, here, ctypes.c_size_t(most), os.SPLICE_F_NONBLOCK)
        return os.read(there, most) if seen > 0 else b""
    finally:
        os.close(there)
        os.close(here)


def become_subreaper() -> bool:
    """Become the parent of descendants that lose theirs, instead of PID 1 (prctl(2), Linux 3.4); False where not."""
    if not has("subreaper") or sys.platform != "linux":
        return False
    return bool(_libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def pidfd_open(pid: int) -> int:
    """A descriptor that stands for the process (Linux 5.3), or -1 where there are none, or none left.

    Raises ProcessLookupError when there is no such process.
    """
    if not has("pidfd") or not hasattr(os, "pidfd_open"):
        return -1
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ENOSYS, *NO_DESCRIPTORS):
            return -1
        raise


def pidfd_getfd(pidfd: int, number: int) -> int:
    """A duplicate of another process's descriptor (Linux 5.6), or -1 where there is none, or we may not have it.

    It takes what debugging it would take: CAP_SYS_PTRACE, or the same user and a `kernel.yama.ptrace_scope` of 0.
    """
    if pidfd < 0 or not has("getfd") or sys.platform != "linux":
        return -1
    return int(_libc().syscall(_SYS_PIDFD_GETFD, pidfd, number, 0))


def exit_status(pidfd: int) -> int | None:
    """The wait status of a process that its parent has reaped, or None when it is not known (yet, or here)."""
    if not has("exit-status"):
        return None
    info = bytearray(64)
    struct.pack_into("Q", info, 0, _ASK)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, info)
    except OSError:
        return None
    mask, _cgroup, *rest = struct.unpack("QQ11Ii", info)
    return int(rest[11]) if mask & _EXIT else None
