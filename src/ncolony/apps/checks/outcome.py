"""What a look at a process has found."""

from __future__ import annotations

import errno
from collections.abc import Callable

from ...model.names import printable

# Of what a server or a program says.
_LONGEST_QUOTE = 120


class Outcome:
    """`good`, or `why` not. With `unknown` nobody can know: it is our fault, and not held against the process."""

    __slots__ = ("good", "unknown", "why")

    def __init__(self, why: str = "", unknown: bool = False) -> None:
        self.good, self.why, self.unknown = not why, why, unknown

    def __repr__(self) -> str:
        return f"Outcome({self.why!r}{', unknown=True' if self.unknown else ''})"


GOOD = Outcome()
Done = Callable[[Outcome], None]
# What only says that we, or the machine, have run out of something.
OURS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN))


def quoted(text: str) -> str:
    """What somebody else has said, short and printable."""
    text = printable(text.strip())
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…"


def lowered(text: str | None) -> str:
    """ "connection refused" for "Connection refused"."""
    return f"{text[:1].lower()}{text[1:]}" if text else "it failed"
