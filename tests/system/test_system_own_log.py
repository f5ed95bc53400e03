"""Our own log, when it is a file: how much of a piece is in it after a SIGKILL."""

from __future__ import annotations

import contextlib
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
from ncolony.system.own_log import OwnLog, cut_torn_record, lines_of, say

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
