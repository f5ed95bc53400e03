"""Forwards what processes print to a syslog collector (RFC 5424), from an offset that is kept, each line at least once.

A program of its own, best run as one of the colony's processes. It reads the kept logs, so neither its own death nor
the collector's holds up anybody, or loses a line that is still kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from ..ctllib import Error, Places
from ..ctllib.logs import is_meant, logs_directory, shared_name
from ..system import logfiles
from ..system.lines import pieces
from ..system.logfiles import Log
from ..system.logreader import FIRST_DELAY_S, Line, Reader, longest_delay, most_open
from ..system.places import state_directory
from .collector import Bell, Gone, Link, Stopped, Tcp, Udp, Unix
from .plugin import PLACES, PlacesOptions, checked

_log = Logger(namespace="ncolony.syslog")

FACILITIES = {
    name: number
    for number, name in enumerate(
        "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp audit alert clock local0 local1 local2"
        " local3 local4 local5 local6 local7".split()
    )
}
_ERR, _INFO = 3, 6
_PORT = 514
# RFC 5426 asks of every receiver to take 2048 bytes over UDP; rsyslog and syslog-ng take 8192 unless told otherwise.
_LONGEST_DATAGRAM, _LONGEST = 2048, 8192
_SHORTEST_ALLOWED, _LONGEST_ALLOWED = 480, 65_000
_APP_NAME, _HOST_NAME = 48, 255  # RFC 5424, 6.2
# What was sent is made sure of when it is this much, or after --confirm seconds.
_CONFIRM_BYTES = 4 << 20
# What is read of one log at a time, before the next one has its turn.
_CHUNK = 1 << 16
_LOOK_S = 1.0
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.25, 15.0
_LAST_PATIENCE_S = 2.0


class Messages:
    """Makes the messages of RFC 5424 that a line becomes: one, or several where it is too long for one."""

    def __init__(self, facility: int, host: str, app_name: str, longest: int) -> None:
        self._facility, self._host, self._app_name, self._longest = facility, host, app_name, longest
        self._around: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self._time: tuple[int, bytes] = (-1, b"")
        self._second: tuple[int, str] = (-1, "")

    def of(self, line: Line) -> list[bytes]:
        """The messages for a line."""
        if (line.name, line.stream) not in self._around:
            self._around[line.name, line.stream] = self._headers(line.name, line.stream)
        before, after = self._around[line.name, line.stream]
        if line.time_ns != self._time[0]:
            self._time = line.time_ns, self._timestamp(line.time_ns)
        header = before + self._time[1] + after
        if len(header) + len(line.data) <= self._longest:
            return [header + line.data]
        return [header + piece for piece in pieces(line.data, self._longest - len(header))]

    def _headers(self, name: str, stream: str) -> tuple[bytes, bytes]:
        severity = _ERR if stream == logfiles.STDERR else _INFO
        app_name = _printable(self._app_name.replace("{name}", name), _APP_NAME)
        host = _printable(self._host, _HOST_NAME)
        return b"<%d>1 " % (self._facility * 8 + severity), f" {host} {app_name} - - - ".encode()

    def _timestamp(self, time_ns: int) -> bytes:
        second, rest = divmod(time_ns, 10**9)
        if second != self._second[0]:
            self._second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second[1]}.{rest // 1_000_000:03d}Z".encode()


def _printable(text: str, longest: int) -> str:
    """The text as a field of a header: what is not printable ASCII becomes "_", and an empty one is "-"."""
    return "".join(c if "!" <= c <= "~" else "_" for c in text)[:longest] or "-"


class Offsets:
    """Up to where each log was forwarded: a file each, in a directory that only one forwarder uses."""

    def __init__(self, directory: str) -> None:
        """Take the directory.

        :raises BlockingIOError: when another forwarder has it.
        :raises OSError: when it cannot be used.
        """
        self._directory = directory
        for stream in (logfiles.STDOUT, logfiles.STDERR):
            os.makedirs(f"{directory}/{stream}", mode=0o755, exist_ok=True)
        self._lock = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _path(self, log: Log) -> str:
        return f"{self._directory}/{log.stream}/{log.name}"

    def get(self, log: Log) -> int | None:
        """The offset behind the last line that has arrived, None where there was none."""
        try:
            with open(self._path(log), "rb") as file:
                return int(file.read(20))
        except (OSError, ValueError):
            return None

    def put(self, log: Log, offset: int) -> None:
        """Remember an offset.

        :raises OSError: when it cannot be written.
        """
        descriptor = os.open(self._path(log), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.pwrite(descriptor, b"%020d\n" % offset, 0)
        finally:
            os.close(descriptor)

    def forget(self, log: Log) -> None:
        """The log is there no more."""
        with contextlib.suppress(OSError):
            os.unlink(self._path(log))


class _Stream:
    """One log: what has arrived of it, and the reader that is ahead of that."""

    __slots__ = ("arrived", "log", "reader")

    def __init__(self, log: Log, arrived: int) -> None:
        self.log, self.arrived = log, arrived
        self.rewind()

    def rewind(self) -> None:
        self.reader = Reader(self.log, self.arrived, _CHUNK)


class Forwarder:
    """Reads logs and sends their lines, in a thread of its own, since both may have to wait."""

    def __init__(
        self,
        directory: str,
        wanted: Callable[[str], bool],
        messages: Messages,
        link: Link,
        bell: Bell,
        offsets: Offsets,
        confirm_s: float,
        place: str,
    ) -> None:
        self._directory, self._wanted, self._messages = directory, wanted, messages
        self._link, self._bell, self._offsets = link, bell, offsets
        self._confirm_s, self._place = confirm_s, place
        self._streams: dict[str, _Stream] = {}
        self._unsure = 0  # bytes that were sent and may not have arrived
        self._sending = False
        self._due = 0.0  # when that must be found out
        self._looked = -_LOOK_S
        self._most_open = most_open()
        self._gone = False
        self._backoff = _FIRST_BACKOFF_S
        self._troubles: dict[str, str] = {}  # what was said of each thing and still holds

    def stop(self) -> None:
        """Have `run` return soon; to be called from another thread."""
        self._bell.ring()

    def run(self) -> None:
        """Forward until `stop`; then make sure of what was sent."""
        delay = FIRST_DELAY_S
        try:
            while True:
                try:
                    busy = self._turn()
                except Gone as gone:
                    self._lost(gone)
                    self._bell.wait(self._backoff)
                    self._backoff = min(self._backoff * 2, _LONGEST_BACKOFF_S)
                    continue
                delay = FIRST_DELAY_S if busy else min(delay * 1.5, longest_delay(len(self._streams)))
                # Nothing can be waited for but a signal to stop: between two turns a look at that is all.
                self._bell.wait(0 if busy else delay)
        except Stopped:
            self._bell.ignore()
            with contextlib.suppress(Gone):
                # What was read but is not all sent must not be taken for sent.
                if not self._gone and not self._sending:
                    self._confirm(_LAST_PATIENCE_S)
        finally:
            self._link.close()
            for stream in self._streams.values():
                stream.reader.close()

    def _turn(self) -> bool:
        """Send what is there, a piece of each log; whether there was anything."""
        if time.monotonic() - self._looked >= _LOOK_S:
            self._look()
        busy = False
        for stream in list(self._streams.values()):
            lines = self._read(stream)
            if not lines:
                continue
            busy = True
            if not self._unsure:
                self._due = time.monotonic() + self._confirm_s
            sent = [message for line in lines for message in self._messages.of(line)]
            self._unsure += sum(map(len, sent))
            self._sending = True
            self._link.send(sent)
            self._sending = False
            # After a failure the first that gets through tells, before much is sent in vain.
            if self._gone or self._unsure >= _CONFIRM_BYTES:
                self._confirm()
        if self._unsure and time.monotonic() >= self._due:
            self._confirm()
        return busy

    def _read(self, stream: _Stream) -> list[Line]:
        try:
            lines = stream.reader.read()
        except OSError as error:
            # For want of descriptors, or the disk's fault: nothing is lost by waiting.
            path = stream.log.directory
            self._say_trouble(path, f"cannot read the log of {stream.log.name}: {error.strerror}; trying again")
            return []
        if self._troubles:
            self._troubles.pop(stream.log.directory, None)
        if len(self._streams) > self._most_open:
            stream.reader.close()
        return lines

    def _look(self) -> None:
        """See which logs there are."""
        self._looked = time.monotonic()
        try:
            found = {log.directory: log for log in logfiles.find(self._directory, self._wanted)}
        except OSError as error:
            self._say_trouble("logs", f"cannot read {self._directory}: {error.strerror}")
            return
        for path, log in found.items():
            if path not in self._streams:
                self._take_in(path, log)
        for path in self._streams.keys() - found.keys():
            if not os.path.exists(path):
                stream = self._streams.pop(path)
                stream.reader.close()
                self._offsets.forget(stream.log)

    def _take_in(self, path: str, log: Log) -> None:
        try:
            arrived = self._offsets.get(log)
            self._streams[path] = _Stream(log, log.begin() if arrived is None else arrived)
            self._troubles.pop(path, None)
        except OSError as error:
            self._say_trouble(path, f"cannot read the log of {log.name}: {error.strerror}; trying again")

    def _confirm(self, patience: float | None = None) -> None:
        """Make sure that what was sent has arrived, and remember it.

        :raises Gone: when it has not.
        """
        if self._unsure:
            remark = self._link.confirm() if patience is None else self._link.confirm(patience)
            if remark:
                _log.warn("{place}: {remark}", place=self._place, remark=remark)
            self._unsure = 0
            for stream in self._streams.values():
                self._remember(stream)
        self._backoff = _FIRST_BACKOFF_S
        if self._gone:
            self._gone = False
            _log.info("{place}: the collector is back", place=self._place)

    def _remember(self, stream: _Stream) -> None:
        if stream.reader.offset == stream.arrived:
            return
        stream.arrived = stream.reader.offset
        try:
            self._offsets.put(stream.log, stream.arrived)
            self._troubles.pop("offsets", None)
        except OSError as error:
            self._say_trouble("offsets", f"cannot write {error.filename}: {error.strerror}; lines may come twice")

    def _say_trouble(self, what: str, trouble: str) -> None:
        """Say it, unless that is what was said last of the same thing."""
        if self._troubles.get(what) != trouble:
            self._troubles[what] = trouble
            _log.error("{trouble}", trouble=trouble)

    def _lost(self, gone: Gone) -> None:
        """The collector is gone: what has not surely arrived is sent again when there is one."""
        self._link.close()
        if not self._gone:
            self._gone = True
            _log.warn("{place}: the collector is gone ({why}); trying again", place=self._place, why=str(gone))
        self._unsure, self._sending = 0, False
        for stream in self._streams.values():
            if stream.reader.offset != stream.arrived:
                stream.reader.close()
                stream.rewind()


class Forwarding(Service):
    """The forwarder as a service of Twisted's."""

    def __init__(self, reactor: Any, forwarder: Forwarder) -> None:
        self._reactor, self._forwarder = reactor, forwarder
        self._ended: Deferred[None] | None = None

    def startService(self) -> None:  # noqa: N802 (Twisted's interface)
        """Begin once the reactor runs."""
        super().startService()  # type: ignore[no-untyped-call]
        self._ended = deferToThread(self._forwarder.run)
        self._ended.addErrback(self._failed)

    def stopService(self) -> Deferred[None] | None:  # noqa: N802 (Twisted's interface)
        """Stop; the Deferred fires when what was sent has been made sure of."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._forwarder.stop()
        return self._ended

    def _failed(self, failure: Any) -> None:
        _log.failure("cannot go on", failure)
        if self.running:
            self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
            self._reactor.stop()


def parse_place(text: str) -> tuple[str, str, int]:
    """(kind, host or path, port) of "udp:HOST:PORT", "tcp:HOST:PORT" or "unix:PATH"; an IPv6 address is in brackets.

    :raises ValueError: saying what is wrong.
    """
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest.startswith("/"):
        return kind, rest, 0
    if kind in ("udp", "tcp"):
        host, colon, port = rest.rpartition(":") if not rest.endswith("]") else (rest, "", "")
        if not colon:
            host, port = rest, str(_PORT)
        host = host.removeprefix("[").removesuffix("]")
        if host and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16:
            return kind, host, int(port)
    raise ValueError(f"expected udp:HOST:PORT, tcp:HOST:PORT or unix:/PATH, found {text!r}")


def _facility(text: str) -> int:
    if text not in FACILITIES:
        raise ValueError(f"expected one of {', '.join(FACILITIES)}, found {text!r}")
    return FACILITIES[text]


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"expected seconds, 0 or more, found {text!r}")
    return value


def _size(text: str) -> int:
    if text.isascii() and text.isdigit() and _SHORTEST_ALLOWED <= int(text) <= _LONGEST_ALLOWED:
        return int(text)
    raise ValueError(f"expected bytes from {_SHORTEST_ALLOWED} to {_LONGEST_ALLOWED}, found {text!r}")


class Options(PlacesOptions):
    """Options of `ncolony-syslog`."""

    NEEDED = (*PlacesOptions.NEEDED, ("to", "PLACE"))
    optParameters = [  # noqa: N815, RUF012 (Twisted's interface)
        *PLACES,
        ["logs", None, None, "The supervisor's --logs, where that is not found by itself"],
        ["to", None, None, "The collector: udp:HOST:PORT, tcp:HOST:PORT or unix:/PATH", checked("to", parse_place)],
        [
            "facility",
            None,
            FACILITIES["daemon"],
            "Facility, by name [default: daemon]",
            checked("facility", _facility),
        ],
        ["app-name", None, "{name}", "APP-NAME of the messages; {name} stands for the process's name"],
        ["hostname", None, None, "HOSTNAME of the messages [default: this machine's]"],
        [
            "longest",
            None,
            None,
            "Bytes a message may have [default: 2048 for udp, else 8192]",
            checked("longest", _size),
        ],
        ["confirm", None, 10.0, "Make sure at least every so many seconds", checked("confirm", _seconds)],
        ["offsets", None, None, "Directory to remember in what was sent [default: in the state directory]"],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["select"] = []

    def opt_select(self, pattern: str) -> None:
        """A process, or glob, to forward; may be repeated [default: every process but this one]"""
        self["select"].append(pattern)


def makeService(options: Options) -> Forwarding:  # noqa: N802 (Twisted's interface)
    """The forwarder as a service, from parsed options.

    :raises SystemExit: saying why it cannot start.
    """
    from twisted.internet import reactor

    places, (kind, host, port) = Places(options["config"], options["messages"]), options["to"]
    place = f"{kind}:{host}" if kind == "unix" else f"{kind}:{host}:{port}"
    state = state_directory(places.config, places.messages, options["state"])
    directory = options["offsets"] or f"{state}/syslog/{place.replace('/', '_')}"
    try:
        logs = options["logs"] or logs_directory(places, state=options["state"])
        offsets = Offsets(directory)
    except BlockingIOError:
        raise SystemExit(
            f"cannot start: another ncolony-syslog remembers in {directory} what it sent; give --offsets"
        ) from None
    except OSError as error:
        raise SystemExit(f"cannot start: cannot use {error.filename}: {error.strerror}") from None
    except Error as error:
        raise SystemExit(f"cannot start: {error}") from None
    bell = Bell()
    link = Unix(bell, host) if kind == "unix" else (Udp if kind == "udp" else Tcp)(bell, host, port)
    longest = options["longest"] or (_LONGEST_DATAGRAM if kind == "udp" else _LONGEST)
    messages = Messages(options["facility"], options["hostname"] or socket.gethostname(), options["app-name"], longest)
    # What we say ourselves would be forwarded, and that said, for ever.
    ourselves = shared_name(os.environ.get("NCOLONY_NAME", ""))

    def wanted(name: str) -> bool:
        return shared_name(name) != ourselves and is_meant(name, options["select"])

    forwarder = Forwarder(logs, wanted, messages, link, bell, offsets, options["confirm"], place)
    return Forwarding(reactor, forwarder)
