"""What is told of processes, by themselves (sd_notify) or by who looks after them: ready, healthy, late, and why."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from twisted.logger import Logger

from ..decide import lifecycle
from ..model.message import Report
from ..model.names import printable
from .known import Known

if TYPE_CHECKING:
    from .loop import Supervisor

_log = Logger(namespace="ncolony")
# What is told of a moment is not shown longer than this; what is longer is cut.
_LONGEST_WORDS = 200
# systemd takes any number; more than a year is a mistake.
_MOST_US = 366 * 86400 * 1_000_000


class Tending:
    """Takes note of what is told of processes."""

    def __init__(self, colony: Supervisor) -> None:
        self._colony = colony

    def reported(self, name: str, known: Known, report: Report) -> str:
        """Somebody who looks after the process says how it is; why that is not heeded, or ""."""
        process = known.process
        if process is None or (report.instance is not None and report.instance != process.number):
            return f"it is about instance {report.instance} of {name}, which is over"
        if report.what in ("late", "on-time"):
            late = (report.why or "it should have run by now") if report.what == "late" else ""
            if late != known.late:
                known.late = late
                self._changed(name, report.what, report.why)
        elif report.what == "skipped":
            self._colony.happened(report.what, name, reason=report.why)
        elif known.pid is None:
            return f"{name} does not run"
        elif report.what == "ready":
            self._colony.events.append((name, lifecycle.Ready(process.number)))
        elif known.healthy is not (report.what == "healthy"):
            known.healthy = report.what == "healthy"
            known.health = "" if known.healthy else report.why
            self._changed(name, report.what, report.why)
            self._colony.ordering.changed(name, known)
        return ""

    def heard(self, name: str, known: Known, number: int, said: dict[str, str]) -> None:
        """An instance says something of itself, as sd_notify(3) has it: variables and their values."""
        process = known.process
        if process is None or process.number != number:
            return
        events = self._colony.events
        before = known.said, known.phase
        if "STATUS" in said:
            known.said = printable(said["STATUS"])[:_LONGEST_WORDS]
        if said.get("RELOADING") == "1":
            known.phase = "reloading"
        if said.get("READY") == "1":
            known.phase = "" if known.phase == "reloading" else known.phase
            events.append((name, lifecycle.Ready(number)))
        if said.get("STOPPING") == "1":
            known.phase = "stopping"
        if said.get("WATCHDOG") == "1":
            events.append((name, lifecycle.Beat(number)))
        elif said.get("WATCHDOG") == "trigger":
            events.append((name, lifecycle.Fault(number, "watchdog: it says that it failed", random.random())))
        if (longer := said.get("EXTEND_TIMEOUT_USEC", "")).isdecimal() and longer.isascii():
            events.append((name, lifecycle.Extend(number, min(int(longer[:20]), _MOST_US) / 1e6)))
        if said.get("MAINPID", str(known.pid)) != str(known.pid):
            known.troubles["MAINPID"] = (
                f"MAINPID={printable(said['MAINPID'])[:20]} is not heeded: what was started counts"
            )
        if (known.said, known.phase) != before or "MAINPID" in said:
            self._colony.records.changed(name)

    def _changed(self, name: str, what: str, why: str) -> None:
        _log.info("{name}: {what}{why}", name=name, what=what, why=f": {why}" if why else "")
        self._colony.happened(what, name, reason=why)
        self._colony.records.changed(name)
