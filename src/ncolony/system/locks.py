"""Who lives is told by the lock that it holds, from its start to its end, however that comes."""

from __future__ import annotations

import fcntl
import os


def is_held(path: str) -> bool:
    """Whether somebody holds the lock on this file exclusively. It is tried for an instant, and never created.

    :raises OSError: when the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # Shared: two who ask at the same time do not deceive each other. Supervisor and keeper, which may start at
        # this moment, try for 2 s.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
