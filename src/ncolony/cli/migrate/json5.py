"""JSON as people write it for pm2: with comments, trailing commas, bare keys. Every value knows its line."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from .report import Refused

_DEEPEST = 60
_SPACE = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"', re.DOTALL)
_SINGLE = re.compile(r"'(?:[^'\\\n]|\\.)*'", re.DOTALL)
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_WORD = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*", re.ASCII)
_WORDS = {"true": True, "false": False, "null": None, "undefined": None}
_LONGEST_NUMBER = 40


@dataclasses.dataclass
class Node:
    """A value and the line it begins on: `value` is a dict or list of Nodes, or a plain value."""

    value: Any
    line: int

    def plain(self) -> Any:
        """The value without lines."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value


def parse(text: str) -> Node:
    """The one value in `text`.

    :raises Refused: when it is no JSON, comments and trailing commas aside.
    """
    reader = _Reader(text.removeprefix("\ufeff"))
    found = reader.value(0)
    reader.skip()
    if reader.at < len(reader.text.rstrip().rstrip(";")):
        raise reader.wrong("something follows the end of the value")
    return found


def begin(text: str) -> int:
    """Where the text begins, spaces and comments left behind."""
    reader = _Reader(text)
    reader.skip()
    return reader.at


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at, self._counted, self._line = text, 0, 0, 1

    def line(self) -> int:
        """The line of the present place; the place only moves on."""
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def wrong(self, why: str) -> Refused:
        return Refused(why, self.line())

    def skip(self) -> str:
        """Go to the next thing that is neither space nor comment; its first character, "" at the end."""
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return self.text[self.at : self.at + 1]

    def take(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.at)
        if found is None:
            return None
        self.at = found.end()
        return found[0]

    def value(self, depth: int) -> Node:
        if depth > _DEEPEST:
            raise self.wrong("nested too deeply")
        first, line = self.skip(), self.line()
        if first == "{":
            return Node(self._object(depth), line)
        if first == "[":
            return Node(self._list(depth), line)
        if first and first in "\"'":
            return Node(self._string(), line)
        if (number := self.take(_NUMBER)) is not None:
            if len(number) > _LONGEST_NUMBER:
                raise self.wrong("the number is too long")
            return Node(json.loads(re.sub(r"^(-?)0+(?=[0-9])", r"\1", number)), line)
        word = self.take(_WORD)
        if word in _WORDS:
            return Node(_WORDS[word], line)
        raise self.wrong(f"expected a JSON value{f', found {word}: nothing is executed here' if word else ''}")

    def _string(self) -> str:
        text = self.take(_STRING)
        if text is None:
            single = self.take(_SINGLE)
            if single is None:
                raise self.wrong("the text does not end on its line")
            text = '"' + single[1:-1].replace("\\'", "'").replace('"', '\\"') + '"'
        try:
            found = json.loads(text, strict=False)
        except ValueError:
            raise self.wrong("the text holds an escape that JSON does not know") from None
        if any("\ud800" <= one <= "\udfff" for one in found):
            raise self.wrong("the text holds half a character")
        return str(found)

    def _object(self, depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        self.at += 1
        while (first := self.skip()) != "}":
            line = self.line()
            key = self._string() if first and first in "\"'" else self.take(_WORD)
            if key is None:
                raise self.wrong("expected a key or }")
            if self.skip() != ":":
                raise self.wrong(f"expected a colon behind {key}")
            self.at += 1
            found[key] = Node(self.value(depth + 1).value, line)
            self._comma("}")
        self.at += 1
        return found

    def _list(self, depth: int) -> list[Node]:
        found = []
        self.at += 1
        while self.skip() != "]":
            found.append(self.value(depth + 1))
            self._comma("]")
        self.at += 1
        return found

    def _comma(self, end: str) -> None:
        first = self.skip()
        if first == ",":
            self.at += 1
        elif first != end:
            raise self.wrong(f"expected a comma or {end}")
