"""The bytes of one config file become a ProcessConfig or a Problem."""

from __future__ import annotations

import json
import math
import re
import signal
from hashlib import blake2b
from typing import Any, Literal

import msgspec

from .names import printable

# Keys whose change applies at once, without a restart (DESIGN 3). Sizes inside `log` are live too.
LIVE_KEYS = frozenset(
    "restart success_codes threshold kill_time min_restart_delay max_restart_delay jitter give_up stop stop_scope"
    " on_exit on_give_up after memory_max check watchdog".split()
)
LIVE_LOG_KEYS = frozenset({"max_bytes", "keep"})
# Part of the contract, but not of this version: saying so beats ignoring them.
RESERVED_KEYS = frozenset(
    "nice oom_score_adj limits give_up instances ready after check watchdog memory_max on_exit on_give_up env_file"
    " env_secret".split()
)
# uid_t and gid_t are 32 bits and the last value means "leave as it is" (setresuid(2)).
_LARGEST_ID = 2**32 - 2
_TOO_LONG_TO_SHOW = 60
_Seconds = float


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
    max_bytes: int | None = None
    keep: int | None = None


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
    log: LogConfig = LogConfig()

    @property
    def groups(self) -> tuple[str, ...]:
        """The `group` key as a tuple, however it was written."""
        return (self.group,) if isinstance(self.group, str) else self.group

    @property
    def umask_bits(self) -> int | None:
        """The `umask` key as a number: text is octal ("022"), a number is itself (18)."""
        return int(self.umask, 8) if isinstance(self.umask, str) else self.umask


class Definition(msgspec.Struct, frozen=True):
    """A good config file: what it says, its text, and what identifies its content.

    `generation` covers what a restart is needed for; `digest` covers everything. Equal values give equal digests,
    whatever the white space and the order of keys.
    """

    config: ProcessConfig
    text: bytes
    generation: str
    digest: str
    warnings: tuple[str, ...] = ()


KNOWN_KEYS = frozenset(ProcessConfig.__struct_fields__)


def decode(name: str, data: bytes) -> ProcessConfig | Problem:
    """The config in `data`, or the Problem with the file `name`. Never raises."""
    found = define(name, data)
    return found if isinstance(found, Problem) else found.config


def define(name: str, data: bytes) -> Definition | Problem:
    """The definition in `data`, or the Problem with the file `name`. Never raises."""
    try:
        content = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if "out of range" not in str(error):
            return Problem(name, "", _why_not_json(data, error))
        try:
            content = json.loads(data)
        except (ValueError, RecursionError):
            return Problem(name, "", _why_not_json(data, error))
    if not isinstance(content, dict):
        return Problem(name, "", f"expected a JSON object, found {_kind(content)}")
    known = {key: value for key, value in content.items() if key in KNOWN_KEYS}
    try:
        config = msgspec.convert(known, ProcessConfig)
    except msgspec.ValidationError as error:
        return _problem_of(name, content, str(error))
    for key, wrong in _checks(config):
        if wrong:
            return Problem(name, key, f"{printable(wrong)}, found {_shown(content.get(key))}")
    try:
        digest, generation = _digest(content), _digest(_without_live_keys(content))
    except (msgspec.EncodeError, UnicodeEncodeError, RecursionError) as error:
        return Problem(name, "", f"holds a value that cannot be text: {error}")
    return Definition(config, data, generation, digest, tuple(_warnings(content)))


def _why_not_json(data: bytes, error: Exception) -> str:
    if not data.strip():
        return "the file is empty"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: {error.reason} at byte {error.start}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"not JSON: {str(error).removeprefix('JSON is malformed: ')}"


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
    missing = re.search(r"missing required field `(\w+)`", why)
    if missing:
        return Problem(name, missing[1], "is missing")
    value: Any = content
    key = path.rstrip("`").lstrip(".")
    if key == "env[...]":
        bad = next((n for n, v in content["env"].items() if not isinstance(v, str)), "")
        return Problem(name, f"env.{printable(bad)}", f"expected str, found {_shown(content['env'][bad])}")
    for field, index in re.findall(r"(\w+)|\[(\d+)\]", key):
        try:
            value = value[field] if field else value[int(index)]
        except (KeyError, IndexError, TypeError):
            break
    return Problem(name, key, f"{why[:1].lower()}{printable(why[1:]).replace('`', '')}, found {_shown(value)}")


def _shown(value: Any) -> str:
    try:
        text = printable(msgspec.json.encode(value).decode("utf-8", "backslashreplace"))
    except RecursionError:
        return "a value nested too deeply"
    return text if len(text) <= _TOO_LONG_TO_SHOW else text[:_TOO_LONG_TO_SHOW] + "…"


def _kind(value: Any) -> str:
    kinds = {list: "an array", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


def _checks(config: ProcessConfig) -> list[tuple[str, str | None]]:
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
        ("log", _wrong_log(config.log)),
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
    if isinstance(owner, int) and not 0 <= owner <= _LARGEST_ID:
        return f"expected a number from 0 to {_LARGEST_ID}"
    return _wrong_texts((owner,)) if isinstance(owner, str) else None


def _wrong_umask(umask: int | str | None) -> str | None:
    if isinstance(umask, str):
        return None if re.fullmatch(r"(0o)?[0-7]{1,4}", umask) and int(umask, 8) <= 0o777 else "expected octal digits"
    return None if umask is None or 0 <= umask <= 0o777 else "expected 0 to 511 (octal 777)"


def _wrong_seconds(value: float | None) -> str | None:
    # A year of seconds times a thousand: beyond it a sum of times would lose its fractions.
    return None if value is None or (math.isfinite(value) and 0 <= value <= 1e10) else "expected seconds, 0 or more"


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


def _wrong_log(log: LogConfig) -> str | None:
    if log.max_bytes is not None and log.max_bytes < 4096:
        return "expected max_bytes of 4096 or more"
    if log.keep is not None and not 0 <= log.keep <= 100_000:
        return "expected keep of 0 to 100000"
    return None


def _warnings(content: dict[str, Any]) -> list[str]:
    said = []
    for key in content:
        shown = printable(key)
        if key in KNOWN_KEYS or "." in key:
            continue
        if key in RESERVED_KEYS:
            said.append(f"{key}: not supported by this version, has no effect")
        elif near := _nearly(key):
            said.append(f"{shown}: unknown key, did you mean {near}?")
    return said


def _nearly(key: str) -> str | None:
    from difflib import get_close_matches  # only for files with unknown keys

    # 0.8 catches one wrong, missing or extra letter in words of three letters and more ("arg", "envs", "unmask").
    return next(iter(get_close_matches(key, sorted(KNOWN_KEYS | RESERVED_KEYS), 1, 0.8)), None)


def signal_number(name: str | int) -> int | None:
    """The number of a signal given as "TERM", "SIGTERM" or 15; None when there is none."""
    if isinstance(name, int):
        return name if name in signal.valid_signals() else None
    found = getattr(signal, "SIG" + name.upper().removeprefix("SIG"), None)
    return int(found) if isinstance(found, signal.Signals) else None


def signal_name(number: int) -> str:
    """ "TERM" for 15; "signal 40" for one without a name."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return f"signal {number}"
