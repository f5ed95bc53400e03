"""Real services as processes of a colony: each on a free port, in a directory and as a user of its own.

`tools/services.sh` installs them. A test says with `needs` which ones it cannot do without.
"""

from __future__ import annotations

import glob
import os
import pwd
import re
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from colony import Colony

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
# Where Debian keeps PostgreSQL; the newest first.
_POSTGRES = sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
# Notes when a program starts, then becomes it.
_STAMPED = 'echo "up $$ $(date +%s.%N)" >>"$0"; exec "$@"'
# What another service takes at most to answer, on a machine with more to do than it can.
PATIENCE_S = 30.0


def program(name: str) -> str | None:
    """Where a program is, None when it is not installed."""
    return shutil.which(name, path=":".join([*_POSTGRES, _PATH]))


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip a test where one of these programs is not installed, and say which."""
    missing = [name for name in names if program(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {' '.join(missing)} (see tools/services.sh)")


def path_of(name: str) -> str:
    """Where a program is that the test needs."""
    found = program(name)
    assert found is not None
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    assert isinstance(port, int)
    return port


def run(*command: str, **more: Any) -> str:
    """Run a client to its end; its standard output. It must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}: {done.stderr}{done.stdout}"
    return done.stdout


def stamped(colony: Colony, name: str, *command: str) -> list[str]:
    """A command line that notes "up PID TIME" under the name before it becomes the command."""
    return ["/bin/sh", "-c", _STAMPED, str(colony.notes_directory / name), *command]


def ups(colony: Colony, name: str) -> list[float]:
    """When each instance of a `stamped` process was started, by its own clock."""
    return [float(line.split()[2]) for line in colony.notes(name, "up ")]


class Peer:
    """One service: its name in the colony, its port, its directory, and as whom it runs."""

    program = ""
    user = ""

    def __init__(self, colony: Colony, name: str) -> None:
        self.colony, self.name = colony, name
        self.port = free_port()
        self.directory = colony.root / f"data-{name}"
        self.directory.mkdir(mode=0o700)
        self.owner: dict[str, str] = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam(self.user)
            os.chown(self.directory, entry.pw_uid, entry.pw_gid)
            self.owner = {"uid": self.user}
        self.set_up()

    def set_up(self) -> None:
        """Make what it needs before its first start."""

    def command(self) -> list[str]:
        """Its own command line."""
        raise NotImplementedError

    def config(self, **keys: Any) -> dict[str, Any]:
        """Its config file, with these keys besides."""
        base = {"args": stamped(self.colony, self.name, *self.command()), "cwd": str(self.directory), **self.owner}
        return {**base, **keys, "env": {"TZ": "UTC", "PATH": _PATH, **keys.get("env", {})}}

    def printed(self, beginning: float = 0.0) -> list[tuple[float, str]]:
        """The lines that it printed with a time stamp of its own, from a time on."""
        found = []
        for line in self.colony.output(self.name).decode(errors="replace").splitlines():
            at = self.stamp_of(line)
            if at is not None and at >= beginning:
                found.append((at, line))
        return found

    def stamp_of(self, line: str) -> float | None:
        """The time in a line of its log."""
        raise NotImplementedError

    def when(self, text: str, beginning: float = 0.0) -> float:
        """When it printed a line with this text, by its own clock; the first one from `beginning` on."""
        times = [at for at, line in self.printed(beginning) if text in line]
        said = self.colony.output(self.name).decode(errors="replace")
        assert times, f"{self.name} never said {text!r}:\n{said}"
        return times[0]


class Postgres(Peer):
    """A PostgreSQL server with an empty database cluster."""

    program, user = "postgres", "postgres"

    def set_up(self) -> None:
        self.as_owner(path_of("initdb"), "-D", str(self.directory), "-U", "postgres", "-A", "trust", "--no-sync")

    def as_owner(self, *command: str) -> str:
        """Run a program as the user of the server."""
        who = {"user": self.user, "group": self.user, "extra_groups": []} if self.owner else {}
        return run(*command, cwd=self.directory, env={"PATH": _PATH, "TZ": "UTC", "LC_ALL": "C"}, **who)

    def command(self) -> list[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.directory,
            "log_line_prefix": "%m ",
            "log_timezone": "UTC",
            "fsync": "off",
        }
        given = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        return [path_of("postgres"), "-D", str(self.directory), *given]

    def stamp_of(self, line: str) -> float | None:
        found = re.match(r"(\d+-\d+-\d+ \d+:\d+:\d+\.\d+) UTC ", line)
        return _utc(found[1], "%Y-%m-%d %H:%M:%S.%f") if found else None

    def answers(self) -> list[str]:
        """A command that ends with 0 when the server accepts connections."""
        return [path_of("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-t", "2"]

    def client(self, statement: str) -> list[str]:
        """A command that runs SQL and prints bare values."""
        options = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-qAt")
        return [path_of("psql"), "-X", *options, "-c", statement]

    def query(self, statement: str) -> str:
        """What the SQL gives."""
        return run(*self.client(statement)).strip()


class Redis(Peer):
    """A Redis server that keeps what it is told in a file."""

    program, user = "redis-server", "redis"

    def command(self) -> list[str]:
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--save", "")
        return [path_of("redis-server"), *options, "--appendonly", "yes"]

    def stamp_of(self, line: str) -> float | None:
        found = re.match(r"\d+:\S+ (\d+ \w+ \d+ \d+:\d+:\d+\.\d+) ", line)
        return _utc(found[1], "%d %b %Y %H:%M:%S.%f") if found else None

    def client(self, *words: str) -> list[str]:
        """A command that asks the server something."""
        return [path_of("redis-cli"), "-h", "127.0.0.1", "-p", str(self.port), *words]

    def answers(self) -> list[str]:
        """A command that ends with 0 when the server answers: redis-cli does so for an error too."""
        ping = " ".join(self.client("-e", "ping"))
        return ["/bin/sh", "-c", f'[ "$({ping})" = PONG ]']

    def query(self, *words: str) -> str:
        """What the server says to this."""
        return run(*self.client(*words)).strip()


class Nginx(Peer):
    """An nginx that answers "ok", and sends a file slowly."""

    program, user = "nginx", "www-data"

    def set_up(self) -> None:
        self.file = self.directory / "nginx.conf"
        (self.directory / "slow").write_bytes(b"slow" * 8192)
        (self.directory / "slow").chmod(0o644)
        self.write()

    def write(self, text: str | None = None, port: int | None = None) -> None:
        """Write its configuration: whole, or with this text in its place, or for another port."""
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"    {kind}_temp_path {self.directory}/{kind};\n" for kind in kinds)
        whole = (
            f"worker_processes 1;\ndaemon off;\npid {self.directory}/pid;\nerror_log stderr notice;\nevents {{}}\n"
            f"http {{\n    access_log off;\n{paths}"
            f"    server {{\n        listen 127.0.0.1:{port or self.port};\n"
            f'        location = / {{ return 200 "ok"; }}\n'
            f"        location = /slow {{ root {self.directory}; limit_rate 20k; }}\n    }}\n}}\n"
        )
        self.file.write_text(whole if text is None else text, encoding="ascii")
        self.file.chmod(0o644)

    def command(self) -> list[str]:
        return [path_of("nginx"), "-p", str(self.directory), "-e", "stderr", "-c", str(self.file)]

    @property
    def url(self) -> str:
        """What it answers "ok" to."""
        return f"http://127.0.0.1:{self.port}/"

    def get(self, path: str = "") -> str:
        """What curl gets there."""
        return run(path_of("curl"), "-sS", "--fail", "--max-time", "20", self.url + path)


def _utc(text: str, form: str) -> float:
    return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()


class Ends:
    """When processes end, as the kernel tells it, by name."""

    def __init__(self, pids: dict[str, int]) -> None:
        self.at: dict[str, float] = {}
        self._open = {os.pidfd_open(pid): name for name, pid in pids.items()}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        poll = select.poll()
        for descriptor in self._open:
            poll.register(descriptor, select.POLLIN)
        while self._open:
            for descriptor, _ in poll.poll():
                self.at[self._open.pop(descriptor)] = time.time()
                poll.unregister(descriptor)
                os.close(descriptor)

    def wait(self) -> dict[str, float]:
        """Wait until all have ended; when."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), f"alive: {list(self._open.values())}"
        return self.at


def wait_for(colony: Colony, deed: Callable[[], bool], what: str) -> None:
    """Wait until a client's question, which may fail for a while, is answered with True."""

    def succeeds() -> bool:
        try:
            return deed()
        except AssertionError:
            return False

    colony.wait_for(succeeds, what, PATIENCE_S * 2)
