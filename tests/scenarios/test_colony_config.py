"""What each key of a config file does to the process that is run."""

from __future__ import annotations

import json
import os
import pwd
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from colony import MARK, SLEEP, Colony, arguments_of, descriptors, environment_of, fields_of, is_alive

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")


def test_arguments_arrive_as_written(colony: Colony) -> None:
    """Arguments reach the program unchanged: empty, spaces, quotes, new lines, UTF-8, 100 KB."""
    given = ["", "two words", 'it\'s "quoted" $HOME `x` *', "line\nbreak", "héllo ☃", "x" * 100_000, "-"]
    colony.put("web", {"args": colony.payload("web", "serve", *given)})
    colony.start()
    assert arguments_of(colony.wait_until_running("web"))[-len(given) :] == given


def test_child_environment_is_exactly_the_documented(colony: Colony) -> None:
    """A process gets `env`, the inherited names and globs that exist, the NCOLONY_ variables, and nothing else."""
    colony.put(
        "web",
        {
            "args": [SLEEP, "100000"],
            "env": {"GREETING": "héllo wörld", "BLANK": ""},
            "env_inherit": ["COLOUR", "SHAPE_*", "EMPTY", "NOT_THERE", "NOT_*_EITHER"],
            "mycorp.owner": "alice",
        },
    )
    inherited = {"COLOUR": "blue", "SHAPE_A": "round", "SHAPE_B": "flat", "EMPTY": ""}
    colony.start(env={**os.environ, **inherited, "SHAP": "not this one", "OTHER": "not this either"})
    environment = environment_of(colony.wait_until_running("web"))
    assert environment.pop("NCOLONY_INSTANCE")
    assert json.loads(environment.pop("NCOLONY_CONFIG")) == json.loads((colony.config / "web").read_bytes())
    own = {"GREETING": "héllo wörld", "BLANK": "", "NCOLONY_NAME": "web", MARK: colony.mark}
    assert environment == inherited | own


def test_everything_can_be_inherited(colony: Colony) -> None:
    """`"env_inherit": ["*"]` passes the supervisor's whole environment on; `env` stands above it."""
    colony.put("web", {"args": [SLEEP, "100000"], "env": {"COLOUR": "red"}, "env_inherit": ["*"]})
    colony.start(env={**os.environ, "COLOUR": "blue", "SHAPE": "round"})
    environment = environment_of(colony.wait_until_running("web"))
    assert environment["SHAPE"] == "round"
    assert environment["PATH"] == os.environ["PATH"]
    assert environment["COLOUR"] == "red"


def test_each_instance_has_its_own_mark(colony: Colony) -> None:
    """NCOLONY_INSTANCE differs from instance to instance and from process to process."""
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.put("echo", {"args": [SLEEP, "100000"]})
    colony.start()
    seen = [environment_of(colony.wait_until_running(name))["NCOLONY_INSTANCE"] for name in ("web", "echo")]
    assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
    seen.append(environment_of(colony.wait_until_running("web", instance=2))["NCOLONY_INSTANCE"])
    assert len(set(seen)) == 3


def test_a_large_config_comes_in_a_file(colony: Colony) -> None:
    """Where exec would refuse NCOLONY_CONFIG, over 128 KiB, NCOLONY_CONFIG_FILE names a readable copy instead."""
    written = colony.put("web", {"args": [SLEEP, "100000"], "mycorp.text": "y" * 300_000})
    colony.start()
    environment = environment_of(colony.wait_until_running("web"))
    assert "NCOLONY_CONFIG" not in environment
    assert json.loads(Path(environment["NCOLONY_CONFIG_FILE"]).read_bytes()) == written


def test_a_clean_start(colony: Colony) -> None:
    """A process starts in its own session with default signals, nothing blocked, and descriptors 0, 1 and 2 only."""
    colony.put("web", {"args": [SLEEP, "100000"]})
    # The supervisor inherits the worst: an ignored HUP and QUIT, a blocked ALRM, an open descriptor.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        colony.start(prefix=["sh", "-c", "trap '' HUP QUIT; exec \"$@\" 9</dev/null", "sh"])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    pid = colony.wait_until_running("web")
    fields = fields_of(pid)
    # 32 and 33 are the C library's own: glibc's posix_spawn leaves them ignored in every child, and sets them anew.
    internal = (1 << 31) | (1 << 32)
    assert {int(fields[key], 16) & ~internal for key in ("SigBlk", "SigIgn", "SigCgt", "SigPnd")} == {0}
    assert os.getsid(pid) == os.getpgid(pid) == pid
    opened = descriptors(pid)
    assert opened.keys() == {0, 1, 2}
    assert opened[0] == "/dev/null"
    assert Path(opened[1]).is_fifo()
    assert Path(opened[2]).is_fifo()


def test_standard_streams_can_be_reopened(colony: Colony) -> None:
    """A program may open /dev/stdout and /dev/stderr by name, as container images do for their logs."""
    script = "echo one >/dev/stdout; echo two >/dev/stderr; exec sleep 100000"
    colony.put("web", {"args": ["/bin/sh", "-c", script]})
    colony.start()
    colony.wait_for(lambda: colony.lines("web") == ["one", "two"], "both lines are logged")


def test_the_program_is_looked_up(colony: Colony) -> None:
    """A bare name is found in the child's PATH, then the supervisor's, and run by its absolute path, unresolved."""
    places = {}
    for name in ("first", "second"):
        places[name] = colony.root / name
        places[name].mkdir()
    (places["first"] / "napper").symlink_to(SLEEP)
    (places["second"] / "napper").symlink_to(SLEEP)
    (places["second"] / "dozer").symlink_to(SLEEP)
    colony.put("own", {"args": ["napper", "100000"], "env": {"PATH": str(places["first"])}})
    colony.put("ours", {"args": ["napper", "100000"]})
    colony.put("fallback", {"args": ["dozer", "100000"], "env": {"PATH": str(places["first"])}})
    colony.start(env={**os.environ, "PATH": f"{places['second']}:{os.environ['PATH']}"})
    found = {name: arguments_of(colony.wait_until_running(name))[0] for name in ("own", "ours", "fallback")}
    assert found == {
        "own": str(places["first"] / "napper"),
        "ours": str(places["second"] / "napper"),
        "fallback": str(places["second"] / "dozer"),
    }


def test_a_virtualenv_python_finds_its_packages(colony: Colony) -> None:
    """`python` found on the supervisor's PATH is the virtualenv's, although the child has no PATH."""
    colony.put("web", {"args": ["python", "-c", "import sys; print(sys.prefix)"], "restart": "never"})
    bin_directory = str(Path(sys.executable).parent)
    colony.start(env={**os.environ, "PATH": f"{bin_directory}:{os.environ['PATH']}"})
    colony.wait_for(lambda: colony.lines("web"), "the prefix is printed")
    assert colony.lines("web") == [sys.prefix]


def test_cwd(colony: Colony) -> None:
    """`cwd` is where the process starts; without it, where the supervisor was started."""
    elsewhere = colony.root / "else where"
    elsewhere.mkdir()
    colony.put("there", {"args": [SLEEP, "100000"], "cwd": str(elsewhere)})
    colony.put("here", {"args": [SLEEP, "100000"]})
    colony.start()
    found = [os.readlink(f"/proc/{colony.wait_until_running(name)}/cwd") for name in ("there", "here")]
    assert found == [str(elsewhere), str(colony.root)]


def test_umask(colony: Colony) -> None:
    """`umask` is text in octal or a number; without it a process has the supervisor's."""
    colony.put("text", {"args": [SLEEP, "100000"], "umask": "027"})
    colony.put("number", {"args": [SLEEP, "100000"], "umask": 0o077})
    colony.put("default", {"args": [SLEEP, "100000"]})
    before = os.umask(0o013)
    try:
        colony.start()
    finally:
        os.umask(before)
    found = [fields_of(colony.wait_until_running(name))["Umask"] for name in ("text", "number", "default")]
    assert found == ["0027", "0077", "0013"]


@needs_root
@pytest.mark.parametrize("as_text", [False, True], ids=["number", "name"])
def test_uid_takes_everything_from_the_user(open_colony: Colony, as_text: bool) -> None:
    """With `uid` alone, number or name, a process has that user's own gid and groups, and no trace of root's."""
    nobody = pwd.getpwnam("nobody")
    open_colony.put("web", {"args": [SLEEP, "100000"], "uid": nobody.pw_name if as_text else nobody.pw_uid})
    open_colony.start()
    fields = fields_of(open_colony.wait_until_running("web"))
    assert fields["Uid"].split() == [str(nobody.pw_uid)] * 4
    assert fields["Gid"].split() == [str(nobody.pw_gid)] * 4
    own = {str(group) for group in os.getgrouplist(nobody.pw_name, nobody.pw_gid)}
    assert set(fields["Groups"].split()) <= own
    assert {int(fields[key], 16) for key in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}


@needs_root
def test_uid_without_an_account(open_colony: Colony) -> None:
    """A uid with no passwd entry, usual in containers, gets the same number as gid, and no groups."""
    open_colony.put("web", {"args": [SLEEP, "100000"], "uid": 54321})
    open_colony.start()
    fields = fields_of(open_colony.wait_until_running("web"))
    assert fields["Uid"].split() + fields["Gid"].split() == ["54321"] * 8
    assert fields["Groups"] == ""


@needs_root
@pytest.mark.parametrize("gid", [1, "daemon"])
def test_uid_and_gid(open_colony: Colony, gid: int | str) -> None:
    """`gid`, number or name, is taken instead of the user's own; root's groups are gone all the same."""
    open_colony.put("web", {"args": [SLEEP, "100000"], "uid": "nobody", "gid": gid})
    open_colony.start()
    fields = fields_of(open_colony.wait_until_running("web"))
    assert fields["Uid"].split() == [str(pwd.getpwnam("nobody").pw_uid)] * 4
    assert fields["Gid"].split() == ["1"] * 4
    assert "0" not in fields["Groups"].split()


@needs_root
def test_another_user_can_use_its_streams(open_colony: Colony) -> None:
    """A process of another user can print, and reopen /dev/stdout by name."""
    script = "echo one; echo two >/dev/stdout; exec sleep 100000"
    open_colony.put("web", {"args": ["/bin/sh", "-c", script], "uid": "nobody"})
    open_colony.start()
    open_colony.wait_for(lambda: open_colony.lines("web") == ["one", "two"], "both lines are logged")


@needs_root
def test_another_user_can_read_a_large_config(open_colony: Colony) -> None:
    """The file that NCOLONY_CONFIG_FILE names is readable by the process's user."""
    script = 'wc -c <"$NCOLONY_CONFIG_FILE"; exec sleep 100000'
    written = {"args": ["/bin/sh", "-c", script], "uid": "nobody", "mycorp.text": "y" * 300_000}
    open_colony.put("web", written)
    open_colony.start()
    size = (open_colony.config / "web").stat().st_size
    open_colony.wait_for(lambda: open_colony.lines("web"), "the size is printed")
    assert int(open_colony.lines("web")[0]) == size


def test_being_that_user_already_is_fine(colony: Colony) -> None:
    """`uid` and `gid` of the user that the supervisor runs as are no error."""
    colony.put("web", {"args": [SLEEP, "100000"], "uid": os.getuid(), "gid": os.getgid()})
    colony.start()
    assert fields_of(colony.wait_until_running("web"))["Uid"].split() == [str(os.getuid())] * 4


def test_what_cannot_be_executed_says_why(colony: Colony) -> None:
    """A program missing or not executable, an unknown user, a cwd that is gone: an instant death that says why."""
    (colony.root / "plain").write_text("#!/bin/sh\nexit 0\n")
    (colony.root / "bad-interpreter").write_text("#!/no/such/interpreter\n")
    (colony.root / "bad-interpreter").chmod(0o755)
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "missing": ({"args": ["no-such-program-anywhere", "x"]}, "no-such-program-anywhere"),
        "absent": ({"args": ["/no/such/program"]}, "/no/such/program"),
        "plain": ({"args": [str(colony.root / "plain")]}, "plain"),
        "directory": ({"args": [str(colony.root)]}, str(colony.root)),
        "interpreter": ({"args": [str(colony.root / "bad-interpreter")]}, "bad-interpreter"),
        "user": ({"args": [SLEEP, "100000"], "uid": "no-such-user"}, "no-such-user"),
        "group": ({"args": [SLEEP, "100000"], "gid": "no-such-group"}, "no-such-group"),
        "cwd": ({"args": [SLEEP, "100000"], "cwd": "/no/such/place"}, "/no/such/place"),
        "argument": ({"args": [SLEEP, "x" * 200_000]}, "too long"),
    }
    for name, (config, _) in cases.items():
        colony.put(name, config)
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.start("-m", "60", "-M", "60")
    colony.wait_until_running("web")
    for name, (_, cause) in cases.items():
        status = colony.wait_for_status(name, state="BACKOFF", pid=None)
        assert cause.lower() in status["reason"].lower(), status


def test_mending_the_cause_is_enough(colony: Colony) -> None:
    """A process whose program or cwd was missing runs once they are there, without a restart of ours."""
    program, place = colony.root / "program", colony.root / "place"
    colony.put("program", {"args": [str(program), "100000"]})
    colony.put("place", {"args": [SLEEP, "100000"], "cwd": str(place)})
    colony.start("-m", "0.2", "-M", "0.2")
    for name in ("program", "place"):
        colony.wait_for_status(name, state="BACKOFF")
    program.symlink_to(SLEEP)
    place.mkdir()
    for name in ("program", "place"):
        colony.wait_until_running(name)


def test_enabled(colony: Colony) -> None:
    """`"enabled": false` is kept and not run; turned on it runs, turned off it stops."""
    config = {"args": colony.payload("web", "serve")}
    colony.put("web", {**config, "enabled": False})
    colony.start()
    status = colony.wait_for_status("web", state="STOPPED", wanted="down")
    assert (status["enabled"], status["pid"], status["instance"]) == (False, None, 0)
    assert colony.notes("web") == []
    colony.put("web", {**config, "enabled": True})
    pid = colony.wait_until_running("web")
    colony.put("web", {**config, "enabled": False})
    colony.wait_for_status("web", state="STOPPED", wanted="down", pid=None)
    assert not is_alive(pid)


POLICIES: dict[str, tuple[dict[str, Any], int, bool]] = {
    # name: (config, exit code, is it started again?)
    "always-0": ({}, 0, True),
    "always-3": ({"restart": "always"}, 3, True),
    "on-failure-0": ({"restart": "on-failure"}, 0, False),
    "on-failure-3": ({"restart": "on-failure"}, 3, True),
    "on-failure-listed": ({"restart": "on-failure", "success_codes": [0, 3]}, 3, False),
    "on-failure-only-3": ({"restart": "on-failure", "success_codes": [3]}, 0, True),
    "never-0": ({"restart": "never"}, 0, False),
    "never-3": ({"restart": "never"}, 3, False),
}


def test_restart_policies(colony: Colony) -> None:
    """always, on-failure and never decide by exit code and success_codes whether a process is started again."""
    for name, (config, code, _) in POLICIES.items():
        colony.put(name, {"args": colony.payload(name, "leave", code), **config})
    colony.start("-m", "0.05", "-M", "0.05")
    for name, (_, code, again) in POLICIES.items():
        if again:
            colony.wait_for_notes(name, 3)
        else:
            colony.wait_for_status(name, state="EXITED", pid=None)
        status = colony.status(name)
        assert status and status["last_exit"]["code"] == code
        assert status["last_exit"]["signal"] is None
    for name, (_, _, again) in POLICIES.items():
        if not again:
            assert len(colony.notes(name)) == 1, name
            assert colony.wait_for_status(name, state="EXITED")["instance"] == 1


def test_death_by_signal_and_policy(colony: Colony) -> None:
    """Death by a signal is a failure for on-failure, and final for never; the status names the signal."""
    colony.put("on-failure", {"args": colony.payload("on-failure", "serve"), "restart": "on-failure"})
    colony.put("never", {"args": colony.payload("never", "serve"), "restart": "never"})
    colony.start("-m", "0.05", "-M", "0.05")
    for name in ("on-failure", "never"):
        colony.wait_for_notes(name)
        os.kill(colony.wait_until_running(name), signal.SIGKILL)
    colony.wait_until_running("on-failure", instance=2)
    status = colony.wait_for_status("never", state="EXITED", pid=None)
    assert (status["last_exit"]["code"], status["last_exit"]["signal"]) == (None, "KILL")
    assert len(colony.notes("never")) == 1


def test_stop_list(colony: Colony) -> None:
    """`stop` sends its signals in order, waits as long as it says after each, and KILL ends the list."""
    colony.put("web", {"args": colony.payload("web", "signals"), "stop": [["INT", 0.3], ["USR1", 0.2]]})
    colony.start("-k", "60")
    colony.wait_for_notes("web")
    pid = colony.wait_until_running("web")
    colony.remove("web")
    colony.wait_until_dead(pid, timeout=20)
    got = [line.split() for line in colony.notes("web", "got ")]
    # CONT may come along with any of them: a stopped process could not obey.
    assert [(word, name) for word, name, _ in got if name != "CONT"] == [("got", "INT"), ("got", "USR1")]
    moments = [float(moment) for _, name, moment in got if name != "CONT"]
    assert moments[1] - moments[0] >= 0.28


def test_stop_list_ends_early(colony: Colony) -> None:
    """A process that obeys the first signal of its `stop` list gets no other."""
    colony.put("web", {"args": colony.payload("web", "signals", "INT"), "stop": [["INT", 60], ["TERM", 60]]})
    colony.start()
    colony.wait_for_notes("web")
    assert colony.send({"type": "STOP", "name": "web"}, timeout=20)["state"] == "done"
    assert [line.split()[1] for line in colony.notes("web", "got ") if "CONT" not in line] == ["INT"]
    assert colony.wait_for_status("web", state="STOPPED")["last_exit"]["code"] == 0


def test_threshold_and_delays_per_process(colony: Colony) -> None:
    """threshold, min_restart_delay and max_restart_delay in a file override the supervisor's options."""
    own = {"threshold": 60, "min_restart_delay": 0.1, "max_restart_delay": 0.1}
    colony.put("eager", {"args": colony.payload("eager", "leave", 1), **own})
    colony.put("patient", {"args": colony.payload("patient", "leave", 1)})
    lived_long = {"threshold": 0, "min_restart_delay": 50, "max_restart_delay": 60}
    colony.put("long", {"args": colony.payload("long", "leave", 1, 0.05), **lived_long})
    colony.start("-t", "60", "-m", "60", "-M", "60")
    colony.wait_for_notes("eager", 4, timeout=20)
    colony.wait_for_notes("long", 4, timeout=20)
    assert colony.wait_for_status("patient", state="BACKOFF")["instance"] == 1


def test_kill_time_per_process(colony: Colony) -> None:
    """`kill_time` in a file overrides --killtime."""
    colony.put("web", {"args": colony.payload("web", "signals"), "kill_time": 0.3})
    colony.start("-k", "60")
    colony.wait_for_notes("web")
    pid = colony.wait_until_running("web")
    colony.remove("web")
    colony.wait_until_dead(pid, timeout=20)
    assert [line.split()[1] for line in colony.notes("web", "got ") if "CONT" not in line] == ["TERM"]


def test_unknown_keys_are_passed_through(colony: Colony) -> None:
    """Unknown and dotted keys do not hinder a process; one that is nearly a known key is warned of."""
    colony.put("web", {"args": [SLEEP, "100000"], "owner": "alice", "ncolony.httpcheck": {"url": "x"}, "envs": {}})
    colony.start()
    colony.wait_until_running("web")
    status = colony.status("web")
    assert status and status["problem"] is None
    assert any("envs" in warning for warning in status["warnings"])
    assert not any("owner" in warning or "httpcheck" in warning for warning in status["warnings"])


def test_status_says_what_is(colony: Colony) -> None:
    """The status of a running process holds its name, pid, groups and times as documented."""
    colony.put("web", {"args": [SLEEP, "100000"], "group": ["front", "all"]})
    colony.put("echo", {"args": [SLEEP, "100000"], "group": "back"})
    colony.start()
    status = colony.wait_for_status("web", state="RUNNING")
    assert status["name"] == "web"
    assert status["wanted"] == "up"
    assert status["instance"] == 1
    assert status["restarts"] == 0
    assert status["group"] == ["front", "all"]
    assert status["last_exit"] is None
    assert status["next_try"] is None
    assert status["started"] <= status["since"] + 1
    assert arguments_of(status["pid"]) == [SLEEP, "100000"]
    assert colony.wait_for_status("echo", state="RUNNING")["group"] == ["back"]
