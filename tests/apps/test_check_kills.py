"""Checkers are killed at any time, supervisors are away, files are bad: no restart is asked for twice or wrongly."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from colony import SLEEP, Colony, put_whole
from ward import Server, Ward, drop, killed, silent, status, wait_for

Serve = Callable[..., Server]
NOBODY = {"exec": ["/bin/false"], "period": 0.05, "failure_threshold": 2}


def asked(messages: Any) -> list[tuple[str, Any]]:
    """The restarts among messages: of whom, of which instance."""
    return [(one["name"], one.get("instance")) for one in messages if one["type"] == "RESTART"]


def test_restart_is_one_message_however_often_it_is_killed(ward: Ward) -> None:
    """While nobody handles the request, a checker that comes back finds it and does not ask again."""
    ward.put("web", check=[NOBODY])
    ward.say("web")
    for _ in range(3):
        checker = ward.check()
        wait_for(lambda: asked(ward.waiting().values()), "a restart is asked for")
        killed(checker)
    # One more, which has the time to fail often.
    ward.put("other", check=[{**NOBODY, "action": "report", "period": 1}])
    ward.say("other")
    ward.check()
    wait_for(lambda: [m for m in ward.waiting().values() if m["name"] == "other"], "it has judged the other")
    assert asked(ward.waiting().values()) == [("web", 1)]


def test_restart_that_was_answered_is_not_asked_again(ward: Ward) -> None:
    """Once the request was handled, its answer keeps a new checker from asking, although the instance still runs."""
    ward.put("web", check=[NOBODY])
    ward.say("web")
    checker = ward.check()
    wait_for(lambda: asked(ward.waiting().values()), "a restart is asked for")
    killed(checker)
    ward.take(2)
    ward.put("other", check=[{**NOBODY, "action": "report", "period": 1}])
    ward.say("other")
    ward.check()
    wait_for(lambda: [m for m in ward.waiting().values() if m["name"] == "other"], "it has judged the other")
    assert asked(ward.waiting().values()) == []
    ward.say("web", instance=2)
    wait_for(lambda: asked(ward.waiting().values()) == [("web", 2)], "the next instance is judged for itself")


def test_killed_at_many_moments(ward: Ward) -> None:
    """However a checker is killed again and again, while instances come and go: one request for each at most."""
    chance = random.Random(20)
    names = [f"p{number}" for number in range(5)]
    numbers = dict.fromkeys(names, 1)
    for name in names:
        ward.put(name, check=[NOBODY])
        ward.say(name)
    found: Counter[tuple[str, Any]] = Counter()
    handled = 0
    deadline = time.monotonic() + 90
    while handled < 12 and time.monotonic() < deadline:
        before = ward.began()
        checker = ward.check()
        wait_for(lambda before=before: ward.began() > before, "it runs")
        until = time.monotonic() + chance.uniform(0.5, 1.8)
        while time.monotonic() < until:
            for file, message in ward.waiting().items():
                if message["type"] == "RESTART":
                    found[message["name"], message["instance"]] += 1
                    handled += 1
                    # As a supervisor does it: the status, then the answer, then the message goes.
                    numbers[message["name"]] += 1
                    stop = chance.random() < 0.5
                    ward.say(message["name"], "STOPPING" if stop else "RUNNING", numbers[message["name"]] - stop)
                    put_whole(ward.state / "answers", file, b'{"accepted": true, "state": "accepted"}')
                    (ward.messages / file).unlink()
                    if stop:
                        ward.say(message["name"], "RUNNING", numbers[message["name"]])
                else:
                    (ward.messages / file).unlink()
            time.sleep(0.005)
        killed(checker)
    assert handled >= 12
    assert set(found.values()) == {1}, found


def test_kills_in_a_colony(colony: Colony) -> None:
    """In a real colony whose checker is killed again and again, each instance is restarted once, after its grace."""
    check = {"exec": ["/bin/false"], "period": 0.1, "failure_threshold": 2, "grace": 0.5}
    for number in range(3):
        colony.put(f"p{number}", {"args": [SLEEP, "1000"], "check": [check]})
    colony.put("ncolony-check", {"args": [SLEEP, "1000"]})  # nobody but those that are killed here
    colony.start()
    checkers = Ward(colony.root)
    chance = random.Random(1)
    while sum(int((colony.status(f"p{number}") or {"instance": 0})["instance"]) for number in range(3)) < 15:
        before = checkers.began()
        checker = checkers.check()
        colony.wait_for(lambda before=before: checkers.began() > before, "it has begun")  # type: ignore[misc]
        until = time.monotonic() + chance.uniform(0.2, 2.0)
        colony.wait_for(lambda until=until: time.monotonic() > until, "it has had some time")  # type: ignore[misc]
        killed(checker)
    checkers.close()
    for number in range(3):
        path = colony.state / "history" / f"p{number}"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        assert all(line["lived"] >= 0.5 for line in lines), lines
        requests = Counter(name for name in os.listdir(colony.state / "answers") if f"check-p{number}-" in name)
        assert len(requests) <= len(lines) + 1
        answers = [json.loads((colony.state / "answers" / name).read_text()) for name in requests]
        assert all(answer["state"] != "failed" for answer in answers), answers


def test_nobody_is_judged_without_a_supervisor(ward: Ward, serve: Serve) -> None:
    """Without a supervisor there is no verdict and no request; with one again, checks go on."""
    server = serve(drop)
    ward.put("web", check=[{"http": f"http://127.0.0.1:{server.port}/", "period": 0.05, "failure_threshold": 3}])
    ward.say("web")
    ward.abandon()
    ward.check()
    wait_for(ward.began, "it runs")
    deadline = time.monotonic() + 2
    wait_for(lambda: time.monotonic() > deadline, "it has had some time")
    assert (ward.waiting(), server.accepted) == ({}, 0)
    ward.supervise()
    wait_for(lambda: asked(ward.waiting().values()) == [("web", 1)], "it goes on")
    assert server.accepted >= 3


NOT_JUDGED: list[dict[str, Any]] = [
    {"state": "STOPPED", "pid": None},
    {"state": "BACKOFF", "pid": None},
    {"state": "FATAL", "pid": None},
    {"state": "STOPPING"},
    {"state": "RUNNING", "wanted": "down"},
    {"state": "STARTING"},
    {"digest": "another content"},
]


@pytest.mark.parametrize("said", NOT_JUDGED, ids=str)
def test_who_is_not_judged(ward: Ward, said: dict[str, Any]) -> None:
    """Only what runs, should run, and was started from what the file says is judged."""
    ward.put("web", check=[{**NOBODY, "failure_threshold": 1}])
    ward.say("web", **said)
    ward.put("other", check=[{**NOBODY, "period": 0.3, "action": "report"}])
    ward.say("other")
    ward.check()
    assert [message["name"] for message in ward.take()] == ["other"]
    ward.say("web")
    assert [message["name"] for message in ward.take(2)] == ["web", "web"]


def test_late_result_of_a_former_instance(ward: Ward, serve: Serve) -> None:
    """An answer that comes when there is another instance already says nothing about that one."""
    server = serve(silent)
    check = {"http": f"http://127.0.0.1:{server.port}/", "period": 0.1, "timeout": 3, "failure_threshold": 1}
    ward.put("web", check=[check])
    ward.say("web")
    ward.check()
    wait_for(lambda: server.accepted == 1, "it is being asked")
    server.behaviour = status(200)
    ward.say("web", instance=2)
    [told] = ward.take()
    assert (told["what"], told["instance"]) == ("healthy", 2)
    server.stopped.set()
    wait_for(lambda: len(server.requests) > 10, "it is asked again and again")
    assert ward.waiting() == {}


def test_a_verdict_that_got_lost_is_told_again(ward: Ward) -> None:
    """What was told and is not in the status is told again, and not before some seconds have passed."""
    ward.put("web", check=[{"exec": ["/bin/true"], "period": 0.05}])
    ward.say("web")
    ward.check()
    ward.take()
    began = time.monotonic()
    [again] = ward.take()
    assert again["what"] == "healthy"
    assert time.monotonic() - began > 3
    ward.say("web", healthy=True)
    ward.put("other", check=[{"exec": ["/bin/true"], "period": 6}])
    ward.say("other")
    assert [message["name"] for message in ward.take()] == ["other"]
    deadline = time.monotonic() + 6
    wait_for(lambda: time.monotonic() > deadline, "it has had some time")
    assert "web" not in {message["name"] for message in ward.waiting().values()}


def test_bad_and_torn_files_harm_nobody(ward: Ward) -> None:
    """Files that cannot be used are said once and harm no other; the last good one of a name stays."""
    ward.put("web", check=[{"exec": ["/bin/true"], "period": 0.1}])
    for name, data in {
        "torn": b'{"args": ["x"], "che',
        "list": b"[]",
        "bad": b'{"args": ["x"], "check": [{}]}',
    }.items():
        put_whole(ward.config, name, data)
    (ward.config / "half.new").write_bytes(b"{")
    (ward.config / "directory").mkdir()
    os.mkfifo(ward.config / "fifo")
    (ward.config / "link").symlink_to("nowhere")
    ward.say("web")
    (ward.state / "status" / "bad").write_bytes(b"{")
    ward.check("ncolony-check", "--frequency", "0.2")
    assert [message["what"] for message in ward.take()] == ["healthy"]
    digest = ward.digest("web")
    put_whole(ward.config, "web", b'{"args": ')
    wait_for(lambda: any("cannot use web: not JSON" in line for line in ward.said()), "it is said")
    ward.say("web", instance=2, digest=digest)
    [told] = ward.take()
    assert (told["instance"], told["what"]) == (2, "healthy")
    wait_for(lambda: ward.said().count("cannot use torn: not JSON: Input data was truncated") == 1, "it is said")
    for name in ("list", "bad", "fifo", "link"):
        assert sum(line.startswith(f"cannot use {name}: ") for line in ward.said()) == 1, ward.said()


def test_readiness_is_told_of_the_instance(ward: Ward, serve: Serve) -> None:
    """The probe goes on until it succeeds, and is told with the instance's number; a checker that comes tells again."""
    server = serve(status(500))
    ward.put("web", ready={"http": f"http://127.0.0.1:{server.port}/", "period": 0.05})
    ward.say("web", "STARTING", 7)
    checker = ward.check()
    wait_for(lambda: len(server.requests) > 3, "it is asked again and again")
    assert ward.waiting() == {}
    server.behaviour = status(200)
    [told] = ward.take()
    assert (told["what"], told["instance"]) == ("ready", 7)
    killed(checker)
    ward.check()
    [told] = ward.take()
    assert (told["what"], told["instance"]) == ("ready", 7)
    ward.say("web", "RUNNING", 7)
    count = len(server.requests)
    deadline = time.monotonic() + 1
    wait_for(lambda: time.monotonic() > deadline, "it has had some time")
    assert len(server.requests) <= count + 1


def test_ends_with_0(ward: Ward) -> None:
    """SIGTERM and SIGINT end it with status 0, programs that it runs included."""
    import signal

    pids = ward.root / "pids"
    ward.put(
        "web", check=[{**NOBODY, "exec": ["/bin/sh", "-c", f"echo $$ >>{pids}; exec {SLEEP} 1000"], "timeout": 99}]
    )
    ward.say("web")
    for number in (signal.SIGTERM, signal.SIGINT):
        pids.unlink(missing_ok=True)
        checker = ward.check()
        pid = int(wait_for(lambda: pids.exists() and pids.read_text().strip(), "it runs a program"))
        checker.send_signal(number)
        assert checker.wait(20) == 0
        assert not os.path.exists(f"/proc/{pid}")


def test_a_name_that_is_not_found_does_not_keep_it(ward: Ward) -> None:
    """It ends at once, with 0, also while the address of a host is asked for and nobody answers."""
    asked = ward.root / "asked"
    (ward.root / "sitecustomize.py").write_text(
        f"import os, socket, time\nsocket.getaddrinfo = lambda *_, **__: (open({str(asked)!r}, 'w'), time.sleep(60))\n"
    )
    ward.put("web", check=[{"tcp": "host.invalid:80", "period": 0.1, "timeout": 0.1}])
    ward.say("web")
    checker = ward.check(PYTHONPATH=str(ward.root))
    wait_for(asked.exists, "it asks")
    begun = time.monotonic()
    checker.terminate()
    assert checker.wait(70) == 0
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("program", "options", "why"),
    [
        ("ncolony-check", ["--config", "c"], "--messages DIR is required"),
        ("ncolony-check", ["--messages", "m"], "--config DIR is required"),
        ("ncolony-check", ["--messages", "m", "--config", "c", "--frequency", "0"], "--frequency: expected seconds"),
        ("ncolony-beatcheck", ["--messages", "m", "--config", "c", "--freq", "x"], "--freq: expected seconds"),
        ("ncolony-httpcheck", ["--messages", "m", "--config", "c", "more"], "unexpected argument 'more'"),
    ],
)
def test_wrong_options(program: str, options: list[str], why: str) -> None:
    """A wrong command line is one line that says what is wrong."""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-m", "twisted", program, *options], capture_output=True, text=True)
    assert done.returncode != 0
    assert why in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
