"""Probes and checks in a real colony: the supervisor runs the checker by itself, and does what it asks for."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from colony import SLEEP, Colony
from ward import Server, status

# A program that listens, or touches a file, when it is told to by a file.
LATE = """
import os, socket, sys, time
port, gate, word = int(sys.argv[1]), sys.argv[2], sys.argv[3]
print(word, "is not said yet", flush=True)
while not os.path.exists(gate):
    time.sleep(0.01)
server = socket.create_server(("127.0.0.1", port))
print("now", word, flush=True)
while True:
    connection, _ = server.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 204 So\\r\\n\\r\\n")
    connection.close()
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def instances(colony: Colony, name: str) -> int:
    """How many instances there were."""
    return int((colony.status(name) or {"instance": 0})["instance"])


def events(colony: Colony, name: str) -> list[str]:
    """What happened to a process, in words."""
    lines = (colony.state / "events").read_text().splitlines()
    return [found["event"] for found in map(json.loads, lines) if found["name"] == name]


READY: dict[str, Callable[[int, Path], dict[str, Any]]] = {
    "tcp": lambda port, gate: {"tcp": f"127.0.0.1:{port}"},
    "http": lambda port, gate: {"http": f"http://127.0.0.1:{port}/x"},
    "exec": lambda port, gate: {"exec": ["/bin/sh", "-c", f'[ "$NCOLONY_NAME $A" = "web a" ] && [ -e {gate} ]']},
    "log": lambda port, gate: {"log": "^now (ready|steady)$"},
}


@pytest.mark.parametrize("way", READY)
def test_ready(colony: Colony, way: str) -> None:
    """A process is STARTING until the probe succeeds, then RUNNING, once for each instance."""
    port, gate = free_port(), colony.root / "gate"
    args = [sys.executable, "-I", "-S", "-c", LATE, str(port), str(gate), "ready"]
    colony.put("web", {"args": args, "ready": READY[way](port, gate), "env": {"A": "a"}})
    colony.start()
    status = colony.wait_for_status("web", state="STARTING", instance=1)
    colony.wait_until_running("ncolony-check")
    colony.wait_for(lambda: b"not said yet" in colony.output("web"), "it has printed")
    assert (colony.status("web") or {})["state"] == "STARTING"
    gate.touch()
    colony.wait_for_status("web", state="RUNNING", instance=1)
    gate.unlink()
    colony.post({"type": "RESTART", "name": "web"})
    colony.wait_for_status("web", state="STARTING", instance=2)
    colony.wait_for(lambda: colony.output("web").count(b"not said yet") == 2, "the second one has printed")
    assert (colony.status("web") or {})["state"] == "STARTING"
    gate.touch()
    colony.wait_for_status("web", state="RUNNING", instance=2)
    assert status["started"] is not None
    colony.wait_for(lambda: events(colony, "web").count("ready") == 2, "it is said for each instance")


def test_not_ready_in_time_says_why(colony: Colony) -> None:
    """Of a process that is not ready in time the checker's log says what was missing."""
    place = f"127.0.0.1:{free_port()}"
    colony.put("web", {"args": [SLEEP, "1000"], "ready": {"tcp": place, "timeout": 4}})
    colony.start()
    line = f"web: was not ready: tcp {place}: connection refused"
    colony.wait_for(lambda: any(line in said for said in colony.lines("ncolony-check")), "it is said")


def test_slow_expression_harms_nobody(colony: Colony) -> None:
    """An expression that would take for ever on a line is cut off; others go on, and so does it with later lines."""
    line = "a" * 5000
    code = f"import time; print({line!r} + '!', flush=True); time.sleep(3); print('ok', flush=True); time.sleep(1000)"
    args = [sys.executable, "-I", "-S", "-c", code]
    colony.put("bad", {"args": args, "ready": {"log": "^(a+)+$|^ok$"}})
    args = [sys.executable, "-uISc", "print('here'); import time; time.sleep(1000)"]
    colony.put("good", {"args": args, "ready": {"log": "here"}})
    colony.start()
    colony.wait_until_running("good")
    colony.wait_until_running("bad")
    said = colony.lines("ncolony-check")
    assert any("cannot see whether bad is ready" in one and "takes more than" in one for one in said), said


def test_unhealthy_is_restarted_once_and_recovers(colony: Colony, serve: Callable[..., Server]) -> None:
    """A process whose check fails is restarted, once, with the reason; the next instance is judged for itself."""
    server = serve(status(200))
    url = f"http://127.0.0.1:{server.port}/"
    check = {"http": url, "period": 0.2, "failure_threshold": 2, "grace": 2}
    colony.put("web", {"args": [SLEEP, "1000"], "check": [check]})
    colony.start()
    colony.wait_for_status("web", state="RUNNING", instance=1, healthy=True)
    server.behaviour = status(503)
    colony.wait_for_status("web", state="RUNNING", instance=2)
    server.behaviour = status(200)
    found = colony.wait_for_status("web", state="RUNNING", instance=2, healthy=True)
    assert found["health"] == ""
    happened = events(colony, "web")
    assert (happened.count("unhealthy"), happened.count("healthy")) == (1, 2), happened
    [past] = [json.loads(line) for line in (colony.state / "history" / "web").read_text().splitlines()]
    assert past["reason"] == f"http {url}: status 503"


def test_grace_of_each_instance(colony: Colony) -> None:
    """A process that never answers is restarted again and again, but each instance has its grace."""
    check = {"tcp": f"127.0.0.1:{free_port()}", "period": 0.1, "failure_threshold": 1, "grace": 1.5}
    colony.put("web", {"args": [SLEEP, "1000"], "check": [check]})
    colony.start()
    colony.wait_for(lambda: instances(colony, "web") >= 4, "it was restarted three times")
    lived = [json.loads(line)["lived"] for line in (colony.state / "history" / "web").read_text().splitlines()]
    assert min(lived) >= 1.5, lived
    assert events(colony, "web").count("unhealthy") <= len(lived) + 1


def test_report_restarts_nobody(colony: Colony) -> None:
    """With `report` the status tells, and the process goes on."""
    place = f"127.0.0.1:{free_port()}"
    check = {"tcp": place, "period": 0.1, "action": "report"}
    colony.put("web", {"args": [SLEEP, "1000"], "check": [check]})
    colony.start()
    found = colony.wait_for_status("web", healthy=False)
    assert (found["health"], found["instance"]) == (f"tcp {place}: connection refused", 1)
    checks = len(colony.lines("ncolony-check"))
    server = socket.create_server(("127.0.0.1", int(place.rpartition(":")[2])))
    with server:
        assert colony.wait_for_status("web", healthy=True)["instance"] == 1
    assert len(colony.lines("ncolony-check")) > checks


def test_change_of_checks_is_live(colony: Colony) -> None:
    """Other checks are in force at once, without a restart; a bad file changes nothing, for nobody."""
    refused = {"tcp": f"127.0.0.1:{free_port()}", "period": 0.1, "failure_threshold": 1, "action": "report"}
    colony.put("web", {"args": [SLEEP, "1000"], "check": [refused]})
    colony.put("other", {"args": [SLEEP, "1000"], "check": [{**refused, "period": 0.2}]})
    colony.start()
    pid = colony.wait_for_status("web", healthy=False)["pid"]
    colony.put("web", {"args": [SLEEP, "1000"], "check": [{"exec": ["/bin/true"], "period": 0.1}]})
    assert colony.wait_for_status("web", healthy=True)["pid"] == pid
    colony.put("web", b'{"args": [')
    colony.wait_for_problem("web")
    colony.put("web", {"args": [SLEEP, "1000"], "check": [refused]})
    assert colony.wait_for_status("web", healthy=False)["pid"] == pid
    assert colony.wait_for_status("other", healthy=False)["instance"] == 1


def test_supervisor_away(colony: Colony) -> None:
    """While there is no supervisor nothing is judged; when there is one again, checks go on where they were."""
    beat = colony.root / "beat"
    check = {"heartbeat": str(beat), "period": 2, "grace": 3}
    code = f"while :; do [ -e {colony.root}/mute ] || touch {beat}; sleep 0.1; done"
    colony.put("web", {"args": ["/bin/sh", "-c", code], "check": [check], "env": {"PATH": os.environ["PATH"]}})
    colony.start()
    colony.wait_for_status("web", healthy=True)
    colony.kill()
    (colony.root / "mute").touch()
    age = lambda: time.time() - beat.stat().st_mtime  # noqa: E731
    colony.wait_for(lambda: age() > 5, "it is overdue")
    assert [name for name in os.listdir(colony.messages) if not name.startswith(".")] == []
    (colony.root / "mute").unlink()
    colony.wait_for(lambda: age() < 0.4, "it beats again")
    colony.start()
    colony.wait_for_status("web", state="RUNNING", healthy=True)
    assert instances(colony, "web") == 1
    (colony.root / "mute").touch()
    colony.wait_for_status("web", state="RUNNING", instance=2)


def test_stopped_is_not_judged(colony: Colony) -> None:
    """What was stopped is not judged, and stays stopped, however its check fails."""
    check = {"tcp": f"127.0.0.1:{free_port()}", "period": 0.1, "failure_threshold": 1, "grace": 3}
    colony.put("web", {"args": [SLEEP, "1000"], "check": [check]})
    colony.put("seen", {"args": [SLEEP, "1000"], "check": [{**check, "grace": 0, "action": "report"}]})
    colony.start()
    colony.wait_until_running("web")
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    colony.wait_for_status("seen", healthy=False)
    deadline = time.monotonic() + 4
    colony.wait_for(lambda: time.monotonic() > deadline, "grace is over")
    found = colony.status("web") or {}
    assert (found["state"], found["instance"], found["healthy"]) == ("STOPPED", 1, None)


def test_killed_checker_comes_back(colony: Colony) -> None:
    """The checker is killed; the supervisor starts it again, and it carries on without telling anything twice."""
    check = {"exec": ["/bin/true"], "period": 0.1}
    colony.put("web", {"args": [SLEEP, "1000"], "check": [check]})
    colony.start()
    colony.wait_for_status("web", healthy=True)
    os.kill(colony.wait_until_running("ncolony-check"), signal.SIGKILL)
    colony.wait_until_running("ncolony-check", instance=2)
    colony.put("web", {"args": [SLEEP, "1000"], "check": [{**check, "exec": ["/bin/false"], "action": "report"}]})
    colony.wait_for_status("web", healthy=False)
    assert events(colony, "web").count("healthy") == 1
