"""`shutdown`: asked of a supervisor, of its keeper when there is no supervisor, or of nobody."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ctl_colony import PATIENCE_S, Colony, wait_for

from ncolony import ctllib
from ncolony.keeper.wire import PROTOCOL, Unpacker, pack

NOBODY = "cannot shut down: neither supervisor nor keeper runs for these directories"


class Keeper:
    """What a keeper is to its peers: a lock, a socket, and the answers it is told to give."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.lock = open(state / "keeper.lock", "w")  # noqa: SIM115  # closed by end()
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.listener: socket.socket | None = None
        self.said: list[dict[str, Any]] = []

    def listen(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        directory = os.open(self.state, os.O_RDONLY)
        self.listener.bind(f"/proc/self/fd/{directory}/keeper.sock")
        os.close(directory)
        self.listener.listen()

    def meet(self) -> socket.socket:
        """Wait for a peer and its hello."""
        assert self.listener is not None
        self.listener.settimeout(PATIENCE_S)
        peer, _ = self.listener.accept()
        peer.settimeout(PATIENCE_S)
        self.unpacker = Unpacker()
        self.hear(peer)
        return peer

    def hear(self, peer: socket.socket) -> None:
        """Wait for something that the peer says."""
        before = len(self.said)
        while len(self.said) == before:
            self.said += self.unpacker.feed(peer.recv(1 << 16))

    def serve(self, *reports: dict[str, Any], meanwhile: Callable[[], object] = bool) -> None:
        """Meet a peer as a keeper does, end on its word, and say the reports before hanging up."""
        with self.meet() as peer:
            peer.sendall(pack({"is": "welcome", "protocol": PROTOCOL, "pid": os.getpid(), "held": []}))
            self.hear(peer)
            meanwhile()
            for report in reports:
                peer.sendall(pack(report))
            self.end()

    def end(self) -> None:
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        self.lock.close()


@pytest.fixture
def keeper(colony: Colony) -> Iterator[Keeper]:
    """A keeper that listens."""
    (colony.state / "lock").touch()
    found = Keeper(colony.state)
    found.listen()
    yield found
    found.end()


def refused(colony: Colony, *words: str) -> str:
    """The only line that the failed command says."""
    ran = colony.run("shutdown", *words)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert os.listdir(colony.messages) == []
    (line,) = ran.stderr.splitlines()
    return line


def test_a_supervisor_gets_a_message(colony: Colony) -> None:
    """With a supervisor it is a message like any other, and its id is returned."""
    with colony.supervised():
        message_id = ctllib.shutdown(colony.places, state=colony.state)
        assert os.listdir(colony.messages) == [message_id]
        assert colony.only_message() == {"type": "SHUTDOWN"}
        (colony.messages / message_id).unlink()
        ran = colony.run("shutdown")
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
        assert colony.only_message() == {"type": "SHUTDOWN"}


def test_nobody_gets_no_message(colony: Colony) -> None:
    """With nobody to ask it is an error, and no message waits to end the next supervisor."""
    assert refused(colony) == refused(colony, "--wait") == NOBODY
    (colony.state / "lock").touch()
    (colony.state / "keeper.lock").touch()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(colony.state / "keeper.sock"))
    dead.close()
    assert refused(colony) == NOBODY
    colony.options[-1] = str(colony.root / "nowhere")
    assert refused(colony) == NOBODY


def test_a_keeper_without_supervisor_is_asked(colony: Colony, keeper: Keeper) -> None:
    """The keeper is greeted and told to shut down, and the command returns when it has hung up."""
    ended: list[float] = []
    held = {"is": "exited", "id": "x", "end": {"code": 0}}
    with colony.meanwhile(lambda: keeper.serve(held, {"is": "leaving"}, meanwhile=lambda: ended.append(time.time()))):
        assert ctllib.shutdown(colony.places, state=colony.state) == ""
    assert time.time() >= ended[0]
    assert [message["do"] for message in keeper.said] == ["hello", "shutdown"]
    assert keeper.said[0]["protocol"] == PROTOCOL
    assert os.listdir(colony.messages) == []
    assert refused(colony) == NOBODY


def test_the_command_ends_a_keeper_too(colony: Colony, keeper: Keeper) -> None:
    """`shutdown` and `shutdown --wait` are silent when it is done."""
    with colony.meanwhile(lambda: keeper.serve({"is": "leaving"})):
        ran = colony.run("shutdown", "--wait", "30")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_no_supervisor_starts_meanwhile(colony: Colony, keeper: Keeper) -> None:
    """While the keeper ends, a supervisor's lock cannot be had; and nobody is told that one runs."""

    def look() -> None:
        with open(colony.state / "lock") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert ctllib.supervisor(colony.places, state=colony.state) is None

    with colony.meanwhile(lambda: keeper.serve({"is": "leaving"}, meanwhile=look)):
        ctllib.shutdown(colony.places, state=colony.state)
    with open(colony.state / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_two_that_ask_the_keeper_do_not_disturb_each_other(colony: Colony, keeper: Keeper) -> None:
    """The second waits for the first and sees it done, or comes when nothing is left; the keeper is asked once."""
    second: list[str] = []

    def ask_too() -> None:
        try:
            second.append(ctllib.shutdown(colony.places, state=colony.state))
        except ctllib.NotThere as late:
            second.append(str(late))

    other = threading.Thread(target=ask_too)
    with colony.meanwhile(lambda: keeper.serve({"is": "leaving"}, meanwhile=other.start)):
        ctllib.shutdown(colony.places, state=colony.state)
    other.join(PATIENCE_S)
    assert second[0] in ("", NOBODY)
    assert [message["do"] for message in keeper.said] == ["hello", "shutdown"]


def test_a_state_directory_with_a_long_path(tmp_path: Path) -> None:
    """A socket's path may have 107 bytes; the state directory's may have more."""
    root = tmp_path / ("deep" * 30) / "root"
    root.mkdir(parents=True)
    colony = Colony(root)
    (colony.state / "lock").touch()
    keeper = Keeper(colony.state)
    keeper.listen()
    with colony.meanwhile(lambda: keeper.serve({"is": "leaving"})):
        assert ctllib.shutdown(colony.places, state=colony.state) == ""


def test_a_keeper_that_is_still_starting_is_waited_for(colony: Colony) -> None:
    """One that holds its lock but does not listen yet is met as soon as it does."""
    (colony.state / "lock").touch()
    keeper = Keeper(colony.state)

    def start() -> None:
        # The command holds its own lock while it tries to connect.
        wait_for(lambda: (colony.state / "shutdown.lock").exists() and is_locked(colony.state / "shutdown.lock"))
        keeper.listen()
        keeper.serve({"is": "leaving"})

    with colony.meanwhile(start):
        assert ctllib.shutdown(colony.places, state=colony.state) == ""


def is_locked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@pytest.mark.parametrize(
    ("stage", "why"),
    [
        ("deaf", "it takes no connection"),
        ("mute", "it does not answer"),
        ("slow", "it still waits for processes to end"),
    ],
)
def test_a_keeper_that_takes_too_long(colony: Colony, keeper: Keeper, stage: str, why: str) -> None:
    """After the seconds given it is an error that says how far the keeper came."""
    done = threading.Event()

    def act() -> None:
        with keeper.meet() as peer:
            if stage == "slow":
                peer.sendall(pack({"is": "welcome", "protocol": PROTOCOL, "pid": 1, "held": []}))
            done.wait(PATIENCE_S)

    if stage == "deaf":
        keeper.listener.close()  # type: ignore[union-attr]
    with colony.meanwhile(act) if stage != "deaf" else contextlib.nullcontext():
        try:
            assert refused(colony, "--wait=0.5") == f"cannot shut down: after 0.5 s the keeper has not ended: {why}"
        finally:
            done.set()


def test_a_keeper_that_dies_has_not_ended_everything(colony: Colony, keeper: Keeper) -> None:
    """A connection that breaks before the keeper said that it leaves is no success."""
    with colony.meanwhile(keeper.serve):
        assert refused(colony) == "cannot shut down: the keeper ended before everything else had"


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x01x"])
def test_a_keeper_that_talks_nonsense(colony: Colony, keeper: Keeper, data: bytes) -> None:
    """What does not speak the protocol is told as such."""

    def act() -> None:
        with keeper.meet() as peer:
            peer.sendall(data)
            peer.recv(1)

    with colony.meanwhile(act):
        assert "cannot reach the keeper: it speaks another language: " in refused(colony)


# --- waiting for a supervisor's end ---


def test_wait_lasts_until_the_supervisor_has_ended(colony: Colony) -> None:
    """An answer is not the end: the command returns when the supervisor's lock is free and no keeper is left."""
    with contextlib.ExitStack() as supervisor:
        supervisor.enter_context(colony.supervised())
        keeper = Keeper(colony.state)

        def act() -> None:
            (name,) = wait_for(lambda: [name for name in os.listdir(colony.messages) if name[-4:] != ".new"])
            colony.answer(name, state="done")
            (colony.messages / name).unlink()
            with pytest.raises(ctllib.TimedOut, match="after 0 s the supervisor has not ended"):
                ctllib.wait_for_shutdown(colony.places, name, 0, state=colony.state)
            keeper.end()
            supervisor.close()

        with colony.meanwhile(act):
            ran = colony.run("shutdown", "--wait")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_wait_gives_up(colony: Colony) -> None:
    """A supervisor that is still there after the seconds given is an error; the message stays its own affair."""
    with colony.supervised():
        ran = colony.run("shutdown", "--wait", "0.01")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "cannot shut down: after 0.01 s the supervisor has not ended\n"
    assert colony.only_message() == {"type": "SHUTDOWN"}


def test_wait_tells_of_a_refusal(colony: Colony) -> None:
    """A supervisor that cannot do it says why."""
    with colony.supervised(), colony.answering(accepted=False, state="failed", why="no such type"):
        ran = colony.run("shutdown", "--wait")
    assert (ran.returncode, ran.stderr) == (1, "cannot shut down: no such type\n")


@pytest.mark.parametrize("taken", [True, False])
def test_a_supervisor_that_is_killed_meanwhile(colony: Colony, taken: bool) -> None:
    """When it dies, having taken the message or not, its keeper is asked, and no message is left for the next one."""
    keeper = Keeper(colony.state)
    keeper.listen()
    with contextlib.ExitStack() as supervisor:
        supervisor.enter_context(colony.supervised())
        message_id = ctllib.shutdown(colony.places, state=colony.state)
    if taken:
        (colony.messages / message_id).unlink()
    with colony.meanwhile(lambda: keeper.serve({"is": "leaving"})):
        ctllib.wait_for_shutdown(colony.places, message_id, PATIENCE_S, state=colony.state)
    assert [message["do"] for message in keeper.said] == ["hello", "shutdown"]
    assert os.listdir(colony.messages) == []


def test_a_message_that_nobody_took_is_withdrawn(colony: Colony) -> None:
    """When supervisor and keeper both died before they took it, waiting is an error, and the message is gone."""
    with colony.supervised():
        message_id = ctllib.shutdown(colony.places, state=colony.state)
    assert json.loads((colony.messages / message_id).read_bytes()) == {"type": "SHUTDOWN"}
    with pytest.raises(ctllib.NotThere, match="neither supervisor nor keeper"):
        ctllib.wait_for_shutdown(colony.places, message_id, PATIENCE_S, state=colony.state)
    assert os.listdir(colony.messages) == []
