"""A keeper under test: a real one, held by a warden, and the supervisor's side of its socket.

The wire is spoken from its description (JSON behind its length in four bytes), not with the keeper's own code.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ncolony

KEEPER = Path(ncolony.__file__).parent / "keeper"
WARDEN = Path(__file__).with_name("warden.py")
PATIENCE_S = 10.0
PYTHON = [sys.executable, "-I", "-S", "-c"]
SLEEP = ["/bin/sleep", "1000"]
Message = dict[str, Any]
_T = TypeVar("_T")
_serial = itertools.count(1)


def wait_for(condition: Callable[[], _T | None], what: str) -> _T:
    """What `condition` returns once it is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it never came true: {what}"
        time.sleep(0.003)
    return found


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    return state_of(pid) not in ("", "Z", "X")


def state_of(pid: int) -> str:
    """The letter of the process's state, "" when it is gone."""
    fields = _stat(pid)
    return fields[0] if fields else ""


def start_time_of(pid: int) -> int:
    """When the process started, in ticks since boot."""
    return int(_stat(pid)[19])


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
    except OSError:
        return []


def children_of(pid: int) -> list[int]:
    """Pids of the process's children, zombies included."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += [int(word) for word in Path(f"/proc/{pid}/task/{thread}/children").read_bytes().split()]
    except OSError:
        pass  # it ended meanwhile
    return found


def descendants_of(pid: int) -> list[int]:
    """Everything below the process, zombies included."""
    found = [pid]
    for each in found:
        found += children_of(each)
    return found[1:]


def exit_status_is_known() -> bool:
    """Whether the kernel tells the exit status of a process that is not our child (Linux 6.15)."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor.partition("-")[0])) >= (6, 15)


class Line:
    """A connection to the keeper. What it says is kept until a test takes it with `wait_for`."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.heard: list[Message] = []
        self.descriptors: list[int] = []  # that came along, in the order of what is "kept"
        self._rest = b""

    def say(self, do: str, **fields: object) -> None:
        """Send an order."""
        self.peer.sendall(self.frame({"do": do, **fields}))

    @staticmethod
    def frame(message: object) -> bytes:
        """The bytes of one message."""
        body = json.dumps(message).encode()
        return struct.pack("!I", len(body)) + body

    def listen(self) -> None:
        """Wait until the keeper says something more, and keep it. Raises ConnectionResetError when it hung up."""
        self.peer.settimeout(PATIENCE_S)
        data, given, _, _ = socket.recv_fds(self.peer, 1 << 18, 8)
        self.descriptors += given
        if not data:
            raise ConnectionResetError("the keeper hung up")
        self._rest += data
        while len(self._rest) >= 4:
            (length,) = struct.unpack("!I", self._rest[:4])
            if len(self._rest) < 4 + length:
                break
            self.heard.append(json.loads(self._rest[4 : 4 + length]))
            self._rest = self._rest[4 + length :]

    def wait_for(self, kind: str, **fields: object) -> Message:
        """The first message of that kind with these fields, which is then taken."""
        while True:
            for message in self.heard:
                if message["is"] == kind and all(message.get(key) == value for key, value in fields.items()):
                    self.heard.remove(message)
                    return message
            self.listen()

    def hello(self, **fields: object) -> dict[str, Message]:
        """Resynchronise; the instances that are held, by identity."""
        self.say("hello", protocol=1, **fields)
        return {instance["id"]: instance for instance in self.wait_for("welcome")["held"]}

    def barrier(self) -> None:
        """Wait until every order sent before this was carried out: a start without FIFO is refused at once."""
        identity = f"barrier-{next(_serial)}"
        self.say("start", id=identity, name="barrier", number=1, path="/", argv=["/"], env={}, cwd="/", umask=0)
        self.wait_for("refused", id=identity)

    def hung_up(self) -> bool:
        """Wait until the keeper has closed the connection."""
        try:
            while True:
                self.listen()
        except (ConnectionResetError, BrokenPipeError):
            return True

    def close(self) -> None:
        """Be a supervisor that died."""
        self.peer.close()
        while self.descriptors:
            os.close(self.descriptors.pop())


class Bench:
    """One state directory, its keepers one after another, and everything they started."""

    def __init__(self, root: Path) -> None:
        self.root, self.state, self.logs = root, root / "state", root / "logs"
        for directory in (self.state, self.state / "fifo", self.state / "notify", self.logs):
            directory.mkdir(parents=True)
        self.gate = root / "gate"
        os.mkfifo(self.gate)
        self.complaints_expected = False
        self.fifos: dict[str, int] = {}
        self.lines: list[Line] = []
        self.pid = 0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-I", "-S", str(WARDEN), str(theirs.fileno())]
            self.warden = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
        self._warden_line = ours

    # keepers

    def start_keeper(self, budget: int = 64 << 20) -> Line:
        """Start a keeper with us as its supervisor, and say hello; the connection."""
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-I", "-S", "-X", "utf8", str(KEEPER), str(self.state), str(self.logs), str(budget)]
        with theirs:
            self.pid = self.run([*command, "code", "peer=3"], self.state / "keeper.log", theirs.fileno())
        self.lines.append(Line(ours))
        return self.lines[-1]

    def run(self, command: Sequence[str], log: Path, *given: int) -> int:
        """Run a program under the warden, with one descriptor of ours as its number 3; its pid."""
        return self._ask({"run": list(command), "log": str(log)}, *given)

    def stop_reaping(self) -> None:
        """From now on nobody takes the exits of what a dead keeper left behind."""
        self._ask({"hold": True})

    def _ask(self, order: Message, *given: int) -> int:
        socket.send_fds(self._warden_line, [json.dumps(order).encode()], given)
        return int(self._warden_line.recv(100))

    def kill_keeper(self) -> None:
        """SIGKILL the keeper and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        wait_for(lambda: state_of(self.pid) == "", "the keeper is gone")

    def call(self) -> Line:
        """Connect to the running keeper, as a later supervisor does."""
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        wait_for((self.state / "keeper.sock").exists, "the keeper listens")
        directory = os.open(self.state, os.O_RDONLY | os.O_DIRECTORY)
        peer.connect(f"/proc/self/fd/{directory}/keeper.sock")
        os.close(directory)
        self.lines.append(Line(peer))
        return self.lines[-1]

    # instances

    def order(self, argv: Sequence[str], identity: str | None = None, **fields: object) -> Message:
        """A start order, its FIFO made and held as a supervisor does it."""
        identity = identity or self.new_identity()
        self.make_fifo(identity)
        return {
            "do": "start",
            "id": identity,
            "name": identity,
            "number": 1,
            "path": argv[0],
            "argv": list(argv),
            "env": {"NCOLONY_INSTANCE": identity},
            "cwd": "/",
            "umask": 0o22,
            **fields,
        }

    @staticmethod
    def new_identity() -> str:
        """One that no other test uses: keepers find instances by it in the environment of every process here."""
        return f"i{secrets.token_hex(6)}"

    def make_fifo(self, identity: str) -> None:
        """Make the FIFO of an instance and hold it."""
        os.mkfifo(self.fifo(identity), 0o600)
        self.fifos[identity] = os.open(self.fifo(identity), os.O_RDWR | os.O_NONBLOCK)

    def start(self, line: Line, argv: Sequence[str], **fields: object) -> tuple[str, int]:
        """Start an instance; its identity and pid."""
        order = self.order(argv, **fields)  # type: ignore[arg-type]
        line.say(**order)
        started = line.wait_for("started", id=order["id"])
        return order["id"], started["pid"]

    def waiting_at_gate(self, then: str) -> list[str]:
        """A shell that does something once the test has opened the gate."""
        return ["/bin/sh", "-c", f"read x < {self.gate}; {then}"]

    def open_gate(self) -> None:
        """Let the one that waits at the gate go on; waits until it is there."""
        self.gate.write_text("go\n")

    def fifo(self, identity: str) -> Path:
        return self.state / "fifo" / identity

    def journal(self, identity: str) -> Path:
        return self.state / "instances" / identity

    def record(self, identity: str) -> list[Message]:
        """The lines of an instance's journal file."""
        return [json.loads(line) for line in self.journal(identity).read_text().splitlines()]

    def rewrite(self, identity: str, lines: Sequence[Message]) -> None:
        """Write an instance's journal file by hand."""
        self.journal(identity).parent.mkdir(exist_ok=True)
        self.journal(identity).write_text("".join(json.dumps(line) + "\n" for line in lines))

    def wait_for_text(self, path: Path) -> str:
        """The content of a file that a payload writes whole by renaming it."""
        wait_for(path.exists, f"{path.name} is written")
        return path.read_text()

    # output

    def files(self, name: str) -> list[Path]:
        """The files of a log, oldest first."""
        directory = self.logs / name
        current = [directory / "current"] if (directory / "current").exists() else []
        return sorted(directory.glob("*.log"), key=lambda path: int(path.stem)) + current

    def output(self, name: str) -> bytes:
        """What is kept of a process's output. Only to be asked while nothing rotates."""
        return b"".join(path.read_bytes() for path in self.files(name))

    def waiting(self, identity: str) -> int:
        """Bytes in an instance's FIFO."""
        answer = fcntl.ioctl(self.fifos[identity], termios.FIONREAD, b"\0\0\0\0")
        return int(struct.unpack("i", answer)[0])

    def is_full(self, identity: str) -> bool:
        """Whether nothing more fits into the FIFO."""
        return not select.select([], [self.fifos[identity]], [], 0)[1]

    # the end

    def complaints(self) -> str:
        """What keepers wrote to their stderr."""
        log = self.state / "keeper.log"
        return log.read_text() if log.exists() else ""

    def close(self) -> None:
        """End the keeper and everything it started; fail when a keeper fell over something."""
        try:
            self._end_descendants()
        finally:
            self._warden_line.close()
            self.warden.kill()
            self.warden.wait()
            for line in self.lines:
                line.close()
            for descriptor in self.fifos.values():
                os.close(descriptor)
        if not self.complaints_expected:
            assert "Traceback" not in self.complaints(), self.complaints()

    def _end_descendants(self) -> None:
        self._ask({"hold": False})

        def none_is_left() -> bool:
            left = descendants_of(self.warden.pid)
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # it ended by itself
            return not left

        wait_for(none_is_left, "nothing is left under the warden")
