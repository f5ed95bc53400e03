"""A kernel that has less, and one that gives us control groups: what is promised holds on both."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colony import Colony, is_alive
from ncolony.keeper.kernel import ABILITIES

MISSING = [*ABILITIES, " ".join(ABILITIES)]
QUICK = ("-m", "0.05", "-M", "0.05", "--frequency", "0.3")
UNIFIED = Path("/sys/fs/cgroup/unified")
MEMORY = Path("/sys/fs/cgroup/memory")
missing = pytest.mark.parametrize("without", MISSING, ids=lambda words: "all" if " " in words else words)


def start(colony: Colony, without: str, *options: str) -> None:
    colony.start(*QUICK, *options, env={**os.environ, "NCOLONY_WITHOUT": without})


def new_keeper(colony: Colony) -> None:
    """Kill the keeper and wait for the next one to know what runs."""
    old = colony.wait_for(colony.keeper_pid, "there is a keeper")
    os.kill(old, signal.SIGKILL)

    def replaced() -> bool:
        info = colony.supervisor()
        return info is not None and info["keeper"] not in (None, old) and colony.keeper_pid() == info["keeper"]

    colony.wait_for(replaced, "there is a new keeper")
    colony.scan()


def history(colony: Colony, name: str) -> list[dict[str, Any]]:
    path = colony.state / "history" / name
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


@missing
def test_daily_life(colony: Colony, without: str) -> None:
    """Starts, restarts after a death, changes and stops of whole trees work without what the kernel may not have."""
    colony.put("web", {"args": colony.payload("web", "daemon")})
    colony.put("dying", {"args": colony.payload("dying", "leave", 7, 0.1)})
    colony.put("deserter", {"args": colony.payload("deserter", "deserter")})
    start(colony, without)
    colony.wait_for_notes("web")
    (leader,), (child,) = colony.pids("web"), colony.pids("web", "child")
    colony.wait_for_notes("dying", 3)
    colony.wait_for_notes("deserter", 2)
    assert colony.pids("deserter", "term child")[0] == colony.pids("deserter", "child")[0]
    assert {record["code"] for record in history(colony, "dying")} == {7}
    assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
    assert not is_alive(leader)
    assert not is_alive(child)
    colony.wait_for_notes("web", 2)
    colony.remove("web")
    colony.wait_until_forgotten("web")
    assert colony.pids("web", "term child") == colony.pids("web", "child")
    assert not any(is_alive(pid) for pid in colony.pids("web", "child"))
    assert colony.stop() == 0


@missing
def test_the_keepers_death(colony: Colony, without: str) -> None:
    """After a SIGKILL of the keeper the same instances are held: no second one, exits as they were, whole trees end."""
    trigger = colony.root / "trigger"
    colony.put("web", {"args": colony.payload("web", "daemon")})
    colony.put("once", {"args": colony.payload("once", "leave_when", 7, trigger), "restart": "never"})
    colony.put("again", {"args": colony.payload("again", "leave_when", 7, trigger)})
    colony.put("killed", {"args": colony.payload("killed", "serve"), "restart": "on-failure"})
    start(colony, without)
    names = ("web", "once", "again", "killed")
    for name in names:
        colony.wait_for_notes(name)
    pids = {name: colony.wait_until_running(name) for name in names}
    new_keeper(colony)
    for name, pid in pids.items():
        assert colony.wait_until_running(name, instance=1) == pid
        assert len(colony.notes(name, "up")) == 1
    os.kill(pids["killed"], signal.SIGKILL)
    colony.wait_until_running("killed", instance=2)
    assert not is_alive(pids["killed"])
    trigger.touch()
    colony.wait_for_status("once", state="EXITED", instance=1)
    colony.wait_for_notes("again", 2)
    unknown = " " in without  # nobody was told, and that counts as a failure
    ends = {(record["code"], record["signal"]) for record in history(colony, "once")}
    assert ends <= ({(7, None), (None, None)} if unknown else {(7, None)})
    ends = {(record["code"], record["signal"]) for record in history(colony, "killed")}
    assert ends <= ({(None, "KILL"), (None, None)} if unknown else {(None, "KILL")})
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    assert not is_alive(pids["web"])
    assert not is_alive(colony.pids("web", "child")[0])
    assert colony.pids("web", "term child") == colony.pids("web", "child")
    assert colony.stop() == 0


def test_unknown_is_a_failure(colony: Colony) -> None:
    """Where nobody is told how an adopted instance ended, it is a failure: on-failure starts it again."""
    trigger = colony.root / "trigger"
    colony.put("web", {"args": colony.payload("web", "leave_when", 0, trigger), "restart": "on-failure"})
    start(colony, "exit-status subreaper")
    pid = colony.wait_until_running("web")
    new_keeper(colony)
    trigger.touch()
    colony.wait_until_dead(pid)
    colony.wait_for_notes("web", 2)
    first = colony.wait_for(lambda: history(colony, "web"), "the end is recorded")[0]
    assert (first["code"], first["signal"], first["pid"]) == (None, None, pid)
    assert first["text"]


@missing
def test_both_deaths(colony: Colony, without: str) -> None:
    """After a SIGKILL of both the next supervisor and keeper hold the same instances and can stop their trees."""
    colony.put("web", {"args": colony.payload("web", "daemon")})
    start(colony, without)
    colony.wait_for_notes("web")
    pid, keeper = colony.wait_until_running("web"), colony.wait_for(colony.keeper_pid, "there is a keeper")
    colony.kill()
    os.kill(keeper, signal.SIGKILL)
    colony.wait_until_dead(keeper)
    start(colony, without)
    colony.scan()
    assert colony.wait_until_running("web", instance=1) == pid
    assert len(colony.notes("web", "up")) == 1
    assert colony.stop() == 0
    assert not is_alive(pid)
    assert not is_alive(colony.pids("web", "child")[0])


# Control groups


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of our own; nothing may be left in it."""
    directory = UNIFIED / f"colony-{secrets.token_hex(8)}"
    try:
        directory.mkdir()
    except OSError:
        pytest.skip("no control group can be made here")
    try:
        yield directory
        assert [entry.name for entry in directory.iterdir() if entry.is_dir()] == []
    finally:
        for inner in [entry for entry in directory.iterdir() if entry.is_dir()]:
            (inner / "cgroup.kill").write_text("1")
            inner.rmdir()
        directory.rmdir()


def escaping(colony: Colony, name: str, after_s: float = 0.0) -> list[str]:
    """A program whose descendant has left its session, its parent and its environment, so many seconds after it began.

    At once is the hardest: then it is born before anybody but the program's parent could act.
    """
    child, middle = colony.root / "child.sh", colony.root / "middle.sh"
    child.write_text('echo "child $$" >>"$1"\nexec /bin/sleep 100000\n')
    middle.write_text(f'/bin/sh {child} "$1" &\nexit 0\n')
    notes = colony.notes_directory / name
    script = f"/bin/sleep {after_s}; " if after_s else ""
    script += f'/usr/bin/env -i /usr/bin/setsid /bin/sh {middle} "$0"; echo "up $$" >>"$0"; exec /bin/sleep 100000'
    return ["/bin/sh", "-c", script, str(notes)]


def group_of(pid: int) -> str:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line[3:] for line in lines if line.startswith("0::"))


@pytest.mark.parametrize("adopted", [False, True], ids=["born", "adopted"])
@pytest.mark.parametrize("after_s", [0.0, 0.2], ids=["at-once", "later"])
@pytest.mark.parametrize("how", ["restart", "remove", "quit"])
def test_nothing_escapes_its_group(group: Path, colony: Colony, adopted: bool, how: str, after_s: float) -> None:
    """With --cgroup each instance has a group, a descendant that hides from everything else ends, the groups go."""
    colony.put("web", {"args": escaping(colony, "web", after_s)})
    colony.put("echo", {"args": colony.payload("echo", "serve")})
    colony.start(*QUICK, "--cgroup", str(group))
    colony.wait_for_notes("web")
    (child,) = colony.wait_for(lambda: colony.pids("web", "child"), "there is a child")
    web, echo = (colony.wait_until_running(name) for name in ("web", "echo"))
    assert group_of(web) == group_of(child) != group_of(echo)
    assert group_of(echo).startswith(f"/{group.name}/")
    if adopted:
        new_keeper(colony)
        assert colony.wait_until_running("web", instance=1) == web
    if how == "restart":
        assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
        assert group_of(colony.wait_until_running("web", instance=2)) != f"/{group.name}"
    elif how == "remove":
        colony.remove("web")
        colony.wait_until_forgotten("web")
    else:
        assert colony.stop() == 0
    assert not is_alive(web)
    assert not is_alive(child)
    if how != "quit":
        assert is_alive(echo)
        assert colony.stop() == 0
    assert [entry.name for entry in group.iterdir() if entry.is_dir()] == []


def test_what_hides_in_a_group_ends_before_the_next_start(group: Path, colony: Colony) -> None:
    """When a leader ends by itself, what hid in its group ends before the next instance starts."""
    args = escaping(colony, "web")
    colony.put("web", {"args": [*args[:2], args[2].replace("exec /bin/sleep 100000", "exit 0"), *args[3:]]})
    colony.start(*QUICK, "--cgroup", str(group))
    colony.wait_for_notes("web", 3)
    colony.wait_for(lambda: len(colony.pids("web", "child")) >= 3, "there is a third child")
    assert not any(is_alive(pid) for pid in colony.pids("web", "child")[:2])
    assert colony.stop() == 0
    assert not any(is_alive(pid) for pid in colony.pids("web", "child"))


@pytest.mark.parametrize("kind", ["directory", "missing", "file"])
def test_what_is_no_control_group_is_refused(colony: Colony, kind: str) -> None:
    """--cgroup on anything but a control group is an error at the start, in one line, and nothing is made there."""
    place = colony.root / "place"
    if kind == "directory":
        place.mkdir()
    elif kind == "file":
        place.touch()
    colony.put("web", {"args": colony.payload("web", "serve")})
    with (colony.root / "output").open("wb") as output:
        command = colony.command("--cgroup", str(place))
        colony.process = subprocess.Popen(
            command, cwd=colony.root, env={**os.environ, "COLONY_MARK": colony.mark}, stdout=output, stderr=output
        )
    assert colony.wait_for_exit(10) != 0
    said = (colony.root / "output").read_text().splitlines()
    assert [line for line in said if str(place) in line and "control group" in line]
    assert "Traceback" not in "\n".join(said)
    assert not place.is_dir() or list(place.iterdir()) == []
    colony.process = None


def test_for_want_of_memory(colony: Colony) -> None:
    """An instance that the kernel killed for want of memory is recorded as such; one killed by hand is not."""
    directory = MEMORY / f"colony-{secrets.token_hex(8)}"
    try:
        directory.mkdir()
        (directory / "memory.limit_in_bytes").write_text(str(30 << 20))
    except OSError:
        pytest.skip("no memory group can be made here")
    try:
        script = (
            f"import os; open('{directory}/cgroup.procs', 'w').write(str(os.getpid()));"
            "held = [bytearray(1 << 20) for _ in range(200)]"
        )
        colony.put("greedy", {"args": [sys.executable, "-I", "-S", "-c", script], "restart": "never"})
        colony.put("victim", {"args": colony.payload("victim", "serve"), "restart": "never"})
        colony.start()
        status = colony.wait_for_status("greedy", state="EXITED")
        assert (status["last_exit"]["signal"], status["last_exit"]["oom"]) == ("KILL", True)
        (record,) = history(colony, "greedy")
        assert (record["signal"], record["oom"]) == ("KILL", True)
        os.kill(colony.wait_until_running("victim"), signal.SIGKILL)
        status = colony.wait_for_status("victim", state="EXITED")
        assert (status["last_exit"]["signal"], status["last_exit"]["oom"]) == ("KILL", False)
        assert colony.stop() == 0
    finally:
        colony.wait_for(lambda: not (directory / "cgroup.procs").read_text(), "the group is empty")
        directory.rmdir()
