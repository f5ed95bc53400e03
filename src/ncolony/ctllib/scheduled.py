"""Jobs, the processes with a `schedule`: when each is due, how its last run fared, and whether it is late."""

from __future__ import annotations

import os
import time

from ncolony.ctllib.common import parsed, read, state_directory
from ncolony.ctllib.fitting import fitting
from ncolony.ctllib.reports import LIVE, definition, file_names, number, status

TYPE_CHECKING = False  # see ncolony.ctllib
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ncolony.ctllib import Path, Places
    from ncolony.ctllib.reports import Status

COMPANION = "ncolony-jobs"
NOT_DUE = "waits for its schedule"
STOPPED_ON_REQUEST = "stopped on request"
# What ncolony-jobs keeps of each job, as far as others read it: see docs/jobs.md.
_KEPT: dict[str, type] = {
    "next": float, "late": float, "skipped": int, "skipped_at": float, "skipped_why": str, "queued": bool,
    "tries": int, "try_at": float, "said": str,
}  # fmt: skip
_LATE_AFTER_S = 60.0
# Units that are used where they make a whole number, the largest first; a single minute is told in seconds.
_UNITS = ((86_400, 86_400, "d"), (3600, 3600, "h"), (120, 60, "min"))


class Job:
    """A job. Times are wall-clock seconds.

    `schedule` says in words when it runs, `next` when it is due next, or None where that is not known. `started`,
    `lived` (seconds), `code` and `exit` (in words) are those of its newest run; of one that goes on `running` is true,
    `exit` empty, and `lived` how long it has lived so far. `runs` is how many there have been. `late` says why it
    should have run by now, or is empty; `off` why it does not run at its times: it is disabled, or was stopped.
    `skipped` is how many runs were left out, `skipped_at` when the last of them was due, `skipped_why` why. `queued`
    says that a run waits for the end of the present one. `tries` is how many runs in a row have failed and were or
    will be tried again, `try_at` when that is due. `problem` is what is wrong with its file. With `instances` there is
    a status for each copy; `status` is that of the one that tells most: it runs, or has failed, or is the first.
    """

    __slots__ = (
        "code",
        "exit",
        "late",
        "lived",
        "name",
        "next",
        "off",
        "problem",
        "queued",
        "running",
        "runs",
        "schedule",
        "skipped",
        "skipped_at",
        "skipped_why",
        "started",
        "state",
        "status",
        "tries",
        "try_at",
    )

    name: str
    schedule: str
    next: float | None
    started: float | None
    lived: float | None
    exit: str
    code: int | None
    state: str
    running: bool
    runs: int
    late: str
    off: str
    skipped: int
    skipped_at: float | None
    skipped_why: str
    queued: bool
    tries: int
    try_at: float | None
    problem: str | None
    status: Status

    def __init__(self, name: str, when: Mapping[str, Any], of: Status, kept: Mapping[str, Any], now: float) -> None:
        kept = fitting(kept, _KEPT)
        self.name, self.status, self.state, self.problem = name, of, of.state, of.problem
        self.schedule = in_words(when)
        self.running = of.state in LIVE
        self.runs = of.instance
        self.off = why_off(of)
        self._note_last_run(of, now)
        self.next = None if self.off else number(kept.get("next"))
        self.skipped, self.skipped_at = kept.get("skipped") or 0, number(kept.get("skipped_at"))
        self.skipped_why = kept.get("skipped_why") or ""
        self.queued = bool(kept.get("queued"))
        self.tries, self.try_at = kept.get("tries") or 0, number(kept.get("try_at"))
        self.late = "" if self.off else of.late or self._overdue(when, number(kept.get("late")), now)

    def _note_last_run(self, of: Status, now: float) -> None:
        self.started = self.lived = self.code = None
        self.exit = ""
        last = of.last_exit
        if self.running:
            self.started = of.started
            self.lived = None if of.started is None else max(0.0, now - of.started)
        elif last is not None:
            self.started, self.lived, self.code, self.exit = last.at - last.lived, last.lived, last.code, last.text

    def _overdue(self, when: Mapping[str, Any], since: float | None, now: float) -> str:
        """Why it is late although nobody has said so: whoever should is not there."""
        given = number(when.get("late_after"))
        allowed = _LATE_AFTER_S if given is None else given
        due = self.next if since is None else since
        if due is None or now <= due + allowed + _SLACK_S or (self.running and (self.started or 0.0) >= due):
            return ""
        return f"it was due {round(now - due):d} s ago, and {COMPANION} has not run it"

    @property
    def record(self) -> dict[str, Any]:
        """Everything but `status` as a JSON object."""
        return {key: getattr(self, key) for key in self.__slots__ if key != "status"}

    def __repr__(self) -> str:
        return f"Job({self.record!r})"


# Who looks at the same moment as the companion does not find fault with it.
_SLACK_S = 1.0


def jobs(places: Places, *, state: Path | None = None) -> list[Job]:
    """Every process whose file has a `schedule`, sorted by name. Works without a supervisor too: files tell all.

    :raises CannotAccess: when the reports may not be read.
    """
    now = time.time()
    directory = os.path.join(state_directory(places, state), "jobs")
    by_file: dict[str, list[Status]] = {}
    for one in status(places, state=state):
        by_file.setdefault(one.file, []).append(one)
    found = []
    for name in sorted(file_names(os.fspath(places.config))):
        when = definition(places, name).get("schedule")
        # Where the file cannot be read at present, its last good content is in force.
        is_job = isinstance(when, dict) or any(one.job and one.problem for one in by_file.get(name, ()))
        if is_job and name in by_file:
            when = when if isinstance(when, dict) else {}
            found.append(Job(name, when, _most_telling(by_file[name]), _kept(directory, name), now))
    return found


def _most_telling(copies: list[Status]) -> Status:
    def rank(one: Status) -> tuple[bool, bool]:
        ended = one.last_exit
        return one.state not in LIVE, ended is None or ended.code == 0

    return min(copies, key=rank)


def _kept(directory: str, name: str) -> dict[str, Any]:
    try:
        return parsed(read(os.path.join(directory, name)))
    except (OSError, ValueError):
        return {}


def why_off(one: Status) -> str:
    """Why a job does not run at its times, or "" when it does: its file or its user says so."""
    if not one.enabled:
        return "disabled"
    return STOPPED_ON_REQUEST if one.wanted == "down" and one.reason == STOPPED_ON_REQUEST else ""


def in_words(when: Mapping[str, Any]) -> str:
    """When a job runs, of its key `schedule`: "every 5 min", or the cron expression with its time zone."""
    every, cron, zone = number(when.get("every")), when.get("cron"), when.get("timezone")
    if every is not None:
        for least, size, unit in _UNITS:
            if every >= least and every % size == 0:
                return f"every {every // size:g} {unit}"
        return f"every {every:g} s"
    return " ".join(str(part) for part in (cron, zone) if part) or "-"
