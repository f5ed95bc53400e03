"""Disks that are full or read-only: what runs goes on, the reason is told, and it heals by itself."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from colony import MARK, SLEEP, Colony, is_alive

FULL = "No space left on device"
QUICK = ("--frequency", "0.2", "-m", "0.1", "-M", "0.3")


class Disk:
    """A file system of a megabyte and 400 files, in a mount namespace of its own.

    Its holder is a process in there, and the way in for everybody else is /proc/HOLDER/root.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        script = 'mount -t tmpfs -o mode=755,size=1m,nr_inodes=400 none "$0" && echo mounted && exec sleep 100000'
        self.holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script, str(place)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.holder.stdout
        self.is_mounted = self.holder.stdout.readline() == b"mounted\n"
        self.path = self.inside(place)
        self._numbers = itertools.count()

    def close(self) -> None:
        self.holder.kill()
        self.holder.communicate()

    def fill(self) -> None:
        """Leave no byte free."""
        with (self.path / f"filler-{next(self._numbers)}").open("wb", buffering=0) as filler:
            try:
                while filler.write(b"x" * 4096):
                    pass
            except OSError as error:
                assert error.strerror == FULL

    def fill_with_files(self) -> None:
        """Leave no inode free: bytes there are, but no new file, directory or FIFO can be made."""
        try:
            while True:
                (self.path / f"filler-{next(self._numbers)}").touch()
        except OSError as error:
            assert error.strerror == FULL

    def clear(self) -> None:
        """Have room again."""
        for filler in self.path.glob("filler-*"):
            filler.unlink()

    def inside(self, path: Path) -> Path:
        """The same place as it is seen in there."""
        return Path(f"/proc/{self.holder.pid}/root{path}")

    def make_read_only(self, path: Path) -> None:
        """Whoever opens something below `path` in there may only read; descriptors that are open stay as they are."""
        self._run("mount", "--bind", str(path), str(path))
        self._run("mount", "-o", "remount,bind,ro", str(path))

    def make_writable(self, path: Path) -> None:
        """Take it back."""
        self._run("umount", "--lazy", str(path))

    def _run(self, *command: str) -> None:
        subprocess.run(["nsenter", "-t", str(self.holder.pid), "-m", *command], check=True, timeout=60)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small disk; to be asked for before the colony, which must end first."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        found = Disk(place)
    except FileNotFoundError:
        pytest.skip("there is no unshare command")
    try:
        if not found.is_mounted:
            pytest.skip("a file system cannot be mounted here")
        yield found
    finally:
        found.close()


def tracebacks(colony: Colony) -> str:
    """What looks like a traceback in the supervisor's log, in the keeper's, and in what they printed."""
    texts = [colony.log(), (colony.root / "output").read_text()]
    if (keeper := colony.state / "keeper.log").exists():
        texts.append(keeper.read_text())
    return "\n".join(text for text in texts if "Traceback" in text)


def told(colony: Colony, *words: str) -> bool:
    """Whether a line of the supervisor's log holds all these words."""
    return any(all(word in line for word in words) for line in colony.log().splitlines())


def wait_until_ticking(colony: Colony, name: str) -> None:
    """Wait until a process in the mode "tick" has printed some more."""
    seen = len(colony.notes(name, "tick"))
    colony.wait_for_notes(name, seen + 10, beginning="tick ")


def wait_until_forwarded(colony: Colony, name: str) -> None:
    """Wait until what a process printed last is in the supervisor's log."""
    last = colony.notes(name, "tick")[-1]
    colony.wait_for(lambda: last in colony.lines(name), f"{last!r} of {name} is forwarded")


def wait_until_shown(colony: Colony, name: str, count: int = 1) -> int:
    """Wait until a process was started so often, and its status shows the last of its instances; that one's pid."""
    colony.wait_for_notes(name, count)
    pid = int(colony.pids(name)[count - 1])
    colony.wait_for_status(name, state="RUNNING", pid=pid)
    return pid


def start_without_waiting(colony: Colony, *options: str) -> None:
    """Start a supervisor that cannot say in its state directory that it is up."""
    with (colony.root / "output").open("ab") as output:
        colony.process = subprocess.Popen(
            colony.command(*options),
            cwd=colony.root,
            env={**os.environ, MARK: colony.mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def wait_until_resumed(colony: Colony, name: str) -> None:
    """Wait until more of what a process prints is forwarded."""
    seen = len(colony.lines(name))
    colony.wait_for(lambda: len(colony.lines(name)) >= seen + 10, f"the output of {name} is forwarded again")


def wait_until_adopted(colony: Colony) -> None:
    """Start a supervisor, and wait until it has adopted the process "web"."""
    before = colony.log().count("web: adopted")
    start_without_waiting(colony, *QUICK)
    colony.wait_for(lambda: colony.log().count("web: adopted") > before, "web is adopted")


def wait_for_another_keeper(colony: Colony, former: int) -> None:
    colony.wait_for(lambda: colony.keeper_pid() not in (None, former), "there is a new keeper")


def wait_for_warning(colony: Colony, name: str, words: str) -> None:
    colony.wait_for(lambda: words in str((colony.status(name) or {}).get("warnings")), f"the status of {name} says so")


@pytest.mark.parametrize("way", ["bytes", "files"])
def test_a_full_state_directory(disk: Disk, colony: Colony, way: str) -> None:
    """While the state directory is full processes run on, nothing starts without an intent, and then all heals."""
    fill = disk.fill if way == "bytes" else disk.fill_with_files
    colony.state = disk.path / "state"
    for name in ("web", "dies"):
        colony.put(name, {"args": colony.payload(name, "tick", 0.02)})
    colony.put("other", {"args": [SLEEP, "100000"]})
    colony.start(*QUICK)
    pids = {name: colony.wait_until_running(name) for name in ("web", "dies", "other")}
    colony.wait_for_notes("dies")
    fill()
    os.kill(pids["dies"], signal.SIGKILL)
    colony.wait_for(lambda: told(colony, "dies: killed by KILL"), "its death is told")
    stopped = colony.post({"type": "STOP", "name": "other"})
    colony.wait_until_dead(pids["other"])
    colony.put("new", {"args": colony.payload("new", "serve")})
    colony.wait_for(lambda: told(colony, "new: ", FULL, "next try"), "the reason is told")
    wait_until_ticking(colony, "web")
    wait_until_forwarded(colony, "web")
    assert is_alive(pids["web"])
    assert colony.notes("new") == []
    disk.clear()
    wait_until_shown(colony, "new")
    assert colony.wait_for_answer(stopped)["state"] == "done"
    colony.wait_for_status("other", state="STOPPED", pid=None)
    again = wait_until_shown(colony, "dies", 2)
    assert [pid for pid in colony.pids("dies") if is_alive(pid)] == [again]
    assert colony.wait_until_running("web", instance=1) == pids["web"]
    assert tracebacks(colony) == ""


def test_what_cannot_be_shown_is_told(disk: Disk, colony: Colony) -> None:
    """When no status can be written because the disk is full, the supervisor's log says so, not at every scan."""
    colony.state = disk.path / "state"
    colony.put("web", {"args": [SLEEP, "100000"], "restart": "never"})
    colony.start(*QUICK)
    pid = colony.wait_until_running("web")
    disk.fill_with_files()
    os.kill(pid, signal.SIGKILL)
    # What its end frees is taken at once.
    colony.wait_for(lambda: disk.fill_with_files() or told(colony, "web: EXITED"), "its end is told")
    disk.fill_with_files()
    colony.wait_for(lambda: told(colony, "status", FULL), "it is told that the status cannot be written")
    late = colony.post({"type": "RESTART", "name": "nobody"})
    colony.wait_for(lambda: told(colony, late), "the message is handled")
    assert sum("status" in line and FULL in line for line in colony.log().splitlines()) <= 3
    disk.clear()
    colony.wait_for_status("web", state="EXITED")
    assert colony.wait_for_answer(late)["state"] == "failed"


def test_deaths_on_a_full_disk(disk: Disk, colony: Colony) -> None:
    """Supervisor and keeper, killed one by one and together while the state directory is full, come back and adopt."""
    colony.state = disk.path / "state"
    for name in ("web", "echo"):
        colony.put(name, {"args": colony.payload(name, "tick", 0.02)})
    colony.start(*QUICK)
    pids = {name: colony.wait_until_running(name) for name in ("web", "echo")}
    disk.fill()
    for halves in ("keeper", "supervisor", "both"):
        keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
        if halves != "supervisor":
            os.kill(keeper, signal.SIGKILL)
        if halves != "keeper":
            colony.kill()
            disk.fill()
            wait_until_adopted(colony)
        if halves != "supervisor":
            wait_for_another_keeper(colony, keeper)
        for name in pids:
            wait_until_ticking(colony, name)
            wait_until_forwarded(colony, name)
    disk.clear()
    for name, pid in pids.items():
        assert colony.wait_until_running(name, instance=1) == pid
        assert len(colony.pids(name)) == 1
    assert colony.send({"type": "STOP", "name": "echo"})["state"] == "done"
    assert not is_alive(pids["echo"])
    assert tracebacks(colony) == ""


def test_who_supervises_is_shown_once_it_can_be(colony: Colony) -> None:
    """A supervisor that could not describe itself at its start does so once that is possible."""
    colony.start(*QUICK)
    colony.kill()
    description = colony.state / "supervisor.json"
    description.unlink()
    description.mkdir()
    start_without_waiting(colony, *QUICK)
    colony.wait_for(lambda: colony.log().count("supervises") == 2, "it is up")
    colony.scan()
    description.rmdir()
    colony.wait_for(lambda: (colony.supervisor() or {}).get("pid") == colony.supervisor_pid, "it says who it is")


def test_problems_are_shown_when_there_is_room_again(disk: Disk, colony: Colony) -> None:
    """A problem that came while the disk was full is in supervisor.json once there is room, and goes as any other."""
    colony.state = disk.path / "state"
    colony.start(*QUICK)
    colony.scan()
    disk.fill_with_files()
    away = colony.root / "away"
    colony.config.rename(away)
    colony.wait_for(lambda: told(colony, "cannot read", str(colony.config)), "it is told")
    disk.clear()
    colony.wait_for(lambda: (colony.supervisor() or {}).get("problems"), "it is shown")
    away.rename(colony.config)
    colony.wait_for(lambda: (colony.supervisor() or {}).get("problems") == [], "it is over")


def test_a_start_on_a_full_disk(disk: Disk, colony: Colony) -> None:
    """A first supervisor whose state directory is full says so in its log, and goes to work once there is room."""
    colony.state = disk.path / "state"
    colony.state.mkdir()
    colony.put("web", {"args": [SLEEP, "100000"]})
    disk.fill()
    start_without_waiting(colony, *QUICK)
    colony.wait_for(lambda: FULL in colony.log(), "it is told")
    disk.clear()
    pid = colony.wait_until_running("web")
    assert is_alive(pid)
    assert tracebacks(colony) == ""


@pytest.mark.parametrize("way", ["bytes", "files"])
def test_a_full_log_directory(disk: Disk, colony: Colony, way: str) -> None:
    """While logs/ is full processes run on and start, the status says what is wrong, and logging resumes by itself."""
    colony.logs = disk.path / "logs"
    for name in ("web", "dies"):
        colony.put(name, {"args": colony.payload(name, "tick", 0.003)})
    colony.start(*QUICK)
    pids = {name: colony.wait_until_running(name) for name in ("web", "dies")}
    for name in pids:
        wait_until_ticking(colony, name)
        wait_until_forwarded(colony, name)
    if way == "files":
        disk.fill_with_files()
        colony.put("new", {"args": colony.payload("new", "tick", 0.003)})
        concerned = ["new"]  # the others' files are there, and there are bytes for them
    else:
        disk.fill()
        colony.put("new", {"args": colony.payload("new", "tick", 0.003)})
        concerned = ["web", "dies", "new"]
    for name in concerned:
        wait_for_warning(colony, name, FULL)
        wait_until_ticking(colony, name)
    os.kill(pids["dies"], signal.SIGKILL)
    colony.wait_for_notes("dies", 2)
    again = colony.wait_until_running("dies", instance=2)
    assert again != pids["dies"]
    assert colony.send({"type": "RESTART", "name": "new"})["state"] == "done"
    assert colony.wait_until_running("web", instance=1) == pids["web"]
    disk.clear()
    for name in ("web", "dies", "new"):
        wait_until_resumed(colony, name)
        colony.wait_for_status(name, warnings=[])
    assert tracebacks(colony) == ""


def test_dropped_output_is_counted(disk: Disk, colony: Colony) -> None:
    """How many bytes of output a full disk cost is told, and is the number of those that are nowhere."""
    colony.logs = disk.path / "logs"
    colony.put("web", {"args": colony.payload("web", "tick", 0.003)})
    colony.start(*QUICK)
    wait_until_ticking(colony, "web")
    disk.fill()
    colony.wait_for(lambda: (colony.status("web") or {}).get("warnings"), "the status says so")
    wait_until_ticking(colony, "web")
    disk.clear()
    colony.wait_for_status("web", warnings=[])
    assert colony.send({"type": "STOP", "name": "web"})["state"] == "done"
    printed = "".join(f"{line}\n" for line in colony.notes("web", "tick"))
    lost = len(printed) - len(colony.output("web"))
    assert lost > 0
    colony.wait_for(lambda: told(colony, "web: ", f"{lost} bytes"), f"it is told that {lost} bytes are lost")


def test_a_full_pid_directory(disk: Disk, colony: Colony) -> None:
    """While no pid file can be written processes run and the status says so; with room the files are right again."""
    pids = disk.path / "pids"
    for name in ("web", "dies"):
        colony.put(name, {"args": [SLEEP, "100000"]})
    colony.start(*QUICK, "--pid", str(pids))
    running = {name: colony.wait_until_running(name) for name in ("web", "dies")}
    colony.wait_for(lambda: sorted(os.listdir(pids)) == ["dies", "web"], "the pid files are there")
    disk.fill_with_files()
    colony.put("new", {"args": [SLEEP, "100000"]})
    running["new"] = colony.wait_until_running("new")
    colony.wait_for(lambda: FULL in str((colony.status("new") or {})["warnings"]), "the status says so")
    disk.fill_with_files()
    os.kill(running["dies"], signal.SIGKILL)
    running["dies"] = colony.wait_until_running("dies", instance=2)
    assert colony.wait_until_running("web", instance=1) == running["web"]
    disk.clear()
    expected = {name: f"{pid}\n" for name, pid in running.items()}
    colony.wait_for(
        lambda: {entry: (pids / entry).read_text() for entry in sorted(os.listdir(pids))} == expected,
        "the pid files are right",
    )
    for name in running:
        colony.wait_for_status(name, state="RUNNING", warnings=[])
    assert tracebacks(colony) == ""


def test_read_only_config(disk: Disk, colony: Colony) -> None:
    """When the config directory becomes read-only nothing happens, and changes through another mount are seen."""
    config = colony.config
    colony.put("web", {"args": [SLEEP, "100000"]})
    colony.config = disk.inside(config)
    colony.start(*QUICK)
    pid = colony.wait_until_running("web")
    disk.make_read_only(config)
    colony.config = config
    colony.put("new", {"args": [SLEEP, "100000"]})
    colony.wait_until_running("new")
    disk.make_writable(config)
    colony.remove("new")
    colony.wait_until_forgotten("new")
    assert colony.wait_until_running("web", instance=1) == pid
    assert (colony.supervisor() or {})["problems"] == []
    assert tracebacks(colony) == ""


def test_read_only_messages(disk: Disk, colony: Colony) -> None:
    """A message that cannot be removed is handled once, told in the log, and removed once that is possible."""
    messages = colony.messages
    colony.put("web", {"args": colony.payload("web", "serve")})
    colony.messages = disk.inside(messages)
    colony.start(*QUICK)
    colony.wait_until_running("web")
    colony.wait_for_notes("web")
    disk.make_read_only(messages)
    colony.messages = messages
    restart = colony.post({"type": "RESTART", "name": "web"})
    assert colony.wait_for_answer(restart)["state"] == "done"
    odd = colony.post(b"{}")
    assert colony.wait_for_answer(odd)["accepted"] is False
    colony.scan()
    colony.scan()
    assert (colony.status("web") or {})["instance"] == 2
    wait_until_shown(colony, "web", 2)
    assert told(colony, "cannot remove message", restart)
    assert (messages / restart).exists()
    disk.make_writable(messages)
    colony.scan()
    assert (colony.status("web") or {})["instance"] == 2
    assert tracebacks(colony) == ""
    colony.wait_for(lambda: os.listdir(messages) == [], "what was handled is removed")


def test_read_only_logs(disk: Disk, colony: Colony) -> None:
    """While the log directory is read-only processes run and start, the status says so, and logging resumes."""
    logs = colony.root / "logs"
    logs.mkdir()
    colony.logs = disk.inside(logs)
    colony.put("web", {"args": colony.payload("web", "tick", 0.02)})
    colony.start(*QUICK)
    pid = colony.wait_until_running("web")
    wait_until_ticking(colony, "web")
    disk.make_read_only(logs)
    colony.put("new", {"args": colony.payload("new", "tick", 0.02)})
    colony.wait_for(lambda: "Read-only" in str((colony.status("new") or {}).get("warnings")), "the status says so")
    for name in ("web", "new"):
        wait_until_ticking(colony, name)
    disk.make_writable(logs)
    colony.wait_for_status("new", state="RUNNING", instance=1, warnings=[])
    for name in ("web", "new"):
        wait_until_ticking(colony, name)
        wait_until_forwarded(colony, name)
    assert colony.wait_until_running("web", instance=1) == pid
    assert tracebacks(colony) == ""


def test_read_only_pid_directory(disk: Disk, colony: Colony) -> None:
    """While the pid directory is read-only processes run and end, the status says so, and the files come right."""
    pids = colony.root / "pids"
    pids.mkdir()
    for name in ("web", "stops"):
        colony.put(name, {"args": [SLEEP, "100000"]})
    colony.start(*QUICK, "--pid", str(disk.inside(pids)))
    pid = colony.wait_until_running("web")
    colony.wait_until_running("stops")
    colony.wait_for(lambda: sorted(os.listdir(pids)) == ["stops", "web"], "the pid files are there")
    disk.make_read_only(pids)
    colony.put("new", {"args": [SLEEP, "100000"]})
    new = colony.wait_until_running("new")
    colony.wait_for(lambda: "Read-only" in str((colony.status("new") or {})["warnings"]), "the status says so")
    assert colony.send({"type": "STOP", "name": "stops"})["state"] == "done"
    colony.wait_for(lambda: "Read-only" in str((colony.status("stops") or {})["warnings"]), "the status says so")
    disk.make_writable(pids)
    expected = {"web": f"{pid}\n", "new": f"{new}\n"}
    colony.wait_for(
        lambda: {entry: (pids / entry).read_text() for entry in os.listdir(pids)} == expected, "the pid files are right"
    )
    for name in ("web", "stops", "new"):
        colony.wait_for_status(name, warnings=[])
    assert tracebacks(colony) == ""


def test_read_only_state(disk: Disk, colony: Colony) -> None:
    """While the state directory is read-only processes run on and nothing new starts; then everything heals."""
    state = colony.root / "state"
    state.mkdir()
    colony.state = disk.inside(state)
    for name in ("web", "dies"):
        colony.put(name, {"args": colony.payload(name, "tick", 0.02)})
    colony.put("stops", {"args": [SLEEP, "100000"]})
    colony.start(*QUICK)
    pids = {name: colony.wait_until_running(name) for name in ("web", "dies", "stops")}
    colony.wait_for_notes("dies")
    disk.make_read_only(state)
    os.kill(pids["dies"], signal.SIGKILL)
    colony.wait_for(lambda: told(colony, "dies: ", "Read-only", "next try"), "the reason is told")
    stopped = colony.post({"type": "STOP", "name": "stops"})
    colony.wait_until_dead(pids["stops"])
    wait_until_ticking(colony, "web")
    wait_until_forwarded(colony, "web")
    assert len(colony.pids("dies")) == 1
    disk.make_writable(state)
    wait_until_shown(colony, "dies", 2)
    assert colony.wait_for_answer(stopped)["state"] == "done"
    colony.wait_for_status("stops", state="STOPPED")
    assert colony.wait_until_running("web", instance=1) == pids["web"]
    assert tracebacks(colony) == ""


def test_the_keepers_death_on_a_read_only_state_directory(disk: Disk, colony: Colony) -> None:
    """Where no keeper can start because the state directory is read-only, what runs runs on until one can."""
    state = colony.root / "state"
    state.mkdir()
    colony.state = disk.inside(state)
    colony.put("web", {"args": colony.payload("web", "serve")})
    colony.start(*QUICK)
    pid = colony.wait_until_running("web")
    colony.wait_for_notes("web")
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    disk.make_read_only(state)
    os.kill(keeper, signal.SIGKILL)
    colony.wait_for(lambda: told(colony, "keeper", "Read-only"), "it is told that there is no keeper, and why")
    assert is_alive(pid)
    disk.make_writable(state)
    assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
    wait_until_shown(colony, "web", 2)
    assert not is_alive(pid)
    assert tracebacks(colony) == ""


def test_a_full_disk_under_a_file_of_its_own(disk: Disk, colony: Colony) -> None:
    """While the disk is full the status names the file; then what was printed meanwhile is in it, each line once."""
    path = disk.path / "web.log"
    colony.put("web", {"args": colony.payload("web", "tick", 0.02), "log": {"stdout": str(path)}})
    colony.start(*QUICK)
    colony.wait_for(lambda: path.exists() and b"tick 5\n" in path.read_bytes(), "it is written")
    disk.fill()
    wait_for_warning(colony, "web", f"cannot write {path}: {FULL}")
    wait_until_ticking(colony, "web")
    wait_until_forwarded(colony, "web")
    colony.kill()
    disk.fill()
    wait_until_adopted(colony)
    wait_for_warning(colony, "web", f"cannot write {path}: {FULL}")
    disk.clear()
    colony.wait_for(lambda: not (colony.status("web") or {}).get("warnings"), "it is written again")
    assert colony.stop() == 0
    last = int(colony.notes("web", "last")[0].split()[1])
    assert path.read_bytes() == b"".join(b"tick %d\n" % number for number in range(1, last + 1))
    assert tracebacks(colony) == ""
