"""What is told of processes, by themselves (sd_notify) or by who looks after them: ready, healthy, late, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from ..model.message import Report
from .known import Known

if TYPE_CHECKING:
    from .loop import Supervisor

_log = Logger(namespace="ncolony")


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
        elif known.pid is None:
            return f"{name} does not run"
        elif report.what != "ready" and known.healthy is not (report.what == "healthy"):
            known.healthy = report.what == "healthy"
            known.health = "" if known.healthy else report.why
            self._changed(name, report.what, report.why)
        return ""

    def _changed(self, name: str, what: str, why: str) -> None:
        _log.info("{name}: {what}{why}", name=name, what=what, why=f": {why}" if why else "")
        self._colony.happened(what, name, reason=why)
        self._colony.records.changed(name)
