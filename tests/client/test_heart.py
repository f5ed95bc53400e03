"""Hearts on Twisted: upstream's interface, and real programs that hang, go on, and beat no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.application.internet import TimerService
from twisted.application.service import MultiService, Service
from twisted.python.filepath import FilePath

import ncolony
from manager import Manager, wait_for
from ncolony.client import heart

SOURCE = Path(ncolony.__file__).parent.parent
PARAMETERS = {"status": "my.status", "period": 10, "grace": 3}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[dict[str, Any]], None]:
    """Set what the config file says; the working directory is the test's own."""
    monkeypatch.chdir(tmp_path)
    for variable in ("NCOLONY_CONFIG", "NCOLONY_CONFIG_FILE", "WATCHDOG_USEC", "NOTIFY_SOCKET"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NCOLONY_NAME", "hello")

    def ask(config: dict[str, Any]) -> None:
        monkeypatch.setenv("NCOLONY_CONFIG", json.dumps(config))

    return ask


# What upstream's programs expect


class Touched:
    """Anything that can be touched."""

    touched = 0

    def touch(self) -> None:
        """Note that it was."""
        self.touched += 1


def test_a_heart_touches_what_it_is_given() -> None:
    """`Heart` takes anything with `touch`, as upstream's does, and gives it back."""
    fake = Touched()
    one = heart.Heart(path=fake)
    assert (one.getFile(), fake.touched) == (fake, 0)
    one.beat()
    one.beat()
    assert fake.touched == 2


@pytest.mark.parametrize(("status", "expected"), [("my.status", "my.status"), (".", "hello")])
def test_the_service_is_a_timer(asked: Callable[[dict[str, Any]], None], status: str, expected: str) -> None:
    """`makeService` is a TimerService that calls `Heart.beat` at a third of the period; its file is a FilePath."""
    asked({"ncolony.beatcheck": {**PARAMETERS, "status": status}})
    service = heart.makeService()
    assert isinstance(service, TimerService)
    assert service.step == 10 / 3
    function, arguments, keywords = service.call
    assert (function.__func__, arguments, keywords) == (heart.Heart.beat, (), {})
    file = function.__self__.getFile()
    assert isinstance(file, FilePath)
    assert file.basename() == expected


def test_nobody_asks_for_a_heart(asked: Callable[[dict[str, Any]], None]) -> None:
    """Without NCOLONY_CONFIG, or without a key in it that asks for one, there is no service and none is added."""
    assert heart.makeService() is None
    for config in ({}, {"ncolony.beatcheck": None}, {"check": [{"tcp": "127.0.0.1:1"}]}):
        asked(config)
        assert heart.makeService() is None
        assert list(heart.wrapHeart(Service())) != []
        assert heart.wrapHeart(Service()).namedServices == {}


def test_a_service_is_wrapped(asked: Callable[[dict[str, Any]], None]) -> None:
    """`maybeAddHeart` adds a service called heart, `wrapHeart` puts one beside the service that it is given."""
    asked({"ncolony.beatcheck": PARAMETERS})
    together = MultiService()
    heart.maybeAddHeart(together)
    assert together.getServiceNamed("heart").parent is together
    own = Service()
    wrapped = heart.wrapHeart(own)
    assert [one is own for one in wrapped] == [True, False]
    assert isinstance(wrapped.getServiceNamed("heart"), TimerService)


def test_a_watchdog_alone_has_no_file(
    asked: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where only a watchdog waits, it is told and nothing is touched."""
    manager = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", manager.name)
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    asked({})
    service = heart.makeService()
    assert service is not None
    assert service.step == 1
    one = service.call[0].__self__
    assert one.getFile() is None
    one.beat()
    assert manager.next_with("WATCHDOG") == {"WATCHDOG": "1"}
    manager.close()


# A program that hangs

PROGRAM = """
import os, sys, time
from twisted.application.service import Application, Service
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from ncolony.client import heart

globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)

class Work(Service):
    def startService(self):
        reactor.callLater(0, self.turn)
    def turn(self):
        while os.path.exists("hang"):
            time.sleep(0.01)
        if os.path.exists("stop"):
            service.stopService()
        reactor.callLater(0.01, self.turn)

service = heart.wrapHeart(Work())
service.startService()
reactor.run()
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], subprocess.Popen[bytes]]]:
    """Start the program with this config; it does not outlive the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(config: dict[str, Any]) -> subprocess.Popen[bytes]:
        environment = {"PYTHONPATH": str(SOURCE), "NCOLONY_NAME": "hello", "NCOLONY_CONFIG": json.dumps(config)}
        with (tmp_path / "stderr").open("ab") as stderr:
            running.append(
                subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, cwd=tmp_path, stderr=stderr)
            )
        return running[-1]

    yield start
    for one in running:
        one.kill()
        one.wait()


def next_touch(path: Path) -> None:
    before = path.stat().st_mtime_ns
    wait_for(lambda: path.stat().st_mtime_ns != before, f"{path} is touched")


def test_the_reactor_beats(program: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    """The heart beats as long as the reactor goes round: not while it hangs, and no more once the service stops."""
    file = tmp_path / "heart"
    program({"check": [{"heartbeat": "heart", "period": 0.3}]})
    wait_for(file.exists, "it beats")
    next_touch(file)
    next_touch(file)
    (tmp_path / "hang").touch()
    wait_for(lambda: time.time() - file.stat().st_mtime > 1, "it stands still")
    (tmp_path / "hang").unlink()
    next_touch(file)
    (tmp_path / "stop").touch()
    wait_for(lambda: time.time() - file.stat().st_mtime > 1, "it stands still for good")


def test_trouble_is_logged_once_and_beating_goes_on(
    program: Callable[[dict[str, Any]], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """A directory that is missing is one line in the log; when it comes, the heart beats."""
    file = tmp_path / "later" / "heart"
    running = program({"ncolony.beatcheck": {"status": str(file), "period": 0.1, "grace": 3}})

    def said() -> list[str]:
        lines = (tmp_path / "stderr").read_text().splitlines()
        return [line.partition("] ")[2] for line in lines if "[ncolony.client#" in line]

    trouble = f"cannot beat: {file}: No such file or directory"
    wait_for(lambda: said() == [trouble], "it is logged")
    time.sleep(0.2)  # several beats, each of which fails
    assert (said(), running.poll()) == ([trouble], None)
    file.parent.mkdir()
    wait_for(file.exists, "it beats")
    next_touch(file)
    assert said() == [trouble, f"no more: {trouble}"]
