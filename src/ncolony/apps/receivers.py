"""Who gets alerts: a command that is run, or a URL that is posted to. Each says whether the letter has arrived."""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

import email.utils
import importlib.util
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from twisted.internet import defer, error
from twisted.internet.protocol import Protocol as Connection
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, RequestTransmissionFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from .. import __version__
from ..model.names import printable
from . import letters

# While a command runs it is looked at this often: at first, and at most.
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.005, 0.1
# What was killed is waited for so long.
_LAST_WAIT_S = 1.0
# So much of an answer is read, and so long, to say what a receiver has against a letter.
_MOST_ANSWER, _ANSWER_S = 1000, 2.0
# Of the answers that mean "your fault", those that may be different next time.
_TRY_AGAIN = (408, 429)
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([ -~\t\x80-\xff]*)")
CONTENT_TYPES = {"json": "application/json", "slack": "application/json", "text": "text/plain; charset=utf-8"}


class Outcome(NamedTuple):
    """What became of a letter: it has arrived when there is no `why`. `final`: another try would not help.

    `asked` is how many seconds the receiver wants to be left alone.
    """

    why: str = ""
    final: bool = False
    asked: float | None = None


class Receiver(Protocol):
    """Takes one letter at a time."""

    place: str  # how it is called in logs: without what may be secret
    identity: tuple[str, ...]

    def send(self, record: letters.Letter) -> defer.Deferred[Outcome]:
        """Send a letter; never fails. When it is cancelled, what is under way is ended."""


class Command:
    """Runs a command, with the letter at its standard input. Exit code 0 means that it has arrived."""

    def __init__(self, reactor: Any, words: Sequence[str], form: str, timeout: float) -> None:
        self._reactor, self._words, self._form, self._timeout = reactor, list(words), form, timeout
        self.place = f"command {os.path.basename(words[0])}"
        self.identity: tuple[str, ...] = ("exec", *words)

    def send(self, record: letters.Letter) -> defer.Deferred[Outcome]:
        """Run it once."""
        try:
            process = self._start(record)
        except (OSError, ValueError) as problem:
            why = (problem.strerror if isinstance(problem, OSError) else None) or str(problem)
            return defer.succeed(Outcome(f"cannot run {self._words[0]!r}: {why}"))
        return _Run(self._reactor, process, self._timeout).done

    def _start(self, record: letters.Letter) -> subprocess.Popen[bytes]:
        # A file and no pipe: so nobody has to wait until it is read.
        with tempfile.TemporaryFile() as file:
            file.write(letters.encode(record, self._form))
            file.seek(0)
            return subprocess.Popen(
                self._words, stdin=file, env={**os.environ, **letters.variables(record)}, start_new_session=True
            )


class _Run:
    """A command that runs, in a session and process group of its own."""

    def __init__(self, reactor: Any, process: subprocess.Popen[bytes], timeout: float) -> None:
        self._reactor, self._process, self._timeout = reactor, process, timeout
        self._deadline = reactor.seconds() + timeout
        self._pause = _FIRST_LOOK_S
        self._killed = ""
        self.done: defer.Deferred[Outcome] = defer.Deferred(self._cancelled)
        self._timer: Any = None
        self._look()

    def _look(self) -> None:
        code = self._process.poll()
        now = self._reactor.seconds()
        if code is not None:
            self.done.callback(Outcome(self._killed or _verdict(code)))
        elif now < self._deadline:
            self._timer = self._reactor.callLater(min(self._pause, self._deadline - now), self._look)
            self._pause = min(self._pause * 1.5, _LONGEST_LOOK_S)
        elif self._killed:
            self.done.callback(Outcome(self._killed))  # not even SIGKILL ends it now
        else:
            self._kill(f"it did not end within {self._timeout:g} s")
            self._look()

    def _kill(self, why: str) -> None:
        self._killed = why
        self._deadline, self._pause = self._reactor.seconds() + _LAST_WAIT_S, _FIRST_LOOK_S
        # It has not been waited for, so the number is nobody else's.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _cancelled(self, done: defer.Deferred[Outcome]) -> None:
        self._timer.cancel()
        self._kill("it was ended")
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WAIT_S)
        done.callback(Outcome(self._killed))


def _verdict(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"it was ended by signal {signal.Signals(-code).name.removeprefix('SIG')}"
    return f"it ended with exit code {code}" if code else ""


# A URL


def parse_header(line: str) -> tuple[str, str]:
    """Name and value of "Name: value".

    :raises ValueError: when it is no header.
    """
    found = _HEADER.fullmatch(line.strip())
    if found is None:
        raise ValueError("expected a header such as 'Name: value'")
    return found[1], found[2].strip()


def parse_url(text: str) -> str:
    """The URL, if it can be posted to.

    :raises ValueError: saying what is wrong, without the URL, which may be secret.
    """
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not text.isascii() or any(letter <= " " or letter == "\x7f" for letter in text):
        raise ValueError("expected a URL that begins with http:// or https://")
    if parts.username is not None:
        raise ValueError("expected a URL without a password in it; give an Authorization header with --header-file")
    return parts._replace(fragment="").geturl()


def has_tls() -> bool:
    """Whether https can be spoken."""
    return all(importlib.util.find_spec(name) is not None for name in ("OpenSSL", "service_identity"))


def trust(path: str | None) -> Any:
    """A policy for https: the machine's authorities are trusted, or those in the PEM file instead.

    :raises OSError: when the file cannot be read.
    :raises ValueError: when there is no certificate in it.
    """
    from twisted.internet.ssl import Certificate, trustRootFromCertificates
    from twisted.web.client import BrowserLikePolicyForHTTPS

    if path is None:
        return BrowserLikePolicyForHTTPS()
    with open(path, "rb") as file:
        found = re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", file.read(1 << 24), re.DOTALL)
    if not found:
        raise ValueError("there is no certificate in it")
    try:
        authorities = [Certificate.loadPEM(one + b"\n") for one in found]
    except Exception as problem:  # whatever the library raises for it
        raise ValueError("a certificate in it cannot be read") from problem
    return BrowserLikePolicyForHTTPS(trustRootFromCertificates(authorities))


class Web:
    """Posts to a URL. A status from 200 to 299 means that it has arrived."""

    def __init__(
        self,
        reactor: Any,
        url: str,
        form: str,
        timeout: float,
        headers: Callable[[], Sequence[tuple[str, str]]],
        policy: Any = None,
    ) -> None:
        """`headers` is asked for each letter, so that secrets can change; it may raise OSError or ValueError."""
        self._reactor, self._url, self._form, self._timeout, self._headers = reactor, url, form, timeout, headers
        # A connection each: the next letter may be days away.
        pool = HTTPConnectionPool(reactor, persistent=False)
        pool._factory.noisy = False  # each would be logged twice
        more = {} if policy is None else {"contextFactory": policy}
        self._agent = Agent(reactor, connectTimeout=timeout, pool=pool, **more)
        parts = urlsplit(url)
        self.place = f"{parts.scheme}://{parts.netloc}"
        self.identity: tuple[str, ...] = ("url", url)

    def send(self, record: letters.Letter) -> defer.Deferred[Outcome]:
        """Post it once."""
        headers = Headers()
        headers.setRawHeaders("Content-Type", [CONTENT_TYPES[self._form]])
        headers.setRawHeaders("User-Agent", [f"ncolony-notify/{__version__}"])
        try:
            for name, value in self._headers():
                headers.setRawHeaders(name, [value.encode("latin-1")])
        except OSError as problem:
            return defer.succeed(Outcome(f"cannot read {problem.filename}: {problem.strerror}"))
        except ValueError as problem:
            return defer.succeed(Outcome(str(problem)))
        body: Any = _Body(letters.encode(record, self._form))
        asked: defer.Deferred[Any] = self._agent.request(b"POST", self._url.encode("ascii"), headers, body)
        late: list[bool] = []  # what a request says that was given up does not tell why it was

        def give_up() -> None:
            late.append(True)
            asked.cancel()

        timer = self._reactor.callLater(self._timeout, give_up)

        def over(outcome: Outcome) -> Outcome:
            if timer.active():
                timer.cancel()
            return Outcome(f"it did not answer within {self._timeout:g} s") if late and outcome.why else outcome

        return asked.addCallback(self._answered).addErrback(self._failed).addCallback(over)

    def _answered(self, response: Any) -> Any:
        # Well before our own time is over, or its status would be forgotten.
        patience = min(_ANSWER_S, self._timeout / 4)
        if 200 <= response.code < 300:
            response.deliverBody(_Answer(self._reactor, patience, lambda text: None))
            return Outcome()
        told: defer.Deferred[Outcome] = defer.Deferred()
        asked = retry_after(response.headers.getRawHeaders(b"Retry-After", [b""])[0], time.time())
        final = 400 <= response.code < 500 and response.code not in _TRY_AGAIN
        phrase = response.phrase.decode("latin-1")

        def done(text: str) -> None:
            why = f"it answered {response.code} {phrase}".strip() + (f": {text}" if text else "")
            told.callback(Outcome(printable(why), final, asked))

        response.deliverBody(_Answer(self._reactor, patience, done))
        return told

    def _failed(self, failure: Failure) -> Outcome:
        problem: Any = failure.value
        while isinstance(problem, (ResponseNeverReceived, RequestTransmissionFailed)) and problem.args:
            problem = problem.args[0][0].value if problem.args[0] else ""
        if isinstance(problem, error.TimeoutError):  # of the connection
            return Outcome(f"it did not answer within {self._timeout:g} s")
        if isinstance(problem, defer.CancelledError):
            return Outcome("it was ended")
        return Outcome(printable(str(problem).strip(" .") or type(problem).__name__))


def retry_after(value: bytes, now: float) -> float | None:
    """The seconds in a Retry-After header, which may say when instead; None without one that makes sense."""
    text = value.decode("latin-1").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


@implementer(IBodyProducer)
class _Body:
    """A body that is there already."""

    def __init__(self, data: bytes) -> None:
        self._data, self.length = data, len(data)

    def startProducing(self, consumer: Any) -> defer.Deferred[None]:  # noqa: N802 (Twisted's interface)
        consumer.write(self._data)
        return defer.succeed(None)

    def pauseProducing(self) -> None:  # noqa: N802 (Twisted's interface)
        """Part of the interface."""

    def resumeProducing(self) -> None:  # noqa: N802 (Twisted's interface)
        """Part of the interface."""

    def stopProducing(self) -> None:  # noqa: N802 (Twisted's interface)
        """Part of the interface."""


class _Answer(Connection):
    """Reads the beginning of an answer's body, for a short time, and calls `done` with it as text."""

    def __init__(self, reactor: Any, patience: float, done: Callable[[str], None]) -> None:
        self._done, self._data = done, b""
        self._timer = reactor.callLater(patience, self._enough)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 (Twisted's interface)
        self._data += data[:_MOST_ANSWER]
        if len(self._data) >= _MOST_ANSWER:
            self._enough()

    def connectionLost(self, reason: object = None) -> None:  # noqa: N802 (Twisted's interface)
        self._end()

    def _enough(self) -> None:
        self._end()
        transport: Any = self.transport
        transport.loseConnection()

    def _end(self) -> None:
        if self._timer is not None:
            if self._timer.active():
                self._timer.cancel()
            self._timer = None
            self._done(" ".join(self._data.decode("utf-8", "backslashreplace").split())[:200])
