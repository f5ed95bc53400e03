"""The keeper's client: finds or starts it, sends it orders, passes on its reports."""

from __future__ import annotations

import array
import contextlib
import fcntl
import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from ..decide.budget import supervisor_half
from ..keeper.kernel import PASSED_ON, pidfd_open, reach
from ..keeper.wire import PROTOCOL, READY, STDERR, Unpacker, identity_of, pack
from .launch import Impossible
from .limits import descriptors
from .orphans import find_marked, start_time

_log = Logger(namespace="ncolony")
_KEEPER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "keeper")
_COMMAND = [sys.executable, "-I", "-S", "-X", "utf8", _KEEPER]
# Orders go out in pieces of this size at the latest, so that the keeper starts while we still read.
_SEND_AT = 1 << 14
# So many bytes of reports, some fifty, are worked off at a time: between them others have their turn.
_READ_AT_ONCE = 1 << 13
# While so many instances are being started, nothing new is begun with.
_STARTS = 64
# A keeper that does not come up is started again this much later, doubling to the second number.
_RETRY_S = (0.05, 5.0)
# In which version of the protocol an order appeared: an older keeper is not given it. "split" and "give"
# are parts of a start.
_SINCE = {"patience": 2, "tree": 2, "upgrade": 2, "split": 3, "memory": 3, "give": 4, "close": 4}
# How long a keeper of our version may take to show that it can be run.
_TRIAL_S = 20.0
Message = dict[str, Any]


@implementer(IReadWriteDescriptor)
class Hands:
    """A connection to the keeper that is always there, or about to be.

    `report(messages)` is called with what the keeper says, as it comes; `{"is": "lost"}` stands for its death.
    """

    def __init__(
        self,
        reactor: Any,
        state: str,
        logs: str,
        budget: int,
        report: Callable[[list[Message]], None],
        fifos: dict[str, int] | None = None,
    ) -> None:
        self._reactor, self._state, self._logs, self._budget = reactor, state, logs, budget
        self._report = report
        self._peer: socket.socket | None = None
        self._unpacker, self._out = Unpacker(), bytearray()
        self._retry = _RETRY_S[0]
        # Name -> pipe, held so that nothing in it is ever lost. The names are identities; see STDERR for others.
        self.fifos: dict[str, int] = fifos or {}
        # What the keeper keeps for instances, by its key: our duplicates, for the next keeper.
        self.kept: dict[str, int] = {}
        self.starting: set[str] = set()  # identities of which this keeper has not told yet that they run, or do not
        self._arrived: deque[int] = deque()  # descriptors whose messages are still to come
        # identity -> pidfd of an instance whose parent we do not become should its keeper die: the next keeper, which
        # inherits it, can tell how it ended all the same.
        self._pidfds: dict[str, int] = {}
        self._records: dict[str, tuple[int, int]] = {}  # pid and start time of what was found after a keeper's death
        self._started: set[int | None] = set()  # pids of keepers that are our children
        self.welcome_sent: Callable[[], Message] = dict
        self.pid: int | None = None
        self.leaving = False
        self.agreed = False  # the keeper has said what it holds: before that, nothing new may be started
        self.protocol = PROTOCOL  # the keeper's
        self.problem = ""
        self._code = _code()
        self._upgrading = self._welcomed = False
        self._tried: int | None = None  # the pid of a keeper that was asked to make room for our version

    # being connected

    def connect(self) -> None:
        """Connect to the keeper of this state directory, or start one."""
        peer = self._find() or self._start()
        peer.setblocking(False)
        self._peer, self._unpacker, self._out = peer, Unpacker(), bytearray()
        self._reactor.addReader(self)
        self.protocol, self._welcomed = PROTOCOL, False
        self.order({"do": "hello", "protocol": PROTOCOL, "keeps": True, **self.welcome_sent()})
        self.flush()

    def _find(self) -> socket.socket | None:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        directory = os.open(self._state, os.O_RDONLY | os.O_DIRECTORY)
        try:
            through = f"/proc/self/fd/{directory}"
            peer.connect(f"{through if os.path.isdir(through) else self._state}/keeper.sock")
            _pid, uid, _gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid != os.geteuid():
                raise PermissionError(f"the keeper belongs to user {uid}")
        except OSError:
            peer.close()
            return None
        finally:
            os.close(directory)
        self.pid = _pid
        return peer

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        arguments = [*_COMMAND, self._state, self._logs, str(self._budget), self._code, "peer=3"]
        log = f"{self._state}/keeper.log"
        with theirs, self._handed_over() as more:
            arguments += more
            self.pid = os.posix_spawn(
                sys.executable,
                arguments,
                PASSED_ON,
                file_actions=[
                    # Out of the way first: the numbers below may be in use by `theirs` itself.
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=(),
            )
        self._started = {self.pid}
        return ours

    @contextlib.contextmanager
    def _handed_over(self) -> Iterator[list[str]]:
        """For the time of starting a keeper: the arguments that tell it of the descriptors it inherits."""
        if not self._pidfds and not self.kept:
            yield []
            return
        with tempfile.TemporaryFile() as file:
            about = {"pidfds": self._pidfds, "records": self._records, "kept": self.kept}
            file.write(json.dumps(about).encode())
            file.flush()
            inherited = (file.fileno(), *self._pidfds.values(), *self.kept.values())
            for descriptor in inherited:
                os.set_inheritable(descriptor, True)
            try:
                yield [f"handover={file.fileno()}"]
            finally:
                for descriptor in inherited:
                    os.set_inheritable(descriptor, False)

    def _lost(self) -> None:
        if self._peer is None:
            return
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._take_the_rest(self._peer)
        self._peer.close()
        self._peer = None
        self.agreed = False
        self.starting.clear()
        if self._upgrading:
            self._reactor.callLater(0, self._again)
            self._upgrading = False
            return
        self._report([{"is": "lost", "why": "" if self._welcomed else self._last_words()}])
        if not self.leaving:
            self._reactor.callLater(self._retry, self._again)
            self._retry = min(self._retry * 2, _RETRY_S[1])

    def _again(self) -> None:
        if self._peer is None and not self.leaving:
            try:
                self.connect()
            except OSError as error:
                _log.error("cannot start the keeper: {why}", why=error.strerror)
                self._reactor.callLater(self._retry, self._again)

    def _last_words(self) -> str:
        """What a keeper that ended at once wrote about it."""
        try:
            with open(f"{self._state}/keeper.log", "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 1000))
                return file.read().decode("utf-8", "backslashreplace").rstrip().rpartition("\n")[2]
        except OSError as error:
            return error.strerror or str(error)

    @property
    def is_busy(self) -> bool:
        """Whether the keeper has so much to start that what is not urgent waits."""
        return len(self.starting) >= _STARTS

    @property
    def connected(self) -> bool:
        return self._peer is not None

    # orders

    def order(self, message: Message) -> None:
        """Send an order; without a keeper it is dropped, since the next one is told everything anew."""
        if self._peer is not None and self.protocol >= _SINCE.get(message["do"], 1):
            self._out += pack(message)
            if len(self._out) > _SEND_AT:
                self.flush()

    def flush(self) -> None:
        """Send what was ordered since the last time."""
        if self._peer is None or not self._out:
            return
        try:
            while self._out:
                del self._out[: self._peer.send(self._out[: 1 << 18])]
        except BlockingIOError:
            self._reactor.addWriter(self)
        except OSError:
            self._reactor.callLater(0, self._lost)
        else:
            self._reactor.removeWriter(self)

    def start(self, identity: str, order: Message) -> None:
        """Start an instance. We hold its FIFOs from before it writes, so that no keeper's death loses its output.

        :raises OSError: when a FIFO cannot be made.
        :raises Impossible: when the keeper does not know what the instance needs.
        """
        reach("spawn.named")
        gives = sorted(key for key in ("notify", "ready", "sockets") if order.get(key))
        if gives and self.protocol < _SINCE["give"]:
            raise Impossible(f"cannot give it what it needs ({', '.join(gives)}): the keeper is of an older version")
        made, (out, err, ready) = [], _pipes(identity)
        names = [out, *([err] if self._splits(order) else ()), *([ready] if order.get("ready") else ())]
        kept = [one for one in order.get("sockets", ()) if one["key"] not in self.kept]
        try:
            has_room = self._make_room(len(names) + len(kept) + bool(order.get("notify")))
            for name in names:
                os.mkfifo(f"{self._state}/fifo/{name}", 0o600)
                made.append(name)
                reach("spawn.fifo")
                fifo = self.fifos[name] = self._open_fifo(name)
                if order["uid"] is not None or order["gid"] is not None:
                    # So that the program can open its /dev/stdout again as the user it becomes.
                    os.fchown(fifo, -1 if order["uid"] is None else order["uid"], order["gid"])
                if not has_room:  # fewer are allowed than when this process was started first: the keeper alone has it
                    os.close(self.fifos.pop(name))
        except OSError:
            self.release(identity)
            for name in made:
                os.unlink(f"{self._state}/fifo/{name}")
            raise
        self.starting.add(identity)
        self.order({"do": "start", "id": identity, **order})
        reach("spawn.ordered")

    def hold(self, identity: str) -> None:
        """Hold the FIFOs of an instance that an earlier supervisor started."""
        for name in _pipes(identity):
            if name not in self.fifos and self._make_room():
                with contextlib.suppress(OSError):
                    self.fifos[name] = self._open_fifo(name)

    def _splits(self, order: Message) -> bool:
        """Whether the keeper will keep the streams apart; an older one cannot."""
        return bool((order.get("log") or {}).get("split")) and self.protocol >= _SINCE["split"]

    def _open_fifo(self, name: str) -> int:
        return os.open(f"{self._state}/fifo/{name}", os.O_RDWR | os.O_NONBLOCK)

    def meet(self, identity: str, pid: int, began: int | None, old: bool) -> None:
        """An instance runs; `old`: since before this connection. See `_pidfds`."""
        self.starting.discard(identity)
        wanted = old or self.pid not in self._started
        # Only of what is left when every pipe is held: a tenth is for what is still to be started.
        if identity in self._pidfds or not wanted or not began or self._room() < self._most() // 10:
            return
        try:
            pidfd = pidfd_open(pid)
        except OSError:
            return
        # Read after opening: what is held is the process that was meant.
        if pidfd >= 0 and start_time(pid) == began:
            self._pidfds[identity] = pidfd
        elif pidfd >= 0:
            os.close(pidfd)

    def rescue(self, identities: Iterable[str]) -> None:
        """The keeper is dead, and may not have told of these: what it wrote down of them is still known."""
        unrecorded = set()
        for identity in identities:
            try:
                with open(f"{self._state}/instances/{identity}", "rb") as file:
                    steps = {line["step"]: line for line in map(json.loads, file)}
                if "record" in steps:
                    self.meet(identity, steps["record"]["pid"], steps["record"]["began"], old=True)
                else:
                    unrecorded.add(identity)
            except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
                continue
        for identity, pid in find_marked(unrecorded).items():
            began = start_time(pid)
            self.meet(identity, pid, began, old=True)
            self._records[identity] = pid, began

    def was_ready(self, identity: str) -> None:
        """The instance has said that it is ready: the FIFO for that is not needed any more."""
        if (descriptor := self.fifos.pop(identity + READY, None)) is not None:
            os.close(descriptor)

    def release(self, identity: str) -> None:
        """The instance is over: its FIFOs are not needed any more."""
        self.starting.discard(identity)
        held = [self.fifos.pop(name, None) for name in _pipes(identity)]
        held.append(self.kept.pop(f"notify/{identity}", None))
        for descriptor in (*held, self._pidfds.pop(identity, None)):
            if descriptor is not None:
                os.close(descriptor)
        self._records.pop(identity, None)

    @staticmethod
    def _most() -> int:
        """How many descriptors instances may take; the others are needed for other things."""
        return supervisor_half(descriptors()).most

    def _room(self) -> int:
        return self._most() - len(self.fifos) - len(self._pidfds) - len(self.kept)

    def _make_room(self, wanted: int = 1) -> bool:
        """Let go of pidfds, which are a help, where a pipe needs the descriptor; False when that is not enough."""
        while self._room() < wanted and self._pidfds:
            os.close(self._pidfds.popitem()[1])
        return self._room() >= wanted

    def sweep(self, present: set[str]) -> None:
        """Remove what is left of instances that the keeper does not hold: those whose order never reached it."""
        for identity in set(map(identity_of, self.fifos)) | self._pidfds.keys():
            if identity not in present:
                self.release(identity)
        for directory in ("fifo", "config", "notify"):
            for name in os.listdir(f"{self._state}/{directory}"):
                if identity_of(name) not in present:
                    with contextlib.suppress(OSError):
                        os.unlink(f"{self._state}/{directory}/{name}")

    def signal(self, identity: str, number: int, scope: str, wake: bool, ack: str = "") -> None:
        """Send a signal to an instance's tree or process; `wake` continues what is stopped.

        With `ack` the keeper reports that word when it has done so.
        """
        self.order({"do": "signal", "id": identity, "signal": number, "scope": scope, "wake": wake, "ack": ack})

    def call_back(self, word: str) -> None:
        """Have the keeper say that word when it has done what it was told until now: `signalled`, as to nobody."""
        self.order({"do": "signal", "id": "", "signal": 0, "scope": "process", "ack": word})

    def forget(self, identity: str) -> None:
        """We have taken note of the exit."""
        reach("forget.before")
        self.order({"do": "forget", "id": identity})

    def replace_keeper(self, welcome: Message) -> bool:
        """Have the keeper replaced by ours when it is of another version; True when that is under way.

        What keeps it from being done is in `problem`.
        """
        self.protocol, self.pid, self.problem = max(welcome["protocol"], 1), welcome["pid"], ""
        self._welcomed = True
        if abs(welcome["protocol"] - PROTOCOL) > 1:
            self.problem = f"the keeper (pid {self.pid}) speaks protocol {welcome['protocol']}, we speak {PROTOCOL}"
        elif self.protocol < _SINCE["upgrade"] and self._code != welcome.get("code"):
            self.problem = f"the keeper (pid {self.pid}) is of an older version, which cannot be upgraded in place"
        elif welcome.get("code") != self._code and self._tried == self.pid:
            self.problem = f"cannot upgrade the keeper: {self._last_words() or 'it does not say why'}"
        elif welcome.get("code") != self._code:
            self._tried = self.pid
            try:
                # It is known to run before the present one gives up its place.
                subprocess.run([*_COMMAND, "check"], check=True, capture_output=True, timeout=_TRIAL_S, env=PASSED_ON)
            except (OSError, subprocess.SubprocessError) as error:
                said = (getattr(error, "stderr", b"") or b"").decode("utf-8", "backslashreplace").strip()
                self.problem = f"cannot upgrade the keeper: {said.splitlines()[-1] if said else error}"
                return False
            _log.info("the keeper is of another version: having it replaced")
            self.order({"do": "upgrade", "command": _COMMAND, "code": self._code})
            self.flush()
            return True
        return False

    def leave(self) -> None:
        """Ask the empty keeper to end."""
        self.leaving = True
        for descriptor in self.kept.values():
            os.close(descriptor)
        self.kept.clear()
        self.order({"do": "leave"})
        self.flush()

    # what the reactor calls

    def doRead(self) -> None:
        assert self._peer is not None
        try:
            data = self._receive(self._peer)
            messages = self._unpacker.feed(data)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            data = b""
        if not data:
            self._lost()
            return
        self._retry = _RETRY_S[0]
        self._take(messages)

    def _take(self, messages: Iterable[Message]) -> None:
        """Pass on what is not for us."""
        told = []
        for message in messages:
            if message.get("is") == "upgrading":
                self._upgrading = True
            elif message.get("is") != "kept" or self._keep(message.get("key")):
                told.append(message)
        if told:
            self._report(told)

    def _receive(self, peer: socket.socket) -> bytes:
        """What there is to read. A descriptor comes with the first byte of the message that tells of it."""
        data, about, flags, _ = peer.recvmsg(_READ_AT_ONCE, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        found = [content for level, kind, content in about if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)]
        for content in found:
            self._arrived += array.array("i", content[: len(content) // 4 * 4])
        if flags & socket.MSG_CTRUNC and not found:
            self._arrived.append(-1)  # we have no room for it
        return data

    def _keep(self, key: object) -> bool:
        """Hold a duplicate of what the keeper has, unless that is for an instance that is over; True for a socket."""
        descriptor = self._arrived.popleft() if self._arrived else -1
        if descriptor < 0 or not isinstance(key, str):
            return False
        reach("kept.arrived")
        kind, _, identity = key.partition("/")
        if (kind == "notify" and identity not in self.fifos) or self.leaving:
            os.close(descriptor)
            return False
        if descriptor <= 3:  # there the next keeper, which inherits it, has other things: see _start
            low, descriptor = descriptor, fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 4)
            os.close(low)
        if (former := self.kept.get(key)) is not None:
            os.close(former)
        self.kept[key] = descriptor
        return kind == "listen"

    def _take_the_rest(self, peer: socket.socket) -> None:
        """What a keeper that is gone has said, and we have not read yet: what to hold, and that it leaves.

        What became of instances the next keeper tells.
        """
        with contextlib.suppress(OSError, ValueError):
            while data := self._receive(peer):
                said = self._unpacker.feed(data)
                self._take(one for one in said if one.get("is") in ("kept", "leaving", "upgrading"))
        while self._arrived:
            if (descriptor := self._arrived.popleft()) >= 0:
                os.close(descriptor)

    def close_sockets(self, keys: list[str]) -> None:
        """Nobody wants to listen there any more."""
        for key in keys:
            if (descriptor := self.kept.pop(key, None)) is not None:
                os.close(descriptor)
        self.order({"do": "close", "keys": keys})

    def doWrite(self) -> None:
        self.flush()

    def fileno(self) -> int:
        return -1 if self._peer is None else self._peer.fileno()

    def connectionLost(self, reason: object) -> None:
        """The reactor saw a hang-up."""
        self._lost()

    def logPrefix(self) -> str:
        return "keeper"


def _pipes(identity: str) -> tuple[str, str, str]:
    """The names of an instance's FIFOs: its output, standard error where that is kept apart, and that it is ready."""
    return identity, identity + STDERR, identity + READY


def _code() -> str:
    """What tells this version of the keeper from another: its sources and the Python that runs it."""
    digest = hashlib.blake2b(sys.version.encode(), digest_size=8)
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(_KEEPER)):
            if name.endswith(".py"):
                with open(f"{_KEEPER}/{name}", "rb") as file:
                    digest.update(name.encode() + b"\0" + file.read())
    return digest.hexdigest()


class Identities:
    """Identities of instances: unique in this boot, sorting by time, and nothing that others could guess.

    Who bears an identity in its environment belongs to the instance, dies with it, and is waited for.
    """

    def __init__(self) -> None:
        self._last = 0

    def new(self) -> str:
        self._last = max(self._last + 1, time.time_ns())
        return f"{self._last:016x}{os.urandom(8).hex()}"
