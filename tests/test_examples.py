"""The examples are more than text: what can be run of them here is run."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from colony import SLEEP, Colony, is_alive
from manager import Manager

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def can_be_process_1() -> bool:
    """Whether a pid namespace may be made here."""
    return (
        bool(shutil.which("unshare")) and subprocess.run([*AS_PROCESS_1, "true"], capture_output=True).returncode == 0
    )


AS_PROCESS_1 = ["unshare", "--pid", "--fork", "--mount-proc"]


def here(arguments: list[str], colony: Colony) -> list[str]:
    """The command line of an example, with this Python and this colony's directories."""
    places = {"--messages": str(colony.messages), "--config": str(colony.config)}
    command = [sys.executable, *arguments[1:]]
    for option, place in places.items():
        if option in command:
            command[command.index(option) + 1] = place
    return command


class Unit(configparser.ConfigParser):
    """A systemd unit; keys keep their case."""

    def __init__(self, path: Path) -> None:
        super().__init__(interpolation=None)
        self.optionxform = str  # type: ignore[assignment,method-assign]
        self.read_string(path.read_text(encoding="utf-8"))


def test_unit_runs_reloads_and_stops(colony: Colony, tmp_path: Path) -> None:
    """The unit's ExecStart starts a supervisor that says so, its ExecReload upgrades it in place, SIGTERM ends it."""
    service = Unit(EXAMPLES / "ncolony.service")["Service"]
    manager = Manager(tmp_path / "notify")
    colony.put("a", {"args": [SLEEP, "1000"]})
    command = [*here(shlex.split(service["ExecStart"]), colony), "--state", str(colony.state)]
    colony.start(command=command, env={**os.environ, "NOTIFY_SOCKET": manager.name})
    manager.next_with("READY")
    pid = colony.wait_until_running("a")
    reload = service["ExecReload"].replace("$MAINPID", str(colony.supervisor_pid))
    assert subprocess.run(shlex.split(reload), check=False).returncode == 0
    manager.next_with("RELOADING")
    manager.next_with("READY")
    assert colony.wait_until_running("a") == pid
    assert colony.stop() == 0
    manager.next_with("STOPPING")
    manager.close()


def test_unit_lets_processes_outlive_the_supervisor() -> None:
    """Systemd is told to signal the supervisor alone, to start it again, and to leave a process killed for memory."""
    service = Unit(EXAMPLES / "ncolony.service")["Service"]
    said = {key: service[key] for key in ("KillMode", "Restart", "OOMPolicy", "Delegate")}
    assert said == {"KillMode": "process", "Restart": "on-failure", "OOMPolicy": "continue", "Delegate": "yes"}


@pytest.mark.parametrize(
    ("result", "code", "ends"),
    [
        ("signal", "killed", False),
        ("watchdog", "killed", False),
        ("core-dump", "dumped", False),
        ("exit-code", "exited", False),
        ("oom-kill", "killed", False),
        ("success", "exited", False),  # an orderly end: there is nothing left
        ("success", "killed", True),
        ("timeout", "killed", True),
    ],
)
def test_unit_ends_what_a_stop_could_not(colony: Colony, result: str, code: str, ends: bool) -> None:
    """After a crash ExecStopPost leaves alone what runs; after a stop that the supervisor did not finish it ends it."""
    post = shlex.split(Unit(EXAMPLES / "ncolony.service")["Service"]["ExecStopPost"].replace("$$", "$"))
    assert post[:2] == ["-/bin/sh", "-c"]
    command = ["/bin/sh", *post[1:4], *here(post[4:], colony)]
    command[command.index("shutdown") : command.index("shutdown")] = ["--state", str(colony.state)]
    colony.put("a", {"args": [SLEEP, "1000"]})
    colony.start()
    pid = colony.wait_until_running("a")
    colony.kill()
    env = {**os.environ, "SERVICE_RESULT": result, "EXIT_CODE": code}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert is_alive(pid) is not ends
    if ends:
        colony.wait_for(lambda: not colony.processes(), "nothing is left")


def instructions(word: str) -> list[str]:
    """What follows this instruction in the Dockerfile, each time."""
    text = (EXAMPLES / "Dockerfile").read_text(encoding="utf-8")
    return re.findall(rf"(?m)^{word} (.*)$", text)


@pytest.mark.skipif(not can_be_process_1(), reason="no pid namespace may be made here")
def test_container_runs_as_process_1_and_stops(colony: Colony) -> None:
    """The Dockerfile's `ctl` line and entry point, as process 1, run the web server; SIGTERM ends all with 0."""
    [variable] = instructions("ENV")
    assert variable == "NCOLONY_CTL_CONFIG=/conf"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "NCOLONY_CTL_CONFIG": str(colony.config)}
    [add] = [line for line in instructions("RUN") if line.startswith("ncolony ctl")]
    # Any free port: this machine may use the example's own for something else.
    added = [
        *here(["python", "-m", "ncolony", *shlex.split(add)[1:]], colony),
        "--arg=--listen=tcp:0:interface=127.0.0.1",
    ]
    done = subprocess.run(added, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    web = json.loads((colony.config / "web").read_text(encoding="utf-8"))
    assert web["args"][:4] == ["python", "-m", "twisted", "web"]

    [entry] = instructions("ENTRYPOINT")
    assert json.loads(entry)[0] == "ncolony"
    command = [sys.executable, "-m", *json.loads(entry), "--state", str(colony.state)]
    colony.start(prefix=AS_PROCESS_1, command=command, env=env)
    supervisor = colony.supervisor()
    assert supervisor is not None
    assert supervisor["pid"] == 1
    colony.wait_until_running("web")
    colony.wait_for(lambda: "starting on" in (colony.root / "output").read_text("utf-8"), "web says that it listens")
    assert colony.stop() == 0
