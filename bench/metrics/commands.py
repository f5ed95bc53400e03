"""How long the command line takes."""

from __future__ import annotations

import statistics

from bench.peers.base import Peer
from bench.run import DNF, Run, now

from .base import Column, Figures, Metric, Options


def _ctl(peer: type[Peer], n: int, options: Options) -> Figures:
    """Each command in turn, so that what disturbs one disturbs all; the first round fills the caches."""
    with Run(peer) as run:
        if not run.peer.commands("x"):
            raise DNF("no client commands are measured")
        n = run.up(n, settle=4).n
        took: dict[str, list[float]] = {}
        for turn in range(options.adds + 1):
            for label, argv in run.peer.commands(f"new-{turn}").items():
                before = now()
                if code := run.call(argv):
                    raise DNF(f"{label} exits with {code}")
                if turn:
                    took.setdefault(label, []).append((now() - before) * 1e3)
        return {"n_actual": n, **{f"{label}_ms": statistics.median(times) for label, times in took.items()}}


CTL = Metric(
    "ctl",
    "client commands beside a running supervisor with N processes, ms; and the bare start of the same interpreter",
    _ctl,
    (
        Column("bare_ms", "bare interpreter", 1),
        Column("add_ms", "add one", 1, "client adds one to N, ms"),
        Column("status_ms", "status of one", 1, "client shows one of N, ms"),
        Column("status_all_ms", "status of all", 1, "client shows all N, ms"),
        Column("status_json_ms", "status of all, JSON", 1),
    ),
)
