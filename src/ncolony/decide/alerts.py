"""What happens to processes -> what somebody should be told: once when it goes wrong, once when it is well again.

`step` is about one process, `admit` and `summary` about one receiver, `pause` about one that does not answer. Times are
wall-clock seconds, since they have to outlive us and come from others' notes: one that lies in the future, because the
clock was set back, is taken for now.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

# What is wrong for a while, and well again some time; what just happens.
LASTING = ("crash-loop", "fatal", "unhealthy", "late", "problem", "rolled-back")
PASSING = ("oom", "exit")
KINDS = (*LASTING, *PASSING)
# What is about the running instance, and so is not known any more while another one starts.
_OF_INSTANCE = ("crash-loop", "fatal", "unhealthy")
_DOWN = "stopped"
# Of what was held back so many are named; the others are counted.
MOST_NAMED = 20
# The first wait after a failed delivery, and the longest; up to a quarter is taken off by chance.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0
_LUCK = 0.25
# However long a receiver asks us to wait, it is asked again after this.
LONGEST_ASKED_S = 3600.0


class Rules(msgspec.Struct, frozen=True):
    """What is told: `kinds`; so many `deaths` `within` seconds are a crash loop; `steady` seconds well are well."""

    kinds: frozenset[str]
    deaths: int
    within: float
    steady: float


class Open(msgspec.Struct, frozen=True):
    """Something that is wrong: since when, the reason, and since when it looks well, with the reason for that."""

    at: float
    reason: str = ""
    good: float | None = None
    why: str = ""


class Known(msgspec.Struct, frozen=True):
    """What is remembered of one process.

    `instance` is the last one whose end was counted, `deaths` when the last ones ended, `open` what was told.
    """

    instance: int | None = None
    deaths: tuple[float, ...] = ()
    open: dict[str, Open] = {}


class Alert(msgspec.Struct, frozen=True):
    """Something to tell. `since` is when it began: the same as `at`, unless it is `resolved`."""

    event: str
    at: float
    reason: str
    resolved: bool = False
    since: float = 0.0


# What may be learned of a process.


class Happened(msgspec.Struct, frozen=True):
    """An event of the log."""

    word: str
    at: float
    reason: str = ""


class Ended(msgspec.Struct, frozen=True):
    """An instance ended by itself. `final`: it is left at that; `success`: by its exit code."""

    at: float
    instance: int
    text: str
    success: bool = False
    final: bool = False
    oom: bool = False


class Seen(msgspec.Struct, frozen=True):
    """Its status, read while nothing was going on. `checked`: somebody will say again whether it is healthy."""

    at: float
    gone: bool = False
    state: str = ""
    reason: str = ""
    healthy: bool | None = None
    health: str = ""
    checked: bool = False
    late: str = ""
    problem: str = ""
    rolled_back: str = ""


class Unwatched(msgspec.Struct, frozen=True):
    """A supervisor has come that did not take over from another: what ran before may not have run all the time."""

    at: float


class Passed(msgspec.Struct, frozen=True):
    """Time has passed."""

    at: float


News: TypeAlias = Happened | Ended | Seen | Unwatched | Passed
Step: TypeAlias = tuple[Known, tuple[Alert, ...]]


def step(known: Known, news: News, now: float, rules: Rules) -> Step:
    """What is remembered of the process after the news, and what is to be told."""
    at = min(news.at, now)
    if isinstance(news, Unwatched):
        known = _doubt(known, *(kind for kind in _OF_INSTANCE if kind in known.open and known.open[kind].why != _DOWN))
    known, told = _settle(known, at, rules)
    known, more = _learn(known, news, at, rules)
    return known, (*told, *more)


def deadline(known: Known, rules: Rules) -> float | None:
    """When something will be over if nothing happens until then."""
    return min((one.good + rules.steady for one in known.open.values() if one.good is not None), default=None)


def _settle(known: Known, now: float, rules: Rules) -> Step:
    """Tell of what has been well for long enough."""
    told: list[Alert] = []
    for kind, one in known.open.items():
        if one.good is None:
            continue
        if one.good > now:
            known = _put(known, kind, msgspec.structs.replace(one, good=now))
        elif one.good + rules.steady <= now:
            told.append(Alert(kind, one.good + rules.steady, f"{one.why} for {rules.steady:g} s", True, one.at))
            known = _without(known, kind)
    return known, tuple(told)


def _learn(known: Known, news: News, at: float, rules: Rules) -> Step:
    if isinstance(news, Happened):
        return _happened(known, news, at, rules)
    if isinstance(news, Ended):
        return _ended(known, news, at, rules)
    if isinstance(news, Seen):
        return _seen(known, news, at, rules)
    return known, ()


def _happened(known: Known, news: Happened, at: float, rules: Rules) -> Step:
    match news.word:
        case "fatal" | "unhealthy" | "late" | "problem" | "rolled-back":
            return _bad(known, news.word, at, news.reason, rules)
        case "healthy":
            return _good(known, at, "healthy", "unhealthy"), ()
        case "on-time":
            return _good(known, at, "on time", "late"), ()
        case "healed":
            return _good(known, at, "its file has been right", "problem"), ()
        case "running" | "adopted":
            return _good(known, at, "it has run", "crash-loop", "fatal"), ()
        case "starting" | "stopping" | "backoff":
            return _doubt(known, *_OF_INSTANCE), ()
        case "stopped":
            return _good(known, at, _DOWN, *_OF_INSTANCE), ()
        case "gone":
            return _removed(known, at)
    return known, ()


def _ended(known: Known, news: Ended, at: float, rules: Rules) -> Step:
    if news.instance == known.instance:
        return known, ()
    known = msgspec.structs.replace(known, instance=news.instance)
    if news.final and news.success:
        return _good(known, at, "it has ended in success", *_OF_INSTANCE), ()
    known = _doubt(known, *_OF_INSTANCE)
    deaths = (*(min(one, at) for one in known.deaths), at)[-rules.deaths :]
    known = msgspec.structs.replace(known, deaths=deaths)
    if len(deaths) == rules.deaths and at - deaths[0] <= rules.within:
        times = f"ended {rules.deaths} times within {rules.within:g} s"
        known, told = _bad(known, "crash-loop", at, f"{times}: {news.text}", rules)
        if told:
            return known, told
    if "crash-loop" in known.open or news.success:
        return known, ()  # one more of what was told is no news
    kind = "oom" if news.oom and "oom" in rules.kinds else "exit"
    return known, (Alert(kind, at, news.text, since=at),) if kind in rules.kinds else ()


def _seen(known: Known, news: Seen, at: float, rules: Rules) -> Step:
    """What its status says counts from now on: it may be older than the last event, but not for long."""
    if news.gone:
        return _removed(known, at)
    told: tuple[Alert, ...] = ()
    if news.state == "RUNNING":
        known = _good(known, at, "it has run", "crash-loop", "fatal")
        if news.healthy is None and not news.checked:
            known = _good(known, at, "no check has said otherwise", "unhealthy")
    elif news.state == "STOPPED":
        known = _good(known, at, _DOWN, *_OF_INSTANCE)
    elif news.state == "FATAL" and not (news.problem and news.problem == news.reason):
        known, told = _bad(known, "fatal", at, news.reason, rules)
    if news.healthy is not None:
        known, more = _verdict(known, "unhealthy", at, "" if news.healthy else news.health or "unhealthy", rules)
        told += more
    for kind, wrong in (("late", news.late), ("problem", news.problem), ("rolled-back", news.rolled_back)):
        known, more = _verdict(known, kind, at, wrong, rules)
        told += more
    return known, told


_WELL = {"unhealthy": "healthy", "late": "on time", "problem": "its file has been right"}


def _verdict(known: Known, kind: str, at: float, wrong: str, rules: Rules) -> Step:
    if wrong:
        return _bad(known, kind, at, wrong, rules)
    return _good(known, at, _WELL.get(kind, "its newest definition has been in force"), kind), ()


def _bad(known: Known, kind: str, at: float, reason: str, rules: Rules) -> Step:
    """It is wrong: tell it, unless that is so already."""
    if kind in known.open:
        return _doubt(known, kind), ()
    if kind not in rules.kinds:
        return known, ()
    return _put(known, kind, Open(at, reason)), (Alert(kind, at, reason, since=at),)


def _good(known: Known, at: float, why: str, *kinds: str) -> Known:
    """It looks well: if that lasts, it is."""
    for kind in kinds:
        one = known.open.get(kind)
        if one is not None and one.good is None:
            known = _put(known, kind, msgspec.structs.replace(one, good=at, why=why))
    return known


def _doubt(known: Known, *kinds: str) -> Known:
    """It does not look well any more, or nobody knows."""
    for kind in kinds:
        one = known.open.get(kind)
        if one is not None and one.good is not None:
            known = _put(known, kind, Open(one.at, one.reason))
    return known


def _removed(known: Known, at: float) -> Step:
    """There is no such process any more: nothing else will come of it."""
    told = tuple(Alert(kind, at, "removed", True, one.at) for kind, one in known.open.items())
    return Known(), told


def _put(known: Known, kind: str, one: Open) -> Known:
    return msgspec.structs.replace(known, open={**known.open, kind: one})


def _without(known: Known, kind: str) -> Known:
    rest = {name: one for name, one in known.open.items() if name != kind}
    # Deaths from before it was well say nothing of the next loop.
    return msgspec.structs.replace(known, open=rest, deaths=() if kind == "crash-loop" else known.deaths)


# One receiver


class Rate(msgspec.Struct, frozen=True):
    """At most so many letters in so many seconds."""

    most: int
    seconds: float


class Held(msgspec.Struct, frozen=True):
    """Something that was not told by itself."""

    event: str
    name: str
    resolved: bool


class Limit(msgspec.Struct, frozen=True):
    """When letters went out lately, and what was held back since: how many, and the first of them by name."""

    sent: tuple[float, ...] = ()
    count: int = 0
    held: tuple[Held, ...] = ()


def hold(limit: Limit, event: str, name: str, resolved: bool) -> Limit:
    """The same with one more that was held back."""
    named = limit.held if len(limit.held) >= MOST_NAMED else (*limit.held, Held(event, name, resolved))
    return msgspec.structs.replace(limit, count=limit.count + 1, held=named)


def admit(limit: Limit, now: float, rate: Rate) -> Limit | None:
    """The same with one more letter sent, which tells of all that was held back; None when it may not go now."""
    sent = _lately(limit, now, rate)
    return Limit((*sent, now)) if len(sent) < rate.most else None


def give_back(limit: Limit, count: int, held: tuple[Held, ...]) -> Limit:
    """The same with what a letter told that did not arrive."""
    return msgspec.structs.replace(limit, count=limit.count + count, held=(*held, *limit.held)[:MOST_NAMED])


def next_letter(limit: Limit, now: float, rate: Rate) -> float:
    """From when on another letter may go."""
    sent = _lately(limit, now, rate)
    return now if len(sent) < rate.most else sent[-rate.most] + rate.seconds


def _lately(limit: Limit, now: float, rate: Rate) -> tuple[float, ...]:
    return tuple(min(at, now) for at in limit.sent if min(at, now) + rate.seconds > now)


def pause(failures: int, luck: float, asked: float | None = None) -> float:
    """How long to wait after so many failures in a row, at least 1; `luck` in [0, 1] takes some of it off.

    What the receiver asked for is waited for in full.
    """
    own = min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 60), LONGEST_PAUSE_S) * (1 - _LUCK * luck)
    return own if asked is None else max(min(asked, LONGEST_ASKED_S), own)
