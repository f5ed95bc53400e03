"""Names and lines of output: what is shown of them harms no terminal, and is found again in the log."""

from __future__ import annotations

import io
import json
import os

from fuzzing import CONTROL, is_one_line
from twisted.logger import LogPublisher, jsonFileLogObserver, textFileLogObserver

from ncolony.model.names import LONGEST, is_ignored, printable, problem_with_name
from ncolony.system import own_log
from ncolony.system.own_log import OwnLog, escaped, lines_of

# In place of 64 KiB: then short inputs have lines that are too long.
_LONGEST_LINE = 16


def one(data: bytes) -> None:
    """The first line of the input is a name, the rest is output."""
    name, _, output = data.partition(b"\n")
    _check_name(os.fsdecode(name))
    _check_name(name.decode("utf-16", "surrogatepass") if len(name) % 2 == 0 else name.decode("latin-1"))
    for finished in (False, True):
        _check_lines(output, finished)
    _check_log(printable(os.fsdecode(name)) or "-", output)


def _check_name(name: str) -> None:
    shown = printable(name)
    assert is_one_line(shown), shown
    assert printable(shown) == shown
    shown.encode()
    if problem_with_name(name) is None:
        assert 0 < len(name.encode()) <= LONGEST and not is_ignored(name) and "\0" not in name and "\n" not in name


def _check_lines(data: bytes, finished: bool) -> None:
    """Every byte is said once, in lines of bounded length, and something is said where there is too much to wait."""
    longest, own_log.LONGEST_LINE = own_log.LONGEST_LINE, _LONGEST_LINE
    try:
        _check_pieces(data, finished)
    finally:
        own_log.LONGEST_LINE = longest


def _check_pieces(data: bytes, finished: bool) -> None:
    said, rest = b"", data
    while rest:
        lines, taken = lines_of(rest, finished)
        assert 0 <= taken <= len(rest)
        for line, whole in lines:
            assert b"\n" not in line
            said += line + (b"\n" if whole else b"")
        if not taken:
            break
        rest = rest[taken:]
    assert len(rest) < _LONGEST_LINE
    assert not (finished and rest)
    assert said + rest == data or (finished and said == data + b"\n")
    for line in said.split(b"\n")[:50]:
        shown = escaped(line.decode("utf-8", "backslashreplace"))
        assert CONTROL.search(shown) is None, shown


def _check_log(name: str, output: bytes) -> None:
    """In both formats of Twisted's log each line is one record, without control characters, and known again."""
    lines, _ = lines_of(output, True)
    text, structured = io.StringIO(), io.StringIO()
    log = LogPublisher(textFileLogObserver(text), jsonFileLogObserver(structured))
    logger, own_log._output.observer = own_log._output.observer, log
    try:
        for line, whole in lines:
            own_log.say(name, line, whole)
    finally:
        own_log._output.observer = logger
    ours = OwnLog.__new__(OwnLog)
    ours._file = text
    shown = text.getvalue().split("\n")[:-1]
    assert len(shown) == len(lines), (shown, lines)
    structures = structured.getvalue().split("\n")[:-1]
    assert len(structures) == len(lines)
    for (line, whole), record, structure in zip(lines, shown, structures, strict=True):
        assert CONTROL.search(record) is None, record
        assert ours._is(record.encode(), name, line, whole), record
        assert ours._is(structure.encode(), name, line, whole), structure
        json.loads(structure.lstrip("\x1e"))
