"""`up`: the processes of a Procfile in the foreground, for development."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import select
import signal
import sys
import tempfile

from ncolony import ctllib
from ncolony.cli import procfile
from ncolony.model.variables import parse_variables

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from typing import Any

    from ncolony.system.guard import Guarded

# As foreman: the first type of process gets this port and those after it, the second begins 100 later.
_PORT, _PORTS_PER_TYPE = 5000, 100
_US = "ncolony"  # what our own lines are marked with
_COLOURS = (36, 33, 32, 35, 34, 31, 96, 93, 92, 95, 94, 91)  # SGR: cyan, yellow, green, magenta, blue, red, and bright
# How an end is told comes 10 ms after the end: how often to look for it, and how long.
_LOOK_S, _LOOKS = 0.01, 500
_ENDED = ("EXITED", "FATAL")
_AT_REST = (*_ENDED, "STOPPED")


def main(words: list[str]) -> int:
    """Run until the first process ends, or CTRL-C; returns its exit status, or that of a program a signal ended."""
    options = _options(words)
    source, names = _source(options)
    if os.path.isdir(source):
        root, definitions = os.getcwd(), _of_directory(source, names)
    else:
        root = os.path.dirname(os.path.abspath(source))
        definitions = _of_procfile(source, root, names, options)
    if not definitions:
        raise ctllib.Error(f"cannot start anything: {source} defines no process")
    return _Up(definitions, root, options).run()


def build() -> argparse.ArgumentParser:
    """The parser of `ncolony up`."""
    parser = argparse.ArgumentParser(
        prog="ncolony up",
        usage="ncolony up [PROCFILE | DIR] [NAME …] [options]",
        description="Run the processes of a Procfile, or of a config directory, until the first ends, or CTRL-C.",
        epilog="Exit status: that of the process that ended first, 128 + n for a signal.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("words", nargs="*", metavar="PROCFILE | DIR | NAME", help="what to run [default: all of ./Procfile]")
    option("-f", "--procfile", metavar="PATH", help="the Procfile or DIR, if not given as the first word")
    option("-e", "--env", action="append", metavar="FILE", help="variables [default: .env beside the Procfile]")
    option("-m", "--formation", type=_formation, metavar="NAME=N,…", help="how many of each [default: all=1]")
    option("-p", "--port", type=int, metavar="PORT", help=f"the first PORT [default: {_PORT}]")
    option("-t", "--timeout", type=float, default=5.0, metavar="SECONDS", help="from TERM to KILL [default: 5]")
    option("--keep-going", action="store_true", help="until all have ended; exit status of the first that failed")
    return parser


def _options(words: list[str]) -> argparse.Namespace:
    parser = build()
    found = parser.parse_intermixed_args(words)
    if not found.timeout >= 0:
        parser.error("--timeout takes seconds, 0 or more")
    return found


def _formation(text: str) -> dict[str, int]:
    found = {}
    for part in text.replace(" ", "").split(","):
        name, equals, number = part.partition("=")
        if not (name and equals and number.isascii() and number.isdigit() and len(number) <= 4):
            raise argparse.ArgumentTypeError(f"expected NAME=N,…, found {text!r}")
        found[name] = int(number)
    return found


# --- what to run ---


def _source(options: argparse.Namespace) -> tuple[str, list[str]]:
    """The Procfile or directory, and the names chosen."""
    names = list(options.words)
    source = options.procfile
    if source is None and names and not _defines(names[0]) and ("/" in names[0] or os.path.exists(names[0])):
        source = names.pop(0)
    source = "Procfile" if source is None else source
    if os.path.exists(os.path.join(source, "Procfile")):
        source = os.path.join(source, "Procfile")
    return source, names


def _defines(name: str) -> bool:
    """Whether it is a process of ./Procfile; a directory of that name is not meant then."""
    try:
        return name in _parsed("Procfile", procfile.parse)
    except ctllib.Error:
        return False


def _parsed(path: str, parse: Any) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as file:
            found: dict[str, str] = parse(file.read())
    except OSError as error:
        raise ctllib.CannotAccess(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ctllib.BadValue(f"cannot read {path}: not UTF-8") from error
    except ValueError as error:
        raise ctllib.BadValue(f"cannot read {path}: {error}") from error
    return found


def _of_procfile(path: str, root: str, names: list[str], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Name to definition, for each process of a Procfile that is wanted, as many as are wanted."""
    commands = _parsed(path, procfile.parse)
    env: dict[str, str] = {}
    usual = os.path.join(root, ".env")
    for one in options.env if options.env is not None else [usual] if os.path.exists(usual) else []:
        env.update(_parsed(one, parse_variables))
    formation = options.formation if options.formation is not None else {"all": 1}
    _check_names(path, [*names, *(name for name in formation if name != "all")], commands)
    first = options.port if options.port is not None else _base_port(env)
    definitions: dict[str, dict[str, Any]] = {}
    for place, (name, command) in enumerate(commands.items()):
        count = formation.get(name, formation.get("all", 0)) if not names or name in names else 0
        for number in range(count):
            port = first + place * _PORTS_PER_TYPE + number
            shown = name if count == 1 else f"{name}.{number + 1}"
            definitions[shown] = {
                "args": ["/bin/sh", "-c", command], "cwd": root, "env_inherit": ["*"], "restart": "never",
                "env": {"PS": f"{name}.{number + 1}", **env, "PORT": str(port)},
            }  # fmt: skip
    return definitions


def _base_port(env: dict[str, str]) -> int:
    text = env.get("PORT") or os.environ.get("PORT") or str(_PORT)
    if not (text.isascii() and text.isdigit()):
        raise ctllib.BadValue(f"cannot start anything: PORT is no number: {text!r}")
    return int(text)


def _check_names(source: str, names: list[str], known: Any) -> None:
    for name in names:
        if name not in known:
            raise ctllib.NotThere(f"cannot start {name}: {source} does not define it")


def _of_directory(path: str, names: list[str]) -> dict[str, dict[str, Any]]:
    """Name to definition, of the files in a config directory; what they leave open is as for a Procfile's."""
    from ncolony.model.config import Problem, define
    from ncolony.model.names import is_ignored

    definitions: dict[str, dict[str, Any]] = {}
    try:
        for name in sorted(os.listdir(path)):
            place = os.path.join(path, name)
            if is_ignored(name) or os.path.isdir(place):
                continue
            with open(place, "rb") as file:
                data = file.read()
            if isinstance(found := define(name, data), Problem):
                raise ctllib.BadValue(
                    f"cannot start {name}: {place}: {found.key}{': ' if found.key else ''}{found.why}"
                )
            definitions[name] = {"env_inherit": ["*"], "restart": "never", **json.loads(data)}
    except OSError as error:
        raise ctllib.CannotAccess(f"cannot read {error.filename}: {error.strerror}") from error
    _check_names(path, names, definitions)
    return {name: one for name, one in definitions.items() if not names or name in names}


# --- running it ---


class _Printer:
    """Lines to standard output, each with the name of its process before it."""

    def __init__(self, names: list[str]) -> None:
        self._width = max(map(len, [*names, _US]))
        self._colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(names)}
        dumb = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._coloured = not dumb and sys.stdout is not None and sys.stdout.isatty()
        self.broken = False

    def line(self, name: str, text: str) -> None:
        """Print one; when nobody reads any more, that is noted in `broken`."""
        prefix = f"{name:<{self._width}} |"
        if self._coloured and name in self._colours:
            prefix = f"\x1b[{self._colours[name]}m{prefix}\x1b[0m"
        if not self.broken and sys.stdout is not None:
            try:
                sys.stdout.write(f"{prefix} {text}\n")
            except OSError:
                self._break()

    def flush(self) -> None:
        """Have everything seen."""
        if not self.broken and sys.stdout is not None:
            try:
                sys.stdout.flush()
            except OSError:
                self._break()

    def _break(self) -> None:
        self.broken = True
        with open(os.devnull, "wb") as nowhere:  # what is buffered would fail again at the end
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


class _Up:
    """One run."""

    def __init__(self, definitions: dict[str, dict[str, Any]], root: str, options: argparse.Namespace) -> None:
        self._definitions, self._root, self._options = definitions, root, options
        # Absolute, since the supervisor works in another directory.
        temporary = os.path.abspath(tempfile.gettempdir())
        self._directory = os.path.join(temporary, f"ncolony-up-{os.getpid()}-{secrets.token_hex(4)}")
        self._printer = _Printer(list(definitions))
        self._colony: Guarded
        self._code: int | None = None
        self._failure = 0  # the first exit status that was none, with --keep-going
        self._stopping = False
        self._rest = b""
        self._ended: dict[str, int] = {}  # names whose end is not told yet, and how often we have looked

    def run(self) -> int:
        """All of it; returns the exit status."""
        from ncolony.system.guard import Guarded

        wake, waker = os.pipe()
        for descriptor in (wake, waker):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(waker)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        if sys.stdout is not None:
            sys.stdout.flush()  # or both of us would say it
        self._colony = Guarded(self._directory, self._make, self._root)
        self._listen(wake)
        ended = self._colony.wait()
        self._printer.flush()
        if self._code is None:  # one of its processes asked for it, or it could not go on
            self._printer.line(_US, f"the supervisor has ended with {ended}")
            self._printer.flush()
            return ended
        return self._code

    def _make(self) -> list[str]:
        """Fill the colony's directory; the supervisor's command."""
        from ncolony.system.guard import LINGER_S

        places = {name: f"{self._directory}/{name}" for name in ("config", "messages", "state")}
        for name in ("config", "messages"):
            os.mkdir(places[name], 0o700)
        for name, definition in self._definitions.items():
            with open(f"{places['config']}/{name}", "w", encoding="utf-8") as file:
                json.dump(definition, file)
        command = [sys.executable, "-P", "-m", "twisted", "--log-format=json", "ncolony"]
        command += [word for name, place in places.items() for word in (f"--{name}", place)]
        return [
            *(*command, "--cgroup", "none", "--log-budget", "16M"),
            *("--keeper-linger", str(LINGER_S), "--killtime", str(self._options.timeout)),
        ]

    def _listen(self, wake: int) -> None:
        """Show what the supervisor says, until it has ended."""
        output = self._colony.output
        while True:
            ready = select.select([output, wake], [], [], _LOOK_S if self._ended else None)[0]
            if wake in ready:
                for number in os.read(wake, 100):
                    self._signalled(number)
            if output in ready:
                if not (data := os.read(output, 1 << 16)):
                    break
                self._say(data)
            else:
                self._look_at_ends()  # only now: what it printed comes before
            self._printer.flush()
            if self._printer.broken and not self._stopping:
                self._stop(128 + signal.SIGPIPE)

    def _signalled(self, number: int) -> None:
        """CTRL-C and its kin: stop; again: at once."""
        if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGINT:
                again = "killing what is left" if self._stopping else "stopping; CTRL-C again to kill"
                self._printer.line(_US, again)
            self._stop(128 + number)

    def _stop(self, code: int) -> None:
        """Stop everything. The first reason decides about the exit status."""
        self._stopping = True
        self._code = code if self._code is None else self._code
        self._colony.stop()

    def _say(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"\x1e"):
                self._printer.line(_US, line.decode("utf-8", "backslashreplace"))
                continue
            with contextlib.suppress(ValueError):  # torn by its writer's death
                self._event(json.loads(line[1:]))

    def _event(self, event: dict[str, Any]) -> None:
        """One event of the supervisor's log."""
        name, state = event.get("name"), event.get("state")
        if event.get("log_namespace") == "ncolony.output":
            self._printer.line(event["tag"], event["line"])
        elif event.get("log_namespace") != "ncolony" or event.get("log_level", {}).get("name") == "debug":
            return
        elif name is not None and state in _ENDED and not self._stopping:
            self._ended[name] = 0
        elif name is not None and state is None and event.get("pid") is not None:
            self._printer.line(name, f"started with pid {event['pid']}")
        elif event.get("log_level", {}).get("name") != "info":
            with contextlib.suppress(KeyError, ValueError, TypeError):
                self._printer.line(_US, event["log_format"].format(**event))

    def _look_at_ends(self) -> None:
        """How what has ended did, as soon as that is written."""
        for name, looks in list(self._ended.items()):
            status = self._status(name)
            last = status.get("last_exit") or {}
            if status.get("state") not in _ENDED and looks < _LOOKS:
                self._ended[name] = looks + 1
                continue
            del self._ended[name]
            self._printer.line(name, _end(last))
            self._on_end(_exit_code(last))

    def _on_end(self, code: int) -> None:
        if not self._options.keep_going:
            if not self._stopping:
                self._printer.line(_US, "stopping the others" if len(self._definitions) > 1 else "stopping")
                self._stop(code)
            return
        self._failure = code if not self._failure else self._failure
        if not self._stopping and not self._ended and self._all_rest():
            self._stop(self._failure)

    def _status(self, name: str) -> dict[str, Any]:
        try:
            with open(f"{self._directory}/state/status/{name}", "rb") as file:
                found = json.loads(file.read())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _all_rest(self) -> bool:
        """Whether nothing runs any more, nor will."""
        names = os.listdir(f"{self._directory}/state/status")
        covered = {name for name in self._definitions if name in names or f"{name}:0" in names}
        shown = [name for name in names if not name.endswith(".new")]
        return len(covered) == len(self._definitions) and all(
            self._status(name).get("state") in _AT_REST for name in shown
        )


def _end(last: dict[str, Any]) -> str:
    """What is said of an end."""
    if last.get("code") is not None:
        return f"exited with code {last['code']}"
    if last.get("signal") is not None:
        return f"killed by {last['signal']}"
    return str(last.get("text") or "ended, nobody knows how")


def _exit_code(last: dict[str, Any]) -> int:
    """As a shell would tell it: 128 + n for a signal, 127 for what could not be started."""
    if last.get("code") is not None:
        return int(last["code"])
    if last.get("signal") is not None:
        text = str(last["signal"])
        return 128 + (getattr(signal, f"SIG{text}", 0) or (int(text) if text.isdigit() else 0))
    return 127
