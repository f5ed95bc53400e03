"""The monotonic clock for the reactor: Twisted's timers follow the wall clock, which may jump."""

from __future__ import annotations

import time
from typing import Any


def make_steady(reactor: Any) -> None:
    """Have the timers of `reactor` follow the monotonic clock; to be called before any is set."""
    if not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic


def local_offset(moment: float) -> float:
    """How many seconds the clock of the machine's time zone is ahead of UTC at this moment (TZ, or /etc/localtime)."""
    try:
        return time.localtime(moment).tm_gmtoff
    except (OSError, ValueError) as error:
        raise OverflowError(str(error)) from error
