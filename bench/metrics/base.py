"""What a metric is, and what several of them do."""

from __future__ import annotations

import random
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.peers.base import Peer
from bench.run import DNF, Run, now

Figures = dict[str, float | str]
# A supervisor that has not replaced a process by then has given up on it.
RESPAWN_WITHIN_S = 20
# All take a process that lived so long for one that worked.
GROWN_UP_S = 3.0


@dataclass(frozen=True)
class Options:
    """What the command line chooses; see `python -m bench --help`."""

    fast: bool = False
    # Work goes on after the last start: startsecs checks and the like.
    settle: float = 6
    idle: float = 30
    kills: int = 100
    budget: float = 30
    adds: int = 8
    seconds: float = 3
    all: bool = False
    quiet: bool = False
    under: str = ""


@dataclass(frozen=True)
class Column:
    """One figure of a metric: its key in the row, heading, digits after the point.

    With `brief` it also is in the table of all metrics, under these words, beside the limit and the best rival.
    """

    key: str
    heading: str
    digits: int
    brief: str = ""
    more_is_better: bool = False


@dataclass(frozen=True)
class Metric:
    """One kind of run. `measure` does it for a peer and a number, and gives the figures of one row.

    The first column with `brief` is the one by which a table compares.
    """

    name: str
    about: str
    measure: Callable[[type[Peer], int, Options], Figures]
    columns: tuple[Column, ...]
    # What the numbers of a table count.
    counts: str = "processes"

    def compared(self) -> Column | None:
        """The column by which the table compares, if it does."""
        return next((column for column in self.columns if column.brief), None)


def percentile(values: list[float], share: float) -> float:
    """The smallest value that `share` of all are below; the largest one of a few."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def kill_some(run: Run, n: int, kills: int, budget_s: float) -> tuple[list[float], int]:
    """SIGKILL one of p0 to p(n-1) after the other; ms from each kill until the next one's first instruction.

    How many were not replaced in time comes second. Slow ones give fewer samples.
    """
    alive = {event.name: event for event in run.started()}
    took: list[float] = []
    missed, end = 0, now() + budget_s
    for turn in range(kills):
        if now() > end:
            break
        victim = alive[f"p{turn % n}"]
        time.sleep(max(0, GROWN_UP_S - (now() - victim.at)))
        since, before = len(run.events), now()
        run.kill(victim.pid, signal.SIGKILL)
        following = _Following(run, victim.name, since)
        try:
            run.wait("respawn", following, RESPAWN_WITHIN_S, 0.002)
        except DNF:
            missed += 1
            continue
        alive[victim.name] = following.found[-1]
        took.append((following.found[-1].at - before) * 1e3)
        time.sleep(random.uniform(0.005, 0.05))
    if not took:
        raise DNF(f"{missed} of {kills} not respawned within {RESPAWN_WITHIN_S} s")
    return took, missed


class _Following:
    """Whether the process `name` has started from event number `since` on; looks at each event once."""

    def __init__(self, run: Run, name: str, since: int) -> None:
        self._run, self._name, self._at = run, name, since
        self.found = run.started(len(run.events))

    def __call__(self) -> bool:
        self.found += [event for event in self._run.started(self._at) if event.name == self._name]
        self._at = len(self._run.events)
        return bool(self.found)


def add_some(run: Run, n: int, adds: int) -> list[float]:
    """Add one process after the other to `n`; ms from each until its first instruction."""
    took: list[float] = []
    for turn in range(adds):
        if turn and n + turn > run.peer.max_n:
            break
        # Spread over the phases of a polling loop.
        time.sleep(0.2 + run.peer.period_s * (turn + random.random()) / adds)
        name, since = f"new{turn}", len(run.events)
        before = now()
        run.peer.add(name, run.payload(name))
        following = _Following(run, name, since)
        run.wait("new process", following, 90, 0.005)
        took.append((following.found[0].at - before) * 1e3)
    return took


def restart_all(run: Run, n: int) -> Figures:
    """Replace every process: wall and CPU seconds, and for how long each was away."""
    since, cpu, before = len(run.events), run.cpu(), now()
    run.peer.restart_all()
    run.wait("restart", lambda: run.have_started(n, since), 400)
    new = run.events[since:]
    down = {event.name: event.at for event in new if event.kind == "T"}
    up: dict[str, float] = {}
    for event in new:
        if event.kind == "S":
            up.setdefault(event.name, event.at)
    time.sleep(1)
    run.poll()
    gaps = [up[name] - at for name, at in down.items() if name in up]
    return {
        "all_s": max(up.values()) - before,
        "first_stop_s": min(down.values()) - before,
        "downtime_sum_s": sum(gaps),
        "downtime_median_ms": statistics.median(gaps) * 1e3,
        "cpu_s": run.cpu() - cpu,
        "alive_after": len(run.split()[1]),
    }


def stop_all(run: Run) -> Figures:
    """End everything: wall and CPU seconds until nobody is left in the run's group, and how many were told to stop."""
    cpu, before = run.cpu(), now()
    run.peer.stop()
    figures: Figures = {}
    try:
        run.wait("stop", lambda: not run.group.pids(), 120, 0.01)
        figures = {"stop_s": now() - before, "stop_cpu_s": run.cpu() - cpu}
    except DNF:
        own, payloads = run.split()
        figures["stop_dnf"] = f"after 120 s {len(payloads)} payloads and {len(own)} own processes left"
    run.poll()
    figures["stopped_politely"] = len({event.name for event in run.events if event.kind == "T"})
    return figures
