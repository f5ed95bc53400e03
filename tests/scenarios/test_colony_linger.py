"""The end of a colony: by the keeper, left alone for long enough; by request; and what a stop or a signal does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from colony import Colony, is_alive


def history(colony: Colony, name: str) -> list[dict[str, Any]]:
    path = colony.state / "history" / name
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def run_ctl(colony: Colony, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ncolony", "ctl", *colony.ctl_places(), "--state", str(colony.state)]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60)


def wait_until_empty(colony: Colony) -> None:
    """Wait until neither keeper nor instance is left."""
    colony.wait_for(lambda: not colony.processes(), "nothing is left")


def ignoring_term(colony: Colony, name: str, *arguments: str) -> list[str]:
    """A program that notes TERM and outlives it, until the file named by an argument is there: then it exits with 7."""
    script = 'trap "echo term >>$0" TERM; echo "up $$" >>$0; while [ ! -e "$1" ]; do sleep 0.05; done; exit 7'
    return ["/bin/sh", "-c", script, str(colony.notes_directory / name), *(arguments or ("/nonexistent",))]


def test_left_alone_the_keeper_ends_everything(colony: Colony) -> None:
    """After --keeper-linger every tree has had its own stop sequence, the keeper ends, and a supervisor begins anew."""
    colony.put("polite", {"args": colony.payload("polite", "signals", "TERM"), "restart": "never"})
    colony.put("deaf", {"args": colony.payload("deaf", "signals"), "kill_time": 0.5, "restart": "on-failure"})
    colony.put("own", {"args": colony.payload("own", "signals", "INT"), "stop": [["USR1", 0.3], ["INT", 20]]})
    colony.put("family", {"args": colony.payload("family", "daemon")})
    colony.put("stopped", {"args": colony.payload("stopped", "serve")})
    colony.put("finished", {"args": colony.payload("finished", "leave", 0), "restart": "never"})
    colony.start("--keeper-linger", "0.5")
    up = ("polite", "deaf", "own", "family")
    for name in (*up, "stopped"):
        colony.wait_for_notes(name)
    pids = {name: colony.wait_until_running(name) for name in up}
    assert colony.send({"type": "STOP", "name": "stopped"})["state"] == "done"
    colony.wait_for_status("finished", state="EXITED")
    keeper = colony.keeper_pid()
    assert keeper
    colony.kill()
    wait_until_empty(colony)
    ended = time.monotonic()
    colony.wait_until_dead(keeper)
    first = [float(line.split()[2]) for line in colony.notes("deaf", "got TERM")]
    assert len(first) == 1
    assert ended - first[0] >= 0.45
    assert [line.split()[1] for line in colony.notes("own", "got") if "CONT" not in line] == ["USR1", "INT"]
    assert len(colony.notes("polite", "got TERM")) == 1
    assert colony.pids("family", "term child") == colony.pids("family", "child")
    colony.start("--keeper-linger", "60")
    for name in up:
        colony.wait_for_notes(name, 2)
        colony.wait_until_running(name, instance=2)
    colony.wait_for_status("stopped", state="STOPPED", wanted="down", instance=1)
    colony.wait_for_status("finished", state="EXITED", instance=1)
    expected = {"polite": (0, None), "deaf": (None, "KILL"), "own": (0, None), "family": (None, "TERM")}
    for name, end in expected.items():
        (record,) = history(colony, name)
        assert (record["code"], record["signal"]) == end
        assert record["pid"] == pids[name]
        assert record["cpu"] is not None
        assert record["lived"] > 0


def test_a_supervisor_in_time_keeps_everything(colony: Colony) -> None:
    """A supervisor that comes back before the time is over cancels the end; the time counts anew from its death."""
    colony.put("web", {"args": colony.payload("web", "tick", 0.1)})
    colony.start("--keeper-linger", "2")
    pid = colony.wait_until_running("web")
    colony.kill()
    colony.start("--keeper-linger", "2")
    colony.wait_for_notes("web", len(colony.notes("web", "tick")) + 25, beginning="tick ")
    assert colony.wait_until_running("web", instance=1) == pid
    colony.kill()
    seen = len(colony.notes("web", "tick"))
    wait_until_empty(colony)
    assert len(colony.notes("web", "tick")) - seen >= 10


def test_by_default_nothing_ends(colony: Colony) -> None:
    """Without the option keeper and processes carry on, and the next supervisor finds them."""
    colony.put("web", {"args": colony.payload("web", "tick", 0.1)})
    colony.start()
    pid, keeper = colony.wait_until_running("web"), colony.keeper_pid()
    colony.kill()
    colony.wait_for_notes("web", len(colony.notes("web", "tick")) + 15, beginning="tick ")
    colony.start()
    colony.scan()
    assert colony.wait_until_running("web", instance=1) == pid
    assert colony.keeper_pid() == keeper


def test_a_supervisor_in_the_middle_of_the_end(colony: Colony) -> None:
    """What has ended by then is started again; what has not yet goes on, and its later end is its own."""
    trigger = colony.root / "trigger"
    colony.put("polite", {"args": colony.payload("polite", "signals", "TERM"), "restart": "never"})
    deaf = {"args": ignoring_term(colony, "deaf", str(trigger)), "kill_time": 60, "restart": "never"}
    colony.put("deaf", {**deaf, "env": {"PATH": os.defpath}, "stop_scope": "process"})
    colony.start("--keeper-linger", "0.2")
    for name in ("polite", "deaf"):
        colony.wait_for_notes(name)
    pids = {name: colony.wait_until_running(name) for name in ("polite", "deaf")}
    colony.kill()
    colony.wait_until_dead(pids["polite"])
    colony.wait_for_notes("deaf", beginning="term")
    colony.start()
    colony.wait_until_running("polite", instance=2)
    assert colony.wait_until_running("deaf", instance=1) == pids["deaf"]
    colony.kill()
    trigger.touch()
    colony.wait_until_dead(pids["deaf"])
    colony.start()
    colony.wait_for_status("deaf", state="EXITED")
    colony.wait_for_status("deaf", 2, instance=1)
    assert history(colony, "deaf")[-1]["code"] == 7
    assert len(colony.notes("deaf", "up")) == 1


def test_the_newest_stop_sequence_counts(colony: Colony) -> None:
    """A stop sequence that was changed while the process ran is the one the keeper uses when it ends everything."""
    config = colony.put("web", {"args": colony.payload("web", "signals", "USR2")})
    colony.start("--keeper-linger", "0.2")
    colony.wait_for_notes("web")
    colony.put("web", {**config, "stop": [["USR2", 20]]})
    colony.scan()
    colony.kill()
    wait_until_empty(colony)
    assert [line.split()[1] for line in colony.notes("web", "got") if "CONT" not in line] == ["USR2"]


@pytest.mark.parametrize("way", ["message", "command"])
def test_a_shutdown(colony: Colony, way: str) -> None:
    """SHUTDOWN ends everything, answers, and exits with 0; the next supervisor starts everything again."""
    colony.put("web", {"args": colony.payload("web", "daemon")})
    colony.put("polite", {"args": colony.payload("polite", "signals", "TERM"), "restart": "never"})
    colony.start()
    for name in ("web", "polite"):
        colony.wait_for_notes(name)
    if way == "message":
        answer = colony.send({"type": "SHUTDOWN"})
        assert (answer["accepted"], answer["state"], answer["why"]) == (True, "done", "")
    else:
        ran = run_ctl(colony, "shutdown", "--wait")
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert colony.wait_for_exit() == 0
    wait_until_empty(colony)
    assert colony.supervisor() is None
    assert colony.pids("web", "term child") == colony.pids("web", "child")
    assert os.listdir(colony.messages) == []
    colony.start()
    for name in ("web", "polite"):
        colony.wait_for_notes(name, 2)
        colony.wait_until_running(name, instance=2)


def test_a_shutdown_of_the_keeper(colony: Colony) -> None:
    """`ctl shutdown` without a supervisor has the keeper end everything; with neither it is an error."""
    colony.put("web", {"args": colony.payload("web", "daemon")})
    colony.put("deaf", {"args": colony.payload("deaf", "signals"), "kill_time": 0.3, "restart": "never"})
    colony.start()
    for name in ("web", "deaf"):
        colony.wait_for_notes(name)
    colony.kill()
    ran = run_ctl(colony, "shutdown", "--wait")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    wait_until_empty(colony)
    assert colony.pids("web", "term child") == colony.pids("web", "child")
    assert len(colony.notes("deaf", "got TERM")) == 1
    ran = run_ctl(colony, "shutdown", "--wait")
    assert ran.returncode != 0
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stderr.startswith("cannot shut down")
    assert os.listdir(colony.messages) == []
    colony.start()
    for name in ("web", "deaf"):
        colony.wait_for_notes(name, 2)
        colony.wait_until_running(name, instance=2)
    assert [record["signal"] for record in history(colony, "deaf")] == ["KILL"]


@pytest.mark.parametrize("both", [False, True], ids=["supervisor", "both"])
def test_killed_in_the_middle_of_a_shutdown(colony: Colony, both: bool) -> None:
    """A shutdown whose supervisor was killed, and its keeper too, is finished and answered by the next supervisor."""
    colony.put("web", {"args": colony.payload("web", "signals"), "kill_time": 1})
    colony.put("polite", {"args": colony.payload("polite", "signals", "TERM")})
    colony.start()
    for name in ("web", "polite"):
        colony.wait_for_notes(name)
    pid, keeper = colony.wait_until_running("web"), colony.keeper_pid()
    assert keeper
    message = colony.post({"type": "SHUTDOWN"})
    for name in ("web", "polite"):
        colony.wait_for_notes(name, beginning="got TERM")
    colony.kill()
    if both:
        os.kill(keeper, signal.SIGKILL)
    answer = colony.answer(message)
    assert answer and answer["state"] == "accepted"
    command = colony.command()
    with (colony.root / "output").open("ab") as output:
        environment = {**os.environ, "COLONY_MARK": colony.mark}
        colony.process = subprocess.Popen(command, cwd=colony.root, env=environment, stdout=output, stderr=output)
    assert colony.wait_for_exit(20) == 0
    assert colony.wait_for_answer(message)["state"] == "done"
    assert not is_alive(pid)
    wait_until_empty(colony)
    assert [len(colony.notes(name, "up")) for name in ("web", "polite")] == [1, 1]
    colony.start()
    for name in ("web", "polite"):
        colony.wait_until_running(name, instance=2)


def test_what_holds_up_a_stop(colony: Colony) -> None:
    """A stop that takes long names in the status what it waits for, soon; afterwards nothing is named."""
    colony.put("web", {"args": colony.payload("web", "signals"), "kill_time": 6})
    colony.start()
    colony.wait_for_notes("web")
    pid = colony.wait_until_running("web")
    began = time.monotonic()
    message = colony.post({"type": "STOP", "name": "web"})
    holding = colony.wait_for(
        lambda: (colony.status("web") or {}).get("holding", []), "the status says what it waits for"
    )
    assert time.monotonic() - began < 5
    assert len(holding) == 1
    assert holding[0].startswith(f"pid {pid} (")
    shown = run_ctl(colony, "status", "web").stdout
    assert f"pid {pid}" in shown
    assert colony.wait_for_answer(message)["state"] == "done"
    assert colony.wait_for_status("web", state="STOPPED")["holding"] == []


def test_what_a_leader_left_holds_up_a_stop(colony: Colony) -> None:
    """A descendant that is left of a tree is named while a restart waits for it."""
    child = 'trap "" TERM; echo "child $$" >>"$0"; while :; do sleep 0.5; done'
    script = (
        f'setsid /bin/sh -c \'{child}\' "$0" & echo "up $$" >>"$0"; trap \'exit 0\' TERM; while :; do sleep 0.1; done'
    )
    args = ["/bin/sh", "-c", script, str(colony.notes_directory / "web")]
    colony.put("web", {"args": args, "kill_time": 8, "env": {"PATH": os.defpath}})
    colony.start()
    colony.wait_for_notes("web")
    colony.wait_for_notes("web", beginning="child ")
    (pid,) = colony.pids("web", "child")
    message = colony.post({"type": "RESTART", "name": "web"})
    colony.wait_for(
        lambda: any(held.startswith(f"pid {pid} (") for held in (colony.status("web") or {}).get("holding", [])),
        "the status names the child",
        7,
    )
    assert colony.wait_for_answer(message)["state"] == "done"
    assert not is_alive(pid)


def test_signals_on_request(colony: Colony) -> None:
    """SIGNAL reaches the process alone, or its whole tree, once; where nothing runs it fails with a reason."""
    child = 'trap "echo child-got >>$0" HUP; echo "child $$" >>"$0"; while :; do sleep 0.05; done'
    script = (
        f'/bin/sh -c \'{child}\' "$0" & while ! grep -q child "$0"; do sleep 0.02; done; '
        'trap "echo leader-got >>$0" HUP; echo "up $$" >>"$0"; while :; do sleep 0.05; done'
    )
    args = ["/bin/sh", "-c", script, str(colony.notes_directory / "web")]
    colony.put("web", {"args": args, "kill_time": 0.2, "env": {"PATH": os.defpath}})
    colony.put("stopped", {"args": colony.payload("stopped", "serve"), "enabled": False})
    (colony.notes_directory / "web").touch()
    colony.start()
    colony.wait_for_notes("web")
    colony.wait_until_running("web")
    requests: list[tuple[dict[str, Any], int, int]] = [
        ({"signal": "HUP"}, 1, 0),
        ({"signal": 1, "scope": "process"}, 2, 0),
        ({"signal": "SIGHUP", "scope": "tree"}, 3, 1),
    ]
    for how, leader, children in requests:
        answer = colony.send({"type": "SIGNAL", "name": "web", **how})
        assert (answer["accepted"], answer["state"], answer["names"]) == (True, "done", ["web"])
        colony.wait_for_notes("web", leader, beginning="leader-got")
        if children:
            colony.wait_for_notes("web", children, beginning="child-got")
        assert len(colony.notes("web", "leader-got")) == leader
        assert len(colony.notes("web", "child-got")) == children
    for name in ("stopped", "nobody"):
        answer = colony.send({"type": "SIGNAL", "name": name, "signal": "HUP"})
        assert (answer["accepted"], answer["state"]) == (False, "failed")
        assert name in answer["why"]
    message = colony.post({"type": "SIGNAL", "name": "web", "signal": "NONSENSE"})
    assert "NONSENSE" in colony.wait_for_answer(message)["why"]
    ran = run_ctl(colony, "signal", "web", "KILL")
    assert ran.returncode == 0, ran.stderr
    colony.wait_until_running("web", instance=2)
    assert colony.wait_for(lambda: history(colony, "web"), "the end is recorded")[0]["signal"] == "KILL"
