"""Limits that are reached, users that are not root, pids that lie, several supervisors: nobody is doubled or hit."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from colony import PAYLOAD, SLEEP, Colony, arguments_of, descriptors, fields_of, is_alive, put_whole

NO_FILES = "no descriptors left"
NO_PROCESSES = "Resource temporarily unavailable"
QUICK = ("--frequency", "0.2", "-m", "0.1", "-M", "0.3")
FEW_FILES = ("sh", "-c", 'ulimit -n 80 && exec "$@"', "sh")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")


def tracebacks(colony: Colony) -> str:
    """What looks like a traceback in the supervisor's log, in the keeper's, and in what they printed."""
    paths = (colony.log_file, colony.root / "output", colony.state / "keeper.log")
    texts = [path.read_text(errors="replace") for path in paths if path.exists()]
    return "\n".join(text for text in texts if "Traceback" in text)


def told(colony: Colony, *words: str) -> bool:
    """Whether a line of the supervisor's log holds all these words."""
    return any(all(word in line for word in words) for line in colony.log().splitlines())


def states(colony: Colony) -> dict[str, list[str]]:
    """Which processes are in which state."""
    found: dict[str, list[str]] = {}
    for name in sorted(colony.known()):
        found.setdefault((colony.status(name) or {"state": "?"})["state"], []).append(name)
    return found


# Descriptors


def test_more_processes_than_descriptors(colony: Colony) -> None:
    """Those that fit run, the others are in backoff with the reason, all else works, and who can starts later."""
    names = [f"p{number:02}" for number in range(90)]
    for name in names:
        colony.put(name, {"args": [SLEEP, "100000"]})
    colony.start(*QUICK, prefix=FEW_FILES)

    def all_are_somewhere() -> bool:
        found = states(colony)
        return len(found.get("RUNNING", [])) + len(found.get("BACKOFF", [])) == len(names)

    colony.wait_for(all_are_somewhere, "each runs or waits")
    running, waiting = states(colony)["RUNNING"], states(colony)["BACKOFF"]
    assert len(running) >= 20
    assert waiting
    for name in waiting:
        reason = (colony.status(name) or {})["reason"]
        assert NO_FILES in reason, reason
    pids = {name: colony.wait_until_running(name) for name in running}
    assert colony.send({"type": "RESTART", "name": running[0]})["accepted"]
    assert colony.send({"type": "STOP", "name": running[1]})["state"] == "done"
    (problem,) = (colony.supervisor() or {})["problems"]
    assert problem.startswith("not every process fits"), problem
    assert all(is_alive(pids[name]) for name in running[2:])
    for name in running[:15] + waiting[15:]:
        colony.remove(name)
    for name in waiting[:15] + running[15:]:
        colony.wait_until_running(name)
    assert colony.stop(signal.SIGINT) == 0
    assert colony.processes() == {}
    assert tracebacks(colony) == ""


def test_logs_with_few_descriptors(colony: Colony) -> None:
    """Where there are fewer descriptors than logs, no line is lost: files are closed and opened in turn."""
    names = [f"p{number:02}" for number in range(30)]
    for name in names:
        colony.put(name, {"args": colony.payload(name, "tick", 0.05)})
    colony.start(*QUICK, prefix=FEW_FILES)
    for name in names:
        colony.wait_until_running(name)
        colony.wait_for_notes(name, 10, beginning="tick ")
    assert colony.stop() == 0
    for name in names:
        assert colony.output(name).decode().splitlines() == colony.notes(name, "tick")
    assert tracebacks(colony) == ""


def fill_descriptors(colony: Colony) -> None:
    """Start printing processes until nobody can have another descriptor, or no more are started."""
    for number in range(70):
        colony.put(f"p{number:02}", {"args": colony.payload(f"p{number:02}", "tick", 0.05)})
    colony.wait_for(lambda: told(colony, NO_FILES), "descriptors have run out")


def test_an_end_without_free_descriptors(colony: Colony) -> None:
    """When the keeper can have no more descriptors, an exit is noticed and acted on, and so is the end of all."""
    colony.put("web", {"args": [SLEEP, "100000"], "restart": "never"})
    colony.put("echo", {"args": [SLEEP, "100000"]})
    colony.start(*QUICK)
    pid = colony.wait_until_running("web")
    colony.wait_until_running("echo")
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    least = next(number for number in itertools.count() if number not in descriptors(keeper))
    resource.prlimit(keeper, resource.RLIMIT_NOFILE, (least, resource.prlimit(keeper, resource.RLIMIT_NOFILE)[1]))
    os.kill(pid, signal.SIGKILL)
    colony.wait_for_status("web", state="EXITED")
    assert colony.stop() == 0
    assert colony.processes() == {}
    assert tracebacks(colony) == ""


def test_a_tree_is_stopped_without_free_descriptors(colony: Colony) -> None:
    """When descriptors have run out, a process whose file is removed ends with its whole tree, politely."""
    colony.put("family", {"args": colony.payload("family", "daemon")})
    colony.start(*QUICK, prefix=FEW_FILES)
    colony.wait_until_running("family")
    (child,) = (int(line.split()[1]) for line in colony.wait_for_notes("family", beginning="child "))
    (leader,) = (int(line.split()[1]) for line in colony.wait_for_notes("family"))
    fill_descriptors(colony)
    colony.remove("family")
    colony.wait_until_dead(leader)
    colony.wait_until_dead(child)
    assert colony.pids("family", "term child") == [child]
    assert tracebacks(colony) == ""


@pytest.mark.parametrize("halves", ["keeper", "both"])
def test_adoption_with_few_descriptors(colony: Colony, halves: str) -> None:
    """Whatever could be started can be adopted too, although that may take more descriptors."""
    names = [f"p{number:02}" for number in range(45)]
    for name in names:
        colony.put(name, {"args": [SLEEP, "100000"]})
    colony.start(*QUICK, prefix=FEW_FILES)

    def all_are_somewhere() -> bool:
        found = states(colony)
        return len(found.get("RUNNING", [])) + len(found.get("BACKOFF", [])) == len(names)

    colony.wait_for(all_are_somewhere, "each runs or waits")
    pids = {name: colony.wait_until_running(name) for name in states(colony)["RUNNING"]}
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    if halves == "both":
        colony.kill()
    os.kill(keeper, signal.SIGKILL)
    colony.wait_until_dead(keeper)
    if halves == "both":
        colony.start(*QUICK, prefix=FEW_FILES)
    first, *others = pids
    assert colony.send({"type": "RESTART", "name": first})["state"] == "done"
    assert not is_alive(pids[first])
    colony.wait_until_running(first, instance=2)
    for name in others:
        assert colony.wait_until_running(name, instance=1) == pids[name]
    assert colony.stop() == 0
    assert colony.processes() == {}
    assert tracebacks(colony) == ""


# Processes


@pytest.fixture
def pids_cgroup(tmp_path: Path) -> Iterator[Path]:
    """A cgroup that counts processes (version 1); to be asked for before the colony, which must end first."""
    try:
        (line,) = re.findall(r"^\d+:pids:(/.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
        cgroup = Path(f"/sys/fs/cgroup/pids{line}") / f"colony-{os.getpid()}-{random.getrandbits(32):08x}"
        cgroup.mkdir()
    except (OSError, ValueError):
        pytest.skip("there is no pids cgroup that we may write")
    yield cgroup
    for pid in (cgroup / "cgroup.procs").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    while True:
        try:
            cgroup.rmdir()
            return
        except OSError:  # the last ones are still on their way out
            os.sched_yield()


def start_in(colony: Colony, cgroup: Path) -> None:
    join = f'echo $$ >{cgroup}/cgroup.procs && exec "$@"'
    colony.start(*QUICK, prefix=("sh", "-c", join, "sh"))


def allow(cgroup: Path, more: int | None) -> None:
    """Allow so many more processes and threads than there are; None: any number."""
    now = int((cgroup / "pids.current").read_text())
    (cgroup / "pids.max").write_text("max" if more is None else str(now + more))


def wait_for_retries(colony: Colony, name: str) -> None:
    colony.wait_for(lambda: (colony.status(name) or {})["restarts"] > 2, f"{name} is tried again")


def test_no_more_processes(pids_cgroup: Path, colony: Colony) -> None:
    """When the kernel gives no more processes a start is an instant death with the reason, retried until it works."""
    colony.put("web", {"args": colony.payload("web", "serve")})
    start_in(colony, pids_cgroup)
    pid = colony.wait_until_running("web")
    allow(pids_cgroup, 0)
    nobody = {"uid": 65534, "cwd": "/"} if os.getuid() == 0 else {}
    colony.put("new", {"args": [SLEEP, "100000"]})
    colony.put("forked", {"args": [SLEEP, "100000"], **nobody})
    for name in ("new", "forked"):
        status = colony.wait_for_status(name, state="BACKOFF")
        assert NO_PROCESSES in status["reason"]
        wait_for_retries(colony, name)
    assert colony.wait_until_running("web", instance=1) == pid
    allow(pids_cgroup, None)
    for name in ("new", "forked"):
        colony.wait_until_running(name)
    assert tracebacks(colony) == ""


@pytest.mark.parametrize("more", [-2, -1])
def test_no_process_for_a_keeper(pids_cgroup: Path, colony: Colony, more: int) -> None:
    """Where the kernel gives no process for a new keeper, or no thread, what runs runs on, and it is tried again."""
    colony.put("web", {"args": colony.payload("web", "serve")})
    start_in(colony, pids_cgroup)
    pid = colony.wait_until_running("web")
    colony.wait_for_notes("web")
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    allow(pids_cgroup, more)
    os.kill(keeper, signal.SIGKILL)
    colony.wait_until_dead(keeper)
    message = colony.post({"type": "RESTART", "name": "web"})
    colony.wait_for(
        lambda: told(colony, "cannot start the keeper", NO_PROCESSES) or told(colony, "keeper", "thread"),
        "it is told that no keeper starts, and why",
        10,
    )
    assert is_alive(pid)
    allow(pids_cgroup, None)
    assert colony.wait_for_answer(message)["state"] == "done"
    colony.wait_for_notes("web", 2)
    assert not is_alive(pid)
    assert tracebacks(colony) == ""


# Another user


# Where Python lies in somebody's private directory ($3), lay it ($2) open in a mount namespace of our own.
LAY_OPEN = """
mount --bind "$2" "$1" && mount -t tmpfs -o mode=755 none "$3" && mkdir -p "$2" && mount --move "$1" "$2" || exit 77
shift 3
exec "$@"
"""


class Plain:
    """A colony of a user that has nothing else on this machine."""

    def __init__(self, colony: Colony) -> None:
        self.colony = colony
        self.uid = random.randrange(1 << 20, 1 << 21)
        for directory in (colony.root, colony.config, colony.messages):
            os.chown(directory, self.uid, self.uid)
        to = str(self.uid)
        self.become = ("setpriv", "--reuid", to, "--regid", to, "--clear-groups", "--inh-caps=-all")
        # The payload may lie where the user cannot read it.
        self.payload = str(shutil.copy(PAYLOAD, colony.root))
        self.opening: tuple[str, ...] = ()
        home = Path(sys.base_prefix)
        private = [path for path in home.parents if path.stat().st_mode & 0o005 != 0o005]
        if private:
            unshare, hold = shutil.which("unshare"), colony.root / "python"
            if unshare is None:
                pytest.skip("there is no Python that another user may run")
            hold.mkdir()
            script = ("sh", "-c", LAY_OPEN, "sh", str(hold), str(home), str(private[-1]))
            self.opening = (unshare, "--mount", *script)

    def arguments(self, name: str, mode: str, *arguments: object) -> list[str]:
        """The command line of payload.py, as this user can run it."""
        command = self.colony.payload(name, mode, *arguments)
        return [self.payload if word == str(PAYLOAD) else word for word in command]

    def start(self, *options: str, before: tuple[str, ...] = ()) -> None:
        try:
            self.colony.start(*QUICK, *options, prefix=(*self.opening, *before, *self.become))
        except AssertionError:
            if self.colony.process is not None and self.colony.process.poll() == 77:
                pytest.skip("a file system cannot be mounted here")
            raise

    def allow(self, pid: int, processes: int) -> None:
        """Have a process of the user's start no more than so many processes and threads of his."""
        command = [*self.become, "prlimit", "--pid", str(pid), f"--nproc={processes}:"]
        subprocess.run(command, check=True, timeout=60)


@pytest.fixture
def plain(open_colony: Colony) -> Plain:
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv command")
    return Plain(open_colony)


@needs_root
def test_a_plain_user(plain: Plain) -> None:
    """Without root a colony starts, forwards output, restarts, stops, and outlives both its deaths."""
    colony = plain.colony
    colony.put("web", {"args": plain.arguments("web", "say", "hello")})
    colony.put("family", {"args": plain.arguments("family", "daemon")})
    colony.put("oops", {"args": ["/bin/false"]})
    plain.start()
    pid = colony.wait_until_running("web")
    assert fields_of(pid)["Uid"].split() == [str(plain.uid)] * 4
    colony.wait_for(lambda: colony.lines("web") == ["hello"], "its output is forwarded")
    colony.wait_for_status("oops", state="BACKOFF")
    assert colony.send({"type": "RESTART", "name": "web"})["state"] == "done"
    again = colony.wait_until_running("web", instance=2)
    colony.wait_for_notes("family")
    family = colony.wait_until_running("family")
    colony.kill()
    plain.start()
    assert colony.wait_until_running("web", instance=2) == again
    os.kill(colony.wait_for(colony.keeper_pid, "there is a keeper"), signal.SIGKILL)
    assert colony.send({"type": "STOP", "name": "family"})["state"] == "done"
    assert not is_alive(family)
    assert not is_alive(colony.pids("family", "child")[0])
    assert colony.wait_until_running("web", instance=2) == again
    assert colony.stop() == 0
    assert tracebacks(colony) == ""


@needs_root
def test_a_plain_user_cannot_become_another(plain: Plain) -> None:
    """Without root a uid of one's own is fine, and another's is refused with a reason that names it."""
    colony = plain.colony
    colony.put("mine", {"args": [SLEEP, "100000"], "uid": plain.uid, "gid": plain.uid})
    colony.put("user", {"args": [SLEEP, "100000"], "uid": 65534})
    colony.put("group", {"args": [SLEEP, "100000"], "gid": 65534})
    plain.start()
    colony.wait_until_running("mine")
    for name in ("user", "group"):
        reason = colony.wait_for_status(name, state="BACKOFF")["reason"]
        assert f"cannot become {name} 65534" in reason
        assert "root" in reason
    assert tracebacks(colony) == ""


@needs_root
def test_a_limit_on_the_users_processes(plain: Plain) -> None:
    """A user who may have no more processes sees why a start fails; it is tried again, and works once he may."""
    colony = plain.colony
    colony.put("web", {"args": plain.arguments("web", "serve")})
    plain.start(before=("prlimit", "--nproc=20:20"))
    pid = colony.wait_until_running("web")
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    # Supervisor, keeper's two threads, and the process are four.
    plain.allow(keeper, 4)
    colony.put("new", {"args": [SLEEP, "100000"]})
    assert NO_PROCESSES in colony.wait_for_status("new", state="BACKOFF")["reason"]
    assert colony.wait_until_running("web", instance=1) == pid
    plain.allow(keeper, 20)
    colony.wait_until_running("new")
    assert tracebacks(colony) == ""


# Pids that lie


@pytest.fixture
def innocent(tmp_path: Path) -> Iterator[Callable[[], list[str]]]:
    """A process outside of every colony that notes each signal it gets; its pid and what it noted."""
    notes = tmp_path / "innocent"
    names = "HUP INT QUIT USR1 USR2 ALRM TERM CONT"
    traps = "; ".join(f"trap 'echo {name} >>{notes}' {name}" for name in names.split())
    script = f"{traps}; echo up >>{notes}; while :; do sleep 0.05; done"
    process = subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True, cwd="/")

    def look() -> list[str]:
        assert process.poll() is None, "the innocent is dead"
        return [str(process.pid), *(notes.read_text().split() if notes.exists() else [])]

    while "up" not in look():
        os.sched_yield()
    yield look
    process.kill()
    process.wait()


@pytest.mark.parametrize("halves", ["supervisor", "keeper", "both"])
def test_an_innocent_is_never_signalled(innocent: Callable[[], list[str]], colony: Colony, halves: str) -> None:
    """A pid file and a record edited to hold an innocent's pid lead to no signal, whoever dies and comes back."""
    pids = colony.root / "pids"
    stranger = int(innocent()[0])
    for name in ("web", "echo"):
        colony.put(name, {"args": colony.payload(name, "serve")})
    options = (*QUICK, "-k", "0.3", "--pid", str(pids))
    colony.start(*options)
    running = {name: colony.wait_until_running(name) for name in ("web", "echo")}
    for name in running:
        colony.wait_for_notes(name)
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    # What was killed cannot write while it is being lied to.
    for pid in (keeper, colony.supervisor_pid):
        os.kill(pid, signal.SIGSTOP)
    for name in running:
        (pids / name).write_text(f"{stranger}\n")
    for record in (colony.state / "instances").iterdir():
        lines = [json.loads(line) for line in record.read_text().splitlines()]
        for line in lines:
            if "pid" in line:
                line["pid"] = stranger
        record.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if halves != "supervisor":
        os.kill(keeper, signal.SIGKILL)
    if halves != "keeper":
        colony.kill()
    for pid in (keeper, colony.supervisor_pid) if halves == "keeper" else (keeper,):
        if is_alive(pid):
            os.kill(pid, signal.SIGCONT)
    if halves != "keeper":
        colony.start(*options)
    assert colony.send({"type": "STOP", "name": "web"})["state"] in ("done", "failed")
    colony.remove("echo")
    colony.wait_until_forgotten("echo")
    assert colony.send({"type": "START", "name": "web"})["state"] == "done"
    assert colony.stop() == 0
    assert innocent() == [str(stranger), "up"]
    for pid in running.values():
        assert not is_alive(pid), "the processes themselves were stopped"


def test_pid_files_after_both_deaths(colony: Colony) -> None:
    """After SIGKILL of supervisor and keeper pid files of the dead are gone, and those of the adopted are right."""
    pids = colony.root / "pids"
    names = ("stays", "dies", "removed")
    for name in names:
        colony.put(name, {"args": [SLEEP, "100000"], "restart": "never"})
    colony.start(*QUICK, "--pid", str(pids))
    running = {name: colony.wait_until_running(name) for name in names}
    colony.wait_for(lambda: sorted(os.listdir(pids)) == sorted(names), "the pid files are there")
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    colony.kill()
    os.kill(keeper, signal.SIGKILL)
    for name in ("dies", "removed"):
        os.kill(running[name], signal.SIGKILL)
    colony.wait_until_dead(running["dies"], running["removed"])
    colony.remove("removed")
    (pids / "stays").unlink()
    colony.start(*QUICK, "--pid", str(pids))
    colony.wait_for(
        lambda: {path.name: path.read_text() for path in pids.iterdir()} == {"stays": f"{running['stays']}\n"},
        "the pid files are right",
    )


# Several supervisors


def test_ten_more_supervisors(colony: Colony) -> None:
    """Ten supervisors that come at once to a state directory that is taken each end with one line; nothing happens."""
    colony.put("web", {"args": colony.payload("web", "tick", 0.02)})
    colony.start(*QUICK)
    pid = colony.wait_until_running("web")
    keeper = colony.wait_for(colony.keeper_pid, "there is a keeper")
    before = sorted(target for target in descriptors(keeper).values() if target.startswith("socket:"))
    command = [*colony.command()[:3], *colony.command()[5:]]
    rivals = [
        subprocess.Popen(command, cwd=colony.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(10)
    ]
    for rival in rivals:
        output, _ = rival.communicate(timeout=60)
        assert rival.returncode == 1, output
        assert output.count("\n") == 1, output
        assert f"cannot start: ncolony (pid {colony.supervisor_pid}) already supervises" in output
    assert (colony.supervisor() or {})["pid"] == colony.supervisor_pid
    assert colony.keeper_pid() == keeper
    assert sorted(target for target in descriptors(keeper).values() if target.startswith("socket:")) == before
    colony.scan()
    assert colony.wait_until_running("web", instance=1) == pid
    assert colony.stop() == 0
    assert colony.lines("web") == colony.notes("web", "tick")


def test_two_colonies_side_by_side(new_colony: Callable[[str], Colony], tmp_path: Path) -> None:
    """Two colonies over one config directory never touch each other's processes, whoever dies in one of them."""
    one, other = new_colony("one"), new_colony("other")
    args = ["/bin/sh", "-c", 'echo "up $$" >>notes/web; exec sleep 100000']
    shared = tmp_path / "conf"
    shared.mkdir()
    put_whole(shared, "web", json.dumps({"args": args}).encode())
    for colony in (one, other):
        colony.config = shared
        colony.start(*QUICK)
    mine, theirs = one.wait_until_running("web"), other.wait_until_running("web")
    assert mine != theirs
    for _ in range(2):
        os.kill(one.wait_for(one.keeper_pid, "there is a keeper"), signal.SIGKILL)
        assert one.send({"type": "RESTART", "name": "web"})["state"] == "done"
        one.kill()
        one.start(*QUICK)
        one.wait_for_status("web", state="RUNNING")
    assert not is_alive(mine)
    assert arguments_of(theirs)
    assert one.stop() == 0
    other.scan()
    assert other.wait_until_running("web", instance=1) == theirs
    assert other.pids("web") == [theirs]
    assert len(one.pids("web")) == 3
    for colony in (one, other):
        assert tracebacks(colony) == ""
