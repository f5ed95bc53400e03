"""A colony's directories, and what a supervisor would write there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import ncolony
from ncolony import ctllib
from ncolony.model import config
from ncolony.system.files import write_whole

SOURCE = str(Path(ncolony.__file__).parent.parent)
PATIENCE_S = 60.0


def wait_for(condition: Callable[[], Any]) -> Any:
    """What `condition` returns once it is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)
    return found


class Colony:
    """Directories under one root, and the means to act on them as a user and as a supervisor."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config, self.messages, self.state = root / "conf", root / "messages", root / "state"
        for directory in (self.config, self.messages, self.state, self.state / "status", self.state / "answers"):
            directory.mkdir()
        self.places = ctllib.Places(self.config, self.messages)
        self.options = ["--messages", str(self.messages), "--config", str(self.config), "--state", str(self.state)]

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "ncolony", "ctl", *self.options, *words]

    def environment(self, **more: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("NCOLONY")}
        return {**kept, "PYTHONPATH": SOURCE, **more}

    def run(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """`python -m ncolony ctl` with these directories and words."""
        return self.run_bare(self.command(*words), **more)

    def run_bare(self, argv: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        env = self.environment(**more.pop("env", {}))
        return subprocess.run(argv, capture_output=True, text=True, env=env, timeout=PATIENCE_S, check=False, **more)

    def definition(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.config / name).read_bytes())
        return found

    def digest(self, name: str) -> str:
        found = config.define(name, (self.config / name).read_bytes())
        assert isinstance(found, config.Definition)
        return found.digest

    def only_message(self) -> dict[str, Any]:
        (path,) = self.messages.iterdir()
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found

    def report(self, name: str, **record: Any) -> None:
        """Write status/NAME as a supervisor does."""
        full = {
            "name": name,
            "state": "RUNNING",
            "wanted": "up",
            "pid": 4321,
            "instance": 1,
            "since": time.time(),
            "started": time.time(),
            "restarts": 0,
            "next_try": None,
            "reason": "",
            "problem": None,
            "warnings": [],
            "group": [],
            "enabled": True,
            "generation": "",
            "digest": "",
            "last_exit": None,
            "holding": [],
            "pending": "",
            "file": name.rpartition(":")[0] or name,
            "ready_at": 1.0,
            "rolled_back": None,
            "memory": None,
            "waiting_for": [],
            "said": "",
            "phase": "",
            "healthy": None,
            "health": "",
            "late": "",
            "job": False,
            **record,
        }
        write_whole(self.state / "status" / name, json.dumps(full).encode())

    def ended(self, name: str, instance: int, **record: Any) -> None:
        """Add a line to history/NAME as a supervisor does."""
        full = {
            "id": f"id-{instance}",
            "instance": instance,
            "pid": 4321,
            "started": 1.7e9,
            "at": 1.7e9 + 1.5,
            "lived": 1.5,
            "code": 0,
            "signal": None,
            "core": False,
            "oom": False,
            "cpu": 0.25,
            "rss_kb": 9000,
            "text": "exit code 0",
            "reason": "",
            "lines": [],
            **record,
        }
        (self.state / "history").mkdir(exist_ok=True)
        with (self.state / "history" / name).open("ab") as file:
            file.write(json.dumps(full).encode() + b"\n")

    def happened(self, *records: dict[str, Any], file: str = "events") -> None:
        """Add lines to the events as a supervisor does."""
        with (self.state / file).open("ab") as target:
            target.writelines(json.dumps({"at": time.time(), "name": "", **one}).encode() + b"\n" for one in records)

    def applied(self, *, problems: int = 0, generation: str | None = None) -> None:
        """Write `applied` as a supervisor does that has applied all that is in the config directory now."""
        if generation is None:
            pairs = [(path.name, blake2b(path.read_bytes(), digest_size=16).digest()) for path in self.config.iterdir()]
            generation = config.directory_generation(pairs)
        count = len(list(self.config.iterdir()))
        record = {"generation": generation, "files": count, "problems": problems, "at": time.time()}
        write_whole(self.state / "applied", json.dumps(record).encode())

    def answer(self, message_id: str, **record: Any) -> None:
        """Write answers/ID as a supervisor does."""
        full = {"accepted": True, "state": "done", "why": "", "names": [], "generation": "", **record}
        write_whole(self.state / "answers" / message_id, json.dumps(full).encode())

    @contextlib.contextmanager
    def supervised(self, **record: Any) -> Iterator[None]:
        """Hold the lock of a live supervisor."""
        full = {"pid": os.getpid(), "version": "1", "started": time.time(), "problems": [], **record}
        write_whole(self.state / "supervisor.json", json.dumps(full).encode())
        with open(self.state / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def meanwhile(self, act: Callable[[], object]) -> Iterator[None]:
        """Let `act` run in a thread; what it raises fails the test."""
        raised: list[BaseException] = []

        def guarded() -> None:
            try:
                act()
            except BaseException as error:  # noqa: BLE001  # raised again below, in the test's own thread
                raised.append(error)

        thread = threading.Thread(target=guarded)
        thread.start()
        try:
            yield
        finally:
            thread.join()
        if raised:
            raise raised[0]

    def answering(self, **record: Any) -> contextlib.AbstractContextManager[None]:
        """Answer the next message that comes, as soon as it is there."""

        def act() -> None:
            (message_id,) = wait_for(lambda: [name for name in os.listdir(self.messages) if name[-4:] != ".new"])
            self.answer(message_id, accepted=True, state="accepted")
            self.answer(message_id, **record)

        return self.meanwhile(act)
