"""Answers whether a colony lives and is ready, over HTTP, for probes: ``python -m twisted ncolony-health``.

/livez, /readyz and /healthz, in the manner of Kubernetes' own. A program of its own, best run as one of the colony's
processes. It tells what status files tell everybody, and nothing of environments, output or config files.
"""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import parse_qs

from twisted.application.service import MultiService, Service
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python import usage
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from ..ctllib import Checkup, Error, Places, Trouble
from ..ctllib.checkup import KEEPER, PROBLEMS, SUPERVISOR
from ..ctllib.reports import Status
from ..model.conditions import parse_host_port
from ..model.names import printable
from ..system.places import messages_directory
from .plugin import PLACES, PlacesOptions, Signals

_log = Logger(namespace="ncolony.health")

DEFAULT_LISTEN = "127.0.0.1:8081"
FRESH_S = 0.2
"""Seconds for which an answer holds: however many ask, it is not looked more often."""
KEEPER_PATIENCE_S = 10.0
"""Seconds that a supervisor has to replace a keeper; one that does not come up is tried again every 5 s."""

# What each page asks: whether the colony lives, and whether it is ready.
_LIVE, _READY = "livez", "readyz"
_PAGES = {_LIVE: (_LIVE,), _READY: (_READY,), "healthz": (_LIVE, _READY)}
# Of those that are no processes: what is asked for each. Nothing that is reported is sure while nobody supervises.
# A full disk, say, is no reason for anybody to kill what runs, or to send it no requests.
_CHECKS = {_LIVE: (SUPERVISOR, KEEPER), _READY: (SUPERVISOR,)}
_OTHERS = "healthz"

Checks = dict[str, list[Trouble]]


class Practice:
    """Looks at the colony when somebody asks, and not too often."""

    def __init__(self, places: Places, state: str | None, ourselves: str, clock: Callable[[], float]) -> None:
        self._checkup = Checkup(places, state, KEEPER_PATIENCE_S)
        self._ourselves, self._clock = ourselves, clock
        self._colony: Checks = {}
        self._processes: dict[str, tuple[Status, list[Trouble]]] = {}
        self._looked = -FRESH_S

    def checks(self, page: str) -> Checks:
        """What is looked at for this page, by name, each with what is wrong with it."""
        self._look()
        found: Checks = {}
        for part in _PAGES[page]:
            found |= {name: self._colony[name] for name in _CHECKS[part] if name in self._colony}
        if page == _OTHERS and PROBLEMS in self._colony:
            found[PROBLEMS] = self._colony[PROBLEMS]
        if _READY in _PAGES[page]:
            # That we run ourselves is shown by this answer; and nobody is ready as long as he waits for himself.
            found |= {name: wrong for name, (_, wrong) in self._processes.items() if name != self._ourselves}
        return found

    def file_of(self, name: str) -> str:
        """The config file of a process."""
        return self._processes[name][0].file if name in self._processes else name

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked < FRESH_S:
            return
        self._looked = now
        try:
            self._colony, self._processes = self._checkup.colony(), self._checkup.processes()
        except Error as wrong:
            # What cannot be read cannot be well.
            self._colony = {SUPERVISOR: [Trouble(SUPERVISOR, "unknown", str(wrong))]}
            self._processes = {}


class Pages(Resource):
    """The three pages."""

    isLeaf = True  # noqa: N815 (Twisted's interface)

    def __init__(self, practice: Practice) -> None:
        super().__init__()
        self._practice = practice

    def render(self, request: Request) -> int:
        """Answer GET and HEAD."""
        path = [part.decode("utf-8", "replace") for part in request.postpath or []]
        page, names = (path[0] if path else ""), path[1:]
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"allow", b"GET, HEAD")
            return _answer(request, 405, "only GET and HEAD are answered\n")
        if page not in _PAGES or len(names) > 1:
            return _answer(request, 404, f"there is no such page, only {', '.join(f'/{one}' for one in _PAGES)}\n")
        if names and names != [""]:
            return self._one(request, page, names[0])
        return self._all(request, page)

    def _one(self, request: Request, page: str, name: str) -> int:
        """The page about one process: the name of its file means all its copies."""
        found = {
            one: wrong
            for one, wrong in self._practice.checks(page).items()
            if name in (one, self._practice.file_of(one))
        }
        if not found:
            return _answer(request, 404, f"{printable(name)}: no such process\n")
        return _verdict(request, f"{page}/{printable(name)}", found, set(), [])

    def _all(self, request: Request, page: str) -> int:
        found = self._practice.checks(page)
        wanted = _asked(request).get("exclude", [])
        excluded = {name for name in found if name in wanted or self._practice.file_of(name) in wanted}
        known = {other for name in found for other in (name, self._practice.file_of(name))}
        return _verdict(request, page, found, excluded, [name for name in wanted if name not in known])


def _verdict(request: Request, what: str, checks: Checks, excluded: set[str], unknown: list[str]) -> int:
    wrong = [trouble for name, some in checks.items() if name not in excluded for trouble in some]
    code = 503 if wrong else 200
    verbose = "verbose" in _asked(request)
    if _wants_json(request):
        about: dict[str, object] = {"healthy": not wrong, "reasons": [trouble.record() for trouble in wrong]}
        if verbose:
            about["checks"] = {printable(name): _word(name, some, excluded) for name, some in checks.items()}
            about["unknown"] = [printable(name) for name in unknown]
        return _answer(request, code, json.dumps(about) + "\n", "application/json")
    if not wrong and not verbose:
        return _answer(request, code, "ok\n")
    lines = [line for name, some in checks.items() for line in _lines(name, some, excluded, verbose)]
    lines += [f"warning: there is no {printable(name)} to exclude" for name in unknown]
    return _answer(request, code, "".join(f"{line}\n" for line in [*lines, f"{what} check {_PASSED[not wrong]}"]))


_PASSED = {True: "passed", False: "failed"}


def _word(name: str, troubles: Sequence[Trouble], excluded: set[str]) -> str:
    return "excluded" if name in excluded else "failed" if troubles else "ok"


def _lines(name: str, troubles: Sequence[Trouble], excluded: set[str], verbose: bool) -> Iterable[str]:
    """The lines of one check, as kube-apiserver writes them, but that reasons are told; without `verbose` failures."""
    if name in excluded or not troubles:
        return [f"[+]{printable(name)} {'excluded: ok' if name in excluded else 'ok'}"] if verbose else []
    return [f"[-]{printable(name)} failed: {printable(trouble.why)}" for trouble in troubles]


def _asked(request: Request) -> dict[str, list[str]]:
    """What stands behind the "?". Twisted's own `args` have nothing without a "=", such as a bare "verbose"."""
    query = request.uri.partition(b"?")[2]
    return parse_qs(query.decode("utf-8", "replace"), keep_blank_values=True, errors="replace")


def _wants_json(request: Request) -> bool:
    accepted = (request.getHeader("accept") or "").lower()
    return any(one.split(";")[0].strip() == "application/json" for one in accepted.split(","))


def _answer(request: Request, code: int, text: str, kind: str = "text/plain; charset=utf-8") -> int:
    body = text.encode("utf-8", "backslashreplace")
    request.setResponseCode(code)
    request.setHeader(b"server", b"ncolony-health")
    request.setHeader(b"content-type", kind.encode())
    request.setHeader(b"content-length", b"%d" % len(body))
    request.setHeader(b"cache-control", b"no-store")
    request.setHeader(b"x-content-type-options", b"nosniff")
    request.write(body)  # of HEAD Twisted sends the header alone
    request.finish()
    return NOT_DONE_YET


class Probes(Site):
    """Takes the requests, and writes no line for each of them: they come every few seconds, for ever."""

    noisy = False

    def log(self, request: HTTPRequest) -> None:
        """Nothing."""


class Server(Service):
    """The pages as a service of Twisted's."""

    def __init__(self, reactor: Any, listen: tuple[str, int], practice: Practice) -> None:
        self._reactor, (self._host, self._port) = reactor, listen
        self._site = Probes(Pages(practice))
        self._listening: Any = None

    def privilegedStartService(self) -> None:  # noqa: N802 (Twisted's interface)
        """Listen, while that takes a privilege which may be given up.

        :raises SystemExit: saying why it cannot listen.
        """
        try:
            self._listening = self._listen()
        except (error.CannotListenError, OSError) as wrong:
            cause = getattr(wrong, "socketError", wrong)
            why = getattr(cause, "strerror", None) or str(cause)
            raise SystemExit(f"cannot listen on {_written(self._host, self._port)}: {why}") from None

    def startService(self) -> None:  # noqa: N802 (Twisted's interface)
        """Say where it listens."""
        if self._listening is None:
            self.privilegedStartService()
        super().startService()
        # Whoever waits for this line may send a signal then: the handlers are in place.
        self._reactor.callWhenRunning(self._say)

    def _say(self) -> None:
        if self._listening is not None:
            at = self._listening.getHost()
            # Whoever let the kernel choose the port learns it here.
            _log.info("listens on {url}", url=f"http://{_written(self._host or at.host, at.port)}")

    def stopService(self) -> Deferred[None] | None:  # noqa: N802 (Twisted's interface)
        """Listen no more."""
        super().stopService()
        listening, self._listening = self._listening, None
        return None if listening is None else listening.stopListening()

    def _listen(self) -> Any:
        if self._host:
            return self._reactor.listenTCP(self._port, self._site, interface=_address(self._host))
        try:
            return self._reactor.listenTCP(self._port, self._site, interface="::")  # IPv4 too, where both are there
        except error.CannotListenError as wrong:
            if not isinstance(wrong.socketError, OSError) or wrong.socketError.errno == errno.EADDRINUSE:
                raise
            return self._reactor.listenTCP(self._port, self._site)


def _address(host: str) -> str:
    """The address of a name, which Twisted wants to be given.

    :raises OSError: when it has none.
    """
    return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_listen(text: str) -> tuple[str, int]:
    """(host, port) of "HOST:PORT", "[::1]:PORT", ":PORT" or "PORT", with or without "tcp:" before it.

    :raises usage.UsageError: when it is nothing of the kind.
    """
    found = parse_host_port(text.removeprefix("tcp:"))
    if found is None:
        raise usage.UsageError(f"--listen: expected HOST:PORT or PORT, found {text!r}")
    return found


class Options(PlacesOptions):
    """Options of `ncolony-health`."""

    NEEDED = (("config", "DIR"),)
    optParameters = [  # noqa: N815, RUF012 (Twisted's interface)
        ["messages", None, None, "The colony's directory of messages [default: that of `ncolony run`]"],
        *PLACES[1:],
        ["listen", None, DEFAULT_LISTEN, "HOST:PORT to listen on, or PORT for every address; port 0: any free one"],
    ]

    def postOptions(self) -> None:  # noqa: N802 (Twisted's interface)
        """Check that nothing is missing, and where to listen.

        :raises usage.UsageError: when something is wrong.
        """
        super().postOptions()
        self["listen"] = parse_listen(self["listen"])


def makeService(options: Options) -> MultiService:  # noqa: N802 (Twisted's interface)
    """The pages as a service, from parsed options."""
    from twisted.internet import reactor

    config, state = options["config"], options["state"]
    places = Places(config, options["messages"] or messages_directory(config, state))
    ourselves = os.environ.get("NCOLONY_NAME", "")
    together = MultiService()
    server = Server(reactor, options["listen"], Practice(places, state, ourselves, time.monotonic))
    for service in (Signals(reactor), server):
        service.setServiceParent(together)
    return together
