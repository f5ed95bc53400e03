"""`events`, a line of JSON for everything that happens, and `applied`, which configuration is in effect."""

from __future__ import annotations

import json
import os
import signal
import time
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from colony import SLEEP, Colony, put_whole, read_json

RUN: dict[str, Any] = {"args": [SLEEP, "100000"]}
STATES = {"starting", "running", "backoff", "stopping", "stopped", "exited", "fatal"}
OTHERS = {"gone", "adopted", "problem", "healed", "rolled-back", "message", "supervisor"}
MIB = 1 << 20


def lines_of(path: Path) -> list[bytes]:
    """The lines of a file, the last of which is whole."""
    data = path.read_bytes()
    assert data.endswith(b"\n")
    return data.split(b"\n")[:-1]


def events(colony: Colony, name: str | None = None) -> list[dict[str, Any]]:
    """All events, or those of one process, in order."""
    found = [json.loads(line) for line in lines_of(colony.state / "events")]
    return [event for event in found if name is None or event["name"] == name]


def words(colony: Colony, name: str) -> list[str]:
    return [event["event"] for event in events(colony, name)]


def test_a_life_in_events(colony: Colony) -> None:
    """What happens to a process and its file is told in order, with the fields that are documented."""
    began = time.time()
    colony.put("web", {"args": colony.payload("web", "leave_when", 3, colony.root / "trigger"), "threshold": 60})
    colony.start("-m", "0.2", "-M", "0.2")
    pid = colony.wait_until_running("web")
    colony.put("web", b"{")
    problem = colony.wait_for_problem("web")
    colony.put("web", {**RUN, "threshold": 60})
    second = colony.wait_until_running("web", instance=2, problem=None)
    os.kill(second, signal.SIGKILL)
    colony.wait_until_running("web", instance=3)
    message = colony.post({"type": "STOP", "name": "web"})
    assert colony.wait_for_answer(message)["state"] == "done"
    refused = colony.post({"type": "RESTART", "name": "nosuch"})
    why = colony.wait_for_answer(refused)["why"]
    colony.remove("web")
    colony.wait_until_forgotten("web")
    assert colony.stop() == 0
    found = events(colony)
    assert words(colony, "web") == [
        *("starting", "running", "problem", "healed", "stopping", "starting", "running"),
        *("backoff", "starting", "running", "stopping", "stopped", "gone"),
    ]
    assert all(began <= event["at"] <= time.time() for event in found)
    assert [event["at"] for event in found] == sorted(event["at"] for event in found)
    assert {event["event"] for event in found} <= STATES | OTHERS
    for event in found:
        if event["event"] in STATES:
            assert event["state"] == event["event"].upper()
            assert isinstance(event["instance"], int)
    of_web = events(colony, "web")
    running = [event for event in of_web if event["event"] == "running"]
    assert [event["instance"] for event in running] == [1, 2, 3]
    assert [event["pid"] for event in running][:2] == [pid, second]
    assert next(event["reason"] for event in of_web if event["event"] == "problem") == problem
    assert "KILL" in next(event["reason"] for event in of_web if event["event"] == "backoff")
    told = [(e["file"], e["result"], e["reason"]) for e in found if e["event"] == "message"]
    assert told == [(message, "accepted", ""), (message, "done", ""), (refused, "failed", why)]
    ours = [event["reason"] for event in found if event["event"] == "supervisor"]
    assert ours == ["started", "stopping", "stopped"]
    assert found[0]["event"] == "supervisor"
    assert found[-1]["reason"] == "stopped"


def test_supervisors_that_come(colony: Colony) -> None:
    """A new supervisor tells that it has come, in which way, and what it found running."""
    colony.put("web", {**RUN, "instances": 2})
    colony.start()
    pids = {name: colony.wait_until_running(name) for name in ("web:0", "web:1")}
    colony.scan()
    assert colony.send({"type": "UPGRADE"})["state"] == "done"
    colony.wait_for(lambda: words(colony, "web:1").count("adopted") == 1, "they are adopted")
    colony.kill()
    colony.start()
    colony.wait_for(lambda: words(colony, "web:1").count("adopted") == 2, "they are adopted again")
    ours = [event["reason"] for event in events(colony) if event["event"] == "supervisor"]
    assert ours == ["started", "upgraded", "started"]
    for name, pid in pids.items():
        adopted = [event for event in events(colony, name) if event["event"] == "adopted"]
        assert [(event["pid"], event["instance"]) for event in adopted] == [(pid, 1)] * 2


def test_rotation(colony: Colony) -> None:
    """At 1 MiB the file is set aside whole and a new one is begun; who follows it by its inode misses nothing."""
    colony.state.mkdir(mode=0o700)
    line = json.dumps({"at": 1.0, "event": "running", "name": "x", "reason": "y" * 900}).encode() + b"\n"
    before = line * ((MIB - 2000) // len(line))
    (colony.state / "events").write_bytes(before)
    with (colony.state / "events").open("rb") as follower:
        colony.put("web", {"args": ["/bin/sh", "-c", "exit 3"]})
        colony.start("-m", "0", "-M", "0.01")
        old = colony.state / "events.old"
        colony.wait_for(old.exists, "it is set aside")
        colony.wait_for(lambda: len(events(colony, "web")) > 10, "a new one is written")
        assert colony.stop() == 0
        followed = follower.read()
    assert followed == old.read_bytes()
    assert followed.startswith(before)
    assert old.stat().st_size <= MIB
    whole = [json.loads(one) for one in lines_of(old) + lines_of(colony.state / "events")]
    starts = [event["instance"] for event in whole if (event["event"], event["name"]) == ("starting", "web")]
    assert starts == [*range(1, len(starts) + 1)], "no event is lost or doubled"
    # Once more: the one before goes.
    (colony.state / "events").write_bytes(before)
    colony.start("-m", "0", "-M", "0.01")
    colony.wait_for(lambda: old.read_bytes() != followed, "it is set aside again")
    assert old.read_bytes().startswith(before)


def test_whoever_is_killed_tears_no_line(colony: Colony) -> None:
    """However often supervisors are killed in the middle of their work, each line is whole, and in order."""
    for number in range(5):
        colony.put(f"web{number}", {"args": ["/bin/sh", "-c", "exit 3"], "log": {"forward": False}})
    starts = 0
    for _ in range(4):
        colony.start("-m", "0", "-M", "0.01")
        colony.wait_for(lambda starts=starts: _count(colony) > starts + 20, "there is much to tell")  # type: ignore[misc]
        colony.kill()
        starts = _count(colony)
    # Torn by a crash of the machine, or a disk that was full:
    with (colony.state / "events").open("ab") as file:
        file.write(b'{"at": 1, "event": "run')
    colony.start("-m", "0", "-M", "0.01")
    colony.wait_for(lambda: _count(colony) > starts + 20, "it goes on")
    assert colony.stop() == 0
    lines = lines_of(colony.state / "events")
    torn = [line for line in lines if not line.endswith(b"}")]
    assert torn == [b'{"at": 1, "event": "run']
    found = [json.loads(line) for line in lines if line not in torn]
    assert [event["at"] for event in found] == sorted(event["at"] for event in found)
    came = [number for number, event in enumerate(found) if event["event"] == "supervisor"]
    for begin, end in pairwise(came):
        for name in (f"web{number}" for number in range(5)):
            starts_of = [e["instance"] for e in found[begin:end] if (e["event"], e["name"]) == ("starting", name)]
            assert all(after == before + 1 for before, after in pairwise(starts_of)), name


def _count(colony: Colony) -> int:
    path = colony.state / "events"
    return path.read_bytes().count(b"\n") if path.exists() else 0


# What is applied


def generation(directory: Path) -> str:
    """What `applied` should say of the directory, computed as the documentation of the files has it."""
    total = 0
    for name in os.listdir(os.fsencode(directory)):
        ignored = name.startswith(b".") or name.endswith((b".new", b"~", b".swp", b".tmp", b".bak"))
        path = os.path.join(os.fsencode(directory), name)
        if ignored or (name.startswith(b"#") and name.endswith(b"#")) or os.path.isdir(path):
            continue
        small = os.path.isfile(path) and os.path.getsize(path) <= MIB
        data = Path(os.fsdecode(path)).read_bytes() if small else b""
        inner = blake2b(data, digest_size=16).digest()
        total += int.from_bytes(blake2b(name + b"\0" + inner, digest_size=16).digest(), "big")
    return f"{total % 2**128:032x}"


def agrees(colony: Colony, files: int, problems: int) -> None:
    """Wait until what is applied is what the directory holds."""
    expected = {"generation": generation(colony.config), "files": files, "problems": problems}

    def found() -> bool:
        applied = read_json(colony.state / "applied") or {}
        return {key: applied.get(key) for key in expected} == expected

    colony.wait_for(found, f"applied is {expected}, and not {read_json(colony.state / 'applied')}", 15)


def test_what_is_applied(colony: Colony) -> None:
    """After each addition, change, breakage and removal the sum over the files is told, and how many have a problem."""
    colony.start()
    agrees(colony, 0, 0)
    before = time.time()
    colony.put("web", RUN)
    agrees(colony, 1, 0)
    assert before <= (read_json(colony.state / "applied") or {})["at"] <= time.time()
    colony.put("echo", {**RUN, "instances": 3})
    agrees(colony, 2, 0)
    colony.put("web", json.dumps({**RUN, "mycorp.owner": 1}, indent=3).encode())
    agrees(colony, 2, 0)
    colony.put("web", b"{")
    agrees(colony, 2, 1)
    colony.put("echo", {**RUN, "instances": -1})
    agrees(colony, 2, 2)
    colony.put("web", RUN)
    agrees(colony, 2, 1)
    colony.remove("echo")
    agrees(colony, 1, 0)
    colony.remove("web")
    agrees(colony, 0, 0)


def test_odd_files_are_in_the_sum(colony: Colony) -> None:
    """What cannot be read counts with no content; what is ignored, and directories, count not at all."""
    colony.put("web", RUN)
    colony.start()
    (colony.config / "directory").mkdir()
    os.mkfifo(colony.config / "fifo")
    (colony.config / "dangling").symlink_to("nowhere")
    (colony.config / "huge").write_bytes(b" " * (MIB + 1))
    (colony.config / "empty").write_bytes(b"")
    (colony.config / "linked").symlink_to(colony.config / "web")
    put_whole(colony.config, b"caf\xe9", json.dumps(RUN).encode())
    put_whole(colony.config, "naïve", json.dumps(RUN).encode())
    for ignored in (".hidden", "x.new", "x~", "x.swp", "x.tmp", "x.bak", "#x#"):
        (colony.config / ignored).write_text("{}")
    agrees(colony, 8, 5)  # web, linked and naïve are fine
    colony.wait_until_running("naïve")


@pytest.mark.parametrize("change", ["same", "added", "removed", "broken"])
def test_it_is_told_by_each_supervisor(colony: Colony, change: str) -> None:
    """What changed while there was no supervisor is in the sum of the next one, and a rollback is no change of it."""
    colony.put("web", {**RUN, "rollback_if_not_ready": 0.2, "threshold": 0.1})
    colony.put("echo", RUN)
    colony.start()
    agrees(colony, 2, 0)
    colony.kill()
    if change == "added":
        colony.put("more", RUN)
    elif change == "removed":
        colony.remove("echo")
    elif change == "broken":
        colony.put("echo", b"{")
    colony.start()
    colony.scan()  # what the one before has written may agree already
    agrees(colony, {"added": 3, "removed": 1}.get(change, 2), int(change == "broken"))
    colony.put("web", {"args": ["/no/such"], "rollback_if_not_ready": 0.2})
    colony.wait_for(lambda: (colony.status("web") or {}).get("rolled_back"), "it is rolled back")
    agrees(colony, {"added": 3, "removed": 1}.get(change, 2), int(change == "broken"))
