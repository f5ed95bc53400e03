"""`ctl jobs` and `ctl run`, and what they stand for in Python: from files alone, and on a real colony."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from ctl_colony import Colony as Files

from colony import Colony, is_alive
from ncolony import ctllib
from ncolony.cli import main
from ncolony.ctllib.scheduled import in_words

HOUR = 3600.0
ENDED = {"code": 0, "signal": None, "at": 1.7e9, "lived": 2.0, "text": "exit code 0"}


def job(files: Files, name: str, schedule: dict[str, Any] | None = None, **status: Any) -> None:
    """A job as its supervisor reports it."""
    when = {"every": 60} if schedule is None else schedule
    (files.config / name).write_text(json.dumps({"args": ["a"], "schedule": when}))
    told = {"state": "EXITED", "wanted": "down", "pid": None, "started": None, "last_exit": ENDED, "job": True}
    files.report(name, **{**told, "reason": "exit code 0 after 2 s", **status})


def noted(files: Files, name: str, **record: Any) -> None:
    """What ncolony-jobs has written down of it."""
    (files.state / "jobs").mkdir(exist_ok=True)
    (files.state / "jobs" / name).write_text(json.dumps(record))


def only(files: Files) -> ctllib.Job:
    [found] = ctllib.jobs(files.places, state=files.state)
    return found


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"every": 60}, "every 60 s"),
        ({"every": 0.5}, "every 0.5 s"),
        ({"every": 90}, "every 90 s"),
        ({"every": 300}, "every 5 min"),
        ({"every": 3600}, "every 1 h"),
        ({"every": 2 * 86400}, "every 2 d"),
        ({"cron": "*/5 * * * *"}, "*/5 * * * *"),
        ({"cron": "0 3 * * *", "timezone": "Europe/Berlin"}, "0 3 * * * Europe/Berlin"),
        ({"every": "soon"}, "-"),
        ({}, "-"),
    ],
)
def test_a_schedule_in_words(schedule: dict[str, Any], words: str) -> None:
    """A period is told in the largest unit that makes a whole number, a cron expression with its time zone."""
    assert in_words(schedule) == words


def test_what_is_told_of_a_job(colony: Files) -> None:
    """When it is due, how its last run fared, how many there were, and what was left out."""
    due = time.time() + HOUR
    job(colony, "backup", instance=7)
    noted(colony, "backup", next=due, skipped=2, skipped_at=1.6e9, skipped_why="busy")
    found = only(colony)
    assert (found.name, found.schedule, found.next, found.runs) == ("backup", "every 60 s", due, 7)
    assert (found.started, found.lived, found.code, found.exit) == (1.7e9 - 2, 2.0, 0, "exit code 0")
    assert (found.running, found.late, found.off, found.try_at) == (False, "", "", None)
    assert (found.skipped, found.skipped_at, found.skipped_why) == (2, 1.6e9, "busy")
    assert json.loads(json.dumps(found.record))["name"] == "backup"


def test_a_run_that_goes_on(colony: Files) -> None:
    """Of a run that goes on it is told how long it takes so far."""
    job(colony, "backup", state="RUNNING", wanted="up", pid=1, started=time.time() - 30, instance=2)
    found = only(colony)
    assert found.running
    assert found.lived is not None
    assert 30 <= found.lived < 60
    assert (found.exit, found.code) == ("", None)


@pytest.mark.parametrize(
    ("status", "record", "late"),
    [
        ({}, {"next": -30.0}, False),
        ({}, {"next": -90.0}, True),
        ({}, {"next": HOUR}, False),
        ({}, {"next": HOUR, "late": -90.0}, True),
        ({"late": "it is, since I say so"}, {"next": HOUR}, True),
        ({"state": "RUNNING", "pid": 1, "started": 0.0}, {"next": -90.0}, False),
        ({"state": "RUNNING", "pid": 1, "started": -500.0}, {"next": -90.0}, True),
        ({"state": "STOPPED", "reason": "stopped on request"}, {"next": -90.0}, False),
        ({"enabled": False, "late": "once"}, {"next": -90.0}, False),
        ({"state": "STOPPED", "reason": "it takes longer than its timeout of 5 s"}, {"next": -90.0}, True),
    ],
)
def test_who_is_late(colony: Files, status: dict[str, Any], record: dict[str, float], late: bool) -> None:
    """Late is what should have begun `late_after` seconds ago and has not, unless its user wants it so."""
    now = time.time()
    if "started" in status:
        status["started"] += now
    job(colony, "backup", **status)
    noted(colony, "backup", **{key: now + value for key, value in record.items()})
    assert bool(only(colony).late) is late
    assert colony.run("jobs").returncode == (3 if late else 0)


def test_the_table(colony: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each job, and none for what is no job."""
    job(colony, "backup")
    noted(colony, "backup", next=time.time() + 2 * HOUR + 5)
    job(
        colony,
        "mail",
        {"cron": "0 3 * * *"},
        last_exit={**ENDED, "code": 3, "text": "exit code 3"},
        reason="exit code 3",
    )
    noted(colony, "mail", next=time.time() + 5, tries=1, try_at=time.time() + 100)
    (colony.config / "web").write_text('{"args": ["a"]}')
    colony.report("web")
    assert main([*colony.options, "jobs"]) == 0
    backup, mail = capsys.readouterr().out.splitlines()
    assert backup.startswith("backup  every 60 s")
    assert "in 2 h" in backup
    assert "exit code 0" in backup
    assert "exit code 3" in mail
    assert "failed, next try in" in mail


def test_jobs_are_chosen_as_processes_are(colony: Files) -> None:
    """By name, glob or group; one that is not there is said to be so, with exit status 4."""
    for name in ("a1", "a2", "b"):
        job(colony, name, group=["g"] if name != "a1" else [])
    for words, names in [(["a*"], ["a1", "a2"]), (["b"], ["b"]), (["g"], ["a2", "b"]), ([], ["a1", "a2", "b"])]:
        assert [one["name"] for one in json.loads(colony.run("jobs", "--json", *words).stdout)] == names
    done = colony.run("jobs", "nosuch")
    assert done.returncode == 4
    assert done.stderr == "cannot show 'nosuch': there is no such job\n"


def test_odd_notes_are_no_harm(colony: Files) -> None:
    """Whatever the notes hold, the job is shown."""
    job(colony, "backup", {"every": "soon", "late_after": []})
    for text in ("", "7", "[]", '{"next": "x", "skipped": [], "try_at": {}, "queued": 7}', "\xff"):
        (colony.state / "jobs").mkdir(exist_ok=True)
        (colony.state / "jobs" / "backup").write_text(text, encoding="latin-1")
        assert (only(colony).next, only(colony).skipped) == (None, 0)
        assert colony.run("jobs").returncode == 0


def test_watching_shows_what_changes(colony: Files) -> None:
    """`--watch` shows the table again when something has changed, and ends with 0 at CTRL-C."""
    job(colony, "backup", instance=7)
    command = colony.command("jobs", "--json", "--watch", "0.05")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=colony.environment()) as watcher:
        assert watcher.stdout
        assert json.loads(watcher.stdout.readline())[0]["runs"] == 7
        job(colony, "backup", instance=8)
        assert json.loads(watcher.stdout.readline())[0]["runs"] == 8
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(60) == 0


def test_looking_loads_little(colony: Files) -> None:
    """Neither `jobs` nor `run` imports Twisted, msgspec or a library for cron."""
    job(colony, "backup", {"cron": "0 3 * * *"})
    script = (
        "import sys; from ncolony.cli import main; code = main(sys.argv[1:]);"
        "print([name for name in ('twisted', 'msgspec', 'cronsim') if name in sys.modules])"
    )
    for words in (["jobs"], ["run", "backup"]):
        done = colony.run_bare([sys.executable, "-c", script, *colony.options, *words])
        assert done.stdout.splitlines()[-1] == "[]", done.stderr


# run


def test_nothing_is_run_later(colony: Files) -> None:
    """Without a supervisor `run` refuses: the run would come when nobody expects it."""
    job(colony, "backup")
    done = colony.run("run", "backup")
    assert (done.returncode, done.stderr) == (1, f"cannot run 'backup': {ctllib.NO_SUPERVISOR}\n")
    assert not list(colony.messages.iterdir())


def test_what_is_not_there_is_not_run(colony: Files) -> None:
    """No such process: exit status 4."""
    with colony.supervised():
        assert colony.run("run", "nosuch").returncode == 4
        assert colony.run("run", "nosuch", "-f").returncode == 4


def test_what_is_refused_is_told(colony: Files) -> None:
    """The supervisor's refusal is the error."""
    job(colony, "backup")
    with colony.supervised(), colony.answering(accepted=False, state="failed", why="backup is disabled"):
        done = colony.run("run", "backup", "--wait")
    assert (done.returncode, done.stderr) == (1, "cannot run 'backup': backup is disabled\n")


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ({"code": 0}, 0),
        ({"code": 7}, 7),
        ({"code": None, "signal": "TERM", "pid": 5}, 143),
        ({"code": None, "signal": "SIGKILL", "pid": 5}, 137),
        ({"code": None, "signal": None, "pid": None}, 127),
        ({"code": None, "signal": None, "pid": 5}, 1),
        ({"code": None, "signal": "odd", "pid": 5}, 1),
    ],
)
def test_exit_codes_are_those_of_a_shell(record: dict[str, Any], code: int) -> None:
    """128 + n for a signal, 127 for what cannot be run, 1 where nobody knows."""
    assert ctllib.exit_code_of(ctllib.PastExit({"id": "i", "instance": 1, **record})) == code


@pytest.fixture
def run(colony_of_jobs: Colony) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`ctl run` on a colony that runs."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        places = [*colony_of_jobs.ctl_places(), "--state", str(colony_of_jobs.state)]
        command = [sys.executable, "-m", "ncolony", "ctl", *places, "run", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def colony_of_jobs(new_colony: Callable[[str], Colony]) -> Colony:
    """A colony that runs, with jobs that are not due."""
    found = new_colony("real")
    never = {"cron": "0 0 29 2 *"}
    for name, script in {
        "good": "echo out; echo err >&2; printf end",
        "bad": "echo bad; exit 3",
        "killed": "kill -9 $$",
        "slow": "echo slow; while [ ! -e go ]; do sleep 0.05; done",
    }.items():
        found.put(name, {"args": ["/bin/sh", "-c", script], "cwd": str(found.root), "schedule": never})
    found.put("none", {"args": ["/nowhere"], "schedule": never})
    found.start()
    for name in ("good", "bad", "killed", "slow", "none"):
        found.wait_for_status(name, state="STOPPED")
    return found


def test_a_run_is_waited_for(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """`--wait` returns at the end of the run, with its exit code."""
    for name, code in [("good", 0), ("bad", 3), ("killed", 137), ("none", 127), ("bad", 3)]:
        done = run(name, "--wait")
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "nowhere" in run("none", "--wait").stderr


def test_a_run_can_be_watched(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """`--follow` prints what this run prints, all of it and nothing else, and ends with its exit code."""
    for _ in range(3):
        done = run("good", "-f")
        assert (done.returncode, sorted(done.stdout.split())) == (0, ["end", "err", "out"]), done.stderr
    done = run("bad", "--follow")
    assert (done.returncode, done.stdout) == (3, "bad\n")


def test_a_wait_may_be_too_short(colony_of_jobs: Colony, run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """After `--wait SECONDS` it fails, and the run goes on; a second run is refused meanwhile."""
    done = run("slow", "--wait", "0.5")
    assert done.returncode == 1
    assert "after 0.5 s it is RUNNING" in done.stderr
    pid = colony_of_jobs.wait_until_running("slow")
    for more in ([], ["--wait"], ["-f"]):
        done = run("slow", *more)
        assert (done.returncode, done.stdout) == (1, "")
        assert "cannot run 'slow': it runs already: RUNNING, instance 1" in done.stderr
    assert is_alive(pid)
    (colony_of_jobs.root / "go").touch()
    colony_of_jobs.wait_for_status("slow", state="EXITED")


def test_a_wait_outlives_the_supervisor(colony_of_jobs: Colony) -> None:
    """A supervisor that is killed and comes back is not noticed by who waits for a run."""
    places = ctllib.Places(colony_of_jobs.config, colony_of_jobs.messages)
    begun = ctllib.run(places, "slow", state=colony_of_jobs.state)
    colony_of_jobs.wait_until_running("slow")
    colony_of_jobs.kill()
    steps = [lambda: colony_of_jobs.start(), lambda: (colony_of_jobs.root / "go").touch()]

    def meanwhile() -> None:
        if steps:
            steps.pop(0)()

    [ended] = ctllib.wait_for_run(places, begun, 60, state=colony_of_jobs.state, meanwhile=meanwhile)
    assert (ended.instance, ended.code, ctllib.exit_code_of(ended)) == (1, 0, 0)


def test_a_run_of_what_is_removed_ends(colony_of_jobs: Colony) -> None:
    """When the file goes, the run is stopped, and who waits for it is told how it ended."""
    places = ctllib.Places(colony_of_jobs.config, colony_of_jobs.messages)
    begun = ctllib.run(places, "slow", state=colony_of_jobs.state)
    colony_of_jobs.wait_until_running("slow")
    steps = [lambda: colony_of_jobs.remove("slow")]

    def meanwhile() -> None:
        if steps:
            steps.pop()()

    [ended] = ctllib.wait_for_run(places, begun, 60, state=colony_of_jobs.state, meanwhile=meanwhile)
    assert ctllib.exit_code_of(ended) == 128 + signal.SIGTERM
    assert ended.reason == "its file was removed"
