"""A supervisor in the midst of garbage: in every file that it reads, and in what its keeper reports."""

from __future__ import annotations

import json
import os
import socket
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzzing import CONTROL, Descriptors, Scratch, files_in, lay_out
from twisted.internet.task import Clock
from twisted.logger import globalLogBeginner, textFileLogObserver

from ncolony.decide.restart import Policy
from ncolony.model.names import problem_with_name
from ncolony.supervisor import Settings, Supervisor, loop
from ncolony.supervisor.replacing import Replacing
from ncolony.system.hands import Hands

# The name of a process that nothing was said about, and what shows in the end that the supervisor works.
_FRESH = "zz-fresh"
_DEFAULTS = Policy(1.0, 1.0, 3600.0, 0.1, "always", (0,), ((15, 5.0),), "tree")
_LONGEST_INPUT_LINES = 30
_failures: list[str] = []
# Closing what watches directories takes longer than all the rest; every directory is looked at again and again here.
os.environ["NCOLONY_WITHOUT"] = "inotify"


def _keep_failures(event: dict[str, Any]) -> None:
    if "log_failure" in event:
        _failures.append(event["log_failure"].getTraceback())


# Our own log has to be a file: then what was said of processes' output is looked for in it.
_log_file = tempfile.NamedTemporaryFile("w+", prefix="ncolony-fuzz-", encoding="utf-8")  # noqa: SIM115
_observers = [_keep_failures, textFileLogObserver(_log_file)]
globalLogBeginner.beginLoggingTo(_observers, redirectStandardIO=False, discardBuffer=True)


class _Reactor(Clock):
    """A clock that is turned by hand; what is readable is looked at by hand too."""

    def __init__(self) -> None:
        super().__init__()
        self.is_stopped = False
        self.hooks: list[Callable[[], None]] = []

    def callWhenRunning(self, call: Callable[[], None]) -> None:  # noqa: N802
        self.hooks.append(call)

    def stop(self) -> None:
        self.is_stopped = True

    def ignore(self, *_: object) -> None:
        """Nothing is watched."""

    addReader = removeReader = addWriter = removeWriter = addSystemEventTrigger = ignore  # noqa: N815


class _Hands(Hands):
    """Hands whose keeper is the test."""

    theirs: socket.socket | None = None

    def _find(self) -> socket.socket:
        if self.theirs is not None:
            self.theirs.close()
        ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.pid = os.getpid()
        return ours


class _Supervisor(Supervisor):
    """Without what concerns the whole process that it runs in."""

    def _handle_signals(self) -> None:
        pass


class _Replacing(Replacing):
    """Nothing is executed in our place."""

    def begin(self, file_name: str | None = None) -> None:
        self._stay(file_name, "this is a test")


loop.Hands, loop.Replacing = _Hands, _Replacing  # type: ignore[misc]


class Colony:
    """A supervisor on the files below `root`, and the keeper's end of its socket."""

    def __init__(self, root: Path) -> None:
        self.root, self.reactor = root, _Reactor()
        settings = Settings(
            config=f"{root}/config", messages=f"{root}/messages", state=f"{root}/state", logs=None, log_budget=1 << 20,
            pids=f"{root}/pids", frequency=10.0, linger=None, cgroup=None, strict=False, policy=_DEFAULTS,
        )  # fmt: skip
        self.supervisor: Any = _Supervisor(self.reactor, settings)
        self.orders: list[dict[str, Any]] = []
        self.rest = b""

    def begin(self) -> None:
        self.supervisor.startService()
        for hook in self.reactor.hooks:
            hook()
        assert not self.supervisor._failed, _failures
        self.turn()

    def turn(self, seconds: float = 0.0) -> None:
        """Let what is due happen, and hear what the supervisor orders."""
        self.reactor.advance(seconds)
        hands = self.supervisor.hands
        try:
            self.rest += hands.theirs.recv(1 << 20)
        except OSError:
            return
        while len(self.rest) >= 4:
            (length,) = struct.unpack("!I", self.rest[:4])
            if len(self.rest) < 4 + length:
                break
            self.orders.append(json.loads(self.rest[4 : 4 + length]))
            self.rest = self.rest[4 + length :]

    def report(self, body: bytes) -> None:
        """Say something as the keeper."""
        hands = self.supervisor.hands
        if not hands.connected:
            return
        try:
            hands.theirs.sendall(struct.pack("!I", len(body)) + body)
        except OSError:
            return
        hands.doRead()
        for seconds in (0.0, 0.05, 0.6):
            self.turn(seconds)

    def say(self, **message: Any) -> None:
        self.report(json.dumps(message).encode())

    def newest(self) -> str:
        """The identity in the newest order to start something."""
        return next((order["id"] for order in reversed(self.orders) if order["do"] == "start"), "none")

    def is_over(self) -> bool:
        return self.reactor.is_stopped or self.supervisor.quitting or self.supervisor.hands.leaving

    def close(self) -> None:
        found = self.supervisor
        for close in (lambda: found._watcher.close(), lambda: found.hands.theirs.close()):
            try:
                close()
            except AttributeError:
                pass  # it has not come so far
        if getattr(found, "hands", None) is not None and found.hands._peer is not None:
            found.hands._peer.close()


def one(data: bytes) -> None:
    """Whatever files there are and whatever the keeper said, a new process is started, and its end is recorded.

    The section `keeper` of the input holds reports, one a line, in which @ID@ stands for the newest instance. The
    section `log` is what was in our own log before.
    """
    _failures.clear()
    about = os.fstat(_log_file.fileno())
    data = data.replace(b"@DEVICE@", b"%d" % about.st_dev).replace(b"@INODE@", b"%d" % about.st_ino)
    files = files_in(data)
    _log_file.truncate(0)
    os.pwrite(_log_file.fileno(), next((content for name, content in files if name == "log"), b""), 0)
    before = _log_file.seek(0, os.SEEK_END)
    reports = [line for name, content in files if name == "keeper" for line in content.split(b"\n") if line]
    with Scratch() as root, Descriptors():
        for name in ("config", "messages", "state"):
            (root / name).mkdir()
        lay_out(root, [(name, content) for name, content in files if _may_be(name)])
        colony = Colony(root)
        try:
            colony.begin()
            for line in reports[:_LONGEST_INPUT_LINES]:
                colony.report(line.replace(b"@ID@", colony.newest().encode()).replace(b"@CODE@", _code(colony)))
                if colony.is_over():
                    return
            _check_health(colony)
            _check_log(before)
        finally:
            colony.close()


def _may_be(name: str) -> bool:
    """Whether there may be a file of that name: what is named for processes is written by supervisors alone."""
    directory, _, process = name.rstrip("/").rpartition("/")
    is_ours = directory in ("state/forwarded", "state/history", "state/previous")
    return name not in ("keeper", "log") and not (is_ours and problem_with_name(process))


def _code(colony: Colony) -> bytes:
    code: str = colony.supervisor.hands._code
    return code.encode()


def _check_log(before: int) -> None:
    """What was logged, but for tracebacks, harms no terminal."""
    _log_file.flush()
    logged = os.pread(_log_file.fileno(), 1 << 20, min(before, os.fstat(_log_file.fileno()).st_size))
    assert (found := CONTROL.search(logged.decode("utf-8", "backslashreplace"))) is None, found


def _check_health(colony: Colony) -> None:
    """Be a good keeper, and see a process through its life."""
    hands = colony.supervisor.hands
    # However the last one spoke, it is gone now.
    hands._lost()
    for _ in range(5):
        colony.turn(6.0)
    assert hands.connected, _failures
    colony.say(**{"is": "welcome", "protocol": 2, "pid": os.getpid(), "code": hands._code, "vanished": [], "held": []})
    if colony.is_over():
        return
    assert hands.agreed, _failures
    (colony.root / "config" / _FRESH).write_text('{"args": ["/bin/true"]}')
    colony.supervisor.guarded(colony.supervisor._scan)
    colony.turn(0.1)
    started = [order for order in colony.orders if order["do"] == "start" and order["name"] == _FRESH]
    assert started, (_failures, colony.orders[-3:])
    identity = started[0]["id"]
    colony.say(**{"is": "started", "id": identity, "pid": 1, "at": time.monotonic(), "began": 1})
    colony.turn(2.0)
    status = json.loads((colony.root / "state" / "status" / _FRESH).read_bytes())
    assert (status["state"], status["pid"]) == ("RUNNING", 1), (status, _failures)
    end = {"code": 0, "lived": 5.0, "at": time.time()}
    colony.say(**{"is": "exited", "id": identity, "end": end, "empty": True, "since": 0})
    colony.turn(2.0)
    history = (colony.root / "state" / "history" / _FRESH).read_bytes()
    assert identity.encode() in history, _failures
    assert {"do": "forget", "id": identity} in colony.orders, (colony.orders[-5:], _failures)
    status = json.loads((colony.root / "state" / "status" / _FRESH).read_bytes())
    assert status["instance"] == 2, (status, _failures)
