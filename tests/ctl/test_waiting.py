"""`ctl wait`, `--wait` of every verb, and what a terminal is told meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ctl_colony import Colony, wait_for

from ncolony import ctllib
from ncolony.cli import main
from ncolony.ctllib import goals

ENDED = {"code": 0, "signal": None, "at": 1.0, "lived": 0.2, "text": "exit code 0"}


def defined(colony: Colony, name: str, **keys: Any) -> None:
    (colony.config / name).write_text(json.dumps({"args": ["a"], **keys}))


def waited(colony: Colony, name: str, goal: str, timeout: float = 60) -> list[str]:
    return [one.name for one in ctllib.wait_for(colony.places, name, goal, timeout, state=colony.state)]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is about to start a supervisor."""
    monkeypatch.setattr(goals, "_GRACE_S", 0.0)


@pytest.mark.parametrize(
    ("goal", "record", "there"),
    [
        ("running", {}, True),
        ("running", {"ready_at": 9e9}, True),
        ("running", {"state": "STARTING"}, False),
        ("running", {"state": "BACKOFF"}, False),
        ("running", {"state": "FATAL", "next_try": 9e9}, False),
        ("ready", {}, True),
        ("ready", {"ready_at": 9e9}, False),
        ("ready", {"ready_at": None}, True),
        ("stopped", {}, False),
        ("stopped", {"state": "STOPPING"}, False),
        ("stopped", {"state": "STOPPED"}, True),
        ("stopped", {"state": "EXITED"}, True),
        ("stopped", {"state": "FATAL"}, True),
        ("stopped", {"state": "FATAL", "next_try": 9e9}, False),
        ("stopped", {"state": "BACKOFF"}, False),
        ("exited", {"state": "STOPPED"}, True),
        ("exited", {"state": "EXITED"}, True),
        ("exited", {"state": "FATAL"}, True),
        ("exited", {"state": "BACKOFF", "last_exit": ENDED}, False),
        ("exited", {"last_exit": ENDED}, False),
    ],
)
def test_each_goal_knows_when_it_is_reached(colony: Colony, goal: str, record: dict[str, Any], there: bool) -> None:
    """What counts as running, ready, stopped and exited."""
    defined(colony, "web")
    colony.report("web", **record)
    with colony.supervised():
        if there:
            assert waited(colony, "web", goal, 0) == ["web"]
        else:
            with pytest.raises(ctllib.TimedOut, match=f"cannot see 'web' {goal}: after 0 s it is "):
                waited(colony, "web", goal, 0)


@pytest.mark.parametrize("state", ["RUNNING", "BACKOFF"])
def test_an_end_after_one_began_to_wait_is_an_exit(colony: Colony, state: str) -> None:
    """Though it is started again at once, or waits in BACKOFF, an instance has ended."""
    defined(colony, "web")
    colony.report("web", last_exit=ENDED)

    def meanwhile() -> None:
        colony.report("web", state=state, instance=2, last_exit={**ENDED, "at": 2.0})

    with colony.supervised():
        assert ctllib.wait_for(colony.places, "web", "exited", 60, state=colony.state, meanwhile=meanwhile)


def test_what_is_removed_has_stopped(colony: Colony) -> None:
    """A process that goes away while one waits for its end has come to it."""
    colony.report("web", state="STOPPING", wanted="gone")
    report = colony.state / "status" / "web"
    with colony.supervised():
        assert ctllib.wait_for(colony.places, "web", "stopped", 60, state=colony.state, meanwhile=report.unlink) == []


def test_every_copy_counts(colony: Colony) -> None:
    """The name of a file with instances means each of them, those that are not there yet too."""
    defined(colony, "web", instances=3)
    colony.report("web:0")
    colony.report("web:1", state="STARTING")
    with colony.supervised():
        with pytest.raises(ctllib.TimedOut, match="cannot see 'web' running: after 0 s 'web:1': it is STARTING"):
            waited(colony, "web", "running", 0)
        colony.report("web:1")
        with pytest.raises(ctllib.TimedOut, match="'web:2': nothing is reported of it"):
            waited(colony, "web", "running", 0)
        colony.report("web:3", state="STOPPING", wanted="gone")
        colony.report("web:2")
        assert waited(colony, "web", "running") == ["web:0", "web:1", "web:2"]
        assert waited(colony, "web:1", "running") == ["web:1"]
        for number in range(3):
            colony.report(f"web:{number}", state="STOPPED", wanted="down")
        with pytest.raises(ctllib.TimedOut, match="'web:3': it is STOPPING"):
            waited(colony, "web", "stopped", 0)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"state": "FATAL", "reason": "gave up"}, "it is FATAL: gave up"),
        ({"state": "FATAL", "problem": "cannot use web: x"}, "it is FATAL: cannot use web: x"),
        ({"state": "EXITED", "reason": "exit code 0"}, "it is EXITED: exit code 0"),
        ({"state": "STOPPED", "wanted": "down", "reason": "disabled"}, "it is STOPPED: disabled"),
        ({"state": "STOPPING", "wanted": "gone"}, "it is STOPPING"),
    ],
)
def test_what_cannot_come_about_is_not_waited_for(colony: Colony, record: dict[str, Any], why: str) -> None:
    """A state that does not lead to the goal fails long before the time is over."""
    defined(colony, "web")
    colony.report("web", **record)
    colony.applied()
    for goal in ("running", "ready"):
        with colony.supervised(), pytest.raises(ctllib.Failed, match=f"cannot see 'web' {goal}: {why}"):
            waited(colony, "web", goal)


def test_nothing_can_run_of_no_copies(colony: Colony) -> None:
    """A file with 0 instances has nothing that could run, and has stopped."""
    defined(colony, "web", instances=0)
    with colony.supervised():
        with pytest.raises(ctllib.Failed, match="there is nothing to run under that name"):
            waited(colony, "web", "running")
        assert waited(colony, "web", "stopped") == []


@pytest.mark.parametrize("pending", ["message", "file"])
def test_what_was_asked_for_a_moment_ago_is_waited_for(colony: Colony, pending: str) -> None:
    """While a message lies there, or a file is not applied, a stopped process may yet run."""
    defined(colony, "web")
    colony.applied()
    colony.report("web", state="STOPPED", wanted="down")
    if pending == "message":
        ctllib.start(colony.places, "web")
    else:
        defined(colony, "web", cwd="/")
    looks = 0

    def meanwhile() -> None:
        # Far more looks than it takes to give up where nothing is pending.
        nonlocal looks
        looks += 1
        if looks == 60:
            colony.report("web")

    with colony.supervised():
        assert ctllib.wait_for(colony.places, "web", "running", 60, state=colony.state, meanwhile=meanwhile)


def test_wait_says_what_became_of_each(colony: Colony) -> None:
    """A line for each process that has come to the goal; the status is 0."""
    defined(colony, "web", instances=2)
    for name in ("web:0", "web:1", "db"):
        colony.report(name)
    with colony.supervised():
        ran = colony.run("wait", "web", "--name=db", "--for", "ready", "--timeout", "60")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "web:0: ready\nweb:1: ready\ndb: ready\n", "")


def test_wait_for_nobody_is_4(colony: Colony) -> None:
    """A name that there is not is told at once, with the status of `status`."""
    ran = colony.run("wait", "nosuch")
    assert (ran.returncode, ran.stdout) == (4, "")
    assert ran.stderr.startswith("cannot wait for 'nosuch': there is no such process in ")


@pytest.mark.parametrize(
    "words", [["wait"], ["wait", "--for=x", "a"], ["wait", "--converged", "a"], ["wait", "a", "--timeout=x"]]
)
def test_wait_knows_its_usage(colony: Colony, words: list[str]) -> None:
    """Either names or --converged, one of the goals, and seconds."""
    assert main([*colony.options, *words]) == 2


@pytest.mark.usefixtures("hasty")
def test_nobody_to_bring_it_about(colony: Colony, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a supervisor a state that was left behind counts for nothing, and waiting ends early."""
    defined(colony, "web")
    colony.report("web")
    for words in (["web"], ["web", "--for", "stopped"], ["--converged"]):
        assert main([*colony.options, "wait", *words, "--timeout=60"]) == 1
        assert capsys.readouterr().err.endswith(": no supervisor is running for these directories\n")
    colony.report("web", state="STOPPED", wanted="down")
    assert main([*colony.options, "wait", "web", "--for", "stopped"]) == 0


def test_a_supervisor_that_is_starting_is_waited_for(colony: Colony) -> None:
    """One that appears a moment later is in time."""
    defined(colony, "web")
    colony.report("web")
    with contextlib.ExitStack() as stack:
        starts = [lambda: stack.enter_context(colony.supervised())]
        found = ctllib.wait_for(
            colony.places, "web", "running", 60, state=colony.state, meanwhile=lambda: starts and starts.pop()()
        )
    assert [one.name for one in found] == ["web"]
    assert not starts


def test_a_goal_that_there_is_not(colony: Colony) -> None:
    """A misspelt goal is a bad value, and so is a name that cannot be."""
    with pytest.raises(ctllib.BadValue, match="cannot wait for 'runing': expected one of running, ready"):
        waited(colony, "web", "runing")
    with pytest.raises(ctllib.BadValue, match="cannot wait for 'a/b'"):
        waited(colony, "a/b", "running")


def test_converged_means_every_file_and_message(colony: Colony) -> None:
    """The directory as it is must be applied, and no message be left; what is missing is told."""
    defined(colony, "web")
    defined(colony, "db")
    colony.applied()
    colony.report("web", digest=colony.digest("web"))
    colony.report("db", digest=colony.digest("db"))
    with colony.supervised():
        assert colony.run("wait", "--converged").returncode == 0
        defined(colony, "web", cwd="/")
        defined(colony, "new", instances=2)
        (colony.config / "db").unlink()
        message = colony.messages / ctllib.scan(colony.places)
        ran = colony.run("wait", "--converged", "--timeout=0")
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr == (
            f"cannot see everything applied: after 0 s 1 message ({message.name}) not handled;"
            " 3 files (db, new, web) not applied\n"
        )

        def apply() -> None:
            message.unlink()
            colony.applied()

        with colony.meanwhile(apply):
            ran = colony.run("wait", "--converged")
        assert (ran.returncode, ran.stderr) == (0, "")


def test_the_generation_is_that_of_the_whole_directory(colony: Colony) -> None:
    """Ignored names and directories do not count; what cannot be read counts as empty; the order does not matter."""
    assert ctllib.generation_of(colony.places) == "0" * 32
    defined(colony, "a")
    defined(colony, "b", cwd="/")
    before = ctllib.generation_of(colony.places)
    (colony.config / ".hidden").write_text("x")
    (colony.config / "x.new").write_text("x")
    (colony.config / "directory").mkdir()
    assert ctllib.generation_of(colony.places) == before
    (colony.config / "dangling").symlink_to("nowhere")
    dangling = ctllib.generation_of(colony.places)
    (colony.config / "dangling").unlink()
    os.mkfifo(colony.config / "dangling")
    assert ctllib.generation_of(colony.places) == dangling != before
    (colony.config / "dangling").unlink()
    (colony.config / "dangling").write_text("")
    assert ctllib.generation_of(colony.places) == dangling


def test_problems_make_converged_fail(colony: Colony) -> None:
    """Files that cannot be used are told, and are an error unless they are to be ignored."""
    defined(colony, "web")
    (colony.config / "bad").write_text("{")
    colony.applied(problems=1)
    colony.report("bad", state="FATAL", problem="cannot use bad: not JSON")
    with colony.supervised():
        for words, code in (([], 1), (["--ignore-problems"], 0)):
            ran = colony.run("wait", "--converged", *words)
            assert (ran.returncode, ran.stdout) == (code, "")
            assert ran.stderr.splitlines() == [
                "everything is applied, but 1 of 2 files cannot be used",
                "cannot use bad: not JSON",
            ]


def test_an_older_supervisor_does_not_say_what_it_applied(colony: Colony) -> None:
    """Without its word nothing is known to be converged."""
    with colony.supervised(), pytest.raises(ctllib.TimedOut, match=r"the supervisor does not say what it has applied$"):
        ctllib.wait_for_converged(colony.places, 0, state=colony.state)


# --- --wait ---


def test_wait_for_a_file_means_all_its_copies(colony: Colony) -> None:
    """add --wait returns when each copy runs the present definition, and when those too many are gone."""
    defined(colony, "x", instances=2)
    digest = colony.digest("x")
    colony.report("x:0", digest=digest)
    colony.report("x:1", digest="old")
    colony.report("x:2", digest="old", state="STOPPING", wanted="gone")
    colony.report("xy:7")
    with pytest.raises(ctllib.TimedOut, match="cannot see 'x' applied: after 0 s 'x:1' is RUNNING, and 1 more are not"):
        ctllib.wait_for_applied(colony.places, "x", 0, state=colony.state)
    colony.report("x:1", digest=digest)
    with pytest.raises(ctllib.TimedOut, match="after 0 s 'x:2' is STOPPING"):
        ctllib.wait_for_applied(colony.places, "x", 0, state=colony.state)
    with colony.meanwhile((colony.state / "status" / "x:2").unlink):
        found = ctllib.wait_for_applied(colony.places, "x", 60, state=colony.state)
    assert found is not None
    assert found.name == "x:1"


def test_wait_for_copies_of_what_was_single(colony: Colony) -> None:
    """With the key `instances` new, the single process has to go; with it gone, the copies have to."""
    defined(colony, "x", instances=1)
    colony.report("x:0", digest=colony.digest("x"))
    colony.report("x")
    with pytest.raises(ctllib.TimedOut, match="after 0 s it is RUNNING"):
        ctllib.wait_for_applied(colony.places, "x", 0, state=colony.state)
    defined(colony, "x")
    colony.report("x", digest=colony.digest("x"))
    with pytest.raises(ctllib.TimedOut, match="after 0 s 'x:0' is RUNNING"):
        ctllib.wait_for_applied(colony.places, "x", 0, state=colony.state)
    defined(colony, "x:0")  # of its own now
    assert ctllib.wait_for_applied(colony.places, "x", 60, state=colony.state)


def test_wait_for_no_copies_and_for_no_file(colony: Colony) -> None:
    """With 0 instances, and without a file, every copy has to go."""
    colony.report("x:0")
    defined(colony, "x", instances=0)
    for goal in ("applied", "gone"):
        with pytest.raises(ctllib.TimedOut, match=f"cannot see 'x' {goal}: after 0 s 'x:0' is RUNNING"):
            ctllib.wait_for_applied(colony.places, "x", 0, state=colony.state)
        (colony.config / "x").unlink(missing_ok=True)
    (colony.state / "status" / "x:0").unlink()
    assert ctllib.wait_for_applied(colony.places, "x", 0, state=colony.state) is None


def test_wait_does_not_wait_for_what_was_rolled_back(colony: Colony) -> None:
    """A definition that was taken back is not going to be in effect."""
    defined(colony, "x")
    os.utime(colony.config / "x", (1, 1))
    colony.report("x", digest="before", rolled_back="it was not ready within 5 s")
    with pytest.raises(ctllib.Failed, match="cannot see 'x' applied: it was not ready within 5 s"):
        ctllib.wait_for_applied(colony.places, "x", 60, state=colony.state)


def test_given_up_for_a_while_is_not_for_good(colony: Colony) -> None:
    """FATAL with a next try may still come to run."""
    defined(colony, "x")
    colony.report("x", digest=colony.digest("x"), state="FATAL", next_try=9e9)
    with pytest.raises(ctllib.TimedOut):
        ctllib.wait_for_applied(colony.places, "x", 0, state=colony.state)


# --- progress ---


@contextlib.contextmanager
def on_a_terminal(
    colony: Colony, *words: str, **env: str
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    """The command with stderr on a pseudo-terminal, and what it has written there so far."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    text = ""

    def read() -> str:
        nonlocal text
        with contextlib.suppress(OSError):
            while part := os.read(ours, 65536):
                text += part.decode()
        return text

    full = colony.environment(**{"TERM": "xterm", **env})
    with subprocess.Popen(colony.command(*words), stdout=subprocess.PIPE, stderr=theirs, env=full) as running:
        os.close(theirs)
        try:
            yield running, read
        finally:
            running.kill()
            running.communicate()
            os.close(ours)


def left_on_screen(text: str) -> list[str]:
    """The lines that stay when everything written has been drawn: only what Progress writes is understood."""
    lines = [""]
    for part in re.findall(r"\x1b\[\d*[AJ]|\r\n|\r|[^\r\x1b]+", text):
        if part == "\r\n":
            lines.append("")
        elif part.endswith("A") and part.startswith("\x1b"):
            del lines[len(lines) - int(part[2:-1]) :]
            lines[-1] = ""
        elif not part.startswith(("\x1b", "\r")):
            lines[-1] += part
    return [line for line in lines if line]


def test_a_long_wait_tells_the_terminal_how_it_goes(colony: Colony) -> None:
    """What is still on its way is shown, redrawn as it changes, and gone when the wait is over."""
    colony.report("web", state="STOPPING", reason="restarted on request", holding=["pid 123 (sleep)"])
    colony.report("other", state="STARTING")
    with colony.supervised(), on_a_terminal(colony, "restart", "web", "--wait", "60") as (running, read):
        [message] = wait_for(lambda: [name for name in os.listdir(colony.messages) if name[-4:] != ".new"])
        colony.answer(message, state="accepted", names=["web"])
        wait_for(lambda: "web: STOPPING for 0:00:0" in read())
        assert ": restarted on request; waiting for pid 123 (sleep)\r\n" in read()
        colony.report("web", state="STARTING", since=time.time() - 100)
        wait_for(lambda: "web: STARTING for 0:01:4" in read())
        colony.answer(message, names=["web"])
        assert running.wait(timeout=60) == 0
        assert "other" not in read()
        assert left_on_screen(read()) == []
        assert running.stdout is not None
        assert running.stdout.read() == b"web: restarted\n"


def test_an_error_takes_the_place_of_the_progress(colony: Colony) -> None:
    """When the time is over nothing but the error is left."""
    colony.report("web", state="BACKOFF", reason="exit code 3", next_try=time.time() + 100)
    with colony.supervised(), on_a_terminal(colony, "wait", "web", "--timeout", "1.5") as (running, read):
        assert running.wait(timeout=60) == 1
        assert "web: BACKOFF for 0:00:0" in read()
        assert left_on_screen(read()) == ["cannot see 'web' running: after 1.5 s it is BACKOFF: exit code 3"]


def test_whoever_does_not_move_is_told_too(colony: Colony) -> None:
    """Waiting for the end of what runs, one is shown that it runs."""
    colony.report("web", since=time.time() - 100)
    with colony.supervised(), on_a_terminal(colony, "wait", "web", "--for", "stopped") as (_, read):
        wait_for(lambda: "web: RUNNING for 0:01:4" in read())


def test_many_lines_are_cut(colony: Colony) -> None:
    """At most eight processes are named, the others counted."""
    for number in range(12):
        defined(colony, f"p{number}")
        colony.report(f"p{number}", state="STARTING", reason="x" * 200)
    with colony.supervised(), on_a_terminal(colony, "wait", *(f"p{n}" for n in range(12))) as (_, read):
        wait_for(lambda: "and 4 more\r\n" in read())
        assert read().count("STARTING") % 8 == 0
        assert max(map(len, read().split("\r\n"))) < 80


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": ""}])
def test_a_terminal_that_cannot_take_back_is_told_nothing(colony: Colony, env: dict[str, str]) -> None:
    """A dumb terminal sees the error only."""
    colony.report("web", state="STARTING")
    with colony.supervised(), on_a_terminal(colony, "wait", "web", "--timeout=1.3", **env) as (running, read):
        assert running.wait(timeout=60) == 1
        assert read() == "cannot see 'web' running: after 1.3 s it is STARTING\r\n"


def test_an_interrupted_wait_leaves_nothing_on_screen(colony: Colony) -> None:
    """CTRL-C while progress is shown takes it away."""
    colony.report("web", state="STARTING")
    with colony.supervised(), on_a_terminal(colony, "wait", "web") as (running, read):
        wait_for(lambda: "STARTING" in read())
        running.send_signal(2)
        assert running.wait(timeout=60) == 130
        assert left_on_screen(read()) == []


@pytest.mark.parametrize("words", [["scan"], ["upgrade"], ["restart-all"], ["shutdown"], ["wait", "--converged"]])
def test_waits_without_a_name_tell_too(colony: Colony, words: list[str]) -> None:
    """Every wait shows something: who is on the way, or that the supervisor is waited for."""
    wait = [] if words[0] == "wait" else ["--wait", "60"]
    with colony.supervised(), on_a_terminal(colony, *words, *wait) as (_, read):
        wait_for(lambda: "waiting for the supervisor\r\n" in read())
