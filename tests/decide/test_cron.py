"""The moments of cron expressions, on the days on which clocks are changed above all."""

from __future__ import annotations

import sys
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncolony.decide.cron import Cron, cron, shown
from ncolony.model.cron import wrong_cron, wrong_zone, zone

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
SANTIAGO, BEIRUT, HAVANA = "America/Santiago", "Asia/Beirut", "America/Havana"


def at(text: str, name: str) -> float:
    """The moment at which the clock of a zone shows this, for the first time."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(name)).timestamp()


def moments(times: Cron, after: float) -> Iterator[str]:
    """The due moments after another as the zone's clock shows them, without the seconds if there are none."""
    while True:
        after = times.after(after)
        yield shown(after, times.offset).replace(":00+", "+").replace(":00-", "-")


# What the clock shows, and the expressions' moments from then on. Clocks go forward:
#   Berlin 02:00 -> 03:00, New York 02:00 -> 03:00, Lord Howe 02:00 -> 02:30, Santiago and Beirut 00:00 -> 01:00.
FORWARD = [
    ("30 2 * * *", BERLIN, "2026-03-28 12:00", ["2026-03-29 03:00+02:00", "2026-03-30 02:30+02:00"]),
    ("0 30 2 * * *", BERLIN, "2026-03-28 12:00", ["2026-03-29 03:00+02:00", "2026-03-30 02:30+02:00"]),
    ("0,20,40 2 * * *", BERLIN, "2026-03-28 12:00", ["2026-03-29 03:00+02:00", "2026-03-30 02:00+02:00"]),
    ("0 3 * * *", BERLIN, "2026-03-28 12:00", ["2026-03-29 03:00+02:00", "2026-03-30 03:00+02:00"]),
    ("30 2-3 * * *", BERLIN, "2026-03-28 12:00", ["2026-03-29 03:00+02:00", "2026-03-29 03:30+02:00"]),
    ("*/30 * * * *", BERLIN, "2026-03-29 01:00", ["2026-03-29 01:30+01:00", "2026-03-29 03:00+02:00"]),
    ("*/30 2 * * *", BERLIN, "2026-03-28 12:00", ["2026-03-30 02:00+02:00", "2026-03-30 02:30+02:00"]),
    ("30 * * * *", BERLIN, "2026-03-29 01:00", ["2026-03-29 01:30+01:00", "2026-03-29 03:30+02:00"]),
    ("30 2 * * SUN", BERLIN, "2026-03-28 12:00", ["2026-03-29 03:00+02:00", "2026-04-05 02:30+02:00"]),
    ("30 2 * * *", NEW_YORK, "2026-03-07 12:00", ["2026-03-08 03:00-04:00", "2026-03-09 02:30-04:00"]),
    ("*/20 * * * *", NEW_YORK, "2026-03-08 01:30", ["2026-03-08 01:40-05:00", "2026-03-08 03:00-04:00"]),
    ("15 2 * * *", LORD_HOWE, "2026-10-03 12:00", ["2026-10-04 02:30+11:00", "2026-10-05 02:15+11:00"]),
    ("45 2 * * *", LORD_HOWE, "2026-10-03 12:00", ["2026-10-04 02:45+11:00", "2026-10-05 02:45+11:00"]),
    ("*/15 2 * * *", LORD_HOWE, "2026-10-03 12:00", ["2026-10-04 02:30+11:00", "2026-10-04 02:45+11:00"]),
    ("*/20 * * * *", LORD_HOWE, "2026-10-04 01:30", ["2026-10-04 01:40+10:30", "2026-10-04 02:40+11:00"]),
    ("0 0 * * *", SANTIAGO, "2026-09-05 12:00", ["2026-09-06 01:00-03:00", "2026-09-07 00:00-03:00"]),
    ("*/30 0 * * *", SANTIAGO, "2026-09-05 12:00", ["2026-09-07 00:00-03:00", "2026-09-07 00:30-03:00"]),
    ("@daily", BEIRUT, "2026-03-28 12:00", ["2026-03-29 01:00+03:00", "2026-03-30 00:00+03:00"]),
    ("0 0 29 3 *", BEIRUT, "2026-03-28 12:00", ["2026-03-29 01:00+03:00", "2027-03-29 00:00+03:00"]),
]
# Clocks go back: Berlin 03:00 -> 02:00, New York 02:00 -> 01:00, Lord Howe 02:00 -> 01:30, Santiago and Beirut
# 24:00 -> 23:00, Havana 01:00 -> 00:00.
BACK = [
    ("30 2 * * *", BERLIN, "2026-10-24 12:00", ["2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"]),
    ("0 30 2 * * *", BERLIN, "2026-10-24 12:00", ["2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"]),
    ("0 3 * * *", BERLIN, "2026-10-24 12:00", ["2026-10-25 03:00+01:00", "2026-10-26 03:00+01:00"]),
    ("0 1-3 * * *", BERLIN, "2026-10-25 00:00", ["2026-10-25 01:00+02:00", "2026-10-25 02:00+02:00"]),
    ("0 2-3 * * *", BERLIN, "2026-10-25 00:00", ["2026-10-25 02:00+02:00", "2026-10-25 03:00+01:00"]),
    ("30 * * * *", BERLIN, "2026-10-25 02:00", ["2026-10-25 02:30+02:00", "2026-10-25 02:30+01:00"]),
    ("*/45 * * * *", BERLIN, "2026-10-25 02:00", ["2026-10-25 02:45+02:00", "2026-10-25 02:00+01:00"]),
    ("30 1 * * *", NEW_YORK, "2026-10-31 12:00", ["2026-11-01 01:30-04:00", "2026-11-02 01:30-05:00"]),
    ("*/30 1 * * *", NEW_YORK, "2026-11-01 01:00", ["2026-11-01 01:30-04:00", "2026-11-01 01:00-05:00"]),
    ("45 1 * * *", LORD_HOWE, "2026-04-04 12:00", ["2026-04-05 01:45+11:00", "2026-04-06 01:45+10:30"]),
    ("45 * * * *", LORD_HOWE, "2026-04-05 01:00", ["2026-04-05 01:45+11:00", "2026-04-05 01:45+10:30"]),
    ("*/20 2 * * *", LORD_HOWE, "2026-04-05 01:00", ["2026-04-05 02:00+10:30", "2026-04-05 02:20+10:30"]),
    ("*/10 * * * *", LORD_HOWE, "2026-04-05 01:45", ["2026-04-05 01:50+11:00", "2026-04-05 01:30+10:30"]),
    ("30 23 * * *", SANTIAGO, "2026-04-04 12:00", ["2026-04-04 23:30-03:00", "2026-04-05 23:30-04:00"]),
    ("0 0 * * *", SANTIAGO, "2026-04-04 12:00", ["2026-04-05 00:00-04:00", "2026-04-06 00:00-04:00"]),
    ("*/40 23 * * *", SANTIAGO, "2026-04-04 23:10", ["2026-04-04 23:40-03:00", "2026-04-04 23:00-04:00"]),
    ("30 23 * * *", BEIRUT, "2026-10-24 12:00", ["2026-10-24 23:30+03:00", "2026-10-25 23:30+02:00"]),
    ("30 0 * * *", HAVANA, "2026-10-31 12:00", ["2026-11-01 00:30-04:00", "2026-11-02 00:30-05:00"]),
    ("0 12 * * *", HAVANA, "2026-11-01 00:30", ["2026-11-01 12:00-05:00", "2026-11-02 12:00-05:00"]),
]
CALENDAR = [
    ("0 0 29 2 *", "UTC", "2026-01-01 00:00", ["2028-02-29 00:00+00:00", "2032-02-29 00:00+00:00"]),
    ("0 0 29 2 *", "UTC", "2096-03-01 00:00", ["2104-02-29 00:00+00:00"]),
    ("0 0 29 2 */7", "UTC", "2026-01-01 00:00", ["2032-02-29 00:00+00:00", "2060-02-29 00:00+00:00"]),
    ("0 0 * 2 MON#5", "UTC", "2073-01-01 00:00", ["2112-02-29 00:00+00:00"]),
    ("0 0 31 * *", "UTC", "2026-01-31 00:00", ["2026-03-31 00:00+00:00", "2026-05-31 00:00+00:00"]),
    ("0 0 L * *", "UTC", "2028-01-31 12:00", ["2028-02-29 00:00+00:00", "2028-03-31 00:00+00:00"]),
    ("0 0 LW * *", "UTC", "2026-05-01 00:00", ["2026-05-29 00:00+00:00"]),
    ("0 0 * * 5L", "UTC", "2026-05-01 00:00", ["2026-05-29 00:00+00:00"]),
    ("0 9 * * MON#1", "UTC", "2026-05-01 00:00", ["2026-05-04 09:00+00:00"]),
    ("0 0 13 * FRI", "UTC", "2026-05-01 00:00", ["2026-05-08 00:00+00:00", "2026-05-13 00:00+00:00"]),
    ("0 0 */2 * FRI", "UTC", "2026-05-01 12:00", ["2026-05-15 00:00+00:00"]),
    ("0 0 1 JAN,jul *", "UTC", "2026-05-01 00:00", ["2026-07-01 00:00+00:00", "2027-01-01 00:00+00:00"]),
    ("10-40/15 8-9 * * *", "UTC", "2026-05-01 08:20", ["2026-05-01 08:25+00:00", "2026-05-01 08:40+00:00"]),
    ("0 0 * * 7", "UTC", "2026-05-01 00:00", ["2026-05-03 00:00+00:00"]),
    ("0 0 1 1 *", BERLIN, "2037-06-01 00:00", ["2038-01-01 00:00+01:00", "2039-01-01 00:00+01:00"]),
    ("30 2 * * *", BERLIN, "2050-03-26 12:00", ["2050-03-27 03:00+02:00", "2050-03-28 02:30+02:00"]),
    ("*/20 59 23 31 12 *", "UTC", "2099-12-31 23:59:30", ["2099-12-31 23:59:40+00:00", "2100-12-31 23:59+00:00"]),
    ("@hourly", "UTC", "2026-05-01 23:59", ["2026-05-02 00:00+00:00"]),
    ("@Weekly", "UTC", "2026-05-01 00:00", ["2026-05-03 00:00+00:00"]),
    ("@monthly", "UTC", "2026-05-01 00:00", ["2026-06-01 00:00+00:00"]),
    ("@annually", "UTC", "2026-05-01 00:00", ["2027-01-01 00:00+00:00"]),
]


@pytest.mark.parametrize(("expression", "name", "after", "expected"), [*FORWARD, *BACK, *CALENDAR])
def test_due_moments(expression: str, name: str, after: str, expected: list[str]) -> None:
    """A time left out is due at the change, one that comes twice is due once, a wildcard when the clock shows it."""
    assert wrong_cron(expression) is None
    found = moments(cron(expression, name, lambda _: 0.0), at(after, name))
    assert [next(found) for _ in expected] == expected


def test_the_end_of_the_calendar_is_no_error() -> None:
    """After the last year there is, nothing is due any more."""
    for expression in ("0 0 * * *", "* * * * *"):
        assert Cron(expression).after(datetime(9999, 12, 31, 23, 59, 30, tzinfo=UTC).timestamp()) == float("inf")


ZONES = st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE, SANTIAGO, BEIRUT, HAVANA, "Africa/Casablanca", "UTC"])
FIELDS = {
    60: st.sampled_from(["0", "30", "*/15", "*", "5-50/20", "59", "0,29,45"]),
    24: st.sampled_from(["0", "1", "2", "23", "*", "*/5", "1-3", "0,2"]),
}


@given(
    minute=FIELDS[60],
    hour=FIELDS[24],
    name=ZONES,
    start=st.datetimes(datetime(2025, 1, 1), datetime(2040, 1, 1)),  # noqa: DTZ001 (taken as UTC below)
    near=st.booleans(),
)
def test_every_minute_agrees_with_the_rules(minute: str, hour: str, name: str, start: datetime, near: bool) -> None:
    """Counted out minute by minute on the zone's clock, the due moments of two days are these and no others."""
    begin = int(start.replace(tzinfo=UTC, second=0, microsecond=0).timestamp())
    times = cron(f"{minute} {hour} * * *", name, lambda _: 0.0)
    if near:
        begin = next(
            (t for t in range(begin, begin + 366 * 86400, 3600) if times.offset(t) != times.offset(t + 3600)), begin
        )
        begin -= 86400
    end = begin + 2 * 86400
    expected = set()
    seen: set[datetime] = set()
    before = None
    for moment in range(begin - 7200, end + 60, 60):
        local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=moment + times.offset(moment))).replace(
            tzinfo=None
        )
        left_out = (
            []
            if before is None
            else [before + timedelta(minutes=n) for n in range(1, (local - before) // timedelta(minutes=1))]
        )
        here = [local] if not times.fixed else [time for time in (*left_out, local) if time not in seen]
        if (
            any(_names(minute, time.minute, 60) and _names(hour, time.hour, 24) for time in here)
            and begin < moment <= end
        ):
            expected.add(float(moment))
        seen.update((*left_out, local))
        before = local
    found, moment = set(), times.after(begin)
    while moment <= end:
        found.add(moment)
        assert times.last(moment, moment + 0.5) == moment
        moment = times.after(moment)
    assert found == expected
    if found:
        assert times.last(min(found), end) == max(found)


def _names(field: str, value: int, most: int) -> bool:
    """Whether a field of a cron expression names a value; enough of it for the above."""
    for part in field.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        first, last = (0, most - 1) if span == "*" else (int(low), int(high or low))
        if value in range(first, last + 1, int(step or 1)):
            return True
    return False


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("* * * * * * *", "five fields"),
        ("@reboot", "five fields"),
        ("60 * * * *", "minute"),
        ("60 * * * * *", "second"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day-of-month"),
        ("* * * 13 *", "month"),
        ("* * * JANUARY *", "month"),
        ("* * * * 8", "day-of-week"),
        ("* * * * SAT-SUN", "day-of-week"),
        ("*/0 * * * *", "minute"),
        ("5-1 * * * *", "minute"),
        ("-1 * * * *", "minute"),
        ("1,, * * * *", "minute"),
        ("\N{ARABIC-INDIC DIGIT ONE} * * * *", "minute"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
        ("* * */20 * 1L", "never comes"),
        ("* * * * " + "9" * 5000, "expected"),
    ],
)
def test_what_is_no_cron_expression(text: str, why: str) -> None:
    """What makes no sense, or never comes, is refused with the reason."""
    assert why in str(wrong_cron(text))


@given(st.text(st.sampled_from("0159*/-,#L W@MONJAN?\0é"), max_size=30) | st.text(max_size=30))
def test_any_text_is_refused_or_has_moments(text: str) -> None:
    """No text is an error of ours: it is refused, or it has a due moment."""
    if wrong_cron(text) is None:
        times = cron(text, None, lambda _: 3600.0)
        assert 1.8e9 < times.after(1.8e9) < 1.8e9 + 51 * 366 * 86400
        assert times.fixed in (True, False)


@pytest.mark.parametrize("name", ["", "Europe", "Europe/Nowhere", "../etc/passwd", "/etc/passwd", "a\0b", "x" * 5000])
def test_what_is_no_time_zone(name: str) -> None:
    """A name that is no time zone's, or a path, is refused."""
    assert "expected a time zone" in str(wrong_zone(name))
    with pytest.raises(ValueError, match="expected a time zone"):
        zone(name)


def test_a_machine_without_time_zones_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no time zones, and tzdata is not installed, what is missing is named."""
    monkeypatch.setitem(sys.modules, "tzdata", None)
    zoneinfo.ZoneInfo.clear_cache()
    zoneinfo.reset_tzpath(to=[])
    try:
        assert "tzdata" in str(wrong_zone("Europe/Berlin"))
    finally:
        zoneinfo.reset_tzpath()
    assert wrong_zone("Europe/Berlin") is None
