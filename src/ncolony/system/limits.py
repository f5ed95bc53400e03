"""What we ask of the kernel for ourselves."""

from __future__ import annotations

import ctypes
import resource
import sys

# prctl(2); since Linux 3.4.
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Become the parent of descendants that lose theirs, instead of PID 1. Elsewhere than on Linux: nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


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
