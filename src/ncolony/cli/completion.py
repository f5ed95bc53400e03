"""`completion`: scripts that let a shell complete commands, options and the names of processes.

The scripts ask this module what may stand next, with the words typed so far; it reads that off the parsers. So they
need not be made anew when a command gets an option. Each answer is a kind in the first line (words, files, directories
or commands) and, for words, one candidate a line, with a tab and what it means where that is known.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import re

from ncolony import cli, ctllib
from ncolony.cli import parser, say
from ncolony.model.names import is_ignored
from ncolony.system.files import Unreadable, read_small

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    Answer = tuple[str, list[tuple[str, str]]]

_ASK = "--for"
# What stands for a value in help texts -> what it may be. A name of a destination in the second table goes before it.
_BY_METAVAR = {
    "NAME": "processes",
    "GROUP": "groups",
    "SIGNAL": "signals",
    "DIR": "directories",
    "FILE": "files",
    "PATH": "files",
    "JSON": "files",
    "CMD": "commands",
    "USER": "users",
}
_BY_DESTINATION = {"uid": "users", "gid": "owning_groups", "env_inherit": "variables", "env": "nothing"}
_BY_SHELL = ("files", "directories", "commands")
# Verbs about config files, which copies of a process do not have.
_OF_FILES = ("add", "remove", "enable", "disable")


def build() -> argparse.ArgumentParser:
    """The parser of `ncolony completion`."""
    found = argparse.ArgumentParser(
        prog="ncolony completion", description="Print a script that lets a shell complete the words of ncolony."
    )
    found.add_argument("shell", choices=tuple(_SCRIPTS), help="the shell it is for")
    return found


def main(words: Sequence[str]) -> int:
    """Print a script, or answer one that asks; returns the exit status."""
    if words[:1] == [_ASK] and len(words) >= (4 if words[1:2] == ["bash"] else 2):
        shell, typed = words[1], list(words[2:])
        say(_for_bash(typed[0], typed[1]) if shell == "bash" else _as_lines(*candidates(typed)))
        return 0
    say(_SCRIPTS[build().parse_args(words).shell].replace("@ASK@", f"completion {_ASK}").lstrip("\n"))
    return 0


# --- what may stand next ---


def candidates(typed: Sequence[str]) -> Answer:
    """What the last of the words may become; the others are those before it, without the name of the command.

    The kind, and for the kind "words" each candidate with what it means, or "".
    """
    words, current = list(typed[:-1]), typed[-1] if typed else ""
    if words[:1] and words[0] in cli._PROGRAMS:
        return _of_program(cli._PROGRAMS[words[0]], words[1:], current)
    if words[:1] == ["ctl"]:
        del words[0]
        first = False
    else:
        first = not words
    return _of_control(words, current, first)


def _of_control(words: list[str], current: str, first: bool) -> Answer:
    """Behind `ctl`, or where it was left out; `first` says that it may still come."""
    top = parser.build()
    given, rest, pending = _read(top, words)
    verbs: dict[str, Any] = next(a.choices for a in top._actions if isinstance(a, argparse._SubParsersAction))
    colony = _Colony(given)
    if pending is not None:
        return _values(pending, current, colony)
    if not rest:
        if current.startswith("-"):
            return _options(top, current, colony)
        beside = [("ctl", "control a colony")] + [(name, "") for name in cli._PROGRAMS] if first else []
        return _matching([(verb, parser._VERBS[verb][0]) for verb in verbs] + beside, current)
    verb = verbs.get(rest[0])
    if verb is None:
        return "words", []
    if verb._fill:
        verb._fill(verb)
    colony.only_files = rest[0] in _OF_FILES
    return _of_parser(verb, rest[1:], current, colony, _positionals(parser._VERBS[rest[0]][1]))


def _of_program(module: str, words: list[str], current: str) -> Answer:
    """A command beside ctl: its module's `build` makes its parser, where it has one."""
    make = getattr(importlib.import_module(f"ncolony.cli.{module}"), "build", None)
    if make is None:
        return "files", []
    made = make()
    places = [a for a in made._actions if not a.option_strings]
    return _of_parser(made, words, current, _Colony({}), places)


def _of_parser(
    one: argparse.ArgumentParser, words: list[str], current: str, colony: _Colony, places: Sequence[Any]
) -> Answer:
    given, rest, pending = _read(one, words)
    colony.take(given)
    if "--" in words:
        return ("commands" if words[-1] == "--" else "files"), []
    if pending is not None:
        return _values(pending, current, colony)
    if current.startswith("-"):
        return _options(one, current, colony)
    if not places:
        return "words", []
    place = places[min(len(rest), len(places) - 1)]
    if len(rest) >= len(places) and not _repeats(place):
        return "words", []
    return _values(place, current, colony)


def _read(one: argparse.ArgumentParser, words: list[str]) -> tuple[dict[str, str], list[str], Any]:
    """What the words before the current one say: values by destination, words that are no options, and the action
    whose value comes next. Nothing is read behind the first word that chooses a subparser."""
    given: dict[str, str] = {}
    rest: list[str] = []
    pending: Any = None
    stops = one._subparsers is not None
    for at, word in enumerate(words):
        if pending is not None:
            given[pending.dest], pending = word, None
        elif word.startswith("-") and word != "-":
            name, equals, value = word.partition("=")
            action = one._option_string_actions.get(name)
            if action is not None and action.nargs is None:
                if equals:
                    given[action.dest] = value
                elif name != "--wait":  # a number may follow, and need not
                    pending = action
        else:
            rest.append(word)
            if stops:
                return given, words[at:], None
    return given, rest, pending


def _options(one: argparse.ArgumentParser, current: str, colony: _Colony) -> Answer:
    """Options that begin so, or values of the one that stands before "="."""
    name, equals, value = current.partition("=")
    if equals:
        action = one._option_string_actions.get(name)
        if action is None or action.nargs is not None:
            return "words", []
        kind, found = _values(action, value, colony)
        return kind, [(f"{name}={text}", about) for text, about in found]
    offered = []
    for action in one._actions:
        if action.option_strings and action.help is not argparse.SUPPRESS:
            about = (action.help or "").replace("%%", "%")
            # The long form says what it is.
            offered.append((max(action.option_strings, key=len), about))
    return _matching(offered, current)


class _Positional:
    """A word without an option, as a verb's usage names it: "NAME", or "NAME …" for several."""

    dest, choices, option_strings = "", None, ()

    def __init__(self, metavar: str, repeats: bool) -> None:
        self.metavar, self.repeats = metavar, repeats


def _positionals(usage: str) -> list[_Positional]:
    """The words that a verb takes, read off its usage: "NAME SIGNAL [--scope …]" are a NAME and a SIGNAL."""
    inner = r"[^\[\]]*"
    usage = re.sub(rf"\[(-{inner}|options)(\[{inner}\]{inner})*\]", "", usage.partition("(--")[0])
    found = re.findall(r"\[?([A-Z]+)(?: \| [A-Z]+)*\]?( …)?", usage)
    return [_Positional(word, bool(more)) for word, more in found]


def _repeats(place: Any) -> bool:
    return bool(getattr(place, "repeats", False) or getattr(place, "nargs", None) in ("*", "+"))


def _values(action: Any, current: str, colony: _Colony) -> Answer:
    """What the value of an option or a word without one may be."""
    if action.choices is not None:
        return _matching([(str(choice), "") for choice in action.choices], current)
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    kind = _BY_DESTINATION.get(action.dest) or _BY_METAVAR.get(metavar.strip("[]"), "nothing")
    if kind in _BY_SHELL:
        return kind, []
    return _matching([(text, "") for text in getattr(colony, kind)()], current)


def _matching(found: Iterable[tuple[str, str]], current: str) -> Answer:
    # Nobody can type what is no text, and a line break would be two candidates.
    return "words", [(text, about) for text, about in found if text.startswith(current) and text.isprintable()]


class _Colony:
    """What there is in the colony that the words name, or the environment."""

    def __init__(self, given: dict[str, str]) -> None:
        variables = {"config": ctllib.CONFIG_VARIABLE, "messages": ctllib.MESSAGES_VARIABLE}
        self._given = {key: os.environ.get(variable) for key, variable in variables.items()}
        self.only_files = False
        self.take(given)

    def take(self, given: dict[str, str]) -> None:
        """Options that say where it is."""
        for key in ("config", "messages", "state"):
            if given.get(key):
                self._given[key] = os.path.expanduser(given[key])

    def _directories(self) -> list[str]:
        """Where there is a file for each process: the definitions, then the reports, as far as they can be found."""
        config, messages, state = (self._given.get(key) for key in ("config", "messages", "state"))
        found = [config] if config else []
        if not self.only_files and (state or (config and messages)):
            from ncolony.system.places import state_directory

            found.append(os.path.join(state_directory(config or "", messages or "", state), "status"))
        return found

    def processes(self) -> list[str]:
        """The names of all processes."""
        return sorted({name for directory in self._directories() for name in _names(directory)})

    def groups(self) -> list[str]:
        """The groups that any process says it is in."""
        found: set[str] = set()
        for directory in self._directories():
            for name in _names(directory):
                with contextlib.suppress(OSError, Unreadable, ValueError, RecursionError, AttributeError):
                    group = json.loads(read_small(os.path.join(directory, name))).get("group")
                    listed = group if isinstance(group, list) else [group]
                    found |= {one for one in listed if isinstance(one, str)}
        return sorted(found)

    def signals(self) -> list[str]:
        """The names of signals, without SIG."""
        import signal

        return sorted(name.removeprefix("SIG") for name in signal.Signals.__members__)

    def users(self) -> list[str]:
        """Users of this machine."""
        import pwd

        return sorted(entry.pw_name for entry in pwd.getpwall())

    def owning_groups(self) -> list[str]:
        """Groups of users of this machine."""
        import grp

        return sorted(entry.gr_name for entry in grp.getgrall())

    def variables(self) -> list[str]:
        """Variables that are set here."""
        return sorted(os.environ)

    def nothing(self) -> list[str]:
        """What nobody can foresee."""
        return []


def _names(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if not is_ignored(entry.name) and not entry.is_dir()]
    except OSError:
        return []


# --- what the shells are told ---


def _as_lines(kind: str, found: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{line}\n" for line in (kind, *(f"{text}\t{about}".rstrip("\t") for text, about in found)))


def _for_bash(line: str, breaks: str) -> str:
    """The answer for the command line up to the cursor. Bash replaces only what follows the last of the `breaks`."""
    words, quote = _split(line)
    kind, found = candidates(words[1:])
    typed = words[-1] if words else ""
    cut = 0 if quote else 1 + max((typed.rfind(mark) for mark in "=:" if mark in breaks), default=-1)
    shown = [(text[cut:] if quote else _escaped(text[cut:]), "") for text, _ in found]
    return _as_lines(kind, shown)


def _split(line: str) -> tuple[list[str], str]:
    """The words of a command line as a shell sees them, the last perhaps unfinished or empty, and its open quote."""
    words, quote, started = [""], "", False
    letters = iter(line)
    for letter in letters:
        if quote == "'" or (quote and letter not in '"\\'):
            if letter == quote:
                quote = ""
            else:
                words[-1] += letter
        elif letter == "\\":
            words[-1] += next(letters, "")
            started = True
        elif letter == quote:
            quote = ""
        elif letter in "'\"":
            quote, started = letter, True
        elif letter in " \t\n":
            if words[-1] or started:
                words.append("")
            started = False
        else:
            words[-1] += letter
    return words, quote


def _escaped(text: str) -> str:
    return re.sub(r"([^\w@%+=:,./\-])", r"\\\1", text)


_BASH = r"""
# ncolony completion for bash: in ~/.bashrc, source <(ncolony completion bash)
_ncolony() {
    local command="${1/#\~/$HOME}" current="${COMP_WORDS[COMP_CWORD]}" kind line
    local -a answer=()
    mapfile -t answer < <("$command" @ASK@ bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
    kind="${answer[0]}"
    COMPREPLY=()
    [[ $current == [=:] ]] && current=
    case "$kind" in
        words) COMPREPLY=("${answer[@]:1}") ;;
        files) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        directories) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
        commands) mapfile -t COMPREPLY < <(compgen -c -- "$current") ;;
    esac
}
complete -F _ncolony ncolony
"""
_ZSH = r"""
#compdef ncolony
# ncolony completion for zsh: in ~/.zshrc, after compinit, source <(ncolony completion zsh);
# or save it as _ncolony in a directory of $fpath.
_ncolony() {
    local -a answer values shown
    local line
    answer=("${(@f)$("${(Q)words[1]/#\~/$HOME}" @ASK@ zsh "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    case "${answer[1]}" in
        words)
            for line in "${(@)answer[2,-1]}"; do
                values+=("${line%%$'\t'*}")
                shown+=("${line/$'\t'/  -- }")
            done
            compadd -l -d shown -a values
            ;;
        files) compset -P '*='; _files ;;
        directories) compset -P '*='; _files -/ ;;
        commands) compset -P '*='; _command_names -e ;;
    esac
}
if [[ $funcstack[1] == _ncolony ]]; then
    _ncolony "$@"
else
    compdef _ncolony ncolony
fi
"""
_FISH = r"""
# ncolony completion for fish: save it as ~/.config/fish/completions/ncolony.fish
function __ncolony_complete
    set -l words (commandline -opc)
    set -l token (commandline -ct)
    set -l command (string replace -r '^~' $HOME -- $words[1])
    set -l answer ($command @ASK@ fish $words[2..-1] $token 2>/dev/null)
    set -l option (string match -r '^--[^=]*=' -- $token)
    set -l value (string replace -- "$option" '' $token)
    switch "$answer[1]"
        case words
            string join \n -- $answer[2..-1]
        case files
            printf '%s\n' "$option"(__fish_complete_path $value)
        case directories
            printf '%s\n' "$option"(__fish_complete_directories $value)
        case commands
            __fish_complete_command
    end
end
complete -c ncolony -f -a '(__ncolony_complete)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
