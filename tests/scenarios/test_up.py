"""`ncolony up`: a Procfile's processes in the foreground, with foreman's rules, and nothing left of it at its end."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from colony import MARK, Colony, arguments_of

UNTIL_TERM = "trap 'echo got TERM; exit 0' TERM; echo up; while :; do sleep 0.05; done"
DEAF = "trap '' TERM; echo up; while :; do sleep 0.05; done"


class Up:
    """One `ncolony up` in a directory of its own, on a terminal or not."""

    def __init__(self, colony: Colony, words: tuple[str, ...], terminal: bool, env: dict[str, str]) -> None:
        self.colony, self.temporary, self.text = colony, colony.root / "tmp", ""
        self.temporary.mkdir(exist_ok=True)
        inherited = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "PORT", "PS")}
        inherited |= {MARK: colony.mark, "TMPDIR": str(self.temporary), "TERM": "xterm", "SHOUT": "hey", **env}
        self.reader, writer = pty.openpty() if terminal else os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ncolony", "up", *words],
            cwd=colony.root,
            env=inherited,
            stdin=None if terminal else subprocess.DEVNULL,
            stdout=None if terminal else writer,
            stderr=None if terminal else subprocess.STDOUT,
            pass_fds=[writer] if terminal else [],
            preexec_fn=(lambda: os.login_tty(writer)) if terminal else os.setsid,
        )
        os.close(writer)

    def read(self, timeout: float) -> bool:
        """Take what is printed; False at its end."""
        if not select.select([self.reader], [], [], timeout)[0]:
            return True
        try:
            data = os.read(self.reader, 1 << 16)
        except OSError:  # a terminal that nobody has open
            return False
        self.text += data.decode().replace("\r\n", "\n")
        return bool(data)

    def wait_for(self, pattern: str, timeout: float = 30) -> re.Match[str]:
        """Read until a line of the output matches."""
        deadline, more = time.monotonic() + timeout, True
        while not (found := re.search(pattern, self.text, re.MULTILINE)):
            assert more and time.monotonic() < deadline, f"{pattern!r} did not come: {self.text}"
            more = self.read(0.1)
        return found

    def wait(self, timeout: float = 30) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + timeout
        while self.read(0.1):
            assert time.monotonic() < deadline, f"it goes on: {self.text}"
        return self.process.wait(timeout)

    def press(self, keys: bytes) -> None:
        """Type on the terminal."""
        os.write(self.reader, keys)

    def nothing_is_left(self) -> None:
        """Neither a process nor a file."""
        self.colony.wait_for(lambda: not self.colony.processes(), "no process is left")
        self.colony.wait_for(lambda: not os.listdir(self.temporary), "no file is left")

    def supervisor(self) -> int:
        """The pid of its supervisor."""
        return self.colony.wait_for(lambda: self._find("twisted"), "there is a supervisor")

    def guard(self) -> int:
        """The pid of its guard, which looks like itself."""
        return self.colony.wait_for(lambda: self._find("up", but=self.process.pid), "there is a guard")

    def _find(self, word: str, but: int = 0) -> int:
        return next((pid for pid in self.colony.processes() if pid != but and word in arguments_of(pid)), 0)


@pytest.fixture
def up(colony: Colony) -> Iterator[Callable[..., Up]]:
    """Start one with these words; the Procfile's lines are given by name."""
    begun: list[Up] = []

    def start(*words: str, terminal: bool = False, env: dict[str, str] | None = None, **commands: str) -> Up:
        if commands:
            lines = "".join(f"{name}: {command}\n" for name, command in commands.items())
            (colony.root / "Procfile").write_text(lines, encoding="utf-8")
        begun.append(Up(colony, words, terminal, env or {}))
        return begun[-1]

    yield start
    for one in begun:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        os.close(one.reader)


def test_first_end_ends_all(colony: Colony, up: Callable[..., Up]) -> None:
    """The code of the first to end is the code of all; its last words come first, and the others get TERM."""
    (colony.root / ".env").write_text("A='from the file'\nSHOUT=changed\n", encoding="utf-8")
    script = f'echo "$A, $SHOUT, $PS, $PORT"; while [ ! -e {colony.root}/go ]; do sleep 0.05; done; echo bye; exit 3'
    started = up(web=script, worker=UNTIL_TERM + "; echo $PORT")
    started.wait_for(r"^worker  \| up$")
    (colony.root / "go").touch()
    assert started.wait() == 3
    web = re.findall(r"^web     \| (.*)$", started.text, re.MULTILINE)
    assert web[1:] == ["from the file, changed, web.1, 5000", "bye", "exited with code 3"]
    assert re.fullmatch(r"started with pid \d+", web[0])
    assert "ncolony | stopping the others\n" in started.text
    assert "worker  | got TERM\n" in started.text
    assert "\x1b" not in started.text
    started.nothing_is_left()


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("kill -9 $$", 137), ("kill -TERM $$", 143)])
def test_exit_status(up: Callable[..., Up], command: str, code: int) -> None:
    """The exit status is the code of what ended first, or 128 and its signal's number."""
    started = up(it=command, other=UNTIL_TERM)
    assert started.wait() == code
    started.nothing_is_left()


def test_interrupted(up: Callable[..., Up]) -> None:
    """CTRL-C stops every process in its own way; the exit status says so."""
    started = up(a=UNTIL_TERM, bb=UNTIL_TERM, terminal=True)
    for name in ("a", "bb"):
        started.wait_for(rf"{name:<7} \|\x1b\[0m up$")
    started.press(b"\x03")
    assert started.wait() == 130
    for name in ("a", "bb"):
        started.wait_for(rf"{name:<7} \|\x1b\[0m got TERM$")
    assert "stopping; CTRL-C again to kill" in started.text
    started.nothing_is_left()


def test_interrupted_twice(up: Callable[..., Up]) -> None:
    """A second CTRL-C kills what does not care for TERM, long before its time is over."""
    started = up("--timeout", "1000", deaf=DEAF, terminal=True)
    started.wait_for("up$")
    started.press(b"\x03")
    started.wait_for("again to kill")
    started.press(b"\x03")
    assert started.wait() == 130
    assert "killing what is left" in started.text
    started.nothing_is_left()


def test_timeout(up: Callable[..., Up]) -> None:
    """Without a second one it is killed after --timeout."""
    started = up("-t", "0.3", deaf=DEAF, quick="sleep 0.2; exit 4")
    assert started.wait() == 4
    started.nothing_is_left()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signalled(up: Callable[..., Up], number: int, code: int) -> None:
    """SIGTERM and SIGHUP, the end of the terminal, stop everything too."""
    started = up(a=UNTIL_TERM)
    started.wait_for(r"\| up$")
    started.process.send_signal(number)
    assert started.wait() == code
    assert "got TERM" in started.text
    started.nothing_is_left()


def test_at_the_very_start(up: Callable[..., Up]) -> None:
    """However early it is told to stop, it does."""
    for delay in (0.05, 0.1, 0.2, 0.3, 0.5):
        started = up(a=UNTIL_TERM)
        started.read(delay)
        started.process.send_signal(signal.SIGTERM)
        assert started.wait() in (143, -signal.SIGTERM)
        started.nothing_is_left()


@pytest.mark.parametrize("victim", ["up", "guard", "supervisor", "keeper"])
def test_killed(colony: Colony, up: Callable[..., Up], victim: str) -> None:
    """Whoever of them is killed by SIGKILL: nothing keeps running, and nothing is left on disk."""
    started = up(a=UNTIL_TERM)
    started.wait_for(r"\| up$")
    supervisor = started.supervisor()
    pids = {"up": started.process.pid, "guard": started.guard(), "supervisor": supervisor}
    pids["keeper"] = next(pid for pid in colony.processes() if "-S" in arguments_of(pid))
    os.kill(pids[victim], signal.SIGKILL)
    if victim == "keeper":  # the supervisor has another: it all goes on
        started.wait_for("starting another")
        started.process.terminate()
        assert started.wait() == 143
    elif victim != "up":
        assert started.wait() == 128 + signal.SIGKILL
    colony.wait_for(lambda: not colony.processes(), "no process is left")
    if victim != "guard":  # whose work that is
        started.nothing_is_left()


def test_all_killed(colony: Colony, up: Callable[..., Up]) -> None:
    """With all but the keeper killed at once, the keeper ends what runs."""
    started = up(a=UNTIL_TERM)
    started.wait_for(r"\| up$")
    for pid in (started.guard(), started.supervisor(), started.process.pid):
        os.kill(pid, signal.SIGKILL)
    colony.wait_for(lambda: not colony.processes(), "no process is left")


def test_reader_is_gone(up: Callable[..., Up]) -> None:
    """When nobody reads its output any more, as behind `| head -1`, it stops everything."""
    started = up(a="while :; do echo again; sleep 0.02; done")
    started.wait_for("again")
    own, started.reader = started.reader, os.open(os.devnull, os.O_RDONLY)
    os.close(own)
    assert started.process.wait(30) == 128 + signal.SIGPIPE
    started.nothing_is_left()


def test_keep_going(up: Callable[..., Up]) -> None:
    """With --keep-going the others go on, and the status is that of the first that failed."""
    started = up("--keep-going", good="exit 0", bad="sleep 0.2; exit 5", late="sleep 0.6; echo still here; exit 6")
    assert started.wait() == 5
    assert "late    | still here" in started.text
    assert "stopping" not in started.text
    started.nothing_is_left()


def test_formation_and_ports(up: Callable[..., Up]) -> None:
    """-m says how many of each; each type's ports begin 100 later, in the order of the Procfile."""
    tell = "echo port $PORT; sleep 1000"
    started = up("-m", "web=2,clock=1", "--port", "7000", web=tell, worker=tell, clock=tell)
    for line in (r"web.1   \| port 7000", r"web.2   \| port 7001", r"clock   \| port 7200"):
        started.wait_for(line)
    assert "worker" not in started.text
    started.process.terminate()
    assert started.wait() == 143


def test_names_and_env(colony: Colony, up: Callable[..., Up]) -> None:
    """Only those named are run, with their usual ports; -e names other files than .env, and PORT is the first port."""
    (colony.root / "web").mkdir()  # a name of a process is not taken for a directory
    (colony.root / ".env").write_text("A=1\n", encoding="utf-8")
    (colony.root / "other").write_text("B=2\nPORT=9000\n", encoding="utf-8")
    tell = "echo A=$A B=$B $PORT; sleep 1000"
    started = up("web", "-e", "other", web=tell, worker=tell)
    started.wait_for(r"^web     \| A= B=2 9000$")
    assert "worker" not in started.text
    started.process.terminate()
    assert started.wait() == 143


def test_elsewhere(colony: Colony, up: Callable[..., Up]) -> None:
    """A Procfile somewhere else is run where it lies, with the .env beside it."""
    place = colony.root / "app"
    place.mkdir()
    (place / "Procfile.dev").write_text("web: pwd; echo $A; exit 0\n", encoding="utf-8")
    (place / ".env").write_text("A=beside\n", encoding="utf-8")
    started = up("app/Procfile.dev")
    assert started.wait() == 0
    assert f"web     | {place}\nweb     | beside\n" in started.text


def test_config_directory(colony: Colony, up: Callable[..., Up]) -> None:
    """A directory of definitions is run by the same rules, where they do not say otherwise."""
    definitions: dict[str, dict[str, Any]] = {
        "again": {"args": ["sh", "-c", "echo here; exit 1"], "restart": "always", "env": {"PATH": os.environ["PATH"]}},
        "off": {"args": ["false"], "enabled": False},
        "once": {"args": ["sh", "-c", f"echo $SHOUT; while [ ! -e {colony.root}/go ]; do sleep 0.05; done; exit 9"]},
    }
    for name, definition in definitions.items():
        (colony.config / name).write_text(json.dumps(definition), encoding="utf-8")
    started = up(str(colony.config))
    started.wait_for(r"(?s)again   \| here.*again   \| here")
    started.wait_for(r"^ncolony \| again: exit code 1 after .* s; next try in .* s$")
    started.wait_for(r"^once    \| hey$")
    (colony.root / "go").touch()
    assert started.wait() == 9
    assert sorted(os.listdir(colony.config)) == sorted(definitions)
    started.nothing_is_left()


@pytest.mark.parametrize("definition", [{"on_exit": "shutdown"}, {"instances": 2}])
def test_what_else_a_definition_may_say(colony: Colony, up: Callable[..., Up], definition: dict[str, Any]) -> None:
    """A definition that ends the colony, or has several copies, has its exit status too."""
    args = ["/bin/sh", "-c", "sleep 0.3; exit 12"]
    (colony.config / "it").write_text(json.dumps({"args": args, **definition}), encoding="utf-8")
    (colony.config / "other").write_text(json.dumps({"args": ["/bin/sh", "-c", UNTIL_TERM]}), encoding="utf-8")
    started = up(str(colony.config))
    assert started.wait() == 12
    started.nothing_is_left()


def test_all_copies_end(colony: Colony, up: Callable[..., Up]) -> None:
    """With --keep-going every copy has to end."""
    args = ["/bin/sh", "-c", "sleep 0.$NCOLONY_INDEX; echo at the end of $NCOLONY_INDEX"]
    (colony.config / "it").write_text(json.dumps({"args": args, "instances": 3}), encoding="utf-8")
    started = up(str(colony.config), "--keep-going")
    assert started.wait() == 0
    assert all(f"at the end of {index}" in started.text for index in range(3))


def test_program_that_is_not_there(colony: Colony, up: Callable[..., Up]) -> None:
    """What cannot be started counts as ended with 127, and the reason is told."""
    (colony.config / "gone").write_text('{"args": ["/nonexistent/program"]}', encoding="utf-8")
    started = up(str(colony.config))
    assert started.wait() == 127
    assert re.search(r"^gone    \| .*/nonexistent/program", started.text, re.MULTILINE)


@pytest.mark.parametrize(
    ("env", "terminal", "coloured"),
    [({}, True, True), ({"NO_COLOR": "1"}, True, False), ({"TERM": "dumb"}, True, False), ({}, False, False)],
)
def test_colours(up: Callable[..., Up], env: dict[str, str], terminal: bool, coloured: bool) -> None:
    """Names are coloured on a terminal, unless NO_COLOR is set; what processes print is shown as it is."""
    started = up(a=r"printf '\033[1mbold\033[0m\n'", b="sleep 100", terminal=terminal, env=env)
    started.wait()
    prefix = "\x1b[36ma       |\x1b[0m" if coloured else "a       |"
    assert f"{prefix} \x1b[1mbold\x1b[0m\n" in started.text


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 1, "cannot read Procfile: No such file or directory"),
        (("nosuch",), 1, "cannot read Procfile: No such file or directory"),
        (("bad",), 1, "cannot read bad: line 1: expected NAME: COMMAND, found 'nonsense'"),
        (("good", "db"), 1, "cannot start db: good does not define it"),
        (("good", "-m", "db=2"), 1, "cannot start db: good does not define it"),
        (("good", "-m", "web=0"), 1, "cannot start anything: good defines no process"),
        (("good", "-m", "web"), 2, "expected NAME=N,…, found 'web'"),
        (("good", "-e", "none"), 1, "cannot read none: No such file or directory"),
        (("good", "-t", "nan"), 2, "--timeout takes seconds"),
        (("./conf",), 1, "cannot start broken: ./conf/broken: not JSON"),
    ],
)
def test_nonsense_is_refused(
    colony: Colony, up: Callable[..., Up], words: tuple[str, ...], code: int, said: str
) -> None:
    """What cannot be run is told in one line, and nothing is started."""
    (colony.root / "bad").write_text("nonsense\n", encoding="utf-8")
    (colony.root / "good").write_text("web: true\n", encoding="utf-8")
    (colony.config / "broken").write_text("{", encoding="utf-8")
    started = up(*words)
    assert started.wait() == code
    assert said in started.text.splitlines()[-1]
    started.nothing_is_left()


def test_directory_is_private(up: Callable[..., Up]) -> None:
    """While it runs, nobody else can look into its directory, or give it orders."""
    started = up(a=UNTIL_TERM)
    started.wait_for(r"\| up$")
    [place] = started.temporary.iterdir()
    assert place.stat().st_mode & 0o777 == 0o700
    started.process.terminate()
    assert started.wait() == 143


def test_temporary_directory_that_cannot_be_used(colony: Colony, up: Callable[..., Up]) -> None:
    """When its directory cannot be made, it says so and ends with 1."""
    (colony.root / "Procfile").write_text("a: true\n", encoding="utf-8")
    full = colony.root / "tmp"
    full.mkdir()
    script = (
        f"import sys, tempfile; tempfile.tempdir = '{full}/gone'; from ncolony.cli import main; sys.exit(main(['up']))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=colony.root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "cannot run a colony in" in done.stdout
