"""Compare what the players noted with what was done to them: each restart has a cause, each cause its one restart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from soak.cast import Player

# A start is in the ledger so much later than it was due, at least: the shell has to come up.
_EARLY_S = 0.3


@dataclass
class Cause:
    """Something that leads to one restart: `what` was done, and `when`."""

    what: str
    when: float


@dataclass
class Life:
    """What is known of one process."""

    ups: list[tuple[float, str]] = field(default_factory=list)  # when, identity
    pending: Cause | None = None
    exited: bool = False  # it said that it ends
    calm_since: float = math.inf  # nothing is expected, since when


class Ledger:
    """The players' record as it grows, and what is to be expected in it. Times are seconds since boot."""

    def __init__(self, path: Path, jobs: set[str]) -> None:
        self._file = path.open("rb")
        self._rest = b""
        self._seen = 0.0
        self.jobs = jobs
        self.lives: dict[str, Life] = {}
        self.counts: Counter[str] = Counter()
        self.delays: dict[str, list[float]] = {}
        self.done: list[tuple[str, Cause]] = []  # restarts that nobody has looked into yet: whose, and what for
        self.faults: list[str] = []

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, seen: float | None = None) -> bool:
        """Take what was noted since, and say whether there was something.

        Delays end when it was `seen`, if that is given: it is more exact than the hundredths that players know.
        """
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            at, name, word, _pid, identity = line.decode().split()
            self._seen = float(at) if seen is None else seen
            getattr(self, f"_{word}")(float(at), name, identity)
        return bool(lines)

    def life(self, name: str) -> Life:
        """What is known of this one."""
        return self.lives.setdefault(name, Life())

    def expect(self, name: str, what: str, now: float) -> None:
        """Something was done that leads to one restart."""
        life = self.life(name)
        assert life.pending is None
        life.pending = Cause(what, now)
        self.counts[what] += 1

    def _up(self, at: float, name: str, identity: str) -> None:
        life = self.life(name)
        if life.pending is not None:
            self.delays.setdefault(life.pending.what, []).append(self._seen - life.pending.when)
            self.counts[f"{life.pending.what}, done"] += 1
            self.done.append((name, life.pending))
        elif name not in self.jobs and life.ups and not life.exited:
            self.counts["spurious"] += 1
            self.faults.append(f"{at:.2f} {name} was restarted, for no reason")
        if identity in {one for _, one in life.ups}:
            self.counts["duplicates"] += 1
            self.faults.append(f"{at:.2f} {name}: two processes are the instance {identity}")
        life.ups.append((at, identity))
        life.pending, life.exited, life.calm_since = None, False, at
        self.counts["starts"] += 1

    def _exit(self, _at: float, name: str, _identity: str) -> None:
        self.life(name).exited = True

    def _duplicate(self, at: float, name: str, identity: str) -> None:
        self.counts["duplicates"] += 1
        self.faults.append(f"{at:.2f} {name}: instance {identity} came while another, or what it left, was alive")

    def overdue(self, now: float, patience_s: float) -> None:
        """A cause without its restart in this time is a fault, and no cause any more."""
        for name, life in self.lives.items():
            if life.pending is not None and now - life.pending.when > patience_s:
                self.counts["missing"] += 1
                self.faults.append(f"{now:.2f} {name}: no restart since {life.pending.when:.2f}: {life.pending.what}")
                life.pending = None

    def waits(self) -> list[str]:
        """Whose restart is still to come."""
        return [name for name, life in self.lives.items() if life.pending is not None]


@dataclass
class Runs:
    """How a job's runs compare with its times."""

    due: int = 0
    missed: int = 0
    doubled: int = 0
    left_out: int = 0  # due in a disturbance, and not to be made up for
    latest: float = 0.0
    faults: list[str] = field(default_factory=list)

    def miss(self, player: Player, due: float) -> None:
        """It should have run then."""
        self.missed += 1
        self.faults.append(f"{due:.2f} {player.name} did not run for this time")


def phase_of(times: Sequence[float], every: float) -> float:
    """The phase of what is due every so often: the one by which the runs are late by the least, since none is early."""
    phases = sorted(at % every for at in times)
    return min(phases, key=lambda phase: sum((at - phase) % every for at in times), default=0.0)


def judge_runs(
    player: Player,
    times: Sequence[float],
    between: tuple[float, float],
    disturbances: Sequence[tuple[float, float]],
    offset: float,
) -> Runs:
    """Give every run to the time that it was due, from its first on and at least `between` these times.

    `offset` makes seconds since boot from those since 1970, when subtracted.
    """
    since, until = between
    if player.every is not None:
        step, phase = player.every, phase_of(times, player.every)
    else:
        assert player.cron_second is not None
        step, phase = 60.0, (player.cron_second - offset) % 60.0
    slots = Counter(math.floor((at - phase + _EARLY_S) / step) for at in times)
    runs = Runs()
    if player.every is not None and not times:
        runs.missed, runs.faults = 1, [f"{player.name} never ran"]
        return runs
    for at in times:
        runs.latest = max(runs.latest, (at - phase) % step if (at - phase) % step < step - _EARLY_S else 0.0)
    first = min([*slots, math.ceil((since - phase) / step)])
    owed: list[float] = []  # due in a disturbance, and not yet seen
    for slot in range(first, math.floor((until - phase) / step)):
        due, here = phase + slot * step, slots[slot]
        runs.due += 1
        if not here and any(begin <= due <= end for begin, end in disturbances):
            owed.append(due)
        elif not here:
            runs.miss(player, due)
        elif here > (allowed := 1 + len(owed[:1])):
            runs.doubled += here - allowed
            runs.faults.append(f"{due:.2f} {player.name} ran {here} times for this time")
        if here:
            # One run makes up for all that were due; where that is not asked for, none need.
            for time in owed if here == 1 else []:
                if player.catches_up:
                    runs.miss(player, time)
                else:
                    runs.left_out += 1
            owed.clear()
    return runs


def total(runs: Mapping[str, Runs]) -> Runs:
    """All jobs together."""
    result = Runs()
    for one in runs.values():
        for key in ("due", "missed", "doubled", "left_out"):
            setattr(result, key, getattr(result, key) + getattr(one, key))
        result.latest = max(result.latest, one.latest)
        result.faults += one.faults
    return result
