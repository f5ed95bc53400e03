"""What instances say of themselves: sd_notify(3) to a socket of their own, or a newline into a pipe of their own."""

from __future__ import annotations

import contextlib
import os
import socket
import struct

from kernel import reach
from safe import NOTIFY
from wire import READY, notify_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from __main__ import Keeper
    from instance import Instance

_KEYS = {
    "READY", "STATUS", "STOPPING", "RELOADING", "ERRNO", "MAINPID", "WATCHDOG", "WATCHDOG_USEC", "EXTEND_TIMEOUT_USEC",
}  # fmt: skip
# As systemd has it (NOTIFY_BUFFER_MAX). Room for credentials alone: the kernel closes descriptors that find none, which
# for a BARRIER=1 is the answer.
_LONGEST, _ROOM = 4096, socket.CMSG_SPACE(12)
# Datagrams per turn and socket; where there are more, it is left alone for so long.
_DATAGRAMS, _PAUSE_S = 8, 0.01
_SCM_CREDENTIALS = 2
_READABLE = 1  # EPOLLIN


class Ears:
    """Hears every instance that was given a way to say something."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper, self.safe = keeper, keeper.safe
        self.pipes: dict[str, int] = {}  # the name of a FIFO in which somebody will say that he is ready -> ours

    def open(self, instance: Instance, fifos: dict[str, int]) -> None:
        """Make what the instance speaks into, or go on with what there is. Raises OSError."""
        key, name = NOTIFY + instance.identity, instance.identity + READY
        if instance.notify:
            if key not in self.safe.held:
                self.safe.put(key, _bind(notify_address(self.keeper.state, instance.identity), instance.uid))
                reach("notify.bound")
            self.keeper.watch(self.safe.held[key], lambda: self.hear(instance))
        if instance.ready and not instance.is_ready:
            fifo = fifos.pop(name, -1)
            if fifo < 0:
                fifo = os.open(self.keeper.fifo_path(name), os.O_RDWR | os.O_NONBLOCK)
            self.pipes[name] = fifo
            self.keeper.watch(fifo, lambda: self.look(instance))

    def close(self, instance: Instance) -> None:
        """Nobody is left who could say anything."""
        self.close_pipe(instance)
        key = NOTIFY + instance.identity
        if key in self.safe.held:
            self.keeper.unwatch(self.safe.held[key])
            self.safe.drop(key)
        if instance.notify:
            _unlink(notify_address(self.keeper.state, instance.identity))

    def hear_out(self, instance: Instance) -> None:
        """What it said last, before its end is told."""
        if NOTIFY + instance.identity in self.safe.held:
            self.hear(instance, 64)

    def close_pipe(self, instance: Instance) -> None:
        """It has said that it is ready, or never will."""
        name = instance.identity + READY
        if (fifo := self.pipes.pop(name, -1)) >= 0:
            self.keeper.unwatch(fifo)
            os.close(fifo)
        if instance.ready:
            _unlink(self.keeper.fifo_path(name))

    def look(self, instance: Instance) -> None:
        """A newline says that it is ready, as s6 has it."""
        if b"\n" in os.read(self.pipes[instance.identity + READY], _LONGEST):
            self.note(instance, [("READY", "1")])
            self.tell(instance, {"READY": "1"})
            self.close_pipe(instance)

    def hear(self, instance: Instance, most: int = _DATAGRAMS) -> None:
        """Take what was sent. Each datagram is noted before it is taken, so that a SIGKILL of ours cannot lose it."""
        descriptor, news = self.safe.held[NOTIFY + instance.identity], dict[str, str]()
        mailbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM, 0, descriptor)
        try:
            for _ in range(most):
                data, about, flags, _ = mailbox.recvmsg(_LONGEST, _ROOM, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                if _is_from((0, os.geteuid(), instance.uid), about):
                    # Of what is too long the last line is cut off somewhere.
                    said = parsed(data.rpartition(b"\n")[0] if flags & socket.MSG_TRUNC else data)
                    self.note(instance, said)
                    merge(news, said)
                mailbox.recv(1)
            self.leave_alone(NOTIFY + instance.identity)
        except BlockingIOError:
            pass
        finally:
            mailbox.detach()
        if news:
            self.tell(instance, news)

    def note(self, instance: Instance, said: Iterable[tuple[str, str]]) -> None:
        """Keep what was said for the next supervisor; that it is ready, for the next keeper too."""
        before = instance.is_ready
        merge(instance.said, said)
        if instance.is_ready and not before:
            reach("ready.heard")
            self.keeper.note(instance, {"step": "said", "READY": "1"})
            reach("ready.noted")

    def tell(self, instance: Instance, news: dict[str, str]) -> None:
        """Let the supervisor know, if there is one."""
        self.keeper.tell({"is": "notify", "id": instance.identity, "said": news})

    def leave_alone(self, key: str) -> None:
        """A flood: let the others have their turn."""

        def again() -> None:
            if (descriptor := self.safe.held.get(key, -1)) in self.keeper.handlers:
                self.keeper.epoll.modify(descriptor, _READABLE)

        if (descriptor := self.safe.held[key]) in self.keeper.handlers:
            self.keeper.epoll.modify(descriptor, 0)
            self.keeper.after(_PAUSE_S, again)


def parsed(datagram: bytes) -> list[tuple[str, str]]:
    """The lines KEY=VALUE of those keys that we know."""
    found = (line.partition("=") for line in datagram.decode("utf-8", "replace").split("\n"))
    return [(key, value) for key, is_one, value in found if is_one and key in _KEYS]


def merge(said: dict[str, str], more: Iterable[tuple[str, str]]) -> None:
    """The last word counts, key by key. Who says READY has reloaded; a wish to be ended is not taken back."""
    for key, value in more:
        if (key, value) == ("READY", "1"):
            said.pop("RELOADING", None)
        if (key, said.get(key)) != ("WATCHDOG", "trigger"):
            said[key] = value


def _is_from(users: Iterable[int | None], about: list[tuple[int, int, bytes]]) -> bool:
    """Whether one of these users is the sender."""
    for level, kind, content in about:
        if (level, kind) == (socket.SOL_SOCKET, _SCM_CREDENTIALS):
            return struct.unpack("3i", content[:12])[1] in users
    return False


def _bind(address: str, uid: int | None) -> int:
    """A socket that this user may send to: others cannot open it, and an abstract name they cannot guess."""
    mailbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    umask = os.umask(0o177)
    try:
        mailbox.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        _unlink(address)  # of a keeper that was killed together with its supervisor
        mailbox.bind("\0" + address[1:] if address.startswith("@") else address)
        if uid is not None and not address.startswith("@"):
            os.chown(address, uid, -1, follow_symlinks=False)
        return mailbox.detach()
    finally:
        os.umask(umask)
        mailbox.close()


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        if path.startswith("/"):
            os.unlink(path)
