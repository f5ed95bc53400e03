"""A service manager as far as a supervisor sees one: the socket that NOTIFY_SOCKET names, and who reads it."""

from __future__ import annotations

import secrets
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_S = 30.0


def wait_for(condition: Callable[[], Any], what: str, patience_s: float = 60) -> Any:
    """What the condition returns once it is true."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it never came true: {what}"
        time.sleep(0.005)
    return found


class Manager:
    """Reads datagrams; each is a dictionary of what it says."""

    def __init__(self, address: str | Path) -> None:
        self.name = str(address)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.name[1:] if self.name.startswith("@") else self.name)
        self.socket.setblocking(False)
        self.heard: list[dict[str, str]] = []  # everything, in order
        self.seen = 0  # how much of it was asked for

    @classmethod
    def abstract(cls) -> Manager:
        return cls(f"@ncolony-test-{secrets.token_hex(8)}")

    def listen(self, timeout: float = 0) -> None:
        """Take what is there, waiting for the first at most so long."""
        while select.select([self.socket], [], [], timeout)[0]:
            text = self.socket.recv(1 << 16).decode()
            self.heard.append(dict(line.split("=", 1) for line in text.splitlines()))
            timeout = 0

    def next_with(self, key: str, value: str | None = None, timeout: float = PATIENCE_S) -> dict[str, str]:
        """The next datagram that says this; those before it are passed over."""
        deadline = time.monotonic() + timeout
        while True:
            while self.seen < len(self.heard):
                found = self.heard[self.seen]
                self.seen += 1
                if key in found and value in (None, found[key]):
                    return found
            left = deadline - time.monotonic()
            assert left > 0, f"never heard {key}={value}; heard {self.heard}"
            self.listen(left)

    def words(self) -> list[str]:
        """What was said of our life, in order, without status and signs of life."""
        passed_over = {"STATUS", "WATCHDOG", "EXTEND_TIMEOUT_USEC", "MONOTONIC_USEC", "MAINPID"}
        return [key for heard in self.heard for key in heard if key not in passed_over]

    def close(self) -> None:
        self.socket.close()
