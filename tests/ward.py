"""A colony's directories without a supervisor: what one would write is written here, and checkers read it.

So every moment can be chosen, that of a kill above all. The lock that shows that there is a supervisor is really held.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from colony import put_whole
from ncolony.model.config import Definition, define


def wait_for(condition: Callable[[], Any], what: str, patience_s: float = 60, evidence: Callable[[], str] = str) -> Any:
    """What the condition returns once it is true. `evidence` is shown when it never is."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it never came true: {what}; {evidence()}"
        time.sleep(0.01)
    return found


class Ward:
    """Directories, statuses, and the checkers that look at them."""

    def __init__(self, root: Path) -> None:
        self.root, self.config, self.messages, self.state = root, root / "conf", root / "messages", root / "state"
        self.config.mkdir(parents=True, exist_ok=True)
        self.messages.mkdir(exist_ok=True)
        self.checkers: list[subprocess.Popen[bytes]] = []
        self.taken: list[dict[str, Any]] = []
        self.log = root / "checkers.log"
        self._lock = -1

    def supervise(self) -> None:
        """From now on there is a supervisor."""
        for name in ("status", "answers"):
            (self.state / name).mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.state / "supervisor.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def abandon(self) -> None:
        """The supervisor is gone; what it wrote stays."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def put(self, name: str, **keys: Any) -> dict[str, Any]:
        """A config file."""
        definition = {"args": ["true"], **keys}
        put_whole(self.config, name, json.dumps(definition).encode())
        return definition

    def digest(self, file: str) -> str:
        """What identifies the content of a config file."""
        found = define(file, (self.config / file).read_bytes())
        assert isinstance(found, Definition), found
        return found.digest

    def say(self, name: str, state: str = "RUNNING", instance: int = 1, **more: Any) -> None:
        """The status of a process."""
        file = more.get("file", name)
        record = {"name": name, "state": state, "wanted": "up", "pid": 4_000_000 + instance, "instance": instance}
        record |= {"since": time.time(), "started": time.time() - 1000, "file": file, "healthy": None}
        if "digest" not in more:
            record["digest"] = self.digest(file)
        put_whole(self.state / "status", name, json.dumps(record | more).encode())

    def command(self, program: str = "ncolony-check", *options: str) -> list[str]:
        return [
            *(sys.executable, "-m", "twisted", "--log-format=text", program),
            *("--messages", str(self.messages), "--config", str(self.config), "--state", str(self.state), *options),
        ]

    def check(self, program: str = "ncolony-check", *options: str, **env: str) -> subprocess.Popen[bytes]:
        """Start a checker."""
        with self.log.open("ab") as log:
            self.checkers.append(
                subprocess.Popen(
                    self.command(program, *options),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.root,
                    env={**os.environ, **env},
                )
            )
        return self.checkers[-1]

    def began(self) -> int:
        """How many checkers have begun."""
        return self.log.read_text().count("Starting reactor") if self.log.exists() else 0

    def said(self) -> list[str]:
        """What checkers logged, without times and Twisted's own lines."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.partition("] ")[2] for line in lines if "[ncolony.check#" in line]

    def waiting(self) -> dict[str, dict[str, Any]]:
        """The messages that wait, by their files' names, in order."""
        names = [name for name in os.listdir(self.messages) if not name.startswith(".")]
        found = {}
        for name in sorted(names, key=lambda one: ((self.messages / one).stat().st_mtime_ns, one)):
            found[name] = json.loads((self.messages / name).read_bytes())
        return found

    def take(self, count: int = 1, patience_s: float = 60) -> list[dict[str, Any]]:
        """Wait for so many messages and handle them as a supervisor would: an answer each, and they are gone."""
        wait_for(lambda: len(self.waiting()) >= count, f"{count} messages wait", patience_s, self.evidence)
        found = []
        for name, message in self.waiting().items():
            put_whole(self.state / "answers", name, b'{"accepted": true, "state": "done"}')
            (self.messages / name).unlink()
            found.append(message)
        self.taken += found
        return found

    def evidence(self) -> str:
        return f"messages {self.waiting()}, log {self.log.read_text() if self.log.exists() else ''}"

    def close(self) -> None:
        for checker in self.checkers:
            checker.kill()
            checker.wait()
        self.abandon()
        text = self.log.read_text() if self.log.exists() else ""
        assert "Traceback" not in text and "Unhandled" not in text, text


Behaviour = Callable[[socket.socket, "Server"], None]


class Server:
    """A TCP server in threads. `behaviour(connection, server)` says what is done with a connection."""

    def __init__(
        self, behaviour: Behaviour, family: socket.AddressFamily = socket.AF_INET, context: ssl.SSLContext | None = None
    ) -> None:
        self.behaviour, self.context = behaviour, context
        self.requests: list[bytes] = []
        self.accepted = 0
        self.stopped = threading.Event()
        self._listening = socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family)
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(30)
            if self.context is not None:
                connection = self.context.wrap_socket(connection, server_side=True)
            self.behaviour(connection, self)
            connection.close()

    def request(self, connection: socket.socket) -> bytes:
        """Read a request."""
        data = b""
        while b"\r\n\r\n" not in data and (part := connection.recv(4096)):
            data += part
        self.requests.append(data)
        return data

    def close(self) -> None:
        self.stopped.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def answering(*parts: bytes) -> Behaviour:
    """Read a request, then send this."""

    def behave(connection: socket.socket, server: Server) -> None:
        server.request(connection)
        for part in parts:
            connection.sendall(part)

    return behave


def status(code: int) -> Behaviour:
    return answering(f"HTTP/1.1 {code} So\r\nContent-Length: 2\r\n\r\nok".encode())


def silent(connection: socket.socket, server: Server) -> None:
    """Take the connection and say nothing."""
    server.stopped.wait(60)


def drop(connection: socket.socket, server: Server) -> None:
    """Hang up at once."""


def killed(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL."""
    process.send_signal(signal.SIGKILL)
    process.wait()
