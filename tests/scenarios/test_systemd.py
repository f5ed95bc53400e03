"""Under a real systemd: a user's manager, in namespaces and a control group of its own, with the generated unit."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from colony import SLEEP, is_alive

SYSTEMD = "/usr/lib/systemd/systemd"
# The hierarchy that systemd keeps its units in: its own in the first version, the only one in the second.
HIERARCHIES = ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup")
START = """
mount -t tmpfs none /run && mkdir -p /run/systemd/system  # what tells that systemd has booted the machine
SYSTEMD_LOG_TARGET=console {systemd} --user &
wait
"""


class Machine:
    """A manager that runs until `close`, and what a user tells it."""

    def __init__(self, hierarchy: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="sd-"))
        self.group = Path(hierarchy) / f"ncolony-test-{secrets.token_hex(6)}"
        self.config, self.log = self.root / "cfg" / "ncolony" / "conf", self.root / "log"
        for place in (self.config, self.root / "run"):
            place.mkdir(parents=True)
        (self.root / "run").chmod(0o700)
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.root), "XDG_RUNTIME_DIR": str(self.root / "run"),
            "XDG_CONFIG_HOME": str(self.root / "cfg"), "XDG_STATE_HOME": str(self.root / "state"),
        }  # fmt: skip
        self.group.mkdir()
        begin = f"echo $$ > {self.group}/cgroup.procs && exec unshare --pid --fork --mount-proc --mount --kill-child"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", f'{begin} sh -c "$0"', START.format(systemd=SYSTEMD)],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def wait_for(self, found: Callable[[], Any], what: str, timeout: float = 60) -> Any:
        deadline = time.monotonic() + timeout
        while not (value := found()):
            assert time.monotonic() < deadline, f"not within {timeout} s: {what}\n{self.log.read_text('utf-8')}"
            time.sleep(0.05)
        return value

    def boots(self) -> bool:
        """Wait until it is up; False when it never is, here."""
        deadline = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < deadline:
            if self.do("systemctl", "--user", "is-system-running").stdout.strip() in ("running", "degraded"):
                return True
            time.sleep(0.1)
        return False

    def do(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in there."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        command = ["nsenter", "-t", children[0] if children else "0", "-m", "-p", *words]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=90, check=False, cwd="/"
        )

    def systemctl(self, *words: str) -> str:
        """What systemctl says; it must succeed."""
        done = self.do("systemctl", "--user", *words)
        assert done.returncode == 0, f"{words}: {done.stderr}\n{self.log.read_text('utf-8')}"
        return done.stdout

    def ncolony(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.do(sys.executable, "-m", "ncolony", *words)

    def show(self, key: str) -> str:
        """A property of the unit."""
        return self.systemctl("show", "-P", key, "ncolony").strip()

    def running(self, name: str = "a") -> int:
        """The pid, in there, of a process when it runs; 0 while it does not."""
        places = ["--config", str(self.config), "--messages", str(self.root / "state" / "ncolony" / "messages")]
        done = self.ncolony("ctl", *places, "status", name, "--json")
        [found] = json.loads(done.stdout) if done.returncode in (0, 3) else [{}]
        return int(found["pid"]) if found.get("state") == "RUNNING" else 0

    def began(self) -> float:
        """When the supervisor's program was started; 0 while it does not say."""
        done = self.do("sh", "-c", "cat /run/ncolony/*/supervisor.json")
        return float(json.loads(done.stdout)["started"]) if done.stdout else 0

    def kill(self, number: str, pid: str | int) -> None:
        done = self.do("kill", f"-{number}", str(pid))
        assert done.returncode == 0, done.stderr

    def lives(self, pid: int) -> bool:
        return self.do("kill", "-0", str(pid)).returncode == 0

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)  # unshare takes its namespace with it
        self.process.wait()
        groups = sorted(self.group.rglob("*/"), key=lambda path: -len(path.parts))
        for group in [path for path in [*groups, self.group] if path.is_dir()]:
            self.wait_for(lambda group=group: _remove(group), f"{group} is empty")
        shutil.rmtree(self.root)


def _remove(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _hierarchy() -> str:
    """Where a group for a manager can be made, "" where not."""
    if os.geteuid() != 0 or not (os.path.exists(SYSTEMD) and shutil.which("nsenter") and shutil.which("unshare")):
        return ""
    return next((place for place in HIERARCHIES if os.path.exists(f"{place}/cgroup.procs")), "")


@pytest.fixture
def machine() -> Iterator[Machine]:
    hierarchy = _hierarchy()
    if not hierarchy:
        pytest.skip("no systemd can be run here")
    try:
        found = Machine(hierarchy)
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        if not found.boots():
            pytest.skip(f"systemd does not run here: {found.log.read_text('utf-8')[-500:]}")
        yield found
    finally:
        found.close()


@pytest.fixture
def unit(machine: Machine) -> Machine:
    """The machine, with a colony's unit that runs."""
    (machine.config / "a").write_text(json.dumps({"args": [SLEEP, "100000"]}), encoding="utf-8")
    done = machine.ncolony("startup", "--user")
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        if line.startswith("  systemctl --user "):  # what it says to run
            machine.systemctl(*line.split()[2:])
    assert machine.running()
    return machine


def test_unit_is_up_when_all_run(unit: Machine) -> None:
    """`enable --now` returns when everything runs; the status counts; the unit is wanted at boot; a stop ends all."""
    assert unit.show("StatusText") == "1 process: 1 running"
    assert (unit.show("ActiveState"), unit.show("NRestarts")) == ("active", "0")
    assert unit.systemctl("is-enabled", "ncolony") == "enabled\n"
    pid = unit.running()
    unit.systemctl("stop", "ncolony")
    assert not unit.lives(pid)
    assert (unit.show("ActiveState"), unit.show("Result")) == ("inactive", "success")
    assert "remains running" not in unit.log.read_text("utf-8")


def test_processes_outlive_a_crash(unit: Machine) -> None:
    """After SIGKILL of the supervisor systemd starts another, which takes over the same process."""
    pid, supervisor = unit.running(), unit.show("MainPID")
    unit.kill("KILL", supervisor)
    unit.wait_for(lambda: unit.show("MainPID") not in (supervisor, "0"), "another supervisor")
    unit.wait_for(lambda: unit.show("ActiveState") == "active", "it is ready")
    assert unit.running() == pid
    unit.systemctl("stop", "ncolony")
    assert not unit.lives(pid)


def test_hang_is_noticed(unit: Machine) -> None:
    """A supervisor that hangs is replaced by the watchdog, and its process does not notice."""
    drop_in = unit.root / "cfg" / "systemd" / "user" / "ncolony.service.d" / "quick.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nWatchdogSec=2\n", encoding="utf-8")
    unit.systemctl("daemon-reload")
    unit.systemctl("restart", "ncolony")
    pid, supervisor = unit.running(), unit.show("MainPID")
    unit.kill("STOP", supervisor)
    unit.wait_for(lambda: unit.show("MainPID") not in (supervisor, "0"), "another supervisor")
    unit.wait_for(lambda: unit.show("ActiveState") == "active", "it is ready")
    assert unit.running() == pid


def test_reload_is_an_upgrade(unit: Machine) -> None:
    """A reload executes the installed version in place: same pid, same process, and active again afterwards."""
    pid, supervisor, before = unit.running(), unit.show("MainPID"), unit.began()
    unit.systemctl("reload", "ncolony")
    unit.wait_for(lambda: unit.began() not in (before, 0), "another program runs")
    unit.wait_for(lambda: unit.show("ActiveState") == "active", "it is ready again")
    assert (unit.show("MainPID"), unit.running(), unit.show("NRestarts")) == (supervisor, pid, "0")


def test_stop_of_a_supervisor_that_starts(unit: Machine) -> None:
    """A stop that comes while the next supervisor is still starting ends what the dead one left."""
    pid, supervisor = unit.running(), unit.show("MainPID")
    unit.kill("KILL", supervisor)
    unit.wait_for(lambda: unit.show("MainPID") not in (supervisor, "0"), "another supervisor is being started")
    unit.systemctl("stop", "ncolony")
    unit.wait_for(lambda: not unit.lives(pid), "what ran is ended")
    assert unit.show("ActiveState") != "active"


def test_long_stop_is_not_cut_short(unit: Machine) -> None:
    """A stop that takes longer than TimeoutStopSec goes on, since the supervisor asks for more time."""
    drop_in = unit.root / "cfg" / "systemd" / "user" / "ncolony.service.d" / "quick.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nTimeoutStopSec=1\n", encoding="utf-8")
    told = unit.root / "told"
    script = f'trap "sleep 4; echo done > {told}; exit 0" TERM; while :; do sleep 0.1; done'
    slow = {"args": ["/bin/sh", "-c", script], "kill_time": 60, "stop_scope": "process"}
    (unit.config / "slow").write_text(json.dumps(slow), encoding="utf-8")
    unit.systemctl("daemon-reload")
    unit.wait_for(lambda: unit.running("slow"), "slow runs")
    unit.systemctl("stop", "ncolony")
    assert told.read_text() == "done\n"
    assert unit.show("Result") == "success"


def test_orderly_end_is_no_reason_to_start_again(unit: Machine) -> None:
    """After `ctl shutdown` the unit stays down."""
    places = ["--config", str(unit.config), "--messages", str(unit.root / "state" / "ncolony" / "messages")]
    assert unit.ncolony("ctl", *places, "shutdown", "--wait").returncode == 0
    unit.wait_for(lambda: unit.show("ActiveState") == "inactive", "the unit is down")
    assert (unit.show("Result"), unit.show("NRestarts")) == ("success", "0")
    assert is_alive(unit.process.pid)
