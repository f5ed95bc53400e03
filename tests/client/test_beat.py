"""Hearts without Twisted, and sd_notify: real programs, real files, a real socket that listens."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ncolony
from manager import Manager, wait_for
from ncolony import client
from ncolony.client import beat, notify
from ncolony.model import conditions

SOURCE = Path(ncolony.__file__).parent.parent
PERIOD_S = 0.3


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """Somebody who listens to sd_notify."""
    found = Manager(tmp_path / "notify")
    yield found
    found.close()


class Programs:
    """Starts programs as NColony would, and ends them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, code: str, config: object, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
        """Run this Python code in a process called web:0, whose config file says `config`."""
        environment = {
            "PYTHONPATH": str(SOURCE),
            "NCOLONY_NAME": "web:0",
            "NCOLONY_CONFIG": config if isinstance(config, str) else json.dumps(config),
            **env,
        }
        environment = {key: value for key, value in environment.items() if value}
        with (self.root / "stderr").open("ab") as stderr:
            self.running.append(
                subprocess.Popen(
                    [sys.executable, "-S", "-u", "-c", code, *arguments],
                    env=environment,
                    cwd=self.root,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                )
            )
        return self.running[-1]

    def said(self) -> list[str]:
        """What they wrote to standard error."""
        return (self.root / "stderr").read_text().splitlines()

    def close(self) -> None:
        for program in self.running:
            program.kill()
            program.wait()
            for stream in (program.stdin, program.stdout):
                assert stream
                stream.close()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """Programs that do not outlive the test."""
    found = Programs(tmp_path)
    yield found
    found.close()


def age(path: Path) -> float | None:
    """Seconds since a file was touched, None where there is none."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None


def next_touch(path: Path) -> int:
    """Wait for a touch of the file that is still to come; its time."""
    before = path.stat().st_mtime_ns
    return wait_for(lambda: path.stat().st_mtime_ns != before and path.stat().st_mtime_ns, f"{path} is touched")  # type: ignore[no-any-return]


def stands_still(path: Path, for_s: float) -> bool:
    """Whether the file comes to be this old."""
    return bool(wait_for(lambda: (age(path) or 0) >= for_s, f"{path} is not touched any more"))


THREAD = """
from ncolony.client import beat

heart = beat.start()
print(heart.is_asked)
input()
heart.stop()
print(True)
input()
"""
TASK = """
import asyncio, sys
from ncolony.client import beat

async def main():
    heart = beat.task()
    await asyncio.sleep(0)
    print(not heart.done())
    await asyncio.to_thread(input)
    heart.cancel()
    await asyncio.wait([heart])
    print(heart.cancelled())
    await asyncio.to_thread(input)

asyncio.run(main())
"""
KINDS = {"thread": THREAD, "task": TASK}


# What is beaten


@pytest.mark.parametrize("code", KINDS.values(), ids=KINDS)
def test_it_beats_at_once_and_until_it_is_stopped(programs: Programs, tmp_path: Path, code: str) -> None:
    """The file is made at the start, touched again and again, and no more after the stop; its content is left alone."""
    heart = tmp_path / "heart"
    config = {"args": ["web"], "check": [{"heartbeat": str(heart), "period": PERIOD_S}]}
    program = programs.start(code, config)
    assert program.stdin
    assert program.stdout
    assert program.stdout.readline() == b"True\n"
    wait_for(heart.exists, "the heart is there")
    heart.write_bytes(b"content")
    identity = heart.stat().st_ino
    first, second = next_touch(heart), next_touch(heart)
    assert 0 < second - first < 1e9 * PERIOD_S * 10
    program.stdin.write(b"\n")
    program.stdin.flush()
    assert program.stdout.readline() == b"True\n"
    assert stands_still(heart, 2 * PERIOD_S)
    assert (heart.read_bytes(), heart.stat().st_ino) == (b"content", identity)


@pytest.mark.parametrize("code", KINDS.values(), ids=KINDS)
def test_a_directory_holds_a_file_for_each_process(programs: Programs, tmp_path: Path, code: str) -> None:
    """Where `heartbeat` or upstream's `status` is a directory, the file in it bears the name of the process."""
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    config = {
        "check": [{"tcp": "127.0.0.1:1"}, {"heartbeat": "ours", "period": 30}],
        "ncolony.beatcheck": {"status": str(tmp_path / "theirs"), "period": PERIOD_S, "grace": 3},
    }
    programs.start(code, config)
    wait_for((tmp_path / "ours" / "web:0").exists, "the one is there")
    wait_for((tmp_path / "theirs" / "web:0").exists, "the other is there")
    next_touch(tmp_path / "theirs" / "web:0")
    next_touch(tmp_path / "ours" / "web:0")
    assert os.listdir(tmp_path / "ours") == ["web:0"]


@pytest.mark.parametrize("code", KINDS.values(), ids=KINDS)
def test_the_watchdog_is_told(programs: Programs, manager: Manager, code: str) -> None:
    """WATCHDOG=1 goes to NOTIFY_SOCKET, several times within WATCHDOG_USEC."""
    programs.start(code, {}, NOTIFY_SOCKET=manager.name, WATCHDOG_USEC=str(int(PERIOD_S * 1e6)))
    times = []
    for _ in range(4):
        assert manager.next_with("WATCHDOG")["WATCHDOG"] == "1"
        times.append(time.monotonic())
    assert {key for heard in manager.heard for key in heard} == {"WATCHDOG"}, "it is not said to be ready"


def test_a_large_config_is_found(programs: Programs, tmp_path: Path) -> None:
    """A config that is too long for a variable is read from NCOLONY_CONFIG_FILE."""
    snapshot = tmp_path / "snapshot"
    snapshot.write_text(json.dumps({"check": [{"heartbeat": "heart"}], "more": "x" * 200_000}))
    program = programs.start(THREAD, "", NCOLONY_CONFIG_FILE=str(snapshot))
    assert program.stdout
    assert program.stdout.readline() == b"True\n"
    wait_for((tmp_path / "heart").exists, "it beats")


def test_it_beats_where_it_began(programs: Programs, tmp_path: Path) -> None:
    """A relative path is meant from where the program was started, wherever it goes."""
    code = "import os\nfrom ncolony.client import beat\nheart = beat.start()\nos.chdir('/')\ninput()"
    programs.start(code, {"check": [{"heartbeat": "heart", "period": PERIOD_S}]})
    wait_for((tmp_path / "heart").exists, "it beats")
    next_touch(tmp_path / "heart")
    next_touch(tmp_path / "heart")


# Who is alive


def test_a_thread_beats_while_the_rest_is_alive(programs: Programs, tmp_path: Path) -> None:
    """While alive() returns something false or raises, the heart stands still; later it goes on."""
    code = """
import os, sys
from ncolony.client import beat
def alive():
    if os.path.exists("broken"):
        raise RuntimeError("no more")
    return os.path.exists("works")
heart = beat.start(alive=alive)
input()
"""
    heart, works, broken = tmp_path / "heart", tmp_path / "works", tmp_path / "broken"
    works.touch()
    programs.start(code, {"check": [{"heartbeat": "heart", "period": PERIOD_S}]})
    wait_for(heart.exists, "it beats")
    works.unlink()
    assert stands_still(heart, 3 * PERIOD_S)
    works.touch()
    next_touch(heart)
    broken.touch()
    assert stands_still(heart, 3 * PERIOD_S)
    broken.unlink()
    next_touch(heart)
    trouble = "cannot beat: alive() failed: RuntimeError('no more')"
    wait_for(lambda: programs.said() == [trouble, f"no more: {trouble}"], "it was told once")


def test_a_loop_that_hangs_does_not_beat(programs: Programs, tmp_path: Path) -> None:
    """An asyncio program whose loop is blocked shows no sign of life, and does again when it goes on."""
    code = """
import asyncio, os, time
from ncolony.client import beat
async def main():
    heart = beat.task()
    while True:
        await asyncio.sleep(0.01)
        while os.path.exists("hang"):
            time.sleep(0.01)
asyncio.run(main())
"""
    heart = tmp_path / "heart"
    programs.start(code, {"check": [{"heartbeat": "heart", "period": PERIOD_S}]})
    wait_for(heart.exists, "it beats")
    (tmp_path / "hang").touch()
    assert stands_still(heart, 3 * PERIOD_S)
    (tmp_path / "hang").unlink()
    next_touch(heart)


def test_a_child_of_the_program_does_not_beat(programs: Programs, manager: Manager) -> None:
    """Whoever inherits the variables is asked nothing, where they name the process that is."""
    code = "from ncolony.client import beat\nprint(beat.start().is_asked)\ninput()"
    program = programs.start(code, {}, NOTIFY_SOCKET=manager.name, WATCHDOG_USEC="1000000", WATCHDOG_PID="1")
    assert program.stdout
    assert program.stdout.readline() == b"False\n"


@pytest.mark.parametrize("code", KINDS.values(), ids=KINDS)
def test_nobody_asks(programs: Programs, tmp_path: Path, code: str) -> None:
    """Without NColony, or without a key that asks for a heart, nothing beats, nothing is said and nothing is made."""
    for config in ("", {"args": ["web"]}, {"check": [{"http": "http://127.0.0.1/"}], "ncolony.beatcheck": None}):
        program = programs.start(code, config)
        assert program.stdout
        assert program.stdout.readline() == b"False\n"
    assert (programs.said(), os.listdir(tmp_path)) == ([], ["stderr"])


def test_to_run_what_nobody_asks_for_is_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`await beat.run()` returns where there is nothing to do."""
    import asyncio

    for variable in ("NCOLONY_CONFIG", "NCOLONY_CONFIG_FILE", "WATCHDOG_USEC"):
        monkeypatch.delenv(variable, raising=False)
    asyncio.run(asyncio.wait_for(beat.run(), 30))


# What goes wrong


def test_a_missing_directory_is_told_once_and_ends_nothing(programs: Programs, tmp_path: Path) -> None:
    """The program goes on, says in one line what is wrong, and beats as soon as that is possible."""
    heart = tmp_path / "later" / "heart"
    program = programs.start(THREAD, {"check": [{"heartbeat": str(heart), "period": 0.05}]})
    trouble = f"cannot beat: {heart}: No such file or directory"
    wait_for(lambda: programs.said() == [trouble], "it is said")
    time.sleep(0.2)  # several beats, each of which fails
    assert (programs.said(), program.poll()) == ([trouble], None)
    heart.parent.mkdir()
    wait_for(heart.exists, "it beats")
    wait_for(lambda: programs.said() == [trouble, f"no more: {trouble}"], "that is said too")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, in a mount namespace that only this test has."""
    (tmp_path / "disk").mkdir()
    script = 'mount -t tmpfs -o size=64k,nr_inodes=20 none "$0" && echo mounted && exec sleep 100000'
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, str(tmp_path / "disk")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert holder.stdout
    try:
        if holder.stdout.readline() != b"mounted\n":
            pytest.skip("nothing may be mounted here")
        yield Path(f"/proc/{holder.pid}/root{tmp_path / 'disk'}")
    finally:
        holder.kill()
        holder.communicate()


def fill(disk: Path) -> list[Path]:
    """Leave no room for another file; what takes it."""
    made: list[Path] = []
    with pytest.raises(OSError, match="No space left"):
        while True:
            made.append(disk / f"filler-{len(made)}")
            made[-1].touch()
    return [path for path in made if path.exists()]


def test_a_full_disk_is_told_once_and_ends_nothing(programs: Programs, disk: Path) -> None:
    """Where no file can be made the program says so once, beats when there is room, and then needs none any more."""
    fillers, heart = fill(disk), disk / "heart"
    program = programs.start(THREAD, {"check": [{"heartbeat": str(heart), "period": 0.05}]})
    trouble = f"cannot beat: {heart}: No space left on device"
    wait_for(lambda: programs.said() == [trouble], "it is said")
    time.sleep(0.2)  # several beats, each of which fails
    assert (programs.said(), program.poll()) == ([trouble], None)
    fillers[0].unlink()
    wait_for(heart.exists, "it beats")
    wait_for(lambda: programs.said() == [trouble, f"no more: {trouble}"], "that is said too")
    fill(disk)
    next_touch(heart)
    next_touch(heart)
    assert len(programs.said()) == 2


def test_a_link_that_leads_nowhere_makes_nothing(tmp_path: Path) -> None:
    """What a dangling symbolic link names is not created."""
    (tmp_path / "heart").symlink_to(tmp_path / "made")
    with pytest.raises(OSError, match="Too many levels"):
        beat.touch(str(tmp_path / "heart"))
    assert os.listdir(tmp_path) == ["heart"]


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("{", "NCOLONY_CONFIG holds no JSON"),
        ("[" * 100_000, "NCOLONY_CONFIG holds no JSON"),
        ({"ncolony.beatcheck": 5}, "ncolony.beatcheck: expected an object, found 5"),
        ({"ncolony.beatcheck": {"period": 5}}, "ncolony.beatcheck: expected a path, found None"),
        ({"ncolony.beatcheck": {"status": "x"}}, "ncolony.beatcheck: expected a period in seconds, found None"),
        ({"check": [{"heartbeat": "x", "period": "1"}]}, "check.heartbeat: expected a period in seconds, found '1'"),
        ({"check": [{"heartbeat": "x", "period": 0}]}, "check.heartbeat: expected a period in seconds, found 0"),
        ({"check": [{"heartbeat": "x", "period": True}]}, "check.heartbeat: expected a period in seconds, found True"),
        ({"check": [{"heartbeat": "a\0b"}]}, r"check.heartbeat: expected a path, found 'a\x00b'"),
        ({"check": 5}, None),
        ({"check": [5, {}, {"heartbeat": None}]}, None),
        ([], None),
    ],
)
def test_what_makes_no_sense_is_told_and_left_out(config: object, why: str | None) -> None:
    """A config that asks for a heart in a way that cannot be is one line, and the program goes on without."""
    said: list[str] = []
    text = config if isinstance(config, str) else json.dumps(config)
    pulse = beat.Pulse({"NCOLONY_CONFIG": text, "NCOLONY_NAME": "web"}, said.append)
    assert (pulse.interval, pulse.paths) == (None, ())
    assert said == ([] if why is None else [f"cannot beat: {why}"])


def test_a_config_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """So is a snapshot that is gone."""
    said: list[str] = []
    path = str(tmp_path / "gone")
    assert beat.Pulse({"NCOLONY_CONFIG_FILE": path}, said.append).interval is None
    assert said == [f"cannot beat: {path}: No such file or directory"]


def test_a_directory_without_a_name_is_told(tmp_path: Path) -> None:
    """Without NCOLONY_NAME there is no file to touch in a directory."""
    said: list[str] = []
    config = json.dumps({"check": [{"heartbeat": str(tmp_path)}]})
    pulse = beat.Pulse({"NCOLONY_CONFIG": config}, said.append)
    pulse.beat()
    pulse.beat()
    assert said == [f"cannot beat: {tmp_path}: it is a directory, and NCOLONY_NAME is not set"]


@pytest.mark.parametrize(
    ("periods", "interval"), [([10], 10 / 3), ([None], 10 / 3), ([60, 6, 30], 2), ([1e-9], 0.01), ([1e300], 86400)]
)
def test_the_shortest_period_decides(periods: list[float | None], interval: float, tmp_path: Path) -> None:
    """Everything beats at a third of the shortest period, which is 10 s where none is given."""
    checks = [{"heartbeat": f"{tmp_path}/{at}"} | ({"period": p} if p else {}) for at, p in enumerate(periods)]
    pulse = beat.Pulse({"NCOLONY_CONFIG": json.dumps({"check": checks})})
    assert pulse.interval == pytest.approx(interval)
    assert len(pulse.paths) == len(periods)
    assert conditions.Check().period == beat.DEFAULT_PERIOD_S


# sd_notify


def test_each_word_is_said(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every function sends what sd_notify(3) has for it, one datagram each, and tells that somebody was told."""
    monkeypatch.setenv("NOTIFY_SOCKET", manager.name)
    assert client.ready()
    assert notify.ready("at\nwork")
    assert notify.status("5 requests\nREADY=1")
    assert notify.watchdog()
    assert notify.extend(1.5)
    assert notify.reloading()
    assert notify.stopping()
    manager.listen(30)
    since = manager.heard[5].pop("MONOTONIC_USEC")
    assert 0 <= time.monotonic() - int(since) / 1e6 < 60
    assert manager.heard == [
        {"READY": "1"},
        {"READY": "1", "STATUS": "at work"},
        {"STATUS": "5 requests READY=1"},
        {"WATCHDOG": "1"},
        {"EXTEND_TIMEOUT_USEC": "1500000"},
        {"RELOADING": "1"},
        {"STOPPING": "1"},
    ]


def test_abstract_and_very_long_addresses_are_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An abstract socket, and one whose path is longer than an address may be, are told too."""
    deep = tmp_path / ("x" * 100) / ("y" * 100)
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    for name, address in ((f"{deep}/notify", "notify"), (f"@{secrets.token_hex(8)}", None)):
        manager = Manager(address or name)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert notify.ready()
        assert manager.next_with("READY")
        manager.close()
    assert not notify.ready(), "nobody is there any more"


@pytest.mark.parametrize(
    "name", ["", "relative", "vsock:2:1", "/there/is/no/such/socket", "/" + "x" * 300, "/dev/null"]
)
def test_where_nobody_listens_nothing_happens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a socket, or with one that cannot be reached, nobody was told, and that is no error."""
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    assert not any((notify.ready(), notify.status("x"), notify.watchdog(), notify.stopping(), notify.extend(1)))


def test_a_queue_that_is_full_is_waited_for_where_it_matters(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """READY=1 arrives when the other side reads again; a status does not wait, and nothing waits for ever."""
    monkeypatch.setenv("NOTIFY_SOCKET", manager.name)
    while notify.status("more"):
        pass
    monkeypatch.setattr(notify, "PATIENCE_S", 30.0)
    patient = threading.Thread(target=notify.ready)
    # What `ready` waits at most is read when it is called.
    patient.start()
    manager.next_with("READY")
    patient.join()
    while notify.status("more"):
        pass
    monkeypatch.setattr(notify, "PATIENCE_S", 0.05)
    assert not notify.stopping()


def test_ready_on_a_descriptor(programs: Programs) -> None:
    """With `ready.fd` a newline is written to that descriptor once, and it is closed; anything else is left alone."""
    code = "import os\nfrom ncolony import client\nprint(client.ready(), client.ready())\nos.fstat(1)\ninput()"
    hear, say = os.pipe()
    environment = {"PYTHONPATH": str(SOURCE), "NCOLONY_CONFIG": json.dumps({"ready": {"fd": say}})}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env=environment,
        pass_fds=[say],
        input=b"\n",
        capture_output=True,
        check=True,
    )
    os.close(say)
    assert (os.read(hear, 10), os.read(hear, 10), done.stdout) == (b"\n", b"", b"True False\n")
    os.close(hear)
    with open(os.devnull, "wb") as other:
        config = json.dumps({"ready": {"fd": other.fileno()}})
        done = subprocess.run(
            [sys.executable, "-S", "-c", code],
            env={**environment, "NCOLONY_CONFIG": config},
            pass_fds=[other.fileno()],
            input=b"\n",
            capture_output=True,
            check=True,
        )
    assert done.stdout == b"False False\n"


# What it costs


@pytest.mark.parametrize("module", ["ncolony.client", "ncolony.client.beat", "ncolony.client.notify"])
def test_it_is_small(module: str) -> None:
    """It is imported without Twisted and msgspec being installed, and brings no large module and nothing of ours in."""
    code = f"import os, sys; before = set(sys.modules); import {module}; print(*(set(sys.modules) - before))"
    environment = {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert loaded >= {module}
    ours = {"ncolony", "ncolony.client", "ncolony.client.beat", "ncolony.client.notify"}
    assert loaded <= ours | {"__future__", "errno", "time"}


def test_threads_end_with_the_program(programs: Programs) -> None:
    """A program that is done ends though its heart beats, and SIGTERM kills it as it would without."""
    config = {"check": [{"heartbeat": "heart", "period": PERIOD_S}]}
    program = programs.start("from ncolony.client import beat\nheart = beat.start()", config)
    assert program.wait(60) == 0
    program = programs.start(THREAD, config)
    assert program.stdout
    program.stdout.readline()
    program.terminate()
    assert program.wait(60) == -signal.SIGTERM
