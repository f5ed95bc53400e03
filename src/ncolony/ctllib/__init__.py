"""Control a colony through its files: define processes, send messages, read what the supervisor reports.

Everything here is a file operation. No supervisor needs to run: definitions and messages wait for the next one.
Nothing of Twisted or msgspec is imported by importing this module, so that the command line starts quickly.
"""

from __future__ import annotations

import collections
import errno
import itertools
import json
import os
import stat
import time

from ncolony.model import names as _names
from ncolony.system import files as _files

# The module `typing` costs as much start-up time as argparse; type checkers take this name for the real one.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, NamedTuple

    from ncolony.model.config import Definition

    PARSER: argparse.ArgumentParser

    class Places(NamedTuple):
        """The two directories of a colony, given as texts or path-likes, absolute or relative."""

        config: Path
        messages: Path

else:
    Places = collections.namedtuple("Places", "config messages")
    Places.__doc__ = "The two directories of a colony, given as texts or path-likes, absolute or relative."

Path = str | os.PathLike[str]

CONFIG_VARIABLE = "NCOLONY_CTL_CONFIG"
MESSAGES_VARIABLE = "NCOLONY_CTL_MESSAGES"
NO_SUPERVISOR = "no supervisor is running for these directories"
NOTHING_RUNS = "neither supervisor nor keeper runs for these directories"
NOT_SEEN = "not seen by a supervisor yet"
SCOPES = ("process", "tree")

# Polling: short enough that nobody notices, growing so that a long wait costs nothing.
_FIRST_DELAY_S = 0.002
_LONGEST_DELAY_S = 0.05
_DEFAULT_WAIT_S = 30.0
# uid_t and gid_t are 32 bits and the last value means "leave as it is" (setresuid(2)).
_LARGEST_ID = 2**32 - 2
_TOO_LONG_TO_SHOW = 80
_TOO_LARGE = 1e12  # seconds or KiB


class Error(Exception):
    """What could not be done and why, in one line: "cannot add 'x': the name contains '/'"."""


class BadValue(Error, ValueError):
    """A name or value that no definition or message may have."""


class NotThere(Error, FileNotFoundError):
    """The process or the directory is not there."""


class CannotAccess(Error, OSError):
    """The operating system refused to read or write; `errno` says what it said."""


class Failed(Error):
    """The supervisor could not do it."""


class TimedOut(Error, TimeoutError):
    """The supervisor has not done it in time; it may still do so."""


# --- definitions ---


def add(
    places: Places,
    name: str,
    cmd: Path,
    args: Iterable[Path] | None,
    env: Iterable[str] | Mapping[str, str] | None = None,
    uid: int | str | None = None,
    gid: int | str | None = None,
    extras: Mapping[str, Any] | None = None,
    env_inherit: Iterable[str] | None = None,
    *,
    group: Iterable[str] | str | None = None,
    cwd: Path | None = None,
    umask: int | str | None = None,
    enabled: bool | None = None,
) -> bool:
    """Define the process `name`, or redefine it; True when its file changed, False when it said the same already.

    `env` is a list of "NAME=VALUE" or a mapping. A `uid` or `gid` that is a name must exist on this machine.
    `umask` is octal as text ("022") or a number. `extras` are further keys of the file and win over the others.
    Only the keys given are written.

    :raises BadValue: for a name or value that cannot be; nothing is written then.
    :raises NotThere: when the config directory does not exist.
    :raises CannotAccess: when the file cannot be written.
    """
    deed = f"add {_check_name('add', name)}"
    details: dict[str, Any] = {"args": _texts(deed, "args", [cmd, *_items(deed, "args", args or [])])}
    if not details["args"][0]:
        raise BadValue(f"cannot {deed}: cmd: is empty")
    if env is not None:
        details["env"] = _environment(deed, env)
    if env_inherit is not None:
        details["env_inherit"] = _texts(deed, "env_inherit", env_inherit)
    if group is not None:
        details["group"] = _texts(deed, "group", [group] if isinstance(group, str) else group)
    if cwd is not None:
        details["cwd"] = _texts(deed, "cwd", [cwd])[0]
    optional = {"uid": uid, "gid": gid, "umask": umask, "enabled": enabled}
    details.update((key, value) for key, value in optional.items() if value is not None)
    if extras is not None:
        details.update(_extras(deed, extras))
    for key in ("uid", "gid"):
        _check_owner(deed, key, details.get(key))
    data = _encoded(deed, details)
    # Loading the model takes longer than all the rest: only for keys that are not checked above.
    if umask is not None or enabled is not None or any("." not in key for key in extras or ()):
        _check_definition(deed, name, data)
    path = os.path.join(places.config, name)
    if _says_the_same(path, data):
        return False
    _write(deed, path, data)
    return True


def remove(places: Places, name: str) -> None:
    """Remove the definition of the process `name`, which stops it.

    :raises NotThere: when there is no such definition.
    :raises CannotAccess: when it cannot be removed.
    """
    deed = f"remove {_check_name('remove', name)}"
    try:
        os.unlink(os.path.join(places.config, name))
    except FileNotFoundError as error:
        raise _no_such_process(deed, places) from error
    except OSError as error:
        raise _refused(deed, os.path.join(places.config, name), error) from error


def enable(places: Places, name: str) -> bool:
    """Let the process `name` run again; True when its file changed. Everything else in the file stays.

    :raises NotThere: when there is no such definition.
    :raises BadValue: when its file is not a JSON object.
    """
    return _set_enabled(places, name, True, "enable")


def disable(places: Places, name: str) -> bool:
    """Keep the definition of `name` but do not run it; True when its file changed. Everything else in it stays.

    :raises NotThere: when there is no such definition.
    :raises BadValue: when its file is not a JSON object.
    """
    return _set_enabled(places, name, False, "disable")


def _set_enabled(places: Places, name: str, wanted: bool, verb: str) -> bool:
    deed = f"{verb} {_check_name(verb, name)}"
    path = os.path.join(places.config, name)
    try:
        details = _parsed(_read(path))
    except FileNotFoundError as error:
        raise _no_such_process(deed, places) from error
    except OSError as error:
        raise _refused(deed, path, error) from error
    except ValueError as error:
        raise BadValue(f"cannot {deed}: {path}: {error}") from error
    if details.get("enabled", True) is wanted:
        return False
    details["enabled"] = wanted
    _write(deed, path, _encoded(deed, details))
    return True


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _TOO_LONG_TO_SHOW else text[:_TOO_LONG_TO_SHOW] + "…"


def _check_name(verb: str, name: object) -> str:
    """The name as it is shown in errors, once it is known to be one."""
    wrong = _names.problem_with_name(name) if isinstance(name, str) else "the name is not text"
    if wrong:
        raise BadValue(f"cannot {verb} {_shown(name)}: {wrong}")
    return _shown(name)


def _items(deed: str, key: str, values: Iterable[Any]) -> Iterable[Any]:
    # A single text would be taken letter by letter.
    if isinstance(values, str | bytes):
        raise BadValue(f"cannot {deed}: {key}: expected a list of texts, found {_shown(values)}")
    return values


def _texts(deed: str, key: str, values: Iterable[Any]) -> list[str]:
    found = [os.fspath(value) if hasattr(value, "__fspath__") else value for value in _items(deed, key, values)]
    for text in found:
        _check_text(deed, key, text)
        if not text and key != "args":
            raise BadValue(f"cannot {deed}: {key}: is empty")
    return found


def _check_text(deed: str, key: str, text: object) -> None:
    if not isinstance(text, str):
        raise BadValue(f"cannot {deed}: {key}: expected text, found {_shown(text)}")
    if "\0" in text:
        raise BadValue(f"cannot {deed}: {key}: {_shown(text)} contains NUL")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadValue(f"cannot {deed}: {key}: {_shown(text)} is not valid UTF-8") from error


def _environment(deed: str, env: Iterable[str] | Mapping[str, str]) -> dict[str, str]:
    if hasattr(env, "items"):
        pairs = list(env.items())
    else:
        pairs = []
        for entry in _texts(deed, "env", env):
            key, equals, value = entry.partition("=")
            if not equals:
                raise BadValue(f"cannot {deed}: env: expected NAME=VALUE, found {_shown(entry)}")
            pairs.append((key, value))
    for key, value in pairs:
        _check_text(deed, "env", key)
        _check_text(deed, "env", value)
        if not key or "=" in key:
            raise BadValue(f"cannot {deed}: env: {_shown(key)} cannot name a variable")
    return dict(pairs)


def _extras(deed: str, extras: Any) -> Mapping[str, Any]:
    if not hasattr(extras, "keys") or not all(isinstance(key, str) for key in extras):
        raise BadValue(f"cannot {deed}: extras: expected an object with texts as keys, found {_shown(extras)}")
    return dict(extras)


def _check_owner(deed: str, key: str, owner: object) -> None:
    if owner is None:
        return
    if isinstance(owner, int) and not isinstance(owner, bool):
        if not 0 <= owner <= _LARGEST_ID:
            raise BadValue(f"cannot {deed}: {key}: expected a number from 0 to {_LARGEST_ID}, found {owner}")
        return
    _check_text(deed, key, owner)
    import grp  # only needed for names
    import pwd

    try:
        found: object = pwd.getpwnam(str(owner)) if key == "uid" else grp.getgrnam(str(owner))
    except KeyError:
        found = None
    if not found:
        kind = "user" if key == "uid" else "group"
        raise BadValue(f"cannot {deed}: {key}: there is no {kind} {_shown(owner)} on this machine")


def _check_definition(deed: str, name: str, data: bytes) -> None:
    from ncolony.model import config  # imports msgspec: 28 ms

    found = config.decode(name, data)
    if isinstance(found, config.Problem):
        raise BadValue(f"cannot {deed}: {found.key}: {found.why}" if found.key else f"cannot {deed}: {found.why}")


def _encoded(deed: str, details: Mapping[str, Any]) -> bytes:
    try:
        data = json.dumps(details, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError as error:
        raise BadValue(f"cannot {deed}: a text in it is not valid UTF-8") from error
    except RecursionError as error:
        raise BadValue(f"cannot {deed}: nested too deeply") from error
    except (TypeError, ValueError) as error:
        raise BadValue(f"cannot {deed}: {error}") from error
    if len(data) > _files.LARGEST:
        raise BadValue(f"cannot {deed}: its file would be {len(data)} bytes, more than {_files.LARGEST}")
    return data


def _parsed(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`.

    :raises ValueError: saying why it is none.
    """
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def _says_the_same(path: str, data: bytes) -> bool:
    """Whether the file holds these values already. 1, 1.0 and true are three values, as for the supervisor."""
    try:
        return json.dumps(_parsed(_read(path)), sort_keys=True) == json.dumps(_parsed(data), sort_keys=True)
    except (OSError, ValueError, RecursionError):
        return False


def _read(path: str) -> bytes:
    """The content of a regular file of reasonable size; never blocks.

    :raises OSError: when it is something else or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if found.st_size > _files.LARGEST:
            raise OSError(errno.EFBIG, f"larger than {_files.LARGEST} bytes")
        return os.read(descriptor, found.st_size + 1)
    finally:
        os.close(descriptor)


def _write(deed: str, path: str, data: bytes) -> None:
    try:
        # What was private stays private: the file may hold secrets.
        mode = stat.S_IMODE(os.stat(path).st_mode) & 0o666
    except OSError:
        mode = 0o666
    try:
        _files.write_whole(path, data, mode)
    except OSError as error:
        raise _refused(deed, path, error) from error


def _refused(deed: str, path: str, error: OSError) -> Error:
    directory = os.path.dirname(path) or "."
    if error.errno == errno.ENOENT and not os.path.isdir(directory):
        raised: NotThere | CannotAccess = NotThere(f"cannot {deed}: there is no directory {directory!r}")
    else:
        raised = CannotAccess(f"cannot {deed}: {path!r}: {error.strerror or error}")
    raised.errno = error.errno
    return raised


def _no_such_process(deed: str, places: Places) -> NotThere:
    raised = NotThere(f"cannot {deed}: there is no such process in {os.fspath(places.config)!r}")
    raised.errno = errno.ENOENT
    return raised


# --- messages ---


def restart(places: Places, name: str) -> str:
    """Ask for the process `name` to be restarted; returns the message's id, which is its file name."""
    return _send(places, f"restart {_check_name('restart', name)}", {"type": "RESTART", "name": name})


def restart_all(places: Places) -> str:
    """Ask for every process that should run to be restarted; returns the message's id."""
    return _send(places, "restart all", {"type": "RESTART-ALL"})


def restart_group(places: Places, group: str) -> str:
    """Ask for the processes of a group to be restarted; returns the message's id."""
    deed = f"restart group {_shown(group)}"
    if not group:
        raise BadValue(f"cannot {deed}: the group's name is empty")
    _check_text(deed, "group", group)
    return _send(places, deed, {"type": "RESTART-GROUP", "group": group})


def start(places: Places, name: str) -> str:
    """Ask for the process `name` to be started; returns the message's id."""
    return _send(places, f"start {_check_name('start', name)}", {"type": "START", "name": name})


def stop(places: Places, name: str) -> str:
    """Ask for the process `name` to be stopped until it is started or changed; returns the message's id."""
    return _send(places, f"stop {_check_name('stop', name)}", {"type": "STOP", "name": name})


def signal(places: Places, name: str, signal: str | int, scope: str = "process") -> str:
    """Ask for a signal to be sent to the process `name`; returns the message's id.

    `signal` is "HUP", "SIGHUP" or 1. `scope` is "process", for its own pid alone, or "tree", for all that it started.

    :raises BadValue: for a signal or scope that there is not.
    """
    deed = f"signal {_check_name('signal', name)}"
    from ncolony.model import config  # imports msgspec: 28 ms

    if isinstance(signal, bool) or not isinstance(signal, str | int) or config.signal_number(signal) is None:
        raise BadValue(f"cannot {deed}: there is no signal {_shown(signal)}")
    if scope not in SCOPES:
        raise BadValue(f"cannot {deed}: scope: expected one of {', '.join(SCOPES)}, found {_shown(scope)}")
    return _send(places, deed, {"type": "SIGNAL", "name": name, "signal": signal, "scope": scope})


def scan(places: Places) -> str:
    """Ask the supervisor to look at its directories now; returns the message's id."""
    return _send(places, "scan", {"type": "SCAN"})


def upgrade(places: Places) -> str:
    """Ask the supervisor to go on as the version that is installed now; returns the message's id."""
    return _send(places, "upgrade", {"type": "UPGRADE"})


def shutdown(places: Places, *, state: Path | None = None, timeout: float = _DEFAULT_WAIT_S) -> str:
    """Ask for everything to be stopped and ended, supervisor and keeper included; returns the message's id.

    Where no supervisor runs but its keeper still holds processes, the keeper is asked, and it is waited for up to
    `timeout` seconds; returns "" when it has stopped everything and ended. `wait_for_shutdown` waits in both cases.

    :raises NotThere: when neither runs. No message is left then: it would end the next supervisor.
    :raises TimedOut: when the keeper has not ended in time.
    :raises Failed: when it ended before everything else had.
    :raises CannotAccess: when it cannot be asked.
    """
    if supervisor(places, state=state) is None and _end_keeper(places, state, timeout):
        return ""
    return _send(places, "shut down", {"type": "SHUTDOWN"})


def _end_keeper(places: Places, state: Path | None, timeout: float) -> bool:
    """End a keeper that has no supervisor; False when it turns out to have one."""
    from ncolony.system.shutdown import Died, Unfinished, end_keeper  # imports socket

    try:
        end_keeper(_state_directory(places, state), timeout)
    except BlockingIOError:
        return False
    except Unfinished as error:
        raise TimedOut(f"cannot shut down: after {round(timeout, 2):g} s the keeper has not ended: {error}") from error
    except Died as error:
        raise Failed("cannot shut down: the keeper ended before everything else had") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raised = NotThere(f"cannot shut down: {NOTHING_RUNS}")
        raised.errno = errno.ENOENT
        raise raised from error
    except OSError as error:
        refused = CannotAccess(f"cannot shut down: cannot reach the keeper: {error.strerror or error}")
        refused.errno = error.errno
        raise refused from error
    return True


restartAll = restart_all  # noqa: N816  # upstream's name

_counter = itertools.count()
_last_time_ns = 0


def _message_id() -> str:
    """A name that no other message has and that sorts after all earlier ones of this process."""
    global _last_time_ns
    _last_time_ns = max(time.time_ns(), _last_time_ns + 1)
    return f"{_last_time_ns}-{os.getpid()}-{next(_counter)}"


def _send(places: Places, deed: str, content: Mapping[str, str | int]) -> str:
    message_id = _message_id()
    _write(deed, os.path.join(places.messages, message_id), json.dumps(content, ensure_ascii=False).encode())
    return message_id


# --- what the supervisor reports ---


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
        self.code = record.get("code")
        self.signal = record.get("signal")
        self.at = _number(record.get("at")) or 0.0
        self.lived = _number(record.get("lived")) or 0.0
        self.text = record.get("text") or ""
        self.core, self.oom = bool(record.get("core")), bool(record.get("oom"))
        self.cpu = _number(record.get("cpu"))
        rss = _number(record.get("rss_kb"))
        self.rss_kb = None if rss is None else int(rss)


class PastExit(LastExit):
    """One line of a process's history: an instance that ended. `started` is wall-clock seconds, or None if not known.

    `reason` is why it was stopped, if it was; `lines` are the last that it printed. `record` is the whole JSON object.
    """

    __slots__ = ("id", "instance", "lines", "pid", "reason", "record", "started")

    id: str
    instance: int
    pid: int | None
    started: float | None
    reason: str
    lines: list[str]
    record: dict[str, Any]

    def __init__(self, record: Mapping[str, Any]) -> None:
        super().__init__(record)
        self.record = dict(record)
        self.id, self.instance = record.get("id") or "", record.get("instance") or 0
        self.pid, self.started = record.get("pid"), _number(record.get("started"))
        self.reason = record.get("reason") or ""
        self.lines = list(record.get("lines") or [])

    def __repr__(self) -> str:
        return f"PastExit({self.record!r})"


class Status:
    """One process as its supervisor last reported it. Times are wall-clock seconds, for people only.

    `record` is the whole report as a JSON object. `state` is UNKNOWN, with the reason in `problem`, when the report
    cannot be read.
    """

    __slots__ = (
        "digest",
        "enabled",
        "generation",
        "group",
        "holding",
        "instance",
        "last_exit",
        "name",
        "next_try",
        "pid",
        "problem",
        "reason",
        "record",
        "restarts",
        "since",
        "started",
        "state",
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
    record: dict[str, Any]

    def __init__(self, name: str, record: Mapping[str, Any]) -> None:
        self.record = full = {"name": name, **_EMPTY, **record}
        self.name = name
        self.state, self.wanted = full["state"], full["wanted"]
        self.pid, self.instance = full["pid"], full["instance"]
        self.since, self.started, self.next_try = full["since"], full["started"], full["next_try"]
        self.restarts = full["restarts"]
        self.reason, self.problem, self.warnings = full["reason"], full["problem"], full["warnings"]
        self.group, self.enabled = full["group"], full["enabled"]
        self.generation, self.digest = full["generation"], full["digest"]
        self.last_exit = LastExit(full["last_exit"]) if isinstance(full["last_exit"], dict) else None
        self.holding = full["holding"]

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
}
# What every line of history holds, and of which type.
_PAST: dict[str, type | tuple[type, ...]] = {"id": str, "instance": int, "at": (int, float), "text": str}


def _number(value: object) -> float | None:
    """`value` if it is a number that one can reckon with: JSON files may hold anything."""
    return value if isinstance(value, int | float) and abs(value) < _TOO_LARGE else None


class Supervisor:
    """The live supervisor of a colony. `pid` is None for the moment in which it has not said so yet."""

    __slots__ = ("pid", "problems", "started", "version")

    pid: int | None
    version: str
    started: float
    problems: list[str]

    def __init__(self, record: Mapping[str, Any]) -> None:
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
        self.accepted = bool(record.get("accepted"))
        self.state = record.get("state") or "accepted"
        self.why = record.get("why") or ""
        self.names = list(record.get("names") or [])
        self.generation = record.get("generation") or ""


def places_from_env(environ: Mapping[str, str] | None = None) -> Places:
    """The places named by NCOLONY_CTL_CONFIG and NCOLONY_CTL_MESSAGES.

    :raises BadValue: when one of them is missing or empty.
    """
    variables = os.environ if environ is None else environ
    for variable in (CONFIG_VARIABLE, MESSAGES_VARIABLE):
        if not variables.get(variable):
            raise BadValue(f"cannot find the colony: {variable} is not set")
    return Places(config=variables[CONFIG_VARIABLE], messages=variables[MESSAGES_VARIABLE])


def status(places: Places, *, state: Path | None = None) -> list[Status]:
    """Every process that is reported or defined, sorted by name. `state` is the state directory where not the default.

    :raises CannotAccess: when the reports may not be read.
    """
    directory = os.path.join(_state_directory(places, state), "status")
    found = {name: _reported(directory, name) for name in _file_names(directory)}
    records = {name: record for name, record in found.items() if record is not None}
    replicated = {name.rpartition(":")[0] for name in records}
    for name in _file_names(os.fspath(places.config)):
        if name not in records and name not in replicated:
            records[name] = _not_seen(places, name)
    return [records[name] for name in sorted(records)]


def status_of(places: Places, name: str, *, state: Path | None = None) -> Status | None:
    """The report on one process, or None when there is none.

    :raises CannotAccess: when it may not be read.
    """
    _check_name("show", name)
    return _reported(os.path.join(_state_directory(places, state), "status"), name)


def history(places: Places, name: str, *, state: Path | None = None) -> list[PastExit]:
    """The instances of `name` that ended, as far as they are still known, the newest last.

    The history of a process that was removed stays for a while. Lines that are torn or no records are left out.

    :raises NotThere: when there is no such process and no history of one.
    :raises CannotAccess: when it may not be read.
    """
    deed = f"show the history of {_check_name('show the history of', name)}"
    directory = _state_directory(places, state)
    path = os.path.join(directory, "history", name)
    try:
        data = _read(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        known = (os.path.join(directory, "status", name), os.path.join(places.config, name))
        if not any(os.path.exists(one) for one in known):
            raise _no_such_process(deed, places) from error
        return []
    except OSError as error:
        raise _refused(deed, path, error) from error
    return [past for line in data.split(b"\n") if line and (past := _past_exit(line))]


def _past_exit(line: bytes) -> PastExit | None:
    try:
        record = _parsed(line)
    except ValueError:
        return None
    lines = record.get("lines") or []
    if not isinstance(lines, list) or not all(isinstance(one, str) for one in lines):
        return None
    return PastExit(record) if all(isinstance(record.get(key), kind) for key, kind in _PAST.items()) else None


def supervisor(places: Places, *, state: Path | None = None) -> Supervisor | None:
    """The supervisor that runs for these places, or None when none does.

    :raises CannotAccess: when that cannot be told.
    """
    import fcntl  # not needed by what only writes

    directory = _state_directory(places, state)
    path = os.path.join(directory, "lock")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _refused("look for the supervisor", path, error) from error
    try:
        # A supervisor holds it exclusively for as long as it lives; one that starts meanwhile tries for 2 s.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)
    try:
        return Supervisor(_parsed(_read(os.path.join(directory, "supervisor.json"))))
    except (OSError, ValueError):
        return Supervisor({})


def wait_for_answer(
    places: Places, message_id: str, timeout: float = _DEFAULT_WAIT_S, *, state: Path | None = None
) -> Answer:
    """Wait up to `timeout` seconds for what became of a message: an answer that says done or failed.

    :raises TimedOut: when it says neither by then.
    """
    path = os.path.join(_state_directory(places, state), "answers", message_id)
    answer = None
    for _ in _poll(timeout):
        try:
            answer = Answer(_parsed(_read(path)))
        except (OSError, ValueError):
            continue
        if answer.state != "accepted" or not answer.accepted:
            return answer
    why = "the supervisor took it but has not finished" if answer else "no supervisor answered"
    raise TimedOut(
        f"cannot see the end of message {message_id}: {why} within {round(timeout, 2):g} s{_hint(places, state)}"
    )


def wait_for_shutdown(
    places: Places, message_id: str, timeout: float = _DEFAULT_WAIT_S, *, state: Path | None = None
) -> None:
    """Wait up to `timeout` seconds until the message that `shutdown` sent is carried out: nothing runs any more.

    Should the supervisor be killed meanwhile, its keeper is asked in its place.

    :raises Failed: when the supervisor refuses.
    :raises TimedOut: when something still runs by then.
    """
    deadline = time.monotonic() + timeout
    answer_path = os.path.join(_state_directory(places, state), "answers", message_id)
    for _ in _poll(timeout):
        try:
            answer = Answer(_parsed(_read(answer_path)))
        except (OSError, ValueError):
            answer = Answer({})
        if answer.state == "failed":
            raise Failed(f"cannot shut down: {answer.why or 'the supervisor gives no reason'}")
        if supervisor(places, state=state) is not None:
            continue
        taken = not _withdrawn(places, message_id)
        try:
            if _end_keeper(places, state, max(0.0, deadline - time.monotonic())):
                return
        except NotThere:
            if taken:
                return
            raise
    raise TimedOut(f"cannot shut down: after {round(timeout, 2):g} s the supervisor has not ended")


def _withdrawn(places: Places, message_id: str) -> bool:
    """Remove a message that nobody is there to take: it must not end the next supervisor. False when it was taken."""
    try:
        os.unlink(os.path.join(places.messages, message_id))
    except OSError:
        return False
    return True


def wait_for_applied(
    places: Places, name: str, timeout: float = _DEFAULT_WAIT_S, *, state: Path | None = None
) -> Status | None:
    """Wait up to `timeout` seconds until what the config directory now says of `name` is in effect.

    That is: running, or stopped where it should not run, under the present definition; returns its status. Where the
    definition is gone, until the process is gone too; returns None.

    :raises Failed: when the definition is bad, or the process ended in failure for good.
    :raises TimedOut: when it is not in effect by then.
    """
    goal = f"see {_check_name('see', name)} applied"
    path = os.path.join(places.config, name)
    try:
        data, written_ns = _read(path), os.stat(path).st_mtime_ns
    except FileNotFoundError:
        _wait_for_gone(places, name, timeout, state)
        return None
    except OSError as error:
        raise _refused(goal, path, error) from error
    from ncolony.model import config  # imports msgspec: 28 ms

    definition = config.define(name, data)
    if isinstance(definition, config.Problem):
        raise Failed(str(definition))
    directory = os.path.join(_state_directory(places, state), "status")
    found = None
    for _ in _poll(timeout):
        found = _reported(directory, name)
        if found is None:
            continue
        if found.digest == definition.digest:
            if _is_settled(found, definition):
                return found
        elif found.problem and _is_newer(directory, name, written_ns):
            raise Failed(f"cannot {goal}: {found.problem}")
    raise TimedOut(f"cannot {goal}: after {round(timeout, 2):g} s {_as_it_is(found)}{_hint(places, state)}")


def _wait_for_gone(places: Places, name: str, timeout: float, state: Path | None) -> None:
    directory = os.path.join(_state_directory(places, state), "status")
    found = None
    for _ in _poll(timeout):
        found = _reported(directory, name)
        if found is None:
            return
    raise TimedOut(
        f"cannot see {_shown(name)} gone: after {round(timeout, 2):g} s {_as_it_is(found)}{_hint(places, state)}"
    )


def _is_settled(found: Status, definition: Definition) -> bool:
    """Whether nothing more will come of this definition by itself.

    :raises Failed: when it came to a bad end.
    """
    if found.wanted == "down" or not definition.config.enabled:
        return found.state in ("STOPPED", "EXITED", "FATAL")
    ended = found.last_exit
    if found.state == "EXITED" and ended is not None and ended.code in definition.config.success_codes:
        return True
    if found.state in ("EXITED", "FATAL"):
        raise Failed(f"cannot see {_shown(found.name)} running: {_as_it_is(found)}")
    return found.state == "RUNNING"


def _is_newer(directory: str, name: str, written_ns: int) -> bool:
    try:
        return os.stat(os.path.join(directory, name)).st_mtime_ns > written_ns
    except OSError:
        return False


def _as_it_is(found: Status | None) -> str:
    if found is None:
        return "nothing is reported of it"
    why = found.problem or found.reason
    return f"it is {found.state}: {why}" if why else f"it is {found.state}"


def _hint(places: Places, state: Path | None) -> str:
    try:
        return "" if supervisor(places, state=state) else f"; {NO_SUPERVISOR}"
    except Error:
        return ""


def _state_directory(places: Places, state: Path | None) -> str:
    from ncolony.system.places import state_directory  # imports hashlib, which what only writes does not need

    return state_directory(places.config, places.messages, state)


def _file_names(directory: str) -> list[str]:
    """The names in a directory that are processes' or messages'; none where there is no directory."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if not _names.is_ignored(entry.name) and not entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _refused("show the processes", directory, error) from error


def _reported(directory: str, name: str) -> Status | None:
    path = os.path.join(directory, name)
    try:
        return Status(name, _parsed(_read(path)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise _refused(f"show {_shown(name)}", path, error) from error
    except (OSError, ValueError) as error:
        return Status(name, {"state": "UNKNOWN", "problem": f"cannot read its status: {error}"})


def _not_seen(places: Places, name: str) -> Status:
    try:
        enabled = _parsed(_read(os.path.join(places.config, name))).get("enabled", True) is not False
    except (OSError, ValueError):
        enabled = True  # what is wrong with the file is for the supervisor to say
    return Status(name, {"reason": NOT_SEEN, "enabled": enabled, "wanted": "up" if enabled else "down"})


def _poll(timeout: float) -> Iterator[None]:
    """Come round at once, then more and more slowly, the last time when `timeout` seconds have passed."""
    deadline = time.monotonic() + timeout
    delay = _FIRST_DELAY_S
    while True:
        yield
        left = deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(delay, left))
        delay = min(delay * 1.5, _LONGEST_DELAY_S)


# --- the command line, as upstream offers it here ---


def call(results: object) -> Any:
    """Call `results.func(Places(results.config, results.messages), …)` with the other attributes as keywords."""
    options = dict(vars(results))
    places = Places(config=options.pop("config"), messages=options.pop("messages"))
    func: Callable[..., Any] = options.pop("func")
    return func(places, **options)


def main(argv: Iterable[str]) -> None:
    """Run the command line `argv`; a leading "ctl" may be left out.

    :raises SystemExit: with the exit status, when it is not 0.
    """
    # The only import against the house's direction, with the one below: upstream's callers find both names here.
    from ncolony import cli

    status_code = cli.main(argv)
    if status_code:
        raise SystemExit(status_code)


# Where the functions live that this module offers too, loaded when first asked for: most commands need none of them.
_ELSEWHERE: dict[str, str] = {
    "choose_logs": "logs",
    "read_logs": "logs",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        import importlib

        if name in _ELSEWHERE:
            found = getattr(importlib.import_module(f"ncolony.ctllib.{_ELSEWHERE[name]}"), name)
        elif name == "PARSER":
            # Built when first asked for: argparse is not needed by those who use the functions.
            from ncolony.cli.parser import build

            found = build()
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found
