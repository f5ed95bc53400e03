"""The keeper's socket and the locks: who can connect, who is believed, who can keep others out.

`test_another_user_cannot_connect`, `test_the_peers_user_is_asked_for` (should the mode of the socket ever be lost),
`test_a_socket_of_another_user_is_not_obeyed`, `test_garbage_and_floods`, `test_nobody_else_can_hold_the_locks`,
`test_who_holds_the_lock_that_shows_deceives_only_others`.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest
from people import ALICE, MALLORY, become, needs_root, python, run_as

from colony import SLEEP, Colony

pytestmark = needs_root
BASE = {"args": [SLEEP, "100000"]}
CONNECT = """
import socket, struct
peer = socket.socket(socket.AF_UNIX)
peer.settimeout(30)
peer.connect(sys.argv[1])
body = b'{"do": "hello", "protocol": 1}'
peer.sendall(struct.pack("!I", len(body)) + body)
print(len(peer.recv(1 << 16)))
"""


@pytest.fixture
def running(open_colony: Colony) -> Iterator[Colony]:
    open_colony.put("web", BASE)
    open_colony.start()
    open_colony.wait_until_running("web")
    yield open_colony
    assert open_colony.wait_until_running("web", instance=1)


def test_another_user_cannot_connect(running: Colony) -> None:
    """The socket's mode lets nobody in but the supervisor's user."""
    done = run_as(MALLORY, CONNECT, running.state / "keeper.sock")
    assert "PermissionError" in done.stderr


def test_the_peers_user_is_asked_for(running: Colony) -> None:
    """Were the socket open to all, the keeper would hang up on another user at once, and go on with its supervisor."""
    (running.state / "keeper.sock").chmod(0o666)
    done = run_as(MALLORY, CONNECT, running.state / "keeper.sock")
    assert done.stdout == "0\n" or "ConnectionResetError" in done.stderr or "BrokenPipeError" in done.stderr
    assert running.send({"type": "SCAN"})["state"] == "done"


def test_a_socket_of_another_user_is_not_obeyed(open_colony: Colony) -> None:
    """A supervisor that finds another user's process at its keeper's socket starts a keeper of its own."""
    open_colony.state.mkdir()
    script = """
import socket
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
peer, _ = listener.accept()
print(len(peer.recv(100)), flush=True)
"""
    place = open_colony.root / "place"
    place.mkdir()
    os.chown(place, MALLORY, MALLORY)
    command = [*become(MALLORY), python(), "-I", "-S", "-c", "import sys\n" + script, str(place / "s")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as fake:
        assert fake.stdout and fake.stdout.readline() == "ready\n"
        os.rename(place / "s", open_colony.state / "keeper.sock")
        open_colony.put("web", BASE)
        open_colony.start()
        open_colony.wait_until_running("web")
        assert fake.stdout.readline() == "0\n"


def test_garbage_and_floods(running: Colony) -> None:
    """Nonsense, half messages, silence and hundreds of connections leave the keeper and what runs as they were."""
    keeper = running.keeper_pid()
    path = str(running.state / "keeper.sock")
    bodies = [b"\xff" * 100, b"[" * 50_000, b'"text"', b'{"do": "no such thing"}', b'{"do": "leave"}', b"{}"]
    sent = [struct.pack("!I", len(body)) + body for body in bodies]
    for data in (*sent, struct.pack("!I", 0xFFFFFFFF), struct.pack("!I", 100) + b"{", b"\0", b""):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(path)
            peer.sendall(data)
    silent = []
    for _ in range(300):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(path)
        silent.append(peer)
    for peer in silent:
        peer.close()
    assert running.send({"type": "SCAN"})["state"] == "done"
    assert running.send({"type": "SIGNAL", "name": "web", "signal": "WINCH"})["state"] == "done"
    assert running.keeper_pid() == keeper


def test_nobody_else_can_hold_the_locks(running: Colony) -> None:
    """Another user cannot open the locks that decide, and so can keep neither supervisor nor keeper from starting."""
    script = """
import fcntl
for name in ("supervisor.lock", "keeper.lock"):
    try:
        fcntl.flock(os.open(f"{sys.argv[1]}/{name}", os.O_RDONLY), fcntl.LOCK_SH)
        print("held", name)
    except PermissionError:
        pass
"""
    running.kill()
    done = run_as(MALLORY, script, running.state)
    assert (done.returncode, done.stdout) == (0, "")
    running.start()


def test_who_holds_the_lock_that_shows_deceives_only_others(open_colony: Colony) -> None:
    """Another user may hold the lock that shows a supervisor; its own user is told the truth, with one and without."""
    script = """
import fcntl, time
lock = os.open(f"{sys.argv[1]}/lock", os.O_RDONLY)
fcntl.flock(lock, fcntl.LOCK_SH if sys.argv[2] == "shared" else fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
    open_colony.start()
    open_colony.stop()

    def holding(how: str) -> subprocess.Popen[str]:
        command = [*become(ALICE), python(), "-I", "-S", "-c", "import os, sys\n" + script]
        return subprocess.Popen(
            [*command, str(open_colony.state), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    places = ["--state", str(open_colony.state), "status"]
    command = [sys.executable, "-m", "ncolony", "ctl", *open_colony.ctl_places(), *places]
    for how, expected in (("exclusive", 3), ("shared", 0)):
        with holding(how) as other:
            assert other.stdout and other.stdin and other.stdout.readline() == "held\n"
            if how == "shared":
                open_colony.start()
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == expected, done
            other.stdin.close()
    # And once nobody holds it, everybody is told.
    descriptor = os.open(open_colony.state / "lock", os.O_RDONLY)
    os.kill(open_colony.supervisor_pid, signal.SIGHUP)
    try:

        def is_shown() -> bool:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.kill(open_colony.supervisor_pid, signal.SIGHUP)
            return False

        open_colony.wait_for(is_shown, "the supervisor holds it")
    finally:
        os.close(descriptor)
    assert json.loads((open_colony.state / "supervisor.json").read_text())["pid"] == open_colony.supervisor_pid
