"""The bytes of one config file become a ProcessConfig or a Problem."""

from __future__ import annotations

import json
import math
import re
import signal
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Literal

import msgspec

from . import conditions
from .conditions import After, Check, Ready, Schedule, Socket
from .names import MOST_INSTANCES as MOST_INSTANCES
from .names import printable

# Keys whose change applies at once, without a restart (DESIGN 3). Sizes inside `log` are live too.
LIVE_KEYS = frozenset(
    "restart success_codes threshold kill_time min_restart_delay max_restart_delay jitter give_up stop stop_scope"
    " on_exit on_give_up after memory_max check watchdog schedule instances rollback_if_not_ready".split()
)
LIVE_LOG_KEYS = frozenset({"max_bytes", "keep"})
# getrlimit(2), without the ones that Linux ignores or that would harm the kernel's view of us.
LIMITS = frozenset(
    "as core cpu data fsize memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)
# uid_t and gid_t are 32 bits and the last value means "leave as it is" (setresuid(2)).
LARGEST_ID = 2**32 - 2
_TOO_LONG_TO_SHOW = 60
# Their values are not for everybody who may read a status.
_PRIVATE_KEYS = frozenset({"env", "env_secret"})
# What the kernel counts limits with: rlim_t is 64 bits, its last value means "unlimited" (getrlimit(2)).
LARGEST_LIMIT = 2**63 - 1
_Seconds = float
_Limit = int | Literal["unlimited"]


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with one file: its name, the key at fault ("" for the whole file) and why, in the user's words."""

    name: str
    key: str
    why: str

    def __str__(self) -> str:
        key = f" {self.key}:" if self.key else ""
        return f"cannot use {self.name}:{key} {self.why}"


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `log` key: what happens to the output of a process."""

    forward: bool = True
    max_bytes: int | str | None = None
    keep: int | None = None
    stdout: str | None = None
    stderr: str | bool = False
    format: Literal["raw", "json"] = "raw"
    timestamps: bool = False
    overflow: Literal["block", "drop"] = "block"
    compress: bool = False

    @property
    def most_bytes(self) -> int | None:
        """The `max_bytes` key as a number of bytes."""
        return None if self.max_bytes is None else parse_size(self.max_bytes)

    @property
    def is_split(self) -> bool:
        """Whether standard error goes a way of its own. One file for both keeps their order."""
        return bool(self.stderr) and self.stderr != self.stdout


class GiveUp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `give_up` key: after `failures` failures within so many seconds the process is FATAL.

    `retry_after` seconds later it is tried again, or never by itself.
    """

    failures: int
    within: _Seconds
    retry_after: _Seconds | None = None


class ProcessConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One config file, decoded. Durations are seconds; None means the supervisor's option of the same meaning."""

    args: tuple[str, ...]
    env: dict[str, str] = {}
    env_inherit: tuple[str, ...] = ()
    uid: int | str | None = None
    gid: int | str | None = None
    group: tuple[str, ...] | str = ()
    cwd: str | None = None
    umask: int | str | None = None
    enabled: bool = True
    restart: Literal["always", "on-failure", "never"] = "always"
    success_codes: tuple[int, ...] = (0,)
    threshold: _Seconds | None = None
    kill_time: _Seconds | None = None
    min_restart_delay: _Seconds | None = None
    max_restart_delay: _Seconds | None = None
    jitter: float = 0.1
    stop: tuple[tuple[str | int, _Seconds], ...] | None = None
    stop_scope: Literal["tree", "process"] = "tree"
    nice: int | None = None
    oom_score_adj: int | None = None
    limits: dict[str, _Limit | tuple[_Limit, _Limit]] = {}
    give_up: GiveUp | None = None
    instances: int | None = None
    memory_max: int | str | None = None
    on_exit: Literal["restart", "shutdown"] = "restart"
    on_give_up: Literal["restart", "shutdown"] = "restart"
    env_file: tuple[str, ...] | str = ()
    env_secret: dict[str, str] = {}
    rollback_if_not_ready: _Seconds | None = None
    ready: Ready | None = None
    after: dict[str, conditions.Condition | After] = {}
    check: tuple[Check, ...] = ()
    watchdog: _Seconds | None = None
    sockets: dict[str, str | Socket] = {}
    schedule: Schedule | None = None
    log: LogConfig = LogConfig()

    @property
    def groups(self) -> tuple[str, ...]:
        """The `group` key as a tuple, however it was written."""
        return (self.group,) if isinstance(self.group, str) else self.group

    @property
    def env_files(self) -> tuple[str, ...]:
        """The `env_file` key as a tuple, however it was written."""
        return (self.env_file,) if isinstance(self.env_file, str) else self.env_file

    @property
    def most_memory(self) -> int | None:
        """The `memory_max` key as a number of bytes."""
        return None if self.memory_max is None else parse_size(self.memory_max)

    @property
    def rlimits(self) -> dict[str, tuple[int, int]]:
        """The `limits` key: {"nofile": (soft, hard)}, -1 for unlimited. One number is for both."""
        found = {}
        for name, value in self.limits.items():
            soft, hard = value if isinstance(value, tuple) else (value, value)
            found[limit_name(name)] = (-1 if soft == "unlimited" else soft, -1 if hard == "unlimited" else hard)
        return found

    @property
    def umask_bits(self) -> int | None:
        """The `umask` key as a number: text is octal ("022"), a number is itself (18)."""
        return int(self.umask, 8) if isinstance(self.umask, str) else self.umask


class Definition(msgspec.Struct, frozen=True):
    """A good config file: what it says, its text, and what identifies its content.

    `generation` covers what a restart is needed for; `digest` covers everything but the keys of editors ("$schema").
    Equal values give equal digests, whatever the white space and the order of keys.
    """

    text: bytes
    generation: str
    digest: str
    warnings: tuple[str, ...] = ()

    @property
    def config(self) -> ProcessConfig:
        """What it says. Made of the text when it is asked for: kept for thousands it would take a kilobyte each."""
        if (config := _recent.configs.get(self.text)) is None:
            config = _recent.keep(self.text, _config_of(_content(self.text)))
        return config


KNOWN_KEYS = frozenset(ProcessConfig.__struct_fields__)


# Deeper than this no file is nested (JSON's own use is a handful): its text is looked into again by whoever asks for
# `config`, at whatever depth of our own calls, and each level counts against the interpreter's limit of these.
_DEEPEST = 200
# So many, and so many bytes of text: a file may have a MiB.
_MOST_RECENT, _MOST_BYTES = 512, 8 << 20


class _Recent:
    """What the texts mean that were looked into last."""

    def __init__(self) -> None:
        self.configs: dict[bytes, ProcessConfig] = {}  # oldest first
        self.size = 0  # of the texts

    def keep(self, text: bytes, config: ProcessConfig) -> ProcessConfig:
        """Remember it, instead of others that are older."""
        if text in self.configs:
            return config
        while self.configs and (len(self.configs) >= _MOST_RECENT or self.size + len(text) > _MOST_BYTES):
            oldest = next(iter(self.configs))
            del self.configs[oldest]
            self.size -= len(oldest)
        self.configs[text] = config
        self.size += len(text)
        return config


_recent = _Recent()


def _content(data: bytes) -> Any:
    """The JSON value in `data`.

    :raises ValueError: when there is none (msgspec.DecodeError is one, UnicodeDecodeError another).
    :raises RecursionError: when it is nested too deeply.
    """
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        if "out of range" not in str(error):
            raise
        return json.loads(data, parse_constant=_no_constant)


def _is_deep(data: bytes, content: object) -> bool:
    """Whether it is nested deeper than is borne everywhere; `data` has as many brackets at least."""
    if data.count(b"[") + data.count(b"{") <= _DEEPEST:
        return False
    level: list[Any] = [content]
    for _ in range(_DEEPEST + 1):
        level = [one for one in level if isinstance(one, dict | list)]
        if not level:
            return False
        level = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]
    return True


def _config_of(content: dict[str, Any]) -> ProcessConfig:
    """Our keys of it.

    :raises msgspec.ValidationError: when one has a wrong type.
    """
    return msgspec.convert({key: value for key, value in content.items() if key in KNOWN_KEYS}, ProcessConfig)


def decode(name: str, data: bytes) -> ProcessConfig | Problem:
    """The config in `data`, or the Problem with the file `name`. Never raises."""
    found = define(name, data)
    return found if isinstance(found, Problem) else found.config


def define(name: str, data: bytes) -> Definition | Problem:
    """The definition in `data`, or the Problem with the file `name`. Never raises."""
    try:
        content = _content(data)
        if _is_deep(data, content):
            raise RecursionError
    except (ValueError, RecursionError) as error:
        return Problem(name, "", _why_not_json(data, error))
    if not isinstance(content, dict):
        return Problem(name, "", f"expected a JSON object, found {_kind(content)}")
    try:
        config = _config_of(content)
    except msgspec.ValidationError as error:
        return _problem_of(name, content, str(error))
    for key, wrong in _checks(name, config):
        if wrong:
            return Problem(name, key, f"{printable(wrong)}, found {_found(key, _at(content, key))}")
    try:
        meant = {key: value for key, value in content.items() if not is_for_editors(key)}
        digest, generation = _digest(meant), _digest(_without_live_keys(meant))
    except (msgspec.EncodeError, UnicodeEncodeError, RecursionError) as error:
        return Problem(name, "", f"holds a value that cannot be text: {error}")
    _recent.keep(data, config)
    return Definition(data, generation, generation if generation == digest else digest, tuple(_warnings(content)))


def is_for_editors(key: str) -> bool:
    """Whether a key of a config file speaks to editors and no process: "$schema" and whatever else begins with "$"."""
    return key.startswith("$")


def _no_constant(found: str) -> None:
    """Refuse NaN and Infinity, which json.loads would take.

    :raises ValueError: always.
    """
    raise ValueError(f"{found} is no JSON")


def _at(content: Any, key: str) -> Any:
    """The value of a key such as "log.keep"."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _why_not_json(data: bytes, error: Exception) -> str:
    if not data.strip():
        return "the file is empty"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: {error.reason} at byte {error.start}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"not JSON: {str(error).removeprefix('JSON is malformed: ')}"


def file_mark(name: str, content: bytes) -> int:
    """What one file adds to the generation of its directory; `content` is the blake2b of its bytes, 16 bytes long."""
    marked = name.encode("utf-8", "surrogateescape") + b"\0" + content
    return int.from_bytes(blake2b(marked, digest_size=16).digest(), "big")


def directory_generation(pairs: Iterable[tuple[str, bytes]]) -> str:
    """What identifies the content of a whole config directory: 32 hex digits, whatever the order of its files.

    `pairs` holds the name of each file and the blake2b of its bytes, 16 bytes long. A sum, so that a supervisor need
    not read all files again when one of them changes.
    """
    return f"{sum(file_mark(name, content) for name, content in pairs) % 2**128:032x}"


def _digest(content: dict[str, Any]) -> str:
    return blake2b(msgspec.json.encode(content, order="sorted"), digest_size=8).hexdigest()


def _without_live_keys(content: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in content.items() if key not in LIVE_KEYS}
    if isinstance(log := kept.get("log"), dict):
        kept["log"] = {key: value for key, value in log.items() if key not in LIVE_LOG_KEYS}
        if not kept["log"]:
            del kept["log"]
    return kept


def _problem_of(name: str, content: dict[str, Any], text: str) -> Problem:
    """Turn msgspec's "Expected `str`, got `int` - at `$.args[0]`" into file, key and value."""
    why, at, path = text.rpartition(" - at `$")
    if not at:
        why, path = text, ""
    value: Any = content
    key = path.rstrip("`").lstrip(".")
    if missing := re.search(r"missing required field `(\w+)`", why):
        return Problem(name, ".".join(filter(None, (key.replace("[...]", ""), missing[1]))), "is missing")
    if key in ("env[...]", "env_secret[...]"):
        key = key.removesuffix("[...]")
        bad = next((n for n, v in content[key].items() if not isinstance(v, str)), "")
        return Problem(name, f"{key}.{printable(bad)}", f"expected str, found {_found(key, content[key][bad])}")
    key = key.replace("[...]", "")
    for field, index in re.findall(r"(\w+)|\[(\d+)\]", key):
        try:
            value = value[field] if field else value[int(index)]
        except (KeyError, IndexError, TypeError):
            break
    return Problem(name, key, f"{why[:1].lower()}{printable(why[1:]).replace('`', '')}, found {_found(key, value)}")


def _found(key: str, value: Any) -> str:
    """The value as it is told of: that of a variable may be a password, and everybody may read what is told."""
    return _kind(value) if key.partition(".")[0] in _PRIVATE_KEYS else _shown(value)


def _shown(value: Any) -> str:
    try:
        text = printable(msgspec.json.encode(value).decode("utf-8", "backslashreplace"))
    except RecursionError:
        return "a value nested too deeply"
    return text if len(text) <= _TOO_LONG_TO_SHOW else text[:_TOO_LONG_TO_SHOW] + "…"


def _kind(value: Any) -> str:
    kinds = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return kinds.get(type(value), "null")


def _checks(name: str, config: ProcessConfig) -> list[tuple[str, str | None]]:
    """What types alone cannot say: (key, what is wrong with it or None)."""
    return [
        ("args", _wrong_args(config.args)),
        ("env", _wrong_env(config.env)),
        ("env_inherit", _wrong_texts(config.env_inherit)),
        ("uid", _wrong_owner(config.uid)),
        ("gid", _wrong_owner(config.gid)),
        ("group", _wrong_texts(config.groups)),
        ("cwd", _wrong_texts(() if config.cwd is None else (config.cwd,))),
        ("umask", _wrong_umask(config.umask)),
        *((key, _wrong_seconds(getattr(config, key))) for key in _SECONDS_KEYS),
        ("jitter", None if 0 <= config.jitter <= 1 else "expected a share from 0 to 1"),
        ("min_restart_delay", _wrong_delays(config.min_restart_delay, config.max_restart_delay)),
        ("success_codes", None if all(0 <= c <= 255 for c in config.success_codes) else "expected codes from 0 to 255"),
        ("stop", _wrong_stop(config.stop)),
        ("nice", _wrong_number(config.nice, -20, 19)),
        ("oom_score_adj", _wrong_number(config.oom_score_adj, -1000, 1000)),
        ("limits", _wrong_limits(config.limits)),
        ("give_up", _wrong_give_up(config.give_up)),
        ("instances", _wrong_number(config.instances, 0, MOST_INSTANCES)),
        ("memory_max", _wrong_size(config.memory_max)),
        ("env_file", _wrong_texts(config.env_files)),
        ("env_secret", _wrong_env(config.env_secret) or _wrong_texts(tuple(config.env_secret.values()))),
        ("rollback_if_not_ready", _wrong_seconds(config.rollback_if_not_ready)),
        *conditions.wrong_ready(config.ready),
        *conditions.wrong_after(config.after, name),
        *conditions.wrong_checks(config.check),
        ("watchdog", _wrong_watchdog(config.watchdog)),
        *conditions.wrong_sockets(config.sockets, config.ready),
        *conditions.wrong_schedule(config.schedule),
        ("schedule", _wrong_job(config)),
        *_wrong_log(config.log),
    ]


_SECONDS_KEYS = ("threshold", "kill_time", "min_restart_delay", "max_restart_delay")


def _wrong_texts(texts: tuple[str, ...]) -> str | None:
    if any(not text or "\0" in text for text in texts):
        return "expected text without NUL, not empty"
    return None


def _wrong_args(args: tuple[str, ...]) -> str | None:
    if not args or not args[0]:
        return "expected at least one string, the program"
    return "expected strings without NUL" if any("\0" in arg for arg in args) else None


def _wrong_env(env: dict[str, str]) -> str | None:
    for key, value in env.items():
        if not key or "=" in key or "\0" in key or "\0" in value:
            return f"expected names without '=' or NUL, and values without NUL, but {key!r} has"
    return None


def _wrong_owner(owner: int | str | None) -> str | None:
    if isinstance(owner, int) and not 0 <= owner <= LARGEST_ID:
        return f"expected a number from 0 to {LARGEST_ID}"
    return _wrong_texts((owner,)) if isinstance(owner, str) else None


def _wrong_umask(umask: int | str | None) -> str | None:
    if isinstance(umask, str):
        return None if re.fullmatch(r"(0o)?[0-7]{1,4}", umask) and int(umask, 8) <= 0o777 else "expected octal digits"
    return None if umask is None or 0 <= umask <= 0o777 else "expected 0 to 511 (octal 777)"


def _wrong_seconds(value: float | None) -> str | None:
    # A year of seconds times a thousand: beyond it a sum of times would lose its fractions.
    return None if value is None or (math.isfinite(value) and 0 <= value <= 1e10) else "expected seconds, 0 or more"


def _wrong_watchdog(value: float | None) -> str | None:
    return None if value is None or 0.05 <= value <= 1e10 else "expected seconds, 0.05 or more"


def _wrong_job(config: ProcessConfig) -> str | None:
    """A job comes to an end each time, so some keys make no sense beside `schedule`."""
    if config.schedule is None:
        return None
    if config.instances is not None:
        return "does not go with instances"
    return "does not go with on_exit" if config.on_exit == "shutdown" else None


def _wrong_delays(least: float | None, most: float | None) -> str | None:
    if least is not None and most is not None and least > most:
        return f"is larger than max_restart_delay ({most:g})"
    return None


def _wrong_stop(steps: tuple[tuple[str | int, float], ...] | None) -> str | None:
    for name, seconds in steps or ():
        if signal_number(name) is None:
            return f"no such signal: {name}"
        if wrong := _wrong_seconds(seconds):
            return wrong
    return None


def _wrong_number(value: int | None, least: int, most: int) -> str | None:
    return None if value is None or least <= value <= most else f"expected a number from {least} to {most}"


def _wrong_size(value: int | str | None, least: int = 1) -> str | None:
    if value is None:
        return None
    size = parse_size(value)
    if size is None or size > LARGEST_LIMIT:
        return "expected a size such as 67108864, 64M or 64MiB"
    return None if size >= least else f"expected {least} bytes or more"


def _wrong_limits(limits: dict[str, Any]) -> str | None:
    for name, value in limits.items():
        if limit_name(name) not in LIMITS:
            return f"there is no limit {name!r}"
        soft, hard = (
            math.inf if one == "unlimited" else one for one in (value if isinstance(value, tuple) else (value, value))
        )
        if not all(one == math.inf or 0 <= one <= LARGEST_LIMIT for one in (soft, hard)):
            return f'{name}: expected "unlimited" or a number from 0 to {LARGEST_LIMIT}'
        if soft > hard:
            return f"{name}: the soft limit is above the hard one"
    return None


def _wrong_give_up(give_up: GiveUp | None) -> str | None:
    if give_up is None:
        return None
    if not 1 <= give_up.failures <= 1000:
        return "expected failures of 1 to 1000"
    if wrong := _wrong_seconds(give_up.within) or _wrong_seconds(give_up.retry_after):
        return wrong
    return None if give_up.within > 0 else "expected within of more than 0 seconds"


def _wrong_log(log: LogConfig) -> list[tuple[str, str | None]]:
    paths = [path for path in (log.stdout, log.stderr) if isinstance(path, str)]
    return [
        ("log.max_bytes", _wrong_size(log.max_bytes, 4096)),
        ("log.keep", _wrong_number(log.keep, 0, 100_000)),
        ("log.stdout", _wrong_texts((log.stdout,)) if log.stdout is not None else None),
        ("log.stderr", _wrong_texts((log.stderr,)) if isinstance(log.stderr, str) else None),
        ("log", "expected stdout and stderr to be files" if any(path.endswith("/") for path in paths) else None),
    ]


def _warnings(content: dict[str, Any]) -> list[str]:
    said = []
    for key in content:
        shown = printable(key)
        if key in KNOWN_KEYS or "." in key or is_for_editors(key):
            continue
        if near := _nearly(key):
            said.append(f"{shown}: unknown key, did you mean {near}?")
    log = content.get("log", {})
    has_file = log.get("stdout") or isinstance(log.get("stderr"), str)
    if (log.get("timestamps") or log.get("format") == "json") and not has_file:
        said.append("log: format and timestamps have no effect without a file, stdout or stderr")
    return said


def _nearly(key: str) -> str | None:
    from difflib import get_close_matches  # only for files with unknown keys

    # 0.8 catches one wrong, missing or extra letter in words of three letters and more ("arg", "envs", "unmask").
    return next(iter(get_close_matches(key, sorted(KNOWN_KEYS), 1, 0.8)), None)


def limit_name(name: str) -> str:
    """ "nofile" for "RLIMIT_NOFILE" and the like."""
    # Some letters beyond ASCII have lower forms within it: what looks like memlock may be another word.
    return name.lower().removeprefix("rlimit_") if name.isascii() else name


def parse_size(value: int | str) -> int | None:
    """The number of bytes in 67108864, "64M", "64MB" or "64MiB" (units of 1024); None when it is no size."""
    if isinstance(value, int):
        return value if value >= 0 else None
    found = re.fullmatch(r"([0-9]{1,19})\s*([KMGT]?)(?:iB|B)?", value.strip(), re.IGNORECASE | re.ASCII)
    return None if found is None else int(found[1]) << 10 * " KMGT".index(found[2].upper() or " ")


def signal_number(name: str | int) -> int | None:
    """The number of a signal given as "TERM", "SIGTERM" or 15; None when there is none."""
    if isinstance(name, int):
        return name if name in signal.valid_signals() else None
    if not name.isascii():  # some letters beyond it have capitals within it
        return None
    found = getattr(signal, "SIG" + name.upper().removeprefix("SIG"), None)
    return int(found) if isinstance(found, signal.Signals) else None


def signal_name(number: int) -> str:
    """ "TERM" for 15; "signal 40" for one without a name."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return f"signal {number}"
