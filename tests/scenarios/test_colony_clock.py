"""The wall clock jumps while processes run, stop and wait: nothing follows it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from colony import SLEEP, Colony, is_alive, read_json

DAY = 86400
# Moves the wall clock of whoever has this library, and only his, by the seconds in the file $CLOCK_FILE.
SHIM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset(void)
{
    char text[32] = {0};
    const char *path = getenv("CLOCK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    return length > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t which, struct timespec *now)
{
    long result = syscall(SYS_clock_gettime, which, now);
    if (result == 0 && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE))
        now->tv_sec += offset();
    return (int)result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (where)
        *where = exact.tv_sec;
    return exact.tv_sec;
}
"""


class Clock:
    """A wall clock for those who start with `env`."""

    def __init__(self, directory: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler")
        self.file = directory / "clock"
        self.set(0)
        source, library = directory / "shim.c", directory / "shim.so"
        source.write_text(SHIM)
        done = subprocess.run(
            [compiler, "-shared", "-fPIC", "-o", str(library), str(source)], capture_output=True, timeout=60
        )
        if done.returncode != 0:
            pytest.skip("no library can be compiled here")
        self.env = {**os.environ, "LD_PRELOAD": str(library), "CLOCK_FILE": str(self.file)}

    def set(self, seconds: int) -> None:
        """Let it be so many seconds later than it is."""
        new = self.file.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(self.file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


def wall_clock_of(colony: Colony) -> float:
    """What time it is for the supervisor, by the moment that a RESTART made for its process."""
    assert colony.send({"type": "RESTART", "name": "watch"})["state"] == "done"
    status = colony.status("watch")
    assert status is not None
    return float(status["since"])


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_jump_of_the_wall_clock(colony: Colony, clock: Clock, jump: int) -> None:
    """When the clock jumps a day, what runs runs on, delays and kill times last what they should, messages work."""
    colony.put("web", {"args": colony.payload("web", "tick", 0.02)})
    colony.put("watch", {"args": [SLEEP, "100000"]})
    colony.put("slow", {"args": colony.payload("slow", "signals"), "kill_time": 1.5})
    delays = {"min_restart_delay": 1.5, "max_restart_delay": 1.5, "jitter": 0}
    colony.put("oops", {"args": colony.payload("oops", "leave", 1), **delays})
    colony.start("--frequency", "0.2", env=clock.env)
    pids = {name: colony.wait_until_running(name) for name in ("web", "slow")}
    colony.wait_for_notes("slow")
    assert abs(wall_clock_of(colony) - time.time()) < 60
    first = colony.post({"type": "RESTART", "name": "nobody"})
    colony.wait_for_answer(first)
    deaths = len(colony.wait_for_notes("oops", 1))
    colony.wait_for_status("oops", state="BACKOFF")
    stopped = colony.post({"type": "STOP", "name": "slow"})
    colony.wait_for_notes("slow", beginning="got TERM")
    clock.set(jump)
    # Both were waiting for something when the clock jumped.
    (term,) = colony.wait_for_notes("slow", beginning="got TERM")
    colony.wait_until_dead(pids["slow"])
    assert 1.4 <= time.monotonic() - float(term.split()[2]) < 20
    assert colony.wait_for_answer(stopped)["state"] == "done"
    moments = [float(line.split()[2]) for line in colony.wait_for_notes("oops", deaths + 2)]
    waited = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert all(1.4 <= seconds < 20 for seconds in waited), waited
    assert abs(wall_clock_of(colony) - time.time() - jump) < 60
    colony.scan()
    assert colony.answer(first) is not None
    assert colony.wait_until_running("web", instance=1) == pids["web"]
    clock.set(0)
    moments = [float(line.split()[2]) for line in colony.wait_for_notes("oops", len(colony.notes("oops")) + 2)]
    waited = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert all(1.4 <= seconds < 20 for seconds in waited), waited
    assert abs(wall_clock_of(colony) - time.time()) < 60
    assert colony.wait_until_running("web", instance=1) == pids["web"]
    colony.scan()
    assert colony.answer(first) is not None
    colony.put("new", {"args": [SLEEP, "100000"]})
    colony.wait_until_running("new")
    assert colony.stop() == 0
    assert colony.lines("web") == colony.notes("web", "tick")
    assert "Traceback" not in colony.log()


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_jump_between_two_supervisors(colony: Colony, clock: Clock, jump: int) -> None:
    """When the clock jumps a day between a death and the next start, nothing restarts and no delay becomes a day."""
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.put("watch", {"args": [SLEEP, "100000"]})
    delays = {"min_restart_delay": 2, "max_restart_delay": 2, "jitter": 0}
    colony.put("oops", {"args": colony.payload("oops", "leave", 1), **delays})
    colony.start("--frequency", "0.2", env=clock.env)
    pid = colony.wait_until_running("web")
    colony.wait_for_status("oops", state="BACKOFF")
    assert colony.send({"type": "STOP", "name": "watch"})["state"] == "done"
    colony.kill()
    clock.set(jump)
    message = colony.post({"type": "RESTART", "name": "watch"})
    colony.start("--frequency", "0.2", env=clock.env)
    assert colony.wait_until_running("web", instance=1) == pid
    assert colony.wait_for_answer(message)["state"] == "done"
    seen = len(colony.notes("oops"))
    colony.wait_for_notes("oops", seen + 2, timeout=15)
    assert is_alive(pid)
    assert "Traceback" not in colony.log()


def test_answers_outlive_a_jump(colony: Colony, clock: Clock) -> None:
    """An answer given just before the clock jumped a day is still there for the next supervisor's clients."""
    colony.start("--frequency", "0.2", env=clock.env)
    message = colony.post({"type": "SCAN"})
    assert colony.wait_for_answer(message)["state"] == "done"
    colony.kill()
    clock.set(DAY)
    colony.start("--frequency", "0.2", env=clock.env)
    colony.scan()
    assert colony.answer(message) is not None


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_jobs_after_a_jump(colony: Colony, clock: Clock, jump: int) -> None:
    """A clock that was set, and then another ncolony-jobs: no run has taken longer, and none was due, for that."""
    colony.put("long", {"args": [SLEEP, "100000"], "schedule": {"every": 3600, "timeout": 1000}})
    schedule = {"every": 3600, "retries": 5, "retry_delay": 300}
    colony.put("again", {"args": colony.payload("again", "leave", 1), "schedule": schedule})
    colony.put("beat", {"args": colony.payload("beat", "leave", 0), "schedule": {"every": 1}})
    colony.start(env=clock.env)
    colony.wait_until_running("long")

    def kept(name: str) -> dict[str, Any]:
        return read_json(colony.state / "jobs" / name) or {}

    colony.wait_for(lambda: kept("again").get("try_at"), "it is to be tried again")
    colony.wait_for(lambda: "at" in kept("long")["memory"]["going"][0], "it is known that it runs")
    clock.set(jump)
    companion = colony.wait_until_running("ncolony-jobs")
    os.kill(companion, signal.SIGKILL)
    colony.wait_until_running("ncolony-jobs", instance=2)
    colony.wait_for_notes("beat", len(colony.notes("beat", "up ")) + 3)
    assert colony.wait_until_running("long", instance=1)
    assert len(colony.notes("again")) == 1
    found = {
        one["name"]: one
        for one in json.loads(colony.ctl("--state", str(colony.state), "jobs", "--json", env=clock.env))
    }
    for name in ("long", "again"):
        assert (found[name]["skipped"], (colony.status(name) or {})["late"]) == (0, "")
        wait = kept(name)["next"] - time.time() - jump
        assert 3000 < wait <= 3600, wait
    assert 100 < kept("again")["try_at"] - time.time() - jump <= 300
