"""supervisord."""

from __future__ import annotations

import http.client
import os
import shlex
import socket
import xmlrpc.client
from collections.abc import Mapping

from bench.places import PEERS

from .base import Argv, Peer, installed, write

BIN = PEERS / "supervisor" / "bin"


class Supervisor(Peer):
    """One ini file per process; supervisorctl and its XML-RPC."""

    name = "supervisor"
    delay = "0 if it lived > startsecs (1 s), but noticed by a 1 s tick; else 1, 2, 3 s, then FATAL"
    captures = True
    answers = True

    @classmethod
    def missing(cls) -> str:
        return "" if os.access(BIN / "supervisord", os.X_OK) else str(BIN / "supervisord")

    @classmethod
    def version(cls) -> str:
        return installed(PEERS / "supervisor", "supervisor")

    def setup(self) -> None:
        here = self.directory
        (here / "logs").mkdir()
        write(
            here / "s.conf",
            f"[unix_http_server]\nfile={here}/s.sock\n"
            f"[supervisord]\nlogfile={here}/supervisord.log\npidfile={here}/s.pid\nchildlogdir={here}/logs\nnodaemon=true\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[supervisorctl]\nserverurl=unix://{here}/s.sock\n[include]\nfiles={here}/conf.d/*.ini\n",
        )

    def put(self, name: str, argv: Argv) -> None:
        log = f"stdout_logfile={self.directory}/logs/{name}.log\nstdout_logfile_backups=1000\n" if self.capture else ""
        write(self.directory / "conf.d" / f"{name}.ini", f"[program:{name}]\ncommand={shlex.join(argv)}\n{log}")

    def _ctl(self, *arguments: str) -> Argv:
        return [str(BIN / "supervisorctl"), "-c", str(self.directory / "s.conf"), *arguments]

    def add(self, name: str, argv: Argv) -> None:
        self.put(name, argv)
        self.run.call(self._ctl("update"))

    def add_all(self, processes: Mapping[str, Argv]) -> None:
        self.prepare(processes)
        self.run.call(self._ctl("update"))

    change_all = add_all

    def launch(self) -> None:
        self.main = self.run.daemon([str(BIN / "supervisord"), "-c", str(self.directory / "s.conf")])

    def restart_all(self) -> None:
        self.run.call(self._ctl("restart", "all"))

    def ask(self, name: str) -> None:
        """What supervisorctl would ask, without the start of another Python."""
        with xmlrpc.client.ServerProxy("http://localhost", _Local(str(self.directory / "s.sock"))) as server:
            server.supervisor.getProcessInfo(name)

    def commands(self, name: str) -> dict[str, Argv]:
        return {
            "bare": [str(BIN / "python"), "-c", "pass"],
            "status": self._ctl("status", "p0"),
            "status_all": self._ctl("status"),
        }


class _LocalConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)


class _Local(xmlrpc.client.Transport):
    """XML-RPC over a socket of this machine."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: object) -> http.client.HTTPConnection:
        return _LocalConnection(self._path)
