"""Directories that others write too: names that are taken, links, exchanged files.

$TMPDIR/ncolony-UID: `test_a_state_directory_that_another_made`, `test_a_link_to_our_own_directory_that_another_made`,
`test_the_command_line_does_not_believe_it_either`, `test_names_of_temporary_files` (messages and config),
`test_a_pid_file_is_never_written_through_a_link`, `test_a_log_directory_of_another_user`,
`test_a_log_is_never_written_through_a_link`, `test_an_own_file_in_a_directory_of_the_process`,
`test_shutdown_makes_no_file_elsewhere`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from people import ALICE, MALLORY, SOURCE, become, needs_root, python, run_as, what_goes_wrong

from colony import SLEEP, Colony

pytestmark = needs_root
BASE = {"args": [SLEEP, "100000"]}
PREPARE = """
from ncolony.system.places import make_private, state_directory
os.environ.pop("XDG_RUNTIME_DIR", None)
os.environ["TMPDIR"] = sys.argv[1]
make_private(state_directory("c", "m"))
"""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A directory like /tmp."""
    with tempfile.TemporaryDirectory(prefix="shared-") as place:
        path = Path(place)
        path.chmod(0o1777)
        yield path


def test_a_state_directory_that_another_made(temporary: Path) -> None:
    """The default state directory is not used when somebody else has made it, or anybody may write it."""
    squatted = temporary / f"ncolony-{ALICE}"
    squatted.mkdir()
    os.chown(squatted, MALLORY, MALLORY)
    assert what_goes_wrong(ALICE, PREPARE, temporary).endswith("UnsafeState")
    os.chown(squatted, ALICE, ALICE)
    squatted.chmod(0o777)
    assert what_goes_wrong(ALICE, PREPARE, temporary).endswith("UnsafeState")
    squatted.chmod(0o700)
    assert what_goes_wrong(ALICE, PREPARE, temporary) == ""


def test_a_link_to_our_own_directory_that_another_made(temporary: Path) -> None:
    """Nor when it is a link that somebody else made and can lead elsewhere later, wherever it leads now."""
    (temporary / "home").mkdir(mode=0o700)
    os.chown(temporary / "home", ALICE, ALICE)
    link = temporary / f"ncolony-{ALICE}"
    link.symlink_to(temporary / "home")
    os.lchown(link, MALLORY, MALLORY)
    assert what_goes_wrong(ALICE, PREPARE, temporary).endswith("UnsafeState")
    assert os.listdir(temporary / "home") == []
    os.lchown(link, ALICE, ALICE)
    assert what_goes_wrong(ALICE, PREPARE, temporary) == ""


@pytest.mark.parametrize("verb", ["status", "shutdown"])
def test_the_command_line_does_not_believe_it_either(temporary: Path, verb: str) -> None:
    """`ctl` reads no statuses and talks to no keeper in a default state directory that another user made."""
    (temporary / f"ncolony-{ALICE}").mkdir()
    os.chown(temporary / f"ncolony-{ALICE}", MALLORY, MALLORY)
    for name in ("conf", "messages"):
        (temporary / name).mkdir()
    command = [*become(ALICE), python(), "-m", "ncolony", "ctl", "--config", str(temporary / "conf")]
    command += ["--messages", str(temporary / "messages"), verb]
    env = {"TMPDIR": str(temporary), "PATH": os.environ["PATH"], "PYTHONPATH": SOURCE}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert done.returncode == 1
    assert f"belongs to user {MALLORY}, not to {ALICE}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert os.listdir(temporary / "messages") == []


def test_names_of_temporary_files(temporary: Path) -> None:
    """Who shares a directory can neither take the names that we write under first, nor lead us elsewhere by them."""
    victim = temporary / "victim"
    victim.write_text("as it was")
    os.chown(victim, ALICE, ALICE)
    script = """
from ncolony import ctllib
from ncolony.ctllib import Places
for number in range(64):
    os.symlink(sys.argv[2], f"{sys.argv[1]}/.{os.getpid()}-{number}.new")
for _ in range(8):
    ctllib.restart_all(Places("/nowhere", sys.argv[1]))
print(len([name for name in os.listdir(sys.argv[1]) if not name.startswith(".")]))
"""
    shared = temporary / "messages"
    shared.mkdir()
    shared.chmod(0o1777)
    done = run_as(ALICE, script, shared, victim)
    assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr
    assert victim.read_text() == "as it was"


def test_a_pid_file_is_never_written_through_a_link(open_colony: Colony) -> None:
    """A link in the place of a PID file is replaced, and what it led to stays as it was."""
    pids = open_colony.root / "pids"
    pids.mkdir()
    victim = open_colony.root / "victim"
    victim.write_text("as it was")
    (pids / "web").symlink_to(victim)
    open_colony.put("web", BASE)
    open_colony.start("--pid", str(pids))
    pid = open_colony.wait_until_running("web")
    assert not (pids / "web").is_symlink()
    assert int((pids / "web").read_text()) == pid
    open_colony.remove("web")
    open_colony.wait_until_forgotten("web")
    assert os.listdir(pids) == []
    assert victim.read_text() == "as it was"


def test_a_log_directory_of_another_user(open_colony: Colony) -> None:
    """Nothing is written where another user has made the log directory of a process, or a link; the status says so."""
    open_colony.logs.mkdir()
    open_colony.logs.chmod(0o1777)
    for name in ("web", "link"):
        open_colony.put(name, {"args": ["/bin/sh", "-c", "echo x; exec sleep 100000"]})
    target = open_colony.root / "target"
    target.mkdir()
    assert run_as(MALLORY, "os.mkdir(sys.argv[1])", open_colony.logs / "web").returncode == 0
    assert run_as(MALLORY, "os.symlink(*sys.argv[1:])", target, open_colony.logs / "link").returncode == 0
    open_colony.start()
    for name in ("web", "link"):
        status = open_colony.wait_for(
            lambda name=name: (one := open_colony.status(name)) and one["warnings"] and one, "the status says so"
        )
        assert "belongs to another user" in status["warnings"][0]
        assert status["state"] == "RUNNING"
    assert os.listdir(target) == []
    assert os.listdir(open_colony.logs / "web") == []


@pytest.mark.parametrize("name", ["current", "current.index", "cuts"])
def test_a_log_is_never_written_through_a_link(open_colony: Colony, name: str) -> None:
    """A link in the place of a kept file is not followed, whoever made it."""
    victim = open_colony.root / "victim"
    victim.write_text("as it was")
    (open_colony.logs / "web").mkdir(parents=True)
    (open_colony.logs / "web" / name).symlink_to(victim)
    script = "printf x; exec sleep 100000"
    open_colony.put("web", {"args": ["/bin/sh", "-c", script]})
    open_colony.start()
    open_colony.wait_until_running("web")
    open_colony.send({"type": "RESTART", "name": "web"})
    open_colony.wait_until_running("web", instance=2)
    open_colony.stop()
    assert victim.read_text() == "as it was"


@pytest.mark.parametrize("whose", ["the user", "root"])
def test_an_own_file_in_a_directory_of_the_process(open_colony: Colony, whose: str) -> None:
    """With `log.stdout` in a directory that its user may write, root follows no link that this user made there."""
    home, target = open_colony.root / "home", open_colony.root / "target"
    home.mkdir()
    target.mkdir()
    os.chown(home, ALICE, ALICE)
    (home / "logs").symlink_to(target)
    if whose == "the user":
        os.lchown(home / "logs", ALICE, ALICE)
    script = "echo hello; exec sleep 100000"
    config = {"args": ["/bin/sh", "-c", script], "uid": ALICE, "cwd": str(home), "log": {"stdout": "logs/out"}}
    open_colony.put("web", config)
    open_colony.start()
    if whose == "root":
        open_colony.wait_for(lambda: (target / "out").exists() and (target / "out").read_text(), "it is written")
        return
    status = open_colony.wait_for(
        lambda: (one := open_colony.status("web")) and one["warnings"] and one, "the status says so"
    )
    assert f"logs is a symbolic link of user {ALICE}" in status["warnings"][0]
    assert status["state"] == "RUNNING"
    assert os.listdir(target) == []


def test_shutdown_makes_no_file_elsewhere(open_colony: Colony) -> None:
    """`ctl shutdown` does not follow a link that stands where its lock would be."""
    open_colony.state.mkdir()
    (open_colony.state / "shutdown.lock").symlink_to(open_colony.root / "made")
    done = subprocess.run(
        [sys.executable, "-m", "ncolony", "ctl", *open_colony.ctl_places(), "--state", open_colony.state, "shutdown"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert not (open_colony.root / "made").exists()
