"""`ncolony run`: one command is a whole colony, also in a container, and `ctl` finds it by its config directory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from colony import SLEEP, Colony, arguments_of
from ncolony.system.places import messages_directory, state_directory

NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]
READ_ONLY = "mount -o remount,bind,ro /"
# As a user with no entry in passwd. It may read this Python wherever that is, and write nothing that is not its own.
AS_SOMEBODY = "setpriv --reuid 54321 --regid 54321 --clear-groups --inh-caps=-all,+dac_read_search"
AS_SOMEBODY += " --ambient-caps=-all,+dac_read_search --bounding-set=-all,+dac_read_search"


def can_be_a_container() -> bool:
    """Whether namespaces may be made here, and everything made read-only in them."""
    if not (shutil.which("unshare") and shutil.which("nsenter") and shutil.which("setpriv")):
        return False
    if sys.executable.startswith(("/run/", "/tmp/", "/dev/shm/")):
        return False  # what is made anew inside would hide it
    return subprocess.run([*NAMESPACES, "sh", "-c", READ_ONLY], capture_output=True).returncode == 0


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory of the machine's, short and outside of pytest's, for what is put there by rule."""
    place = Path(tempfile.mkdtemp(prefix="run-"))
    place.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    for name in ("NCOLONY_CTL_CONFIG", "NCOLONY_CTL_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    yield place
    shutil.rmtree(place)


def ncolony(*words: str, prefix: tuple[str, ...] = (), **more: Any) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-m", "ncolony", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)


def statuses(*places: str, prefix: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """What `ctl status` finds with these options; nothing while it finds no colony."""
    done = ncolony("ctl", *places, "status", "--json", prefix=prefix)
    return {one["name"]: one for one in json.loads(done.stdout)} if done.returncode in (0, 3) else {}


def wait_until_running(colony: Colony, name: str, *places: str, prefix: tuple[str, ...] = ()) -> int:
    def pid() -> Any:
        found = statuses(*places, prefix=prefix).get(name, {})
        return found.get("pid") if found.get("state") == "RUNNING" else None

    found = colony.wait_for(pid, f"{name} runs")
    assert isinstance(found, int)
    return found


def remove_places(colony: Colony) -> None:
    """What is put by rule where it is not the test's to clear away: /run/ncolony, for root."""
    messages = messages_directory(colony.config)
    for place in (state_directory(colony.config, messages), messages):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(place)


@pytest.fixture
def run(colony: Colony, runtime: Path) -> Iterator[Callable[..., None]]:
    """Start `ncolony run` with these words; what it leaves in places by rule is removed."""

    def start(*words: str, **more: Any) -> None:
        colony.launch(command=[sys.executable, "-m", "ncolony", "run", *words], **more)

    yield start
    if not colony.has_exited():
        assert colony.stop() == 0
    remove_places(colony)


def test_config_is_all_it_takes(colony: Colony, run: Callable[..., None]) -> None:
    """With --config alone it runs, under the same pid, and `ctl` with --config alone commands it, as does its user."""
    colony.put("a", {"args": [SLEEP, "1000"]})
    run("--config", str(colony.config))
    place = ("--config", str(colony.config))
    before = wait_until_running(colony, "a", *place)
    assert colony.process
    assert arguments_of(colony.process.pid)[1:4] == ["-P", "-m", "twisted"]
    messages = Path(messages_directory(colony.config))
    assert stat.S_IMODE(messages.stat().st_mode) == 0o700
    done = ncolony("ctl", *place, "restart", "a", "--wait")
    assert (done.returncode, done.stdout) == (0, "a: restarted\n")
    assert wait_until_running(colony, "a", *place) != before
    # The environment is as good as the option, for both.
    done = ncolony("ctl", "status", "a", env={**os.environ, "NCOLONY_CTL_CONFIG": str(colony.config)})
    assert (done.returncode, done.stdout.split()[1]) == (0, "RUNNING")
    output = (colony.root / "output").read_text(encoding="utf-8")
    assert "[ncolony#info] a: running" in output  # text, though it is no terminal
    assert colony.stop() == 0


def test_definitions_need_no_messages(colony: Colony, runtime: Path) -> None:
    """What only writes a definition needs no --messages, as where an image is built; what sends a message does."""
    place = ("--config", str(colony.config))
    assert ncolony("ctl", *place, "add", "a", "--", "true").returncode == 0
    assert ncolony("ctl", *place, "disable", "a").returncode == 0
    for words in (("restart", "a"), ("add", "a", "--wait", "--cmd=true")):
        done = ncolony("ctl", *place, *words)
        assert (done.returncode, "the directory of messages is missing" in done.stderr) == (2, True)


def test_config_from_the_environment(colony: Colony, run: Callable[..., None]) -> None:
    """NCOLONY_CTL_CONFIG stands for --config, NCOLONY_CTL_MESSAGES for --messages."""
    colony.put("a", {"args": [SLEEP, "1000"]})
    both = {"NCOLONY_CTL_CONFIG": str(colony.config), "NCOLONY_CTL_MESSAGES": str(colony.messages)}
    run("--state", str(colony.state), env={**os.environ, **both})
    colony.wait_until_running("a")
    assert colony.send({"type": "RESTART", "name": "a"})["state"] == "done"


def test_state_holds_the_messages_too(colony: Colony, run: Callable[..., None]) -> None:
    """With --state everything is in there, and `ctl` needs the same two options."""
    colony.put("a", {"args": [SLEEP, "1000"]})
    places = ("--config", str(colony.config), "--state", str(colony.state))
    run(*places)
    wait_until_running(colony, "a", *places)
    assert stat.S_IMODE((colony.state / "messages").stat().st_mode) == 0o700
    assert ncolony("ctl", *places, "stop", "a", "--wait").returncode == 0
    assert statuses(*places)["a"]["state"] == "STOPPED"
    assert not os.path.exists(messages_directory(colony.config))


def test_other_options_are_the_supervisors(colony: Colony, run: Callable[..., None]) -> None:
    """What `run` does not know goes to the supervisor, before or after --, and what comes before it to Twisted."""
    colony.put("a", {"args": [SLEEP, "1000"]})
    pids = colony.root / "pids"
    run(
        "--pid", str(pids), "--log-format", "json", "-k", "7", "--config", str(colony.config),
        "--messages", str(colony.messages), "--state", str(colony.state), "--", "--frequency", "3",
    )  # fmt: skip
    pid = colony.wait_until_running("a")
    colony.wait_for(lambda: (pids / "a").exists(), "there is a PID file")
    assert (pids / "a").read_text() == f"{pid}\n"
    assert (colony.root / "output").read_bytes().startswith(b"\x1e{")
    assert colony.process
    assert arguments_of(colony.process.pid)[-6:] == ["--pid", str(pids), "-k", "7", "--frequency", "3"]


def test_working_directory_holds_no_modules(colony: Colony, run: Callable[..., None]) -> None:
    """What lies where it is started is not taken for a module, neither at the start nor by an upgrade."""
    for name in ("json", "twisted", "ncolony"):
        (colony.root / f"{name}.py").write_text("raise SystemExit('not this one')\n", encoding="utf-8")
    colony.put("a", {"args": [SLEEP, "1000"]})
    program = [str(Path(sys.executable).parent / "ncolony"), "run"]
    places = ["--config", str(colony.config), "--messages", str(colony.messages), "--state", str(colony.state)]
    colony.launch(command=[*program, *places])
    colony.wait_until_running("a")
    assert colony.send({"type": "UPGRADE"})["state"] == "done"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "the directory of config is missing: give --config DIR or set NCOLONY_CTL_CONFIG"),
        (["--config", "{root}/conf", "--state", "/proc/x"], 1, "cannot start: cannot make /proc/x: No such file"),
        (["--config", "{root}/conf", "--state", "{root}/unsafe"], 1, "may be written by others (mode 777)"),
        (["--config", "{root}/conf", "--nonsense"], 64, "option --nonsense not recognized"),
    ],
)
def test_what_cannot_be_is_said(colony: Colony, runtime: Path, words: list[str], code: int, said: str) -> None:
    """A missing directory, one that cannot be made or used, and an unknown option end it with a message."""
    (colony.root / "unsafe").mkdir()
    (colony.root / "unsafe").chmod(0o777)
    done = ncolony("run", *(word.format(root=colony.root) for word in words))
    assert (done.returncode, said in done.stderr + done.stdout, "Traceback" in done.stderr) == (code, True, False)
    remove_places(colony)


class Container:
    """Everything read-only but one directory, and a pid namespace whose process 1 is `ncolony run`."""

    def __init__(self, colony: Colony, writable: str, become: str) -> None:
        self.colony, self.become = colony, become
        mounts = READ_ONLY
        for place in ("/run", "/tmp", "/dev/shm"):
            mounts += f" && mount -t tmpfs -o {'rw,mode=1777' if place == writable else 'ro'} none {place}"
        # The colony's own directories lie under /tmp, most likely: seen again, read-only, under another name.
        mounts = f"mount --bind {colony.root} /mnt && {mounts} && mount -o remount,bind,ro /mnt"
        run = f"{become} {sys.executable} -m ncolony run --config /mnt/conf"
        bare = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        colony.launch(command=[*NAMESPACES, "sh", "-c", f"{mounts} && cd / && exec {run}"], env=bare)
        colony.wait_for(lambda: self.pid, "process 1 is there")

    @property
    def pid(self) -> int:
        """The supervisor's pid, as seen from outside."""
        assert self.colony.process
        with contextlib.suppress(OSError, ValueError, IndexError):
            children = Path(f"/proc/{self.colony.process.pid}/task/{self.colony.process.pid}/children")
            pid = int(children.read_text().split()[0])
            return pid if b"twisted" in Path(f"/proc/{pid}/cmdline").read_bytes() else 0
        return 0

    @property
    def inside(self) -> tuple[str, ...]:
        """What runs a command in it, as `docker exec` would."""
        return ("nsenter", "-t", str(self.pid), "-m", "-p", *self.become.split())


@pytest.mark.skipif(not can_be_a_container(), reason="no namespaces may be made here")
@pytest.mark.parametrize(
    ("writable", "become"),
    [("/run", ""), ("/dev/shm", ""), ("/tmp", AS_SOMEBODY), ("/dev/shm", AS_SOMEBODY)],
    ids=["root-run", "root-shm", "anybody-tmp", "anybody-shm"],
)
def test_container_with_one_writable_directory(colony: Colony, writable: str, become: str) -> None:
    """Read-only but for /run, /tmp or /dev/shm, as root or any user: it runs, obeys, reaps orphans, and ends with 0."""
    colony.root.chmod(0o755)
    colony.put("a", {"args": [SLEEP, "1000"]})
    container = Container(colony, writable, become)
    place = ("--config", "/mnt/conf")
    before = wait_until_running(colony, "a", *place, prefix=container.inside)
    assert ncolony("ctl", *place, "restart", "a", "--wait", prefix=container.inside).returncode == 0
    assert wait_until_running(colony, "a", *place, prefix=container.inside) != before
    shown = subprocess.run(
        [*container.inside, "sh", "-c", f"ls {writable} && touch /tmp/x /run/x /dev/shm/x /mnt/x"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ("ncolony" if writable == "/run" else f"ncolony-{54321 if become else 0}") in shown.stdout.split()
    assert shown.stderr.count("Read-only file system") == 3
    # An orphan of somebody who came in from outside becomes a child of process 1, which must not keep its remains.
    orphan = subprocess.run(
        [*container.inside, "sh", "-c", "sh -c 'sleep 0.3 & echo started'"], capture_output=True, text=True, timeout=60
    )
    assert orphan.stdout == "started\n"
    children = Path(f"/proc/{container.pid}/task/{container.pid}/children")
    colony.wait_for(lambda: len(children.read_text().split()) == 1, "process 1 has no child but the keeper")
    os.kill(container.pid, signal.SIGTERM)
    assert colony.wait_for_exit() == 0
    output = (colony.root / "output").read_text(encoding="utf-8")
    assert "[ncolony#info] stopped" in output
    assert "Traceback" not in output


def test_exit_code_is_the_colonys(colony: Colony, run: Callable[..., None]) -> None:
    """When a process ends the colony, its exit code is the command's."""
    colony.put("main", {"args": ["/bin/sh", "-c", "exit 42"], "on_exit": "shutdown"})
    colony.put("a", {"args": [SLEEP, "1000"]})
    run("--config", str(colony.config))
    assert colony.wait_for_exit() == 42


def test_next_one_takes_over(colony: Colony, run: Callable[..., None]) -> None:
    """After SIGKILL the same command takes over what runs."""
    colony.put("a", {"args": [SLEEP, "1000"]})
    place = ("--config", str(colony.config))
    run(*place)
    pid = wait_until_running(colony, "a", *place)
    colony.kill()
    run(*place)
    colony.wait_for(lambda: "adopted" in (colony.root / "output").read_text("utf-8"), "it adopts")
    assert wait_until_running(colony, "a", *place) == pid
