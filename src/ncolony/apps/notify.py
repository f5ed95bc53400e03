"""Tells others what happens to the processes of a colony, by running a command or posting to a URL.

A program of its own, best run as one of the colony's processes. It reads events, statuses and histories; nobody waits
for it.
"""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

import math
import os
import shlex
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet import defer, error
from twisted.logger import Logger
from twisted.python import usage

from ..ctllib import Error, Places
from ..ctllib.common import state_directory
from ..decide.alerts import KINDS, Alert, Rate, Rules
from ..system.clock import make_steady
from ..system.files import sweep
from ..system.places import make_closed
from ..system.wake import Watcher
from . import letters
from .alerting import Desk, Facts, Plan
from .plugin import PLACES, PlacesOptions, Signals, checked
from .receivers import Command, Outcome, Receiver, Web, has_tls, parse_header, parse_url, trust

_log = Logger(namespace="ncolony.notify")

# Single ends of processes that are started again anyway are for those who ask for them.
DEFAULT_KINDS = tuple(kind for kind in KINDS if kind != "exit")
# NUMBER, SECONDS. With the usual waits, which double from 1 s, three quick ends take some seconds.
_DEFAULTS = {"crash-loop": (3, 300.0), "rate": (20, 300.0)}
_MOST = 1000
# How long what is due may take when we are to end.
_PATIENCE_S = 1.0
_LOOK_S, _LOOK_WITHOUT_HINTS_S = 10.0, 1.0


def parse_per(text: str) -> tuple[int, float]:
    """The number and the seconds in "3/300".

    :raises ValueError: when that is not what it is.
    """
    number, _, seconds = text.partition("/")
    with suppress(ValueError):
        if number.isascii() and number.isdigit() and 1 <= int(number) <= _MOST:
            return int(number), _seconds(seconds)
    raise ValueError(f"expected NUMBER/SECONDS with a number from 1 to {_MOST}, found {text!r}")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 366 * 86400:
        raise ValueError(f"expected seconds, more than 0, found {text!r}")
    return value


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 1_000_000:
        return int(text)
    raise ValueError(f"expected a number, found {text!r}")


def _form(text: str) -> str:
    if text not in letters.FORMATS:
        raise ValueError(f"expected one of {', '.join(letters.FORMATS)}, found {text!r}")
    return text


def _words(text: str) -> list[str]:
    words = shlex.split(text)
    if not words or not words[0]:
        raise ValueError("expected a command")
    return words


def _kinds(text: str) -> list[str]:
    found = [word.strip() for word in text.split(",") if word.strip()]
    for word in found:
        if word not in (*KINDS, "all"):
            raise ValueError(f"expected some of {', '.join((*KINDS, 'all'))}, found {word!r}")
    return list(KINDS) if "all" in found else found


class Options(PlacesOptions):
    """Options of `ncolony-notify`."""

    HINT = ": give a command as one text after --exec"
    optFlags = [["test", None, "Send one test, tell whether it has arrived, and end"]]  # noqa: N815, RUF012
    optParameters = [  # noqa: N815, RUF012 (Twisted's interface)
        *PLACES,
        [
            "crash-loop",
            None,
            None,
            "So many ends in so many seconds are one [default: 3/300]",
            checked("crash-loop", parse_per),
        ],
        [
            "steady",
            None,
            None,
            "Well for so long is well again [default: the seconds of --crash-loop]",
            checked("steady", _seconds),
        ],
        ["rate", None, None, "Letters in so many seconds, at most [default: 20/300]", checked("rate", parse_per)],
        ["retries", None, 30, "How often a letter is tried again", checked("retries", _count)],
        ["timeout", None, 10.0, "Seconds that a try may take", checked("timeout", _seconds)],
        ["header-file", None, None, "File with more headers, a line each, read for each letter"],
        ["ca", None, None, "PEM file of the authorities to trust for https"],
        ["format", None, "json", "What is sent: json, slack or text", checked("format", _form)],
        ["hostname", None, None, "The host in letters [default: this machine's]"],
        ["state-file", None, None, "File to remember in what was told [default: in the state directory]"],
    ]

    def __init__(self) -> None:
        super().__init__()
        for name in ("on", "exec", "url", "header", "name", "group"):
            self[name] = []

    def opt_exec(self, command: str) -> None:
        """A command to run, with its arguments in one text; no shell. May be repeated"""
        self["exec"].append(checked("exec", _words)(command))

    def opt_url(self, url: str) -> None:
        """A URL to post to; may be repeated"""
        self["url"].append(checked("url", parse_url)(url))

    def opt_url_file(self, path: str) -> None:
        """File with a URL that is secret; may be repeated"""
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read(1 << 16).strip()
        except (OSError, ValueError) as problem:
            why = problem.strerror if isinstance(problem, OSError) else "not UTF-8"
            raise usage.UsageError(f"--url-file: cannot read {path}: {why}") from None
        self["url"].append(checked("url-file", parse_url)(text))

    def opt_on(self, kinds: str) -> None:
        """What to tell of, with commas, or all; may be repeated [default: all but exit]"""
        self["on"] += checked("on", _kinds)(kinds)

    def opt_header(self, line: str) -> None:
        """A header such as 'Name: value'; may be repeated"""
        self["header"].append(checked("header", parse_header)(line))

    def opt_name(self, pattern: str) -> None:
        """A process, or glob, to tell of; may be repeated [default: every process but this one]"""
        self["name"].append(pattern)

    def opt_group(self, name: str) -> None:
        """A group to tell of; may be repeated"""
        self["group"].append(name)

    def postOptions(self) -> None:  # noqa: N802 (Twisted's interface)
        """Check that nothing is missing.

        :raises usage.UsageError: when something is.
        """
        super().postOptions()
        count = len(self["exec"]) + len(self["url"])
        if not count:
            raise usage.UsageError("--exec COMMAND, --url URL or --url-file PATH is required")
        if self["state-file"] and count > 1:
            raise usage.UsageError("--state-file is for one receiver, and there are several")
        for name, default in _DEFAULTS.items():
            self[name] = default if self[name] is None else self[name]
        self["steady"] = self["steady"] or self["crash-loop"][1]
        self["on"] = self["on"] or list(DEFAULT_KINDS)


class Notifying(Service):
    """The desks as one service of Twisted's."""

    def __init__(self, reactor: Any, state: str, desks: Sequence[Desk]) -> None:
        self._reactor, self._state, self._desks = reactor, state, desks
        self._watcher: Watcher | None = None
        self._timer: Any = None

    def startService(self) -> None:  # noqa: N802 (Twisted's interface)
        """Begin once the reactor runs."""
        super().startService()
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if not self.running:
            return
        self._watcher = Watcher(self._reactor, self._changed)
        for desk in self._desks:
            desk.start()
        self._look()

    def _changed(self, directory: str, names: set[str] | None) -> None:
        if names is None or "events" in names:
            for desk in self._desks:
                desk.hint()

    def _look(self) -> None:
        """Hints may fail to come; a directory that was not there has none."""
        assert self._watcher is not None
        self._watcher.arm(self._state)
        for desk in self._desks:
            desk.look()
        hints = self._watcher.fileno() >= 0 and os.path.isdir(self._state)
        self._timer = self._reactor.callLater(_LOOK_S if hints else _LOOK_WITHOUT_HINTS_S, self._look)

    def stopService(self) -> defer.Deferred[Any]:  # noqa: N802 (Twisted's interface)
        """Stop; the Deferred fires when what is due was told, or cannot be."""
        super().stopService()
        if self._watcher is not None:
            self._watcher.close()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        stopped = defer.DeferredList([desk.stop(_PATIENCE_S) for desk in self._desks])
        return stopped.addCallback(lambda _: _leave_resolvers(self._reactor))

    def kill(self) -> None:
        """End at once."""
        for desk in self._desks:
            desk.give_up()


def _leave_resolvers(reactor: Any) -> None:
    """A thread that asks for the address of a host cannot be stopped, and the reactor would wait for it."""
    if reactor.getThreadPool().working:
        os._exit(0)


class Trial(Service):
    """Sends one test to each receiver, tells whether it has arrived, and ends everything."""

    def __init__(self, reactor: Any, receivers: Sequence[Receiver], record: letters.Letter) -> None:
        self._reactor, self._receivers, self._record = reactor, receivers, record

    def startService(self) -> None:  # noqa: N802 (Twisted's interface)
        """Begin once the reactor runs."""
        super().startService()
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        sent = [receiver.send(self._record) for receiver in self._receivers]
        defer.gatherResults(sent).addCallbacks(self._done, self._failed)

    def _done(self, outcomes: list[Outcome]) -> None:
        for receiver, outcome in zip(self._receivers, outcomes, strict=True):
            if outcome.why:
                _log.error("cannot tell {place}: {why}", place=receiver.place, why=outcome.why)
            else:
                _log.info("told {place}", place=receiver.place)
        self._end(any(outcome.why for outcome in outcomes))

    def _failed(self, failure: Any) -> None:
        _log.failure("cannot test", failure)
        self._end(True)

    def _end(self, failed: bool) -> None:
        if failed:
            self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        with suppress(error.ReactorNotRunning):
            self._reactor.stop()

    def kill(self) -> None:
        """End at once."""
        self._end(True)


def makeService(options: Options) -> MultiService:  # noqa: N802 (Twisted's interface)
    """The notifier as a service, from parsed options.

    :raises SystemExit: saying why it cannot start.
    """
    # Not at the top: `--reactor` must have had its choice first.
    from twisted.internet import reactor

    make_steady(reactor)
    places, host = Places(options["config"], options["messages"]), options["hostname"] or socket.gethostname()
    receivers = _receivers(reactor, options)
    what: Any
    if options["test"]:
        alert = Alert("test", now := time.time(), "this is a test", since=now)
        record = letters.letter(alert, "test", host=host, config=os.path.abspath(places.config))
        what = Trial(reactor, receivers, record)
    else:
        try:
            state = state_directory(places, options["state"])
        except Error as problem:
            raise SystemExit(f"cannot start: {problem}") from None
        what = Notifying(reactor, state, _desks(reactor, options, places, state, host, receivers))
    together = MultiService()
    Signals(reactor, what.kill).setServiceParent(together)
    what.setServiceParent(together)
    return together


def _receivers(reactor: Any, options: Options) -> list[Receiver]:
    form, timeout, path = options["format"], options["timeout"], options["header-file"]
    policy = None
    if any(url.startswith("https:") for url in options["url"]):
        if not has_tls():
            raise SystemExit("cannot start: https needs TLS, which is not installed: pip install 'ncolony[tls]'")
        try:
            policy = trust(options["ca"])
        except (OSError, ValueError) as problem:
            why = problem.strerror if isinstance(problem, OSError) else problem
            raise SystemExit(f"cannot start: --ca: cannot use {options['ca']}: {why}") from None

    def headers() -> list[tuple[str, str]]:
        return [*options["header"], *(_headers_in(path) if path else ())]

    try:
        headers()
    except (OSError, ValueError) as problem:
        why = f"cannot read {path}: {problem.strerror}" if isinstance(problem, OSError) else problem
        raise SystemExit(f"cannot start: --header-file: {why}") from None
    found: list[Receiver] = [Command(reactor, words, form, timeout) for words in options["exec"]]
    found += [Web(reactor, url, form, timeout, headers, policy) for url in options["url"]]
    return found


def _headers_in(path: str) -> list[tuple[str, str]]:
    """The headers in a file; what is wrong with it is said without them."""
    with open(path, encoding="latin-1") as file:
        lines = file.read(1 << 16).splitlines()
    try:
        return [parse_header(line) for line in lines if line.strip() and not line.startswith("#")]
    except ValueError as problem:
        raise ValueError(f"a line of {path} is no header: {problem}") from None


def _desks(
    reactor: Any, options: Options, places: Places, state: str, host: str, receivers: Sequence[Receiver]
) -> list[Desk]:
    deaths, within = options["crash-loop"]
    rules = Rules(frozenset(options["on"]), deaths, within, options["steady"])
    plan = Plan(rules, Rate(*options["rate"]), options["retries"], host)
    # What happens to ourselves is no news: it would be told by us, and might happen because of that.
    ourselves = os.environ.get("NCOLONY_NAME", "")
    desks = []
    for receiver in receivers:
        path = options["state-file"] or f"{state}/notify-to/{_hash(receiver.identity)}.json"
        facts = Facts(places, state, options["name"], options["group"], ourselves)
        try:
            if not options["state-file"]:
                make_closed(os.path.dirname(path), 0o700)
            sweep(os.path.dirname(os.path.abspath(path)))
            desks.append(Desk(reactor, facts, receiver, plan, path))
        except BlockingIOError:
            why = f"another ncolony-notify tells {receiver.place}"
            raise SystemExit(f"cannot start: {why} and remembers it in {path}; give --state-file") from None
        except OSError as problem:
            raise SystemExit(f"cannot start: cannot use {problem.filename or path}: {problem.strerror}") from None
        except Error as problem:
            raise SystemExit(f"cannot start: {problem}") from None
    return desks


def _hash(words: Sequence[str]) -> str:
    return blake2b("\0".join(words).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
