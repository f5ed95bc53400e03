"""Where secrets are and where they are not.

`test_an_env_secret_is_in_the_environment_and_nowhere_else`, `test_values_of_variables_are_in_no_problem`,
`test_only_its_user_reads_the_environment`, `test_a_config_file_keeps_its_mode`.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from people import ALICE, MALLORY, needs_root, run_as, tree

from colony import SLEEP, Colony, environment_of

SECRET = "correct-horse-battery-staple"


def everything_of(colony: Colony) -> dict[str, bytes]:
    """Every file below the colony's directories, and command line and environment of its two halves."""
    found = {}
    for path in tree(colony.root):
        if path.is_file() and not path.is_symlink():
            found[str(path)] = path.read_bytes()
    for pid in (colony.supervisor_pid, colony.keeper_pid()):
        for name in ("cmdline", "environ"):
            found[f"{pid} {name}"] = Path(f"/proc/{pid}/{name}").read_bytes()
    return found


def where(colony: Colony) -> list[str]:
    return [name for name, data in everything_of(colony).items() if SECRET.encode() in data]


def test_an_env_secret_is_in_the_environment_and_nowhere_else(colony: Colony) -> None:
    """The value of an env_secret reaches the process, and no file, log, event, history, journal, or other environment.

    Nor do starts that fail, restarts, an upgrade, and the death of the keeper or the supervisor let it out.
    """
    secret = colony.root / "secret"
    secret.write_text(SECRET + "\n")
    config = {"env_secret": {"PASSWORD": str(secret)}, "min_restart_delay": 0.1}
    colony.put("web", {**config, "args": ["/bin/sh", "-c", "exec sleep 100000"]})
    colony.put("dies", {**config, "args": ["/bin/sh", "-c", "exit 3"]})
    colony.put("absent", {**config, "args": ["/no/such/program"]})
    colony.put("large", {**config, "args": [SLEEP, "100000"], "a.b": "x" * 200_000, "limits": {"core": 0}})
    colony.start("--pid", str(colony.root / "pids"), log_format="json")
    pid = colony.wait_until_running("web")
    assert environment_of(pid)["PASSWORD"] == SECRET
    assert environment_of(colony.wait_until_running("large"))["PASSWORD"] == SECRET
    colony.wait_for(lambda: (colony.state / "history" / "dies").exists(), "an end is recorded")
    colony.wait_for(lambda: (colony.state / "history" / "absent").exists(), "a refusal is recorded")
    assert where(colony) == [str(secret)]
    for message in ({"type": "RESTART", "name": "web"}, {"type": "UPGRADE"}, {"type": "STOP", "name": "web"}):
        colony.send(message)
    assert where(colony) == [str(secret)]
    secret.write_text(f"\0{SECRET}")  # cannot be used: the reason does not show it either
    colony.send({"type": "START", "name": "web"})
    colony.wait_for_status("web", state="BACKOFF")
    assert where(colony) == [str(secret)]
    assert SECRET not in colony.ctl("--state", str(colony.state), "status", "--long", check=False)


@pytest.mark.parametrize(
    "config",
    [
        b'{"args": ["x"], "env": "%s"}',
        b'{"args": ["x"], "env": ["PASSWORD=%s"]}',
        b'{"args": ["x"], "env": {"PASSWORD": ["%s"]}}',
        b'{"args": ["x"], "env": {"PASS=WORD": "%s"}}',
        b'{"args": ["x"], "env": {"PASSWORD": "%s\\u0000"}}',
        b'{"args": ["x"], "env_secret": ["%s"]}',
        b'{"args": ["x"], "env_secret": {"PASSWORD": {"value": "%s"}}}',
        b'{"args": ["x"], "env": {"PASSWORD": "%s"',
        b'{"args": ["x"], "env": {"PASSWORD": "%s\xff"}}',
        b'{"args": ["x"], "nice": 99, "env": {"PASSWORD": "%s"}}',
    ],
    ids=range(10),
)
def test_values_of_variables_are_in_no_problem(colony: Colony, config: bytes) -> None:
    """A config file that cannot be used says which variable is wrong, and never shows the value of one."""
    colony.put("web", config.replace(b"%s", SECRET.encode()))
    colony.start()
    colony.wait_for_problem("web")
    colony.ctl("check", check=False)
    assert where(colony) == [str(colony.config / "web")]
    assert SECRET not in colony.ctl("check", check=False)


@needs_root
def test_only_its_user_reads_the_environment(open_colony: Colony) -> None:
    """The environment of a process is read by its own user and root, not by others; so is that of the supervisor."""
    open_colony.put("web", {"args": [SLEEP, "100000"], "uid": ALICE, "env": {"PASSWORD": SECRET}})
    (open_colony.config / "web").chmod(0o600)
    open_colony.start()
    pid = open_colony.wait_until_running("web")
    script = "print(open(f'/proc/{sys.argv[1]}/environ').read())"
    assert SECRET in run_as(ALICE, script, pid).stdout
    assert "PermissionError" in run_as(MALLORY, script, pid).stderr
    for other in (open_colony.supervisor_pid, open_colony.keeper_pid()):
        assert "PermissionError" in run_as(ALICE, script, other).stderr
    assert "PermissionError" in run_as(MALLORY, "open(sys.argv[1])", open_colony.config / "web").stderr


def test_a_config_file_keeps_its_mode(colony: Colony) -> None:
    """What was closed to others stays closed when the command line writes it again, and nothing new is open to all."""
    colony.ctl("add", "web", "--cmd=sleep", "--env=A=1")
    (colony.config / "web").chmod(0o600)
    colony.ctl("add", "web", "--cmd=sleep", "--env=A=2")
    colony.ctl("disable", "web")
    assert stat.S_IMODE((colony.config / "web").stat().st_mode) == 0o600
    before = os.umask(0)
    try:
        colony.ctl("add", "new", "--cmd=sleep")
        colony.ctl("restart-all")
    finally:
        os.umask(before)
    for path in (colony.config / "new", *colony.messages.iterdir()):
        assert not path.stat().st_mode & 0o002
