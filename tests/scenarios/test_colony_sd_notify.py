"""Processes that say how they are, to the socket in NOTIFY_SOCKET or on a descriptor: whoever dies, it is heard."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from test_colony_limits import FEW_FILES
from test_colony_upgrade import Release

from colony import SLEEP, Colony, descriptors, environment_of

VICTIMS = ["supervisor", "keeper", "both"]
NOTIFY: dict[str, Any] = {"args": [SLEEP, "100000"], "ready": {"notify": True}, "threshold": 0.1}


def tell(pid: int, *datagrams: str) -> None:
    """Say something as the process: root and the supervisor's user may."""
    address = environment_of(pid)["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.connect("\0" + address[1:] if address.startswith("@") else address)
        for datagram in datagrams:
            out.send(datagram.encode())


def starting(colony: Colony, name: str = "web") -> int:
    """The pid of a process that has started and not said yet that it is ready."""

    def pid() -> int | None:
        status = colony.status(name)
        return status["pid"] if status and status["state"] == "STARTING" else None

    found: int = colony.wait_for(pid, f"{name} is starting")
    return found


def kill(colony: Colony, victims: str, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Kill them, do something, and wait until everything is there again."""
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    supervisor = colony.supervisor_pid
    os.kill(supervisor, signal.SIGSTOP)
    if victims != "keeper":
        colony.kill()
    if victims != "supervisor":
        os.kill(keeper, signal.SIGKILL)
        colony.wait_for(lambda: not descriptors(keeper), "the keeper is gone")
    meanwhile()
    if victims != "keeper":
        colony.start()
    else:
        os.kill(supervisor, signal.SIGCONT)
        colony.wait_for(lambda: colony.keeper_pid() not in (None, keeper), "there is another keeper")
    colony.scan()


def test_ready_status_and_phases(open_colony: Colony) -> None:
    """A process is STARTING until it says READY=1; its words and phases are in its status, as plain text."""
    colony = open_colony  # a path short enough for a socket
    colony.put("web", NOTIFY)
    colony.start()
    pid = starting(colony)
    address = environment_of(pid)["NOTIFY_SOCKET"]
    about = os.stat(address)
    assert (stat.S_ISSOCK(about.st_mode), stat.S_IMODE(about.st_mode)) == (True, 0o600)
    assert "WATCHDOG_USEC" not in environment_of(pid)
    tell(pid, "STATUS=warms\x1b[31m up")
    colony.wait_for_status("web", said="warms\\x1b[31m up", state="STARTING")
    tell(pid, "READY=1\nSTATUS=serves")
    colony.wait_for_status("web", said="serves", state="RUNNING", pid=pid)
    tell(pid, "RELOADING=1")
    colony.wait_for_status("web", phase="reloading")
    tell(pid, "READY=1", "STOPPING=1")
    colony.wait_for_status("web", phase="stopping")
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    assert not os.path.exists(address)


def test_watchdog_variables(open_colony: Colony) -> None:
    """With `watchdog` a process has NOTIFY_SOCKET and its time in microseconds; without either key, neither."""
    colony = open_colony  # a path short enough for a socket
    colony.put("dog", {"args": [SLEEP, "100000"], "watchdog": 120.5})
    colony.put("none", {"args": [SLEEP, "100000"]})
    colony.start()
    found = environment_of(colony.wait_until_running("dog"))
    assert (found["WATCHDOG_USEC"], "WATCHDOG_PID" in found) == ("120500000", False)
    assert os.path.exists(found["NOTIFY_SOCKET"])
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & environment_of(colony.wait_until_running("none")).keys()


@pytest.mark.parametrize("victims", VICTIMS)
def test_ready_then_killed(colony: Colony, victims: str) -> None:
    """Who has said that he is ready is so for whoever comes after a SIGKILL, and is heard as before."""
    colony.put("web", NOTIFY)
    colony.start()
    pid = starting(colony)
    tell(pid, "READY=1")
    colony.wait_until_running("web")
    kill(colony, victims)
    colony.wait_for_status("web", state="RUNNING", pid=pid, instance=1)
    tell(pid, "STATUS=still here")
    colony.wait_for_status("web", said="still here", state="RUNNING", pid=pid, instance=1)


@pytest.mark.parametrize("victims", ["supervisor", "keeper"])
def test_ready_while_somebody_is_dead(colony: Colony, victims: str) -> None:
    """What is said while supervisor or keeper is dead is heard when there is another."""
    colony.put("web", NOTIFY)
    colony.start()
    pid = starting(colony)
    kill(colony, victims, lambda: tell(pid, "STATUS=serves", "READY=1"))
    colony.wait_for_status("web", state="RUNNING", pid=pid, instance=1, said="serves")


def test_nobody_there_to_hear(colony: Colony) -> None:
    """With both dead nobody is there who could hear; the address is the same afterwards."""
    colony.put("web", NOTIFY)
    colony.start()
    pid = starting(colony)

    def is_refused() -> bool:
        try:
            tell(pid, "STATUS=nobody hears that")
        except ConnectionRefusedError:
            return True
        return False

    kill(colony, "both", lambda: colony.wait_for(is_refused, "nobody is there"))
    tell(pid, "READY=1")
    colony.wait_for_status("web", state="RUNNING", pid=pid, instance=1)


@pytest.mark.parametrize("victims", VICTIMS)
def test_a_newline_whoever_is_dead(colony: Colony, victims: str) -> None:
    """A newline on the descriptor of `ready.fd` is heard, whoever is dead when it is written."""
    gate = colony.root / "gate"
    os.mkfifo(gate)
    script = f"read x < {gate}; echo >&7; echo done; exec sleep 100000"
    colony.put("web", {"args": ["/bin/sh", "-c", script], "ready": {"fd": 7}, "threshold": 0.1})
    colony.start()
    pid = starting(colony)
    kill(colony, victims, lambda: gate.write_text("go\n"))
    colony.wait_for_status("web", state="RUNNING", pid=pid, instance=1)
    colony.wait_for(lambda: colony.lines("web") == ["done"], "it has gone on")
    assert not [name for name in os.listdir(colony.state / "fifo") if name.endswith(".ready")]
    held = [*descriptors(colony.supervisor_pid).values(), *descriptors(colony.keeper_pid() or 0).values()]
    assert not [target for target in held if ".ready" in target]


def test_upgraded_meanwhile(colony: Colony) -> None:
    """An upgrade of supervisor and keeper in place loses nothing of what is said, before, during or after."""
    release = Release(colony)
    colony.put("web", NOTIFY)
    colony.put("late", NOTIFY)
    release.start()
    web, late = starting(colony), starting(colony, "late")
    tell(web, "READY=1\nSTATUS=before")
    colony.wait_for_status("web", state="RUNNING", said="before")
    release.append("keeper/wire.py", "\n# \n")
    version = release.bump()
    message = colony.post({"type": "UPGRADE"})
    tell(late, "READY=1\nSTATUS=during")
    assert colony.wait_for_answer(message)["state"] == "done"
    release.wait_for_version(version)
    colony.wait_for_status("web", state="RUNNING", pid=web, instance=1, said="before")
    colony.wait_for_status("late", state="RUNNING", pid=late, instance=1, said="during")
    tell(web, "STATUS=after")
    colony.wait_for_status("web", said="after")


def test_in_a_long_state_directory(new_colony: Callable[[str], Colony]) -> None:
    """Where the path would be too long for a socket, the name is an abstract one, and everything works as usual."""
    colony = new_colony("long" * 30)
    colony.put("web", NOTIFY)
    colony.start()
    pid = starting(colony)
    assert environment_of(pid)["NOTIFY_SOCKET"] == f"@ncolony/{environment_of(pid)['NCOLONY_INSTANCE']}"
    tell(pid, "READY=1")
    kill(colony, "both")
    tell(pid, "STATUS=here")
    colony.wait_for_status("web", state="RUNNING", pid=pid, instance=1, said="here")


SYSTEMD_NOTIFY = "systemd-notify --ready --status='all is well' && echo told; exec sleep 100000"


@pytest.mark.skipif(shutil.which("systemd-notify") is None, reason="there is no systemd-notify")
@pytest.mark.parametrize("uid", [None, 54321], ids=["ours", "another"])
def test_the_real_systemd_notify(open_colony: Colony, uid: int | None) -> None:
    """systemd's own program is heard, from another user too, and comes to its end."""
    if uid is not None and os.geteuid() != 0:
        pytest.skip("only root may become another user")
    more = {} if uid is None else {"uid": uid}
    definition = {"args": ["/bin/sh", "-c", SYSTEMD_NOTIFY], "env": {"PATH": os.environ["PATH"]}, **more}
    open_colony.put("web", {**NOTIFY, **definition})
    open_colony.start()
    open_colony.wait_for_status("web", state="RUNNING", said="all is well")
    open_colony.wait_for(lambda: open_colony.lines("web") == ["told"], "systemd-notify has ended")


def test_with_few_descriptors(colony: Colony) -> None:
    """Where descriptors run out, those that cannot be heard are not started, and say why; the others are as usual."""
    names = [f"p{number:02}" for number in range(40)]
    for name in names:
        colony.put(name, {**NOTIFY, "sockets": {"s": "tcp:127.0.0.1:0"}})
    colony.start(prefix=FEW_FILES)
    settled = ("STARTING", "BACKOFF")
    colony.wait_for(lambda: all((colony.status(name) or {}).get("state") in settled for name in names), "all tried")
    found = {name: colony.status(name) or {} for name in names}
    refused = [status for status in found.values() if status["state"] == "BACKOFF"]
    assert 0 < len(refused) < len(names)
    assert all("no descriptors left" in status["reason"] for status in refused)
    for name, status in found.items():
        if status["state"] == "STARTING":
            pid = starting(colony, name)
            tell(pid, "READY=1")
            colony.wait_for_status(name, state="RUNNING", pid=pid)
    assert "Traceback" not in colony.log() + (colony.state / "keeper.log").read_text()


def test_many_say_it_at_once(colony: Colony) -> None:
    """Hundreds that say it at once are all heard, and leave nothing behind when they end."""
    count = 200
    for number in range(count):
        colony.put(f"p{number}", NOTIFY)
    colony.start()
    pids = [starting(colony, f"p{number}") for number in range(count)]
    for pid in pids:
        tell(pid, "READY=1")
    for number in range(count):
        colony.wait_until_running(f"p{number}", instance=1)
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    for number in range(count):
        colony.remove(f"p{number}")
    colony.wait_for(lambda: not colony.known(), "all are gone")
    assert os.listdir(colony.state / "notify") == []
    for pid in (keeper, colony.supervisor_pid):
        colony.wait_for(lambda pid=pid: len(descriptors(pid)) < 40, "what they held is closed")  # type: ignore[misc]


BEATS = """
import os, socket, time
address = os.environ["NOTIFY_SOCKET"].replace("@", chr(0))
out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
while True:
    try:
        out.sendto(b"WATCHDOG=1", address)
    except OSError:
        pass  # with keeper and supervisor dead nobody is there
    time.sleep(0.05)
"""
BEATING: dict[str, Any] = {"args": [sys.executable, "-I", "-S", "-c", BEATS], "watchdog": 1.0, "threshold": 0.1}


@pytest.mark.parametrize("victims", VICTIMS)
def test_who_says_that_he_lives_is_left_alone_whoever_is_dead(colony: Colony, victims: str) -> None:
    """While supervisor or keeper is away for longer than the watchdog has, nobody is blamed for what was not heard."""
    colony.put("web", BEATING)
    colony.start()
    pid = colony.wait_until_running("web")
    kill(colony, victims, lambda: time.sleep(1.5))
    assert colony.wait_until_running("web", instance=1) == pid
    assert "watchdog" not in colony.log()


def test_a_keeper_that_does_not_come_back_blames_nobody(colony: Colony) -> None:
    """While there is no keeper who could hear them, no time is up."""
    colony.put("web", BEATING)
    colony.put("slow", {**NOTIFY, "ready": {"notify": True, "timeout": 3}})
    colony.start()
    web, slow = colony.wait_until_running("web"), starting(colony, "slow")
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    lock = colony.state / "keeper.lock"
    os.kill(keeper, signal.SIGSTOP)
    with lock.open("r+") as held:
        os.kill(keeper, signal.SIGKILL)
        fcntl.flock(held, fcntl.LOCK_EX)
        tell(slow, "READY=1")
        time.sleep(3.5)
    colony.scan()
    assert colony.wait_until_running("slow", timeout=40, instance=1) == slow
    assert colony.wait_until_running("web", instance=1) == web
    assert "watchdog" not in colony.log() and "not ready" not in colony.log()


@pytest.mark.parametrize("victims", VICTIMS)
def test_who_hangs_is_found_out_by_the_next_too(colony: Colony, victims: str) -> None:
    """Who has said nothing for too long is restarted, also if that began before somebody died."""
    colony.put("web", {"args": [SLEEP, "100000"], "watchdog": 3, "threshold": 0.1})
    colony.start()
    pid = colony.wait_until_running("web")
    kill(colony, victims)
    colony.wait_until_dead(pid)
    assert colony.wait_until_running("web", instance=2) != pid
    assert "watchdog: no sign of life for 3 s" in colony.log()
