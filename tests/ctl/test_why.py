"""`ctl why`: the causal chain of a process, for people and as JSON."""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path

import pytest
from ctl_colony import Colony

from ncolony import ctllib
from ncolony.cli import main
from ncolony.cli.parser import build
from ncolony.decide import advice


def test_a_process_that_is_well_needs_nothing(colony: Colony) -> None:
    """What runs as wanted is said to, without advice, and the status is 0."""
    colony.report("web")
    (colony.config / "web").write_text('{"args": ["a"]}')
    with colony.supervised():
        ran = colony.run("why", "web")
    assert (ran.returncode, ran.stderr) == (0, "")
    first, *rest = ran.stdout.splitlines()
    assert first.startswith("web: RUNNING, since ")
    assert [line.split()[0] for line in rest] == ["wanted", "instance", "supervisor"]


def test_the_chain_of_a_process_that_fails(colony: Colony) -> None:
    """State, who wants it, why, until when, its ends with the last lines, its costs, and what to do."""
    now = time.time()
    (colony.config / "web").write_text('{"args": ["a"], "memory_max": "512M"}')
    colony.ended("web", 1, code=1, text="exit code 1", at=now - 4000, lines=["old"])
    colony.ended("web", 2, code=None, signal="KILL", oom=True, text="killed by KILL", at=now - 60, lines=["old"])
    colony.ended("web", 3, code=3, text="exit code 3", at=now - 5, lived=0.2, lines=["cannot\x1b", "listen"])
    colony.report(
        "web",
        state="BACKOFF",
        pid=None,
        reason="exit code 3 after 0.2 s",
        next_try=now + 100,
        memory=100 << 20,
        restarts=2,
        warnings=["envs: unknown key, did you mean env?"],
    )
    with colony.supervised():
        ran = colony.run("why", "--name=web", env={"TZ": "UTC"})
        listed = colony.run("why", "web", "--json")
    assert (ran.returncode, listed.returncode, ran.stderr) == (3, 3, "")
    text = ran.stdout
    for part in (
        "  wanted       up (its file)\n",
        "  because      exit code 3 after 0.2 s\n",
        "  warning      envs: unknown key, did you mean env?\n",
        "exit code 3 after 0.2 s\n               | cannot\\x1b\n               | listen\n",
        "killed by KILL (out of memory) after 1.5 s\n",
        "  restarts     2; ended 2 times in the last hour\n",
        "  memory       100 MiB of 512 MiB\n",
        "What to do:\n  - see what it printed: ncolony ctl --messages ",
        " restart web\n",
    ):
        assert part in text
    assert "  next try     in " in text
    assert "| old" not in text
    [found] = json.loads(listed.stdout)
    assert (found["state"], found["as_wanted"], found["problem"]) == ("BACKOFF", False, None)
    assert [one["instance"] for one in found["exits"]] == [1, 2, 3]
    assert (found["ends_in_last_hour"], found["memory_max"]) == (2, 512 << 20)
    assert 90 < found["next_try_in"] <= 100
    assert found["supervisor"]["version"] == "1"
    assert len(found["advice"]) == 2


def test_what_is_wrong_with_a_file_is_told_by_key_and_value(colony: Colony) -> None:
    """The problem has file, key and value, and nothing but correcting it is advised."""
    (colony.config / "web").write_text('{"args": ["a"], "log": {"keep": -3}}')
    problem = "cannot use web: log.keep: expected a number from 0 to 100000, found -3"
    colony.report("web", state="FATAL", pid=None, instance=0, reason=problem, problem=problem)
    with colony.supervised():
        ran = colony.run("why", "web")
        [found] = json.loads(colony.run("why", "web", "--json").stdout)
    path = str(colony.config / "web")
    assert found["problem"] == {
        "file": path,
        "key": "log.keep",
        "value": -3,
        "why": "expected a number from 0 to 100000, found -3",
    }
    assert f"  problem      {path}: log.keep: expected a number from 0 to 100000, found -3\n" in ran.stdout
    assert ran.stdout.endswith(f"What to do:\n  - correct {path}: it is applied by itself then\n")
    assert ran.returncode == 3


def test_a_problem_that_the_file_does_not_show_is_told_as_reported(colony: Colony) -> None:
    """What only the supervisor can know of a file is told in its words."""
    (colony.config / "web").write_text('{"args": ["a"]}')
    colony.report("web", problem="cannot use web: anybody may write it")
    with colony.supervised():
        [found] = ctllib.why(colony.places, "web", state=colony.state)
    assert (found["problem"]["key"], found["problem"]["why"]) == ("", "cannot use web: anybody may write it")


def test_what_waits_tells_for_what(colony: Colony) -> None:
    """What a start or a stop waits for has its line each."""
    colony.report("web", state="WAITING", pid=None, waiting_for=["db"])
    colony.report(
        "old", state="STOPPING", wanted="down", reason="stopped on request", holding=["pid 1 (a)", "pid 2 (b)"]
    )
    with colony.supervised():
        waiting, old = colony.run("why", "web").stdout, colony.run("why", "old").stdout
    assert "  waiting for  db\n" in waiting
    assert "  wanted       down (stopped on request)\n" in old
    assert "  waiting for  pid 1 (a)\n               pid 2 (b)\n" in old


def test_copies_are_summed_up_and_explained_one_by_one(colony: Colony) -> None:
    """The file's name explains all its copies: how many are well first, then each."""
    colony.report("web:0")
    colony.report("web:1", state="STOPPED", wanted="down", pid=None, reason="stopped on request")
    colony.report("web:2", state="BACKOFF", pid=None, reason="exit code 1")
    with colony.supervised():
        ran = colony.run("why", "web")
        assert colony.run("why", "web:0", "web:1").returncode == 0
    assert ran.returncode == 3
    parts = ran.stdout.split("\n\n")
    assert parts[0] == "2 of 3 are as wanted\nweb:2: BACKOFF: exit code 1"
    assert [part.split(":")[1] for part in parts[1:]] == ["0", "1", "2"]


def test_without_a_supervisor_it_is_said_how_to_start_one(colony: Colony) -> None:
    """Nothing is as wanted without a supervisor; the first advice is the command that starts it."""
    colony.report("web")
    ran = colony.run("why", "web")
    assert ran.returncode == 3
    assert "  supervisor   no supervisor is running for these directories\n" in ran.stdout
    assert ran.stdout.endswith(
        "What to do:\n  - start the supervisor: python -m twisted ncolony"
        f" --messages {colony.messages} --config {colony.config} --state {colony.state}\n"
    )


def test_whoever_is_not_known_is_said_not_to_be(colony: Colony) -> None:
    """4 for a name that there is not, beside the explanations of the others; without any it is wrong usage."""
    colony.report("web")
    with colony.supervised():
        ran = colony.run("why", "nosuch", "web")
    assert (ran.returncode, ran.stderr) == (4, "cannot explain 'nosuch': no such process\n")
    assert ran.stdout.startswith("web: RUNNING")
    assert main([*colony.options, "why"]) == 2
    with pytest.raises(ctllib.NotThere, match="cannot explain 'nosuch': there is no such process"):
        ctllib.why(colony.places, "nosuch", state=colony.state)


def test_the_advice_uses_the_directories_of_the_environment(colony: Colony) -> None:
    """Where the environment names the directories, the commands advised leave them out."""
    colony.report("web", state="STOPPED", wanted="down", pid=None)
    env = {"NCOLONY_CTL_MESSAGES": str(colony.messages), "NCOLONY_CTL_CONFIG": str(colony.config)}
    with colony.supervised():
        short = colony.run("why", "web", env=env).stdout
        full = colony.run("why", "web").stdout
    assert short.endswith(f"have it run: ncolony ctl --state {colony.state} start web\n")
    assert f"ncolony ctl --messages {colony.messages} --config {colony.config} --state " in full


def test_the_commands_advised_exist() -> None:
    """Every verb in an advice is one of the command line."""
    advised = re.findall(r"\{case\.ctl\} ([a-z-]+)", Path(advice.__file__).read_text(encoding="utf-8"))
    [verbs] = [action for action in build()._actions if isinstance(action, argparse._SubParsersAction)]
    assert advised
    assert set(advised) - set(verbs.choices) <= {"logs"}  # which another module of the command line brings


def test_odd_records_are_explained_all_the_same(colony: Colony) -> None:
    """A record that cannot be read, or from another version, costs no traceback."""
    (colony.state / "status" / "torn").write_text("{")
    colony.report("odd", state="DANCING", last_exit={"code": {}}, memory="much")
    with colony.supervised():
        ran = colony.run("why", "*")
    assert (ran.returncode, ran.stderr) == (3, "")
    assert "torn: UNKNOWN" in ran.stdout
