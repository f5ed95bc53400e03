"""`python -m twisted ncolony-httpcheck`: upstream's check of web servers, by the key `ncolony.httpcheck`."""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.application.service import MultiService

from ...client import heart
from .beatcheck import Options as Options
from .plans import http_plan_of
from .service import make_runner


def run(restarter: Callable[[str], object], checker: Callable[[], Iterable[str]]) -> None:
    """Call `restarter` for every name that `checker` gives."""
    for name in checker():
        restarter(name)


def makeService(options: Any) -> MultiService:  # noqa: N802 (Twisted's interface)
    """The service, from a dictionary with config, messages, freq and perhaps state."""
    service = make_runner(options, http_plan_of, options["freq"], tells=False)
    service.setName("httpcheck")
    # It may be looked after itself.
    return heart.wrapHeart(service)
