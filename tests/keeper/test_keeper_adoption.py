"""The keeper is killed: the next one resumes holding what it can prove, and touches nothing else."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from bench import (
    PYTHON,
    SLEEP,
    Bench,
    Line,
    children_of,
    exit_status_is_known,
    is_alive,
    start_time_of,
    state_of,
    wait_for,
)

TERM, KILL = signal.SIGTERM, signal.SIGKILL


def next_keeper(bench: Bench) -> Line:
    bench.kill_keeper()
    return bench.start_keeper()


def stranger(bench: Bench, **env: str) -> int:
    """A process that no keeper started; its pid."""
    settings = [f"{key}={value}" for key, value in env.items()]
    pid = bench.run(["/usr/bin/env", *settings, *SLEEP], bench.root / "stranger")

    def name() -> bool:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/bin/sleep")

    wait_for(name, "it is what it shall be")
    return pid


def intent(bench: Bench, identity: str) -> dict[str, Any]:
    """The intent of an instance, as a keeper of this boot writes it."""
    line = bench.start_keeper()
    line.hello()
    model, _ = bench.start(line, SLEEP)
    written = bench.record(model)[0]
    line.say("signal", id=model, signal=KILL, scope="tree")
    line.wait_for("exited", id=model)
    line.say("forget", id=model)
    line.barrier()
    bench.kill_keeper()
    return {**written, "name": identity}


def test_instance_outlives_its_keeper(bench: Bench, line: Line) -> None:
    """After the keeper's death its instance runs on with the same pid, is held by the next, and obeys it."""
    identity, pid = bench.start(line, SLEEP, name="web", number=3, memo="m")
    second = next_keeper(bench)
    held = second.hello()[identity]
    assert (held["alive"], held["pid"], held["name"], held["number"], held["memo"]) == (True, pid, "web", 3, "m")
    second.say("signal", id=identity, signal=TERM, scope="tree")
    exited = second.wait_for("exited", id=identity)
    assert exited["empty"] is True
    assert not is_alive(pid)
    if exit_status_is_known():
        assert exited["end"]["signal"] == TERM
    second.say("forget", id=identity)
    assert second.hello() == {}
    assert not bench.journal(identity).exists()


def test_exit_code_of_an_adopted_instance(bench: Bench, line: Line) -> None:
    """The exit status of an adopted instance is known where the kernel tells it, else it is said to be unknown."""
    identity, _ = bench.start(line, bench.waiting_at_gate("exit 7"))
    second = next_keeper(bench)
    second.hello()
    bench.open_gate()
    end = second.wait_for("exited", id=identity)["end"]
    assert end["lived"] > 0
    if exit_status_is_known():
        assert end["code"] == 7
    else:
        assert end["unknown"] is True


def test_exit_that_nobody_reaps(bench: Bench, line: Line) -> None:
    """Where the exit of an adopted instance is never taken by its parent, it is unknown after two seconds."""
    identity, _ = bench.start(line, bench.waiting_at_gate("exit 7"))
    bench.kill_keeper()
    bench.stop_reaping()
    second = bench.start_keeper()
    second.hello()
    bench.open_gate()
    exited = second.wait_for("exited", id=identity)
    assert (exited["end"]["unknown"], exited["empty"]) == (True, True)
    cpu = sum(int(word) for word in Path(f"/proc/{bench.pid}/stat").read_text().rpartition(")")[2].split()[11:13])
    assert cpu < os.sysconf("SC_CLK_TCK")  # it waited, and did not spin


def test_exit_while_no_keeper_lived(bench: Bench, line: Line) -> None:
    """An instance that ended between two keepers is held as ended, with an exit that is unknown."""
    identity, pid = bench.start(line, bench.waiting_at_gate("exit 7"))
    bench.kill_keeper()
    bench.open_gate()
    wait_for(lambda: state_of(pid) == "", "it was reaped")
    held = bench.start_keeper().hello()[identity]
    assert (held["alive"], held["empty"], held["end"]["unknown"]) == (False, True, True)


def test_exit_that_the_dead_keeper_had_seen(bench: Bench, line: Line) -> None:
    """An exit that was on disk is known to the next keeper, which keeps it until it is forgotten."""
    identity, _ = bench.start(line, ["/bin/sh", "-c", "exit 5"])
    line.wait_for("exited", id=identity)
    second = next_keeper(bench)
    held = second.hello()[identity]
    assert (held["alive"], held["empty"], held["end"]["code"]) == (False, True, 5)
    third = next_keeper(bench)
    assert third.hello()[identity]["end"]["code"] == 5
    third.say("forget", id=identity)
    assert third.hello() == {}


def test_keepers_die_one_after_another(bench: Bench, line: Line) -> None:
    """Five keepers are killed in a row and the instances are still the same."""
    started = dict(bench.start(line, SLEEP) for _ in range(5))
    for _ in range(5):
        held = next_keeper(bench).hello()
        assert {identity: instance["pid"] for identity, instance in held.items() if instance["alive"]} == started


def test_tree_of_an_adopted_instance(bench: Bench, line: Line) -> None:
    """What an adopted leader leaves behind keeps its tree from being empty, and KILL ends it."""
    script = f"(setsid sleep 1000 &); setsid sleep 1000 & read x < {bench.gate}"
    identity, leader = bench.start(line, ["/bin/sh", "-c", script])
    second = next_keeper(bench)
    second.hello()
    bench.open_gate()
    exited = second.wait_for("exited", id=identity)
    assert exited["empty"] is False
    second.say("signal", id=identity, signal=KILL, scope="tree")
    second.wait_for("emptied", id=identity)
    assert not is_alive(leader)


def test_daemon_of_an_adopted_instance_gets_the_signal(bench: Bench, line: Line) -> None:
    """A signal to the tree of an adopted instance reaches what it double-forked earlier, not the leader alone."""
    file = bench.root / "told"
    child = bench.root / "child.py"
    child.write_text(
        "import os, signal\n"
        "os.setsid()\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (os.mkdir({str(file)!r}), os._exit(0)))\n"
        f"os.mkdir({str(bench.root / 'up')!r})\n"
        "signal.pause()\n"
    )
    script = f"({' '.join(PYTHON[:3])} {child} &); trap : TERM; while :; do sleep 1000 & wait; done"
    identity, leader = bench.start(line, ["/bin/sh", "-c", script])
    wait_for((bench.root / "up").exists, "the daemon is up")
    second = next_keeper(bench)
    second.hello()
    second.say("signal", id=identity, signal=TERM, scope="tree")
    second.barrier()
    wait_for(lambda: not bench_is_running(child), "the daemon has ended")
    assert file.exists()
    assert is_alive(leader)


def bench_is_running(program: Path) -> bool:
    """Whether any process runs this program."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(program).encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


def test_children_of_an_adopted_instance_are_told_too(bench: Bench, line: Line) -> None:
    """One signal to the tree of an adopted leader reaches every child, though their parent is dead before."""
    identity, leader = bench.start(line, ["/bin/sh", "-c", "for i in $(seq 50); do sleep 1000 & done; wait"])
    wait_for(lambda: len(children_of(leader)) == 50, "the children are there")
    second = next_keeper(bench)
    second.hello()
    second.say("signal", id=identity, signal=TERM, scope="tree")
    if not second.wait_for("exited", id=identity)["empty"]:
        second.wait_for("emptied", id=identity)


def test_child_without_mark_gets_the_signal(bench: Bench, line: Line) -> None:
    """Below an adopted leader every descendant is signalled, whatever its environment."""
    script = f"env -i sh -c 'echo $$ > {bench.root}/x; mv {bench.root}/x {bench.root}/pid; exec sleep 1000' & wait"
    identity, _ = bench.start(line, ["/bin/sh", "-c", script])
    pid = int(bench.wait_for_text(bench.root / "pid"))
    second = next_keeper(bench)
    second.hello()
    second.say("signal", id=identity, signal=TERM, scope="tree")
    second.wait_for("exited", id=identity)
    wait_for(lambda: not is_alive(pid), "the child has ended")


def test_leader_that_overwrote_its_environment_can_be_stopped(bench: Bench, line: Line) -> None:
    """A program that writes its title over its environment, as many servers do, is adopted and can be killed."""
    script = (
        "import ctypes, signal\n"
        "fields = open('/proc/self/stat').read().rpartition(')')[2].split()\n"
        "start, end = int(fields[47]), int(fields[48])\n"
        "ctypes.memset(start, 0, end - start)\n"
        "print('wiped', flush=True)\n"
        "signal.pause()\n"
    )
    identity, pid = bench.start(line, [*PYTHON, script])
    wait_for(lambda: bench.output(identity) == b"wiped\n", "the environment is gone")
    assert b"NCOLONY" not in Path(f"/proc/{pid}/environ").read_bytes()
    second = next_keeper(bench)
    assert second.hello()[identity]["alive"] is True
    second.say("signal", id=identity, signal=KILL, scope="tree")
    second.barrier()
    wait_for(lambda: not is_alive(pid), "it was killed")
    second.wait_for("exited", id=identity)


@pytest.mark.parametrize("edit", ["pid", "began"])
def test_record_that_does_not_fit(bench: Bench, line: Line, edit: str) -> None:
    """A record whose pid or start time is another process's is no proof: that process is not signalled."""
    identity, _ = bench.start(line, SLEEP)
    line.say("signal", id=identity, signal=KILL, scope="tree")
    line.wait_for("exited", id=identity)
    first, record, _ = bench.record(identity)
    innocent = stranger(bench)
    while start_time_of(innocent) == record["began"]:  # the kernel's clock ticks every 10 ms
        innocent = stranger(bench)
    bench.kill_keeper()
    changed = {"pid": innocent} if edit == "pid" else {"pid": innocent, "began": start_time_of(innocent) - 1}
    bench.rewrite(identity, [first, {**record, **changed}])
    second = bench.start_keeper()
    held = second.hello()[identity]
    assert not held["alive"]
    assert not held["pid"]
    for scope in ("tree", "process"):
        for number in (TERM, KILL):
            second.say("signal", id=identity, signal=number, scope=scope)
    second.barrier()
    assert is_alive(innocent)
    third = next_keeper(bench)
    third.hello()
    assert is_alive(innocent)


def test_leader_whose_record_was_lost_is_found_by_its_mark(bench: Bench) -> None:
    """An intent without a record leads to the process that carries its identity, which is adopted and obeys."""
    lost = bench.new_identity()
    written = intent(bench, lost)
    pid = stranger(bench, NCOLONY_INSTANCE=lost)
    bench.make_fifo(lost)
    bench.rewrite(lost, [written])
    line = bench.start_keeper()
    held = line.hello()[lost]
    assert (held["alive"], held["pid"]) == (True, pid)
    line.say("signal", id=lost, signal=TERM, scope="tree")
    line.wait_for("exited", id=lost)
    assert not is_alive(pid)


def test_intent_without_a_process_is_dropped(bench: Bench) -> None:
    """An intent that led to no process is forgotten: that instance never was."""
    bench.rewrite("never", [intent(bench, "never")])
    assert bench.start_keeper().hello() == {}
    assert not bench.journal("never").exists()


@pytest.mark.parametrize("recorded", [False, True])
def test_journal_of_another_boot(bench: Bench, recorded: bool) -> None:
    """What another boot wrote means nothing: it is dropped, and whoever has its pid or mark is left alone."""
    old = bench.new_identity()
    written = {**intent(bench, old), "boot": "00000000-another-boot pid:[4026531836]"}
    pid = stranger(bench, NCOLONY_INSTANCE=old)
    record = {"step": "record", "pid": pid, "began": start_time_of(pid), "boot": written["boot"]}
    bench.rewrite(old, [written, record] if recorded else [written])
    line = bench.start_keeper()
    assert line.hello() == {}
    line.say("signal", id=old, signal=KILL, scope="tree")
    line.barrier()
    assert is_alive(pid)
    assert not bench.journal(old).exists()


def test_torn_journal_lines(bench: Bench, line: Line) -> None:
    """A line that was cut off by a death counts as not written; the others count."""
    identity, pid = bench.start(line, SLEEP)
    bench.kill_keeper()
    with bench.journal(identity).open("a") as file:
        file.write('{"step": "exit", "co')
    held = bench.start_keeper().hello()[identity]
    assert (held["alive"], held["pid"]) == (True, pid)


@pytest.mark.parametrize(
    "damage",
    [
        [{"step": "intent", "boot": None}],
        ["noise"],
        [{"step": "intent"}, {"step": "record", "pid": "x"}],
        [{}, {"step": "record", "pid": 1 << 70, "began": 1}],
        [{}, {"step": "record", "pid": -5, "began": 1}],
        [{}, {"step": "record"}],
        [{}, {"step": "exit", "code": None}],
    ],
    ids=["no_boot", "noise", "pid_text", "pid_large", "pid_negative", "no_pid", "no_code"],
)
def test_damaged_journal_keeps_no_keeper_from_starting(bench: Bench, damage: list[Any]) -> None:
    """Whatever a file in the journal says, the keeper starts, and adopts the others."""
    written = intent(bench, "damaged")
    sound = bench.new_identity()
    pid = stranger(bench, NCOLONY_INSTANCE=sound)
    bench.make_fifo(sound)
    bench.rewrite(sound, [{**written, "name": "sound"}])
    bench.rewrite("damaged", [{**written, **line} if line in ({}, {"step": "intent"}) else line for line in damage])
    held = bench.start_keeper().hello()
    assert held[sound]["pid"] == pid


def test_directory_in_the_journal(bench: Bench) -> None:
    """A directory among the journal's files keeps no keeper from starting."""
    (bench.state / "instances" / "stray").mkdir(parents=True)
    assert bench.start_keeper().hello() == {}


def test_adopted_without_its_fifo(bench: Bench, line: Line) -> None:
    """An instance whose FIFO somebody removed is held all the same."""
    identity, _ = bench.start(line, SLEEP)
    bench.fifo(identity).unlink()
    second = next_keeper(bench)
    assert second.hello()[identity]["alive"] is True
    second.say("signal", id=identity, signal=KILL, scope="tree")
    assert second.wait_for("exited", id=identity)["empty"] is True


def test_log_settings_outlive_the_keeper(bench: Bench, line: Line) -> None:
    """An instance that is not to be forwarded is not forwarded by the next keeper either."""
    identity, _ = bench.start(line, bench.waiting_at_gate("echo silent; exec sleep 1000"), log={"forward": False})
    second = next_keeper(bench)
    second.hello()
    bench.open_gate()
    wait_for(lambda: bench.output(identity) == b"silent\n", "it is written")
    second.barrier()
    assert not [message for message in second.heard if message["is"] == "output"]


def test_output_that_a_dead_keeper_did_not_tell_of(bench: Bench, line: Line) -> None:
    """Lines that were written to the log but never forwarded are told of by the next keeper, without anything new."""
    line.close()  # nobody to forward it
    second = bench.call()
    second.hello()
    identity, _ = bench.start(second, ["/bin/sh", "-c", "echo hello; exec sleep 1000"], name="quiet")
    wait_for(lambda: bench.output("quiet") == b"hello\n", "it is written")
    third = next_keeper(bench)
    third.hello(read={"quiet": 0})
    third.barrier()
    told = [(message["name"], message["from"], message["to"]) for message in third.heard if message["is"] == "output"]
    assert told == [("quiet", 0, 6)]
    assert bench.journal(identity).exists()
