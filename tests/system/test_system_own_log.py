"""Our own log, when it is a file: how much of a piece is in it after a SIGKILL."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import (
    FilteringLogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogPublisher,
    jsonFileLogObserver,
    textFileLogObserver,
)

from ncolony.system.lines import LONGEST_LINE
from ncolony.system.own_log import OwnLog, cut_torn_record, lines_of, say, say_all

FORMATS = [textFileLogObserver, jsonFileLogObserver]
# Lines that could be taken for others, or for events of ours.
LINES = st.lists(
    st.one_of(
        st.sampled_from([b"", b"x", b"] [web] x", b"\x1e{}", b"\xff\x00\x1b[2J", "grün".encode(), b"x" * 300]),
        st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")),
    ),
    min_size=1,
    max_size=8,
)


@contextlib.contextmanager
def logging_to(path: Path, make: Callable[..., Any]) -> Iterator[None]:
    """Log into a file as `python -m twisted --log-file` does."""
    with path.open("a", encoding="utf-8") as file:
        observer = FilteringLogObserver(make(file), [LogLevelFilterPredicate(LogLevel.info)])
        globalLogPublisher.addObserver(observer)
        try:
            yield
        finally:
            globalLogPublisher.removeObserver(observer)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Without whatever else, such as the test runner, listens to events."""
    others, globalLogPublisher._observers = globalLogPublisher._observers, []
    try:
        yield
    finally:
        globalLogPublisher._observers = others


class Flushed:
    """A text file, and how often it was flushed."""

    def __init__(self, file: Any, flushed: list[int]) -> None:
        self.file, self.flushed = file, flushed
        self.encoding = file.encoding

    def write(self, text: str) -> int:
        return int(self.file.write(text))

    def flush(self) -> None:
        self.flushed.append(1)
        self.file.flush()


def records(path: Path) -> list[Any]:
    """What is in a log, without the times."""
    found: list[Any] = []
    for record in path.read_bytes().decode().split("\n")[:-1]:
        if record.startswith("\x1e"):
            event = json.loads(record[1:])
            event.pop("log_time")
            found.append(event)
        else:
            found.append(record.partition(" ")[2])
    return found


@settings(max_examples=60, deadline=None)
@given(
    make=st.sampled_from(FORMATS),
    lines=LINES,
    unfinished=st.sampled_from([b"", b"no newline"]),
    count=st.integers(0, 9),
    others=st.booleans(),
    torn=st.booleans(),
)
def test_how_much_was_said(
    make: Callable[..., Any], lines: list[bytes], unfinished: bytes, count: int, others: bool, torn: bool
) -> None:
    """Whatever the lines are, and wherever the kill comes, it is known which of them stand in the log."""
    data = b"".join(line + b"\n" for line in lines) + unfinished
    said = [*lines, *([unfinished] if unfinished else [])][:count]
    with tempfile.TemporaryDirectory() as directory, logging_to(Path(directory, "log"), make):
        say("web", b"x", True)  # before the piece
        own = OwnLog(f"{directory}/note")
        own.about_to_say("web", 1000, 1000 + len(data), False)
        for line in said:
            if others:
                Logger(namespace="other").info("something else")
            say("web", line, True)
        end = Path(directory, "log").stat().st_size
        if torn:
            with Path(directory, "log").open("ab") as log:
                log.write(b"2026-01-01T00:00:00+0000 [ncolony.output#info] [we")
        after = OwnLog(f"{directory}/note")
        piece = after.unfinished()
        assert piece is not None
        assert (piece.name, piece.start, piece.end) == ("web", 1000, 1000 + len(data))
        expected = len(data) if len(said) == len(lines) + bool(unfinished) else sum(len(line) + 1 for line in said)
        assert after.said(piece, data) == expected
        cut_torn_record(f"{directory}/note")
        assert Path(directory, "log").stat().st_size == end
        assert after.said(piece, data) == expected


@pytest.mark.parametrize("make", FORMATS)
def test_a_part_of_a_long_line(tmp_path: Path, make: Callable[..., Any]) -> None:
    """A piece that ends in the middle of a line is found again too."""
    data = b"short\n" + b"y" * (LONGEST_LINE + 10)
    lines, taken = lines_of(data, finished=False)
    assert lines == [(b"short", True), (b"y" * (LONGEST_LINE + 10), False)]
    with logging_to(tmp_path / "log", make):
        own = OwnLog(str(tmp_path / "note"))
        own.about_to_say("web", 0, taken, True)
        piece = own.unfinished()
        assert piece is not None
        assert own.said(piece, data[:taken]) == 0
        say("web", b"short", True)
        assert own.said(piece, data[:taken]) == len(b"short\n")
        say("web", lines[1][0], False)
        assert own.said(piece, data[:taken]) == taken


def test_a_log_that_was_moved_aside(tmp_path: Path) -> None:
    """A log file that was renamed between the kill and the next start is looked into all the same."""
    with logging_to(tmp_path / "log", textFileLogObserver):
        OwnLog(str(tmp_path / "note")).about_to_say("web", 0, 4, False)
        say("web", b"a", True)
    (tmp_path / "log").rename(tmp_path / "log.1")
    with logging_to(tmp_path / "log", textFileLogObserver):
        after = OwnLog(str(tmp_path / "note"))
        piece = after.unfinished()
        assert piece is not None
        assert after.said(piece, b"a\nb\n") == 2


def test_no_file_no_note(tmp_path: Path) -> None:
    """Where the log is no regular file nothing is noted."""
    with logging_to(Path("/dev/null"), textFileLogObserver):
        own = OwnLog(str(tmp_path / "note"))
        own.about_to_say("web", 0, 4, False)
        assert own.unfinished() is None


def test_a_damaged_note(tmp_path: Path) -> None:
    """A note that cannot be read is none."""
    own = OwnLog(str(tmp_path / "note"))
    for damage in (b"", b"{", b"[]", b"\xff", b'{"name": 1}'):
        (tmp_path / "note").write_bytes(damage)
        assert own.unfinished() is None


@settings(max_examples=60, deadline=None)
@given(make=st.sampled_from(FORMATS), lines=LINES, whole=st.booleans(), stream=st.sampled_from(["", "stderr"]))
def test_many_lines_at_once(make: Callable[..., Any], lines: list[bytes], whole: bool, stream: str) -> None:
    """Lines that are written together become the records that each by itself becomes, but for the time."""
    said = [(line, True) for line in lines[:-1]] + [(lines[-1], whole)]
    with tempfile.TemporaryDirectory() as directory:
        with logging_to(Path(directory, "one"), make):
            for line, is_whole in said:
                say("web", line, is_whole, stream)
        with alone(), logging_to(Path(directory, "all"), make):
            say_all("web", said, stream)
        assert records(Path(directory, "all")) == records(Path(directory, "one"))


@pytest.mark.parametrize("make", FORMATS)
@pytest.mark.parametrize("count", [1, 1000])
def test_plain_lines_are_one_write(tmp_path: Path, make: Callable[..., Any], count: int) -> None:
    """However many plain lines there are, our log is written once; nothing is if it does not want them."""
    path, lines = tmp_path / "log", [(b'a \\ "line"\t%d' % number, True) for number in range(count)]
    with alone(), path.open("a", encoding="utf-8", buffering=1 << 20) as file:
        flushed: list[int] = []
        written = Flushed(file, flushed)
        observer = FilteringLogObserver(make(written), [LogLevelFilterPredicate(LogLevel.info)])
        globalLogPublisher.addObserver(observer)
        try:
            say_all("web", lines)
            assert len(flushed) == 1
            assert len(records(path)) == count
        finally:
            globalLogPublisher.removeObserver(observer)
        observer = FilteringLogObserver(make(written), [LogLevelFilterPredicate(LogLevel.warn)])
        globalLogPublisher.addObserver(observer)
        try:
            say_all("web", lines)
            assert len(records(path)) == count
        finally:
            globalLogPublisher.removeObserver(observer)


@pytest.mark.parametrize("make", FORMATS)
def test_everybody_who_listens_hears_each_line(tmp_path: Path, make: Callable[..., Any]) -> None:
    """Another observer of events besides our log gets every line as an event."""
    events: list[Any] = []
    with alone(), logging_to(tmp_path / "log", make):
        globalLogPublisher.addObserver(events.append)
        try:
            say_all("web", [(b"a", True), (b"b", True)])
        finally:
            globalLogPublisher.removeObserver(events.append)
    assert [event["line"] for event in events] == ["a", "b"]
    assert len(records(tmp_path / "log")) == 2


@pytest.mark.parametrize("make", FORMATS)
def test_killed_within_a_write(tmp_path: Path, make: Callable[..., Any]) -> None:
    """Wherever a SIGKILL tears what is written together, it is known how many lines of it stand in the log."""
    data = b"".join(b"line %d\n" % number for number in range(40))
    lines, taken = lines_of(data, finished=False)
    path, note = tmp_path / "log", str(tmp_path / "note")
    with alone(), logging_to(path, make):
        OwnLog(note).about_to_say("web", 0, taken, False)
        say_all("web", lines)
        whole = path.read_bytes()
        for size in range(0, len(whole), 97):
            path.write_bytes(whole[:size])
            cut_torn_record(note)
            after = OwnLog(note)
            piece = after.unfinished()
            assert piece is not None
            count = whole[:size].count(b"\n")
            assert after.said(piece, data) == sum(len(b"line %d\n" % number) for number in range(count))
