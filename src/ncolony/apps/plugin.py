"""What the programs beside the supervisor have in common as plugins of `python -m twisted`: options, and their end."""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet import error
from twisted.python import usage

# The options that every one of them has: where the colony is.
PLACES = (
    ["messages", None, None, "The colony's directory of messages"],
    ["config", None, None, "The colony's directory of definitions"],
    ["state", None, None, "The supervisor's --state, if it has one"],
)


class PlacesOptions(usage.Options):
    """Options with those of `PLACES` among them, and without arguments."""

    NEEDED: tuple[tuple[str, str], ...] = (("messages", "DIR"), ("config", "DIR"))
    HINT = ""  # what is added where an argument is refused

    def parseArgs(self, *arguments: str) -> None:  # noqa: N802 (Twisted's interface)
        """Take no arguments.

        :raises usage.UsageError: when there are some.
        """
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}{self.HINT}")

    def postOptions(self) -> None:  # noqa: N802 (Twisted's interface)
        """Check that nothing is missing.

        :raises usage.UsageError: when something is.
        """
        for name, value in self.NEEDED:
            if not self[name]:
                raise usage.UsageError(f"--{name} {value} is required")


def checked(name: str, check: Callable[[str], Any]) -> Callable[[str], Any]:
    """`check`, with what it raises as a ValueError said about the option `name`."""

    def convert(text: str) -> Any:
        try:
            return check(text)
        except ValueError as problem:
            raise usage.UsageError(f"--{name}: {problem}") from None

    return convert


def end_by_ourselves(reactor: Any) -> None:
    """Let a stop that Twisted's own handlers began not end this process by the signal that asked for it."""
    if getattr(reactor, "_exitSignal", None) is not None:
        reactor._exitSignal = None


class Signals(Service):
    """Makes SIGTERM, SIGINT and SIGHUP a clean end with status 0; `again` is called at the second of them.

    Twisted's own handlers would end this process by the same signal after a clean stop.
    """

    def __init__(self, reactor: Any, again: Callable[[], object] | None = None) -> None:
        self._reactor, self._again = reactor, again
        self._asked = False

    def startService(self) -> None:  # noqa: N802 (Twisted's interface)
        """Take over once the reactor has installed its handlers."""
        super().startService()
        self._reactor.callWhenRunning(self._install)

    def stopService(self) -> None:  # noqa: N802 (Twisted's interface)
        """Make a signal that came before we took over end in a clean exit too."""
        super().stopService()
        end_by_ourselves(self._reactor)

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # a host program that runs us in a thread keeps its signals
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: self._reactor.callFromThread(self._stop))

    def _stop(self) -> None:
        if self._asked and self._again is not None:
            self._again()
        self._asked = True
        with suppress(error.ReactorNotRunning):  # somebody else has stopped it already
            self._reactor.stop()
