"""What concerns all processes at once costs each of them the same, however many there are. Counted, not timed."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from cost.conftest import SIZES
from cost.events import HALVES, PRINTERS, SHARE, Place, bound, measure, place
from cost.meter import OPENS, Call, Cost, can_trace, parse, traced

# What was seen for each process: of many new files at once; of a supervisor that begins, and `ctl status`, for each
# process more; and calls of one periodic scan, but for its looks at files.
PER_NEW_FILE = {
    "supervisor": {"calls": 24.6, "opens": 5.3, "bytes": 809.0},
    "keeper": {"calls": 20.3, "opens": 2.3, "bytes": 931.0},
}
# On a slow machine each shows a state first that mostly passes too soon: one more status is written.
_ANOTHER = {"calls": 6, "opens": 1, "bytes": 580}
PER_BEGINNING = {"calls": 25.3, "opens": 5.1}
PER_STATUS = {"calls": 4.0, "opens": 1.0}
PER_SCAN = 21
# A periodic scan looks at one file of so many (see Directory.scan).
_ROUNDS = 6
_RENAMES = ("rename", "renameat", "renameat2")

pytestmark = pytest.mark.skipif(
    not can_trace(), reason="strace is not installed, or may not be used (root gets it by tools/services.sh)"
)


def under(directory: Path, calls: Iterable[Call]) -> Counter[str]:
    """How often each file of this directory is among the arguments of the calls, by its name."""
    paths = [path for call in calls for path in call.paths if os.path.dirname(path) == str(directory)]
    return Counter(map(os.path.basename, paths))


def per_process(figures: dict[str, int], count: int, seen: dict[str, float]) -> None:
    """Compare with what was seen for each of `count` processes."""
    found = {key: figures[key] / count for key in seen}
    most = {key: seen[key] * SHARE + _ANOTHER[key] for key in seen}
    assert all(found[key] <= most[key] for key in seen), f"{found}, {seen} was seen"


def look_at_files(place: Place, cost: Cost) -> None:
    """Each config file was opened once, each status written once, or twice where the machine was slow."""
    names = [*place.names, *PRINTERS]
    assert under(place.colony.config, cost.named(*OPENS)) == Counter(names)
    written = under(place.colony.state / "status", cost.named(*_RENAMES))
    assert {written[name] for name in names} <= {1, 2}, written


def start_all(place: Place) -> None:
    """Write all config files and wait until their processes run."""
    place.write()
    place.wait_until_up()


@pytest.mark.parametrize("size", SIZES)
def test_many_new_files_cost_each_of_them_the_same(size: int) -> None:
    """Per process as many calls, opens and bytes with 200 as with 30; each file is read once."""
    with place(size) as one:
        one.begin()
        one.rest()
        [costs] = measure([one], start_all)
        look_at_files(one, costs["supervisor"])
        for half in HALVES:
            per_process(costs[half].figures, size + len(PRINTERS), PER_NEW_FILE[half])


def test_a_supervisor_that_begins_reads_each_file_once() -> None:
    """It costs the same for each further process when the files are there before the supervisor."""
    found = []
    for size in SIZES:
        with place(size) as one:
            one.write()
            log = one.colony.root / "strace"
            # The tracer is a grandchild (-D), so that what was started is the supervisor.
            one.colony.start("--frequency", "600", "--threshold", "0", prefix=traced("-D", "-o", str(log)))
            one.wait_until_up()
            cost = Cost(0, 0, 0, parse(log.read_bytes()))
            one.colony.stop()
            one.colony.wait_for(lambda: not one.colony.processes(), "the tracer has gone too")
        look_at_files(one, cost)
        found.append(cost.figures)
    more = {key: found[1][key] - found[0][key] for key in found[0]}
    per_process(more, SIZES[1] - SIZES[0], PER_BEGINNING)


def test_a_periodic_scan_looks_at_a_sixth_of_the_files() -> None:
    """Six scans look at each config file once and read none. The rest of a scan is the same for few and for many."""
    with contextlib.ExitStack() as stack:
        places = [stack.enter_context(place(size)) for size in SIZES]
        for one in places:
            one.write()
            one.begin(frequency=1)
        # Some scans later the files are so old that a change since they were read would show in their times.
        scans(places, 3)
        for one, found in zip(places, scans(places, _ROUNDS), strict=True):
            looks: Counter[str] = Counter()
            for calls in found:
                seen = under(one.colony.config, calls)
                assert seen.total() <= (one.size + len(PRINTERS)) / _ROUNDS + 1, seen
                assert len(calls) - seen.total() <= bound(PER_SCAN, "calls"), calls
                assert not under(one.colony.config, [call for call in calls if call.name in OPENS])
                looks += seen
            assert looks == Counter([*one.names, *PRINTERS])
            assert not one.meters["keeper"].cost().calls


def scans(places: list[Place], count: int) -> list[list[list[Call]]]:
    """The calls of so many scans of each colony from now on."""
    for one in places:
        for meter in one.meters.values():
            meter.begin()
    return [one.colony.wait_for(functools.partial(scans_of, one, count), f"{count} scans", 60) for one in places]


def scans_of(place: Place, count: int) -> list[list[Call]] | None:
    """What followed a wait and showed that a supervisor runs; None when there are not yet so many."""
    turns: list[list[Call]] = []
    for call in place.meters["supervisor"].cost().calls or ():
        if call.name == "epoll_wait":
            turns.append([])
        elif turns:
            turns[-1].append(call)
    done = [turn for turn in turns[:-1] if any(call.name == "flock" for call in turn)]
    return done[:count] if len(done) >= count else None


def test_ctl_status_reads_the_status_of_each_process_once(places: list[Place]) -> None:
    """Nothing in our directories is opened twice, and of a process nothing but its status."""
    costs, read = [], []
    for one in places:
        log = one.colony.root / "strace-ctl"
        command = [sys.executable, "-m", "ncolony", "ctl", *one.colony.ctl_places(), "--state", str(one.colony.state)]
        done = subprocess.run([*traced("-o", str(log)), *command, "status"], stdout=subprocess.PIPE, check=True)
        assert len(done.stdout.splitlines()) >= one.size
        cost = Cost(0, 0, 0, parse(log.read_bytes()))
        opened = Counter(path for path in cost.opened if path.startswith(str(one.colony.root)))
        assert set(opened.values()) == {1}, opened
        statuses = under(one.colony.state / "status", cost.named(*OPENS))
        assert statuses == Counter([*one.names, *PRINTERS])
        assert len(opened) - statuses.total() <= 6, opened
        costs.append(cost.figures)
        read.append(sum(call.result for call in cost.named("read", "pread64")))
    more = {key: costs[1][key] - costs[0][key] for key in costs[0]}
    assert {key: more[key] / (SIZES[1] - SIZES[0]) for key in PER_STATUS} == PER_STATUS
    written = sum(file.stat().st_size for file in (places[1].colony.state / "status").iterdir())
    assert read[1] - read[0] <= written
