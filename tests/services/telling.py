"""A program that tells how it is by the package sdnotify: `telling.py NOTES`.

It notes "up PID TIME", "usec VALUE" (WATCHDOG_USEC) and "petted" after each WATCHDOG=1, every half second. USR1: one
more is served. USR2: no more WATCHDOG=1. TERM: STOPPING=1, and the end a second later.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import sdnotify  # type: ignore[import-untyped]

HEARD = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def note(text: str) -> None:
    with open(sys.argv[1], "a", encoding="ascii") as notes:
        notes.write(f"{text}\n")


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    manager = sdnotify.SystemdNotifier(debug=True)
    note(f"up {os.getpid()} {time.time()}")
    note(f"usec {os.environ.get('WATCHDOG_USEC')}")
    served, awake = 0, True
    manager.notify(f"READY=1\nSTATUS=served {served}")
    while True:
        heard = signal.sigtimedwait(HEARD, 0.5)
        if heard is None:
            if awake:
                manager.notify("WATCHDOG=1")
                note("petted ")
        elif heard.si_signo == signal.SIGUSR1:
            served += 1
            manager.notify(f"STATUS=served {served}")
        elif heard.si_signo == signal.SIGUSR2:
            awake = False
        else:
            manager.notify("STOPPING=1")
            time.sleep(1)
            os._exit(0)


main()
