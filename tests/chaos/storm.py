"""A random storm over a real colony: supervisor, keeper or both are killed again and again; then the count is taken.

    python tests/chaos/storm.py [SECONDS]

SEED=N in the environment makes the same choices again, if not at the same instants. The exit code is 0 when all held;
else it is 1, what failed is said, and the directory is kept.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import platform
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))

from chaos import judge  # noqa: E402
from chaos.judge import Fault  # noqa: E402
from colony import MARK, Colony, is_alive  # noqa: E402
from soak.measure import parent_of  # noqa: E402

OPTIONS = ("-m", "0.01", "-M", "0.05", "-t", "0.005", "--log-budget", "4096M", "--frequency", "2")
KILLS = ("supervisor", "keeper", "both")
_KILL_WEIGHTS = (5, 3, 2)
# Seconds: between kills, before a killed supervisor is started again, between user actions.
_BETWEEN_KILLS, _PAUSE, _BETWEEN_ACTIONS = (0.2, 0.8), (0.0, 0.3), (0.1, 0.7)
# Twisted takes half a second to come up: if it were always killed on the way, nothing else would be tried.
_KILL_WHILE_STARTING = 0.25
_TURN_S = 0.005
_HISTORY_EVERY_S = 0.3
# Nothing here takes that long, not on a busy machine either.
_PATIENCE_S = 20.0
_SHOWN_FAULTS = 20
_NEAR_S = 1.5
# So long after the death of a keeper that is not the supervisor's own child an exit may be seen by nobody.
_GAP_S = 0.2
_PR_SET_CHILD_SUBREAPER = 36
_PATH = "/usr/local/bin:/usr/bin:/bin"
# The same as `witness.py … short`, in a language whose programs start in a millisecond and are several processes.
_SHELL = r"""
exec 8>>"$1/$2" 9>>"$1/$2.lock"
note() { read -r now _ </proc/uptime; echo "$now $*" >&8; }
if ! flock -n 9; then note duplicate $$ "$NCOLONY_INSTANCE"; exit 198; fi
last=$(tail -c 16384 "$1/$2" | sed -n 's/.* printing [0-9]*\.\.\([0-9]*\).*/\1/p' | tail -n 1)
line=$((${last:-0} + 1))
note up $$ "$NCOLONY_INSTANCE" $line
note printing $line..$line
printf '<%d 0  %d>\n' $line $line
note printed $line..$line
sleep 0.0$(($$ % 8 + 1))
trap '' TERM
note exit $(($$ % 100)) "$NCOLONY_INSTANCE"
exit $(($$ % 100))
"""


@dataclass(frozen=True)
class Player:
    """One process of the colony."""

    name: str
    mode: str
    kind: str  # of lines, see witness.length_of
    config: dict[str, Any]
    lasts: bool  # it never ends by itself


def cast(notes: Path) -> list[Player]:
    """About thirty processes of every sort. Those that live for milliseconds mostly wait between their lives."""
    calm = {"min_restart_delay": 0.3, "max_restart_delay": 1.0, "threshold": 0.5}
    numbers = {
        "short": 2, "calm-short": 3, "shell": 2, "steady": 5, "polite": 3, "burst": 2, "silent": 3, "mortal": 3,
        "killed": 1, "deaf": 1, "parent": 2, "deaf-parent": 1, "orphaner": 2,
    }  # fmt: skip
    players = []
    for sort, number in numbers.items():
        for index in range(1, number + 1):
            mode = sort.removeprefix("calm-")
            name = f"{sort}-{index}"
            program = [sys.executable, "-I", "-S", str(HERE / "witness.py"), str(notes), name, mode]
            if mode == "shell":
                program = ["/bin/sh", "-c", _SHELL, "sh", str(notes), name]
            config: dict[str, Any] = {"args": program, "env": {"PATH": _PATH}, "group": [f"group-{index}"]}
            config["log"] = {"max_bytes": 2 << 20 if mode == "burst" else 1 << 14, "keep": 100_000}
            if sort in ("calm-short", "shell", "killed"):
                config |= calm
            if mode.startswith("deaf") or mode in ("parent", "orphaner"):
                config["kill_time"] = 0.2
            lasts = mode not in ("short", "shell", "mortal", "killed", "orphaner")
            kind = {"shell": "bare", "burst": "burst"}.get(mode, "plain")
            players.append(Player(name, mode, kind, config, lasts))
    return players


def set_subreaper(on: bool) -> None:
    """Become, or cease to be, the parent of what our descendants leave behind (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)


def reap_all_but(child: int) -> None:
    """Reap the children of ours that have ended, whoever they were left by, except one."""
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in map(int, children.read_text(encoding="ascii").split()):
            if pid != child:
                os.waitpid(pid, os.WNOHANG)


class Half:
    """Supervisor or keeper: whether it is there and holds what the former one held."""

    def __init__(self) -> None:
        self.down: float | None = None  # since when
        self.wanted: set[str] = set()  # the FIFOs there were then
        self.times: list[tuple[float, float]] = []  # from, to

    def fell(self, fifos: set[str]) -> None:
        """It was killed."""
        if self.down is None:
            self.down = time.monotonic()
        self.wanted |= fifos

    def rose(self) -> None:
        """Another took over."""
        if self.down is not None:
            self.times.append((self.down, time.monotonic()))
            self.down, self.wanted = None, set()


class Storm:
    """A colony, what is done to it, and what was seen."""

    def __init__(self, root: Path, seed: int, say: Callable[[str], None] = print) -> None:
        self.colony = Colony(root)
        self.pids = root / "pids"
        self.seed, self.random, self.say = seed, random.Random(seed), say
        self.players = {player.name: player for player in cast(self.colony.notes_directory)}
        self.began = time.monotonic()
        self.diary = (root / "diary").open("w", encoding="utf-8", buffering=1)
        self.supervisor, self.keeper = Half(), Half()
        self.kills: list[tuple[float, str]] = []
        self.gaps: list[tuple[float, float]] = []  # a keeper that an earlier supervisor had started was killed
        self.counts: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self.killed_keeper: int | None = None  # it may be seen for a moment after its death
        self.follow_ups: list[tuple[float, Callable[[], None]]] = []
        self.posted: list[str] = []
        self.absent: set[str] = set()
        self.changes = itertools.count(1)
        self.history: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in self.players}
        self.history_seen: dict[str, tuple[int, int]] = {}
        self.recorded_twice: set[tuple[str, str]] = set()
        self.changed_mind: dict[tuple[str, str], str] = {}
        self.launched: float | None = None  # None: it is dead, and the next one's start is due

    # the storm

    def run(self, seconds: float) -> None:
        """Let it rage for so long, let it settle, and stop the colony."""
        set_subreaper(True)
        for player in self.players.values():
            self.write(player)
        self.launch()
        end = self.began + seconds
        next_kill = next_action = self.began + 1.0
        next_history = self.began
        try:
            while (now := time.monotonic()) < end:
                self.look()
                if now >= next_kill:
                    self.kill()
                    next_kill = now + self.random.uniform(*_BETWEEN_KILLS)
                if now >= next_action:
                    self.act()
                    next_action = now + self.random.uniform(*_BETWEEN_ACTIONS)
                if now >= next_history:
                    self.read_history()
                    next_history = now + _HISTORY_EVERY_S
                self.follow_up(now)
                time.sleep(_TURN_S)
        except KeyboardInterrupt:
            self.say("interrupted: the storm ends here")
        self.settle()
        self.stop()

    def launch(self) -> None:
        """Start a supervisor and do not wait for it."""
        colony = self.colony
        if colony.process:
            colony.process.wait()
        with (colony.root / "output").open("ab") as output:
            colony.process = subprocess.Popen(
                colony.command("--pid", str(self.pids), *OPTIONS),
                cwd=colony.root,
                env={**os.environ, MARK: colony.mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.launched = time.monotonic()
        self.counts["supervisors"] += 1
        self.note(f"supervisor {colony.process.pid} is launched")

    def look(self) -> None:
        """See who is there."""
        process = self.colony.process
        assert process
        self.reap()
        if self.launched is not None and process.poll() is not None:
            self.fault(f"the supervisor ended by itself with {process.returncode}")
            self.supervisor_fell()
        if self.launched is not None and self.supervisor.down is not None:
            if self.is_up() and self.holds(process.pid, self.supervisor):
                self.note("the supervisor is up")
                self.supervisor.rose()
            elif time.monotonic() - self.launched > _PATIENCE_S:
                missing = self.unheld(process.pid, self.supervisor)
                self.fault(f"no working supervisor within {_PATIENCE_S:g} s: {missing}")
                self.supervisor.rose()
        if self.keeper.down is not None:
            pid = self.keeper_pid()
            if pid not in (None, self.killed_keeper) and self.holds(pid, self.keeper):
                self.note(f"keeper {pid} is up")
                self.keeper.rose()
            elif not self.supervisor.down and time.monotonic() - self.keeper.down > _PATIENCE_S:
                state = "there is none" if pid is None else f"{self.unheld(pid, self.keeper)} not held"
                self.fault(f"no working keeper within {_PATIENCE_S:g} s: {state}")
                self.keeper.rose()

    def reap(self) -> None:
        """Be a decent PID 1: what the kernel gives us is reaped soon, so that how it ended can be known."""
        reap_all_but(self.colony.process.pid if self.colony.process else 0)

    def is_up(self) -> bool:
        """Whether the supervisor of now says that it is one."""
        assert self.colony.process
        return (self.colony.supervisor() or {}).get("pid") == self.colony.process.pid

    def fifos(self) -> set[str]:
        """The names of the FIFOs there are."""
        try:
            return set(os.listdir(self.colony.state / "fifo"))
        except FileNotFoundError:
            return set()

    def unheld(self, pid: int, half: Half) -> set[str]:
        """The FIFOs of the time of the death that are still there and that the process does not hold."""
        held = set()
        try:
            for entry in os.listdir(f"/proc/{pid}/fd"):
                held.add(os.path.basename(os.readlink(f"/proc/{pid}/fd/{entry}")))
        except OSError:
            pass  # it ended meanwhile, or one was closed: look again in the next turn
        return (half.wanted & self.fifos()) - held

    def holds(self, pid: int, half: Half) -> bool:
        """Whether nothing that was unread at the death can be lost any more."""
        return not self.unheld(pid, half)

    def keeper_pid(self) -> int | None:
        """Who holds the lock that only a keeper takes."""
        try:
            inode = str((self.colony.state / "keeper.lock").stat().st_ino)
            locks = Path("/proc/locks").read_text(encoding="ascii")
        except OSError:
            return self.colony.keeper_pid()
        for words in map(str.split, locks.splitlines()):
            if "->" not in words and words[1] == "FLOCK" and words[5].rpartition(":")[2] == inode:
                return int(words[4])
        return None

    def note(self, text: str) -> None:
        """Write a line into the storm's own diary, with the wall clock of the product's log beside our own time."""
        wall = time.time()
        clock = time.strftime("%H:%M:%S", time.gmtime(wall)) + f"{wall % 1:.3f}"[1:]
        self.diary.write(f"{time.monotonic() - self.began:9.3f} {clock} {text}\n")

    def fault(self, text: str) -> None:
        """Note what must not be."""
        self.note(text)
        self.faults.append(Fault(text, time.monotonic()))
        self.say(f"{time.monotonic() - self.began:8.3f} {text}")

    # kills

    def kill(self) -> None:
        """SIGKILL one half or both."""
        what = self.random.choices(KILLS, _KILL_WEIGHTS)[0]
        luck, order = self.random.random(), self.random.random() < 0.5
        process = self.colony.process
        assert process
        there = self.launched is not None and (self.supervisor.down is None or luck < _KILL_WHILE_STARTING)
        keeper = self.keeper_pid()
        deeds: list[Callable[[], None]] = []
        if what != "keeper":
            if not there:
                return
            deeds.append(self.kill_supervisor)
        if what != "supervisor":
            if keeper is None:
                return
            deeds.append(lambda: self.kill_keeper(keeper))
        for deed in deeds if order else deeds[::-1]:
            deed()
        self.kills.append((time.monotonic(), what))
        self.counts[what] += 1

    def kill_supervisor(self) -> None:
        """Kill the supervisor; another comes after a pause."""
        assert self.colony.process
        self.colony.process.kill()
        self.note(f"kill supervisor {self.colony.process.pid}")
        self.supervisor_fell()

    def supervisor_fell(self) -> None:
        """The supervisor is dead: have it started again."""
        self.launched = None
        self.supervisor.fell(self.fifos())
        self.follow_ups.append((time.monotonic() + self.random.uniform(*_PAUSE), self.launch))

    def kill_keeper(self, pid: int) -> None:
        """Kill the keeper; the supervisor starts another."""
        assert self.colony.process
        # What it held is given to its own forebears: if the supervisor is none of them, an end may go unseen.
        if parent_of(pid) != self.colony.process.pid:
            self.gaps.append((time.monotonic(), time.monotonic() + _GAP_S))
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # it ended just now
        self.note(f"kill keeper {pid}")
        self.killed_keeper = pid
        self.keeper.fell(self.fifos())

    # what users do

    def write(self, player: Player, **more: object) -> None:
        """Write the config file of a player, with something in it that was not there before if `more` says so."""
        self.absent.discard(player.name)
        self.note(f"write {player.name} {more or ''}")
        self.colony.put(player.name, {**player.config, **more})

    def post(self, message: Mapping[str, Any]) -> None:
        """Send a message."""
        self.posted.append(self.colony.post(message))
        self.note(f"post {self.posted[-1]} {message}")

    def later(self, call: Callable[[], None]) -> None:
        """Do the other half of an action in a while."""
        self.follow_ups.append((time.monotonic() + self.random.uniform(0.05, 1.5), call))

    def follow_up(self, now: float) -> None:
        """Do what is due."""
        due = [call for when, call in self.follow_ups if when <= now]
        self.follow_ups = [one for one in self.follow_ups if one[0] > now]
        for call in due:
            call()

    def act(self) -> None:
        """Do one of the things that users do, to one process."""
        player = self.players[self.random.choice(sorted(self.players.keys() - self.absent))]
        name = player.name
        action = self.random.choices(
            ["change", "touch", "live", "restart", "stop", "remove", "group", "disable"], [3, 2, 1, 5, 4, 4, 0.4, 1]
        )[0]
        self.counts["actions"] += 1
        self.note(f"{action} {name}")
        if action == "change":
            self.write(player, storm=next(self.changes))
        elif action == "touch":
            os.utime(self.colony.config / name)
        elif action == "live":
            self.write(player, jitter=next(self.changes) % 10 / 10)
        elif action == "restart":
            self.post({"type": "RESTART", "name": name})
        elif action == "stop":
            self.post({"type": "STOP", "name": name})
            self.later(lambda: self.post({"type": "START", "name": name}))
        elif action == "remove":
            self.read_history()
            self.colony.remove(name)
            self.absent.add(name)
            self.later(lambda: self.write(player))
        elif action == "group":
            self.post({"type": "RESTART-GROUP", "group": player.config["group"][0]})
        elif action == "disable":
            self.write(player, enabled=False)
            self.later(lambda: self.write(player))

    # what is seen meanwhile

    def read_history(self) -> None:
        """Collect the records of exits before they are too old to be kept."""
        for name in self.players:
            path = self.colony.state / "history" / name
            try:
                stat = path.stat()
                if self.history_seen.get(name) == (stat.st_mtime_ns, stat.st_size):
                    continue
                lines = path.read_bytes().split(b"\n")
            except FileNotFoundError:
                continue
            self.history_seen[name] = stat.st_mtime_ns, stat.st_size
            present: Counter[str] = Counter()
            for line in lines:
                if not line:
                    continue
                try:
                    record = json.loads(line)
                    identity = record["id"]
                except (ValueError, KeyError):
                    self.fault(f"history/{name} holds {line[:200]!r}")
                    continue
                present[identity] += 1
                del record["lines"]
                known = self.history[name].setdefault(identity, record)
                if known["code"] != record["code"] or known["signal"] != record["signal"]:
                    self.changed_mind[name, identity] = f"recorded {known} and then {record}"
            self.recorded_twice |= {(name, identity) for identity, times in present.items() if times > 1}

    # the end

    def settle(self) -> None:
        """No more kills: everything that should run does so, and everything that runs is known."""
        self.follow_up(float("inf"))
        for player in self.players.values():
            self.write(player)
            self.post({"type": "START", "name": player.name})
        until = time.monotonic() + _PATIENCE_S
        strangers: dict[int, str] | None = None
        wrong = {"not looked at": ""}
        while (strangers is None or strangers or wrong) and time.monotonic() < until:
            self.look()
            self.follow_up(float("inf"))
            self.read_history()
            now = self.strangers()
            # What is short-lived may have been born just now: lost is what nobody knows for long.
            strangers = now if strangers is None else {pid: text for pid, text in strangers.items() if pid in now}
            wrong = self.wrong()
            time.sleep(0.1)
        for pid, text in (strangers or {}).items():
            self.counts["lost instances"] += 1
            self.fault(f"alive and unknown to the supervisor at the end: {pid} {text}")
        for name, text in itertools.islice(wrong.items(), _SHOWN_FAULTS):
            self.fault(f"not settled {_PATIENCE_S:g} s after the last kill: {name}: {text}")

    def strangers(self) -> dict[int, str]:
        """Live processes that are nobody's tree."""
        process = self.colony.process
        return self.colony.strangers([process.pid if process else 0, self.keeper_pid() or 0])

    def wrong(self) -> dict[str, str]:
        """What is not as it should be, by the name of a process or a message."""
        found = {}
        for player in self.players.values():
            status = self.colony.status(player.name)
            if status is None:
                found[player.name] = "no status"
            elif player.lasts and not (status["state"] == "RUNNING" and status["pid"] and is_alive(status["pid"])):
                found[player.name] = str(status)
            elif player.lasts and (text := self.pid_file(player.name)) != f"{status['pid']}\n":
                found[player.name] = f"PID file {text!r}, status {status}"
            elif status["wanted"] != "up":
                found[player.name] = str(status)
        for name in self.posted:
            answer = self.colony.answer(name)
            if answer is None or answer["state"] == "accepted":
                found[f"message {name}"] = f"answer {answer}"
        return found

    def pid_file(self, name: str) -> str:
        """What is in a PID file."""
        try:
            return (self.pids / name).read_text(encoding="ascii")
        except FileNotFoundError:
            return ""

    def stop(self) -> None:
        """SIGTERM: exit code 0, and nothing is left, neither processes nor what is on disk about them."""
        colony = self.colony
        try:
            os.kill(colony.supervisor_pid, signal.SIGTERM)
            colony.wait_for(self.has_ended, "the supervisor has exited", timeout=60)
            if code := colony.wait_for_exit():
                self.fault(f"the supervisor ended with {code} after SIGTERM")
        except (AssertionError, ProcessLookupError) as error:
            self.fault(f"SIGTERM did not end the supervisor: {error}")
        self.read_history()
        self.note("the colony was stopped")
        for pid, command in colony.processes().items():
            self.counts["left behind"] += 1
            self.fault(f"left behind: {pid} {command}")
        for folder in ("instances", "fifo", "config"):
            path = colony.state / folder
            for name in sorted(os.listdir(path)) if path.is_dir() else []:
                self.fault(f"left behind: {folder}/{name} in the state directory")
        for name in sorted(os.listdir(self.pids)) if self.pids.is_dir() else []:
            self.fault(f"left behind: PID file {name}")
        self.end_all()

    def has_ended(self) -> bool:
        """Whether the supervisor has exited; meanwhile orphans are still reaped."""
        self.reap()
        assert self.colony.process
        return self.colony.process.poll() is not None

    def end_all(self) -> None:
        """Leave no process, however it went."""
        self.colony.kill_everything(self.reap)
        set_subreaper(False)
        self.diary.close()

    # the verdict

    def both_down(self) -> list[tuple[float, float]]:
        """The times in which nobody held the FIFOs."""
        for half in (self.supervisor, self.keeper):
            half.rose()
        pairs = itertools.product(self.supervisor.times, self.keeper.times)
        times = [(max(one[0], other[0]), min(one[1], other[1])) for one, other in pairs]
        return [(begin, end) for begin, end in times if begin < end]

    def verdict(self) -> Verdict:
        """Read the witnesses and compare."""
        windows = self.both_down()

        def allowed(instance: judge.Instance) -> bool:
            begin, end = instance.end
            return any(begin <= later and earlier <= end for earlier, later in windows)

        def allowed_exit(instance: judge.Instance) -> bool:
            begin, end = instance.end
            return allowed(instance) or any(begin <= later and earlier <= end for earlier, later in self.gaps)

        notes = self.colony.notes_directory
        testimonies = {name: judge.Testimony(name, notes / name) for name in self.players}
        logs, own = Counter[str](), Counter[str]()
        exits: Counter[str] | None = None
        faults, counts = list(self.faults), self.counts.copy()
        in_logs, in_own = {}, {}
        for name, testimony in testimonies.items():
            counts += testimony.counts
            counts["lines"] += testimony.written
            counts["instances"] += len(testimony.instances)
            faults += testimony.faults
            kind = self.players[name].kind
            in_logs[name] = judge.Reading(f"logs/{name}", kind, testimony)
            in_logs[name].read_stream(self.colony.output(name))
            in_own[name] = judge.Reading(f"log, {name}", kind, testimony)
        judge.read_own_log(self.colony.log_file, in_own)
        # What is in one of the two was read once: that it is not in the other is never allowed.
        for place, other, total in ((in_logs, in_own, logs), (in_own, in_logs, own)):
            for name, reading in place.items():
                reading.finish(allowed, other[name])
                total += reading.counts
                faults += reading.faults
        if (self.colony.state / "history").is_dir():
            counts["recorded twice"] = len(self.recorded_twice)
            faults += [Fault(f"exits: {name}, instance {one}, is recorded twice") for name, one in self.recorded_twice]
            faults += [Fault(f"exits: {name}: {text}") for (name, _), text in self.changed_mind.items()]
            exits = Counter()
            for name, testimony in testimonies.items():
                more, wrong = judge.judge_exits(testimony, {"TERM", "KILL"}, self.history[name], allowed_exit)
                exits += more
                faults += wrong
        return Verdict(counts, sum(end - begin for begin, end in windows), logs, own, exits, faults)

    def describe(self, fault: Fault) -> Iterator[str]:
        """A fault, its time, and the kills that were near."""
        if fault.at is None:
            yield fault.text
            return
        yield f"{fault.at - self.began:.3f} {fault.text}"
        near = [f"{what} at {at - self.began:.3f}" for at, what in self.kills if abs(at - fault.at) < _NEAR_S]
        yield f"    kills near: {', '.join(near) or 'none'}"


@dataclass
class Verdict:
    """What came of it. `exits` is None when the product keeps no history."""

    counts: Counter[str]
    both_dead_s: float
    logs: Counter[str]
    own: Counter[str]
    exits: Counter[str] | None
    faults: list[Fault]

    def table(self) -> str:
        """The count, for people."""
        counts, exits = self.counts, self.exits
        kills = sum(counts[what] for what in KILLS)

        def of_exits(key: str) -> object:
            return "n/a" if exits is None else exits[key]

        rows: list[tuple[str, object, object]] = [
            ("kills", kills, ", ".join(f"{what} {counts[what]}" for what in KILLS)),
            ("both were dead for", f"{self.both_dead_s:.1f} s", ""),
            ("starts", counts["instances"], f"and {counts['supervisors']} of the supervisor"),
            ("user actions", counts["actions"], ""),
            ("duplicates", counts["duplicates"], f"descendants left over {counts['leftovers']}"),
            ("lost instances", counts["lost instances"], f"left behind at the end {counts['left behind']}"),
            ("exits: unknown", of_exits("unknown"), f"allowed (no witness lived) {of_exits('unknown, allowed')}"),
            (
                "exits: wrong",
                of_exits("wrong"),
                f"unrecorded {of_exits('unrecorded')}, twice {counts['recorded twice']}",
            ),
            ("lines written", counts["lines"], ""),
            ("", "in logs/", "in the supervisor's log"),
            *((f"lines {key}", self.logs[key], self.own[key]) for key in judge.COUNTERS),
        ]
        return "\n".join(f"{first:<22}{second!s:>12}  {third}".rstrip() for first, second, third in rows)


def main() -> int:
    """Run one storm and print what came of it; the exit code."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = int(os.environ.get("SEED") or secrets.randbelow(10**6))
    root = Path(tempfile.mkdtemp(prefix="storm-"))
    print(
        f"storm of {seconds:g} s, SEED={seed}, Linux {platform.release()}, {os.cpu_count()} cores, {root}", flush=True
    )
    storm = Storm(root, seed, lambda text: print(text, flush=True))
    try:
        storm.run(seconds)
    finally:
        storm.end_all()
    verdict = storm.verdict()
    print(verdict.table())
    if not verdict.faults:
        shutil.rmtree(root)
        return 0
    lines = [list(storm.describe(fault)) for fault in verdict.faults]
    (root / "faults").write_text("".join(f"{line}\n" for block in lines for line in block), encoding="utf-8")
    print(f"\n{len(lines)} faults; all of them in {root}/faults, everything else beside it")
    for block in lines[:_SHOWN_FAULTS]:
        print("\n".join(block))
    return 1


if __name__ == "__main__":
    sys.exit(main())
