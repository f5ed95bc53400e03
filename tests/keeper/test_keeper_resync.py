"""The supervisor comes and goes: what the keeper holds for the next one, and what a broken connection cannot do."""

from __future__ import annotations

import json
import os
import signal
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import KEEPER, PYTHON, SLEEP, Bench, Line, children_of, is_alive, state_of, wait_for

KILL = signal.SIGKILL


def test_exits_of_the_meantime_are_in_the_welcome(bench: Bench, line: Line) -> None:
    """An exit while no supervisor was connected is told to the next one, again and again until it is forgotten."""
    lives, pid = bench.start(line, SLEEP, number=7, memo={"generation": "abc"})
    ends, ending = bench.start(line, bench.waiting_at_gate("exit 4"), name="ends")
    line.close()
    bench.open_gate()
    wait_for(lambda: state_of(ending) == "", "it was reaped")
    for _ in range(2):
        second = bench.call()
        held = second.hello()
        assert set(held) == {lives, ends}
        assert (held[lives]["alive"], held[lives]["pid"], held[lives]["end"]) == (True, pid, None)
        assert (held[lives]["name"], held[lives]["number"], held[lives]["memo"]) == (lives, 7, {"generation": "abc"})
        assert (held[ends]["alive"], held[ends]["empty"], held[ends]["end"]["code"]) == (False, True, 4)
        assert held[ends]["name"] == "ends"
        second.close()
    third = bench.call()
    third.hello()
    third.say("forget", id=ends)
    assert set(third.hello()) == {lives}
    assert not bench.journal(ends).exists()
    assert not bench.fifo(ends).exists()
    assert bench.journal(lives).exists()


def test_an_exit_that_the_welcome_told_is_not_told_again(bench: Bench, line: Line) -> None:
    """What was in the welcome comes as no separate report."""
    ends, _ = bench.start(line, ["/bin/true"])
    line.wait_for("exited", id=ends)
    line.close()
    second = bench.call()
    assert second.hello()[ends]["alive"] is False
    second.barrier()
    assert not [message for message in second.heard if message["is"] in ("exited", "emptied")]


def test_a_tree_that_empties_after_the_welcome_is_told(bench: Bench, line: Line) -> None:
    """A leader that died in the meantime with a living child is held as not empty, and its end is told."""
    identity, leader = bench.start(line, ["/bin/sh", "-c", f"(setsid sleep 1000 &); read x < {bench.gate}"])
    wait_for(lambda: len(children_of(bench.pid)) == 2, "the child is an orphan")
    line.close()
    bench.open_gate()
    wait_for(lambda: state_of(leader) == "", "the leader was reaped")
    second = bench.call()
    held = second.hello()[identity]
    assert (held["alive"], held["empty"]) == (False, False)
    second.say("signal", id=identity, signal=KILL, scope="tree")
    second.wait_for("emptied", id=identity)


def test_what_lives_is_not_forgotten(bench: Bench, line: Line) -> None:
    """To forget an instance whose tree is not empty does nothing."""
    identity, pid = bench.start(line, SLEEP)
    line.say("forget", id=identity)
    assert line.hello()[identity]["pid"] == pid
    assert bench.journal(identity).exists()


def test_newest_connection_is_the_supervisor(bench: Bench, line: Line) -> None:
    """A new connection takes the place of the old one, which is closed."""
    second = bench.call()
    second.hello()
    assert line.hung_up()
    identity, _ = bench.start(second, ["/bin/true"])
    second.wait_for("exited", id=identity)


def test_socket_is_for_the_owner_alone(bench: Bench, line: Line) -> None:
    """Nobody else may connect."""
    found = (bench.state / "keeper.sock").stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert stat.S_IMODE((bench.state / "instances").stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_hung_up_on(bench: Bench, line: Line) -> None:
    """Even where the socket's mode would let him in, another user is not obeyed."""
    bench.start(line, SLEEP)
    for directory in (bench.root, bench.state):
        directory.chmod(0o755)
    (bench.state / "keeper.sock").chmod(0o777)
    script = (
        "import os, socket, sys\n"
        f"os.chdir({str(bench.state)!r})\n"
        "os.setresuid(54321, 54321, 54321)\n"
        "peer = socket.socket(socket.AF_UNIX)\n"
        "peer.connect('keeper.sock')\n"
        "peer.settimeout(20)\n"
        "sys.exit(0 if peer.recv(1) == b'' else 1)\n"
    )
    done = subprocess.run([*PYTHON, script], timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert line.hello()  # and we are still connected


def test_long_state_directory(tmp_path: Path) -> None:
    """The path of the state directory may be longer than a socket's path."""
    root = tmp_path / ("long" * 40)
    bench = Bench(root)
    try:
        bench.start_keeper().hello()
        assert bench.call().hello() == {}
    finally:
        bench.close()


def test_leaves_only_when_empty(bench: Bench, line: Line) -> None:
    """A keeper that holds something stays; an empty one ends itself."""
    identity, pid = bench.start(line, SLEEP)
    line.say("leave")
    line.barrier()
    assert is_alive(pid)
    line.say("signal", id=identity, signal=KILL, scope="tree")
    line.wait_for("exited", id=identity)
    line.say("leave")  # not forgotten yet
    line.say("forget", id=identity)
    line.barrier()
    line.say("leave")
    line.wait_for("leaving")
    assert line.hung_up()
    wait_for(lambda: state_of(bench.pid) == "", "the keeper has ended")


def test_polite_signals_do_not_end_the_keeper(bench: Bench, line: Line) -> None:
    """TERM, INT, HUP, QUIT, USR1 and USR2 leave the keeper as it is."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(bench.pid, number)
    line.barrier()
    assert os.getsid(bench.pid) == bench.pid


def test_second_keeper_refuses(bench: Bench, line: Line) -> None:
    """A second keeper of the same state directory ends with the reason, and disturbs the first in nothing."""
    identity, pid = bench.start(line, SLEEP)
    command = [*PYTHON[:3], str(KEEPER), str(bench.state), str(bench.logs), "1000000", "code"]
    done = subprocess.run(command, timeout=30, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"cannot start: another keeper holds {bench.state}\n"
    assert line.hello()[identity]["pid"] == pid
    assert bench.call().hello()[identity]["pid"] == pid


def test_lock_does_not_leak_into_instances(bench: Bench, line: Line) -> None:
    """A keeper can start while instances of a dead one live: they hold nothing of its lock."""
    identity, _ = bench.start(line, SLEEP)
    bench.kill_keeper()
    assert identity in bench.start_keeper().hello()


def _deep() -> bytes:
    body = b"[" * 200_000
    return struct.pack("!I", len(body)) + body


def _odd_orders() -> Iterator[object]:
    yield 5
    yield []
    yield None
    yield {}
    yield {"do": None}
    yield {"do": "nothing"}
    yield {"do": "__init__"}
    yield {"do": "signal", "id": "x"}
    yield {"do": "signal", "id": [], "signal": "KILL", "scope": "tree"}
    yield {"do": "start"}
    yield {"do": "start", "id": "../../evil", "name": "../../evil"}
    yield {"do": "read", "name": "x", "to": "y"}
    yield {"do": "log", "name": "x"}
    yield {"do": "forget"}


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("!I", (64 << 20) + 1),
        b"\xff" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        Line.frame(1)[:4] + b"{",
        struct.pack("!I", 2) + b"\xff\xfe",
        _deep(),
    ],
    ids=["oversized", "noise", "http", "no_json", "no_utf8", "deep"],
)
def test_garbage_ends_the_connection_only(bench: Bench, line: Line, data: bytes) -> None:
    """Who does not speak the protocol is hung up on; instances and the next supervisor notice nothing."""
    bench.complaints_expected = True
    identity, pid = bench.start(line, SLEEP)
    line.peer.sendall(data)
    assert line.hung_up()
    assert is_alive(pid)
    second = bench.call()
    assert second.hello()[identity]["alive"] is True
    second.say("signal", id=identity, signal=KILL, scope="tree")
    assert second.wait_for("exited", id=identity)["end"]["signal"] == KILL


def test_odd_orders_harm_nothing(bench: Bench, line: Line) -> None:
    """Orders that make no sense change nothing, and the next order is obeyed."""
    bench.complaints_expected = True
    identity, pid = bench.start(line, SLEEP)
    for order in _odd_orders():
        line.peer.sendall(Line.frame(order))
    line.barrier()
    assert line.hello()[identity]["pid"] == pid
    assert is_alive(pid)
    assert not list(bench.root.rglob("evil"))


def test_torn_frames(bench: Bench, line: Line) -> None:
    """Orders are understood in whatever pieces they come, several in one piece too."""
    orders = [bench.order(SLEEP) for _ in range(3)]
    data = b"".join(Line.frame(order) for order in orders)
    for at in range(200):
        line.peer.sendall(data[at : at + 1])
    line.peer.sendall(data[200:])
    for order in orders:
        line.wait_for("started", id=order["id"])


def test_half_an_order_is_not_obeyed(bench: Bench, line: Line) -> None:
    """A supervisor that dies in the middle of an order has not given it."""
    order = bench.order(SLEEP)
    line.peer.sendall(Line.frame(order)[:-1])
    line.close()
    second = bench.call()
    assert second.hello() == {}
    bench.fifo(order["id"]).unlink()
    os.close(bench.fifos.pop(order["id"]))
    second.say(**bench.order(SLEEP, order["id"]))  # the new connection begins with a clean slate
    second.wait_for("started", id=order["id"])


def test_orders_sent_before_hanging_up_are_obeyed_or_not_but_never_half(bench: Bench, line: Line) -> None:
    """Of a hundred starts before the end of a connection, whatever was started is held, and nothing else runs."""
    orders = [bench.order(SLEEP) for _ in range(100)]
    line.peer.sendall(b"".join(Line.frame(order) for order in orders))
    line.close()
    held = bench.call().hello()
    assert {instance["pid"] for instance in held.values()} == set(children_of(bench.pid))
    assert {path.name for path in (bench.state / "instances").iterdir()} == set(held)


def test_supervisor_that_does_not_read(bench: Bench, line: Line) -> None:
    """Reports wait in the keeper for a supervisor that is busy, and all of them arrive."""
    big = "x" * 4000
    orders = [bench.order(["/bin/true"], memo=big) for _ in range(120)]
    for order in orders:
        line.say(**order)
        line.say("hello")  # each answered with a welcome that lists everything: megabytes in all
    for order in orders:
        line.wait_for("started", id=order["id"])
    seen = {message["id"] for message in line.heard if message["is"] == "exited"}
    seen |= {i["id"] for m in line.heard if m["is"] == "welcome" for i in m["held"] if not i["alive"]}
    for order in orders:
        if order["id"] not in seen and order["id"] not in {i for i, e in line.hello().items() if not e["alive"]}:
            line.wait_for("exited", id=order["id"])


def test_journal_tells_the_steps(bench: Bench, line: Line) -> None:
    """Intent, record and exit of an instance are on disk until it is forgotten."""
    identity, pid = bench.start(line, ["/bin/sh", "-c", "exit 9"], memo="m")
    line.wait_for("exited", id=identity)
    intent, record, end = bench.record(identity)
    assert (intent["step"], intent["name"], intent["memo"]) == ("intent", identity, "m")
    assert (record["step"], record["pid"]) == ("record", pid)
    assert (end["step"], end["code"]) == ("exit", 9)
    assert json.loads(json.dumps(intent))["boot"] == record["boot"]
