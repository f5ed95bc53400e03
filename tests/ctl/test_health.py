"""`ctl health`, `ctllib.health` and the checkups that go on: what is told, and how little is read."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ctl_colony import Colony, wait_for

from ncolony import ctllib
from ncolony.cli import main
from ncolony.ctllib import checkup
from ncolony.ctllib.checkup import KEEPER, NO_KEEPER, PROBLEMS, SUPERVISOR

FAILED = {"code": 3, "signal": None, "at": 1.0, "lived": 0.2, "text": "exit code 3"}


@contextlib.contextmanager
def kept(colony: Colony) -> Iterator[None]:
    """Hold the lock of a live keeper."""
    with open(colony.state / "keeper.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def alive(colony: Colony, **record: Any) -> Iterator[None]:
    """A supervisor and a keeper run."""
    with colony.supervised(**record), kept(colony):
        yield


def define(colony: Colony, name: str, **keys: Any) -> None:
    (colony.config / name).write_text(json.dumps({"args": ["a"], **keys}))


def told(colony: Colony, *names: str) -> list[str]:
    return [str(one) for one in ctllib.health(colony.places, names, state=colony.state)]


def test_all_is_well(colony: Colony, capsys: pytest.CaptureFixture[str]) -> None:
    """The one word "healthy", and 0, when everything that should run does."""
    define(colony, "web")
    define(colony, "off", enabled=False)
    colony.report("web")
    colony.report("stopped", state="STOPPED", wanted="down")
    with alive(colony):
        assert main([*colony.options, "health"]) == 0
        assert capsys.readouterr() == ("healthy\n", "")
        assert main([*colony.options, "health", "web", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"healthy": True, "reasons": []}


def test_each_reason_is_a_line(colony: Colony, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is not well is a line "name: reason" on standard output, and the status is 1."""
    colony.report("api", state="BACKOFF", reason="exit code 3 after 0.01 s")
    colony.report("db", healthy=False, health="no answer within 5 s")
    colony.report("job", state="EXITED", job=True, late="due at 03:00:00")
    colony.report("slow", state="STARTING")
    define(colony, "unseen")
    with alive(colony, problems=["cannot write /x: No space left on device"]):
        assert main([*colony.options, "health"]) == 1
        out, err = capsys.readouterr()
        assert (out.splitlines(), err) == (
            [
                "ncolony/problems: cannot write /x: No space left on device",
                "api: BACKOFF: exit code 3 after 0.01 s",
                "db: no answer within 5 s",
                "job: due at 03:00:00",
                "slow: STARTING",
                "unseen: STOPPED: not seen by a supervisor yet",
            ],
            "",
        )
        assert main([*colony.options, "health", "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert found["healthy"] is False
        kinds = {one["name"]: one["kind"] for one in found["reasons"]}
        assert kinds == {
            "ncolony/problems": "problem",
            "api": "down",
            "db": "unhealthy",
            "job": "late",
            "slow": "starting",
            "unseen": "down",
        }
        assert found["reasons"][2] == {"name": "db", "kind": "unhealthy", "why": "no answer within 5 s"}


def test_only_those_that_are_named_count(colony: Colony, capsys: pytest.CaptureFixture[str]) -> None:
    """Names, globs, groups and the name that copies share choose; one that means nothing is a reason too."""
    colony.report("web:0", group=["front"])
    colony.report("web:1", state="BACKOFF", reason="x", group=["front"])
    colony.report("db")
    with alive(colony):
        for names, status in (
            (["db"], 0),
            (["web:0"], 0),
            (["web"], 1),
            (["w*"], 1),
            (["front"], 1),
            (["d*", "db"], 0),
        ):
            assert main([*colony.options, "health", *names]) == status, names
        capsys.readouterr()
        assert main([*colony.options, "health", "nobody", "db"]) == 1
        assert capsys.readouterr() == ("nobody: no such process\n", "")
        assert told(colony, "web", "nobody") == ["nobody: no such process", "web:1: BACKOFF: x"]
        assert [str(one) for one in ctllib.health(colony.places, "db", state=colony.state)] == []


def test_nothing_is_well_without_supervisor_or_keeper(colony: Colony, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a supervisor nothing that is reported need be true; without a keeper nothing can be started."""
    colony.report("web")
    nobody = f"{SUPERVISOR}: {ctllib.NO_SUPERVISOR}"
    nothing = f"{KEEPER}: {NO_KEEPER}"
    assert told(colony) == [nobody, nothing]
    with colony.supervised():
        assert told(colony) == told(colony, "web") == [nothing]
    with kept(colony):
        assert told(colony) == [nobody]
        assert main([*colony.options, "health", "web"]) == 1
        assert capsys.readouterr().out == f"{nobody}\n"


def test_an_end_that_was_a_success_is_well(colony: Colony) -> None:
    """A process that ended by itself is well if its file calls that a success."""
    define(colony, "task", restart="never")
    colony.report("task", state="EXITED", reason="exit code 3", last_exit=FAILED)
    with alive(colony):
        assert told(colony) == ["task: EXITED: exit code 3"]
        define(colony, "task", restart="never", success_codes=[0, 3])
        assert told(colony) == []


def told_to_nobody(colony: Colony) -> list[str]:
    """What a user without any rights is told."""
    hear, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(say, json.dumps(told(colony)).encode())
        except BaseException as error:  # noqa: BLE001  # nothing of pytest's is to run in the child
            os.write(say, json.dumps([repr(error)]).encode())
        finally:
            os._exit(0)
    os.close(say)
    with os.fdopen(hear) as answer:
        found: list[str] = json.load(answer)
    os.waitpid(pid, 0)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_others_may_ask_too(open_colony_of_root: Colony) -> None:
    """A user who may not open the keeper's lock is told by the pid that the supervisor reports."""
    colony = open_colony_of_root
    colony.report("web")
    for keeper, expected in ((os.getpid(), 0), (2**22 + 5, 1), (None, 1), ("x", 1)):
        with alive(colony, keeper=keeper):
            os.chmod(colony.state / "keeper.lock", 0o600)
            os.chmod(colony.state / "lock", 0o644)
            assert told(colony) == []
            assert told_to_nobody(colony) == ([f"{KEEPER}: {NO_KEEPER}"] if expected else [])


@pytest.fixture
def open_colony_of_root() -> Iterator[Colony]:
    """A colony in a directory that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="health-") as root:
        os.chmod(root, 0o755)
        yield Colony(Path(root))


def test_what_cannot_be_read_is_one_line(colony: Colony, capsys: pytest.CaptureFixture[str]) -> None:
    """A torn status is told as such."""
    (colony.state / "status" / "web").write_text("{")
    with alive(colony):
        assert main([*colony.options, "health"]) == 1
        out, err = capsys.readouterr()
        assert out.startswith("web: cannot read its status: not JSON")
        assert (out.count("\n"), err) == (1, "")


def test_control_characters_are_shown_escaped(colony: Colony) -> None:
    """What somebody else has written cannot begin a line of its own."""
    colony.report("web", healthy=False, health="a\nb: well")
    with alive(colony):
        assert told(colony) == ["web: a\\nb: well"]


# Checkups


def troubles(one: ctllib.Checkup) -> list[str]:
    return [str(trouble) for _, found in one.processes().values() for trouble in found]


def test_a_checkup_sees_every_change(colony: Colony) -> None:
    """What comes, changes and goes is seen at the next look, however soon after the last one."""
    one = ctllib.Checkup(colony.places, colony.state)
    with alive(colony):
        for turn in range(50):
            state = "BACKOFF" if turn % 2 else "RUNNING"
            colony.report("web", state=state, reason="x")
            assert troubles(one) == (["web: BACKOFF: x"] if turn % 2 else [])
        define(colony, "new")
        assert troubles(one) == ["new: STOPPED: not seen by a supervisor yet", "web: BACKOFF: x"]
        define(colony, "new", enabled=False)
        assert troubles(one) == ["web: BACKOFF: x"]
        colony.report("new", state="FATAL", reason="y")
        assert troubles(one) == ["new: FATAL: y", "web: BACKOFF: x"]
        for name in ("new", "web"):
            (colony.state / "status" / name).unlink()
        (colony.config / "new").unlink()
        assert one.processes() == {}
        assert one.colony() == {SUPERVISOR: [], KEEPER: [], PROBLEMS: []}


def test_a_checkup_reads_only_what_changed(colony: Colony, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many processes only the file that changed is read again, and none when nothing did."""
    for number in range(100):
        colony.report(f"p{number:02}")
    one = ctllib.Checkup(colony.places, colony.state)
    read: list[str] = []
    reported = checkup.reported

    def noted(directory: str, name: str) -> Any:
        read.append(name)
        return reported(directory, name)

    monkeypatch.setattr(checkup, "reported", noted)
    assert len(one.processes()) == len(read) == 100
    read.clear()
    one.processes()
    colony.report("p42", restarts=1)
    assert one.processes()["p42"][0].restarts == 1
    assert read == ["p42"]
    written = time.time()
    wait_for(lambda: time.time() > written + 0.1)
    one.processes()
    listed: list[str] = []
    monkeypatch.setattr(checkup, "file_names", lambda directory: listed.append(directory) or [])
    assert len(one.processes()) == 100
    assert listed == [], "the directories are not even listed"


def test_a_keeper_that_is_replaced_is_no_trouble_at_once(colony: Colony) -> None:
    """For `patience` seconds after it was last seen, the lack of a keeper is no trouble."""
    patient, hasty = ctllib.Checkup(colony.places, colony.state, 3600), ctllib.Checkup(colony.places, colony.state, 0)
    with colony.supervised():
        assert [patient.colony()[KEEPER], [str(one) for one in hasty.colony()[KEEPER]]] == [
            [],
            [f"{KEEPER}: {NO_KEEPER}"],
        ]
        with kept(colony):
            assert hasty.colony()[KEEPER] == []


def test_it_starts_quickly(colony: Colony) -> None:
    """Neither Twisted nor msgspec is loaded to tell that all is well."""
    colony.report("web")
    code = (
        "import sys; from ncolony.cli import main; main(sys.argv[1:]); print({*sys.modules} & {'twisted', 'msgspec'})"
    )
    with alive(colony):
        done = colony.run_bare([sys.executable, "-c", code, *colony.options, "health", "web"])
    assert (done.stdout, done.stderr) == ("healthy\nset()\n", "")
