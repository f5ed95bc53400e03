"""The bytes of one message file become a request or a Problem."""

from __future__ import annotations

from typing import Literal

import msgspec

from .config import Problem, signal_number
from .names import printable


class Restart(msgspec.Struct, frozen=True, tag="RESTART"):
    """Stop the process if it runs and start it, with the newest definition and without waiting for a backoff.

    With the number of an `instance`, only if that one runs: so it is never done twice for the same reason.
    """

    name: str
    rolling: int | None = None  # with several instances: so many at a time
    instance: int | None = None  # only if this one runs
    why: str = ""


class RestartAll(msgspec.Struct, frozen=True, tag="RESTART-ALL"):
    """Restart every process that should run, with `rolling` so many at a time, each ready before the next."""

    rolling: int | None = None


class RestartGroup(msgspec.Struct, frozen=True, tag="RESTART-GROUP"):
    """Restart every process of the group that should run, with `rolling` so many at a time."""

    group: str
    rolling: int | None = None


class Stop(msgspec.Struct, frozen=True, tag="STOP"):
    """Stop the process and keep it stopped until it is started, restarted or its configuration changes.

    With the number of an `instance`, that one alone is meant, and the message fails when it is over.
    """

    name: str
    instance: int | None = None
    why: str = ""  # shown in place of "stopped on request"


class Start(msgspec.Struct, frozen=True, tag="START"):
    """Start the process if it is stopped, waiting or given up."""

    name: str


class Scan(msgspec.Struct, frozen=True, tag="SCAN"):
    """Read the config directory now."""


class Signal(msgspec.Struct, frozen=True, tag="SIGNAL"):
    """Send a signal to the process's own pid, or to everything that it started too."""

    name: str
    signal: str | int  # "HUP", "SIGHUP" or 1
    scope: Literal["process", "tree"] = "process"


class Upgrade(msgspec.Struct, frozen=True, tag="UPGRADE"):
    """Put the installed version in the place of the running supervisor and keeper; processes notice nothing."""


class Shutdown(msgspec.Struct, frozen=True, tag="SHUTDOWN"):
    """Stop every process, then end supervisor and keeper."""


class Report(msgspec.Struct, frozen=True, tag="REPORT"):
    """Somebody who looks after the process says how it is, and why. With `instance`, it holds for that one alone."""

    name: str
    what: Literal["ready", "healthy", "unhealthy", "late", "on-time", "skipped"]
    instance: int | None = None
    why: str = ""


Message = Restart | RestartAll | RestartGroup | Stop | Start | Signal | Report | Scan | Upgrade | Shutdown
TYPES = tuple(
    str(kind.__struct_config__.tag)
    for kind in (Restart, RestartAll, RestartGroup, Stop, Start, Signal, Report, Scan, Upgrade, Shutdown)
)
_TOO_LONG_TO_SHOW, _TOO_LONG_TO_TELL = 60, 200
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def decode(name: str, data: bytes) -> Message | Problem:
    """The request in `data`, or the Problem with the message file `name`. Never raises."""
    try:
        found = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = printable(str(error).replace("`", ""))
        why = why if len(why) <= _TOO_LONG_TO_TELL else why[:_TOO_LONG_TO_TELL] + "…"
        return Problem(
            name,
            "",
            "not JSON: " + why.removeprefix("JSON is malformed: ")
            if why.startswith("JSON")
            else why[:1].lower() + why[1:],
        )
    if (rolling := getattr(found, "rolling", None)) is not None and rolling < 1:
        return Problem(name, "rolling", f"expected a number of 1 or more, found {rolling}")
    if isinstance(found, Signal) and signal_number(found.signal) is None:
        shown = repr(found.signal)
        shown = shown if len(shown) <= _TOO_LONG_TO_SHOW else shown[:_TOO_LONG_TO_SHOW] + "…"
        return Problem(name, "signal", f"there is no signal {shown}")
    return found


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a message: written when it is accepted, rewritten when it is done or has failed.

    `goal`, `since` and `at_once` are for the supervisor that comes after one that died before it was done: what is to
    be seen, the newest instance of each process when it was asked for, and how many are restarted at a time.
    """

    accepted: bool
    state: str  # accepted, done or failed
    # Always written, whatever they hold: readers look for them. Only what a factory makes is (but for `tuple` itself).
    why: str = msgspec.field(default_factory=str)
    names: tuple[str, ...] = msgspec.field(default_factory=lambda: ())
    generation: str = msgspec.field(default_factory=str)
    goal: str = ""
    since: dict[str, int] = {}
    at_once: int = 0  # of a rolling restart


_answer_decoder = msgspec.json.Decoder(Answer)


def decode_answer(data: bytes) -> Answer | None:
    """The answer in `data`, or None when it is not one (torn, or from another version)."""
    try:
        return _answer_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
