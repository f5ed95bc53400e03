"""For the programs that NColony runs: to say that they are ready, and to show that they still work.

Nothing here is needed to be run by NColony, and nothing happens where nobody asks for it. `heart` is for programs on
Twisted; all else is the standard library alone, and imports nothing else of ncolony.
"""

from __future__ import annotations

import os

from . import notify

_answered = False


def ready(text: str = "") -> bool:
    """Say that this program is ready for work, in the way that its `ready` key asks for; whether anybody was told.

    That is READY=1 to NOTIFY_SOCKET, with `text` as its status if given, or a newline on the descriptor `ready.fd`.
    To be called once, by the program itself and not by a child of it.
    """
    global _answered
    told = notify.ready(text)
    if _answered:
        return told
    from . import beat

    asked = beat.configured(os.environ, _silent).get("ready")
    number = asked.get("fd") if isinstance(asked, dict) else None
    if isinstance(number, int) and _answer(number):
        _answered = told = True
    return told


def _answer(descriptor: int) -> bool:
    import stat

    try:
        # Whatever else has the number by now is not to be written to.
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return False
        os.write(descriptor, b"\n")
        os.close(descriptor)
    except (OSError, OverflowError):
        return False
    return True


def _silent(_: str) -> None:
    """It is told when a heart is made."""
