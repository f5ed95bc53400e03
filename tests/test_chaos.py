"""A short random storm over a real colony; and that its judges see what they are there to see."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos import judge, witness
from chaos.storm import Storm

# `make chaos SECONDS=600` is the long one.
SECONDS = 12.0


@pytest.mark.timeout(240)
def test_storm(tmp_path: Path) -> None:
    """Whatever is killed: never two, nothing lost, every line once, every exit with its code, and a clean end."""
    storm = Storm(tmp_path, int(os.environ.get("SEED") or secrets.randbelow(10**6)))
    try:
        storm.run(SECONDS)
    finally:
        storm.end_all()
    verdict = storm.verdict()
    faults = "\n".join(line for fault in verdict.faults[:20] for line in storm.describe(fault))
    assert not verdict.faults, f"SEED={storm.seed}\n{verdict.table()}\n{faults}"
    assert verdict.counts["instances"] > len(storm.players)
    assert verdict.counts["lines"] > 0
    assert storm.kills


def lines(*numbers: int) -> bytes:
    """Lines of output with these numbers."""
    return b"".join(witness.line(number, "plain") for number in numbers)


def noted(directory: Path, *notes: str) -> judge.Testimony:
    """What a witness file with these notes, a second apart, says."""
    path = directory / "web"
    path.write_text("".join(f"{at} {note}\n" for at, note in enumerate(notes)), encoding="ascii")
    return judge.Testimony("web", path)


# Two instances: the first prints five lines, the last of them without its end; the second dies while it prints 6 to 8.
TWO = (
    "up 100 a 1", "printing 1..3", "printed 1..3", "printing 4..5 open", "printed 4..5", "exit 7 a",
    "up 101 b 6", "printing 6..8", "up 102 c 9", "printing 9..9", "printed 9..9",
)  # fmt: skip
WHOLE = lines(1, 2, 3, 4) + lines(5)[:-1] + lines(6) + lines(7)[:9] + lines(9)


def never(_instance: judge.Instance) -> bool:
    """Nothing may be lost."""
    return False


def read(directory: Path, data: bytes, allowed: Callable[[judge.Instance], bool] = never) -> Counter[str]:
    """What the judge counts of this output of those two instances."""
    reading = judge.Reading("logs", "plain", noted(directory, *TWO))
    reading.read_stream(data)
    reading.finish(allowed)
    assert sum(reading.counts.values()) - reading.counts["lost, allowed"] == 0 or reading.faults
    return reading.counts


def test_judge_accepts_what_is_whole(tmp_path: Path) -> None:
    """Every line once and in order, and a torn one of an instance that died while it printed, are no fault."""
    assert read(tmp_path, WHOLE) == Counter()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (lines(1, 3, 4) + WHOLE[len(lines(1, 2, 3, 4)) :], {"lost": 1}),
        (lines(2, 3) + WHOLE[len(lines(1, 2, 3)) :], {"lost": 1}),
        (WHOLE[: -len(lines(9))], {"lost": 1}),
        (WHOLE + lines(9), {"doubled": 1}),
        (lines(1, 2, 1, 2) + WHOLE[len(lines(1, 2)) :], {"doubled": 2}),
        (lines(2, 1) + WHOLE[len(lines(1, 2)) :], {"disordered": 1}),
        (lines(1) + lines(2)[20:] + WHOLE[len(lines(1, 2)) :], {"torn": 1, "lost": 1}),
        (lines(1)[:-1] + WHOLE[len(lines(1)) :], {"joined": 1}),
        (WHOLE + lines(10), {"unheard of": 1}),
    ],
)
def test_judge_sees_faults_in_output(tmp_path: Path, data: bytes, expected: dict[str, int]) -> None:
    """Lines that are missing, doubled, in the wrong order, torn, joined or nobody's are each counted as that."""
    assert read(tmp_path, data) == Counter(expected)


def test_judge_tells_whose_lines_may_be_lost(tmp_path: Path) -> None:
    """What an instance printed that ended while nobody held its output is counted apart."""
    data = lines(1, 2) + lines(3)[:9] + WHOLE[WHOLE.index(lines(6)) :]
    assert read(tmp_path, data, lambda instance: instance.identity == "a") == Counter({"lost, allowed": 3})
    assert read(tmp_path, data) == Counter({"lost": 3, "torn": 1})


def test_judge_reads_the_supervisors_log(tmp_path: Path) -> None:
    """Events of other kinds are passed over, pieces of one line are put together, and a doubled event is seen."""
    record = b"2026-01-01T00:00:00+0000 [ncolony.output#info] [web] "
    events = lines(1, 2, 3, 4, 5, 6, 9).splitlines()
    cut = len(events[0]) // 2
    pieces = [events[0][:cut] + " …".encode(), events[0][cut:], *events[1:], events[3]]
    other = b"2026-01-01T00:00:00+0000 [ncolony#info] web: running, pid 100\n"
    path = tmp_path / "log"
    path.write_bytes(other + b"".join(record + piece + b"\n" for piece in pieces))
    reading = judge.Reading("log", "plain", noted(tmp_path, *TWO))
    judge.read_own_log(path, {"web": reading})
    reading.finish(never)
    assert reading.counts == Counter({"doubled": 1})


@pytest.mark.parametrize(
    ("code", "signal", "fault"),
    [(7, None, None), (8, None, "wrong"), (None, "TERM", "wrong"), (None, None, "unknown")],
)
def test_judge_compares_exits(tmp_path: Path, code: int | None, signal: str | None, fault: str | None) -> None:
    """A recorded exit must have the code that the instance noted; where it noted none, a signal."""
    records = {
        "a": {"pid": 100, "code": code, "signal": signal},
        "b": {"pid": 101, "code": None, "signal": "TERM"},
        "c": {"pid": 102, "code": None, "signal": "KILL"},
    }
    counts, faults = judge.judge_exits(noted(tmp_path, *TWO), {"TERM", "KILL"}, records, never)
    assert counts == Counter([fault] if fault else [])
    assert len(faults) == (fault is not None)


def test_judge_misses_unrecorded_exits(tmp_path: Path) -> None:
    """An instance without a record is a fault, each."""
    counts, _ = judge.judge_exits(noted(tmp_path, *TWO), {"TERM"}, {}, never)
    assert counts == Counter(unrecorded=3)


@pytest.mark.parametrize("word", ["duplicate", "leftover"])
def test_judge_sees_two_at_once(tmp_path: Path, word: str) -> None:
    """An instance that found another of its name alive, or a descendant of one, is a fault."""
    found = noted(tmp_path, "up 100 a 1", f"{word} 101 b", "exit 198 b")
    assert found.counts == Counter({f"{word}s": 1})
    assert len(found.faults) == 1
