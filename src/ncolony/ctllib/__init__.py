"""Control a colony through its files: define processes, send messages, read what the supervisor reports.

Everything here is a file operation. No supervisor needs to run: definitions and messages wait for the next one.
Nothing of Twisted or msgspec is imported by importing this module, so that the command line starts quickly.
"""

from __future__ import annotations

import collections
import os

# The module `typing` costs as much start-up time as argparse; type checkers take this name for the real one.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, NamedTuple

    from .applying import BadFiles as BadFiles
    from .applying import Outcome as Outcome
    from .applying import apply as apply
    from .checking import Finding as Finding
    from .checking import check as check
    from .checkup import Checkup as Checkup
    from .checkup import Trouble as Trouble
    from .checkup import health as health
    from .definitions import add as add
    from .definitions import disable as disable
    from .definitions import enable as enable
    from .definitions import remove as remove
    from .differing import Change as Change
    from .differing import Difference as Difference
    from .differing import diff as diff
    from .eventlog import Event as Event
    from .eventlog import events as events
    from .eventlog import follow_events as follow_events
    from .explain import why as why
    from .goals import generation_of as generation_of
    from .goals import not_applied as not_applied
    from .goals import wait_for as wait_for
    from .goals import wait_for_converged as wait_for_converged
    from .logs import choose_logs as choose_logs
    from .logs import read_logs as read_logs
    from .messages import report as report
    from .messages import restart as restart
    from .messages import restart_all as restart_all
    from .messages import restart_group as restart_group
    from .messages import restartAll as restartAll
    from .messages import scan as scan
    from .messages import shutdown as shutdown
    from .messages import signal as signal
    from .messages import start as start
    from .messages import stop as stop
    from .messages import upgrade as upgrade
    from .reports import Answer as Answer
    from .reports import Applied as Applied
    from .reports import LastExit as LastExit
    from .reports import PastExit as PastExit
    from .reports import Status as Status
    from .reports import Supervisor as Supervisor
    from .reports import answer as answer
    from .reports import applied as applied
    from .reports import copies as copies
    from .reports import history as history
    from .reports import history_of as history_of
    from .reports import status as status
    from .reports import status_of as status_of
    from .reports import supervisor as supervisor
    from .runs import Run as Run
    from .runs import exit_code_of as exit_code_of
    from .runs import run as run
    from .runs import wait_for_run as wait_for_run
    from .scheduled import Job as Job
    from .scheduled import jobs as jobs
    from .waits import wait_for_answer as wait_for_answer
    from .waits import wait_for_applied as wait_for_applied
    from .waits import wait_for_shutdown as wait_for_shutdown

    PARSER: argparse.ArgumentParser

    class Places(NamedTuple):
        """The two directories of a colony, given as texts or path-likes, absolute or relative."""

        config: Path
        messages: Path

else:
    Places = collections.namedtuple("Places", "config messages")
    Places.__doc__ = "The two directories of a colony, given as texts or path-likes, absolute or relative."

Path = str | os.PathLike[str]

CONFIG_VARIABLE = "NCOLONY_CTL_CONFIG"
MESSAGES_VARIABLE = "NCOLONY_CTL_MESSAGES"
NO_SUPERVISOR = "no supervisor is running for these directories"
NOTHING_RUNS = "neither supervisor nor keeper runs for these directories"
NOT_SEEN = "not seen by a supervisor yet"
SCOPES = ("process", "tree")
REPORTS = ("ready", "healthy", "unhealthy", "late", "on-time", "skipped")
GOALS = ("running", "ready", "stopped", "exited")
DEFAULT_WAIT_S = 30.0


class Error(Exception):
    """What could not be done and why, in one line: "cannot add 'x': the name contains '/'"."""

    def __str__(self) -> str:
        from ncolony.model.names import printable

        # It may quote a file that somebody else has written.
        return printable(super().__str__())


class BadValue(Error, ValueError):
    """A name or value that no definition or message may have."""


class NotThere(Error, FileNotFoundError):
    """The process or the directory is not there."""


class CannotAccess(Error, OSError):
    """The operating system refused to read or write; `errno` says what it said."""


class Failed(Error):
    """The supervisor could not do it."""


class TimedOut(Error, TimeoutError):
    """The supervisor has not done it in time; it may still do so."""


def places_from_env(environ: Mapping[str, str] | None = None) -> Places:
    """The places named by NCOLONY_CTL_CONFIG and NCOLONY_CTL_MESSAGES.

    :raises BadValue: when one of them is missing or empty.
    """
    variables = os.environ if environ is None else environ
    for variable in (CONFIG_VARIABLE, MESSAGES_VARIABLE):
        if not variables.get(variable):
            raise BadValue(f"cannot find the colony: {variable} is not set")
    return Places(config=variables[CONFIG_VARIABLE], messages=variables[MESSAGES_VARIABLE])


# --- the command line, as upstream offers it here ---


def call(results: object) -> Any:
    """Call `results.func(Places(results.config, results.messages), …)` with the other attributes as keywords."""
    options = dict(vars(results))
    places = Places(config=options.pop("config"), messages=options.pop("messages"))
    func: Callable[..., Any] = options.pop("func")
    return func(places, **options)


def main(argv: Iterable[str]) -> None:
    """Run the command line `argv`; a leading "ctl" may be left out.

    :raises SystemExit: with the exit status, when it is not 0.
    """
    # The only import against the house's direction, with the one below: upstream's callers find both names here.
    from ncolony import cli

    status_code = cli.main(argv)
    if status_code:
        raise SystemExit(status_code)


# --- what is offered here and lives in a module beside this one ---

# Name -> module, loaded when the name is first asked for: every command needs one or two of them. Type checkers read
# the imports at the top instead, which must say the same.
_ELSEWHERE: dict[str, str] = {
    # what should run
    "add": "definitions",
    "remove": "definitions",
    "enable": "definitions",
    "disable": "definitions",
    # what is asked for
    "restart": "messages",
    "restart_all": "messages",
    "restart_group": "messages",
    "start": "messages",
    "stop": "messages",
    "signal": "messages",
    "report": "messages",
    "scan": "messages",
    "upgrade": "messages",
    "shutdown": "messages",
    "restartAll": "messages",
    # what is reported
    "LastExit": "reports",
    "PastExit": "reports",
    "Status": "reports",
    "Supervisor": "reports",
    "Answer": "reports",
    "Applied": "reports",
    "status": "reports",
    "status_of": "reports",
    "copies": "reports",
    "history": "reports",
    "history_of": "reports",
    "supervisor": "reports",
    "answer": "reports",
    "applied": "reports",
    "why": "explain",
    "health": "checkup",
    "Trouble": "checkup",
    "Checkup": "checkup",
    "Event": "eventlog",
    "events": "eventlog",
    "follow_events": "eventlog",
    "read_logs": "logs",
    "choose_logs": "logs",
    # jobs
    "jobs": "scheduled",
    "Job": "scheduled",
    "run": "runs",
    "Run": "runs",
    "wait_for_run": "runs",
    "exit_code_of": "runs",
    # waiting for it
    "wait_for_answer": "waits",
    "wait_for_shutdown": "waits",
    "wait_for_applied": "waits",
    # changing it with confidence
    "check": "checking",
    "Finding": "checking",
    "diff": "differing",
    "Difference": "differing",
    "Change": "differing",
    "apply": "applying",
    "Outcome": "applying",
    "BadFiles": "applying",
    "wait_for": "goals",
    "wait_for_converged": "goals",
    "generation_of": "goals",
    "not_applied": "goals",
}
_HERE = ("Places", "Error", "BadValue", "NotThere", "CannotAccess", "Failed", "TimedOut", "places_from_env")

if not TYPE_CHECKING:
    # In the order of the documentation.
    __all__ = [*_HERE, *_ELSEWHERE, "call", "main"]

    def __getattr__(name: str) -> Any:
        import importlib

        if name in _ELSEWHERE:
            found = getattr(importlib.import_module(f"ncolony.ctllib.{_ELSEWHERE[name]}"), name)
            # Where its user finds it is its home: in tracebacks, pickles and the documentation.
            found.__module__ = __name__
        elif name == "PARSER":
            # Built when first asked for: argparse is not needed by those who use the functions.
            from ncolony.cli.parser import build

            found = build()
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *_ELSEWHERE, "PARSER"})
