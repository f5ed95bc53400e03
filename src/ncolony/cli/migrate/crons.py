"""Cron expressions: what one means, and one that means the same to every cron there is."""

from __future__ import annotations

import itertools
import re
from typing import NamedTuple

from . import words
from .report import Refused

MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
DAYS = "sun mon tue wed thu fri sat".split()
NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
# Name, least, most, names of values; a day of the week may be 7, which is Sunday.
_FIELDS: list[tuple[str, int, int, list[str]]] = [
    ("second", 0, 59, []),
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of month", 1, 31, []),
    ("month", 1, 12, MONTHS),
    ("day of week", 0, 7, DAYS),
]
EVERY_DAY, EVERY_WEEKDAY = frozenset(range(1, 32)), frozenset(range(7))
_AT_ZERO = frozenset({0})


class Times(NamedTuple):
    """The values of each field. A day must be among the days and the weekdays; with `either`, among one of the two."""

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool = False


def parse(text: str, line: int = 0) -> Times:
    """What an expression of five fields, of six with seconds first, or a nickname such as @daily means.

    As in every cron, days of the month and of the week add to each other, unless one of them begins with `*`.

    :raises Refused: when it is none.
    """
    texts = NICKNAMES.get(text.lower(), text).split()
    if len(texts) not in (5, 6):
        raise Refused("expected five or six fields", line)
    texts = ["0", *texts] if len(texts) == 5 else texts
    week = set(re.findall(r"#([1-5])(?=,|$)", texts[5], re.ASCII))
    if "#" in texts[5]:
        if len(week) != 1 or texts[5].count("#") != texts[5].count(",") + 1 or texts[3] != "*":
            raise Refused(f"day of week {texts[5]}: one and the same number behind each #, with any day", line)
        texts[5] = re.sub(r"#[1-5]", "", texts[5])
    found = [_values(field, *rest, line) for field, rest in zip(texts, _FIELDS, strict=True)]
    if week:
        found[3] = _week(int(week.pop()))
    weekdays = frozenset(day % 7 for day in found[5])
    either = not texts[3].startswith("*") and not texts[5].startswith("*")
    if either and (found[3] >= EVERY_DAY or weekdays >= EVERY_WEEKDAY):
        return Times(found[0], found[1], found[2], EVERY_DAY, found[4], EVERY_WEEKDAY)
    return Times(found[0], found[1], found[2], found[3], found[4], weekdays, either)


def render(times: Times) -> str:
    """The expression for these times: five fields, or six if the seconds are not just 0.

    :raises Refused: when there is none: a day of the month that has to be a certain day of the week.
    """
    days, weekdays = _field(times.days, 1, 31, may_star=False), _field(times.weekdays, 0, 6, may_star=False)
    if needs_both(times):
        days, weekdays = _both(times, days, weekdays)
    fields = [_field(times.minutes, 0, 59), _field(times.hours, 0, 23), days, _field(times.months, 1, 12), weekdays]
    return " ".join(fields if times.seconds == _AT_ZERO else [_field(times.seconds, 0, 59), *fields])


def needs_both(times: Times) -> bool:
    """Whether both the day of the month and that of the week must be right, which crons do not agree on."""
    return not times.either and times.days != EVERY_DAY and times.weekdays != EVERY_WEEKDAY


def _both(times: Times, days: str, weekdays: str) -> tuple[str, str]:
    """The two fields of days where both must be right, which they must only if one begins with `*`.

    Such as the second Saturday of a month, `6#2`, or a Monday with an odd number, `*/2` and `1`.
    """
    for week in range(1, 6):
        if times.days == _week(week):
            return "*", ",".join(f"{day}#{week}" for day in sorted(times.weekdays))
    for step in range(2, 31):
        if times.days == frozenset(range(1, 32, step)):
            return f"*/{step}", weekdays
        if times.weekdays == frozenset(range(0, 7, step)):
            return days, f"*/{step}"
    raise Refused("a cron expression cannot say that both the day of the month and that of the week must be right")


def _week(number: int) -> frozenset[int]:
    """The days of a month on which any day of the week is there for the first, second … time."""
    return frozenset(range(7 * number - 6, min(7 * number, 31) + 1))


def union(one: Times, other: Times) -> Times | None:
    """All times of both, if one expression can say that."""
    if one == other:
        return one
    apart = [place for place in range(6) if one[place] != other[place]]
    if not one.either and not other.either:
        if len(apart) == 1:
            name = Times._fields[apart[0]]
            return one._replace(**{name: one[apart[0]] | other[apart[0]]})  # type: ignore[arg-type,operator]
        if apart == [3, 5]:
            for first, second in ((one, other), (other, one)):
                if first.weekdays == EVERY_WEEKDAY and second.days == EVERY_DAY:
                    return first._replace(weekdays=second.weekdays, either=True)
    return None


def spacing(times: Times) -> int | None:
    """The seconds between two runs, if all are equally far apart and less than a day; else None."""
    if times.days != EVERY_DAY or times.weekdays != EVERY_WEEKDAY or len(times.months) < 12:
        return None
    runs = sorted(
        3600 * hour + 60 * minute + second
        for hour in times.hours
        for minute in times.minutes
        for second in times.seconds
    )
    gaps = {(after - before) % 86400 for before, after in zip(runs, [*runs[1:], runs[0]], strict=True)}
    return gaps.pop() if len(runs) > 1 and len(gaps) == 1 else None


def every(seconds: float) -> str | None:
    """The expression whose runs are all so far apart, if there is one: a whole part of a minute, an hour or a day."""
    if seconds != int(seconds):
        return None
    whole = int(seconds)
    if 60 <= whole <= 3600 and whole % 60 == 0 and 3600 % whole == 0:
        return "0 * * * *" if whole == 3600 else "* * * * *" if whole == 60 else f"*/{whole // 60} * * * *"
    if 3600 < whole <= 86400 and whole % 3600 == 0 and 86400 % whole == 0:
        return "0 0 * * *" if whole == 86400 else f"0 */{whole // 3600} * * *"
    return None


def _values(text: str, name: str, least: int, most: int, named: list[str], line: int) -> frozenset[int]:
    """What one of the fields means."""
    found: set[int] = set()
    for part in text.lower().split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            if span == "*":
                low, high = least, most if name != "day of week" else 6
            else:
                low = _value(first, least, most, named)
                high = _value(last, least, most, named) if dash else most if slash else low
            width = words.whole(step, 1, most) if slash else 1
        except Refused as refused:
            raise Refused(f"{name} {text}: {refused.why}", line) from None
        if high < low:
            raise Refused(f"{name} {text}: the range ends before it begins", line)
        found.update(range(low, high + 1, width))
    return frozenset(found)


def _value(text: str, least: int, most: int, named: list[str]) -> int:
    return named.index(text) + (1 if named is MONTHS else 0) if text in named else words.whole(text, least, most)


def _field(values: frozenset[int], least: int, most: int, may_star: bool = True) -> str:
    """A field with these values. `may_star`: whether `*/N` may be used, which some crons take for all days."""
    if len(values) == most - least + 1:
        return "*"
    return ",".join(_parts(sorted(values), least, most, may_star, "-"))


def _parts(values: list[int], least: int, most: int, may_star: bool, dash: str) -> list[str]:
    gaps = {after - before for before, after in itertools.pairwise(values)}
    if len(values) > 2 and len(gaps) == 1 and (gap := gaps.pop()) > 1:
        if may_star and values[0] == least and values[-1] + gap > most:
            return [f"*/{gap}"]
        return [f"{values[0]}{dash}{values[-1]}/{gap}"]
    return [str(first) if first == last else f"{first}{dash}{last}" for first, last in runs(values)]


def runs(values: list[int]) -> list[tuple[int, int]]:
    """Sorted numbers as ranges of three and more, and single numbers."""
    found: list[tuple[int, int]] = []
    for value in values:
        if found and found[-1][1] == value - 1:
            found[-1] = (found[-1][0], value)
        else:
            found.append((value, value))
    return [
        one
        for first, last in found
        for one in ([(first, first), (last, last)] if last == first + 1 else [(first, last)])
    ]
