"""Stopping: an instance to the end of its tree, and the whole colony."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time

import pytest

from colony import SLEEP, Colony, arguments_of, fields_of, is_alive

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may make a pid namespace")


@pytest.mark.parametrize("mode", ["parent", "daemon"])
@pytest.mark.parametrize("how", ["restart", "remove"])
def test_the_whole_tree_ends(colony: Colony, mode: str, how: str) -> None:
    """A restart and a removal end the whole tree: children, and double-forked ones with a session of their own."""
    colony.put("web", {"args": colony.payload("web", mode)})
    colony.start()
    colony.wait_for_notes("web")
    (leader,), (child,) = colony.pids("web"), colony.pids("web", "child")
    assert is_alive(child)
    if how == "restart":
        assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
    else:
        colony.remove("web")
        colony.wait_until_forgotten("web")
    assert not is_alive(leader)
    assert not is_alive(child)
    assert colony.pids("web", "term child") == [child]
    if how == "restart":
        colony.wait_for_notes("web", 2)
        noted = colony.notes("web")
        # The old child had its signal before anything of the new instance was there.
        assert noted.index(f"term child {child}") < noted.index(f"child {colony.pids('web', 'child')[1]}")


def test_a_grandchild_holding_stdout_delays_nothing(colony: Colony) -> None:
    """A restart does not wait for stdout to be closed by a descendant that ignores TERM, only for kill_time."""
    script = "trap '' TERM; sleep 100000 & echo \"child $!\" >>$0; echo \"up $$\" >>$0; trap 'exit 0' TERM; wait"
    notes = str(colony.notes_directory / "web")
    colony.put("web", {"args": ["/bin/sh", "-c", script, notes], "kill_time": 0.3})
    colony.start("-k", "60")
    colony.wait_for_notes("web")
    (child,) = colony.pids("web", "child")
    answer = colony.send({"type": "RESTART", "name": "web"}, timeout=20)
    assert answer["state"] == "done"
    assert not is_alive(child)
    colony.wait_for_notes("web", 2)


def test_a_process_that_ignores_term_is_killed(colony: Colony) -> None:
    """A process that ignores TERM has its kill time, not less, and is then killed."""
    colony.put("web", {"args": colony.payload("web", "signals")})
    colony.start("-k", "0.5")
    colony.wait_for_notes("web")
    pid = colony.wait_until_running("web")
    colony.remove("web")
    (line,) = colony.wait_for_notes("web", beginning="got TERM")
    colony.wait_until_dead(pid, timeout=20)
    assert time.monotonic() - float(line.split()[2]) >= 0.45


def test_killed_shows_in_the_status(colony: Colony) -> None:
    """The last exit of a process that had to be killed says KILL."""
    colony.put("web", {"args": colony.payload("web", "signals"), "kill_time": 0.1})
    colony.start()
    colony.wait_for_notes("web")
    colony.wait_until_running("web")
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    last = colony.wait_for_status("web", state="STOPPED")["last_exit"]
    assert (last["code"], last["signal"]) == (None, "KILL")


def test_a_stopped_process_ends_too(colony: Colony) -> None:
    """A process frozen by SIGSTOP is restarted as any other."""
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.start("-k", "0.5")
    pid = colony.wait_until_running("web")
    os.kill(pid, signal.SIGSTOP)
    colony.wait_for(lambda: fields_of(pid)["State"].startswith("T"), "it is frozen")
    assert colony.send({"type": "RESTART", "name": "web"}, timeout=20)["state"] == "done"
    assert not is_alive(pid)
    assert colony.wait_until_running("web", instance=2) != pid


def test_what_a_leader_leaves_behind_ends_first(colony: Colony) -> None:
    """When a leader exits by itself, what is left of its tree gets the stop sequence before the next instance."""
    colony.put("web", {"args": colony.payload("web", "deserter")})
    colony.start("-m", "0.05", "-M", "0.05")
    colony.wait_for_notes("web", 2)
    order = [re.sub(r" \d+$", "", line) for line in colony.notes("web")]
    assert order[:5] == ["child", "up", "term child", "child", "up"]
    assert not is_alive(colony.pids("web", "child")[0])


def test_a_deserter_that_ignores_term(colony: Colony) -> None:
    """A left-over child that ignores TERM is killed after kill_time, and only then the next instance starts."""
    script = 'trap "" TERM; sleep 100000 & echo "child $!" >>$0; echo "up $$" >>$0; exit 0'
    notes = str(colony.notes_directory / "web")
    colony.put("web", {"args": ["/bin/sh", "-c", script, notes], "kill_time": 0.2})
    colony.start("-m", "0.05", "-M", "0.05")
    colony.wait_for_notes("web", 2)
    assert not is_alive(colony.pids("web", "child")[0])


def test_other_processes_trees_are_left_alone(colony: Colony) -> None:
    """Stopping one process touches nobody else's children."""
    for name in ("web", "echo"):
        colony.put(name, {"args": colony.payload(name, "daemon")})
    colony.start()
    for name in ("web", "echo"):
        colony.wait_for_notes(name)
    colony.remove("web")
    colony.wait_until_forgotten("web")
    assert is_alive(colony.pids("echo")[0])
    assert is_alive(colony.pids("echo", "child")[0])


def test_sigterm_ends_all(colony: Colony) -> None:
    """SIGTERM to the supervisor stops twenty processes at once, and its exit code is 0 when the last is gone."""
    for number in range(20):
        colony.put(f"p{number}", {"args": [SLEEP, "100000"]})
    colony.put("family", {"args": colony.payload("family", "daemon")})
    colony.start()
    pids = [colony.wait_until_running(f"p{number}") for number in range(20)]
    colony.wait_for_notes("family")
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    assert colony.stop() == 0
    assert not any(is_alive(pid) for pid in [*pids, *colony.pids("family"), *colony.pids("family", "child")])
    assert not is_alive(keeper)
    assert colony.processes() == {}
    assert colony.supervisor() is None
    assert colony.pids("family", "term child") == colony.pids("family", "child")


def test_sigterm_gives_each_its_time(colony: Colony) -> None:
    """At SIGTERM all processes have their kill time at the same time, and the supervisor waits for the last."""
    for number in range(5):
        colony.put(f"p{number}", {"args": colony.payload(f"p{number}", "signals")})
    colony.start("-k", "0.5")
    for number in range(5):
        colony.wait_for_notes(f"p{number}")
    assert colony.stop() == 0
    moments = [float(line.split()[2]) for number in range(5) for line in colony.notes(f"p{number}", "got TERM")]
    assert len(moments) == 5
    assert max(moments) - min(moments) < 0.5  # one after the other would be two seconds
    assert time.monotonic() - max(moments) >= 0.45


def test_sigterm_during_backoff(colony: Colony) -> None:
    """SIGTERM while processes wait for their next try ends at once and starts none of them."""
    for number in range(3):
        colony.put(f"p{number}", {"args": colony.payload(f"p{number}", "leave", 1)})
    colony.start("-m", "60", "-M", "60")
    for number in range(3):
        colony.wait_for_status(f"p{number}", state="BACKOFF")
    assert colony.stop(timeout=20) == 0
    assert [len(colony.notes(f"p{number}")) for number in range(3)] == [1, 1, 1]


def test_a_second_signal_kills(colony: Colony) -> None:
    """A second SIGTERM skips to KILL, and the exit code is 0 still."""
    colony.put("web", {"args": colony.payload("web", "signals")})
    colony.start("-k", "300")
    colony.wait_for_notes("web")
    assert colony.process
    colony.process.send_signal(signal.SIGTERM)
    colony.wait_for_notes("web", beginning="got TERM")
    colony.process.send_signal(signal.SIGTERM)
    assert colony.wait_for_exit(timeout=20) == 0
    assert not is_alive(colony.pids("web")[0])


def test_last_words_are_logged(colony: Colony) -> None:
    """What a process prints while the supervisor stops it is in the log before the supervisor exits."""
    script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done"
    colony.put("web", {"args": ["/bin/sh", "-c", script]})
    colony.start()
    colony.wait_for(lambda: "ready" in colony.lines("web"), "it is ready")
    assert colony.stop() == 0
    assert "bye" in colony.lines("web")


def test_sighup_scans(colony: Colony) -> None:
    """SIGHUP is "scan now": it ends nothing, and finds what nothing else tells of for ten minutes."""
    target = colony.root / "real"
    target.write_bytes(b"{")
    (colony.config / "web").symlink_to(target)
    colony.start("--frequency", "600")
    colony.wait_for_problem("web")
    written = colony.put("other", {"args": [SLEEP, "100000"]})
    colony.wait_until_running("other")
    assert written
    target.write_bytes((colony.config / "other").read_bytes())
    assert colony.process
    colony.process.send_signal(signal.SIGHUP)
    colony.wait_until_running("web")


@needs_root
def test_as_pid_1(colony: Colony) -> None:
    """As PID 1 of a container it reaps every orphan, its own and strangers', and SIGTERM ends it with 0."""
    colony.put("web", {"args": colony.payload("web", "orphans", 20)})
    colony.put("echo", {"args": [SLEEP, "100000"]})
    colony.start(prefix=["unshare", "--pid", "--fork", "--mount-proc"])
    info = colony.supervisor()
    assert info
    assert info["pid"] == 1
    colony.wait_for_notes("web")
    # As `docker exec` does: a stranger enters, and leaves an orphan to PID 1.
    stranger = "(sleep 0.1; exit 3) & exit 0"
    entered = ["nsenter", f"--target={colony.supervisor_pid}", "--pid", "--mount", "sh", "-c", stranger]
    for _ in range(3):
        subprocess.run(entered, check=True, timeout=30)

    def left() -> list[int]:
        below = descendants(colony.supervisor_pid)
        return [pid for pid in below if arguments_of(pid) == ["sleep", "0.1"] or pid in zombies_below(pid)]

    colony.wait_for(lambda: not left() and not zombies_below(colony.supervisor_pid), "every orphan was reaped")
    assert colony.stop() == 0
    assert colony.processes() == {}


@needs_root
def test_as_pid_1_with_a_stubborn_process(colony: Colony) -> None:
    """As PID 1, SIGTERM, then KILL for what ignores it, then exit code 0: `docker stop` is clean."""
    colony.put("web", {"args": colony.payload("web", "signals")})
    colony.put("echo", {"args": colony.payload("echo", "daemon")})
    colony.start("-k", "0.3", prefix=["unshare", "--pid", "--fork", "--mount-proc"])
    colony.wait_for_notes("web")
    colony.wait_for_notes("echo")
    assert colony.stop() == 0
    assert [line.split()[1] for line in colony.notes("web", "got ") if "CONT" not in line] == ["TERM"]
    assert colony.pids("echo", "term child") == colony.pids("echo", "child")


def descendants(pid: int) -> set[int]:
    """All descendants of a process, zombies included."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := fields_of(int(entry))):
            parents[int(entry)] = int(fields["PPid"])
    found: set[int] = set()
    fresh = {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def zombies_below(pid: int) -> set[int]:
    """The zombies among a process's descendants."""
    return {child for child in descendants(pid) if fields_of(child).get("State", "").startswith("Z")}
