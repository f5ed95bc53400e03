"""A colony under test: one supervisor with directories of its own, driven and watched from outside.

Nothing here asks the supervisor's code: files are written as a user would write them, and what is true of processes
is read from /proc. `NOTES` files (see payload.py) are written by the supervised programs themselves.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

PAYLOAD = Path(__file__).with_name("payload.py")
MARK = "COLONY_MARK"
_T = TypeVar("_T")
_counter = itertools.count()


class Colony:
    """One supervisor's directories, its process while it runs, and everything it started."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "conf"
        self.messages = root / "messages"
        self.state = root / "state"
        self.logs = root / "logs"
        self.log_file = root / "log"
        self.notes_directory = root / "notes"
        self.mark = f"colony-{os.getpid()}-{secrets.token_hex(8)}"
        self.process: subprocess.Popen[bytes] | None = None
        self.abandoned = False  # the supervisor was SIGKILLed: that its children live on is what should happen
        for directory in (self.config, self.messages, self.notes_directory):
            directory.mkdir()

    # Running the supervisor

    def command(self, *options: str, log_format: str = "text") -> list[str]:
        """`python -m twisted … ncolony …` on this colony's directories."""
        return [
            *(sys.executable, "-m", "twisted", f"--log-format={log_format}", f"--log-file={self.log_file}", "ncolony"),
            *("--messages", str(self.messages), "--config", str(self.config)),
            *("--state", str(self.state), "--logs", str(self.logs)),
            *options,
        ]

    def start(
        self,
        *options: str,
        log_format: str = "text",
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        command: Sequence[str] | None = None,
    ) -> None:
        """Start a supervisor and wait until it says that it is up. `prefix` is a command that runs another one."""
        self.launch(*options, log_format=log_format, env=env, prefix=prefix, command=command)
        own_namespace = "unshare" in prefix
        self.wait_for(lambda: self._is_up(own_namespace), "the supervisor is up")

    def launch(
        self,
        *options: str,
        log_format: str = "text",
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        command: Sequence[str] | None = None,
    ) -> None:
        """Start a supervisor, which may end before it is up."""
        assert self.process is None or self.process.poll() is not None, "a supervisor is running"
        arguments = [*prefix, *(command or self.command(*options, log_format=log_format))]
        environment = {**os.environ, MARK: self.mark} if env is None else {**env, MARK: self.mark}
        with (self.root / "output").open("ab") as output:
            self.process = subprocess.Popen(
                arguments,
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.abandoned = False

    def _is_up(self, own_namespace: bool) -> bool:
        assert self.process
        if (code := self.process.poll()) is not None:
            raise AssertionError(f"the supervisor ended with {code} at its start\n{self.evidence()}")
        info = self.supervisor()
        return info is not None and (own_namespace or info["pid"] == self.process.pid)

    @property
    def supervisor_pid(self) -> int:
        """The supervisor's pid as seen here; under `unshare --fork` it is the child of what was started."""
        assert self.process
        arguments = _read(f"/proc/{self.process.pid}/cmdline").split(b"\0")
        if arguments[0] == b"unshare":
            return int(_read(f"/proc/{self.process.pid}/task/{self.process.pid}/children").split()[0])
        return self.process.pid

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30) -> int:
        """Send the signal to the supervisor, wait for its end, return its exit code."""
        assert self.process
        os.kill(self.supervisor_pid, number)
        return self.wait_for_exit(timeout)

    def wait_for_exit(self, timeout: float = 30) -> int:
        """Wait for the supervisor's end and return its exit code."""
        assert self.process
        self.wait_for(self.has_exited, "the supervisor has exited", timeout)
        return self.process.wait()

    def has_exited(self) -> bool:
        """Whether the supervisor that was started last has ended."""
        return self.process is not None and self.process.poll() is not None

    def kill(self) -> None:
        """SIGKILL the supervisor, and only it."""
        assert self.process
        self.abandoned = True
        os.kill(self.supervisor_pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Stop everything; fail when the supervisor does not end with 0 or leaves a process behind."""
        code = 0
        if self.process is not None and self.process.poll() is None:
            try:
                code = self.stop()
            except AssertionError:
                self.kill()
                self.abandoned = False
                code = -signal.SIGKILL
        left, evidence = self.processes(), self.evidence()
        for pid in left:
            _kill(pid)
        self.wait_for(lambda: not any(is_alive(pid) for pid in left), "leftovers are gone")
        if not self.abandoned:
            assert not left, f"left behind: {left}\n{evidence}"
            assert code == 0, f"the supervisor ended with {code}\n{evidence}"

    def kill_everything(self, reap: Callable[[], object]) -> None:
        """SIGKILL what there is of the colony until there is nothing; `reap` takes what has become our child."""
        for _ in range(100):
            left = self.processes()
            for pid in left:
                _kill(pid)
            reap()
            if not left:
                break
            time.sleep(0.05)
        if self.process:
            self.process.wait()
        reap()

    def processes(self) -> dict[int, str]:
        """Every live process of this colony: pid to command line. It bears our mark or works in our directories."""
        inside, found = os.fsencode(f"{self.root}/"), {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            try:
                command = _read(f"/proc/{entry}/cmdline")
                works_here = os.fsencode(os.readlink(f"/proc/{entry}/cwd") + "/").startswith(inside)
                if works_here or inside in command or self.mark.encode() in _read(f"/proc/{entry}/environ"):
                    found[int(entry)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue  # ended meanwhile, a zombie, or somebody else's
        return {pid: text for pid, text in found.items() if is_alive(pid)}

    def strangers(self, own: Iterable[int]) -> dict[int, str]:
        """Live processes that are nobody's: not `own`, no status' pid, nor of the identity of one."""
        leaders = {int((self.status(name) or {}).get("pid") or 0) for name in self.known()}
        identities = {environment_of(pid).get("NCOLONY_INSTANCE") for pid in leaders} - {None}
        return {
            pid: f"{identity} {command}"
            for pid, command in self.processes().items()
            if pid not in {*own, *leaders}
            and (identity := environment_of(pid).get("NCOLONY_INSTANCE")) not in identities
        }

    def keeper_pid(self) -> int | None:
        """The keeper: python -I -S on the `keeper` directory, holding a file of this colony's state directory."""
        state = str(self.state)
        for pid in self.processes().keys() | _children(self.process.pid if self.process else 0):
            arguments = _read(f"/proc/{pid}/cmdline").split(b"\0")
            isolated = b"-I" in arguments or b"-IS" in arguments
            if isolated and any(os.path.basename(argument) == b"keeper" for argument in arguments):
                named = any(os.fsencode(state) in argument for argument in arguments)
                if named or any(state in target for target in descriptors(pid).values()):
                    return pid
        return None

    # What a user writes

    def put(self, name: str | bytes, config: Mapping[str, Any] | bytes) -> dict[str, Any]:
        """Write a config file whole, then rename it. A dictionary also gets this colony's mark in its `env`."""
        written: dict[str, Any] = {}
        if not isinstance(config, bytes):
            written = {**config, "env": {**config.get("env", {}), MARK: self.mark}}
            config = json.dumps(written).encode()
        put_whole(self.config, name, config)
        return written

    def remove(self, name: str) -> None:
        """Remove the config file of a process."""
        (self.config / name).unlink()

    def post(self, message: Mapping[str, Any] | bytes, name: str | None = None) -> str:
        """Write a message whole, then rename it; returns its file's name."""
        name = name or f"{time.time_ns()}-{os.getpid()}-{next(_counter)}"
        put_whole(self.messages, name, message if isinstance(message, bytes) else json.dumps(message).encode())
        return name

    def send(self, message: Mapping[str, Any], timeout: float = 30) -> dict[str, Any]:
        """Write a message and wait for its last answer, done or failed."""
        return self.wait_for_answer(self.post(message), timeout)

    def wait_for_answer(self, name: str, timeout: float = 30) -> dict[str, Any]:
        """The last answer to the message in the file `name`."""
        return self.wait_for(lambda: self._last_answer(name), f"message {name} is answered", timeout)

    def _last_answer(self, name: str) -> dict[str, Any] | None:
        answer = self.answer(name)
        return answer if answer and answer["state"] != "accepted" else None

    def scan(self) -> None:
        """Have every directory scanned twice: what was to be done about files written before has been begun."""
        for _ in range(2):
            answer = self.send({"type": "SCAN"})
            assert answer["state"] == "done", answer

    def ctl(self, *arguments: str, check: bool = True, env: Mapping[str, str] | None = None) -> str:
        """Run `python -m ncolony ctl` on this colony's directories; its standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "ncolony", "ctl", *self.ctl_places(), *arguments],
            capture_output=True,
            text=True,
            env=env,
            timeout=60,
        )
        if check:
            assert done.returncode == 0, f"ctl {' '.join(arguments)} ended with {done.returncode}: {done.stderr}"
        return done.stdout

    def ctl_places(self) -> list[str]:
        """The two options that every `ctl` command line begins with."""
        return ["--messages", str(self.messages), "--config", str(self.config)]

    # What a user reads

    def status(self, name: str) -> dict[str, Any] | None:
        """The status of a process, None when it has none."""
        return read_json(self.state / "status" / name)

    def answer(self, name: str) -> dict[str, Any] | None:
        """The answer so far to the message in the file `name`."""
        return read_json(self.state / "answers" / name)

    def supervisor(self) -> dict[str, Any] | None:
        """What the supervisor says of itself."""
        return read_json(self.state / "supervisor.json")

    def known(self) -> set[str]:
        """The names that have a status."""
        directory = self.state / "status"
        names = os.listdir(directory) if directory.is_dir() else []
        return {name for name in names if not name.endswith(".new")}

    def log(self) -> str:
        """The supervisor's own log."""
        return _read(self.log_file).decode("utf-8", "surrogateescape")

    def lines(self, name: str) -> list[str]:
        """What the supervisor's text log holds of a process: the text after "[NAME] " of each event."""
        return re.findall(rf"\[{re.escape(name)}\] (.*)$", self.log(), re.MULTILINE)

    def output(self, name: str) -> bytes:
        """What is kept of a process's output in the log directory, oldest first."""
        directory = self.logs / name
        if not directory.is_dir():
            return b""
        starts = {int(path.name.partition(".")[0]) for path in (*directory.glob("*.log"), *directory.glob("*.log.gz"))}
        rotated = [f"{directory}/{start:020d}.log" for start in sorted(starts)]
        parts = [_read(path) or gzip.decompress(_read(f"{path}.gz")) for path in rotated]
        return b"".join([*parts, _read(directory / "current")])

    def evidence(self) -> str:
        """Everything one wants to see of a failed test."""
        parts = [f"supervisor: {self.supervisor()}"]
        parts += [f"status {name}: {self.status(name)}" for name in sorted(self.known())]
        parts += [f"processes: {self.processes()}", "output:", _read(self.root / "output").decode(errors="replace")]
        return "\n".join([*parts, "log:", *self.log().splitlines()[-60:]])

    # Programs to run, and what they note

    def payload(self, name: str, mode: str, *arguments: object) -> list[str]:
        """The command line of payload.py; what it notes is read with `notes(name)`."""
        notes = str(self.notes_directory / name)
        return [sys.executable, "-I", "-S", str(PAYLOAD), notes, mode, *map(str, arguments)]

    def notes(self, name: str, beginning: str = "") -> list[str]:
        """The whole lines that payloads noted under `name`, those with a certain beginning."""
        text = _read(self.notes_directory / name).decode()
        return [line for line in text.split("\n")[:-1] if line.startswith(beginning)]

    def pids(self, name: str, word: str = "up") -> list[int]:
        """The pids that were noted after a word, in order."""
        return [int(line.removeprefix(f"{word} ").split()[0]) for line in self.notes(name, f"{word} ")]

    # Waiting

    def wait_for(self, predicate: Callable[[], _T | None], what: str, timeout: float = 30) -> _T:
        """Poll until the predicate holds and return its value; show the evidence when it does not in time."""
        end, delay = time.monotonic() + timeout, 0.005
        while not (value := predicate()):
            if time.monotonic() > end:
                raise AssertionError(f"not within {timeout} s: {what}\n{self.evidence()}")
            time.sleep(delay)
            delay = min(delay * 1.5, 0.05)
        return value

    def wait_for_status(self, name: str, timeout: float = 30, **fields: object) -> dict[str, Any]:
        """Wait until the status of a process holds these values."""

        def matches() -> dict[str, Any] | None:
            status = self.status(name)
            fits = status is not None and all(status[field] == value for field, value in fields.items())
            return status if fits else None

        return self.wait_for(matches, f"{name} has {fields}", timeout)

    def wait_until_running(self, name: str, timeout: float = 30, **fields: object) -> int:
        """Wait until a process is RUNNING (and `instance`, say, has a value); its pid."""
        pid = self.wait_for_status(name, timeout, state="RUNNING", **fields)["pid"]
        assert isinstance(pid, int)
        return pid

    def wait_for_problem(self, name: str, timeout: float = 30) -> str:
        """Wait until the status of a process shows a problem; its text."""
        return str(self.wait_for(lambda: (self.status(name) or {}).get("problem"), f"{name} has a problem", timeout))

    def wait_for_notes(self, name: str, count: int = 1, beginning: str = "up ", timeout: float = 30) -> list[str]:
        """Wait until at least so many lines with the beginning are noted; the lines."""
        self.wait_for(
            lambda: len(self.notes(name, beginning)) >= count, f"{name} noted {beginning!r} {count} times", timeout
        )
        return self.notes(name, beginning)

    def wait_until_forgotten(self, name: str, timeout: float = 30) -> None:
        """Wait until a process has no status any more."""
        self.wait_for(lambda: name not in self.known(), f"{name} is forgotten", timeout)

    def wait_until_dead(self, *pids: int, timeout: float = 30) -> None:
        """Wait until none of the processes is alive."""
        self.wait_for(lambda: not any(is_alive(pid) for pid in pids), f"{pids} are dead", timeout)


SLEEP = shutil.which("sleep") or "/bin/sleep"


def put_whole(directory: Path, name: str | bytes, data: bytes) -> None:
    """Write a file beside its place, then rename it."""
    place = os.path.join(os.fsencode(directory), os.fsencode(name))
    with open(place + b".new", "wb") as target:
        target.write(data)
    os.rename(place + b".new", place)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file that is replaced whole, None when there is no such file."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    assert isinstance(found, dict)
    return found


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    stat = _read(f"/proc/{pid}/stat")
    return bool(stat) and stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def environment_of(pid: int) -> dict[str, str]:
    """The environment a process was started with."""
    entries = os.fsdecode(_read(f"/proc/{pid}/environ")).split("\0")[:-1]
    return dict(entry.split("=", 1) for entry in entries)


def arguments_of(pid: int) -> list[str]:
    """The arguments a process was started with. Who starts it is let go on a moment before there are any."""
    until = time.monotonic() + 2
    while not (found := _read(f"/proc/{pid}/cmdline")) and is_alive(pid) and time.monotonic() < until:
        time.sleep(0.001)
    return os.fsdecode(found).split("\0")[:-1]


def fields_of(pid: int) -> dict[str, str]:
    """/proc/PID/status as a dictionary: Uid, Gid, Groups, Umask, SigBlk, …"""
    text = _read(f"/proc/{pid}/status").decode()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def descriptors(pid: int) -> dict[int, str]:
    """What each descriptor of a process refers to."""
    found = {}
    try:
        for entry in os.listdir(f"/proc/{pid}/fd"):
            found[int(entry)] = os.readlink(f"/proc/{pid}/fd/{entry}")
    except OSError:
        pass  # it ended, or one was closed meanwhile
    return found


def _children(pid: int) -> set[int]:
    return {int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()} if pid else set()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended by itself


def _read(path: str | Path) -> bytes:
    """The bytes of a file, none when it cannot be read."""
    try:
        with open(path, "rb") as source:
            return source.read()
    except OSError:
        return b""
