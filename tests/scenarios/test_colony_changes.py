"""What a change of a config file does, and to whom."""

from __future__ import annotations

import json
from typing import Any

import pytest

from colony import MARK, SLEEP, Colony, arguments_of, environment_of, is_alive


def test_equal_values_do_nothing(colony: Colony) -> None:
    """White space, key order and a rewrite of the same bytes restart nobody."""
    written = colony.put("web", {"args": [SLEEP, "100000"], "threshold": 5, "mycorp.owner": {"a": 1, "b": [2, 3]}})
    colony.start()
    pid = colony.wait_until_running("web")
    same = [
        json.dumps(written).encode(),
        json.dumps(written, indent=8).encode() + b"\n\n",
        json.dumps(dict(reversed(written.items())), separators=(",", ":")).encode(),
        json.dumps({**written, "mycorp.owner": {"b": [2, 3], "a": 1}}, ensure_ascii=True).encode(),
    ]
    for data in same:
        colony.put("web", data)
        colony.scan()
        assert colony.wait_until_running("web", instance=1) == pid
        assert is_alive(pid)


LIVE: dict[str, Any] = {
    "restart": "on-failure",
    "success_codes": [0, 4],
    "threshold": 7,
    "kill_time": 0.2,
    "min_restart_delay": 2,
    "max_restart_delay": 9,
    "jitter": 0.3,
    "stop": [["INT", 0.2]],
    "stop_scope": "process",
}


def test_live_keys_restart_nobody(colony: Colony) -> None:
    """A change of any live key applies at once and leaves the running instance alone."""
    config = {"args": [SLEEP, "100000"]}
    for key in LIVE:
        colony.put(key, config)
    colony.start()
    pids = {key: colony.wait_until_running(key) for key in LIVE}
    for key, value in LIVE.items():
        colony.put(key, {**config, key: value})
    colony.scan()
    assert {key: colony.wait_until_running(key, instance=1) for key in LIVE} == pids
    for key in LIVE:  # back again: removal of a live key is a change of a live key
        colony.put(key, config)
    colony.scan()
    assert {key: colony.wait_until_running(key, instance=1) for key in LIVE} == pids
    assert all(is_alive(pid) for pid in pids.values())


def test_a_new_stop_list_is_used(colony: Colony) -> None:
    """A changed `stop` applies to the instance that runs already."""
    config = {"args": colony.payload("web", "signals", "USR2"), "kill_time": 60}
    colony.put("web", config)
    colony.start()
    colony.wait_for_notes("web")
    pid = colony.wait_until_running("web")
    colony.put("web", {**config, "stop": [["USR2", 60]]})
    colony.scan()
    colony.remove("web")
    colony.wait_until_dead(pid, timeout=20)
    assert [line.split()[1] for line in colony.notes("web", "got ") if "CONT" not in line] == ["USR2"]


def test_a_new_restart_policy_is_used(colony: Colony) -> None:
    """A changed `restart` decides about the exit of the instance that runs already."""
    trigger = colony.root / "trigger"
    config = {"args": colony.payload("web", "leave_when", 3, trigger)}
    colony.put("web", config)
    colony.start()
    colony.wait_until_running("web")
    colony.put("web", {**config, "restart": "never"})
    colony.scan()
    trigger.touch()
    colony.wait_for_status("web", state="EXITED", instance=1)


CHANGES: dict[str, dict[str, Any]] = {
    "args": {"args": [SLEEP, "200000"]},
    "env": {"env": {"COLOUR": "red"}},
    "env_inherit": {"env_inherit": ["PATH"]},
    "cwd": {"cwd": "/"},
    "umask": {"umask": "077"},
    "group": {"group": ["all"]},
    "log": {"log": {"forward": False}},
    "extras": {"owner": "alice"},
    "dotted": {"ncolony.httpcheck": {"url": "http://localhost/"}},
}


def test_any_other_change_restarts_once(colony: Colony) -> None:
    """A change of anything else, group, dotted keys and extras included, restarts that process, once."""
    config = {"args": [SLEEP, "100000"]}
    for name in (*CHANGES, "bystander"):
        colony.put(name, config)
    colony.start()
    pids = {name: colony.wait_until_running(name) for name in (*CHANGES, "bystander")}
    for name, change in CHANGES.items():
        colony.put(name, {**config, **change})
    for name in CHANGES:
        assert colony.wait_until_running(name, instance=2) != pids[name]
        assert not is_alive(pids[name])
    colony.scan()
    for name in CHANGES:
        colony.wait_until_running(name, instance=2)
    assert colony.wait_until_running("bystander", instance=1) == pids["bystander"]
    assert arguments_of(colony.wait_until_running("args"))[-1] == "200000"
    assert environment_of(colony.wait_until_running("env"))["COLOUR"] == "red"


def test_a_change_ends_backoff(colony: Colony) -> None:
    """A changed definition is started at once although the process waits out a long delay."""
    colony.put("web", {"args": colony.payload("web", "leave", 1)})
    colony.start("-m", "60", "-M", "60")
    colony.wait_for_status("web", state="BACKOFF")
    colony.put("web", {"args": colony.payload("web", "serve")})
    colony.wait_until_running("web", timeout=20, instance=2)


def test_the_newest_definition_wins(colony: Colony) -> None:
    """Of many changes in quick succession the last one is what runs, and only one instance of it."""
    colony.put("web", {"args": colony.payload("web", "serve", "0")})
    colony.start()
    colony.wait_until_running("web")
    for number in range(1, 11):
        colony.put("web", {"args": colony.payload("web", "serve", number)})

    def newest() -> int | None:
        status = colony.status("web")
        pid = status["pid"] if status and status["state"] == "RUNNING" else None
        return pid if pid and arguments_of(pid)[-1:] == ["10"] else None

    pid = colony.wait_for(newest, "the newest definition runs")
    colony.scan()
    assert newest() == pid
    payloads = [p for p in colony.processes() if "serve" in arguments_of(p)]
    assert payloads == [pid]


def test_a_change_during_a_stop(colony: Colony) -> None:
    """A definition that changes again while the old instance is still stopping is the one that is started."""
    stubborn = colony.payload("web", "signals")
    colony.put("web", {"args": stubborn, "kill_time": 1})
    colony.start()
    colony.wait_for_notes("web")
    colony.put("web", {"args": [*stubborn, "second"], "kill_time": 1})
    colony.wait_for_status("web", state="STOPPING")
    colony.put("web", {"args": [SLEEP, "100000"], "kill_time": 1})
    pid = colony.wait_until_running("web", instance=2)
    assert arguments_of(pid) == [SLEEP, "100000"]
    assert len(colony.notes("web", "up")) == 1


def test_removal_and_return(colony: Colony) -> None:
    """Removing the file stops the process and forgets it; the file's return starts it anew."""
    config = {"args": [SLEEP, "100000"]}
    colony.put("web", config)
    colony.put("echo", config)
    colony.start()
    pid, other = colony.wait_until_running("web"), colony.wait_until_running("echo")
    colony.remove("web")
    colony.wait_until_dead(pid)
    colony.wait_until_forgotten("web")
    colony.put("web", config)
    assert colony.wait_until_running("web") != pid
    assert colony.wait_until_running("echo", instance=1) == other


def test_return_while_stopping(colony: Colony) -> None:
    """A file that returns while its process is still stopping gets a new instance after the old one is gone."""
    config = {"args": colony.payload("web", "signals"), "kill_time": 0.5}
    colony.put("web", config)
    colony.start()
    colony.wait_for_notes("web")
    pid = colony.wait_until_running("web")
    colony.remove("web")
    colony.wait_for_notes("web", beginning="got TERM")
    colony.put("web", config)
    colony.wait_for_notes("web", 2)
    assert not is_alive(pid)
    colony.wait_until_running("web")
    assert len(colony.notes("web", "up")) == 2


def test_removal_during_backoff(colony: Colony) -> None:
    """A process removed while it waits for its next try is forgotten and never started again."""
    colony.put("web", {"args": colony.payload("web", "leave", 1)})
    colony.put("echo", {"args": [SLEEP, "100000"]})
    colony.start("-m", "0.3", "-M", "0.3")
    colony.wait_for_status("web", state="BACKOFF")
    colony.remove("web")
    colony.wait_until_forgotten("web")
    started = len(colony.notes("web"))
    # Longer than the delay: seen by a process that dies and returns after the same delay, twice.
    colony.put("clock", {"args": colony.payload("clock", "leave", 1)})
    colony.wait_for_notes("clock", 3)
    assert len(colony.notes("web")) == started
    assert colony.status("web") is None


def test_a_bad_change_keeps_the_last_good_definition(colony: Colony) -> None:
    """A bad change leaves the instance running and is shown as a problem; the good file again clears it."""
    good = colony.put("web", {"args": [SLEEP, "100000"]})
    colony.start()
    pid = colony.wait_until_running("web")
    for bad, cause in ((b'{"args": 5}', "args"), (b'{"args": ["sleep", ', "web"), (b"", "web")):
        colony.put("web", bad)
        assert cause in colony.wait_for_problem("web")
        colony.scan()
        assert colony.wait_until_running("web", instance=1) == pid
        colony.put("web", json.dumps(good).encode())
        colony.wait_for_status("web", problem=None, state="RUNNING", pid=pid)
    assert is_alive(pid)


def test_the_last_good_definition_is_also_started_again(colony: Colony) -> None:
    """While its file is bad a process is restarted with its last good definition."""
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.start()
    pid = colony.wait_until_running("web")
    colony.put("web", b"{")
    colony.wait_for_problem("web")
    assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
    again = colony.wait_until_running("web", instance=2)
    assert again != pid
    assert arguments_of(again) == [SLEEP, "100000"]


def test_a_bad_file_can_be_removed(colony: Colony) -> None:
    """A file that never was good has a status with its problem, which goes when the file goes."""
    colony.put("web", b"not json")
    colony.start()
    colony.wait_for_problem("web")
    colony.remove("web")
    colony.wait_until_forgotten("web")


@pytest.mark.parametrize("stopped", [False, True], ids=["wanted-up", "stopped"])
def test_a_change_starts(colony: Colony, stopped: bool) -> None:
    """A STOP holds until the next START, config change or RESTART: a changed file runs, stopped before or not."""
    config = {"args": [SLEEP, "100000"]}
    colony.put("web", config)
    colony.start()
    colony.wait_until_running("web")
    if stopped:
        assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
        colony.wait_for_status("web", state="STOPPED", wanted="down")
    colony.put("web", {**config, "env": {"COLOUR": "red"}})
    pid = colony.wait_until_running("web", instance=2)
    assert environment_of(pid)[MARK] == colony.mark
    assert environment_of(pid)["COLOUR"] == "red"
