"""Runs in turn, one row of results each."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from .machine import timestamp
from .metrics import METRICS, Metric, Options
from .peers import PEERS
from .peers.base import Peer
from .run import DNF, as_json, load

Row = dict[str, Any]


def chosen(names: str) -> list[type[Peer]]:
    """The peers of a comma list, without those that are not installed; these are told in a line each.

    :raises ValueError: for a name that there is not.
    """
    found = []
    for name in names.split(","):
        if name not in PEERS:
            raise ValueError(f"there is no peer {name!r}; there are {', '.join(PEERS)}")
        if missing := PEERS[name].missing():
            print(f"{name} is left out: there is no {missing}", file=sys.stderr)
        else:
            found.append(PEERS[name])
    return found


def measure(
    metric: Metric, peers: Iterable[type[Peer]], numbers: Iterable[int], reps: int, options: Options, out: Path
) -> None:
    """Append the rows to `out` and print them. Peers take turns: what disturbs one run disturbs its neighbours."""
    peers = [peer for peer in peers if not options.fast or peer.fast_note or peer.name in ("limit", "ours")]
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out, "a", encoding="utf-8") as file:
        for n in numbers:
            for rep in range(reps):
                for peer in peers:
                    _write(file, one(metric, peer, n, rep, options))


def one(metric: Metric, peer: type[Peer], n: int, rep: int, options: Options) -> Row:
    """The row of one run. A peer that fails does not end the series."""
    row: Row = {
        "time": timestamp(),
        "metric": metric.name
        + "-all" * options.all
        + "-quiet" * options.quiet
        + f"-{options.under}" * bool(options.under),
        "peer": peer.name,
        "variant": "fast" if options.fast else "default",
        "n": n,
        "rep": rep,
        "load": load(),
    }
    try:
        figures = metric.measure(peer, n, options)
    except DNF as error:
        row["dnf"] = str(error)
    except Exception as error:  # noqa: BLE001, whatever a rival does to us is its result
        row["dnf"] = f"{type(error).__name__}: {error}"
    else:
        # What cannot be measured here is NaN, which JSON has no word for.
        row |= {key: value for key, value in figures.items() if isinstance(value, str) or not math.isnan(value)}
    return row


def _write(file: TextIO, row: Row) -> None:
    print(as_json(row), file=file, flush=True)
    shown = {
        key: round(value, 3) if isinstance(value, float) else value
        for key, value in row.items()
        if key not in ("time", "metric", "peer", "n", "variant", "rep")
    }
    print(row["metric"], row["peer"], row["n"], as_json(shown), flush=True)


def metric_of(row: Row) -> Metric:
    """The metric that a row is of; its name may have a suffix."""
    return METRICS[row["metric"].split("-")[0]]
