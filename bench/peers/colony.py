"""NColony: upstream, and ours."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path

from inotify_simple import INotify, flags

from bench.places import OURS_PYTHON, PEERS

from .base import Argv, Peer, installed, write

ANSWER_WITHIN_S = 30
# More than any run writes: nothing of what was captured may be deleted before it was counted.
BUDGET = "100G"


class NColony(Peer):
    """Upstream."""

    name = "ncolony"
    delay = "0 if it lived > 1 s, else 1 s doubling to 1 h"
    fast_note = "--frequency 0.1"
    poll_s = 10
    captures = True
    logs_events = True
    python = str(PEERS / "ncolony" / "bin" / "python")

    @classmethod
    def missing(cls) -> str:
        return "" if os.access(cls.python, os.X_OK) else cls.python

    @classmethod
    def version(cls) -> str:
        return installed(PEERS / "ncolony", "ncolony", "[Tt]wisted")

    def setup(self) -> None:
        self.config, self.messages = self.directory / "conf", self.directory / "messages"
        self.staging = self.directory / "staging"
        for path in (self.config, self.messages, self.staging):
            path.mkdir()
        self.places = ["--messages", str(self.messages), "--config", str(self.config)]

    def definition(self, argv: Argv) -> dict[str, object]:
        """What the file of one process says."""
        return {"args": argv}

    def put(self, name: str, argv: Argv) -> None:
        self.stage({name: argv})
        (self.staging / name).rename(self.config / name)

    def stage(self, processes: Mapping[str, Argv]) -> None:
        for name, argv in processes.items():
            write(self.staging / name, json.dumps(self.definition(argv)))

    def add_all(self, processes: Mapping[str, Argv]) -> None:
        for name in processes:
            (self.staging / name).rename(self.config / name)

    change_all = add_all

    def options(self) -> list[str]:
        """Options of the supervisor besides its places."""
        return ["--frequency", "0.1"] if self.fast else []

    def launch(self) -> None:
        own_log = ["--log-format=text", f"--log-file={self.directory}/events.log"] if self.capture == "events" else []
        command = [self.python, "-m", "twisted", *own_log, "ncolony", *self.places, *self.options()]
        self.main = self.run.daemon(command)

    def restart_all(self) -> None:
        self.run.call([self.python, "-m", "ncolony", "ctl", *self.places, "restart-all"])

    def logfiles(self) -> list[Path]:
        """The supervisor's own log: on its standard output as JSON, which is the default, or a file of text."""
        own = self.directory / ("events.log" if self.capture == "events" else "supervisor.out")
        return [own] if own.exists() else []

    def commands(self, name: str) -> dict[str, Argv]:
        ctl = [self.python, "-m", "ncolony", "ctl", *self.places]
        return {
            "bare": [self.python, "-c", "pass"],
            "add": [*ctl, "add", name, "--cmd", "sleep", "--arg=1000"],
        }


class Ours(NColony):
    """This checkout, installed as people install it."""

    name = "ours"
    delay = "as ncolony"
    poll_s = 0
    fast_note = ""
    answers = True
    python = OURS_PYTHON

    @classmethod
    def version(cls) -> str:
        venv = Path(cls.python).parent.parent
        commit = venv / "commit"
        version = [installed(venv, "ncolony", "[Tt]wisted")]
        # Noted when it was installed: the checkout may have moved on since.
        return ", ".join([*version, f"commit {commit.read_text().strip()}"] if commit.exists() else version)

    def setup(self) -> None:
        super().setup()
        # In memory, as by default; what is captured goes to the same disk as everybody's.
        self.state = self.run.memory_directory / "state"
        self.places += ["--state", str(self.state)]
        self._asked = itertools.count(1)
        self._told: INotify | None = None

    def definition(self, argv: Argv) -> dict[str, object]:
        # Limits on kept size are raised for all, so that nothing is deleted before it is counted.
        log = {"forward": self.capture == "events", "keep": 1000}
        return {"args": argv, "log": log} if self.capture else {"args": argv}

    def options(self) -> list[str]:
        return ["--log-budget", BUDGET, "--logs", str(self.directory / "logs")] if self.capture else []

    def logfiles(self) -> list[Path]:
        return super().logfiles() if self.capture == "events" else Peer.logfiles(self)

    def ask(self, name: str) -> None:
        """Send a message and wait until its answer is there: START, which is carried out at once if it runs."""
        if self._told is None:
            self._told = INotify()
            self._told.add_watch(str(self.state / "answers"), flags.MOVED_TO)
        file = f"ask-{next(self._asked)}"
        write(self.staging / file, json.dumps({"type": "START", "name": name}))
        (self.staging / file).rename(self.messages / file)
        while True:
            told = self._told.read(timeout=ANSWER_WITHIN_S * 1000)
            if not told:
                raise TimeoutError(f"no answer to {file} within {ANSWER_WITHIN_S} s")
            if any(event.name == file for event in told):
                answer = json.loads((self.state / "answers" / file).read_text())
                if answer["state"] != "accepted":
                    if answer["state"] != "done":
                        raise ValueError(f"{file} was refused: {answer['why']}")
                    return

    def commands(self, name: str) -> dict[str, Argv]:
        ctl = [self.python, "-m", "ncolony", "ctl", *self.places]
        return {
            **super().commands(name),
            "status": [*ctl, "status", "p0"],
            "status_all": [*ctl, "status"],
            "status_json": [*ctl, "status", "--json"],
        }
