"""Procfiles, and the .env files beside them: what foreman and its kin read."""

from __future__ import annotations

import re

_LINE = re.compile(r"([A-Za-z0-9_-]+)\s*:\s*(.*)")
_VARIABLE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def parse(text: str) -> dict[str, str]:
    """The commands of a Procfile by name, in its order: lines `NAME: COMMAND`, blank ones and `#` comments between.

    :raises ValueError: for any other line and for a name that comes twice; the text names the line.
    """
    found: dict[str, str] = {}
    for number, line in _lines(text):
        match = _LINE.fullmatch(line)
        if match is None or not match[2]:
            raise ValueError(f"line {number}: expected NAME: COMMAND, found {line!r}")
        if match[1] in found:
            raise ValueError(f"line {number}: there is a {match[1]!r} already")
        found[match[1]] = match[2]
    return found


def parse_env(text: str) -> dict[str, str]:
    """The variables of an .env file: lines `NAME=VALUE`, perhaps with `export` before, blank ones and comments.

    A value may be in quotes; in double ones, backslash escapes the next character and `\\n` is a new line. A value
    without them ends before ` #`. Nothing is expanded.

    :raises ValueError: for any other line; the text names the line.
    """
    found: dict[str, str] = {}
    for number, line in _lines(text):
        match = _VARIABLE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number}: expected NAME=VALUE, found {line!r}")
        found[match[1]] = _value(match[2])
    return found


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines that say something, with their numbers."""
    numbered = ((number, line.strip()) for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1))
    return [(number, line) for number, line in numbered if line and not line.startswith("#")]


def _value(text: str) -> str:
    if quoted := re.match(r"'([^']*)'", text):
        return quoted[1]
    if quoted := re.match(r'"((?:[^"\\]|\\.)*)"', text):
        return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), quoted[1])
    return re.split(r"\s+#", text, maxsplit=1)[0]
