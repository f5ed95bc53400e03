"""What a process of another user is left with, of what the supervisor has.

`test_nothing_of_roots_is_left` (ids, groups, capabilities, descriptors, session, umask, limits), `test_a_group_alone`,
`test_a_terminal_is_out_of_reach`, `test_the_environment_is_empty`, `test_what_cannot_be_signalled_is_told`,
`test_an_unprivileged_supervisor_becomes_nobody`.
"""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys

from people import ALICE, NOBODY, needs_root, unprivileged

from colony import MARK, SLEEP, Colony, descriptors, environment_of, fields_of, is_alive

pytestmark = needs_root


def test_nothing_of_roots_is_left(open_colony: Colony) -> None:
    """Real, effective, saved and filesystem ids, groups and capabilities are the user's; nothing is inherited."""
    open_colony.put("web", {"args": [SLEEP, "100000"], "uid": ALICE, "umask": "077", "cwd": "/"})
    open_colony.start(prefix=["setpriv", "--groups=1,2,3", "--inh-caps=+net_raw,+sys_admin"])
    pid = open_colony.wait_until_running("web")
    fields = fields_of(pid)
    assert fields["Uid"].split() == fields["Gid"].split() == [str(ALICE)] * 4
    assert fields["Groups"] == ""
    for kind in ("CapPrm", "CapEff", "CapAmb"):
        assert int(fields[kind], 16) == 0, kind
    assert fields["Umask"] == "0077"
    assert fields["NoNewPrivs"] == "0"  # sudo and its like work, as documented
    assert os.getsid(pid) == os.getpgid(pid) == pid
    assert set(descriptors(pid)) == {0, 1, 2}
    assert os.readlink(f"/proc/{pid}/cwd") == "/"


def test_a_group_alone(open_colony: Colony) -> None:
    """With `gid` alone, root's supplementary groups are gone too."""
    open_colony.put("web", {"args": [SLEEP, "100000"], "gid": ALICE})
    open_colony.start(prefix=["setpriv", "--groups=1,2,3"])
    fields = fields_of(open_colony.wait_until_running("web"))
    assert fields["Gid"].split() == [str(ALICE)] * 4
    assert fields["Groups"] == ""


def test_a_terminal_is_out_of_reach(open_colony: Colony) -> None:
    """Where the supervisor runs on a terminal, its processes do not have it, and cannot type into it (TIOCSTI)."""
    script = """
import fcntl, os, sys, termios
try:
    print("terminal", os.open("/dev/tty", os.O_RDWR))
except OSError as error:
    print("none:", error.strerror)
for number in (0, 1, 2):
    print(os.isatty(number))
sys.stdout.flush()
import signal; signal.pause()
"""
    open_colony.put("web", {"args": [sys.executable, "-I", "-S", "-c", script]})
    ours, theirs = pty.openpty()
    try:
        # A session of its own, whose controlling terminal this one is.
        take = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
        )
        environment = {**os.environ, MARK: open_colony.mark}
        command = [sys.executable, "-I", "-S", "-c", take, *open_colony.command()]
        open_colony.process = subprocess.Popen(
            command, cwd=open_colony.root, env=environment, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True,
        )  # fmt: skip
        open_colony.wait_for(lambda: len(open_colony.lines("web")) == 4, "it has looked for a terminal")
        assert open_colony.lines("web") == ["none: No such device or address", "False", "False", "False"]
        assert fields_of(open_colony.supervisor_pid)["Uid"].startswith("0")
        open_colony.stop()
    finally:
        os.close(ours)
        os.close(theirs)


def test_the_environment_is_empty(open_colony: Colony) -> None:
    """Nothing of the supervisor's environment is passed on unasked, neither to a process nor to the keeper."""
    open_colony.put("web", {"args": [SLEEP, "100000"], "uid": ALICE})
    open_colony.start(env={**os.environ, "AWS_SECRET_ACCESS_KEY": "x", "LD_LIBRARY_PATH": "/nowhere", "PYTHONPATH": ""})
    names = set(environment_of(open_colony.wait_until_running("web")))
    assert names == {MARK, "NCOLONY_NAME", "NCOLONY_CONFIG", "NCOLONY_INSTANCE"}
    keeper = open_colony.keeper_pid()
    assert keeper
    assert environment_of(keeper) == {}


def test_what_cannot_be_signalled_is_told(open_colony: Colony) -> None:
    """A program that has become root under an unprivileged supervisor cannot be stopped: the status names it."""
    program = open_colony.root / "setuid"
    shutil.copy(shutil.which("setpriv") or "", program)
    program.chmod(0o4755)
    for directory in (open_colony.root, open_colony.config, open_colony.messages):
        os.chown(directory, ALICE, ALICE)
    args = [str(program), "--reuid=0", "--regid=0", "--clear-groups", SLEEP, "100000"]
    open_colony.put("root", {"args": args, "kill_time": 0.1})
    open_colony.put("web", {"args": [SLEEP, "100000"]})
    open_colony.start(**unprivileged(ALICE, open_colony.command()))
    pid = open_colony.wait_until_running("root")
    open_colony.wait_for(lambda: fields_of(pid)["Uid"].split()[0] == "0", "it has become root")
    open_colony.post({"type": "STOP", "name": "root"})
    status = open_colony.wait_for(lambda: (one := open_colony.status("root")) and one["holding"] and one, "it is told")
    assert status["state"] == "STOPPING"
    assert status["holding"] == [f"pid {pid} (sleep)"]
    assert is_alive(pid)
    assert open_colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
    os.kill(pid, signal.SIGKILL)
    open_colony.wait_for_status("root", state="STOPPED")


def test_an_unprivileged_supervisor_becomes_nobody(open_colony: Colony) -> None:
    """A supervisor that is not root starts nothing as another user or group, and says so."""
    for directory in (open_colony.root, open_colony.config, open_colony.messages):
        os.chown(directory, ALICE, ALICE)
    for name, keys in {
        "root": {"uid": 0},
        "other": {"uid": NOBODY},
        "group": {"gid": 0},
        "ours": {"uid": ALICE},
    }.items():
        open_colony.put(name, {"args": [SLEEP, "100000"], **keys})
    open_colony.start(**unprivileged(ALICE, open_colony.command()))
    for name in ("root", "other", "group"):
        assert "does not run as root" in open_colony.wait_for_status(name, state="BACKOFF")["reason"]
    assert fields_of(open_colony.wait_until_running("ours"))["Uid"].split() == [str(ALICE)] * 4
