"""What the command line tells of a live colony: status, why, wait, and what a terminal sees."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from colony import Colony

QUICK = ("-m", "0.05", "-M", "0.1")


def ctl(colony: Colony, *words: str) -> subprocess.CompletedProcess[str]:
    """`ncolony ctl` on this colony, its own state directory included."""
    return subprocess.run(command(colony, *words), capture_output=True, text=True, timeout=60, check=False)


def command(colony: Colony, *words: str) -> list[str]:
    return [sys.executable, "-m", "ncolony", "ctl", *colony.ctl_places(), "--state", str(colony.state), *words]


def why(colony: Colony, name: str) -> dict[str, Any]:
    [found] = json.loads(ctl(colony, "why", name, "--json").stdout)
    assert isinstance(found, dict)
    return found


def test_why_of_a_process_that_runs(colony: Colony) -> None:
    """It is as wanted, and nothing is advised."""
    colony.put("web", {"args": ["sleep", "1000"]})
    colony.start()
    assert ctl(colony, "wait", "web", "--for", "ready").returncode == 0
    ran = ctl(colony, "why", "web")
    assert (ran.returncode, "What to do" in ran.stdout) == (0, False)
    assert why(colony, "web")["pid"] == colony.wait_until_running("web")


def test_why_of_a_crash_loop(colony: Colony) -> None:
    """Its ends with codes and last lines, and where to see more."""
    colony.put("web", {"args": ["sh", "-c", "echo no luck; exit 3"]})
    colony.start(*QUICK)
    colony.wait_for(lambda: len(why(colony, "web")["exits"]) >= 2, "it has ended twice")
    found = why(colony, "web")
    assert (found["exits"][-1]["code"], found["exits"][-1]["lines"]) == (3, ["no luck"])
    assert found["ends_in_last_hour"] >= 2
    assert "logs web" in found["advice"][0]
    assert ctl(colony, "why", "web").returncode == 3


def test_why_of_a_missing_program(colony: Colony) -> None:
    """A program that is on no PATH, and a script whose shell does not find one, are told as such."""
    colony.put("gone", {"args": ["no-such-program"]})
    colony.put("shell", {"args": ["sh", "-c", "no-such-program"]})
    colony.start("-m", "60")
    for name, advice in (("gone", "give the program's full path in args"), ("shell", "127 is what a shell says")):
        colony.wait_for_status(name, state="BACKOFF")
        found = colony.wait_for(lambda name=name: [one for one in [why(colony, name)] if one["exits"]], "it has ended")[
            0
        ]
        assert found["advice"][0].startswith(advice)
        assert 50 < found["next_try_in"] <= 66


def test_why_of_a_broken_file(colony: Colony) -> None:
    """The key, its value, and that correcting it is enough; which it is."""
    colony.put("web", {"args": ["sleep", "1000"], "threshold": "soon"})
    colony.start()
    colony.wait_for_problem("web")
    found = why(colony, "web")
    assert (found["problem"]["key"], found["problem"]["value"]) == ("threshold", "soon")
    assert found["advice"] == [f"correct {colony.config}/web: it is applied by itself then"]
    colony.put("web", {"args": ["sleep", "1000"], "threshold": 0})
    colony.wait_until_running("web")
    assert ctl(colony, "why", "web").returncode == 0


def test_why_of_what_was_stopped(colony: Colony) -> None:
    """Who wanted it so, and how to have it back: the advice, typed as it stands, does it."""
    colony.put("web", {"args": ["sleep", "1000"]})
    colony.start()
    colony.wait_until_running("web")
    assert ctl(colony, "stop", "web", "--wait").returncode == 0
    found = why(colony, "web")
    assert (found["as_wanted"], found["wanted_by"]) == (True, "stopped on request")
    advised = found["advice"][0].removeprefix("have it run: ncolony ctl ")
    assert "ncolony" not in advised.split()[0]
    ran = subprocess.run(
        f"'{sys.executable}' -m ncolony ctl {advised}",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    colony.wait_until_running("web", instance=2)


def test_why_without_a_supervisor(colony: Colony) -> None:
    """The supervisor was killed: that is told first, and the command that is advised starts one."""
    colony.put("web", {"args": ["sleep", "1000"]})
    colony.start()
    pid = colony.wait_until_running("web")
    colony.kill()
    found = why(colony, "web")
    assert (found["as_wanted"], found["supervisor"]) == (False, None)
    words = found["advice"][0].removeprefix("start the supervisor: python ").split()
    colony.start(command=[sys.executable, *words, "--logs", str(colony.logs)])
    assert ctl(colony, "wait", "web").returncode == 0
    assert why(colony, "web")["pid"] == pid


def test_wait_lasts_until_it_runs(colony: Colony) -> None:
    """One that cannot run yet is waited for while the reason is removed; one that was stopped is not."""
    program = colony.root / "program"
    colony.put("web", {"args": [str(program)], "cwd": str(colony.root)})
    colony.start(*QUICK)
    colony.wait_for_status("web", state="BACKOFF")
    with subprocess.Popen(command(colony, "wait", "web", "--timeout", "60"), stdout=-1, text=True) as waiting:
        program.write_text("#!/bin/sh\nexec sleep 1000\n")
        program.chmod(0o755)
        assert waiting.communicate(timeout=60) == ("web: running\n", None)
    assert waiting.returncode == 0
    assert ctl(colony, "stop", "web", "--wait").returncode == 0
    ran = ctl(colony, "wait", "web", "--timeout", "60")
    assert (ran.returncode, ran.stderr) == (1, "cannot see 'web' running: it is STOPPED: stopped on request\n")
    assert ctl(colony, "start", "web").returncode == 0
    assert ctl(colony, "wait", "web", "--timeout", "60").returncode == 0
    assert ctl(colony, "remove", "web").returncode == 0
    assert ctl(colony, "wait", "web", "--for", "stopped", "--timeout", "60").returncode in (0, 4)


def test_wait_for_an_exit(colony: Colony) -> None:
    """An instance that ends and is replaced at once has exited all the same."""
    colony.put("web", {"args": ["sleep", "1000"], "threshold": 0})
    colony.start()
    colony.wait_until_running("web")
    with subprocess.Popen(
        command(colony, "wait", "web", "--for=exited", "--timeout=60"), stdout=-1, text=True
    ) as waiting:
        # Its first look cannot be seen from here: it is signalled until it has noticed.
        colony.wait_for(
            lambda: ctl(colony, "signal", "web", "KILL", "--wait") and waiting.poll() is not None, "it ends"
        )
        assert waiting.communicate(timeout=60) == ("web: exited\n", None)
    assert waiting.returncode == 0


@contextlib.contextmanager
def in_terminal(*argv: str, stream: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command with `stream` on a pseudo-terminal, and our end of that."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    env = {**os.environ, "TERM": "xterm"}
    streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: theirs}
    with subprocess.Popen(argv, env=env, **streams) as running:
        os.close(theirs)
        try:
            yield running, ours
        finally:
            running.kill()
            running.wait()
            os.close(ours)


def read_more(descriptor: int, text: list[str]) -> str:
    with contextlib.suppress(OSError):
        while part := os.read(descriptor, 65536):
            text.append(part.decode())
    return "".join(text)


def test_watch_shows_what_happens(colony: Colony) -> None:
    """A table on a terminal follows the colony: a new process, its restart, its end, and the supervisor's."""
    colony.put("web", {"args": ["sleep", "1000"]})
    colony.start()
    first = colony.wait_until_running("web")
    text: list[str] = []
    with in_terminal(*command(colony, "status", "--watch", "100"), stream="stdout") as (running, screen):
        colony.wait_for(lambda: f"pid {first}" in read_more(screen, text), "the first instance is shown")
        colony.put("api", {"args": ["sleep", "1000"]})
        api = colony.wait_until_running("api")
        colony.wait_for(lambda: f"pid {api}" in read_more(screen, text), "the new process is shown")
        colony.send({"type": "RESTART", "name": "web"})
        second = colony.wait_until_running("web", instance=2)
        colony.wait_for(lambda: f"pid {second}" in read_more(screen, text), "the second instance is shown")
        colony.kill()
        colony.wait_for(lambda: "no supervisor is running" in read_more(screen, text), "that is shown too")
        running.send_signal(2)
        assert running.wait(timeout=60) == 0
    colony.start()


def test_a_long_stop_tells_the_terminal_what_it_waits_for(colony: Colony) -> None:
    """stop --wait of a process that ignores SIGTERM names its pid on the terminal, and takes the line away again."""
    deaf = colony.root / "deaf"
    script = f"trap '' TERM; touch '{deaf}'; exec sleep 1000"
    colony.put("web", {"args": ["sh", "-c", script], "stop": [["TERM", 4]]})
    colony.start()
    pid = colony.wait_until_running("web")
    colony.wait_for(deaf.exists, "it ignores SIGTERM")
    text: list[str] = []
    with in_terminal(*command(colony, "stop", "web", "--wait", "60"), stream="stderr") as (running, screen):
        colony.wait_for(lambda: f"waiting for pid {pid}" in read_more(screen, text), "its pid is shown")
        assert running.wait(timeout=60) == 0
        shown = read_more(screen, text)
    assert re.match(r"web: STOPPING for 0:00:0\d: stopped on request", shown)
    assert re.search(r"\x1b\[1A\r\x1b\[J$", shown)


def test_a_supervisor_is_seen_whoever_looked_while_it_started(colony: Colony) -> None:
    """That somebody asked at that very moment whether a supervisor runs does not make it invisible for good."""
    colony.state.mkdir(mode=0o700)
    with Path(colony.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        colony.launch()
        own = colony.state / "supervisor.lock"
        colony.wait_for(lambda: own.exists() and own.read_bytes(), "it has the lock of its own")
    colony.wait_for(colony.supervisor, "the supervisor is up")
    colony.put("web", {"args": ["sleep", "1000"]})
    colony.wait_until_running("web")
    ran = ctl(colony, "status")
    assert (ran.returncode, ran.stderr) == (0, "")
