"""What is done to a colony whose costs are counted, and what each of these events was seen to cost."""

from __future__ import annotations

import math
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colony import SLEEP, Colony
from cost.meter import Cost, Meter, wait_until_still

# It does what it is told through a FIFO: to print so many lines at once.
_PRINTER = """
import os, sys
place = sys.argv[1]
if not os.path.exists(place):
    os.mkfifo(place)
while True:
    with open(place) as told:
        count = int(told.read())
    os.write(1, b"".join(b"this is line %d\\n" % number for number in range(count)))
"""
PRINTERS = {"quiet": False, "loud": True}  # name -> whether its output is forwarded
HALVES = ("supervisor", "keeper")
# What was seen, this share of it, and so much more: a loaded machine takes apart what mostly comes together, such as
# what inotify says of a rename, or two reports of the keeper. What was not there at all must not come.
SHARE = 1.3
_MOST = {"calls": (1.2, 4), "opens": (1.0, 1), "wake-ups": (SHARE, 3), "bytes": (1.2, 100)}


@dataclass
class Place:
    """A colony of `size` sleeping processes and two that print, with a meter at each half."""

    colony: Colony
    size: int
    meters: dict[str, Meter] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PRINTERS, 0))

    @property
    def names(self) -> list[str]:
        """The names of the sleeping processes."""
        return [f"p{number:03}" for number in range(self.size)]

    def define(self, name: str, seconds: int = 1000, grace: float = 5) -> None:
        """Write the config file of a sleeping process; `seconds` is no live key, `grace` is one."""
        self.colony.put(name, {"args": [SLEEP, str(seconds)], "stop": [["TERM", grace]]})

    def write(self) -> None:
        """Write every config file."""
        for name in self.names:
            self.define(name)
        for name, forward in PRINTERS.items():
            program = [sys.executable, "-I", "-S", "-c", _PRINTER, str(self.colony.root / name)]
            self.colony.put(name, {"args": program, "log": {"forward": forward}})

    def begin(self, frequency: int = 600) -> None:
        """Start the colony, wait until all of it runs, and attach the meters."""
        # Without the second, for which an instance is new, every restart is followed by the same.
        self.colony.start("--frequency", str(frequency), "--threshold", "0")
        self.wait_until_up()
        self.attach()

    def wait_until_up(self) -> None:
        """Wait until every process runs that has a file."""
        for name in os.listdir(self.colony.config):
            self.colony.wait_until_running(name, timeout=60)
            if name in PRINTERS:
                self.colony.wait_for((self.colony.root / name).exists, f"{name} listens")

    def attach(self) -> None:
        """Put a meter at each half."""
        keeper = self.colony.keeper_pid()
        assert keeper is not None
        pids = dict(zip(HALVES, (self.colony.supervisor_pid, keeper), strict=True))
        self.meters = {half: Meter(pid, self.colony.root) for half, pid in pids.items()}

    def rest(self) -> None:
        """Wait until nothing happens any more."""
        wait_until_still(list(self.meters.values()))

    def close(self) -> None:
        """Take the meters away and stop the colony."""
        for meter in self.meters.values():
            meter.close()
        self.colony.close()

    def status(self, name: str) -> dict[str, Any]:
        """The status of a process that has one."""
        found = self.colony.status(name)
        assert found is not None
        return found


@contextmanager
def place(size: int) -> Iterator[Place]:
    """A colony in a directory with a short name, since paths are in what is written."""
    with tempfile.TemporaryDirectory(prefix="cost-") as directory:
        found = Place(Colony(Path(directory)), size)
        try:
            yield found
        finally:
            found.close()


def measure(places: list[Place], do: Callable[[Place], object]) -> list[dict[str, Cost]]:
    """What `do` costs each half of each colony, from rest to rest."""
    meters = [meter for one in places for meter in one.meters.values()]
    for meter in meters:
        meter.begin()
    for one in places:
        do(one)
    wait_until_still(meters)
    return [{half: meter.cost() for half, meter in one.meters.items()} for one in places]


# The events. Each is over when whoever asked for it can see that it is.


def _die(place: Place) -> None:
    status = place.status("p003")
    os.kill(status["pid"], signal.SIGKILL)
    place.colony.wait_until_running("p003", instance=status["instance"] + 1)


def _send(place: Place, kind: str, **more: str) -> None:
    answer = place.colony.send({"type": kind, "name": "p004", **more})
    assert answer["state"] == "done", answer


def _change_live(place: Place) -> None:
    before = place.status("p005")
    place.define("p005", grace=6 if before["digest"] == place.status("p006")["digest"] else 5)
    place.colony.wait_for(lambda: place.status("p005")["digest"] != before["digest"], "the change is in force")
    assert place.status("p005")["instance"] == before["instance"]


def _change(place: Place) -> None:
    number = place.status("p007")["instance"] + 1
    place.define("p007", seconds=1000 + number)
    place.colony.wait_until_running("p007", instance=number)


def _add(place: Place) -> None:
    place.define("new")
    place.colony.wait_until_running("new")


def _remove(place: Place) -> None:
    place.colony.remove("new")
    place.colony.wait_until_forgotten("new")


def _print(count: int, name: str) -> Callable[[Place], None]:
    def do(place: Place) -> None:
        colony = place.colony
        (colony.root / name).write_text(str(count))
        place.lines[name] += count
        colony.wait_for(lambda: colony.output(name).count(b"\n") == place.lines[name], f"{name} has printed")
        if PRINTERS[name]:
            colony.wait_for(lambda: len(colony.lines(name)) == place.lines[name], f"{name} is forwarded")

    return do


# What is seen of an event at one half: system calls, files opened, wake-ups, and bytes written to files.
Seen = tuple[int, int, int, int]
COLUMNS = ("calls", "opens", "wake-ups", "bytes")


@dataclass(frozen=True)
class Event:
    """Something that happens, the process that it concerns, and what it was seen to cost."""

    what: str
    name: str
    do: Callable[[Place], object]
    supervisor: Seen
    keeper: Seen

    def seen(self, half: str) -> dict[str, int]:
        """By column."""
        return dict(zip(COLUMNS, self.supervisor if half == "supervisor" else self.keeper, strict=True))


# Those of one group are done in turn, so that each finds the colony as it needs it.
GROUPS: dict[str, list[Event]] = {
    "death": [Event("a death and its restart", "p003", _die, (41, 9, 4, 1306), (47, 3, 4, 1028))],
    "running": [
        Event("`RESTART`", "p004", lambda place: _send(place, "RESTART"), (90, 14, 8, 2627), (61, 6, 5, 1028)),
        Event("`SIGNAL`", "p004", lambda place: _send(place, "SIGNAL", signal="CONT"), (47, 5, 3, 394), (4, 0, 1, 0)),
    ],
    "stopped": [
        Event("`STOP`", "p004", lambda place: _send(place, "STOP"), (71, 10, 4, 2432), (36, 3, 4, 101)),
        Event("`START`", "p004", lambda place: _send(place, "START"), (77, 11, 6, 2379), (22, 2, 1, 927)),
    ],
    "changed": [
        Event("a changed file, a live key", "p005", _change_live, (28, 5, 2, 603), (2, 0, 1, 0)),
        Event("a changed file, another key", "p007", _change, (69, 14, 6, 1645), (60, 6, 5, 1029)),
    ],
    "added": [
        Event("a new file", "new", _add, (55, 9, 5, 1260), (22, 2, 1, 926)),
        Event("a removed file", "new", _remove, (56, 7, 6, 1046), (36, 3, 4, 102)),
    ],
    "printed": [
        Event("a line, not forwarded", "quiet", _print(1, "quiet"), (0, 0, 0, 0), (4, 0, 2, 16)),
        Event("1,000 lines at once, not forwarded", "quiet", _print(1000, "quiet"), (0, 0, 0, 0), (4, 0, 2, 16)),
    ],
    "forwarded": [
        Event("a line, forwarded", "loud", _print(1, "loud"), (10, 1, 1, 1114), (7, 0, 3, 16)),
        Event("1,000 lines at once, forwarded", "loud", _print(1000, "loud"), (10, 1, 1, 71935), (7, 0, 3, 16)),
    ],
}


def bound(seen: int, column: str) -> int:
    """The most that is allowed."""
    share, more = _MOST[column]
    return math.ceil(seen * share) + more if seen else 0


def rows() -> list[str]:
    """The table in docs/performance.md."""
    return [
        f"| {event.what} | " + " | ".join(f"{number:,}" for number in (*event.supervisor, *event.keeper)) + " |"
        for group in GROUPS.values()
        for event in group
    ]
