"""pm2."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from bench.places import PEERS

from .base import Argv, Peer, write

PM2 = PEERS / "pm2" / "node_modules" / ".bin" / "pm2"


class Pm2(Peer):
    """A file with all processes; its client starts a daemon of its own."""

    name = "pm2"
    delay = "0 (restart_delay), stops after 16 deaths younger than 1 s"
    captures = True
    takes_many = False

    @classmethod
    def missing(cls) -> str:
        return "" if os.access(PM2, os.X_OK) and shutil.which("node") else str(PM2)

    @classmethod
    def version(cls) -> str:
        about = json.loads((PM2.parent.parent / "pm2" / "package.json").read_text())
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
        return f"pm2 {about['version']} on Node {node.removeprefix('v')}"

    def setup(self) -> None:
        self.env = {"PM2_HOME": str(self.directory / "pm2")}
        self._apps: list[dict[str, object]] = []

    def put(self, name: str, argv: Argv) -> None:
        self._apps.append({"name": name, "script": argv[0], "args": argv[1:], "interpreter": "none"})

    def launch(self) -> None:
        write(self.directory / "eco.json", json.dumps({"apps": self._apps}))
        command = ["start", str(self.directory / "eco.json")] if self._apps else ["ping"]
        self.run.daemon([str(PM2), *command], self.env)

    def main_pid(self) -> int:
        return int((self.directory / "pm2" / "pm2.pid").read_text())

    def add(self, name: str, argv: Argv) -> None:
        self.run.call([str(PM2), "start", argv[0], "--name", name, "--interpreter", "none", "--", *argv[1:]], self.env)

    def restart_all(self) -> None:
        self.run.call([str(PM2), "restart", "all"], self.env)

    def stop(self) -> None:
        self.run.call([str(PM2), "kill"], self.env)

    def logfiles(self) -> list[Path]:
        return [path for path in (self.directory / "pm2" / "logs").glob("*") if path.is_file()]
