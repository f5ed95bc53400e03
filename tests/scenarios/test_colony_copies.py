"""`instances`: several copies of one definition, each a process like any other."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from colony import SLEEP, Colony, arguments_of, environment_of, is_alive

RUN: dict[str, Any] = {"args": [SLEEP, "100000"]}
THREE = ("web:0", "web:1", "web:2")


def running(colony: Colony, *names: str, **fields: object) -> dict[str, int]:
    """Wait until all of these run; their pids."""
    return {name: colony.wait_until_running(name, **fields) for name in names}


def copies(count: int) -> list[str]:
    return [f"web:{index}" for index in range(count)]


def sleepers(colony: Colony) -> set[int]:
    """Everything of the colony that runs `sleep`."""
    return {pid for pid in colony.processes() if arguments_of(pid)[:1] == [SLEEP]}


def test_each_copy_is_a_process_of_its_own(colony: Colony) -> None:
    """Three copies have names, numbers, statuses, logs and histories of their own; the file's name has none."""
    colony.put("web", {"args": ["sh", "-c", 'echo "I am $NCOLONY_INDEX"; exec sleep 100000'], "instances": 3})
    colony.start()
    pids = running(colony, *THREE)
    assert len(set(pids.values())) == 3
    for index, (name, pid) in enumerate(pids.items()):
        environment = environment_of(pid)
        assert (environment["NCOLONY_NAME"], environment["NCOLONY_INDEX"]) == (name, str(index))
        status = colony.wait_for_status(name, file="web", instance=1)
        assert status["name"] == name
        colony.wait_for(lambda name=name: colony.lines(name), f"{name} has printed")  # type: ignore[misc]
        assert colony.lines(name) == [f"I am {index}"]
        assert colony.output(name) == f"I am {index}\n".encode()
    assert colony.known() == set(THREE)
    os.kill(pids["web:1"], signal.SIGKILL)
    running(colony, "web:1", instance=2)
    assert [path.name for path in (colony.state / "history").iterdir()] == ["web:1"]
    assert running(colony, "web:0", "web:2", instance=1) == {name: pids[name] for name in ("web:0", "web:2")}


def test_without_the_key_there_is_no_number(colony: Colony) -> None:
    """A plain process has its file's name and no NCOLONY_INDEX; one copy is `web:0`."""
    colony.put("plain", RUN)
    colony.put("web", {**RUN, "instances": 1})
    colony.start()
    assert "NCOLONY_INDEX" not in environment_of(colony.wait_until_running("plain"))
    assert environment_of(colony.wait_until_running("web:0"))["NCOLONY_INDEX"] == "0"
    assert colony.known() == {"plain", "web:0"}
    assert colony.wait_for_status("plain", file="plain")


def test_scaling(colony: Colony) -> None:
    """From 3 to 5, 1, 0 and 2 copies: those with the highest numbers come and go, and no other is touched."""
    colony.put("web", {**RUN, "instances": 3})
    colony.start()
    pids = running(colony, *copies(3))
    for count in (5, 1, 0, 2):
        colony.put("web", {**RUN, "instances": count})
        colony.wait_for(lambda count=count: colony.known() == set(copies(count)), f"{count} copies")  # type: ignore[misc]
        now = running(colony, *copies(count), instance=1)
        stayed = set(now) & set(pids)
        assert {name: now[name] for name in stayed} == {name: pids[name] for name in stayed}
        colony.wait_until_dead(*(pid for name, pid in pids.items() if name not in now))
        pids = now
    assert sleepers(colony) == set(pids.values())


def test_a_change_of_anything_else_restarts_every_copy_once(colony: Colony) -> None:
    """Other arguments are a new instance of each copy; a live key, changed together with the number, is none."""
    colony.put("web", {**RUN, "instances": 3})
    colony.start()
    pids = running(colony, *THREE)
    colony.put("web", {**RUN, "instances": 4, "threshold": 0.5})
    running(colony, "web:3")
    assert running(colony, *THREE, instance=1) == pids
    colony.put("web", {"args": [SLEEP, "200000"], "instances": 4, "threshold": 0.5})
    again = running(colony, *copies(4), instance=2)
    assert [arguments_of(pid)[-1] for pid in again.values()] == ["200000"] * 4
    colony.scan()
    assert running(colony, *copies(4), instance=2) == again
    assert not any(is_alive(pid) for pid in pids.values())


def test_scaling_and_another_change_at_once(colony: Colony) -> None:
    """Fewer copies with other arguments: those that go are stopped, those that stay restart once."""
    colony.put("web", {**RUN, "instances": 3})
    colony.start()
    running(colony, *THREE)
    colony.put("web", {"args": [SLEEP, "200000"], "instances": 2})
    again = running(colony, *copies(2), instance=2)
    colony.wait_until_forgotten("web:2")
    assert sleepers(colony) == set(again.values())


def test_a_broken_file_is_a_problem_of_each_copy(colony: Colony) -> None:
    """Copies run on, and start again, with their last good definition; each shows the problem until it is mended."""
    good = colony.put("web", {**RUN, "instances": 3})
    colony.start()
    pids = running(colony, *THREE)
    for bad in (b'{"args": 5}', b'{"args": ["sleep"], "instances": -1}', b"{"):
        colony.put("web", bad)
        for name in THREE:
            assert "web" in colony.wait_for_problem(name)
    assert running(colony, *THREE, instance=1) == pids
    assert colony.known() == set(THREE)
    assert colony.send({"type": "RESTART", "name": "web:1"})["state"] == "done"
    pids |= running(colony, "web:1", instance=2)
    colony.put("web", json.dumps(good).encode())
    for name in THREE:
        colony.wait_for_status(name, problem=None)
    assert running(colony, *THREE) == pids


@pytest.mark.parametrize("then", [0, 2, 3, 4, "plain", "removed"])
def test_a_file_that_is_broken_when_a_supervisor_comes(colony: Colony, then: int | str) -> None:
    """Copies that are adopted without a good file run on with the problem, until it says how many there are to be."""
    colony.put("web", {**RUN, "instances": 3})
    colony.start()
    pids = running(colony, *THREE)
    colony.kill()
    colony.put("web", b"{")
    colony.start()
    for name in THREE:
        colony.wait_for_problem(name)
    assert running(colony, *THREE, instance=1) == pids
    if then == "removed":
        colony.remove("web")
    else:
        colony.put("web", RUN if then == "plain" else {**RUN, "instances": then})
    expected = ["web"] if then == "plain" else [] if then == "removed" else copies(int(then))
    colony.wait_for(lambda: colony.known() == set(expected), f"there are {expected}")
    now = running(colony, *expected)
    for name in expected:
        assert colony.wait_for_status(name, problem=None)
        assert now[name] == pids.get(name, now[name])
    colony.wait_for(lambda: sleepers(colony) == set(now.values()), "nothing else runs")


def test_a_file_called_like_a_copy(colony: Colony) -> None:
    """A file `web:0` wins over the copy, which comes when the file goes."""
    colony.put("web", {**RUN, "instances": 2})
    colony.put("web:0", {"args": [SLEEP, "300000"]})
    colony.start()
    pids = running(colony, "web:0", "web:1")
    assert arguments_of(pids["web:0"])[-1] == "300000"
    assert "NCOLONY_INDEX" not in environment_of(pids["web:0"])
    assert colony.wait_for_status("web:0")["file"] == "web:0"
    colony.remove("web:0")
    colony.wait_until_dead(pids["web:0"])
    pid = colony.wait_for(
        lambda: (colony.status("web:0") or {}).get("file") == "web" and colony.status("web:0")["pid"],  # type: ignore[index]
        "the copy has come",
    )
    assert environment_of(pid)["NCOLONY_INDEX"] == "0"
    assert colony.wait_until_running("web:1", instance=1) == pids["web:1"]
    colony.put("web:0", {"args": [SLEEP, "300000"]})
    colony.wait_until_dead(pid)
    assert arguments_of(colony.wait_until_running("web:0", file="web:0"))[-1] == "300000"


def test_the_name_of_the_file_does_not_mean_another_file(colony: Colony) -> None:
    """A message to `web` is for the copies that its file defines, and not for what a file `web:0` defines."""
    colony.put("web", {**RUN, "instances": 2})
    colony.put("web:0", {"args": [SLEEP, "300000"]})
    colony.start()
    pids = running(colony, "web:0", "web:1")
    answer = colony.send({"type": "STOP", "name": "web"})
    assert (answer["state"], answer["names"]) == ("done", ["web:1"])
    colony.wait_for_status("web:1", state="STOPPED")
    assert running(colony, "web:0", instance=1) == {"web:0": pids["web:0"]}


def test_from_plain_to_copies_and_back(colony: Colony) -> None:
    """A plain process is replaced by copies and these by a plain process; nothing is left of what was before."""
    colony.put("web", RUN)
    colony.start()
    plain = colony.wait_until_running("web")
    colony.put("web", {**RUN, "instances": 2})
    pids = running(colony, *copies(2))
    colony.wait_until_forgotten("web")
    colony.wait_until_dead(plain)
    colony.put("web", RUN)
    again = colony.wait_until_running("web")
    for name in copies(2):
        colony.wait_until_forgotten(name)
    colony.wait_until_dead(*pids.values())
    assert sleepers(colony) == {again}


def test_messages_to_all_and_to_one(colony: Colony) -> None:
    """STOP, START, RESTART and SIGNAL of the file's name are for every copy, those of `web:1` for that one."""
    colony.put("web", {"args": colony.payload("web", "signals", "TERM"), "instances": 3})
    colony.start()
    running(colony, *THREE)
    colony.wait_for_notes("web", 3)
    for name, count in (("web", 3), ("web:1", 4)):
        assert colony.send({"type": "SIGNAL", "name": name, "signal": "USR1"})["state"] == "done"
        colony.wait_for_notes("web", count, "got USR1")
    assert len(colony.notes("web", "got USR1")) == 4
    answer = colony.send({"type": "STOP", "name": "web:1"})
    assert (answer["state"], answer["names"]) == ("done", ["web:1"])
    running(colony, "web:0", "web:2", instance=1)
    answer = colony.send({"type": "RESTART", "name": "web"})
    assert (answer["state"], sorted(answer["names"])) == ("done", [*THREE])
    running(colony, *THREE, instance=2)
    answer = colony.send({"type": "STOP", "name": "web"})
    assert (answer["state"], sorted(answer["names"])) == ("done", [*THREE])
    for name in THREE:
        colony.wait_for_status(name, state="STOPPED", wanted="down")
    assert colony.send({"type": "SIGNAL", "name": "web", "signal": "USR1"})["state"] == "failed"
    assert colony.send({"type": "START", "name": "web:1"})["names"] == ["web:1"]
    running(colony, "web:1", instance=3)
    answer = colony.send({"type": "START", "name": "web"})
    assert (answer["state"], sorted(answer["names"])) == ("done", [*THREE])
    running(colony, *THREE, instance=3)
    for unknown in ("web:3", "web:01", "web:", "web:-1", "web:0:0"):
        assert colony.send({"type": "RESTART", "name": unknown})["state"] == "failed", unknown


def test_a_stopped_copy_stays_stopped(colony: Colony) -> None:
    """A copy that was stopped stays so while others come and go, and while supervisors do."""
    colony.put("web", {**RUN, "instances": 3})
    colony.start()
    running(colony, *THREE)
    assert colony.send({"type": "STOP", "name": "web:1"})["state"] == "done"
    colony.put("web", {**RUN, "instances": 5})
    pids = running(colony, "web:0", "web:2", "web:3", "web:4")
    colony.wait_for_status("web:1", state="STOPPED", instance=1)
    colony.kill()
    colony.start()
    assert running(colony, *pids, instance=1) == pids
    colony.put("web", {**RUN, "instances": 2})
    colony.wait_for(lambda: colony.known() == {"web:0", "web:1"}, "two are left")
    colony.scan()
    colony.wait_for_status("web:1", state="STOPPED", wanted="down", instance=1)
    assert running(colony, "web:0", instance=1) == {"web:0": pids["web:0"]}


def test_removal(colony: Colony) -> None:
    """The removal of the file stops and forgets every copy, and nobody else."""
    colony.put("web", {**RUN, "instances": 3})
    colony.put("echo", RUN)
    colony.start()
    pids, other = running(colony, *THREE), colony.wait_until_running("echo")
    colony.remove("web")
    colony.wait_until_dead(*pids.values())
    colony.wait_for(lambda: colony.known() == {"echo"}, "copies are forgotten")
    assert colony.wait_until_running("echo", instance=1) == other


@pytest.mark.parametrize("meanwhile", [3, 2, 4, "removed", "plain"])
def test_supervisors_come_and_go(colony: Colony, meanwhile: int | str) -> None:
    """Copies survive the supervisor's SIGKILL, and what the file says meanwhile is so when the next one has come."""
    colony.put("web", {**RUN, "instances": 3})
    colony.start()
    pids = running(colony, *THREE)
    colony.kill()
    if meanwhile == "removed":
        colony.remove("web")
    else:
        colony.put("web", RUN if meanwhile == "plain" else {**RUN, "instances": meanwhile})
    colony.start()
    expected = ["web"] if meanwhile == "plain" else [] if meanwhile == "removed" else copies(int(meanwhile))
    colony.wait_for(lambda: colony.known() == set(expected), f"there are {expected}")
    now = running(colony, *expected, instance=1)
    assert all(now[name] == pids.get(name, now[name]) for name in now)
    colony.wait_for(lambda: sleepers(colony) == set(now.values()), "nothing else runs")


def test_an_upgrade_in_place(colony: Colony) -> None:
    """No copy notices an upgrade, and scaling goes on after it."""
    colony.put("web", {**RUN, "instances": 3})
    colony.start()
    pids = running(colony, *THREE)
    colony.scan()
    answer = colony.send({"type": "UPGRADE"})
    assert answer["state"] == "done", answer
    assert running(colony, *THREE, instance=1) == pids
    colony.put("web", {**RUN, "instances": 2})
    colony.wait_until_forgotten("web:2")
    assert running(colony, *copies(2), instance=1) == {name: pids[name] for name in copies(2)}


def test_pid_files(colony: Colony, tmp_path: Path) -> None:
    """Each copy has its file in the directory of --pid, while it runs."""
    pids = tmp_path / "pids"
    colony.put("web", {**RUN, "instances": 3})
    colony.start("--pid", str(pids))

    def are(expected: dict[str, int]) -> bool:
        found = {path.name: path.read_text() for path in pids.iterdir() if not path.name.endswith(".new")}
        return found == {name: f"{pid}\n" for name, pid in expected.items()}

    now = running(colony, *THREE)
    colony.wait_for(lambda: are(now), "each has its file")
    colony.put("web", {**RUN, "instances": 1})
    colony.wait_for(lambda: are({"web:0": now["web:0"]}), "one is left")


def test_groups(colony: Colony) -> None:
    """Every copy is in the groups of its file."""
    colony.put("web", {**RUN, "instances": 2, "group": "front"})
    colony.put("echo", {**RUN, "group": ["front", "back"]})
    colony.put("other", RUN)
    colony.start()
    running(colony, "web:0", "web:1", "echo", "other")
    answer = colony.send({"type": "RESTART-GROUP", "group": "front"})
    assert (answer["state"], sorted(answer["names"])) == ("done", ["echo", "web:0", "web:1"])
    running(colony, "web:0", "web:1", "echo", instance=2)
    running(colony, "other", instance=1)


def test_a_new_file_like_a_copy_that_is_no_number(colony: Colony) -> None:
    """Files `web:x` and `web:00` are processes of their own beside copies of `web`."""
    colony.put("web", {**RUN, "instances": 1})
    for name in ("web:x", "web:00", "web:0:0"):
        colony.put(name, RUN)
    colony.start()
    pids = running(colony, "web:0", "web:x", "web:00", "web:0:0")
    colony.remove("web")
    colony.wait_until_forgotten("web:0")
    colony.scan()
    del pids["web:0"]
    assert running(colony, *pids, instance=1) == pids
