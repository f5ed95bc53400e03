"""What we ask of the kernel for ourselves."""

from __future__ import annotations

import contextlib
import os
import resource
import sys

from ..keeper.kernel import has


def raise_descriptor_limit() -> int:
    """Allow ourselves every descriptor there is; the soft limit that we were started with, for instances."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # An unlimited hard limit is refused where the system has one of its own.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def descriptors() -> int:
    """How many descriptors we are allowed."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def descriptors_of(pid: int | None) -> int | None:
    """How many descriptors another process of ours is allowed; None where that cannot be told (only Linux can)."""
    if pid is None or sys.platform != "linux":
        return None
    try:
        return resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    except OSError:
        return None


def raise_for(pid: int | None) -> None:
    """Allow another process of ours as many descriptors as we have, or as many as we may give it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    theirs = descriptors_of(pid)
    if pid is None or theirs is None or theirs >= soft or sys.platform != "linux":
        return
    with contextlib.suppress(OSError, ValueError):
        most = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
        try:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, max(hard, most)))
        except PermissionError:  # more than its own hard limit only root may give
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(soft, most), most))


# Where the unified hierarchy is mounted: alone, or beside the first version's.
_CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
# systemd marks with these what it has handed over (Delegate=yes).
_DELEGATED = ("trusted.delegate", "user.delegate")


def find_cgroup(asked: str) -> str | None:
    """The control group that instances get theirs below; None without one. `asked` is a directory, auto or none.

    Only what was delegated to us is used unasked: groups have an owner, and it may not be us.

    :raises ValueError: when what is asked for cannot be used.
    """
    if asked == "none" or not has("cgroup"):
        return None
    if asked != "auto":
        if not os.path.isfile(f"{asked}/cgroup.events") and not os.path.isfile(f"{asked}/cgroup.threads"):
            raise ValueError(f"{asked} is no control group of version 2")
        if not os.access(asked, os.W_OK):
            raise ValueError(f"{asked} may not be written")
        return os.path.abspath(asked)
    try:
        with open("/proc/self/cgroup") as file:
            own = next(line.rstrip("\n")[3:] for line in file if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    for mounted in _CGROUPS:
        directory = mounted + own
        if os.path.exists(f"{directory}/cgroup.kill") and os.access(directory, os.W_OK) and _is_delegated(directory):
            return directory
    return None


def _is_delegated(directory: str) -> bool:
    for attribute in _DELEGATED:
        try:
            return os.getxattr(directory, attribute) == b"1"
        except OSError:
            continue
    return False
