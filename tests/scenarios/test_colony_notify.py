"""A supervisor under a service manager: what it tells it, from its start to its end, an upgrade between."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from colony import Colony, environment_of, fields_of
from manager import Manager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    found = Manager(tmp_path / "notify") if request.param == "path" else Manager.abstract()
    yield found
    found.close()


@pytest.fixture
def one_manager(tmp_path: Path) -> Iterator[Manager]:
    found = Manager(tmp_path / "notify")
    yield found
    found.close()


def environment(manager: Manager, **more: str) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("WATCHDOG", "SYSTEMD"))}
    return {**inherited, "NOTIFY_SOCKET": manager.name, **more}


def test_life_is_told(colony: Colony, manager: Manager) -> None:
    """READY when all run, the status as it changes, RELOADING around SIGHUP, STOPPING and a plea for time at last."""
    for name in ("a", "b"):
        colony.put(name, {"args": colony.payload(name, "serve")})
    colony.put("off", {"args": ["sleep", "1000"], "enabled": False})
    colony.start(env=environment(manager))
    ready = manager.next_with("READY", "1")
    assert ready["STATUS"] == "3 processes: 2 running, 1 stopped"
    assert colony.send({"type": "STOP", "name": "a"})["state"] == "done"
    manager.next_with("STATUS", "3 processes: 2 stopped, 1 running")
    colony.put("broken", b"[]")
    manager.next_with("STATUS", "4 processes: 2 stopped, 1 fatal, 1 running")
    colony.remove("broken")
    manager.next_with("STATUS", "3 processes: 2 stopped, 1 running")
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    os.kill(colony.supervisor_pid, signal.SIGHUP)
    assert int(manager.next_with("RELOADING", "1")["MONOTONIC_USEC"]) >= before
    manager.next_with("READY", "1")
    assert colony.stop() == 0
    manager.next_with("STOPPING", "1")
    manager.next_with("EXTEND_TIMEOUT_USEC")
    assert manager.words() == ["READY", "RELOADING", "READY", "STOPPING"]


def test_nothing_is_told_while_nothing_changes(colony: Colony, one_manager: Manager) -> None:
    """A colony at rest is silent, also when it is scanned."""
    colony.put("a", {"args": colony.payload("a", "serve")})
    colony.start("--frequency", "0.1", env=environment(one_manager))
    one_manager.next_with("READY")
    one_manager.listen()
    heard = len(one_manager.heard)
    colony.scan()
    one_manager.listen(1.5)
    assert len(one_manager.heard) == heard


@pytest.mark.parametrize("wish", ["message", "signal"])
def test_upgrade_is_a_reload(colony: Colony, manager: Manager, wish: str) -> None:
    """Around an upgrade RELOADING and then READY are told, the latter by the new program, which finds the socket."""
    colony.put("a", {"args": colony.payload("a", "serve")})
    colony.start(env=environment(manager))
    manager.next_with("READY")
    pid = colony.wait_until_running("a")
    began = colony.supervisor()
    assert began
    if wish == "message":
        assert colony.send({"type": "UPGRADE"})["state"] == "done"
    else:
        os.kill(colony.supervisor_pid, signal.SIGUSR2)
    manager.next_with("RELOADING", "1")
    assert manager.next_with("READY", "1")["STATUS"] == "1 process: 1 running"
    now = colony.supervisor()
    assert now
    assert (now["pid"], now["started"] > began["started"]) == (began["pid"], True)
    assert colony.wait_until_running("a") == pid
    assert colony.stop() == 0
    manager.next_with("STOPPING")
    assert manager.words() == ["READY", "RELOADING", "READY", "STOPPING"]


def test_upgrade_that_cannot_be_is_over_too(colony: Colony, one_manager: Manager) -> None:
    """When the installed version cannot start, READY follows RELOADING, from the old one that goes on."""
    broken = colony.root / "broken"
    colony.start(env=environment(one_manager, PYTHONPATH=str(broken)))
    one_manager.next_with("READY")
    (broken / "twisted").mkdir(parents=True)
    (broken / "twisted" / "__init__.py").write_text("raise SystemExit('broken')\n", encoding="utf-8")
    answer = colony.send({"type": "UPGRADE"})
    assert (answer["state"], "broken" in answer["why"]) == ("failed", True)
    one_manager.next_with("RELOADING")
    one_manager.next_with("READY")
    assert one_manager.words() == ["READY", "RELOADING", "READY"]


def test_socket_is_for_the_supervisor_alone(colony: Colony, one_manager: Manager) -> None:
    """Neither the keeper nor an instance that inherits everything gets the manager's variables, not even by name."""
    mine = dict.fromkeys(("WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"), "1")
    mine["WATCHDOG_USEC"] = "60000000"
    names = {"NOTIFY_SOCKET", *mine}
    colony.put("all", {"args": colony.payload("all", "serve"), "env_inherit": ["*"]})
    colony.put("named", {"args": colony.payload("named", "serve"), "env_inherit": ["PATH", *sorted(names)]})
    colony.put("own", {"args": colony.payload("own", "serve"), "env": {"NOTIFY_SOCKET": "/its/own"}})
    colony.start(env=environment(one_manager, OTHER="1", **mine))
    one_manager.next_with("READY")
    for number in (1, 2):
        inherited = environment_of(colony.wait_until_running("all", instance=number))
        assert names & inherited.keys() == set()
        assert inherited["OTHER"] == "1"
        assert names & environment_of(colony.wait_until_running("named", instance=number)).keys() == set()
        assert environment_of(colony.wait_until_running("own", instance=number))["NOTIFY_SOCKET"] == "/its/own"
        keeper = colony.keeper_pid()
        assert keeper
        assert names & environment_of(keeper).keys() == set()
        assert colony.send({"type": "UPGRADE"})["state"] == "done"
        assert colony.send({"type": "RESTART-ALL"})["state"] == "done"


def test_hung_supervisor_is_silent(colony: Colony, one_manager: Manager) -> None:
    """Signs of life come at half of the time allowed, across an upgrade too, and cease when the supervisor hangs."""
    colony.start(env=environment(one_manager, WATCHDOG_USEC="600000"))
    one_manager.next_with("READY")
    one_manager.next_with("WATCHDOG")
    one_manager.next_with("WATCHDOG")
    assert colony.send({"type": "UPGRADE"})["state"] == "done"
    one_manager.listen()
    one_manager.seen = len(one_manager.heard)
    one_manager.next_with("WATCHDOG")
    os.kill(colony.supervisor_pid, signal.SIGSTOP)
    colony.wait_for(lambda: fields_of(colony.supervisor_pid)["State"].startswith("T"), "the supervisor is stopped")
    one_manager.listen()
    heard = len(one_manager.heard)
    one_manager.listen(1)
    assert len(one_manager.heard) == heard
    os.kill(colony.supervisor_pid, signal.SIGCONT)
    one_manager.seen = heard
    one_manager.next_with("WATCHDOG")


def test_after_a_crash_ready_is_told_again(colony: Colony, one_manager: Manager) -> None:
    """A crash is followed by a supervisor that adopts, and is ready, by the same rule."""
    colony.put("a", {"args": colony.payload("a", "serve")})
    colony.start(env=environment(one_manager))
    one_manager.next_with("READY")
    pid = colony.wait_until_running("a")
    colony.kill()
    colony.start(env=environment(one_manager))
    assert one_manager.next_with("READY")["STATUS"] == "1 process: 1 running"
    assert colony.wait_until_running("a") == pid
