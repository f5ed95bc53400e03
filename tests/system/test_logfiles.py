"""From log files to lines with their times: all of them, in order, whatever happens to the files meanwhile."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncolony.system import logfiles
from ncolony.system.lines import LONGEST_LINE, pieces
from ncolony.system.logfiles import Log
from ncolony.system.logreader import Line, Reader, merged
from scribe import RECORD, T0, S, Scribe


def log_of(scribe: Scribe) -> Log:
    return Log(str(scribe.directory), scribe.name, scribe.stream)


def everything(reader: Reader, finish: bool = True) -> list[Line]:
    """All that a reader gives at present."""
    lines: list[Line] = []
    while more := reader.read():
        lines += more
    return lines + reader.finish() if finish else lines


def read(scribe: Scribe, offset: int | None = None) -> list[Line]:
    log = log_of(scribe)
    reader = Reader(log, log.begin() if offset is None else offset)
    lines = everything(reader)
    reader.close()
    return lines


def texts(lines: list[Line]) -> list[str]:
    return [line.data.decode() for line in lines]


def expected(data: bytes, cuts: list[int], begin: int = 0) -> list[tuple[bytes, int, bool]]:
    """(line, offset behind it, partial) as the definition of a line has it."""
    found, offset = [], begin
    for stop in [*(cut - begin for cut in cuts if cut > begin), len(data)]:
        while offset - begin < stop:
            newline = data.find(b"\n", offset - begin, stop)
            whole = data[offset - begin : stop if newline < 0 else newline]
            end = offset + len(whole) + (newline >= 0)
            *before, last = pieces(whole)
            for piece in before:
                offset += len(piece)
                found.append((piece, offset, True))
            found.append((last, end, False))
            offset = end
    return found


def seen(lines: list[Line]) -> list[tuple[bytes, int, bool]]:
    return [(line.data, line.end, line.partial) for line in lines]


# Lines


def test_lines(tmp_path: Path) -> None:
    """Lines come in order, each with its time from the index, its process, its stream and the offset behind it."""
    scribe = Scribe(tmp_path, "web")
    scribe.write("one\n")
    scribe.write("two\nthree\n")
    assert read(scribe) == [
        Line(T0 + S, "web", "stdout", b"one", 4, False),
        Line(T0 + 2 * S, "web", "stdout", b"two", 8, False),
        Line(T0 + 2 * S, "web", "stdout", b"three", 14, False),
    ]


def test_a_line_has_the_time_at_which_it_was_finished(tmp_path: Path) -> None:
    """The time of a line that came in parts is that of the last part."""
    scribe = Scribe(tmp_path, "web")
    scribe.write("sl")
    scribe.write("ow\n")
    assert [line.time_ns for line in read(scribe)] == [T0 + 2 * S]


_operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.binary(max_size=30)),
        st.tuples(st.just("write"), st.text("ab\nü🐜", max_size=30).map(str.encode)),
        st.tuples(st.just("large"), st.integers(1, 4)),
        st.tuples(st.sampled_from(["cut", "rotate", "read", "compress", "sleep"]), st.none()),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=150)
@given(_operations, st.sampled_from([1, 7, 1000, logfiles.CHUNK]), st.integers(0, 10**6))
def test_any_bytes_any_rotations_any_cuts(operations: list[tuple[str, object]], chunk: int, begin: int) -> None:
    """Whatever is written and wherever it is rotated, compressed and cut: the lines are what was written, every byte.

    A reader that follows from the start and one that comes at the end say the same.
    """
    with tempfile.TemporaryDirectory() as root:
        scribe = Scribe(Path(root), "web", begin=begin)
        # Nobody knows where a log begins whose first file has no index; so there is one.
        scribe.write(b"")
        if any(what == "large" for what, _ in operations):
            chunk = max(chunk, 10_000)
        follower = Reader(log_of(scribe), begin, chunk)
        followed: list[Line] = []
        for what, value in operations:
            if what == "write":
                assert isinstance(value, bytes)
                scribe.write(value)
            elif what == "large":
                assert isinstance(value, int)
                scribe.write("ü€🐜x".encode() * (value * LONGEST_LINE // 20) + b"\n" * (value % 2))
            elif what == "cut":
                scribe.cut()
            elif what == "rotate" and scribe.end > scribe.begin:
                scribe.rotate()
            elif what == "compress" and scribe.set_aside:
                scribe.compress(scribe.set_aside.pop(0))
            elif what == "read":
                followed += everything(follower, finish=False)
            elif what == "sleep":
                follower.close()
        followed += everything(follower)
        wanted = expected(scribe.data, scribe.cuts, begin)
        assert seen(followed) == wanted
        assert seen(read(scribe)) == wanted
        follower.close()
        place, rebuilt = begin, b""
        for line in followed:
            rebuilt += line.data + b"\n" * (line.end - place - len(line.data))
            place = line.end
        assert rebuilt == scribe.data
        # By when each was written, the index said so.
        assert [line.time_ns for line in read(scribe)] == [
            next(at for end, at in scribe.written if end >= line.end) for line in followed
        ]
        for count in range(1, 6):
            starts = [begin, *(line.end for line in followed if not line.partial)][:-1] if followed else [scribe.end]
            assert log_of(scribe).last_lines(count) == starts[-min(count, len(starts))]


def test_a_long_line_comes_in_marked_pieces(tmp_path: Path) -> None:
    """Of a line of 5 MB every piece but the last is marked; none is longer than 64 KiB, nothing is missing."""
    scribe = Scribe(tmp_path, "web")
    long = "ä".encode() * 2_500_000
    scribe.write(b"before\n" + long + b"\nafter\n")
    first, *middle, last = read(scribe)
    assert (first.data, last.data) == (b"before", b"after")
    assert b"".join(line.data for line in middle) == long
    assert [line.partial for line in middle] == [True] * (len(middle) - 1) + [False]
    assert max(len(line.data) for line in middle) <= LONGEST_LINE
    assert all(line.data.decode() for line in middle)


@pytest.mark.parametrize("size", [LONGEST_LINE - 1, LONGEST_LINE, LONGEST_LINE + 1])
def test_where_a_line_becomes_long(tmp_path: Path, size: int) -> None:
    """64 KiB are a whole line, one byte more is not, whether the newline is there already or comes later."""
    scribe = Scribe(tmp_path, "web")
    scribe.write(b"x" * size)
    reader = Reader(log_of(scribe), 0)
    early = reader.read()
    scribe.write(b"\n")
    lines = early + everything(reader)
    assert [len(line.data) for line in lines] == ([size] if size <= LONGEST_LINE else [LONGEST_LINE, 1])
    assert seen(lines) == seen(read(scribe))


def test_an_unfinished_line_is_not_given_before_it_is_finished(tmp_path: Path) -> None:
    """A line is given when its newline is there, and not before; its beginning is not given twice."""
    scribe = Scribe(tmp_path, "web")
    scribe.write("whole\nhalf")
    reader = Reader(log_of(scribe), 0)
    assert texts(reader.read()) == ["whole"]
    assert (reader.read(), reader.offset) == ([], 6)
    scribe.write(" and half\n")
    assert texts(reader.read()) == ["half and half"]


def test_an_unfinished_line_is_finished_by_the_end_of_its_instance(tmp_path: Path) -> None:
    """When an instance ends in mid-line, its last line is given as it is, also if nobody prints any more."""
    scribe = Scribe(tmp_path, "web")
    scribe.write("last words")
    reader = Reader(log_of(scribe), 0)
    assert reader.read() == []
    scribe.cut()
    assert texts(reader.read()) == ["last words"]
    assert reader.read() == []
    scribe.write("first words\n")
    assert texts(reader.read()) == ["first words"]


@pytest.mark.parametrize(
    "name", ["a b", "web:0", "ä🐜", "-n", "*", "[x]", "x.log", "current", "stderr", "1", "y" * 250]
)
def test_any_name(tmp_path: Path, name: str) -> None:
    """Logs are found under any name that a process may have."""
    Scribe(tmp_path, name).write("hello\n")
    Scribe(tmp_path, name, stderr=True).write("oh\n")
    found = logfiles.find(str(tmp_path))
    assert [(log.name, log.stream) for log in found] == [(name, "stdout"), (name, "stderr")]
    assert [texts(everything(Reader(log, 0))) for log in found] == [["hello"], ["oh"]]


def test_what_is_no_log_is_not_found(tmp_path: Path) -> None:
    """Files, names that no process may have, and a directory that is missing hold no logs."""
    (tmp_path / "file").write_text("x")
    (tmp_path / ".hidden").mkdir()
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    assert logfiles.find(str(tmp_path)) == []
    assert logfiles.find(str(tmp_path / "missing")) == []
    missing = Log(str(tmp_path / "missing"), "missing")
    assert (missing.begin(), missing.end(), missing.last_lines(3), missing.since(0)) == (0, 0, 0, 0)
    assert everything(Reader(missing, 0)) == []


# Files that come, go and change


def test_rotation_is_followed(tmp_path: Path) -> None:
    """A reader goes on through rotations, also through several between two looks, and across lines that span files."""
    scribe = Scribe(tmp_path, "web")
    scribe.write("a\nb")
    reader = Reader(log_of(scribe), 0)
    assert texts(reader.read()) == ["a"]
    for text in ("c", "d\n", "e\n"):
        scribe.rotate()
        scribe.write(text)
    assert texts(everything(reader)) == ["bcd", "e"]
    scribe.rotate()
    assert everything(reader) == []
    scribe.write("f\n")
    assert texts(everything(reader)) == ["f"]


def test_written_before_the_rotation_read_after_it(tmp_path: Path) -> None:
    """What was added to a file after the last look and before it was set aside is read."""
    scribe = Scribe(tmp_path, "web")
    scribe.write("a\n")
    reader = Reader(log_of(scribe), 0)
    assert texts(reader.read()) == ["a"]
    scribe.write("b\n")
    kept = scribe.rotate()
    kept.unlink()  # still open for us
    scribe.write("c\n")
    assert texts(everything(reader)) == ["b", "c"]


def test_what_was_thrown_away_is_skipped(tmp_path: Path) -> None:
    """Where files are gone the reader goes on with the oldest there is; the beginning of a line whose end is gone is a
    line of its own."""
    scribe = Scribe(tmp_path, "web")
    scribe.write("a\nbegun")
    reader = Reader(log_of(scribe), 0)
    assert texts(reader.read()) == ["a"]
    scribe.rotate()
    scribe.write(" ended\nlost\n")
    scribe.rotate()
    scribe.write("kept\n")
    for start in scribe.set_aside:
        scribe.throw_away(start)
    assert texts(everything(reader)) == ["begun", "kept"]
    assert reader.offset == scribe.end
    assert texts(read(scribe)) == ["kept"]
    assert texts(read(scribe, offset=3)) == ["kept"]


def test_a_log_that_was_removed_and_begun_anew(tmp_path: Path) -> None:
    """A log that begins at 0 again, while it is read or after it was read, is read from its new beginning."""
    scribe = Scribe(tmp_path, "web")
    scribe.write("a long first life\n")
    reader = Reader(log_of(scribe), 0)
    assert texts(reader.read()) == ["a long first life"]
    for path in scribe.directory.iterdir():
        path.unlink()
    again = Scribe(tmp_path, "web")
    assert everything(reader) == []
    again.write("b\n")
    assert texts(everything(reader)) == ["b"]
    assert texts(read(again, offset=1000)) == ["b"]


def test_a_log_that_goes_on_counting_after_it_was_removed(tmp_path: Path) -> None:
    """Where the files were removed but the keeper counts on, nothing is read twice."""
    scribe = Scribe(tmp_path, "web")
    scribe.write("a\n")
    reader = Reader(log_of(scribe), 0)
    assert texts(reader.read()) == ["a"]
    for path in scribe.directory.iterdir():
        path.unlink()
    scribe.begin = scribe.end
    # Created, as a keeper does, before there is an index that tells where it begins.
    scribe.current.touch()
    assert everything(reader) == []
    scribe.write("b\n")
    assert texts(everything(reader)) == ["b"]
    assert texts(read(scribe)) == ["b"]


def test_a_closed_reader_goes_on(tmp_path: Path) -> None:
    """A reader that was closed, for want of descriptors, goes on where it was: after more output, a cut, a rotation."""
    scribe = Scribe(tmp_path, "web")
    reader = Reader(log_of(scribe), 0)
    scribe.write("a\nb")
    assert texts(everything(reader, finish=False)) == ["a"]
    reader.close()
    assert reader.read() == []
    scribe.cut()
    assert texts(reader.read()) == ["b"]
    scribe.write("c\n")
    assert texts(reader.read()) == ["c"]
    reader.close()
    scribe.rotate()
    scribe.write("d\n")
    assert texts(everything(reader)) == ["d"]


def test_one_that_was_compressed_while_it_was_read(tmp_path: Path) -> None:
    """A file that is compressed while it is read is read to its end, once; with both there, it counts once."""
    scribe = Scribe(tmp_path, "web")
    scribe.write("a\nb\n")
    plain = scribe.rotate()
    scribe.write("c\n")
    reader = Reader(log_of(scribe), 0, chunk=2)
    assert texts(reader.read()) == ["a"]
    data = plain.read_bytes()
    scribe.compress(0)
    assert texts(everything(reader)) == ["b", "c"]
    assert texts(read(scribe)) == ["a", "b", "c"]
    plain.write_bytes(data)
    assert texts(read(scribe)) == ["a", "b", "c"]


@pytest.mark.parametrize("damage", ["torn", "garbage", "empty", "size"])
def test_a_damaged_compressed_file(tmp_path: Path, damage: str) -> None:
    """Of a compressed file that is damaged what can be unpacked is read, and then the next file."""
    scribe = Scribe(tmp_path, "web")
    text = "".join(f"line {random.Random(number).random()}\n" for number in range(5000))
    scribe.write(text)
    scribe.rotate()
    packed = scribe.compress(0)
    scribe.write("after\n")
    data = packed.read_bytes()
    broken = {
        "torn": data[: len(data) // 2],
        "garbage": data[: len(data) // 2] + b"\xff" * 100 + data[len(data) // 2 + 100 :],
        "empty": b"",
        "size": data[:-4] + b"\1\0\0\0",
    }
    packed.write_bytes(broken[damage])
    found = texts(read(scribe))
    assert found[-1] == "after"
    assert text.startswith("\n".join(found[:-2]))
    assert (len(found) > 1000) == (damage != "empty")
    reader = Reader(log_of(scribe), 0)
    everything(reader)
    scribe.write("more\n")
    assert texts(everything(reader)) == ["more"]
    scribe.rotate()
    assert everything(reader) == []


def test_a_log_that_cannot_be_read_now(tmp_path: Path) -> None:
    """What cannot be read is an error, each time; once it can, nothing is missing."""
    scribe = Scribe(tmp_path, "web")
    scribe.current.mkdir()
    reader = Reader(log_of(scribe), 0)
    for _ in range(2):
        with pytest.raises(IsADirectoryError):
            reader.read()
    scribe.current.rmdir()
    scribe.write("a\n")
    assert texts(reader.read()) == ["a"]


def test_no_file_stays_open(tmp_path: Path) -> None:
    """A reader holds two descriptors at most, and none once it is closed."""
    scribe = Scribe(tmp_path, "web")
    before = len(os.listdir("/proc/self/fd"))
    reader = Reader(log_of(scribe), 0)
    for _ in range(5):
        scribe.write("a\n")
        assert len(everything(reader)) == 1
        assert len(os.listdir("/proc/self/fd")) == before + 2
        scribe.rotate()
    scribe.compress(0)
    log_of(scribe).since(T0 + 3 * S)
    log_of(scribe).until(T0 + 3 * S)
    log_of(scribe).last_lines(10)
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_rotated_all_the_time(tmp_path: Path) -> None:
    """While a writer rotates and compresses as fast as it can, readers that begin anywhere get every line, in order."""
    scribe = Scribe(tmp_path, "web")
    lines = 300

    def write() -> None:
        for number in range(lines):
            scribe.write(f"{number}\n")
            if number % 3 == 0:
                scribe.rotate()
            if number % 7 == 0 and len(scribe.set_aside) > 1:
                scribe.compress(scribe.set_aside.pop(0))

    scribe.write("")
    thread = threading.Thread(target=write)
    thread.start()
    reader, found = Reader(log_of(scribe), 0), []
    while thread.is_alive():
        found += everything(reader, finish=False)
        tail = texts(read(scribe, offset=log_of(scribe).last_lines(3)))
        numbers = [int(text) for text in tail if text]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
    thread.join()
    found += everything(reader)
    assert texts(found) == [str(number) for number in range(lines)]
    reader.close()


# Times


def test_no_index(tmp_path: Path) -> None:
    """Without an index the file's own time stands for the times of its lines."""
    scribe = Scribe(tmp_path, "web")
    scribe.indexed = False
    scribe.write("a\n")
    os.utime(scribe.current, ns=(T0, T0 + 5 * S))
    assert [line.time_ns for line in read(scribe)] == [T0 + 5 * S]
    log = log_of(scribe)
    assert (log.since(T0 + 5 * S), log.since(T0 + 6 * S)) == (0, 2)
    assert (log.until(T0 + 5 * S), log.until(T0 + 4 * S)) == (2, 0)


def test_not_in_the_index_yet(tmp_path: Path) -> None:
    """A line that the index does not know yet has the time of its file, and that of the index once it is there."""
    scribe = Scribe(tmp_path, "web")
    scribe.write("a\n")
    os.utime(scribe.current, ns=(T0 + S, T0 + S))
    reader = Reader(log_of(scribe), 0)
    assert [line.time_ns for line in reader.read()] == [T0 + S]
    with scribe.current.open("ab") as file:
        file.write(b"b\n")
    os.utime(scribe.current, ns=(T0 + 2 * S, T0 + 2 * S))
    assert [line.time_ns for line in reader.read()] == [T0 + 2 * S]
    with scribe.index.open("ab") as file:
        file.write(RECORD.pack(4, T0 + 3 * S))
    assert [line.time_ns for line in read(scribe)] == [T0 + S, T0 + 3 * S]


def test_a_sparse_index(tmp_path: Path) -> None:
    """Lines that share an entry of the index have its time."""
    scribe = Scribe(tmp_path, "web")
    for text in ("a\n", "b\n", "c\n"):
        scribe.write(text)
    records = scribe.index.read_bytes()
    scribe.index.write_bytes(records[:32] + records[-16:])
    assert [line.time_ns for line in read(scribe)] == [T0 + S, T0 + 3 * S, T0 + 3 * S]


def test_a_torn_end_of_the_index(tmp_path: Path) -> None:
    """A record of which only a part is there does not count, and does once it is whole."""
    scribe = Scribe(tmp_path, "web")
    scribe.write("a\n")
    scribe.write("b\n")
    os.utime(scribe.current, ns=(T0, T0))
    records = scribe.index.read_bytes()
    scribe.index.write_bytes(records[:-5])
    assert [line.time_ns for line in read(scribe)] == [T0 + S, T0 + S]
    scribe.index.write_bytes(records)
    assert [line.time_ns for line in read(scribe)] == [T0 + S, T0 + 2 * S]


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_torn_record_amid_the_index(tmp_path: Path, cut: int) -> None:
    """Records behind a torn one, which are not where they should be, are found; only the torn one's time is lost."""
    scribe = Scribe(tmp_path, "web")
    for number in range(300):
        scribe.write(f"line {number}\n")
    records = scribe.index.read_bytes()
    torn = 100 * 16
    scribe.index.write_bytes(records[: torn + cut] + records[torn + 16 :])
    lines = read(scribe)
    assert len(lines) == 300
    wrong = {number for number, line in enumerate(lines) if line.time_ns != T0 + (number + 1) * S}
    assert wrong <= {99, 100}
    assert texts(read(scribe, log_of(scribe).since(T0 + 200 * S)))[-101:] == [f"line {n}" for n in range(199, 300)]


def test_an_index_left_behind_by_a_crash(tmp_path: Path) -> None:
    """A keeper killed between its two renames leaves the index to the next file: it tells the times of both."""
    scribe = Scribe(tmp_path, "web")
    scribe.write("a\n")
    scribe.write("b\n")
    scribe.current.rename(scribe.directory / f"{0:020d}.log")
    scribe.set_aside.append(0)
    assert [line.time_ns for line in read(scribe)] == [T0 + S, T0 + 2 * S]
    scribe.begin = scribe.end
    scribe.write("c\n")
    assert [(line.time_ns, line.end) for line in read(scribe)] == [(T0 + S, 2), (T0 + 2 * S, 4), (T0 + 3 * S, 6)]
    scribe.rotate()
    scribe.write("d\n")
    assert [line.time_ns for line in read(scribe)] == [T0 + number * S for number in (1, 2, 3, 4)]


def test_since_and_until(tmp_path: Path) -> None:
    """The place of a time is found in any file: no line from then on is left out, and at most one from before is in."""
    scribe = Scribe(tmp_path, "web")
    for number in range(1, 31):
        scribe.write(f"{number}\n")
        if number % 7 == 0:
            scribe.rotate()
        if number == 20:
            scribe.compress(scribe.set_aside[0])
    log = log_of(scribe)
    for number in range(33):
        after = [int(text) for text in texts(read(scribe, log.since(T0 + number * S)))]
        wanted = list(range(max(number, 1), 31))
        assert after in (wanted, [number - 1, *wanted], [30])
        until = log.until(T0 + number * S)
        assert [int(line.data) for line in read(scribe) if line.end <= until] == list(range(1, min(number, 30) + 1))


def test_since_is_at_the_beginning_of_a_line(tmp_path: Path) -> None:
    """A line that was begun before a time and finished after it belongs to what was written since."""
    scribe = Scribe(tmp_path, "web")
    scribe.write("a\nbe")
    scribe.rotate()
    scribe.write("gun")
    scribe.write(" and ended\n")
    assert texts(read(scribe, log_of(scribe).since(T0 + 3 * S))) == ["begun and ended"]


# Only what is needed


class Meter:
    """How many bytes were read by os.pread meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = self.calls = 0
        pread = os.pread

        def counted(descriptor: int, count: int, offset: int) -> bytes:
            data = pread(descriptor, count, offset)
            self.bytes += len(data)
            self.calls += 1
            return data

        monkeypatch.setattr(os, "pread", counted)


@pytest.fixture
def large(tmp_path: Path) -> Scribe:
    """A log of 100 MB in one file and 100,000 entries of its index."""
    scribe = Scribe(tmp_path, "web")
    block = b"".join(b"%099d\n" % number for number in range(100))
    with scribe.current.open("wb") as file:
        for _ in range(10_000):
            file.write(block)
    scribe.end = 10_000 * len(block)
    size = scribe.end // 100_000
    scribe.index.write_bytes(b"".join(RECORD.pack(n * size, T0 + n * S) for n in range(100_001)))
    return scribe


def test_the_last_lines_of_a_large_log(large: Scribe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last 100 lines of 100 MB are found by reading the end alone."""
    log, meter = log_of(large), Meter(monkeypatch)
    assert log.last_lines(100) == large.end - 100 * 100
    assert len(everything(Reader(log, large.end - 100 * 100))) == 100
    assert meter.bytes < 1 << 18


def test_since_in_a_large_log(large: Scribe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time is found in 100,000 entries of an index by a few looks."""
    log, meter = log_of(large), Meter(monkeypatch)
    assert log.since(T0 + 70_000 * S) in range(69_998_900, 70_000_001)
    assert meter.calls < 40
    assert meter.bytes < 1 << 18


# Together


def test_merged_by_time(tmp_path: Path) -> None:
    """Several logs come as one in the order of their times; the pieces of a long line stay together."""
    one, two = Scribe(tmp_path, "one"), Scribe(tmp_path, "two")
    one.write("1\n", at=T0 + 1)
    two.write("2\n", at=T0 + 2)
    one.write(b"x" * LONGEST_LINE, at=T0 + 3)
    two.write("4\n", at=T0 + 4)
    one.write("y\n", at=T0 + 5)
    together = list(merged(iter(everything(Reader(log, 0))) for log in logfiles.find(str(tmp_path))))
    assert [line.data[:1].decode() for line in together] == ["1", "2", "x", "y", "4"]


def test_fast_to_import() -> None:
    """Reading logs takes neither Twisted nor msgspec nor typing nor gzip along."""
    unwanted = {"twisted", "msgspec", "typing", "gzip"}
    program = f"import sys, ncolony.system.logreader; print(*sorted({unwanted} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-S", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(logfiles.__file__).parents[2])},
    )
    assert found.stdout.strip() == ""
