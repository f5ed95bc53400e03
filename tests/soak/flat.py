"""Compare what a colony takes at several times: nothing that it keeps may have grown, and it must not be slower."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from soak.measure import Disk, Size, percentile


@dataclass
class Look:
    """What was measured while nothing was done to the colony, or only what is measured."""

    sizes: dict[str, Size]  # of each part
    state: dict[str, Disk]  # of each directory in the state directory
    logs: Disk
    busy: dict[str, float] = field(default_factory=dict)  # of each part: CPU seconds while nothing was done
    latency: dict[str, list[float]] = field(default_factory=dict)  # of each deed, in seconds
    window_s: float = 60.0  # for how long nothing was done
    others: float = 0.0  # the share of the machine that somebody else took


@dataclass(frozen=True)
class Allowance:
    """How much more there may be: a share, and an amount besides; and why."""

    share: float
    amount: float
    reason: str

    def most(self, before: float) -> float:
        """What there may be, after there was so much."""
        return before * (1 + self.share) + self.amount


MEMORY = Allowance(0.05, 2048, "KiB; what was freed lies in pieces, and a Python has not yet seen all it ever will")
GROWN_UP = Allowance(0.1, 6144, "KiB; what is only imported, compiled and cached when it is needed first")
DESCRIPTORS = Allowance(
    0, 64 + 256, "files of logs that stay open: the 64 read last, and of the 128 written last two each"
)
THREADS = Allowance(0, 0, "there is no reason for one more")
PLACES = Allowance(0, 4, "names of files that are being written")
PROCESSOR = Allowance(1.0, 0.03, "seconds; a look for garbage and a periodic scan or two, more or less")
TYPICAL = Allowance(0.5, 0.003, "seconds; the machine has other things to do")
RARE = Allowance(1.0, 0.02, "seconds; one turn of somebody else more or less")
# What is compared of how fast it is, by the share that is faster. Of some dozens the slowest is chance.
COMPARED = ((0.5, TYPICAL), (0.9, RARE))
# Where others take more of the machine than this, how fast we are says something of them.
OTHERS = 0.25


@dataclass(frozen=True)
class Bounds:
    """What may be in those directories that keep something for a while, whatever was there before."""

    processes: int
    answered: int  # messages so far, those of companions too
    rejected: int
    removed: int  # processes so far
    budget: int  # bytes that all logs may take

    def names(self, place: str) -> int | None:
        """How many names there may be in a directory; None where nothing is kept."""
        # Of what is gone the newest thousand: see docs/messages.md.
        gone = min(self.removed, 1000)
        kept = {
            "answers": min(self.answered, 10_000),
            "rejected": 2 * min(self.rejected, 1000),  # each with its reason
            "history": self.processes + gone,
            "forwarded": 2 * (self.processes + gone),  # into the log, and into files of its own
            "status": self.processes,
            "previous": self.processes,
        }
        return kept.get(place)

    @property
    def logs(self) -> float:
        """How many bytes logs may take: a quarter more with those of processes that were removed."""
        return self.budget * 1.25


def compare(first: Look, before: Look, after: Look, bounds: Bounds) -> list[str]:
    """What has grown: since `first`, a fresh colony; and since `before`, when it had been through everything."""
    return [
        *_sizes("the beginning", first.sizes, after.sizes, GROWN_UP, 2 * bounds.processes),
        *_sizes("the middle", before.sizes, after.sizes, MEMORY, 0),
        *_places(first.state, after.state, bounds),
        *_logs(after.logs, bounds),
        *_busy(first, after),
        *(_latency(first.latency, after.latency) if comparable(first, after) else ()),
    ]


def comparable(first: Look, after: Look) -> bool:
    """Whether the machine was ours in both."""
    return max(first.others, after.others) <= OTHERS


def _sizes(
    when: str, before: Mapping[str, Size], after: Mapping[str, Size], memory: Allowance, adopting: int
) -> list[str]:
    """`adopting`: so many descriptors more are needed by who took over from another, two for each process."""
    wrong = []
    for part, now in after.items():
        then = before.get(part)
        if then is None:
            wrong.append(f"{part}: nothing is known of {when}")
            continue
        pairs = [
            ("KiB (its own)", then.own_kib, now.own_kib, memory),
            ("KiB (RSS)", then.rss_kib, now.rss_kib, memory),
            ("descriptors", max(then.descriptors, adopting), now.descriptors, DESCRIPTORS),
            ("threads", then.threads, now.threads, THREADS),
        ]
        wrong += [
            f"{part}: {found} {what}, {was} at {when}; allowed {allowance.most(was):.0f}"
            for what, was, found, allowance in pairs
            if found > allowance.most(was)
        ]
    return wrong


def _places(before: Mapping[str, Disk], after: Mapping[str, Disk], bounds: Bounds) -> list[str]:
    wrong = []
    for place, now in sorted(after.items()):
        kept = bounds.names(place)
        was = before.get(place, Disk()).names if kept is None else kept
        if now.names > PLACES.most(was):
            wrong.append(f"{place} in the state directory: {now.names} names; allowed {PLACES.most(was):.0f}")
    return wrong


def _logs(logs: Disk, bounds: Bounds) -> list[str]:
    return [f"logs: {logs.bytes} bytes; allowed {bounds.logs:.0f}"] if logs.bytes > bounds.logs else []


def _busy(first: Look, after: Look) -> list[str]:
    wrong = []
    for part, now in after.busy.items():
        was = first.busy.get(part, math.inf) * after.window_s / first.window_s
        if now > PROCESSOR.most(was):
            wrong.append(f"{part}: {now:.3f} s of CPU while it was quiet, {was:.3f} at the beginning")
    return wrong


def _latency(before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]]) -> list[str]:
    wrong = []
    for what, now in after.items():
        if not before.get(what):
            continue  # there were none to be compared with
        for share, allowance in COMPARED:
            was, found = percentile(before[what], share), percentile(now, share)
            if not found <= allowance.most(was):
                wrong.append(
                    f"{what}: {found * 1000:.1f} ms ({share:.0%} are faster), {was * 1000:.1f} at the beginning"
                )
    return wrong


@dataclass
class Tenth:
    """What was measured after so many restarts. Of the state directory all but answers, which are kept for an hour."""

    restarts: int
    sizes: dict[str, Size]
    state: Disk
    logs: Disk


# After the first fifth of the restarts: what is only needed by the thousandth is there.
STEADY = Allowance(0.01, 512, "KiB; pieces of what was freed, and one page table more")
IN_FLIGHT = Allowance(0, 8, "files that are open while they are written")
# History and events are cut back to a half when they are full, so they go up and down.
KEPT = Allowance(0.1, 2 << 20, "bytes; files that are cut back when they are full")


def judge_flat(tenths: Sequence[Tenth], settled: int, processes: int, budget: int) -> list[str]:
    """What is more at the end than it was after `settled` restarts.

    What goes up and down is compared by its most: of all looks up to the middle of what follows, and of those after it.
    """
    later = [tenth for tenth in tenths if tenth.restarts >= settled]
    if len(later) < 4:
        return [f"only {len(later)} looks after {settled} restarts; 4 are needed"]
    early, late = later[: len(later) // 2], later[len(later) // 2 :]
    wrong = []

    def compare_most(what: str, amount: Callable[[Tenth], int], allowance: Allowance) -> None:
        was, found = max(map(amount, early)), max(map(amount, late))
        if found > allowance.most(was):
            wrong.append(f"{what}: {found} after {late[-1].restarts} restarts, {was} before; {allowance.reason}")

    for part in later[0].sizes:
        compare_most(f"{part}: KiB (its own)", lambda tenth: tenth.sizes[part].own_kib, STEADY)  # noqa: B023
        compare_most(f"{part}: KiB (RSS)", lambda tenth: tenth.sizes[part].rss_kib, STEADY)  # noqa: B023
        # An instance that just ends has two FIFOs at most, in either half.
        compare_most(
            f"{part}: descriptors",
            lambda tenth: max(tenth.sizes[part].descriptors, 2 * processes),  # noqa: B023
            IN_FLIGHT,
        )
        compare_most(f"{part}: threads", lambda tenth: tenth.sizes[part].threads, THREADS)  # noqa: B023
    compare_most(
        "state directory: names", lambda tenth: tenth.state.names, Allowance(0, 3 * processes, "names of instances")
    )
    compare_most("state directory: bytes", lambda tenth: tenth.state.bytes, KEPT)
    compare_most("logs: bytes", lambda tenth: max(tenth.logs.bytes, budget), KEPT)
    return wrong
