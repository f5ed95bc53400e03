"""What an event costs stays what it was, however many processes there are: counted in calls and bytes, not in time."""

from __future__ import annotations

import re
import statistics
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from cost.events import GROUPS, HALVES, PRINTERS, Event, Place, bound, measure, rows
from cost.meter import Cost, can_trace

# Each event so often. The median counts: once in a while something else comes between, such as another tick of the
# clock within a start (the keeper then asks /proc), or a report in two pieces.
_TIMES = 3
# 170 processes more may not cost this much more. A look at a sixth of them would be 28 calls; now and then 380 bytes
# in 9 calls tell of how many descriptors are left.
_APART = {"calls": 14, "opens": 4, "wake-ups": 4, "bytes": 450}
_WINDOW_S = 3.0


def median(costs: Iterable[Cost]) -> dict[str, int]:
    """Of each figure by itself."""
    figures = [cost.figures for cost in costs]
    return {key: int(statistics.median(one[key] for one in figures)) for key in figures[0]}


@pytest.mark.parametrize("group", GROUPS)
def test_an_event_costs_what_it_did_with_few_processes_and_with_many(places: list[Place], group: str) -> None:
    """Each half needs as many calls, opens, wake-ups and bytes as it did, and the same with 30 and 200 processes."""
    found: dict[str, list[list[dict[str, Cost]]]] = {event.what: [] for event in GROUPS[group]}
    for _ in range(_TIMES):
        for event in GROUPS[group]:
            found[event.what].append(measure(places, event.do))
    for event in GROUPS[group]:
        for half in HALVES:
            few, many = [[costs[size][half] for costs in found[event.what]] for size in range(len(places))]
            for column, figure in median(many).items():
                said = f"{event.what}: {half}: {column}: {figure}"
                assert figure <= bound(event.seen(half)[column], column), f"{said}\n{listing(many[-1])}"
                most = max(cost.figures[column] for cost in few)
                assert figure <= most + _APART[column], f"{said}, with few processes {most}\n{listing(many[-1])}"
            for one, costs in zip(places, (few, many), strict=True):
                for cost in costs[1:]:  # before, the first line of all makes a directory
                    look_at_paths(one, event, cost)
    if not can_trace():
        pytest.skip("without strace only bytes and waits were counted")


def look_at_paths(place: Place, event: Event, cost: Cost) -> None:
    """Nothing of another process is looked at, no directory but those of the process is listed, no file read twice."""
    root, others = str(place.colony.root), {*place.names, *PRINTERS} - {event.name}
    paths = [path for call in cost.calls or () for path in call.paths]
    foreign = {path for path in paths if path.startswith(root) and others & set(path.removeprefix(root).split("/"))}
    assert not foreign, f"{event.what}: {foreign}"
    pids = {found[1] for path in paths if (found := re.match(r"/proc/(\d+)", path))}
    assert len(pids) <= 2, f"{event.what}: {pids}"  # an instance that ends, and one that begins
    listed = [path for path in cost.listed if not re.fullmatch(rf"/proc/\d+/task|{root}/logs/{event.name}", path)]
    assert not listed, f"{event.what}: {listed}"
    inputs = Counter(path for path in cost.opened if path.startswith((f"{root}/conf/", f"{root}/messages/")))
    assert set(inputs.values()) <= {1}, f"{event.what}: {inputs}"


def listing(cost: Cost) -> str:
    """For whoever has to find out."""
    return "\n".join(f"{call.name}({call.text}" for call in cost.calls or ())


def test_nobody_wakes_up_while_nothing_happens(places: list[Place]) -> None:
    """Between two periodic scans neither half makes a call, whatever there is to supervise."""
    meters = [meter for one in places for meter in one.meters.values()]
    for meter in meters:
        meter.begin()
    end = time.monotonic() + _WINDOW_S
    places[0].colony.wait_for(lambda: time.monotonic() > end, "the window is over")
    for meter in meters:
        cost = meter.cost()
        assert cost.sleeps == cost.written == cost.read == 0, listing(cost)
        assert not cost.calls, listing(cost)


def test_the_documentation_shows_what_is_compared_with() -> None:
    """The table of costs in the documentation has a row for each event, with the figures that are used here."""
    page = Path(__file__).resolve().parent.parent.parent / "docs" / "performance.md"
    shown = page.read_text(encoding="utf-8").partition("## Costs that tests guard")[2]
    missing = [row for row in rows() if row not in shown]
    assert not missing, "\n".join(missing)
