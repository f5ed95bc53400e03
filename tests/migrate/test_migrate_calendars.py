"""Calendar events and cron expressions: the same times in both, as systemd itself reckons them."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncolony.cli.migrate import calendars, crons
from ncolony.cli.migrate.report import NOT_MAPPED, Refused

BASE = datetime(2024, 2, 27, 21, 44, 37, tzinfo=UTC)


@pytest.mark.parametrize(
    ("event", "cron", "zone"),
    [
        ("daily", "0 0 * * *", ""),
        ("weekly", "0 0 * * 1", ""),
        ("quarterly", "0 0 1 */3 *", ""),
        ("Mon..Fri 10:00", "0 10 * * 1-5", ""),
        ("Sat,Sun *-*-* 8..20/4:30", "30 8-20/4 * * 0,6", ""),
        ("*:0/15", "*/15 * * * *", ""),
        ("*:*:0/10", "*/10 * * * * *", ""),
        ("*-*-1,15 4:00 Europe/Berlin", "0 4 1,15 * *", "Europe/Berlin"),
        ("*-12-24 18:00:00 UTC", "0 18 24 12 *", "UTC"),
        ("Sat *-*-1..7 18:00", "0 18 * * 6#1", ""),
        ("Mon,Wed *-*-29..31 18:00", "0 18 * * 1#5,3#5", ""),
        ("Mon *-*-1/2 03:00", "0 3 */2 * 1", ""),
    ],
)
def test_calendar_events_are_cron_expressions(event: str, cron: str, zone: str) -> None:
    """What a cron expression can say of a calendar event it says, with the time zone apart."""
    times, found = calendars.parse(event)
    assert (crons.render(times), found) == (cron, zone)
    assert crons.parse(cron) == times


@pytest.mark.parametrize("event", ["2026-*-* 1:00", "*-*~01", "10:00:00.5", "@1700000000", "Mon *-*-2..9 1:00"])
def test_events_that_no_cron_expression_says(event: str) -> None:
    """What no cron expression can say is refused with the reason, and not taken for something near."""
    with pytest.raises(Refused) as refused:
        crons.render(calendars.parse(event)[0])
    assert refused.value.result == NOT_MAPPED or "cannot say" in refused.value.why


@pytest.mark.parametrize(
    "event", ["", "*", "25:00", "Sat..Mon", "10:00 Europe/Nowhere", "Mon, Tue 3:00", "05..08", "x"]
)
def test_what_is_no_event(event: str) -> None:
    """What systemd does not take for an event is none here either."""
    with pytest.raises(Refused):
        calendars.parse(event)


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ("Mon 06:30", "Fri 06:30", "30 6 * * 1,5"),
        ("*-*-1 04:00", "Mon 04:00", "0 4 1 * 1"),
        ("Mon 04:00", "*-*-1 04:00", "0 4 1 * 1"),
        ("04:00", "16:00", "0 4,16 * * *"),
        ("04:00", "16:30", None),
        ("Mon 04:00", "Fri 05:00", None),
    ],
)
def test_several_events_in_one_expression(first: str, second: str, both: str | None) -> None:
    """Two events are one expression if it says neither more nor less."""
    found = crons.union(calendars.parse(first)[0], calendars.parse(second)[0])
    assert (found and crons.render(found)) == both


def set_of(low: int, high: int) -> st.SearchStrategy[frozenset[int]]:
    """Some values of a field: all, a few, or every so many."""
    steps = st.tuples(st.integers(low, high), st.integers(1, high)).map(
        lambda x: frozenset(range(x[0], high + 1, x[1]))
    )
    return st.just(frozenset(range(low, high + 1))) | st.frozensets(st.integers(low, high), min_size=1) | steps


TIMES = st.builds(
    crons.Times,
    st.just(frozenset({0})) | set_of(0, 59), set_of(0, 59), set_of(0, 23), set_of(1, 31), set_of(1, 12), set_of(0, 6),
    st.booleans(),
).map(lambda x: x if {x.days, x.weekdays}.isdisjoint({crons.EVERY_DAY, crons.EVERY_WEEKDAY}) else x._replace(
    either=False))  # fmt: skip


@given(times=TIMES)
@settings(max_examples=300, deadline=None)
def test_expressions_are_read_back(times: crons.Times) -> None:
    """Whatever times are written as a cron expression, the expression means; and so do the calendar events."""
    try:
        text = crons.render(times)
    except Refused:
        assert crons.needs_both(times)
    else:
        assert crons.parse(text) == times
    found = [calendars.parse(event)[0] for event in calendars.render(times)]
    assert (found[0] if len(found) == 1 else crons.union(found[0], found[1])) == times


def matching(cron: str, moment: datetime) -> Iterator[datetime]:
    """The moments of a cron expression by brute force, with a reading of the fields of its own."""
    fields = cron.split()
    fields = ["0", *fields] if len(fields) == 5 else fields
    bounds = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]
    values = []
    for field, (low, high) in zip(fields, bounds, strict=True):
        found = set()
        for part in re.sub(r"#\d", "", field).split(","):
            span, _, step = part.partition("/")
            first, _, last = ("-".join(map(str, (low, high))) if span == "*" else span).partition("-")
            found |= set(range(int(first), int(last or first) + 1, int(step or 1)))
        values.append(found)
    either = not fields[3].startswith("*") and not fields[5].startswith("*")
    week = re.search(r"#(\d)", fields[5])
    day = moment.replace(hour=0, minute=0, second=0)
    while True:
        in_days = day.day in values[3]
        in_week = day.isoweekday() % 7 in values[5] and (week is None or (day.day - 1) // 7 + 1 == int(week[1]))
        if day.month in values[4] and ((in_days or in_week) if either else (in_days and in_week)):
            for hour in sorted(values[2]):
                for minute in sorted(values[1]):
                    for second in sorted(values[0]):
                        found_at = day.replace(hour=hour, minute=minute, second=second)
                        if found_at > moment:
                            yield found_at
        day += timedelta(days=1)


def next_by_systemd(event: str, count: int) -> list[datetime]:
    """The next moments of a calendar event after BASE, as systemd reckons them."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    words = [analyze, "calendar", f"--iterations={count}", f"--base-time={BASE:%Y-%m-%d %H:%M:%S}", event]
    env = {**os.environ, "TZ": "UTC", "LC_ALL": "C"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"(?:elapse|#\d+): \w{3} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC)", done.stdout)
    return [datetime.strptime(one, "%Y-%m-%d %H:%M:%S %Z").replace(tzinfo=UTC) for one in found]


def by_systemd(*events: str) -> list[datetime]:
    """The next moments of several calendar events together, as far as all of them are known."""
    found = [next_by_systemd(event, 12) for event in events]
    last = min(moments[-1] for moments in found)
    return sorted({moment for moments in found for moment in moments if moment <= last})


@pytest.mark.parametrize(
    "event",
    [
        "daily", "weekly", "monthly", "quarterly", "semiannually", "yearly", "hourly", "minutely", "Mon..Fri 10:00",
        "*:0/7", "8..22/2:05", "*-*-01/10 00:00", "*-2-29 12:00", "Sat *-*-1..7 18:00", "Sun *-*-29..31 1:00",
        "Mon *-*-1/2 03:00", "*-*-31 23:59:59", "*:*:5/20", "Tue,Thu..Sun 00,12:30", "*-1..6/2-1 00:00",
    ],
)  # fmt: skip
def test_imported_times_are_those_of_systemd(event: str) -> None:
    """The cron expression of a calendar event has the moments that systemd finds for the event."""
    expected = by_systemd(event)
    found = matching(crons.render(calendars.parse(event)[0]), BASE)
    assert [next(found) for _ in expected] == expected


@pytest.mark.parametrize(
    "cron",
    [
        "* * * * *", "*/7 * * * *", "30 4 1,15 * 5", "0 22 * 1-3 1-5", "0 0 */2 * 1", "0 12 29 2 *", "15 14 1 * *",
        "5-45/20 8-20/4 * * 0", "*/10 30 5 * * *", "0 0 13 * 5", "0 18 * * 6#2", "0 0 31 * *", "0 0 * * 0,6",
    ],
)  # fmt: skip
def test_exported_times_are_those_of_systemd(cron: str) -> None:
    """The calendar events of a cron expression have, to systemd, the moments of the expression."""
    expected = by_systemd(*calendars.render(crons.parse(cron)))
    found = matching(cron, BASE)
    assert [next(found) for _ in expected] == expected


@given(times=TIMES.filter(lambda x: not x.either))
@settings(max_examples=40, deadline=None)
def test_any_times_are_those_of_systemd(times: crons.Times) -> None:
    """Whatever times are written as a calendar event, systemd reads as these."""
    [event] = calendars.render(times)
    for moment in next_by_systemd(event, 3):
        assert moment.second in times.seconds
        assert moment.minute in times.minutes
        assert moment.hour in times.hours
        assert moment.day in times.days
        assert moment.month in times.months
        assert moment.isoweekday() % 7 in times.weekdays


@pytest.mark.parametrize(
    ("seconds", "cron"),
    [(60, "* * * * *"), (300, "*/5 * * * *"), (3600, "0 * * * *"), (21600, "0 */6 * * *"), (86400, "0 0 * * *"),
     (90, None), (420, None), (18000, None), (0.5, None), (172800, None)],
)  # fmt: skip
def test_intervals_of_cron(seconds: float, cron: str | None) -> None:
    """An interval is a cron expression if all its runs are so far apart, also at midnight."""
    assert crons.every(seconds) == cron
    if cron is not None:
        found = matching(cron, BASE)
        moments = [next(found) for _ in range(1500 if seconds < 3600 else 10)]
        assert {(b - a).total_seconds() for a, b in itertools.pairwise(moments)} == {seconds}
