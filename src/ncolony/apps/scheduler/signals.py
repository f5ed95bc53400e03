"""The signals that stop the scheduler."""

from __future__ import annotations

import signal
import threading

from ..plugin import Signals


class CleanSignals(Signals):
    """As every program's; and commands start with default dispositions and nothing blocked."""

    def _install(self) -> None:
        super()._install()
        if threading.current_thread() is not threading.main_thread():
            return
        # A command would inherit ignored and blocked signals from us, but not handlers. Popen resets the two that
        # Python itself ignores; ignoring TTIN and TTOU means nothing in a session without a terminal.
        for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTTIN, signal.SIGTTOU}:
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
