"""Calendar events of systemd (systemd.time(7)): read as times, and times written as them."""

from __future__ import annotations

import itertools
import re

from . import crons, words
from .crons import Times
from .report import NOT_MAPPED, Refused

_SHORTHANDS = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
    "semi-annually": "*-01,07-01 00:00:00",
    "biannually": "*-01,07-01 00:00:00",
    "yearly": "*-01-01 00:00:00",
    "annually": "*-01-01 00:00:00",
    "anually": "*-01-01 00:00:00",
}
# As systemd has them, so that a range may go on to Sunday.
_WEEK = "monday tuesday wednesday thursday friday saturday sunday".split()
_NUMBERS = r"[0-9*][0-9*,./]*"
_DATE = re.compile(rf"(?:({_NUMBERS})-)?({_NUMBERS})([-~])({_NUMBERS})", re.ASCII)
_TIME = re.compile(rf"({_NUMBERS}):({_NUMBERS})(?::({_NUMBERS}))?", re.ASCII)
_AGAIN = "expected a calendar event such as Mon..Fri 10:00"


def parse(text: str) -> tuple[Times, str]:
    """The times of a calendar event, and its time zone or "".

    :raises Refused: when it is none, or one of which `schedule` cannot tell.
    """
    parts = text.split()
    zone = ""
    if len(parts) > 1 and words.is_timezone(parts[-1]):
        zone = parts.pop()
    if len(parts) == 1 and parts[0].lower() in _SHORTHANDS:
        parts = _SHORTHANDS[parts[0].lower()].split()
    if parts and parts[0].startswith("@"):
        raise Refused("a single moment is no schedule", result=NOT_MAPPED)
    weekdays = crons.EVERY_WEEKDAY
    if parts and parts[0][0].isalpha():
        weekdays = _weekdays(parts.pop(0))
    has_date = bool(parts) and ":" not in parts[0]
    if len(parts) > has_date + 1 or (not parts and weekdays == crons.EVERY_WEEKDAY):
        raise Refused(_AGAIN)
    date = _DATE.fullmatch(parts[0]) if has_date else None
    time = _TIME.fullmatch(parts[-1]) if len(parts) > has_date else None
    if (has_date and date is None) or (len(parts) > has_date and time is None):
        raise Refused(_AGAIN)
    months, days = frozenset(range(1, 13)), crons.EVERY_DAY
    if date is not None:
        if date[1] not in (None, "*"):
            raise Refused("a year cannot be said in a cron expression", result=NOT_MAPPED)
        if date[3] == "~":
            raise Refused("days counted from the end of a month cannot be said", result=NOT_MAPPED)
        months, days = _values(date[2], 1, 12), _values(date[4], 1, 31)
    hours, minutes, seconds = (time[1], time[2], time[3] or "00") if time is not None else ("00", "00", "00")
    found = Times(_values(seconds, 0, 59), _values(minutes, 0, 59), _values(hours, 0, 23), days, months, weekdays)
    return found, zone


def render(times: Times, zone: str = "") -> list[str]:
    """The calendar events that together are these times."""
    if times.either:
        return [
            *render(times._replace(weekdays=crons.EVERY_WEEKDAY, either=False), zone),
            *render(times._replace(days=crons.EVERY_DAY, either=False), zone),
        ]
    date = f"*-{_field(times.months, 1, 12)}-{_field(times.days, 1, 31)}"
    time = f"{_field(times.hours, 0, 23)}:{_field(times.minutes, 0, 59)}:{_field(times.seconds, 0, 59)}"
    parts = [date, time, *([zone] if zone else [])]
    if times.weekdays != crons.EVERY_WEEKDAY:
        week = sorted((day - 1) % 7 for day in times.weekdays)
        names = [_WEEK[day][:3].capitalize() for day in range(7)]
        spans = [names[a] if a == b else f"{names[a]}..{names[b]}" for a, b in crons.runs(week)]
        parts.insert(0, ",".join(spans))
    return [" ".join(parts)]


def _weekdays(text: str) -> frozenset[int]:
    """Days of the week as cron counts them."""
    found: set[int] = set()
    for part in text.rstrip(",").split(","):
        first, _, last = part.replace("-", "..").partition("..")
        low, high = _weekday(first), _weekday(last or first)
        if high < low:
            raise Refused(f"{part}: the range ends before it begins")
        found.update((day + 1) % 7 for day in range(low, high + 1))
    return frozenset(found)


def _weekday(text: str) -> int:
    for number, name in enumerate(_WEEK):
        if text.lower() in (name, name[:3]):
            return number
    raise Refused(f"{text}: there is no such day or word")


def _values(text: str, least: int, most: int) -> frozenset[int]:
    """The values of one component."""
    found: set[int] = set()
    for part in text.split(","):
        if part == "*":
            found.update(range(least, most + 1))
            continue
        span, slash, step = part.partition("/")
        first, dots, last = span.partition("..")
        if any(re.fullmatch(r"[0-9]+\.[0-9]+", one, re.ASCII) for one in (first, last, step)):
            raise Refused("parts of a second cannot be said", result=NOT_MAPPED)
        low = words.whole(first, least, most)
        high = words.whole(last, least, most) if dots else most if slash else low
        width = words.whole(step, 1, most) if slash else 1
        if high < low:
            raise Refused(f"{part}: the range ends before it begins")
        found.update(range(low, high + 1, width))
    return frozenset(found)


def _field(values: frozenset[int], least: int, most: int) -> str:
    if len(values) == most - least + 1:
        return "*"
    ordered = sorted(values)
    gaps = {after - before for before, after in itertools.pairwise(ordered)}
    if len(ordered) > 2 and len(gaps) == 1 and (gap := gaps.pop()) > 1:
        whole = ordered[-1] + gap > most
        return f"{ordered[0]:02}/{gap}" if whole else f"{ordered[0]:02}..{ordered[-1]:02}/{gap}"
    return ",".join(f"{a:02}" if a == b else f"{a:02}..{b:02}" for a, b in crons.runs(ordered))
