"""A job that is asked to run once runs once, at whatever point of its life supervisor, keeper or both are killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from colony import Colony, is_alive, put_whole, read_json

POINTS = [
    "message.read", "spawn.named", "spawn.fifo", "spawn.ordered", "message.acted", "start.ordered", "start.intent",
    "start.spawned", "start.recorded", "started.told", "exit.seen", "exit.noted", "exit.reaped", "exit.told",
    "exited.told", "exited.decided", "exited.recorded", "forget.before", "forget.ordered", "forget.done",
]  # fmt: skip
VICTIMS = ["supervisor", "keeper", "both"]


# Killed here the keeper has begun a run and not noted it: it is found as long as it lives.
UNNOTED = "start.spawned"
SCHEDULE = {"cron": "0 0 29 2 *"}


@pytest.mark.parametrize("victims", VICTIMS)
def test_one_request_is_one_run(colony: Colony, victims: str) -> None:
    """Each START makes one run and no more, and the job is at rest afterwards."""
    kills, go = colony.root / "kills", colony.root / "go"
    kills.mkdir()
    env = {**os.environ, "NCOLONY_KILL_AT": str(kills)}
    colony.put("ncolony-jobs", {"args": ["/bin/false"], "enabled": False})
    colony.put("quick", {"args": colony.payload("quick", "leave", 0), "schedule": SCHEDULE})
    colony.put("slow", {"args": colony.payload("slow", "leave_when", 0, str(go)), "schedule": SCHEDULE})
    colony.start(env=env)
    wrong = []
    for point in POINTS:
        name = "slow" if point == UNNOTED else "quick"
        before = len(colony.notes(name))
        go.unlink(missing_ok=True)
        answer = ask_and_kill(colony, name, kills / point, victims, env)
        go.touch()
        colony.wait_for_status(name, state="EXITED")
        settle(colony)
        if (ran := len(colony.notes(name)) - before) != 1:
            wrong.append((point, ran, answer))
    assert not wrong, f"{wrong}\n{colony.evidence()}"


def ask_and_kill(colony: Colony, name: str, point: Path, victims: str, env: dict[str, str]) -> dict[str, Any]:
    """Ask for a run, have them killed at the point, and start what was killed; the answer."""
    keeper = colony.wait_for(lambda: _keeper_of(colony), "the supervisor has a keeper")
    colony.wait_for(lambda: (colony.status(name) or {}).get("state") in ("STOPPED", "EXITED"), "it is at rest")
    assert colony.process
    pids = {"supervisor": [colony.process.pid], "keeper": [keeper], "both": [colony.process.pid, keeper]}[victims]
    put_whole(point.parent, point.name, " ".join(map(str, pids)).encode())
    asked = colony.post({"type": "START", "name": name})
    reached = point.with_name(f"{point.name}.reached")
    colony.wait_for(reached.exists, f"{point.name} is reached")
    reached.unlink()
    if victims != "keeper":
        colony.process.wait()
        assert colony.process.returncode == -signal.SIGKILL
        colony.launch(env=env)
    colony.wait_for(lambda: _keeper_of(colony), "the next one has a keeper")
    return colony.wait_for_answer(asked)


def _keeper_of(colony: Colony) -> int | None:
    about = colony.supervisor()
    if about is None or colony.process is None or about["pid"] != colony.process.pid or not about["keeper"]:
        return None
    return int(about["keeper"]) if is_alive(about["keeper"]) else None


def settle(colony: Colony) -> None:
    """Have every directory scanned twice, and see that nothing starts for a moment."""
    colony.scan()
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        time.sleep(0.02)


def test_one_request_waits_for_others_once(colony: Colony) -> None:
    """A run that waits for another process is not forgotten by the next supervisor, and comes once."""
    colony.put("ncolony-jobs", {"args": ["/bin/false"], "enabled": False})
    colony.put("db", {"args": colony.payload("db", "serve"), "enabled": False})
    colony.put("job", {"args": colony.payload("job", "leave", 0), "after": {"db": "started"}, "schedule": SCHEDULE})
    colony.start()
    colony.wait_for_status("job", state="STOPPED")
    asked = colony.post({"type": "START", "name": "job"})
    colony.wait_for_status("job", state="WAITING")
    colony.kill()
    colony.start()
    colony.wait_for_status("job", state="WAITING")
    assert not colony.notes("job")
    colony.put("db", {"args": colony.payload("db", "serve")})
    assert colony.wait_for_answer(asked)["state"] == "done"
    colony.wait_for_status("job", state="EXITED")
    settle(colony)
    assert len(colony.notes("job")) == 1


@pytest.mark.parametrize("victims", VICTIMS)
def test_a_run_whose_order_was_lost_has_not_failed(colony: Colony, victims: str) -> None:
    """Where the order to start a run dies with the keeper, the next keeper gets it, and there is nothing to retry."""
    kills = colony.root / "kills"
    kills.mkdir()
    env = {**os.environ, "NCOLONY_KILL_AT": str(kills)}
    colony.put("far", {"args": colony.payload("far", "leave", 0), "schedule": SCHEDULE})
    colony.start(env=env)
    colony.wait_for((colony.state / "jobs" / "far").exists, "the companion looks after jobs")
    keeper = colony.wait_for(lambda: _keeper_of(colony), "the supervisor has a keeper")
    assert colony.process
    pids = {"supervisor": [colony.process.pid], "keeper": [keeper], "both": [colony.process.pid, keeper]}[victims]
    put_whole(kills, "start.ordered", " ".join(map(str, pids)).encode())
    schedule = {"every": 3600, "retries": 3, "retry_delay": 0.05}
    colony.put("job", {"args": colony.payload("job", "leave", 0), "schedule": schedule})
    colony.wait_for((kills / "start.ordered.reached").exists, "it is reached")
    if victims != "keeper":
        colony.process.wait()
        colony.start(env=env)
    colony.wait_for_status("job", state="EXITED")

    def over() -> bool:
        kept = read_json(colony.state / "jobs" / "job") or {}
        return not kept.get("runs") and kept.get("seen") == (colony.status("job") or {})["instance"]

    colony.wait_for(over, "the companion knows of its end")
    kept = read_json(colony.state / "jobs" / "job") or {}
    assert not kept["memory"].get("retries"), kept
    assert len(colony.notes("job")) == 1
