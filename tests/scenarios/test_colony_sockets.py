"""Sockets that are opened for processes: they outlive instances, keepers and supervisors, and nobody is turned away."""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_colony_upgrade import Release

from colony import SLEEP, Colony, descriptors, environment_of, is_alive

PATIENCE_S = 30.0
DEAD = "cannot be reached"


class Callers:
    """Somebody who calls without end, and notes who answered and what went wrong."""

    def __init__(self, address: Any) -> None:
        self.address, self.answers, self.faults = address, list[int](), list[str]()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        while not self._over.is_set():
            try:
                self.answers.append(call(self.address))
            except (OSError, ValueError) as error:
                self.faults.append(repr(error))

    def stop(self) -> None:
        """Stop; everybody must have got an answer."""
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert not self.faults, self.faults[:5]

    def has_heard_of(self, *pids: int) -> bool:
        """Whether these answer now, and nobody else does."""
        before = len(self.answers)
        while len(self.answers) < before + 100 and not self.faults:
            pass
        return set(self.answers[before + 10 :]) <= set(pids)


def call(address: Any) -> int:
    """The pid of who answers at the address: a port here, or a path."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as caller:
        caller.settimeout(PATIENCE_S)
        caller.connect(address if isinstance(address, str) else ("127.0.0.1", address))
        return int(caller.recv(100))


def is_open(address: Any) -> bool:
    """Whether anybody listens there."""
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as caller:
        return caller.connect_ex(address if isinstance(address, str) else ("127.0.0.1", address)) == 0


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        number: int = found.getsockname()[1]
        return number


def server(colony: Colony, port: int, **more: Any) -> dict[str, Any]:
    """The definition of a process that listens."""
    return {
        "args": colony.payload("web", "serve_callers"), "sockets": {"http": f"tcp:127.0.0.1:{port}"}, "threshold": 0.2,
        **more,
    }  # fmt: skip


@pytest.fixture
def calling(
    colony: Colony, port: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callers]:
    """Callers of two copies of a server."""
    if "both" not in request.node.name:
        monkeypatch.setenv("NCOLONY_WITHOUT", "getfd")  # so that nothing is taken back from an instance
    colony.put("web", server(colony, port, instances=2))
    colony.start()
    for name in ("web:0", "web:1"):
        colony.wait_until_running(name)
    callers = Callers(port)
    yield callers
    callers.stop()


def pids_of(colony: Colony, **fields: object) -> list[int]:
    """The pids of both copies."""
    return [colony.wait_until_running(name, **fields) for name in ("web:0", "web:1")]


def restart_rolling(colony: Colony, instance: int) -> list[int]:
    """Restart one copy after the other; the new pids."""
    assert colony.send({"type": "RESTART", "name": "web", "rolling": 1})["state"] == "done"
    return pids_of(colony, instance=instance)


def test_what_a_process_finds(colony: Colony, port: int) -> None:
    """Descriptors from 3 on, in the order of the file, with systemd's three variables; other processes have none."""
    path = f"{colony.root}/web.sock"
    sockets = {"http": f"tcp:127.0.0.1:{port}", "ctl": {"address": f"unix:{path}", "mode": "0640"}, "u": "udp::0"}
    colony.put("web", server(colony, port, sockets=sockets))
    colony.start()
    pid = colony.wait_until_running("web")
    assert colony.wait_for_notes("web") == [f"up {pid} {pid} 3 http:ctl:u"]
    assert call(port) == pid
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    assert {number for number, target in descriptors(pid).items() if target.startswith("socket:")} >= {3, 4, 5}
    colony.put("other", {"args": [SLEEP, "100000"]})
    other = colony.wait_until_running("other")
    assert set(descriptors(other)) == {0, 1, 2}
    assert "LISTEN_FDS" not in environment_of(other)
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    colony.wait_for(lambda: not os.path.exists(path), "the file of the unix socket is gone")


def test_what_is_made_for_systemd_works(colony: Colony, port: int) -> None:
    """Twisted, asked to listen on a socket of systemd's, does so on ours."""
    args = [sys.executable, "-m", "twisted", "web", "--listen", "systemd:domain=INET:name=http"]
    sockets = {"first": "tcp:127.0.0.1:0", "http": f"tcp:127.0.0.1:{port}"}
    colony.put("web", {"args": args, "sockets": sockets})
    colony.start()
    colony.wait_for(lambda: is_open(port), "the socket is open")
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as caller:
        caller.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert caller.recv(100).startswith(b"HTTP/1.")


def test_a_rolling_restart_turns_nobody_away(colony: Colony, calling: Callers) -> None:
    """Two copies restart one after the other, twice, under calls without end: every caller gets an answer."""
    for instance in (2, 3):
        pids = restart_rolling(colony, instance)
        colony.wait_for(lambda pids=pids: calling.has_heard_of(*pids), "the new ones answer")  # type: ignore[misc]


def test_a_single_process_restarts_and_its_callers_wait(colony: Colony, port: int) -> None:
    """While one process alone is restarted, callers wait in the socket's queue for the next instance."""
    colony.put("web", server(colony, port))
    colony.start()
    colony.wait_until_running("web")
    callers = Callers(port)
    for instance in (2, 3, 4):
        assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
        pid = colony.wait_until_running("web", instance=instance)
        colony.wait_for(lambda pid=pid: pid in callers.answers, "it answers")  # type: ignore[misc]
    callers.stop()


@pytest.mark.parametrize("victims", ["supervisor", "keeper", "both"])
def test_killed_under_calls(colony: Colony, calling: Callers, victims: str) -> None:
    """Whoever is killed, callers are answered by the same instances; and by the next ones after a rolling restart."""
    if victims == "both" and os.geteuid() != 0:
        pytest.skip("only root may take a socket back from an instance")
    before = pids_of(colony)
    keeper = colony.keeper_pid()
    assert keeper is not None
    if victims != "keeper":
        colony.kill()
    if victims != "supervisor":
        os.kill(keeper, signal.SIGKILL)
    if victims != "keeper":
        colony.start()
    colony.wait_for(lambda: (colony.supervisor() or {}).get("keeper") not in (None, keeper) or victims == "supervisor",
                    "there is another keeper")  # fmt: skip
    colony.scan()
    assert pids_of(colony, instance=1) == before
    assert calling.has_heard_of(*before)
    pids = restart_rolling(colony, 2)
    colony.wait_for(lambda: calling.has_heard_of(*pids), "the new ones answer")


def test_killed_again_and_again(colony: Colony, calling: Callers) -> None:
    """Keeper, supervisor, keeper: a duplicate is always in somebody's hands."""
    for victim in ("keeper", "supervisor", "keeper", "keeper", "supervisor"):
        keeper = colony.keeper_pid()
        assert keeper is not None
        if victim == "supervisor":
            colony.kill()
            colony.start()
        else:
            os.kill(keeper, signal.SIGKILL)
            colony.wait_for(lambda: colony.keeper_pid() not in (None, keeper), "another keeper")  # noqa: B023
        colony.scan()
    pids = restart_rolling(colony, 2)
    colony.wait_for(lambda: calling.has_heard_of(*pids), "the new ones answer")


def test_upgraded_under_calls(colony: Colony, port: int) -> None:
    """An upgrade of supervisor and keeper in place turns nobody away, and the sockets are still the same after it."""
    release = Release(colony)
    colony.put("web", server(colony, port, instances=2))
    release.start()
    before, keeper = pids_of(colony), colony.keeper_pid()
    callers = Callers(port)
    release.append("keeper/wire.py", "\n# \n")
    release.upgrade()
    assert colony.keeper_pid() == keeper
    assert pids_of(colony, instance=1) == before
    pids = restart_rolling(colony, 2)
    os.kill(keeper or 0, signal.SIGKILL)  # the new supervisor has its duplicates too
    colony.wait_for(lambda: colony.keeper_pid() not in (None, keeper), "another keeper")
    colony.scan()
    assert pids_of(colony, instance=2) == pids
    restart_rolling(colony, 3)
    callers.stop()


def _remove(colony: Colony, port: int) -> None:
    colony.remove("web")


def _disable(colony: Colony, port: int) -> None:
    colony.put("web", server(colony, port, enabled=False))


def _stop(colony: Colony, port: int) -> None:
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"


def _take_out(colony: Colony, port: int) -> None:
    colony.put("web", {"args": [SLEEP, "100000"]})


@pytest.mark.parametrize("deed", [_remove, _disable, _stop, _take_out])
def test_closed_when_nobody_wants_it(colony: Colony, port: int, deed: Callable[[Colony, int], None]) -> None:
    """A socket is closed when its process is stopped or gone, so that nobody waits there in vain; and comes back."""
    colony.put("web", server(colony, port))
    colony.start()
    pid = colony.wait_until_running("web")
    keeper, supervisor = colony.wait_for(colony.keeper_pid, "there is a keeper"), colony.supervisor_pid
    before = open_sockets(keeper), open_sockets(supervisor)
    deed(colony, port)
    colony.wait_until_dead(pid)
    colony.wait_for(lambda: not is_open(port), "the socket is closed")
    assert (len(open_sockets(keeper)), len(open_sockets(supervisor))) == (len(before[0]) - 1, len(before[1]) - 1)
    colony.put("web", server(colony, port))
    colony.send({"type": "START", "name": "web"})
    pid = colony.wait_until_running("web")
    assert call(port) == pid


def open_sockets(pid: int) -> set[str]:
    return {target for target in descriptors(pid).values() if target.startswith("socket:")}


def test_stop_and_start_in_one_breath(colony: Colony, port: int) -> None:
    """A stop and a start right after it do not get into each other's way."""
    colony.put("web", server(colony, port))
    colony.start()
    colony.wait_until_running("web")
    for instance in range(2, 6):
        colony.post({"type": "STOP", "name": "web"})
        assert colony.send({"type": "START", "name": "web"})["state"] == "done"
        pid = colony.wait_until_running("web", instance=instance)
        assert call(port) == pid


def test_another_address(colony: Colony, port: int) -> None:
    """With another address the process listens there, and the old one is closed; another backlog keeps the socket."""
    colony.put("web", server(colony, port))
    colony.start()
    colony.wait_until_running("web")
    same = {"http": {"address": f"tcp:127.0.0.1:{port}", "backlog": 7}}
    callers = Callers(port)
    colony.put("web", server(colony, port, sockets=same))
    colony.wait_until_running("web", instance=2)
    callers.stop()
    path = f"{colony.root}/s"
    colony.put("web", server(colony, port, sockets={"http": f"unix:{path}"}))
    pid = colony.wait_until_running("web", instance=3)
    assert call(path) == pid
    colony.wait_for(lambda: not is_open(port), "the old one is closed")


def test_kept_through_backoff(colony: Colony, port: int) -> None:
    """A process that waits to be tried again keeps its socket, and callers wait; one that is given up does not."""
    args = ["/bin/sh", "-c", f'[ -e {colony.root}/go ] || exit 1; exec "$@"', "sh"]
    more = {"min_restart_delay": 0.3, "max_restart_delay": 0.3, "threshold": 0.1}
    definition = server(colony, port, **more)
    colony.put("web", {**definition, "args": [*args, *definition["args"]]})
    colony.start()
    colony.wait_for_status("web", state="BACKOFF")
    assert is_open(port)
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as caller:
        (colony.root / "go").touch()
        caller.settimeout(PATIENCE_S)
        assert int(caller.recv(100)) == colony.wait_until_running("web")
    (colony.root / "go").unlink()
    given_up = {**definition, "give_up": {"failures": 1, "within": 60}}
    colony.put("web", {**given_up, "args": [*args, *definition["args"], "x"]})
    colony.wait_for_status("web", state="FATAL")
    colony.wait_for(lambda: not is_open(port), "the socket is closed")


def test_an_address_that_somebody_else_has(colony: Colony) -> None:
    """An address in use is the reason why the process does not start, and is tried again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        colony.put("web", server(colony, port, min_restart_delay=0.1, max_restart_delay=0.1))
        colony.start()
        reason = colony.wait_for_status("web", state="BACKOFF")["reason"]
        assert f"cannot listen on tcp:127.0.0.1:{port}: Address already in use" in reason
    pid = colony.wait_until_running("web")
    assert call(port) == pid


def test_a_host_without_an_address(colony: Colony) -> None:
    """A host that nobody knows is a reason too."""
    colony.put("web", server(colony, 0, sockets={"http": "tcp:no-such-host.invalid:80"}))
    colony.start()
    assert "cannot listen on tcp:no-such-host.invalid:80: " in colony.wait_for_status("web", state="BACKOFF")["reason"]


def test_changes_while_no_supervisor_runs(colony: Colony, port: int) -> None:
    """What was removed or changed while there was no supervisor is closed by the next."""
    colony.put("web", server(colony, port))
    colony.put("gone", server(colony, port, sockets={"x": f"unix:{colony.root}/gone.sock"}))
    colony.start()
    for name in ("web", "gone"):
        colony.wait_until_running(name)
    colony.kill()
    colony.remove("gone")
    colony.put("web", server(colony, port, sockets={"http": f"unix:{colony.root}/new.sock"}))
    colony.start()
    colony.wait_until_running("web", instance=2)
    colony.wait_for(lambda: not is_open(port), "the old address is closed")
    colony.wait_for(lambda: not (colony.root / "gone.sock").exists(), "what was removed is closed")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_socket_of_another_user(open_colony: Colony) -> None:
    """The file of a unix socket belongs to the user of the process, which has it as any other."""
    place = open_colony.root / "place"
    place.mkdir()
    os.chown(place, 54321, 54321)
    path = place / "web.sock"
    args = ["/bin/sh", "-c", "exec sleep 100000"]
    sockets = {"http": {"address": f"unix:{path}", "mode": "0600"}, "low": "tcp:127.0.0.1:0"}
    open_colony.put("web", {"args": args, "uid": 54321, "sockets": sockets, "env": {"PATH": os.environ["PATH"]}})
    open_colony.start()
    pid = open_colony.wait_until_running("web")
    assert (path.stat().st_uid, path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (54321, 54321, 0o600)
    assert all(descriptors(pid)[number].startswith("socket:") for number in (3, 4))


def test_a_clean_end_leaves_no_file(colony: Colony, port: int) -> None:
    """A colony that ends takes the files of its unix sockets along, with `ctl shutdown` without a supervisor too."""
    path = Path(f"{colony.root}/web.sock")
    colony.put("web", server(colony, port, sockets={"http": f"unix:{path}"}))
    colony.start()
    colony.wait_until_running("web")
    assert colony.stop() == 0
    assert not path.exists()
    colony.start()
    pid = colony.wait_until_running("web")
    colony.kill()
    colony.ctl("--state", str(colony.state), "shutdown")
    colony.wait_until_dead(pid)
    colony.wait_for(lambda: not path.exists(), "its file is gone")
    assert not is_alive(pid)


def test_a_path_that_somebody_else_has_taken(colony: Colony) -> None:
    """A socket that another has put where ours was is left as it is: the process says so, and waits for its place."""
    path = f"{colony.root}/web.sock"
    colony.put("web", server(colony, 0, sockets={"ctl": f"unix:{path}"}, min_restart_delay=0.05, max_restart_delay=0.1))
    colony.start()
    pid = colony.wait_until_running("web")
    assert call(path) == pid
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        os.chmod(path, 0o600)
        other.listen()
        colony.post({"type": "RESTART", "name": "web"})
        status = colony.wait_for_status("web", state="BACKOFF")
        assert status["reason"] == f"cannot listen on unix:{path}: Address already in use"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        colony.send({"type": "STOP", "name": "web"})
        assert is_open(path)
    colony.send({"type": "START", "name": "web"})
    assert call(path) == colony.wait_until_running("web")
