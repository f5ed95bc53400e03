"""A systemd *.timer file: the schedule of the service that is imported with it."""

from __future__ import annotations

import math
from typing import Any

from ncolony.model.conditions import LONGEST_S, SHORTEST_S

from . import calendars, crons, units, words
from .report import MAPPED, NOT_MAPPED, NOTE, Key, Refused
from .unitfile import OF_SYSTEMD, Book, Unit

_FIRST = Key(NOTE, "with OnUnitActiveSec the first run is at once; a single run so long after the boot is not mapped")
KEYS: dict[str, Key] = {
    "OnCalendar": Key(
        MAPPED,
        "`schedule.cron`, and `schedule.timezone` where it names one; not mapped are years, days from the end of a"
        " month, and days of the month that must be a certain day of the week, unless it is the first, second or so",
    ),
    "OnUnitActiveSec": Key(MAPPED, "`schedule.every`"),
    "OnActiveSec": _FIRST,
    "OnBootSec": _FIRST,
    "OnStartupSec": _FIRST,
    "OnUnitInactiveSec": Key(NOT_MAPPED, "times count from the beginning of a run, not from its end"),
    "RandomizedDelaySec": Key(MAPPED, "`schedule.jitter`"),
    "Persistent": Key(MAPPED, "`schedule.catch_up`"),
    "Unit": Key(MAPPED, "`schedule` of this one; it must be imported at the same time"),
    "AccuracySec": Key(NOTE, "a run begins when it is due"),
    "FixedRandomDelay": Key(NOT_MAPPED, "`jitter` is another one for each run"),
    "RandomizedOffsetSec": Key(NOT_MAPPED, "no lasting offset: write it into the times"),
    "OnClockChange": Key(NOT_MAPPED, "no run because the clock was set"),
    "OnTimezoneChange": Key(NOT_MAPPED, "no run because the time zone was changed"),
    "WakeSystem": Key(NOT_MAPPED, "no machine is woken"),
    "RemainAfterElapse": OF_SYSTEMD,
    "DeferReactivation": OF_SYSTEMD,
}
_SPANS = ("OnActiveSec", "OnBootSec", "OnStartupSec", "OnUnitActiveSec", "OnUnitInactiveSec")
# What is not heeded of a job.
_OF_RESTARTS = ("restart", "min_restart_delay", "max_restart_delay", "give_up")
_NOT_ENABLED = "the process is written, but not enabled"


def pass_on(book: Book) -> None:
    """Give every service that a timer starts its schedule."""
    for unit in book.units:
        if unit.kind != "Timer":
            continue
        try:
            service = _service(unit, book)
        except Refused as refused:
            unit.refuse(refused)
            continue
        try:
            schedule = _schedule(unit)
        except Refused as refused:
            # Without its times it must not run at once, which would be a time that nobody asked for.
            service.config.setdefault("enabled", False)
            refused.why += f": {_NOT_ENABLED}"
            unit.refuse(refused)
            continue
        service.config["schedule"] = schedule
        _as_job(service)


def _service(unit: Unit, book: Book) -> Unit:
    service = book.service_of(unit)
    if service is None or service.kind != "Service":
        raise Refused("its service is not among what is imported: import both at the same time", key=unit.name)
    if service.draft is None:
        raise Refused(f"{service.name} is not imported", key=unit.name, result=NOT_MAPPED)
    if "instances" in service.config:
        raise Refused("a job has no `instances`", key=unit.name, result=NOT_MAPPED)
    if "schedule" in service.config:
        why = f"{service.name} has a timer already, and one is all it can have"
        raise Refused(why, key=unit.name, result=NOT_MAPPED)
    return service


def _schedule(unit: Unit) -> dict[str, Any]:
    lines: list[units.Line] = []
    for line in unit.lines:
        if line.section == "Timer" and line.key in ("OnCalendar", *_SPANS):
            lines = [*lines, line] if line.value else []
    dates = [line for line in lines if line.key == "OnCalendar"]
    spans = [line for line in lines if line.key != "OnCalendar"]
    schedule = _calendar(unit, dates) if dates else _interval(unit, spans)
    if dates:
        for line in spans:
            unit.tell(NOT_MAPPED, line, "no further runs beside those of OnCalendar")
    if delay := unit.get(_delay, "RandomizedDelaySec"):
        schedule["jitter"] = delay
    if unit.get(words.truth, "Persistent"):
        if dates:
            schedule["catch_up"] = True
        else:
            unit.tell(NOTE, unit.all("Persistent")[-1], "of OnCalendar, so this has no effect")
    for key in ("FixedRandomDelay", "OnClockChange", "OnTimezoneChange", "WakeSystem"):
        if unit.get(words.truth, key) is False:
            unit.tell(MAPPED, unit.all(key)[-1], "")
    return schedule


def _calendar(unit: Unit, lines: list[units.Line]) -> dict[str, Any]:
    """All calendar events as one cron expression."""
    total, zone = unit.use(lines[0], calendars.parse)
    for line in lines[1:]:
        times, its_zone = unit.use(line, calendars.parse)
        both = crons.union(total, times) if its_zone == zone else None
        if both is None:
            why = "one cron expression cannot say this and the OnCalendar above"
            raise Refused(why, line.line, line.key, line.value, NOT_MAPPED)
        total = both
    try:
        found: dict[str, Any] = {"cron": crons.render(total)}
    except Refused as refused:
        raise Refused(refused.why, lines[-1].line, lines[-1].key, lines[-1].value, NOT_MAPPED) from None
    return {**found, "timezone": zone} if zone else found


def _interval(unit: Unit, lines: list[units.Line]) -> dict[str, Any]:
    repeating = [line for line in lines if line.key == "OnUnitActiveSec"]
    if len(repeating) != 1 or any(line.key == "OnUnitInactiveSec" for line in lines):
        line = next((line for line in lines if line not in repeating[:1]), units.Line("", unit.name, "", 0))
        why = {
            "OnUnitInactiveSec": "from the end of one run to the next is no interval that can be said",
            "OnUnitActiveSec": "one interval only",
        }.get(line.key, "it runs once, so long after the boot, and there is no such schedule" if lines else "no times")
        raise Refused(why, line.line, line.key, line.value, NOT_MAPPED)
    seconds = unit.use(repeating[0], words.span)
    if not SHORTEST_S <= seconds <= LONGEST_S:
        line = repeating[0]
        raise Refused(f"expected seconds, from {SHORTEST_S:g} to a year", line.line, line.key, line.value)
    for line in lines:
        if line not in repeating:
            unit.tell(NOTE, line, "the first run is at once, when the supervisor starts")
    return {"every": seconds}


def _delay(text: str) -> float:
    seconds = words.span(text)
    if seconds > LONGEST_S:
        raise Refused("expected seconds, up to a year")
    return seconds


def _as_job(service: Unit) -> None:
    """What a service that a timer starts has, and has not, as a job."""
    config = service.config
    for key in _OF_RESTARTS:
        config.pop(key, None)
    for line in service.all("Restart")[-1:]:
        if line.value != "no":
            service.tell(NOT_MAPPED, line, "a job is not restarted: `schedule.retries` tries a failed run again")
        for other in service.lines if line.value != "no" else ():
            if other.key.startswith(("StartLimit", "RestartSec", "RestartSteps", "RestartMaxDelay")):
                service.tell(NOTE, other, "a job is not restarted, so this has no effect")
    keys = ("TimeoutStartSec", "TimeoutSec") if service.service_type == "oneshot" else ("RuntimeMaxSec",)
    longest = service.get(words.span, *keys)
    if longest and longest != math.inf:
        config["schedule"]["timeout"] = min(max(longest, SHORTEST_S), LONGEST_S)
        service.tell(MAPPED, service.all(*keys)[-1], "")
