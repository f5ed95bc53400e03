"""The arguments of every command. What is parsed can be given to ctllib.call, as upstream's parser allows."""

from __future__ import annotations

import argparse
import json
import os

from ncolony import __version__, ctllib

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_PLACES = {"config": ctllib.CONFIG_VARIABLE, "messages": ctllib.MESSAGES_VARIABLE}
# Options whose number may be left out, and what it is then.
_NUMBERED = {"--wait": f"{ctllib.DEFAULT_WAIT_S:g}", "--rolling": "1", "--watch": "1"}
# A run takes as long as it takes.
_NUMBERED_OF_RUN = {**_NUMBERED, "--wait": "inf"}
_TOO_LONG_TO_SHOW = 60
_LONGEST_NUMBER = 9


def build() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Top(
        prog="ncolony ctl",
        formatter_class=_Help,
        usage="ncolony ctl --messages DIR --config DIR [--state DIR] VERB …",
        description="Control a colony of processes through its directories.",
        epilog="Exit status: 0 fine, 1 error, 2 usage, 3 something is not running, 4 no such process.",
    )
    parser.add_argument("--version", action="version", version=f"ncolony {__version__}")
    parser.add_argument("--messages", metavar="DIR", help=f"directory of messages; or {ctllib.MESSAGES_VARIABLE}")
    parser.add_argument("--config", metavar="DIR", help=f"directory of definitions; or {ctllib.CONFIG_VARIABLE}")
    parser.add_argument(
        "--state", metavar="DIR", default=argparse.SUPPRESS, help="the supervisor's --state, if it has one"
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True, prog="ncolony ctl", parser_class=_Verb)
    for verb, (text, usage, fill, finish) in _VERBS.items():
        verbs.add_parser(
            verb,
            help=text,
            description=f"{text.capitalize()}.",
            usage=f"ncolony ctl … {verb} {usage}",
            fill=fill,
            finish=finish,
            formatter_class=_Help,
        )
    return parser


class _Help(argparse.HelpFormatter):
    """Knows its width without shutil, which takes 2 ms to import and which argparse asks with every option added."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


class _Top(argparse.ArgumentParser):
    """Takes the two directories from the environment where they are not given."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(args, namespace)
        needed = getattr(found, "needs", _PLACES)  # what `call` would take for an argument is taken away again
        if hasattr(found, "needs"):
            del found.needs
        for key, variable in _PLACES.items():
            if getattr(found, key) is None:
                setattr(found, key, os.environ.get(variable))
        if found.config and not found.messages:
            found.messages = _messages_of_run(found)
        for key, variable in _PLACES.items():
            if not getattr(found, key) and key in needed:
                self.error(f"the directory of {key} is missing: give --{key} DIR or set {variable}")
        return found, rest


def _messages_of_run(options: argparse.Namespace) -> str | None:
    """The messages directory of a colony that `ncolony run` gave one, where it is there or not needed."""
    from ncolony.system.places import messages_directory  # imports hashlib, which is rarely needed here

    found = messages_directory(options.config, getattr(options, "state", None))
    only_files = (ctllib.add, ctllib.remove, ctllib.enable, ctllib.disable)
    needless = getattr(options, "func", None) in only_files and not hasattr(options, "wait")
    return found if needless or os.path.isdir(found) else None


class _Verb(argparse.ArgumentParser):
    """One command. Its options are added when it is chosen, and its names may stand anywhere among them.

    Names are no argparse positionals because in Python 3.11 an optional one is not found behind an option.
    """

    def __init__(self, fill: Callable[[_Verb], None], finish: _Finish, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._fill: Callable[[_Verb], None] | None = fill
        self._finish = finish

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._fill:
            self._fill(self)
            self._fill = None
        words, command = _split(list(args))
        numbered = _NUMBERED_OF_RUN if self.prog.endswith(" run") else _NUMBERED
        found, rest = super().parse_known_args(_with_numbers(words, numbered), namespace)
        unknown = [word for word in rest if word.startswith("-") and word != "-"]
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        self._finish(self, found, rest, command)
        return found, []

    def one(self, what: str, given: Sequence[str]) -> str:
        """The only one of the words given, which may have been said twice."""
        if not given:
            self.error(f"the following arguments are required: {what}")
        if len(set(given)) > 1:
            self.error(f"exactly one {what} is expected, found {', '.join(map(repr, given))}")
        return given[0]


if TYPE_CHECKING:
    _Finish = Callable[[_Verb, argparse.Namespace, list[str], list[str] | None], None]


def _split(words: list[str]) -> tuple[list[str], list[str] | None]:
    """What stands before and after "--"; None where there is no "--"."""
    if "--" not in words:
        return words, None
    place = words.index("--")
    return words[:place], words[place + 1 :]


def _with_numbers(words: list[str], numbered: dict[str, str]) -> list[str]:
    """Join --wait and the number behind it, if there is one: `--wait web` is a name, `--wait 5` is not."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in numbered and _is_number(word):
            joined[-1] = f"{joined[-1]}={word}"
        else:
            joined.append(word)
    return [f"{word}={numbered[word]}" if word in numbered else word for word in joined]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _seconds(text: str) -> float:
    value = float(text) if _is_number(text) else -1.0
    if not value >= 0:  # also when it is not a number at all
        raise argparse.ArgumentTypeError(f"expected seconds, 0 or more, found {text!r}")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER):
        raise argparse.ArgumentTypeError(f"expected a number, found {text!r}")
    return int(text)


# Whole units of time, as in "1h30m".
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def _span(text: str) -> float:
    """The seconds in "90", "10m", "1h30m" or "2d"."""
    if _is_number(text):
        return _seconds(text)
    total, number = 0.0, ""
    for character in text:
        if character in _UNITS and _is_number(number):
            total, number = total + float(number) * _UNITS[character], ""
        else:
            number += character
    if number or not text or not 0 <= total < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a time such as 90, 10m, 1h30m or 2d, found {text!r}")
    return total


def _owner(text: str) -> int | str:
    return int(text) if text.isascii() and text.removeprefix("-").isdigit() else text


def _object(text: str) -> Any:
    """The JSON object that is `text`, or that is in the file of that name.

    :raises ctllib.Error: in place of argparse's errors, which would repeat the usage.
    """
    shown = repr(text if len(text) <= _TOO_LONG_TO_SHOW else text[:_TOO_LONG_TO_SHOW] + "…")
    is_path = not text.lstrip().startswith("{")
    try:
        if is_path:
            with open(text, "rb") as file:
                found = json.loads(file.read())
        else:
            found = json.loads(text)
    except RecursionError as error:
        raise ctllib.Error(f"cannot use --extras {shown}: nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ctllib.Error(f"cannot use --extras {shown}: not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ctllib.Error(f"cannot use --extras {shown}: not JSON: {error}") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ctllib.Error(f"cannot use --extras {shown}: neither a JSON object nor a file with one ({why})") from error
    if not isinstance(found, dict):
        raise ctllib.Error(f"cannot use --extras {shown}: the file holds no JSON object")
    return found


# --- the options of each command, and what is made of its names ---


def _fill_wait(verb: _Verb) -> None:
    verb.add_argument(
        "--wait",
        metavar="[SECONDS]",
        type=_seconds,
        default=argparse.SUPPRESS,
        help=f"wait until it is in effect, at most SECONDS ({ctllib.DEFAULT_WAIT_S:g} if left out); else fail",
    )


def _fill_name(verb: _Verb) -> None:
    verb.add_argument("--name", action="append", metavar="NAME", help="the process, if not given as NAME")
    _fill_wait(verb)


def _fill_names(verb: _Verb) -> None:
    verb.add_argument("--name", dest="names", action="append", metavar="NAME", help="a process; may be repeated")
    _fill_wait(verb)


def _fill_restart(verb: _Verb) -> None:
    _fill_name(verb)
    _fill_rolling(verb)


def _fill_restart_all(verb: _Verb) -> None:
    _fill_wait(verb)
    _fill_rolling(verb)


def _fill_rolling(verb: _Verb) -> None:
    verb.add_argument(
        "--rolling",
        metavar="[COUNT]",
        type=_count,
        default=argparse.SUPPRESS,
        help="COUNT at a time (1 if left out), each ready before the next; stops when one does not come up",
    )


def _fill_group(verb: _Verb) -> None:
    verb.add_argument("--group", action="append", metavar="GROUP", help="the group, if not given as GROUP")
    _fill_restart_all(verb)


def _fill_status(verb: _Verb) -> None:
    verb.add_argument(
        "--name", dest="names", action="append", metavar="NAME", help="a process or glob; may be repeated"
    )
    verb.add_argument("-l", "--long", action="store_true", help="more of each: its last exit, its last lines")
    verb.add_argument("--json", action="store_true", help="a list of records instead of a table")
    verb.add_argument(
        "--watch",
        metavar="[SECONDS]",
        type=_seconds,
        help="again whenever something changed, until CTRL-C; uptimes every SECONDS (1 if left out)",
    )


def _fill_jobs(verb: _Verb) -> None:
    verb.add_argument("--name", dest="names", action="append", metavar="NAME", help="a job or glob; may be repeated")
    verb.add_argument("--json", action="store_true", help="a list of objects instead of a table")
    verb.add_argument(
        "--watch",
        metavar="[SECONDS]",
        type=_seconds,
        help="again every SECONDS (1 if left out), until CTRL-C",
    )


def _fill_run(verb: _Verb) -> None:
    verb.add_argument("--name", action="append", metavar="NAME", help="the process, if not given as NAME")
    verb.add_argument("-f", "--follow", action="store_true", help="wait for its end, and show what it prints")
    verb.add_argument(
        "--wait",
        metavar="[SECONDS]",
        type=_seconds,
        default=argparse.SUPPRESS,
        help="wait for its end and exit with its exit code; fail after SECONDS (never if left out)",
    )


def _fill_health(verb: _Verb) -> None:
    verb.add_argument(
        "--name", dest="names", action="append", metavar="NAME", help="a process or glob; may be repeated"
    )
    verb.add_argument("--json", action="store_true", help="an object with `healthy` and `reasons` instead of lines")


def _fill_why(verb: _Verb) -> None:
    verb.add_argument(
        "--name", dest="names", action="append", metavar="NAME", help="a process or glob; may be repeated"
    )
    verb.add_argument("--json", action="store_true", help="a list of objects instead of text")


def _fill_events(verb: _Verb) -> None:
    verb.add_argument(
        "--name", dest="names", action="append", metavar="NAME", help="a process or glob; may be repeated"
    )
    verb.add_argument("-f", "--follow", action="store_true", help="go on with what happens, until CTRL-C")
    verb.add_argument("-n", dest="count", type=_count, metavar="COUNT", help="the newest COUNT only; with -f, 10")
    verb.add_argument("--since", type=_span, metavar="TIME", help="not older than this: 90 (seconds), 10m, 1h30m, 2d")
    verb.add_argument("--json", action="store_true", help="a JSON object per line")


def _fill_wait_verb(verb: _Verb) -> None:
    verb.add_argument("--name", dest="names", action="append", metavar="NAME", help="a process; may be repeated")
    verb.add_argument(
        "--for", dest="goal", choices=ctllib.GOALS, default="running", help="what is waited for (running if left out)"
    )
    verb.add_argument("--converged", action="store_true", help="wait until every file and message is taken up")
    verb.add_argument("--ignore-problems", action="store_true", help="with --converged: files that cannot be used too")
    verb.add_argument(
        "--timeout",
        type=_seconds,
        default=ctllib.DEFAULT_WAIT_S,
        metavar="SECONDS",
        help=f"fail if it has not come about by then ({ctllib.DEFAULT_WAIT_S:g} if left out)",
    )


def _fill_signal(verb: _Verb) -> None:
    _fill_name(verb)
    verb.add_argument(
        "--scope",
        choices=ctllib.SCOPES,
        default="process",
        help="its own pid alone (process, the default), or all that it started too (tree)",
    )


def _fill_history(verb: _Verb) -> None:
    verb.add_argument("--name", action="append", metavar="NAME", help="the process, if not given as NAME")
    verb.add_argument("-n", dest="count", type=_count, metavar="COUNT", help="the newest COUNT only")
    verb.add_argument("--lines", action="store_true", help="below each, the last lines that it printed")
    verb.add_argument("--json", action="store_true", help="a list of records instead of a table")


def _fill_check(verb: _Verb) -> None:
    verb.add_argument("--strict", action="store_true", help="fail on warnings too")
    verb.add_argument("--no-strict-modes", action="store_true", help="as root, pass files that anybody may write")
    verb.add_argument("--json", action="store_true", help="a list of findings instead of lines")


def _fill_diff(verb: _Verb) -> None:
    verb.add_argument("--json", action="store_true", help="an object instead of lines")


def _fill_apply(verb: _Verb) -> None:
    verb.add_argument("--prune", action="store_true", help="remove the definitions that DIR does not have")
    verb.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    verb.add_argument("--json", action="store_true", help="an object with `changed` instead of lines")
    _fill_wait(verb)


def _fill_logs(verb: _Verb) -> None:
    option = verb.add_argument
    option("--name", dest="names", action="append", metavar="NAME", help="a process, glob or group; may be repeated")
    option("-f", "--follow", action="store_true", help="go on with what is still to come, until CTRL-C")
    option(
        "-n",
        "--lines",
        type=_lines,
        metavar="LINES",
        default=argparse.SUPPRESS,
        help="the newest of each process: 100, with -f 10; or all",
    )
    option("--since", metavar="TIME", help="only what is younger: 90s, 10m, 1h30m, 2d, or such as 2026-11-22T18:17")
    option("--until", metavar="TIME", help="only what is older")
    option("--grep", metavar="RE", help="only lines in which the Python regular expression is found")
    option("-t", "--timestamps", action="store_true", help="before each line, when it was printed")
    option("--stderr", action="store_true", help="only standard error, where it goes a way of its own")
    option("--json", action="store_true", help="each line as a JSON object on a line")
    option("--logs", metavar="DIR", help="the supervisor's --logs, where it had one and has ended")


def _lines(text: str) -> int | None:
    """How many lines; None for all."""
    return None if text == "all" else _count(text)


def _fill_add(verb: _Verb) -> None:
    _fill_name(verb)
    option = verb.add_argument
    option("--cmd", metavar="CMD", help="the program, if not given after --")
    option("--arg", dest="args", action="append", metavar="ARG", help="an argument of the program; may be repeated")
    option("--env", action="append", metavar="NAME=VALUE", help="an environment variable; may be repeated")
    option("--env-inherit", action="append", metavar="NAME", help="a variable, or glob, to inherit; may be repeated")
    option("--uid", type=_owner, metavar="USER", help="user to run as, number or name")
    option("--gid", type=_owner, metavar="GROUP", help="group to run as, number or name")
    option("--extras", type=_object, metavar="JSON", help="further keys: a JSON object, or the path of a file with one")
    option("--group", action="append", metavar="GROUP", help="a group it belongs to; may be repeated")
    option("--cwd", metavar="DIR", help="directory to run in")
    option("--umask", metavar="OCTAL", help="file mode creation mask, such as 022")
    option("--disabled", dest="enabled", action="store_const", const=False, help="define it but do not run it")


def _finish_add(verb: _Verb, found: argparse.Namespace, rest: list[str], command: list[str] | None) -> None:
    if len(rest) > 1:
        verb.error(f"unrecognized arguments: {' '.join(rest[1:])} (a whole command goes behind --)")
    found.name = verb.one("NAME", rest + (found.name or []))
    if command:
        if found.cmd is not None or found.args is not None:
            verb.error("give the command either with --cmd and --arg or behind --, not both")
        found.cmd, found.args = command[0], command[1:]
    if found.cmd is None:
        verb.error("the following arguments are required: --cmd CMD, or the command behind --")


def _finish_name(verb: _Verb, found: argparse.Namespace, rest: list[str], more: list[str] | None) -> None:
    given = rest + (more or [])
    if len(given) > 1:
        verb.error(f"exactly one NAME is expected, found {', '.join(map(repr, given))}")
    found.name = verb.one("NAME", given + (found.name or []))


def _finish_signal(verb: _Verb, found: argparse.Namespace, rest: list[str], more: list[str] | None) -> None:
    given = rest + (more or [])
    names = found.name or []
    if not given or len(given) + len(names) < 2:
        verb.error("the following arguments are required: NAME SIGNAL")
    if len(given) > 2:
        verb.error(f"exactly one NAME and one SIGNAL are expected, found {', '.join(map(repr, given))}")
    *name, signal = given
    found.name = verb.one("NAME", name + names)
    found.signal = int(signal) if signal.isascii() and signal.isdigit() and len(signal) <= _LONGEST_NUMBER else signal


def _finish_group(verb: _Verb, found: argparse.Namespace, rest: list[str], more: list[str] | None) -> None:
    given = rest + (more or [])
    if len(given) > 1:
        verb.error(f"exactly one GROUP is expected, found {', '.join(map(repr, given))}")
    found.group = verb.one("GROUP", given + (found.group or []))


def _finish_names(verb: _Verb, found: argparse.Namespace, rest: list[str], more: list[str] | None) -> None:
    _finish_status(verb, found, rest, more)
    if not found.names:
        verb.error("the following arguments are required: NAME")


def _finish_status(verb: _Verb, found: argparse.Namespace, rest: list[str], more: list[str] | None) -> None:
    found.names = list(dict.fromkeys([*rest, *(more or []), *(found.names or [])]))


def _finish_check(verb: _Verb, found: argparse.Namespace, rest: list[str], more: list[str] | None) -> None:
    found.paths = [*rest, *(more or [])]
    found.needs = () if found.paths else ("config",)


def _finish_source(verb: _Verb, found: argparse.Namespace, rest: list[str], more: list[str] | None) -> None:
    found.source = verb.one("DIR", [*rest, *(more or [])])
    if getattr(found, "wait", None) is None or getattr(found, "dry_run", False):
        found.needs = ("config",)


def _finish_wait(verb: _Verb, found: argparse.Namespace, rest: list[str], more: list[str] | None) -> None:
    _finish_status(verb, found, rest, more)
    if found.converged and found.names:
        verb.error("--converged concerns all processes: no NAME can be given")
    if not found.converged and not found.names:
        verb.error("the following arguments are required: NAME, or --converged")


def _finish_nothing(verb: _Verb, found: argparse.Namespace, rest: list[str], more: list[str] | None) -> None:
    if rest or more:
        verb.error(f"unrecognized arguments: {' '.join([*rest, *(more or [])])}")


def _with_func(func: str, fill: Callable[[_Verb], None]) -> Callable[[_Verb], None]:
    """`func` is a name in ctllib: what it stands for is loaded when the verb is chosen."""

    def filled(verb: _Verb) -> None:
        verb.set_defaults(func=getattr(ctllib, func))
        fill(verb)

    return filled


_ROLLING = "[--rolling [COUNT]]"
_ONE, _SOME = "NAME [--wait [SECONDS]]", "NAME … [--wait [SECONDS]]"
# verb: what it does, its usage, its options, what is made of its names
_VERBS: dict[str, tuple[str, str, Callable[[_Verb], None], _Finish]] = {
    "add": (
        "define a process, or redefine it",
        "NAME [options] (--cmd CMD [--arg ARG] … | -- CMD [ARG] …)",
        _with_func("add", _fill_add),
        _finish_add,
    ),
    "remove": ("remove a process", _ONE, _with_func("remove", _fill_name), _finish_name),
    "restart": ("restart a process", f"{_ONE} {_ROLLING}", _with_func("restart", _fill_restart), _finish_name),
    "restart-group": (
        "restart the processes of a group",
        f"GROUP [--wait [SECONDS]] {_ROLLING}",
        _with_func("restart_group", _fill_group),
        _finish_group,
    ),
    "restart-all": (
        "restart every process that should run",
        f"[--wait [SECONDS]] {_ROLLING}",
        _with_func("restart_all", _fill_restart_all),
        _finish_nothing,
    ),
    "start": ("start processes", _SOME, _with_func("start", _fill_names), _finish_names),
    "stop": (
        "stop processes until they are started or changed",
        _SOME,
        _with_func("stop", _fill_names),
        _finish_names,
    ),
    "enable": ("let processes run again", _SOME, _with_func("enable", _fill_names), _finish_names),
    "disable": (
        "keep the definitions but do not run them",
        _SOME,
        _with_func("disable", _fill_names),
        _finish_names,
    ),
    "signal": (
        "send a signal to a process",
        "NAME SIGNAL [--scope process|tree] [--wait [SECONDS]]",
        _with_func("signal", _fill_signal),
        _finish_signal,
    ),
    "status": (
        "show how processes are",
        "[NAME | GLOB | GROUP] … [--long] [--json] [--watch [SECONDS]]",
        _with_func("status", _fill_status),
        _finish_status,
    ),
    "health": (
        "tell whether all is well: by the exit status, and what is not in lines",
        "[NAME | GLOB | GROUP] … [--json]",
        _with_func("health", _fill_health),
        _finish_status,
    ),
    "why": (
        "explain why processes are as they are, and what to do",
        "NAME … [--json]",
        _with_func("why", _fill_why),
        _finish_names,
    ),
    "events": (
        "show what happened",
        "[NAME | GLOB] … [-f] [-n COUNT] [--since TIME] [--json]",
        _with_func("events", _fill_events),
        _finish_status,
    ),
    "wait": (
        "wait until processes are as one wants them",
        "(NAME … [--for GOAL] | --converged [--ignore-problems]) [--timeout SECONDS]",
        _with_func("wait_for", _fill_wait_verb),
        _finish_wait,
    ),
    "jobs": (
        "show when jobs run, and how they fared",
        "[NAME | GLOB | GROUP] … [--json] [--watch [SECONDS]]",
        _with_func("jobs", _fill_jobs),
        _finish_status,
    ),
    "run": (
        "run a job, or any process that does not run, now",
        "NAME [--wait [SECONDS]] [--follow]",
        _with_func("run", _fill_run),
        _finish_name,
    ),
    "history": (
        "show how the instances of a process ended",
        "NAME [-n COUNT] [--lines] [--json]",
        _with_func("history", _fill_history),
        _finish_name,
    ),
    "logs": (
        "show what processes printed",
        "[NAME | GLOB | GROUP] … [-f] [-n LINES] [--since TIME] [--grep RE] [-t] [--stderr] [--json]",
        _with_func("read_logs", _fill_logs),
        _finish_status,
    ),
    "check": (
        "tell what is wrong with config files",
        "[FILE | DIR] … [--strict] [--no-strict-modes] [--json]",
        _with_func("check", _fill_check),
        _finish_check,
    ),
    "diff": (
        "tell what would happen if the files of DIR were the configuration",
        "DIR [--json]",
        _with_func("diff", _fill_diff),
        _finish_source,
    ),
    "apply": (
        "put the files of DIR into the config directory",
        "DIR [--prune] [--dry-run] [--wait [SECONDS]] [--json]",
        _with_func("apply", _fill_apply),
        _finish_source,
    ),
    "scan": ("look at the directories now", "[--wait [SECONDS]]", _with_func("scan", _fill_wait), _finish_nothing),
    "upgrade": (
        "go on as the version that is installed now",
        "[--wait [SECONDS]]",
        _with_func("upgrade", _fill_wait),
        _finish_nothing,
    ),
    "shutdown": (
        "stop every process and end",
        "[--wait [SECONDS]]",
        _with_func("shutdown", _fill_wait),
        _finish_nothing,
    ),
}
