"""The keeper's client: a keeper is always there, or about to be."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from desk import Desk

from ncolony.system.hands import Hands, Identities

Message = dict[str, Any]


class Grip:
    """Directories of a colony, and hands that hold its keeper."""

    def __init__(self, desk: Desk, root: Path) -> None:
        self.desk, self.state, self.logs = desk, root / "state", root / "logs"
        for directory in (self.state, self.state / "fifo", self.logs):
            directory.mkdir(parents=True)
        self.said: list[Message] = []
        self.started: list[int] = []  # keepers, which are our children
        self.hands = self.another()
        self.identities = Identities()

    def another(self) -> Hands:
        """The hands of a next supervisor."""
        self.hands = Hands(self.desk.reactor, str(self.state), str(self.logs), 1 << 20, self.said.extend)
        return self.hands

    def connect(self) -> int:
        """Connect and wait for the welcome; the keeper's pid."""
        self.hands.connect()
        return self.welcome()["pid"]  # type: ignore[no-any-return]

    def welcome(self) -> Message:
        """Wait until a keeper says welcome."""
        message = self.wait_for("welcome")
        if message["pid"] not in self.started:
            self.started.append(message["pid"])
        return message

    def wait_for(self, kind: str) -> Message:
        """The next message of that kind, which is then taken."""

        def find() -> Message | None:
            return next((message for message in self.said if message["is"] == kind), None)

        found: Message = self.desk.until(find, f"{kind} is said, not only {self.said}")
        self.said.remove(found)
        return found

    def start(self, *argv: str, **fields: object) -> tuple[str, int]:
        """Start an instance; its identity and pid."""
        identity = f"{os.getpid():x}-{self.identities.new()}"
        env = {"NCOLONY_INSTANCE": identity}
        order = {"name": "web", "number": 1, "path": argv[0], "argv": argv, "env": env, "cwd": "/", "umask": 0o22}
        self.hands.start(identity, {**order, "uid": None, "gid": None, "groups": None, **fields})
        self.hands.flush()
        return identity, self.wait_for("started")["pid"]

    def end(self, identity: str) -> Message:
        """KILL an instance and wait for its end."""
        self.hands.signal(identity, signal.SIGKILL, "tree", False)
        self.hands.flush()
        return self.wait_for("exited")

    def kill_keeper(self, pid: int) -> None:
        """SIGKILL a keeper of ours, and reap it."""
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.started.remove(pid)

    def close(self) -> None:
        """End every instance, then the keeper."""
        self.said.clear()
        if not self.hands.connected:
            self.another().connect()
        else:
            self.hands.order({"do": "hello"})
            self.hands.flush()
        for held in self.welcome()["held"]:
            self.hands.signal(held["id"], signal.SIGKILL, "tree", False)
            self.hands.flush()
            self.desk.until(partial(self._is_empty, held["id"]), "its tree is empty")
            self.hands.forget(held["id"])
        self.hands.leave()
        self.wait_for("lost")
        for pid in self.started:
            os.waitpid(pid, 0)

    def _is_empty(self, identity: str) -> bool:
        self.hands.order({"do": "hello"})
        self.hands.flush()
        held = {instance["id"]: instance["empty"] for instance in self.welcome()["held"]}
        return bool(held[identity])


@pytest.fixture
def grip(desk: Desk, tmp_path: Path) -> Iterator[Grip]:
    """Hands that are not yet connected; at the end nothing runs."""
    found = Grip(desk, tmp_path)
    before = set(os.listdir("/proc/self/fd"))
    yield found
    found.close()
    left = set(os.listdir("/proc/self/fd")) - before
    assert len(left) <= 1, left  # the listing itself


def test_start_and_end(grip: Grip) -> None:
    """Without a keeper one is started; it is our child, in a session of its own, and carries out orders."""
    keeper = grip.connect()
    assert keeper == grip.hands.pid
    assert os.getsid(keeper) == keeper
    identity, pid = grip.start("/bin/sleep", "1000")
    assert grip.end(identity)["end"]["signal"] == signal.SIGKILL
    assert pid != keeper
    grip.hands.forget(identity)


def test_next_supervisor_finds_the_same_keeper(grip: Grip) -> None:
    """A supervisor that comes after another connects to the keeper that is there, and is told what it holds."""
    keeper = grip.connect()
    identity, pid = grip.start("/bin/sleep", "1000")
    first = grip.hands
    grip.another().connect()
    grip.wait_for("lost")  # the first one's connection is taken over
    first.leaving = True
    first.release(identity)
    welcome = grip.welcome()
    assert welcome["pid"] == keeper == grip.hands.pid
    assert [(held["id"], held["pid"]) for held in welcome["held"]] == [(identity, pid)]


def test_keeper_that_dies_is_followed_by_another(grip: Grip) -> None:
    """The death of the keeper is told as "lost"; soon another is there, which holds the same instances."""
    keeper = grip.connect()
    identity, pid = grip.start("/bin/sleep", "1000")
    grip.kill_keeper(keeper)
    grip.wait_for("lost")
    assert not grip.hands.connected
    welcome = grip.welcome()
    assert grip.hands.connected
    assert welcome["pid"] == grip.hands.pid != keeper
    assert [(held["id"], held["pid"], held["alive"]) for held in welcome["held"]] == [(identity, pid, True)]


def test_keepers_that_die_again_and_again(grip: Grip) -> None:
    """However many keepers die, the instance is the same and nothing else is told than lost and welcome."""
    keeper = grip.connect()
    _, pid = grip.start("/bin/sleep", "1000")
    for _ in range(4):
        grip.kill_keeper(keeper)
        grip.wait_for("lost")
        welcome = grip.welcome()
        keeper = welcome["pid"]
        assert [held["pid"] for held in welcome["held"]] == [pid]
    assert grip.said == []


def test_output_of_one_that_ends_while_no_keeper_lives(grip: Grip, tmp_path: Path) -> None:
    """We hold the FIFO, so what an instance wrote last reaches the log though it ended between two keepers."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    keeper = grip.connect()
    _, pid = grip.start("/bin/sh", "-c", f"read x < {gate}; echo last words")
    pidfd = os.pidfd_open(pid)
    grip.kill_keeper(keeper)
    gate.write_text("go\n")
    try:
        assert select.select([pidfd], [], [], 20)[0]
    finally:
        os.close(pidfd)
    grip.wait_for("lost")
    grip.welcome()
    grip.desk.until(lambda: (grip.logs / "web" / "current").exists(), "the log is there")
    assert (grip.logs / "web" / "current").read_bytes() == b"last words\n"


def test_orders_without_a_keeper_are_dropped(grip: Grip) -> None:
    """An order that no keeper hears is not kept for the next one, which is told everything anew."""
    keeper = grip.connect()
    identity, pid = grip.start("/bin/sleep", "1000")
    grip.kill_keeper(keeper)
    grip.wait_for("lost")
    grip.hands.signal(identity, signal.SIGKILL, "tree", False)
    grip.hands.flush()
    held = grip.welcome()["held"]
    assert [(one["pid"], one["alive"]) for one in held] == [(pid, True)]


def test_many_orders_at_once(grip: Grip) -> None:
    """More orders than a socket takes at once all arrive."""
    grip.connect()
    memo = "x" * 10_000
    for _ in range(200):
        identity = f"{os.getpid():x}-{grip.identities.new()}"
        order = {"name": "web", "number": 1, "path": "/nothing", "argv": ["x"], "env": {}, "cwd": "/", "umask": 0}
        grip.hands.start(identity, {**order, "memo": memo, "uid": None, "gid": None, "groups": None})
    grip.hands.flush()
    for _ in range(200):
        refused = grip.wait_for("refused")
        grip.hands.release(refused["id"])
    assert list((grip.state / "fifo").iterdir()) == []


def test_fifo_that_cannot_be_made(grip: Grip) -> None:
    """Where the FIFO cannot be made that is an OSError, and nothing is ordered or held."""
    grip.connect()
    (grip.state / "fifo").rmdir()
    with pytest.raises(OSError, match="No such file"):
        grip.hands.start("x", {"uid": None, "gid": None})
    (grip.state / "fifo").mkdir()


def test_leaving(grip: Grip) -> None:
    """A keeper that was asked to leave is not followed by another."""
    keeper = grip.connect()
    grip.hands.leave()
    grip.wait_for("lost")
    os.waitpid(keeper, 0)
    grip.started.remove(keeper)
    grip.desk.settle()
    assert grip.desk.reactor.getDelayedCalls() == []
    grip.another().connect()
    assert grip.welcome()["pid"] != keeper


def test_last_words_are_heard(grip: Grip) -> None:
    """What a keeper said before it ended is heard, also when that it has ended is noticed by an order to it."""
    pid = grip.connect()
    grip.hands.leave()
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    grip.hands.order({"do": "reopen"})
    grip.hands.flush()
    grip.wait_for("lost")
    assert [message["is"] for message in grip.said] == ["leaving"]


def test_keeper_has_nothing_of_ours(grip: Grip) -> None:
    """The keeper inherits no descriptor but its connection, and no environment."""
    leak = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        keeper = grip.connect()
        _, pid = grip.start("/bin/sleep", "1000")
        for process in (keeper, pid):
            for entry in os.listdir(f"/proc/{process}/fd"):
                with suppress(FileNotFoundError):  # closed meanwhile
                    assert os.readlink(f"/proc/{process}/fd/{entry}") != "/dev/zero"
        assert Path(f"/proc/{keeper}/environ").read_bytes() == b""
    finally:
        os.close(leak)


def test_identities() -> None:
    """Identities are different and sort by time."""
    identities = Identities()
    some = [identities.new() for _ in range(1000)]
    assert some == sorted(set(some))
