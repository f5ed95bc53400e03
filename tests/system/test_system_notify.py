"""What is told to a service manager, over real sockets: what, when, how often, and that nothing ever waits for it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk

from manager import Manager
from ncolony.system.notify import Notifier, watchdog_interval


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    found = Manager(tmp_path / "notify")
    for name in ("WATCHDOG_PID", "WATCHDOG_USEC", "SYSTEMD_EXEC_PID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NOTIFY_SOCKET", found.name)
    yield found
    found.close()


class States(dict[str, str]):
    """Name to state."""

    def __call__(self) -> list[str]:
        return list(self.values())


def hear(desk: Desk, manager: Manager, key: str) -> dict[str, str]:
    """The next datagram with the key, while the reactor turns."""

    def found() -> dict[str, str] | None:
        manager.listen()
        while manager.seen < len(manager.heard):
            manager.seen += 1
            if key in manager.heard[manager.seen - 1]:
                return manager.heard[manager.seen - 1]
        return None

    told = desk.until(found, f"{key} is told")
    assert isinstance(told, dict)
    return told


def test_ready_waits_for_what_is_being_started(desk: Desk, manager: Manager) -> None:
    """READY=1 comes after the first application, and not while a process is still being started."""
    states = States(a="STARTING", b="RUNNING")
    notifier = Notifier(desk.reactor, states)
    notifier.status()
    notifier.begun()
    desk.until(lambda: not desk.reactor.getDelayedCalls(), "it has looked, and waits for nothing but a change")
    manager.listen()
    assert manager.heard == []
    states["a"] = "RUNNING"
    notifier.status()
    assert hear(desk, manager, "READY") == {"READY": "1", "STATUS": "2 processes: 2 running"}


def test_not_ready_before_the_first_application(desk: Desk, manager: Manager) -> None:
    """That nothing is being started says nothing while nothing was applied."""
    notifier = Notifier(desk.reactor, States())
    notifier.status()
    notifier.reloading()
    notifier.ready()
    desk.settle()
    manager.listen()
    assert manager.heard == []


def test_abstract_socket(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that begins with @ is an abstract socket."""
    manager = Manager.abstract()
    monkeypatch.setenv("NOTIFY_SOCKET", manager.name)
    Notifier(desk.reactor, States(a="RUNNING")).begun()
    assert hear(desk, manager, "READY")["STATUS"] == "1 process: 1 running"
    manager.close()


def test_status_counts_and_is_told_once_a_second(desk: Desk, manager: Manager) -> None:
    """The status names every state with its number; changes within a second are told together; none, never."""
    states = States({str(number): "RUNNING" for number in range(12)})
    notifier = Notifier(desk.reactor, states)
    notifier.begun()
    hear(desk, manager, "READY")
    began = time.monotonic()
    for number in range(2):
        states[str(number)] = "BACKOFF"
        notifier.status()
        desk.settle()
    states["2"] = "STOPPED"
    notifier.status()
    assert hear(desk, manager, "STATUS")["STATUS"] == "12 processes: 9 running, 2 backoff, 1 stopped"
    assert time.monotonic() - began > 0.9
    assert len(manager.heard) == 2
    # There and back within the second: nothing new to tell, and nothing more to wake up for.
    states["3"] = "STOPPING"
    notifier.status()
    states["3"] = "RUNNING"
    notifier.status()
    desk.until(lambda: not desk.reactor.getDelayedCalls(), "no wake-up is left")
    manager.listen()
    assert len(manager.heard) == 2


def test_reload_is_told_with_its_time(desk: Desk, manager: Manager) -> None:
    """RELOADING=1 carries the monotonic clock in microseconds; READY=1 ends it; one inside another is told once."""
    notifier = Notifier(desk.reactor, States())
    notifier.begun()
    hear(desk, manager, "READY")
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    notifier.around(lambda: None)
    told = hear(desk, manager, "RELOADING")
    assert before <= int(told["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert manager.words() == ["READY", "RELOADING"]
    notifier.ready()
    notifier.ready()
    hear(desk, manager, "READY")
    assert manager.words() == ["READY", "RELOADING", "READY"]


def test_stopping_asks_for_time(desk: Desk, manager: Manager) -> None:
    """STOPPING=1 is told once, more time is asked for, and neither READY nor RELOADING follows."""
    notifier = Notifier(desk.reactor, States(a="STOPPING"))
    notifier.stopping()
    notifier.stopping()
    notifier.begun()
    notifier.reloading()
    notifier.ready()
    assert int(hear(desk, manager, "EXTEND_TIMEOUT_USEC")["EXTEND_TIMEOUT_USEC"]) >= 20_000_000
    assert hear(desk, manager, "STATUS") == {"STATUS": "1 process: 1 stopping"}
    assert manager.words() == ["STOPPING"]
    assert [call for call in desk.reactor.getDelayedCalls() if call.getTime() < desk.reactor.seconds() + 15]


def test_watchdog_is_fed_by_the_reactor(desk: Desk, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """WATCHDOG=1 comes twice in the time allowed, and only while the reactor turns."""
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    Notifier(desk.reactor, States())
    hear(desk, manager, "WATCHDOG")
    began = time.monotonic()
    for _ in range(3):
        hear(desk, manager, "WATCHDOG")
    assert time.monotonic() - began >= 0.25
    heard = len(manager.heard)
    manager.listen(0.3)  # a reactor that hangs
    assert len(manager.heard) == heard


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"}, 0.0),
        ({"WATCHDOG_USEC": "0"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_PID": "77"}, 0.0),
        ({}, 0.0),
    ],
)
def test_watchdog_of_somebody_else(environment: dict[str, str], seconds: float) -> None:
    """The watchdog is fed at half its time, if it is ours: WATCHDOG_PID is our pid, or not set."""
    assert watchdog_interval(environment, 77) == seconds


def test_our_pid_is_told_where_another_program_was_started(
    desk: Desk, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MAINPID is told when systemd knows another process as the one it started, and not otherwise."""
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()))
    Notifier(desk.reactor, States()).begun()
    assert "MAINPID" not in hear(desk, manager, "READY")
    monkeypatch.setenv("SYSTEMD_EXEC_PID", "2")
    Notifier(desk.reactor, States()).begun()
    assert hear(desk, manager, "READY")["MAINPID"] == str(os.getpid())


def test_full_queue_delays_and_loses_nothing(desk: Desk, manager: Manager) -> None:
    """A manager that does not read holds nobody up; what it must know arrives, in order, once it reads."""
    notifier = Notifier(desk.reactor, States())
    notifier.begun()
    hear(desk, manager, "READY")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as flood:
        flood.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                flood.sendto(b"STATUS=x", manager.name)
        began = time.monotonic()
        notifier.reloading()
        notifier.ready()
        notifier.stopping()
        assert time.monotonic() - began < 5
    hear(desk, manager, "STOPPING")
    assert manager.words() == ["READY", "RELOADING", "READY", "STOPPING"]


@pytest.mark.parametrize("name", ["", "relative", "vsock:2:1234", "/nonexistent/notify", "/" + "x" * 200])
def test_nobody_listens(desk: Desk, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Without a socket, with one of a kind we do not know, or with one that is gone, nothing happens."""
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    notifier = Notifier(desk.reactor, States(a="RUNNING"))
    notifier.begun()
    notifier.around(lambda: None)
    notifier.stopping()
    desk.settle()
