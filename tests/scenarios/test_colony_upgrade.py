"""Upgrade in place: a new version of supervisor and keeper takes over, and nothing that runs notices."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import ncolony
from colony import MARK, Colony, arguments_of, descriptors, fields_of, is_alive, put_whole
from ncolony.keeper.wire import PROTOCOL, Unpacker, pack

SOURCE = Path(ncolony.__file__).resolve().parent.parent
# Two more letters of nothing: what is installed differs from what runs, in its size too.
COMMENT = "\n# \n"


class Release:
    """An installation of its own that a colony's supervisor runs from, and that can be replaced while it does."""

    def __init__(self, colony: Colony, name: str = "release") -> None:
        self.colony, self.number = colony, 0
        self.root = colony.root / name
        ignored = shutil.ignore_patterns("__pycache__", "dropin.cache")
        for package in ("ncolony", "twisted"):
            shutil.copytree(SOURCE / package, self.root / package, ignore=ignored)
        self.package = self.root / "ncolony"
        self.python = sys.executable
        self.environment = {**os.environ, "PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}

    def own_python(self) -> Path:
        """Run with an interpreter that may be taken away: the virtual environment's, by another name."""
        place = self.colony.root / "python"
        (place / "bin").mkdir(parents=True)
        (place / "lib").symlink_to(Path(sys.prefix) / "lib")
        if os.path.exists(f"{sys.prefix}/pyvenv.cfg"):
            shutil.copy(f"{sys.prefix}/pyvenv.cfg", place)
        python = place / "bin" / "python"
        python.symlink_to(sys.executable)
        self.python = str(python)
        return python

    def start(self, *options: str, **more: str) -> None:
        """Start the colony's supervisor from here."""
        command = [self.python, *self.colony.command(*options)[1:]]
        self.colony.start(command=command, env={**self.environment, **more})
        keeper = self.colony.wait_for(self.colony.keeper_pid, "there is a keeper")
        assert str(self.package / "keeper") in arguments_of(keeper)
        self.colony.scan()  # it knows what runs: before that it refuses to upgrade

    def edit(self, module: str, old: str, new: str) -> None:
        """Replace text in one of its modules."""
        path = self.package / module
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{module} has no {old!r}"
        put_whole(path.parent, path.name, text.replace(old, new).encode())

    def append(self, module: str, text: str) -> None:
        """Add text to the end of one of its modules."""
        path = self.package / module
        put_whole(path.parent, path.name, path.read_bytes() + text.encode())

    def bump(self) -> str:
        """Give it another version; which."""
        self.number += 1
        version = f"0.0.{self.number}"
        self.append("__init__.py", f'\n__version__ = "{version}"\n')
        return version

    def wait_for_version(self, version: str) -> None:
        """Wait until the supervisor says that it is this version, and knows what runs."""
        self.colony.wait_for(lambda: self.says(version), f"version {version} runs")
        self.colony.scan()

    def says(self, version: str) -> bool:
        info = self.colony.supervisor()
        return info is not None and info["version"] == version

    def upgrade(self) -> None:
        """Upgrade to what is here now, by a message."""
        version = self.bump()
        answer = self.colony.send({"type": "UPGRADE"})
        assert answer["state"] == "done", answer
        self.wait_for_version(version)

    def code(self) -> str:
        """What tells its keeper from another: see system/hands.py."""
        digest = hashlib.blake2b(sys.version.encode(), digest_size=8)
        for path in sorted((self.package / "keeper").glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()


class Gates:
    """Points of the code at which a process waits until it is let through: see keeper/kernel.py."""

    def __init__(self, colony: Colony) -> None:
        self.colony = colony
        self.root = colony.root / "gates"
        self.root.mkdir()

    def shut(self, point: str) -> None:
        os.mkfifo(self.root / point)

    def wait_for(self, point: str) -> None:
        """Wait until somebody stands before the gate."""
        self.colony.wait_for((self.root / f"{point}.reached").exists, f"{point} is reached")

    def open(self, point: str) -> None:
        """Let it through, at the cost of a process that has no other purpose."""
        with subprocess.Popen(["sleep", "100000"]) as nobody:
            (self.root / f"{point}.reached").write_text(f"{nobody.pid}\n")
            assert nobody.wait(30) == -signal.SIGKILL


def ticks(lines: list[str]) -> list[int]:
    return [int(line.removeprefix("tick ")) for line in lines if re.fullmatch(r"tick \d+", line)]


def history(colony: Colony, name: str) -> list[dict[str, Any]]:
    path = colony.state / "history" / name
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def pid_of(colony: Colony) -> int:
    assert colony.process
    return colony.process.pid


def is_one_clear_line(text: str) -> bool:
    return bool(text) and "\n" not in text and "Traceback" not in text and len(text) < 400


@pytest.mark.parametrize("way", ["signal", "message", "command"])
def test_the_new_version_takes_over_in_place(colony: Colony, way: str) -> None:
    """SIGUSR2, an UPGRADE message and `ctl upgrade --wait` each put the new version in the same pid, and no more."""
    release = Release(colony)
    colony.put("web", {"args": colony.payload("web", "signals")})
    release.start()
    colony.wait_for_notes("web")
    web, keeper = colony.wait_until_running("web"), colony.keeper_pid()
    version = release.bump()
    if way == "signal":
        os.kill(pid_of(colony), signal.SIGUSR2)
    elif way == "message":
        answer = colony.send({"type": "UPGRADE"})
        assert (answer["accepted"], answer["state"], answer["why"]) == (True, "done", "")
    else:
        command = [sys.executable, "-m", "ncolony", "ctl", *colony.ctl_places(), "--state", str(colony.state)]
        ran = subprocess.run([*command, "upgrade", "--wait"], capture_output=True, text=True, timeout=30)
        assert (ran.returncode, ran.stderr) == (0, "")
    release.wait_for_version(version)
    info = colony.supervisor()
    assert info and (info["pid"], info["keeper"], info["problems"]) == (pid_of(colony), keeper, [])
    assert colony.wait_until_running("web", instance=1) == web
    assert colony.keeper_pid() == keeper
    assert colony.notes("web") == [f"up {web}"]


def test_no_line_is_lost_or_doubled(colony: Colony) -> None:
    """Over five upgrades, two of the keeper too, every printed line is in logs/ and in the supervisor's log once."""
    release = Release(colony)
    colony.put("web", {"args": colony.payload("web", "tick", 0.002)})
    release.start()
    pid = colony.wait_until_running("web")
    for turn in range(5):
        if turn % 2:
            release.append("keeper/instance.py", COMMENT)
        seen = len(colony.notes("web", "tick"))
        release.upgrade()
        colony.wait_for_notes("web", seen + 10, beginning="tick ")
    assert colony.wait_until_running("web", instance=1) == pid
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    last = int(colony.wait_for_notes("web", beginning="last ")[0].split()[1])
    colony.wait_for(lambda: f"tick {last}" in colony.lines("web"), "the last line is logged")
    assert ticks(colony.lines("web")) == list(range(1, last + 1))
    assert ticks(colony.output("web").decode().splitlines()) == list(range(1, last + 1))
    assert len(colony.notes("web", "up")) == 1


def test_the_lock_is_never_free(colony: Colony) -> None:
    """Before and after the change of programs nobody gets the lock, and a second supervisor refuses to start."""
    release, gates = Release(colony), Gates(colony)
    release.start(NCOLONY_KILL_AT=str(gates.root))
    version = release.bump()
    points = ("upgrade.tried", "upgrade.execute", "supervisor.locked")
    for point in points:
        gates.shut(point)
    os.kill(pid_of(colony), signal.SIGUSR2)
    with (colony.state / "lock").open() as lock:
        for point in points:
            gates.wait_for(point)
            with pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if point == "supervisor.locked":
                second = subprocess.run(colony.command(), capture_output=True, text=True, timeout=30)
                assert second.returncode == 1
                assert f"ncolony (pid {pid_of(colony)}) already supervises" in second.stderr
            gates.open(point)
        release.wait_for_version(version)
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_open_requests_are_finished(colony: Colony) -> None:
    """A STOP and a RESTART that were accepted before an upgrade and take longer than it are done and answered."""
    release, over = Release(colony), colony.root / "over"
    script = (
        'trap "echo term >>$0; while [ ! -e $1 ]; do sleep 0.05; done; exit 3" TERM; '
        'echo "up $$" >>$0; while :; do sleep 0.05; done'
    )
    for name in ("stopped", "restarted"):
        args = ["/bin/sh", "-c", script, str(colony.notes_directory / name), str(over)]
        colony.put(name, {"args": args, "env": {"PATH": os.defpath}, "kill_time": 60, "stop_scope": "process"})
    release.start()
    for name in ("stopped", "restarted"):
        colony.wait_for_notes(name)
    messages = [
        colony.post({"type": "STOP", "name": "stopped"}),
        colony.post({"type": "RESTART", "name": "restarted"}),
    ]
    for name in ("stopped", "restarted"):
        colony.wait_for_notes(name, beginning="term")
    release.upgrade()
    answers = [colony.answer(message) for message in messages]
    assert [answer and answer["state"] for answer in answers] == ["accepted", "accepted"]
    over.touch()
    assert [colony.wait_for_answer(message)["state"] for message in messages] == ["done", "done"]
    colony.wait_for_status("stopped", state="STOPPED", instance=1, wanted="down")
    colony.wait_until_running("restarted", instance=2)
    assert [history(colony, name)[0]["code"] for name in ("stopped", "restarted")] == [3, 3]


def test_a_stop_is_not_begun_anew(colony: Colony) -> None:
    """A process that is being stopped does not get its first signal again because of an upgrade."""
    release = Release(colony)
    colony.put("web", {"args": colony.payload("web", "signals", "TERM"), "stop": [["INT", 4], ["TERM", 30]]})
    release.start()
    colony.wait_for_notes("web")
    message = colony.post({"type": "STOP", "name": "web"})
    colony.wait_for_notes("web", beginning="got INT")
    release.upgrade()
    assert colony.wait_for_answer(message)["state"] == "done"
    assert [line.split()[1] for line in colony.notes("web", "got") if "CONT" not in line] == ["INT", "TERM"]


@pytest.mark.parametrize(
    "moment", ["trial", "upgrade.tried", "upgrade.execute", "supervisor.locked", "supervisor.begun", "keeper"]
)
def test_a_stop_of_the_colony_during_an_upgrade(colony: Colony, moment: str) -> None:
    """SIGTERM at any moment of an upgrade stops everything: exit code 0, nothing is left."""
    release, gates = Release(colony), Gates(colony)
    colony.put("web", {"args": colony.payload("web", "serve")})
    release.start(NCOLONY_KILL_AT=str(gates.root))
    pid = colony.wait_until_running("web")
    release.bump()
    point = "upgrade.ordered" if moment == "keeper" else moment
    if moment == "keeper":
        release.append("keeper/instance.py", COMMENT)
    if moment != "trial":
        gates.shut(point)
    os.kill(pid_of(colony), signal.SIGUSR2)
    if moment == "trial":
        colony.wait_for(lambda: _trial(colony), "the installed version is tried out")
    else:
        gates.wait_for(point)
    os.kill(pid_of(colony), signal.SIGTERM)
    if moment != "trial":
        colony.wait_for(lambda: not _is_pending_unblocked(pid_of(colony)), "the signal has arrived")
        gates.open(point)
    assert colony.wait_for_exit(10) == 0
    assert not is_alive(pid)
    colony.wait_for(lambda: not colony.processes(), "nothing is left")


def _trial(colony: Colony) -> list[int]:
    """Children of the supervisor that are supervisors themselves."""
    children = Path(f"/proc/{pid_of(colony)}/task/{pid_of(colony)}/children").read_text().split()
    return [int(child) for child in children if "ncolony" in arguments_of(int(child))]


def _is_pending_unblocked(pid: int) -> bool:
    """Whether a TERM that is not blocked is still to be delivered."""
    fields, bit = fields_of(pid), 1 << (signal.SIGTERM - 1)
    if "ShdPnd" not in fields:
        return False
    return bool(int(fields["ShdPnd"], 16) & ~int(fields["SigBlk"], 16) & bit)


def test_what_instances_inherit_stays(colony: Colony) -> None:
    """After an upgrade an instance is started with the same limits, signal mask and environment as before."""
    release = Release(colony)
    colony.put("web", {"args": colony.payload("web", "serve"), "env_inherit": ["*"]})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = min(soft, hard) - 24
    resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard))
    try:
        release.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    colony.wait_for_notes("web")

    def seen(pid: int) -> dict[str, Any]:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        kept = sorted(entry for entry in environment if not entry.startswith(b"NCOLONY_INSTANCE="))
        return {
            "limits": resource.prlimit(pid, resource.RLIMIT_NOFILE),
            "signals": [fields_of(pid)[key] for key in ("SigBlk", "SigIgn")],
            "umask": fields_of(pid)["Umask"],
            "cwd": os.readlink(f"/proc/{pid}/cwd"),
            "environment": kept,
            "descriptors": own_descriptors(colony, pid),
        }

    before = seen(colony.wait_until_running("web"))
    assert before["limits"][0] == lower
    release.upgrade()
    assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
    colony.wait_for_notes("web", 2)
    assert seen(colony.wait_until_running("web", instance=2)) == before


def test_states_without_an_instance_stay(colony: Colony) -> None:
    """After an upgrade what was stopped is stopped, what has finished has, and a backoff goes on."""
    release = Release(colony)
    colony.put("stopped", {"args": colony.payload("stopped", "serve")})
    colony.put("finished", {"args": colony.payload("finished", "leave", 0), "restart": "never"})
    colony.put("failing", {"args": colony.payload("failing", "leave", 1), "min_restart_delay": 300})
    release.start()
    colony.wait_until_running("stopped")
    assert colony.send({"type": "STOP", "name": "stopped"})["state"] == "done"
    colony.wait_for_status("finished", state="EXITED")
    before = colony.wait_for_status("failing", state="BACKOFF")
    release.upgrade()
    colony.wait_for_status("stopped", state="STOPPED", wanted="down", instance=1)
    colony.wait_for_status("finished", state="EXITED", instance=1)
    after = colony.wait_for_status("failing", state="BACKOFF", instance=1)
    assert abs(after["next_try"] - before["next_try"]) < 1
    assert after["last_exit"] == before["last_exit"]


def test_an_exit_in_the_middle(colony: Colony) -> None:
    """An instance that ends while the programs change is recorded once, as it ended, and policy applies."""
    release, gates = Release(colony), Gates(colony)
    trigger = colony.root / "trigger"
    colony.put("web", {"args": colony.payload("web", "leave_when", 7, trigger), "restart": "never"})
    release.start(NCOLONY_KILL_AT=str(gates.root))
    pid = colony.wait_until_running("web")
    version = release.bump()
    gates.shut("upgrade.execute")
    os.kill(pid_of(colony), signal.SIGUSR2)
    gates.wait_for("upgrade.execute")
    trigger.touch()
    colony.wait_until_dead(pid)
    gates.open("upgrade.execute")
    release.wait_for_version(version)
    colony.wait_for_status("web", state="EXITED", instance=1)
    (record,) = history(colony, "web")
    assert (record["code"], record["pid"]) == (7, pid)


def test_the_keeper_is_replaced_in_place(colony: Colony) -> None:
    """A keeper of other code executes itself: same pid, the same children, and exits stay exact, adopted ones too."""
    release = Release(colony)
    triggers = {name: colony.root / name for name in ("born", "adopted")}
    for name, trigger in triggers.items():
        colony.put(name, {"args": colony.payload(name, "leave_when", 7, trigger), "restart": "never"})
    colony.put("family", {"args": colony.payload("family", "daemon")})
    colony.remove("born")
    release.start()
    old = {name: colony.wait_until_running(name) for name in ("adopted", "family")}
    colony.wait_for_notes("family")
    keeper = colony.keeper_pid()
    assert keeper
    os.kill(keeper, signal.SIGKILL)
    colony.wait_for(lambda: colony.keeper_pid() not in (None, keeper), "there is a new keeper")
    colony.put("born", {"args": colony.payload("born", "leave_when", 7, triggers["born"]), "restart": "never"})
    old["born"] = colony.wait_until_running("born")
    instance = (colony.status("born") or {})["instance"]  # a start ordered between two keepers is ordered again
    keeper = colony.keeper_pid()
    assert keeper
    before = Path(f"/proc/{keeper}/cmdline").read_bytes()
    release.append("keeper/instance.py", COMMENT)
    release.upgrade()
    colony.wait_for(lambda: Path(f"/proc/{keeper}/cmdline").read_bytes() != before, "the keeper has executed itself")
    colony.scan()
    info = colony.supervisor()
    assert info and info["problems"] == []
    assert colony.keeper_pid() == keeper
    for name, pid in old.items():
        assert colony.wait_until_running(name, instance=instance if name == "born" else 1) == pid
    assert int(fields_of(old["born"])["PPid"]) == keeper
    for name, trigger in triggers.items():
        trigger.touch()
        colony.wait_for_status(name, state="EXITED")
        (record,) = colony.wait_for(lambda name=name: history(colony, name), f"the end of {name} is recorded")  # type: ignore[misc]
        assert (record["code"], record["signal"], record["pid"]) == (7, None, old[name])
        if name == "born":
            assert record["cpu"] > 0
            assert record["rss_kb"] > 1000
    colony.put("new", {"args": colony.payload("new", "serve")})
    assert int(fields_of(colony.wait_until_running("new"))["PPid"]) == keeper
    colony.remove("family")
    colony.wait_until_forgotten("family")
    assert not is_alive(colony.pids("family", "child")[0])


@pytest.mark.parametrize("adopted", [False, True], ids=["born", "adopted"])
def test_leftovers_survive_no_new_keeper(colony: Colony, adopted: bool) -> None:
    """What a dead leader left behind is held by a keeper that executed itself, and ended before the next start."""
    release, trigger = Release(colony), colony.root / "trigger"
    script = (
        'setsid sh -c \'trap "" TERM; echo "child $$" >>$0; while :; do sleep 0.05; done\' "$0" & '
        'echo "up $$" >>$0; while [ ! -e "$1" ]; do sleep 0.02; done; exit 0'
    )
    args = ["/bin/sh", "-c", script, str(colony.notes_directory / "web"), str(trigger)]
    colony.put("web", {"args": args, "kill_time": 6, "env": {"PATH": os.defpath}})
    release.start()
    colony.wait_for_notes("web")
    colony.wait_for_notes("web", beginning="child ")
    keeper = colony.keeper_pid()
    assert keeper
    if adopted:
        os.kill(keeper, signal.SIGKILL)
        colony.wait_for(lambda: colony.keeper_pid() not in (None, keeper), "there is a new keeper")
        colony.scan()
    trigger.touch()
    (child,) = colony.pids("web", "child")
    colony.wait_for_status("web", state="STOPPING", instance=1)
    release.append("keeper/instance.py", COMMENT)
    release.upgrade()
    colony.scan()
    status = colony.status("web")
    if is_alive(child):
        assert status and (status["state"], status["instance"]) == ("STOPPING", 1)
    colony.wait_for_status("web", instance=2, timeout=20)
    assert not is_alive(child)


BREAKAGES = ["syntax", "dependency", "gone", "other program", "silent program"]


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_version_that_cannot_start_replaces_nobody(colony: Colony, breakage: str) -> None:
    """When the installed version cannot start, the old one runs on and says why in one line; nothing else happens."""
    release = Release(colony)
    python = release.own_python()
    colony.put("web", {"args": colony.payload("web", "signals")})
    release.start()
    colony.wait_for_notes("web")
    web, keeper, before = colony.wait_until_running("web"), colony.keeper_pid(), colony.supervisor()
    release.bump()
    if breakage == "syntax":
        release.append("supervisor/loop.py", "\ndef (:\n")
    elif breakage == "dependency":
        (release.root / "msgspec.py").write_text("raise ModuleNotFoundError(\"No module named 'msgspec'\")\n")
    else:
        python.unlink()
    if breakage in ("other program", "silent program"):
        says = "echo 'cannot: wrong Python' >&2; exit 3" if breakage == "other program" else "exit 0"
        python.write_text(f"#!/bin/sh\n{says}\n")
        python.chmod(0o755)
    answer = colony.send({"type": "UPGRADE"}, timeout=10)
    expected = {
        "syntax": "SyntaxError",
        "dependency": "No module named 'msgspec'",
        "gone": "No such file or directory",
        "other program": "wrong Python",
        "silent program": "",
    }
    assert answer["state"] == "failed"
    assert is_one_clear_line(answer["why"])
    assert expected[breakage] in answer["why"]
    colony.scan()
    info = colony.supervisor()
    assert before and info and (info["version"], info["pid"]) == (before["version"], before["pid"])
    assert colony.wait_until_running("web", instance=1) == web
    assert colony.keeper_pid() == keeper
    assert colony.notes("web") == [f"up {web}"]
    assert len(colony.processes()) == 3
    colony.put("new", {"args": colony.payload("new", "serve")})
    colony.wait_until_running("new")


def test_a_keeper_that_cannot_start_replaces_nobody(colony: Colony) -> None:
    """A new keeper that cannot be run is named in one line with its reason; the old one goes on until it is mended."""
    release = Release(colony)
    colony.put("web", {"args": colony.payload("web", "serve")})
    release.start()
    colony.wait_for_notes("web")
    web, keeper = colony.wait_until_running("web"), colony.keeper_pid()
    good = (release.package / "keeper" / "spawn.py").read_bytes()
    release.append("keeper/spawn.py", "\ndef (:\n")
    version = release.bump()
    os.kill(pid_of(colony), signal.SIGUSR2)
    release.wait_for_version(version)
    (problem,) = colony.wait_for(lambda: (colony.supervisor() or {}).get("problems"), "there is a problem")
    assert is_one_clear_line(problem)
    assert "keeper" in problem
    assert "SyntaxError" in problem
    assert colony.keeper_pid() == keeper
    assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
    assert not is_alive(web)
    put_whole(release.package / "keeper", "spawn.py", good + COMMENT.encode())
    release.upgrade()
    info = colony.supervisor()
    assert info and info["problems"] == []
    assert colony.keeper_pid() == keeper


@pytest.mark.parametrize("point", ["upgrade.tried", "upgrade.execute", "upgrade.ordered"])
def test_killed_in_the_middle(colony: Colony, point: str) -> None:
    """After a SIGKILL of whoever is about to change, everything runs on, and the request has a last answer."""
    release, gates = Release(colony), Gates(colony)
    colony.put("web", {"args": colony.payload("web", "serve")})
    release.start(NCOLONY_KILL_AT=str(gates.root))
    colony.wait_for_notes("web")
    web = colony.wait_until_running("web")
    version = release.bump()
    release.append("keeper/instance.py", COMMENT)
    (gates.root / point).touch()
    message = colony.post({"type": "UPGRADE"})
    colony.wait_for((gates.root / f"{point}.reached").exists, f"{point} is reached")
    if point != "upgrade.ordered":
        assert colony.wait_for_exit() == -signal.SIGKILL
        release.start()
    release.wait_for_version(version)
    answer = colony.wait_for_answer(message)
    assert answer["state"] == ("done" if point == "upgrade.ordered" else "failed")
    assert colony.wait_until_running("web", instance=1) == web
    assert len(colony.notes("web")) == 1


def test_a_second_request_meanwhile(colony: Colony) -> None:
    """Two requests to upgrade at once are both answered, and one upgrade is done."""
    release = Release(colony)
    release.start()
    version = release.bump()
    messages = [colony.post({"type": "UPGRADE"}) for _ in range(2)]
    states = [colony.wait_for_answer(message)["state"] for message in messages]
    assert "done" in states
    assert set(states) <= {"done", "failed"}
    release.wait_for_version(version)


OLDER = {
    "keeper/wire.py": [("PROTOCOL = 4", "PROTOCOL = 3")],
    "keeper/instance.py": [('"began", "said", "given")', '"began")')],
    "keeper/__main__.py": [
        ("def do_close(", "def _none_close("),
        ('"scope", "notify", "uid", "ready")', '"scope")'),
        ("self.doors.open_all(order)", "[]"),
        ('self.safe.greet(bool(order.get("keeps")))', "pass"),
    ],
}


NEW_NEEDS: dict[str, dict[str, Any]] = {
    "tells": {"ready": {"notify": True}},
    "writes": {"ready": {"fd": 3}},
    "beats": {"watchdog": 60},
    "listens": {"sockets": {"http": "tcp:127.0.0.1:0"}},
}


def test_a_keeper_of_the_protocol_before(colony: Colony) -> None:
    """With a keeper of one protocol back everything works: starts, stops, output, exits, a stop that takes long."""
    assert PROTOCOL == 4
    release, trigger = Release(colony), colony.root / "trigger"
    ours = release.code()
    for module, changes in OLDER.items():
        for old, new in changes:
            release.edit(module, old, new)
    release.edit("system/hands.py", "return digest.hexdigest()", f'return "{ours}"')  # or else it would be replaced
    colony.put("web", {"args": colony.payload("web", "tick", 0.01)})
    colony.put("once", {"args": colony.payload("once", "leave_when", 7, trigger), "restart": "never"})
    release.start()
    pids = {name: colony.wait_until_running(name) for name in ("web", "once")}
    keeper = colony.keeper_pid()
    colony.kill()
    colony.start()
    colony.scan()
    assert colony.keeper_pid() == keeper
    info = colony.supervisor()
    assert info and all(is_one_clear_line(problem) for problem in info["problems"])
    for name, pid in pids.items():
        assert colony.wait_until_running(name, instance=1) == pid
    trigger.touch()
    assert colony.wait_for_status("once", state="EXITED")["last_exit"]["code"] == 7
    colony.put("new", {"args": colony.payload("new", "signals"), "kill_time": 1.5})
    colony.wait_for_notes("new")
    assert colony.send({"type": "STOP", "name": "new"})["state"] == "done"
    for name, more in NEW_NEEDS.items():  # it cannot give them that
        colony.put(name, {"args": colony.payload(name, "serve"), **more})
        why = colony.wait_for_status(name, state="BACKOFF")["reason"]
        assert "the keeper is of an older version" in why and is_one_clear_line(why)
        assert colony.notes(name) == []
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    last = int(colony.wait_for_notes("web", beginning="last ")[0].split()[1])
    colony.wait_for(lambda: f"tick {last}" in colony.lines("web"), "the last line is logged")
    assert ticks(colony.lines("web")) == list(range(1, last + 1))
    assert colony.keeper_pid() == keeper


# As it was before what the keeper only keeps became text: its parts.
PARTS = {
    "supervisor/loop.py": [
        ("as_text(policy)]", "msgspec.to_builtins(policy)]"),
        ('{"follow": as_text(log)}', '{"follow": msgspec.to_builtins(log)}'),
    ],
    "keeper/instance.py": [
        ('_kept_once(intent.get("memo"))', 'intent.get("memo")'),
        ('_kept_once(intent.get("follow"))', 'intent.get("follow")'),
    ],
}


@pytest.mark.parametrize("keeper_dies", [False, True], ids=["upgraded", "killed"])
def test_what_an_older_version_had_kept(colony: Colony, keeper_dies: bool) -> None:
    """What a process was started from, and what becomes of its output, is known to the next version as it was kept."""
    release, trigger = Release(colony), colony.root / "trigger"
    for module, changes in PARTS.items():
        for old, new in changes:
            release.edit(module, old, new)
    file = colony.root / "web.out"
    colony.put("web", {"args": colony.payload("web", "tick", 0.01), "log": {"stdout": str(file)}})
    colony.put("once", {"args": colony.payload("once", "leave_when", 7, trigger), "restart": "never"})
    release.start()
    pids = {name: colony.wait_until_running(name) for name in ("web", "once")}
    colony.wait_for(lambda: file.exists() and b"tick 3\n" in file.read_bytes(), "its output is written")
    keeper = colony.keeper_pid() or 0
    colony.kill()
    if keeper_dies:
        os.kill(keeper, signal.SIGKILL)
    # From now on nothing but what the keeper kept says how it is to be restarted.
    (colony.state / "status" / "once").unlink()
    colony.put("once", b"broken")
    colony.start()
    colony.scan()
    assert (colony.keeper_pid() == keeper) is not keeper_dies
    for name, pid in pids.items():
        assert colony.wait_until_running(name, instance=1) == pid
    trigger.touch()
    colony.wait_for_status("once", state="EXITED", instance=1)
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    last = int(colony.wait_for_notes("web", beginning="last ")[0].split()[1])
    colony.wait_for(lambda: ticks(file.read_text().splitlines())[-1:] == [last], "the last line is in its file")
    assert ticks(file.read_text().splitlines()) == list(range(1, last + 1))
    assert "Traceback" not in colony.log()


def _of_another_protocol(release: Release, protocol: int, same_code: bool) -> None:
    """Make the release's keeper speak another protocol, and tell things that nobody knows."""
    ours = release.code()
    release.edit("keeper/wire.py", f"PROTOCOL = {PROTOCOL}", f"PROTOCOL = {protocol}")
    strange = 'self.tell({"is": "weather", "sky": "blue", "id": "x"})'
    release.edit("keeper/__main__.py", "        held = [instance", f"        {strange}\n        held = [instance")
    release.edit("keeper/__main__.py", '        reach("start.recorded")', f"        {strange}")
    if same_code:
        release.edit("system/hands.py", "return digest.hexdigest()", f'return "{ours}"')


@pytest.mark.parametrize("same_code", [True, False], ids=["kept", "replaced"])
def test_a_keeper_of_the_protocol_after(colony: Colony, same_code: bool) -> None:
    """With a keeper of the next protocol everything works, and what it says that nobody knows harms nothing."""
    release = Release(colony)
    _of_another_protocol(release, PROTOCOL + 1, same_code)
    colony.put("web", {"args": colony.payload("web", "serve")})
    release.start()
    web, keeper = colony.wait_until_running("web"), colony.keeper_pid()
    colony.kill()
    colony.start()
    colony.scan()
    info = colony.supervisor()
    assert info and info["problems"] == []
    assert colony.keeper_pid() == keeper
    assert (str(release.package / "keeper") in arguments_of(keeper or 0)) == same_code
    assert colony.wait_until_running("web", instance=1) == web
    assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
    assert not is_alive(web)
    colony.put("new", {"args": colony.payload("new", "serve")})
    colony.wait_until_running("new")


def test_a_keeper_two_protocols_away(colony: Colony) -> None:
    """A keeper two protocols away is named as a problem in one line, and nothing that runs is harmed."""
    release, protocol = Release(colony), PROTOCOL + 2
    _of_another_protocol(release, protocol, False)
    colony.put("web", {"args": colony.payload("web", "signals")})
    release.start()
    colony.wait_for_notes("web")
    web, keeper = colony.wait_until_running("web"), colony.keeper_pid()
    colony.kill()
    colony.start()
    (problem,) = colony.wait_for(lambda: (colony.supervisor() or {}).get("problems"), "there is a problem")
    assert is_one_clear_line(problem)
    assert f"protocol {protocol}" in problem
    assert str(keeper) in problem
    colony.scan()
    assert colony.keeper_pid() == keeper
    assert is_alive(web)
    assert colony.notes("web") == [f"up {web}"]


def test_a_keeper_that_fails_to_replace_itself(colony: Colony) -> None:
    """A keeper that cannot do it although it was asked is no reason to wait for ever: it goes on as it is."""
    release = Release(colony)
    release.edit("keeper/__main__.py", 'os.memfd_create("handover", 0)', "os.open('/nonexistent', 0)")
    colony.put("web", {"args": colony.payload("web", "serve")})
    release.start()
    web, keeper = colony.wait_until_running("web"), colony.keeper_pid()
    release.append("keeper/instance.py", COMMENT)
    version = release.bump()
    os.kill(pid_of(colony), signal.SIGUSR2)
    colony.wait_for(lambda: release.says(version), "the new version runs")
    colony.put("new", {"args": colony.payload("new", "serve")})
    colony.wait_until_running("new", timeout=10)
    assert colony.wait_until_running("web", instance=1) == web
    assert colony.keeper_pid() == keeper


def own_descriptors(colony: Colony, pid: int) -> list[int]:
    """What a payload has open once it has started: until then it has its own files open now and then."""
    return colony.wait_for(
        lambda: (found := sorted(descriptors(pid))) == [0, 1, 2] and found, "it has no other descriptors"
    )


def test_a_keeper_that_cannot_be_executed_keeps_its_own(colony: Colony) -> None:
    """After an order to execute what is not there, the keeper goes on, and its descriptors are no instance's."""
    colony.put("web", {"args": colony.payload("web", "serve")})
    colony.start()
    web, keeper = colony.wait_until_running("web"), colony.keeper_pid()
    colony.kill()
    directory = os.open(colony.state, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(30)
            peer.connect(f"/proc/self/fd/{directory}/keeper.sock")
            peer.sendall(pack({"do": "hello", "protocol": PROTOCOL}))
            peer.sendall(pack({"do": "upgrade", "command": ["/nonexistent/python"], "code": "x"}))
            unpacker, said = Unpacker(), []
            while data := peer.recv(1 << 16):
                said += [message["is"] for message in unpacker.feed(data)]
        assert "upgrading" in said
    finally:
        os.close(directory)
    colony.start()
    colony.scan()
    assert colony.keeper_pid() == keeper
    assert colony.wait_until_running("web", instance=1) == web
    colony.put("new", {"args": colony.payload("new", "serve")})
    new = colony.wait_until_running("new")
    colony.wait_for_notes("new")
    assert own_descriptors(colony, new) == [0, 1, 2]


def test_an_upgrade_passes_nothing_on(colony: Colony) -> None:
    """Neither the way an upgrade was done nor what was handed over shows in an instance started after it."""
    release = Release(colony)
    release.start()
    release.append("keeper/instance.py", COMMENT)
    before = time.monotonic()
    release.upgrade()
    assert time.monotonic() - before < 30
    colony.put("web", {"args": colony.payload("web", "serve"), "env_inherit": ["*"]})
    colony.wait_for_notes("web")
    pid = colony.wait_until_running("web")
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"NCOLONY_HANDOVER" not in environment
    assert MARK.encode() in environment
    assert own_descriptors(colony, pid) == [0, 1, 2]


def test_a_request_that_the_end_overtakes(colony: Colony) -> None:
    """An upgrade that was accepted and is overtaken by SIGTERM is answered: it failed."""
    release = Release(colony)
    release.start()
    message = colony.post({"type": "UPGRADE"})
    colony.wait_for(lambda: _trial(colony), "the installed version is tried out")
    assert colony.stop() == 0
    answer = colony.answer(message)
    assert answer and answer["state"] == "failed"
    assert answer["why"]


def test_an_upgrade_is_no_absence(colony: Colony) -> None:
    """However little time a keeper is to give an absent supervisor, one that executes its new version gets its time."""
    colony.put("web", {"args": colony.payload("web", "serve")})
    colony.start("--keeper-linger", "0.01")
    web = colony.wait_until_running("web")
    assert colony.send({"type": "UPGRADE"})["state"] == "done"
    assert colony.wait_until_running("web", instance=1) == web
    colony.kill()
    colony.wait_until_dead(web)


def test_a_new_keeper_alone_keeps_its_patience(colony: Colony) -> None:
    """A supervisor that dies while its keeper executes itself leaves one that still ends everything in time."""
    release, gates = Release(colony), Gates(colony)
    colony.put("web", {"args": colony.payload("web", "serve")})
    release.start("--keeper-linger", "0.5", NCOLONY_KILL_AT=str(gates.root))
    web, keeper = colony.wait_until_running("web"), colony.keeper_pid()
    assert keeper
    release.append("keeper/instance.py", COMMENT)
    (gates.root / "upgrade.ordered").write_text(f"{pid_of(colony)}\n")
    os.kill(pid_of(colony), signal.SIGUSR2)
    assert colony.wait_for_exit() == -signal.SIGKILL
    colony.wait_until_dead(web, keeper, timeout=10)


def test_since_when_we_run(colony: Colony) -> None:
    """When the supervisor started does not change because it has something new to say of itself."""
    colony.start()
    colony.scan()
    before, keeper = colony.supervisor(), colony.keeper_pid()
    assert before and keeper
    os.kill(keeper, signal.SIGKILL)
    colony.wait_for(lambda: (colony.supervisor() or before)["keeper"] != keeper, "there is a new keeper")
    after = colony.supervisor()
    assert after and after["started"] == before["started"]


def test_after_a_process_was_removed(colony: Colony) -> None:
    """What ran and was removed is no more: an upgrade after it comes about, and the end as well."""
    release = Release(colony)
    colony.put("web", {"args": colony.payload("web", "serve")})
    release.start()
    colony.wait_until_running("web")
    colony.remove("web")
    colony.wait_until_forgotten("web")
    release.upgrade()
    assert colony.stop() == 0
