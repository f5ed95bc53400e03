"""Files of environment variables: lines NAME=VALUE, as shells, Docker, foreman and systemd write them."""

from __future__ import annotations

import re

_VARIABLE = re.compile(r"(?:export[ \t]+)?([A-Za-z_][^\s=]*)[ \t]*=[ \t]*(.*)")
# Nothing else is blank: a value may end in any other space.
_BLANKS = " \t\r"
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def parse_variables(text: str) -> dict[str, str]:
    """The variables of such a file: lines `NAME=VALUE`, perhaps with `export` before, blank ones and `#` comments.

    A value may be in quotes; in double ones, backslash escapes the next character and `\\n` is a new line. A value
    without them ends before ` #`. Nothing is expanded.

    :raises ValueError: for any other line; the text names the line, and does not show it.
    """
    found: dict[str, str] = {}
    for number, line in lines_with_numbers(text):
        match = _VARIABLE.fullmatch(line)
        if match is None or "\0" in line:
            raise ValueError(f"line {number}: expected NAME=VALUE")
        found[match[1]] = _value(match[2])
    return found


def lines_with_numbers(text: str) -> list[tuple[int, str]]:
    """The lines that say something, with their numbers."""
    numbered = ((number, line.strip(_BLANKS)) for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1))
    return [(number, line) for number, line in numbered if line and not line.startswith("#")]


def _value(text: str) -> str:
    if quoted := re.match(r"'([^']*)'", text):
        return quoted[1]
    if quoted := re.match(r'"((?:[^"\\]|\\.)*)"', text):
        return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), quoted[1])
    return re.split(r"[ \t]+#", text, maxsplit=1)[0]
