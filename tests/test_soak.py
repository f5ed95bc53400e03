"""A short soak of a small colony; and that its judge sees what it is there to see."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from soak.cast import Player
from soak.health import Soak
from soak.judge import Ledger, judge_runs

# `make soak-health SECONDS=1800` is the long one.
SECONDS, SCALE = 15.0, 0.08


@pytest.mark.timeout(300)
def test_soak(tmp_path: Path) -> None:
    """Who is made ill is restarted once and nobody else is, jobs run at their times, and nothing grows or is left."""
    soak = Soak(tmp_path, int(os.environ.get("SEED") or secrets.randbelow(10**6)), SCALE)
    try:
        soak.run(SECONDS)
    finally:
        soak.end_all()
    table, faults = soak.verdict()
    assert not faults, "\n".join([f"SEED={soak.seed}", table, *faults[:20]])
    assert soak.ledger.delays
    assert soak.ledger.counts["starts"] > len(soak.cast.players) + len(soak.cast.jobs)


def ledger(directory: Path, *lines: str) -> Ledger:
    """A ledger with these notes of `web`, a second apart, read to its end."""
    path = directory / "ledger"
    path.write_text("".join(f"{at:.2f} web {line}\n" for at, line in enumerate(lines, 1)), encoding="ascii")
    found = Ledger(path, {"job"})
    found.read()
    found.close()
    return found


def test_judge_accepts_own_ends(tmp_path: Path) -> None:
    """A start after the end that the process announced needs no other cause."""
    found = ledger(tmp_path, "up 100 a", "exit 100 a", "up 101 b")
    assert (found.faults, found.counts["starts"]) == ([], 2)


def test_judge_sees_what_has_no_cause(tmp_path: Path) -> None:
    """A start after none, or a second one after a single cause, is a fault."""
    assert ledger(tmp_path, "up 100 a", "up 101 b").counts["spurious"] == 1
    path = tmp_path / "ledger"
    path.write_text("1.00 web up 100 a\n", encoding="ascii")
    found = Ledger(path, set())
    found.read()
    found.expect("web", "killed", 2.0)
    with path.open("a", encoding="ascii") as more:
        more.write("3.00 web up 101 b\n4.00 web up 102 c\n5.00 we")
    found.read()
    found.close()
    assert (found.counts["killed, done"], found.counts["spurious"]) == (1, 1)
    assert found.delays == {"killed": [1.0]}


def test_judge_misses_what_was_not_done(tmp_path: Path) -> None:
    """A cause whose restart does not come is a fault."""
    found = ledger(tmp_path, "up 100 a")
    found.expect("web", "sick", 2.0)
    found.overdue(11.0, 10.0)
    assert not found.faults
    found.overdue(12.1, 10.0)
    assert (found.counts["missing"], found.waits()) == (1, [])


@pytest.mark.parametrize("lines", [("up 100 a", "duplicate 101 b"), ("up 100 a", "exit 100 a", "up 101 a")])
def test_judge_sees_two_at_once(tmp_path: Path, lines: tuple[str, ...]) -> None:
    """An instance that found another alive, and one that was started twice, are faults."""
    assert ledger(tmp_path, *lines).counts["duplicates"] == 1


EVERY = Player("often", "often", {}, every=10.0)
MADE_UP = Player("often", "often", {}, every=10.0, catches_up=True)
CRON = Player("cron", "cron", {}, cron_second=30)


@pytest.mark.parametrize(
    ("player", "times", "expected"),
    [
        (EVERY, (3.0, 13.0, 23.2, 33.0, 43.1), (5, 0, 0, 0)),
        (EVERY, (3.0, 13.0, 30.0, 33.0, 43.1), (5, 0, 0, 0)),  # seven seconds late
        (EVERY, (3.8, 13.0, 23.9, 33.1, 43.9), (5, 0, 0, 0)),
        (EVERY, (3.0, 13.0, 33.0, 43.1), (5, 1, 0, 0)),
        (EVERY, (3.0, 13.0, 43.1), (5, 1, 0, 1)),  # due at 33, while nobody ran, and at 23
        (MADE_UP, (3.0, 13.0, 43.1), (5, 2, 0, 0)),
        (MADE_UP, (3.0, 13.0, 23.0, 43.1, 43.5), (5, 0, 0, 0)),
        (MADE_UP, (3.0, 13.0, 23.0, 43.1, 43.5, 43.9), (5, 0, 1, 0)),
        (EVERY, (3.0, 13.0, 13.9, 23.0, 33.0, 43.0), (5, 0, 1, 0)),
        (EVERY, (), (0, 1, 0, 0)),
        (CRON, (35.0, 95.2, 155.0), (3, 0, 0, 0)),
        (CRON, (95.2, 155.0), (3, 1, 0, 0)),
        (CRON, (), (3, 3, 0, 0)),
        (CRON, (35.0, 95.2, 97.0, 155.0), (3, 0, 1, 0)),
    ],
)
def test_judge_counts_runs(player: Player, times: tuple[float, ...], expected: tuple[int, ...]) -> None:
    """Each time that a job was due has one run, or is missed, doubled, or left out as nobody was there."""
    until = 54.0 if player.every else 220.0
    runs = judge_runs(player, times, (3.0, until), [(31.0, 34.5)], offset=-5.0)
    assert (runs.due, runs.missed, runs.doubled, runs.left_out) == expected
    assert len(runs.faults) == runs.missed + runs.doubled
