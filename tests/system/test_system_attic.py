"""Logs of removed processes stay within their share, and nothing else is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ncolony.system.attic import MOST, SHARE, Attic


class Loft:
    """A directory of logs, and an attic over it with room for so many bytes."""

    def __init__(self, root: Path, room: int, most: int = MOST) -> None:
        self.logs = root / "logs"
        self.logs.mkdir()
        self.wanted: set[str] = set()
        self.removed: list[str] = []
        self.attic = Attic(str(self.logs), room * SHARE, self.wanted.__contains__, self.removed.append, most)

    def put(self, name: str, size: int, age: int = 0) -> Path:
        """A log of so many bytes that was last written so many seconds ago."""
        directory = self.logs / name
        (directory / "stderr").mkdir(parents=True)
        parts = {"current": size - 30, "current.index": 10, f"{0:020d}.log.gz": 10, "stderr/current": 10}
        for part, length in parts.items():
            (directory / part).write_bytes(b"x" * length)
            os.utime(directory / part, (1_000_000 - age, 1_000_000 - age))
        return directory

    def names(self) -> set[str]:
        """What there is."""
        return {path.name for path in self.logs.iterdir()}


@pytest.fixture
def loft(tmp_path: Path) -> Loft:
    """One with room for 1,000 bytes."""
    return Loft(tmp_path, 1000)


def test_the_oldest_go_first(loft: Loft) -> None:
    """At the start the oldest logs go, by when they were written last, until the others fit."""
    for name, age in (("a", 1), ("b", 3), ("c", 2), ("d", 4)):
        loft.put(name, 400, age)
    loft.attic.look()
    assert loft.names() == {"a", "c"}
    assert loft.removed == ["d", "b"]


def test_no_more_than_so_many(tmp_path: Path) -> None:
    """However small they are, only the newest stay: as many as there may be."""
    loft = Loft(tmp_path, 1_000_000, most=2)
    for number, name in enumerate("abc"):
        loft.put(name, 40, age=number)
    loft.attic.look()
    assert loft.names() == {"a", "b"}
    loft.put("d", 40)
    loft.attic.add("d")
    assert loft.names() == {"a", "d"}
    assert loft.removed == ["c", "b"]


def test_what_exists_is_not_touched(loft: Loft) -> None:
    """The log of a process that exists is neither removed nor counted."""
    loft.wanted.add("web")
    loft.put("web", 5000, 9)
    loft.put("old", 900, 1)
    loft.attic.look()
    loft.attic.add("web")
    assert loft.names() == {"web", "old"}


def test_one_that_came_back_is_not_touched(loft: Loft) -> None:
    """A process that was removed and came back keeps its log, however long ago it was removed."""
    loft.put("back", 600)
    loft.attic.add("back")
    loft.wanted.add("back")
    loft.put("gone", 900)
    loft.attic.add("gone")
    assert loft.names() == {"back", "gone"}


def test_one_by_one(loft: Loft) -> None:
    """With each removal the ones that were removed longest ago go, whatever their times say."""
    for number, name in enumerate("abcde"):
        loft.put(name, 300, age=number)
        loft.attic.add(name)
    assert loft.names() == {"c", "d", "e"}
    loft.attic.add("c")  # removed again: now the newest
    loft.put("f", 300)
    loft.attic.add("f")
    assert loft.names() == {"c", "e", "f"}


def test_what_is_larger_than_the_room(loft: Loft) -> None:
    """A log that is larger than all the room goes as well."""
    loft.put("large", 1001)
    loft.attic.add("large")
    assert loft.names() == set()


@pytest.mark.parametrize("what", ["file", "directory", "link", "inner link", "other directory", "deep"])
def test_what_is_not_ours_is_not_touched(loft: Loft, tmp_path: Path, what: str) -> None:
    """A directory in which there is anything but logs stays, and so does what is none, or a link."""
    elsewhere = tmp_path / "elsewhere"
    if what == "link":
        loft.put("web", 5000).rename(elsewhere)
        (loft.logs / "web").symlink_to(elsewhere)
    elif what == "other directory":
        (loft.logs / "web").mkdir()
        (loft.logs / "web" / "notes.txt").write_text("x" * 5000)
    elif what == "directory":
        (loft.logs / "web").mkdir()
    else:
        place = loft.put("web", 5000)
        if what == "file":
            (place / "notes.txt").write_text("mine")
        elif what == "deep":
            (place / "stderr" / "stderr").mkdir()
        else:
            (place / "cuts").symlink_to(elsewhere)
    (loft.logs / "plain").write_text("x" * 5000)
    loft.attic.look()
    loft.attic.add("web")
    loft.attic.add("plain")
    assert loft.names() == {"web", "plain"}
    assert loft.removed == []


def test_no_directory(tmp_path: Path) -> None:
    """Where there are no logs nothing is removed."""
    attic = Attic(str(tmp_path / "nowhere"), 1000, lambda name: False, lambda name: None)
    attic.look()
    attic.add("web")
