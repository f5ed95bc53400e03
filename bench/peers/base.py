"""What every adapter offers."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from bench.run import Run

Argv = list[str]


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file, and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def installed(venv: Path, *names: str) -> str:
    """The versions of Python packages in a virtual environment, as "supervisor 4.3.0, …"."""
    found = []
    for name in names:
        # A glob, since starting their pip takes a second each.
        for about in sorted(venv.glob(f"lib/python3.*/site-packages/{name}-*.dist-info")):
            found += [about.name.removesuffix(".dist-info").replace("-", " ", 1)]
    return ", ".join(found) or "version unknown"


class Peer:
    """One supervisor, driven as its manual says.

    `capture` is what becomes of the processes' output: "" as the supervisor does it by itself, "files" kept in files
    with nothing deleted, "events" line by line in the supervisor's own log, as text. `fast` means its fastest settings.
    """

    name: ClassVar[str]
    # The default restart delay, in words, and what `fast` changes ("": there is nothing to tune).
    delay: ClassVar[str]
    fast_note: ClassVar[str] = ""
    # Seconds between two looks at its configuration, by default; 0 where it is told.
    poll_s: ClassVar[float] = 0
    # How many processes it can hold.
    max_n: ClassVar[int] = 10**6
    # Whether it keeps output without being told to, whether it can log it as events, whether it has a client to ask.
    captures: ClassVar[bool] = False
    logs_events: ClassVar[bool] = False
    answers: ClassVar[bool] = False
    # Whether it sees changed configuration by itself, or a client command makes it see many changes at once.
    takes_many: ClassVar[bool] = True
    sync_signal: ClassVar[int] = signal.SIGTERM

    def __init__(self, run: Run, *, fast: bool = False, capture: str = "") -> None:
        self.run, self.directory, self.fast, self.capture = run, run.directory, fast, capture
        self.main = 0
        self.setup()

    @classmethod
    def missing(cls) -> str:
        """What of it is not installed, or nothing."""
        raise NotImplementedError

    @classmethod
    def version(cls) -> str:
        """Which version is measured."""
        raise NotImplementedError

    @property
    def period_s(self) -> float:
        """Seconds between two looks at its configuration, as it is set now."""
        return 0.1 if self.fast and self.poll_s else self.poll_s

    def setup(self) -> None:
        """Make what it needs before any process is configured."""

    def prepare(self, processes: Mapping[str, Argv]) -> None:
        """Configure the processes that it finds when it is launched."""
        for name, argv in processes.items():
            self.put(name, argv)

    def put(self, name: str, argv: Argv) -> None:
        """Write the configuration of one process."""
        raise NotImplementedError

    def launch(self) -> None:
        """Start the supervisor; its pid goes to :attr:`main`."""
        raise NotImplementedError

    def add(self, name: str, argv: Argv) -> None:
        """Configure one more and make the running supervisor start it. Here: it looks by itself."""
        self.put(name, argv)

    def stage(self, processes: Mapping[str, Argv]) -> None:
        """Write elsewhere what :meth:`add_all` or :meth:`change_all` will put in place, where it can be moved there."""

    def add_all(self, processes: Mapping[str, Argv]) -> None:
        """Configure many at once, which were staged, and make the running supervisor start them."""
        raise NotImplementedError

    def change_all(self, processes: Mapping[str, Argv]) -> None:
        """Give each another command at once, which was staged, and make the running supervisor use it."""
        raise NotImplementedError

    def restart_all(self) -> None:
        """Make it replace every process."""
        raise NotImplementedError

    def stop(self) -> None:
        """Make it end all processes and itself."""
        os.kill(self.main, self.sync_signal)

    def main_pid(self) -> int:
        """The process that is the supervisor, for killing it."""
        return self.main

    def logfiles(self) -> list[Path]:
        """Where the captured output is."""
        return [path for path in (self.directory / "logs").rglob("*") if path.is_file()]

    def ask(self, name: str) -> None:
        """Ask its client interface about or for the process `name`, and wait for the answer."""
        raise NotImplementedError

    def commands(self, name: str) -> dict[str, Argv]:
        """Client commands to be timed: to "add" the process `name`, for the "status" of one, for "status_all"."""
        return {}
