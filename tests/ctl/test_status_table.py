"""`ctl status` beyond its table: whom it is asked about, what is ready, and watching."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ctl_colony import Colony, wait_for

from ncolony import ctllib
from ncolony.cli import choose, main


def names(colony: Colony, *patterns: str) -> tuple[int, list[str]]:
    ran = colony.run("status", "--json", *patterns)
    return ran.returncode, [one["name"] for one in json.loads(ran.stdout)]


def test_groups_choose_lines(colony: Colony) -> None:
    """A group's name, and supervisorctl's GROUP:*, mean its processes; a process of that name comes first."""
    colony.report("web", group=["front", "db"])
    colony.report("api", group=["front"])
    colony.report("db")
    colony.report("many:0")
    with colony.supervised():
        assert names(colony, "front") == (0, ["api", "web"])
        assert names(colony, "front:*") == (0, ["api", "web"])
        assert names(colony, "db") == (0, ["db"])
        assert names(colony, "db:*") == (0, ["web"])
        assert names(colony, "many:*") == (0, ["many:0"])
        assert names(colony, "fron*") == (4, [])


def test_copies_are_known_by_their_file() -> None:
    """The report says which file a process is of; where it does not, the name does."""
    records = [
        ctllib.Status("a:0", {"file": "a"}),
        ctllib.Status("b:0", {"file": "b:0"}),
        ctllib.Status("c:0", {}),
        ctllib.Status("c:x", {}),
    ]
    for pattern, found in (("a", ["a:0"]), ("b", []), ("b:0", ["b:0"]), ("c", ["c:0"])):
        assert [one.name for one in choose.chosen(records, [pattern])[0]] == found
    assert [one.record["file"] for one in records] == ["a", "b:0", "c", "c:x"]


def test_the_note_tells_what_is_not_ready(colony: Colony) -> None:
    """Running is not ready before its time; what is waited for and what was rolled back is said too."""
    colony.report("late", ready_at=time.time() + 100)
    colony.report("old", ready_at=None)
    colony.report("ready")
    colony.report("waiting", state="WAITING", waiting_for=["db", "cache"])
    colony.report("wrong", rolled_back="not ready within 5 s", memory=300 << 20)
    with colony.supervised():
        ran = colony.run("status")
        long = colony.run("status", "--long", "wrong")
    late, old, ready, waiting, wrong = ran.stdout.splitlines()
    assert late.endswith(" not ready yet")
    assert old.endswith(" -")
    assert ready.endswith(" -")
    assert waiting.endswith(" waiting for db, cache")
    assert wrong.endswith(" rolled back: not ready within 5 s")
    assert "    memory: 300 MiB" in long.stdout.splitlines()


def test_reports_of_older_supervisors_will_do(colony: Colony) -> None:
    """A report without the newer fields is read as if they said nothing."""
    (colony.state / "status" / "x:1").write_text('{"name": "x:1", "state": "RUNNING", "wanted": "up", "pid": 1}')
    [one] = ctllib.status(colony.places, state=colony.state)
    assert (one.file, one.ready_at, one.rolled_back, one.memory, one.waiting_for) == ("x", None, None, None, [])
    assert one.is_ready(0.0)


def test_a_file_without_copies_is_shown(colony: Colony) -> None:
    """With 0 instances nothing is reported, and nothing is being waited for."""
    (colony.config / "none").write_text('{"args": ["a"], "instances": 0}')
    with colony.supervised():
        ran = colony.run("status")
    assert (ran.returncode, ran.stdout.split()[:2]) == (3, ["none", "STOPPED"])
    assert ran.stdout.endswith("it has 0 instances\n")


class Watching:
    """`ctl status --watch` in a pseudo-terminal or a pipe, and what it has written so far."""

    def __init__(self, colony: Colony, *words: str, in_terminal: bool) -> None:
        self.ours, theirs = pty.openpty() if in_terminal else os.pipe()
        os.set_blocking(self.ours, False)
        env = colony.environment(TERM="xterm", NO_COLOR="1", COLUMNS="")
        self.process = subprocess.Popen(
            colony.command(*words), stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, env=env
        )
        os.close(theirs)
        self.text = ""

    def read(self) -> str:
        try:
            while part := os.read(self.ours, 65536):
                self.text += part.decode()
        except OSError:
            pass  # nothing more for now, or the other end is closed
        return self.text

    def wait_for(self, part: str, times: int = 1) -> None:
        wait_for(lambda: self.read().count(part) >= times)

    def interrupt(self) -> tuple[int, bytes]:
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=60)
        self.read()
        return self.process.returncode, errors

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.ours)


def test_watch_redraws_in_place_when_something_changed(colony: Colony) -> None:
    """On a terminal the table is drawn over itself, changes appear by themselves, and CTRL-C ends it with 0."""
    colony.report("web")
    with colony.supervised(), Watching(colony, "status", "--watch", "100", in_terminal=True) as watching:
        watching.wait_for("RUNNING")
        assert watching.text.startswith("\x1b[H\x1b[2J\x1b[H")
        colony.report("web", state="BACKOFF", pid=None)
        watching.wait_for("BACKOFF")
        colony.report("api")
        watching.wait_for("api")
        assert watching.interrupt() == (0, b"")
    assert "\x1b[2J" not in watching.text[8:]


def test_watch_goes_on_with_the_uptimes(colony: Colony) -> None:
    """On a terminal the table is redrawn after the seconds given though nothing changed but the time."""
    colony.report("web", started=time.time())
    os.utime(colony.state / "status", (1, 1))
    with colony.supervised(), Watching(colony, "status", "--watch=0.2", in_terminal=True) as watching:
        watching.wait_for("uptime 0:00:00")
        watching.wait_for("uptime 0:00:02")
        assert watching.interrupt()[0] == 0


def test_watch_into_a_pipe_repeats_the_table(colony: Colony) -> None:
    """Into a pipe a plain table is written whenever something else than an uptime changed, and only then."""
    colony.report("web", started=1.0)
    with colony.supervised(), Watching(colony, "status", "web", "--watch", in_terminal=False) as watching:
        watching.wait_for("web ")
        colony.report("other")
        colony.report("web", state="STOPPING", started=1.0)
        watching.wait_for("STOPPING")
        assert watching.interrupt() == (0, b"")
    assert "\x1b" not in watching.text
    assert [line.split()[:2] for line in watching.text.split("\n\n")] == [["web", "RUNNING"], ["web", "STOPPING"]]


def test_watch_tells_of_the_supervisor(colony: Colony) -> None:
    """That the supervisor has come or gone is a change like any other."""
    colony.report("web")
    with Watching(colony, "status", "--watch", "--json", in_terminal=False) as watching:
        watching.wait_for("]")
        with colony.supervised():
            watching.wait_for("]", 2)
        watching.wait_for("]", 3)
        assert watching.interrupt() == (0, b"")
    assert len({json.dumps(json.loads(line)) for line in watching.text.splitlines()}) == 1


def test_watch_ends_when_nobody_reads(colony: Colony) -> None:
    """The end of the program that reads the tables is the end of watching."""
    colony.report("web")
    with colony.supervised(), Watching(colony, "status", "--watch", in_terminal=False) as watching:
        watching.wait_for("web")
        os.close(watching.ours)
        assert watching.process.wait(timeout=60) == 0
        watching.ours = os.open(os.devnull, os.O_RDONLY)


def test_a_long_table_is_cut_to_the_terminal(colony: Colony) -> None:
    """What does not fit into the window is counted, and no line is broken."""
    for number in range(30):
        colony.report(f"p{number}", state="FATAL", reason="x" * 200)
    with colony.supervised(), Watching(colony, "status", "--watch=50", in_terminal=True) as watching:
        watching.wait_for("lines more")
        watching.interrupt()
    drawn = watching.text.split("\x1b[H")[2].replace("\x1b[K", "").replace("\x1b[J", "").splitlines()
    assert (len(drawn), drawn[-1]) == (23, "and 9 lines more")
    assert max(map(len, drawn)) == 79


def test_history_of_a_file_is_that_of_its_copies(colony: Colony, capsys: pytest.CaptureFixture[str]) -> None:
    """The file's name means all copies, in the order of time, each line with the name of its copy."""
    for name, number, at in (("web:0", 1, 10.0), ("web:1", 1, 5.0), ("web:0", 2, 20.0)):
        colony.ended(name, number, at=at)
    colony.ended("website", 1)
    (colony.config / "web").write_text('{"args": ["a"], "instances": 2}')
    assert main([*colony.options, "history", "web"]) == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert rows == [["web:1", "1"], ["web:0", "1"], ["web:0", "2"]]
    assert main([*colony.options, "history", "web", "--json", "-n", "1"]) == 0
    [record] = json.loads(capsys.readouterr().out)
    assert (record["name"], record["instance"]) == ("web:0", 2)
    assert main([*colony.options, "history", "web:1"]) == 0
    assert capsys.readouterr().out.split()[0] == "1"
    (colony.config / "web:1").write_text('{"args": ["a"]}')  # a file of its own is nobody's copy
    found: list[Any] = ctllib.history(colony.places, "web", state=colony.state)
    assert [one.name for one in found] == ["web:0", "web:0"]
    assert ctllib.history_of(colony.places, "web", state=colony.state) == []
    assert len(ctllib.history_of(colony.places, "web:0", state=colony.state)) == 2


def test_the_copies_of_a_file(colony: Colony, tmp_path: Path) -> None:
    """They are listed in the order of their numbers."""
    for name in ("web:10", "web:2", "web:x", "other"):
        colony.report(name)
    assert ctllib.copies(colony.places, "web", state=colony.state) == ["web:2", "web:10"]
    assert ctllib.copies(colony.places, "web:2", state=colony.state) == ["web:2"]
    assert ctllib.copies(colony.places, "nosuch", state=tmp_path) == []


def test_a_job_need_not_run(colony: Colony) -> None:
    """A job at rest does not count as something that is not running; what is said of it and by it is in its note."""
    colony.report("job", state="EXITED", wanted="down", pid=None, job=True, reason="exit code 0")
    colony.report("web", said="serving 3 clients", phase="reloading", healthy=False, health="no answer")
    with colony.supervised():
        ran = colony.run("status")
        colony.report("job", state="BACKOFF", wanted="up", pid=None, job=True, late="due at 03:00")
        late = colony.run("status")
    assert ran.returncode == 0
    assert ran.stdout.splitlines()[1].endswith(' reloading; "serving 3 clients"; unhealthy: no answer')
    assert late.returncode == 3
    assert late.stdout.splitlines()[0].endswith(" late: due at 03:00")
