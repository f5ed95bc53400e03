"""Every claim of the seed text, by its own sentence.

Each docstring quotes what is proven. Commands are typed as the text has them, with /messages and /conf replaced by
directories of the test; where the text's seconds are long, shorter ones are given to the same option.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from colony import MARK, SLEEP, Colony, arguments_of, environment_of, is_alive
from ncolony import ctllib
from ncolony.system import places as system_places

MKDIR = "mkdir /messages /conf"

ADD_WEB = r"""
python -m ncolony ctl --messages /messages --config /conf add \
            --name=web \
            --cmd=python --arg=-m --arg=twisted --arg=web
"""

ADD_ECHO = r"""
python -m ncolony ctl --messages /messages --config /conf add \
            --name=echo \
            --cmd=python --arg=-m --arg=twisted --arg=ncolony-scheduler \
            --arg=--arg=echo --arg=--arg=hello \
            --arg=--frequency=10 --arg=--timeout=5 --arg=--grace=10
"""

SUPERVISE = "python -m twisted ncolony --messages /messages --config /conf"

RESTART_ECHO = r"""
python -m ncolony ctl --messages /messages --config /conf restart \
            --name=echo
"""

RESTART_ALL = "python -m ncolony ctl --messages /messages --config /conf restart-all"


class Typist:
    """Somebody in an activated virtualenv who types the seed's commands."""

    def __init__(self, colony: Colony, port: int) -> None:
        self.colony = colony
        self.port = port
        bin_directory = str(Path(sys.executable).parent)
        self.environment = {**os.environ, "PATH": f"{bin_directory}:{os.environ['PATH']}", MARK: colony.mark}

    def text(self, command: str) -> str:
        """The command with this test's directories; with another port only where 8080 is taken on this machine."""
        if self.port != 8080:
            command = command.replace("--arg=web\n", f"--arg=web --arg=--listen=tcp:{self.port}\n")
        command = command.replace(" /messages", f" {self.colony.messages}").replace(" /conf", f" {self.colony.config}")
        return command.strip()

    def type(self, command: str) -> str:
        """Run a command to its end; it must succeed."""
        done = subprocess.run(
            ["sh", "-c", self.text(command)],
            cwd=self.colony.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout

    def supervise(self, *options: str) -> None:
        """Type the supervisor's command; the log goes to a file by the options of `python -m twisted`."""
        log = f"--log-format=text --log-file={self.colony.log_file}"
        command = self.text(SUPERVISE).replace("-m twisted ", f"-m twisted {log} ")
        self.colony.start(command=["sh", "-c", f"exec {command} {' '.join(options)}"], env=self.environment)

    def press_ctrl_c(self) -> int:
        """What a terminal does: SIGINT to the foreground process group. The exit code."""
        assert self.colony.process
        os.killpg(self.colony.process.pid, signal.SIGINT)
        return self.colony.wait_for_exit()

    def page(self) -> str:
        """What the web server answers, empty while there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5) as answer:
                found = answer.read()
                assert isinstance(found, bytes)
                return found.decode()
        except OSError:
            return ""


def a_free_port() -> int:
    """8080, the demo server's, or any other when somebody has it."""
    for port in (8080, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            number = probe.getsockname()[1]
            assert isinstance(number, int)
            return number
    raise AssertionError("no port is free")


@pytest.fixture
def typist(new_colony: Callable[[str], Colony]) -> Iterator[Typist]:
    """A typist whose directories are not made yet. As in the text, no state directory is named."""
    colony = new_colony("typed")
    state = Path(system_places.state_directory(str(colony.config), str(colony.messages)))
    colony.state, colony.logs = state, state / "logs"
    colony.config.rmdir()
    colony.messages.rmdir()
    yield Typist(colony, a_free_port())
    colony.close()
    shutil.rmtree(state, ignore_errors=True)


# The example


@pytest.mark.timeout(180)
def test_the_example(typist: Typist) -> None:
    """We want to run the demo Twisted web server and, periodically, echo hello. The following commands will do that."""
    colony = typist.colony
    for command in (MKDIR, ADD_WEB, ADD_ECHO):
        typist.type(command)
    typist.supervise()
    colony.wait_for(typist.page, "the web server answers", 60)
    assert "twisted" in typist.page().lower()
    colony.wait_for(lambda: any("hello" in line for line in colony.lines("echo")), "hello is logged", 60)
    assert typist.press_ctrl_c() == 0
    assert typist.page() == ""
    assert colony.processes() == {}


@pytest.mark.timeout(180)
def test_starting_again_starts_the_same_programs(typist: Typist) -> None:
    """If we now shut down (via CTRL-C) the monitor, and start it again, it will start the same programs again."""
    colony = typist.colony
    for command in (MKDIR, ADD_WEB, ADD_ECHO):
        typist.type(command)
    before = None
    for _ in range(2):
        typist.supervise()
        pids = [colony.wait_until_running(name) for name in ("web", "echo")]
        now = [arguments_of(pid) for pid in pids]
        assert before in (None, now)
        before = now
        assert colony.known() == {"web", "echo"}
        assert typist.press_ctrl_c() == 0
        assert not any(is_alive(pid) for pid in pids)


ORDERS = {
    "as in the text": (MKDIR, ADD_WEB, ADD_ECHO, SUPERVISE),
    "supervisor before the programs": (MKDIR, SUPERVISE, ADD_ECHO, ADD_WEB),
    "supervisor first, directories made by it": (SUPERVISE, ADD_WEB, ADD_ECHO),
    "in the middle": (MKDIR, ADD_ECHO, SUPERVISE, ADD_WEB),
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("order", ORDERS)
def test_order_does_not_matter(typist: Typist, order: str) -> None:
    """It is important to note that it does not matter what order we run these in."""
    for command in ORDERS[order]:
        if command is SUPERVISE:
            typist.supervise()
        else:
            typist.type(command)
    for name in ("web", "echo"):
        typist.colony.wait_until_running(name)
    assert typist.colony.known() == {"web", "echo"}


@pytest.mark.timeout(180)
def test_restart_by_name(typist: Typist) -> None:
    """If we need to restart the process, we can run `ctl restart --name=echo`. We can also restart everything."""
    colony = typist.colony
    for command in (MKDIR, ADD_WEB, ADD_ECHO):
        typist.type(command)
    typist.supervise()
    web, echo = (colony.wait_until_running(name) for name in ("web", "echo"))
    typist.type(RESTART_ECHO)
    assert colony.wait_until_running("echo", instance=2) != echo
    assert colony.wait_until_running("web", instance=1) == web
    typist.type(RESTART_ALL)
    assert colony.wait_until_running("echo", instance=3)
    assert colony.wait_until_running("web", instance=2) != web


# Ways to change the configuration


def test_what_add_writes(colony: Colony) -> None:
    """The /conf directory holds the configuration -- which processes need to be run."""
    colony.ctl("add", "--name=web", "--cmd=python", "--arg=-m", "--arg=twisted", "--arg=web")
    assert json.loads((colony.config / "web").read_bytes())["args"] == ["python", "-m", "twisted", "web"]


def test_three_ways_to_add(colony: Colony) -> None:
    """There are three ways to change ncolony configuration. Note that all three ways are equivalent."""
    args = ["100000"]
    colony.ctl("add", "--name=typed", f"--cmd={SLEEP}", "--arg=100000", "--env=A=b")
    places = ctllib.Places(config=str(colony.config), messages=str(colony.messages))
    ctllib.add(places, "called", SLEEP, args, env=["A=b"])
    (colony.config / "written").write_text(json.dumps({"args": [SLEEP, *args], "env": {"A": "b"}}))
    contents = [json.loads((colony.config / name).read_bytes()) for name in ("typed", "called", "written")]
    assert contents[0] == contents[1] == contents[2]
    colony.start()
    for name in ("typed", "called", "written"):
        pid = colony.wait_until_running(name)
        assert arguments_of(pid) == [SLEEP, "100000"]
        assert environment_of(pid)["A"] == "b"


def test_three_ways_to_restart_and_remove(colony: Colony) -> None:
    """Command-line, API, direct JSON-format file manipulation in /conf or /messages: all three ways are equivalent."""
    names = ("typed", "called", "written")
    for name in names:
        colony.put(name, {"args": [SLEEP, "100000"]})
    places = ctllib.Places(config=str(colony.config), messages=str(colony.messages))
    colony.start()
    pids = [colony.wait_until_running(name) for name in names]
    colony.ctl("restart", "--name=typed")
    ctllib.restart(places, "called")
    (colony.messages / "anything").write_text(json.dumps({"type": "RESTART", "name": "written"}))
    assert not set(pids) & {colony.wait_until_running(name, instance=2) for name in names}
    ways: list[Callable[[], object]] = [
        lambda: colony.ctl("restart-all"),
        lambda: ctllib.restartAll(places),
        lambda: (colony.messages / "anything").write_text(json.dumps({"type": "RESTART-ALL"})),
    ]
    for count, way in enumerate(ways, start=3):
        way()
        for name in names:
            colony.wait_until_running(name, instance=count)
    colony.ctl("remove", "--name=typed")
    ctllib.remove(places, "called")
    (colony.config / "written").unlink()
    for name in names:
        colony.wait_until_forgotten(name)


def test_add_of_the_same_name(colony: Colony) -> None:
    """`add` of the same name is an update -- if ncolony is already running, it will cause a restart of the process."""
    colony.start()
    colony.ctl("add", "--name=web", f"--cmd={SLEEP}", "--arg=100000")
    first = colony.wait_until_running("web", instance=1)
    colony.ctl("add", "--name=web", f"--cmd={SLEEP}", "--arg=200000")
    assert arguments_of(colony.wait_until_running("web", instance=2)) == [SLEEP, "200000"]
    assert not is_alive(first)


def test_two_managers_do_not_clash(new_colony: Callable[[str], Colony]) -> None:
    """This allows multiple ncolony managers to run without clashing: control is based on the directories."""
    one, two = new_colony("one"), new_colony("two")
    for colony in (one, two):
        colony.put("web", {"args": [SLEEP, "100000"]})
        colony.start()
    first, second = (colony.wait_until_running("web") for colony in (one, two))
    one.ctl("restart", "web")
    assert one.wait_until_running("web", instance=2) != first
    assert two.wait_until_running("web", instance=1) == second
    one.ctl("remove", "web")
    one.wait_until_forgotten("web")
    assert one.stop() == 0
    assert is_alive(second)
    assert two.wait_until_running("web", instance=1) == second


def test_managers_share_one_of_their_directories(new_colony: Callable[[str], Colony]) -> None:
    """Control is based on the directories where the files are kept: the default state belongs to the pair of them."""
    one, two = new_colony("one"), new_colony("two")
    pairs = [(one.config, one.messages), (one.config, two.messages), (two.config, two.messages)]
    states = {system_places.state_directory(str(config), str(messages)) for config, messages in pairs}
    assert len(states) == 3


def test_any_language(colony: Colony) -> None:
    """NColony can be used to run any process, in any language."""
    script = colony.root / "script"
    script.write_text('#!/bin/sh\necho "from a script: $1"\nexec sleep 100000\n')
    script.chmod(0o755)
    colony.put("script", {"args": [str(script), "x"]})
    colony.put("binary", {"args": [SLEEP, "100000"]})
    colony.put("python", {"args": colony.payload("python", "say", "from python")})
    colony.start()
    colony.wait_until_running("binary")
    colony.wait_for(lambda: colony.lines("script") == ["from a script: x"], "the script ran")
    colony.wait_for(lambda: colony.lines("python") == ["from python"], "the program ran")


# The scheduler


def test_the_scheduler_echoes_periodically(colony: Colony) -> None:
    """`ncolony-scheduler` will manage the short-lived process, and ncolony just has to monitor the service."""
    arguments = ["-m", "twisted", "ncolony-scheduler", "--arg=echo", "--arg=hello"]
    times = ["--frequency=0.3", "--timeout=5", "--grace=10"]
    colony.put("echo", {"args": [sys.executable, *arguments, *times]})
    colony.start()

    def hellos() -> int:
        return sum("hello" in line for line in colony.lines("echo"))

    colony.wait_for(lambda: hellos() >= 3, "hello is logged three times")
    assert colony.wait_until_running("echo", instance=1)


def test_the_schedulers_patience(colony: Colony) -> None:
    """Give it 5 seconds before terminating it, and 10 seconds before killing it unignorably. (Here: 0.3 and 0.4.)"""
    job = colony.payload("job", "signals")
    arguments = [sys.executable, "-m", "twisted", "ncolony-scheduler", *(f"--arg={part}" for part in job)]
    colony.put("job", {"args": [*arguments, "--frequency=300", "--timeout=0.3", "--grace=0.4"]})
    colony.start()
    colony.wait_for_notes("job")
    (pid,) = colony.pids("job")
    (line,) = colony.wait_for_notes("job", beginning="got TERM")
    colony.wait_until_dead(pid)
    assert time.monotonic() - float(line.split()[2]) >= 0.35
    assert colony.wait_until_running("job", instance=1)


# Messages


def test_a_request_waits_until_it_is_handled(colony: Colony) -> None:
    """A request to restart a process will be there until it is handled."""
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.ctl("restart", "web")
    (message,) = colony.messages.iterdir()
    assert json.loads(message.read_bytes()) == {"type": "RESTART", "name": "web"}
    colony.start()
    colony.wait_for(lambda: not list(colony.messages.iterdir()), "the message is handled and gone")
    colony.wait_until_running("web")


# `python -m twisted ncolony` options


def test_the_options_are_listed_with_their_defaults() -> None:
    """A full set of command-line options can be found via --help; defaults are 10, 1, 5, 1 and 3600 seconds."""
    done = subprocess.run(
        [sys.executable, "-m", "twisted", "ncolony", "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    for short, option, default in (
        ("", "frequency", "10"),
        ("-t, ", "threshold", "1"),
        ("-k, ", "killtime", "5"),
        ("-m, ", "minrestartdelay", "1"),
        ("-M, ", "maxrestartdelay", "3600"),
    ):
        said = re.search(rf"{short}--{option}=(.*?)(?= --|$)", text)
        assert said, option
        assert f"[default: {default}]" in said[1]
    for option in ("--config=", "--messages=", "--pid="):
        assert option in text


def test_both_plugins_are_listed() -> None:
    """`python -m twisted --help` knows the ncolony supervisor and the service ncolony-scheduler."""
    done = subprocess.run([sys.executable, "-m", "twisted", "--help"], capture_output=True, text=True, timeout=60)
    assert {"ncolony", "ncolony-scheduler"} <= set(done.stdout.split())


def test_frequency(colony: Colony) -> None:
    """--frequency SECONDS: frequency of checking for updates. (Of what nothing else tells, here.)"""
    target = colony.root / "target"
    target.write_bytes(b"{")
    (colony.config / "web").symlink_to(target)
    colony.start("--frequency", "0.2")
    colony.wait_for_problem("web")
    target.write_text(json.dumps({"args": [SLEEP, "100000"], "env": {MARK: colony.mark}}))
    colony.wait_until_running("web", timeout=9)


def test_pid_directory(colony: Colony) -> None:
    """--pid DIR: directory of PID files. If not given, no PID files will be written."""
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.start("--pid", str(colony.root / "pids"))
    pid = colony.wait_until_running("web")
    place = colony.root / "pids" / "web"
    colony.wait_for(place.exists, "the pid file is there")
    assert place.read_text() == f"{pid}\n"


def test_recovery_from_a_crash_of_the_manager(colony: Colony) -> None:
    """PID files are not necessary, unless we want something to be able to recover from a crash of the manager itself.

    They still hold the pids of what runs on after such a crash.
    """
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.start("--pid", str(colony.root / "pids"))
    pid = colony.wait_until_running("web")
    place = colony.root / "pids" / "web"
    colony.wait_for(place.exists, "the pid file is there")
    colony.kill()
    assert int(place.read_text()) == pid
    assert is_alive(pid)


@pytest.mark.parametrize("option", ["-t", "--threshold"])
def test_threshold(colony: Colony, option: str) -> None:
    """How long a process has to live before the death is considered instant, in seconds."""
    instant = {"args": colony.payload("web", "leave", 0, 0.1)}
    colony.put("web", instant)
    colony.start(option, "0.01", "-m", "300", "-M", "300")
    colony.wait_for_notes("web", 4, timeout=20)  # each lived longer than the threshold: started again at once
    assert colony.stop() == 0
    colony.start(option, "100", "-m", "300", "-M", "300")
    status = colony.wait_for_status("web", state="BACKOFF")
    assert status["next_try"] - status["last_exit"]["at"] >= 299


@pytest.mark.parametrize("option", ["-k", "--killtime"])
def test_killtime(colony: Colony, option: str) -> None:
    """How long a process being killed has to get its affairs in order before an unmaskable signal."""
    colony.put("web", {"args": colony.payload("web", "signals")})
    colony.start(option, "0.6")
    colony.wait_for_notes("web")
    (pid,) = colony.pids("web")
    colony.ctl("remove", "web")
    (line,) = colony.wait_for_notes("web", beginning="got TERM")
    colony.wait_until_dead(pid, timeout=20)
    assert time.monotonic() - float(line.split()[2]) >= 0.55


@pytest.mark.parametrize(("least", "most"), [("-m", "-M"), ("--minrestartdelay", "--maxrestartdelay")])
def test_restart_delays(colony: Colony, least: str, most: str) -> None:
    """The minimum time (in seconds) to wait before attempting to restart a process; the maximum time likewise."""
    colony.put("web", {"args": colony.payload("web", "leave", 1)})
    colony.start("-t", "100", least, "0.2", most, "0.5")
    moments = [float(line.split()[2]) for line in colony.wait_for_notes("web", 5)]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert gaps[0] >= 0.19
    assert gaps[1] >= 0.38  # doubled
    assert min(gaps[2:4]) >= 0.48  # not doubled again: the next would be 0.8
    status = colony.wait_for_status("web", state="BACKOFF")
    # The rest is the time between the exit and the decision about it.
    assert status["next_try"] - status["since"] <= 0.5 + 0.05


# `ctl` options


def test_places_come_before_the_subcommand(colony: Colony) -> None:
    """The following must be given before the subcommand: --messages DIR, --config DIR."""
    for given in ([], ["--messages", str(colony.messages)], ["--config", str(colony.config)]):
        done = subprocess.run(
            [sys.executable, "-m", "ncolony", "ctl", *given, "restart-all"],
            capture_output=True,
            text=True,
            env={key: value for key, value in os.environ.items() if not key.startswith("NCOLONY_")},
            timeout=60,
        )
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        missing = {"--messages", "--config"} - {given[0] if given else ""}
        assert any(option in done.stderr for option in missing)
    assert list(colony.messages.iterdir()) == []


def refused(colony: Colony, *arguments: str) -> str:
    """What `ctl` says on its standard error when it refuses; that it does, without a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "ncolony", "ctl", *colony.ctl_places(), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
    return done.stderr


def test_restart_all_takes_no_arguments(colony: Colony) -> None:
    """restart-all: takes no arguments."""
    colony.ctl("restart-all")
    (message,) = colony.messages.iterdir()
    assert json.loads(message.read_bytes()) == {"type": "RESTART-ALL"}
    message.unlink()
    refused(colony, "restart-all", "web")
    assert list(colony.messages.iterdir()) == []


def test_restart_and_remove_take_one_name(colony: Colony) -> None:
    """restart, remove: only one positional argument -- name of program."""
    for name in ("web", "echo"):
        colony.put(name, {"args": [SLEEP, "100000"]})
    for verb in ("restart", "remove"):
        refused(colony, verb)
        refused(colony, verb, "web", "echo")
    assert list(colony.messages.iterdir()) == []
    assert sorted(os.listdir(colony.config)) == ["echo", "web"]
    colony.ctl("restart", "web")
    (message,) = colony.messages.iterdir()
    assert json.loads(message.read_bytes()) == {"type": "RESTART", "name": "web"}
    colony.ctl("remove", "web")
    assert os.listdir(colony.config) == ["echo"]


def test_add_options(colony: Colony) -> None:
    """--cmd, --arg, --env NAME=VALUE, --uid, --gid and --extras of `add` become the keys of the file."""
    extras = json.dumps({"mycorp.owner": "alice", "ncolony.beatcheck": {"period": 5}})
    options = ["--cmd=prog", "--arg=-x", "--arg", "two words", "--env=A=b=c", "--env", "D="]
    colony.ctl("add", "--name=web", *options, "--uid=1000", "--gid=1001", "--extras", extras)
    assert json.loads((colony.config / "web").read_bytes()) == {
        "args": ["prog", "-x", "two words"],
        "env": {"A": "b=c", "D": ""},
        "uid": 1000,
        "gid": 1001,
        "mycorp.owner": "alice",
        "ncolony.beatcheck": {"period": 5},
    }


def test_env(colony: Colony) -> None:
    """--env NAME=VALUE: add an environment variable."""
    colony.start()
    colony.ctl("add", "--name=web", f"--cmd={SLEEP}", "--arg=100000", "--env=GREETING=hello world", "--env=X=y=z")
    environment = environment_of(colony.wait_until_running("web"))
    assert (environment["GREETING"], environment["X"]) == ("hello world", "y=z")


@pytest.mark.skipif(os.getuid() != 0, reason="only useful if ncolony monitor is running as root")
def test_uid_and_gid(open_colony: Colony) -> None:
    """--uid UID, --gid GID: run as given user and group id (only useful if ncolony monitor is running as root)."""
    open_colony.start()
    open_colony.ctl("add", "--name=web", f"--cmd={SLEEP}", "--arg=100000", "--uid=65534", "--gid=1")
    pid = open_colony.wait_until_running("web")
    status = Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"^Uid:\t65534\t65534\t65534\t65534$", status, re.MULTILINE)
    assert re.search(r"^Gid:\t1\t1\t1\t1$", status, re.MULTILINE)


def test_extras(colony: Colony) -> None:
    """Extras are not used by the monitor itself, but are available to the running program (as NCOLONY_CONFIG)."""
    colony.start()
    extras = {"owner": "alice", "limits-of-mine": [1, 2.5, None, {"deep": True}]}
    colony.ctl("add", "--name=web", f"--cmd={SLEEP}", "--arg=100000", f"--extras={json.dumps(extras)}")
    pid = colony.wait_until_running("web")
    seen = json.loads(environment_of(pid)["NCOLONY_CONFIG"])
    assert seen == {"args": [SLEEP, "100000"], **extras}
    # "… and to other programs which scan the configuration directory."
    assert json.loads((colony.config / "web").read_bytes()) == seen


# Logging


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_logging(colony: Colony, log_format: str) -> None:
    """The log is configured by `python -m twisted`. Additionally ncolony will log processes' stdout/err."""
    script = "echo to stdout; echo to stderr >&2; exec sleep 100000"
    colony.put("web", {"args": ["/bin/sh", "-c", script]})
    colony.start(log_format=log_format)
    colony.wait_for(lambda: "to stdout" in colony.log() and "to stderr" in colony.log(), "both are logged")


def test_logging_to_the_terminal(colony: Colony) -> None:
    """Without --log-file the log, and so what processes print, goes to standard output."""
    colony.put("web", {"args": colony.payload("web", "say", "hello")})
    command = [part for part in colony.command() if not part.startswith("--log-file")]
    colony.start(command=command)
    output = colony.root / "output"
    colony.wait_for(lambda: "[web] hello\n" in output.read_text(), "it is on standard output")
