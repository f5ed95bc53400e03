"""`python -m twisted ncolony-beatcheck`: upstream's check of heartbeats, by the key `ncolony.beatcheck`.

Upstream's functions are here too, for programs that use them. They know nothing of instances; the service does.
"""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from typing import Any

from twisted.application.service import MultiService
from twisted.python.filepath import FilePath

from ... import ctllib
from ...client import heart
from ...model.config import Problem
from ...model.names import is_ignored, problem_with_name
from ...system.files import Unreadable, read_small
from ..plugin import PLACES, PlacesOptions
from .plans import Look, beat_plan_of
from .service import make_runner, seconds


class Options(PlacesOptions):
    """Options of `ncolony-beatcheck` and `ncolony-httpcheck`."""

    optParameters = [  # noqa: N815, RUF012 (Twisted's interface)
        *PLACES,
        ["freq", None, 10.0, "Seconds between two looks at the directories", seconds("freq")],
    ]


def check(path: FilePath[str], start: float, now: float) -> list[str]:
    """The names of the processes that have not beaten in time. Files that cannot be used are left out.

    :param path: the config directory.
    :param start: when the checker began, wall-clock seconds: grace counts from then, or a later change of the file.
    :param now: the time, wall-clock seconds.
    """
    directory = os.fspath(path.path)
    return [name for name in sorted(os.listdir(directory)) if _is_bad(directory, name, start, now)]


def _is_bad(directory: str, name: str, start: float, now: float) -> bool:
    if is_ignored(name) or problem_with_name(name):
        return False
    try:
        mtime = os.stat(f"{directory}/{name}").st_mtime
        plan = beat_plan_of(name, read_small(f"{directory}/{name}"), mtime)
    except (OSError, Unreadable):
        return False
    if isinstance(plan, Problem) or not plan.looks or max(mtime, start) + plan.rules[0].grace >= now:
        return False
    return _is_stale(os.path.join(directory, plan.cwd or ""), name, plan.looks[0], now)


def _is_stale(directory: str, name: str, look: Look, now: float) -> bool:
    path = os.path.join(directory, str(look.what))
    try:
        beaten = os.stat(os.path.join(path, name) if os.path.isdir(path) else path).st_mtime
    except OSError:
        return True
    return beaten + look.period < now


def run(
    restarter: Callable[[str], object], checker: Callable[[float], Iterable[str]], timer: Callable[[], float]
) -> None:  # fmt: skip
    """Call `restarter` for every name that `checker` gives for the time that `timer` gives."""
    for name in checker(timer()):
        restarter(name)


def parseConfig(opt: Any) -> tuple[Callable[[str], str], FilePath[str]]:  # noqa: N802 (upstream's name)
    """What asks for a restart, and the config directory, from `opt` with the keys config and messages."""
    places = ctllib.Places(config=opt["config"], messages=opt["messages"])
    return functools.partial(ctllib.restart, places), FilePath(opt["config"])


def makeService(options: Any) -> MultiService:  # noqa: N802 (Twisted's interface)
    """The service, from a dictionary with config, messages, freq and perhaps state."""
    service = make_runner(options, beat_plan_of, options["freq"], tells=False)
    service.setName("beatcheck")
    # It may be looked after itself.
    return heart.wrapHeart(service)
