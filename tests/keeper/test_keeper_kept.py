"""What the keeper keeps for instances: where they say how they are and that they are ready, and their sockets."""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import PATIENCE_S, PYTHON, SLEEP, Bench, Line, Message, is_alive, wait_for

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
SOMEBODY = 54321
# The beginning of what an instance runs: `say` is what sd_notify does.
SAYING = """
import os, socket, sys, time
def say(text, *more):
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.connect("\\0" + address[1:] if address[0] == "@" else address)
        out.sendmsg([text.encode("utf-8", "surrogateescape")], *more)
"""
ECHO = """
import os, socket, sys, time
door = socket.socket(fileno=3)
while True:
    caller, _ = door.accept()
    with caller:
        caller.sendall(f"{os.getpid()} {os.environ['LISTEN_PID']} {os.environ.get('LISTEN_FDS')}".encode())
"""


@pytest.fixture
def line(bench: Bench) -> Line:
    """A supervisor that takes what the keeper keeps."""
    started = bench.start_keeper()
    assert started.hello(keeps=True) == {}
    return started


def address_of(bench: Bench, identity: str) -> str:
    """Where an instance says how it is, by the documented rule."""
    path = f"{bench.state}/notify/{identity}"
    return path if len(path) <= 107 else f"@ncolony/{identity}"


def start(bench: Bench, line: Line, script: str, **fields: object) -> str:
    """Start a Python script that can say how it is; its identity."""
    identity = bench.new_identity()
    env = {"NCOLONY_INSTANCE": identity, "NOTIFY_SOCKET": address_of(bench, identity)}
    order = {**bench.order([*PYTHON, SAYING + script], identity), "env": env, "notify": True, **fields}
    line.say(**order)
    line.wait_for("started", id=identity)
    return identity


def send(address: str, *datagrams: bytes) -> None:
    """Say something to that address, as root or the supervisor's user may."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.connect("\0" + address[1:] if address[0] == "@" else address)
        for datagram in datagrams:
            out.send(datagram)


def said(line: Line, identity: str, key: str, value: str) -> Message:
    """Wait until the keeper tells that the instance has said this; all that it has said until then."""
    found: Message = {}
    while True:
        found |= line.wait_for("notify", id=identity)["said"]
        if found.get(key) == value:
            return found


def kept(line: Line) -> str:
    """The key of the next descriptor that the keeper shares."""
    key: str = line.wait_for("kept")["key"]
    return key


def door(bench: Bench, name: str = "http", address: str = "tcp:127.0.0.1:0", **more: object) -> Message:
    """One entry of `sockets` in an order."""
    kind, _, rest = address.partition(":")
    host, _, port = rest.rpartition(":")
    place: Message = {"family": "unix", "path": rest}
    if kind != "unix":
        place = {"family": "inet", "host": host, "port": int(port), "more": [], "only": 1, "path": ""}
    return {
        "key": f"listen/web/{name}",
        "address": address,
        "kind": kind,
        "backlog": 100,
        "mode": 0o666,
        **place,
        **more,
    }


def listening(bench: Bench, *doors: Message, **fields: object) -> Message:
    """The order to start an instance that listens."""
    identity = bench.new_identity()
    env = {"NCOLONY_INSTANCE": identity, "LISTEN_FDS": str(len(doors))}
    return bench.order([*PYTHON, ECHO], identity, env=env, sockets=list(doors), **fields)


def begin(line: Line, order: Message) -> int:
    """Carry out an order to start; the pid."""
    line.say(**order)
    pid: int = line.wait_for("started", id=order["id"])["pid"]
    return pid


def end(line: Line, identity: str) -> None:
    """End an instance for good."""
    line.say("signal", id=identity, signal=9, scope="tree")
    line.wait_for("exited", id=identity)
    line.say("forget", id=identity)


def port_of(line: Line, at: int = -1) -> int:
    """The port of a socket that was shared."""
    with socket.socket(fileno=os.dup(line.descriptors[at])) as found:
        port: int = found.getsockname()[1]
        return port


def is_open(port: int) -> bool:
    """Whether somebody listens, though he may not accept."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def call(port: int) -> list[str]:
    """Connect and be answered: pid, LISTEN_PID, LISTEN_FDS."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as caller:
        return caller.recv(100).decode().split()


# what instances say


def test_what_is_said_is_told(bench: Bench, line: Line) -> None:
    """What an instance says reaches the supervisor, key by key; what nobody knows does not."""
    script = 'say("STATUS=warming up: 50%\\nX_MINE=1\\nnonsense\\nREADY=1\\nMAINPID=7\\n"); time.sleep(1000)'
    identity = start(bench, line, script)
    assert line.wait_for("notify", id=identity)["said"] == {
        "STATUS": "warming up: 50%",
        "READY": "1",
        "MAINPID": "7",
    }


def test_a_long_state_directory_needs_another_address(tmp_path: Path) -> None:
    """Where a path would be too long for a socket the name is abstract, and everything is as usual."""
    bench = Bench(tmp_path / ("long" * 25))
    try:
        line = bench.start_keeper()
        line.hello(keeps=True)
        identity = start(bench, line, 'say("READY=1"); time.sleep(1000)')
        assert address_of(bench, identity).startswith("@")
        said(line, identity, "READY", "1")
        assert list((bench.state / "notify").iterdir()) == []
        bench.kill_keeper()
        line.close()
        line = bench.start_keeper()
        assert line.hello(keeps=True)[identity]["said"] == {"READY": "1"}
        send(address_of(bench, identity), b"STATUS=again")
        said(line, identity, "STATUS", "again")
    finally:
        bench.close()


def test_garbage_and_length(bench: Bench, line: Line) -> None:
    """4 KiB of a datagram are read, whole lines of it; bytes that are no text are replaced."""
    identity = start(bench, line, "time.sleep(1000)")
    address = address_of(bench, identity)
    send(address, b"", b"\n\n=\n==\0", b"\xff" * 100, b"STATUS", b"STATUS=caf\xe9 \xe2\x82\xac=1")
    assert said(line, identity, "STATUS", "caf\ufffd \u20ac=1") == {"STATUS": "caf\ufffd \u20ac=1"}
    send(address, b"STATUS=first\nERRNO=" + b"2" * 8192, b"STATUS=last")
    assert said(line, identity, "STATUS", "last") == {"STATUS": "last"}


def test_ready_ends_a_reload(bench: Bench, line: Line) -> None:
    """READY after RELOADING says that the reload is over, RELOADING after READY that one is under way."""
    identity = start(bench, line, "time.sleep(1000)")
    os.kill(bench.pid, signal.SIGSTOP)  # so that all of it is heard in one turn
    try:
        send(address_of(bench, identity), b"READY=1", b"RELOADING=1", b"STATUS=reads")
    finally:
        os.kill(bench.pid, signal.SIGCONT)
    assert said(line, identity, "STATUS", "reads") == {"READY": "1", "RELOADING": "1", "STATUS": "reads"}
    os.kill(bench.pid, signal.SIGSTOP)
    try:
        send(
            address_of(bench, identity), b"RELOADING=1", b"READY=1", b"WATCHDOG=trigger", b"WATCHDOG=1", b"STATUS=done"
        )
    finally:
        os.kill(bench.pid, signal.SIGCONT)
    assert said(line, identity, "STATUS", "done") == {"READY": "1", "WATCHDOG": "trigger", "STATUS": "done"}


def test_said_to_nobody_is_told_to_the_next(bench: Bench, line: Line) -> None:
    """What is said while there is no supervisor is in what the next one is told at its welcome."""
    identity = start(bench, line, "time.sleep(1000)")
    line.close()
    send(address_of(bench, identity), b"READY=1\nSTATUS=up")
    held = bench.call()
    wait_for(lambda: "READY" in held.hello()[identity]["said"], "it is told")
    assert held.hello()[identity]["said"] == {"READY": "1", "STATUS": "up"}


def test_ready_outlives_everybody(bench: Bench, line: Line) -> None:
    """With keeper and supervisor killed, it is still known that it was ready, and the same address is heard."""
    identity = start(bench, line, 'say("READY=1\\nSTATUS=up"); time.sleep(1000)')
    said(line, identity, "READY", "1")
    assert [step for step in bench.record(identity) if step["step"] == "said"] == [{"step": "said", "READY": "1"}]
    bench.kill_keeper()
    line.close()
    line = bench.start_keeper()
    assert line.hello()[identity]["said"] == {"READY": "1"}
    send(address_of(bench, identity), b"READY=1\nSTATUS=still there")
    said(line, identity, "STATUS", "still there")
    assert sum(step["step"] == "said" for step in bench.record(identity)) == 1


@pytest.fixture
def open_bench() -> Iterator[Bench]:
    """A bench in a directory that every user may enter."""
    root = Path(tempfile.mkdtemp(prefix="keeper-"))
    try:
        root.chmod(0o755)
        found = Bench(root)
        yield found
        found.close()
    finally:
        shutil.rmtree(root)


def send_as(uid: int, address: str, datagram: bytes) -> str:
    """Say something as another user; why that cannot be done, or ""."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            send(address, datagram)
        except BaseException as error:  # noqa: BLE001
            os.write(theirs, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(theirs)
    os.waitpid(pid, 0)
    with open(ours, "rb") as told:
        return told.read().decode()


@as_root
def test_only_its_user_may_speak_for_an_instance(open_bench: Bench) -> None:
    """The socket is the instance's user's, and nobody else's: others cannot send to it."""
    line = open_bench.start_keeper()
    line.hello()
    order = open_bench.order(SLEEP, notify=True, uid=SOMEBODY, gid=SOMEBODY, groups=[])
    begin(line, order)
    address = address_of(open_bench, order["id"])
    assert address.startswith("/")
    assert (stat.S_IMODE(os.stat(address).st_mode), os.stat(address).st_uid) == (0o600, SOMEBODY)
    assert send_as(SOMEBODY + 1, address, b"STATUS=a lie") == "PermissionError"
    assert send_as(SOMEBODY, address, b"STATUS=mine") == ""
    assert said(line, order["id"], "STATUS", "mine") == {"STATUS": "mine"}


@as_root
def test_who_sends_is_asked_for(tmp_path: Path) -> None:
    """To an abstract address everybody can send; what another user sends there is not heeded."""
    bench = Bench(tmp_path / ("long" * 25))
    try:
        line = bench.start_keeper()
        line.hello()
        order = bench.order(SLEEP, notify=True, uid=SOMEBODY, gid=SOMEBODY, groups=[])
        begin(line, order)
        address = address_of(bench, order["id"])
        assert address.startswith("@")
        assert send_as(SOMEBODY + 1, address, b"READY=1\nSTATUS=a lie") == ""
        assert send_as(SOMEBODY, address, b"STATUS=mine") == ""
        assert said(line, order["id"], "STATUS", "mine") == {"STATUS": "mine"}
        send(address, b"STATUS=of the supervisor's user")
        assert said(line, order["id"], "STATUS", "of the supervisor's user") == {"STATUS": "of the supervisor's user"}
    finally:
        bench.close()


def test_a_flood_harms_nobody(bench: Bench, line: Line) -> None:
    """An instance that says something without end is heard now and then, and others as usual; reports are few."""
    script = "number = 0\nwhile True:\n    number += 1\n    say(f'STATUS={number}')"
    flood = start(bench, line, script)
    other = start(bench, line, "time.sleep(1000)")
    began, before, so_far = time.monotonic(), _cpu(bench.pid), len(line.heard)
    rounds = 0
    while time.monotonic() < began + 1.0:
        rounds += 1
        send(address_of(bench, other), b"STATUS=%d" % rounds)
        said(line, other, "STATUS", str(rounds))
    seconds, used = time.monotonic() - began, _cpu(bench.pid) - before
    told = [int(message["said"]["STATUS"]) for message in line.heard[so_far:] if message.get("id") == flood]
    assert told == sorted(told) and len(told) > 1
    assert len(told) <= 400 * seconds, "a report now and then"
    assert told[-1] / len(told) > 4, "several datagrams make one report"
    assert used < 0.5 * seconds + 0.0005 * rounds, f"the keeper used {used:.2f} s of {seconds:.2f} s"


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_descriptors_that_come_along_are_closed(bench: Bench, line: Line) -> None:
    """BARRIER=1 is answered once what came before it was noted; whatever descriptors come along are not held."""
    identity = start(bench, line, "time.sleep(1000)")
    before = os.listdir(f"/proc/{bench.pid}/fd")
    ours, theirs = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.connect(address_of(bench, identity))
        out.send(b"READY=1")
        out.sendmsg([b"BARRIER=1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs]))])
        out.sendmsg([b"FDSTORE=1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs] * 200))])
    os.close(theirs)
    poll = select.poll()
    poll.register(ours, select.POLLIN)
    assert poll.poll(PATIENCE_S * 1000) == [(ours, select.POLLHUP)]
    os.close(ours)
    assert any(step["step"] == "said" for step in bench.record(identity))
    line.barrier()
    assert os.listdir(f"/proc/{bench.pid}/fd") == before


@pytest.mark.skipif(shutil.which("systemd-notify") is None, reason="there is no systemd-notify")
def test_the_real_systemd_notify(bench: Bench, line: Line) -> None:
    """systemd's own program is heard, and its wait for the barrier ends."""
    script = "systemd-notify --ready --status='all is well' && echo done > $RESULT; sleep 1000"
    identity = bench.new_identity()
    env = {
        "NCOLONY_INSTANCE": identity, "NOTIFY_SOCKET": address_of(bench, identity), "PATH": os.environ["PATH"],
        "RESULT": str(bench.root / "result"),
    }  # fmt: skip
    line.say(**{**bench.order(["/bin/sh", "-c", script], identity), "env": env, "notify": True})
    found = said(line, identity, "READY", "1")
    assert found["STATUS"] == "all is well"
    assert bench.wait_for_text(bench.root / "result") is not None


def test_the_address_goes_with_the_instance(bench: Bench, line: Line) -> None:
    """What an instance says last is heard; then its socket is gone, here and in the file system."""
    identity = start(bench, line, 'say("STOPPING=1\\nSTATUS=bye")')
    said(line, identity, "STATUS", "bye")
    line.wait_for("exited", id=identity)
    line.barrier()
    assert not (bench.state / "notify" / identity).exists()
    assert not [target for target in _targets(bench.pid) if "notify" in target]


def test_a_place_that_cannot_be_made_is_a_reason(bench: Bench, line: Line) -> None:
    """An instance that could not say that it is ready is not started, and it is said why."""
    (bench.state / "notify").rmdir()
    order = bench.order(SLEEP, notify=True)
    line.say(**order)
    why = line.wait_for("refused", id=order["id"])["why"]
    assert why == "cannot make what it says that it is ready with: No such file or directory"


# a newline on a descriptor


@pytest.mark.parametrize("number", [3, 9, 255])
@pytest.mark.parametrize("way", [{}, {"nice": 0}], ids=["posix_spawn", "fork"])
def test_a_newline_says_ready(bench: Bench, line: Line, number: int, way: Message) -> None:
    """A newline on the descriptor that was agreed on is READY=1; what comes before it is not."""
    identity, gate = bench.new_identity(), bench.root / "gate"
    os.mkfifo(bench.state / "fifo" / f"{identity}.ready")
    script = f"import os, time; os.write({number}, b'not yet'); open({str(gate)!r}).read(); os.write({number}, b'\\n')"
    more = f"; os.write({number}, b'more'); os.close({number}); print('lives', flush=True); time.sleep(1000)"
    begin(line, {**bench.order([*PYTHON, script + more], identity), "ready": number, **way})
    line.barrier()
    assert not [message for message in line.heard if message["is"] == "notify"]
    bench.open_gate()
    assert line.wait_for("notify", id=identity)["said"] == {"READY": "1"}
    wait_for(lambda: bench.output(identity) == b"lives\n", "it outlives what it writes after that")
    assert not (bench.state / "fifo" / f"{identity}.ready").exists()
    assert bench.call().hello()[identity]["said"] == {"READY": "1"}


def test_ready_without_a_keeper(bench: Bench, line: Line) -> None:
    """A newline that is written while no keeper lives is heard by the next; nobody gets a SIGPIPE."""
    identity, gate = bench.new_identity(), bench.root / "gate"
    path = bench.state / "fifo" / f"{identity}.ready"
    os.mkfifo(path)
    ours = os.open(path, os.O_RDWR)  # as the supervisor holds it
    script = f"import os, time; open({str(gate)!r}).read(); os.write(7, b'\\n'); os.close(7); time.sleep(1000)"
    pid = begin(line, {**bench.order([*PYTHON, script], identity), "ready": 7})
    bench.kill_keeper()
    bench.open_gate()
    wait_for(lambda: 7 not in map(int, os.listdir(f"/proc/{pid}/fd")), "it has written")
    line = bench.start_keeper()
    wait_for(lambda: line.hello()[identity]["said"] == {"READY": "1"}, "it is heard")
    assert is_alive(pid)
    os.close(ours)


# sockets


def test_sockets_are_passed(bench: Bench, line: Line) -> None:
    """Sockets are the instance's descriptors from 3 on, in their order, beside its pipe for "ready"."""
    doors = [door(bench, "a"), door(bench, "b", "udp:127.0.0.1:0"), door(bench, "c", f"unix:{bench.root}/c.sock")]
    order = listening(bench, *doors, ready=20)
    os.mkfifo(bench.state / "fifo" / f"{order['id']}.ready")
    pid = begin(line, order)
    assert [kept(line) for _ in doors] == [one["key"] for one in doors]
    assert call(port_of(line, 0)) == [str(pid), str(pid), "3"]
    assert sorted(map(int, os.listdir(f"/proc/{pid}/fd")))[:6] == [0, 1, 2, 3, 4, 5]
    for number, ours in zip((3, 4, 5), line.descriptors, strict=True):
        assert os.readlink(f"/proc/{pid}/fd/{number}") == os.readlink(f"/proc/self/fd/{ours}")
    assert "ready" in os.readlink(f"/proc/{pid}/fd/20")
    other = begin(line, bench.order(SLEEP))
    # The kernel lets us go on before it has closed what is not for the new program.
    wait_for(lambda: sorted(os.listdir(f"/proc/{other}/fd")) == ["0", "1", "2"], "it has nothing of ours")


def test_many_sockets_whatever_their_numbers(bench: Bench, line: Line) -> None:
    """Sixty sockets, whose numbers here lie where others have to go there, come where they belong."""
    doors = [door(bench, f"s{number}") for number in range(60)]
    first = begin(line, listening(bench, *doors))
    second = begin(line, listening(bench, *reversed(doors)))
    for pid, keys in ((first, doors), (second, doors[::-1])):
        inodes = [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3, 63)]
        assert len(set(inodes)) == len(keys)
        assert len(os.listdir(f"/proc/{pid}/fd")) in (63, 64)  # one more while it answers
    there = [os.readlink(f"/proc/{first}/fd/{number}") for number in range(3, 63)]
    assert there == [os.readlink(f"/proc/{second}/fd/{number}") for number in range(62, 2, -1)]


def test_a_socket_outlives_its_instances(bench: Bench, line: Line) -> None:
    """Who calls between two instances waits for the next; all instances have the same socket, until it is closed."""
    order = listening(bench, door(bench))
    begin(line, order)
    kept(line)
    port = port_of(line)
    end(line, order["id"])
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as caller:
        pids = {begin(line, listening(bench, door(bench))) for _ in range(2)}
        assert int(caller.recv(100).split()[0]) in pids
    assert int(call(port)[0]) in pids
    for message in line.hello(keeps=True).values():
        if message["alive"]:
            assert message["given"] == [["listen/web/http", 3, str(("127.0.0.1", port))]]
            end(line, message["id"])
    line.close()
    line = bench.call()
    line.hello()
    assert is_open(port)
    line.say("close", keys=["listen/web/http", "listen/none", "notify/x"])
    line.barrier()
    assert not is_open(port)


def test_closed_and_opened_in_one_breath(bench: Bench, line: Line) -> None:
    """An address that is closed can be opened again by the next order."""
    order = listening(bench, door(bench))
    begin(line, order)
    kept(line)
    port = port_of(line)
    line.descriptors and os.close(line.descriptors.pop())
    line.say("signal", id=order["id"], signal=9, scope="tree")
    line.wait_for("exited", id=order["id"])
    again = listening(bench, {**door(bench, "other"), "port": port})
    line.peer.sendall(Line.frame({"do": "close", "keys": ["listen/web/http"]}) + Line.frame(again))
    pid = line.wait_for("started", id=again["id"])["pid"]
    assert call(port)[0] == str(pid)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("tcp:127.0.0.1:{port}", "Address already in use"),
        ("tcp:192.0.2.1:80", "Cannot assign requested address"),
        ("unix:{root}/none/s", "No such file or directory"),
        ("unix:{root}/live.sock", "Address already in use"),
        ("unix:{root}/file", "Address already in use"),
    ],
)
def test_why_it_cannot_listen(bench: Bench, line: Line, address: str, reason: str) -> None:
    """An address that cannot be had is why the start is refused; nothing of others is touched."""
    (bench.root / "file").write_text("content")
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket(socket.AF_UNIX) as live:
        live.bind(f"{bench.root}/live.sock")
        live.listen()
        address = address.format(port=taken.getsockname()[1], root=bench.root)
        order = listening(bench, door(bench, address=address))
        line.say(**order)
        assert line.wait_for("refused", id=order["id"])["why"] == f"cannot listen on {address}: {reason}"
        assert (bench.root / "file").read_text() == "content"
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(f"{bench.root}/live.sock")
    begin(line, bench.order(SLEEP))


def test_unix_sockets(bench: Bench, line: Line) -> None:
    """The file of a unix socket gets its mode, takes the place of one that nobody listens on, and goes in the end."""
    path = bench.root / "web.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    begun = listening(bench, door(bench, address=f"unix:{path}", mode=0o640))
    pid = begin(line, begun)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        assert caller.recv(100).split()[0] == str(pid).encode()
    kept(line)
    # Another mode, another backlog: the same socket.
    again = begin(line, listening(bench, door(bench, address=f"unix:{path}", mode=0o600, backlog=7)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.readlink(f"/proc/{again}/fd/3") == os.readlink(f"/proc/{pid}/fd/3")
    # Somebody has removed it: nobody would find it, so there is another.
    path.unlink()
    third = begin(line, listening(bench, door(bench, address=f"unix:{path}")))
    assert os.readlink(f"/proc/{third}/fd/3") != os.readlink(f"/proc/{pid}/fd/3")
    assert path.exists()
    for identity in line.hello():
        end(line, identity)
    while line.descriptors:
        os.close(line.descriptors.pop())
    line.say("close", keys=["listen/web/http"])
    line.barrier()
    assert not path.exists()


@as_root
def test_a_unix_socket_belongs_to_the_user(bench: Bench, line: Line) -> None:
    """The file of a unix socket belongs to whom the instance is."""
    path = bench.root / "web.sock"
    order = listening(bench, door(bench, address=f"unix:{path}", mode=0o600))
    line.say(**{**order, "uid": SOMEBODY, "gid": SOMEBODY + 1, "groups": []})
    wait_for(path.exists, "it is bound")
    assert (path.stat().st_uid, path.stat().st_gid) == (SOMEBODY, SOMEBODY + 1) or line.wait_for("started")
    assert (path.stat().st_uid, path.stat().st_gid) == (SOMEBODY, SOMEBODY + 1)


def test_both_families(bench: Bench, line: Line) -> None:
    """Without a host, callers of both families reach one socket."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("there is one family alone")
    both = {**door(bench), "family": "inet6", "host": "::", "only": 0, "more": [0, 0]}
    pid = begin(line, listening(bench, both))
    kept(line)
    port = port_of(line)
    assert call(port)[0] == str(pid)
    with socket.create_connection(("::1", port), PATIENCE_S) as caller:
        assert caller.recv(100).split()[0] == str(pid).encode()


def test_keepers_end_closes_everything(bench: Bench, line: Line) -> None:
    """A keeper that leaves takes the files of unix sockets along."""
    path = bench.root / "web.sock"
    order = listening(bench, door(bench, address=f"unix:{path}"))
    begin(line, order)
    kept(line)
    os.close(line.descriptors.pop())
    end(line, order["id"])
    line.say("leave")
    line.wait_for("leaving")
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take a descriptor from any process")
def test_with_everybody_killed_a_socket_is_taken_from_its_instance(bench: Bench, line: Line) -> None:
    """Where keeper and supervisor were killed, the next keeper takes a running instance's socket, if it is the one."""
    order = listening(bench, door(bench))
    pid = begin(line, order)
    kept(line)
    port = port_of(line)
    bench.kill_keeper()
    line.close()
    line = bench.start_keeper()
    line.hello(keeps=True)
    assert kept(line) == "listen/web/http"
    assert port_of(line) == port
    end(line, order["id"])
    assert not is_alive(pid)
    assert call_soon(bench, line, port)


def call_soon(bench: Bench, line: Line, port: int) -> bool:
    """Whether a caller gets an answer by an instance that is started after the call."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as caller:
        pid = begin(line, listening(bench, door(bench)))
        return caller.recv(100).split()[0] == str(pid).encode()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take a descriptor from any process")
def test_what_the_instance_made_of_the_number_is_not_taken(bench: Bench, line: Line) -> None:
    """A descriptor that is something else by now is left to the instance."""
    script = "import os, socket, time; s = socket.create_server(('127.0.0.1', 0)); os.dup2(s.fileno(), 3)"
    order = listening(bench, door(bench))
    order["argv"] = [*PYTHON, script + "; print('made', flush=True); time.sleep(1000)"]
    order["path"] = order["argv"][0]
    begin(line, order)
    wait_for(lambda: bench.output(order["id"]) == b"made\n", "it has made something else")
    bench.kill_keeper()
    line.close()
    line = bench.start_keeper()
    line.hello(keeps=True)
    line.barrier()
    assert not [message for message in line.heard if message["is"] == "kept"]


# kept for the next


def test_another_supervisor_gets_all_of_it(bench: Bench, line: Line) -> None:
    """Each supervisor that asks for it gets a duplicate of everything; one that does not ask gets nothing."""
    order = listening(bench, door(bench), notify=True)
    begin(line, order)
    expected = {"listen/web/http", f"notify/{order['id']}"}
    assert {kept(line), kept(line)} == expected
    older = bench.call()
    older.hello()
    older.barrier()
    assert not older.descriptors
    another = bench.call()
    another.hello(keeps=True)
    assert {kept(another), kept(another)} == expected
    assert len(another.descriptors) == 2


def test_an_upgrade_in_place_passes_everything_on(bench: Bench, line: Line) -> None:
    """A keeper that executes another in its place leaves it all: sockets, what was said, who has not said it yet."""
    order = listening(bench, door(bench), notify=True)
    begin(line, order)
    assert {kept(line), kept(line)} == {"listen/web/http", f"notify/{order['id']}"}
    port = port_of(line, 0) if not _is_unix(line.descriptors[0]) else port_of(line, 1)
    send(address_of(bench, order["id"]), b"STATUS=before")
    said(line, order["id"], "STATUS", "before")
    waiting = bench.new_identity()
    os.mkfifo(bench.state / "fifo" / f"{waiting}.ready")
    begin(line, {**bench.order(bench.waiting_at_gate("echo >&9; sleep 1000"), waiting), "ready": 9})
    keeper = Path(sys.modules["ncolony"].__file__ or "").parent / "keeper"
    line.say("upgrade", command=[sys.executable, "-I", "-S", "-X", "utf8", str(keeper)], code="other")
    line.wait_for("upgrading")
    line.close()
    line = bench.call()
    held = line.hello(keeps=True)
    assert held[order["id"]]["said"] == {"STATUS": "before"}
    assert {kept(line), kept(line)} == {"listen/web/http", f"notify/{order['id']}"}
    assert call(port)
    send(address_of(bench, order["id"]), b"STATUS=after")
    said(line, order["id"], "STATUS", "after")
    bench.open_gate()
    said(line, waiting, "READY", "1")


def test_a_supervisor_that_does_not_read_delays_nobody(bench: Bench, line: Line) -> None:
    """Hundreds of descriptors for a supervisor that is busy wait for it; all of them arrive."""
    orders = [bench.order(SLEEP, notify=True) for _ in range(300)]
    done = threading.Event()

    def feed() -> None:
        for order in orders:
            line.say(**order)
        done.set()

    threading.Thread(target=feed, daemon=True).start()
    assert done.wait(PATIENCE_S)
    assert {kept(line) for _ in orders} == {f"notify/{order['id']}" for order in orders}
    assert len(line.descriptors) == 300


def _is_unix(descriptor: int) -> bool:
    with socket.socket(fileno=os.dup(descriptor)) as found:
        return found.family == socket.AF_UNIX


def _targets(pid: int) -> Iterator[str]:
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/{pid}/fd/{number}")


def test_the_journal_may_hold_anything(bench: Bench, line: Line) -> None:
    """What makes no sense in a journal about what was given harms neither the keeper nor the instance."""
    identity, pid = bench.start(line, SLEEP)
    bench.kill_keeper()
    steps = bench.record(identity)
    steps[0] |= {"notify": {"x": 1}, "uid": "root", "ready": -1, "given": [1, [], ["k", 3], ["k", "3", 4], {}]}
    bench.rewrite(identity, [*steps, json.loads('{"step": "said", "READY": [1]}')])
    line = bench.start_keeper()
    held = line.hello(keeps=True)[identity]
    assert (held["pid"], held["said"], held["given"]) == (pid, {}, [])
