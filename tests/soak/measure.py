"""What the parts of a colony take of the machine, and what they have on disk."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


def now() -> float:
    """Seconds since boot, as the players note them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Size:
    """What a part takes. `own_kib` is memory of its own, which is part of the two others: the rest are files' pages.

    How much PSS there is also depends on who else runs the same programs.
    """

    pid: int
    own_kib: int
    pss_kib: int
    rss_kib: int
    descriptors: int
    threads: int
    cpu_s: float
    at: float


def size_of(pid: int) -> Size | None:
    """What a process takes now; None when it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        # Nanoseconds on a processor: /proc/PID/stat counts in hundredths of a second, and an idle minute takes few.
        tasks = [task.read_text(encoding="ascii") for task in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        opened = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None
    kib = {line.split()[0]: int(line.split()[1]) for line in text.splitlines() if line.endswith("kB")}
    cpu_s = sum(int(task.split()[0]) for task in tasks) / 1e9
    return Size(pid, kib["Pss_Anon:"], kib["Pss:"], kib["Rss:"], opened, len(tasks), cpu_s, now())


def machine_s() -> tuple[float, float]:
    """Seconds that all processors together were busy, and that there were, since boot (proc(5), /proc/stat)."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK"), sum(ticks) / os.sysconf("SC_CLK_TCK")


def parent_of(pid: int) -> int:
    """The pid of a process's parent, 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


@dataclass(frozen=True)
class Disk:
    """What is in one directory and below: names of every kind, and the bytes that they take on the disk."""

    names: int = 0
    bytes: int = 0


def disk_of(directory: Path) -> dict[str, Disk]:
    """What is in each directory of a directory, by its name; under "." what lies there itself."""
    found: dict[str, Disk] = {}
    with os.scandir(directory) as listing:
        for entry in listing:
            if entry.is_dir(follow_symlinks=False):
                found[entry.name] = disk_below(entry.path)
            else:
                there = found.get(".", Disk())
                found["."] = Disk(there.names + 1, there.bytes + _taken(entry))
    return found


def disk_below(directory: str | Path) -> Disk:
    """What is below a directory."""
    names = taken = 0
    waiting = [os.fspath(directory)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as listing:
                for entry in listing:
                    names, taken = names + 1, taken + _taken(entry)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except FileNotFoundError:
            continue  # removed meanwhile
    return Disk(names, taken)


def _taken(entry: os.DirEntry[str]) -> int:
    """The bytes that it takes; none when it was removed meanwhile."""
    try:
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except FileNotFoundError:
        return 0


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that is not less than this share of them; NaN of none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
