"""Looks over the network: can a connection be opened, is a GET request answered, and how."""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

import base64
import functools
import os
import re
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from ... import __version__
from ...model.conditions import parse_host_port
from .outcome import GOOD, OURS, Done, Outcome, lowered, quoted
from .tls import Broken, Contexts, Tls

# What a server may say before we stop listening: kubelet reads 10 KiB of a body, and nobody's headers are longer than
# what servers themselves take.
_LONGEST_HEADERS, _LONGEST_BODY = 1 << 16, 1 << 16
# A server that has answered gets so long to say the rest and hang up, which spares it a broken connection in its log.
_LINGER_S = 1.0
# A timer this late tells of our own lateness: what has arrived meanwhile is to be heard first.
_LATE_S, _MORE_S = 0.25, 0.25
_STATUS = re.compile(rb"HTTP/1\.[0-9] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r?\n")
_GOOD_STATUS = range(200, 400)
_LOCAL = ("127.0.0.1", "::1")


class Resolver:
    """Finds the addresses of hosts. One that takes long is asked for once, however many wait for it."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._asked: dict[str, list[Callable[[list[str], Outcome], None]]] = {}

    def find(self, host: str, found: Callable[[list[str], Outcome], None]) -> None:
        """Call `found(addresses, why)`: at once for what needs no asking, else later."""
        if host in ("", "localhost"):
            found(list(_LOCAL), GOOD)
        elif _is_address(host):
            found([host], GOOD)
        elif host in self._asked:
            self._asked[host].append(found)
        else:
            self._asked[host] = [found]
            deferToThread(_addresses, host).addBoth(self._answered, host)

    def _answered(self, result: Any, host: str) -> None:
        addresses, outcome = ([], Outcome(str(result.value))) if isinstance(result, Failure) else result
        for found in self._asked.pop(host):
            found(list(addresses), outcome)


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return True
    return False


def _addresses(host: str) -> tuple[list[str], Outcome]:
    """Those that the system knows, in its order. In a thread: it may take its time."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        unknown = error.errno == socket.EAI_MEMORY
        return [], Outcome(f"cannot find {host}: {lowered(error.strerror)}", unknown)
    except (OSError, UnicodeError) as error:
        return [], Outcome(f"cannot find {host}: {error}")
    return list(dict.fromkeys(str(address[4][0]) for address in found)), GOOD


class Probe:
    """One look: connects to the addresses of a host in turn, has a protocol find out, and says it once, in time."""

    def __init__(self, reactor: Any, resolver: Resolver, host: str, port: int, timeout: float, done: Done) -> None:
        self._reactor, self._resolver, self._host, self.port = reactor, resolver, host, port
        self._timeout, self._done = timeout, done
        self._addresses: list[str] = []
        self._connector: Any = None
        self._timer: Any = None
        self._due = 0.0
        self._over = False

    def begin(self) -> None:
        """Look."""
        self._due = self._reactor.seconds() + self._timeout
        self._timer = self._reactor.callLater(self._timeout, self._timed_out)
        self._resolver.find(self._host, self._found)

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        if not self._over:
            self._end()
            if self._connector is not None:
                self._connector.disconnect()

    close = cancel

    def finish(self, outcome: Outcome) -> None:
        """Say what was found, if it was not said before."""
        if not self._over:
            self._end()
            self._done(outcome)

    def _end(self) -> None:
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def protocol(self) -> Protocol:
        """What talks to the peer, for one connection."""
        return _Knock(self)

    def _found(self, addresses: list[str], outcome: Outcome) -> None:
        if self._over:
            return
        self._addresses = addresses
        if addresses:
            self._next()
        else:
            self.finish(outcome if not outcome.good else Outcome(f"cannot find {self._host}"))

    def _next(self) -> None:
        address = self._addresses.pop(0)
        left = max(0.0, self._due - self._reactor.seconds())
        # An address that does not answer is not to take all the time there is.
        timeout = left / (len(self._addresses) + 1) if self._addresses else None
        self._connector = self._reactor.connectTCP(address, self.port, _Factory(self), timeout=timeout)

    def unreachable(self, error: Any) -> None:
        """A connection cannot be opened: try the next address."""
        if self._over:
            return
        if self._addresses:
            self._next()
            return
        number = getattr(error, "osError", None)
        if not isinstance(number, int):
            self.finish(Outcome(lowered(str(error).removesuffix("."))))
        else:
            self.finish(Outcome(lowered(os.strerror(number)), unknown=number in OURS))

    def _timed_out(self) -> None:
        if self._reactor.seconds() - self._due > _LATE_S:
            self._due = self._reactor.seconds() + _MORE_S
            self._timer = self._reactor.callLater(_MORE_S, self._timed_out)
            return
        connector = self._connector
        said = self.said_on_timeout() if connector is not None and connector.state == "connected" else "no connection"
        self.finish(Outcome(f"{said} within {self._timeout:g} s"))
        if connector is not None:
            connector.disconnect()

    def said_on_timeout(self) -> str:
        """What is missing while there is a connection."""
        return "no answer"


class _Factory(ClientFactory):
    noisy = False

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # noqa: N802 (Twisted's interface)
        return self._probe.protocol()

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:  # noqa: N802 (Twisted's interface)
        self._probe.unreachable(reason.value)


class _Knock(Protocol):
    """That there is a connection is all."""

    transport: Any

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    def connectionMade(self) -> None:  # noqa: N802 (Twisted's interface)
        self._probe.finish(GOOD)
        self.transport.loseConnection()


class Request:
    """What a URL means: whom to ask, for what, and how it is shown."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.is_tls = parts.scheme.lower() == "https"
        usual = 443 if self.is_tls else 80
        self.host, self.port = parts.hostname or "", parts.port or usual
        host = f"[{self.host}]" if ":" in self.host else self.host
        named = host if self.port == usual else f"{host}:{self.port}"
        # A password in it is not for everybody who reads a status.
        self.shown = parts._replace(netloc=named, fragment="").geturl()
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [
            *(f"GET {path} HTTP/1.1", f"Host: {named}", f"User-Agent: ncolony-check/{__version__}"),
            *("Accept: */*", *_authorization(parts), "Connection: close"),
        ]
        self.data = "\r\n".join([*lines, "", ""]).encode()


def _authorization(parts: SplitResult) -> list[str]:
    if parts.username is None:
        return []
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return [f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}"]


@functools.lru_cache(maxsize=10_000)
def request_of(url: str) -> Request:
    """The request for a URL."""
    return Request(url)


class HttpProbe(Probe):
    """A look at how a GET request is answered. Redirects are not followed: they are answers."""

    def __init__(
        self,
        reactor: Any,
        resolver: Resolver,
        contexts: Contexts,
        url: str,
        timeout: float,
        done: Done,
        *,
        insecure: bool = False,
        any_status: bool = False,
    ) -> None:
        self.request = request_of(url)
        super().__init__(reactor, resolver, self.request.host, self.request.port, timeout, done)
        self._contexts, self._insecure, self._any_status = contexts, insecure, any_status

    def protocol(self) -> Protocol:
        """What sends the request."""
        return _Client(self, self._reactor)

    def tls(self, send: Callable[[bytes], None]) -> Tls | None:
        """What encrypts, where that is asked for."""
        if not self.request.is_tls:
            return None
        return Tls(self._contexts.get(self._insecure), self.request.host, send)

    def judge(self, status: int) -> None:
        """There is an answer."""
        good = self._any_status or status in _GOOD_STATUS
        self.finish(GOOD if good else Outcome(f"status {status}"))


class _Client(Protocol):
    """Sends the request and hears the headers of the answer; then lets the server hang up."""

    transport: Any

    def __init__(self, probe: HttpProbe, reactor: Any) -> None:
        self._probe, self._reactor = probe, reactor
        self._data = b""
        self._tls: Tls | None = None
        self._rest = _LONGEST_BODY
        self._answered = False
        self._timer: Any = None

    def connectionMade(self) -> None:  # noqa: N802 (Twisted's interface)
        try:
            self._tls = self._probe.tls(self.transport.write)
            if self._tls is None:
                self.transport.write(self._probe.request.data)
            else:
                self._tls.write(self._probe.request.data)
        except Broken as broken:
            self._end(Outcome(str(broken)))
        except (OSError, ValueError) as error:  # the system's certificates, or a host that no certificate can have
            self._end(Outcome(f"cannot begin TLS: {error}", unknown=isinstance(error, OSError)))

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 (Twisted's interface)
        if self._answered:
            self._rest -= len(data)
            if self._rest < 0:
                self._hang_up()
            return
        try:
            self._data += data if self._tls is None else self._tls.feed(data)
        except Broken as broken:
            self._end(Outcome(str(broken)))
            return
        self._look()

    def _look(self) -> None:
        """Is the answer there? Interim answers (1xx) come before it."""
        while True:
            head = self._data[: len(b"HTTP/1.")]
            if not b"HTTP/1.".startswith(head) and not head.startswith(b"HTTP/1."):
                self._end(Outcome(f"no HTTP: {self._beginning()}"))
                return
            end = re.search(rb"\r?\n\r?\n", self._data)
            if end is None:
                if len(self._data) > _LONGEST_HEADERS:
                    self._end(Outcome(f"headers of more than {_LONGEST_HEADERS} bytes"))
                return
            found = _STATUS.match(self._data)
            if found is None:
                self._end(Outcome(f"no HTTP: {self._beginning()}"))
                return
            status = int(found[1])
            if status < 200 and status != 101:
                self._data = self._data[end.end() :]
                continue
            self._answered, self._data = True, b""
            self._timer = self._reactor.callLater(_LINGER_S, self._hang_up)
            self._probe.judge(status)
            return

    def _end(self, outcome: Outcome) -> None:
        self._probe.finish(outcome)
        self._answered = True
        self.transport.loseConnection()

    def _hang_up(self) -> None:
        self._rest = 0
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 (Twisted's interface)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        said = f"closed in the middle of its answer: {self._beginning()}" if self._data else "closed without an answer"
        self._probe.finish(Outcome(said))

    def _beginning(self) -> str:
        return quoted(self._data.partition(b"\n")[0][:200].decode("latin-1"))


def tcp_probe(reactor: Any, resolver: Resolver, place: str, timeout: float, done: Done) -> Probe:
    """A look at whether a connection can be opened to HOST:PORT."""
    found = parse_host_port(place)
    assert found is not None, place  # the model has seen to it
    return Probe(reactor, resolver, *found, timeout, done)
