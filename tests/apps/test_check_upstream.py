"""Upstream's two checks: their keys and options, on the same runner; and their functions."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.python.filepath import FilePath
from twisted.python.usage import UsageError

from colony import SLEEP, Colony, put_whole
from ncolony import beatcheck, ctllib, httpcheck
from ward import Server, Ward, drop, status, wait_for

Serve = Callable[..., Server]


def beat(path: Any, period: float = 0.5, grace: float = 1) -> dict[str, Any]:
    return {"ncolony.beatcheck": {"period": period, "grace": grace, "status": str(path)}}


def http(port: int, **more: Any) -> dict[str, Any]:
    params = {"url": f"http://127.0.0.1:{port}/", "period": 0.2, "timeout": 5, "maxBad": 2, "grace": 1}
    return {"ncolony.httpcheck": {**params, **more}}


def test_beatcheck_asks_once_and_waits_for_the_next_instance(ward: Ward) -> None:
    """A process that does not beat is restarted, once; the next one has its grace, from its own start."""
    ward.put("web", **beat(ward.root / "no"))
    ward.say("web", instance=3)
    ward.check("ncolony-beatcheck", "--freq", "0.2")
    told, restart = ward.take(2)
    assert (told["what"], told["instance"]) == ("unhealthy", 3)
    assert (restart["type"], restart["name"], restart["instance"]) == ("RESTART", "web", 3)
    assert restart["why"].startswith(f"heartbeat {ward.root}/no: not touched for ")
    began = time.time()
    ward.put("slow", **beat(ward.root / "no", period=1, grace=3))
    ward.say("slow", instance=4, started=began)
    assert {message["name"] for message in ward.take(2)} == {"slow"}
    assert time.time() - began >= 3
    assert [m for m in ward.taken if m["name"] == "web"] == [told, restart]


def test_beatcheck_leaves_who_beats_alone(ward: Ward) -> None:
    """Who beats, who has no such key, and whose file is bad is left alone; keys of ours are not its own."""
    beats = ward.root / "beats"
    beats.mkdir()
    ward.put("good", **beat(beats, period=4))
    ward.put("bad", **beat(ward.root / "no"))
    ward.put("ours", check=[{"exec": ["/bin/false"], "period": 0.05, "failure_threshold": 1}])
    ward.put("odd", **{"ncolony.beatcheck": {"period": "x"}})
    put_whole(ward.config, "torn", b"{")
    for name in ("good", "bad", "ours", "odd"):
        ward.say(name)
    ward.check("ncolony-beatcheck")

    def beating() -> bool:
        (beats / "good").touch()
        return len(ward.waiting()) >= 2

    wait_for(beating, "the bad one is noticed")
    until = time.monotonic() + 5
    wait_for(lambda: beating() and time.monotonic() > until, "it has had some time")
    assert {message["name"] for message in ward.waiting().values()} == {"bad"}
    assert "cannot use odd: ncolony.beatcheck: period: expected a number of 0.05 or more" in ward.said()


def test_httpcheck(ward: Ward, serve: Serve) -> None:
    """A server that does not answer more than maxBad times in a row is restarted; whatever it answers is an answer."""
    dead, alive = serve(drop), serve(status(500))
    ward.put("dead", **http(dead.port))
    ward.put("alive", **http(alive.port))
    ward.say("dead")
    ward.say("alive")
    ward.check("ncolony-httpcheck")
    told, restart = ward.take(2)
    assert (restart["type"], restart["name"]) == ("RESTART", "dead")
    assert restart["why"] == f"http http://127.0.0.1:{dead.port}/: closed without an answer"
    assert dead.accepted >= 3
    wait_for(lambda: len(alive.requests) > 8, "the other is asked")
    assert ward.waiting() == {}
    assert told["what"] == "unhealthy"


def test_without_any_supervisor(tmp_path: Path) -> None:
    """Where no supervisor's status is found, grace counts from the file's time, and a request from when it is made."""
    ward = Ward(tmp_path / "w")
    try:
        ward.put("web", **beat("no", period=0.5, grace=2))
        began = time.time()
        ward.check("ncolony-beatcheck", "--freq", "0.2")
        first = ward_restart(ward)
        assert time.time() - began >= 1
        assert "instance" not in first
        asked_at = time.time()
        assert "instance" not in ward_restart(ward)
        assert time.time() - asked_at >= 0.9
        # One that nobody has taken is not repeated.
        wait_for(lambda: ward.waiting(), "it asks")
        time_of = {name: (ward.messages / name).stat().st_mtime_ns for name in ward.waiting()}
        until = time.monotonic() + 3
        wait_for(lambda: time.monotonic() > until, "it has had some time")
        assert {name: (ward.messages / name).stat().st_mtime_ns for name in ward.waiting()} == time_of
    finally:
        ward.close()


def ward_restart(ward: Ward) -> dict[str, Any]:
    """The next request, taken as another supervisor would: it is gone, and nothing is written."""
    wait_for(lambda: ward.waiting(), "a restart is asked for", evidence=ward.evidence)
    [(name, message)] = ward.waiting().items()
    (ward.messages / name).unlink()
    return message


def test_in_a_colony(colony: Colony) -> None:
    """As processes of the colony they look after the others; `ncolony-check` does not read their keys."""
    beats = colony.root / "beats"
    beats.mkdir()
    import sys

    places = ["--messages", str(colony.messages), "--config", str(colony.config), "--state", str(colony.state)]
    run = [sys.executable, "-m", "twisted", "--log-format=text", "ncolony-beatcheck"]
    code = f'[ "$NCOLONY_NAME" = web:1 ] || while :; do touch {beats}/$NCOLONY_NAME; sleep 0.1; done; exec {SLEEP} 1000'
    keys = {"instances": 2, "env": {"PATH": os.environ["PATH"]}, **beat(beats, 2, 2)}
    colony.put("web", {"args": ["/bin/sh", "-c", code], **keys})
    colony.put("beatcheck", {"args": [*run, *places]})
    colony.start()
    colony.wait_for_status("web:1", state="RUNNING", instance=3, timeout=60)
    found = colony.status("web:0") or {}
    assert (found["instance"], found["state"]) == (1, "RUNNING")
    assert colony.status("ncolony-check") is None
    history = [json.loads(line) for line in (colony.state / "history" / "web:1").read_text().splitlines()]
    assert all(line["lived"] >= 4 for line in history), history


# upstream's functions


def test_beatcheck_check(tmp_path: Path) -> None:
    """`check` gives the names that are overdue: after grace from start or the file's time, by the file of each."""
    beats, config = tmp_path / "beats", tmp_path / "conf"
    beats.mkdir()
    config.mkdir()
    assert beatcheck.check(FilePath(str(config)), 0, 0) == []
    for name, text in {
        "a": json.dumps(beat(beats, 10, 3)),
        "b": json.dumps(beat(beats / "no", 10, 1)),
        "c": "{}",
    }.items():
        (config / name).write_text(text)
        os.utime(config / name, (1000, 1000))
    for name, text in {"torn": "{", "x.new": "{", "list": "[]"}.items():
        (config / name).write_text(text)
    table = [
        # start, now, beaten, expected
        (1000, 1000, None, []),
        (1000, 1009, None, []),
        (1000, 1011, None, ["b"]),
        (1000, 1029, None, ["b"]),
        (1000, 1031, None, ["a", "b"]),
        (1000, 1031, 1022, ["b"]),
        (1000, 1031, 1020, ["a", "b"]),
        (1100, 1109, None, []),
        (1100, 1111, None, ["b"]),
    ]
    for start, now, beaten, expected in table:
        (beats / "a").unlink(missing_ok=True)
        if beaten is not None:
            (beats / "a").touch()
            os.utime(beats / "a", (beaten, beaten))
        assert beatcheck.check(FilePath(str(config)), start, now) == expected, (start, now, beaten)


def test_run() -> None:
    """`run` has everybody restarted whom the checker names."""
    restarted: list[str] = []
    beatcheck.run(restarted.append, lambda now: ["a", str(now)], lambda: 7.0)
    httpcheck.run(restarted.append, lambda: ["b"])
    assert restarted == ["a", "7.0", "b"]


def test_parse_config(tmp_path: Path) -> None:
    """`parseConfig` gives what asks for a restart, and the directory."""
    restarter, path = beatcheck.parseConfig({"config": str(tmp_path / "conf"), "messages": str(tmp_path)})
    assert path == FilePath(str(tmp_path / "conf"))
    message = restarter("web")
    assert json.loads((tmp_path / message).read_text()) == {"type": "RESTART", "name": "web"}
    assert ctllib.Places(str(tmp_path), str(tmp_path)) is not None


@pytest.mark.parametrize("module", [beatcheck, httpcheck])
def test_options_and_service(module: Any) -> None:
    """The options are upstream's with their defaults; the service has upstream's name in it."""
    options = module.Options()
    options.parseOptions(["--messages", "m", "--config", "c"])
    assert (options["messages"], options["config"], options["freq"]) == ("m", "c", 10)
    options.parseOptions(["--messages", "m", "--config", "c", "--freq", "13"])
    assert options["freq"] == 13
    for arguments in (["--config", "c"], ["--messages", "m"]):
        with pytest.raises(UsageError):
            module.Options().parseOptions(arguments)
    service = module.makeService({"messages": "m", "config": "c", "freq": 5})
    assert service.getServiceNamed(module.__name__.rpartition(".")[2]) is not None
    assert "heart" not in service.namedServices


def test_checker_has_a_heart(ward: Ward) -> None:
    """A checker that is itself to show signs of life does so."""
    beats = ward.root / "beats"
    beats.mkdir()
    config = json.dumps({"args": ["x"], **beat(beats)})
    ward.check("ncolony-beatcheck", NCOLONY_CONFIG=config, NCOLONY_NAME="beatcheck")
    wait_for((beats / "beatcheck").exists, "it beats", evidence=ward.evidence)
