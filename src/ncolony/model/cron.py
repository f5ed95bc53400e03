"""The words of a schedule that stand for times: cron expressions and names of time zones.

What it takes to understand them is imported when the first one is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Offset = Callable[[float], float]
"""Tells how many seconds the local clock is ahead of UTC at a moment, which is in seconds since 1970."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# As crontab(5) has them, but for @reboot, which is no time.
_SHORTHANDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# An expression that has no moment in fifty years from here has none at all: 40 years is the longest wait that the
# calendar has to offer, for a 29 February of a certain weekday around a year like 2100.
_EXAMPLE = datetime(2000, 1, 1)  # noqa: DTZ001 (the days of the calendar are the same everywhere)


def plain_cron(text: str) -> str:
    """The expression in five or six fields, shorthands such as @hourly written out."""
    words = text.split()
    return _SHORTHANDS.get(words[0].lower(), words[0]) if len(words) == 1 else " ".join(words)


def wrong_cron(text: str | None) -> str | None:
    """What is wrong with a cron expression."""
    if text is None:
        return None
    from cronsim import CronSim, CronSimError

    plain = plain_cron(text)
    if len(plain.split()) not in (5, 6):
        return 'expected a cron expression: five fields, six with seconds as the first one, or a word like "@hourly"'
    try:
        next(CronSim(plain, _EXAMPLE))
    except CronSimError as error:
        field = str(error).removeprefix("Bad ")
        return f"expected a cron expression, but its {field} makes no sense or never comes"
    except StopIteration:
        return "expected a cron expression, but this one never comes"
    except (ValueError, AssertionError):  # more digits than Python reads; a step where none can be
        return "expected a cron expression"
    return None


def wrong_zone(name: str | None) -> str | None:
    """What is wrong with the name of a time zone."""
    if name is None:
        return None
    try:
        zone(name)
    except ValueError as error:
        return str(error)
    return None


def zone(name: str) -> Offset:
    """The time zone of this name. Raises ValueError, with the reason, where it is not known."""
    import zoneinfo

    try:
        found = zoneinfo.ZoneInfo(name)
    # Besides what is documented: a directory, a file that may not be read or is no zone, NUL, a name too long.
    except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError) as error:
        # Where even this one is missing there is no data, and its package is to be named.
        if name != "UTC" and wrong_zone("UTC") is None:
            raise ValueError('expected a time zone such as "Europe/Berlin"') from error
        raise ValueError("no time zones are installed here (package tzdata of the system, or of PyPI)") from error

    def offset(moment: float) -> float:
        ahead = (_EPOCH + timedelta(seconds=moment)).astimezone(found).utcoffset()
        return 0.0 if ahead is None else ahead.total_seconds()

    return offset
