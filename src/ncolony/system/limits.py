"""What we ask of the kernel for ourselves."""

from __future__ import annotations

import os
import resource

from ..keeper.kernel import has


def raise_descriptor_limit() -> int | None:
    """Allow ourselves every descriptor there is; the soft limit for instances, None where nothing had to change."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return None
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # an unlimited hard limit, where the system has one of its own
        return None
    return soft


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
