"""What an unprivileged neighbour, or a process of one colony's user, can do to others: by their mark, signals, floods.

`test_a_forged_mark_needs_what_nobody_is_told` (identities are nowhere to be read and cannot be guessed),
`test_a_forged_mark_that_is_wrong` (adoption after both halves died), `test_a_process_cannot_take_the_place_of_another`
(a start without a record), `test_a_mark_of_another_instance_among_descendants`, `test_signals_from_others`,
`test_a_loud_process_has_a_budget`, `test_a_process_that_multiplies_is_stopped`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from people import ALICE, MALLORY, NOBODY, become, needs_root, python, run_as

from colony import SLEEP, Colony, environment_of, is_alive

pytestmark = needs_root
BASE = {"args": [SLEEP, "100000"]}


def impostor(uid: int, mark: str) -> subprocess.Popen[bytes]:
    """A process of this user that bears the mark of an instance, and leads a session as instances do."""
    return subprocess.Popen(
        [*become(uid), SLEEP, "100000"],
        env={"NCOLONY_INSTANCE": mark},
        start_new_session=True,
        stdin=subprocess.DEVNULL,
    )


def end(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        process.kill()
        process.wait()


def test_a_forged_mark_needs_what_nobody_is_told(open_colony: Colony) -> None:
    """The identity of an instance is in no place that another user can read, and half of it is chance."""
    open_colony.put("web", {**BASE, "uid": ALICE})
    open_colony.put("other", {**BASE, "uid": ALICE})
    open_colony.start()
    identities = {environment_of(open_colony.wait_until_running(n))["NCOLONY_INSTANCE"] for n in ("web", "other")}
    assert len({one[16:] for one in identities}) == 2
    assert all(len(one) == 32 for one in identities)
    script = """
found = b""
for root, _, names in os.walk(sys.argv[1]):
    found += root.encode() + b" ".join(map(os.fsencode, names))
    for name in names:
        try:
            found += open(f"{root}/{name}", "rb").read()
        except OSError:
            pass
for pid in os.listdir("/proc"):
    for name in ("environ", "cmdline", "cgroup", "status", "mountinfo"):
        try:
            found += open(f"/proc/{pid}/{name}", "rb").read()
        except OSError:
            pass
sys.stdout.buffer.write(found)
"""
    said = run_as(MALLORY, script, open_colony.state, errors="replace").stdout
    assert str(open_colony.state) in said
    assert not any(one in said or one[16:] in said for one in identities)


def test_a_forged_mark_that_is_wrong(open_colony: Colony) -> None:
    """A neighbour's process with a mark like an instance's is neither adopted, nor signalled, nor waited for."""
    open_colony.put("web", {**BASE, "uid": ALICE})
    open_colony.start()
    pid = open_colony.wait_until_running("web")
    identity = environment_of(pid)["NCOLONY_INSTANCE"]
    # All that can be known of it: when it was started.
    impostors = [impostor(MALLORY, mark) for mark in (identity[:16], identity[:16] + "0" * 16, "")]
    try:
        keeper = open_colony.keeper_pid()
        assert keeper
        open_colony.kill()
        os.kill(keeper, signal.SIGKILL)
        open_colony.wait_until_dead(keeper)
        open_colony.start()
        assert open_colony.wait_until_running("web", instance=1) == pid
        assert open_colony.send({"type": "STOP", "name": "web"})["state"] == "done"
        assert not is_alive(pid)
        assert all(is_alive(one.pid) for one in impostors)
    finally:
        end(*impostors)


def test_a_process_cannot_take_the_place_of_another(open_colony: Colony) -> None:
    """Where a start was not recorded, a neighbour's process with a mark like it is not taken for the instance."""
    points = open_colony.root / "points"
    points.mkdir()
    keeper_and_supervisor = points / "start.intent"
    open_colony.start(env={**os.environ, "NCOLONY_KILL_AT": str(points)})
    open_colony.wait_for(open_colony.keeper_pid, "there is a keeper")
    keeper = open_colony.keeper_pid()
    keeper_and_supervisor.write_text(f"{open_colony.supervisor_pid} {keeper}")
    open_colony.put("web", {**BASE, "uid": ALICE})
    open_colony.abandoned = True
    open_colony.wait_for(open_colony.has_exited, "both are killed")
    (identity,) = os.listdir(open_colony.state / "instances")
    forged = impostor(MALLORY, identity[:16] + "f" * 16)
    try:
        open_colony.start()
        pid = open_colony.wait_until_running("web")
        assert pid != forged.pid
        assert os.stat(f"/proc/{pid}").st_uid == ALICE
        open_colony.send({"type": "RESTART", "name": "web"})
        assert is_alive(forged.pid)
    finally:
        end(forged)


def test_a_mark_of_another_instance_among_descendants(open_colony: Colony) -> None:
    """A process cannot have another user's process killed, nor keep it from being stopped, by what it starts."""
    script = f"""
import os, subprocess, sys
for mark in ("0" * 32, os.environ["NCOLONY_INSTANCE"][:16], "\\n", ""):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            ours = {{"NCOLONY_INSTANCE": mark, "COLONY_MARK": os.environ["COLONY_MARK"]}}
            os.execve({SLEEP!r}, ["sleep", "100000"], ours)
        os._exit(0)
    os.wait()
print("ready", flush=True)
import signal; signal.pause()
"""
    open_colony.put("evil", {"args": [python(), "-I", "-S", "-c", script], "uid": MALLORY})
    open_colony.put("web", {**BASE, "uid": ALICE})
    open_colony.start()
    pid = open_colony.wait_until_running("web")
    open_colony.wait_for(lambda: open_colony.lines("evil"), "it has started its daemons")
    assert open_colony.send({"type": "RESTART", "name": "evil"})["state"] == "done"
    assert open_colony.wait_until_running("web", instance=1) == pid
    assert open_colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    assert open_colony.send({"type": "STOP", "name": "evil"})["state"] == "done"
    for one, command in open_colony.processes().items():
        if command.endswith("sleep 100000"):  # a daemon that has left its session and has given up its mark
            assert os.stat(f"/proc/{one}").st_uid == MALLORY
            os.kill(one, signal.SIGKILL)


def test_signals_from_others(open_colony: Colony) -> None:
    """Another user can signal neither supervisor, nor keeper, nor a process that is not its own."""
    open_colony.put("web", {**BASE, "uid": ALICE})
    open_colony.start()
    pids = [open_colony.supervisor_pid, open_colony.keeper_pid(), open_colony.wait_until_running("web")]
    script = """
for pid in map(int, sys.argv[1:]):
    for number in (0, 1, 9, 10, 12, 15):
        try:
            os.kill(pid, number)
            print("sent", number, pid)
        except PermissionError:
            pass
"""
    done = run_as(MALLORY, script, *pids)
    assert (done.returncode, done.stdout) == (0, "")
    assert open_colony.wait_until_running("web", instance=1) == pids[2]


def test_a_loud_process_has_a_budget(open_colony: Colony) -> None:
    """A process that prints without end does not fill the disk: its log stays within its share, others go on."""
    open_colony.put("loud", {"args": ["/bin/sh", "-c", "exec yes"], "uid": NOBODY, "log": {"forward": False}})
    open_colony.put("web", BASE)
    open_colony.start("--log-budget", "1M")
    kept = open_colony.logs / "loud"

    def offset() -> int:
        names = [int(path.stem) for path in kept.glob("*.log")] if kept.is_dir() else []
        return max(names, default=0)

    open_colony.wait_for(lambda: offset() > 16 << 20, "16 MiB were printed")
    size = sum(path.stat().st_size for path in kept.iterdir() if path.exists())
    assert size < 2 << 20
    assert open_colony.send({"type": "RESTART", "name": "web"})["state"] == "done"


def test_a_process_that_multiplies_is_stopped(open_colony: Colony) -> None:
    """A process that starts others as fast as it can is bounded by `limits`, and stopped to the last of them."""
    script = """
import os, time
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except BlockingIOError:
        time.sleep(0.05)
"""
    config = {"args": [python(), "-I", "-S", "-c", script], "uid": MALLORY, "limits": {"nproc": 40}}
    open_colony.put("bomb", {**config, "kill_time": 0.2})
    open_colony.start()
    open_colony.wait_until_running("bomb")

    def count() -> int:
        mine = 0
        for entry in Path("/proc").iterdir():
            try:
                mine += entry.name.isdigit() and entry.stat().st_uid == MALLORY and is_alive(int(entry.name))
            except OSError:
                continue
        return mine

    open_colony.wait_for(lambda: count() >= 30, "there are many")
    assert count() <= 41
    began = time.monotonic()
    assert open_colony.send({"type": "STOP", "name": "bomb"}, 60)["state"] == "done"
    assert count() == 0, time.monotonic() - began
