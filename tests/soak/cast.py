"""Who plays in a soak: processes of several kinds, and jobs. By default five hundred, and a hundred."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Of 500 processes. Those that have a check are 200: "watched" has a watchdog in its place.
KINDS = {
    "plain": 170, "following": 20, "talking": 10, "telling": 60, "watched": 10, "reported": 30,
    "breakable": 60, "beating": 60, "http": 30, "tcp": 20, "crashing": 30,
}  # fmt: skip
JOBS = {"often": 60, "cron": 40}
# What can happen to one of a kind, and lead to one restart that nobody but a check or a watchdog asks for.
AILMENTS = {"watched": "freeze", "breakable": "break", "beating": "freeze", "http": "freeze", "tcp": "deafen"}
# How much one prints when it is told to: for so many seconds, and so many bytes at most. What is forwarded is in the
# supervisor's own log too, which nobody rotates here.
FLOODS = {"flooding": (3, 4 << 30), "spilling": (3, 4 << 20)}
# Short, so that much happens; long enough for a machine that has no time.
_CHECK = {"period": 3, "timeout": 4, "failure_threshold": 2, "grace": 8}
_BEAT_S = 10
_WATCHDOG_S = 8


@dataclass
class Player:
    """One process of the colony."""

    name: str
    kind: str
    config: dict[str, Any]
    broken: Path | None = None  # while there is this file, its check fails
    every: float | None = None
    cron_second: int | None = None
    catches_up: bool = False  # with every run, however late
    edits: int = field(default=0)


def ports(number: int) -> Iterator[int]:
    """Ports that are free, and that the kernel gives to nobody who does not ask for them."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    for port in random.sample(range(10000, low), low - 10000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port
        number -= 1
        if not number:
            return


class Cast:
    """Everybody, by name. `scale` makes them fewer."""

    def __init__(
        self,
        root: Path,
        scale: float,
        kinds: Mapping[str, int] = KINDS,
        jobs: Mapping[str, int] = JOBS,
    ) -> None:
        self.ledger, self.locks, self.things = root / "ledger", root / "locks", root / "things"
        for directory in (self.locks, self.things):
            directory.mkdir()
        self.ledger.touch()
        numbers = {kind: max(1, round(number * scale)) for kind, number in kinds.items()}
        self._ports = ports(numbers.get("http", 0) + numbers.get("tcp", 0))
        self.players = {
            player.name: player
            for kind, number in numbers.items()
            for player in (self.process(kind, index) for index in range(number))
        }
        self.jobs = {
            player.name: player
            for kind, number in jobs.items()
            for player in (self._job(kind, index) for index in range(max(1, round(number * scale))))
        }

    def _command(self, mode: str, *arguments: object) -> list[str]:
        shell = mode not in ("telling", "watched", "serving")
        program = ["/bin/sh", "player.sh"] if shell else [sys.executable, "-I", "-S", "player.py"]
        return [*program[:-1], str(HERE / program[-1]), mode, str(self.ledger), str(self.locks), *map(str, arguments)]

    def process(self, kind: str, index: int) -> Player:
        """One of a kind."""
        name = f"{kind}-{index}"
        thing = self.things / name
        player = Player(name, kind, {"kill_time": 1, "soak.edit": 0})
        config = player.config
        config["args"] = self._command("plain")
        if kind == "following":
            config["after"] = {f"telling-{index % 2}": "ready"}
        elif kind == "talking":
            config |= {"args": self._command("talking"), "ready": {"log": "^open for"}}
        elif kind == "telling":
            config |= {"args": self._command("telling"), "ready": {"notify": True}}
        elif kind == "watched":
            config |= {"args": self._command("watched"), "ready": {"notify": True}, "watchdog": _WATCHDOG_S}
        elif kind in ("breakable", "reported"):
            player.broken = thing
            check = {"exec": ["/usr/bin/test", "!", "-e", str(thing)], **_CHECK}
            if kind == "reported":
                check["action"] = "report"
            config |= {"args": self._command("breakable", thing), "check": [check]}
        elif kind == "beating":
            check = {"heartbeat": str(self.things), "period": _BEAT_S, "grace": _BEAT_S}
            config |= {"args": self._command("beating", thing), "check": [check]}
        elif kind in ("http", "tcp"):
            port = next(self._ports)
            way = {"http": f"http://127.0.0.1:{port}/"} if kind == "http" else {"tcp": f"127.0.0.1:{port}"}
            config |= {"args": self._command("serving", port), "check": [{**way, **_CHECK}]}
            if index % 2:
                config["ready"] = way
        elif kind in ("crashing", "looping"):
            config["args"] = self._command(kind)
        elif kind in ("flooding", "spilling"):
            config["args"] = self._command("flooding", *FLOODS[kind])
            config["log"] = {"forward": kind == "spilling"}
        return player

    def _job(self, kind: str, index: int) -> Player:
        name = f"{kind}-{index}"
        player = Player(name, kind, {"args": self._command("job", round(index % 5 * 0.2, 1))})
        schedule: dict[str, Any]
        if kind == "often":
            player.every = 8 + index % 4 * 2
            schedule = {"every": player.every}
        else:
            player.cron_second = index * 7 % 60
            at = f"{player.cron_second} * * * * *" if player.cron_second else "* * * * *"
            schedule = {"cron": at, "timezone": "UTC"}
        player.catches_up = schedule["catch_up"] = index % 2 == 1
        if player.catches_up:
            schedule["overlap"] = "queue"
        player.config["schedule"] = schedule
        return player
