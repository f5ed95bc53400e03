"""How much memory an instance takes, everything that it started included."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from bench import PYTHON, SLEEP, Bench, Line, children_of, is_alive, wait_for

MIB = 1 << 20
# Takes 40 MiB, then forks four children that share them, the last of them in a session of its own, without a parent.
EATER = """
import os, signal, sys
held = bytearray(b"x" * (40 << 20))
for number in range(4):
    if os.fork() == 0:
        if number == 3:
            os.setsid()
            if os.fork():
                os._exit(0)
        held_too = bytearray(b"y" * (int(sys.argv[2]) << 20))
        open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
        signal.pause()
    elif number == 3:
        os.wait()
open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
signal.pause()
"""


def eater(bench: Bench, line: Line, each: int = 0) -> tuple[str, Path]:
    """An instance of five processes that is settled."""
    notes = bench.root / "notes"
    notes.mkdir()
    identity, _ = bench.start(line, [*PYTHON, EATER, str(notes), str(each)])
    wait_for(lambda: len(os.listdir(notes)) == 5, "all are there")
    return identity, notes


def sizes(line: Line, **limits: int) -> dict[str, int]:
    line.say("memory", limits=limits)
    found = line.wait_for("memory")["sizes"]
    assert isinstance(found, dict)
    return found


def test_what_is_shared_is_counted_once_where_it_matters(bench: Bench, line: Line) -> None:
    """Below the limit a quick sum will do, which counts for each what it shares; above it the exact share is told."""
    identity, _ = eater(bench, line)
    assert 200 * MIB <= sizes(line, **{identity: 1000 * MIB})[identity] < 320 * MIB
    assert 40 * MIB <= sizes(line, **{identity: 100 * MIB})[identity] < 100 * MIB


def test_everything_that_it_started_counts(bench: Bench, line: Line) -> None:
    """What its children take for themselves counts, that of one that has left family and session too."""
    identity, notes = eater(bench, line, 20)
    everything = sizes(line, **{identity: 1})[identity]
    assert 120 * MIB <= everything < 180 * MIB
    keeper = bench.pid
    (daemon,) = [pid for pid in map(int, os.listdir(notes)) if pid in children_of(keeper) and os.getsid(pid) != pid]
    os.kill(daemon, signal.SIGKILL)
    wait_for(lambda: not is_alive(daemon), "it is gone")
    left = sizes(line, **{identity: 1})[identity]
    assert everything - left >= 18 * MIB


def test_who_is_asked_for(bench: Bench, line: Line) -> None:
    """Only those that are asked for are measured, and who does not run takes nothing or is left out."""
    first, _ = bench.start(line, SLEEP)
    second, pid = bench.start(line, SLEEP)
    assert 0 < sizes(line, **{first: MIB})[first] < 20 * MIB
    os.kill(pid, signal.SIGKILL)
    line.wait_for("exited", id=second)
    found = sizes(line, **{second: MIB, "nobody": MIB})
    assert found.get(second, 0) == 0
    assert "nobody" not in found
    assert sizes(line) == {}
