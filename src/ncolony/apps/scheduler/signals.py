"""The signals that stop the scheduler."""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from typing import Any

from twisted.application import service
from twisted.internet import error

from .performer import Scheduler


class Signals(service.Service):
    """Makes SIGTERM, SIGINT and SIGHUP a clean stop with exit status 0, and the second of them a SIGKILL.

    Twisted's own handlers would end this process by the same signal after a clean stop.
    """

    def __init__(self, reactor: Any, scheduler: Scheduler) -> None:
        self._reactor = reactor
        self._scheduler = scheduler
        self._asked = False

    def startService(self) -> None:  # noqa: N802 (Twisted's interface)
        """Take over once the reactor has installed its handlers."""
        service.Service.startService(self)
        self._reactor.callWhenRunning(self._install)

    def stopService(self) -> None:  # noqa: N802 (Twisted's interface)
        """Make a signal that came before we took over end in a clean exit too."""
        service.Service.stopService(self)
        if getattr(self._reactor, "_exitSignal", None) is not None:
            self._reactor._exitSignal = None

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # a host program that runs us in a thread keeps its signals
        hangup_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        # A command would inherit ignored and blocked signals from us, but not handlers. Popen resets the two that
        # Python itself ignores; ignoring TTIN and TTOU means nothing in a session without a terminal.
        for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTTIN, signal.SIGTTOU}:
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or not hangup_ignored:
                signal.signal(number, lambda *_: self._reactor.callFromThread(self._stop))

    def _stop(self) -> None:
        if self._asked:
            self._scheduler.kill()
        else:
            self._asked = True
            with suppress(error.ReactorNotRunning):  # somebody else has stopped it already
                self._reactor.stop()
