"""Few descriptors: how many processes fit is said, what runs keeps its place, and who has none waits for one."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from typing import Any

import pytest

from colony import SLEEP, Colony, descriptors, is_alive

# 64 descriptors are enough for 19 processes: the keeper has 16 for logs and 29 for itself.
PLACES = 19
NO_ROOM = "cannot run it: no descriptors left"
QUICK = ("--frequency", "0.2", "-m", "0.1", "-M", "0.3")
# Who is turned away is not tried again by itself for as long as a test takes.
SLOW = ("--frequency", "0.2", "-m", "3600", "-t", "0.001")
RUN = {"args": [SLEEP, "100000"]}
linux = pytest.mark.skipif(sys.platform != "linux", reason="prlimit(2)")


def limited(soft: int, hard: int | None = None) -> tuple[str, ...]:
    """A command that runs another with so few descriptors."""
    return ("sh", "-c", f'ulimit -Sn {soft} && ulimit -Hn {hard or soft} && exec "$@"', "sh")


def names(count: int, first: int = 0) -> list[str]:
    return [f"p{number:03}" for number in range(first, first + count)]


def reason(colony: Colony, name: str) -> str:
    """Why it is as it is."""
    return str((colony.status(name) or {}).get("reason"))


def reason_given(colony: Colony, name: str) -> str:
    """The same, of one that ends again and again: while it runs for a moment, it has none."""
    found = ""

    def look() -> bool:
        nonlocal found
        found = reason(colony, name)
        return bool(found)

    colony.wait_for(look, "it says why it does not run")
    return found


def in_state(colony: Colony, state: str) -> list[str]:
    return [name for name in sorted(colony.known()) if (colony.status(name) or {}).get("state") == state]


def wait_for_figures(colony: Colony, **wanted: int) -> dict[str, int]:
    """Wait until the supervisor says so of its descriptors; all that it says."""

    def found() -> dict[str, int] | None:
        said: dict[str, int] = (colony.supervisor() or {}).get("descriptors", {})
        return said if wanted.items() <= said.items() else None

    figures: dict[str, int] = colony.wait_for(found, f"descriptors: {wanted}")
    return figures


def ctl(colony: Colony, *words: str) -> str:
    places = ("--messages", str(colony.messages), "--config", str(colony.config), "--state", str(colony.state))
    done = subprocess.run(
        [sys.executable, "-m", "ncolony", "ctl", *places, *words], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_all_fit(colony: Colony) -> None:
    """At its start the supervisor says how many processes fit, and that there is room for so many more."""
    for name in names(10):
        colony.put(name, RUN)
    colony.start(*QUICK, prefix=limited(64))
    for name in names(10):
        colony.wait_until_running(name)
    figures = wait_for_figures(colony, processes=10)
    assert figures == {
        "allowed": 64, "for_processes": PLACES, "taken": 10, "processes": 10, "waiting": 0, "room": PLACES - 10
    }  # fmt: skip
    (line,) = [line for line in colony.log().splitlines() if "processes fit" in line]
    assert "#info] 10 processes fit: they take 10 of the 19 descriptors" in line
    assert line.endswith("there is room for 9 more that take one each")
    assert (colony.supervisor() or {})["problems"] == []
    shown = ctl(colony, "status", "--long")
    assert "descriptors: 64 are allowed, 19 of them for processes: 10 take 10, and there is room for 9 more" in shown
    assert "descriptors" not in ctl(colony, "status")


def test_some_do_not_fit(colony: Colony) -> None:
    """Where there are more than fit, that is a warning and a problem, and who does not fit says why."""
    for name in names(PLACES + 5):
        colony.put(name, RUN)
    colony.start(*SLOW, prefix=limited(64))
    for name in names(PLACES):
        colony.wait_until_running(name)
    for name in names(5, first=PLACES):
        colony.wait_for_status(name, state="BACKOFF")
        assert reason(colony, name) == (
            f"{NO_ROOM}: 64 are allowed, {PLACES} of them for processes, of which {PLACES} are taken; "
            "raise LimitNOFILE or ulimit -n"
        )
    wait_for_figures(colony, processes=PLACES, waiting=5, room=0)
    (line,) = [line for line in colony.log().splitlines() if "#warn" in line and "processes fit" in line]
    assert f"{PLACES} of {PLACES + 5} processes fit" in line
    (problem,) = (colony.supervisor() or {})["problems"]
    assert problem.startswith("not every process fits: of descriptors, 64 are allowed")
    assert "5 processes wait" in ctl(colony, "status", "--long")


def test_the_limit_of_processes_is_not_the_keepers(colony: Colony) -> None:
    """That processes get a lower limit than the keeper has does not change how many fit, not even while they start."""
    for name in names(205):
        colony.put(name, RUN)
    colony.start(*SLOW, prefix=limited(64, 300))
    wait_for_figures(colony, processes=197, waiting=8, allowed=300)
    colony.wait_for(lambda: len(in_state(colony, "RUNNING")) == 197, "as many run as fit")
    for name in names(8, first=197):
        colony.wait_for_status(name, state="BACKOFF")
        assert reason(colony, name).startswith(f"{NO_ROOM}: 300 are allowed, 197 of them for processes, of which 197")


def test_room_appears(colony: Colony) -> None:
    """Who did not fit starts as soon as another is removed, stopped or has finished, long before its next try."""
    for name in names(PLACES - 1):
        colony.put(name, RUN)
    colony.put("job", {"args": ["sh", "-c", f"until [ -e {colony.root}/go ]; do sleep 0.01; done"], "restart": "never"})
    colony.start(*SLOW, prefix=limited(64))
    for name in [*names(PLACES - 1), "job"]:
        colony.wait_until_running(name)
    for name in ("waits", "waits2", "waits3", "waits4"):
        colony.put(name, RUN)
        colony.wait_for_status(name, state="BACKOFF")
    assert not in_state(colony, "STARTING")
    colony.remove("p000")
    colony.wait_until_running("waits")
    assert colony.send({"type": "STOP", "name": "p001"})["state"] == "done"
    colony.wait_until_running("waits2")
    (colony.root / "go").touch()
    colony.wait_until_running("waits3")
    colony.wait_for_status("job", state="EXITED")
    assert reason(colony, "waits4").startswith(NO_ROOM)
    wait_for_figures(colony, processes=PLACES, waiting=1)
    # What somebody stopped is started by nobody.
    assert colony.send({"type": "STOP", "name": "waits4"})["state"] == "done"
    wait_for_figures(colony, waiting=0)
    colony.wait_for(lambda: (colony.supervisor() or {})["problems"] == [], "the problem is gone")
    colony.remove("p002")
    wait_for_figures(colony, processes=PLACES - 1, room=1)
    assert (colony.status("waits4") or {})["state"] == "STOPPED"


def test_jobs(colony: Colony) -> None:
    """Who starts jobs comes first. A run for which there is no room has failed, and is not made up for."""
    for name in names(PLACES):
        colony.put(f"a{name}", RUN)  # before all others by name
    colony.put("job", {**RUN, "schedule": {"cron": "0 0 30 1 *", "timezone": "UTC"}})
    colony.start(*SLOW, prefix=limited(64))
    colony.wait_until_running("ncolony-jobs")
    colony.wait_for_status(f"a{names(PLACES)[-1]}", state="BACKOFF")
    assert len(in_state(colony, "RUNNING")) == PLACES
    colony.wait_for_status("job", state="STOPPED", instance=0)
    colony.send({"type": "START", "name": "job"})
    colony.wait_for_status("job", state="EXITED")
    assert reason(colony, "job").startswith(NO_ROOM)
    tried = (colony.status("job") or {})["instance"]
    colony.remove("ap000")
    colony.remove("ap001")
    wait_for_figures(colony, waiting=0, room=1)
    assert (colony.status("job") or {})["instance"] == tried
    assert (colony.status("job") or {})["pid"] is None


def test_nobody_takes_the_place_of_another(colony: Colony) -> None:
    """Processes that die young and start again keep their places, however often others try to have them."""
    dying = names(PLACES)
    for name in dying:
        colony.put(name, {"args": ["sh", "-c", "exit 3"]})
    colony.start(*QUICK, prefix=limited(64))
    for name in dying:
        colony.wait_for(lambda name=name: (colony.status(name) or {}).get("restarts", 0) >= 1, "it has died")  # type: ignore[misc]
    for name in names(10, first=50):
        colony.put(name, RUN)
        colony.wait_for(lambda name=name: reason(colony, name).startswith(NO_ROOM), "it does not fit")  # type: ignore[misc]
    tried = {name: (colony.status(name) or {})["restarts"] for name in dying}
    for name in dying:
        colony.wait_for(
            lambda name=name: (colony.status(name) or {})["restarts"] >= tried[name] + 5,  # type: ignore[misc]
            "it was started again",
        )
        why = reason_given(colony, name)
        assert why.startswith("exit code 3"), why
    assert all((colony.status(name) or {})["pid"] is None for name in names(10, first=50))
    assert in_state(colony, "RUNNING") == []


@pytest.mark.parametrize(
    ("more", "each"),
    [
        ({"log": {"stdout": "{root}/out", "stderr": "{root}/err"}}, 2),
        ({"watchdog": 1000}, 2),
        ({"ready": {"fd": 3}}, 2),
        ({"ready": {"notify": True}, "sockets": {"a": "tcp:127.0.0.1:0", "b": "udp:127.0.0.1:0"}}, 4),
    ],
    ids=["two streams", "watchdog", "ready", "sockets"],
)
def test_what_takes_more(colony: Colony, more: dict[str, Any], each: int) -> None:
    """What a process has beside one pipe is counted: as many fit as was said, in truth."""
    text = json.dumps(more).replace("{root}", str(colony.root))
    for name in names(PLACES):
        colony.put(name, {**RUN, **json.loads(text)})
    colony.start(*SLOW, prefix=limited(64))
    fitting = names(PLACES // each)
    for name in fitting:
        colony.wait_for(lambda name=name: (colony.status(name) or {}).get("pid"), "it runs")  # type: ignore[misc]
    for name in names(PLACES - len(fitting), first=len(fitting)):
        colony.wait_for_status(name, state="BACKOFF")
        assert f"and it takes {each}; raise" in reason(colony, name)
    wait_for_figures(colony, processes=len(fitting), taken=len(fitting) * each, waiting=PLACES - len(fitting))
    colony.remove(fitting[0])
    colony.wait_for(lambda: (colony.status(names(1, first=len(fitting))[0]) or {}).get("pid"), "the next one runs")


def test_a_definition_that_takes_more(colony: Colony) -> None:
    """A process whose new definition takes more than there is says so, and gets it when there is room."""
    for name in names(PLACES):
        colony.put(name, RUN)
    colony.start(*SLOW, prefix=limited(64))
    for name in names(PLACES):
        colony.wait_until_running(name)
    colony.put("p000", {**RUN, "sockets": {"a": "tcp:127.0.0.1:0"}})
    colony.wait_for(lambda: reason(colony, "p000").startswith(NO_ROOM), "it does not fit any more")
    colony.put("late", RUN)
    colony.wait_for(lambda: reason(colony, "late").startswith(NO_ROOM), "its place is still its own")
    colony.remove("p001")
    colony.wait_until_running("p000")
    assert reason(colony, "late").startswith(NO_ROOM)


@pytest.mark.parametrize("halves", ["supervisor", "keeper", "both", "upgrade"])
def test_places_outlive_both_halves(colony: Colony, halves: str) -> None:
    """Whoever dies or is replaced: what ran has its place, and so has what was about to be started again."""
    colony.put("dying", {"args": ["sh", "-c", "exit 3"], "min_restart_delay": 2.0})
    for name in names(PLACES - 1):
        colony.put(name, RUN)
    colony.start(*QUICK, prefix=limited(64))
    pids = {name: colony.wait_until_running(name) for name in names(PLACES - 1)}
    colony.wait_for_status("dying", state="BACKOFF")
    # Among the first by name, so that nothing but its place is left to keep it from running.
    colony.put("a", RUN)
    colony.wait_for(lambda: reason(colony, "a").startswith(NO_ROOM), "it does not fit")
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    if halves in ("supervisor", "both"):
        colony.kill()
    if halves in ("keeper", "both"):
        os.kill(keeper, signal.SIGKILL)
        colony.wait_until_dead(keeper)
    if halves in ("supervisor", "both"):
        colony.start(*QUICK, prefix=limited(64))
    if halves == "upgrade":
        os.kill(colony.supervisor_pid, signal.SIGUSR2)
        colony.wait_for(lambda: '"upgraded"' in (colony.state / "events").read_text(), "it is upgraded")
    colony.wait_for(lambda: colony.keeper_pid() is not None, "there is a keeper")
    for name in names(PLACES - 1)[::3]:
        os.kill(pids.pop(name), signal.SIGKILL)
        colony.wait_until_running(name, instance=2)
    for name, pid in pids.items():
        assert colony.wait_until_running(name, instance=1) == pid
    tried = (colony.status("dying") or {})["instance"]
    colony.wait_for(lambda: (colony.status("dying") or {})["instance"] > tried, "it is started again")
    assert not reason(colony, "dying").startswith(NO_ROOM)
    assert (colony.status("a") or {})["pid"] is None


def test_who_is_adopted_keeps_nobody_out(colony: Colony) -> None:
    """What stands for adopted processes is let go where others need the room: as many fit as ever."""
    for name in names(12):
        colony.put(name, RUN)
    colony.start(*SLOW, prefix=limited(64))
    pids = {name: colony.wait_until_running(name) for name in names(12)}
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    colony.kill()
    os.kill(keeper, signal.SIGKILL)
    colony.wait_until_dead(keeper)
    colony.start(*SLOW, prefix=limited(64))
    for name in names(12):
        assert colony.wait_until_running(name) == pids[name]
    for name in names(PLACES - 12, first=12):
        colony.put(name, RUN)
    for name in names(PLACES - 12, first=12):
        colony.wait_until_running(name)
    for name in names(12):
        assert is_alive(pids[name])
        os.kill(pids[name], signal.SIGKILL)
    for name in names(12):
        colony.wait_until_running(name, instance=2)


def test_files_of_their_own(colony: Colony) -> None:
    """With as many processes as fit, all of which print into files of their own, nobody waits for a descriptor."""
    files = {name: colony.root / f"{name}.out" for name in names(PLACES)}
    for name, path in files.items():
        colony.put(name, {"args": colony.payload(name, "tick", 0.05), "log": {"stdout": str(path)}})
    colony.start(*QUICK, "-t", "0.001", prefix=limited(64))

    def all_go_on() -> None:
        before = {name: path.stat().st_size if path.exists() else 0 for name, path in files.items()}
        for name, path in files.items():
            colony.wait_for(
                lambda path=path, name=name: path.exists() and path.stat().st_size > before[name],  # type: ignore[misc]
                f"{path} grows",
            )

    all_go_on()
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    os.kill(keeper, signal.SIGKILL)
    colony.wait_until_dead(keeper)
    all_go_on()
    assert colony.send({"type": "RESTART", "name": "p001"})["state"] == "done"
    os.kill(colony.supervisor_pid, signal.SIGUSR2)
    colony.wait_for(lambda: '"upgraded"' in (colony.state / "events").read_text(), "it is upgraded")
    assert colony.send({"type": "RESTART", "name": "p002"})["state"] == "done"
    all_go_on()
    assert len(in_state(colony, "RUNNING")) == PLACES
    assert "Too many open files" not in colony.log()
    assert colony.stop() == 0
    for name, path in files.items():
        assert path.read_text().splitlines() == colony.notes(name, "tick")


def test_fewer_than_there_were(colony: Colony) -> None:
    """A supervisor that may have fewer descriptors than one before runs what runs, and can be asked and told."""
    for name in names(60):
        colony.put(name, RUN)
    colony.start(*QUICK, prefix=limited(256))
    pids = {name: colony.wait_until_running(name) for name in names(60)}
    colony.kill()
    colony.start(*QUICK, prefix=limited(64))
    (problem,) = colony.wait_for(lambda: (colony.supervisor() or {}).get("problems"), "it says so")
    assert problem.startswith("not every process fits")
    for name in names(60):
        assert colony.wait_until_running(name, instance=1) == pids[name]
    assert len(descriptors(colony.supervisor_pid)) < 60
    assert colony.send({"type": "RESTART", "name": "p059"})["state"] == "done"
    for name in ("p000", "p030"):
        os.kill(pids[name], signal.SIGKILL)
        colony.wait_until_running(name, instance=2)
    colony.put("more", RUN)
    colony.wait_for(lambda: reason(colony, "more").startswith(NO_ROOM), "it does not fit")
    for name in names(45):
        colony.remove(name)
    colony.wait_until_running("more")
    colony.wait_for(lambda: (colony.supervisor() or {})["problems"] == [], "all fit again")


@linux
def test_more_than_there_were(colony: Colony) -> None:
    """Whoever raises the limits of what runs is heeded; and a supervisor allows its keeper as much as it has itself."""

    def allow(pid: int, soft: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, 512))

    for name in names(10):
        colony.put(name, RUN)
    colony.start(*QUICK, prefix=limited(512))
    pids = {name: colony.wait_until_running(name) for name in names(10)}
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    allow(keeper, 64)
    allow(colony.supervisor_pid, 64)
    os.kill(colony.supervisor_pid, signal.SIGUSR2)
    colony.wait_for(lambda: '"upgraded"' in (colony.state / "events").read_text(), "it is upgraded")
    wait_for_figures(colony, allowed=64)
    colony.put("more", RUN)
    colony.wait_for(lambda: reason(colony, "more").startswith(NO_ROOM), "it does not fit")
    allow(keeper, 512)
    allow(colony.supervisor_pid, 512)
    colony.wait_until_running("more")
    allow(keeper, 64)
    colony.kill()
    colony.start(*QUICK, prefix=limited(512))
    wait_for_figures(colony, allowed=512, processes=11)
    assert resource.prlimit(keeper, resource.RLIMIT_NOFILE) == (512, 512)
    for name in names(10):
        assert colony.wait_until_running(name) == pids[name]


@linux
def test_each_gets_the_limit_back(colony: Colony) -> None:
    """A process has the soft limit that the supervisor was started with, its own if it says so, whoever started it."""
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "oom": {"oom_score_adj": 500},
        "nice": {"nice": 19},
        "sockets": {"sockets": {"a": "tcp:127.0.0.1:0"}},
        "limits": {"limits": {"nofile": [99, 300]}},
    }
    for name in names(80):
        colony.put(name, RUN)  # more than the soft limit, so that a process is started with more open than it may have
    colony.start(*QUICK, prefix=limited(64, 512))
    for name in names(80):
        colony.wait_until_running(name)
    for name, more in kinds.items():
        colony.put(name, {**RUN, **more})

    def look(instance: int) -> None:
        for name in kinds:
            pid = colony.wait_until_running(name, instance=instance)
            expected = (99, 300) if name == "limits" else (64, 512)
            assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == expected, name

    def again(instance: int) -> None:
        for name in kinds:
            assert colony.send({"type": "RESTART", "name": name})["state"] == "done"
        look(instance)

    look(1)
    os.kill(colony.supervisor_pid, signal.SIGUSR2)
    colony.wait_for(lambda: '"upgraded"' in (colony.state / "events").read_text(), "it is upgraded")
    again(2)
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    os.kill(keeper, signal.SIGKILL)
    colony.wait_until_dead(keeper)
    again(3)
    colony.kill()
    colony.start(*QUICK, prefix=limited(64, 512))
    again(4)
    # Whoever is started with another soft limit, be it all that there is, hands on that one.
    colony.kill()
    colony.start(*QUICK, prefix=limited(200, 200))
    assert colony.send({"type": "RESTART", "name": "plain"})["state"] == "done"
    pid = colony.wait_until_running("plain", instance=5)
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] == 200
