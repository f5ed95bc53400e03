"""A real server on sockets that outlive it: restarted again and again under load, and no request fails."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from colony import Colony
from services.peers import free_port, needs, path_of, run

HERE = Path(__file__).resolve().parent
RESTARTS = 20


def put_web(colony: Colony, address: str) -> None:
    """Two copies of gunicorn on one socket."""
    # It takes the sockets in LISTEN_FDS, and says READY=1 by itself.
    options = ("--workers", "1", "--no-control-socket", "--chdir", str(HERE), "--worker-tmp-dir", "/dev/shm")
    colony.put(
        "web",
        {
            "args": [sys.executable, "-m", "gunicorn", *options, "pages:application"],
            "env": {"NOTES": str(colony.notes_directory / "web"), "PYTHONDONTWRITEBYTECODE": "1"},
            "sockets": {"http": address},
            "instances": 2,
            "ready": {"notify": True},
            # Requests that it has accepted are answered first: SIGTERM to the arbiter, not to its worker.
            "stop_scope": "process",
            "kill_time": 30,
            "threshold": 0.1,
        },
    )


def put_and_start(colony: Colony) -> str:
    """The two copies on a port, running; the URL."""
    port = free_port()
    put_web(colony, f"tcp:127.0.0.1:{port}")
    colony.start()
    for copy in ("web:0", "web:1"):
        colony.wait_until_running(copy)
    return f"http://127.0.0.1:{port}/"


@contextmanager
def load(*command: str) -> Iterator[Callable[[], str]]:
    """Run a load generator until the function is called, which ends it by SIGINT; what it printed."""
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end() -> str:
        assert running.poll() is None, f"it ended before: {running.communicate()[0]}"
        running.send_signal(signal.SIGINT)
        return running.communicate(timeout=30)[0]

    try:
        yield end
    finally:
        running.kill()
        running.wait()
        assert running.stdout
        running.stdout.close()


def restart(colony: Colony, times: int) -> None:
    """So many rolling restarts, one after the other."""
    for _ in range(times):
        answer = colony.send({"type": "RESTART", "name": "web", "rolling": 1}, 60)
        assert answer["state"] == "done", answer


def ab(url: str) -> list[str]:
    """ApacheBench: it ends at the first connection that fails."""
    return [path_of("ab"), "-q", "-c", "4", "-n", "100000000", url]


def figures(said: str) -> dict[str, int]:
    """The numbers that ApacheBench counts."""
    return {key: int(number) for key, number in re.findall(r"^([A-Z][\w -]+): +(\d+)$", said, re.MULTILINE)}


@pytest.mark.timeout(240)
@needs("ab", "curl")
def test_no_request_fails_over_rolling_restarts(colony: Colony) -> None:
    """Twenty rolling restarts of two copies on one socket, under load: every request is answered with 200."""
    url = put_and_start(colony)
    with load(*ab(url)) as end:
        restart(colony, RESTARTS)
        said = end()
    counted = figures(said)
    assert counted.get("Complete requests", 0) > 10 * RESTARTS, said
    assert counted["Failed requests"] == 0, said
    assert "Non-2xx responses" not in counted, said
    for copy in ("web:0", "web:1"):
        assert (colony.status(copy) or {})["instance"] == RESTARTS + 1
    # Both were at work: each noted the requests that it answered, under its number.
    served = {line.split()[1] for line in colony.notes("web", "served ")}
    assert served == {"0", "1"}


@pytest.mark.timeout(240)
@needs("wrk")
def test_connections_wait_while_nobody_accepts(colony: Colony) -> None:
    """Both copies restarted at once, and the supervisor killed, under load: connections wait, and none is refused."""
    url = put_and_start(colony)
    with load(path_of("wrk"), "-t1", "-c4", "-d1000", "--timeout", "60", url) as end:
        colony.send({"type": "RESTART", "name": "web"}, 60)
        colony.kill()
        os.kill(colony.pids("web", "up 0")[-1], 0)
        colony.start()
        colony.send({"type": "RESTART", "name": "web"}, 60)
        said = end()
    assert re.search(r"[1-9]\d* requests in", said), said
    assert "Socket errors" not in said, said
    assert "Non-2xx" not in said, said


@needs("curl")
def test_requests_wait_on_a_unix_socket(colony: Colony) -> None:
    """On a unix socket too: a request that comes after the death of every copy is answered by the next one."""
    path = colony.root / "web.sock"
    put_web(colony, f"unix:{path}")
    colony.start()
    pids = [colony.wait_until_running(copy) for copy in ("web:0", "web:1")]
    ask = (path_of("curl"), "-sS", "--fail", "--max-time", "30", "--unix-socket", str(path), "http://web/")
    assert run(*ask) == "ok"
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert run(*ask) == "ok"
    for copy in ("web:0", "web:1"):
        colony.wait_until_running(copy, instance=2)


@needs("curl")
def test_twisted_web_takes_its_socket_by_name(colony: Colony) -> None:
    """Twisted's own web server on its `systemd:` endpoint serves on, and callers wait, when it is killed."""
    (colony.root / "index.html").write_text("hello from twisted", encoding="ascii")
    port = free_port()
    # The first one is not for the web server: it finds its own by the name.
    sockets = {"other": "tcp:127.0.0.1:0", "http": f"tcp:127.0.0.1:{port}"}
    server = ("web", "--listen", "systemd:domain=INET:name=http", "--path", str(colony.root))
    colony.put("web", {"args": [sys.executable, "-m", "twisted", *server], "sockets": sockets, "threshold": 0.1})
    colony.start()
    ask = (path_of("curl"), "-sS", "--fail", "--max-time", "30", f"http://127.0.0.1:{port}/index.html")
    pid = colony.wait_until_running("web")
    assert run(*ask) == "hello from twisted"
    os.kill(pid, signal.SIGKILL)
    assert run(*ask) == "hello from twisted"
    colony.wait_until_running("web", instance=2)
