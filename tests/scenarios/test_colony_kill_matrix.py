"""Supervisor, keeper or both are killed at every point that the code names, in every operation that passes it.

A scenario performs its operations one after another on one colony. For each the point is armed, the operation begun,
the kill awaited, a supervisor started where it was killed, and the operation must come about all the same. In the end
the witnesses' notes (see witness.py) are compared with what the colony wrote: output, its log, exits, and no leavings.
"""

from __future__ import annotations

import ctypes
import gzip
import itertools
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import ncolony
import witness
from colony import Colony, arguments_of, is_alive, put_whole

WITNESS = Path(witness.__file__)
SOURCE = Path(ncolony.__file__).parent
TIMEOUT_S = 15.0
PR_SET_CHILD_SUBREAPER = 36
VICTIMS = {"supervisor": {"supervisor"}, "keeper": {"keeper"}, "both": {"supervisor", "keeper"}}
# Delays that cost no time; and KILL comes too late to end what TERM was to end.
OPTIONS = ("-m", "0.01", "-M", "0.05", "-t", "0.005", "-k", "60")
# Longer than the kernel takes as a string of an environment: the instance finds its configuration in a file.
PADDING = "x" * 140_000

STARTS = "start fall restart"
STOPS = "stop restart remove end"
EXITS = "fall stop restart remove end"
TALKS = "talk fall stop remove"
REQUESTS = "stop restart signal upgrade shutdown"
# Every point, and the operations that pass it: methods of `Scene`.
MATRIX = {
    "spawn.named": STARTS,
    "spawn.fifo": STARTS,
    "spawn.ordered": STARTS,
    "start.ordered": STARTS,
    "socket.opened": "start",
    "start.intent": STARTS,
    "notify.bound": STARTS,
    "start.furnished": STARTS,
    "kept.arrived": STARTS,
    "start.spawned": STARTS,
    "start.recorded": STARTS,
    "started.told": STARTS,
    "ready.heard": STARTS,
    "ready.noted": STARTS,
    "said.told": STARTS,
    "signal.before": STOPS,
    "signal.ordered": STOPS,
    "signal.sent": STOPS,
    "exit.seen": EXITS,
    "exit.noted": EXITS,
    "exit.reaped": EXITS,
    "exit.told": EXITS,
    "exited.told": EXITS,
    "exited.decided": EXITS,
    "exited.recorded": EXITS,
    "forget.before": EXITS,
    "forget.ordered": EXITS,
    "forget.done": EXITS,
    "message.read": REQUESTS,
    "message.acted": REQUESTS,
    "removed.noticed": "remove",
    "output.moved": TALKS,
    "forward.noted": TALKS,
    "forward.said": TALKS,
    "forward.committed": TALKS,
    "rotate.full": TALKS,
    "rotate.log": TALKS,
    "rotate.index": TALKS,
    "file.noted": TALKS,
    "file.written": TALKS,
    "file.committed": TALKS,
    "file.shifted": TALKS,
    "compress.made": TALKS,
    "compress.named": TALKS,
    "upgrade.tried": "upgrade renew",
    "upgrade.execute": "upgrade renew",
    "upgrade.ordered": "renew",
    "supervisor.locked": "first next upgrade renew",
    "supervisor.begun": "first next upgrade renew",
    "keeper.begun": "first heir renew",
    "keeper.adopted": "first heir renew",
    "leave": "end",
}
# These come from output alone. Nothing else prints then, so that the operation itself is what passes them.
QUIET = ("output.", "forward.", "rotate.", "file.", "compress.")
# Where what is printed goes to files of its own too, and where more than fits into one is printed.
OWN_FILES = ("file.", "compress.")
LOUD = ("rotate.", "file.shifted", "compress.")
# At these instances are given a socket to listen on and one to say that they are ready, which they have to.
GIVEN = ("socket.", "notify.", "start.furnished", "kept.", "ready.", "said.")
# At these an instance has ended, or may have, but how it ended and its last words are not on disk yet: with both killed
# nobody is left who knows.
ENDED_UNSEEN = ("signal.sent", "exit.seen")
ENDED_UNHEARD = ("signal.sent", "exit.seen", "exit.noted", "exit.reaped")
# Only a keeper's own children pass these, not what it has adopted: each operation has an instance started for it.
OF_CHILDREN = ("exit.seen", "exit.noted", "exit.reaped")
# The process that an operation is about.
ABOUT = {
    "start": "started",
    "fall": "fallen",
    "stop": "stopped",
    "restart": "restarted",
    "remove": "removed",
    "signal": "signalled",
    "talk": "talking",
    "end": "ended",
}


@dataclass
class Instance:
    """One instance by its own account."""

    pid: int
    identity: str
    said: list[int] = field(default_factory=list)
    code: int | None = None
    ended: float = 0.0


def instances_in(notes: list[str]) -> list[Instance]:
    """The instances of a process, from the notes of its witnesses."""
    instances: list[Instance] = []
    for word, *rest in (note.split() for note in notes):
        if word == "up":
            instances.append(Instance(int(rest[0]), rest[1]))
        elif word == "said":
            instances[-1].said.append(int(rest[0]))
        elif word == "exit":
            instances[-1].code, instances[-1].ended = int(rest[0]), float(rest[1])
    return instances


class Scene:
    """One colony, the point at which somebody is killed, and the operations.

    An operation is a generator: it prepares, yields until it is armed, begins, yields until the kill has happened and
    there is a supervisor again, then waits until what it began has come about.
    """

    def __init__(self, colony: Colony, point: str, victims: set[str], operations: list[str]) -> None:
        self.colony, self.point, self.victims = colony, point, victims
        self.kills, self.pids = colony.root / "kills", colony.root / "pids"
        self.kills.mkdir()
        self.env = {**os.environ, "NCOLONY_KILL_AT": str(self.kills)}
        self.quiet = point.startswith(QUIET)
        self.count = 60 if point.startswith(LOUD) else 3
        self.own = colony.root / "own"
        self.own.mkdir()
        self.doors = colony.root / "doors"
        self.doors.mkdir()
        self.expected: dict[str, int] = {}  # how many instances of each process there must be
        self.gone: set[str] = set()  # names that do not run any more
        self.unattended: list[tuple[float, float]] = []  # since when nobody lived, until when
        self.over = False
        if "renew" in operations:
            self.installed = colony.root / "installed"
            shutil.copytree(SOURCE, self.installed / "ncolony")
            self.env["PYTHONPATH"] = str(self.installed)
        if not self.quiet:
            self.put("steady")
        if point not in OF_CHILDREN:
            for operation in operations:
                if operation in ABOUT and operation != "start":
                    self.put(ABOUT[operation])

    # the colony

    def put(self, name: str) -> None:
        """Have a witness run."""
        period = 0.02 if name == "steady" else 0
        args = [sys.executable, "-I", "-S", str(WITNESS), str(self.colony.notes_directory), name, str(self.count)]
        config: dict[str, Any] = {"args": [*args, str(period)], "log": {"max_bytes": 4096, "keep": 1000}}
        if not self.quiet:
            config["log"]["stderr"] = True  # a second pipe, and a second log, of which nothing must be left over either
        if self.point.startswith(OWN_FILES):
            config["log"] |= {"stdout": str(self.own / name), "compress": self.point.startswith("compress.")}
        if self.point.startswith(GIVEN):
            config["sockets"] = {"door": f"unix:{self.doors / name}"}
            config["ready"] = {"notify": True}
            # Only with both dead nobody hears it, and it has to be said again.
            config["env"] = {"SAY_IT_AGAIN": "1"} if self.victims == VICTIMS["both"] else {}
        if name != "steady":
            config["padding"] = PADDING
        self.expected[name] = 1
        self.colony.put(name, config)

    def launch(self, armed: str = "") -> None:
        """Start a supervisor; with `armed` its start is armed: $$ in it stands for its pid."""
        prefix = ["/bin/sh", "-c", f'echo "{armed}" > "$0"; exec "$@"', str(self.kills / self.point)]
        self.colony.launch("--pid", str(self.pids), *OPTIONS, env=self.env, prefix=prefix if armed else ())

    @property
    def supervisor(self) -> int:
        """The supervisor's pid."""
        assert self.colony.process
        return self.colony.process.pid

    def find_keeper(self) -> int | None:
        """The keeper's pid, once the supervisor has agreed with it about what runs."""
        about = self.colony.supervisor()
        if about is None or about["pid"] != self.supervisor or not about["keeper"]:
            return None
        return int(about["keeper"]) if is_alive(about["keeper"]) else None

    def wait_for_keeper(self) -> int:
        """The same, waited for."""
        return int(self.wait_for(self.find_keeper, "the supervisor has a keeper"))

    def wait_for(self, predicate: Any, what: str) -> Any:
        """As the colony's, with all the evidence there is."""

        def reap_and_look() -> Any:
            self.reap_orphans()
            return predicate()

        try:
            return self.colony.wait_for(reap_and_look, what, TIMEOUT_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.evidence()}") from None

    def reap_orphans(self) -> None:
        """What loses its parent becomes our child, and is reaped at once: not every PID 1 hurries with that."""
        children = {int(pid) for task in Path("/proc/self/task").iterdir() for pid in read(task / "children").split()}
        for pid in children - {self.supervisor if self.colony.process else 0}:
            os.waitpid(pid, os.WNOHANG)

    def wait_for_exit(self) -> None:
        """Wait until the supervisor has ended, with 0."""
        self.wait_for(self.colony.has_exited, "the supervisor has exited")
        assert self.colony.wait_for_exit() == 0, f"{self.colony.evidence()}\n{self.evidence()}"

    def evidence(self) -> str:
        """What the keeper and the witnesses say."""
        parts = [f"keeper.log: {read(self.colony.state / 'keeper.log')}"]
        for name in sorted(self.expected):
            notes = [note for note in self.colony.notes(name) if not note.startswith("said")]
            parts.append(f"{name}: {notes}, said {len(self.colony.notes(name, 'said'))}")
            parts.append(f"  history: {read(self.colony.state / 'history' / name)}")
        for directory in ("instances", "fifo", "answers"):
            paths = sorted((self.colony.state / directory).glob("*"))
            parts += [f"{directory}/{path.name}: {read(path) if path.is_file() else ''}" for path in paths]
        return "\n".join(parts)

    # what is true of a process

    def runs(self, name: str) -> int | None:
        """The pid of a process that runs by its own account, its status and its PID file."""
        status, pids = self.colony.status(name), self.colony.pids(name)
        if not status or status["state"] != "RUNNING" or not pids or status["pid"] != pids[-1]:
            return None
        has_said = len(instances_in(self.colony.notes(name))[-1].said) >= self.count
        return pids[-1] if has_said and is_alive(pids[-1]) and read(self.pids / name) == f"{pids[-1]}\n" else None

    def wait_until_up(self, name: str, former: int = 0) -> int:
        """The pid of an instance that runs and is not the former one."""

        def is_up() -> int | None:
            pid = self.runs(name)
            return pid if pid != former else None

        pid = self.wait_for(is_up, f"{name} runs")
        assert isinstance(pid, int)
        return pid

    def wait_until_done(self, message: str) -> None:
        """Wait for the answer to a message, which must be that it is done."""
        assert self.wait_for_answer(message) == "done", self.colony.answer(message)

    def wait_for_answer(self, message: str) -> str:
        """The last word about a message."""

        def state() -> str | None:
            answer = self.colony.answer(message)
            return answer["state"] if answer and answer["state"] != "accepted" else None

        return str(self.wait_for(state, f"message {message} is answered"))

    # killing

    def name_victims(self, supervisor: str, keeper: str) -> str:
        """What to write into the point's file."""
        chosen = {"supervisor": supervisor, "keeper": keeper}
        # The supervisor first: "0" means whoever reads it.
        return " ".join(chosen[victim] for victim in sorted(self.victims, reverse=True))

    def arm(self, keeper: str = "") -> None:
        """Have them killed when the point is reached, once earlier output has passed it."""
        keeper = keeper or str(self.wait_for_keeper())
        if self.quiet:
            names = [name for name in self.expected if name not in self.gone]
            self.wait_for(lambda: all(map(self.is_forwarded, names)), "all output is forwarded")
        put_whole(self.kills, self.point, self.name_victims(str(self.supervisor), keeper).encode())

    def is_forwarded(self, name: str) -> bool:
        return self.colony.output(name).count(b"\n") == len(self.colony.lines(name))

    def perform(self, operation: str) -> None:
        """One operation, and the kill amid it."""
        if operation != "start" and ABOUT.get(operation, "steady") not in self.expected:
            self.put(ABOUT[operation])
        course = getattr(self, operation)()
        if next(course) is None:
            self.arm()
        next(course)
        reached = self.kills / f"{self.point}.reached"
        self.wait_for(reached.exists, f"{self.point} is reached in {operation}")
        since = reached.stat().st_ctime
        assert self.colony.process
        if "supervisor" in self.victims:
            self.colony.process.wait(TIMEOUT_S)
            assert self.colony.process.returncode == -signal.SIGKILL
            reached.unlink()
            self.launch()
            self.wait_for(lambda: self.find_keeper() or self.colony.has_exited(), "the next supervisor has a keeper")
        else:
            reached.unlink()
        if self.victims == VICTIMS["both"]:
            # What ends at the same time may have ended just before, and no keeper has got round to it.
            self.unattended.append((since - (1.0 if self.quiet or operation == "end" else 0.2), time.time()))
        assert next(course, None) is None

    # operations

    def start(self) -> Iterator[bool | None]:
        """A file appears, and its process runs."""
        yield None
        self.put("started")
        yield None
        self.wait_until_up("started")

    def fall(self) -> Iterator[bool | None]:
        """An instance ends by itself, and there is another."""
        pid = self.wait_until_up("fallen")
        yield None
        os.kill(pid, signal.SIGUSR1)
        yield None
        self.expected["fallen"] += 1
        self.wait_until_up("fallen", pid)

    def restart(self) -> Iterator[bool | None]:
        """A process is restarted by message."""
        pid = self.wait_until_up("restarted")
        yield None
        message = self.colony.post({"type": "RESTART", "name": "restarted"})
        yield None
        self.expected["restarted"] += 1
        self.wait_until_done(message)
        self.wait_until_up("restarted", pid)

    def stop(self) -> Iterator[bool | None]:
        """A process is stopped by message."""
        pid = self.wait_until_up("stopped")
        yield None
        message = self.colony.post({"type": "STOP", "name": "stopped"})
        yield None
        self.gone.add("stopped")
        self.wait_until_done(message)
        assert not is_alive(pid)
        self.wait_for(lambda: is_stopped(self.colony.status("stopped")), "its status says so")

    def remove(self) -> Iterator[bool | None]:
        """A file is removed, and its process is gone, with its status."""
        pid = self.wait_until_up("removed")
        yield None
        self.colony.remove("removed")
        yield None
        self.gone.add("removed")
        self.wait_for(lambda: "removed" not in self.colony.known() and not is_alive(pid), "it is gone")

    def signal(self) -> Iterator[bool | None]:
        """A process is sent a signal by message."""
        self.wait_until_up("signalled")
        yield None
        message = self.colony.post({"type": "SIGNAL", "name": "signalled", "signal": "USR2"})
        yield None
        self.wait_until_done(message)
        self.wait_for(lambda: self.colony.notes("signalled", "asked"), "it has got the signal")

    def talk(self) -> Iterator[bool | None]:
        """A process prints something."""
        pid = self.wait_until_up("talking")
        said = len(self.colony.notes("talking", "said"))
        yield None
        os.kill(pid, signal.SIGUSR2)
        yield None
        self.wait_for(lambda: len(self.colony.notes("talking", "said")) == said + self.count, "it has printed")

    def end(self) -> Iterator[bool | None]:
        """The colony is ended; where its supervisor is killed amid that, the next one has it run again."""
        self.wait_until_all_is_up()
        yield None
        os.kill(self.supervisor, signal.SIGTERM)
        yield None
        if "supervisor" in self.victims:
            self.expected = dict.fromkeys(self.expected, 0)  # some were stopped, some not
            self.wait_until_all_is_up()
        else:
            self.wait_for_exit()
            self.over = True

    def shutdown(self) -> Iterator[bool | None]:
        """The colony is ended by message, also by the next supervisor."""
        self.wait_until_all_is_up()
        yield None
        message = self.colony.post({"type": "SHUTDOWN"})
        yield None
        self.wait_for_exit()
        self.over = True
        self.wait_until_done(message)

    def upgrade(self) -> Iterator[bool | None]:
        """The supervisor becomes the installed version; where it is killed amid that, the next one says so."""
        self.wait_until_all_is_up()
        yield None
        message = self.colony.post({"type": "UPGRADE"})
        yield None
        answer = self.wait_for_answer(message)
        assert answer == "done" or (answer == "failed" and "supervisor" in self.victims), self.colony.answer(message)
        self.wait_for_keeper()

    def renew(self) -> Iterator[bool | None]:
        """The same, and the keeper becomes another version too."""
        self.wait_until_all_is_up()
        keeper = self.wait_for_keeper()
        code = code_of(keeper)
        yield None
        with (self.installed / "ncolony" / "keeper" / "wire.py").open("a") as source:
            source.write("# another version\n")
        message = self.colony.post({"type": "UPGRADE"})
        yield None
        answer = self.wait_for_answer(message)
        assert answer == "done" or (answer == "failed" and "supervisor" in self.victims), self.colony.answer(message)
        self.wait_for(lambda: code_of(self.find_keeper() or 0) not in ("", code), "the keeper is of the new version")
        if "keeper" not in self.victims:
            assert self.find_keeper() == keeper

    def first(self) -> Iterator[bool | None]:
        """The colony's first supervisor starts, and its first keeper."""
        yield False
        self.launch(armed=self.name_victims("$$", "0"))
        yield None
        self.wait_until_all_is_up()

    def next(self) -> Iterator[bool | None]:
        """A supervisor follows one that was killed."""
        self.wait_until_all_is_up()
        keeper = self.wait_for_keeper()
        yield False
        self.colony.kill()
        self.launch(armed=self.name_victims("$$", str(keeper)))
        yield None
        self.wait_until_all_is_up()

    def heir(self) -> Iterator[bool | None]:
        """A keeper follows one that was killed."""
        self.wait_until_all_is_up()
        keeper = self.wait_for_keeper()
        yield False
        self.arm(keeper="0")  # the process that reaches the point, which leads its group
        os.kill(keeper, signal.SIGKILL)
        yield None
        self.wait_until_all_is_up()

    def wait_until_all_is_up(self) -> None:
        """Wait until everything runs that is to run."""
        for name in self.expected.keys() - self.gone:
            self.wait_until_up(name)

    # the end

    def finish(self) -> None:
        """End the colony cleanly, unless that was the last operation."""
        if not self.over:
            self.wait_until_all_is_up()
            known = {(self.colony.status(name) or {}).get("pid") for name in self.colony.known()}
            running = {pid for pid, text in self.colony.processes().items() if "/witness.py" in text}
            assert running <= known, f"unknown: {running - known}\n{self.colony.evidence()}\n{self.evidence()}"
            os.kill(self.supervisor, signal.SIGTERM)
            self.wait_for_exit()
        self.reap_orphans()
        assert not self.colony.processes(), f"{self.colony.evidence()}\n{self.evidence()}"

    def faults(self) -> list[str]:
        """Everything that is not as it must be, after the end."""
        found = [f"left over: {path}" for path in self.leavings()]
        for name in self.expected:
            instances = instances_in(self.colony.notes(name))
            found += self.colony.notes(name, "fault")
            found += [f"{name}: pid {one.pid} never exited" for one in instances if one.code is None]
            if len(instances) != self.expected[name] > 0:
                found.append(f"{name}: {len(instances)} instances where {self.expected[name]} were to be")
            found += [f"{name}: {fault}" for fault in self.faults_of_output(name, instances)]
            found += [f"{name}: {fault}" for fault in self.faults_of_history(name, instances)]
        if len(self.colony.notes("signalled", "asked")) > 1:
            found.append("a signal was sent more than once")
        for path in (self.colony.log_file, self.colony.state / "keeper.log"):
            if "Traceback" in (text := read(path)):
                found.append(f"{path.name}: {text[text.index('Traceback') :][:3000]}")
        return found

    def leavings(self) -> list[Path]:
        """Files that stand for something that runs, of which there is nothing."""
        state = self.colony.state
        directories = [state / name for name in ("fifo", "instances", "config", "notify")]
        directories += [self.pids, self.colony.messages, self.doors]
        found = [path for directory in directories for path in directory.iterdir()]
        found += [state / "status" / "removed"] if (state / "status" / "removed").exists() else []
        return found + ([state / "supervisor.json"] if (state / "supervisor.json").exists() else [])

    def ended_unattended(self, one: Instance, unseen: tuple[str, ...]) -> bool:
        """Whether nobody can know of its end: both were dead then, or died at a point before they took note of it."""
        margin = 1.0 if self.point in unseen else 0.0
        return any(since - margin <= one.ended <= until for since, until in self.unattended)

    def faults_of_output(self, name: str, instances: list[Instance]) -> Iterator[str]:
        """Every line exactly once and in order, in the kept output and in the supervisor's log."""
        kept = self.colony.output(name).decode().splitlines()
        at = 0
        for one in instances:
            said = [witness.line(name, number).decode().rstrip("\n") for number in one.said]
            here = kept[at : at + len(said)]
            pairs = zip(said, here, strict=False)
            there = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            at += there
            if there < len(said) and not self.ended_unattended(one, ENDED_UNHEARD):
                yield f"after {there} lines of pid {one.pid}, which said {ranges(said)}, comes {ranges(kept[at:])}"
        if at < len(kept):
            yield f"what nobody said, or only once: {ranges(kept[at:])}"
        if (logged := self.colony.lines(name)) != kept:
            yield f"the log has {ranges(logged)}, where the kept output has {ranges(kept)}"
        if self.point.startswith(OWN_FILES) and (written := self.written(name)) != kept:
            yield f"its own file has {ranges(written)}, where the kept output has {ranges(kept)}"

    def written(self, name: str) -> list[str]:
        """The lines in the files of a process's own, oldest first."""
        found = {int(path.name.split(".")[1]): path for path in self.own.glob(f"{name}.[0-9]*")}
        data = b"".join(
            gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            for _, path in sorted(found.items(), reverse=True)
        )
        return (data + (self.own / name).read_bytes()).decode().splitlines()

    def faults_of_history(self, name: str, instances: list[Instance]) -> Iterator[str]:
        """Every exit exactly once, with its code."""
        records = [json.loads(line) for line in read(self.colony.state / "history" / name).splitlines()]
        for one in instances:
            ends = [
                (record["pid"], record["code"], record["signal"]) for record in records if record["id"] == one.identity
            ]
            if ends == [(one.pid, one.code, None)]:
                continue
            if not (ends == [(one.pid, None, None)] and self.ended_unattended(one, ENDED_UNSEEN)):
                yield f"pid {one.pid}, which exited with {one.code}, is recorded as {ends}"
        heard_of = {one.identity for one in instances}
        for record in records:
            if record["id"] not in heard_of:
                yield f"nobody heard of {record | {'lines': ()}}"


def ranges(lines: list[str]) -> str:
    """The numbers of lines, such as "1-5 4-9": short enough to be read."""
    found: list[list[int]] = []
    for line in lines:
        number = int([*line.split(), "0", "0"][1])
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return " ".join(f"{first}-{last}" for first, last in found) or "nothing"


def is_stopped(status: dict[str, Any] | None) -> bool:
    return status is not None and (status["state"], status["wanted"], status["pid"]) == ("STOPPED", "down", None)


def code_of(keeper: int) -> str:
    """The version with which a keeper was started."""
    arguments = arguments_of(keeper)
    place = next((at for at, argument in enumerate(arguments) if os.path.basename(argument) == "keeper"), None)
    return "" if place is None else arguments[place + 4]


def read(path: Path) -> str:
    """The text of a file, none when there is no such file."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


@pytest.fixture
def foster_parent() -> Iterator[None]:
    """Make this process the one to which orphans go."""
    library = ctypes.CDLL(None)
    library.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    library.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.mark.usefixtures("foster_parent")
@pytest.mark.parametrize("victims", VICTIMS)
@pytest.mark.parametrize("point", MATRIX)
def test_killed_at(colony: Colony, point: str, victims: str) -> None:
    """Whoever is killed, what was asked for comes about, once, and nothing is lost, doubled, unknown or left over."""
    operations = MATRIX[point].split()
    if point.startswith("supervisor.") and victims != "supervisor":
        operations.remove("first")  # there is no keeper yet, or nobody knows its pid
    scene = Scene(colony, point, VICTIMS[victims], operations)
    if operations[0] != "first":
        scene.launch()
    for operation in operations:
        scene.perform(operation)
    scene.finish()
    faults = scene.faults()
    assert not faults, "\n".join([*faults[:20], colony.evidence(), scene.evidence()])


def test_every_point_is_in_the_matrix() -> None:
    """No point that the code names is forgotten here, and none is here that the code does not name."""
    text = "\n".join(path.read_text() for path in SOURCE.rglob("*.py") if path.name != "kernel.py")
    named = [re.sub(r"\\{.*?\\}", ".+", re.escape(point)) for point in re.findall(r'\breach\(f?"([^"]+)"\)', text)]
    assert len(named) == len(re.findall(r"\breach\(", text))
    for pattern in named:
        assert any(re.fullmatch(pattern, point) for point in MATRIX), pattern
    for point in MATRIX:
        assert any(re.fullmatch(pattern, point) for pattern in named), point
