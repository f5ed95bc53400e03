"""Many files at once: what else is asked for has its turn, and means what was written before it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from colony import SLEEP, Colony, arguments_of, is_alive, put_whole

LASTING = {"args": [SLEEP, "100000"]}


@contextmanager
def held(colony: Colony) -> Iterator[None]:
    """What is done meanwhile is there all at once when the supervisor goes on."""
    pid = colony.supervisor_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def prepare(colony: Colony, files: dict[str, dict[str, Any]]) -> Path:
    """Write these files into a directory beside the real one."""
    place, config = colony.root / "prepared", colony.config
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    colony.config = place
    try:
        for name, content in files.items():
            colony.put(name, content)
    finally:
        colony.config = config
    return place


def drop(colony: Colony, files: dict[str, dict[str, Any]]) -> list[str]:
    """Have these files appear in the config directory, whole, in this order."""
    place = prepare(colony, files)
    for name in files:
        (place / name).rename(colony.config / name)
    return list(files)


def many(count: int, content: dict[str, Any] = LASTING) -> dict[str, dict[str, Any]]:
    return {f"m{number:03}": content for number in range(count)}


def noting(colony: Colony, name: str) -> dict[str, Any]:
    """A process that notes each of its starts."""
    return {"args": ["/bin/sh", "-c", f"echo up $$ >> {colony.notes_directory}/{name}; exec {SLEEP} 100000"]}


def events(colony: Colony) -> list[dict[str, Any]]:
    """What has happened, in order."""
    found = []
    for name in ("events.old", "events"):
        path = colony.state / name
        found += path.read_bytes().splitlines() if path.exists() else []
    return [json.loads(line) for line in found]


def all_run(colony: Colony, names: list[str], **fields: object) -> dict[str, int]:
    """Wait until these processes run; their pids."""
    return {name: colony.wait_until_running(name, timeout=60, **fields) for name in names}


def are_running(colony: Colony, names: list[str]) -> list[str]:
    """Which of these are not RUNNING by their status as it is now, or are not alive."""
    odd = []
    for name in names:
        status = colony.status(name) or {}
        if status.get("state") != "RUNNING" or not is_alive(status["pid"]):
            odd.append(f"{name}: {status.get('state')} {status.get('reason')}")
    return odd


def test_messages_have_their_turn(colony: Colony) -> None:
    """While six hundred files are worked off, restarts of others are carried out: before the last of these runs."""
    old = [f"old{number}" for number in range(5)]
    for name in old:
        colony.put(name, LASTING)
    colony.start()
    before = all_run(colony, old)
    with held(colony):
        names = drop(colony, many(600))
        messages = [colony.post({"type": "RESTART", "name": name}) for name in old]
    for message in messages:
        assert colony.wait_for_answer(message, 60)["state"] == "done"
    pids = all_run(colony, [*old, *names])
    assert all(is_alive(pid) for pid in pids.values())
    assert not any(is_alive(pid) for pid in before.values())
    told = events(colony)
    done = [at for at, one in enumerate(told) if one["event"] == "message" and one["result"] == "done"]
    running = [at for at, one in enumerate(told) if one["event"] == "running" and one["name"] in names]
    assert len(done) == len(old)
    assert len(running) == 600
    assert max(done) < running[-1], f"answered as {done}, and they ran as {running[0]} … {running[-1]}"
    assert running[0] < running[-1] - 600  # and so was more than the files
    assert {one["instance"] for one in told if one["event"] == "running" and one["name"] in names} == {1}


def _itself(colony: Colony) -> Callable[[str], None]:
    colony.put("web", {"args": [SLEEP, "100000"]})
    return lambda seconds: put_whole(colony.config, "web", json.dumps({"args": [SLEEP, seconds]}).encode())


def _in_place(colony: Colony) -> Callable[[str], None]:
    colony.put("web", {"args": [SLEEP, "100000"]})
    return lambda seconds: (colony.config / "web").write_bytes(json.dumps({"args": [SLEEP, seconds]}).encode()) and None


def _target(colony: Colony) -> Callable[[str], None]:
    (colony.root / "target").write_bytes(json.dumps({"args": [SLEEP, "100000"]}).encode())
    (colony.config / "web").symlink_to("../target")
    return lambda seconds: (
        (colony.root / "target").write_bytes(json.dumps({"args": [SLEEP, seconds]}).encode()) and None
    )


def _by_another_name(colony: Colony) -> Callable[[str], None]:
    (colony.root / "other").write_bytes(json.dumps({"args": [SLEEP, "100000"]}).encode())
    os.link(colony.root / "other", colony.config / "web")
    return lambda seconds: (colony.root / "other").write_bytes(json.dumps({"args": [SLEEP, seconds]}).encode()) and None


def _copies(colony: Colony) -> Callable[[str], None]:
    colony.put("web", {"args": [SLEEP, "100000"], "instances": 3})
    text = json.dumps({"args": [SLEEP, "SECONDS"], "instances": 2})
    return lambda seconds: put_whole(colony.config, "web", text.replace("SECONDS", seconds).encode())


@pytest.mark.parametrize("burst", [0, 200])
@pytest.mark.parametrize(
    "way", [_itself, _in_place, _target, _by_another_name, _copies], ids=lambda way: way.__name__[1:]
)
def test_a_change_before_a_message(colony: Colony, way: Callable[[Colony], Callable[[str], None]], burst: int) -> None:
    """What was written before a message is applied before it, also while many other files wait to be."""
    write, name = way(colony), "web:0" if way is _copies else "web"
    colony.start("--frequency", "1000")
    colony.scan()
    pid = colony.wait_until_running(name)
    for number in range(2):
        seconds = str(200_000 + number)
        with held(colony):
            if number == 0:
                drop(colony, many(burst))
            write(seconds)
            message = colony.post({"type": "RESTART", "name": name})
        assert colony.wait_for_answer(message)["state"] == "done"
        status = colony.status(name)
        assert status
        assert status["state"] == "RUNNING"
        assert arguments_of(status["pid"])[1:] == [seconds]
        assert not is_alive(pid)
        pid = status["pid"]
    all_run(colony, list(many(burst)), instance=1)
    if way is _copies:
        colony.wait_until_forgotten("web:2")


def test_a_file_removed_before_a_message(colony: Colony) -> None:
    """A message about a process whose file was removed before it is about none, also in the midst of a burst."""
    colony.put("web", LASTING)
    colony.put("other", LASTING)
    colony.start("--frequency", "1000")
    all_run(colony, ["web", "other"])
    with held(colony):
        drop(colony, many(200))
        colony.remove("web")
        messages = [colony.post({"type": "RESTART", "name": name}) for name in ("web", "other")]
    assert colony.wait_for_answer(messages[0])["state"] == "failed"
    assert colony.wait_for_answer(messages[1])["state"] == "done"
    colony.wait_until_forgotten("web")
    all_run(colony, list(many(200)))
    reasons = [one["reason"] for one in events(colony) if (one["event"], one["name"]) == ("stopping", "web")]
    assert reasons == ["its file was removed"]


def test_three_hundred_removed(colony: Colony) -> None:
    """Files that are removed at once take their processes along, and nobody else's."""
    names = list(many(300))
    drop(colony, many(300))
    colony.put("web", LASTING)
    colony.start()
    pids = all_run(colony, names)
    web = colony.wait_until_running("web")
    for name in names[:150]:
        colony.remove(name)
    colony.wait_until_dead(*(pids[name] for name in names[:150]))
    colony.wait_for(lambda: not colony.known() & {*names[:150]}, "they are forgotten")
    with held(colony):
        for name in names[150:]:
            colony.remove(name)
        message = colony.post({"type": "RESTART", "name": "web"})
    assert colony.wait_for_answer(message)["state"] == "done"
    colony.wait_until_dead(*pids.values())
    colony.wait_for(lambda: colony.known() == {"web"}, "they are forgotten")
    assert colony.wait_until_running("web", instance=2) != web


ALL_OR_ONE = [{"type": "RESTART", "name": "m000"}, {"type": "RESTART-ALL"}, {"type": "SCAN"}]


def problems(colony: Colony) -> list[str]:
    return list((colony.supervisor() or {}).get("problems", ()))


@pytest.mark.parametrize(
    "message", [None, *ALL_OR_ONE], ids=lambda message: "nothing" if message is None else message["type"]
)
@pytest.mark.parametrize("way", ["removed", "moved"])
def test_the_directory_goes_and_comes_back(colony: Colony, way: str, message: dict[str, str] | None) -> None:
    """While the directory is away everything goes on, whatever is asked for; whoever is not in it afterwards goes."""
    names = list(many(100))
    drop(colony, many(100))
    colony.start("--frequency", "1" if message is None else "1000")
    pids = all_run(colony, names)
    if way == "removed":
        shutil.rmtree(colony.config)
    else:
        colony.config.rename(colony.root / "away")
    colony.wait_for(lambda: problems(colony), "somebody says so")
    if message is not None:
        for _ in range(2):
            colony.send(message)
            assert f"cannot read {colony.config}" in "".join(problems(colony))
    assert are_running(colony, names) == []
    if message is None or message["type"] == "SCAN":
        assert all(is_alive(pid) for pid in pids.values())
    prepare(colony, many(50)).rename(colony.config)
    if message is not None:
        assert colony.send({"type": "SCAN"})["state"] == "done"
    colony.wait_for(lambda: not problems(colony), "it is looked at")
    colony.wait_for(lambda: not colony.known() & {*names[50:]}, "the others are gone")
    assert are_running(colony, names[:50]) == []
    colony.wait_until_dead(*(pids[name] for name in names[50:]))
    drop(colony, many(100))
    if message is not None:
        assert colony.send({"type": "SCAN"})["state"] == "done"
    all_run(colony, names)


@pytest.mark.parametrize("way", ["directory", "link"])
def test_a_directory_in_place_of_a_file(colony: Colony, way: str) -> None:
    """A directory defines no process, nor does a link to one: what the file defined goes."""
    colony.put("web", LASTING)
    colony.start("--frequency", "1000")
    colony.wait_until_running("web")
    with held(colony):
        colony.remove("web")
        if way == "directory":
            (colony.config / "web").mkdir()
        else:
            (colony.config / "web").symlink_to("/")
    colony.wait_until_forgotten("web")
    colony.scan()
    assert colony.known() == set()


def test_a_directory_that_is_away_for_a_moment(colony: Colony) -> None:
    """Files that are removed and, with their directory, back at once were never gone."""
    names = list(many(100))
    drop(colony, many(100))
    colony.start("--frequency", "0.3")
    pids = all_run(colony, names)
    for _ in range(5):
        place = prepare(colony, many(100))
        shutil.rmtree(colony.config)
        while not problems(colony):
            pass  # a moment later it is too late
        place.rename(colony.config)
        colony.wait_for(lambda: not problems(colony), "it is looked at")
    assert all_run(colony, names, instance=1) == pids
    assert not [one for one in events(colony) if one["event"] in ("stopping", "gone")]


def test_another_directory_in_its_place(colony: Colony) -> None:
    """A directory that takes the place of the former in one moment is what counts from then on, and is watched."""
    names = list(many(100))
    drop(colony, many(100))
    colony.start("--frequency", "1")
    pids = all_run(colony, names)
    place = prepare(colony, {**many(50), "new": LASTING, "m000": {"args": [SLEEP, "200000"]}})
    with held(colony):
        colony.config.rename(colony.root / "away")
        place.rename(colony.config)
    colony.wait_until_running("new")
    colony.wait_for(lambda: colony.known() == {*names[:50], "new"}, "the others are gone")
    colony.wait_until_running("m000", instance=2)
    assert all(colony.wait_until_running(name, instance=1) == pids[name] for name in names[1:50])
    colony.put("later", LASTING)
    colony.wait_until_running("later")


@pytest.mark.parametrize("kind", ["RESTART-ALL", "RESTART-GROUP", "SCAN"])
def test_all_means_all(colony: Colony, kind: str) -> None:
    """A message about everything that was sent just after many files have come is about all of them."""
    colony.put("old", {**LASTING, "group": ["g"]})
    colony.put("stranger", LASTING)
    colony.start("--frequency", "1000")
    all_run(colony, ["old", "stranger"])
    files = many(200, {**LASTING, "group": ["g"]})
    with held(colony):
        names = drop(colony, files)
        message = colony.post({"type": kind, "group": "g"} if kind == "RESTART-GROUP" else {"type": kind})
    answer = colony.wait_for_answer(message, 60)
    assert answer["state"] == "done"
    more = {"RESTART-ALL": {"old", "stranger"}, "RESTART-GROUP": {"old"}, "SCAN": set[str]()}[kind]
    assert set(answer["names"]) == {*names, *more}
    if kind == "SCAN":
        all_run(colony, names, instance=1)
    else:
        assert are_running(colony, [*names, *more]) == []
        assert (colony.status("old") or {})["instance"] == 2


@pytest.mark.parametrize("rolling", [None, 50])
def test_what_is_answered_is_written(colony: Colony, rolling: int | None) -> None:
    """When all have been restarted, every status says so by the time of the answer."""
    names = list(many(150))
    drop(colony, many(150, {**LASTING, "threshold": 0.01}))
    colony.start("--frequency", "1000")
    all_run(colony, names)
    for number in range(2, 5):
        message = {"type": "RESTART-ALL"} | ({} if rolling is None else {"rolling": rolling})
        name = colony.post(message)
        while (answer := colony.answer(name)) is None or answer["state"] == "accepted":
            pass  # every moment counts
        found = {(status["state"], status["instance"]) for one in names if (status := colony.status(one))}
        assert answer["state"] == "done"
        assert found == {("RUNNING", number)}


def test_who_waits_for_whom_in_a_burst(colony: Colony) -> None:
    """Files that wait for each other come in any order, with messages between: each starts after those it waits for."""
    chain = [f"c{number:02}" for number in range(40)]
    files = {
        name: {**noting(colony, name), **({"after": {chain[at + 1]: "started"}} if at + 1 < len(chain) else {})}
        for at, name in enumerate(chain)
    }
    ring = {f"r{at}": {**LASTING, "after": {f"r{(at + 1) % 3}": "started"}} for at in range(3)}
    colony.put("old", LASTING)
    colony.start("--frequency", "1000")
    colony.wait_until_running("old")
    with held(colony):
        drop(colony, {**files, "r0": ring["r0"], **many(150), "r1": ring["r1"], "r2": ring["r2"]})
        messages = [colony.post({"type": "RESTART", "name": name}) for name in ("old", "r0", "old")]
    states = [colony.wait_for_answer(message)["state"] for message in (messages[0], messages[2])]
    assert states == ["done", "done"]
    all_run(colony, [*chain, *many(150)], instance=1)
    for name in chain:
        assert len(colony.wait_for_notes(name)) == 1
    started = [one["name"] for one in events(colony) if one["event"] == "running" and one["name"] in chain]
    assert started == list(reversed(chain))
    for name in ring:
        assert "they wait for each other" in colony.wait_for_problem(name)
        assert (colony.status(name) or {})["pid"] is None
    colony.put("r1", LASTING)
    all_run(colony, list(ring))
    colony.wait_for_answer(messages[1])


@pytest.mark.parametrize("victim", ["supervisor", "keeper", "both"])
def test_killed_in_the_midst(colony: Colony, victim: str) -> None:
    """Whoever is killed while many files are worked off: in the end each process runs, and was started once."""
    names = list(many(300))
    files = {name: noting(colony, name) for name in names}
    colony.put("old", LASTING)
    colony.start()
    old = colony.wait_until_running("old")
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    with held(colony):
        drop(colony, files)

    def some() -> bool:
        return len(os.listdir(colony.notes_directory)) >= 40

    colony.wait_for(some, "some have been started")
    if victim != "keeper":
        colony.kill()
    if victim != "supervisor":
        os.kill(keeper, signal.SIGKILL)
    assert len(os.listdir(colony.notes_directory)) < 300, "that was too late to prove anything"
    if victim != "keeper":
        colony.start()
    pids = all_run(colony, names)
    assert colony.wait_until_running("old", instance=1) == old
    for name in names:
        assert colony.wait_for_notes(name) == [f"up {pids[name]}"]
    assert all(is_alive(pid) for pid in pids.values())
