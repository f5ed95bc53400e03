"""Descriptors that outlive who made them: each has a key, the supervisor holds a duplicate, the next keeper gets it."""

from __future__ import annotations

import os
import socket

from wire import pack

# What the keys of the two kinds begin with; an instance's identity follows, or whatever tells one socket from another.
NOTIFY, LISTEN = "notify/", "listen/"


class Safe:
    """What we hold, and of what the supervisor has no duplicate yet."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.sockets: dict[str, None] = {}  # the keys of those that instances listen on
        self.unshared: dict[str, None] = {}
        self.shares = False  # there is a supervisor that takes duplicates

    def greet(self, shares: bool) -> None:
        """Another supervisor, which has nothing yet."""
        self.shares, self.unshared = shares, dict.fromkeys(self.held if shares else ())

    def put(self, key: str, descriptor: int) -> None:
        """Keep a descriptor."""
        os.set_inheritable(descriptor, False)
        self.drop(key)
        self.held[key] = descriptor
        if key.startswith(LISTEN):
            self.sockets[key] = None
        if self.shares:
            self.unshared[key] = None

    def drop(self, key: str) -> None:
        """Close it, if there is such a key."""
        self.unshared.pop(key, None)
        self.sockets.pop(key, None)
        if (descriptor := self.held.pop(key, -1)) >= 0:
            os.close(descriptor)

    def share(self, peer: socket.socket) -> None:
        """Send what is unshared. Raises OSError; a message so short goes as a whole or not at all."""
        while self.unshared:
            key = next(iter(self.unshared))
            socket.send_fds(peer, [pack({"is": "kept", "key": key})], [self.held[key]])
            del self.unshared[key]
