"""Start, memory, idle and stop; restart-all; what every event costs as the number grows."""

from __future__ import annotations

import random
import statistics
import time

from bench.peers.base import Peer
from bench.run import Run, now

from .base import Column, Figures, Metric, Options, add_some, kill_some, restart_all, stop_all


def _lifecycle(peer: type[Peer], n: int, options: Options) -> Figures:
    with Run(peer, fast=options.fast) as run:
        n, wall, cpu = run.up(n)
        figures: Figures = {"n_actual": n, "start_s": wall, "start_cpu_s": cpu}
        time.sleep(options.settle)
        run.poll()
        figures["start_cpu_settled_s"] = run.cpu()
        figures["pss_mb"], figures["rss_mb"], figures["own_procs"] = run.memory()
        if options.idle and n >= 100:
            figures["idle_cpu_ms_per_min"] = _idle(run, options.idle)
        run.poll()
        if more := len(run.started()) - n:
            figures["unexpected_starts"] = more
        if n:
            figures |= stop_all(run)
        return figures


def _idle(run: Run, seconds: float) -> float:
    """CPU ms per minute while nothing is to be done."""
    cpu, before = run.cpu(), now()
    time.sleep(seconds)
    return (run.cpu() - cpu) / (now() - before) * 60e3


def _restart(peer: type[Peer], n: int, options: Options) -> Figures:
    with Run(peer, fast=options.fast) as run:
        n = run.up(n, settle=4).n
        time.sleep(random.random() * run.peer.period_s)
        return {"n_actual": n, **restart_all(run, n)}


def _scale(peer: type[Peer], n: int, options: Options) -> Figures:
    """Everything in one run, each as ms per process or event."""
    with Run(peer, fast=options.fast) as run:
        n, wall, _ = run.up(n)
        time.sleep(options.settle)
        figures: Figures = {
            "n_actual": n,
            "start_ms": wall / n * 1e3,
            "start_cpu_ms": run.cpu() / n * 1e3,
            "start_s": wall,
            "pss_mb": run.memory().pss_mb,
        }
        cpu = run.cpu()
        changes = add_some(run, n, options.adds)
        figures |= {"change_ms": statistics.median(changes), "change_cpu_ms": (run.cpu() - cpu) / len(changes) * 1e3}
        cpu = run.cpu()
        deaths, _ = kill_some(run, n, options.kills, options.budget)
        figures |= {"death_ms": statistics.median(deaths), "death_cpu_ms": (run.cpu() - cpu) / len(deaths) * 1e3}
        restarted = restart_all(run, n)
        each = float(restarted["all_s"]) / n * 1e3, float(restarted["cpu_s"]) / n * 1e3
        figures |= {"restart_ms": each[0], "restart_cpu_ms": each[1], "restart_s": restarted["all_s"]}
        stopped = stop_all(run)
        if "stop_s" in stopped:
            each = float(stopped["stop_s"]) / n * 1e3, float(stopped["stop_cpu_s"]) / n * 1e3
            figures |= {"stop_ms": each[0], "stop_cpu_ms": each[1], "stop_s": stopped["stop_s"]}
        return figures | {key: value for key, value in stopped.items() if key == "stop_dnf"}


LIFECYCLE = Metric(
    "lifecycle",
    "start, memory, idleness and stop of N sleeping processes",
    _lifecycle,
    (
        Column("start_s", "start s", 3, "start of N, s"),
        Column("start_cpu_settled_s", "start CPU s", 3, "start of N, CPU s"),
        Column("pss_mb", "PSS MB", 1, "memory beside N, PSS MB"),
        Column("rss_mb", "RSS MB", 1),
        Column("own_procs", "own processes", 0),
        Column("idle_cpu_ms_per_min", "idle CPU ms/min", 1, "idle beside N, CPU ms per minute"),
        Column("stop_s", "stop s", 3, "stop of N, s"),
        Column("stopped_politely", "got TERM", 0),
    ),
)
RESTART = Metric(
    "restart",
    "restart all N: seconds until all are replaced, seconds of downtime in sum",
    _restart,
    (
        Column("all_s", "all s", 3, "restart-all of N, s"),
        Column("first_stop_s", "first stop s", 3),
        Column("downtime_sum_s", "downtime sum s", 2, "restart-all of N, downtime in sum, s"),
        Column("downtime_median_ms", "downtime median ms", 1, "restart-all of N, median downtime, ms"),
        Column("cpu_s", "CPU s", 2),
        Column("alive_after", "alive after", 0),
    ),
)
SCALE = Metric(
    "scale",
    "ms per process or event among N: start, one added, one killed, restart-all, stop",
    _scale,
    (
        Column("start_ms", "start", 3, "start among N, ms each"),
        Column("start_cpu_ms", "start CPU", 3, "start among N, CPU ms each"),
        Column("change_ms", "add", 2, "one added to N, ms"),
        Column("change_cpu_ms", "add CPU", 2),
        Column("death_ms", "death", 2, "death to replacement among N, ms"),
        Column("death_cpu_ms", "death CPU", 2),
        Column("restart_ms", "restart-all", 3, "restart-all of N, ms each"),
        Column("restart_cpu_ms", "restart-all CPU", 3),
        Column("stop_ms", "stop", 3, "stop of N, ms each"),
        Column("stop_cpu_ms", "stop CPU", 3),
        Column("pss_mb", "PSS MB", 1),
    ),
)
