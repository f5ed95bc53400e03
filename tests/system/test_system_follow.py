"""From log files to lines: each once, in order, whatever is rotated, cut or thrown away meanwhile."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk

from ncolony.system.follow import Follower
from ncolony.system.lines import LONGEST_LINE, escaped
from ncolony.system.own_log import OwnLog


class Scribe:
    """Writes the log of one process as a keeper does, byte by byte counted."""

    def __init__(self, logs: Path, name: str) -> None:
        self.directory = logs / name
        self.directory.mkdir(parents=True)
        self.name, self.begin, self.end = name, 0, 0

    def write(self, data: bytes) -> int:
        """Append to the current file; where the stream ends now."""
        with (self.directory / "current").open("ab") as file:
            file.write(data)
        index = self.directory / "current.index"
        if not index.exists():
            index.write_bytes(struct.pack("!QQ", self.begin, 1))
        self.end += len(data)
        return self.end

    def finish(self, data: bytes = b"") -> int:
        """An instance ends, having written `data`; where a newline does not say so, the keeper does."""
        end = self.write(data) if data else self.end
        if not (self.directory / "current").read_bytes().endswith(b"\n"):
            with (self.directory / "cuts").open("ab") as cuts:
                cuts.write(struct.pack("!Q", end))
        return end

    def rotate(self) -> Path:
        """Begin a new file; the one that was current until now."""
        kept = self.directory / f"{self.begin:020d}.log"
        (self.directory / "current").rename(kept)
        (self.directory / "current.index").rename(kept.with_suffix(".index"))
        self.begin = self.end
        return kept


class Desktop:
    """A follower and what it said."""

    def __init__(self, desk: Desk, root: Path) -> None:
        self.desk, self.logs, self.commits = desk, root / "logs", root / "forwarded"
        for directory in (self.logs, self.commits):
            directory.mkdir(exist_ok=True)
        self.said: list[tuple[str, bytes, bool]] = []
        self.done: list[tuple[str, int]] = []
        self.follower = self.another()

    def another(self) -> Follower:
        """A follower over the same files, as the next supervisor has it."""

        def done(name: str, offset: int) -> None:
            self.done.append((name, offset))
            if offset:
                assert int((self.commits / name).read_bytes()) == offset  # on disk before it is told

        def say(name: str, lines: list[tuple[bytes, bool]], stream: str) -> None:
            self.said += [(name, line, whole) for line, whole in lines]

        self.follower = Follower(
            self.desk.reactor, str(self.logs), str(self.commits), OwnLog(f"{self.commits}.note"), say, done
        )
        return self.follower

    def lines(self) -> list[bytes]:
        """What was said since the last question."""
        self.desk.settle()
        said, self.said = self.said, []
        return [line for _, line, _ in said]

    def wait_until_done(self, name: str, offset: int) -> None:
        """Wait until everything up to an offset was forwarded."""
        self.desk.until(lambda: (name, offset) in self.done, f"{name} is forwarded up to {offset}: {self.done[-3:]}")


@pytest.fixture
def following(desk: Desk, tmp_path: Path) -> Iterator[Desktop]:
    """A follower without anything to follow."""
    yield Desktop(desk, tmp_path)


@pytest.fixture
def web(following: Desktop) -> Scribe:
    """A log that is still empty."""
    return Scribe(following.logs, "web")


def test_lines(following: Desktop, web: Scribe) -> None:
    """Each line is said once, empty ones too, and the keeper is told how far it went."""
    following.follower.output("web", 0, web.write(b"one\ntwo\n\nthree\n"), False)
    assert following.lines() == [b"one", b"two", b"", b"three"]
    assert following.done[-1] == ("web", 15)
    following.follower.output("web", 0, web.end, False)
    assert following.lines() == []
    following.follower.output("web", 15, web.write(b"four\n"), False)
    assert following.lines() == [b"four"]
    assert following.follower.offsets() == {"web": 20}


def test_unfinished_line_waits(following: Desktop, web: Scribe) -> None:
    """A line without its end is said once it is whole."""
    following.follower.output("web", 0, web.write(b"one\ntw"), False)
    assert following.lines() == [b"one"]
    following.follower.output("web", 4, web.write(b"o"), False)
    assert following.lines() == []
    following.follower.output("web", 4, web.write(b"\nthr"), False)
    assert following.lines() == [b"two"]


def test_unfinished_line_is_said_at_the_end_of_an_instance(following: Desktop, web: Scribe) -> None:
    """What an instance wrote last without a newline is a line, and the next instance's first is another."""
    following.follower.output("web", 0, web.finish(b"one\nlast words"), True)
    assert following.lines() == [b"one", b"last words"]
    following.follower.output("web", web.end, web.write(b"new\n"), False)
    assert following.lines() == [b"new"]


def test_end_is_told_after_the_words(following: Desktop, web: Scribe) -> None:
    """The end of an instance told later finishes the line that was waiting."""
    following.follower.output("web", 0, web.write(b"words"), False)
    assert following.lines() == []
    following.follower.output("web", 0, web.finish(), True)
    assert following.lines() == [b"words"]


def test_ends_and_beginnings_in_one_turn(following: Desktop, web: Scribe) -> None:
    """Several instances that ended while we were busy are kept apart."""
    for words in (b"a", b"b\nc", b"d\n", b"e"):
        following.follower.output("web", web.end, web.finish(words), True)
    following.follower.output("web", web.end, web.write(b"f\n"), False)
    assert following.lines() == [b"a", b"b", b"c", b"d", b"e", b"f"]


def test_next_instance_after_a_forwarded_end(following: Desktop, web: Scribe) -> None:
    """An end where everything was said already, told together with new output, does not hold that up."""
    following.follower.output("web", 0, web.write(b"old\n"), False)
    assert following.lines() == [b"old"]
    following.follower.output("web", 4, web.end, True)
    following.follower.output("web", 4, web.write(b"new\n"), False)
    assert following.lines() == [b"new"]


def test_rotation_between_reads(following: Desktop, web: Scribe) -> None:
    """Lines are found wherever they are by now: in a file that was rotated once, twice, or is current."""
    following.follower.output("web", 0, web.write(b"one\n"), False)
    assert following.lines() == [b"one"]
    web.write(b"two\n")
    web.rotate()
    web.write(b"three\n")
    web.rotate()
    following.follower.output("web", 4, web.write(b"four\n"), False)
    assert following.lines() == [b"two", b"three", b"four"]
    web.rotate()
    following.follower.output("web", 4, web.write(b"five\n"), False)
    assert following.lines() == [b"five"]


def test_many_rotations(following: Desktop, web: Scribe) -> None:
    """A log that is rotated more often than files may be open is followed to its end."""
    expected = []
    for number in range(150):
        following.follower.output("web", 0, web.write(b"%d\n" % number), False)
        web.rotate()
        expected.append(b"%d" % number)
    following.follower.output("web", 0, web.write(b"last\n"), False)
    following.wait_until_done("web", web.end)
    assert following.lines() == [*expected, b"last"]


def test_line_across_files(following: Desktop, web: Scribe) -> None:
    """A line that was cut by a rotation is said whole."""
    web.write(b"one\ntw")
    web.rotate()
    following.follower.output("web", 0, web.write(b"o\nthree\n"), False)
    assert following.lines() == [b"one", b"two", b"three"]


def test_long_line_across_files(following: Desktop, web: Scribe) -> None:
    """A line that is longer than several files together is said whole as well."""
    for _ in range(3):
        web.write(b"x" * 20_000)
        web.rotate()
    following.follower.output("web", 0, web.write(b"\nnext\n"), False)
    assert following.lines() == [b"x" * 60_000, b"next"]


def test_a_file_that_was_thrown_away(following: Desktop, web: Scribe) -> None:
    """Where unread files are gone the oldest line that is left is the next one."""
    following.follower.output("web", 0, web.write(b"one\n"), False)
    assert following.lines() == [b"one"]
    web.write(b"two\n")
    gone = web.rotate()
    web.write(b"three\n")
    web.rotate()
    gone.unlink()
    following.another().output("web", 4, web.write(b"four\n"), False)
    assert following.lines() == [b"three", b"four"]


def test_no_rotated_file_is_kept(following: Desktop, web: Scribe) -> None:
    """With keep 0 only the current file is there, and its place in the stream is known all the same."""
    following.follower.output("web", 0, web.write(b"one\n" * 100), False)
    assert len(following.lines()) == 100
    web.rotate().unlink()
    following.follower.output("web", 400, web.write(b"two\n"), False)
    assert following.lines() == [b"two"]


def test_next_supervisor_where_no_rotated_file_is_kept(following: Desktop, web: Scribe) -> None:
    """With keep 0 the committed offset is counted in the stream, not in the file that is left of it."""
    web.write(b"one\n" * 3)
    web.rotate().unlink()
    web.write(b"two\nthree\n")
    (following.commits / "web").write_bytes(b"%020d" % 16)
    following.follower.output("web", 12, web.end, False)
    assert following.lines() == [b"three"]


@pytest.mark.parametrize("character", ["x", "ä", "€", "🐜"])
@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_long_line_comes_in_pieces(following: Desktop, web: Scribe, character: str, shift: int) -> None:
    """A line over 64 KiB comes in pieces of at most that, marked, no character cut, and nothing missing."""
    text = "s" * shift + character * (200_000 // len(character.encode()))
    web.write(text.encode() + b"\nnext\n")
    following.follower.output("web", 0, web.end, False)
    following.wait_until_done("web", web.end)
    *pieces, (_, following_line, whole) = following.said
    assert (following_line, whole) == (b"next", True)
    assert "".join(line.decode() for _, line, _ in pieces) == text
    assert all(len(line) <= LONGEST_LINE for _, line, _ in pieces)
    assert [whole for _, _, whole in pieces] == [False] * (len(pieces) - 1) + [True]
    assert len(pieces) == 4


def test_binary_without_newlines(following: Desktop, web: Scribe) -> None:
    """Bytes that are no text and no lines are said, all of them."""
    data = bytes(range(128, 256)) * 2000
    following.follower.output("web", 0, web.finish(data), True)
    following.wait_until_done("web", web.end)
    assert b"".join(line for _, line, _ in following.said) == data


def test_next_supervisor_goes_on_exactly(following: Desktop, web: Scribe) -> None:
    """After a death the next supervisor begins at the committed offset, wherever the keeper believes it to be."""
    following.follower.output("web", 0, web.write(b"one\ntwo\nthr"), False)
    assert following.lines() == [b"one", b"two"]
    following.another().output("web", 0, web.write(b"ee\nfour\n"), False)
    assert following.lines() == [b"three", b"four"]


def test_death_after_every_line(following: Desktop, web: Scribe) -> None:
    """However often followers follow each other, no line is said twice and none is missing."""
    expected = [b"line %d" % number for number in range(200)]
    said: list[bytes] = []
    for number, line in enumerate(expected):
        web.write(line[:3])
        following.another().output("web", 0, web.end, False)
        said += following.lines()
        web.write(line[3:] + b"\n")
        following.follower.output("web", 0, web.end, False)
        said += following.lines()
        if number % 7 == 6:
            web.rotate()
            web.write(b"")
    assert said == expected


def test_catching_up(following: Desktop, web: Scribe) -> None:
    """What was written while nobody forwarded is said at the start: what ended to the last byte, else whole lines."""
    for scribe in (web, Scribe(following.logs, "ended"), Scribe(following.logs, "new")):
        scribe.write(b"one\ntwo\n")
        scribe.rotate()
        scribe.write(b"three\nfou")
        if scribe.directory.name == "ended":
            scribe.finish()
    for name in ("web", "ended"):
        (following.commits / name).write_bytes(b"%020d" % 4)
    following.follower.catch_up({"web", "new"})
    following.desk.settle()
    said = {name: [line for who, line, _ in following.said if who == name] for name in ("web", "ended", "new")}
    assert said == {"web": [b"two", b"three"], "ended": [b"two", b"three", b"fou"], "new": []}
    following.follower.output("web", 8, web.write(b"r\n"), False)
    following.said.clear()
    assert following.lines() == [b"four"]


@pytest.mark.parametrize("content", [b"", b"noise", b"99999999999999999999"])
def test_commit_that_makes_no_sense(following: Desktop, web: Scribe, content: bytes) -> None:
    """A committed offset that is no number of this log is as good as none."""
    (following.commits / "web").write_bytes(content)
    web.write(b"old\nnew\n")
    following.follower.output("web", 4, web.end, False)
    assert following.lines() == [b"new"]


def test_log_that_was_removed_begins_anew(following: Desktop, web: Scribe) -> None:
    """When the log was removed while nobody forwarded, the lines of the new one are said from the start."""
    following.follower.output("web", 0, web.write(b"old\n" * 100), False)
    assert len(following.lines()) == 100
    for path in web.directory.iterdir():
        path.unlink()
    web.begin = web.end = 0
    following.another().output("web", 0, web.write(b"new\n"), False)
    assert following.lines() == [b"new"]


def test_word_that_comes_late(following: Desktop, web: Scribe) -> None:
    """What the keeper told before more was found in the files turns nothing back."""
    (following.commits / "web").write_bytes(b"%020d" % 0)
    web.write(b"one\ntwo\n")
    following.follower.catch_up({"web"})
    assert following.lines() == [b"one", b"two"]
    following.follower.output("web", 0, 4, False)
    assert following.lines() == []
    following.follower.output("web", 0, web.write(b"three\n"), False)
    assert following.lines() == [b"three"]


def test_piece_across_a_rotation(following: Desktop, web: Scribe) -> None:
    """A line that is unfinished in the next file is read again from the file it begins in."""
    web.write(b"one\ntw")
    web.rotate()
    following.follower.output("web", 0, web.write(b"o\nthr"), False)
    assert following.lines() == [b"one", b"two"]
    web.rotate()
    following.follower.output("web", 0, web.write(b"ee\n"), False)
    assert following.lines() == [b"three"]


def test_missing_log(following: Desktop, web: Scribe) -> None:
    """Output told of that is nowhere to be found stops nobody, and is no reason to turn for ever."""
    following.follower.output("nothing", 0, 100, True)
    following.follower.output("web", 0, web.write(b"one\n"), False)
    assert following.lines() == [b"one"]
    following.desk.until(lambda: not following.desk.reactor.getDelayedCalls(), "nothing is due any more")


def test_flood_leaves_room_for_others(following: Desktop, web: Scribe) -> None:
    """One process's flood is forwarded piece by piece, another's line in between, and timers run meanwhile."""
    other = Scribe(following.logs, "other")
    following.follower.output("web", 0, web.write(b"x" * 99 + b"\n") and web.write((b"x" * 99 + b"\n") * 40_000), False)
    following.follower.output("other", 0, other.write(b"hello\n"), False)
    following.desk.until(lambda: ("other", b"hello", True) in following.said, "the other's line is said")
    assert len(following.said) < 2_000
    following.wait_until_done("web", web.end)
    assert len(following.said) == 40_002


def test_many_processes(following: Desktop) -> None:
    """Two hundred logs are followed with fewer descriptors open."""
    scribes = [Scribe(following.logs, f"p{number}") for number in range(200)]
    before = len(os.listdir("/dev/fd"))
    for text in (b"one\n", b"two\n"):
        for scribe in scribes:
            following.follower.output(scribe.name, 0, scribe.write(text), False)

        def all_are_said(text: bytes = text) -> bool:
            return sum(line == text[:-1] for _, line, _ in following.said) == 200

        following.desk.until(all_are_said, "all are said")
    assert len(os.listdir("/dev/fd")) - before < 100
    assert {name: [t for n, t, _ in following.said if n == name] for name in ("p0", "p199")} == {
        "p0": [b"one", b"two"],
        "p199": [b"one", b"two"],
    }
    for scribe in scribes:
        following.follower.forget(scribe.name)
    assert len(os.listdir("/dev/fd")) == before


def test_forget(following: Desktop, web: Scribe) -> None:
    """What was forgotten keeps its log and its committed offset, and goes on there should it come back."""
    following.follower.output("web", 0, web.write(b"one\n"), False)
    assert following.lines() == [b"one"]
    following.follower.forget("web")
    assert (web.directory / "current").exists()
    following.follower.output("web", 0, web.write(b"two\n"), False)
    assert following.lines() == [b"two"]


def test_when_idle(following: Desktop, web: Scribe) -> None:
    """Who waits for the end of forwarding is called after the last line, or at once when there is none."""
    seen: list[int] = []
    following.follower.when_idle(lambda: seen.append(-1))
    assert seen == [-1]
    following.follower.output("web", 0, web.write(b"one\n" * 100_000), True)
    following.follower.when_idle(lambda: seen.append(len(following.said)))
    following.desk.until(lambda: len(seen) == 2, "idle")
    assert seen == [-1, 100_000]


def test_escaped() -> None:
    """Control characters are shown, so that no output can act on a terminal; text and tabs stay as they are."""
    assert escaped("a\tb grün 🐜") == "a\tb grün 🐜"
    assert escaped("\x1b[2J\r\x00\x7f\x9b") == "\\x1b[2J\\x0d\\x00\\x7f\\x9b"


def test_log_that_cannot_be_read_now(following: Desktop, web: Scribe) -> None:
    """For want of descriptors nothing is skipped: the lines are said when there are some again."""
    end = web.write(b"one\n")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    following.follower.output("web", 0, end, False)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        following.desk.reactor.runUntilCurrent()
        following.desk.reactor.runUntilCurrent()
        assert following.said == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    following.desk.until(lambda: following.said, "the line is said")
    assert following.lines() == [b"one"]
