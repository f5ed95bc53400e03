"""What a keeper may report. Checked at the door, so that nothing behind it has to doubt a type."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from twisted.logger import Logger

from ..model.names import printable, problem_with_name

_log = Logger(namespace="ncolony")
# Names files in our state directory.
_Identity = Annotated[str, Meta(pattern=r"\A[\w-][\w.-]*\Z")]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
# Seconds of any clock, or between two moments of it; that it is finite is what matters.
_Moment = Annotated[float, Meta(ge=-1e15, le=1e15)]


class _End(msgspec.Struct):
    lived: _Moment
    at: _Moment
    code: int | None = None
    signal: _Count | None = None
    core: bool = False
    oom: bool = False
    ordered: bool = False
    unknown: bool = False
    cpu: _Moment | None = None
    rss_kb: _Count | None = None
    was: tuple[_Count, _Count | None] | None = None


class _Held(msgspec.Struct):
    id: _Identity
    name: str
    number: _Count
    memo: Any
    pid: _Count
    started: _Moment
    alive: bool
    empty: bool
    end: Any
    since: _Count = 0
    since_stderr: _Count = 0
    began: _Count | None = None
    said: dict[str, str] = {}
    given: list[tuple[str, _Count, str]] = []


class _Welcome(msgspec.Struct):
    protocol: _Count
    pid: _Count
    held: list[dict[str, Any]]
    code: str | None = None
    vanished: list[tuple[_Identity, _Moment]] = []
    descriptors: tuple[_Count, _Count] | None = None


class _Started(msgspec.Struct):
    id: _Identity
    pid: _Count
    at: _Moment
    began: _Count | None = None


class _Refused(msgspec.Struct):
    id: _Identity
    why: str


class _Exited(msgspec.Struct):
    id: _Identity
    end: _End
    empty: bool
    since: _Count = 0
    since_stderr: _Count = 0


class _Emptied(msgspec.Struct):
    id: _Identity


class _Signalled(msgspec.Struct):
    ack: str
    done: bool


class _Tree(msgspec.Struct):
    id: _Identity
    members: list[str]


class _Memory(msgspec.Struct):
    sizes: dict[str, _Count]


class _Notify(msgspec.Struct):
    id: _Identity
    said: dict[str, str]


class _Kept(msgspec.Struct):
    key: str


class _Trouble(msgspec.Struct):
    name: str
    why: str
    dropped: _Count


class _Output(msgspec.Struct):
    name: str
    to: _Count
    last: bool
    begin: _Count = msgspec.field(name="from")


_KINDS: dict[object, type[msgspec.Struct]] = {
    "welcome": _Welcome,
    "started": _Started,
    "refused": _Refused,
    "exited": _Exited,
    "emptied": _Emptied,
    "signalled": _Signalled,
    "tree": _Tree,
    "memory": _Memory,
    "notify": _Notify,
    "kept": _Kept,
    "trouble": _Trouble,
    "output": _Output,
}


def checked(report: dict[str, Any]) -> dict[str, Any]:
    """The report, if every value in it is of the type and in the range that it has to be.

    Of a welcome, instances that make no sense are left out: hands off. Kinds that we do not know pass. Texts for people
    are made printable: a path in them may hold anything.

    :raises ValueError: when it is not.
    """
    kind = report.get("is")
    if not isinstance(kind, str):
        raise ValueError(f"a report of no kind: {kind!r}")
    if kind in _KINDS:
        msgspec.convert(report, _KINDS[kind])
    # Of a log: a process's, or that of its standard error.
    name, slash, stream = str(report.get("name", "-")).partition("/")
    if problem_with_name(name) or (slash and stream != "stderr"):
        raise ValueError(f"a report about nobody: {report['name']!r}")
    found = dict(report)
    if kind == "welcome":
        held = [one for one in report["held"] if _makes_sense(one)]
        found["held"] = [{**one, "said": _printable(one["said"])} if "said" in one else one for one in held]
    if kind == "notify":
        found["said"] = _printable(report["said"])
    if kind == "tree":
        found["members"] = [printable(member) for member in report["members"]]
    if "why" in report:
        found["why"] = printable(str(report["why"]))
    return found


def _printable(said: dict[str, str]) -> dict[str, str]:
    return {key: printable(value) for key, value in said.items()}


def _makes_sense(held: dict[str, Any]) -> bool:
    try:
        name = msgspec.convert(held, _Held).name
        if wrong := problem_with_name(name):
            raise ValueError(wrong)
        if not held["alive"]:
            msgspec.convert(held["end"], _End)
    except ValueError as error:
        _log.error("the keeper holds {identity}, which makes no sense: {why}", identity=held.get("id"), why=str(error))
        return False
    return True
