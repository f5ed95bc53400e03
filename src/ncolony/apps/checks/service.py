"""`python -m twisted ncolony-check`: readiness probes and health checks, by the keys `ready` and `check`."""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

import math
from typing import Any

from ...ctllib import Places
from ...system.clock import make_steady
from ...system.places import state_directory
from ..plugin import PLACES, PlacesOptions, checked
from .plans import Reading, plan_of
from .runner import Runner

_SHORTEST_S = 0.05


def seconds(option: str) -> Any:
    """The conversion of an option that takes seconds."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < _SHORTEST_S:
            raise ValueError(f"expected seconds, {_SHORTEST_S:g} or more, found {text!r}")
        return value

    return checked(option, convert)


class Options(PlacesOptions):
    """Options of `ncolony-check`."""

    optParameters = [  # noqa: N815, RUF012 (Twisted's interface)
        *PLACES,
        ["frequency", None, 10.0, "Seconds between two looks at the directories", seconds("frequency")],
    ]


def make_runner(options: Any, reading: Reading, frequency: float, tells: bool) -> Runner:
    """The service, from parsed options."""
    # Not at the top: `--reactor` must have had its choice first.
    from twisted.internet import reactor

    make_steady(reactor)
    places = Places(options["config"], options["messages"])
    state = state_directory(places.config, places.messages, options.get("state"))
    return Runner(reactor, places, state, reading, frequency, tells)


def makeService(options: Options) -> Runner:  # noqa: N802 (Twisted's interface)
    """The service, from parsed options."""
    return make_runner(options, plan_of, options["frequency"], tells=True)
