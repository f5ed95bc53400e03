"""The supervisor's death, and the keeper's: what runs goes on, and nothing is lost or doubled."""

from __future__ import annotations

import os
import re
import signal
import time

from colony import SLEEP, Colony, arguments_of, is_alive


def ticks(lines: list[str]) -> list[int]:
    return [int(line.removeprefix("tick ")) for line in lines if re.fullmatch(r"tick \d+", line)]


def last_tick(colony: Colony, name: str) -> int:
    """The number of the last line that a process, now ended, printed by its own account."""
    (line,) = colony.wait_for_notes(name, beginning="last ")
    return int(line.split()[1])


def test_processes_outlive_the_supervisor(colony: Colony) -> None:
    """SIGKILL of the supervisor ends no process; the next supervisor carries on with the same pids, and no second."""
    colony.put("silent", {"args": colony.payload("silent", "serve")})
    colony.put("printing", {"args": colony.payload("printing", "tick", 0.01)})
    colony.put("family", {"args": colony.payload("family", "daemon")})
    colony.start()
    names = ("silent", "printing", "family")
    for name in names:
        colony.wait_for_notes(name)
    pids = {name: colony.wait_until_running(name) for name in names}
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    before = {name: colony.status(name) for name in names}
    colony.kill()
    seen = len(colony.notes("printing", "tick"))
    colony.wait_for_notes("printing", seen + 20, beginning="tick ")
    assert all(is_alive(pid) for pid in pids.values())
    assert colony.keeper_pid() == keeper
    colony.start()
    colony.scan()
    for name in names:
        assert colony.wait_until_running(name, instance=1, wanted="up") == pids[name]
        assert len(colony.notes(name, "up")) == 1
        status, former = colony.status(name), before[name]
        assert status and former
        assert abs(status["started"] - former["started"]) < 1
    assert colony.keeper_pid() == keeper
    colony.remove("family")
    colony.wait_until_forgotten("family")
    assert not is_alive(colony.pids("family", "child")[0])


def test_output_outlives_the_supervisor(colony: Colony) -> None:
    """Every line printed before, during and after the supervisor's absence is kept in logs/ once, in order."""
    colony.put("web", {"args": colony.payload("web", "tick", 0.005)})
    colony.start()
    for _ in range(2):
        seen = len(colony.notes("web", "tick"))
        colony.wait_for_notes("web", seen + 40, beginning="tick ")
        colony.kill()
        colony.wait_for_notes("web", seen + 80, beginning="tick ")
        colony.start()
    seen = len(colony.notes("web", "tick"))
    colony.wait_for_notes("web", seen + 20, beginning="tick ")
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    last = last_tick(colony, "web")
    colony.wait_for(lambda: f"tick {last}\n" in colony.output("web").decode(), "the last line is kept")
    assert ticks(colony.output("web").decode().splitlines()) == list(range(1, last + 1))


def test_the_log_goes_on_where_it_ended(colony: Colony) -> None:
    """Every line printed before, during and after the supervisor's absence is in its log once, in order."""
    colony.put("web", {"args": colony.payload("web", "tick", 0.005)})
    colony.start()
    for _ in range(2):
        seen = len(colony.notes("web", "tick"))
        colony.wait_for_notes("web", seen + 40, beginning="tick ")
        colony.kill()
        colony.wait_for_notes("web", seen + 80, beginning="tick ")
        colony.start()
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    last = last_tick(colony, "web")
    colony.wait_for(lambda: f"tick {last}" in colony.lines("web"), "the last line is logged")
    assert ticks(colony.lines("web")) == list(range(1, last + 1))


def test_last_words_without_a_supervisor(colony: Colony) -> None:
    """What a process printed before it ended, while nobody supervised, is in the next supervisor's log."""
    trigger = colony.root / "trigger"
    script = 'while [ ! -e "$0" ]; do sleep 0.01; done; echo "last words"; printf unfinished; exit 7'
    colony.put("web", {"args": ["/bin/sh", "-c", script, str(trigger)], "restart": "never"})
    colony.start()
    pid = colony.wait_until_running("web")
    colony.kill()
    trigger.touch()
    colony.wait_until_dead(pid)
    colony.start()
    colony.wait_for(lambda: colony.lines("web") == ["last words", "unfinished"], "the last words are logged")


def test_an_exit_without_a_supervisor(colony: Colony) -> None:
    """The exit code of an instance that ended while nobody supervised is known afterwards, and policy applies."""
    for name, policy in (("final", "never"), ("again", "always")):
        args = colony.payload(name, "leave_when", 7, colony.root / "trigger")
        colony.put(name, {"args": args, "restart": policy})
    colony.start("-m", "0.05", "-M", "0.05")
    pids = [colony.wait_until_running(name) for name in ("final", "again")]
    colony.kill()
    (colony.root / "trigger").touch()
    colony.wait_until_dead(*pids)
    colony.put("again", {"args": colony.payload("again", "serve")})
    colony.start("-m", "0.05", "-M", "0.05")
    status = colony.wait_for_status("final", state="EXITED", instance=1, pid=None)
    assert (status["last_exit"]["code"], status["last_exit"]["signal"]) == (7, None)
    colony.wait_until_running("again", instance=2)
    assert colony.wait_for_status("again", state="RUNNING")["last_exit"]["code"] == 7
    colony.wait_for(lambda: len(colony.notes("again")) >= 2, "the second instance has said so")
    assert (len(colony.notes("final")), len(colony.notes("again"))) == (1, 2)


def test_a_death_by_signal_without_a_supervisor(colony: Colony) -> None:
    """The signal that ended an instance while nobody supervised is known afterwards."""
    colony.put("web", {"args": [SLEEP, "100000"], "restart": "never"})
    colony.start()
    pid = colony.wait_until_running("web")
    colony.kill()
    os.kill(pid, signal.SIGINT)
    colony.wait_until_dead(pid)
    colony.start()
    assert colony.wait_for_status("web", state="EXITED")["last_exit"]["signal"] == "INT"


def test_changes_without_a_supervisor(colony: Colony) -> None:
    """Files removed, changed, reformatted and added meanwhile are acted on when there is a supervisor again, once."""
    names = ("removed", "changed", "reformatted", "disabled", "bad")
    for name in names:
        colony.put(name, {"args": colony.payload(name, "serve")})
    colony.start()
    pids = {name: colony.wait_until_running(name) for name in names}
    for name in names:
        colony.wait_for_notes(name)
    colony.kill()
    colony.remove("removed")
    colony.put("changed", {"args": colony.payload("changed", "serve", "new")})
    colony.put("reformatted", (colony.config / "reformatted").read_bytes() + b"\n  \n")
    colony.put("disabled", {"args": colony.payload("disabled", "serve"), "enabled": False})
    colony.put("bad", b"{")
    colony.put("added", {"args": colony.payload("added", "serve")})
    assert all(is_alive(pid) for pid in pids.values())
    colony.start()
    colony.wait_until_forgotten("removed")
    assert not is_alive(pids["removed"])
    assert arguments_of(colony.wait_until_running("changed", instance=2))[-1] == "new"
    colony.wait_for_status("disabled", state="STOPPED", pid=None)
    colony.wait_until_running("added", instance=1)
    colony.wait_for_problem("bad")
    colony.scan()
    assert colony.wait_until_running("reformatted", instance=1) == pids["reformatted"]
    assert colony.wait_until_running("bad", instance=1) == pids["bad"]
    colony.wait_until_running("changed", instance=2)
    assert len(colony.notes("reformatted")) == 1
    for name in ("changed", "added"):
        colony.wait_for_notes(name, 1 if name == "added" else 2)


def test_a_restart_asked_for_without_a_supervisor(colony: Colony) -> None:
    """A message written while the supervisor is dead is handled by the next one, once."""
    colony.put("web", {"args": colony.payload("web", "serve")})
    colony.start()
    colony.wait_for_notes("web")
    colony.kill()
    message = colony.post({"type": "RESTART", "name": "web"})
    colony.start()
    assert colony.wait_for_answer(message)["state"] == "done"
    colony.wait_for_notes("web", 2)
    colony.wait_until_running("web", instance=2)
    colony.scan()
    assert len(colony.notes("web")) == 2


def test_backoff_goes_on_after_our_death(colony: Colony) -> None:
    """A process in a long backoff is held by the next supervisor: RESTART starts it, and the new delays apply."""
    colony.put("web", {"args": colony.payload("web", "leave", 1)})
    colony.start("-m", "300", "-M", "300")
    colony.wait_for_status("web", state="BACKOFF", instance=1)
    colony.kill()
    colony.start("-m", "0.1", "-M", "0.1")
    assert colony.send({"type": "RESTART", "name": "web"})
    colony.wait_for_notes("web", 3)


def test_killed_while_stopping(colony: Colony) -> None:
    """A stop that the supervisor began is brought to its end by the next one."""
    colony.put("web", {"args": colony.payload("web", "signals"), "kill_time": 0.5})
    colony.start()
    colony.wait_for_notes("web")
    pid = colony.wait_until_running("web")
    colony.remove("web")
    colony.wait_for_notes("web", beginning="got TERM")
    colony.kill()
    colony.start()
    colony.wait_until_dead(pid)
    colony.wait_until_forgotten("web")
    assert len(colony.notes("web", "up")) == 1


def test_killed_again_and_again(colony: Colony) -> None:
    """A supervisor killed right after each of its starts doubles nobody and loses nobody."""
    names = [f"p{number}" for number in range(5)]
    for name in names:
        colony.put(name, {"args": colony.payload(name, "serve")})
    colony.start()
    for _ in range(3):
        colony.kill()
        colony.start()
    pids = [colony.wait_until_running(name, instance=1) for name in names]
    for name in names:
        colony.wait_for_notes(name)
    assert [colony.pids(name) for name in names] == [[pid] for pid in pids]


def test_one_crashing_supervisor_start(colony: Colony) -> None:
    """A supervisor killed while it starts processes doubles none of them: each start is noted by the process."""
    names = [f"p{number}" for number in range(10)]
    colony.start()
    for name in names:
        colony.put(name, {"args": colony.payload(name, "serve")})
    colony.kill()  # somewhere among the ten
    colony.start()
    for name in names:
        colony.wait_for_notes(name)
        colony.wait_until_running(name)
    colony.scan()
    alive = [pid for pid in colony.processes() if "serve" in arguments_of(pid)]
    assert len(alive) == len(names)
    assert sorted(alive) == sorted(colony.wait_until_running(name) for name in names)


def test_the_keepers_death(colony: Colony) -> None:
    """SIGKILL of the keeper ends no process: there is a new keeper, and the same instances are held and stopped."""
    colony.put("web", {"args": colony.payload("web", "tick", 0.01)})
    colony.put("echo", {"args": [SLEEP, "100000"]})
    colony.start()
    pids = {name: colony.wait_until_running(name) for name in ("web", "echo")}
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    os.kill(keeper, signal.SIGKILL)
    colony.wait_for(lambda: colony.keeper_pid() not in (None, keeper), "there is a new keeper")
    seen = len(colony.notes("web", "tick"))
    colony.wait_for_notes("web", seen + 20, beginning="tick ")
    colony.scan()
    for name, pid in pids.items():
        assert colony.wait_until_running(name, instance=1) == pid
    assert colony.send({"type": "RESTART", "name": "echo"})["state"] == "done"
    assert not is_alive(pids["echo"])
    colony.wait_until_running("echo", instance=2)
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    last = last_tick(colony, "web")
    colony.wait_for(lambda: f"tick {last}" in colony.lines("web"), "the last line is logged")
    assert ticks(colony.lines("web")) == list(range(1, last + 1))


def test_both_deaths(colony: Colony) -> None:
    """SIGKILL of supervisor and keeper ends no process; the next supervisor holds the same instances again."""
    colony.put("web", {"args": colony.payload("web", "serve")})
    colony.start()
    colony.wait_for_notes("web")
    pid = colony.wait_until_running("web")
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    colony.kill()
    os.kill(keeper, signal.SIGKILL)
    colony.wait_until_dead(keeper)
    assert is_alive(pid)
    colony.start()
    colony.scan()
    assert colony.wait_until_running("web", instance=1) == pid
    assert len(colony.notes("web")) == 1
    colony.remove("web")
    colony.wait_until_forgotten("web")
    assert not is_alive(pid)


def test_an_orderly_stop_is_no_death(colony: Colony) -> None:
    """After an orderly stop a new supervisor starts everything anew, with a new keeper."""
    colony.put("web", {"args": colony.payload("web", "serve")})
    colony.start()
    colony.wait_for_notes("web")
    first = colony.wait_until_running("web")
    assert colony.stop() == 0
    assert not is_alive(first)
    begun = time.time()
    colony.start()
    colony.wait_for_notes("web", 2)
    pid = colony.wait_until_running("web")
    assert pid == colony.pids("web")[1]
    status = colony.status("web")
    assert status and status["started"] >= begun - 1
