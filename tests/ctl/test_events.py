"""`ctl events`: what happened, across rotations and supervisors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ctl_colony import Colony, wait_for

from ncolony import ctllib
from ncolony.cli import main


def reasons(found: list[ctllib.Event]) -> list[str]:
    return [one.reason for one in found]


def number(*numbers: int, **more: Any) -> list[dict[str, Any]]:
    return [{"event": "running", "name": "web", "reason": str(one), **more} for one in numbers]


def rotate(colony: Colony) -> None:
    os.rename(colony.state / "events", colony.state / "events.old")


def test_both_files_are_read_and_what_is_torn_is_not(colony: Colony) -> None:
    """The older file comes first; lines that are no events, and a last one that is not whole, are left out."""
    assert ctllib.events(colony.places, state=colony.state) == []
    colony.happened(*number(1, 2))
    with (colony.state / "events").open("ab") as file:
        file.write(b'{"at": 1, "event": "run\n[]\n\xff\n{"at": "x", "event": "a", "name": ""}\n{"at": 1e999}\n\n')
        file.write(b'{"at": 1, "event": "a", "name": 5}\n{"at": 1' + b"0" * 400 + b', "event": "a", "name": ""}\n')
    rotate(colony)
    colony.happened(*number(3))
    with (colony.state / "events").open("ab") as file:
        file.write(b'{"at": 1, "event": "running", "name": "web"}')
    assert reasons(ctllib.events(colony.places, state=colony.state)) == ["1", "2", "3"]


def test_only_the_older_file_is_there(colony: Colony) -> None:
    """In the moment of a rotation there is no current file."""
    colony.happened(*number(1))
    rotate(colony)
    assert reasons(ctllib.events(colony.places, state=colony.state)) == ["1"]


def test_following_loses_and_doubles_nothing(colony: Colony) -> None:
    """From before there is a file, across rotations at any moment, a torn line, and a file that was emptied."""
    following = ctllib.follow_events(colony.places, state=colony.state)
    assert next(following) == []
    colony.happened(*number(1))
    assert reasons(next(following)) == ["1"]
    assert next(following) == []
    colony.happened(*number(2))
    rotate(colony)
    assert reasons(next(following)) == ["2"]
    colony.happened(*number(3))
    assert reasons(next(following)) == ["3"]
    colony.happened(*number(4))
    rotate(colony)
    colony.happened(*number(5))
    rotate(colony)
    colony.happened(*number(6))
    assert reasons(next(following)) == ["4", "5", "6"]
    with (colony.state / "events").open("ab") as file:
        file.write(b'{"at": 1, "event": "running", "name": "web", ')
        file.flush()
        assert next(following) == []
        file.write(b'"reason": "7"}\n')
    assert reasons(next(following)) == ["7"]
    os.truncate(colony.state / "events", 0)
    assert next(following) == []
    colony.happened(*number(8))
    assert reasons(next(following)) == ["8"]
    following.close()  # type: ignore[attr-defined]


def test_following_keeps_up_with_a_writer(colony: Colony) -> None:
    """While somebody writes and rotates as fast as he can, each event is told once and in order."""
    halves, half = 60, 50
    written = threading.Event()
    # He is at most a file and a half ahead: as of a file of 1 MiB nobody writes two within one look.
    ahead = threading.Semaphore(3)

    def write() -> None:
        try:
            for one in range(halves):
                assert ahead.acquire(timeout=60)
                for record in number(*range(one * half, (one + 1) * half)):
                    colony.happened(record)
                if one % 2:
                    rotate(colony)
        finally:
            written.set()

    found: list[str] = []
    following = ctllib.follow_events(colony.places, state=colony.state)
    with colony.meanwhile(write):
        done = False
        while not done:
            done, before = written.is_set(), len(found)
            found += reasons(next(following))
            for _ in range(len(found) // half - before // half):
                ahead.release()
    assert found == [str(one) for one in range(halves * half)]


def test_events_are_lines(colony: Colony) -> None:
    """When, of whom, what, and what more is known; messages and the supervisor have their place too."""
    colony.happened(
        {"at": 0, "event": "supervisor", "reason": "started"},
        {"at": 1, "event": "running", "name": "web", "state": "RUNNING", "instance": 3, "pid": 77, "reason": ""},
        {"at": 2, "event": "backoff", "name": "a\x1b", "instance": 1, "pid": None, "reason": "exit code 3"},
        {"at": 3, "event": "message", "name": "web", "file": "m", "type": "STOP", "result": "failed", "reason": "no"},
        {"at": 4, "event": "from the future", "name": "x", "instance": "y", "pid": [1], "reason": {}},
    )
    ran = colony.run("events", env={"TZ": "UTC"})
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "1970-01-01 00:00:00 -                        supervisor  started",
        "1970-01-01 00:00:01 web                      running     pid 77, instance 3",
        "1970-01-01 00:00:02 a\\x1b                    backoff     instance 1, exit code 3",
        "1970-01-01 00:00:03 web                      message     STOP, failed, no",
        "1970-01-01 00:00:04 x                        from the future",
    ]


def test_events_can_be_chosen(colony: Colony, capsys: pytest.CaptureFixture[str]) -> None:
    """By name, file, glob or group, whether they are still there or not; by age; by number; as JSON lines."""
    now = time.time()
    for name in ("web:0", "gone", "api", ""):
        colony.happened(*number(1, name=name, at=now - 7200), *number(2, name=name, at=now - 10))
    colony.report("api", group=["front"])

    def told(*words: str) -> list[list[str]]:
        assert main([*colony.options, "events", "--json", *words]) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return [[one["name"], one["reason"]] for one in found]

    assert len(told()) == 8
    assert told("web") == [["web:0", "1"], ["web:0", "2"]]
    assert told("g*", "--since", "1h") == [["gone", "2"]]
    assert told("front", "-n1") == told("front", "--since=1m") == [["api", "2"]]
    assert told("--name=web:0", "gone", "--since=1h30m") == [["web:0", "2"], ["gone", "2"]]
    assert told("-n", "0") == []
    assert len(told("--since", "7300")) == 8
    assert main([*colony.options, "events", "nosuch", "api"]) == 4
    captured = capsys.readouterr()
    assert captured.err == "cannot show the events of 'nosuch': no such process\n"
    assert len(captured.out.splitlines()) == 2


@pytest.mark.parametrize("text", ["", "1x", "h", "10m5", "-5", "1e999s", "nan", "10mm"])
def test_a_time_that_is_none_is_refused(colony: Colony, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--since takes seconds or a time with units, and says so."""
    assert main([*colony.options, "events", f"--since={text}"]) == 2
    assert "argument --since: expected" in capsys.readouterr().err


def test_follow_prints_what_happens_until_ctrl_c(colony: Colony) -> None:
    """-f shows the last ten, then what comes, across a rotation; CTRL-C ends it with 0."""
    colony.happened(*number(*range(20)))
    with subprocess.Popen(
        colony.command("events", "-f", "web"), env=colony.environment(), stdout=-1, stderr=-1, text=True
    ) as running:
        assert running.stdout is not None
        seen = [running.stdout.readline().split()[-1] for _ in range(10)]
        colony.happened(*number(20), *number(99, name="other"))
        rotate(colony)
        colony.happened(*number(21))
        seen += [running.stdout.readline().split()[-1] for _ in range(2)]
        running.send_signal(signal.SIGINT)
        rest = running.communicate(timeout=60)
    assert (running.returncode, *rest) == (0, "", "")
    assert seen == [str(one) for one in range(10, 22)]


def test_follow_ends_with_its_reader(colony: Colony) -> None:
    """When nobody reads any more, it ends without waiting for another event."""
    reading, writing = os.pipe()
    with subprocess.Popen(
        colony.command("events", "-f"), env=colony.environment(), stdout=writing, stderr=subprocess.PIPE
    ) as running:
        os.close(writing)
        colony.happened(*number(1))
        os.read(reading, 1)
        os.close(reading)
        assert running.communicate(timeout=60)[1] == b""
    assert running.returncode == 0


def test_what_may_not_be_read_is_told(colony: Colony, tmp_path: Path) -> None:
    """A file that cannot be opened is an error in one line."""
    (colony.state / "events").symlink_to(colony.state / "events")
    ran = colony.run("events")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("cannot show what happened: ")
    wait_for(lambda: len(ran.stderr.splitlines()) == 1)
