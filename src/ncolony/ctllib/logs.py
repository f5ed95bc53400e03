"""Read what processes printed: the last lines, those of some time, and those that are still to come."""

from __future__ import annotations

import collections
import os
import time

from ncolony import ctllib
from ncolony.ctllib.common import parsed, read, refused, state_directory
from ncolony.ctllib.reports import file_names
from ncolony.model.names import is_ignored, problem_with_name
from ncolony.system import logfiles
from ncolony.system.logreader import FIRST_DELAY_S, Line, Reader, longest_delay, merged, most_open

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ncolony.ctllib import Path, Places
    from ncolony.system.logfiles import Log

__all__ = ["Line", "LogChoice", "choose_logs", "is_meant", "logs_directory", "read_logs", "shared_name"]

# What is read at a time of one among many.
_SMALL_CHUNK = 1 << 14
_LATEST_NS = 1 << 63


class LogChoice:
    """The processes whose logs some names, globs and groups mean.

    `names` are those there are, in order, `missing` the patterns that mean none, `exact` says that all were named.
    `wants` tells of any further name whether it would be meant too. Without patterns every process is meant.
    """

    __slots__ = ("_but", "_config", "_groups", "_patterns", "exact", "missing", "names")

    names: list[str]
    missing: list[str]
    exact: bool

    def __init__(self, places: Places, patterns: Iterable[str], known: Iterable[str], but: str) -> None:
        self._config, self._but = os.fspath(places.config), but
        self._patterns, self._groups = list(patterns), set[str]()
        known = sorted(known)
        found: set[str] = set()
        self.missing, self.exact = [], bool(self._patterns)
        for pattern in self._patterns:
            meant = {name for name in known if pattern in (name, shared_name(name))}
            if not meant:
                self.exact = False
                meant = {name for name in known if is_meant(name, [pattern])}
            if not meant:
                self._groups.add(pattern)
                meant = {name for name in known if self._is_grouped(name, [pattern])}
            if not meant:
                self.missing.append(pattern)
            found |= meant
        self.names = [name for name in (sorted(found) if self._patterns else known) if name != but]

    def wants(self, name: str) -> bool:
        """Whether the process `name` is meant."""
        return name != self._but and (is_meant(name, self._patterns) or self._is_grouped(name, self._groups))

    def _is_grouped(self, name: str, groups: Iterable[str]) -> bool:
        if not groups:
            return False
        for file in dict.fromkeys((name, shared_name(name))):
            try:
                group = parsed(read(os.path.join(self._config, file))).get("group", [])
            except (OSError, ValueError):
                continue
            if not set(groups).isdisjoint([group] if isinstance(group, str) else group):
                return True
        return False


def is_meant(name: str, patterns: Iterable[str]) -> bool:
    """Whether the process `name` is meant by one of the patterns; without any, it is.

    A pattern is a process's own name, the name that its replicas share ("web" for web:0, web:1), or a glob.
    """
    from fnmatch import fnmatchcase  # not needed without patterns

    patterns = list(patterns)
    own = {name, shared_name(name)}
    return not patterns or any(pattern in own or fnmatchcase(name, pattern) for pattern in patterns)


def shared_name(name: str) -> str:
    """The name of the config file that a replica is made by: "web" for "web:0"; any other name stands for itself."""
    shared, _, index = name.rpartition(":")
    return shared if index.isdigit() else name


def logs_directory(places: Places, *, state: Path | None = None) -> str:
    """Where the supervisor of these places keeps, or last kept, the output of its processes.

    A supervisor that was given `--logs` says so as long as it has not ended; otherwise it is `logs` in the state
    directory.
    """
    directory = state_directory(places, state)
    try:
        said = parsed(read(os.path.join(directory, "supervisor.json"))).get("logs")
    except (OSError, ValueError):
        said = None
    return said if isinstance(said, str) and said else os.path.join(directory, "logs")


def choose_logs(
    places: Places,
    patterns: Iterable[str] = (),
    *,
    but: str = "",
    state: Path | None = None,
    logs: Path | None = None,
) -> LogChoice:
    """The processes that the patterns mean, of all that are defined, reported, or have a log, removed ones included.

    A pattern is a name, the name that replicas share, a glob, or, where it is none of these, a group. `but` is a
    process that is not meant in any case.

    :raises CannotAccess: when a directory may not be read.
    """
    directory = logs_directory(places, state=state) if logs is None else os.fspath(logs)
    status = os.path.join(state_directory(places, state), "status")
    known = set(file_names(status))
    try:
        known |= {entry.name for entry in os.scandir(directory) if not is_ignored(entry.name) and entry.is_dir()}
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise refused("read the logs", directory, error) from error
    replicated = {shared_name(name) for name in known}
    known.update(name for name in file_names(os.fspath(places.config)) if name not in replicated)
    return LogChoice(places, patterns, (name for name in known if problem_with_name(name) is None), but)


def read_logs(
    places: Places,
    names: Iterable[str] | LogChoice = (),
    *,
    last: int | None = None,
    since: float | None = None,
    until: float | None = None,
    follow: bool = False,
    stderr: bool = False,
    where: Callable[[Line], bool] | None = None,
    pause: Callable[[float], object] = time.sleep,
    state: Path | None = None,
    logs: Path | None = None,
) -> Iterator[Line]:
    """The lines that processes printed, those of several in the order of their times; see `Line` for what each is.

    `names` are patterns as for `choose_logs`, or its answer. `last` is how many of each process, all when None; `since`
    and `until` are wall-clock seconds; `where` chooses among the lines before they are counted; `stderr` leaves out
    what did not come by a way of its own for standard error. With `follow` it goes on for ever, waiting by `pause`,
    and takes in processes that appear. `logs` is the directory of logs, where it is not found by itself.

    :raises BadValue: when asked to follow until some time.
    :raises CannotAccess: when a log cannot be read.
    """
    if follow and until is not None:
        raise ctllib.BadValue("cannot read the logs: what is still to come has no end (follow and until)")
    directory = logs_directory(places, state=state) if logs is None else os.fspath(logs)
    choice = names if isinstance(names, LogChoice) else choose_logs(places, names, state=state, logs=directory)
    span = (-1 if since is None else round(since * 1e9), _LATEST_NS if until is None else round(until * 1e9))
    reading = _Reading(directory, choice, stderr, where, span)
    try:
        yield from reading.backlog(last, finish=not follow)
        delay = FIRST_DELAY_S
        while follow:
            lines = reading.more()
            if lines:
                delay = FIRST_DELAY_S
                yield from lines
            else:
                pause(delay)
                delay = min(delay * 1.5, reading.longest_delay())
    except OSError as error:
        raise refused("read the logs", error.filename or directory, error) from error
    finally:
        reading.close()


class _Reading:
    """The logs that are read, each by a reader of its own."""

    def __init__(
        self,
        directory: str,
        choice: LogChoice,
        stderr: bool,
        where: Callable[[Line], bool] | None,
        span: tuple[int, int],
    ) -> None:
        self._directory, self._choice, self._stderr, self._where, self._span = directory, choice, stderr, where, span
        self._readers: dict[str, Reader] = {}
        self._looked = 0.0
        self._most_open = most_open()

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()

    def longest_delay(self) -> float:
        """Seconds between two looks when nothing comes."""
        return longest_delay(len(self._readers))

    def _logs(self) -> list[Log]:
        """The logs there are now that are not read yet."""
        self._looked = time.monotonic()
        found = logfiles.find(self._directory, self._choice.wants)
        return [
            log
            for log in found
            if log.directory not in self._readers and (log.stream == logfiles.STDERR or not self._stderr)
        ]

    def backlog(self, last: int | None, *, finish: bool) -> Iterator[Line]:
        """What is there already; `finish` says to take an unfinished last line as a line."""
        by_name: dict[str, list[Iterator[Line]]] = {}
        logs = self._logs()
        for log in logs:
            end = log.until(self._span[1]) if self._span[1] != _LATEST_NS else log.end()
            begin = log.since(self._span[0]) if self._span[0] >= 0 else log.begin()
            if last is not None and self._where is None:
                begin = max(begin, log.last_lines(last, end))
            chunk = logfiles.CHUNK if len(logs) <= self._most_open else _SMALL_CHUNK
            reader = self._readers[log.directory] = Reader(log, begin, chunk)
            by_name.setdefault(log.name, []).append(self._lines(reader, end, finish))
        each = (merged(sources) if len(sources) > 1 else sources[0] for sources in by_name.values())
        chosen = [lines if last is None else _newest(lines, last) for lines in each]
        return chosen[0] if len(chosen) == 1 else merged(chosen)

    def _lines(self, reader: Reader, end: int, finish: bool) -> Iterator[Line]:
        low, high = self._span
        is_left = True
        while is_left:
            lines = reader.read() if reader.offset < end else []
            if len(self._readers) > self._most_open:
                reader.close()
            if not lines:
                is_left, lines = False, reader.finish() if finish else []
            for line in lines:
                if low <= line.time_ns <= high and (self._where is None or self._where(line)):
                    yield line

    def more(self) -> list[Line]:
        """What has come since."""
        if time.monotonic() - self._looked >= self.longest_delay():
            for log in self._logs():
                self._readers[log.directory] = Reader(log, log.begin())
        found = []
        for reader in self._readers.values():
            if lines := reader.read():
                found.append(lines)
            if len(self._readers) > self._most_open:
                reader.close()
        together = merged(map(iter, found)) if len(found) > 1 else found[0] if found else ()
        return [line for line in together if self._where is None or self._where(line)]


def _newest(lines: Iterator[Line], count: int) -> Iterator[Line]:
    """The last `count` of the lines; the pieces of a long one count once."""
    kept: collections.deque[list[Line]] = collections.deque(maxlen=count)
    before: Line | None = None
    for line in lines:
        if before is not None and before.partial and _begin_of(line) in (before.end, before.end + 1) and kept:
            kept[-1].append(line)
        else:
            kept.append([line])
        before = line
    for pieces in kept:
        yield from pieces


def _begin_of(line: Line) -> int:
    """Where a line begins, or the byte before, depending on whether it has a newline."""
    return line.end - len(line.data)
