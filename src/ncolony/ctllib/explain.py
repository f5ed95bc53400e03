"""Why a process is as it is: everything that is known about it, in one object."""

from __future__ import annotations

import os
import time

from ncolony.ctllib.common import check_name, no_such_process, read
from ncolony.ctllib.reports import Status, definition, history_of, status, supervisor

TYPE_CHECKING = False  # see ncolony.ctllib
if TYPE_CHECKING:
    from typing import Any

    from ncolony.ctllib import Path, Places
    from ncolony.ctllib.reports import Supervisor

_EXITS = 3  # the newest that are told


def why(places: Places, name: str, *, state: Path | None = None, ctl: str = "ncolony ctl") -> list[dict[str, Any]]:
    """Everything known about the process `name`, or about each copy of the config file `name`: one object for each.

    The keys are those of the documentation; all values are JSON's. `ctl` is how the command line is to be called in
    the advice.

    :raises NotThere: when there is no such process.
    :raises CannotAccess: when what is reported may not be read.
    """
    deed = f"explain {check_name('explain', name)}"
    runs = supervisor(places, state=state)
    found = [one for one in status(places, state=state) if name in (one.name, one.file)]
    if not found:
        raise no_such_process(deed, places)
    return [explained(places, one, runs, state, ctl) for one in found]


def explained(places: Places, one: Status, runs: Supervisor | None, state: Path | None, ctl: str) -> dict[str, Any]:
    """The object of one process."""
    from ncolony.decide import advice

    now = time.time()
    past, details = history_of(places, one.name, state=state), definition(places, one.file)
    path = os.path.join(os.fspath(places.config), one.file)
    record = {**one.record, "memory_max": _size(details.get("memory_max"))}
    case = advice.Case(
        record,
        [ended.record for ended in past],
        details,
        now=now,
        supervised=runs is not None,
        ctl=ctl,
        path=path,
        start=_start(places, state),
    )
    return {
        "name": one.name,
        "file": path,
        "as_wanted": advice.is_as_wanted(case),
        "state": one.state,
        "since": one.since,
        "ready": case.is_ready(),
        "wanted": one.wanted,
        "wanted_by": advice.wanted_by(record),
        "because": one.reason,
        "waiting_for": [*one.waiting_for, *one.holding],
        "next_try": one.next_try,
        "next_try_in": None if one.next_try is None else round(max(0.0, one.next_try - now), 1),
        "problem": None if one.problem is None else _problem(path, details, one),
        "rolled_back": one.rolled_back,
        "warnings": one.warnings,
        "pid": one.pid,
        "instance": one.instance,
        "started": one.started,
        "exits": [ended.record for ended in past[-_EXITS:]],
        "restarts": one.restarts,
        "ends_in_last_hour": len(case.ended_lately()),
        "memory": one.memory,
        "memory_max": record["memory_max"],
        "supervisor": None if runs is None else {"pid": runs.pid, "version": runs.version, "problems": runs.problems},
        "advice": advice.advise(case),
    }


def _problem(path: str, details: dict[str, Any], one: Status) -> dict[str, Any]:
    """What is wrong with its file: the key and its value where that can be told, and why."""
    from ncolony.model import config  # imports msgspec: 28 ms

    try:
        found = config.define(one.file, read(path))
    except OSError:
        found = config.Problem(one.file, "", "")
    if not isinstance(found, config.Problem) or str(found) != one.problem:
        return {"file": path, "key": "", "value": None, "why": one.problem}
    value: Any = details
    for key in found.key.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return {"file": path, "key": found.key, "value": value, "why": found.why}


def _size(value: object) -> int | None:
    if not isinstance(value, int | str):
        return None
    from ncolony.model import config  # imports msgspec: 28 ms

    return config.parse_size(value)


def _start(places: Places, state: Path | None) -> str:
    """The command that starts a supervisor for these places."""
    import shlex

    options = {"--messages": places.messages, "--config": places.config, "--state": state}
    words = [word for key, path in options.items() if path is not None for word in (key, os.fspath(path))]
    return shlex.join(["python", "-m", "twisted", "ncolony", *words])
