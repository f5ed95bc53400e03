"""HCL, the language of Nomad's jobs, as far as jobs need it."""

from __future__ import annotations

import json
import re
from typing import Any


class Block:
    """A block of HCL: its words, its attributes and the blocks in it, in order."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.content: list[tuple[str, Any] | Block] = []

    def set(self, key: str, value: Any) -> None:
        """Add an attribute."""
        self.content.append((key, value))

    def block(self, *words: str) -> Block:
        """Add a block in this one."""
        inner = Block(*words)
        self.content.append(inner)
        return inner

    def lines(self, indent: str = "") -> list[str]:
        """The text of it."""
        kind, *names = self.words
        found = [f"{indent}{' '.join([kind, *map(text, names)])} {{"]
        for one in self.content:
            if isinstance(one, Block):
                found += one.lines(indent + "  ")
            else:
                found.append(f"{indent}  {one[0]} = {_value(one[1], indent + '  ')}")
        return [*found, f"{indent}}}"]


class Verbatim(str):
    """Text in which ${…} is meant as Nomad's."""

    __slots__ = ()


def text(value: str) -> str:
    """A quoted text of HCL, in which ${ and %{ are no templates."""
    quoted = json.dumps(value, ensure_ascii=False)
    # HCL knows \n, \r, \t, \", \\ and \u; JSON's \b and \f it does not.
    quoted = re.sub(r"\\(\\|b|f)", lambda found: {"\\": "\\\\", "b": "\\u0008", "f": "\\u000c"}[found[1]], quoted)
    if not isinstance(value, Verbatim):
        quoted = re.sub(r"([$%])(?=\{)", r"\1\1", quoted)
    return quoted


def _value(value: Any, indent: str) -> str:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(one, indent) for one in value) + "]"
    if isinstance(value, dict):  # a map, whose keys may be any text, not a block
        lines = [f"{indent}  {text(key)} = {_value(one, indent)}" for key, one in value.items()]
        return "\n".join(["{", *lines, f"{indent}}}"])
    return json.dumps(value)
