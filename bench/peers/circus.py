"""circus."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping

from bench.places import PEERS

from .base import Argv, Peer, installed, write

BIN = PEERS / "circus" / "bin"


class Circus(Peer):
    """One ini file per process; circusctl."""

    name = "circus"
    delay = "0 (respawn on SIGCHLD / check_delay 5 s)"
    fast_note = "check_delay=0.1, circusctl add instead of reloadconfig"

    @classmethod
    def missing(cls) -> str:
        return "" if os.access(BIN / "circusd", os.X_OK) else str(BIN / "circusd")

    @classmethod
    def version(cls) -> str:
        return installed(PEERS / "circus", "circus", "pyzmq", "tornado")

    def setup(self) -> None:
        here = self.directory
        (here / "logs").mkdir()
        (here / "conf.d").mkdir()
        delay = "check_delay=0.1\n" if self.fast else ""
        write(
            here / "c.ini",
            f"[circus]\nendpoint=ipc://{here}/c.sock\npubsub_endpoint=ipc://{here}/p.sock\n"
            f"include_dir={here}/conf.d\n{delay}",
        )

    def put(self, name: str, argv: Argv) -> None:
        file = self.directory / "logs" / f"{name}.log"
        log = f"stdout_stream.class=FileStream\nstdout_stream.filename={file}\n" if self.capture else ""
        write(
            self.directory / "conf.d" / f"{name}.ini",
            f"[watcher:{name}]\ncmd={argv[0]}\nargs={shlex.join(argv[1:])}\n{log}",
        )

    def _ctl(self, *arguments: str) -> Argv:
        return [str(BIN / "circusctl"), "--endpoint", f"ipc://{self.directory}/c.sock", "--timeout", "60", *arguments]

    def add(self, name: str, argv: Argv) -> None:
        if self.fast:
            self.run.call(self._ctl("add", "--start", name, shlex.join(argv)))
        else:
            self.add_all({name: argv})

    def add_all(self, processes: Mapping[str, Argv]) -> None:
        self.prepare(processes)
        self.run.call(self._ctl("reloadconfig"))

    change_all = add_all

    def launch(self) -> None:
        self.main = self.run.daemon([str(BIN / "circusd"), str(self.directory / "c.ini")])

    def restart_all(self) -> None:
        self.run.call(self._ctl("restart"))

    def commands(self, name: str) -> dict[str, Argv]:
        return {
            "bare": [str(BIN / "python"), "-c", "pass"],
            "add": self._ctl("add", "--start", name, "sleep 1000"),
            "status": self._ctl("status", "p0"),
            "status_all": self._ctl("status"),
        }
