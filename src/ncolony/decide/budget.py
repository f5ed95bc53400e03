"""Descriptors: how many each half may have, how many a process takes, hence how many processes fit.

Both halves hold the same of each process: a pipe for its output, two where its streams are kept apart, one for
`ready.fd`, a socket to hear it with, and each socket that it listens on. Of what a half may have, some is kept for
everything else, so that what runs can always be stopped, started again, asked for and written about. Descriptors that
stand for processes (pidfds) are a help that is let go where a process needs the room: they do not count.
"""

from __future__ import annotations

from collections import Counter

import msgspec

# What the supervisor needs for itself: logs that are forwarded and files of processes' own, of either at most an eighth
# of all (system/follow.py, system/sinks.py), and the rest: 13 are always open (streams, log, locks, reactor, inotify,
# keeper), the others are for a message, a status, an upgrade.
_LOGS, _FILES, _OTHERS = 64, 32, 26
# How every reason begins that a process does not run for want of descriptors.
NO_ROOM = "cannot run it: no descriptors left"
REMEDY = "raise LimitNOFILE or ulimit -n"


class Half(msgspec.Struct, frozen=True):
    """Supervisor or keeper: of the descriptors that it is `allowed`, `most` are for processes."""

    allowed: int
    most: int


class Need(msgspec.Struct, frozen=True):
    """What a process takes: `own` descriptors and sockets, by their keys, that others may listen on too."""

    own: int = 1
    sockets: frozenset[str] = frozenset()


_NOTHING = Need(own=0)


def supervisor_half(allowed: int) -> Half:
    """What of `allowed` descriptors a supervisor has for processes."""
    return Half(allowed, max(0, allowed - min(allowed // 8, _LOGS) - min(allowed // 8, _FILES) - _OTHERS))


def keeper_half(told: tuple[int, int], allowed: int) -> Half:
    """The keeper's: it has told what it was allowed and how many of them were for processes; now it is `allowed`."""
    return Half(allowed, max(0, told[1] + allowed - told[0]))


def tighter(one: Half, other: Half | None) -> Half:
    """The half that sets the limit."""
    return one if other is None or one.most < other.most else other


class Seats:
    """Who has descriptors, and who could not have any. A process keeps its own from one instance to the next."""

    def __init__(self) -> None:
        self.half = Half(0, 0)
        self.waiting: dict[str, Need] = {}  # those that did not fit, longest first
        self._needs: dict[str, Need] = {}
        self._own = 0
        self._sockets: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._needs)

    def __contains__(self, name: str) -> bool:
        return name in self._needs

    @property
    def taken(self) -> int:
        """How many descriptors are taken, or are kept for the next instance of who had them."""
        return self._own + len(self._sockets)

    @property
    def free(self) -> int:
        """How many processes of the plainest kind would fit besides; never negative."""
        return max(0, self.half.most - self.taken)

    def fits(self, name: str, need: Need) -> bool:
        """Whether there is room for it. Who needs no more than he has always fits, however few there are by now."""
        more = self._more(name, need)
        return more <= 0 or more <= self.half.most - self.taken

    def _more(self, name: str, need: Need) -> int:
        had = self._needs.get(name, _NOTHING)
        opened = sum(key not in self._sockets for key in need.sockets)
        closed = sum(self._sockets[key] == 1 for key in had.sockets - need.sockets)
        return need.own - had.own + opened - closed

    def take(self, name: str, need: Need) -> str:
        """Have a process take what it needs; why that cannot be, or "": then it waits for its turn."""
        if not self.fits(name, need):
            more = self._more(name, need)
            self.waiting[name] = need
            beyond = f", and it takes {more:,}" if more > 1 else ""
            taken = f"{self.taken:,} {'is' if self.taken == 1 else 'are'} taken"
            return f"{NO_ROOM}: {self._said()}, of which {taken}{beyond}; {REMEDY}"
        self.hold(name, need)
        return ""

    def hold(self, name: str, need: Need) -> None:
        """Note that a process has what it needs, come what may: it runs."""
        self.waiting.pop(name, None)
        if (had := self._needs.get(name)) != need:
            if had is not None:
                self._leave(had)
            self._needs[name] = need
            self._own += need.own
            self._sockets.update(need.sockets)

    def release(self, name: str) -> bool:
        """Nothing of the process runs, and nothing will by itself; whether that makes room."""
        self.waiting.pop(name, None)
        if (had := self._needs.pop(name, None)) is None:
            return False
        self._leave(had)
        return True

    def _leave(self, had: Need) -> None:
        self._own -= had.own
        for key in had.sockets:
            self._sockets[key] -= 1
            if not self._sockets[key]:
                del self._sockets[key]

    def next_in(self) -> list[str]:
        """Who of those that wait would fit now, in the order in which they came."""
        found, left = [], self.half.most - self.taken
        for name, need in self.waiting.items():
            if left <= 0:
                break
            if (more := max(0, self._more(name, need))) <= left:
                found.append(name)
                left -= more
        return found

    def _said(self) -> str:
        return f"{self.half.allowed:,} are allowed, {self.half.most:,} of them for processes"

    def problem(self) -> str:
        """What is wrong while somebody waits; the same for as long as nothing but their number changes."""
        if not self.waiting and self.taken <= self.half.most:
            return ""
        return f"not every process fits: of descriptors, {self._said()}; {REMEDY}"

    def report(self) -> str:
        """How many processes fit, in one line."""
        seated, waiting, free = len(self), len(self.waiting), self.free
        used = f"{self.taken:,} of the {self.half.most:,} descriptors for processes ({self.half.allowed:,} are allowed)"
        if waiting:
            return f"{seated:,} of {seated + waiting:,} processes fit: they take {used}; {REMEDY}"
        what = "process fits: it takes" if seated == 1 else "processes fit: they take"
        more = "none more" if not free else "one more" if free == 1 else f"{free:,} more that take one each"
        return f"{seated:,} {what} {used}; there is room for {more}"

    def figures(self) -> dict[str, int]:
        """The same for programs."""
        return {
            "allowed": self.half.allowed, "for_processes": self.half.most, "taken": self.taken,
            "processes": len(self), "waiting": len(self.waiting), "room": self.free,
        }  # fmt: skip
