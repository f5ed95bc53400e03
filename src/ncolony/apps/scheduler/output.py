"""What the commands print, line by line, into standard output or the log."""

# Twisted is typed, but not all of it.
# mypy: allow-untyped-calls

from __future__ import annotations

import getopt
import os
import select
import stat
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet import defer
from twisted.logger import Logger

LINE_LIMIT = 64 * 1024
"""Bytes of output after which a line is split; one pipe's worth, as for the processes of the supervisor."""

FULL = 256 * 1024
"""Bytes waiting for a slow standard output above which the command's output is left in its pipe."""

OVERFULL = 4 * FULL
"""Bytes waiting for a slow standard output above which lines are dropped and counted."""

LAST_WORDS_S = 1.0
"""Seconds that a slow standard output has to take the last lines when we stop."""

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != ord("\t")}
_CONTROLS |= {0x2028: "\\u2028", 0x2029: "\\u2029"}


class Lines:
    """Cuts a stream of bytes into printable lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that `data` completes."""
        *whole, rest = (self._rest + data).split(b"\n")
        lines = [piece for line in whole for piece in _pieces(line.removesuffix(b"\r"))]
        *long, self._rest = _pieces(rest)
        return [_printable(piece) for piece in (*lines, *long)]

    def end(self) -> list[str]:
        """Return the last line if it had no newline."""
        rest, self._rest = self._rest, b""
        return [_printable(rest)] if rest else []


def _pieces(line: bytes) -> list[bytes]:
    """Split a line that is too long, between characters where it is UTF-8."""
    pieces = []
    while len(line) > LINE_LIMIT:
        cut = LINE_LIMIT
        while cut > LINE_LIMIT - 4 and line[cut] & 0xC0 == 0x80:
            cut -= 1
        if line[cut] & 0xC0 == 0x80:
            cut = LINE_LIMIT
        pieces.append(line[:cut])
        line = line[cut:]
    return [*pieces, line]


def _printable(line: bytes) -> str:
    """Return the line as text in which bytes that are not UTF-8, and control characters, are shown escaped."""
    text = line.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.translate(_CONTROLS)


class Lined(Protocol):
    """What a run hands its lines to."""

    @property
    def full(self) -> bool:
        """Whether the command's output should be left in its pipe for now."""

    def lines(self, stream: str, lines: Sequence[str]) -> None:
        """Take lines of the command's output."""

    def problem(self, text: str) -> None:
        """Take one line about the command."""


class Output(Lined, Protocol):
    """Where the command's lines and our own go."""

    def when_room(self, call: Callable[[], None]) -> None:
        """Have `call` called each time this is no longer full."""

    def finish(self) -> defer.Deferred[None]:
        """Return a Deferred that fires when all has been written, or cannot be."""


class EventOutput:
    """Sends lines to Twisted's log, one event each."""

    full = False

    def __init__(self) -> None:
        self._log = Logger(namespace="ncolony.scheduler")

    def when_room(self, call: Callable[[], None]) -> None:
        """Do nothing: this is never full."""

    def lines(self, stream: str, lines: Sequence[str]) -> None:
        """Emit one event per line, with the fields `line` and `stream`."""
        for line in lines:
            self._log.info("{line}", line=line, stream=stream)

    def problem(self, text: str) -> None:
        """Emit one event with the field `problem`."""
        self._log.error("{problem}", problem=text)

    def finish(self) -> defer.Deferred[None]:
        """Return a Deferred that has fired."""
        return defer.succeed(None)


class BareOutput:
    """Writes lines to a descriptor as they are, never blocking on a slow reader and never failing.

    The descriptor is shared with Twisted's log and perhaps with other programs, so it cannot be made non-blocking.
    Instead no more is written at a time than a pipe that polls as writable has room for.
    """

    def __init__(self, reactor: Any, fd: int | None) -> None:
        self._reactor = reactor
        self._fd = fd
        # A descriptor of our own: the reactor's epoll forgets one that somebody else closes.
        self._own = -1 if fd is None else os.dup(fd)
        self._at_once = 0 if fd is None else OVERFULL if stat.S_ISREG(os.fstat(fd).st_mode) else select.PIPE_BUF
        self._poll = select.poll()
        if fd is not None:
            self._poll.register(self._own, select.POLLOUT)
        self._waiting = bytearray()
        self._dropped = 0
        self._inside_line = False
        self._watched = False
        self._room: list[Callable[[], None]] = []
        self._empty: defer.Deferred[None] | None = None
        self._last_call: Any = None

    @property
    def full(self) -> bool:
        """Whether more than `FULL` bytes wait to be written."""
        return len(self._waiting) > FULL

    def when_room(self, call: Callable[[], None]) -> None:
        """Have `call` called each time all waiting lines have been written."""
        self._room.append(call)

    def lines(self, stream: str, lines: Sequence[str]) -> None:
        """Write the lines."""
        for line in lines:
            self._put(line)
        self._write()

    def problem(self, text: str) -> None:
        """Write the text as a line."""
        self._put(text)
        self._write()

    def _put(self, line: str) -> None:
        """Let the line wait for its writing."""
        if self._own < 0:
            return
        if len(self._waiting) > OVERFULL:
            self._dropped += 1
            return
        if not self._waiting and self._inside_line:
            # The line before was cut off by a full disk.
            self._waiting += b"\n"
        self._waiting += line.encode("utf-8", "backslashreplace") + b"\n"

    def _write(self) -> None:
        """Write as much as can be written without waiting, and watch for room for the rest."""
        try:
            while self._waiting and self._poll.poll(0):
                piece = self._waiting[: self._at_once]
                written = os.write(self._own, piece)
                self._inside_line = written > 0 and piece[written - 1] != ord("\n")
                del self._waiting[:written]
        except BlockingIOError:
            pass  # somebody else made it non-blocking
        except OSError:
            self._waiting.clear()  # a reader that is gone or a full disk must stop nothing
        if not self._waiting:
            self._emptied()
        elif not self._watched:
            self._watched = True
            self._reactor.addWriter(self)

    def _emptied(self) -> None:
        if self._watched:
            self._watched = False
            self._reactor.removeWriter(self)
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self.problem(f"{dropped} lines of output were dropped: nobody read standard output")
            return
        for call in self._room:
            call()
        if self._empty is not None:
            empty, self._empty = self._empty, None
            self._last_call.cancel()
            empty.callback(None)

    def finish(self) -> defer.Deferred[None]:
        """Return a Deferred that fires when all is written, or after `LAST_WORDS_S` when nobody reads."""
        if self._own < 0 or (not self._waiting and self._poll.poll(0)):
            return defer.succeed(None)
        self._empty = empty = defer.Deferred[None]()
        self._last_call = self._reactor.callLater(LAST_WORDS_S, self._abandon)
        if not self._watched:
            self._watched = True
            self._reactor.addWriter(self)
        return empty

    def _abandon(self) -> None:
        """Give up what is still waiting; Twisted's own last words must not block on the same reader either."""
        empty, self._empty = self._empty, None
        self._waiting.clear()
        if self._fd is not None:
            _write_to_nowhere(self._fd)
        if empty is not None:
            empty.callback(None)

    # What the reactor calls.

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._own

    def logPrefix(self) -> str:  # noqa: N802 (Twisted's interface)
        """Return our name in the reactor's complaints."""
        return "standard output"

    def doWrite(self) -> None:  # noqa: N802 (Twisted's interface)
        """Write on, there is room."""
        self._write()

    def connectionLost(self, reason: object) -> None:  # noqa: N802 (Twisted's interface)
        """Forget what waits: the reader is gone."""
        self._watched = False
        self._waiting.clear()
        self._emptied()


def _write_to_nowhere(fd: int) -> None:
    """Make what is written to `fd` from now on vanish."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, fd)
    os.close(null)


def choose_output(reactor: Any, opts: Any) -> Output:
    """Return bare standard output unless a log was asked for; under another host than `twist`, its log."""
    parent = getattr(opts, "parent", None)
    if parent is None or "logFile" not in parent:
        return EventOutput()
    log_file = parent["logFile"]
    if _log_was_chosen(parent, getattr(opts, "words", [])):
        # A log file in an encoding that lacks a character would else lose the line.
        if hasattr(log_file, "reconfigure"):
            log_file.reconfigure(errors="backslashreplace")
        return EventOutput()
    try:
        return BareOutput(reactor, None if log_file is None else log_file.fileno())
    except (OSError, ValueError):
        return BareOutput(reactor, None)  # standard output is closed


def _log_was_chosen(parent: Any, words: list[str]) -> bool:
    """Return whether `twist` was given --log-file or --log-format; its options keep only the values."""
    before = len(sys.argv) - len(words) - 1
    if before > 0 and sys.argv[before:] == [parent.subCommand, *words]:
        given, _ = getopt.getopt(sys.argv[1:before], parent.shortOpt, parent.longOpt)
        return any(name.replace("_", "-") in ("--log-file", "--log-format") for name, _ in given)
    # Somebody else's command line: what can be seen is another file than standard output.
    return parent["logFile"] is not sys.__stdout__
