"""Starts and exits: what an instance is given, how its end is told, why it cannot be started."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from bench import PYTHON, SLEEP, Bench, Line, Message, children_of, is_alive, state_of, wait_for

from colony import descriptors

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
# A user number without an entry in passwd, and one group beside its own.
SOMEBODY: Message = {"uid": 54321, "gid": 54322, "groups": [54323]}
OURSELVES: Message = {"uid": os.geteuid(), "gid": os.getegid(), "groups": None}
# The two ways to start an instance: the fast one, and the one that can become another user.
WAYS = pytest.mark.parametrize("way", [{}, OURSELVES], ids=["posix_spawn", "fork"])

# glibc's posix_spawn leaves the two signals that it uses itself ignored; it takes them back when it needs them.
OF_THE_C_LIBRARY = 1 << 31 | 1 << 32


def fields_of(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


@WAYS
@pytest.mark.parametrize("code", [0, 3, 255])
def test_exit_code(bench: Bench, line: Line, way: Message, code: int) -> None:
    """An exit is told with its code, and with how long the instance lived."""
    identity, _ = bench.start(line, ["/bin/sh", "-c", f"exit {code}"], **way)
    exited = line.wait_for("exited", id=identity)
    assert exited["end"]["code"] == code
    assert "signal" not in exited["end"]
    assert 0 <= exited["end"]["lived"] < 60
    assert exited["empty"] is True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1])
def test_exit_by_signal(bench: Bench, line: Line, number: int) -> None:
    """A death by signal is told with the signal."""
    identity, _ = bench.start(line, SLEEP)
    line.say("signal", id=identity, signal=number, scope="process")
    end = line.wait_for("exited", id=identity)["end"]
    assert end["signal"] == number
    assert end["core"] is False
    assert "code" not in end


def test_core_dump_is_told(bench: Bench, line: Line) -> None:
    """Where the limits allow a core, a crash is told with it."""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("core dumps are not allowed here")
    if not Path("/proc/sys/kernel/core_pattern").read_text().strip().startswith(("core", "/")):
        pytest.skip("cores go through a pipe here")
    script = f"cd {bench.root}; ulimit -c unlimited; kill -SEGV $$"
    identity, _ = bench.start(line, ["/bin/sh", "-c", script])
    end = line.wait_for("exited", id=identity)["end"]
    assert (end["signal"], end["core"]) == (signal.SIGSEGV, True)


def test_exit_tells_what_was_used(bench: Bench, line: Line) -> None:
    """An exit is told with the CPU seconds and the peak memory of the instance."""
    script = "import time; held = b'x' * (60 << 20)\nwhile time.process_time() < 0.1: pass"
    identity, _ = bench.start(line, [*PYTHON, script])
    end = line.wait_for("exited", id=identity)["end"]
    assert 0.1 <= end["cpu"] < 30
    assert 60 << 10 <= end["rss_kb"] < 1 << 20


def test_many_exits_at_once_are_all_told(bench: Bench, line: Line) -> None:
    """Three hundred instances that are killed together are each told once, and none stays a zombie."""
    orders = [bench.order(SLEEP) for _ in range(300)]
    for order in orders:
        line.say(**order)
    for order in orders:
        line.wait_for("started", id=order["id"])
    for order in orders:
        line.say("signal", id=order["id"], signal=9, scope="tree")
    for order in orders:
        assert line.wait_for("exited", id=order["id"])["empty"] is True
    line.barrier()
    assert not [message for message in line.heard if message["is"] in ("exited", "emptied")]
    assert children_of(bench.pid) == []


def test_a_started_identity_is_not_started_again(bench: Bench, line: Line) -> None:
    """The same order twice is one instance."""
    order = bench.order(SLEEP)
    line.say(**order)
    line.say(**order)
    started = line.wait_for("started", id=order["id"])
    line.barrier()
    assert children_of(bench.pid) == [started["pid"]]
    assert not [message for message in line.heard if message["is"] == "started"]


def _missing(root: Path) -> Message:
    return {"path": f"{root}/nothing", "why": f"cannot run '{root}/nothing': No such file or directory"}


def _not_executable(root: Path) -> Message:
    (root / "plain").write_text("#!/bin/sh\n")
    return {"path": f"{root}/plain", "why": f"cannot run '{root}/plain': Permission denied"}


def _a_directory(root: Path) -> Message:
    return {"path": str(root), "why": f"cannot run '{root}': Permission denied"}


def _no_program(root: Path) -> Message:
    (root / "noise").write_bytes(b"\x7fELF and nothing more")
    (root / "noise").chmod(0o755)
    return {"path": f"{root}/noise", "why": f"cannot run '{root}/noise': Exec format error"}


def _no_interpreter(root: Path) -> Message:
    (root / "script").write_text("#!/nothing/here\n")
    (root / "script").chmod(0o755)
    return {"path": f"{root}/script", "why": f"cannot run '{root}/script': No such file or directory"}


def _no_directory(root: Path) -> Message:
    return {"cwd": f"{root}/gone", "why": f"cannot enter directory '{root}/gone': No such file or directory"}


def _directory_is_a_file(root: Path) -> Message:
    (root / "file").write_text("")
    return {"cwd": f"{root}/file", "why": f"cannot enter directory '{root}/file': Not a directory"}


def _too_long(root: Path) -> Message:
    return {"argv": ["sleep", "x" * (1 << 18)], "why": "cannot run '/bin/sleep': Argument list too long"}


def _nul(root: Path) -> Message:
    return {"argv": ["sleep", "1\0000"], "why": "null byte"}


def _equals_sign(root: Path) -> Message:
    return {"env": {"A=B": "C"}, "why": "environment variable name"}


def _no_text(root: Path) -> Message:
    return {"argv": ["sleep", "\ud800"], "why": "cannot"}


@WAYS
@pytest.mark.parametrize(
    "cause",
    [
        _missing,
        _not_executable,
        _a_directory,
        _no_program,
        _no_interpreter,
        _no_directory,
        _directory_is_a_file,
        _too_long,
        _nul,
        _equals_sign,
        _no_text,
    ],
    ids=lambda cause: cause.__name__.strip("_"),
)
def test_refused_start(bench: Bench, line: Line, way: Message, cause: Callable[[Path], Message]) -> None:
    """What cannot be started is refused with the reason, leaves nothing behind and disturbs nobody."""
    fields = cause(bench.root)
    why = fields.pop("why")
    order = {**bench.order(SLEEP), **way, **fields}
    line.say(**order)
    line.barrier()
    refused = [message for message in line.heard if message.get("id") == order["id"]]
    assert [message["is"] for message in refused] == ["refused"], bench.complaints()
    assert why in refused[0]["why"]
    assert not bench.journal(order["id"]).exists()
    assert not bench.fifo(order["id"]).exists()
    assert children_of(bench.pid) == []
    _, pid = bench.start(line, SLEEP)
    assert is_alive(pid)
    assert os.readlink(f"/proc/{bench.pid}/cwd") == "/"


def test_refused_without_fifo(bench: Bench, line: Line) -> None:
    """An instance whose FIFO is missing is refused."""
    order = bench.order(SLEEP)
    bench.fifo(order["id"]).unlink()
    line.say(**order)
    assert "No such file" in line.wait_for("refused", id=order["id"])["why"]


def test_refused_without_journal(bench: Bench, line: Line) -> None:
    """No instance is started that could not be found again: the intent must be on disk first."""
    (bench.state / "instances").rmdir()
    order = bench.order(SLEEP)
    line.say(**order)
    assert "cannot keep a record" in line.wait_for("refused", id=order["id"])["why"]
    assert children_of(bench.pid) == []


@WAYS
def test_clean_environment(bench: Bench, line: Line, way: Message) -> None:
    """An instance has exactly the environment, descriptors, signals, directory and umask that it should have."""
    bench.start(line, SLEEP)  # its FIFO and log must not leak into the next one
    env = {"NCOLONY_INSTANCE": "x", "EMPTY": "", "LONG": "x" * 100_000, "TEXT": "grün \udcff\n=2"}
    identity, pid = bench.start(line, SLEEP, env=env, cwd=str(bench.root), umask=0o027, nofile=77, **way)
    # The kernel lets the parent go on a moment before exec is complete.
    found = wait_for(Path(f"/proc/{pid}/environ").read_bytes, "exec is complete").split(b"\0")[:-1]
    assert sorted(found) == sorted(os.fsencode(f"{key}={value}") for key, value in env.items())
    fifo = str(bench.fifo(identity))
    # Until the program itself runs, the dynamic loader opens one library after another.
    wait_for(lambda: descriptors(pid) == {0: "/dev/null", 1: fifo, 2: fifo}, "it has these descriptors and no others")
    fields = fields_of(pid)
    for key in ("SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"):
        assert int(fields[key], 16) & ~OF_THE_C_LIBRARY == 0, key
    assert fields["Umask"] == "0027"
    assert os.getsid(pid) == os.getpgid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == str(bench.root)
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    assert next(text.split()[3] for text in limits if text.startswith("Max open files")) == "77"
    assert os.readlink(f"/proc/{bench.pid}/cwd") == "/"
    assert fields_of(bench.pid)["Umask"] == "0022"


@WAYS
def test_bytes_in_arguments(bench: Bench, line: Line, way: Message) -> None:
    """Arguments reach the program byte for byte, valid UTF-8 or not, and argv[0] may differ from the path."""
    order = bench.order(["/bin/sh"], **way)
    order["argv"] = ["other name", "-c", "kill -STOP $$; true", "grün", "\udcff\udc80", "", "-c", "a\nb"]
    line.say(**order)
    pid = line.wait_for("started", id=order["id"])["pid"]
    wait_for(lambda: state_of(pid) == "T", "it has stopped itself")
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"".join(os.fsencode(a) + b"\0" for a in order["argv"])


@as_root
def test_another_user(bench: Bench, line: Line) -> None:
    """An instance runs as the user, group and groups of its order and can open its own /dev/stdout again."""
    order = bench.order(["/bin/sh", "-c", "echo again > /dev/stdout; exec sleep 1000"], **SOMEBODY)
    os.fchown(bench.fifos[order["id"]], 54321, 54322)
    for directory in (bench.state, bench.state / "fifo"):
        directory.chmod(0o755)
    line.say(**order)
    pid = line.wait_for("started", id=order["id"])["pid"]
    fields = fields_of(pid)
    assert fields["Uid"].split() == ["54321"] * 4
    assert fields["Gid"].split() == ["54322"] * 4
    assert fields["Groups"].split() == ["54323"]
    assert int(fields["CapEff"], 16) == 0
    wait_for(lambda: bench.output(order["id"]) == b"again\n", "it wrote through /dev/stdout")
    line.say("signal", id=order["id"], signal=15, scope="tree")
    assert line.wait_for("exited", id=order["id"])["end"]["signal"] == 15


@as_root
def test_another_user_has_no_groups_of_ours(bench: Bench, line: Line) -> None:
    """An empty list of groups leaves none of root's."""
    _, pid = bench.start(line, SLEEP, uid=54321, gid=54322, groups=[])
    assert fields_of(pid)["Groups"].split() == []


@as_root
def test_directory_is_entered_as_the_user(bench: Bench, line: Line) -> None:
    """A directory that the user may not enter is refused, though root may."""
    private = bench.root / "private"
    private.mkdir(mode=0o700)
    order = bench.order(SLEEP, cwd=str(private), **SOMEBODY)
    line.say(**order)
    assert line.wait_for("refused", id=order["id"])["why"] == f"cannot enter directory '{private}': Permission denied"


@as_root
def test_program_is_run_as_the_user(bench: Bench, line: Line) -> None:
    """A program that only root may run is refused for another user."""
    program = bench.root / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    order = bench.order([str(program)], **SOMEBODY)
    line.say(**order)
    assert line.wait_for("refused", id=order["id"])["why"] == f"cannot run '{program}': Permission denied"


@as_root
def test_impossible_user_number(bench: Bench, line: Line) -> None:
    """A user number that the kernel does not know is refused with a reason that names it."""
    order = bench.order(SLEEP, uid=1 << 40, gid=1, groups=[])
    line.say(**order)
    assert f"cannot become user {1 << 40}" in line.wait_for("refused", id=order["id"])["why"]
