"""The judges of what grows say so of what does, and of nothing else; a short soak of a small colony has no fault."""

from __future__ import annotations

import dataclasses
import os
import secrets
from pathlib import Path

import pytest

from soak.churn import Churn
from soak.flat import Bounds, Look, Tenth, compare, judge_flat
from soak.measure import Disk, Size, disk_of, percentile, size_of
from soak.restarts import Restarts

# `make soak SECONDS=3600` is the long one, with a thousand processes; `make soak-restarts` does a hundred thousand.
SECONDS, SCALE, QUIET_S = 8.0, 0.02, 1.0
RESTARTS = 600

MIB = 1024
BOUNDS = Bounds(processes=100, answered=500, rejected=10, removed=20, budget=1 << 20)
SIZE = Size(pid=1, own_kib=40 * MIB, pss_kib=40 * MIB, rss_kib=50 * MIB, descriptors=120, threads=2, cpu_s=1.0, at=0.0)
LOOK = Look(
    {"supervisor": SIZE},
    {"answers": Disk(10, 4096), "history": Disk(50, 4096), "instances": Disk(100, 4096)},
    Disk(30, 1 << 20),
    {"supervisor": 0.02},
    {"message": [0.002] * 90 + [0.010] * 10},
)


def changed(look: Look = LOOK, **sizes: int) -> Look:
    """The same, but for the size of the supervisor."""
    return dataclasses.replace(look, sizes={"supervisor": dataclasses.replace(SIZE, **sizes)})


def placed(**places: int) -> Look:
    """The same, but for the number of names in some directories."""
    return dataclasses.replace(LOOK, state=LOOK.state | {place: Disk(names, 0) for place, names in places.items()})


@pytest.mark.parametrize(
    ("after", "wrong"),
    [
        (LOOK, ""),
        (changed(own_kib=41 * MIB), ""),
        (changed(own_kib=47 * MIB), "KiB (its own), 40960 at the middle"),
        (changed(rss_kib=90 * MIB), "KiB (RSS)"),
        # Who took over holds two for each process, and some logs are open.
        (changed(descriptors=2 * 100 + 320), ""),
        (changed(descriptors=2 * 100 + 329), "descriptors"),
        (changed(threads=3), "3 threads"),
        (placed(answers=500), ""),
        (placed(answers=600), "answers"),
        (placed(history=120), ""),
        (placed(history=130), "history"),
        (placed(instances=104), ""),
        (placed(instances=105), "instances"),
        (placed(unheard_of=5), "unheard_of"),
        (dataclasses.replace(LOOK, logs=Disk(30, 5 << 18)), ""),
        (dataclasses.replace(LOOK, logs=Disk(30, (5 << 18) + 1)), "logs"),
        (dataclasses.replace(LOOK, busy={"supervisor": 0.07}), ""),
        (dataclasses.replace(LOOK, busy={"supervisor": 0.08}), "CPU"),
        (dataclasses.replace(LOOK, busy={"supervisor": 0.036}, window_s=10.0), ""),
        (dataclasses.replace(LOOK, busy={"supervisor": 0.037}, window_s=10.0), "CPU"),
        (dataclasses.replace(LOOK, latency={"message": [0.006] * 99}), ""),
        (dataclasses.replace(LOOK, latency={"message": [0.0061] * 99}), "message: 6.1 ms (50% are faster)"),
        (dataclasses.replace(LOOK, latency={"message": [0.002] * 80 + [0.05] * 20}), "(90% are faster)"),
        (dataclasses.replace(LOOK, latency={"message": []}), "message"),
        (dataclasses.replace(LOOK, latency={"message": [9.0]}, others=0.5), ""),
        (dataclasses.replace(LOOK, latency=LOOK.latency | {"never asked before": [9.0]}), ""),
    ],
)
def test_judge_sees_what_grew(after: Look, wrong: str) -> None:
    """What is more than at the beginning, by more than is allowed, is one fault; what is bounded may fill up."""
    faults = compare(LOOK, changed(descriptors=520), after, BOUNDS)
    assert len(faults) <= 2
    assert bool(faults) == bool(wrong), faults
    assert any(wrong in fault for fault in faults) or not wrong, faults


def test_judge_compares_with_what_there_was() -> None:
    """What did not happen at the beginning, such as the death of an adopted process, is no measure for the end."""
    before = dataclasses.replace(LOOK, latency={"death of one adopted": []})
    after = dataclasses.replace(LOOK, latency={"death of one adopted": [9.0]})
    assert not [one for one in compare(before, before, after, BOUNDS) if "adopted" in one]


def test_judge_sees_what_grew_since_the_middle() -> None:
    """What had been through everything in the middle may hardly grow after it."""
    grown = changed(own_kib=47 * MIB)
    assert compare(LOOK, grown, grown, BOUNDS) == []
    assert len(compare(LOOK, grown, changed(own_kib=60 * MIB), BOUNDS)) == 2
    assert "nothing is known" in compare(LOOK, dataclasses.replace(LOOK, sizes={}), LOOK, BOUNDS)[0]


def tenths(*own_kib: int, names: int = 100) -> list[Tenth]:
    """Looks after 100, 200, … restarts at these sizes of the supervisor."""
    return [
        Tenth(number * 100, changed(own_kib=size).sizes, Disk(names, 1 << 20), Disk(10, 1 << 20))
        for number, size in enumerate(own_kib, 1)
    ]


@pytest.mark.parametrize(
    ("looks", "wrong"),
    [
        (tenths(*[40000] * 10), ""),
        (tenths(30000, *[40000] * 9), ""),  # before the first fifth
        (tenths(*range(40000, 41000, 100)), ""),
        (tenths(*range(40000, 50000, 1000)), "supervisor: KiB (its own)"),
        (tenths(40000, 40000, 47000, 40000, 47000, 40000, 47000, 40000, 47000, 40000), ""),
        (tenths(*[40000] * 5) + tenths(*[40000] * 10, names=300)[5:], "state directory: names"),
        (tenths(40000, 40000), "4 are needed"),
    ],
)
def test_judge_sees_what_grows_with_restarts(looks: list[Tenth], wrong: str) -> None:
    """What keeps growing after the first fifth of the restarts is a fault; what goes up and down is none."""
    faults = judge_flat(looks, settled=200, processes=50, budget=1 << 20)
    assert bool(faults) == bool(wrong), faults
    assert all(wrong in fault for fault in faults)


def test_measures(tmp_path: Path) -> None:
    """A process has a size, what is gone has none; a directory's content is counted to its depth."""
    size = size_of(os.getpid())
    assert size is not None
    assert min(size.own_kib, size.pss_kib, size.rss_kib, size.descriptors, size.threads, size.cpu_s) > 0
    assert size_of(1 << 22) is None
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x" * 5000)
    (tmp_path / "file").touch()
    found = disk_of(tmp_path)
    assert {place: disk.names for place, disk in found.items()} == {"a": 2, ".": 1}
    assert found["a"].bytes >= 5000
    assert [percentile(range(100), share) for share in (0.5, 0.99, 1.0)] == [50, 99, 99]


@pytest.mark.timeout(300)
def test_churn(tmp_path: Path) -> None:
    """Whatever is done to them, each process is restarted when it should be and only then, and is always answered."""
    soak = Churn(tmp_path, int(os.environ.get("SEED") or secrets.randbelow(10**6)), SCALE, QUIET_S)
    try:
        soak.run(SECONDS)
    finally:
        soak.end_all()
    table, faults = soak.verdict()
    # A short time says nothing of what grows, nor a busy machine of how fast we are.
    faults = [fault for fault in faults if fault not in soak.unflat()]
    assert not faults, "\n".join([f"SEED={soak.seed}", table, *faults[:20]])
    assert len(soak.looks) == 3
    assert soak.ledger.delays
    assert soak.asked > 0


@pytest.mark.timeout(300)
def test_restarts(tmp_path: Path) -> None:
    """Restarts of all kinds are counted and measured ten times."""
    soak = Restarts(tmp_path, RESTARTS)
    soak.run()
    assert soak.faults == []
    assert [tenth.restarts >= RESTARTS * number // 10 for number, tenth in enumerate(soak.tenths, 1)] == [True] * 10
    assert all(tenth.sizes.keys() == {"supervisor", "keeper"} for tenth in soak.tenths)
