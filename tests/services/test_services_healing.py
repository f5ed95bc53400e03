"""What real servers do when they are killed, hang, or are configured wrongly; and what is done about it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from colony import Colony, is_alive
from services.peers import Nginx, Peer, Postgres, Redis, needs, stamped, ups, wait_for

# Quick to notice, but with time for a machine that has other things to do.
_CHECK = {"period": 0.5, "timeout": 3, "failure_threshold": 2}


def put_all(colony: Colony) -> tuple[Postgres, Redis, Nginx]:
    """Three servers, each with a probe and a check."""
    postgres, redis, nginx = Postgres(colony, "postgres"), Redis(colony, "redis"), Nginx(colony, "nginx")
    keys = {"kill_time": 2, "threshold": 0.2}
    for peer, way in (
        (postgres, {"exec": postgres.answers()}),
        (redis, {"exec": redis.answers()}),
        (nginx, {"http": nginx.url}),
    ):
        colony.put(peer.name, peer.config(ready={**way, "timeout": 60}, check=[{**way, **_CHECK}], **keys))
    return postgres, redis, nginx


def wait_until_healthy(colony: Colony, *peers: Peer, instance: int = 1) -> None:
    """Wait until this instance of each is ready and its check says that it works."""
    for peer in peers:
        colony.wait_for_status(peer.name, 60, state="RUNNING", healthy=True, instance=instance)


def workers_of(pid: int) -> list[int]:
    """The children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


@needs("postgres", "psql", "pg_isready", "redis-server", "redis-cli", "nginx", "curl")
def test_killed_servers_come_back_with_their_data(open_colony: Colony) -> None:
    """After SIGKILL of each main process the next instance has the port and the data: nothing was left of the tree."""
    colony = open_colony
    postgres, redis, nginx = put_all(colony)
    colony.start()
    wait_until_healthy(colony, postgres, redis, nginx)
    postgres.query("CREATE TABLE words AS SELECT 'kept' AS word")
    redis.query("SET", "word", "kept")
    left: list[int] = []
    for peer in (postgres, redis, nginx):
        pid = (colony.status(peer.name) or {})["pid"]
        left += workers_of(pid)
        os.kill(pid, signal.SIGKILL)
    wait_until_healthy(colony, postgres, redis, nginx, instance=2)
    assert left, "neither postgres nor nginx had a worker process"
    assert not [pid for pid in left if is_alive(pid)]
    assert postgres.query("SELECT word FROM words") == "kept"
    assert redis.query("GET", "word") == "kept"
    assert nginx.get() == "ok"
    for peer in (postgres, redis, nginx):
        last = (colony.status(peer.name) or {})["last_exit"]
        assert (last["signal"], last["code"]) == ("KILL", None)


@needs("postgres", "psql", "pg_isready", "redis-server", "redis-cli", "nginx", "curl")
def test_hanging_servers_are_restarted_once(open_colony: Colony) -> None:
    """Servers that are there but do not answer are noticed by their checks and restarted, each once."""
    colony = open_colony
    postgres, redis, nginx = put_all(colony)
    colony.start()
    wait_until_healthy(colony, postgres, redis, nginx)
    pids = {peer: (colony.status(peer.name) or {})["pid"] for peer in (postgres, redis, nginx)}
    # nginx answers by its worker.
    hanging = [pids[postgres], pids[redis], *workers_of(pids[nginx])]
    for pid in hanging:
        os.kill(pid, signal.SIGSTOP)
    wait_until_healthy(colony, postgres, redis, nginx, instance=2)
    assert not [pid for pid in [*hanging, *pids.values()] if is_alive(pid)]
    assert (postgres.query("SELECT 1"), redis.query("PING"), nginx.get()) == ("1", "PONG", "ok")
    # A check that judged the new instance by the old one's failures would do so within its next looks.
    settled = time.monotonic()
    colony.wait_for(lambda: time.monotonic() > settled + 2, "a few looks have passed")
    for peer in (postgres, redis, nginx):
        assert len(ups(colony, peer.name)) == 2, colony.evidence()
        assert (colony.status(peer.name) or {})["healthy"] is True


@needs("nginx", "curl")
def test_wrong_configuration_of_a_server_heals(open_colony: Colony) -> None:
    """An nginx that cannot start, or listens elsewhere, says so in its status, who waits says for whom; both heal."""
    colony = open_colony
    nginx = Nginx(colony, "nginx")
    nginx.write("this is no configuration;\n")
    ready = {"http": nginx.url, "timeout": 1.5}
    delays = {"threshold": 0.5, "min_restart_delay": 0.5, "max_restart_delay": 0.5}
    colony.put("client", {"args": stamped(colony, "client", "/bin/sleep", "1000"), "after": {"nginx": "ready"}})
    colony.put("nginx", nginx.config(ready=ready, **delays))
    colony.start()
    status = colony.wait_for_status("nginx", state="BACKOFF")
    assert "exit code 1" in status["reason"], status
    waiting = colony.wait_for_status("client", state="WAITING")
    assert "nginx" in str(waiting["waiting_for"]), waiting

    nginx.write(port=nginx.port + 1 if nginx.port < 60000 else nginx.port - 1)

    def timed_out() -> bool:
        status = colony.status("nginx") or {}
        return status["state"] == "BACKOFF" and "ready" in status["reason"]

    colony.wait_for(timed_out, "nginx is not ready in time, and the status says so")
    assert colony.wait_for_status("client", state="WAITING")
    assert not ups(colony, "client")

    nginx.write()
    colony.wait_until_running("nginx")
    colony.wait_until_running("client")
    assert nginx.get() == "ok"
    assert ups(colony, "client")[0] > ups(colony, "nginx")[-1]


@needs("redis-server", "redis-cli")
def test_supervisor_and_keeper_killed_under_servers(open_colony: Colony) -> None:
    """A server under check answers on, and is not restarted, when supervisor or keeper is killed; its check goes on."""
    colony = open_colony
    redis = Redis(colony, "redis")
    way = {"exec": redis.answers()}
    colony.put("redis", redis.config(ready=way, check=[{**way, **_CHECK}], kill_time=2, threshold=0.2))
    colony.start()
    wait_until_healthy(colony, redis)
    pid = colony.wait_until_running("redis")
    kills: tuple[Callable[[], None], ...] = (colony.kill, lambda: _kill_keeper(colony))
    for kill in kills:
        kill()
        assert redis.query("PING") == "PONG"
        if colony.has_exited():
            colony.start()
        wait_until_healthy(colony, redis)
        assert colony.wait_until_running("redis") == pid
    os.kill(pid, signal.SIGSTOP)
    wait_until_healthy(colony, redis, instance=2)
    wait_for(colony, lambda: redis.query("PING") == "PONG", "redis answers")
    assert len(ups(colony, "redis")) == 2


@needs("redis-server", "redis-cli")
def test_who_is_bound_to_a_server_goes_and_comes_with_it(open_colony: Colony) -> None:
    """With `bind`, a client is stopped when its server dies, waits, and is started when the server is ready again."""
    colony = open_colony
    redis = Redis(colony, "redis")
    delays = {"threshold": 3600, "min_restart_delay": 1, "max_restart_delay": 1}
    colony.put("redis", redis.config(ready={"exec": redis.answers(), "timeout": 60}, **delays))
    client = stamped(colony, "client", "/bin/sleep", "1000")
    colony.put("client", {"args": client, "after": {"redis": {"when": "ready", "bind": True}}})
    colony.start()
    first = colony.wait_until_running("client")
    os.kill(colony.wait_until_running("redis"), signal.SIGKILL)
    waiting = colony.wait_for_status("client", state="WAITING")
    assert "redis" in str(waiting["waiting_for"]), waiting
    assert not is_alive(first)
    second = colony.wait_until_running("client", instance=2)
    assert second != first
    assert ups(colony, "client")[1] > redis.when("Ready to accept connections", ups(colony, "redis")[1])


def _kill_keeper(colony: Colony) -> None:
    keeper = colony.keeper_pid()
    assert keeper is not None
    os.kill(keeper, signal.SIGKILL)
    colony.wait_for(lambda: colony.keeper_pid() not in (None, keeper), "there is another keeper")
