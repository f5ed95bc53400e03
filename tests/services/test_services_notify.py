"""Programs that know systemd's notify protocol are understood: Redis, PostgreSQL, systemd-notify, PyPI's sdnotify."""

from __future__ import annotations

import functools
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest

from colony import Colony
from services.peers import Postgres, Redis, needs, path_of, ups

HERE = Path(__file__).resolve().parent
_READY = {"notify": True, "timeout": 60}


def tell(colony: Colony, *words: str) -> str:
    """What `ncolony ctl` says to this."""
    return colony.ctl("--state", str(colony.state), *words)


@needs("redis-server", "redis-cli")
def test_redis_says_that_it_is_ready(open_colony: Colony) -> None:
    """Redis with `supervised systemd` is RUNNING when it has said so, and its own words are in the status."""
    colony = open_colony
    redis = Redis(colony, "redis")
    config = redis.config(ready=_READY)
    config["args"] += ["--supervised", "systemd"]
    colony.put("redis", config)
    colony.start()
    status = colony.wait_for_status("redis", 60, state="RUNNING")
    assert status["said"] == "Ready to accept connections"
    assert status["ready_at"] >= redis.when("Ready to accept connections")
    assert redis.query("PING") == "PONG"
    assert "Ready to accept connections" in tell(colony, "status", "redis", "--json")


@needs("postgres", "psql")
def test_postgres_says_that_it_is_ready(open_colony: Colony) -> None:
    """PostgreSQL is RUNNING when it accepts connections, as it says itself, and says that it is stopping."""
    colony = open_colony
    postgres = Postgres(colony, "postgres")
    if b"sd_notify" not in Path(path_of("postgres")).read_bytes():
        pytest.skip("this PostgreSQL was built without systemd")
    colony.put("postgres", postgres.config(ready=_READY, stop=[["TERM", 20]], stop_scope="process"))
    colony.start()
    colony.wait_for_status("postgres", 60, state="RUNNING")
    assert postgres.query("SELECT 1") == "1"
    # SIGTERM lets sessions that are open go on: it stays while one does.
    held = f'{{ echo "SELECT 1 AS held;"; exec sleep 1000; }} | {shlex.join(postgres.client("")[:-2])}'
    colony.put("session", {"args": ["/bin/sh", "-c", held], "restart": "never"})
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle' AND query = 'SELECT 1 AS held;'"
    colony.wait_for(lambda: postgres.query(sessions) == "1", "a session is open")
    colony.post({"type": "STOP", "name": "postgres"})
    colony.wait_for_status("postgres", state="STOPPING", phase="stopping")
    colony.post({"type": "STOP", "name": "session"})
    colony.wait_for_status("postgres", 60, state="STOPPED")


_SCRIPT = """
echo "up $$ $(date +%s.%N)" >>"$1"
systemd-notify --status="warming up"
echo "warming $?" >>"$1"
while [ ! -e "$2" ]; do sleep 0.05; done
systemd-notify --ready --status="open for business"
echo "ready $?" >>"$1"
trap 'systemd-notify STOPPING=1 STATUS="closing"; echo "stopping $?" >>"$1"; sleep 1; exit' TERM
while :; do sleep 0.1; done
"""


@needs("systemd-notify")
@pytest.mark.parametrize("user", ["", "nobody"], ids=["own", "nobody"])
def test_shell_script_tells_by_systemd_notify(open_colony: Colony, user: str) -> None:
    """A shell script's `systemd-notify` is heard, whoever it runs as, and its barrier answered: each succeeds."""
    colony = open_colony
    go = colony.root / "go"
    owner = {"uid": user} if user else {}
    if owner and os.geteuid() != 0:
        pytest.skip("only root can run it as somebody else")
    script = ["/bin/sh", "-c", _SCRIPT, "sh", str(colony.notes_directory / "script"), str(go)]
    colony.put("script", {"args": script, "ready": _READY, "kill_time": 20, "threshold": 0.1, **owner})
    colony.start()
    colony.wait_for_status("script", state="STARTING", said="warming up")
    colony.wait_for_notes("script", beginning="warming ")
    go.touch()
    colony.wait_for_status("script", state="RUNNING", said="open for business")
    assert colony.wait_for_notes("script", beginning="ready ") == ["ready 0"]
    assert "open for business" in tell(colony, "status", "script", "--json")
    colony.post({"type": "STOP", "name": "script"})
    colony.wait_for_status("script", state="STOPPING", phase="stopping", said="closing")
    colony.wait_for_status("script", state="STOPPED")
    assert colony.notes("script", "warming ") + colony.notes("script", "stopping ") == ["warming 0", "stopping 0"]


def put_telling(colony: Colony, name: str, **keys: object) -> None:
    """A program that tells by the package sdnotify; its signals are in telling.py."""
    program = [sys.executable, "-I", str(HERE / "telling.py"), str(colony.notes_directory / name)]
    colony.put(name, {"args": program, "ready": _READY, "threshold": 0.1, "kill_time": 5, **keys})


def test_python_program_tells_by_sdnotify(colony: Colony) -> None:
    """READY, STATUS and STOPPING that PyPI's sdnotify sends are heard."""
    put_telling(colony, "telling")
    colony.start()
    colony.wait_for_status("telling", state="RUNNING", said="served 0")
    pid = colony.wait_until_running("telling")
    os.kill(pid, signal.SIGUSR1)
    colony.wait_for_status("telling", state="RUNNING", said="served 1")
    assert "served 1" in tell(colony, "status", "telling")
    colony.post({"type": "STOP", "name": "telling"})
    colony.wait_for_status("telling", state="STOPPING", phase="stopping")
    colony.wait_for_status("telling", state="STOPPED")


@pytest.mark.parametrize("way", ["silent", "frozen"])
def test_watchdog_restarts_who_falls_silent(colony: Colony, way: str) -> None:
    """WATCHDOG=1 in time keeps a program, and one that stops saying it, or everything, is restarted, once."""
    put_telling(colony, "telling", watchdog=2)
    colony.start()
    colony.wait_for_status("telling", state="RUNNING")
    assert colony.wait_for_notes("telling", beginning="usec ") == ["usec 2000000"]
    # Twice as long as it may be silent.
    colony.wait_for_notes("telling", 8, "petted ")
    assert len(ups(colony, "telling")) == 1
    os.kill(colony.pids("telling")[0], signal.SIGUSR2 if way == "silent" else signal.SIGSTOP)
    colony.wait_for_status("telling", 60, state="RUNNING", instance=2)
    colony.wait_for_notes("telling", 8 + len(colony.notes("telling", "petted ")), "petted ")
    assert len(ups(colony, "telling")) == 2
    events = tell(colony, "events", "telling", "--json")
    assert "watchdog" in events.lower()


@pytest.mark.parametrize("order", ["supervisor, keeper", "keeper, supervisor"])
def test_watchdog_outlives_who_listens(colony: Colony, order: str) -> None:
    """A program that fell silent is restarted even if supervisor and keeper are killed before its time."""
    put_telling(colony, "telling", watchdog=2)
    colony.start()
    pid = colony.wait_until_running("telling")
    os.kill(pid, signal.SIGSTOP)
    for what in order.split(", "):
        if what == "supervisor":
            colony.kill()
            colony.start()
        else:
            keeper = colony.keeper_pid()
            assert keeper is not None
            os.kill(keeper, signal.SIGKILL)
            colony.wait_for(functools.partial(_has_other_keeper, colony, keeper), "there is another keeper")
    colony.wait_for_status("telling", 60, state="RUNNING", instance=2)
    assert len(ups(colony, "telling")) == 2


def _has_other_keeper(colony: Colony, keeper: int) -> bool:
    return colony.keeper_pid() not in (None, keeper)
