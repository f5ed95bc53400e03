"""A heart for programs on Twisted: a service that shows signs of life, from the reactor, as long as that goes round.

    from ncolony.client import heart

    def makeService(options):
        return heart.wrapHeart(MyService(options))

What is to be touched, and how often, is the same as for `ncolony.client.beat`.
"""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import MultiService, Service
from twisted.logger import Logger
from twisted.python.filepath import FilePath

from .beat import Pulse

_log = Logger(namespace="ncolony.client")


class Heart:
    """Touches a file with each beat, and does what else is asked for with it."""

    def __init__(self, path: Any, pulse: Pulse | None = None) -> None:
        """`path` is a FilePath, or anything with `touch`; `pulse` knows what there is to do instead of that."""
        self.path, self._pulse = path, pulse

    def getFile(self) -> Any:  # noqa: N802 (upstream's name)
        """The file that is touched; None when only a watchdog is told."""
        return self.path

    def beat(self) -> None:
        """Show a sign of life. With a pulse what goes wrong is logged once and raises nothing."""
        if self._pulse is None:
            self.path.touch()
        else:
            self._pulse.beat()


def makeService() -> TimerService | None:  # noqa: N802 (upstream's name)
    """The service that beats at a third of the period, first when it starts; None where nobody asks for it."""
    pulse = Pulse(say=lambda text: _log.warn("{text}", text=text))
    if pulse.interval is None:
        return None
    return TimerService(pulse.interval, Heart(_first(pulse), pulse).beat)


def _first(pulse: Pulse) -> FilePath[str] | None:
    """The file that upstream's `getFile` is about."""
    return FilePath(pulse.files()[0]) if pulse.paths else None


def maybeAddHeart(master: Any) -> None:  # noqa: N802 (upstream's name)
    """Add a heart, called "heart", to a MultiService, an Application or the like, where one is asked for."""
    service = makeService()
    if service is not None:
        service.setName("heart")
        service.setServiceParent(master)


def wrapHeart(service: Service) -> MultiService:  # noqa: N802 (upstream's name)
    """A service that is the one given, and a heart where one is asked for."""
    master = MultiService()
    service.setServiceParent(master)
    maybeAddHeart(master)
    return master
