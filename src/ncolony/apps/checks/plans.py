"""What is to be looked at: of every config file the last good plan, and whatever is wrong with it said once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from ...ctllib.logs import shared_name
from ...decide.health import Rule
from ...model import conditions
from ...model.conditions import Check, Ready
from ...model.config import Definition, Problem, define
from ...model.names import MOST_INSTANCES, copies_of, is_ignored, printable, problem_with_name
from ...system.files import Directory, Entry

# Definitions of a file that may be in force: the newest, one that is on trial or was taken back, and one before.
_KEPT = 3


class Look(msgspec.Struct, frozen=True):
    """One thing to look at: its kind (http, tcp, exec, heartbeat or log), what, how often and how long.

    `any_status`: whatever HTTP status there is, it is an answer.
    """

    kind: str
    what: str | tuple[str, ...]
    period: float
    timeout: float
    insecure: bool = False
    any_status: bool = False


class Plan(msgspec.Struct, frozen=True):
    """What a config file asks to be looked at. `digest` says which content of the file it is of; "": whichever."""

    file: str
    digest: str
    instances: int | None
    definition: Definition | None
    mtime: float
    cwd: str | None = None
    ready: Look | None = None
    looks: tuple[Look, ...] = ()
    rules: tuple[Rule, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to look at."""
        return self.ready is None and not self.looks


# What is read of a file: a plan, or what is wrong with it.
Reading = Callable[[str, bytes, float], Plan | Problem]


def plan_of(name: str, data: bytes, mtime: float) -> Plan | Problem:
    """The plan by the keys `ready` and `check`."""
    found = define(printable(name), data)
    if isinstance(found, Problem):
        return found
    config = found.config
    ready = None if config.ready is None or not config.ready.is_probed else _ready_look(config.ready)
    looks, rules = tuple(map(_look, config.check)), tuple(map(_rule, config.check))
    return Plan(name, found.digest, config.instances, found, mtime, config.cwd, ready, looks, rules)


def _ready_look(ready: Ready) -> Look:
    [kind] = ready.ways
    # It is tried again so soon that an attempt may well take longer.
    return Look(kind, getattr(ready, kind), ready.period, max(ready.period, 1.0), ready.insecure)


def _look(check: Check) -> Look:
    [kind] = check.ways
    return Look(kind, getattr(check, kind), check.period, check.timeout, check.insecure)


def _rule(check: Check) -> Rule:
    return Rule(check.most_failures, check.success_threshold, check.grace, check.action == "restart")


def beat_plan_of(name: str, data: bytes, mtime: float) -> Plan | Problem:
    """The plan by the key `ncolony.beatcheck`: {"period", "grace", "status"}, grace in periods."""
    content, params = _params(name, data, "ncolony.beatcheck")
    if isinstance(params, Problem):
        return params
    if params is None:
        return _bare_plan(name, content, mtime)
    wrong = _wrong_number(params, "period", conditions.SHORTEST_S) or _wrong_number(params, "grace", 0.0)
    if not wrong and not (isinstance(params.get("status"), str) and params["status"] and "\0" not in params["status"]):
        wrong = "status: expected a path"
    if wrong:
        return Problem(printable(name), "ncolony.beatcheck", wrong)
    look = Look("heartbeat", params["status"], params["period"], params["period"])
    return _bare_plan(name, content, mtime, (look,), (Rule(1, 1, params["period"] * params["grace"]),))


def http_plan_of(name: str, data: bytes, mtime: float) -> Plan | Problem:
    """The plan by the key `ncolony.httpcheck`: {"url", "period", "timeout", "maxBad", "grace"}, grace in periods."""
    content, params = _params(name, data, "ncolony.httpcheck")
    if isinstance(params, Problem):
        return params
    if params is None:
        return _bare_plan(name, content, mtime)
    url = params.get("url")
    # The same bounds as `check` has.
    is_url = isinstance(url, str) and not any(why for _, why in conditions.wrong_checks((Check(http=url),)))
    wrong = "" if is_url else "url: expected a URL that begins with http:// or https://"
    shortest = conditions.SHORTEST_S
    for number, least in (("period", shortest), ("timeout", shortest), ("maxBad", 0.0), ("grace", 0.0)):
        wrong = wrong or _wrong_number(params, number, least)
    if wrong:
        return Problem(printable(name), "ncolony.httpcheck", wrong)
    period = params["period"]
    look = Look("http", params["url"], period, min(period, params["timeout"]), any_status=True)
    rule = Rule(int(params["maxBad"]) + 1, 1, period * params["grace"])
    return _bare_plan(name, content, mtime, (look,), (rule,))


def _bare_plan(
    name: str, content: dict[str, Any], mtime: float, looks: tuple[Look, ...] = (), rules: tuple[Rule, ...] = ()
) -> Plan:  # fmt: skip
    count, cwd = content.get("instances"), content.get("cwd")
    instances = count if isinstance(count, int) and 0 <= count <= MOST_INSTANCES and count is not True else None
    return Plan(name, "", instances, None, mtime, cwd if isinstance(cwd, str) else None, None, looks, rules)


def _params(name: str, data: bytes, key: str) -> tuple[dict[str, Any], dict[str, Any] | Problem | None]:
    try:
        content = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return {}, Problem(printable(name), "", f"not JSON: {str(error).removeprefix('JSON is malformed: ')}")
    if not isinstance(content, dict):
        return {}, Problem(printable(name), "", "expected a JSON object")
    params = content.get(key)
    if params is not None and not isinstance(params, dict):
        return content, Problem(printable(name), key, "expected an object")
    return content, params


def _wrong_number(params: dict[str, Any], key: str, least: float) -> str:
    value = params.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= conditions.LONGEST_S:
        return ""
    return f"{key}: expected a number of {least:g} or more"


class Plans:
    """The config directory: for each file the plans that may be in force."""

    def __init__(self, directory: str, reading: Reading, say: Callable[[str, str], None]) -> None:
        """`say(file, trouble)` is told what is wrong with a file, or "" when nothing is any more."""
        self._directory, self._reading, self._say = Directory(directory, is_ignored), reading, say
        self._plans: dict[str, dict[str, Plan]] = {}  # file -> digest -> plan, the newest last

    def scan(self, names: Iterable[str] | None = None) -> set[str]:
        """See what has changed, in all files or in these; the files concerned.

        :raises OSError: when the directory cannot be read.
        """
        changed = self._directory.scan() if names is None else self._directory.look(names)
        concerned = {name for name, entry in changed.items() if self._take(name, entry)}
        # "web:0" that comes or goes as a file of its own concerns the copies of "web".
        return concerned | {base for name in changed if (base := shared_name(name)) != name and base in self._plans}

    def __iter__(self) -> Iterator[str]:
        """The names of the files that ask for something."""
        return iter(self._plans)

    def copies(self, file: str) -> list[tuple[str, int | None]]:
        """The processes that the file stands for, each with its number. One with a file of its own is none of them."""
        found: dict[str, int | None] = {}
        for plan in self._plans.get(file, {}).values():
            names = copies_of(file, plan.instances)
            numbers = [None] if plan.instances is None else range(len(names))
            found |= {
                name: number
                for name, number in zip(names, numbers, strict=True)
                if name == file or name not in self._directory.seen
            }
        return list(found.items())

    def of(self, file: str, digest: str) -> Plan | None:
        """The plan in force, where the supervisor goes by this content of the file."""
        plans = self._plans.get(file, {})
        return plans.get(digest) or plans.get("")

    def _take(self, name: str, entry: Entry | None) -> bool:
        if entry is None:
            self._say(name, "")
            return self._plans.pop(name, None) is not None
        if problem_with_name(name) is not None:
            return False
        if entry.data is None:
            self._say(name, f"cannot use {printable(name)}: {entry.why}")
            return False
        found = self._reading(name, entry.data, entry.mtime_ns / 1e9)
        if isinstance(found, Problem):
            self._say(name, str(found))
            return False
        self._say(name, "")
        kept = self._plans.get(name, {})
        # That it asks for nothing any more is a plan too: the one before holds until the supervisor has seen this.
        if found.is_empty and not kept:
            return False
        if "" in kept:
            kept = {}
        before = kept.pop(found.digest, None)
        # The same content, however often it was written, is the same plan: what was found goes on counting.
        kept[found.digest] = found if before is None else before
        while len(kept) > _KEPT:
            del kept[next(iter(kept))]
        self._plans[name] = kept
        return True
