"""`give_up`: what fails too often is left alone, until its time comes, somebody asks, or its file changes."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest

from colony import SLEEP, Colony, is_alive

QUICK = ("-m", "0.05", "-M", "0.05")
THREE = {"failures": 3, "within": 60}


def happened(colony: Colony, event: str, name: str) -> list[dict[str, Any]]:
    """What the events file holds of this kind and process."""
    lines = (colony.state / "events").read_text().splitlines()
    return [one for one in map(json.loads, lines) if (one["event"], one["name"]) == (event, name)]


def failing(colony: Colony, **keys: Any) -> dict[str, Any]:
    """A program that fails at once, for as long as there is no file `works`."""
    script = f'echo "up $$" >> {colony.notes_directory}/web; [ -e {colony.root}/works ] || exit 3; exec {SLEEP} 100000'
    return {"args": ["/bin/sh", "-c", script], "give_up": THREE, **keys}


def given_up(colony: Colony, starts: int) -> dict[str, Any]:
    """Wait until `web` is FATAL after so many starts, which were all that there were."""
    status = colony.wait_for_status("web", state="FATAL", instance=starts)
    colony.scan()
    assert len(colony.notes("web", "up ")) == starts
    return status


def test_after_so_many_failures(colony: Colony) -> None:
    """The third failure within the time is the last: FATAL, with the reason, and nothing is tried any more."""
    colony.put("web", failing(colony))
    colony.put("other", {"args": colony.payload("other", "leave", 3)})
    colony.start(*QUICK)
    status = given_up(colony, 3)
    assert (status["wanted"], status["pid"], status["next_try"]) == ("up", None, None)
    assert "3 failures within 60 s" in status["reason"]
    assert "exit code 3" in status["reason"]
    assert status["last_exit"]["code"] == 3
    (event,) = happened(colony, "fatal", "web")
    assert (event["state"], event["instance"], event["reason"]) == ("FATAL", 3, status["reason"])
    # The others are tried for ever: many delays have passed for `web` too.
    colony.wait_for_notes("other", len(colony.notes("other")) + 3)
    assert len(colony.notes("web")) == 3


def test_starts_that_are_refused_are_failures(colony: Colony) -> None:
    """A program that is not there is a failure at each try."""
    colony.put("web", {"args": ["/no/such/program"], "give_up": THREE})
    colony.start(*QUICK)
    status = colony.wait_for_status("web", state="FATAL", instance=3)
    assert "/no/such/program" in status["reason"]


@pytest.mark.parametrize(
    ("code", "lived", "keys", "fails"),
    [
        (3, 0.3, {}, True),  # an end that is no success, however long the life was
        (0, 0.3, {}, False),  # a success after a good life
        (7, 0.3, {"success_codes": [0, 7]}, False),
        (0, 0.3, {"success_codes": [7]}, True),
        (0, 0, {"threshold": 60}, True),  # a success, and too soon
    ],
)
def test_what_counts(colony: Colony, code: int, lived: float, keys: dict[str, Any], fails: bool) -> None:
    """A failure is an end that is no success, or that comes before the threshold."""
    args = colony.payload("web", "leave", code, lived)
    colony.put("web", {"args": args, "threshold": 0.1, "give_up": THREE, **keys})
    colony.start(*QUICK)
    if fails:
        given_up(colony, 3)
    else:
        colony.wait_for_notes("web", 5)
        assert happened(colony, "fatal", "web") == []


def test_failures_grow_old(colony: Colony) -> None:
    """Failures that are not within the time of each other are never too many."""
    colony.put("web", failing(colony, give_up={"failures": 2, "within": 0.3}))
    colony.start("-m", "0.4", "-M", "0.4")
    colony.wait_for_notes("web", 4)
    assert happened(colony, "fatal", "web") == []


def test_retry_after(colony: Colony) -> None:
    """With `retry_after` it is tried again at the time that the status tells, with a clean record."""
    colony.put("web", failing(colony, give_up={**THREE, "retry_after": 1}))
    colony.start(*QUICK)
    status = given_up(colony, 3)
    assert status["since"] + 0.9 < status["next_try"] < status["since"] + 1.1
    again = colony.wait_for_status("web", state="FATAL", instance=6)
    assert again["since"] >= status["next_try"] - 0.05
    (colony.root / "works").touch()
    colony.wait_until_running("web", instance=7)
    assert len(happened(colony, "fatal", "web")) == 2


@pytest.mark.parametrize("way", ["START", "RESTART", "RESTART-ALL", "changed", "rolling", "back"])
def test_out_of_it(colony: Colony, way: str) -> None:
    """START, RESTART and a change of the file try it again at once, with a clean record."""
    colony.put("web", failing(colony))
    colony.start(*QUICK)
    given_up(colony, 3)
    if way == "changed":
        colony.put("web", failing(colony, env={"COLOUR": "red"}))
    elif way == "back":
        colony.remove("web")
        colony.wait_until_forgotten("web")
        colony.put("web", failing(colony))
    else:
        rolling = {"rolling": 1} if way == "rolling" else {}
        answer = colony.send({"type": "RESTART" if rolling else way, "name": "web", **rolling})
        assert answer["accepted"], answer
        if rolling:
            assert answer["state"] == "failed"
            assert "exit code 3" in answer["why"]
    colony.wait_for_notes("web", 6)
    colony.wait_for_status("web", state="FATAL")
    (colony.root / "works").touch()
    answer = colony.send({"type": "START", "name": "web"})
    assert answer["state"] == "done", answer
    colony.wait_until_running("web")
    colony.wait_for_notes("web", 7)
    assert len(colony.notes("web")) == 7


@pytest.mark.parametrize(
    "change",
    [
        {"give_up": None},
        {"give_up": {**THREE, "retry_after": 0.1}},
        {"give_up": {"failures": 10, "within": 60}},
        {"success_codes": [3], "threshold": 0},
    ],
    ids=["never", "retry", "more", "success"],
)
def test_a_live_change_out_of_it(colony: Colony, change: dict[str, Any]) -> None:
    """A change of `give_up`, or of what counts as a failure, is a change of the file: it is tried again at once."""
    colony.put("web", failing(colony))
    colony.start(*QUICK)
    given_up(colony, 3)
    (colony.root / "works").touch()
    config = {key: value for key, value in (failing(colony) | change).items() if value is not None}
    colony.put("web", config)
    colony.wait_until_running("web", timeout=10, instance=4)


def test_a_live_change(colony: Colony) -> None:
    """`give_up` applies at once to what runs, without a restart, and to what fails already."""
    works = colony.root / "works"
    works.touch()
    plain = {key: value for key, value in failing(colony).items() if key != "give_up"}
    colony.put("web", plain)
    colony.start(*QUICK)
    pid = colony.wait_until_running("web")
    colony.put("web", {**plain, "give_up": {"failures": 1, "within": 60}})
    colony.scan()
    assert colony.wait_until_running("web", instance=1) == pid
    os.kill(pid, signal.SIGKILL)
    assert "1 failure within" in colony.wait_for_status("web", state="FATAL", instance=1)["reason"]


def test_one_that_fails_already(colony: Colony) -> None:
    """A crash loop that is given a limit ends at it."""
    plain = {key: value for key, value in failing(colony).items() if key != "give_up"}
    colony.put("web", plain)
    colony.start(*QUICK)
    colony.wait_for_notes("web", 2)
    colony.put("web", {**plain, "give_up": THREE})
    status = colony.wait_for_status("web", state="FATAL")
    assert status["instance"] >= 3


def test_stop_and_start(colony: Colony) -> None:
    """STOP of what was given up is STOPPED, without its record; START tries it again."""
    colony.put("web", failing(colony))
    colony.start(*QUICK)
    given_up(colony, 3)
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    colony.wait_for_status("web", state="STOPPED", wanted="down", next_try=None)
    colony.post({"type": "START", "name": "web"})
    given_up(colony, 6)


def test_a_policy_of_no_restarts_gives_nothing_up(colony: Colony) -> None:
    """What is not to be started again has EXITED, and was not given up."""
    colony.put("web", failing(colony, restart="never", give_up={"failures": 1, "within": 60}))
    colony.start(*QUICK)
    colony.wait_for_status("web", state="EXITED", instance=1)


def test_failures_are_remembered(colony: Colony) -> None:
    """Failures before the supervisor's SIGKILL count after it, each once."""
    colony.put("web", failing(colony))
    colony.start("-m", "0.5", "-M", "0.5")
    colony.wait_for_notes("web", 2)
    colony.wait_for_status("web", state="BACKOFF", instance=2)
    colony.kill()
    colony.start("-m", "0.5", "-M", "0.5")
    given_up(colony, 3)


@pytest.mark.parametrize("most", [2, 3])
def test_a_failure_while_we_are_away(colony: Colony, most: int) -> None:
    """An end that no supervisor saw is a failure when the next one hears of it, and only one."""
    trigger = colony.root / "trigger"
    args = colony.payload("web", "leave_when", 3, trigger)
    colony.put("web", {"args": args, "give_up": {"failures": most, "within": 60}})
    colony.start(*QUICK)
    colony.wait_for_notes("web", 1)
    os.kill(colony.wait_until_running("web"), signal.SIGKILL)
    pid = colony.wait_until_running("web", instance=2)
    colony.wait_for_notes("web", 2)
    colony.kill()
    os.kill(pid, signal.SIGKILL)
    colony.wait_until_dead(pid)
    colony.start(*QUICK)
    if most == 2:
        given_up(colony, 2)
        return
    pid = colony.wait_until_running("web", instance=3)
    colony.wait_for_notes("web", 3)
    colony.kill()
    colony.start(*QUICK)  # nothing has happened meanwhile: nothing counts
    assert colony.wait_until_running("web", instance=3) == pid
    trigger.touch()
    given_up(colony, 3)


@pytest.mark.parametrize("retry", [None, 60])
def test_what_was_given_up_stays_so(colony: Colony, retry: float | None) -> None:
    """A new supervisor leaves alone what was given up, and keeps the time of the next try."""
    colony.put("web", failing(colony, give_up={**THREE, "retry_after": retry} if retry else THREE))
    colony.start(*QUICK)
    before = given_up(colony, 3)
    colony.kill()
    (colony.root / "works").touch()
    colony.start(*QUICK)
    colony.scan()
    after = given_up(colony, 3)
    assert after["reason"] == before["reason"]
    if retry:
        assert abs(after["next_try"] - before["next_try"]) < 1
    else:
        assert after["next_try"] is None
    assert colony.send({"type": "START", "name": "web"})["state"] == "done"


def test_a_retry_that_is_due_while_we_are_away(colony: Colony) -> None:
    """A try that was due while there was no supervisor is made when one comes."""
    colony.put("web", failing(colony, give_up={**THREE, "retry_after": 0.5}))
    colony.start(*QUICK)
    status = given_up(colony, 3)
    colony.kill()
    (colony.root / "works").touch()
    colony.wait_for(lambda: time.time() > status["next_try"], "it is due")
    colony.start(*QUICK)
    colony.wait_until_running("web", instance=4)


def test_copies_are_given_up_one_by_one(colony: Colony) -> None:
    """One copy that fails is given up, and the others run."""
    script = f'[ "$NCOLONY_INDEX" = 1 ] && exit 3; exec {SLEEP} 100000'
    colony.put("web", {"args": ["sh", "-c", script], "give_up": THREE, "instances": 3})
    colony.start(*QUICK)
    colony.wait_for_status("web:1", state="FATAL")
    pids = [colony.wait_until_running(name, instance=1) for name in ("web:0", "web:2")]
    assert all(is_alive(pid) for pid in pids)
    # Another number of copies is no reason to try again: the others are left alone.
    colony.put("web", {"args": ["sh", "-c", script], "give_up": THREE, "instances": 4})
    colony.wait_until_running("web:3")
    colony.scan()
    colony.wait_for_status("web:1", state="FATAL", instance=3)
