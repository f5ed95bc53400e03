"""`ncolony --help`: every command there is, in groups."""

from __future__ import annotations

import ast
import os

from ncolony import cli
from ncolony.cli import parser, say

TYPE_CHECKING = False  # see ctllib
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# What is in no group here comes under the last heading.
_GROUPS = {
    "What is to run": "add remove enable disable apply diff check",
    "What runs": "status health why history logs events wait jobs",
    "Requests": "start stop run restart restart-group restart-all reload signal",
    "The colony as a whole": "scan upgrade shutdown",
}
_OTHERS = "Further"
_BESIDE = "Beside ctl"
_INDENT, _COLUMN = 2, 18


def main(words: Sequence[str]) -> int:
    """Print the overview; returns the exit status."""
    verbs = {verb: row[0] for verb, row in parser._VERBS.items()}
    lines = ["usage: ncolony [ctl] --messages DIR --config DIR [--state DIR] VERB …", "       ncolony PROGRAM …", ""]
    lines.append("NColony starts programs and keeps them running. This controls a colony through its directories.")
    grouped = {heading: [verb for verb in names.split() if verb in verbs] for heading, names in _GROUPS.items()}
    grouped[_OTHERS] = [verb for verb in verbs if not any(verb in names for names in grouped.values())]
    for heading, names in grouped.items():
        lines += _section(heading, ((verb, verbs[verb]) for verb in names))
    lines += _section(_BESIDE, ((name, _about(module)) for name, module in sorted(cli._PROGRAMS.items())))
    lines += _section("The supervisor", [("python -m twisted ncolony --help", "")])
    lines += ["", "Options and arguments of each: ncolony ctl VERB --help, ncolony PROGRAM --help.", ""]
    say("\n".join(lines))
    return 0


def _section(heading: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    lines = [f"{' ' * _INDENT}{name:<{_COLUMN}}{text}".rstrip() for name, text in rows]
    return ["", f"{heading}:", *lines] if lines else []


def _about(module: str) -> str:
    """What a program's module says of it in its first line, "`schema`: the JSON Schema …", without loading it."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{module}.py")
    with open(path, encoding="utf-8") as file:
        said = ast.get_docstring(ast.parse(file.read())) or ""
    return said.partition("\n")[0].rpartition("`: ")[2].rstrip(".")
