"""Captured output: into files, into the supervisor's own log, and what becomes of it when the supervisor is killed."""

from __future__ import annotations

import collections
import contextlib
import itertools
import re
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from bench.peers.base import Peer
from bench.run import DNF, Event, Run, now

from .base import Column, Figures, Metric, Options

LINE_BYTES = 100
_LINE = re.compile(rb"<(\w+) (\d+) (\d{9}) x+\$")
_CHUNK = 1 << 24
# After that long without growth the log files are complete.
SETTLED_S = 3.0
LONGEST_S = 400.0
# Lines that all writers of `events` write together: 100 MB, which the slowest takes half a minute for.
EVENT_LINES = 1_000_000

# {(name, pid): a byte for each line number, 1 where it was found}
Found = dict[tuple[str, int], bytearray]


def captured(files: Iterable[Path]) -> Found:
    """The lines that are whole in the log files."""
    seen: Found = collections.defaultdict(bytearray)
    for path in files:
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            tail = b""
            while chunk := file.read(_CHUNK):
                tail = _note(tail + chunk, seen)
    return seen


def _note(data: bytes, seen: Found) -> bytes:
    """Note the whole lines; what may belong to the next chunk comes back."""
    last = 0
    for found in _LINE.finditer(data):
        last = found.end()
        if last - found.start() == LINE_BYTES - 1:
            marks, number = seen[found[1].decode(), int(found[2])], int(found[3])
            if number >= len(marks):
                marks.extend(bytes(max(number + 1 - len(marks), 4096)))
            marks[number] = 1
    return data[max(last, len(data) - 2 * LINE_BYTES) :]


def lines_found(seen: Found, event: Event) -> int:
    """How many of the lines that a payload said it wrote were found."""
    return sum(seen.get((event.name, event.pid), b"")[: event.lines])


def _log(peer: type[Peer], k: int, options: Options) -> Figures:
    return _blast(peer, k, options, "files", ["blast", options.seconds])


def _events(peer: type[Peer], k: int, options: Options) -> Figures:
    if not peer.logs_events:
        raise DNF("it does not write what processes print to its own log")
    return _blast(peer, k, options, "events", ["blast", LONGEST_S, EVENT_LINES // k])


def _blast(peer: type[Peer], k: int, options: Options, capture: str, mode: list[object]) -> Figures:
    """k processes write; seconds until the log files are complete, and CPU without the writers' own."""
    with Run(peer, fast=options.fast, capture=capture) as run:
        k = run.up(k, *mode).n
        cpu, began = run.cpu(), max(event.at for event in run.started())
        size, grown, peak = _wait_until_complete(run, k)
        done = [event for event in run.events if event.kind == "D"]
        if len(done) < k:
            raise DNF(f"{k - len(done)} of {k} writers never finished")
        cpu = run.cpu() - cpu - sum(event.cpu_us for event in done) / 1e6
        seen = captured(run.peer.logfiles())
        sent, kept = sum(event.lines for event in done), sum(lines_found(seen, event) for event in done)
        if not kept:
            raise DNF("no line reached the log")
        gb = kept * LINE_BYTES / 1e9
        return {
            "n_actual": k,
            "mb_per_s": gb * 1e3 / (grown - began),
            "cpu_s_per_gb": cpu / gb,
            "mb": gb * 1e3,
            "lost_lines": sent - kept,
            "sent_lines": sent,
            "peak_rss_mb": peak,
            "bytes_on_disk_per_byte": size / (gb * 1e9),
        }


def _wait_until_complete(run: Run, k: int) -> tuple[int, float, float]:
    """Bytes in the log files, when they grew last, and the most memory seen meanwhile."""
    size, grown, peak, end = -1, now(), 0.0, now() + LONGEST_S
    for turn in itertools.count():
        time.sleep(0.02)
        run.poll()
        at = _size(run.peer.logfiles())
        if at != size:
            size, grown = at, now()
        elif sum(event.kind == "D" for event in run.events) >= k and now() - grown > SETTLED_S:
            break
        if turn % 50 == 10:
            peak = max(peak, run.memory().rss_mb)
        if now() > end:
            break
    return size, grown, peak


def _size(files: Iterable[Path]) -> int:
    total = 0
    for path in files:
        # Rotation may have renamed it.
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _killsup(peer: type[Peer], n: int, options: Options) -> Figures:
    with Run(peer, fast=options.fast, capture="files") as run:
        n = run.up(n, *([] if options.quiet else ["tick", 100]), settle=5).n
        first = {event.pid for event in run.started()}
        victims = run.split()[0] if options.all else [run.peer.main_pid()]
        for pid in victims:
            run.kill(pid, signal.SIGKILL)
        time.sleep(3)
        survived = len(first & set(run.split()[1]))
        run.peer.launch()
        time.sleep(20)
        run.poll()
        alive = run.split()[1]
        per_name = collections.Counter(alive.values())
        figures: Figures = {
            "n_actual": n,
            "victims": len(victims),
            "alive_3s_after_kill": survived,
            "uninterrupted_at_end": len(first & set(alive)),
            "sigpipe_deaths": sum(event.kind == "P" for event in run.events),
            "write_to_nobody": sum(event.kind == "E" for event in run.events),
            "duplicates": sum(count - 1 for count in per_name.values()),
            "names_not_running": n - len(per_name),
        }
        with contextlib.suppress(OSError):
            run.peer.stop()
        time.sleep(12)
        run.poll()
        left = run.split()[1]
        figures["left_after_stop"] = len(left)
        ran = {event.pid for event in run.events}
        for pid in left:
            run.kill(pid, signal.SIGTERM)
        time.sleep(1)
        run.poll()
        return figures if options.quiet else figures | _losses(run, ran)


def _losses(run: Run, ran: set[int]) -> Figures:
    """What the instances said, what of it is not in the log files, and how many never told how much they said."""
    seen = captured(run.peer.logfiles())
    ends: dict[int, Event] = {}
    for event in run.events:
        if event.kind in "TP":
            ends.setdefault(event.pid, event)
    told = [ends[pid] for pid in ran if pid in ends]
    said = sum(event.lines for event in told)
    return {
        "lines_said": said,
        "lines_lost": said - sum(lines_found(seen, event) for event in told),
        "count_unknown": len(ran) - len(told),
    }


_CAPTURE = (
    Column("lost_lines", "lost", 0),
    Column("sent_lines", "sent", 0),
    Column("peak_rss_mb", "peak RSS MB", 0),
    Column("bytes_on_disk_per_byte", "disk B/B", 2),
)
LOG = Metric(
    "log",
    "N processes write lines of 100 bytes as fast as they can: MB/s that reach the log files, CPU s per GB, lines lost",
    _log,
    (
        Column("mb_per_s", "MB/s", 1, "captured from N writers into files, MB/s", more_is_better=True),
        Column("cpu_s_per_gb", "CPU s/GB", 2, "captured from N writers into files, CPU s per GB"),
        *_CAPTURE,
    ),
    counts="writers",
)
EVENTS = Metric(
    "events",
    "N processes write 100 MB as fast as they can, and the supervisor writes each line to its own log, as text",
    _events,
    (
        Column("cpu_s_per_gb", "CPU s/GB", 2, "from N writers into the own log as text, CPU s per GB"),
        Column("mb_per_s", "MB/s", 1, "from N writers into the own log as text, MB/s", more_is_better=True),
        *_CAPTURE,
    ),
    counts="writers",
)
KILLSUP = Metric(
    "killsup",
    "SIGKILL the supervisor (killsup-all: all its own processes), wait 3 s, start it again, watch 20 s, stop it; the"
    " children print 10 lines a second (killsup-quiet: nothing)",
    _killsup,
    (
        Column("victims", "killed", 0),
        Column("alive_3s_after_kill", "alive 3 s later", 0),
        Column(
            "uninterrupted_at_end",
            "uninterrupted at end",
            0,
            "supervisor killed: uninterrupted of N",
            more_is_better=True,
        ),
        Column("sigpipe_deaths", "SIGPIPE deaths", 0),
        Column("write_to_nobody", "write to nobody", 0),
        Column("duplicates", "duplicates", 0, "supervisor killed: duplicates of N"),
        Column("names_not_running", "names not running", 0),
        Column("left_after_stop", "left after stop", 0, "supervisor killed: left after stop of N"),
        Column("lines_said", "lines said", 0),
        Column("lines_lost", "lines lost", 0, "supervisor killed: lines lost of N"),
        Column("count_unknown", "count unknown", 0),
    ),
)
