"""How long one waits for an answer, and a neighbour for its replacement, while others make trouble."""

from __future__ import annotations

import statistics
import threading
import time
from types import TracebackType

from bench.peers.base import Peer
from bench.run import DNF, Run, now

from .base import Column, Figures, Metric, Options, kill_some, percentile

EVERY_S = 0.02
WRITERS = 4
LOOPS = 100
# Just above what supervisors take for an instant death, so that each is started again at once, for ever.
CRASH_AFTER_MS = 1050
TROUBLES = ("idle", "flood", "loops")


class Asker:
    """A context in which the supervisor is asked again and again; :attr:`took_ms` says how long each answer took.

    One that cannot be asked gives no figures.
    """

    def __init__(self, run: Run, name: str) -> None:
        self._peer, self._name = run.peer, name
        self.took_ms: list[float] = []
        self._failure: Exception | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Asker:
        if self._peer.answers:
            # The first one sets up what the others use.
            self._peer.ask(self._name)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._failure is not None and kind is None:
            raise DNF(f"no answer: {self._failure}")

    def _ask(self) -> None:
        try:
            while not self._over.wait(EVERY_S):
                before = now()
                self._peer.ask(self._name)
                self.took_ms.append((now() - before) * 1e3)
        except (OSError, ValueError) as error:
            self._failure = error


def _answer(peer: type[Peer], n: int, options: Options) -> Figures:
    flood = options.under == "flood"
    with Run(peer, fast=options.fast, capture="files" if flood and not peer.captures else "") as run:
        others = {}
        if flood:
            others = {f"w{i}": run.payload(f"w{i}", "blast", 3600, 0) for i in range(WRITERS)}
        elif options.under == "loops":
            others = {f"c{i}": run.payload(f"c{i}", "crash", CRASH_AFTER_MS) for i in range(LOOPS)}
        n = run.up(n, others=others, settle=4).n
        cpu, since, before = run.cpu(), len(run.events), now()
        with Asker(run, "p0") as asker:
            took, missed = kill_some(run, n, options.kills, options.budget)
            # Slow ones were asked often enough meanwhile, quick ones not.
            while peer.answers and len(asker.took_ms) < 5 * options.kills and now() < before + options.budget:
                time.sleep(EVERY_S)
        run.poll()
        figures: Figures = {
            "n_actual": n,
            "samples": len(took),
            "respawn_p50_ms": statistics.median(took),
            "respawn_p99_ms": percentile(took, 0.99),
            "not_respawned": missed,
            "cpu_s_per_s": (run.cpu() - cpu) / (now() - before),
            "crashes_per_s": sum(event.name[0] == "c" for event in run.started(since)) / (now() - before),
        }
        if answers := asker.took_ms:
            figures |= {
                "answers": len(answers),
                "p50_ms": statistics.median(answers),
                "p99_ms": percentile(answers, 0.99),
                "max_ms": max(answers),
            }
        return figures


ANSWER = Metric(
    "answer",
    "ms until a request is answered, and until a killed process is replaced, among N: idle; beside"
    f" {WRITERS} that write as fast as they can (flood); beside {LOOPS} that exit with 1 again and again (loops)",
    _answer,
    (
        Column("answers", "answers", 0),
        Column("p50_ms", "answer p50 ms", 2, "answer, p50, ms"),
        Column("p99_ms", "p99 ms", 2, "answer, p99, ms"),
        Column("max_ms", "max ms", 1),
        Column("samples", "kills", 0),
        Column("respawn_p50_ms", "replaced p50 ms", 2),
        Column("respawn_p99_ms", "p99 ms", 2, "a neighbour's death to replacement, p99, ms"),
        Column("crashes_per_s", "crashes/s", 0),
        Column("cpu_s_per_s", "CPU s/s", 2),
    ),
)
