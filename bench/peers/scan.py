"""Those with a directory and a small supervisor per process: s6, runit, daemontools."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from bench.places import PEERS

from .base import Argv, Peer, write

if TYPE_CHECKING:
    from bench.run import Run

UNPACKED = PEERS / "root" / "usr"
PATH = f"{UNPACKED}/bin:{UNPACKED}/sbin:{os.environ.get('PATH', os.defpath)}"


def package_version(package: str) -> str:
    """The version of a Debian package that is installed, or was unpacked for us."""
    for file in (PEERS / "deb").glob(f"{package}_*.deb"):
        return f"{package} {file.name.split('_')[1].replace('%3a', ':')}"
    query = ["dpkg-query", "-W", "-f", "${Version}", package]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    except OSError:
        found = ""
    return f"{package} {found or '(version unknown)'}"


class S6(Peer):
    """A service directory per process; loggers only where capturing is what is measured."""

    name = "s6"
    delay = "always 1 s after a death (2.11.3, seen with strace)"
    # What must be on PATH.
    scanner: ClassVar[str] = "s6-svscan"
    package: ClassVar[str] = "s6"

    @classmethod
    def missing(cls) -> str:
        return "" if shutil.which(cls.scanner, path=PATH) else cls.scanner

    @classmethod
    def version(cls) -> str:
        return package_version(cls.package)

    def setup(self) -> None:
        self.env = {"PATH": PATH}
        self.scan, self.logs = self.directory / "scan", self.directory / "logs"
        self.scan.mkdir()
        self.logs.mkdir()

    def logger(self, directory: str) -> str:
        """The command of one logger that deletes nothing."""
        return f"s6-log n1000 s16000000 {directory}"

    def put(self, name: str, argv: Argv) -> None:
        self.stage({name: argv})
        (self.directory / f".{name}").rename(self.scan / name)

    def stage(self, processes: Mapping[str, Argv]) -> None:
        for name, argv in processes.items():
            new = self.directory / f".{name}"
            write(new / "run", f"#!/bin/sh\nexec {shlex.join(argv)}\n", 0o755)
            if self.capture:
                (self.logs / name).mkdir()
                write(new / "log" / "run", f"#!/bin/sh\nexec {self.logger(str(self.logs / name))}\n", 0o755)

    def add(self, name: str, argv: Argv) -> None:
        self.put(name, argv)
        self.rescan()

    def rescan(self) -> None:
        """Make it look at the directory."""
        self.run.call(["s6-svscanctl", "-a", str(self.scan)])

    def add_all(self, processes: Mapping[str, Argv]) -> None:
        for name in processes:
            (self.directory / f".{name}").rename(self.scan / name)
        self.rescan()

    def change_all(self, processes: Mapping[str, Argv]) -> None:
        """Put each run script in place; then each process has to be restarted."""
        for name in processes:
            (self.directory / f".{name}" / "run").rename(self.scan / name / "run")
        self.restart_all()

    def launch(self) -> None:
        # The default of -c, 500, is too few.
        self.main = self.run.daemon(["s6-svscan", "-c", "25000", str(self.scan)], self.env)

    def shell(self, script: str) -> None:
        """Run a client command over many directories."""
        self.run.call(["sh", "-c", script], self.env)

    def restart_all(self) -> None:
        self.shell(f"for d in {self.scan}/*; do s6-svc -r $d; done")


class S6Log(S6):
    """With a logger per process, as its manual has it."""

    name = "s6+log"

    def __init__(self, run: Run, *, fast: bool = False, capture: str = "") -> None:
        super().__init__(run, fast=fast, capture=capture or "files")


class Runit(S6):
    """runsvdir takes at most 1000 services, and one has to be free for what is added."""

    name = "runit"
    delay = "0 if it lived > 1 s, else 1 s"
    poll_s = 5
    max_n = 999
    sync_signal = signal.SIGHUP
    scanner = "runsvdir"
    package = "runit"

    def logger(self, directory: str) -> str:
        return f"svlogd {directory}"

    def put(self, name: str, argv: Argv) -> None:
        super().put(name, argv)
        if self.capture:
            # Keep every old file.
            write(self.logs / name / "config", "s16000000\nn0\n")

    def rescan(self) -> None:
        """It looks by itself."""

    def launch(self) -> None:
        self.main = self.run.daemon(["runsvdir", "-P", str(self.scan)], self.env)

    def restart_all(self) -> None:
        self.shell(f"sv restart {self.scan}/*")


class RunitLog(Runit):
    """With a logger per process."""

    name = "runit+log"

    def __init__(self, run: Run, *, fast: bool = False, capture: str = "") -> None:
        super().__init__(run, fast=fast, capture=capture or "files")


class Daemontools(Runit):
    """svscan takes at most 1000 services, too."""

    name = "daemontools"
    sync_signal = signal.SIGTERM
    scanner = "svscan"
    package = "daemontools"

    def logger(self, directory: str) -> str:
        return f"multilog n1000 s16000000 {directory}"

    def put(self, name: str, argv: Argv) -> None:
        S6.put(self, name, argv)

    def launch(self) -> None:
        self.main = self.run.daemon(["svscan", str(self.scan)], self.env)

    def restart_all(self) -> None:
        self.shell(f"svc -t {self.scan}/*")

    def stop(self) -> None:
        super().stop()
        self.shell(f"svc -dx {self.scan}/* {self.scan}/*/log")
