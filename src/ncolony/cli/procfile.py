"""Procfiles: what foreman and its kin read."""

from __future__ import annotations

import re

from ncolony.model.variables import lines_with_numbers

_LINE = re.compile(r"([A-Za-z0-9_-]+)\s*:\s*(.*)")


def parse(text: str) -> dict[str, str]:
    """The commands of a Procfile by name, in its order: lines `NAME: COMMAND`, blank ones and `#` comments between.

    :raises ValueError: for any other line and for a name that comes twice; the text names the line.
    """
    found: dict[str, str] = {}
    for number, line in lines_with_numbers(text):
        match = _LINE.fullmatch(line)
        if match is None or not match[2]:
            raise ValueError(f"line {number}: expected NAME: COMMAND, found {line!r}")
        if match[1] in found:
            raise ValueError(f"line {number}: there is a {match[1]!r} already")
        found[match[1]] = match[2]
    return found
