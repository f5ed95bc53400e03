"""Rolling restarts: never more than so many down at once, and a failure stops at the first."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from colony import SLEEP, Colony, is_alive

THRESHOLD = 0.4


def service(colony: Colony, *arguments: object) -> dict[str, Any]:
    """A process that notes when it was started and when it is told to end."""
    return {"args": colony.payload("notes", "service", *arguments), "threshold": THRESHOLD}


def starts(colony: Colony) -> dict[str, list[float]]:
    """By name: when each instance was started, in seconds since boot."""
    found: dict[str, list[float]] = {}
    for line in colony.notes("notes", "up "):
        _, _, name, began = line.split()
        found.setdefault(name, []).append(float(began))
    return found


def ends(colony: Colony) -> list[tuple[float, str]]:
    """When each instance was told to end, and the name, in order."""
    lines = [line.split() for line in colony.notes("notes", "down ")]
    return sorted((float(at), name) for _, _, name, at in lines)


def most_at_once(colony: Colony) -> int:
    """How many processes were told to end and were not yet ready again, at the worst moment."""
    began, spans = starts(colony), list[tuple[float, float]]()
    for at, name in ends(colony):
        after = min((start for start in began[name] if start >= at - 0.01), default=float("inf"))
        spans.append((at, after + THRESHOLD))
    return max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)


def up(colony: Colony, *names: str, **fields: object) -> None:
    """Wait until all of these run and have noted it, so that they will note their end too."""
    for name in names:
        colony.wait_until_running(name, **fields)
    colony.wait_for(lambda: set(names) <= set(starts(colony)), f"{names} are up")


COPIES = tuple(f"web:{index}" for index in range(4))


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_so_many_at_a_time(colony: Colony, at_once: int) -> None:
    """Of four copies never more than N are down or not ready; each restarts once, the first ones first."""
    colony.put("web", {**service(colony), "instances": 4})
    colony.start()
    up(colony, *COPIES)
    message = colony.post({"type": "RESTART", "name": "web", "rolling": at_once})
    colony.wait_for(lambda: (colony.answer(message) or {}).get("state") == "accepted", "it is accepted")
    answer = colony.wait_for_answer(message)
    assert (answer["state"], answer["why"], sorted(answer["names"])) == ("done", "", [*COPIES])
    for name in COPIES:
        status = colony.wait_for_status(name, state="RUNNING", instance=2)
        assert status["ready_at"] is not None
    assert {name: len(began) for name, began in starts(colony).items()} == dict.fromkeys(COPIES, 2)
    assert most_at_once(colony) == at_once
    order = [name for _, name in ends(colony)]
    assert set(order[:at_once]) == set(COPIES[:at_once])
    if at_once == 1:
        assert order == [*COPIES]


@pytest.mark.parametrize("kind", ["RESTART-ALL", "RESTART-GROUP"])
def test_all_and_groups(colony: Colony, kind: str) -> None:
    """RESTART-ALL and RESTART-GROUP roll over those that should run, and touch none that should not."""
    for name in ("a", "b", "c", "stopped"):
        colony.put(name, {**service(colony), "group": "front"})
    colony.put("other", {"args": [SLEEP, "100000"], "threshold": THRESHOLD})
    colony.put("disabled", {**service(colony), "group": "front", "enabled": False})
    colony.start()
    up(colony, "a", "b", "c", "stopped")
    assert colony.send({"type": "STOP", "name": "stopped"})["state"] == "done"
    group = {"group": "front"} if kind == "RESTART-GROUP" else {}
    answer = colony.send({"type": kind, "rolling": 1, **group})
    expected = ["a", "b", "c"] if group else ["a", "b", "c", "other"]
    assert (answer["state"], answer["why"], sorted(answer["names"])) == ("done", "", expected)
    assert [name for _, name in ends(colony)] == ["stopped", "a", "b", "c"]
    assert {name: len(began) for name, began in starts(colony).items()} == {"a": 2, "b": 2, "c": 2, "stopped": 1}
    colony.wait_until_running("other", instance=1 if group else 2)
    colony.wait_for_status("stopped", state="STOPPED", instance=1)


def test_more_than_there_are(colony: Colony) -> None:
    """With room for more than there are, all restart at once, and the answer still waits until each is ready."""
    colony.put("web", {**service(colony), "instances": 2})
    colony.put("plain", service(colony))
    colony.start()
    up(colony, "web:0", "web:1", "plain")
    for name, at_once, members in (("web", 100, COPIES[:2]), ("plain", 1, ("plain",))):
        message = colony.post({"type": "RESTART", "name": name, "rolling": at_once})
        assert colony.wait_for_answer(message)["state"] == "done"
        answered = (colony.state / "answers" / message).stat().st_mtime
        for member in members:
            assert colony.wait_for_status(member, instance=2, state="RUNNING")["ready_at"] <= answered + 0.05
    assert most_at_once(colony) == 2


def test_one_that_dies_young_ends_it(colony: Colony) -> None:
    """A copy that dies before it is ready fails the request with its reason; those after it run as they did."""
    colony.put("web", {**service(colony, 2, 3), "instances": 4, "threshold": 5})
    colony.start("-m", "60", "-M", "60")
    up(colony, *COPIES)
    answer = colony.send({"type": "RESTART", "name": "web", "rolling": 1})
    assert (answer["accepted"], answer["state"]) == (True, "failed")
    assert "web:0" in answer["why"]
    assert "exit code 3" in answer["why"]
    assert "3" in answer["why"].partition(";")[2], "it says how many were left alone"
    colony.wait_for_status("web:0", state="BACKOFF", instance=2)
    for name in COPIES[1:]:
        colony.wait_until_running(name, instance=1)
    assert [name for _, name in ends(colony)] == ["web:0"]


def test_one_that_cannot_be_started_ends_it(colony: Colony) -> None:
    """So does one whose program is gone; the others, whose program is gone as well, run on."""
    program = colony.root / "program"
    shutil.copy(SLEEP, program)
    colony.put("web", {"args": [str(program), "100000"], "instances": 3, "threshold": THRESHOLD})
    colony.start("-m", "60", "-M", "60")
    pids = {name: colony.wait_until_running(name) for name in COPIES[:3]}
    program.unlink()
    answer = colony.send({"type": "RESTART", "name": "web", "rolling": 2})
    assert answer["state"] == "failed", answer
    assert str(program) in answer["why"]
    assert is_alive(pids["web:2"])
    colony.wait_until_running("web:2", instance=1)


@pytest.mark.parametrize("moment", ["down 1", "up 5", "down 2", "up 6", "down 4"])
@pytest.mark.parametrize("way", ["kill", "upgrade"])
def test_it_goes_on_after_us(colony: Colony, moment: str, way: str) -> None:
    """Killed, or upgraded, in the middle, the next supervisor carries on: each restarts exactly once, one at a time."""
    colony.put("web", {**service(colony), "instances": 4})
    colony.start()
    up(colony, *COPIES)
    message = colony.post({"type": "RESTART", "name": "web", "rolling": 1})
    word, count = moment.split()
    colony.wait_for_notes("notes", int(count), f"{word} ")
    if way == "kill":
        colony.kill()
        colony.start()
    else:
        colony.post({"type": "UPGRADE"})
    answer = colony.wait_for_answer(message)
    assert (answer["state"], sorted(answer["names"])) == ("done", [*COPIES]), answer
    assert {name: len(began) for name, began in starts(colony).items()} == dict.fromkeys(COPIES, 2)
    for name in COPIES:
        colony.wait_until_running(name, instance=2)
    assert [name for _, name in ends(colony)] == [*COPIES]
    assert most_at_once(colony) == 1


def test_a_failure_is_known_after_us(colony: Colony) -> None:
    """One that died while no supervisor was there ends the request when the next one comes."""
    colony.put("web", {**service(colony, 2, 3), "instances": 3, "threshold": 5, "stop": [["TERM", 30]]})
    colony.start("-m", "60", "-M", "60")
    up(colony, *COPIES[:3])
    message = colony.post({"type": "RESTART", "name": "web", "rolling": 1})
    colony.wait_for_notes("notes", 4)
    colony.kill()
    colony.start("-m", "60", "-M", "60")
    answer = colony.wait_for_answer(message)
    assert answer["state"] == "failed"
    assert "web:0" in answer["why"]
    for name in ("web:1", "web:2"):
        colony.wait_until_running(name, instance=1)


@pytest.mark.parametrize("how", ["removed", "stopped", "disabled"])
@pytest.mark.parametrize("whom", ["a", "b"])
def test_one_that_goes_meanwhile(colony: Colony, how: str, whom: str) -> None:
    """Nobody waits for a process that is removed, stopped or disabled meanwhile, whether it was its turn or not."""
    config = {**service(colony), "group": "all"}
    for name in ("a", "b", "c"):
        colony.put(name, config)
    colony.start()
    up(colony, "a", "b", "c")
    message = colony.post({"type": "RESTART-GROUP", "group": "all", "rolling": 1})
    colony.wait_for_notes("notes", beginning="down ")
    if how == "removed":
        colony.remove(whom)
    elif how == "disabled":
        colony.put(whom, {**config, "enabled": False})
    else:
        assert colony.send({"type": "STOP", "name": whom})["state"] == "done"
    answer = colony.wait_for_answer(message)
    assert answer["state"] == "done", answer
    if how == "removed":
        colony.wait_until_forgotten(whom)
    else:
        colony.wait_for_status(whom, state="STOPPED", wanted="down")
    for name in {"b", "c"} - {whom}:
        colony.wait_until_running(name, instance=2)
    if whom == "b":
        assert len(starts(colony)["b"]) == 1


def test_what_was_stopped_is_started(colony: Colony) -> None:
    """As without `rolling`, RESTART of a stopped process starts it; the answer waits until it is ready."""
    colony.put("web", {**service(colony), "instances": 3})
    colony.put("plain", service(colony))
    colony.start()
    up(colony, *COPIES[:3], "plain")
    for name in ("web:1", "plain"):
        assert colony.send({"type": "STOP", "name": name})["state"] == "done"
    answer = colony.send({"type": "RESTART", "name": "plain", "rolling": 1})
    assert (answer["state"], answer["names"]) == ("done", ["plain"])
    colony.wait_until_running("plain", instance=2, wanted="up")
    answer = colony.send({"type": "RESTART", "name": "web", "rolling": 1})
    assert (answer["state"], sorted(answer["names"])) == ("done", [*COPIES[:3]])
    for name in COPIES[:3]:
        colony.wait_until_running(name, instance=2, wanted="up")


def test_out_of_backoff(colony: Colony) -> None:
    """One that waits in backoff is started in its turn."""
    trigger = colony.root / "works"
    script = f'[ "$NCOLONY_INDEX" = 0 ] || [ -e {trigger} ] || exit 1; exec sleep 100000'
    colony.put("web", {"args": ["sh", "-c", script], "instances": 2, "threshold": THRESHOLD})
    colony.start("-m", "60", "-M", "60")
    colony.wait_until_running("web:0")
    colony.wait_for_status("web:1", state="BACKOFF")
    trigger.touch()
    assert colony.send({"type": "RESTART", "name": "web", "rolling": 1})["state"] == "done"
    for name in COPIES[:2]:
        colony.wait_until_running(name, instance=2)


def test_what_makes_no_sense(colony: Colony) -> None:
    """`rolling` is a number of at least 1: everything else is rejected with a reason, and restarts nobody."""
    colony.put("web", {**service(colony), "instances": 2})
    colony.start()
    up(colony, *COPIES[:2])
    posted = {
        (kind, str(value)): colony.post({"type": kind, "name": "web", "group": "web", "rolling": value})
        for kind in ("RESTART", "RESTART-ALL", "RESTART-GROUP")
        for value in (0, -1, "x", "1", 1.5, True, [1])
    }
    for what, message in posted.items():
        answer = colony.wait_for_answer(message)
        assert (answer["accepted"], answer["state"]) == (False, "failed"), what
        assert "rolling" in answer["why"], what
        assert (colony.state / "rejected" / f"{message}.reason").read_text().strip()
    for name in COPIES[:2]:
        colony.wait_until_running(name, instance=1)


def test_two_at_the_same_time(colony: Colony) -> None:
    """Two rolling restarts of the same copies are both done, and an unknown or disabled name is refused."""
    colony.put("web", {**service(colony), "instances": 2})
    colony.put("off", {**service(colony), "enabled": False})
    colony.start()
    up(colony, *COPIES[:2])
    messages = [colony.post({"type": "RESTART", "name": "web", "rolling": 1}) for _ in range(2)]
    for message in messages:
        answer = colony.wait_for_answer(message)
        assert answer["state"] == "done", answer
    for name in ("off", "nosuch"):
        answer = colony.send({"type": "RESTART", "name": name, "rolling": 1})
        assert answer["state"] == "failed"
        assert name in answer["why"]


def test_the_end_of_the_colony_ends_it(colony: Colony) -> None:
    """A rolling restart that the end of the colony cuts short is answered so."""
    colony.put("web", {**service(colony), "threshold": 60, "instances": 3})
    colony.start()
    up(colony, *COPIES[:3])
    message = colony.post({"type": "RESTART", "name": "web", "rolling": 1})
    colony.wait_for_notes("notes", beginning="down ")
    assert colony.stop() == 0
    answer = colony.answer(message)
    assert answer is not None
    assert answer["state"] == "failed"
    assert answer["why"]
