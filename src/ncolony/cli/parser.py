"""The arguments of every command. What is parsed can be given to ctllib.call, as upstream's parser allows."""

from __future__ import annotations

import argparse
import json
import os

from ncolony import ctllib

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

DEFAULT_WAIT_S = 30.0
_PLACES = {"config": ctllib.CONFIG_VARIABLE, "messages": ctllib.MESSAGES_VARIABLE}
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
    if given.isdigit() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


class _Top(argparse.ArgumentParser):
    """Takes the two directories from the environment where they are not given."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(args, namespace)
        for key, variable in _PLACES.items():
            if getattr(found, key) is None:
                setattr(found, key, os.environ.get(variable))
            if not getattr(found, key):
                self.error(f"the directory of {key} is missing: give --{key} DIR or set {variable}")
        return found, rest


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
        found, rest = super().parse_known_args(_with_seconds(words), namespace)
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


def _with_seconds(words: list[str]) -> list[str]:
    """Join --wait and the number behind it, if there is one: `--wait web` is a name, `--wait 5` is not."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] == "--wait" and _is_number(word):
            joined[-1] = f"--wait={word}"
        else:
            joined.append(word)
    return [f"--wait={DEFAULT_WAIT_S:g}" if word == "--wait" else word for word in joined]


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
        help=f"wait until it is in effect, at most SECONDS ({DEFAULT_WAIT_S:g} if left out); it is an error if not",
    )


def _fill_name(verb: _Verb) -> None:
    verb.add_argument("--name", action="append", metavar="NAME", help="the process, if not given as NAME")
    _fill_wait(verb)


def _fill_names(verb: _Verb) -> None:
    verb.add_argument("--name", dest="names", action="append", metavar="NAME", help="a process; may be repeated")
    _fill_wait(verb)


def _fill_group(verb: _Verb) -> None:
    verb.add_argument("--group", action="append", metavar="GROUP", help="the group, if not given as GROUP")
    _fill_wait(verb)


def _fill_status(verb: _Verb) -> None:
    verb.add_argument(
        "--name", dest="names", action="append", metavar="NAME", help="a process or glob; may be repeated"
    )
    verb.add_argument("-l", "--long", action="store_true", help="more of each: its last exit, its last lines")
    verb.add_argument("--json", action="store_true", help="a list of records instead of a table")


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


def _finish_nothing(verb: _Verb, found: argparse.Namespace, rest: list[str], more: list[str] | None) -> None:
    if rest or more:
        verb.error(f"unrecognized arguments: {' '.join([*rest, *(more or [])])}")


def _with_func(func: Callable[..., Any] | str, fill: Callable[[_Verb], None]) -> Callable[[_Verb], None]:
    """`func` by its name in ctllib when it is one that is loaded only when needed."""

    def filled(verb: _Verb) -> None:
        verb.set_defaults(func=getattr(ctllib, func) if isinstance(func, str) else func)
        fill(verb)

    return filled


_ONE, _SOME = "NAME [--wait [SECONDS]]", "NAME … [--wait [SECONDS]]"
# verb: what it does, its usage, its options, what is made of its names
_VERBS: dict[str, tuple[str, str, Callable[[_Verb], None], _Finish]] = {
    "add": (
        "define a process, or redefine it",
        "NAME [options] (--cmd CMD [--arg ARG] … | -- CMD [ARG] …)",
        _with_func(ctllib.add, _fill_add),
        _finish_add,
    ),
    "remove": ("remove a process", _ONE, _with_func(ctllib.remove, _fill_name), _finish_name),
    "restart": ("restart a process", _ONE, _with_func(ctllib.restart, _fill_name), _finish_name),
    "restart-group": (
        "restart the processes of a group",
        "GROUP [--wait [SECONDS]]",
        _with_func(ctllib.restart_group, _fill_group),
        _finish_group,
    ),
    "restart-all": (
        "restart every process that should run",
        "[--wait [SECONDS]]",
        _with_func(ctllib.restart_all, _fill_wait),
        _finish_nothing,
    ),
    "start": ("start processes", _SOME, _with_func(ctllib.start, _fill_names), _finish_names),
    "stop": (
        "stop processes until they are started or changed",
        _SOME,
        _with_func(ctllib.stop, _fill_names),
        _finish_names,
    ),
    "enable": ("let processes run again", _SOME, _with_func(ctllib.enable, _fill_names), _finish_names),
    "disable": (
        "keep the definitions but do not run them",
        _SOME,
        _with_func(ctllib.disable, _fill_names),
        _finish_names,
    ),
    "signal": (
        "send a signal to a process",
        "NAME SIGNAL [--scope process|tree] [--wait [SECONDS]]",
        _with_func(ctllib.signal, _fill_signal),
        _finish_signal,
    ),
    "status": (
        "show how processes are",
        "[NAME | GLOB] … [--long] [--json]",
        _with_func(ctllib.status, _fill_status),
        _finish_status,
    ),
    "history": (
        "show how the instances of a process ended",
        "NAME [-n COUNT] [--lines] [--json]",
        _with_func(ctllib.history, _fill_history),
        _finish_name,
    ),
    "logs": (
        "show what processes printed",
        "[NAME | GLOB | GROUP] … [-f] [-n LINES] [--since TIME] [--grep RE] [-t] [--stderr] [--json]",
        _with_func("read_logs", _fill_logs),
        _finish_status,
    ),
    "scan": ("look at the directories now", "[--wait [SECONDS]]", _with_func(ctllib.scan, _fill_wait), _finish_nothing),
    "upgrade": (
        "go on as the version that is installed now",
        "[--wait [SECONDS]]",
        _with_func(ctllib.upgrade, _fill_wait),
        _finish_nothing,
    ),
    "shutdown": (
        "stop every process and end",
        "[--wait [SECONDS]]",
        _with_func(ctllib.shutdown, _fill_wait),
        _finish_nothing,
    ),
}
