"""What the supervisor reports: statuses, histories, answers, and itself."""

from __future__ import annotations

import os

from ncolony.ctllib import NOT_SEEN
from ncolony.ctllib.common import check_name, no_such_process, parsed, read, refused, shown, state_directory
from ncolony.ctllib.fitting import fitting
from ncolony.model import names as _names

TYPE_CHECKING = False  # see ncolony.ctllib
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ncolony.ctllib import Path, Places

_TOO_LARGE = 1e12  # seconds or KiB
# The states in which there is an instance, or is about to be.
LIVE = ("STARTING", "RUNNING", "STOPPING")


class LastExit:
    """How the last instance ended. `at` is wall-clock seconds, `lived` seconds; one of code and signal is None.

    `core` says that it left a core dump, `oom` that the kernel killed it because memory ran out. `cpu` is seconds,
    `rss_kb` the peak resident memory in KiB; they are None where nobody could tell.
    """

    __slots__ = ("at", "code", "core", "cpu", "lived", "oom", "rss_kb", "signal", "text")

    code: int | None
    signal: str | None
    at: float
    lived: float
    text: str
    core: bool
    oom: bool
    cpu: float | None
    rss_kb: int | None

    def __init__(self, record: Mapping[str, Any]) -> None:
        record = fitting(record, _EXIT)
        self.code = record.get("code")
        self.signal = record.get("signal")
        self.at = number(record.get("at")) or 0.0
        self.lived = number(record.get("lived")) or 0.0
        self.text = record.get("text") or ""
        self.core, self.oom = bool(record.get("core")), bool(record.get("oom"))
        self.cpu = number(record.get("cpu"))
        rss = number(record.get("rss_kb"))
        self.rss_kb = None if rss is None else int(rss)


class PastExit(LastExit):
    """One line of a process's history: an instance that ended. `started` is wall-clock seconds, or None if not known.

    `name` is the process, `reason` why it was stopped, if it was; `lines` are the last that it printed. `record` is the
    whole JSON object.
    """

    __slots__ = ("id", "instance", "lines", "name", "pid", "reason", "record", "started")

    name: str
    id: str
    instance: int
    pid: int | None
    started: float | None
    reason: str
    lines: list[str]
    record: dict[str, Any]

    def __init__(self, record: Mapping[str, Any], name: str = "") -> None:
        super().__init__(record)
        record = fitting(record, _EXIT)
        self.record, self.name = dict(record), name
        self.id, self.instance = record.get("id") or "", record.get("instance") or 0
        self.pid, self.started = record.get("pid"), number(record.get("started"))
        self.reason = record.get("reason") or ""
        self.lines = list(record.get("lines") or [])

    def __repr__(self) -> str:
        return f"PastExit({self.record!r})"


class Status:
    """One process as its supervisor last reported it. Times are wall-clock seconds, for people only.

    `record` is the whole report as a JSON object; values in it that are of a wrong type are as if they were not there.
    `state` is UNKNOWN, with the reason in `problem`, when the report cannot be read. `file` is the name of its config
    file, which the copies of a process share. `memory` is bytes.
    """

    __slots__ = (
        "digest",
        "enabled",
        "file",
        "generation",
        "group",
        "health",
        "healthy",
        "holding",
        "instance",
        "job",
        "last_exit",
        "late",
        "memory",
        "name",
        "next_try",
        "phase",
        "pid",
        "problem",
        "ready_at",
        "reason",
        "record",
        "restarts",
        "rolled_back",
        "said",
        "since",
        "started",
        "state",
        "waiting_for",
        "wanted",
        "warnings",
    )

    name: str
    state: str
    wanted: str
    pid: int | None
    instance: int
    since: float
    started: float | None
    restarts: int
    next_try: float | None
    reason: str
    problem: str | None
    warnings: list[str]
    group: list[str]
    enabled: bool
    generation: str
    digest: str
    last_exit: LastExit | None
    holding: list[str]
    file: str
    ready_at: float | None
    rolled_back: str | None
    memory: int | None
    waiting_for: list[str]
    said: str
    phase: str
    healthy: bool | None
    health: str
    late: str
    job: bool
    record: dict[str, Any]

    def __init__(self, name: str, record: Mapping[str, Any]) -> None:
        self.record = full = dict(fitting({"name": name, **_EMPTY, **record}, _STATUS, _EMPTY))
        full["name"] = full["name"] or name
        if full["last_exit"] is not None:
            full["last_exit"] = fitting(full["last_exit"], _EXIT)
        self.name = name
        self.state, self.wanted = full["state"], full["wanted"]
        self.pid, self.instance = full["pid"], full["instance"]
        self.since, self.started, self.next_try = full["since"], full["started"], full["next_try"]
        self.restarts = full["restarts"]
        self.reason, self.problem, self.warnings = full["reason"], full["problem"], full["warnings"]
        self.group, self.enabled = full["group"], full["enabled"]
        self.generation, self.digest = full["generation"], full["digest"]
        self.last_exit = LastExit(full["last_exit"]) if full["last_exit"] is not None else None
        self.holding, self.waiting_for = full["holding"], full["waiting_for"]
        self.file = full["file"] = full["file"] or shared_name(name)
        self.ready_at, self.memory = number(full["ready_at"]), full["memory"]
        self.rolled_back = full["rolled_back"]
        self.said, self.phase = full["said"], full["phase"]
        self.healthy, self.health = full["healthy"], full["health"]
        self.late, self.job = full["late"], full["job"]

    def is_ready(self, now: float) -> bool:
        """Whether it runs and counts as ready at `now`, wall-clock seconds. Of older supervisors running is enough."""
        return self.state == "RUNNING" and (self.ready_at is None or now >= self.ready_at)

    def __repr__(self) -> str:
        return f"Status({self.name!r}, {self.record!r})"


_EMPTY: dict[str, Any] = {
    "state": "STOPPED",
    "wanted": "up",
    "pid": None,
    "instance": 0,
    "since": 0.0,
    "started": None,
    "restarts": 0,
    "next_try": None,
    "reason": "",
    "problem": None,
    "warnings": [],
    "group": [],
    "enabled": True,
    "generation": "",
    "digest": "",
    "last_exit": None,
    "holding": [],
    # Since these came later, an older supervisor's reports lack them.
    "file": "",
    "ready_at": None,
    "rolled_back": None,
    "memory": None,
    "waiting_for": [],
    "said": "",
    "phase": "",
    "healthy": None,
    "health": "",
    "late": "",
    "job": False,
}
_STATUS: dict[str, type] = {
    "name": str,
    "state": str,
    "wanted": str,
    "pid": int,
    "instance": int,
    "since": float,
    "started": float,
    "restarts": int,
    "next_try": float,
    "reason": str,
    "problem": str,
    "warnings": list,
    "group": list,
    "enabled": bool,
    "generation": str,
    "digest": str,
    "last_exit": dict,
    "holding": list,
    "file": str,
    "ready_at": float,
    "rolled_back": str,
    "memory": int,
    "waiting_for": list,
    "said": str,
    "phase": str,
    "healthy": bool,
    "health": str,
    "late": str,
    "job": bool,
}
_EXIT: dict[str, type] = {
    "code": int,
    "signal": str,
    "text": str,
    "id": str,
    "instance": int,
    "pid": int,
    "reason": str,
    "lines": list,
}
_ANSWER: dict[str, type] = {"state": str, "why": str, "names": list, "generation": str}
_SUPERVISOR: dict[str, type] = {"pid": int, "version": str, "started": float, "problems": list, "descriptors": dict}
# What every line of history holds, and of which type.
_PAST: dict[str, type | tuple[type, ...]] = {"id": str, "instance": int, "at": (int, float), "text": str}


class Supervisor:
    """The live supervisor of a colony. `pid` is None for the moment in which it has not said so yet.

    `descriptors` says how many processes fit, as numbers: `allowed` descriptors, `for_processes` among them, `taken` by
    so many `processes`, how many are `waiting` since they do not fit, and how many more there is `room` for that take
    one each. It is empty where that is not known.
    """

    __slots__ = ("descriptors", "pid", "problems", "started", "version")

    pid: int | None
    version: str
    started: float
    problems: list[str]
    descriptors: dict[str, int]

    def __init__(self, record: Mapping[str, Any]) -> None:
        record = fitting(record, _SUPERVISOR)
        figures = record.get("descriptors") or {}
        self.descriptors = {key: value for key, value in figures.items() if type(value) is int}
        self.pid = record.get("pid")
        self.version = record.get("version") or ""
        self.started = record.get("started") or 0.0
        self.problems = list(record.get("problems") or [])


class Answer:
    """What became of a message: `state` is accepted, done or failed; `why` says why it failed."""

    __slots__ = ("accepted", "generation", "names", "state", "why")

    accepted: bool
    state: str
    why: str
    names: list[str]
    generation: str

    def __init__(self, record: Mapping[str, Any]) -> None:
        record = fitting(record, _ANSWER)
        self.accepted = bool(record.get("accepted"))
        self.state = record.get("state") or "accepted"
        self.why = record.get("why") or ""
        self.names = list(record.get("names") or [])
        self.generation = record.get("generation") or ""


class Applied:
    """What of the config directory is in effect: the `generation` of its content, how many `files` that was.

    `problems` is how many of them could not be used. `at` is wall-clock seconds.
    """

    __slots__ = ("at", "files", "generation", "problems")

    generation: str
    files: int
    problems: int
    at: float

    def __init__(self, record: Mapping[str, Any]) -> None:
        record = fitting(record, _ANSWER)
        self.generation, self.at = record.get("generation") or "", number(record.get("at")) or 0.0
        self.files, self.problems = int(number(record.get("files")) or 0), int(number(record.get("problems")) or 0)


def applied(places: Places, *, state: Path | None = None) -> Applied | None:
    """What the supervisor has applied of the config directory; None where it does not say, as older ones do not."""
    try:
        return Applied(parsed(read(os.path.join(state_directory(places, state), "applied"))))
    except (OSError, ValueError):
        return None


def answer(places: Places, message_id: str, *, state: Path | None = None) -> Answer | None:
    """What became of a message so far; None when it has no answer yet, or none any more."""
    try:
        return Answer(parsed(read(os.path.join(state_directory(places, state), "answers", message_id))))
    except (OSError, ValueError):
        return None


def status(places: Places, *, state: Path | None = None) -> list[Status]:
    """Every process that is reported or defined, sorted by name. `state` is the state directory where not the default.

    :raises CannotAccess: when the reports may not be read.
    """
    directory = os.path.join(state_directory(places, state), "status")
    found = {name: reported(directory, name) for name in file_names(directory)}
    records = {name: record for name, record in found.items() if record is not None}
    replicated = {record.file for record in records.values()}
    for name in file_names(os.fspath(places.config)):
        if name not in records and name not in replicated:
            records[name] = not_seen(places, name)
    return [records[name] for name in sorted(records)]


def status_of(places: Places, name: str, *, state: Path | None = None) -> Status | None:
    """The report on one process, or None when there is none.

    :raises CannotAccess: when it may not be read.
    """
    check_name("show", name)
    return reported(os.path.join(state_directory(places, state), "status"), name)


def copies(places: Places, name: str, *, state: Path | None = None) -> list[str]:
    """The processes of the config file `name` that are reported: its `instances`, or the one of that name; sorted.

    :raises CannotAccess: when the reports may not be listed.
    """
    check_name("show", name)
    return copies_in(os.path.join(state_directory(places, state), "status"), places, name)


def history(places: Places, name: str, *, state: Path | None = None) -> list[PastExit]:
    """The instances of `name` that ended, as far as they are still known, the newest last.

    Where `name` is a config file with `instances`, those of all its copies: `name` of each says whose it was.
    The history of a process that was removed stays for a while. Lines that are torn or no records are left out.

    :raises NotThere: when there is no such process and no history of one.
    :raises CannotAccess: when it may not be read.
    """
    deed = f"show the history of {check_name('show the history of', name)}"
    directory = state_directory(places, state)
    histories, statuses = os.path.join(directory, "history"), os.path.join(directory, "status")
    found = []
    for one in dict.fromkeys([name, *copies_in(histories, places, name)]):
        found += _past_exits(deed, os.path.join(histories, one), one)
    if not found and not os.path.exists(os.path.join(places.config, name)) and not copies_in(statuses, places, name):
        raise no_such_process(deed, places)
    return sorted(found, key=lambda past: past.at) if any(past.name != name for past in found) else found


def history_of(places: Places, name: str, *, state: Path | None = None) -> list[PastExit]:
    """The same of the process of exactly this name; nothing where none of its instances is known to have ended.

    :raises CannotAccess: when it may not be read.
    """
    deed = f"show the history of {check_name('show the history of', name)}"
    return _past_exits(deed, os.path.join(state_directory(places, state), "history", name), name)


def _past_exits(deed: str, path: str, name: str) -> list[PastExit]:
    try:
        data = read(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise refused(deed, path, error) from error
    return [past for line in data.split(b"\n") if line and (past := _past_exit(name, line))]


def _past_exit(name: str, line: bytes) -> PastExit | None:
    try:
        record = parsed(line)
    except ValueError:
        return None
    lines = record.get("lines") or []
    if not isinstance(lines, list) or not all(isinstance(one, str) for one in lines):
        return None
    return PastExit(record, name) if all(isinstance(record.get(key), kind) for key, kind in _PAST.items()) else None


def supervisor(places: Places, *, state: Path | None = None) -> Supervisor | None:
    """The supervisor that runs for these places, or None when none does.

    :raises CannotAccess: when that cannot be told.
    """
    from ncolony.system.locks import is_held  # imports fcntl, not needed by what only writes

    directory = state_directory(places, state)
    # The lock that decides is for its owner to open; the other one shows, and anybody can hold it to deceive the rest.
    deciding, path = (os.path.join(directory, name) for name in ("supervisor.lock", "lock"))
    try:
        try:
            lives = is_held(deciding)
        except OSError:
            lives = is_held(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise refused("look for the supervisor", path, error) from error
    if not lives:
        return None
    try:
        return Supervisor(parsed(read(os.path.join(directory, "supervisor.json"))))
    except (OSError, ValueError):
        return Supervisor({})


def number(value: object) -> float | None:
    """`value` if it is a number that one can reckon with: JSON files may hold anything."""
    return value if isinstance(value, int | float) and abs(value) < _TOO_LARGE else None


def file_names(directory: str) -> list[str]:
    """The names in a directory that are processes' or messages'; none where there is no directory."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if not _names.is_ignored(entry.name) and not entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise refused("show the processes", directory, error) from error


def reported(directory: str, name: str) -> Status | None:
    path = os.path.join(directory, name)
    try:
        return Status(name, parsed(read(path)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise refused(f"show {shown(name)}", path, error) from error
    except (OSError, ValueError) as error:
        return Status(name, {"state": "UNKNOWN", "problem": f"cannot read its status: {error}"})


def copies_in(directory: str, places: Places, name: str) -> list[str]:
    """The names in `directory` that belong to the config file `name`, in the order of their numbers.

    What has a config file of its own, such as one called "web:0", is no copy.
    """
    found = [one for one in file_names(directory) if name in (one, shared_name(one))]
    found = [one for one in found if one == name or not os.path.lexists(os.path.join(places.config, one))]
    return sorted(found, key=lambda one: (len(one), one))


def shared_name(name: str) -> str:
    """ "web" for "web:0"; any other name is its own."""
    shared, _, index = name.rpartition(":")
    return shared if shared and index.isascii() and index.isdigit() else name


def not_seen(places: Places, name: str) -> Status:
    """The status of a process that is defined and that nothing is reported of."""
    details = definition(places, name)  # what is wrong with the file is for the supervisor to say
    enabled = details.get("enabled", True) is not False
    none = details.get("instances") == 0
    wanted = "up" if enabled and not none else "down"
    reason = "it has 0 instances" if none else NOT_SEEN
    return Status(name, {"reason": reason, "enabled": enabled, "wanted": wanted})


def definition(places: Places, name: str) -> dict[str, Any]:
    """What the config file `name` says; nothing where there is none that can be read."""
    try:
        return parsed(read(os.path.join(places.config, name)))
    except (OSError, ValueError):
        return {}
