"""`python -m ncolony ctl`, as a shell runs it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ctl_colony import Colony, wait_for

from ncolony.cli import main, show
from ncolony.ctllib import Status


def refused(ran: subprocess.CompletedProcess[str], *parts: str) -> None:
    """It failed with one line on stderr that holds all the parts."""
    assert ran.returncode == 1, ran
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    for part in parts:
        assert part in line


def test_the_seeds_add_commands(colony: Colony) -> None:
    """`add --name=… --cmd=… --arg=…` defines the two processes of the documentation, dashes and all."""
    ran = colony.run("add", "--name=web", "--cmd=python", "--arg=-m", "--arg=twisted", "--arg=web")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "web: changed\n", "")
    assert colony.definition("web") == {"args": ["python", "-m", "twisted", "web"]}
    words = "--cmd=python --arg=-m --arg=twisted --arg=ncolony-scheduler --arg=--arg=echo --arg=--arg=hello".split()
    assert colony.run("add", "--name=echo", *words, "--arg=--frequency=10").returncode == 0
    assert colony.definition("echo")["args"][3:] == [
        "ncolony-scheduler",
        "--arg=echo",
        "--arg=hello",
        "--frequency=10",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["web", "--cmd", "ls", "--arg", "a"],
        ["--cmd", "ls", "web", "--arg", "a"],
        ["--cmd", "ls", "--arg", "a", "web"],
        ["--name", "web", "--cmd", "ls", "--arg", "a"],
        ["--name=web", "web", "--cmd=ls", "--arg=a"],
        ["web", "--", "ls", "a"],
        ["--name=web", "--", "ls", "a"],
    ],
)
def test_the_name_and_the_command_may_stand_anywhere(colony: Colony, words: list[str]) -> None:
    """Positional or --name=, before or behind the options, with --cmd or behind --: all define the same."""
    assert main([*colony.options, "add", *words]) == 0
    assert colony.definition("web") == {"args": ["ls", "a"]}


def test_a_command_behind_dashes_is_taken_literally(colony: Colony) -> None:
    """Behind the first -- nothing is an option of ours, not even another --."""
    assert main([*colony.options, "add", "x", "--env", "A=1", "--", "prog", "--name=y", "--", "-h"]) == 0
    assert colony.definition("x") == {"args": ["prog", "--name=y", "--", "-h"], "env": {"A": "1"}}


def test_add_takes_all_its_options(colony: Colony, tmp_path: Path) -> None:
    """Each option becomes its key; --extras is JSON text or the path of a file with it."""
    extras = tmp_path / "extras.json"
    extras.write_text('{"corp.from": "a file"}')
    words = "--env A=1 --env B=x=y --env-inherit PATH --env-inherit LC_* --uid root --gid 0 --group a --group b".split()
    words += ["--cwd", "/", "--umask", "027", "--disabled"]
    assert main([*colony.options, "add", "x", "--cmd", "ls", *words, "--extras", str(extras)]) == 0
    assert colony.definition("x") == {
        "args": ["ls"],
        "env": {"A": "1", "B": "x=y"},
        "env_inherit": ["PATH", "LC_*"],
        "uid": "root",
        "gid": 0,
        "group": ["a", "b"],
        "cwd": "/",
        "umask": "027",
        "enabled": False,
        "corp.from": "a file",
    }
    assert main([*colony.options, "add", "x", "--cmd", "ls", "--extras", ' {"restart": "never"}']) == 0
    assert colony.definition("x") == {"args": ["ls"], "restart": "never"}


def test_unchanged_is_said(colony: Colony) -> None:
    """add, enable and disable say whether they changed anything, remove that it did."""
    said = [
        colony.run(*words).stdout
        for words in (
            ["add", "x", "--cmd=a"],
            ["add", "x", "--cmd=a"],
            ["enable", "x"],
            ["disable", "x"],
            ["disable", "x"],
            ["remove", "x"],
        )
    ]
    assert [line.strip().removeprefix("x: ") for line in said] == [
        "changed",
        "unchanged",
        "unchanged",
        "changed",
        "unchanged",
        "changed",
    ]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["add", "../x", "--cmd=a"], ["cannot add '../x': ", "'/'"]),
        (["add", "--name=", "--cmd=a"], ["cannot add '': ", "empty"]),
        (["add", "a\nb", "--cmd=a"], ["cannot add 'a\\nb': ", "control character"]),
        (["add", "x.new", "--cmd=a"], ["cannot add 'x.new': ", ".new"]),
        (["add", b"\xff", "--cmd=a"], ["UTF-8"]),
        (["add", "x", b"--cmd=\xff"], ["cannot add 'x': ", "UTF-8"]),
        (["add", "x", "--cmd="], ["cannot add 'x': cmd: is empty"]),
        (["add", "x", "--cmd=a", "--env", "FOO"], ["NAME=VALUE", "'FOO'"]),
        (["add", "x", "--cmd=a", "--uid", "no_such_user"], ["no user 'no_such_user'"]),
        (["add", "x", "--cmd=a", "--gid", "no_such_group"], ["no group 'no_such_group'"]),
        (["add", "x", "--cmd=a", "--uid", "-1"], ["uid: expected a number"]),
        (["add", "x", "--cmd=a", "--umask", "9"], ["umask"]),
        (["add", "x", "--cmd=a", "--extras", "nowhere.json"], ["--extras 'nowhere.json'", "No such file"]),
        (["add", "x", "--cmd=a", "--extras", "[1]"], ["neither a JSON object nor a file"]),
        (["add", "x", "--cmd=a", "--extras", "/dev/null"], ["--extras '/dev/null'", "not JSON"]),
        (["add", "x", "--cmd=a", "--extras", "{"], ["--extras '{'", "not JSON"]),
        (["add", "x", "--cmd=a", "--extras", '{"restart": "maybe"}'], ["cannot add 'x': restart: "]),
        (["remove", "nosuch"], ["cannot remove 'nosuch': there is no such process"]),
        (["enable", "nosuch"], ["cannot enable 'nosuch'"]),
        (["disable", "--name=nosuch"], ["cannot disable 'nosuch'"]),
        (["restart", "../x"], ["cannot restart '../x'"]),
        (["restart-group", ""], ["empty"]),
        (["stop", "x~"], ["cannot stop 'x~'"]),
        (["signal", "../x", "HUP"], ["cannot signal '../x'"]),
        (["signal", "x", "NOSUCH"], ["cannot signal 'x': there is no signal 'NOSUCH'"]),
        (["signal", "x", "0"], ["cannot signal 'x': there is no signal 0"]),
        (["signal", "x", "9" * 5000], ["cannot signal 'x': there is no signal '999"]),
        (["signal", "x", "--", "-9"], ["cannot signal 'x': there is no signal '-9'"]),
        (["history", "nosuch"], ["cannot show the history of 'nosuch': there is no such process"]),
        (["history", "../x"], ["cannot show the history of '../x'"]),
    ],
)
def test_mistakes_are_one_clear_line(colony: Colony, words: list[Any], parts: list[str]) -> None:
    """A bad name or value is told in one line on stderr, the status is not 0, and nothing is written."""
    refused(colony.run(*words), *parts)
    assert os.listdir(colony.config) == os.listdir(colony.messages) == []


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "VERB"),
        (["nosuchverb"], "nosuchverb"),
        (["add"], "NAME"),
        (["add", "x"], "--cmd"),
        (["add", "x", "--"], "--cmd"),
        (["add", "x", "--cmd=a", "--", "b"], "not both"),
        (["add", "x", "--arg=a", "--", "b"], "not both"),
        (["add", "x", "--name=y", "--cmd=a"], "'x', 'y'"),
        (["add", "x", "echo", "--cmd=a"], "behind --"),
        (["add", "x", "--cmd=a", "--nosuchoption"], "--nosuchoption"),
        (["restart"], "NAME"),
        (["restart", "a", "b"], "exactly one NAME"),
        (["restart", "a", "--name=b"], "exactly one NAME"),
        (["remove", "a", "b"], "exactly one NAME"),
        (["restart-group"], "GROUP"),
        (["restart-group", "a", "--group=b"], "exactly one GROUP"),
        (["restart-all", "x"], "unrecognized"),
        (["start"], "NAME"),
        (["signal"], "NAME SIGNAL"),
        (["signal", "x"], "NAME SIGNAL"),
        (["signal", "--name=x"], "NAME SIGNAL"),
        (["signal", "x", "HUP", "y"], "one NAME and one SIGNAL"),
        (["signal", "x", "HUP", "--name=y"], "'x', 'y'"),
        (["signal", "x", "-HUP"], "-HUP"),
        (["signal", "x", "HUP", "--scope=group"], "--scope"),
        (["history"], "NAME"),
        (["history", "x", "y"], "exactly one NAME"),
        (["history", "x", "-n", "few"], "'few'"),
        (["history", "x", "-n", "-1"], "-n"),
        (["shutdown", "x"], "unrecognized"),
        (["upgrade", "x"], "unrecognized"),
        (["restart", "x", "--wait=soon"], "seconds"),
        (["restart", "x", "--wait=-1"], "seconds"),
        (["restart", "x", "--wait=nan"], "seconds"),
    ],
)
def test_wrong_usage_is_told(colony: Colony, words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be parsed shows the usage and the mistake, with status 2, and nothing is written."""
    assert main([*colony.options, *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: ncolony ctl ")
    assert part in said.err
    assert os.listdir(colony.config) == os.listdir(colony.messages) == []


def test_the_directories_may_come_from_the_environment(colony: Colony) -> None:
    """NCOLONY_CTL_MESSAGES and NCOLONY_CTL_CONFIG stand in for the options; the missing one is named."""
    argv = [sys.executable, "-m", "ncolony", "restart-all"]
    both = {"NCOLONY_CTL_MESSAGES": str(colony.messages), "NCOLONY_CTL_CONFIG": str(colony.config)}
    ran = colony.run_bare(argv, env=both)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert colony.only_message() == {"type": "RESTART-ALL"}
    for missing in both:
        ran = colony.run_bare(argv, env={**both, missing: ""})
        assert ran.returncode == 2
        assert missing in ran.stderr
    assert colony.run_bare([sys.executable, "-m", "ncolony"]).returncode == 2


def test_a_place_that_cannot_be_written_is_told(colony: Colony) -> None:
    """A missing directory, or a file in its place, is one clear line."""
    options = ["--messages", str(colony.root / "nowhere"), "--config", str(colony.root / "nowhere")]
    argv = [sys.executable, "-m", "ncolony", *options]
    refused(colony.run_bare([*argv, "add", "x", "--cmd=a"]), "there is no directory", "nowhere")
    refused(colony.run_bare([*argv, "restart-all"]), "cannot restart all: there is no directory")
    (colony.root / "nowhere").write_text("a file")
    refused(colony.run_bare([*argv, "add", "x", "--cmd=a"]), "cannot add 'x': ")


@pytest.mark.skipif(os.getuid() != 0, reason="needs to become another user")
def test_a_directory_of_somebody_else_is_told(tmp_path: Path) -> None:
    """Without the right to write, add and remove are refused in one line and leave no file behind."""
    # Another user may have no right to read this interpreter's files: it becomes one after its imports.
    program = "import os, sys; from ncolony import cli; from ncolony.cli import parser, change\n"
    program += "parser.build().parse_args(sys.argv[1:]); os.setgid(65534); os.setuid(65534)\n"
    program += "sys.exit(cli.main(sys.argv[1:]))"
    with tempfile.TemporaryDirectory() as root:  # pytest's own directories are closed to others
        os.chmod(root, 0o755)
        colony = Colony(Path(root))
        assert colony.run("add", "x", "--cmd=a").returncode == 0
        argv = [sys.executable, "-c", program, *colony.options]
        refused(colony.run_bare([*argv, "add", "y", "--cmd=a"]), "cannot add 'y': ", "Permission denied")
        refused(colony.run_bare([*argv, "remove", "x"]), "cannot remove 'x': ", "Permission denied")
        assert os.listdir(colony.config) == ["x"]


def test_messages_are_sent_for_names_in_any_form(colony: Colony) -> None:
    """Names may be positional or --name=; start and stop take several, and say nothing when they only ask."""
    ran = colony.run("stop", "a", "b", "--name=c", "a")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    sent = [json.loads(path.read_bytes()) for path in sorted(colony.messages.iterdir())]
    assert sent == [{"type": "STOP", "name": name} for name in "abc"]
    for path in colony.messages.iterdir():
        path.unlink()
    for words in (["restart", "--name=x"], ["restart", "x"], ["restart", "--", "x"], ["restart-group", "--group", "g"]):
        assert main([*colony.options, *words]) == 0
    sent = [json.loads(path.read_bytes()) for path in sorted(colony.messages.iterdir())]
    assert sent == [{"type": "RESTART", "name": "x"}] * 3 + [{"type": "RESTART-GROUP", "group": "g"}]


def test_a_signal_and_its_scope_are_sent(colony: Colony) -> None:
    """The signal is a name or a number, NAME stands before it or is given as --name=; the scope is the process."""
    for words in (
        ["x", "HUP"],
        ["--name=x", "SIGHUP"],
        ["x", "1", "--scope", "tree"],
        ["--scope=tree", "x", "--", "1"],
    ):
        assert main([*colony.options, "signal", *words]) == 0
    sent = [json.loads(path.read_bytes()) for path in sorted(colony.messages.iterdir())]
    assert [(one["type"], one["name"], one["signal"], one["scope"]) for one in sent] == [
        ("SIGNAL", "x", "HUP", "process"),
        ("SIGNAL", "x", "SIGHUP", "process"),
        ("SIGNAL", "x", 1, "tree"),
        ("SIGNAL", "x", 1, "tree"),
    ]


@pytest.mark.parametrize(
    ("words", "names", "said"),
    [(["signal", "x", "HUP", "--wait"], ["x"], "x: signalled\n"), (["upgrade", "--wait", "60"], [], "")],
)
def test_wait_tells_that_it_was_done(colony: Colony, words: list[str], names: list[str], said: str) -> None:
    """signal and upgrade wait for their answer like the others; without --wait they are silent."""
    with colony.answering(names=names):
        ran = colony.run(*words)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, said, "")
    next(colony.messages.iterdir()).unlink()
    with colony.answering(state="failed", why="it will not start"):
        ran = colony.run(*words)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.endswith(": it will not start\n")


def test_one_bad_name_does_not_keep_the_others(colony: Colony) -> None:
    """Of several names those that can be are switched, the other is told, and the status is 1."""
    for name in "ab":
        assert main([*colony.options, "add", name, "--cmd=x"]) == 0
    ran = colony.run("disable", "a", "nosuch", "b")
    assert (ran.returncode, ran.stdout) == (1, "a: changed\nb: changed\n")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words", [["restart", "--wait", "x"], ["restart", "x", "--wait", "60"], ["restart", "x", "--wait"]]
)
def test_wait_tells_that_a_message_was_handled(colony: Colony, words: list[str]) -> None:
    """--wait, with or without seconds, returns when the answer says done."""
    with colony.answering(names=["x"]):
        ran = colony.run(*words)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "x: restarted\n", "")


def test_wait_tells_why_a_message_failed(colony: Colony) -> None:
    """An answer that says failed is an error with the supervisor's reason."""
    with colony.answering(accepted=False, state="failed", why="there is no process 'x'"):
        refused(colony.run("start", "x", "--wait"), "cannot start 'x': there is no process 'x'")


def test_wait_gives_up(colony: Colony) -> None:
    """Without an answer it is an error after the seconds given, and tells that nobody is there."""
    refused(colony.run("restart-all", "--wait", "0.01"), "cannot restart all: ", "within 0.01 s", "no supervisor is")
    refused(colony.run("restart", "x", "--wait=0"), "cannot restart 'x': no supervisor answered")


def test_wait_for_a_definition_lasts_until_it_runs(colony: Colony) -> None:
    """add --wait returns once the status shows the new definition running, remove --wait once it is gone."""

    def apply() -> None:
        wait_for((colony.config / "x").exists)
        colony.report("x", digest=colony.digest("x"))

    with colony.meanwhile(apply):
        ran = colony.run("add", "x", "--cmd=a", "--wait")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "x: changed\n", "")
    colony.report("x", digest=colony.digest("x"), state="BACKOFF", reason="exit code 3")
    ran = colony.run("add", "x", "--cmd=a", "--wait=0")
    assert (ran.returncode, ran.stdout) == (1, "x: unchanged\n")
    assert "it is BACKOFF: exit code 3" in ran.stderr

    def forget() -> None:
        wait_for(lambda: not (colony.config / "x").exists())
        (colony.state / "status" / "x").unlink()

    with colony.meanwhile(forget):
        ran = colony.run("remove", "x", "--wait")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "x: changed\n", "")


def test_an_interrupted_wait_is_quiet(colony: Colony) -> None:
    """CTRL-C while waiting ends with status 130 and no traceback."""
    with subprocess.Popen(
        colony.command("restart", "x", "--wait"), env=colony.environment(), stdout=-1, stderr=-1, text=True
    ) as running:
        # The message is sent after all imports, and what follows is the wait.
        wait_for(lambda: any(name[-4:] != ".new" for name in os.listdir(colony.messages)))
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=60)
    assert (running.returncode, *said) == (130, "", "")


def test_status_is_a_table_with_stable_columns(colony: Colony) -> None:
    """One line per process: name, state, pid and uptime, restarts, last exit, note; 0 when all are running."""
    ended = {"code": None, "signal": "KILL", "at": 1.0, "lived": 0.2, "text": "signal KILL"}
    colony.report("web", restarts=1, last_exit=ended)
    colony.report("echo", pid=7, started=1.0)
    with colony.supervised():
        ran = colony.run("status")
    assert (ran.returncode, ran.stderr) == (0, "")
    echo, web = ran.stdout.splitlines()
    assert echo.startswith("echo                             RUNNING   pid 7, uptime ")
    assert " days, " in echo
    assert web.startswith("web                              RUNNING   pid 4321, uptime 0:0")
    assert web[web.index("1 restart") :].split() == ["1", "restart", "signal", "KILL", "-"]
    assert echo.index("0 restarts") == web.index("1 restart")


def test_status_tells_what_is_not_running(colony: Colony) -> None:
    """Anything that is not RUNNING makes 3, and its line says why; problems of the colony follow on stderr."""
    colony.report("a")
    colony.report("b", state="BACKOFF", pid=None, reason="exit code 3 after 0.2 s", next_try=1.0, warnings=["envs?"])
    colony.report("c", state="STOPPED", pid=None, enabled=False, wanted="down", problem="cannot use c: args: no")
    with colony.supervised(problems=["config is gone"]):
        ran = colony.run("status")
        only_a = colony.run("status", "a")
    assert ran.returncode == 3
    assert ran.stderr == "problem: config is gone\n"
    lines = ran.stdout.splitlines()
    assert lines[1].endswith("exit code 3 after 0.2 s; next try in 0 s; warning: envs?")
    assert lines[2].endswith("disabled; problem: cannot use c: args: no")
    assert (only_a.returncode, len(only_a.stdout.splitlines())) == (0, 1)


def test_status_without_a_supervisor_shows_what_is_known(colony: Colony) -> None:
    """With nobody holding the lock the table still stands, stderr says so, and the status is 3."""
    colony.report("a")
    assert main([*colony.options, "add", "b", "--cmd=x"]) == 0
    ran = colony.run("status")
    assert ran.returncode == 3
    assert ran.stderr == "no supervisor is running for these directories\n"
    assert ran.stdout.splitlines()[0].split()[:2] == ["a", "RUNNING"]
    assert ran.stdout.splitlines()[1].endswith("not seen by a supervisor yet")
    nothing = colony.run_bare([sys.executable, "-m", "ncolony", "--config=nowhere", "--messages=nowhere", "status"])
    assert (nothing.returncode, nothing.stdout) == (3, "")


def test_status_of_the_dead_shows_no_uptime(colony: Colony) -> None:
    """Where nobody keeps the records, a pid that is not there is said to be gone; with a supervisor its word counts."""
    child = subprocess.Popen(["true"])
    child.wait()
    colony.report("dead", pid=child.pid, started=1.0)
    colony.report("alive", pid=os.getpid(), started=1.0)
    alive, dead = colony.run("status").stdout.splitlines()
    assert f" pid {os.getpid()}, uptime " in alive
    assert f" pid {child.pid}, gone " in dead
    with colony.supervised():
        assert f" pid {child.pid}, uptime " in colony.run("status", "dead").stdout


def test_status_tells_what_a_stop_waits_for(colony: Colony) -> None:
    """The note names what holds up a stop, three at most; --long names all."""
    colony.report("one", state="STOPPING", holding=["pid 123 (sleep)"])
    colony.report(
        "many", state="STOPPING", started=None, reason="restart", holding=[f"pid {pid} (sh)" for pid in range(1, 6)]
    )
    with colony.supervised():
        many, one = colony.run("status").stdout.splitlines()
        long = colony.run("status", "many", "--long").stdout.splitlines()
    assert one.endswith(" waiting for pid 123 (sleep)")
    assert many.endswith(" restart; waiting for pid 1 (sh), pid 2 (sh), pid 3 (sh) and 2 more")
    assert long[0] == many
    assert long[1:] == [f"    waiting for pid {pid} (sh)" for pid in range(1, 6)]


def test_long_status_tells_of_the_last_exit(colony: Colony) -> None:
    """Below each row: how the last instance ended, when, what it cost, and its last lines."""
    ended = {"code": None, "signal": "SEGV", "at": 1.0, "lived": 0.25, "text": "signal SEGV"}
    colony.report("a", last_exit={**ended, "core": True, "cpu": 0.125, "rss_kb": 2048})
    colony.ended("a", 1)
    colony.ended("a", 2, **ended, core=True, oom=True, cpu=12.34, rss_kb=3 << 20, lines=["one\x1b[2J", "two"])
    colony.report("b", last_exit=ended)  # of an earlier version, without a history
    colony.report("d", last_exit={**ended, "core": True, "text": "killed by SEGV (core dumped)"})
    colony.report("c")
    with colony.supervised():
        ran = colony.run("status", "-l", env={"TZ": "UTC"})
    assert (ran.returncode, ran.stderr) == (0, "")
    costly = "    last exit: signal SEGV (core dumped) (out of memory), 1970-01-01 00:00:01, lived 0.25 s, CPU 12.3 s"
    assert [line for line in ran.stdout.splitlines() if line.startswith(" ")] == [
        f"{costly}, peak RSS 3 GiB",
        "    | one\\x1b[2J",
        "    | two",
        "    last exit: signal SEGV, 1970-01-01 00:00:01, lived 0.25 s",
        "    last exit: killed by SEGV (core dumped), 1970-01-01 00:00:01, lived 0.25 s",
    ]


def test_history_is_a_table(colony: Colony) -> None:
    """One line per instance, the newest last: number, end, life, exit, CPU time, peak memory and why it was stopped."""
    colony.ended("web", 9, at=0.0, lived=0.0123, code=3, text="exit code 3", cpu=None, rss_kb=None)
    colony.ended("web", 10, at=86400.0, lived=4000.0, text="signal TERM", reason="restart", oom=True, lines=["bye\x07"])
    ran = colony.run("history", "web", env={"TZ": "UTC"})
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "9   1970-01-01 00:00:00  0.012 s  exit code 3                  -       -",
        "10  1970-01-02 00:00:00  1:06:40  signal TERM (out of memory)  0.25 s  8.8 MiB  restart",
    ]
    ran = colony.run("history", "--name=web", "-n", "1", "--lines", env={"TZ": "UTC"})
    assert ran.stdout.splitlines() == [
        "10  1970-01-02 00:00:00  1:06:40  signal TERM (out of memory)  0.25 s  8.8 MiB  restart",
        "    | bye\\x07",
    ]
    assert colony.run("history", "web", "-n0").stdout == ""


def test_history_json_is_the_list_of_records(colony: Colony) -> None:
    """--json is a plain list with every key that the supervisor wrote; what is torn is left out."""
    for instance in (1, 2, 3):
        colony.ended("web", instance, lines=["é"], from_the_future=instance)
    with (colony.state / "history" / "web").open("ab") as file:
        file.write(b'{"id": "4')
    ran = colony.run("history", "web", "--json", "-n", "2")
    found = json.loads(ran.stdout)
    assert [(one["instance"], one["from_the_future"], one["lines"]) for one in found] == [(2, 2, ["é"]), (3, 3, ["é"])]


def test_history_of_what_has_not_ended_is_empty(colony: Colony) -> None:
    """A process whose first instance runs has no history, which is no error."""
    colony.report("web")
    ran = colony.run("history", "web")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "no instance of 'web' has ended yet\n")
    assert colony.run("history", "web", "--json").stdout == "[]\n"


def test_odd_figures_are_shown_all_the_same(colony: Colony) -> None:
    """Times and sizes out of this world cost no traceback."""
    colony.ended("web", 1, at=9e11, lived=1e300, cpu=-1, rss_kb=0)
    colony.ended("web", -1, at=-9e11, lived=-5, started="noon", code="x", pid=[], text="\x1b")
    colony.report("web", last_exit={"at": 1e400, "lived": None, "text": None, "code": {}})
    for words in (["history", "web", "--lines"], ["status", "--long"]):
        ran = colony.run(*words)
        assert "Traceback" not in ran.stderr
        assert "\x1b" not in ran.stdout
        assert ran.returncode == (3 if words[0] == "status" else 0)


def test_status_chooses_by_name_and_glob(colony: Colony) -> None:
    """Names, globs and the name that replicas share choose lines; one that means nothing makes 4."""
    for name in ("web", "web-2", "many:0", "many:1", "odd[1]"):
        colony.report(name)
    with colony.supervised():

        def shown(*patterns: str) -> tuple[int, list[str]]:
            ran = colony.run("status", "--json", *patterns)
            return ran.returncode, [one["name"] for one in json.loads(ran.stdout)]

        assert shown("web") == (0, ["web"])
        assert shown("web*", "many") == (0, ["many:0", "many:1", "web", "web-2"])
        assert shown("odd[1]") == (0, ["odd[1]"])
        assert shown("nosuch", "web") == (4, ["web"])
        assert shown("x*") == (4, [])
        assert colony.run("status", "nosuch").stderr == "cannot show 'nosuch': no such process\n"


def test_status_json_is_the_list_of_records(colony: Colony) -> None:
    """--json is a plain list with every key that the supervisor wrote."""
    colony.report("web", generation="g")
    with colony.supervised():
        ran = colony.run("status", "--json")
    assert json.loads(ran.stdout) == [json.loads((colony.state / "status" / "web").read_bytes())]


def test_nothing_from_a_file_can_mess_up_the_terminal(colony: Colony) -> None:
    """Control characters in names, reasons and problems are shown escaped."""
    (colony.config / "a\x1b[2J").write_text("{}")
    colony.report("b", reason="line\nline\x1b]0;x\x07", problem="\u202etxt", state="FATAL")
    with colony.supervised(problems=["\x1b[31m"]):
        ran = colony.run("status")
        listed = colony.run("status", "--json")
    assert len(ran.stdout.splitlines()) == 2
    assert "a\\x1b[2J" in ran.stdout
    assert ran.stderr == "problem: \\x1b[31m\n"
    for text in (ran.stdout, ran.stderr, listed.stdout):
        assert not any(character in text for character in "\x1b\x07\u202e")


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_is_for_terminals_that_want_it(colony: Colony, env: dict[str, str], coloured: bool) -> None:
    """On a terminal there is a header, and colour unless NO_COLOR or a dumb terminal says no."""
    colony.report("web")
    ours, theirs = pty.openpty()
    try:
        full = colony.environment(**{"TERM": "xterm", "NO_COLOR": "", **env})
        subprocess.run(colony.command("status"), stdout=theirs, stderr=subprocess.PIPE, env=full, check=False)
        os.close(theirs)
        said = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
    assert "PID/UPTIME" in said
    assert ("\x1b[32mRUNNING" in said) is coloured
    assert ("\x1b" in said) is coloured


def test_a_reader_that_left_is_no_error(colony: Colony) -> None:
    """When nobody reads stdout any more the work is done all the same, without a word."""
    for words in (["add", "x", "--cmd=a"], ["status"], ["--help"]):
        reading, writing = os.pipe()
        os.close(reading)
        ran = subprocess.run(
            colony.command(*words), stdout=writing, stderr=subprocess.PIPE, env=colony.environment(), check=False
        )
        os.close(writing)
        assert ran.returncode == (3 if words == ["status"] else 0)
        assert ran.stderr in (b"", b"no supervisor is running for these directories\n")
    assert colony.definition("x") == {"args": ["a"]}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told(colony: Colony) -> None:
    """Output that cannot be written is one line on stderr and status 1."""
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            colony.command("--help"), stdout=full, stderr=subprocess.PIPE, env=colony.environment(), check=False
        )
    assert (ran.returncode, ran.stderr) == (1, b"cannot write to stdout: No space left on device\n")


def test_a_poor_locale_shows_what_it_can(colony: Colony) -> None:
    """A name that the locale cannot write is shown escaped rather than refused."""
    ran = colony.run("add", "é", "--cmd=a", env={"PYTHONIOENCODING": "ascii"})
    assert (ran.returncode, ran.stdout) == (0, "\\xe9: changed\n")


def test_help_is_on_stdout(colony: Colony) -> None:
    """--help of the whole and of each verb is no error, and tells of every option."""
    whole = colony.run("--help")
    assert whole.returncode == 0
    verbs = (
        "add remove restart restart-group restart-all start stop enable disable signal status why events wait history"
    )
    for verb in [*verbs.split(), "scan", "upgrade", "shutdown"]:
        assert verb in whole.stdout
    one = colony.run("add", "--help")
    assert one.returncode == 0
    assert "--env-inherit" in one.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["add", "x", "--cmd=a"],
        ["restart", "x"],
        ["status"],
        ["status", "--long"],
        ["history", "x"],
        ["why", "x"],
        ["events"],
        ["wait", "x"],
        ["shutdown"],
        ["upgrade"],
    ],
)
def test_the_quick_commands_load_nothing_heavy(colony: Colony, words: list[str]) -> None:
    """Neither Twisted, msgspec nor other slow modules are loaded to write a file or to show the table."""
    colony.report("x")
    colony.ended("x", 1)
    program = (
        "import sys; from ncolony.cli import main; main(sys.argv[1:])\n"
        "heavy = 'twisted msgspec typing subprocess asyncio inspect dataclasses shutil pathlib logging'.split()\n"
        "sys.exit(' '.join(set(heavy) & set(sys.modules)) or None)"
    )
    argv = [sys.executable, "-S", "-c", program, *colony.options, *words]
    with colony.supervised():
        ran = colony.run_bare(argv)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0:00:00"), (4.9, "0:00:04"), (3725, "1:02:05"), (86400, "1 day, 0:00:00")]
)
def test_uptime_reads_as_supervisorctl_writes_it(seconds: float, text: str) -> None:
    """Hours, minutes and seconds, days in front, and never negative when the clock was set back."""
    row = show._row(Status("x", {"pid": 5, "started": 1e6}), 1e6 + seconds)
    assert row[2] == f"pid 5, uptime {text}"
