"""`rollback_if_not_ready`: a change has to prove itself, or what was there before comes back."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from colony import SLEEP, Colony, arguments_of, is_alive

THRESHOLD, PATIENCE = 0.3, 2.5
QUICK = ("-m", "0.1", "-M", "0.1")


def definition(*args: str, **keys: Any) -> dict[str, Any]:
    return {"args": [*args], "threshold": THRESHOLD, "rollback_if_not_ready": PATIENCE, **keys}


def good(number: int = 1, **keys: Any) -> dict[str, Any]:
    """A process that runs; which one is told by its argument."""
    return definition(SLEEP, f"{number}00000", **keys)


def bad(colony: Colony, **keys: Any) -> dict[str, Any]:
    """One that notes that it was tried, and dies."""
    return definition("/bin/sh", "-c", f'echo "up $$" >> {colony.notes_directory}/bad; exit 3', **keys)


def in_force(colony: Colony, name: str, number: int) -> int | None:
    """The pid of `name` if it runs as good(number)."""
    status = colony.status(name)
    pid = status["pid"] if status and status["state"] == "RUNNING" else None
    return pid if pid and arguments_of(pid)[-1:] == [f"{number}00000"] else None


def settle(colony: Colony, name: str = "web", number: int = 1) -> int:
    """Wait until good(number) runs and is ready; its pid."""
    pid = colony.wait_for(lambda: in_force(colony, name, number), f"good {number} runs")
    _let_pass(colony, THRESHOLD)
    return pid


def _let_pass(colony: Colony, seconds: float) -> None:
    """Wait for a process that lives for so many seconds, and is started only now."""
    name = f"clock-{len(os.listdir(colony.config))}-{len(colony.log())}"
    colony.put(name, {"args": colony.payload(name, "leave", 0, seconds + 0.2), "restart": "never"})
    colony.wait_for_status(name, state="EXITED")
    colony.remove(name)
    colony.wait_until_forgotten(name)


def back(colony: Colony, name: str = "web", number: int = 1) -> dict[str, Any]:
    """Wait until what was before is in force again; the status."""
    colony.wait_for(lambda: (colony.status(name) or {}).get("rolled_back"), f"{name} is rolled back")
    colony.wait_for(lambda: in_force(colony, name, number), f"good {number} runs again")
    return colony.status(name) or {}


@pytest.mark.parametrize(
    "how",
    [
        {"args": ["/bin/sh", "-c", "exit 3"]},
        {"args": ["/no/such/program"]},
        {"args": ["/etc/passwd"]},
        {"args": [SLEEP, "200000"], "threshold": 60},
        {"args": [SLEEP, "200000"], "env_file": "/no/such/file"},
        {"args": [SLEEP, "200000"], "cwd": "/no/such/directory"},
        {"args": [SLEEP, "200000"], "uid": "no-such-user"},
        {"args": ["/bin/sh", "-c", "exit 3"], "restart": "never"},
        {"args": ["/bin/sh", "-c", f"{SLEEP} 0.1; exit 3"], "min_restart_delay": 0},
    ],
    ids=["dies", "missing", "not-executable", "too-late", "env_file", "cwd", "user", "exited", "loops"],
)
def test_what_is_not_ready_is_taken_back(colony: Colony, how: dict[str, Any]) -> None:
    """Whatever keeps it from being ready in time: what was before runs again, and the status says so."""
    colony.put("web", good())
    colony.put("other", good())
    colony.start(*QUICK)
    first = settle(colony)
    other = colony.wait_until_running("other")
    before = colony.status("web") or {}
    written = colony.put("web", {**good(), **how})
    colony.wait_until_dead(first)
    status = back(colony)
    assert "rolled back" in status["problem"]
    assert f"{PATIENCE:g} s" in status["rolled_back"]
    assert (status["digest"], status["generation"]) == (before["digest"], before["generation"])
    assert json.loads((colony.config / "web").read_bytes()) == written, "the file stays as it was written"
    lines = map(json.loads, (colony.state / "events").read_text().splitlines())
    (event,) = [one for one in lines if one["event"] == "rolled-back"]
    assert (event["name"], event["reason"]) == ("web", status["rolled_back"])
    pid = status["pid"]
    colony.scan()
    _let_pass(colony, PATIENCE)
    assert in_force(colony, "web", 1) == pid, "it is not tried again"
    assert colony.wait_until_running("other", instance=1) == other


def test_what_is_ready_stays(colony: Colony) -> None:
    """Once it was ready the new definition is in force for good: what happens later is no reason to go back."""
    broken = colony.root / "broken"
    script = f"[ -e {broken} ] && exit 3; exec {SLEEP} 200000"
    colony.put("web", good())
    colony.start(*QUICK)
    settle(colony)
    colony.put("web", definition("/bin/sh", "-c", script))
    pid = settle(colony, number=2)
    broken.touch()
    os.kill(pid, signal.SIGKILL)
    colony.wait_for_status("web", state="BACKOFF")
    _let_pass(colony, PATIENCE)
    status = colony.wait_for_status("web", rolled_back=None, problem=None)
    assert "exit code 3" in status["reason"]
    broken.unlink()
    colony.wait_for(lambda: in_force(colony, "web", 2), "it runs again")


def test_who_does_not_ask_for_it(colony: Colony) -> None:
    """Without the key, and for a file that was never in force before, nothing is taken back."""
    plain = {"args": [SLEEP, "100000"], "threshold": THRESHOLD}
    colony.put("plain", plain)
    colony.put("new", bad(colony))
    colony.start(*QUICK)
    colony.wait_until_running("plain")
    colony.put("plain", {**plain, "args": ["/no/such/program"]})
    for name in ("plain", "new"):
        colony.wait_for_status(name, state="BACKOFF")
    _let_pass(colony, PATIENCE)
    for name in ("plain", "new"):
        status = colony.status(name) or {}
        assert (status["rolled_back"], status["problem"], status["state"]) != (None, None, "RUNNING")
        assert (status["rolled_back"], status["problem"]) == (None, None)


def test_the_new_file_decides(colony: Colony) -> None:
    """It is the key in the new file that puts a definition on trial; the old one need not have it."""
    colony.put("web", {"args": [SLEEP, "100000"], "threshold": THRESHOLD})
    colony.start(*QUICK)
    settle(colony)
    colony.put("web", bad(colony))
    back(colony)


def test_live_changes_are_no_trial(colony: Colony) -> None:
    """A change that needs no restart is in force, however long it takes to be ready by it."""
    colony.put("web", good())
    colony.start(*QUICK)
    pid = settle(colony)
    colony.put("web", good(threshold=1000))
    colony.scan()
    _let_pass(colony, PATIENCE)
    assert in_force(colony, "web", 1) == pid
    colony.wait_for_status("web", rolled_back=None, problem=None)


def test_the_next_change_is_a_new_attempt(colony: Colony) -> None:
    """After a rollback: other white space is no change, a good file runs, and the former file again is what runs."""
    colony.put("web", good())
    colony.start(*QUICK)
    settle(colony)
    written = colony.put("web", bad(colony))
    pid = back(colony)["pid"]
    tries = len(colony.notes("bad"))
    colony.put("web", json.dumps(written, indent=4).encode())
    colony.scan()
    assert colony.wait_for_status("web")["rolled_back"]
    assert (in_force(colony, "web", 1), len(colony.notes("bad"))) == (pid, tries)
    colony.put("web", good())
    colony.wait_for_status("web", rolled_back=None, problem=None)
    colony.scan()
    assert in_force(colony, "web", 1) == pid, "nothing needs a restart"
    colony.put("web", bad(colony))
    back(colony)
    assert len(colony.notes("bad")) > tries, "it is tried anew"
    colony.put("web", good(2))
    settle(colony, number=2)
    colony.wait_for_status("web", rolled_back=None, problem=None)
    colony.put("web", bad(colony))
    back(colony, number=2)


def test_a_restart_after_a_rollback(colony: Colony) -> None:
    """What was taken back is not started by RESTART, nor after a crash."""
    colony.put("web", good())
    colony.start(*QUICK)
    settle(colony)
    colony.put("web", bad(colony))
    back(colony)
    tries = len(colony.notes("bad"))
    assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
    os.kill(colony.wait_for(lambda: in_force(colony, "web", 1), "it runs"), signal.SIGKILL)
    settle(colony)
    assert len(colony.notes("bad")) == tries


def test_files_that_are_broken_meanwhile(colony: Colony) -> None:
    """A file that is no JSON, between good and bad or while on trial, changes nothing about the way back."""
    colony.put("web", good())
    colony.start(*QUICK)
    settle(colony)
    colony.put("web", b"{")
    colony.wait_for_problem("web")
    colony.put("web", bad(colony))
    colony.wait_for_notes("bad")
    colony.put("web", b"[")
    back(colony)
    assert "JSON" in colony.wait_for_problem("web")
    colony.put("web", good(2))
    settle(colony, number=2)
    colony.wait_for_status("web", rolled_back=None, problem=None)


@pytest.mark.parametrize("then", ["bad", "good"])
def test_changed_again_while_on_trial(colony: Colony, then: str) -> None:
    """A change of what is on trial is a trial of its own; its way back leads to what was in force before both."""
    colony.put("web", good())
    colony.start(*QUICK)
    settle(colony)
    colony.put("web", bad(colony))
    colony.wait_for_notes("bad")
    if then == "good":
        colony.put("web", good(2))
        settle(colony, number=2)
        _let_pass(colony, PATIENCE)
        assert in_force(colony, "web", 2)
        colony.wait_for_status("web", rolled_back=None, problem=None)
    else:
        colony.put("web", definition("/no/such/program"))
        assert "/no/such/program" in back(colony)["rolled_back"]


def test_back_to_what_was_by_hand(colony: Colony) -> None:
    """Who takes a change back himself while it is on trial has what was there before."""
    colony.put("web", good())
    colony.start(*QUICK)
    settle(colony)
    colony.put("web", bad(colony))
    colony.wait_for_notes("bad")
    colony.put("web", good())
    settle(colony)
    _let_pass(colony, PATIENCE)
    colony.wait_for_status("web", rolled_back=None, problem=None, state="RUNNING")


def test_removed_while_on_trial(colony: Colony) -> None:
    """A file that is removed is gone, with its way back: as a new file it has none."""
    colony.put("web", good())
    colony.start(*QUICK)
    settle(colony)
    colony.put("web", bad(colony))
    colony.wait_for_notes("bad")
    colony.remove("web")
    colony.wait_until_forgotten("web")
    colony.put("web", bad(colony))
    colony.wait_for_status("web", state="BACKOFF")
    _let_pass(colony, PATIENCE)
    colony.wait_for_status("web", rolled_back=None, problem=None)


def test_one_copy_is_enough(colony: Colony) -> None:
    """Every copy has to be ready: one that is not takes the definition back for all."""
    script = f'[ "$NCOLONY_INDEX" = 1 ] && exit 3; exec {SLEEP} 200000'
    names = [f"web:{index}" for index in range(3)]
    colony.put("web", good(instances=3))
    colony.start(*QUICK)
    for name in names:
        colony.wait_for(lambda name=name: in_force(colony, name, 1), f"{name} runs")  # type: ignore[misc]
    colony.put("web", definition("/bin/sh", "-c", script, instances=3))
    for name in names:
        status = back(colony, name)
        assert "web:1" in status["rolled_back"]
        assert "rolled back" in status["problem"]
    colony.put("web", good(2, instances=2))
    for name in names[:2]:
        colony.wait_for(lambda name=name: in_force(colony, name, 2), f"{name} is new")  # type: ignore[misc]
        colony.wait_for_status(name, rolled_back=None, problem=None)
    colony.wait_until_forgotten("web:2")


@pytest.mark.parametrize("kind", ["to-copies", "to-plain", "fewer"])
def test_between_plain_and_copies(colony: Colony, kind: str) -> None:
    """A way back leads from copies to a plain process, the other way round, and to another number of copies."""
    before, after = {"to-copies": (None, 2), "to-plain": (2, None), "fewer": (3, 1)}[kind]
    colony.put("web", good() if before is None else good(instances=before))
    colony.start(*QUICK)
    names = {"web"} if before is None else {f"web:{index}" for index in range(before)}
    for name in names:
        colony.wait_for(lambda name=name: in_force(colony, name, 1), f"{name} runs")  # type: ignore[misc]
    colony.put("web", bad(colony) if after is None else bad(colony, instances=after))
    colony.wait_for_notes("bad")
    for name in names:
        back(colony, name)
    colony.wait_for(lambda: colony.known() == names, "there is nothing else")


@pytest.mark.parametrize("moment", ["on trial", "stopping", "taken back"])
def test_it_holds_across_a_kill(colony: Colony, moment: str) -> None:
    """After a kill during a trial the next supervisor takes it back; after one later on it stays taken back."""
    before = good() if moment != "stopping" else {**good(), "args": colony.payload("old", "signals", "USR2")}
    colony.put("web", {**before, "stop": [["TERM", 60]]})
    colony.start(*QUICK)
    if moment == "stopping":
        colony.wait_for_notes("old")
        _let_pass(colony, THRESHOLD)
    else:
        settle(colony)
    colony.put("web", bad(colony))
    if moment == "stopping":
        colony.wait_for_notes("old", beginning="got TERM")
    else:
        colony.wait_for_notes("bad")
    pid = back(colony)["pid"] if moment == "taken back" else None
    tries = len(colony.notes("bad"))
    colony.kill()
    colony.start(*QUICK)
    if moment == "stopping":
        os.kill(colony.pids("old")[0], signal.SIGUSR2)
        colony.wait_for(lambda: (colony.status("web") or {}).get("rolled_back"), "it is rolled back")
        colony.wait_for_notes("old", 2)
        assert colony.notes("bad")
        colony.put("web", {**before, "stop": [["KILL", 1]]})  # so that it ends
        colony.wait_for_status("web", problem=None, rolled_back=None)
        return
    status = back(colony)
    if pid:
        assert (status["pid"], len(colony.notes("bad"))) == (pid, tries)
        assert "rolled back" in status["problem"]
        assert colony.stop() == 0
        colony.start(*QUICK)
        back(colony)
        assert len(colony.notes("bad")) == tries
    colony.put("web", good(2))
    settle(colony, number=2)
    colony.wait_for_status("web", rolled_back=None, problem=None)


def test_a_trial_that_was_passed_stays_passed(colony: Colony) -> None:
    """A new supervisor does not put on trial again what has proved itself."""
    colony.put("web", good())
    colony.start(*QUICK)
    settle(colony)
    colony.put("web", good(2))
    pid = settle(colony, number=2)
    colony.kill()
    os.kill(pid, signal.SIGKILL)
    colony.start(*QUICK)
    colony.wait_for(lambda: in_force(colony, "web", 2), "it runs again")
    _let_pass(colony, PATIENCE)
    assert in_force(colony, "web", 2)
    colony.wait_for_status("web", rolled_back=None, problem=None)


def test_an_upgrade_in_the_middle(colony: Colony) -> None:
    """An upgrade in place carries a trial on."""
    colony.put("web", good())
    colony.start(*QUICK)
    settle(colony)
    colony.put("web", bad(colony))
    colony.wait_for_notes("bad")
    assert colony.send({"type": "UPGRADE"})["state"] == "done"
    back(colony)


@pytest.mark.parametrize("how", ["STOP", "disabled"])
def test_stopped_while_on_trial(colony: Colony, how: str) -> None:
    """What is stopped or disabled is not there to be judged: it stays down, and nothing is taken back."""
    colony.put("web", good())
    colony.start(*QUICK)
    settle(colony)
    colony.put("web", bad(colony))
    colony.wait_for_notes("bad")
    if how == "STOP":
        assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    else:
        colony.put("web", bad(colony, enabled=False))
    colony.wait_for_status("web", state="STOPPED", wanted="down")
    tries = len(colony.notes("bad"))
    _let_pass(colony, PATIENCE)
    colony.wait_for_status("web", state="STOPPED", rolled_back=None, problem=None)
    assert len(colony.notes("bad")) == tries


def test_a_stopped_process_that_changes(colony: Colony) -> None:
    """A change starts what was stopped; if that is not ready the definition before it is back, and runs."""
    colony.put("web", good())
    colony.start(*QUICK)
    settle(colony)
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    colony.put("web", bad(colony))
    back(colony)


def test_what_is_given_up_is_not_waited_for(colony: Colony) -> None:
    """A definition whose process is given up is taken back at once."""
    colony.put("web", good())
    colony.start(*QUICK)
    settle(colony)
    keys = {"rollback_if_not_ready": 1000, "give_up": {"failures": 2, "within": 60}}
    colony.put("web", {**bad(colony), **keys})
    assert "FATAL" in back(colony)["rolled_back"]
    assert len(colony.notes("bad")) == 2


def test_a_job_that_has_done_its_work(colony: Colony) -> None:
    """A process that ends well, and is not to be started again, has proved its definition."""
    colony.put("web", good())
    colony.start(*QUICK)
    first = settle(colony)
    colony.put("web", definition("/bin/true", restart="on-failure"))
    colony.wait_for_status("web", state="EXITED")
    _let_pass(colony, PATIENCE)
    colony.wait_for_status("web", state="EXITED", rolled_back=None, problem=None)
    assert not is_alive(first)
