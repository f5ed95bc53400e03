"""Jobs on a real colony: they run at their times, whoever is killed meanwhile, and their own notes are the judge."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from colony import Colony, descriptors, is_alive

COMPANION = "ncolony-jobs"
FAR = {"every": 3600}
# So long after a kill all is as it was: who has taken over has found out what runs, and is believed.
SETTLED_S = 1.5


def quick(colony: Colony, name: str, code: int = 0, seconds: float = 0) -> list[str]:
    """A program that notes when it ran, and ends."""
    return colony.payload(name, "leave", code, seconds)


def starts(colony: Colony, name: str) -> list[float]:
    """When the runs of a job began, by their own notes: monotonic seconds."""
    return [float(line.split()[2]) for line in colony.notes(name, "up ")]


def kept(colony: Colony, name: str) -> dict[str, Any]:
    """What the companion has written down of a job."""
    found: dict[str, Any] = json.loads((colony.state / "jobs" / name).read_bytes())
    return found


def change_kept(colony: Colony, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what is written down of a job while nobody reads it."""
    record = kept(colony, name)
    change(record)
    (colony.state / "jobs" / name).write_text(json.dumps(record))


def jobs(colony: Colony, *words: str) -> dict[str, dict[str, Any]]:
    """What `ctl jobs` tells."""
    done = ctl(colony, "jobs", "--json", *words)
    return {one["name"]: one for one in json.loads(done.stdout)}


def ctl(colony: Colony, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ncolony", "ctl", *colony.ctl_places(), "--state", str(colony.state), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def events(colony: Colony, name: str) -> list[str]:
    """What happened to a process, in words."""
    text = (colony.state / "events").read_text()
    return [one["event"] for one in map(json.loads, text.splitlines()) if one["name"] == name]


def wait_until_tended(colony: Colony, name: str) -> None:
    """Wait until the companion has seen a job."""
    colony.wait_for((colony.state / "jobs" / name).exists, f"{name} is looked after")


# at their times


def test_it_runs_at_once_and_then_each_period(colony: Colony) -> None:
    """A job with `every` runs when its file appears and then each period, on a grid that does not drift."""
    colony.put("beat", {"args": quick(colony, "beat"), "schedule": {"every": 1}})
    colony.start()
    colony.wait_for_notes("beat", 4)
    first, *rest = starts(colony, "beat")
    assert [round(at - first) for at in rest] == list(range(1, len(rest) + 1))
    assert colony.status(COMPANION)
    status = colony.status("beat")
    assert status
    assert status["job"] is True


def test_it_runs_when_the_clock_says_so(colony: Colony) -> None:
    """A job with a cron expression runs when the clock shows a time of it, and not when its file appears."""
    colony.put("even", {"args": quick(colony, "even"), "schedule": {"cron": "*/2 * * * * *", "timezone": "Asia/Tokyo"}})
    colony.start()
    colony.wait_for_notes("even", 3)
    offset = time.time() - time.monotonic()
    assert all((at + offset) % 2 < 1 for at in starts(colony, "even"))


def test_a_change_of_the_file_starts_nothing(colony: Colony) -> None:
    """A new command waits for the next time; a run that goes on is not touched."""
    colony.put("job", {"args": quick(colony, "old", 0, 1.5), "schedule": {"every": 2}})
    colony.start()
    colony.wait_for_notes("old", 1)
    colony.put("job", {"args": quick(colony, "new"), "schedule": {"every": 2}})
    colony.wait_for_notes("new", 1)
    assert starts(colony, "new")[0] - starts(colony, "old")[0] >= 1.9
    assert len(starts(colony, "old")) == 1
    assert json.loads(ctl(colony, "history", "job", "--json").stdout)[0]["code"] == 0


# overlap


@pytest.mark.parametrize("overlap", ["skip", "queue"])
def test_a_run_that_goes_on_is_not_disturbed(colony: Colony, overlap: str) -> None:
    """`skip` leaves out what is due meanwhile and says so; `queue` runs it as soon as the last run has ended."""
    schedule = {"every": 1, "overlap": overlap}
    colony.put("long", {"args": quick(colony, "long", 0, 1.4), "schedule": schedule})
    colony.start()
    colony.wait_for_notes("long", 2)
    first, second = starts(colony, "long")[:2]
    if overlap == "skip":
        assert second - first >= 1.9
        assert jobs(colony)["long"]["skipped"] >= 1
        assert "still going" in jobs(colony)["long"]["skipped_why"]
    else:
        assert second - first >= 1.4
        assert jobs(colony)["long"]["skipped"] == 0
    assert {one["code"] for one in json.loads(ctl(colony, "history", "long", "--json").stdout)} == {0}


def test_a_newer_run_replaces_the_older(colony: Colony) -> None:
    """`replace` stops the last run, its stop sequence included, and then starts the next one."""
    colony.put(
        "long", {"args": colony.payload("long", "signals", "TERM"), "schedule": {"every": 1, "overlap": "replace"}}
    )
    colony.start()
    colony.wait_for_notes("long", 3)
    notes = [line.split()[0] for line in colony.notes("long") if line.startswith(("up", "got TERM"))]
    assert notes[:5] == ["up", "got", "up", "got", "up"]
    past = json.loads(ctl(colony, "history", "long", "--json").stdout)
    assert "newer run" in past[0]["reason"]


# time limits, failures


def test_a_run_that_takes_too_long_is_stopped(colony: Colony) -> None:
    """After `timeout` it gets TERM, after `grace` KILL; it says why; and the next run comes all the same."""
    schedule = {"every": 2, "timeout": 0.3, "grace": 0.3}
    colony.put("long", {"args": colony.payload("long", "signals"), "kill_time": 60, "schedule": schedule})
    colony.start()
    colony.wait_for_notes("long", 2)
    [past, *_] = json.loads(ctl(colony, "history", "long", "--json").stdout)
    assert past["signal"] in ("KILL", "SIGKILL")
    assert "timeout of 0.3 s" in past["reason"]
    assert 0.5 <= past["lived"] < 1.9
    assert len(colony.notes("long", "got TERM")) >= 1


def test_a_failed_run_is_tried_again(colony: Colony) -> None:
    """`retries` more times, after `retry_delay`, which doubles; then not until its next time."""
    schedule = {**FAR, "retries": 2, "retry_delay": 0.4}
    colony.put("bad", {"args": quick(colony, "bad", 3), "schedule": schedule})
    colony.start()
    colony.wait_for_notes("bad", 2)
    colony.wait_for(lambda: jobs(colony)["bad"]["try_at"] or len(starts(colony, "bad")) == 3, "it waits")
    colony.wait_for_notes("bad", 3)
    colony.wait_for(lambda: "gave-up" in b"".join([colony.output(COMPANION)]).decode(), "it gives up")
    one, two, three = starts(colony, "bad")
    assert two - one >= 0.4
    assert three - two >= 0.8
    assert jobs(colony)["bad"]["try_at"] is None
    assert jobs(colony)["bad"]["code"] == 3


def test_what_succeeds_is_not_tried_again(colony: Colony) -> None:
    """An exit code among `success_codes` is no failure."""
    colony.put(
        "fine",
        {
            "args": quick(colony, "fine", 3),
            "success_codes": [3],
            "schedule": {"every": 2, "retries": 5, "retry_delay": 0.1},
        },
    )
    colony.start()
    colony.wait_for_notes("fine", 2)
    first, second = starts(colony, "fine")[:2]
    assert second - first >= 1.9


def test_what_cannot_be_run_is_tried_again_too(colony: Colony) -> None:
    """A program that is not there is a failure with a reason."""
    colony.put("none", {"args": ["/nowhere/at/all"], "schedule": {**FAR, "retries": 1, "retry_delay": 0.1}})
    colony.start()
    colony.wait_for(lambda: (colony.status("none") or {}).get("instance") == 2, "it was tried twice")
    assert "nowhere" in jobs(colony)["none"]["exit"]


# late


def test_a_late_job_says_so(colony: Colony) -> None:
    """While the last run still goes on, `late_after` its time it is late; when it runs again, on time."""
    go = colony.root / "go"
    colony.put(
        "slow",
        {"args": colony.payload("slow", "leave_when", 0, str(go)), "schedule": {"every": 1.5, "late_after": 0.5}},
    )
    colony.start()
    status = colony.wait_for(lambda: s if (s := colony.status("slow")) and s["late"] else None, "it is late")
    assert "still goes on" in status["late"]
    assert "late" in events(colony, "slow")
    done = ctl(colony, "jobs", "slow")
    assert done.returncode == 3
    assert "late: " in done.stdout
    go.touch()
    colony.wait_for(lambda: not (colony.status("slow") or {})["late"], "it is on time")
    assert "on-time" in events(colony, "slow")
    assert ctl(colony, "jobs", "slow").returncode == 0


def test_lateness_is_seen_without_the_companion(colony: Colony) -> None:
    """`ctl jobs` tells that a job is late although nobody is there to say so."""
    colony.put("beat", {"args": quick(colony, "beat"), "schedule": {"every": 1, "late_after": 1}})
    colony.start()
    colony.wait_for_notes("beat", 2)
    assert jobs(colony)["beat"]["late"] == ""
    assert colony.send({"type": "STOP", "name": COMPANION})["state"] == "done"
    late = colony.wait_for(lambda: jobs(colony)["beat"]["late"], "it is late")
    assert COMPANION in str(late)
    assert colony.send({"type": "START", "name": COMPANION})["state"] == "done"
    colony.wait_for(lambda: not jobs(colony)["beat"]["late"], "it is on time")


# on and off


@pytest.mark.parametrize("how", ["stop", "disable"])
def test_what_its_user_stopped_is_off(colony: Colony, how: str) -> None:
    """A job that was stopped or disabled does not run and is not late; a start, or `enable`, turns it on again."""
    colony.put("beat", {"args": quick(colony, "beat"), "schedule": {"every": 0.5, "late_after": 0.1}})
    colony.put("other", {"args": quick(colony, "other"), "schedule": {"every": 0.5}})
    colony.start()
    colony.wait_for_notes("beat", 2)
    assert ctl(colony, how, "beat", "--wait").returncode == 0
    before = len(starts(colony, "beat"))
    more = len(starts(colony, "other")) + 4
    colony.wait_for_notes("other", more)
    assert len(starts(colony, "beat")) - before <= 1  # one that was asked for before
    before = len(starts(colony, "beat"))
    colony.wait_for_notes("other", more + 3)
    found = jobs(colony)["beat"]
    assert (len(starts(colony, "beat")), found["late"], found["next"]) == (before, "", None)
    assert found["off"]
    assert ctl(colony, "start" if how == "stop" else "enable", "beat").returncode == 0
    colony.wait_for_notes("beat", before + 3)
    assert jobs(colony)["beat"]["off"] == ""


def test_what_its_user_stopped_stays_off(colony: Colony) -> None:
    """Neither another companion nor another supervisor turns a job on that was stopped before its first time."""
    colony.put("far", {"args": quick(colony, "far"), "schedule": {"cron": "0 0 1 1 *"}})
    colony.put("other", {"args": quick(colony, "other"), "schedule": {"every": 0.5}})
    colony.start()
    colony.wait_for_status("far", state="STOPPED", reason="waits for its schedule")
    assert ctl(colony, "stop", "far", "--wait").returncode == 0
    colony.wait_for(lambda: jobs(colony)["far"]["off"] == "stopped on request", "it is off")
    assert colony.stop() == 0
    colony.start()
    wait = len(starts(colony, "other")) + 2
    colony.wait_for_notes("other", wait)
    assert jobs(colony)["far"]["off"] == "stopped on request"


# when nobody was there


@pytest.mark.parametrize("catch_up", [True, False])
def test_missed_runs_are_made_up_for_once_or_not_at_all(colony: Colony, catch_up: bool) -> None:
    """After a time without a colony, one run makes up for all that were due, or none does, as `catch_up` says."""
    colony.put("far", {"args": quick(colony, "far"), "schedule": {**FAR, "catch_up": catch_up}})
    minute = (time.localtime().tm_min + 30) % 60  # half an hour away from now, in both directions
    cron = {"cron": f"{minute} * * * *", "catch_up": catch_up}
    colony.put("cron", {"args": quick(colony, "cron"), "schedule": cron})
    colony.put("other", {"args": quick(colony, "other"), "schedule": {"every": 0.5}})
    colony.start()
    colony.wait_for_notes("far", 1)
    wait_until_tended(colony, "cron")
    assert colony.stop() == 0
    for name in ("far", "cron"):  # as if 10 hours had passed

        def earlier(record: dict[str, Any]) -> None:
            record["memory"]["last"] -= 10 * 3600 + 600

        change_kept(colony, name, earlier)
    more = len(starts(colony, "other")) + 4
    colony.start()
    colony.wait_for_notes("other", more)
    assert len(starts(colony, "far")) == 1 + catch_up
    assert len(starts(colony, "cron")) == catch_up
    found = jobs(colony)
    assert found["far"]["skipped"] >= 1 - catch_up
    assert found["far"]["next"] > time.time()
    assert found["cron"]["next"] > time.time()


# the companion


@pytest.fixture
def by_hand(colony: Colony) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start companions that are no processes of the colony."""
    colony.put(COMPANION, {"args": ["/bin/false"], "enabled": False})
    begun: list[subprocess.Popen[bytes]] = []
    places = ["--messages", str(colony.messages), "--config", str(colony.config), "--state", str(colony.state)]

    def begin() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "twisted", "--log-format=text", COMPANION, *places]
        with (colony.root / "companion.log").open("ab") as log:
            begun.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
        return begun[-1]

    yield begin
    for one in begun:
        one.kill()
        one.wait()


def test_its_end_ends_no_run(colony: Colony, by_hand: Callable[[], subprocess.Popen[bytes]]) -> None:
    """SIGTERM and SIGINT end the companion with 0, and what runs goes on; a second one refuses to start."""
    go = colony.root / "go"
    colony.put("long", {"args": colony.payload("long", "leave_when", 0, str(go)), "schedule": FAR})
    colony.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        companion = by_hand()
        pid = colony.wait_until_running("long")
        wait_until_tended(colony, "long")
        colony.wait_for(lambda: "looks after" in (colony.root / "companion.log").read_text(), "it is up")
        second = by_hand()
        assert second.wait(30) == 1
        assert "another ncolony-jobs" in (colony.root / "companion.log").read_text()
        companion.send_signal(number)
        assert companion.wait(30) == 0
        assert is_alive(pid)
        (colony.root / "companion.log").unlink()
    go.touch()
    colony.wait_for_status("long", state="EXITED")
    assert len(colony.notes("long")) == 1


def test_a_bad_file_harms_nobody(colony: Colony) -> None:
    """Half of a file leaves the last good schedule in force; one that never made sense hinders no other job."""
    (colony.config / "nonsense").write_text('{"args": ["x"], "schedule": {"cron": "99 * * * *"}}')
    (colony.config / "binary").write_bytes(b'\xff"schedule"')
    (colony.config / "odd").write_text('{"args": ["x"], "schedule": 7}')
    colony.put("beat", {"args": quick(colony, "beat"), "schedule": {"every": 0.5}})
    colony.put("other", {"args": quick(colony, "other"), "schedule": {"every": 0.5}})
    colony.start()
    colony.wait_for_notes("beat", 2)
    (colony.config / "beat").write_text((colony.config / "beat").read_text()[:-5])
    colony.wait_for_problem("beat")
    before = len(starts(colony, "beat"))
    colony.wait_for_notes("beat", before + 3)
    assert jobs(colony)["beat"]["next"] is not None
    (colony.config / "beat").unlink()
    colony.wait_until_forgotten("beat")
    colony.wait_for(lambda: not (colony.state / "jobs" / "beat").exists(), "its notes are gone")
    assert starts(colony, "other")


def test_nothing_is_left_for_a_later_supervisor(colony: Colony, by_hand: Callable[[], subprocess.Popen[bytes]]) -> None:
    """A START that no supervisor took is taken back, and the run is missed; the next supervisor starts nothing."""
    colony.put("far", {"args": quick(colony, "far"), "schedule": {"cron": "0 0 1 1 *"}})
    colony.start()
    by_hand()
    wait_until_tended(colony, "far")
    assert colony.process
    os.kill(colony.process.pid, signal.SIGSTOP)  # it holds its lock, so it seems to be there
    colony.put("far", {"args": quick(colony, "far"), "schedule": {**FAR, "every": 3601}})
    colony.put("new", {"args": quick(colony, "new"), "schedule": FAR})
    asked = colony.wait_for(lambda: [name for name in os.listdir(colony.messages) if "-job-" in name], "it is asked")
    colony.kill()
    colony.wait_for(lambda: not set(asked) & set(os.listdir(colony.messages)), "the message is taken back")
    colony.put("other", {"args": quick(colony, "other"), "schedule": {"every": 0.5}})
    colony.start()
    colony.wait_for_notes("other", 4)
    assert not starts(colony, "new")
    assert jobs(colony)["new"]["skipped"] == 1


# who is killed


class Storm:
    """Kills companion, supervisor and keeper, and remembers when one of them was not there."""

    def __init__(self, colony: Colony, seed: int) -> None:
        self.colony, self.chance = colony, random.Random(seed)
        self.outages: list[tuple[float, float, str]] = []
        self.killed: set[int] = set()

    def rage(self, count: int) -> None:
        """So many kills, each followed by a little time in which all is well."""
        for _ in range(count):
            time.sleep(self.chance.uniform(0.0, 0.9))
            whom = self.chance.choice(["companion", "companion", "supervisor", "keeper", "both"])
            begin = time.time()
            if whom in ("companion", "both"):
                self._kill((self.colony.status(COMPANION) or {}).get("pid"))
            if whom == "keeper":
                self._kill(self.colony.keeper_pid())
            if whom in ("supervisor", "both"):
                self.colony.kill()
                self.colony.start("--minrestartdelay", "0.1", "--maxrestartdelay", "0.3")
            self.colony.wait_for(self._is_well, f"{whom} is back")
            self.outages.append((begin, time.time(), whom))

    def _kill(self, pid: int | None) -> None:
        if pid is not None:
            self.killed.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _is_well(self) -> bool:
        """Whether a companion runs that holds its lock, so has begun, and a keeper."""
        status, keeper = self.colony.status(COMPANION), self.colony.keeper_pid()
        pid = status["pid"] if status and status["state"] == "RUNNING" else None
        if pid is None or keeper is None or self.killed & {pid, keeper} or not is_alive(pid):
            return False
        return any(target.endswith("/jobs/.lock") for target in descriptors(pid).values())


@pytest.mark.parametrize("seed", [1, 2])
def test_no_run_is_missed_and_none_doubled(colony: Colony, seed: int) -> None:
    """Whoever is killed at whatever moment: each due run comes once, but those that make up for several at once."""
    names = [f"beat{number}" for number in range(3)]
    for name in names:
        colony.put(name, {"args": quick(colony, name), "schedule": {"every": 1, "catch_up": True}})
    colony.start("--minrestartdelay", "0.1", "--maxrestartdelay", "0.3")
    for name in names:
        colony.wait_for_notes(name, 1)
    storm = Storm(colony, seed)
    storm.rage(10)
    for name in names:
        colony.wait_for_notes(name, len(starts(colony, name)) + 2)
    assert colony.send({"type": "STOP", "name": COMPANION})["state"] == "done"
    for name in names:
        colony.wait_for(lambda name=name: (colony.status(name) or {})["state"] == "EXITED", f"{name} is at rest")
        judge(colony, name, storm.outages)


def judge(colony: Colony, name: str, outages: list[tuple[float, float, str]]) -> None:
    """Compare what a job has noted with what was asked for, and that with its times."""
    from ncolony.apps.jobfiles import message_name

    mark = message_name(0, name, "").split("-")[2]
    asked = sorted(answer for answer in os.listdir(colony.state / "answers") if f"-job-{mark}-" in answer)
    due = [int(re.match(r"\d+", one)[0]) / 1e9 for one in asked]  # type: ignore[index]
    ran = len(starts(colony, name))
    told = [(one, (colony.state / "answers" / one).read_text()) for one in asked]
    past = [(one["instance"], one["text"]) for one in json.loads(ctl(colony, "history", name, "--json").stdout)]
    assert ran == len(asked), f"{name} ran {ran} times, and was asked to {len(asked)} times: {told}; {past}"
    steps = [(at - due[0]) % 1 for at in due]
    assert all(min(step, 1 - step) < 0.1 for step in steps), f"{name} was due off its times: {steps}"
    numbers = [round(at - due[0]) for at in due]
    assert len(set(numbers)) == len(numbers), f"{name} ran twice for one time: {numbers}"
    missing = set(range(numbers[-1])) - set(numbers)
    for number in missing:
        at = due[0] + number
        excused = any(begin - 0.1 <= at <= end + SETTLED_S for begin, end, _ in outages)
        said = colony.output(COMPANION).decode(errors="replace")
        assert excused, f"{name} missed its time {number}, and all was well: {numbers}, {outages}\n{said}"


def test_files_are_where_they_are_said_to_be(colony: Colony, tmp_path: Path) -> None:
    """What is noted of a job is for everybody to read and for its owner to write."""
    colony.put("beat", {"args": quick(colony, "beat"), "schedule": {"every": 1}})
    colony.start()
    wait_until_tended(colony, "beat")
    assert (colony.state / "jobs").stat().st_mode & 0o777 == 0o755
    assert (colony.state / "jobs" / "beat").stat().st_mode & 0o777 == 0o644
    assert kept(colony, "beat")["next"] > 0
