"""A thousand processes that come, go, change, crash and print, for as long as you like: does anything grow?

    python tests/soak/churn.py [SECONDS]

Configs are added, removed, changed, disabled and spoilt; instances are killed; floods of output and of messages come;
until two fifths of the time supervisor and keeper are killed and upgraded too, so that those which are measured in the
middle live to the end. Three times it is quiet: what everything takes is compared, and how fast it is answered. What
was done is compared with what the processes noted themselves. SEED=N makes the same choices again, SCALE=0.1 a smaller
colony. The exit code is 0 when all held; else it is 1, what failed is said, and the directory is kept.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from inotify_simple import INotify, flags

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))

from chaos.storm import set_subreaper  # noqa: E402
from colony import descriptors, is_alive, put_whole  # noqa: E402
from soak.cast import Cast, Player  # noqa: E402
from soak.flat import Bounds, Look, comparable, compare  # noqa: E402
from soak.judge import Ledger  # noqa: E402
from soak.measure import Disk, disk_below, disk_of, machine_s, now, parent_of, percentile  # noqa: E402
from soak.stage import PATIENCE_S, Stage, run_and_tell  # noqa: E402

# Of 1,000 processes.
KINDS = {"plain": 780, "talking": 130, "crashing": 40, "looping": 36, "flooding": 8, "spilling": 6}
RESTLESS = ("crashing", "looping")
FLOODING = ("flooding", "spilling")
WINDOWS = ("beginning", "middle", "end")
_BUDGET = 128 << 20
# Of the time until the middle: when supervisor and keeper are killed and upgraded.
_KILLS = (0.05, 0.8)
_DEEDS = {
    "kill": 6, "crash": 2, "edit": 4, "edit live": 3, "remove": 4, "disable": 2, "ask": 3, "spoil": 2,
    "bad file": 1, "bad message": 1, "probe": 6, "touch": 1, "scan": 0.5, "flood": 0.25, "flood of messages": 0.12,
}  # fmt: skip
# Seconds between deeds and between kills of parts; how long what is gone stays away, and what is spoilt spoilt.
_BETWEEN_DEEDS, _BETWEEN_KILLS, _AWAY = (0.02, 0.12), (6.0, 14.0), (0.5, 6.0)
# The others are upgrades.
_KILLED = 0.75
_FLOOD, _RESTARTS_IN_FLOOD, _WRITERS = 200, 20, 4
_TRIES = 10
_TURN_S = 0.01
_SAMPLE_S = 10.0
# Whoever looks for a reason finds answers that took longer than this in the diary.
_SLOW_S = 0.1
# What is asked in a quiet window, one after the other.
_PROBES = {"message": 100, "death": 50, "death of one adopted": 20, "file": 25}
_MS = 1000.0


class Churn(Stage):
    """The colony, what is done to it, and what was seen."""

    options = ("-t", "0.5", "-m", "0.2", "-M", "2", "-k", "2", "--log-budget", str(_BUDGET))
    companions = ("ncolony-check",)  # of those whose readiness a line of output shows

    def __init__(
        self, root: Path, seed: int, scale: float = 1.0, quiet_s: float = 20.0, say: Callable[[str], None] = print
    ) -> None:
        self.cast = Cast(root, scale, KINDS, {})
        super().__init__(root, seed, Ledger(self.cast.ledger, set()), say)
        self.players, self.scale, self.quiet_s = self.cast.players, scale, quiet_s
        self.numbers = itertools.count(10_000)
        self.disabled: set[str] = set()
        self.busy: dict[str, float] = {}  # names that something else is done to, until when at most
        self.posted: dict[str, tuple[float, str]] = {}  # messages that wait for their answer: since when, of what kind
        self.delays: dict[str, list[float]] = {}
        self.looks: dict[str, Look] = {}
        self.churned: dict[str, dict[str, list[float]]] = {}  # delays before each quiet window
        self.peaks: dict[str, int] = {}
        self.asked = self.rejected = self.removed = 0
        self.next_sample = 0.0
        self.began = now()
        self.watch = INotify(nonblocking=True)
        self.watch.add_watch(self.cast.ledger, flags.MODIFY)
        answers = self.colony.state / "answers"
        answers.mkdir(parents=True, mode=0o755)
        self.watch.add_watch(answers, flags.MOVED_TO)

    # the run

    def run(self, seconds: float) -> None:
        """Bring everybody up, churn for about so long with quiet windows, and stop the colony."""
        self.quiet_s = min(self.quiet_s, seconds / 10)
        set_subreaper(True)
        for player in self.players.values():
            self.write(player)
        begin = now()
        self.launch()
        if not self.wait(self.all_up, "everybody is up", 120):
            return
        self.say(f"{len(self.players)} processes are up after {now() - begin:.1f} s")
        rage_s = max(seconds - 3 * self.quiet_s, seconds / 2)
        try:
            self.look_closely("beginning")
            self.rage(rage_s / 2, _KILLS)
            self.look_closely("middle")
            self.rage(rage_s / 2, None)
            self.look_closely("end")
        finally:
            begin = now()
            self.stop()
            self.say(f"stopped after {now() - begin:.1f} s")

    def end_all(self) -> None:
        """Leave no process, and nothing open, however it went."""
        super().end_all()
        self.watch.close()

    def rage(self, seconds: float, kills: tuple[float, float] | None) -> None:
        """Do things for so long; in between, as shares of the time, `kills` of parts."""
        begin = next_kill = next_deed = now()
        while (at := now()) < begin + seconds:
            self.turn()
            share = (at - begin) / seconds
            if at >= next_deed:
                self.do_something()
                next_deed = at + self.random.uniform(*_BETWEEN_DEEDS)
            if kills and at >= next_kill and kills[0] <= share < kills[1] and self.killed_at is None:
                self.disturb()
                next_kill = at + min(self.random.uniform(*_BETWEEN_KILLS), seconds / 6)
            if at >= self.next_sample:
                self.sample()
            self.pause()

    def look(self) -> None:
        """See what was noted and answered, and when."""
        seen = now()
        names = {event.name for event in self.watch.read(timeout=0)}
        for name in names & self.posted.keys():
            self.answered(name, seen)
        self.ledger.read(seen)
        self.ledger.done.clear()
        self.ledger.overdue(seen, PATIENCE_S)

    def pause(self) -> None:
        """Wait until something is noted or answered, or the next turn."""
        if names := {event.name for event in self.watch.read(timeout=int(_TURN_S * _MS))}:
            seen = now()
            for name in names & self.posted.keys():
                self.answered(name, seen)
            self.ledger.read(seen)

    def answered(self, name: str, seen: float) -> None:
        """Something was answered to a message; perhaps that it is done."""
        answer = self.colony.answer(name)
        if answer is not None and answer["state"] != "accepted":
            posted, kind = self.posted.pop(name)
            self.delays.setdefault(kind, []).append(seen - posted)
            if seen - posted > _SLOW_S:
                self.note(f"{kind} {name} was answered after {seen - posted:.2f} s")
            if kind == "bad" and answer["accepted"]:
                self.fault(f"message {name} makes no sense and was accepted: {answer}")

    # what is done

    def post(self, message: Mapping[str, Any] | bytes, kind: str) -> None:
        """Send a message that is to be answered."""
        self.asked += 1
        name = f"{self.asked:08d}"
        self.posted[name] = now(), kind
        self.colony.post(message, name)

    def at_rest(self, adopted: bool | None = None) -> tuple[str, int] | None:
        """Somebody who lives long, to whom something may be done, and its pid.

        `adopted`: who was started by another keeper than that of now, or who was not.
        """
        keeper = None if adopted is None else (self.colony.supervisor() or {}).get("keeper")
        found = [
            name
            for name, player in self.players.items()
            if player.kind not in RESTLESS and name not in self.disabled and self.busy.get(name, 0) < now()
        ]
        for name in self.random.sample(found, min(_TRIES, len(found))):
            pid = self.pid_of(name)
            if pid is not None and (adopted is None or (parent_of(pid) != keeper) is adopted):
                return name, pid
        return None

    def do_something(self) -> None:
        """One deed."""
        deed = self.random.choices(list(_DEEDS), list(_DEEDS.values()))[0]
        getattr(self, f"_{deed.replace(' ', '_')}")()
        self.counts[f"deed: {deed}"] += 1

    def _kill(self, number: signal.Signals = signal.SIGKILL, adopted: bool | None = None) -> None:
        if found := self.at_rest(adopted):
            name, pid = found
            self.note(f"{number.name} to {name}, pid {pid}")
            self.ledger.expect(name, "killed", now())
            os.kill(pid, number)

    def _crash(self) -> None:
        self._kill(signal.SIGSEGV)

    def _edit(self) -> None:
        if found := self.at_rest():
            name, _ = found
            player = self.players[name]
            player.edits += 1
            player.config["soak.edit"] = player.edits
            self.note(f"edit {name}")
            self.ledger.expect(name, "edited", now())
            self.write(player)

    def _edit_live(self) -> None:
        if found := self.at_rest():
            name, _ = found
            self.note(f"edit live keys of {name}")
            config = self.players[name].config
            config["kill_time"] = round(self.random.uniform(1, 2), 3)
            config["jitter"] = round(self.random.uniform(0, 1), 3)
            self.write(self.players[name])

    def _touch(self) -> None:
        if found := self.at_rest():
            name, _ = found
            os.utime(self.colony.config / name)

    def _remove(self) -> None:
        if found := self.at_rest():
            name, pid = found
            self.note(f"remove {name}, pid {pid}")
            self.colony.remove(name)
            self.removed += 1
            player = self.players.pop(name)
            is_gone = lambda: self.colony.status(name) is None and not is_alive(pid)  # noqa: E731
            self._when(is_gone, f"{name} is removed and gone, pid {pid}", functools.partial(self._add, player))

    def _add(self, player: Player) -> None:
        """It comes back, or somebody else of its kind does, under a name that never was."""
        if self.random.random() < 0.5:
            player = self.cast.process(player.kind, next(self.numbers))
        self.players[player.name] = player
        self.note(f"add {player.name}")
        self.ledger.expect(player.name, "added", now())
        self.write(player)

    def _disable(self) -> None:
        if found := self.at_rest():
            name, pid = found
            self.note(f"disable {name}, pid {pid}")
            self.disabled.add(name)
            self.players[name].config["enabled"] = False
            self.write(self.players[name])
            is_down = lambda: (self.colony.status(name) or {}).get("state") == "STOPPED" and not is_alive(pid)  # noqa: E731
            self._when(is_down, f"{name} is disabled and stopped, pid {pid}", functools.partial(self._enable, name))

    def _enable(self, name: str) -> None:
        self.note(f"enable {name}")
        self.disabled.discard(name)
        del self.players[name].config["enabled"]
        self.ledger.expect(name, "enabled", now())
        self.write(self.players[name])

    def _when(self, condition: Callable[[], bool], what: str, deed: Callable[[], None]) -> None:
        """Some time after the condition holds, do something. That it does not come to hold is a fault."""
        since = now()

        def again() -> None:
            if condition():
                self.delays.setdefault("gone", []).append(now() - since)
                self.later.append((now() + self.random.uniform(*_AWAY), deed))
            elif now() - since > PATIENCE_S:
                self.fault(f"not within {PATIENCE_S:g} s: {what}")
                deed()
            else:
                self.later.append((now() + 0.1, again))

        again()

    def _ask(self) -> None:
        if found := self.at_rest():
            name, _ = found
            self.note(f"ask for a restart of {name}")
            self.ledger.expect(name, "asked for", now())
            self.post({"type": "RESTART", "name": name}, "restart")

    def _spoil(self) -> None:
        """Its last good definition stays in force."""
        if found := self.at_rest():
            name, _ = found
            self.note(f"spoil {name}")
            put_whole(self.colony.config, name, self.random.choice([b"{", b"[]", b'{"args": 7}', b"\xff\x00", b""]))
            until = now() + self.random.uniform(*_AWAY)
            self.busy[name] = until + 1

            def mend(name: str = name) -> None:
                self.write(self.players[name])

            self.later.append((until, mend))

    def _bad_file(self) -> None:
        name = f"bad-{next(self.numbers)}"
        put_whole(
            self.colony.config, name, self.random.choice([b"{", b'{"args": []}', os.urandom(4096), b"\0" * 2000000])
        )
        self.later.append((now() + self.random.uniform(*_AWAY), lambda: self.colony.remove(name)))

    def _bad_message(self) -> None:
        self.rejected += 1
        self.post(self.random.choice([b"", b"{", b'{"type": "NO"}', b'{"type": "RESTART"}', os.urandom(999)]), "bad")

    def _probe(self) -> None:
        """Something that is done at once, and changes nothing."""
        if found := self.at_rest():
            name, _ = found
            self.post({"type": "SIGNAL", "name": name, "signal": "CONT"}, "message")

    def _scan(self) -> None:
        self.post({"type": "SCAN"}, "scan")

    def _flood(self) -> None:
        """Several print as fast as they can."""
        for kind in FLOODING:
            for name in [name for name, player in self.players.items() if player.kind == kind][:_WRITERS]:
                if (pid := self.pid_of(name)) is not None:
                    self.note(f"flood by {name}, pid {pid}")
                    os.kill(pid, signal.SIGUSR1)

    def _flood_of_messages(self) -> None:
        self.note("flood of messages")
        restarts = [found for _ in range(_RESTARTS_IN_FLOOD) if (found := self.at_rest())]
        names = list(self.players)
        for name in {name for name, _ in restarts}:
            self.ledger.expect(name, "asked for", now())
            self.post({"type": "RESTART", "name": name}, "restart in a flood")
        for _ in range(_FLOOD - len(restarts)):
            name = self.random.choice(names)
            message = self.random.choice(
                [
                    {"type": "SIGNAL", "name": name, "signal": "CONT"},
                    {"type": "START", "name": "nobody"},
                    {"type": "REPORT", "name": name, "what": "healthy"},
                    {"type": "SCAN"},
                ]
            )
            self.post(message, "message in a flood")

    def disturb(self) -> None:
        """Kill supervisor or keeper, or have the supervisor replace itself."""
        if self.random.random() < _KILLED:
            self.kill_part()
            return
        pid = self.pids().get("supervisor")
        if pid is None:
            return
        self.counts["upgrade"] += 1
        self.note(f"upgrade supervisor {pid}")
        if self.random.random() < 0.5:
            self.post({"type": "UPGRADE"}, "upgrade")
        else:
            os.kill(pid, signal.SIGUSR2)

    # quiet windows

    def look_closely(self, when: str) -> None:
        """Let everything settle, measure what it takes, see that all is as it should be, and how fast it is."""
        self.say(f"{now() - self.began:6.0f} s: {when}")
        restless = [name for name, player in self.players.items() if player.kind in RESTLESS]
        self.wait(lambda: not self.later, "everything that was begun is over", PATIENCE_S + 20)
        self.wait(lambda: not self.ledger.waits(), "every restart that is due was done", PATIENCE_S)
        for name in restless:
            self.post({"type": "STOP", "name": name}, "stop")
        self.wait(self.is_quiet, "all is quiet", PATIENCE_S)
        self.wait(self.all_well, "every process is as it is wanted", 60, self.wrong)
        self.check_strangers()
        self.churned[when] = {**self.delays, **self.ledger.delays}
        self.delays, self.ledger.delays = {}, {}
        self.rest(min(3.0, self.quiet_s / 4))
        before, (busy, total) = self.sizes_now(), machine_s()
        self.rest(self.quiet_s)
        sizes = self.sizes_now()
        look = Look(sizes, disk_of(self.colony.state), disk_below(self.colony.logs))
        now_busy, now_total = machine_s()
        look.others = (now_busy - busy) / (now_total - total)
        for part in sizes.keys() & before.keys():
            look.busy[part] = sizes[part].cpu_s - before[part].cpu_s
            look.window_s = sizes[part].at - before[part].at
        self.measure_latency(look)
        self.looks[when] = look
        for part, size in sizes.items():
            kinds = Counter(re.sub(r"[0-9a-f]{8,}|\d+", "N", target) for target in descriptors(size.pid).values())
            self.note(f"descriptors of the {part}: {dict(kinds)}")
        for name in restless:
            self.ledger.expect(name, "started", now())
            self.post({"type": "START", "name": name}, "start")
        self.wait(lambda: not self.ledger.waits(), "those that were stopped are started", PATIENCE_S)
        self.wait(self.is_quiet, "every message is answered", PATIENCE_S)

    def rest(self, seconds: float) -> None:
        """Do nothing, hardly looking."""
        end = now() + seconds
        self.wait(lambda: now() >= end, "time passes", seconds + 60)

    def is_quiet(self) -> bool:
        """Whether every message is answered and there is a supervisor."""
        for name in list(self.posted):
            self.answered(name, now())
        return not self.posted and self.killed_at is None and self.launched

    def wrong(self) -> dict[str, str]:
        """Who is not as he should be."""
        found = dict.fromkeys(self.colony.known() ^ {*self.players, *self.companions}, "unknown")
        for name, player in self.players.items():
            status = self.colony.status(name)
            if status is None:
                found[name] = "no status"
            elif player.kind in RESTLESS:
                if status["state"] != "STOPPED" or status["pid"] is not None:
                    found[name] = json.dumps(status)
            elif status["state"] != "RUNNING" or not is_alive(status["pid"] or 0) or status["problem"]:
                found[name] = json.dumps(status)
        return found

    def all_well(self) -> bool:
        """Whether every status says what it should."""
        return not self.wrong()

    def check_strangers(self) -> None:
        """Nobody of ours may be alive that nobody knows."""
        for pid, text in self.colony.strangers(self.pids().values()).items():
            self.counts["strangers"] += 1
            self.fault(f"alive and unknown to the supervisor: {pid} {text}")

    def measure_latency(self, look: Look) -> None:
        """Ask one thing after the other."""
        probes: dict[str, tuple[str, dict[str, list[float]], Callable[[], None]]] = {
            "message": ("message", self.delays, self._probe),
            "death": ("killed", self.ledger.delays, lambda: self._kill(adopted=False)),
            "death of one adopted": ("killed", self.ledger.delays, lambda: self._kill(adopted=True)),
            "file": ("dropped", self.ledger.delays, self._drop),
        }
        for what, (key, delays, ask) in probes.items():
            for _ in range(max(3, round(_PROBES[what] * self.scale))):
                self.wait(lambda: self.at_rest() is not None, "somebody is at rest", PATIENCE_S)
                before = self.asked, self.ledger.waits()
                ask()
                if before == (self.asked, self.ledger.waits()):
                    continue  # there is nobody
                self.wait(lambda: not self.posted and not self.ledger.waits(), f"{what}: seen", PATIENCE_S)
            look.latency[what] = delays.pop(key, [])
        for name in [name for name in self.players if name.startswith("dropped-")]:
            self.colony.remove(name)
            self.removed += 1
            del self.players[name]
        self.wait(self.all_well, "what was dropped is gone", 60, self.wrong)

    def _drop(self) -> None:
        player = self.cast.process("plain", next(self.numbers))
        player.name = f"dropped-{player.name}"
        self.players[player.name] = player
        self.ledger.expect(player.name, "dropped", now())
        self.write(player)

    # samples

    def sample(self) -> None:
        """See what there is, for the peaks and for whoever watches."""
        self.next_sample = now() + _SAMPLE_S
        logs, sizes = disk_below(self.colony.logs), self.sizes_now()
        found = {"logs: MB": logs.bytes >> 20, "logs: names": logs.names}
        for part, size in sizes.items():
            found |= {f"{part}: KiB (PSS)": size.pss_kib, f"{part}: descriptors": size.descriptors}
        for what, number in found.items():
            self.peaks[what] = max(self.peaks.get(what, 0), number)
        self.note(f"sample {found}")
        self.say(f"{now() - self.began:6.0f} s: " + ", ".join(f"{what} {number}" for what, number in found.items()))

    # the verdict

    def verdict(self) -> tuple[str, list[str]]:
        """A table, and what must not be."""
        faults = [*self.faults, *self.ledger.faults]
        if len(self.looks) == len(WINDOWS):
            faults += self.unflat()
        else:
            faults.append("it did not come to its end")
        rows = [*self.measured(), *self.fast()]
        lines = ["| what | beginning | middle | end |", "|---|---|---|---|"]
        lines += [f"| {what} | {' | '.join(texts)} |" for what, texts in rows]
        lines += ["", "| what was done | how often | |", "|---|---|---|"]
        lines += [f"| {a} | {b} | {c} |" for a, b, c in self.counted()]
        if self.looks and not comparable(self.looks["beginning"], [*self.looks.values()][-1]):
            lines += ["", "The machine was busy in the quiet windows: how fast it is was not compared."]
        return "\n".join(lines), faults

    def unflat(self) -> list[str]:
        """What has grown."""
        answered = self.asked + self.ledger.counts["starts"]
        return compare(*self.looks.values(), Bounds(len(self.players), answered, self.rejected, self.removed, _BUDGET))

    def row(self, what: str, text: Callable[[Look], str]) -> tuple[str, list[str]]:
        """One row: what is to be said of each look."""
        return what, [text(self.looks[when]) if when in self.looks else "?" for when in WINDOWS]

    def measured(self) -> list[tuple[str, list[str]]]:
        """What everything takes."""
        rows = []
        for part in self.parts:
            rows += [
                self.row(f"{part}: MB of its own", lambda look: f"{look.sizes[part].own_kib / 1024:.1f}"),  # noqa: B023
                self.row(f"{part}: MB (PSS)", lambda look: f"{look.sizes[part].pss_kib / 1024:.1f}"),  # noqa: B023
                self.row(f"{part}: MB (RSS)", lambda look: f"{look.sizes[part].rss_kib / 1024:.1f}"),  # noqa: B023
                self.row(f"{part}: descriptors", lambda look: str(look.sizes[part].descriptors)),  # noqa: B023
                self.row(f"{part}: threads", lambda look: str(look.sizes[part].threads)),  # noqa: B023
                self.row(f"{part}: CPU ms per quiet minute", functools.partial(self._busy, part)),
            ]
        places = sorted({place for look in self.looks.values() for place in look.state})
        rows += [
            self.row(f"{place} in the state directory: names, KiB", functools.partial(self._place, place))
            for place in places
        ]
        rows.append(self.row("of the machine, taken by anybody", lambda look: f"{look.others:.0%}"))
        rows.append(self.row("logs: names, MB", lambda look: f"{look.logs.names}, {look.logs.bytes / 1048576:.1f}"))
        return rows

    @staticmethod
    def _busy(part: str, look: Look) -> str:
        return f"{look.busy[part] / look.window_s * 60 * _MS:.0f}"

    @staticmethod
    def _place(place: str, look: Look) -> str:
        found = look.state.get(place, Disk())
        return f"{found.names}, {found.bytes >> 10}"

    def fast(self) -> list[tuple[str, list[str]]]:
        """How fast everything is, when it is quiet and when it is not."""

        def text(values: list[float] | None) -> str:
            if not values:
                return ""
            return f"{percentile(values, 0.5) * _MS:.1f} / {percentile(values, 0.99) * _MS:.1f} ({len(values)})"

        rows = [
            self.row(f"quiet: {what}, ms, p50 / p99", lambda look: text(look.latency.get(what)))  # noqa: B023
            for what in _PROBES
        ]
        kinds = sorted({kind for delays in self.churned.values() for kind in delays})
        for kind in kinds:
            texts = [text(self.churned.get(when, {}).get(kind)) for when in WINDOWS]
            rows.append((f"before: {kind}, ms, p50 / p99", texts))
        return rows

    def counted(self) -> list[tuple[object, ...]]:
        """What was done, and what came of it."""
        counts = self.ledger.counts
        parts = ", ".join(f"{part} {self.counts[part]}" for part in (*self.parts, "upgrade"))
        deeds = ", ".join(f"{what.removeprefix('deed: ')} {n}" for what, n in self.counts.items() if "deed: " in what)
        return [
            ("processes", len(self.players), ""),
            ("deeds", sum(n for what, n in self.counts.items() if "deed: " in what), deeds),
            ("kills of parts", sum(self.counts[part] for part in (*self.parts, "upgrade")), parts),
            ("starts noted", counts["starts"], f"duplicates {counts['duplicates']}"),
            ("restarts without a cause", counts["spurious"], f"causes without a restart {counts['missing']}"),
            ("messages", self.asked, f"not answered {len(self.posted)}"),
            ("left behind, unknown", self.counts["left behind"] + self.counts["strangers"], ""),
            ("most", "", ", ".join(f"{what} {number}" for what, number in self.peaks.items())),
        ]


def main() -> int:
    """Run one soak and print what came of it; the exit code."""
    scale = float(os.environ.get("SCALE") or 1.0)
    return run_and_tell(lambda root, seed, say: Churn(root, seed, scale, say=say), 600.0)


if __name__ == "__main__":
    sys.exit(main())
