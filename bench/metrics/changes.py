"""Deaths and changes: one at a time, and thousands at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

from bench.peers.base import Argv, Peer
from bench.run import DNF, Run, now

from .answers import Asker
from .base import Column, Figures, Metric, Options, add_some, kill_some, percentile


def _respawn(peer: type[Peer], n: int, options: Options) -> Figures:
    with Run(peer, fast=options.fast) as run:
        n = run.up(n, settle=4).n
        cpu = run.cpu()
        took, missed = kill_some(run, n, options.kills, options.budget)
        return {
            "n_actual": n,
            "samples": len(took),
            "p50_ms": statistics.median(took),
            "p99_ms": percentile(took, 0.99),
            "max_ms": max(took),
            "not_respawned": missed,
            "cpu_ms_each": (run.cpu() - cpu) / len(took) * 1e3,
        }


def _change(peer: type[Peer], n: int, options: Options) -> Figures:
    with Run(peer, fast=options.fast) as run:
        n = run.up(n, settle=4).n
        cpu = run.cpu()
        took = add_some(run, n, options.adds)
        return {
            "n_actual": n,
            "median_ms": statistics.median(took),
            "max_ms": max(took),
            "adds": len(took),
            "others_restarted": len(run.started()) - n - len(took),
            "cpu_ms_each": (run.cpu() - cpu) / len(took) * 1e3,
        }


def _burst(peer: type[Peer], n: int, options: Options) -> Figures:
    """n configurations appear beside one process, then all change; last, a start with the same n, to compare with."""
    if not peer.takes_many:
        raise DNF("its client takes one process after another")
    with Run(peer, fast=options.fast) as run:
        run.up(1, settle=2)
        names = [f"b{i}" for i in range(min(n, peer.max_n - 1))]
        figures: Figures = {"n_actual": len(names)}
        first = {name: run.payload(name) for name in names}
        second = {name: run.payload(name, "sleep", 2) for name in names}
        for key, processes in ("appear", first), ("change", second):
            figures |= _at_once(run, key, processes)
            time.sleep(4)
        run.peer.stop()
        run.wait("stop", lambda: not run.group.pids(), 120)
        since, before = len(run.events), now()
        run.peer.launch()
        run.wait("start", lambda: run.have_started(len(names) + 1, since), 400)
        figures["start_s"] = max(event.at for event in run.started(since)) - before
        for key in ("appear", "change"):
            figures[f"{key}_to_start"] = float(figures[f"{key}_s"]) / float(figures["start_s"])
        return figures


def _at_once(run: Run, key: str, processes: Mapping[str, Argv]) -> Figures:
    """Configure all: wall and CPU s until each has started, and how long who asked meanwhile had to wait."""
    run.peer.stage(processes)
    since, cpu = len(run.events), run.cpu()
    with Asker(run, "p0") as asker:
        before = now()
        (run.peer.add_all if key == "appear" else run.peer.change_all)(processes)
        placed = now()
        # Rarely, since reading thousands of events would keep the asker waiting.
        run.wait(key, lambda: run.have_started(len(processes), since), 400, 0.1)
    figures: Figures = {
        f"{key}_s": max(event.at for event in run.started(since)) - before,
        # How long it took to put the files in place, or until the client command was done.
        f"{key}_place_s": placed - before,
        f"{key}_cpu_s": run.cpu() - cpu,
    }
    if asker.took_ms:
        figures[f"{key}_answer_max_ms"] = max(asker.took_ms)
        figures[f"{key}_answers"] = len(asker.took_ms)
    return figures


RESPAWN = Metric(
    "respawn",
    "SIGKILL a child that lived > 3 s; ms until its replacement's first instruction",
    _respawn,
    (
        Column("samples", "samples", 0),
        Column("p50_ms", "p50 ms", 2, "death to replacement among N, p50, ms"),
        Column("p99_ms", "p99 ms", 2, "death to replacement among N, p99, ms"),
        Column("max_ms", "max ms", 1),
        Column("not_respawned", "not respawned", 0),
        Column("cpu_ms_each", "CPU ms each", 2),
    ),
)
CHANGE = Metric(
    "change",
    "add one process to a supervisor that runs N others; ms until it runs",
    _change,
    (
        Column("median_ms", "median ms", 1, "one added to N, ms"),
        Column("max_ms", "max ms", 1),
        Column("cpu_ms_each", "CPU ms each", 1),
        Column("others_restarted", "others restarted", 0),
    ),
)
BURST = Metric(
    "burst",
    "N configurations appear at once, then all change at once; s until all is applied, ms that the slowest answer took",
    _burst,
    (
        Column("appear_s", "appear s", 2, "N appear at once, s"),
        Column("appear_cpu_s", "CPU s", 2),
        Column("appear_answer_max_ms", "slowest answer ms", 1, "the slowest answer while N appear, ms"),
        Column("change_s", "change s", 2, "N change at once, s"),
        Column("change_cpu_s", "CPU s", 2),
        Column("change_answer_max_ms", "slowest answer ms", 1, "the slowest answer while N change, ms"),
        Column("start_s", "start of N s", 2),
        Column("appear_to_start", "appear / start", 2),
        Column("change_to_start", "change / start", 2),
    ),
)
