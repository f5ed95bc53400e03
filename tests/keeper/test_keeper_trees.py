"""Trees: what belongs to an instance, what a signal reaches, when a tree is empty."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from bench import PYTHON, SLEEP, Bench, Line, children_of, is_alive, start_time_of, state_of, wait_for

TERM, KILL = signal.SIGTERM, signal.SIGKILL


def daemon(pidfile: Path, *command: str, after: str = "exec sleep 1000") -> list[str]:
    """A shell that leaves a double-forked process with a session of its own behind, and then does something else."""
    run = " ".join(command or SLEEP)
    script = f"(setsid sh -c 'echo $$ > {pidfile}.new; mv {pidfile}.new {pidfile}; exec {run}' &)"
    return ["/bin/sh", "-c", f"{script}; while ! test -e {pidfile}; do sleep 0.01; done; {after}"]


def pid_in(bench: Bench, pidfile: Path) -> int:
    return int(bench.wait_for_text(pidfile))


def test_leader_exits_before_its_daemon(bench: Bench, line: Line) -> None:
    """While a child in its own session lives the tree is not empty; its end is told once it is."""
    file = bench.root / "daemon"
    identity, _ = bench.start(line, daemon(file, after="exit 3"))
    exited = line.wait_for("exited", id=identity)
    assert (exited["end"]["code"], exited["empty"]) == (3, False)
    pid = pid_in(bench, file)
    assert is_alive(pid)
    line.say("signal", id=identity, signal=TERM, scope="tree")
    line.wait_for("emptied", id=identity)
    assert not is_alive(pid)


def test_daemon_that_ends_by_itself_empties_the_tree(bench: Bench, line: Line) -> None:
    """Nobody needs to signal a leftover for the end of the tree to be told."""
    go = bench.root / "go"
    waiting = ["sh", "-c", f'"while ! test -e {go}; do sleep 0.01; done"']
    identity, _ = bench.start(line, daemon(bench.root / "daemon", *waiting, after="exit 0"))
    assert line.wait_for("exited", id=identity)["empty"] is False
    go.touch()
    line.wait_for("emptied", id=identity)


def test_signal_to_the_tree_reaches_daemons(bench: Bench, line: Line) -> None:
    """A signal to the tree reaches the leader and what it double-forked into another session."""
    file = bench.root / "daemon"
    identity, leader = bench.start(line, daemon(file))
    pid = pid_in(bench, file)
    wait_for(lambda: pid in children_of(bench.pid), "the daemon is an orphan")
    line.say("signal", id=identity, signal=TERM, scope="tree")
    exited = line.wait_for("exited", id=identity)
    if not exited["empty"]:
        line.wait_for("emptied", id=identity)
    assert not is_alive(pid)
    assert not is_alive(leader)


def test_children_are_told_although_the_leader_dies_first(bench: Bench, line: Line) -> None:
    """One signal to the tree reaches every child, though their parent is dead before its turn comes."""
    identity, leader = bench.start(line, ["/bin/sh", "-c", "for i in $(seq 50); do sleep 1000 & done; wait"])
    wait_for(lambda: len(children_of(leader)) == 50, "the children are there")
    line.say("signal", id=identity, signal=TERM, scope="tree")
    if not line.wait_for("exited", id=identity)["empty"]:
        line.wait_for("emptied", id=identity)


def test_signal_to_the_process_spares_its_children(bench: Bench, line: Line) -> None:
    """With the scope "process" only the leader is signalled."""
    file = bench.root / "daemon"
    identity, _ = bench.start(line, daemon(file))
    pid = pid_in(bench, file)
    line.say("signal", id=identity, signal=TERM, scope="process")
    exited = line.wait_for("exited", id=identity)
    assert (exited["end"]["signal"], exited["empty"]) == (TERM, False)
    line.barrier()
    assert is_alive(pid)


@pytest.mark.parametrize("clean", ["env -i", "setsid"])
def test_orphans_are_known_by_session_or_by_mark(bench: Bench, line: Line, clean: str) -> None:
    """An orphan that wiped its environment is known by its session, one with its own session by its environment."""
    file = bench.root / "orphan"
    script = f"({clean} sh -c 'echo $$ > {file}.new; mv {file}.new {file}; exec sleep 1000' &); exit 0"
    identity, _ = bench.start(line, ["/bin/sh", "-c", script])
    pid = pid_in(bench, file)
    assert line.wait_for("exited", id=identity)["empty"] is False
    line.say("signal", id=identity, signal=KILL, scope="tree")
    line.wait_for("emptied", id=identity)
    assert not is_alive(pid)


def test_orphans_in_the_middle_of_exec_are_known(bench: Bench, line: Line) -> None:
    """An orphan that is just running another program, and has no environment for that moment, is in the tree too."""
    again = bench.root / "again"
    again.write_text(f"exec sh {again}\n")
    script = f"(setsid sh {again} &); exit 0"
    started = [bench.start(line, ["/bin/sh", "-c", script])[0] for _ in range(20)]
    assert [line.wait_for("exited", id=identity)["empty"] for identity in started] == [False] * 20
    for identity in started:
        line.say("signal", id=identity, signal=KILL, scope="tree")
    for identity in started:
        line.wait_for("emptied", id=identity)


def test_stopped_process_is_woken_for_a_polite_signal(bench: Bench, line: Line) -> None:
    """With `wake` a stopped process is continued, so that it can act on the signal."""
    identity, pid = bench.start(line, ["/bin/sh", "-c", "kill -STOP $$"])
    wait_for(lambda: state_of(pid) == "T", "it has stopped itself")
    line.say("signal", id=identity, signal=TERM, scope="tree", wake=True)
    assert line.wait_for("exited", id=identity)["end"]["signal"] == TERM


def test_each_polite_signal_is_sent_once(bench: Bench, line: Line) -> None:
    """A signal that is not KILL reaches a process once, however long its tree lives on."""
    notes = bench.root / "notes"
    script = (
        "import os, signal\n"
        f"notes = os.open({str(notes)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "signal.signal(signal.SIGTERM, lambda *_: os.write(notes, b'term '))\n"
        "signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))\n"
        "os.write(notes, b'up ')\n"
        "while True:\n"
        "    child = os.fork()\n"  # exits of the tree make the keeper look at it again
        "    if child == 0: os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "    signal.sigtimedwait([signal.SIGUSR2], 0.001)\n"
    )
    identity, _ = bench.start(line, [*PYTHON, script])
    wait_for(lambda: notes.exists() and notes.read_text(), "it is up")
    line.say("signal", id=identity, signal=TERM, scope="tree")
    wait_for(lambda: "term" in notes.read_text(), "it was told")
    line.say("signal", id=identity, signal=signal.SIGUSR1, scope="tree")
    line.wait_for("exited", id=identity)
    assert notes.read_text() == "up term "


def test_kill_goes_on_until_a_forking_chain_ends(bench: Bench, line: Line) -> None:
    """Processes that fork and exit, each child in a new session, do not run away from KILL."""
    script = "import os, time\nwhile True:\n    if os.fork(): os._exit(0)\n    os.setsid()\n    time.sleep(0.005)\n"
    identity, _ = bench.start(line, [*PYTHON, script])
    assert line.wait_for("exited", id=identity)["empty"] is False
    line.say("signal", id=identity, signal=KILL, scope="tree")
    line.wait_for("emptied", id=identity)
    line.barrier()
    assert children_of(bench.pid) == []


def test_kill_ends_a_growing_tree(bench: Bench, line: Line) -> None:
    """A process that keeps making children, deserting ones among them, ends as a whole at one KILL."""
    script = (
        "import os, signal, time\n"
        "while True:\n"
        "    if os.fork() == 0:\n"
        "        if os.fork(): os._exit(0)\n"
        "        os.setsid()\n"
        "        signal.pause()\n"
        "    time.sleep(0.003)\n"
    )
    identity, leader = bench.start(line, [*PYTHON, script])
    wait_for(lambda: len(children_of(bench.pid)) > 5, "the tree has grown")
    line.say("signal", id=identity, signal=KILL, scope="tree")
    if not line.wait_for("exited", id=identity)["empty"]:
        line.wait_for("emptied", id=identity)
    assert not is_alive(leader)
    assert children_of(bench.pid) == []


def test_other_instances_are_spared(bench: Bench, line: Line) -> None:
    """A signal to one tree reaches no other instance and no process outside the keeper."""
    stranger = bench.run(SLEEP, bench.root / "stranger")
    first, _ = bench.start(line, daemon(bench.root / "one", after="exit 0"))
    second, pid = bench.start(line, daemon(bench.root / "two"))
    other = pid_in(bench, bench.root / "two")
    line.wait_for("exited", id=first)
    line.say("signal", id=first, signal=KILL, scope="tree")
    line.wait_for("emptied", id=first)
    assert is_alive(pid)
    assert is_alive(other)
    assert is_alive(stranger)
    line.say("signal", id=second, signal=KILL, scope="tree")
    line.wait_for("exited", id=second)
    assert is_alive(stranger)


def test_signal_to_an_ended_or_unknown_instance(bench: Bench, line: Line) -> None:
    """A signal to what is over, or never was, does nothing; a pid that was reaped is not signalled again."""
    identity, pid = bench.start(line, ["/bin/true"])
    line.wait_for("exited", id=identity)
    line.say("signal", id=identity, signal=KILL, scope="tree")
    line.say("signal", id="nobody", signal=KILL, scope="tree")
    line.say("forget", id=identity)
    line.say("signal", id=identity, signal=KILL, scope="process")
    line.barrier()
    assert start_time_of(bench.pid)
    assert not is_alive(pid)


def test_hundreds_of_orphans_are_reaped(bench: Bench, line: Line) -> None:
    """Three hundred orphans that exit at once leave no zombie, and the instance is unharmed."""
    script = (
        "import os, signal\n"
        "ready, go = os.pipe()\n"
        "for _ in range(300):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        if os.fork() == 0:\n"
        "            os.close(go)\n"
        "            os.read(ready, 1)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "os.close(go)\n"
        "print('gone', flush=True)\n"
        "signal.pause()\n"
    )
    identity, pid = bench.start(line, [*PYTHON, script])
    wait_for(lambda: bench.output(identity) == b"gone\n", "the orphans are let go")
    wait_for(lambda: children_of(bench.pid) == [pid], "only the leader is left")
    line.barrier()
    assert is_alive(pid)
    assert not [message for message in line.heard if message["is"] == "exited"]


def test_a_very_large_family(bench: Bench, line: Line) -> None:
    """A stop reaches every one of 1,000 children, of which the kernel lists some hundreds at a time."""
    script = "i=0; while [ $i -lt 1000 ]; do sleep 1000 & i=$((i+1)); done; echo; wait"
    identity, pid = bench.start(line, ["/bin/sh", "-c", script], name="web")
    line.wait_for("output", name="web")
    assert len(children_of(pid)) == 1000
    line.say("signal", id=identity, signal=int(signal.SIGTERM), scope="tree")
    assert line.wait_for("exited", id=identity)["empty"] or line.wait_for("emptied", id=identity)
    assert children_of(bench.pid) == []
