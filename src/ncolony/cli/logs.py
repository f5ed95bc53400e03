"""`logs`: what processes printed, as it came or as JSON, and as it comes."""

from __future__ import annotations

import os
import select
import sys
import time

from ncolony import ctllib
from ncolony.cli import complain
from ncolony.cli.show import NO_SUCH_PROCESS
from ncolony.ctllib.logs import choose_logs, logs_directory, read_logs
from ncolony.system import logfiles
from ncolony.system.lines import escaped

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

    from ncolony.ctllib import Places
    from ncolony.ctllib.logs import LogChoice
    from ncolony.system.logreader import Line

_LINES, _LINES_BEFORE_FOLLOWING = 100, 10
_SECONDS_PER = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST_S = 1e9
# The colours of names, one after the other: those that can be read on white and on black.
_COLOURS = (36, 33, 32, 35, 34, 31)
_MORE = " …"
_FULL = 1 << 16
_NAMES_SHOWN = 5


class _Gone(Exception):
    """Nobody reads what we write any more."""


def run(options: dict[str, Any]) -> int:
    """Show the lines that the parsed options ask for; returns the exit status."""
    places, state = ctllib.Places(options["config"], options["messages"]), options.get("state")
    since, until = (_moment(f"--{key}", options[key]) for key in ("since", "until"))
    where = _matching(options["grep"]) if options["grep"] is not None else None
    follow, last = options["follow"], _count(options)
    if follow and until is not None:
        raise ctllib.BadValue("cannot show logs: --until has no meaning with --follow: what is to come has no end")
    directory = options["logs"] or logs_directory(places, state=state)
    # What is piped from here into another program is most often the output of all; but not that program's own again.
    ourselves = os.environ.get("NCOLONY_NAME", "") if follow and not options["names"] else ""
    choice = choose_logs(places, options["names"], state=state, logs=directory, but=ourselves)
    for pattern in choice.missing:
        complain(f"cannot show the logs of {pattern!r}: no such process")
    code = NO_SUCH_PROCESS if choice.missing else 0
    if choice.missing and not choice.names:
        return code
    _explain(places, choice, directory, options["stderr"])
    several = len(choice.names) != 1 or (follow and not choice.exact)
    try:
        out = _Out()
        form = _Form(
            out,
            directory,
            several=several,
            times=options["timestamps"],
            json=options["json"],
            apart=where is not None,
        )
        for line in read_logs(
            *(places, choice),
            last=last,
            since=since,
            until=until,
            follow=follow,
            stderr=options["stderr"],
            where=where,
            pause=out.pause,
            logs=directory,
        ):
            out.add(form.of(line))
        out.flush()
    except _Gone:
        pass
    return code


def _count(options: dict[str, Any]) -> int | None:
    """How many lines of each process at most, before those to come; None for all."""
    if "lines" in options:
        count: int | None = options["lines"]
        return count
    if options["since"] is not None or options["until"] is not None:
        return None
    return _LINES_BEFORE_FOLLOWING if options["follow"] else _LINES


def _explain(places: Places, choice: LogChoice, directory: str, stderr: bool) -> None:
    """Say why nothing will come of processes that were named."""
    silent = [name for name in choice.names if not logfiles.of_process(directory, name)]
    if silent and choice.exact:
        complain(f"nothing is kept of {_listed(silent)}")
    if not stderr:
        return
    joined = [
        name
        for name in choice.names
        if name not in silent and not any(log.stream == "stderr" for log in logfiles.of_process(directory, name))
    ]
    if joined and (choice.exact or len(joined) == len(choice.names)):
        complain(f"standard error of {_listed(joined)} is not kept apart (no stderr in the log key of its file)")


def _listed(names: list[str]) -> str:
    more = [f"{len(names) - _NAMES_SHOWN} more"] if len(names) > _NAMES_SHOWN else []
    return ", ".join([*map(repr, names[:_NAMES_SHOWN]), *more])


def _moment(option: str, text: str | None) -> float | None:
    """The wall-clock time that `text` means: a span before now, such as 1h30m, or an ISO time, local without a zone."""
    if text is None:
        return None
    span = _span(text)
    if span is not None:
        return time.time() - span
    from datetime import datetime  # not needed for spans

    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        pass
    expected = "a span such as 90s, 10m, 1h30m, 2d, or a time such as 2026-11-22T18:17:24"
    raise ctllib.BadValue(f"cannot show logs: {option}: expected {expected}, found {text!r}")


def _span(text: str) -> float | None:
    """Seconds: 10m, 1h30m, 1.5h; None when it is no such thing."""
    total, number = 0.0, ""
    for letter in text:
        if letter in _SECONDS_PER and number:
            try:
                total += float(number) * _SECONDS_PER[letter]
            except ValueError:
                return None
            number = ""
        elif (letter.isascii() and letter.isdigit()) or letter == ".":
            number += letter
        else:
            return None
    return None if number or not text or total > _LONGEST_S else total


def _matching(pattern: str) -> Callable[[Line], bool]:
    import re

    try:
        found = re.compile(pattern).search
    except (re.error, OverflowError, RecursionError) as error:
        raise ctllib.BadValue(f"cannot show logs: --grep {pattern!r}: {error}") from error
    return lambda line: found(_text(line)) is not None


def _text(line: Line) -> str:
    return line.data.decode("utf-8", "backslashreplace")


class _Out:
    """Standard output, in large pieces; whoever follows sees all there is whenever we wait."""

    def __init__(self) -> None:
        if sys.stdout is None:
            raise _Gone
        self.file: BinaryIO = sys.stdout.buffer
        self.to_people = sys.stdout.isatty()
        self.encoding = sys.stdout.encoding
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _FULL:
            self.flush()

    def flush(self) -> None:
        """Write what there is.

        :raises ctllib.CannotAccess: when it cannot be written, for another reason than that nobody reads it.
        """
        data, self._parts, self._size = b"".join(self._parts), [], 0
        try:
            self.file.write(data)
            self.file.flush()
        except OSError as error:
            # What is still buffered would fail again, with a traceback, when the interpreter ends.
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.file.fileno())
            if isinstance(error, BrokenPipeError):
                raise _Gone from error
            raise ctllib.CannotAccess(f"cannot write to stdout: {error.strerror}") from error

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than somebody reads."""
        self.flush()
        try:
            readers = select.poll()
            readers.register(self.file.fileno(), 0)  # errors are told of even so
        except OSError:  # not a file at all: somebody put something else in its place
            time.sleep(seconds)
            return
        if readers.poll(seconds * 1000):
            raise _Gone


class _Form:
    """Makes bytes of lines, by `of`: bare, or behind a time and a name, or as JSON."""

    def __init__(self, out: _Out, directory: str, *, several: bool, times: bool, json: bool, apart: bool) -> None:
        self._encoding, self._to_people = out.encoding, out.to_people
        self._several, self._times = several, times
        # Pieces of a long line are put together again where nothing comes between them.
        self._joined = not (several or times or apart)
        self._colours = out.to_people and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._prefixes: dict[str, bytes] = {}
        self._directory, self._split = directory, dict[str, bool]()
        self._second, self._parts = -1, ("", "")
        if json:
            from json import encoder

            # A terminal acts on control characters that JSON may leave as they are.
            self._encode = encoder.encode_basestring_ascii if out.to_people else encoder.encode_basestring
        self.of = self._json if json else self._bare if self._joined and not out.to_people else self._plain

    @staticmethod
    def _bare(line: Line) -> bytes:
        return line.data if line.partial else line.data + b"\n"

    def _plain(self, line: Line) -> bytes:
        text = escaped(_text(line)).encode(self._encoding, "backslashreplace") if self._to_people else line.data
        if line.partial:
            text += b"" if self._joined else _MORE.encode(self._encoding, "backslashreplace")
        before = self._time(line.time_ns).encode() + b" " if self._times else b""
        if self._several:
            before += self._prefix(line.name)
        return before + text + (b"" if line.partial and self._joined else b"\n")

    def _prefix(self, name: str) -> bytes:
        if name not in self._prefixes:
            text = f"[{name}]".encode(self._encoding if self._to_people else "utf-8", "backslashreplace")
            if self._colours:
                text = b"\x1b[%dm%b\x1b[0m" % (_COLOURS[len(self._prefixes) % len(_COLOURS)], text)
            self._prefixes[name] = text + b" "
        return self._prefixes[name]

    def _json(self, line: Line) -> bytes:
        name, text = self._encode(line.name), self._encode(_text(line)).replace("\x7f", "\\u007f")
        more = ', "partial": true' if line.partial else ""
        stream = f'"{line.stream}"' if self._is_split(line) else "null"
        when = self._utc(line.time_ns)
        return f'{{"time": "{when}", "name": {name}, "stream": {stream}, "line": {text}{more}}}\n'.encode()

    def _is_split(self, line: Line) -> bool:
        """Whether standard error does not come with the rest."""
        if line.name not in self._split or line.stream == logfiles.STDERR:
            self._split[line.name] = len(logfiles.of_process(self._directory, line.name)) > 1
        return self._split[line.name]

    def _utc(self, time_ns: int) -> str:
        """ISO 8601 in UTC, with milliseconds, as in the JSON of a process's own files."""
        second, rest = divmod(time_ns, 10**9)
        if second != self._second:
            self._second, self._parts = second, (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)), "Z")
        return f"{self._parts[0]}.{rest // 1_000_000:03d}{self._parts[1]}"

    def _time(self, time_ns: int) -> str:
        """ISO 8601, local, with milliseconds and the offset from UTC."""
        second, rest = divmod(time_ns, 10**9)
        if second != self._second:
            local = time.localtime(second)
            zone = time.strftime("%z", local)
            self._second = second
            self._parts = time.strftime("%Y-%m-%dT%H:%M:%S", local), f"{zone[:3]}:{zone[3:]}"
        return f"{self._parts[0]}.{rest // 1_000_000:03d}{self._parts[1]}"
