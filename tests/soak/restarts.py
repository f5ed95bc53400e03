"""A hundred thousand restarts: do supervisor, keeper or what is on disk grow with their number?

    python tests/soak/restarts.py [COUNT]

Of fifty processes most end as soon as they have started, some having said something; the others are restarted by
messages, again and again. Nobody waits for anybody (see OPTIONS). Instances are counted by their numbers in the
status, and a tenth of the way is measured ten times. The exit code is 0 when nothing grew after the first fifth.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))

from colony import SLEEP, Colony  # noqa: E402
from soak.flat import Tenth, judge_flat  # noqa: E402
from soak.measure import Disk, disk_below, disk_of, size_of  # noqa: E402

# Whoever has lived for no time at all is replaced at once.
_BUDGET = 64 << 20
OPTIONS = ("-t", "0", "-m", "0", "-k", "2", "--log-budget", str(_BUDGET))
KINDS: dict[str, tuple[int, list[str]]] = {
    "brief": (30, ["/bin/true"]),
    "saying": (10, ["/bin/echo", "as short a life as can be"]),
    "asked": (10, [SLEEP, "1000000"]),
}
TENTHS, SETTLED = 10, 0.2
_PATIENCE_S = 60.0
_LOOK_S = 0.2


class Restarts:
    """The colony, and what it takes."""

    def __init__(self, root: Path, count: int, say: Callable[[str], None] = print) -> None:
        self.colony, self.count, self.say = Colony(root), count, say
        self.names = [f"{kind}-{index}" for kind, (number, _) in KINDS.items() for index in range(number)]
        self.tenths: list[Tenth] = []
        self.faults: list[str] = []
        self.message: str | None = None

    def run(self) -> None:
        """Count the restarts, and stop the colony."""
        colony = self.colony
        for name in self.names:
            kind = name.partition("-")[0]
            colony.put(name, {"args": KINDS[kind][1], "group": kind})
        colony.start(*OPTIONS)
        began = time.monotonic()
        self.say("| restarts | s | " + " | ".join(_COLUMNS) + " |\n|" + "---|" * (2 + len(_COLUMNS)))
        seen, progressed = 0, began
        while len(self.tenths) < TENTHS:
            self.ask()
            time.sleep(_LOOK_S)
            at, restarts = time.monotonic(), self.restarts()
            if restarts > seen:
                seen, progressed = restarts, at
            elif at > progressed + _PATIENCE_S:
                self.faults.append(f"no restart within {_PATIENCE_S:g} s: {colony.evidence()}")
                break
            if restarts >= self.count * (len(self.tenths) + 1) / TENTHS:
                self.tenths.append(self.measure(restarts))
                self.say(f"| {restarts} | {at - began:.0f} | {' | '.join(_cells(self.tenths[-1]))} |")
        self.stop_all()

    def ask(self) -> None:
        """Have those that do not end by themselves restarted, once they are."""
        if self.message is not None:
            answer = self.colony.answer(self.message)
            if answer is None or answer["state"] == "accepted":
                return
            if answer["state"] != "done":
                self.faults.append(f"a restart was answered {answer}")
        self.message = self.colony.post({"type": "RESTART-GROUP", "group": "asked"})

    def restarts(self) -> int:
        """How many instances there were, but for the first of each."""
        return sum(max(0, (self.colony.status(name) or {"instance": 0})["instance"] - 1) for name in self.names)

    def measure(self, restarts: int) -> Tenth:
        """What everything takes now."""
        about = self.colony.supervisor() or {}
        sizes = {part: size_of(about[key]) for part, key in (("supervisor", "pid"), ("keeper", "keeper"))}
        places = [disk for place, disk in disk_of(self.colony.state).items() if place != "answers"]
        state = Disk(sum(disk.names for disk in places), sum(disk.bytes for disk in places))
        whole = {part: size for part, size in sizes.items() if size is not None}
        return Tenth(restarts, whole, state, disk_below(self.colony.logs))

    def stop_all(self) -> None:
        """End the colony; nothing may be left."""
        try:
            self.colony.close()
        except AssertionError as error:
            self.faults.append(str(error))

    def verdict(self) -> list[str]:
        """What must not be."""
        return [*self.faults, *judge_flat(self.tenths, round(self.count * SETTLED), len(self.names), _BUDGET)]


_COLUMNS = (
    "supervisor: MB of its own", "MB (PSS)", "MB (RSS)", "descriptors",
    "keeper: MB of its own", "MB (PSS)", "MB (RSS)", "descriptors",
    "state: names", "KiB", "logs: KiB",
)  # fmt: skip


def _cells(tenth: Tenth) -> list[str]:
    cells: list[str] = []
    for size in tenth.sizes.values():
        cells += [
            f"{size.own_kib / 1024:.2f}",
            f"{size.pss_kib / 1024:.2f}",
            f"{size.rss_kib / 1024:.2f}",
            str(size.descriptors),
        ]
    return [*cells, str(tenth.state.names), str(tenth.state.bytes >> 10), str(tenth.logs.bytes >> 10)]


def main() -> int:
    """Restart, and say what came of it; the exit code."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"{count} restarts, Linux {platform.release()}, {os.cpu_count()} cores, {root}", flush=True)
    soak = Restarts(root, count, lambda text: print(text, flush=True))
    try:
        soak.run()
    except KeyboardInterrupt:
        soak.faults.append("interrupted")
        soak.stop_all()
    faults = soak.verdict()
    print("\n".join(faults) if faults else "nothing grew")
    if not faults:
        shutil.rmtree(root)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
