"""Status files: soon after a change, later while many things change, in time for whoever is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk

from ncolony.model.status import Status, decode
from ncolony.system.records import Records


class Writer:
    """The records of made-up processes, whose instance number counts their changes."""

    def __init__(self, desk: Desk, root: Path) -> None:
        self.desk, self.place, self.problems = desk, root / "status", dict[str, str]()
        self.place.mkdir()
        self.changes: dict[str, int] = {}
        self.written: list[str] = []
        self.records = Records(desk.reactor, str(root), None, self._describe, self.problems.__setitem__)

    def _describe(self, name: str) -> Status | None:
        self.written.append(name)
        return None if self.changes[name] < 0 else _status(name, self.changes[name])

    def change(self, *names: str, transient: bool = False) -> None:
        """Something has changed with these processes."""
        for name in names:
            self.changes[name] = self.changes.get(name, 0) + 1
            self.records.changed(name, transient)

    def on_disk(self, name: str) -> int:
        """Which change the file shows, 0 without one."""
        try:
            found = decode((self.place / name).read_bytes())
        except FileNotFoundError:
            return 0
        assert found is not None
        return found.instance


def _status(name: str, instance: int) -> Status:
    return Status(
        name=name, state="RUNNING", wanted="up", pid=1, instance=instance, since=0.0, started=0.0, restarts=0,
        next_try=None, reason="", problem=None, warnings=(), group=(), enabled=True, generation="", digest="",
        last_exit=None,
    )  # fmt: skip


@pytest.fixture
def writer(desk: Desk, tmp_path: Path) -> Iterator[Writer]:
    yield Writer(desk, tmp_path)


MANY = [f"m{number:03}" for number in range(200)]


def test_soon(writer: Writer) -> None:
    """What has changed is written a moment later, once for all changes until then."""
    writer.change("web", "db")
    writer.change("web")
    assert writer.on_disk("web") == 0
    writer.desk.until(lambda: writer.on_disk("web") == 2 and writer.on_disk("db") == 1, "they are written")
    assert sorted(writer.written) == ["db", "web"]


def test_what_will_soon_change_again_waits(writer: Writer) -> None:
    """A state that is passed through is written if nothing follows, and not at all if something does."""
    writer.change("starts", "stays", transient=True)
    writer.change("other")
    writer.desk.until(lambda: writer.on_disk("other"), "the other is written")
    assert writer.written == ["other"]
    writer.change("starts")
    writer.desk.until(lambda: writer.on_disk("starts") and writer.on_disk("stays"), "both are written")
    assert writer.written == ["other", "starts", "stays"]


def storm(writer: Writer, count: int) -> list[tuple[float, int]]:
    """Change so many processes again and again until one is written; (seconds since the first, files) at each turn."""
    began, turns = writer.desk.reactor.seconds(), list[tuple[float, int]]()

    def is_over() -> bool:
        if not writer.written:
            writer.change(*MANY[:count])
        turns.append((writer.desk.reactor.seconds() - began, len(writer.written)))
        return bool(writer.written)

    writer.desk.until(is_over, "one is written")
    return turns


def test_files_wait_while_a_storm_lasts(writer: Writer) -> None:
    """While more than 64 processes change all the time no file is written, for half a second and then all the same."""
    turns = storm(writer, 65)
    assert turns[-1][0] >= 0.5
    assert all(files == 0 for seconds, files in turns[:-1])
    # At the first opportunity after that: it is told by turns, not by the clock, which a busy machine may stop.
    assert sum(seconds >= 0.5 for seconds, _ in turns) <= 4
    writer.desk.until(lambda: all(writer.on_disk(one) == writer.changes[one] for one in MANY[:65]), "all are written")


def test_few_changes_are_no_storm(writer: Writer) -> None:
    """However often 64 processes change, they are written soon."""
    turns = storm(writer, 64)
    assert len(turns) < 100
    assert turns[-1][1] == 64


def test_when_it_calms_down(writer: Writer) -> None:
    """Many changes with nothing after them are written at the next look, not after the longest time."""
    writer.change(*MANY)
    turns = 0

    def is_begun() -> bool:
        nonlocal turns
        turns += 1
        return bool(writer.written)

    writer.desk.until(is_begun, "the first are written")
    assert turns < 20  # of 10 ms at most: half a second has more of them
    assert len(writer.written) == 64  # others have their turn
    writer.desk.until(lambda: all(writer.on_disk(one) for one in MANY), "all are written")
    assert sorted(writer.written) == MANY


def test_one_storm_after_the_other(writer: Writer) -> None:
    """Files of the next storm wait anew, once those of the last are written."""
    for number in (1, 2):
        writer.written.clear()
        assert storm(writer, 100)[-1][0] >= 0.5, number
        writer.desk.until(
            lambda: all(writer.on_disk(one) == writer.changes[one] for one in MANY[:100]), "all are written"
        )


def test_settled_at_once(writer: Writer) -> None:
    """In a storm too those are written that somebody is about to be told of, whatever they wait for; no others."""
    writer.change(*MANY)
    writer.change("starts", transient=True)
    writer.change("gone")
    writer.desk.until(lambda: not writer.desk.reactor.getDelayedCalls() or writer.written, "some are written")
    writer.change(*MANY)
    writer.written.clear()
    writer.records.settle(["m150", "starts", "unchanged", "m002"])
    assert writer.written == ["m150", "starts", "m002"]
    assert writer.on_disk("m150") == writer.changes["m150"]
    writer.written.clear()
    writer.records.settle(["m150", "starts"])
    assert writer.written == []


def test_a_process_that_is_gone(writer: Writer) -> None:
    """The file goes too, also by `settle`."""
    writer.change("web")
    writer.records.flush()
    writer.changes["web"] = -1
    writer.records.changed("web")
    writer.records.settle(["web"])
    assert list(writer.place.iterdir()) == []


def test_flush_writes_everything(writer: Writer) -> None:
    """At the end nothing is due any more."""
    writer.records.slow_down()
    writer.change(*MANY)
    writer.change("starts", transient=True)
    writer.records.flush()
    assert {path.name for path in writer.place.iterdir()} == {*MANY, "starts"}
