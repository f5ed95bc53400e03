"""The physical limit: limit.c, which does nothing that can be left out."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping

from bench.places import LIMIT

from .base import Argv, Peer, write


class Limit(Peer):
    """One file per process; inotify, vfork, exec, waitpid."""

    name = "limit"
    delay = "none, always at once"

    @classmethod
    def missing(cls) -> str:
        return "" if os.access(LIMIT, os.X_OK) else LIMIT

    @classmethod
    def version(cls) -> str:
        try:
            gcc = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=False).stdout
        except OSError:
            gcc = "gcc"
        return f"limit.c, {gcc.splitlines()[0] if gcc else 'gcc'} -O2"

    def setup(self) -> None:
        self._config, self._logs = self.directory / "conf", self.directory / "logs"
        self._staging = self.directory / "staging"
        for path in (self._config, self._logs, self._staging):
            path.mkdir()

    def put(self, name: str, argv: Argv) -> None:
        self.stage({name: argv})
        (self._staging / name).rename(self._config / name)

    def stage(self, processes: Mapping[str, Argv]) -> None:
        for name, argv in processes.items():
            write(self._staging / name, "\n".join(argv) + "\n")

    def add_all(self, processes: Mapping[str, Argv]) -> None:
        for name in processes:
            (self._staging / name).rename(self._config / name)

    def launch(self) -> None:
        logs = [str(self._logs)] if self.capture else []
        self.main = self.run.daemon([LIMIT, str(self._config), *logs])

    def change_all(self, processes: Mapping[str, Argv]) -> None:
        """It reads no file twice, so what is left of the work is to replace every process."""
        self.restart_all()

    def restart_all(self) -> None:
        os.kill(self.main, signal.SIGHUP)
