"""The command line: each command is one call of ctllib and a rendering."""

from __future__ import annotations

import importlib
import os
import sys

from ncolony import ctllib

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TextIO

# What a shell reports for a program that SIGINT ended: 128 + 2.
_INTERRUPTED = 130
# The function of ctllib that a verb stands for -> the module here and its function that does it; others: change.run.
_RUN = {
    "status": ("show", "run"),
    "history": ("past", "run"),
    "jobs": ("jobs", "run"),
    "run": ("runs", "run"),
    "read_logs": ("logs", "run"),
    "shutdown": ("change", "shut_down"),
    "check": ("check", "run"),
    "diff": ("diff", "run"),
    "apply": ("apply", "run"),
    "why": ("why", "run"),
    "health": ("health", "run"),
    "events": ("events", "run"),
    "wait_for": ("waiting", "run"),
}
# Commands beside `ctl`, each with a module here whose `main(words)` returns the exit status.
_PROGRAMS: dict[str, str] = {
    "completion": "completion",
    "export": "export",
    "import": "import_",
    "run": "run",
    "schema": "schema",
    "startup": "startup",
    "up": "up",
}


def main(argv: Iterable[str]) -> int:
    """Run one command; returns the exit status. Errors are one line on stderr, never a traceback."""
    words = list(argv)
    if words[:1] == ["ctl"]:
        del words[0]
    elif words and words[0] in _PROGRAMS:
        return _guarded(importlib.import_module(f"ncolony.cli.{_PROGRAMS[words[0]]}").main, words[1:])
    elif words in (["-h"], ["--help"]):
        from ncolony.cli import overview  # every other command is started by its name

        return _guarded(overview.main, [])
    return _guarded(_control, words)


def _control(words: list[str]) -> int:
    from ncolony.cli import parser  # argparse: not needed by those who import this package for script() alone

    return _run(vars(parser.build().parse_args(words)))


def _guarded(call: Callable[[list[str]], int], words: list[str]) -> int:
    """What `call` makes of the words; what goes wrong is said in one line."""
    try:
        return call(words)
    except SystemExit as left:  # argparse has said what is wrong with the usage, or has shown its help
        return left.code if isinstance(left.code, int) else 1
    except ctllib.Error as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def script() -> None:
    """The console script `ncolony`."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a locale may lack a name's letters
    code = main(sys.argv[1:])
    try:
        say("")  # whatever argparse wrote is flushed here, where a closed pipe is silent
    except ctllib.Error as error:
        complain(str(error))
        code = 1
    sys.exit(code)


def _run(options: dict[str, object]) -> int:
    name = getattr(options["func"], "__name__", "")
    module, function = _RUN.get(name, ("change", "run"))
    run = getattr(importlib.import_module(f"ncolony.cli.{module}"), function)
    return int(run(options))


def say(text: str) -> bool:
    """Write `text` to stdout. That nobody reads it any more is no error; False then.

    :raises ctllib.CannotAccess: when it cannot be written for another reason, such as a full disk.
    """
    try:
        return _write(sys.stdout, text)
    except OSError as error:
        raise ctllib.CannotAccess(f"cannot write to stdout: {error.strerror}") from error


def complain(line: str) -> None:
    """Write one line to stderr; where that cannot be written there is nobody left to tell."""
    try:
        _write(sys.stderr, line + "\n")
    except OSError:
        pass


def _write(stream: TextIO | None, text: str) -> bool:
    """False when nobody reads it any more, and never will."""
    if stream is None:  # closed by whoever started us
        return False
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        # What is still buffered would fail again, with a traceback, when the interpreter ends.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            raise
        return False
    return True
