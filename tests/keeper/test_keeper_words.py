"""What the keeper only keeps for others, when a start was, and how much it takes on at once."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from bench import KEEPER, PYTHON, SLEEP, Bench, Line, start_time_of, state_of, wait_for

MEMO = ["generation", "digest", '{"restart":"always","stop":[["TERM",5.0]]}']
FOLLOW = '{"stdout":"/var/log/web","max_bytes":10}'
# As versions before kept it: the parts of it.
PARTS: list[Any] = ["generation", "digest", {"restart": "always", "stop": [["TERM", 5.0]], "failures": None}]
KEPT = [(MEMO, FOLLOW), (PARTS, {"stdout": None, "plan": [["a", 1], []]}), ([], None), (None, [["x", "y"], 1, True])]


@pytest.mark.parametrize(("memo", "follow"), KEPT)
def test_what_is_kept_for_the_supervisor(bench: Bench, line: Line, memo: object, follow: object) -> None:
    """It is told as it was given, text or parts, now and by the next keeper."""
    identity, _ = bench.start(line, SLEEP, memo=memo, follow=follow)
    held = line.hello()[identity]
    assert (held["memo"], held["follow"]) == (memo, follow)
    assert bench.call().hello()[identity]["memo"] == memo
    bench.kill_keeper()
    held = bench.start_keeper().hello()[identity]
    assert (held["memo"], held["follow"]) == (memo, follow)


def test_follow_is_told_at_the_start(bench: Bench, line: Line) -> None:
    """What was to be done with the output comes back with the word that it runs."""
    for follow in (FOLLOW, {"stdout": None}):
        order = bench.order(SLEEP, memo=MEMO, follow=follow)
        line.say(**order)
        assert line.wait_for("started", id=order["id"])["follow"] == follow


@pytest.mark.parametrize("way", [{}, {"nice": 1}], ids=["posix_spawn", "fork"])
def test_when_each_of_many_started(bench: Bench, line: Line, way: dict[str, Any]) -> None:
    """The start time that was written down and told is the kernel's, for each of two hundred."""
    orders = [bench.order(SLEEP, **way) for _ in range(200)]
    for order in orders:
        line.say(**order)
    for order in orders:
        started = line.wait_for("started", id=order["id"])
        began = start_time_of(started["pid"])
        assert started["began"] == began
        (record,) = [one for one in bench.record(order["id"]) if one["step"] == "record"]
        assert (record["pid"], record["began"]) == (started["pid"], began)


# A child that lives until it is killed, or its parent is gone.
CHILD = """
import os
here, there = os.pipe()
def child():
    pid = os.fork()
    if not pid:
        os.close(there)
        os.read(here, 1)
        os._exit(0)
    return pid
"""


def in_keeper(script: str) -> str:
    """What a script prints that imports the keeper's modules as it does."""
    code = f"import sys; sys.path.insert(0, {str(KEEPER)!r})\n{CHILD}{script}"
    done = subprocess.run([*PYTHON, code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_when_the_tick_has_passed(bench: Bench) -> None:
    """A start that may have been in the next tick is looked up, as is everything where the clocks do not agree."""
    script = (
        "import os, tree\n"
        "pids = []\n"
        "for _ in range(300):\n"
        "    since = tree.ticks()\n"
        "    pid = child()\n"
        "    pids.append(pid)\n"
        "    assert tree.when_started(pid, since) == tree.start_time(pid)\n"
        "assert tree._clock_agrees is True\n"
        "for since in (None, 0, tree.ticks() - 1):\n"
        "    assert tree.when_started(pid, since) == tree.start_time(pid)\n"
        "tree._clock_agrees = False\n"
        "assert tree.when_started(pids[0], tree.ticks()) == tree.start_time(pids[0])\n"
        "for pid in pids:\n"
        "    os.kill(pid, 9)\n"
        "    os.waitpid(pid, 0)\n"
        "print(tree.when_started(pids[0], 0))\n"
    )
    assert in_keeper(script) == "None\n"


def test_a_file_that_is_asked_again(tmp_path: Path) -> None:
    """A file of the kernel's is opened once, and says at each time what it says then, also more than a page of it."""
    script = (
        "import os, kernel\n"
        "asked = kernel.Asked(f'/proc/{os.getpid()}/task/{os.getpid()}/children', 1 << 20)\n"
        "pids = []\n"
        "def found(): return [int(word) for word in asked.read().split()]\n"
        "for count in (0, 1, 2, 300, 1500):\n"
        "    while len(pids) < count:\n"
        "        pids.append(child())\n"
        "    assert found() == pids, (count, len(found()))\n"
        "number = asked._descriptor\n"
        "assert not os.get_inheritable(number)\n"
        "while pids:\n"
        "    for pid in pids[-500:]:\n"
        "        os.kill(pid, 9)\n"
        "        os.waitpid(pid, 0)\n"
        "    del pids[-500:]\n"
        "    assert found() == pids\n"
        "assert asked._descriptor == number\n"
        "try:\n"
        "    kernel.Asked('/nonexistent', 1).read()\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n"
    )
    assert in_keeper(script) == "No such file or directory\n"


def test_children_that_come_and_go_meanwhile(tmp_path: Path) -> None:
    """However long the list is, and whatever happens while it is read: nobody is in it who was never a child."""
    script = (
        "import os, time, signal, kernel\n"
        "asked = kernel.Asked(f'/proc/{os.getpid()}/task/{os.getpid()}/children', 1 << 20)\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"  # they are reaped at once
        "ever = set()\n"
        "for number in range(2500):\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        while os.getppid() > 1 and not os.path.exists(GO): time.sleep(0.05)\n"
        "        time.sleep((number % 100) / 100)\n"
        "        os._exit(0)\n"
        "    ever.add(pid)\n"
        "open(GO, 'w').close()\n"
        "while words := asked.read().split():\n"
        "    odd = {int(word) for word in words} - ever\n"
        "    assert not odd, odd\n"
        "print('gone')\n"
    )
    assert in_keeper(f"GO = {str(tmp_path / 'go')!r}\n{script}") == "gone\n"


def test_a_death_in_a_flood_of_orders(bench: Bench, line: Line) -> None:
    """Orders are carried out a few at a time: who dies because of the first is told of before the last is done."""
    count = 5000
    identity, pid = bench.start(line, SLEEP)
    os.kill(bench.pid, signal.SIGSTOP)
    line.say("signal", id=identity, signal=signal.SIGKILL, scope="process", ack="first")
    flood = b"".join(line.frame({"do": "signal", "id": "nobody", "ack": str(number)}) for number in range(count))
    sender = threading.Thread(target=line.peer.sendall, args=(flood,))
    sender.start()
    os.kill(bench.pid, signal.SIGCONT)
    heard: list[Any] = []
    while len(heard) < count + 2:
        line.listen()
        heard += line.heard
        line.heard.clear()
    sender.join()
    told = [one["is"] for one in heard]
    assert [one["ack"] for one in heard if one["is"] == "signalled"] == ["first", *map(str, range(count))]
    assert told.index("exited") < count // 2, "of the orders so many were done before"
    assert state_of(pid) == ""


def test_orders_of_any_size(bench: Bench, line: Line) -> None:
    """An order longer than what is read at once arrives whole, between small ones and in pieces."""
    large = bench.order(SLEEP, memo=["g", "d", "x" * 300_000])
    data = line.frame({"do": "signal", "id": "nobody", "ack": "1"}) + line.frame(large)
    data += line.frame({"do": "signal", "id": "nobody", "ack": "2"})
    sender = threading.Thread(target=line.peer.sendall, args=(data,))
    sender.start()
    line.wait_for("signalled", ack="2")
    sender.join()
    line.wait_for("started", id=large["id"])
    assert line.hello()[large["id"]]["memo"][2] == "x" * 300_000
    for byte in line.frame({"do": "signal", "id": "nobody", "ack": "3"}):
        line.peer.send(bytes([byte]))
    line.wait_for("signalled", ack="3")


def test_a_fifo_goes_after_the_report(bench: Bench, line: Line) -> None:
    """When all is told of an instance, its FIFOs are closed and removed, and what was in them is in the log."""
    ended = []
    for number in range(20):
        order = bench.order(["/bin/sh", "-c", f"echo {number}; exit {number}"], log={"split": number % 2 == 1})
        if number % 2:
            bench.make_fifo(order["id"] + ".err")
        line.say(**order)
        ended.append(order["id"])
    for number, identity in enumerate(ended):
        exited = line.wait_for("exited", id=identity)
        assert (exited["end"]["code"], exited["empty"]) == (number, True)
        assert bench.output(identity) == b"%d\n" % number
    wait_for(lambda: not list((bench.state / "fifo").iterdir()), "no FIFO is left")
    wait_for(lambda: not any("/fifo/" in one for one in open_files(bench.pid)), "none is open")
    for identity in ended:
        line.say("forget", id=identity)
    line.barrier()
    assert line.hello() == {}


def test_a_keeper_killed_with_the_report(bench: Bench, line: Line) -> None:
    """A FIFO that its keeper had no time to remove is removed by the next, which tells the end once more."""
    identity, _ = bench.start(line, bench.waiting_at_gate("echo last; exit 7"))
    bench.open_gate()
    assert line.wait_for("exited", id=identity)["end"]["code"] == 7
    bench.kill_keeper()
    if not bench.fifo(identity).exists():  # as if it had been killed a moment earlier
        os.mkfifo(bench.fifo(identity), 0o600)
    held = bench.start_keeper().hello()
    assert held[identity]["end"]["code"] == 7
    wait_for(lambda: not bench.fifo(identity).exists(), "it is removed")
    assert bench.output(identity) == b"last\n"


def open_files(pid: int) -> list[str]:
    """What a process has open."""
    found = []
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{entry}"))
        except FileNotFoundError:
            continue  # closed meanwhile
    return found
